"""companion.phase_space against sympy, autograd, and the networks that stand on it."""

import math
from functools import partial

import pytest
import sympy
import torch

from companion import symbolic
from companion.hamiltonian import HamiltonianNetwork
from companion.integrators import rk4_step
from companion.phase_space import Coordinates, bracket, brackets, omega, symplectic_gradient
from companion.testing import assert_symplectic
from companion.vectorfield import VectorField

PAIRS = [(1, ()), (1, (0,)), (3, (0, 2)), (3, (2, 0)), (2, (0, 1))]  # d, angles


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gradient(f, z: torch.Tensor) -> torch.Tensor:
    """By autograd: of f, one number a state, at every state."""
    z = z.clone().requires_grad_()
    return torch.autograd.grad(f(z).sum(), z)[0]


def divergence(field, z: torch.Tensor) -> torch.Tensor:
    """Trace of the Jacobian of a field `(S, B, n) -> (S, B, n)`, by autograd."""
    z = z.clone().requires_grad_()
    rate = field(z)
    rows = range(z.shape[-1])
    return torch.stack(
        [torch.autograd.grad(rate[..., i].sum(), z, retain_graph=True)[0][..., i] for i in rows]
    ).sum(0)


# Omega and the brackets ---------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 5])
def test_omega_is_antisymmetric_with_square_minus_one(d):
    J = omega(d)
    assert torch.equal(J.T, -J)
    assert torch.equal(J @ J, -torch.eye(2 * d, dtype=torch.float64))
    assert torch.equal(J[:d, d:], torch.eye(d, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_symplectic_gradient_is_omega_times_gradient(dtype):
    g = normal(4, 7, 6, dtype=dtype)
    assert torch.equal(symplectic_gradient(g), g @ omega(3, dtype).T)


@pytest.mark.parametrize("d", [0, -1])
def test_omega_refuses_no_degrees_of_freedom(d):
    with pytest.raises(ValueError, match="d must be 1 or more"):
        omega(d)


def functions() -> tuple[list[sympy.Symbol], list[sympy.Symbol], list[sympy.Expr]]:
    """Two positions, two momenta, and functions of them that do not commute."""
    (x, y), _, _ = symbolic.coordinates("x y")
    px, py = symbolic.momenta("x y")
    f = [
        x * py - y * px,
        px**2 / 2 + py**2 / 3 + sympy.cos(x) * y,
        sympy.exp(x * px / 5) + y,
        sympy.sin(y - py) * x**2,
    ]
    return [x, y], [px, py], f


def test_brackets_equal_sympys_at_random_points():
    q, p, f = functions()
    z = [*q, *p]
    J = symbolic.to_torch([[g.diff(a) for a in z] for g in f], [z], {})(normal(50, 4))
    table = [[symbolic.poisson_bracket(a, b, q, p) for b in f] for a in f]
    expected = symbolic.to_torch(table, [z], {})(normal(50, 4))
    assert expected.abs().amax(0).add(torch.eye(4)).min() > 0.1  # no pair commutes
    torch.testing.assert_close(brackets(J), expected, rtol=1e-12, atol=1e-12)
    rows = J[:, :, None].expand(50, 4, 4, 4)
    one_by_one = bracket(rows, rows.transpose(1, 2))
    torch.testing.assert_close(one_by_one, expected, rtol=1e-12, atol=1e-12)


def test_brackets_of_the_coordinates_are_omega():
    assert torch.equal(brackets(torch.eye(6, dtype=torch.float64)), omega(3))


def test_bracket_with_an_energy_is_the_rate_of_change():
    grad_f, grad_h = normal(20, 4), normal(20, 4, seed=1)
    along = (grad_f * symplectic_gradient(grad_h)).sum(-1)
    torch.testing.assert_close(bracket(grad_f, grad_h), along)
    torch.testing.assert_close(bracket(grad_h, grad_f), -along)


# Coordinates --------------------------------------------------------------------------------------


def test_value_lists_straight_coordinates_then_cosines_then_sines():
    z = normal(5, 6)
    phi = Coordinates(3, angles=(2, 0)).value(z[..., None])
    expected = torch.stack(
        [z[:, 1], *z[:, 3:].unbind(-1), z[:, 2].cos(), z[:, 0].cos(), z[:, 2].sin(), z[:, 0].sin()],
        dim=-1,
    )
    assert torch.equal(phi, expected)


def test_without_angles_the_features_are_the_coordinates():
    z = normal(2, 5, 6)
    layer = Coordinates(3)
    assert layer.M == 6
    assert torch.equal(layer.value(z[..., None]), z)


@pytest.mark.parametrize(("d", "angles"), PAIRS)
def test_gradient_equals_autograds(d, angles):
    layer = Coordinates(d, angles)
    z, beta = normal(2, 7, 2 * d), normal(2, 7, layer.M, seed=1)
    slope = layer.gradient(z[..., None], beta)
    assert slope.shape == (2, 7, 2 * d, 1)
    expected = gradient(lambda z: (layer.value(z[..., None]) * beta).sum(-1), z)
    torch.testing.assert_close(slope.squeeze(-1), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("d", "angles"), PAIRS)
def test_a_full_turn_of_an_angle_and_of_nothing_else_is_no_change(d, angles):
    layer, z = Coordinates(d, angles), normal(9, 2 * d)
    phi = layer.value(z[..., None])
    for i in range(2 * d):
        turned = z.clone()
        turned[:, i] += 2 * math.pi
        same = torch.allclose(layer.value(turned[..., None]), phi, rtol=1e-13, atol=1e-13)
        assert same == (i in angles)


@pytest.mark.parametrize(
    ("d", "angles"), [(0, ()), (2, (2,)), (2, (-1,)), (2, (0, 0)), (2, (0, 1, 3))]
)
def test_coordinates_refuse_angles_that_are_no_positions(d, angles):
    with pytest.raises(ValueError, match="expected d >= 1 and distinct positions"):
        Coordinates(d, angles)


@pytest.mark.parametrize("shape", [(5, 4, 1), (5, 6, 2), (5, 6)])
def test_coordinates_refuse_states_of_another_shape(shape):
    with pytest.raises(ValueError, match="3 positions, then 3 momenta"):
        Coordinates(3, (0,)).value(torch.zeros(shape))


# Networks on coordinates --------------------------------------------------------------------------


def network(cls, d: int, angles: tuple[int, ...]):
    net = cls(Coordinates(d, angles), d, (16, 16), "tanh", seeds=3, output_scale=1.0)
    net = net.double()
    net.standardise(2 * normal(50, 2 * d, seed=5))
    return net


@pytest.mark.parametrize(("d", "angles"), PAIRS)
def test_the_field_of_a_hamiltonian_network_is_omega_grad_energy(d, angles):
    net, z = network(HamiltonianNetwork, d, angles), normal(3, 8, 2 * d)
    expected = symplectic_gradient(gradient(net.energy, z))
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(net(z), expected, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(net.field()(z), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("d", "angles"), PAIRS)
def test_divergence_vanishes_for_an_energy_and_not_for_plain_rates(d, angles):
    z = normal(3, 8, 2 * d)
    assert divergence(network(HamiltonianNetwork, d, angles).field(), z).abs().max() < 1e-12
    assert divergence(network(VectorField, d, angles).field(), z).abs().max() > 1e-3


@pytest.mark.parametrize("cls", [HamiltonianNetwork, VectorField])
def test_networks_do_not_notice_a_full_turn(cls):
    net, z = network(cls, 3, (0, 2)), normal(3, 8, 6)
    turned = z + 2 * math.pi * torch.tensor([1.0, 0, -2, 0, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(net(turned), net(z), rtol=1e-11, atol=1e-12)
    assert not torch.allclose(net(turned + 1), net(z))


def test_plain_rates_are_the_outputs_of_the_network():
    net, z = network(VectorField, 3, (0, 2)), normal(3, 8, 6)
    assert torch.equal(net(z), net.core.value(net.layer.value(z[..., None])))


def test_states_without_members_are_the_same_for_all():
    net, z = network(HamiltonianNetwork, 2, (1,)), normal(8, 4)
    assert torch.equal(net(z), net(z.expand(3, 8, 4)))


def test_a_short_step_is_symplectic_for_an_energy_and_not_for_plain_rates():
    """The step is so small that RK4's own defect is below rounding."""
    z = normal(3, 8, 4)
    for cls, keeps in ((HamiltonianNetwork, True), (VectorField, False)):
        step = partial(rk4_step, network(cls, 2, (0,)).field(), dt=1e-3)
        assert (assert_symplectic(step, z, rtol=math.inf) < 1e-13) == keeps


def test_gradients_reach_the_weights_through_the_field():
    """The derivative of the loss through the closed form, against double backward."""
    net, z, rates = network(HamiltonianNetwork, 2, (1,)), normal(3, 8, 4), normal(3, 8, 4, seed=2)
    (net(z) - rates).square().sum().backward()
    closed = [w.grad.clone() for w in net.parameters() if w.grad is not None]

    z = z.requires_grad_()
    slope = torch.autograd.grad(net.energy(z).sum(), z, create_graph=True)[0]
    loss = (symplectic_gradient(slope) - rates).square().sum()
    used = [w for w in net.parameters() if w.grad is not None]
    for ours, judge in zip(closed, torch.autograd.grad(loss, used), strict=True):
        torch.testing.assert_close(ours, judge, rtol=1e-9, atol=1e-10)
