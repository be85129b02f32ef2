"""Cross-entropy and its relatives against the oracle, PyTorch, and their own promises."""

import itertools

import loss_oracle as oracle
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hard_inputs import hard_rows
from loss_checks import refused, value_and_gradient
from loss_oracle import FLOATS, exact, mp, mpf, one_hot, worst

import lossref

FORWARD = {torch.float16: 1, torch.bfloat16: 1, torch.float32: 1, torch.float64: 3}
GRADIENT = FORWARD | {torch.float64: 4}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("classes", [1, 2, 3, 20])
def test_index_targets_are_correct_in_the_last_place(dtype, classes, place, generator):
    for name, row in hard_rows(dtype, classes, generator):
        for y in {0, classes // 2, classes - 1}:
            loss, gradient = oracle.cross_entropy(exact(row), one_hot(y, classes))
            got, got_gradient = value_and_gradient(
                lossref.cross_entropy,
                row[None].to(place),
                torch.tensor([y], device=place),
                reduction="none",
            )
            assert worst(got, [loss]) <= FORWARD[dtype], f"{name}, target {y}"
            if loss == mp.inf and classes == 1:
                continue
            assert worst(got_gradient, gradient) <= GRADIENT[dtype], f"{name}, target {y}"


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kind", ["index", "probabilities"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_dense_targets_hold_their_bounds(dtype, kind, smoothing, weighted, place, generator):
    classes = 7
    weight = torch.rand(classes, generator=generator).to(dtype) if weighted else None
    w = exact(weight) if weighted else [mpf(1)] * classes
    for name, row in hard_rows(dtype, classes, generator):
        t = torch.softmax(torch.randn(classes, generator=generator) * 3, 0).to(dtype)
        target = torch.tensor(4) if kind == "index" else t
        shares = one_hot(4, classes) if kind == "index" else exact(t)
        epsilon = mpf(smoothing)
        q = [a * ((1 - epsilon) * b + epsilon / classes) for a, b in zip(w, shares, strict=True)]
        loss, gradient = oracle.cross_entropy(exact(row), q)
        got, got_gradient = value_and_gradient(
            lossref.cross_entropy,
            row.to(place),
            target.to(place),
            weight=None if weight is None else weight.to(place),
            label_smoothing=smoothing,
            reduction="none",
        )
        assert worst(got, loss) <= (5 if dtype == torch.float64 else 1), name
        scale = [max(abs(g + c), c) for g, c in zip(gradient, q, strict=True)]
        if dtype == torch.float64:
            assert worst(got_gradient, gradient, floor=scale) <= 6, name
        else:
            rounded_up = [s * mpf(2) ** -10 for s in scale]
            assert worst(got_gradient, gradient, floor=rounded_up) <= 1, name


@pytest.mark.parametrize("dtype", FLOATS)
def test_one_hot_probabilities_are_as_exact_as_indices(dtype, generator):
    for name, row in hard_rows(dtype, 5, generator):
        hot = torch.zeros(5, dtype=dtype)
        hot[2] = 1
        dense = value_and_gradient(lossref.cross_entropy, row, hot, reduction="none")
        loss, gradient = oracle.cross_entropy(exact(row), one_hot(2, 5))
        assert worst(dense[0], [loss]) <= FORWARD[dtype], name
        assert worst(dense[1], gradient) <= GRADIENT[dtype] + (dtype == torch.float64) * 2, name


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_hundred_thousand_classes(dtype, place, generator):
    classes = 100_000
    levels = (torch.randn(50, generator=generator, dtype=torch.float64) * 3).to(dtype)
    level = torch.randint(50, (classes,), generator=generator)
    level[7] = 50
    levels = torch.cat([levels, torch.tensor([40.0], dtype=dtype)])
    row, counts = levels[level], torch.bincount(level).tolist()
    e = [mp.exp(x - 40) for x in exact(levels)]
    z = mp.fsum(count * x for count, x in zip(counts, e, strict=True))
    for y in (7, 99_999):
        loss = 40 - exact(row[y]) + mp.log(z)
        got, gradient = value_and_gradient(
            lossref.cross_entropy, row[None].to(place), torch.tensor([y], device=place)
        )
        assert worst(got, [loss]) <= FORWARD[dtype]
        columns = [*range(100), y]
        expected = [e[level[j]] / z - (j == y) for j in columns]
        assert worst(gradient[0, columns], expected) <= GRADIENT[dtype]


def test_certain_and_certainly_wrong_predictions():
    x = torch.tensor([[100.0, 0.0], [0.0, 100.0], [1e4, -1e4]])
    got, gradient = value_and_gradient(
        lossref.cross_entropy, x, torch.tensor([0, 0, 1]), reduction="none"
    )
    tiny = float(np.float32(np.exp(-100.0)))
    assert got.tolist() == [tiny, 100.0, 20000.0]
    assert gradient.tolist() == [[-tiny, tiny], [-1.0, 1.0], [1.0, -1.0]]


def test_infinite_logits():
    inf = torch.inf
    x = torch.tensor([[inf, 0.0], [0.0, inf], [-inf, 0.0], [0.0, -inf]])
    got, gradient = value_and_gradient(
        lossref.cross_entropy, x, torch.tensor([0, 0, 0, 0]), reduction="none"
    )
    assert got.tolist() == [0.0, inf, inf, 0.0]
    assert gradient.tolist() == [[0.0, 0.0], [-1.0, 1.0], [-1.0, 1.0], [0.0, 0.0]]
    smoothed = lossref.cross_entropy(x[3:], torch.tensor([0]), label_smoothing=0.1)
    assert smoothed == inf
    hot = torch.tensor([[1.0, 0.0]])
    assert lossref.cross_entropy(x[3:], hot) == 0.0
    assert lossref.cross_entropy(torch.tensor([[-inf, -inf]]), torch.tensor([0])).isnan()


def test_a_masked_class_of_weight_zero_is_left_out_of_smoothing():
    x = torch.tensor([[1.0, 2.0, -torch.inf]])
    weight = torch.tensor([1.0, 1.0, 0.0])
    got, gradient = value_and_gradient(
        lossref.cross_entropy,
        x,
        torch.tensor([0]),
        weight=weight,
        label_smoothing=0.3,
        reduction="none",
    )
    kept, kept_gradient = value_and_gradient(
        lossref.cross_entropy, x[:, :2], torch.tensor([[0.8, 0.1]]), reduction="none"
    )
    torch.testing.assert_close(got, kept)
    torch.testing.assert_close(gradient[:, :2], kept_gradient)
    assert gradient[0, 2] == 0


def test_a_target_of_weight_zero_keeps_the_smoothed_part_of_the_others(generator):
    x = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    y, weight = torch.tensor([1, 2]), torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)
    options = {"weight": weight, "label_smoothing": 0.3, "reduction": "none"}
    by_index = value_and_gradient(lossref.cross_entropy, x, y, **options)
    by_share = value_and_gradient(lossref.cross_entropy, x, F.one_hot(y, 3).double(), **options)
    torch.testing.assert_close(by_index, by_share)
    assert bool((by_index[0] > 0).all())


