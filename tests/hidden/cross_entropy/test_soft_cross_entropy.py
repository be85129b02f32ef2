"""Hidden checks of `soft_cross_entropy(logits, target)`."""

from __future__ import annotations

import math

import pytest
import torch

import lossref
from autograder.checking import Tolerance

# The absolute tolerance at large logits is one rounding of a logit of 80, or of 1e4.
SMALL = Tolerance(rtol=1e-5, atol=1e-6)
FAR = Tolerance(rtol=1e-5, atol=2e-5)
LARGE = {
    torch.float32: Tolerance(rtol=1e-5, atol=3e-3),
    torch.float64: Tolerance(rtol=1e-12, atol=1e-11),
}
OF_DTYPE = {
    torch.float16: Tolerance(rtol=1e-2, atol=1e-2),
    torch.bfloat16: Tolerance(rtol=5e-2, atol=6e-2),
    torch.float32: SMALL,
    torch.float64: Tolerance(rtol=1e-12, atol=1e-13),
}
EXTREME = {
    "common offset": [1e4, 1e4 + 1, 1e4 + 3, 1e4 - 1],
    "very negative": [-8e3, -8e3 - 2, -8e3 + 1],
    "confident": [9e3, -9e3, 0.0],
    "unlikely": [60.0, -60.0, 10.0, 0.0, 5.0],
}
SPARSE_TARGETS = {
    "one class": [0.0, 0.0, 0.0, 1.0, 0.0],
    "two classes": [0.0, 0.25, 0.0, 0.75, 0.0],
    "four classes": [0.0, 0.125, 0.125, 0.5, 0.25],
}


def random_target(shape, generator, *, zeros=0):
    weights = torch.rand(shape, generator=generator) + 0.05
    weights[:, :zeros] = 0.0
    return weights / weights.sum(dim=1, keepdim=True)


@pytest.mark.points(1)
@pytest.mark.hint("Weigh the logarithm of each probability with its target and sum over classes.")
@pytest.mark.parametrize("classes", [2, 3, 10, 17])
def test_one_sample(check_values, classes, device, generator):
    """The loss of a single sample is right."""
    logits = 2 * torch.randn((1, classes), generator=generator)
    target = random_target((1, classes), generator)
    arguments = logits.to(device), target.to(device)
    check_values("soft_cross_entropy", lossref.cross_entropy, *arguments, tolerance=SMALL)


@pytest.mark.points(1)
@pytest.mark.hint("Sum over the classes first, then divide the sum over the samples by N alone.")
@pytest.mark.parametrize("offset", [0.0, 80.0])
@pytest.mark.parametrize("shape", [(2, 3), (5, 4), (16, 10), (33, 7)])
def test_batch(check_values, shape, offset, device, generator):
    """The loss of a batch is the mean over its samples, also if their logits lie far apart."""
    logits = torch.randn(shape, generator=generator)
    logits[::2] += offset
    logits[1::2] -= offset
    arguments = logits.to(device), random_target(shape, generator).to(device)
    check_values("soft_cross_entropy", lossref.cross_entropy, *arguments, tolerance=FAR)


@pytest.mark.points(1)
@pytest.mark.hint(
    "Never take the logarithm of a probability: subtract the logarithm of the row's sum of "
    "exponentials from the logits, after shifting them by the row's largest logit."
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", list(EXTREME))
def test_large_logits(check_values, case, dtype, device, generator):
    """The loss is right for logits up to 10,000 in size, however confident the prediction."""
    logits = torch.tensor([EXTREME[case]], dtype=dtype)
    logits += torch.rand(logits.shape, generator=generator, dtype=dtype) / 2
    target = random_target(logits.shape, generator).to(dtype)
    arguments = logits.to(device), target.to(device)
    check_values("soft_cross_entropy", lossref.cross_entropy, *arguments, tolerance=LARGE[dtype])


@pytest.mark.points(1)
@pytest.mark.hint(
    "Where the target is 0, replace the logarithm by a finite number before you multiply: "
    "0 times -inf is NaN."
)
@pytest.mark.parametrize("case", list(SPARSE_TARGETS))
@pytest.mark.parametrize("ruled_out", [(), (0,)], ids=["finite", "ruled out"])
def test_targets_of_zero(check_values, case, ruled_out, device, generator):
    """A class with target 0 contributes nothing, also where its logit is -inf."""
    logits = torch.randn((1, 5), generator=generator)
    logits[:, list(ruled_out)] = -math.inf
    arguments = logits.to(device), torch.tensor([SPARSE_TARGETS[case]]).to(device)
    check_values("soft_cross_entropy", lossref.cross_entropy, *arguments, tolerance=SMALL)


@pytest.mark.points(1)
@pytest.mark.hint(
    "Use torch operations from the logits to the result, and leave the logits as they are: no "
    "`.detach()`, `.data`, `.item()`, `torch.tensor(...)` or in-place change on the way."
)
@pytest.mark.parametrize("ruled_out", [0, 2])
@pytest.mark.parametrize("shape", [(3, 4), (6, 5), (20, 11)])
def test_gradient(check_gradients, shape, ruled_out, device, generator):
    """Autograd finds the right gradient for the logits, also beside logits of -inf."""
    logits = 2 * torch.randn(shape, generator=generator)
    logits[:, :ruled_out] = -math.inf
    check_gradients(
        "soft_cross_entropy",
        lossref.cross_entropy,
        logits.to(device),
        random_target(shape, generator, zeros=ruled_out).to(device),
        of=(0,),
        tolerance=Tolerance(rtol=1e-4, atol=1e-6),
    )


@pytest.mark.points(1)
@pytest.mark.hint(
    "Do not convert the dtype, add small numbers or change the logits in place; new tensors take "
    "dtype and device from the logits."
)
@pytest.mark.parametrize("dtype", list(OF_DTYPE), ids=str)
def test_dtype_and_input(student, dtype, device, generator):
    """The result has the logits' dtype, device and accuracy; the inputs stay unchanged."""
    logits = torch.randn((1, 6), generator=generator).to(device, dtype)
    target = random_target((1, 6), generator).to(device, dtype)
    student.check(
        "soft_cross_entropy", lossref.cross_entropy, logits, target, tolerance=OF_DTYPE[dtype]
    )
