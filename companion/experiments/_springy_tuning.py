"""How the cells of `springy_pendulum` were tuned: the same candidates for every one.

    python -m companion.experiments._springy_tuning

Width 64 or 128, learning rate 0.003, 0.01 or 0.03: 600 steps of a seed that no result uses, judged
on validation trajectories of their own. The three rates of a width are three members of one
ensemble. Writes `tuning.json` beside the weights, one entry for each cell and width. EMLP for D6
is not tried at width 64, where its channels end at rank 2 and it is EMLP for O(2) to the last
weight. Plain networks are tried at width 256 too, for the record: the table stays at 128, the
width of the paper's, and weights of 256 would not fit into an artifact.
"""

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tqdm.auto import tqdm

from companion import artifacts, datasets, training
from companion._checkpoint import write_atomically
from companion.experiments import springy_pendulum
from companion.experiments.springy_pendulum import CELLS, SETTINGS, SYSTEM, TRAJECTORIES, Cell
from companion.optim import SOAP

WIDTHS = (64, 128)
EXTRA = {"node-mlp": (256,), "hnn-mlp": (256,)}
SKIPPED = {("node-emlp-d6", 64), ("hnn-emlp-d6", 64)}
RATES = (3e-3, 1e-2, 3e-2)
STEPS, SEED, VALIDATION = 600, 100, 2**20 + 1


class RatePerMember(SOAP):
    """SOAP at lr = `rates[0]`, its step stretched for member s by `rates[s] / rates[0]`."""

    def __init__(
        self, params: Iterable[torch.nn.Parameter], lr: float, rates: Sequence[float] = RATES
    ) -> None:
        super().__init__(params, lr=lr)
        self.rates = tuple(rates)

    @torch.no_grad()
    def step(self, closure=None):
        """Takes one step, as SOAP does."""
        parameters = [p for group in self.param_groups for p in group["params"]]
        before = [p.clone() for p in parameters]
        value = super().step(closure)
        for p, old in zip(parameters, before, strict=True):
            stretch = torch.tensor(self.rates).to(p) / self.rates[0]
            p.copy_(old + (p - old) * stretch.view(-1, *[1] * (p.dim() - 1)))
        return value


def tune(cell: Cell, width: int, steps: int = STEPS) -> dict:
    """Trains a cell at this width with every rate; the losses at the end and on validation data."""
    seeds = [SEED] * len(RATES)
    net = springy_pendulum.network(replace(cell, width=width), seeds, widest=width)
    data = datasets.Segments(SYSTEM, seeds, batch=SETTINGS["full"].batch)
    begun = time.perf_counter()
    history = training.fit(
        net,
        springy_pendulum.loss,
        data,
        steps=steps,
        lr=RATES[0],
        lr_end=RATES[0] / 1000,
        warmup=steps // 20,
        optimizer=RatePerMember,
        progress=False,
    )
    seconds = time.perf_counter() - begun
    held = datasets.Segments(SYSTEM, [VALIDATION], batch=TRAJECTORIES).data
    with torch.no_grad():
        loss = springy_pendulum.loss(net, held.expand(len(RATES), -1, -1, -1))
    return {
        "cell": cell.name,
        "width": width,
        "parameters": net.size,
        "steps": steps,
        "seconds": round(seconds, 1),
        "lr": RATES,
        "train": [float(f"{x:.3g}") for x in history.loss[-1]],
        "validation": [float(f"{x:.3g}") for x in loss.tolist()],
    }


def best(rows: Iterable[dict]) -> dict[str, tuple[int, float]]:
    """Width, of `WIDTHS`, and learning rate of the lowest validation loss of each cell."""
    chosen: dict[str, tuple[float, int, float]] = {}
    for row in rows:
        for lr, loss in zip(row["lr"], row["validation"], strict=True):
            found = (loss if row["width"] in WIDTHS else float("inf"), row["width"], lr)
            chosen[row["cell"]] = min(chosen.get(row["cell"], found), found)
    return {name: (width, lr) for name, (_, width, lr) in chosen.items()}


def main(path: Path) -> None:
    """Tunes every cell and writes `path` after each."""
    rows = []
    trials = [(c, w) for c in CELLS.values() for w in (*WIDTHS, *EXTRA.get(c.name, ()))]
    for cell, width in tqdm(
        [trial for trial in trials if (trial[0].name, trial[1]) not in SKIPPED]
    ):
        rows.append(tune(cell, width))
        write_atomically(path, (json.dumps(rows, indent=1) + "\n").encode())


if __name__ == "__main__":
    main(artifacts.folder(springy_pendulum.NAME) / "tuning.json")
