"""Known wrong and right ways to write `cross_entropy(logits, target)`."""

import math

import torch

from autograder.bank import equivalent, misconception


@misconception(
    "dividing by N·C, the number of entries, instead of N, the number of samples",
    see="cross-entropy#mean-denominator",
)
def mean_over_entries(logits, target):
    log_probabilities = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    chosen = torch.arange(logits.shape[1], device=logits.device) == target[:, None]
    return -torch.where(chosen, log_probabilities, 0.0).mean()


@misconception("the sum over the batch instead of the mean", see="cross-entropy#mean-denominator")
def summed(logits, target):
    target_logit = logits.gather(1, target[:, None])[:, 0]
    return (torch.logsumexp(logits, dim=1) - target_logit).sum()


@misconception(
    "dividing by the number of classes instead of the number of samples",
    see="cross-entropy#mean-denominator",
)
def divided_by_classes(logits, target):
    target_logit = logits.gather(1, target[:, None])[:, 0]
    return (torch.logsumexp(logits, dim=1) - target_logit).sum() / logits.shape[1]


@misconception(
    "returning the loss of each sample, without the mean", see="cross-entropy#mean-denominator"
)
def no_reduction(logits, target):
    return torch.logsumexp(logits, dim=1) - logits.gather(1, target[:, None])[:, 0]


@misconception(
    "taking the mean of the probabilities before the logarithm instead of after it",
    see="cross-entropy#maximum-likelihood",
)
def logarithm_of_mean(logits, target):
    target_logit = logits.gather(1, target[:, None])[:, 0]
    log_probability = target_logit - torch.logsumexp(logits, dim=1)
    return math.log(len(target)) - torch.logsumexp(log_probability, dim=0)


@misconception("leaving out the minus sign", see="cross-entropy#maximum-likelihood")
def no_minus(logits, target):
    target_logit = logits.gather(1, target[:, None])[:, 0]
    return (target_logit - torch.logsumexp(logits, dim=1)).mean()


@misconception(
    "1 minus the probability of the target class, without the logarithm",
    see="cross-entropy#maximum-likelihood",
)
def no_logarithm(logits, target):
    target_logit = logits.gather(1, target[:, None])[:, 0]
    return (1 - torch.exp(target_logit - torch.logsumexp(logits, dim=1))).mean()


@misconception(
    "the logarithm to base 2 (bits) instead of the natural one (nats)",
    see="cross-entropy#natural-logarithm",
)
def base_two(logits, target):
    target_logit = logits.gather(1, target[:, None])[:, 0]
    return (torch.logsumexp(logits, dim=1) - target_logit).mean() / math.log(2)


@misconception(
    "the logarithm to base 10 instead of the natural one", see="cross-entropy#natural-logarithm"
)
def base_ten(logits, target):
    target_logit = logits.gather(1, target[:, None])[:, 0]
    return (torch.logsumexp(logits, dim=1) - target_logit).mean() / math.log(10)


@misconception(
    "exponentiating without subtracting each row's largest logit", see="cross-entropy#overflow"
)
def no_shift(logits, target):
    target_logit = logits[torch.arange(len(target)), target]
    return (torch.log(torch.exp(logits).sum(dim=1)) - target_logit).mean()


@misconception(
    "dividing exponentials without a shift and then taking the logarithm",
    see="cross-entropy#overflow",
)
def logarithm_of_unshifted_softmax(logits, target):
    exponentials = torch.exp(logits)
    probabilities = exponentials / exponentials.sum(dim=1, keepdim=True)
    return -torch.log(probabilities[torch.arange(len(target)), target]).mean()


@misconception(
    "subtracting the largest logit of the whole batch instead of each row's own",
    see="cross-entropy#shift-invariance",
)
def global_maximum(logits, target):
    shifted = logits - logits.max()
    target_logit = shifted[torch.arange(len(target)), target]
    return (torch.log(torch.exp(shifted).sum(dim=1)) - target_logit).mean()


