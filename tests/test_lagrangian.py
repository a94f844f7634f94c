"""The explicit second-order pass against double backward, sympy and the symmetry groups."""

import math

import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import grad, hessian, vmap

from companion import groups, invariants, symbolic, systems, testing
from companion._activations import ACTIVATIONS, Activation
from companion.lagrangian import LagrangianNetwork, SingularHessianError

LAYERS = {
    "unconstrained": lambda: invariants.Unconstrained(1, 3),
    "rotations": lambda: invariants.Rotations(1, 3),
    "rotations in the plane": lambda: invariants.Rotations(1, 2),
    "translations": lambda: invariants.Translations(2, 4),
    "rotations of two": lambda: invariants.Rotations(2, 4),
    "rotations of three": lambda: invariants.Rotations(3, 3),
    "both": lambda: invariants.RotationsTranslations(2, 4),
    "both in space": lambda: invariants.RotationsTranslations(2, 3),
    "reflections too": lambda: invariants.RotationsTranslations(2, 3, levi_civita=False),
    "schwarzschild": invariants.SchwarzschildRotations,
}
layers = pytest.mark.parametrize("layer", [make() for make in LAYERS.values()], ids=list(LAYERS))
numbers = st.integers(min_value=0, max_value=2**31)


def states(layer, seed, n=6, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, n, layer.d, generator=generator, dtype=torch.float64).to(dtype)


def double_backward(net, q, qdot):
    """The slow reference: gradient and Hessian of the Lagrangian by automatic differentiation."""
    d, one = net.layer.d, net

    def value(z):
        return one.lagrangian(z[None, :d], z[None, d:])[0, 0]

    def acceleration(z):
        H, slope = hessian(value)(z), grad(value)(z)
        return torch.linalg.solve(H[d:, d:], slope[:d] - H[d:, :d] @ z[d:])

    return vmap(acceleration)(torch.cat([q, qdot], dim=-1))


STACKS = [(name, (16, 24), "softplus") for name in LAYERS]
STACKS += [("rotations", hidden, "softplus") for hidden in [(24,), (12, 8, 16)]]
STACKS += [("rotations", (12, 8, 16), activation) for activation in ACTIVATIONS]


@pytest.mark.parametrize(("name", "hidden", "activation"), STACKS)
def test_explicit_pass_equals_double_backward(name, hidden, activation):
    layer = LAYERS[name]()
    q, qdot = states(layer, 3)
    net = LagrangianNetwork(
        layer,
        hidden,
        activation=activation,
        seeds=2,
        mass=[1.0] * layer.d,
        dtype=torch.float64,
        output_scale=0.3,
    )
    net.standardise(*states(layer, 4, n=50))
    explicit = net.acceleration(q, qdot)
    for s in range(2):
        reference = double_backward(net.member(s), q, qdot)
        scale = reference.abs().max()
        assert (explicit[s] - reference).abs().max() / scale < 1e-10


@layers
def test_layer_derivatives_equal_autodiff(layer):
    q, qdot = states(layer, 5)
    z = torch.cat([q, qdot], -1)
    g = torch.randn(len(z), layer.M, generator=torch.Generator().manual_seed(1), dtype=z.dtype)
    jacobian = vmap(torch.func.jacrev(layer.value))(z)
    torch.testing.assert_close(layer.jacobian(q, qdot), jacobian, rtol=1e-12, atol=1e-12)
    weighted = vmap(lambda z, g: hessian(lambda z: (layer.value(z) * g).sum())(z))(z, g)
    torch.testing.assert_close(layer.curvature(q, qdot, g), weighted, rtol=1e-12, atol=1e-12)
    assert len(layer.features) == layer.M == layer(q, qdot).shape[-1]


def act(group, element, layer, x):
    return group.act(element, x.unflatten(-1, (-1, group.d))).flatten(-2)


SYMMETRIES = [
    ("rotations", groups.SO(3)),
    ("rotations in the plane", groups.SO(2)),
    ("rotations of two", groups.SO(4)),
    ("rotations of three", groups.SO(3)),
    ("both", groups.SO(4)),
    ("both in space", groups.SO(3)),
    ("reflections too", groups.O(3)),
]


