"""Systems in phase space: Hamilton's equations, the paper's formulas, charges, rollouts, samplers.

Equation numbers refer to Syvaeri et al. (2021), "Sec." to sections and "B." to its appendix B.
"""

import math
from functools import lru_cache

import numpy as np
import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.stats import kstest

from companion import integrators, symbolic, systems

few = settings(deadline=None, max_examples=5)
seeds = st.integers(0, 2**31 - 1)
half = sympy.Rational(1, 2)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


PAPER = {
    name: systems.get(name)
    for name in (
        "two-body",
        "three-body",
        "coupled-oscillators",
        "double-pendulum",
        "spherical-pendulum",
        "magnetic-field",
    )
}
PAPER |= {
    "two-body unequal": systems.TwoBody(m1=0.5, m2=2.0, g=3.0),
    "three-body heavy": systems.ThreeBody(m=2.0, g=0.7),
    "three oscillators": systems.CoupledOscillators.random(3, seeded(1), m=0.8),
    "double-pendulum heavy": systems.DoublePendulum(m=0.7, l=1.4, g=2.0),
    "spherical-pendulum long": systems.SphericalPendulum(m=2.0, g=0.6, l=1.5),
    "magnetic-field strong": systems.MagneticField(m=1.3, k=0.4, e=-2.0, B=0.8),
}
EVERY = {name: systems.get(name) for name in systems.names()} | PAPER
paper_system = pytest.mark.parametrize("system", PAPER.values(), ids=PAPER.keys())
every_system = pytest.mark.parametrize("system", EVERY.values(), ids=EVERY.keys())


def symbols_of(system, names):
    """Symbols of the system by name."""
    known = {s.name: s for s in [*system.parameters, *system.q, *system.p]}
    return [known[name] for name in names.split()]


def gradients(f, z):
    """The gradient of each output of f, `(..., k) -> (k, ..., 2 d)`, by autograd."""
    z = z.clone().requires_grad_()
    values = f(z)
    columns = values.unbind(-1) if values.ndim == z.ndim else [values]
    return torch.stack([torch.autograd.grad(c.sum(), z, retain_graph=True)[0] for c in columns])


def bracket(a, b):
    (a_q, a_p), (b_q, b_p) = a.chunk(2, -1), b.chunk(2, -1)
    return (a_q * b_p - a_p * b_q).sum(-1)


# Every system: the two formulations are one -----------------------------------------------------


@every_system
def test_hamilton_s_equations_are_the_euler_lagrange_equations(system):
    """p' by the chain rule from the accelerations, against -dH/dq; q' against dH/dp."""

    @few
    @given(seed=seeds)
    def check(seed):
        q, qdot = system.sample(4, seeded(seed))
        direction = (qdot, system.acceleration(q, qdot))
        p, pdot = torch.autograd.functional.jvp(system.momentum, (q, qdot), direction)
        z = torch.cat([q, p], -1)
        expected = torch.cat([qdot, pdot], -1)
        error = (system.flow(z) - expected).norm(dim=-1)
        assert (error <= 1e-10 * (1e-3 + expected.norm(dim=-1))).all()
        torch.testing.assert_close(system.velocity(z), qdot, rtol=1e-10, atol=1e-10)
        energy = system.energy(q, qdot)
        torch.testing.assert_close(system.hamiltonian(z), energy, rtol=1e-10, atol=1e-10)
        noether = system.phase_charges(z)[..., : len(system.charge_names)]
        torch.testing.assert_close(noether, system.charges(q, qdot), rtol=1e-10, atol=1e-10)

    check()


@every_system
def test_flow_is_the_symplectic_gradient_of_the_compiled_hamiltonian(system):
    z = system.sample_phase(5, seeded(1))
    (gradient,) = gradients(system.hamiltonian, z)
    slope_q, slope_p = gradient.chunk(2, -1)
    expected = torch.cat([slope_p, -slope_q], -1)
    torch.testing.assert_close(system.flow(z), expected, rtol=1e-11, atol=1e-11)


