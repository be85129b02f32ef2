"""Known wrong and right ways to write `kl_divergence(p, q)`."""

import math

import torch

from autograder.bank import equivalent, misconception


@misconception(
    "the divergence the other way round: D(q‖p) instead of D(p‖q)", see="cross-entropy#kl-direction"
)
def reversed_arguments(p, q):
    absent = q == 0
    safe_p, safe_q = p.masked_fill(absent, 1.0), q.masked_fill(absent, 1.0)
    return (safe_q * (safe_q.log() - safe_p.log())).sum(dim=1)


@misconception("the mean of the divergences in both directions", see="cross-entropy#kl-direction")
def both_directions(p, q):
    forward = (torch.special.xlogy(p, p) - torch.special.xlogy(p, q)).sum(dim=1)
    backward = (torch.special.xlogy(q, q) - torch.special.xlogy(q, p)).sum(dim=1)
    return (forward + backward) / 2


@misconception(
    "the Jensen–Shannon divergence, which compares both with their mean",
    see="cross-entropy#kl-direction",
)
def jensen_shannon(p, q):
    middle = (p + q) / 2
    first = (torch.special.xlogy(p, p) - torch.special.xlogy(p, middle)).sum(dim=1)
    second = (torch.special.xlogy(q, q) - torch.special.xlogy(q, middle)).sum(dim=1)
    return (first + second) / 2


@misconception(
    "0 times the logarithm of 0, which is NaN, where a class has p = 0",
    see="cross-entropy#zero-log-zero",
)
def zero_times_infinity(p, q):
    return (p * torch.log(p / q)).sum(dim=1)


@misconception(
    "setting the terms with p = 0 to 0 after the logarithm, which leaves NaN in the gradient",
    see="cross-entropy#zero-log-zero",
)
def masked_after_logarithm(p, q):
    terms = p * torch.log(p / q)
    return torch.where(p > 0, terms, torch.zeros_like(terms)).sum(dim=1)


@misconception(
    "adding a small number inside the logarithm, which makes an infinite divergence finite",
    see="cross-entropy#zero-log-zero",
)
def epsilon_in_logarithm(p, q):
    return (p * (torch.log(p + 1e-8) - torch.log(q + 1e-8))).sum(dim=1)


@misconception(
    "clamping both distributions away from 0, which makes an infinite divergence finite",
    see="cross-entropy#zero-log-zero",
)
def clamped(p, q):
    p, q = p.clamp(min=1e-7), q.clamp(min=1e-7)
    return (p * (torch.log(p) - torch.log(q))).sum(dim=1)


@misconception(
    "leaving out the classes with q = 0, where the divergence is infinite",
    see="cross-entropy#zero-log-zero",
)
def infinity_left_out(p, q):
    left_out = (p == 0) | (q == 0)
    safe_p, safe_q = p.masked_fill(left_out, 1.0), q.masked_fill(left_out, 1.0)
    return (safe_p * (safe_p.log() - safe_q.log())).sum(dim=1)


@misconception(
    "replacing NaN and infinity by finite numbers after the fact",
    see="cross-entropy#zero-log-zero",
)
def nan_to_number(p, q):
    return torch.nan_to_num(p * torch.log(p / q)).sum(dim=1)


@misconception(
    "the cross-entropy: the entropy of p is not subtracted", see="cross-entropy#kl-divergence"
)
def entropy_not_subtracted(p, q):
    return -torch.special.xlogy(p, q).sum(dim=1)


@misconception("the sign turned round", see="cross-entropy#kl-divergence")
def sign_turned(p, q):
    absent = p == 0
    safe_p, safe_q = p.masked_fill(absent, 1.0), q.masked_fill(absent, 1.0)
    return (safe_p * (safe_q.log() - safe_p.log())).sum(dim=1)


@misconception(
    "the sum of the logarithms of p / q, without the weights p", see="cross-entropy#kl-divergence"
)
def not_weighed(p, q):
    absent = p == 0
    return (p.masked_fill(absent, 1.0).log() - q.masked_fill(absent, 1.0).log()).sum(dim=1)


@misconception(
    "a second argument that holds logarithms of probabilities, as some libraries expect",
    see="cross-entropy#kl-divergence",
)
def logarithms_expected(p, q):
    return (torch.special.xlogy(p, p) - p * q).sum(dim=1)


@misconception(
    "applying the softmax to arguments that are already probabilities",
    see="cross-entropy#double-softmax",
)
def softmax_of_probabilities(p, q):
    log_p = p - torch.logsumexp(p, dim=1, keepdim=True)
    log_q = q - torch.logsumexp(q, dim=1, keepdim=True)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


