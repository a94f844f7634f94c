"""Friction beside a Hamiltonian, and the two experiments on real machines.

They run on the simulated stand-in; where the measurements are, the shipped figures are recomputed.
"""

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion import artifacts, experiments, integrators, measurements
from companion.__main__ import main
from companion.dissipation import DAMPINGS, DissipativeNetwork
from companion.experiments import _real, _real_figures

few = settings(deadline=None, max_examples=8)
seeds = st.integers(0, 2**16)
NAMES = ("real_oscillators", "real_pendulum")
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "schmidt_lipson"
FILES = Path(os.environ.get(measurements.FOLDER) or SHARED)
HERE = all((FILES / source.file).is_file() for source in measurements.SOURCES.values())


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    """The stand-in, and no network."""
    forget = measurements.load.cache_clear
    monkeypatch.setenv(measurements.FOLDER, measurements.SIMULATE)
    forget()
    yield
    forget()


def states(*shape, seed=0, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=draw, dtype=dtype)


def machine(damping, seed=0, d=2, dtype=torch.float64, **more):
    """A network with random friction and masses, far from its start."""
    net = DissipativeNetwork(
        d, (16, 16), damping=damping, seeds=[seed, seed + 1], output_scale=1.0, dtype=dtype, **more
    )
    with torch.no_grad():
        for k, p in enumerate((net.factor, net.logarithms)):
            if p is not None:
                p += 0.7 * states(*p.shape, seed=seed + k, dtype=dtype)
        if net.core is not None:
            net.core.output *= 100
    return net


def study(name):
    return experiments.get(name).STUDY


# Friction ---------------------------------------------------------------------------------------


@few
@given(seed=seeds, damping=st.sampled_from(DAMPINGS), masses=st.booleans())
def test_energy_falls_by_the_power_at_any_weights(seed, damping, masses):
    net, z = machine(damping, seed, masses=masses), states(2, 20, 4, seed=seed)
    z.requires_grad_()
    (slope,) = torch.autograd.grad(net.energy(z).sum(), z)
    rate = (slope * net(z)).sum(-1)
    torch.testing.assert_close(rate, net.power(z), rtol=1e-9, atol=1e-10)
    if damping == "none":
        assert rate.abs().max() < 1e-10
    else:
        assert bool((net.power(z) <= 0).all())
        assert net.power(z).min() < -1e-3
        assert torch.linalg.eigvalsh(net.friction(z.detach())).min() > -1e-12


def test_friction_is_symmetric_and_the_networks_depends_on_the_state():
    z = states(2, 5, 4)
    for damping in ("constant", "network"):
        G = machine(damping).friction(z)
        torch.testing.assert_close(G, G.mT)
        assert torch.allclose(G[:, 0], G[:, 1]) == (damping == "constant")


def divergence(net, z):
    """Of the field at (q, v), a member a state."""
    J = torch.func.jacrev(lambda y: net(y[:, None])[:, 0].sum(0))(z).movedim(1, 0)
    return J.diagonal(dim1=-2, dim2=-1).sum(-1)


def test_volume_is_kept_without_friction_and_lost_with_it():
    z = states(2, 4, seed=5)
    free, damped = machine("none", masses=True), machine("constant", masses=True)
    assert divergence(free, z).abs().max() < 1e-10
    kinetic = torch.func.jacrev(lambda y: damped.hamiltonian(y[:, None])[:, 0].sum(0))(z)
    bend = kinetic.movedim(1, 0)[:, :2, 2:]  # d^2 H / dv dv
    inverse = 1 / damped.masses
    expected = -torch.einsum(
        "si,sij,sjk,sk,ski->s",
        inverse,
        damped.friction(z[:, None])[:, 0],
        torch.diag_embed(inverse),
        torch.ones_like(inverse),
        bend,
    )
    torch.testing.assert_close(divergence(damped, z), expected.detach(), rtol=1e-8, atol=1e-9)


