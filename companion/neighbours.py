r"""Who is near whom: pairs of atoms within a cutoff, in free space or in a periodic cube.

A tree (``scipy.spatial.cKDTree``) finds the pairs in O(N log N) where looking at all of them takes
O(N^2). A pair is found once, as ``(i, j)`` with ``i < j``.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor


def neighbours(
    r: Shaped[Tensor, "..."], cutoff: float | int, box: float | int | None = None
) -> Int[Tensor, "P 2"]:
    """The pairs of atoms at most `cutoff` apart, sorted, on the device of `r`.

    Args:
        r: positions (N, 3); in a box they may lie outside of it.
        cutoff: in the unit of `r`.
        box: side of a periodic cube; distances are then those to the nearest image.

    Raises:
        ValueError: r is not (N, 3) or not finite, the cutoff is not positive, or the box is smaller
            than two cutoffs, where an atom would meet two images of another.
    """
    from scipy.spatial import cKDTree  # pyright: ignore[reportAttributeAccessIssue]

    _check(cutoff, box)
    if r.ndim != 2 or r.shape[-1] != 3:
        raise ValueError(f"r: got shape {tuple(r.shape)}, expected the positions (N, 3) of one set")
    x = r.detach().cpu().double().numpy()
    if not np.isfinite(x).all():
        atom = int(np.argwhere(~np.isfinite(x))[0, 0])
        raise ValueError(f"r: atom {atom} is at {x[atom].tolist()}; positions must be finite")
    if box is not None:
        x = np.mod(x, box)
        x[x >= box] = 0.0  # mod of a tiny negative number rounds to the box itself
    pairs = cKDTree(x, boxsize=box).query_pairs(float(cutoff), output_type="ndarray")
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    return torch.from_numpy(pairs.astype(np.int64)).to(r.device)


def minimum_image(d: Float[Tensor, "*batch 3"], box: float | int) -> Float[Tensor, "*batch 3"]:
    """Each difference vector moved by whole sides of the box to its shortest form."""
    return d - box * (d / box).round()


def triangles(pairs: Int[Tensor, "P 2"]) -> Int[Tensor, "T 3"]:
    """The triangles whose three sides are among the pairs, once each.

    Returns the indices of the sides ``(i, j), (j, k), (i, k)`` in `pairs`, which must be sorted
    as :func:`neighbours` sorts them (``torch.triu_indices`` does too).
    """
    if len(pairs) < 3:
        return pairs.new_empty(0, 3)
    i, j = pairs[:, 0], pairs[:, 1]
    count = torch.bincount(i, minlength=int(pairs.max()) + 1)
    first = count.cumsum(0) - count  # where atom i's pairs begin
    fan = count[j]  # a side (i, j) is continued by every side (j, k)
    one = torch.repeat_interleave(torch.arange(len(pairs), device=pairs.device), fan)
    begin = torch.repeat_interleave(fan.cumsum(0) - fan, fan)
    two = first[j[one]] + torch.arange(len(one), device=pairs.device) - begin
    key = i * len(count) + j  # ascending, as the pairs are sorted
    wanted = i[one] * len(count) + j[two]
    three = torch.searchsorted(key, wanted).clamp(max=len(key) - 1)
    closed = key[three] == wanted
    return torch.stack((one, two, three), -1)[closed]


class NeighbourList:
    r"""Pairs within ``cutoff + skin``, kept as long as they are good (Verlet 1967).

    As long as no atom has moved more than skin/2 since the list was made, no two atoms can have
    come closer by more than the skin, so every pair within the cutoff is still in the list. Calling
    it with positions looks at that bound and builds anew only when it is broken. Pairs between
    ``cutoff`` and ``cutoff + skin`` are in the list too; who uses it must give them zero.

    Args:
        cutoff, skin: in the unit of the positions.
        box: side of a periodic cube, or None.

    Attributes:
        builds: how many times the tree was searched.

    Raises:
        ValueError: a length is not positive, or the box is smaller than two cutoffs. If there is no
            room for the skin in the box, the skin is made smaller.
    """

    def __init__(
        self, cutoff: float | int, skin: float | int = 1.0, box: float | int | None = None
    ) -> None:
        if not 0 <= skin < math.inf:
            raise ValueError(f"skin: got {skin}, expected a length, zero or more")
        _check(cutoff, box)
        self.cutoff, self.box, self.builds = cutoff, box, 0
        self._reach = cutoff + skin if box is None else min(cutoff + skin, box / 2)
        self.skin = self._reach - cutoff
        self._at: Tensor | None = None
        self._pairs: Tensor | None = None

    def stale(self, r: Shaped[Tensor, "..."]) -> bool:
        """Whether positions (N, 3) have moved too far, or are others, so the list must be rebuilt.

        An atom that leaves the box on one side and comes back on the other has not moved.
        """
        if self._at is None or self._at.shape != r.shape or self._at.device != r.device:
            return True
        moved = r.detach() - self._at
        if self.box is not None:
            moved = minimum_image(moved, self.box)
        return not bool(moved.square().sum(-1).max() <= (self.skin / 2) ** 2)

    def __call__(self, r: Shaped[Tensor, "..."]) -> Int[Tensor, "P 2"]:
        """The pairs for positions (N, 3); raises what :func:`neighbours` raises."""
        if self._pairs is None or self.stale(r):
            self._pairs = neighbours(r, self._reach, self.box)
            self._at = r.detach().clone()
            self.builds += 1
        return self._pairs


def _check(cutoff: float | int, box: float | int | None) -> None:
    if not 0 < cutoff < math.inf:
        raise ValueError(f"cutoff: got {cutoff}, expected a positive length")
    if box is not None and not 2 * cutoff <= box < math.inf:
        raise ValueError(
            f"box: got {box}, expected at least two cutoffs = {2 * cutoff:g}, so that an atom "
            "meets one image of another only; is it in the unit of the cutoff (nm or angstrom)?"
        )
