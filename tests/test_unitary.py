"""companion.unitary: every part turns, the gradient by hand, what is not possible."""

import itertools
import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from companion import finite, groups, training, unitary
from companion.unitary import UnitaryNetwork

few = settings(deadline=None, max_examples=15)
seeds = st.integers(0, 2**31 - 1)
dimensions = st.integers(1, 5)
DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]
dtypes = st.sampled_from(DTYPES)
ACTIVATIONS = {
    "softsign": unitary.softsign,
    "softsign, small residue": lambda u: unitary.softsign(u, a=0.1),
    "relu": unitary.relu,
    "relu, low threshold": lambda u: unitary.relu(u, threshold=0.2),
    "leaky relu": unitary.leaky_relu,
    "leaky relu, other slope": lambda u: unitary.leaky_relu(u, threshold=0.5, slope=0.3),
    "identity": unitary.Identity(),
}
names = st.sampled_from(list(ACTIVATIONS))
kinds = st.sampled_from(["softsign", "relu", "leaky_relu"])
rounded = st.sampled_from([unitary.EPSILON, 1.0])


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def exactness(dtype):
    return 1e3 * torch.finfo(dtype).eps


def group_of(n, dtype):
    """U(n) for complex vectors, O(n) for real ones."""
    return groups.U(n) if dtype.is_complex else groups.O(n)


def element(n, dtype, seed):
    """A Haar-random element of the group, (n, n)."""
    return group_of(n, dtype).sample(generator=seeded(seed + 1), dtype=dtype)


def vectors(*shape, dtype, seed, small=True):
    """Columns of ordinary length; with `small` some of them tiny and some zero."""
    generator = seeded(seed)
    x = torch.randn(*shape, generator=generator, dtype=dtype)
    if small:
        sizes = torch.tensor([1.0, 1.0, 1e-3, 1e-6, 1e-9, 1e-20, 0.0], dtype=dtype.to_real())
        chosen = torch.randint(len(sizes), (*shape[:-2], 1, shape[-1]), generator=generator)
        x = x * sizes[chosen]
    return x


def assert_turned(after, before, g, dtype, slack=1.0):
    """after = g before, in units of the largest vector of the batch."""
    assert after.shape == before.shape
    assert after.isfinite().all()
    size = before.abs().amax().clamp(min=torch.finfo(dtype).tiny)
    assert (after - g @ before).abs().max() <= slack * exactness(dtype) * size


# Every ingredient ---------------------------------------------------------------------------------


@few
@given(n=dimensions, seed=seeds, dtype=dtypes)
def test_right_multiplication_is_equivariant(n, seed, dtype):
    x, g = vectors(4, n, 3, dtype=dtype, seed=seed), element(n, dtype, seed)
    W = vectors(3, 5, dtype=dtype, seed=seed + 2, small=False)
    assert_turned((g @ x) @ W, x @ W, g, dtype)


@few
@given(n=dimensions, seed=seeds, dtype=dtypes)
def test_unit_vectors_are_equivariant_and_of_length_one(n, seed, dtype):
    x, g = vectors(4, n, 7, dtype=dtype, seed=seed), element(n, dtype, seed)
    e = unitary.unit(x)
    assert_turned(unitary.unit(g @ x), e, g, dtype)
    length = e.abs().square().sum(-2).sqrt()
    size = x.abs().double().square().sum(-2).sqrt()
    assert (length <= 1 + exactness(dtype)).all()
    assert (length[size > 1e-2] >= 1 - 1e-6).all()
    assert (length[size == 0] == 0).all()


@few
@given(n=dimensions, seed=seeds, dtype=dtypes, name=names)
def test_vector_activations_are_equivariant_and_keep_the_direction(n, seed, dtype, name):
    sigma = ACTIVATIONS[name]
    u, g = vectors(4, n, 7, dtype=dtype, seed=seed), element(n, dtype, seed)
    v = sigma(u)
    assert_turned(sigma(g @ u), v, g, dtype)
    assert (v[(u == 0).all(-2, keepdim=True).expand_as(v)] == 0).all()
    inner, lengths = (u.conj() * v).sum(-2), u.abs().square() @ torch.ones(7, 1).to(u.real)
    assert (inner.real >= 0).all()
    assert inner.is_complex() is dtype.is_complex
    if dtype.is_complex:
        assert (inner.imag.abs() <= exactness(dtype) * (lengths.abs().max() + 1)).all()


def test_activations_have_the_lengths_that_the_paper_says():
    length = torch.tensor([0.25, 0.5, 1.0, 2.0, 8.0], dtype=torch.float64)
    u = torch.tensor([[3.0], [-4.0]], dtype=torch.float64) / 5 * length  # columns (2, 5)
    expected = {
        "softsign": length / (1 + length) + length,
        "softsign, small residue": length / (1 + length) + 0.1 * length,
        "relu": (length - 1).clamp(min=0),
        "relu, low threshold": (length - 0.2).clamp(min=0),
        "leaky relu": torch.maximum(length - 1, 0.1 * length),
        "leaky relu, other slope": torch.maximum(length - 0.5, 0.3 * length),
        "identity": length,
    }
    assert expected.keys() == ACTIVATIONS.keys()
    for name, sigma in ACTIVATIONS.items():
        got = sigma(u)
        torch.testing.assert_close(got, u / length * expected[name], rtol=1e-9, atol=1e-9)
        gain, slope = _radial(name).gain(length)
        torch.testing.assert_close(gain, expected[name] / length)
        step = 1e-6
        difference = _radial(name).gain(length + step)[0] - _radial(name).gain(length - step)[0]
        smooth = (length != 1) & (length != 0.5)  # away from the kinks
        torch.testing.assert_close(
            slope[smooth], difference[smooth] / (2 * step), rtol=1e-6, atol=1e-8
        )


def _radial(name):
    return {
        "softsign": unitary.Softsign(),
        "softsign, small residue": unitary.Softsign(0.1),
        "relu": unitary.LeakyReLU(1.0, 0.0),
        "relu, low threshold": unitary.LeakyReLU(0.2, 0.0),
        "leaky relu": unitary.LeakyReLU(1.0, 0.1),
        "leaky relu, other slope": unitary.LeakyReLU(0.5, 0.3),
        "identity": unitary.Identity(),
    }[name]


# What is not possible -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_neither_a_bias_vector_nor_an_elementwise_activation_is_equivariant(dtype):
    u, g = vectors(4, 3, 7, dtype=dtype, seed=0, small=False), element(3, dtype, 0)
    bias = torch.ones(3, 1, dtype=dtype)
    for wrong in (lambda u: u + bias, torch.tanh, lambda u: u.sgn() * u.abs().tanh()):
        assert (wrong(g @ u) - g @ wrong(u)).abs().max() > 0.1
    with pytest.raises(AssertionError):
        assert_turned(torch.tanh(g @ u), torch.tanh(u), g, dtype)


def test_the_mean_of_the_group_kills_every_bias():
    """The only vector that no element moves is 0: the Haar mean of g b is 0."""
    for group, dtype in ((groups.U(3), torch.complex128), (groups.O(3), torch.float64)):
        b = vectors(3, 1, dtype=dtype, seed=0, small=False)
        mean = (group.sample(20_000, generator=seeded(1), dtype=dtype) @ b).mean(0)
        assert mean.abs().max() < 5 * b.abs().square().sum().sqrt() / math.sqrt(20_000)


# Pseudovectors ------------------------------------------------------------------------------------


@few
@given(seed=seeds, dtype=dtypes)
def test_cross_products_go_with_det_g_times_conj_g(seed, dtype):
    x, g = vectors(4, 3, 5, dtype=dtype, seed=seed), element(3, dtype, seed)
    w = unitary.cross_products(x)
    law = torch.linalg.det(g) * g.conj()  # of O(3): det(g) g
    assert_turned(unitary.cross_products(g @ x), w, law, dtype)
    for k, (i, j) in enumerate(itertools.combinations(range(5), 2)):
        torch.testing.assert_close(w[..., k], torch.linalg.cross(x[..., i], x[..., j], dim=-1))


def test_cross_products_are_no_vectors():
    x = vectors(4, 3, 3, dtype=torch.float64, seed=0, small=False)
    w = unitary.cross_products(x)
    torch.testing.assert_close(unitary.cross_products(-x), w)  # parity does not move them
    z, g = x + 1j * x.flip(-1), element(3, torch.complex128, 0)
    w, moved = unitary.cross_products(z), unitary.cross_products(g @ z)
    assert (moved - torch.linalg.det(g) * (g @ w)).abs().max() > 0.1  # without the conjugate


@pytest.mark.parametrize("shape", [(2, 4), (3,), (5, 4, 2)])
def test_cross_products_need_three_components(shape):
    with pytest.raises(ValueError, match=r"x: got shape .* expected \(\.\.\., 3, M\)"):
        unitary.cross_products(torch.ones(shape))


# Networks -----------------------------------------------------------------------------------------


def made(dtype, activation="softsign", sizes=(3, 6, 5, 2), **options):
    return UnitaryNetwork(sizes, activation=activation, seeds=2, dtype=dtype, **options)


def by_the_paper(net, s, x):
    """The slow reference: member s at one input x (n, M_0), eqs. 5, 8 and 11, column by column.

    An activation keeps the direction: the unit vector of x' is that of y, and 0 where x' = 0.
    """

    def rho(u):
        return (u.abs().square().sum() + net.epsilon**2).sqrt()

    inputs, layers = list((x / net.spread_in[s, 0]).T), []
    e = [u / rho(u) for u in inputs]
    for k, (W, b) in enumerate(zip(net.weights, net.biases, strict=True)):
        W, b = W[s], b[s]
        if net.complex:
            W, b = (torch.complex(*p.chunk(2, dim=-1)) for p in (W, b))
        y = [
            sum(W[p, q] * inputs[p] + b[p, q] * e[p] for p in range(len(W)))
            for q in range(W.shape[1])
        ]
        gain = [1.0 if k == len(net.weights) - 1 else net.activation.gain(rho(u))[0] for u in y]
        inputs = [c * u for c, u in zip(gain, y, strict=True)]
        e = [(c > 0) * u / rho(u) for c, u in zip(gain, y, strict=True)]
        layers.append(torch.stack(inputs, -1))
    return [*layers[:-1], layers[-1] * net.spread_out[s, 0]]


@few
@given(n=dimensions, seed=seeds, dtype=dtypes, kind=kinds, epsilon=rounded)
def test_every_layer_and_the_whole_network_turn_with_their_inputs(n, seed, dtype, kind, epsilon):
    net, g = made(dtype, kind, epsilon=epsilon), element(n, dtype, seed)
    x = vectors(4, n, 3, dtype=dtype, seed=seed)
    with torch.no_grad():
        net.spread_in[:, 0], net.spread_out[:, 0] = 0.7, 3.0
        y = net(x)
        assert y.shape == (2, 4, n, 2)
        assert y.dtype == dtype
        assert_turned(net(g @ x), y, g, dtype, slack=30)
        for s in range(2):
            before, after = by_the_paper(net, s, x[0]), by_the_paper(net, s, g @ x[0])
            for u, v in zip(before, after, strict=True):
                assert_turned(v, u, g, dtype, slack=30)
            assert (y[s, 0] - before[-1]).abs().max() <= 30 * exactness(dtype) * y.abs().max()


@few
@given(n=dimensions, seed=seeds, dtype=st.sampled_from([torch.float32, torch.float64]))
def test_real_weights_are_equivariant_under_unitary_elements_too(n, seed, dtype):
    net = made(dtype)
    net.complex = False
    wide = dtype.to_complex()
    twin = made(wide)
    with torch.no_grad():
        for mine, theirs in zip(net.parameters(), twin.parameters(), strict=True):
            theirs.copy_(torch.cat([mine, torch.zeros_like(mine)], dim=-1))
        x = vectors(4, n, 3, dtype=wide, seed=seed)
        g = element(n, wide, seed)
        assert_turned(twin(g @ x), twin(x), g, wide, slack=30)
        # a unit vector multiplies the rounding of a tiny one by 1e6: too much for float32
        x = vectors(4, n, 3, dtype=wide, seed=seed, small=dtype == torch.float64)
        torch.testing.assert_close(twin(x.real + 0j).real, net(x.real))


def test_complex_weights_are_not_equivariant_under_conjugation():
    """U(n) and no more: complex conjugation is no element of it."""
    net = made(torch.complex128)
    x = vectors(4, 2, 3, dtype=torch.complex128, seed=0, small=False)
    with torch.no_grad():
        y = net(x)
        assert (net(x.conj()) - y.conj()).abs().max() > 0.1 * y.abs().max()