@misconception(
    "taking the logarithm of a probability that has already been rounded to 0",
    see="cross-entropy#log-softmax",
)
def logarithm_of_softmax(logits, target):
    exponentials = torch.exp(logits - logits.amax(dim=1, keepdim=True))
    probabilities = exponentials / exponentials.sum(dim=1, keepdim=True)
    return -torch.log(probabilities[torch.arange(len(target)), target]).mean()


@misconception(
    "adding a small number inside the logarithm, which caps the loss",
    see="cross-entropy#log-softmax",
)
def epsilon_in_logarithm(logits, target):
    exponentials = torch.exp(logits - logits.amax(dim=1, keepdim=True))
    probabilities = exponentials / exponentials.sum(dim=1, keepdim=True)
    return -torch.log(probabilities[torch.arange(len(target)), target] + 1e-8).mean()


@misconception(
    "clamping the probabilities away from 0 and 1, which caps the loss and its gradient",
    see="cross-entropy#log-softmax",
)
def clamped_probabilities(logits, target):
    exponentials = torch.exp(logits - logits.amax(dim=1, keepdim=True))
    probabilities = exponentials / exponentials.sum(dim=1, keepdim=True)
    clamped = probabilities.clamp(1e-7, 1 - 1e-7)
    return -torch.log(clamped[torch.arange(len(target)), target]).mean()


@misconception(
    "applying the softmax twice, the second time to the probabilities",
    see="cross-entropy#double-softmax",
)
def softmax_twice(logits, target):
    exponentials = torch.exp(logits - logits.amax(dim=1, keepdim=True))
    probabilities = exponentials / exponentials.sum(dim=1, keepdim=True)
    chosen = probabilities[torch.arange(len(target)), target]
    return (torch.logsumexp(probabilities, dim=1) - chosen).mean()


@misconception(
    "taking the logarithm of the logits themselves, as if they were probabilities",
    see="cross-entropy#softmax",
)
def logits_as_probabilities(logits, target):
    return -torch.log(logits[torch.arange(len(target)), target]).mean()


@misconception(
    "the negated target logit alone, without the logarithm of the sum",
    see="cross-entropy#log-softmax",
)
def logits_as_log_probabilities(logits, target):
    return -logits[torch.arange(len(target)), target].mean()


@misconception(
    "normalising each column over the batch instead of each row over the classes",
    see="cross-entropy#wrong-axis",
)
def over_the_batch(logits, target):
    log_probabilities = logits - torch.logsumexp(logits, dim=0, keepdim=True)
    return -log_probabilities[torch.arange(len(target)), target].mean()


@misconception(
    "indexing with `[:, target]`, which picks N × N entries instead of one from each row",
    see="cross-entropy#common-errors",
)
def every_row_every_target(logits, target):
    log_probabilities = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    return -log_probabilities[:, target].mean()


@misconception(
    "multiplying the logarithms of the probabilities with the class index itself "
    "instead of a one-hot row",
    see="cross-entropy#probability-targets",
)
def index_as_weight(logits, target):
    log_probabilities = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    return -(target[:, None] * log_probabilities).sum(dim=1).mean()


@misconception(
    "counting also the logarithm of 1 minus the probability of every other class",
    see="cross-entropy#maximum-likelihood",
)
def binary_for_every_class(logits, target):
    log_probabilities = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    chosen = torch.arange(logits.shape[1], device=logits.device) == target[:, None]
    others = torch.log1p(-torch.exp(log_probabilities.masked_fill(chosen, -math.inf)))
    return -torch.where(chosen, log_probabilities, others).sum(dim=1).mean()


@misconception(
    "multiplying with a one-hot row, which gives NaN where a logit is -inf",
    see="cross-entropy#zero-log-zero",
)
def one_hot_times_infinity(logits, target):
    log_probabilities = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    one_hot = torch.zeros_like(logits).scatter(1, target[:, None], torch.ones_like(logits))
    return -(one_hot * log_probabilities).sum(dim=1).mean()


