"""Binary losses of float32 logits whose targets are 0 and 1, by how likely the mistake is.

With s the logit and q = σ(s) the probability of the wrong answer, the cross-entropy is
-log(1 - q) and its slope by s is q. In float64 that is exact enough for float32 as long as q is
not rounded to 1, which a limit on s sees to; beyond it the cross-entropy is s.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Where e^-s no longer shows in a float32 s, and 1 - q still has nine digits.
LIMIT = 20.0
LEAST_RIGHT = 2.0611536181902037e-09

# So many factors of at least LEAST_RIGHT have a product that float64 can hold.
FACTORS = 32


def mistakes(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor] | None:
    """How x turns into the logit of the mistake, 1 or -1, and that logit; None if it cannot."""
    if x.dtype != torch.float32:
        return None
    right = 1.0 - t
    # No term is negative: the sum is 0 only where each target is 0 or 1.
    if bool(torch.dot(right, t)):
        return None
    sign = right.sub_(t)
    return sign, sign * x


def probability(s: Tensor) -> Tensor:
    """The probability of the mistake, in float64."""
    return s.double().sigmoid_()


def log_right(s: Tensor, q: Tensor) -> tuple[Tensor, Tensor | None]:
    """The logarithm of 1 - q up to the limit, and by how much the cross-entropy is above it."""
    if not bool(s.amax() > LIMIT):
        return q.neg().log1p_(), None
    beyond = s.double().sub_(LIMIT).clamp_(min=0.0)
    return q.clamp(max=1.0 - LEAST_RIGHT).neg_().log1p_(), beyond


def total_cross_entropy(s: Tensor, q: Tensor) -> Tensor:
    """The sum of -log(1 - q), as the logarithms of products."""
    right = 1.0 - q
    total = right.new_zeros(())
    if bool(s.amax() > LIMIT):
        right.clamp_(min=LEAST_RIGHT)
        total += s.double().sub_(LIMIT).clamp_(min=0.0).sum()
    size = len(right) // FACTORS
    total -= right[FACTORS * size :].log().sum()
    product = right[: FACTORS * size]
    while len(product) > size:
        half = len(product) // 2
        product = product[:half].mul_(product[half:])
    total -= product.log().sum()
    if bool(total < 2.0**-24 * len(s)):
        # So near to certain that what 1 - q has lost would show.
        total = F.softplus(s.double()).sum()
    return total
