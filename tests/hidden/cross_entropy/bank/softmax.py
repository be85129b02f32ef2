"""Known wrong and right ways to write `softmax(logits)`."""

import math

import torch

from autograder.bank import equivalent, misconception


@misconception(
    "exponentiating without subtracting each row's largest logit", see="cross-entropy#overflow"
)
def no_shift(logits):
    exponentials = torch.exp(logits)
    return exponentials / exponentials.sum(dim=1, keepdim=True)


@misconception(
    "subtracting the largest logit of the whole batch instead of each row's own",
    see="cross-entropy#shift-invariance",
)
def global_maximum(logits):
    exponentials = torch.exp(logits - logits.max())
    return exponentials / exponentials.sum(dim=1, keepdim=True)


@misconception(
    "subtracting each row's mean, which does not keep the exponential from overflowing",
    see="cross-entropy#overflow",
)
def row_mean_subtracted(logits):
    kept = logits.masked_fill(logits == -math.inf, 0.0)
    count = (logits > -math.inf).sum(dim=1, keepdim=True)
    exponentials = torch.exp(logits - kept.sum(dim=1, keepdim=True) / count)
    return exponentials / exponentials.sum(dim=1, keepdim=True)


@misconception("clamping the logits before the exponential", see="cross-entropy#overflow")
def clamped_logits(logits):
    exponentials = torch.exp(logits.clamp(-50, 50))
    return exponentials / exponentials.sum(dim=1, keepdim=True)


@misconception(
    "normalising each column over the batch instead of each row over the classes",
    see="cross-entropy#wrong-axis",
)
def over_the_batch(logits):
    exponentials = torch.exp(logits - logits.max(dim=0, keepdim=True).values)
    return exponentials / exponentials.sum(dim=0, keepdim=True)


@misconception(
    "dividing by the sum over the whole batch instead of each row's sum",
    see="cross-entropy#wrong-axis",
)
def over_everything(logits):
    exponentials = torch.exp(logits - logits.max())
    return exponentials / exponentials.sum()


@misconception("leaving out the division by each row's sum", see="cross-entropy#softmax")
def not_normalised(logits):
    return torch.exp(logits - logits.max(dim=1, keepdim=True).values)


@misconception(
    "a sigmoid of each logit on its own, so that the rows do not sum to 1",
    see="cross-entropy#softmax",
)
def sigmoid_of_each(logits):
    return torch.sigmoid(logits)


@misconception(
    "dividing the logits by their sum, without the exponential", see="cross-entropy#softmax"
)
def no_exponential(logits):
    return logits / logits.sum(dim=1, keepdim=True)


@misconception("the softmax of the negated logits", see="cross-entropy#softmax")
def negated_logits(logits):
    exponentials = torch.exp(logits.min(dim=1, keepdim=True).values - logits)
    return exponentials / exponentials.sum(dim=1, keepdim=True)


@misconception("powers of 2 instead of the exponential", see="cross-entropy#natural-logarithm")
def powers_of_two(logits):
    powers = torch.exp2(logits - logits.max(dim=1, keepdim=True).values)
    return powers / powers.sum(dim=1, keepdim=True)


@misconception(
    "returning the logarithms of the probabilities instead of the probabilities",
    see="cross-entropy#log-softmax",
)
def logarithms_returned(logits):
    return logits - torch.logsumexp(logits, dim=1, keepdim=True)


@misconception("a 1 at the largest logit and 0 elsewhere", see="cross-entropy#softmax")
def hard_maximum(logits):
    largest = logits.argmax(dim=1, keepdim=True)
    return torch.zeros_like(logits).scatter(1, largest, torch.ones_like(logits))


@misconception(
    "adding a small number to each row's sum, so that the rows do not quite sum to 1",
    see="cross-entropy#softmax",
)
def epsilon_in_denominator(logits):
    exponentials = torch.exp(logits - logits.max(dim=1, keepdim=True).values)
    return exponentials / (exponentials.sum(dim=1, keepdim=True) + 1e-8)


