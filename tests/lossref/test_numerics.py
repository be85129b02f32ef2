"""The building blocks against the oracle."""

import loss_oracle as oracle
import numpy as np
import pytest
import torch
from hard_inputs import hard_rows
from loss_oracle import FLOATS, exact, mp, mpf, worst

import lossref

FORWARD = {torch.float16: 1, torch.bfloat16: 1, torch.float32: 1, torch.float64: 3}
GRADIENT = FORWARD | {torch.float64: 4}


def rows_of(dtype, generator, sizes=(1, 2, 3, 17)):
    for classes in sizes:
        for name, row in hard_rows(dtype, classes, generator):
            yield f"{name}, {classes} classes", row


@pytest.mark.parametrize("dtype", FLOATS)
def test_softmax_is_correct_in_the_last_place(dtype, place, generator):
    for name, row in rows_of(dtype, generator):
        got = lossref.softmax(row.to(place))
        assert got.dtype == dtype
        assert worst(got, oracle.softmax(exact(row))) <= GRADIENT[dtype], name


@pytest.mark.parametrize("dtype", FLOATS)
def test_log_softmax_is_correct_in_the_last_place(dtype, place, generator):
    for name, row in rows_of(dtype, generator):
        got = lossref.log_softmax(row.to(place))
        assert worst(got, oracle.log_softmax(exact(row))) <= FORWARD[dtype], name


@pytest.mark.parametrize("dtype", FLOATS)
def test_logsumexp_is_correct_in_the_last_place_away_from_its_zero(dtype, place, generator):
    for name, row in rows_of(dtype, generator):
        got = lossref.logsumexp(row.to(place))
        values = exact(row)
        assert worst(got, oracle.logsumexp(values), floor=max(values)) <= FORWARD[dtype], name


def test_logsumexp_near_its_zero_is_narrow_formats_one_ulp():
    x = torch.tensor([-0.693, -0.69329], dtype=torch.float32)
    assert worst(lossref.logsumexp(x), oracle.logsumexp(exact(x))) <= 1


@pytest.mark.parametrize("dtype", FLOATS)
def test_gradients_of_the_softmax_family_at_one_entry(dtype, place, generator):
    for name, row in rows_of(dtype, generator, (2, 3, 17)):
        p = oracle.softmax(exact(row))
        x = row.to(place).requires_grad_()
        (got,) = torch.autograd.grad(lossref.logsumexp(x), x)
        assert worst(got, p) <= GRADIENT[dtype], name
        for y in (0, len(row) - 1):
            (got,) = torch.autograd.grad(lossref.log_softmax(x)[y], x)
            expected = [mpf(j == y) - p_j for j, p_j in enumerate(p)]
            assert worst(got, expected) <= GRADIENT[dtype], f"log_softmax at {y}: {name}"
            (got,) = torch.autograd.grad(lossref.softmax(x)[y], x)
            expected = [p[y] * (mpf(j == y) - p_j) for j, p_j in enumerate(p)]
            bound = {torch.float64: 8}.get(dtype, 1)
            assert worst(got, expected) <= bound, f"softmax at {y}: {name}"


POINTWISE = {
    "sigmoid": (
        lambda x: 1 / (1 + mp.exp(-x)),
        lambda x: mp.exp(-x) / (1 + mp.exp(-x)) ** 2,
        3,
        4,
    ),
    "log_sigmoid": (lambda x: -mp.log1p(mp.exp(-x)), lambda x: 1 / (1 + mp.exp(x)), 3, 3),
    "softplus": (lambda x: mp.log1p(mp.exp(x)), lambda x: 1 / (1 + mp.exp(-x)), 3, 3),
}


