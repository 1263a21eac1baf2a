"""Labels that are added to an engine on the device, from a few pictures, without PyTorch."""
