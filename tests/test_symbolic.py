"""companion.symbolic: the derivations, and the compiler from sympy to torch."""

import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion import _algebra, symbolic

m, k, g = sympy.symbols("m k g", positive=True)
t = sympy.Symbol("t", real=True)
q, qdot, qddot = symbolic.coordinates("x y")
p = symbolic.momenta("x y")
(x, y), (vx, vy), (ax, ay), (px, py) = q, qdot, qddot, p

few = settings(deadline=None, max_examples=12)
fewer = settings(deadline=None, max_examples=6)
small = st.integers(-3, 3)


@st.composite
def polynomials(draw, symbols, degree=2, terms=4):
    """A random polynomial with small integer coefficients."""
    exponents = st.tuples(*[st.integers(0, degree)] * len(symbols))
    powers = draw(st.lists(exponents, min_size=1, max_size=terms))
    return sympy.Add(
        *(draw(small) * sympy.Mul(*(s**n for s, n in zip(symbols, e, strict=True))) for e in powers)
    )


# Symbols ------------------------------------------------------------------------------------------


def test_symbols_print_as_the_book_writes_them():
    q, qdot, qddot = symbolic.coordinates("x x_1 theta")
    assert [s.name for s in q] == ["x", "x_1", "theta"]
    assert qdot[0].name == r"\dot{x}"
    assert sympy.latex(qdot[1]) == r"\dot{x}_{1}"
    assert sympy.latex(qddot[2]) == r"\ddot{\theta}"
    names = ["p_{x}", "p_{x_{1}}", r"p_{\theta}"]
    assert [sympy.latex(s) for s in symbolic.momenta("x x_1 theta")] == names
    assert all(s.is_real for s in (*q, *qdot, *qddot))


@pytest.mark.parametrize("bad", ["", "x x", " , "])
def test_bad_names_are_refused(bad):
    with pytest.raises(ValueError, match=r"names: got .* expected distinct names"):
        symbolic.coordinates(bad)


# Calculus of variations ---------------------------------------------------------------------------


@few
@given(f=polynomials([x, y, vx, vy, t]), a=small, b=small)
def test_total_derivative_is_the_derivative_along_a_path(f, a, b):
    path = [a * t**3 + t, b * t**2 - 1]
    along = {
        **dict(zip(q, path, strict=True)),
        **dict(zip(qdot, (c.diff(t) for c in path), strict=True)),
        **dict(zip(qddot, (c.diff(t, 2) for c in path), strict=True)),
    }
    expected = f.xreplace(along).diff(t)
    found = symbolic.total_derivative(f, q, qdot, qddot, t).xreplace(along)
    assert sympy.expand(expected - found) == 0


@few
@given(K=polynomials([x, y, t], degree=3))
def test_a_total_derivative_has_no_equations_of_motion(K):
    L = symbolic.total_derivative(K, q, qdot, [0, 0], t)
    left = symbolic.euler_lagrange(L, q, qdot, qddot, t)
    assert [sympy.expand(e) for e in left] == [0, 0]


@few
@given(V=polynomials([x, y], degree=3), a=small)
def test_accelerations_solve_the_euler_lagrange_equations(V, a):
    L = m / 2 * (vx**2 + (1 + x**2) * vy**2) + a * vx * vy / 4 * m - V + x * vy
    if a == 0 or abs(a) < 4:
        solved = dict(zip(qddot, symbolic.accelerations(L, q, qdot, qddot), strict=True))
        left = [e.subs(solved) for e in symbolic.euler_lagrange(L, q, qdot, qddot)]
        assert [sympy.simplify(e) for e in left] == [0, 0]


def test_accelerations_know_the_time():
    L = sympy.exp(k * t) * (m / 2 * vx**2 - m * g * x)  # friction by a growing Lagrangian
    (a,) = symbolic.accelerations(L, q[:1], qdot[:1], t=t)
    assert sympy.simplify(a + g + k * vx) == 0


def test_double_pendulum_conserves_energy_and_has_the_known_accelerations():
    L = m / 2 * (2 * vx**2 + vy**2 + 2 * vx * vy * sympy.cos(x - y))
    L += m * g * (2 * sympy.cos(x) + sympy.cos(y))
    assert symbolic.on_shell_derivative(symbolic.energy(L, q, qdot), L, q, qdot) == 0
    first, _ = symbolic.accelerations(L, q, qdot)
    known = -3 * g * sympy.sin(x) - g * sympy.sin(x - 2 * y)
    known -= 2 * sympy.sin(x - y) * (vy**2 + vx**2 * sympy.cos(x - y))
    known /= 3 - sympy.cos(2 * x - 2 * y)
    assert sympy.simplify(first - known) == 0


