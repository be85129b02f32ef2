"""Cross-entropy of a linear layer over a large vocabulary, without all the logits.

A chunk of rows goes through the layer as a transposed matrix `(V, rows)`, which the matrix
products take fastest. Each row's target is set apart from the other classes: with A their
log-sum-exp and z_y the target's logit, the loss is log(1 + e^(A - z_y)) and the others' share of
the probability sigmoid(A - z_y), which keep their digits however certain the prediction is.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lossref._arrays import (
    Array,
    TypedFunction,
    check_integer,
    check_range,
    check_same_dtype,
    check_shape,
    check_values,
    describe,
    takes_arrays,
    visible,
    widen,
)
from lossref._classification import cross_entropy
from lossref._classification import z_loss as z_loss_of
from lossref._reduction import check_reduction, finish

# Logits of a chunk: enough for the matrix products, little beside the gradient of the weight.
CHUNK_LOGITS = 2**24
# Every chunk reads the weight twice and its gradient once; with fewer rows that reading shows.
FEWEST_ROWS = 256
# The chunk is worked on by blocks of classes that stay in the cache of a CPU.
BLOCK_LOGITS = 2**20
SUM_ELEMENTS = 2**17


@takes_arrays
def linear_cross_entropy(
    hidden: Array,
    weight: Array,
    target: Array,
    *,
    bias: Array | None = None,
    chunk_size: int | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Cross-entropy of a linear layer's outputs, without holding all the logits.

    .. math::
        \ell = (1 - \varepsilon)(L - z_y) + \varepsilon\,\Bigl(L - \frac1V \sum_k z_k\Bigr)
            + \zeta L^2, \qquad z = W h + b, \quad L = \log \sum_k e^{z_k}

    Only one chunk of rows of logits is alive at a time. For ``"mean"`` and ``"sum"`` the
    gradients are computed along with the loss, so the backward pass costs nothing; for
    ``"none"`` it computes the logits again.

    Parameters
    ----------
    hidden : array of shape (N, d) or (..., d), floating
        Inputs :math:`h` of the layer.
    weight : array of shape (V, d), of the same dtype
        Its weight :math:`W`.
    target : integer array of shape (N,) or (...)
        Indices :math:`y` into the vocabulary.
    bias : array of shape (V,), of the same dtype, optional
        Its bias :math:`b`.
    chunk_size : int, optional
        Rows of a chunk. By default :math:`2^{24} / V`, which is 64 MiB of float32 logits, but
        at least 256. Every chunk reads the whole weight twice and its gradient once, so fewer
        rows slow the matrix products down (measured on a CPU at V = 32768: 128 rows take a
        fifth longer than 256, and 512 hardly less), and more rows cost memory: 256 rows
        of logits take 256 / d of what the gradient of the weight takes.
    ignore_index : int
        Targets that are left out: they touch neither value nor gradient.
    label_smoothing : float
        :math:`\varepsilon` in [0, 1].
    z_loss : float
        The weight :math:`\zeta \ge 0` of the squared log-sum-exp.
    reduction : {"none", "mean", "sum"}
        The mean divides by the number of targets that are kept.

    Returns
    -------
    array
        A scalar, or for ``"none"`` the shape of ``target``; the dtype of ``hidden``.

        The accuracy is that of the matrix products, which are computed in float32 for float16,
        bfloat16 and float32 (for the first two from a float32 copy of the weight) and in float64
        for float64. With u the unit roundoff of that format and
        :math:`\delta = (d + 1)\,u \max_k \bigl(|b_k| + \sum_i |W_{ki} h_i|\bigr)`, a row's loss
        has an error of at most :math:`2\delta + 32u`, absolute, and without smoothing and z-loss
        also relative, however small it is. With p the probabilities and q the smoothed target, the
        gradients without z-loss have errors of at most
        :math:`(2\delta + (V + 32)u) \sum_k (p_k + q_k) |W_{ki}|` for a row of ``hidden``, and with
        the sum of :math:`(2\delta + (N + 32)u)(p_k + q_k) |h_i|` over the rows for ``weight``, each
        times the factor of the row in the reduction. Sums over rows of losses accumulate in
        float64; each result is rounded once more to its dtype.
        The gradient of the gradient is computed with all the logits.

    Raises
    ------
    TypeError
        If the arrays are not floating or differ in dtype, or ``target`` is not integer.
    ValueError
        If a shape does not fit, an index or a parameter is out of range, or the reduction is
        unknown.

    References
    ----------
    E. Wijmans et al., "Cut your losses in large-vocabulary language models", ICLR 2025, section
    4; P.-L. Hsu et al., "Liger Kernel: efficient Triton kernels for LLM training",
    arXiv:2410.10989, 2024, section 3.2.

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> hidden, weight = np.eye(2), np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> round(float(lossref.linear_cross_entropy(hidden, weight, np.array([0, 2]))), 6)
    0.861995
    """
    check_reduction(reduction, denominator)
    check_range("label_smoothing", label_smoothing, 0.0, 1.0)
    check_range("z_loss", z_loss, 0.0, high_open=True)
    dtype = check_same_dtype(hidden=hidden, weight=weight, bias=bias)
    _check_layer(hidden, weight, target, bias)
    y = target.reshape(-1).long()
    keep = y != int(ignore_index)
    expected = f"indices in [0, {len(weight)}), or ignore_index={int(ignore_index)}"
    check_values("target", ~keep | ((y >= 0) & (y < len(weight))), y, expected)
    rows = hidden.reshape(-1, hidden.shape[-1])
    step = chunk_rows(chunk_size, len(weight))
    task = Task(y, keep, float(label_smoothing), float(z_loss), step, None)
    if any(visible(x) is not x for x in (rows, weight, bias, y) if x is not None):
        # torch.func cannot see through gradients that are computed on the way.
        losses = _from_all_logits(rows, weight, bias, task)
    else:
        if reduction != "none":
            count = keep.sum() if denominator is None else denominator
            task = replace(task, factor=_row_factor(keep, reduction, count))
        losses = LinearCrossEntropy.apply(rows, weight, bias, task, torch.is_grad_enabled())
        if reduction != "none":
            empty = nan_if_empty and reduction == "mean" and float(count) == 0
            return (losses * torch.nan if empty else losses).to(dtype)
    return finish(
        losses.reshape(target.shape),
        mask=keep.reshape(target.shape),
        dtype=dtype,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


def _check_layer(hidden: Tensor, weight: Tensor, target: Any, bias: Tensor | None) -> None:
    check_integer(target=target)
    if weight.ndim != 2 or len(weight) == 0:
        raise ValueError(f"weight must have shape (V, d), but is {describe(weight)}")
    if hidden.ndim == 0 or hidden.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"hidden must have the width of weight, {weight.shape[1]}, but is {describe(hidden)}"
        )
    check_shape("target", target, hidden.shape[:-1], "that of hidden without its last axis")
    if bias is not None:
        check_shape("bias", bias, weight.shape[:1], "one entry per row of weight")


