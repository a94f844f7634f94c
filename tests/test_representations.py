"""companion.representations: the equivariance constraint, its null space, character theory."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion import finite, groups
from companion.groups import Group
from companion.representations import (
    SCALAR,
    Rep,
    T,
    V,
    averaging_projector,
    constraint,
    dimension,
    dimension_by_characters,
    equivariant_basis,
    invariant_tensors,
)

few = settings(deadline=None, max_examples=25)
PENDULUM = [
    finite.Embedded(inner, 3)
    for inner in (groups.O(2), groups.SO(2), finite.Dihedral(2), finite.Dihedral(6))
]
AVERAGED = [
    *PENDULUM,
    groups.SO(2),
    groups.O(2),
    finite.Symmetric(3),
    finite.Cyclic(4),
    finite.Trivial(2),
]
ALL = [*AVERAGED, groups.O(3), groups.SO(3)]
reps = st.sampled_from([Rep(counts) for counts in product(range(3), repeat=3) if any(counts)])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def error(W: torch.Tensor, rep_in: Rep, rep_out: Rep, g: torch.Tensor) -> float:
    if W.numel() == 0:
        return 0.0
    return (rep_out.matrix(g) @ W - W @ rep_in.matrix(g)).abs().max().item()


# Representations ----------------------------------------------------------------------------------


@few
@given(rep=reps, seed=st.integers(0, 2**31 - 1))
def test_a_representation_keeps_products_and_its_algebra_is_the_derivative(rep, seed):
    group = groups.SO(3)
    g, h = group.sample(2, generator=seeded(seed))
    assert torch.allclose(rep.matrix(g @ h), rep.matrix(g) @ rep.matrix(h), atol=1e-12)
    A = group.generators()[seed % 3]
    assert torch.allclose(
        rep.matrix(torch.matrix_exp(A)), torch.matrix_exp(rep.algebra(A)), atol=1e-11
    )
    assert rep.matrix(g).shape[-1] == rep.size(3)


def test_the_order_of_entries():
    g = groups.SO(2).sample(generator=seeded(0))
    M = (SCALAR + 2 * V + T(2)).matrix(g)
    v, w = torch.tensor([1.0, 2.0]).double(), torch.tensor([3.0, -1.0]).double()
    x = torch.cat([torch.tensor([7.0]).double(), v, w, torch.outer(v, w).flatten()])
    moved = torch.cat([x[:1], g @ v, g @ w, (g @ torch.outer(v, w) @ g.mT).flatten()])
    assert torch.allclose(M @ x, moved)


def test_sums_of_representations():
    assert Rep((1, 3)) == 2 * V + SCALAR + V
    assert T(2) == Rep((0, 0, 1))
    assert Rep((1, 0, 0)) == SCALAR
    assert (3 * SCALAR + 4 * V + T(2)).size(3) == 24
    batch = groups.O(3).sample(2, 4, generator=seeded(0))
    assert (SCALAR + V).matrix(batch).shape == (2, 4, 4, 4)


# The null space -----------------------------------------------------------------------------------


@few
@given(which=st.integers(0, len(ALL) - 1), rep_in=reps, rep_out=reps, seed=st.integers(0, 2**31))
def test_basis_is_orthonormal_equivariant_and_solves_the_constraint(which, rep_in, rep_out, seed):
    group = ALL[which]
    W = equivariant_basis(rep_in, rep_out, group)
    rows = W.flatten(1)
    assert torch.allclose(rows @ rows.mT, torch.eye(len(W)).double(), atol=1e-12)
    assert len(W) == dimension(rep_in, rep_out, group)
    for g in group.sample(3, generator=seeded(seed)):
        assert error(W, rep_in, rep_out, g) < 1e-12
    C = constraint(rep_in, rep_out, group)
    if rows.numel():
        assert C.numel() == 0 or (C @ rows.mT).abs().max() < 1e-12
    if C.numel():
        assert rows.shape[1] - torch.linalg.matrix_rank(C) == len(W)


@few
@given(which=st.integers(0, len(AVERAGED) - 1), rep_in=reps, rep_out=reps)
def test_dimension_is_the_mean_of_the_characters(which, rep_in, rep_out):
    group = AVERAGED[which]
    counted = dimension_by_characters(rep_in, rep_out, group)
    assert abs(counted - dimension(rep_in, rep_out, group)) < 1e-9


@pytest.mark.parametrize("group", AVERAGED, ids=repr)
def test_the_averaging_projector_is_the_same_space(group):
    rep_in, rep_out = SCALAR + V, V + T(2)
    rows = equivariant_basis(rep_in, rep_out, group).flatten(1)
    P = averaging_projector(rep_in, rep_out, group)
    assert torch.allclose(rows.mT @ rows, P, atol=1e-12)


# Closed forms -------------------------------------------------------------------------------------


def test_isotropic_tensors():
    assert [len(invariant_tensors(groups.O(3), r)) for r in range(7)] == [1, 0, 1, 0, 3, 0, 15]
    assert [len(invariant_tensors(groups.SO(3), r)) for r in range(7)] == [1, 0, 1, 1, 3, 6, 15]
    # Brauer: pairings, as long as the dimension is at least half the rank
    assert [len(invariant_tensors(groups.O(d), 4)) for d in (1, 2, 3, 4)] == [1, 3, 3, 3]


def test_of_rank_three_the_levi_civita_symbol():
    eps = invariant_tensors(groups.SO(3), 3).reshape(3, 3, 3)
    expected = torch.zeros(3, 3, 3).double()
    for i, j, k, sign in [(0, 1, 2, 1), (1, 2, 0, 1), (2, 0, 1, 1)]:
        expected[i, j, k], expected[i, k, j] = sign, -sign
    assert torch.allclose(eps, expected / math.sqrt(6), atol=1e-12)


def test_permutations_give_bell_numbers():
    assert [len(invariant_tensors(finite.Symmetric(4), r)) for r in range(5)] == [1, 1, 2, 5, 15]
    # of a set of 2 there are only partitions into at most 2 parts: 2^(r - 1)
    assert [len(invariant_tensors(finite.Symmetric(2), r)) for r in range(1, 5)] == [1, 2, 4, 8]


def test_vector_to_vector():
    one = torch.eye(3).double()
    assert torch.allclose(equivariant_basis(V, V, groups.O(3)), one[None] / math.sqrt(3))
    assert len(equivariant_basis(V, SCALAR, groups.O(3))) == 0
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]]).double()
    both = torch.stack([torch.eye(2).double(), turn]) / math.sqrt(2)
    assert torch.allclose(equivariant_basis(V, V, groups.SO(2)), both, atol=1e-12)
    assert torch.allclose(equivariant_basis(V, V, groups.O(2)), both[:1], atol=1e-12)


def test_permutation_equivariant_maps_are_identity_and_mean():
    n = 4
    W = equivariant_basis(V, V, finite.Symmetric(n)).flatten(1)
    one, ones = torch.eye(n).double().flatten(), torch.ones(n * n).double()
    for target in (one, ones):
        assert torch.allclose(W.mT @ (W @ target), target, atol=1e-12)
    assert len(W) == 2


def test_shift_equivariant_maps_are_circulant():
    n = 5
    W = equivariant_basis(V, V, finite.Cyclic(n))
    assert len(W) == n
    i, j = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    for w in W:
        assert torch.allclose(w, w[(i - j) % n, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("group", "counts"),
    [
        (PENDULUM[0], [1, 1, 2, 4, 10, 26, 71]),
        (PENDULUM[1], [1, 1, 3, 7, 19, 51, 141]),
        (PENDULUM[2], [1, 1, 3, 7, 21, 61, 183]),
        (PENDULUM[3], [1, 1, 2, 4, 10, 26, 72]),
    ],
    ids=repr,
)
def test_counts_of_the_pendulum_s_groups(group, counts):
    assert [len(invariant_tensors(group, r)) for r in range(7)] == counts


def test_the_basis_is_canonical():
    """Gram and Schmidt on projections: another basis of the algebra gives the same tensors."""

    class Tilted(groups.SO):
        def sympy_generators(self):
            A, B, C = super().sympy_generators()
            return [A + 2 * B, B - C, C]

    for rank in (2, 3, 4):
        a, b = (invariant_tensors(g, rank) for g in (groups.SO(3), Tilted(3)))
        assert torch.allclose(a, b, atol=1e-12)


def test_a_missing_generator_leaves_too_much():
    """Without its reflection the constraint of O(2) is that of SO(2)."""

    class Unreflected(groups.O):
        def sympy_discrete(self):
            return []

    W = equivariant_basis(V, V, Unreflected(2))
    assert len(W) == 2
    mirror = groups.O(2).discrete()[0]
    assert error(W, V, V, mirror) > 0.5


# Errors -------------------------------------------------------------------------------------------


class Blurred(Group):
    """Generators that are not quite those of a group."""

    @property
    def dim(self) -> int:
        return 0

    def sympy_generators(self):
        return []

    def discrete(self, dtype=torch.float64):
        turn = groups.SO(2).exp(torch.tensor([1e-6], dtype=dtype))
        return torch.stack([turn, groups.O(2).discrete()[0]])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: invariant_tensors(groups.Lorentz(4), 2), "not a group of orthogonal"),
        (lambda: invariant_tensors(groups.Translation(3), 2), "not a group of orthogonal"),
        (lambda: invariant_tensors(Blurred(2), 1), "singular value"),
        (lambda: Rep((1, -1)), "whole numbers"),
        (lambda: dimension_by_characters(V, V, groups.O(3)), "no design"),
        (lambda: averaging_projector(V, V, groups.SO(3)), "no design"),
    ],
)
def test_errors(make, says):
    with pytest.raises(ValueError, match=says):
        make()
