"""Forces per second in molecular dynamics, and how good they are after equal training.

    python -m benchmarks.argon_forces
    python -m benchmarks.argon_forces --train 60 --seeds 3

Four argon atoms (Ma & Chan 2022, section 4.3), one step of 1 fs after the other, in float64: the
true forces of `companion` and of ASE, the learned forces of the book, and an equivariant network of
e3nn, where that is installed. Every model is trained from scratch on 60,000 configurations for the
same processor time: ours with SOAP and `training.fit` as in the experiment, e3nn's with Adam.
The test error is that of 5,000 configurations that nobody has trained on.
"""

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import timing
from benchmarks.equivariant import E3nnForces
from companion import calculators, training
from companion.configurations import Configurations
from companion.descriptors import LinearForces
from companion.experiments import argon
from companion.experiments._argon import Model, loss
from companion.systems.argon import EPSILON, MASS, R_0, Argon

SYSTEM = Argon(4)
SAMPLES, MEMBERS = 10, 3
CONFIGURATIONS, TESTED = 60_000, 5_000
TRUE, ASE = "Argon(4).forces", "ASE's LennardJones"
CLOCK = time.process_time
LEAST_SQUARES = "linear in eq. 33, least squares"


def e3nn(energy: bool) -> Callable[[Sequence[int]], E3nnForces]:
    """e3nn's network, one member of it: an ensemble is no part of its design."""
    return lambda seeds: E3nnForces(argon.descriptors(), energy, seed=seeds[0])


MODELS = argon.MODELS | {
    LEAST_SQUARES: Model(lambda seeds: LinearForces(argon.descriptors(), seeds=seeds))
}
RIVALS = {  # the best of three batch sizes and four rates, README.md
    "e3nn, a vector on each atom": Model(e3nn(energy=False), batch=64, lr=0.3),
    "e3nn, gradient of an energy": Model(e3nn(energy=True), batch=64, lr=0.1),
}


def models() -> dict[str, Model]:
    """Ours, and e3nn's where it is installed."""
    found = importlib.util.find_spec("e3nn") is not None
    return MODELS | (RIVALS if found else {})


def network(model: Model, seeds: Sequence[int]) -> Any:
    """An untrained network, its units set."""
    net = model.make(seeds=seeds)
    data = Configurations(SYSTEM, [2**20], 2000)
    net.standardise(data.r, data.F)
    return net


# Speed -------------------------------------------------------------------------------------------


def start(n: int) -> tuple[Tensor, Tensor]:
    """The paper's positions and n draws of velocities at 10 K, `(n, 4, 3)`."""
    v = SYSTEM.velocities(n, 10.0, torch.Generator().manual_seed(0))
    return SYSTEM.start.expand(n, -1, -1), v


