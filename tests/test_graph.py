"""Graph Lagrangians: the structured acceleration against a dense one, and the symmetries."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import grad, hessian, jvp, vmap

from companion import groups, integrators, testing
from companion.graph import GraphLagrangian
from companion.lagrangian import SingularHessianError
from companion.systems.many_body import ManyBody

numbers = st.integers(min_value=0, max_value=2**31)
few = settings(max_examples=6, deadline=None)
MASSES = [0.5, 1.0, 1.5, 1.0]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def clusters(N=4, n=3, seed=0, dtype=torch.float64):
    masses = (MASSES * N)[:N]
    return ManyBody(masses).sample(n, seeded(seed), dtype)


def network(N=4, dtype=torch.float64, **options):
    """Random weights with a large F, so that every term of the acceleration counts."""
    options = {"output_scale": 0.3, "hidden": (8, 12), "mass": (MASSES * N)[:N]} | options
    net = GraphLagrangian(3, dtype=dtype, **options)
    net.standardise(*clusters(N, 20, 9, dtype))
    return net


def dense(net, q, qdot):
    """The slow reference: the whole Hessian by torch.func, and a full solve."""
    d = q.shape[-1]

    def value(z):
        return net.lagrangian(z[None, :d], z[None, d:])[0, 0]

    def acceleration(z):
        H, slope = hessian(value)(z), grad(value)(z)
        return torch.linalg.solve(H[d:, d:], slope[:d] - H[d:, :d] @ z[d:])

    return vmap(acceleration)(torch.cat([q, qdot], dim=-1))


OPTIONS = {
    "pairs": {"messages": 1},
    "messages": {"messages": 3},
    "pinned": {"pinned": True, "messages": 2},
    "pinned pairs": {"pinned": True, "messages": 1},
    "softplus": {"activation": "softplus", "hidden": (8,)},
    "no masses": {"mass": None},
}
kinds = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())


# The acceleration ------------------------------------------------------------------------------


@kinds
def test_structured_acceleration_equals_the_dense_one(options):
    net = network(seeds=2, **options)
    q, qdot = clusters()
    found = net.acceleration(q, qdot)
    for s in range(2):
        expected = dense(net.member(s), q, qdot)
        assert (found[s] - expected).abs().max() < 1e-10 * expected.abs().max()


@pytest.mark.parametrize("pinned", [False, True])
def test_gradients_equal_those_of_the_dense_one(pinned):
    """What training sees: the same derivative of a loss in every weight."""
    net = network(N=3, hidden=(4,), pinned=pinned)
    q, qdot = clusters(3, 2)
    slopes = []
    for acceleration in (net.acceleration(q, qdot)[0], dense(net, q, qdot)):
        slopes.append(torch.autograd.grad(acceleration.square().sum(), list(net.parameters())))
    for ours, theirs in zip(*slopes, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


@kinds
def test_momentum_and_energy_are_derivatives_of_the_lagrangian(options):
    net = network(seeds=2, **options)
    q, qdot = clusters()
    qdot.requires_grad_()
    L = net.lagrangian(q, qdot)
    p = torch.stack([torch.autograd.grad(x.sum(), qdot, retain_graph=True)[0] for x in L])
    torch.testing.assert_close(net.momentum(q, qdot), p, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(net.energy(q, qdot), (p * qdot).sum(-1) - L)


def test_the_velocity_hessian_is_block_diagonal():
    net = network(messages=3)
    q, qdot = clusters(n=1)
    H = hessian(lambda v: net.lagrangian(q, v[None])[0, 0])(qdot[0])
    blocks = H.view(4, 3, 4, 3).movedim(2, 1)  # (i, j, D, D)
    own = torch.eye(4, dtype=torch.bool)
    assert blocks[~own].abs().max() == 0
    v = qdot.view(4, 3)
    for i in range(4):  # a multiple of the unit matrix, and one of v v^T
        across = torch.linalg.qr(torch.stack([v[i], *torch.eye(3).double()[:2]], -1))[0]
        block = across.T @ blocks[i, i] @ across
        torch.testing.assert_close(block, torch.diag(block.diagonal()))
        torch.testing.assert_close(block[1, 1], block[2, 2])


# Symmetries --------------------------------------------------------------------------------------


def charge_rate(net, q, qdot, generators):
    motion = (qdot, net.acceleration(q, qdot)[0].detach())
    return jvp(lambda *x: net.charges(*x, generators), (q, qdot), motion)[1]


@pytest.mark.parametrize("messages", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@few
@given(seed=numbers)
def test_rotations_reflections_and_translations(messages, dtype, seed):
    net = network(messages=messages, dtype=dtype, output_scale=0.05)
    states = clusters(seed=seed, dtype=dtype)
    O3, shifts = groups.O(3), groups.Translation(3)

    def turn(g, x):
        return O3.act(g, x.unflatten(-1, (-1, 3))).flatten(-2)

    def shift(g, x):
        return shifts.act(g, x.unflatten(-1, (-1, 3))).flatten(-2)

    elements = O3.sample(2, generator=seeded(seed + 1), dtype=dtype)
    moves = shifts.sample(2, generator=seeded(seed + 2), dtype=dtype)
    testing.assert_invariant(net.lagrangian, turn, states, elements=elements)
    testing.assert_equivariant(net.acceleration, turn, states, elements=elements)
    testing.assert_invariant(net.lagrangian, (shift, None), states, elements=moves)
    testing.assert_invariant(net.acceleration, (shift, None), states, elements=moves)


@few
@given(order=st.permutations(range(5)), seed=numbers)
def test_permutations(order, seed):
    masses = [0.5, 1.0, 1.5, 1.0, 0.7]
    net = network(N=5, mass=masses, messages=3)
    q, qdot = ManyBody(masses).sample(2, seeded(seed))
    moved = net.bodies([masses[i] for i in order])

    def permuted(x):
        return x.unflatten(-1, (5, 3))[..., order, :].flatten(-2)

    torch.testing.assert_close(
        moved.lagrangian(permuted(q), permuted(qdot)), net.lagrangian(q, qdot)
    )
    torch.testing.assert_close(
        moved.acceleration(permuted(q), permuted(qdot)), permuted(net.acceleration(q, qdot))
    )


@pytest.mark.parametrize("messages", [1, 3])
@few
@given(seed=numbers)
def test_random_networks_conserve_momentum_and_angular_momentum(messages, seed):
    net = network(seeds=[seed], messages=messages, output_scale=0.1)
    q, qdot = clusters(seed=seed)
    size = 1 + net.acceleration(q, qdot).abs().max()
    for generators in (groups.Translation(3).generators(), groups.SO(3).generators()):
        assert charge_rate(net, q, qdot, generators).abs().max() < 1e-11 * size


def test_pinned_networks_keep_rotations_and_lose_translations():
    net = network(pinned=True)
    q, qdot = clusters()
    assert charge_rate(net, q, qdot, groups.SO(3).generators()).abs().max() < 1e-10
    assert charge_rate(net, q, qdot, groups.Translation(3).generators()).abs().max() > 1e-3


@pytest.mark.parametrize(("N", "dt", "steps"), [(4, 0.05, 10), (64, 0.02, 5)])
def test_charges_along_a_rollout_drift_by_the_integrators_order(N, dt, steps):
    """Random weights, N up to 64: halving the step divides the drift by 16 or more."""
    net = network(messages=2, output_scale=0.03).bodies((MASSES * N)[:N])
    q, qdot = clusters(N, 1)
    y = torch.cat([q, qdot], dim=-1)[None]
    for group in (groups.Translation(3), groups.SO(3)):
        drifts = []
        for halvings in (0, 1):
            with torch.no_grad():
                path = integrators.solve(
                    net.rhs, y, dt / 2**halvings, steps * 2**halvings, every=2**halvings
                )
            charges = net.charges(*path[:, 0].transpose(0, 1).chunk(2, -1), group.generators())
            drifts.append((charges[0] - charges[0, :1]).norm(dim=-1).max().item())
        assert drifts[0] > 12 * drifts[1] > 0
        assert drifts[1] < 1e-4 * q.norm() * qdot.norm()


def test_charges_in_float32():
    net = network(messages=2, dtype=torch.float32, output_scale=0.03)
    q, qdot = clusters(dtype=torch.float32)
    y = torch.cat([q, qdot], dim=-1)[None]
    with torch.no_grad():
        path = integrators.solve(net.rhs, y, 0.01, 50)[:, 0]
    states = path.flatten(0, 1).chunk(2, -1)  # time and clusters share the batch axis
    charges = net.charges(*states, groups.SO(3).generators()).detach().view(51, 3, 3)
    size = (q.norm(dim=-1) * net.momentum(q, qdot)[0].norm(dim=-1)).detach()
    assert ((charges - charges[0]).norm(dim=-1) / size).max() < 2e-5


# The class ---------------------------------------------------------------------------------------


def test_weights_do_not_know_the_number_of_bodies():
    net = network(N=4)
    more = net.bodies([1.0] * 9)
    assert net.mass.shape == (4,)
    assert more.mass.shape == (9,)
    assert {k: id(v) for k, v in net.named_parameters()} == {
        k: id(v) for k, v in more.named_parameters()
    }
    assert more.acceleration(*clusters(9)).shape == (1, 3, 27)
    assert not any("mass" in name for name in net.state_dict())
    GraphLagrangian(3, (8, 12), mass=[1.0] * 9).load_state_dict(net.state_dict())


def test_a_far_away_body_is_a_body_that_is_not_there():
    """The pair energy of a distant body hardly varies: what is left moves as without it."""
    net = network(messages=1).bodies([1.0] * 3)
    q, qdot = clusters(3)
    far = torch.full((3, 3), 1e6, dtype=q.dtype)
    two = net.bodies([1.0] * 2).acceleration(q[:, :6], qdot[:, :6])
    q3, v3 = torch.cat([q[:, :6], far], -1), torch.cat([qdot[:, :6], 0 * far], -1)
    torch.testing.assert_close(net.acceleration(q3, v3)[..., :6], two, rtol=0, atol=1e-4)


def test_a_member_is_the_network_of_its_seed():
    both = GraphLagrangian(3, (8,), seeds=[4, 7], dtype=torch.float64)
    alone = GraphLagrangian(3, (8,), seeds=[7], dtype=torch.float64)
    q, qdot = clusters()
    torch.testing.assert_close(both.lagrangian(q, qdot)[1:], alone.lagrangian(q, qdot))
    torch.testing.assert_close(both.member(1).acceleration(q, qdot), alone.acceleration(q, qdot))
    with pytest.raises(IndexError, match="member 2 of an ensemble of 2"):
        both.member(2)


def test_standardise_centres_every_member():
    net = GraphLagrangian(3, (8,), seeds=2, mass=MASSES, dtype=torch.float64)
    q, qdot = clusters(n=40)
    net.standardise(q, qdot)
    s = torch.cdist(q.view(-1, 4, 3), q.view(-1, 4, 3)).square()
    s = s[:, ~torch.eye(4, dtype=torch.bool)]
    torch.testing.assert_close(net.edge.centre[:, 0], s.log1p().mean().expand(2))
    assert net.vertex.scale.shape == (2, 5)
    assert (net.vertex.scale > 0).all()


def test_singular_block_is_refused_with_its_body():
    net = GraphLagrangian(3, (4,), mass=[1.0, 0.0], dtype=torch.float64)
    with torch.no_grad():
        net.vertex.output.zero_()
    q, qdot = clusters(2)
    with pytest.raises(SingularHessianError, match=r"member 0, state 0, body 1: .*mu = 0"):
        net.acceleration(q, qdot)
    assert not net.acceleration(q, qdot, check=False).isfinite().all()


def test_bad_input_is_refused():
    net = network(seeds=2)
    q, qdot = clusters()
    with pytest.raises(ValueError, match=r"float32.*weights torch.float64.*\.to"):
        net.acceleration(q.float(), qdot.float())
    with pytest.raises(ValueError, match=r"\(B, N\*D\).*q\[None\]"):
        net.lagrangian(q[0], qdot[0])
    with pytest.raises(ValueError, match=r"D = 3, got \(3, 11\)"):
        net.lagrangian(q[:, 1:], qdot[:, 1:])
    with pytest.raises(ValueError, match=r"S = 2 members"):
        net.lagrangian(q.expand(3, 3, 12), qdot.expand(3, 3, 12))
    with pytest.raises(ValueError, match=r"3 bodies and the network 4 masses.*net\.bodies"):
        net.lagrangian(q[:, :9], qdot[:, :9])
    with pytest.raises(ValueError, match=r"act on 2 dimensions, the bodies move in 3"):
        net.charges(q, qdot, groups.SO(2).generators())
    with pytest.raises(ValueError, match=r"finite numbers, one a body"):
        net.bodies([1.0, float("nan")])
    with pytest.raises(ValueError, match=r"messages=0"):
        GraphLagrangian(3, messages=0)
    with pytest.raises(ValueError, match=r"hidden=\(\)"):
        GraphLagrangian(3, ())
    with pytest.raises(ValueError, match="relu is not offered"):
        GraphLagrangian(3, activation="relu")
