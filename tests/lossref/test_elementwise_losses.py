"""Every elementwise loss against the oracle and against what all of them promise."""

import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_checks import refused, value_and_gradient
from loss_oracle import FLOATS, exact, mp, mpf, times, worst

import lossref


@dataclass
class Case:
    """A loss, its textbook formula and slope in exact arithmetic, and its float64 bounds in ULPs.

    `scale` and `slope_scale` give the larger term where the true value crosses zero.
    """

    loss: Any
    value: Any
    slope: Any
    targets: str
    options: dict[str, Any] = field(default_factory=dict)
    bounds: tuple[float, float] = (3, 3)
    scale: Any = None
    slope_scale: Any = None
    points: str = "logits"
    twice: bool = True


def sigma(x):
    return 1 / (1 + mp.exp(-x))


def softplus(x):
    return mp.log1p(mp.exp(x))


def bce(x, t):
    return times(t, softplus(-x)) + times(1 - t, softplus(x))


def bce_slope_scale(x, t):
    return max((1 - t) * sigma(x), t * sigma(-x))


def bce_probs(p, t):
    return times(t, -mp.log(p) if p else mp.inf) + times(1 - t, -mp.log(1 - p) if p < 1 else mp.inf)


def bce_probs_terms(p, t):
    below = mpf(0) if t == 0 else (t / p if p else mp.inf)
    above = mpf(0) if t == 1 else ((1 - t) / (1 - p) if p < 1 else mp.inf)
    return above, below


def focal(gamma, alpha=None):
    a = (
        (lambda t: mpf(1))
        if alpha is None
        else lambda t: t * mpf(alpha) + (1 - t) * (1 - mpf(alpha))
    )

    def q(x, t):
        return sigma(x) * (1 - t) + sigma(-x) * t

    def value(x, t):
        return a(t) * q(x, t) ** mpf(gamma) * bce(x, t)

    def terms(x, t):
        growth = sigma(x) * sigma(-x) * (1 - 2 * t) / q(x, t)
        factor = a(t) * q(x, t) ** mpf(gamma)
        focus = factor * mpf(gamma) * growth * bce(x, t)
        return focus, factor * sigma(x) * (1 - t), -factor * sigma(-x) * t

    return value, lambda x, t: mp.fsum(terms(x, t)), lambda x, t: max(map(abs, terms(x, t)))


def asymmetric(gamma_pos, gamma_neg, clip):
    def value(x, t):
        if t == 1:
            return sigma(-x) ** mpf(gamma_pos) * softplus(-x)
        p_c = max(sigma(x) - mpf(clip), mpf(0))
        surprise = -mp.log(1 - p_c) if clip else softplus(x)
        return p_c ** mpf(gamma_neg) * surprise if p_c else mpf(0)

    def slope(x, t):
        p, q = sigma(x), sigma(-x)
        if t == 1:
            return -(q ** mpf(gamma_pos)) * (mpf(gamma_pos) * p * softplus(-x) + q)
        p_c = max(p - mpf(clip), mpf(0))
        if p_c == 0:
            return mpf(0)
        if not clip:
            return p ** mpf(gamma_neg) * (mpf(gamma_neg) * q * softplus(x) + p)
        inner = mpf(gamma_neg) / p_c * -mp.log(1 - p_c) + 1 / (1 - p_c)
        return p_c ** mpf(gamma_neg) * inner * p * q

    return value, slope


def near_clip(clip):
    """How much the cancellation of p - clip amplifies a relative error."""

    def scale(x, t):
        p_c = max(sigma(x) - mpf(clip), mpf(2) ** -60)
        return mpf(1) if t == 1 or not clip else 1 + mpf(clip) / p_c

    return scale


def of_difference(value, slope):
    return (lambda x, t: value(x - t)), (lambda x, t: slope(x - t))


def of_margin(value, slope):
    return (lambda x, y: value(x * y)), (lambda x, y: y * slope(x * y))


