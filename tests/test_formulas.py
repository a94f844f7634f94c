"""Polynomial regression, the choice of a degree, and the ratio that says what is conserved."""

import math

import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion import formulas, integrators, systems

few = settings(deadline=None, max_examples=20)
NAMES = ["q_1", "q_2", "p_1", "p_2"]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def planted(z):
    """1.5 q_1 p_2 - 2 q_2^2 p_1 + 0.001 p_2 + 3."""
    q_1, q_2, p_1, p_2 = z.unbind(-1)
    return 1.5 * q_1 * p_2 - 2 * q_2**2 * p_1 + 1e-3 * p_2 + 3


# The regression


def test_a_planted_formula_is_found_with_its_degree_and_coefficients():
    z = normal(20, 100, 4)
    found = formulas.by_degree(z, planted(z), NAMES)
    assert formulas.choose_degree(found) == 3
    best = found[3]
    assert best.relative_error < 1e-13
    assert best.coefficient(q_1=1, p_2=1) == pytest.approx(1.5, abs=1e-12)
    assert best.coefficient(q_2=2, p_1=1) == pytest.approx(-2, abs=1e-12)
    assert best.coefficient() == pytest.approx(3, abs=1e-12)
    assert best.coefficient(p_2=1) == pytest.approx(1e-3, abs=1e-12)
    assert best.coefficient(q_1=3) == pytest.approx(0, abs=1e-12)
    assert len(best.coefficients) == math.comb(4 + 3, 3)
    assert best.undetermined == 0
    assert found[2].r2 < 0.6
    assert found[2].r2 == pytest.approx(1 - found[2].relative_error ** 2, abs=1e-12)


def test_the_formula_is_a_function():
    z = normal(20, 100, 4)
    found = formulas.fit(z, planted(z), NAMES, 3)
    new = normal(3, 5, 4, seed=1)
    torch.testing.assert_close(found(new), planted(new), rtol=1e-11, atol=1e-11)
    zero = torch.zeros(4, dtype=torch.float64)
    assert found(zero).item() == pytest.approx(3)


@few
@given(seed=st.integers(0, 2**31 - 1), noise=st.sampled_from([1e-3, 1e-2]))
def test_a_planted_formula_is_found_under_noise(seed, noise):
    z = normal(2000, 3, seed=seed)
    c = normal(2, seed=seed + 1) + 3
    y = c[0] * z[:, 0] * z[:, 1] + c[1] * z[:, 2]
    found = formulas.by_degree(z, y + noise * normal(2000, seed=seed + 2), ["x", "y", "z"])
    assert formulas.choose_degree(found) == 2
    assert found[2].coefficient(x=1, y=1) == pytest.approx(c[0].item(), abs=10 * noise)
    assert math.sqrt(found[2].mse) == pytest.approx(noise, rel=0.3)


def test_noise_is_rejected():
    z = normal(20, 100, 4)
    found = formulas.by_degree(z, normal(20, 100, seed=1), NAMES)
    assert formulas.choose_degree(found) is None
    assert all(f.r2 < 0.02 for f in found.values())


def test_one_over_r_is_rejected_although_its_error_becomes_small():
    """Appendix E, coordinate 3: what keeps falling is no polynomial."""
    r = 1 + torch.rand(4000, generator=seeded(1), dtype=torch.float64)
    phi = 2 * math.pi * torch.rand(4000, generator=seeded(2), dtype=torch.float64)
    z = torch.stack([r * phi.cos(), r * phi.sin()], dim=-1)
    found = formulas.by_degree(z, 1 / r, ["x", "y"], range(1, 7))
    errors = [f.relative_error for f in found.values()]
    assert errors[-1] < 0.03
    assert errors[1] < 0.3
    assert formulas.choose_degree(found) is None
    assert formulas.choose_degree({k: found[k] for k in (1, 2, 3, 4)}) is None


def test_held_out_trajectories_are_not_fitted():
    z = normal(7, 50, 4)
    y = planted(z)
    spoilt = y.clone()
    spoilt[:, 4::5] += 1
    clean, other = (formulas.fit(z, v, NAMES, 3) for v in (y, spoilt))
    assert other.coefficients == clean.coefficients
    assert other.mse == pytest.approx(1, rel=1e-10)


def test_held_out_points_can_be_given():
    z, far = normal(500, 1), 3 + normal(500, 1, seed=1)
    found = formulas.fit(z, z[:, 0].sin(), ["x"], 3, test=(far, far[:, 0].sin()))
    inside = formulas.fit(z, z[:, 0].sin(), ["x"], 3)
    assert found.relative_error > 10 * inside.relative_error


