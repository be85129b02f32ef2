"""Types of the modules, generated from the functions' signatures."""

from typing import Any

from lossref._arrays import Array
from lossref._modules import Loss as Loss

class ArcFaceLoss(Loss):
    """Additive angular margin: cross-entropy with the target's angle made larger."""

    def __init__(
        self,
        *,
        margin: float = 0.5,
        scale: float = 64.0,
        monotone: bool = True,
        reduction: str = "mean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        embeddings: Array,
        weight: Array,
        target: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        embeddings: Array,
        weight: Array,
        target: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...

class AsymmetricLoss(Loss):
    """Asymmetric loss for multi-label targets."""

    def __init__(
        self,
        *,
        gamma_pos: float = 1.0,
        gamma_neg: float = 4.0,
        clip: float = 0.05,
        weight: Array | None = None,
        reduction: str = "mean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        logits: Array,
        target: Array,
        *,
        mask: Array | None = None,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        logits: Array,
        target: Array,
        *,
        mask: Array | None = None,
        denominator: float | Array | None = None,
    ) -> Array: ...

class BCELoss(Loss):
    """Binary cross-entropy between targets and probabilities."""

    def __init__(
        self,
        *,
        weight: Array | None = None,
        reduction: str = "mean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        probs: Array,
        target: Array,
        *,
        mask: Array | None = None,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        probs: Array,
        target: Array,
        *,
        mask: Array | None = None,
        denominator: float | Array | None = None,
    ) -> Array: ...

class BCEWithLogitsLoss(Loss):
    """Binary cross-entropy between targets and the sigmoid of logits."""

    def __init__(
        self,
        *,
        weight: Array | None = None,
        pos_weight: Array | None = None,
        reduction: str = "mean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        logits: Array,
        target: Array,
        *,
        mask: Array | None = None,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        logits: Array,
        target: Array,
        *,
        mask: Array | None = None,
        denominator: float | Array | None = None,
    ) -> Array: ...

class BatchHardTripletLoss(Loss):
    """Triplet loss of each anchor's farthest positive and nearest negative in the batch."""

    def __init__(
        self,
        *,
        margin: float | None = 1.0,
        reduction: str = "mean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        embeddings: Array,
        labels: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        embeddings: Array,
        labels: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...

class CLIPLoss(Loss):
    """Contrast of images with texts, in both directions (CLIP)."""

    def __init__(
        self,
        *,
        logit_scale: float | Array = 14.285714285714285,
        reduction: str = "mean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        image: Array,
        text: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        image: Array,
        text: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...

class ContrastiveLoss(Loss):
    """Contrastive loss of pairs of embeddings."""

    def __init__(
        self,
        *,
        margin: float = 1.0,
        reduction: str = "mean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        x1: Array,
        x2: Array,
        dissimilar: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        x1: Array,
        x2: Array,
        dissimilar: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...

class CosFaceLoss(Loss):
    """Additive cosine margin: cross-entropy with the target's cosine made smaller."""

    def __init__(
        self,
        *,
        margin: float = 0.35,
        scale: float = 64.0,
        reduction: str = "mean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        embeddings: Array,
        weight: Array,
        target: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        embeddings: Array,
        weight: Array,
        target: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...

class CrossEntropyLoss(Loss):
    """Cross-entropy between targets and the softmax of logits."""

    def __init__(
        self,
        *,
        weight: Array | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        logits: Array,
        target: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        logits: Array,
        target: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...

class DiceLoss(Loss):
    """Soft Dice loss: one minus the overlap of predicted and true regions."""

    def __init__(
        self,
        *,
        smooth: float = 1.0,
        reduction: str = "mean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        logits: Array,
        target: Array,
        *,
        mask: Array | None = None,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        logits: Array,
        target: Array,
        *,
        mask: Array | None = None,
        denominator: float | Array | None = None,
    ) -> Array: ...

class DistillationLoss(Loss):
    """Divergence of a student's softened probabilities from a teacher's."""

    def __init__(
        self,
        *,
        temperature: float = 1.0,
        reduction: str = "mean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        student_logits: Array,
        teacher_logits: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        student_logits: Array,
        teacher_logits: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...

class ExponentialLoss(Loss):
    """Exponential loss of scores against targets of ±1, which AdaBoost minimizes."""

    def __init__(
        self,
        *,
        weight: Array | None = None,
        reduction: str = "mean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        scores: Array,
        target: Array,
        *,
        mask: Array | None = None,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        scores: Array,
        target: Array,
        *,
        mask: Array | None = None,
        denominator: float | Array | None = None,
    ) -> Array: ...

class FocalLoss(Loss):
    """Focal loss over classes."""

    def __init__(
        self,
        *,
        alpha: Array | None = None,
        gamma: float = 2.0,
        ignore_index: int = -100,
        reduction: str = "mean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        logits: Array,
        target: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        logits: Array,
        target: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...

class GaussianNLLLoss(Loss):
    """Negative log-likelihood of targets under normal distributions."""

    def __init__(
        self,
        *,
        full: bool = False,
        eps: float = 1e-06,
        weight: Array | None = None,
        reduction: str = "mean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        prediction: Array,
        target: Array,
        var: float | Array,
        *,
        mask: Array | None = None,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        prediction: Array,
        target: Array,
        var: float | Array,
        *,
        mask: Array | None = None,
        denominator: float | Array | None = None,
    ) -> Array: ...

class GeneralizedCrossEntropyLoss(Loss):
    """Generalized cross-entropy, robust to wrong labels."""

    def __init__(
        self,
        *,
        q: float = 0.7,
        weight: Array | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        logits: Array,
        target: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        logits: Array,
        target: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...

class HingeLoss(Loss):
    """Hinge loss of scores against targets of ±1."""

    def __init__(
        self,
        *,
        margin: float = 1.0,
        squared: bool = False,
        weight: Array | None = None,
        reduction: str = "mean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        scores: Array,
        target: Array,
        *,
        mask: Array | None = None,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        scores: Array,
        target: Array,
        *,
        mask: Array | None = None,
        denominator: float | Array | None = None,
    ) -> Array: ...

class HuberLoss(Loss):
    """Huber loss: squared near the target, absolute far from it."""

    def __init__(
        self,
        *,
        delta: float = 1.0,
        weight: Array | None = None,
        reduction: str = "mean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        prediction: Array,
        target: Array,
        *,
        mask: Array | None = None,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        prediction: Array,
        target: Array,
        *,
        mask: Array | None = None,
        denominator: float | Array | None = None,
    ) -> Array: ...

class InfoNCELoss(Loss):
    """InfoNCE: each query must tell its own key from the others of the batch."""

    def __init__(
        self,
        *,
        temperature: float | Array = 0.1,
        reduction: str = "mean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        query: Array,
        key: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        query: Array,
        key: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...

class KLDivLoss(Loss):
    """Kullback-Leibler divergence of predicted log-probabilities from a target distribution."""

    def __init__(
        self,
        *,
        log_target: bool = False,
        reduction: str = "batchmean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        log_probs: Array,
        target: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        log_probs: Array,
        target: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...

class L1Loss(Loss):
    """Absolute error; the gradient where it is 0 is 0."""

    def __init__(
        self,
        *,
        weight: Array | None = None,
        reduction: str = "mean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        prediction: Array,
        target: Array,
        *,
        mask: Array | None = None,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        prediction: Array,
        target: Array,
        *,
        mask: Array | None = None,
        denominator: float | Array | None = None,
    ) -> Array: ...

class LinearCrossEntropyLoss(Loss):
    """Cross-entropy of a linear layer's outputs, without holding all the logits."""

    def __init__(
        self,
        *,
        chunk_size: int | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        reduction: str = "mean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        hidden: Array,
        weight: Array,
        target: Array,
        *,
        bias: Array | None = None,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        hidden: Array,
        weight: Array,
        target: Array,
        *,
        bias: Array | None = None,
        denominator: float | Array | None = None,
    ) -> Array: ...

class LogCoshLoss(Loss):
    """Logarithm of the hyperbolic cosine of the error."""

    def __init__(
        self,
        *,
        weight: Array | None = None,
        reduction: str = "mean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        prediction: Array,
        target: Array,
        *,
        mask: Array | None = None,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        prediction: Array,
        target: Array,
        *,
        mask: Array | None = None,
        denominator: float | Array | None = None,
    ) -> Array: ...

class MSELoss(Loss):
    """Squared error."""

    def __init__(
        self,
        *,
        weight: Array | None = None,
        reduction: str = "mean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        prediction: Array,
        target: Array,
        *,
        mask: Array | None = None,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        prediction: Array,
        target: Array,
        *,
        mask: Array | None = None,
        denominator: float | Array | None = None,
    ) -> Array: ...

class MultiMarginLoss(Loss):
    """Multi-class hinge loss."""

    def __init__(
        self,
        *,
        p: int = 1,
        margin: float = 1.0,
        weight: Array | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        logits: Array,
        target: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        logits: Array,
        target: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...

class NLLLoss(Loss):
    """Negative log-likelihood of class indices under log-probabilities."""

    def __init__(
        self,
        *,
        weight: Array | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        log_probs: Array,
        target: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        log_probs: Array,
        target: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...

class NTXentLoss(Loss):
    """Normalized temperature-scaled cross-entropy of two views of a batch (SimCLR)."""

    def __init__(
        self,
        *,
        temperature: float | Array = 0.5,
        reduction: str = "mean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        x1: Array,
        x2: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        x1: Array,
        x2: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...

class NonNegativePULoss(Loss):
    """Non-negative risk of a classifier from positive and unlabelled examples."""

    def __init__(
        self,
        *,
        prior: float,
        beta: float = 0.0,
        gamma: float = 0.0,
        surrogate: str = "sigmoid",
    ) -> None: ...
    def forward(self, logits: Array, target: Array) -> Array: ...
    def __call__(self, logits: Array, target: Array) -> Array: ...

class OHEMCrossEntropyLoss(Loss):
    """Cross-entropy of the hardest examples (online hard example mining)."""

    def __init__(
        self,
        *,
        keep: float,
        ignore_index: int = -100,
        reduction: str = "mean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        logits: Array,
        target: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        logits: Array,
        target: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...

class PairwiseDistance(Loss):
    """Distances between rows: of two arrays row by row, or of one array all with all."""

    def __init__(self, *, p: float = 2.0, eps: float = 0.0, keepdim: bool = False) -> None: ...
    def forward(self, x1: Array, x2: Array | None = None) -> Array: ...
    def __call__(self, x1: Array, x2: Array | None = None) -> Array: ...

class QuantileLoss(Loss):
    """Quantile (pinball) loss, whose minimum is at the quantile of the targets."""

    def __init__(
        self,
        *,
        quantile: float = 0.5,
        weight: Array | None = None,
        reduction: str = "mean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        prediction: Array,
        target: Array,
        *,
        mask: Array | None = None,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        prediction: Array,
        target: Array,
        *,
        mask: Array | None = None,
        denominator: float | Array | None = None,
    ) -> Array: ...

class SigLIPLoss(Loss):
    """Sigmoid contrast of images with texts: every pair is its own decision (SigLIP)."""

    def __init__(
        self,
        *,
        logit_scale: float | Array = 10.0,
        logit_bias: float | Array = -10.0,
        reduction: str = "mean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        image: Array,
        text: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        image: Array,
        text: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...

class SigmoidFocalLoss(Loss):
    """Focal loss for independent binary targets."""

    def __init__(
        self,
        *,
        alpha: float | None = None,
        gamma: float = 2.0,
        weight: Array | None = None,
        reduction: str = "mean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        logits: Array,
        target: Array,
        *,
        mask: Array | None = None,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        logits: Array,
        target: Array,
        *,
        mask: Array | None = None,
        denominator: float | Array | None = None,
    ) -> Array: ...

class SmoothL1Loss(Loss):
    """Smooth absolute error: the Huber loss divided by its threshold."""

    def __init__(
        self,
        *,
        beta: float = 1.0,
        weight: Array | None = None,
        reduction: str = "mean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        prediction: Array,
        target: Array,
        *,
        mask: Array | None = None,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        prediction: Array,
        target: Array,
        *,
        mask: Array | None = None,
        denominator: float | Array | None = None,
    ) -> Array: ...

class SoftMarginLoss(Loss):
    """Logistic loss of scores against targets of ±1 (PyTorch's ``soft_margin_loss``)."""

    def __init__(
        self,
        *,
        weight: Array | None = None,
        reduction: str = "mean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        scores: Array,
        target: Array,
        *,
        mask: Array | None = None,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        scores: Array,
        target: Array,
        *,
        mask: Array | None = None,
        denominator: float | Array | None = None,
    ) -> Array: ...

class SupConLoss(Loss):
    """Supervised contrastive loss, with the sum over positives outside the logarithm."""

    def __init__(
        self,
        *,
        temperature: float | Array = 0.1,
        reduction: str = "mean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        embeddings: Array,
        labels: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        embeddings: Array,
        labels: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...

class TripletMarginLoss(Loss):
    """Triplet loss: the positive nearer to the anchor than the negative, by a margin."""

    def __init__(
        self,
        *,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 0.0,
        swap: bool = False,
        reduction: str = "mean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        anchor: Array,
        positive: Array,
        negative: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        anchor: Array,
        positive: Array,
        negative: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...

class UncertaintyWeightedLoss(Loss):
    """Sum of task losses, each weighed by a learned uncertainty."""

    def __init__(self) -> None: ...
    def forward(self, losses: Array, log_variances: Array) -> Array: ...
    def __call__(self, losses: Array, log_variances: Array) -> Array: ...

class VocabParallelCrossEntropyLoss(Loss):
    """Cross-entropy of logits whose classes are spread over processes."""

    def __init__(
        self,
        *,
        group: Any = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
        nan_if_empty: bool = False,
    ) -> None: ...
    def forward(
        self,
        logits: Array,
        target: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        logits: Array,
        target: Array,
        *,
        denominator: float | Array | None = None,
    ) -> Array: ...

class ZLoss(Loss):
    """Square of the log-sum-exp, which keeps logits from drifting."""

    def __init__(self, *, reduction: str = "mean", nan_if_empty: bool = False) -> None: ...
    def forward(
        self,
        logits: Array,
        *,
        mask: Array | None = None,
        denominator: float | Array | None = None,
    ) -> Array: ...
    def __call__(
        self,
        logits: Array,
        *,
        mask: Array | None = None,
        denominator: float | Array | None = None,
    ) -> Array: ...
