"""companion.systems: every system against autodiff, closed forms and an independent integrator."""

import math
from functools import lru_cache

import numpy as np
import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from companion import groups, integrators, symbolic, systems
from companion._algebra import is_zero

few = settings(deadline=None, max_examples=10)
seeds = st.integers(0, 2**31 - 1)

BUILT = {name: systems.get(name) for name in systems.names()}
BUILT |= {
    "central-force harmonic": systems.CentralForce("harmonic", m=0.7, k=1.3),
    "charged-particle heavy": systems.ChargedParticle(m=2.0, e=-1.5, B=0.7),
    "free-particle plane": systems.FreeParticle(d=2, m=0.3),
    "harmonic-oscillator 3": systems.HarmonicOscillator(d=3, m=1.7, k=0.4),
    "kepler heavy": systems.Kepler(m=1.3, alpha=0.7, eccentricity=0.4, L_z=0.9),
    "two-particle plane": systems.TwoParticle(D=2, m1=0.5, m2=2.0, mu=0.3, kappa=0.6),
    "two-particle space": systems.TwoParticle(D=3),
}
every_system = pytest.mark.parametrize("system", BUILT.values(), ids=BUILT.keys())


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def autodiff_acceleration(system, q, qdot):
    """Eq. (9), with derivatives of the compiled Lagrangian by torch: an independent route."""
    d = system.d

    def lagrangian(y):
        return system.lagrangian_value(y[:d], y[d:])

    accelerations = []
    for y in torch.cat([q, qdot], dim=-1):
        gradient = torch.autograd.functional.jacobian(lagrangian, y)
        hessian = torch.autograd.functional.hessian(lagrangian, y)
        force = gradient[:d] - hessian[d:, :d] @ y[d:]
        accelerations.append(torch.linalg.solve(hessian[d:, d:], force))
    return torch.stack(accelerations)


def trajectory(system, q, qdot, times, rtol=1e-12):
    """scipy's DOP853, nothing of ours but the right-hand side."""
    solution = solve_ivp(
        lambda _, y: system.rhs(torch.from_numpy(y)).numpy(),
        (0, times[-1]),
        torch.cat([q, qdot]).numpy(),
        method="DOP853",
        t_eval=times,
        rtol=rtol,
        atol=1e-13,
    )
    return torch.from_numpy(solution.y.T.copy()).split(system.d, dim=-1)


# Every system -------------------------------------------------------------------------------------


@every_system
def test_acceleration_agrees_with_autodiff(system):
    @few
    @given(seed=seeds)
    def check(seed):
        q, qdot = system.sample(3, seeded(seed))
        expected = autodiff_acceleration(system, q, qdot)
        found = system.acceleration(q, qdot)
        error = (found - expected).norm(dim=-1)
        assert (error <= 1e-10 * (1e-3 + expected.norm(dim=-1))).all()

    check()


@every_system
def test_energy_and_charges_are_conserved_and_worth_conserving(system):
    q, qdot = (x[0] for x in system.sample(1, seeded(3)))
    qs, qdots = trajectory(system, q, qdot, np.linspace(0, 3, 7))
    assert (qs[-1] - qs[0]).norm() > 0.1  # it moved
    for values in [system.energy(qs, qdots).unsqueeze(-1), system.charges(qs, qdots)]:
        scale = 1 + values[0].abs()
        assert ((values - values[0]).abs() / scale).max() < 1e-9 if values.shape[-1] else True


@every_system
def test_symmetries_change_the_lagrangian_by_a_total_derivative(system):
    assert system.charge_names == list(system.symmetries) == list(system.charge_expressions)
    zero = [0] * system.d
    for name, xi in system.symmetries.items():
        change = symbolic.variation(system.lagrangian, system.q, system.qdot, xi)
        K = sympy.sympify(system.gauges.get(name, 0))
        change -= symbolic.total_derivative(K, system.q, system.qdot, zero)
        assert is_zero(change), name


