"""Cross-entropy over large vocabularies: without all the logits, or with them on many devices."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from lossref._arrays import (
    Array,
    TypedFunction,
    check_floating,
    check_integer,
    check_range,
    check_same_dtype,
    check_shape,
    check_values,
    describe,
    takes_arrays,
    visible,
    wide_dtype,
    widen,
)
from lossref._classification import cross_entropy
from lossref._classification import z_loss as z_loss_of
from lossref._reduction import check_reduction, finish
from lossref._rows import by_rows, exponentials_below

# Logits of a chunk: enough rows for the matrix products to run at full speed (measured: from 128
# rows on they do), few enough to be small beside the gradient of the weight.
CHUNK_LOGITS = 2**24
FEWEST_ROWS = 128
# The softmax then goes over a chunk by blocks that stay in the cache.
BLOCK_LOGITS = 2**17


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
        Rows of a chunk. By default :math:`2^{24} / V`, and at least 128: 64 MiB of float32
        logits, or what keeps the matrix products fast.
    ignore_index : int
        Targets that are left out: they touch neither value nor gradient.
    label_smoothing : float
        :math:`\varepsilon` in [0, 1].
    z_loss : float
        The weight :math:`\zeta \ge 0` of the squared log-sum-exp.
    reduction : {"none", "mean", "sum"}
        The mean divides by the number of targets that are kept.
    denominator : number or 0-d array, optional
        What the mean divides by instead.
    nan_if_empty : bool
        A mean over nothing is 0 with zero gradient; True makes it NaN, as PyTorch has it.

    Returns
    -------
    array
        A scalar, or for ``"none"`` the shape of ``target``; the dtype of ``hidden``. The error
        is that of the matrix products, computed in float32 for float16, bfloat16 and float32
        (for float16 and bfloat16 from a float32 copy of the weight) and in float64 for
        float64: each logit has an absolute error of at most :math:`d\,u \sum_i |W_{ki} h_i|`,
        with u the unit roundoff of that format, and so has the loss twice; sums over rows
        accumulate in float64. The gradient of the gradient is computed with all the logits.

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
    if any(visible(x) is not x for x in (rows, weight, bias) if x is not None):
        # torch.func cannot see through gradients that are computed on the way.
        losses = _reference(rows, weight, bias, y, keep, label_smoothing, z_loss)
    else:
        step = _chunk_rows(chunk_size, len(rows), len(weight))
        factor = None
        if reduction != "none":
            count = keep.sum() if denominator is None else denominator
            factor = _row_factor(keep, reduction, count)
        differentiate = torch.is_grad_enabled()
        losses = LinearCrossEntropy.apply(
            rows, weight, bias, y, keep, label_smoothing, z_loss, step, factor, differentiate
        )
        if factor is not None:
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


def _chunk_rows(chunk_size: Any, rows: int, vocabulary: int) -> int:
    if chunk_size is None:
        return min(rows, max(FEWEST_ROWS, CHUNK_LOGITS // vocabulary)) or 1
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


def _reference(
    rows: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    keep: Tensor,
    smoothing: float,
    zeta: float,
) -> Tensor:
    """The losses from all the logits at once, differentiable as often as wanted."""
    clean = torch.where(keep.unsqueeze(-1), rows, 0.0)
    logits = torch.nn.functional.linear(widen(clean), widen(weight), _wide_or_none(bias))
    index = torch.where(keep, y, 0)
    losses = cross_entropy(logits, index, label_smoothing=smoothing, reduction="none")
    if zeta > 0:
        losses = losses + zeta * z_loss_of(logits, reduction="none")
    return torch.where(keep, losses, 0.0)


def _wide_or_none(x: Tensor | None) -> Tensor | None:
    return None if x is None else widen(x)


def _softmax_in_place(
    logits: Tensor, y: Tensor, smoothing: float, zeta: float, factor: Tensor | None
) -> Tensor:
    """The losses of a block of rows; with a factor the logits become their gradients."""
    y = y.unsqueeze(-1)
    top = logits.amax(-1, keepdim=True)
    z_y = logits.gather(-1, y)
    gap = top - z_y
    mean_gap = top - logits.mean(-1, keepdim=True) if smoothing > 0 else gap
    e = logits.sub_(top).exp_()
    e_y = e.gather(-1, y)
    others = e.scatter_(-1, y, 0.0).sum(-1, keepdim=True)
    excess = torch.where(gap == 0.0, others, (others - 1.0) + e_y).double().log1p()
    total = top + excess
    losses = (1.0 - smoothing) * (gap + excess)
    if smoothing > 0:
        losses = losses + smoothing * (mean_gap + excess)
    if zeta > 0:
        losses = losses + zeta * total.square()
    if factor is not None:
        pull = 1.0 + 2.0 * zeta * total
        z = others + e_y
        at_y = (smoothing - others / z) + (pull - 1.0) * (e_y / z)
        e.mul_((factor * pull / z).to(e.dtype)).scatter_(-1, y, (factor * at_y).to(e.dtype))
        if smoothing > 0:
            e.sub_((factor * (smoothing / e.shape[-1])).to(e.dtype))
    return losses.squeeze(-1)


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
        y: Tensor,
        keep: Tensor,
        smoothing: float,
        zeta: float,
        step: int,
        factor: Tensor | None,
        differentiate: bool,
    ) -> Tensor:
        ctx.save_for_backward(rows, weight, bias, y, keep, factor)
        ctx.smoothing, ctx.zeta, ctx.step = smoothing, zeta, step
        wanted = ctx.needs_input_grad[:3] if differentiate and factor is not None else (False,) * 3
        losses, ctx.gradients = _over_chunks(
            rows, weight, bias, y, keep, smoothing, zeta, step, factor, wanted
        )
        return losses if factor is None else (losses * factor).sum()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, bias, y, keep, factor = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():
            return (*_twice(ctx, g), *[None] * 7)
        # Given away, not kept: a gradient with one owner is not copied into `.grad`.
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None or not any(grad is not None for grad in gradients):
            per_row = g if factor is None else g * factor
            smoothing, zeta, step = ctx.smoothing, ctx.zeta, ctx.step
            _, gradients = _over_chunks(
                rows, weight, bias, y, keep, smoothing, zeta, step, per_row, wanted
            )
        elif float(g) != 1.0:
            gradients = [None if grad is None else grad * g.to(grad.dtype) for grad in gradients]
        return (*gradients, *[None] * 7)


def _twice(ctx: Any, g: Tensor) -> list[Tensor | None]:
    """Gradients that can be differentiated again, from all the logits."""
    rows, weight, bias, y, keep, factor = ctx.saved_tensors
    inputs = [rows, weight, bias]
    chosen = [k for k in range(3) if ctx.needs_input_grad[k]]
    losses = _reference(rows, weight, bias, y, keep, ctx.smoothing, ctx.zeta)
    value = losses if factor is None else (losses * factor).sum()
    found = torch.autograd.grad(
        value, [inputs[k] for k in chosen], g.to(value.dtype), create_graph=True
    )
    gradients: list[Tensor | None] = [None] * 3
    for k, gradient in zip(chosen, found, strict=True):
        gradients[k] = gradient
    return gradients


def _over_chunks(
    rows: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    keep: Tensor,
    smoothing: float,
    zeta: float,
    step: int,
    factor: Tensor | None,
    wanted: tuple[bool, ...],
) -> tuple[Tensor, list[Tensor | None]]:
    """The loss of each row, and the gradients wanted of the sum weighted by the factor."""
    dtype = torch.float64 if rows.dtype == torch.float64 else torch.float32
    w = weight.to(dtype)
    losses = rows.new_zeros(len(rows), dtype=torch.float64)
    to_rows = torch.zeros_like(rows) if wanted[0] else None
    to_weight = torch.zeros_like(w) if wanted[1] else None
    to_bias = w.new_zeros(len(w), dtype=torch.float64) if wanted[2] else None
    # Left-out rows are dropped first: they may hold NaN, and cost nothing.
    kept = keep.nonzero().squeeze(-1)
    buffer = w.new_empty((min(step, max(1, len(kept))), len(w)))
    for start in range(0, len(kept), step):
        chosen = kept[start : start + step]
        h = rows[chosen].to(dtype)
        logits = torch.mm(h, w.T, out=buffer[: len(chosen)])
        if bias is not None:
            logits.add_(bias.to(dtype))
        scale = factor[chosen].unsqueeze(-1) if factor is not None and any(wanted) else None
        block = max(1, BLOCK_LOGITS // len(w)) if rows.device.type == "cpu" else len(chosen)
        for k in range(0, len(chosen), block):
            part = chosen[k : k + block]
            part_scale = None if scale is None else scale[k : k + block]
            losses[part] = _softmax_in_place(
                logits[k : k + block], y[part], smoothing, zeta, part_scale
            )
        if to_rows is not None:
            to_rows[chosen] = (logits @ w).to(rows.dtype)
        if to_weight is not None:
            to_weight.addmm_(logits.T, h)
        if to_bias is not None:
            to_bias += logits.sum(0, dtype=torch.float64)
    return losses, [
        to_rows,
        None if to_weight is None else to_weight.to(weight.dtype),
        None if to_bias is None or bias is None else to_bias.to(bias.dtype),
    ]


@takes_arrays
def vocab_parallel_cross_entropy(
    logits: Array,
    target: Array,
    *,
    group: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Cross-entropy of logits whose classes are spread over processes.

    .. math::
        \ell = (1 - \varepsilon)(L - z_y) + \varepsilon\,\Bigl(L - \frac1V \sum_k z_k\Bigr),
        \qquad L = \log \sum_k e^{z_k}

    Each process holds a slice of the vocabulary, in the order of ranks; the slices may differ in
    size. Three small reductions over the processes are made in the forward pass and none in the
    backward pass. Every process of the group must call it, with the same ``target``.

    Parameters
    ----------
    logits : tensor of shape (N, V_rank) or (..., V_rank), floating
        This process's slice of the logits.
    target : integer tensor of shape (N,) or (...)
        Indices into the whole vocabulary.
    group : torch.distributed process group, optional
        By default all processes.
    ignore_index : int
        Targets that are left out: they touch neither value nor gradient.
    label_smoothing : float
        :math:`\varepsilon` in [0, 1].
    reduction : {"none", "mean", "sum"}
        The mean divides by the number of targets that are kept.
    denominator : number or 0-d array, optional
        What the mean divides by instead.
    nan_if_empty : bool
        A mean over nothing is 0 with zero gradient; True makes it NaN, as PyTorch has it.

    Returns
    -------
    tensor
        A scalar, or for ``"none"`` the shape of ``target``, the same on every process; the dtype
        of ``logits``. The gradient is that of this process's slice. Correct to 1 ULP in float16,
        bfloat16 and float32, value and gradient; in float64 to 8 ULP.
        It cannot be differentiated twice.

    Raises
    ------
    TypeError
        If ``logits`` is not floating, or ``target`` not integer.
    ValueError
        If a shape does not fit, an index is out of range, or the reduction is unknown.
    RuntimeError
        If ``torch.distributed`` has not been initialized.

    References
    ----------
    M. Shoeybi et al., "Megatron-LM: training multi-billion parameter language models using model
    parallelism", arXiv:1909.08053, 2019, section 3.

    Examples
    --------
    >>> import torch
    >>> import lossref
    >>> torch.distributed.init_process_group(
    ...     "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    ... )
    >>> logits, target = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
    >>> round(lossref.vocab_parallel_cross_entropy(logits, target).item(), 6)
    0.126928
    >>> torch.distributed.destroy_process_group()
    """
    check_reduction(reduction, denominator)
    check_range("label_smoothing", label_smoothing, 0.0, 1.0)
    check_floating(logits=logits)
    check_integer(target=target)
    if not dist.is_initialized():
        raise RuntimeError(
            "vocab_parallel_cross_entropy needs torch.distributed.init_process_group first"
        )
    if logits.ndim == 0:
        raise ValueError(f"logits must have a last axis of classes, but is {describe(logits)}")
    check_shape("target", target, logits.shape[:-1], "that of logits without its last axis")
    offset, vocabulary = _slice_of(logits, group)
    y = target.reshape(-1).long()
    keep = y != int(ignore_index)
    expected = f"indices in [0, {vocabulary}), or ignore_index={int(ignore_index)}"
    check_values("target", ~keep | ((y >= 0) & (y < vocabulary)), y, expected)
    rows = torch.where(keep.unsqueeze(-1), logits.reshape(len(y), logits.shape[-1]), 0.0)
    losses = VocabParallelCrossEntropy.apply(
        rows, torch.where(keep, y, 0) - offset, vocabulary, float(label_smoothing), group
    )
    losses = torch.where(keep, losses, 0.0).reshape(target.shape)
    return finish(
        losses,
        mask=keep.reshape(target.shape),
        dtype=logits.dtype,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


def _slice_of(logits: Tensor, group: Any) -> tuple[int, int]:
    """Where this process's classes begin, and how many there are in all."""
    own = torch.tensor([logits.shape[-1]], device=logits.device)
    sizes = [torch.zeros_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(sizes, own, group=group)
    counts = [int(size) for size in sizes]
    return sum(counts[: dist.get_rank(group)]), sum(counts)


class VocabParallelCrossEntropy(TypedFunction):
    """Losses, one format up, of rows whose classes are spread over processes."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, y: Tensor, vocabulary: int, smoothing: float, group: Any
    ) -> Tensor:
        wide = wide_dtype(rows.dtype)
        top = rows.new_full((len(rows), 1), -torch.inf, dtype=wide)
        if rows.shape[-1]:
            top = rows.amax(-1, keepdim=True).to(wide)
        dist.all_reduce(top, dist.ReduceOp.MAX, group=group)
        here = (y >= 0) & (y < rows.shape[-1])
        index = torch.where(here, y, 0)
        if rows.shape[-1]:
            sums = by_rows(_local_sums, rows, top, index, here)
        else:
            sums = top.new_zeros((len(rows), 4))
        dist.all_reduce(sums, group=group)
        others, e_y, gap, gaps = sums.unbind(-1)
        excess = torch.where(gap == 0.0, others, (others - 1.0) + e_y).log1p()
        ctx.save_for_backward(rows, top, index, here, others, e_y)
        ctx.smoothing, ctx.share = smoothing, smoothing / vocabulary
        losses = (1.0 - smoothing) * (gap + excess)
        return losses + (smoothing * (gaps / vocabulary + excess) if smoothing > 0 else 0.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        rows, *others = ctx.saved_tensors
        if rows.shape[-1] == 0:
            return torch.zeros_like(rows), None, None, None, None

        def kernel(rows: Tensor, *parts: Tensor) -> Tensor:
            return _local_gradient(rows, *parts, smoothing=ctx.smoothing, share=ctx.share)

        return by_rows(kernel, rows, *others, g), None, None, None, None


def _local_sums(rows: Tensor, top: Tensor, index: Tensor, here: Tensor) -> Tensor:
    """Of one slice: the other classes' exponentials, the target's, its gap, all gaps."""
    x = rows.to(top.dtype)
    index, here = index.unsqueeze(-1), here.unsqueeze(-1)
    e = exponentials_below(rows, top)
    e_y = torch.where(here, e.gather(-1, index), 0.0)
    gap = torch.where(here, top - x.gather(-1, index), 0.0)
    others = e.scatter(-1, index, torch.where(here, 0.0, e.gather(-1, index)))
    gaps = (top - x).sum(-1, keepdim=True)
    return torch.cat([others.sum(-1, keepdim=True), e_y, gap, gaps], -1)


def _local_gradient(
    rows: Tensor,
    top: Tensor,
    index: Tensor,
    here: Tensor,
    others: Tensor,
    e_y: Tensor,
    g: Tensor,
    *,
    smoothing: float,
    share: float,
) -> Tensor:
    """The gradient to this slice: p, and at the target minus the other classes' part."""
    z = (others + e_y).unsqueeze(-1)
    p = exponentials_below(rows, top) / z
    index = index.unsqueeze(-1)
    at_y = smoothing - others.unsqueeze(-1) / z
    p = p.scatter(-1, index, torch.where(here.unsqueeze(-1), at_y, p.gather(-1, index)))
    return (g.unsqueeze(-1) * (p - share)).to(rows.dtype)
