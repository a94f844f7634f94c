"""Answers to homework 3: other right ones, which must earn the points, and wrong ones.

Keys are the ids of test cells; an entry is a whole answer cell, the others stay the instructor's.
"""

# ruff: noqa: E501 (lines as students write them)

SLOW = {"4b"}

ALTERNATIVES = {
    "1a": [
        """
# symbols of one's own, without assumptions, derived with components
m, alpha, qq, qp, pp = sympy.symbols("m alpha qq qp pp")
f_q, f_p = (pp * qq**0.5 - alpha * m) / qq**0.5, -1 * qp
AA = sympy.expand(f_q**2 * qq + f_p**2 * pp + 2 * f_q * f_p * qp)
""",
        """
# the square by the energy and the angular momentum, and a solution of linear equations
E = pp / (2 * m) - alpha / sympy.sqrt(qq)
AA = 2 * m * E * (qq * pp - qp**2) + m**2 * alpha**2
a, b = sympy.symbols("a b")
r = sympy.sqrt(qq)
found = sympy.solve([a * qq + b * qp - (pp * qq - qp**2 - m * alpha * r),
                     a * qp + b * pp - (-m * alpha * qp / r)], [a, b])
f_q, f_p = found[a], found[b]
""",
    ],
    "1b": [
        """
qq_qp, qq_pp, qp_pp = 2 * sympy.Symbol("qq"), sympy.Integer(4) * qp, pp + pp
qq_dot = 2 * qp / m
qp_dot = pp / m - alpha / sympy.Abs(sympy.sqrt(qq))
pp_dot = -2 * alpha * qp * qq ** sympy.Rational(-3, 2)
""",
    ],
    "1c": [
        "C = sympy.sqrt(qq * pp - qp**2)",
        "L = sympy.Symbol('qq') * sympy.Symbol('pp') - sympy.Symbol('qp')**2\nC = 7 - 3 * L**2 / (1 + L)",
        "C = sympy.Matrix([[qq, qp], [qp, pp]]).det()",
    ],
    "2a": [
        """
def volume(x):
    a, b, c = x[..., 1, :] - x[..., 0, :], x[..., 2, :] - x[..., 0, :], x[..., 3, :] - x[..., 0, :]
    return (torch.linalg.cross(a, b) * c).sum(-1) / 6
""",
        """
def volume(x):
    x = np.asarray(x)
    one = np.ones(x.shape[:-1] + (1,))
    return np.linalg.det(np.concatenate([one, x], -1)) / 6
""",
        """
def volume(x):
    return (torch.linalg.det((x - x.mean(-2, keepdim=True))[..., :3, :]) * 4 / 6) * -1
""",
    ],
    "2b": [
        """
def positions(D):
    G = (D[0][:, None] ** 2 + D[0][None] ** 2 - D**2) / 2  # seen from the first atom
    return scalars.vectors_from_gram(G, 3)
""",
        """
def positions(D):
    D = D.numpy()
    n = len(D)
    J = np.eye(n) - 1 / n
    U, s, _ = np.linalg.svd(-J @ D**2 @ J / 2)
    return (U[:, :3] * np.sqrt(s[:3]) + 5).tolist()
""",
    ],
    "3a": [
        """
# two opposite sticks change places with two others; tensors in single precision
def tetrahedron(d12, d13, d14, d23, d24, d34):
    D = torch.tensor([[0, d12, d13, d14], [d12, 0, d23, d24], [d13, d23, 0, d34], [d14, d24, d34, 0]])
    return scalars.vectors_from_gram((D[0][:, None] ** 2 + D[0] ** 2 - D**2).double() / 2, 3).float()


x = tetrahedron(7.0, 7.3, 7.6, 7.9, 8.2, 8.5)
y = -tetrahedron(8.5, 7.3, 7.6, 7.9, 8.2, 7.0)[[2, 0, 1, 3]]
""",
        """
from scipy.optimize import least_squares
i, j = np.triu_indices(4, 1)
rng = np.random.default_rng(0)
sticks = np.array([2.0, 2.1, 2.2, 2.3, 2.4, 2.5])


def build(sticks):
    off = lambda v: np.linalg.norm(v.reshape(4, 3)[i] - v.reshape(4, 3)[j], axis=1) - sticks
    return least_squares(off, rng.normal(size=12), xtol=1e-14, ftol=1e-14, gtol=1e-14).x.reshape(4, 3)


x, y = build(sticks).tolist(), build(sticks[[3, 1, 2, 0, 4, 5]]).tolist()
""",
    ],
    "3b": [
        """
def tell(x):  # the three moments of inertia, through a determinant
    c = x - x.mean(-2, keepdim=True)
    return torch.linalg.det(c.mT @ c + torch.eye(3, dtype=x.dtype))
""",
        """
def tell(x):  # areas of the four triangles
    from itertools import combinations
    total = 0
    for i, j, k in combinations(range(4), 3):
        a, b = np.asarray(x[..., j, :] - x[..., i, :]), np.asarray(x[..., k, :] - x[..., i, :])
        total = total + np.linalg.norm(np.cross(a, b), axis=-1)
    return total
""",
        """
def tell(x):
    D = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").float()
    return torch.linalg.eigvalsh(D)[..., -1]
""",
    ],
    "4a": [
        """
def fresh(z, seed):  # without the package: an energy of invariants, and autograd
    source = torch.Generator().manual_seed(seed)
    A = torch.randn(15, 32, generator=source, dtype=torch.float64) / 4
    c = torch.randn(32, generator=source, dtype=torch.float64)
    z = z.clone().requires_grad_()
    v = z.unflatten(1, (6, 3))
    v = torch.stack([v[:, 1] - v[:, 0], v[:, 2] - v[:, 0], v[:, 3], v[:, 4], v[:, 5]], 1)
    i, j = torch.triu_indices(5, 5)
    H = torch.tanh((v @ v.mT)[:, i, j] / 5 @ A) @ c
    slope, = torch.autograd.grad(H.sum(), z)
    return torch.cat([slope[:, 9:], -slope[:, :9]], 1)
""",
        """
def fresh(z, seed):  # the centre of mass in place of an atom; no lengths
    B = [[-1, 1, 0, 0, 0, 0], [-0.5, -0.5, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 1, 0]]
    net = HamiltonianNetwork(Scalars(B), 3, (32,), "tanh", seeds=[seed, seed + 1], dtype=torch.float64)
    return net(z)[1].detach().numpy()
""",
    ],
    "4b": [
        """
def learn(z, zdot, new, seed):  # in double precision, Adam, its own loop
    B = [[-1, 1, 0, 0, 0, 0], [-1, 0, 1, 0, 0, 0], [0, -1, 1, 0, 0, 0], *np.eye(6)[3:].tolist()]
    net = HamiltonianNetwork(Scalars(B, lengths=(0, 1, 2)), 3, (64, 64), seeds=[seed], dtype=torch.float64)
    net.standardise(z)
    scale = torch.cat([zdot[:, :9].std().expand(9), zdot[:, 9:].std().expand(9)])
    steps = 1500
    opt = torch.optim.Adam(net.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, steps)
    source = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        k = torch.randint(len(z), (100,), generator=source)
        opt.zero_grad()
        (((net(z[k])[0] - zdot[k]) / scale) ** 2).mean().backward()
        opt.step()
        schedule.step()
    return net(new)[0]
""",
        """
def learn(z, zdot, new, seed):  # kinetic energy by least squares, potential by a network of distances
    torch.manual_seed(seed)
    q, p, v, f = (x.reshape(-1, 3, 3) for x in (z[:, :9], z[:, 9:], zdot[:, :9], zdot[:, 9:]))
    mass = p.square().sum((0, 2)) / (p * v).sum((0, 2))
    net = torch.nn.Sequential(torch.nn.Linear(3, 32), torch.nn.Tanh(), torch.nn.Linear(32, 32), torch.nn.Tanh(),
                              torch.nn.Linear(32, 1)).double()
    far = lambda q: torch.stack([(q[:, i] - q[:, j]).norm(dim=-1) for i, j in ((0, 1), (0, 2), (1, 2))], 1)
    centre, scale = far(q).mean(0), far(q).std(0)

    def force(q, train):
        q = q.detach().clone().requires_grad_()
        U = net((far(q) - centre) / scale).sum()
        return -torch.autograd.grad(U, q, create_graph=train)[0]

    opt = torch.optim.Adam(net.parameters(), lr=2e-2)
    steps = 1200
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, steps)
    for _ in range(steps):
        k = torch.randint(len(q), (100,))
        opt.zero_grad()
        (force(q[k], True) - f[k]).square().mean().backward()
        opt.step()
        schedule.step()
    q, p = new[:, :9].reshape(-1, 3, 3), new[:, 9:].reshape(-1, 3, 3)
    return torch.cat([(p / mass[:, None]).flatten(1), force(q, False).flatten(1)], 1)
""",
    ],
}