@every_system
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_dtypes_and_repeatable_samples(system, dtype):
    d, k = system.d, len(system.phase_charge_names)
    z = system.sample_phase(6, seeded(0), dtype)
    assert torch.equal(z, system.sample_phase(6, seeded(0), dtype))
    assert not torch.equal(z, system.sample_phase(6, seeded(1), dtype))
    z = z.reshape(2, 3, 2 * d)
    assert len(system.p) == d
    for out, shape in [
        (z, (2 * d,)),
        (system.flow(z), (2 * d,)),
        (system.velocity(z), (d,)),
        (system.hamiltonian(z), ()),
        (system.phase_charges(z), (k,)),
    ]:
        assert out.shape == (2, 3, *shape)
        assert out.dtype == dtype
        assert out.isfinite().all()


def test_a_lagrangian_that_is_not_quadratic_in_the_velocity():
    coordinates = symbolic.coordinates("x")
    (x,), (v,), _ = coordinates
    system = systems.System("exponential", coordinates, {}, sympy.exp(v) - x**2 / 2)
    (p,) = system.p
    assert sympy.simplify(system.hamiltonian_expression - (p * sympy.log(p) - p + x**2 / 2)) == 0
    z = torch.tensor([0.3, 2.0]).double()
    expected = torch.tensor([math.log(2.0), -0.3]).double()
    torch.testing.assert_close(system.flow(z), expected)


# The paper's formulas -----------------------------------------------------------------------------


def distance(a, b):
    return sympy.sqrt((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2)


def equation_10(system):
    m_1, m_2, g = symbols_of(system, "m_1 m_2 g")
    x_1, y_1, x_2, y_2 = system.q
    p_x1, p_y1, p_x2, p_y2 = system.p
    kinetic = (p_x1**2 + p_y1**2) / (2 * m_1) + (p_x2**2 + p_y2**2) / (2 * m_2)
    return kinetic - g / distance((x_1, y_1), (x_2, y_2))


def equation_12(system):
    m, g = symbols_of(system, "m g")
    at = [system.q[:2], system.q[2:4], system.q[4:]]
    pairs = [g / distance(at[i], at[j]) for i in range(3) for j in range(3) if j != i]
    return sum(p**2 for p in system.p) / (2 * m) - half * sum(pairs)


def equation_14(system):
    (m,) = symbols_of(system, "m")
    A = coupling(system)
    q = sympy.Matrix(system.q)
    return sum(p**2 for p in system.p) / (2 * m) + (q.T * A * q)[0]


def coupling(system):
    """The matrix A in the system's symbols."""

    def entry(i, j):
        return symbols_of(system, f"A_{{{min(i, j) + 1}{max(i, j) + 1}}}")[0]

    return sympy.Matrix(system.d, system.d, entry)


def double_pendulum(system):
    """A textbook's: equal masses and rods."""
    m, l, g = symbols_of(system, "m l g")  # noqa: E741
    (one, two), (p_1, p_2) = system.q, system.p
    above = p_1**2 + 2 * p_2**2 - 2 * p_1 * p_2 * sympy.cos(one - two)
    kinetic = above / (2 * m * l**2 * (1 + sympy.sin(one - two) ** 2))
    return kinetic - m * g * l * (2 * sympy.cos(one) + sympy.cos(two))


def equation_19(system):
    m, g, l = symbols_of(system, "m g l")  # noqa: E741
    (x, y), (p_x, p_y) = system.q, system.p
    return (p_x**2 + p_y**2) / (2 * m) - m * g * sympy.sqrt(l**2 - x**2 - y**2)


def equation_23(system):
    m, k, e, B = symbols_of(system, "m k e B")
    (x, y), (p_x, p_y) = system.q, system.p
    return ((p_x + e * y * B) ** 2 + (p_y - e * x * B) ** 2) / (2 * m) + k * (x**2 + y**2)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("two-body", equation_10),
        ("three-body", equation_12),
        ("coupled-oscillators", equation_14),
        ("three oscillators", equation_14),
        ("double-pendulum", double_pendulum),
        ("spherical-pendulum", equation_19),
        ("magnetic-field", equation_23),
    ],
)
def test_hamiltonian_is_the_paper_s_formula(name, formula):
    system = PAPER[name]
    assert sympy.simplify(system.hamiltonian_expression - formula(system)) == 0