@pytest.mark.parametrize(("name", "group"), SYMMETRIES, ids=[name for name, _ in SYMMETRIES])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@settings(max_examples=6, deadline=None)
@given(seed=numbers)
def test_rotations_leave_features_and_turn_accelerations(name, group, dtype, seed):
    layer = LAYERS[name]()
    q, qdot = states(layer, seed, dtype=dtype)
    element = group.sample(generator=torch.Generator().manual_seed(seed + 1), dtype=dtype)

    def turn(x):
        return act(group, element, layer, x)

    eps = torch.finfo(dtype).eps
    before, after = layer(q, qdot), layer(turn(q), turn(qdot))
    size = torch.cat([q, qdot], -1).norm(dim=-1).max() ** group.d
    assert (before - after).abs().max() < 50 * eps * max(size, 1)
    net = LagrangianNetwork(layer, (16, 16), mass=[1.0] * layer.d, output_scale=0.02, dtype=dtype)
    a, turned = net.acceleration(q, qdot)[0], net.acceleration(turn(q), turn(qdot))[0]
    A, _ = net.equations_of_motion(q, qdot)
    condition = torch.linalg.cond(A.double()).max().item()
    assert (turn(a) - turned).abs().max() < 2000 * eps * condition * max(a.abs().max(), 1)


@pytest.mark.parametrize("name", ["translations", "both", "both in space"])
@settings(max_examples=6, deadline=None)
@given(seed=numbers)
def test_translations_leave_everything(name, seed):
    layer = LAYERS[name]()
    D = layer.d // 2
    q, qdot = states(layer, seed)
    shift = torch.randn(D, generator=torch.Generator().manual_seed(seed + 1), dtype=q.dtype)
    net = LagrangianNetwork(layer, (16,), mass=[1.0] * layer.d, output_scale=0.1, dtype=q.dtype)
    moved = (q.unflatten(-1, (2, D)) + shift).flatten(-2)
    before, after = net.lagrangian(q, qdot), net.lagrangian(moved, qdot)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-10)


def test_levi_civita_sees_reflections_and_dot_products_do_not():
    q, qdot = states(LAYERS["both in space"](), 8)
    mirror = torch.tensor([1.0, 1.0, -1.0] * 2, dtype=q.dtype)
    seeing, blind = LAYERS["both in space"](), LAYERS["reflections too"]()
    assert (seeing(q, qdot) - seeing(mirror * q, mirror * qdot)).abs().max() > 0.1
    torch.testing.assert_close(blind(q, qdot), blind(mirror * q, mirror * qdot))


def test_number_of_features_is_the_papers():
    """Table 2 of Müller (2023)."""
    assert invariants.Unconstrained(2, 4).M == 16
    assert invariants.Rotations(2, 4).M == 11
    assert invariants.Translations(2, 4).M == 12
    assert invariants.RotationsTranslations(2, 4).M == 6
    assert invariants.Rotations(1, 3).M == 3


def charge_rate(net, q, qdot, generators):
    """dI/dt = qdot . dI/dq + qddot . dI/dqdot, by forward differentiation along the motion."""
    _, rate = torch.func.jvp(
        lambda q, qdot: net.charges(q, qdot, generators),
        (q, qdot),
        (qdot, net.acceleration(q, qdot)[0].detach()),
    )
    return rate


CHARGES = [
    ("rotations", groups.SO(3).generators()),
    ("both", groups.SO(4).generators()),
    ("both", groups.Translation(4).generators()),
    ("translations", groups.Translation(4).generators()),
]


@pytest.mark.parametrize(("name", "generators"), CHARGES, ids=["L", "L and M", "M and L", "M"])
@settings(max_examples=4, deadline=None)
@given(seed=numbers)
def test_random_networks_conserve_their_charges(name, generators, seed):
    """Noether's theorem for random weights: the charge does not change, to rounding."""
    layer = LAYERS[name]()
    q, qdot = states(layer, seed)
    net = LagrangianNetwork(
        layer, (16, 16), seeds=[seed], mass=[1.0] * layer.d, output_scale=0.1, dtype=q.dtype
    )
    A, _ = net.equations_of_motion(q, qdot)
    size = torch.linalg.cond(A).max() * net.acceleration(q, qdot).abs().max().clamp(min=1)
    assert charge_rate(net, q, qdot, generators).abs().max() < 1e-11 * size


