"""Losses of a margin: hinge, multi-class margin, exponential and logistic."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lossref._arrays import (
    Array,
    check_floating,
    check_interval,
    check_range,
    match_dtype,
    takes_arrays,
    widen,
)
from lossref._classification import check_class_weight, class_rows, index_targets
from lossref._elementwise import elementwise_loss, times
from lossref._numerics import stable_sigmoid, stable_softplus
from lossref._reduction import check_reduction, finish


@takes_arrays
def hinge_loss(
    scores: Array,
    target: Array,
    *,
    margin: float = 1.0,
    squared: bool = False,
    weight: Array | None = None,
    mask: Array | None = None,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Hinge loss of scores against targets of ±1.

    .. math::
        \ell = \max(0,\; m - y\,x) \quad\text{or its square}

    At the kink :math:`y x = m` the gradient is 0.

    Parameters
    ----------
    scores : array of any shape, floating
        Scores :math:`x`.
    target : array of the same shape
        Targets :math:`y`, each -1 or 1.
    margin : float
        The margin :math:`m`, at least 0.
    squared : bool
        Square the loss, which makes it smooth.
    weight : array, optional
        Weight of each entry, broadcast to the shape of ``scores``.
    reduction : {"none", "mean", "sum"}
        The mean divides by the sum of the weights of the entries that are kept, their number
        without weights.

    Returns
    -------
    array
        A scalar, or for ``"none"`` the shape of ``scores``; the dtype of ``scores``. Correctly
        rounded in float16, bfloat16 and float32; in float64 to 1 ULP, or 2 if squared. The
        gradient likewise.

    Raises
    ------
    TypeError
        If ``scores`` is not floating, or a floating ``target`` has another dtype.
    ValueError
        If a shape does not fit, a target is not ±1, ``margin`` is negative, or the reduction
        unknown.

    References
    ----------
    C. Cortes, V. Vapnik, "Support-vector networks", Machine Learning 20, 1995, eq. (26)-(28).

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> lossref.hinge_loss(np.array([0.5, -2.0]), np.array([1, 1]), reduction="none")
    array([0.5, 3. ])
    """
    check_range("margin", margin, 0.0, high_open=True)

    def value(z: Tensor) -> Tensor:
        shortfall = torch.relu(margin - z)
        return shortfall.square() if squared else shortfall

    def slope(z: Tensor) -> Tensor:
        shortfall = torch.relu(margin - z)
        return -2.0 * shortfall if squared else -(shortfall > 0.0).to(z.dtype)

    return _margin_loss(
        value,
        slope,
        scores,
        target,
        weight,
        mask,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


@takes_arrays
def exponential_loss(
    scores: Array,
    target: Array,
    *,
    weight: Array | None = None,
    mask: Array | None = None,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Exponential loss of scores against targets of ±1, which AdaBoost minimizes.

    .. math::
        \ell = e^{-y x}

    Parameters
    ----------
    scores : array of any shape, floating
        Scores :math:`x`.
    target : array of the same shape
        Targets :math:`y`, each -1 or 1.
    weight : array, optional
        Weight of each entry, broadcast to the shape of ``scores``.
    reduction : {"none", "mean", "sum"}
        The mean divides by the sum of the weights of the entries that are kept, their number
        without weights.

    Returns
    -------
    array
        A scalar, or for ``"none"`` the shape of ``scores``; the dtype of ``scores``. Value and
        gradient are correct to 1 ULP in every format.

    Raises
    ------
    TypeError
        If ``scores`` is not floating, or a floating ``target`` has another dtype.
    ValueError
        If a shape does not fit, a target is not ±1, or the reduction is unknown.

    References
    ----------
    J. Friedman, T. Hastie, R. Tibshirani, "Additive logistic regression: a statistical view of
    boosting", Annals of Statistics 28(2), 2000, eq. (10).

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> lossref.exponential_loss(np.array([0.0, 1.0]), np.array([1, -1]), reduction="none")
    array([1.        , 2.71828183])
    """
    return _margin_loss(
        lambda z: torch.exp(-z),
        lambda z: -torch.exp(-z),
        scores,
        target,
        weight,
        mask,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


@takes_arrays
def logistic_loss(
    scores: Array,
    target: Array,
    *,
    weight: Array | None = None,
    mask: Array | None = None,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Logistic loss of scores against targets of ±1 (PyTorch's ``soft_margin_loss``).

    .. math::
        \ell = \log(1 + e^{-y x}) = \max(-y x, 0) + \log(1 + e^{-|x|})

    Parameters
    ----------
    scores : array of any shape, floating
        Scores :math:`x`.
    target : array of the same shape
        Targets :math:`y`, each -1 or 1.
    weight : array, optional
        Weight of each entry, broadcast to the shape of ``scores``.
    reduction : {"none", "mean", "sum"}
        The mean divides by the sum of the weights of the entries that are kept, their number
        without weights.

    Returns
    -------
    array
        A scalar, or for ``"none"`` the shape of ``scores``; the dtype of ``scores``. Correct to
        1 ULP in float16, bfloat16 and float32, and to 3 ULP in float64, value and gradient.

    Raises
    ------
    TypeError
        If ``scores`` is not floating, or a floating ``target`` has another dtype.
    ValueError
        If a shape does not fit, a target is not ±1, or the reduction is unknown.

    References
    ----------
    J. Friedman, T. Hastie, R. Tibshirani, "Additive logistic regression: a statistical view of
    boosting", Annals of Statistics 28(2), 2000, section 4.

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> lossref.logistic_loss(np.array([-1000.0, 100.0]), np.array([1, 1]), reduction="none")
    array([1.00000000e+03, 3.72007598e-44])
    """
    return _margin_loss(
        lambda z: stable_softplus(-z),
        lambda z: -stable_sigmoid(-z),
        scores,
        target,
        weight,
        mask,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


def _margin_loss(
    value: Callable[[Tensor], Tensor],
    slope: Callable[[Tensor], Tensor],
    scores: Tensor,
    target: Tensor,
    weight: Tensor | None,
    mask: Tensor | None,
    *,
    reduction: str,
    denominator: float | Tensor | None,
    nan_if_empty: bool,
) -> Tensor:
    """A loss of the margin z = y x; y is ±1, so the product is exact."""
    check_floating(scores=scores, weight=weight)
    target = match_dtype("target", target, scores)
    check_interval("target", target, -1.0, 1.0, mask, only_ends=True)
    return elementwise_loss(
        lambda x, y: value(x * y),
        (lambda x, y: y * slope(x * y), None),
        {"scores": scores, "target": target},
        weight=weight,
        mask=mask,
        divide_by_weight=True,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


@takes_arrays
def multi_margin_loss(
    logits: Array,
    target: Array,
    *,
    p: int = 1,
    margin: float = 1.0,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Multi-class hinge loss.

    .. math::
        \ell = \frac{w_y}{C} \sum_{k \ne y} \max(0,\; m - x_y + x_k)^p

    Parameters
    ----------
    logits : array of shape (C,), (N, C) or (N, C, d1, ...), floating
        Scores; the class axis is 1.
    target : integer array
        Class indices, with the shape of ``logits`` without the class axis.
    p : {1, 2}
        The exponent.
    margin : float
        The margin :math:`m`.
    weight : array of shape (C,), optional
        Class weights, constants of the loss.
    ignore_index : int
        Targets that are left out: they touch neither value nor gradient.
    reduction : {"none", "mean", "sum"}
        The mean divides by the number of targets that are kept, whatever their weights, as in
        PyTorch; each loss is divided by C besides.

    Returns
    -------
    array
        A scalar, or for ``"none"`` the shape of ``target``; the dtype of ``logits``. Correct to
        1 ULP in float16, bfloat16 and float32. In float64 each difference
        :math:`m - x_y + x_k` has an absolute error of 1 ULP of its largest term, and the sum
        adds :math:`4` ULP.

    Raises
    ------
    TypeError
        If ``logits`` is not floating, or ``target`` not integer.
    ValueError
        If a shape does not fit, an index is out of range, ``p`` is neither 1 nor 2, or the
        reduction is unknown.

    References
    ----------
    K. Crammer, Y. Singer, "On the algorithmic implementation of multiclass kernel-based vector
    machines", JMLR 2, 2001; with the sum over classes of J. Weston, C. Watkins, "Support vector
    machines for multi-class pattern recognition", ESANN 1999, eq. (1).

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> float(lossref.multi_margin_loss(np.array([1.0, 0.5, 3.0, -9.0]), np.array(0)))
    0.875
    """
    check_reduction(reduction, denominator)
    if p not in (1, 2):
        raise ValueError(f"p must be 1 or 2, got {p!r}")
    check_range("margin", margin, high_open=True)
    rows, shape = class_rows(logits)
    class_weight = check_class_weight(weight, rows)
    index, keep, row_weight = index_targets(target, shape, rows, class_weight, ignore_index)
    x = torch.where(keep.unsqueeze(-1), widen(rows), 0.0)
    y = index.unsqueeze(-1)
    shortfall = torch.relu((x - x.gather(-1, y)) + margin).scatter(-1, y, 0.0)
    terms = shortfall if p == 1 else shortfall.square()
    losses = times(row_weight, terms.sum(-1)) / rows.shape[1]
    kept = target != int(ignore_index)
    return finish(
        losses.reshape(shape),
        mask=kept,
        dtype=logits.dtype,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )
