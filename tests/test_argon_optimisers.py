"""FIRE beside Adam and SOAP: first weights, loss, power laws, and a whole small run."""

import math

import pytest
import torch

from companion.experiments import argon_optimisers as study
from companion.optim import FIRE, SOAP


@pytest.fixture
def small(monkeypatch):
    """Few test sets of atoms, and a ci budget cut down."""
    monkeypatch.setattr("companion.experiments._argon.TESTED", 50)
    settings = study.Settings(64, 40, ("fire_2000", "soap"), 8)
    monkeypatch.setitem(study.SETTINGS, "ci", settings)
    study.TASK.__dict__.pop("test", None)  # cached with the size of the day
    yield
    study.TASK.__dict__.pop("test", None)


def test_first_weights_are_xaviers_and_biases_zero():
    net = study.network("fire", (3, 5)).network
    for W, b in zip(net.weights, net.biases, strict=True):
        _, n, m = W.shape
        limit = math.sqrt(6 / (n + m))
        assert 0.9 * limit < W.abs().max() <= limit
        assert W.std().item() == pytest.approx(math.sqrt(2 / (n + m)), rel=0.1)
        assert bool((b == 0).all())
    assert net.activation.a == 0.1
    alone = study.network("adam", (5,)).network  # of its seed alone, and the same in every run
    for p, q in zip(net.parameters(), alone.parameters(), strict=True):
        assert torch.equal(p[1:], q)
    assert study.network("soap_a1", (3,)).network.activation.a == 1.0


def test_the_loss_is_that_of_the_paper():
    """Eq. (42) by hand: forces in units of their spread, a sum over atoms and components."""
    net = study.network("fire", (0, 1))
    r, F = (x[None, :7].float() for x in (study.TASK.sample.r[0], study.TASK.sample.F[0]))
    spread = net.network.spread_out[0, 0].item()
    expected = [
        sum(((net.forces(r)[s, b] - F[0, b]) / spread).square().sum() for b in range(7)) / 7
        for s in range(2)
    ]
    torch.testing.assert_close(
        study.loss(net, r.expand(2, -1, -1, -1), F.expand(2, -1, -1, -1)), torch.stack(expected)
    )


def test_the_gradient_in_parts_is_the_gradient():
    net = study.network("fire", (0, 1))
    r, F = (
        x.float().expand(2, -1, -1, -1)[:, :2300]
        for x in (study.TASK.sample.r, study.TASK.sample.F)
    )
    whole = study.loss(net, r, F)
    whole.sum().backward()
    gradients = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    parts = study.loss_in_parts(net, r, F)
    parts.sum().backward()  # as fit does
    torch.testing.assert_close(parts, whole)
    for p, g in zip(net.parameters(), gradients, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-3, atol=1e-4 * g.abs().max().item())


def test_recorded_losses_are_errors_in_units_of_the_force():
    net = study.network("fire", (0,))
    r, F = study.TASK.sample.r[:, :9], study.TASK.sample.F[:, :9]
    error = (net.forces(r) - F).square().mean().sqrt().item()
    even = study._argon.loss(net, r, F, torch.ones(1, 9))
    for run, value in (("fire", study.loss(net, r, F)), ("soap", even)):
        steps, found = study.recorded(run, {"steps": [1], "loss": [value.tolist()]}, net)
        assert steps.tolist() == [1.0]
        assert found.item() == pytest.approx(error, rel=1e-5)


def test_power_law_finds_exponent_and_factor():
    n = torch.tensor([100.0, 400.0, 1600.0, 10_000.0])
    p, C = torch.tensor([0.5, 0.2]), torch.tensor([3.0, 0.1])
    found = study.power_law(n, C * n[:, None] ** -p)
    for ours, true in zip(found, (p, C), strict=True):
        torch.testing.assert_close(ours, true.double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("budget", ["ci", "demo", "full"])
def test_every_run_is_made_at_its_lengths(budget):
    settings = study.SETTINGS[budget]
    made = study.variants(settings)
    assert len({name for name, *_ in made}) == len(made)
    for run in settings.runs:
        own = [steps for _, other, steps in made if other == run]
        assert own == sorted(own)
        assert len(own) == len(study.RUNS[run].parts)
    assert {study.RUNS[run].optimiser for _, run, _ in made} >= {FIRE, SOAP, torch.optim.Adam}


def test_a_run_is_written_read_and_evaluated(small, tmp_path):
    folder = tmp_path / "run"
    study.train("ci", (4, 6), "cpu", folder, "a test", progress=False)
    networks, about = study.load(folder)
    assert list(networks) == ["fire_2000-5", "soap-64"]  # the longest; of the others, the record
    assert list(about["tested"]) == ["soap-4", "soap-16"]
    assert about["settings"]["steps"] == 64
    report, again = (study.evaluate(folder, keep_curves=True)[0] for _ in range(2))
    assert [f.summary() for f in report] == [f.summary() for f in again]
    found = {figure.name: figure for figure in report}
    assert len(found) == 4 + 2 + 3  # no exponent of FIRE
    error = study.rms(study.TASK.errors(networks["soap-64"], *study.TASK.test), (1, 2, 3))
    assert found["soap: test RMSD after 64 steps"].ours == error
    assert found["soap: test RMSD after 4 steps"].ours == tuple(about["tested"]["soap-4"])
    curves = study.artifacts.load_tensors(folder / "curves.safetensors")[0]
    assert curves["soap.test"].shape == (3, 2)
