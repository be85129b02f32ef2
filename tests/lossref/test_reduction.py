"""Reductions: values, denominators, masks, gradients."""

import math

import numpy as np
import pytest
import torch

import lossref


def test_each_reduction():
    losses = torch.tensor([1.0, 2.0, 6.0])
    assert lossref.reduce(losses, "none").tolist() == [1.0, 2.0, 6.0]
    assert lossref.reduce(losses, "sum") == 9
    assert lossref.reduce(losses, "mean") == 3
    assert lossref.reduce(losses, "mean", denominator=9) == 1
    assert lossref.reduce(losses, "mean", denominator=torch.tensor(18)) == 0.5


def test_a_weighted_mean_divides_by_the_sum_of_the_weights():
    losses = torch.tensor([[1.0, 2.0], [4.0, 8.0]])
    weight = torch.tensor([1.0, 3.0])
    assert lossref.reduce(losses, "none", weight=weight).tolist() == [[1.0, 6.0], [4.0, 24.0]]
    assert lossref.reduce(losses, "mean", weight=weight) == 35 / 8
    mask = torch.tensor([[True, True], [False, True]])
    assert lossref.reduce(losses, "mean", weight=weight, mask=mask) == 31 / 7


@pytest.mark.parametrize("poison", [math.nan, math.inf])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_masked_losses_touch_nothing(poison, reduction):
    losses = torch.tensor([1.0, poison, 3.0], requires_grad=True)
    weight = torch.tensor([1.0, poison, 1.0])
    mask = torch.tensor([True, False, True])
    got = lossref.reduce(losses, reduction, mask=mask, weight=weight)
    (gradient,) = torch.autograd.grad(got.sum(), losses)
    assert got.sum() == {"none": 4.0, "sum": 4.0, "mean": 2.0}[reduction]
    assert gradient[1] == 0
    assert gradient.isfinite().all()


@pytest.mark.parametrize("shape", [(0,), (3,)])
def test_a_mean_over_nothing(shape):
    losses = torch.full(shape, torch.nan, requires_grad=True)
    mask = torch.zeros(shape, dtype=torch.bool)
    got = lossref.reduce(losses, "mean", mask=mask)
    (gradient,) = torch.autograd.grad(got, losses)
    assert got == 0
    assert torch.equal(gradient, torch.zeros(shape))
    assert lossref.reduce(losses, "mean", mask=mask, nan_if_empty=True).isnan()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_means_accumulate_one_format_up(dtype):
    losses = torch.full((5000,), 100.0, dtype=dtype)
    got = lossref.reduce(losses, "mean")
    assert got.dtype == dtype
    assert got == 100


def test_numpy_in_numpy_out():
    got = lossref.reduce(np.array([1.0, 2.0], dtype=np.float32), "mean")
    assert got.dtype == np.float32
    assert got == 1.5


def test_value_and_grad_takes_positions_and_keeps_kinds():
    def loss(x, y):
        return lossref.reduce(lossref.softplus(x) * y, "sum")

    x, y = np.array([0.0, 1.0]), np.array([2.0, 3.0])
    value, (to_x, to_y) = lossref.value_and_grad(loss, argnums=(0, 1))(x, y)
    np.testing.assert_allclose(value, (np.logaddexp(0, x) * y).sum(), rtol=1e-15)
    np.testing.assert_allclose(to_x, y / (1 + np.exp(-x)), rtol=1e-15)
    np.testing.assert_allclose(to_y, np.logaddexp(0, x), rtol=1e-15)
    value, gradient = lossref.value_and_grad(loss)(torch.tensor(x), torch.tensor(y))
    assert isinstance(gradient, torch.Tensor)
    assert not value.requires_grad
    assert gradient.tolist() == to_x.tolist()


def test_bad_input_is_named():
    losses = torch.ones(3)
    names = "reduction must be one of 'none', 'mean', 'sum', got 'max'"
    with pytest.raises(ValueError, match=names):
        lossref.reduce(losses, "max")
    shape = r"weight must broadcast to shape \(3,\), but has shape \(2,\)"
    with pytest.raises(ValueError, match=shape):
        lossref.reduce(losses, "mean", weight=torch.ones(2))
    with pytest.raises(TypeError, match=r"mask must be a boolean array, but is torch.float32"):
        lossref.reduce(losses, "mean", mask=losses)
    with pytest.raises(TypeError, match=r"losses must be float16"):
        lossref.reduce(losses.int(), "mean")
    with pytest.raises(TypeError, match=r"argument 0 must be a floating array to have a gradient"):
        lossref.value_and_grad(lossref.softmax)(np.array([1, 2]))
