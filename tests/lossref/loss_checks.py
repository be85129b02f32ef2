"""What many tests of losses do: take a gradient, expect a refusal."""

import pytest
import torch


def value_and_gradient(loss, x, *args, **kwargs):
    x = x.detach().clone().requires_grad_()
    value = loss(x, *args, **kwargs)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    assert value.dtype == gradient.dtype == x.dtype
    assert value.device == gradient.device == x.device
    return value, gradient


def refused(error, message, loss, *args, **kwargs):
    """Expect a call to fail with a message."""
    with pytest.raises(error, match=message):
        loss(*args, **kwargs)
