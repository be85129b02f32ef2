"""The border of the library: NumPy in and out, working precision, argument checks.

NumPy arrays enter as torch tensors that share their memory and leave as NumPy arrays, so that one
formula, and one written-out gradient, serves both and gives both the same bits.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch._compile import _disable_dynamo
from torch.autograd.function import Function

from lossref._shared_parameters import with_shared_parameters

Array: TypeAlias = Any
"""A NumPy array or a torch tensor."""

P = ParamSpec("P")
R = TypeVar("R")

LOG2_E = math.log2(math.e)

_WIDE = {
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
    torch.float32: torch.float64,
    torch.float64: torch.float64,
}


class TypedFunction(Function):
    """torch's autograd function, whose `apply` torch leaves without types."""

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Compute the function and record it for differentiation."""
        return super().apply(*args, **kwargs)  # type: ignore[no-untyped-call]


def takes_arrays(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function written for torch tensors take and return NumPy arrays as well."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        numpy, tensors, named = as_tensors(function.__name__, args, kwargs)
        result: Any = function(*tensors, **named)
        converted: R = as_numpy(result) if numpy else result
        return converted

    wrapper.__doc__ = with_shared_parameters(function)
    # The kernels choose their path by value, which a graph compiler cannot follow.
    outside_graphs: Callable[P, R] = _disable_dynamo(wrapper)

    @functools.wraps(wrapper)
    def eager(*args: P.args, **kwargs: P.kwargs) -> R:
        # loads the compiler, for longer than torch itself takes; where it is not loaded, none looks
        call = outside_graphs if "torch._dynamo" in sys.modules else wrapper
        return call(*args, **kwargs)

    return eager


def as_tensors(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[bool, list[Any], dict[str, Any]]:
    """The arguments of a call as tensors, and whether they were NumPy arrays."""
    values = (*args, *kwargs.values())
    numpy = any(isinstance(value, np.ndarray) for value in values)
    if numpy and any(isinstance(value, Tensor) for value in values):
        raise TypeError(f"{name} takes NumPy arrays or torch tensors, not both in one call")
    tensors = [as_tensor(value) for value in args]
    return numpy, tensors, {key: as_tensor(value) for key, value in kwargs.items()}


def as_tensor(value: Any) -> Any:
    """A tensor on the same memory as a NumPy array where possible; anything else unchanged."""
    if isinstance(value, np.generic):
        value = np.asarray(value) if isinstance(value, np.integer) else value.item()
    if not isinstance(value, np.ndarray):
        return value
    if not value.flags.writeable or any(stride < 0 for stride in value.strides):
        value = value.copy()
    if not value.dtype.isnative:
        value = value.astype(value.dtype.newbyteorder("="))
    try:
        return torch.from_numpy(value)
    except TypeError as error:
        raise TypeError(f"NumPy arrays of dtype {value.dtype} are not supported") from error


def as_torch_dtype(dtype: Any) -> torch.dtype:
    """A floating dtype of torch or NumPy as torch's; None is the default dtype."""
    if dtype is None:
        return torch.get_default_dtype()
    if not isinstance(dtype, torch.dtype):
        dtype = torch.from_numpy(np.empty(0, dtype)).dtype
    result: torch.dtype = dtype
    if result not in _WIDE:
        raise TypeError(f"dtype must be float16, bfloat16, float32 or float64, got {dtype}")
    return result


def as_numpy(value: Any) -> Any:
    """The NumPy form of a result: tensors converted, in tuples too."""
    if isinstance(value, Tensor):
        array = value.detach().cpu().numpy()
        return array[()] if array.ndim == 0 else array
    if isinstance(value, tuple):
        return tuple(as_numpy(item) for item in value)
    return value


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """The next wider format, in which everything is computed before one rounding."""
    return _WIDE[dtype]


def widen(x: Tensor) -> Tensor:
    """The tensor one format up."""
    return x.to(_WIDE[x.dtype])


def exp_(x: Tensor, dtype: torch.dtype) -> Tensor:
    """e^x in place, one format up from the dtype to which the result will be rounded.

    In float64, 2^x takes less than half the time of e^x. The rounding of x log2(e) costs at most
    2^-43 of a result that is not 0: too little to change a float32, but too much for a float64.
    """
    return x.mul_(LOG2_E).exp2_() if dtype == torch.float32 else x.exp_()


def describe(value: Any) -> str:
    """What a value is, for an error message."""
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    if isinstance(value, (int, float, str, bool)):
        return repr(value)
    return f"{type(value).__name__}"


