"""Code that goes with *Symmetry by Construction*: physics in sympy, networks in torch."""

__version__ = "0.1.0"
