"""Gradients that are computed along with the value, kept, and given away once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lossref._arrays import TypedFunction, visible

Gradients = Sequence[Tensor | None]

Compute = Callable[..., tuple[Tensor, Gradients]]
"""From a factor, which inputs want a gradient, and the inputs: the sum of the losses one format up,
and its gradients times the factor, rounded once."""


def can_keep(tensors: Sequence[Tensor]) -> bool:
    """Whether a gradient is wanted, without the transforms of torch.func."""
    wanted = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    return wanted and all(visible(tensor) is tensor for tensor in tensors)


def expected_factor(reduction: str, count: Any) -> float:
    """What `backward()` of a sum, or of a mean over so many, hands to the sum of the losses."""
    return 1.0 if reduction == "sum" or count == 0 else 1.0 / float(count)


class Total(TypedFunction):
    """The sum of losses one format up, with its gradients for the one factor that is expected.

    For every other factor, and to be differentiated again, they come from `plain`, the same sum
    in operations that autograd records: so each gradient is rounded once.
    """

    @staticmethod
    def forward(
        ctx: Any,
        compute: Compute,
        plain: Callable[..., Tensor],
        expected: float,
        *inputs: Tensor,
    ) -> Tensor:
        total, ctx.gradients = compute(expected, ctx.needs_input_grad[3:], *inputs)
        ctx.plain, ctx.expected = plain, expected
        ctx.save_for_backward(*inputs)
        return total

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        inputs, wanted = ctx.saved_tensors, ctx.needs_input_grad[3:]
        gradients = give(ctx, g, ctx.expected, inputs[0].dtype)
        if gradients is None:
            gradients = anew(ctx.plain, inputs, wanted, g)
        return None, None, None, *gradients


def anew(
    plain: Callable[..., Tensor], inputs: Sequence[Tensor], wanted: Sequence[bool], g: Tensor
) -> Gradients:
    """The gradients of the plain sum times g, which can be differentiated where that is wanted."""
    again = torch.is_grad_enabled()
    if not again:
        inputs = [x.detach().requires_grad_(w) for x, w in zip(inputs, wanted, strict=True)]
    with torch.enable_grad():
        chosen = [x for x, w in zip(inputs, wanted, strict=True) if w]
        gradients = iter(torch.autograd.grad(plain(*inputs), chosen, g, create_graph=again))
    return [next(gradients) if w else None for w in wanted]


def give(ctx: Any, g: Tensor, expected: Tensor | float, dtype: torch.dtype) -> Gradients | None:
    """The gradients that were computed with the value, once, if g is what was expected.

    They are not kept: autograd copies what somebody else still holds. A second backward pass
    through the same graph computes them anew.
    """
    gradients: Gradients | None = ctx.gradients
    if gradients is None or torch.is_grad_enabled():
        return None
    factor = foreseen(g, expected, dtype)
    if factor is None:
        return None
    ctx.gradients = None
    if factor == 1.0:
        return gradients
    return [None if x is None else x * factor for x in gradients]


def foreseen(g: Tensor, expected: Tensor | float, dtype: torch.dtype) -> float | None:
    """The power of two by which g is a multiple of what was expected, if it is one.

    A rounded gradient can be multiplied by it without a second rounding. It must not exceed 1: a
    gradient that underflowed must not be scaled up, as the loss scaling of float16 wants.
    """
    if isinstance(expected, float):
        ratio = float(g) / expected
    else:
        ratio = float(g.abs().amax() / expected.abs().amax()) if g.numel() else 0.0
    if not 0.0 < ratio < 1.5:
        return None
    factor = 2.0 ** round(math.log2(ratio))
    # One format up, a last place is nothing; in float64 it would be seen.
    rtol = 0.0 if dtype == torch.float64 else 4.0 * torch.finfo(g.dtype).eps
    if isinstance(expected, float):
        alike = abs(float(g) - expected * factor) <= rtol * expected * factor
    else:
        expected = expected * factor
        alike = torch.equal(g, expected) or torch.allclose(g, expected, rtol, 0.0, equal_nan=True)
    return factor if alike else None
