r"""Appendix A of Ma & Chan (2022): FIRE beside Adam and SOAP, at equal processor time.

One network, the paper's, five ways to train it. `fire` is appendix A with its constants and all
60,000 configurations in every iteration; `fire_2000` is the same with 2,000 configurations, to see
many iterations; `adam` and `soap` take minibatches of 256, drawn by importance (`Configurations`,
whose loss has the mean of eq. 42 up to a factor). These four start from the same weights
as the paper's: Xavier's, without biases, and a small residue a = 0.1. `soap_a1` has the residue and
the first weights of the rest of this book. Adam and SOAP are run at three lengths, each with its
own schedule down to a small step, so that their power law is one of finished runs. Weights are
kept of the longest only; of the others, what was measured when they were trained.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from companion import artifacts, training
from companion.artifacts import Figure
from companion.configurations import Configurations
from companion.experiments import _argon, argon
from companion.experiments._argon import TRAINED, rms
from companion.experiments._lagrangian import described
from companion.optim import FIRE, SOAP
from companion.unitary import Softsign

NAME = "argon_optimisers"
SUMMARY = "Four argon atoms: FIRE on the full batch beside Adam and SOAP, at equal time"
PAPER = "Ma & Chan (2022), appendix A and figure 2"

PAPERS, ITERATIONS = 0.00118, 10_000_000  # eV/angstrom after so many iterations of FIRE
TASK = argon.TASK
SYSTEM = TASK.system


@dataclass(frozen=True)
class Run:
    """A way to train: minibatches with a rate `lr`, or the full batch of the first `full`.

    `steps` multiplies the budget's steps, so that all runs take the same time; `parts` are the
    lengths that are run, in parts of that; `a` is the residue, `paper` whether the weights start
    as the paper's.
    """

    optimiser: Callable[..., torch.optim.Optimizer]
    full: int = 0
    lr: float | None = None
    steps: float = 1.0
    parts: tuple[float, ...] = (1.0,)
    a: float = 0.1
    paper: bool = True


THREE = (1 / 16, 1 / 4, 1.0)
RUNS = {
    "fire": Run(FIRE, TRAINED, steps=1 / 340),
    "fire_2000": Run(FIRE, 2000, steps=1 / 12.6),
    "adam": Run(torch.optim.Adam, lr=5e-3, steps=1.32, parts=THREE),
    "soap": Run(SOAP, lr=1e-2, parts=THREE),
    "soap_a1": Run(SOAP, lr=1e-2, parts=THREE, a=1.0, paper=False),
}


@dataclass(frozen=True)
class Settings:
    """What a budget fixes: steps of SOAP, configurations of a member, runs, size of a minibatch."""

    steps: int
    configurations: int = TRAINED
    runs: tuple[str, ...] = tuple(RUNS)
    batch: int = 256


SETTINGS = {
    "ci": Settings(32, 200, ("fire", "adam", "soap"), 32),
    "demo": Settings(800, 2000),
    "full": Settings(11_500),
}


def lengths(run: str, steps: int) -> list[int]:
    """The numbers of steps at which a run is made, the longest last."""
    return [max(4, round(steps * RUNS[run].steps * part)) for part in RUNS[run].parts]


def variants(settings: Settings) -> list[tuple[str, str, int]]:
    """Name, run and number of steps of everything that is trained."""
    return [(f"{k}-{n}", k, n) for k in settings.runs for n in lengths(k, settings.steps)]


def network(run: str, seeds: Sequence[int], device: torch.device | str = "cpu") -> Any:
    """The untrained network of a run, an ensemble of these seeds."""
    net = TASK.network("plain", seeds)
    net.network.activation = Softsign(RUNS[run].a)
    if RUNS[run].paper:
        with torch.no_grad():
            xavier(net.network, seeds)
    return net.to(device)


def xavier(net: Any, seeds: Sequence[int]) -> None:
    """First weights as in section 4.2: uniform, with spread sqrt(2 / (n + m)); biases zero."""
    sources = [torch.Generator().manual_seed(seed) for seed in seeds]
    for W, b in zip(net.weights, net.biases, strict=True):
        _, n, m = W.shape
        draws = [2 * torch.rand(n, m, generator=g, dtype=torch.float64) - 1 for g in sources]
        W.copy_(math.sqrt(6 / (n + m)) * torch.stack(draws))
        b.zero_()


def loss(net: Any, r: Float[Tensor, "S B N 3"], F: Float[Tensor, "S B N 3"]) -> Float[Tensor, " S"]:
    """Eq. (42): squared error of the standardised forces, summed over components, mean over data.

    FIRE's steps depend on the scale of the loss, Adam's and SOAP's do not.
    """
    spread = net.network.spread_out[:, 0]
    return (net.forces(r) - F).square().sum((2, 3)).mean(1) / spread**2


def loss_in_parts(net: Any, r: Tensor, F: Tensor) -> Tensor:
    """`loss` over many configurations, 1,000 at a time: at once they would not fit into a cache.

    Every part adds its gradient to the parameters on the way; what is returned carries none.
    """
    total = torch.zeros(len(r), dtype=r.dtype, device=r.device)
    for part_r, part_F in zip(r.split(1000, 1), F.split(1000, 1), strict=True):
        value = loss(net, part_r, part_F) * (part_r.shape[1] / r.shape[1])
        value.sum().backward()
        total += value.detach()
    return total.requires_grad_()


def train_run(
    run: str,
    steps: int,
    settings: Settings,
    seeds: Sequence[int],
    device: str = "auto",
    checkpoint: Path | None = None,
    progress: bool = True,
) -> tuple[Any, training.History, float]:
    """Trains one run of so many steps, all seeds at once; the third is its processor time.

    The time is in seconds; of a run that was resumed, it is that of its last part, scaled up.
    """
    way, where = RUNS[run], training.device(device)
    net = network(run, seeds, where)
    data = Configurations(SYSTEM, seeds, settings.configurations, settings.batch, device=where)
    whole = data.r[:, : way.full], data.F[:, : way.full]
    made = set()

    def batch(step: int) -> tuple[Tensor, ...]:
        made.add(step)
        return whole if way.full else data(step)

    fit = partial(
        training.fit,
        net,
        batch=batch,
        steps=steps,
        optimizer=way.optimiser,
        checkpoint=checkpoint,
        every=max(1, steps // 5),
        window=max(1, steps // 150),
        progress=progress,
    )
    begun = time.process_time()
    if way.lr is not None:
        history = fit(_argon.loss, lr=way.lr, lr_end=way.lr / 1000, warmup=steps // 20)
    else:
        history = fit(loss_in_parts, lr=None, clip=math.inf)
    spent = time.process_time() - begun
    return net, history, spent * steps / len(made) if made else history.seconds


def train(
    budget: str,
    seeds: Sequence[int],
    device: str,
    folder: Path,
    command: str,
    progress: bool = True,
) -> None:
    """Trains every run at every length and writes the weights of the longest, and the rest of the
    record; resumes a run that was stopped."""
    settings = SETTINGS[budget]
    states, histories, seconds, tested = {}, {}, {}, {}
    for name, run, steps in variants(settings):
        if progress:
            print(f"{name}: {len(seeds)} seeds, {steps} steps", flush=True)
        checkpoint = folder / f"checkpoint-{name}.safetensors"
        net, histories[name], spent = train_run(
            run, steps, settings, seeds, device, checkpoint, progress
        )
        seconds[name] = round(spent, 1)
        if steps == lengths(run, settings.steps)[-1]:
            states[name] = net.state_dict()
        else:
            tested[name] = list(rms(TASK.errors(net, *TASK.test), (1, 2, 3)))
    where = training.device(device)
    about = described(NAME, budget, settings, seeds, where, command, histories)
    artifacts.save_weights(folder, states, about | {"seconds": seconds, "tested": tested})


def load(folder: Path | None = None) -> tuple[dict[str, Any], dict]:
    """The longest-trained ensemble of each run, and what is known about them.

    `folder` is a run's folder; None means the artifact in the package. Raises ValueError if the
    weights are missing, damaged, or not of this experiment.
    """

    def untrained(about: dict) -> Iterator[tuple[str, Any]]:
        settings = artifacts.as_settings(Settings, about["settings"])
        for run in settings.runs:
            longest = lengths(run, settings.steps)[-1]
            yield f"{run}-{longest}", network(run, about["provenance"]["seeds"])

    return artifacts.load_networks(NAME, folder, untrained)


def evaluate(
    folder: Path | None = None, progress: bool = False, keep_curves: bool = False
) -> tuple[list[Figure], dict]:
    """Recomputes every figure from the stored weights; returns them and the facts of the run.

    With `keep_curves` the curves of figure 2, as recorded while training, and the test errors are
    written beside the weights.
    """
    networks, about = load(folder)
    settings = artifacts.as_settings(Settings, about["settings"])
    rows, curves = [], {}
    test: dict[str, Tensor] = {}  # (lengths, S)
    for name, run, steps in tqdm(variants(settings), desc="runs", disable=not progress):
        meaning = f"root mean square error of a component on the test set, {steps:,} steps"
        if name in networks:
            error = rms(TASK.errors(networks[name], *TASK.test), (1, 2, 3))
        else:
            error = tuple(about["tested"][name])
            meaning += "; recorded when it was trained"
        test[run] = torch.cat([test.get(run, torch.empty(0, len(error))), torch.tensor([error])])
        title, paper = f"{run}: test RMSD after {steps:,} steps", PAPERS if run == "fire" else None
        rows.append(Figure(title, meaning, "eV/A", "lower", paper, None, error, 1.1))
    for run in settings.runs:
        n = torch.tensor(lengths(run, settings.steps), dtype=torch.float64)
        names = [f"{run}-{int(x)}" for x in n]
        seconds = [about["seconds"][name] for name in names]
        at, train_error = recorded(run, about["history"][names[-1]], networks[names[-1]])
        curves |= {f"{run}.steps": at, f"{run}.train": train_error}
        curves |= {f"{run}.lengths": n, f"{run}.test": test[run]}
        curves[f"{run}.seconds"] = torch.tensor(seconds)
        if len(n) > 2:
            law = power_law(n, test[run])
        else:  # one run without a schedule: the second half of its iterations
            law = power_law(at[len(at) // 2 :], train_error[len(at) // 2 :])
        rows += _law(run, *law, seconds[-1])
    if keep_curves:
        place = folder or artifacts.folder(NAME)
        artifacts.save_curves(place, {k: x.float() for k, x in curves.items()})
    return rows, about


def recorded(run: str, history: dict, net: Any) -> tuple[Tensor, Tensor]:
    """Steps, and the root mean square errors `(time, S)` in eV/angstrom that the training losses
    are."""
    loss = torch.tensor(history["loss"], dtype=torch.float64)
    if not RUNS[run].full:
        return torch.tensor(history["steps"]).double(), (loss / 100).sqrt()
    spread = net.network.spread_out[:, 0].double()
    return torch.tensor(history["steps"]).double(), (loss / 12).sqrt() * spread


def power_law(
    n: Float[Tensor, " k"], error: Float[Tensor, "k S"]
) -> tuple[Float[Tensor, " S"], Float[Tensor, " S"]]:
    """p and C of the least-squares line log error = log C - p log n, one a member."""
    x, y = n.double().log(), error.double().log()
    centred = x - x.mean()
    p = -(centred[:, None] * y).sum(0) / centred.square().sum()
    return p, (y.mean(0) + p * x.mean()).exp()


def _law(run: str, p: Tensor, C: Tensor, seconds: float) -> list[Figure]:
    """The power law of one run, as figures; FIRE's exponent is that of a plateau and not shown."""
    finished = len(RUNS[run].parts) > 2
    of = "test errors at three lengths" if finished else "training error, its second half"
    far = C * float(ITERATIONS) ** -p
    paper = PAPERS if run == "fire" else None
    meaning = f"line through the {of}, at 10 million steps: not a measurement"
    title = f"{run}: extrapolated to 10 million steps"
    rows = [Figure(title, meaning, "eV/A", "lower", paper, None, tuple(far.tolist()), 2.0)]
    if finished:
        meaning = f"p of RMSD ~ steps^-p, line through the {of}"
        values = tuple(p.tolist())
        rows.append(Figure(f"{run}: exponent", meaning, "1", "higher", None, None, values, 1.2))
    meaning = "processor time of the longest run, all seeds together, as recorded while training"
    return [*rows, Figure(f"{run}: time", meaning, "s", "lower", None, None, (seconds,), 1.0)]
