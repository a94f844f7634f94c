r"""Reading formulas off numbers: polynomial regression, and when to believe it.

A network says that $P(z)$ is conserved. Which function is it? A polynomial
$P \approx \sum_m c_m\, z^m$ in all monomials up to a degree: the coefficients by least squares
(scikit-learn), the error on points that were not fitted. *Paper* is Syväri et al., *Symmetry
control neural networks* (2021), eqs. 16-18, 21-25 and appendix E.

A formula that fits does not make $P$ conserved: `conservation_ratio` is the test of that.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import sympy
import torch
from jaxtyping import Float, Shaped
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import PolynomialFeatures
from torch import Tensor

from companion.datasets import check_finite

Exponents = tuple[int, ...]
Name = str | sympy.Symbol
Pair = tuple[Tensor, Tensor]
EVERY = 5  # without held-out points every fifth is held out


@dataclass(frozen=True)
class Formula:
    r"""A polynomial $\sum_m c_m\, z^m$ fitted to values of one function.

    `coefficients` has one entry a monomial, keyed by its exponents: with the names `q, p` the key
    `(2, 1)` is $q^2 p$ and `(0, 0)` the constant. Of the held-out points: `mse` the mean square
    error, `r2` $= 1 - \mathrm{mse}/\mathrm{var}$, `relative_error` $= \sqrt{\mathrm{mse}/
    \mathrm{var}}$. `undetermined` counts combinations of monomials that vanish on the fitted
    points: if it is not 0, other coefficients fit as well (these are the smallest).
    """

    names: tuple[Name, ...]
    degree: int
    coefficients: Mapping[Exponents, float] = field(repr=False)
    mse: float
    r2: float
    relative_error: float
    undetermined: int

    def __call__(self, z: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
        """The value of the polynomial."""
        powers = z.new_tensor(list(self.coefficients))  # (M, n)
        weights = z.new_tensor(list(self.coefficients.values()))
        return (z[..., None, :] ** powers).prod(-1) @ weights

    def coefficient(self, **exponents: int) -> float:
        """The coefficient of one monomial: `coefficient(q=2, p=1)` of $q^2 p$; 0 if not fitted."""
        known = [str(name) for name in self.names]
        if not set(exponents) <= set(known):
            raise ValueError(f"{sorted(set(exponents) - set(known))}: expected names of {known}")
        return self.coefficients.get(tuple(exponents.get(name, 0) for name in known), 0.0)

    def split(self, threshold: float = 0.05) -> tuple[dict[Exponents, float], float]:
        """The terms worth printing, and the largest coefficient (in size) among the others.

        `threshold` is a fraction of the largest coefficient, the constant apart.
        """
        sizes = [abs(c) for m, c in self.coefficients.items() if any(m)]
        limit = threshold * max(sizes)
        kept = {m: c for m, c in self.coefficients.items() if abs(c) > limit}
        rest = [abs(c) for m, c in self.coefficients.items() if m not in kept]
        return kept, max(rest, default=0.0)

    def text(self, threshold: float = 0.05, digits: int = 2) -> str:
        """The formula as the paper prints its own, small terms omitted and their bound stated:
        `-4.21 p_x1 + 0.93 q_1 p_y2^2 (mse 0.03, omitted below 0.01)`."""
        kept, largest = self.split(threshold)
        terms = _terms(kept, [str(name) for name in self.names], digits, " ")
        return f"{terms} (mse {self.mse:.1e}, omitted below {_above(largest)})"

    def latex(self, threshold: float = 0.05, digits: int = 2) -> str:
        """The same without the bracket, for mathematics."""
        symbols = [sympy.Symbol(name) if isinstance(name, str) else name for name in self.names]
        return _terms(self.split(threshold)[0], [sympy.latex(x) for x in symbols], digits, r"\,")

    def _repr_latex_(self) -> str:
        largest = self.split()[1]
        number = rf"\mathrm{{mse}}\ {self.mse:.1e},\ \mathrm{{omitted}}<{_above(largest)}"
        return rf"$\displaystyle {self.latex()}\quad({number})$"


def fit(
    z: Shaped[Tensor, "..."],
    y: Shaped[Tensor, "..."],
    names: Sequence[Name],
    degree: int,
    *,
    test: Pair | None = None,
) -> Formula:
    """The polynomial of this degree in `z` that is closest to `y` in the mean square.

    Args:
        z: states `(..., B, n)`, of any dtype, gradients ignored.
        y: values `(..., B)`.
        names: n names or symbols, those of the components of z.
        degree: 1 or more.
        test: held-out `(z, y)`. Without them every fifth entry of the axis B is held out: give
            whole trajectories as `(time, B, n)`, and whole trajectories are held out.

    Raises:
        ValueError: shapes that do not fit, nan or inf (named by index), a degree below 1, fewer
            points than monomials, or a `y` that does not vary.
    """
    return by_degree(z, y, names, [degree], test=test)[degree]


def by_degree(
    z: Shaped[Tensor, "..."],
    y: Shaped[Tensor, "..."],
    names: Sequence[Name],
    degrees: Iterable[int] = (1, 2, 3, 4),
    *,
    test: Pair | None = None,
) -> dict[int, Formula]:
    """`fit` for several degrees: the data of the paper's figure 5. Same arguments and errors.

    The number of monomials in n variables up to degree k is `comb(n + k, k)`, the cost grows with
    its square and linearly in the points: some twenty points a monomial are enough.
    """
    (z, y), (z_test, y_test) = _split(z, y, test)
    names = tuple(names)
    if len(names) != z.shape[1]:
        raise ValueError(
            f"names: got {len(names)} names for z with {z.shape[1]} components; give one each"
        )
    variance = y_test.var()
    if variance <= (1e-12 * np.abs(y_test).max()) ** 2:
        raise ValueError(f"y is the same, {y_test[0]:.6g}, at all held-out points: nothing to fit")
    found = {}
    for degree in degrees:
        if degree < 1:
            raise ValueError(f"degree must be 1 or more, got {degree}")
        monomials = math.comb(z.shape[1] + degree, degree)
        if len(z) < monomials:
            raise ValueError(
                f"{len(z)} points for {monomials} monomials of degree <= {degree} in "
                f"{z.shape[1]} variables; give at least as many, better twenty times"
            )
        basis = PolynomialFeatures(degree, include_bias=False)
        features = basis.fit_transform(z)
        model = LinearRegression().fit(features, y)
        powers = [tuple(int(k) for k in row) for row in basis.powers_]
        coefficients = {(0,) * z.shape[1]: float(model.intercept_)}
        coefficients |= dict(zip(powers, map(float, model.coef_), strict=True))
        error = float(np.mean((model.predict(basis.transform(z_test)) - y_test) ** 2))
        found[degree] = Formula(
            names,
            degree,
            coefficients,
            mse=error,
            r2=1 - error / float(variance),
            relative_error=math.sqrt(error / variance),
            undetermined=features.shape[1] - int(model.rank_),
        )
    return found


def choose_degree(
    formulas: Mapping[int, Formula],
    *,
    factor: float | int = 3.0,
    limit: float = 0.05,
    floor: float = 1e-3,
) -> int | None:
    """The lowest degree from which on the error no longer falls, None if there is none.

    A degree is chosen if its relative error on held-out points is below `limit`, and no higher
    degree that was tried makes it smaller by `factor` or more; errors below `floor` count as
    `floor`. The highest degree tried is never chosen: a fall that nobody saw end is how a function
    that is no polynomial looks (appendix E, figure 5, coordinate 3). Of a learned function, whose
    small wiggles every higher degree fits better, ask with a larger `factor`.

    Raises:
        ValueError: fewer than two degrees, or a `factor` of 1 or less.
    """
    if len(formulas) < 2 or factor <= 1:
        raise ValueError(
            f"got degrees {sorted(formulas)} and factor = {factor}; expected two degrees or more "
            "(the end of a fall is seen one degree later) and a factor above 1"
        )
    error = {k: max(formulas[k].relative_error, floor) for k in sorted(formulas)}
    for degree in list(error)[:-1]:
        beyond = min(error[k] for k in error if k > degree)
        if error[degree] < limit and beyond * factor > error[degree]:
            return degree
    return None


def conservation_ratio(P: Shaped[Tensor, "..."]) -> Float[Tensor, "..."]:
    r"""How much of a function's spread lies within trajectories: 0 conserved, 1 anything but.

    $$ r = \sqrt{\langle \mathrm{var}_t\, P \rangle_n \big/ \mathrm{var}_{t, n}\, P} $$

    the root mean (over n trajectories) variance in time, divided by the standard deviation over
    all points. As the variances within and between add up to the whole, $0 \le r \le 1$; and
    $r(aP + b) = r(P)$. Variances are means of squares, without Bessel's correction.

    Args:
        P: values `(time, n, ...)` on n trajectories; the result has the shape `(...)`.

    Raises:
        ValueError: fewer than two times or two trajectories, nan or inf, or a P that is the same
            everywhere: a constant is conserved and says nothing.
    """
    if P.dim() < 2 or min(P.shape[:2]) < 2 or not P.is_floating_point():
        raise ValueError(
            f"P has shape {tuple(P.shape)} and dtype {P.dtype}; expected floats (time, n, ...), "
            "two times or more on two trajectories or more"
        )
    P, eps = P.detach(), torch.finfo(P.dtype).eps
    check_finite(P=P)
    size = P.abs().amax((0, 1))
    P = P.double() - P.double().mean((0, 1))
    total = P.square().mean((0, 1)).sqrt()
    constant = total <= 8 * eps * size
    if bool(constant.any()):
        where = constant.nonzero()[0].tolist()
        raise ValueError(
            f"P{where or ''} is the same at all points (spread {total[tuple(where)]:.1e}, size "
            f"{size[tuple(where)]:.1e}); a constant is conserved trivially and is no quantity"
        )
    return P.var(0, correction=0).mean(0).sqrt() / total


@dataclass(frozen=True)
class Span:
    """Coefficients of determination, on held-out points, of polynomial regressions both ways.

    `known` `(b,)`: of each known function from all learned ones together. `learned` `(a,)`: of each
    learned function from all known ones. 1: it is such a polynomial; 0 or less: it is not.
    """

    known: tuple[float, ...]
    learned: tuple[float, ...]


def span(P: Shaped[Tensor, "..."], C: Shaped[Tensor, "..."], degree: int = 1) -> Span:
    """How far learned and known quantities are functions of each other, `degree` 1 linear ones.

    Learned charges are mixtures: any invertible function of conserved quantities is conserved.
    So no learned P need be the momentum for the momentum to be found: it must be a function of
    all P together.

    Args:
        P: learned values `(..., B, a)`.
        C: known values `(..., B, b)` at the same points.

    Raises:
        ValueError: as `fit`.
    """
    for name, x in (("P", P), ("C", C)):
        if x.dim() < 2 or not x.shape[-1]:
            raise ValueError(f"{name} has shape {tuple(x.shape)}; expected (..., B, number)")

    def determined(of: Tensor, by: Tensor) -> tuple[float, ...]:
        names = [f"x_{k}" for k in range(by.shape[-1])]
        return tuple(fit(by, y, names, degree).r2 for y in of.unbind(-1))

    return Span(known=determined(C, P), learned=determined(P, C))


def _split(z: Tensor, y: Tensor, test: Pair | None) -> tuple[tuple, tuple]:
    """Points to fit and points held out, as float64 arrays `(N, n)` and `(N,)`."""
    pairs = {"z, y": (z, y)} if test is None else {"z, y": (z, y), "test": test}
    for name, (a, b) in pairs.items():
        if a.dim() < 2 or a.shape[:-1] != b.shape or a.shape[-1] != z.shape[-1]:
            raise ValueError(
                f"{name} have shapes {tuple(a.shape)} and {tuple(b.shape)}; expected states "
                "(..., B, n) and a value for each, (..., B)"
            )
        check_finite(**{f"{name}[0]": a, f"{name}[1]": b})
    if test is not None:
        return _arrays(z, y), _arrays(*test)
    B = z.shape[-2]
    if B < EVERY:
        raise ValueError(
            f"z has B = {B} entries along its last axis but one: too few to hold out every "
            f"{EVERY}th; give more, or held-out points with test="
        )
    out = torch.arange(B) % EVERY == EVERY - 1
    return _arrays(z[..., ~out, :], y[..., ~out]), _arrays(z[..., out, :], y[..., out])


def _arrays(z: Tensor, y: Tensor) -> tuple[np.ndarray, np.ndarray]:
    z, y = z.detach().double().cpu(), y.detach().double().cpu()
    return z.reshape(-1, z.shape[-1]).numpy(), y.reshape(-1).numpy()


def _terms(kept: Mapping[Exponents, float], names: Sequence[str], digits: int, times: str) -> str:
    """`1.2 a + 3.4 a b^2`; the constant last."""
    parts = []
    for powers, c in sorted(kept.items(), key=lambda item: not any(item[0])):
        factors = [
            name + (f"^{k}" if k > 1 else "") for name, k in zip(names, powers, strict=True) if k
        ]
        sign = "-" if c < 0 else "+"
        parts.append(f"{sign} {times.join([f'{abs(c):.{digits}f}', *factors])}")
    if not parts:
        return "0"
    return parts[0].removeprefix("+ ").replace("- ", "-") + "".join(f" {x}" for x in parts[1:])


def _above(x: float | int) -> str:
    """A number of one digit that is not below x."""
    if x == 0:
        return "0"
    unit = 10.0 ** math.floor(math.log10(x))
    return f"{math.ceil(x / unit * (1 - 1e-12)) * unit:.0e}"
