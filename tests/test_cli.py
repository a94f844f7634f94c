"""The command line, on a run small enough for a test: 12 steps, 8 neurons, a rollout to T = 0.2."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from inspect import signature
from pathlib import Path

import pytest

from companion import _checkpoint, artifacts, experiments
from companion.__main__ import main
from companion.experiments import _lagrangian, kepler

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module", autouse=True)
def small():
    """The ci budget and the rollouts of Kepler, cut down."""
    settings = replace(kepler.SETTINGS["ci"], hidden=(8, 8), steps=12, batch=8, warmup=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(kepler.SETTINGS, "ci", settings)
        patch.setattr(kepler, "rollout", partial(kepler.rollout, T=0.2))
        patch.delenv("COMPANION_BUDGET", raising=False)
        yield


def train(folder, *more):
    return main(
        ["train", "kepler", "--budget", "ci", "--device", "cpu", "--output", str(folder), *more]
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "kepler"
    assert train(folder, "--seeds", "2") == 0
    return folder


@pytest.fixture(scope="module")
def computed(trained):
    """The figures of the run and its facts."""
    return kepler.evaluate(trained)


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the run, to be damaged."""
    return Path(shutil.copytree(trained, tmp_path / "kepler"))


def evaluate(folder, *more):
    return main(["evaluate", "kepler", "--weights", str(folder), *more])


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def edit(folder, change):
    """Changes `metrics.json` in place."""
    path = folder / "metrics.json"
    stored = json.loads(path.read_text())
    change(stored)
    path.write_text(json.dumps(stored))


# What works ----------------------------------------------------------------------------------