@few
@given(n=st.integers(1, 4), m=st.integers(1, 3), seed=seeds, dtype=dtypes, kind=kinds)
def test_scalar_features_stay_while_vectors_turn(n, m, seed, dtype, kind):
    net = made(dtype, kind, scalars=m)
    group = finite.Embedded(group_of(n, dtype), n + m)  # eq. 17
    g = group.sample(generator=seeded(seed + 1), dtype=dtype)
    x = vectors(4, n + m, 3, dtype=dtype, seed=seed)
    with torch.no_grad():
        net.standardise(
            vectors(9, n + m, 3, dtype=dtype, seed=1, small=False),
            3 * vectors(9, n + m, 2, dtype=dtype, seed=2, small=False),
        )
        y = net(x)
        assert_turned(net(g @ x), y, g, dtype, slack=30)
        moved = x.clone()  # the features are seen, by vectors and by scalars
        moved[:, n:] += 1
        change = (net(moved) - y).abs().amax((0, 1, 3))
    assert (change[n:] > 0.001).all()
    assert n == 0 or change[:n].max() > 0.001 or y[:, :, :n].abs().max() < 1e-3


def test_scalars_have_a_bias_that_vectors_cannot_have():
    """e' = (e, 1), eq. 16: at x = 0 the scalars are not zero, the vectors are."""
    net = made(torch.float64, scalars=2)
    y = net(torch.zeros(1, 5, 3, dtype=torch.float64))
    assert (y[:, :, :3] == 0).all()
    assert (y[:, :, 3:].abs() > 1e-4).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_zero_in_zero_out_with_a_finite_gradient(dtype):
    net = made(dtype)
    x = torch.zeros(1, 3, 3, dtype=dtype, requires_grad=True)
    y = net(x)
    assert (y == 0).all()
    y.abs().square().sum().backward()
    for p in [x, *net.parameters()]:
        assert p.grad is not None
        assert p.grad.isfinite().all()
    with torch.no_grad():  # one zero column among others
        x = vectors(1, 3, 3, dtype=dtype, seed=0, small=False)
        x[..., 1] = 0
        assert net(x).isfinite().all()


# The gradient by hand -----------------------------------------------------------------------------


def slow(net, x):
    """The network of operations whose derivatives autograd knows."""
    x = x.expand(net.S, *x.shape[-3:]) / net.spread_in[:, :1, None, None]
    e = unitary.unit(x, net.epsilon)
    for W, b in zip(net.weights, net.biases, strict=True):
        if net.complex:
            W, b = (torch.complex(*p.chunk(2, dim=-1)) for p in (W, b))
        y = x @ W[:, None] + e @ b[:, None]
        x = net.activation(y, net.epsilon)
        rho = (unitary.squared_modulus(y) + net.epsilon**2).sqrt()
        slope = net.activation.gain(rho)[0] > 0  # a zero y has a slope, too
        e = unitary.unit(y, net.epsilon) * slope
    return y * net.spread_out[:, :1, None, None]


@few
@given(
    seed=seeds,
    kind=kinds,
    dtype=st.sampled_from([torch.float64, torch.complex128]),
    epsilon=rounded,
)
@example(seed=500, kind="softsign", dtype=torch.float64, epsilon=unitary.EPSILON)  # zero states
def test_the_gradient_by_hand_equals_autograd(seed, kind, dtype, epsilon):
    net = made(dtype, kind, output_scale=1.0, epsilon=epsilon)
    x = vectors(5, 3, 3, dtype=dtype, seed=seed).requires_grad_()
    weight = vectors(2, 5, 3, 2, dtype=dtype, seed=seed + 1, small=False)
    wanted = [x, *net.parameters()]
    ours, theirs = (
        torch.autograd.grad((weight.conj() * f).real.sum(), wanted) for f in (net(x), slow(net, x))
    )
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() <= 1e-9 * b.abs().max()