@pytest.mark.parametrize("L", [(vx + vy) ** 2 - x**2, x * vy - y * vx, vx**2 - y**2])
def test_a_singular_hessian_is_named_with_its_null_directions(L):
    with pytest.raises(ValueError, match=r"L: its Hessian .* is singular.*null directions"):
        symbolic.accelerations(L, q, qdot)
    with pytest.raises(ValueError, match="singular"):
        symbolic.legendre(L, q, qdot, p)


def test_a_hessian_that_is_singular_by_an_identity_is_refused():
    r = sympy.sqrt(x**2 + y**2)
    L = (vx**2 + vy**2) / 2 - (y * vx - x * vy) ** 2 / r**2 / 2  # only the radial velocity is left
    with pytest.raises(ValueError, match="singular"):
        symbolic.accelerations(L, q, qdot)


def test_lagrangians_with_accelerations_are_refused():
    with pytest.raises(ValueError, match="contains the accelerations"):
        symbolic.accelerations(vx**2 + vy**2 + ax, q, qdot, qddot)


@pytest.mark.parametrize(
    ("expression", "zero"),
    [
        (sympy.sin(x) ** 2 + sympy.cos(x) ** 2 - 1, True),
        (sympy.cos(x) ** 2 - sympy.sin(x) ** 2 - 1, False),
        (sympy.cos(x) ** 2 + sympy.sin(y) ** 2 - 1, False),
        (x**2 / sympy.sqrt(x**2 + m) + m / sympy.sqrt(x**2 + m) - sympy.sqrt(x**2 + m), True),
        (sympy.sqrt(x**2 + m) - x - sympy.sqrt(m), False),
        ((x**2 + m) ** sympy.Rational(2, 3) * sympy.cbrt(x**2 + m) - x**2 - m, True),
        (sympy.sqrt(m + sympy.sqrt(k)) ** 4 - m**2 - k - 2 * m * sympy.sqrt(k), True),
        (sympy.sqrt(m + sympy.sqrt(k)) ** 4 - m**2 - k + 2 * m * sympy.sqrt(k), False),
        (sympy.Function("V")(x) * (x + 1) - sympy.Function("V")(x) * x - sympy.exp(x), False),
    ],
)
def test_zero_is_recognised_and_never_claimed(expression, zero):
    assert _algebra.vanishes(expression) is zero
    assert (_algebra.simplified(expression) == 0) is zero


# Noether ------------------------------------------------------------------------------------------

HARMONIC = m / 2 * (vx**2 + vy**2) - k / 2 * (x**2 + y**2)


def test_rotations_leave_the_oscillator_alone_and_give_angular_momentum():
    xi = (-y, x)
    assert sympy.expand(symbolic.variation(HARMONIC, q, qdot, xi)) == 0
    L_z = symbolic.noether_charge(HARMONIC, q, qdot, xi)
    assert sympy.expand(L_z - m * (x * vy - y * vx)) == 0
    assert symbolic.on_shell_derivative(L_z, HARMONIC, q, qdot) == 0


def test_without_the_symmetry_the_charge_changes_by_the_variation():
    broken = HARMONIC - g * x**4
    xi = (-y, x)
    charge = symbolic.noether_charge(broken, q, qdot, xi)
    rate = symbolic.on_shell_derivative(charge, broken, q, qdot)
    assert rate != 0
    assert sympy.simplify(rate - symbolic.variation(broken, q, qdot, xi)) == 0


@few
@given(V=polynomials([x, y], degree=3), X=polynomials([x, y]), Y=polynomials([x, y]))
def test_noether_identity_holds_for_any_generator(V, X, Y):
    """dI/dt on shell is the variation, symmetry or not: the theorem before its hypothesis."""
    L = m / 2 * (vx**2 + vy**2) - V
    rate = symbolic.on_shell_derivative(symbolic.noether_charge(L, q, qdot, (X, Y)), L, q, qdot)
    assert sympy.simplify(rate - symbolic.variation(L, q, qdot, (X, Y))) == 0