def huber(delta):
    d = mpf(delta)
    return of_difference(
        lambda e: e * e / 2 if abs(e) <= d else d * (abs(e) - d / 2),
        lambda e: max(-d, min(d, e)),
    )


def smooth_l1(beta):
    b = mpf(beta)
    return of_difference(
        lambda e: e * e / (2 * b) if abs(e) < b else abs(e) - b / 2,
        lambda e: max(mpf(-1), min(mpf(1), e / b)) if b else mp.sign(e),
    )


def quantile(q):
    q = mpf(q)
    return of_difference(
        lambda e: max(-q * e, (1 - q) * e),
        lambda e: mpf(0) if e == 0 else (1 - q if e > 0 else -q),
    )


def hinge(margin, squared):
    m = mpf(margin)
    if squared:
        return of_margin(lambda z: max(m - z, mpf(0)) ** 2, lambda z: -2 * max(m - z, mpf(0)))
    return of_margin(lambda z: max(m - z, mpf(0)), lambda z: mpf(-1) if z < m else mpf(0))


def gaussian(var, full):
    v = mpf(var)
    constant = mp.log(2 * mp.pi) / 2 if full else mpf(0)
    return (
        lambda x, t: (mp.log(v) + (x - t) ** 2 / v) / 2 + constant,
        lambda x, t: (x - t) / v,
        lambda x, t: max(abs(mp.log(v)), (x - t) ** 2 / v),
    )


def focal_case(targets, gamma, alpha=None):
    value, slope, slope_scale = focal(gamma, alpha)
    bound = 3 + 2 * gamma + (alpha is not None)
    return Case(
        lossref.sigmoid_focal_loss,
        value,
        slope,
        targets,
        {"gamma": gamma, "alpha": alpha},
        (bound, bound),
        slope_scale=slope_scale if targets == "soft" else None,
    )


def gaussian_case(var, full):
    value, slope, scale = gaussian(var, full)
    return Case(
        lossref.gaussian_nll_loss,
        value,
        slope,
        "real",
        {"var": var, "full": full},
        (3, 2),
        scale=scale,
        points="real",
    )


