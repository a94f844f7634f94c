r"""The arithmetic of `companion._flight`: RK4 steps of a Lagrangian network, compiled by numba.

The formulas and symbols are those of `companion.lagrangian` and `companion.integrators`. Loops run
over the contiguous axis, so that the compiler makes vector instructions of them. Everything is
computed in the dtype of the network, constants and sums included: `real` is that type.

Importing this module imports numba. A kernel is compiled when it is first called; the machine code
is kept in `__pycache__`.
"""

import inspect
import math
from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple

import numba
import numpy as np
from numba.extending import overload

from companion._activations import ACTIVATIONS

KINDS = list(ACTIVATIONS)
SOFTPLUS, TANH, SILU = (KINDS.index(name) for name in ("softplus", "tanh", "silu"))


def _compiling(*flags: str) -> Callable[[Callable], Callable]:
    """A decorator; no flag may let the compiler assume that inf and nan never come.

    `inspect.unwrap` takes off what jaxtyping puts around every function under pytest.
    """
    options = {"nogil": True, "error_model": "numpy", "fastmath": set(flags)}

    def decorate(function: Callable) -> Callable:
        try:
            return numba.njit(inspect.unwrap(function), cache=True, **options)
        except RuntimeError:  # there is no folder to keep the machine code in
            return numba.njit(inspect.unwrap(function), **options)

    return decorate


kernel = _compiling("contract")
kernel_of_sums = _compiling("contract", "nsz", "reassoc")  # a sum may be taken in any order


class Network(NamedTuple):
    r"""What a kernel reads, in one dtype. The features are $c + B z + \tfrac12 z^T Q_m z$."""

    activation: int
    c: np.ndarray  # (M,)
    B: np.ndarray  # (M, 2 d)
    places: np.ndarray  # (n, 3), the m, i, j of the n nonzero entries of Q
    values: np.ndarray  # (n,), those entries
    centre: np.ndarray  # (M,)
    scale: np.ndarray  # (M,)
    mass: np.ndarray  # (d,)
    first: np.ndarray  # (S, M, N), the first layer, transposed; N the padded width
    later: np.ndarray  # (S, layers - 1, N, N)
    later_T: np.ndarray  # (S, layers - 1, N, N), transposed
    biases: np.ndarray  # (S, layers, N)
    output: np.ndarray  # (S, N)


class Work(NamedTuple):
    """Where a kernel works. There are k directions; u and T are those of `companion.lagrangian`."""

    J: np.ndarray  # (M, 2 d)
    x: np.ndarray  # (M,)
    directions: np.ndarray  # (d + 1, M)
    rows: np.ndarray  # (1 + k, N), activations and their tangents
    uT: np.ndarray  # (layers, 1 + k, N), pre-activations u and their tangents T
    slope: np.ndarray  # (layers, N)
    bend: np.ndarray  # (layers, N)
    beta: np.ndarray  # (1, N)
    g: np.ndarray  # (M,)
    H: np.ndarray  # (k, k), along the k directions
    half: np.ndarray  # (d + 1, k), the same, along one direction and one feature
    A: np.ndarray  # (d, d + 1), the Hessian, and the right side as its last column
    slopes: np.ndarray  # (4, 2 d), of an RK4 step
    at: np.ndarray  # (2 d,), where they are taken


# Activations: loops without calls, which the compiler turns into vector instructions -------------

LOG2_HIGH = math.floor(math.log(2) * 2**15) / 2**15  # short, so that n * LOG2_HIGH is exact
LOG2_LOW = float(Decimal(2).ln() - Decimal(LOG2_HIGH))
EXP = tuple(1 / math.factorial(i) for i in range(13, 0, -1))
ATANH = tuple(2 / i for i in range(23, 0, -2))


def power_of_two(n):
    """2^n for a whole float n, from its bits."""


