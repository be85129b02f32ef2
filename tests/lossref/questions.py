"""Every loss as a question: hard inputs, the exact values and gradients, and how near to come."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import elementwise_cases
import embedding_cases
import loss_oracle as oracle
import torch
from hard_inputs import hard_rows
from loss_oracle import exact, mp, mpf, one_format_up, one_hot, worst

import lossref

CLASSES = 6


@dataclass
class Question:
    """A loss of this library on given arrays, and the exact answer.

    The floors are the larger terms where the true value crosses zero. The bounds, of value and
    gradient, are those of float64; the narrower formats have 1 ULP.
    """

    loss: Callable[..., Any]
    inputs: list[torch.Tensor]
    values: Any
    gradients: list[Any]
    constants: tuple[torch.Tensor, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    floor: Any = None
    gradient_floors: list[Any] | None = None
    bounds: tuple[float, float] = (3, 4)
    # what the result is multiplied by before it is summed and differentiated
    cotangent: torch.Tensor | None = None

    @property
    def dtype(self):
        return self.inputs[0].dtype

    def bound(self, of):
        """The bound of the value (0) or the gradient (1), in ULPs."""
        return self.bounds[of] if self.dtype == torch.float64 else 1

    def value_error(self, values):
        """The worst error of computed values in ULPs."""
        floor = self.floor and one_format_up(self.floor, self.dtype)
        return worst(values, self.values, floor=floor)

    def gradient_error(self, gradients):
        """The worst error of computed gradients in ULPs."""
        floors = self.gradient_floors or [None] * len(gradients)
        return max(
            worst(got, expected, floor=scale and one_format_up(scale, self.dtype))
            for got, expected, scale in zip(gradients, self.gradients, floors, strict=False)
        )

    def answer(self, loss=None, device="cpu"):
        """The values and gradients that a function of torch tensors gives; by default this one."""
        leaves = [x.to(device).detach().clone().requires_grad_() for x in self.inputs]
        constants = [x.to(device) for x in self.constants]
        options = {
            name: option.to(device) if isinstance(option, torch.Tensor) else option
            for name, option in self.options.items()
        }
        call = loss or self.loss
        values = call(*leaves, *constants, **({} if loss else options))
        total = values if self.cotangent is None else values * self.cotangent.to(device)
        return values, torch.autograd.grad(total.sum(), leaves)


def elementwise_question(case, dtype, generator):
    x, t = elementwise_cases.inputs_of(case, dtype, generator, count=12)
    pairs = list(zip(exact(x), exact(t), strict=True))
    scales = [s and [s(*pair) for pair in pairs] for s in (case.scale, case.slope_scale)]
    return Question(
        case.loss,
        [x],
        [case.value(*pair) for pair in pairs],
        [[case.slope(*pair) for pair in pairs]],
        constants=(t,),
        options={**elementwise_cases.arrange(case, dtype), "reduction": "none"},
        floor=scales[0],
        gradient_floors=[scales[1]],
        bounds=case.bounds,
    )


def embedding_question(case, dtype, generator):
    """The bounds of the docstrings, in float64 by the loss's largest terms and slopes."""
    loss, count, args, options, formula = case
    arrays = [torch.randn(5, 3, generator=generator, dtype=torch.float64) for _ in range(count)]
    arrays = [x.to(dtype) for x in arrays]
    numbers = [exact(x) for x in arrays]
    slopes = [embedding_cases.slopes(formula, numbers, which) for which in range(count)]
    values = formula(*numbers)
    none = {} if loss is lossref.pairwise_distance else {"reduction": "none"}
    floor, value_bound = embedding_cases.float64_bound(loss, options, numbers, values)
    largest = max(abs(s) for slope in slopes for row in slope for s in row)
    size, gradient_bound = embedding_cases.gradient_bound(loss, options, numbers, largest)
    return Question(
        loss,
        arrays,
        values,
        slopes,
        constants=args,
        options={**options, **none},
        floor=floor if dtype == torch.float64 else None,
        gradient_floors=[[[size] * len(row) for row in slope] for slope in slopes],
        bounds=(value_bound, gradient_bound),
    )


