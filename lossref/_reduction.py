"""Turning losses into one number."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lossref._arrays import (
    Array,
    check_floating,
    check_range,
    describe,
    takes_arrays,
    widen,
)

REDUCTIONS = ("none", "mean", "sum")


@takes_arrays
def reduce(
    losses: Array,
    reduction: str,
    *,
    weight: Array | None = None,
    mask: Array | None = None,
    denominator: float | Array | None = None,
    nan_if_empty: bool = False,
) -> Array:
    r"""Reduce losses to their sum or mean, or weight and mask them alone.

    With weights :math:`w_i` (1 by default) over the entries that the mask keeps,

    .. math::
        \text{sum} = \sum_i w_i \ell_i, \qquad
        \text{mean} = \frac{\sum_i w_i \ell_i}{\sum_i w_i}

    Parameters
    ----------
    losses : array of any shape, floating
        One loss per entry.
    reduction : {"none", "mean", "sum"}
        ``"none"`` returns :math:`w_i \ell_i`, and 0 where the mask is False.
    weight : array, optional
        Weights, broadcast to the shape of ``losses``.
    denominator : number or 0-d array, optional
        What the mean divides by, in place of the sum of the weights: the count over all
        micro-batches or workers.

    Returns
    -------
    array
        A scalar, or for ``"none"`` the shape of ``losses``; the dtype of ``losses``. Sums are
        accumulated one format up, so a float16 mean does not overflow.

    Raises
    ------
    ValueError
        For an unknown reduction, a shape that does not broadcast, a negative denominator, or a
        denominator without ``reduction="mean"``.
    TypeError
        For losses that are not floating, or a mask that is not boolean.

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> losses = np.array([1.0, 3.0, np.nan])
    >>> float(lossref.reduce(losses, "mean", mask=np.array([True, True, False])))
    2.0
    """
    check_floating(losses=losses, weight=weight)
    wide = widen(losses)
    if mask is not None:
        mask = broadcast("mask", check_mask(mask), losses)
        wide = torch.where(mask, wide, 0.0)
    if weight is not None:
        weight = broadcast("weight", weight, losses).to(wide.dtype)
    return finish(
        wide,
        reduction,
        dtype=losses.dtype,
        weight=weight,
        mask=mask,
        divide_by_weight=True,
        denominator=denominator,
        nan_if_empty=nan_if_empty,
    )


def finish(
    losses: Tensor,
    reduction: str,
    *,
    dtype: torch.dtype,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    divide_by_weight: bool = False,
    denominator: Any = None,
    nan_if_empty: bool = False,
) -> Tensor:
    """Weight, reduce and round once the losses that are still one format up.

    Weight and mask have the losses' shape; masked losses are finite already.
    """
    check_reduction(reduction, denominator)
    if weight is not None:
        if mask is not None:
            weight = torch.where(mask, weight, 0.0)
        losses = losses * weight
    if reduction == "none":
        return losses.to(dtype)
    total = losses.sum()
    if reduction == "sum":
        return total.to(dtype)
    if denominator is None:
        if weight is not None and divide_by_weight:
            denominator = weight.sum()
        else:
            denominator = losses.numel() if mask is None else mask.sum()
    return divide(total, denominator, nan_if_empty).to(dtype)


def divide(total: Tensor, denominator: Any, nan_if_empty: bool) -> Tensor:
    """A mean: 0 with zero gradient where nothing is counted, unless NaN is asked for."""
    if not isinstance(denominator, Tensor) and denominator > 0:
        return total / float(denominator)
    count = torch.as_tensor(denominator, dtype=total.dtype, device=total.device)
    if nan_if_empty:
        return total / count
    empty = count == 0
    # Both branches of `where` are differentiated, so the division must be harmless in both.
    return torch.where(empty, torch.zeros_like(total), total) / torch.where(empty, 1.0, count)


def expected_gradient(weight: Tensor, reduction: str, denominator: Any) -> Tensor | None:
    """What `backward()` of a sum or mean hands to each loss before its weight; None if unknown."""
    if reduction == "none":
        return None
    if reduction == "sum":
        return weight
    count = torch.as_tensor(denominator, dtype=weight.dtype, device=weight.device)
    return (1.0 / count) * weight


def check_reduction(
    reduction: Any, denominator: Any = None, names: tuple[str, ...] = REDUCTIONS
) -> None:
    """Require a known reduction, and a denominator only where a mean divides."""
    if reduction not in names:
        expected = ", ".join(repr(name) for name in names)
        raise ValueError(f"reduction must be one of {expected}, got {reduction!r}")
    if denominator is None:
        return
    if reduction not in ("mean", "batchmean"):
        raise ValueError(f"denominator divides a mean, but reduction is {reduction!r}")
    if isinstance(denominator, Tensor):
        if denominator.ndim != 0:
            raise ValueError(f"denominator must be a number or 0-d, but is {describe(denominator)}")
    else:
        check_range("denominator", denominator, 0.0, high_open=True)


def check_mask(mask: Any) -> Tensor:
    """Require a boolean mask."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        raise TypeError(f"mask must be a boolean array, but is {describe(mask)}")
    return mask


def broadcast(name: str, tensor: Tensor, to: Tensor) -> Tensor:
    """Broadcast an argument to the shape of the losses, or say that it does not fit."""
    try:
        return tensor.expand(to.shape)
    except RuntimeError as error:
        raise ValueError(
            f"{name} must broadcast to shape {tuple(to.shape)}, but has shape {tuple(tensor.shape)}"
        ) from error