@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_ignored_rows_touch_nothing_whatever_they_hold(poison, smoothing, generator):
    x = torch.randn(4, 3, generator=generator)
    y = torch.tensor([0, 2, 1, 1])
    kept = value_and_gradient(lossref.cross_entropy, x[:2], y[:2], label_smoothing=smoothing)
    y[2:] = -100
    x[2:] = poison
    got, gradient = value_and_gradient(lossref.cross_entropy, x, y, label_smoothing=smoothing)
    assert got == kept[0]
    assert torch.equal(gradient[:2], kept[1])
    assert torch.equal(gradient[2:], torch.zeros(2, 3))
    none = lossref.cross_entropy(x, y, label_smoothing=smoothing, reduction="none")
    assert none[2:].tolist() == [0.0, 0.0]


def test_a_target_of_weight_zero_touches_nothing():
    x = torch.tensor([[1.0, 2.0], [torch.nan, 0.0]])
    got, gradient = value_and_gradient(
        lossref.cross_entropy, x, torch.tensor([0, 1]), weight=torch.tensor([2.0, 0.0])
    )
    assert got == lossref.cross_entropy(x[:1], torch.tensor([0]))
    assert gradient[1].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("kind", ["ignored", "empty"])
def test_a_mean_over_nothing_is_zero_unless_nan_is_asked_for(kind):
    x, y = (
        (torch.ones(2, 3), torch.tensor([-100, -100]))
        if kind == "ignored"
        else (
            torch.ones(0, 3),
            torch.zeros(0, dtype=torch.long),
        )
    )
    got, gradient = value_and_gradient(lossref.cross_entropy, x, y)
    assert got == 0
    assert torch.equal(gradient, torch.zeros_like(x))
    assert lossref.cross_entropy(x, y, nan_if_empty=True).isnan()
    assert lossref.nll_loss(x, y) == 0
    assert lossref.nll_loss(x, y, nan_if_empty=True).isnan()