POS = 2.5
CASES = {
    "bce 0/1": Case(
        lossref.binary_cross_entropy_with_logits,
        bce,
        lambda x, t: sigma(x) - t,
        "binary",
        bounds=(2, 3),
    ),
    "bce soft": Case(
        lossref.binary_cross_entropy_with_logits,
        bce,
        lambda x, t: sigma(x) - t,
        "soft",
        bounds=(4, 3),
        slope_scale=bce_slope_scale,
    ),
    "bce pos_weight": Case(
        lossref.binary_cross_entropy_with_logits,
        lambda x, t: times(POS * t, softplus(-x)) + times(1 - t, softplus(x)),
        lambda x, t: (1 - t) * sigma(x) - POS * t * sigma(-x),
        "binary",
        {"pos_weight": POS},
        (4, 4),
    ),
    "bce of probs": Case(
        lossref.binary_cross_entropy,
        bce_probs,
        lambda p, t: bce_probs_terms(p, t)[0] - bce_probs_terms(p, t)[1],
        "binary",
        bounds=(2, 2),
        points="probs",
    ),
    "bce of probs soft": Case(
        lossref.binary_cross_entropy,
        bce_probs,
        lambda p, t: bce_probs_terms(p, t)[0] - bce_probs_terms(p, t)[1],
        "soft",
        bounds=(4, 3),
        slope_scale=lambda p, t: max(bce_probs_terms(p, t)),
        points="probs",
    ),
    **{
        f"sigmoid focal {targets} {gamma} {alpha}": focal_case(targets, gamma, alpha)
        for targets in ("binary", "soft")
        for gamma, alpha in [(0.0, None), (0.5, None), (2.0, 0.25), (5.0, None)]
    },
    **{
        f"asymmetric {pos} {neg} {clip}": Case(
            lossref.asymmetric_loss,
            *asymmetric(pos, neg, clip),
            "binary",
            {"gamma_pos": pos, "gamma_neg": neg, "clip": clip},
            (4 + 3 * max(pos, neg), 4 + 3 * max(pos, neg)),
            scale=near_clip(clip),
            slope_scale=near_clip(clip),
        )
        for pos, neg, clip in [(1.0, 4.0, 0.05), (0.0, 0.5, 0.0), (0.0, 0.0, 0.2)]
    },
    "hinge": Case(lossref.hinge_loss, *hinge(1, False), "signs", bounds=(1, 1)),
    "hinge squared": Case(
        lossref.hinge_loss,
        *hinge(0.3, True),
        "signs",
        {"margin": 0.3, "squared": True},
        (3, 2),
    ),
    "exponential": Case(
        lossref.exponential_loss,
        *of_margin(lambda z: mp.exp(-z), lambda z: -mp.exp(-z)),
        "signs",
        bounds=(1, 1),
    ),
    "logistic": Case(
        lossref.logistic_loss,
        *of_margin(lambda z: softplus(-z), lambda z: -sigma(-z)),
        "signs",
    ),
    "mse": Case(
        lossref.mse_loss,
        *of_difference(lambda e: e * e, lambda e: 2 * e),
        "real",
        bounds=(2, 1),
        points="real",
    ),
    "l1": Case(lossref.l1_loss, *of_difference(abs, mp.sign), "real", bounds=(1, 1), points="real"),
    "huber": Case(lossref.huber_loss, *huber(1.3), "real", {"delta": 1.3}, (3, 1), points="real"),
    "smooth l1": Case(
        lossref.smooth_l1_loss, *smooth_l1(0.7), "real", {"beta": 0.7}, (3, 2), points="real"
    ),
    "smooth l1, beta 0": Case(
        lossref.smooth_l1_loss, *smooth_l1(0), "real", {"beta": 0.0}, (1, 1), points="real"
    ),
    "log-cosh": Case(
        lossref.log_cosh_loss,
        *of_difference(lambda e: mp.log(mp.cosh(e)), mp.tanh),
        "real",
        bounds=(6, 2),
        points="real",
    ),
    "quantile": Case(
        lossref.quantile_loss, *quantile(0.9), "real", {"quantile": 0.9}, (2, 1), points="real"
    ),
    "gaussian": gaussian_case(0.7, False),
    "gaussian full": gaussian_case(3.0, True),
}
PARAMETERS = [pytest.param(case, id=name) for name, case in CASES.items()]


def inputs_of(case, dtype, generator, count=25):
    """Predictions and targets: random of every size, and the hard ones."""

    def random():
        return torch.randn(count, generator=generator, dtype=torch.float64)

    if case.points == "probs":
        spread = torch.sigmoid(random() * 8)
        x = torch.cat([spread, torch.tensor([0.0, 1.0, 0.5, 1e-7, 1 - 1e-3]).double()])
    elif case.points == "real":
        x = torch.cat([random() * s for s in (1e-3, 1.0, 30.0)])
        x = torch.cat([x, torch.tensor([0.0, 1.0, -1.0, 5e3]).double()])
    else:
        x = torch.cat([random() * s for s in (1e-6, 1.0, 10.0, 100.0)])
        hard = [0.0, 1e4, -1e4, 88.0, -88.0, 104.0, -104.0, 17.0, -17.0, 745.0, -740.0, -2.95]
        x = torch.cat([x, torch.tensor(hard).double()])
    uniform = torch.rand(len(x), generator=generator, dtype=torch.float64)
    t = {
        "binary": (uniform > 0.5).double(),
        "signs": (uniform > 0.5).double() * 2 - 1,
        "soft": uniform,
        "real": x + torch.randn(len(x), generator=generator).double() * uniform * 4,
    }[case.targets]
    x, t = x.to(dtype), t.to(dtype)
    if case.targets == "real":
        t[:5] = x[:5]
    return x, t


