"""Artifacts: figures as JSON, weights and metrics that are whole or refused, disagreements."""

import errno
import json
import math
import os
from dataclasses import dataclass, replace

import pytest
import torch

from companion import _checkpoint, artifacts, experiments
from companion.artifacts import Figure

DRIFT = Figure("drift", "largest drift", "1", "lower", 6e-4, 1e-4, (1.0, 2.0, 6.0))
STUCK = Figure("stuck", "seeds that stick", "count", "lower", None, 0.0, (0.0,))


def report(figures=(DRIFT, STUCK)):
    summaries = [figure.summary() for figure in figures]
    return {"experiment": "toy", "budget": "ci", "provenance": {}, "figures": summaries}


@dataclass(frozen=True)
class Setting:
    steps: int
    hidden: tuple[int, ...]


def weights():
    draw = torch.Generator().manual_seed(0)
    return {
        variant: {
            "weights.0": torch.randn(2, 3, 4, generator=draw),
            "bias": torch.randn(2, 3, generator=draw, dtype=torch.float64),
        }
        for variant in ("invariant", "plain")
    }


# Figures -------------------------------------------------------------------------------------


def test_summary_has_mean_and_spread_over_seeds():
    assert DRIFT.summary() == {
        "name": "drift",
        "meaning": "largest drift",
        "unit": "1",
        "better": "lower",
        "paper": 6e-4,
        "aim": 1e-4,
        "ours": {"mean": 3.0, "spread": pytest.approx(math.sqrt(7.0)), "n": 3},
    }


def test_one_seed_has_no_spread():
    assert STUCK.summary()["ours"] == {"mean": 0.0, "spread": 0.0, "n": 1}


@pytest.mark.parametrize("value", [math.inf, math.nan, 1e200])  # whose spread is infinite
def test_a_seed_that_ran_away_is_null_in_json(tmp_path, value):
    away = replace(DRIFT, ours=(1.0, value))
    assert away.summary()["ours"] == {"mean": None, "spread": None, "n": 2}
    artifacts.save_metrics(tmp_path, report([away]))
    text = (tmp_path / "metrics.json").read_text()
    assert not {"NaN", "Infinity"} & set(text.replace(",", " ").split())
    assert artifacts.disagreements(artifacts.load_metrics(tmp_path), [away]) == []


# Weights -------------------------------------------------------------------------------------


def test_weights_come_back_as_they_were(tmp_path):
    about = {"experiment": "toy", "settings": {"hidden": [3, 4]}, "history": {"loss": [[0.1]]}}
    artifacts.save_weights(tmp_path / "new" / "folder", weights(), about)
    variants, stored = artifacts.load_weights(tmp_path / "new" / "folder")
    assert stored == about
    assert variants.keys() == weights().keys()
    for variant, state in weights().items():
        assert variants[variant].keys() == state.keys()
        for name, value in state.items():
            assert torch.equal(variants[variant][name], value)
            assert variants[variant][name].dtype == value.dtype


def test_missing_weights_say_how_to_make_them(tmp_path):
    with pytest.raises(ValueError, match=r"no weights at .*weights\.safetensors; train them with"):
        artifacts.load_weights(tmp_path)


