"""Cross-entropy of a linear layer by chunks of rows."""

import functools
import itertools
import math

import loss_oracle as oracle
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_checks import refused
from mpmath import mp, mpf

import lossref
from lossref import _linear_cross_entropy
from lossref._linear_cross_entropy import BLOCK_LOGITS


def layer(generator, rows=11, width=5, vocabulary=17, dtype=torch.float64):
    hidden = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    weight = torch.randn(vocabulary, width, generator=generator, dtype=torch.float64)
    bias = torch.randn(vocabulary, generator=generator, dtype=torch.float64)
    target = torch.randint(vocabulary, (rows,), generator=generator)
    target[3] = -100
    leaves = [x.to(dtype).requires_grad_() for x in (hidden, weight, bias)]
    return (*leaves, target)


def naive(hidden, weight, bias, target, smoothing=0.0, zeta=0.0, reduction="mean"):
    logits = F.linear(hidden, weight, bias)
    losses = F.cross_entropy(logits, target, label_smoothing=smoothing, reduction="none")
    losses = losses + zeta * torch.where(target >= 0, torch.logsumexp(logits, -1) ** 2, 0)
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.sum() / (target >= 0).sum()


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("zeta", [0.0, 0.01])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("chunk", [None, 1, 3, 100])
def test_agrees_with_the_layer_and_the_loss(reduction, smoothing, zeta, biased, chunk, generator):
    hidden, weight, bias, target = layer(generator)
    leaves = [hidden, weight, bias] if biased else [hidden, weight]
    got = lossref.linear_cross_entropy(
        hidden,
        weight,
        target,
        bias=bias if biased else None,
        chunk_size=chunk,
        label_smoothing=smoothing,
        z_loss=zeta,
        reduction=reduction,
    )
    expected = naive(hidden, weight, bias if biased else None, target, smoothing, zeta, reduction)
    torch.testing.assert_close(got, expected)
    scale = torch.rand(got.shape, generator=generator, dtype=torch.float64) + 0.5
    torch.testing.assert_close(
        torch.autograd.grad((got * scale).sum(), leaves),
        torch.autograd.grad((expected * scale).sum(), leaves),
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_formats_are_as_exact_as_a_float32_layer(dtype, place, generator):
    hidden, weight, bias, target = layer(generator, dtype=dtype)
    wide = [x.detach().double().requires_grad_() for x in (hidden, weight, bias)]
    ours = [x.detach().to(place).requires_grad_() for x in (hidden, weight, bias)]
    got = lossref.linear_cross_entropy(*ours[:2], target.to(place), bias=ours[2])
    expected = naive(*wide, target)
    assert got.dtype == dtype
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(got.cpu().double(), expected, rtol=eps, atol=1e-6)
    gradients = torch.autograd.grad(got, ours)
    for a, b in zip(gradients, torch.autograd.grad(expected, wide), strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a.cpu().double(), b, rtol=eps, atol=2e-6)


def test_a_certain_prediction_keeps_its_digits():
    hidden = torch.tensor([[1.0, 0.0]], requires_grad=True)
    weight = torch.tensor([[60.0, 0.0], [0.0, 0.0]])
    got = lossref.linear_cross_entropy(hidden, weight, torch.tensor([0]))
    (gradient,) = torch.autograd.grad(got, hidden)
    assert math.isclose(got.item(), math.exp(-60), rel_tol=1e-6)
    assert math.isclose(gradient[0, 0].item(), -60 * math.exp(-60), rel_tol=1e-6)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_ignored_rows_touch_nothing_whatever_they_hold(reduction, generator):
    hidden, weight, bias, target = layer(generator)
    kept = target >= 0
    with torch.no_grad():
        hidden[~kept] = torch.nan
    got = lossref.linear_cross_entropy(hidden, weight, target, bias=bias, reduction=reduction)
    gradients = torch.autograd.grad(got.sum(), [hidden, weight, bias])
    assert got.isfinite().all()
    assert all(g.isfinite().all() for g in gradients)
    assert gradients[0][~kept].eq(0).all()


@pytest.mark.parametrize("rows", [0, 2])
def test_a_mean_over_nothing_is_zero(rows, generator):
    hidden = torch.randn(rows, 3, generator=generator, requires_grad=True)
    weight = torch.randn(5, 3, generator=generator, requires_grad=True)
    target = torch.full((rows,), -100)
    got = lossref.linear_cross_entropy(hidden, weight, target)
    gradients = torch.autograd.grad(got, [hidden, weight])
    assert got == 0
    assert all((g == 0).all() for g in gradients)
    assert lossref.linear_cross_entropy(hidden, weight, target, nan_if_empty=True).isnan()
    none = lossref.linear_cross_entropy(hidden, weight, target, reduction="none")
    assert torch.equal(none, torch.zeros(rows))


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_the_gradient_can_be_taken_twice_and_backward_called_again(reduction, generator):
    hidden, weight, bias, target = layer(generator, rows=4, width=2, vocabulary=3)

    def loss(hidden, weight, bias):
        return lossref.linear_cross_entropy(
            hidden,
            weight,
            target % 3,
            bias=bias,
            reduction=reduction,
            label_smoothing=0.1,
            z_loss=0.01,
        )

    inputs = (hidden, weight, bias)
    assert torch.autograd.gradcheck(loss, inputs)
    assert torch.autograd.gradgradcheck(loss, inputs)
    value = loss(*inputs).sum()
    graphed = torch.autograd.grad(value, inputs, create_graph=True)
    first = torch.autograd.grad(value, inputs, retain_graph=True)
    again = torch.autograd.grad(value, inputs)
    torch.testing.assert_close(first, again)
    torch.testing.assert_close(graphed, again)


def test_transforms_shapes_denominators_and_numpy(generator):
    hidden, weight, bias, target = (x.detach() for x in layer(generator, rows=6))
    target[3] = 1
    whole = lossref.linear_cross_entropy(hidden, weight, target, bias=bias)
    grid = lossref.linear_cross_entropy(
        hidden.reshape(2, 3, 5), weight, target.reshape(2, 3), bias=bias
    )
    torch.testing.assert_close(grid, whole)
    parts = [
        lossref.linear_cross_entropy(h, weight, t, bias=bias, denominator=6)
        for h, t in zip(hidden.split(4), target.split(4), strict=True)
    ]
    torch.testing.assert_close(sum(parts), whole)

    def loss(h, **options):
        return lossref.linear_cross_entropy(h, weight, target, bias=bias, **options)

    for options in ({"label_smoothing": 0.2}, {"z_loss": 0.1}, {}):
        of_options = functools.partial(loss, **options)
        expected = torch.autograd.functional.jacobian(of_options, hidden)
        torch.testing.assert_close(torch.func.grad(of_options)(hidden), expected)
    value, gradient = lossref.value_and_grad(lossref.linear_cross_entropy)(
        hidden.numpy(), weight.numpy(), target.numpy(), bias=bias.numpy()
    )
    assert isinstance(gradient, np.ndarray)
    np.testing.assert_allclose(value, whole.numpy())
    np.testing.assert_allclose(gradient, expected.numpy(), rtol=1e-12, atol=1e-16)


def most_bytes_alive(function):
    """The most bytes that torch has allocated while a function runs, beyond those before it."""
    with torch.profiler.profile(profile_memory=True) as profile:
        function()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    alive = itertools.accumulate(
        event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())
    )
    return max(alive)


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "z_loss": 0.01}])
@pytest.mark.parametrize("biased", [False, True])
def test_no_more_than_a_chunk_of_logits_is_alive(reduction, options, biased, generator):
    rows, width, vocabulary, chunk = 32, 4, 200_000, 8
    hidden, weight, bias, target = layer(generator, rows, width, vocabulary, torch.float32)
    leaves = [hidden, weight, bias] if biased else [hidden, weight]

    def step():
        loss = lossref.linear_cross_entropy(
            hidden,
            weight,
            target,
            bias=bias if biased else None,
            chunk_size=chunk,
            reduction=reduction,
            **options,
        )
        return torch.autograd.grad(loss.sum(), leaves)

    step()
    gradients = 4 * sum(x.numel() for x in leaves)
    one_chunk = 4 * chunk * vocabulary
    assert most_bytes_alive(step) <= gradients + one_chunk * 5 / 4