@pytest.mark.parametrize("kind", ["softsign", "relu", "leaky_relu", "identity"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradients_of_first_and_second_order_by_differences(kind, dtype):
    net = UnitaryNetwork((2, 2, 1), activation=kind, dtype=dtype, output_scale=1.0)
    x = vectors(1, 2, 2, dtype=dtype, seed=3, small=False).requires_grad_()
    parameters = [p.detach().clone().requires_grad_() for p in net.parameters()]

    def f(x, *parameters):
        state = dict(zip(dict(net.named_parameters()), parameters, strict=True))
        return torch.func.functional_call(net, state, (x,))

    assert torch.autograd.gradcheck(f, (x, *parameters))
    assert torch.autograd.gradgradcheck(f, (x, *parameters))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradients_of_a_network_with_scalars_by_differences(dtype):
    net = UnitaryNetwork((2, 3, 2), scalars=1, dtype=dtype, output_scale=1.0)
    x = vectors(2, 3, 2, dtype=dtype, seed=3, small=False).requires_grad_()
    assert torch.autograd.gradcheck(net, (x,))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_jacobian_of_the_activation_turns_as_it_must(dtype):
    """d sigma(g u) = g d sigma(u): the gradient of sum |sigma(u) - c|^2 turns with u and c."""
    u, c = (vectors(3, 4, dtype=dtype, seed=s, small=False) for s in (0, 1))
    g = element(3, dtype, 0)

    def slope(u, c):
        u = u.clone().requires_grad_()
        (unitary.softsign(u) - c).abs().square().sum().backward()
        return u.grad

    assert_turned(slope(g @ u, g @ c), slope(u, c), g, dtype)


# Members ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_members_never_mix(dtype):
    x = vectors(3, 4, 2, 3, dtype=dtype, seed=0)
    net = UnitaryNetwork((3, 6, 2), seeds=[5, 6, 7], dtype=dtype)
    with torch.no_grad():
        y = net(x)
        for s, seed in enumerate(net.seeds):
            alone = UnitaryNetwork((3, 6, 2), seeds=[seed], dtype=dtype)
            assert (alone(x[s : s + 1])[0] - y[s]).abs().max() <= exactness(dtype)
            same_for_all = net(x[s])
            assert (same_for_all[s] - y[s]).abs().max() <= exactness(dtype)
    y = net(x)
    y[1].abs().square().sum().backward()
    for p in net.parameters():
        assert p.grad is not None
        assert (p.grad[1] != 0).any()
        assert (p.grad[[0, 2]] == 0).all()
    net.keep(1)
    assert (net.S, net.seeds) == (1, [6])
    assert (net(x[1:2])[0] - y[1]).abs().max() <= exactness(dtype)


def test_sizes_count_real_parameters():
    assert UnitaryNetwork(seeds=3).size == 2 * (6 * 50 + 50 * 90 + 9000 + 8000 + 4000 + 200)
    assert UnitaryNetwork((2, 3, 1), dtype=torch.complex64).size == 2 * 2 * (6 + 3)
    net = UnitaryNetwork((2, 3, 1), seeds=4)
    assert net.S == 4
    assert net.seeds == [0, 1, 2, 3]
    assert sum(p.numel() for p in net.parameters()) == 4 * net.size


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_module_can_change_its_precision(dtype):
    net = UnitaryNetwork((2, 3, 1), dtype=dtype)
    assert net.dtype == dtype
    wide = torch.complex128 if dtype.is_complex else torch.float64
    assert net.double().dtype == wide
    assert net(torch.ones(1, 2, 2, dtype=wide)).dtype == wide


def size(v):
    return v.abs().square().mean().sqrt()


# Units --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_standardise_makes_the_units_of_inputs_and_targets_irrelevant(dtype):
    x = vectors(50, 3, 3, dtype=dtype, seed=0, small=False)
    T = vectors(50, 3, 2, dtype=dtype, seed=1, small=False)
    net, other = made(dtype), made(dtype)
    net.standardise(x, T)
    other.standardise(1000 * x, 0.01 * T)
    torch.testing.assert_close(net.spread_in[:, 0], size(x).expand(2))
    torch.testing.assert_close(net.spread_out[:, 0], size(T).expand(2))
    with torch.no_grad():
        torch.testing.assert_close(other(1000 * x), 0.01 * net(x), rtol=1e-3, atol=1e-7)
    own = torch.stack([x, 2 * x])  # each member its own data
    net.standardise(own, torch.stack([T, 5 * T]))
    torch.testing.assert_close(net.spread_in[:, 0], torch.stack([size(x), 2 * size(x)]))
    torch.testing.assert_close(net.spread_out[:, 0], torch.stack([size(T), 5 * size(T)]))


def test_standardise_treats_scalars_apart():
    x = vectors(50, 4, 3, dtype=torch.float64, seed=0, small=False)
    T = vectors(50, 4, 2, dtype=torch.float64, seed=1, small=False)
    x[:, 3:] *= 100
    T[:, 3:] *= 7
    net = made(torch.float64, scalars=1)
    net.standardise(x, T)
    expected = torch.stack([size(x[:, :3]), size(x[:, 3:])])
    torch.testing.assert_close(net.spread_in, expected.expand(2, 2))
    expected = torch.stack([size(T[:, :3]), size(T[:, 3:])])
    torch.testing.assert_close(net.spread_out, expected.expand(2, 2))


# Training -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_it_learns_an_equivariant_map_and_stays_equivariant(dtype):
    """T = x_1 (x_1^dagger x_2) c: with complex weights c may be complex."""
    c = 0.6 - 0.8j if dtype.is_complex else 1.0
    data = vectors(2000, 2, 2, dtype=dtype, seed=0, small=False)
    T = c * data[..., :1] * (data[..., :1].conj() * data[..., 1:]).sum(-2, keepdim=True)
    net = UnitaryNetwork((2, 12, 12, 1), seeds=2, dtype=dtype)
    net.standardise(data, T)

    def loss(net, x, T):
        return (net(x) - T).abs().square().mean((1, 2, 3)) / T.abs().square().mean()

    def batch(step):
        rows = torch.randint(2000, (128,), generator=seeded(step))
        return data[rows].expand(2, -1, -1, -1), T[rows].expand(2, -1, -1, -1)

    before = loss(net, data, T).detach()
    training.fit(net, loss, batch, steps=250, lr=1e-2, warmup=15, progress=False)
    with torch.no_grad():
        assert (loss(net, data, T) < 0.1 * before).all()
        g = element(2, dtype, 0)
        assert_turned(net(g @ data), net(data), g, dtype, slack=30)


# Bad input ----------------------------------------------------------------------------------------


NET, TWO = UnitaryNetwork((3, 4, 2), seeds=2), torch.ones(5, 3, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UnitaryNetwork((3,)), r"sizes = \(3,\); expected M_0, \.\.\., M_L"),
        (lambda: UnitaryNetwork((3, 0)), r"sizes = \(3, 0\)"),
        (lambda: UnitaryNetwork((3, 2), scalars=-1), "scalars = -1"),
        (lambda: UnitaryNetwork((3, 2), epsilon=0.0), "epsilon = 0.0; expected a positive number"),
        (lambda: UnitaryNetwork((3, 2), seeds=[]), "seeds: got none"),
        (lambda: UnitaryNetwork((3, 2), seeds=0), "seeds: got none"),
        (lambda: UnitaryNetwork((3, 2), dtype=torch.int64), "dtype = torch.int64"),
        (lambda: UnitaryNetwork((3, 2), activation="tanh"), "activation = 'tanh'; expected one of"),
        (lambda: unitary.relu(TWO, threshold=-1.0), "threshold = -1.0"),
        (lambda: unitary.leaky_relu(TWO, slope=2.0), "slope = 2.0"),
        (lambda: NET(torch.ones(5, 3, 2)), r"x: got shape \(5, 3, 2\), expected \(2, B, n, 3\)"),
        (lambda: NET(torch.ones(3, 3)), r"x: got shape \(3, 3\)"),
        (lambda: NET(torch.ones(4, 5, 3, 3)), r"x: got shape \(4, 5, 3, 3\)"),
        (lambda: NET(torch.ones(5, 3, 3).double()), r"x: got torch.float64, .* torch.float32"),
        (lambda: NET(torch.ones(5, 3, 3) + 0j), r"x: got torch.complex64"),
        (
            lambda: UnitaryNetwork((3, 2), scalars=2)(torch.ones(5, 2, 3)),
            "the last 2 coordinates scalars",
        ),
        (lambda: NET.standardise(torch.ones(5, 3, 3), TWO[..., :1]), r"T: got shape \(5, 3, 1\)"),
        (lambda: NET.standardise(torch.ones(5, 3, 2), TWO), r"x: got shape \(5, 3, 2\)"),
        (lambda: NET.standardise(torch.ones(5, 3, 3), TWO + 0j), "T: got torch.complex64"),
        (lambda: NET.standardise(torch.zeros(5, 3, 3), TWO), "x: the root mean square .* zero"),
        (lambda: NET.standardise(torch.ones(5, 3, 3), TWO * torch.nan), "T: .* nan"),
    ],
)
def test_bad_input_says_what_was_expected(make, message):
    with pytest.raises(ValueError, match=message):
        make()
    assert (NET.spread_in == 1).all()  # and nothing was set on the way
