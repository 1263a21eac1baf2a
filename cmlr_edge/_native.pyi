import numpy as np
from numpy.typing import NDArray

ATTENTION_NAME: str
ATTENTION_DOMAIN: str
ATTENTION_VERSION: str
READ_LOSS_LOG: int

def attention(
    query: NDArray[np.float32],
    key: NDArray[np.float32],
    value: NDArray[np.float32],
    *,
    num_heads: int,
    scale: float,
    key_bias: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]: ...
def resize_area(
    source: NDArray[np.uint8],
    out: NDArray[np.uint8],
    *,
    swap_channels: bool,
    instruction_set: str | None = None,
) -> None: ...
def resize_instruction_sets() -> list[str]: ...
def lost_rtp_packets() -> int: ...
def lost_references() -> int: ...
