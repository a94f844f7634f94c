"""A training step of Hamiltonian and symmetry control networks on two bodies.

    python -m benchmarks.canonical --paper-code DIR

DIR is a clone of github.com/greydanus/hamiltonian-nn, the code of Greydanus et al. (2019) that the
symmetry control networks of Syväri et al. (2021), which have no public code, start from. Network,
batch and optimiser of a group are the same in all of its rows: 2 x 200 tanh and 200 states as in
that code. The naive symmetry control step differentiates eqs. (6) to (8) as they are written: the
Jacobian row by row, the Hamiltonian through the transformation, and all of it again for the
weights.
"""

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch
from torch import Tensor

from benchmarks import timing
from benchmarks.paper import digest
from companion import datasets, training
from companion.canonical import Losses, SymmetryControlNetwork, Transformation
from companion.experiments import two_body
from companion.hamiltonian import HamiltonianNetwork
from companion.phase_space import Coordinates, symplectic_gradient
from companion.symplectic import LinearPoint

HIDDEN, BATCH, N = (200, 200), 200, 4
MEMBERS = (1, 5, 20)
SYSTEM = two_body.SYSTEM
CLOCK = time.process_time
ADAM = torch.optim.Adam
Net = HamiltonianNetwork | SymmetryControlNetwork
Loss = Callable[[torch.nn.Module, Tensor, Tensor], Tensor]


def hnn(S: int = 1, dtype: torch.dtype = torch.float32) -> HamiltonianNetwork:
    """A Hamiltonian network of their size."""
    return HamiltonianNetwork(Coordinates(4), 4, HIDDEN, "tanh", seeds=S, dtype=dtype)


def scnn(S: int = 1, exact: bool = False, dtype: torch.dtype = torch.float32) -> Net:
    """A symmetry control network whose two networks are of that size; or K on an exact map."""
    T = LinearPoint(4, S, dtype=dtype) if exact else Transformation(4, HIDDEN, seeds=S, dtype=dtype)
    return SymmetryControlNetwork(T, N, hidden=HIDDEN)


def rates_loss(net: torch.nn.Module, z: Tensor, zdot: Tensor) -> Tensor:
    """Eq. (6)."""
    return (net(z) - zdot).square().sum(-1).mean(-1)


def rates_loss_twice(net: torch.nn.Module, z: Tensor, zdot: Tensor) -> Tensor:
    """Eq. (6) by differentiating the energy."""
    z = z.detach().requires_grad_()
    (slope,) = torch.autograd.grad(net.energy(z).sum(), z, create_graph=True)
    return (symplectic_gradient(slope) - zdot).square().sum(-1).mean(-1)


def control_loss(net: torch.nn.Module, z: Tensor, zdot: Tensor) -> Tensor:
    """Eq. (9) with all weights 1."""
    return sum(net.losses(z, zdot))


def control_loss_twice(net: torch.nn.Module, z: Tensor, zdot: Tensor) -> Tensor:
    """Eq. (9) as it is written, every derivative by autograd."""
    return sum(naive_losses(net, z, zdot))


def naive_losses(net: SymmetryControlNetwork, z: Tensor, zdot: Tensor) -> Losses:
    """Eqs. (6) to (8) with every derivative by autograd, all brackets in a double loop."""
    d, n = net.d, net.n
    z = z.detach().requires_grad_()
    Z = net.transformation.value(z)

    def gradient(f: Tensor, x: Tensor) -> Tensor:
        return torch.autograd.grad(f.sum(), x, create_graph=True)[0]

    J = [gradient(Z[..., a], z) for a in range(2 * d)]
    K = net.K.value(Z[..., n:])
    seen = gradient(K, Z)
    rate = symplectic_gradient(gradient(K, z))
    first = (rate - zdot).square().sum(-1)

    def bracket(a: Tensor, b: Tensor) -> Tensor:
        return (a[..., :d] * b[..., d:] - a[..., d:] * b[..., :d]).sum(-1)

    second = torch.zeros_like(first)
    for i in range(n):
        for j in range(n):
            second = second + (bracket(J[i], J[d + j]) - float(i == j)).square()
            if j > i:
                second = second + bracket(J[i], J[j]).square()
                second = second + bracket(J[d + i], J[d + j]).square()
    Zdot = torch.stack([(row * zdot).sum(-1) for row in J], -1)
    third = (Zdot - symplectic_gradient(seen)).square().sum(-1)
    return Losses(first.mean(-1), second.mean(-1), third.mean(-1))


def data(S: int = 1) -> datasets.Rates:
    """States and rates of two bodies."""
    return datasets.Rates(SYSTEM, range(S), n=40, points=50, T=20.0, batch=BATCH)


def bare_step(net: torch.nn.Module, loss: Loss) -> Callable[[], Tensor]:
    """A step of Adam on one batch; returns the loss before it."""
    z, zdot = data(net.S)(0)
    optimizer = ADAM(net.parameters(), lr=1e-4)

    def step() -> Tensor:
        optimizer.zero_grad()
        values = loss(net, z, zdot)
        values.sum().backward()
        optimizer.step()
        return values.detach()

    return step


def whole_step(net: torch.nn.Module, loss: Loss, optimizer: Callable = ADAM) -> timing.Task:
    """`companion.training.fit`, the seconds divided by the members."""
    batches = data(net.S)

    def run(n: int) -> float:
        begun = CLOCK()
        training.fit(net, loss, batches, steps=n, lr=1e-4, optimizer=optimizer, progress=False)
        return (CLOCK() - begun) / net.S

    return run


