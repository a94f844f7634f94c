"""Answers to homework 1 that must earn the points of a test cell, and answers that must not."""

# ruff: noqa: E501 (lines as students write them)

SLOW = {"4a", "4b"}

LAW = """
def learn(q, qdot, qddot):
    torch.manual_seed(3)
    {net}
    rate = torch.nn.Parameter(torch.zeros(()))

    def law(q, qdot):
        q = q.clone().requires_grad_()
        {force}
        return force + {coriolis}

    tensors = [torch.tensor(z, dtype={dtype}) for z in (q, qdot, qddot)]
    adam = torch.optim.Adam([*net.parameters(), rate], lr=1e-2)
    for step in range(600):
        adam.param_groups[0]["lr"] = 1e-2 * (1 - step / 600)
        loss = (law(*tensors[:2]) - tensors[2]).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    return (lambda q, v: law(*(torch.tensor(z, dtype={dtype}) for z in (q, v)))), rate.item()
"""
PARTS = {
    "net": "net = torch.nn.Sequential(torch.nn.Linear(2, 48), torch.nn.Softplus(), "
    "torch.nn.Linear(48, 48), torch.nn.Softplus(), torch.nn.Linear(48, 1))",
    "force": "(slope,) = torch.autograd.grad(net(q).sum(), q, create_graph=True); force = -slope",
    "coriolis": "2 * rate * torch.stack([qdot[:, 1], -qdot[:, 0]], -1)",
    "dtype": "torch.float32",
}
COMPONENTS = {  # the two components of the force from a network: no potential
    "net": PARTS["net"].replace("Linear(48, 1)", "Linear(48, 2)"),
    "force": "force = net(q)",
}
RELU = PARTS["net"].replace("Softplus", "ReLU")

ALTERNATIVES = {
    "1a": [
        # symbols of one's own, without assumptions; expanded
        """
x, y, m, k, Omega = sympy.symbols("x y m k Omega")
u, v = sympy.symbols("xdot ydot")
L_turning = sympy.expand(m * ((u - Omega * y) ** 2 + (v + Omega * x) ** 2) / 2)
L_turning += k * (y - x) * (y + x) / 2
""",
        # functions of time, as they come out of a derivation
        """
X = sympy.Function("x")(t) * sympy.cos(Omega * t) - sympy.Function("y")(t) * sympy.sin(Omega * t)
Y = sympy.Function("x")(t) * sympy.sin(Omega * t) + sympy.Function("y")(t) * sympy.cos(Omega * t)
kinetic = sympy.simplify((X.diff(t) ** 2 + Y.diff(t) ** 2) * m / 2)
L_turning = kinetic - k * (sympy.Function("x")(t) ** 2 - sympy.Function("y")(t) ** 2) / 2
""",
    ],
    "1b": [
        "accelerations_turning = sympy.Matrix([2 * Omega * ydot + (Omega**2 - k / m) * x, "
        "-2 * Omega * xdot + (Omega**2 + k / m) * y])",
        "accelerations_turning = (Omega * (2 * ydot + Omega * x) - k * x / m, "
        "Omega * (Omega * y - 2 * xdot) + k * y / m)",
    ],
    "1c": [
        # kinetic energy in the turning frame less the centrifugal potential
        """
c, s = sympy.cos(2 * Omega * t), sympy.sin(2 * Omega * t)
relative = (Xdot + Omega * Y) ** 2 + (Ydot - Omega * X) ** 2 - Omega**2 * (X**2 + Y**2)
J_laboratory = m * relative / 2 + k * ((X**2 - Y**2) * c / 2 + X * Y * s)
""",
        """
X, Y, U, V, t, m, k, Omega = sympy.symbols("X Y Xdot Ydot t m k Omega")
turn = sympy.exp(-sympy.I * Omega * t) * (X + sympy.I * Y)
J_laboratory = m * (U**2 + V**2) / 2 - Omega * m * (X * V - Y * U)
J_laboratory += k / 4 * (turn**2 + (sympy.exp(sympy.I * Omega * t) * (X - sympy.I * Y)) ** 2)
""",
    ],
    "2a": [
        # complex numbers, one list of arrays
        """
def leap(q, p, h, Omega, force):
    p = p + force(q) * h / 2
    z, w = q[..., 0] + 1j * q[..., 1], p[..., 0] + 1j * p[..., 1]
    z, w = (np.exp(-1j * Omega * h) * part for part in (z + h * w, w))
    q, p = (np.stack([part.real, part.imag], -1) for part in (z, w))
    return [q, p + force(q) * h / 2]
""",
        # torch inside, tensors back
        """
def leap(q, p, h, Omega, force):
    kick = lambda q: torch.as_tensor(h / 2 * force(q.numpy()))
    q, p = torch.as_tensor(q), torch.as_tensor(p)
    angle = torch.tensor(Omega * h)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()])
    turn = turn.reshape(2, 2).double()
    p = p + kick(q)
    q, p = q @ turn + h * (p @ turn), p @ turn
    return q, p + kick(q)
""",
    ],
    "2c": [
        """
def leap(q, p, h, Omega, force):
    c, s = np.cos(Omega * h), np.sin(Omega * h)
    p = p + force(q) * h / 2
    x, y = q[..., 0] + h * p[..., 0], q[..., 1] + h * p[..., 1]
    q = np.stack([c * x + s * y, c * y - s * x], -1)
    p = np.stack([c * p[..., 0] + s * p[..., 1], c * p[..., 1] - s * p[..., 0]], -1)
    return np.stack([q, p + force(q) * h / 2])
""",
    ],
    "3a": [
        # the roots of the characteristic polynomial
        """
def growth(k, Omega, rub, air):
    x, y = np.poly1d([1, rub + air, k - Omega**2]), np.poly1d([1, rub + air, -k - Omega**2])
    cross = np.poly1d([2 * Omega, air * Omega])
    return (x * y + cross * cross).roots.real.max()
""",
        """
def growth(k, Omega, rub, air):
    W, g = Omega, rub + air
    rows = [[0, 0, 1, 0], [0, 0, 0, 1], [W * W - k, air * W, -g, 2 * W], [-air * W, W * W + k, -2 * W, -g]]
    return torch.linalg.eigvals(torch.tensor(rows, dtype=torch.float64)).real.max()
""",
    ],
    "3b": [
        "counterexample = dict(k=4, Omega=2.5, rub=0.4, air=2)",
        'counterexample = {"k": np.float64(0.5), "Omega": 0.9, "rub": 0.1, "air": torch.tensor(0.6)}',
    ],
    "4a": [LAW.format(**PARTS), LAW.format(**PARTS | COMPONENTS)],
    "4b": [
        LAW.format(**PARTS | {"dtype": "torch.float64", "net": PARTS["net"][:-1] + ").double()"})
    ],
}