def test_combinations_that_the_data_do_not_show_are_counted():
    z = normal(500, 2)
    z = torch.cat([z, z.sum(-1, keepdim=True)], dim=-1)
    found = formulas.fit(z, z[:, 0], ["x", "y", "s"], 1)
    assert found.undetermined == 1
    assert found.relative_error < 1e-12


def test_momentum_is_read_off_a_mixture_as_in_equation_16():
    bodies = systems.get("two-body")
    z = bodies.sample_phase(400, seeded(3))
    C = bodies.phase_charges(z)
    y = -4.21 * C[:, 0] - 1.26 * C[:, 1] + 3e-4 * torch.sin(5 * z[:, 0])
    found = formulas.by_degree(z, y, (*bodies.q, *bodies.p), (1, 2))
    assert formulas.choose_degree(found) == 1
    kept, largest = found[1].split()
    assert len(kept) == 4
    assert largest < 0.01
    assert found[1].text().startswith("-4.21 p_{x_{1}} - 1.26 p_{y_{1}} - 4.21 p_{x_{2}}")


# How it prints


def test_text_omits_small_terms_and_bounds_them():
    z = normal(400, 4)
    text = formulas.fit(z, planted(z), NAMES, 3).text()
    assert text.startswith("1.50 q_1 p_2 - 2.00 q_2^2 p_1 + 3.00 (mse ")
    assert text.endswith(", omitted below 1e-03)")
    assert "0.001 p_2" in formulas.fit(z, planted(z), NAMES, 3).text(1e-4, digits=3)
    negative = formulas.fit(z, -z[:, 0], NAMES, 1)
    assert negative.text().startswith("-1.00 q_1 (mse")


def test_latex_uses_the_symbols_of_sympy():
    x, p = sympy.symbols("x_1 p_{x_1}")
    z = normal(100, 2)
    found = formulas.fit(z, 2 * z[:, 0] ** 2 - z[:, 1], (x, p), 2)
    assert found.latex() == r"-1.00\,p_{x_1} + 2.00\,x_{1}^2"
    assert found._repr_latex_().startswith(r"$\displaystyle -1.00\,p_{x_1}")


@pytest.mark.parametrize(
    ("x", "word"), [(0, "0"), (0.0123, "2e-02"), (0.1, "1e-01"), (9.5, "1e+01")]
)
def test_bounds_round_up(x, word):
    assert formulas._above(x) == word
    assert float(word) >= x


# The degree


def fake(errors):
    return {
        k: formulas.Formula(("x",), k, {(0,): 0.0}, e**2, 1 - e**2, e, 0)
        for k, e in enumerate(errors, 1)
    }


@pytest.mark.parametrize(
    ("errors", "degree"),
    [
        ([0.9, 0.01, 0.009, 0.008], 2),
        ([0.01, 0.009, 0.008, 0.007], 1),
        ([0.9, 0.3, 0.1, 0.03], None),  # still falling
        ([0.9, 0.04, 0.04, 0.01], None),  # falls at the last degree tried
        ([0.9, 0.2, 0.2, 0.2], None),  # a plateau, but no fit
        ([0.5, 1e-15, 1e-13, 1e-16], 2),  # rounding is no fall
        ([0.5, 9e-4, 1e-5, 1e-5], 2),  # good enough
        ([0.5, 4e-3, 1e-5, 1e-5], 3),
    ],
)
def test_the_degree_is_where_the_fall_ends(errors, degree):
    assert formulas.choose_degree(fake(errors)) == degree


def test_factor_and_limit_can_be_chosen():
    assert formulas.choose_degree(fake([0.04, 0.01])) is None
    assert formulas.choose_degree(fake([0.04, 0.01]), factor=5) == 1
    assert formulas.choose_degree(fake([0.04, 0.03]), limit=0.03) is None


# The ratio


def test_ratio_of_a_sum_of_a_constant_and_a_clock_is_exact():
    """P = a_n + b_t: the variance within is that of b, the whole that of a plus that of b."""
    a, b = normal(50, seed=1), normal(30, seed=2)
    P = a + b[:, None]
    within, between = b.var(correction=0), a.var(correction=0)
    expected = (within / (within + between)).sqrt()
    torch.testing.assert_close(formulas.conservation_ratio(P), expected)


