"""The hard cases that every loss of rows of classes must survive, each by its name."""

import functools
import math

import numpy as np
import pytest
import torch
from loss_checks import refused, value_and_gradient
from loss_oracle import FLOATS

import lossref

INDEXED = {
    "cross_entropy": lossref.cross_entropy,
    "smoothed": functools.partial(lossref.cross_entropy, label_smoothing=0.1),
    "nll": lossref.nll_loss,
    "focal": lossref.focal_loss,
    "generalized": lossref.generalized_cross_entropy,
    "multi_margin": lossref.multi_margin_loss,
    "ohem": functools.partial(lossref.ohem_cross_entropy, keep=1.0),
}
LOSSES = [pytest.param(loss, id=name) for name, loss in INDEXED.items()]


@pytest.mark.parametrize("loss", LOSSES)
def test_all_ignored_costs_nothing(loss):
    x, y = torch.ones(3, 4), torch.full((3,), -100)
    got, gradient = value_and_gradient(loss, x, y)
    assert got == 0
    assert torch.equal(gradient, torch.zeros(3, 4))
    assert loss(x, y, nan_if_empty=True).isnan()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_ignored_rows_of_nan_or_infinity_touch_nothing(loss, poison, generator):
    x = torch.randn(4, 3, generator=generator)
    y = torch.tensor([0, -100, 2, -100])
    kept = value_and_gradient(loss, x[::2], y[::2])
    x[1::2] = poison
    got, gradient = value_and_gradient(loss, x, y)
    assert got == kept[0]
    assert torch.equal(gradient[::2], kept[1])
    assert torch.equal(gradient[1::2], torch.zeros(2, 3))


@pytest.mark.parametrize("name", ["cross_entropy", "smoothed", "focal", "generalized", "ohem"])
def test_gradients_of_gradients_with_an_ignored_row_of_nan(name, generator):
    loss = INDEXED[name]
    x = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    factors = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    y, kept = torch.tensor([0, -100, 2, 1]), torch.tensor([0, 2, 3])

    def second(x, y, factors):
        x = x.clone().requires_grad_()
        (slopes,) = torch.autograd.grad(loss(x, y), x, create_graph=True)
        return torch.autograd.grad((slopes * factors).sum(), x)[0]

    expected = second(x[kept], y[kept], factors[kept])
    x[1] = math.nan
    got = second(x, y, factors)
    torch.testing.assert_close(got[kept], expected)
    assert got[1].tolist() == [0.0, 0.0, 0.0]
    few = x[kept].requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: loss(x, y[kept]), few)


@pytest.mark.parametrize("loss", LOSSES)
def test_an_empty_batch_costs_nothing(loss):
    x, y = torch.ones(0, 3), torch.ones(0, dtype=torch.long)
    assert loss(x, y) == 0
    assert loss(x, y, reduction="sum") == 0
    assert loss(x, y, reduction="none").shape == (0,)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_pixels_one_sample_and_strided_memory_give_the_same_bits(loss, dtype, generator):
    images = torch.randn(2, 5, 3, 4, generator=generator).to(dtype)
    y = torch.randint(5, (2, 3, 4), generator=generator)
    whole = loss(images, y, reduction="none")
    assert whole.shape == (2, 3, 4)
    assert whole.dtype == dtype
    rows = images.movedim(1, -1).reshape(-1, 5)
    assert torch.equal(loss(rows, y.flatten(), reduction="none"), whole.flatten())
    assert torch.equal(loss(images[1, :, 2, 3], y[1, 2, 3], reduction="none"), whole[1, 2, 3])
    strided = images.movedim(1, -1).contiguous().movedim(-1, 1)
    assert not strided.is_contiguous()
    assert torch.equal(loss(strided, y, reduction="none"), whole)


