"""companion.permutations: the seven maps, and what holds for any weights."""

from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion import _columns, groups, training
from companion import permutations as perms
from companion.permutations import EdgeNetwork
from companion.systems.argon import Argon
from companion.unitary import Softsign

few = settings(deadline=None, max_examples=10)
numbers = st.integers(0, 2**31 - 1)
dtypes = st.sampled_from([torch.float32, torch.float64])
TOLERANCE = {torch.float32: 2e-4, torch.float64: 1e-11}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def atoms(N=4, n=5, seed=0, dtype=torch.float64):
    """Configurations no closer than argon comes, `(n, N, 3)`."""
    return Argon(N).sample(n, seeded(seed)).to(dtype)


def network(dtype=torch.float64, **options):
    """Random weights with large sums over atoms, so that every map counts."""
    net = EdgeNetwork((6, 5), dtype=dtype, **{"sums": 1.0, "seeds": 2} | options)
    r = atoms(4, 50, 9, dtype)
    net.standardise(r, Argon(4).forces(r))
    return net


def close(x, y, dtype):
    """Whether they agree to the rounding of the dtype, in units of the largest entry."""
    return (x - y).abs().max() <= TOLERANCE[dtype] * y.abs().max()


# The equivariant linear maps -----------------------------------------------------------------


def seven(N):
    """The seven maps of the layer as matrices `(7, E, E)`, one weight at a time."""
    E = N * (N - 1)
    z = torch.eye(E, dtype=torch.float64).view(1, E, E, 1)  # one row for each edge's unit vector
    ends = perms.incidence(N, z)
    found = []
    for shape, place in (
        [((1, 2), k) for k in range(2)] + [((2, 2), k) for k in range(4)] + [((1, 1), 0)]
    ):
        weights = [torch.zeros(1, *s, dtype=torch.float64) for s in ((1, 2), (2, 2), (1, 1))]
        which = {(1, 2): 0, (2, 2): 1, (1, 1): 2}[shape]
        weights[which].view(-1)[place] = 1
        found.append(perms._Linear.apply(z, ends, *weights)[0, :, :, 0])
    return torch.stack(found)


def relabelling(pi, N):
    """The permutation matrix of the edges under i -> pi(i)."""
    i, j = perms.directed_edges(N)
    place = {(int(a), int(b)): k for k, (a, b) in enumerate(zip(i, j, strict=True))}
    P = torch.zeros(len(place), len(place), dtype=torch.float64)
    for (a, b), k in place.items():
        P[place[pi[a], pi[b]], k] = 1
    return P


@pytest.mark.parametrize(("N", "dimension"), [(2, 2), (3, 6), (4, 7), (5, 7)])
def test_the_layer_has_every_equivariant_map_and_no_other(N, dimension):
    maps = seven(N)
    E = N * (N - 1)
    # a transposition and a cycle generate S_N: solve X P = P X for both
    generators = [[1, 0, *range(2, N)], [*range(1, N), 0]]
    eye = torch.eye(E, dtype=torch.float64)
    rows = []
    for pi in generators:
        P = relabelling(pi, N)
        assert all((P @ X == X @ P).all() for X in maps)
        rows.append(torch.kron(eye, P) - torch.kron(P.mT.contiguous(), eye))
    commutant = E * E - int(torch.linalg.matrix_rank(torch.cat(rows)))
    assert commutant == dimension == int(torch.linalg.matrix_rank(maps.flatten(1)))


@pytest.mark.parametrize(("N", "orbits"), [(3, 6), (4, 7), (5, 7), (6, 7)])
def test_burnside_counts_the_same_maps(N, orbits):
    """Orbits of S_N on pairs of ordered pairs: the mean of (fixed ordered pairs)^2."""
    squares = []
    for pi in permutations(range(N)):
        fixed = sum(pi[i] == i for i in range(N))
        squares.append((fixed * (fixed - 1)) ** 2)
    assert sum(squares) == orbits * len(squares)


