"""Every elementwise loss: its textbook formula in exact arithmetic, hard inputs, and its bounds."""

from dataclasses import dataclass, field
from typing import Any

import torch
from loss_oracle import mp, mpf, times

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


def near_clip(clip, formula):
    """The size of a term before p - clip cancels."""

    def scale(x, t):
        p_c = max(sigma(x) - mpf(clip), mpf(2) ** -60)
        return (mpf(1) if t == 1 or not clip else 1 + mpf(clip) / p_c) * abs(formula(x, t))

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


def asymmetric_case(pos, neg, clip):
    value, slope = asymmetric(pos, neg, clip)
    bound = 4 + 3 * max(pos, neg)
    return Case(
        lossref.asymmetric_loss,
        value,
        slope,
        "binary",
        {"gamma_pos": pos, "gamma_neg": neg, "clip": clip},
        (bound, bound),
        scale=near_clip(clip, value),
        slope_scale=near_clip(clip, slope),
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
        f"asymmetric {pos} {neg} {clip}": asymmetric_case(pos, neg, clip)
        for pos, neg, clip in [(1.0, 4.0, 0.05), (0.0, 0.5, 0.0), (0.0, 0.0, 0.2), (1.0, 2.0, 1e-4)]
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
    """The keyword arguments of a case, arrays among them."""
    options = dict(case.options)
    if "pos_weight" in options:
        options["pos_weight"] = torch.tensor(options["pos_weight"], dtype=dtype, device=place)
    return options
