"""The physical systems of the book, one file each, every one written as a sympy Lagrangian."""

import difflib
from collections.abc import Callable
from typing import Any

from companion.systems.anisotropic_oscillator import AnisotropicOscillator
from companion.systems.base import Parameter, System
from companion.systems.central_force import CentralForce
from companion.systems.charged_particle import ChargedParticle
from companion.systems.coupled_oscillators import CoupledOscillators
from companion.systems.double_pendulum import DoublePendulum
from companion.systems.free_particle import FreeParticle
from companion.systems.harmonic_oscillator import HarmonicOscillator
from companion.systems.kepler import Kepler
from companion.systems.magnetic_field import MagneticField
from companion.systems.many_body import ManyBody
from companion.systems.pendulum import Pendulum
from companion.systems.schwarzschild import Schwarzschild
from companion.systems.spherical_pendulum import SphericalPendulum
from companion.systems.springy_pendulum import SpringyPendulum
from companion.systems.three_body import ThreeBody
from companion.systems.two_body import TwoBody
from companion.systems.two_particle import TwoParticle
from companion.systems.wave import Wave

_SYSTEMS: dict[str, Callable[..., System]] = {
    "anisotropic-oscillator": AnisotropicOscillator,
    "central-force": CentralForce,
    "charged-particle": ChargedParticle,
    "coupled-oscillators": CoupledOscillators,
    "double-pendulum": DoublePendulum,
    "free-particle": FreeParticle,
    "harmonic-oscillator": HarmonicOscillator,
    "kepler": Kepler,
    "magnetic-field": MagneticField,
    "many-body": ManyBody,
    "pendulum": Pendulum,
    "schwarzschild": Schwarzschild,
    "spherical-pendulum": SphericalPendulum,
    "springy-pendulum": SpringyPendulum,
    "three-body": ThreeBody,
    "two-body": TwoBody,
    "two-particle": TwoParticle,
}

__all__ = [
    "AnisotropicOscillator",
    "CentralForce",
    "ChargedParticle",
    "CoupledOscillators",
    "DoublePendulum",
    "FreeParticle",
    "HarmonicOscillator",
    "Kepler",
    "MagneticField",
    "ManyBody",
    "Parameter",
    "Pendulum",
    "Schwarzschild",
    "SphericalPendulum",
    "SpringyPendulum",
    "System",
    "ThreeBody",
    "TwoBody",
    "TwoParticle",
    "Wave",
    "get",
    "names",
]


def names() -> list[str]:
    """The names that :func:`get` knows."""
    return list(_SYSTEMS)


def get(name: str, **parameters: Any) -> System:
    """The system called ``name``; keyword arguments override its parameters.

    Raises:
        ValueError: no system has this name; the nearest names are offered.
    """
    if name not in _SYSTEMS:
        near = difflib.get_close_matches(name, _SYSTEMS, cutoff=0.4) or names()
        raise ValueError(f"name: no system is called {name!r}; did you mean {' or '.join(near)}?")
    return _SYSTEMS[name](**parameters)
