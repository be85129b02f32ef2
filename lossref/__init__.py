"""Reference deep-learning losses, accurate to the last bit where that is possible."""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from lossref._angular_margins import arcface_loss, cosface_loss
from lossref._binary import (
    asymmetric_loss,
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    dice_loss,
    nn_pu_loss,
)
from lossref._calibration import expected_calibration_error
from lossref._classification import (
    cross_entropy,
    distillation_loss,
    generalized_cross_entropy,
    kl_div,
    nll_loss,
    smooth_labels,
    z_loss,
)
from lossref._contrastive import clip_loss, info_nce_loss, nt_xent_loss, siglip_loss, sup_con_loss
from lossref._distances import pairwise_distance
from lossref._focal import focal_loss, ohem_cross_entropy, sigmoid_focal_loss
from lossref._gradient import value_and_grad
from lossref._linear_cross_entropy import linear_cross_entropy
from lossref._margins import exponential_loss, hinge_loss, logistic_loss, multi_margin_loss
from lossref._multitask import gradnorm_targets, gradnorm_weights, uncertainty_weighted_loss
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
from lossref._regression import (
    gaussian_nll_loss,
    huber_loss,
    l1_loss,
    log_cosh_loss,
    mse_loss,
    quantile_loss,
    smooth_l1_loss,
)
from lossref._triplets import batch_hard_triplet_loss, contrastive_loss, triplet_margin_loss
from lossref._vocab_parallel import vocab_parallel_cross_entropy

if TYPE_CHECKING:
    from lossref import nn as nn

__all__ = [
    "arcface_loss",
    "asymmetric_loss",
    "batch_hard_triplet_loss",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "clip_loss",
    "contrastive_loss",
    "cosface_loss",
    "cross_entropy",
    "dice_loss",
    "distillation_loss",
    "expected_calibration_error",
    "exponential_loss",
    "focal_loss",
    "gaussian_nll_loss",
    "generalized_cross_entropy",
    "gradnorm_targets",
    "gradnorm_weights",
    "hinge_loss",
    "huber_loss",
    "info_nce_loss",
    "kl_div",
    "l1_loss",
    "linear_cross_entropy",
    "log1mexp",
    "log_cosh_loss",
    "log_sigmoid",
    "log_softmax",
    "logistic_loss",
    "logsumexp",
    "mse_loss",
    "multi_margin_loss",
    "nll_loss",
    "nn_pu_loss",
    "nt_xent_loss",
    "ohem_cross_entropy",
    "pairwise_distance",
    "quantile_loss",
    "reduce",
    "siglip_loss",
    "sigmoid",
    "sigmoid_focal_loss",
    "smooth_l1_loss",
    "smooth_labels",
    "softmax",
    "softplus",
    "sup_con_loss",
    "triplet_margin_loss",
    "uncertainty_weighted_loss",
    "value_and_grad",
    "vocab_parallel_cross_entropy",
    "z_loss",
]


def __getattr__(name: str) -> ModuleType:
    """Load the modules when they are first asked for."""
    if name == "nn":
        return importlib.import_module("lossref.nn")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the modules too."""
    return sorted([*globals(), "nn"])
