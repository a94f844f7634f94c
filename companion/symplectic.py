r"""Transformations of phase space that are canonical by construction, whatever their weights.

Each kind is a formula whose Jacobian satisfies $J \Omega J^T = \Omega$: shears, linear symplectic
maps, polar coordinates. So do compositions of them, by the chain rule, and no loss has to ask for
it: a `companion.canonical.SymmetryControlNetwork` on such a map needs only eq. (6) of Syväri et al.
(2021).

States are $z = (q, p)$, `(S, B, 2 d)` with a leading axis of members, or `(B, 2 d)`, the same for
all. Every map knows how covectors come back, $g \mapsto J^T g$, in closed form (`pull`); the rows
of J are what comes back of the unit covectors. Gradients in the weights are one backward pass.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from companion._activations import Activation, activation_named
from companion.datasets import _mix
from companion.phase_space import omega

State = Shaped[Tensor, "..."]  # (S, B, 2 d) or (B, 2 d): `_checked` says what is wrong
Back = Callable[[Tensor], Tensor]  # covectors (S, B, k, 2 d) at Z -> at z
Seeds = int | Sequence[int]


class SymplecticMap(torch.nn.Module):
    """What all maps of this module share: d degrees of freedom and S members that never mix.

    Attributes: `d`; `seeds`, one for each member.
    """

    def __init__(self, d: int, seeds: Seeds = 1) -> None:
        super().__init__()
        members = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
        if d < 1 or not members:
            raise ValueError(
                f"d = {d}, seeds = {seeds}: expected one degree of freedom or more, and one member "
                "or more"
            )
        self.d, self.seeds = d, members

    @property
    def S(self) -> int:
        """Number of members."""
        return len(self.seeds)

    @property
    def size(self) -> int:
        """Number of trained parameters of one member."""
        return sum(x[0].numel() for x in self.parameters())

    def value(self, z: State) -> Float[Tensor, "S B two_d"]:
        """The new coordinates Z = (Q, P). ValueError for states of another shape or dtype."""
        return self._map(self._checked(z))[0]

    def pull(self, z: State) -> tuple[Tensor, Back]:
        r"""Z, and the function that takes covectors g at Z, `(S, B, 2 d)`, to $J^T g$ at z.

        The gradient of K(T(z)) is the pull-back of that of K: J is never formed.
        """
        Z, back = self._map(self._checked(z))
        return Z, lambda g: back(g[..., None, :]).squeeze(-2)

    def jacobian(self, z: State) -> tuple[Tensor, Tensor]:
        """Z and J `(S, B, 2 d, 2 d)`; row a is the gradient of Z_a."""
        Z, back = self._map(self._checked(z))
        unit = torch.eye(2 * self.d, dtype=Z.dtype, device=Z.device)
        return Z, back(unit.expand(*Z.shape[:2], *unit.shape))

    def inverse(self, Z: State) -> Float[Tensor, "S B two_d"]:
        """The old coordinates, in closed form. ValueError as for `value`."""
        return self._inverse(self._checked(Z))

    @torch.no_grad()
    def standardise(self, z: State) -> None:
        """Sets the units of a map by these states; it stays canonical."""
        self._standardise(self._checked(z))

    def keep(self, s: int) -> None:
        """Drops all members but `s`."""
        for tensor in (*self.parameters(recurse=False), *self.buffers(recurse=False)):
            tensor.data = tensor.data[s : s + 1].clone()
        self.seeds = (self.seeds[s],)

    # What a map must define: z `(S, B, 2 d)` to Z and the way back for covectors; the inverse.

    def _map(self, z: Tensor) -> tuple[Tensor, Back]:
        raise NotImplementedError

    def _inverse(self, Z: Tensor) -> Tensor:
        raise NotImplementedError

    def _standardise(self, z: Tensor) -> None:
        """Nothing to set, for most maps."""

    def _checked(self, z: Tensor) -> Tensor:
        weights = next(self.parameters(), None)
        if weights is not None and (z.dtype != weights.dtype or z.device != weights.device):
            raise ValueError(
                f"z is {z.dtype} on {z.device}, the weights {weights.dtype} on {weights.device}; "
                "convert one of them with .to(...)"
            )
        if (
            z.dim() not in (2, 3)
            or z.shape[-1] != 2 * self.d
            or z.shape[:-2] not in ((), (self.S,))
        ):
            raise ValueError(
                f"z has shape {tuple(z.shape)}; expected (B, {2 * self.d}) or ({self.S}, B, "
                f"{2 * self.d}): S = {self.S} members, then states, d = {self.d} positions and "
                "their momenta"
            )
        return z.expand(self.S, *z.shape[-2:])

    def _sources(self) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in self.seeds]


def _normal(sources: list[torch.Generator], sd: float, *shape: int, **where) -> torch.nn.Parameter:
    draws = [torch.randn(shape, generator=g, dtype=torch.float64) for g in sources]
    return torch.nn.Parameter((sd * torch.stack(draws)).to(**where))


class Shear(SymplecticMap):
    r"""$p \mapsto p + \nabla V(q)$ (up), or $q \mapsto q + \nabla V(p)$ (down).

    $V(x) = \sum_k a_k\,\sigma(w_k \cdot (x - c)/s + b_k)$ is a network with one hidden layer; its
    gradient and Hessian are written out. The Hessian is symmetric, and that is all that makes the
    map canonical. The inverse has a minus sign. (The gradient modules of Jin et al. 2020.)

    Args:
        d: degrees of freedom.
        width: number of terms of V.
        direction: "up" moves the momenta, "down" the positions.
        activation: $\sigma$, a name or an `Activation`; the kick is made of its slope, so softplus
            gives steps and tanh bumps.
        seeds: the members' seeds, or their number S (then 0 to S - 1).
        output_scale: spread of a at the start; at 0 the map is the identity.
        dtype, device: of the weights.

    Raises:
        ValueError: d or width below 1, no seeds, another direction, an unknown activation.
    """

    centre: Tensor
    scale: Tensor

    def __init__(
        self,
        d: int,
        width: int = 32,
        direction: str = "up",
        activation: str | Activation = "softplus",
        seeds: Seeds = 1,
        output_scale: float = 0.1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(d, seeds)
        if width < 1 or direction not in ("up", "down"):
            raise ValueError(
                f"width = {width}, direction = {direction!r}: expected one term or more, and 'up' "
                "(moves p by a function of q) or 'down' (moves q by a function of p)"
            )
        self.up, self.activation = direction == "up", activation_named(activation)
        sources, where = self._sources(), {"dtype": dtype, "device": device}
        self.waves = _normal(sources, d**-0.5, width, d, **where)
        self.bias = _normal(sources, 1.0, width, **where)
        self.amplitude = _normal(sources, output_scale * width**-0.5, width, **where)
        self.register_buffer("centre", torch.zeros(self.S, d, **where))
        self.register_buffer("scale", torch.ones(self.S, d, **where))

    def _kick(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient of V `(S, B, d)`; its Hessian is `waves.mT @ diag(bend) @ waves`."""
        waves = self.waves / self.scale[:, None]
        u = torch.baddbmm(self.bias[:, None], x - self.centre[:, None], waves.mT)
        _, slope, bend = self.activation.jet(u)
        a = self.amplitude[:, None]
        return torch.bmm(a * slope, waves), waves, a * bend

    def _map(self, z: Tensor) -> tuple[Tensor, Back]:
        q, p = z.chunk(2, dim=-1)
        kick, waves, bend = self._kick(q if self.up else p)
        Z = torch.cat([q, p + kick] if self.up else [q + kick, p], dim=-1)

        def back(g: Tensor) -> Tensor:
            g_q, g_p = g.chunk(2, dim=-1)
            moved = g_p if self.up else g_q
            along = torch.bmm(moved.flatten(1, 2), waves.mT).view(*g.shape[:-1], -1)
            return_ = torch.bmm((along * bend[:, :, None]).flatten(1, 2), waves).view_as(moved)
            return torch.cat([g_q + return_, g_p] if self.up else [g_q, g_p + return_], dim=-1)

        return Z, back

    def _inverse(self, Z: Tensor) -> Tensor:
        q, p = Z.chunk(2, dim=-1)
        if self.up:
            return torch.cat([q, p - self._kick(q)[0]], dim=-1)
        return torch.cat([q - self._kick(p)[0], p], dim=-1)

    def _standardise(self, z: Tensor) -> None:
        x = z.chunk(2, dim=-1)[0 if self.up else 1]
        spread = x.std(1)
        still = spread <= 1e-6 * x.abs().amax(1)
        self.centre.copy_(x.mean(1))
        self.scale.copy_(torch.where(still, torch.ones_like(spread), spread))


