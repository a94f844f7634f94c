"""RK4 rollouts of a Lagrangian network, 1 and 1000 trajectories: explicit against double backward.

    python -m benchmarks.rollout

A step of RK4 is four accelerations; the steps are those of `companion.integrators.solve`, in the
precision of the experiments: float64 for one trajectory, float32 for a thousand.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks import timing
from benchmarks.step_time import CASES, network
from benchmarks.variants import VARIANTS, Acceleration
from companion import integrators
from companion.lagrangian import LagrangianNetwork

COMPARED = ("explicit", "double-backward loop")
ROLLOUTS = {1: torch.float64, 1000: torch.float32}
DT = 0.01


def right_side(net: LagrangianNetwork, acceleration: Acceleration) -> Callable:
    """y' = f(y) for `integrators`."""

    def rhs(y: torch.Tensor) -> torch.Tensor:
        q, qdot = y.split(net.layer.d, dim=-1)
        return torch.cat([qdot, acceleration(net, q, qdot)], dim=-1)

    return rhs


def steps_of(case: str, trajectories: int, acceleration: Acceleration) -> timing.Task:
    """A task that integrates for so many steps, from the same states every time."""
    dtype = ROLLOUTS[trajectories]
    net = network(case, dtype=dtype)
    draw = torch.Generator().manual_seed(0)
    q, qdot = CASES[case][0]().sample(trajectories, draw, dtype)
    y = torch.cat([q, qdot], dim=-1)[None]
    rhs = right_side(net, acceleration)

    @torch.no_grad()
    def run(n: int) -> float:
        return timing.timed(partial(integrators.solve, rhs, y, DT, n, every=n))(1)

    return run


def main(words: list[str] | None = None) -> Path:
    """Measures, and writes `results/rollout.json`."""
    words = sys.argv[1:] if words is None else words
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.rollout")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each task in each round")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(words)
    torch.set_num_threads(options.threads)
    cases = {}
    for case in CASES:
        print(f"{case} ...", flush=True)
        cases[case] = {
            f"{n} trajector{'y' if n == 1 else 'ies'}, {str(dtype)[6:]}": timing.in_turns(
                {name: steps_of(case, n, VARIANTS[name]) for name in COMPARED},
                options.rounds,
                options.seconds,
                "explicit",
            )
            for n, dtype in ROLLOUTS.items()
        }
    command = "python -m benchmarks.rollout " + " ".join(words)
    return timing.save("rollout", command.strip(), options.rounds, cases)


if __name__ == "__main__":
    print(main())
