"""Prices of beliefs, against what linear algebra says they are."""

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from companion import beliefs, groups
from companion.experiments import _comparison_models as models
from companion.experiments import _comparison_worlds as worlds
from companion.phase_space import omega

seeds = st.integers(0, 2**31)


def drawn(seed):
    return torch.Generator().manual_seed(seed)


def linear(seed, k):
    M = torch.randn(k, k, generator=drawn(seed), dtype=torch.float64)
    return M, lambda z: z @ M.mT


def planes(T):
    """The same matrix on the positions and momenta of one particle."""
    return torch.block_diag(T, T)


def by_matrix(T, z, rate):
    return z @ T.mT, rate @ T.mT


@given(seeds)
def test_price_of_a_finite_group_is_the_distance_from_its_commutant(seed):
    """The quarter turns: every element once at every state, and a law that they keep."""
    M, f = linear(seed, 4)
    turn = planes(torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64))
    group = [torch.linalg.matrix_power(turn, k) for k in range(4)]
    z = torch.randn(50, 4, generator=drawn(seed + 1), dtype=torch.float64)
    z = torch.cat([z @ T.mT for T in group])  # invariant by construction
    price = sum(beliefs.price_of_symmetry(f, z, partial(by_matrix, T)) for T in group) / 4
    RM = sum(T.mT @ M @ T for T in group) / 4
    wanted = (z @ (M - RM).mT).square().sum() / (z @ M.mT).square().sum()
    torch.testing.assert_close(price, wanted, rtol=1e-9, atol=1e-12)


@given(seeds)
def test_price_of_an_energy_is_the_distance_from_the_hamiltonian_matrices(seed):
    """Least squares over all symmetric S of |M - Omega S|, a solver that knows no projection."""
    M, f = linear(seed, 4)
    S = torch.zeros(16, 10, dtype=torch.float64)
    for k, (i, j) in enumerate(torch.triu_indices(4, 4).T.tolist()):
        E = torch.zeros(4, 4, dtype=torch.float64)
        E[i, j] = E[j, i] = 1
        S[:, k] = (omega(2).double() @ E).flatten()
    rest = M.flatten() - S @ torch.linalg.lstsq(S, M.flatten()).solution
    price = beliefs.price_of_energy(f, torch.randn(3, 4, dtype=torch.float64))
    torch.testing.assert_close(price, rest.square().sum() / M.square().sum())


def test_half_of_drag_is_an_energy():
    """(q, p) -> (0, -p): the price is 1/2."""
    price = beliefs.price_of_energy(
        lambda z: torch.cat([0 * z[..., :3], -z[..., 3:]], -1), torch.randn(5, 6)
    )
    torch.testing.assert_close(price, torch.tensor(0.5))


@pytest.mark.parametrize("name", worlds.WORLDS)
def test_true_beliefs_are_free_and_wrong_ones_are_not(name):
    world = worlds.WORLDS[name]
    z = world.typical[::37]
    element = world.elements(len(z), drawn(1))
    if world.turns or world.shifts or world.swaps:
        move = partial(world.moved, element=element)
        assert beliefs.price_of_symmetry(world.flow, z, move) < 1e-20
    price = beliefs.price_of_energy(world.flow, z)
    assert (1e-7 < price < 0.1) if world.drag else price < 1e-20


def test_magnet_tells_turns_from_mirrors():
    world = worlds.WORLDS["magnetic"]
    z = world.typical[::37]
    R = groups.SO(2).sample(len(z), generator=drawn(0))
    mirror = torch.tensor([1.0, -1.0], dtype=R.dtype).diag()
    none = torch.zeros(len(z), 2, dtype=R.dtype), torch.zeros(len(z), 1, dtype=torch.long)
    prices = [
        beliefs.price_of_symmetry(world.flow, z, partial(world.moved, element=(Q, *none)))
        for Q in (R, R @ mirror)
    ]
    assert prices[0] < 1e-20
    assert prices[1] > 1e-3


@pytest.mark.parametrize("model", ["plain", "hnn", "scalars", "scalars-hnn", "emlp", "unitary"])
def test_untrained_networks_hold_what_they_promise(model):
    world = worlds.WORLDS["two_body"]
    net = models.network(world, model, 16, range(2)).double()
    f, z = models.field(world, net), world.typical[::97].expand(2, -1, -1)
    element = world.elements(z.shape[1], drawn(2))

    def move(z, rate):
        pairs = [world.moved(*pair, element) for pair in zip(z, rate, strict=True)]
        return torch.stack([a for a, _ in pairs]), torch.stack([b for _, b in pairs])

    turning, energy = beliefs.price_of_symmetry(f, z, move), beliefs.price_of_energy(f, z)
    assert turning.shape == energy.shape == (2,)
    assert (turning < 1e-16).all() == (model not in ("plain", "hnn"))
    assert (energy < 1e-16).all() == model.endswith("hnn")


def test_bad_input_is_refused():
    z = torch.randn(4, 2)
    with pytest.raises(ValueError, match="several states"):
        beliefs.price_of_symmetry(lambda z: z, z[0], lambda z, r: (z, r))
    with pytest.raises(ValueError, match="move returned"):
        beliefs.price_of_symmetry(lambda z: z, z, lambda z, r: (z[:1], r))
    with pytest.raises(ValueError, match="zero at all states"):
        beliefs.price_of_symmetry(lambda z: 0 * z, z, lambda z, r: (z, r))
    with pytest.raises(ValueError, match="f returned"):
        beliefs.price_of_symmetry(lambda z: z[..., :1], z, lambda z, r: (z, r))
    with pytest.raises(ValueError, match=r"expected \(\.\.\., B, 2d\)"):
        beliefs.price_of_energy(lambda z: z, torch.randn(4, 3))
    with pytest.raises(ValueError, match="the same at all states"):
        beliefs.price_of_energy(lambda z: 0 * z + 1, z)
