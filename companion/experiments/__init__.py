"""Experiments: one file for each figure-bearing system of a paper.

An experiment is a module with `NAME`, `SUMMARY`, `PAPER`, `SETTINGS` (one entry a budget),
`train(budget, seeds, device, folder, progress)` and `evaluate(folder, progress)`.
"""

from difflib import get_close_matches
from importlib import import_module
from types import ModuleType

_NAMES = (
    "kepler",
    "schwarzschild",
    "two_particle",
    "scarce_noisy",
    "many_particle",
    "springy_pendulum",
    "symmetry_buys",
    "two_body",
    "loss_weights",
    "three_body",
    "coupled_oscillators",
    "magnetic_field",
    "spherical_pendulum",
    "double_pendulum",
    "conserved_number",
    "real_oscillators",
    "real_pendulum",
    "argon",
    "argon_rounding",
    "argon_optimisers",
    "axilrod_teller",
    "argon_clusters",
    "manakov",
    "comparison",
)
_MODULES = {name: f"companion.experiments.{name}" for name in _NAMES}


def names() -> list[str]:
    """The names of all experiments."""
    return list(_MODULES)


def get(name: str) -> ModuleType:
    """The experiment of this name. Raises ValueError with the nearest names if there is none."""
    if name not in _MODULES:
        near = get_close_matches(name.lower(), _MODULES, n=1, cutoff=0.3) or names()
        raise ValueError(f"no experiment is called {name!r}; did you mean {' or '.join(near)}?")
    return import_module(_MODULES[name])