@pytest.mark.parametrize("loss", LOSSES)
def test_numpy_gives_the_same_bits_and_inputs_stay(loss, generator):
    x = torch.randn(4, 3, generator=generator)
    y = torch.tensor([0, 1, -100, 2])
    copies = x.clone(), y.clone()
    got = loss(x.numpy(), y.numpy(), reduction="none")
    assert isinstance(got, np.ndarray)
    assert np.array_equal(got, loss(x, y, reduction="none").numpy())
    value_and_gradient(loss, x, y)
    assert torch.equal(x, copies[0])
    assert torch.equal(y, copies[1])


@pytest.mark.parametrize("loss", LOSSES)
def test_a_column_of_targets_and_wrong_names_are_refused(loss):
    x, y = torch.zeros(4, 3), torch.tensor([0, 1, 2, 1])
    refused(ValueError, r"shape \(4,\).*but has shape \(4, 1\); squeeze", loss, x, y[:, None])
    refused(ValueError, r"reduction must be one of .*, got 'avg'", loss, x, y, reduction="avg")
    refused(ValueError, r"class indices in \[0, 3\).*but holds 3", loss, x, y + 1)
    refused(TypeError, r"must be float16, .*but is torch\.int64", loss, x.long(), y)
    refused(TypeError, r"target must hold integer class indices", loss, x, y.bool())


@pytest.mark.parametrize("exponent", [15, 19, 20, 21, 25, 29, 30, 31, 100])
def test_huge_logits_that_are_neighbours(exponent, generator):
    top = 2.0**exponent * (1 + torch.rand(50, 1, generator=generator))
    x = (top.double() - torch.tensor([0.0, 1.0, 17.0, 64.0])).float()
    _, gradient = value_and_gradient(lossref.logsumexp, x)
    exact = torch.softmax(x.double(), 1)
    torch.testing.assert_close(gradient.double(), exact, rtol=2**-23, atol=1e-45)
    shares = lossref.softmax(x)
    torch.testing.assert_close(shares.double(), exact, rtol=2**-23, atol=1e-45)
    losses = lossref.log_softmax(x)
    torch.testing.assert_close(losses.double(), exact.log(), rtol=2**-23, atol=2**-40)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("dtype", FLOATS)
def test_focal_losses_at_probabilities_of_exactly_0_and_1(gamma, dtype):
    inf = math.inf
    x = torch.tensor([[inf, 0.0], [0.0, inf], [-inf, 0.0], [0.0, -inf]], dtype=dtype)
    y = torch.zeros(4, dtype=torch.long)
    got, gradient = value_and_gradient(lossref.focal_loss, x, y, gamma=gamma, reduction="none")
    assert got.tolist() == [0.0, inf, inf, 0.0]
    assert gradient.tolist() == [[0.0, 0.0], [-1.0, 1.0], [-1.0, 1.0], [0.0, 0.0]]
    x, t = torch.tensor([inf, -inf, inf, -inf], dtype=dtype), torch.tensor([1, 0, 0, 1])
    got, gradient = value_and_gradient(
        lossref.sigmoid_focal_loss, x, t, gamma=gamma, reduction="none"
    )
    assert got.tolist() == [0.0, 0.0, inf, inf]
    assert gradient.tolist() == [0.0, 0.0, 1.0, -1.0]