def test_masses_turn_velocities_into_momenta():
    """With p = M v the field is Hamilton's: dH/dp and -dH/dq of H(q, p / m)."""
    net, z = machine("none", masses=True), states(2, 6, 4)
    m = net.masses.detach()[:, None]
    q, p = z[..., :2], z[..., 2:] * m
    q.requires_grad_()
    p.requires_grad_()
    H = net.energy(torch.cat([q, p / m], -1)).sum()
    by_q, by_p = torch.autograd.grad(H, (q, p))
    qdot, vdot = net(z).chunk(2, dim=-1)
    torch.testing.assert_close(qdot, by_p)
    torch.testing.assert_close(m * vdot, -by_q)
    assert torch.equal(net.masses[:, 0], torch.ones(2).double())


def test_energy_falls_along_a_whole_rollout():
    net = machine("constant", masses=True)
    with torch.no_grad():
        path = integrators.solve(net.field(), states(2, 3, 4), 0.01, 100)
    E = torch.stack([net.energy(z) for z in path]).detach()
    assert bool((E.diff(dim=0) <= 1e-9).all())
    assert (E[0] - E[-1]).min() > 1e-3


def test_an_angle_and_the_same_angle_a_turn_later_move_alike():
    net, z = machine("network", angles=(0, 1)), states(2, 6, 4)
    turn = torch.tensor([2 * math.pi, -2 * math.pi, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(net(z), net(z + turn))


@pytest.mark.parametrize("damping", DAMPINGS)
def test_members_never_mix(damping):
    net, z = machine(damping, masses=True), states(6, 4)
    net.standardise(z)
    one, both = machine(damping, masses=True), net(z)
    one.standardise(z)
    one.keep(1)
    torch.testing.assert_close(one(z)[0], both[1])
    assert (one.S, one.size) == (1, net.size)
    assert torch.allclose(both[0], both[1]) is False
    both[0].sum().backward()
    for p in net.parameters():
        if p.grad is not None:
            assert not p.grad[1].any()


def test_training_can_begin():
    """The friction does not start where its gradient is zero."""
    for damping in ("constant", "network"):
        net = DissipativeNetwork(2, (8,), damping=damping, seeds=2)
        net(states(5, 4, dtype=torch.float32)).square().sum().backward()
        assert bool((net.factor.grad[:, [0, 2]].abs() > 0).all())


def test_an_unknown_damping_is_refused():
    with pytest.raises(ValueError, match="damping = 'linear'; expected one of none, constant"):
        DissipativeNetwork(1, damping="linear")


# Laws, parts, units -----------------------------------------------------------------------------


def test_the_law_of_the_oscillators_finds_what_was_simulated():
    s = study("real_oscillators")
    law = s.law(s.points(s.measured(stand_in=True), "smooth"))
    A = measurements.STIFFNESS
    assert law.masses[0, 1].item() == pytest.approx((A[0, 1] / A[1, 0]).item(), rel=0.01)
    true = torch.linalg.eigvals(
        torch.cat(
            [
                torch.cat([torch.zeros(2, 2), torch.eye(2)], 1).double(),
                torch.cat([A, -torch.diag(measurements.FRICTION)], 1),
            ]
        )
    )
    true = true[true.imag > 0]
    true = true[true.imag.argsort()]
    frequency, decay = (x[0] / s.time for x in _real_figures.modes(law, states(30, 4)))
    torch.testing.assert_close(frequency, true.imag, rtol=0.006, atol=0)
    torch.testing.assert_close(decay, -true.real, rtol=0, atol=4e-3)
    torch.testing.assert_close(100 * law.rest[:2], measurements.MIDDLE, rtol=0.005, atol=0)


def test_the_law_of_the_pendulum_finds_what_was_simulated():
    s = study("real_pendulum")
    law = s.law(s.points(s.measured(stand_in=True), "smooth"))
    assert law.k.item() == pytest.approx(measurements.SWING, rel=0.01)
    assert law.gamma.item() == pytest.approx(measurements.LOSS, rel=0.15)
    frequency, decay = _real_figures.modes(law, law.rest + 1e-3 * states(30, 2))
    assert frequency.item() == pytest.approx(math.sqrt(law.k.item()), rel=1e-3)
    assert decay.item() == pytest.approx(law.gamma.item() / 2, rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_the_energy_of_a_law_falls_by_its_friction_alone(name):
    s = study(name)
    data = s.measured(stand_in=True)
    law = s.law(s.points(data, "smooth"))
    z = states(1, 50, 2 * data.d, seed=3)
    assert law.energy(law.rest).abs() < 1e-12
    z.requires_grad_()
    (slope,) = torch.autograd.grad(law.energy(z).sum(), z)
    field, v = law(z), z[0, :, data.d :]
    power = (slope * field).sum(-1)[0]
    friction = law.masses[0] * (law.gamma * law.a * v if name == "real_pendulum" else v @ law.G.T)
    torch.testing.assert_close(power, -(v * friction).sum(-1), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_natural_units_are_a_matter_of_writing(name):
    s = study(name)
    data = s.measured(stand_in=True)
    for reading in ("file", "forward", "smooth"):
        a, b = s.points(data, reading), replace(s, length=1.0, time=1.0).points(data, reading)
        unit = s.units(data.d)
        torch.testing.assert_close(a.z * unit, b.z)
        torch.testing.assert_close(a.zdot * unit / s.time, b.zdot)
        torch.testing.assert_close(a.t * s.time, b.t)
    with pytest.raises(ValueError, match="reading = 'raw'; expected 'file', 'forward'"):
        s.points(data, "raw")


@pytest.mark.parametrize("reading", ["file", "smooth"])
def test_no_test_point_helps_to_make_a_training_rate(reading):
    s = study("real_pendulum")
    data = s.measured(stand_in=True)
    past, future = data.split()
    spoiled = replace(data, q=torch.cat([past.q, 0 * future.q]), v=torch.cat([past.v, future.v]))
    a, b = (s.points(x.split()[0], reading) for x in (data, spoiled))
    assert torch.equal(a.zdot, b.zdot)


def test_pairs_put_two_machines_into_one_state():
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    assert torch.equal(_real.paired(a, b), torch.tensor([1.0, 3.0, 2.0, 4.0]))
    s = study("real_pendulum")
    points = s.points(s.measured(stand_in=True), "smooth")
    batch = _real.Batches(points, [3, 4], pairs=True, device="cpu")
    (z, zdot), (again, _), (other, _) = batch(7), batch(7), batch(8)
    assert torch.equal(z, again)
    assert not torch.equal(z, other)
    assert not torch.equal(z[0], z[1])
    assert torch.equal(z[0, :, [0, 2]], points.z.float())
    # the second machine's states are the trajectory's, each with its own rate
    rows = {tuple(x) for x in torch.cat([points.z, points.zdot], 1).float().tolist()}
    second = torch.cat([z[1][:, [1, 3]], zdot[1][:, [1, 3]]], 1)
    assert {tuple(x) for x in second.tolist()} == rows


def test_a_perfect_model_has_no_loss_and_one_without_motion_all_of_it():
    s = study("real_oscillators")
    _, future = s.measured(stand_in=True).split()
    points = s.points(future, "smooth")

    class Table(_real_figures.Law):
        factor = 1.0

        def forward(self, z):
            mean = points.zdot.mean(0)
            return (mean + self.factor * (points.zdot - mean))[None]

    table = Table()
    relative, plain = s.test_losses("law", table, future, "smooth")
    assert relative.item() < 1e-25
    assert plain.item() < 1e-20
    table.factor = 0.0
    relative, plain = s.test_losses("law", table, future, "smooth")
    assert relative.item() == pytest.approx(1.0, rel=1e-9)
    variance = (points.zdot * s.units(2) / s.time).var(0, correction=0)
    assert plain.item() == pytest.approx(variance.mean().item(), rel=1e-9)


def test_a_forecast_of_a_linear_law_is_the_matrix_exponential():
    s = study("real_oscillators")
    law = s.law(s.points(s.measured(stand_in=True), "smooth"))
    zero, one = torch.zeros(2, 2).double(), torch.eye(2).double()
    M = torch.cat([torch.cat([zero, one], 1), torch.cat([law.A, -law.G], 1)])
    t = torch.tensor([0.0, 0.1, 0.21, 0.29]).double()
    start = states(4, seed=8)
    path = _real_figures.forecast(law, start, t)[:, 0]
    for k in range(4):
        exact = law.rest + torch.linalg.matrix_exp(M * t[k]) @ (start - law.rest)
        torch.testing.assert_close(path[k], exact, rtol=1e-4, atol=1e-5)


# The experiments --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_without_measurements_nothing_is_trained_or_evaluated(name, tmp_path, capsys):
    words = ["--budget", "ci", "--device", "cpu", "--output", str(tmp_path)]
    assert main(["train", name, *words]) == 2
    said = capsys.readouterr().err
    assert "are about measurements, and these are not here" in said
    assert "COMPANION_DATA" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_train_resume_and_evaluate(name, tmp_path, monkeypatch):
    """On a piece of the stand-in, with a model of every kind."""
    s = study(name)
    models = ("file-field", "file-scnn-2", "hnn", "damped", "damped-network")
    small = replace(s.settings["full"], models=models, lengths=(2, 3), hidden=(4, 4))
    monkeypatch.setitem(s.settings, "ci", small)
    data = measurements.simulated(s.data)
    real = replace(data, simulated=False, t=data.t[:120], q=data.q[:120], v=data.v[:120])
    monkeypatch.setattr(measurements, "load", lambda name: real)
    words = ["train", name, "--budget", "ci", "--device", "cpu", "--seeds", "2"]
    assert main([*words, "--output", str(tmp_path)]) == 0
    networks, about = s.load(tmp_path)
    assert tuple(networks) == models
    assert set(about["validation"]) == set(networks)
    for tried in about["validation"].values():
        assert set(tried) == {"2", "3"}
    report = json.loads((tmp_path / "metrics.json").read_text())
    names = [figure["name"] for figure in report["figures"]]
    assert len(set(names)) == len(names)
    assert {"file-scnn-2: test loss", "damped: energy left", "law: forecast error"} <= set(names)
    (tmp_path / "weights.safetensors").unlink()
    s.train("ci", range(2), "cpu", tmp_path, "", progress=False)  # from the checkpoints
    again, _ = s.load(tmp_path)
    for key, net in networks.items():
        for p, q in zip(net.parameters(), again[key].parameters(), strict=True):
            assert torch.equal(p, q)


@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_run_reaches_the_papers_loss(name):
    """By the stored figures: the measurements are not needed."""
    s = study(name)
    stored = artifacts.load_metrics(artifacts.folder(name))["figures"]
    rows = {figure["name"]: figure["ours"]["mean"] for figure in stored}
    reached = [
        x for key, x in rows.items() if key.startswith("file-") and key.endswith("test loss")
    ]
    assert min(reached) <= s.aim
    assert abs(rows["damped: energy left"] - rows["measured: energy left"]) < 0.1
    assert rows["hnn: energy left"] > rows["measured: energy left"] + 0.1


@pytest.mark.slow
@pytest.mark.skipif(not HERE, reason=f"no measurements in {FILES}: nothing to recompute from")
@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_figures_are_recomputed(name, monkeypatch):
    monkeypatch.setenv(measurements.FOLDER, str(FILES))
    measurements.load.cache_clear()
    figures, _ = experiments.get(name).evaluate()
    stored = artifacts.load_metrics(artifacts.folder(name))
    assert artifacts.disagreements(stored, figures) == []
