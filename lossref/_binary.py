"""Losses over independent yes-or-no targets."""

from __future__ import annotations

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
    widen,
)
from lossref._elementwise import (
    Formula,
    at_least_0,
    decay_for,
    elementwise,
    elementwise_loss,
    keep_finite,
    sum_log1p,
    times,
)
from lossref._mistakes import mistakes, probability, total_cross_entropy
from lossref._numerics import decay, sigmoid_slope, stable_sigmoid, stable_softplus
from lossref._reduction import broadcast, check_mask, check_reduction, divide, finish


@takes_arrays
def binary_cross_entropy_with_logits(
    logits: Array,
    target: Array,
    *,
    weight: Array | None = None,
    pos_weight: Array | None = None,
    mask: Array | None = None,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Binary cross-entropy between targets and the sigmoid of logits.

    .. math::
        \ell = w\,[\,P\,t\,\operatorname{softplus}(-x) + (1 - t)\,\operatorname{softplus}(x)\,],
        \qquad \operatorname{softplus}(x) = \max(x, 0) + \log(1 + e^{-|x|})

    with the positive weight :math:`P` (1 by default).

    Parameters
    ----------
    logits : array of any shape, floating
        One logit :math:`x` per decision.
    target : array of the same shape
        Probabilities in [0, 1]; integers and booleans are taken as 0 and 1.
    weight : array, optional
        Weight :math:`w` of each entry, broadcast to the shape of ``logits``.
    pos_weight : array, optional
        Weight :math:`P` of the positive part, broadcast to the shape of ``logits``; a constant
        of the loss.
    reduction : {"none", "mean", "sum"}
        The mean divides by the number of entries that the mask keeps, whatever their weights, as in
        PyTorch.

    Returns
    -------
    array
        A scalar, or for ``"none"`` the shape of ``logits``; the dtype of ``logits``. Correct to
        1 ULP in float16, bfloat16 and float32, value and gradient; in float64 with targets 0
        and 1 to 2 ULP. With targets between, a float64 value is correct to 4 ULP, and its
        gradient :math:`\sigma(x) - t`, which crosses zero, to 3 ULP of its larger term. A
        weight adds 1 ULP in float64, and :math:`P` another.

    Raises
    ------
    TypeError
        If ``logits`` is not floating, or a floating ``target`` has another dtype.
    ValueError
        If a shape does not fit, a target is outside [0, 1], or the reduction is unknown.

    References
    ----------
    C. M. Bishop, "Pattern Recognition and Machine Learning", Springer 2006, eq. (4.90).

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> logits = np.array([0.0, 100.0, -1000.0])
    >>> target = np.array([1.0, 1.0, 1.0])
    >>> lossref.binary_cross_entropy_with_logits(logits, target, reduction="none")
    array([6.93147181e-01, 3.72007598e-44, 1.00000000e+03])
    """
    check_floating(logits=logits, weight=weight, pos_weight=pos_weight)
    target = match_dtype("target", target, logits)
    check_interval("target", target, 0.0, 1.0, mask)
    constants = []
    if pos_weight is not None:
        constants.append(broadcast("pos_weight", pos_weight.detach(), logits))
    return elementwise_loss(
        _bce,
        (_bce_slope, _bce_target_slope, *[None] * len(constants)),
        {"logits": logits, "target": target},
        constants=constants,
        weight=weight,
        mask=mask,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
        at_once=_bce_at_once if pos_weight is None else None,
    )


def _bce(x: Tensor, t: Tensor, positive: Tensor | None = None) -> Tensor:
    if positive is not None:
        return times(1.0 - t, stable_softplus(x)) + positive * times(t, stable_softplus(-x))
    return _linear(at_least_0(x) - t, x).add_(decay(x).log1p_())


def _linear(ahead: Tensor, x: Tensor) -> Tensor:
    """(1 - t) max(x, 0) + t max(-x, 0) by [x >= 0] - t: 0 where an infinite x is right."""
    return (ahead * x).nan_to_num_(0.0, torch.inf, -torch.inf)


def _bce_slope(x: Tensor, t: Tensor, positive: Tensor | None = None) -> Tensor:
    if positive is not None:
        return (1.0 - t) * stable_sigmoid(x) - positive * t * stable_sigmoid(-x)
    # (1 - t) σ(x) - t σ(-x) by q = σ(-|x|) = z / (1 + z), so no term is a rounded 1 - p.
    z, above = decay(x), at_least_0(x)
    return (above - t) + (1.0 - 2.0 * above) * (z / (1.0 + z))


def _bce_at_once(factor: float, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of `_bce` and each `_bce_slope`, in place: new memory costs more than arithmetic."""
    wrong = mistakes(x, t)
    if wrong is not None:
        sign, s = wrong
        q = probability(s)
        return total_cross_entropy(s, q), q.mul_(factor).float().mul_(sign)
    dtype, x, t = x.dtype, widen(x), widen(t)
    z, above = decay_for(dtype, x), at_least_0(x)
    ahead = above - t
    linear = torch.dot(ahead, x)
    if not bool(linear.isfinite()):
        linear = _linear(ahead, x).sum()
    total = sum_log1p(z) + linear
    q = z.div_(z + 1.0)
    slope = ahead.add_(q).addcmul_(above, q, value=-2.0)
    return total, slope.mul_(factor).to(dtype)


def _bce_target_slope(x: Tensor, t: Tensor, positive: Tensor | None = None) -> Tensor:
    if positive is None:
        return -x
    return positive * stable_softplus(-x) - stable_softplus(x)


@takes_arrays
def binary_cross_entropy(
    probs: Array,
    target: Array,
    *,
    weight: Array | None = None,
    mask: Array | None = None,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Binary cross-entropy between targets and probabilities.

    .. math::
        \ell = -w\,[\,t \log p + (1 - t) \log(1 - p)\,]

    with :math:`0 \log 0 = 0`. Where there are logits,
    :func:`~lossref.binary_cross_entropy_with_logits` keeps what a probability near 1 has lost.

    Parameters
    ----------
    probs : array of any shape, floating
        Probabilities :math:`p` in [0, 1].
    target : array of the same shape
        Probabilities in [0, 1]; integers and booleans are taken as 0 and 1.
    weight : array, optional
        Weight :math:`w` of each entry, broadcast to the shape of ``probs``.
    reduction : {"none", "mean", "sum"}
        The mean divides by the number of entries that the mask keeps, whatever their weights, as in
        PyTorch.

    Returns
    -------
    array
        A scalar, or for ``"none"`` the shape of ``probs``; the dtype of ``probs``. Correct to
        1 ULP in float16, bfloat16 and float32, value and gradient; in float64 to 2 ULP with
        targets of 0 and 1 and to 4 between. A certain mistake costs infinity, where PyTorch
        says 100. The gradient :math:`(1 - t)/(1 - p) - t/p` crosses zero at
        :math:`p = t`: there it is correct to 3 ULP of its larger term.

    Raises
    ------
    TypeError
        If ``probs`` is not floating, or a floating ``target`` has another dtype.
    ValueError
        If a shape does not fit, a probability or target is outside [0, 1], or the reduction is
        unknown.

    References
    ----------
    C. M. Bishop, "Pattern Recognition and Machine Learning", Springer 2006, eq. (4.90).

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> probs = np.array([0.5, 1.0, 0.0])
    >>> lossref.binary_cross_entropy(probs, np.array([1.0, 1.0, 1.0]), reduction="none")
    array([0.69314718, 0.        ,        inf])
    """
    check_floating(probs=probs, weight=weight)
    target = match_dtype("target", target, probs)
    check_interval("probs", probs, 0.0, 1.0, mask)
    check_interval("target", target, 0.0, 1.0, mask)
    return elementwise_loss(
        _bce_of_probs,
        (_bce_of_probs_slope, _bce_of_probs_target_slope),
        {"probs": probs, "target": target},
        weight=weight,
        mask=mask,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


def _bce_of_probs(p: Tensor, t: Tensor) -> Tensor:
    return times(t, -torch.log(p)) + times(1.0 - t, -torch.log1p(-p))


def _bce_of_probs_slope(p: Tensor, t: Tensor) -> Tensor:
    return torch.where(t == 1.0, 0.0, (1.0 - t) / (1.0 - p)) - torch.where(t == 0.0, 0.0, t / p)


def _bce_of_probs_target_slope(p: Tensor, t: Tensor) -> Tensor:
    return torch.log1p(-p) - torch.log(p)


@takes_arrays
def nn_pu_loss(
    logits: Array,
    target: Array,
    *,
    prior: float,
    beta: float = 0.0,
    gamma: float = 0.0,
    surrogate: str = "sigmoid",
) -> Array:
    r"""Non-negative risk of a classifier from positive and unlabelled examples.

    .. math::
        R = \pi \hat R_p^+ + \max\bigl(-\beta,\; \hat R_u^- - \pi \hat R_p^-\bigr)

    where :math:`\hat R_p^\pm` is the mean over positive examples, :math:`\hat R_u^-` the mean
    over unlabelled ones, of the surrogate loss for the label :math:`\pm 1`.

    Parameters
    ----------
    logits : array of shape (N,), floating
        Scores, above 0 for positive.
    target : array of shape (N,)
        1 for a labelled positive example, 0 for an unlabelled one.
    prior : float
        The share :math:`\pi` of positives among the unlabelled, in (0, 1).
    beta : float
        How far below 0 the estimated negative risk may fall.
    gamma : float
        In [0, 1]. Where the negative risk is below :math:`-\beta`, the gradient is that of
        :math:`-\gamma\,(\hat R_u^- - \pi \hat R_p^-)` alone if ``gamma`` is positive, as the
        paper's algorithm steps back from overfitting. With 0 the gradient is that of the value.
    surrogate : {"sigmoid", "logistic"}
        :math:`\sigma(-yx)`, bounded, or :math:`\operatorname{softplus}(-yx)`.

    Returns
    -------
    array
        A scalar of the dtype of ``logits``; each mean divides by the number of its own examples
        and is 0 where there are none. Computed one format up and rounded once; the negative risk
        is a difference, with an absolute error of 4 ULP of the larger term in float64.

    Raises
    ------
    TypeError
        If ``logits`` is not floating.
    ValueError
        If shapes differ, a target is neither 0 nor 1, or a parameter is out of range.

    References
    ----------
    R. Kiryo, G. Niu, M. C. du Plessis, M. Sugiyama, "Positive-unlabeled learning with
    non-negative risk estimator", NeurIPS 2017, eq. (6) and algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> logits, target = np.array([2.0, -1.0, 0.5]), np.array([1, 0, 0])
    >>> round(float(lossref.nn_pu_loss(logits, target, prior=0.3)), 6)
    0.217222
    """
    check_floating(logits=logits)
    check_range("prior", prior, 0.0, 1.0, low_open=True, high_open=True)
    check_range("beta", beta, 0.0)
    check_range("gamma", gamma, 0.0, 1.0)
    if surrogate not in ("sigmoid", "logistic"):
        raise ValueError(f"surrogate must be 'sigmoid' or 'logistic', got {surrogate!r}")
    check_shape("logits", logits, (logits.numel(),), "one score per example")
    target = match_dtype("target", target, logits)
    check_shape("target", target, logits.shape, "the shape of logits")
    positive = check_binary(target)
    value, slope = (
        (stable_sigmoid, sigmoid_slope)
        if surrogate == "sigmoid"
        else (stable_softplus, stable_sigmoid)
    )
    x = widen(logits)
    as_negative = elementwise(value, (slope,), x)
    as_positive = elementwise(value, (slope,), -x)
    positive_risk = prior * _mean_where(as_positive, positive)
    negative_risk = _mean_where(as_negative, ~positive) - prior * _mean_where(as_negative, positive)
    below = negative_risk < -beta
    risk = positive_risk + torch.where(below, -beta, negative_risk)
    if gamma > 0:
        # The value stays, the gradient is replaced: x - x.detach() is 0 with the gradient of x.
        step_back = risk.detach() - gamma * (negative_risk - negative_risk.detach())
        risk = torch.where(below, step_back, risk)
    return risk.to(logits.dtype)


def _mean_where(losses: Tensor, chosen: Tensor) -> Tensor:
    return divide(torch.where(chosen, losses, 0.0).sum(), chosen.sum(), nan_if_empty=False)


def check_binary(target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Require targets of 0 and 1, and return where they are 1."""
    check_interval("target", target, 0.0, 1.0, mask, only_ends=True)
    return target == 1


@takes_arrays
def asymmetric_loss(
    logits: Array,
    target: Array,
    *,
    gamma_pos: float = 1.0,
    gamma_neg: float = 4.0,
    clip: float = 0.05,
    weight: Array | None = None,
    mask: Array | None = None,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Asymmetric loss for multi-label targets.

    .. math::
        \ell = -t\,(1 - p)^{\gamma_+} \log p - (1 - t)\,p_c^{\gamma_-} \log(1 - p_c), \qquad
        p = \sigma(x), \quad p_c = \max(p - c, 0)

    Negatives more certain than the clip :math:`c` cost nothing.

    Parameters
    ----------
    logits : array of any shape, floating
        One logit :math:`x` per label.
    target : array of the same shape
        Probabilities in [0, 1]; integers and booleans are taken as 0 and 1.
    gamma_pos, gamma_neg : float
        Focusing of positives and negatives, at least 0.
    clip : float
        Shift :math:`c` of the negative probabilities, in [0, 1).
    weight : array, optional
        Weight of each entry, broadcast to the shape of ``logits``.
    reduction : {"none", "mean", "sum"}
        The mean divides by the number of entries that the mask keeps, whatever their weights; the
        paper's code sums.

    Returns
    -------
    array
        A scalar, or for ``"none"`` the shape of ``logits``; the dtype of ``logits``. With targets
        of 0 and 1 correct to 1 ULP in float16, bfloat16 and float32, and in float64 to
        :math:`4 + 3\gamma` ULP; except near :math:`p = c`, where :math:`p - c` cancels and the
        error is that of an absolute error of 2 ULP of :math:`c`, one format up for the narrow
        formats. With :math:`0 < c < 10^{-4}` gradients of negatives below :math:`10^{-45} / c` are
        0 in bfloat16, whose range that format does not widen.

    Raises
    ------
    TypeError
        If ``logits`` is not floating, or a floating ``target`` has another dtype.
    ValueError
        If a shape does not fit, a target or parameter is out of range, or the reduction unknown.

    References
    ----------
    T. Ridnik et al., "Asymmetric loss for multi-label classification", ICCV 2021, eq. (4)-(7).

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> logits = np.array([0.0, 0.0, -4.0])
    >>> lossref.asymmetric_loss(logits, np.array([1, 0, 0]), reduction="none")
    array([0.34657359, 0.02451505, 0.        ])
    """
    check_floating(logits=logits, weight=weight)
    check_range("gamma_pos", gamma_pos, 0.0, high_open=True)
    check_range("gamma_neg", gamma_neg, 0.0, high_open=True)
    check_range("clip", clip, 0.0, 1.0, high_open=True)
    target = match_dtype("target", target, logits)
    check_interval("target", target, 0.0, 1.0, mask)
    value, slope, target_slope = _asymmetric(gamma_pos, gamma_neg, clip)
    return elementwise_loss(
        value,
        (slope, target_slope),
        {"logits": logits, "target": target},
        weight=weight,
        mask=mask,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


def _asymmetric(gamma_pos: float, gamma_neg: float, clip: float) -> tuple[Formula, ...]:
    """The formulas of the asymmetric loss for its parameters."""

    def excess(x: Tensor) -> Tensor:
        return (stable_sigmoid(x) - clip).clamp(min=0.0)

    def surprise(x: Tensor) -> Tensor:
        # 1 - p is known as the sigmoid of -x, with all its digits, but p - c only where p is small.
        if clip == 0:
            return stable_softplus(x)
        p_c = excess(x)
        return -torch.where(p_c < 0.5, torch.log1p(-p_c), torch.log(clip + stable_sigmoid(-x)))

    def if_positive(x: Tensor) -> Tensor:
        return times(stable_sigmoid(-x).pow(gamma_pos), stable_softplus(-x))

    def if_negative(x: Tensor) -> Tensor:
        return times(excess(x).pow(gamma_neg), surprise(x))

    def positive_slope(x: Tensor) -> Tensor:
        q = stable_sigmoid(-x)
        return -q.pow(gamma_pos) * (
            gamma_pos * stable_sigmoid(x) * keep_finite(stable_softplus(-x)) + q
        )

    def negative_slope(x: Tensor) -> Tensor:
        p_c = excess(x)
        # surprise / p_c tends to 1 where nothing exceeds the clip.
        ratio = torch.where(p_c == 0.0, 1.0, surprise(x) / torch.where(p_c == 0.0, 1.0, p_c))
        # p (1 - p) / (1 - p_c), which is p itself without a clip, where 1 - p may be 0.
        complement = clip + stable_sigmoid(-x)
        last = stable_sigmoid(x) if clip == 0 else sigmoid_slope(x) / complement
        # In this order, for the largest number times gamma would be infinite again.
        focusing = gamma_neg * (sigmoid_slope(x) * keep_finite(ratio))
        slope = p_c.pow(gamma_neg) * (focusing + last)
        return torch.where(p_c == 0.0, 0.0, slope) if clip > 0 else slope

    def value(x: Tensor, t: Tensor) -> Tensor:
        return times(t, if_positive(x)) + times(1.0 - t, if_negative(x))

    def slope(x: Tensor, t: Tensor) -> Tensor:
        return times(t, positive_slope(x)) + times(1.0 - t, negative_slope(x))

    def target_slope(x: Tensor, t: Tensor) -> Tensor:
        return if_positive(x) - if_negative(x)

    return value, slope, target_slope


@takes_arrays
def dice_loss(
    logits: Array,
    target: Array,
    *,
    smooth: float = 1.0,
    mask: Array | None = None,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Soft Dice loss: one minus the overlap of predicted and true regions.

    .. math::
        \ell = 1 - \frac{2 \sum_i p_i t_i + s}{\sum_i p_i + \sum_i t_i + s}
             = \frac{\sum_i [\,p_i (1 - t_i) + (1 - p_i)\,t_i\,]}{\sum_i p_i + \sum_i t_i + s},
        \qquad p = \sigma(x)

    computed in the second form, which does not cancel where the overlap is nearly perfect.

    Parameters
    ----------
    logits : array of shape (N, ...), floating
        One logit :math:`x` per pixel; every sample is one region.
    target : array of the same shape
        Probabilities in [0, 1]; integers and booleans are taken as 0 and 1.
    smooth : float
        The smoothing :math:`s`, at least 0. With 0, a sample with nothing predicted and nothing
        true costs 0.
    reduction : {"none", "mean", "sum"}
        The mean divides by the number N of samples.

    Returns
    -------
    array
        A scalar, or for ``"none"`` the shape ``(N,)``; the dtype of ``logits``. Correct to 1 ULP
        in float16, bfloat16 and float32; in float64 to 6 ULP, the value being a quotient of sums
        of terms that are never negative.

    Raises
    ------
    TypeError
        If ``logits`` is not floating, or a floating ``target`` has another dtype.
    ValueError
        If a shape does not fit, a target is outside [0, 1], ``smooth`` is negative, or the
        reduction unknown.

    References
    ----------
    F. Milletari, N. Navab, S.-A. Ahmadi, "V-Net: fully convolutional neural networks for
    volumetric medical image segmentation", 3DV 2016, section 3 (there with squares in the
    denominator); C. H. Sudre et al., "Generalised Dice overlap as a deep learning loss function
    for highly unbalanced segmentations", DLMIA 2017, section 2.

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> logits, target = np.array([[50.0, -50.0]]), np.array([[1.0, 0.0]])
    >>> float(lossref.dice_loss(logits, target))
    1.2858332319759453e-22
    """
    check_reduction(reduction, denominator)
    check_floating(logits=logits)
    check_range("smooth", smooth, 0.0, high_open=True)
    target = match_dtype("target", target, logits)
    check_shape("target", target, logits.shape, "the shape of logits")
    check_interval("target", target, 0.0, 1.0, mask)
    if logits.ndim < 2:
        raise ValueError(f"logits must have shape (N, ...), but has shape {tuple(logits.shape)}")
    t = widen(target)
    keep = torch.ones_like(logits, dtype=torch.bool)
    if mask is not None:
        keep = broadcast("mask", check_mask(mask), logits)
        t = torch.where(keep, t, 0.0)
        logits = torch.where(keep, logits, 0.0)
    # Widened once: two gradients that meet at the narrow logits would each be rounded.
    x = widen(logits)
    p = elementwise(stable_sigmoid, (sigmoid_slope,), x)
    complement = elementwise(stable_sigmoid, (sigmoid_slope,), -x)
    mistakes = torch.where(keep, p * (1.0 - t) + complement * t, 0.0).flatten(1).sum(1)
    size = torch.where(keep, p + t, 0.0).flatten(1).sum(1) + smooth
    losses = mistakes / torch.where(size == 0.0, 1.0, size)
    return finish(
        losses,
        dtype=logits.dtype,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )
