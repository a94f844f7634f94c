"""Artifacts: the weights of full runs and the figures measured on them, with provenance.

An artifact is a folder with `weights.safetensors` (every variant's parameters, settings and loss
histories; one file a variant where together they exceed `LARGEST` bytes), `curves.safetensors`
(what the book draws) and `metrics.json` (the figures).
`python -m companion train NAME --budget full` makes one.
"""

import json
import math
import platform
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from companion._checkpoint import load_tensors, save_tensors, write_atomically

T = TypeVar("T")

HERE = Path(__file__).parent
LARGEST = 1_000_000  # bytes of a file in the repository


@dataclass(frozen=True)
class Figure:
    """One figure of an experiment: what it means, what the paper reports, what we measure.

    `paper` and `aim` are None where there is none; `ours` holds one value a seed. `tolerance` is
    the factor within which a recomputation on another machine must agree with the stored mean.
    """

    name: str
    meaning: str
    unit: str
    better: str
    paper: float | None
    aim: float | None
    ours: tuple[float, ...]
    tolerance: float = 1.1

    def summary(self) -> dict[str, Any]:
        """The figure as plain JSON, with mean and spread (standard deviation) over n seeds.

        JSON has no inf and no nan: where a seed ran away, mean and spread are None.
        """
        values = torch.tensor(self.ours, dtype=torch.float64)
        mean, spread = values.mean().item(), values.std(correction=len(values) > 1).item()
        finite = math.isfinite(mean) and math.isfinite(spread)  # the spread of 1e200 is not
        ours = {
            "mean": mean if finite else None,
            "spread": spread if finite else None,
            "n": len(values),
        }
        described = {
            k: getattr(self, k) for k in ("name", "meaning", "unit", "better", "paper", "aim")
        }
        return described | {"ours": ours}


def folder(name: str) -> Path:
    """Where the package keeps the artifact of an experiment."""
    return HERE / name


def provenance(
    device: torch.device, seeds: list[int], steps: int, seconds: float, command: str
) -> dict:
    """Where and how a run was made: device, versions, seeds, steps, wall time, date, command."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": name,
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "seeds": seeds,
        "steps": steps,
        "wall_time_s": round(seconds, 1),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "command": command,
    }


def save_weights(place: Path, variants: dict[str, dict[str, Tensor]], about: dict) -> None:
    """Writes the parameters of all variants, and what is to be known about them."""
    flat = {f"{variant}.{k}": v for variant, state in variants.items() for k, v in state.items()}
    size = sum(x.numel() * x.element_size() for x in flat.values())
    groups = {"weights": list(variants)}
    if size > 0.9 * LARGEST:
        groups = {f"weights-{variant}": [variant] for variant in variants}
    for old in place.glob("weights*.safetensors"):
        if old.stem not in groups:
            old.unlink()
    for name, members in groups.items():
        part = {key: x for key, x in flat.items() if key.split(".", 1)[0] in members}
        save_tensors(place / f"{name}.safetensors", part, about)


def weight_files(place: Path) -> list[Path]:
    """The files with the weights of an artifact, none if it was not trained."""
    return sorted(place.glob("weights*.safetensors"))


def load_weights(
    place: Path, experiment: str | None = None
) -> tuple[dict[str, dict[str, Tensor]], dict]:
    """Reads what `save_weights` wrote.

    Raises ValueError, naming the file, if one is missing, damaged, or of another run, and if they
    are not weights of the `experiment`, where one is named.
    """
    paths = weight_files(place)
    if not paths:
        raise ValueError(
            f"there are no weights at {place / 'weights.safetensors'}; train them with "
            "`python -m companion train ...`"
        )
    variants: dict[str, dict[str, Tensor]] = {}
    about: dict = {}
    for path in paths:
        tensors, described = load_tensors(path)
        if about and described != about:
            raise ValueError(
                f"{path} and {paths[0]} are of two runs; train again, or fetch the whole folder"
            )
        about = described
        for key, value in tensors.items():
            variant, name = key.split(".", 1)
            variants.setdefault(variant, {})[name] = value
    if experiment is not None and about.get("experiment") != experiment:
        raise ValueError(f"these are weights of {about.get('experiment')!r}, not of {experiment!r}")
    return variants, about


def load_networks(
    experiment: str,
    place: Path | None,
    untrained: Callable[[dict], Iterable[tuple[str, Any]]],
) -> tuple[dict[str, Any], dict]:
    """The networks of an experiment with their stored weights, by variant, and what is known.

    `place` is a run's folder, None the artifact in the package; `untrained` makes the networks,
    with the names of their variants, from what is known. Raises ValueError as `load_weights` and
    `fitting` do.
    """
    place = place or folder(experiment)
    states, about = load_weights(place, experiment)
    networks = {}
    with fitting(place):
        for variant, network in untrained(about):
            network.load_state_dict(states[variant])
            networks[variant] = network
    return networks, about


@contextmanager
def fitting(place: Path) -> Iterator[None]:
    """Turns what goes wrong while stored weights are put into networks into a ValueError that says
    what to do."""
    try:
        yield
    except (KeyError, TypeError, RuntimeError, FileNotFoundError) as error:
        raise ValueError(
            f"the weights in {place} do not fit this version of the experiment ({error}); train "
            "them again"
        ) from error


def save_curves(place: Path, curves: dict[str, Tensor]) -> None:
    """Writes the curves that the book draws."""
    save_tensors(place / "curves.safetensors", curves, {})


def load_curves(name: str) -> dict[str, Tensor]:
    """The curves of an experiment's artifact. ValueError, naming the file, if it is damaged."""
    return load_tensors(folder(name) / "curves.safetensors")[0]


def save_metrics(place: Path, report: dict) -> None:
    """Writes `metrics.json`."""
    text = json.dumps(report, indent=1, allow_nan=False) + "\n"
    write_atomically(place / "metrics.json", text.encode())


def load_metrics(place: Path) -> dict:
    """Reads `metrics.json`. Raises ValueError, naming the file, if it is missing or damaged."""
    path = place / "metrics.json"
    try:
        report = json.loads(path.read_text())
        keys = {"experiment", "budget", "provenance", "figures"}
        if report.keys() != keys or not all(
            {"name", "ours"} <= f.keys() for f in report["figures"]
        ):
            raise ValueError("it is not a report of figures")
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}); `python -m companion train ... --output "
            f"{place}` makes it anew, without training again if the weights are there"
        ) from error
    return report


def disagreements(stored: dict, figures: list[Figure]) -> list[str]:
    """What a stored report says that a recomputation does not, in words.

    Means agree within the tolerance of their figure, spreads within the same part of the mean;
    everything else must be the same.
    """
    known = {figure["name"]: figure for figure in stored["figures"]}
    lines = [f"{name}: is no figure here" for name in known.keys() - {f.name for f in figures}]
    for figure in figures:
        new, old = figure.summary(), known.get(figure.name)
        if old is None:
            lines.append(f"{figure.name}: not in metrics.json")
            continue
        lines += [
            f"{figure.name}: metrics.json says {key} = {_word(old.get(key))}, "
            f"here {_word(new[key])}"
            for key in new
            if key != "ours" and old.get(key) != new[key]
        ]
        lines += [
            f"{figure.name}: metrics.json says {key} = {_word(old['ours'].get(key))}, "
            f"recomputed {_word(new['ours'][key])}"
            for key in ("mean", "spread", "n")
            if not _agree(key, old["ours"], new["ours"], figure.tolerance)
        ]
    return lines


def _agree(key: str, old: dict, new: dict, tolerance: float) -> bool:
    a, b, mean = old.get(key), new[key], new["mean"]
    if a == b:
        return True
    if key == "n" or not (isinstance(a, float) and isinstance(b, float)):
        return False
    if key == "mean":
        return a / tolerance <= b <= a * tolerance
    return abs(a - b) <= (tolerance - 1) * abs(mean)


def _word(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else repr(value)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return f"CPU: {line.split(':', 1)[1].strip()}"
    return f"CPU: {platform.processor() or platform.machine()}"


def settings_dict(settings: Any) -> dict:
    """A settings dataclass as plain JSON."""
    return json.loads(json.dumps(asdict(settings)))


def as_settings(cls: type[T], stored: dict) -> T:
    """The settings dataclass from the JSON of `settings_dict`, lists as tuples.

    Raises TypeError for a field it does not have.
    """
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()})
