"""The forces of four argon atoms, learned five ways (Ma & Chan 2022, section 4)."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from companion.descriptors import DescriptorForces, Descriptors, EnergyForces
from companion.experiments._argon import Model, Settings, Task, loss
from companion.force_models import RelativeForces
from companion.permutations import EdgeNetwork
from companion.systems.argon import Argon

__all__ = ["MODELS", "SETTINGS", "TASK", "descriptors", "evaluate", "load", "loss", "train"]

NAME = "argon"
SUMMARY = "The forces of four argon atoms: unitary networks, with and without more symmetry"
PAPER = "Ma & Chan (2022), section 4, figures 3 to 7"


def descriptors() -> Descriptors:
    """32 centres from 2.5 to 20 angstrom: no cutoff is felt, as in the paper's forces."""
    return Descriptors(32, cutoff=25.0, first=2.5, last=20.0)


RMSD_PAPER = 0.00118  # eV/angstrom, figure 3
ROUNDED = 1.0  # epsilon of the modulus, in units of the standardised vectors: `argon_rounding`
PLAIN = partial(RelativeForces, 4)
S4 = partial(EdgeNetwork, (24, 24, 24), powers=4)


def on_descriptors(seeds: Sequence[int]) -> DescriptorForces:
    """A unitary network on the vectors of eq. 33."""
    return DescriptorForces(descriptors(), (64, 64), epsilon=ROUNDED, seeds=seeds)


def with_energy(seeds: Sequence[int]) -> EnergyForces:
    """Forces that are the gradient of an invariant energy."""
    return EnergyForces(descriptors(), (64, 64), lengths=16, seeds=seeds)


MODELS = {
    "plain": Model(PLAIN, steps=0.3),
    "rounded": Model(partial(PLAIN, epsilon=ROUNDED), aim=0.0006),
    "augmented": Model(partial(PLAIN, momentum=True, epsilon=ROUNDED), permute=True),
    "s4": Model(partial(S4, epsilon=ROUNDED), steps=0.4, batch=128, aim=0.0003),
    "descriptor": Model(on_descriptors, steps=0.25),
    "energy": Model(with_energy, steps=0.25),
}
MODELS = {name: replace(model, paper=RMSD_PAPER) for name, model in MODELS.items()}
SETTINGS = {
    "ci": Settings(300, ("plain",), 2000),
    "demo": Settings(6000, tuple(MODELS)),
    "full": Settings(40_000, tuple(MODELS)),
}
TASK = Task(NAME, Argon(4), MODELS, SETTINGS)
train, load, evaluate = TASK.train, TASK.load, TASK.evaluate
