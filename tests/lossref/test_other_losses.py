"""Losses over rows, regions and tasks that are not elementwise."""

import itertools
import math

import loss_oracle as oracle
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hard_inputs import hard_rows
from loss_checks import refused, value_and_gradient
from loss_oracle import FLOATS, exact, mp, mpf, one_hot, worst

import lossref

NARROW = FLOATS[:3]


def rows(dtype, generator, classes=5):
    for name, row in hard_rows(dtype, classes, generator):
        for y in (0, classes - 1):
            yield f"{name}, target {y}", row, y


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_focal_loss_holds_its_bound(dtype, gamma, place, generator):
    for name, row, y in rows(dtype, generator):
        value, slopes = oracle.focal(exact(row), y, gamma)
        got, gradient = value_and_gradient(
            lossref.focal_loss,
            row[None].to(place),
            torch.tensor([y], device=place),
            gamma=gamma,
            reduction="none",
        )
        bound = 4 + 4 * gamma if dtype == torch.float64 else 1
        assert worst(got, [value]) <= bound, name
        assert worst(gradient, slopes) <= bound, name


def test_focal_loss_weights_and_reductions(generator):
    x = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    y = torch.tensor([0, 1, 2, -100, 1, 0])
    alpha = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    ce = lossref.cross_entropy(x, y, reduction="none")
    each = torch.where(y >= 0, alpha[y.clamp(min=0)], 0.0) * (1 - torch.exp(-ce)) ** 2 * ce
    torch.testing.assert_close(lossref.focal_loss(x, y, alpha=alpha, reduction="none"), each)
    torch.testing.assert_close(lossref.focal_loss(x, y, alpha=alpha), each.sum() / 5)
    plain = lossref.focal_loss(x, y, gamma=0.0)
    torch.testing.assert_close(plain, lossref.cross_entropy(x, y))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("q", [0.3, 1.0])
def test_generalized_cross_entropy_holds_its_bound(dtype, q, place, generator):
    for name, row, y in rows(dtype, generator):
        loss, _ = oracle.cross_entropy(exact(row), one_hot(y, 5))
        value, slopes = oracle.generalized_cross_entropy(exact(row), y, q)
        got, gradient = value_and_gradient(
            lossref.generalized_cross_entropy,
            row[None].to(place),
            torch.tensor([y], device=place),
            q=q,
            reduction="none",
        )
        wide = dtype == torch.float64
        assert worst(got, [value]) <= (6 if wide else 1), name
        bound = 6 + 2 * q * min(float(loss), 1e6) if wide else 1
        assert worst(gradient, slopes) <= bound, name


def test_generalized_cross_entropy_at_zero_is_the_cross_entropy(generator):
    x, y = torch.randn(4, 3, generator=generator), torch.tensor([0, 1, -100, 2])
    weight = torch.rand(3, generator=generator)
    got = lossref.generalized_cross_entropy(x, y, q=0.0, weight=weight)
    assert got == lossref.cross_entropy(x, y, weight=weight)


@pytest.mark.parametrize("dtype", FLOATS)
def test_z_loss_holds_its_bound(dtype, place, generator):
    for name, row in hard_rows(dtype, 5, generator):
        p, total = oracle.softmax(exact(row)), oracle.logsumexp(exact(row))
        value, slopes = oracle.z_loss(exact(row))
        got, gradient = value_and_gradient(lossref.z_loss, row[None].to(place), reduction="none")
        wide = dtype == torch.float64
        size = max(abs(total), abs(max(exact(row))) / (1 if wide else 2**10))
        assert worst(got, [value], floor=[size * abs(total)]) <= (6 if wide else 1), name
        floor = [2 * size * p_j for p_j in p]
        assert worst(gradient, slopes, floor=floor) <= (8 if wide else 1), name


def test_z_loss_mask(generator):
    x = torch.randn(2, 3, 4, generator=generator)
    mask = torch.rand(2, 4, generator=generator) > 0.5
    x = torch.where(mask[:, None], x, torch.nan)
    got, gradient = value_and_gradient(lossref.z_loss, x, mask=mask)
    each = torch.logsumexp(x.double(), 1) ** 2
    assert got == each[mask].mean().float()
    assert torch.equal(gradient.isfinite(), torch.ones_like(x, dtype=torch.bool))
    assert lossref.z_loss(torch.zeros(0, 3)) == 0


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("distance", [0.0, 1e-3, 1.0, 20.0])
def test_distillation_holds_its_bound(dtype, temperature, distance, place, generator):
    for _ in range(8):
        teacher = (torch.randn(6, generator=generator) * 4).to(dtype)
        student = (teacher.double() + torch.randn(6, generator=generator) * distance).to(dtype)
        value, slopes = oracle.distillation(exact(student), exact(teacher), temperature)
        got, gradient = value_and_gradient(
            lossref.distillation_loss,
            student[None].to(place),
            teacher[None].to(place),
            temperature=temperature,
        )
        p = oracle.softmax([x / mpf(temperature) for x in exact(teacher)])
        apart = max(abs(a - b) for a, b in zip(exact(student), exact(teacher), strict=True))
        floor = [max(abs(s), temperature * p_j * apart) for s, p_j in zip(slopes, p, strict=True)]
        if dtype == torch.float64:
            assert abs(mpf(got.item()) - value) <= mpf(10) ** -13 * value
            for a, b, scale in zip(gradient[0].tolist(), slopes, floor, strict=True):
                assert abs(mpf(a) - b) <= mpf(10) ** -13 * scale
        else:
            assert worst(got, value) <= 1
            small = [s * mpf(2) ** -9 for s in floor]
            assert worst(gradient[0], slopes, floor=small) <= 1


def test_distillation_agrees_with_pytorch_and_leaves_the_teacher_alone(generator):
    s = torch.randn(3, 4, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    t = torch.randn(3, 4, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    got = lossref.distillation_loss(s, t, temperature=3.0)
    student, teacher = (s / 3).log_softmax(1), (t / 3).softmax(1)
    torch.testing.assert_close(got, F.kl_div(student, teacher, reduction="sum") * 9 / 6)
    assert torch.autograd.grad(got, t, allow_unused=True)[0] is None
    frozen = t.detach()
    assert torch.autograd.gradcheck(lambda s: lossref.distillation_loss(s, frozen), s)
    assert torch.autograd.gradgradcheck(lambda s: lossref.distillation_loss(s, frozen), s)


def test_distillation_with_masked_classes():
    inf = math.inf
    same = torch.tensor([[0.0, -inf, 1.0]])
    assert lossref.distillation_loss(same, same) == 0
    got, gradient = value_and_gradient(
        lossref.distillation_loss, torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, -inf]])
    )
    assert got == np.float32(math.log(2))
    assert gradient.tolist() == [[-0.5, 0.5]]
    assert lossref.distillation_loss(torch.tensor([[0.0, -inf]]), torch.zeros(1, 2)) == inf


@pytest.mark.parametrize("dtype", NARROW)
def test_multi_margin_is_correct_in_the_last_place(dtype, place, generator):
    for name, row, y in rows(dtype, generator):
        values = exact(row)
        if any(not mp.isfinite(v) for v in values):
            continue
        expected, _ = oracle.multi_margin(values, y, 2, 1)
        got = lossref.multi_margin_loss(
            row[None].to(place), torch.tensor([y], device=place), p=2, reduction="none"
        )
        assert worst(got, [expected]) <= 1, name


def test_multi_margin_ignores(generator):
    x = torch.randn(3, 4, generator=generator)
    x[1] = torch.nan
    y = torch.tensor([1, -100, 2])
    got, gradient = value_and_gradient(lossref.multi_margin_loss, x, y)
    kept = value_and_gradient(lossref.multi_margin_loss, x[[0, 2]], y[[0, 2]])
    assert got == kept[0]
    assert torch.equal(gradient[[0, 2]], kept[1])
    assert gradient[1].tolist() == [0.0] * 4


def test_ohem_keeps_the_hardest(generator):
    x = torch.randn(10, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(4, (10,), generator=generator)
    y[3] = -100
    x[3] = torch.nan
    each = lossref.cross_entropy(x, y, reduction="none")
    got, gradient = value_and_gradient(lossref.ohem_cross_entropy, x, y, keep=0.4)
    hardest = each.sort(descending=True).values[:4]
    torch.testing.assert_close(got, hardest.mean())
    kept = (gradient != 0).any(1)
    assert torch.equal(each[kept].sort(descending=True).values, hardest)
    whole = lossref.ohem_cross_entropy(x, y, keep=1.0)
    torch.testing.assert_close(whole, lossref.cross_entropy(x, y))
    none = lossref.ohem_cross_entropy(x, y, keep=0.4, reduction="none")
    assert torch.equal(none, torch.where(kept, each, 0.0))


def test_ohem_counts_the_decimal_as_written_and_breaks_ties_by_order():
    x, y = torch.zeros(100, 2), torch.zeros(100, dtype=torch.long)
    none = lossref.ohem_cross_entropy(x, y, keep=0.07, reduction="none")
    assert none.nonzero().flatten().tolist() == list(range(7))
    ignored = torch.full((4,), -100)
    assert lossref.ohem_cross_entropy(x[:4], ignored, keep=0.5) == 0


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_dice_holds_its_bound(dtype, smooth, place, generator):
    for scale in (0.1, 3.0, 30.0):
        x = (torch.randn(3, 8, generator=generator) * scale).to(dtype)
        t = (torch.rand(3, 8, generator=generator) > 0.5).to(dtype)
        t[0] = (x[0] > 0).to(dtype)
        got, gradient = value_and_gradient(
            lossref.dice_loss, x.to(place), t.to(place), smooth=smooth, reduction="none"
        )
        for k, (a, b) in enumerate(zip(exact(x), exact(t), strict=True)):
            p = [1 / (1 + mp.exp(-v)) for v in a]
            size = mp.fsum(p) + mp.fsum(b) + mpf(smooth)
            loss, slopes = oracle.dice(a, b, smooth)
            assert worst(got[k], loss) <= (6 if dtype == torch.float64 else 1)
            terms = [u * (1 - u) / size for u in p]
            if dtype != torch.float64:
                terms = [v * mpf(2) ** -9 for v in terms]
            assert worst(gradient[k], slopes, floor=terms) <= (10 if dtype == torch.float64 else 1)


def test_dice_of_nothing_masks_and_soft_targets(generator):
    never = torch.full((1, 4), -torch.inf)
    assert lossref.dice_loss(never, torch.zeros(1, 4), smooth=0.0) == 0
    x = torch.randn(2, 3, 4, generator=generator)
    t = torch.rand(2, 3, 4, generator=generator)
    mask = torch.rand(2, 3, 4, generator=generator) > 0.4
    p = torch.sigmoid(x.double()) * mask
    soft = t.double() * mask
    expected = 1 - (2 * (p * soft).sum((1, 2)) + 1) / ((p + soft).sum((1, 2)) + 1)
    poisoned = torch.where(mask, x, torch.nan)
    got, gradient = value_and_gradient(lossref.dice_loss, poisoned, t, mask=mask)
    torch.testing.assert_close(got, expected.mean().float())
    assert gradient.isfinite().all()
    small = x[:, 0].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: lossref.dice_loss(x, t[:, 0].double()), small)
    assert torch.autograd.gradgradcheck(lambda x: lossref.dice_loss(x, t[:, 0].double()), small)


def test_nn_pu_loss_is_the_papers_risk(generator):
    x = torch.randn(20, generator=generator, dtype=torch.float64, requires_grad=True)
    t = (torch.rand(20, generator=generator) < 0.3).double()
    for surrogate, loss in (("sigmoid", torch.sigmoid), ("logistic", F.softplus)):
        positive, unlabelled = t == 1, t == 0
        first = 0.4 * loss(-x[positive]).mean()
        second = loss(x[unlabelled]).mean() - 0.4 * loss(x[positive]).mean()
        got = lossref.nn_pu_loss(x, t, prior=0.4, surrogate=surrogate)
        torch.testing.assert_close(got, first + second.clamp(min=0))
        assert torch.autograd.gradcheck(
            lambda x, s=surrogate: lossref.nn_pu_loss(x, t, prior=0.4, surrogate=s), x
        )


