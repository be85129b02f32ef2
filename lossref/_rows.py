"""Kernels over rows of logits: softmax, log-sum-exp and cross-entropy, with their gradients.

Every kernel takes rows `(N, K)`, computes one format up, and leaves the one rounding to its
caller or, for gradients, makes it by chunks of rows that stay in the cache. Those of the
cross-entropy with class indices also take `(N, K, S)`, images with S positions, whose class axis
would cost a copy to move. In float64, where no wider format exists, the rounding of `x - max` is
recovered and sums are compensated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from lossref._arrays import LOG2_E, TypedFunction, exp_, wide_dtype, widen
from lossref._at_once import can_keep, give

# Measured: with 2^19 doubles a chunk's calls cost little beside its arithmetic, and it still is in
# a cache; a GPU wants fewer launches.
CHUNK_ELEMENTS = {"cpu": 2**19}
CHUNK_ELEMENTS_ELSEWHERE = 2**25

# Up to this maximum, m log2(e) in float64 has an error that no float32 e^(x - m) shows.
MODERATE = 2.0**20


def by_rows(kernel: Callable[..., Tensor], rows: Tensor, *others: Tensor) -> Tensor:
    """Apply a kernel to chunks of rows, and join what it returns."""
    (result,) = each_by_rows(lambda *parts: (kernel(*parts),), rows, *others)
    return result


def each_by_rows(
    kernel: Callable[..., tuple[Tensor, ...]], rows: Tensor, *others: Tensor
) -> tuple[Tensor, ...]:
    """Apply a kernel to chunks of rows, and join each of the tensors that it returns."""
    parts = list(chunks(rows))
    if len(parts) <= 1:
        return kernel(rows, *others)
    results: tuple[Tensor, ...] = ()
    for part in parts:
        values = kernel(*(tensor[part] for tensor in (rows, *others)))
        results = results or tuple(_room(value, rows) for value in values)
        for result, value in zip(results, values, strict=True):
            result[part] = value
    return results


def chunks(rows: Tensor) -> Iterator[tuple[Any, ...]]:
    """Index expressions that cut rows, and positions where one row has too many, into chunks."""
    budget = CHUNK_ELEMENTS.get(rows.device.type, CHUNK_ELEMENTS_ELSEWHERE)
    count, classes, positions = *rows.shape[:2], math.prod(rows.shape[2:])
    step = max(1, budget // max(1, classes * positions))
    width = max(1, budget // max(1, classes))
    for start in range(0, count, step):
        several = slice(start, start + step)
        if step > 1 or positions <= width:
            yield several, ...
        else:
            yield from ((several, ..., slice(at, at + width)) for at in range(0, positions, width))


def _room(value: Tensor, rows: Tensor) -> Tensor:
    """Memory for what a kernel returns for all rows, when it has returned `value` for a chunk."""
    size = [len(rows), *value.shape[1:]]
    if rows.ndim == 3:
        size[-1] = rows.shape[2]
    return value.new_empty(size)


class RowFunction(TypedFunction):
    """An autograd function whose tensors all hold one entry per row, so vmap just adds rows."""

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:
        """Fold the mapped axis into the rows."""
        size = info.batch_size

        def fold(arg: Any, dim: int | None) -> Any:
            if not isinstance(arg, Tensor):
                return arg
            batched = arg.expand(size, *arg.shape) if dim is None else arg.movedim(dim, 0)
            return batched.flatten(0, 1)

        folded = (fold(arg, dim) for arg, dim in zip(args, in_dims, strict=True))
        result: Tensor = cls.apply(*folded)
        return result.unflatten(0, (size, -1)), 0


def exponentials(x: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's maximum m and e^(x - m), one format up.

    Infinite logits that tie for the maximum share the probability. A row of -inf alone has no
    distribution and becomes NaN.
    """
    top = widen(x.amax(1, keepdim=True))
    if x.dtype == torch.float32 and bool((top.abs() <= MODERATE).all()):
        e = x.to(top.dtype, copy=True)
        # Not (x - m) log2(e), which takes one more pass.
        return top, torch.add(top * -LOG2_E, e, alpha=LOG2_E, out=e).exp2_()
    return top, exponentials_below(x, top)


def exponentials_below(x: Tensor, top: Tensor) -> Tensor:
    """e^(x - top) for a number that is known to be at least the row's maximum."""
    largest = torch.finfo(top.dtype).max
    clamped = x.to(top.dtype, copy=True)
    if top.device.type != "cpu" or bool((top == torch.inf).any()):
        # inf - inf is NaN; the largest finite number in its place leaves 0 there.
        clamped.clamp_(max=largest)
    shift = top.clamp(max=largest)
    if x.dtype != torch.float64:
        return exp_(clamped.sub_(shift), x.dtype)
    # For x - m near -700 its rounding alone would cost 500 ULPs of the exponential.
    difference, lost = two_diff(clamped, shift)
    result = difference.exp()
    return result.addcmul_(result, lost)


