"""What the losses over embeddings share: checks, unit vectors, and sums over their products.

All is computed in float64, whatever the input. The rounding of a product of two unit vectors is
larger than what compensated sums would recover, so these kernels are plainer than those over
logits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lossref._arrays import (
    LOG2_E,
    TypedFunction,
    check_floating,
    check_integer,
    check_range,
    check_same_dtype,
    check_shape,
    check_values,
    describe,
)
from lossref._at_once import anew, can_keep, expected_factor
from lossref._elementwise import elementwise
from lossref._numerics import stable_sigmoid, stable_softplus
from lossref._reduction import divide, finish
from lossref._rows import CHUNK_ELEMENTS, CHUNK_ELEMENTS_ELSEWHERE

# A logit that takes no part: finite, so that a row of nothing else has finite derivatives.
HIDDEN = -1e300

# Takes products (N, M), which it may overwrite, and the target; gives losses and their gradient.
Kernel = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
# The same losses in operations that autograd can record.
Formula = Callable[[Tensor, Tensor], Tensor]


def check_embeddings(**arrays: Any) -> torch.dtype:
    """Require floating arrays of one dtype and of shape (N, D), the D in common."""
    dtype = check_same_dtype(**arrays)
    (first, reference), *_ = arrays.items()
    for name, array in arrays.items():
        if array.ndim != 2:
            raise ValueError(f"{name} must have shape (N, D), but is {describe(array)}")
        if array.shape[-1] != reference.shape[-1]:
            raise ValueError(
                f"{name} must have the width of {first}, {reference.shape[-1]}, "
                f"but has shape {tuple(array.shape)}"
            )
    return dtype


def check_labels(labels: Any, embeddings: Tensor) -> None:
    """Require one integer label per embedding."""
    check_integer(labels=labels)
    check_shape("labels", labels, embeddings.shape[:1], "one label per embedding")


def check_number(name: str, value: Any) -> Any:
    """A finite number, or a 0-d floating tensor that may be learned."""
    if not isinstance(value, Tensor):
        check_range(name, value, low_open=True, high_open=True)
        return value
    check_floating(**{name: value})
    if value.ndim != 0:
        raise ValueError(f"{name} must be a number or 0-d, but is {describe(value)}")
    check_values(name, value.isfinite(), value, "finite")
    return value.double()


def check_positive(name: str, value: Any) -> Any:
    """A positive number, or a 0-d floating tensor that may be learned."""
    if not isinstance(value, Tensor):
        check_range(name, value, 0.0, low_open=True, high_open=True)
        return value
    number = check_number(name, value)
    check_values(name, value > 0.0, value, "positive")
    return number


def power_of_two(x: Tensor) -> Tensor:
    """For each row a power of two near its largest entry: dividing by it is exact."""
    largest = x.detach().abs().amax(-1, keepdim=True) if x.shape[-1] else x.new_ones(1)
    usable = (largest > 0.0) & largest.isfinite()
    largest = torch.where(usable, largest, 1.0)
    return largest / torch.frexp(largest).mantissa


def normalize(x: Tensor) -> Tensor:
    """Unit vectors in float64; a zero vector stays zero and gets no gradient."""
    z, _ = Normalize.apply(x)
    unit: Tensor = z
    return unit


class Normalize(TypedFunction):
    """Unit vectors of rows; the gradient leaves out the direction of the vector itself."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        return _unit(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, *output)

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, _: Any) -> Tensor | None:
        if g is None:
            return None
        x, z, inverse = ctx.saved_tensors
        if torch.is_grad_enabled():
            # The inverse is a constant to autograd, so both are taken from x anew.
            z, inverse = _unit(x)
        along = (z * g).sum(-1, keepdim=True)
        gradient: Tensor = (torch.addcmul(g, z, along, value=-1.0) * inverse).to(x.dtype)
        return gradient


