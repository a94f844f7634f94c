"""Training the unitary network of Ma & Chan (2022): hand-derived gradients, ensembles, the GPU.

    python -m benchmarks.argon_training

The network is the paper's for four argon atoms, 6-50-90-100-80-50-4, in float32 with batches of
256 configurations. Its rival is the paper's equations in plain torch, as one would write them down:
a matrix product for W, one for b, `torch.linalg.norm`, all derivatives by autograd. Milliseconds
are for one step of one member, on a CPU of processor time. All take turns.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import timing
from companion import training
from companion.configurations import Configurations
from companion.experiments._argon import loss
from companion.force_models import ForceModel, RelativeForces
from companion.systems.argon import Argon, relative
from companion.unitary import Radial

BATCH = 256
MEMBERS = (1, 3, 5)
ADAM = torch.optim.Adam


class AsWritten(ForceModel):
    r"""Eqs. (5), (8), (11) and (13) line by line: one member of a `RelativeForces`, its weights.

    $y = x W + e\,b$ with $e = x/|x|$, then $x' = y/(1 + |y|) + a\,y$; nothing is regularised.
    `norm` is how $|x|$ is computed.
    """

    def __init__(self, net: RelativeForces, norm: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        own, self.norm = net.network, norm
        self.seeds, self.last = [0], len(own.weights) - 1
        self.weights = torch.nn.ParameterList(W.detach().clone() for W in own.weights)
        self.biases = torch.nn.ParameterList(b.detach().clone() for b in own.biases)
        self.spreads = own.spread_in[0, 0].clone(), own.spread_out[0, 0].clone()

    def forces(self, r: Tensor) -> Tensor:
        """Forces `(1, B, N, 3)` at positions `(1, B, N, 3)`."""
        x = relative(r[0]) / self.spreads[0]
        for k, (W, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            y = x @ W[0] + x / self.norm(x) @ b[0]
            x = y if k == self.last else y / (1 + self.norm(y)) + y
        return self.spreads[1] * x.mT[None]


def data(S: int = 1, device: torch.device = timing.CPU, n: int = 10_000) -> Configurations:
    """Configurations and forces of S members."""
    return Configurations(Argon(4), range(S), n, BATCH, device=device)


def network(batches: Configurations, dtype: torch.dtype = torch.float32) -> RelativeForces:
    """The paper's network, untrained, its units set."""
    net = RelativeForces(4, seeds=len(batches.seeds), dtype=dtype, device=batches.r.device)
    net.standardise(batches.r.to(dtype), batches.F.to(dtype))
    return net


def norm(x: Tensor) -> Tensor:
    """|x| of every column by the function that is there for it."""
    return torch.linalg.norm(x, dim=-2, keepdim=True)


def root_of_squares(x: Tensor) -> Tensor:
    """The same from three simpler operations, which torch has faster on a CPU."""
    return x.square().sum(-2, keepdim=True).sqrt()


class Softsign(Radial):
    """Eq. (13) with a = 1, unknown to the loop that numba compiles for companion's own."""

    def gain(self, rho: Tensor) -> tuple[Tensor, Tensor]:
        """The factor of the vector, and its derivative."""
        s = 1 / (1 + rho)
        return s + 1, -s * s


def not_compiled(net: RelativeForces) -> RelativeForces:
    """The network with the derivative by hand, as torch operations."""
    net.network.activation = Softsign()
    return net


WAYS: dict[str, Callable[[RelativeForces], ForceModel]] = {
    "companion": lambda net: net,
    "by hand, not compiled": not_compiled,
    "by autograd, norms from squares": lambda net: AsWritten(net, root_of_squares),
    "by autograd, as written": lambda net: AsWritten(net, norm),
}


def clock_of(device: torch.device) -> Callable[[], float]:
    """Processor time on a CPU; on a GPU the time of day, when all is done."""
    if device.type == "cpu":
        return time.process_time

    def clock() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return clock


def forward(net: ForceModel, batch: tuple[Tensor, ...]) -> Callable[[], Tensor]:
    """The forces of a batch, without gradients."""

    @torch.no_grad()
    def step() -> Tensor:
        return net.forces(batch[0])

    return step