MISTAKES = {
    "1a": [
        # the sign of q.p
        "f_q, f_p = pp - m * alpha / sympy.sqrt(qq), qp\nAA = f_q**2 * qq + 2 * f_q * f_p * qp + f_p**2 * pp",
        # the mass is forgotten
        "f_q, f_p = pp - alpha / sympy.sqrt(qq), -qp\nAA = f_q**2 * qq + 2 * f_q * f_p * qp + f_p**2 * pp",
        # q / |q| taken for q / |q|^2
        "f_q, f_p = pp - m * alpha / qq, -qp\nAA = f_q**2 * qq + 2 * f_q * f_p * qp + f_p**2 * pp",
        # no cross term in the square
        "f_q, f_p = pp - m * alpha / sympy.sqrt(qq), -qp\nAA = f_q**2 * qq + f_p**2 * pp",
        # other letters
        "r = sympy.Symbol('r')\nf_q, f_p, AA = pp - m * alpha / r, -qp, pp",
    ],
    "1b": [
        # the other sign of the bracket
        """
qq_qp, qq_pp, qp_pp = -2 * qq, -4 * qp, -2 * pp
qq_dot, qp_dot = 2 * qp / m, pp / m - alpha / sympy.sqrt(qq)
pp_dot = -2 * alpha * qp / qq ** sympy.Rational(3, 2)
""",
        # a factor 2 in a bracket
        """
qq_qp, qq_pp, qp_pp = 2 * qq, 2 * qp, 2 * pp
qq_dot, qp_dot = 2 * qp / m, pp / m - alpha / sympy.sqrt(qq)
pp_dot = -2 * alpha * qp / qq ** sympy.Rational(3, 2)
""",
        # p in place of the velocity: right where m = 1
        """
qq_qp, qq_pp, qp_pp = 2 * qq, 4 * qp, 2 * pp
qq_dot, qp_dot = 2 * qp, pp - alpha / sympy.sqrt(qq)
pp_dot = -2 * alpha * qp / qq ** sympy.Rational(3, 2)
""",
        # 1/r in the force: right where r = 1
        """
qq_qp, qq_pp, qp_pp = 2 * qq, 4 * qp, 2 * pp
qq_dot, qp_dot = 2 * qp / m, pp / m - alpha / qq
pp_dot = -2 * alpha * qp / qq
""",
    ],
    "1c": [
        "C = sympy.Integer(1)",
        "C = qq * pp + qp**2",
        "C = pp / (2 * m) - alpha / sympy.sqrt(qq)",
        "C = qq * pp",
        "C = pp",
    ],
    "2a": [
        "def volume(x):\n    return torch.linalg.det(x[..., 1:, :] - x[..., :1, :]).abs() / 6",
        "def volume(x):\n    return torch.linalg.det(x[..., 1:, :] - x[..., :1, :])",
        "def volume(x):\n    return torch.linalg.det(x[..., 1:, :]) / 6",
        "def volume(x):\n    return torch.linalg.det(x[..., :-1, :] - x[..., -1:, :]) / 6",
        "def volume(x):\n    x = x.reshape(-1, 4, 3)[0]\n    return torch.linalg.det(x[1:] - x[0]) / 6",
    ],
    "2b": [
        # the distances themselves in place of their squares
        """
def positions(D):
    J = torch.eye(len(D), dtype=D.dtype) - 1 / len(D)
    values, U = torch.linalg.eigh(-J @ D @ J / 2)
    return U[:, -3:] * values[-3:].clamp(min=0).sqrt()
""",
        # a factor 2
        """
def positions(D):
    J = torch.eye(len(D), dtype=D.dtype) - 1 / len(D)
    values, U = torch.linalg.eigh(-J @ D**2 @ J)
    return U[:, -3:] * values[-3:].clamp(min=0).sqrt()
""",
        # a flat molecule gives nan
        """
def positions(D):
    J = torch.eye(len(D), dtype=D.dtype) - 1 / len(D)
    values, U = torch.linalg.eigh(-J @ D**2 @ J / 2)
    return U[:, -3:] * values[-3:].sqrt()
""",
        # the smallest eigenvalues
        """
def positions(D):
    J = torch.eye(len(D), dtype=D.dtype) - 1 / len(D)
    values, U = torch.linalg.eigh(-J @ D**2 @ J / 2)
    return U[:, :3] * values[:3].clamp(min=0).sqrt()
""",
        # rows and columns of U exchanged
        """
def positions(D):
    J = torch.eye(len(D), dtype=D.dtype) - 1 / len(D)
    values, U = torch.linalg.eigh(-J @ D**2 @ J / 2)
    return U.T[:, -3:] * values[-3:].clamp(min=0).sqrt()
""",
        # four atoms only
        """
def positions(D):
    G = (D[0, 1:] ** 2 + D[0, 1:, None] ** 2 - D[1:, 1:] ** 2) / 2
    return torch.cat([torch.zeros(1, 3, dtype=D.dtype), torch.linalg.cholesky(G)])
""",
    ],
    "3a": [
        # a mirror image
        """
x = np.array([[0.0, 0, 0], [1, 0, 0], [0.4, 1.2, 0], [0.3, 0.5, 0.9]])
y = x * np.array([1, 1, -1])
""",
        # the atoms numbered in another way, and turned
        """
x = np.array([[0.0, 0, 0], [1, 0, 0], [0.4, 1.2, 0], [0.3, 0.5, 0.9]])
y = x[[2, 1, 3, 0]][:, [1, 2, 0]] + 1
""",
        # the kite and the trapezoid are flat
        """
x = np.array([[0.0, 0, 0], [4, 0, 0], [1, 1, 0], [1, -1, 0]])
y = np.array([[0.0, 0, 0], [4, 0, 0], [3, 1, 0], [1, 1, 0]])
""",
        # other sticks
        """
x = np.array([[0.0, 0, 0], [1, 0, 0], [0.4, 1.2, 0], [0.3, 0.5, 0.9]])
y = np.array([[0.0, 0, 0], [1, 0, 0], [0.4, 1.3, 0], [0.3, 0.5, 0.9]])
""",
        # one molecule only
        "x = y = np.array([[0.0, 0, 0], [1, 0, 0], [0.4, 1.2, 0], [0.3, 0.5, 0.9]])",
        # two sticks of the same length change nothing
        """
def from_sticks(sticks):
    i, j = np.triu_indices(4, 1)
    D = np.zeros((4, 4))
    D[i, j] = D[j, i] = sticks
    products = (D[0, 1:] ** 2 + D[0, 1:, None] ** 2 - D[1:, 1:] ** 2) / 2
    return np.concatenate([np.zeros((1, 3)), np.linalg.cholesky(products)])


x = from_sticks([1.0, 1.05, 1.1, 1.1, 1.2, 1.25])
y = from_sticks([1.05, 1.0, 1.1, 1.1, 1.2, 1.25])
""",
    ],
    "3b": [
        # a sum over pairs
        "def tell(x):\n    return torch.cdist(x, x).pow(3).sum((-2, -1))",
        # the first atom is special
        "def tell(x):\n    return (x - x[..., :1, :]).square().sum(-1).sum(-1)",
        # signed: a mirror image differs, and flat molecules have none
        "def tell(x):\n    return torch.linalg.det(x[..., 1:, :] - x[..., :1, :])",
        # the largest coordinate of a centred molecule
        "def tell(x):\n    return (x - x.mean(-2, keepdim=True)).amax((-2, -1))",
        # not centred
        "def tell(x):\n    return torch.linalg.det(x.mT @ x + torch.eye(3, dtype=x.dtype))",
        # one number for the whole batch
        """
def tell(x):
    x = x - x.mean(-2, keepdim=True)
    return torch.linalg.eigvalsh(x.mT @ x)[..., -1].reshape(-1)[:2]
""",
    ],
    "4a": [
        # components: no rotations
        """
def fresh(z, seed):
    B = [[-1, 1, 0, 0, 0, 0], [-1, 0, 1, 0, 0, 0], *np.eye(6)[3:].tolist()]
    net = HamiltonianNetwork(Components(B), 3, (32, 32), seeds=[seed])
    return net(z.float())[0]
""",
        # equivariant, and no energy
        """
def fresh(z, seed):
    from companion.vectorfield import VectorField
    B = [[-1, 1, 0, 0, 0, 0], [-1, 0, 1, 0, 0, 0], *np.eye(6)[3:].tolist()]
    net = VectorField(Scalars(B, lengths=(0, 1)), 3, (32, 32), seeds=[seed])
    return net(z.float())[0]
""",
        # positions in place of differences
        """
def fresh(z, seed):
    net = HamiltonianNetwork(Scalars(np.eye(6).tolist()), 3, (32, 32), seeds=[seed])
    return net(z.float())[0]
""",
        # no forces
        "def fresh(z, seed):\n    return torch.cat([z[:, 9:], 0 * z[:, :9]], 1)",
        # the third component never moves: right on paper
        """
def fresh(z, seed):
    paper = torch.tensor([1.0, 1.0, 0.0] * 6)
    B = [[-1, 1, 0, 0, 0, 0], [-1, 0, 1, 0, 0, 0], *np.eye(6)[3:].tolist()]
    net = HamiltonianNetwork(Scalars(B), 3, (32, 32), seeds=[seed])
    return net(z.float() * paper)[0] * paper
""",
    ],
    "4b": [
        # components: never asked for the third direction
        """
def learn(z, zdot, new, seed):
    B = [[-1, 1, 0, 0, 0, 0], [-1, 0, 1, 0, 0, 0], *np.eye(6)[3:].tolist()]
    net = HamiltonianNetwork(Components(B), 3, (48, 48), seeds=[seed])
    z, zdot = z.float(), zdot.float()
    net.standardise(z)
    loss = lambda net, z, zdot: (net(z) - zdot).square().mean((1, 2))
    training.fit(net, loss, lambda step: (z, zdot), steps=300, lr=1e-2, lr_end=1e-5, progress=False)
    return net(new.float())[0]
""",
        # not trained
        """
def learn(z, zdot, new, seed):
    B = [[-1, 1, 0, 0, 0, 0], [-1, 0, 1, 0, 0, 0], *np.eye(6)[3:].tolist()]
    net = HamiltonianNetwork(Scalars(B, lengths=(0, 1)), 3, (48, 48), seeds=[seed])
    net.standardise(z.float())
    return net(new.float())[0]
""",
        # an equivariant field without an energy: small errors, and angular momentum leaks
        """
def learn(z, zdot, new, seed):
    from companion.vectorfield import VectorField
    B = [[-1, 1, 0, 0, 0, 0], [-1, 0, 1, 0, 0, 0], *np.eye(6)[3:].tolist()]
    net = VectorField(Scalars(B, lengths=(0, 1)), 3, (48, 48), seeds=[seed])
    z, zdot = z.float(), zdot.float()
    net.standardise(z)
    size = zdot.unflatten(1, (2, 9)).square().mean((0, 2)).sqrt().repeat_interleave(9)
    loss = lambda net, z, zdot: ((net(z) - zdot) / size).square().mean((1, 2))
    training.fit(net, loss, lambda step: (z, zdot), steps=400, lr=1e-2, lr_end=1e-5, progress=False)
    return net(new.float())[0]
""",
        # the law of the molecule that was shown: no other
        """
def learn(z, zdot, new, seed):
    z = new.double().reshape(-1, 2, 3, 3).requires_grad_()
    mass = torch.tensor([16.0, 1.0, 1.0]).double()
    a, b = z[:, 0, 1] - z[:, 0, 0], z[:, 0, 2] - z[:, 0, 0]
    r_a, r_b = a.norm(dim=-1), b.norm(dim=-1)
    cosine = (a * b).sum(-1) / (r_a * r_b)
    energy = (z[:, 1].square().sum(-1) / (2 * mass)).sum(-1)
    energy = energy + 2 * (r_a - 1) ** 2 + 2 * (r_b - 1) ** 2 + (cosine + 0.25) ** 2 / 2
    (slope,) = torch.autograd.grad(energy.sum(), z)
    return torch.stack([slope[:, 1], -slope[:, 0]], 1).flatten(1)
""",
    ],
}
