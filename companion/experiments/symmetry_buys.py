r"""What a symmetry buys: the promises of Yao et al. (2021) that no experiment of theirs tests.

Five studies of the springy pendulum, all with Hamiltonian networks of about 5000 weights:

- `samples`: the paper's pendulum from n trajectories. The members with the most data are then asked
  about gravity of other directions and strengths (section 3: "we might be able to train with one
  value of g and generalize at test time to other values") and about other frames;
- `gravity`: the remedies, training with other strengths and directions;
- `makes`: pendulums of random masses, springs and lengths (section 6: "when the masses or natural
  lengths change"), for networks that are not told, told, and told in units of the pendulum itself;
- `effort`: augmentation, O(3) and translations by examples, against steps of training.

`_symmetry_buys_worlds` makes the data, `_symmetry_buys_models` the networks, and
`_symmetry_buys_measures` asks the questions. This module trains, stores and loads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from companion import artifacts, groups, training
from companion._checkpoint import load_tensors, save_tensors
from companion.artifacts import Figure
from companion.experiments import _scarce
from companion.experiments import _symmetry_buys_measures as measures
from companion.experiments import _symmetry_buys_worlds as worlds
from companion.experiments._symmetry_buys_models import Network, loss

NAME = "symmetry_buys"
SUMMARY = "Other gravities, frames, makes, fewer data, augmentation: what a symmetry is worth"
PAPER = "Yao et al. (2021), sections 3 and 6: the promises of generalisation"

SPREAD = 1.5  # constants of the training data: the paper's, times factors from 1/1.5 to 1.5
STRENGTHS = (0.5, 2.0)  # of gravity, where training varies it, and in the test


@dataclass(frozen=True)
class Settings:
    """What a budget fixes.

    `steps` and `batch` are those of samples, `long` and `large` of gravity and makes, `efforts` and
    `middle` of effort.
    """

    sizes: tuple[int, ...] = (16, 32, 64, 125, 250, 500)
    sizes_emlp: tuple[int, ...] = (16, 64, 500)
    width: int = 64
    steps: int = 1000
    batch: int = 16
    long: int = 1500
    large: int = 64
    efforts: tuple[int, ...] = (500, 1500, 4500)
    efforts_scalars: tuple[int, ...] = (100, 300, 1000)
    middle: int = 32
    n: int = 500
    lr: float = 1e-2
    lr_end: float = 1e-5


SETTINGS = {
    "ci": Settings(
        sizes=(16, 125),
        sizes_emlp=(16,),
        width=32,
        steps=100,
        long=300,
        large=32,
        efforts=(60, 120),
        efforts_scalars=(60,),
        n=125,
    ),
    "demo": Settings(
        sizes=(16, 64, 500),
        sizes_emlp=(16, 500),
        steps=500,
        long=600,
        large=32,
        efforts=(250, 1000),
        efforts_scalars=(125, 500),
    ),
    "full": Settings(),
}


# The trainings ---------------------------------------------------------------------------------


def turned_about_g(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """n frames: a random rotation or reflection about the vertical, no shift."""
    return worlds.upright(groups.O(2).sample(n, generator=generator)), torch.zeros(n, 3)


def anywhere(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """n frames: a random element of O(3), and a shift with a spread of 1 in each coordinate."""
    R = groups.O(3).sample(n, generator=generator)
    return R, torch.randn(n, 3, generator=generator, dtype=R.dtype)


@dataclass(frozen=True)
class Part:
    """One training: what the network sees, its data, and its length."""

    sees: str
    sizes: tuple[int, ...]
    batch: int
    steps: int
    pendulums: dict
    frames: str = ""


def parts(settings: Settings) -> dict[str, Part]:
    """All trainings by name, each an ensemble and a file."""
    s, one = settings, (settings.n,)
    few = (s.sizes, s.batch, s.steps, {})
    found = {
        "samples-scalars": Part("scalars", *few),
        "samples-gram": Part("gram", *few),
        "samples-emlp": Part("emlp", s.sizes_emlp, *few[1:]),
        "samples-mlp": Part("told", *few),
        "samples-augmented": Part("told", *few, frames="turned_about_g"),
    }
    strong = {"strengths": STRENGTHS}
    for name, sees, pendulums in (
        ("gravity-scalars", "scalars", strong),
        ("gravity-mlp", "told", strong | {"turned": True}),
        ("makes-untold", "scalars", {"spread": SPREAD}),
        ("makes-told", "constants", {"spread": SPREAD}),
        ("makes-units", "units", {"spread": SPREAD}),
    ):
        found[name] = Part(sees, one, s.large, s.long, pendulums)
    found |= {f"effort-mlp-{k}": Part("all", one, s.middle, k, {}, "anywhere") for k in s.efforts}
    found |= {
        f"effort-scalars-{k}": Part("scalars", one, s.middle, k, {}) for k in s.efforts_scalars
    }
    return found


def untrained(part: Part, settings: Settings, seeds: Sequence[int]) -> Network:
    """The ensemble of a part before training, size after size; features scaled on data of its own.

    Members of one seed start from the same weights and own nested sets of data.
    """
    _, members = _scarce.grid(part.sizes, seeds)
    net = Network(part.sees, settings.width, members)
    data = worlds.Pieces([2**20], [500], 500, _frames(part), **part.pendulums)
    z, given, constants = (x[0] for x in data(0))
    net.standardise(
        (
            z.flatten(0, 1),
            given.repeat_interleave(worlds.CHUNK, 0),
            constants.repeat_interleave(worlds.CHUNK, 0),
        )
    )
    return net


def train_part(
    part: Part,
    settings: Settings,
    seeds: Sequence[int],
    progress: bool = True,
    checkpoint: Path | None = None,
) -> tuple[Network, training.History]:
    """Trains one part."""
    sizes, members = _scarce.grid(part.sizes, seeds)
    data = worlds.Pieces(members, sizes, part.batch, _frames(part), **part.pendulums)
    net = untrained(part, settings, seeds)
    history = training.fit(
        net,
        loss,
        data,
        steps=part.steps,
        lr=settings.lr,
        lr_end=settings.lr_end,
        warmup=part.steps // 20,
        checkpoint=checkpoint,
        every=250,
        progress=progress,
    )
    return net, history


def _frames(part: Part):
    return {"": None, "turned_about_g": turned_about_g, "anywhere": anywhere}[part.frames]


def train(
    budget: str,
    seeds: Sequence[int],
    device: str,
    folder: Path,
    command: str,
    progress: bool = True,
) -> None:
    """Trains every part and writes it to `folder`; a run that was stopped goes on where it was.

    The networks are small: they train on the CPU whatever `device` says.
    """
    settings, seconds = SETTINGS[budget], 0.0
    for name, part in parts(settings).items():
        wanted = {
            "experiment": NAME,
            "budget": budget,
            "settings": _settings_of(part, settings),
            "seeds": list(seeds),
        }
        path, checkpoint = folder / f"{name}.safetensors", folder / f"{name}.checkpoint"
        known = load_tensors(path)[1] if path.exists() else {}
        if {key: known.get(key) for key in wanted} != wanted:
            if progress:
                print(f"{name}: {len(seeds)} seeds", flush=True)
            net, history = train_part(part, settings, seeds, progress, checkpoint)
            known = wanted | {"seconds": history.seconds, "loss": history.loss[-1]}
            save_tensors(path, net.state_dict(), known)
            checkpoint.unlink()
        seconds += known["seconds"]
    about = {
        "experiment": NAME,
        "budget": budget,
        "settings": artifacts.settings_dict(settings),
        "provenance": artifacts.provenance(
            torch.device("cpu"), list(seeds), settings.steps, seconds, command
        ),
    }
    artifacts.save_weights(folder, {}, about)


def _settings_of(part: Part, settings: Settings) -> dict:
    """What a part depends on: a change of one study leaves the others as they are."""
    own = artifacts.settings_dict(part)
    return own | {"width": settings.width, "lr": settings.lr, "lr_end": settings.lr_end}


def load(folder: Path | None = None) -> tuple[dict[str, Network], dict]:
    """The trained ensembles by part, and what is known about them.

    `folder` is a run's folder; None means the artifact in the package. Raises ValueError if the
    weights are missing, damaged, or not of this experiment.
    """
    folder = folder or artifacts.folder(NAME)
    _, about = artifacts.load_weights(folder, NAME)
    networks = {}
    with artifacts.fitting(folder):
        settings = artifacts.as_settings(Settings, about["settings"])
        for name, part in parts(settings).items():
            _, members = _scarce.grid(part.sizes, about["provenance"]["seeds"])
            networks[name] = Network(part.sees, settings.width, members)
            state, known = load_tensors(folder / f"{name}.safetensors")
            networks[name].load_state_dict(state)
            about.setdefault("seconds", {})[name] = known["seconds"]
    return networks, about


# The figures -----------------------------------------------------------------------------------


def evaluate(
    folder: Path | None = None, progress: bool = False, keep_curves: bool = False
) -> tuple[list[Figure], dict]:
    """Recomputes every figure from the stored weights; returns them and the facts of the run.

    With `keep_curves` everything that the book draws is written beside the weights.
    """
    networks, about = load(folder)
    settings = artifacts.as_settings(Settings, about["settings"])
    seeds = about["provenance"]["seeds"]
    for net in networks.values():
        net.double()
    curves = measures.all_curves(networks, parts(settings), len(seeds), progress)
    if keep_curves:
        place = folder or artifacts.folder(NAME)
        artifacts.save_curves(place, {name: curve.float() for name, curve in curves.items()})
    return measures.figures(curves), about
