"""Maps that are canonical by construction: against Omega, autodiff, sympy and their inverses."""

import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import jacrev

from companion import symbolic, testing
from companion._activations import Activation
from companion.phase_space import brackets, omega
from companion.symplectic import (
    Composition,
    LinearPoint,
    LinearSymplectic,
    Polar,
    Shear,
    SymplecticMap,
    shears,
)

# d, and the map of two members with these weights' spread and dtype
MAPS = {
    "shear up": (3, lambda o: Shear(3, 16, "up", **o)),
    "shear down": (2, lambda o: Shear(2, 16, "down", "tanh", **o)),
    "one degree of freedom": (1, lambda o: Shear(1, 1, "up", "sin", **o)),
    "linear point": (3, lambda o: LinearPoint(3, **o)),
    "linear": (3, lambda o: LinearSymplectic(3, **o)),
    "polar": (3, lambda o: Polar(3, (2, 0), seeds=o["seeds"])),
    "turning frame": (6, lambda o: Polar(6, (1, 4), [(0, 2), (5, 3)], seeds=o["seeds"])),
    "shears": (2, lambda o: shears(2, 5, 8, **o)),
    "all": (
        4,
        lambda o: Composition(
            [
                LinearSymplectic(4, **o),
                Shear(4, 8, "up", **o),
                Composition([Polar(4, (2, 3), [(0, 1)], seeds=o["seeds"]), LinearPoint(4, **o)]),
                Shear(4, 8, "down", **o),
            ]
        ),
    ),
}
maps = pytest.mark.parametrize("name", MAPS)
numbers = st.integers(min_value=0, max_value=2**31)
few = settings(deadline=None, max_examples=12)


def made(name, seed=3, output_scale=1.0, dtype=torch.float64):
    _, make = MAPS[name]
    return make({"seeds": [seed, seed + 1], "output_scale": output_scale, "dtype": dtype})


