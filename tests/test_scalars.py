"""Layers of vectors, and the networks on them: against autodiff, the group, and the system."""

import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import jacrev, vmap

from companion import groups, symbolic, systems, testing
from companion.hamiltonian import HamiltonianNetwork
from companion.scalars import Components, Scalars, combine, gram
from companion.vectorfield import VectorField

# q_1, q_2, p_1, p_2, q_o, g
RELATIVE = [
    [1, 0, 0, 0, -1, 0],
    [-1, 1, 0, 0, 0, 0],
    [0, 0, 1, 0, 0, 0],
    [0, 0, 0, 1, 0, 0],
    [0, 0, 0, 0, 0, 1],
]
MIXED = torch.tensor([[1.0, 0.5, 0.0], [0.0, -1.0, 2.0], [0.3, 0.3, 0.3], [0.0, 0.0, 1.0]])
LAYERS = {
    "products": Scalars(MIXED, 3),
    "products and lengths": Scalars(MIXED, 3, lengths=(0, 2)),
    "plane": Scalars(MIXED, 2, lengths=(3,)),
    "lorentz": Scalars(MIXED, 4, metric=groups.Lorentz(4).metric()),
    "components": Components(MIXED, 3),
    "components and lengths": Components(MIXED, 3, lengths=(1,)),
}
layers = pytest.mark.parametrize("layer", LAYERS.values(), ids=list(LAYERS))
numbers = st.integers(min_value=0, max_value=2**31)
few = settings(deadline=None, max_examples=15)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@layers
def test_gradient_of_features_equals_autodiff(layer):
    v = normal(7, layer.n, layer.D)
    beta = normal(7, layer.M, seed=1)
    reference = vmap(lambda v, beta: jacrev(lambda v: (layer.value(v) * beta).sum())(v))(v, beta)
    torch.testing.assert_close(layer.gradient(v, beta), reference, rtol=1e-12, atol=1e-12)


def test_scalars_are_the_products_and_lengths_by_name():
    a = [sympy.Matrix(sympy.symbols(f"a_{k}x a_{k}y a_{k}z", real=True)) for k in range(2)]
    expressions = [a[1].dot(a[1]) ** sympy.Rational(1, 2)]
    expressions += [a[i].dot(a[j]) for i, j in ((0, 0), (0, 1), (1, 1))]
    reference = symbolic.to_torch(expressions, [tuple(x) for x in a])
    v = normal(5, 2, 3)
    layer = Scalars(torch.eye(2), lengths=[1])
    torch.testing.assert_close(layer.value(v), reference(*v.unbind(-2)))


@pytest.mark.parametrize("name", ["products", "products and lengths", "plane", "lorentz"])
@few
@given(seed=numbers)
def test_scalars_are_invariant_and_their_vectors_equivariant(name, seed):
    layer = LAYERS[name]
    group = groups.Lorentz(4) if name == "lorentz" else groups.O(layer.D)
    g = group.sample(4, generator=torch.Generator().manual_seed(seed))
    v = normal(6, layer.n, layer.D, seed=seed)
    W = normal(layer.outputs(2), layer.M, seed=seed + 1)
    testing.assert_invariant(layer.value, group.act, v, elements=g, rtol=1e-8)
    testing.assert_equivariant(
        lambda v: layer.vectors(v, torch.tanh(layer.value(v) @ W.T)),
        group.act,
        v,
        elements=g,
        rtol=1e-8,
    )


def test_components_are_neither():
    layer, group = LAYERS["components"], groups.O(3)
    g = group.sample(4, generator=torch.Generator().manual_seed(1))
    with pytest.raises(AssertionError):
        testing.assert_invariant(layer.value, group.act, normal(6, 3, 3), elements=g)


def test_gram_and_combine_are_what_they_say():
    v, f = normal(4, 3, 2), normal(4, 3, seed=1)
    torch.testing.assert_close(gram(v), torch.einsum("bix,bjx->bij", v, v))
    torch.testing.assert_close(combine(f, v), torch.einsum("bi,bix->bx", f, v))
    eta = torch.tensor([[1.0, 0.5], [0.5, -2.0]], dtype=torch.float64)
    torch.testing.assert_close(gram(v, eta), torch.einsum("bix,xy,bjy->bij", v, eta, v))


def test_bad_layers_are_refused():
    with pytest.raises(ValueError, match="row for each combination"):
        Scalars(torch.ones(3))
    with pytest.raises(ValueError, match="numbers from 0 to 3"):
        Scalars(MIXED, lengths=[4])
    with pytest.raises(ValueError, match="norms may be negative"):
        Scalars(MIXED, 4, lengths=[0], metric=torch.eye(4))
    with pytest.raises(ValueError, match="3 vectors in 3 dimensions"):
        LAYERS["products"].value(normal(5, 4, 3))


# Networks


def networks(dtype=torch.float64, **options):
    layer = Scalars(RELATIVE, lengths=(0, 1))
    return [
        make(layer, 2, (16, 16), seeds=[3, 4], output_scale=1.0, dtype=dtype, **options)
        for make in (VectorField, HamiltonianNetwork)
    ]


def states(seed, n=6, dtype=torch.float64):
    """Positions, momenta; pivot and gravity."""
    return normal(n, 12, seed=seed).to(dtype), normal(n, 2, 3, seed=seed + 1).to(dtype)