class TheirCode:
    """The clone of Greydanus's code. Raises ValueError for a folder that is none."""

    def __init__(self, folder: Path) -> None:
        address = "https://github.com/greydanus/hamiltonian-nn"
        self.about = {
            "sha256 of hamiltonian-nn": digest("--paper-code", folder, "", "hnn.py", address)
        }
        for unused in ("imageio", "scipy.misc"):  # imported for pictures that nobody draws here
            sys.modules.setdefault(unused, ModuleType(unused))
        sys.path[:0] = [str(folder), str(folder / "experiment-2body")]
        import train  # pyright: ignore[reportMissingImports]

        self.train = train
        z, zdot = (x[0] for x in data()(0))
        self._z, self._zdot = z.clone().requires_grad_(), zdot
        many = data()
        arrays = {"coords": many.data[0].flatten(0, 1), "dcoords": many.rates[0].flatten(0, 1)}
        self._data = {f"{part}{k}": x.numpy() for k, x in arrays.items() for part in ("", "test_")}

    def bare_step(self) -> Callable[[], Tensor]:
        """Their network, one batch, Adam."""
        mlp = self.train.MLP(8, HIDDEN[0], 2, "tanh")
        model = self.train.HNN(8, differentiable_model=mlp, field_type="solenoidal")
        optimizer = ADAM(model.parameters(), lr=1e-4)

        def step() -> Tensor:
            loss = self.train.L2_loss(self._zdot, model.time_derivative(self._z))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss.detach()

        return step

    def loop(self) -> timing.Task:
        """Their training loop, without what it does once at the end."""
        self.train.get_dataset = lambda *_, **__: self._data
        options = {
            "seed": 0, "verbose": False, "baseline": False, "input_dim": 8, "hidden_dim": HIDDEN[0],
            "nonlinearity": "tanh", "field_type": "solenoidal", "learn_rate": 1e-4, "name": "2body",
            "save_dir": ".", "batch_size": BATCH, "input_noise": 0.0, "print_every": 200,
        }  # fmt: skip

        def seconds(steps: int) -> float:
            begun = CLOCK()
            with redirect_stdout(None):
                self.train.train(SimpleNamespace(total_steps=steps - 1, **options))
            return CLOCK() - begun

        return lambda n: seconds(n) - seconds(0)


def measure(code: TheirCode | None, rounds: int, seconds: float) -> dict:
    """All groups of the table."""
    bare = {
        "the gradient in closed form": timing.timed(bare_step(hnn(), rates_loss), CLOCK),
        "the same network, by autograd": timing.timed(bare_step(hnn(), rates_loss_twice), CLOCK),
    }
    whole = {
        "companion's fit, Adam": whole_step(hnn(), rates_loss),
        "companion's fit, SOAP": whole_step(hnn(), rates_loss, training.SOAP),
    }
    if code is not None:
        bare["the code of Greydanus et al."] = timing.timed(code.bare_step(), CLOCK)
        whole["the code of Greydanus et al."] = code.loop()
    control = {
        "in closed form": timing.timed(bare_step(scnn(), control_loss), CLOCK),
        "as written, by autograd": timing.timed(bare_step(scnn(), control_loss_twice), CLOCK),
        "an exact map, eq. (6) alone": timing.timed(bare_step(scnn(exact=True), rates_loss), CLOCK),
        "a Hamiltonian network": timing.timed(bare_step(hnn(), rates_loss), CLOCK),
    }
    members = {}
    for S in MEMBERS:
        word = f"{S} member{'s' * (S > 1)} at once"
        members[f"HNN, {word}"] = whole_step(hnn(S), rates_loss)
        members[f"SCNN, {word}"] = whole_step(scnn(S), control_loss)
    groups = {
        "bare step of an HNN": (bare, next(iter(bare))),
        "whole step of an HNN": (whole, next(iter(whole))),
        "bare step of an SCNN, four cyclic coordinates": (control, next(iter(control))),
        "a step of one member, Adam": (members, next(iter(members))),
    }
    found = {}
    for group, (tasks, reference) in groups.items():
        print(f"{group} ...", flush=True)
        found[group] = timing.in_turns(tasks, rounds, seconds, reference)
    return {"two_body": found}


def check_same() -> None:
    """Raises RuntimeError if the losses in closed form are not those written out."""
    z, zdot = (x.double() for x in data()(0))
    for net, ours, theirs in (
        (hnn(dtype=torch.float64), rates_loss, rates_loss_twice),
        (scnn(dtype=torch.float64), control_loss, control_loss_twice),
    ):
        a, b = ours(net, z, zdot), theirs(net, z, zdot)
        if not torch.allclose(a, b, rtol=1e-9, atol=0):
            raise RuntimeError(
                f"{type(net).__name__}: the loss is {a} in closed form, {b} written out"
            )


def main(words: list[str] | None = None) -> Path:
    """Measures, and writes `results/canonical.json`."""
    words = sys.argv[1:] if words is None else words
    asked = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.canonical")
    asked.add_argument("--paper-code", type=Path, help="a clone of greydanus/hamiltonian-nn")
    asked.add_argument("--threads", type=int, default=1)
    asked.add_argument("--rounds", type=int, default=7)
    asked.add_argument("--seconds", type=float, default=1.0, help="of each task in each round")
    options = asked.parse_args(words)
    torch.set_num_threads(options.threads)
    check_same()
    code = None if options.paper_code is None else TheirCode(options.paper_code)
    cases = measure(code, options.rounds, options.seconds)
    more = {} if code is None else {"paper": code.about}
    command = ("python -m benchmarks.canonical " + " ".join(words)).strip()
    return timing.save("canonical", command, options.rounds, cases, **more)


if __name__ == "__main__":
    print(main())
