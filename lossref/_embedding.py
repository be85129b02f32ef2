"""Losses over embeddings: distances, triplets, contrasts and angular margins.

All are computed in float64, whatever the input: products of coordinates leave the range of the
next format up, as with a bfloat16 norm of 1e20.
"""

from __future__ import annotations

import math
from typing import Any

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
    match_dtype,
    takes_arrays,
)
from lossref._binary import check_binary
from lossref._elementwise import elementwise
from lossref._numerics import stable_sigmoid, stable_softplus
from lossref._reduction import check_reduction, finish
from lossref._rows import DenseCrossEntropy, IndexCrossEntropy

# Below this, the sine of an angle between float64 unit vectors is rounding and has no direction.
NO_ANGLE = 8 * torch.finfo(torch.float64).eps
PAIR_ELEMENTS = 2**22


def scaled(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The rows over a power of two, their norm then, and the power: no square can overflow."""
    largest = x.detach().abs().amax(-1, keepdim=True) if x.shape[-1] else x.new_zeros(1)
    usable = (largest > 0.0) & largest.isfinite()
    mantissa = torch.where(usable, torch.frexp(largest).mantissa, 1.0)
    # An exact quotient: the number is its mantissa times a power of two.
    scale = torch.where(usable, largest, 1.0) / mantissa
    x = x / scale
    squares = x.square().sum(-1, keepdim=True)
    zero = squares == 0.0
    return x, torch.where(zero, 0.0, torch.where(zero, 1.0, squares).sqrt()), scale


def norm(x: Tensor) -> Tensor:
    """Euclidean norm of the last axis, with gradient 0 at 0."""
    _, length, scale = scaled(x)
    return (length * scale).squeeze(-1)


def normalize(x: Tensor) -> Tensor:
    """Unit vectors; a zero vector stays zero and gets no gradient."""
    x, length, _ = scaled(x)
    zero = length == 0.0
    return torch.where(zero, 0.0, x / torch.where(zero, 1.0, length))


def check_embeddings(dimensions: int = 2, **arrays: Any) -> torch.dtype:
    """Require floating arrays of one dtype and of shape (N, D), the D in common."""
    dtype = check_same_dtype(**arrays)
    (first, reference), *_ = arrays.items()
    for name, array in arrays.items():
        if array.ndim != dimensions:
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


def positive(name: str, value: Any) -> Any:
    """A positive number, or a 0-d tensor that may be learned."""
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"{name} must be a number or 0-d, but is {describe(value)}")
        check_values(name, value > 0.0, value, "positive")
        return value.double().reshape(())
    check_range(name, value, 0.0, low_open=True, high_open=True)
    return value


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
        dtype of ``x1``. Correct to 1 ULP in float16, bfloat16 and float32, value and gradient;
        in float64 the value to D/2 + 3 ULP.

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
    result = distance(x1.double(), x2.double(), float(p), eps).to(dtype)
    return result.unsqueeze(-1) if keepdim else result


def distance(a: Tensor, b: Tensor, p: float, eps: float) -> Tensor:
    """Distances of float64 rows."""
    difference = a - b + eps if eps else a - b
    return norm(difference) if p == 2 else torch.linalg.vector_norm(difference, ord=p, dim=-1)


def all_distances(a: Tensor, b: Tensor, p: float = 2.0) -> Tensor:
    """Distances of all float64 rows of a from all of b."""
    result: Tensor = AllDistances.apply(a, b, p)
    return result


class AllDistances(TypedFunction):
    """All distances, without ever holding all the differences."""

    @staticmethod
    def forward(a: Tensor, b: Tensor, p: float) -> Tensor:
        return torch.cat([distance(part[:, None], b[None], p, 0.0) for part in _parts(a, b)])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        a, b, ctx.p = inputs
        ctx.save_for_backward(a, b)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        a, b = ctx.saved_tensors
        to_a = _pull(a, b, g, ctx.p) if ctx.needs_input_grad[0] else None
        to_b = _pull(b, a, g.T, ctx.p) if ctx.needs_input_grad[1] else None
        return to_a, to_b, None


def _parts(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    parts: tuple[Tensor, ...] = a.split(max(1, PAIR_ELEMENTS // max(1, b.numel())))
    return parts


def _pull(a: Tensor, b: Tensor, g: Tensor, p: float) -> Tensor:
    """The gradient to a of the distances from b, part by part."""
    parts = _parts(a, b)
    weights = g.split(max(1, parts[0].shape[0]))
    return torch.cat([_pull_part(x, b, w, p) for x, w in zip(parts, weights, strict=True)])


def _pull_part(x: Tensor, b: Tensor, g: Tensor, p: float) -> Tensor:
    difference = x[:, None] - b[None]
    if p == 2:
        direction = normalize(difference)
    else:
        d = distance(x[:, None], b[None], p, 0.0).unsqueeze(-1)
        safe = torch.where(d == 0.0, 1.0, d)
        if math.isinf(p):
            reached = (difference.abs() == d).to(d.dtype)
            direction = difference.sign() * reached / reached.sum(-1, keepdim=True)
        else:
            direction = difference.sign() * (difference.abs() / safe).pow(p - 1.0)
    return (g.unsqueeze(-1) * direction).sum(1)


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
    denominator : number or 0-d array, optional
        What the mean divides by instead.
    nan_if_empty : bool
        A mean over nothing is 0 with zero gradient; True makes it NaN, as PyTorch has it.

    Returns
    -------
    array
        A scalar, or for ``"none"`` shape ``(N,)``; the dtype of ``x1``. Correct to 1 ULP in
        float16, bfloat16 and float32, value and gradient; in float64 the value of a similar pair
        to D + 4 ULP, that of a dissimilar one to as many ULP of the margin's square. Identical
        points of a dissimilar pair get gradient 0, for want of a direction.

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
    d = distance(x1.double(), x2.double(), 2.0, 0.0)
    losses = 0.5 * torch.where(far, torch.relu(margin - d), d).square()
    return finish(
        losses,
        dtype=dtype,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
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
    denominator : number or 0-d array, optional
        What the mean divides by instead.
    nan_if_empty : bool
        A mean over nothing is 0 with zero gradient; True makes it NaN, as PyTorch has it.

    Returns
    -------
    array
        A scalar, or for ``"none"`` shape ``(N,)``; the dtype of ``anchor``. Computed in float64
        and rounded once; in float64 with an absolute error of D + 4 ULP of the largest distance
        or the margin. Identical points get gradient 0.

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
    a, b, c = anchor.double(), positive.double(), negative.double()
    near, far = distance(a, b, p, eps), distance(a, c, p, eps)
    if swap:
        far = torch.minimum(far, distance(b, c, p, eps))
    return finish(
        torch.relu(near - far + margin),
        dtype=dtype,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


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
    denominator : number or 0-d array, optional
        What the mean divides by instead.
    nan_if_empty : bool
        A mean over nothing is 0 with zero gradient; True makes it NaN, as PyTorch has it.

    Returns
    -------
    array
        A scalar, or for ``"none"`` shape ``(N,)``, with 0 for anchors that lack a positive or a
        negative; the dtype of ``embeddings``. Computed in float64 and rounded once; in float64
        with an absolute error of D + 4 ULP of the largest distance or the margin. Among equally
        hard samples the first is taken.

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
    if len(x) == 0:
        return finish(
            x.sum(-1),
            dtype=dtype,
            reduction=reduction,
            denominator=denominator,
            nan_if_empty=nan_if_empty,
        )
    with torch.no_grad():
        d = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
        same = labels[:, None] == labels[None]
        others = ~torch.eye(len(x), dtype=torch.bool, device=x.device)
        farthest = torch.where(same & others, d, -torch.inf).argmax(1)
        nearest = torch.where(same, torch.inf, d).argmin(1)
        valid = (same & others).any(1) & (~same).any(1)
    # Only the chosen pairs need a gradient.
    gap = distance(x, x[farthest], 2.0, 0.0) - distance(x, x[nearest], 2.0, 0.0)
    if margin is None:
        losses = elementwise(stable_softplus, (stable_sigmoid,), gap)
    else:
        losses = torch.relu(gap + margin)
    return finish(
        torch.where(valid, losses, 0.0),
        mask=valid,
        dtype=dtype,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


def _own_index(rows: Tensor) -> Tensor:
    return torch.arange(len(rows), device=rows.device)


def _contrast(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of rows of similarities."""
    keep = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
    result: Tensor = IndexCrossEntropy.apply(logits, target, keep)
    return result


@takes_arrays
def info_nce_loss(
    query: Array,
    key: Array,
    *,
    temperature: float | Array = 0.1,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""InfoNCE: each query must tell its own key from the others of the batch.

    .. math::
        \ell_i = -\log \frac{e^{\cos(q_i, k_i) / \tau}}{\sum_j e^{\cos(q_i, k_j) / \tau}}

    Parameters
    ----------
    query : array of shape (N, D), floating
        Queries.
    key : array of shape (M, D), M at least N, of the same dtype
        Keys; key i belongs to query i, and those from N on are further negatives.
    temperature : number or 0-d array
        :math:`\tau > 0`; a 0-d array gets a gradient.
    reduction : {"none", "mean", "sum"}
        The mean divides by the number N of queries.
    denominator : number or 0-d array, optional
        What the mean divides by instead.
    nan_if_empty : bool
        A mean over nothing is 0 with zero gradient; True makes it NaN, as PyTorch has it.

    Returns
    -------
    array
        A scalar, or for ``"none"`` shape ``(N,)``; the dtype of ``query``. Computed in float64
        from unit vectors and rounded once; in float64 each similarity has an absolute error of
        :math:`(D + 4)\,2^{-53}/\tau`, and the loss one of twice that. A zero vector has cosine 0
        with every other and gets no gradient.

    Raises
    ------
    TypeError
        If the arrays are not floating or differ in dtype.
    ValueError
        If shapes do not fit, there are fewer keys than queries, or ``temperature`` is not
        positive.

    References
    ----------
    A. van den Oord, Y. Li, O. Vinyals, "Representation learning with contrastive predictive
    coding", arXiv:1807.03748, 2018, eq. (4); with the cosine of K. He et al., "Momentum contrast
    for unsupervised visual representation learning", CVPR 2020, eq. (1).

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> round(float(lossref.info_nce_loss(np.eye(2), np.eye(2), temperature=1.0)), 6)
    0.313262
    """
    check_reduction(reduction, denominator)
    dtype = check_embeddings(query=query, key=key)
    if len(key) < len(query):
        raise ValueError(
            f"key must have a row for every query, {len(query)}, but has shape {tuple(key.shape)}"
        )
    similarity = normalize(query.double()) @ normalize(key.double()).T
    if len(query) == 0:
        return finish(
            similarity.sum(-1),
            dtype=dtype,
            reduction=reduction,
            denominator=denominator,
            nan_if_empty=nan_if_empty,
        )
    logits = similarity / positive("temperature", temperature)
    return finish(
        _contrast(logits, _own_index(query)),
        dtype=dtype,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


@takes_arrays
def nt_xent_loss(
    x1: Array,
    x2: Array,
    *,
    temperature: float | Array = 0.5,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Normalized temperature-scaled cross-entropy of two views of a batch (SimCLR).

    .. math::
        \ell_i = -\log \frac{e^{\cos(z_i, z_{i'}) / \tau}}
            {\sum_{k \ne i} e^{\cos(z_i, z_k) / \tau}}

    over the 2N rows :math:`z` of both views, where :math:`i'` is the other view of :math:`i`.

    Parameters
    ----------
    x1, x2 : arrays of shape (N, D), floating
        The two views.
    temperature : number or 0-d array
        :math:`\tau > 0`; a 0-d array gets a gradient.
    reduction : {"none", "mean", "sum"}
        The mean divides by the number 2N of views.
    denominator : number or 0-d array, optional
        What the mean divides by instead.
    nan_if_empty : bool
        A mean over nothing is 0 with zero gradient; True makes it NaN, as PyTorch has it.

    Returns
    -------
    array
        A scalar, or for ``"none"`` shape ``(2N,)``, the first view first; the dtype of ``x1``.
        As exact as :func:`info_nce_loss`.

    Raises
    ------
    TypeError
        If the arrays are not floating or differ in dtype.
    ValueError
        If the shapes differ, or ``temperature`` is not positive.

    References
    ----------
    T. Chen, S. Kornblith, M. Norouzi, G. Hinton, "A simple framework for contrastive learning of
    visual representations", ICML 2020, eq. (1).

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> round(float(lossref.nt_xent_loss(np.eye(2), np.eye(2), temperature=1.0)), 6)
    0.551445
    """
    check_reduction(reduction, denominator)
    dtype = check_embeddings(x1=x1, x2=x2)
    check_shape("x2", x2, x1.shape, "the shape of x1")
    z = normalize(torch.cat([x1, x2]).double())
    if len(z) == 0:
        return finish(
            z.sum(-1),
            dtype=dtype,
            reduction=reduction,
            denominator=denominator,
            nan_if_empty=nan_if_empty,
        )
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    logits = ((z @ z.T) / positive("temperature", temperature)).masked_fill(itself, -torch.inf)
    return finish(
        _contrast(logits, _own_index(z).roll(len(x1))),
        dtype=dtype,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


@takes_arrays
def sup_con_loss(
    embeddings: Array,
    labels: Array,
    *,
    temperature: float | Array = 0.1,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Supervised contrastive loss, with the sum over positives outside the logarithm.

    .. math::
        \ell_i = -\frac{1}{|P(i)|} \sum_{p \in P(i)}
            \log \frac{e^{\cos(z_i, z_p) / \tau}}{\sum_{a \ne i} e^{\cos(z_i, z_a) / \tau}}

    where :math:`P(i)` holds the other samples with the label of i.

    Parameters
    ----------
    embeddings : array of shape (N, D), floating
        One embedding per sample or view.
    labels : integer array of shape (N,)
        The classes.
    temperature : number or 0-d array
        :math:`\tau > 0`; a 0-d array gets a gradient.
    reduction : {"none", "mean", "sum"}
        The mean divides by the number of anchors that have a positive.
    denominator : number or 0-d array, optional
        What the mean divides by instead.
    nan_if_empty : bool
        A mean over nothing is 0 with zero gradient; True makes it NaN, as PyTorch has it.

    Returns
    -------
    array
        A scalar, or for ``"none"`` shape ``(N,)``, with 0 for anchors without a positive, which
        are left out; the dtype of ``embeddings``. As exact as :func:`info_nce_loss`.

    Raises
    ------
    TypeError
        If ``embeddings`` is not floating, or ``labels`` not integer.
    ValueError
        If shapes do not fit, or ``temperature`` is not positive.

    References
    ----------
    P. Khosla et al., "Supervised contrastive learning", NeurIPS 2020, eq. (2).

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> embeddings, labels = np.eye(3), np.array([0, 0, 1])
    >>> lossref.sup_con_loss(embeddings, labels, temperature=1.0, reduction="none")
    array([0.69314718, 0.69314718, 0.        ])
    """
    check_reduction(reduction, denominator)
    dtype = check_embeddings(embeddings=embeddings)
    check_labels(labels, embeddings)
    z = normalize(embeddings.double())
    if len(z) == 0:
        return finish(
            z.sum(-1),
            dtype=dtype,
            reduction=reduction,
            denominator=denominator,
            nan_if_empty=nan_if_empty,
        )
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    logits = ((z @ z.T) / positive("temperature", temperature)).masked_fill(itself, -torch.inf)
    friends = (labels[:, None] == labels[None]) & ~itself
    count = friends.sum(1)
    share = friends / count.clamp(min=1).double().unsqueeze(1)
    losses = DenseCrossEntropy.apply(logits, share, count > 0, None, 0.0)
    return finish(
        losses,
        mask=count > 0,
        dtype=dtype,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


def _cosines(
    embeddings: Any, weight: Any, target: Any
) -> tuple[torch.dtype, Tensor, Tensor, Tensor]:
    """Unit embeddings, unit class centres and their cosines."""
    dtype = check_embeddings(embeddings=embeddings, weight=weight)
    check_integer(target=target)
    check_shape("target", target, embeddings.shape[:1], "one class per embedding")
    valid = (target >= 0) & (target < len(weight))
    check_values("target", valid, target, f"class indices in [0, {len(weight)})")
    z, w = normalize(embeddings.double()), normalize(weight.double())
    return dtype, z, w, z @ w.T


@takes_arrays
def arcface_loss(
    embeddings: Array,
    weight: Array,
    target: Array,
    *,
    margin: float = 0.5,
    scale: float = 64.0,
    monotone: bool = True,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Additive angular margin: cross-entropy with the target's angle made larger.

    .. math::
        \ell = -\log \frac{e^{s \cos(\theta_y + m)}}
            {e^{s \cos(\theta_y + m)} + \sum_{k \ne y} e^{s \cos \theta_k}}, \qquad
        \cos(\theta + m) = \cos\theta \cos m - \sin\theta \sin m

    with the sine taken from the part of the embedding perpendicular to its class centre, not
    from :math:`\sqrt{1 - \cos^2\theta}`, whose derivative at :math:`\cos\theta = \pm 1` is
    infinite.

    Parameters
    ----------
    embeddings : array of shape (N, D), floating
        Embeddings, of any length.
    weight : array of shape (C, D), of the same dtype
        Class centres, of any length.
    target : integer array of shape (N,)
        Class indices.
    margin : float
        The margin :math:`m` in radians, in :math:`[0, \pi)`.
    scale : float
        The scale :math:`s > 0`.
    monotone : bool
        Where :math:`\theta + m > \pi`, :math:`\cos(\theta + m)` rises again. True continues it
        there as :math:`\cos\theta - m \sin m`, as the authors' code does; False keeps the
        formula of the paper.
    reduction : {"none", "mean", "sum"}
        The mean divides by the number N of embeddings.
    denominator : number or 0-d array, optional
        What the mean divides by instead.
    nan_if_empty : bool
        A mean over nothing is 0 with zero gradient; True makes it NaN, as PyTorch has it.

    Returns
    -------
    array
        A scalar, or for ``"none"`` shape ``(N,)``; the dtype of ``embeddings``. Computed in
        float64 and rounded once; in float64 each cosine has an absolute error of
        :math:`(D + 4)\,2^{-53}`, which :math:`s` multiplies. On its class centre an embedding has
        no direction away from it, and that part of the gradient is 0.

    Raises
    ------
    TypeError
        If the arrays are not floating or differ in dtype, or ``target`` is not integer.
    ValueError
        If shapes do not fit, a class index or a parameter is out of range.

    References
    ----------
    J. Deng, J. Guo, N. Xue, S. Zafeiriou, "ArcFace: additive angular margin loss for deep face
    recognition", CVPR 2019, eq. (3).

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> x, w = np.array([[1.0, 1.0]]), np.eye(2)
    >>> round(float(lossref.arcface_loss(x, w, np.array([0]), margin=0.5, scale=1.0)), 6)
    0.9284
    """
    check_reduction(reduction, denominator)
    check_range("margin", margin, 0.0, math.pi, high_open=True)
    check_range("scale", scale, 0.0, low_open=True, high_open=True)
    dtype, z, w, cosines = _cosines(embeddings, weight, target)
    if len(z) == 0:
        return finish(
            z.sum(-1),
            dtype=dtype,
            reduction=reduction,
            denominator=denominator,
            nan_if_empty=nan_if_empty,
        )
    y = target.long().unsqueeze(1)
    cosine = cosines.gather(1, y)
    perpendicular = z - cosine * w[y.squeeze(1)]
    sine = norm(perpendicular).unsqueeze(1)
    sine = torch.where(sine < NO_ANGLE, 0.0, sine)
    moved = cosine * math.cos(margin) - sine * math.sin(margin)
    if monotone:
        beyond = cosine < -math.cos(margin)
        moved = torch.where(beyond, cosine - margin * math.sin(margin), moved)
    logits = scale * cosines.scatter(1, y, moved)
    return finish(
        _contrast(logits, y.squeeze(1)),
        dtype=dtype,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


@takes_arrays
def cosface_loss(
    embeddings: Array,
    weight: Array,
    target: Array,
    *,
    margin: float = 0.35,
    scale: float = 64.0,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Additive cosine margin: cross-entropy with the target's cosine made smaller.

    .. math::
        \ell = -\log \frac{e^{s (\cos\theta_y - m)}}
            {e^{s (\cos\theta_y - m)} + \sum_{k \ne y} e^{s \cos \theta_k}}

    Parameters
    ----------
    embeddings : array of shape (N, D), floating
        Embeddings, of any length.
    weight : array of shape (C, D), of the same dtype
        Class centres, of any length.
    target : integer array of shape (N,)
        Class indices.
    margin : float
        The margin :math:`m`, in [0, 2].
    scale : float
        The scale :math:`s > 0`.
    reduction : {"none", "mean", "sum"}
        The mean divides by the number N of embeddings.
    denominator : number or 0-d array, optional
        What the mean divides by instead.
    nan_if_empty : bool
        A mean over nothing is 0 with zero gradient; True makes it NaN, as PyTorch has it.

    Returns
    -------
    array
        A scalar, or for ``"none"`` shape ``(N,)``; the dtype of ``embeddings``. Computed in
        float64 and rounded once; in float64 each cosine has an absolute error of
        :math:`(D + 4)\,2^{-53}`, which :math:`s` multiplies.

    Raises
    ------
    TypeError
        If the arrays are not floating or differ in dtype, or ``target`` is not integer.
    ValueError
        If shapes do not fit, a class index or a parameter is out of range.

    References
    ----------
    H. Wang et al., "CosFace: large margin cosine loss for deep face recognition", CVPR 2018,
    eq. (4).

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> x, w = np.array([[1.0, 1.0]]), np.eye(2)
    >>> round(float(lossref.cosface_loss(x, w, np.array([0]), margin=0.5, scale=1.0)), 6)
    0.974077
    """
    check_reduction(reduction, denominator)
    check_range("margin", margin, 0.0, 2.0)
    check_range("scale", scale, 0.0, low_open=True, high_open=True)
    dtype, z, _, cosines = _cosines(embeddings, weight, target)
    if len(z) == 0:
        return finish(
            z.sum(-1),
            dtype=dtype,
            reduction=reduction,
            denominator=denominator,
            nan_if_empty=nan_if_empty,
        )
    y = target.long()
    shift = torch.zeros_like(cosines).scatter(1, y.unsqueeze(1), margin)
    return finish(
        _contrast(scale * (cosines - shift), y),
        dtype=dtype,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


@takes_arrays
def clip_loss(
    image: Array,
    text: Array,
    *,
    logit_scale: float | Array = 1 / 0.07,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Contrast of images with texts, in both directions (CLIP).

    .. math::
        \ell_i = \tfrac12 \Bigl[-\log \frac{e^{s\,c_{ii}}}{\sum_j e^{s\,c_{ij}}}
            - \log \frac{e^{s\,c_{ii}}}{\sum_j e^{s\,c_{ji}}}\Bigr], \qquad
        c_{ij} = \cos(u_i, v_j)

    Parameters
    ----------
    image, text : arrays of shape (N, D), floating
        Embeddings :math:`u` and :math:`v`; image i belongs to text i.
    logit_scale : number or 0-d array
        The scale :math:`s > 0`, the inverse of a temperature; a 0-d array gets a gradient.
    reduction : {"none", "mean", "sum"}
        The mean divides by the number N of pairs.
    denominator : number or 0-d array, optional
        What the mean divides by instead.
    nan_if_empty : bool
        A mean over nothing is 0 with zero gradient; True makes it NaN, as PyTorch has it.

    Returns
    -------
    array
        A scalar, or for ``"none"`` shape ``(N,)``; the dtype of ``image``. As exact as
        :func:`info_nce_loss` with :math:`\tau = 1/s`.

    Raises
    ------
    TypeError
        If the arrays are not floating or differ in dtype.
    ValueError
        If the shapes differ, or ``logit_scale`` is not positive.

    References
    ----------
    A. Radford et al., "Learning transferable visual models from natural language supervision",
    ICML 2021, figure 3.

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> round(float(lossref.clip_loss(np.eye(2), np.eye(2), logit_scale=1.0)), 6)
    0.313262
    """
    check_reduction(reduction, denominator)
    dtype = check_embeddings(image=image, text=text)
    check_shape("text", text, image.shape, "the shape of image")
    similarity = normalize(image.double()) @ normalize(text.double()).T
    if len(image) == 0:
        return finish(
            similarity.sum(-1),
            dtype=dtype,
            reduction=reduction,
            denominator=denominator,
            nan_if_empty=nan_if_empty,
        )
    logits = similarity * positive("logit_scale", logit_scale)
    own = _own_index(image)
    losses = 0.5 * (_contrast(logits, own) + _contrast(logits.T, own))
    return finish(
        losses,
        dtype=dtype,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


@takes_arrays
def siglip_loss(
    image: Array,
    text: Array,
    *,
    logit_scale: float | Array = 10.0,
    logit_bias: float | Array = -10.0,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Sigmoid contrast of images with texts: every pair is its own decision (SigLIP).

    .. math::
        \ell_i = \sum_j \operatorname{softplus}\bigl(-y_{ij}\,(s\,\cos(u_i, v_j) + b)\bigr),
        \qquad y_{ij} = \begin{cases} 1 & i = j \\ -1 & i \ne j \end{cases}

    Parameters
    ----------
    image, text : arrays of shape (N, D), floating
        Embeddings :math:`u` and :math:`v`; image i belongs to text i.
    logit_scale : number or 0-d array
        The scale :math:`s > 0`; a 0-d array gets a gradient.
    logit_bias : number or 0-d array
        The bias :math:`b`; a 0-d array gets a gradient.
    reduction : {"none", "mean", "sum"}
        The mean divides by the number N of images, not of pairs, as in the paper.
    denominator : number or 0-d array, optional
        What the mean divides by instead.
    nan_if_empty : bool
        A mean over nothing is 0 with zero gradient; True makes it NaN, as PyTorch has it.

    Returns
    -------
    array
        A scalar, or for ``"none"`` shape ``(N,)``; the dtype of ``image``. Computed in float64
        and rounded once; in float64 each similarity has an absolute error of
        :math:`(D + 4)\,2^{-53}\,s`.

    Raises
    ------
    TypeError
        If the arrays are not floating or differ in dtype.
    ValueError
        If the shapes differ, or ``logit_scale`` is not positive.

    References
    ----------
    X. Zhai, B. Mustafa, A. Kolesnikov, L. Beyer, "Sigmoid loss for language image pre-training",
    ICCV 2023, section 3.2 and algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> loss = lossref.siglip_loss(np.eye(2), np.eye(2), logit_scale=1.0, logit_bias=0.0)
    >>> round(float(loss), 6)
    1.006409
    """
    check_reduction(reduction, denominator)
    dtype = check_embeddings(image=image, text=text)
    check_shape("text", text, image.shape, "the shape of image")
    bias = logit_bias.double() if isinstance(logit_bias, Tensor) else logit_bias
    similarity = normalize(image.double()) @ normalize(text.double()).T
    logits = similarity * positive("logit_scale", logit_scale) + bias
    # -y, so that matched pairs enter with the sign turned
    sign = 1.0 - 2.0 * torch.eye(len(logits), dtype=torch.float64, device=logits.device)
    losses = elementwise(stable_softplus, (stable_sigmoid,), sign * logits).sum(-1)
    return finish(
        losses,
        dtype=dtype,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )
