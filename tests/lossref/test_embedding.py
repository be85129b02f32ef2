"""Losses over embeddings against an oracle that differentiates by 1200-bit differences."""

import inspect
import math

import embedding_cases
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from embedding_cases import CASES
from loss_checks import refused, value_and_gradient
from loss_oracle import FLOATS, exact, mp, mpf, one_format_up, worst

import lossref


def arrange(name, dtype, generator, size=1.0):
    loss, count, args, options, oracle = CASES[name]
    arrays = [
        (torch.randn(5, 3, generator=generator, dtype=torch.float64) * size).to(dtype)
        for _ in range(count)
    ]
    none = {} if loss is lossref.pairwise_distance else {"reduction": "none"}
    return loss, arrays, args, {**options, **none}, oracle


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_value_and_gradient_hold_their_bounds(name, dtype, place, generator):
    loss, arrays, args, options, oracle = arrange(name, dtype, generator)
    leaves = [x.to(place).requires_grad_() for x in arrays]
    got = loss(*leaves, *(a.to(place) for a in args), **options)
    gradients = torch.autograd.grad(got.sum(), leaves)
    assert got.dtype == dtype
    numbers = [exact(x) for x in arrays]
    expected = oracle(*numbers)
    in_float64 = dtype == torch.float64
    floor, bound = embedding_cases.float64_bound(loss, options, numbers, expected)
    if in_float64:
        assert worst(got, expected, floor=floor) <= bound
    else:
        assert worst(got, expected) <= 1
    largest = max(mpf(g.abs().max().item()) for g in gradients)
    size, bound = embedding_cases.gradient_bound(loss, options, numbers, largest)
    bound = bound if in_float64 else 1
    for which, gradient in enumerate(gradients):
        entries = [(0, 0), (1, 2), (4, 1)]
        slopes = embedding_cases.slopes(oracle, numbers, which, entries)
        some = torch.stack([gradient[i, k] for i, k in entries])
        floors = one_format_up([size] * len(entries), dtype)
        assert worst(some, slopes, floor=floors) <= bound


@pytest.mark.parametrize("name", CASES)
def test_derivatives_of_the_first_and_second_order(name, generator):
    loss, arrays, args, options, _ = arrange(name, torch.float64, generator)
    leaves = [x.requires_grad_() for x in arrays]
    assert torch.autograd.gradcheck(lambda *x: loss(*x, *args, **options), leaves)
    assert torch.autograd.gradgradcheck(lambda *x: loss(*x, *args, **options), leaves)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e20])
def test_embeddings_of_norm_zero_and_of_every_size(name, size, generator):
    dtypes = [torch.bfloat16, torch.float32, torch.float64]
    for dtype in dtypes:
        loss, arrays, args, options, _ = arrange(name, dtype, generator, size)
        leaves = [x.requires_grad_() for x in arrays]
        got = loss(*leaves, *args, **options)
        gradients = torch.autograd.grad(got.sum(), leaves)
        squares = name == "contrastive" and size == 1e20
        assert all(g.isfinite().all() for g in gradients)
        assert got.isfinite().all() or squares
        if size == 0.0:
            assert all((g == 0).all() for g in gradients)


@pytest.mark.parametrize("name", CASES)
def test_numpy_gets_the_same_bits_and_reductions_divide_by_their_counts(name, generator):
    loss, arrays, args, options, _ = arrange(name, torch.float32, generator)
    got = loss(*(x.numpy() for x in arrays), *(a.numpy() for a in args), **options)
    expected = loss(*arrays, *args, **options)
    assert isinstance(got, np.ndarray)
    assert np.array_equal(got, expected.numpy())
    if "reduction" not in options:
        return
    each = loss(*(x.double() for x in arrays), *args, **options)
    counted = 4 if loss in (lossref.batch_hard_triplet_loss, lossref.sup_con_loss) else len(each)
    del options["reduction"]
    wide = [x.double() for x in arrays]
    torch.testing.assert_close(loss(*wide, *args, **options), each.sum() / counted)
    total = loss(*wide, *args, reduction="sum", **options)
    torch.testing.assert_close(total, each.sum())
    torch.testing.assert_close(loss(*wide, *args, denominator=3, **options), each.sum() / 3)