def test_nn_pu_loss_clips_and_steps_back():
    x = torch.tensor([4.0, -5.0, -6.0], dtype=torch.float64, requires_grad=True)
    t = torch.tensor([1, 0, 0])
    risk = torch.sigmoid(x[1:]).mean() - 0.5 * torch.sigmoid(x[0])
    first = 0.5 * torch.sigmoid(-x[0])
    (plain,) = torch.autograd.grad(lossref.nn_pu_loss(x, t, prior=0.5), x)
    torch.testing.assert_close(plain, torch.autograd.grad(first, x, retain_graph=True)[0])
    got = lossref.nn_pu_loss(x, t, prior=0.5, gamma=0.5)
    torch.testing.assert_close(got, first)
    (back,) = torch.autograd.grad(got, x)
    torch.testing.assert_close(back, -0.5 * torch.autograd.grad(risk, x, retain_graph=True)[0])
    floor = lossref.nn_pu_loss(x, t, prior=0.5, beta=0.1)
    torch.testing.assert_close(floor, first - 0.1)
    alone = lossref.nn_pu_loss(x[1:], t[1:], prior=0.5)
    torch.testing.assert_close(alone, torch.sigmoid(x[1:]).mean())


def test_calibration_error_by_hand():
    probs = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.45, 0.55]], dtype=torch.float64)
    target = torch.tensor([0, 1, 1, 0])
    # 5 bins: (0.8, 1]: 0.9 hit; (0.6, 0.8]: 0.8 miss, 0.7 hit; (0.4, 0.6]: 0.55 miss
    expected = (abs(1 - 0.9) + abs(1 - 1.5) + abs(0 - 0.55)) / 4
    got = lossref.expected_calibration_error(probs, target, bins=5)
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64))
    one_bin = lossref.expected_calibration_error(probs, target, bins=1)
    torch.testing.assert_close(one_bin, torch.tensor(abs(2 - 2.95) / 4, dtype=torch.float64))


def test_calibration_error_edges_belong_to_the_lower_bin():
    probs = np.array([[0.6, 0.4], [0.61, 0.39]])
    hit_and_miss = lossref.expected_calibration_error(probs, np.array([0, 1]), bins=5)
    np.testing.assert_allclose(hit_and_miss, (0.4 + 0.61) / 2)
    both = lossref.expected_calibration_error(probs, np.array([0, 1]), bins=2)
    np.testing.assert_allclose(both, abs(1 - 1.21) / 2)


def test_calibration_error_of_two_classes_and_of_nothing():
    p, target = np.array([0.9, 0.2, 0.5]), np.array([1, 1, 1])
    both = np.stack([1 - p, p], 1)
    both[2] = [0.5, 0.5]
    got = lossref.expected_calibration_error(p, target)
    np.testing.assert_allclose(got, (0.1 + 0.8 + 0.5) / 3)
    assert lossref.expected_calibration_error(both[:0], target[:0]) == 0
    half = lossref.expected_calibration_error(both.astype(np.float16), np.array([1, 1, 0]))
    assert half.dtype == np.float16


def test_uncertainty_weighting():
    losses = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    s = torch.tensor([0.5, -1.0], dtype=torch.float64, requires_grad=True)
    got = lossref.uncertainty_weighted_loss(losses, s)
    expected = 0.5 * (math.exp(-0.5) + 0.5 + 2 * math.exp(1) - 1)
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64))
    assert torch.autograd.gradcheck(lossref.uncertainty_weighted_loss, (losses, s))
    assert torch.autograd.gradgradcheck(lossref.uncertainty_weighted_loss, (losses, s))


@pytest.mark.parametrize("dtype", NARROW)
def test_uncertainty_weighting_is_correct_in_the_last_place(dtype, generator):
    losses = (torch.rand(7, generator=generator) * 5).to(dtype)
    s = torch.randn(7, generator=generator).to(dtype)
    got = lossref.uncertainty_weighted_loss(losses, s)
    pairs = zip(exact(losses), exact(s), strict=True)
    assert worst(got, mp.fsum((mp.exp(-b) * a + b) / 2 for a, b in pairs)) <= 1


