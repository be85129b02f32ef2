"""The losses of other libraries, called so that each answers the same question as this one.

A side takes the question's tensors, inputs first, and returns one loss for each of them and the
gradients of their sum. It is None where its library is missing.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from report import optional

os.environ.setdefault("KERAS_BACKEND", "jax")


@dataclass(frozen=True)
class Peer:
    """One library's side of a question."""

    library: str
    answer: Callable | None
    # some peers give only the mean of the losses
    mean: bool = False


def torch_peer(loss, library="torch"):
    """A function of torch tensors."""
    return Peer(library, lambda question: question.answer(loss))


def torchvision_peer(loss):
    """A formula of torchvision's, written out: torchvision itself has no build for this torch."""
    return torch_peer(loss, "torchvision's formula")


def optional_peer(library, module, make):
    """A torch loss made from a module that may be missing."""
    found = optional(module)
    return Peer(library, found and (lambda question: question.answer(make(found))))


def jax_peer(library, module, make, mean=False):
    """A JAX loss, made from its module; it gets NumPy arrays and computes on the CPU."""
    found = optional(module)
    if module == "keras" and found and found.backend.backend() != "jax":
        found = None
    return Peer(library, found and partial(_jax_answer, make(found)), mean)


def _jax_answer(loss, question):
    import jax

    jax.config.update("jax_enable_x64", True)

    def bring(x):
        if not x.is_floating_point():
            return jax.numpy.asarray(x.numpy())
        return jax.numpy.asarray(x.double().numpy()).astype(str(x.dtype)[6:])

    def fetch(array):
        wide = np.array(array, dtype=np.float64)
        return torch.from_numpy(wide).to(question.dtype)

    constants = [bring(x) for x in question.constants]
    values, back = jax.vjp(lambda *x: loss(*x, *constants), *map(bring, question.inputs))
    seed = jax.numpy.ones_like(values)
    if question.cotangent is not None:
        seed = bring(question.cotangent)
    return fetch(values), [fetch(x) for x in back(seed)]


def scipy_peer(make):
    """A function of scipy.special, which has no gradient, nor bfloat16."""
    special = optional("scipy.special")

    def answer(question):
        if question.dtype == torch.bfloat16:
            return None
        arrays = [x.numpy() for x in (*question.inputs, *question.constants)]
        values = np.asarray(make(special)(*arrays), dtype=arrays[0].dtype)
        return torch.from_numpy(values), None

    return Peer("scipy", special and answer)


def metric_learning_peer(name, arrange, **options):
    """A loss of pytorch-metric-learning, unreduced.

    `arrange` turns the question's tensors into the arguments of its call.
    """
    losses = optional("pytorch_metric_learning.losses")
    if losses is None:
        return Peer("pytorch-metric-learning", None)
    from pytorch_metric_learning.distances import LpDistance
    from pytorch_metric_learning.reducers import DoNothingReducer

    plain = {"distance": LpDistance(normalize_embeddings=False)} if "Triplet" in name else {}
    loss = getattr(losses, name)(reducer=DoNothingReducer(), **plain, **options)

    def call(*tensors):
        args, kwargs = arrange(*tensors)
        return loss(*args, **kwargs)["loss"]["losses"]

    return torch_peer(call, "pytorch-metric-learning")


def angular_peer(name, **options):
    """ArcFace or CosFace of pytorch-metric-learning, its class centres given from outside."""
    losses = optional("pytorch_metric_learning.losses")
    if losses is None:
        return Peer("pytorch-metric-learning", None)
    from pytorch_metric_learning.reducers import DoNothingReducer

    def call(x, weight, target):
        loss = getattr(losses, name)(
            len(weight), weight.shape[1], reducer=DoNothingReducer(), **options
        )
        loss.W = torch.nn.Parameter(torch.empty_like(weight.T))
        centres = {"W": weight.T}
        return torch.func.functional_call(loss, centres, (x, target))["loss"]["losses"]

    return torch_peer(call, "pytorch-metric-learning")


def without_gradient(peer):
    """A peer of which only the values are asked."""
    answer = peer.answer
    return replace(peer, answer=answer and (lambda question: (answer(question)[0], None)))


def keras(make):
    """A loss of Keras, by its JAX back end."""
    return jax_peer("keras", "keras", make)


def optax(make, mean=False):
    """A loss of optax."""
    return jax_peer("optax", "optax", lambda module: make(module.losses), mean)


