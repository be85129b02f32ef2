"""Losses that turn to the hard examples: focal losses and online hard example mining."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor

from lossref._arrays import (
    Array,
    check_floating,
    check_interval,
    check_range,
    check_shape,
    match_dtype,
    takes_arrays,
    visible,
    wide_dtype,
    widen,
)
from lossref._classification import class_blocks, class_rows, index_targets
from lossref._elementwise import (
    AtOnce,
    Formula,
    at_least_0,
    decay_for,
    elementwise,
    elementwise_loss,
    keep_finite,
    ratio_or_1,
)
from lossref._mistakes import log_right, mistakes, probability
from lossref._numerics import decay
from lossref._reduction import check_reduction, expected_gradient, finish
from lossref._rows import IndexCrossEntropy, index_cross_entropy


@takes_arrays
def sigmoid_focal_loss(
    logits: Array,
    target: Array,
    *,
    alpha: float | None = None,
    gamma: float = 2.0,
    weight: Array | None = None,
    mask: Array | None = None,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Focal loss for independent binary targets.

    .. math::
        \ell = \alpha_t\,(1 - p_t)^{\gamma}\,\operatorname{BCE}(x, t), \qquad
        p_t = t\,p + (1 - t)(1 - p), \quad \alpha_t = t\,\alpha + (1 - t)(1 - \alpha)

    with :math:`p = \sigma(x)`; for targets 0 and 1 this is
    :math:`-\alpha_t (1 - p_t)^\gamma \log p_t`.

    Parameters
    ----------
    logits : array of any shape, floating
        One logit :math:`x` per decision.
    target : array of the same shape
        Probabilities in [0, 1]; integers and booleans are taken as 0 and 1.
    alpha : float, optional
        Weight of the positives in [0, 1]; negatives weigh :math:`1 - \alpha`. By default both
        weigh 1. torchvision's default is 0.25, and so is the paper's best with
        :math:`\gamma = 2`.
    gamma : float
        Focusing :math:`\gamma`, at least 0; 0 gives the binary cross-entropy.
    weight : array, optional
        Weight of each entry, broadcast to the shape of ``logits``.
    reduction : {"none", "mean", "sum"}
        The mean divides by the number of entries that the mask keeps; the paper divides by the
        number of positives instead, which ``denominator`` can give.

    Returns
    -------
    array
        A scalar, or for ``"none"`` the shape of ``logits``; the dtype of ``logits``. With targets
        of 0 and 1 value and gradient are correct to 1 ULP in float16, bfloat16 and float32, and
        in float64 to :math:`3 + 2\gamma`, which :math:`\alpha` raises by 1. With targets
        between, the gradient crosses zero: there to :math:`3 + 2\gamma` ULP of its larger term.

    Raises
    ------
    TypeError
        If ``logits`` is not floating, or a floating ``target`` has another dtype.
    ValueError
        If a shape does not fit, a target or parameter is out of range, or the reduction unknown.

    References
    ----------
    T.-Y. Lin, P. Goyal, R. Girshick, K. He, P. Dollár, "Focal loss for dense object detection",
    ICCV 2017, eq. (5).

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> logits = np.array([0.0, 3.0, 0.0])
    >>> lossref.sigmoid_focal_loss(logits, np.array([1, 1, 0]), gamma=2.0, reduction="none")
    array([1.73286795e-01, 1.09283324e-04, 1.73286795e-01])
    """
    check_floating(logits=logits, weight=weight)
    check_range("gamma", gamma, 0.0, high_open=True)
    if alpha is not None:
        check_range("alpha", alpha, 0.0, 1.0)
    target = match_dtype("target", target, logits)
    check_interval("target", target, 0.0, 1.0, mask)
    value, slope, at_once = _sigmoid_focal(alpha, float(gamma))
    return elementwise_loss(
        value,
        (slope, None),
        {"logits": logits, "target": target},
        weight=weight,
        mask=mask,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
        at_once=at_once,
    )


