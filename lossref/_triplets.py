"""Losses of the distances within pairs and triplets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from lossref._arrays import (
    Array,
    check_range,
    check_same_dtype,
    check_shape,
    describe,
    match_dtype,
    takes_arrays,
    visible,
)
from lossref._at_once import Gradients, Total, can_keep, expected_factor
from lossref._binary import check_binary
from lossref._distances import all_distances, distances
from lossref._embeddings import check_embeddings, check_labels, power_of_two, softplus
from lossref._reduction import check_reduction, divide, finish
from lossref._rows import CHUNK_ELEMENTS, CHUNK_ELEMENTS_ELSEWHERE


@takes_arrays
def contrastive_loss(
    x1: Array,
    x2: Array,
    dissimilar: Array,
    *,
    margin: float = 1.0,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Contrastive loss of pairs of embeddings.

    .. math::
        \ell = (1 - y)\,\tfrac12 d^2 + y\,\tfrac12 \max(0,\; m - d)^2, \qquad
        d = \lVert x_1 - x_2 \rVert_2

    Parameters
    ----------
    x1, x2 : arrays of shape (N, D), floating
        The two embeddings of each pair.
    dissimilar : array of shape (N,)
        :math:`y`: 1 or True for a dissimilar pair, 0 for a similar one.
    margin : float
        The distance :math:`m` from which a dissimilar pair costs nothing, positive.
    reduction : {"none", "mean", "sum"}
        The mean divides by the number N of pairs.

    Returns
    -------
    array
        A scalar, or for ``"none"`` shape ``(N,)``; the dtype of ``x1``. Correct to 1 ULP in
        float16, bfloat16 and float32, value and gradient. In float64, where the sum of D squares
        is rounded as it is taken, a similar pair to D + 4 ULP, a dissimilar one to as many ULP of
        the margin's square, from which it may cancel, and the gradient to as many ULP of its
        largest slope. Identical points of a dissimilar pair get gradient 0, for want of a
        direction.

    Raises
    ------
    TypeError
        If the embeddings are not floating or differ in dtype.
    ValueError
        If shapes do not fit, a label is neither 0 nor 1, or ``margin`` is not positive.

    References
    ----------
    R. Hadsell, S. Chopra, Y. LeCun, "Dimensionality reduction by learning an invariant mapping",
    CVPR 2006, eq. (4).

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> x1, x2 = np.zeros((2, 2)), np.array([[3.0, 4.0], [0.0, 0.5]])
    >>> lossref.contrastive_loss(x1, x2, np.array([0, 1]), margin=1.0, reduction="none")
    array([12.5  ,  0.125])
    """
    check_reduction(reduction, denominator)
    check_range("margin", margin, 0.0, low_open=True, high_open=True)
    dtype = check_embeddings(x1=x1, x2=x2)
    check_shape("x2", x2, x1.shape, "the shape of x1")
    label = match_dtype("dissimilar", dissimilar, x1)
    check_shape("dissimilar", label, x1.shape[:1], "one label per pair")
    far = check_binary(label)
    d = distances(((0, 1),), x1, x2)[:, 0]
    losses = 0.5 * torch.where(far, torch.relu(margin - d), d).square()
    return finish(
        losses, reduction, dtype=dtype, denominator=denominator, nan_if_empty=nan_if_empty
    )


