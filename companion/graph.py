r"""Graph Lagrangian networks: many bodies, one round of messages, no matrix to solve.

Müller (2023) asks in section 4 how a Lagrangian network could grow to many particles: its Hessian
is a full $ND \times ND$ matrix, its invariants number $O(N^2)$. This network answers with weights
that are shared by all bodies and all pairs:

$$ \mathcal L = \sum_i \Bigl[\tfrac12 m_i \dot x_i^2 + h_{i1} + F(\psi_i)\Bigr], \qquad
   h_i = \sum_{j \ne i} \phi(|x_i - x_j|^2, m_i, m_j), \qquad
   \psi_i = (\dot x_i^2, h_{i2}, \dots, h_{iK}, m_i) . $$

Edges carry positions only. So a body's momentum $p_i$ holds the velocity of body i alone, and the
velocity Hessian is block diagonal:

$$ p_i = \mu_i\,\dot x_i, \qquad \mu_i = m_i + 2F_a, \qquad
   A_i = \mu_i\,1 + 4F_{aa}\,\dot x_i\dot x_i^T . $$

Sherman and Morrison invert such a block by hand: the acceleration costs $O(N^2)$ for the edges and
$O(N)$ for the rest. $\mathcal L$ does not change under permutations of bodies with equal labels,
translations, rotations and reflections, for any weights. N is no part of the weights.
"""

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from companion._activations import Activation
from companion._dense import Dense, expanded
from companion.lagrangian import SingularHessianError

States = Shaped[Tensor, "..."]  # (S, B, N D) or (B, N D): `_bodies` checks, and says what is wrong
Vectors = Float[Tensor, "S B d"]
Values = Float[Tensor, "S B"]


