"""The modules: every loss has one, and they train."""

import copy
import doctest
import inspect
import math
import pickle
import subprocess
import sys

import nn_stub
import numpy as np
import pytest
import torch

import lossref
from lossref import nn

NOT_LOSSES = {
    "expected_calibration_error",
    "gradnorm_targets",
    "gradnorm_weights",
    "log1mexp",
    "log_sigmoid",
    "log_softmax",
    "logsumexp",
    "reduce",
    "sigmoid",
    "smooth_labels",
    "softmax",
    "softplus",
    "value_and_grad",
}
NEEDED = {"NonNegativePULoss": {"prior": 0.5}, "OHEMCrossEntropyLoss": {"keep": 0.5}}
NAMES = [name for name in nn.__all__ if name != "Loss"]
SHARED = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "GaussianNLLLoss",
    "HuberLoss",
    "KLDivLoss",
    "L1Loss",
    "MSELoss",
    "MultiMarginLoss",
    "NLLLoss",
    "PairwiseDistance",
    "SmoothL1Loss",
    "SoftMarginLoss",
    "TripletMarginLoss",
]


def test_every_loss_has_a_module_and_torchs_names_are_torchs():
    functions = {getattr(nn, name).function.__name__ for name in nn.__all__ if name != "Loss"}
    assert functions == set(lossref.__all__) - NOT_LOSSES
    assert all(hasattr(torch.nn, name) and name in nn.__all__ for name in SHARED)


def made(name, **options):
    return getattr(nn, name)(**NEEDED.get(name, {}), **options)


@pytest.mark.parametrize("name", NAMES)
def test_a_module_is_its_function(name):
    module = getattr(nn, name)
    assert module.__name__ == name
    assert not list(made(name).parameters())
    # An option must not hide what every module of torch has.
    assert not set(inspect.signature(module).parameters) & set(dir(torch.nn.Module()))
    taken = {*inspect.signature(module).parameters, *module.arrays, *module.named}
    assert taken == set(inspect.signature(module.function).parameters)
    if "reduction" in inspect.signature(module).parameters:
        assert made(name, reduction="sum").reduction == "sum"


@pytest.mark.parametrize("name", NAMES)
def test_a_modules_docstring_has_its_formula_options_and_an_example_that_runs(name):
    module = getattr(nn, name)
    assert ".. math::" in module.__doc__
    assert f"lossref.{module.function.__name__}`" in module.__doc__
    options = list(inspect.signature(module).parameters)
    if options:
        parameters = module.__doc__.split("Parameters\n----------\n")[1].split("\n\n")[0]
        entries = [line for line in parameters.splitlines() if line[0] != " "]
        named = [option for entry in entries for option in entry.split(" :")[0].split(", ")]
        assert named == options
    assert f"lossref.nn.{name}(" in module.__doc__
    finder = doctest.DocTestFinder(recurse=False)
    (test,) = finder.find(module, name, globs={})
    assert doctest.DocTestRunner().run(test).failed == 0


def test_the_types_are_those_of_the_signatures():
    assert nn_stub.PATH.read_text() == nn_stub.text(), "run: python tests/lossref/nn_stub.py"