@pytest.mark.parametrize("dtype", FLOATS)
def test_uncertainty_weighting_has_correct_gradients(dtype, generator):
    losses = (torch.rand(7, generator=generator) * 5).to(dtype).requires_grad_()
    s = torch.randn(7, generator=generator).to(dtype).requires_grad_()
    total = lossref.uncertainty_weighted_loss(losses, s)
    to_losses, to_s = torch.autograd.grad(total, (losses, s))
    pairs = list(zip(exact(losses), exact(s), strict=True))
    bound = 3 if dtype == torch.float64 else 1
    assert worst(to_losses, [mp.exp(-b) / 2 for _, b in pairs]) <= bound
    # The slope to s crosses zero where e^-s L is 1.
    terms = [max(mp.exp(-b) * a, mpf(1)) for a, b in pairs]
    floor = terms if dtype == torch.float64 else [x * mpf(2) ** -9 for x in terms]
    slopes = [(1 - mp.exp(-b) * a) / 2 for a, b in pairs]
    assert worst(to_s, slopes, floor=floor) <= bound


MULTI_TASK = {
    "uncertainty": (lossref.uncertainty_weighted_loss, 2),
    "gradnorm targets": (lossref.gradnorm_targets, 2),
    "gradnorm weights": (lossref.gradnorm_weights, 3),
}


@pytest.mark.parametrize("name", MULTI_TASK)
@pytest.mark.parametrize("dtype", FLOATS)
def test_multi_task_inputs_stay_as_they_are_and_need_not_be_contiguous(name, dtype, generator):
    loss, count = MULTI_TASK[name]
    arrays = [(torch.rand(4, generator=generator) + 0.5).to(dtype) for _ in range(count)]
    before = [x.clone() for x in arrays]
    got = loss(*arrays)
    spaced = [x.repeat_interleave(2)[::2] for x in arrays]
    assert got.dtype == dtype
    assert torch.equal(loss(*spaced), got)
    assert all(torch.equal(x, y) for x, y in zip(arrays, before, strict=True))
    if dtype != torch.bfloat16:
        assert np.array_equal(loss(*(x.numpy() for x in arrays)), got.numpy())


@pytest.mark.parametrize("name", MULTI_TASK)
def test_multi_task_columns_and_wrong_arrays_are_named(name):
    loss, count = MULTI_TASK[name]
    x = torch.ones(3)
    for position in range(count):
        for wrong, error in [
            (x[:, None], ValueError),
            (x[:2], ValueError),
            (x.double(), TypeError),
            (x.long(), TypeError),
            ([1.0, 1.0, 1.0], TypeError),
        ]:
            arrays = [x] * count
            arrays[position] = wrong
            refused(error, "must (have|be)", loss, *arrays)


def test_no_tasks_cost_nothing():
    none = torch.zeros(0, requires_grad=True)
    total = lossref.uncertainty_weighted_loss(none, none)
    assert total == 0
    assert torch.autograd.grad(total, none)[0].shape == (0,)
    assert lossref.gradnorm_targets(none, none).shape == (0,)
    assert lossref.gradnorm_weights(none, none, none).shape == (0,)


def test_uncertainty_weighting_under_vmap_and_grad(generator):
    losses, s = torch.rand(2, 3, 4, generator=generator, dtype=torch.float64)
    got = torch.func.vmap(torch.func.grad(lossref.uncertainty_weighted_loss, 1))(losses, s)
    torch.testing.assert_close(got, 0.5 * (1 - torch.exp(-s) * losses))


@pytest.mark.parametrize("dtype", NARROW)
def test_gradnorm_is_correct_in_the_last_place(dtype, generator):
    weights, norms, ratios = ((torch.rand(5, generator=generator) + 0.3).to(dtype) for _ in "123")
    g, r, w = exact(norms), exact(ratios), exact(weights)

    def targets(norms):
        mean, middle = mp.fsum(norms) / 5, mp.fsum(r) / 5
        return [mean * (x / middle) ** mpf(1.5) for x in r]

    assert worst(lossref.gradnorm_targets(norms, ratios), targets(g)) <= 1
    asked = targets([a * b for a, b in zip(w, g, strict=True)])
    rate = mpf(0.025)
    step = [a - rate * b * mp.sign(a * b - t) for a, b, t in zip(w, g, asked, strict=True)]
    expected = [5 * x / mp.fsum(step) for x in step]
    assert worst(lossref.gradnorm_weights(weights, norms, ratios), expected) <= 1