def gradient(net: ForceModel, batch: tuple[Tensor, ...]) -> Callable[[], Tensor]:
    """The gradient of the loss of a fixed batch; returns the loss."""

    def step() -> Tensor:
        for p in net.parameters():
            p.grad = None
        value = loss(net, *batch)
        value.sum().backward()
        return value.detach()

    return step


def whole_step(
    net: ForceModel, batches: Configurations, optimizer: Callable, graph: bool = True
) -> timing.Task:
    """`companion.training.fit` with fresh batches, divided by the members."""
    clock = clock_of(batches.r.device)

    def run(n: int) -> float:
        begun = clock()
        options = {"lr": 1e-3, "optimizer": optimizer, "progress": False, "graph": graph}
        training.fit(net, loss, batches, steps=n, **options)
        return (clock() - begun) / net.S

    return run


def measure(device: torch.device, rounds: int, seconds: float) -> dict:
    """The three tables; a GPU adds the rows without its graph."""
    one, clock = data(device=device), clock_of(device)
    batch, first = one(0), next(iter(WAYS))
    whole = {}
    for S in MEMBERS:
        many = one if S == 1 else data(S, device)
        title = "companion, SOAP" + f", {S} members at once" * (S > 1)
        whole[title] = whole_step(network(many), many, training.SOAP)
        if device.type == "cuda":
            whole[f"{title}, no graph"] = whole_step(network(many), many, training.SOAP, False)
    for way, of in list(WAYS.items())[1:]:
        whole[f"{way}, SOAP"] = whole_step(of(network(one)), one, training.SOAP)
    for way, of in WAYS.items():
        whole[f"{way}, Adam"] = whole_step(of(network(one)), one, ADAM)
    groups: dict[str, dict[str, timing.Task]] = {
        title: {way: timing.timed(make(of(network(one)), batch), clock) for way, of in WAYS.items()}
        for title, make in (("forces of a batch", forward), ("gradient of a batch", gradient))
    }
    groups["a step of one member"] = whole
    found = {}
    for group, tasks in groups.items():
        print(f"{group} ...", flush=True)
        reference = first if first in tasks else next(iter(tasks))
        found[group] = timing.in_turns(tasks, rounds, seconds, reference)
        for numbers in found[group].values():
            numbers["per second"] = float(f"{1000 * BATCH / numbers['ms']['median']:.3g}")
    return {"argon": found}


def check_same() -> None:
    """Raises RuntimeError if the equations as written are not our network, or its gradient."""
    batches = data(n=1000)
    ours, *others = (of(network(batches, torch.float64)) for of in WAYS.values())
    batch = tuple(x.double() for x in batches(0))
    for theirs in others:
        for what, step in (("forces", forward), ("loss", gradient)):
            a, b = (step(net, batch)() for net in (ours, theirs))
            _expect_close(what, a, b)
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            _expect_close("gradient", p.grad, q.grad)


def _expect_close(what: str, a: Tensor | None, b: Tensor | None) -> None:
    if a is None or b is None or not (a - b).abs().max() < 1e-8 * a.abs().max():
        raise RuntimeError(f"{what}: the equations as written are another network than ours")


def main(words: list[str] | None = None) -> Path:
    """Measures, and writes `results/argon_training.json`."""
    words = sys.argv[1:] if words is None else words
    asked = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.argon_training")
    asked.add_argument("--threads", type=int, default=1)
    asked.add_argument("--rounds", type=int, default=7)
    asked.add_argument("--seconds", type=float, default=0.5, help="of each task in each round")
    asked.add_argument("--device", default="auto")
    options = asked.parse_args(words)
    torch.set_num_threads(options.threads)
    check_same()
    device = training.device(options.device)
    cases = measure(device, options.rounds, options.seconds)
    if device.type != "cuda":
        print("no GPU: the rows of the CUDA graph were skipped")
    command = ("python -m benchmarks.argon_training " + " ".join(words)).strip()
    return timing.save("argon_training", command, options.rounds, cases, device)


if __name__ == "__main__":
    print(main())