def columns(loss):
    """A Keras loss of columns, which takes the target first and averages the last axis."""
    return lambda x, t: loss(t[:, None], x[:, None])


def hot(y, classes):
    import jax

    return jax.nn.one_hot(y, classes)


def torchvision_focal(x, t, alpha, gamma):
    """`torchvision.ops.sigmoid_focal_loss` with reduction "none"."""
    p = torch.sigmoid(x)
    ce = F.binary_cross_entropy_with_logits(x, t, reduction="none")
    p_t = p * t + (1 - p) * (1 - t)
    loss = ce * ((1 - p_t) ** gamma)
    return loss if alpha < 0 else (alpha * t + (1 - alpha) * (1 - t)) * loss


def focal_peers(targets, gamma, alpha):
    weight = {"apply_class_balancing": alpha is not None, "alpha": alpha or 0.25}
    found = [
        torchvision_peer(
            lambda x, t: torchvision_focal(x, t, -1 if alpha is None else alpha, gamma)
        ),
        optax(lambda m: lambda x, t: m.sigmoid_focal_loss(x, t, alpha=alpha, gamma=gamma)),
        keras(
            lambda m: columns(
                partial(m.losses.binary_focal_crossentropy, gamma=gamma, from_logits=True, **weight)
            )
        ),
    ]
    if targets == "soft":
        # kornia focuses on soft targets by another formula
        return found
    return [*found, optional_peer("kornia", "kornia.losses", partial(kornia_binary, gamma, alpha))]


def kornia_binary(gamma, alpha, m):
    def loss(x, t):
        pixels = x[:, None], t[:, None]
        return m.binary_focal_loss_with_logits(*pixels, alpha=alpha, gamma=gamma).squeeze(1)

    return loss


def pairs_of_views(x1, x2):
    labels = torch.arange(len(x1)).repeat(2)
    return (torch.cat([x1, x2]), labels), {}


def nt_xent_of_optax(m):
    import jax.numpy as jnp

    def loss(x1, x2):
        labels = jnp.tile(jnp.arange(len(x1)), 2)
        return m.ntxent(jnp.concatenate([x1, x2]), labels, temperature=0.5)

    return loss


def queries_and_keys(query, key):
    labels = torch.arange(len(query))
    # Equal labels in one tensor would mean one batch, whose own pairs are left out.
    return (query, labels), {"ref_emb": key, "ref_labels": labels.clone()}


def triplets(a, p, n):
    count = len(a)
    rows = torch.arange(count)
    labels = torch.cat([rows, rows, rows + count])
    where = (rows, rows + count, rows + 2 * count)
    return (torch.cat([a, p, n]), labels), {"indices_tuple": where}


def batch_hard_peer(margin):
    """Their miner and triplet loss; anchors that it leaves out cost 0."""
    losses = optional("pytorch_metric_learning.losses")
    if losses is None:
        return Peer("pytorch-metric-learning", None)
    from pytorch_metric_learning.distances import LpDistance
    from pytorch_metric_learning.miners import BatchHardMiner
    from pytorch_metric_learning.reducers import DoNothingReducer

    plain = LpDistance(normalize_embeddings=False)
    loss = losses.TripletMarginLoss(margin, distance=plain, reducer=DoNothingReducer())

    def call(embeddings, labels):
        chosen = BatchHardMiner(distance=plain)(embeddings, labels)
        found = loss(embeddings, labels, indices_tuple=chosen)["loss"]["losses"]
        return embeddings.new_zeros(len(labels)).index_put((chosen[0],), found)

    return torch_peer(call, "pytorch-metric-learning")


def clip_formula(u, v):
    logits = 20.0 * F.normalize(u) @ F.normalize(v).T
    own = torch.arange(len(u))
    rows = F.cross_entropy(logits, own, reduction="none")
    return (rows + F.cross_entropy(logits.T, own, reduction="none")) / 2


def siglip_formula(u, v):
    logits = 10.0 * F.normalize(u) @ F.normalize(v).T - 10.0
    sign = 2 * torch.eye(len(u), dtype=u.dtype) - 1
    return -F.logsigmoid(sign * logits).sum(-1)


def picked(log_probabilities, y):
    return -log_probabilities[np.arange(len(y)), y]


