r"""A pendulum, filmed: the real spherical pendulum of table 1, made of pairs of its points.

The paper's test losses are those of one-sided differences; central ones leave a tenth of them.
"""

from functools import partial

import torch
from torch import Tensor

from companion.experiments import _real_figures
from companion.experiments._real import Model, Points, Settings, Study
from companion.experiments._real_figures import energy_left, forecast, modes

__all__ = ["STUDY", "Law", "energy_left", "evaluate", "forecast", "load", "modes", "train"]

NAME = "real_pendulum"
SUMMARY = "A pendulum and a camera: friction beside the Hamiltonian"
PAPER = "Syväri et al. (2021), appendix B.8, table 1; data of Schmidt and Lipson (2009)"

MODELS = {
    "file-field": Model("field", "file", pairs=True),
    "file-hnn": Model("none", "file", pairs=True),
    "file-scnn-1": Model("scnn", "file", pairs=True, n=1),
    "file-scnn-2": Model("scnn", "file", pairs=True, n=2),
    "file-damped": Model("constant", "file", pairs=True),
    "forward-field": Model("field", "forward", pairs=True),
    "forward-hnn": Model("none", "forward", pairs=True, paper=6.61e-3),
    "forward-scnn-2": Model("scnn", "forward", pairs=True, n=2, paper=6.84e-3),
    "forward-damped": Model("constant", "forward", pairs=True),
    "field": Model("field"),
    "hnn": Model("none"),
    "damped": Model("constant"),
    "damped-network": Model("network"),
}


class Law(_real_figures.Law):
    r"""$\dot q = a v$, $\dot v = -k \sin(q - c) - \gamma v$: a pendulum with linear friction.

    In the reading `smooth` a is 1; the file's velocities are too small, and a is above 1.
    """

    def __init__(self, points: Points) -> None:
        super().__init__()
        (q, v), (qdot, vdot) = points.z.mT, points.zdot.mT
        self.a = (qdot @ v) / (v @ v)
        columns = torch.stack([-q.sin(), q.cos(), -v], 1)
        by_sin, by_cos, self.gamma = torch.linalg.lstsq(columns, vdot[:, None]).solution[:, 0]
        self.k, c = torch.hypot(by_sin, by_cos), torch.atan2(by_cos, by_sin)
        self.rest, self.masses = torch.stack([c, torch.zeros_like(c)]), torch.ones(1, 1)

    def energy(self, z: Tensor) -> Tensor:
        q, v = (z - self.rest).unbind(-1)
        return self.a * v.square() / 2 + self.k * (1 - q.cos())

    def forward(self, z: Tensor) -> Tensor:
        q, v = (z.expand(1, *z.shape[-2:]) - self.rest).unbind(-1)
        return torch.stack([self.a * v, -self.k * q.sin() - self.gamma * v], dim=-1)


STUDY = Study(
    NAME,
    "pendulum",
    MODELS,
    {
        "ci": Settings(("hnn", "damped"), lengths=(300,)),
        "demo": Settings(("field", "hnn", "damped"), lengths=(300, 600)),
        "full": Settings(tuple(MODELS)),
    },
    length=1.0,
    time=1.0,
    window=1.34,
    degree=4,
    law=Law,
    relative=False,
    aim=6.61e-3,
    angle=True,
)
SETTINGS = STUDY.settings
train, load = STUDY.train, STUDY.load
evaluate = partial(_real_figures.evaluate, STUDY)