@overload(power_of_two)
def power_of_two_compiled(n):
    """What `power_of_two` is in a kernel."""
    if n == numba.types.float64:
        return lambda n: np.int64((np.int64(n) + 1023) << 52).view(np.float64)
    return lambda n: np.int32((np.int32(n) + 127) << 23).view(np.float32)


@kernel
def decay(x, real):
    """e^x = a + a p for x <= 0, as the pair a = 2^n, p = e^r - 1, |r| < 0.35; nan stays nan."""
    least = real(-87.0) if real(1e-300) == 0 else real(-708.0)  # below, e^x is no normal number
    x = least if x < least else x
    n = np.floor(x * real(1 / math.log(2)) + real(0.5))
    r = (x - n * real(LOG2_HIGH)) - n * real(LOG2_LOW)
    p = real(EXP[0])
    for c in EXP[1:]:
        p = p * r + real(c)
    return power_of_two(n if n > real(-1022.0) else real(-1022.0)), p * r


@kernel
def activate(kind, u, y, slope, bend):
    r"""Writes $\sigma(u), \sigma'(u), \sigma''(u)$, all `(N,)`: `companion._activations`, again."""
    real = u.dtype.type
    one, two = real(1.0), real(2.0)
    if kind == SOFTPLUS:
        for j in range(len(u)):
            a, p = decay(-abs(u[j]), real)
            e = a + a * p
            # log(1 + e) = log 2 + log((1 + e) / 2), by the nearer of the two; as 2 artanh(s)
            large = e > real(0.4142)
            s = (e - one) / (e + real(3.0)) if large else e / (e + two)
            series = real(ATANH[0])
            for c in ATANH[1:]:
                series = series * (s * s) + real(c)
            log1p = s * series + (real(math.log(2)) if large else real(0.0))
            sigmoid = (e if u[j] < 0 else one) / (one + e)
            y[j] = log1p + (real(0.0) if u[j] < 0 else u[j])
            slope[j] = sigmoid
            bend[j] = e / ((one + e) * (one + e))
    elif kind == TANH:
        for j in range(len(u)):
            a, p = decay(-two * abs(u[j]), real)
            m = a * p + (a - one)  # e^(-2 |u|) - 1 without cancellation
            t = -m / (two + m)
            t = -t if u[j] < 0 else t
            slope[j] = real(4.0) * (a + a * p) / ((two + m) * (two + m))
            y[j] = t
            bend[j] = -two * t * slope[j]
    elif kind == SILU:
        for j in range(len(u)):
            a, p = decay(-abs(u[j]), real)
            e = a + a * p
            s = (e if u[j] < 0 else one) / (one + e)
            ds = e / ((one + e) * (one + e))
            y[j] = u[j] * s
            slope[j] = s + u[j] * ds
            bend[j] = ds * (two + u[j] * (one - two * s))
    else:
        for j in range(len(u)):
            y[j] = math.sin(u[j])
            slope[j] = math.cos(u[j])
            bend[j] = -y[j]


# The dense layers ------------------------------------------------------------------------------


@kernel_of_sums
def multiply(X, W, Y):
    """Y = X W^T for rows X `(R, K)` and W `(N, K)`, N even: tiles of 4 rows by 2, then single rows.

    A tile keeps its 8 sums in registers and uses every number that it loads 2 or 4 times.
    """
    R, K = X.shape
    zero = X.dtype.type(0.0)
    for j in range(0, len(W), 2):
        w, v = W[j], W[j + 1]
        r = 0
        while r + 4 <= R:
            x0, x1, x2, x3 = X[r], X[r + 1], X[r + 2], X[r + 3]
            w0 = w1 = w2 = w3 = v0 = v1 = v2 = v3 = zero
            for i in range(K):
                w0 += x0[i] * w[i]
                w1 += x1[i] * w[i]
                w2 += x2[i] * w[i]
                w3 += x3[i] * w[i]
                v0 += x0[i] * v[i]
                v1 += x1[i] * v[i]
                v2 += x2[i] * v[i]
                v3 += x3[i] * v[i]
            Y[r, j], Y[r + 1, j], Y[r + 2, j], Y[r + 3, j] = w0, w1, w2, w3
            Y[r, j + 1], Y[r + 1, j + 1], Y[r + 2, j + 1], Y[r + 3, j + 1] = v0, v1, v2, v3
            r += 4
        while r < R:
            x0 = X[r]
            w0 = v0 = zero
            for i in range(K):
                w0 += x0[i] * w[i]
                v0 += x0[i] * v[i]
            Y[r, j], Y[r, j + 1] = w0, v0
            r += 1