def test_without_gradients_a_block_of_logits_is_enough(generator):
    rows, vocabulary = 256, 50_000
    hidden, weight, _, target = layer(generator, rows, 4, vocabulary, torch.float32)

    def step():
        with torch.no_grad():
            lossref.linear_cross_entropy(hidden, weight, target, chunk_size=rows)

    step()
    assert most_bytes_alive(step) <= 4 * BLOCK_LOGITS * 9 / 8


def bounds_of_the_docstring(hidden, weight, bias, target, smoothing, dtype):
    """The exact losses and gradients of float64 copies, and what may be wrong with them."""
    working = torch.float64 if dtype == torch.float64 else torch.float32
    u = torch.finfo(working).eps / 2
    h, w, b = (oracle.exact(x) for x in (hidden, weight, bias))
    (rows, width), vocabulary = hidden.shape, len(weight)
    found = {name: [] for name in ("losses", "loss bounds", "to hidden", "hidden bounds")}
    to_weight = [[mpf(0)] * width for _ in w]
    weight_bounds = [[mpf(0)] * width for _ in w]
    for row, y in zip(h, target.tolist(), strict=True):
        products = [[x * v for x, v in zip(row, line, strict=True)] for line in w]
        logits = [mp.fsum(p) + shift for p, shift in zip(products, b, strict=True)]
        sizes = [mp.fsum(map(abs, p)) + abs(shift) for p, shift in zip(products, b, strict=True)]
        delta = (width + 1) * u * max(sizes)
        hot = oracle.one_hot(y, vocabulary)
        q = [mpf(smoothing) / vocabulary + (1 - mpf(smoothing)) * x for x in hot]
        loss, coefficients = oracle.cross_entropy(logits, q)
        error = (2 * delta + 32 * u) * (1 if smoothing else min(mpf(1), loss))
        found["losses"].append(loss)
        found["loss bounds"].append(error)
        total = [p + c for p, c in zip(oracle.softmax(logits), q, strict=True)]
        for i in range(width):
            column = [line[i] for line in w]
            exact = mp.fsum(c * x for c, x in zip(coefficients, column, strict=True))
            size = mp.fsum(c * abs(x) for c, x in zip(total, column, strict=True))
            found["to hidden"].append(exact)
            found["hidden bounds"].append((2 * delta + (vocabulary + 32) * u) * size)
            for k in range(vocabulary):
                to_weight[k][i] += coefficients[k] * row[i]
                weight_bounds[k][i] += (2 * delta + (rows + 32) * u) * total[k] * abs(row[i])
    found["to weight"], found["weight bounds"] = oracle.flat(to_weight), oracle.flat(weight_bounds)
    return found


