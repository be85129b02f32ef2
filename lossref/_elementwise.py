"""Elementwise losses: values and written-out derivatives, one format up, rounded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lossref._arrays import TypedFunction, check_shape, wide_dtype
from lossref._reduction import broadcast, check_mask, check_reduction, finish
from lossref._rows import CHUNK_ELEMENTS, CHUNK_ELEMENTS_ELSEWHERE

Formula = Callable[..., Tensor]


def times(a: Tensor, b: Tensor) -> Tensor:
    """The product, with 0 where a is 0 even if b is infinite."""
    return torch.where(a == 0.0, 0.0, a * torch.where(a == 0.0, 1.0, b))


def keep_finite(x: Tensor) -> Tensor:
    """The tensor with infinities replaced, where a factor of 0 decides the product."""
    return x.clamp(max=torch.finfo(x.dtype).max)


def in_chunks(formula: Formula, dtype: torch.dtype, inputs: Sequence[Tensor]) -> Tensor:
    """Apply an elementwise formula one format up, by chunks that stay in the cache."""
    first = inputs[0]
    wide = wide_dtype(first.dtype)
    # Half a chunk, since an elementwise formula holds several temporaries at once.
    step = CHUNK_ELEMENTS.get(first.device.type, CHUNK_ELEMENTS_ELSEWHERE) // 2
    if first.numel() <= step:
        return formula(*(x.to(wide) for x in inputs)).to(dtype)
    flat = [_flat(x) for x in inputs]
    result = torch.empty(first.numel(), dtype=dtype, device=first.device)
    for start in range(0, first.numel(), step):
        part = [x[start : start + step].to(wide) for x in flat]
        result[start : start + step] = formula(*part)
    return result.view(first.shape)


def _flat(x: Tensor) -> Tensor:
    """The entries in a row; one number that was expanded, as the gradient of a sum, stays one."""
    if any(x.stride()):
        return x.reshape(-1)
    return x[(0,) * x.ndim].expand(x.numel())


class Elementwise(TypedFunction):
    """A formula and its partial derivatives; the result is one format up.

    A derivative of None marks an input that is a constant of the loss.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Formula, slopes: Sequence[Formula | None], *inputs: Tensor) -> Tensor:
        return in_chunks(value, wide_dtype(inputs[0].dtype), inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, ctx.slopes, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        gradients: list[Tensor | None] = [None, None]
        for position, (slope, x) in enumerate(zip(ctx.slopes, inputs, strict=True)):
            if slope is None or not ctx.needs_input_grad[position + 2]:
                gradients.append(None)
            elif torch.is_grad_enabled():
                # The gradient of the gradient: plain operations, which autograd records.
                wide = [value.to(g.dtype) for value in inputs]
                gradients.append((g * slope(*wide)).to(x.dtype))
            else:
                gradients.append(in_chunks(_scaled(slope), x.dtype, [*inputs, g]))
        return tuple(gradients)


def _scaled(slope: Formula) -> Formula:
    return lambda *inputs: slope(*inputs[:-1]) * inputs[-1]


def elementwise(value: Formula, slopes: Sequence[Formula | None], *inputs: Tensor) -> Tensor:
    """The values of an elementwise formula one format up, differentiable as often as its slopes."""
    result: Tensor = Elementwise.apply(value, tuple(slopes), *inputs)
    return result


def elementwise_loss(
    value: Formula,
    slopes: Sequence[Formula | None],
    inputs: dict[str, Tensor],
    *,
    reduction: str,
    constants: Sequence[Tensor] = (),
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    divide_by_weight: bool = False,
    denominator: Any = None,
    nan_if_empty: bool = False,
) -> Tensor:
    """Check, compute and reduce an elementwise loss whose inputs all have one shape.

    Inputs under the mask are replaced before the formula: a zero gradient times the derivative
    at NaN would be NaN.
    """
    check_reduction(reduction, denominator)
    (first_name, first), *others = inputs.items()
    for name, tensor in others:
        check_shape(name, tensor, first.shape, f"the shape of {first_name}")
    tensors = [*inputs.values(), *constants]
    if mask is not None:
        mask = broadcast("mask", check_mask(mask), first)
        tensors = [torch.where(mask, tensor, 1.0) for tensor in tensors]
    losses = elementwise(value, slopes, *tensors)
    if mask is not None:
        losses = torch.where(mask, losses, 0.0)
    if weight is not None:
        weight = broadcast("weight", weight, first).to(losses.dtype)
    return finish(
        losses,
        reduction,
        dtype=first.dtype,
        weight=weight,
        mask=mask,
        divide_by_weight=divide_by_weight,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )
