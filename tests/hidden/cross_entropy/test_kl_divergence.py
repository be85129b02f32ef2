"""Hidden checks of `kl_divergence(p, q)`."""

from __future__ import annotations

import pytest
import torch

import lossref
from autograder.checking import Tolerance

# A clamp at 1e-7 moves a term by about 2e-6; that is for the check about infinity to find.
VALUES = Tolerance(rtol=1e-4, atol=1e-5)
OF_DTYPE = {
    torch.float16: Tolerance(rtol=1e-2, atol=5e-3),
    torch.bfloat16: Tolerance(rtol=5e-2, atol=4e-2),
    torch.float32: Tolerance(rtol=1e-5, atol=1e-6),
    torch.float64: Tolerance(rtol=1e-12, atol=1e-14),
}
P_WITH_ZEROS = [[0.0, 0.25, 0.75, 0.0], [0.5, 0.0, 0.0, 0.5], [0.0, 0.0, 1.0, 0.0]]


def reference(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    terms = lossref.kl_div(q.double().log(), p.double(), reduction="none")
    return terms.sum(dim=1).to(p.dtype)


def random_distributions(shape, generator, *, zero=()):
    weights = torch.rand(shape, generator=generator) + 0.1
    for column in zero:
        weights[:, column] = 0.0
    return weights / weights.sum(dim=1, keepdim=True)


@pytest.mark.points(1)
@pytest.mark.hint("Sum p·(ln p − ln q) over the classes, in this order, and give one number a row.")
@pytest.mark.parametrize("shape", [(1, 2), (4, 5), (7, 3), (3, 16)])
def test_positive_probabilities(check_values, shape, device, generator):
    """The divergence is right where all probabilities are positive."""
    p, q = (random_distributions(shape, generator).to(device) for _ in range(2))
    check_values("kl_divergence", reference, p, q, tolerance=VALUES)


@pytest.mark.points(1)
@pytest.mark.hint("0 times the logarithm of 0 counts as 0; in floating point it is NaN.")
@pytest.mark.parametrize("zero", [(), (0,)], ids=["q positive", "q zero too"])
def test_zeros_in_p(check_values, zero, device, generator):
    """A class with p = 0 contributes nothing, whether q is 0 there or not."""
    p = random_distributions((4, 5), generator, zero=(0, 3)).to(device)
    q = random_distributions((4, 5), generator, zero=zero).to(device)
    check_values("kl_divergence", reference, p, q, tolerance=VALUES)


@pytest.mark.points(1)
@pytest.mark.hint(
    "If q rules out a class that p does not, the divergence is infinite: leave that logarithm as "
    "it is, without a small number, a clamp or a mask."
)
@pytest.mark.parametrize("shape", [(1, 3), (4, 5)])
def test_zeros_in_q(check_values, shape, device, generator):
    """The divergence of a row is infinite where q is 0 and p is not."""
    p = random_distributions(shape, generator)
    q = random_distributions(shape, generator)
    q[-1] = random_distributions((1, shape[1]), generator, zero=(1,))
    check_values("kl_divergence", reference, p.to(device), q.to(device), tolerance=VALUES)


@pytest.mark.points(1)
@pytest.mark.hint(
    "Use torch operations throughout. Where p is 0, replace the zeros before the logarithm, not "
    "the terms after it, or its infinite slope gives NaN."
)
@pytest.mark.parametrize("zeros", [False, True], ids=["p positive", "zeros in p"])
def test_gradient(check_gradients, zeros, device, generator):
    """Autograd finds the right gradient, with respect to q also where p is 0."""
    q = random_distributions((3, 4), generator)
    p = torch.tensor(P_WITH_ZEROS) if zeros else random_distributions((3, 4), generator)
    check_gradients(
        "kl_divergence",
        reference,
        p.to(device),
        q.to(device),
        of=(1,) if zeros else (0, 1),
        tolerance=Tolerance(rtol=1e-4, atol=1e-5),
    )


@pytest.mark.points(1)
@pytest.mark.hint(
    "Do not convert the dtype or change the arguments in place; new tensors take dtype and device "
    "from them."
)
@pytest.mark.parametrize("dtype", list(OF_DTYPE), ids=str)
def test_dtype_and_input(student, dtype, device, generator):
    """The result has the inputs' dtype, device and accuracy; the inputs stay unchanged."""
    p = random_distributions((4, 5), generator, zero=(2,)).to(device, dtype)
    q = random_distributions((4, 5), generator).to(device, dtype)
    student.check("kl_divergence", reference, p, q, tolerance=OF_DTYPE[dtype])
