"""Answers to homework 5 in other forms, which must earn the points, and typical mistakes.

By the id of a test cell: sources of its answer cell. All other questions keep the instructor's.
"""

SLOW = {"5b", "5c"}  # they train

ALTERNATIVES = {
    "1a": [
        # terms picked by hand, other assumptions, another form
        """
# Question 1a: your answer
z, w = sympy.symbols("z w", complex=True)
left = z * (1 + 6 * z * w)
""",
        """
# Question 1a: your answer
z, w = sympy.symbols("z w")
f = sympy.Poly((z + 2 * w) ** 3 + 4 * z * w + z, z, w)
left = sum(c * z**a * w**b for (a, b), c in f.terms() if a - b == 1)
""",
    ],
    "1b": [
        # an integral over the distribution of |v_1|^2, an unsimplified ratio
        """
# Question 1b: your answer
n = sympy.Symbol("n", integer=True, positive=True)
gain_unitary = n / sympy.binomial(n + 1, 2)
gain_unitary = sympy.simplify(gain_unitary.rewrite(sympy.gamma))
gain_orthogonal = 1 - (n - 1) / (n + 2)
""",
        """
# Question 1b: your answer
n = sympy.Symbol("n")
gain_unitary = 1 - (n - 1) / (n + 1)
gain_orthogonal = sympy.Rational(3) / (2 + n)
""",
    ],
    "1c": [
        """
# Question 1b: your answer
n = sympy.Symbol("n")
gain_orthogonal = 3 * n / (n**2 + 2 * n)
""",
    ],
    "2a": [
        # the pseudo-inverse: right without noise, and only then
        """
# Question 2a: your answer
def align(x, y):
    return y @ torch.linalg.pinv(x)
""",
        # the polar factor by Newton's iteration
        """
# Question 2a: your answer
def align(x, y):
    a = y @ x.mH
    for _ in range(60):
        a = (a + torch.linalg.inv(a).mH) / 2
    return a
""",
    ],
    "2b": [
        # numpy, and the other order of the product
        """
# Question 2a: your answer
def align(x, y):
    x, y = np.asarray(x), np.asarray(y)
    u, s, v = np.linalg.svd(y @ x.conj().swapaxes(-1, -2))
    return u @ v
""",
        # one sample at a time, in a loop
        """
# Question 2a: your answer
def align(x, y):
    n, M = x.shape[-2:]
    found = []
    for a, b in zip(x.reshape(-1, n, M), y.reshape(-1, n, M)):
        u, _, vh = torch.linalg.svd(b @ a.conj().T)
        found.append(u @ vh)
    return torch.stack(found).reshape(*x.shape[:-2], n, n)
""",
    ],
    "3a": [
        # the conjugate of the first components alone: it does not commute with i either
        """
# Question 3a: your answer
def twin(x):
    return torch.cat([x[..., :1, :].conj(), x[..., 1:, :]], dim=-2)
""",
        # the conjugate, turned by a unitary matrix
        """
# Question 3a: your answer
def twin(x):
    return 1j * torch.flip(x.conj(), dims=[-2])
""",
    ],
    "3b": [
        # four powers and a system of equations
        """
# Question 3b: your answer
def product(power):
    aa, a, b = power(0), power(1), power(1j)
    bb = (power(1) + power(-1)) / 2 - aa
    return (a - aa - bb) / 2 - 1j * (b - aa - bb) / 2
""",
        # a mean over phases
        """
# Question 3b: your answer
def product(power):
    phases = np.exp(2j * np.pi * np.arange(7) / 7)
    return np.mean([power(complex(c)) * np.conj(c) for c in phases])
""",
    ],
    "4a": [
        # for four atoms: the volume times a product of differences, odd times odd
        """
# Question 4a: your answer
def handedness(r):
    volume = torch.linalg.det(r[..., 1:, :] - r[..., :1, :])
    own = (r[..., :, None, :] - r[..., None, :, :]).square().sum((-2, -1))
    i, j = torch.triu_indices(4, 4, offset=1)
    return volume * (own[..., j] - own[..., i]).prod(-1)
""",
        # a sum over all renamings with their signs, of something that is no symmetric function
        """
# Question 4a: your answer
def handedness(r):
    from itertools import permutations

    d = torch.cdist(r, r)
    total = 0
    for p in permutations(range(4)):
        even = (-1) ** sum(p[i] > p[j] for i in range(4) for j in range(i + 1, 4))
        e = d[..., list(p), :][..., list(p)]
        total = total + even * e[..., 0, 1] ** 3 * e[..., 1, 2] ** 2 * e[..., 2, 3]
    a = r[..., 1:, :] - r[..., :1, :]
    return torch.linalg.det(a) * total
""",
    ],
    "4b": [
        # atoms sorted by their distance from the centre: not continuous, but that was not asked
        """
# Question 4a: your answer
def handedness(r):
    r = r - r.mean(-2, keepdim=True)
    order = r.norm(dim=-1).argsort(-1)[..., None].expand_as(r)
    a, b, c, d = r.gather(-2, order)[..., :4, :].unbind(-2)
    return torch.linalg.det(torch.stack([b - a, c - a, d - a], -2)).sign()
""",
        # three moments about the centre of mass
        """
# Question 4a: your answer
def handedness(r):
    x = r - r.mean(dim=-2, keepdim=True)
    q = (x * x).sum(-1, keepdim=True)
    moments = [(q**k * x).mean(-2) for k in (1, 2, 3)]
    return torch.linalg.det(torch.stack(moments, dim=-2)) / q.mean((-2, -1)) ** 7.5
""",
    ],
    "5a": [
        # the part that real weights can learn, taken off; a small sample
        """
# Question 5a: your answer
x, F = light(4000, seed=3)
f = (F + law(x.conj()).conj()) / 2
floor = float(torch.linalg.norm(F - f) / torch.linalg.norm(F))
""",
        """
# Question 5a: your answer
x, F = light(30_000, seed=5)
p, s = x[..., :1], x[..., 1:]
i_terms = p.abs().square().sum(-2, keepdim=True) * x
floor = np.array([(i_terms.norm() / F.norm()).item()])
""",
    ],
    "5b": [
        # fewer vectors, double precision, Adam, fresh light in every step
        """
# Question 5b: your answer
net = UnitaryNetwork((2, 20, 20, 2), seeds=[7], dtype=torch.complex128)
x, F = (a.to(torch.complex128) for a in light(2000, 77))
net.standardise(x, F)


def loss(net, x, F):
    return (net(x) - F).abs().square().mean((1, 2, 3))


def batch(step):
    return tuple(a.to(torch.complex128) for a in light(128, 10**6 + step))


_ = training.fit(net, loss, batch, steps=900, lr=2e-2, warmup=50, progress=False)
""",
    ],
}

