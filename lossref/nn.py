"""Modules with PyTorch's class names, each made from its function's signature.

A module takes the function's keyword arguments when it is made and its arrays when it is called;
``mask`` and ``denominator``, which belong to a batch, may be given in the call too. Arrays given
at the making, such as class weights, become buffers and move with the module.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import lossref

_PER_BATCH = ("mask", "denominator")


class Loss(torch.nn.Module):
    """A loss function with its keyword arguments fixed."""

    function: Callable[..., Any]

    def __init__(self, **options: Any) -> None:
        super().__init__()
        parameters = inspect.signature(self.function).parameters
        required = [
            name
            for name, parameter in parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty
        ]
        allowed = [
            name
            for name, parameter in parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY and name not in (*_PER_BATCH, "var")
        ]
        for name in options:
            if name not in allowed:
                raise TypeError(
                    f"{type(self).__name__} takes {', '.join(allowed)}, but not {name!r}"
                )
        missing = [name for name in required if name not in options and name in allowed]
        if missing:
            raise TypeError(f"{type(self).__name__} needs {', '.join(missing)}")
        self.options = dict.fromkeys(options)
        for name, value in options.items():
            if isinstance(value, np.ndarray):
                value = torch.from_numpy(value.copy())
            if isinstance(value, torch.Tensor):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def forward(self, *arrays: Any, **per_batch: Any) -> Any:
        """Compute the loss."""
        options = {name: getattr(self, name) for name in self.options}
        return self.function(*arrays, **options, **per_batch)

    def extra_repr(self) -> str:
        """List the options that were given."""
        given = ((name, getattr(self, name)) for name in self.options)
        return ", ".join(
            f"{name}={tuple(value.shape) if isinstance(value, torch.Tensor) else value!r}"
            for name, value in given
        )


def _module(name: str, function: Callable[..., Any]) -> type[Loss]:
    summary = (inspect.getdoc(function) or "").partition("\n")[0]
    text = f"{summary}\n\nThe module of :func:`lossref.{function.__name__}`, which documents it."
    members = {"function": staticmethod(function), "__doc__": text, "__module__": __name__}
    return type(name, (Loss,), members)


def _gaussian(prediction: Any, target: Any, var: Any, **options: Any) -> Any:
    return lossref.gaussian_nll_loss(prediction, target, var=var, **options)


functools.update_wrapper(_gaussian, lossref.gaussian_nll_loss)

ArcFaceLoss = _module("ArcFaceLoss", lossref.arcface_loss)
AsymmetricLoss = _module("AsymmetricLoss", lossref.asymmetric_loss)
BCELoss = _module("BCELoss", lossref.binary_cross_entropy)
BCEWithLogitsLoss = _module("BCEWithLogitsLoss", lossref.binary_cross_entropy_with_logits)
BatchHardTripletLoss = _module("BatchHardTripletLoss", lossref.batch_hard_triplet_loss)
CLIPLoss = _module("CLIPLoss", lossref.clip_loss)
ContrastiveLoss = _module("ContrastiveLoss", lossref.contrastive_loss)
CosFaceLoss = _module("CosFaceLoss", lossref.cosface_loss)
CrossEntropyLoss = _module("CrossEntropyLoss", lossref.cross_entropy)
DiceLoss = _module("DiceLoss", lossref.dice_loss)
DistillationLoss = _module("DistillationLoss", lossref.distillation_loss)
ExponentialLoss = _module("ExponentialLoss", lossref.exponential_loss)
FocalLoss = _module("FocalLoss", lossref.focal_loss)
GaussianNLLLoss = _module("GaussianNLLLoss", _gaussian)
GeneralizedCrossEntropyLoss = _module(
    "GeneralizedCrossEntropyLoss", lossref.generalized_cross_entropy
)
HingeLoss = _module("HingeLoss", lossref.hinge_loss)
HuberLoss = _module("HuberLoss", lossref.huber_loss)
InfoNCELoss = _module("InfoNCELoss", lossref.info_nce_loss)
KLDivLoss = _module("KLDivLoss", lossref.kl_div)
L1Loss = _module("L1Loss", lossref.l1_loss)
LinearCrossEntropyLoss = _module("LinearCrossEntropyLoss", lossref.linear_cross_entropy)
LogCoshLoss = _module("LogCoshLoss", lossref.log_cosh_loss)
MSELoss = _module("MSELoss", lossref.mse_loss)
MultiMarginLoss = _module("MultiMarginLoss", lossref.multi_margin_loss)
NLLLoss = _module("NLLLoss", lossref.nll_loss)
NTXentLoss = _module("NTXentLoss", lossref.nt_xent_loss)
NonNegativePULoss = _module("NonNegativePULoss", lossref.nn_pu_loss)
OHEMCrossEntropyLoss = _module("OHEMCrossEntropyLoss", lossref.ohem_cross_entropy)
PairwiseDistance = _module("PairwiseDistance", lossref.pairwise_distance)
QuantileLoss = _module("QuantileLoss", lossref.quantile_loss)
SigLIPLoss = _module("SigLIPLoss", lossref.siglip_loss)
SigmoidFocalLoss = _module("SigmoidFocalLoss", lossref.sigmoid_focal_loss)
SmoothL1Loss = _module("SmoothL1Loss", lossref.smooth_l1_loss)
SoftMarginLoss = _module("SoftMarginLoss", lossref.logistic_loss)
SupConLoss = _module("SupConLoss", lossref.sup_con_loss)
TripletMarginLoss = _module("TripletMarginLoss", lossref.triplet_margin_loss)
UncertaintyWeightedLoss = _module("UncertaintyWeightedLoss", lossref.uncertainty_weighted_loss)
VocabParallelCrossEntropyLoss = _module(
    "VocabParallelCrossEntropyLoss", lossref.vocab_parallel_cross_entropy
)
ZLoss = _module("ZLoss", lossref.z_loss)

__all__ = [
    name
    for name, value in list(globals().items())
    if isinstance(value, type) and issubclass(value, Loss)
]