def points(dtype, generator):
    """Numbers of every size, as wide as the format and the exponential reach."""
    random = torch.randn(150, generator=generator, dtype=torch.float64)
    sizes = [1e-300, 1e-30, 1e-6, 0.1, 1.0, 5.0, 20.0, 100.0, 400.0, 1e4]
    special = torch.tensor([0.0, 17.0, -17.0, 745.0, -745.0, -740.5, 88.7, -103.9, -87.5])
    return torch.cat([special.double(), *[random * size for size in sizes]]).to(dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", POINTWISE)
def test_pointwise_functions_are_correct_in_the_last_place(name, dtype, place, generator):
    value, slope, bound, slope_bound = POINTWISE[name]
    x = points(dtype, generator)
    x = x[x.isfinite()].to(place).requires_grad_()
    got = getattr(lossref, name)(x)
    (gradient,) = torch.autograd.grad(got.sum(), x)
    bound, slope_bound = (bound, slope_bound) if dtype == torch.float64 else (1, 1)
    assert got.dtype == gradient.dtype == dtype
    assert worst(got, [value(v) for v in exact(x)]) <= bound
    assert worst(gradient, [slope(v) for v in exact(x)]) <= slope_bound


@pytest.mark.parametrize("dtype", FLOATS)
def test_log1mexp_is_correct_in_the_last_place(dtype, place, generator):
    x = -points(dtype, generator).abs()
    near_the_seam = torch.linspace(-0.8, -0.6, 200, dtype=torch.float64).to(dtype)
    x = torch.cat([x[x < 0], near_the_seam]).to(place).requires_grad_()
    got = lossref.log1mexp(x)
    (gradient,) = torch.autograd.grad(got.sum(), x)
    bound = 4 if dtype == torch.float64 else 1
    assert worst(got, [mp.log(-mp.expm1(v)) for v in exact(x)]) <= bound
    assert worst(gradient, [mp.exp(v) / mp.expm1(v) for v in exact(x)]) <= bound


def test_log1mexp_ends_at_minus_infinity_and_has_no_value_above_zero():
    x = torch.tensor([0.0, -torch.inf, 1.0], requires_grad=True)
    got = lossref.log1mexp(x)
    assert got[0] == -torch.inf
    assert got[1] == 0
    assert got[2].isnan()
    (gradient,) = torch.autograd.grad(got[:2].sum(), x)
    assert gradient[0] == -torch.inf
    assert gradient[1] == 0


def test_infinite_logits():
    inf = torch.inf
    assert lossref.logsumexp(torch.tensor([-inf, -inf])) == -inf
    assert lossref.logsumexp(torch.tensor([inf, 0.0])) == inf
    assert lossref.softmax(torch.tensor([inf, 0.0, inf])).tolist() == [0.5, 0.0, 0.5]
    assert lossref.log_softmax(torch.tensor([inf, 0.0])).tolist() == [0.0, -inf]
    assert lossref.softmax(torch.tensor([-inf, -inf])).isnan().all()
    assert lossref.softmax(torch.tensor([torch.nan, 0.0])).isnan().all()


def test_axes_and_shapes_follow_the_axis_keyword(generator):
    x = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(lossref.softmax(x, axis=1), torch.softmax(x, 1))
    torch.testing.assert_close(lossref.log_softmax(x, axis=0), torch.log_softmax(x, 0))
    torch.testing.assert_close(lossref.logsumexp(x, axis=-2), torch.logsumexp(x, -2))
    assert lossref.logsumexp(x, axis=1, keepdims=True).shape == (3, 1, 5)
    assert lossref.softmax(x[:0]).shape == (0, 4, 5)


@pytest.mark.parametrize("name", ["logsumexp", "softmax", "log_softmax", *POINTWISE, "log1mexp"])
def test_second_derivatives_are_right(name, generator):
    x = -torch.rand(4, 3, generator=generator, dtype=torch.float64) - 0.1
    function = getattr(lossref, name)
    assert torch.autograd.gradcheck(function, x.requires_grad_())
    assert torch.autograd.gradgradcheck(function, x)


@pytest.mark.parametrize("name", ["logsumexp", "softmax", "log_softmax", *POINTWISE, "log1mexp"])
def test_transforms_of_torch_func(name, generator):
    x = -torch.rand(4, 3, generator=generator, dtype=torch.float64)
    function = getattr(lossref, name)
    torch.testing.assert_close(torch.func.vmap(function)(x), function(x))

    def total(row):
        return (function(row) ** 2).sum()

    expected = torch.stack([torch.func.grad(total)(row) for row in x])
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(total))(x), expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_numpy_gets_the_same_bits(dtype, generator):
    x = torch.randn(5, 7, generator=generator, dtype=torch.float64).numpy().astype(dtype)
    for name in ("logsumexp", "softmax", "log_softmax", "sigmoid"):
        function = getattr(lossref, name)
        got = function(x[::-1])
        assert isinstance(got, np.ndarray)
        assert got.dtype == dtype
        assert np.array_equal(got, function(torch.from_numpy(x[::-1].copy())).numpy())


def test_bad_input_is_named():
    x = torch.zeros(2, 3)
    with pytest.raises(TypeError, match=r"x must be float16.*torch\.int64 of shape \(2, 3\)"):
        lossref.softmax(x.long())
    with pytest.raises(TypeError, match="x must be a NumPy array or a torch tensor, not list"):
        lossref.sigmoid([1.0])
    with pytest.raises(ValueError, match="axis must be an integer axis of a 2-D array, got 2"):
        lossref.softmax(x, axis=2)
    with pytest.raises(ValueError, match="entries along axis 1"):
        lossref.logsumexp(x[:, :0])