MISTAKES = {
    "1a": [
        # the invariant part instead of the equivariant one
        """
# Question 1a: your answer
z, w = sympy.symbols("z w")
left = 4 * z * w
""",
        # the conjugates counted the wrong way round
        """
# Question 1a: your answer
z, w = sympy.symbols("z w")
left = 12 * z * w**2 + z
""",
        # the binomial coefficient without the power of 2
        """
# Question 1a: your answer
z, w = sympy.symbols("z w")
left = 3 * z**2 * w + z
""",
        # f itself
        """
# Question 1a: your answer
z, w = sympy.symbols("z w")
left = (z + 2 * w) ** 3 + 4 * z * w + z
""",
    ],
    "1b": [
        # one component forgotten, real moments, a number for one n only
        """
# Question 1b: your answer
n = sympy.Symbol("n")
gain_unitary = 2 / (n * (n + 1))
gain_orthogonal = 3 / (n * (n + 2))
""",
        """
# Question 1b: your answer
n = sympy.Symbol("n")
gain_unitary = 3 / (n + 2)
gain_orthogonal = 3 / (n + 2)
""",
        """
# Question 1b: your answer
n = sympy.Symbol("n")
gain_unitary = sympy.Rational(2, 3)
gain_orthogonal = sympy.Rational(3, 4)
""",
        # the components taken as independent
        """
# Question 1b: your answer
n = sympy.Symbol("n")
gain_unitary = 1 / n
gain_orthogonal = 1 / n
""",
    ],
    "1c": [
        """
# Question 1b: your answer
n = sympy.Symbol("n")
gain_unitary = 2 / (n + 1)
gain_orthogonal = 2 / (n + 1)
""",
    ],
    "2a": [
        # transpose instead of adjoint
        """
# Question 2a: your answer
def align(x, y):
    U, _, Vh = torch.linalg.svd(x @ y.mT)
    return Vh.mH @ U.mH
""",
        # Vh taken for V
        """
# Question 2a: your answer
def align(x, y):
    U, _, V = torch.linalg.svd(y @ x.mH)
    return U @ V.mH
""",
        # the way back
        """
# Question 2a: your answer
def align(x, y):
    U, _, Vh = torch.linalg.svd(x @ y.mH)
    return U @ Vh
""",
        # the imaginary parts lost
        """
# Question 2a: your answer
def align(x, y):
    U, _, Vh = torch.linalg.svd((y @ x.mH).real)
    return U @ Vh
""",
        # one sample only
        """
# Question 2a: your answer
def align(x, y):
    U, _, Vh = torch.linalg.svd(y @ x.conj().T)
    return U @ Vh
""",
        # a determinant forced to be one: SU(n)
        """
# Question 2a: your answer
def align(x, y):
    U, _, Vh = torch.linalg.svd(y @ x.mH)
    g = U @ Vh
    return g / torch.linalg.det(g)[..., None, None] ** (1 / g.shape[-1])
""",
    ],
    "2b": [
        # best, but not unitary
        """
# Question 2a: your answer
def align(x, y):
    return y @ torch.linalg.pinv(x)
""",
        # unitary, but not best
        """
# Question 2a: your answer
def align(x, y):
    g, r = torch.linalg.qr(y @ torch.linalg.pinv(x))
    d = torch.diagonal(r, dim1=-2, dim2=-1)
    return g * (d / d.abs())[..., None, :]
""",
    ],
    "3a": [
        # a unitary image
        """
# Question 3a: your answer
def twin(x):
    return 1j * x
""",
        # phases of single vectors: the lengths stay, the distances do not
        """
# Question 3a: your answer
def twin(x):
    return x * torch.exp(1j * torch.arange(x.shape[-1]))
""",
        # the vectors in another order
        """
# Question 3a: your answer
def twin(x):
    return x.flip(-1)
""",
        # one vector conjugated: its distances to the others change
        """
# Question 3a: your answer
def twin(x):
    return torch.cat([x[..., :1].conj(), x[..., 1:]], dim=-1)
""",
        # a network's habit: real parts only
        """
# Question 3a: your answer
def twin(x):
    return x.real
""",
    ],
    "3b": [
        # the real part alone
        """
# Question 3b: your answer
def product(power):
    return (power(1) - power(-1)) / 4
""",
        # the sign of the imaginary part
        """
# Question 3b: your answer
def product(power):
    return (power(1) - power(-1)) / 4 + 1j * (power(1j) - power(-1j)) / 4
""",
        # unit vectors assumed
        """
# Question 3b: your answer
def product(power):
    return (power(1) - 2) / 2 - 1j * (power(1j) - 2) / 2
""",
    ],
    "4a": [
        # knows the names
        """
# Question 4a: your answer
def handedness(r):
    return torch.linalg.det(r[..., 1:, :] - r[..., :1, :])
""",
        # forgets them, and the handedness with them
        """
# Question 4a: your answer
def handedness(r):
    return torch.linalg.det(r[..., 1:, :] - r[..., :1, :]).abs()
""",
        # zero is odd, and useless
        """
# Question 4a: your answer
def handedness(r):
    return torch.zeros(r.shape[:-2], dtype=r.dtype)
""",
        # the mean over all renamings is zero: rounding is left
        """
# Question 4a: your answer
def handedness(r):
    from itertools import permutations

    return sum(
        torch.linalg.det(r[..., list(p), :][..., 1:, :] - r[..., list(p), :][..., :1, :])
        for p in permutations(range(4))
    )
""",
        # moments about the origin: it matters where the atoms are
        """
# Question 4a: your answer
def handedness(r):
    q = (r * r).sum(-1, keepdim=True)
    return torch.linalg.det(torch.stack([(q**k * r).sum(-2) for k in (0, 1, 2)], dim=-2))
""",
        # a component of a vector: odd under the mirror, but it turns
        """
# Question 4a: your answer
def handedness(r):
    x = r - r.mean(-2, keepdim=True)
    return ((x * x).sum(-1, keepdim=True) * x).sum((-2, -1))
""",
        # one sample only
        """
# Question 4a: your answer
def handedness(r):
    x = r - r.mean(0)
    q = (x * x).sum(1, keepdim=True)
    return torch.linalg.det(torch.stack([(q**k * x).sum(0) for k in (1, 2, 3)]))
""",
    ],
    "4b": [
        # the first four atoms of all
        """
# Question 4a: your answer
def handedness(r):
    r = r[..., :4, :]
    volume = torch.linalg.det(r[..., 1:, :] - r[..., :1, :])
    own = (r[..., :, None, :] - r[..., None, :, :]).square().sum((-2, -1))
    i, j = torch.triu_indices(4, 4, offset=1)
    return volume * (own[..., j] - own[..., i]).prod(-1)
""",
        # two of the three vectors are parallel
        """
# Question 4a: your answer
def handedness(r):
    x = r - r.mean(dim=-2, keepdim=True)
    q = (x * x).sum(-1, keepdim=True)
    return torch.linalg.det(torch.stack([(q**k * x).mean(-2) for k in (1, 1, 2)], dim=-2))
""",
    ],
    "5a": [
        # the mean square, the learnable part, a guess
        """
# Question 5a: your answer
x, F = light(100_000, seed=1)
missed = (F - law(x.conj()).conj()) / 2
floor = (missed.abs().square().mean() / F.abs().square().mean()).item()
""",
        """
# Question 5a: your answer
x, F = light(100_000, seed=1)
learned = (F + law(x.conj()).conj()) / 2
floor = (learned.norm() / F.norm()).item()
""",
        """
# Question 5a: your answer
floor = 2**-0.5
""",
        # one component of each vector taken for the part that is lost
        """
# Question 5a: your answer
x, F = light(100_000, seed=1)
floor = (F.imag.norm() / F.norm()).item()
""",
    ],
    "5b": [
        # real weights
        """
# Question 5b: your answer
class Real(UnitaryNetwork):
    pass


net = Real((2, 24, 24, 2), dtype=torch.complex64)
x, F = light(4000, 1000)
net.standardise(x, F)
for P in net.parameters():
    mask = torch.ones_like(P)
    mask[..., P.shape[-1] // 2 :] = 0
    P.data *= mask
    _ = P.register_hook(lambda gradient, mask=mask: gradient * mask)


def loss(net, x, F):
    return (net(x) - F).abs().square().mean((1, 2, 3))


_ = training.fit(
    net, loss, lambda k: light(128, k), steps=300, lr=1e-2, warmup=20, progress=False,
    optimizer=torch.optim.Adam,
)
""",
        # not trained
        """
# Question 5b: your answer
net = UnitaryNetwork((2, 24, 24, 2), dtype=torch.complex64)
net.standardise(*light(1000, 1))
""",
        # the law itself in place of a network
        """
# Question 5b: your answer
class Law(torch.nn.Module):
    dtype = torch.complex64

    def forward(self, x):
        return law(x)[None]


net = Law()
""",
    ],
    "5c": [
        # the four real components of each beam, in a dense network
        """
# Question 5b: your answer
class Dense(torch.nn.Module):
    dtype = torch.complex64

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(8, 40), torch.nn.Tanh(), torch.nn.Linear(40, 40), torch.nn.Tanh(),
            torch.nn.Linear(40, 8),
        )

    def forward(self, x):
        y = self.layers(torch.view_as_real(x).flatten(-3)).unflatten(-1, (2, 2, 2))
        return torch.view_as_complex(y.contiguous())[None]


net = Dense()
adam = torch.optim.Adam(net.parameters(), lr=5e-3)
for step in range(1500):
    x, F = light(256, step)
    adam.zero_grad()
    (net(x)[0] - F).abs().square().mean().backward()
    adam.step()
""",
        # not trained: turns as it should, and knows nothing
        """
# Question 5b: your answer
net = UnitaryNetwork((2, 24, 24, 2), dtype=torch.complex64)
net.standardise(*light(1000, 1))
""",
    ],
}
