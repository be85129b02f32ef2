"""Where lossref differs from other libraries on purpose: the cases of the reference's table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import keras
import mpmath
import numpy as np
import optax
import scipy.special
import torch
import torch.nn.functional as F
from mpmath import exp, inf, log, log1p, mpf
from sklearn.metrics import log_loss

import lossref
from book.means.library_table import Case


def gradient(loss: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The gradient of a loss at x."""
    x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(x).sum(), x)
    return slope


NAMES: dict[str, Any] = {
    "F": F,
    "arange": torch.arange,
    "eye": torch.eye,
    "gradient": gradient,
    "inf": torch.inf,
    "jnp": jnp,
    "keras": keras,
    "log_loss": log_loss,
    "lossref": lossref,
    "nan": torch.nan,
    "np": np,
    "optax": optax,
    "scipy": scipy,
    "tensor": torch.tensor,
    "torch": torch,
}
"""What the calls may name."""


def differences() -> list[Case]:
    """The cases, with their exact values."""
    with mpmath.workprec(400):
        return [*_rounding(), *_overflow(), *_left_out(), *_definitions()]


def _rounding() -> list[Case]:
    """A formula that loses what a float could hold."""
    small = mpf(2) ** -10
    nearly = 4 * (log((1 + exp(small / 2)) / 2) - small / 4)
    return [
        Case(
            "sure-cross-entropy",
            "Cross-entropy of a sure and right prediction",
            log1p(exp(-30)),
            {
                "PyTorch": "F.cross_entropy(tensor([30., 0.]), tensor(0))",
                "Optax": "optax.softmax_cross_entropy_with_integer_labels(jnp.array([30., 0.]), 0)",
                "SciPy": "-scipy.special.log_softmax(np.float32([30., 0.]))[0]",
                "Keras": "keras.losses.sparse_categorical_crossentropy("
                "tensor(0), tensor([30., 0.]), from_logits=True)",
                "lossref": "lossref.cross_entropy(tensor([30., 0.]), tensor(0))",
            },
            "The log-sum-exp of the logits rounds to 30, which leaves 0. Two terms that are "
            "never negative keep the loss.",
        ),
        Case(
            "sure-gradient",
            "Its gradient at the right class",
            -exp(-30) / (1 + exp(-30)),
            {
                "PyTorch": "gradient(lambda x: F.cross_entropy(x, tensor(0)), "
                "tensor([30., 0.]))[0]",
                "lossref": "gradient(lambda x: lossref.cross_entropy(x, tensor(0)), "
                "tensor([30., 0.]))[0]",
            },
            "The probability rounds to 1, and 1 − 1 is 0. The sum over the other classes is not.",
        ),
        Case(
            "sure-log-softmax",
            "Log-softmax of a sure class",
            -log1p(exp(-30)),
            {
                "PyTorch": "F.log_softmax(tensor([30., 0.]), 0)[0]",
                "lossref": "lossref.log_softmax(tensor([30., 0.]))[0]",
            },
            "The same rounding as in the cross-entropy.",
        ),
        Case(
            "sure-binary",
            "Binary cross-entropy of a sure and right prediction",
            log1p(exp(-20)),
            {
                "PyTorch": "F.binary_cross_entropy_with_logits(tensor(-20.), tensor(0.))",
                "Optax": "optax.sigmoid_binary_cross_entropy(jnp.array(-20.), jnp.array(0.))",
                "Keras": "keras.ops.binary_crossentropy("
                "tensor(0.), tensor(-20.), from_logits=True)",
                "lossref": "lossref.binary_cross_entropy_with_logits(tensor(-20.), tensor(0.))",
            },
            "PyTorch subtracts log σ(x), which has rounded to x, from x.",
        ),
        Case(
            "sure-focal",
            "Focal loss of a sure and right prediction",
            (exp(-20) / (1 + exp(-20))) ** 2 * log1p(exp(-20)),
            {
                "Keras": "keras.losses.binary_focal_crossentropy("
                "tensor([1.]), tensor([20.]), from_logits=True, gamma=2.)",
                "Optax": "optax.sigmoid_focal_loss(jnp.array(20.), jnp.array(1.), gamma=2.)",
                "lossref": "lossref.sigmoid_focal_loss(tensor(20.), tensor(1.), gamma=2.)",
            },
            "1 − p is computed as the sigmoid of −x, not by a subtraction.",
        ),
        Case(
            "nearly-equal",
            "Distillation of nearly equal logits",
            nearly,
            {
                "PyTorch": "4 * F.kl_div((tensor([0., 2**-10]) / 2).log_softmax(0), "
                'tensor([0.5, 0.5]), reduction="sum")',
                "lossref": "lossref.distillation_loss(tensor([0., 2**-10]), tensor([0., 0.]), "
                "temperature=2.)",
            },
            "The divergence is a sum of differences that nearly cancel; lossref sums terms that "
            "are never negative.",
        ),
        Case(
            "log-cosh",
            "Log-cosh of a small error",
            mpmath.log(mpmath.cosh(small / 4)),
            {
                "Optax": "optax.losses.log_cosh(jnp.array(2**-12))",
                "Keras": "keras.losses.log_cosh(tensor([0.]), tensor([2**-12]))",
                "lossref": "lossref.log_cosh_loss(tensor(2**-12), tensor(0.))",
            },
            "Two logarithms near log 2 cancel.",
        ),
        Case(
            "softplus",
            "Softplus of 21 in float64",
            log1p(exp(21)),
            {
                "PyTorch": "F.softplus(tensor(21., dtype=torch.float64))",
                "lossref": "lossref.softplus(tensor(21., dtype=torch.float64))",
            },
            "PyTorch returns x above a threshold of 20, which float64 can tell apart.",
        ),
        Case(
            "sigmoid",
            "Sigmoid of −100",
            1 / (1 + exp(100)),
            {
                "PyTorch": "torch.sigmoid(tensor(-100.))",
                "lossref": "lossref.sigmoid(tensor(-100.))",
            },
            "The exponential of 100 overflows; that of −100 is a subnormal number.",
        ),
    ]


