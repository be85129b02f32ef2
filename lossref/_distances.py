"""Distances between rows, with gradients that are rounded once.

All is computed in float64, whatever the input: products of coordinates leave the range of the
next format up, as with a bfloat16 norm of 1e20.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from lossref._arrays import (
    Array,
    TypedFunction,
    check_range,
    check_same_dtype,
    check_shape,
    describe,
    takes_arrays,
)
from lossref._embeddings import check_embeddings, power_of_two
from lossref._rows import CHUNK_ELEMENTS, CHUNK_ELEMENTS_ELSEWHERE, RowFunction

# Of all distances, the differences held at once.
PAIR_ELEMENTS = 2**22

# Pairs of positions among the arrays of a call: which rows are compared with which.
Pairs = Sequence[tuple[int, int]]


@takes_arrays
def pairwise_distance(
    x1: Array, x2: Array | None = None, *, p: float = 2.0, eps: float = 0.0, keepdim: bool = False
) -> Array:
    r"""Distances between rows: of two arrays row by row, or of one array all with all.

    .. math::
        d_i = \lVert x_{1,i} - x_{2,i} + \epsilon \rVert_p \qquad\text{or}\qquad
        D_{ij} = \lVert x_{1,i} - x_{1,j} \rVert_p

    Differences are taken before products, so near points keep their distance, and the gradient
    between identical points is 0.

    Parameters
    ----------
    x1 : array of shape (N, D) or (D,), floating
        Points.
    x2 : array of the same shape and dtype, optional
        Points to be paired with those of ``x1``, as in PyTorch. Without it, ``x1`` has shape
        ``(N, D)`` and all distances among its rows are returned.
    p : float
        The order of the norm, at least 1; infinity is allowed.
    eps : float
        Added to each difference, for the second form. PyTorch's default is 1e-6, which shifts
        every distance and separates identical points.
    keepdim : bool
        Keep the last axis, with length 1, when ``x2`` is given.

    Returns
    -------
    array
        Shape ``(N,)`` or ``()`` with ``x2``, and ``(N, N)`` with a zero diagonal without; the
        dtype of ``x1``. Correct to 1 ULP in float16, bfloat16 and float32, value and gradient.
        In float64, where the sum of D squares is rounded as it is taken, the value to D/2 + 3
        ULP, and the gradient to D + 4 ULP of its largest slope.

    Raises
    ------
    TypeError
        If the arrays are not floating or differ in dtype.
    ValueError
        If shapes do not fit, or ``p`` is below 1.

    References
    ----------
    R. Hadsell, S. Chopra, Y. LeCun, "Dimensionality reduction by learning an invariant mapping",
    CVPR 2006, eq. (1).

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> x = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]])
    >>> lossref.pairwise_distance(x)
    array([[0., 5., 0.],
           [5., 0., 5.],
           [0., 5., 0.]])
    """
    check_range("p", p, 1.0)
    if x2 is None:
        dtype = check_embeddings(x1=x1)
        points = x1.double()
        return all_distances(points, points, float(p)).to(dtype)
    dtype = check_same_dtype(x1=x1, x2=x2)
    check_shape("x2", x2, x1.shape, "the shape of x1")
    if x1.ndim not in (1, 2):
        raise ValueError(f"x1 must have shape (N, D) or (D,), but is {describe(x1)}")
    result = distances(((0, 1),), x1, x2, p=p, eps=eps)[..., 0].to(dtype)
    return result.unsqueeze(-1) if keepdim else result


def distances(pairs: Pairs, *arrays: Tensor, p: float = 2.0, eps: float = 0.0) -> Tensor:
    """Distances in float64 between paired arrays (N, D) or (D,), one column for each pair."""
    rows = [x.unsqueeze(0) if x.ndim == 1 else x for x in arrays]
    result: Tensor = RowDistances.apply(tuple(pairs), float(p), float(eps), *rows)
    return result.squeeze(0) if arrays[0].ndim == 1 else result


class RowDistances(RowFunction):
    """Distances of rows, by chunks: differences one format up would not stay in the cache."""

    @staticmethod
    def forward(pairs: Pairs, p: float, eps: float, *arrays: Tensor) -> Tensor:
        result = arrays[0].new_empty((len(arrays[0]), len(pairs)), dtype=torch.float64)
        for rows, differences in _chunks(pairs, eps, arrays):
            result[rows] = norm(differences, p, arrays[0].dtype).mT
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.pairs, ctx.p, ctx.eps, *arrays = inputs
        ctx.save_for_backward(output, *arrays)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        d, *arrays = ctx.saved_tensors
        if torch.is_grad_enabled():
            # The gradient of the gradient: plain operations, which autograd records.
            wide = [x.double() for x in arrays]
            differences = torch.stack([wide[j] - wide[i] - ctx.eps for i, j in ctx.pairs])
            lengths = norm(differences, ctx.p, arrays[0].dtype)
            pushes = slope(differences, lengths, g.mT, ctx.p)
            totals = (_total(ctx.pairs, pushes, i) for i in range(len(arrays)))
            return None, None, None, *(t.to(x.dtype) for t, x in zip(totals, arrays, strict=True))
        wanted = ctx.needs_input_grad[3:]
        results = [torch.empty_like(x) if w else None for x, w in zip(arrays, wanted, strict=True)]
        for rows, differences in _chunks(ctx.pairs, ctx.eps, arrays):
            pushes = slope(differences, d[rows].mT, g[rows].mT, ctx.p, out=differences)
            for i, result in enumerate(results):
                if result is not None:
                    result[rows] = _total(ctx.pairs, pushes, i)
        return None, None, None, *results


def _chunks(pairs: Pairs, eps: float, arrays: Sequence[Tensor]) -> Iterator[tuple[slice, Tensor]]:
    """By chunks of rows, each pair's second less first, less eps, in float64.

    All chunks share their memory: to ask for as much anew costs more than the arithmetic.
    """
    first = arrays[0]
    budget = CHUNK_ELEMENTS.get(first.device.type, CHUNK_ELEMENTS_ELSEWHERE) // 2
    step = min(len(first), max(1, budget // max(1, first.shape[1])))
    wide = first.new_empty((len(arrays), step, first.shape[1]), dtype=torch.float64)
    room = wide.new_empty((len(pairs), *wide.shape[1:]))
    for start in range(0, len(first), max(1, step)):
        size = min(step, len(first) - start)
        rows, part, differences = slice(start, start + size), wide[:, :size], room[:, :size]
        for x, copy in zip(arrays, part, strict=True):
            copy.copy_(x[rows])
        for (i, j), difference in zip(pairs, differences, strict=True):
            torch.sub(part[j], part[i], out=difference)
        yield rows, differences.sub_(eps) if eps else differences


def _total(pairs: Pairs, pushes: Tensor, array: int) -> Tensor:
    """What the pairs' differences pass on to one of the arrays."""
    pull = [push for push, (i, _) in zip(pushes, pairs, strict=True) if i == array]
    push = [push for push, (_, j) in zip(pushes, pairs, strict=True) if j == array]
    if not pull:
        total: Tensor = reduce(torch.add, push)
    elif push:
        total = reduce(torch.sub, pull, reduce(torch.add, push))
    else:
        total = -reduce(torch.add, pull)
    return total


