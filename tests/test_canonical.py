"""Symmetry control networks against automatic differentiation, the paper's sums, and sympy."""

from itertools import combinations

import pytest
import sympy
import torch
from torch.func import grad, jacrev, vmap

from companion import integrators, symbolic, symplectic, testing
from companion.canonical import SymmetryControlNetwork, Transformation
from companion.phase_space import symplectic_gradient

F64 = torch.float64
ANGLES = pytest.mark.parametrize("angles", [(), (0,), (2, 0)], ids=str)
# n, circular: of d = 3 degrees of freedom.
CYCLIC = [(0, ()), (1, ()), (1, (0,)), (2, ()), (2, (1,)), (2, (1, 0)), (3, ()), (3, (2,))]
CYCLIC += [(3, (0, 2)), (3, (2, 1))]
cyclic = pytest.mark.parametrize(("n", "circular"), CYCLIC, ids=str)


def states(d, B=5, S=None, seed=0, dtype=F64):
    shape = (B, 2 * d) if S is None else (S, B, 2 * d)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


def transformation(d=3, seeds=(0, 1), angles=(), activation="tanh", dtype=F64):
    """A learned map that is far from canonical."""
    T = Transformation(d, (12, 10), activation, seeds, angles, output_scale=0.5, dtype=dtype)
    T.standardise(2 * states(d, 40, seed=9, dtype=dtype) + 1)
    return T


def network(n, circular=(), d=3, seeds=(0, 1), angles=(), activation="tanh"):
    T = transformation(d, seeds, angles, activation)
    net = SymmetryControlNetwork(T, n, circular, (8, 8), activation, output_scale=1.0)
    net.standardise(states(d, 40, seed=8))
    return net


def of_member(net, s, z):
    """The new coordinates of one state (2 d,) by one member."""
    return net.value(z.expand(net.S, 1, -1))[s, 0]


# Derivatives ------------------------------------------------------------------------------------


@ANGLES
@pytest.mark.parametrize("activation", ["tanh", "silu"])
def test_jacobian_and_pull_equal_autodiff(angles, activation):
    T = transformation(angles=angles, activation=activation)
    z, g = states(3, S=2), states(3, S=2, seed=1)
    Z, J = T.jacobian(z)
    torch.testing.assert_close(Z, T.value(z))
    for s in range(2):
        expected = vmap(jacrev(lambda x, s=s: of_member(T, s, x)))(z[s])
        torch.testing.assert_close(J[s], expected, rtol=1e-12, atol=1e-12)
    pulled, pull = T.pull(z)
    torch.testing.assert_close(pulled, Z)
    torch.testing.assert_close(pull(g), (J.mT @ g[..., None]).squeeze(-1), rtol=1e-12, atol=1e-12)


@cyclic
@pytest.mark.parametrize("angles", [(), (1,)], ids=str)
def test_the_field_is_omega_times_the_gradient_of_the_energy(n, circular, angles):
    net, z = network(n, circular, angles=angles), states(3, S=2)
    for s in range(2):
        energy = lambda x, s=s: net.energy(x.expand(2, 1, -1))[s, 0]  # noqa: E731
        expected = symplectic_gradient(vmap(grad(energy))(z[s]))
        torch.testing.assert_close(net(z)[s], expected, rtol=1e-11, atol=1e-11)
    assert torch.equal(net.field()(z), net(z))


def test_an_angle_and_a_turn_more_are_the_same_state():
    T, z = transformation(angles=(1,)), states(3)
    turn = torch.zeros(6, dtype=F64)
    turn[1] = 2 * torch.pi
    torch.testing.assert_close(T.value(z + turn), T.value(z))
    assert (transformation().value(z + turn) - transformation().value(z)).abs().max() > 0.1


