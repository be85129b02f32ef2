"""Known wrong and right ways to write `cross_entropy_gradient(logits, target)`."""

import torch

from autograder.bank import equivalent, misconception


@misconception(
    "the gradient of the summed loss: the division by N is missing",
    see="cross-entropy#gradient-denominator",
)
def not_divided(logits, target):
    gradient = torch.exp(logits - torch.logsumexp(logits, dim=1, keepdim=True))
    gradient[torch.arange(len(target)), target] -= 1
    return gradient


@misconception(
    "dividing by N·C, the number of entries, instead of N, the number of samples",
    see="cross-entropy#gradient-denominator",
)
def divided_by_entries(logits, target):
    gradient = torch.exp(logits - torch.logsumexp(logits, dim=1, keepdim=True))
    gradient[torch.arange(len(target)), target] -= 1
    return gradient / logits.numel()


@misconception(
    "dividing by the number of classes instead of the number of samples",
    see="cross-entropy#gradient-denominator",
)
def divided_by_classes(logits, target):
    gradient = torch.exp(logits - torch.logsumexp(logits, dim=1, keepdim=True))
    gradient[torch.arange(len(target)), target] -= 1
    return gradient / logits.shape[1]


@misconception(
    "the sign turned round: the target minus the probabilities", see="cross-entropy#gradient"
)
def sign_turned(logits, target):
    gradient = torch.exp(logits - torch.logsumexp(logits, dim=1, keepdim=True))
    gradient[torch.arange(len(target)), target] -= 1
    return -gradient / len(target)


@misconception(
    "the probabilities alone: the 1 at the target class is not subtracted",
    see="cross-entropy#gradient",
)
def target_not_subtracted(logits, target):
    return torch.exp(logits - torch.logsumexp(logits, dim=1, keepdim=True)) / len(target)


@misconception(
    "only the entries of the target classes, with 0 for all other classes",
    see="cross-entropy#gradient",
)
def target_entries_only(logits, target):
    probabilities = torch.exp(logits - torch.logsumexp(logits, dim=1, keepdim=True))
    rows = torch.arange(len(target))
    gradient = torch.zeros_like(logits)
    gradient[rows, target] = (probabilities[rows, target] - 1) / len(target)
    return gradient


@misconception(
    "the gradient with respect to the probabilities instead of the logits",
    see="cross-entropy#gradient",
)
def with_respect_to_probabilities(logits, target):
    probabilities = torch.exp(logits - torch.logsumexp(logits, dim=1, keepdim=True))
    rows = torch.arange(len(target))
    gradient = torch.zeros_like(logits)
    gradient[rows, target] = -1 / (len(target) * probabilities[rows, target])
    return gradient


@misconception(
    "the diagonal p(1 − p) of the softmax's derivative alone", see="cross-entropy#gradient"
)
def diagonal_of_softmax(logits, target):
    probabilities = torch.exp(logits - torch.logsumexp(logits, dim=1, keepdim=True))
    return probabilities * (1 - probabilities) / len(target)


@misconception(
    "the gradient of a squared error between probabilities and target",
    see="cross-entropy#gradient",
)
def squared_error(logits, target):
    probabilities = torch.exp(logits - torch.logsumexp(logits, dim=1, keepdim=True))
    difference = probabilities.clone()
    difference[torch.arange(len(target)), target] -= 1
    inner = (probabilities * difference).sum(dim=1, keepdim=True)
    return 2 * probabilities * (difference - inner) / len(target)


@misconception(
    "subtracting the target from the logits, without the softmax", see="cross-entropy#gradient"
)
def logits_minus_target(logits, target):
    gradient = logits.clone()
    gradient[torch.arange(len(target)), target] -= 1
    return gradient / len(target)


@misconception(
    "indexing with `[:, target]`, which subtracts 1 from whole columns",
    see="cross-entropy#common-errors",
)
def whole_columns(logits, target):
    gradient = torch.exp(logits - torch.logsumexp(logits, dim=1, keepdim=True))
    gradient[:, target] -= 1
    return gradient / len(target)


@misconception(
    "subtracting the class index itself instead of a one-hot row", see="cross-entropy#gradient"
)
def index_subtracted(logits, target):
    probabilities = torch.exp(logits - torch.logsumexp(logits, dim=1, keepdim=True))
    return (probabilities - target[:, None]) / len(target)


@misconception(
    "averaging the gradient over the batch, so that each sample's own row is lost",
    see="cross-entropy#gradient-denominator",
)
def averaged_over_batch(logits, target):
    gradient = torch.exp(logits - torch.logsumexp(logits, dim=1, keepdim=True))
    gradient[torch.arange(len(target)), target] -= 1
    return gradient.mean(dim=0)


@misconception(
    "normalising each column over the batch instead of each row over the classes",
    see="cross-entropy#wrong-axis",
)
def over_the_batch(logits, target):
    gradient = torch.exp(logits - torch.logsumexp(logits, dim=0, keepdim=True))
    gradient[torch.arange(len(target)), target] -= 1
    return gradient / len(target)


