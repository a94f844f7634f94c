"""One acceleration and one training step of N bodies: the structure against a full Hessian.

    python -m benchmarks.many_body

`graph` is `GraphLagrangian.acceleration`; `graph, full Hessian` the same network by `torch.func`
and a solve of all 3N equations, as Müller (2023, section 4) fears it; `plain` and `invariant` are
dense Lagrangian networks (explicit pass, full solve), without symmetry and with all dot products.
Float32, one thread, a batch of 4 states, hidden 2 x 32; processor time. A variant stops where it
takes too long or too much memory. A training step is: acceleration, mean square error, gradient,
Adam. The exponents are the slopes between the two largest N of each variant: at smaller ones the
launches of kernels rule.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap

from benchmarks import timing
from companion import invariants
from companion._checkpoint import write_atomically
from companion.graph import GraphLagrangian
from companion.lagrangian import LagrangianNetwork
from companion.systems.many_body import ManyBody

README = Path(__file__).parent / "README.md"
SIZES = (2, 4, 8, 16, 32, 64, 128)
# What takes too long, or too much memory, beyond: the same for a training step.
LARGEST = {"graph": 128, "graph, full Hessian": 32, "plain": 128, "invariant": 16}
LARGEST_TO_TRAIN = LARGEST | {"graph, full Hessian": 16}
BATCH, HIDDEN = 4, (32, 32)
Acceleration = Callable[[torch.nn.Module, Tensor, Tensor], Tensor]


def network(name: str, N: int, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """The network of a variant for N unit masses."""
    if name.startswith("graph"):
        return GraphLagrangian(3, HIDDEN, mass=[1.0] * N, dtype=dtype)
    layer = (
        invariants.Unconstrained(N, 3)
        if name == "plain"
        else invariants.RotationsTranslations(N, 3, levi_civita=False)
    )
    return LagrangianNetwork(layer, HIDDEN, mass=[1.0] * 3 * N, output_scale=0.01, dtype=dtype)


def structured(net: torch.nn.Module, q: Tensor, qdot: Tensor) -> Tensor:
    """The network's own acceleration."""
    return net.acceleration(q, qdot, check=False)


def full_hessian(net: torch.nn.Module, q: Tensor, qdot: Tensor) -> Tensor:
    """Forward over reverse along all 3N velocities and the motion, then a solve of 3N equations."""
    d = q.shape[-1]

    def slope(z: Tensor) -> Tensor:
        return grad(lambda z: net.lagrangian(z[None, :d], z[None, d:]).sum())(z)

    def one(z: Tensor) -> tuple[Tensor, Tensor]:
        motion = torch.cat([z[d:], torch.zeros_like(z[d:])])
        unit = torch.eye(2 * d, dtype=z.dtype)[d:]
        changes = vmap(lambda v: jvp(slope, (z,), (v,))[1])(torch.cat([unit, motion[None]]))
        return changes[:d, d:], slope(z)[:d] - changes[d, d:]

    parts = [one(z) for z in torch.cat([q, qdot], dim=-1)]  # one by one: memory grows as N^3
    A, b = (torch.stack(part) for part in zip(*parts, strict=True))
    return torch.linalg.solve_ex(A, b)[0][None]


VARIANTS: dict[str, Acceleration] = {
    "graph": structured,
    "graph, full Hessian": full_hessian,
    "plain": structured,
    "invariant": structured,
}


