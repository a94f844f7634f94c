"""Argon: energy and forces against ASE and finite differences, motion, sampling, refusals."""

import numpy as np
import pytest
import sympy
import torch
from ase import Atoms
from ase.calculators.lj import LennardJones
from ase.md.verlet import VelocityVerlet
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import constants

from companion import groups
from companion.systems import argon
from companion.systems.argon import Argon, relative

SEEDS = st.integers(0, 10**6)
NU = argon.NU


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ase_atoms(r, box=None, **options) -> Atoms:
    atoms = Atoms(f"Ar{len(r)}", positions=r.numpy(), cell=box and [box] * 3, pbc=box is not None)
    atoms.set_masses([argon.MASS] * len(r))
    atoms.calc = LennardJones(epsilon=argon.EPSILON, sigma=argon.R_0, **options)
    return atoms


def distances(r, box=None):
    d = relative(r)
    d = d if box is None else d - box * (d / box).round()
    return d.norm(dim=-2)


def agrees(system, r, atoms, tolerance=1e-10):
    assert abs(float(system.energy(r)) - atoms.get_potential_energy()) < tolerance
    assert np.abs(system.forces(r).numpy() - atoms.get_forces()).max() < tolerance


# The formulas -------------------------------------------------------------------------------------


def test_constants():
    """Against scipy's CODATA; the Axilrod-Teller strength against Kumar and Meath's 518.3 a.u."""
    electron_volt = constants.electron_volt
    assert pytest.approx(constants.k / electron_volt, rel=1e-15) == argon.KB
    newton = electron_volt / constants.angstrom / constants.atomic_mass
    assert pytest.approx(newton / constants.angstrom * 1e-30, rel=1e-7) == argon.ACCELERATION
    hartree = constants.value("Hartree energy in eV")
    bohr = constants.value("Bohr radius") / constants.angstrom
    assert pytest.approx(518.3 * hartree * bohr**9, rel=0.01) == argon.NU


def test_the_pair_potential_is_equation_37():
    system = Argon()
    U, r = system.pair, system.r
    assert abs(U.subs(r, argon.R_0)) < 1e-15
    least = 2 ** (1 / 6) * argon.R_0
    assert abs(U.diff(r).subs(r, least)) < 1e-15
    assert float(U.subs(r, least)) == pytest.approx(-argon.EPSILON, rel=1e-14)


def test_the_triple_potential_is_axilrod_and_tellers():
    """An equilateral triangle has 11/8 nu/a^9, three atoms in a row -2 nu/(a b c)^3."""
    system = Argon(3, nu=2.0)
    a, b, c = system.sides
    flat = sympy.nsimplify(system.triple)
    assert sympy.simplify(flat.subs({b: a, c: a}) - sympy.Rational(11, 4) / a**9) == 0
    row = flat.subs(c, a + b)
    assert sympy.simplify(row + 4 / (a * b * (a + b)) ** 3) == 0


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(2, 12))
def test_energy_and_forces_are_ases(seed, N):
    r = Argon(N).sample(1, generator(seed))[0]
    agrees(Argon(N), r, ase_atoms(r, rc=1e3, smooth=False))


@settings(max_examples=8, deadline=None)
@given(SEEDS, st.sampled_from([(30, 8.5, None), (40, 6.0, 13.0), (40, 8.5, 17.5)]))
def test_with_a_cutoff_they_are_ases_smooth_ones(seed, case):
    N, cutoff, box = case
    system = Argon(N, cutoff=cutoff, box=box)
    r = system.sample(1, generator(seed))[0]
    agrees(system, r, ase_atoms(r, box, rc=cutoff, ro=0.66 * cutoff, smooth=True))


CASES = [
    Argon(4),
    Argon(4, nu=NU),
    Argon(7, nu=NU),
    Argon(12, nu=NU, cutoff=7.0),
    Argon(30, nu=NU, cutoff=5.0, box=15.5),
    Argon(20, cutoff=5.0, box=13.0),
]


@pytest.mark.parametrize("system", CASES, ids=repr)
def test_forces_are_minus_the_gradient(system):
    """Against autograd, and against central differences of the energy."""
    r = system.sample(1, generator(3))[0]
    free = r.clone().requires_grad_()
    gradient = torch.autograd.grad(system.energy(free), free)[0]
    F = system.forces(r)
    scale = float(F.abs().max())
    assert torch.allclose(F, -gradient, atol=1e-13 * scale, rtol=0)
    h = 1e-5
    for i, k in [(0, 0), (1, 2), (system.N - 1, 1)]:
        step = torch.zeros_like(r)
        step[i, k] = h
        slope = (system.energy(r + step) - system.energy(r - step)) / (2 * h)
        assert abs(float(F[i, k] + slope)) < 1e-7 * max(scale, 1.0)