def moved(element, shift, z, given_):
    """z and (q_o, g) turned by an orthogonal matrix, positions and pivot shifted."""
    v = z.unflatten(-1, (4, 3)) @ element.T
    v = torch.cat([v[..., :2, :] + shift, v[..., 2:, :]], dim=-2)
    new = given_ @ element.T
    return v.flatten(-2), torch.cat([new[..., :1, :] + shift, new[..., 1:, :]], dim=-2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@few
@given(seed=numbers)
def test_field_is_equivariant_and_energy_invariant_at_random_weights(dtype, seed):
    """Eq. (7): O(3) on everything, translations on positions and pivot."""
    rtol = 1e-9 if dtype == torch.float64 else 2e-3
    element = groups.O(3).sample(generator=torch.Generator().manual_seed(seed)).to(dtype)
    shift = normal(3, seed=seed + 2).to(dtype)
    z, given_ = states(seed, dtype=dtype)
    new = moved(element, shift, z, given_)
    for net in networks(dtype):
        rate = net(z, given_)
        turned = (rate.unflatten(-1, (4, 3)) @ element.T).flatten(-2)
        scale = rate.abs().amax(-1, keepdim=True).clamp(min=1)
        assert ((net(*new) - turned).abs() / scale).max() < rtol
        if isinstance(net, HamiltonianNetwork):
            energy = net.energy(z, given_)
            torch.testing.assert_close(net.energy(*new), energy, rtol=rtol, atol=rtol)


def test_a_shift_of_positions_alone_is_seen():
    z, given_ = states(1)
    v = z.unflatten(-1, (4, 3)) + torch.tensor([[1.0], [1.0], [0.0], [0.0]])
    for net in networks():
        assert (net(v.flatten(-2), given_) - net(z, given_)).abs().max() > 1e-3


def test_hamiltonian_field_is_the_symplectic_gradient_of_the_energy():
    _, net = networks()
    z, given_ = states(7)
    z.requires_grad_()
    energy = net.energy(z, given_)
    for s in range(2):
        (slope,) = torch.autograd.grad(energy[s].sum(), z, retain_graph=True)
        expected = torch.cat([slope[:, 6:], -slope[:, :6]], dim=-1)
        torch.testing.assert_close(net(z, given_)[s], expected, rtol=1e-10, atol=1e-10)


def test_hamiltonian_field_keeps_energy_and_l_perp_and_a_vector_field_does_not():
    """Exact statements, so along the field itself: no integrator has a part in it."""
    pendulum = systems.SpringyPendulum(g=(0.3, -0.4, -1.2), pivot=(1.0, 2.0, 3.0))
    field, net = networks()
    q, qdot = pendulum.sample(20, torch.Generator().manual_seed(3))
    z = torch.cat([q, qdot], dim=-1).requires_grad_()
    charge = pendulum.charges(z[:, :6], z[:, 6:]).squeeze(-1)
    (slope,) = torch.autograd.grad(charge.sum(), z)
    rates = {"net": net(z, pendulum.given), "field": field(z, pendulum.given)}
    change = {name: (rate * slope).sum(-1).abs().max() for name, rate in rates.items()}
    assert change["net"] < 1e-11
    assert change["field"] > 1e-2
    energy = net.energy(z, pendulum.given)
    for s in range(2):
        (slope,) = torch.autograd.grad(energy[s].sum(), z, retain_graph=True)
        assert (rates["net"][s] * slope).sum(-1).abs().max() < 1e-11


def test_extra_scalars_reach_the_network():
    z, given_ = states(2)
    for net in networks(extra=1):
        net.standardise(z, given_, normal(6, 1))
        one, two = (net(z, given_, torch.full((6, 1), x)) for x in (1.0, 2.0))
        assert (one - two).abs().max() > 1e-4
        with pytest.raises(ValueError, match="got 0 scalars, expected 1"):
            net(z, given_)


def test_standardised_features_have_mean_zero_and_spread_one():
    z, given_ = states(5, n=200)
    for net in networks():
        net.standardise(z, given_)
        x = net.core._scaled(net.features(net.vectors(z, given_)))
        assert x.mean(1).abs().max() < 1e-10
        torch.testing.assert_close(x.std(1), torch.ones(2, 17, dtype=x.dtype))


def test_members_are_independent_of_each_other():
    z, given_ = states(6)
    for net in networks():
        both = net(z, given_)
        alone = type(net)(net.layer, 2, (16, 16), seeds=[4], output_scale=1.0, dtype=torch.float64)
        torch.testing.assert_close(alone(z, given_)[0], both[1])
        net.keep(1)
        assert net.S == 1
        torch.testing.assert_close(net(z, given_)[0], both[1])


def test_bad_states_are_refused_with_what_was_expected():
    net = networks()[0]
    z, given_ = states(1)
    with pytest.raises(ValueError, match=r"expected \(S, B, 12\)"):
        net(z[:, :6], given_)
    with pytest.raises(ValueError, match="must be the S = 2 members"):
        net(z.expand(3, -1, -1), given_)
    with pytest.raises(ValueError, match="got nothing, expected"):
        net(z)
    with pytest.raises(ValueError, match=r"got shape \(6, 1, 3\)"):
        net(z, given_[:, :1])
    with pytest.raises(ValueError, match="have 4 vectors, the layer takes 3"):
        VectorField(Scalars(MIXED), 2)
    with pytest.raises(ValueError, match="one seed or more"):
        VectorField(Scalars(RELATIVE), 2, (8,), seeds=[])