def test_brackets_equal_sympys_for_a_map_written_out():
    """Z = A z + C tanh(W z + b), the same weights in both; {Z_a, Z_b} by sympy in q and p."""
    T = Transformation(2, (3,), "tanh", output_scale=0.7, dtype=F64)
    torch.nn.init.normal_(T.core.biases[0], generator=torch.Generator().manual_seed(4))
    q, p = sympy.symbols("q_1 q_2"), sympy.symbols("p_1 p_2")
    z = sympy.Matrix([*q, *p])
    A, C, W, b = (
        sympy.Matrix(x[0].tolist())
        for x in (T.A, T.core.output, T.core.weights[0], T.core.biases[0])
    )
    Z = A * z + C * (W * z + b).applyfunc(sympy.tanh)
    points = states(2, 4, seed=2)
    J = T.jacobian(points)[1][0]
    ours = J @ symplectic_gradient(J).mT
    for i, j in combinations(range(4), 2):
        # As in symbolic.poisson_bracket, which would try to simplify the hyperbolic tangents.
        terms = (Z[i].diff(a) * Z[j].diff(b) for a, b in zip(q, p, strict=True))
        minus = (Z[i].diff(b) * Z[j].diff(a) for a, b in zip(q, p, strict=True))
        theirs = symbolic.to_torch(sum(terms) - sum(minus), [[*q, *p]], {})(points)
        torch.testing.assert_close(ours[:, i, j], theirs, rtol=1e-11, atol=1e-11)


# Losses -----------------------------------------------------------------------------------------


def naive_losses(net, s, z, zdot, beta, pairs):
    """Eqs. (6), (7) and (8) of one member, summed as printed, all derivatives by autograd."""
    d, n = net.d, net.n
    z = z.clone().requires_grad_()
    Z = net.transformation.value(z.expand(net.S, *z.shape))[s]

    def gradient(f, x):
        return torch.autograd.grad(f.sum(), x, create_graph=True)[0]

    def K(Z):
        Q, P = list(Z[:, :d].unbind(-1)), list(Z[:, d:].unbind(-1))
        for i in net.circular:
            P[i] = (Q[i] ** 2 + P[i] ** 2) / 2
        return net.K.value(torch.stack([*Q[n:], *P], -1).expand(net.S, -1, -1))[s, :, 0]

    dH = gradient(K(Z), z)
    hnn = sum((dH[:, d + i] - zdot[:, i]) ** 2 + (dH[:, i] + zdot[:, d + i]) ** 2 for i in range(d))
    rows = [gradient(Z[:, a], z) for a in range(2 * d)]

    def bracket(a, b):
        f, g = rows[a], rows[b]
        return sum(f[:, i] * g[:, d + i] - f[:, d + i] * g[:, i] for i in range(d))

    poisson = torch.zeros(len(z), dtype=z.dtype)
    some = range(n if pairs == "cyclic" else d)
    for i in some:
        for j in some:
            poisson = poisson + (bracket(i, d + j) - float(i == j)) ** 2
            if j > i:
                poisson = poisson + bracket(d + i, d + j) ** 2 + bracket(i, j) ** 2
    dK = gradient(K(Z), Z)
    rate = [(row * zdot).sum(-1) for row in rows]
    kept = torch.zeros(len(z), dtype=z.dtype)
    for i in range(d):
        part = (rate[d + i] + dK[:, i]) ** 2 + (rate[i] - dK[:, d + i]) ** 2
        kept = kept + (part if i < n else beta * part)
    return hnn.mean(), poisson.mean(), kept.mean()


@cyclic
@pytest.mark.parametrize("pairs", ["cyclic", "all"])
def test_losses_equal_the_papers_sums_and_so_do_their_slopes(n, circular, pairs):
    net, z, zdot = network(n, circular), states(3, S=2), states(3, S=2, seed=5)
    ours = net.losses(z, zdot, beta=0.3, pairs=pairs)
    total = ours.hnn + 0.7 * ours.poisson + 0.2 * ours.cyclic
    slopes = torch.autograd.grad(total.sum(), list(net.parameters()))
    naive = [naive_losses(net, s, z[s], zdot[s], 0.3, pairs) for s in range(2)]
    for loss, expected in zip(ours, zip(*naive, strict=True), strict=True):
        torch.testing.assert_close(loss, torch.stack(expected), rtol=1e-11, atol=1e-11)
    naive_total = sum(a + 0.7 * b + 0.2 * c for a, b, c in naive)
    expected = torch.autograd.grad(naive_total, list(net.parameters()))
    for slope, other in zip(slopes, expected, strict=True):
        torch.testing.assert_close(slope, other, rtol=1e-9, atol=1e-9)