def test_calibration_error_leaves_its_input_and_takes_views(generator):
    probs = torch.softmax(torch.randn(6, 3, generator=generator), 1)
    target = torch.arange(6) % 3
    before = probs.clone()
    got = lossref.expected_calibration_error(probs, target)
    strided = probs.T.contiguous().T
    spaced = target.repeat_interleave(2)[::2]
    assert torch.equal(lossref.expected_calibration_error(strided, spaced), got)
    assert torch.equal(probs, before)
    ece = lossref.expected_calibration_error
    refused(ValueError, r"target must have shape \(6,\)", ece, probs, target[:, None])
    refused(TypeError, r"probs must be", ece, probs.long(), target)
    refused(TypeError, r"target must hold integer", ece, probs, probs[:, 0])


def test_gradnorm():
    norms, ratios = np.array([1.0, 3.0, 2.0]), np.array([0.5, 1.0, 1.5])
    targets = lossref.gradnorm_targets(norms, ratios, alpha=2.0)
    np.testing.assert_allclose(targets, 2.0 * ratios**2)
    weights = np.array([1.2, 0.8, 1.0])
    got = lossref.gradnorm_weights(weights, norms, ratios, alpha=2.0, learning_rate=0.01)
    asked = (weights * norms).mean() * ratios**2
    step = weights - 0.01 * norms * np.sign(weights * norms - asked)
    np.testing.assert_allclose(got, 3 * step / step.sum())
    same = lossref.gradnorm_weights(np.ones(2), np.ones(2), np.ones(2))
    assert same.tolist() == [1.0, 1.0]


def test_gradnorm_weighs_norms_and_lets_no_weight_below_zero():
    # Weighted norms of 1.9 and 0.4 are above and below their mean; both are below that of 1 and 4.
    weights, norms = np.array([1.9, 0.1]), np.array([1.0, 4.0])
    got = lossref.gradnorm_weights(weights, norms, np.ones(2), learning_rate=0.1)
    np.testing.assert_allclose(got, np.array([1.8, 0.5]) * 2 / 2.3)
    weights, norms = np.array([0.5, 1.5]), np.array([9.0, 1.0])
    got = lossref.gradnorm_weights(weights, norms, np.ones(2), learning_rate=0.1)
    np.testing.assert_allclose(got, [0.0, 2.0])


def test_bad_input_is_named():
    x, y = torch.zeros(4, 3), torch.tensor([0, 1, 2, 1])
    refused(ValueError, r"gamma must be", lossref.focal_loss, x, y, gamma=-1.0)
    refused(ValueError, r"alpha must have shape \(3,\)", lossref.focal_loss, x, y, alpha=x[0, :2])
    refused(ValueError, r"q must be a number in", lossref.generalized_cross_entropy, x, y, q=1.5)
    for temperature, loss in itertools.product((0.0, -1.0, "hot"), (lossref.distillation_loss,)):
        message = r"temperature must be a number in \(0, inf\)"
        refused(ValueError, message, loss, x, x, temperature=temperature)
    refused(ValueError, r"teacher_logits must have shape", lossref.distillation_loss, x, x[:2])
    refused(ValueError, r"p must be 1 or 2, got 3", lossref.multi_margin_loss, x, y, p=3)
    refused(ValueError, r"keep must be .*\(0, 1\], got 0", lossref.ohem_cross_entropy, x, y, keep=0)
    refused(ValueError, r"shape \(N, \.\.\.\)", lossref.dice_loss, x[0], x[0])
    pu = lossref.nn_pu_loss
    refused(ValueError, r"prior must be", pu, x[:, 0], y, prior=0.0)
    refused(ValueError, r"target must be 0 or 1, but holds 2", pu, x[:, 0], y, prior=0.5)
    refused(ValueError, r"surrogate must be", pu, x[:, 0], y, prior=0.5, surrogate="hinge")
    ece = lossref.expected_calibration_error
    refused(ValueError, r"probs must be in \[0, 1\], but holds 2", ece, x + 2, y)
    refused(ValueError, r"bins must be a positive integer, got 0", ece, x, y, bins=0)
    refused(ValueError, r"target must be classes in \[0, 3\), but holds 3", ece, x, y + 1)
    tasks = lossref.uncertainty_weighted_loss
    refused(ValueError, r"log_variances must have shape \(3,\)", tasks, x[0], x[0, :2])
    refused(ValueError, r"loss_ratios must be positive", lossref.gradnorm_targets, x[0], x[0])