@pytest.mark.parametrize("name", CASES)
def test_empty_batches_cost_nothing(name, generator):
    loss, arrays, args, options, _ = arrange(name, torch.float32, generator)
    empty = [x[:0] for x in arrays]
    if loss in (lossref.arcface_loss, lossref.cosface_loss):
        empty[1] = arrays[1]
    options.pop("reduction", None)
    got = loss(*empty, *(a[:0] for a in args), **options)
    assert got.sum() == 0
    assert not got.isnan().any()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, math.inf])
def test_all_distances(dtype, p, place, generator):
    x = torch.randn(6, 4, generator=generator).to(dtype)
    x[3] = x[0]
    got, gradient = value_and_gradient(lossref.pairwise_distance, x.to(place), p=p)
    assert got.diagonal().eq(0).all()
    assert got[0, 3] == 0
    assert torch.equal(got, got.T)
    assert gradient.isfinite().all()
    rows = exact(x)

    def away(a, b):
        parts = [abs(u - v) for u, v in zip(a, b, strict=True)]
        return max(parts) if p == math.inf else mp.fsum(u ** mpf(p) for u in parts) ** (1 / mpf(p))

    assert worst(got, [[away(a, b) for b in rows] for a in rows]) <= (
        5 if dtype == torch.float64 else 1
    )


def test_all_distances_are_twice_differentiable_and_chunked(generator, monkeypatch):
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64, requires_grad=True)

    def apart(x):
        return lossref.pairwise_distance(x) + torch.eye(5).double()

    whole = value_and_gradient(lossref.pairwise_distance, x)
    monkeypatch.setattr(lossref._distances, "PAIR_ELEMENTS", 31)
    parts = value_and_gradient(lossref.pairwise_distance, x)
    torch.testing.assert_close(whole, parts, rtol=1e-15, atol=1e-15)
    pairs = torch.triu_indices(5, 5, 1)
    assert torch.autograd.gradcheck(lambda x: lossref.pairwise_distance(x)[*pairs], x)
    assert torch.autograd.gradgradcheck(lambda x: lossref.pairwise_distance(x)[*pairs], x)


def test_near_points_far_from_the_origin_keep_their_distance():
    x = torch.tensor([[1e4, 1e4], [1e4, 1e4 + 2**-10]], dtype=torch.float32)
    assert lossref.pairwise_distance(x)[0, 1] == 2**-10


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, math.inf])
def test_identical_points_have_finite_gradients(p, dtype):
    x = torch.ones(4, 3, dtype=dtype)
    labels = torch.tensor([0, 0, 1, 1])
    calls = [
        (lossref.pairwise_distance, (x,), {"p": p}),
        (lossref.pairwise_distance, (x, x), {"p": p}),
        (lossref.contrastive_loss, (x, x, labels), {}),
        (lossref.triplet_margin_loss, (x, x, x), {"p": p}),
        (lossref.triplet_margin_loss, (x, x, x), {"p": p, "swap": True}),
        (lossref.batch_hard_triplet_loss, (x, labels), {}),
        (lossref.batch_hard_triplet_loss, (x, labels), {"margin": None}),
    ]
    for loss, args, options in calls:
        _, gradient = value_and_gradient(loss, *args, **options)
        assert torch.equal(gradient, torch.zeros_like(x)), loss.__name__


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_identical_points_have_finite_second_derivatives(p):
    a = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
    b = torch.tensor([[1.0, 1.0], [1.0, 2.0], [0.0, 5.0]], dtype=torch.float64)
    d = lossref.pairwise_distance(a, b, p=p)
    (first,) = torch.autograd.grad(d.sum(), a, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), a)
    assert second.isfinite().all()


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("power", [600, -600])
def test_distances_of_coordinates_whose_powers_leave_float64(power, p, generator):
    x, y = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    by = 2.0**power
    for points in ((x,), (x, y)):
        near, slope = value_and_gradient(lossref.pairwise_distance, *points, p=p)
        far, same = value_and_gradient(lossref.pairwise_distance, *(z * by for z in points), p=p)
        assert torch.equal(far, near * by)
        assert torch.equal(same, slope)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("power", [600, -600])
def test_the_length_of_an_embedding_changes_no_cosine(name, power, generator):
    loss, arrays, args, options, _ = arrange(name, torch.float64, generator)
    if embedding_cases.scale_of(loss, options) is not None:
        scaled = [x * 2.0**power for x in arrays]
        assert torch.equal(loss(*scaled, *args, **options), loss(*arrays, *args, **options))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_inputs_stay_as_they_are_and_need_not_be_contiguous(name, dtype, generator):
    loss, arrays, args, options, _ = arrange(name, dtype, generator)
    before = [x.clone() for x in (*arrays, *args)]
    got = loss(*arrays, *args, **options)
    strided = [x.T.contiguous().T for x in arrays]
    spaced = [a.repeat_interleave(2)[::2] for a in args]
    assert not any(x.is_contiguous() for x in strided)
    leaves = [x.requires_grad_() for x in strided]
    again = loss(*leaves, *spaced, **options)
    again.sum().backward()
    assert torch.equal(got, again)
    after = [*strided, *spaced]
    assert all(torch.equal(x, y) for x, y in zip(before, [*arrays, *args], strict=True))
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_vmap_and_grad_agree_with_a_loop(name, generator):
    loss, _, args, options, _ = arrange(name, torch.float64, generator)
    count = CASES[name][1]
    batches = torch.randn(count, 3, 5, 3, generator=generator, dtype=torch.float64)

    def total(*arrays):
        return loss(*arrays, *args, **options).sum()

    values = torch.func.vmap(lambda *x: loss(*x, *args, **options))(*batches)
    slopes = torch.func.vmap(torch.func.grad(total))(*batches)
    for i, arrays in enumerate(zip(*batches, strict=True)):
        value, slope = value_and_gradient(lambda *x: loss(*x, *args, **options), *arrays)
        torch.testing.assert_close(values[i], value, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(slopes[i], slope, rtol=1e-12, atol=1e-12)


def test_vmap_over_the_targets_alone(generator):
    x, w = torch.randn(2, 4, 3, generator=generator)
    targets = torch.tensor([[0, 1, 2, 3], [3, 3, 0, 0]])
    for loss, arrays in [
        (lossref.arcface_loss, (x, w)),
        (lossref.cosface_loss, (x, w)),
        (lossref.sup_con_loss, (x,)),
        (lossref.batch_hard_triplet_loss, (x,)),
    ]:
        got = torch.func.vmap(lambda y, loss=loss, arrays=arrays: loss(*arrays, y))(targets)
        torch.testing.assert_close(got, torch.stack([loss(*arrays, y) for y in targets]))


@pytest.mark.parametrize("dtype", FLOATS[:3])
def test_a_temperature_of_a_hundredth(dtype, generator):
    a, b = (torch.randn(4, 3, generator=generator).to(dtype) for _ in range(2))
    labels, cold = [0, 1, 0, 0], mpf(0.01)
    numbers = exact(a), exact(b)
    calls = [
        (lossref.info_nce_loss, (a, b), embedding_cases.info_nce(*numbers, cold)),
        (lossref.nt_xent_loss, (a, b), embedding_cases.nt_xent(*numbers, cold)),
        (
            lossref.sup_con_loss,
            (a, torch.tensor(labels)),
            embedding_cases.sup_con(numbers[0], labels, cold),
        ),
    ]
    for loss, args, expected in calls:
        got = loss(*args, temperature=0.01, reduction="none")
        assert worst(got, expected) <= 1, loss.__name__
    sharp = lossref.clip_loss(a, b, logit_scale=100.0, reduction="none")
    assert worst(sharp, embedding_cases.clip(*numbers, mpf(100))) <= 1


def test_a_certain_contrast_keeps_its_digits():
    """1 - p would be 0 here, and with it the loss and its gradient."""
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    expected = math.exp(-100.0)
    for call in (
        lambda x: lossref.info_nce_loss(x, x.detach(), temperature=0.01),
        lambda x: lossref.clip_loss(x, x.detach(), logit_scale=100.0),
        lambda x: lossref.arcface_loss(x, x.detach(), torch.arange(2), margin=0.0, scale=100.0),
        lambda x: (
            lossref.sup_con_loss(
                torch.cat([x, x.detach()]), torch.tensor([0, 1, 0, 1]), temperature=0.01
            )
            / 2
        ),
    ):
        loss = call(x)
        assert abs(loss.item() / expected - 1) < 1e-12
        (gradient,) = torch.autograd.grad(loss, x)
        assert abs(gradient[0, 1].item()) > 10 * expected


def test_the_slope_of_an_only_friend_keeps_its_digits():
    """p - 1 would be 0 where the friend is certain."""
    angles = torch.tensor([0.0, 0.1, 3.0, 3.1], dtype=torch.float64)
    x = torch.stack([angles.cos(), angles.sin()], 1)
    labels = [0, 0, 1, 1]
    _, gradient = value_and_gradient(
        lossref.sup_con_loss, x, torch.tensor(labels), temperature=0.04, reduction="sum"
    )
    slopes = embedding_cases.slopes(
        lambda z: embedding_cases.sup_con(z, labels, mpf(0.04)), [exact(x)], 0
    )
    expected = torch.tensor([[float(v) for v in row] for row in slopes], dtype=torch.float64)
    assert expected.abs().max() < 1e-18
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=0)