def chunk_rows(chunk_size: Any, vocabulary: int) -> int:
    if chunk_size is None:
        return max(FEWEST_ROWS, CHUNK_LOGITS // vocabulary)
    if isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size < 1:
        raise ValueError(f"chunk_size must be a positive integer, got {chunk_size!r}")
    return chunk_size


def _row_factor(keep: Tensor, reduction: str, count: Any) -> Tensor:
    """What each row's loss is multiplied by in the sum."""
    kept = keep.double()
    if reduction == "sum":
        return kept
    divisor = torch.as_tensor(count, dtype=torch.float64, device=keep.device)
    return kept / torch.where(divisor == 0, 1.0, divisor)


@dataclass(frozen=True)
class Task:
    """What is asked of the layer, beside its inputs."""

    target: Tensor
    keep: Tensor
    smoothing: float
    zeta: float
    step: int
    factor: Tensor | None
    """Each row's factor in a weighted sum; None where every row's loss is wanted."""


def _from_all_logits(rows: Tensor, weight: Tensor, bias: Tensor | None, task: Task) -> Tensor:
    """The losses from all the logits at once, differentiable as often as wanted."""
    keep = task.keep
    clean = torch.where(keep.unsqueeze(-1), rows, 0.0)
    wide_bias = None if bias is None else widen(bias)
    logits = torch.nn.functional.linear(widen(clean), widen(weight), wide_bias)
    index = torch.where(keep, task.target, 0)
    losses = cross_entropy(logits, index, label_smoothing=task.smoothing, reduction="none")
    if task.zeta > 0:
        losses = losses + task.zeta * z_loss_of(logits, reduction="none")
    return torch.where(keep, losses, 0.0)


class LinearCrossEntropy(TypedFunction):
    """Losses of a linear layer by chunks of rows, with their gradients on the way.

    With row factors it returns the weighted sum and keeps the gradients; without, the losses,
    and the backward pass goes over the chunks again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        task: Task,
        differentiate: bool,
    ) -> Tensor:
        ctx.save_for_backward(rows, weight, bias)
        ctx.task = task
        wanted = (False,) * 3
        if differentiate and task.factor is not None:
            wanted = ctx.needs_input_grad[:3]
        losses, ctx.gradients = _over_chunks(rows, weight, bias, task, wanted)
        return losses if task.factor is None else (losses * task.factor).sum()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        inputs: tuple[Tensor, Tensor, Tensor | None] = ctx.saved_tensors
        task: Task = ctx.task
        wanted = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():
            return (*_differentiable_gradients(inputs, task, g, wanted), None, None)
        # Given away, not kept: a gradient with one owner is not copied into `.grad`.
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None or all(gradient is None for gradient in gradients):
            factor = g if task.factor is None else g * task.factor
            _, gradients = _over_chunks(*inputs, replace(task, factor=factor), wanted)
        elif float(g) != 1.0:
            for gradient in gradients:
                if gradient is not None:
                    gradient.mul_(g)
        return (*gradients, None, None)


def _differentiable_gradients(
    inputs: tuple[Tensor, Tensor, Tensor | None],
    task: Task,
    g: Tensor,
    wanted: tuple[bool, ...],
) -> list[Tensor | None]:
    """Gradients that can be differentiated again, from all the logits."""
    rows, weight, bias = inputs
    losses = _from_all_logits(rows, weight, bias, task)
    value = losses if task.factor is None else (losses * task.factor).sum()
    leaves = [x for x, is_wanted in zip(inputs, wanted, strict=True) if is_wanted and x is not None]
    found = iter(torch.autograd.grad(value, leaves, g.to(value.dtype), create_graph=True))
    return [next(found) if is_wanted else None for is_wanted in wanted]


@dataclass(frozen=True)
class Layer:
    """The linear layer in the format of the computation, and how it is gone through."""

    weight: Tensor
    bias: Tensor | None
    smoothing: float
    zeta: float
    block: int

    def blocks(self) -> list[slice]:
        """The classes, block by block."""
        return [slice(k, k + self.block) for k in range(0, len(self.weight), self.block)]

    @functools.cached_property
    def sums(self) -> tuple[Tensor, Tensor]:
        """The sums of weight and bias over all classes, in float64."""
        weight_sum = _sum_in_float64(self.weight)
        if self.bias is None:
            return weight_sum, weight_sum.new_zeros(())
        return weight_sum, _sum_in_float64(self.bias.unsqueeze(-1)).squeeze()


def _sum_in_float64(x: Tensor) -> Tensor:
    """The sum over rows, by parts, since a float64 copy of all would be twice the tensor."""
    parts = x.split(max(1, SUM_ELEMENTS // max(1, x.shape[1])))
    return torch.stack([part.double().sum(0) for part in parts]).sum(0)


class Chunk(NamedTuple):
    """Rows that go through the layer together."""

    chosen: Tensor
    """Which rows they are."""
    hidden: Tensor
    target: Tensor
    exponentials: Tensor
    """Room for `(V, rows)`, or for one block of classes where no gradient is wanted."""


class Shares(NamedTuple):
    """The derivative of each row's loss by its logits, in parts."""

    others: Tensor
    """What the exponentials of each block are multiplied by, `(blocks, rows)`."""
    target: Tensor
    """The derivative at the target, but for the uniform part."""
    uniform: float
    """What is subtracted from the derivative by every logit."""


def _over_chunks(
    rows: Tensor, weight: Tensor, bias: Tensor | None, task: Task, wanted: tuple[bool, ...]
) -> tuple[Tensor, list[Tensor | None]]:
    """The loss of each row, and the gradients wanted of the sum weighted by the factor."""
    dtype = torch.float64 if rows.dtype == torch.float64 else torch.float32
    # Left-out rows are dropped first: they may hold NaN, and cost nothing.
    kept = task.keep.nonzero().squeeze(-1)
    step = max(1, min(task.step, len(kept)))
    block = max(1, BLOCK_LOGITS // step) if rows.device.type == "cpu" else len(weight)
    wide_bias = None if bias is None else bias.to(dtype)
    layer = Layer(weight.to(dtype), wide_bias, task.smoothing, task.zeta, min(block, len(weight)))
    gradients = Gradients(rows, layer, wanted)
    losses = rows.new_zeros(len(rows), dtype=torch.float64)
    height = len(weight) if any(wanted) else layer.block
    store = layer.weight.new_empty(height * step)
    for start in range(0, len(kept), step):
        chosen = kept[start : start + step]
        room = store[: height * len(chosen)].view(height, len(chosen))
        chunk = Chunk(chosen, rows[chosen].to(dtype), task.target[chosen], room)
        losses[chosen], shares = _losses_and_shares(layer, chunk, *_exponentials(layer, chunk))
        if task.factor is not None and any(wanted):
            gradients.add(chunk, shares, task.factor[chosen])
    return losses, gradients.rounded(weight.dtype)


def _exponentials(layer: Layer, chunk: Chunk) -> tuple[Tensor, Tensor]:
    """Compute e^(z - m) with m the maximum of a row's block of classes, and 0 at its target.

    Returns the maxima and the sums, one row for each block.
    """
    tops, sums = [], []
    for block in layer.blocks():
        weight = layer.weight[block]
        kept = len(chunk.exponentials) == len(layer.weight)
        e = chunk.exponentials[block] if kept else chunk.exponentials[: len(weight)]
        if layer.bias is None:
            torch.mm(weight, chunk.hidden.T, out=e)
        else:
            torch.addmm(layer.bias[block].unsqueeze(-1), weight, chunk.hidden.T, out=e)
        local = chunk.target - block.start
        here = ((local >= 0) & (local < len(e))).nonzero().squeeze(-1)
        e[local[here], here] = -torch.inf
        # In a block that is masked throughout, -inf - (-inf) would be NaN.
        top = e.amax(0).clamp_(min=torch.finfo(e.dtype).min)
        sums.append(e.sub_(top).exp_().sum(0))
        tops.append(top)
    return torch.stack(tops).double(), torch.stack(sums).double()


def _losses_and_shares(
    layer: Layer, chunk: Chunk, tops: Tensor, sums: Tensor
) -> tuple[Tensor, Shares]:
    """The losses of a chunk, and their derivatives by the logits, from the other classes' sums."""
    target, hidden = chunk.target, chunk.hidden.double()
    z_y = (hidden * layer.weight[target].double()).sum(-1)
    if layer.bias is not None:
        z_y = z_y + layer.bias[target].double()
    top = tops.amax(0)
    relative = (tops - top).exp()
    total = (relative * sums).sum(0)
    log_others = top + total.log()
    gap = log_others - z_y
    losses = torch.logaddexp(gap, torch.zeros_like(gap))
    of_others, of_target = gap.sigmoid(), (-gap).sigmoid()
    at_target = layer.smoothing - of_others
    if layer.smoothing > 0 or layer.zeta > 0:
        log_all = torch.logaddexp(log_others, z_y)
    if layer.smoothing > 0:
        weight_sum, bias_sum = layer.sums
        mean = (hidden @ weight_sum + bias_sum) / len(layer.weight)
        losses = (1.0 - layer.smoothing) * losses + layer.smoothing * (log_all - mean)
    if layer.zeta > 0:
        losses = losses + layer.zeta * log_all.square()
        at_target = at_target + 2.0 * layer.zeta * log_all * of_target
        of_others = of_others * (1.0 + 2.0 * layer.zeta * log_all)
    # Where there is no other class the total is 0, and else at least 1.
    shares = of_others / total.clamp(min=1.0) * relative
    return losses, Shares(shares, at_target, layer.smoothing / len(layer.weight))


class Gradients:
    """The gradients by rows, weight and bias, summed chunk by chunk."""

    def __init__(self, rows: Tensor, layer: Layer, wanted: tuple[bool, ...]) -> None:
        self.layer = layer
        weight = layer.weight
        self.rows = torch.zeros_like(rows) if wanted[0] else None
        self.weight = torch.empty_like(weight) if wanted[1] else None
        self.bias = weight.new_zeros(len(weight)) if wanted[2] else None
        self.begun = False
        # What every row of the weight, and every entry of the bias, still has to lose.
        self.uniform_weight = weight.new_zeros(weight.shape[1], dtype=torch.float64)
        self.uniform_bias = weight.new_zeros((), dtype=torch.float64)

    def add(self, chunk: Chunk, shares: Shares, factor: Tensor) -> None:
        """Add a chunk's part; the factor says how much each of its rows counts."""
        weight, hidden = self.layer.weight, chunk.hidden
        by_block = (shares.others * factor).to(weight.dtype).unsqueeze(-1)
        to_hidden = torch.zeros_like(hidden)
        for block, share in zip(self.layer.blocks(), by_block, strict=True):
            e = chunk.exponentials[block]
            if self.weight is not None:
                # The first product overwrites: zeros would cost a pass over the memory.
                self.weight[block].addmm_(e, hidden * share, beta=int(self.begun))
            if self.rows is not None:
                to_hidden.addcmul_(e.T @ weight[block], share)
            if self.bias is not None:
                self.bias[block].addmv_(e, share.squeeze(-1))
        self.begun = True
        at_target = (shares.target * factor).to(weight.dtype)
        if self.weight is not None:
            self.weight.index_add_(0, chunk.target, hidden * at_target.unsqueeze(-1))
        if self.rows is not None:
            to_hidden.addcmul_(weight[chunk.target], at_target.unsqueeze(-1))
            if shares.uniform > 0:
                uniform = (factor * shares.uniform).unsqueeze(-1)
                to_hidden.sub_((uniform * self.layer.sums[0]).to(weight.dtype))
            self.rows[chunk.chosen] = to_hidden.to(self.rows.dtype)
        if self.bias is not None:
            self.bias.index_add_(0, chunk.target, at_target)
        if shares.uniform > 0:
            self.uniform_weight += shares.uniform * (factor @ hidden.double())
            self.uniform_bias += shares.uniform * factor.sum()

    def rounded(self, dtype: torch.dtype) -> list[Tensor | None]:
        """The sums, in the format of the weight."""
        if self.weight is not None and not self.begun:
            self.weight.zero_()
        elif self.weight is not None and self.layer.smoothing > 0:
            self.weight.sub_(self.uniform_weight.to(self.weight.dtype))
        if self.bias is not None:
            self.bias.sub_(self.uniform_bias.to(self.bias.dtype))
        sums = [self.rows, self.weight, self.bias]
        return [None if x is None else x.to(dtype) for x in sums]