def test_three_bodies_by_hand():
    """The triple sum, written as loops over sympy's expression."""
    system, pairs = Argon(5, nu=NU), Argon(5)
    r = system.sample(1, generator(1))[0]
    total = 0.0
    for i in range(5):
        for j in range(i + 1, 5):
            for k in range(j + 1, 5):
                sides = [float((r[p] - r[q]).norm()) for p, q in ((i, j), (j, k), (k, i))]
                total += float(system.triple.subs(dict(zip(system.sides, sides, strict=True))))
    assert float(system.energy(r) - pairs.energy(r)) == pytest.approx(total, rel=1e-10)


@pytest.mark.parametrize("nu", [0.0, NU])
def test_energy_and_force_end_smoothly_at_the_cutoff(nu):
    """Across the onset and the cutoff nothing jumps, and beyond the cutoff nothing is left."""
    system, cutoff = Argon(3, nu=nu, cutoff=8.0), 8.0

    def at(x):
        far = torch.tensor([[0, 0, 0], [3.9, 0, 0], [0.0, x, 0]], dtype=torch.float64)
        return torch.cat([system.energy(far)[None], system.forces(far).flatten()])

    for edge in (0.66 * cutoff, cutoff):
        assert float((at(edge + 1e-7) - at(edge - 1e-7)).abs().max()) < 1e-8
    three = torch.tensor([[0, 0, 0], [20, 0, 0], [0, 8.01, 0]], dtype=torch.float64)
    assert float(system.energy(three)) == 0
    assert bool((system.forces(three) == 0).all())


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from([(0.0, None), (NU, None), (NU, 7.5)]))
def test_moving_turning_and_renaming(seed, case):
    nu, cutoff = case
    system, g = Argon(5, nu, cutoff), generator(seed)
    r = system.sample(1, g)[0]
    Q = groups.O(3).sample(generator=g)
    shift, names = torch.randn(3, generator=g, dtype=torch.float64), torch.randperm(5, generator=g)
    there = (r @ Q.T + shift)[names]
    assert torch.allclose(system.energy(there), system.energy(r), rtol=1e-10, atol=1e-12)
    expected = (system.forces(r) @ Q.T)[names]
    assert torch.allclose(system.forces(there), expected, rtol=1e-9, atol=1e-12)
    F = system.forces(r)
    scale = float(F.abs().max())
    assert float(F.sum(-2).abs().max()) < 1e-14 * max(1, scale)
    assert float(torch.linalg.cross(r, F).sum(-2).abs().max()) < 1e-12 * max(1, scale)


@pytest.mark.parametrize("system", [Argon(4), Argon(6, nu=NU)], ids=repr)
def test_batches_and_dtypes(system):
    r = system.sample(6, generator()).reshape(2, 3, system.N, 3)
    U, F = system.energy(r), system.forces(r)
    assert U.shape == (2, 3)
    assert torch.allclose(F[1, 2], system.forces(r[1, 2]), atol=1e-15)
    assert torch.allclose(U[1, 2], system.energy(r[1, 2]), atol=1e-15)
    single = system.forces(r.float())
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), F, atol=1e-5 * float(F.abs().max()))


def test_relative_is_equation_40():
    r = torch.randn(2, 4, 3, dtype=torch.float64)
    x = relative(r)
    assert x.shape == (2, 3, 6)
    order = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    for column, (i, j) in enumerate(order):
        assert torch.equal(x[..., column], r[:, j] - r[:, i])


# Motion -------------------------------------------------------------------------------------------


def moving(n=10, temperature=10.0, seed=0, system=None):
    system = system or Argon()
    return system.start.expand(n, -1, -1), system.velocities(n, temperature, generator(seed))


def test_the_trajectory_is_ases():
    """4000 steps of ASE's own velocity Verlet with ASE's own potential."""
    system = Argon()
    r, v = moving(1)
    path = system.rollout(system.forces, r[0], v[0], steps=4000)
    atoms = ase_atoms(r[0], rc=1e3, smooth=False)
    fs = np.sqrt(argon.ACCELERATION)  # in ASE's unit of time; ase.units has CODATA 2014
    atoms.set_velocities(v[0].numpy() / fs)
    VelocityVerlet(atoms, timestep=fs).run(4000)
    assert np.abs(path.r[-1].numpy() - atoms.positions).max() < 1e-11
    assert np.abs(path.v[-1].numpy() - atoms.get_velocities() * fs).max() < 1e-13


