"""Answers to homework 4: other right ones, which must earn the points, and wrong ones.

Keys are the ids of test cells; an entry is a whole answer cell, the others stay the instructor's.
"""

# ruff: noqa: E501 (lines as students write them)

SLOW = {"4b"}

ALTERNATIVES = {
    "1a": [
        """
# symbols of one's own, a matrix, a complex product
u, v, p_x, p_y = sympy.symbols("u v p_x p_y")
w = sympy.expand(2 * (u - sympy.I * v) * (p_x + sympy.I * p_y))
momenta = sympy.Matrix([w.coeff(sympy.I, 0), w.coeff(sympy.I, 1)])
""",
        """
# from a generating function of the old momenta and the new positions, by differentiation
F = p_x * (u**2 - v**2) + p_y * 2 * u * v
momenta = (F.diff(u), F.diff(v))
""",
    ],
    "1b": [
        """
p = sympy.Matrix([[2 * u, 2 * v], [-2 * v, 2 * u]]).inv() * sympy.Matrix([P_u, P_v])
K = sympy.simplify(p.dot(p) / (2 * m) - alpha / (u**2 + v**2))
""",
        "K = ((P_u**2 + P_v**2) / m - 8 * alpha) / sympy.sqrt(64 * (u**4 + 2 * u**2 * v**2 + v**4))",
    ],
    "1c": [
        """
a = alpha / (2 * sympy.Abs(E))
omega_tau = sympy.sqrt(sympy.Abs(E) / m / 2)
period = sympy.sqrt(4 * sympy.pi**2 * m * a**3 / alpha)
""",
        """
E, m = sympy.Symbol("E"), sympy.Symbol("m")
omega_tau = (-2 * E * m) ** 0.5 / (2 * m)
period = sympy.pi * alpha * sympy.sqrt(m / 2) / (-E) ** sympy.Rational(3, 2)
""",
    ],
    "2a": [
        """
def shadow(M, i):
    R = np.asarray(M)
    d = R.shape[-1] // 2
    R = np.stack([R[..., i, :], R[..., i + d, :]], -2)
    return np.pi * np.sqrt(np.linalg.det(R @ np.swapaxes(R, -1, -2)))
""",
        """
def shadow(M, i):
    a, b = M[..., i, :], M[..., M.shape[-1] // 2 + i, :]
    along = (a * b).sum(-1, keepdim=True) / (a * a).sum(-1, keepdim=True)
    return np.pi * a.norm(dim=-1) * (b - along * a).norm(dim=-1)
""",
    ],
    "2b": [
        """
def complete(A, B):  # a least-norm solution of {Q, P} = 1, then a shear that makes the momenta commute
    d = len(A)
    Q = torch.cat([A, B], 1)
    X = torch.linalg.pinv(Q @ omega(d))  # (2d, d): Q Omega X = 1, the columns are momenta
    P = X.T
    S = P @ omega(d) @ P.T
    return torch.cat([Q, P + S @ Q / 2])
""",
        """
def complete(A, B):  # another member of the family, in numpy, as a list
    A, B = np.asarray(A), np.asarray(B)
    N = np.linalg.inv(A @ A.T + B @ B.T)
    C, D = -N @ B, N @ A
    S = np.arange(len(A) ** 2).reshape(len(A), -1) / 10
    S = S + S.T
    return np.block([[A, B], [C + S @ A, D + S @ B]]).tolist()
""",
    ],
    "3a": [
        "def T(z):\n    return z + torch.stack([3 * z[:, 3], 0 * z[:, 0], 0 * z[:, 0], 0 * z[:, 0]], 1)",
        """
def T(z):  # all turned by a right angle, and a shift that is a curl
    q, p = z[:, [1, 0]] * torch.tensor([-1.0, 1.0]), z[:, [1, 0]] * 0
    p = z[:, [3, 2]] * torch.tensor([-1.0, 1.0])
    return torch.cat([q + torch.stack([torch.sin(3 * p[:, 1]) + p[:, 1], 0 * p[:, 0]], 1), p], 1)
""",
        """
def T(z):  # a shift along p by the angular momentum
    q, p = z.numpy()[:, :2], z.numpy()[:, 2:]
    L = q[:, :1] * p[:, 1:] - q[:, 1:] * p[:, :1]
    return np.concatenate([q + L * p, p], 1)
""",
    ],
    "3b": [
        'prediction = dict(zip("abcdefgh", "Global no no global local local no global".split()))',
        'prediction = {k: "no" if k in "bcg" else "local" for k in "abcdefgh"}',
    ],
    "3c": [
        'prediction = dict(zip("abcdefgh", "Global no no global local local no global".split()))',
    ],
    "4a": [
        """
def fresh(z, seed):  # without the package: an energy of q_2 and p alone, and autograd
    source = torch.Generator().manual_seed(seed)
    A = torch.randn(3, 16, generator=source, dtype=torch.float64)
    c = torch.randn(16, generator=source, dtype=torch.float64)
    z = z.clone().requires_grad_()
    H = torch.tanh(z[:, 1:] @ A) @ c
    slope, = torch.autograd.grad(H.sum(), z)
    return torch.cat([slope[:, 2:], -slope[:, :2]], 1), z[:, 2]
""",
        """
def fresh(z, seed):  # bent coordinates: shears
    T = shears(2, 2, 16, seeds=[seed], dtype=torch.float64)
    net = SymmetryControlNetwork(T, 1, (), (24,))
    return [net(z)[0].detach().numpy(), net.charges(z)[0].detach().numpy()]
""",
        """
def fresh(z, seed):  # any direction of the plane
    T = LinearSymplectic(2, [seed], dtype=torch.float64)
    net = SymmetryControlNetwork(T, 1)
    return net(z)[0], 5 - 2 * net.charges(z)[0, :, 0]
""",
    ],
    "4b": [
        """
def learn(z, zdot, new, seed):  # one angle, found with the potential; Adam, double precision
    torch.manual_seed(seed)
    turn = torch.nn.Parameter(torch.tensor(0.3 + seed).double())
    V = torch.nn.Sequential(torch.nn.Linear(1, 32), torch.nn.Tanh(), torch.nn.Linear(32, 32), torch.nn.Tanh(),
                            torch.nn.Linear(32, 1)).double()
    # the direction of the force is that of the slope of V: start there
    U = torch.linalg.svd(zdot[:, 2:])[2][0]
    turn.data = torch.atan2(U[1], U[0])

    def rates(z, train=True):
        q = z[:, :2].detach().clone().requires_grad_()
        s = q[:, :1] * turn.cos() + q[:, 1:] * turn.sin()
        slope, = torch.autograd.grad(V(s).sum(), q, create_graph=train)
        return torch.cat([z[:, 2:], -slope], 1)

    opt = torch.optim.Adam([*V.parameters(), turn], lr=1e-2)
    steps = 1500
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, steps)
    for _ in range(steps):
        k = torch.randint(len(z), (100,))
        opt.zero_grad()
        (rates(z[k]) - zdot[k]).square().mean().backward()
        opt.step()
        schedule.step()
    c, s = turn.cos().item(), turn.sin().item()
    return rates(new, False), -s * new[:, 2] + c * new[:, 3], torch.tensor(-c / s)
""",
        """
def learn(z, zdot, new, seed):  # any symplectic matrix, wider, other steps, in double precision
    T = LinearPoint(2, [seed + 100], output_scale=0.5, dtype=torch.float64)
    net = SymmetryControlNetwork(T, 1, (), (64, 64), "tanh")
    net.standardise(z)
    loss = lambda net, z, zdot: net.hnn(z, zdot)
    training.fit(net, loss, lambda step: (z, zdot), steps=800, lr=1e-2, lr_end=1e-5, warmup=40, progress=False)
    slope = T.matrix()[0, 2].detach().numpy()
    return net(new)[0], net.charges(new)[0], slope[3] / slope[2]
""",
    ],
}

