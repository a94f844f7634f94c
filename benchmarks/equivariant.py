"""A well-kept equivariant network on the book's own task: the gated message passing of e3nn.

e3nn (Geiger & Smidt 2022; MIT) is an extra, `pip install 'symmetry-by-construction[bench]'`. The
network is the one it ships, `e3nn.nn.models.v2106`, nothing of it changed: scalars, vectors and
tensors on the atoms, tensor products with the spherical harmonics of the edges, weights that are a
dense network of the distance, gates. What is ours is what surrounds it: the edges, units, and the
functions of the distance, which are those of the book's descriptors.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from companion.descriptors import Descriptors
from companion.force_models import ForceModel


class E3nnForces(ForceModel):
    r"""One network (S = 1), equivariant under permutations, O(3) and translations, for any N.

    Args:
        energy: whether the output is a scalar on each atom, whose sum is the energy, and the forces
            are its gradient by autograd; else it is a vector on each atom, the force.
        channels: number of scalars, of vectors, of tensors with l = 2 and so on, in the hidden
            layers.
        layers: number of gated layers; one more tensor product follows.
        radial: width of the hidden layer of the weights.
        around: mean number of neighbours, which only scales the first weights.
        descriptors: the functions of the distance that the weights depend on.
        seed: of the weights.

    Raises:
        ModuleNotFoundError: e3nn is not installed.
    """

    strength: Tensor

    def __init__(
        self,
        descriptors: Descriptors,
        energy: bool = False,
        channels: Sequence[int] = (8, 8),
        layers: int = 1,
        radial: int = 32,
        around: float = 3.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        e3nn, message_passing = _e3nn()
        o3 = e3nn.o3
        self.seeds, self.conservative = [seed], energy
        self.descriptors: Descriptors = descriptors
        edges = o3.Irreps.spherical_harmonics(len(channels) - 1)
        hidden = [(n, ir) for n, (_, ir) in zip(channels, edges, strict=True)]
        nodes = ["1x0e", *[hidden] * layers, "1x0e" if energy else "1x1o"]
        usual = e3nn.get_optimization_defaults()["jit_mode"]
        e3nn.set_optimization_defaults(jit_mode="script")  # a quarter faster than its default
        try:
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                width = [descriptors.K, radial]
                self.network = message_passing(nodes, "1x0e", edges, width, around)
                self.harmonics = o3.SphericalHarmonics(edges, True, "component")
        finally:
            e3nn.set_optimization_defaults(jit_mode=usual)
        self.register_buffer("strength", torch.ones(()))

    @property
    def size(self) -> int:
        """Parameters."""
        return sum(p.numel() for p in self.parameters())

    def forces(self, r: Tensor, pairs: Tensor | None = None) -> Tensor:
        """Forces in eV/angstrom, `(1, B, N, 3)`, at positions `(B, N, 3)` or `(1, B, N, 3)`."""
        r = self.checked(r)
        if not self.conservative:
            return self.strength * self._atoms(r, pairs).view(r.shape)
        with torch.enable_grad():
            x = r.detach().requires_grad_()
            total = self._atoms(x, pairs).sum()
            (slope,) = torch.autograd.grad(total, x, create_graph=self.training)
        return -self.strength * slope

    def standardise(self, r: Tensor, F: Tensor) -> None:
        """Sets the unit of the forces."""
        self.strength.copy_(self.checked(F).square().mean().sqrt())

    def _atoms(self, r: Tensor, pairs: Tensor | None) -> Tensor:
        """What the network says at every atom, `(B N, 1 or 3)`."""
        B, N = r.shape[1:3]
        i, j = torch.triu_indices(N, N, 1, device=r.device) if pairs is None else pairs.T
        first = N * torch.arange(B, device=r.device)[:, None]
        here, there = (torch.cat([first + a, first + b], 1).flatten() for a, b in ((i, j), (j, i)))
        x = r.reshape(B * N, 3)
        e = x[there] - x[here]
        near = self.descriptors.radial(e.square().sum(-1).sqrt())[0]
        ones = x.new_ones(B * N, 1)
        return self.network(ones, ones, there, here, self.harmonics(e), near)


def _e3nn() -> tuple[Any, Any]:
    try:
        import e3nn
        from e3nn.nn.models.v2106.gate_points_message_passing import MessagePassing
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "e3nn is not installed, and the rows that compare with it need it: "
            "pip install 'symmetry-by-construction[bench]'"
        ) from error
    return e3nn, MessagePassing
