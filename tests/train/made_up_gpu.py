"""A GPU made of the CPU's tensors: they say cuda, compute here, and refuse what CUDA would refuse.

    python -m tests.train.made_up_gpu DATA RUN

trains and evaluates on it, so that a tensor left on the other side, or read before it was fetched, is
an error here too. Of what only a GPU can tell, kernels and their order, it tells nothing.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

GPU, HOST = torch.device("cuda", 0), torch.device("cpu")
counted: Counter[str] = Counter()
_in_backward: list[bool] = []
aten = torch.ops.aten
_Tensor: Any = torch.Tensor  # whose stubs know neither wrappers nor dispatch
_MAY_BE_INDEXED_BY_THE_HOST = {
    *(aten.index.Tensor, aten.index_put.default, aten.index_put_.default),
    aten._index_put_impl_.default,
}


class OnGpu(_Tensor):  # type: ignore[misc]
    """A tensor that only its own `cpu` and `to` bring back; `inner` is what it is made of."""

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> OnGpu:
        about = {"strides": inner.stride(), "dtype": inner.dtype, "device": HOST}
        made: OnGpu = _Tensor._make_wrapper_subclass(cls, inner.shape, **about)
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    @property
    def device(self) -> torch.device:
        return GPU

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    __array__ = numpy

    def cpu(self, **_: Any) -> torch.Tensor:
        counted["fetched"] += 1
        fetched: torch.Tensor = _Fetch.apply(self)
        return fetched

    def to(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        kwargs.pop("copy", None)
        parse: Any = torch._C._nn._parse_to
        device, dtype, _, layout = parse(*args, **kwargs)
        if device is not None and device.type == "cpu":
            return self.cpu() if dtype is None else self.cpu().to(dtype)
        changed = {"dtype": dtype, "memory_format": layout}
        moved: torch.Tensor = _Tensor.to(
            self, **{k: v for k, v in changed.items() if v is not None}
        )
        return moved

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            copy: Any = OnGpu(self.inner.clone())
            if isinstance(self, torch.nn.Parameter):
                copy = torch.nn.Parameter(copy, requires_grad=self.requires_grad)
            memo[id(self)] = copy
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.inner.__reduce_ex__(protocol)


class _Fetch(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, x: OnGpu) -> torch.Tensor:
        return x.inner.clone()

    @staticmethod
    def backward(_: Any, gradient: torch.Tensor) -> torch.Tensor:
        return OnGpu(gradient)


def _placed(found: Any) -> Any:
    def placed(x: Any) -> Any:
        return OnGpu(x) if isinstance(x, torch.Tensor) and not isinstance(x, OnGpu) else x

    return tree_map(placed, found)


def _inner(x: Any) -> Any:
    return x.inner if isinstance(x, OnGpu) else x


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute on the CPU what CUDA would do, and place what comes out."""
    asked, flat = kwargs.get("device"), tree_flatten((args, kwargs))[0]
    on_gpu = [x for x in flat if isinstance(x, OnGpu)]
    wanted = asked is not None and torch.device(asked).type == "cuda"
    kwargs = {k: HOST if k == "device" and v is not None else v for k, v in kwargs.items()}
    if func is aten._local_scalar_dense.default:
        return func(_inner(args[0]))
    if func is aten.copy_.default:
        func(*map(_inner, args), **kwargs)
        return args[0]
    found = None
    if func is not aten._to_copy.default and on_gpu:
        _refuse_mixtures(func, args, flat)
    if on_gpu or wanted:
        counted["on the GPU"] += 1
        inner_args, inner_kwargs = tree_map(_inner, args), tree_map(_inner, kwargs)
        found = func(*inner_args, **inner_kwargs)
        same = {id(x.inner): x for x in on_gpu}  # what was changed in place stays who it is
        return _placed(tree_map(lambda x: same.get(id(x), x), found))
    return func(*args, **kwargs)


def _refuse_mixtures(func: Any, args: Any, flat: list[Any]) -> None:
    indices = args[1] if func in _MAY_BE_INDEXED_BY_THE_HOST else ()
    for x in flat:
        if isinstance(x, torch.Generator) and x.device != GPU:
            raise RuntimeError(
                f"Expected a 'cuda' device type for generator but found 'cpu': {func}"
            )
        on_host = isinstance(x, torch.Tensor) and not isinstance(x, OnGpu) and x.dim() > 0
        if on_host and not any(x is index for index in indices):
            raise RuntimeError(f"Expected all tensors to be on the same device: {func}")


class _Everywhere(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        flat = tree_flatten((args, kwargs))[0]
        if _in_backward and not any(isinstance(x, torch.Tensor) for x in flat):
            return _placed(func(*args, **kwargs))  # autograd makes zeros where its tensors are
        return _run(func, args, kwargs)


class _Generator(torch.Generator):
    def __new__(cls, device: Any = "cpu") -> Any:
        made = super().__new__(cls)
        made.place = GPU if torch.device(device).type == "cuda" else HOST  # type: ignore[attr-defined]
        return made

    def __init__(self, _: Any = "cpu") -> None:
        """The device is not torch's to look at."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        place: torch.device = self.place  # type: ignore[attr-defined]
        return place


def install() -> None:
    """Let torch find it, for the rest of this process. Before `train` is imported."""
    for name, answer in (("is_available", True), ("current_device", 0), ("device_count", 1),
                         ("is_bf16_supported", True), ("manual_seed_all", None),
                         ("_lazy_init", None), ("_is_in_bad_fork", False)):  # fmt: skip
        setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)
    real: Any = {n: getattr(torch, n) for n in ("tensor", "autocast")}
    backward, load = torch.autograd.backward, torch.utils.data.DataLoader.__init__
    things: Any = torch

    def tensor(data: Any, *, device: Any = None, **about: Any) -> torch.Tensor:
        made: torch.Tensor = real["tensor"](data, **about)
        return made if device is None else made.to(device)

    def marked(*args: Any, **kwargs: Any) -> None:
        _in_backward.append(True)
        backward(*args, **kwargs)
        _in_backward.clear()

    def without_pinning(self: Any, *args: Any, **kwargs: Any) -> None:
        load(self, *args, **{**kwargs, "pin_memory": False})

    things.tensor, things.Generator, torch.autograd.backward = tensor, _Generator, marked
    things.autocast = lambda _, *args, **kwargs: real["autocast"]("cpu", *args, **kwargs)
    things.inference_mode = torch.no_grad  # it would show operators whole
    things.utils.data.DataLoader.__init__ = without_pinning
    things.optim.Optimizer._accelerator_graph_capture_health_check = lambda _: None
    things.optim.Optimizer._cuda_graph_capture_health_check = lambda _: None
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    _Everywhere().__enter__()


def main(data: str, run: str) -> None:
    """Say "refused" of a mixture, then train a little, in float16, and evaluate."""
    install()
    layer = torch.nn.Linear(2, 2).to(GPU)
    try:
        layer(torch.zeros(1, 2))
    except RuntimeError as error:
        counted["refused"] += "same device" in str(error)
    from tests.tiny_training import tiny_config
    from train.data import read_dataset
    from train.fitting.loop import fit
    from train.judging.evaluate import evaluate_run

    settings = ["epochs=1", "workers=0", "amp=fp16", "model.united_share=0.5"]
    fit(read_dataset(Path(data)), Path(run), tiny_config(*settings), show_progress=False)
    evaluate_run(Path(run), read_dataset(Path(data)), "val", min_positives=1)
    sys.stdout.write(f"{dict(counted)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
