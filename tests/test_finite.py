"""companion.finite: finite groups and embedded ones; designs of companion.groups."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion import finite, groups

few = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 2**31 - 1)
FINITE = [
    finite.Trivial(3),
    finite.Cyclic(1),
    finite.Cyclic(5),
    finite.Symmetric(1),
    finite.Symmetric(4),
    finite.Dihedral(1),
    finite.Dihedral(2),
    finite.Dihedral(6),
    finite.Embedded(finite.Dihedral(6), 3),
]
ORDERS = [1, 1, 5, 1, 24, 2, 4, 12, 12]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def as_set(g: torch.Tensor) -> set:
    return {tuple(round(x, 6) + 0.0 for x in row) for row in g.flatten(1).tolist()}


def closure(group: groups.Group) -> torch.Tensor:
    """All products of the discrete generators, by multiplying until nothing new comes."""
    found = [torch.eye(group.d, dtype=torch.float64)]
    seen = as_set(torch.stack(found))
    for g in found:
        for h in group.discrete():
            new = g @ h
            key = next(iter(as_set(new[None])))
            if key not in seen:
                seen.add(key)
                found.append(new)
    return torch.stack(found)


@pytest.mark.parametrize(("group", "order"), list(zip(FINITE, ORDERS, strict=True)), ids=repr)
def test_discrete_generators_make_all_elements(group, order):
    made = closure(group)
    assert len(made) == order
    assert as_set(made) == as_set(group.design(3))
    assert len(group.design(3)) == order
    assert group.dim == 0
    assert group.generators().shape == (0, group.d, group.d)


@few
@given(which=st.integers(0, len(FINITE) - 1), seed=seeds)
def test_random_elements_are_elements(which, seed):
    group = FINITE[which]
    g = group.sample(3, 2, generator=seeded(seed))
    assert g.shape == (3, 2, group.d, group.d)
    assert as_set(g.flatten(0, 1)) <= as_set(group.design(0))
    assert group.sample(2, generator=seeded(seed), dtype=torch.float32).dtype == torch.float32


def test_samples_reach_every_element():
    group = finite.Dihedral(3)
    assert as_set(group.sample(200, generator=seeded(0))) == as_set(group.elements())


def test_the_groups_of_the_pendulum_keep_gravity_and_contain_mirrors():
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    for inner in (groups.O(2), groups.SO(2), finite.Dihedral(2), finite.Dihedral(6)):
        group = finite.Embedded(inner, 3)
        for g in (*group.sample(5, generator=seeded(1)), *group.discrete()):
            assert torch.equal(g @ up, up)
        assert (group.generators() @ up).abs().sum() == 0
    mirror = finite.Embedded(groups.O(2), 3).discrete()[0]
    assert torch.equal(mirror, torch.diag(torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)))


@few
@given(degree=st.integers(0, 6), seed=seeds)
@pytest.mark.parametrize("group", [groups.SO(2), groups.O(2), finite.Embedded(groups.O(2), 4)])
def test_a_design_averages_polynomials_exactly(group, degree, seed):
    """The mean of a monomial does not change when every element is multiplied by one of them."""
    g = group.design(degree)
    h = group.sample(generator=seeded(seed))
    entries = torch.randint(0, group.d, (degree, 2), generator=seeded(seed))

    def mean(elements):
        product = torch.ones(len(elements), dtype=torch.float64)
        for i, j in entries.tolist():
            product = product * elements[:, i, j]
        return product.mean()

    assert abs(mean(g) - mean(h @ g)) < 1e-12


def test_a_design_of_too_low_a_degree_is_not_exact():
    angles = groups.SO(2).design(1)  # two turns, by 0 and by pi: cos^2 has mean 1 on them
    assert angles[:, 0, 0].square().mean().item() == pytest.approx(1.0)
    assert groups.SO(2).design(2)[:, 0, 0].square().mean().item() == pytest.approx(0.5)


def test_components():
    assert groups.SO(3).discrete().shape == (0, 3, 3)
    assert torch.linalg.det(groups.O(3).discrete()[0]).item() == -1
    assert groups.Lorentz(4).discrete().shape == (0, 4, 4)


def test_dihedral_generators_are_exact():
    turn, mirror = finite.Dihedral(6).sympy_discrete()
    assert turn**6 == mirror**2 == turn**0
    assert (mirror * turn * mirror * turn) == turn**0
    assert turn[1, 0] ** 2 * 4 == 3
    assert torch.allclose(
        finite.Dihedral(6).discrete()[0][0, 0], torch.tensor(math.cos(math.pi / 3)).double()
    )


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: finite.Dihedral(0), "k: got 0"),
        (lambda: finite.Embedded(groups.O(3), 2), "at least the 3 axes"),
        (lambda: finite.Cyclic(0), "d: got 0"),
        (lambda: groups.O(3).design(2), "no design"),
        (lambda: finite.Embedded(groups.SO(3), 4).design(2), "no design"),
    ],
)
def test_errors(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_names():
    assert repr(finite.Embedded(finite.Dihedral(6), 3)) == "Embedded(Dihedral(6), 3)"