def _unit(x: Tensor) -> tuple[Tensor, Tensor]:
    """Unit vectors and the inverse lengths, both 0 for a zero vector, in float64."""
    # Only in float64 can a square leave the range.
    scale = power_of_two(x) if x.dtype == torch.float64 else None
    x = x.double() if scale is None else x / scale
    squares = x.square().sum(-1, keepdim=True)
    zero = squares == 0.0
    inverse = torch.where(zero, 0.0, torch.where(zero, 1.0, squares).rsqrt())
    return x * inverse, inverse if scale is None else inverse / scale


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x) with all its digits."""
    return elementwise(stable_softplus, (stable_sigmoid,), x)


def contrast(own: Tensor, a: Tensor, b: Tensor, hidden: Tensor) -> Tensor:
    """Cross-entropy of rows with the logit `own` among the products of a's rows with all of b's.

    `hidden` (N, H) holds the columns that take no part, that of `own` among them. Written as
    softplus(log-sum-exp of the others - own), so that a certain row does not cancel.
    """
    others, _ = OverProducts.apply(others_kernel, log_sum_exp_of_others, a, b, hidden)
    return softplus(others - own)


def contrast_loss(
    own: Tensor,
    a: Tensor,
    b: Tensor,
    hidden: Tensor,
    *,
    dtype: torch.dtype,
    reduction: str,
    denominator: Any,
    nan_if_empty: bool,
) -> Tensor:
    """The reduced contrasts; their mean divides by the number of rows."""
    if reduction == "none" or not can_keep((own, a, b)):
        losses = contrast(own, a, b, hidden)
        return finish(
            losses, reduction, dtype=dtype, denominator=denominator, nan_if_empty=nan_if_empty
        )
    count = len(a) if denominator is None else denominator
    total: Tensor = ContrastTotal.apply(expected_factor(reduction, count), own, a, b, hidden)
    total = total if reduction == "sum" else divide(total, count, nan_if_empty)
    return total.to(dtype)


class ContrastTotal(TypedFunction):
    """The sum of the contrasts, with its gradients, times a factor, from the same exponentials.

    By chunks of rows, so that the products stay in the cache and are never all held.
    """

    @staticmethod
    def forward(
        ctx: Any, expected: float, own: Tensor, a: Tensor, b: Tensor, hidden: Tensor
    ) -> Tensor:
        _, _, wants_a, wants_b, _ = ctx.needs_input_grad
        total, to_own = own.new_zeros(()), torch.empty_like(own)
        to_a = torch.empty_like(a) if wants_a else None
        to_b = torch.zeros_like(b) if wants_b else None
        budget = CHUNK_ELEMENTS.get(a.device.type, CHUNK_ELEMENTS_ELSEWHERE)
        step = max(1, min(len(a), budget // max(1, len(b))))
        room = a.new_empty((step, len(b)))
        for start in range(0, len(a), step):
            rows = slice(start, start + step)
            x = torch.mm(a[rows], b.mT, out=room[: len(a[rows])])
            others, e, sums = sum_exponentials(x.scatter_(1, hidden[rows], HIDDEN))
            gap = others - own[rows]
            total += stable_softplus(gap).sum()
            share = stable_sigmoid(gap).mul_(expected)
            torch.neg(share, out=to_own[rows])
            e.mul_((share / sums).unsqueeze(1))
            if to_a is not None:
                torch.mm(e, b, out=to_a[rows])
            if to_b is not None:
                to_b.addmm_(e.mT, a[rows])
        ctx.save_for_backward(own, a, b, hidden)
        ctx.expected, ctx.gradients = expected, (to_own, to_a, to_b)
        return total

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        own, a, b, hidden = ctx.saved_tensors
        if torch.is_grad_enabled():

            def plain(own: Tensor, a: Tensor, b: Tensor) -> Tensor:
                return contrast(own, a, b, hidden).sum()

            return None, *anew(plain, (own, a, b), ctx.needs_input_grad[1:4], g), None
        # They are still in float64: another factor costs no second rounding.
        ratio = g / ctx.expected
        gradients = ctx.gradients
        if bool(ratio != 1.0):
            gradients = [None if x is None else x * ratio for x in gradients]
        return None, *gradients, None


class OverProducts(TypedFunction):
    """Losses of rows of products a bᵀ; the gradient of each row is taken along with its value.

    Only one matrix is ever held: the kernel turns the products into the gradient in place.
    """

    @staticmethod
    def forward(
        kernel: Kernel, formula: Formula, a: Tensor, b: Tensor, target: Tensor
    ) -> tuple[Tensor, Tensor]:
        products = a @ b.mT
        if products.numel() == 0:
            return a.new_full((len(a),), HIDDEN), products
        return kernel(products, target)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, ctx.formula, a, b, target = inputs
        ctx.mark_non_differentiable(output[1])
        # Else a matrix of zeros is made for the output that has no gradient.
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(a, b, target, output[1])

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
        if g is None:
            return (None,) * 5
        a, b, target, slopes = ctx.saved_tensors
        g = g.unsqueeze(-1)
        if torch.is_grad_enabled():
            # The gradient of the gradient: from the formula, which autograd records.
            pull = torch.func.vjp(lambda x: ctx.formula(x, target), a @ b.mT)[1]
            (slopes,) = pull(torch.ones_like(g[:, 0]))
        return None, None, g * (slopes @ b), slopes.mT @ (g * a), None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *args: Any
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        """Take the mapped batches one by one: rows of different batches have no products."""
        batches = [
            OverProducts.apply(
                *(x if d is None else x.select(d, i) for x, d in zip(args, in_dims, strict=True))
            )
            for i in range(info.batch_size)
        ]
        losses, slopes = zip(*batches, strict=True)
        return (torch.stack(losses), torch.stack(slopes)), (0, 0)


def others_kernel(x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """The log-sum-exp of all but the hidden columns, and its gradient, the softmax."""
    return softmax_in_place(x.scatter_(1, hidden, HIDDEN))


def softmax_in_place(x: Tensor) -> tuple[Tensor, Tensor]:
    """The log-sum-exp of rows and, in the memory of the rows, their softmax."""
    total, e, sums = sum_exponentials(x)
    return total, e.div_(sums.unsqueeze(1))


def sum_exponentials(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The log-sum-exp of rows, in their memory e^(x - max), and the sums of these."""
    top = x.amax(1, keepdim=True)
    # 2^x takes less than half the time of e^x, and adds no more than the products have lost.
    e = torch.add(top * -LOG2_E, x, alpha=LOG2_E, out=x).exp2_()
    sums = e.sum(1)
    return top.squeeze(1) + sums.log(), e, sums


def log_sum_exp_of_others(x: Tensor, hidden: Tensor) -> Tensor:
    """The log-sum-exp of all but the hidden columns."""
    return x.scatter(1, hidden, HIDDEN).logsumexp(1)