@every_system
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_and_dtypes(system, dtype):
    q, qdot = system.sample(6, seeded(0), dtype)
    q, qdot = q.reshape(2, 3, -1), qdot.reshape(2, 3, -1)
    d, k = system.d, len(system.charge_names)
    y = torch.cat([q, qdot], dim=-1)
    for out, shape in [
        (system.acceleration(q, qdot), (d,)),
        (system.lagrangian_value(q, qdot), ()),
        (system.energy(q, qdot), ()),
        (system.charges(q, qdot), (k,)),
        (system.rhs(y), (2 * d,)),
    ]:
        assert out.shape == (2, 3, *shape)
        assert out.dtype == dtype
        assert out.isfinite().all()
    for x in system.initial(dtype):
        assert x.shape == (d,)
        assert x.dtype == dtype
    doubles = system.acceleration(q.double(), qdot.double())
    torch.testing.assert_close(system.acceleration(q, qdot).double(), doubles, rtol=1e-4, atol=1e-4)
    again = system.sample(6, seeded(0), dtype)
    assert torch.equal(again[0].reshape(q.shape), q)


@every_system
def test_parameters_say_what_they_are(system):
    symbols = system.lagrangian.free_symbols - {*system.q, *system.qdot}
    assert symbols <= set(system.parameters)
    for parameter in system.parameters.values():
        assert parameter.unit
        assert len(parameter.meaning) >= 4
    assert type(system).__name__ in repr(system)


# Kepler -------------------------------------------------------------------------------------------


@few
@given(
    m=st.floats(0.3, 3),
    alpha=st.floats(0.3, 3),
    eccentricity=st.floats(0, 0.95),
    L_z=st.floats(0.3, 3),
    phi=st.floats(-math.pi, math.pi),
)
def test_kepler_orbit_is_exact(m, alpha, eccentricity, L_z, phi):
    system = systems.Kepler(m, alpha, eccentricity, L_z)
    q, qdot = system.orbit(torch.tensor(phi, dtype=torch.float64))
    a, r = system.semi_major_axis, q.norm()
    torch.testing.assert_close(torch.atan2(q[1], q[0]).item(), phi, rtol=0, atol=1e-9)
    other_focus = torch.tensor([-2 * a * eccentricity, 0, 0], dtype=q.dtype)
    torch.testing.assert_close((r + (q - other_focus).norm()).item(), 2 * a)  # an ellipse
    charges = system.charges(q, qdot)
    torch.testing.assert_close(charges, torch.tensor([0, 0, L_z], dtype=q.dtype))
    torch.testing.assert_close(charges, m * torch.linalg.cross(q, qdot))  # eq. (7)
    torch.testing.assert_close(system.energy(q, qdot).item(), -alpha / (2 * a))
    torch.testing.assert_close(system.acceleration(q, qdot), -alpha * q / (m * r**3))


def test_kepler_orbit_follows_the_equations_of_motion_in_sympy():
    system = systems.Kepler()
    q, qdot = system.orbit_expressions, system.orbit_velocity_expressions
    on_orbit = dict(zip((*system.q, *system.qdot), (*q, *qdot), strict=True))
    (L_z,) = [s for s in system.parameters if s.name == "L_z"]
    m = next(iter(system.parameters))
    phidot = L_z / (m * sum(x**2 for x in q))
    values = dict.fromkeys(system.parameters, sympy.Rational(3, 4))
    values[system.phi] = sympy.Rational(7, 5)
    for v, a in zip(qdot, system.acceleration_expressions, strict=True):
        difference = v.diff(system.phi) * phidot - a.xreplace(on_orbit)
        assert abs(difference.xreplace(values).evalf(50)) < 1e-40


def test_kepler_returns_after_its_period():
    system = systems.Kepler()
    q, qdot = system.perihelion()
    assert q[0] > 0
    torch.testing.assert_close(q, torch.tensor([5 / 9, 0, 0], dtype=q.dtype))
    torch.testing.assert_close(qdot, torch.tensor([0, 1.8, 0], dtype=q.dtype))
    assert system.period == pytest.approx(2 * math.pi * (1 / 0.36) ** 1.5)
    qs, qdots = trajectory(system, q, qdot, np.linspace(0, system.period, 41))
    torch.testing.assert_close(qs[-1], q, rtol=0, atol=1e-7)
    torch.testing.assert_close(qdots[-1], qdot, rtol=0, atol=1e-7)
    exact_q, exact_qdot = system.orbit(torch.atan2(qs[:, 1], qs[:, 0]))
    torch.testing.assert_close(qs, exact_q, rtol=0, atol=1e-7)
    torch.testing.assert_close(qdots, exact_qdot, rtol=0, atol=1e-7)


