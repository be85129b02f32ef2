"""Cross-entropy of classes that are spread over processes, with two and four real ones."""

import datetime
import itertools

import loss_oracle as oracle
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp_torch
from loss_checks import refused
from mpmath import mpf

import lossref

VOCABULARY = 23


def whole_problem(dtype):
    """Logits and targets: ignored, NaN, certain, masked, and a masked target."""
    generator = torch.Generator().manual_seed(5)
    logits = (torch.randn(9, VOCABULARY, generator=generator, dtype=torch.float64) * 8).to(dtype)
    target = torch.randint(VOCABULARY, (9,), generator=generator)
    target[2] = -100
    logits[2, 3] = torch.nan
    logits[4, 6] = 60.0
    target[4] = 6
    logits[5, 9:14] = -torch.inf
    target[5] = 1
    logits[6, :12] = -torch.inf
    target[6] = 20
    logits[7, 4] = -torch.inf
    target[7] = 4
    return logits, target


def exact_rows(logits, target, smoothing):
    """Loss and gradient of each row, and the larger term of each entry of the gradient."""
    losses, gradients, terms = [], [], []
    for row, y in zip(oracle.exact(logits), target.tolist(), strict=True):
        if y == -100:
            losses.append(mpf(0))
            gradients += [mpf(0)] * VOCABULARY
            terms += [mpf(0)] * VOCABULARY
            continue
        share = mpf(smoothing) / VOCABULARY
        q = [share + (1 - mpf(smoothing)) * hot for hot in oracle.one_hot(y, VOCABULARY)]
        loss, gradient = oracle.cross_entropy(row, q)
        losses.append(loss)
        gradients += gradient
        terms += [max(p, c) for p, c in zip(oracle.softmax(row), q, strict=True)]
    return losses, gradients, terms


def own_slice(rank, sizes):
    return slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))


def compare_with_the_exact_values(rank, sizes):
    columns = own_slice(rank, sizes)
    for dtype, smoothing in itertools.product(oracle.FLOATS, (0.0, 0.125)):
        logits, target = whole_problem(dtype)
        own = logits[:, columns].clone().requires_grad_()
        got = lossref.vocab_parallel_cross_entropy(
            own, target, label_smoothing=smoothing, reduction="none"
        )
        (gradient,) = torch.autograd.grad(got.sum(), own)
        losses, gradients, terms = exact_rows(logits, target, smoothing)
        limit = 5 if dtype == torch.float64 else 1
        assert got.dtype == gradient.dtype == dtype
        assert oracle.worst(got, losses) <= limit
        if smoothing:
            terms = terms if dtype == torch.float64 else oracle.one_format_up(terms, dtype)
        chosen = [k for k in range(len(gradients)) if k % VOCABULARY in range(VOCABULARY)[columns]]
        error = oracle.worst(
            gradient,
            [gradients[k] for k in chosen],
            floor=[terms[k] for k in chosen] if smoothing else None,
        )
        assert error <= limit, (dtype, smoothing, error)


def compare_with_one_process(rank, sizes):
    logits, target = whole_problem(torch.float64)
    own = logits[:, own_slice(rank, sizes)].clone().requires_grad_()
    for reduction, denominator in (("mean", None), ("mean", 5), ("sum", None)):
        # One target's probability is 0, and its loss infinite.
        chosen = torch.where(torch.arange(9) == 7, -100, target)
        options = {"reduction": reduction, "denominator": denominator}
        whole = logits.clone().requires_grad_()
        got = lossref.vocab_parallel_cross_entropy(own, chosen, **options)
        expected = lossref.cross_entropy(whole, chosen, **options)
        torch.testing.assert_close(got, expected, rtol=1e-15, atol=0.0)
        (gradient,) = torch.autograd.grad(got, own)
        (wanted,) = torch.autograd.grad(expected, whole)
        torch.testing.assert_close(
            gradient, wanted[:, own_slice(rank, sizes)], rtol=2e-15, atol=0.0
        )
    loss = lossref.vocab_parallel_cross_entropy
    refused(ValueError, rf"indices in \[0, {VOCABULARY}\)", loss, own.detach(), target + VOCABULARY)
    refused(ValueError, r"label_smoothing must be", loss, own.detach(), target, label_smoothing=1.5)
    message = r"as many rows on every process, but have \[9, 8"
    refused(ValueError, message, loss, own[rank > 0 :].detach(), target[rank > 0 :])
    ignored = torch.full_like(target, -100)
    assert loss(own, ignored) == 0
    assert loss(own, ignored, nan_if_empty=True).isnan()


def penalized(loss, x, target, scale, slope, smoothing):
    """A weighted loss plus a penalty on its gradient."""
    losses = loss(x, target, label_smoothing=smoothing, reduction="none")
    value = (losses * scale).sum()
    (gradient,) = torch.autograd.grad(value, x, create_graph=True)
    return value + (slope * gradient).square().sum()


def differentiate_twice(rank, sizes):
    columns = own_slice(rank, sizes)
    logits, target = whole_problem(torch.float64)
    target[7] = 5
    generator = torch.Generator().manual_seed(6)
    slope = torch.randn(logits.shape, generator=generator, dtype=torch.float64)
    weights = torch.rand(9, generator=generator, dtype=torch.float64)
    for smoothing in (0.0, 0.1):
        logits = logits.nan_to_num(neginf=-9.0) if smoothing else logits
        whole, own = logits.clone().requires_grad_(), logits[:, columns].clone().requires_grad_()
        there, here = weights.clone().requires_grad_(), weights.clone().requires_grad_()
        expected = penalized(lossref.cross_entropy, whole, target, there, slope, smoothing)
        to_whole, to_weights = torch.autograd.grad(expected, [whole, there])
        got = penalized(
            lossref.vocab_parallel_cross_entropy, own, target, here, slope[:, columns], smoothing
        )
        to_own, to_own_weights = torch.autograd.grad(got, [own, here])
        torch.testing.assert_close(to_own, to_whole[:, columns], rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(to_own_weights, to_weights, rtol=1e-12, atol=1e-14)
    got = penalized(lossref.vocab_parallel_cross_entropy, own, target, here, slope[:, columns], 0.0)
    with pytest.raises(RuntimeError, match="has no third derivative"):
        torch.autograd.grad(got, own, create_graph=True)


def check(rank, sizes, address):
    """What each process does; one start serves all checks, since starting takes longest."""
    limit = datetime.timedelta(seconds=60)
    dist.init_process_group(
        "gloo", init_method=address, rank=rank, world_size=len(sizes), timeout=limit
    )
    compare_with_the_exact_values(rank, sizes)
    compare_with_one_process(rank, sizes)
    differentiate_twice(rank, sizes)
    dist.destroy_process_group()


@pytest.mark.parametrize("sizes", [(12, 11), (1, 20, 2, 0)])
def test_slices_on_real_processes_are_exact_and_differentiate_as_the_whole(sizes, tmp_path):
    address = f"file://{tmp_path / 'rendezvous'}"
    mp_torch.spawn(check, (sizes, address), nprocs=len(sizes), join=True)


def test_without_processes_it_says_what_is_needed():
    h, y = torch.zeros(4, 3), torch.tensor([0, 1, 2, 1])
    message = r"needs torch.distributed.init_process_group first"
    refused(RuntimeError, message, lossref.vocab_parallel_cross_entropy, h, y)