@few
@given(seed=st.integers(0, 2**31 - 1), scale=st.floats(-1e6, 1e6), shift=st.floats(-1e3, 1e3))
def test_ratio_is_between_0_and_1_and_does_not_see_units(seed, scale, shift):
    P = normal(7, 5, 2, seed=seed).cumsum(0)
    ratio = formulas.conservation_ratio(P)
    assert ratio.shape == (2,)
    assert (ratio >= 0).all()
    assert (ratio <= 1).all()
    if abs(scale) > 1e-3:
        torch.testing.assert_close(formulas.conservation_ratio(scale * P + shift), ratio)


def test_ratio_tells_conserved_from_not():
    bodies = systems.get("two-body")
    path = integrators.solve(bodies.flow, bodies.sample_phase(20, seeded(1)), 0.02, 400, every=20)
    assert formulas.conservation_ratio(bodies.phase_charges(path)).max() < 1e-10
    assert formulas.conservation_ratio(bodies.hamiltonian(path)) < 1e-8
    assert formulas.conservation_ratio(path[..., 0]) > 0.5
    assert formulas.conservation_ratio(normal(1000, 1000)) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_is_refused(dtype):
    P = torch.full((5, 6, 2), 0.1, dtype=dtype)
    P[..., 0] = normal(5, 6).to(dtype)
    with pytest.raises(ValueError, match=r"P\[1\] is the same at all points .* no quantity"):
        formulas.conservation_ratio(P)
    P[..., 1] += 4 * torch.finfo(dtype).eps * 0.1 * normal(5, 6, seed=1).to(dtype).clamp(-1, 1)
    with pytest.raises(ValueError, match="trivially"):
        formulas.conservation_ratio(P)


@pytest.mark.parametrize("P", [normal(5), normal(1, 5), normal(5, 1), torch.zeros(3, 3, dtype=int)])
def test_too_few_values_are_refused(P):
    with pytest.raises(ValueError, match="two times or more on two trajectories or more"):
        formulas.conservation_ratio(P)


def test_values_that_are_not_finite_are_refused():
    P = normal(4, 5)
    P[2, 3] = math.nan
    with pytest.raises(ValueError, match=r"P\[2, 3\] is nan"):
        formulas.conservation_ratio(P)


# Functions of each other


def test_span_sees_through_mixtures():
    C = normal(500, 3)
    P = C[:, :2] @ torch.tensor([[1.0, 2.0], [-1.0, 1.0]]).double()
    both = formulas.span(P, C)
    assert min(both.learned) > 1 - 1e-12
    assert min(both.known[:2]) > 1 - 1e-12
    assert both.known[2] < 0.1


def test_span_of_degree_two_sees_products():
    C = normal(500, 2)
    P = torch.stack([C[:, 0] * C[:, 1], C[:, 0]], dim=-1)
    assert formulas.span(P, C).learned[0] < 0.2
    assert formulas.span(P, C, degree=2).learned[0] > 1 - 1e-12
    assert formulas.span(P, C, degree=2).known[0] > 1 - 1e-12
    assert formulas.span(P, C, degree=2).known[1] < 0.8


# What is refused


@pytest.mark.parametrize(
    ("z", "y", "names", "degree", "message"),
    [
        (normal(50, 4), normal(50), NAMES[:3], 1, "got 3 names for z with 4 components"),
        (normal(50, 4), normal(49), NAMES, 1, "have shapes"),
        (normal(50), normal(50), NAMES, 1, "have shapes"),
        (normal(50, 4), normal(50), NAMES, 0, "degree must be 1 or more, got 0"),
        (normal(50, 4), normal(50), NAMES, 4, "40 points for 70 monomials"),
        (normal(4, 4), normal(4), NAMES, 1, "too few to hold out"),
        (normal(50, 4), torch.ones(50).double(), NAMES, 1, "y is the same, 1, at all"),
        (normal(50, 4) / 0, normal(50), NAMES, 1, r"z, y\[0\]"),
    ],
)
def test_bad_data_are_refused(z, y, names, degree, message):
    with pytest.raises(ValueError, match=message):
        formulas.fit(z, y, names, degree)


def test_bad_choices_are_refused():
    with pytest.raises(ValueError, match="two degrees or more"):
        formulas.choose_degree(fake([0.1]))
    with pytest.raises(ValueError, match="a factor above 1"):
        formulas.choose_degree(fake([0.1, 0.1]), factor=1)
    z = normal(50, 2)
    with pytest.raises(ValueError, match="expected names of"):
        formulas.fit(z, z[:, 0], ["x", "y"], 1).coefficient(w=1)
    with pytest.raises(ValueError, match=r"C has shape \(50,\)"):
        formulas.span(z, z[:, 0])