def test_kepler_third_law():
    """T^2 / a^3 is the same for all orbits, by integration to the next pericentre."""
    ratios = []
    for eccentricity, L_z in [(0.1, 1.0), (0.5, 0.8), (0.7, 1.3)]:
        system = systems.Kepler(eccentricity=eccentricity, L_z=L_z)

        def pericentre(_, y):
            return y[:3] @ y[3:]  # q . qdot rises through zero

        pericentre.direction = 1
        solution = solve_ivp(
            lambda _, y, s=system: s.rhs(torch.from_numpy(y)).numpy(),
            (0, 1.2 * system.period),
            torch.cat(system.perihelion()).numpy(),
            method="DOP853",
            rtol=1e-10,
            atol=1e-12,
            events=pericentre,
        )
        T = solution.t_events[0][-1]
        assert pytest.approx(system.period, rel=1e-7) == T
        ratios.append(T**2 / system.semi_major_axis**3)
    assert ratios == pytest.approx([4 * math.pi**2] * 3, rel=1e-6)


def test_kepler_samples_are_uniform_in_azimuth():
    q, _ = systems.Kepler().sample(4000, seeded(0))
    phi = torch.atan2(q[:, 1], q[:, 0]).sort().values
    uniform = (torch.arange(4000, dtype=q.dtype) + 0.5) / 4000
    assert ((phi + math.pi) / (2 * math.pi) - uniform).abs().max() < 1.95 / math.sqrt(4000)


# Schwarzschild ------------------------------------------------------------------------------------


def christoffel_acceleration(r_s, q, u):
    """-Gamma^a_bc u^b u^c by central differences of the metric, typed here once more."""

    def metric(x):
        r = np.linalg.norm(x[:3])
        g = np.diag([1.0, 1.0, 1.0, -(1 - r_s / r)])
        g[:3, :3] += (1 / (1 - r_s / r) - 1) * np.outer(x[:3], x[:3]) / r**2
        return g

    h = 1e-5
    steps = h * np.eye(4)
    slope = np.stack([(metric(q + e) - metric(q - e)) / (2 * h) for e in steps])  # [c, a, b]
    lower = (slope.transpose(1, 2, 0) + slope.transpose(1, 0, 2) - slope) / 2
    # lower[a, b, c] = (d_c g_ab + d_b g_ac - d_a g_bc) / 2
    return -np.linalg.solve(metric(q), np.einsum("abc,b,c->a", lower, u, u))


@few
@given(seed=seeds)
def test_schwarzschild_moves_on_geodesics(seed):
    system = BUILT["schwarzschild"]
    q, u = system.sample(3, seeded(seed))
    u = u + 0.1 * torch.randn(u.shape, generator=seeded(seed), dtype=u.dtype)  # and radially
    expected = [
        christoffel_acceleration(0.1, a.numpy(), b.numpy()) for a, b in zip(q, u, strict=True)
    ]
    np.testing.assert_allclose(system.acceleration(q, u), np.stack(expected), rtol=1e-6, atol=1e-8)


def test_schwarzschild_lagrangian_is_the_metric_and_eq_18():
    system = systems.Schwarzschild()
    u = sympy.Matrix(system.qdot)
    assert sympy.simplify((u.T * system.metric * u)[0] - system.lagrangian) == 0
    r, theta, phi, r_s = sympy.symbols("r theta varphi r_s", positive=True)
    rdot, thetadot, phidot = sympy.symbols("rdot thetadot phidot", real=True)
    x = [
        r * sympy.sin(theta) * sympy.cos(phi),
        r * sympy.sin(theta) * sympy.sin(phi),
        r * sympy.cos(theta),
    ]
    rates = {r: rdot, theta: thetadot, phi: phidot}
    v = [sum(c.diff(s) * rate for s, rate in rates.items()) for c in x]
    spherical = dict(zip((*system.q[:3], *system.qdot[:3]), (*x, *v), strict=True))
    taudot, f = system.qdot[3], 1 - r_s / r
    eq_18 = -f * taudot**2 + rdot**2 / f
    eq_18 += r**2 * (thetadot**2 + sympy.sin(theta) ** 2 * phidot**2)
    assert sympy.simplify(system.lagrangian.subs(spherical) - eq_18) == 0


