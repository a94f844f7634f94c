r"""A fair test for descriptors: four atoms whose forces are no sum over pairs.

Eq. 33 of Ma & Chan (2022) makes every pair potential linear, so the paper's data say little about
a model that sees it. Here the energy has the three-body term of Axilrod and Teller (1943) as well,
`STRENGTH` times argon's own: argon's is 1.5e-4 eV/angstrom on these data, below what most models
reach; this one is an eighth of the whole force. What a model makes of it is seen beside the error
of `linear`, the best sum over pairs that the K = 32 functions of eq. 33 can make.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from companion import training
from companion.artifacts import Figure
from companion.configurations import Configurations
from companion.descriptors import EnergyForces, LinearForces
from companion.experiments._argon import Model, Settings, Task, rms
from companion.experiments.argon import ROUNDED, descriptors, on_descriptors
from companion.force_models import RelativeForces
from companion.permutations import EdgeNetwork
from companion.systems import argon
from companion.systems.argon import Argon

NAME = "axilrod_teller"
SUMMARY = "Argon with a strong three-body force, which no sum over pairs can be"
PAPER = "Ma & Chan (2022), section 3.5, eqs. 29 to 34; the target is not theirs"

STRENGTH = 100  # times argon's own three-body term


@dataclass(frozen=True)
class ThreeBody(Task):
    """`Task` with a model that is fitted and not trained, and the size of what is new."""

    def train_model(
        self,
        name: str,
        budget: str = "demo",
        seeds: Sequence[int] = (0, 1, 2),
        device: str = "auto",
        checkpoint: Path | None = None,
        progress: bool = True,
        **changes: Any,
    ) -> tuple[Any, training.History]:
        """As `Task.train_model`; `linear` is solved by least squares on the same data."""
        if name != "linear":
            return super().train_model(name, budget, seeds, device, checkpoint, progress, **changes)
        settings = replace(self.settings[budget], **changes)
        net = self.network(name, seeds, training.device(device))
        data = Configurations(self.system, seeds, settings.configurations)
        net.least_squares(data.r[:, :5000], data.F[:, :5000])
        return net, training.History()

    def evaluate(
        self, folder: Path | None = None, progress: bool = False, keep_curves: bool = False
    ) -> tuple[list[Figure], dict]:
        """As `Task.evaluate`, and the size of the three-body force on the test set."""
        rows, about = super().evaluate(folder, progress, keep_curves)
        r, F = self.test
        three = rms((F - Argon(self.system.N).forces(r))[None], (1, 2, 3))
        size = Figure(
            "three-body force",
            "root mean square of a component of the three-body force on the test set",
            "eV/A",
            "lower",
            None,
            None,
            three,
            1.01,
        )
        return [size, *rows], about


MODELS = {
    "plain": Model(partial(RelativeForces, 4, epsilon=ROUNDED), batch=128),
    "s4": Model(partial(EdgeNetwork, (24, 24, 24), epsilon=ROUNDED), batch=128),
    "linear": Model(lambda seeds: LinearForces(descriptors(), seeds)),
    "descriptor": Model(on_descriptors),
    "energy": Model(
        lambda seeds: EnergyForces(descriptors(), (64, 64), lengths=32, seeds=seeds), lr=2e-2
    ),
}
SETTINGS = {
    "ci": Settings(300, ("linear", "energy"), 2000),
    "demo": Settings(2000, tuple(MODELS)),
    "full": Settings(6000, tuple(MODELS)),
}
TASK = ThreeBody(NAME, Argon(4, nu=STRENGTH * argon.NU), MODELS, SETTINGS, dynamics=False)
train, load, evaluate = TASK.train, TASK.load, TASK.evaluate
