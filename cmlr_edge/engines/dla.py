"""Where a Jetson's deep learning accelerator (DLA) can be used. Unverified on hardware.

| board | TensorRT with a DLA |
|---|---|
| Orin with JetPack 6 | up to 10.7; 10.3 is JetPack's |
| AGX Orin with JetPack 7.2.2 or newer | 11.4.1 or newer, NVIDIA's package for Arm servers (SBSA) |
| Thor | none: the chip has no DLA |

TensorRT 10.8 to 11.4.0 has no DLA anywhere. A DLA takes no sizes that change at run time, and NVIDIA
documents strongly typed networks, which all of ours are, for the DLA of TensorRT 11 alone.
"""

from __future__ import annotations

_ORIN = "8.7"
_LAST_OF_TEN, _FIRST_OF_ELEVEN = (10, 7), (11, 4, 1)
WHERE = (
    "A DLA is on Orin, with TensorRT up to 10.7 (JetPack 6), and on AGX Orin with TensorRT 11.4.1 or "
    "newer (JetPack 7.2.2)"
)
_WITHOUT = "build without --useDLACore, for the GPU"


def refusal(
    compute_capability: str, tensorrt: tuple[int, ...], board: str, batch: tuple[int, int, int]
) -> str | None:
    """Why there is no DLA for an engine here, with the remedy; None: nothing speaks against it.

    Args:
        compute_capability: Of the GPU: "8.7" is an Orin, "11.0" a Thor.
        tensorrt: Major, minor and patch.
        board: What the device tree calls it; "" where that is not known.
        batch: Smallest, tuned and largest, of the engine.
    """
    version = ".".join(map(str, tensorrt))
    if compute_capability != _ORIN:
        return (
            f"compute capability {compute_capability} comes without a DLA, which of the boards here "
            f"only Orin has: {_WITHOUT}"
        )
    if tensorrt[:2] > _LAST_OF_TEN and tensorrt < _FIRST_OF_ELEVEN:
        return f"TensorRT {version} has no DLA, which 10.8 to 11.4.0 lack: {_WITHOUT}. {WHERE}"
    if tensorrt >= _FIRST_OF_ELEVEN and board and "AGX Orin" not in board:
        return f"TensorRT {version} has a DLA on AGX Orin alone, this is {board}: {_WITHOUT}"
    if len(set(batch)) > 1:
        return (
            f"a DLA takes no sizes that change at run time, and the batch is {batch}: give one "
            f"number three times (--batch 1,1,1), or {_WITHOUT}"
        )
    return None


def caution(tensorrt: tuple[int, ...]) -> str:
    """What NVIDIA does not document about a DLA that is there; "" if it does."""
    if tensorrt[:1] < (11,):
        return "NVIDIA documents strongly typed networks on a DLA for TensorRT 11 alone"
    return ""
