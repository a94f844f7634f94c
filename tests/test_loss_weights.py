"""The scan of loss weights: which member has which weights, and a whole small run."""

import json
from dataclasses import replace

import pytest
import torch

from companion import __main__, experiments
from companion.canonical import SymmetryControlNetwork, Transformation
from companion.experiments import loss_weights as scan

ALPHAS, SEEDS = (1.0, 1e-3), (4, 6)


@pytest.fixture
def small(monkeypatch):
    """The task with few trajectories and a short time, and the ci budget cut down."""
    task = replace(scan.TASK, trajectories=3, tested=3, points=4, T=1.0)
    monkeypatch.setattr(scan, "TASK", task)
    settings = replace(scan.SETTINGS["ci"], steps=3, batch=4, warmup=1, width=4, alphas=ALPHAS)
    monkeypatch.setitem(scan.SETTINGS, "ci", settings)
    return task


@pytest.mark.parametrize("name", list(scan.ARRANGEMENTS))
def test_every_member_has_the_seed_and_the_weights_of_its_place(small, name):
    net = scan.network(name, ALPHAS, SEEDS, width=4)
    z, zdot = small.data(SEEDS, 5)(0)
    values = scan.loss(name, ALPHAS, SEEDS)(net, z, zdot)
    n, circular = scan.ARRANGEMENTS[name]
    member = 0
    for alpha_1, alpha_2 in [(1.0, 1.0), (1e-3, 1.0), (1.0, 1e-3), (1e-3, 1e-3)]:
        for k, seed in enumerate(SEEDS):
            T = Transformation(4, (4, 4), "silu", [seed])
            alone = SymmetryControlNetwork(T, n, circular, (4, 4), "silu")
            alone.standardise(small.scale)
            part = alone.losses(z[k : k + 1], zdot[k : k + 1])
            expected = part.hnn + alpha_1 * part.poisson + alpha_2 * part.cyclic
            torch.testing.assert_close(values[member], expected[0], rtol=1e-4, atol=1e-6)
            member += 1
    assert member == net.S


def test_a_run_is_written_read_and_evaluated(small, tmp_path, capsys):
    folder = tmp_path / "run"
    words = ["train", "loss_weights", "--budget", "ci", "--device", "cpu", "--seeds", "2"]
    assert __main__.main([*words, "--output", str(folder)]) == 0
    networks, _ = scan.load(folder)
    assert {name: net.S for name, net in networks.items()} == {
        **dict.fromkeys(scan.ARRANGEMENTS, 8),
        "hnn": 2,
    }
    capsys.readouterr()
    assert __main__.main(["evaluate", "loss_weights", "--weights", str(folder), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["experiment"] == experiments.get("loss_weights").NAME
    found = {figure["name"]: figure for figure in report["figures"]}
    assert len(found) == 3 * 4 * 6 + 4
    assert all(figure["ours"]["n"] == 2 for figure in found.values())
    # Tables 2 and 4 of the paper: columns alpha_1, rows alpha_2.
    assert found["paper, alpha_1 = 0.001, alpha_2 = 1: trajectory"]["paper"] == 0.330
    assert found["circular, alpha_1 = 1, alpha_2 = 0.001: L"]["paper"] == 116.0
    assert found["hnn: energy"]["paper"] == 1.91e-5


def test_weights_of_another_run_are_refused(small, tmp_path):
    scan.train("ci", [0], "cpu", tmp_path, "a test", progress=False)
    (tmp_path / "weights.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"weights\.safetensors"):
        scan.load(tmp_path)