def row_sum(x: Tensor, dtype: torch.dtype) -> Tensor:
    """The sum of each row, compensated where the logits had the widest format already."""
    if dtype != torch.float64:
        return x.sum(1, keepdim=True)
    low = torch.zeros_like(x)
    while x.shape[1] > 1:
        half, odd = divmod(x.shape[1], 2)
        left, right, last = x.split([half, half, odd], 1)
        low_left, low_right, low_last = low.split([half, half, odd], 1)
        total = left + right
        # TwoSum; an infinite sum has no rounding to recover.
        virtual = total - left
        lost = (left - (total - virtual)) + (right - virtual)
        x = torch.cat([total, last], 1)
        low = torch.cat([low_left + low_right + lost.nan_to_num_(0.0, 0.0, 0.0), low_last], 1)
    return x + low


def sum_of_others(x: Tensor, total: Tensor, dtype: torch.dtype) -> Tensor:
    """For each entry the sum of all others in its row, without cancellation.

    Where an entry dominates its row, `total - entry` cancels, so that one is summed anew.
    """
    largest = x.abs().argmax(-1, keepdim=True)
    others = row_sum(x.scatter(-1, largest, 0.0), dtype)
    return (total - x).scatter_(-1, largest, others)


def log_excess(x: Tensor, e: Tensor) -> Tensor:
    """log-sum-exp minus the maximum: log1p of all exponentials but the largest."""
    largest = x.argmax(-1, keepdim=True)
    others = e.scatter(-1, largest, 0.0)
    # A row that is NaN throughout must stay so, also when it has one entry.
    return row_sum(others, x.dtype).log1p() + e.gather(-1, largest).mul(0.0)


def gaps(x: Tensor, top: Tensor) -> Tensor:
    """How far each logit is below the row's maximum, one format up; 0 at ties, even infinite."""
    return torch.where(x == top, torch.where(top == -torch.inf, torch.nan, 0.0), top - x)


def softmax_kernel(x: Tensor) -> Tensor:
    """Probabilities, one format up."""
    _, e = exponentials(x)
    return e / row_sum(e, x.dtype)


def logsumexp_kernel(x: Tensor) -> Tensor:
    """Log-sum-exp, one format up."""
    top, e = exponentials(x)
    value = top + log_excess(x, e)
    return torch.where(top == -torch.inf, top, value).squeeze(-1)


def log_softmax_kernel(x: Tensor) -> Tensor:
    """Logarithms of the probabilities, one format up: two terms of one sign, so none cancels."""
    top, e = exponentials(x)
    return -(gaps(x, top) + log_excess(x, e))


def centred_kernel(x: Tensor, c: Tensor) -> Tensor:
    """The vector c less its sum times the probabilities, rounded to the dtype of x.

    Written as c_j P - p_j C with P and C the sums over all others: `1 - p` would cancel.
    """
    _, e = exponentials(x)
    z = row_sum(e, x.dtype)
    c_others = sum_of_others(c, row_sum(c, x.dtype), x.dtype)
    return ((c * sum_of_others(e, z, x.dtype) - e * c_others) / z).to(x.dtype)


class Softmax(RowFunction):
    """Rows of logits to probabilities one format up."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return by_rows(softmax_kernel, x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return softmax_pullback(Softmax.apply(x), g).to(x.dtype)


def softmax_pullback(p: Tensor, g: Tensor) -> Tensor:
    """Multiply by the Jacobian of the softmax, which is symmetric.

    Measured from the gradient at the likeliest class, so that a certain row does not cancel.
    """
    h = g - g.gather(1, p.argmax(1, keepdim=True))
    return p * (h - (p * h).sum(1, keepdim=True))


class LogSumExp(RowFunction):
    """Rows of logits to their log-sum-exp one format up."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return by_rows(logsumexp_kernel, x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        p: Tensor = Softmax.apply(x)
        return (g.unsqueeze(-1) * p).to(x.dtype)