def test_energy_momentum_and_angular_momentum_are_kept():
    system = Argon(nu=NU)
    r, v = moving()
    path = system.rollout(system.forces, r, v, steps=2000, every=20)
    assert path.r.shape == path.v.shape == (101, 10, 4, 3)
    assert path.t.tolist() == [20.0 * k for k in range(101)]
    E = system.total_energy(path.r, path.v)
    assert 1e-10 < float((E - E[0]).abs().max()) < 1e-6
    assert float(system.momentum(path.v).abs().max()) < 1e-13
    L = system.angular_momentum(path.r, path.v)
    assert float(L[0].abs().max()) > 0.1
    assert float((L - L[0]).abs().max()) < 1e-12


def test_the_energy_error_of_verlet_is_of_second_order():
    system = Argon()
    r, v = moving(4)

    def error(dt):
        path = system.rollout(system.forces, r, v, dt=dt, steps=round(1600 / dt))
        E = system.total_energy(path.r, path.v)
        return (E - E[0]).abs().amax(0)

    ratio = error(16.0) / error(8.0)
    assert bool(((ratio > 3.2) & (ratio < 4.8)).all()), ratio


def test_backwards_in_time():
    system = Argon()
    r, v = moving(2)
    path = system.rollout(system.forces, r, v, steps=500)
    back = system.rollout(system.forces, path.r[-1], -path.v[-1], steps=500)
    assert torch.allclose(back.r[-1], r, atol=1e-11)


def test_an_ensemble_of_forces_runs_each_its_own():
    system = Argon()
    r, v = moving(3)

    def forces(x):
        scale = torch.tensor([1.0, 1.1], dtype=x.dtype)[:, None, None, None]
        return scale * system.forces(x)

    path = system.rollout(forces, r, v, steps=40)
    assert path.r.shape == (41, 2, 3, 4, 3)
    alone = system.rollout(system.forces, r, v, steps=40)
    assert torch.equal(path.r[:, 0], alone.r)
    assert not torch.allclose(path.r[-1, 1], alone.r[-1], atol=1e-6)


def test_a_periodic_liquid_keeps_its_energy():
    """108 atoms at the density of the liquid; the neighbour list is rebuilt on the way."""
    system = Argon(108, cutoff=7.0, box=17.2)
    v = system.velocities(1, 90.0, generator())[0]
    path = system.rollout(system.forces, system.start, v, dt=4.0, steps=200)
    E = torch.stack([system.total_energy(a, b) for a, b in zip(path.r, path.v, strict=True)])
    assert float((E - E[0]).abs().max()) < 2e-3 * abs(float(E[0]))
    assert 1 < system._list.builds < 100
    assert float(system.momentum(path.v[-1]).abs().max()) < 1e-10


# Initial conditions -------------------------------------------------------------------------------


@given(SEEDS, st.floats(0.5, 300.0), st.integers(2, 30))
def test_the_temperature_is_exact(seed, T, N):
    system = Argon(N)
    v = system.velocities(3, T, generator(seed))
    assert torch.allclose(system.temperature(v), torch.full((3,), T, dtype=v.dtype), rtol=1e-13)
    assert torch.allclose(system.kinetic(v), 1.5 * N * argon.KB * T * torch.ones(3).double())
    assert float(system.momentum(v).abs().max()) < 1e-12


def test_velocities_at_zero_kelvin():
    assert bool((Argon().velocities(2, 0.0, generator()) == 0).all())


def test_kinetic_energy_in_si():
    v = torch.zeros(4, 3, dtype=torch.float64)
    v[0, 0] = 0.01  # 1000 m/s
    joule = 0.5 * argon.MASS * constants.atomic_mass * 1000**2
    expected = joule / constants.electron_volt
    assert float(Argon().kinetic(v)) == pytest.approx(expected, rel=1e-7)


def test_the_papers_data():
    """Spread of a relative coordinate and of a force; REFERENCE: 4.499 A and 0.1301 eV/A."""
    system = Argon()
    r = system.sample(40_000, generator())
    assert float(distances(r).min()) >= 2.8
    assert float(relative(r).std()) == pytest.approx(4.50, abs=0.03)
    assert float(system.forces(r).std()) == pytest.approx(0.130, abs=0.004)


