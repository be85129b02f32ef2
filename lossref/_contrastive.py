"""Losses that contrast each embedding of a batch with all the others."""

from __future__ import annotations

import torch
from torch import Tensor

from lossref._arrays import Array, check_shape, takes_arrays
from lossref._embeddings import (
    HIDDEN,
    OverProducts,
    check_embeddings,
    check_labels,
    check_number,
    check_positive,
    contrast,
    contrast_loss,
    normalize,
    softmax_in_place,
    softplus,
)
from lossref._numerics import stable_sigmoid, stable_softplus
from lossref._reduction import check_reduction, finish


def _numbers(rows: Tensor) -> Tensor:
    return torch.arange(len(rows), device=rows.device)


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

    Returns
    -------
    array
        A scalar, or for ``"none"`` shape ``(N,)``; the dtype of ``query``. Computed in float64
        from unit vectors and rounded once. In float64, as measured with D up to 128 and
        :math:`1/\tau` up to 100, the loss is correct to 8 ULP of the larger of itself and
        :math:`1/\tau`, since the rounding of a cosine is multiplied by that; the gradient to
        :math:`8 + 1/(2\tau)` ULP of the larger of its largest slope and :math:`1/(\tau \ell)`,
        with :math:`\ell` the length of the shortest embedding: slopes of embeddings that are
        nearly parallel cancel. A
        zero vector has cosine 0 with every other and gets no gradient.

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
    q, k = normalize(query) / check_positive("temperature", temperature), normalize(key)
    own = (q * k[: len(q)]).sum(1)
    return contrast_loss(
        own,
        q,
        k,
        _numbers(q).unsqueeze(1),
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

    Returns
    -------
    array
        A scalar, or for ``"none"`` shape ``(2N,)``, the first view first; the dtype of ``x1``.
        As exact as :func:`~lossref.info_nce_loss`.

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
    z = normalize(torch.cat([x1, x2]))
    scaled = z / check_positive("temperature", temperature)
    itself = _numbers(z)
    own = (scaled * z.roll(len(x1), 0)).sum(1)
    return contrast_loss(
        own,
        scaled,
        z,
        torch.stack([itself, itself.roll(len(x1))], 1),
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

    Returns
    -------
    array
        A scalar, or for ``"none"`` shape ``(N,)``, with 0 for anchors without a positive, which
        are left out; the dtype of ``embeddings``. As exact as :func:`~lossref.info_nce_loss`.

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
    z = normalize(embeddings)
    scaled = z / check_positive("temperature", temperature)
    same = labels.unsqueeze(1) == labels
    losses, _ = OverProducts.apply(_sup_con_kernel, _sup_con_formula, scaled, z, same)
    counted = same.sum(1) > 1
    return finish(
        torch.where(counted, losses, 0.0),
        reduction,
        mask=counted,
        dtype=dtype,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


def _sup_con_kernel(x: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
    """The losses of `_sup_con_formula` and their gradient, in place.

    With one friend the level is its logit, exactly, so a certain row does not cancel.
    """
    count = (same.sum(1) - 1).clamp(min=1)
    row, column = same.clone().fill_diagonal_(False).nonzero(as_tuple=True)
    friend, none = x[row, column], torch.zeros_like(x[:, 0])
    top = none.new_full((len(x),), HIDDEN).scatter_reduce_(0, row, friend, "amax")
    e = (friend - top[row]).exp_()
    total = none.index_add(0, row, e).clamp_(min=1.0)
    level, mean = top + total.log(), none.index_add(0, row, friend) / count
    strangers, slopes = softmax_in_place(x.masked_fill_(same, HIDDEN))
    share = stable_sigmoid(strangers - level)
    p = e / total[row]
    slopes.mul_(share.unsqueeze(1))
    slopes[row, column] = (p - 1.0 / count[row]) - share[row] * p
    return level - mean + stable_softplus(strangers - level), slopes


def _sup_con_formula(x: Tensor, same: Tensor) -> Tensor:
    """log-sum-exp of the friends less their mean, plus softplus(that of the strangers less it)."""
    friends = same & ~torch.eye(len(x), dtype=torch.bool, device=x.device)
    mean = torch.where(friends, x, 0.0).sum(1) / friends.sum(1).clamp(min=1)
    level = torch.where(friends, x, HIDDEN).logsumexp(1)
    return level - mean + softplus(torch.where(same, HIDDEN, x).logsumexp(1) - level)


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

    Returns
    -------
    array
        A scalar, or for ``"none"`` shape ``(N,)``; the dtype of ``image``. As exact as
        :func:`~lossref.info_nce_loss` with :math:`\tau = 1/s`.

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
    u, v = normalize(image) * check_positive("logit_scale", logit_scale), normalize(text)
    own, itself = (u * v).sum(1), _numbers(u).unsqueeze(1)
    losses = 0.5 * (contrast(own, u, v, itself) + contrast(own, v, u, itself))
    return finish(
        losses, reduction, dtype=dtype, denominator=denominator, nan_if_empty=nan_if_empty
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

    Returns
    -------
    array
        A scalar, or for ``"none"`` shape ``(N,)``; the dtype of ``image``. Computed in float64
        and rounded once; in float64 each of the N similarities adds an absolute error of
        :math:`(D + 4)\,2^{-53}\,s`, and the gradient has the bound of
        :func:`~lossref.info_nce_loss`.

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
    bias = check_number("logit_bias", logit_bias)
    u, v = normalize(image) * check_positive("logit_scale", logit_scale), normalize(text)
    # -y, so that matched pairs enter with the sign turned
    sign = 1.0 - 2.0 * torch.eye(len(u), dtype=torch.float64, device=u.device)
    losses = softplus(sign * (u @ v.mT + bias)).sum(1)
    return finish(
        losses, reduction, dtype=dtype, denominator=denominator, nan_if_empty=nan_if_empty
    )
