"""SOAP against torch's Adam, a slow textbook version, and S separate runs."""

import math

import pytest
import torch

from companion.optim import SOAP


def quadratic(p, target):
    return (p - target).square().sum()


def trained(start, gradient, steps, make):
    """The parameter after `steps` steps on `gradient(parameter, step)`."""
    p = torch.nn.Parameter(start.clone())
    optimizer = make([p])
    for step in range(steps):
        p.grad = gradient(p.detach(), step)
        optimizer.step()
    return p.detach()


def noisy_gradient(seed, curvature=None):
    """Gradients of a quadratic form with noise: full rank, different in every step."""

    def gradient(p, step):
        draw = torch.Generator().manual_seed(1000 * seed + step)
        noise = torch.randn(p.shape, generator=draw, dtype=p.dtype)
        return (p if curvature is None else curvature @ p) + 0.3 * noise

    return gradient


def textbook(start, gradient, steps, bases, lr, beta1, beta2, eps, every):
    """Algorithm 3 of Vyas et al. (2024) for one matrix, with loops and nothing clever.

    Eigenvectors are refreshed by one power iteration and a QR decomposition (algorithm 4); the
    columns are sorted by their estimated eigenvalues first, and the second moments with them.
    """
    W = start.clone()
    n, m = W.shape
    G = gradient(W, 0)
    L, R = G @ G.T, G.T @ G
    Q_L, Q_R = bases
    M, V = torch.zeros_like(W), torch.zeros_like(W)
    for t in range(1, steps + 1):
        G = gradient(W, t - 1)
        G_turned = Q_L.T @ G @ Q_R
        M = beta1 * M + (1 - beta1) * G
        M_turned = Q_L.T @ M @ Q_R
        N = torch.zeros_like(W)
        for i in range(n):
            for j in range(m):
                V[i, j] = beta2 * V[i, j] + (1 - beta2) * G_turned[i, j] ** 2
                mean = M_turned[i, j] / (1 - beta1**t)
                N[i, j] = mean / (math.sqrt(V[i, j] / (1 - beta2**t)) + eps)
        W = W - lr * Q_L @ N @ Q_R.T
        L = beta2 * L + (1 - beta2) * G @ G.T
        R = beta2 * R + (1 - beta2) * G.T @ G
        if t % every == 0:
            sizes = [float(Q_L[:, i] @ L @ Q_L[:, i]) for i in range(n)]
            order = sorted(range(n), key=lambda i: -sizes[i])
            V = V[order, :]
            Q_L = torch.linalg.qr(L @ Q_L[:, order]).Q
            sizes = [float(Q_R[:, j] @ R @ Q_R[:, j]) for j in range(m)]
            order = sorted(range(m), key=lambda j: -sizes[j])
            V = V[:, order]
            Q_R = torch.linalg.qr(R @ Q_R[:, order]).Q
    return W


@pytest.mark.parametrize(
    ("n", "m", "every"),
    [(4, 4, 1), (6, 6, 3), (5, 3, 4), (3, 5, 4), (5, 3, 10), (1, 6, 10), (4, 4, 40)],
)
def test_agrees_with_the_textbook(n, m, every):
    """The refreshes come when G G^T and G^T G have their full rank: eigenvectors of an eigenvalue
    0 are nobody's in particular, and for the same reason both start from the same ones."""
    draw = torch.Generator().manual_seed(n + m)
    start = torch.randn(2, n, m, generator=draw, dtype=torch.float64)
    factor = torch.randn(n, n, generator=draw, dtype=torch.float64)
    gradients = [noisy_gradient(s, factor @ factor.T) for s in range(2)]
    # eps far above rounding: at the first step the turned gradient is diagonal but for rounding
    options = {"lr": 0.02, "eps": 1e-4, "every": every}

    def stacked(p, step):
        return torch.stack([g(p[s], step) for s, g in enumerate(gradients)])

    soap = trained(start, stacked, 30, lambda p: SOAP(p, betas=(0.9, 0.95), **options))
    G = stacked(start, 0)
    Q_L, Q_R = torch.linalg.eigh(G @ G.mT)[1], torch.linalg.eigh(G.mT @ G)[1]
    for s in range(2):
        bases = Q_L[s], Q_R[s]
        slow = textbook(start[s], gradients[s], 30, bases, beta1=0.9, beta2=0.95, **options)
        assert (soap[s] - start[s]).abs().max() > 0.1  # it went somewhere
        torch.testing.assert_close(soap[s], slow, rtol=0, atol=1e-10)


def test_a_stack_is_as_many_matrices():
    draw = torch.Generator().manual_seed(1)
    start = torch.randn(4, 6, 5, generator=draw, dtype=torch.float64)
    gradients = [noisy_gradient(s) for s in range(4)]

    def stacked(p, step):
        return torch.stack([g(p[s], step) for s, g in enumerate(gradients)])

    together = trained(start, stacked, 25, SOAP)
    for s in range(4):

        def one(p, step, s=s):
            return gradients[s](p[0], step)[None]

        alone = trained(start[s : s + 1], one, 25, SOAP)
        torch.testing.assert_close(together[s : s + 1], alone, rtol=0, atol=1e-10)


def test_a_member_does_not_see_the_others():
    """Bit for bit: scale the gradients of the others by a million."""
    draw = torch.Generator().manual_seed(2)
    start = torch.randn(3, 6, 5, generator=draw)
    plain = trained(start, noisy_gradient(0), 25, SOAP)

    def louder(p, step):
        return noisy_gradient(0)(p, step) * torch.tensor([1e6, 1.0, 1e6]).view(3, 1, 1)

    assert torch.equal(trained(start, louder, 25, SOAP)[1], plain[1])