@pytest.mark.parametrize(
    "damage", ["empty", "short", "flipped", "text", "a folder's worth of zeros"]
)
def test_damaged_weights_are_refused_and_left(tmp_path, damage):
    artifacts.save_weights(tmp_path, weights(), {})
    path = tmp_path / "weights.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[-5] ^= 4
    else:
        kinds = {"empty": b"", "short": content[:-1], "text": b"hello, world"}
        content = kinds.get(damage, bytes(len(content)))
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged or was not written by companion") as caught:
        artifacts.load_weights(tmp_path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content


def test_weights_of_another_experiment_are_refused(tmp_path):
    artifacts.save_weights(tmp_path, weights(), {"experiment": "toy"})
    assert artifacts.load_weights(tmp_path, "toy")[1] == {"experiment": "toy"}
    with pytest.raises(ValueError, match="these are weights of 'toy', not of 'game'"):
        artifacts.load_weights(tmp_path, "game")


@pytest.mark.parametrize("error", [KeyError("hidden"), TypeError("depth"), RuntimeError("shape")])
def test_weights_that_do_not_fit_say_what_to_do(tmp_path, error):
    with (
        pytest.raises(ValueError, match=r"do not fit this version .*train them again") as caught,
        artifacts.fitting(tmp_path),
    ):
        raise error
    assert str(tmp_path) in str(caught.value)
    assert caught.value.__cause__ is error


def test_networks_come_back_with_their_weights(tmp_path):
    made = {"wide": torch.nn.Linear(2, 5), "narrow": torch.nn.Linear(2, 1)}
    about = {"experiment": "toy", "sizes": [["wide", 5], ["narrow", 1]]}
    artifacts.save_weights(tmp_path, {k: net.state_dict() for k, net in made.items()}, about)

    def untrained(about):
        return ((name, torch.nn.Linear(2, size)) for name, size in about["sizes"])

    networks, known = artifacts.load_networks("toy", tmp_path, untrained)
    assert known == about
    for name, net in made.items():
        assert torch.equal(networks[name].weight, net.weight)
    with pytest.raises(ValueError, match="do not fit this version"):
        artifacts.load_networks("toy", tmp_path, lambda about: [("wide", torch.nn.Linear(3, 5))])
    with pytest.raises(ValueError, match="do not fit this version"):
        artifacts.load_networks("toy", tmp_path, lambda about: [("tall", torch.nn.Linear(2, 5))])


def test_settings_come_back_as_they_were():
    setting = Setting(steps=3, hidden=(4, 5))
    stored = json.loads(json.dumps(artifacts.settings_dict(setting)))
    assert stored == {"steps": 3, "hidden": [4, 5]}
    assert artifacts.as_settings(Setting, stored) == setting
    with pytest.raises(TypeError, match="depth"):
        artifacts.as_settings(Setting, stored | {"depth": 1})


def test_weights_of_two_runs_in_one_folder_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "LARGEST", 10)  # a file for each variant
    artifacts.save_weights(tmp_path / "one", weights(), {"seed": 1})
    artifacts.save_weights(tmp_path / "two", weights(), {"seed": 2})
    name = "weights-plain.safetensors"
    (tmp_path / "two" / name).rename(tmp_path / "one" / name)
    with pytest.raises(ValueError, match="are of two runs; train again"):
        artifacts.load_weights(tmp_path / "one")


@pytest.mark.parametrize("what", ["weights", "metrics"])
def test_full_disk_keeps_what_was_there(tmp_path, monkeypatch, what):
    def save():
        if what == "weights":
            artifacts.save_weights(tmp_path, weights(), {})
        else:
            artifacts.save_metrics(tmp_path, report())

    def no_space(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    save()
    (path,) = tmp_path.iterdir()
    before = path.read_bytes()
    monkeypatch.setattr(_checkpoint.os, "fsync", no_space)
    with pytest.raises(OSError, match=rf"could not write .*{path.name}: No space left"):
        save()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_curves_come_back(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "HERE", tmp_path)
    curve = torch.arange(6.0).view(2, 3).mT  # not contiguous
    artifacts.save_curves(artifacts.folder("toy"), {"q": curve})
    assert torch.equal(artifacts.load_curves("toy")["q"], curve)


# Metrics -------------------------------------------------------------------------------------


def test_metrics_come_back(tmp_path):
    artifacts.save_metrics(tmp_path, report())
    assert artifacts.load_metrics(tmp_path) == report()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "{}", '{"figures": []}', "\x00\x01", None]
    + [json.dumps({**report(), "figures": wrong}) for wrong in (3, [3], [{"name": "drift"}], None)],
)
def test_damaged_metrics_are_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(ValueError, match=r"metrics\.json cannot be read") as caught:
        artifacts.load_metrics(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_no_number_that_json_lacks_is_written(tmp_path):
    bad = report()
    bad["figures"][0]["paper"] = math.nan
    with pytest.raises(ValueError, match="not JSON compliant"):
        artifacts.save_metrics(tmp_path, bad)
    assert list(tmp_path.iterdir()) == []


def change(path, value):
    """The report with one entry replaced."""
    stored = report()
    place = stored["figures"][0]
    *inner, last = path
    for key in inner:
        place = place[key]
    place[last] = value
    return stored


def test_same_figures_agree():
    assert artifacts.disagreements(report(), [DRIFT, STUCK]) == []
    close = replace(DRIFT, ours=tuple(1.05 * x for x in DRIFT.ours))
    assert artifacts.disagreements(report(), [close, STUCK]) == []


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("ours", "mean"), 3.31, "metrics.json says mean = 3.31, recomputed 3"),
        (("ours", "mean"), 2.7, "metrics.json says mean = 2.7, recomputed 3"),
        (("ours", "mean"), 0.0, "says mean = 0, recomputed 3"),
        (("ours", "mean"), -3.0, "says mean = -3, recomputed 3"),
        (("ours", "mean"), None, "says mean = None, recomputed 3"),
        (("ours", "mean"), "3.0", "says mean = '3.0', recomputed 3"),
        (("ours", "mean"), math.nan, "says mean = nan, recomputed 3"),
        (("ours", "spread"), 0.1, "says spread = 0.1, recomputed 2.65"),
        (("ours", "n"), 5, "says n = 5, recomputed 3"),
        (("paper",), 6e-3, "says paper = 0.006, here 0.0006"),
        (("aim",), None, "says aim = None, here 0.0001"),
        (("better",), "higher", "says better = 'higher', here 'lower'"),
        (("meaning",), "smallest drift", "says meaning = 'smallest drift'"),
        (("unit",), "m", "says unit = 'm', here '1'"),
    ],
)
def test_every_change_of_a_stored_figure_is_said(path, value, said):
    (line,) = artifacts.disagreements(change(path, value), [DRIFT, STUCK])
    assert line.startswith("drift: ")
    assert said in line