def test_the_unconstrained_network_does_not_conserve():
    layer = LAYERS["unconstrained"]()
    q, qdot = states(layer, 1)
    net = LagrangianNetwork(layer, (16, 16), mass=[1.0] * 3, output_scale=0.1, dtype=q.dtype)
    assert charge_rate(net, q, qdot, groups.SO(3).generators()).abs().max() > 1e-2


def test_acceleration_equals_sympy_for_a_lagrangian_written_out():
    """One softplus unit with known weights, derived by sympy from the same formula."""
    layer = invariants.Rotations(1, 2)
    net = LagrangianNetwork(layer, (1,), mass=[1.0, 1.0], dtype=torch.float64)
    with torch.no_grad():
        net.weights[0].copy_(torch.tensor([[[0.3, -0.2, 0.4, 0.1]]], dtype=torch.float64))
        net.biases[0].fill_(0.25)
        net.output.fill_(0.7)
    q, qdot, qddot = symbolic.coordinates("x y")
    dot = lambda a, b: sum(i * j for i, j in zip(a, b, strict=True))  # noqa: E731
    inside = (
        sympy.Rational(3, 10) * dot(q, q)
        - sympy.Rational(1, 5) * dot(q, qdot)
        + sympy.Rational(2, 5) * dot(qdot, qdot)
        + sympy.Rational(1, 10) * (q[0] * qdot[1] - q[1] * qdot[0])
        + sympy.Rational(1, 4)
    )
    L = dot(qdot, qdot) / 2 + sympy.Rational(7, 10) * sympy.log(1 + sympy.exp(inside))
    assert layer.features[-1].count(":") == 1
    residual = symbolic.to_torch(symbolic.euler_lagrange(L, q, qdot, qddot), [q, qdot, qddot])
    x, v = states(layer, 2)
    a = net.acceleration(x, v)[0]
    assert residual(x, v, a).abs().max() < 1e-12 * a.abs().max()
    assert residual(x, v, 1.001 * a).abs().max() > 1e-6


def test_momentum_and_energy_are_derivatives_of_the_lagrangian():
    layer = LAYERS["both in space"]()
    q, qdot = states(layer, 7)
    net = LagrangianNetwork(layer, (8, 8), seeds=3, mass=[0.5] * 6, dtype=q.dtype)
    qdot.requires_grad_()
    L = net.lagrangian(q, qdot)
    for s in range(3):
        (p,) = torch.autograd.grad(L[s].sum(), qdot, retain_graph=True)
        torch.testing.assert_close(net.momentum(q, qdot)[s], p, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(net.energy(q, qdot)[s], (p * qdot).sum(-1) - L[s])


def test_a_member_is_the_network_of_its_seed():
    layer = LAYERS["rotations"]()
    q, qdot = states(layer, 9)
    both = LagrangianNetwork(layer, (8,), seeds=[4, 7], mass=[1.0] * 3, dtype=q.dtype)
    alone = LagrangianNetwork(layer, (8,), seeds=[7], mass=[1.0] * 3, dtype=q.dtype)
    torch.testing.assert_close(both.member(1).lagrangian(q, qdot), alone.lagrangian(q, qdot))
    torch.testing.assert_close(both.lagrangian(q, qdot)[1:], alone.lagrangian(q, qdot))
    with pytest.raises(IndexError, match="member 2 of an ensemble of 2"):
        both.member(2)


def test_cyclic_coordinates_leave_the_features_and_their_velocities_stay():
    layer = invariants.Unconstrained(1, 3, cyclic=[1])
    assert layer.features == (r"{q}_1", r"{q}_3", r"{\dot q}_1", r"{\dot q}_2", r"{\dot q}_3")
    q, qdot = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)).double()
    net = LagrangianNetwork(layer, (16,), mass=[1.0] * 3, output_scale=1.0, dtype=torch.float64)
    moved = q + torch.tensor([0.0, 5.0, 0.0])
    assert torch.equal(net.acceleration(q, qdot), net.acceleration(moved, qdot))
    with pytest.raises(ValueError, match=r"cyclic = \(3,\): expected coordinates from 0 to 2"):
        invariants.Unconstrained(1, 3, cyclic=[3])


