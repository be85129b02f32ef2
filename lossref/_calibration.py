"""How well predicted probabilities match frequencies."""

from __future__ import annotations

import torch

from lossref._arrays import (
    Array,
    check_floating,
    check_integer,
    check_interval,
    check_shape,
    check_values,
    takes_arrays,
)


@takes_arrays
def expected_calibration_error(probs: Array, target: Array, *, bins: int = 15) -> Array:
    r"""Expected calibration error over bins of equal width.

    .. math::
        \operatorname{ECE} = \sum_{b} \frac{|B_b|}{N}\,
            \bigl|\operatorname{acc}(B_b) - \operatorname{conf}(B_b)\bigr|

    A sample belongs to the bin :math:`(b/B, (b+1)/B]` of its top probability (the first bin
    holds 0 too). It is a measure, not a loss: it has no gradient.

    Parameters
    ----------
    probs : array of shape (N, C) or (N,), floating
        Probabilities of the classes; or of shape (N,), of the positive class of two, where the
        top probability is the larger of p and 1 - p, and a tie predicts the positive class.
    target : integer array of shape (N,)
        The true classes.
    bins : int
        The number B of bins.

    Returns
    -------
    array
        A scalar of the dtype of ``probs``, computed in float64 and rounded once; 0 without
        samples. Bin edges are the exact quotients b/B rounded to float64.

    Raises
    ------
    TypeError
        If ``probs`` is not floating, or ``target`` not integer.
    ValueError
        If a shape does not fit, a probability is outside [0, 1], a target is not a class, or
        ``bins`` is not a positive integer.

    References
    ----------
    C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks",
    ICML 2017, eq. (3).

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> probs = np.array([[0.75, 0.25], [0.75, 0.25]])
    >>> float(lossref.expected_calibration_error(probs, np.array([0, 1])))
    0.25
    """
    check_floating(probs=probs)
    check_integer(target=target)
    if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
        raise ValueError(f"bins must be a positive integer, got {bins!r}")
    if probs.ndim not in (1, 2) or probs.shape[-1] == 0 < probs.ndim - 1:
        raise ValueError(f"probs must have shape (N, C) or (N,), but has {tuple(probs.shape)}")
    check_shape("target", target, probs.shape[:1], "one class per sample")
    check_interval("probs", probs, 0.0, 1.0)
    p = probs.detach().double()
    if p.ndim == 1:
        p = torch.stack([1.0 - p, p], -1).flip(-1)
        target = 1 - target
    check_values(
        "target", (target >= 0) & (target < p.shape[1]), target, f"classes in [0, {p.shape[1]})"
    )
    confidence, predicted = p.max(-1)
    edges = torch.arange(1, bins, device=p.device, dtype=torch.float64) / bins
    of_sample = torch.bucketize(confidence, edges)
    # Only each bin's sums matter: |acc - conf| weighted by its size is |hits - confidences|.
    excess = (predicted == target).double() - confidence
    gap = torch.zeros(bins, dtype=torch.float64, device=p.device).index_add_(0, of_sample, excess)
    return (gap.abs().sum() / max(1, len(p))).to(probs.dtype)