def test_galilean_boosts_need_the_time_and_a_gauge_term():
    L = m / 2 * (vx**2 + vy**2)
    xi, K = (t, 0), m * x
    change = symbolic.variation(L, q, qdot, xi, t)
    assert sympy.expand(change - symbolic.total_derivative(K, q, qdot, qddot, t)) == 0
    charge = symbolic.noether_charge(L, q, qdot, xi, gauge=K)
    assert sympy.expand(charge - m * (t * vx - x)) == 0
    assert symbolic.on_shell_derivative(charge, L, q, qdot, t) == 0


def test_energy_is_lost_when_the_lagrangian_knows_the_time():
    L = m / 2 * vx**2 - k / 2 * x**2 * sympy.cos(t)
    E = symbolic.energy(L, q[:1], qdot[:1])
    rate = symbolic.on_shell_derivative(E, L, q[:1], qdot[:1], t)
    assert sympy.simplify(rate + L.diff(t)) == 0  # dE/dt = -dL/dt at fixed path
    assert rate != 0


def test_bad_generators_are_refused():
    with pytest.raises(ValueError, match="xi: depends on the velocities"):
        symbolic.variation(HARMONIC, q, qdot, (vx, vy))
    with pytest.raises(ValueError, match="must have the same length, but q has 2"):
        symbolic.noether_charge(HARMONIC, q, qdot, (1, 0, 0))


# Hamilton -----------------------------------------------------------------------------------------


def test_legendre_makes_the_hamiltonian_of_a_particle():
    H = symbolic.legendre(HARMONIC, q, qdot, p)
    assert sympy.expand(H - (px**2 + py**2) / 2 / m - k / 2 * (x**2 + y**2)) == 0


@fewer
@given(V=polynomials([x, y], degree=3), a=small, b=small)
def test_legendre_is_its_own_inverse(V, a, b):
    L = m / 2 * (vx**2 + (2 + x**2) * vy**2 + a * vx * vy / 2) + b * y * vx - V
    H = symbolic.legendre(L, q, qdot, p)
    assert sympy.simplify(symbolic.legendre(H, q, p, qdot) - L) == 0


def test_legendre_beyond_quadratic_lagrangians():
    c, (u,), (P,) = sympy.Symbol("c", positive=True), qdot[:1], p[:1]
    H = symbolic.legendre(-m * c**2 * sympy.sqrt(1 - u**2 / c**2), q[:1], (u,), (P,))
    assert sympy.simplify(H**2 - (m * c**2) ** 2 - (P * c) ** 2) == 0
    with pytest.raises(ValueError, match="solutions for"):
        symbolic.legendre(u**4 - u**2, q[:1], (u,), (P,))


@few
@given(V=polynomials([x, y], degree=3))
def test_hamilton_says_the_same_as_euler_lagrange(V):
    L = m / 2 * (vx**2 + vy**2) - V + k * x * vy
    H = symbolic.legendre(L, q, qdot, p)
    velocities, forces = symbolic.hamilton(H, q, p)
    on_path = dict(zip(p, (L.diff(v) for v in qdot), strict=True))
    assert [sympy.simplify(e.subs(on_path)) for e in velocities] == list(qdot)
    momentum_rates = [symbolic.total_derivative(on_path[a], q, qdot, qddot) for a in p]
    solved = dict(zip(qddot, symbolic.accelerations(L, q, qdot), strict=True))
    for rate, force in zip(momentum_rates, forces, strict=True):
        assert sympy.simplify(rate.subs(solved) - force.subs(on_path)) == 0


phase = [x, y, px, py]


@fewer
@given(f=polynomials(phase), h=polynomials(phase), e=polynomials(phase, 1))
def test_poisson_bracket_identities(f, h, e):
    def bracket(a, b):
        return symbolic.poisson_bracket(a, b, q, p)

    assert sympy.expand(bracket(f, h) + bracket(h, f)) == 0
    assert sympy.expand(bracket(f, e * h) - e * bracket(f, h) - h * bracket(f, e)) == 0
    jacobi = bracket(f, bracket(h, e)) + bracket(h, bracket(e, f)) + bracket(e, bracket(f, h))
    assert sympy.expand(jacobi) == 0


def test_fundamental_brackets_and_the_equation_of_motion():
    assert symbolic.poisson_bracket(x, px, q, p) == 1
    assert symbolic.poisson_bracket(x, py, q, p) == 0
    assert symbolic.poisson_bracket(x * py - y * px, px, q, p) == py
    H = symbolic.legendre(HARMONIC, q, qdot, p)
    assert symbolic.poisson_bracket(px, H, q, p) == symbolic.hamilton(H, q, p)[1][0]