def test_equation_6_alone_is_the_same():
    net, z, zdot = network(2, (1,)), states(3, S=2), states(3, S=2, seed=5)
    torch.testing.assert_close(net.hnn(z, zdot), net.losses(z, zdot).hnn)


def linear(d=3, seeds=(0, 1)):
    """The learned map as it starts, without its dense part: a canonical rotation."""
    return Transformation(d, (4,), seeds=seeds, output_scale=0.0, dtype=F64)


def test_the_poisson_loss_counts_the_brackets_that_are_wrong():
    """Zero for a canonical map; with all Z doubled {Q_i, P_i} = 4, wrong by 3 for each pair."""
    T, z = linear(), states(3)
    for n in range(4):
        net = SymmetryControlNetwork(T, n)
        for pairs in ("cyclic", "all"):
            assert net.losses(z, z, pairs=pairs).poisson.abs().max() < 1e-28
    T.A.data *= 2
    for n in range(4):
        net = SymmetryControlNetwork(T, n)
        for pairs, count in (("cyclic", n), ("all", 3)):
            poisson = net.losses(z, z, pairs=pairs).poisson
            torch.testing.assert_close(poisson, torch.full_like(poisson, 9.0 * count))


def test_a_noncanonical_map_that_the_cyclic_pairs_do_not_notice():
    """Brackets of the n pairs alone say nothing of {P_1, Q_2}: there P_1 need not be conserved."""
    T = linear(2, seeds=1)
    T.A.data = torch.eye(4, dtype=F64)[None]
    T.A.data[0, 2, 3] = 0.5  # P_1 = p_1 + p_2 / 2, so {P_1, Q_2} = -1/2
    net, z = SymmetryControlNetwork(T, 1, output_scale=1.0), states(2)
    assert net.losses(z, z).poisson.abs().max() < 1e-28
    assert net.losses(z, z, pairs="all").poisson.min() > 0.2
    P_dot = net(z)[..., 2] + net(z)[..., 3] / 2
    assert P_dot.abs().max() > 1e-2


def test_equation_8_vanishes_on_its_own_motion_only_if_the_map_is_canonical():
    z = states(3, S=2)
    net = SymmetryControlNetwork(linear(), 2, (1,), output_scale=1.0)
    net.standardise(z)
    assert net.losses(z, net(z)).cyclic.max() < 1e-24
    assert network(2, (1,)).losses(z, network(2, (1,))(z)).cyclic.min() > 1e-2


# What is conserved ------------------------------------------------------------------------------


def rollout(net, z, dt=0.05, steps=40):
    with torch.no_grad():
        return integrators.solve(net.field(), z, dt, steps, every=10, method="implicit_midpoint")


def charges(net, path):
    with torch.no_grad():
        return torch.stack([net.charges(z) for z in path])


@pytest.mark.parametrize(("n", "circular"), [(1, ()), (2, ()), (3, ()), (2, (1,)), (3, (0, 2))])
@pytest.mark.parametrize("seed", [0, 1])
def test_an_exactly_canonical_map_conserves_at_random_weights(n, circular, seed):
    """A linear map: the implicit midpoint rule keeps linear and quadratic functions exactly."""
    net = SymmetryControlNetwork(linear(seeds=[seed]), n, circular, output_scale=1.0)
    z = states(3, 6, S=1, seed=seed)
    net.standardise(z)
    path = rollout(net, z)
    assert (path[-1] - path[0]).abs().max() > 0.1
    P = charges(net, path)
    testing.assert_conserved(P[..., None] if n == 1 else P, 1e-11)