@kernel_of_sums
def dot(a, b):
    """The sum of the products of two rows."""
    total = a.dtype.type(0.0)
    for j in range(len(a)):
        total += a[j] * b[j]
    return total


@kernel
def fill(y, value):
    """Every entry of y becomes `value`."""
    for j in range(len(y)):
        y[j] = value


@kernel
def copy(y, x):
    """y = x."""
    for j in range(len(y)):
        y[j] = x[j]


@kernel
def add_scaled(y, factor, x):
    """y += factor x."""
    for j in range(len(y)):
        y[j] += factor * x[j]


@kernel
def scale_by(y, x, factor):
    """y = factor x, entry by entry."""
    for j in range(len(y)):
        y[j] = factor[j] * x[j]


@kernel_of_sums
def add_curvature(H, T, beta, bend, product):
    """H += T^T diag(beta bend) T, upper triangle; `product` `(N,)` is overwritten."""
    for a in range(len(H)):
        for j in range(len(product)):
            product[j] = T[a, j] * (beta[j] * bend[j])
        for b in range(a, len(H)):
            H[a, b] += dot(product, T[b])


@kernel
def second_order(net, s, work, in_features):
    """`LagrangianNetwork._second_order` of member s: gradient g and second derivatives H.

    The directions are the features themselves, or the rows of `work.directions`.
    """
    rows, uT, slope, bend, beta = work.rows, work.uT, work.slope, work.bend, work.beta
    H, layers, k, M = work.H, len(work.uT), len(work.H), len(work.g)
    real = beta.dtype.type
    first = net.first[s]
    for n in range(layers):
        if n == 0:
            copy(uT[0, 0], net.biases[s, 0])
            for m in range(M):
                add_scaled(uT[0, 0], work.x[m], first[m])
            for a in range(k):
                if in_features:
                    copy(uT[0, 1 + a], first[a])
                else:
                    fill(uT[0, 1 + a], real(0.0))
                    for m in range(M):
                        add_scaled(uT[0, 1 + a], work.directions[a, m], first[m])
        else:
            multiply(rows, net.later[s, n - 1], uT[n])
            add_scaled(uT[n, 0], real(1.0), net.biases[s, n])
        activate(net.activation, uT[n, 0], rows[0], slope[n], bend[n])
        if n + 1 < layers:
            for a in range(1, 1 + k):
                scale_by(rows[a], uT[n, a], slope[n])
    copy(beta[0], net.output[s])
    for a in range(k):
        fill(H[a], real(0.0))
    for n in range(layers - 1, -1, -1):
        add_curvature(H, uT[n, 1:], beta[0], bend[n], rows[1])
        scale_by(rows[0], beta[0], slope[n])
        if n > 0:
            multiply(rows[:1], net.later_T[s, n - 1], beta)
    for m in range(M):
        work.g[m] = dot(rows[0], first[m]) / net.scale[m]
    for a in range(k):
        for b in range(a):
            H[a, b] = H[b, a]


# The motion ------------------------------------------------------------------------------------