def finite_rows(dtype, generator):
    rows = (row for _, row in hard_rows(dtype, CLASSES, generator))
    return torch.stack([row for row in rows if row.isfinite().all()])


def row_question(loss, dtype, generator, formula, bounds, floors=None, **options):
    """A loss of rows and class indices; `formula` and `floors` take an exact row and its index."""
    rows = finite_rows(dtype, generator).repeat_interleave(2, 0)
    target = torch.arange(len(rows)) % 2 * (CLASSES - 1)
    pairs = list(zip(exact(rows), target.tolist(), strict=True))
    answers = [formula(*pair) for pair in pairs]
    scales = floors and [floors(*pair) for pair in pairs]
    return Question(
        loss,
        [rows],
        [value for value, _ in answers],
        [[slope for _, slope in answers]],
        constants=(target,),
        options={**options, "reduction": "none"},
        floor=scales and [value for value, _ in scales],
        gradient_floors=scales and [[slope for _, slope in scales]],
        bounds=bounds,
    )


def of_index(row, y):
    return oracle.cross_entropy(row, one_hot(y, len(row)))


def cross_entropy_question(dtype, generator):
    return row_question(lossref.cross_entropy, dtype, generator, of_index, (3, 4))


def nll_question(dtype, generator):
    def formula(row, y):
        return -row[y], [-c for c in one_hot(y, len(row))]

    return row_question(lossref.nll_loss, dtype, generator, formula, (1, 1))


def smoothed(y, classes, epsilon):
    return [(1 - epsilon) * c + epsilon / classes for c in one_hot(y, classes)]


def dense_floors(row, q):
    _, gradient = oracle.cross_entropy(row, q)
    return mpf(0), [max(abs(g + c), c) for g, c in zip(gradient, q, strict=True)]


def smoothing_question(dtype, generator):
    epsilon = mpf(0.1)
    return row_question(
        lossref.cross_entropy,
        dtype,
        generator,
        lambda row, y: oracle.cross_entropy(row, smoothed(y, len(row), epsilon)),
        (5, 6),
        lambda row, y: dense_floors(row, smoothed(y, len(row), epsilon)),
        label_smoothing=0.1,
    )


def probabilities_question(dtype, generator):
    rows = finite_rows(dtype, generator)
    shares = torch.softmax(torch.randn(rows.shape, generator=generator) * 3, 1).to(dtype)
    pairs = list(zip(exact(rows), exact(shares), strict=True))
    answers = [oracle.cross_entropy(*pair) for pair in pairs]
    return Question(
        lossref.cross_entropy,
        [rows],
        [value for value, _ in answers],
        [[slope for _, slope in answers]],
        constants=(shares,),
        options={"reduction": "none"},
        gradient_floors=[[dense_floors(*pair)[1] for pair in pairs]],
        bounds=(5, 6),
    )


def kl_question(dtype, generator):
    target = torch.softmax(torch.randn(40, generator=generator).double() * 4, 0).to(dtype)
    logs = torch.log_softmax(torch.randn(40, generator=generator).double() * 4, 0).to(dtype)
    logs[:10] = target[:10].double().log().to(dtype)
    target[10] = 0
    pairs = list(zip(exact(logs), exact(target), strict=True))
    terms = [(oracle.times(t, mp.log(t) if t else mpf(0)), oracle.times(t, x)) for x, t in pairs]
    return Question(
        lossref.kl_div,
        [logs],
        [a - b for a, b in terms],
        [[-t for _, t in pairs]],
        constants=(target,),
        options={"reduction": "none"},
        floor=[max(abs(a), abs(b)) for a, b in terms],
        bounds=(3, 1),
    )


TEMPERATURE = 4.0


