"""companion.averaging: the Reynolds operator."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion import finite, groups, testing
from companion.averaging import reynolds

few = settings(deadline=None, max_examples=20)
seeds = st.integers(0, 2**31 - 1)
double = {"dtype": torch.float64}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def wild(x: torch.Tensor) -> torch.Tensor:
    """A function of pairs of vectors (..., 2, d) without any symmetry, with values (..., d)."""
    return torch.tanh(x[..., 0, :].roll(1, -1) + 0.3) * x[..., 1, :].exp() + x[..., 1, :1]


def act(g: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return x @ g.mT


FINITE = [finite.Dihedral(5), finite.Symmetric(3), finite.Cyclic(4), finite.Trivial(2)]


@few
@given(
    seed=seeds,
    group=st.sampled_from(FINITE),
    dtype=st.sampled_from([torch.float32, *double.values()]),
)
def test_the_sum_over_a_finite_group_is_equivariant(seed, group, dtype):
    x = torch.randn(6, 2, group.d, generator=seeded(seed), dtype=dtype)
    elements = group.elements(dtype)
    averaged = reynolds(wild, act, elements, output_action=group.act)
    if isinstance(group, finite.Trivial):
        torch.testing.assert_close(averaged(x), wild(x))
        return
    testing.assert_equivariant(averaged, act, x, output_action=group.act, elements=elements)
    with pytest.raises(AssertionError):  # not because everything passes
        testing.assert_equivariant(wild, act, x, output_action=group.act, elements=elements)


@few
@given(seed=seeds, group=st.sampled_from(FINITE))
def test_without_an_output_action_it_is_invariant_and_a_projection(seed, group):
    x = torch.randn(6, 2, group.d, generator=seeded(seed), **double)
    elements = group.elements()
    once = reynolds(wild, act, elements)
    torch.testing.assert_close(once(act(elements[-1], x)), once(x))
    torch.testing.assert_close(reynolds(once, act, elements)(x), once(x))


def test_it_agrees_with_the_definition_term_by_term():
    group = finite.Dihedral(3)
    x = torch.randn(4, 2, 2, generator=seeded(0), **double)
    terms = [wild(x @ g.T) @ torch.linalg.inv(g).T for g in group.elements()]
    averaged = reynolds(wild, act, group.elements(), output_action=group.act)
    torch.testing.assert_close(averaged(x), sum(terms) / 6)


def test_what_is_equivariant_stays_as_it_is_for_any_elements():
    group = groups.SO(3)
    x = torch.randn(7, 2, 3, generator=seeded(1), **double)
    some = group.sample(5, generator=seeded(2))

    def cross(x):
        return torch.linalg.cross(x[..., 0, :], x[..., 1, :])

    averaged = reynolds(cross, act, some, output_action=group.act)
    torch.testing.assert_close(averaged(x), cross(x))


def test_a_design_averages_polynomials_exactly_and_fewer_elements_do_not():
    group = groups.SO(2)

    def power(x):
        return x[..., 0] ** 6

    x = torch.randn(9, 2, generator=seeded(3), **double)
    exact = x.square().sum(-1) ** 3 * math.comb(6, 3) / 2**6  # the mean of cos^6
    torch.testing.assert_close(reynolds(power, group.act, group.design(6))(x), exact)
    rough = reynolds(power, group.act, group.design(5))(x)
    assert (rough - exact).abs().max() > 1e-3


def test_inverses_of_matrices_that_are_not_orthogonal():
    lorentz = groups.Lorentz(2)
    g = lorentz.sample(3, generator=seeded(4))
    x = torch.randn(5, 2, generator=seeded(5), **double)
    averaged = reynolds(lambda x: 2 * x, lorentz.act, g, output_action=lorentz.act)
    torch.testing.assert_close(averaged(x), 2 * x)


def test_weights_and_several_inputs():
    g = finite.Dihedral(1).elements()
    q, p = torch.randn(2, 5, 2, generator=seeded(6), **double)

    def f(q, p):
        return q[..., 0] * p[..., 1] + q[..., 0]

    averaged = reynolds(f, act, g, weights=torch.tensor([0.75, 0.25], **double))
    torch.testing.assert_close(averaged(q, p), 0.5 * f(q, p))


@pytest.mark.parametrize(
    ("elements", "weights", "words"),
    [
        (torch.zeros(0, 2, 2), None, "elements: got shape"),
        (torch.eye(2), None, "elements: got shape"),
        (torch.zeros(3, 2, 1), None, "elements: got shape"),
        (torch.eye(2)[None], torch.ones(2) / 2, "weights: got shape"),
        (torch.eye(2)[None], torch.tensor([0.5]), "sum 0.5"),
    ],
)
def test_bad_input_is_refused(elements, weights, words):
    with pytest.raises(ValueError, match=words):
        reynolds(wild, act, elements, weights=weights)