def by_rollout(forces: Callable[[Tensor], Tensor], n: int) -> timing.Task:
    """`Argon.rollout` with n trajectories at once, so many seconds for so many calls of forces."""
    (r, v), calls = start(n), 0

    def counted(r: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return forces(r)

    def run(steps: int) -> float:
        nonlocal calls
        begun, calls = CLOCK(), 0
        SYSTEM.rollout(counted, r, v, steps=steps, every=steps)
        return (CLOCK() - begun) * steps / calls  # the start asks for some, too

    return run


def atoms(calculator: Any) -> Any:
    """ASE's atoms at the start of a trajectory, with that calculator."""
    from ase import Atoms

    (r,), (v,) = start(1)
    made = Atoms("Ar4", positions=r.numpy(), masses=[MASS] * 4)
    made.set_velocities(v.numpy() / calculators.FEMTOSECOND)
    made.calc = calculator
    return made


def by_ase(calculator: Any) -> timing.Task:
    """Steps of ASE's own `VelocityVerlet`, one trajectory."""
    from ase.md.verlet import VelocityVerlet

    moving = VelocityVerlet(atoms(calculator), timestep=calculators.FEMTOSECOND)

    def run(steps: int) -> float:
        begun = CLOCK()
        moving.run(steps)
        return CLOCK() - begun

    return run


def lennard_jones() -> Any:
    """ASE's own calculator of the same potential."""
    from ase.calculators.lj import LennardJones

    return LennardJones(sigma=R_0, epsilon=EPSILON, rc=1e3, smooth=False)


def speed(rounds: int, seconds: float) -> dict:
    """Milliseconds a step by force and by driver, all in turns, beside ASE's with its own force."""
    one: dict[str, timing.Task] = {
        f"{ASE}|ase": by_ase(lennard_jones()),
        f"{TRUE}|ase": by_ase(calculators.calculator(SYSTEM)),
        f"{TRUE}|rollout": by_rollout(SYSTEM.forces, 1),
    }
    many = {TRUE: by_rollout(SYSTEM.forces, SAMPLES * MEMBERS)}
    for name, model in models().items():
        net = network(model, [0]).double().eval()
        one[f"{name}|ase"] = by_ase(calculators.calculator(net))
        one[f"{name}|rollout"] = by_rollout(net.forces, 1)
        if name in RIVALS:  # thirty configurations of one network
            many[name] = by_rollout(net.forces, SAMPLES * MEMBERS)
        else:  # ten configurations of each of three networks
            net = network(model, range(MEMBERS)).double().eval()
            many[name] = by_rollout(net.forces, SAMPLES)
    found: dict[str, dict] = {}
    for key, numbers in timing.in_turns(one, rounds, seconds, f"{ASE}|ase").items():
        name, driver = key.split("|")
        found.setdefault(name, {})[driver] = numbers
    for name, numbers in timing.in_turns(many, rounds, seconds, TRUE).items():
        found[name]["thirty"] = numbers
    return found


# Accuracy ----------------------------------------------------------------------------------------


def adam(net: E3nnForces, batches: Configurations, steps: int, lr: float) -> None:
    """The loop of `training.fit`, its schedule and its clipping, for a network without members."""
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    for step in range(steps):
        optimizer.zero_grad()
        loss(net, *batches(step)).sum().backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate(step, steps, lr, lr / 1000, steps // 20)
        optimizer.step()


def train(net: Any, model: Model, batches: Configurations, steps: int) -> float:
    """Trains for so many steps; returns the seconds of the processor."""
    begun = CLOCK()
    if isinstance(net, LinearForces):
        net.least_squares(batches.r[:, :2000], batches.F[:, :2000])
    elif isinstance(net, E3nnForces):
        adam(net, batches, steps, model.lr)
    else:
        options = {"lr": model.lr, "lr_end": model.lr / 1000, "warmup": steps // 20}
        training.fit(net, loss, batches, steps=steps, progress=False, **options)
    return CLOCK() - begun


@torch.no_grad()
def error(net: Any) -> float:
    """Root mean square error of a component of the force in eV/angstrom, in float64."""
    r = SYSTEM.sample(TESTED, torch.Generator().manual_seed(2**21))
    parts = [(net.forces(x) - SYSTEM.forces(x)).square().sum() for x in r.split(500)]
    return float((torch.stack(parts).sum() / r.numel()).sqrt())


def accuracy(seconds: float, seeds: int) -> dict:
    """Test errors of every model by seed, and how many steps fit into that time."""
    found = {}
    for name, model in models().items():
        rows = []
        for seed in range(seeds):
            batches = Configurations(SYSTEM, [seed], CONFIGURATIONS, model.batch, model.permute)
            rehearsal, steps = network(model, [seed]), 1
            if name != LEAST_SQUARES:
                train(rehearsal, model, batches, 5)  # what happens only once
                steps = max(20, round(seconds * 30 / train(rehearsal, model, batches, 30)))
            net = network(model, [seed])
            size, used = net.size, train(net, model, batches, steps)
            rows.append({"steps": steps, "seconds": round(used, 1)})
            rows[-1]["rmsd"] = float(f"{error(net.double().eval()):.3g}")
            print(f"{name}, seed {seed}: {rows[-1]}", flush=True)
        found[name] = {"parameters": size, "runs": rows}
    return found


def main(words: list[str] | None = None) -> Path:
    """Measures, and writes `results/argon_forces.json`."""
    words = sys.argv[1:] if words is None else words
    asked = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.argon_forces")
    asked.add_argument("--threads", type=int, default=1)
    asked.add_argument("--rounds", type=int, default=7)
    asked.add_argument("--seconds", type=float, default=0.2, help="of each task in each round")
    asked.add_argument("--train", type=float, default=15.0, help="seconds of training of each run")
    asked.add_argument("--seeds", type=int, default=1, help="runs of each model")
    options = asked.parse_args(words)
    torch.set_num_threads(options.threads)
    if len(models()) == len(MODELS):
        print("e3nn is not installed: its rows are left out")
    cases = {"accuracy": accuracy(options.train, options.seeds)}
    cases["speed"] = speed(options.rounds, options.seconds)
    command = ("python -m benchmarks.argon_forces " + " ".join(words)).strip()
    return timing.save("argon_forces", command, options.rounds, cases)


if __name__ == "__main__":
    print(main())
