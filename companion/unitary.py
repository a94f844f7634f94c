r"""Unitary equivariance: networks of vectors that turn when their inputs turn (Ma & Chan 2022).

M vectors of $\mathbb C^n$ are the columns of a matrix x, `(..., n, M)`, and a group element acts on
all of them from the left, $g\,x$. A layer (eqs. 5 and 11)

$$y = x W + e\,b, \qquad x' = \sigma(y), \qquad e^{(\alpha)} = x^{(\alpha)} / |x^{(\alpha)}|$$

multiplies from the right, so that the order of the two does not matter: $g\,(xW) = (g\,x)\,W$.
Unit vectors take the place of a bias, and the activation $\sigma(u) = s(|u|)\,u$ changes a length,
never a direction. Weights and vectors are real or complex, as `dtype` says: real weights are
equivariant under O(n) and under U(n) too, complex ones under U(n).

The modulus is $|u| = \sqrt{\sum_i |u_i|^2 + \epsilon^2}$ wherever it is divided by: smooth at zero,
and still invariant. `UnitaryNetwork` is an ensemble: its parameters have a leading axis of S
members that never mix.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Shaped
from torch import Tensor

from companion._columns import activated

EPSILON = 1e-6  # of the modulus, in units of the standardised vectors
Vectors = Shaped[Tensor, "..."]  # (..., n, M), real or complex: checked where they come in


def squared_modulus(u: Vectors) -> Tensor:
    r"""$|u|^2$ of every column, `(..., 1, M)`, real."""
    return (u * u.conj()).real.sum(-2, keepdim=True)


def unit(u: Vectors, eps: float = EPSILON) -> Vectors:
    r"""The unit vectors $e = u / \sqrt{|u|^2 + \epsilon^2}$ of eq. 8; zero where u is zero."""
    return u * (squared_modulus(u) + eps**2).rsqrt()


class Radial:
    r"""A vector activation $\sigma(u) = s(\rho)\,u$, $\rho = \sqrt{|u|^2 + \epsilon^2}$.

    Subclasses give `gain`, the function s, and its derivative.
    """

    def gain(self, rho: Tensor) -> tuple[Tensor, Tensor]:
        r"""$s(\rho)$ and $s'(\rho)$."""
        raise NotImplementedError

    def __call__(self, u: Vectors, eps: float = EPSILON) -> Vectors:
        """The activation of every column of u, `(..., n, M)`."""
        return u * self.gain((squared_modulus(u) + eps**2).sqrt())[0]


class Softsign(Radial):
    r"""$\sigma(u) = u / (1 + |u|) + a\,u$, eq. 13: softsign with a residue a."""

    def __init__(self, a: float = 1.0) -> None:
        self.a = a

    def gain(self, rho: Tensor) -> tuple[Tensor, Tensor]:
        r"""$s = 1 / (1 + \rho) + a$."""
        s = 1 / (1 + rho)
        return s + self.a, -s * s


class LeakyReLU(Radial):
    r"""$|\sigma(u)| = \max(|u| - \theta, \kappa |u|)$: ReLU in vector form is $\kappa = 0$.

    A length is never negative, so that without a threshold $\theta$ a ReLU would do nothing.
    """

    def __init__(self, threshold: float = 1.0, slope: float = 0.1) -> None:
        if not (threshold >= 0 and 0 <= slope <= 1):
            raise ValueError(
                f"threshold = {threshold}, slope = {slope}; expected a threshold of 0 or more and "
                "a slope between 0 and 1"
            )
        self.threshold, self.slope = threshold, slope

    def gain(self, rho: Tensor) -> tuple[Tensor, Tensor]:
        r"""$s = \max(1 - \theta/\rho, \kappa)$."""
        s = 1 - self.threshold / rho
        return s.clamp(min=self.slope), self.threshold / rho**2 * (s > self.slope)


class Identity(Radial):
    r"""$\sigma(u) = u$, eq. 14: of the last layer."""

    def gain(self, rho: Tensor) -> tuple[Tensor, Tensor]:
        """s = 1."""
        return torch.ones_like(rho), torch.zeros_like(rho)


ACTIVATIONS: dict[str, Callable[..., Radial]] = {
    "softsign": Softsign,
    "relu": lambda threshold=1.0: LeakyReLU(threshold, 0.0),
    "leaky_relu": LeakyReLU,
    "identity": Identity,
}


def softsign(u: Vectors, a: float = 1.0) -> Vectors:
    r"""$u / (1 + |u|) + a\,u$ of every column, eq. 13."""
    return Softsign(a)(u)


def relu(u: Vectors, threshold: float = 1.0) -> Vectors:
    r"""$\max(|u| - \theta, 0)\,u/|u|$ of every column: ReLU in vector form."""
    return LeakyReLU(threshold, 0.0)(u)


def leaky_relu(u: Vectors, threshold: float = 1.0, slope: float = 0.1) -> Vectors:
    r"""$\max(|u| - \theta, \kappa |u|)\,u/|u|$ of every column: leaky ReLU in vector form."""
    return LeakyReLU(threshold, slope)(u)


