"""companion.emlp: equivariance at random weights, explicit gradients, members, training."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion import finite, groups, testing, training
from companion._trilinear import OTHERS, _compiled, _termwise, contract
from companion.emlp import EMLP, uniform_rep
from companion.representations import SCALAR, Rep, T, V, averaging_projector

GROUPS = {
    "O2": finite.Embedded(groups.O(2), 3),
    "SO2": finite.Embedded(groups.SO(2), 3),
    "D2": finite.Embedded(finite.Dihedral(2), 3),
    "D6": finite.Embedded(finite.Dihedral(6), 3),
    "O3": groups.O(3),
    "SO3": groups.SO(3),
}
named = pytest.mark.parametrize("name", GROUPS)
both = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
few = settings(deadline=None, max_examples=15)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows(S: int, R: int, n: int, dtype=torch.float64, seed: int = 0) -> torch.Tensor:
    return torch.randn(S, R, n, generator=seeded(seed), dtype=torch.float64).to(dtype)


def standardised(net: EMLP, seed: int = 5) -> EMLP:
    """With data that are far from centred and from isotropic."""
    S, n = net.shift.shape
    x = rows(S, 200, n, net.shift.dtype, seed)
    net.standardise(x * torch.linspace(0.2, 3, n).to(x) + torch.linspace(-2, 5, n).to(x))
    return net


def action(rep: Rep):
    return lambda g, x: x @ rep.matrix(g).to(x.dtype).mT


# Equivariance -------------------------------------------------------------------------------------


@named
@both
@pytest.mark.parametrize("channels", [20, 128])
def test_equivariant_at_random_weights(name, dtype, channels):
    group, rep_in, rep_out = GROUPS[name], 2 * SCALAR + 3 * V, SCALAR + 2 * V + T(2)
    net = standardised(EMLP(rep_in, rep_out, group, channels, seeds=2, dtype=dtype))
    testing.assert_equivariant(
        net.value,
        action(rep_in),
        rows(2, 6, rep_in.size(3), dtype),
        output_action=action(rep_out),
        elements=group.sample(4, generator=seeded(1)),
    )


@named
@both
def test_an_invariant_network_and_its_gradient(name, dtype):
    group, rep = GROUPS[name], SCALAR + 3 * V
    net = standardised(EMLP(rep, SCALAR, group, 64, layers=2, seeds=2, dtype=dtype))
    x, g = rows(2, 6, rep.size(3), dtype), group.sample(4, generator=seeded(1))
    with torch.no_grad():
        testing.assert_invariant(net.value, action(rep), x, elements=g)
        testing.assert_equivariant(net.gradient, action(rep), x, elements=g)


def test_a_larger_group_fails_the_check():
    """SO(2) does not know the mirror, D2 no turn by 60 degrees, O(2) no other axis."""
    pairs = [("SO2", "O2"), ("D2", "D6"), ("O2", "O3"), ("SO3", "O3")]
    for less, more in pairs:
        net = standardised(EMLP(3 * V, V, GROUPS[less], 64, dtype=torch.float64))
        elements = GROUPS[more].sample(20, generator=seeded(2))
        with pytest.raises(AssertionError, match="fails"):
            testing.assert_equivariant(
                net.value, action(3 * V), rows(1, 5, 9), output_action=action(V), elements=elements
            )


def test_other_spaces_than_three_dimensions():
    for group, channels in [
        (finite.Symmetric(4), 3 * SCALAR + 4 * V + 2 * T(2)),
        (finite.Cyclic(5), 40),
        (groups.O(2), 40),
        (finite.Trivial(2), 20),
        (finite.Trivial(1), 5 * SCALAR + 2 * V),
    ]:
        net = EMLP(V, V + T(2), group, channels, seeds=2, dtype=torch.float64)
        d = group.d
        g = group.sample(5, generator=seeded(0))
        x = rows(2, 3, d)
        for h in g:
            a, b = net.value(x @ h.mT), net.value(x) @ (V + T(2)).matrix(h).mT
            assert (a - b).abs().max() < 1e-12 * max(1, b.abs().max())


def test_without_symmetry_an_output_is_any_function_of_the_inputs():
    net = EMLP(V, SCALAR, finite.Trivial(3), 39, dtype=torch.float64)
    assert net.hidden == uniform_rep(39, 3)
    x = rows(1, 4, 3).requires_grad_()
    (slope,) = torch.autograd.grad(net.value(x).sum(), x)
    assert (slope.abs() > 1e-6).all()


def test_the_bilinear_part_makes_scalars_of_vectors():
    """Of O(3) a linear map of a vector to a scalar is zero, yet the output depends on the input;
    and no longer without the bilinear part."""
    net = EMLP(2 * V, SCALAR, GROUPS["O3"], 64, dtype=torch.float64)
    x = rows(1, 5, 6)
    assert net.value(x).std() > 1e-6
    for mix in net.mixes:
        mix.dots.data.zero_()
        for C in mix.mixing.values():
            C.data.zero_()
    assert torch.equal(net.value(x), torch.zeros(1, 5, 1).double())


# Hidden representation ----------------------------------------------------------------------------


def test_channels_are_shared_out_as_in_the_paper():
    assert uniform_rep(128, 3) == Rep((38, 12, 3, 1))
    assert uniform_rep(64, 3) == Rep((25, 7, 2))
    assert uniform_rep(384, 3) == Rep((102, 34, 11, 3))


@few
@given(channels=st.integers(1, 400), d=st.integers(2, 6))
def test_channels_are_all_used(channels, d):
    assert uniform_rep(channels, d).size(d) == channels


def test_with_64_channels_d6_is_o2():
    """Their invariant tensors agree up to rank 5; the null spaces, so the weights, are the same."""
    a, b = (EMLP(4 * V, SCALAR, GROUPS[name], 64, dtype=torch.float64) for name in ("O2", "D6"))
    x = rows(1, 5, 12)
    assert torch.allclose(a.value(x), b.value(x), rtol=1e-10)
    sizes = [
        sum(p[0].numel() for p in EMLP(4 * V, SCALAR, GROUPS[name], 128).parameters())
        for name in ("O2", "D6")
    ]
    assert sizes[1] == sizes[0] + 2  # one for each of the two maps from hidden to hidden layer


def test_with_vectors_as_input_128_channels_of_d6_are_equivariant_under_o2():
    """What D6 adds at rank 6 acts on tensors with three times the angle, which vectors never fill;
    an input of rank 3 does."""
    elements = GROUPS["O2"].sample(6, generator=seeded(4))
    for rep, equivariant in ((4 * V, True), (V + T(3), False)):
        net = EMLP(rep, V, GROUPS["D6"], 128, dtype=torch.float64)
        error = testing.assert_equivariant(
            net.value,
            action(rep),
            rows(1, 6, rep.size(3)),
            output_action=action(V),
            elements=elements,
            rtol=math.inf,
        )
        assert (error < 1e-12) == equivariant
        assert equivariant or error > 1e-4


@named
def test_spreads_at_random_weights_are_near_one(name):
    group = GROUPS[name]
    net = EMLP(4 * V, 4 * V, group, 128, seeds=8)
    x = rows(8, 300, 12, torch.float32)
    net.standardise(x)
    h = x.mT
    for layer in net.frozen().layers:
        h, (_, _, _, v, _) = layer.forward(h)
        whole = torch.cat([w.flatten(1) for w in v], 1).detach()
        assert 0.3 < whole.square().mean().sqrt() < 5
    assert 0.3 < net.value(x).detach().square().mean().sqrt() < 6


def test_output_scale_scales_the_outputs():
    x = rows(1, 4, 12)
    a, b = (
        EMLP(4 * V, V, GROUPS["O2"], 20, output_scale=s, dtype=torch.float64).value(x)
        for s in (1.0, 0.25)
    )
    assert torch.allclose(a, 4 * b)


# Gradients ----------------------------------------------------------------------------------------


@named
@pytest.mark.parametrize("channels", [128, 30, Rep((6,)), Rep((3, 0, 2)), Rep((0, 4))])
def test_gradient_is_that_of_autograd(name, channels):
    rep = 2 * SCALAR + 2 * V + T(2)
    net = standardised(EMLP(rep, SCALAR, GROUPS[name], channels, seeds=2, dtype=torch.float64))
    x = rows(2, 4, rep.size(3)).requires_grad_()
    (expected,) = torch.autograd.grad(net.value(x).sum(), x)
    assert torch.allclose(net.gradient(x), expected, rtol=1e-9, atol=1e-12)


def test_derivatives_of_the_gradient_in_weights_and_inputs():
    net = standardised(EMLP(2 * V, SCALAR, GROUPS["SO2"], 30, layers=2, dtype=torch.float64))
    x = rows(1, 3, 6).requires_grad_()
    wanted = [x, *net.parameters()]
    (twice,) = torch.autograd.grad(net.value(x).sum(), x, create_graph=True)
    expected = torch.autograd.grad(twice.square().sum(), wanted, materialize_grads=True)
    got = torch.autograd.grad(net.gradient(x).square().sum(), wanted, materialize_grads=True)
    for a, b in zip(got, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-10 * max(1.0, b.abs().max()))
    assert any(b.abs().max() > 1e-3 for b in expected[1:])


def test_frozen_is_the_network_and_keeps_the_graph():
    net = standardised(EMLP(4 * V, SCALAR, GROUPS["O2"], 30, seeds=2, dtype=torch.float64))
    f, x = net.frozen(), rows(2, 3, 12)
    assert torch.equal(f.value(x), net.value(x))
    assert torch.equal(f.gradient(x), net.gradient(x))
    f.gradient(x).square().sum().backward()
    assert all(p.grad is not None for p in net.linear[0].parameters() if p.shape[1] != 0)


SHAPES = {"A": (1, 3, 2, 2), "X": (1, 2, 2, 1, 2), "Y": (1, 2, 3, 1, 2)}
SUM = "soar,sxabr,sxobr->"


@pytest.mark.parametrize("want", "AXY")
@pytest.mark.parametrize("run", [_compiled, _termwise])
def test_contraction(want, run):
    """Both ways of computing it, against einsum; and its derivatives, twice."""
    tensors = {
        k: torch.randn(shape, generator=seeded(ord(k)), dtype=torch.float64, requires_grad=True)
        for k, shape in SHAPES.items()
    }
    total = torch.einsum(SUM, *tensors.values())
    (expected,) = torch.autograd.grad(total, tensors[want])
    others = [tensors[k] for k in OTHERS[want]]
    assert torch.allclose(run(want, *others), expected)
    assert torch.autograd.gradcheck(lambda *a: contract(want, *a), others)
    assert torch.autograd.gradgradcheck(lambda *a: contract(want, *a), others)


# Members, dtypes, standardisation -----------------------------------------------------------------


def test_members_are_those_trained_alone():
    rep = 2 * V
    many = EMLP(rep, SCALAR, GROUPS["O2"], 30, seeds=(4, 9), dtype=torch.float64)
    alone = EMLP(rep, SCALAR, GROUPS["O2"], 30, seeds=(9,), dtype=torch.float64)
    standardised(many)
    alone.shift.copy_(many.shift[1:])
    alone.scaling.copy_(many.scaling[1:])
    x = rows(2, 5, 6)
    assert torch.allclose(many.value(x)[1:], alone.value(x[1:]), rtol=1e-12)
    many.keep(1)
    assert many.seeds == (9,)
    assert torch.allclose(many.value(x[1:]), alone.value(x[1:]), rtol=1e-12)


def test_a_member_does_not_see_the_others():
    net = EMLP(2 * V, SCALAR, GROUPS["O2"], 30, seeds=2, dtype=torch.float64)
    net.value(rows(2, 5, 6))[0].sum().backward()
    assert all(p.grad is None or not p.grad[1].any() for p in net.parameters())


def test_first_weights_do_not_depend_on_the_dtype():
    a, b = (
        EMLP(2 * V, V, GROUPS["D6"], 30, seeds=2, dtype=dtype)
        for dtype in (torch.float32, torch.float64)
    )
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(p, q.float())


def test_converted_to_float64_it_is_equivariant_to_the_rounding_of_float64():
    net = EMLP(3 * V, V, GROUPS["O2"], 64).double()
    testing.assert_equivariant(
        net.value,
        action(3 * V),
        rows(1, 4, 9),
        output_action=action(V),
        elements=GROUPS["O2"].sample(3, generator=seeded(0)),
        rtol=1e-12,
    )


def test_standardised_inputs():
    """Centred along the axis; spread 1 along it and, together, across it; not otherwise."""
    net = EMLP(2 * V, SCALAR, GROUPS["O2"], 20, dtype=torch.float64)
    spread = torch.tensor([2.0, 4.0, 0.5, 1.0, 1.0, 9.0]).double()
    x = rows(1, 5000, 6) * spread + torch.tensor([0.0, 0.0, -3.0, 0.0, 0.0, 7.0]).double()
    net.standardise(x)
    y = (x - net.shift[:, None]) @ net.scaling.mT
    assert torch.allclose(y.mean(1)[0, [2, 5]], torch.zeros(2).double(), atol=1e-12)
    second = y.square().mean(1)[0]
    assert torch.allclose(second[[2, 5]], torch.ones(2).double())
    assert (second[0] + second[1]).item() == pytest.approx(2)
    assert second[1] / second[0] == pytest.approx(4, rel=0.1)  # the turn forbids to mend this
    R = (2 * V).matrix(GROUPS["O2"].sample(generator=seeded(3)))
    assert torch.allclose(net.scaling[0] @ R, R @ net.scaling[0], atol=1e-12)
    moment = (x - net.shift[:, None]).mT @ (x - net.shift[:, None]) / 5000
    block = moment[0, :3, :3].flatten()
    P = averaging_projector(V, V, GROUPS["O2"])
    whitened = net.scaling[0, :3, :3] @ (P @ block).view(3, 3) @ net.scaling[0, :3, :3]
    assert torch.allclose(whitened, torch.eye(3).double(), atol=1e-10)


def test_an_input_that_does_not_vary_keeps_its_scale():
    net = EMLP(2 * V, SCALAR, GROUPS["O2"], 20, dtype=torch.float64)
    x = rows(1, 50, 6)
    x[..., 2], x[..., 3:] = 4.0, 0.0
    net.standardise(x)
    assert net.scaling[0, 2, 2].item() == pytest.approx(1)
    assert torch.allclose(net.scaling[0, 3:, 3:], torch.eye(3).double())
    assert net.value(x).isfinite().all()


def test_state_dict_round_trip():
    a = standardised(EMLP(2 * V, V, GROUPS["SO2"], 30, seeds=(1,), dtype=torch.float64))
    b = EMLP(2 * V, V, GROUPS["SO2"], 30, seeds=(2,), dtype=torch.float64)
    b.load_state_dict(a.state_dict())
    x = rows(1, 4, 6)
    assert torch.equal(a.value(x), b.value(x))


def test_it_trains():
    """Its gradient learns to be x, so that it is half the square of a length."""
    net = EMLP(V, SCALAR, GROUPS["O2"], 20, layers=1, seeds=2, output_scale=0.1)
    x = rows(1, 200, 3, torch.float32).expand(2, -1, -1)

    def loss(net, x):
        return (net.frozen().gradient(x) - x).square().mean((1, 2))

    before = loss(net, x).detach()
    history = training.fit(net, loss, lambda step: (x,), steps=100, lr=1e-2, progress=False)
    assert math.isfinite(history.loss[-1][0])
    assert (loss(net, x).detach() < 0.1 * before).all()


# Errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: EMLP(V, V, GROUPS["O2"], layers=0), "layers = 0"),
        (lambda: EMLP(V, V, GROUPS["O2"], seeds=0), "seeds"),
        (lambda: EMLP(Rep(()), V, GROUPS["O2"]), "not empty"),
        (lambda: EMLP(V, V, groups.Lorentz(4)), "orthogonal"),
        (lambda: EMLP(V, V, GROUPS["O2"], 0), "channels >= 1"),
        (lambda: EMLP(V, V, finite.Trivial(1), 8), "d >= 2"),
        (lambda: EMLP(V, V, GROUPS["O2"], 8).gradient(rows(1, 2, 3).float()), "one output"),
        (lambda: EMLP(V, V, GROUPS["O2"], 8).value(rows(1, 2, 3)), "float64"),
        (lambda: EMLP(V, V, GROUPS["O2"], 8).value(rows(1, 2, 4).float()), "in = 3"),
        (lambda: EMLP(V, V, GROUPS["O2"], 8, seeds=2).value(rows(1, 2, 3).float()), "S = 2"),
        (lambda: EMLP(V, V, GROUPS["O2"], 8).value(rows(1, 2, 3).float()[0]), "S, R, in"),
    ],
)
def test_errors(make, says):
    with pytest.raises(ValueError, match=says):
        make()