def _overflow() -> list[Case]:
    """A step that leaves the range of the format though the answer does not."""
    return [
        Case(
            "logistic",
            "Logistic loss of a sure mistake",
            100 + log1p(exp(-100)),
            {
                "PyTorch": "F.soft_margin_loss(tensor(-100.), tensor(1.))",
                "lossref": "lossref.logistic_loss(tensor(-100.), tensor(1.))",
            },
            "PyTorch takes the logarithm of 1 + e¹⁰⁰, which float32 cannot hold.",
        ),
        Case(
            "infinite-logit",
            "Binary cross-entropy of an infinitely sure and right prediction",
            mpf(0),
            {
                "PyTorch": "F.binary_cross_entropy_with_logits(tensor(inf), tensor(1.))",
                "lossref": "lossref.binary_cross_entropy_with_logits(tensor(inf), tensor(1.))",
            },
            "Zero times infinity is not a number; the limit is 0.",
        ),
        Case(
            "smooth-l1",
            "Smooth L1 of an error far below beta",
            mpf(2) ** -91,
            {
                "PyTorch": "F.smooth_l1_loss(tensor(2.**-80), tensor(0.), beta=2.**-70)",
                "lossref": "lossref.smooth_l1_loss(tensor(2.**-80), tensor(0.), beta=2.**-70)",
            },
            "The square underflows before it is divided by beta.",
        ),
        Case(
            "half-precision-mean",
            "Mean of 200 equal cross-entropies in float16",
            mpf(60000),
            {
                "PyTorch": "F.cross_entropy(tensor([[0., 6e4]] * 200).half(), "
                "torch.zeros(200, dtype=torch.long))",
                "lossref": "lossref.cross_entropy(tensor([[0., 6e4]] * 200).half(), "
                "torch.zeros(200, dtype=torch.long))",
            },
            "A float16 holds at most 65,504. lossref sums one format up and rounds the mean once.",
        ),
        Case(
            "small-embeddings",
            "InfoNCE of small embeddings",
            log1p(exp(-1)),
            {
                "PyTorch": "F.cross_entropy(F.normalize(1e-20 * eye(2)) @ "
                "F.normalize(1e-20 * eye(2)).T, arange(2))",
                "lossref": "lossref.info_nce_loss(1e-20 * eye(2), 1e-20 * eye(2), temperature=1.)",
            },
            "F.normalize divides by at least 1e-12, so small vectors do not become unit vectors. "
            "lossref scales by a power of two first, and only the zero vector stays zero.",
        ),
    ]


