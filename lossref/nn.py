"""Modules with PyTorch's class names, each made from its function's signature.

A module takes the function's options when it is made and its arrays when it is called; ``mask``
and ``denominator``, which belong to a batch, are given in the call too. Arrays given as options,
such as class weights, become buffers and move with the module. The types are in ``nn.pyi``.
"""

from __future__ import annotations

import lossref
from lossref._modules import Loss, module

ArcFaceLoss = module("ArcFaceLoss", lossref.arcface_loss)
AsymmetricLoss = module("AsymmetricLoss", lossref.asymmetric_loss)
BCELoss = module("BCELoss", lossref.binary_cross_entropy)
BCEWithLogitsLoss = module("BCEWithLogitsLoss", lossref.binary_cross_entropy_with_logits)
BatchHardTripletLoss = module("BatchHardTripletLoss", lossref.batch_hard_triplet_loss)
CLIPLoss = module("CLIPLoss", lossref.clip_loss)
ContrastiveLoss = module("ContrastiveLoss", lossref.contrastive_loss)
CosFaceLoss = module("CosFaceLoss", lossref.cosface_loss)
CrossEntropyLoss = module("CrossEntropyLoss", lossref.cross_entropy)
DiceLoss = module("DiceLoss", lossref.dice_loss)
DistillationLoss = module("DistillationLoss", lossref.distillation_loss)
ExponentialLoss = module("ExponentialLoss", lossref.exponential_loss)
FocalLoss = module("FocalLoss", lossref.focal_loss)
GaussianNLLLoss = module("GaussianNLLLoss", lossref.gaussian_nll_loss, arrays=("var",))
GeneralizedCrossEntropyLoss = module(
    "GeneralizedCrossEntropyLoss", lossref.generalized_cross_entropy
)
HingeLoss = module("HingeLoss", lossref.hinge_loss)
HuberLoss = module("HuberLoss", lossref.huber_loss)
InfoNCELoss = module("InfoNCELoss", lossref.info_nce_loss)
KLDivLoss = module("KLDivLoss", lossref.kl_div)
L1Loss = module("L1Loss", lossref.l1_loss)
LinearCrossEntropyLoss = module(
    "LinearCrossEntropyLoss",
    lossref.linear_cross_entropy,
    named=("bias",),
    remark="Unlike PyTorch's, it does not own the layer, which may thus be tied to another.",
)
LogCoshLoss = module("LogCoshLoss", lossref.log_cosh_loss)
MSELoss = module("MSELoss", lossref.mse_loss)
MultiMarginLoss = module("MultiMarginLoss", lossref.multi_margin_loss)
NLLLoss = module("NLLLoss", lossref.nll_loss)
NTXentLoss = module("NTXentLoss", lossref.nt_xent_loss)
NonNegativePULoss = module("NonNegativePULoss", lossref.nn_pu_loss)
OHEMCrossEntropyLoss = module("OHEMCrossEntropyLoss", lossref.ohem_cross_entropy)
PairwiseDistance = module("PairwiseDistance", lossref.pairwise_distance)
QuantileLoss = module("QuantileLoss", lossref.quantile_loss)
SigLIPLoss = module("SigLIPLoss", lossref.siglip_loss)
SigmoidFocalLoss = module("SigmoidFocalLoss", lossref.sigmoid_focal_loss)
SmoothL1Loss = module("SmoothL1Loss", lossref.smooth_l1_loss)
SoftMarginLoss = module("SoftMarginLoss", lossref.logistic_loss)
SupConLoss = module("SupConLoss", lossref.sup_con_loss)
TripletMarginLoss = module("TripletMarginLoss", lossref.triplet_margin_loss)
UncertaintyWeightedLoss = module("UncertaintyWeightedLoss", lossref.uncertainty_weighted_loss)
VocabParallelCrossEntropyLoss = module(
    "VocabParallelCrossEntropyLoss", lossref.vocab_parallel_cross_entropy
)
ZLoss = module("ZLoss", lossref.z_loss)

__all__ = [
    name
    for name, value in list(globals().items())
    if isinstance(value, type) and issubclass(value, Loss)
]
