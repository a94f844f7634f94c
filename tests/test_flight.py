"""Compiled rollouts against `integrators.solve`, which knows nothing of them."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from companion import _flight, _kernels, groups, integrators, invariants
from companion._activations import ACTIVATIONS, Activation
from companion.lagrangian import LagrangianNetwork

LAYERS = {
    "unconstrained": lambda: invariants.Unconstrained(1, 3),
    "plane": lambda: invariants.Unconstrained(1, 2),
    "rotations": lambda: invariants.Rotations(1, 3),
    "rotations in the plane": lambda: invariants.Rotations(1, 2),
    "translations": lambda: invariants.Translations(2, 2),
    "rotations of two": lambda: invariants.Rotations(2, 3, levi_civita=False),
    "both": lambda: invariants.RotationsTranslations(2, 4),
    "schwarzschild": invariants.SchwarzschildRotations,
}
STACKS = [(name, (16, 24), "softplus", 2) for name in LAYERS]
STACKS += [("rotations", hidden, "softplus", 3) for hidden in [(5,), (12, 8, 17)]]
STACKS += [("unconstrained", (12, 8, 17), name, 1) for name in ACTIVATIONS]
DTYPES = [torch.float64, torch.float32]


def network(name="rotations", hidden=(16, 24), activation="softplus", seeds=2, dtype=DTYPES[0]):
    layer = LAYERS[name]()
    net = LagrangianNetwork(
        layer,
        hidden,
        activation=activation,
        seeds=seeds,
        mass=[1.0] * layer.d,
        output_scale=0.1,
        dtype=dtype,
    )
    net.standardise(*states(net, 50, seed=4))
    with torch.no_grad():
        for b in net.biases:  # zero at the start, and then they could be forgotten
            b += 0.1 * torch.arange(b.numel(), dtype=dtype).sin().view(b.shape)
    return net


def states(net, n=3, seed=3):
    draw = torch.Generator().manual_seed(seed)
    z = torch.randn(2, n, net.layer.d, generator=draw, dtype=torch.float64)
    return z.to(net.output.dtype)


@torch.no_grad()
def reference(net, q, qdot, dt, steps, **options):
    y0 = torch.cat([q, qdot], dim=-1).expand(net.S, *q.shape[-2:-1], -1)
    return integrators.solve(net.rhs, y0, dt, steps, **options)


def assert_same(path, expected, roundings):
    assert path.shape == expected.shape
    assert path.dtype == expected.dtype
    error = (path - expected).abs().max() / expected.abs().max()
    assert error < roundings * torch.finfo(path.dtype).eps


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "hidden", "activation", "seeds"), STACKS)
def test_rollout_equals_solve(name, hidden, activation, seeds, dtype):
    net = network(name, hidden, activation, seeds, dtype)
    q, qdot = states(net)
    assert net.compiled
    path = net.rollout(q, qdot, 0.02, 12, every=3)
    assert path.shape == (5, seeds, 3, 2 * net.layer.d)
    assert not path.requires_grad
    assert_same(path, reference(net, q, qdot, 0.02, 12, every=3), 200)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_states_of_every_member_and_back_in_time(dtype):
    net = network(dtype=dtype)
    q, qdot = states(net, 8)
    q, qdot = (x.view(4, 2, 3).transpose(0, 1) for x in (q, qdot))  # (S, B, d), not contiguous
    path = net.rollout(q, qdot, -0.05, 30)
    expected = integrators.solve(net.rhs, torch.cat([q, qdot], -1), -0.05, 30).detach()
    assert_same(path, expected, 200)
    assert not torch.equal(path[:, 0], path[:, 1])


@pytest.mark.parametrize("compensated", [False, True])
def test_float32_loses_what_float32_loses(compensated):
    """Neither more than torch in float32 nor, by computing in float64 on the sly, less."""
    net, exact = network(dtype=torch.float32), network()
    exact.load_state_dict(net.state_dict())
    q, qdot = states(net, 8)
    steps = {"dt": 1e-3, "steps": 400, "every": 400}
    truth = exact.rollout(q.double(), qdot.double(), **steps)
    errors = [
        (path[-1] - truth[-1]).abs().mean().item()
        for path in (
            net.rollout(q, qdot, **steps, compensated=compensated),
            reference(net, q, qdot, **steps, compensated=compensated),
        )
    ]
    assert 0.5 < errors[0] / errors[1] < 2
    assert (errors[0] < 5e-8) == compensated  # the additions lose most of it


def test_compensated_sums_are_those_of_integrators():
    net = network()
    q, qdot = states(net)
    path = net.rollout(q, qdot, 0.02, 50, every=50, compensated=True)
    expected = reference(net, q, qdot, 0.02, 50, every=50, compensated=True)
    assert_same(path, expected, 200)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_activations_are_exact_to_rounding_far_out(name, dtype):
    eps = np.finfo(dtype).eps
    far = np.array([0.0, 1e-12, -1e-12, 700, -700, 1e4, -1e4, 1e30, -1e30])
    u = np.concatenate([np.linspace(-40, 40, 4001), far]).astype(dtype)
    if name == "sin":
        u = u[np.abs(u) < 1e5]
    jet = [np.empty_like(u) for _ in range(3)]
    _kernels.activate(_kernels.KINDS.index(name), u, *jet)
    x = u.astype(np.longdouble)
    e = np.exp(-np.abs(x))
    sigmoid, bell = np.where(x < 0, e, 1) / (1 + e), e / (1 + e) ** 2
    with np.errstate(over="ignore"):
        sech = 2 * np.exp(-np.abs(x)) / (1 + np.exp(-2 * np.abs(x)))
    exact = {
        "softplus": (np.maximum(x, 0) + np.log1p(e), sigmoid, bell),
        "tanh": (np.tanh(x), sech**2, -2 * np.tanh(x) * sech**2),
        "silu": (x * sigmoid, sigmoid + x * bell, bell * (2 + x * (1 - 2 * sigmoid))),
        "sin": (np.sin(x), np.cos(x), -np.sin(x)),
    }[name]
    for found, right in zip(jet, exact, strict=True):
        allowed = (
            (3 if name == "softplus" else 4)
            * eps
            * np.maximum(np.abs(right), 1 if name in ("silu", "sin") else 0)
        )
        assert (np.abs(found - right) <= allowed + 1e3 * np.finfo(dtype).tiny).all()


def test_nan_stays_nan_and_inf_saturates():
    u = np.array([np.nan, np.inf, -np.inf])
    for name in ("softplus", "tanh", "silu"):
        y, slope, bend = (np.empty(3) for _ in range(3))
        _kernels.activate(_kernels.KINDS.index(name), u, y, slope, bend)
        assert np.isnan([y[0], slope[0], bend[0]]).all()
        if name != "silu":
            np.testing.assert_array_less(np.abs(bend[1:]), 1e-300)
            assert slope[1] == (1 if name == "softplus" else slope[2])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_trajectory_that_runs_away_spoils_no_other(dtype):
    net = network("unconstrained", activation="sin", dtype=dtype)
    q, qdot = states(net)
    qdot[1] = torch.finfo(dtype).max / 4
    path = net.rollout(q, qdot, 100.0, 20)
    assert path[0].isfinite().all()
    assert not path[-1, :, 1].isfinite().all(-1).any()
    others = [0, 2]
    assert torch.equal(path[:1, :, others], net.rollout(q[others], qdot[others], 100.0, 20)[:1])
    alone = net.rollout(q[others], qdot[others], 0.01, 20)
    together = net.rollout(q, qdot, 0.01, 20)[:, :, others]
    assert torch.equal(together, alone)


def test_singular_hessian_gives_no_number():
    layer = invariants.Unconstrained(1, 2)
    net = LagrangianNetwork(layer, (8,), output_scale=0.0, dtype=torch.float64)  # L = 0
    path = net.rollout(*states(net), 0.1, 2)
    assert not path[1:].isfinite().all(-1).any()


@pytest.mark.parametrize("first", [0.0, 1e-25])
def test_elimination_looks_for_a_pivot(first):
    draw = np.random.default_rng(0)
    A = draw.normal(size=(5, 6))
    A[0, 0] = first
    expected = np.linalg.solve(A[:, :5], A[:, 5])
    _kernels.solve(A)
    np.testing.assert_allclose(A[:, 5], expected, rtol=1e-12)


def test_angular_momentum_of_random_weights_drifts_as_the_integrator_does():
    net = network(seeds=3)
    q, qdot = states(net)
    generators = groups.SO(3).generators()
    drifts = []
    for steps in (50, 100):
        path = net.rollout(q, qdot, 4.0 / steps, steps, every=steps)
        first, last = (net.charges(y[..., :3], y[..., 3:], generators) for y in path)
        drifts.append((last - first).abs().max().item())
    assert 1e-13 < drifts[1] < drifts[0] / 12


def test_threads_and_chunks_change_no_bit(monkeypatch):
    net = network(seeds=3)
    q, qdot = states(net)
    roll = {"dt": 0.01, "steps": 60, "every": 2}
    threads = torch.get_num_threads()
    try:
        for number in (2, 4, 20):  # for 9 trajectories
            q = q + 0.1  # else a trajectory that is forgotten could be read from old memory
            torch.set_num_threads(1)
            monkeypatch.setattr(_flight, "CHUNK", 10_000)
            expected = net.rollout(q, qdot, **roll)
            torch.set_num_threads(number)
            monkeypatch.setattr(_flight, "CHUNK", 14)
            assert torch.equal(net.rollout(q, qdot, **roll), expected)
            assert torch.equal(net.rollout(q[:0], qdot[:0], **roll), expected[:, :, :0])
    finally:
        torch.set_num_threads(threads)


@pytest.mark.skipif(bool(os.environ.get("TQDM_DISABLE")), reason="bars are switched off")
def test_progress_counts_steps(capsys):
    net = network()
    q, qdot = states(net)
    path = net.rollout(q, qdot, 0.01, 60, every=20, progress=True)
    assert torch.equal(path, net.rollout(q, qdot, 0.01, 60, every=20))
    assert "60/60" in capsys.readouterr().err


# Where it cannot be used -----------------------------------------------------------------------


def other_networks():
    cubic = invariants.Rotations(2, 3)
    bumps = Activation("bumps", ACTIVATIONS["sin"].jet)
    return {
        "Levi-Civita of three vectors": LagrangianNetwork(cubic, (8,), dtype=torch.float64),
        "an activation of one's own": network(activation=bumps),
    }


@pytest.mark.parametrize("why", list(other_networks()))
def test_other_networks_are_left_to_solve(why):
    net = other_networks()[why]
    q, qdot = states(net)
    assert not net.compiled
    assert torch.equal(net.rollout(q, qdot, 0.01, 4), reference(net, q, qdot, 0.01, 4))


def test_only_float32_and_float64_are_compiled():
    assert not network().to(torch.bfloat16).compiled
    assert not network().to("meta").compiled


def test_importing_companion_does_not_import_numba():
    code = "import companion, companion.lagrangian, sys; sys.exit('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


BAD = [
    ({"steps": 10, "every": 3}, "steps = 10 and every = 3"),
    ({"steps": 0}, "steps = 0"),
    ({"dt": 0.0}, "dt = 0.0"),
    ({"dt": float("nan")}, "dt = nan"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_errors_are_those_of_solve(change, message):
    net = network()
    q, qdot = states(net)
    with pytest.raises(ValueError, match=message):
        net.rollout(q, qdot, **{"dt": 0.01, "steps": 10, **change})


def test_bad_states_are_refused():
    net = network()
    q, qdot = states(net)
    with pytest.raises(ValueError, match="float32"):
        net.rollout(q.float(), qdot.float(), 0.01, 10)
    with pytest.raises(ValueError, match="add a batch axis"):
        net.rollout(q[0], qdot[0], 0.01, 10)
    q[1, 2] = torch.nan
    with pytest.raises(ValueError, match=r"nan at index \(0, 1, 2\)"):
        net.rollout(q, qdot, 0.01, 10)
