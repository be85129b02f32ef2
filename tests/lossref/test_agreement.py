"""Agreement with PyTorch in all combinations of arguments, and each difference that is meant.

Agreement is to within PyTorch's own rounding: the two float32 results may differ by no more than
PyTorch's float32 result differs from its float64 one on the same numbers, plus half a unit in the
last place for our rounding and one for what the float64 result has not got right.
"""

import functools
import itertools
import warnings

import pytest
import torch
import torch.nn.functional as F
from loss_checks import refused
from loss_oracle import ulp_error

import lossref
from book.means.library_table import library_table
from book.means.lossref_differences import NAMES, differences

REDUCTIONS = ("none", "mean", "sum")
SHAPES = {(5,): (), (4, 5): (4,), (2, 5, 3): (2, 3), (2, 5, 3, 2): (2, 3, 2)}


def combinations(**choices):
    """Every choice of keyword arguments."""
    return [
        dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())
    ]


def widened(value):
    floating = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.double() if floating else value


def result(loss, leaves, *args, **options):
    """Value and gradients, of the losses times numbers that differ, so that none can stand in."""
    leaves = [x.detach().clone().requires_grad_() for x in leaves]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "reduction: 'mean'")
        value = loss(*leaves, *args, **options)
    # of float32 also where the losses are float64, so that both are asked for the same
    factors = torch.linspace(0.5, 1.5, value.numel()).reshape(value.shape)
    return value.detach(), *torch.autograd.grad((value * factors.to(value.dtype)).sum(), leaves)


def agree(ours, theirs, leaves, *args, renamed=None, **options):
    """Compare the two in float32; `renamed` are our names of PyTorch's arguments."""
    wide = {name: widened(value) for name, value in options.items()}
    exact = result(theirs, map(widened, leaves), *map(widened, args), **wide)
    narrow = result(theirs, leaves, *args, **options)
    named = {(renamed or {}).get(name, name): value for name, value in options.items()}
    found = result(ours, leaves, *args, **named)
    for a, b, reference in zip(found, narrow, exact, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        size = torch.nextafter(reference.abs().float(), torch.tensor(torch.inf)).double()
        unit = size - reference.abs().float().double()
        apart = (a.double() - b.double()).abs()
        allowed = (b.double() - reference).abs() + 1.5 * unit
        assert bool((apart <= allowed).all()), (options, a, b, reference)


def normal(generator, *shape, scale=3.0):
    return torch.randn(shape, generator=generator) * scale


def uniform(generator, *shape):
    return torch.rand(shape, generator=generator) * 0.9 + 0.05


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["indices", "probabilities"])
def test_cross_entropy(shape, kind, generator):
    x, axis = normal(generator, *shape), min(1, len(shape) - 1)
    target = torch.randint(5, SHAPES[shape], generator=generator)
    if kind == "probabilities":
        target = normal(generator, *shape).softmax(axis)
    weights = (None, uniform(generator, 5))
    for options in combinations(
        reduction=REDUCTIONS,
        weight=weights,
        label_smoothing=(0.0, 0.1, 1.0),
        ignore_index=(-100, 3) if kind == "indices" and target.ndim else (-100,),
    ):
        if bool((target == options["ignore_index"]).all()):
            continue
        agree(lossref.cross_entropy, F.cross_entropy, [x], target, **options)


@pytest.mark.parametrize("shape", SHAPES)
def test_nll_loss(shape, generator):
    x = normal(generator, *shape).log_softmax(min(1, len(shape) - 1))
    target = torch.randint(5, SHAPES[shape], generator=generator)
    for options in combinations(
        reduction=REDUCTIONS,
        weight=(None, uniform(generator, 5)),
        ignore_index=(-100, 3) if target.ndim else (-100,),
    ):
        agree(lossref.nll_loss, F.nll_loss, [x], target, **options)