def states(N: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """The batch of clusters that everybody accelerates."""
    return ManyBody([1.0] * N).sample(BATCH, torch.Generator().manual_seed(0), dtype)


def one_acceleration(name: str, N: int) -> Callable[[], Tensor]:
    """An acceleration without gradients, as in a rollout."""
    net, (q, qdot) = network(name, N), states(N)

    @torch.no_grad()
    def step() -> Tensor:
        return VARIANTS[name](net, q, qdot)

    return step


def one_training_step(name: str, N: int) -> Callable[[], Tensor]:
    """Acceleration, mean square error, gradient, Adam; returns the loss."""
    net, (q, qdot) = network(name, N), states(N)
    target = ManyBody([1.0] * N).acceleration(q, qdot)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = (VARIANTS[name](net, q, qdot) - target).square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def processor_time(step: Callable[[], object]) -> timing.Task:
    """A task from one step, in seconds of the processor: other people's work does not count."""

    def run(n: int) -> float:
        begun = time.process_time()
        for _ in range(n):
            step()
        return time.process_time() - begun

    return run


def exponent(ms: dict[int, float], last: int = 2) -> float:
    """The slope of log(ms) in log(N) over the `last` largest N, by least squares."""
    points = [(math.log(N), math.log(ms[N])) for N in sorted(ms)[-last:]]
    x, y = (torch.tensor(values) for values in zip(*points, strict=True))
    return (((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()).item()


def measure(rounds: int, seconds: float, largest: int) -> dict:
    """Milliseconds by task, variant and N, in turns for each N; and the fitted exponents."""
    tasks = {"acceleration": one_acceleration, "training step": one_training_step}
    found = {}
    for task, make in tasks.items():
        rows: dict[str, dict[int, float]] = {name: {} for name in VARIANTS}
        for N in (N for N in SIZES if largest >= N):
            names = [
                name
                for name in VARIANTS
                if LARGEST[name] >= N
                and not (task == "training step" and "full" in name and N > 16)
            ]
            print(f"{task}, N = {N} ...", flush=True)
            turns = {name: processor_time(make(name, N)) for name in names}
            for name, numbers in timing.in_turns(turns, rounds, seconds, "graph").items():
                rows[name][N] = numbers["ms"]["median"]
        found[task] = {
            name: {"ms": ms, "exponent": round(exponent(ms), 2)} for name, ms in rows.items()
        }
    return found


def table() -> str:
    """The measurements as Markdown."""
    stored = json.loads((timing.RESULTS / "many_body.json").read_text())
    lines = []
    for task, rows in stored["cases"].items():
        sizes = list(rows["graph"]["ms"])
        lines += [
            f"| {task}, ms | {' | '.join(f'N = {N}' for N in sizes)} | exponent |",
            f"|---|{'---:|' * (len(sizes) + 1)}",
        ]
        for name, row in rows.items():
            ms = [f"{row['ms'][N]:.3g}" if N in row["ms"] else "" for N in sizes]
            lines.append(f"| {name} | {' | '.join(ms)} | {row['exponent']:.1f} |")
        lines.append("")
    made = stored["provenance"]
    lines.append(
        f"{made['device']}, {made['threads']} thread, torch {made['torch']}, {made['rounds']} "
        f"rounds, load average {made['load_average']} at the end, {made['date']} {made['time']}; "
        f"`{made['command']}`"
    )
    return "\n".join(lines)


def with_table(text: str) -> str:
    """The README with the text between this module's markers replaced."""
    begin, end = "<!-- many_body -->\n", "<!-- end of many_body -->"
    head, rest = text.split(begin)
    return head + begin + table() + "\n" + end + rest.split(end)[1]


def main(words: list[str] | None = None) -> Path:
    """Measures, and writes `results/many_body.json` and the table in README.md."""
    words = sys.argv[1:] if words is None else words
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.many_body")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each task in each round")
    parser.add_argument("--largest", type=int, default=128, help="number of bodies")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="only rewrite the table in README.md")
    options = parser.parse_args(words)
    if not options.table:
        torch.set_num_threads(options.threads)
        cases = measure(options.rounds, options.seconds, options.largest)
        command = "python -m benchmarks.many_body " + " ".join(words)
        timing.save("many_body", command.strip(), options.rounds, cases)
    write_atomically(README, with_table(README.read_text()).encode())
    return README


if __name__ == "__main__":
    print(main())