def test_import_lossref_brings_the_modules_when_they_are_asked_for():
    code = (
        "import sys, lossref; assert 'lossref.nn' not in sys.modules; assert 'nn' in dir(lossref); "
        "assert 'torch._dynamo' not in sys.modules; "
        "print(lossref.nn.MSELoss())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "MSELoss()\n"
    with pytest.raises(AttributeError, match="module 'lossref' has no attribute 'mm'"):
        _ = lossref.mm


def test_a_loss_does_not_load_the_compiler_and_keeps_out_of_it_when_it_is_loaded():
    code = (
        "import sys, torch, lossref; x, y = torch.tensor([[20.0, 0.0]]), torch.tensor([0]); "
        "value = lossref.cross_entropy(x, y); assert 'torch._dynamo' not in sys.modules; "
        "twice = torch.compile(lambda x: 2 * lossref.cross_entropy(x, y), backend='eager'); "
        "assert twice(x) == 2 * value; assert 'torch._dynamo' in sys.modules; "
        "explained = torch._dynamo.explain(lambda x: lossref.cross_entropy(x, y))(x); "
        "print(explained.graph_count)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("0\n", 0), done.stderr


def test_weights_are_buffers_and_move_with_the_module(generator):
    weight = torch.rand(3, generator=generator)
    loss = nn.CrossEntropyLoss(weight=weight, label_smoothing=0.1)
    assert torch.equal(loss.state_dict()["weight"], weight)
    assert loss.double().weight.dtype == torch.float64
    assert "label_smoothing=0.1" in repr(loss)
    x, y = torch.randn(4, 3, generator=generator).double(), torch.tensor([0, 1, 2, 1])
    expected = lossref.cross_entropy(x, y, weight=weight.double(), label_smoothing=0.1)
    assert loss(x, y) == expected


def test_options_given_as_numpy_arrays_are_buffers_of_their_own():
    weight = np.ones(3, dtype=np.float32)
    loss = nn.CrossEntropyLoss(weight=weight)
    weight[:] = 5.0
    assert torch.equal(loss.state_dict()["weight"], torch.ones(3))


def test_a_batch_brings_its_own_mask_and_denominator(generator):
    x, t = torch.randn(4, generator=generator), torch.tensor([0.0, 1.0, 1.0, 0.0])
    mask = torch.tensor([True, False, True, True])
    got = nn.BCEWithLogitsLoss()(x, t, mask=mask, denominator=2)
    assert got == lossref.binary_cross_entropy_with_logits(x, t, mask=mask, denominator=2)
    var = torch.rand(4, generator=generator) + 0.1
    same = nn.GaussianNLLLoss(full=True)(x, t, var)
    torch.testing.assert_close(same, torch.nn.GaussianNLLLoss(full=True)(x, t, var))


def test_a_layer_brings_its_bias_in_the_call(generator):
    layer = torch.nn.Linear(3, 5)
    x, y = torch.randn(4, 3, generator=generator), torch.tensor([0, 4, 2, 1])
    got = nn.LinearCrossEntropyLoss()(x, layer.weight, y, bias=layer.bias)
    torch.testing.assert_close(got, torch.nn.functional.cross_entropy(layer(x), y))


def test_a_parameter_given_as_an_option_is_trained(generator):
    temperature = torch.nn.Parameter(torch.tensor(0.2))
    loss = nn.InfoNCELoss(temperature=temperature)
    assert list(loss.parameters()) == [temperature]
    x = torch.randn(4, 3, generator=generator)
    loss(x, x + 0.1).backward()
    assert temperature.grad != 0


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda loss: pickle.loads(pickle.dumps(loss))])
def test_copies_are_the_same_loss(copied, generator):
    loss = nn.CrossEntropyLoss(weight=torch.rand(3, generator=generator), label_smoothing=0.1)
    other = copied(loss)
    x, y = torch.randn(4, 3, generator=generator), torch.tensor([0, 1, 2, 1])
    assert other(x, y) == loss(x, y)
    assert repr(other) == repr(loss) == "CrossEntropyLoss(weight=(3,), label_smoothing=0.1)"
    fresh = nn.CrossEntropyLoss(weight=torch.zeros(3), label_smoothing=0.1)
    fresh.load_state_dict(loss.state_dict())
    assert fresh(x, y) == loss(x, y)
    assert other.weight is not loss.weight


def test_unknown_and_missing_options_and_arrays_are_named():
    x = torch.zeros(2, 3)
    with pytest.raises(TypeError, match=r"CrossEntropyLoss takes weight, .*, but not 'gamma'"):
        nn.CrossEntropyLoss(gamma=2.0)
    with pytest.raises(TypeError, match=r"takes weight, .* by keyword, but got 3 by position"):
        nn.CrossEntropyLoss(3)
    with pytest.raises(TypeError, match="takes no options, but not 'alpha'"):
        nn.UncertaintyWeightedLoss(alpha=1.0)
    with pytest.raises(TypeError, match="OHEMCrossEntropyLoss needs keep"):
        nn.OHEMCrossEntropyLoss()
    with pytest.raises(TypeError, match="is called with logits, target, but got 3 arrays"):
        nn.CrossEntropyLoss()(x, x, x)
    with pytest.raises(TypeError, match="logits, target, denominator, but not 'reduction'"):
        nn.CrossEntropyLoss()(x, x, reduction="sum")
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'target'"):
        nn.CrossEntropyLoss()(x)