@pytest.mark.parametrize("shape", SHAPES)
def test_kl_div(shape, generator):
    axis = min(1, len(shape) - 1)
    x, t = (normal(generator, *shape).log_softmax(axis) for _ in range(2))
    for options in combinations(reduction=(*REDUCTIONS, "batchmean"), log_target=(False, True)):
        target = t if options["log_target"] else t.exp()
        agree(lossref.kl_div, F.kl_div, [x, target], **options)


@pytest.mark.parametrize("shape", [(), (6,), (2, 3, 4)])
@pytest.mark.parametrize("targets", ["binary", "soft"])
def test_binary_cross_entropy(shape, targets, generator):
    t = uniform(generator, *shape)
    t = t.round() if targets == "binary" else t
    for options in combinations(reduction=REDUCTIONS, weight=(None, uniform(generator, *shape))):
        agree(
            lossref.binary_cross_entropy,
            F.binary_cross_entropy,
            [uniform(generator, *shape)],
            t,
            **options,
        )


@pytest.mark.parametrize("targets", ["binary", "soft"])
@pytest.mark.parametrize("shape", [(4,), (2, 3, 4)])
def test_binary_cross_entropy_with_logits(shape, targets, generator):
    x, t = normal(generator, *shape), uniform(generator, *shape)
    t = t.round() if targets == "binary" else t
    broadcast = [(), (1,), (4,), (3, 1), (3, 4), (2, 1, 1), (2, 3, 4)]
    shapes = [s for s in broadcast if len(s) <= len(shape)]
    weights = [None, *(uniform(generator, *s) * 4 for s in shapes)]
    for options in combinations(reduction=REDUCTIONS, weight=weights, pos_weight=weights):
        agree(
            lossref.binary_cross_entropy_with_logits,
            F.binary_cross_entropy_with_logits,
            [x],
            t,
            **options,
        )


@pytest.mark.parametrize("shape", [(), (6,), (2, 3, 4)])
def test_logistic_loss(shape, generator):
    y = torch.where(uniform(generator, *shape) > 0.5, 1.0, -1.0)
    for options in combinations(reduction=REDUCTIONS):
        x = normal(generator, *shape)
        agree(lossref.logistic_loss, F.soft_margin_loss, [x], y, **options)


@pytest.mark.parametrize("shape", [(5,), (4, 5)])
def test_multi_margin_loss(shape, generator):
    x = normal(generator, *shape)
    y = torch.randint(5, SHAPES[shape], generator=generator)
    for options in combinations(
        reduction=REDUCTIONS,
        p=(1, 2),
        margin=(1.0, 0.5),
        weight=(None, uniform(generator, 5)),
    ):
        agree(lossref.multi_margin_loss, F.multi_margin_loss, [x], y, **options)