def arrange(case, dtype, place="cpu"):
    options = dict(case.options)
    if "pos_weight" in options:
        options["pos_weight"] = torch.tensor(options["pos_weight"], dtype=dtype, device=place)
    return options


@pytest.mark.parametrize("case", PARAMETERS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_value_and_gradient_hold_their_bounds(case, dtype, place, generator):
    x, t = inputs_of(case, dtype, generator)
    options = arrange(case, dtype, place)
    got, gradient = value_and_gradient(
        case.loss, x.to(place), t.to(place), reduction="none", **options
    )
    pairs = list(zip(exact(x), exact(t), strict=True))
    for result, formula, scale, bound in (
        (got, case.value, case.scale, case.bounds[0]),
        (gradient, case.slope, case.slope_scale, case.bounds[1]),
    ):
        expected = [formula(*pair) for pair in pairs]
        floor = None
        if scale is not None:
            floor = [scale(*pair) for pair in pairs]
            if scale.__name__ == "scale":
                floor = [a * abs(b) for a, b in zip(floor, expected, strict=True)]
        if dtype == torch.float64:
            assert worst(result, expected, floor=floor) <= bound
        else:
            up = 2.0 ** {torch.float16: -9, torch.bfloat16: -12, torch.float32: -25}[dtype]
            floor = floor and [f * up for f in floor]
            assert worst(result, expected, floor=floor) <= 1


@pytest.mark.parametrize("case", PARAMETERS)
def test_masked_entries_touch_nothing_whatever_they_hold(case, generator):
    x, t = inputs_of(case, torch.float64, generator)
    keep = torch.rand(len(x), generator=generator) > 0.3
    kept = value_and_gradient(case.loss, x[keep], t[keep], **arrange(case, torch.float64))
    for poison in (math.nan, math.inf, -math.inf):
        x[~keep], t[~keep] = poison, poison
        got = value_and_gradient(case.loss, x, t, mask=keep, **arrange(case, torch.float64))
        torch.testing.assert_close(got[0], kept[0], rtol=1e-14, atol=0)
        torch.testing.assert_close(got[1][keep], kept[1], rtol=1e-14, atol=0)
        assert torch.equal(got[1][~keep], torch.zeros_like(got[1][~keep]))


@pytest.mark.parametrize("case", PARAMETERS)
def test_a_mean_over_nothing_is_zero(case):
    x = torch.full((3,), torch.nan)
    mask = torch.zeros(3, dtype=torch.bool)
    got, gradient = value_and_gradient(case.loss, x, x, mask=mask, **arrange(case, torch.float32))
    assert got == 0
    assert torch.equal(gradient, torch.zeros(3))
    options = arrange(case, torch.float32)
    assert case.loss(x, x, mask=mask, nan_if_empty=True, **options).isnan()
    assert case.loss(x[:0], x[:0], **options) == 0


@pytest.mark.parametrize("case", PARAMETERS)
def test_reductions_weights_and_shapes(case, generator):
    x, t = inputs_of(case, torch.float64, generator, count=50)
    x, t = x[:50], t[:50]
    options = arrange(case, torch.float64)
    each = case.loss(x, t, reduction="none", **options)
    finite = each.isfinite()
    x, t, each = x[finite], t[finite], each[finite]
    torch.testing.assert_close(case.loss(x, t, reduction="sum", **options), each.sum())
    torch.testing.assert_close(case.loss(x, t, **options), each.mean())
    torch.testing.assert_close(case.loss(x, t, denominator=7, **options), each.sum() / 7)
    weight = torch.rand(len(x), generator=generator, dtype=torch.float64)
    weighted = case.loss(x, t, weight=weight, reduction="none", **options)
    torch.testing.assert_close(weighted, each * weight)
    grid = torch.stack([x, x]).T
    same = case.loss(grid, torch.stack([t, t]).T, reduction="none", **options)
    torch.testing.assert_close(same, torch.stack([each, each]).T, rtol=1e-15, atol=0)


@pytest.mark.parametrize("case", PARAMETERS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_numpy_gets_the_same_bits(case, dtype, generator):
    x, t = inputs_of(case, torch.float64, generator, count=20)
    x, t = x.numpy().astype(dtype), t.numpy().astype(dtype)
    options = {
        name: np.asarray(value, dtype) if name == "pos_weight" else value
        for name, value in case.options.items()
    }
    value, gradient = lossref.value_and_grad(case.loss)(x, t, reduction="none", **options)
    assert isinstance(value, np.ndarray)
    assert value.dtype == gradient.dtype == dtype
    tensors = arrange(case, torch.from_numpy(x).dtype)
    expected = value_and_gradient(
        case.loss, torch.from_numpy(x), torch.from_numpy(t), reduction="none", **tensors
    )
    assert np.array_equal(value, expected[0].detach().numpy())
    assert np.array_equal(gradient, expected[1].numpy())


@pytest.mark.parametrize("case", PARAMETERS)
def test_derivatives_to_every_input_and_of_the_second_order(case, generator):
    x = torch.rand(6, generator=generator, dtype=torch.float64) * 0.8 + 0.1
    t = {
        "binary": torch.tensor([0.0, 1.0] * 3),
        "signs": torch.tensor([1.0, -1.0] * 3),
        "soft": torch.rand(6, generator=generator) * 0.9 + 0.05,
        "real": torch.randn(6, generator=generator) * 0.4,
    }[case.targets].double()
    options = arrange(case, torch.float64)
    differentiable = case.targets == "real" or (
        case.targets == "soft" and case.loss is not lossref.sigmoid_focal_loss
    )
    inputs = (x.requires_grad_(), t.requires_grad_(differentiable))

    def loss(x, t):
        return case.loss(x, t, reduction="none", **options)

    assert torch.autograd.gradcheck(loss, inputs)
    assert torch.autograd.gradgradcheck(loss, inputs)


@pytest.mark.parametrize("case", PARAMETERS)
def test_transforms_of_torch_func(case, generator):
    x, t = inputs_of(case, torch.float64, generator, count=3)
    x, t = x[:6].reshape(2, 3), t[:6].reshape(2, 3)
    options = arrange(case, torch.float64)

    def loss(x, t):
        return case.loss(x, t, **options)

    expected = torch.stack([loss(a, b) for a, b in zip(x, t, strict=True)])
    torch.testing.assert_close(torch.func.vmap(loss)(x, t), expected)
    got = torch.func.vmap(torch.func.grad(loss))(x, t)
    expected = torch.stack([torch.func.grad(loss)(a, b) for a, b in zip(x, t, strict=True)])
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("case", PARAMETERS)
def test_chunks_change_no_bit_and_inputs_stay(case, generator, monkeypatch):
    x, t = inputs_of(case, torch.float32, generator)
    copies = x.clone(), t.clone()
    options = arrange(case, torch.float32)
    whole = value_and_gradient(case.loss, x, t, reduction="none", **options)
    monkeypatch.setitem(lossref._rows.CHUNK_ELEMENTS, "cpu", 28)
    chunked = value_and_gradient(case.loss, x, t, reduction="none", **options)
    for a, b in zip(whole, chunked, strict=True):
        torch.testing.assert_close(a, b, rtol=1.2e-7, atol=0, equal_nan=True)
    assert torch.equal(x, copies[0])
    assert torch.equal(t, copies[1])


@pytest.mark.parametrize("case", PARAMETERS)
def test_column_against_vector_is_refused(case):
    x = torch.full((4,), 0.5)
    t = torch.ones(4, 1)
    wrong = r"target must have shape \(4,\).*but has shape \(4, 1\); squeeze or reshape"
    refused(ValueError, wrong, case.loss, x, t, **arrange(case, torch.float32))
    refused(TypeError, r"dtype", case.loss, x, x.double(), **arrange(case, torch.float32))


TORCH = {
    "bce": (lossref.binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits, {}),
    "bce probs": (lossref.binary_cross_entropy, F.binary_cross_entropy, {}),
    "logistic": (lossref.logistic_loss, F.soft_margin_loss, {}),
    "mse": (lossref.mse_loss, F.mse_loss, {}),
    "l1": (lossref.l1_loss, F.l1_loss, {}),
    "huber": (lossref.huber_loss, F.huber_loss, {"delta": 0.6}),
    "smooth l1": (lossref.smooth_l1_loss, F.smooth_l1_loss, {"beta": 0.6}),
    "smooth l1, beta 0": (lossref.smooth_l1_loss, F.smooth_l1_loss, {"beta": 0.0}),
}


# PyTorch's soft_margin_loss and smooth_l1_loss take no weight, and its weighted Huber loss alone
# divides the mean by the number of entries (the next test).
COMBINATIONS = [
    (name, reduction, weighted)
    for name, reduction, weighted in itertools.product(
        TORCH, ("none", "mean", "sum"), (False, True)
    )
    if not weighted
    or not (name.startswith(("logistic", "smooth")) or (name, reduction) == ("huber", "mean"))
]


@pytest.mark.parametrize(("name", "reduction", "weighted"), COMBINATIONS)
@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4)])
def test_agrees_with_pytorch(name, reduction, weighted, shape, generator):
    ours, theirs, options = TORCH[name]
    x = torch.rand(shape, generator=generator, dtype=torch.float64)
    t = torch.rand(shape, generator=generator, dtype=torch.float64)
    if name == "logistic":
        t = t.round() * 2 - 1
    options = {**options, "reduction": reduction}
    if weighted:
        options["weight"] = torch.rand(shape, generator=generator, dtype=torch.float64)
    got = value_and_gradient(ours, x, t, **options)
    torch.testing.assert_close(got, value_and_gradient(theirs, x, t, **options))


