"""The compiled loops of `companion._columns`; importing this module imports numba."""

import numpy as np

from companion._kernels import kernel


@kernel
def forward(u, a, eps2, out):
    """Writes sigma(u) and e of columns u `(R, n, M)` side by side into out `(R, n, 2 M)`."""
    R, n, M = u.shape
    one = np.ones(1, u.dtype)[0]
    mu = np.empty(M, u.dtype)
    for r in range(R):
        mu[:] = eps2
        for i in range(n):
            x = u[r, i]
            for m in range(M):
                mu[m] += x[m] * x[m]
        for m in range(M):
            mu[m] = np.sqrt(mu[m])
        for i in range(n):
            x, s, e = u[r, i], out[r, i, :M], out[r, i, M:]
            for m in range(M):
                s[m] = x[m] * (one / (one + mu[m]) + a)
                e[m] = x[m] / mu[m]


@kernel
def backward(u, g, a, eps2, du):
    """Writes the gradient in u `(R, n, M)` into du, g `(R, n, 2 M)` being that in the output."""
    R, n, M = u.shape
    one = np.ones(1, u.dtype)[0]
    mu, p, q = np.empty(M, u.dtype), np.empty(M, u.dtype), np.empty(M, u.dtype)
    for r in range(R):
        mu[:] = eps2
        p[:] = 0
        q[:] = 0
        for i in range(n):
            x, s, e = u[r, i], g[r, i, :M], g[r, i, M:]
            for m in range(M):
                mu[m] += x[m] * x[m]
                p[m] += x[m] * s[m]
                q[m] += x[m] * e[m]
        for m in range(M):
            rho = np.sqrt(mu[m])
            gain, inverse = one / (one + rho), one / rho
            q[m] = (p[m] * gain * gain + q[m] * inverse * inverse) * inverse
            p[m] = gain + a
            mu[m] = inverse
        for i in range(n):
            x, s, e, d = u[r, i], g[r, i, :M], g[r, i, M:], du[r, i]
            for m in range(M):
                d[m] = s[m] * p[m] + e[m] * mu[m] - x[m] * q[m]
