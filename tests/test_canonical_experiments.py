"""The systems of Syväri et al. (2021) as experiments: data, models, measures, a whole small run."""

import json
import math
from dataclasses import replace

import pytest
import torch

from companion import __main__, datasets, experiments
from companion.experiments import coupled_oscillators, spherical_pendulum, two_body
from companion.experiments._canonical import Task
from companion.phase_space import symplectic_gradient
from companion.testing import assert_conserved

NAMES = (
    "two_body",
    "three_body",
    "coupled_oscillators",
    "magnetic_field",
    "spherical_pendulum",
    "double_pendulum",
)
CASES = [(name, model) for name in NAMES for model in experiments.get(name).MODELS]


@pytest.fixture(params=NAMES)
def task(request) -> Task:
    return experiments.get(request.param).TASK


# The data ----------------------------------------------------------------------------------------


def test_rates_are_those_of_the_states(task):
    data = datasets.Rates(task.system, [0], n=3, points=4, T=1.0, batch=5, dtype=torch.float64)
    z, zdot = data(0)
    assert z.shape == zdot.shape == (1, 5, 2 * task.system.d)
    torch.testing.assert_close(zdot, task.system.flow(z))


def test_states_lie_on_true_trajectories():
    system = two_body.SYSTEM
    data = datasets.Rates(system, [3], n=2, points=5, T=2.0, dtype=torch.float64)
    path = system.phase_rollout(data.data[0, 0], 1e-3, 2000, every=500)
    torch.testing.assert_close(data.data[0], path, rtol=1e-8, atol=1e-8)
    energy = system.hamiltonian(data.data[0])[..., None]
    assert_conserved(energy, 1e-7)


def test_batches_are_a_function_of_seed_and_step():
    make = lambda seeds: datasets.Rates(two_body.SYSTEM, seeds, n=4, points=5, T=1.0, batch=6)  # noqa: E731
    both, alone = make([1, 2]), make([2])
    for step in (0, 7):
        torch.testing.assert_close(both(step)[0][1], alone(step)[0][0], rtol=0, atol=0)
        assert not torch.equal(both(step)[0][0], both(step)[0][1])
    assert not torch.equal(alone(0)[0], alone(1)[0])
    with pytest.raises(ValueError, match="step must be 0 or more"):
        alone(-1)


@pytest.mark.parametrize(
    "options",
    [{"seeds": []}, {"n": 0}, {"batch": 0}, {"points": 1}, {"T": 0.0}, {"T": math.inf}],
)
def test_bad_rates_are_refused(options):
    good = {"seeds": [0], "n": 2, "points": 3, "T": 1.0}
    with pytest.raises(ValueError, match="expected one seed or more"):
        datasets.Rates(two_body.SYSTEM, **(good | options))


def test_a_trajectory_that_the_steps_do_not_resolve_is_refused():
    with pytest.raises(ValueError, match=r"not finite with substeps = 1 .*take more of them"):
        datasets.Rates(spherical_pendulum.SYSTEM, [0], n=20, points=3, T=10.0, substeps=1)


# The models --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "model"), CASES)
def test_models_start_with_finite_losses_one_a_member(name, model):
    task = experiments.get(name).TASK
    few = replace(task, trajectories=3, points=5, T=0.5)
    net = few.network(model, [0, 1], width=8)
    z, zdot = few.data([0, 1], batch=7)(0)
    loss = few.loss(model)(net, z, zdot)
    assert loss.shape == (2,)
    assert loss.isfinite().all()
    loss.sum().backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize(("name", "model"), [c for c in CASES if c[1].startswith("exact")])
def test_exact_maps_keep_their_charges_whatever_the_weights(name, model):
    task = replace(experiments.get(name).TASK, trajectories=3, points=5, T=0.5)
    net = task.network(model, [0, 1], width=8, dtype=torch.float64)
    z = task.data([0], batch=6)(0)[0][0].double().expand(2, -1, -1).clone().requires_grad_()
    for k in range(net.n):
        (slope,) = torch.autograd.grad(net.charges(z)[..., k].sum(), z, create_graph=True)
        change = (slope * net(z)).sum(-1).detach()
        size = slope.norm(dim=-1) * net(z).norm(dim=-1)
        assert (change / size).abs().max() < 1e-12


def test_the_gradients_of_known_charges_give_their_brackets(task):
    names = list(task.system.phase_charge_expressions)
    if not names:
        pytest.skip("the energy is all that this system conserves")
    z = replace(task, trajectories=3, points=5, T=0.5).data([0], batch=9)(0)[0].double()
    gradients = task.charge_gradients(names)(z)
    assert gradients.shape == (1, 9, len(names), 2 * task.system.d)
    rate = (gradients @ task.system.flow(z)[..., None]).squeeze(-1)
    size = gradients.norm(dim=-1) * task.system.flow(z).norm(dim=-1, keepdim=True)
    assert (rate / size).abs().max() < 1e-12


def test_a_known_charge_is_imposed_by_its_bracket():
    net = two_body.TASK.network("constraint-p", [0], 8)
    z, zdot = two_body.TASK.data([0], batch=5)(0)
    free, imposed = (two_body.TASK.loss(m)(net, z, zdot) for m in ("hnn", "constraint-p"))
    rate = net(z)
    lost = rate[..., 4:6] + rate[..., 6:8]  # the rates of P_x and P_y
    torch.testing.assert_close(imposed - free, lost.square().sum(-1).mean(-1), rtol=1e-4, atol=1e-6)


def test_an_unknown_charge_is_refused():
    with pytest.raises(KeyError):
        two_body.TASK.charge_gradients(["spin"])


# The measures ------------------------------------------------------------------------------------


class Truth(torch.nn.Module):
    """The true Hamiltonian where a network is expected, two members."""

    S = 2

    def __init__(self, system):
        super().__init__()
        self.system = system
        self.weight = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def forward(self, z):
        z = z.detach().requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(self.system.hamiltonian(z).sum(), z)
        return symplectic_gradient(slope).expand(2, *z.shape[-2:])

    def field(self):
        return self.forward


def test_the_truth_has_no_error(task):
    few = replace(task, tested=3, points=5, T=1.0)
    net = Truth(few.system)
    assert few.test_loss(net).max() < 1e-18
    errors = few.errors(few.rollout(net, few.test[0]))
    assert set(errors) == {"trajectory", "energy", *few.system.phase_charge_expressions}
    for error in errors.values():
        assert error.shape == (5, 2, 3)
        assert error.max() < 1e-6  # RK4 with steps of 0.05


def test_figures_integrate_over_time_and_take_the_median_over_trajectories():
    few = replace(two_body.TASK, tested=3, points=5, T=2.0)
    net = few.network("hnn", [0, 1], 8)
    rising = torch.linspace(0, 2, 5)[:, None, None] * torch.tensor([[1.0], [2.0]])[None]
    errors = {name: rising.expand(5, 2, 3) for name in ("trajectory", "energy", "P_x", "P_y", "L")}
    figures = {f.name: f.ours for f in few._figures("hnn", net, errors)}
    assert figures["hnn: trajectory"] == pytest.approx((2.0, 4.0))  # of t and 2 t from 0 to 2
    by_path = few.test_loss(net)
    direct = net(few.test.flatten(0, 1).float()) - few.system.flow(few.test.flatten(0, 1))
    direct = direct.square().sum(-1).unflatten(1, (5, 3)).mean(1)
    torch.testing.assert_close(by_path, direct.double(), rtol=1e-5, atol=0)
    assert figures["hnn: test loss"] == pytest.approx(tuple(direct.mean(1).tolist()), rel=1e-5)
    middle = tuple(direct.sort(1).values[:, 1].tolist())
    assert figures["hnn: median loss"] == pytest.approx(middle, rel=1e-5)
    assert figures["hnn: median loss"] != pytest.approx(figures["hnn: test loss"], rel=1e-3)


def test_a_runaway_is_infinitely_wrong():
    few = replace(two_body.TASK, tested=2, points=3)
    path = torch.full((3, 1, 2, 8), torch.nan)
    assert few.errors(path)["trajectory"].isinf().all()
    figures = few._figures("hnn", few.network("hnn", [0], 4), few.errors(path))
    assert figures[2].summary()["ours"]["mean"] is None


def test_a_short_training_finds_the_normal_modes():
    few = replace(coupled_oscillators.TASK, tested=12, points=40, trajectories=20)
    net, history = few.train_model(
        "exact", "ci", [0, 1], "cpu", None, False, steps=600, lr=1e-2, width=24
    )
    assert history.loss[0][0] > 100 * history.loss[-1][0]
    figures = figures_of(few, "exact", net)
    assert max(figures["exact: ratio of P, worst"]) < 0.02
    assert max(figures["exact: test loss"]) < 1e-3
    assert max(figures["exact: brackets"]) < 1e-10


def test_momenta_of_untrained_networks_are_not_conserved():
    few = replace(coupled_oscillators.TASK, tested=12, points=40, trajectories=20)
    figures = figures_of(few, "scnn-straight", few.network("scnn-straight", [0, 1], 8))
    assert min(figures["scnn-straight: ratio of P, best"]) > 0.1


def figures_of(task, model, net):
    """The figures of one model by name, one value a seed."""
    errors = task.errors(task.rollout(net, task.test[0]))
    return {figure.name: figure.ours for figure in task._figures(model, net, errors)}


# A whole run -------------------------------------------------------------------------------------


def test_a_run_is_written_read_and_evaluated(tmp_path, monkeypatch, capsys):
    tiny = replace(
        two_body.TASK,
        trajectories=6,
        tested=4,
        points=6,
        T=2.0,
        settings={"ci": replace(two_body.SETTINGS["ci"], steps=4, models=tuple(two_body.MODELS))},
    )
    for word in ("train", "load", "evaluate"):
        monkeypatch.setattr(two_body, word, getattr(tiny, word))
    words = ["train", "two_body", "--budget", "ci", "--seeds", "2", "--output", str(tmp_path)]
    assert __main__.main(words) == 0
    report = json.loads((tmp_path / "metrics.json").read_text())
    assert report["provenance"]["seeds"] == [0, 1]
    rows = {figure["name"]: figure for figure in report["figures"]}
    for model in two_body.MODELS:
        assert rows[f"{model}: test loss"]["ours"]["n"] == 2
        assert (f"{model}: ratio of P, worst" in rows) == (two_body.MODELS[model].n > 0)
    assert rows["scnn: test loss"]["paper"] == 5.25e-6
    assert rows["hnn: trajectory"]["paper"] == 0.114
    assert (tmp_path / "curves.safetensors").exists()
    assert __main__.main(["evaluate", "two_body", "--weights", str(tmp_path)]) == 0
    assert "scnn: brackets" in capsys.readouterr().out
    networks, about = tiny.load(tmp_path)
    assert list(networks) == list(two_body.MODELS)
    assert about["experiment"] == "two_body"
    with pytest.raises(ValueError, match="not of 'three_body'"):
        replace(tiny, name="three_body").load(tmp_path)


def test_a_longer_model_takes_more_steps():
    tiny = replace(two_body.TASK, trajectories=4, points=4, T=1.0)
    options = {"progress": False, "steps": 2, "width": 4}
    _, short = tiny.train_model("hnn", "ci", [0], "cpu", **options)
    _, longer = tiny.train_model("hnn-longer", "ci", [0], "cpu", **options)
    assert (short.steps, longer.steps) == ([2], [6])
