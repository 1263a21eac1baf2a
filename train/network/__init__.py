"""The network: backbones, label decoder, intervention and rival heads."""