class LinearPoint(SymplecticMap):
    r"""$q \mapsto G q$, $p \mapsto G^{-T} p$: new linear coordinates, and the momenta they imply.

    $G = C^2 R$ with the rotation $C = (1 - A)^{-1}(1 + A)$, A antisymmetric, and R upper triangular
    with a positive diagonal, is invertible for any weights. It reaches every G of positive
    determinant: QR, and every rotation is the square of one by less than a quarter turn in each
    plane. A reflection of one pair, $(Q_1, P_1) \mapsto -(Q_1, P_1)$, reaches the others; a network
    behind learns it for nothing. (`torch.linalg.matrix_exp` would do for C, but of a single small
    matrix in float64 it has ten digits.)

    Args:
        d, seeds, dtype, device: as in `Shear`.
        output_scale: spread of the weights at the start; at 0 the map is the identity.
    """

    def __init__(
        self,
        d: int,
        seeds: Seeds = 1,
        output_scale: float = 0.1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(d, seeds)
        sources, where = self._sources(), {"dtype": dtype, "device": device}
        self.turn = _normal(sources, output_scale, d, d, **where)
        self.stretch = _normal(sources, output_scale * d**-0.5, d, d, **where)

    def matrix(self) -> Float[Tensor, "S two_d two_d"]:
        """The Jacobian, the same at all states."""
        A = (self.turn - self.turn.mT) / 4  # for small A the rotation is 1 + turn - turn.mT
        one = torch.eye(self.d, dtype=A.dtype, device=A.device).expand_as(A)
        C = torch.linalg.solve(one - A, one + A)
        diagonal = self.stretch.diagonal(dim1=-2, dim2=-1)
        R = self.stretch.triu(1) + torch.diag_embed(diagonal.exp())
        G = C @ C @ R
        contra = C @ C @ torch.linalg.solve_triangular(R, one, upper=True).mT
        none = torch.zeros_like(G)
        return torch.cat([torch.cat([G, none], -1), torch.cat([none, contra], -1)], -2)

    def _map(self, z: Tensor) -> tuple[Tensor, Back]:
        M = self.matrix()
        return torch.bmm(z, M.mT), lambda g: torch.bmm(g.flatten(1, 2), M).view_as(g)

    def _inverse(self, Z: Tensor) -> Tensor:
        W = omega(self.d, Z.dtype, Z.device)
        return torch.bmm(Z, (W.mT @ self.matrix().mT @ W).mT)  # M^-1 = -Omega M^T Omega


class LinearSymplectic(LinearPoint):
    r"""Z = M z with $M = D(S_1)\,U(S_2)\,\mathrm{diag}(G, G^{-T})\,D(S_3)$: linear shears around a
    `LinearPoint`.

    U(S) is $p \mapsto p + Sq$ and D(S) is $q \mapsto q + Sp$, S symmetric. Every symplectic matrix
    has this form up to the reflection of one pair: with blocks A, B, C, E some $A - sC$ is
    invertible, because $A + iC$ is (its square is $A^T A + C^T C$), and then $D(-s) M$ is
    $U\,\mathrm{diag}\,D$, block by block. Arguments as in `LinearPoint`.
    """

    def __init__(
        self,
        d: int,
        seeds: Seeds = 1,
        output_scale: float = 0.5,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(d, seeds, output_scale, dtype, device)
        sources = [torch.Generator().manual_seed(_mix(seed, 0)) for seed in self.seeds]
        sd = output_scale * d**-0.5 / 2
        self.shears = _normal(sources, sd, 3 * d, d, dtype=dtype, device=device)

    def matrix(self) -> Float[Tensor, "S two_d two_d"]:
        """The Jacobian, the same at all states."""
        S1, S2, S3 = (S + S.mT for S in self.shears.chunk(3, dim=1))
        q, p = super().matrix().chunk(2, dim=-2)  # rows of Q and of P
        q = torch.cat([q[..., : self.d], q[..., : self.d] @ S3], -1)  # D(S3) from the right
        p = p + S2 @ q
        return torch.cat([q + S1 @ p, p], -2)


class Polar(SymplecticMap):
    r"""Polar coordinates $(x, y) \mapsto (\varphi, r)$ of a position, and a frame that turns along.

    $\varphi = \mathrm{atan2}(y, x)$ takes the place of x, r that of y, with momenta
    $p_\varphi = \sum (x p_y - y p_x)$ and $p_r = (x p_x + y p_y)/r$. Positions and momenta of the
    `others` are turned by $-\varphi$; $p_\varphi$ is the angular momentum of all of them together.
    The angle jumps by a turn somewhere; its gradient does not, and a Hamiltonian in which it is
    cyclic never asks for its value. So this map comes last. Nothing is trained. Not defined at
    r = 0.

    Args:
        d: degrees of freedom.
        plane: the numbers (i, j) of the coordinates x and y.
        others: such pairs of the vectors that turn along.
        seeds: as in `Shear`.

    Raises:
        ValueError: a coordinate that does not exist or is named twice.
    """

    def __init__(
        self,
        d: int,
        plane: tuple[int, int] = (0, 1),
        others: Sequence[tuple[int, int]] = (),
        seeds: Seeds = 1,
    ) -> None:
        super().__init__(d, seeds)
        self.columns = [i for pair in (plane, *others) for i in pair]
        if not set(self.columns) <= set(range(d)) or len(set(self.columns)) < len(self.columns):
            raise ValueError(
                f"plane = {plane}, others = {tuple(others)}: expected pairs of distinct "
                f"coordinates from 0 to {d - 1}"
            )

    def _vectors(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Positions w and momenta v of the vectors as complex numbers x + iy, `(..., m)`."""
        q, p = (half[..., self.columns].unflatten(-1, (-1, 2)) for half in z.chunk(2, dim=-1))
        return torch.view_as_complex(q), torch.view_as_complex(p)

    def _with(self, z: Tensor, w: Tensor, v: Tensor) -> Tensor:
        """`z` with these vectors at their places."""
        z = z.clone()
        z[..., self.columns] = torch.view_as_real(w).flatten(-2)
        z[..., [self.d + i for i in self.columns]] = torch.view_as_real(v).flatten(-2)
        return z

    def _map(self, z: Tensor) -> tuple[Tensor, Back]:
        w, v = self._vectors(z)
        r = w[..., :1].abs()
        u = w[..., :1] / r
        turned_w, turned_v = w * u.conj(), v * u.conj()  # in the frame that turns along
        L = (w.conj() * v).imag.sum(-1, keepdim=True)
        w_1, v_1 = torch.complex(u.angle(), r), torch.complex(L, turned_v[..., :1].real)
        Z = self._with(
            z, torch.cat([w_1, turned_w[..., 1:]], -1), torch.cat([v_1, turned_v[..., 1:]], -1)
        )

        def back(g: Tensor) -> Tensor:
            g_w, g_v = self._vectors(g)
            g_phi, g_r, g_L, g_pr = (x[..., :1] for x in (g_w.real, g_w.imag, g_v.real, g_v.imag))
            g_w, g_v = g_w[..., 1:], g_v[..., 1:]
            w_, v_, u_, r_ = (x[:, :, None] for x in (turned_w, turned_v, u, r))
            turn = g_phi + g_pr * v_[..., :1].imag  # what a turn of the frame alone would do
            turn = turn + (g_w.conj() * w_[..., 1:] + g_v.conj() * v_[..., 1:]).imag.sum(-1, True)
            g_w = torch.cat([torch.complex(g_r, turn / r_), g_w], -1)
            g_v = torch.cat([torch.complex(g_pr, torch.zeros_like(g_pr)), g_v], -1)
            return self._with(g, u_ * (g_w - 1j * v_ * g_L), u_ * (g_v + 1j * w_ * g_L))

        return Z, back

    def _inverse(self, Z: Tensor) -> Tensor:
        w, v = self._vectors(Z)
        phi, r, L, p_r = (x[..., :1] for x in (w.real, w.imag, v.real, v.imag))
        w, v = w[..., 1:], v[..., 1:]
        L = L - (w.conj() * v).imag.sum(-1, keepdim=True)
        w = torch.cat([torch.complex(r, torch.zeros_like(r)), w], -1)
        v = torch.cat([torch.complex(p_r, L / r), v], -1)
        u = torch.polar(torch.ones_like(phi), phi)
        return self._with(Z, w * u, v * u)


class Composition(SymplecticMap):
    r"""$T = T_m \circ \dots \circ T_1$: the first of `maps` acts first. $J = J_m \cdots J_1$.

    Raises ValueError for no maps, or maps of different d or numbers of members.
    """

    def __init__(self, maps: Sequence[SymplecticMap]) -> None:
        if not maps or len({(T.d, T.S) for T in maps}) > 1:
            raise ValueError(
                f"maps have (d, S) = {[(T.d, T.S) for T in maps]}; expected one map or more, all "
                "of the same phase space and the same number of members"
            )
        super().__init__(maps[0].d, maps[0].seeds)
        self.maps = torch.nn.ModuleList(maps)

    def _parts(self) -> list[SymplecticMap]:
        return list(self.maps)  # pyright: ignore[reportReturnType]

    def _map(self, z: Tensor) -> tuple[Tensor, Back]:
        ways = []
        for T in self._parts():
            z, way = T._map(z)
            ways.append(way)

        def back(g: Tensor) -> Tensor:
            for way in reversed(ways):
                g = way(g)
            return g

        return z, back

    def _inverse(self, Z: Tensor) -> Tensor:
        for T in reversed(self._parts()):
            Z = T._inverse(Z)
        return Z

    def _standardise(self, z: Tensor) -> None:
        for T in self._parts():
            T._standardise(z)
            z = T._map(z)[0]

    def keep(self, s: int) -> None:
        """Drops all members but `s`."""
        for T in self._parts():
            T.keep(s)
        super().keep(s)


def shears(
    d: int,
    layers: int = 4,
    width: int = 32,
    seeds: Seeds = 1,
    activation: str | Activation = "softplus",
    output_scale: float = 0.1,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Composition:
    """A `LinearSymplectic` map and then `layers` shears, up and down in turn.

    Raises ValueError as the parts do, and for `layers` below 0.
    """
    if layers < 0:
        raise ValueError(f"layers must be 0 or more, got {layers}")
    members = range(seeds) if isinstance(seeds, int) else seeds
    where = {"dtype": dtype, "device": device}
    maps: list[SymplecticMap] = [LinearSymplectic(d, members, **where)]
    for k in range(layers):
        own = [_mix(seed, k + 1) for seed in members]
        turn = ("up", "down")[k % 2]
        maps.append(Shear(d, width, turn, activation, own, output_scale, **where))
    return Composition(maps)