def norm(x: Tensor, p: float, dtype: torch.dtype) -> Tensor:
    """Norm of the last axis of float64 differences of numbers of a dtype, with slope 0 at 0."""
    scale = None
    if dtype == torch.float64 or 2.0 < p < math.inf:
        # Powers of the largest numbers would overflow, also those of narrower formats from p = 9.
        scale = power_of_two(x)
        x = x / scale
    length: Tensor = torch.linalg.vector_norm(x, ord=p, dim=-1)
    return length if scale is None else length * scale.squeeze(-1)


def slope(
    difference: Tensor, length: Tensor, g: Tensor, p: float, out: Tensor | None = None
) -> Tensor:
    """The gradient g of a norm passed on to the vector, 0 where the vector is 0."""
    zero = length == 0.0
    g = torch.where(zero, 0.0, g).unsqueeze(-1)
    length = torch.where(zero, 1.0, length).unsqueeze(-1)
    if p == 2.0:
        return torch.mul(difference, g / length, out=out)
    if math.isinf(p):
        reached = (difference.abs() == length).double()
        direction = difference.sign() * reached / reached.sum(-1, keepdim=True).clamp(min=1.0)
    else:
        direction = difference.sign() * (difference.abs() / length).pow(p - 1.0)
    return direction * g


def all_distances(a: Tensor, b: Tensor, p: float = 2.0) -> Tensor:
    """Distances of all float64 rows of a from all of b."""
    result: Tensor = AllDistances.apply(a, b, p)
    return result


class AllDistances(TypedFunction):
    """All distances, without ever holding all the differences."""

    @staticmethod
    def forward(a: Tensor, b: Tensor, p: float) -> Tensor:
        return torch.cat([norm(x[:, None] - b, p, a.dtype) for x in _parts(a, b)])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        a, b, ctx.p = inputs
        ctx.save_for_backward(a, b)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        a, b = ctx.saved_tensors
        to_a = _pull_all(a, b, g, ctx.p) if ctx.needs_input_grad[0] else None
        to_b = _pull_all(b, a, g.mT, ctx.p) if ctx.needs_input_grad[1] else None
        return to_a, to_b, None


def _parts(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    parts: tuple[Tensor, ...] = a.split(max(1, PAIR_ELEMENTS // max(1, b.numel())))
    return parts


def _pull_all(a: Tensor, b: Tensor, g: Tensor, p: float) -> Tensor:
    """The gradient to a of its distances from b, part by part."""
    parts = _parts(a, b)
    weights = g.split(max(1, parts[0].shape[0]))
    return torch.cat([_pull_part(x, b, w, p) for x, w in zip(parts, weights, strict=True)])


def _pull_part(x: Tensor, b: Tensor, g: Tensor, p: float) -> Tensor:
    difference = x[:, None] - b
    return slope(difference, norm(difference, p, x.dtype), g, p).sum(1)