def test_schwarzschild_start_is_the_papers_and_normalised():
    system = systems.Schwarzschild()
    q, u = system.initial()
    v_0 = 1.26 * math.sqrt(0.05) / math.sqrt(0.9)
    torch.testing.assert_close(q, torch.tensor([1.0, 0, 0, 0], dtype=q.dtype))
    expected = [0, v_0, 0, math.sqrt((1 + v_0**2) / 0.9)]
    torch.testing.assert_close(u, torch.tensor(expected, dtype=q.dtype))
    states = system.sample(100, seeded(0))
    for state in [(q, u), states]:
        norm = system.lagrangian_value(*state)
        torch.testing.assert_close(norm, -torch.ones_like(norm))
        torch.testing.assert_close(system.energy(*state), norm)  # homogeneous of degree two
    x, v = torch.randn(2, 50, 3, generator=seeded(1), dtype=q.dtype)
    norm = system.lagrangian_value(*system.normalised(x, v))
    torch.testing.assert_close(norm, -torch.ones_like(norm))


def test_schwarzschild_charges_are_twice_the_papers():
    system = systems.Schwarzschild()
    q, u = system.sample(20, seeded(0))
    charges = system.charges(q, u)
    torch.testing.assert_close(charges[:, :3], 2 * torch.linalg.cross(q[:, :3], u[:, :3]))
    r = q[:, :3].norm(dim=-1)
    torch.testing.assert_close(charges[:, 3], -2 * (1 - 0.1 / r) * u[:, 3])


def test_schwarzschild_is_kepler_far_away_and_precesses_near():
    """Far out and slow the acceleration is -r_s x / (2 r^3); near, the orbit turns by more."""
    system = systems.Schwarzschild()
    x = torch.tensor([1e4, 0, 0], dtype=torch.float64)
    q, u = system.normalised(x, torch.tensor([0, 1e-4, 0], dtype=x.dtype))
    torch.testing.assert_close(
        system.acceleration(q, u)[:3], -0.05 * x / 1e12, rtol=1e-3, atol=1e-20
    )
    on_circle = systems.Schwarzschild(r_s=1.0)  # v^2 = r_s / (2 r - 3 r_s) in proper time
    r = 7.0
    x = torch.tensor([r, 0, 0], dtype=x.dtype)
    q, u = on_circle.normalised(x, torch.tensor([0, math.sqrt(1 / (2 * r - 3)), 0], dtype=x.dtype))
    a = on_circle.acceleration(q, u)
    torch.testing.assert_close(a[0].item(), -(u[1].item() ** 2) / r)
    torch.testing.assert_close(a[1:], torch.zeros(3, dtype=a.dtype))


def test_schwarzschild_refuses_the_horizon():
    with pytest.raises(ValueError, match=r"x: a position at distance 0\.1 .* Schwarzschild radius"):
        systems.Schwarzschild().normalised(torch.tensor([0.1, 0, 0]), torch.zeros(3))


# The others ---------------------------------------------------------------------------------------


@few
@given(seed=seeds)
def test_charged_particle_obeys_the_lorentz_force(seed):
    system = systems.ChargedParticle(m=2.0, e=-1.5, B=0.7)
    q, v = system.sample(5, seeded(seed))
    B = torch.tensor([0, 0, 0.7], dtype=q.dtype).expand_as(v)
    force = -1.5 * torch.linalg.cross(v, B)
    torch.testing.assert_close(2.0 * system.acceleration(q, v), force)
    P_x, P_y, P_z, L_z = system.charges(q, v).unbind(-1)
    torch.testing.assert_close(P_x, 2 * v[:, 0] + 1.5 * 0.7 * q[:, 1])
    torch.testing.assert_close(P_y, 2 * v[:, 1] - 1.5 * 0.7 * q[:, 0])
    torch.testing.assert_close(P_z, 2 * v[:, 2])
    turning = 2 * (q[:, 0] * v[:, 1] - q[:, 1] * v[:, 0])
    torch.testing.assert_close(L_z, turning - 1.5 * 0.7 / 2 * (q[:, 0] ** 2 + q[:, 1] ** 2))


def test_charged_particle_circles_the_centre_its_charges_name():
    system = systems.ChargedParticle()
    q, v = system.initial()
    qs, _ = trajectory(system, q, v, np.linspace(0, system.period, 9))
    P_x, P_y = system.charges(q, v)[:2]
    centre = torch.stack([P_y, -P_x]) / (system.e * system.B)
    distances = (qs[:, :2] - centre).norm(dim=-1)
    torch.testing.assert_close(distances, torch.ones_like(distances))
    torch.testing.assert_close(qs[-1, :2], q[:2])


