"""A device that is not the CPU, on a machine that has no other.

Its tensors are computed by the CPU, but they do not meet the CPU's own: what CUDA refuses is
refused. So code that forgets to move a tensor fails here as it would on a GPU. Inside `elsewhere()`
the device is `THERE`.
"""

from contextlib import contextmanager
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("elsewhere")
THERE = torch.device("elsewhere:0")
aten = torch.ops.aten
INDEXING = aten.index.Tensor, aten.index_put.default, aten.index_put_.default
INDEXING += (aten._index_put_impl_.default, aten._unsafe_index.Tensor)


class Tensor(torch.Tensor):
    """A tensor elsewhere. What it holds lies in `raw`, on the CPU."""

    @staticmethod
    def __new__(cls, raw):
        layout = raw.shape, raw.stride(), raw.storage_offset()
        tensor = cls._make_wrapper_subclass(cls, *layout, dtype=raw.dtype, device=THERE)
        tensor.raw = raw
        return tensor

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return carry_out(operation, args, kwargs or {})

    def __repr__(self):
        return f"elsewhere: {self.raw!r}"

    def tolist(self):
        return self.cpu().tolist()

    def new_tensor(self, values, **options):
        return torch.tensor(values, **{"dtype": self.dtype, "device": self.device} | options)

    def numpy(self, **options):
        raise TypeError("can't convert a tensor that is elsewhere to numpy: use .cpu() first")


class Mode(TorchDispatchMode):
    """Also operations on no tensor from there are looked at: they may make one."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return carry_out(operation, args, kwargs or {})


def carry_out(operation, args, kwargs):
    """One operation of PyTorch: refused, or done on the CPU."""
    if operation is aten.is_pinned.default:
        return False
    if operation is aten._fused_sdp_choice.default:
        return 0  # no fused kernel
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    there = [t for t in tensors if isinstance(t, Tensor)]
    if there:
        refuse_strangers(operation, args, tensors)
    device, stays = kwargs.get("device"), bool(there)
    if device is not None:
        stays = torch.device(device).type == THERE.type
        kwargs = kwargs | {"device": torch.device("cpu") if stays else device}
    answer = operation(*raw(args), **raw(kwargs))
    if operation is aten._local_scalar_dense.default or not stays:
        return answer
    known = {id(t.raw): t for t in there}  # an operation in place gives back what it was given
    return tree_map_only(
        torch.Tensor, lambda t: known[id(t)] if id(t) in known else Tensor(t), answer
    )


def raw(tree):
    """The same arguments on the CPU."""
    return tree_map_only(Tensor, lambda t: t.raw, tree)


def refuse_strangers(operation, args, tensors):
    """As on CUDA, only a single number or an index may come from the CPU; and copies."""
    if operation in (aten._to_copy.default, aten.copy_.default):
        return
    if operation in INDEXING and isinstance(args[0], Tensor):
        tensors = [args[0], *(t for t in args[2:] if isinstance(t, torch.Tensor))]
    if any(t.ndim > 0 and not isinstance(t, Tensor) for t in tensors):
        raise RuntimeError(f"{operation}: tensors lie on two devices, {THERE.type} and cpu")


here = torch.tensor


def tensor(values, *, device=None, **options):
    """torch.tensor, which asks no mode: first here, then there."""
    made = here(values, **options)
    return made if device is None else made.to(device)


@contextmanager
def elsewhere():
    """Inside, there is such a device, and "auto" means it."""
    fastest = mock.patch("vitcourse.train.device.fastest", lambda: THERE)
    with Mode(), fastest, mock.patch("torch.tensor", tensor):
        yield THERE
