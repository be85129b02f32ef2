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


def test_z_loss_has_two_derivatives(generator):
    x = torch.randn(2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lossref.z_loss, x)
    assert torch.autograd.gradgradcheck(lossref.z_loss, x)


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
def test_ohem_is_as_exact_as_the_cross_entropy(dtype, generator):
    for name, row, y in rows(dtype, generator):
        loss, slopes = oracle.cross_entropy(exact(row), one_hot(y, 5))
        got, gradient = value_and_gradient(
            lossref.ohem_cross_entropy, row[None], torch.tensor([y]), keep=1.0
        )
        wide = dtype == torch.float64
        assert worst(got, loss) <= (3 if wide else 1), name
        assert worst(gradient, slopes) <= (4 if wide else 1), name


@pytest.mark.parametrize("dtype", NARROW)
def test_ohem_ranks_before_it_rounds(dtype):
    # Both losses round to 65, but the second is larger.
    x = torch.tensor([[-1 + torch.finfo(dtype).eps, 64.0], [-1.0, 64.0]], dtype=dtype)
    y = torch.zeros(2, dtype=torch.long)
    each = lossref.cross_entropy(x, y, reduction="none")
    assert each.tolist() == [65.0, 65.0]
    none = lossref.ohem_cross_entropy(x, y, keep=0.5, reduction="none")
    assert none.tolist() == [0.0, 65.0]


