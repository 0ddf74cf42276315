"""CPU tensors that say they lie on cuda:0: values are real, a mix of devices raises, synchronisations are counted.

``with CudaStandIn() as cuda:`` runs torch code over ``cuda.put(tensor)`` as a GPU would take it: an operation between
a "GPU" tensor and a CPU tensor of one dimension or more raises, a read by the host (item, tolist, a copy to the CPU, a
mask as index) is a synchronisation, and a tensor made from Python values on the device is a copy that waits.
What it cannot show: kernels, their speed, and their rounding.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
DEVICE = torch.device("cuda", 0)
READS = (aten._local_scalar_dense.default, aten.item.default, aten.is_nonzero.default)
SIZES_UNKNOWN = (aten.nonzero.default, aten.masked_select.default, aten._unique2.default)
INDEXING = (aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default)


class OnDevice(torch.Tensor):
    """A tensor that says it lies on cuda:0; ``raw`` holds its values on the CPU."""

    is_cuda = property(lambda self: True)
    device = property(lambda self: DEVICE)

    @staticmethod
    def __new__(cls, raw: torch.Tensor) -> OnDevice:
        made = torch.Tensor._make_wrapper_subclass(
            cls, raw.size(), strides=raw.stride(), storage_offset=raw.storage_offset(), dtype=raw.dtype, device="meta"
        )
        made.raw = raw
        return made

    def tolist(self) -> list:
        CudaStandIn.current.synchronisations["tolist"] += 1
        return self.raw.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func} on a device tensor outside the stand-in")


def _raw(value: Any) -> Any:
    return value.raw if isinstance(value, OnDevice) else value


def _names_device(device: Any) -> bool:
    return device is not None and torch.device(device).type in ("cuda", "meta")


class CudaStandIn(TorchDispatchMode):
    """Runs operations on the CPU and counts what would have made the host wait.

    synchronisations: by operation; copies_in: tensors that went from host to device, which is fine once, not in a loop.
    """

    current: CudaStandIn

    def __init__(self) -> None:
        super().__init__()
        self.synchronisations: Counter[str] = Counter()
        self.copies_in: Counter[str] = Counter()
        self._tensor = torch.tensor

    def __enter__(self) -> CudaStandIn:
        CudaStandIn.current = self
        torch.tensor = self._make
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch.tensor = self._tensor
        super().__exit__(*error)

    def put(self, tensor: torch.Tensor) -> OnDevice:
        """The tensor on the device."""
        return OnDevice(tensor)

    def _make(self, data: Any, *, device: Any = None, **settings: Any) -> torch.Tensor:
        if not _names_device(device):
            return self._tensor(data, device=device, **settings)
        self.synchronisations["torch.tensor(..., device=cuda)"] += 1
        with _disable_current_modes():
            raw = self._tensor(data, **settings)
        return OnDevice(raw)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        on_device = [tensor for tensor in tensors if isinstance(tensor, OnDevice)]
        name = str(func)
        if func in READS:
            self.synchronisations[name] += bool(on_device)
            return func(*tree_map(_raw, args), **kwargs)
        if func is aten.copy_.default:
            return self._copy_into(name, args[0], args[1])
        if func is aten._to_copy.default:
            return self._copy(name, func, args[0], kwargs)
        if on_device:
            for tensor in tensors:
                if not isinstance(tensor, OnDevice) and tensor.dim() > 0:
                    if func not in INDEXING:
                        raise RuntimeError(f"{name}: a CPU tensor {tuple(tensor.shape)} beside one on cuda:0")
                    self.copies_in[f"{name}, index"] += 1
        wants_device = _names_device(kwargs.get("device"))
        if wants_device:
            kwargs["device"] = "cpu"
        if on_device and (func in SIZES_UNKNOWN or self._masks(func, args)):
            self.synchronisations[name] += 1
        if func is aten.mm.dtype_out:
            return self._mixed_gemm(*args, **kwargs)
        out = kwargs.get("out")
        shape = out.shape if isinstance(out, torch.Tensor) else None
        result = func(*tree_map(_raw, args), **tree_map(_raw, kwargs))
        if shape is not None:
            assert _raw(out).shape == shape, f"{name} resized its out"
            return out
        if func._schema.name.endswith("_") and isinstance(args[0], torch.Tensor):
            return args[0]
        if on_device or wants_device:
            return tree_map(lambda made: OnDevice(made) if type(made) is torch.Tensor else made, result)
        return result

    @staticmethod
    def _masks(func: Any, args: tuple) -> bool:
        return func is aten.index.Tensor and any(index is not None and index.dtype == torch.bool for index in args[1])

    def _copy_into(self, name: str, to: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        if isinstance(to, OnDevice) != isinstance(source, OnDevice):
            (self.copies_in if isinstance(to, OnDevice) else self.synchronisations)[name] += 1
        _raw(to).copy_(_raw(source))
        return to

    def _copy(self, name: str, func: Any, source: torch.Tensor, kwargs: dict) -> torch.Tensor:
        device = kwargs.pop("device", None)
        result = func(_raw(source), **kwargs)
        if isinstance(source, OnDevice):
            if device is not None and torch.device(device).type == "cpu":
                self.synchronisations[name] += 1
                return result
            return OnDevice(result)
        if _names_device(device):
            self.copies_in[name] += 1
            return OnDevice(result)
        return result

    @staticmethod
    def _mixed_gemm(a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype, *, out: torch.Tensor) -> torch.Tensor:
        """mm(bfloat16, bfloat16, out_dtype=float32, out=...), which only CUDA has."""
        assert a.dtype == b.dtype and a.dtype in (torch.bfloat16, torch.float16)
        assert dtype == out.dtype == torch.float32 and out.shape == (a.shape[0], b.shape[1])
        torch.mm(_raw(a).float(), _raw(b).float(), out=_raw(out))
        return out
