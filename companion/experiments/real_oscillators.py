r"""Two masses and three springs on a track, filmed: the real harmonic oscillator of table 1.

Beside the models of the paper one has masses: $p_i = m_i\,\dot q_i$, and the file has velocities.
"""

from functools import partial

import torch
from torch import Tensor

from companion.experiments import _real_figures
from companion.experiments._real import Model, Points, Settings, Study
from companion.experiments._real_figures import energy_left, forecast, modes

__all__ = ["STUDY", "Law", "energy_left", "evaluate", "forecast", "load", "modes", "train"]

NAME = "real_oscillators"
SUMMARY = "Two masses, three springs and a camera: units, noise and friction"
PAPER = "Syväri et al. (2021), appendices A.3 and B.7, table 1; data of Schmidt and Lipson (2009)"

MODELS = {
    "file-field": Model("field", "file"),
    "file-hnn": Model("none", "file", paper=6.10e-2),
    "file-scnn-1": Model("scnn", "file", n=1),
    "file-scnn-2": Model("scnn", "file", n=2, paper=1.85e-2),
    "file-masses": Model("none", "file", masses=True),
    "file-damped": Model("constant", "file", masses=True),
    "field": Model("field"),
    "hnn": Model("none"),
    "masses": Model("none", masses=True),
    "damped": Model("constant", masses=True),
    "damped-network": Model("network", masses=True),
}


class Law(_real_figures.Law):
    r"""$\dot q = v$, $\dot v = A (q - c) - G v$: two masses on linear springs, linear friction.

    The springs make $M A$ symmetric, which fixes the ratio of the masses, $m_2/m_1 =
    A_{12}/A_{21}$.
    """

    def __init__(self, points: Points) -> None:
        super().__init__()
        one = torch.ones_like(points.z[:, :1])
        target = points.zdot[:, 2:]
        fit = torch.linalg.lstsq(torch.cat([points.z, one], 1), target).solution.T
        self.A, self.G, c = fit[:, :2], -fit[:, 2:4], fit[:, 4]
        middle = -torch.linalg.solve(self.A, c)
        self.rest = torch.cat([middle, torch.zeros_like(middle)])
        self.masses = torch.stack([torch.ones_like(c[0]), self.A[0, 1] / self.A[1, 0]])[None]

    def energy(self, z: Tensor) -> Tensor:
        q, v = (z - self.rest).chunk(2, dim=-1)
        K = -self.masses[0, :, None] * self.A
        return ((self.masses[0] * v.square()).sum(-1) + (q * (q @ K)).sum(-1)) / 2

    def forward(self, z: Tensor) -> Tensor:
        q, v = (z.expand(1, *z.shape[-2:]) - self.rest).chunk(2, dim=-1)
        return torch.cat([v, q @ self.A.T - v @ self.G.T], dim=-1)


STUDY = Study(
    NAME,
    "two-masses-three-springs",
    MODELS,
    {
        "ci": Settings(("hnn", "masses", "damped"), lengths=(300,)),
        "demo": Settings(("field", "hnn", "masses", "damped"), lengths=(300, 600)),
        "full": Settings(tuple(MODELS)),
    },
    length=100.0,
    time=1 / 3,
    window=0.3,
    degree=6,
    law=Law,
    relative=True,
    aim=1.85e-2,
)
SETTINGS = STUDY.settings
train, load = STUDY.train, STUDY.load
evaluate = partial(_real_figures.evaluate, STUDY)