BACKENDS = [None, "eager", "aot_eager", "inductor"]


# torch.compile itself asks for `.grad` of what crosses a break in its graph.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
# Importing inductor uses what torch itself has deprecated.
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("backend", BACKENDS)
def test_they_train_to_the_entropy_of_the_labels(backend, generator):
    torch.manual_seed(0)
    # Labels are flipped in a known share, so the best loss is the entropy of the flips.
    x = torch.randint(2, (4000, 1), generator=generator).float()
    flipped = torch.rand(4000, generator=generator) < 0.1
    y = torch.where(flipped, 1 - x[:, 0], x[:, 0]).long()
    model, loss = torch.nn.Linear(1, 2), nn.CrossEntropyLoss()

    def step(x, y):
        return loss(model(x), y)

    if backend:
        torch.compiler.reset()
        step = torch.compile(step, backend=backend)
    optimizer = torch.optim.SGD(model.parameters(), lr=3.0)
    for _ in range(150):
        optimizer.zero_grad()
        step(x, y).backward()
        optimizer.step()
    counts = torch.bincount(2 * x[:, 0].long() + y, minlength=4).double().reshape(2, 2)
    best = -(counts * (counts / counts.sum(1, keepdim=True)).log()).sum().item() / 4000
    assert math.isclose(step(x, y).item(), best, rel_tol=1e-5)
    assert 0.25 < best < 0.4


def test_a_compiled_module_is_the_module(generator):
    loss = nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2.0]))
    compiled = torch.compile(loss, backend="eager")
    x, t = torch.randn(3, 2, generator=generator), torch.ones(3, 2)
    assert compiled(x, t) == loss(x, t)


def shared_arguments(name, generator):
    """Options and a batch of samples, each a pair of inputs that a class of torch takes."""
    x = torch.randn(5, 3, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(4, (5, 3), generator=generator)
    t = torch.rand(5, 3, 4, generator=generator, dtype=torch.float64)
    signs = torch.where(t > 0.5, 1.0, -1.0).double()
    return {
        "BCELoss": (x.sigmoid(), t),
        "BCEWithLogitsLoss": (x, t),
        "CrossEntropyLoss": (x, y),
        "GaussianNLLLoss": (x, t, t + 0.5),
        "HuberLoss": (x, t),
        "KLDivLoss": (x.log_softmax(-1), t.softmax(-1)),
        "L1Loss": (x, t),
        "MSELoss": (x, t),
        "MultiMarginLoss": (x, y),
        "NLLLoss": (x.log_softmax(-1), y),
        "PairwiseDistance": (x, t),
        "SmoothL1Loss": (x, t),
        "SoftMarginLoss": (x, signs),
        "TripletMarginLoss": (x, t, t.flip(0)),
    }[name]


@pytest.mark.parametrize("name", SHARED)
def test_under_vmap_and_grad_they_are_torchs(name, generator):
    arrays = shared_arguments(name, generator)
    options = {"eps": 0.0} if name in ("PairwiseDistance", "TripletMarginLoss") else {}
    if name == "KLDivLoss":
        options["reduction"] = "batchmean"
    ours, theirs = getattr(nn, name)(**options), getattr(torch.nn, name)(**options)

    def value(*arrays):
        return ours(*arrays).sum()

    got = torch.func.vmap(torch.func.grad_and_value(value))(*arrays)
    # Some of torch's own cannot be mapped, so theirs go sample by sample.
    samples = []
    for sample in zip(*arrays, strict=True):
        x = sample[0].clone().requires_grad_()
        expected = theirs(x, *sample[1:]).sum()
        samples.append((*torch.autograd.grad(expected, x), expected.detach()))
    wanted = tuple(torch.stack(parts) for parts in zip(*samples, strict=True))
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)