def check_floating(**tensors: Any) -> None:
    """Require floating tensors; those that are None are left out."""
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"{name} must be a NumPy array or a torch tensor, not {describe(tensor)}"
            )
        if tensor.dtype not in _WIDE:
            raise TypeError(
                f"{name} must be float16, bfloat16, float32 or float64, but is {describe(tensor)}"
            )


def check_same_dtype(**tensors: Tensor | None) -> torch.dtype:
    """Require floating tensors of one dtype, and return it."""
    check_floating(**tensors)
    (first, reference), *others = [(n, t) for n, t in tensors.items() if t is not None]
    for name, tensor in others:
        if tensor.dtype != reference.dtype:
            raise TypeError(
                f"{name} must have the dtype of {first}, {reference.dtype}, but is {tensor.dtype}"
            )
    return reference.dtype


def check_integer(**tensors: Any) -> None:
    """Require tensors of class indices."""
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"{name} must be a NumPy array or a torch tensor, not {describe(tensor)}"
            )
        if tensor.dtype == torch.bool or tensor.is_floating_point() or tensor.is_complex():
            raise TypeError(f"{name} must hold integer class indices, but is {describe(tensor)}")


def check_shape(name: str, tensor: Tensor, shape: Sequence[int], why: str) -> None:
    """Require one exact shape: nothing is broadcast by accident."""
    if tuple(tensor.shape) != tuple(shape):
        hint = ""
        if tensor.numel() == math.prod(shape) and tensor.ndim != len(shape):
            hint = "; squeeze or reshape it, since broadcasting would pair every row with every row"
        raise ValueError(
            f"{name} must have shape {tuple(shape)}, {why}, but has shape {tuple(tensor.shape)}"
            + hint
        )


def check_range(
    name: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    low_open: bool = False,
    high_open: bool = False,
) -> None:
    """Require a Python number inside an interval."""
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    above = number and (value > low if low_open else value >= low)
    below = number and (value < high if high_open else value <= high)
    if not (above and below):
        opening = "(" if low_open or low == -math.inf else "["
        closing = ")" if high_open or high == math.inf else "]"
        raise ValueError(
            f"{name} must be a number in {opening}{low:g}, {high:g}{closing}, got {describe(value)}"
        )


def check_values(name: str, valid: Tensor, values: Tensor, expected: str) -> None:
    """Require that a condition holds everywhere, and name the first value for which it fails."""
    valid, values = visible(valid), visible(values)
    if not bool(valid.all()):
        raise ValueError(f"{name} must be {expected}, but holds {values[~valid][0].item()!r}")


def all_within(values: Tensor, low: float, high: float) -> bool:
    """Whether every entry is in [low, high]: one pass, which settles the usual case; no NaN is."""
    plain = visible(values)
    if plain.numel() == 0:
        return True
    least, greatest = plain.aminmax()
    return bool((least >= low) & (greatest <= high))


def check_interval(
    name: str,
    values: Tensor,
    low: float,
    high: float,
    mask: Tensor | None = None,
    *,
    only_ends: bool = False,
) -> None:
    """Require every entry that the mask keeps in [low, high], or at one of the two."""
    if not only_ends and all_within(values, low, high):
        return
    if only_ends:
        valid = (values == low) | (values == high)
        expected = f"{low:g} or {high:g}"
    else:
        valid = (values >= low) & (values <= high)
        expected = f"in [{low:g}, {high:g}]"
    if mask is not None:
        valid = valid | ~mask
    check_values(name, valid, values.expand(valid.shape), expected)


def match_dtype(name: str, target: Any, like: Tensor) -> Tensor:
    """A target in the dtype of the prediction; whole numbers and booleans are converted."""
    if not isinstance(target, Tensor):
        raise TypeError(f"{name} must be a NumPy array or a torch tensor, not {describe(target)}")
    if not target.is_floating_point() and not target.is_complex():
        return target.to(like.dtype)
    if target.dtype != like.dtype:
        raise TypeError(
            f"{name} must have the dtype of the prediction, {like.dtype}, but is {describe(target)}"
        )
    return target


def visible(x: Tensor) -> Tensor:
    """The plain tensor under the wrappers of torch.func, whose values cannot be asked for."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(x):
        x = functorch.get_unwrapped(x)
    return x


def normalize_axis(axis: Any, x: Tensor) -> int:
    """An axis counted from the front."""
    if not isinstance(axis, int) or not -x.ndim <= axis < x.ndim:
        raise ValueError(f"axis must be an integer axis of a {x.ndim}-D array, got {axis!r}")
    return axis % x.ndim
