"""Hidden checks of `softmax(logits)`."""

from __future__ import annotations

import math

import pytest
import torch

import lossref
from autograder.checking import Tolerance

# The larger tolerance at large logits is one rounding of a logit of 1e4.
SMALL = Tolerance(rtol=1e-5, atol=1e-7)
LARGE = Tolerance(rtol=2e-3, atol=1e-6)
OF_DTYPE = {
    torch.float16: Tolerance(rtol=1e-2, atol=1e-4),
    torch.bfloat16: Tolerance(rtol=8e-2, atol=1e-3),
    torch.float32: SMALL,
    torch.float64: Tolerance(rtol=1e-12, atol=1e-15),
}
FAR_APART = [[1e4, -1e4, 0.0], [-1e4, -1e4 + 2, -1e4 + 1]]
COMMON_OFFSET = [[1e4, 1e4 + 1, 1e4 + 3], [-5e3, -5e3 + 2, -5e3 - 1]]
WIDE = [[120.0, -120.0, 0.0, 119.0], [60.0, -60.0, 61.0, 0.0]]
RULED_OUT = [[-math.inf, 0.5, 2.0], [1.0, -math.inf, -math.inf], [300.0, -math.inf, 301.0]]


def reference(logits: torch.Tensor) -> torch.Tensor:
    return lossref.softmax(logits, axis=1)


@pytest.mark.points(1)
@pytest.mark.hint("Each row is one sample: exponentiate it and divide it by its own sum.")
@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (5, 3), (3, 17), (40, 10)])
def test_moderate_logits(check_values, shape, device, generator):
    """Logits of ordinary size give the right probabilities, for any N and C."""
    logits = 2 * torch.randn(shape, generator=generator)
    check_values("softmax", reference, logits.to(device), tolerance=SMALL)


@pytest.mark.points(1)
@pytest.mark.hint("Subtract from each row its own largest logit before you exponentiate.")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [FAR_APART, COMMON_OFFSET, WIDE, RULED_OUT])
def test_extreme_logits(check_values, rows, dtype, device, generator):
    """Logits of any size, from -10,000 to 10,000 and also -inf, give the right probabilities."""
    logits = torch.tensor(rows, dtype=dtype)
    logits += torch.rand(logits.shape, generator=generator, dtype=dtype) / 2
    check_values("softmax", reference, logits.to(device), tolerance=LARGE)


@pytest.mark.points(1)
@pytest.mark.hint(
    "Use torch operations from the logits to the result, and leave the logits as they are: no "
    "`.detach()`, `.data`, `.item()`, `torch.tensor(...)` or in-place change on the way."
)
@pytest.mark.parametrize("ruled_out", [0, 2])
@pytest.mark.parametrize("shape", [(1, 3), (6, 5), (4, 12)])
def test_gradient(check_gradients, shape, ruled_out, device, generator):
    """Autograd finds the right gradient through the result, also beside logits of -inf."""
    logits = 2 * torch.randn(shape, generator=generator)
    logits[:, :ruled_out] = -math.inf
    tolerance = Tolerance(rtol=1e-4, atol=1e-6)
    check_gradients("softmax", reference, logits.to(device), of=(0,), tolerance=tolerance)


@pytest.mark.points(1)
@pytest.mark.hint(
    "Do not convert the dtype, add small numbers or change the logits in place; new tensors take "
    "dtype and device from the logits."
)
@pytest.mark.parametrize("dtype", list(OF_DTYPE), ids=str)
def test_dtype_and_input(student, dtype, device, generator):
    """The result has the logits' dtype, device and accuracy; the logits stay unchanged."""
    logits = torch.randn((4, 6), generator=generator).to(device, dtype)
    student.check("softmax", reference, logits, tolerance=OF_DTYPE[dtype])