def test_is_canonical_accepts_and_refuses():
    r, phi = sympy.sqrt(x**2 + y**2), sympy.atan2(y, x)
    radial, angular = (x * px + y * py) / r, x * py - y * px
    assert symbolic.is_canonical([r, phi], [radial, angular], q, p)
    assert not symbolic.is_canonical([r, phi], [radial, angular / r], q, p)
    assert symbolic.is_canonical(p, [-x, -y], q, p)
    assert not symbolic.is_canonical(p, q, q, p)
    c, s = sympy.cos(g), sympy.sin(g)
    assert symbolic.is_canonical([c * x + s * px, y], [c * px - s * x, py], q, p)
    assert not symbolic.is_canonical([2 * x, y], [px, py], q, p)


# To torch -----------------------------------------------------------------------------------------

real = st.floats(-2, 2)


@few
@given(f=polynomials([x, y, vx, vy], degree=3), a=real, b=real, c=real, d=real)
def test_compiled_polynomials_agree_with_sympy(f, a, b, c, d):
    function = symbolic.to_torch(f * sympy.sqrt(2) / 3, [q, qdot])
    state = [torch.tensor(s, dtype=torch.float64) for s in ((a, b), (c, d))]
    exact = float(
        (f * sympy.sqrt(2) / 3).subs(dict(zip([x, y, vx, vy], (a, b, c, d), strict=True)))
    )
    torch.testing.assert_close(function(*state).item(), exact, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_constants_and_dtypes(dtype):
    X, V = torch.ones(5, 3, 2, dtype=dtype), torch.ones(3, 2, dtype=dtype)
    pi = sympy.pi
    for expression, shape in [
        (pi, ()),
        (x + vx, ()),
        ([], (0,)),
        ([1, x, sympy.sqrt(2)], (3,)),
        ([[x, y], [pi, 0], [m, vx * sympy.sqrt(3)]], (3, 2)),
        (sympy.Matrix([[x, y], [vx, vy]]), (2, 2)),
    ]:
        out = symbolic.to_torch(expression, [q, qdot], {m: 0.1})(X, V)
        assert out.shape == (5, 3, *shape)
        assert out.dtype == dtype
    values = symbolic.to_torch([m, m**2 * x, sympy.sqrt(m)], [q, qdot], {m: 0.3})(X, V)[0, 0]
    torch.testing.assert_close(values, torch.tensor([0.3, 0.09, 0.3**0.5], dtype=dtype))
    assert symbolic.to_torch(m, [q], {m: 0.1})(X.double())[0, 0].item() == 0.1  # to the last digit


def test_a_symbol_alone_is_a_tensor_without_that_axis():
    wave = symbolic.to_torch([sympy.cos(t), x], [t, q])
    assert wave(torch.zeros(4), torch.ones(2)).tolist() == [[1, 1]] * 4


def test_compiled_functions_are_differentiable_and_vmap():
    function = symbolic.to_torch([x**3 * y, sympy.sin(y)], [q])
    at = torch.tensor([[0.3, 0.7], [1.1, -0.2]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, at)
    jacobian = torch.func.vmap(torch.func.jacrev(function))(at.detach())
    exact = symbolic.to_torch(sympy.Matrix([x**3 * y, sympy.sin(y)]).jacobian(q), [q])(at.detach())
    torch.testing.assert_close(jacobian, exact)


def test_to_torch_refuses_what_it_cannot_compute():
    with pytest.raises(ValueError, match=r"hold the symbols \['k', 'm'\]"):
        symbolic.to_torch(m * x + k, [q])
    V = sympy.Function("V")
    with pytest.raises(ValueError, match=r"hold .*V\(x\).*no values"):
        symbolic.to_torch(V(x), [q])
    with pytest.raises(ValueError, match="rectangular"):
        symbolic.to_torch([[x, y], [x]], [q])
    with pytest.raises(ValueError, match="not a real number"):
        symbolic.to_torch(sympy.I * x, [q])


def test_compiled_functions_refuse_bad_tensors():
    function = symbolic.to_torch(x + vx, [q, qdot])
    two = torch.zeros(2)
    with pytest.raises(
        ValueError, match=r"expected a tensor of shape \(\.\.\., 2\).*got shape \(3,\)"
    ):
        function(torch.zeros(3), two)
    with pytest.raises(ValueError, match=r"one dtype on one device; got torch\.float32.*float64"):
        function(two, two.double())
    with pytest.raises(ValueError, match="floating-point"):
        function(two.long(), two.long())
    with pytest.raises(ValueError, match="expected 2 tensors"):
        function(two)