class GraphLagrangian(torch.nn.Module):
    r"""An ensemble of S graph Lagrangian networks for any number of bodies.

    States are `(S, B, N D)`, or `(B, N D)` for the same states in every member, body after body.
    The dense layers of the edges see $(\log(1 + |x_i - x_j|^2), m_i, m_j)$, those of the vertices
    $\psi_i$ with $\log(1 + \dot x_i^2)$ in the place of $\dot x_i^2$, so that what is rare in the
    data is not far away in the input.

    Args:
        D: dimension of space.
        hidden: widths of the dense layers of the edges, and again of the vertices.
        messages: K, the channels of $\phi$. The first is a pair energy and enters as it is; with
            K = 1 there are no others, and vertices do not see who is around them.
        activation: as in `companion.lagrangian`. With the bounded tanh, F fades out where training
            has seen nothing.
        seeds: S, or the seeds of the members.
        mass: the labels $m_i$ of N bodies, which are also the masses of the fixed kinetic term.
            None: 1 for each of however many bodies a state has. `bodies` changes them.
        pinned: whether vertices also see $x_i\cdot\dot x_i$ and $x_i^2$, as Müller (2023) suggests
            in section 4. These are not invariant under translations: only the angular momentum
            about the origin is then conserved. For bodies in an outer field.
        output_scale: standard deviation of the last layer of the vertices.
        dtype, device: of the parameters.

    Raises:
        ValueError: no hidden layer, a width, `messages`, `seeds` or D below 1, an unknown
            activation, or masses that are not finite numbers.
    """

    mass: Tensor | None

    def __init__(
        self,
        D: int = 3,
        hidden: Sequence[int] = (32, 32),
        *,
        messages: int = 4,
        activation: str | Activation = "tanh",
        seeds: int | Sequence[int] = 1,
        mass: Sequence[float] | None = None,
        pinned: bool = False,
        output_scale: float = 0.01,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.seeds = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
        self.D, self.hidden, self.messages, self.pinned = D, tuple(hidden), messages, pinned
        if not self.seeds or not hidden or min(*hidden, messages, D) < 1:
            raise ValueError(
                f"expected D, messages, seeds and every hidden width to be 1 or more, got D={D}, "
                f"messages={messages}, hidden={self.hidden}, seeds={self.seeds}"
            )
        sources = [torch.Generator().manual_seed(seed) for seed in self.seeds]
        spread = 0.3 * hidden[-1] ** -0.5
        self.edge = Dense(3, hidden, messages, activation, sources, spread, dtype, device)
        features = messages + (3 if pinned else 1)
        self.vertex = Dense(features, hidden, 1, activation, sources, output_scale, dtype, device)
        labels = None if mass is None else _labels(mass).to(dtype=dtype, device=device)
        self.register_buffer("mass", labels, persistent=False)  # N is not in the weights

    @property
    def S(self) -> int:
        """Number of members."""
        return len(self.seeds)

    def bodies(self, mass: Sequence[float]) -> "GraphLagrangian":
        """The same network for other bodies, N = len(mass): its weights are shared, not copied.

        Raises ValueError for masses that are not finite numbers.
        """
        other = copy.copy(self)
        other._buffers = {**self._buffers, "mass": _labels(mass).to(self.edge.output)}
        return other

    # What the network says about a state -------------------------------------------------------

    def lagrangian(self, q: States, qdot: States) -> Values:
        """The Lagrangian of every member, `(S, B)`. ValueError for states of wrong shape."""
        x, v, m = self._bodies(q, qdot)
        h = self._received(x, m)
        F = self.vertex.value(self._features(x, v, m, h).flatten(1, 2)).view_as(m)
        return (0.5 * m * v.square().sum(-1) + h[..., 0] + F).sum(-1)

    def momentum(self, q: States, qdot: States) -> Vectors:
        r"""The canonical momentum $p_i = \mu_i \dot x_i$ (`pinned`: $+ F_b x_i$), `(S, B, N D)`."""
        x, v, m = self._bodies(q, qdot)
        h = self._received(x, m) if self.messages > 1 else x[..., :1]  # the first is not seen
        psi = self._features(x, v, m, h)
        g = self.vertex.gradient(psi.flatten(1, 2)).view_as(psi)
        p = (m + 2 * g[..., 0] / (1 + v.square().sum(-1)))[..., None] * v
        return ((p + g[..., 1:2] * x) if self.pinned else p).flatten(-2)

    def energy(self, q: States, qdot: States) -> Values:
        r"""The energy $\dot q \cdot p - \mathcal L$, shape `(S, B)`."""
        _, v, _ = self._bodies(q, qdot)
        return (self.momentum(q, qdot) * v.flatten(-2)).sum(-1) - self.lagrangian(q, qdot)

    def charges(
        self, q: States, qdot: States, generators: Float[Tensor, "k D *D"]
    ) -> Float[Tensor, "S B k"]:
        r"""The network's own Noether charges $\sum_i p_i \cdot \xi(x_i)$, `(S, B, k)`.

        `generators` act on each body alike: `(k, D)` translations give the total momentum,
        `(k, D, D)` rotations the total angular momentum. Raises ValueError for another D.
        """
        if generators.shape[1] != self.D:
            raise ValueError(
                f"generators act on {generators.shape[1]} dimensions, the bodies move in {self.D}; "
                f"give those of groups.SO({self.D}) or groups.Translation({self.D})"
            )
        x, _, _ = self._bodies(q, qdot)
        p = self.momentum(q, qdot).view_as(x)
        generators = generators.to(p)
        if generators.dim() == 2:
            return torch.einsum("sbni,ki->sbk", p, generators)
        return torch.einsum("sbni,kij,sbnj->sbk", p, generators, x)

    # What the network says about motion --------------------------------------------------------

    def acceleration(self, q: States, qdot: States, check: bool = True) -> Vectors:
        r"""The acceleration of every body, `(S, B, N D)`, by Sherman, Morrison and Woodbury.

        With U the columns $\dot x_i$ (`pinned`: and $x_i$), a block is $A_i = \mu_i + U C U^T$ and
        $A_i^{-1} f = \bigl(f - U(\mu_i + C U^TU)^{-1} C U^T f\bigr)/\mu_i$: one division. With
        `check`, a block that cannot be inverted raises `SingularHessianError`, which names member,
        state and body; without, it gives inf or nan.
        """
        x, v, m = self._bodies(q, qdot)
        h, slopes, r = self._messages(x, m)
        psi = self._features(x, v, m, h)
        # The features' rate of change while the bodies move along v and v itself stands still.
        approach = 2 * (r * (v[:, :, :, None] - v[:, :, None])).sum(-1)  # d|x_i - x_j|^2 / dt
        hdot = (slopes * approach[..., None]).sum(3)
        moving = [torch.zeros_like(m)]
        if self.pinned:
            moving += [v.square().sum(-1), 2 * (x * v).sum(-1)]
        moving = torch.cat([torch.stack(moving, -1), hdot[..., 1:], 0 * m[..., None]], dim=-1)
        # Second derivatives of F along d(v.v) (pinned: and d(x.v)) and along the motion.
        c, bend = 2 if self.pinned else 1, 1 / (1 + v.square().sum(-1))  # of log(1 + v.v)
        unit = torch.eye(psi.shape[-1], dtype=psi.dtype, device=psi.device)
        along = [bend[..., None] * unit[0], unit[1].expand_as(psi)][:c]
        directions = torch.stack([*along, moving], dim=-2)
        g, H = self.vertex.second_order(psi.flatten(1, 2), directions.flatten(1, 2))
        g, H = g.view_as(psi), H.view(*psi.shape[:3], c + 1, c + 1)
        C = H[..., :c, :c] - torch.nn.functional.pad(
            (g[..., 0] * bend.square())[..., None, None], (0, c - 1, 0, c - 1)
        )
        # Forces: pairs push along x_i - x_j, from both ends of the edge; then the moving features.
        pull = self._pull(g[..., len(along) + self.pinned : -1], slopes)
        f = 2 * (pull[..., None] * r).sum(3)
        if self.pinned:
            f = f + 2 * g[..., 2:3] * x
        twice = torch.tensor([2.0, 1.0], dtype=psi.dtype, device=psi.device)[:c]  # d(v.v) = 2 v.dv
        U = torch.stack([v, x][:c], dim=-1)  # (S, B, N, D, c)
        f = f - (U * (twice * H[..., :c, c])[..., None, :]).sum(-1)
        mu = m + 2 * g[..., 0] * bend
        result = _solved(mu, U, twice[:, None] * C * twice, f)
        if check and not bool(result.isfinite().all()):
            s, b, i = (~result.isfinite().all(-1)).nonzero()[0].tolist()
            raise SingularHessianError(
                f"member {s}, state {b}, body {i}: the block of d2L/dqdot2 cannot be inverted (mu "
                f"= {mu[s, b, i].item():.3g}) at x = {x[s, b, i].tolist()}, xdot = "
                f"{v[s, b, i].tolist()}; lower the learning rate, or keep away from this state"
            )
        return result.flatten(-2)

    def rhs(self, y: Float[Tensor, "S B two_d"]) -> Float[Tensor, "S B two_d"]:
        """The first-order form y' = f(y), y = (q, qdot), for `companion.integrators`; unchecked."""
        q, qdot = y.chunk(2, dim=-1)
        return torch.cat([qdot, self.acceleration(q, qdot, check=False)], dim=-1)

    # Edges and vertices ------------------------------------------------------------------------

    def _messages(self, x: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Messages `(S, B, N, K)`, the slope of each edge's in its squared length `(S, B, N, N,
        K)`, and the differences `(S, B, N, N, D)`."""
        r = x[:, :, :, None] - x[:, :, None]
        rows, stretch = _edge_inputs(r, m)
        phi, slope = self.edge.with_slope(rows.flatten(1, 3), 0)
        phi, slope = (y.view(*rows.shape[:4], -1) for y in (phi, slope))
        return _over_others(phi), slope * stretch[..., None], r

    def _received(self, x: Tensor, m: Tensor) -> Tensor:
        """The messages alone, `(S, B, N, K)`."""
        rows, _ = _edge_inputs(x[:, :, :, None] - x[:, :, None], m)
        return _over_others(self.edge.value(rows.flatten(1, 3)).view(*rows.shape[:4], -1))

    def _pull(self, g: Tensor, slopes: Tensor) -> Tensor:
        r"""$\partial\mathcal L/\partial s_{ij}$ of both edges of each pair, `(S, B, N, N)`."""
        weight = torch.cat([torch.ones_like(slopes[..., 0, :1]), g], dim=-1)
        one = (slopes @ weight[..., None]).squeeze(-1)
        return one + one.mT

    def _features(self, x: Tensor, v: Tensor, m: Tensor, h: Tensor) -> Tensor:
        """What a vertex sees, `(S, B, N, K + 1)`, or `(S, B, N, K + 3)` if pinned."""
        scalars = [torch.log1p(v.square().sum(-1))]
        if self.pinned:
            scalars += [(x * v).sum(-1), x.square().sum(-1)]
        return torch.cat([torch.stack(scalars, dim=-1), h[..., 1:], m[..., None]], dim=-1)

    # Housekeeping ------------------------------------------------------------------------------

    @torch.no_grad()
    def standardise(self, q: States, qdot: States) -> None:
        """Centres and scales what edges and vertices see, by its mean and spread over these states.

        Before training: the messages of the untrained edges are what the vertices are scaled by.
        """
        x, v, m = self._bodies(q, qdot)
        N = x.shape[2]
        rows, _ = _edge_inputs(x[:, :, :, None] - x[:, :, None], m)
        pairs = ~torch.eye(N, dtype=torch.bool, device=x.device)
        self.edge.standardise(rows[:, :, pairs].flatten(1, 2))
        h = self._received(x, m)
        self.vertex.standardise(self._features(x, v, m, h).flatten(1, 2))

    def member(self, s: int) -> "GraphLagrangian":
        """Member `s` as an ensemble of one, parameters copied. IndexError if there is none."""
        if not 0 <= s < self.S:
            raise IndexError(f"member {s} of an ensemble of {self.S}: expected 0..{self.S - 1}")
        one = copy.deepcopy(self)
        one.seeds = (self.seeds[s],)
        one.edge.keep(s)
        one.vertex.keep(s)
        return one

    def _bodies(self, q: Tensor, qdot: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The checked positions and velocities `(S, B, N, D)`, and the labels `(S, B, N)`."""
        like = self.edge.output
        if q.shape != qdot.shape or q.dim() not in (2, 3) or q.shape[-1] % self.D:
            raise ValueError(
                f"q and qdot must both be (B, N*D) or (S, B, N*D) with D = {self.D}, got "
                f"{tuple(q.shape)} and {tuple(qdot.shape)}; add a batch axis with q[None]"
            )
        q, qdot = expanded(q, qdot, like, self.S, "N*D")
        x, v = (y.unflatten(-1, (-1, self.D)) for y in (q, qdot))
        m = like.new_ones(x.shape[2]) if self.mass is None else self.mass
        if len(m) != x.shape[2]:
            raise ValueError(
                f"q holds {x.shape[2]} bodies and the network {len(m)} masses; take "
                "net.bodies(masses) with one mass a body"
            )
        return x, v, m.expand(x.shape[:3])


def _edge_inputs(r: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
    """What an edge sees, `(S, B, N, N, 3)`, and the derivative of the first input in |r|^2."""
    s = r.square().sum(-1)
    rows = [torch.log1p(s), m[..., None].expand_as(s), m[..., None, :].expand_as(s)]
    return torch.stack(rows, dim=-1), 1 / (1 + s)


def _over_others(phi: Tensor) -> Tensor:
    """The sum over j of what is sent from j to i, j other than i."""
    return phi.sum(3) - phi.diagonal(dim1=2, dim2=3).movedim(-1, 2)


def _solved(mu: Tensor, U: Tensor, C: Tensor, f: Tensor) -> Tensor:
    """The solution of `(mu + U C U^T) a = f` for every body; U has one column or two."""
    inner = mu[..., None, None] * torch.eye(C.shape[-1], dtype=C.dtype, device=C.device)
    inner = inner + C @ (U.mT @ U)
    right = (C @ (U.mT @ f[..., None])).squeeze(-1)
    if C.shape[-1] == 1:
        y = right / inner[..., 0]
    else:  # Cramer's rule
        (a, b), (c, d) = (row.unbind(-1) for row in inner.unbind(-2))
        one, two = right.unbind(-1)
        y = torch.stack([d * one - b * two, a * two - c * one], dim=-1)
        y = y / (a * d - b * c)[..., None]
    return (f - (U @ y[..., None]).squeeze(-1)) / mu[..., None]


def _labels(mass: Sequence[float]) -> Tensor:
    labels = torch.as_tensor(mass, dtype=torch.float64)
    if labels.dim() != 1 or not len(labels) or not bool(labels.isfinite().all()):
        raise ValueError(f"mass must be finite numbers, one a body, got {mass}")
    return labels
