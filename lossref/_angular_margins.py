"""Classification of embeddings by their angles to class centres, with a margin."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lossref._arrays import (
    Array,
    check_integer,
    check_range,
    check_shape,
    check_values,
    takes_arrays,
)
from lossref._embeddings import check_embeddings, contrast_loss, normalize
from lossref._reduction import check_reduction

# Below this, the sine of an angle between float64 unit vectors is rounding and has no direction.
NO_ANGLE = 8 * torch.finfo(torch.float64).eps


def _check_classes(embeddings: Any, weight: Any, target: Any) -> torch.dtype:
    """Require class centres as wide as the embeddings, and a class index for each of these."""
    dtype = check_embeddings(embeddings=embeddings, weight=weight)
    check_integer(target=target)
    check_shape("target", target, embeddings.shape[:1], "one class per embedding")
    valid = (target >= 0) & (target < len(weight))
    check_values("target", valid, target, f"class indices in [0, {len(weight)})")
    return dtype


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

    Returns
    -------
    array
        A scalar, or for ``"none"`` shape ``(N,)``; the dtype of ``embeddings``. Computed in
        float64 and rounded once; in float64 as exact as
        :func:`~lossref.info_nce_loss` with :math:`\tau = 1/s`. On its class centre an embedding
        has no direction away from it, and that part of the gradient is 0.

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
    dtype = _check_classes(embeddings, weight, target)
    z, w, y = normalize(embeddings), normalize(weight), target.long()
    cosine, sine = _angle(z, w.index_select(0, y))
    moved = cosine * math.cos(margin) - sine * math.sin(margin)
    if monotone:
        beyond = cosine < -math.cos(margin)
        moved = torch.where(beyond, cosine - margin * math.sin(margin), moved)
    return contrast_loss(
        scale * moved,
        scale * z,
        w,
        y.unsqueeze(1),
        dtype=dtype,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


def _angle(z: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the angles of unit vectors, the sine with slope 0 at 0."""
    cosine = (z * centre).sum(1)
    square = (z - cosine.unsqueeze(1) * centre).square().sum(1)
    none = square < NO_ANGLE**2
    return cosine, torch.where(none, 0.0, torch.where(none, 1.0, square).sqrt())


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

    Returns
    -------
    array
        A scalar, or for ``"none"`` shape ``(N,)``; the dtype of ``embeddings``. Computed in
        float64 and rounded once; in float64 as exact as
        :func:`~lossref.info_nce_loss` with :math:`\tau = 1/s`.

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
    dtype = _check_classes(embeddings, weight, target)
    z, w, y = normalize(embeddings), normalize(weight), target.long()
    cosine = (z * w.index_select(0, y)).sum(1)
    return contrast_loss(
        scale * (cosine - margin),
        scale * z,
        w,
        y.unsqueeze(1),
        dtype=dtype,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )
