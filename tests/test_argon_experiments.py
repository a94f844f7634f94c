"""Argon's data, the relative model, and what the experiments measure with them."""

import json
import math
from dataclasses import replace

import pytest
import torch

from companion import artifacts, experiments, groups
from companion.configurations import Configurations
from companion.experiments import _argon, argon, argon_rounding
from companion.force_models import RelativeForces
from companion.systems.argon import Argon
from companion.testing import assert_equivariant, assert_invariant

SYSTEM = Argon(4)


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def turned(g, r):
    """Positions or forces `(..., N, 3)`, every row multiplied by g."""
    return r @ g.mT


def positions(n=6, seed=0):
    return SYSTEM.sample(n, draw(seed))


# The data ----------------------------------------------------------------------------------------


def test_minibatches_are_a_pure_function_of_seed_and_step():
    data = Configurations(SYSTEM, [3, 4], n=50, batch=8)
    again = Configurations(SYSTEM, [4], n=50, batch=8)
    for x, y in zip(data(7), again(7), strict=True):
        assert torch.equal(x[1:], y)
    assert not torch.equal(data(7)[0], data(8)[0])
    assert not torch.equal(data(7)[0][0], data(7)[0][1])


def test_minibatches_hold_configurations_with_their_forces_and_weights():
    data = Configurations(SYSTEM, [0, 1], n=40, batch=16, dtype=torch.float64)
    r, F, w = data(0)
    torch.testing.assert_close(F, SYSTEM.forces(r), rtol=1e-9, atol=1e-12)
    for s in range(2):
        for b in range(16):
            (found,) = (data.r[s] == r[s, b]).all((1, 2)).nonzero()[:, 0].tolist()
            assert w[s, b] == data.w[s, found]


def test_the_weighted_mean_of_a_minibatch_has_the_mean_of_all_configurations():
    data = Configurations(SYSTEM, [0], n=500, batch=64, dtype=torch.float64)
    value = data.F.square().sum((2, 3))  # of every configuration, heavy-tailed as the loss is
    drawn = torch.stack([(F.square().sum((2, 3)) * w).mean() for _, F, w in map(data, range(400))])
    spread = drawn.std() / math.sqrt(len(drawn))
    assert abs(drawn.mean() - value.mean()) < 4 * spread
    # and less noise than uniform draws have
    assert drawn.std() < 0.25 * value.std() / math.sqrt(64)


def test_every_configuration_can_be_drawn_and_close_pairs_are_drawn_more_often():
    data = Configurations(SYSTEM, [0], n=30, batch=64)
    seen = torch.zeros(30)
    for step in range(60):
        r = data(step)[0][0]
        seen += (data.r[0][:, None] == r[None]).all((2, 3)).sum(1)
    assert seen.min() > 0
    expected = 1 / (30 * data.w[0]) * 60 * 64
    assert ((seen - expected).abs() <= 5 * expected.sqrt() + 1).all()
    assert data.w.min() < 0.5 < 2 < data.w.max()


def test_renaming_permutes_positions_and_forces_alike():
    plain = Configurations(SYSTEM, [0], n=40, batch=200, dtype=torch.float64)
    renamed = Configurations(SYSTEM, [0], n=40, batch=200, permute=True, dtype=torch.float64)
    (r, F, w), (r_new, F_new, w_new) = plain(0), renamed(0)
    assert torch.equal(w, w_new)
    where = (r_new[:, :, :, None] == r[:, :, None]).all(-1).double()  # permutation matrices
    assert torch.equal(where.sum(-1), torch.ones(1, 200, 4))
    torch.testing.assert_close(where @ F, F_new)
    assert len({tuple(row) for row in where[0].argmax(-1).tolist()}) == 24  # all of S_4 occurs


@pytest.mark.parametrize("options", [{"seeds": []}, {"n": 0}, {"batch": 0}])
def test_bad_data_are_refused(options):
    with pytest.raises(ValueError, match="expected a seed or more"):
        Configurations(SYSTEM, **({"seeds": [0], "n": 5} | options))


def test_a_negative_step_is_refused():
    with pytest.raises(ValueError, match="step must be 0 or more, got -1"):
        Configurations(SYSTEM, [0], n=5)(-1)


# The model of the paper --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("momentum", [False, True])
def test_relative_forces_turn_with_the_atoms_and_do_not_see_translations(dtype, momentum):
    net = RelativeForces(4, (8, 8), momentum, seeds=2, dtype=dtype)
    r = positions().to(dtype)
    net.standardise(r, SYSTEM.forces(r))
    turns = groups.O(3).sample(5, generator=draw(1), dtype=dtype)
    assert_equivariant(net.forces, turned, r, elements=turns)
    shifts = torch.randn(5, 3, generator=draw(2), dtype=dtype)
    assert_invariant(net.forces, lambda a, x: x + a, r, elements=shifts)


def test_relative_forces_know_the_names_of_the_atoms():
    net = RelativeForces(4, (8, 8), seeds=1, dtype=torch.float64)
    r = positions()
    renamed = net.forces(r[:, [1, 0, 2, 3]])[:, :, [1, 0, 2, 3]]
    assert (renamed - net.forces(r)).abs().max() > 0.01


def test_forces_add_up_to_zero_where_they_are_asked_to():
    r = positions()
    for momentum, bound in ((True, 1e-13), (False, None)):
        net = RelativeForces(4, (8, 8), momentum, seeds=2, dtype=torch.float64)
        total = net.forces(r).sum(-2).abs().max()
        assert total < bound if bound else total > 0.01


def test_the_paper_s_network_has_its_sizes():
    net = RelativeForces(4)
    assert net.network.sizes == (6, 50, 90, 100, 80, 50, 4)
    assert net.size == 2 * sum(
        m * n for m, n in zip([6, 50, 90, 100, 80, 50], [50, 90, 100, 80, 50, 4], strict=True)
    )


def test_one_member_is_kept():
    net = RelativeForces(4, (8,), seeds=[5, 6], dtype=torch.float64)
    F = net.forces(positions())
    net.keep(1)
    assert (net.S, net.seeds) == (1, [6])
    torch.testing.assert_close(net.forces(positions())[0], F[1])


@pytest.mark.parametrize("shape", [(4, 3), (2, 5, 3), (2, 4, 2), (3, 2, 4, 3)])
def test_wrong_positions_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected \(2, B, 4, 3\) or \(B, 4, 3\)"):
        RelativeForces(4, (8,), seeds=2).forces(torch.randn(shape))


def test_one_atom_is_refused():
    with pytest.raises(ValueError, match="two atoms or more"):
        RelativeForces(1)


# The experiment ----------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch):
    """The task of the experiment with few tests, short dynamics and the true forces at hand."""
    monkeypatch.setattr(_argon, "TESTED", 200)
    monkeypatch.setattr(_argon, "STEPS", 200)
    monkeypatch.setattr(_argon, "EARLY", 100)
    settings = {"ci": _argon.Settings(20, ("plain", "augmented"), 100)}
    return replace(argon.TASK, settings=settings)


@pytest.mark.parametrize("name", argon.MODELS)
def test_models_start_with_finite_losses_one_a_member(name, small):
    model = small.models[name]
    net = small.network(name, [0, 1])
    data = Configurations(SYSTEM, [0, 1], n=20, batch=5, permute=model.permute)
    value = _argon.loss(net, *data(0))
    assert value.shape == (2,)
    assert value.isfinite().all()
    value.sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    assert 1e-3 < net.forces(data.r).square().mean().sqrt() < 10  # units were set


class Truth(torch.nn.Module):
    """The true forces where a network is expected, and `wrong` times them on top."""

    S = 1
    size = 0

    def __init__(self, wrong=0.0):
        super().__init__()
        self.wrong = torch.nn.Parameter(torch.tensor([wrong], dtype=torch.float64))

    def forces(self, r):
        r = r.expand(1, *r.shape[-3:])
        return SYSTEM.forces(r) * (1 + self.wrong)


def test_the_true_forces_make_no_error(small, monkeypatch):
    monkeypatch.setattr(
        type(small), "load", lambda self, folder: ({"plain": Truth()}, {"about": 1})
    )
    figures, _ = small.evaluate()
    found = {figure.name.removeprefix("plain: "): figure.ours[0] for figure in figures}
    for name in ("test RMSD", "on-path RMSD", "position RMSD at 200", "energy RMSD at 200"):
        assert found[name] < 1e-12
    assert found["energy drift"] < 1e-6  # of the integrator


def test_figures_are_those_of_the_paper_s_equations(small, monkeypatch):
    monkeypatch.setattr(
        type(small), "load", lambda self, folder: ({"plain": Truth(0.1)}, {"about": 1})
    )
    found = {f.name.removeprefix("plain: "): f.ours[0] for f in small.evaluate()[0]}
    F = small.test[1]
    assert found["test RMSD"] == pytest.approx(0.1 * float(F.square().mean().sqrt()))
    path, true = small.rollout(lambda r: 1.1 * SYSTEM.forces(r)), small.path
    samples, atoms = _argon.SAMPLES, 4
    apart = (path.r[-1] - true.r[-1]).square().sum() / (samples * atoms)
    assert found["position RMSD at 200"] == pytest.approx(float(apart.sqrt()))  # eq. 47
    E, E_true = (SYSTEM.total_energy(x.r[-1], x.v[-1]) for x in (path, true))
    assert found["energy RMSD at 200"] == pytest.approx(
        float((E - E_true).square().mean().sqrt())
    )  # eq. 48


def test_dynamics_begins_as_in_the_paper(small):
    path = small.path
    assert path.r.shape == (21, 10, 4, 3)
    start = torch.tensor([[3, 0, 0.1], [-3, -0.1, 0], [0.1, 2.5, 0], [0, -2.5, -0.1]])
    torch.testing.assert_close(path.r[0], start.double().expand(10, 4, 3))
    temperature = SYSTEM.temperature(path.v[0])
    torch.testing.assert_close(temperature, torch.full((10,), 10.0, dtype=torch.float64))


def test_a_run_is_written_read_and_evaluated(small, tmp_path):
    small.train("ci", [0, 1], "cpu", tmp_path, "make it", progress=False)
    networks, about = small.load(tmp_path)
    assert list(networks) == ["plain", "augmented"]
    assert about["settings"]["steps"] == 20
    trained, _ = small.train_model("augmented", "ci", [0, 1], "cpu", progress=False)
    for key, x in trained.state_dict().items():
        assert torch.equal(x, networks["augmented"].state_dict()[key]), key
    figures, _ = small.evaluate(tmp_path, keep_curves=True)
    report = about | {"figures": [figure.summary() for figure in figures]}
    assert json.loads(json.dumps(report))["figures"][0]["paper"] == 0.00118
    names = [figure.name for figure in figures]
    assert "plain: momentum drift" in names
    assert "augmented: momentum drift" not in names  # rounding, not a figure


def test_choices_and_results_rest_on_other_configurations():
    chosen, measured = argon_rounding.TASK.test[0], argon.TASK.test[0]
    assert chosen.shape == measured.shape
    assert not (chosen[:, None, 0] == measured[None, :100, 0]).all(-1).any()


def test_the_experiment_is_registered():
    assert experiments.get("argon").TASK is argon.TASK
    assert artifacts.folder("argon").name == "argon"