def test_without_its_gauge_term_the_momentum_is_not_conserved():
    system = systems.ChargedParticle()
    L, q, qdot = system.lagrangian, system.q, system.qdot
    naive = symbolic.noether_charge(L, q, qdot, system.symmetries["P_x"])
    assert symbolic.on_shell_derivative(naive, L, q, qdot) != 0
    proper = system.charge_expressions["P_x"]
    assert symbolic.on_shell_derivative(proper, L, q, qdot) == 0


two_particle = lru_cache(systems.TwoParticle)


@few
@given(seed=seeds, D=st.integers(1, 5))
def test_two_particle_forces_and_charges(seed, D):
    system = two_particle(D)
    q, v = system.sample(4, seeded(seed))
    x, y = q.split(D, dim=-1)
    r = x - y
    force = r - r * r.square().sum(-1, keepdim=True)  # -V'(r) r/|r|
    torch.testing.assert_close(system.acceleration(q, v), torch.cat([force, -force / 0.8], dim=-1))
    p, k = v[:, :D], 0.8 * v[:, D:]
    M, L = system.charges(q, v).split([D, D * (D - 1) // 2], dim=-1)
    torch.testing.assert_close(M, p + k)  # eq. (33)
    torch.testing.assert_close(M, torch.zeros_like(M))
    gamma = groups.SO(D).generators()
    expected = sum(torch.einsum("bi,kij,bj->bk", a, gamma, b) for a, b in [(p, x), (k, y)])
    torch.testing.assert_close(L, expected)
    if D == 4:  # eq. (33), first and last
        first = p[:, 0] * x[:, 1] - p[:, 1] * x[:, 0] + k[:, 0] * y[:, 1] - k[:, 1] * y[:, 0]
        last = p[:, 2] * x[:, 3] - p[:, 3] * x[:, 2] + k[:, 2] * y[:, 3] - k[:, 3] * y[:, 2]
        torch.testing.assert_close(L[:, 0], first)
        torch.testing.assert_close(L[:, -1], last)


def test_two_particles_stay_together():
    """The printed sign of eq. (23) would let them escape; a double well does not."""
    system = systems.TwoParticle()
    q, v = system.initial()
    qs, _ = trajectory(system, q, v, np.linspace(0, 30, 61), rtol=1e-8)
    assert (qs[:, :4] - qs[:, 4:]).norm(dim=-1).max() < 3


def test_central_force_is_a_theorem_for_every_potential():
    system = systems.CentralForce()
    q, qdot, L = system.q, system.qdot, system.generic_lagrangian
    for xi in system.symmetries.values():
        charge = symbolic.noether_charge(L, q, qdot, xi)
        assert symbolic.on_shell_derivative(charge, L, q, qdot) == 0


def test_periods_of_oscillator_and_pendulum():
    oscillator = systems.HarmonicOscillator(m=0.5, k=2.0)
    q, v = oscillator.initial()
    qs, vs = trajectory(oscillator, q, v, [0, oscillator.period / 2, oscillator.period])
    torch.testing.assert_close(qs[:, 0], torch.tensor([1, -1, 1], dtype=q.dtype))
    torch.testing.assert_close(vs, torch.zeros_like(vs), rtol=0, atol=1e-9)
    pendulum = systems.Pendulum(m=0.3, l=2.0)
    small = torch.tensor([1e-4], dtype=q.dtype)
    qs, _ = trajectory(pendulum, small, 0 * small, [0, pendulum.small_period])
    torch.testing.assert_close(qs[1], small, rtol=1e-6, atol=0)
    theta, thetadot = pendulum.sample(5, seeded(0))
    torch.testing.assert_close(pendulum.acceleration(theta, thetadot), -9.81 / 2 * theta.sin())


# The door, and bad input --------------------------------------------------------------------------


def test_get_overrides_parameters():
    assert systems.get("kepler", alpha=2).alpha == 2
    assert systems.get("two-particle", D=2).d == 4
    for name in systems.names():
        assert systems.get(name).name == name


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: systems.get("keppler"), "no system is called 'keppler'; did you mean kepler"),
        (lambda: systems.Kepler(m=-1.0), "m .mass.: got -1.0, expected a positive number"),
        (lambda: systems.Kepler(alpha=math.nan), "alpha .*: got nan, expected a finite number"),
        (lambda: systems.Kepler(eccentricity=1.0), "eccentricity: got 1.0, expected 0 <= "),
        (lambda: systems.Kepler(eccentricity=-0.1), "expected a non-negative number"),
        (lambda: systems.ChargedParticle(B=0.0), "B .strength .*: got 0, expected another"),
        (lambda: systems.CentralForce("coulomb"), "potential: got 'coulomb', expected one of"),
        (lambda: systems.FreeParticle(d=0), "d: got 0, expected a whole number >= 1"),
        (lambda: systems.HarmonicOscillator(d=0), "d: got 0, expected a whole number >= 1"),
        (lambda: systems.TwoParticle(D=0), "D: got 0, expected a whole number >= 1"),
    ],
)
def test_bad_parameters_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_bad_states_are_refused():
    system = systems.Kepler()
    two = torch.zeros(5, 2)
    with pytest.raises(ValueError, match=r"expected a tensor of shape \(\.\.\., 3\)"):
        system.acceleration(two, two)
    with pytest.raises(ValueError, match=r"y: expected shape \(\.\.\., 6\)"):
        system.rhs(torch.zeros(5, 7))