def test_list_names_every_experiment(capsys):
    assert main(["list"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown] == experiments.names()
    assert "Lagrangian networks" in shown[0]
    assert shown[0].endswith(("(weights here)", "(no weights)"))


@pytest.mark.parametrize("name", experiments.names())
def test_every_experiment_can_be_called_as_the_command_line_calls_it(name):
    module = experiments.get(name)
    assert name == module.NAME
    for function in (module.load, module.evaluate):
        needed = [p for p in signature(function).parameters.values() if p.default is p.empty]
        assert needed == []  # the folder of the package, no progress bar, no curves
    assert {"folder", "progress", "keep_curves"} <= set(signature(module.evaluate).parameters)
    assert set(module.SETTINGS) == {"ci", "demo", "full"}


@pytest.mark.parametrize("name", experiments.names())
def test_many_processes_are_for_experiments_of_many_jobs(name, capsys, tmp_path, monkeypatch):
    """`--jobs` and `--cluster` reach `train`, or are refused before anything is trained."""
    module, given = experiments.get(name), {}

    def trained(*_, **doors):
        given.update(doors)
        raise ValueError("that is all")

    trained.__signature__ = signature(module.train)
    monkeypatch.setattr(module, "train", trained)
    words = ["train", name, "--budget", "ci", "--output", str(tmp_path)]
    assert main([*words, "--jobs", "2", "--cluster", "tcp://here:1"]) == 2
    shown = capsys.readouterr().err
    if name == "comparison":
        assert given == {"cluster": "tcp://here:1", "jobs_at_once": 2}
        assert "that is all" in shown
    else:
        assert given == {}
        assert f"{name} trains all its seeds as one job" in shown
        assert "leave out --jobs and --cluster" in shown
    given.clear()
    assert main(words) == 2
    assert given == {}


def test_list_says_where_weights_are_missing(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(artifacts, "HERE", tmp_path)
    assert main(["list"]) == 0
    assert capsys.readouterr().out.endswith("(no weights)\n")


def test_training_leaves_weights_curves_metrics_and_checkpoints(trained):
    assert sorted(contents(trained)) == [
        "checkpoint-invariant.safetensors",
        "checkpoint-unconstrained.safetensors",
        "curves.safetensors",
        "metrics.json",
        "weights.safetensors",
    ]
    made = artifacts.load_metrics(trained)["provenance"]
    assert made["seeds"] == [0, 1]
    assert made["steps"] == 12
    assert made["command"].startswith("python -m companion train kepler --budget ci --device cpu")


def test_evaluate_json_is_the_schema_of_the_design(trained, capsys):
    assert evaluate(trained, "--json") == 0
    shown = capsys.readouterr().out
    report = json.loads(shown, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert list(report) == ["experiment", "budget", "provenance", "figures"]
    assert report["experiment"] == "kepler"
    assert report["budget"] == "ci"
    assert set(report["provenance"]) >= {
        *("device", "torch", "python", "seeds", "steps", "wall_time_s", "date", "command")
    }
    names = [figure["name"] for figure in report["figures"]]
    assert len(set(names)) == len(names) >= 8
    assert report["figures"][names.index("invariant: max delta L_true")]["ours"]["n"] == 2
    for figure in report["figures"]:
        assert list(figure) == ["name", "meaning", "unit", "better", "paper", "aim", "ours"]
        assert all(isinstance(figure[key], str) for key in ("name", "meaning", "unit"))
        assert figure["better"] in ("lower", "higher")
        for key in ("paper", "aim"):
            assert figure[key] is None or isinstance(figure[key], float)
        ours = figure["ours"]
        assert list(ours) == ["mean", "spread", "n"]
        assert ours["n"] in (1, 2)
        assert all(x is None or isinstance(x, float) for x in (ours["mean"], ours["spread"]))


def test_evaluate_prints_paper_aim_and_ours(trained, capsys):
    assert evaluate(trained) == 0
    shown = capsys.readouterr().out
    line = next(x for x in shown.splitlines() if x.startswith("invariant: max delta L_true"))
    assert "6.05e-04" in line
    assert "1.00e-04" in line
    assert "(n = 2)" in line
    assert "budget ci, 12 steps, 2 seeds, CPU" in shown


def test_evaluate_prints_a_run_that_ran_away(trained, computed, capsys, monkeypatch):
    figures, about = computed
    away = [replace(figures[0], ours=(float("inf"), 1.0)), *figures[1:]]
    monkeypatch.setattr(kepler, "evaluate", lambda *_, **__: (away, about))
    assert evaluate(trained) == 1
    assert "ran away (n = 2)" in capsys.readouterr().out


def test_training_again_in_the_same_folder_trains_nothing(run, capsys, monkeypatch):
    before = contents(run)

    def refuse(*arguments):
        raise AssertionError("trained again")

    monkeypatch.setattr(_lagrangian, "loss", refuse)
    assert train(run, "--seeds", "2") == 0
    for name in ("checkpoint-invariant.safetensors", "checkpoint-unconstrained.safetensors"):
        assert contents(run)[name] == before[name]


def test_budget_comes_from_the_environment(monkeypatch, tmp_path, capsys):
    seen = []
    monkeypatch.setattr(kepler, "train", lambda budget, *rest: seen.append((budget, *rest)))
    monkeypatch.setattr(kepler, "evaluate", lambda *_, **__: pytest.fail("stop"))
    monkeypatch.setenv("COMPANION_BUDGET", "full")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pytest.fail.Exception):
        main(["train", "kepler"])
    assert seen[0][:4] == ("full", range(5), "auto", Path("runs/kepler-full"))


# What is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("evaluate keplr", "no experiment is called 'keplr'; did you mean kepler?"),
        ("train Kepler", "no experiment is called 'Kepler'; did you mean kepler?"),
        ("train zzz", "did you mean kepler or schwarzschild or two_particle"),
        ("train kepler --budget ful", "'ful' is not a budget; did you mean full?"),
        ("train kepler --budget xyz", "did you mean ci or demo or full?"),
        ("train kepler --budget ci --seeds 0", "--seeds must be 1 or more, got 0"),
        ("train kepler --budget ci --device gpu", "'gpu' is not a device; expected auto, cpu or"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("companion: ")
    assert said in captured.err
    assert list(tmp_path.iterdir()) == []


def test_unknown_budget_in_the_environment_is_refused(monkeypatch, capsys):
    monkeypatch.setenv("COMPANION_BUDGET", "demmo")
    assert main(["train", "kepler"]) == 2
    assert "did you mean demo?" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["", "lst", "train", "evaluate kepler --jason"])
def test_unknown_words_are_refused(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words.split())
    assert stop.value.code == 2
    assert "usage: python -m companion" in capsys.readouterr().err


def test_exit_status_reaches_the_shell():
    done = subprocess.run(
        [sys.executable, "-m", "companion", "evaluate", "keplr"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == ("companion: no experiment is called 'keplr'; did you mean kepler?\n")


def test_weights_that_are_not_there(tmp_path, capsys):
    assert evaluate(tmp_path) == 2
    assert str(tmp_path) in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["empty", "short", "flipped"])
@pytest.mark.parametrize("name", ["weights.safetensors", "metrics.json"])
def test_damaged_artifact_is_refused_and_left(run, capsys, name, damage):
    path = run / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 128
    path.write_bytes({"empty": b"", "short": content[: len(content) // 2]}.get(damage, content))
    before = contents(run)
    assert evaluate(run) == 2
    assert f"{path} " in capsys.readouterr().err
    assert contents(run) == before


def test_metrics_are_read_before_minutes_of_rollouts(run, capsys, monkeypatch):
    (run / "metrics.json").unlink()
    monkeypatch.setattr(kepler, "evaluate", lambda *_, **__: pytest.fail("too early"))
    assert evaluate(run) == 2
    said = capsys.readouterr().err
    assert "metrics.json cannot be read" in said
    assert f"--output {run}` makes it anew" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda about: about.update(experiment="pendulum"),
            "weights of 'pendulum', not of 'kepler'",
        ),
        (lambda about: about["settings"].update(hidden=[8, 9]), "do not fit this version"),
        (lambda about: about["settings"].update(depth=3), "do not fit this version"),
        (lambda about: about.pop("settings"), "do not fit this version"),
    ],
)
def test_weights_of_something_else_are_refused(run, capsys, change, said):
    states, about = artifacts.load_weights(run)
    change(about)
    artifacts.save_weights(run, states, about)
    assert evaluate(run) == 2
    assert said in capsys.readouterr().err


def test_damaged_checkpoint_is_refused_and_left(run, capsys):
    path = run / "checkpoint-invariant.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    before = contents(run)
    assert train(run, "--seeds", "2") == 2
    assert f"{path} is damaged" in capsys.readouterr().err
    assert contents(run) == before


def test_checkpoint_of_other_seeds_is_refused_and_left(run, capsys):
    before = contents(run)
    assert train(run, "--seeds", "1") == 2
    said = capsys.readouterr().err
    assert str(run / "checkpoint-invariant.safetensors") in said
    assert "belongs to another run" in said
    assert contents(run) == before


def test_full_disk_ends_with_a_sentence(tmp_path, capsys, monkeypatch):
    def no_space(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_checkpoint.os, "fsync", no_space)
    assert train(tmp_path / "run", "--seeds", "1") == 2
    assert "checkpoint-invariant.safetensors: No space left on device" in capsys.readouterr().err
    assert list((tmp_path / "run").iterdir()) == []


def test_stopping_by_hand_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(_lagrangian, "loss", stop)
    assert train(tmp_path / "run", "--seeds", "1") == 130
    assert "the same command goes on from the last checkpoint" in capsys.readouterr().err


# Figures that do not hold --------------------------------------------------------------------


def better(stored):
    stored["figures"][0]["ours"]["mean"] /= 2


def steadier(stored):
    stored["figures"][0]["ours"]["spread"] = 0.0


def easier(stored):
    stored["figures"][0]["paper"] *= 10


def shorter(stored):
    del stored["figures"][-1]


def longer(stored):
    stored["figures"].append({**stored["figures"][0], "name": "invented"})


def elsewhere(stored):
    stored["provenance"]["device"] = "a very large GPU"


def grander(stored):
    stored["budget"] = "full"


@pytest.mark.parametrize("change", [better, steadier, easier, shorter, longer, elsewhere, grander])
@pytest.mark.parametrize("more", [[], ["--json"]], ids=["text", "json"])
def test_metrics_that_were_changed_end_in_status_1(
    run, computed, capsys, change, more, monkeypatch
):
    monkeypatch.setattr(kepler, "evaluate", lambda *_, **__: computed)
    assert evaluate(run) == 0
    capsys.readouterr()
    edit(run, change)
    before = contents(run)
    assert evaluate(run, *more) == 1
    captured = capsys.readouterr()
    assert "the stored figures do not hold here: " in captured.err
    assert contents(run) == before
    if more:  # what is printed is what was computed, not what is stored
        assert json.loads(captured.out)["figures"] != artifacts.load_metrics(run)["figures"] or (
            change in (elsewhere, grander)
        )


def test_weights_of_another_run_end_in_status_1(run, tmp_path, capsys):
    states, about = artifacts.load_weights(run)
    for state in states.values():
        state["output"] *= 1.5
    artifacts.save_weights(run, states, about)
    assert evaluate(run) == 1
    assert "the stored figures do not hold here: invariant: " in capsys.readouterr().err
