r"""What is measured on the networks of the two real machines: losses, forecasts, energy, modes.

The test part of the data is used here and nowhere else.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from companion import artifacts, integrators
from companion.artifacts import Figure
from companion.experiments._real import Points, Study
from companion.measurements import Measurement

SUBSTEPS = 2  # of RK4 between two measurements


class Law(torch.nn.Module):
    """A textbook law with a handful of constants from least squares: the honest reference.

    A network of one member to everything that asks for a network. `rest` is its state of rest,
    `energy` its energy without the friction. All in natural units.
    """

    rest: Tensor
    masses: Tensor

    S = 1

    def energy(self, z: Tensor) -> Tensor:
        """The energy, zero at rest."""
        raise NotImplementedError

    def field(self) -> Callable[[Tensor], Tensor]:
        """The rate of change as a function of states, for `integrators.solve`."""
        return self.forward


@torch.no_grad()
def forecast(
    net: Any, start: Float[Tensor, " two_d"], t: Float[Tensor, " T"]
) -> Float[Tensor, "T S two_d"]:
    """Where every member goes from one state, in natural units, at the times t (the first is that
    of `start`): RK4, `SUBSTEPS` steps between two times. Networks in float64."""
    z = start.expand(net.S, 1, -1)
    f, path = net.field(), [z]
    for dt in t.diff().tolist():
        for _ in range(SUBSTEPS):
            z = integrators.rk4_step(f, z, dt / SUBSTEPS)
        path.append(z)
    return torch.stack(path).squeeze(2)


@torch.no_grad()
def modes(net: Any, z: Float[Tensor, "N two_d"]) -> tuple[Tensor, Tensor]:
    """Angular frequencies and decay rates, `(S, d)`, slowest first, of the linear field that comes
    closest to the members' fields at the states z. Natural units, float64.

    At the states of the data, that is: a network's derivative at rest is a guess.
    """
    columns = torch.cat([z, torch.ones_like(z[:, :1])], 1)
    rates = net.field()(z.expand(net.S, *z.shape))
    J = torch.linalg.lstsq(columns.expand(net.S, -1, -1), rates).solution[:, :-1].mT
    values = torch.linalg.eigvals(J)
    order = values.imag.argsort(dim=-1)[:, -(z.shape[-1] // 2) :]  # one of every conjugate pair
    values = values.gather(1, order)
    return values.imag, -values.real


def energy_left(law: Any, path: Float[Tensor, "T S two_d"]) -> Float[Tensor, "T S"]:
    """The energy along trajectories, as a part of that at their start: the energy of the law."""
    E = law.energy(path)
    return E / E[:1]


def evaluate(
    study: Study, folder: Path | None = None, progress: bool = False, keep_curves: bool = False
) -> tuple[list[Figure], dict]:
    """Recomputes every figure from the stored weights and the measurements; returns them and the
    facts of the run. With `keep_curves` the networks' trajectories are written beside the weights.

    Raises ValueError where the measurements are not.
    """
    networks, about = study.load(folder)
    data = study.measured()
    past, future = data.split()
    everything, points = study.points(data, "smooth"), study.points(future, "smooth")
    learned = study.points(past, "smooth")
    law = study.law(learned)
    left = energy_left(law, everything.z[:, None])[-1]
    what = "energy at the end over that at the start, the whole trajectory"
    rows = [Figure("measured: energy left", what, "1", "lower", None, None, per_seed(left))]
    for reading in ("file", "forward", "smooth"):
        fitted = study.law(study.points(past, reading))
        rows += _losses(study, "law", reading, fitted, future)
    curves = {"t": everything.t[::2] * study.time}
    for name, net in tqdm({"law": law, **networks}.items(), desc="models", disable=not progress):
        net.double()
        if name != "law":
            rows += _losses(study, name, study.models[name].reading, net, future)
        if name == "law" or study.models[name].reading == "smooth":
            late = forecast(net, points.z[0], points.t)
            whole = forecast(net, everything.z[0], everything.t)
            rows += _flights(name, law, late, whole, points)
            curves |= {f"{name}.late": late, f"{name}.whole": whole[::2]}
        if f"{name}.late" in curves and getattr(net, "damped", True) and hasattr(net, "masses"):
            rows += _constants(study, name, net, learned.z)
    if keep_curves:
        curves = {k: x.float() for k, x in curves.items()}
        artifacts.save_curves(folder or artifacts.folder(study.name), curves)
    return rows, about


def _losses(study: Study, name: str, reading: str, net: Any, future: Measurement) -> list[Figure]:
    """The test loss in the paper's measure, and relative to the variances where that is another."""
    model = study.models.get(name)
    paper = model.paper if model else None
    aim = study.aim if paper else None
    how = {
        "file": "file's velocities, central differences",
        "forward": "file's velocities, one-sided differences",
        "smooth": "local polynomials through positions",
    }
    where = f"rates of the test part, {how[reading]}"
    label = name if model else f"{name}, {reading}"
    relative, plain = study.test_losses(name, net, future, reading)
    of_paper = plain if not study.relative else relative
    unit = "1" if study.relative else "file's units"
    rows = [
        Figure(
            f"{label}: test loss",
            f"mean square error of the {where}"
            + (", over their variance" if study.relative else ""),
            unit,
            "lower",
            paper,
            aim,
            per_seed(of_paper),
        )
    ]
    if not study.relative:
        meaning = f"mean square error of the {where}, over their variance"
        rows.append(
            Figure(f"{label}: relative loss", meaning, "1", "lower", None, None, per_seed(relative))
        )
    if model:
        size = (float(net.size),)
        meaning = "trained parameters of one network"
        rows.append(Figure(f"{name}: parameters", meaning, "count", "lower", None, None, size, 1.0))
    return rows