def test_parameters_are_the_paper_s():
    """Fits of eqs. (18), (22), (25): the coefficients that the paper's data gave."""

    def coefficients(name):
        system = PAPER[name]
        H = system.hamiltonian_expression.xreplace(
            {s: sympy.nsimplify(v) for s, v in system.values.items()}
        )
        series = H.xreplace({x: sympy.Symbol("t") * x for x in (*system.q, *system.p)})
        series = sympy.series(series, sympy.Symbol("t"), 0, 3).removeO().coeff(sympy.Symbol("t"), 2)
        return sympy.Poly(series, *system.q, *system.p).as_dict()

    oscillators = coefficients("coupled-oscillators")
    fit = {(2, 0, 0, 0): 1.02, (1, 1, 0, 0): -0.41, (0, 2, 0, 0): 1.89}  # eq. (18)
    for monomial, value in fit.items():
        assert abs(oscillators[monomial] - value) < 0.03
    assert oscillators[(0, 0, 2, 0)] == oscillators[(0, 0, 0, 2)] == 1
    pendulum = coefficients("spherical-pendulum")
    assert pendulum == {(2, 0, 0, 0): half, (0, 2, 0, 0): half, (0, 0, 2, 0): 1, (0, 0, 0, 2): 1}
    assert coefficients("magnetic-field") == {  # eq. (25)
        **{(2, 0, 0, 0): 2, (0, 2, 0, 0): 2, (0, 0, 2, 0): 1, (0, 0, 0, 2): 1},
        **{(1, 0, 0, 1): -2, (0, 1, 1, 0): 2},
    }


def test_charges_are_the_paper_s():
    two, three = PAPER["two-body"], PAPER["three-body"]
    x_1, y_1, x_2, y_2 = two.q
    p_x1, p_y1, p_x2, p_y2 = two.p
    found = two.phase_charge_expressions
    assert list(found) == two.phase_charge_names == ["P_x", "P_y", "L"]
    assert found["P_x"] == p_x1 + p_x2
    assert found["P_y"] == p_y1 + p_y2
    equation_11 = (p_x1 - p_x2) * (y_1 - y_2) - (p_y1 - p_y2) * (x_1 - x_2)
    m_1, m_2 = symbols_of(two, "m_1 m_2")
    L = found["L"].xreplace({m_1: 1, m_2: 1})
    assert sympy.expand(equation_11 + 2 * L) == 0

    x, y, p_x, p_y = three.q[::2], three.q[1::2], three.p[::2], three.p[1::2]
    found = three.phase_charge_expressions
    assert found["P_x"] == sum(p_x)
    assert found["P_y"] == sum(p_y)
    equation_13 = sum(
        (2 * x[i] - x[j] - x[k]) * p_y[i] - (2 * y[i] - y[j] - y[k]) * p_x[i]
        for i, j, k in [(0, 1, 2), (1, 2, 0), (2, 0, 1)]
    )
    assert sympy.expand(sympy.simplify(equation_13 - 3 * found["L"])) == 0

    for name in ("spherical-pendulum", "magnetic-field"):  # eqs. (20) and (24)
        (x, y), (p_x, p_y) = PAPER[name].q, PAPER[name].p
        (L,) = PAPER[name].phase_charge_expressions.values()
        assert sympy.expand(L - (x * p_y - y * p_x)) == 0
    assert PAPER["double-pendulum"].phase_charge_names == []


def test_eq_11_is_not_conserved_if_the_masses_differ():
    system = PAPER["two-body unequal"]
    x_1, y_1, x_2, y_2 = system.q
    p_x1, p_y1, p_x2, p_y2 = system.p
    equation_11 = (p_x1 - p_x2) * (y_1 - y_2) - (p_y1 - p_y2) * (x_1 - x_2)
    change = symbolic.poisson_bracket(
        equation_11, system.hamiltonian_expression, system.q, system.p
    )
    assert change != 0
    m_1, m_2 = symbols_of(system, "m_1 m_2")
    assert sympy.simplify(change.xreplace({m_2: m_1})) == 0


# Conserved, and in involution ---------------------------------------------------------------------

NOETHER = ["two-body", "three-body", "spherical-pendulum", "magnetic-field"]


@pytest.mark.parametrize("name", NOETHER)
def test_brackets_vanish_in_sympy(name):
    system = PAPER[name]
    charges = list(system.phase_charge_expressions.values())
    for i, charge in enumerate(charges):
        for other in [system.hamiltonian_expression, *charges[:i]]:
            assert symbolic.poisson_bracket(charge, other, system.q, system.p) == 0


