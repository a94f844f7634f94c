r"""Polarised light in a row of coupled fibres, learned as a vector field on $\mathbb C^2$.

Manakov's lattice: the light in fibre k has two complex amplitudes $\psi_k \in \mathbb C^2$,
one for each polarisation, and

$$i\,\dot\psi_k = -J\,(\psi_{k-1} + \psi_{k+1}) + \gamma\,|\psi_k|^2\,\psi_k ,$$

in units with $J = \gamma = 1$, with five fibres and dark ends. Nothing in it prefers a
polarisation: it is equivariant under U(2). By Noether's theorem the norm and the Stokes vector are
conserved.

All training light is nearly horizontal: a tenth of the amplitude is vertical. Four networks with
the same number of parameters learn $\dot\psi(\psi)$ from fresh states in every step, and are asked
about light of every polarisation:

- `unitary`: a complex unitary network, $\dot\psi = f(\psi)$;
- `hamiltonian`: one that makes an invariant energy $H = \mathrm{Re}\sum_k\psi_k^\dagger f_k$, and
  $i\,\dot\psi = \partial H/\partial\bar\psi$: equivariant, and Noether's theorem holds;
- `plain`: a dense network of the real and imaginary parts;
- `augmented`: the same, every training state turned by a random element of U(2).

No paper has these figures; the network is that of section 3 of Ma & Chan (2022).
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from companion import artifacts, groups, integrators, training
from companion._dense import Dense
from companion.artifacts import Figure
from companion.datasets import _mix
from companion.experiments._lagrangian import described, trained
from companion.unitary import UnitaryNetwork

NAME = "manakov"
SUMMARY = "Polarised light in coupled fibres: a complex unitary network against plain ones"
PAPER = "Ma & Chan (2022), section 3, on complex vectors; no figures there"

FIBRES, J, GAMMA = 5, 1.0, 1.0
LEAK = 0.1  # amplitude of the vertical polarisation in the training data
T, DT, KEEP = 5.0, 0.02, 0.1  # of a flight: its length, a step, between two states kept
TESTED, FLOWN = 2000, 50  # states that the errors are means over, and that fly
U2 = groups.U(2)
EXACT = ("unitary", "hamiltonian")  # equivariant by construction
VARIANTS = (*EXACT, "plain", "augmented")
Field = Complex[Tensor, "*batch 2 K"]


@dataclass(frozen=True)
class Settings:
    """What a budget fixes; the widths give all variants about 3,280 real parameters."""

    vectors: tuple[int, ...] = (24, 24)
    energy: tuple[int, ...] = (36, 36)  # vectors of the hamiltonian variant, which has no biases
    width: int = 40
    steps: int = 4000
    batch: int = 128
    lr: float = 2e-2
    warmup: int = 200


SETTINGS = {
    "ci": Settings(steps=400, warmup=30),
    "demo": Settings(steps=2000, warmup=100),
    "full": Settings(),
}


# The physics --------------------------------------------------------------------------------------


def law(psi: Field) -> Field:
    r"""$\dot\psi$ at $\psi$, `(..., 2, K)`."""
    neighbours = torch.zeros_like(psi)
    neighbours[..., 1:] += psi[..., :-1]
    neighbours[..., :-1] += psi[..., 1:]
    power = psi.abs().square().sum(-2, keepdim=True)
    return 1j * (J * neighbours - GAMMA * power * psi)


def norm(psi: Field) -> Float[Tensor, "*batch"]:
    r"""$\sum_k |\psi_k|^2$: the power, the charge of the common phase."""
    return psi.abs().square().sum((-2, -1))


def stokes(psi: Field) -> Float[Tensor, "*batch 3"]:
    r"""$\sum_k \psi_k^\dagger \sigma_a \psi_k$ with the Pauli matrices: the charges of SU(2)."""
    a, b = psi.unbind(-2)
    cross = (a.conj() * b).sum(-1)
    return torch.stack([2 * cross.real, 2 * cross.imag, (a.abs() ** 2 - b.abs() ** 2).sum(-1)], -1)


def states(
    n: int, generator: torch.Generator, dtype: torch.dtype = torch.complex64
) -> Complex[Tensor, "n 2 K"]:
    """Light in `FIBRES` fibres, normal amplitudes: horizontal of spread 1, vertical of `LEAK`."""
    psi = torch.randn(n, 2, FIBRES, generator=generator, dtype=dtype)
    return psi * torch.tensor([1.0, LEAK])[:, None].to(dtype)


def turns(
    n: int, generator: torch.Generator, dtype: torch.dtype = torch.complex64
) -> Complex[Tensor, "n 2 2"]:
    """Haar-random elements of U(2), one for each of n states."""
    return U2.sample(n, generator=generator, dtype=dtype)


# Networks and their training ----------------------------------------------------------------------


class Plain(torch.nn.Module):
    """Dense networks on the real and imaginary parts of all amplitudes, S members.

    `spread_in` and `spread_out` are the units of inputs and outputs, as in `UnitaryNetwork`.
    """

    spread_in: Tensor
    spread_out: Tensor

    def __init__(self, width: int, seeds: Sequence[int]) -> None:
        super().__init__()
        sources = [torch.Generator().manual_seed(seed) for seed in seeds]
        many = 4 * FIBRES
        self.dense = Dense(
            many, (width, width), many, "softplus", sources, 0.01, torch.float32, "cpu"
        )
        self.register_buffer("spread_in", torch.ones(()))
        self.register_buffer("spread_out", torch.ones(()))
        self.S = len(seeds)

    @property
    def size(self) -> int:
        """Parameters of one member."""
        return sum(p[0].numel() for p in self.parameters())

    def standardise(self, psi: Field, target: Field) -> None:
        """Sets the units: the root mean square of inputs and of targets."""
        for buffer, data in ((self.spread_in, psi), (self.spread_out, target)):
            buffer.copy_(data.abs().square().mean().sqrt())

    def forward(self, psi: Field) -> Complex[Tensor, "S B 2 K"]:
        r"""$\dot\psi$ at `(S, B, 2, K)`, or at `(B, 2, K)` for all members."""
        psi = psi.expand(self.S, *psi.shape[-3:])
        rows = torch.view_as_real(psi / self.spread_in).flatten(2)
        found = self.dense.value(rows).view(*psi.shape, 2)
        return self.spread_out * torch.view_as_complex(found)


class Hamiltonian(torch.nn.Module):
    r"""$i\,\dot\psi = \partial H/\partial\bar\psi$ with an invariant energy, of S members.

    $\psi_k^\dagger f_k(\psi)$ is invariant under U(2): both turn alike. The networks have no
    biases: a unit vector is not continuous at zero, the energy would have kinks there, and its
    gradient would jump.
    """

    def __init__(self, net: UnitaryNetwork) -> None:
        super().__init__()
        self.net, self.S = net, net.S
        for b in net.biases:
            b.requires_grad_(False).zero_()
        self.size = sum(p[0].numel() for p in net.weights)

    def standardise(self, psi: Field, target: Field) -> None:
        """Sets the units, as `UnitaryNetwork.standardise`."""
        self.net.standardise(psi, target)

    def energy(self, psi: Field) -> Float[Tensor, "S B"]:
        """The energy of `(S, B, 2, K)`, or of `(B, 2, K)` for all members."""
        return (psi.conj() * self.net(psi)).real.sum((-2, -1))

    def forward(self, psi: Field) -> Complex[Tensor, "S B 2 K"]:
        r"""$\dot\psi$ at `(S, B, 2, K)`, or at `(B, 2, K)` for all members."""
        learning = torch.is_grad_enabled()
        with torch.enable_grad():
            psi = psi.expand(self.S, *psi.shape[-3:]).detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.energy(psi).sum(), psi, create_graph=learning)
        return -0.5j * slope  # torch's gradient is twice the derivative in the conjugate


Network = UnitaryNetwork | Hamiltonian | Plain


def network(variant: str, settings: Settings, seeds: Sequence[int]) -> Network:
    """An untrained network, its units set. ValueError for a variant that is not there."""
    if variant not in VARIANTS:
        raise ValueError(f"variant = {variant!r}; expected one of {VARIANTS}")
    net: Network = Plain(settings.width, seeds)
    if variant in EXACT:
        hidden = settings.vectors if variant == "unitary" else settings.energy
        inner = UnitaryNetwork((FIBRES, *hidden, FIBRES), seeds=seeds, dtype=torch.complex64)
        net = inner if variant == "unitary" else Hamiltonian(inner)
    psi = states(4000, torch.Generator().manual_seed(2**20))
    net.standardise(psi, law(psi))
    return net


def loss(net: Network, psi: Field, target: Field) -> Float[Tensor, " S"]:
    """Mean square error over the mean square of the target, of each member."""
    return (net(psi) - target).abs().square().mean((1, 2, 3)) / SIZE


SIZE = law(states(4000, torch.Generator().manual_seed(2**20))).abs().square().mean().item()


def train_variant(
    variant: str,
    budget: str = "demo",
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    device: str = "auto",
    checkpoint: Path | None = None,
    progress: bool = True,
    **changes,
) -> tuple[Network, training.History]:
    """Trains a variant, all seeds at once; `changes` replace settings of the budget."""
    settings, where = replace(SETTINGS[budget], **changes), training.device(device)
    net = network(variant, settings, seeds).to(where)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        drawn = []
        for seed in seeds:
            generator = torch.Generator().manual_seed(_mix(seed, step))
            psi = states(settings.batch, generator)
            if variant == "augmented":
                psi = turns(settings.batch, generator) @ psi
            drawn.append(psi)
        psi = torch.stack(drawn).to(where)
        return psi, law(psi)

    history = training.fit(
        net,
        loss,
        batch,
        steps=settings.steps,
        lr=settings.lr,
        lr_end=settings.lr / 1000,
        warmup=settings.warmup,
        checkpoint=checkpoint,
        progress=progress,
    )
    return net, history


def train(
    budget: str,
    seeds: Sequence[int],
    device: str,
    folder: Path,
    command: str,
    progress: bool = True,
) -> None:
    """Trains every variant and writes the weights; resumes a run that was stopped."""
    settings = SETTINGS[budget]
    steps: dict[str, int] = dict.fromkeys(VARIANTS, settings.steps)
    stored, histories = trained(train_variant, steps, budget, seeds, device, folder, progress)
    where = training.device(device)
    about = described(NAME, budget, settings, seeds, where, command, histories)
    artifacts.save_weights(folder, stored, about)


def load(folder: Path | None = None) -> tuple[dict[str, Network], dict]:
    """The trained networks by variant, and what is known about them.

    `folder` is a run's folder; None means the artifact in the package. Raises ValueError if the
    weights are missing, damaged, or not of this experiment.
    """

    def untrained(about: dict) -> Iterator[tuple[str, Network]]:
        settings = artifacts.as_settings(Settings, about["settings"])
        for variant in VARIANTS:
            yield variant, network(variant, settings, about["provenance"]["seeds"])

    return artifacts.load_networks(NAME, folder, untrained)


# What a trained network does ----------------------------------------------------------------------


def asked(n: int = TESTED) -> tuple[Complex[Tensor, "n 2 K"], Complex[Tensor, "n 2 2"]]:
    """The test states, the same for all networks, and one element of U(2) for each: complex128."""
    generator = torch.Generator().manual_seed(2**21)
    return states(n, generator, torch.complex128), turns(n, generator, torch.complex128)


def polarised(n: int = FLOWN) -> Complex[Tensor, "n 2 K"]:
    """Light of one polarisation a state, any of them: the same in all fibres, complex128."""
    psi, g = asked(n)
    psi = psi * torch.tensor([1.0, 0.0])[:, None]
    return g @ psi


def double(net: Network) -> Network:
    """A copy in double precision."""
    return deepcopy(net).double()


@torch.no_grad()
def error(net: Network, psi: Field) -> Float[Tensor, " S"]:
    r"""Root mean square error of $\dot\psi$ at these states, over the root mean square."""
    true = law(psi)
    return (rms(double(net)(psi) - true) / rms(true)).float()


@torch.no_grad()
def defect(net: Network, psi: Field, g: Complex[Tensor, "B 2 2"]) -> Float[Tensor, " S"]:
    r"""Root mean square of $F(g\psi) - g\,F(\psi)$ over that of $F$, in double precision."""
    wide = double(net)
    straight = wide(psi)
    return rms(wide(g @ psi) - g @ straight) / rms(straight)


def rms(field: Tensor) -> Tensor:
    """Root mean square of the last three axes."""
    return field.abs().square().mean((-3, -2, -1)).sqrt()


@torch.no_grad()
def flight(
    net: Network | None, psi: Complex[Tensor, "B 2 K"], dt: float = DT
) -> Complex[Tensor, "time S B 2 K"]:
    """Every member's light from these states to `T`, a state every `KEEP`, by RK4 with steps `dt`;
    None is the true law. `KEEP` must be a multiple of `dt`.
    """
    wide: Callable[[Tensor], Tensor] = law if net is None else double(net)
    S = 1 if net is None else net.S
    shape = (S, *psi.shape)

    def field(y: Tensor) -> Tensor:
        return real(wide(torch.view_as_complex(y.view(*shape, 2))))

    def real(psi: Tensor) -> Tensor:
        return torch.view_as_real(psi).flatten(2)

    every = round(KEEP / dt)
    steps = every * round(T / KEEP)
    path = integrators.solve(field, real(psi.expand(shape)), dt, steps, every=every)
    return torch.view_as_complex(path.view(len(path), *shape, 2))


def angle(path: Complex[Tensor, "time S B 2 K"]) -> Float[Tensor, "time S B"]:
    """The angle between the Stokes vector and that at the start, in degrees: 180 is orthogonal
    polarisation."""
    s = stokes(path)
    s = s / s.norm(dim=-1, keepdim=True)
    # the half-angle formula: acos would lose half the digits near zero
    apart, along = (s - s[0]).norm(dim=-1), (s + s[0]).norm(dim=-1)
    return 2 * torch.atan2(apart, along).rad2deg()


def evaluate(
    folder: Path | None = None, progress: bool = False, keep_curves: bool = False
) -> tuple[list[Figure], dict]:
    """Recomputes every figure from the stored weights; returns them and the facts of the run.

    With `keep_curves` the curves that the book draws are written beside the weights.
    """
    networks, about = load(folder)
    figures, curves = [], {"t": KEEP * torch.arange(round(T / KEEP) + 1)}
    for variant, net in networks.items():
        if progress:
            print(f"{variant}: flights to T = {T:.0f}", flush=True)
        measured, seen = _measured(net)
        curves |= {f"{variant}.{name}": curve.float() for name, curve in seen.items()}
        for name, (meaning, unit, values) in measured.items():
            rounding = variant in EXACT and name in ("defect", "polarisation lost")
            figures.append(
                Figure(
                    f"{variant}: {name}",
                    meaning,
                    unit,
                    "lower",
                    None,
                    None,
                    tuple(values.tolist()),
                    10.0 if rounding else 1.2,  # rounding differs between machines
                )
            )
    if keep_curves:
        artifacts.save_curves(folder or artifacts.folder(NAME), curves)
    return figures, about


def _measured(net: Network) -> tuple[dict[str, tuple[str, str, Tensor]], dict[str, Tensor]]:
    """The figures of a network: meaning, unit, a value a seed; and the curves of its flights."""
    psi, g = asked(TESTED)
    turned, few = g @ psi, (g @ psi)[:FLOWN]
    path, true = flight(net, few), flight(None, few)
    apart = (path - true).abs().square().sum((-2, -1)).sqrt() / norm(true).sqrt()
    drift = (norm(path) / norm(path[:1]) - 1).abs()
    turn = (stokes(path) - stokes(path[:1])).norm(dim=-1) / norm(path[:1])
    lost = angle(flight(net, polarised(FLOWN)))
    along = f"turned light to t = {T:.0f}, median of {FLOWN} flights"
    measured = {
        "error": ("rms error of the law over its rms, light as in training", "1", error(net, psi)),
        "error, turned": ("the same light, each state turned by U(2)", "1", error(net, turned)),
        "defect": (
            "rms of F(g psi) - g F(psi) over that of F, double precision",
            "1",
            defect(net, psi, g),
        ),
        "state error": (f"relative error of psi at the end, {along}", "1", _middle(apart)[-1]),
        "polarisation lost": (
            "largest turn of the Stokes vector of fully polarised light, median of flights",
            "degree",
            _most(lost),
        ),
        "norm drift": (f"largest relative change of the norm, {along}", "1", _most(drift)),
        "Stokes drift": (f"largest change over the norm, {along}", "1", _most(turn)),
    }
    curves = {"apart": apart, "lost": lost, "norm": drift, "stokes": turn}
    return measured, {name: _middle(curve) for name, curve in curves.items()}


def _middle(values: Float[Tensor, "time S B"]) -> Float[Tensor, "time S"]:
    """The median over the flights; one that ran away counts as the largest."""
    return values.nan_to_num(nan=torch.inf).median(dim=-1).values


def _most(values: Float[Tensor, "time S B"]) -> Float[Tensor, " S"]:
    """The largest value along a flight, the median over flights."""
    return values.nan_to_num(nan=torch.inf).amax(0).median(dim=-1).values
