"""Known wrong and right ways to write `soft_cross_entropy(logits, target)`."""

import math

import torch

from autograder.bank import equivalent, misconception


@misconception(
    "dividing by N·C, the number of entries, instead of N, the number of samples",
    see="cross-entropy#mean-denominator",
)
def mean_over_entries(logits, target):
    log_probabilities = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    return -(target * log_probabilities.masked_fill(target == 0, 0.0)).mean()


@misconception("the sum over the batch instead of the mean", see="cross-entropy#mean-denominator")
def summed(logits, target):
    log_probabilities = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    return -(target * log_probabilities.masked_fill(target == 0, 0.0)).sum()


@misconception(
    "returning the loss of each sample, without the mean", see="cross-entropy#mean-denominator"
)
def no_reduction(logits, target):
    log_probabilities = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    return -(target * log_probabilities.masked_fill(target == 0, 0.0)).sum(dim=1)


@misconception(
    "the mean over only those entries whose target is not 0", see="cross-entropy#mean-denominator"
)
def mean_over_active_entries(logits, target):
    log_probabilities = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    active = target > 0
    return -(target[active] * log_probabilities[active]).mean()


@misconception("leaving out the minus sign", see="cross-entropy#maximum-likelihood")
def no_minus(logits, target):
    log_probabilities = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    return (target * log_probabilities.masked_fill(target == 0, 0.0)).sum(dim=1).mean()


@misconception(
    "the logarithm to base 2 (bits) instead of the natural one (nats)",
    see="cross-entropy#natural-logarithm",
)
def base_two(logits, target):
    log_probabilities = (logits - torch.logsumexp(logits, dim=1, keepdim=True)) / math.log(2)
    return -(target * log_probabilities.masked_fill(target == 0, 0.0)).sum(dim=1).mean()


@misconception(
    "using only the most probable class of each target row", see="cross-entropy#probability-targets"
)
def hard_target(logits, target):
    hard = target.argmax(dim=1, keepdim=True)
    return (torch.logsumexp(logits, dim=1) - logits.gather(1, hard)[:, 0]).mean()


@misconception(
    "converting the target probabilities to integers, which makes most of them 0",
    see="cross-entropy#probability-targets",
)
def integer_target(logits, target):
    weights = target.long()
    log_probabilities = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    return -(weights * log_probabilities.masked_fill(weights == 0, 0.0)).sum(dim=1).mean()


@misconception(
    "applying the softmax to the target, which already holds probabilities",
    see="cross-entropy#probability-targets",
)
def softmax_of_target(logits, target):
    weights = torch.exp(target - torch.logsumexp(target, dim=1, keepdim=True))
    log_probabilities = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    return -(weights * log_probabilities).sum(dim=1).mean()


@misconception(
    "the roles swapped: the logarithm of the target, weighed with the prediction",
    see="cross-entropy#kl-direction",
)
def roles_swapped(logits, target):
    probabilities = torch.exp(logits - torch.logsumexp(logits, dim=1, keepdim=True))
    return -torch.special.xlogy(probabilities, target).sum(dim=1).mean()


@misconception(
    "the Kullback–Leibler divergence, which is smaller by the entropy of the target",
    see="cross-entropy#kl-divergence",
)
def divergence_instead(logits, target):
    log_probabilities = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    expected = (target * log_probabilities.masked_fill(target == 0, 0.0)).sum(dim=1)
    return (torch.special.xlogy(target, target).sum(dim=1) - expected).mean()


@misconception(
    "counting also 1 minus the target times the logarithm of 1 minus the probability",
    see="cross-entropy#probability-targets",
)
def binary_for_every_class(logits, target):
    log_probabilities = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    present = target * log_probabilities.masked_fill(target == 0, 0.0)
    absent = (1 - target) * torch.log1p(-log_probabilities.exp()).masked_fill(target == 1, 0.0)
    return -(present + absent).sum(dim=1).mean()


@misconception(
    "multiplying the target with the probabilities, without the logarithm",
    see="cross-entropy#probability-targets",
)
def no_logarithm(logits, target):
    probabilities = torch.exp(logits - torch.logsumexp(logits, dim=1, keepdim=True))
    return -(target * probabilities).sum(dim=1).mean()


@misconception(
    "the negated logits weighed with the target, without the logarithm of the sum",
    see="cross-entropy#log-softmax",
)
def logits_as_log_probabilities(logits, target):
    return -(target * logits.masked_fill(target == 0, 0.0)).sum(dim=1).mean()


@misconception(
    "applying the softmax twice, the second time to the probabilities",
    see="cross-entropy#double-softmax",
)
def softmax_twice(logits, target):
    probabilities = torch.exp(logits - torch.logsumexp(logits, dim=1, keepdim=True))
    again = probabilities - torch.logsumexp(probabilities, dim=1, keepdim=True)
    return -(target * again).sum(dim=1).mean()


@misconception(
    "exponentiating without subtracting each row's largest logit", see="cross-entropy#overflow"
)
def no_shift(logits, target):
    log_probabilities = logits - torch.log(torch.exp(logits).sum(dim=1, keepdim=True))
    return -(target * log_probabilities.masked_fill(target == 0, 0.0)).sum(dim=1).mean()


@misconception(
    "subtracting the largest logit of the whole batch instead of each row's own",
    see="cross-entropy#shift-invariance",
)
def global_maximum(logits, target):
    shifted = logits - logits.max()
    log_probabilities = shifted - torch.log(torch.exp(shifted).sum(dim=1, keepdim=True))
    return -(target * log_probabilities.masked_fill(target == 0, 0.0)).sum(dim=1).mean()


