"""ASE calculators around the book's forces: values, molecular dynamics, refusals."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from companion.calculators import FEMTOSECOND, calculator
from companion.force_models import RelativeForces
from companion.systems import argon
from companion.systems.argon import Argon, relative


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(S=3, dtype=torch.float64, **options) -> RelativeForces:
    """An untrained network with sensible units."""
    system = Argon()
    net = RelativeForces(4, hidden=(12, 8), seeds=S, dtype=dtype, **options)
    r = system.sample(200, generator())[None]
    net.standardise(r.to(dtype), system.forces(r).to(dtype))
    return net


def four(calc, r=None) -> Atoms:
    r = Argon().start if r is None else r
    atoms = Atoms(f"Ar{len(r)}", positions=r.numpy(), calculator=calc)
    atoms.set_masses(np.full(len(r), argon.MASS))
    return atoms


@pytest.mark.parametrize("member", [0, 2])
def test_a_members_forces(member):
    net = network()
    atoms = four(calculator(net, member))
    with torch.no_grad():
        expected = net.forces(Argon().start[None])[member, 0]
        other = net.forces(Argon().start[None])[1, 0]
    assert np.array_equal(atoms.get_forces(), expected.numpy())
    assert not np.allclose(atoms.get_forces(), other.numpy())
    atoms.rattle(0.1, rng=np.random.RandomState(0))
    assert not np.allclose(atoms.get_forces(), expected.numpy()), "it sees the atoms move"


def test_float32_networks_give_float64():
    net = network(dtype=torch.float32)
    F = four(calculator(net)).get_forces()
    assert F.dtype == np.float64
    assert np.allclose(F, four(calculator(network())).get_forces(), atol=1e-2)


def test_no_energy_is_said_in_ases_way():
    atoms = four(calculator(network()))
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_potential_energy()
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()
    assert atoms.get_forces().shape == (4, 3)


class Well(torch.nn.Module):
    """A force model with an energy: springs to the origin, a member each."""

    S = 2

    def __init__(self):
        super().__init__()
        self.k = torch.nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))

    def energy(self, r):
        return 0.5 * self.k[:, None] * r.square().sum((-2, -1))

    def forces(self, r):
        return -self.k[:, None, None, None] * r


def test_a_model_with_an_energy():
    atoms = four(calculator(Well(), 1))
    assert atoms.get_potential_energy() == pytest.approx(float(Argon().start.square().sum()))
    assert np.allclose(atoms.get_forces(), -2 * atoms.positions)


def test_around_argon_itself():
    """ASE's own minimiser finds the regular tetrahedron."""
    system = Argon(4, nu=argon.NU)
    atoms = four(calculator(system))
    assert atoms.get_potential_energy() == pytest.approx(float(system.energy(system.start)))
    BFGS(atoms, logfile=None, alpha=5).run(fmax=1e-6, steps=200)
    sides = relative(torch.as_tensor(atoms.positions)).norm(dim=-2)
    assert float(sides.max() - sides.min()) < 1e-4
    side = float(sides.mean())
    expected = -6 * argon.EPSILON + 4 * 11 / 8 * argon.NU / side**9  # three bodies repel a little
    assert atoms.get_potential_energy() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("model", [network(1), Argon()], ids=["learned", "true"])
def test_ases_dynamics_is_ours(model):
    """The same forces in ASE's velocity Verlet and in Argon.rollout: the same motion."""
    system = Argon()
    v = system.velocities(1, 10.0, generator(1))[0]
    atoms = four(calculator(model))
    atoms.set_velocities(v.numpy() / FEMTOSECOND)
    VelocityVerlet(atoms, timestep=FEMTOSECOND).run(300)
    path = system.rollout(model.forces, system.start[None], v[None], steps=300)
    r, w = path.r[-1].reshape(4, 3), path.v[-1].reshape(4, 3)
    assert float((r - system.start).abs().max()) > 0.1, "it did move"
    assert np.abs(r.numpy() - atoms.positions).max() < 1e-11
    assert np.abs(w.numpy() - atoms.get_velocities() * FEMTOSECOND).max() < 1e-12


def test_ases_femtosecond_is_nearly_ours():
    from ase import units

    assert pytest.approx(units.fs, rel=1e-7) == FEMTOSECOND
    assert pytest.approx(units.kB, rel=1e-5) == argon.KB


def test_a_periodic_system():
    system = Argon(32, cutoff=5.0, box=11.0)
    r = system.sample(1, generator())[0]
    atoms = Atoms("Ar32", positions=r.numpy(), cell=[11.0] * 3, pbc=True)
    atoms.calc = calculator(system)
    assert np.allclose(atoms.get_forces(), system.forces(r).numpy(), atol=1e-14)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: calculator(3), r"model: got int, which has no method forces"),
        (lambda: calculator(network(), 3), r"member: got 3, expected 0 to 2: the ensemble has 3"),
        (lambda: calculator(Argon(), 1), r"member: got 1, expected 0 to 0"),
        (
            lambda: four(calculator(network()), torch.rand(5, 3)).get_forces(),
            r"r: got shape \(1, 5, 3\), expected .* 4 atoms",
        ),
        (
            lambda: Atoms(
                "Ar4", cell=[9] * 3, pbc=True, calculator=calculator(Argon())
            ).get_forces(),
            r"atoms: pbc is \[True, True, True\], but the model is one of free space",
        ),
        (
            lambda: four(calculator(Argon(4, cutoff=5.0, box=11.0))).get_forces(),
            r"but the model has a periodic cube of side 11.0 angstrom",
        ),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
