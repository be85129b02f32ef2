"""Wide sweeps of the accuracy contract: `make test-slow` runs them."""

import loss_oracle as oracle
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_checks import value_and_gradient
from loss_oracle import FLOATS, exact, mp, mpf, one_hot, worst
from questions import QUESTIONS, ask

import lossref

pytestmark = pytest.mark.slow

WIDTH = {torch.float16: 16, torch.bfloat16: 32, torch.float32: 32, torch.float64: 64}


def numbers(dtype, limit):
    floats = st.floats(-limit, limit, width=WIDTH[dtype], allow_nan=False)
    return floats.map(lambda x: torch.tensor(x, dtype=torch.float64).to(dtype).item())


@pytest.mark.parametrize("dtype", FLOATS)
def test_cross_entropy(dtype):
    @settings(max_examples=1500, deadline=None, derandomize=True, database=None)
    @given(st.lists(numbers(dtype, 10_000), min_size=1, max_size=8), st.data())
    def sweep(row, data):
        y = data.draw(st.integers(0, len(row) - 1))
        x = torch.tensor([row], dtype=torch.float64).to(dtype)
        loss, gradient = oracle.cross_entropy(exact(x)[0], one_hot(y, len(row)))
        got, slopes = value_and_gradient(
            lossref.cross_entropy, x, torch.tensor([y]), reduction="none"
        )
        assert worst(got, [loss]) <= (3 if dtype == torch.float64 else 1)
        assert worst(slopes, gradient) <= (4 if dtype == torch.float64 else 1)

    # The default precision sees 1 - p down to 2^-1200, the smallest float64 being 2^-1074.
    sweep()


@pytest.mark.parametrize("dtype", FLOATS)
def test_binary_cross_entropy_with_logits(dtype):
    @settings(max_examples=3000, deadline=None, derandomize=True, database=None)
    @given(numbers(dtype, 10_000), st.booleans())
    def sweep(logit, label):
        x = torch.tensor([logit], dtype=torch.float64).to(dtype)
        t = torch.tensor([float(label)]).to(dtype)
        got, slope = value_and_gradient(
            lossref.binary_cross_entropy_with_logits, x, t, reduction="none"
        )
        v = exact(x)[0]
        loss = mp.log1p(mp.exp(-v if label else v))
        gradient = -1 / (1 + mp.exp(v)) if label else 1 / (1 + mp.exp(-v))
        assert worst(got, [loss]) <= (2 if dtype == torch.float64 else 1)
        assert worst(slope, [gradient]) <= (3 if dtype == torch.float64 else 1)

    sweep()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("classes", [100_000, 32_001])
def test_many_classes_of_every_scale(dtype, classes):
    generator = torch.Generator().manual_seed(classes)
    for scale in (1e-3, 1.0, 20.0):
        levels = (torch.randn(40, generator=generator, dtype=torch.float64) * scale).to(dtype)
        level = torch.randint(40, (classes,), generator=generator)
        counts = torch.bincount(level, minlength=40).tolist()
        values = exact(levels)
        top = max(values)
        e = [mp.exp(v - top) for v in values]
        z = mp.fsum(n * v for n, v in zip(counts, e, strict=True))
        for y in (0, classes - 1):
            got, gradient = value_and_gradient(
                lossref.cross_entropy, levels[level][None], torch.tensor([y]), reduction="none"
            )
            loss = top - values[level[y]] + mp.log(z)
            assert worst(got, [loss]) <= (3 if dtype == torch.float64 else 1)
            columns = [*range(1, 50), y]
            expected = [e[level[j]] / z - (j == y) for j in columns]
            assert worst(gradient[0, columns], expected) <= (4 if dtype == torch.float64 else 1)


@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_every_loss_holds_its_bounds_for_many_seeds(name, dtype):
    for seed in range(1, 6):
        question = ask(name, dtype, seed)
        values, gradients = question.answer()
        assert question.value_error(values) <= question.bound(0), seed
        assert question.gradient_error(gradients) <= question.bound(1), seed


def info_nce_by_hand(q, k, tau):
    """The losses and the gradients of their sum, from object arrays of exact numbers."""
    exp, log1p, sqrt = (np.vectorize(f, otypes=[object]) for f in (mp.exp, mp.log1p, mp.sqrt))
    lengths = [sqrt((x * x).sum(1, keepdims=True)) for x in (q, k)]
    z, w = (x / length for x, length in zip((q, k), lengths, strict=True))
    e = exp(z @ w.T / tau)
    own, others = np.diag(e), e.sum(1) - np.diag(e)
    slopes = e / e.sum(1, keepdims=True) / tau
    np.fill_diagonal(slopes, -others / e.sum(1) / tau)
    pairs = zip((z, w), (slopes @ w, slopes.T @ z), lengths, strict=True)
    gradients = [(g - x * (x * g).sum(1, keepdims=True)) / length for x, g, length in pairs]
    return log1p(others / own), gradients


@pytest.mark.parametrize("temperature", [1.0, 0.07, 0.01])
@pytest.mark.parametrize("width", [2, 16, 128])
@pytest.mark.parametrize("near", [None, 1.0, -1.0], ids=["apart", "parallel", "opposite"])
def test_contrasts_of_every_width_and_temperature(near, width, temperature, generator):
    for count in (2, 7):
        size = (count, width)
        q, k = (torch.randn(size, generator=generator, dtype=torch.float64) for _ in range(2))
        k = k if near is None else near * q + 0.05 * k
        leaves = [q.requires_grad_(), k.requires_grad_()]
        got = lossref.info_nce_loss(*leaves, temperature=temperature, reduction="none")
        gradients = torch.autograd.grad(got.sum(), leaves)
        numbers = [np.array(exact(x), dtype=object) for x in leaves]
        values, slopes = info_nce_by_hand(*numbers, mpf(temperature))
        scale = 1 / mpf(temperature)
        assert worst(got, list(values), floor=[scale] * count) <= 8
        shortest = min(x.detach().norm(dim=1).min().item() for x in leaves)
        largest = max(abs(s) for slope in slopes for s in slope.flat)
        floor = [max(largest, scale / shortest)] * (count * width)
        for gradient, slope in zip(gradients, slopes, strict=True):
            assert worst(gradient, list(slope.flat), floor=floor) <= 8 + scale / 2