def test_figures_added_or_left_out_are_said():
    assert artifacts.disagreements(report([DRIFT]), [DRIFT, STUCK]) == [
        "stuck: not in metrics.json"
    ]
    assert artifacts.disagreements(report(), [DRIFT]) == ["stuck: is no figure here"]


def test_a_tolerance_is_the_figures_own():
    wide = replace(DRIFT, tolerance=3.0)
    assert artifacts.disagreements(change(("ours", "mean"), 8.9), [wide, STUCK]) == []
    assert len(artifacts.disagreements(change(("ours", "mean"), 9.1), [wide, STUCK])) == 1


# Provenance and what the package ships -------------------------------------------------------


def test_provenance_says_where_and_how():
    made = artifacts.provenance(torch.device("cpu"), [0, 1], 400, 12.345, "python -m companion")
    assert made["device"].startswith("CPU")
    assert made["threads"] == torch.get_num_threads()
    assert made["torch"] == torch.__version__
    assert (made["seeds"], made["steps"], made["wall_time_s"]) == ([0, 1], 400, 12.3)
    assert made["command"] == "python -m companion"
    assert json.loads(json.dumps(made)) == made


# Networks of 52,000 weights, a scan of sixteen cells in three arrangements: three seeds
LARGE = (
    "argon",
    "argon_clusters",
    "argon_optimisers",
    "argon_rounding",
    "axilrod_teller",
    "comparison",
    "loss_weights",
)
TABLES = ("argon_rounding", "axilrod_teller", "comparison", "loss_weights")  # no curves


@pytest.mark.parametrize("name", experiments.names())
def test_shipped_artifact_is_whole(name):
    """Weights, metrics and curves of one and the same run."""
    place = artifacts.folder(name)
    networks, about = experiments.get(name).load()
    stored = artifacts.load_metrics(place)
    assert stored["experiment"] == about["experiment"] == name
    assert stored["budget"] == about["budget"] == "full"
    assert stored["provenance"] == about["provenance"]
    assert len(about["provenance"]["seeds"]) >= (3 if name in LARGE else 5)
    seeds = len(about["provenance"]["seeds"])
    weights = [p for net in networks.values() for p in net.parameters()]
    assert all(len(p) % seeds == 0 for p in weights)  # a sweep has several levels a seed
    if name not in TABLES:
        curves = artifacts.load_curves(name)
        assert curves
        assert all(bool(x.isfinite().any()) for x in curves.values())
    size = sum(path.stat().st_size for path in place.iterdir())
    assert size < 8e6  # eighteen networks of five seeds: the table of springy_pendulum