def _left_out() -> list[Case]:
    """What a mask, an ignore index or a weight of zero leaves out."""
    return [
        Case(
            "mean-over-nothing",
            "Mean over no targets",
            None,
            {
                "PyTorch": "F.cross_entropy(tensor([[1., 2.]]), tensor([-100]))",
                "lossref": "lossref.cross_entropy(tensor([[1., 2.]]), tensor([-100]))",
            },
            "A batch without targets should not destroy a training run: 0 with gradient 0. "
            "nan_if_empty=True gives NaN.",
        ),
        Case(
            "ignored-nan",
            "Gradient of an ignored row that holds NaN",
            mpf(0),
            {
                "PyTorch": "gradient(lambda x: F.cross_entropy(x, tensor([0, -100])), "
                "tensor([[0., 0.], [nan, 0.]]))[1, 1]",
                "lossref": "gradient(lambda x: lossref.cross_entropy(x, tensor([0, -100])), "
                "tensor([[0., 0.], [nan, 0.]]))[1, 1]",
            },
            "What is left out touches neither value nor gradient.",
        ),
        Case(
            "masked-class",
            "A class at −∞ that the target gives no share",
            -mpf(3) / 2 + log(exp(1) + exp(2)),
            {
                "PyTorch": "F.cross_entropy(tensor([1., 2., -inf]), tensor([0.5, 0.5, 0.]))",
                "Optax": "optax.softmax_cross_entropy("
                "jnp.array([1., 2., -inf]), jnp.array([0.5, 0.5, 0.]))",
                "Optax, safe": "optax.safe_softmax_cross_entropy("
                "jnp.array([1., 2., -inf]), jnp.array([0.5, 0.5, 0.]))",
                "lossref": "lossref.cross_entropy(tensor([1., 2., -inf]), tensor([0.5, 0.5, 0.]))",
            },
            "0 log 0 is 0.",
        ),
        Case(
            "masked-class-smoothing",
            "Label smoothing with a class at −∞ whose weight is 0",
            (log(exp(1) + exp(2)) - 1) * 3 / 4 + (log(exp(1) + exp(2)) - 2) / 8,
            {
                "PyTorch": "F.cross_entropy(tensor([1., 2., -inf]), tensor(0), "
                "weight=tensor([1., 1., 0.]), label_smoothing=0.375)",
                "lossref": "lossref.cross_entropy(tensor([1., 2., -inf]), tensor(0), "
                "weight=tensor([1., 1., 0.]), label_smoothing=0.375)",
            },
            "A class of weight 0 is left out altogether.",
        ),
    ]