@misconception(
    "the logarithm to base 2 (bits) instead of the natural one (nats)",
    see="cross-entropy#natural-logarithm",
)
def base_two(p, q):
    absent = p == 0
    safe_p, safe_q = p.masked_fill(absent, 1.0), q.masked_fill(absent, 1.0)
    return (safe_p * (safe_p.log() - safe_q.log())).sum(dim=1) / math.log(2)


@misconception("the mean over the classes instead of the sum", see="cross-entropy#mean-denominator")
def mean_over_classes(p, q):
    absent = p == 0
    safe_p, safe_q = p.masked_fill(absent, 1.0), q.masked_fill(absent, 1.0)
    return (safe_p * (safe_p.log() - safe_q.log())).mean(dim=1)


@misconception(
    "one number, the mean over the batch, instead of one for each row",
    see="cross-entropy#mean-denominator",
)
def mean_over_batch(p, q):
    absent = p == 0
    safe_p, safe_q = p.masked_fill(absent, 1.0), q.masked_fill(absent, 1.0)
    return (safe_p * (safe_p.log() - safe_q.log())).sum(dim=1).mean()


@misconception("summing over the batch instead of the classes", see="cross-entropy#wrong-axis")
def over_the_batch(p, q):
    absent = p == 0
    safe_p, safe_q = p.masked_fill(absent, 1.0), q.masked_fill(absent, 1.0)
    return (safe_p * (safe_p.log() - safe_q.log())).sum(dim=0)


@misconception(
    "cutting the result off from autograd, so that nothing can be learned through it",
    see="cross-entropy#differentiable",
)
def detached(p, q):
    p, q = p.detach(), q.detach()
    return (torch.special.xlogy(p, p) - torch.special.xlogy(p, q)).sum(dim=1)


@misconception(
    "returning float64 whatever the dtype of the inputs is", see="cross-entropy#dtype-and-device"
)
def always_float64(p, q):
    p, q = p.double(), q.double()
    return (torch.special.xlogy(p, p) - torch.special.xlogy(p, q)).sum(dim=1)


@misconception(
    "returning float32 whatever the dtype of the inputs is", see="cross-entropy#dtype-and-device"
)
def always_float32(p, q):
    result = torch.zeros(len(p))
    for n in range(len(p)):
        result[n] = (torch.special.xlogy(p[n], p[n]) - torch.special.xlogy(p[n], q[n])).sum()
    return result


@misconception("changing the arguments of the caller in place", see="cross-entropy#differentiable")
def in_place(p, q):
    absent = p == 0
    p.masked_fill_(absent, 1.0)
    q.masked_fill_(absent, 1.0)
    return (p * (p.log() - q.log())).sum(dim=1)


@equivalent
def xlogy_difference(p, q):
    return (torch.special.xlogy(p, p) - torch.special.xlogy(p, q)).sum(dim=1)


@equivalent
def cross_entropy_minus_entropy(p, q):
    cross_entropy = -torch.xlogy(p, q).sum(dim=-1)
    return cross_entropy - torch.special.entr(p).sum(dim=-1)


@equivalent
def two_safe_wheres(p, q):
    present = p > 0
    ratio = torch.where(present, p, 1.0) / torch.where(present, q, 1.0)
    return torch.where(present, p * torch.log(ratio), 0.0).sum(dim=1)


@equivalent
def row_by_row(p, q):
    divergences = []
    for truth, guess in zip(p, q, strict=True):
        used = truth.nonzero(as_tuple=True)[0]
        divergences.append((truth[used] * (truth[used].log() - guess[used].log())).sum())
    return torch.stack(divergences)


@equivalent
def scattered_terms(p, q):
    used = p > 0
    terms = torch.zeros_like(p).masked_scatter(used, p[used] * torch.log(p[used] / q[used]))
    return torch.einsum("nc->n", terms)


@equivalent
def row_product(p, q):
    absent = p == 0
    logarithms = p.masked_fill(absent, 1.0).log() - q.masked_fill(absent, 1.0).log()
    return torch.matmul(p[:, None, :], logarithms[:, :, None])[:, 0, 0]


@equivalent
def in_float64_and_back(p, q):
    wide_p, wide_q = p.double(), q.double()
    terms = torch.xlogy(wide_p, wide_p) - torch.xlogy(wide_p, wide_q)
    return terms.sum(dim=1).to(p.dtype)


@equivalent
def class_by_class(p, q):
    total = torch.zeros_like(p[:, 0])
    for k in range(p.shape[1]):
        absent = p[:, k] == 0
        safe_p = torch.where(absent, torch.ones_like(total), p[:, k])
        safe_q = torch.where(absent, torch.ones_like(total), q[:, k])
        total = total + safe_p * (safe_p.log() - safe_q.log())
    return total