def within(got, exact, bounds):
    """Whether a tensor is as near as its bounds and one rounding allow."""
    half = mpf(torch.finfo(got.dtype).eps) / 2
    least = mpf(torch.finfo(got.dtype).smallest_normal) * half * 2
    return all(
        abs(mpf(value) - truth) <= bound + half * (abs(truth) + bound) + least
        for value, truth, bound in zip(got.double().flatten().tolist(), exact, bounds, strict=True)
    )


@pytest.mark.parametrize("dtype", oracle.FLOATS)
@pytest.mark.parametrize("smoothing", [0.0, 0.125])
def test_errors_are_within_what_the_docstring_states(dtype, smoothing, generator):
    hidden, weight, bias, target = (x.detach() for x in layer(generator, 6, 7, 40, dtype))
    target[3] = 5
    weight = weight * 2
    with torch.no_grad():
        # A certain and a certainly wrong prediction, whose loss is tiny or large.
        hidden[0] = 10 * weight[target[0]]
        hidden[1] = -10 * weight[target[1]]
    found = bounds_of_the_docstring(hidden, weight, bias, target, smoothing, dtype)
    leaves = [x.requires_grad_() for x in (hidden, weight)]
    for reduction in ("none", "sum"):
        got = lossref.linear_cross_entropy(
            *leaves, target, bias=bias, label_smoothing=smoothing, reduction=reduction
        )
        to_hidden, to_weight = torch.autograd.grad(got.sum(), leaves)
        if reduction == "none":
            assert within(got, found["losses"], found["loss bounds"])
        assert within(to_hidden, found["to hidden"], found["hidden bounds"])
        assert within(to_weight, found["to weight"], found["weight bounds"])