def cross_products(x: Vectors) -> Vectors:
    r"""All $x^{(\alpha)} \times x^{(\beta)}$ with $\alpha < \beta$, of the columns of x
    `(..., 3, M)`.

    Pseudovectors (section 3.6): under g in O(3) they go to $\det(g)\,g$ times themselves, under g
    in U(3) to $\det(g)\,\bar g$ times themselves. Returns `(..., 3, M (M - 1) / 2)`, pairs in the
    order (1,2), (1,3), ..., (M-1,M). Raises ValueError unless n = 3.
    """
    if x.dim() < 2 or x.shape[-2] != 3:
        raise ValueError(f"x: got shape {tuple(x.shape)}, expected (..., 3, M): three components")
    alpha, beta = torch.triu_indices(x.shape[-1], x.shape[-1], offset=1, device=x.device)
    return torch.linalg.cross(x[..., alpha], x[..., beta], dim=-2)


def require_epsilon(epsilon: float) -> None:
    """Raises ValueError unless the epsilon of a modulus is a positive number."""
    if not 0 < epsilon < float("inf"):
        raise ValueError(f"epsilon = {epsilon}; expected a positive number, 1e-6 for eq. 8")


class UnitaryNetwork(torch.nn.Module):
    r"""An ensemble of S feedforward unitary equivariant networks, section 3.2 of Ma & Chan (2022).

    Args:
        sizes: numbers of vectors $M_0, M_1, \dots, M_L$; the paper's for argon by default.
        activation: `softsign`, `relu`, `leaky_relu`, `identity` or a `Radial`; the last layer has
            the identity, eq. 14.
        a: residue of softsign, eq. 13.
        scalars: m; the last m of the n coordinates are scalar features (section 3.3), which no
            group element touches.
        seeds: the members' seeds, or their number S (then 0 to S - 1).
        output_scale: spread of the outputs before training, in units of the targets' spread.
        epsilon: of the modulus, in units of the standardised vectors. Unit vectors, eq. 8, have a
            kink where a vector passes zero, as hidden ones do all the time; an epsilon of a few
            tenths rounds it off, and the network is as equivariant.
        dtype: of weights and vectors; a complex one makes complex weights.
        device: of the weights.

    Raises:
        ValueError: fewer than two sizes, a size below 1, an unknown activation, no seeds, m below
            0, epsilon not above 0, a dtype of whole numbers.
    """

    spread_in: Tensor
    spread_out: Tensor

    def __init__(
        self,
        sizes: Sequence[int] = (6, 50, 90, 100, 80, 50, 4),
        activation: str | Radial = "softsign",
        a: float = 1.0,
        scalars: int = 0,
        seeds: int | Sequence[int] = 1,
        output_scale: float = 1.0,
        epsilon: float = EPSILON,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        if len(self.sizes) < 2 or min(self.sizes) < 1:
            raise ValueError(f"sizes = {self.sizes}; expected M_0, ..., M_L, each 1 or more")
        require_epsilon(epsilon)
        if scalars < 0:
            raise ValueError(f"scalars = {scalars}; expected the number m of scalar features")
        if not (dtype.is_floating_point or dtype.is_complex):
            raise ValueError(f"dtype = {dtype}; expected a real or complex floating-point type")
        self.seeds = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
        if not self.seeds:
            raise ValueError("seeds: got none; expected at least one member")
        self.activation = activation_named(activation, a)
        self.scalars, self.complex, self.epsilon = scalars, dtype.is_complex, epsilon
        sources = [torch.Generator().manual_seed(seed) for seed in self.seeds]
        real = dtype.to_real()
        parts = 2 if self.complex else 1

        def normal(sd: float, rows: int, columns: int) -> torch.nn.Parameter:
            # complex weights: real parts, then imaginary parts, side by side in real columns
            draws = [
                torch.randn(rows, parts * columns, generator=g, dtype=torch.float64)
                for g in sources
            ]
            scaled = torch.stack(draws) * (sd * parts**-0.5)
            return torch.nn.Parameter(scaled.to(dtype=real, device=device))

        steps = list(zip(self.sizes, self.sizes[1:], strict=False))
        spreads = [(2 * m) ** -0.5 for m, _ in steps]
        spreads[-1] *= output_scale
        self.weights = torch.nn.ParameterList(
            normal(sd, *step) for sd, step in zip(spreads, steps, strict=True)
        )
        self.biases = torch.nn.ParameterList(
            normal(sd, *step) for sd, step in zip(spreads, steps, strict=True)
        )
        S = len(self.seeds)
        self.register_buffer("spread_in", torch.ones(S, 2, dtype=real, device=device))
        self.register_buffer("spread_out", torch.ones(S, 2, dtype=real, device=device))

    @property
    def S(self) -> int:
        """Number of members."""
        return len(self.seeds)

    @property
    def dtype(self) -> torch.dtype:
        """Of the vectors: that of the weights, which the module keeps as real numbers."""
        real = self.weights[0].dtype
        return real.to_complex() if self.complex else real

    @property
    def size(self) -> int:
        """Real parameters of one member."""
        return sum(p[0].numel() for p in self.parameters())

    def forward(self, x: Vectors) -> Vectors:
        """The vectors `(S, B, n, M_L)` at `x`, `(S, B, n, M_0)` or `(B, n, M_0)` for all members.

        Raises ValueError for another shape, and for vectors of another dtype than the weights'.
        """
        x = self._checked(x)
        S, B, n, _ = x.shape
        per = self._per_coordinate(self.spread_in, n)
        x = x / per if self.scalars else x / per[:, :, :1]
        rows = self._pair(x, Identity())
        last = len(self.weights) - 1
        for k, (W, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            V = self._complex(torch.cat([W, b], dim=1))
            y = torch.bmm(rows.reshape(S, B * n, -1), V).view(S, B, n, -1)
            if k < last:
                rows = self._pair(y, self.activation)
        return y * self._per_coordinate(self.spread_out, n)

    def standardise(self, x: Vectors, T: Vectors) -> None:
        r"""Sets the units of inputs and targets: one spread each, the root mean square of all their
        components (of scalar features apart from the vectors), no mean taken off.

        `x` is `(S, B, n, M_0)` or `(B, n, M_0)`, `T` `(S, B, n, M_L)` or `(B, n, M_L)`. Raises
        ValueError for another shape or dtype, and if vectors or scalars are zero throughout or not
        finite.
        """
        measured = []
        for name, data, M in (("x", x, self.sizes[0]), ("T", T, self.sizes[-1])):
            data = self._checked(data, name, M)
            n = data.shape[-2] - self.scalars
            for part in (data[..., :n, :], data[..., n:, :])[: 2 if self.scalars else 1]:
                spread = part.abs().double().square().mean((1, 2, 3)).sqrt()
                if not bool(((spread > 0) & spread.isfinite()).all()):
                    raise ValueError(
                        f"{name}: the root mean square of a member's vectors (or of its scalars) "
                        f"is {spread.tolist()}; expected finite numbers, not all of them zero"
                    )
                measured.append(spread)
        columns = torch.stack(measured, dim=1)  # (S, 2), or with scalars (S, 4)
        spread_in, spread_out = columns.to(self.spread_in).chunk(2, dim=1)
        self.spread_in[:, : spread_in.shape[1]] = spread_in
        self.spread_out[:, : spread_out.shape[1]] = spread_out

    def keep(self, s: int) -> None:
        """Keeps member s alone, as an ensemble of one."""
        self.seeds = [self.seeds[s]]
        for p in [*self.parameters(), self.spread_in, self.spread_out]:
            p.data = p.data[s : s + 1].clone()

    def _checked(self, x: Vectors, name: str = "x", M: int | None = None) -> Vectors:
        M = self.sizes[0] if M is None else M
        good = x.dim() in (3, 4) and x.shape[-1] == M and x.shape[-2] > self.scalars
        if not good or (x.dim() == 4 and x.shape[0] not in (1, self.S)):
            raise ValueError(
                f"{name}: got shape {tuple(x.shape)}, expected ({self.S}, B, n, {M}) or "
                f"(B, n, {M}): vectors are columns"
                + (f", the last {self.scalars} coordinates scalars" if self.scalars else "")
            )
        if x.dtype != self.dtype:
            raise ValueError(
                f"{name}: got {x.dtype}, the vectors of this network are {self.dtype}; convert one "
                "of them"
            )
        return x.expand(self.S, *x.shape[-3:])

    def _per_coordinate(self, spread: Tensor, n: int) -> Tensor:
        """Spreads `(S, 1, n, 1)` of n coordinates, the last m of them scalars."""
        m = self.scalars
        columns = torch.cat([spread[:, :1].expand(-1, n - m), spread[:, 1:].expand(-1, m)], dim=1)
        return columns[:, None, :, None]

    def _complex(self, V: Tensor) -> Tensor:
        return torch.complex(*V.chunk(2, dim=-1)) if self.complex else V

    def _pair(self, y: Vectors, activation: Radial) -> Vectors:
        """Activation and unit vectors of y, side by side; e' = (e, 1) with scalars, eq. 16."""
        if not self.scalars:
            return activated(y, activation, self.epsilon)
        vectors, h = y.split([y.shape[-2] - self.scalars, self.scalars], dim=-2)
        s, _ = activation.gain((squared_modulus(y) + self.epsilon**2).sqrt())
        e = torch.cat([unit(vectors, self.epsilon) * (s > 0), torch.ones_like(h)], dim=-2)
        return torch.cat([y * s, e], dim=-1)


def activation_named(name: str | Radial, a: float = 1.0) -> Radial:
    """The vector activation of this name. Raises ValueError, with the names, for another."""
    if isinstance(name, Radial):
        return name
    if name not in ACTIVATIONS:
        raise ValueError(f"activation = {name!r}; expected one of {sorted(ACTIVATIONS)}")
    return Softsign(a) if name == "softsign" else ACTIVATIONS[name]()