MISTAKES = {
    "1a": [
        # the frame turns the other way
        "L_turning = m / 2 * ((xdot + Omega * y) ** 2 + (ydot - Omega * x) ** 2) - k / 2 * (x**2 - y**2)",
        # the energy
        "L_turning = m / 2 * ((xdot - Omega * y) ** 2 + (ydot + Omega * x) ** 2) + k / 2 * (x**2 - y**2)",
        # no rotation at all; no mass
        "L_turning = m / 2 * (xdot**2 + ydot**2) - k / 2 * (x**2 - y**2)",
        "L_turning = ((xdot - Omega * y) ** 2 + (ydot + Omega * x) ** 2) / 2 - k / 2 * (x**2 - y**2)",
        # only the centrifugal term
        "L_turning = m / 2 * (xdot**2 + ydot**2 + Omega**2 * (x**2 + y**2)) - k / 2 * (x**2 - y**2)",
    ],
    "1b": [
        "accelerations_turning = [Omega * ydot + (Omega**2 - k / m) * x, -Omega * xdot + (Omega**2 + k / m) * y]",
        "accelerations_turning = [-2 * Omega * ydot + (Omega**2 - k / m) * x, 2 * Omega * xdot + (Omega**2 + k / m) * y]",
        "accelerations_turning = [2 * Omega * ydot + (Omega**2 - k) * x, -2 * Omega * xdot + (Omega**2 + k) * y]",
        "accelerations_turning = [2 * Omega * ydot - k / m * x, -2 * Omega * xdot + k / m * y]",
        "accelerations_turning = [2 * Omega * ydot + (Omega**2 - k / m) * x, -2 * Omega * xdot + (Omega**2 - k / m) * y]",
    ],
    "1c": [
        # with the other sign; without the mass; the energy; the potential turned the wrong way
        *(
            f"""
c, s = sympy.cos(2 * Omega * t), {sign} * sympy.sin(2 * Omega * t)
J_laboratory = m / 2 * (Xdot**2 + Ydot**2) + k * ((X**2 - Y**2) * c / 2 + X * Y * s) {more}
"""
            for sign, more in (
                ("1", "+ Omega * m * (X * Ydot - Y * Xdot)"),
                ("1", "- Omega * (X * Ydot - Y * Xdot)"),
                ("1", ""),
                ("-1", "- Omega * m * (X * Ydot - Y * Xdot)"),
            )
        ),
        "J_laboratory = m / 2 * (Xdot**2 + Ydot**2) + k / 2 * (X**2 - Y**2) - Omega * m * (X * Ydot - Y * Xdot)",
        "J_laboratory = 'T + V - Omega L'",
    ],
    "2a": [
        # turned the other way; only positions turned; never turned
        """
def leap(q, p, h, Omega, force):
    c, s = np.cos(Omega * h), np.sin(Omega * h)
    turn = np.array([[c, s], [-s, c]])
    p = p + h / 2 * force(q)
    q, p = (q + h * p) @ turn, p @ turn
    return q, p + h / 2 * force(q)
""",
        """
def leap(q, p, h, Omega, force):
    c, s = np.cos(Omega * h), np.sin(Omega * h)
    turn = np.array([[c, -s], [s, c]])
    p = p + h / 2 * force(q)
    q = (q + h * p) @ turn
    return q, p + h / 2 * force(q)
""",
        """
def leap(q, p, h, Omega, force):
    p = p + h / 2 * force(q)
    q = q + h * p
    return q, p + h / 2 * force(q)
""",
        # an Euler step in place of the exact motion
        """
def leap(q, p, h, Omega, force):
    p = p + h / 2 * force(q)
    turn = np.array([[0, -1], [1, 0]])
    q, p = q + h * p + h * Omega * q @ turn, p + h * Omega * p @ turn
    return q, p + h / 2 * force(q)
""",
    ],
    "2b": [
        # whole kicks; the second kick with the old force; a step of Euler
        """
def leap(q, p, h, Omega, force):
    p = p + h * force(q)
    q = q + h * p
    return q, p + h * force(q)
""",
        """
def leap(q, p, h, Omega, force):
    kick = h / 2 * force(q)
    return q + h * (p + kick), p + 2 * kick
""",
        "def leap(q, p, h, Omega, force):\n    return q + h * p, p + h * force(q)",
        "def leap(q, p, h, Omega, force):\n    return q + h * p",
    ],
    "2c": [
        # for one state, or for a list of states, but not for both and more
        """
def leap(q, p, h, Omega, force):
    c, s = np.cos(Omega * h), np.sin(Omega * h)
    turn = np.array([[c, s], [-s, c]])
    p = p + h / 2 * force(q)
    q, p = turn @ (q + h * p), turn @ p
    return q, p + h / 2 * force(q)
""",
        # right, but it changes what it was given
        """
def leap(q, p, h, Omega, force):
    c, s = np.cos(Omega * h), np.sin(Omega * h)
    turn = np.array([[c, -s], [s, c]])
    p += h / 2 * force(q)
    q, p = (q + h * p) @ turn, p @ turn
    return q, p + h / 2 * force(q)
""",
        # the kick acts on the frame that has not turned yet
        """
def leap(q, p, h, Omega, force):
    c, s = np.cos(Omega * h), np.sin(Omega * h)
    turn = np.array([[c, -s], [s, c]])
    p = p + h / 2 * force(q)
    q = q + h * p
    p = p + h / 2 * force(q)
    return q @ turn, p @ turn
""",
    ],
    "3a": [
        *(
            f"""
def growth(k, Omega, rub, air):
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    position = np.diag([Omega**2 - k, Omega**2 + k]) {air}
    velocity = {factor} * Omega * turn - (rub + air) * np.eye(2)
    matrix = np.block([[np.zeros((2, 2)), np.eye(2)], [position, velocity]])
    return np.linalg.eigvals(matrix).real.{which}()
"""
            for air, factor, which in (
                ("", 2, "max"),  # air like rubbing
                ("- air * Omega * turn", 2, "max"),
                ("+ air * Omega * turn", 1, "max"),
                ("+ air * Omega * turn", 2, "min"),
            )
        ),
        # the threshold alone
        "def growth(k, Omega, rub, air):\n    return max(k - Omega**2, 0) ** 0.5 - (rub + air) / 2",
    ],
    "3b": [
        'counterexample = {"k": 1.0, "Omega": 0.5, "rub": 0.2, "air": 1.0}',  # not held
        'counterexample = {"k": 1.0, "Omega": 1.2, "rub": 0.2, "air": 0.1}',  # too little air
        'counterexample = {"k": 1.0, "Omega": 1.2, "rub": 0.001, "air": 1.0}',  # too slow
        'counterexample = {"k": 1.0, "Omega": 1.2, "rub": -0.2, "air": 1.0}',
        'counterexample = {"k": 1.0, "Omega": 1.2, "rub": 0.2}',
        'counterexample = {"k": "1", "Omega": 1.2, "rub": 0.2, "air": 1.0}',
    ],
    "4a": [
        # the Coriolis force without its 2: the rate comes out twice as large
        LAW.format(**PARTS | {"coriolis": "rate * torch.stack([qdot[:, 1], -qdot[:, 0]], -1)"}),
        LAW.format(**PARTS | {"coriolis": "2 * rate * torch.stack([-qdot[:, 1], qdot[:, 0]], -1)"}),
        LAW.format(**PARTS).replace("range(600)", "range(5)"),
    ],
    "4b": [
        LAW.format(**PARTS | COMPONENTS),
        LAW.format(**PARTS | {"net": RELU}),
        # a friction has slipped in
        LAW.format(**PARTS | {"coriolis": PARTS["coriolis"] + " - 0.1 * qdot"}),
        "def learn(q, qdot, qddot):\n    return (lambda q, v: 0 * q), 0.0",
    ],
}