def test_hard_mining_sees_what_the_rounding_of_products_hides(generator):
    """Far from the origin |b|² - 2ab is noise, while the distances differ."""
    # Two friends each and one stranger: more would often tie, which is seen at once.
    labels = torch.tensor([0, 0, 0, 1])
    same = labels[:, None] == labels
    for _ in range(50):
        x = 1e6 + 1e-3 * torch.randn(4, 8, generator=generator, dtype=torch.float64)
        got = lossref.batch_hard_triplet_loss(x, labels, margin=1.0, reduction="none")[:3]
        d = lossref.pairwise_distance(x)
        farthest = d.masked_fill(~same, -torch.inf).amax(1)
        nearest = d.masked_fill(same, torch.inf).amin(1)
        expected = (1.0 + farthest - nearest)[:3]
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-15)


def test_hard_mining_takes_the_first_of_equals():
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, -2.0], [2.0, 0.0]])
    labels = torch.tensor([0, 0, 0, 1, 1])
    _, gradient = value_and_gradient(
        lambda x: lossref.batch_hard_triplet_loss(x, labels, margin=5.0, reduction="none")[0], x
    )
    assert gradient[1].tolist() == [1.0, 0.0]
    assert gradient[3].tolist() == [0.0, 1.0]
    assert gradient[[2, 4]].eq(0).all()


@pytest.mark.parametrize("monotone", [False, True])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_arcface_on_the_axis_of_its_class(sign, monotone):
    w = torch.tensor([[1.1, 2.3, 0.7], [2.0, -1.0, 0.5]])
    x = sign * 4.0 * w[:1]
    got, gradient = value_and_gradient(
        lossref.arcface_loss, x, w, torch.tensor([0]), margin=0.5, scale=4.0, monotone=monotone
    )
    theta = 0.0 if sign > 0 else math.pi
    moved = math.cos(theta + 0.5)
    if monotone and theta + 0.5 > math.pi:
        moved = math.cos(theta) - 0.5 * math.sin(0.5)
    other = 4 * float(F.cosine_similarity(x, w[1:]).item())
    expected = math.log1p(math.exp(other - 4 * moved))
    assert abs(got.item() - expected) < 1e-6
    # On the axis nothing turns the embedding to or from its class: only the other class pulls.
    unit, away = F.normalize(x.double()), F.normalize(w[1:].double())
    share = -math.expm1(-expected)
    pull = 4 * share * (away - (away @ unit.T) * unit) / x.double().norm()
    torch.testing.assert_close(gradient.double(), pull, rtol=1e-5, atol=1e-7)


def test_sup_con_leaves_lonely_anchors_out(generator):
    x = torch.randn(4, 3, generator=generator)
    none = lossref.sup_con_loss(x, torch.tensor([0, 0, 1, 2]), reduction="none")
    assert none[2:].tolist() == [0.0, 0.0]
    mean = lossref.sup_con_loss(x, torch.tensor([0, 0, 1, 2]))
    torch.testing.assert_close(mean, none[:2].mean())
    got, gradient = value_and_gradient(lossref.sup_con_loss, x, torch.arange(4))
    assert got == 0
    assert torch.equal(gradient, torch.zeros_like(x))
    assert lossref.sup_con_loss(x, torch.arange(4), nan_if_empty=True).isnan()


def test_batch_hard_leaves_anchors_without_a_triplet_out(generator):
    x = torch.randn(4, 3, generator=generator)
    assert lossref.batch_hard_triplet_loss(x, torch.zeros(4, dtype=torch.long)) == 0
    none = lossref.batch_hard_triplet_loss(x, torch.tensor([0, 0, 1, 2]), reduction="none")
    assert none[2:].tolist() == [0.0, 0.0]


def test_temperatures_and_scales_can_be_learned(generator):
    x, y = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 0, 1, 1])
    tau = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)
    calls = [
        lambda t: lossref.info_nce_loss(x, y, temperature=t),
        lambda t: lossref.nt_xent_loss(x, y, temperature=t),
        lambda t: lossref.sup_con_loss(x, labels, temperature=t),
        lambda t: lossref.clip_loss(x, y, logit_scale=t),
    ]
    for call in calls:
        assert torch.autograd.gradcheck(call, tau)
    assert torch.autograd.gradcheck(
        lambda s, b: lossref.siglip_loss(x, y, logit_scale=s, logit_bias=b), (tau, bias)
    )


