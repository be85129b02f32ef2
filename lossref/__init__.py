"""Reference deep-learning losses, accurate to the last bit where that is possible."""

from lossref._classification import cross_entropy, kl_div, nll_loss, smooth_labels
from lossref._gradient import value_and_grad
from lossref._numerics import (
    log1mexp,
    log_sigmoid,
    log_softmax,
    logsumexp,
    sigmoid,
    softmax,
    softplus,
)
from lossref._reduction import reduce

__all__ = [
    "cross_entropy",
    "kl_div",
    "log1mexp",
    "log_sigmoid",
    "log_softmax",
    "logsumexp",
    "nll_loss",
    "reduce",
    "sigmoid",
    "smooth_labels",
    "softmax",
    "softplus",
    "value_and_grad",
]