class LogSoftmax(RowFunction):
    """Rows of logits to log-probabilities one format up."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return by_rows(log_softmax_kernel, x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        result: Tensor = Centred.apply(x, g)
        return result


class Centred(RowFunction):
    """The gradient of the log-softmax, as a function that has a gradient itself."""

    @staticmethod
    def forward(x: Tensor, c: Tensor) -> Tensor:
        return by_rows(centred_kernel, x, c)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, h: Tensor) -> tuple[Tensor, Tensor]:
        x, c = ctx.saved_tensors
        p, h = Softmax.apply(x), widen(h)
        to_x = -c.sum(-1, keepdim=True) * softmax_pullback(p, h)
        return to_x.to(x.dtype), h - (p * h).sum(-1, keepdim=True)


def index_parts(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """All exponentials but the target's, their sum, the target's, and each row's maximum."""
    top, e = exponentials(x)
    e_y = e.gather(1, y)
    return e.scatter_(1, y, 0.0), row_sum(e, x.dtype), e_y, top


def index_losses(x_y: Tensor, others: Tensor, e_y: Tensor, top: Tensor, keep: Tensor) -> Tensor:
    """Cross-entropy with class indices: (m - x_y) + log1p of all exponentials but the largest."""
    # Where y is not the likeliest class, `others` contains the largest exponential, which is 1.
    uncertain = (top - x_y) + ((others - 1.0) + e_y).log1p()
    losses = torch.where(x_y == top, others.log1p(), uncertain).squeeze(1)
    return losses.masked_fill_(~keep, 0.0)


def index_gradient(
    e: Tensor, others: Tensor, e_y: Tensor, y: Tensor, keep: Tensor, g: Tensor, dtype: torch.dtype
) -> Tensor:
    """The gradient of `index_losses` times g: e_j / Z, and -(sum of all others) / Z at y.

    `p_y - 1` would lose every digit where the prediction is certain. Overwrites the exponentials,
    and leaves it to the caller to round.
    """
    e.scatter_(1, y, -others)
    z, g = others + e_y, g.unsqueeze(1)
    if dtype == torch.float64:
        e.div_(z).mul_(g)
    else:
        e.mul_(g / z)
    return e if bool(keep.all()) else e.masked_fill_(~keep.unsqueeze(1), 0.0)


def index_kernel(x: Tensor, y: Tensor, keep: Tensor) -> Tensor:
    """Cross-entropy with class indices."""
    y = y.unsqueeze(1)
    _, others, e_y, top = index_parts(x, y)
    return index_losses(widen(x.gather(1, y)), others, e_y, top, keep)


def index_gradient_kernel(x: Tensor, y: Tensor, keep: Tensor, g: Tensor) -> Tensor:
    """The gradient of the cross-entropy with class indices, times g."""
    y = y.unsqueeze(1)
    e, others, e_y, _ = index_parts(x, y)
    return index_gradient(e, others, e_y, y, keep, g, x.dtype).to(x.dtype)


