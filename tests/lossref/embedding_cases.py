"""Every loss over embeddings: its textbook formula in exact arithmetic, and how it is called."""

import inspect

import torch
from loss_oracle import mp, mpf, ulp

import lossref

# The step of the differences; the error of the quotient is about its square.
STEP = mpf(2) ** -300
TENTH, HALF = mpf(0.1), mpf(0.5)


def dot(a, b):
    return mp.fsum(x * y for x, y in zip(a, b, strict=True))


def length(a):
    return mp.sqrt(dot(a, a))


def cosine(a, b):
    return dot(a, b) / (length(a) * length(b))


def apart(a, b):
    return length([x - y for x, y in zip(a, b, strict=True)])


def cross_entropy(logits, y):
    top = max(logits)
    return mp.log(mp.fsum(mp.exp(x - top) for x in logits)) + top - logits[y]


def info_nce(q, k, tau=TENTH):
    return [cross_entropy([cosine(a, b) / tau for b in k], i) for i, a in enumerate(q)]


def nt_xent(a, b, tau=HALF):
    z, n = a + b, len(a)
    losses = []
    for i, x in enumerate(z):
        others = [j for j in range(2 * n) if j != i]
        row = [cosine(x, z[j]) / tau for j in others]
        losses.append(cross_entropy(row, others.index((i + n) % (2 * n))))
    return losses


def sup_con(z, labels, tau=TENTH):
    losses = []
    for i, x in enumerate(z):
        others = [j for j in range(len(z)) if j != i]
        row = [cosine(x, z[j]) / tau for j in others]
        friends = [n for n, j in enumerate(others) if labels[j] == labels[i]]
        each = [cross_entropy(row, n) for n in friends]
        losses.append(mp.fsum(each) / len(each) if each else mpf(0))
    return losses


def clip(u, v, s):
    rows = [[s * cosine(a, b) for b in v] for a in u]
    columns = [list(c) for c in zip(*rows, strict=True)]
    n = range(len(u))
    return [(cross_entropy(rows[i], i) + cross_entropy(columns[i], i)) / 2 for i in n]


def siglip(u, v, s, b):
    return [
        mp.fsum(
            mp.log1p(mp.exp((-1 if i == j else 1) * (s * cosine(x, y) + b)))
            for j, y in enumerate(v)
        )
        for i, x in enumerate(u)
    ]


def arcface(x, w, target, m, s, monotone=True):
    losses = []
    for a, y in zip(x, target, strict=True):
        row = [cosine(a, c) for c in w]
        theta = mp.acos(row[y])
        if theta + m > mp.pi and monotone:
            row[y] = row[y] - m * mp.sin(m)
        else:
            row[y] = mp.cos(theta + m)
        losses.append(cross_entropy([s * c for c in row], y))
    return losses


def cosface(x, w, target, m, s):
    losses = []
    for a, y in zip(x, target, strict=True):
        row = [s * (cosine(a, c) - (m if k == y else 0)) for k, c in enumerate(w)]
        losses.append(cross_entropy(row, y))
    return losses


def triplet(a, p, n, margin=1):
    return [
        max(mpf(0), margin + apart(x, y) - apart(x, z)) for x, y, z in zip(a, p, n, strict=True)
    ]


def contrastive(a, b, dissimilar, margin):
    return [
        max(mpf(0), margin - apart(x, y)) ** 2 / 2 if far else apart(x, y) ** 2 / 2
        for x, y, far in zip(a, b, dissimilar, strict=True)
    ]


def batch_hard(z, labels, margin):
    losses = []
    for i, x in enumerate(z):
        near = [apart(x, y) for j, y in enumerate(z) if j != i and labels[i] == labels[j]]
        far = [apart(x, y) for j, y in enumerate(z) if labels[i] != labels[j]]
        if not near or not far:
            losses.append(mpf(0))
            continue
        gap = max(near) - min(far)
        losses.append(mp.log1p(mp.exp(gap)) if margin is None else max(mpf(0), gap + margin))
    return losses


def slopes(formula, numbers, which, entries=None):
    """The gradient of a formula's sum to one of its arrays, by differences of 300 bits.

    `numbers` are the arrays as nested lists. With `entries`, pairs of row and column, a list.
    """

    def slope(i, k):
        sums = []
        for step in (STEP, -STEP):
            moved = [[list(row) for row in array] for array in numbers]
            moved[which][i][k] += step
            sums.append(mp.fsum(formula(*moved)))
        return (sums[0] - sums[1]) / (2 * STEP)

    if entries is not None:
        return [slope(i, k) for i, k in entries]
    return [[slope(i, k) for k in range(len(row))] for i, row in enumerate(numbers[which])]