def test_info_nce_takes_further_negatives(generator):
    q = torch.randn(3, 4, generator=generator)
    k = torch.randn(7, 4, generator=generator)
    got = lossref.info_nce_loss(q, k, temperature=0.2)
    cosines = F.normalize(q) @ F.normalize(k).T / 0.2
    torch.testing.assert_close(got, F.cross_entropy(cosines, torch.arange(3)))


def test_bad_input_is_named():
    x, y = torch.zeros(4, 3), torch.tensor([0, 1, 2, 1])
    nce = lossref.info_nce_loss
    refused(ValueError, r"temperature must be .*\(0, inf\), got -0\.1", nce, x, x, temperature=-0.1)
    zero = torch.tensor(0.0)
    refused(ValueError, r"temperature must be positive, but holds 0", nce, x, x, temperature=zero)
    refused(ValueError, r"key must have a row for every query, 4", nce, x, x[:2])
    refused(ValueError, r"key must have the width of query, 3", nce, x, x[:, :2])
    refused(ValueError, r"query must have shape \(N, D\)", nce, x[0], x)
    refused(TypeError, r"key must have the dtype of query", nce, x, x.double())
    refused(ValueError, r"labels must have shape \(4,\)", lossref.sup_con_loss, x, y[:, None])
    refused(TypeError, r"labels must hold integer", lossref.batch_hard_triplet_loss, x, x[:, 0])
    arc = lossref.arcface_loss
    refused(ValueError, r"target must be class indices in \[0, 2\)", arc, x, x[:2], y)
    refused(ValueError, r"margin must be", arc, x, x, y, margin=-0.5)
    refused(ValueError, r"scale must be", lossref.cosface_loss, x, x, y, scale=0.0)
    pair = lossref.contrastive_loss
    refused(ValueError, r"dissimilar must have shape \(4,\)", pair, x, x, y[:, None] > 0)
    refused(ValueError, r"margin must be", pair, x, x, y > 0, margin=0.0)
    refused(ValueError, r"positive must have shape", lossref.triplet_margin_loss, x, x[:2], x)
    refused(ValueError, r"p must be", lossref.pairwise_distance, x, p=0.5)
    refused(ValueError, r"logit_scale must be", lossref.clip_loss, x, x, logit_scale=0.0)
    refused(ValueError, r"logit_bias must be", lossref.siglip_loss, x, x, logit_bias=math.nan)
    whole = torch.tensor(2)
    refused(TypeError, r"temperature must be float16", nce, x, x, temperature=whole)
    refused(ValueError, r"temperature must be .*0-d", nce, x, x, temperature=x[0, :1])


@pytest.mark.parametrize("name", CASES)
def test_wrong_arrays_are_named(name, generator):
    loss, arrays, args, options, _ = arrange(name, torch.float32, generator)
    first, *names = inspect.signature(loss).parameters
    batch = loss in (lossref.batch_hard_triplet_loss, lossref.sup_con_loss)
    refused(TypeError, f"{first} must be", loss, arrays[0].long(), *arrays[1:], *args, **options)
    refused(TypeError, f"{first} must be", loss, [[1.0]], *arrays[1:], *args, **options)
    flat = [x[None] for x in arrays]
    refused(ValueError, f"{first} must have shape", loss, *flat, *args, **options)
    if not batch:
        second = names[0]
        wide = [arrays[0], arrays[1].double(), *arrays[2:]]
        refused(TypeError, f"{second} must have the dtype", loss, *wide, *args, **options)
        narrow = [arrays[0], arrays[1][:, :2], *arrays[2:]]
        refused(ValueError, f"{second} must have", loss, *narrow, *args, **options)
    if "reduction" in options:
        wrong = {**options, "reduction": "average"}
        refused(ValueError, "reduction must be one of", loss, *arrays, *args, **wrong)
    for key in ("temperature", "scale", "logit_scale", "margin"):
        if key in inspect.signature(loss).parameters:
            wrong = {**options, key: -1.0}
            refused(ValueError, f"{key} must be", loss, *arrays, *args, **wrong)
    if args:
        column = [a[:, None] for a in args]
        refused(
            ValueError, "must have shape .*squeeze or reshape", loss, *arrays, *column, **options
        )