ELEMENTWISE = {
    "mse": (lossref.mse_loss, 200.0, 0.0, 40000.0),
    "l1": (lossref.l1_loss, 6e4, 0.0, 6e4),
    "huber": (lossref.huber_loss, 6e4, 0.0, 6e4),
    "smooth_l1": (lossref.smooth_l1_loss, 6e4, 0.0, 6e4),
    "log_cosh": (lossref.log_cosh_loss, 6e4, 0.0, 6e4),
    "bce": (lossref.binary_cross_entropy_with_logits, 6e4, 0.0, 6e4),
    "sigmoid_focal": (lossref.sigmoid_focal_loss, 6e4, 0.0, 6e4),
    "hinge": (lossref.hinge_loss, -6e4, 1.0, 6e4),
    "logistic": (lossref.logistic_loss, -6e4, 1.0, 6e4),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_float16_sums_over_65504_leave_the_mean_finite(name):
    loss, x, t, mean = ELEMENTWISE[name]
    x, t = (torch.full((300,), v, dtype=torch.float16) for v in (x, t))
    assert loss(x, t) == torch.tensor(mean, dtype=torch.float16)
    assert loss(x, t, reduction="sum") == math.inf


def test_nearly_equal_distributions_keep_a_relative_accuracy():
    step = 1e-9
    student = torch.tensor([[0.0, step]], dtype=torch.float64)
    teacher = torch.zeros(1, 2, dtype=torch.float64)
    got, gradient = value_and_gradient(lossref.distillation_loss, student, teacher)
    # KL of softmax([0, s]) from the uniform distribution is log cosh(s / 2) = s² / 8 - s⁴ / 192
    assert math.isclose(got.item(), step**2 / 8, rel_tol=1e-15)
    # ... and its gradient tanh(s / 2) / 2 = s / 4 - s³ / 48
    assert gradient.tolist() == [[pytest.approx(x, rel=2e-15) for x in (-step / 4, step / 4)]]


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_what_is_added_to_all_logits_changes_no_divergence(temperature, generator):
    teacher = torch.randn(8, 4, generator=generator, dtype=torch.float64).float().double()
    student = (teacher + torch.randn(8, 4, generator=generator) * 2.0**-20).float().double()
    loss = functools.partial(lossref.distillation_loss, temperature=temperature, reduction="none")
    expected = value_and_gradient(loss, student, teacher)
    for shift in (1.0, -3.5, 64.0):
        got = value_and_gradient(loss, student + shift, teacher)
        for ours, theirs in zip(got, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=0)


A_BATCH = torch.linspace(-2.0, 3.0, 24).reshape(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
AT_ONCE = {
    "cross_entropy": (lossref.cross_entropy, 1, A_BATCH),
    "focal": (lossref.focal_loss, 1, A_BATCH),
    "bce": (lossref.binary_cross_entropy_with_logits, 1, (A_BATCH[0], A_BATCH[0].ge(0.5).float())),
    "mse": (lossref.mse_loss, 1, (A_BATCH[0], A_BATCH[0].cos())),
    "triplet": (lossref.triplet_margin_loss, 3, [A_BATCH[0].mul(k).sin() for k in (1, 2, 3)]),
    "arcface": (lossref.arcface_loss, 2, (A_BATCH[0], torch.eye(4), A_BATCH[1])),
    "info_nce": (lossref.info_nce_loss, 2, (A_BATCH[0], A_BATCH[0].cos())),
}


@pytest.mark.parametrize("name", AT_ONCE)
def test_a_gradient_kept_from_the_forward_pass_is_right_every_time(name):
    loss, count, arrays = AT_ONCE[name]
    leaves = [x.clone().requires_grad_() for x in arrays[:count]]
    each = loss(*leaves, *arrays[count:], reduction="none")
    expected = torch.autograd.grad(each.sum() / len(each.flatten()), leaves)
    total = loss(*leaves, *arrays[count:])
    # Several times through one graph, changing in place what it gave, as optimizers do.
    first = torch.autograd.grad(total, leaves, retain_graph=True)
    kept = [gradient.clone() for gradient in first]
    for gradient in first:
        gradient.mul_(3.0)
    again = torch.autograd.grad(total, leaves, retain_graph=True)
    scaled = torch.autograd.grad(loss(*leaves, *arrays[count:]) * 0.7, leaves)
    for want, *got, part in zip(expected, kept, again, scaled, strict=True):
        for gradient in (*got, part / 0.7):
            torch.testing.assert_close(gradient, want, rtol=5e-7, atol=1e-8)
    frozen = [leaves[0], *(x.detach() for x in leaves[1:])]
    (alone,) = torch.autograd.grad(loss(*frozen, *arrays[count:]), frozen[0])
    torch.testing.assert_close(alone, expected[0], rtol=5e-7, atol=1e-8)
