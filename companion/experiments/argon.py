"""The forces of four argon atoms, learned five ways (Ma & Chan 2022, section 4)."""

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
ROUNDED = 1.0  # epsilon of the modulus, in units of the standardised vectors
MODELS = {
    "plain": Model(lambda seeds: RelativeForces(4, seeds=seeds), steps=0.3, paper=RMSD_PAPER),
    "rounded": Model(
        lambda seeds: RelativeForces(4, epsilon=ROUNDED, seeds=seeds), paper=RMSD_PAPER, aim=0.0006
    ),
    "augmented": Model(
        lambda seeds: RelativeForces(4, momentum=True, epsilon=ROUNDED, seeds=seeds),
        permute=True,
        paper=RMSD_PAPER,
    ),
    "s4": Model(
        lambda seeds: EdgeNetwork((24, 24, 24), powers=4, epsilon=ROUNDED, seeds=seeds),
        steps=0.4,
        batch=128,
        paper=RMSD_PAPER,
        aim=0.0003,
    ),
    "descriptor": Model(
        lambda seeds: DescriptorForces(descriptors(), (64, 64), epsilon=ROUNDED, seeds=seeds),
        steps=0.25,
        paper=RMSD_PAPER,
    ),
    "energy": Model(
        lambda seeds: EnergyForces(descriptors(), (64, 64), lengths=16, seeds=seeds),
        steps=0.25,
        paper=RMSD_PAPER,
    ),
}
SETTINGS = {
    "ci": Settings(300, ("plain",), 2000),
    "demo": Settings(6000, tuple(MODELS)),
    "full": Settings(40_000, tuple(MODELS)),
}
TASK = Task(NAME, Argon(4), MODELS, SETTINGS)
train, load, evaluate = TASK.train, TASK.load, TASK.evaluate