def test_schwarzschild_precession_in_weak_fields_is_6_pi_G_M_over_c2_p():
    """Einstein's formula, to first order in r_s / p."""
    for size in (1e-3, 1e-4):
        system = systems.Schwarzschild(r_s=size)
        x, v = torch.tensor([1.0, 0, 0]).double(), torch.tensor([0.0, 1.2, 0]).double()
        q, qdot = system.normalised(x, v * math.sqrt(size / 2))
        p = 2 * 1.2**2 * size / 2 / size  # L^2 / (r_s / 2), with L = r v
        assert system.precession(q, qdot) == pytest.approx(3 * math.pi * size / p, rel=5 * size)


@pytest.mark.parametrize(
    ("x", "v"),
    [([1.0, 0, 0], [0.0, 2.0, 0]), ([1.0, 0, 0], [0.1, 0, 0]), ([1.0, 0, 0], [0.0, 0.02, 0])],
    ids=["escapes", "falls straight", "falls in"],
)
def test_schwarzschild_precession_refuses_what_does_not_return(x, v):
    system = systems.Schwarzschild()
    q, qdot = system.normalised(torch.tensor(x).double(), torch.tensor(v).double())
    with pytest.raises(ValueError, match="no bound orbit between two radii"):
        system.precession(q, qdot)


# Rollouts in machine code -------------------------------------------------------------------------


@every_system
def test_machine_code_is_rk4_of_the_same_equations(system):
    q, qdot = system.sample(3, seeded(5))
    path = system.rollout(q, qdot, 0.01, 40, every=20)
    slow = integrators.solve(system.rhs, torch.cat([q, qdot], -1), 0.01, 40, every=20)
    assert path.shape == (3, 3, 2 * system.d)
    torch.testing.assert_close(path, slow, rtol=1e-11, atol=1e-11)


def test_rollout_in_float32_is_the_integrators():
    system = BUILT["kepler"]
    q, qdot = system.perihelion()
    single = system.rollout(q.float(), qdot.float(), 0.01, 20)
    assert single.dtype == torch.float32
    assert 0 < (single - system.rollout(q, qdot, 0.01, 20)).abs().max() < 1e-5


def test_a_rollout_that_runs_away_ends_in_inf_or_nan():
    q, qdot = torch.full((1,), 1e-300).double(), torch.zeros(1).double()
    planet = BUILT["kepler"]
    path = planet.rollout(q.expand(3), qdot.expand(3), 0.1, 10)
    assert not path[-1].isfinite().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps = 0"),
        ({"dt": math.inf}, "dt = inf"),
        ({"steps": 5, "every": 2}, "a multiple of every"),
        ({"q": torch.full((3,), math.nan).double()}, "must be finite"),
    ],
)
def test_rollout_refuses_what_solve_refuses(change, message):
    q, qdot = BUILT["kepler"].perihelion()
    arguments = {"q": q, "qdot": qdot, "dt": 0.1, "steps": 4} | change
    with pytest.raises(ValueError, match=message):
        BUILT["kepler"].rollout(**arguments)