def test_the_seven_maps_are_the_named_sums():
    N = 4
    i, j = perms.directed_edges(N)
    x = torch.randn(len(i), generator=seeded(0), dtype=torch.float64)
    full = torch.zeros(N, N, dtype=torch.float64)
    full[i, j] = x
    out, into = full.sum(1), full.sum(0)
    named = [full[i, j], full[j, i], out[i], out[j], into[i], into[j], x.sum().expand(len(i))]
    torch.testing.assert_close(seven(N) @ x, torch.stack(named))


def test_the_gradient_of_the_layer_by_hand():
    generator = seeded(1)
    shapes = [(2, 12, 3, 4), (2, 4, 6), (2, 8, 6), (2, 4, 3)]
    z, *weights = (
        torch.randn(s, generator=generator, dtype=torch.float64, requires_grad=True) for s in shapes
    )
    ends = perms.incidence(4, z)
    assert torch.autograd.gradcheck(lambda z, *w: perms._Linear.apply(z, ends, *w), (z, *weights))


# Softsign and unit vectors -------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [True, False])
def test_softsign_and_unit_vectors_and_their_gradient(compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr(_columns, "_compiles", lambda u, s: False)
    u = torch.randn(4, 3, 5, generator=seeded(0), dtype=torch.float64)
    u[0, :, 0] = 0
    length = (u.square().sum(-2, keepdim=True) + 1e-12).sqrt()
    expected = torch.cat([u / (1 + length) + 0.3 * u, u / length], -1)
    torch.testing.assert_close(_columns.activated(u, Softsign(0.3), 1e-6), expected)
    u = u[1:].requires_grad_()
    assert torch.autograd.gradcheck(lambda u: _columns.activated(u, Softsign(0.3), 1e-6), (u,))


def test_compiled_and_whole_tensors_agree_in_float32(monkeypatch):
    u = torch.randn(7, 3, 24, generator=seeded(0)).requires_grad_()
    weight = torch.randn(7, 3, 48, generator=seeded(1))
    results = []
    for compiled in (True, False):
        monkeypatch.setattr(_columns, "_compiles", lambda u, s, compiled=compiled: compiled)
        y = _columns.activated(u, Softsign(1.0), 1e-6)
        assert y.dtype == torch.float32
        results.append((y.detach(), torch.autograd.grad((y * weight).sum(), u)[0]))
    torch.testing.assert_close(*results)


# The network ---------------------------------------------------------------------------------


@few
@given(numbers, dtypes, st.integers(2, 6))
def test_relabelled_atoms_get_relabelled_forces(seed, dtype, N):
    net = network(dtype, seeds=[seed, seed + 1])
    r = atoms(N, 3, seed, dtype)
    pi = torch.randperm(N, generator=seeded(seed))
    F = net.forces(r)
    assert F.shape == (2, 3, N, 3)
    assert F.abs().max() > 0.01
    assert N == 2 or not close(F[:, :, pi.roll(1)], F[:, :, pi], dtype)
    assert close(net.forces(r[:, pi]), F[:, :, pi], dtype)


@few
@given(numbers, dtypes)
def test_forces_turn_and_reflect_and_do_not_see_translations(seed, dtype):
    net, r = network(dtype, seeds=[seed]), atoms(4, 3, seed, dtype)
    g = groups.O(3).sample(generator=seeded(seed), dtype=dtype)
    F = net.forces(r)
    assert close(net.forces(r @ g.mT), F @ g.mT, dtype)
    assert close(net.forces(-r), -F, dtype)
    assert close(net.forces(r + torch.tensor([3.0, -2.0, 1.0], dtype=dtype)), F, dtype)


@few
@given(numbers, dtypes, st.integers(2, 6))
def test_the_forces_add_up_to_zero(seed, dtype, N):
    F = network(dtype, seeds=[seed]).forces(atoms(N, 5, seed, dtype))
    assert F.sum(2).abs().max() <= 100 * torch.finfo(dtype).eps * F.abs().max()


def test_members_never_mix_and_keep_takes_one():
    net, r = network(seeds=[3, 4, 5]), atoms(4, 6)
    F = net.forces(r)
    alone = network(seeds=[4])
    torch.testing.assert_close(alone.forces(r)[0], F[1])
    own = torch.stack([r, r + 0.1 * r.sin(), r.flip(-1)])  # each member its own configurations
    torch.testing.assert_close(net.forces(own)[2], net.forces(r.flip(-1))[2])
    gradients = torch.autograd.grad(F[0].square().sum(), list(net.parameters()))
    assert all(g[0].abs().max() > 0 for g in gradients[:4])
    assert all((g[1:] == 0).all() for g in gradients)
    size = net.size
    net.keep(1)
    assert (net.seeds, net.S, net.size) == ([4], 1, size)
    torch.testing.assert_close(net.forces(r)[0], F[1])


def test_a_pair_of_atoms_feels_a_central_force():
    r = atoms(2, 20)
    F, e = network().forces(r)[0], r[:, 1] - r[:, 0]
    along = torch.linalg.cross(F[:, 0], e, dim=-1)
    assert along.abs().max() < 1e-12 * (F[:, 0].norm(dim=-1) * e.norm(dim=-1)).max()


def test_the_network_is_no_sum_over_pairs_unless_its_sums_are_zero():
    r = atoms(3, 4)
    pairs = [(0, 1), (0, 2), (1, 2)]

    def summed(net):
        F = torch.zeros(2, 4, 3, 3, dtype=torch.float64)
        for i, j in pairs:
            F[:, :, [i, j]] += net.forces(r[:, [i, j]])
        return F

    net = network(sums=0.0)
    torch.testing.assert_close(net.forces(r), summed(net))
    net = network()
    assert not close(net.forces(r), summed(net), torch.float32)


def test_standardise_takes_one_spread_each():
    net, r = EdgeNetwork((3,), dtype=torch.float64), atoms(4, 30)
    F = Argon(4).forces(r)
    net.standardise(r, F)
    i, j = torch.triu_indices(4, 4, 1)
    spread = (r[:, j] - r[:, i]).square().mean().sqrt()
    torch.testing.assert_close((net.length, net.strength), (spread, F.square().mean().sqrt()))


def test_the_gradient_through_the_network_and_that_it_learns():
    r = atoms(4, 2).requires_grad_()
    net = network(seeds=1)
    assert torch.autograd.gradcheck(net.forces, (r,), atol=1e-4, rtol=1e-3)
    net, r = EdgeNetwork((8, 8), seeds=2), atoms(4, 500, 1, torch.float32)
    F = Argon(4).forces(r)
    net.standardise(r, F)

    def loss(net, r, F):
        return (net.forces(r) - F).square().mean((1, 2, 3))

    def batch(step):
        rows = torch.randint(500, (32,), generator=seeded(step))
        return r[rows], F[rows]

    start = loss(net, r, F)
    training.fit(net, loss, batch, steps=100, lr=1e-2, warmup=10, progress=False)
    assert (loss(net, r, F) < 0.3 * start).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": ()}, r"hidden = \(\).*at least one width"),
        ({"hidden": (4, 0)}, "widths of 1 or more"),
        ({"powers": 0}, "powers = 0"),
        ({"atoms": 1}, "2 atoms or more"),
        ({"epsilon": 0.0}, "epsilon = 0.0"),
        ({"seeds": 0}, "seeds = 0: expected 1 or more members"),
    ],
)
def test_a_network_that_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        EdgeNetwork(**options)


@pytest.mark.parametrize("shape", [(4, 3), (5, 4, 2), (3, 5, 4, 3)])
def test_positions_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected .* positions of N atoms in angstrom"):
        network().forces(torch.zeros(shape, dtype=torch.float64))


def test_positions_of_another_type_or_a_single_atom_are_refused():
    with pytest.raises(ValueError, match=r"float32.*float64.*convert"):
        network().forces(atoms(4, 2, dtype=torch.float32))
    with pytest.raises(ValueError, match="at least 2 atoms"):
        network().forces(torch.zeros(5, 1, 3, dtype=torch.float64))