def test_first_weights_have_the_papers_spread():
    net = LagrangianNetwork(invariants.Unconstrained(), seeds=40, dtype=torch.float64)
    n = 128
    spreads = [(net.weights[0], 2 / n**0.5), (net.weights[1], n**-0.5), (net.output, n**0.5)]
    for parameter, sd in spreads:
        assert abs(parameter.std().item() / sd - 1) < 4 / math.sqrt(2 * parameter.numel())
    assert all(not b.any() for b in net.biases)


def test_softplus_keeps_its_second_derivative_in_float64():
    u = torch.tensor([25.0, 30.0], dtype=torch.float64)
    value, slope, bend = ACTIVATIONS["softplus"].jet(u)
    torch.testing.assert_close(value - u, torch.exp(-u), rtol=0.1, atol=0)
    torch.testing.assert_close(bend, torch.exp(-u), rtol=0.1, atol=0)
    assert ((1 - slope) > 0).all()


def test_singular_hessian_is_refused_with_its_state():
    layer = invariants.Unconstrained(1, 2)
    net = LagrangianNetwork(layer, (4,), seeds=2, dtype=torch.float64)
    with torch.no_grad():
        net.output[1].zero_()
    q, qdot = states(layer, 0, n=2)
    with pytest.raises(SingularHessianError, match=r"member 1, state 0.*q = \[1.*mass="):
        net.acceleration(q.abs() * 0 + 1.5, qdot)
    assert not net.acceleration(q, qdot, check=False)[1].isfinite().any()


def test_bad_input_is_refused():
    layer = LAYERS["rotations"]()
    net = LagrangianNetwork(layer, (4,), seeds=2)
    q, qdot = states(layer, 0, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"float64.*weights torch.float32"):
        net.acceleration(q.double(), qdot.double())
    with pytest.raises(ValueError, match=r"q and qdot must share one floating dtype"):
        layer(q, qdot.double())
    with pytest.raises(ValueError, match=r"d = 3 coordinates for Rotations"):
        layer(q[:, :2], qdot[:, :2])
    with pytest.raises(ValueError, match=r"same shape"):
        layer(q, qdot[:3])
    with pytest.raises(ValueError, match=r"one device"):
        layer(q, qdot.to("meta"))
    with pytest.raises(ValueError, match=r"S = 2 members.*q\[None\]"):
        net.lagrangian(q[0], qdot[0])
    with pytest.raises(ValueError, match=r"S = 2 members"):
        net.lagrangian(q.expand(3, 6, 3), qdot.expand(3, 6, 3))
    with pytest.raises(ValueError, match=r"softplus.*relu is not offered"):
        LagrangianNetwork(layer, (4,), activation="softpls")
    with pytest.raises(ValueError, match=r"mass must be 3 finite numbers"):
        LagrangianNetwork(layer, (4,), mass=[1.0, 2.0])
    with pytest.raises(ValueError, match=r"hidden and seeds must not be empty"):
        LagrangianNetwork(layer, ())
    with pytest.raises(ValueError, match=r"at least 2 for invariance under translations"):
        invariants.Translations(1, 3)
    with pytest.raises(ValueError, match=r"do not divide the d = 3"):
        net.charges(q, qdot, groups.SO(2).generators())


def test_a_given_activation_is_used():
    cube = Activation("cube", lambda u: (u**3, 3 * u**2, 6 * u))
    layer = invariants.Unconstrained(1, 1)
    q, qdot = states(layer, 1)
    net = LagrangianNetwork(
        layer, (5,), activation=cube, mass=[1.0], output_scale=0.1, dtype=q.dtype
    )
    reference = double_backward(net, q, qdot)
    torch.testing.assert_close(net.acceleration(q, qdot)[0], reference, rtol=1e-10, atol=1e-10)


def test_the_public_helpers_see_the_symmetry_and_its_absence():
    SO3 = groups.SO(3)
    elements = SO3.sample(4, generator=torch.Generator().manual_seed(1))
    inputs = systems.Kepler().sample(5, torch.Generator().manual_seed(0))
    for name, holds in [("rotations", True), ("unconstrained", False)]:
        net = LagrangianNetwork(LAYERS[name](), (8,), mass=[1.0] * 3, dtype=torch.float64)
        if holds:
            testing.assert_invariant(net.lagrangian, SO3.act, inputs, elements=elements)
        else:
            with pytest.raises(AssertionError):
                testing.assert_invariant(net.lagrangian, SO3.act, inputs, elements=elements)
