"""Artifacts: the weights of full runs and the figures measured on them, with provenance.

An artifact is a folder with `weights.safetensors` (every variant's parameters, its settings and
loss history), `curves.safetensors` (what the book draws) and `metrics.json` (the figures).
`python -m companion train NAME --budget full` makes one.
"""

import json
import platform
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from companion._checkpoint import load_tensors, save_tensors, write_atomically

HERE = Path(__file__).parent


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
        """The figure as the JSON of DESIGN: mean and spread (standard deviation) over n seeds."""
        values = torch.tensor(self.ours, dtype=torch.float64)
        spread = values.std().item() if len(values) > 1 else 0.0
        ours = {"mean": values.mean().item(), "spread": spread, "n": len(values)}
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
    save_tensors(place / "weights.safetensors", flat, about)


def load_weights(place: Path) -> tuple[dict[str, dict[str, Tensor]], dict]:
    """Reads what `save_weights` wrote.

    Raises ValueError, naming the file, if it is missing or damaged.
    """
    path = place / "weights.safetensors"
    if not path.exists():
        raise ValueError(
            f"there are no weights at {path}; train them with `python -m companion train ...`"
        )
    tensors, about = load_tensors(path)
    variants: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        variant, name = key.split(".", 1)
        variants.setdefault(variant, {})[name] = value
    return variants, about


def save_curves(place: Path, curves: dict[str, Tensor]) -> None:
    """Writes the curves that the book draws."""
    save_tensors(place / "curves.safetensors", curves, {})


def load_curves(name: str) -> dict[str, Tensor]:
    """The curves of an experiment's artifact. ValueError, naming the file, if it is damaged."""
    return load_tensors(folder(name) / "curves.safetensors")[0]


def save_metrics(place: Path, report: dict) -> None:
    """Writes `metrics.json`."""
    write_atomically(place / "metrics.json", (json.dumps(report, indent=1) + "\n").encode())


def load_metrics(place: Path) -> dict:
    """Reads `metrics.json`. Raises ValueError, naming the file, if it is missing or damaged."""
    path = place / "metrics.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}); make it anew with evaluate") from error


def disagreements(stored: dict, figures: list[Figure]) -> list[str]:
    """Figures whose recomputed mean is outside its tolerance of the stored one, in words."""
    known = {figure["name"]: figure["ours"]["mean"] for figure in stored["figures"]}
    lines = []
    for figure in figures:
        new, old = figure.summary()["ours"]["mean"], known.get(figure.name)
        if old is None:
            lines.append(f"{figure.name}: not in metrics.json")
        elif not (old == new or old / figure.tolerance <= new <= old * figure.tolerance):
            lines.append(f"{figure.name}: metrics.json says {old:.3g}, recomputed {new:.3g}")
    return lines


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
