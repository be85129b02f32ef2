"""Worst error in units in the last place, value and gradient, of this library and its peers.

The oracle is that of the tests: 1200-bit arithmetic. Inputs are the hard ones of the tests:
certain and certainly wrong predictions, logits of ±1e4, subnormals, random of every size.

Run: python benchmarks/accuracy.py [--device cuda]
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from report import optional, publish

import lossref

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "lossref"))

import loss_oracle as oracle
from hard_inputs import hard_rows
from loss_oracle import FLOATS, exact, mp, mpf, one_hot, worst

CLASSES = 6


def torch_side(loss):
    """Value and gradient of a torch loss."""

    def side(x, target):
        x = x.clone().requires_grad_()
        value = loss(x, target)
        (gradient,) = torch.autograd.grad(value.sum(), x)
        return value.detach(), gradient

    return side


def jax_side(loss):
    """Value and gradient of a JAX loss; it gets NumPy arrays and computes on the CPU."""
    import jax

    jax.config.update("jax_enable_x64", True)

    def convert(array, dtype):
        return torch.from_numpy(np.array(array, dtype=np.float64)).to(dtype)

    def side(x, target):
        array = jax.numpy.asarray(x.cpu().double().numpy()).astype(str(x.dtype)[6:])
        labels = jax.numpy.asarray(target.cpu().double().numpy()).astype(
            array.dtype if target.is_floating_point() else int
        )
        value, back = jax.vjp(lambda a: loss(a, labels), array)
        (gradient,) = back(jax.numpy.ones_like(value))
        return convert(value, x.dtype), convert(gradient, x.dtype)

    return side


def scipy_log_softmax(x, target):
    """scipy has the log-softmax, and no gradient."""
    special = optional("scipy.special")
    array = x.cpu().numpy()
    rows = special.log_softmax(array, axis=1)
    picked = -rows[np.arange(len(rows)), target.cpu().numpy()]
    return torch.from_numpy(picked.astype(array.dtype)), None


def row_case(dtype, device):
    """Hard rows of logits with indices, and the exact cross-entropy and gradient."""
    generator = torch.Generator().manual_seed(1)
    rows = [row for _, row in hard_rows(dtype, CLASSES, generator)]
    rows = [row for row in rows if row.isfinite().all()]
    x = torch.stack([row for row in rows for _ in range(2)])
    y = torch.tensor([0, CLASSES - 1] * len(rows))
    found = [
        oracle.cross_entropy(exact(row), one_hot(int(k), CLASSES))
        for row, k in zip(x, y, strict=True)
    ]
    return x.to(device), y.to(device), [f[0] for f in found], [f[1] for f in found]


def points(dtype):
    generator = torch.Generator().manual_seed(2)
    spread = [torch.randn(60, generator=generator).double() * s for s in (0.1, 3.0, 30.0, 300.0)]
    ends = torch.tensor([0.0, 1e4, -1e4, 17.0, -17.0, 88.0, -88.0, 104.0, -104.0]).double()
    return torch.cat([ends, *spread]).to(dtype)


def binary_case(dtype, device):
    x = points(dtype)
    t = (torch.arange(len(x)) % 2).to(dtype)
    pairs = list(zip(exact(x), exact(t), strict=True))
    losses = [mp.log1p(mp.exp(-v if k else v)) for v, k in pairs]
    slopes = [-1 / (1 + mp.exp(v)) if k else 1 / (1 + mp.exp(-v)) for v, k in pairs]
    return x.to(device), t.to(device), losses, slopes


def focal_case(dtype, device):
    x, t, losses, slopes = binary_case(dtype, device)
    gamma = mpf(2)
    q = [abs(s) for s in slopes]
    values = [a**gamma * b for a, b in zip(q, losses, strict=True)]
    signs = [mp.sign(s) for s in slopes]
    gradients = [
        s * a**gamma * (gamma * (1 - a) * b + a) for s, a, b in zip(signs, q, losses, strict=True)
    ]
    return x, t, values, gradients


def peers():
    """Loss, its case, and each library's side or None where it is missing."""
    optax, keras = optional("optax"), optional("keras")
    vision, kornia = optional("torchvision.ops"), optional("kornia.losses")
    yield (
        "cross_entropy",
        row_case,
        {
            "lossref": torch_side(lambda x, y: lossref.cross_entropy(x, y, reduction="none")),
            "torch": torch_side(lambda x, y: F.cross_entropy(x, y, reduction="none")),
            "optax": optax and jax_side(optax.softmax_cross_entropy_with_integer_labels),
            "scipy": optional("scipy.special") and scipy_log_softmax,
            "keras": keras and keras_side("sparse_categorical_crossentropy"),
        },
    )
    yield (
        "binary_cross_entropy_with_logits",
        binary_case,
        {
            "lossref": torch_side(
                lambda x, t: lossref.binary_cross_entropy_with_logits(x, t, reduction="none")
            ),
            "torch": torch_side(
                lambda x, t: F.binary_cross_entropy_with_logits(x, t, reduction="none")
            ),
            "optax": optax and jax_side(optax.sigmoid_binary_cross_entropy),
            "keras": keras and keras_side("binary_crossentropy"),
        },
    )
    yield (
        "sigmoid_focal_loss, gamma 2",
        focal_case,
        {
            "lossref": torch_side(
                lambda x, t: lossref.sigmoid_focal_loss(x, t, gamma=2.0, reduction="none")
            ),
            "torchvision": vision
            and torch_side(lambda x, t: vision.sigmoid_focal_loss(x, t, alpha=-1, gamma=2.0)),
            "optax": optax and jax_side(lambda x, t: optax.sigmoid_focal_loss(x, t, gamma=2.0)),
            "kornia": kornia
            and torch_side(
                lambda x, t: kornia.binary_focal_loss_with_logits(x, t, alpha=None, gamma=2.0)
            ),
        },
    )


def keras_side(name):
    """A Keras operation on logits, computed by its JAX back end."""
    import os

    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras

    if keras.backend.backend() != "jax":
        return None
    if name == "sparse_categorical_crossentropy":
        operation = keras.ops.sparse_categorical_crossentropy
        return jax_side(lambda x, y: operation(y, x, from_logits=True))
    return jax_side(lambda x, t: keras.ops.binary_crossentropy(t, x, from_logits=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options = parser.parse_args()
    rows, missing = [], set()
    for loss, case, sides in peers():
        for dtype in FLOATS:
            x, target, values, gradients = case(dtype, options.device)
            for library, side in sides.items():
                if side is None:
                    missing.add(library)
                    continue
                if library == "scipy" and dtype == torch.bfloat16:
                    continue
                value, gradient = side(x, target)
                rows.append(
                    {
                        "loss": loss,
                        "dtype": str(dtype)[6:],
                        "library": library,
                        "value ULP": worst(value, values),
                        "gradient ULP": None if gradient is None else worst(gradient, gradients),
                    }
                )
    publish(f"accuracy-{options.device}", rows, sorted(missing))


if __name__ == "__main__":
    main()
