# Only in an installation that was built with -DCMLR_CUDA=ON. Addresses are of the device.

def attention(
    *,
    element: str,
    query: int,
    key: int,
    value: int,
    key_bias: int,
    out: int,
    batches: tuple[int, int, int],
    queries: int,
    tokens: int,
    dim: int,
    num_heads: int,
    scale: float,
    stream: int,
) -> None: ...
def resize_frame(
    *,
    format: str,
    pixels: int,
    chroma: int,
    size_hw: tuple[int, int],
    out: int,
    out_hw: tuple[int, int],
    stream: int,
    row_bytes: tuple[int, int] | None = None,
    mean_std: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None,
) -> None: ...
