"""The physical systems of the book, one file each, every one written as a sympy Lagrangian."""

import difflib

from companion.systems.base import Parameter, System
from companion.systems.kepler import Kepler

_SYSTEMS: dict[str, type[System]] = {
    "kepler": Kepler,
}

__all__ = ["Kepler", "Parameter", "System", "get", "names"]


def names() -> list[str]:
    """The names that :func:`get` knows."""
    return list(_SYSTEMS)


def get(name: str, **parameters: float) -> System:
    """The system called ``name``; keyword arguments override its parameters.

    Raises:
        ValueError: no system has this name; the nearest names are offered.
    """
    if name not in _SYSTEMS:
        near = difflib.get_close_matches(name, _SYSTEMS, cutoff=0.4) or names()
        raise ValueError(f"name: no system is called {name!r}; did you mean {' or '.join(near)}?")
    return _SYSTEMS[name](**parameters)
