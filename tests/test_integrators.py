"""The integrators against exact solutions, their order, and what each of them must keep or lose."""

import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from companion import integrators
from companion.integrators import (
    METHODS,
    first_order,
    implicit_midpoint_step,
    odeint,
    rk4_step,
    solve,
    velocity_verlet_step,
)
from companion.metrics import relative_deviation
from companion.testing import assert_symplectic

OSCILLATOR = first_order(lambda q, qdot: -q)
KEPLER = first_order(lambda q, qdot: -q / (q * q).sum(-1, keepdim=True) ** 1.5)
PENDULUM = first_order(lambda q, qdot: -torch.sin(q))
MAGNETIC = first_order(lambda q, qdot: torch.stack((qdot[..., 1], -qdot[..., 0]), -1))
ORDERS = [("rk4", 4), ("velocity_verlet", 2), ("implicit_midpoint", 2)]


def perihelion(eccentricity=0.8, dtype=torch.float64):
    """The paper's orbit: m = alpha = L_z = 1."""
    r = 1 / (1 + eccentricity)
    return torch.tensor([r, 0, 0, 0, 1 / r, 0], dtype=dtype)


def angular_momentum(y):
    return torch.linalg.cross(*y.chunk(2, -1))


def oscillator_exact(y0, t):
    q, p = y0.chunk(2, -1)
    return torch.cat((q * math.cos(t) + p * math.sin(t), p * math.cos(t) - q * math.sin(t)), -1)


@pytest.mark.parametrize(("method", "order"), ORDERS)
def test_observed_order_on_the_oscillator(method, order):
    y0 = torch.tensor([1.0, -0.3, 0.2, 0.7], dtype=torch.float64)
    errors = [
        (solve(OSCILLATOR, y0, 2 / n, n, method)[-1] - oscillator_exact(y0, 2)).norm().item()
        for n in (32, 64, 128)
    ]
    slopes = np.log2(np.divide(errors[:-1], errors[1:]))
    np.testing.assert_allclose(slopes, order, atol=0.03)