MISTAKES = {
    "1a": [
        "momenta = [2 * (u * p_x - v * p_y), 2 * (v * p_x + u * p_y)]",  # transposed
        "momenta = [u * p_x + v * p_y, u * p_y - v * p_x]",  # a factor 2
        "momenta = [2 * (u * p_x + v * p_y), 2 * (v * p_x - u * p_y)]",  # a sign
        # inverse in place of transpose: the velocities' rule
        "J = sympy.Matrix([[2 * u, -2 * v], [2 * v, 2 * u]])\nmomenta = list(J.inv() * sympy.Matrix([p_x, p_y]))",
        "momenta = [2 * (u * p_x + v * p_y) + v, 2 * (u * p_y - v * p_x) + u]",  # canonical, with a gauge
        "momenta = 2 * (u * p_x + v * p_y)",
    ],
    "1b": [
        "K = (P_u**2 + P_v**2) / (2 * m * (u**2 + v**2)) - alpha / (u**2 + v**2)",
        "K = (P_u**2 + P_v**2) / (8 * m * (u**2 + v**2)) - alpha / sympy.sqrt(u**2 + v**2)",
        "K = (P_u**2 + P_v**2) / (8 * (u**2 + v**2)) - alpha / (u**2 + v**2)",
        "K = (u**2 + v**2) * (P_u**2 + P_v**2) / (8 * m) - alpha / (u**2 + v**2)",
        "K = (p_x**2 + p_y**2) / (2 * m) - alpha / (u**2 + v**2)",
    ],
    "1c": [
        "omega_tau = sympy.sqrt(-E / (2 * m))\nperiod = 2 * sympy.pi / omega_tau * alpha / (-2 * E)",
        "omega_tau = sympy.sqrt(-E / (2 * m))\nperiod = sympy.pi / omega_tau",  # in tau
        "omega_tau = -E / (2 * m)\nperiod = sympy.pi / sympy.sqrt(omega_tau) * alpha / (-2 * E)",
        "omega_tau = sympy.sqrt(-2 * E / m)\nperiod = sympy.pi / omega_tau * alpha / (-2 * E)",
        "omega_tau = sympy.sqrt(E / (2 * m))\nperiod = sympy.pi / omega_tau * alpha / (-2 * E)",
    ],
    "2a": [
        # columns
        """
def shadow(M, i):
    d = M.shape[-1] // 2
    return torch.pi * torch.linalg.svdvals(M[..., [i, d + i]]).prod(-1)
""",
        # pairs side by side
        """
def shadow(M, i):
    return torch.pi * torch.linalg.svdvals(M[..., 2 * i : 2 * i + 2, :]).prod(-1)
""",
        # a cut, not a shadow
        """
def shadow(M, i):
    d = M.shape[-1] // 2
    return torch.pi * torch.linalg.det(M[..., [i, d + i], :][..., [i, d + i]]).abs()
""",
        # no root
        """
def shadow(M, i):
    d = M.shape[-1] // 2
    R = M[..., [i, d + i], :]
    return torch.pi * torch.linalg.det(R @ R.mT)
""",
        # without pi
        """
def shadow(M, i):
    d = M.shape[-1] // 2
    return torch.linalg.svdvals(M[..., [i, d + i], :]).prod(-1)
""",
        # the bracket: right for symplectic planes only
        """
def shadow(M, i):
    d = M.shape[-1] // 2
    return torch.pi * (M @ omega(d).to(M) @ M.mT)[..., i, d + i].abs()
""",
        # a box around the ellipse
        """
def shadow(M, i):
    d = M.shape[-1] // 2
    return torch.pi * M[..., i, :].norm(dim=-1) * M[..., d + i, :].norm(dim=-1)
""",
    ],
    "2b": [
        # for positions from positions only
        """
def complete(A, B):
    none = torch.zeros_like(A)
    return torch.cat([torch.cat([A, B], 1), torch.cat([none, torch.linalg.pinv(A).T], 1)])
""",
        # for orthonormal rows only
        "def complete(A, B):\n    return torch.cat([torch.cat([A, B], 1), torch.cat([-B, A], 1)])",
        # the sign
        """
def complete(A, B):
    N = A @ A.T + B @ B.T
    return torch.cat([torch.cat([A, B], 1), torch.linalg.solve(N, torch.cat([B, -A], 1))])
""",
        # right brackets {Q, P}; the momenta do not commute
        """
def complete(A, B):
    d = len(A)
    Q = torch.cat([A, B], 1)
    N = A @ A.T + B @ B.T
    P = torch.linalg.solve(N, torch.cat([-B, A], 1))
    S = torch.triu(torch.ones(d, d, dtype=A.dtype))
    return torch.cat([Q, P + S @ Q])
""",
        # transposed
        """
def complete(A, B):
    N = A.T @ A + B.T @ B
    return torch.cat([torch.cat([A, B], 1), torch.linalg.solve(N, torch.cat([-B, A], 1))])
""",
        # divides by A
        """
def complete(A, B):
    none = torch.zeros_like(A)
    return torch.cat([torch.cat([A, B], 1), torch.cat([none, torch.linalg.inv(A).T], 1)])
""",
        # normalised rows, another Q
        """
def complete(A, B):
    d = len(A)
    Q = torch.linalg.qr(torch.cat([A, B], 1).T)[0].T
    return torch.cat([Q, torch.cat([-Q[:, d:], Q[:, :d]], 1)])
""",
    ],
    "3a": [
        "def T(z):\n    return z",
        "def T(z):\n    return torch.cat([2 * z[:, :2], z[:, 2:]], 1)",  # another velocity
        "def T(z):\n    return torch.cat([z[:, :2] + z[:, 2:].cos(), z[:, 2:]], 1)",  # a gradient: canonical
        "def T(z):\n    return 2 * z",  # another energy
        # volume kept, not the motions
        "def T(z):\n    return z * torch.tensor([2.0, 0.5, 1.0, 1.0])",
        # a turn that depends on the place
        """
def T(z):
    a = z[:, 0]
    return torch.stack([z[:, 0], z[:, 1], a.cos() * z[:, 2] - a.sin() * z[:, 3], a.sin() * z[:, 2] + a.cos() * z[:, 3]], 1)
""",
        # volumes are not kept: a stretch across the motion
        """
def T(z):
    q, p = z[:, :2], z[:, 2:]
    along = (q * p).sum(1, keepdim=True) / (p * p).sum(1, keepdim=True) * p
    return torch.cat([along + 2 * (q - along), p], 1)
""",
        # on the mean of the batch
        """
def T(z):
    return torch.cat([z[:, :2] + z[:, [3, 2]] * torch.tensor([1.0, -1.0]) + z[:, 2:].mean(), z[:, 2:]], 1)
""",
    ],
    "3b": [
        'prediction = {k: "no" for k in "abcdefgh"}',
        'prediction = dict(zip("abcdefgh", "global no global global local local no global".split()))',
        'prediction = dict(zip("abcdefgh", "no no no global local local no global".split()))',
        'prediction = {"a": "global"}',
        'prediction = dict(zip("abcdefgh", "yes no no yes yes yes no yes".split()))',
        'prediction = "gnngllng"',
    ],
    "3c": [
        'prediction = {k: "no" if k in "bcg" else "local" for k in "abcdefgh"}',
        'prediction = dict(zip("abcdefgh", "global no no global global local no global".split()))',
        'prediction = dict(zip("abcdefgh", "global no no global local local no local".split()))',
    ],
    "4a": [
        # an ordinary Hamiltonian network, and a momentum that nothing conserves
        """
def fresh(z, seed):
    net = HamiltonianNetwork(Coordinates(2), 2, (32, 32), seeds=[seed])
    z = z.float()
    return net(z)[0], z[:, 2]
""",
        # its own energy as the charge
        """
def fresh(z, seed):
    net = HamiltonianNetwork(Coordinates(2), 2, (32, 32), seeds=[seed])
    z = z.float()
    return net(z)[0], net.energy(z)[0]
""",
        # a soft map: nearly
        """
def fresh(z, seed):
    net = SymmetryControlNetwork(Transformation(2, (32, 32), seeds=[seed], output_scale=1.0), 1)
    z = z.float()
    return net(z)[0], net.charges(z)[0, :, 0]
""",
        # a constant
        """
def fresh(z, seed):
    net = HamiltonianNetwork(Coordinates(2), 2, (32, 32), seeds=[seed])
    return net(z.float())[0], torch.ones(len(z))
""",
        # the wrong half of the new coordinates
        """
def fresh(z, seed):
    T = LinearPoint(2, [seed], output_scale=0.5)
    net = SymmetryControlNetwork(T, 1, (), (48, 48), "silu")
    z = z.float()
    return net(z)[0], T.value(z)[0, :, 0]
""",
        # conserves, and is no Hamiltonian: a projected field
        """
def fresh(z, seed):
    source = torch.Generator().manual_seed(seed)
    A = torch.randn(4, 16, generator=source).double()
    B = torch.randn(16, 4, generator=source).double()
    F = torch.tanh(z @ A) @ B
    F[:, 2] = 0
    return F, z[:, 2]
""",
    ],
    "4b": [
        # one over the pitch
        """
def learn(z, zdot, new, seed):
    T = LinearPoint(2, [seed], output_scale=0.5)
    net = SymmetryControlNetwork(T, 1, (), (48, 48), "silu")
    z, zdot, new = z.float(), zdot.float(), new.float()
    net.standardise(z)
    training.fit(net, lambda net, *data: net.hnn(*data), lambda step: (z, zdot), steps=500, lr=1e-2, lr_end=1e-5, warmup=20, progress=False)
    P_1 = T.matrix()[0, 2]
    return net(new)[0], net.charges(new)[0, :, 0], (P_1[2] / P_1[3]).item()
""",
        # the direction of Q_2, not of P_1: minus one over the pitch, or the sign
        """
def learn(z, zdot, new, seed):
    T = LinearPoint(2, [seed], output_scale=0.5)
    net = SymmetryControlNetwork(T, 1, (), (48, 48), "silu")
    z, zdot, new = z.float(), zdot.float(), new.float()
    net.standardise(z)
    training.fit(net, lambda net, *data: net.hnn(*data), lambda step: (z, zdot), steps=500, lr=1e-2, lr_end=1e-5, warmup=20, progress=False)
    P_1 = T.matrix()[0, 2]
    return net(new)[0], net.charges(new)[0, :, 0], -(P_1[3] / P_1[2]).item()
""",
        # a Hamiltonian network, its energy as the charge, and the pitch from least squares
        """
def learn(z, zdot, new, seed):
    net = HamiltonianNetwork(Coordinates(2), 2, (48, 48), seeds=[seed])
    net.standardise(z.float())
    x, y = z.float(), zdot.float()
    training.fit(net, lambda net, z, zdot: (net(z) - zdot).square().mean((1, 2)), lambda step: (x, y), steps=500, lr=1e-2, lr_end=1e-5, warmup=20, progress=False)
    f = zdot[:, 2:]
    pitch = -(f[:, 0] ** 2).sum() / (f[:, 0] * f[:, 1]).sum()
    return net(new.float())[0], net.energy(new.float())[0], pitch
""",
        # ... and the true charge, which this network does not conserve
        """
def learn(z, zdot, new, seed):
    net = HamiltonianNetwork(Coordinates(2), 2, (48, 48), seeds=[seed])
    net.standardise(z.float())
    x, y = z.float(), zdot.float()
    training.fit(net, lambda net, z, zdot: (net(z) - zdot).square().mean((1, 2)), lambda step: (x, y), steps=500, lr=1e-2, lr_end=1e-5, warmup=20, progress=False)
    f = zdot[:, 2:]
    pitch = -(f[:, 0] ** 2).sum() / (f[:, 0] * f[:, 1]).sum()
    return net(new.float())[0], new[:, 2] + pitch * new[:, 3], pitch
""",
        # not trained
        """
def learn(z, zdot, new, seed):
    T = LinearPoint(2, [seed], output_scale=0.5)
    net = SymmetryControlNetwork(T, 1, (), (48, 48), "silu")
    P_1 = T.matrix()[0, 2]
    return net(new.float())[0], net.charges(new.float())[0, :, 0], (P_1[3] / P_1[2]).item()
""",
        # the screw that was shown, by heart
        """
def learn(z, zdot, new, seed):
    s = new[:, 0] - new[:, 1] / 0.8
    slope = s.sin() + 0.4 * (2 * s).sin()
    return torch.stack([*new[:, 2:].T, -slope, slope / 0.8], 1), new[:, 2] + 0.8 * new[:, 3], 0.8
""",
    ],
}
