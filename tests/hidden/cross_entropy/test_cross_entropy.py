"""Hidden checks of `cross_entropy(logits, target)`."""

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
    "common offset": ([1e4, 1e4 + 1, 1e4 + 3, 1e4 - 1], 1),
    "very negative": ([-8e3, -8e3 - 2, -8e3 + 1], 0),
    "confident and wrong": ([9e3, -9e3, 0.0], 1),
    "confident and right": ([500.0, 9e3, 0.0], 1),
    "unlikely": ([60.0, -60.0, 10.0, 0.0, 5.0], 1),
}


def random_batch(shape, generator, *, scale=2.0):
    logits = scale * torch.randn(shape, generator=generator)
    return logits, torch.randint(shape[1], shape[:1], generator=generator)


@pytest.mark.points(1)
@pytest.mark.hint("The loss is -ln of the probability that the softmax gives to the target class.")
@pytest.mark.parametrize("classes", [2, 3, 10, 17])
def test_one_sample(check_values, classes, device, generator):
    """The loss of a single sample is right."""
    logits, target = random_batch((1, classes), generator)
    arguments = logits.to(device), target.to(device)
    check_values("cross_entropy", lossref.cross_entropy, *arguments, tolerance=SMALL)


@pytest.mark.points(1)
@pytest.mark.hint(
    "Take one loss from each row, with that row's own shift, and divide their sum by N."
)
@pytest.mark.parametrize("offset", [0.0, 80.0])
@pytest.mark.parametrize("shape", [(2, 3), (5, 4), (16, 10), (33, 7)])
def test_batch(check_values, shape, offset, device, generator):
    """The loss of a batch is the mean over its samples, also if their logits lie far apart."""
    logits, target = random_batch(shape, generator, scale=1.0)
    logits[::2] += offset
    logits[1::2] -= offset
    arguments = logits.to(device), target.to(device)
    check_values("cross_entropy", lossref.cross_entropy, *arguments, tolerance=FAR)


@pytest.mark.points(1)
@pytest.mark.hint(
    "Never take the logarithm of a probability: subtract the logarithm of the row's sum of "
    "exponentials from the target logit, after shifting both by the row's largest logit."
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", list(EXTREME))
def test_large_logits(check_values, case, dtype, device, generator):
    """The loss is right for logits up to 10,000 in size, however confident the prediction."""
    row, label = EXTREME[case]
    logits = torch.tensor([row], dtype=dtype)
    logits += torch.rand(logits.shape, generator=generator, dtype=dtype) / 2
    arguments = logits.to(device), torch.tensor([label]).to(device)
    check_values("cross_entropy", lossref.cross_entropy, *arguments, tolerance=LARGE[dtype])


@pytest.mark.points(1)
@pytest.mark.hint("Pick the target logit by its index: 0 times -inf, from a one-hot row, is NaN.")
@pytest.mark.parametrize("ruled_out", [(0,), (2, 5), (0, 1, 2, 4), (0, 1, 2, 4, 5)])
def test_classes_ruled_out(check_values, ruled_out, device, generator):
    """A logit of -inf leaves its class out of the loss."""
    logits = torch.randn((1, 6), generator=generator)
    logits[:, list(ruled_out)] = -math.inf
    arguments = logits.to(device), torch.tensor([3]).to(device)
    check_values("cross_entropy", lossref.cross_entropy, *arguments, tolerance=SMALL)


@pytest.mark.points(1)
@pytest.mark.hint(
    "Use torch operations from the logits to the result, and leave the logits as they are: no "
    "`.detach()`, `.data`, `.item()`, `torch.tensor(...)` or in-place change on the way."
)
@pytest.mark.parametrize("ruled_out", [0, 2])
@pytest.mark.parametrize("shape", [(3, 4), (6, 5), (20, 11)])
def test_gradient(check_gradients, shape, ruled_out, device, generator):
    """Autograd finds the right gradient of the mean loss, also beside logits of -inf."""
    logits, target = random_batch(shape, generator)
    logits[0, target[0]] -= 30
    target = target.clamp_min(ruled_out)
    logits[:, :ruled_out] = -math.inf
    check_gradients(
        "cross_entropy",
        lossref.cross_entropy,
        logits.to(device),
        target.to(device),
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
    logits, target = random_batch((1, 6), generator, scale=1.0)
    arguments = logits.to(device, dtype), target.to(device)
    student.check("cross_entropy", lossref.cross_entropy, *arguments, tolerance=OF_DTYPE[dtype])