@pytest.mark.parametrize(("method", "order"), ORDERS)
def test_observed_order_on_kepler_against_dop853(method, order):
    y0 = perihelion(0.5)
    exact = solve_ivp(
        lambda t, y: KEPLER(torch.from_numpy(y)).numpy(),
        (0, 4), y0.numpy(), method="DOP853", rtol=1e-13, atol=1e-14,
    ).y[:, -1]  # fmt: skip
    errors = [
        np.linalg.norm(solve(KEPLER, y0, 4 / n, n, method)[-1].numpy() - exact)
        for n in (400, 800, 1600)
    ]
    slopes = np.log2(np.divide(errors[:-1], errors[1:]))
    np.testing.assert_allclose(slopes, order, atol=0.1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_equals_its_members_and_keeps_dtype(method, dtype):
    generator = torch.Generator().manual_seed(1)
    y0 = perihelion(0.3, dtype) + 0.1 * torch.randn(2, 3, 6, generator=generator, dtype=dtype)
    batched = solve(KEPLER, y0, 0.02, 20, method, every=5)
    assert batched.shape == (5, 2, 3, 6)
    assert batched.dtype == dtype
    assert torch.equal(batched[0], y0)
    for i in range(2):
        for j in range(3):
            alone = solve(KEPLER, y0[i, j], 0.02, 20, method, every=5)
            torch.testing.assert_close(
                batched[:, i, j], alone, rtol=0, atol=100 * torch.finfo(dtype).eps
            )


@pytest.mark.parametrize("method", METHODS)
def test_every_keeps_the_same_states_and_no_grad_too(method):
    full = solve(PENDULUM, torch.tensor([1.0, 0.5]), 0.05, 12, method)
    with torch.no_grad():
        thinned = solve(PENDULUM, torch.tensor([1.0, 0.5]), 0.05, 12, method, every=3)
    assert full.shape == (13, 2)
    assert torch.equal(thinned, full[::3])


def test_solve_repeats_the_step():
    y = perihelion(0.4)
    for name, step in METHODS.items():
        states = solve(KEPLER, y, 0.01, 2, name)
        torch.testing.assert_close(
            states[2], step(KEPLER, step(KEPLER, y, 0.01), 0.01), rtol=1e-14, atol=1e-14
        )


@pytest.mark.parametrize("method", ["velocity_verlet", "implicit_midpoint"])
def test_time_reversal(method):
    there = solve(KEPLER, perihelion(), 0.01, 700, method)
    back = solve(KEPLER, there[-1], -0.01, 700, method)
    torch.testing.assert_close(back[-1], perihelion(), rtol=0, atol=1e-10)


def test_rk4_is_not_reversible():
    there = solve(KEPLER, perihelion(), 0.05, 200)
    back = solve(KEPLER, there[-1], -0.05, 200)
    assert (back[-1] - perihelion()).norm() > 1e-6


@given(
    seed=st.integers(0, 2**32),
    dt=st.floats(0.01, 0.3),
    step=st.sampled_from([velocity_verlet_step, implicit_midpoint_step]),
)
@settings(max_examples=60, deadline=None)
def test_symplectic_steps_keep_the_poisson_bracket(seed, dt, step):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    f = first_order(lambda q, qdot: -torch.sin(q) - 0.3 * q * (q * q).sum(-1, keepdim=True))
    dt = dt / 4 if step is implicit_midpoint_step else dt  # its iteration must contract
    assert_symplectic(lambda y: step(f, y, dt), y, rtol=1e-12)


def test_rk4_does_not_keep_the_poisson_bracket():
    y = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with pytest.raises(AssertionError, match="J Omega J"):
        assert_symplectic(lambda y: rk4_step(PENDULUM, y, 0.1), y, rtol=1e-10)


def test_a_velocity_dependent_force_breaks_velocity_verlet_and_not_the_midpoint():
    y = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    friction = first_order(lambda q, qdot: -q - 0.5 * qdot)
    with pytest.raises(AssertionError, match="J Omega J"):
        assert_symplectic(lambda y: velocity_verlet_step(friction, y, 0.1), y)
    speed = solve(MAGNETIC, y, 0.1, 500, "implicit_midpoint")[..., 2:]
    assert relative_deviation(speed.norm(dim=-1, keepdim=True)).max() < 1e-12


def test_quadratic_invariants_of_the_midpoint_and_of_verlet():
    y0 = perihelion(0.6)
    drift = {
        m: relative_deviation(angular_momentum(solve(KEPLER, y0, 0.02, 2000, m))).max().item()
        for m in METHODS
    }
    assert drift["implicit_midpoint"] < 2e-13
    assert drift["velocity_verlet"] < 2e-13
    assert drift["rk4"] > 1e-9
    loose = y0
    for _ in range(500):
        loose = implicit_midpoint_step(KEPLER, loose, 0.02, tol=1e-5)
    change = (angular_momentum(loose) - angular_momentum(y0)).norm()
    assert 1e-10 < change < 1e-4  # it is the tolerance that decides


def test_symplectic_energy_stays_near_and_rk4_energy_leaves():
    def energy(y):
        q, p = y.unbind(-1)
        return (0.5 * (q * q + p * p))[:, None]

    y0 = torch.tensor([1.0, 0.0], dtype=torch.float64)
    with torch.no_grad():
        drift = {
            m: relative_deviation(energy(solve(OSCILLATOR, y0, 0.5, 1000, m))) for m in METHODS
        }
    assert drift["velocity_verlet"].max() < 0.1
    assert drift["implicit_midpoint"].max() < 2e-12
    assert drift["rk4"][-1] > 0.1  # loses its energy


def test_compensation_saves_digits_of_a_long_float32_rollout():
    f64 = perihelion()
    with torch.no_grad():
        exact = solve(KEPLER, f64, 0.01, 3200, every=100)
        error = {
            c: (solve(KEPLER, f64.float(), 0.01, 3200, every=100, compensated=c) - exact)
            .norm(dim=-1)
            .max()
            for c in (False, True)
        }
    assert error[True] < error[False] / 10
    same = solve(KEPLER, f64, 0.01, 50, compensated=True)
    torch.testing.assert_close(same, solve(KEPLER, f64, 0.01, 50), rtol=0, atol=1e-13)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("compensated", [False, True])
def test_gradients_flow_through_a_rollout(method, compensated):
    if compensated and method != "rk4":
        return
    omega = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    y0 = torch.tensor([[0.4, 0.9]], dtype=torch.float64, requires_grad=True)

    def end(y0, omega):
        f = first_order(lambda q, qdot: -(omega**2) * torch.sin(q))
        return solve(f, y0, 0.1, 8, method, every=2, compensated=compensated)

    assert torch.autograd.gradcheck(end, (y0, omega), rtol=1e-7, atol=1e-8)


def test_a_blown_up_trajectory_does_not_touch_the_others():
    explosive = first_order(lambda q, qdot: torch.exp(q * q))
    y0 = torch.tensor([[0.0, 0.0], [3.0, 5.0]], dtype=torch.float64)
    for options in ({"method": "rk4"}, {"method": "velocity_verlet"}, {"compensated": True}):
        states = solve(explosive, y0, 0.01, 60, **options)
        assert torch.isfinite(states[:, 0]).all()
        assert not torch.isfinite(states[-1, 1]).any()
        alone = solve(explosive, y0[:1], 0.01, 60, **options)
        assert torch.equal(states[:, :1], alone)
    gone = torch.tensor([[0.1, 0.0], [torch.nan, torch.inf]], dtype=torch.float64)
    step = implicit_midpoint_step(PENDULUM, gone, 0.1)
    assert step[0].isfinite().all()
    assert not step[1].isfinite().any()


def test_odeint_agrees_and_its_adjoint_has_the_right_gradient():
    t = torch.linspace(0, 4, 5, dtype=torch.float64)
    ours = solve(KEPLER, perihelion(0.5), 0.001, 4000, every=1000)
    torch.testing.assert_close(
        odeint(KEPLER, perihelion(0.5), t, rtol=1e-10, atol=1e-12), ours, rtol=0, atol=1e-8
    )
    assert odeint(KEPLER, perihelion(0.5, torch.float32), t.float()).dtype == torch.float32

    torch.manual_seed(0)
    f = torch.nn.Linear(2, 2, bias=False, dtype=torch.float64)
    y0 = torch.ones(3, 2, dtype=torch.float64)
    gradients = []
    for options in ({}, {"adjoint": True}, {"adjoint": True, "adjoint_params": (f.weight,)}):
        f.weight.grad = None
        odeint(f, y0, t[:3], rtol=1e-10, atol=1e-12, **options)[-1].sum().backward()
        gradients.append(f.weight.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradients[2], gradients[1])


def test_odeint_says_what_is_missing(monkeypatch):
    t = torch.tensor([0.0, 1.0])
    with pytest.raises(ValueError, match="adjoint_params=tuple"):
        odeint(OSCILLATOR, torch.ones(2), t, adjoint=True)
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(ModuleNotFoundError, match="pip install torchdiffeq"):
        odeint(OSCILLATOR, torch.ones(2), t)


GOOD = {"f": PENDULUM, "y0": torch.tensor([[0.1, 0.2], [0.3, 0.4]]), "dt": 0.1, "steps": 4}
BAD = [
    ({"method": "rk5"}, "'rk5' is unknown; did you mean rk4"),
    ({"method": "verlet"}, "did you mean velocity_verlet"),
    ({"every": 3}, "steps = 4 and every = 3"),
    ({"every": 0}, "every = 0"),
    ({"steps": 0}, "steps = 0"),
    ({"dt": math.nan}, "dt = nan; it must be finite"),
    ({"dt": 0.0}, "dt = 0.0"),
    ({"y0": torch.tensor([[0.1, 0.2], [0.3, math.nan]])}, r"y0 holds nan at index \(1, 1\)"),
    ({"y0": torch.tensor([[1, 2]])}, "torch.int64; expected a float tensor"),
    ({"y0": torch.tensor([0.1, 0.2, 0.3])}, "even last axis"),
    ({"method": "implicit_midpoint", "compensated": True}, 'exists for "rk4" only'),
    ({"f": lambda y: torch.ones(5, 1, 1) * y}, r"f\(y\) has shape \(5, 2, 2\)"),
    ({"f": lambda y: y.double()}, "torch.float64 for y of shape"),
    ({"f": first_order(lambda q, qdot: torch.ones(5, 2, 1))}, r"for q of shape \(2, 1\)"),
    ({"f": OSCILLATOR, "method": "implicit_midpoint", "dt": 5.0}, "take a smaller dt"),
    ({"f": first_order(lambda q, v: -q - v), "method": "velocity_verlet"}, "only qdot is changed"),
    ({"f": lambda y: -y, "method": "velocity_verlet"}, "first half of f"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_input_is_refused_with_a_way_out(change, message):
    error = RuntimeError if "smaller dt" in message else ValueError
    with pytest.raises(error, match=message):
        solve(**(GOOD | change))


def test_a_divergent_iteration_is_an_error_and_not_a_nan():
    wild = first_order(lambda q, qdot: torch.exp(q * q))
    y = torch.tensor([[0.0, 0.0], [3.0, 5.0]], dtype=torch.float64)
    with pytest.raises(RuntimeError, match="1 of 2 states still change"):
        implicit_midpoint_step(wild, y, 0.05)


def test_progress_shows_a_bar(capsys):
    solve(**GOOD, progress=True)
    assert "rk4" in capsys.readouterr().err


def test_nothing_is_imported_before_it_is_needed():
    assert not hasattr(integrators, "torchdiffeq")