def test_exact_shears_conserve_to_the_integrators_error():
    T = symplectic.shears(3, seeds=2).double()
    net = SymmetryControlNetwork(T, 2, output_scale=1.0)
    z = states(3, 6, S=2)
    net.standardise(z)
    with torch.no_grad():
        paths = [
            integrators.solve(net.field(), z, dt, round(1 / dt), every=round(0.5 / dt))
            for dt in (0.02, 0.01)
        ]
    coarse, fine = ((charges(net, x) - charges(net, x)[0]).abs().max().item() for x in paths)
    assert fine < 1e-6
    assert coarse / fine > 10 or fine < 1e-12  # the drift is that of RK4, order 4


def test_a_learned_map_does_not_conserve_at_random_weights():
    net, z = network(2, (1,)), states(3, 6, S=2)
    with pytest.raises(AssertionError):
        testing.assert_conserved(charges(net, rollout(net, z)), 1e-2)
    path = rollout(net, z)
    energy = torch.stack([net.energy(x) for x in path]).detach()
    assert (energy - energy[0]).abs().max() < 1e-2 * energy.std()  # H is kept all the same


def test_the_rate_of_a_momentum_is_the_sum_of_slopes_times_wrong_brackets():
    """dP_i/dt = sum over b of dK/dZ_b ({P_i, Z_b} - Omega): the identity behind the bound."""
    net, z = network(2), states(3, S=2)
    Z, J = net.transformation.jacobian(z)
    wrong = J @ symplectic_gradient(J).mT - symplectic_gradient(torch.eye(6, dtype=F64)).mT
    energy = net.K.value(seen := Z[..., 2:].detach().requires_grad_())
    slopes = torch.autograd.grad(energy.sum(), seen)[0]
    slopes = torch.nn.functional.pad(slopes, (2, 0))
    P_dot = (J @ net(z)[..., None]).squeeze(-1)[..., 3:5]
    expected = (wrong[..., 3:5, :] @ slopes[..., None]).squeeze(-1)
    torch.testing.assert_close(P_dot, expected, rtol=1e-11, atol=1e-11)


def test_a_circular_pair_gives_its_action():
    net, z = network(3, (0, 2)), states(3, S=2)
    Z = net.transformation.value(z)
    P = [(Z[..., 0] ** 2 + Z[..., 3] ** 2) / 2, Z[..., 4], (Z[..., 2] ** 2 + Z[..., 5] ** 2) / 2]
    torch.testing.assert_close(net.charges(z), torch.stack(P, -1))


def test_the_network_k_sees_no_cyclic_coordinate():
    """Moving along a cyclic Q, or round the circle of a circular pair, leaves the energy."""
    T = linear(seeds=1)
    T.A.data = torch.eye(6, dtype=F64)[None]
    net, z = SymmetryControlNetwork(T, 2, (1,), output_scale=1.0), states(3)
    net.standardise(z)
    angle = torch.atan2(z[:, 1], z[:, 4]) + 1.0
    radius = (z[:, 1] ** 2 + z[:, 4] ** 2).sqrt()
    moved = z.clone()
    moved[:, 0] += 3.0
    moved[:, 1], moved[:, 4] = radius * angle.sin(), radius * angle.cos()
    torch.testing.assert_close(net.energy(moved), net.energy(z))
    moved[:, 2] += 1.0  # Q_3 is not cyclic
    assert (net.energy(moved) - net.energy(z)).abs().min() > 1e-4


