"""Elementwise losses: values and written-out derivatives, one format up, rounded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lossref._arrays import LOG2_E, TypedFunction, check_shape, visible, wide_dtype, widen
from lossref._at_once import Total, can_keep, expected_factor
from lossref._reduction import broadcast, check_mask, check_reduction, divide, finish
from lossref._rows import CHUNK_ELEMENTS, CHUNK_ELEMENTS_ELSEWHERE

Formula = Callable[..., Tensor]

AtOnce = Callable[..., tuple[Tensor, Tensor]]
"""From a factor and the inputs: the losses' sum one format up, and each slope times the factor.

The slopes are rounded once, to the dtype of the inputs. It is called on flat inputs without
gradients recorded, must not change them, and shares what value and slope have in common.
"""


def times(a: Tensor, b: Tensor) -> Tensor:
    """The product, with 0 where a is 0 even if b is infinite."""
    return torch.where(a == 0.0, 0.0, a * torch.where(a == 0.0, 1.0, b))


def keep_finite(x: Tensor) -> Tensor:
    """The tensor with infinities replaced, where a factor of 0 decides the product."""
    return x.clamp(max=torch.finfo(x.dtype).max)


def ratio_or_1(a: Tensor, b: Tensor, zero: Tensor) -> Tensor:
    """Divide a by b, with the limit 1 where `zero` is 0, also where a and b are 0 there.

    Whoever multiplies by it must bring any NaN of the inputs, which may become 1 here.
    """
    if not torch.is_grad_enabled():
        return (a / b).nan_to_num_(1.0)
    at = zero == 0.0
    return torch.where(at, 1.0, a / torch.where(at, 1.0, b))


def at_least_0(x: Tensor) -> Tensor:
    """1 where x >= 0, else 0, in the dtype of x."""
    if visible(x) is not x:
        return (x >= 0.0).to(x.dtype)
    # In place it is vectorized, which a comparison to booleans is not; vmap does not know it.
    return x.detach().clone().ge_(0.0)


def decay_for(dtype: torch.dtype, x: Tensor) -> Tensor:
    """e^-|x| without gradients, one format up from the dtype to which the result is rounded."""
    if dtype == torch.float32:
        return x.abs().mul_(-LOG2_E).exp2_()
    return x.abs().neg_().exp_()


def sum_log1p(z: Tensor) -> Tensor:
    """Σ log(1 + z) for z in [0, 1], as the logarithms of products of eight.

    Each product is held as what it exceeds 1 by, a + b + a b: no term is negative, so small z keep
    all their digits.
    """
    rest = z.new_zeros(())
    for _ in range(3):
        half, odd = divmod(len(z), 2)
        a, b = z[:half], z[half : 2 * half]
        if odd:
            rest += z[-1].log1p()
        z = torch.addcmul(a + b, a, b)
    return z.log1p().sum() + rest


def _chunk(x: Tensor) -> int:
    """Half a chunk of rows, since an elementwise formula holds several temporaries at once."""
    return CHUNK_ELEMENTS.get(x.device.type, CHUNK_ELEMENTS_ELSEWHERE) // 2


def in_chunks(formula: Formula, dtype: torch.dtype, inputs: Sequence[Tensor]) -> Tensor:
    """Apply an elementwise formula one format up, by chunks that stay in the cache."""
    first, step = inputs[0], _chunk(inputs[0])
    wide = wide_dtype(first.dtype)
    if first.numel() <= step:
        return formula(*(x.to(wide) for x in inputs)).to(dtype)
    flat = [_flat(x) for x in inputs]
    result: Tensor | None = None
    for start in range(0, first.numel(), step):
        values = formula(*(x[start : start + step].to(wide) for x in flat))
        if result is None:
            # From the values, which vmap may have given an axis that the first input lacks.
            result = values.new_empty(first.numel(), dtype=dtype)
        result[start : start + step] = values
    assert result is not None
    return result.view(first.shape)


def total_and_gradient(
    at_once: AtOnce, factor: float, inputs: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor | None]]:
    """The sum of the losses one format up, and the slopes of the first input, by chunks."""
    first, step = inputs[0], _chunk(inputs[0])
    flat = [_flat(x) for x in inputs]
    total = first.new_zeros((), dtype=wide_dtype(first.dtype))
    gradient = torch.empty(first.shape, dtype=first.dtype, device=first.device)
    slopes = gradient.view(-1)
    for start in range(0, first.numel(), step):
        part = slice(start, start + step)
        losses, slopes[part] = at_once(factor, *(x[part] for x in flat))
        total += losses
    return total, [gradient, *[None] * len(inputs[1:])]


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
        gradients: list[Tensor | None] = [None, None]
        for position, slope in enumerate(ctx.slopes):
            wanted = slope is not None and ctx.needs_input_grad[position + 2]
            gradients.append(pullback(slope, position, ctx.saved_tensors, g) if wanted else None)
        return tuple(gradients)


def pullback(slope: Formula, position: int, inputs: Sequence[Tensor], g: Tensor) -> Tensor:
    """The gradient to one input: its slope times g, rounded once."""
    dtype = inputs[position].dtype
    if torch.is_grad_enabled():
        # The gradient of the gradient: plain operations, which autograd records.
        return (g * slope(*(value.to(g.dtype) for value in inputs))).to(dtype)
    return in_chunks(_scaled(slope), dtype, [*inputs, g])


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
    at_once: AtOnce | None = None,
) -> Tensor:
    """Check, compute and reduce an elementwise loss whose inputs all have one shape.

    Inputs under the mask are replaced before the formula: a zero gradient times the derivative
    at NaN would be NaN. `at_once` is a faster way to the sum and the slopes, for a loss that has
    one.
    """
    check_reduction(reduction, denominator)
    (first_name, first), *others = inputs.items()
    for name, tensor in others:
        check_shape(name, tensor, first.shape, f"the shape of {first_name}")
    tensors = [*inputs.values(), *constants]
    if mask is not None:
        mask = broadcast("mask", check_mask(mask), first)
        tensors = [torch.where(mask, tensor, 1.0) for tensor in tensors]
    elif weight is None and reduction != "none" and _one_gradient(tensors):
        both = at_once or _one_after_the_other(value, slopes[0])
        count = first.numel() if denominator is None else denominator
        total: Tensor = Total.apply(
            lambda factor, _, *inputs: total_and_gradient(both, factor, inputs),
            lambda *inputs: elementwise(value, slopes, *inputs).sum(),
            expected_factor(reduction, count),
            *tensors,
        )
        total = total if reduction == "sum" else divide(total, count, nan_if_empty)
        return total.to(first.dtype)
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


def _one_gradient(tensors: Sequence[Tensor]) -> bool:
    """Whether a gradient is wanted to the first alone."""
    first, *others = tensors
    only = first.numel() > 0 and not any(tensor.requires_grad for tensor in others)
    return only and can_keep(tensors)


def _one_after_the_other(value: Formula, slope: Formula | None) -> AtOnce:
    """Sum and slopes of a loss whose two formulas have nothing to share."""
    if slope is None:
        raise ValueError("the first input of an elementwise loss has a slope")

    def at_once(factor: float, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        wide = [widen(x) for x in inputs]
        return value(*wide).sum(), (slope(*wide) * factor).to(inputs[0].dtype)

    return at_once