@kernel
def solve(A):
    """Gaussian elimination in `(d, d + 1)`: the solution is left in the last column."""
    d = len(A)
    for i in range(d):
        pivot = i
        for r in range(i + 1, d):
            if abs(A[r, i]) > abs(A[pivot, i]):
                pivot = r
        if pivot != i:
            for c in range(i, d + 1):
                A[i, c], A[pivot, c] = A[pivot, c], A[i, c]
        for r in range(i + 1, d):
            factor = A[r, i] / A[i, i]
            for c in range(i + 1, d + 1):
                A[r, c] -= factor * A[i, c]
    for i in range(d - 1, -1, -1):
        for c in range(i + 1, d):
            A[i, d] -= A[i, c] * A[c, d]
        A[i, d] /= A[i, i]


@kernel
def rhs(net, s, y, ydot, work):
    """y' = f(y) of member s: `LagrangianNetwork.equations_of_motion`, and their solution."""
    J, D, H, g, half, A = work.J, work.directions, work.H, work.g, work.half, work.A
    (M, two_d), (d, k) = J.shape, (len(A), len(H))
    real = y.dtype.type
    for m in range(M):
        copy(J[m], net.B[m])
    for e in range(len(net.values)):
        J[net.places[e, 0], net.places[e, 1]] += net.values[e] * y[net.places[e, 2]]
    for m in range(M):
        value = motion = real(0.0)
        for i in range(two_d):
            value += real(0.5) * (J[m, i] + net.B[m, i]) * y[i]
        for i in range(d):
            motion += J[m, i] * y[d + i]
            D[i, m] = J[m, d + i] / net.scale[m]
        D[d, m] = motion / net.scale[m]
        work.x[m] = (net.c[m] + value - net.centre[m]) / net.scale[m]
    in_features = d + 1 > M  # fewer directions; H is turned into those of D afterwards
    second_order(net, s, work, in_features)
    for i in range(d):
        fill(A[i], real(0.0))
        A[i, i] = net.mass[i]
        for m in range(M):
            A[i, d] += g[m] * J[m, i]
    if in_features:
        for a in range(k):
            for b in range(d + 1):
                half[b, a] = dot(H[a], D[b])
    for i in range(d):
        for b in range(d + 1):
            bent = dot(D[i], half[b]) if in_features else H[i, b]
            if b < d:
                A[i, b] += bent
            else:
                A[i, d] -= bent
    for e in range(len(net.values)):
        i, j = net.places[e, 1] - d, net.places[e, 2]
        if i >= 0:
            bent = g[net.places[e, 0]] * net.values[e]
            if j >= d:
                A[i, j - d] += bent
            else:
                A[i, d] -= bent * y[d + j]
    solve(A)
    for i in range(d):
        ydot[i] = y[d + i]
        ydot[d + i] = A[i, d]


@kernel
def fly(net, work, low, high, y, lost, dt, every, compensated, path):
    """Trajectories low..high - 1 of y `(S, B, 2 d)`: fills path `(time, S, B, 2 d)`, moves y on.

    The steps are those of `integrators`, `lost` what compensated sums have rounded away.
    """
    B, two_d = y.shape[1:]
    real = y.dtype.type
    two, sixth = real(2.0), real(dt / 6)
    ahead = (real(dt / 2), real(dt / 2), real(dt))
    k, at = work.slopes, work.at
    for trajectory in range(low, high):
        s, b = trajectory // B, trajectory % B
        now, rest = y[s, b], lost[s, b]
        for t in range(len(path)):
            for _ in range(every):
                copy(at, now)
                for stage in range(4):
                    rhs(net, s, at, k[stage], work)
                    if stage < 3:
                        for i in range(two_d):
                            at[i] = now[i] + ahead[stage] * k[stage, i]
                for i in range(two_d):
                    step = sixth * ((k[0, i] + k[3, i]) + two * (k[1, i] + k[2, i]))
                    if compensated:
                        step += rest[i]
                        at[i] = now[i] + step
                        rest[i] = step - (at[i] - now[i])
                        now[i] = at[i]
                    else:
                        now[i] += step
            copy(path[t, s, b], now)