def states(name, seed=0, n=7, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    d = MAPS[name][0]
    return torch.randn(2, n, 2 * d, generator=generator, dtype=torch.float64).to(dtype)


def defect(J):
    """The largest entry of J Omega J^T - Omega, over that of J squared where J is large."""
    W = omega(J.shape[-1] // 2, J.dtype)
    size = J.abs().amax((-2, -1)).square().clamp(min=1)
    return ((J @ W @ J.mT - W).abs().amax((-2, -1)) / size).max().item()


@maps
@few
@given(seed=numbers, output_scale=st.sampled_from([0.0, 0.1, 1.0, 30.0]))
def test_every_map_is_canonical_at_any_weights(name, seed, output_scale):
    if "linear" in name or name in ("shears", "all"):
        output_scale = min(output_scale, 1.0)  # in the exponent: 30 would be e^30
    T, z = made(name, seed, output_scale), states(name, seed)
    Z, J = T.jacobian(z)
    assert defect(J) < 1e-12
    torch.testing.assert_close(T.value(z), Z, rtol=0, atol=0)
    condition = J.abs().max() ** 2 * Z.abs().max()
    assert (T.inverse(Z) - z).abs().max() < 1e-13 * max(condition.item(), 1)


@pytest.mark.parametrize("name", ["shear up", "shears", "linear"])
def test_large_weights_stay_canonical(name):
    """Kicks a hundred times the state, stretches by a factor of thousands."""
    T, z = made(name), states(name)
    with torch.no_grad():
        for x in T.parameters():
            x.mul_(100.0 if name == "shear up" else 6.0)
    _, J = T.jacobian(z)
    assert J.abs().max() > 100
    assert defect(J) < 1e-12


@maps
def test_jacobian_and_pull_equal_autodiff(name):
    T, z = made(name), states(name)
    Z, J = T.jacobian(z)
    for s in (0, 1):
        one = made(name)
        one.keep(s)
        for b in range(3):
            reference = jacrev(lambda y, one=one: one.value(y[None])[0, 0])(z[s, b])
            torch.testing.assert_close(J[s, b], reference, rtol=1e-11, atol=1e-11)
    g = torch.randn(Z.shape, generator=torch.Generator().manual_seed(5), dtype=Z.dtype)
    Z_again, pull = T.pull(z)
    torch.testing.assert_close(Z_again, Z, rtol=0, atol=0)
    expected = (g[..., None, :] @ J).squeeze(-2)
    torch.testing.assert_close(pull(g), expected, rtol=1e-12, atol=1e-12)


@maps
def test_float32_is_the_same_map(name):
    z = states(name, dtype=torch.float32)
    single, double = made(name, dtype=torch.float32), made(name, dtype=torch.float32).double()
    Z, J = single.jacobian(z)
    assert Z.dtype == J.dtype == torch.float32
    assert defect(J) < 1e-5
    reference = double.jacobian(z.double())
    size = reference[1].abs().max().item()
    torch.testing.assert_close(Z, reference[0].float(), rtol=1e-4, atol=1e-5 * size)
    torch.testing.assert_close(J, reference[1].float(), rtol=1e-4, atol=1e-5 * size)


@maps
def test_the_gradient_in_the_weights_equals_finite_differences(name):
    T, z = made(name), states(name)
    parameters = list(T.parameters())
    if not parameters:
        assert name in ("polar", "turning frame")
        return
    g = torch.randn(z.shape, generator=torch.Generator().manual_seed(6), dtype=z.dtype)

    def loss():
        _, pull = T.pull(z)
        Z, J = T.jacobian(z)
        return pull(g).square().sum() + Z.sin().sum() + (J @ J.mT).diagonal(0, -1, -2).sum()

    loss().backward()
    generator = torch.Generator().manual_seed(7)
    for x in parameters:
        direction = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        values = []
        with torch.no_grad():
            for step in (1e-5, -2e-5):
                x.add_(direction, alpha=step)
                values.append(loss().item())
            x.add_(direction, alpha=1e-5)
        slope = (values[0] - values[1]) / 2e-5
        assert (x.grad * direction).sum().item() == pytest.approx(slope, rel=1e-5, abs=1e-4)


@maps
def test_members_do_not_mix(name):
    T, z = made(name), states(name)
    Z, J = T.jacobian(z)
    changed = z.clone()
    changed[0] = states(name, 9)[0]
    assert torch.equal(T.value(changed)[1], Z[1])
    if list(T.parameters()):
        (T.value(z)[1].sum() + T.jacobian(z)[1][1].sum()).backward()
        assert all(not x.grad[0].any() for x in T.parameters() if x.grad is not None)
        assert any(x.grad[1].any() for x in T.parameters() if x.grad is not None)
    alone = made(name)
    alone.keep(1)
    assert (alone.S, alone.seeds) == (1, (4,))
    assert alone.size == T.size
    torch.testing.assert_close(alone.jacobian(z[1])[1][0], J[1], rtol=1e-13, atol=1e-13)


@maps
def test_a_member_depends_on_its_seed_alone(name):
    _, make = MAPS[name]
    options = {"output_scale": 1.0, "dtype": torch.float64}
    both, alone = made(name), make({"seeds": [4], **options})
    z = states(name)
    torch.testing.assert_close(both.value(z)[1], alone.value(z[1])[0], rtol=1e-13, atol=1e-13)


def test_the_same_states_for_all_members():
    T, z = made("shears"), states("shears")[0]
    assert torch.equal(T.value(z), T.value(torch.stack([z, z])))


def fractions(x):
    """The numbers of a tensor in sixteenths, as sympy's fractions."""
    return [fractions(y) for y in x] if x.dim() else sympy.Rational(round(16 * x.item()), 16)


def test_brackets_of_a_shear_equal_sympys():
    """p + grad V with V = sum_k a_k tanh(w_k . q + b_k), the same weights in both engines."""
    T = Shear(2, 3, "up", "tanh", seeds=[8], output_scale=2.0, dtype=torch.float64)
    q, p = sympy.symbols("x y", real=True), sympy.symbols("p_x p_y", real=True)
    with torch.no_grad():
        for x in T.parameters():
            x.copy_((16 * x).round() / 16)  # fractions, which sympy adds up exactly
    waves, bias, a = (fractions(x.detach()[0]) for x in (T.waves, T.bias, T.amplitude))
    V = sum(
        a[k] * sympy.tanh(sum(w * x for w, x in zip(waves[k], q, strict=True)) + bias[k])
        for k in range(3)
    )
    new = [*q, *(p_i + sympy.diff(V, q_i) for p_i, q_i in zip(p, q, strict=True))]
    pairs = list(zip(q, p, strict=True))

    def bracket(f, g):  # symbolic.poisson_bracket, without the search for a shorter form
        return sum(f.diff(x) * g.diff(y) - f.diff(y) * g.diff(x) for x, y in pairs)

    for a, f in enumerate(new):
        for b, g in enumerate(new):
            assert sympy.expand(bracket(f, g)) == (b == a + 2) - (a == b + 2)
    z = torch.randn(1, 20, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    Z, J = T.jacobian(z)
    values = symbolic.to_torch(new, [q, p])(z[0, :, :2], z[0, :, 2:])
    torch.testing.assert_close(Z[0], values, rtol=1e-12, atol=1e-12)
    # brackets with something that is no coordinate, for those of coordinates are zero and one
    energy = (p[0] ** 2 + p[1] ** 2) / 2 + q[0] ** 2 * q[1]
    exact = [bracket(f, energy) for f in new]
    slope = symbolic.to_torch([sympy.diff(energy, x) for x in (*q, *p)], [q, p])
    rows = torch.cat([J[0], slope(z[0, :, :2], z[0, :, 2:])[:, None]], 1)
    expected = symbolic.to_torch(exact, [q, p])(z[0, :, :2], z[0, :, 2:])
    torch.testing.assert_close(brackets(rows)[:, :4, 4], expected, rtol=1e-11, atol=1e-11)


def test_polar_coordinates_are_the_textbooks():
    """The positions by name; the momenta are those the positions imply: (dQ/dq)^T P = p."""
    x, y, u, v = q = sympy.symbols("x y u v", real=True)
    r = sympy.sqrt(x**2 + y**2)
    Q = [sympy.atan2(y, x), r, (x * u + y * v) / r, (x * v - y * u) / r]
    T = Polar(4, (0, 1), [(2, 3)])
    z = torch.randn(1, 30, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    new, p = T.value(z)[0], z[0, :, 4:]
    torch.testing.assert_close(new[:, :4], symbolic.to_torch(Q, [q])(z[0, :, :4]))
    slopes = symbolic.to_torch(list(sympy.Matrix(Q).jacobian(q)), [q])(z[0, :, :4])
    implied = torch.einsum("baq,ba->bq", slopes.unflatten(-1, (4, 4)), new[:, 4:])
    torch.testing.assert_close(implied, p, rtol=1e-11, atol=1e-11)
    angular = (
        z[0, :, 0] * p[:, 1] - z[0, :, 1] * p[:, 0] + z[0, :, 2] * p[:, 3] - z[0, :, 3] * p[:, 2]
    )
    torch.testing.assert_close(new[:, 4], angular)


def test_the_gradient_of_an_angle_does_not_jump_where_its_value_does():
    T = Polar(2)
    z = torch.tensor([[-1.0, 1e-9, 0.3, 0.2], [-1.0, -1e-9, 0.3, 0.2]], dtype=torch.float64)
    Z, J = T.jacobian(z)
    assert (Z[0, 0, 0] - Z[0, 1, 0]).abs() > 6
    torch.testing.assert_close(J[0, 0], J[0, 1], rtol=1e-8, atol=1e-8)


@few
@given(seed=numbers, d=st.integers(min_value=1, max_value=4))
def test_linear_maps_reach_any_symplectic_matrix(seed, d):
    """The factors of the docstring, found for a product of random shears and point maps."""
    generator = torch.Generator().manual_seed(seed)

    def normal():
        return torch.randn(d, d, generator=generator, dtype=torch.float64)

    one, none = torch.eye(d, dtype=torch.float64), torch.zeros(d, d, dtype=torch.float64)

    def block(A, B, C, E):
        return torch.cat([torch.cat([A, B], 1), torch.cat([C, E], 1)])

    M = torch.eye(2 * d, dtype=torch.float64)
    for _ in range(3):
        S, R, G = normal(), normal(), torch.linalg.matrix_exp(normal() / 3)
        M = block(one, none, S + S.T, one) @ block(one, R + R.T, none, one) @ M
        M = block(G, none, none, torch.linalg.inv(G).T) @ M
    s = max((-2.0, -1.0, -0.5, 0.5, 1.0, 2.0), key=lambda s: abs(linear_block(M, s).det()))
    G = linear_block(M, s)
    D = block(one, -s * one, none, one) @ M
    S2, S3 = D[d:, :d] @ torch.linalg.inv(G), torch.linalg.inv(G) @ D[:d, d:]
    T = LinearSymplectic(d, seeds=1, dtype=torch.float64)
    flip = torch.diag(torch.tensor([G.det().sign().item()] + [1.0] * (d - 1)).double())
    pair = torch.block_diag(flip, flip)  # the reflection of one pair, where det G < 0
    G = G @ flip
    rotation, R = torch.linalg.qr(G)
    signs = torch.diag(R.diagonal().sign())
    rotation, R = rotation @ signs, signs @ R
    with torch.no_grad():
        T.turn.copy_(2 * generator_of(rotation)[None])
        T.stretch.copy_((R.triu(1) + torch.diag(R.diagonal().log()))[None])
        T.shears.copy_(torch.cat([s * one, S2, flip @ S3 @ flip])[None] / 2)
    scale = M.abs().max() ** 2
    torch.testing.assert_close(T.matrix()[0] @ pair, M, rtol=0, atol=1e-10 * scale.item())


def linear_block(M, s):
    d = len(M) // 2
    return M[:d, :d] - s * M[d:, :d]


def generator_of(rotation):
    """A with C(A)^2 = rotation: C is the orthogonal part of 1 + rotation, A its Cayley transform.

    For a rotation by theta, 1 + R = C (C + C^T), and C + C^T = 2 cos(theta/2) is positive.
    """
    one = torch.eye(len(rotation), dtype=rotation.dtype)
    U, _, Vh = torch.linalg.svd(one + rotation)
    return torch.linalg.solve(U @ Vh + one, U @ Vh - one)


@maps
def test_units_are_set_by_the_data_and_the_map_stays_canonical(name):
    T, z = made(name), states(name, n=50) * 20 + 5
    parameters = [x.clone() for x in T.parameters()]
    T.standardise(z)
    assert all(torch.equal(x, y) for x, y in zip(T.parameters(), parameters, strict=True))
    assert defect(T.jacobian(z)[1]) < 1e-12
    if isinstance(T, Shear):
        stays, moves = (0, 1) if T.up else (1, 0)
        halves = list(z.chunk(2, -1))
        centre, scale = halves[stays].mean(1, keepdim=True), halves[stays].std(1, keepdim=True)
        inside = list(halves)
        inside[stays] = (halves[stays] - centre) / scale
        kick = (made(name).value(torch.cat(inside, -1)) - torch.cat(inside, -1)).chunk(2, -1)
        halves[moves] = halves[moves] + kick[moves] / scale  # the chain rule of V((x - c)/s)
        torch.testing.assert_close(T.value(z), torch.cat(halves, -1))


def test_standardising_does_not_stumble_over_a_coordinate_that_stands_still():
    T = made("shear up")
    z = states("shear up")
    z[..., 1] = 3.0
    T.standardise(z)
    assert (T.scale[:, 1] == 1).all()
    assert T.value(z).isfinite().all()


def test_a_composition_applies_the_first_first():
    first, second = Shear(1, 2, "up", **DOUBLE), Shear(1, 2, "down", **DOUBLE)
    z = torch.tensor([[0.4, -0.3]], dtype=torch.float64)
    assert torch.equal(Composition([first, second]).value(z), second.value(first.value(z)))
    J = second.jacobian(first.value(z))[1] @ first.jacobian(z)[1]
    torch.testing.assert_close(Composition([first, second]).jacobian(z)[1], J)


DOUBLE = {"output_scale": 3.0, "dtype": torch.float64}


class Corrupted(SymplecticMap):
    """Kicks p by a field that is no gradient."""

    def _map(self, z):
        q, p = z.chunk(2, dim=-1)
        kick = torch.stack([q[..., 1], 0 * q[..., 1]], -1)
        return torch.cat([q, p + kick], -1), lambda g: g


def test_the_public_check_passes_and_fails():
    for name in MAPS:
        T, z = made(name), states(name)
        testing.assert_symplectic(T.value, z)
        with pytest.raises(AssertionError, match="J Omega J"):
            testing.assert_symplectic(lambda z, T=T: 1.001 * T.value(z), z)
    z = torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with pytest.raises(AssertionError, match="J Omega J"):
        testing.assert_symplectic(Corrupted(2).value, z[None])


def test_a_given_activation_is_used():
    square = Activation("square", lambda u: (u * u, 2 * u, 2 + 0 * u))
    T = Shear(1, 1, "up", square, dtype=torch.float64)
    with torch.no_grad():
        T.waves.fill_(1.0)
        T.bias.fill_(0.0)
        T.amplitude.fill_(1.5)
    z = torch.tensor([[0.5, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(T.value(z)[0], torch.tensor([[0.5, 2.5]]).double())


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="d = 0, seeds = 1"):
        Shear(0)
    with pytest.raises(ValueError, match=r"seeds = \[\]"):
        LinearPoint(2, [])
    with pytest.raises(ValueError, match=r"direction = 'left'.*'up'"):
        Shear(2, direction="left")
    with pytest.raises(ValueError, match="width = 0"):
        Shear(2, 0)
    with pytest.raises(ValueError, match="'sofplus' is not known"):
        Shear(2, activation="sofplus")
    for plane, others in (((0, 1), [(1, 2)]), ((0, 3), [])):
        with pytest.raises(ValueError, match=r"plane = .*distinct coordinates from 0 to 2"):
            Polar(3, plane, others)
    with pytest.raises(ValueError, match="layers must be 0 or more"):
        shears(2, -1)
    with pytest.raises(ValueError, match=r"\(d, S\) = \[\]"):
        Composition([])
    with pytest.raises(ValueError, match=r"\[\(2, 1\), \(2, 3\)\]"):
        Composition([Shear(2), Shear(2, seeds=3)])
    T = Shear(2, seeds=2)
    for shape in ((4,), (5, 3), (3, 5, 4), (1, 2, 5, 4)):
        with pytest.raises(ValueError, match=r"expected \(B, 4\) or \(2, B, 4\)"):
            T.value(torch.zeros(shape))
    for call in (T.value, T.pull, T.jacobian, T.inverse, T.standardise):
        with pytest.raises(ValueError, match=r"float64.*weights torch.float32"):
            call(torch.zeros(5, 4, dtype=torch.float64))