def distillation_question(dtype, generator):
    teacher = (torch.randn(8, CLASSES, generator=generator) * 4).to(dtype)
    apart = torch.tensor([0.0, 1e-3, 1e-2, 1.0, 1.0, 5.0, 20.0, 20.0])[:, None]
    # What is added to a whole row is to change nothing.
    shift = torch.tensor([0.0, 2.5, -11.0, 0.0, 25.0, 0.0, -3.0, 0.0])[:, None]
    student = teacher.double() + torch.randn(8, CLASSES, generator=generator) * apart + shift
    student = student.to(dtype)
    size = max(x.abs().max().item() for x in (student, teacher)) / TEMPERATURE
    pairs = list(zip(exact(student), exact(teacher), strict=True))
    answers = [oracle.distillation(*pair, TEMPERATURE) for pair in pairs]

    def floor(student, teacher, slopes):
        p = oracle.softmax([x / mpf(TEMPERATURE) for x in teacher])
        q = oracle.softmax([x / mpf(TEMPERATURE) for x in student])
        gap = max(abs(mp.log(a / b)) for a, b in zip(p, q, strict=True))
        return [max(abs(s), TEMPERATURE * a * gap) for s, a in zip(slopes, p, strict=True)]

    return Question(
        lossref.distillation_loss,
        [student],
        [value for value, _ in answers],
        [[slopes for _, slopes in answers]],
        constants=(teacher,),
        options={"temperature": TEMPERATURE, "reduction": "none"},
        gradient_floors=[
            [floor(*pair, slopes) for pair, (_, slopes) in zip(pairs, answers, strict=True)]
        ],
        bounds=(32 + size, 8 + size),
    )


def generalized_question(dtype, generator):
    q = 0.7

    def floors(row, y):
        # The gradient's bound grows with the loss: 6 + 2 q l.
        value, gradient = oracle.generalized_cross_entropy(row, y, q)
        more = 1 + 2 * mpf(q) * of_index(row, y)[0] / 6
        return value, [abs(g) * more for g in gradient]

    return row_question(
        lossref.generalized_cross_entropy,
        dtype,
        generator,
        lambda row, y: oracle.generalized_cross_entropy(row, y, q),
        (6, 6),
        floors,
        q=q,
    )


def z_question(dtype, generator):
    def floors(row):
        total, p = oracle.logsumexp(row), oracle.softmax(row)
        size = max(abs(total), abs(max(row)))
        return size * abs(total), [2 * size * p_j for p_j in p]

    rows = finite_rows(dtype, generator)
    answers = [oracle.z_loss(row) for row in exact(rows)]
    scales = [floors(row) for row in exact(rows)]
    return Question(
        lossref.z_loss,
        [rows],
        [value for value, _ in answers],
        [[slopes for _, slopes in answers]],
        options={"reduction": "none"},
        floor=[value for value, _ in scales],
        gradient_floors=[[slopes for _, slopes in scales]],
        bounds=(6, 8),
    )


def focal_question(dtype, generator):
    def formula(row, y):
        return oracle.focal(row, y, 2.0)

    return row_question(lossref.focal_loss, dtype, generator, formula, (12, 12), gamma=2.0)


def multi_margin_question(dtype, generator):
    def floors(row, y):
        return max(abs(x) for x in [*row, mpf(1)]), [mpf(1)] * len(row)

    return row_question(
        lossref.multi_margin_loss,
        dtype,
        generator,
        lambda row, y: oracle.multi_margin(row, y, 1, 1),
        (4, 4),
        floors,
    )


def dice_question(dtype, generator):
    scale = torch.tensor([0.1, 3.0, 30.0])[:, None]
    logits = (torch.randn(3, 8, generator=generator) * scale).to(dtype)
    target = (torch.rand(3, 8, generator=generator) > 0.5).to(dtype)
    target[0] = (logits[0] > 0).to(dtype)
    answers = [oracle.dice(x, t, 1) for x, t in zip(exact(logits), exact(target), strict=True)]

    def terms(x, t):
        size = mp.fsum(1 / (1 + mp.exp(-a)) for a in x) + mp.fsum(t) + 1
        return [mp.exp(-abs(a)) / size for a in x]

    pairs = zip(exact(logits), exact(target), strict=True)
    return Question(
        lossref.dice_loss,
        [logits],
        [value for value, _ in answers],
        [[slopes for _, slopes in answers]],
        constants=(target,),
        options={"reduction": "none"},
        gradient_floors=[[terms(*pair) for pair in pairs]],
        bounds=(6, 10),
    )


