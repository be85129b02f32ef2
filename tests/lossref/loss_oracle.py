"""The oracle: losses in 1200-bit arithmetic, and errors in units in the last place.

1200 bits, not 400: the formulas here are the textbook ones, and `p - 1` for a certain float64
prediction needs more than 1074 bits to keep its digits.
"""

import math

import torch
from mpmath import mp, mpf

mp.prec = 1200

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
SIGNIFICAND = {torch.float16: 11, torch.bfloat16: 8, torch.float32: 24, torch.float64: 53}
LOWEST_EXPONENT = {
    torch.float16: -14,
    torch.bfloat16: -126,
    torch.float32: -126,
    torch.float64: -1022,
}


def exact(tensor):
    """The entries of a tensor as nested lists of exact numbers."""
    if isinstance(tensor, torch.Tensor):
        tensor = tensor.detach().cpu().double().tolist()
    return [exact(item) for item in tensor] if isinstance(tensor, list) else mpf(tensor)


def flat(values):
    return [x for item in values for x in flat(item)] if isinstance(values, list) else [values]


def ulp(value, dtype):
    """The spacing of a format's numbers at a value."""
    exponent = LOWEST_EXPONENT[dtype]
    if value != 0:
        exponent = max(exponent, int(mp.floor(mp.log(abs(value), 2))))
        exponent += (mpf(2) ** (exponent + 1) <= abs(value)) - (mpf(2) ** exponent > abs(value))
        exponent = max(exponent, LOWEST_EXPONENT[dtype])
    return mpf(2) ** (exponent - SIGNIFICAND[dtype] + 1)


def ulp_error(got, expected, dtype):
    """The distance of one number from the exact one, in ULPs of the format."""
    if mp.isnan(expected) or math.isnan(got):
        return mpf(0) if mp.isnan(expected) and math.isnan(got) else mpf("inf")
    largest = mpf(torch.finfo(dtype).max)
    if abs(expected) > largest:
        same_side = (got > 0) == (expected > 0)
        overflowed = math.isinf(got) or abs(got) == largest
        return mpf(0) if same_side and overflowed else mpf("inf")
    if math.isinf(got):
        return mpf("inf")
    return abs(mpf(got) - expected) / ulp(expected, dtype)


def worst(got, expected, dtype=None, floor=None):
    """The largest error in ULPs over a tensor.

    `floor` gives for each entry a magnitude below which the ULP is not taken any smaller: the
    absolute bound where the true value crosses zero.
    """
    dtype = dtype or got.dtype
    values = flat(got.detach().cpu().double().tolist())
    targets = flat(expected)
    assert len(values) == len(targets), "shapes of result and oracle differ"
    floors = flat(floor) if floor is not None else [None] * len(values)
    errors = [mpf(0)]
    for value, target, scale in zip(values, targets, floors, strict=True):
        error = ulp_error(value, target, dtype)
        if scale is not None and mp.isfinite(error) and error > 0:
            error = error * ulp(target, dtype) / max(ulp(target, dtype), ulp(scale, dtype))
        errors.append(error)
    return float(max(errors))


def one_format_up(scales, dtype):
    """Absolute bounds of sixteen roundings one format up, for `worst` to take as its floor."""
    bits = {torch.float16: 9, torch.bfloat16: 12, torch.float32: 25, torch.float64: 0}[dtype]
    if isinstance(scales, list):
        return [one_format_up(scale, dtype) for scale in scales]
    return scales * mpf(2) ** -bits


def exponentials(row):
    """e^(x - max), the maximum, and their sum."""
    top = max(row)
    e = [mp.exp(x - top) if mp.isfinite(x) else mpf(0) for x in row]
    return e, top, mp.fsum(e)


def logsumexp(row):
    _, top, z = exponentials(row)
    return top + mp.log(z)


def softmax(row):
    e, _, z = exponentials(row)
    return [x / z for x in e]


def log_softmax(row):
    total = logsumexp(row)
    return [x - total for x in row]


def times(a, b):
    """The product, with 0 times infinity 0."""
    return mpf(0) if a == 0 else a * b


def cross_entropy(row, q):
    """Loss and gradient for a coefficient q_j of each -log p_j."""
    log_p, p = log_softmax(row), softmax(row)
    loss = mp.fsum(times(c, -x) for c, x in zip(q, log_p, strict=True))
    total = mp.fsum(q)
    return loss, [total * x - c for x, c in zip(p, q, strict=True)]


def one_hot(index, classes):
    return [mpf(j == index) for j in range(classes)]


def focal(row, y, gamma):
    """The focal loss of the softmax, and its gradient."""
    loss, cross = cross_entropy(row, one_hot(y, len(row)))
    if not mp.isfinite(loss):
        return loss, cross
    gamma, q = mpf(gamma), -mp.expm1(-loss)
    slope = q**gamma + (gamma * q ** (gamma - 1) * mp.exp(-loss) * loss if q else mpf(0))
    return q**gamma * loss, [slope * c for c in cross]


def generalized_cross_entropy(row, y, q):
    loss, cross = cross_entropy(row, one_hot(y, len(row)))
    q = mpf(q)
    if not mp.isfinite(loss):
        return 1 / q, [mpf(0)] * len(row)
    return -mp.expm1(-q * loss) / q, [mp.exp(-q * loss) * c for c in cross]


def z_loss(row):
    total = logsumexp(row)
    return total**2, [2 * total * p for p in softmax(row)]


def distillation(student, teacher, temperature):
    """T² KL(teacher ‖ student) of softened rows, and the gradient to the student."""
    t = mpf(temperature)
    log_p, log_q = (log_softmax([x / t for x in row]) for row in (teacher, student))
    p, q = ([mp.exp(x) for x in logs] for logs in (log_p, log_q))
    terms = (times(a, b - c if a else mpf(0)) for a, b, c in zip(p, log_p, log_q, strict=True))
    return t**2 * mp.fsum(terms), [t * (b - a) for a, b in zip(p, q, strict=True)]


def multi_margin(row, y, p, margin):
    gaps = [max(mpf(margin) - row[y] + x, mpf(0)) * (j != y) for j, x in enumerate(row)]
    slopes = [p * gap ** (p - 1) / len(row) if gap else mpf(0) for gap in gaps]
    slopes[y] = -mp.fsum(slopes)
    return mp.fsum(gap**p for gap in gaps) / len(row), slopes


def dice(logits, target, smooth):
    p = [1 / (1 + mp.exp(-x)) for x in logits]
    size = mp.fsum(p) + mp.fsum(target) + mpf(smooth)
    overlap = 2 * mp.fsum(a * b for a, b in zip(p, target, strict=True)) + mpf(smooth)
    loss = 1 - overlap / size
    return loss, [a * (1 - a) * (1 - 2 * b - loss) / size for a, b in zip(p, target, strict=True)]
