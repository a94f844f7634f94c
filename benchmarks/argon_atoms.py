"""What the forces on N argon atoms cost: all pairs, neighbour lists, learned energies, ASE.

    python -m benchmarks.argon_atoms

The atoms are a compact piece of the crystal, `Argon(N).start`, a little displaced; the cutoff is
8.5 angstrom. With a list *kept* the atoms stand all but still, as in most steps of molecular
dynamics; with one made *anew* they all move by an angstrom from one call to the next. ASE's
`LennardJones` has the same smooth cutoff and its own list. One configuration at a time, in float64,
processor time. The exponent is the slope of log(ms) in log(N) over the last three sizes of a row.
"""

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import timing
from benchmarks.equivariant import E3nnForces
from benchmarks.many_body import exponent
from companion.descriptors import Descriptors, EnergyForces
from companion.neighbours import NeighbourList, neighbours
from companion.systems.argon import EPSILON, R_0, Argon

SIZES = (4, 16, 64, 250, 500, 1000, 2000)
CUTOFF = 8.5  # 2.5 r_0
KEPT, ANEW = 1e-7, 1.0  # angstrom that all atoms move between two calls
E3NN = "e3nn, a vector on each atom, list kept"
LARGEST = {"EnergyForces, all pairs": 250, E3NN: 500}  # more takes too long, or too much memory
REFERENCE = "Argon, list kept"
Evaluation = Callable[[Tensor], Tensor]  # positions (N, 3) to forces (N, 3)


def argon(N: int, cutoff: float | None) -> Evaluation:
    """Forces of the closed form."""
    return Argon(N, cutoff=cutoff).forces


def ase(N: int) -> Evaluation:
    """Forces of ASE's own calculator, with the same cutoff."""
    from ase import Atoms
    from ase.calculators.lj import LennardJones

    atoms = Atoms(f"Ar{N}", positions=cluster(N).numpy())
    atoms.calc = LennardJones(sigma=R_0, epsilon=EPSILON, rc=CUTOFF, smooth=True)

    def forces(r: Tensor) -> Tensor:
        atoms.set_positions(r.numpy())
        return torch.from_numpy(atoms.get_forces())

    return forces


def learned(net: Any, listed: bool) -> Evaluation:
    """Forces of an untrained network, which costs what a trained one does."""
    near = NeighbourList(CUTOFF) if listed else None
    net = net.double().eval()

    @torch.no_grad()
    def forces(r: Tensor) -> Tensor:
        pairs = None if near is None else near(r)
        return net.forces(r[None], pairs)[0, 0]

    return forces


def functions() -> Descriptors:
    """32 functions of the distance that end at the cutoff."""
    return Descriptors(32, CUTOFF)


ROWS: dict[str, tuple[Callable[[int], Evaluation], float]] = {
    "Argon, all pairs": (lambda N: argon(N, None), KEPT),
    "Argon, list kept": (lambda N: argon(N, CUTOFF), KEPT),
    "Argon, list anew": (lambda N: argon(N, CUTOFF), ANEW),
    "EnergyForces, all pairs": (lambda N: learned(EnergyForces(functions()), False), KEPT),
    "EnergyForces, list kept": (lambda N: learned(EnergyForces(functions()), True), KEPT),
    "ASE's LennardJones, list kept": (ase, KEPT),
    "ASE's LennardJones, list anew": (ase, ANEW),
    E3NN: (lambda N: learned(E3nnForces(functions()), True), KEPT),
}


def rows() -> dict[str, tuple[Callable[[int], Evaluation], float]]:
    """Those that can be measured here: e3nn may not be installed."""
    missing = importlib.util.find_spec("e3nn") is None
    return {name: row for name, row in ROWS.items() if not (missing and name == E3NN)}


def cluster(N: int) -> Tensor:
    """The positions `(N, 3)`: the crystal, every coordinate moved by about 0.05 angstrom."""
    r = Argon(N).start.double()
    return r + 0.05 * torch.randn(r.shape, generator=torch.Generator().manual_seed(0)).double()


def task(evaluate: Evaluation, r: Tensor, moved: float) -> timing.Task:
    """Calls with the cluster to and fro: never where it was one call ago."""
    places, count = (r, r + moved), 0

    def run(n: int) -> float:
        nonlocal count
        begun = time.process_time()
        for _ in range(n):
            count += 1
            evaluate(places[count % 2])
        return time.process_time() - begun

    return run


def measure(rounds: int, seconds: float, largest: int) -> dict:
    """Milliseconds by row and N, the pairs within the cutoff, the exponents."""
    found: dict[str, dict] = {}
    pairs = {}
    for N in (N for N in SIZES if largest >= N):
        print(f"N = {N} ...", flush=True)
        r = cluster(N)
        pairs[N] = len(neighbours(r, CUTOFF))
        tasks = {
            name: task(make(N), r, moved)
            for name, (make, moved) in rows().items()
            if LARGEST.get(name, N) >= N
        }
        rehearsal = (1, 1) if N > 100 else (2, 3)
        turns = timing.in_turns(tasks, rounds, seconds, REFERENCE, rehearsal)
        for name, numbers in turns.items():
            row = found.setdefault(name, {"ms": {}, "ratio": {}})
            row["ms"][N], row["ratio"][N] = numbers["ms"]["median"], numbers["ratio"]
    for row in found.values():
        row["exponent"] = round(exponent(row["ms"], 3), 2) if len(row["ms"]) > 2 else None
    return {"pairs": pairs, "rows": found}


def main(words: list[str] | None = None) -> Path:
    """Measures, and writes `results/argon_atoms.json`."""
    words = sys.argv[1:] if words is None else words
    asked = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.argon_atoms")
    asked.add_argument("--threads", type=int, default=1)
    asked.add_argument("--rounds", type=int, default=5)
    asked.add_argument("--seconds", type=float, default=0.1, help="of each task in each round")
    asked.add_argument("--largest", type=int, default=2000, help="number of atoms")
    options = asked.parse_args(words)
    torch.set_num_threads(options.threads)
    cases = measure(options.rounds, options.seconds, options.largest)
    command = ("python -m benchmarks.argon_atoms " + " ".join(words)).strip()
    return timing.save("argon_atoms", command, options.rounds, cases)


if __name__ == "__main__":
    print(main())