def test_two_thirds_of_the_configurations_are_accepted():
    """Discarding whole configurations is what sample does: its first ones are the accepted."""
    g = generator(5)
    raw = 3 * torch.randn(40_000, 4, 3, generator=g, dtype=torch.float64)
    near = distances(raw).amin(-1)
    accepted = raw[near >= 2.8]
    assert len(accepted) / len(raw) == pytest.approx(0.667, abs=0.01)
    assert torch.equal(Argon().sample(40_000, generator(5))[: len(accepted)], accepted)


@pytest.mark.parametrize(
    "system", [Argon(2), Argon(13), Argon(64, cutoff=8.5), Argon(108, cutoff=7, box=18)], ids=repr
)
def test_samples_keep_their_distance(system):
    r = system.sample(5, generator())
    assert r.shape == (5, system.N, 3)
    assert float(distances(r, system.box).min()) >= 2.8
    assert torch.equal(r, system.sample(5, generator()))


def test_starting_positions():
    paper = [[3, 0, 0.1], [-3, -0.1, 0], [0.1, 2.5, 0], [0, -2.5, -0.1]]
    assert torch.equal(Argon().start, torch.tensor(paper, dtype=torch.float64))
    least = 2 ** (1 / 6) * argon.R_0
    for N in (3, 13, 55, 256):
        r = Argon(N).start
        d = torch.pdist(r)
        assert r.shape == (N, 3)
        assert float(d.min()) == pytest.approx(least, rel=1e-12)
        radius = float((r - r.mean(0)).norm(dim=-1).max())
        assert radius < 0.75 * least * N ** (1 / 3) + 0.5 * least, "compact"
    full = Argon(32, cutoff=5.0, box=11.0).start  # 2 x 2 x 2 cells, every site taken
    assert float(torch.pdist(full).min()) == pytest.approx(11 / 2 / 2**0.5)


# Refusals -----------------------------------------------------------------------------------------


def twins():
    r = Argon().sample(3, generator())
    r[1, 3] = r[1, 0]
    return r


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Argon(1), r"N: got 1, expected a whole number of atoms, two or more"),
        (lambda: Argon(4, nu=float("inf")), r"nu: got inf, expected a finite number"),
        (lambda: Argon(4, cutoff=0.85), r"cutoff: got 0.85, expected angstrom.*in nm, multiply"),
        (lambda: Argon(4, box=20.0), r"box: got 20.0 without a cutoff"),
        (
            lambda: Argon(64, cutoff=8.5, box=1.8),
            r"box: got 1.8, .* two|at least 2 cutoffs = 17.*nm",
        ),
        (lambda: Argon(64, nu=NU, cutoff=8.5, box=20), r"at least 3 cutoffs = 25.5"),
        (lambda: Argon().energy(twins()), r"atoms 0 and 3 of configuration \(1,\) are at the same"),
        (lambda: Argon().forces(twins()[1]), r"r: atoms 0 and 3 are at the same place"),
        (
            lambda: Argon().forces(torch.zeros(2, 5, 3)),
            r"r: got torch.float32 of shape \(2, 5, 3\)",
        ),
        (lambda: Argon().energy(torch.zeros(2, 4, 2)), r"expected a float tensor \(..., 4, 3\)"),
        (lambda: Argon().energy(torch.zeros(4, 3, dtype=torch.int64)), r"got torch.int64"),
        (lambda: Argon().kinetic(torch.zeros(3, 4)), r"v: got torch.float32 of shape \(3, 4\)"),
        (lambda: Argon(cutoff=8.5).forces(twins()), r"with a cutoff each cluster has its own"),
        (lambda: Argon().velocities(1, -1.0, generator()), r"temperature: got -1.0, expected a"),
        (lambda: Argon().sample(0, generator()), r"n: got 0, expected a positive number"),
        (lambda: Argon().sample(1, generator(), sd=-3), r"sd: got -3, expected a positive"),
        (
            lambda: Argon().sample(1, generator(), sd=0.1),
            r"r_min: no room for 4 atoms 2.8 angstrom",
        ),
        (lambda: Argon(80, cutoff=4, box=8).sample(1, generator()), r"no room for 80 .* box 8"),
        (
            lambda: Argon().rollout(lambda r: r[0], *moving(2)),
            r"forces: returned shape \(4, 3\) for positions \(2, 4, 3\)",
        ),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
