"""Weighing the losses of several tasks."""

from __future__ import annotations

import torch

from lossref._arrays import (
    Array,
    check_range,
    check_same_dtype,
    check_shape,
    check_values,
    takes_arrays,
    widen,
)


@takes_arrays
def uncertainty_weighted_loss(losses: Array, log_variances: Array) -> Array:
    r"""Sum of task losses, each weighed by a learned uncertainty.

    .. math::
        L = \sum_i \tfrac12 \bigl(e^{-s_i} L_i + s_i\bigr), \qquad s_i = \log \sigma_i^2

    Parameters
    ----------
    losses : array of shape (T,), floating
        One loss per task.
    log_variances : array of the same shape and dtype
        The learned :math:`s_i`.

    Returns
    -------
    array
        A scalar of the dtype of ``losses``, computed one format up and rounded once; it crosses
        zero, so in float64 it is correct to T + 3 ULP of the largest term. The gradients are
        :math:`\tfrac12 e^{-s_i}` and :math:`\tfrac12 (1 - e^{-s_i} L_i)`.

    Raises
    ------
    TypeError
        If the arrays are not floating or differ in dtype.
    ValueError
        If the shapes differ or are not ``(T,)``.

    References
    ----------
    A. Kendall, Y. Gal, R. Cipolla, "Multi-task learning using uncertainty to weigh losses for
    scene geometry and semantics", CVPR 2018, eq. (7).

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> float(lossref.uncertainty_weighted_loss(np.array([1.0, 4.0]), np.zeros(2)))
    2.5
    """
    dtype = check_same_dtype(losses=losses, log_variances=log_variances)
    check_shape("losses", losses, (losses.numel(),), "one loss per task")
    check_shape("log_variances", log_variances, losses.shape, "the shape of losses")
    s = widen(log_variances)
    return (0.5 * (torch.exp(-s) * widen(losses) + s)).sum().to(dtype)


@takes_arrays
def gradnorm_targets(grad_norms: Array, loss_ratios: Array, *, alpha: float = 1.5) -> Array:
    r"""Gradient norms that GradNorm asks of the tasks.

    .. math::
        \hat G_i = \bar G\, r_i^{\alpha}, \qquad
        \bar G = \frac1T \sum_i G_i, \quad r_i = \frac{\tilde L_i}{\tfrac1T \sum_j \tilde L_j}

    Parameters
    ----------
    grad_norms : array of shape (T,), floating
        Norms :math:`G_i` of the weighted tasks' gradients at the shared layer.
    loss_ratios : array of the same shape and dtype
        :math:`\tilde L_i`, each loss over its value at the start of training, positive.
    alpha : float
        How strongly slower tasks are pulled up, at least 0.

    Returns
    -------
    array
        The targets, of shape ``(T,)`` and the dtype of ``grad_norms``: constants, without a
        gradient, as in the paper's algorithm.

    Raises
    ------
    TypeError
        If the arrays are not floating or differ in dtype.
    ValueError
        If the shapes differ, a norm is negative, a ratio is not positive, or ``alpha`` is
        negative.

    References
    ----------
    Z. Chen, V. Badrinarayanan, C.-Y. Lee, A. Rabinovich, "GradNorm: gradient normalization for
    adaptive loss balancing in deep multitask networks", ICML 2018, eq. (1).

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> lossref.gradnorm_targets(np.array([1.0, 3.0]), np.array([0.5, 1.5]), alpha=1.0)
    array([1., 3.])
    """
    dtype = check_same_dtype(grad_norms=grad_norms, loss_ratios=loss_ratios)
    check_range("alpha", alpha, 0.0)
    check_shape("grad_norms", grad_norms, (grad_norms.numel(),), "one norm per task")
    check_shape("loss_ratios", loss_ratios, grad_norms.shape, "the shape of grad_norms")
    check_values("grad_norms", grad_norms >= 0.0, grad_norms, "at least 0")
    check_values("loss_ratios", loss_ratios > 0.0, loss_ratios, "positive")
    ratios = widen(loss_ratios.detach())
    norms = widen(grad_norms.detach())
    return (norms.mean() * (ratios / ratios.mean()).pow(alpha)).to(dtype)


@takes_arrays
def gradnorm_weights(
    weights: Array,
    grad_norms: Array,
    loss_ratios: Array,
    *,
    alpha: float = 1.5,
    learning_rate: float = 0.025,
) -> Array:
    r"""Task weights after one step of GradNorm.

    .. math::
        w_i' = w_i - \eta\, \lVert \nabla L_i \rVert
            \operatorname{sign}\bigl(w_i \lVert \nabla L_i \rVert - \hat G_i\bigr), \qquad
        w_i \leftarrow T\, \frac{w_i'}{\sum_j w_j'}

    the gradient step on :math:`\sum_i |w_i \lVert \nabla L_i \rVert - \hat G_i|` with the targets
    :math:`\hat G` of :func:`~lossref.gradnorm_targets` held constant, and the renormalization to T.

    Parameters
    ----------
    weights : array of shape (T,), floating
        The present weights :math:`w_i`, positive.
    grad_norms : array of the same shape and dtype
        Norms :math:`\lVert \nabla L_i \rVert` of the gradients of the unweighted losses.
    loss_ratios : array of the same shape and dtype
        Each loss over its value at the start of training, positive.
    alpha : float
        How strongly slower tasks are pulled up, at least 0.
    learning_rate : float
        The step :math:`\eta`. A weight that the step would make negative becomes 0.

    Returns
    -------
    array
        The new weights, which add to T, of shape ``(T,)`` and the dtype of ``weights``; without
        a gradient.

    Raises
    ------
    TypeError
        If the arrays are not floating or differ in dtype.
    ValueError
        If the shapes differ, a value is out of range, or no weight would stay positive.

    References
    ----------
    Z. Chen, V. Badrinarayanan, C.-Y. Lee, A. Rabinovich, "GradNorm: gradient normalization for
    adaptive loss balancing in deep multitask networks", ICML 2018, eq. (2) and algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> ones = np.ones(2)
    >>> lossref.gradnorm_weights(ones, np.array([1.0, 3.0]), ones, learning_rate=0.1)
    array([1.22222222, 0.77777778])
    """
    dtype = check_same_dtype(weights=weights, grad_norms=grad_norms, loss_ratios=loss_ratios)
    check_range("learning_rate", learning_rate, 0.0, high_open=True)
    check_shape("weights", weights, grad_norms.shape, "the shape of grad_norms")
    check_values("weights", weights > 0.0, weights, "positive")
    w, norms = widen(weights.detach()), widen(grad_norms.detach())
    targets = gradnorm_targets(w * norms, widen(loss_ratios.detach()), alpha=alpha)
    step = (w - learning_rate * norms * torch.sign(w * norms - targets)).clamp(min=0.0)
    if len(step) and not bool(step.sum() > 0.0):
        raise ValueError(f"learning_rate {learning_rate!r} is too large: no weight stays positive")
    return (len(step) * step / step.sum()).to(dtype)
