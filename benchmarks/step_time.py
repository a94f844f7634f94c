"""One training step of a Lagrangian network: the explicit pass against everybody else.

    python -m benchmarks.step_time
    python -m benchmarks.step_time --paper-code DIR --paper-python PYTHON

A step is: acceleration of a batch of 128 in float32, mean square error, gradient, Adam. DIR is a
clone of the paper's code (github.com/eikehmueller/mlconservation_code) and PYTHON an interpreter
that has its TensorFlow; both run in turns with ours, in a process of their own.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import paper as paper_code
from benchmarks import timing
from benchmarks.paper import PaperCode
from benchmarks.variants import VARIANTS, Acceleration
from companion import datasets, invariants, systems, training
from companion.lagrangian import LagrangianNetwork

CASES: dict[str, tuple[Callable, Callable]] = {
    "kepler": (systems.Kepler, lambda: invariants.Rotations(1, 3)),
    "two_particle": (systems.TwoParticle, lambda: invariants.RotationsTranslations(2, 4)),
}
BATCH = 128


def network(case: str, seeds: int = 1, dtype: torch.dtype = torch.float32) -> LagrangianNetwork:
    """The paper's network: 2 x 128 softplus, its symmetry layer; unit masses."""
    layer = CASES[case][1]()
    return LagrangianNetwork(layer, seeds=seeds, mass=[1.0] * layer.d, dtype=dtype)


def measurements(case: str, seeds: int = 1) -> datasets.NoisyMeasurements:
    """Fresh noisy data for every step."""
    return datasets.NoisyMeasurements(CASES[case][0](), range(seeds), batch=BATCH)


def bare_step(case: str, acceleration: Acceleration) -> Callable[[], torch.Tensor]:
    """A step on a fixed batch, which returns its loss: no data are made, nothing is clipped."""
    net = network(case)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)
    q, qdot, qddot = measurements(case)(0)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (acceleration(net, q, qdot) - qddot).square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def whole_step(case: str, optimizer: Callable, seeds: int = 1) -> timing.Task:
    """`companion.training.fit` as it is used: fresh data, clipping, schedule, checks."""
    net, measure = network(case, seeds), measurements(case, seeds)

    def loss(net, q, qdot, qddot):
        return (net.acceleration(q, qdot, check=False) - qddot).square().mean((1, 2))

    def run(n: int) -> float:
        options = {"steps": n, "lr": 1e-4, "optimizer": optimizer, "progress": False}
        return training.fit(net, loss, measure, **options).seconds

    return run


def measure(case: str, rounds: int, seconds: float, paper: PaperCode | None) -> dict:
    """Both tables of a case: bare steps, and whole ones."""
    bare = {name: timing.timed(bare_step(case, a)) for name, a in VARIANTS.items()}
    whole = {
        "fit, Adam": whole_step(case, torch.optim.Adam),
        "fit, SOAP": whole_step(case, training.SOAP),
        "fit, SOAP, five seeds at once": whole_step(case, training.SOAP, seeds=5),
    }
    if paper is not None:
        bare["the paper's TensorFlow, train_on_batch"] = paper.task(case, "bare")
        whole["the paper's TensorFlow, fit"] = paper.task(case, "fit")
    return {
        "bare step": timing.in_turns(bare, rounds, seconds, "explicit"),
        "whole step": timing.in_turns(whole, rounds, 3 * seconds, "fit, Adam"),
    }


def main(words: list[str] | None = None) -> Path:
    """Measures, and writes `results/step_time.json`."""
    words = sys.argv[1:] if words is None else words
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.step_time")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each task in each round")
    parser.add_argument("--threads", type=int, default=1)
    paper_code.add_options(parser)
    options = parser.parse_args(words)
    torch.set_num_threads(options.threads)
    cases = {}
    with paper_code.running(options) as paper:
        for case in CASES:
            print(f"{case} ...", flush=True)
            cases[case] = measure(case, options.rounds, options.seconds, paper)
    more = {} if paper is None else {"paper": paper.about}
    command = "python -m benchmarks.step_time " + " ".join(words)
    return timing.save("step_time", command.strip(), options.rounds, cases, **more)


if __name__ == "__main__":
    print(main())