@misconception(
    "applying the softmax twice, the second time to the probabilities",
    see="cross-entropy#double-softmax",
)
def softmax_twice(logits, target):
    probabilities = torch.exp(logits - torch.logsumexp(logits, dim=1, keepdim=True))
    gradient = torch.exp(probabilities - torch.logsumexp(probabilities, dim=1, keepdim=True))
    gradient[torch.arange(len(target)), target] -= 1
    return gradient / len(target)


@misconception(
    "exponentiating without subtracting each row's largest logit", see="cross-entropy#overflow"
)
def no_shift(logits, target):
    exponentials = torch.exp(logits)
    gradient = exponentials / exponentials.sum(dim=1, keepdim=True)
    gradient[torch.arange(len(target)), target] -= 1
    return gradient / len(target)


@misconception(
    "subtracting the largest logit of the whole batch instead of each row's own",
    see="cross-entropy#shift-invariance",
)
def global_maximum(logits, target):
    exponentials = torch.exp(logits - logits.max())
    gradient = exponentials / exponentials.sum(dim=1, keepdim=True)
    gradient[torch.arange(len(target)), target] -= 1
    return gradient / len(target)


@misconception(
    "a one-hot matrix that is always float32, so that the result does not keep the dtype",
    see="cross-entropy#dtype-and-device",
)
def one_hot_in_float32(logits, target):
    probabilities = torch.exp(logits - torch.logsumexp(logits, dim=1, keepdim=True))
    one_hot = torch.eye(logits.shape[1], device=logits.device)[target]
    return (probabilities - one_hot) / len(target)


@misconception(
    "returning float64 whatever the dtype of the logits is", see="cross-entropy#dtype-and-device"
)
def always_float64(logits, target):
    logits = logits.double()
    gradient = torch.exp(logits - torch.logsumexp(logits, dim=1, keepdim=True))
    gradient[torch.arange(len(target)), target] -= 1
    return gradient / len(target)


@misconception(
    "a number of classes fixed to ten, whatever the shape of the logits is",
    see="cross-entropy#common-errors",
)
def ten_classes(logits, target):
    probabilities = torch.exp(logits - torch.logsumexp(logits, dim=1, keepdim=True))
    one_hot = torch.nn.functional.one_hot(target, 10).to(logits.dtype)
    return (probabilities - one_hot) / len(target)


@misconception("changing the logits of the caller in place", see="cross-entropy#differentiable")
def in_place(logits, target):
    logits -= torch.logsumexp(logits, dim=1, keepdim=True)
    gradient = logits.exp_()
    gradient[torch.arange(len(target)), target] -= 1
    return gradient / len(target)


@equivalent
def index_pairs(logits, target):
    exponentials = torch.exp(logits - logits.amax(dim=1, keepdim=True))
    gradient = exponentials / exponentials.sum(dim=1, keepdim=True)
    gradient[torch.arange(len(target), device=logits.device), target] -= 1
    return gradient / len(target)


@equivalent
def where_target(logits, target):
    probabilities = torch.exp(logits - torch.logsumexp(logits, dim=1, keepdim=True))
    classes = torch.arange(logits.shape[1], device=logits.device)
    is_target = classes[None, :] == target[:, None]
    return torch.where(is_target, probabilities - 1, probabilities) / logits.shape[0]


@equivalent
def one_hot_difference(logits, target):
    probabilities = torch.exp(logits - torch.logsumexp(logits, dim=1, keepdim=True))
    one_hot = torch.nn.functional.one_hot(target, num_classes=logits.shape[1])
    return (probabilities - one_hot) / len(logits)


@equivalent
def scatter_add_of_minus_one(logits, target):
    probabilities = torch.exp(logits - torch.logsumexp(logits, dim=1, keepdim=True))
    minus_one = -torch.ones_like(probabilities[:, :1])
    return probabilities.scatter_add(1, target[:, None], minus_one).div(len(target))


@equivalent
def sample_by_sample(logits, target):
    rows = []
    for row, label in zip(logits, target, strict=True):
        exponentials = torch.exp(row - row.max())
        probabilities = exponentials / exponentials.sum()
        probabilities[label] = -(probabilities.sum() - probabilities[label])
        rows.append(probabilities / len(target))
    return torch.stack(rows)


@equivalent
def sum_of_the_others(logits, target):
    probabilities = torch.exp(logits - torch.logsumexp(logits, dim=1, keepdim=True))
    others = probabilities.scatter(1, target[:, None], torch.zeros_like(probabilities))
    return others.scatter(1, target[:, None], -others.sum(dim=1, keepdim=True)) / len(target)


@equivalent
def jacobian_by_einsum(logits, target):
    probabilities = torch.exp(logits - torch.logsumexp(logits, dim=1, keepdim=True))
    identity = torch.eye(logits.shape[1], dtype=logits.dtype, device=logits.device)
    log_softmax_jacobian = identity - probabilities[:, None, :]
    return -torch.einsum("nij,ni->nj", log_softmax_jacobian, identity[target]) / len(target)


@equivalent
def in_float64_and_back(logits, target):
    wide = logits.double()
    gradient = torch.exp(wide - torch.logsumexp(wide, dim=1, keepdim=True))
    gradient -= torch.eye(logits.shape[1], device=logits.device)[target]
    return (gradient / len(target)).to(logits.dtype)