# An ensemble ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "circular"), [(2, ()), (3, (2,))])
def test_members_do_not_mix_and_depend_on_their_seed_alone(n, circular):
    def fresh(seeds):
        T = Transformation(3, (12, 10), seeds=seeds, dtype=F64)
        return SymmetryControlNetwork(T, n, circular, (8, 8))

    net, z = fresh([3, 7]), states(3, S=2)
    net.losses(z, z).cyclic[0].backward()
    for weights in net.parameters():
        assert weights.grad is not None
        assert weights.grad[1].abs().max() == 0
    for s, seed in enumerate([3, 7]):
        one = fresh([seed])
        torch.testing.assert_close(one(z[s : s + 1])[0], net(z)[s])
        for ours, theirs in zip(one.parameters(), net.parameters(), strict=True):
            assert torch.equal(ours[0], theirs[s])
    for core in (net.K, net.transformation.core):
        assert not torch.equal(core.output[0], core.output[1])


def test_the_same_states_for_all_members():
    net, z = network(2, (1,)), states(3)
    torch.testing.assert_close(net(z), net(z.expand(2, -1, -1)))
    for shared, own in zip(net.losses(z, z), net.losses(z.expand(2, 5, 6), z), strict=True):
        torch.testing.assert_close(shared, own)


def test_standardise_sets_centre_and_scale_of_what_each_network_sees():
    net = SymmetryControlNetwork(Transformation(2, angles=(1,), dtype=F64), 2, (1,))
    z = 5 + 3 * states(2, 50)
    net.standardise(z)
    features = torch.cat([z[:, [0, 2, 3]], z[:, 1:2].cos(), z[:, 1:2].sin()], -1)
    core = net.transformation.core
    torch.testing.assert_close(core.centre[0], features.mean(0))
    torch.testing.assert_close(core.scale[0], features.std(0))
    torch.testing.assert_close(net.K.centre[0], net.charges(z)[0].mean(0))
    torch.testing.assert_close(net.K.scale[0], net.charges(z)[0].std(0))


def test_keep_and_the_state_dict_bring_a_member_back():
    net, z = network(3, (2,), seeds=(4, 5, 6)), states(3)
    field, charge = net(z), net.charges(z)
    other = network(3, (2,), seeds=(1, 2, 3))
    assert (other(z) - field).abs().max() > 1e-3
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(z), field)
    size = net.size
    net.keep(1)
    assert net.S == 1
    assert net.transformation.seeds == (5,)
    assert net.size == size
    torch.testing.assert_close(net(z)[0], field[1])
    torch.testing.assert_close(net.charges(z)[0], charge[1])


def test_the_start_is_canonical_and_float32_is_the_same_network():
    fresh = Transformation(3, seeds=3, output_scale=0.0, dtype=F64)
    for A in fresh.A.detach():
        testing.assert_symplectic(lambda z, A=A: z @ A.mT, states(3))
    rough = Transformation(3, seeds=3)
    exact = Transformation(3, seeds=3, dtype=F64)
    z = states(3)
    assert rough.value(z.float()).dtype == torch.float32
    torch.testing.assert_close(rough.value(z.float()).double(), exact.value(z), atol=1e-5, rtol=0)


# Bad input --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Transformation(2, seeds=[]), "one seed or more"),
        (lambda: Transformation(2, hidden=()), "one hidden layer or more"),
        (lambda: Transformation(2, angles=(2,)), "distinct positions from 0"),
        (lambda: SymmetryControlNetwork(linear(2), 3), "0 <= n <= d = 2"),
        (lambda: SymmetryControlNetwork(linear(2), -1), "n = -1"),
        (lambda: SymmetryControlNetwork(linear(2), 1, hidden=()), "one hidden layer or more"),
        (lambda: SymmetryControlNetwork(linear(2), 1, (1,)), "from 0 to n - 1"),
        (lambda: SymmetryControlNetwork(linear(2), 2, (1, 1)), "distinct"),
        (lambda: network(1).losses(states(3), states(3), pairs="some"), "pairs = 'some'"),
        (lambda: network(1)(states(2)), r"expected \(2, B, 6\)"),
        (lambda: transformation().value(states(3, S=3)), r"\(3, 5, 6\); expected \(2, B, 6\)"),
    ],
)
def test_bad_input_is_refused_with_what_to_do(make, words):
    with pytest.raises(ValueError, match=words):
        make()
