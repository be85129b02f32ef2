"""The modules: every loss has one, and they train."""

import inspect

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


@pytest.mark.parametrize("name", [name for name in nn.__all__ if name != "Loss"])
def test_a_module_is_its_function(name):
    module = getattr(nn, name)
    assert module.__name__ == name
    assert module.function.__name__ in module.__doc__
    required = {"DistillationLoss": {}, "NonNegativePULoss": {"prior": 0.5}}
    options = {"OHEMCrossEntropyLoss": {"keep": 0.5}, **required}.get(name, {})
    made = module(**options)
    assert not list(made.parameters())
    if inspect.signature(module.function).parameters.get("reduction"):
        assert module(reduction="sum", **options).reduction == "sum"


def test_weights_are_buffers_and_move_with_the_module(generator):
    weight = torch.rand(3, generator=generator)
    loss = nn.CrossEntropyLoss(weight=weight, label_smoothing=0.1)
    assert torch.equal(loss.state_dict()["weight"], weight)
    assert loss.double().weight.dtype == torch.float64
    assert "label_smoothing=0.1" in repr(loss)
    x, y = torch.randn(4, 3, generator=generator).double(), torch.tensor([0, 1, 2, 1])
    expected = lossref.cross_entropy(x, y, weight=weight.double(), label_smoothing=0.1)
    assert loss(x, y) == expected


def test_a_batch_brings_its_own_mask_and_denominator(generator):
    x, t = torch.randn(4, generator=generator), torch.tensor([0.0, 1.0, 1.0, 0.0])
    mask = torch.tensor([True, False, True, True])
    got = nn.BCEWithLogitsLoss()(x, t, mask=mask, denominator=2)
    assert got == lossref.binary_cross_entropy_with_logits(x, t, mask=mask, denominator=2)
    var = torch.rand(4, generator=generator) + 0.1
    same = nn.GaussianNLLLoss(full=True)(x, t, var)
    torch.testing.assert_close(same, torch.nn.GaussianNLLLoss(full=True)(x, t, var))


def test_unknown_and_missing_options_are_named():
    with pytest.raises(TypeError, match=r"CrossEntropyLoss takes weight, .*, but not 'gamma'"):
        nn.CrossEntropyLoss(gamma=2.0)
    with pytest.raises(TypeError, match="OHEMCrossEntropyLoss needs keep"):
        nn.OHEMCrossEntropyLoss()


# torch.compile itself asks for `.grad` of what crosses a break in its graph.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("compiled", [False, True])
def test_they_train_and_compile(compiled, generator):
    torch.manual_seed(0)
    x = torch.randn(60, 4, generator=generator)
    y = x[:, :3].argmax(1)
    model = torch.nn.Linear(4, 3)
    loss = nn.CrossEntropyLoss(label_smoothing=0.05)

    def step(x, y):
        return loss(model(x), y)

    if compiled:
        step = torch.compile(step, backend="eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    first = step(x, y).item()
    for _ in range(40):
        optimizer.zero_grad()
        step(x, y).backward()
        optimizer.step()
    assert step(x, y).item() < first / 2
    assert (model(x).argmax(1) == y).float().mean() > 0.9