PAIRS = {
    "mse": (lossref.mse_loss, F.mse_loss, {}),
    "l1": (lossref.l1_loss, F.l1_loss, {}),
    "huber": (lossref.huber_loss, F.huber_loss, {"delta": (0.3, 1.0, 2.5)}),
    "smooth_l1": (lossref.smooth_l1_loss, F.smooth_l1_loss, {"beta": (0.0, 0.3, 1.0, 2.5)}),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("shape", [(), (6,), (2, 3, 4)])
def test_losses_of_a_difference(name, shape, generator):
    ours, theirs, choices = PAIRS[name]
    x, t = (normal(generator, *shape, scale=1.5) for _ in range(2))
    # smooth_l1_loss of PyTorch takes no weight
    weights = (None,) if name == "smooth_l1" else (None, uniform(generator, *shape))
    for options in combinations(reduction=REDUCTIONS, weight=weights, **choices):
        if options["weight"] is None:
            del options["weight"]
        elif name == "huber" and options["reduction"] == "mean":
            # a difference that is meant: weighted-huber in the table
            continue
        agree(ours, theirs, [x, t], **options)


def gaussian(x, t, var, **options):
    return lossref.gaussian_nll_loss(x, t, var=var, **options)


def test_gaussian_nll_loss(generator):
    x, t = normal(generator, 4, 3), normal(generator, 4, 3)
    for shape in [(4, 3), (4, 1), (4,)]:
        var = uniform(generator, *shape)
        var[0] = 1e-5
        for options in combinations(reduction=REDUCTIONS, full=(False, True), eps=(1e-6, 1e-3)):
            agree(gaussian, F.gaussian_nll_loss, [x, t, var], **options)
            agree(gaussian, F.gaussian_nll_loss, [x, t], 0.3, **options)


@pytest.mark.parametrize("shape", [(4,), (3, 4)])
def test_pairwise_distance(shape, generator):
    x1, x2 = normal(generator, *shape), normal(generator, *shape)
    for options in combinations(
        p=(1.0, 2.0, 3.0, torch.inf), eps=(0.0, 1e-6), keepdim=(False, True)
    ):
        agree(lossref.pairwise_distance, F.pairwise_distance, [x1, x2], **options)


@pytest.mark.parametrize("shape", [(4,), (6, 4)])
def test_triplet_margin_loss(shape, generator):
    arrays = [normal(generator, *shape, scale=1.0) for _ in range(3)]
    for options in combinations(
        reduction=REDUCTIONS,
        margin=(0.5, 2.0),
        p=(1.0, 2.0, 3.0, torch.inf),
        eps=(0.0, 1e-6),
        swap=(False, True),
    ):
        agree(lossref.triplet_margin_loss, F.triplet_margin_loss, arrays, **options)


FUNCTIONS = {
    "softmax": (lossref.softmax, torch.softmax),
    "log_softmax": (lossref.log_softmax, torch.log_softmax),
    "logsumexp": (lossref.logsumexp, torch.logsumexp),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_functions_along_an_axis(name, axis, generator):
    ours, theirs = FUNCTIONS[name]
    x = normal(generator, 3, 4, 5)
    agree(ours, theirs, [x], dim=axis, renamed={"dim": "axis"})
    if name == "logsumexp":
        names = {"dim": "axis", "keepdim": "keepdims"}
        agree(ours, theirs, [x], dim=axis, keepdim=True, renamed=names)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lossref.sigmoid, torch.sigmoid),
        (lossref.log_sigmoid, F.logsigmoid),
        (lossref.softplus, F.softplus),
    ],
)
def test_functions_of_one_number(ours, theirs, generator):
    agree(ours, theirs, [normal(generator, 40)])


CASES = differences()


@functools.cache
def answers(name):
    """What each library gives, by the table of the book itself."""
    case = next(case for case in CASES if case.name == name)
    (found,) = library_table("one case", [case], namespace=NAMES).answers.values()
    return case, {answer.library: answer for answer in found}


def errors(name):
    """Each library's error in ULPs of its own format; where no answer is agreed, of 0."""
    case, found = answers(name)
    formats = {2.0**-10: torch.float16, 2.0**-23: torch.float32, 2.0**-52: torch.float64}
    exact = 0 if case.exact is None else case.exact
    return {
        library: float(ulp_error(answer.value, exact, formats[answer.eps]))
        for library, answer in found.items()
    }


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_each_difference_of_the_table_is_right(name):
    assert errors(name)["lossref"] <= 1


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_each_difference_of_the_table_is_one(name):
    others = {library: error for library, error in errors(name).items() if library != "lossref"}
    assert max(others.values()) > 4


def test_what_the_table_says_is_refused():
    x, column = torch.ones(3), torch.ones(3, 1)
    refused(ValueError, r"target must have shape \(3,\).*squeeze", lossref.mse_loss, x, column)
    two = torch.full((3,), 2.0)
    bce = lossref.binary_cross_entropy_with_logits
    refused(ValueError, r"target must be in \[0, 1\], but holds 2", bce, x, two)
    below = r"target must be probabilities, at least 0, but holds -1"
    refused(ValueError, below, lossref.kl_div, x, -x)
    same = r"target must have the dtype of prediction, torch.float32, but is torch.float64"
    refused(TypeError, same, lossref.mse_loss, x, x.double())
    three = r"target must be 0 or 1|target must be -1 or 1, but holds 0"
    refused(ValueError, three, lossref.logistic_loss, x, 0 * x)