def test_a_float16_mean_does_not_overflow():
    x = torch.tensor([[0.0, 6e4]] * 200, dtype=torch.float16)
    y = torch.zeros(200, dtype=torch.long)
    assert lossref.cross_entropy(x, y) == 6e4
    assert lossref.cross_entropy(x, y, reduction="sum") == torch.inf


def test_index_and_probability_targets_agree_with_smoothing_and_weights(generator):
    x = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(4, (6,), generator=generator)
    weight = torch.rand(4, generator=generator, dtype=torch.float64)
    hot = F.one_hot(y, 4).double()
    for reduction in ("none", "sum"):
        options = {"weight": weight, "label_smoothing": 0.2, "reduction": reduction}
        by_index = value_and_gradient(lossref.cross_entropy, x, y, **options)
        by_share = value_and_gradient(lossref.cross_entropy, x, hot, **options)
        torch.testing.assert_close(by_index, by_share, rtol=1e-14, atol=1e-15)


def test_the_denominator_makes_micro_batches_add_up_to_the_batch(generator):
    x = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    y = torch.tensor([0, 1, -100, 2, -100, -100, 1])
    whole = value_and_gradient(lossref.cross_entropy, x, y)
    parts = [
        value_and_gradient(lossref.cross_entropy, x[rows], y[rows], denominator=4)
        for rows in (slice(0, 3), slice(3, 7))
    ]
    torch.testing.assert_close(sum(value for value, _ in parts), whole[0])
    torch.testing.assert_close(torch.cat([gradient for _, gradient in parts]), whole[1])
    assert lossref.cross_entropy(x[4:6], y[4:6], denominator=torch.tensor(0)) == 0


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["index", "probabilities"])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_gradients_of_gradients(smoothing, kind, reduction, generator):
    x = torch.randn(4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(3, generator=generator, dtype=torch.float64)
    if kind == "index":
        inputs, target = (x,), torch.tensor([0, 2, -100, 1])
    else:
        target = torch.rand(4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
        inputs = (x, target)

    def loss(x, t=target):
        return lossref.cross_entropy(
            x, t, weight=weight, label_smoothing=smoothing, reduction=reduction
        )

    assert torch.autograd.gradcheck(loss, inputs)
    assert torch.autograd.gradgradcheck(loss, inputs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradients_of_gradients_are_rounded_once(dtype, smoothing, generator):
    x, direction = torch.randn(2, 50, 3, generator=generator)
    y = torch.randint(3, (50,), generator=generator)
    found = []
    for copy in (x.to(dtype), x.to(dtype).double()):
        copy.requires_grad_()
        loss = lossref.cross_entropy(copy, y, label_smoothing=smoothing, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, copy, create_graph=True)
        # of many sizes, whose differences have more digits than the narrow format
        along = (direction * 10**direction).to(dtype).to(copy.dtype)
        found += torch.autograd.grad(gradient, copy, along)
    assert torch.equal(found[0], found[1].to(dtype))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weights_are_constants_of_the_loss(smoothing, generator):
    x = torch.randn(4, 3, generator=generator, requires_grad=True)
    weight = torch.rand(3, generator=generator, requires_grad=True)
    target = torch.tensor([0, 2, 1, 1])
    lossref.cross_entropy(x, target, weight=weight, label_smoothing=smoothing).backward()
    assert x.grad is not None
    assert weight.grad is None


@pytest.mark.parametrize("target", [torch.tensor([0]), torch.tensor([[1.0, 0.0]])])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weights_keep_their_digits_beside_narrow_logits(smoothing, target):
    x = torch.zeros(1, 2, dtype=torch.float16)
    # in float16 it would be 1
    weight = torch.full((2,), 0.9998)
    options = {"label_smoothing": smoothing, "reduction": "none"}
    (got,) = lossref.cross_entropy(x, target, weight=weight, **options)
    (exact,) = lossref.cross_entropy(x.double(), target, weight=weight.double(), **options)
    (unweighted,) = lossref.cross_entropy(x, target, **options)
    assert got == exact.half() != unweighted


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_transforms_of_torch_func(smoothing, generator):
    x = torch.randn(5, 4, 3, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (5, 4), generator=generator)

    def loss(x, y):
        return lossref.cross_entropy(x, y, label_smoothing=smoothing)

    each = torch.stack([loss(a, b) for a, b in zip(x, y, strict=True)])
    torch.testing.assert_close(torch.func.vmap(loss)(x, y), each)
    got = torch.func.vmap(torch.func.grad(loss))(x, y)
    expected = torch.stack([torch.func.grad(loss)(a, b) for a, b in zip(x, y, strict=True)])
    torch.testing.assert_close(got, expected)
    hessian = torch.func.jacrev(torch.func.jacrev(loss))(x[0], y[0])
    reference = torch.autograd.functional.hessian(lambda x: loss(x, y[0]), x[0])
    torch.testing.assert_close(hessian, reference)


def test_chunks_of_rows_change_no_bit(generator, monkeypatch):
    x = torch.randn(50, 11, generator=generator)
    y = torch.randint(11, (50,), generator=generator)
    whole = value_and_gradient(lossref.cross_entropy, x, y, reduction="none")
    dense = value_and_gradient(lossref.cross_entropy, x, y, label_smoothing=0.1)
    monkeypatch.setitem(lossref._rows.CHUNK_ELEMENTS, "cpu", 40)
    chunked = value_and_gradient(lossref.cross_entropy, x, y, reduction="none")
    assert all(torch.equal(a, b) for a, b in zip(whole, chunked, strict=True))
    chunked = value_and_gradient(lossref.cross_entropy, x, y, label_smoothing=0.1)
    assert all(torch.equal(a, b) for a, b in zip(dense, chunked, strict=True))


@pytest.mark.parametrize("shape", [(3, 5, 50), (30, 5, 3)])
def test_chunks_of_positions_change_no_bit(shape, generator, monkeypatch):
    x = torch.randn(shape, generator=generator)
    y = torch.randint(-1, 5, (shape[0], shape[2]), generator=generator)
    options = {"ignore_index": -1, "reduction": "sum"}
    whole = value_and_gradient(lossref.cross_entropy, x, y, **options)
    monkeypatch.setitem(lossref._rows.CHUNK_ELEMENTS, "cpu", 40)
    chunked = value_and_gradient(lossref.cross_entropy, x, y, **options)
    assert all(torch.equal(a, b) for a, b in zip(whole, chunked, strict=True))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("loss", [lossref.cross_entropy, lossref.focal_loss])
@pytest.mark.parametrize("factor", [1.0, 0.25, 3.0, -1.0, 2.0**14])
def test_the_gradient_kept_from_the_forward_pass_is_the_one_asked_for(
    dtype, loss, factor, generator
):
    x = (torch.randn(4, 7, generator=generator) * 6).to(dtype).requires_grad_()
    y = torch.tensor([0, 6, -100, 2])
    each = loss(x, y, reduction="none")
    for reduction, scale in (("sum", 1.0), ("mean", 1 / 4)):
        options = {"denominator": 4} if reduction == "mean" else {}
        whole = loss(x, y, reduction=reduction, **options)
        expected = torch.autograd.grad(each.sum() * (scale * factor), x, retain_graph=True)
        first = torch.autograd.grad(whole * factor, x, retain_graph=True)
        again = torch.autograd.grad(whole * factor, x)
        # A gradient that a power of two made subnormal has been rounded twice.
        limits = torch.finfo(dtype)
        once_more = {"rtol": 0, "atol": limits.tiny * limits.eps if factor < 1 else 0}
        torch.testing.assert_close(first, expected, **once_more)
        torch.testing.assert_close(again, expected, **once_more)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("loss", [lossref.cross_entropy, lossref.focal_loss])
@pytest.mark.parametrize("options", [{}, {"reduction": "sum"}, {"denominator": 7}])
def test_backward_of_a_sum_or_mean_takes_no_second_exponential(
    dtype, loss, options, generator, monkeypatch
):
    x = torch.randn(300, 5, 7, generator=generator).to(dtype).requires_grad_()
    y = torch.randint(-1, 5, (300, 7), generator=generator)
    weight = torch.rand(5, generator=generator)
    name = "alpha" if loss is lossref.focal_loss else "weight"
    monkeypatch.setitem(lossref._rows.CHUNK_ELEMENTS, "cpu", 1000)
    total = loss(x, y, ignore_index=-1, **options, **{name: weight.to(dtype)})
    monkeypatch.delattr(lossref._rows.IndexCrossEntropyGradient, "forward")
    (total / 4).backward()
    assert x.grad.count_nonzero() > 0


def test_the_gradient_of_a_gradient_kept_from_the_forward_pass(generator):
    x = torch.randn(4, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0, 6, -100, 2])
    for loss in (lossref.cross_entropy, lossref.focal_loss):
        assert torch.autograd.gradgradcheck(lambda x, loss=loss: loss(x, y), x)


def test_inputs_are_left_unchanged(generator):
    arrays = [torch.randn(4, 3, generator=generator, dtype=d, requires_grad=True) for d in FLOATS]
    for x, smoothing in itertools.product(arrays, (0.0, 0.1)):
        y, weight = torch.tensor([0, 1, -100, 2]), torch.rand(3, generator=generator).to(x.dtype)
        copies = [value.detach().clone() for value in (x, y, weight)]
        lossref.cross_entropy(x, y, weight=weight, label_smoothing=smoothing).backward()
        for copy, value in zip(copies, (x, y, weight), strict=True):
            assert torch.equal(copy, value)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_numpy_gets_the_same_bits(dtype, generator):
    x = torch.randn(6, 4, generator=generator, dtype=torch.float64).numpy().astype(dtype)
    x.flags.writeable = False
    y = np.array([0, 1, 2, 3, -100, 1], dtype=np.int32)
    value, gradient = lossref.value_and_grad(lossref.cross_entropy)(x, y, label_smoothing=0.1)
    assert isinstance(gradient, np.ndarray)
    assert value.dtype == gradient.dtype == dtype
    tensor = torch.tensor(x, requires_grad=True)
    expected = lossref.cross_entropy(tensor, torch.tensor(y), label_smoothing=0.1)
    expected.backward()
    assert value == expected.item()
    assert np.array_equal(gradient, tensor.grad.numpy())


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("log_target", [False, True])
def test_kl_div_holds_its_bound(dtype, log_target, place, generator):
    t = torch.softmax(torch.randn(40, generator=generator, dtype=torch.float64) * 4, 0).to(dtype)
    x = torch.log_softmax(torch.randn(40, generator=generator).double() * 4, 0).to(dtype)
    x[:10] = t[:10].double().log().to(dtype)
    t[10:12] = 0
    x[11] = -torch.inf
    target = t.log() if log_target else t
    got, gradient = value_and_gradient(
        lossref.kl_div, x.to(place), target.to(place), log_target=log_target, reduction="none"
    )
    shares = [mp.exp(v) for v in exact(target)] if log_target else exact(t)
    logs = [mp.log(v) if v else mpf(0) for v in shares]
    expected = [oracle.times(a, b - c) for a, b, c in zip(shares, logs, exact(x), strict=True)]
    scale = [
        max(abs(a * b), abs(oracle.times(a, c)))
        for a, b, c in zip(shares, logs, exact(x), strict=True)
    ]
    if dtype == torch.float64:
        assert worst(got, expected, floor=scale) <= 3 if not log_target else 5
    else:
        assert worst(got, expected, floor=[s * mpf(2) ** -9 for s in scale]) <= 1
    assert worst(gradient, [-a for a in shares]) <= 1


def test_kl_div_is_infinite_where_the_model_excludes_what_happens():
    x = torch.tensor([[-torch.inf, 0.0]])
    assert lossref.kl_div(x, torch.tensor([[0.5, 0.5]])) == torch.inf
    assert lossref.kl_div(x, torch.tensor([[0.0, 1.0]])) == 0


@pytest.mark.parametrize("log_target", [False, True])
def test_kl_div_has_two_derivatives(log_target, generator):
    x, t = (torch.randn(4, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    x, t = x.log_softmax(1), t.log_softmax(1)
    inputs = x.requires_grad_(), (t if log_target else t.exp()).requires_grad_()

    def loss(x, t):
        return lossref.kl_div(x, t, log_target=log_target)

    assert torch.autograd.gradcheck(loss, inputs)
    assert torch.autograd.gradgradcheck(loss, inputs)


def test_smooth_labels():
    got = lossref.smooth_labels(torch.tensor([[1, 0]]), 3, epsilon=0.3)
    assert got.shape == (1, 3, 2)
    torch.testing.assert_close(got[0, :, 0], torch.tensor([0.1, 0.8, 0.1]))
    hot = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
    share = 0.3 / 3
    assert lossref.smooth_labels(hot, epsilon=0.3).tolist() == [[share, 0.7 + share, share]]
    assert lossref.smooth_labels(torch.tensor(1), 2, epsilon=0.0).tolist() == [0.0, 1.0]
    half = lossref.smooth_labels(np.array([1]), 2, epsilon=0.5, dtype=np.float16)
    assert half.dtype == np.float16
    assert half.tolist() == [[0.25, 0.75]]


@pytest.mark.parametrize("dtype", FLOATS)
def test_smooth_labels_are_correctly_rounded(dtype, generator):
    bound = 2 if dtype == torch.float64 else 0.501
    for epsilon in (0.3, 1.0):
        share, rest = mpf(epsilon) / 7, 1 - mpf(epsilon)
        got = lossref.smooth_labels(torch.tensor([0, 6]), 7, epsilon=epsilon, dtype=dtype)
        assert got.dtype == dtype
        expected = [[rest * v + share for v in one_hot(y, 7)] for y in (0, 6)]
        assert worst(got, expected) <= bound
        # The classes are on axis 1, not on the last.
        target = torch.rand(3, 7, 2, generator=generator).to(dtype)
        got = lossref.smooth_labels(target, epsilon=epsilon)
        assert got.dtype == dtype
        expected = [rest * v + share for v in exact(target.flatten())]
        assert worst(got.flatten(), expected) <= bound


def test_bad_input_of_smooth_labels_is_named():
    y, t = torch.tensor([0, 1, 2]), torch.full((2, 3), 0.5)
    smooth = lossref.smooth_labels
    for wrong, held in ((y + 1, 3), (y - 1, -1)):
        message = rf"target must be class indices in \[0, 3\), but holds {held}"
        refused(ValueError, message, smooth, wrong, 3, epsilon=0.1)
    refused(ValueError, r"num_classes is 4, but target has 3 classes", smooth, t, 4, epsilon=0.1)
    for classes in (None, 0, 2.5):
        message = rf"num_classes must be an integer of at least 1, got {classes}"
        refused(ValueError, message, smooth, y[:0], classes, epsilon=0.1)
    for epsilon in (-0.1, 1.1):
        message = r"epsilon must be a number in \[0, 1\]"
        refused(ValueError, message, smooth, y, 3, epsilon=epsilon)
    refused(TypeError, r"target must hold integer class indices", smooth, y > 0, 3, epsilon=0.1)


def test_bad_input_is_named():
    x, y = torch.zeros(4, 3), torch.tensor([0, 1, 2, 1])
    loss = lossref.cross_entropy
    refused(TypeError, r"logits must be float16.*but is torch\.int64", loss, x.long(), y)
    out_of_range = r"class indices in \[0, 3\), or ignore_index=-100, but holds 3"
    refused(ValueError, out_of_range, loss, x, y + 1)
    refused(ValueError, r"shape \(4,\).*but has shape \(4, 1\); squeeze", loss, x, y[:, None])
    refused(ValueError, r"target must have shape \(4, 3\), the shape of logits", loss, x, x[:2])
    refused(TypeError, r"target must hold integer class indices", loss, x, y.bool())
    epsilon = r"label_smoothing must be a number in \[0, 1\], got 1\.5"
    refused(ValueError, epsilon, loss, x, y, label_smoothing=1.5)
    names = r"reduction must be one of 'none', 'mean', 'sum', got 'avg'"
    refused(ValueError, names, loss, x, y, reduction="avg")
    per_class = r"weight must have shape \(3,\), one weight per class"
    refused(ValueError, per_class, loss, x, y, weight=x[0, :2])
    divides = r"denominator divides a mean, but reduction is 'sum'"
    refused(ValueError, divides, loss, x, y, reduction="sum", denominator=3)
    negative = r"denominator must be a number in \[0, inf\), got -1"
    refused(ValueError, negative, loss, x, y, denominator=-1)
    refused(TypeError, r"not both in one call", loss, x, y.numpy())
    refused(ValueError, r"class axis", loss, torch.tensor(1.0), y)
    below = r"target must be probabilities, at least 0, but holds -1"
    refused(ValueError, below, lossref.kl_div, x, x - 1)
    refused(TypeError, r"target must have the dtype of log_probs", lossref.kl_div, x, x.double())
    classes = r"num_classes must be an integer of at least 1, got None"
    refused(ValueError, classes, lossref.smooth_labels, y, epsilon=0.1)
    outside = r"epsilon must be a number in \[0, 1\], got -0\.1"
    refused(ValueError, outside, lossref.smooth_labels, y, 3, epsilon=-0.1)
