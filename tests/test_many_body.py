"""Many bodies against sympy, numpy and scipy; waves against d'Alembert and sympy."""

import math

import numpy as np
import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from companion import integrators, symbolic
from companion.systems.many_body import ManyBody
from companion.systems.wave import Wave, central_difference, spectral_derivative

seeds = st.integers(0, 2**31 - 1)
few = settings(deadline=None, max_examples=8)
MASSES = [0.5, 1.0, 1.7, 0.8, 1.3]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


# Many bodies -------------------------------------------------------------------------------------


def test_accelerations_are_those_of_the_euler_lagrange_equations():
    system = ManyBody(MASSES[:2], D=3)
    solved = symbolic.accelerations(system.lagrangian, system.q, system.qdot)
    for ours, theirs in zip(system.acceleration_expressions, solved, strict=True):
        assert sympy.simplify(ours - theirs) == 0


@pytest.mark.parametrize(("N", "D"), [(2, 3), (3, 2), (5, 3)])
def test_sums_over_pairs_equal_what_sympy_derives(N, D):
    system = ManyBody(MASSES[:N], D=D, G=0.7, softening=0.2)
    q, qdot = system.sample(4, seeded(1))
    expected = system._compile(system.acceleration_expressions)(q, qdot)
    torch.testing.assert_close(system.acceleration(q, qdot), expected, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(system.energy(q, qdot), system._energy(q, qdot))
    torch.testing.assert_close(system.charges(q, qdot), system._charges(q, qdot))
    torch.testing.assert_close(system.lagrangian_value(q, qdot), system._lagrangian(q, qdot))
    assert system.charges(q, qdot).shape[-1] == len(system.charge_names)


def newton(y, masses, G, softening):
    """Typed independently: the law of gravity in numpy, one pair at a time."""
    N = len(masses)
    x, v = y[: 3 * N].reshape(N, 3), y[3 * N :].reshape(N, 3)
    a = np.zeros_like(x)
    for i in range(N):
        for j in range(N):
            if i != j:
                d = x[j] - x[i]
                a[i] += G * masses[j] * d / (d @ d + softening**2) ** 1.5
    return np.concatenate([v.ravel(), a.ravel()])


def test_trajectory_agrees_with_scipy():
    system = ManyBody(MASSES, G=1.3, softening=0.4)
    y = torch.cat(system.initial())
    solution = solve_ivp(
        lambda _, y: newton(y, MASSES, 1.3, 0.4),
        (0, 2),
        y.numpy(),
        method="DOP853",
        rtol=1e-11,
        atol=1e-12,
    )
    path = integrators.solve(system.rhs, y, 0.005, 400)
    np.testing.assert_allclose(path[-1].numpy(), solution.y[:, -1], rtol=0, atol=1e-7)
    q, qdot = path.chunk(2, -1)
    for values in (system.energy(q, qdot)[:, None], system.charges(q, qdot)):
        assert (values - values[0]).abs().max() < 1e-7


@few
@given(seed=seeds)
def test_samples_are_bound_and_at_rest(seed):
    system = ManyBody(MASSES, sizes=(0.5, 3.0))
    q, qdot = system.sample(20, seeded(seed))
    assert (system.energy(q, qdot) < 0).all()
    assert system.charges(q, qdot)[:, :3].abs().max() < 1e-12
    x = q.view(-1, 5, 3)
    centre = (torch.tensor(MASSES, dtype=x.dtype)[:, None] * x).sum(1)
    assert centre.abs().max() < 1e-12
    assert 0.5 * system.radius < x.norm(dim=-1).amax(-1).median() < 2 * 3.0 * system.radius
    again = system.sample(20, seeded(seed))
    assert torch.equal(again[0], q)


def test_larger_clusters_have_the_same_density():
    density = []
    for N in (8, 64):  # bodies by the cube of their root mean square distance
        x = ManyBody([1.0] * N).sample(300, seeded(0))[0].view(-1, N, 3)
        density.append(N / x.square().sum(-1).mean().item() ** 1.5)
    assert abs(density[1] / density[0] - 1) < 0.25  # few bodies are centred more tightly


def test_float32_and_wrong_input():
    system = ManyBody([1.0, 2.0])
    q, qdot = system.sample(3, seeded(0), torch.float32)
    assert system.acceleration(q, qdot).dtype == torch.float32
    with pytest.raises(ValueError, match="two bodies or more"):
        ManyBody([1.0])
    with pytest.raises(ValueError, match=r"D: got 0"):
        ManyBody(D=0)
    with pytest.raises(ValueError, match=r"mass.*positive"):
        ManyBody([1.0, -1.0])
    with pytest.raises(ValueError, match=r"sizes: got \(2, 1\)"):
        ManyBody(sizes=(2, 1))
    with pytest.raises(ValueError, match=r"q: expected shape \(..., 6\)"):
        system.potential(q[:, :5])


# Waves -------------------------------------------------------------------------------------------


def test_field_equation_from_the_density():
    wave = Wave(c=0.7, lam=0.3)
    c, lam = wave.parameters
    u, bend = wave.u, wave._more[1]
    assert sympy.expand(wave.field_equation - (c**2 * bend - lam * u**3)) == 0


@pytest.mark.parametrize("n", [32, 33])
def test_without_the_quartic_term_it_is_dalembert(n):
    """u = [f(x - ct) + f(x + ct)]/2 + [g(x + ct) - g(x - ct)]/2c, with udot(0) = g'."""
    wave = Wave(c=1.5, lam=0.0, n=n, length=3.0)
    k = 2 * math.pi / 3.0

    def f(x):
        return (k * x).sin() + 0.3 * (3 * k * x).cos()

    def g(x):
        return 0.5 * (2 * k * x).cos()

    x = wave.grid()
    start = torch.cat([f(x), -k * (2 * k * x).sin()])
    path = integrators.solve(wave.rhs, start, 0.002, 500)[-1]
    t = 1.5 * 500 * 0.002
    expected = (f(x - t) + f(x + t)) / 2 + (g(x + t) - g(x - t)) / 3.0
    torch.testing.assert_close(path[:n], expected, rtol=0, atol=1e-7)


def test_energy_and_momentum_are_conserved_and_have_their_values():
    wave = Wave(n=64)
    x = wave.grid()
    q, qdot = x.sin(), -x.cos()  # travels to the right: udot = -u'
    assert abs(wave.momentum(q, qdot) - math.pi) < 1e-12
    assert abs(wave.energy(q, qdot) - (math.pi + math.pi * 3 / 16)) < 1e-12
    path = integrators.solve(wave.rhs, torch.cat([q, qdot]), 0.005, 400)
    for value in (wave.energy, wave.momentum):
        values = value(*path.chunk(2, -1))
        assert (values - values[0]).abs().max() < 1e-8


@pytest.mark.parametrize("n", [15, 16])
@pytest.mark.parametrize("derivative", [spectral_derivative, central_difference])
@few
@given(seed=seeds)
def test_derivatives_are_antisymmetric_and_know_constants(n, derivative, seed):
    u, v = torch.randn(2, n, generator=seeded(seed), dtype=torch.float64)
    assert abs((u * derivative(v, 2.0)).sum() + (v * derivative(u, 2.0)).sum()) < 1e-11
    assert derivative(torch.ones(n).double(), 2.0).abs().max() < 1e-13


def test_derivatives_have_their_order():
    for n in (16, 32):
        x = Wave(n=n).grid()
        error = spectral_derivative((3 * x).sin(), 2 * math.pi) - 3 * (3 * x).cos()
        assert error.abs().max() < 1e-13
    errors = []
    for n in (32, 64):
        x = Wave(n=n).grid()
        errors.append((central_difference(x.sin(), 2 * math.pi) - x.cos()).abs().max())
    assert 3.9 < errors[0] / errors[1] < 4.1


def test_wave_samples_and_wrong_input():
    wave = Wave(n=32, modes=5)
    q, qdot = wave.sample(200, seeded(0))
    modes = torch.fft.rfft(torch.stack([q, qdot])).abs()
    assert modes[..., 6:].max() < 1e-10 < modes[..., 5].mean()
    assert wave.sample(3, seeded(0), torch.float32)[0].dtype == torch.float32
    assert wave.acceleration(q, qdot).shape == (200, 32)
    for wrong in ({"c": 0.0}, {"lam": -1.0}, {"length": 0.0}, {"modes": 16, "n": 32}):
        with pytest.raises(ValueError, match="expected c > 0, lam >= 0"):
            Wave(**wrong)