def scale_of(loss, options):
    """What multiplies a loss's cosines, or None for a loss of distances."""
    parameters = inspect.signature(loss).parameters
    given = {name: options.get(name, p.default) for name, p in parameters.items()}
    if "temperature" in given:
        return 1 / mpf(given["temperature"])
    return given.get("scale") or given.get("logit_scale")


def float64_bound(loss, options, numbers, values):
    """What the docstring of a loss grants a float64 value: a floor for each, and ULPs of it."""
    width, scale = len(numbers[0][0]), scale_of(loss, options)
    if loss is lossref.siglip_loss:
        units = len(numbers[0]) * (width + 4) * mpf(2) ** -53 * scale / ulp(scale, torch.float64)
        return [mpf(scale)] * len(values), float(units + 4)
    if scale is not None:
        return [mpf(scale)] * len(values), 8
    if loss is lossref.pairwise_distance:
        return None, width / 2 + 3
    points = [point for array in numbers for point in array]
    farthest = max(apart(a, b) for a in points for b in points)
    margin = mpf(options.get("margin") or 1)
    if loss is lossref.contrastive_loss:
        return [max(value, margin**2) for value in values], width + 4
    return [max(farthest, margin)] * len(values), width + 4


def gradient_bound(loss, options, numbers, largest):
    """What it grants a float64 gradient whose largest slope is given: a floor, and ULPs of it."""
    scale = scale_of(loss, options)
    if scale is None:
        return largest, len(numbers[0][0]) + 4
    shortest = min(length(point) for array in numbers for point in array)
    return max(largest, scale / shortest), float(8 + scale / 2)


LABELS = [0, 1, 0, 1, 2]
T = torch.tensor(LABELS)
CASES = {
    "pairwise": (
        lossref.pairwise_distance,
        2,
        (),
        {},
        lambda a, b: [apart(x, y) for x, y in zip(a, b, strict=True)],
    ),
    "contrastive": (
        lossref.contrastive_loss,
        2,
        (T > 0,),
        {"margin": 2.5},
        lambda a, b: contrastive(a, b, [y > 0 for y in LABELS], mpf(2.5)),
    ),
    "triplet": (lossref.triplet_margin_loss, 3, (), {}, triplet),
    "batch hard": (
        lossref.batch_hard_triplet_loss,
        1,
        (T,),
        {"margin": 0.7},
        lambda z: batch_hard(z, LABELS, mpf(0.7)),
    ),
    "batch hard, soft": (
        lossref.batch_hard_triplet_loss,
        1,
        (T,),
        {"margin": None},
        lambda z: batch_hard(z, LABELS, None),
    ),
    "info_nce": (lossref.info_nce_loss, 2, (), {}, info_nce),
    "info_nce, cold": (
        lossref.info_nce_loss,
        2,
        (),
        {"temperature": 0.01},
        lambda q, k: info_nce(q, k, mpf(0.01)),
    ),
    "nt_xent": (lossref.nt_xent_loss, 2, (), {}, nt_xent),
    "sup_con": (lossref.sup_con_loss, 1, (T,), {}, lambda z: sup_con(z, LABELS)),
    "clip": (
        lossref.clip_loss,
        2,
        (),
        {"logit_scale": 20.0},
        lambda u, v: clip(u, v, mpf(20)),
    ),
    "siglip": (
        lossref.siglip_loss,
        2,
        (),
        {},
        lambda u, v: siglip(u, v, mpf(10), mpf(-10)),
    ),
    "arcface": (
        lossref.arcface_loss,
        2,
        (T,),
        {"scale": 8.0},
        lambda x, w: arcface(x, w, LABELS, mpf(0.5), mpf(8)),
    ),
    "arcface, wide margin": (
        lossref.arcface_loss,
        2,
        (T,),
        {"scale": 8.0, "margin": 2.0},
        lambda x, w: arcface(x, w, LABELS, mpf(2), mpf(8)),
    ),
    "arcface of the paper": (
        lossref.arcface_loss,
        2,
        (T,),
        {"scale": 8.0, "margin": 2.0, "monotone": False},
        lambda x, w: arcface(x, w, LABELS, mpf(2), mpf(8), monotone=False),
    ),
    "cosface": (
        lossref.cosface_loss,
        2,
        (T,),
        {"scale": 8.0},
        lambda x, w: cosface(x, w, LABELS, mpf(0.35), mpf(8)),
    ),
}