def test_a_weighted_huber_mean_divides_by_the_weights_unlike_pytorch():
    x, t, weight = torch.tensor([1.0, 3.0]), torch.zeros(2), torch.tensor([1.0, 3.0])
    assert lossref.huber_loss(x, t, weight=weight) == (0.5 + 3 * 2.5) / 4
    assert F.huber_loss(x, t, weight=weight) == (0.5 + 3 * 2.5) / 2


@pytest.mark.parametrize("shape", [(), (1,), (4,), (3, 1), (3, 4), (2, 3, 4), (2, 1, 1)])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_pos_weight_of_every_broadcastable_shape(shape, reduction, generator):
    x = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    t = torch.rand(2, 3, 4, generator=generator, dtype=torch.float64)
    pos_weight = torch.rand(shape, generator=generator, dtype=torch.float64) * 5
    for weight in (None, torch.rand(4, generator=generator, dtype=torch.float64)):
        options = {"pos_weight": pos_weight, "reduction": reduction, "weight": weight}
        got = value_and_gradient(lossref.binary_cross_entropy_with_logits, x, t, **options)
        expected = value_and_gradient(F.binary_cross_entropy_with_logits, x, t, **options)
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("shape", [(4, 3), (4, 1), (4,)])
def test_gaussian_nll_agrees_with_pytorch(full, shape, generator):
    x = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    t = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    var = torch.rand(shape, generator=generator, dtype=torch.float64)
    var[0] = 1e-9
    for reduction, scalar in itertools.product(("none", "mean", "sum"), (False, True)):
        v = 0.3 if scalar else var.clone().requires_grad_()
        options = {"full": full, "reduction": reduction, "eps": 1e-4}
        got = lossref.gaussian_nll_loss(x, t, var=v, **options)
        expected = F.gaussian_nll_loss(x, t, v, **options)
        torch.testing.assert_close(got, expected)
        if not scalar:
            ours = torch.autograd.grad(got.sum(), v)
            torch.testing.assert_close(ours, torch.autograd.grad(expected.sum(), v))


