"""Regression losses."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lossref._arrays import (
    Array,
    check_floating,
    check_range,
    check_same_dtype,
    check_values,
    takes_arrays,
    wide_dtype,
)
from lossref._elementwise import Formula, elementwise_loss
from lossref._reduction import broadcast


@takes_arrays
def mse_loss(
    prediction: Array,
    target: Array,
    *,
    weight: Array | None = None,
    mask: Array | None = None,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Squared error.

    .. math::
        \ell = (x - t)^2

    Parameters
    ----------
    prediction : array of any shape, floating
        Predictions :math:`x`.
    target : array of the same shape and dtype
        Targets :math:`t`.
    weight : array, optional
        Weight of each entry, broadcast to the shape of ``prediction``.
    reduction : {"none", "mean", "sum"}
        The mean divides by the sum of the weights of the entries that are kept, their number
        without weights, as in PyTorch.

    Returns
    -------
    array
        A scalar, or for ``"none"`` the shape of ``prediction``; its dtype. Correctly rounded in
        float16, bfloat16 and float32; in float64 to 2 ULP, and the gradient :math:`2(x - t)` to 1.

    Raises
    ------
    TypeError
        If the arrays are not floating or differ in dtype.
    ValueError
        If the shapes differ or the reduction is unknown.

    References
    ----------
    C. F. Gauss, "Theoria combinationis observationum erroribus minimis obnoxiae", 1823, section 6.

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> float(lossref.mse_loss(np.array([1.0, 2.0]), np.array([0.0, 4.0])))
    2.5
    """
    return _difference_loss(
        torch.square,
        lambda d: 2.0 * d,
        prediction,
        target,
        weight,
        mask,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


@takes_arrays
def l1_loss(
    prediction: Array,
    target: Array,
    *,
    weight: Array | None = None,
    mask: Array | None = None,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Absolute error; the gradient where it is 0 is 0.

    .. math::
        \ell = |x - t|

    Parameters
    ----------
    prediction : array of any shape, floating
        Predictions :math:`x`.
    target : array of the same shape and dtype
        Targets :math:`t`.
    weight : array, optional
        Weight of each entry, broadcast to the shape of ``prediction``.
    reduction : {"none", "mean", "sum"}
        The mean divides by the sum of the weights of the entries that are kept, their number
        without weights, as in PyTorch.

    Returns
    -------
    array
        A scalar, or for ``"none"`` the shape of ``prediction``; its dtype. Correctly rounded in
        every format.

    Raises
    ------
    TypeError
        If the arrays are not floating or differ in dtype.
    ValueError
        If the shapes differ or the reduction is unknown.

    References
    ----------
    P. Bloomfield, W. L. Steiger, "Least Absolute Deviations", Birkhäuser 1983, section 1.1.

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> float(lossref.l1_loss(np.array([1.0, 2.0]), np.array([0.0, 4.0])))
    1.5
    """
    return _difference_loss(
        torch.abs,
        torch.sign,
        prediction,
        target,
        weight,
        mask,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


@takes_arrays
def huber_loss(
    prediction: Array,
    target: Array,
    *,
    delta: float = 1.0,
    weight: Array | None = None,
    mask: Array | None = None,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Huber loss: squared near the target, absolute far from it.

    .. math::
        \ell = \begin{cases}
            \tfrac12 (x - t)^2 & |x - t| \le \delta \\
            \delta\,(|x - t| - \tfrac12 \delta) & \text{otherwise}
        \end{cases}

    Parameters
    ----------
    prediction : array of any shape, floating
        Predictions :math:`x`.
    target : array of the same shape and dtype
        Targets :math:`t`.
    delta : float
        Where the loss turns from squared to absolute, :math:`\delta > 0`.
    weight : array, optional
        Weight of each entry, broadcast to the shape of ``prediction``.
    reduction : {"none", "mean", "sum"}
        The mean divides by the sum of the weights of the entries that are kept, their number
        without weights. PyTorch's weighted Huber loss, unlike its others, divides by the number.

    Returns
    -------
    array
        A scalar, or for ``"none"`` the shape of ``prediction``; its dtype. Correctly rounded in
        float16, bfloat16 and float32; in float64 to 3 ULP, and the gradient to 1.

    Raises
    ------
    TypeError
        If the arrays are not floating or differ in dtype.
    ValueError
        If the shapes differ, ``delta`` is not positive, or the reduction is unknown.

    References
    ----------
    P. J. Huber, "Robust estimation of a location parameter", Annals of Mathematical Statistics
    35(1), 1964, eq. (2.4).

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> lossref.huber_loss(np.array([0.5, 3.0]), np.zeros(2), reduction="none")
    array([0.125, 2.5  ])
    """
    check_range("delta", delta, 0.0, low_open=True, high_open=True)
    return _difference_loss(
        lambda d: torch.where(
            d.abs() <= delta, 0.5 * d.clamp(-delta, delta).square(), delta * (d.abs() - 0.5 * delta)
        ),
        lambda d: d.clamp(-delta, delta),
        prediction,
        target,
        weight,
        mask,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


@takes_arrays
def smooth_l1_loss(
    prediction: Array,
    target: Array,
    *,
    beta: float = 1.0,
    weight: Array | None = None,
    mask: Array | None = None,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Smooth absolute error: the Huber loss divided by its threshold.

    .. math::
        \ell = \begin{cases}
            (x - t)^2 / (2 \beta) & |x - t| < \beta \\
            |x - t| - \tfrac12 \beta & \text{otherwise}
        \end{cases}

    Parameters
    ----------
    prediction : array of any shape, floating
        Predictions :math:`x`.
    target : array of the same shape and dtype
        Targets :math:`t`.
    beta : float
        Where the loss turns from squared to absolute, :math:`\beta \ge 0`; 0 gives the absolute
        error.
    weight : array, optional
        Weight of each entry, broadcast to the shape of ``prediction``.
    reduction : {"none", "mean", "sum"}
        The mean divides by the sum of the weights of the entries that are kept, their number
        without weights.

    Returns
    -------
    array
        A scalar, or for ``"none"`` the shape of ``prediction``; its dtype. Correctly rounded in
        float16, bfloat16 and float32; in float64 to 3 ULP, and the gradient to 2.

    Raises
    ------
    TypeError
        If the arrays are not floating or differ in dtype.
    ValueError
        If the shapes differ, ``beta`` is negative, or the reduction is unknown.

    References
    ----------
    R. Girshick, "Fast R-CNN", ICCV 2015, eq. (3).

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> lossref.smooth_l1_loss(np.array([0.5, 3.0]), np.zeros(2), reduction="none")
    array([0.125, 2.5  ])
    """
    check_range("beta", beta, 0.0, high_open=True)
    if beta == 0:
        value: Formula = torch.abs
        slope: Formula = torch.sign
    else:

        def value(d: Tensor) -> Tensor:
            near = d.clamp(-beta, beta)
            return torch.where(d.abs() < beta, 0.5 * near * (near / beta), d.abs() - 0.5 * beta)

        def slope(d: Tensor) -> Tensor:
            return (d / beta).clamp(-1.0, 1.0)

    return _difference_loss(
        value,
        slope,
        prediction,
        target,
        weight,
        mask,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


@takes_arrays
def log_cosh_loss(
    prediction: Array,
    target: Array,
    *,
    weight: Array | None = None,
    mask: Array | None = None,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Logarithm of the hyperbolic cosine of the error.

    .. math::
        \ell = \log \cosh (x - t) = \begin{cases}
            \log\bigl(1 + 2 \sinh^2 \tfrac{x - t}{2}\bigr) & |x - t| \le 1 \\
            |x - t| - \log 2 + \log(1 + e^{-2|x - t|}) & \text{otherwise}
        \end{cases}

    Parameters
    ----------
    prediction : array of any shape, floating
        Predictions :math:`x`.
    target : array of the same shape and dtype
        Targets :math:`t`.
    weight : array, optional
        Weight of each entry, broadcast to the shape of ``prediction``.
    reduction : {"none", "mean", "sum"}
        The mean divides by the sum of the weights of the entries that are kept, their number
        without weights.

    Returns
    -------
    array
        A scalar, or for ``"none"`` the shape of ``prediction``; its dtype. Correct to 1 ULP in
        float16, bfloat16 and float32, also where the loss is :math:`(x - t)^2 / 2`; in float64 to 6
        ULP, and the gradient :math:`\tanh(x - t)` to 2.

    Raises
    ------
    TypeError
        If the arrays are not floating or differ in dtype.
    ValueError
        If the shapes differ or the reduction is unknown.

    References
    ----------
    R. A. Saleh, A. K. Md. E. Saleh, "Statistical properties of the log-cosh loss function used in
    machine learning", arXiv:2208.04564, 2022, section 2.

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> lossref.log_cosh_loss(np.array([1e-10, 1000.0]), np.zeros(2), reduction="none")
    array([5.00000000e-21, 9.99306853e+02])
    """
    return _difference_loss(
        _log_cosh,
        torch.tanh,
        prediction,
        target,
        weight,
        mask,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


def _log_cosh(d: Tensor) -> Tensor:
    far = d.abs()
    near = torch.log1p(2.0 * torch.sinh(0.5 * d.clamp(-1.0, 1.0)).square())
    return torch.where(far <= 1.0, near, (far - math.log(2.0)) + torch.log1p(torch.exp(-2.0 * far)))


@takes_arrays
def quantile_loss(
    prediction: Array,
    target: Array,
    *,
    quantile: float = 0.5,
    weight: Array | None = None,
    mask: Array | None = None,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Quantile (pinball) loss, whose minimum is at the quantile of the targets.

    .. math::
        \ell = \max\bigl(q\,(t - x),\; (q - 1)(t - x)\bigr)

    Parameters
    ----------
    prediction : array of any shape, floating
        Predictions :math:`x`.
    target : array of the same shape and dtype
        Targets :math:`t`.
    quantile : float
        The quantile :math:`q` in (0, 1).
    weight : array, optional
        Weight of each entry, broadcast to the shape of ``prediction``.
    reduction : {"none", "mean", "sum"}
        The mean divides by the sum of the weights of the entries that are kept, their number
        without weights.

    Returns
    -------
    array
        A scalar, or for ``"none"`` the shape of ``prediction``; its dtype. Correctly rounded in
        float16, bfloat16 and float32; in float64 to 2 ULP. The gradient where :math:`x = t` is 0.

    Raises
    ------
    TypeError
        If the arrays are not floating or differ in dtype.
    ValueError
        If the shapes differ, ``quantile`` is not in (0, 1), or the reduction is unknown.

    References
    ----------
    R. Koenker, G. Bassett, "Regression quantiles", Econometrica 46(1), 1978, eq. (3.1).

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> prediction, target = np.array([1.0, 3.0]), np.array([2.0, 2.0])
    >>> lossref.quantile_loss(prediction, target, quantile=0.75, reduction="none")
    array([0.75, 0.25])
    """
    check_range("quantile", quantile, 0.0, 1.0, low_open=True, high_open=True)
    return _difference_loss(
        lambda d: torch.where(d > 0.0, (1.0 - quantile) * d, -quantile * d),
        lambda d: ((d > 0.0).to(d.dtype) - quantile) * d.sign().abs(),
        prediction,
        target,
        weight,
        mask,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


def _difference_loss(
    value: Formula,
    slope: Formula,
    prediction: Any,
    target: Any,
    weight: Tensor | None,
    mask: Tensor | None,
    *,
    reduction: str,
    denominator: float | Tensor | None,
    nan_if_empty: bool,
) -> Tensor:
    """A loss of the difference d = x - t, which is as smooth in the target as in the prediction."""
    check_same_dtype(prediction=prediction, target=target)
    check_floating(weight=weight)
    return elementwise_loss(
        lambda x, t: value(x - t),
        (lambda x, t: slope(x - t), lambda x, t: -slope(x - t)),
        {"prediction": prediction, "target": target},
        weight=weight,
        mask=mask,
        divide_by_weight=True,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


@takes_arrays
def gaussian_nll_loss(
    prediction: Array,
    target: Array,
    *,
    var: float | Array,
    full: bool = False,
    eps: float = 1e-6,
    weight: Array | None = None,
    mask: Array | None = None,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Negative log-likelihood of targets under normal distributions.

    .. math::
        \ell = \tfrac12 \Bigl[\log v + \frac{(x - t)^2}{v}\Bigr]
            \;\bigl[ + \tfrac12 \log 2\pi \bigr], \qquad v = \max(\text{var}, \epsilon)

    Parameters
    ----------
    prediction : array of any shape, floating
        Predictions :math:`x`.
    target : array of the same shape and dtype
        Targets :math:`t`.
    var : number or array
        Variances, at least 0: of the shape of ``prediction``, or of that shape with the last
        axis 1 or left out, as in PyTorch.
    full : bool
        Add the constant :math:`\tfrac12 \log 2\pi`.
    eps : float
        The smallest variance, at least 0. As in PyTorch, the gradient passes through the
        maximum, so that a variance below it can recover.
    weight : array, optional
        Weight of each entry, broadcast to the shape of ``prediction``.
    reduction : {"none", "mean", "sum"}
        The mean divides by the sum of the weights of the entries that are kept, their number
        without weights.

    Returns
    -------
    array
        A scalar, or for ``"none"`` the shape of ``prediction``; its dtype. Computed one format
        up and rounded once. The value crosses zero: float64 is correct to 3 ULP of the larger of
        its terms; the gradients to :math:`x` and :math:`t` to 2 ULP.

    Raises
    ------
    TypeError
        If the arrays are not floating or differ in dtype.
    ValueError
        If the shapes differ, a variance or ``eps`` is negative, or the reduction is unknown.

    References
    ----------
    D. A. Nix, A. S. Weigend, "Estimating the mean and variance of the target probability
    distribution", ICNN 1994, eq. (5).

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> x, t, var = np.array([0.0, 2.0]), np.zeros(2), np.array([1.0, 4.0])
    >>> lossref.gaussian_nll_loss(x, t, var=var, reduction="none")
    array([0.        , 1.19314718])
    """
    check_same_dtype(prediction=prediction, target=target)
    check_floating(weight=weight)
    check_range("eps", eps, 0.0, high_open=True)
    variance = _variance(var, prediction)
    constant = 0.5 * math.log(2.0 * math.pi) if full else 0.0

    def value(x: Tensor, t: Tensor, v: Tensor) -> Tensor:
        v = v.clamp(min=eps)
        return 0.5 * (torch.log(v) + (x - t).square() / v) + constant

    def slope(x: Tensor, t: Tensor, v: Tensor) -> Tensor:
        return (x - t) / _floor(v, eps)

    def variance_slope(x: Tensor, t: Tensor, v: Tensor) -> Tensor:
        v = _floor(v, eps)
        return 0.5 * (1.0 - (x - t).square() / v) / v

    return elementwise_loss(
        value,
        (slope, lambda x, t, v: -slope(x, t, v), variance_slope),
        {"prediction": prediction, "target": target, "var": variance},
        weight=weight,
        mask=mask,
        divide_by_weight=True,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


def _variance(var: Any, prediction: Tensor) -> Tensor:
    """Variances in the shape of the prediction."""
    if not isinstance(var, Tensor):
        check_range("var", var, 0.0, high_open=True)
        return torch.full_like(prediction, var, dtype=wide_dtype(prediction.dtype))
    check_same_dtype(prediction=prediction, var=var)
    check_values("var", ~(var < 0.0), var, "at least 0")
    if var.ndim == prediction.ndim - 1 and var.shape == prediction.shape[:-1]:
        var = var.unsqueeze(-1)
    return broadcast("var", var, prediction)


def _floor(v: Tensor, eps: float) -> Tensor:
    """The maximum of v and eps, with the gradient of v everywhere."""
    return v + (v.clamp(min=eps) - v).detach()