def test_ohem_keeps_the_share_of_each_example_under_vmap():
    """Bug: the share was that of all mapped examples together."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 8, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(4, (3, 8), generator=generator)
    y[1, :5] = -100

    def loss(x, y):
        return lossref.ohem_cross_entropy(x, y, keep=0.25)

    each = torch.stack([loss(*example) for example in zip(x, y, strict=True)])
    assert torch.equal(torch.func.vmap(loss)(x, y), each)
    slopes = torch.func.vmap(torch.func.grad(loss))(x, y)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(
        sum(loss(*example) for example in zip(leaf, y, strict=True)), leaf
    )
    torch.testing.assert_close(slopes, expected, rtol=1e-15, atol=1e-17)


def test_ohem_ignores_the_index_it_is_given_and_divides_by_what_it_kept(generator):
    x = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64)
    y = torch.tensor([[0, 1, 2, 1, 0], [2, 2, 1, 1, 0]])
    each = lossref.cross_entropy(x, y, ignore_index=1, reduction="none")
    # 6 are left, and 2.4 of them are 3.
    hardest = each.flatten().sort(descending=True).values[:3]
    options = {"keep": 0.4, "ignore_index": 1}
    torch.testing.assert_close(lossref.ohem_cross_entropy(x, y, **options), hardest.mean())
    total = lossref.ohem_cross_entropy(x, y, reduction="sum", **options)
    torch.testing.assert_close(total, hardest.sum())
    of_batch = lossref.ohem_cross_entropy(x, y, denominator=7, **options)
    torch.testing.assert_close(of_batch, hardest.sum() / 7)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("smooth", [0.0, 1.0])
@pytest.mark.parametrize("targets", ["binary", "soft"])
def test_dice_holds_its_bound(dtype, smooth, targets, place, generator):
    for scale in (0.1, 3.0, 30.0):
        x = (torch.randn(3, 8, generator=generator) * scale).to(dtype)
        t = torch.rand(3, 8, generator=generator)
        t = (t > 0.5).to(dtype) if targets == "binary" else t.to(dtype)
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


@pytest.mark.parametrize("poison", [math.nan, math.inf, 2.0])
def test_dice_targets_under_the_mask_touch_nothing(poison, generator):
    x, t = torch.randn(2, 4, generator=generator), torch.rand(2, 4, generator=generator)
    mask = torch.tensor([True, False, True, True])
    kept = value_and_gradient(lossref.dice_loss, x[:, mask], t[:, mask])
    t[:, 1] = poison
    got, gradient = value_and_gradient(lossref.dice_loss, x, t, mask=mask)
    torch.testing.assert_close(got, kept[0])
    torch.testing.assert_close(gradient[:, mask], kept[1])
    assert gradient[:, 1].tolist() == [0.0, 0.0]


def test_dice_reductions_and_whole_numbers_as_targets(generator):
    x = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    t = torch.rand(3, 4, generator=generator) > 0.5
    each = lossref.dice_loss(x, t.double(), reduction="none")
    assert torch.equal(lossref.dice_loss(x, t, reduction="none"), each)
    assert torch.equal(lossref.dice_loss(x, t.int(), reduction="none"), each)
    torch.testing.assert_close(lossref.dice_loss(x, t, reduction="sum"), each.sum())
    torch.testing.assert_close(lossref.dice_loss(x, t), each.sum() / 3)
    torch.testing.assert_close(lossref.dice_loss(x, t, denominator=7), each.sum() / 7)
    assert lossref.dice_loss(x[:0], t[:0]) == 0
    assert lossref.dice_loss(x[:0], t[:0], nan_if_empty=True).isnan()


def test_bad_input_of_dice_is_named():
    x, t = torch.zeros(2, 3), torch.ones(2, 3)
    dice = lossref.dice_loss
    for smooth in (-1.0, math.inf, math.nan):
        refused(ValueError, r"smooth must be a number in \[0, inf\)", dice, x, t, smooth=smooth)
    refused(ValueError, r"target must have shape \(2, 3\)", dice, x, t[:, :1])
    refused(ValueError, r"target must be in \[0, 1\], but holds 2", dice, x, 2 * t)
    refused(TypeError, r"target must have the dtype of the prediction", dice, x, t.double())
    refused(TypeError, r"mask must be a boolean array", dice, x, t, mask=t)
    wide = torch.ones(4, 2, 3, dtype=torch.bool)
    refused(ValueError, r"mask must broadcast to shape \(2, 3\)", dice, x, t, mask=wide)


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


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("surrogate", ["sigmoid", "logistic"])
def test_nn_pu_loss_is_correct_in_the_last_place(dtype, surrogate, generator):
    x = (torch.randn(12, generator=generator) * 3).to(dtype)
    t = torch.arange(12) % 3 == 0
    got, gradient = value_and_gradient(lossref.nn_pu_loss, x, t, prior=0.25, surrogate=surrogate)

    def sigma(v):
        return 1 / (1 + mp.exp(-v))

    def loss(v):
        return sigma(v) if surrogate == "sigmoid" else mp.log1p(mp.exp(v))

    def slope(v):
        return sigma(v) * sigma(-v) if surrogate == "sigmoid" else sigma(v)

    positive, unlabelled = exact(x[t]), exact(x[~t])
    negative_risk = mp.fsum(map(loss, unlabelled)) / 8 - mp.fsum(map(loss, positive)) / 16
    assert negative_risk > 0
    assert worst(got, mp.fsum(loss(-v) for v in positive) / 16 + negative_risk) <= 1
    assert worst(gradient[t], [-(slope(-v) + slope(v)) / 16 for v in positive]) <= 1
    assert worst(gradient[~t], [slope(v) / 8 for v in unlabelled]) <= 1


def test_nn_pu_loss_of_certain_positives_keeps_its_digits():
    x = torch.tensor([30.0, -5.0], dtype=torch.float64)
    got = lossref.nn_pu_loss(x, torch.tensor([1, 0]), prior=0.5)
    assert worst(got, 1 / (1 + mp.exp(30)) / 2) <= 4


@pytest.mark.parametrize("dtype", NARROW)
def test_nn_pu_loss_rounds_no_term_of_the_negative_risk(dtype):
    # 0.5025 - 0.5 * 0.9997: what is left is a two-hundredth of what was subtracted.
    x = torch.tensor([8.0, 0.01], dtype=dtype)
    (a, b), half = exact(x), mpf(0.5)
    got = lossref.nn_pu_loss(x, torch.tensor([1, 0]), prior=0.5)
    negative_risk = 1 / (1 + mp.exp(-b)) - half / (1 + mp.exp(-a))
    assert worst(got, half / (1 + mp.exp(a)) + negative_risk) <= 1


@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_nn_pu_loss_at_the_threshold_is_not_below_it(gamma):
    # The negative risk is 1/2 - 1/2 * 1, and then half of that below 0.
    x = torch.tensor([math.inf, 0.0], dtype=torch.float64)
    for beta, prior in ((0.0, 0.5), (0.25, 0.75)):
        got, gradient = value_and_gradient(
            lossref.nn_pu_loss, x, torch.tensor([1, 0]), prior=prior, beta=beta, gamma=gamma
        )
        assert got == -beta
        assert gradient.tolist() == [0.0, 0.25]


def test_each_mean_of_nn_pu_loss_is_of_its_own_examples_alone():
    x = torch.tensor([-math.inf, 1.0], dtype=torch.float64)
    options = {"prior": 0.5, "surrogate": "logistic"}
    got, gradient = value_and_gradient(lossref.nn_pu_loss, x, torch.tensor([0, 1]), **options)
    torch.testing.assert_close(got, 0.5 * F.softplus(-x[1]))
    torch.testing.assert_close(gradient[1], -0.5 * torch.sigmoid(-x[1]))
    assert gradient[0] == 0


@pytest.mark.parametrize("surrogate", ["sigmoid", "logistic"])
@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_nn_pu_loss_has_two_derivatives(surrogate, gamma):
    for x in ([4.0, -5.0, -6.0], [-1.0, 2.0, 0.5]):
        x = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        options = {"prior": 0.5, "gamma": gamma, "surrogate": surrogate}
        assert torch.autograd.gradgradcheck(
            lambda x, o=options: lossref.nn_pu_loss(x, torch.tensor([1, 0, 0]), **o), x
        )


def test_bad_input_of_nn_pu_loss_is_named():
    x, t = torch.zeros(3), torch.tensor([1, 0, 1])
    pu = lossref.nn_pu_loss
    for prior in (0.0, 1.0):
        refused(ValueError, r"prior must be a number in \(0, 1\)", pu, x, t, prior=prior)
    refused(ValueError, r"beta must be a number in \[0, inf", pu, x, t, prior=0.5, beta=-0.1)
    for gamma in (-0.1, 1.1):
        message = r"gamma must be a number in \[0, 1\]"
        refused(ValueError, message, pu, x, t, prior=0.5, gamma=gamma)
    refused(ValueError, r"target must have shape \(3,\)", pu, x, t[:, None], prior=0.5)
    refused(ValueError, r"logits must have shape \(3,\)", pu, x[:, None], t[:, None], prior=0.5)
    refused(ValueError, r"target must be 0 or 1, but holds 0.5", pu, x, 0.5 * t, prior=0.5)


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


def test_calibration_error_has_edges_at_the_exact_quotients():
    # 0.6 is 3/5 rounded and ends its bin; 3 times the rounded 1/5 is above it.
    p = np.array([0.6, np.nextafter(0.6, 1.0)])
    got = lossref.expected_calibration_error(np.stack([p, 1 - p], 1), np.array([0, 1]), bins=5)
    np.testing.assert_allclose(got, (0.4 + 0.6) / 2)


@pytest.mark.parametrize("dtype", FLOATS)
def test_calibration_error_is_computed_in_float64(dtype, generator):
    p = torch.rand(200, generator=generator, dtype=torch.float64).to(dtype)
    target = torch.randint(2, (200,), generator=generator)
    tops = [max(v, 1 - v) for v in exact(p)]
    hits = [(v >= mpf("0.5")) == bool(y) for v, y in zip(exact(p), target.tolist(), strict=True)]
    bins = [max(0, int(mp.ceil(v * 4)) - 1) for v in tops]
    gaps = [mpf(0)] * 4
    for b, hit, top in zip(bins, hits, tops, strict=True):
        gaps[b] += hit - top
    got = lossref.expected_calibration_error(p, target, bins=4)
    # In float64 by the ULP of what cancels in a gap, a sum of up to 200.
    floor, bound = ([mpf(1)], 4) if dtype == torch.float64 else (None, 1)
    assert worst(got, [mp.fsum(map(abs, gaps)) / 200], floor=floor) <= bound


@pytest.mark.parametrize("dtype", NARROW)
def test_calibration_error_takes_1_minus_p_before_it_rounds(dtype):
    p = torch.tensor([0.1], dtype=dtype)
    assert lossref.expected_calibration_error(p, torch.tensor([0])) == p


def test_calibration_error_of_a_tie_has_no_gradient_and_15_bins():
    p = torch.tensor([0.5, 0.52], dtype=torch.float64, requires_grad=True)
    # Both predict the positive class, and both are in (7/15, 8/15]: a hit and a miss.
    got = lossref.expected_calibration_error(p, torch.tensor([1, 0]))
    torch.testing.assert_close(got, torch.tensor(0.01, dtype=torch.float64))
    assert not got.requires_grad
    assert lossref.expected_calibration_error(p[:0], torch.tensor([], dtype=torch.long)) == 0


def test_bad_input_of_the_calibration_error_is_named():
    x, y = torch.full((4, 3), 0.25), torch.tensor([0, 1, 2, 1])
    ece = lossref.expected_calibration_error
    for bins in (0, -1, True, 2.5):
        refused(ValueError, rf"bins must be a positive integer, got {bins}", ece, x, y, bins=bins)
    refused(ValueError, r"target must be classes in \[0, 3\), but holds -1", ece, x, y - 1)
    refused(ValueError, r"target must be classes in \[0, 2\)", ece, x[:, 0], y)
    for shape in ((4, 3, 1), (4, 0), ()):
        refused(ValueError, r"probs must have shape \(N, C\) or \(N,\)", ece, torch.zeros(shape), y)


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


@pytest.mark.parametrize("dtype", NARROW)
def test_uncertainty_weighting_rounds_no_term(dtype):
    # The terms are 0.66 and -0.58.
    losses, s = torch.tensor([[0.1, 0.1], [1.3, -1.7]], dtype=dtype)
    pairs = zip(exact(losses), exact(s), strict=True)
    expected = mp.fsum((mp.exp(-b) * a + b) / 2 for a, b in pairs)
    assert worst(lossref.uncertainty_weighted_loss(losses, s), expected) <= 1


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
    refused(ValueError, r"must have shape \(3,\)", loss, *[x[:, None]] * count)
    refused(ValueError, r"must have shape \(1,\)", loss, *[x[0]] * count)


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


def test_gradnorm_gives_constants(generator):
    for name in ("gradnorm targets", "gradnorm weights"):
        loss, count = MULTI_TASK[name]
        arrays = [torch.rand(4, generator=generator) + 0.5 for _ in range(count)]
        assert not loss(*(x.requires_grad_() for x in arrays)).requires_grad


@pytest.mark.parametrize("dtype", NARROW)
def test_gradnorm_weights_are_rounded_once(dtype, generator):
    for _ in range(20):
        arrays = [(torch.rand(5, generator=generator) + 0.3).to(dtype) for _ in range(3)]
        # Exact enough: one format up, of which the last place is far below that of the result.
        wide = lossref.gradnorm_weights(*(x.double() for x in arrays), learning_rate=0.1)
        got = lossref.gradnorm_weights(*arrays, learning_rate=0.1)
        assert worst(got, exact(wide)) <= 0.51


def test_gradnorm_weights_ask_for_the_norms_of_their_alpha():
    # The targets are [1, 1], [0.4, 1.6] and [0.25, 2.02]; only of the last is the first too large.
    ones, norms, ratios = np.ones(2), np.array([0.33, 1.67]), np.array([1.0, 4.0])
    for alpha, sign in ((0.0, -1), (1.0, -1), (1.5, 1)):
        step = ones - 0.025 * norms * np.array([sign, -sign])
        got = lossref.gradnorm_weights(ones, norms, ratios, alpha=alpha)
        np.testing.assert_allclose(got, 2 * step / step.sum())
    assert np.array_equal(lossref.gradnorm_weights(ones, norms, ratios), got)


def test_gradnorm_takes_the_ends_of_its_ranges():
    norms, ratios = np.array([0.0, 3.0]), np.array([0.5, 1.5])
    assert lossref.gradnorm_targets(norms, ratios, alpha=0.0).tolist() == [1.5, 1.5]
    weights = np.array([0.5, 1.5])
    assert lossref.gradnorm_weights(weights, norms, ratios, learning_rate=0.0).tolist() == [
        0.5,
        1.5,
    ]


def test_bad_input_of_gradnorm_is_named():
    one, zero = torch.ones(2), torch.zeros(2)
    targets, weights = lossref.gradnorm_targets, lossref.gradnorm_weights
    refused(ValueError, r"grad_norms must be at least 0, but holds -1", targets, -one, one)
    for ratios in (zero, -one):
        refused(ValueError, r"loss_ratios must be positive, but holds", targets, one, ratios)
        refused(ValueError, r"loss_ratios must be positive, but holds", weights, one, one, ratios)
        refused(ValueError, r"weights must be positive, but holds", weights, ratios, one, one)
    refused(ValueError, r"grad_norms must be at least 0, but holds -1", weights, one, -one, one)
    refused(ValueError, r"alpha must be a number in \[0, inf", targets, one, one, alpha=-1.0)
    refused(ValueError, r"alpha must be a number in \[0, inf", weights, one, one, one, alpha=-1.0)
    for rate in (-0.1, math.inf):
        message = r"learning_rate must be a number in \[0, inf\)"
        refused(ValueError, message, weights, one, one, one, learning_rate=rate)
    # With an alpha below 1, both norms can be above what is asked of them.
    norms, ratios = torch.tensor([0.6, 1.4]), torch.tensor([1.0, 9.0])
    message, options = r"no weight stays positive", {"alpha": 0.5, "learning_rate": 10.0}
    refused(ValueError, message, weights, one, norms, ratios, **options)


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
    for keep in (0, 1.5):
        message = rf"keep must be .*\(0, 1\], got {keep}"
        refused(ValueError, message, lossref.ohem_cross_entropy, x, y, keep=keep)
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