def _definitions() -> list[Case]:
    """Another definition, or a constant that is added for safety."""
    return [
        Case(
            "certain-mistake",
            "Binary cross-entropy of a certain mistake, from probabilities",
            inf,
            {
                "PyTorch": "F.binary_cross_entropy(tensor(1.), tensor(0.))",
                "Keras": "keras.losses.binary_crossentropy(tensor([0.]), tensor([1.]))",
                "scikit-learn": "log_loss([0], [[0., 1.]], labels=[0, 1])",
                "lossref": "lossref.binary_cross_entropy(tensor(1.), tensor(0.))",
            },
            "PyTorch cuts the loss off at 100; the others move the probability away from 0 and "
            "1, each by another amount.",
        ),
        Case(
            "kl-mean",
            "Divergence of one fair coin, by default",
            log(2),
            {
                "PyTorch": "F.kl_div(tensor([[.5, .5]]).log(), tensor([[1., 0.]]))",
                "Optax": "optax.losses.kl_divergence("
                "jnp.log(jnp.array([.5, .5])), jnp.array([1., 0.]))",
                "lossref": "lossref.kl_div(tensor([[.5, .5]]).log(), tensor([[1., 0.]]))",
            },
            "PyTorch's default, \"mean\", divides by the number of classes too; lossref's is "
            '"batchmean".',
        ),
        Case(
            "weighted-huber",
            "Weighted mean of the Huber losses 0.5 and 2.5",
            mpf(2),
            {
                "PyTorch": "F.huber_loss(tensor([1., 3.]), tensor([0., 0.]), "
                "weight=tensor([1., 3.]))",
                "lossref": "lossref.huber_loss(tensor([1., 3.]), tensor([0., 0.]), "
                "weight=tensor([1., 3.]))",
            },
            "PyTorch divides by the number here and by the sum of the weights in mse_loss and "
            "l1_loss. lossref divides by the sum of the weights in all of them.",
        ),
        Case(
            "distance-of-equal-points",
            "Distance between equal points",
            mpf(0),
            {
                "PyTorch": "F.pairwise_distance(tensor([1., 1.]), tensor([1., 1.]))",
                "lossref": "lossref.pairwise_distance(tensor([1., 1.]), tensor([1., 1.]))",
            },
            "PyTorch adds 1e-6 to each difference; lossref's default for eps is 0.",
        ),
        Case(
            "slope-of-equal-points",
            "Its gradient",
            mpf(0),
            {
                "PyTorch": "gradient(lambda x: F.pairwise_distance(x, tensor([1., 1.])), "
                "tensor([1., 1.]))[0]",
                "lossref": "gradient(lambda x: lossref.pairwise_distance(x, tensor([1., 1.])), "
                "tensor([1., 1.]))[0]",
            },
            "Nothing says in which direction equal points should part.",
        ),
        Case(
            "triplet",
            "Triplet loss just at its margin",
            mpf(0),
            {
                "PyTorch": "F.triplet_margin_loss(tensor([[0.]]), tensor([[0.]]), tensor([[1.]]))",
                "Optax": "optax.losses.triplet_margin_loss("
                "jnp.array([0.]), jnp.array([0.]), jnp.array([1.]))",
                "lossref": "lossref.triplet_margin_loss(tensor([[0.]]), tensor([[0.]]), "
                "tensor([[1.]]))",
            },
            "PyTorch adds 1e-6 to each difference, Optax to each sum of squares.",
        ),
        Case(
            "focal-alpha",
            "Focal loss of a fair coin, by default",
            log(2) / 4,
            {
                "Keras": "keras.losses.categorical_focal_crossentropy("
                "tensor([1., 0.]), tensor([0., 0.]), from_logits=True)",
                "lossref": "lossref.focal_loss(tensor([[0., 0.]]), tensor([0]))",
            },
            "By default lossref has no α. Keras multiplies every class by 0.25; torchvision and "
            "kornia weigh positives by 0.25 and negatives by 0.75.",
        ),
        Case(
            "column-against-vector",
            "Squared error of three right predictions, the targets a column",
            mpf(0),
            {
                "PyTorch": "F.mse_loss(tensor([1., 2., 3.]), tensor([[1.], [2.], [3.]]))",
                "lossref": "lossref.mse_loss(tensor([1., 2., 3.]), "
                "tensor([[1.], [2.], [3.]]).squeeze(1))",
            },
            "Broadcasting pairs every prediction with every target. lossref refuses the column "
            "and says to squeeze it.",
        ),
    ]
