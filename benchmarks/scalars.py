"""A training step of the springy double pendulum: what each change to the authors' code brings.

    python -m benchmarks.scalars --paper-code DIR --emlp-code DIR --paper-python PYTHON

DIRs are clones of github.com/weichiyao/ScalarEMLP, the code of Yao et al. (2021), and of
github.com/mfinzi/equivariant-MLP, whose networks it compares with; PYTHON is an interpreter that
has their JAX. All train on the same 500 segments of 5 states in turns, in processor time. The rows
go from their code to ours, one change at a time; down to "the whole step compiled" they run in JAX.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks import timing
from benchmarks.paper import ScalarsCode, add_options
from companion import datasets, integrators, training
from companion.experiments import springy_pendulum as pendulum
from companion.vectorfield import VectorNetwork

KINDS = tuple(pendulum.MODELS)
SEGMENTS = pendulum.TRAJECTORIES  # the paper's batch: one segment of each trajectory
BATCH = pendulum.SETTINGS["full"].batch  # the experiment's
CELL = pendulum.CELLS["hnn-scalars"]
JAX = {  # rows in JAX: what they are called in scalars_server.py
    "the authors' code": "authors",
    "two RK4 steps an interval, differentiated as they are": "fixed steps",
    "every interval from its measured state": "one interval",
    "17 features, nothing twice, no basis functions": "our features",
    f"2 x {CELL.width} SiLU instead of 4 x 100 ReLU": "our network",
    "the whole step compiled": "compiled step",
}
AUTOGRAD = "torch instead of JAX, autograd's gradient of H"
TORCH = {"node": "torch instead of JAX", "hnn": "the gradient of H in closed form"}
FIT = "companion's fit: log loss, clipping, SOAP"
SHORT = (1, 1)  # the rehearsal
PLAIN, OURS = "companion's fit, components", "companion's fit, emlp-o2"
SMALL = f"the experiment's batch: {BATCH} segments a step"


def network(kind: str, sees: str = "scalars") -> VectorNetwork:
    """The experiment's untrained network."""
    return pendulum.network(pendulum.CELLS[f"{kind}-{sees}"], [0])


def segments(batch: int = SEGMENTS) -> datasets.Segments:
    """The experiment's training data of seed 0."""
    return datasets.Segments(pendulum.SYSTEM, [0], n=SEGMENTS, batch=batch)


def by_autograd(net: VectorNetwork) -> Callable[[Tensor], Tensor]:
    """The field of a Hamiltonian network by differentiating its energy."""

    def field(z: Tensor) -> Tensor:
        with torch.enable_grad():
            z = z if z.requires_grad else z.requires_grad_()
            energy = net.energy(z, pendulum.given(net)).sum()
            (slope,) = torch.autograd.grad(energy, z, create_graph=True)
        return torch.cat([slope[..., 6:], -slope[..., :6]], dim=-1)

    return field


def mean_square(field: Callable[[Tensor], Tensor], data: Tensor) -> Tensor:
    """The mean square error after one interval of two RK4 steps, from every measured state."""
    z, after = data[:, :, :-1].flatten(1, 2), data[:, :, 1:].flatten(1, 2)
    for _ in range(2):
        z = integrators.rk4_step(field, z, pendulum.DT / 2)
    return (z - after).square().mean()


def bare_step(kind: str, autograd: bool = False) -> Callable[[], Tensor]:
    """A step of Adam on all segments, as those in JAX are; returns the loss before it."""
    net, data = network(kind), segments().data
    optimizer = torch.optim.Adam(net.parameters(), lr=CELL.lr)

    def step() -> Tensor:
        optimizer.zero_grad()
        field = by_autograd(net) if autograd else net.field(pendulum.given(net))
        loss = mean_square(field, data)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def whole_step(kind: str, batch: int, sees: str = "scalars") -> timing.Task:
    """`companion.training.fit` with the loss of the experiment."""
    net, data = network(kind, sees), segments(batch)

    def run(n: int) -> float:
        begun = time.process_time()
        training.fit(net, pendulum.loss, data, steps=n, lr=CELL.lr, progress=False)
        return time.process_time() - begun

    return run


def shared() -> dict[str, np.ndarray]:
    """What the other process needs: the data, our features, the weights that ours start from."""
    arrays = {
        "z": segments().data[0],
        "test": pendulum.true_trajectories()[0].float(),
        "given": pendulum.SYSTEM.given.float(),
        "B": torch.tensor(pendulum.RELATIVE, dtype=torch.float32),
        "lengths": torch.tensor(pendulum.SPRINGS),
    }
    for kind in KINDS:
        core = network(kind).core
        own = {"centre": core.centre, "scale": core.scale, "C": core.output}
        own |= {f"W{i}": W for i, W in enumerate(core.weights)}
        own |= {f"b{i}": b for i, b in enumerate(core.biases)}
        arrays |= {f"{kind}_{name}": x[0].detach() for name, x in own.items()}
    return {name: x.numpy() for name, x in arrays.items()}


@contextmanager
def running(options: argparse.Namespace) -> Iterator[ScalarsCode]:
    """The authors' code of these options, with our data, for as long as it is needed."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.npz"
        np.savez(data, **shared())
        threads = options.threads
        code = ScalarsCode(
            options.paper_code, options.emlp_code, options.paper_python, threads, data
        )
        try:
            yield code
        finally:
            code.close()


def measure(kind: str, code: ScalarsCode, rounds: int, seconds: float) -> dict:
    """The ladder of a kind of model, and the networks that it is compared with."""
    clock = time.process_time
    tasks = {row: code.task(kind, name) for row, name in JAX.items()}
    check_same(code.ask("loss", kind, "our network"), float(bare_step(kind)()))
    if kind == "hnn":
        tasks[AUTOGRAD] = timing.timed(bare_step(kind, autograd=True), clock)
    tasks[TORCH[kind]] = timing.timed(bare_step(kind), clock)
    tasks[FIT] = whole_step(kind, SEGMENTS)
    tasks[SMALL] = whole_step(kind, BATCH)
    ladder = timing.in_turns(tasks, rounds, seconds, FIT, SHORT)
    for before, row in zip([None, *ladder], ladder, strict=False):
        if before is not None:
            ratios = ladder[before]["ratio"]["median"], ladder[row]["ratio"]["median"]
            ladder[row]["gain"] = float(f"{ratios[0] / ratios[1]:.4g}")
    others = {"the authors' MLP": code.task(kind, "MLP"), PLAIN: whole_step(kind, SEGMENTS, "mlp")}
    compared = timing.in_turns(others, rounds, seconds, PLAIN, SHORT)
    table = {"a training step": ladder, "without symmetry": compared}
    return table


def equivariant(code: ScalarsCode) -> dict:
    """Two steps of the authors' equivariant Hamiltonian network; one takes most of a minute."""
    code.ask("compile", "hnn", "EMLP")
    tasks = {"the authors' EMLP": code.task("hnn", "EMLP")}
    tasks[OURS] = whole_step("hnn", SEGMENTS, "emlp-o2")
    return timing.in_turns(tasks, 2, None, OURS)


def check_same(theirs: float, ours: float) -> None:
    """Raises RuntimeError if the networks of the two sides are not the same function."""
    if not abs(theirs - ours) < 1e-3 * ours:
        raise RuntimeError(f"loss of our network: {theirs} in JAX, {ours} in torch")


def parser(name: str, text: str | None) -> argparse.ArgumentParser:
    """The options of this benchmark and of `scalars_accuracy`."""
    made = argparse.ArgumentParser(description=text, prog=f"python -m benchmarks.{name}")
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--emlp-code", type=Path, required=True, help="a clone of the EMLP code")
    add_options(made)
    return made


def main(words: list[str] | None = None) -> Path:
    """Measures, and writes `results/scalars.json`."""
    words = sys.argv[1:] if words is None else words
    asked = parser("scalars", __doc__)
    asked.add_argument("--rounds", type=int, default=7)
    asked.add_argument("--seconds", type=float, default=1.0, help="of each task in each round")
    options = asked.parse_args(words)
    torch.set_num_threads(options.threads)
    command = ("python -m benchmarks.scalars " + " ".join(words)).strip()
    cases = {}

    def save() -> Path:  # after every part: the whole takes long
        return timing.save("scalars", command, options.rounds, cases, paper=code.about)

    with running(options) as code:
        for kind in KINDS:
            print(f"{kind} ...", flush=True)
            cases[kind] = measure(kind, code, options.rounds, options.seconds)
            save()
        cases["hnn"]["EMLP, O(2)"] = equivariant(code)
        return save()


if __name__ == "__main__":
    print(main())