@misconception(
    "taking the logarithm of a probability that has already been rounded to 0",
    see="cross-entropy#log-softmax",
)
def logarithm_of_softmax(logits, target):
    exponentials = torch.exp(logits - logits.amax(dim=1, keepdim=True))
    probabilities = exponentials / exponentials.sum(dim=1, keepdim=True)
    return -torch.special.xlogy(target, probabilities).sum(dim=1).mean()


@misconception(
    "adding a small number inside the logarithm, which caps the loss",
    see="cross-entropy#log-softmax",
)
def epsilon_in_logarithm(logits, target):
    exponentials = torch.exp(logits - logits.amax(dim=1, keepdim=True))
    probabilities = exponentials / exponentials.sum(dim=1, keepdim=True)
    return -(target * torch.log(probabilities + 1e-8)).sum(dim=1).mean()


@misconception(
    "0 times infinity, which is NaN, where a class with target 0 has a logit of -inf",
    see="cross-entropy#zero-log-zero",
)
def zero_times_infinity(logits, target):
    log_probabilities = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    return -(target * log_probabilities).sum(dim=1).mean()


@misconception(
    "normalising each column over the batch instead of each row over the classes",
    see="cross-entropy#wrong-axis",
)
def over_the_batch(logits, target):
    log_probabilities = logits - torch.logsumexp(logits, dim=0, keepdim=True)
    return -(target * log_probabilities.masked_fill(target == 0, 0.0)).sum(dim=1).mean()


@misconception(
    "cutting the result off from autograd, so that nothing can be learned through it",
    see="cross-entropy#differentiable",
)
def detached(logits, target):
    log_probabilities = logits.data - torch.logsumexp(logits.data, dim=1, keepdim=True)
    return -(target * log_probabilities.masked_fill(target == 0, 0.0)).sum(dim=1).mean()


@misconception(
    "returning float64 whatever the dtype of the logits is", see="cross-entropy#dtype-and-device"
)
def always_float64(logits, target):
    logits = logits.double()
    log_probabilities = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    return -(target * log_probabilities.masked_fill(target == 0, 0.0)).sum(dim=1).mean()


@misconception(
    "returning float32 whatever the dtype of the logits is", see="cross-entropy#dtype-and-device"
)
def always_float32(logits, target):
    logits, target = logits.float(), target.float()
    log_probabilities = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    return -(target * log_probabilities.masked_fill(target == 0, 0.0)).sum(dim=1).mean()


@misconception("changing the logits of the caller in place", see="cross-entropy#differentiable")
def in_place(logits, target):
    logits -= torch.logsumexp(logits, dim=1, keepdim=True)
    return -(target * logits.masked_fill(target == 0, 0.0)).sum(dim=1).mean()


@equivalent
def through_logsumexp(logits, target):
    log_probabilities = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    needed = torch.where(target > 0, log_probabilities, torch.zeros_like(logits))
    return -(target * needed).sum() / logits.shape[0]


@equivalent
def sample_by_sample(logits, target):
    losses = []
    for row, weights in zip(logits, target, strict=True):
        used = weights > 0
        log_probabilities = row - torch.logsumexp(row, dim=0)
        losses.append(-(weights[used] * log_probabilities[used]).sum())
    return torch.stack(losses).mean()


@equivalent
def class_by_class(logits, target):
    log_normaliser = torch.logsumexp(logits, dim=1)
    total = torch.zeros_like(log_normaliser)
    for k in range(logits.shape[1]):
        loss = target[:, k] * (log_normaliser - logits[:, k])
        total = total + torch.where(target[:, k] == 0, torch.zeros_like(loss), loss)
    return total.mean()


@equivalent
def einsum_of_kept_entries(logits, target):
    shifted = logits - logits.amax(dim=1, keepdim=True)
    log_probabilities = shifted - shifted.exp().sum(dim=1, keepdim=True).log()
    kept = log_probabilities.masked_fill(target == 0, 0.0)
    return torch.einsum("nc,nc->n", target, -kept).mean()


@equivalent
def entropy_plus_divergence(logits, target):
    log_probabilities = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    safe = target.masked_fill(target == 0, 1.0)
    needed = log_probabilities.masked_fill(target == 0, 0.0)
    entropy = -(target * safe.log()).sum(dim=1)
    divergence = (target * (safe.log() - needed)).sum(dim=1)
    return (entropy + divergence).mean()


@equivalent
def in_float64_and_back(logits, target):
    wide = logits.double()
    log_probabilities = wide - torch.logsumexp(wide, dim=-1, keepdim=True)
    finite = torch.nan_to_num(log_probabilities, neginf=0.0)
    return -(target.double() * finite).sum(dim=-1).mean().to(logits.dtype)


@equivalent
def matrix_product(logits, target):
    shifted = logits - torch.max(logits, dim=1, keepdim=True)[0]
    log_normaliser = torch.log(torch.sum(torch.exp(shifted), dim=1))
    finite = torch.where(target == 0, 0.0, shifted)
    expected_logit = torch.bmm(target[:, None, :], finite[:, :, None])[:, 0, 0]
    return (log_normaliser * target.sum(dim=1) - expected_logit).mean()


@equivalent
def only_used_entries(logits, target):
    row, column = target.nonzero(as_tuple=True)
    log_normaliser = torch.logsumexp(logits, dim=1)
    losses = target[row, column] * (log_normaliser[row] - logits[row, column])
    return losses.sum() / target.size(0)