def logsumexp_question(dtype, generator):
    rows = finite_rows(dtype, generator)
    return Question(
        lossref.logsumexp,
        [rows],
        [oracle.logsumexp(row) for row in exact(rows)],
        [[oracle.softmax(row) for row in exact(rows)]],
        floor=[abs(max(row)) for row in exact(rows)],
        bounds=(3, 4),
    )


def softmax_question(dtype, generator):
    """The gradient is that of the first probability."""
    rows = finite_rows(dtype, generator)
    p = [oracle.softmax(row) for row in exact(rows)]
    cotangent = torch.zeros_like(rows)
    cotangent[:, 0] = 1
    return Question(
        lossref.softmax,
        [rows],
        p,
        [[[row[0] * ((j == 0) - x) for j, x in enumerate(row)] for row in p]],
        bounds=(4, 8),
        cotangent=cotangent,
    )


def log_softmax_question(dtype, generator):
    """The gradient is that of the first log-probability."""
    rows = finite_rows(dtype, generator)
    cotangent = torch.zeros_like(rows)
    cotangent[:, 0] = 1
    return Question(
        lossref.log_softmax,
        [rows],
        [oracle.log_softmax(row) for row in exact(rows)],
        [[oracle.cross_entropy(row, one_hot(0, CLASSES))[1] for row in exact(rows)]],
        bounds=(3, 4),
        cotangent=-cotangent,
    )


def pointwise_question(loss, value, slope, bounds, points, dtype, generator):
    x = points(dtype, generator)
    return Question(
        loss, [x], [value(v) for v in exact(x)], [[slope(v) for v in exact(x)]], bounds=bounds
    )


def points(dtype, generator):
    """Numbers of every size, as wide as the format and the exponential reach."""
    random = torch.randn(25, generator=generator, dtype=torch.float64)
    special = torch.tensor([0.0, 17.0, -17.0, 745.0, -745.0, -740.5, 88.7, -103.9, -87.5])
    sizes = [1e-30, 1e-6, 0.1, 1.0, 5.0, 20.0, 100.0, 400.0, 1e4]
    x = torch.cat([special.double(), *[random * size for size in sizes]]).to(dtype)
    return x[x.isfinite()]


def negative_points(dtype, generator):
    x = -points(dtype, generator).abs()
    return torch.cat([x[x < 0], torch.linspace(-0.8, -0.6, 50, dtype=torch.float64).to(dtype)])


def sigma(x):
    return 1 / (1 + mp.exp(-x))


POINTWISE = {
    "sigmoid": (lossref.sigmoid, sigma, lambda x: sigma(x) * sigma(-x), (3, 4), points),
    "log_sigmoid": (
        lossref.log_sigmoid,
        lambda x: -mp.log1p(mp.exp(-x)),
        lambda x: sigma(-x),
        (3, 3),
        points,
    ),
    "softplus": (lossref.softplus, lambda x: mp.log1p(mp.exp(x)), sigma, (3, 3), points),
    "log1mexp": (
        lossref.log1mexp,
        lambda x: mp.log(-mp.expm1(x)),
        lambda x: mp.exp(x) / mp.expm1(x),
        (4, 4),
        negative_points,
    ),
}


QUESTIONS: dict[str, Callable[[torch.dtype, torch.Generator], Question]] = {
    "logsumexp": logsumexp_question,
    "softmax": softmax_question,
    "log_softmax": log_softmax_question,
    **{name: partial(pointwise_question, *case) for name, case in POINTWISE.items()},
    "cross_entropy": cross_entropy_question,
    "cross_entropy, probabilities": probabilities_question,
    "cross_entropy, smoothing": smoothing_question,
    "nll": nll_question,
    "kl_div": kl_question,
    "distillation": distillation_question,
    "generalized cross_entropy": generalized_question,
    "z_loss": z_question,
    "focal": focal_question,
    "multi_margin": multi_margin_question,
    "dice": dice_question,
    **{name: partial(elementwise_question, case) for name, case in elementwise_cases.CASES.items()},
    **{name: partial(embedding_question, case) for name, case in embedding_cases.CASES.items()},
}


def ask(name, dtype, seed=0):
    """One of the questions, with its random inputs drawn from a seed."""
    return QUESTIONS[name](dtype, torch.Generator().manual_seed(seed))
