"""The studies of permutations: a strong three-body force, and clusters larger than the trained."""

import pytest
import torch

from companion import artifacts, experiments
from companion.descriptors import LinearForces
from companion.experiments import argon_clusters, axilrod_teller
from companion.experiments._argon import Settings
from companion.systems.argon import NU, Argon


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def small(monkeypatch):
    """Budgets and tests of a second."""
    monkeypatch.setitem(
        axilrod_teller.SETTINGS, "ci", Settings(5, ("linear", "energy"), configurations=60)
    )
    monkeypatch.setattr("companion.experiments._argon.TESTED", 40)
    tiny = argon_clusters.Settings(5, batch=26, data=260, variants=("linear on 13", "energy on 13"))
    monkeypatch.setitem(argon_clusters.SETTINGS, "ci", tiny)
    monkeypatch.setattr(argon_clusters, "SIZES", (13, 38))
    monkeypatch.setattr(argon_clusters, "LISTED", (13, 38))
    monkeypatch.setattr(argon_clusters, "ALL", (13, 38))
    axilrod_teller.TASK.__dict__.pop("test", None)  # it is kept
    yield
    axilrod_teller.TASK.__dict__.pop("test", None)


@pytest.mark.parametrize("name", ["axilrod_teller", "argon_clusters"])
def test_a_run_is_written_read_and_evaluated(name, small, tmp_path):
    study = experiments.get(name)
    study.train("ci", [3, 4], "cpu", tmp_path, "the command", progress=False)
    networks, about = study.load(tmp_path)
    assert list(networks) == about["settings"]["models" if name[1] == "x" else "variants"]
    assert about["provenance"]["seeds"] == [3, 4]
    rows, _ = study.evaluate(tmp_path, keep_curves=True)
    values = [x for row in rows for x in row.ours]
    assert torch.tensor(values).isfinite().all()
    assert len({row.name for row in rows}) == len(rows)
    again, _ = study.evaluate(tmp_path)
    for row, other in zip(rows, again, strict=True):
        if "cost" not in row.name:
            assert row.ours == other.ours
    if name == "argon_clusters":
        curves = artifacts.load_tensors(tmp_path / "curves.safetensors")[0]
        assert (curves["list: seconds"] > 0).all()


def test_the_target_is_no_sum_over_pairs_and_well_above_what_models_reach():
    task = axilrod_teller.TASK
    assert task.system.nu == axilrod_teller.STRENGTH * NU
    r = task.system.sample(500, draw())
    three = task.system.forces(r) - Argon(4).forces(r)
    own = Argon(4, nu=NU).forces(r) - Argon(4).forces(r)
    torch.testing.assert_close(three, axilrod_teller.STRENGTH * own, rtol=1e-6, atol=1e-9)
    assert 0.005 < three.square().mean().sqrt() < 0.03


def test_the_size_of_the_three_body_force_is_a_figure(small, tmp_path):
    axilrod_teller.train("ci", [0], "cpu", tmp_path, "the command", progress=False)
    rows, _ = axilrod_teller.evaluate(tmp_path)
    r, F = axilrod_teller.TASK.test
    size = (F - Argon(4).forces(r)).square().mean().sqrt()
    assert rows[0].name == "three-body force"
    assert rows[0].ours[0] == pytest.approx(float(size))


def test_the_linear_model_is_fitted_to_each_member_s_data(small):
    both, history = axilrod_teller.TASK.train_model("linear", "ci", [1, 2], "cpu")
    alone, _ = axilrod_teller.TASK.train_model("linear", "ci", [2], "cpu")
    assert isinstance(both, LinearForces)
    assert history.steps == []
    torch.testing.assert_close(both.coefficients[1], alone.coefficients[0])
    assert not torch.equal(both.coefficients[0], both.coefficients[1])


def test_clusters_are_compact_and_have_no_close_pair():
    for heat in (argon_clusters.COLD, argon_clusters.HOT):
        r = argon_clusters.clusters(38, 20, draw(), heat)
        assert r.shape == (20, 38, 3)
        nearest = torch.stack([torch.nn.functional.pdist(x).min() for x in r])
        assert (nearest >= heat[3]).all()
        assert r.sub(r.mean(1, keepdim=True)).norm(dim=-1).max() < 10
    torch.testing.assert_close(
        argon_clusters.clusters(13, 3, draw(5)), argon_clusters.clusters(13, 3, draw(5))
    )


def test_labels_are_the_forces_and_their_three_body_part():
    r, F, three = argon_clusters.labelled(13, 3, 7)
    cut = {"cutoff": argon_clusters.CUTOFF}
    torch.testing.assert_close(F[1], Argon(13, nu=NU, **cut).forces(r[1]))
    torch.testing.assert_close(F[1] - three[1], Argon(13, **cut).forces(r[1]))
    assert 0 < three.abs().max() < F.abs().max()


def test_minibatches_are_a_pure_function_of_seed_and_step():
    settings = argon_clusters.Settings(1, batch=26, data=130)
    data = argon_clusters.Minibatches(13, [3, 4], settings)
    again = argon_clusters.Minibatches(13, [4], settings)
    for x, y in zip(data(7), again(7), strict=True):
        assert x.shape == (2, 2, 13, 3)
        assert torch.equal(x[1:], y)
    assert not torch.equal(data(7)[0], data(8)[0])
    r, F = data(0)
    truth = Argon(13, nu=NU, cutoff=argon_clusters.CUTOFF).forces(r[0, 0].double())
    torch.testing.assert_close(F[0, 0].double(), truth, rtol=1e-3, atol=1e-5)


def test_errors_are_those_of_all_pairs(small):
    net = argon_clusters.network("energy on 13", [0, 1])
    r, F, _ = argon_clusters.labelled(13, 3, 7)
    error = argon_clusters.errors(net, r, F)
    torch.testing.assert_close(error.float(), net.forces(r.float()) - F.float(), atol=1e-4, rtol=0)


def test_the_exponent_of_a_power_law():
    N = torch.tensor([10.0, 100.0, 1000.0])
    assert argon_clusters.slope(N, 3e-5 * N**1.7) == pytest.approx(1.7)