def index_cross_entropy(
    x: Tensor,
    y: Tensor,
    keep: Tensor,
    expected: Tensor | None,
    slope: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """`IndexCrossEntropy`, with the gradient from the same exponentials where it is foreseeable.

    `expected` is what the rows of the final loss will get from `backward()`, if that is known,
    and `slope` the derivative of that loss by the cross-entropy, where it is another.
    """
    if expected is None or not can_keep((x,)):
        result: Tensor = IndexCrossEntropy.apply(x, y, keep)
    else:
        result = IndexCrossEntropyAtOnce.apply(x, y, keep, expected, slope)
    return result


class IndexCrossEntropyAtOnce(TypedFunction):
    """The cross-entropy with class indices, which computes its gradient with the value.

    It keeps the gradient, one tensor of the input's size, for the one factor that it expects, and
    computes it anew for every other one, so that each is rounded once.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        y: Tensor,
        keep: Tensor,
        expected: Tensor,
        slope: Callable[[Tensor], Tensor] | None,
    ) -> Tensor:
        losses, expected = torch.empty_like(expected), expected.clone()
        gradient = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        for part in chunks(x):
            logits, at, kept, g = (tensor[part] for tensor in (x, y.unsqueeze(1), keep, expected))
            e, others, e_y, top = index_parts(logits, at)
            x_y = widen(logits.gather(1, at))
            losses[part] = index_losses(x_y, others, e_y, top, kept)
            if slope is not None:
                g *= slope(losses[part])
            gradient[part] = index_gradient(e, others, e_y, at, kept, g, x.dtype)
        ctx.gradients = (gradient,)
        ctx.save_for_backward(x, y, keep, expected)
        return losses

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, y, keep, expected = ctx.saved_tensors
        gradients = give(ctx, g, expected, x.dtype)
        if gradients is None:
            gradients = (IndexCrossEntropyGradient.apply(x, y, keep, g),)
        return *gradients, None, None, None, None


class IndexCrossEntropy(RowFunction):
    """Rows of logits and class indices to losses one format up, 0 where `keep` is False."""

    @staticmethod
    def forward(x: Tensor, y: Tensor, keep: Tensor) -> Tensor:
        return by_rows(index_kernel, x, y, keep)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        x, y, keep = ctx.saved_tensors
        return IndexCrossEntropyGradient.apply(x, y, keep, g), None, None


class IndexCrossEntropyGradient(RowFunction):
    """The gradient of the cross-entropy with class indices, with a gradient of its own."""

    @staticmethod
    def forward(x: Tensor, y: Tensor, keep: Tensor, g: Tensor) -> Tensor:
        return by_rows(index_gradient_kernel, x, y, keep, g)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, h: Tensor) -> tuple[Tensor, None, None, Tensor]:
        x, y, keep, g = ctx.saved_tensors
        p, h = _masked_softmax(x, keep), widen(h)
        to_x = g.unsqueeze(1) * softmax_pullback(p, h)
        to_g = (p * h).sum(1) - h.gather(1, y.unsqueeze(1)).squeeze(1)
        return to_x.to(x.dtype), None, None, torch.where(keep, to_g, 0.0)


def _masked_softmax(x: Tensor, keep: Tensor) -> Tensor:
    """Probabilities of the kept rows, and 0 in the others, whatever these hold."""
    keep = keep.unsqueeze(1)
    return torch.where(keep, Softmax.apply(torch.where(keep, x, 0.0)), 0.0)


def coefficients(x: Tensor, target: Tensor, weight: Tensor | None, smoothing: float) -> Tensor:
    """The weight of each class's -log p: w_j ((1 - ε) t_j + ε / K), one format up."""
    share = smoothing / x.shape[-1]
    if target.ndim == 1:
        uniform = torch.full_like(x, share, dtype=wide_dtype(x.dtype))
        q = uniform.scatter(-1, target.unsqueeze(-1), (1.0 - smoothing) + share)
    else:
        q = target.to(wide_dtype(x.dtype)) * (1.0 - smoothing) + share
    return q if weight is None else q * weight.to(q.dtype)


def _times(q: Tensor, x: Tensor) -> Tensor:
    """The product, with 0 where q is 0 even if x is infinite."""
    return torch.where(q == 0.0, 0.0, q * x)


def dense_kernel(x: Tensor, q: Tensor) -> Tensor:
    """Cross-entropy with a coefficient for every class."""
    top, e = exponentials(x)
    surprise = gaps(x, top) + log_excess(x, e)
    return row_sum(_times(q, surprise), x.dtype).squeeze(-1)


class DenseCrossEntropy(RowFunction):
    """Rows of logits and target distributions (or smoothed indices) to losses one format up."""

    @staticmethod
    def forward(
        x: Tensor, target: Tensor, keep: Tensor, weight: Tensor | None, smoothing: float
    ) -> Tensor:
        def kernel(x: Tensor, target: Tensor, keep: Tensor, *weight: Tensor) -> Tensor:
            q = coefficients(x, target, weight[0] if weight else None, smoothing)
            return dense_kernel(x, q).masked_fill(~keep, 0.0)

        return by_rows(kernel, x, target, keep, *([] if weight is None else [weight]))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        *tensors, ctx.smoothing = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        x, target, keep, weight = ctx.saved_tensors
        to_x = DenseCrossEntropyGradient.apply(x, target, keep, weight, ctx.smoothing, g)
        to_target = None
        if ctx.needs_input_grad[1]:
            scale = (g * (1.0 - ctx.smoothing)).unsqueeze(-1)
            if weight is not None:
                scale = scale * weight.to(g.dtype)
            to_target = _times(scale.expand_as(x), -LogSoftmax.apply(x)).to(target.dtype)
        return to_x, to_target, None, None, None


class DenseCrossEntropyGradient(RowFunction):
    """The gradient of the cross-entropy with target distributions, with a gradient of its own."""

    @staticmethod
    def forward(
        x: Tensor,
        target: Tensor,
        keep: Tensor,
        weight: Tensor | None,
        smoothing: float,
        g: Tensor,
    ) -> Tensor:
        def kernel(x: Tensor, target: Tensor, keep: Tensor, g: Tensor, *weight: Tensor) -> Tensor:
            q = coefficients(x, target, weight[0] if weight else None, smoothing)
            result = centred_kernel(x, q * -g.unsqueeze(-1))
            return result.masked_fill_(~keep.unsqueeze(-1), 0.0)

        return by_rows(kernel, x, target, keep, g, *([] if weight is None else [weight]))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, target, keep, weight, ctx.smoothing, g = inputs
        ctx.save_for_backward(x, target, keep, weight, g)

    @staticmethod
    def backward(ctx: Any, h: Tensor) -> tuple[Tensor | None, ...]:
        x, target, keep, weight, g = ctx.saved_tensors
        p, h, g = _masked_softmax(x, keep), widen(h), g.unsqueeze(-1)
        q = torch.where(keep.unsqueeze(-1), coefficients(x, target, weight, ctx.smoothing), 0.0)
        q_sum = q.sum(-1, keepdim=True)
        to_x = g * q_sum * softmax_pullback(p, h)
        centred = (p * h).sum(-1, keepdim=True) - h
        to_target = None
        if ctx.needs_input_grad[1]:
            to_target = g * (1.0 - ctx.smoothing) * centred
            if weight is not None:
                to_target = to_target * weight.to(g.dtype)
            to_target = torch.where(keep.unsqueeze(-1), to_target, 0.0).to(target.dtype)
        to_g = (q * centred).sum(-1)
        return to_x.to(x.dtype), to_target, None, None, None, to_g


def softened_differences(
    student: Tensor, teacher: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Teacher's p, student's q, and log p - log q, all one format up.

    The logits are subtracted before anything else: for nearly equal logits, a difference of two
    log-probabilities would have lost what they differ by. And all are measured from those of the
    teacher's likeliest class: what all classes differ by would hide what they differ by more.
    """
    teacher, student = widen(teacher), widen(student)
    p, q = Softmax.apply(teacher / temperature), Softmax.apply(student / temperature)
    likeliest = teacher.argmax(-1, keepdim=True)
    origins = torch.stack([teacher.gather(-1, likeliest), student.gather(-1, likeliest)])
    origin_a, origin_b = torch.where(origins.isfinite().all(0), origins, 0.0)
    a, b = (teacher - origin_a) / temperature, (student - origin_b) / temperature
    high, low = two_diff(teacher, student)
    high_origin, low_origin = two_diff(origin_a, origin_b)
    difference = ((high - high_origin) + (low - low_origin)) / temperature
    # -inf in both is a class that neither allows.
    difference = torch.where(
        teacher == student, -(high_origin + low_origin) / temperature, difference
    )
    close = difference.abs().amax(-1, keepdim=True) < 1.0
    near = torch.log1p((q * torch.expm1(torch.where(close, difference, 0.0))).sum(-1, keepdim=True))
    far = (LogSumExp.apply(a) - LogSumExp.apply(b)).unsqueeze(-1)
    return p, q, difference - torch.where(close, near, far)


def two_diff(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The difference and its rounding error, 0 where there is none to recover."""
    difference = a - b
    virtual = difference - a
    lost = (a - (difference - virtual)) - (b + virtual)
    return difference, lost.nan_to_num_(0.0, 0.0, 0.0)


def excess_of_exp(x: Tensor) -> Tensor:
    """X + e^-x - 1, never negative; by its series near 0, where the terms cancel."""
    small = x.abs() < 0.03
    s = torch.where(small, x, 0.0)
    series = torch.zeros_like(s)
    for n in range(10, 1, -1):
        series = (1.0 - series) / n * s if n > 2 else (1.0 - series) * 0.5 * s * s
    return torch.where(small, series, x + torch.expm1(-x))


class SoftenedDivergence(RowFunction):
    """T² times the divergence of softened student rows from softened teacher rows."""

    @staticmethod
    def forward(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        def kernel(student: Tensor, teacher: Tensor) -> Tensor:
            p, q, delta = softened_differences(student, teacher, temperature)
            # For delta < 0 with e^-delta too large for the format: p e^-delta is q.
            terms = torch.where(
                delta < -1.0, _times(p, delta) - p + q, _times(p, excess_of_exp(delta))
            )
            return temperature**2 * terms.sum(-1)

        return by_rows(kernel, student, teacher)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        student, teacher, ctx.temperature = inputs
        ctx.save_for_backward(student, teacher)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        student, teacher = ctx.saved_tensors
        p, q, delta = softened_differences(student, teacher, ctx.temperature)
        ahead = delta > 0.0
        # q - p by whichever of the two forms cannot overflow
        lower = p * torch.expm1(-torch.where(ahead, delta, 0.0))
        upper = -q * torch.expm1(torch.where(ahead, 0.0, delta))
        difference = torch.where(ahead, lower, upper)
        return (ctx.temperature * g.unsqueeze(-1) * difference).to(student.dtype), None, None
