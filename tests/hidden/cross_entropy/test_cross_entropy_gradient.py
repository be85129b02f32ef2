"""Hidden checks of `cross_entropy_gradient(logits, target)`."""

from __future__ import annotations

import math

import pytest
import torch

import lossref
from autograder.checking import Tolerance

# The tolerance at large logits is one rounding of a logit of 80, or of 1e4.
SMALL = Tolerance(rtol=1e-5, atol=1e-6)
FAR = Tolerance(rtol=1e-4, atol=1e-5)
LARGE = {
    torch.float32: Tolerance(rtol=2e-3, atol=2e-3),
    torch.float64: Tolerance(rtol=1e-11, atol=1e-11),
}
OF_DTYPE = {
    torch.float16: Tolerance(rtol=1e-2, atol=2e-3),
    torch.bfloat16: Tolerance(rtol=6e-2, atol=2e-2),
    torch.float32: SMALL,
    torch.float64: Tolerance(rtol=1e-12, atol=1e-14),
}
EXTREME = {
    "common offset": ([1e4, 1e4 + 1, 1e4 + 3, 1e4 - 1], 1),
    "very negative": ([-8e3, -8e3 - 2, -8e3 + 1], 0),
    "confident and wrong": ([9e3, -9e3, 0.0], 1),
    "ruled out": ([3e3, -math.inf, 3e3 + 1, -math.inf], 2),
}


def reference(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    logits = logits.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(lossref.cross_entropy(logits, target), logits)
    return gradient


@pytest.mark.points(1)
@pytest.mark.hint("For one sample: the probabilities, with 1 subtracted at the target class.")
@pytest.mark.parametrize("classes", [2, 3, 10, 17])
def test_one_sample(check_values, classes, device, generator):
    """The gradient for a single sample is right."""
    logits = 2 * torch.randn((1, classes), generator=generator)
    target = torch.randint(classes, (1,), generator=generator)
    arguments = logits.to(device), target.to(device)
    check_values("cross_entropy_gradient", reference, *arguments, tolerance=SMALL)


@pytest.mark.points(1)
@pytest.mark.hint(
    "Change one entry in each row, and divide by N: the loss is a mean over the N samples."
)
@pytest.mark.parametrize("offset", [0.0, 80.0])
@pytest.mark.parametrize("shape", [(2, 3), (5, 4), (16, 10), (33, 7)])
def test_batch(check_values, shape, offset, device, generator):
    """The gradient for a batch is right, also if the logits of its samples lie far apart."""
    logits = torch.randn(shape, generator=generator)
    logits[::2] += offset
    logits[1::2] -= offset
    target = torch.randint(shape[1], shape[:1], generator=generator)
    arguments = logits.to(device), target.to(device)
    check_values("cross_entropy_gradient", reference, *arguments, tolerance=FAR)


@pytest.mark.points(1)
@pytest.mark.hint("Subtract from each row its own largest logit before you exponentiate.")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", list(EXTREME))
def test_extreme_logits(check_values, case, dtype, device, generator):
    """The gradient is right for logits up to 10,000 in size and for -inf."""
    row, label = EXTREME[case]
    logits = torch.tensor([row], dtype=dtype)
    logits += torch.rand(logits.shape, generator=generator, dtype=dtype) / 2
    arguments = logits.to(device), torch.tensor([label]).to(device)
    check_values("cross_entropy_gradient", reference, *arguments, tolerance=LARGE[dtype])


@pytest.mark.points(1)
@pytest.mark.hint(
    "A one-hot matrix takes its dtype and device from the logits, and the logits stay unchanged."
)
@pytest.mark.parametrize("dtype", list(OF_DTYPE), ids=str)
def test_dtype_and_input(student, dtype, device, generator):
    """The result has the logits' dtype, device and accuracy; the inputs stay unchanged."""
    logits = torch.randn((1, 6), generator=generator).to(device, dtype)
    target = torch.randint(6, (1,), generator=generator).to(device)
    student.check("cross_entropy_gradient", reference, logits, target, tolerance=OF_DTYPE[dtype])