def _sigmoid_focal(alpha: float | None, gamma: float) -> tuple[Formula, Formula, AtOnce]:
    """The formulas of the focal loss, by z = e^-|x| and by how far t is from the sign of x.

    With u = |[x >= 0] - t| the mistake's probability is 1 - p_t = (u + (1 - u) z) / (1 + z), and
    the cross-entropy u |x| + log(1 + z): sums of terms that are never negative.
    """

    def parts(z: Tensor, ahead: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The loss's two factors, and (1 - p_t) (1 + z)."""
        u = ahead.abs()
        mixed = u + (1.0 - u) * z
        power = (mixed / (1.0 + z)).pow(gamma)
        if alpha is not None:
            power = power * torch.lerp(t.new_tensor(1.0 - alpha), t.new_tensor(alpha), t)
        # u |x|: 0 where an infinite x is right.
        return power, torch.log1p(z) + (ahead * x).nan_to_num(0.0, torch.inf), mixed

    def value(x: Tensor, t: Tensor) -> Tensor:
        power, loss, _ = parts(decay(x), at_least_0(x) - t, x, t)
        # Where the power is 0 so is the loss: no 0 meets an infinity.
        return power * loss

    def slope(x: Tensor, t: Tensor) -> Tensor:
        z, above = decay(x), at_least_0(x)
        power, loss, mixed = parts(z, above - t, x, t)
        # p (1 - p) / (1 - p_t); z cancels where u is 0, also where both have become 0.
        ratio = ratio_or_1(z, mixed, above - t)
        own = (above - t) + (1.0 - above - t) * z
        focus = gamma * (1.0 - 2.0 * t) * ratio * keep_finite(loss)
        return power * (focus + own) / (1.0 + z)

    def at_once(factor: float, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The same in place, since new memory costs more than arithmetic."""
        wrong = mistakes(x, t)
        if wrong is not None:
            return _focal_of_mistakes(factor, wrong[1], t, alpha, gamma)
        dtype, x, t = x.dtype, widen(x), widen(t)
        z, above = decay_for(dtype, x), at_least_0(x)
        ahead = above - t
        power, loss, mixed = parts(z, ahead, x, t)
        # 0 is right for both 0/0 times a loss of 0, and 0 times an infinite loss.
        result = torch.div(z, mixed, out=mixed).mul_(loss).nan_to_num_(0.0)
        result.mul_((t * (-2.0 * gamma)).add_(gamma)).add_(ahead)
        result.addcmul_(above.add_(t).neg_().add_(1.0), z)
        slope = result.mul_(power).div_(z.add_(1.0))
        return torch.dot(power, loss), slope.mul_(factor).to(dtype)

    return value, slope, at_once


def _focal_of_mistakes(
    factor: float, s: Tensor, t: Tensor, alpha: float | None, gamma: float
) -> tuple[Tensor, Tensor]:
    """The sum of α_t q^γ l and its slopes α_t q^γ (q + γ (1 - q) l), where 1 - q = e^-l."""
    q = probability(s)
    minus_loss, beyond = log_right(s, q)
    # (1 - α) - t is α_t with the sign that turns the slope by s into that by x.
    share, scale = (0.5, 2.0) if alpha is None else (alpha, 1.0)
    power = torch.rsub(widen(t), 1.0 - share).mul_(q.pow(gamma))
    total = -torch.dot(power.abs(), minus_loss)
    if beyond is not None:
        total += torch.dot(power.abs(), beyond)
    rest = torch.addcmul(minus_loss, q, minus_loss, value=-1.0)
    slope = q.sub_(rest, alpha=gamma).mul_(power).mul_(scale * factor)
    return scale * total, slope.float()


@takes_arrays
def focal_loss(
    logits: Array,
    target: Array,
    *,
    alpha: Array | None = None,
    gamma: float = 2.0,
    ignore_index: int = -100,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Focal loss over classes.

    .. math::
        \ell = -\alpha_y\,(1 - p_y)^{\gamma} \log p_y, \qquad p = \operatorname{softmax}(z)

    Parameters
    ----------
    logits : array of shape (C,), (N, C) or (N, C, d1, ...), floating
        The class axis is 1.
    target : integer array
        Class indices, with the shape of ``logits`` without the class axis.
    alpha : array of shape (C,), optional
        Class weights :math:`\alpha`, constants of the loss.
    gamma : float
        Focusing :math:`\gamma`, at least 0; 0 gives the cross-entropy.
    ignore_index : int
        Targets that are left out: they touch neither value nor gradient.
    reduction : {"none", "mean", "sum"}
        The mean divides by the number of targets that are kept, whatever their weights.

    Returns
    -------
    array
        A scalar, or for ``"none"`` the shape of ``target``; the dtype of ``logits``. Value and
        gradient are correct to 1 ULP in float16, bfloat16 and float32. In float64 to
        :math:`4 + 4\gamma` ULP, since the error of the cross-entropy enters through both factors.

    Raises
    ------
    TypeError
        If ``logits`` is not floating, or ``target`` not integer.
    ValueError
        If a shape does not fit, an index or ``gamma`` is out of range, or the reduction unknown.

    References
    ----------
    T.-Y. Lin, P. Goyal, R. Girshick, K. He, P. Dollár, "Focal loss for dense object detection",
    ICCV 2017, eq. (5), with the softmax for the sigmoid.

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> logits = np.array([[0.0, 0.0], [0.0, 3.0]])
    >>> lossref.focal_loss(logits, np.array([0, 1]), reduction="none")
    array([1.73286795e-01, 1.09283324e-04])
    """
    check_reduction(reduction, denominator)
    check_range("gamma", gamma, 0.0, high_open=True)
    blocks, shape = class_blocks(logits)
    if alpha is not None:
        check_floating(alpha=alpha)
        check_shape("alpha", alpha, blocks.shape[1:2], "one weight per class")
        alpha = alpha.detach().to(wide_dtype(blocks.dtype))
    index, keep, row_weight = index_targets(target, shape, blocks, alpha, ignore_index)
    kept = target != int(ignore_index)
    if reduction == "mean" and denominator is None:
        denominator = kept.sum()
    value, slope = _focal_of_surprise(float(gamma))
    expected = expected_gradient(row_weight, reduction, denominator)
    surprise = index_cross_entropy(blocks, index, keep, expected, slope)
    losses = elementwise(value, (slope,), surprise) * row_weight
    return finish(
        losses.reshape(shape),
        mask=kept,
        dtype=logits.dtype,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


def _focal_of_surprise(gamma: float) -> tuple[Formula, Formula]:
    """The focal loss as a function of l = -log p_y, since 1 - p_y = -expm1(-l) keeps its digits."""

    def value(loss: Tensor) -> Tensor:
        # Both factors are 0 together, and an infinite loss has the other 1.
        return (-torch.expm1(-loss)).pow(gamma) * loss

    def slope(loss: Tensor) -> Tensor:
        q = -torch.expm1(-loss)
        # l / (1 - p) tends to 1 with l; p l tends to 0 where l is infinite.
        ratio = keep_finite(ratio_or_1(loss, q, loss))
        return q.pow(gamma) * (1.0 + gamma * torch.exp(-loss) * ratio)

    return value, slope


@takes_arrays
def ohem_cross_entropy(
    logits: Array,
    target: Array,
    *,
    keep: float,
    ignore_index: int = -100,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Cross-entropy of the hardest examples (online hard example mining).

    .. math::
        \frac{1}{k} \sum_{i \in H} \ell_i, \qquad k = \lceil \text{keep} \cdot N \rceil

    where :math:`H` holds the :math:`k` largest of the N cross-entropies; among equals the first.

    Parameters
    ----------
    logits : array of shape (C,), (N, C) or (N, C, d1, ...), floating
        The class axis is 1; every pixel is an example.
    target : integer array
        Class indices, with the shape of ``logits`` without the class axis.
    keep : float
        The share of the examples that is kept, in (0, 1], read as the decimal it is written as:
        7 of 100 for 0.07.
    ignore_index : int
        Targets that are left out and not counted in N.
    reduction : {"none", "mean", "sum"}
        The mean divides by :math:`k`. ``"none"`` gives 0 for examples that are not kept.
    nan_if_empty : bool
        A mean over nothing is 0 with zero gradient; True makes it NaN.

    Returns
    -------
    array
        A scalar, or for ``"none"`` the shape of ``target``; the dtype of ``logits``. As exact as
        :func:`~lossref.cross_entropy`; examples that are not kept get no gradient.

    Raises
    ------
    TypeError
        If ``logits`` is not floating, or ``target`` not integer.
    ValueError
        If a shape does not fit, an index or ``keep`` is out of range, or the reduction unknown.

    References
    ----------
    A. Shrivastava, A. Gupta, R. Girshick, "Training region-based object detectors with online
    hard example mining", CVPR 2016, section 4.

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> logits = np.array([[2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    >>> lossref.ohem_cross_entropy(logits, np.array([0, 0, 0]), keep=0.5, reduction="none")
    array([0.        , 1.31326169, 3.04858735])
    """
    check_reduction(reduction, denominator)
    check_range("keep", keep, 0.0, 1.0, low_open=True)
    rows, shape = class_rows(logits)
    index, valid, _ = index_targets(target, shape, rows, None, ignore_index)
    losses = IndexCrossEntropy.apply(rows, index, valid)
    order = torch.where(valid, losses.detach(), -torch.inf).argsort(descending=True, stable=True)
    among_the_first = torch.arange(len(order), device=order.device) < _share(keep, valid)
    hardest = torch.zeros_like(valid).scatter(0, order, among_the_first)
    return finish(
        torch.where(hardest, losses, 0.0).reshape(shape),
        mask=hardest.reshape(shape),
        dtype=logits.dtype,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


def _share(keep: float, valid: Tensor) -> int | Tensor:
    """How many rows are the share `keep` of the valid ones, rounded up."""
    # The decimal as written: 0.07 * 100 in binary is above 7, and its ceiling 8.
    share = Fraction(repr(float(keep)))
    if visible(valid) is valid:
        return math.ceil(share * int(valid.sum()))
    # Under vmap each example has a number of its own, which cannot be asked for.
    shares = [math.ceil(share * rows) for rows in range(len(valid) + 1)]
    return torch.tensor(shares, device=valid.device).gather(0, valid.sum().unsqueeze(0))
