r"""Few data, noisy data, data from one side: what Müller (2023) leaves to future work (section 4).

Three modules hold the studies. `scarce_kepler`: the orbit of the kepler experiment with measurement
errors from 1e-4 to 1e-1, and with n measurements and no more. `scarce_symmetries`: right and wrong
symmetries in five small worlds in the plane. `scarce_projections`: orbits of which only two
coordinates are seen. This one trains, stores, loads and measures them all.

Networks are small, so that all levels and seeds of a study train as one ensemble.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from companion import artifacts, training
from companion._checkpoint import load_tensors, save_tensors
from companion.artifacts import Figure
from companion.experiments import (
    _lagrangian,
    _scarce,
    scarce_kepler,
    scarce_projections,
    scarce_symmetries,
)
from companion.lagrangian import LagrangianNetwork

NAME = "scarce_noisy"
SUMMARY = (
    "Few or noisy measurements, hidden coordinates, wrong symmetries: what a symmetry is worth"
)
PAPER = "Müller (2023), section 4: the questions it leaves open"

Ensemble = LagrangianNetwork | scarce_projections.Fit


@dataclass(frozen=True)
class Settings:
    """What a budget fixes, study by study."""

    kepler: scarce_kepler.Settings = field(default_factory=scarce_kepler.Settings)
    plane: scarce_symmetries.Settings = field(default_factory=scarce_symmetries.Settings)
    sky: scarce_projections.Settings = field(default_factory=scarce_projections.Settings)


SETTINGS = {
    "ci": Settings(
        kepler=scarce_kepler.Settings(
            sigmas=(1e-3, 1e-1),
            sizes=(32, 320),
            hidden=(24, 24),
            steps=200,
            batch=32,
            lr=1e-2,
            warmup=50,
        ),
        plane=scarce_symmetries.Settings(sizes=(10, 100, 1000), steps=200, warmup=50),
        sky=scarce_projections.Settings(orbits=4, arcs=5, hidden=(16,), steps=60, tries=1),
    ),
    "demo": Settings(
        kepler=scarce_kepler.Settings(sigmas=(1e-3, 1e-2, 1e-1), sizes=(32, 320, 3200), steps=1000),
        plane=scarce_symmetries.Settings(sizes=(10, 100, 1000), steps=600),
        sky=scarce_projections.Settings(steps=600, tries=3),
    ),
    "full": Settings(),
}


# Training, storing, loading --------------------------------------------------------------------


def parts() -> list[str]:
    """The names of all trainings, each an ensemble and a file."""
    return [
        *(
            f"{study}-{variant}"
            for study in ("noise", "samples")
            for variant in scarce_kepler.VARIANTS
        ),
        *(f"plane-{belief}" for belief in scarce_symmetries.BELIEFS),
        *(f"sky-{variant}" for variant in scarce_projections.VARIANTS),
    ]


def train_part(
    part: str, settings: Settings, seeds: Sequence[int], progress: bool = True
) -> tuple[Ensemble, training.History, list[int]]:
    """One training of `parts`: the ensemble, its history, the steps at which members were best."""
    study, variant = part.split("-", 1)
    if study == "noise":
        return scarce_kepler.train_noise(variant, settings.kepler, seeds, progress)
    if study == "samples":
        return scarce_kepler.train_samples(variant, settings.kepler, seeds, progress)
    if study == "plane":
        return scarce_symmetries.train(variant, settings.plane, seeds, progress)
    fit, history = scarce_projections.train(variant, settings.sky, seeds, progress)
    return fit, history, []


def untrained(part: str, settings: Settings, seeds: Sequence[int]) -> Ensemble:
    """The ensemble of a part before training, to load weights into."""
    study, variant = part.split("-", 1)
    if study == "plane":
        return scarce_symmetries.network(variant, settings.plane, seeds)
    if study == "sky":
        return scarce_projections.untrained(variant, settings.sky, seeds)
    kepler = settings.kepler
    levels = kepler.sigmas if study == "noise" else kepler.sizes
    return scarce_kepler.network(variant, kepler, levels, seeds)


def train(
    budget: str,
    seeds: Sequence[int],
    device: str,
    folder: Path,
    command: str,
    progress: bool = True,
) -> None:
    """Trains every part and writes it to `folder`; a run that was stopped goes on after the last
    finished part.

    The networks are small: they train on the CPU whatever `device` says.
    """
    settings, seconds = SETTINGS[budget], 0.0
    for part in parts():
        wanted = {
            "experiment": NAME,
            "budget": budget,
            "settings": _settings_of(part, settings),
            "seeds": list(seeds),
        }
        path = folder / f"{part}.safetensors"
        known = load_tensors(path)[1] if path.exists() else {}
        if {key: known.get(key) for key in wanted} != wanted:
            if progress:
                print(f"{part}: {len(seeds)} seeds", flush=True)
            net, history, stopped = train_part(part, settings, seeds, progress)
            known = wanted | {"seconds": history.seconds, "stopped": stopped}
            save_tensors(path, net.state_dict(), known)
        seconds += known["seconds"]
    about = {
        "experiment": NAME,
        "budget": budget,
        "settings": artifacts.settings_dict(settings),
        "provenance": artifacts.provenance(
            torch.device("cpu"), list(seeds), settings.kepler.steps, seconds, command
        ),
    }
    artifacts.save_weights(folder, {}, about)


def _settings_of(part: str, settings: Settings) -> dict:
    """What a part depends on: a change of one study leaves the others as they are."""
    stored = artifacts.settings_dict(settings)
    return stored.get(part.split("-")[0], stored["kepler"])


def load(folder: Path | None = None) -> tuple[dict[str, Ensemble], dict]:
    """The trained ensembles by part, and what is known about them.

    `folder` is a run's folder; None means the artifact in the package. Raises ValueError if the
    weights are missing, damaged, or not of this experiment.
    """
    folder = folder or artifacts.folder(NAME)
    _, about = artifacts.load_weights(folder, NAME)
    networks = {}
    with artifacts.fitting(folder):
        settings = as_settings(about["settings"])
        for part in parts():
            networks[part] = untrained(part, settings, about["provenance"]["seeds"])
            state, known = load_tensors(folder / f"{part}.safetensors")
            networks[part].load_state_dict(state)
            about.setdefault("stopped", {})[part] = known["stopped"]
    return networks, about


def as_settings(stored: dict) -> Settings:
    """The settings of a run, from the JSON they were stored as."""
    return Settings(
        artifacts.as_settings(scarce_kepler.Settings, stored["kepler"]),
        artifacts.as_settings(scarce_symmetries.Settings, stored["plane"]),
        artifacts.as_settings(scarce_projections.Settings, stored["sky"]),
    )


# The figures -----------------------------------------------------------------------------------


def evaluate(
    folder: Path | None = None, progress: bool = False, keep_curves: bool = False
) -> tuple[list[Figure], dict]:
    """Recomputes every figure from the stored weights; returns them and the facts of the run.

    With `keep_curves` everything that the book draws is written beside the weights.
    """
    networks, about = load(folder)
    settings, seeds = as_settings(about["settings"]), about["provenance"]["seeds"]
    kepler = settings.kepler
    curves: dict[str, Tensor] = {}
    for part, net in networks.items():
        if progress:
            print(f"{part} ...", flush=True)
        study = part.split("-")[0]
        if isinstance(net, scarce_projections.Fit):
            curves |= _sky_curves(part, net, seeds, settings.sky)
        elif study == "plane":
            found = scarce_symmetries.errors(net, settings.plane)
            torques = scarce_symmetries.torque(net, settings.plane)
            for world, errors in found.items():
                curves[f"{part}.{world}"] = errors
                common = [scarce_symmetries.agreement(values) for values in torques[world]]
                curves[f"{part}.{world}.agreement"] = torch.tensor(common)
        else:
            levels = kepler.sigmas if study == "noise" else kepler.sizes
            curves |= {f"{part}.{k}": v for k, v in scarce_kepler.judge(net, len(levels)).items()}
            if study == "noise":  # what the slider draws: seed 0 at every level
                path = scarce_kepler.flight(_lagrangian.copy(net, torch.float64)).unflatten(
                    1, (len(levels), -1)
                )
                curves[f"{part}.path"] = path[:, :, 0, 0, :3]
    if keep_curves:
        place = folder or artifacts.folder(NAME)
        artifacts.save_curves(place, {name: curve.float() for name, curve in curves.items()})
    return [
        *_kepler_figures("noise", "sigma", kepler.sigmas, curves),
        *_kepler_figures("samples", "n", kepler.sizes, curves),
        *_worth_figures(kepler.sizes, curves),
        *_plane_figures(settings.plane.sizes, curves),
        *_sky_figures(len(seeds), curves),
    ], about


def _sky_curves(part: str, fit, seeds: Sequence[int], settings) -> dict[str, Tensor]:
    found = scarce_projections.recovered(fit, seeds, settings)
    best = found.sky.square().mean(1).unflatten(0, (len(seeds), -1)).argmin(1)
    rows = best + settings.tries * torch.arange(len(seeds))
    sky = scarce_projections.observe(seeds[:1], settings)
    curves = {f"{part}.{k}": getattr(found, k) for k in ("sky", "depth", "tilt", "force")}
    return curves | {
        f"{part}.best": rows,
        f"{part}.path": found.path[:, rows[0]],
        "sky.true": sky.path[:, 0, :, :3],
        "sky.seen": sky.seen[:, 0],
    }


def _kepler_figures(
    study: str, letter: str, levels: Sequence[float | int], curves: dict[str, Tensor]
) -> list[Figure]:
    meanings = {
        "orbit": "rms error of the acceleration on the noiseless orbit over its rms",
        "turned": "the same on the same orbit in 20 random positions",
        "drift": "max delta L_true over two revolutions, eq. 35; 1 where it is larger",
    }
    rows = []
    for k in sorted({0, len(levels) // 2, len(levels) - 1}):
        for variant in scarce_kepler.VARIANTS:
            for measure, meaning in meanings.items():
                values = curves[f"{study}-{variant}.{measure}"][k]
                name = f"{study}, {letter} = {levels[k]:g}, {variant}: {measure}"
                loose = 2.0 if measure == "drift" else 1.1
                rows.append(Figure(name, meaning, "1", "lower", None, None, _seeds(values), loose))
    return rows


def _worth_figures(sizes: Sequence[int], curves: dict[str, Tensor]) -> list[Figure]:
    """How many times fewer measurements the invariant network needs, measure by measure."""
    rows = []
    for rival in ("unconstrained", "augmented"):
        for measure in ("orbit", "turned", "drift"):
            mine, other = (
                _scarce.smooth(curves[f"samples-{v}.{measure}"]) for v in ("invariant", rival)
            )
            factor, bound = _scarce.worth(sizes, mine, other, len(sizes) - 1)
            words = (
                f"the {rival} network's error ({measure}) at n = {sizes[-1]}, reached with fewer"
            )
            name = f"samples: factor in n over {rival}, {measure}"
            if bound:
                words += "; a lower bound, the smallest n of the study is enough"
            if math.isfinite(factor):
                rows.append(Figure(name, words, "1", "higher", None, None, (factor,), 1.5))
    return rows


def _plane_figures(sizes: Sequence[int], curves: dict[str, Tensor]) -> list[Figure]:
    rows = []
    for world in scarce_symmetries.worlds():
        for belief in scarce_symmetries.BELIEFS:
            values = curves[f"plane-{belief}.{world}"]
            aim = scarce_symmetries.floor(belief, world) or None
            for k in sorted({0, len(sizes) - 1}):
                name = f"plane, {world}, {belief}: error at n = {sizes[k]}"
                meaning = "rms error of the acceleration over its rms; aim: the belief's floor"
                rows.append(Figure(name, meaning, "1", "lower", None, aim, _seeds(values[k])))
        right, wrong = (_scarce.smooth(curves[f"plane-{b}.{world}"]) for b in ("none", "O2"))
        where = _scarce.crossing(sizes, wrong, right)
        if math.isfinite(where):
            name = f"plane, {world}: n at which O2 stops helping"
            meaning = "from here on the network without symmetry is better (geometric means)"
            rows.append(Figure(name, meaning, "1", "lower", None, None, (where,), 1.3))
        common = curves[f"plane-none.{world}.agreement"][-1].item()
        name = f"plane, {world}: common torque, n = {sizes[-1]}"
        meaning = "mean torque of the seeds without symmetry over its standard error; 1: chance"
        rows.append(Figure(name, meaning, "1", "higher", None, None, (common,)))
    return rows


def _sky_figures(seeds: int, curves: dict[str, Tensor]) -> list[Figure]:
    meanings = {
        "sky": ("misfit of the measured x and y, rms over sigma", "1"),
        "depth": ("error of the hidden z up to a mirror, over its rms; median over orbits", "1"),
        "tilt": ("error of the plane of the orbit up to a mirror; median over orbits", "deg"),
        "force": ("error of the acceleration on the true orbits; median over orbits", "1"),
    }
    rows = []
    for variant in scarce_projections.VARIANTS:
        best = curves[f"sky-{variant}.best"]
        for key, (meaning, unit) in meanings.items():
            values = curves[f"sky-{variant}.{key}"][best]
            values = values.square().mean(1).sqrt() if key == "sky" else values.median(1).values
            name = f"sky, {variant}: {key}"
            rows.append(Figure(name, meaning, unit, "lower", None, None, _seeds(values)))
    return rows


def _seeds(values: Tensor) -> tuple[float, ...]:
    return tuple(values.nan_to_num(nan=math.inf).tolist())