def of_softmax(m, loss):
    """A Keras loss of probabilities, given logits."""
    return lambda x, y: loss(m.ops.softmax(x), y)


def kornia_focal(m):
    def loss(x, y):
        return m.focal_loss(x, y, alpha=None, gamma=2.0).sum(1)

    return loss


@cache
def peers():
    """For each question the other libraries that have the loss."""
    none = {"reduction": "none"}
    smooth = {"label_smoothing": 0.1}
    bce = [
        torch_peer(partial(F.binary_cross_entropy_with_logits, **none)),
        optax(lambda m: m.sigmoid_binary_cross_entropy),
        keras(lambda m: columns(partial(m.losses.binary_crossentropy, from_logits=True))),
    ]
    probabilities = [
        torch_peer(partial(F.binary_cross_entropy, **none)),
        keras(lambda m: columns(m.losses.binary_crossentropy)),
    ]
    weighted_bce = torch_peer(
        lambda x, t: F.binary_cross_entropy_with_logits(x, t, pos_weight=x.new_tensor(2.5), **none)
    )
    nce = metric_learning_peer
    return {
        "logsumexp": [
            torch_peer(lambda x: torch.logsumexp(x, 1)),
            scipy_peer(lambda m: partial(m.logsumexp, axis=1)),
            keras(lambda m: partial(m.ops.logsumexp, axis=1)),
        ],
        "softmax": [
            torch_peer(lambda x: torch.softmax(x, 1)),
            scipy_peer(lambda m: partial(m.softmax, axis=1)),
            keras(lambda m: m.ops.softmax),
        ],
        "log_softmax": [
            torch_peer(lambda x: torch.log_softmax(x, 1)),
            scipy_peer(lambda m: partial(m.log_softmax, axis=1)),
            keras(lambda m: m.ops.log_softmax),
        ],
        "sigmoid": [
            torch_peer(torch.sigmoid),
            scipy_peer(lambda m: m.expit),
            keras(lambda m: m.ops.sigmoid),
        ],
        "log_sigmoid": [
            torch_peer(F.logsigmoid),
            scipy_peer(lambda m: m.log_expit),
            keras(lambda m: m.ops.log_sigmoid),
        ],
        "softplus": [torch_peer(F.softplus), keras(lambda m: m.ops.softplus)],
        "cross_entropy": [
            torch_peer(partial(F.cross_entropy, **none)),
            optax(lambda m: m.softmax_cross_entropy_with_integer_labels),
            scipy_peer(lambda m: lambda x, y: picked(m.log_softmax(x, axis=1), y)),
            keras(
                lambda m: (
                    lambda x, y: m.losses.sparse_categorical_crossentropy(y, x, from_logits=True)
                )
            ),
        ],
        "cross_entropy, probabilities": [
            torch_peer(partial(F.cross_entropy, **none)),
            optax(lambda m: m.softmax_cross_entropy),
            keras(lambda m: lambda x, t: m.losses.categorical_crossentropy(t, x, from_logits=True)),
        ],
        "cross_entropy, smoothing": [
            torch_peer(partial(F.cross_entropy, **none, **smooth)),
            optax(
                lambda m: (
                    lambda x, y: m.softmax_cross_entropy(
                        x, m.smooth_labels(hot(y, x.shape[1]).astype(x.dtype), 0.1)
                    )
                )
            ),
            keras(
                lambda m: (
                    lambda x, y: m.losses.categorical_crossentropy(
                        hot(y, x.shape[1]).astype(x.dtype), x, from_logits=True, **smooth
                    )
                )
            ),
        ],
        "nll": [torch_peer(partial(F.nll_loss, **none))],
        "kl_div": [
            torch_peer(partial(F.kl_div, **none)),
            optax(lambda m: lambda x, t: m.kl_divergence(x[:, None], t[:, None])),
        ],
        "distillation": [
            torch_peer(
                lambda s, t: (
                    16
                    * F.kl_div(
                        (s / 4).log_softmax(1), (t / 4).log_softmax(1), log_target=True, **none
                    ).sum(1)
                )
            )
        ],
        "generalized cross_entropy": [
            keras(
                lambda m: of_softmax(
                    m, lambda p, y: m.losses.categorical_generalized_cross_entropy(y, p, 0.7)
                )
            )
        ],
        "z_loss": [torch_peer(lambda x: torch.logsumexp(x, 1) ** 2)],
        "focal": [
            optional_peer("kornia", "kornia.losses", kornia_focal),
            keras(
                lambda m: (
                    lambda x, y: m.losses.categorical_focal_crossentropy(
                        hot(y, x.shape[1]), x, alpha=1.0, gamma=2.0, from_logits=True
                    )
                )
            ),
        ],
        "multi_margin": [torch_peer(partial(F.multi_margin_loss, **none))],
        "dice": [
            # its overlap is halved in numerator and denominator, and so is its smoothing
            optax(lambda m: lambda x, t: m.dice_loss(x[..., None], t[..., None], smooth=0.5))
        ],
        "bce 0/1": bce,
        "bce soft": bce,
        "bce pos_weight": [weighted_bce],
        "bce of probs": probabilities,
        "bce of probs soft": probabilities,
        **{
            f"sigmoid focal {targets} {gamma} {alpha}": focal_peers(targets, gamma, alpha)
            for targets in ("binary", "soft")
            for gamma, alpha in [(0.0, None), (0.5, None), (2.0, 0.25), (5.0, None)]
        },
        "hinge": [optax(lambda m: m.hinge_loss), keras(lambda m: columns(m.losses.hinge))],
        "logistic": [torch_peer(partial(F.soft_margin_loss, **none))],
        "mse": [
            torch_peer(partial(F.mse_loss, **none)),
            optax(lambda m: m.squared_error),
            keras(lambda m: columns(m.losses.mean_squared_error)),
        ],
        "l1": [
            torch_peer(partial(F.l1_loss, **none)),
            # its slope where prediction and target are equal is 1: a choice, no error
            without_gradient(keras(lambda m: columns(m.losses.mean_absolute_error))),
        ],
        "huber": [
            torch_peer(partial(F.huber_loss, delta=1.3, **none)),
            optax(lambda m: partial(m.huber_loss, delta=1.3)),
            keras(lambda m: columns(partial(m.losses.huber, delta=1.3))),
        ],
        "smooth l1": [torch_peer(partial(F.smooth_l1_loss, beta=0.7, **none))],
        "smooth l1, beta 0": [torch_peer(partial(F.smooth_l1_loss, beta=0.0, **none))],
        "log-cosh": [
            optax(lambda m: m.log_cosh),
            keras(lambda m: columns(m.losses.log_cosh)),
        ],
        "gaussian": [torch_peer(lambda x, t: F.gaussian_nll_loss(x, t, 0.7, **none))],
        "gaussian full": [
            torch_peer(lambda x, t: F.gaussian_nll_loss(x, t, 3.0, full=True, **none))
        ],
        "pairwise": [torch_peer(partial(F.pairwise_distance, eps=0.0))],
        "triplet": [
            torch_peer(partial(F.triplet_margin_loss, eps=0.0, **none)),
            optax(lambda m: partial(m.triplet_margin_loss, eps=0.0)),
            nce("TripletMarginLoss", triplets, margin=1.0),
        ],
        "batch hard": [batch_hard_peer(0.7)],
        "info_nce": [nce("NTXentLoss", queries_and_keys, temperature=0.1)],
        "info_nce, cold": [nce("NTXentLoss", queries_and_keys, temperature=0.01)],
        "nt_xent": [
            optax(nt_xent_of_optax, mean=True),
            nce("NTXentLoss", pairs_of_views, temperature=0.5),
        ],
        "sup_con": [nce("SupConLoss", lambda z, labels: ((z, labels), {}), temperature=0.1)],
        "arcface": [angular_peer("ArcFaceLoss", margin=math.degrees(0.5), scale=8.0)],
        "arcface, wide margin": [angular_peer("ArcFaceLoss", margin=math.degrees(2.0), scale=8.0)],
        "cosface": [angular_peer("CosFaceLoss", margin=0.35, scale=8.0)],
        "clip": [torch_peer(clip_formula, "open_clip's formula")],
        "siglip": [torch_peer(siglip_formula, "open_clip's formula")],
    }


def averaged(question):
    """The same question about the mean of the losses."""
    count = len(question.values)

    def part(slopes):
        return [[entry / count for entry in row] for row in slopes]

    return replace(
        question,
        values=sum(question.values) / count,
        gradients=[part(slopes) for slopes in question.gradients],
        floor=None,
        gradient_floors=[part(scales) for scales in question.gradient_floors],
    )