@pytest.mark.parametrize("block", [1, 16, 2**20])
def test_masked_classes_and_single_classes(block, generator, monkeypatch):
    monkeypatch.setattr(_linear_cross_entropy, "BLOCK_LOGITS", block)
    hidden, weight, bias, target = layer(generator, rows=4, vocabulary=40)
    target = torch.tensor([0, 39, 20, -100])
    with torch.no_grad():
        bias[3:19] = -torch.inf
    got = lossref.linear_cross_entropy(hidden, weight, target, bias=bias)
    expected = F.cross_entropy(F.linear(hidden, weight, bias), target)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(
        torch.autograd.grad(got, [hidden, weight, bias]),
        torch.autograd.grad(expected, [hidden, weight, bias]),
    )
    masked = torch.tensor([5, 0, 0, -100])
    losses = lossref.linear_cross_entropy(hidden, weight, masked, bias=bias, reduction="none")
    assert losses[0] == torch.inf
    assert losses[1:].isfinite().all()
    (gradient,) = torch.autograd.grad(losses.sum(), weight)
    assert gradient.isfinite().all()
    alone = lossref.linear_cross_entropy(hidden, weight[:1], torch.tensor([0, 0, 0, -100]))
    assert alone == 0
    assert torch.autograd.grad(alone, hidden)[0].eq(0).all()


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "z_loss": 0.01}])
def test_blocks_of_classes_agree_with_all_at_once(options, generator, monkeypatch):
    hidden, weight, bias, target = layer(generator, rows=9, vocabulary=50)
    results = []
    for block in (7, 64, 2**20):
        monkeypatch.setattr(_linear_cross_entropy, "BLOCK_LOGITS", block)
        got = lossref.linear_cross_entropy(
            hidden, weight, target, bias=bias, chunk_size=4, **options
        )
        results.append((got.detach(), *torch.autograd.grad(got, [hidden, weight, bias])))
    torch.testing.assert_close(results[0], results[2])
    torch.testing.assert_close(results[1], results[2])


def test_targets_alone_may_be_mapped(generator):
    hidden, weight, _, _ = (x.detach() for x in layer(generator, rows=4))
    targets = torch.tensor([[0, 1, 2, 3], [5, -100, 4, 9]])

    def loss(target):
        return lossref.linear_cross_entropy(hidden, weight, target)

    expected = torch.stack([loss(target) for target in targets])
    torch.testing.assert_close(torch.func.vmap(loss)(targets), expected)


def test_a_scaled_loss_scales_its_gradients_and_again(generator):
    hidden, weight, bias, target = layer(generator)
    leaves = [hidden, weight, bias]
    value = lossref.linear_cross_entropy(hidden, weight, target, bias=bias)
    scaled = torch.autograd.grad(value, leaves, torch.tensor(3.0).double(), retain_graph=True)
    plain = torch.autograd.grad(value, leaves)
    torch.testing.assert_close(scaled, tuple(3.0 * gradient for gradient in plain))


def test_bad_input_is_named():
    h, w, y = torch.zeros(4, 3), torch.zeros(5, 3), torch.tensor([0, 1, 2, 1])
    loss = lossref.linear_cross_entropy
    refused(ValueError, r"hidden must have the width of weight, 3", loss, h[:, :2], w, y)
    refused(ValueError, r"weight must have shape \(V, d\)", loss, h, w[0], y)
    refused(ValueError, r"target must have shape \(4,\)", loss, h, w, y[:, None])
    refused(
        ValueError, r"indices in \[0, 5\), or ignore_index=-100, but holds 5", loss, h, w, y + 5
    )
    refused(ValueError, r"bias must have shape \(5,\)", loss, h, w, y, bias=w[:4, 0])
    refused(
        ValueError, r"chunk_size must be a positive integer, got 0", loss, h, w, y, chunk_size=0
    )
    refused(ValueError, r"label_smoothing must be", loss, h, w, y, label_smoothing=1.5)
    refused(ValueError, r"z_loss must be", loss, h, w, y, z_loss=-1.0)
    refused(TypeError, r"weight must have the dtype of hidden", loss, h, w.double(), y)