@pytest.mark.parametrize("shape", [(3,), (3, 7), (2, 3, 4, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_adam_for_anything_but_a_matrix(shape, dtype):
    draw = torch.Generator().manual_seed(3)
    start = torch.randn(shape, generator=draw, dtype=dtype)
    options = {"lr": 0.03, "betas": (0.8, 0.93), "eps": 1e-6}
    ours = trained(start, noisy_gradient(0), 40, lambda p: SOAP(p, **options))
    adam = trained(start, noisy_gradient(0), 40, lambda p: torch.optim.Adam(p, **options))
    assert (ours - start).abs().max() > 0.1
    torch.testing.assert_close(ours, adam, rtol=100 * torch.finfo(dtype).eps, atol=0)


def ill_conditioned(dtype=torch.float64):
    """min_W |A W B - A W* B|^2, curvatures from 1 to 1e-4 along directions no axis shows."""
    draw = torch.Generator().manual_seed(4)
    sizes = torch.logspace(0, -1, 12, dtype=dtype)

    def factor():
        turns = torch.linalg.qr(torch.randn(2, 12, 12, generator=draw, dtype=dtype)).Q
        return turns[0] @ torch.diag(sizes) @ turns[1]

    A, B = factor(), factor()
    target = torch.randn(2, 12, 12, generator=draw, dtype=dtype)

    def loss(W):
        return (A @ (W - target) @ B).square().sum((1, 2))

    return loss


def descend(loss, optimizer, p, steps, lr):
    """The loss after `steps` steps with the learning rate falling to zero."""
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 - step / steps)
        optimizer.zero_grad()
        loss(p).sum().backward()
        optimizer.step()
    return loss(p).detach().max().item()


def test_beats_adam_where_matrices_are_ill_conditioned():
    """Each at the best of its learning rates."""
    loss = ill_conditioned()
    best = {}
    for make in (SOAP, torch.optim.Adam):
        results = []
        for lr in (0.01, 0.03, 0.1):
            p = torch.nn.Parameter(torch.zeros(2, 12, 12, dtype=torch.float64))
            results.append(descend(loss, make([p], lr=lr), p, 150, lr))
        best[make] = min(results)
    assert best[SOAP] < 0.1 * best[torch.optim.Adam]


def test_closure_is_evaluated_with_gradients_and_its_value_returned():
    p = torch.nn.Parameter(torch.ones(2, 3, 3))
    optimizer = SOAP([p], lr=1e-3)

    def closure():
        optimizer.zero_grad()
        value = quadratic(p, 0.0)
        value.backward()
        return value.item()

    assert optimizer.step(closure) == 18.0
    assert quadratic(p, 0.0) < 18.0


def test_parameters_without_gradient_stay():
    p, still = torch.nn.Parameter(torch.ones(2, 3, 3)), torch.nn.Parameter(torch.ones(2, 3, 3))
    optimizer = SOAP([p, still])
    quadratic(p, 0.0).backward()
    optimizer.step()
    assert torch.equal(still, torch.ones(2, 3, 3))
    assert still not in optimizer.state


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gradient_of_rank_one_moves_along_itself(dtype):
    """The rotated gradient is rounding error everywhere else: no direction to follow."""
    draw = torch.Generator().manual_seed(6)
    u = torch.linalg.qr(torch.randn(2, 16, 1, generator=draw, dtype=dtype)).Q
    v = torch.linalg.qr(torch.randn(2, 16, 1, generator=draw, dtype=dtype)).Q

    def gradient(p, step):
        return torch.rand(2, 1, 1, generator=draw, dtype=dtype) * u @ v.mT

    p = trained(torch.zeros(2, 16, 16, dtype=dtype), gradient, 100, SOAP)
    along = u.mT @ p @ v
    assert along.abs().min() > 0.1
    aside = (p - u @ along @ v.mT).norm(dim=(1, 2))
    assert aside.max() < 0.05 * along.abs().min()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_zero_gradient_moves_nothing_and_leaves_no_nan(dtype):
    start = torch.ones(2, 4, 3, dtype=dtype)
    p = trained(start, lambda p, step: torch.zeros_like(p), 25, SOAP)
    assert torch.equal(p, start)
    half = trained(start, lambda p, step: p * torch.eye(4, 3, dtype=dtype), 25, SOAP)
    assert bool(half.isfinite().all())


def test_bases_stay_orthogonal_in_single_precision():
    p = torch.nn.Parameter(torch.randn(2, 20, 8, generator=torch.Generator().manual_seed(5)))
    optimizer = SOAP([p], every=1)
    for step in range(200):
        p.grad = noisy_gradient(0)(p.detach(), step) * torch.logspace(0, -6, 8)
        optimizer.step()
    for side in ("left_basis", "right_basis"):
        Q = optimizer.state[p][side]
        one = torch.eye(Q.shape[-1]).expand(2, -1, -1)
        torch.testing.assert_close(Q.mT @ Q, one, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"lr": -1e-3},
        {"lr": math.nan},
        {"betas": (1.0, 0.9)},
        {"betas": (0.9, -0.1)},
        {"betas": (0.9, math.nan)},
        {"eps": 0.0},
        {"eps": math.nan},
        {"every": 0},
    ],
)
def test_bad_arguments_are_refused(options):
    name, value = next(iter(options.items()))
    with pytest.raises(ValueError, match="expected lr >= 0, eps > 0, every >= 1") as caught:
        SOAP([torch.nn.Parameter(torch.ones(2, 3, 3))], **options)
    assert f"{name}={value}" in str(caught.value)
