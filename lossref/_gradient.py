"""Values and gradients of losses, for NumPy as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lossref._arrays import Array, as_numpy, as_tensors, describe


def value_and_grad(
    loss: Callable[..., Array], argnums: int | tuple[int, ...] = 0
) -> Callable[..., tuple[Array, Any]]:
    r"""Make a function that returns a loss and its gradient.

    Parameters
    ----------
    loss : callable
        A loss of this library, or a function composed of them and of torch operations.
    argnums : int or tuple of int
        Which positional arguments to differentiate with respect to.

    Returns
    -------
    callable
        Takes the arguments of ``loss``, NumPy arrays or torch tensors, and returns
        ``(value, gradient)``. The gradient has the shape, dtype and kind of the argument; for a
        tuple of ``argnums`` it is a tuple. A value that is not a scalar, as with
        ``reduction="none"``, is summed to be differentiated: for losses that depend each on its
        own row, this is the gradient of each.

    Raises
    ------
    TypeError
        If an argument to differentiate is not a floating array.

    Examples
    --------
    >>> import numpy as np
    >>> import lossref
    >>> logits = np.array([[0.0, 100.0]])
    >>> value, gradient = lossref.value_and_grad(lossref.cross_entropy)(logits, np.array([1]))
    >>> gradient
    array([[ 3.72007598e-44, -3.72007598e-44]])
    """
    positions = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    def value_and_gradient(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        name = getattr(loss, "__name__", "the loss")
        numpy, tensors, named = as_tensors(name, args, kwargs)
        for position in positions:
            tensors[position] = _leaf(position, tensors[position])
        with torch.enable_grad():
            value = loss(*tensors, **named)
        gradients: tuple[Tensor, ...] = torch.autograd.grad(
            value.sum(), [tensors[position] for position in positions], materialize_grads=True
        )
        result = (value.detach(), gradients[0] if isinstance(argnums, int) else gradients)
        return as_numpy(result) if numpy else result

    return value_and_gradient


def _leaf(position: int, value: Any) -> Tensor:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise TypeError(
            f"argument {position} must be a floating array to have a gradient, "
            f"but is {describe(value)}"
        )
    return value.detach().requires_grad_()