@misconception("softmax applied twice", see="cross-entropy#double-softmax")
def applied_twice(logits):
    for _ in range(2):
        exponentials = torch.exp(logits - logits.max(dim=1, keepdim=True).values)
        logits = exponentials / exponentials.sum(dim=1, keepdim=True)
    return logits


@misconception(
    "cutting the result off from autograd, so that nothing can be learned through it",
    see="cross-entropy#differentiable",
)
def detached(logits):
    exponentials = torch.exp(logits.detach() - logits.detach().amax(dim=1, keepdim=True))
    return exponentials / exponentials.sum(dim=1, keepdim=True)


@misconception(
    "treating each row's sum as a constant in the gradient",
    see="cross-entropy#differentiable",
)
def detached_denominator(logits):
    exponentials = torch.exp(logits - logits.amax(dim=1, keepdim=True).detach())
    return exponentials / exponentials.sum(dim=1, keepdim=True).detach()


@misconception(
    "returning float64 whatever the dtype of the logits is", see="cross-entropy#dtype-and-device"
)
def always_float64(logits):
    logits = logits.double()
    exponentials = torch.exp(logits - logits.amax(dim=1, keepdim=True))
    return exponentials / exponentials.sum(dim=1, keepdim=True)


@misconception(
    "returning float32 whatever the dtype of the logits is", see="cross-entropy#dtype-and-device"
)
def always_float32(logits):
    logits = logits.float()
    exponentials = torch.exp(logits - logits.amax(dim=1, keepdim=True))
    return exponentials / exponentials.sum(dim=1, keepdim=True)


@misconception("changing the logits of the caller in place", see="cross-entropy#differentiable")
def in_place(logits):
    logits -= logits.max(dim=1, keepdim=True).values
    exponentials = torch.exp(logits)
    return exponentials / exponentials.sum(dim=1, keepdim=True)


@equivalent
def through_logsumexp(logits):
    return torch.exp(logits - torch.logsumexp(logits, dim=1, keepdim=True))


@equivalent
def row_by_row(logits):
    rows = []
    for row in logits:
        exponentials = torch.exp(row - torch.max(row))
        rows.append(exponentials / torch.sum(exponentials))
    return torch.stack(rows)


@equivalent
def einsum_and_reciprocal(logits):
    exponentials = torch.exp(logits - logits.max(dim=-1)[0].unsqueeze(-1))
    return torch.einsum("nc,n->nc", exponentials, 1 / torch.einsum("nc->n", exponentials))


@equivalent
def transposed(logits):
    columns = logits.T
    exponentials = torch.exp(columns - columns.amax(dim=0))
    return (exponentials / exponentials.sum(dim=0)).T


@equivalent
def constant_shift(logits):
    with torch.no_grad():
        shift = logits.amax(dim=1, keepdim=True)
    exponentials = torch.exp(logits - shift)
    return exponentials / exponentials.sum(dim=1, keepdim=True)


@equivalent
def in_float64_and_back(logits):
    wide = logits.to(torch.float64)
    exponentials = (wide - wide.amax(1, True)).exp()
    return (exponentials / exponentials.sum(1, True)).to(logits.dtype)


@equivalent
def sorted_first(logits):
    ordered, order = logits.sort(dim=1)
    exponentials = torch.exp(ordered - ordered[:, -1:])
    return (exponentials / exponentials.sum(dim=1, keepdim=True)).gather(1, order.argsort(dim=1))


@equivalent
def class_by_class(logits):
    columns = [logits[:, k] for k in range(logits.shape[1])]
    largest = columns[0]
    for column in columns[1:]:
        largest = torch.maximum(largest, column)
    exponentials = [torch.exp(column - largest) for column in columns]
    total = sum(exponentials)
    return torch.stack([exponential / total for exponential in exponentials], dim=1)
