"""The questions that the accuracy benchmark asks: they cover every loss, and see wrong answers."""

import pytest
import torch
from loss_oracle import FLOATS
from questions import QUESTIONS, ask

import lossref

# What has no elementwise answer of its own: helpers, risks of a whole batch, and losses whose
# accuracy is that of a matrix product or of a measured step.
ELSEWHERE = {
    "expected_calibration_error",
    "gradnorm_targets",
    "gradnorm_weights",
    "linear_cross_entropy",
    "nn_pu_loss",
    "ohem_cross_entropy",
    "reduce",
    "smooth_labels",
    "uncertainty_weighted_loss",
    "value_and_grad",
    "vocab_parallel_cross_entropy",
}


def test_every_loss_is_asked_about():
    asked = {ask(name, torch.float32).loss.__name__ for name in QUESTIONS}
    assert asked == set(lossref.__all__) - ELSEWHERE


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ["cross_entropy", "softmax", "mse", "sup_con"])
def test_an_answer_beyond_the_bound_is_seen(name, dtype):
    question = ask(name, dtype)
    values, gradients = question.answer()
    assert question.value_error(values) <= question.bound(0)
    assert question.gradient_error(gradients) <= question.bound(1)
    eps = torch.finfo(dtype).eps
    off = [x.double() * (1 + 4 * eps * question.bound(1)) for x in (values, *gradients)]
    off = [x.to(dtype) for x in off]
    assert question.value_error(off[0]) > question.bound(0)
    assert question.gradient_error(off[1:]) > question.bound(1)
