"""Losses over classes: cross-entropy and its relatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lossref._arrays import (
    Array,
    all_within,
    as_torch_dtype,
    check_floating,
    check_integer,
    check_range,
    check_same_dtype,
    check_shape,
    check_values,
    describe,
    takes_arrays,
    wide_dtype,
    widen,
)
from lossref._elementwise import elementwise
from lossref._reduction import (
    REDUCTIONS,
    broadcast,
    check_mask,
    check_reduction,
    divide,
    expected_gradient,
    finish,
)
from lossref._rows import (
    DenseCrossEntropy,
    IndexCrossEntropy,
    LogSumExp,
    SoftenedDivergence,
    index_cross_entropy,
)


@takes_arrays
def cross_entropy(
    logits: Array,
    target: Array,
    *,
    weight: Array | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Cross-entropy between targets and the softmax of logits.

    .. math::
        \ell = -\sum_k w_k\, \tilde t_k \log p_k, \qquad
        \tilde t_k = (1 - \varepsilon)\, t_k + \frac{\varepsilon}{K}, \qquad
        p = \operatorname{softmax}(z)

    where :math:`t` is the target distribution, or 1 at the target index and 0 elsewhere. For a
    target index :math:`y` without smoothing it is computed as
    :math:`w_y\,[(m - z_y) + \log(1 + \sum_{k \ne \arg\max} e^{z_k - m})]` with
    :math:`m = \max_k z_k`: two terms that are never negative. Its gradient is
    :math:`w_y\, p_k`, and at :math:`y` it is :math:`-w_y \sum_{k \ne y} p_k`, not
    :math:`p_y - 1`.

    Parameters
    ----------
    logits : array of shape (C,), (N, C) or (N, C, d1, ...), floating
        Unnormalized log-probabilities; the class axis is 1, as in PyTorch. A logit of
        :math:`-\infty` is a class that is masked out.
    target : array
        Class indices, an integer array with the shape of ``logits`` without the class axis; or
        probabilities, a floating array with the shape of ``logits``.
    weight : array of shape (C,), optional
        Class weights, constants of the loss. A class of weight 0 is left out altogether.
    ignore_index : int
        Targets that are left out: they touch neither value nor gradient. For indices only.
    label_smoothing : float
        :math:`\varepsilon` in [0, 1].
    reduction : {"none", "mean", "sum"}
        The mean divides by :math:`\sum_i w_{y_i}` over the targets that are kept (their number,
        without weights); for probability targets by the number of distributions. These are
        PyTorch's denominators.

    Returns
    -------
    array
        A scalar, or for ``"none"`` the shape of ``logits`` without the class axis; the dtype of
        ``logits``. With ``reduction="none"`` and index targets, value and gradient are correct
        to 1 ULP in float16, bfloat16 and float32; in float64 the value to 3 ULP and the
        gradient to 4 (a weight adds 1 to each). Smoothed and probability targets are as exact,
        save that in float64 the coefficients :math:`w_k \tilde t_k` have a rounding error of
        their own, which adds 2 ULP to the value, and that each gradient entry
        :math:`(\sum_j w_j \tilde t_j)\,p_k - w_k \tilde t_k`, which crosses zero, has an
        absolute error of at most 6 ULP of the larger term (one format up for the narrow
        formats).

    Raises
    ------
    TypeError
        If ``logits`` is not floating, or ``target`` neither integer nor floating.
    ValueError
        If a shape does not fit, an index is outside [0, C) and not ``ignore_index``,
        ``label_smoothing`` is outside [0, 1], or the reduction is unknown.

    Notes
    -----
    Where a gradient to the logits is wanted, a sum or mean over index targets computes it with
    the value and keeps it, one array of the size of the logits, for the first backward pass. If the
    loss is then multiplied by anything but a power of two in (0, 1], or passed through again, it is
    computed anew, so that it is still rounded once.

    References
    ----------
    I. J. Good, "Rational decisions", Journal of the Royal Statistical Society B 14(1), 1952,
    section 6. Label smoothing: C. Szegedy et al., "Rethinking the Inception architecture for
    computer vision", CVPR 2016, section 7.

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> logits = np.array([[2.0, 0.0], [0.0, 100.0]])
    >>> lossref.cross_entropy(logits, np.array([0, 1]), reduction="none")
    array([1.26928011e-01, 3.72007598e-44])
    >>> target = np.array([[0.5, 0.5], [0.0, 1.0]])
    >>> round(float(lossref.cross_entropy(logits, target, label_smoothing=0.1)), 6)
    3.063464
    """
    check_reduction(reduction, denominator)
    check_range("label_smoothing", label_smoothing, 0.0, 1.0)
    blocks, shape = class_blocks(logits)
    weight = check_class_weight(weight, blocks)
    if isinstance(target, Tensor) and target.is_floating_point():
        check_floating(target=target)
        check_shape("target", target, logits.shape, "the shape of logits, for probabilities")
        targets, _ = class_rows(target)
        keep = torch.ones(len(targets), dtype=torch.bool, device=targets.device)
        losses = _dense_cross_entropy(logits, targets, keep, weight, label_smoothing)
    else:
        index, keep, row_weight = index_targets(target, shape, blocks, weight, ignore_index)
        if reduction == "mean" and denominator is None:
            denominator = row_weight.sum()
        if label_smoothing > 0:
            # A class of weight 0 is a target here like others: its smoothed part remains.
            keep = target.reshape(-1) != ignore_index
            losses = _dense_cross_entropy(logits, index.reshape(-1), keep, weight, label_smoothing)
        else:
            expected = expected_gradient(row_weight, reduction, denominator)
            losses = index_cross_entropy(blocks, index, keep, expected) * row_weight
    return finish(
        losses.reshape(shape),
        reduction,
        dtype=logits.dtype,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


def _dense_cross_entropy(
    logits: Tensor, target: Tensor, keep: Tensor, weight: Tensor | None, smoothing: float
) -> Tensor:
    rows, _ = class_rows(logits)
    weights = None if weight is None else weight.expand(rows.shape)
    losses: Tensor = DenseCrossEntropy.apply(rows, target, keep, weights, float(smoothing))
    return losses


def class_rows(logits: Any, name: str = "logits") -> tuple[Tensor, torch.Size]:
    """Logits as rows over the classes, and the shape of one loss per row."""
    check_class_axis(logits, name)
    moved = logits.movedim(min(1, logits.ndim - 1), -1)
    return moved.reshape(-1, moved.shape[-1]), moved.shape[:-1]


def class_blocks(logits: Any, name: str = "logits") -> tuple[Tensor, torch.Size]:
    """Logits as (N, C), or (N, C, S) with positions left where they are; a loss's shape as above.

    Unlike rows, positions cost no copy.
    """
    check_class_axis(logits, name)
    if logits.ndim == 1:
        return logits.unsqueeze(0), torch.Size()
    shape = torch.Size((logits.shape[0], *logits.shape[2:]))
    return logits if logits.ndim == 2 else logits.flatten(2), shape


def check_class_axis(logits: Any, name: str) -> None:
    """Require floating logits with at least one class."""
    check_floating(**{name: logits})
    if logits.ndim == 0:
        raise ValueError(f"{name} must have a class axis: (C,), (N, C) or (N, C, d1, ...), not ()")
    if logits.shape[min(1, logits.ndim - 1)] == 0:
        raise ValueError(f"{name} must have at least one class, but is {describe(logits)}")


def check_class_weight(weight: Any, rows: Tensor) -> Tensor | None:
    """Require one weight per class; they are constants of the loss."""
    if weight is None:
        return None
    check_floating(weight=weight)
    check_shape("weight", weight, rows.shape[1:2], "one weight per class")
    return widen(weight).to(wide_dtype(rows.dtype)).detach()


def index_targets(
    target: Any, shape: torch.Size, rows: Tensor, weight: Tensor | None, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Class indices as rows or blocks (0 where ignored), which to keep, and the weight of each."""
    check_integer(target=target)
    check_shape("target", target, shape, "that of logits without the class axis, for indices")
    classes = rows.shape[1]
    y = target.reshape(rows.shape[:1] + rows.shape[2:]).long()
    keep = y != int(ignore_index)
    if not all_within(y, 0, classes - 1):
        valid = ~keep | ((y >= 0) & (y < classes))
        expected = f"class indices in [0, {classes}), or ignore_index={int(ignore_index)}"
        check_values("target", valid, y, expected)
    index = torch.where(keep, y, 0)
    if weight is None:
        return index, keep, keep.to(wide_dtype(rows.dtype))
    row_weight = torch.where(keep, weight[index], 0.0)
    return index, keep & (row_weight != 0.0), row_weight


@takes_arrays
def nll_loss(
    log_probs: Array,
    target: Array,
    *,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Negative log-likelihood of class indices under log-probabilities.

    .. math::
        \ell = -w_y \log p_y

    Parameters
    ----------
    log_probs : array of shape (C,), (N, C) or (N, C, d1, ...), floating
        Log-probabilities; the class axis is 1.
    target : integer array
        Class indices, with the shape of ``log_probs`` without the class axis.
    weight : array of shape (C,), optional
        Class weights, constants of the loss. A class of weight 0 is left out altogether.
    ignore_index : int
        Targets that are left out: they touch neither value nor gradient.
    reduction : {"none", "mean", "sum"}
        The mean divides by :math:`\sum_i w_{y_i}` over the targets that are kept.

    Returns
    -------
    array
        A scalar, or for ``"none"`` the shape of ``target``; the dtype of ``log_probs``. One
        multiplication, correctly rounded.

    Raises
    ------
    TypeError
        If ``log_probs`` is not floating, or ``target`` not integer.
    ValueError
        If a shape does not fit, an index is out of range, or the reduction is unknown.

    References
    ----------
    R. A. Fisher, "On the mathematical foundations of theoretical statistics", Philosophical
    Transactions of the Royal Society A 222, 1922, section 6.

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> log_probs = np.log(np.array([[0.5, 0.5], [0.25, 0.75]]))
    >>> round(float(lossref.nll_loss(log_probs, np.array([0, 0]))), 6)
    1.039721
    """
    check_reduction(reduction, denominator)
    rows, shape = class_rows(log_probs, "log_probs")
    weight = check_class_weight(weight, rows)
    index, keep, row_weight = index_targets(target, shape, rows, weight, ignore_index)
    picked = widen(rows.gather(-1, index.unsqueeze(-1)).squeeze(-1))
    losses = torch.where(keep, -picked, 0.0) * row_weight
    if reduction == "mean" and denominator is None:
        denominator = row_weight.sum()
    return finish(
        losses.reshape(shape),
        reduction,
        dtype=log_probs.dtype,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


@takes_arrays
def kl_div(
    log_probs: Array,
    target: Array,
    *,
    log_target: bool = False,
    reduction: str = "batchmean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Kullback-Leibler divergence of predicted log-probabilities from a target distribution.

    .. math::
        \ell_k = t_k\,(\log t_k - \log p_k), \qquad
        \operatorname{KL}(t \,\|\, p) = \sum_k \ell_k

    with :math:`0 \log 0 = 0`, and infinity where :math:`p_k = 0 < t_k`.

    Parameters
    ----------
    log_probs : array of any shape, floating
        Predicted log-probabilities :math:`\log p`, as in PyTorch: not logits, not probabilities.
    target : array of the same shape and dtype
        Probabilities :math:`t`, or :math:`\log t` with ``log_target``.
    log_target : bool
        Whether the target is given by its logarithm.
    reduction : {"batchmean", "mean", "sum", "none"}
        ``"batchmean"``, the default, divides the sum by the length of axis 0 and is the
        divergence as defined. ``"mean"``, PyTorch's default, divides by the number of entries,
        classes included, and is smaller by the factor C.
    denominator : number or 0-d array, optional
        What either mean divides by instead.

    Returns
    -------
    array
        A scalar, or for ``"none"`` the shape of ``log_probs``; its dtype. Entries cross zero
        where :math:`t_k = p_k`, so the bound is absolute: 3 ULP of the larger of
        :math:`|t_k \log t_k|` and :math:`|t_k \log p_k|`, one format up for the narrow formats,
        and then one rounding. For nearly equal distributions given by logits,
        :func:`~lossref.distillation_loss` keeps relative accuracy.

    Raises
    ------
    TypeError
        If the arrays are not floating or differ in dtype.
    ValueError
        If the shapes differ, a target probability is negative, or the reduction is unknown.

    References
    ----------
    S. Kullback, R. A. Leibler, "On information and sufficiency", Annals of Mathematical
    Statistics 22(1), 1951, eq. (2.4).

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> log_probs = np.log(np.array([[0.5, 0.5]]))
    >>> round(float(lossref.kl_div(log_probs, np.array([[1.0, 0.0]]))), 6)
    0.693147
    """
    check_reduction(reduction, denominator, ("batchmean", *REDUCTIONS))
    dtype = check_same_dtype(log_probs=log_probs, target=target)
    check_shape("target", target, log_probs.shape, "the shape of log_probs")
    if log_target:
        losses = elementwise(_log_kl, (_log_kl_slope, _log_kl_target_slope), log_probs, target)
    else:
        check_values("target", ~(target < 0), target, "probabilities, at least 0")
        losses = elementwise(_kl, (_kl_slope, _kl_target_slope), log_probs, target)
    if reduction == "batchmean":
        if log_probs.ndim == 0:
            raise ValueError("log_probs must have a batch axis for reduction='batchmean', not ()")
        rows = log_probs.shape[0] if denominator is None else denominator
        return divide(losses.sum(), rows, nan_if_empty).to(dtype)
    return finish(
        losses, reduction, dtype=dtype, denominator=denominator, nan_if_empty=nan_if_empty
    )


def _kl(x: Tensor, t: Tensor) -> Tensor:
    return torch.where(t == 0.0, 0.0, t * (torch.log(t) - x))


def _kl_slope(x: Tensor, t: Tensor) -> Tensor:
    return -t


def _kl_target_slope(x: Tensor, t: Tensor) -> Tensor:
    return torch.log(t) + 1.0 - x


def _log_kl(x: Tensor, s: Tensor) -> Tensor:
    t = torch.exp(s)
    return torch.where(t == 0.0, 0.0, t * (s - x))


def _log_kl_slope(x: Tensor, s: Tensor) -> Tensor:
    return -torch.exp(s)


def _log_kl_target_slope(x: Tensor, s: Tensor) -> Tensor:
    t = torch.exp(s)
    return torch.where(t == 0.0, 0.0, t * (s - x + 1.0))


@takes_arrays
def smooth_labels(
    target: Array, num_classes: int | None = None, *, epsilon: float, dtype: Any = None
) -> Array:
    r"""Mix a target with the uniform distribution.

    .. math::
        \tilde t_k = (1 - \varepsilon)\, t_k + \frac{\varepsilon}{K}

    Parameters
    ----------
    target : array
        Class indices of shape ``()``, ``(N,)`` or ``(N, d1, ...)``; or probabilities
        ``(N, C, ...)``, floating.
    num_classes : int
        The number of classes K; may be left out for probabilities.
    epsilon : float
        The share of the uniform distribution, in [0, 1].
    dtype : dtype, optional
        Of the result, for class indices; by default PyTorch's default dtype, float32.
        Probabilities keep theirs.

    Returns
    -------
    array
        Probabilities of shape ``(C,)``, ``(N, C)`` or ``(N, C, d1, ...)``, correctly rounded in
        float16, bfloat16 and float32, and to 2 ULP in float64.

    Raises
    ------
    TypeError
        If ``target`` is neither integer nor floating.
    ValueError
        If ``epsilon`` is outside [0, 1], an index outside [0, C), or the classes do not fit.

    References
    ----------
    C. Szegedy et al., "Rethinking the Inception architecture for computer vision", CVPR 2016,
    section 7.

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> lossref.smooth_labels(np.array([0, 2]), 4, epsilon=0.2, dtype=np.float64)
    array([[0.85, 0.05, 0.05, 0.05],
           [0.05, 0.05, 0.85, 0.05]])
    """
    check_range("epsilon", epsilon, 0.0, 1.0)
    if isinstance(target, Tensor) and target.is_floating_point():
        rows, _ = class_rows(target, "target")
        if num_classes not in (None, rows.shape[1]):
            raise ValueError(
                f"num_classes is {num_classes}, but target has {rows.shape[1]} classes: "
                f"shape {tuple(target.shape)}"
            )
        smoothed = widen(target) * (1.0 - epsilon) + epsilon / rows.shape[1]
        return smoothed.to(target.dtype)
    check_integer(target=target)
    if not isinstance(num_classes, int) or num_classes < 1:
        raise ValueError(f"num_classes must be an integer of at least 1, got {num_classes!r}")
    valid = (target >= 0) & (target < num_classes)
    check_values("target", valid, target, f"class indices in [0, {num_classes})")
    share = epsilon / num_classes
    smoothed = torch.full(
        (*target.shape, num_classes), share, dtype=torch.float64, device=target.device
    ).scatter_(-1, target.long().unsqueeze(-1), (1.0 - epsilon) + share)
    result = smoothed.to(as_torch_dtype(dtype))
    return result.movedim(-1, 1) if target.ndim else result


@takes_arrays
def distillation_loss(
    student_logits: Array,
    teacher_logits: Array,
    *,
    temperature: float = 1.0,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Divergence of a student's softened probabilities from a teacher's.

    .. math::
        \ell = T^2 \operatorname{KL}(p \,\|\, q) = T^2 \sum_k p_k\,(\delta_k + e^{-\delta_k} - 1),
        \qquad \delta_k = \log p_k - \log q_k,

    where :math:`p` and :math:`q` are the softmax of the teacher's and the student's logits
    divided by :math:`T`. The second form has terms that are never negative, so the divergence of
    nearly equal distributions keeps its digits.

    Parameters
    ----------
    student_logits : array of shape (C,), (N, C) or (N, C, d1, ...), floating
        The class axis is 1.
    teacher_logits : array of the same shape and dtype
        A constant of the loss: the teacher gets no gradient.
    temperature : float
        :math:`T > 0`. The factor :math:`T^2` keeps the gradient's size as :math:`T` grows.
    reduction : {"none", "mean", "sum"}
        The mean divides by the number of distributions, N times the positions.

    Returns
    -------
    array
        A scalar, or for ``"none"`` the shape of ``student_logits`` without the class axis; its
        dtype. Correct to 1 ULP in float16, bfloat16 and float32. In float64, with logits of at
        most :math:`S T` and :math:`S \le 350`, the value is correct to :math:`32 + S` ULP, and
        the gradient :math:`T (q_k - p_k)` to :math:`8 + S` ULP of the larger of
        :math:`T |q_k - p_k|` and :math:`T p_k |\log (p/q)|_\infty`, also where one row is the
        other plus a constant, but for the last digits.

    Raises
    ------
    TypeError
        If the logits are not floating or differ in dtype.
    ValueError
        If the shapes differ, ``temperature`` is not positive, or the reduction is unknown.

    References
    ----------
    G. Hinton, O. Vinyals, J. Dean, "Distilling the knowledge in a neural network",
    arXiv:1503.02531, 2015, section 2.

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> student, teacher = np.array([[0.0, 1e-9]]), np.array([[0.0, 0.0]])
    >>> float(lossref.distillation_loss(student, teacher))
    1.25e-19
    """
    check_reduction(reduction, denominator)
    dtype = check_same_dtype(student_logits=student_logits, teacher_logits=teacher_logits)
    check_range("temperature", temperature, 0.0, low_open=True, high_open=True)
    check_shape("teacher_logits", teacher_logits, student_logits.shape, "that of student_logits")
    student, shape = class_rows(student_logits, "student_logits")
    teacher, _ = class_rows(teacher_logits, "teacher_logits")
    losses = SoftenedDivergence.apply(student, teacher.detach(), float(temperature))
    return finish(
        losses.reshape(shape),
        dtype=dtype,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


@takes_arrays
def generalized_cross_entropy(
    logits: Array,
    target: Array,
    *,
    q: float = 0.7,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Generalized cross-entropy, robust to wrong labels.

    .. math::
        \ell = w_y\,\frac{1 - p_y^{\,q}}{q}, \qquad p = \operatorname{softmax}(z)

    Between the cross-entropy (:math:`q \to 0`) and the absolute error (:math:`q = 1`).

    Parameters
    ----------
    logits : array of shape (C,), (N, C) or (N, C, d1, ...), floating
        The class axis is 1.
    target : integer array
        Class indices, with the shape of ``logits`` without the class axis.
    q : float
        In [0, 1]; 0 gives the cross-entropy.
    weight : array of shape (C,), optional
        Class weights, constants of the loss.
    ignore_index : int
        Targets that are left out: they touch neither value nor gradient.
    reduction : {"none", "mean", "sum"}
        The mean divides by the sum of the weights of the targets that are kept.

    Returns
    -------
    array
        A scalar, or for ``"none"`` the shape of ``target``; the dtype of ``logits``. Value and
        gradient are correct to 1 ULP in float16, bfloat16 and float32; in float64 the value to 6
        ULP, and the gradient, :math:`p_y^q` times that of the cross-entropy, to 6 plus
        :math:`2 q \ell_{CE}` ULP.

    Raises
    ------
    TypeError
        If ``logits`` is not floating, or ``target`` not integer.
    ValueError
        If a shape does not fit, an index or ``q`` is out of range, or the reduction unknown.

    References
    ----------
    Z. Zhang, M. R. Sabuncu, "Generalized cross entropy loss for training deep neural networks
    with noisy labels", NeurIPS 2018, eq. (6).

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> round(float(lossref.generalized_cross_entropy(np.zeros((1, 2)), np.array([0]), q=0.5)), 6)
    0.585786
    """
    check_reduction(reduction, denominator)
    check_range("q", q, 0.0, 1.0)
    rows, shape = class_rows(logits)
    weight = check_class_weight(weight, rows)
    index, keep, row_weight = index_targets(target, shape, rows, weight, ignore_index)
    losses = IndexCrossEntropy.apply(rows, index, keep)
    if q > 0:
        losses = elementwise(
            lambda loss: -torch.expm1(-q * loss) / q, (lambda loss: torch.exp(-q * loss),), losses
        )
    return finish(
        losses.reshape(shape),
        weight=row_weight.reshape(shape),
        divide_by_weight=True,
        dtype=logits.dtype,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


@takes_arrays
def z_loss(
    logits: Array,
    *,
    mask: Array | None = None,
    reduction: str = "mean",
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Square of the log-sum-exp, which keeps logits from drifting.

    .. math::
        \ell = \Bigl(\log \sum_k e^{z_k}\Bigr)^2

    Parameters
    ----------
    logits : array of shape (C,), (N, C) or (N, C, d1, ...), floating
        The class axis is 1.
    mask : boolean array, optional
        True where a row counts, broadcast to the shape of ``logits`` without the class axis. Rows
        left out touch neither value nor gradient, even if they hold NaN or infinity.
    reduction : {"none", "mean", "sum"}
        The mean divides by the number of rows that the mask keeps.

    Returns
    -------
    array
        A scalar, or for ``"none"`` the shape of ``logits`` without the class axis; its dtype.
        Twice the relative error of :func:`~lossref.logsumexp`: 1 ULP in float16, bfloat16 and
        float32 and 6 in float64, except near the zero of the log-sum-exp, as stated there.

    Raises
    ------
    TypeError
        If ``logits`` is not floating.
    ValueError
        If a shape does not fit or the reduction is unknown.

    References
    ----------
    B. Zoph et al., "ST-MoE: designing stable and transferable sparse expert models",
    arXiv:2202.08906, 2022, eq. (5); A. Chowdhery et al., "PaLM: scaling language modeling with
    pathways", JMLR 24, 2023, section 5.

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> round(float(lossref.z_loss(np.zeros((1, 2)))), 6)
    0.480453
    """
    check_reduction(reduction, denominator)
    rows, shape = class_rows(logits)
    if mask is not None:
        mask = broadcast("mask", check_mask(mask), logits.select(min(1, logits.ndim - 1), 0))
        rows = torch.where(mask.reshape(-1, 1), rows, 0.0)
    losses = LogSumExp.apply(rows).square().reshape(shape)
    if mask is not None:
        losses = torch.where(mask, losses, 0.0)
    return finish(
        losses,
        mask=mask,
        dtype=logits.dtype,
        reduction=reduction,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )
