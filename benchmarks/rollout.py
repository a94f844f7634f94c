"""RK4 rollouts of a Lagrangian network, 1 and 1000 trajectories, in three ways.

    python -m benchmarks.rollout

"compiled" is `LagrangianNetwork.rollout`; the other two are `companion.integrators.solve` with an
acceleration from `benchmarks.variants`. A step of RK4 is four accelerations. The precision is that
of the experiments: float64 for one trajectory, float32 for a thousand. Milliseconds are processor
time, which does not grow when others use the machine; with several threads it is their sum.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks import timing
from benchmarks.step_time import CASES, network
from benchmarks.variants import VARIANTS, Acceleration
from companion import integrators
from companion.lagrangian import LagrangianNetwork

COMPARED = ("compiled", "explicit", "double-backward loop")
ROLLOUTS = {1: torch.float64, 1000: torch.float32}
DT = 0.01
WHOLE = 12_800  # steps of a rollout of the Kepler experiment, to T = 128


def right_side(net: LagrangianNetwork, acceleration: Acceleration) -> Callable:
    """y' = f(y) for `integrators`."""

    def rhs(y: torch.Tensor) -> torch.Tensor:
        q, qdot = y.split(net.layer.d, dim=-1)
        return torch.cat([qdot, acceleration(net, q, qdot)], dim=-1)

    return rhs


def roller(net: LagrangianNetwork, name: str) -> Callable:
    """The function of (y, dt, steps, every) that integrates in the way of this name."""
    if name != "compiled":
        return partial(integrators.solve, right_side(net, VARIANTS[name]))
    if not net.compiled:
        raise ModuleNotFoundError("numba is not installed: pip install numba")
    return lambda y, *args, **options: net.rollout(*y.split(net.layer.d, dim=-1), *args, **options)


def steps_of(case: str, trajectories: int, name: str) -> timing.Task:
    """A task that integrates for so many steps, from the same states every time."""
    dtype = ROLLOUTS[trajectories]
    net = network(case, dtype=dtype)
    draw = torch.Generator().manual_seed(0)
    q, qdot = CASES[case][0]().sample(trajectories, draw, dtype)
    y = torch.cat([q, qdot], dim=-1)[None]
    roll = roller(net, name)

    @torch.no_grad()
    def run(n: int) -> float:
        return timing.timed(partial(roll, y, DT, n, every=n), time.process_time)(1)

    return run


def whole_rollouts(name: str) -> timing.Task:
    """A task that makes so many whole rollouts of one planet."""
    run = steps_of("kepler", 1, name)
    return lambda n: sum(run(WHOLE) for _ in range(n))


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
                {name: steps_of(case, n, name) for name in COMPARED},
                options.rounds,
                options.seconds,
                "explicit",
            )
            for n, dtype in ROLLOUTS.items()
        }
    print("whole rollouts ...", flush=True)
    cases["kepler"][f"1 trajectory, float64, all {WHOLE:,} steps"] = timing.in_turns(
        {name: whole_rollouts(name) for name in COMPARED[:2]}, 3, None, "explicit"
    )
    command = "python -m benchmarks.rollout " + " ".join(words)
    return timing.save("rollout", command.strip(), options.rounds, cases)


if __name__ == "__main__":
    print(main())
