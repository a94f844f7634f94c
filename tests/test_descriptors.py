"""companion.descriptors: eqs. 31-34, and the models on them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion import groups, training
from companion.descriptors import (
    DescriptorForces,
    Descriptors,
    EnergyForces,
    LinearForces,
    Surroundings,
)
from companion.neighbours import neighbours
from companion.systems.argon import Argon

few = settings(deadline=None, max_examples=8)
numbers = st.integers(0, 2**31 - 1)
dtypes = st.sampled_from([torch.float32, torch.float64])
TOLERANCE = {torch.float32: 3e-4, torch.float64: 1e-11}
EVERY = ["linear", "descriptor", "energy", "with pairs"]
every = st.sampled_from(EVERY)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def atoms(N=4, n=5, seed=0, dtype=torch.float64):
    """Configurations no closer than argon comes, `(n, N, 3)`."""
    return Argon(N).sample(n, seeded(seed)).to(dtype)


def model(kind, dtype=torch.float64, cutoff=9.0, seeds=2, **options):
    """Random weights, units set; the K coefficients of the linear model are random too."""
    D = Descriptors(8, cutoff, dtype=dtype)
    if kind == "linear":
        net = LinearForces(D, seeds=seeds)
        for p, seed in zip(net.coefficients.data, net.seeds, strict=True):
            p.copy_(torch.randn(8, generator=seeded(seed)))
        return net
    if kind == "descriptor":
        net = DescriptorForces(D, (6, 5), seeds=seeds, **options)
    else:
        net = EnergyForces(D, (6, 5), lengths=3, seeds=seeds, pair=kind == "with pairs", **options)
        if net.pair is not None:
            for p, seed in zip(net.pair.data, net.seeds, strict=True):
                p.copy_(torch.randn(8, generator=seeded(seed)))
    r = atoms(4, 50, 9, dtype)
    net.standardise(r, Argon(4).forces(r))
    return net


def close(x, y, dtype):
    """Whether they agree to the rounding of the dtype, in units of the largest entry."""
    return (x - y).abs().max() <= TOLERANCE[dtype] * y.abs().max()


# The descriptors -----------------------------------------------------------------------------


def test_scalars_and_vectors_are_the_sums_of_the_paper():
    D, r = Descriptors(5, 9.0, dtype=torch.float64), atoms(4, 2)
    G, V = torch.zeros(2, 4, 5, dtype=torch.float64), torch.zeros(2, 4, 3, 5, dtype=torch.float64)
    for i in range(4):
        for j in set(range(4)) - {i}:
            x = r[:, j] - r[:, i]
            d = x.norm(dim=-1, keepdim=True)
            f = torch.where(d < 9, (1 - (d / 9) ** 2) ** 3, 0)
            phi = torch.exp(-D.eta * (d - D.centres) ** 2) * f
            G[:, i] += phi
            V[:, i] += (x / d)[..., None] * phi[:, None]
    torch.testing.assert_close(D.scalars(r), G)
    torch.testing.assert_close(D.vectors(r), V)


def test_centres_are_even_in_the_inverse_distance():
    D = Descriptors(6, 12.0, 2.0, 10.0, dtype=torch.float64)
    torch.testing.assert_close(D.centres[[0, -1]], torch.tensor([2.0, 10.0], dtype=torch.float64))
    steps = (1 / D.centres).diff()
    torch.testing.assert_close(steps, steps[:1].expand(5))
    width = (D.centres[2:] - D.centres[:-2]) / 2
    torch.testing.assert_close(D.eta[1:-1], 1 / (2 * width**2))


def test_the_cutoff_is_twice_continuously_differentiable():
    D = Descriptors(6, 8.0, dtype=torch.float64)
    derivatives = []
    for d in (8 - 1e-4, 8.0, 8 + 1e-4):
        d = torch.tensor(d, dtype=torch.float64, requires_grad=True)
        value = D.radial(d)[0].sum()
        (first,) = torch.autograd.grad(value, d, create_graph=True)
        (second,) = torch.autograd.grad(first, d, create_graph=True)
        (third,) = torch.autograd.grad(second, d)
        derivatives.append([x.item() for x in (value, first, second, third)])
    inside, at, outside = derivatives
    assert outside == [0, 0, 0, 0]
    assert at[:3] == [0, 0, 0]
    assert abs(inside[0]) < 1e-11
    assert abs(inside[1]) < 1e-7
    assert abs(inside[2]) < 1e-3
    assert abs(inside[3]) > 0.05  # the third one jumps


def test_the_slope_of_the_radial_functions():
    D = Descriptors(6, 8.0, dtype=torch.float64)
    d = torch.linspace(2, 10, 50, dtype=torch.float64, requires_grad=True)
    value, slope = D.radial(d)
    for k in range(6):
        (found,) = torch.autograd.grad(value[:, k].sum(), d, retain_graph=True)
        torch.testing.assert_close(slope[:, k], found)


@few
@given(numbers, dtypes)
def test_descriptors_under_relabelling_rotation_and_translation(seed, dtype):
    D, r = Descriptors(6, 9.0, dtype=dtype), atoms(5, 3, seed, dtype)
    pi = torch.randperm(5, generator=seeded(seed))
    g = groups.O(3).sample(generator=seeded(seed), dtype=dtype)
    shift = torch.tensor([3.0, -2.0, 1.0], dtype=dtype)
    G, V = D.scalars(r), D.vectors(r)
    assert close(D.scalars(r[:, pi] @ g.mT + shift), G[:, pi], dtype)
    assert close(D.vectors(r[:, pi] @ g.mT + shift), g @ V[:, pi], dtype)


# All models ----------------------------------------------------------------------------------


@few
@given(every, numbers, dtypes, st.integers(2, 6))
def test_relabelled_atoms_get_relabelled_forces(kind, seed, dtype, N):
    net, r = model(kind, dtype, seeds=[seed, seed + 1]), atoms(N, 3, seed, dtype)
    pi = torch.randperm(N, generator=seeded(seed))
    F = net.forces(r)
    assert F.shape == (2, 3, N, 3)
    assert close(net.forces(r[:, pi]), F[:, :, pi], dtype)
    if N > 2:
        assert not close(F[:, :, pi.roll(1)], F[:, :, pi], dtype)


@few
@given(every, numbers, dtypes)
def test_forces_turn_and_reflect_and_do_not_see_translations(kind, seed, dtype):
    net, r = model(kind, dtype, seeds=[seed]), atoms(4, 3, seed, dtype)
    g = groups.O(3).sample(generator=seeded(seed), dtype=dtype)
    F = net.forces(r)
    assert close(net.forces(r @ g.mT), F @ g.mT, dtype)
    assert close(net.forces(-r), -F, dtype)
    assert close(net.forces(r + torch.tensor([3.0, -2.0, 1.0], dtype=dtype)), F, dtype)


@few
@given(every, numbers, dtypes)
def test_the_forces_add_up_to_zero(kind, seed, dtype):
    F = model(kind, dtype, seeds=[seed]).forces(atoms(5, 5, seed, dtype))
    assert F.sum(2).abs().max() <= 100 * torch.finfo(dtype).eps * F.abs().max()


def test_without_momentum_the_descriptor_forces_have_a_sum():
    r = atoms(4, 5)
    F = model("descriptor", momentum=False).forces(r)
    assert F.sum(2).abs().max() > 1e-3 * F.abs().max()
    torch.testing.assert_close(
        model("descriptor").forces(r), F - F.mean(2, keepdim=True), atol=1e-14, rtol=1e-12
    )


@few
@given(st.sampled_from(["linear", "energy", "with pairs"]), numbers, dtypes)
def test_gradients_of_an_energy_have_no_torque(kind, seed, dtype):
    r = atoms(5, 5, seed, dtype)
    F = model(kind, dtype, seeds=[seed]).forces(r)[0]
    torque = torch.linalg.cross(r, F, dim=-1).sum(1)
    assert torque.abs().max() <= TOLERANCE[dtype] * F.abs().max() * r.abs().max()


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("cutoff", [5.0, 9.0])
def test_pairs_within_the_cutoff_give_the_same_as_all_pairs(kind, cutoff):
    net = model(kind, cutoff=cutoff)
    r = (
        3 * torch.rand(30, 3, generator=seeded(0), dtype=torch.float64) ** 0.3
        + torch.cartesian_prod(torch.arange(5), torch.arange(3), torch.arange(2)) * 4.0
    )
    pairs = neighbours(r, cutoff)
    assert 0 < len(pairs) < 30 * 29 / 2
    torch.testing.assert_close(net.forces(r[None], pairs), net.forces(r[None]))
    more = neighbours(r, cutoff + 1)  # as a list with a skin has them
    torch.testing.assert_close(net.forces(r[None], more), net.forces(r[None]))
    fewer = pairs[: len(pairs) // 2]
    assert not torch.allclose(net.forces(r[None], fewer), net.forces(r[None]))
    if hasattr(net, "energy"):
        torch.testing.assert_close(net.energy(r[None], pairs), net.energy(r[None]))


@pytest.mark.parametrize("kind", EVERY)
def test_forces_at_the_cutoff(kind):
    """They fade out smoothly; those of unit vectors of the descriptors do not, and the docs say."""
    r = torch.zeros(3, 2, 3, dtype=torch.float64)
    r[:, 1, 0] = torch.tensor([8.999, 9.0, 9.001])
    F = model(kind).forces(r)[0, :, 0, 0]
    assert F[1] == F[2] == 0
    if kind == "descriptor":
        assert abs(F[0]) > 1e-3
    else:
        assert 0 < abs(F[0]) < 1e-6


def test_forces_of_rounded_unit_vectors_fade_at_the_cutoff():
    r = torch.zeros(3, 2, 3, dtype=torch.float64)
    r[:, 1, 0] = torch.tensor([8.99, 8.999, 9.0])
    F = model("descriptor", epsilon=1.0).forces(r)[0, :, 0, 0].tolist()
    assert F[2] == 0
    assert 0 < abs(F[1]) < 1e-4  # as the cubic that the cutoff is there
    assert F[0] / F[1] == pytest.approx(1000, rel=0.05)


@pytest.mark.parametrize("kind", EVERY)
def test_members_never_mix_and_keep_takes_one(kind):
    net, r = model(kind, seeds=[3, 4, 5]), atoms(4, 6)
    F = net.forces(r)
    torch.testing.assert_close(model(kind, seeds=[4]).forces(r)[0], F[1])
    own = torch.stack([r, r + 0.1 * r.sin(), r.flip(-1)])  # each member its own configurations
    torch.testing.assert_close(net.forces(own)[2], net.forces(r.flip(-1))[2])
    gradients = torch.autograd.grad(F[0].square().sum(), list(net.parameters()))
    assert all(g[0].abs().max() > 0 for g in gradients[:2])
    assert all((g[1:] == 0).all() for g in gradients)
    size = net.size
    net.keep(1)
    assert (net.seeds, net.S, net.size) == ([4], 1, size)
    torch.testing.assert_close(net.forces(r)[0], F[1])


# Linear forces -------------------------------------------------------------------------------


def test_every_pair_potential_is_linear_in_the_descriptors():
    """Least squares finds coefficients that made the data, and Lennard-Jones to 1e-6 eV/A."""
    D, r = Descriptors(8, 12.0, dtype=torch.float64), atoms(4, 200)
    net = LinearForces(D, seeds=2)
    known = torch.randn(8, generator=seeded(0), dtype=torch.float64)
    F = (D.vectors(r) * known).sum(-1)
    net.least_squares(r, F)
    torch.testing.assert_close(net.coefficients.data, known.expand(2, -1))
    net = LinearForces(Descriptors(32, 25.0, last=20.0))
    r, test = atoms(4, 2000, 1, torch.float32), atoms(4, 500, 2)
    net.least_squares(r, Argon(4).forces(r))
    error = net.double().forces(test) - Argon(4).forces(test)
    assert error.square().mean().sqrt() < 1e-6


def test_the_pairs_of_an_energy_start_at_the_best_fit_by_pairs():
    r, test = atoms(4, 2000, 1), atoms(4, 500, 2)
    D = Descriptors(32, 25.0, last=20.0, dtype=torch.float64)
    net = EnergyForces(D, (4,), pair=True)
    net.core.output.data.zero_()
    net.standardise(r, Argon(4).forces(r))
    error = net.forces(test) - Argon(4).forces(test)
    assert error.square().mean().sqrt() < 1e-5


def test_functions_of_distances_that_are_not_in_the_data_stay_at_zero():
    r = atoms(2, 500, 1)
    r[:, 1] = r[:, 0] + torch.tensor([1.0, 0, 0]) * torch.linspace(3, 5, 500)[:, None]
    net = LinearForces(Descriptors(32, 25.0, last=20.0, dtype=torch.float64))
    net.least_squares(r, Argon(2).forces(r))
    assert net.coefficients[0, net.descriptors.centres > 8].abs().max() < 1e-3


def test_linear_forces_cannot_be_a_three_body_force():
    r, test = atoms(4, 2000, 1), atoms(4, 500, 2)
    system = Argon(4, nu=4600.0)
    three = system.forces(test) - Argon(4).forces(test)
    net = LinearForces(Descriptors(32, 25.0, last=20.0, dtype=torch.float64))
    net.least_squares(r, system.forces(r))
    error = net.forces(test) - system.forces(test)
    assert error.square().mean() > 0.5 * three.square().mean()


# Energies ------------------------------------------------------------------------------------


@few
@given(st.sampled_from(["energy", "with pairs"]), numbers, st.integers(2, 6))
def test_forces_are_minus_the_gradient_of_the_energy(kind, seed, N):
    net, r = model(kind, seeds=[seed, seed + 1]), atoms(N, 3, seed).requires_grad_()
    F = net.forces(r)
    for s in range(2):
        (slope,) = torch.autograd.grad(net.energy(r)[s].sum(), r, retain_graph=True)
        torch.testing.assert_close(F[s], -slope, atol=1e-12, rtol=1e-9)


def test_only_gradients_have_no_curl():
    """The derivative of the forces is symmetric for the energy, and not for the descriptors."""
    r = atoms(4, 1)

    def asymmetry(net):
        J = torch.autograd.functional.jacobian(lambda x: net.forces(x)[0].flatten(), r)
        J = J.reshape(12, 12)
        return (J - J.T).abs().max() / J.abs().max()

    assert asymmetry(model("energy")) < 1e-12
    assert asymmetry(model("linear")) < 1e-12
    assert asymmetry(model("with pairs")) < 1e-12
    assert asymmetry(model("descriptor")) > 1e-3


@few
@given(numbers, dtypes)
def test_the_energy_is_invariant_and_adds_up_over_distant_clusters(seed, dtype):
    net, r = model("energy", dtype, seeds=[seed]), atoms(5, 3, seed, dtype)
    pi = torch.randperm(5, generator=seeded(seed))
    g = groups.O(3).sample(generator=seeded(seed), dtype=dtype)
    shift = torch.tensor([3.0, -2.0, 1.0], dtype=dtype)
    E = net.energy(r)
    assert close(net.energy(r[:, pi] @ g.mT + shift), E, dtype)
    apart = torch.cat([r, r.flip(0) + torch.tensor([100.0, 0, 0], dtype=dtype)], 1)
    assert close(net.energy(apart), E + E.flip(1), dtype)


def test_the_energy_is_no_sum_over_pairs():
    net, r = model("energy"), atoms(3, 4)
    lone = net.energy(r[:, :1].expand(-1, 2, -1) + torch.tensor([[0.0], [50.0]])) / 2
    pairs = [net.energy(r[:, [i, j]]) - 2 * lone for i, j in ((0, 1), (0, 2), (1, 2))]
    assert not close(torch.stack(pairs).sum(0) + 3 * lone, net.energy(r), torch.float32)


@pytest.mark.parametrize("make", [LinearForces, DescriptorForces, EnergyForces])
def test_a_model_has_descriptors_of_its_own(make):
    D = Descriptors(4)
    make(D).double()
    assert D.centres.dtype == torch.float32


def test_standardised_features_have_no_mean_and_one_spread():
    net, r = model("energy"), atoms(4, 50, 9)
    around = Surroundings(r.expand(2, -1, -1, -1), None)
    x, _, _ = net._features(around, net.descriptors.radial(around.d)[0])
    x = net.core._scaled(x.flatten(1, 2))
    assert x.mean(1).abs().max() < 1e-10
    torch.testing.assert_close(x.std(1), torch.ones(2, 11, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["descriptor", "energy"])
def test_a_model_learns_argon(kind):
    D, r = Descriptors(16, 15.0), atoms(4, 500, 1, torch.float32)
    F = Argon(4).forces(r)
    net = (DescriptorForces if kind == "descriptor" else EnergyForces)(D, (16,), seeds=2)
    net.standardise(r, F)

    def loss(net, r, F):
        return (net.forces(r) - F).square().mean((1, 2, 3))

    def batch(step):
        rows = torch.randint(500, (64,), generator=seeded(step))
        return r[rows], F[rows]

    training.fit(net, loss, batch, steps=200, lr=1e-2, warmup=10, progress=False)
    assert (loss(net, r, F) < 0.1 * F.square().mean()).all()


# What is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"K": 1},
        {"first": 0.0},
        {"first": 13.0},
        {"last": 13.0},
        {"last": 2.0},
    ],
)
def test_descriptors_that_cannot_be_are_refused(options):
    with pytest.raises(ValueError, match="expected K >= 2 and 0 < first < last <= cutoff"):
        Descriptors(**options)


def test_models_that_cannot_be_are_refused():
    D = Descriptors(4)
    for make in (LinearForces, DescriptorForces, EnergyForces):
        with pytest.raises(ValueError, match="expected 1 or more members"):
            make(D, seeds=[])
    for options in ({"hidden": ()}, {"hidden": (3, 0)}, {"lengths": 0}):
        with pytest.raises(ValueError, match="at least one width, and 1 or more everywhere"):
            EnergyForces(D, **options)
    with pytest.raises(ValueError, match="activation 'relu' is not known"):
        EnergyForces(D, activation="relu")


@pytest.mark.parametrize("kind", EVERY)
def test_bad_positions_and_pairs_are_refused(kind):
    net, r = model(kind), atoms(4, 2)
    with pytest.raises(ValueError, match=r"float32.*float64.*convert"):
        net.forces(r.float())
    with pytest.raises(ValueError, match="positions of N atoms in angstrom"):
        net.forces(r[..., :2])
    with pytest.raises(ValueError, match="at least 2 atoms"):
        net.forces(r[:, :1])
    for pairs in (torch.tensor([0, 1]), torch.tensor([[0.0, 1.0]]), torch.tensor([[0, 1, 2]])):
        with pytest.raises(ValueError, match=r"expected whole numbers\s+\(P, 2\)"):
            net.forces(r, pairs)
    for pairs in (torch.tensor([[0, 4]]), torch.tensor([[-1, 2]]), torch.tensor([[2, 2]])):
        with pytest.raises(ValueError, match="two different atoms from 0 to 3"):
            net.forces(r, pairs)
    nothing = net.forces(r, torch.empty(0, 2, dtype=torch.long))
    assert (nothing == 0).all()