def test_brackets_of_the_modes_vanish_in_sympy():
    """With A = S diag(lambda) S^T put in: for every symmetric matrix of two oscillators."""
    system = PAPER["coupled-oscillators"]
    theta = sympy.Symbol("theta", real=True)
    turn = sympy.Matrix(
        [[sympy.cos(theta), -sympy.sin(theta)], [sympy.sin(theta), sympy.cos(theta)]]
    )
    eigenvalues, S = system.mode_symbols
    A = turn * sympy.diag(*eigenvalues) * turn.T
    meaning = dict(zip([*coupling(system), *S], [*A, *turn], strict=True))
    H = system.hamiltonian_expression.xreplace(meaning)
    E_1, E_2 = (e.xreplace(meaning) for e in system.phase_charge_expressions.values())
    for a, b in [(E_1, H), (E_2, H), (E_1, E_2)]:
        assert symbolic.poisson_bracket(a, b, system.q, system.p) == 0
    assert sympy.simplify(E_1 + E_2 - H) == 0


@paper_system
def test_brackets_vanish_in_torch(system):
    z = system.sample_phase(20, seeded(2))
    every = lambda z: torch.cat([system.hamiltonian(z)[..., None], system.phase_charges(z)], -1)  # noqa: E731
    slopes = gradients(every, z)
    sizes = slopes.norm(dim=-1)
    for i, a in enumerate(slopes):
        for j, b in enumerate(slopes[:i]):
            assert (bracket(a, b).abs() <= 1e-13 * sizes[i] * sizes[j]).all()
    # Independent: the gradients span as many directions as there are functions.
    assert (torch.linalg.matrix_rank(slopes.movedim(0, 1)) >= len(slopes) - 1).all()


def test_angular_momentum_about_the_origin_does_not_commute_with_the_momentum():
    system = PAPER["two-body"]
    J = sum(
        x * p_y - y * p_x
        for x, y, p_x, p_y in zip(
            system.q[::2], system.q[1::2], system.p[::2], system.p[1::2], strict=True
        )
    )
    H, charges = system.hamiltonian_expression, system.phase_charge_expressions
    assert symbolic.poisson_bracket(J, H, system.q, system.p) == 0
    assert symbolic.poisson_bracket(J, charges["P_x"], system.q, system.p) == charges["P_y"]


def test_the_double_pendulum_keeps_no_angular_momentum():
    system = PAPER["double-pendulum"]
    z = system.sample_phase(10, seeded(0))
    rates = system.flow(z)[:, 2:]
    assert rates.sum(-1).abs().min() > 1e-3