def test_certain_probabilities():
    p, t = torch.tensor([0.0, 1.0, 1.0, 0.0]), torch.tensor([0.0, 1.0, 0.0, 1.0])
    got, gradient = value_and_gradient(lossref.binary_cross_entropy, p, t, reduction="none")
    assert got.tolist() == [0.0, 0.0, math.inf, math.inf]
    assert gradient.tolist() == [1.0, -1.0, math.inf, -math.inf]


def test_infinite_logits():
    x = torch.tensor([math.inf, -math.inf, math.inf, -math.inf])
    t = torch.tensor([1.0, 0.0, 0.0, 1.0])
    for loss in (lossref.binary_cross_entropy_with_logits, lossref.sigmoid_focal_loss):
        got, gradient = value_and_gradient(loss, x, t, reduction="none")
        assert got.tolist() == [0.0, 0.0, math.inf, math.inf]
        assert gradient.tolist() == [0.0, 0.0, 1.0, -1.0]


def test_curvature_where_the_two_branches_meet():
    zero = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    one = torch.ones(1, dtype=torch.float64)

    def curvature(loss):
        (slope,) = torch.autograd.grad(loss(zero).sum(), zero, create_graph=True)
        return torch.autograd.grad(slope.sum(), zero)[0].item()

    assert curvature(lossref.softplus) == 0.25
    assert curvature(lossref.log_sigmoid) == -0.25
    assert curvature(lambda x: lossref.binary_cross_entropy_with_logits(x, one)) == 0.25
    focal = curvature(lambda x: lossref.sigmoid_focal_loss(x, one, gamma=0.0))
    assert focal == 0.25
    assert curvature(lambda x: lossref.cross_entropy(torch.stack([x, -x], 1), one.long())) == 1.0


