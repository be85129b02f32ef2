"""Stable building blocks: log-sum-exp, softmax, the sigmoid and their logarithms."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lossref._arrays import Array, check_floating, describe, normalize_axis, takes_arrays
from lossref._elementwise import elementwise
from lossref._rows import LogSoftmax, LogSumExp, Softmax


@takes_arrays
def logsumexp(x: Array, *, axis: int = -1, keepdims: bool = False) -> Array:
    r"""Logarithm of the sum of exponentials along an axis.

    .. math::
        \log \sum_k e^{x_k} = m + \log\Bigl(1 + \sum_{k \ne \arg\max} e^{x_k - m}\Bigr),
        \qquad m = \max_k x_k

    Parameters
    ----------
    x : array, floating
        Entries may be infinite: :math:`-\infty` adds nothing, and a slice of nothing but
        :math:`-\infty` gives :math:`-\infty`.
    axis : int
        The axis that is summed over.
    keepdims : bool
        Keep the axis, with length 1.

    Returns
    -------
    array
        The shape of ``x`` without the axis, and the dtype of ``x``. Correct to 1 ULP in float16,
        bfloat16 and float32, to 3 ULP in float64, except near its zero, where :math:`m` and the
        logarithm cancel: there to 3 ULP of :math:`m` (one format up for the narrow formats). The
        gradient is the softmax, to 1 ULP, or 4 in float64.

    Raises
    ------
    TypeError
        If ``x`` is not a floating array.
    ValueError
        If the axis does not exist or is empty.

    References
    ----------
    P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and softmax
    functions", IMA Journal of Numerical Analysis 41(4), 2021, eq. (1.4) and section 5.

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> float(lossref.logsumexp(np.array([1000.0, 1000.0])))
    1000.6931471805599
    """
    rows, shape, axis = _rows(x, axis)
    result = LogSumExp.apply(rows).to(x.dtype).reshape(shape)
    return result.unsqueeze(axis) if keepdims else result


@takes_arrays
def softmax(x: Array, *, axis: int = -1) -> Array:
    r"""Probabilities proportional to the exponentials along an axis.

    .. math::
        p_k = \frac{e^{x_k - m}}{\sum_j e^{x_j - m}}, \qquad m = \max_j x_j

    Parameters
    ----------
    x : array, floating
        Logits. :math:`-\infty` gets probability 0; entries at :math:`+\infty` share it equally;
        a slice of nothing but :math:`-\infty` has no distribution and gives NaN.
    axis : int
        The axis along which the probabilities add to 1.

    Returns
    -------
    array
        The shape and dtype of ``x``. Correct to 1 ULP in float16, bfloat16 and float32, and to
        4 ULP in float64.

    Raises
    ------
    TypeError
        If ``x`` is not a floating array.
    ValueError
        If the axis does not exist or is empty.

    References
    ----------
    J. S. Bridle, "Probabilistic interpretation of feedforward classification network outputs",
    Neurocomputing, NATO ASI F 68, 1990, eq. (13).

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> lossref.softmax(np.array([0.0, 0.0, -np.inf]))
    array([0.5, 0.5, 0. ])
    """
    rows, _, axis = _rows(x, axis)
    return _restore(Softmax.apply(rows).to(x.dtype), x, axis)


@takes_arrays
def log_softmax(x: Array, *, axis: int = -1) -> Array:
    r"""Logarithms of the softmax along an axis.

    .. math::
        \log p_k = -\Bigl[(m - x_k)
            + \log\Bigl(1 + \sum_{j \ne \arg\max} e^{x_j - m}\Bigr)\Bigr],
        \qquad m = \max_j x_j

    Both terms have one sign, so nothing cancels: a certain class keeps a logarithm such as
    :math:`-10^{-30}`, which ``x - logsumexp(x)`` rounds to 0.

    Parameters
    ----------
    x : array, floating
        Logits, which may be infinite as for :func:`~lossref.softmax`.
    axis : int
        The axis along which the probabilities add to 1.

    Returns
    -------
    array
        The shape and dtype of ``x``. Correct to 1 ULP in float16, bfloat16 and float32, and to
        3 ULP in float64.

    Raises
    ------
    TypeError
        If ``x`` is not a floating array.
    ValueError
        If the axis does not exist or is empty.

    References
    ----------
    P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and softmax
    functions", IMA Journal of Numerical Analysis 41(4), 2021, section 5.

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> lossref.log_softmax(np.array([0.0, 100.0]))
    array([-1.00000000e+02, -3.72007598e-44])
    """
    rows, _, axis = _rows(x, axis)
    return _restore(LogSoftmax.apply(rows).to(x.dtype), x, axis)


def _rows(x: Tensor, axis: int) -> tuple[Tensor, torch.Size, int]:
    """The array as rows along the axis, and the shape without it."""
    check_floating(x=x)
    axis = normalize_axis(axis, x)
    if x.shape[axis] == 0:
        raise ValueError(f"x must have entries along axis {axis}, but is {describe(x)}")
    moved = x.movedim(axis, -1)
    return moved.reshape(-1, x.shape[axis]), moved.shape[:-1], axis


def _restore(rows: Tensor, x: Tensor, axis: int) -> Tensor:
    return rows.reshape(x.movedim(axis, -1).shape).movedim(-1, axis)


def decay(x: Tensor) -> Tensor:
    """e^-|x|, which cannot overflow; at 0 with a derivative from one side, as its users need."""
    if torch.is_grad_enabled():
        return torch.exp(torch.where(x >= 0.0, -x, x))
    return x.abs().neg_().exp_()


def stable_sigmoid(x: Tensor) -> Tensor:
    """The sigmoid by e^-|x|, which keeps subnormal probabilities."""
    z = decay(x)
    return torch.where(x >= 0.0, 1.0, z) / (1.0 + z)


def sigmoid_slope(x: Tensor) -> Tensor:
    """The derivative of the sigmoid, σ(x) σ(-x)."""
    return stable_sigmoid(x) * stable_sigmoid(-x)


def stable_softplus(x: Tensor) -> Tensor:
    """log(1 + e^x) as two terms that are never negative."""
    return x.clamp(min=0.0) + torch.log1p(decay(x))


def stable_log1mexp(x: Tensor) -> Tensor:
    """log(1 - e^x): by expm1 near 0 and by log1p far from it, as Mächler shows."""
    near = x > -0.6931471805599453
    close = torch.log(-torch.expm1(torch.where(near, x, -1.0)))
    return torch.where(near, close, torch.log1p(-torch.exp(torch.where(near, -1.0, x))))


def _log1mexp_slope(x: Tensor) -> Tensor:
    """The derivative -e^x / (1 - e^x), with no e^-x, which overflows."""
    return torch.where(x > 0.0, torch.nan, -torch.exp(x) / torch.expm1(x).abs())


@takes_arrays
def sigmoid(x: Array) -> Array:
    r"""Logistic sigmoid, entry by entry.

    .. math::
        \sigma(x) = \frac{1}{1 + e^{-x}}

    Parameters
    ----------
    x : array, floating
        Logits.

    Returns
    -------
    array
        The shape and dtype of ``x``. Correct to 1 ULP in float16, bfloat16 and float32, and to
        3 ULP in float64, subnormal probabilities included; so is the gradient
        :math:`\sigma(x)\,\sigma(-x)`, to 4 ULP in float64.

    Raises
    ------
    TypeError
        If ``x`` is not a floating array.

    References
    ----------
    D. R. Cox, "The regression analysis of binary sequences", Journal of the Royal Statistical
    Society B 20(2), 1958, eq. (1).

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> lossref.sigmoid(np.array([-740.0, 0.0]))
    array([4.2e-322, 5.0e-001])
    """
    return _apply(x, stable_sigmoid, sigmoid_slope)


@takes_arrays
def log_sigmoid(x: Array) -> Array:
    r"""Logarithm of the sigmoid, entry by entry.

    .. math::
        \log \sigma(x) = -\log(1 + e^{-x}) = \min(x, 0) - \log(1 + e^{-|x|})

    Parameters
    ----------
    x : array, floating
        Logits.

    Returns
    -------
    array
        The shape and dtype of ``x``. Correct to 1 ULP in float16, bfloat16 and float32, and to
        3 ULP in float64; the gradient is :math:`\sigma(-x)`.

    Raises
    ------
    TypeError
        If ``x`` is not a floating array.

    References
    ----------
    M. Mächler, "Accurately computing log(1 - exp(-\|a\|))", the R package Rmpfr, 2012, eq. (10).

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> lossref.log_sigmoid(np.array([-1000.0, 100.0]))
    array([-1.00000000e+03, -3.72007598e-44])
    """
    return _apply(x, lambda v: -stable_softplus(-v), lambda v: stable_sigmoid(-v))


@takes_arrays
def softplus(x: Array) -> Array:
    r"""Smooth rectifier, entry by entry.

    .. math::
        \operatorname{softplus}(x) = \log(1 + e^{x}) = \max(x, 0) + \log(1 + e^{-|x|})

    Parameters
    ----------
    x : array, floating
        Logits.

    Returns
    -------
    array
        The shape and dtype of ``x``. Correct to 1 ULP in float16, bfloat16 and float32, and to
        3 ULP in float64, with no threshold above which the formula changes; the gradient is
        :math:`\sigma(x)`.

    Raises
    ------
    TypeError
        If ``x`` is not a floating array.

    References
    ----------
    C. Dugas et al., "Incorporating second-order functional knowledge for better option pricing",
    NIPS 13, 2000, eq. (3).

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> lossref.softplus(np.array([-100.0, 0.0, 1000.0]))
    array([3.72007598e-44, 6.93147181e-01, 1.00000000e+03])
    """
    return _apply(x, stable_softplus, stable_sigmoid)


@takes_arrays
def log1mexp(x: Array) -> Array:
    r"""Logarithm of a complement from a logarithm: ``log(1 - p)`` from ``x = log(p)``.

    .. math::
        \operatorname{log1mexp}(x) = \log(1 - e^{x}), \qquad x \le 0

    The sign is Stan's; JAX and R write the argument negated.

    Parameters
    ----------
    x : array, floating
        Logarithms of probabilities, at most 0. At 0 the value is :math:`-\infty`; above 0 there
        is no logarithm and the value is NaN.

    Returns
    -------
    array
        The shape and dtype of ``x``. Correct to 1 ULP in float16, bfloat16 and float32. In
        float64 to 3 ULP, except near :math:`-\log 2`, where half a format's rounding of the
        exponential is amplified: there to 4 ULP. The gradient is
        :math:`-e^x / (1 - e^x)`.

    Raises
    ------
    TypeError
        If ``x`` is not a floating array.

    References
    ----------
    M. Mächler, "Accurately computing log(1 - exp(-\|a\|))", the R package Rmpfr, 2012, eq. (7).

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> lossref.log1mexp(np.array([-1e-20, -50.0]))
    array([-4.60517019e+01, -1.92874985e-22])
    """
    return _apply(x, stable_log1mexp, _log1mexp_slope)


def _apply(
    x: Tensor, value: Callable[[Tensor], Tensor], slope: Callable[[Tensor], Tensor]
) -> Tensor:
    check_floating(x=x)
    return elementwise(value, (slope,), x).to(x.dtype)