@misconception(
    "a number of classes fixed to ten, whatever the shape of the logits is",
    see="cross-entropy#common-errors",
)
def ten_classes(logits, target):
    one_hot = torch.eye(10, dtype=logits.dtype, device=logits.device)[target].bool()
    log_probabilities = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    return -log_probabilities[one_hot].mean()


@misconception(
    "cutting the result off from autograd, so that nothing can be learned through it",
    see="cross-entropy#differentiable",
)
def detached(logits, target):
    loss = (torch.logsumexp(logits, dim=1) - logits.gather(1, target[:, None])[:, 0]).mean()
    return torch.tensor(loss.item(), dtype=logits.dtype, device=logits.device)


@misconception("returning a Python number instead of a tensor", see="cross-entropy#differentiable")
def python_number(logits, target):
    return (torch.logsumexp(logits, dim=1) - logits.gather(1, target[:, None])[:, 0]).mean().item()


@misconception(
    "returning float64 whatever the dtype of the logits is", see="cross-entropy#dtype-and-device"
)
def always_float64(logits, target):
    logits = logits.double()
    return (torch.logsumexp(logits, dim=1) - logits.gather(1, target[:, None])[:, 0]).mean()


@misconception(
    "returning float32 whatever the dtype of the logits is", see="cross-entropy#dtype-and-device"
)
def always_float32(logits, target):
    losses = torch.zeros(len(target))
    for n in range(len(target)):
        losses[n] = torch.logsumexp(logits[n], dim=0) - logits[n, target[n]]
    return losses.mean()


@misconception("changing the logits of the caller in place", see="cross-entropy#differentiable")
def in_place(logits, target):
    logits -= logits.max(dim=1, keepdim=True).values
    target_logit = logits.gather(1, target[:, None])[:, 0]
    return (logits.exp().sum(dim=1).log() - target_logit).mean()


@equivalent
def through_logsumexp(logits, target):
    chosen = logits[torch.arange(len(target), device=logits.device), target]
    return (torch.logsumexp(logits, dim=1) - chosen).mean()


@equivalent
def sample_by_sample(logits, target):
    total = 0.0
    for row, label in zip(logits, target, strict=True):
        shifted = row - row.max()
        total = total + torch.log(torch.exp(shifted).sum()) - shifted[label]
    return total / len(target)


@equivalent
def relative_to_target(logits, target):
    relative = logits - logits.gather(1, target.unsqueeze(1))
    return torch.logsumexp(relative, dim=-1).mean()


@equivalent
def log1p_of_the_rest(logits, target):
    largest, place = logits.max(dim=1, keepdim=True)
    exponentials = torch.exp(logits - largest).scatter(1, place, torch.zeros_like(largest))
    gap = largest - torch.take_along_dim(logits, target[:, None], dim=1)
    return (gap[:, 0] + torch.log1p(exponentials.sum(dim=1))).mean()


@equivalent
def boolean_mask(logits, target):
    log_probabilities = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    chosen = torch.arange(logits.size(1), device=logits.device) == target[:, None]
    return -log_probabilities[chosen].mean()


@equivalent
def einsum_with_one_hot(logits, target):
    finite = logits.masked_fill(logits == -math.inf, 0.0)
    one_hot = torch.nn.functional.one_hot(target, logits.shape[1]).to(logits.dtype)
    target_logit = torch.einsum("nc,nc->n", finite, one_hot)
    return torch.mean(torch.logsumexp(logits, 1) - target_logit)


@equivalent
def in_float64_and_back(logits, target):
    wide = logits.double()
    log_probabilities = wide - torch.logsumexp(wide, dim=1, keepdim=True)
    loss = -log_probabilities.gather(1, target[:, None]).sum() / target.numel()
    return loss.to(logits.dtype)


@equivalent
def running_sum(logits, target):
    largest = logits.max(dim=1)[0].detach()
    total = torch.zeros_like(largest)
    for k in range(logits.shape[1]):
        total = total + torch.exp(logits[:, k] - largest)
    target_logit = torch.stack([logits[n, label] for n, label in enumerate(target.tolist())])
    return (torch.log(total) - (target_logit - largest)).mean()