def _flights(name: str, law: Any, late: Tensor, whole: Tensor, points: Points) -> list[Figure]:
    """How far a forecast of the test part is off, and what energy a whole rollout has left."""
    d = late.shape[-1] // 2
    truth = points.z[:, None, :d]
    error = (late[..., :d] - truth).square().mean((0, 2)) / truth.var(0, correction=0).mean()
    missed = "rms error of the positions forecast from the first test state to the end"
    left = "energy at the end of a rollout over the whole trajectory, over that at its start"
    return [
        Figure(
            f"{name}: forecast error",
            f"{missed}, over their spread",
            "1",
            "lower",
            None,
            None,
            per_seed(error.sqrt()),
            1.2,
        ),
        Figure(
            f"{name}: energy left",
            left,
            "1",
            "lower",
            None,
            None,
            per_seed(energy_left(law, whole)[-1]),
            1.2,
        ),
    ]


def _constants(study: Study, name: str, net: Any, z: Tensor) -> list[Figure]:
    """What a damped model says about the machine: frequencies, decay rates, a ratio of masses."""
    frequency, decay = (x / study.time for x in modes(net, z))
    rows = []
    for k in range(frequency.shape[1]):
        mode = f" {k + 1}" if frequency.shape[1] > 1 else ""
        for what, values in (("frequency", frequency), ("decay rate", decay)):
            meaning = f"{what} of the linear field closest to the model's at the training states"
            rows.append(
                (f"{what}{mode}", meaning, "rad/s" if what == "frequency" else "1/s", values[:, k])
            )
    if net.masses.shape[1] > 1:
        rows.append(("mass ratio", "m_2 / m_1", "1", net.masses.detach()[:, 1]))
    return [
        Figure(f"{name}: {what}", meaning, unit, "lower", None, None, per_seed(values), 1.2)
        for what, meaning, unit, values in rows
    ]


def per_seed(x: Tensor) -> tuple[float, ...]:
    """A value a member, inf for one that ran away."""
    return tuple(x.nan_to_num(nan=torch.inf, posinf=torch.inf).tolist())
