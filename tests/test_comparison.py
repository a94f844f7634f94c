"""The comparison of models: its worlds, its matrix, its jobs, and the run as a whole, cut small."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from cluster_jobs import dies_once, starts, two_workers

from companion import artifacts, cluster, metrics, training
from companion.__main__ import main
from companion.experiments import _comparison, comparison
from companion.experiments import _comparison_models as models
from companion.experiments import _comparison_worlds as worlds

CELLS = (("two_body", "hnn"), ("modes", "plain"))
TINY = _comparison.Settings(
    steps=6,
    tuning_steps=4,
    tuned_on=2,
    targets=(300, 1000),
    sizes=(1, 2),
    tested=2,
    cells=CELLS,
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(comparison.SETTINGS, "ci", TINY)


@pytest.fixture
def short(monkeypatch):
    """The worlds of `CELLS` for a short time, where it does not matter what is measured."""
    for name, _ in CELLS:
        world = replace(worlds.WORLDS[name], T=1.0, steps=20)
        monkeypatch.setitem(worlds.WORLDS, name, world)
    worlds.paths.cache_clear()
    yield
    worlds.paths.cache_clear()


def state(world, n=6):
    return world.sample(n, 5)


# The worlds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", worlds.WORLDS)
def test_random_symmetries_take_solutions_to_solutions(name):
    world = worlds.WORLDS[name]
    z = state(world)
    element = world.elements(len(z), torch.Generator().manual_seed(1))
    moved, rate = world.moved(z, world.flow(z), element)
    torch.testing.assert_close(world.flow(moved), rate, rtol=1e-9, atol=1e-9)
    same = torch.equal(moved, z)
    assert same == (name == "modes"), "the test is blind"


def test_data_of_more_trajectories_begin_with_those_of_fewer():
    world = worlds.WORLDS["springy"]
    assert torch.equal(world.sample(5, 3)[:2], world.sample(2, 3))
    assert not torch.equal(world.sample(2, 3), world.sample(2, 4))


@pytest.mark.parametrize("name", ["magnetic", "four_bodies"])
def test_acceleration_is_the_derivative_of_the_velocity(name):
    world, h = worlds.WORLDS[name], 1e-5
    z = state(world)
    ahead, behind = (world.follow(z, 2, s * h)[1] for s in (2, 1))
    change = (world.system.velocity(ahead) - world.system.velocity(z)) / (2 * h)
    middle = world.acceleration(world.flow(behind))
    torch.testing.assert_close(middle, change, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", worlds.WORLDS)
def test_drag_takes_energy_and_nothing_else_does(name):
    """Nor does the integrator of a rollout, which may take as long steps as the figures allow."""
    world = worlds.WORLDS[name]
    start, T = state(world, 3), world.T / 4
    true = world.follow(start, 6, T)
    E = world.system.hamiltonian(true)
    lost = (E[-1] - E[0]) / E[0].abs().mean()
    if name == "drag":
        assert (lost < -0.03).all()
    else:
        assert lost.abs().max() < 1e-5

    class Truth(torch.nn.Module):
        S, forward = 1, staticmethod(world.flow)

    path = models.rollout(world, Truth(), start, T, len(true), world.T / world.steps)
    error = metrics.relative_state_error(path[1:, 0], true[1:])
    assert metrics.geometric_mean(error) < 1e-5


def test_a_minibatch_is_a_function_of_seed_and_step():
    world = worlds.WORLDS["magnetic"]
    both = worlds.Batches(world, (3, 4), 2, moved=True)
    alone = worlds.Batches(world, (4,), 2, moved=True)
    for one, two in zip(alone(7), both(7), strict=True):
        assert torch.equal(one[0], two[1])
    assert not torch.equal(both(7)[0], both(8)[0])


# The matrix --------------------------------------------------------------------------------------


def test_every_cell_is_a_model_or_has_a_reason():
    for cell in (*models.EMPTY, *models.WRONG):
        assert cell[0] in worlds.WORLDS
        assert cell[1] in models.MODELS
    assert not models.EMPTY.keys() & models.WRONG.keys()
    assert len(models.cells()) + len(models.EMPTY) == len(worlds.WORLDS) * len(models.MODELS)
    assert all(models.EMPTY.values())
    with pytest.raises(ValueError, match="no turn and no shift"):
        models.network(worlds.WORLDS["modes"], "emlp", 8, [0])


@pytest.mark.parametrize(("name", "model"), models.cells())
def test_every_cell_learns_and_rolls(name, model):
    """A step of training changes the loss; a rollout begins at the start."""
    world = worlds.WORLDS[name]
    net = models.network(world, model, 8, (0, 1)).double()
    z = state(world).expand(2, -1, -1)
    before = models.loss(world, net, z, world.flow(z))
    assert before.shape == (2,)
    before.sum().backward()
    slopes = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
    assert slopes.isfinite().all()
    assert slopes.abs().max() > 0


SYMMETRIC = ("scalars", "scalars-hnn", "emlp", "emlp-hnn", "unitary")


@pytest.mark.parametrize(
    ("name", "model"), [c for c in models.cells() if c[1] in SYMMETRIC and c[0] != "modes"]
)
def test_symmetric_models_have_the_symmetry_that_the_world_has(name, model):
    world = worlds.WORLDS[name]
    net = models.network(world, model, 8, (0, 1))
    z = state(world).float()
    element = world.elements(len(z), torch.Generator().manual_seed(1))
    plain = torch.arange(world.n).expand(len(z), -1)
    element = (*element[:2], plain)  # none of them knows that the bodies are alike
    with torch.no_grad():
        rate = models.field(world, net)(z.expand(2, -1, -1))
        moved, expected = world.moved(z.expand(2, -1, -1), rate, element)
        found = models.field(world, net)(moved)
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-4)


# Jobs --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def jobs():
    """One of each cell."""
    return _comparison.training_jobs(TINY, (0, 1), [])[:2]


@pytest.fixture(scope="module")
def alone(tmp_path_factory, jobs):
    """What the jobs leave, done one after the other in this process: records, and weights."""
    folder = tmp_path_factory.mktemp("alone")
    records = _comparison.finish(jobs, folder, progress=False)
    return records, [_comparison.weights(job, folder) for job in jobs]


@pytest.mark.parametrize("where", ["processes", "cluster"])
def test_a_job_is_a_function_of_itself_wherever_it_runs(where, tmp_path, jobs, alone):
    """The same weights and figures from other processes, each killed in the middle of its job."""
    function = partial(dies_once, tmp_path, _comparison.do)
    place = tmp_path / "run"
    if where == "processes":
        records = _comparison.finish(jobs, place, None, 2, False, function)
    else:
        with two_workers() as local:
            address = local.scheduler_address
            records = _comparison.finish(jobs, place, address, progress=False, function=function)
    assert all(starts(tmp_path, job.name) for job in jobs), "nobody was killed"
    for job, weights in zip(jobs, alone[1], strict=True):
        found = _comparison.weights(job, place)
        assert weights.keys() == found.keys() != set()
        for name, x in weights.items():
            torch.testing.assert_close(found[name], x)
    costs = {"seconds", "rollout_seconds"}
    for here, there in zip(alone[0], records, strict=True):
        assert there.keys() == here.keys() > costs
        for key in here.keys() - costs:
            value = here[key]
            expected = pytest.approx(value, rel=1e-3) if isinstance(value, list) else value
            assert there[key] == expected, key


ROWS = [
    {"world": "modes", "model": "plain", "width": 8, "validation": [0.3, 0.2, 0.4]},
    {"world": "modes", "model": "plain", "width": 16, "validation": [0.3, 0.25, 0.1]},
    {"world": "modes", "model": "plain", "width": 24, "failed": "nan"},
]


def test_tuning_goes_on_with_the_best_pairs_and_takes_the_best_of_these():
    tuning = [row | {"rates": _comparison.RATES[:3], "trajectories": 2} for row in ROWS]
    assert _comparison.ranked(TINY, tuning)["modes", "plain"][:3] == [
        (16, 3e-2),
        (8, 1e-2),
        (16, 1e-2),
    ]
    finals = [job for job in _comparison.final_jobs(TINY, tuning) if job.world == "modes"]
    assert [(job.width, job.rates) for job in finals] == [(16, (3e-2,)), (8, (1e-2,))]
    assert {(job.steps, job.trajectories, job.tested) for job in finals} == {(6, 2, 0)}
    assert {job.seeds for job in finals} == {(_comparison.TUNING_SEED,)}
    judged = [
        {"world": "modes", "model": "plain", "width": w, "rates": [lr], "validation": [x]}
        for w, lr, x in ((16, 3e-2, 0.2), (8, 1e-2, 0.1))
    ]
    chosen = {
        (job.world, job.model): (job.width, job.rates)
        for job in _comparison.training_jobs(TINY, (0,), judged)
    }
    assert chosen["modes", "plain"] == (8, (1e-2,))
    untuned = _comparison.width_for("two_body", "hnn", TINY.targets[0])
    assert chosen["two_body", "hnn"] == (untuned, (1e-2,))


def test_what_does_best_with_the_smallest_rate_is_tuned_anew_on_the_most_data():
    """And only for that; nothing else, and no job that is stored, changes."""
    settings = replace(TINY, sizes=(1, 3))
    plain = {"world": "modes", "model": "plain", "trajectories": 2, "width": 8}
    finals = [
        plain | {"rates": [lr], "validation": [x]}
        for lr, x in ((_comparison.RATES[0], 0.1), (1e-2, 0.2))
    ]
    assert _comparison.at_the_edge(settings, finals) == [("modes", "plain")]
    assert _comparison.at_the_edge(settings, finals[1:]) == []
    assert _comparison.at_the_edge(TINY, finals) == []  # no more data than the tuning had
    again = _comparison.tuning_jobs(settings, 3, [("modes", "plain")])
    assert [(job.world, job.trajectories) for job in again] == [("modes", 3)] * len(again) != []
    records = [
        {"world": job.world, "model": job.model, "trajectories": 3, "width": job.width}
        | {"rates": list(job.rates), "validation": [0.4, 0.3, 0.2, 0.1]}
        for job in again
    ]
    last = _comparison.final_jobs(settings, records)
    assert {(job.trajectories, job.rates) for job in last} == {(3, (1e-1,))}
    assert len(last) == settings.finalists
    anew = [plain | {"trajectories": 3, "width": 16, "rates": [3e-2], "validation": [0.1]}]
    jobs = {job.name: job for job in _comparison.training_jobs(settings, (0,), finals, anew)}
    old = {job.name: job for job in _comparison.training_jobs(settings, (0,), finals)}
    assert (jobs["modes-plain-3"].width, jobs["modes-plain-3"].rates) == (16, (3e-2,))
    assert {name for name in jobs if jobs[name] != old[name]} == {"modes-plain-3"}
    everything = [*_comparison.tuning_jobs(settings), *again, *last, *jobs.values()]
    assert len({job.name for job in everything}) == len(everything)


def test_a_rate_that_is_too_large_leaves_the_others_to_compare(short, monkeypatch):
    job, rates = _comparison.tuning_jobs(TINY)[0], []
    fit = training.fit

    def failing(net, *args, **options):
        rates.append(options["optimizer"].keywords["rates"])
        if len(rates[-1]) > 3:
            raise training.TrainingError("the loss of member 3 became nan")
        return fit(net, *args, **options)

    monkeypatch.setattr(training, "fit", failing)
    weights, record = _comparison.do(job)
    assert weights == {}
    assert rates == [_comparison.RATES, _comparison.RATES[:3]]
    assert record["rates"] == list(_comparison.RATES[:3])
    assert len(record["validation"]) == 3


def test_widths_meet_the_target():
    for world, model in (("two_body", "plain"), ("two_body", "scnn"), ("two_body", "unitary")):
        width = _comparison.width_for(world, model, 5000)
        size = models.size(models.network(worlds.WORLDS[world], model, width, [0]))
        assert 0.6 < size / 5000 < 1.7


# The run as a whole ------------------------------------------------------------------------------


def test_run_resumes_and_evaluates(short, tmp_path, monkeypatch):
    folder, calls, do = tmp_path / "run", [], _comparison._do

    def counted(job):
        calls.append(job.name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return do(job)

    monkeypatch.setattr(_comparison, "_do", counted)
    with pytest.raises(KeyboardInterrupt):
        comparison.train("ci", (0, 1), "cpu", folder, "here", progress=False)
    comparison.train("ci", (0, 1), "cpu", folder, "here", progress=False)
    assert len(calls) == len(set(calls)) + 1, "a job that was done was done again"
    rows = comparison.records(folder)
    assert {(r["world"], r["model"], r["trajectories"]) for r in rows} == {
        (w, m, n) for w, m in CELLS for n in TINY.sizes
    }
    tuned = json.loads((folder / "tuning.json").read_text())
    assert [row["steps"] for row in tuned] == [TINY.tuning_steps] * 4 + [TINY.steps] * 4
    figures, about = comparison.evaluate(folder)
    assert about["experiment"] == "comparison"
    stored = {f"{r['world']}-{r['model']}": r for r in rows if r["trajectories"] == 2}
    for figure in figures:
        cell, what = figure.name.split(": ")
        if what != "parameters":
            assert figure.ours == pytest.approx(stored[cell][what], rel=1e-2)


def test_a_job_that_fails_is_said_and_the_others_are_kept(short, tmp_path):
    jobs = _comparison.training_jobs(TINY, (0,), [])

    def broken(job):
        if job.world == "modes":
            raise OSError("no room")
        return _comparison.do(job)

    with pytest.raises(training.TrainingError, match=r"2 of 4 jobs .*modes-plain-.*no room"):
        _comparison.finish(jobs, tmp_path, progress=False, function=broken)
    kept = [job for job in jobs if _comparison.weights(job, tmp_path)]
    assert {job.world for job in kept} == {"two_body"}


def test_a_file_of_another_job_does_not_count(short, tmp_path):
    job = _comparison.training_jobs(TINY, (0,), [])[0]
    _comparison.finish([job], tmp_path, progress=False)
    assert _comparison.weights(job, tmp_path)
    assert not _comparison.weights(replace(job, steps=7), tmp_path)


def test_bad_input_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", 1)
    with pytest.raises(ValueError, match="one CPU thread"):
        comparison.train("ci", (0,), "cuda", tmp_path, "here")
    with pytest.raises(ValueError, match=r"cells\.json cannot be read"):
        comparison.records(tmp_path)
    with pytest.raises(ValueError, match="no Dask scheduler answers"):
        comparison.train("ci", (0,), "cpu", tmp_path, "here", False, "tcp://127.0.0.1:9")


def test_command_line_trains_and_writes_all(short, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(comparison, "SETTINGS", {"ci": replace(TINY, sizes=(1,), tuning_steps=0)})
    words = ["--budget", "ci", "--seeds", "2", "--jobs", "1", "--output", str(tmp_path)]
    assert main(["train", "comparison", *words]) == 0
    report = artifacts.load_metrics(tmp_path)
    assert report["experiment"] == "comparison"
    assert report["provenance"]["seeds"] == [0, 1]
    assert "modes-plain: state" in capsys.readouterr().out
    assert main(["evaluate", "comparison", "--weights", str(tmp_path), "--json"]) == 0