@pytest.mark.parametrize("name", ["coupled-oscillators", "three oscillators"])
def test_modes_decouple_the_oscillators(name):
    system = PAPER[name]
    values, S = system.modes
    torch.testing.assert_close(S @ values.diag() @ S.T, system.A, rtol=0, atol=1e-14)
    torch.testing.assert_close(S.T @ S, torch.eye(system.d).double(), rtol=0, atol=1e-14)
    assert (values.diff() > 0).all()
    assert (S.gather(0, S.abs().argmax(0, keepdim=True)) > 0).all()
    z = system.sample_phase(7, seeded(0))
    q, p = (x @ S for x in z.chunk(2, -1))
    energies = p**2 / (2 * system.m) + values * q**2  # eq. (15)
    torch.testing.assert_close(system.phase_charges(z), energies, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(energies.sum(-1), system.hamiltonian(z), rtol=1e-12, atol=1e-12)


def test_default_coupling_is_of_the_paper_s_kind():
    values = PAPER["coupled-oscillators"].modes.eigenvalues
    torch.testing.assert_close(
        values, torch.tensor([1.0, 1.96], dtype=values.dtype), rtol=0, atol=1e-14
    )


@few
@given(seed=seeds, n=st.integers(1, 5))
def test_random_couplings(seed, n):
    """B.3: square roots of the eigenvalues are tenths between 1 and 3.2; n = 1 ... 5."""
    system = systems.CoupledOscillators.random(n, seeded(seed))
    again = systems.CoupledOscillators.random(n, seeded(seed))
    assert torch.equal(system.A, again.A)
    tenths = 10 * system.modes.eigenvalues.sqrt()
    torch.testing.assert_close(tenths, tenths.round(), rtol=0, atol=1e-11)
    assert (tenths > 9.9).all()
    assert (tenths < 32.1).all()


# Rollouts -----------------------------------------------------------------------------------------


@lru_cache
def exact_path(name, seed):
    """scipy's DOP853 of the compiled flow."""
    system = PAPER[name]
    z = system.sample_phase(1, seeded(seed))[0]
    solution = solve_ivp(
        lambda _, y: system.flow(torch.from_numpy(y)).numpy(),
        (0, 2),
        z.numpy(),
        method="DOP853",
        t_eval=np.linspace(0, 2, 5),
        rtol=1e-12,
        atol=1e-13,
    )
    return z, torch.from_numpy(solution.y.T.copy())


@pytest.mark.parametrize("name", PAPER)
def test_rollout_agrees_with_dop853_and_keeps_what_is_conserved(name):
    system = PAPER[name]
    z, expected = exact_path(name, 4)
    path = system.phase_rollout(z, 1e-3, 2000, every=500)
    assert path.shape == (5, 2 * system.d)
    torch.testing.assert_close(path, expected, rtol=1e-8, atol=1e-8)
    assert (path[-1] - path[0]).norm() > 0.1  # it moved
    for f in (system.hamiltonian, system.phase_charges):
        torch.testing.assert_close(f(path), f(path[:1]).expand_as(f(path)), rtol=1e-9, atol=1e-9)


def test_rollout_of_a_batch_is_rk4_of_the_flow_in_both_precisions():
    system = PAPER["magnetic-field"]
    z = system.sample_phase(6, seeded(5)).reshape(2, 3, 4)
    path = system.phase_rollout(z, 0.05, 20, every=10)
    slow = integrators.solve(system.flow, z, 0.05, 20, every=10)
    assert path.shape == (3, 2, 3, 4)
    torch.testing.assert_close(path, slow, rtol=1e-12, atol=1e-12)
    single = system.phase_rollout(z.float(), 0.05, 20, every=10)
    assert single.dtype == torch.float32
    assert 0 < (single - path).abs().max() < 1e-5


def test_rollout_agrees_with_that_of_the_velocities():
    system = EVERY["charged-particle"]  # its momenta are not proportional to the velocities
    q, qdot = system.sample(2, seeded(3))
    z = torch.cat([q, system.momentum(q, qdot)], -1)
    path = system.phase_rollout(z, 0.01, 100)
    other = system.rollout(q, qdot, 0.01, 100)
    torch.testing.assert_close(path[..., :3], other[..., :3], rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(system.velocity(path), other[..., 3:], rtol=1e-7, atol=1e-7)


def test_oscillators_of_rational_frequencies_return():
    """B.3: with sqrt(lambda) in tenths and m = 1/2 every motion has the period 10 pi."""
    for system in (PAPER["coupled-oscillators"], systems.CoupledOscillators.random(3, seeded(0))):
        z = system.sample_phase(3, seeded(1))
        path = system.phase_rollout(z, 10 * math.pi / 20000, 20000, every=10000)
        torch.testing.assert_close(path[-1], z, rtol=0, atol=1e-7)


# Samples ------------------------------------------------------------------------------------------


def tangent(x):
    return torch.stack([-x[..., 1], x[..., 0]], -1) / x.norm(dim=-1, keepdim=True)


def is_normal(x, sigma):
    return kstest(x.flatten().numpy() / sigma, "norm").pvalue > 1e-3


def is_uniform(x, low, high):
    return kstest(x.flatten().numpy(), "uniform", (low, high - low)).pvalue > 1e-3


@pytest.mark.parametrize("name", ["two-body", "two-body unequal"])
def test_two_body_samples(name):
    """B.1, with the circular orbit from the system's own accelerations."""
    system = PAPER[name]
    q, qdot = system.sample(4000, seeded(0))
    p = system.sample_phase(4000, seeded(0))[:, 4:]
    q_1, q_2 = q.split(2, -1)
    assert torch.equal(q_2, -q_1) or (q_2 + q_1).abs().max() < 1e-15
    assert is_uniform(q_1, 0.5, 1.5)
    p_com = (p[:, :2] + p[:, 2:]) / 2
    assert is_normal(p_com, 0.1)
    separation, velocity = q_1 - q_2, qdot[:, :2] - qdot[:, 2:]
    pull = system.acceleration(q, qdot)
    pull = (pull[:, :2] - pull[:, 2:]).norm(dim=-1)
    speed = (velocity * tangent(separation)).sum(-1)  # positive: counterclockwise
    torch.testing.assert_close(velocity, speed[:, None] * tangent(separation))  # no radial part
    epsilon = speed / (pull * separation.norm(dim=-1)).sqrt() - 1
    assert is_normal(epsilon, 0.05)
    if system.masses == (1, 1):  # eq. (26) word for word
        r = q_1.norm(dim=-1, keepdim=True)
        p_1 = (1 + epsilon[:, None]) * tangent(q_1) / (2 * r.sqrt()) + p_com
        torch.testing.assert_close(p[:, :2], p_1)
        torch.testing.assert_close(p[:, 2:], -p_1 + 2 * p_com)


@pytest.mark.parametrize("name", ["three-body", "three-body heavy"])
def test_three_body_samples(name):
    """B.2: the radial momenta give the drift, the rest the factors 1 + epsilon."""
    system = PAPER[name]
    z = system.sample_phase(4000, seeded(0))
    q, p = (x.unflatten(-1, (3, 2)) for x in z.chunk(2, -1))
    assert q.sum(1).abs().max() < 1e-14
    sides = (q - q.roll(1, 1)).norm(dim=-1)
    torch.testing.assert_close(sides, sides[:, :1].expand_as(sides))  # equilateral
    assert is_uniform(q[:, 0], 0.5, 1.5)
    n = q / q.norm(dim=-1, keepdim=True)
    p_com = 2 / 3 * ((p * n).sum(-1, keepdim=True) * n).sum(1)
    assert is_normal(p_com, 0.1)
    v = p.flatten(1) / system.masses[0]
    pull = system.acceleration(q.flatten(1), v).unflatten(-1, (3, 2)).norm(dim=-1)
    circular = (pull * q.norm(dim=-1)).sqrt() * system.masses[0]
    epsilon = ((p - p_com[:, None]) * tangent(q)).sum(-1) / circular - 1
    assert is_normal(epsilon, 0.05)
    assert (epsilon.T.corrcoef() - torch.eye(3)).abs().max() < 0.06  # one for each body


def test_three_bodies_with_one_epsilon_would_stay_a_triangle():
    """Why each body has its own: Lagrange's solution never leaves the triangle."""
    system = PAPER["three-body"]
    z = system.sample_phase(1, seeded(6))[0]
    q, p = (x.reshape(3, 2) for x in z.chunk(2))

    def unevenness(z):
        q = z[:, :6].unflatten(-1, (3, 2))
        sides = (q - q.roll(1, 1)).norm(dim=-1)
        return (sides.amax(-1) / sides.amin(-1) - 1).abs()

    common = torch.cat([q, 0.95 * tangent(q) * (p * tangent(q)).sum(-1).mean()]).flatten()
    kept, broken = (
        unevenness(system.phase_rollout(start, 0.005, 1000, every=100)) for start in (common, z)
    )
    assert kept.max() < 1e-9
    assert broken[-1] > 0.05


def test_oscillator_samples():
    """B.3: positive entries, lengths uniform in (0.2, 2)."""
    for name in ("coupled-oscillators", "three oscillators"):
        z = PAPER[name].sample_phase(2000, seeded(0))
        assert (z > 0).all()
        assert is_uniform(z.norm(dim=-1), 0.2, 2.0)
        assert (z / z.norm(dim=-1, keepdim=True)).std(0).min() > 0.1


@pytest.mark.parametrize("name", ["spherical-pendulum", "spherical-pendulum long"])
def test_spherical_pendulum_samples(name):
    """B.4: with q in units of l and p of m sqrt(2 g l), uniform where |p|^2 < sqrt(1 - |q|^2)."""
    system = PAPER[name]
    z = system.sample_phase(2000, seeded(0))
    assert (system.hamiltonian(z) < 0).all()
    q2 = z[:, :2].square().sum(-1) / system.l**2
    p2 = z[:, 2:].square().sum(-1) / (2 * system.g * system.l * system.m**2)
    share = (p2 / (1 - q2).sqrt()).numpy()
    assert kstest(share, "uniform").pvalue > 1e-3
    assert kstest(q2.numpy(), lambda s: 1 - (1 - s) ** 1.5).pvalue > 1e-3
    path = system.phase_rollout(z[:200], 0.002, 1000, every=10)
    height = (system.l**2 - path[..., :2].square().sum(-1)).sqrt()
    floor = -system.hamiltonian(z[:200]) / (system.m * system.g)
    assert (height > (1 - 1e-3) * floor).all()  # it stays below the equator


def test_spherical_pendulum_turns_down_what_the_paper_turns_down():
    """41 % of the box is left: pi^2 / 24."""
    system = PAPER["spherical-pendulum"]
    z = 2 * torch.rand(40000, 4, generator=seeded(0), dtype=torch.float64) - 1
    share = (system.hamiltonian(z) < 0).double().mean()
    assert abs(share - math.pi**2 / 24) < 4 * 0.5 / 200
    few_points = system.sample_phase(5, seeded(0))
    assert few_points.shape == (5, 4)


def test_a_margin_keeps_the_spherical_pendulum_from_the_equator():
    system = systems.SphericalPendulum(margin=0.2)
    z = system.sample_phase(500, seeded(0))
    assert -0.25 < system.hamiltonian(z).max() < -0.2  # m g l = 1
    with pytest.raises(ValueError, match="margin: got 1, expected a number from 0 to 1"):
        systems.SphericalPendulum(margin=1)


def test_magnetic_field_and_double_pendulum_samples():
    z = PAPER["magnetic-field"].sample_phase(2000, seeded(0))  # B.5
    assert is_uniform(z.norm(dim=-1), 0.1, 1.0)
    assert z.mean(0).abs().max() < 0.04
    z = PAPER["double-pendulum"].sample_phase(2000, seeded(0))  # B.6
    assert is_uniform(z[:, :2], 0, 2 * math.pi)
    assert (z[:, 2:] == 0).all()


# Bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: systems.TwoBody(m1=-1.0), "m_1 .*: got -1.0, expected a positive number"),
        (lambda: systems.ThreeBody(g=0.0), "g .*: got 0.0, expected a positive number"),
        (lambda: systems.DoublePendulum(l=0), "l .*: got 0, expected a positive number"),
        (lambda: systems.SphericalPendulum(m=-2), "m .*: got -2, expected a positive number"),
        (lambda: systems.MagneticField(B=0.0), "B .*: got 0, expected another number"),
        (lambda: systems.MagneticField(k=-1.0), "k .*: got -1.0, expected a positive number"),
        (lambda: systems.CoupledOscillators(m=0), "m .*: got 0, expected a positive number"),
        (lambda: systems.CoupledOscillators([]), r"A: got rows of \[\] numbers, expected a sym"),
        (lambda: systems.CoupledOscillators([[1.0], [0.0]]), r"A: got rows of \[1, 1\] numbers"),
        (lambda: systems.CoupledOscillators([[1.0, 0.1], [0.2, 1.0]]), r"use \(A \+ A\^T\) / 2"),
        (lambda: systems.CoupledOscillators([[math.nan]]), r"A: got \[\[nan\]\]"),
        (lambda: systems.CoupledOscillators([[1.0, 2.0], [2.0, 1.0]]), "A: got the eigenvalues"),
        (lambda: systems.CoupledOscillators.random(0, seeded(0)), "n: got 0, expected a whole"),
    ],
)
def test_bad_parameters_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "method", ["hamiltonian", "flow", "velocity", "phase_charges", "phase_rollout"]
)
def test_bad_points_are_refused(method):
    system = PAPER["spherical-pendulum"]
    more = (0.1, 2) if method == "phase_rollout" else ()
    with pytest.raises(ValueError, match=r"z: expected shape \(\.\.\., 4\), positions then mome"):
        getattr(system, method)(torch.zeros(5, 3).double(), *more)
    if not more:
        with pytest.raises(ValueError, match="expected floating-point tensors"):
            getattr(system, method)(torch.zeros(5, 4, dtype=torch.int64))


def test_rollout_refuses_what_solve_refuses():
    system = PAPER["magnetic-field"]
    z = system.sample_phase(1, seeded(0))
    with pytest.raises(ValueError, match="steps = 0"):
        system.phase_rollout(z, 0.1, 0)
    with pytest.raises(ValueError, match="a multiple of every"):
        system.phase_rollout(z, 0.1, 5, every=2)


def test_a_system_without_a_sampler_says_so():
    _, (v,), _ = coordinates = symbolic.coordinates("x")
    bare = systems.System("bare", coordinates, {}, v**2 / 2)
    with pytest.raises(NotImplementedError, match="System defines no sampler"):
        bare.sample_phase(1, seeded(0))
