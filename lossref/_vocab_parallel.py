"""Cross-entropy of logits whose classes are spread over processes."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lossref._arrays import (
    Array,
    TypedFunction,
    check_floating,
    check_integer,
    check_range,
    check_shape,
    check_values,
    describe,
    takes_arrays,
    wide_dtype,
)
from lossref._reduction import check_reduction, finish
from lossref._rows import by_rows, exponentials_below, row_sum


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
    size. Three small exchanges between the processes are made in the forward pass and none in the
    backward pass. Every process of the group must call it, with the same ``target``.

    The gradient can be differentiated once more, by every process of the group at the same time:
    that takes one more exchange. What is then differentiated is the loss, counted once, plus the
    sum over the processes of what each has made of its slice of the gradient, as for a penalty
    on the norm of the gradient. Third derivatives are refused with an error.

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

    Returns
    -------
    tensor
        A scalar, or for ``"none"`` the shape of ``target``, the same on every process; the dtype
        of ``logits``. The gradient is that of this process's slice. Correct to 1 ULP in float16,
        bfloat16 and float32, value and gradient; in float64 to 5 ULP. With label
        smoothing the gradient p - q, with q the smoothed target, may cross zero: its error is
        then at most that many ULPs of the larger of the two.

    Raises
    ------
    TypeError
        If ``logits`` is not floating, or ``target`` not integer.
    ValueError
        If a shape does not fit, the processes differ in their number of rows, an index is out of
        range, or the reduction is unknown.
    RuntimeError
        If ``torch.distributed`` has not been initialized, or for a third derivative.

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
    y = target.reshape(-1).long()
    offset, vocabulary = _slice_of(logits, len(y), group)
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


def _slice_of(logits: Tensor, rows: int, group: Any) -> tuple[int, int]:
    """Where this process's classes begin, and how many there are in all."""
    own = torch.tensor([logits.shape[-1], rows], device=logits.device)
    sizes = [torch.zeros_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(sizes, own, group=group)
    counts, lengths = zip(*(size.tolist() for size in sizes), strict=True)
    if len(set(lengths)) > 1:
        raise ValueError(
            f"logits must have as many rows on every process, but have {list(lengths)}"
        )
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
        ctx.smoothing, ctx.share, ctx.group = smoothing, smoothing / vocabulary, group
        losses = (1.0 - smoothing) * (gap + excess)
        return losses + (smoothing * (gaps / vocabulary + excess) if smoothing > 0 else 0.0)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        gradient = VocabParallelGradient.apply(
            *ctx.saved_tensors, g, ctx.smoothing, ctx.share, ctx.group
        )
        return gradient, None, None, None, None


class VocabParallelGradient(TypedFunction):
    """The gradient to one slice, with a gradient of its own.

    The other arguments are functions of the rows; what comes through them is part of the formula.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        top: Tensor,
        index: Tensor,
        here: Tensor,
        others: Tensor,
        e_y: Tensor,
        g: Tensor,
        smoothing: float,
        share: float,
        group: Any,
    ) -> Tensor:
        ctx.save_for_backward(rows, top, index, here, others + e_y, g)
        ctx.smoothing, ctx.share, ctx.group = smoothing, share, group
        if rows.shape[-1] == 0:
            return torch.zeros_like(rows)

        def kernel(rows: Tensor, *parts: Tensor) -> Tensor:
            return _local_gradient(rows, *parts, smoothing=smoothing, share=share)

        return by_rows(kernel, rows, top, index, here, others, e_y, g)

    @staticmethod
    def backward(ctx: Any, h: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            # `once_differentiable` would cut the graph, and leave a third derivative out unsaid.
            raise RuntimeError(
                "vocab_parallel_cross_entropy has no third derivative: differentiate its gradient "
                "with create_graph=False"
            )
        rows, top, index, here, z, g = ctx.saved_tensors
        p, wide = exponentials_below(rows, top) / z.unsqueeze(-1), h.to(top.dtype)
        at_y = torch.zeros_like(z)
        if rows.shape[-1]:
            at_y = torch.where(here, wide.gather(-1, index.unsqueeze(-1)).squeeze(-1), 0.0)
        mean, uniform = (p * wide).sum(-1), ctx.share * wide.sum(-1)
        sums = torch.stack([mean, mean - uniform - (1.0 - ctx.smoothing) * at_y])
        dist.all_reduce(sums, group=ctx.group)
        mean, to_g = sums
        to_rows = g.unsqueeze(-1) * p * (wide - mean.unsqueeze(-1))
        return (to_rows.to(rows.dtype), *[None] * 5, to_g, None, None, None)


def _local_sums(rows: Tensor, top: Tensor, index: Tensor, here: Tensor) -> Tensor:
    """Of one slice: the other classes' exponentials, the target's, its gap, all gaps."""
    x = rows.to(top.dtype)
    index, here = index.unsqueeze(-1), here.unsqueeze(-1)
    e = exponentials_below(rows, top)
    e_y = torch.where(here, e.gather(-1, index), 0.0)
    gap = torch.where(here, top - x.gather(-1, index), 0.0)
    others = e.scatter(-1, index, torch.where(here, 0.0, e.gather(-1, index)))
    gaps = row_sum(top - x, rows.dtype)
    return torch.cat([row_sum(others, rows.dtype), e_y, gap, gaps], -1)


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