@takes_arrays
def triplet_margin_loss(
    anchor: Array,
    positive: Array,
    negative: Array,
    *,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 0.0,
    swap: bool = False,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Triplet loss: the positive nearer to the anchor than the negative, by a margin.

    .. math::
        \ell = \max\bigl(0,\; m + \lVert a - p \rVert - \lVert a - n \rVert\bigr)

    Parameters
    ----------
    anchor, positive, negative : arrays of shape (N, D) or (D,), floating
        The embeddings of the triplets.
    margin : float
        The margin :math:`m`, positive.
    p : float
        The order of the norm, at least 1.
    eps : float
        Added to each difference. PyTorch's default is 1e-6, which shifts every distance.
    swap : bool
        Take the nearer of the negative's distances from anchor and positive.
    reduction : {"none", "mean", "sum"}
        The mean divides by the number N of triplets.

    Returns
    -------
    array
        A scalar, or for ``"none"`` shape ``(N,)``; the dtype of ``anchor``. Computed in float64
        and rounded once. The loss and its slopes are differences, which cross zero: in float64
        the absolute error is D + 4 ULP of the largest distance or the margin, and of the largest
        slope. Identical points get gradient 0.

    Raises
    ------
    TypeError
        If the embeddings are not floating or differ in dtype.
    ValueError
        If shapes do not fit, ``p`` is below 1, or ``margin`` is not positive.

    References
    ----------
    F. Schroff, D. Kalenichenko, J. Philbin, "FaceNet: a unified embedding for face recognition
    and clustering", CVPR 2015, eq. (3), without squares; V. Balntas, E. Riba, D. Ponsa,
    K. Mikolajczyk, "Learning local feature descriptors with triplets and shallow convolutional
    neural networks", BMVC 2016, section 3, for the swap.

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> anchor, near, far = np.zeros((1, 2)), np.array([[0.0, 1.0]]), np.array([[0.0, 1.5]])
    >>> float(lossref.triplet_margin_loss(anchor, near, far, margin=1.0))
    0.5
    """
    check_reduction(reduction, denominator)
    check_range("margin", margin, 0.0, low_open=True, high_open=True)
    check_range("p", p, 1.0)
    dtype = check_same_dtype(anchor=anchor, positive=positive, negative=negative)
    check_shape("positive", positive, anchor.shape, "the shape of anchor")
    check_shape("negative", negative, anchor.shape, "the shape of anchor")
    if anchor.ndim not in (1, 2):
        raise ValueError(f"anchor must have shape (N, D) or (D,), but is {describe(anchor)}")
    pairs = ((0, 1), (0, 2), (1, 2)) if swap else ((0, 1), (0, 2))
    arrays = [anchor, positive, negative]

    def each(*arrays: Tensor) -> Tensor:
        near, *far = distances(pairs, *arrays, p=p, eps=eps).unbind(-1)
        farther = torch.minimum(*far) if swap else far[0]
        return torch.relu(near - farther + margin)

    plain = p == 2.0 and not swap and dtype != torch.float64
    if plain and reduction != "none" and can_keep(arrays):
        count = anchor.shape[:-1].numel() if denominator is None else denominator
        total: Tensor = Total.apply(
            partial(_triplets_at_once, margin, eps),
            lambda *arrays: each(*arrays).sum(),
            expected_factor(reduction, count),
            *(torch.atleast_2d(x) for x in arrays),
        )
        total = total if reduction == "sum" else divide(total, count, nan_if_empty)
        return total.to(dtype)
    return finish(
        each(*arrays),
        reduction,
        dtype=dtype,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


def _triplets_at_once(
    margin: float, eps: float, factor: float, wanted: Sequence[bool], *arrays: Tensor
) -> tuple[Tensor, Gradients]:
    """The sum of the losses and its gradients, by chunks of rows that share their memory."""
    count, width = arrays[0].shape
    budget = CHUNK_ELEMENTS.get(arrays[0].device.type, CHUNK_ELEMENTS_ELSEWHERE)
    step = max(1, min(count, budget // max(1, width)))
    room = arrays[0].new_empty((3, step, width), dtype=torch.float64)
    gradients = [torch.empty_like(x) if w else None for x, w in zip(arrays, wanted, strict=True)]
    total = room.new_zeros(())
    for start in range(0, count, step):
        rows = slice(start, start + step)
        part = room[:, : min(step, count - start)]
        for x, copy in zip(arrays, part, strict=True):
            copy.copy_(x[rows])
        ahead = part[1:].sub_(part[0])
        if eps:
            ahead.sub_(eps)
        d = torch.linalg.vector_norm(ahead, dim=-1)
        gap = d[0] - d[1] + margin
        total += torch.relu(gap).sum()
        pull = (~(gap <= 0.0)).double().mul_(factor)
        pulls = torch.stack([pull, -pull]).div_(d).masked_fill_(d == 0.0, 0.0)
        near, far = ahead.mul_(pulls.unsqueeze(-1))
        slopes = (torch.add(near, far, out=part[0]), near, far)
        for gradient, value in zip(gradients, slopes, strict=True):
            if gradient is not None:
                gradient[rows] = value
    if gradients[0] is not None:
        gradients[0].neg_()
    return total, gradients


@takes_arrays
def batch_hard_triplet_loss(
    embeddings: Array,
    labels: Array,
    *,
    margin: float | None = 1.0,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Triplet loss of each anchor's farthest positive and nearest negative in the batch.

    .. math::
        \ell_a = \max\Bigl(0,\; m + \max_{p:\,y_p = y_a,\,p \ne a} d(a, p)
            - \min_{n:\,y_n \ne y_a} d(a, n)\Bigr)

    Parameters
    ----------
    embeddings : array of shape (N, D), floating
        One embedding per sample.
    labels : integer array of shape (N,)
        The classes.
    margin : float or None
        The margin :math:`m`, positive. None takes softplus in place of the maximum with 0, the
        paper's soft margin.
    reduction : {"none", "mean", "sum"}
        The mean divides by the number of anchors that have both a positive and a negative.

    Returns
    -------
    array
        A scalar, or for ``"none"`` shape ``(N,)``, with 0 for anchors that lack a positive or a
        negative; the dtype of ``embeddings``. Computed in float64 and rounded once, with the
        bounds of :func:`~lossref.triplet_margin_loss`. Among equally hard samples the first is
        taken.

    Raises
    ------
    TypeError
        If ``embeddings`` is not floating, or ``labels`` not integer.
    ValueError
        If shapes do not fit, or ``margin`` is not positive.

    References
    ----------
    A. Hermans, L. Beyer, B. Leibe, "In defense of the triplet loss for person
    re-identification", arXiv:1703.07737, 2017, eq. (5).

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> embeddings, labels = np.array([[0.0], [1.0], [1.5]]), np.array([0, 0, 1])
    >>> lossref.batch_hard_triplet_loss(embeddings, labels, margin=1.0, reduction="none")
    array([0.5, 1.5, 0. ])
    """
    check_reduction(reduction, denominator)
    if margin is not None:
        check_range("margin", margin, 0.0, low_open=True, high_open=True)
    dtype = check_embeddings(embeddings=embeddings)
    check_labels(labels, embeddings)
    x = embeddings.double()
    same = labels.unsqueeze(1) == labels
    itself = torch.eye(len(labels), dtype=torch.bool, device=x.device)
    friends = same & ~itself
    farthest, nearest = _hardest(x.detach(), same, friends)
    # Only the chosen pairs need a gradient.
    near, far = distances(((0, 1), (0, 2)), x, x[farthest], x[nearest]).unbind(1)
    losses = softplus(near - far) if margin is None else torch.relu(near - far + margin)
    valid = friends.any(1) & ~same.all(1)
    return finish(
        torch.where(valid, losses, 0.0),
        reduction,
        mask=valid,
        dtype=dtype,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


def _hardest(x: Tensor, same: Tensor, friends: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's farthest friend and nearest stranger, the first of equals."""
    if x.shape[0] == 0:
        return same.new_empty(0, dtype=torch.long), same.new_empty(0, dtype=torch.long)
    order, doubt = _ordering(x)
    farthest, doubtful = _first_largest(order, friends, doubt)
    nearest, unsure = _first_largest(-order, ~same, doubt)
    if bool(visible(doubtful | unsure).any()):
        # Within the rounding of the products: the distances themselves decide.
        order = all_distances(x, x)
        farthest, _ = _first_largest(order, friends, doubt)
        nearest, _ = _first_largest(-order, ~same, doubt)
    return farthest, nearest


def _ordering(x: Tensor) -> tuple[Tensor, Tensor]:
    """A number that orders each row's distances, |b|² - 2ab, and what rounding can make of it."""
    x = x / power_of_two(x.flatten(-2)).unsqueeze(-1)
    squares = x.square().sum(1)
    doubt = (4 * x.shape[1] + 16) * torch.finfo(x.dtype).eps * squares.amax()
    return torch.addmm(squares, x, x.mT, alpha=-2.0), doubt


def _first_largest(values: Tensor, among: Tensor, doubt: Tensor) -> tuple[Tensor, Tensor]:
    """The place of each row's largest value among some, and whether another is as large."""
    values = torch.where(among, values, -torch.inf)
    largest, place = values.max(1)
    rivals = (values >= (largest - doubt).unsqueeze(1)).sum(1)
    return place, (rivals != 1) & largest.isfinite()
