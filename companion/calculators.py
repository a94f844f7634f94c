r"""ASE calculators: any force of the book, true or learned, drives ASE's own molecular dynamics.

    atoms = ase.Atoms("Ar4", positions=system.start.numpy())
    atoms.calc = calculators.calculator(net, member=0)

ASE's units are the book's, eV and angstrom; its unit of time is :math:`\text{angstrom}
\sqrt{\text{u}/\text{eV}}`, so that ``ase.units.fs`` stands for one femtosecond. ASE keeps the
constants of CODATA 2014, the book those of 2022; `FEMTOSECOND` is the book's value in ASE's unit,
2e-8 longer or so, and a run with it agrees with :meth:`companion.systems.argon.Argon.rollout` to
rounding.
"""

import math
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from companion.systems.argon import ACCELERATION

if TYPE_CHECKING:  # ase is imported where it is used: `import companion` stays fast
    from ase.calculators.calculator import Calculator

FEMTOSECOND = math.sqrt(ACCELERATION)
"""One femtosecond in ASE's unit of time, with the book's constants."""


def calculator(model: Any, member: int = 0) -> "Calculator":
    """An ASE calculator around a force model or a system such as ``Argon``.

    It offers forces, and the energy if the model has a method ``energy``; asked for another
    property it raises ASE's ``PropertyNotImplementedError``. It works in the dtype and on the
    device of the model's parameters (float64 on the CPU if it has none) and gives ASE float64.

    Args:
        model: has ``forces(r)``. A force model is a ``torch.nn.Module`` that takes (B, N, 3) and
            returns (S, B, N, 3); anything else takes and returns (N, 3).
        member: which member of a force model's ensemble.

    Raises:
        ValueError: the model has no ``forces`` or no such member; later, in ASE's `get_forces`,
            whatever the model refuses.
        ModuleNotFoundError: ase is not installed.
    """
    if not callable(getattr(model, "forces", None)):
        raise ValueError(
            f"model: got {type(model).__name__}, which has no method forces; expected a force "
            "model, or a system such as Argon(4)"
        )
    S = getattr(model, "S", 1) if isinstance(model, torch.nn.Module) else 1
    if not 0 <= member < S:
        raise ValueError(f"member: got {member}, expected 0 to {S - 1}: the ensemble has {S}")
    return _make(model, member)


def _make(model: Any, member: int) -> "Calculator":
    from ase.calculators.calculator import Calculator, all_changes

    learned = isinstance(model, torch.nn.Module)
    like = next(model.parameters()) if learned else torch.zeros(0, dtype=torch.float64)

    def evaluated(what: str, r: Tensor) -> Tensor:
        with torch.no_grad():
            value = getattr(model, what)(r[None] if learned else r)
        return (value[member, 0] if learned else value).double().cpu()

    class ForceCalculator(Calculator):
        """Forces, and an energy where there is one, from a model of the book."""

        implemented_properties = ["forces"] + ["energy"] * callable(getattr(model, "energy", None))

        def calculate(self, atoms=None, properties=("forces",), system_changes=all_changes):
            super().calculate(atoms, properties, system_changes)
            atoms = cast(Any, self.atoms)
            _refuse_cell(model, atoms)
            r = torch.as_tensor(atoms.get_positions(), dtype=like.dtype, device=like.device)
            for name in set(properties) & set(self.implemented_properties):
                value = evaluated(name, r)
                self.results[name] = value.numpy() if name == "forces" else float(value)

    return ForceCalculator()


def _refuse_cell(model: Any, atoms: Any) -> None:
    """ASE's atoms say whether they are periodic, and so does the model; they must agree."""
    box = getattr(model, "box", None)
    if box is None and atoms.pbc.any():
        raise ValueError(
            f"atoms: pbc is {atoms.pbc.tolist()}, but the model is one of free space; set "
            "atoms.pbc = False, or use a model with a box"
        )
    if box is not None:
        cell = atoms.cell.array
        if not (atoms.pbc.all() and np.allclose(cell, box * np.eye(3))):
            raise ValueError(
                f"atoms: cell is {cell.tolist()} with pbc {atoms.pbc.tolist()}, but the model has "
                f"a periodic cube of side {box} angstrom; give Atoms(cell=[{box}] * 3, pbc=True)"
            )