def test_bad_parameters_are_named():
    x, ones = torch.full((3,), 0.5), torch.ones(3)
    soft = lossref.binary_cross_entropy_with_logits
    refused(ValueError, r"target must be in \[0, 1\], but holds 1\.5", soft, x, ones * 1.5)
    refused(ValueError, r"target must be in \[0, 1\], but holds nan", soft, x, ones * math.nan)
    probs = lossref.binary_cross_entropy
    refused(ValueError, r"probs must be in \[0, 1\], but holds -0\.5", probs, -x, ones)
    shape = r"pos_weight must broadcast to shape \(3,\), but has shape \(2,\)"
    refused(ValueError, shape, soft, x, ones, pos_weight=torch.ones(2))
    gamma = r"gamma must be a number in \[0, inf\), got -1"
    refused(ValueError, gamma, lossref.sigmoid_focal_loss, x, ones, gamma=-1)
    alpha = r"alpha must be a number in \[0, 1\], got 2"
    refused(ValueError, alpha, lossref.sigmoid_focal_loss, x, ones, alpha=2)
    refused(ValueError, r"target must be -1 or 1, but holds 0", lossref.hinge_loss, x, ones * 0)
    refused(ValueError, r"delta must be .*\(0, inf\), got 0", lossref.huber_loss, x, x, delta=0)
    refused(ValueError, r"beta must be", lossref.smooth_l1_loss, x, x, beta=-1.0)
    refused(ValueError, r"quantile must be", lossref.quantile_loss, x, x, quantile=1.0)
    negative = r"var must be at least 0, but holds -1"
    refused(ValueError, negative, lossref.gaussian_nll_loss, x, x, var=-ones)
    clip = r"clip must be a number in \[0, 1\), got 1"
    refused(ValueError, clip, lossref.asymmetric_loss, x, ones, clip=1)
    refused(ValueError, r"reduction must be one of", soft, x, ones, reduction="batchmean")
