"""Answers to homework 2 that must earn the points of a test cell, and answers that must not."""

# ruff: noqa: E501 (lines as students write them)

SLOW = {"4a", "4b", "4c"}

LEARN = """
def learn(q, qdot, qddot, B):
    torch.manual_seed(5)
    {net}

    def lagrangian(q, v):
        {features}
        {kinetic}
        return kinetic + 0.1 * net(features.to(next(net.parameters()).dtype))[:, 0]

    adam = torch.optim.Adam(net.parameters(), lr=1e-2)
    for step in range(400):
        adam.param_groups[0]["lr"] = 1e-2 * (1 - step / 400)
        chosen = torch.randint(len(q), (100,))
        error = motion(lagrangian, q[chosen], qdot[chosen]) - qddot[chosen]
        adam.zero_grad()
        error.square().mean().backward()
        adam.step()
    return lagrangian
"""
PARTS = {
    "net": "net = torch.nn.Sequential(torch.nn.Linear(3, 32), torch.nn.SiLU(), "
    "torch.nn.Linear(32, 32), torch.nn.SiLU(), torch.nn.Linear(32, 1)).double()",
    "features": "features = torch.cat([v[:, :2], v[:, 2:] + B * q[:, :1] * v[:, 1:2]], -1)",
    "kinetic": "kinetic = features.square().sum(-1) / 2",
}
PLAIN = PARTS | {
    "net": PARTS["net"].replace("Linear(3,", "Linear(6,"),
    "features": "features = torch.cat([q, v], -1)",
    "kinetic": "kinetic = v.square().sum(-1) / 2",
}

ALTERNATIVES = {
    "1a": [
        'u, v, B, Q, m = sympy.symbols("xdot ydot B Q m")\n'
        "plane_accelerations = sympy.Matrix([v * B * Q, -u * B * Q]) / m",
        "plane_accelerations = [B * Q * (2 * ydot) / (2 * m), -(B / m) * Q * xdot]",
    ],
    "1b": [
        'x, y, B = sympy.symbols("x y B")\nxi_x = (1, 0, 5 - B * y)\n'
        "xi_turn = sympy.Matrix([-y, x, -B * (x - y) * (x + y) / 2 + 3])",
        "xi_x = [sympy.Integer(1), sympy.Integer(0), -y * B]\n"
        "xi_turn = [-y, x, B * y**2 - B * (x**2 + y**2) / 2]",
    ],
    "1c": [
        "centre = [x + ydot * m / (Q * B), y - xdot * m / (Q * B)]",
        "centre = sympy.Matrix([x, y]) + sympy.Matrix([[0, 1], [-1, 0]]) * sympy.Matrix([xdot, ydot]) * m / Q / B",
    ],
    "1d": ["bracket = -1 / B / Q", 'B, Q = sympy.symbols("B Q")\nbracket = -Q / (B * Q**2)'],
    "2a": [
        # more features than needed; another order; a nonlinear function of them
        """
def layer(q, qdot, B):
    w = qdot[..., 2:] + B * q[..., :1] * qdot[..., 1:2]
    v = qdot[..., :2]
    return torch.cat([w, v, w * v, torch.sin(w)], -1)
""",
        """
def layer(q, qdot, B):
    B = torch.as_tensor(B, dtype=q.dtype)
    vx, vy, vt = (qdot[..., i] for i in range(3))
    w = vt + B * q[..., 0] * vy
    return torch.stack((vx + vy, vx - vy, w**3 + w), dim=-1)
""",
    ],
    "2b": [
        """
def layer(q, qdot, B):
    vx, vy, vt = (qdot[..., i] for i in range(3))
    w = vt + B * q[..., 0] * vy
    return torch.stack((vx + vy, vx - vy, w**3 + w), dim=-1)
""",
    ],
    "2c": [
        """
def layer(q, qdot, B):
    matrix = torch.eye(3, dtype=q.dtype).repeat(*q.shape[:-1], 1, 1)
    matrix[..., 2, 1] = B * q[..., 0]
    return (matrix @ qdot[..., None])[..., 0]
""",
    ],
    "3a": [
        "L_strange = xdot**2 / 2 + ydot**2 / 2 + (thetadot + B * x * ydot) ** 2 / 2 + xdot * ydot / 2",
        # a term with a velocity cubed; symbols of one's own
        'x, u, v, w, B = sympy.symbols("x xdot ydot thetadot B")\n'
        "c = w + B * x * v\nL_strange = u**2 + v**2 + c**2 + u**4 + u**2 * c / 2",
        # a shift of theta by a function of the place would be a gauge; a total derivative is not
        "L_strange = 3 * xdot**2 + ydot**2 + (thetadot + B * x * ydot) ** 2 + 2 * xdot + 1",
    ],
    "3b": [
        'a, b, B, Q = sympy.symbols("m_1 m_2 B Q", positive=True)\n'
        "shape = a**-0.5 * b**0.5\nperiod = 2 * sympy.pi / (B * Q / sympy.sqrt(a * b))",
    ],
    "4a": [LEARN.format(**PARTS)],
    "4b": [
        LEARN.format(**PARTS | {"kinetic": "kinetic = (features**2).sum(-1)"}).replace(
            "0.1 * net", "net"
        ),
    ],
    "4c": [LEARN.format(**PARTS | {"net": PARTS["net"].replace(".double()", "")})],
}

MISTAKES = {
    "1a": [
        "plane_accelerations = [-Q * B * ydot / m, Q * B * xdot / m]",
        "plane_accelerations = [Q * B * ydot, -Q * B * xdot]",
        "plane_accelerations = [Q * B * ydot / (2 * m), -Q * B * xdot / (2 * m)]",
        "plane_accelerations = [B * ydot / m, -B * xdot / m]",
        "plane_accelerations = symbolic.accelerations(L, q, qdot)[:2]",  # thetadot is still there
        "plane_accelerations = symbolic.accelerations(L, q, qdot)",
    ],
    "1b": [
        "xi_x = [1, 0, B * y]\nxi_turn = [-y, x, B * (y**2 - x**2) / 2]",
        "xi_x = [1, 0, 0]\nxi_turn = [-y, x, 0]",
        "xi_x = [1, 0, -B * y]\nxi_turn = [-y, x, B * (y**2 - x**2)]",
        "xi_x = [1, 0, -B * y]\nxi_turn = [-y, x, B * (y**2 + x**2) / 2]",
        "xi_x = [1, 0, -B * x]\nxi_turn = [-y, x, B * (y**2 - x**2) / 2]",
        "xi_x = [1, 0]\nxi_turn = [-y, x]",
    ],
    "1c": [
        "centre = [x - m * ydot / (B * Q), y + m * xdot / (B * Q)]",
        "centre = [x + ydot / (B * Q), y - xdot / (B * Q)]",
        "centre = [m * ydot + B * Q * x, B * Q * y - m * xdot]",  # the charges
        "centre = [x + m * xdot / (B * Q), y + m * ydot / (B * Q)]",
        "centre = [x, y]",
    ],
    "1d": [
        "bracket = 1 / (B * Q)",
        "bracket = -B * Q",
        "bracket = 0 * Q * B",
        "bracket = -1 / Q",
    ],
    "2a": [
        "def layer(q, qdot, B):\n    return qdot",
        "def layer(q, qdot, B):\n    return torch.cat([qdot[..., :2], qdot[..., 2:] + q[..., :1] * qdot[..., 1:2]], -1)",
        "def layer(q, qdot, B):\n    return torch.cat([qdot[..., :2], qdot[..., 2:] - B * q[..., :1] * qdot[..., 1:2]], -1)",
        "def layer(q, qdot, B):\n    return torch.cat([qdot[..., :2], qdot[..., 2:] + B * q[..., 1:2] * qdot[..., :1]], -1)",
        "def layer(q, qdot, B):\n    return torch.cat([q[..., :2], qdot], -1)",
        "def layer(q, qdot, B):\n    return torch.ones(*q.shape[:-1], 3)",
    ],
    "2b": [
        "def layer(q, qdot, B):\n    return qdot[..., :2]",
        """
def layer(q, qdot, B):
    w = qdot[..., 2] + B * q[..., 0] * qdot[..., 1]
    return torch.stack([qdot[..., 0] ** 2 + qdot[..., 1] ** 2, w], -1)
""",
        """
def layer(q, qdot, B):
    w = qdot[..., 2] + B * q[..., 0] * qdot[..., 1]
    return torch.stack([qdot[..., 0] ** 2, qdot[..., 1] ** 2, w], -1)
""",
        """
def layer(q, qdot, B):
    w = qdot[..., 2] + B * q[..., 0] * qdot[..., 1]
    return torch.stack([w, w**2, qdot[..., 0], qdot[..., 0] * w], -1)
""",
    ],
    "2c": [
        "def layer(q, qdot, B):\n    w = qdot[:, 2] + B * q[:, 0] * qdot[:, 1]\n    return torch.stack([qdot[:, 0], qdot[:, 1], w], -1)",
        "def layer(q, qdot, B):\n    q, qdot = q.double(), qdot.double()\n    w = qdot[..., 2:] + B * q[..., :1] * qdot[..., 1:2]\n    return torch.cat([qdot[..., :2], w], -1)",
        "def layer(q, qdot, B):\n    w = qdot[..., 2] + B * q[..., 0] * qdot[..., 1]\n    return torch.stack([qdot[..., 0], qdot[..., 1], w])",
    ],
    "3a": [
        "L_strange = L.subs(m, 1)",
        # the speed changes, because the place matters
        "L_strange = (xdot**2 + ydot**2) / 2 + (thetadot + B * x * ydot) ** 2 / 2 - x**2",
        "L_strange = xdot**2 / 2 + 2 * ydot**2 + thetadot**2 / 2",  # no field: straight lines
        "L_strange = xdot**2 / 2 + 2 * ydot**2 + (thetadot + x * ydot) ** 2 / 2",  # B = 1 only
        "L_strange = xdot**2 / 2 - 2 * ydot**2 + (thetadot + B * x * ydot) ** 2 / 2",  # indefinite
        # a function of the speed and the charge: the mass depends on the speed
        "L_strange = (xdot**2 + ydot**2 + (xdot**2 + ydot**2) ** 2 + (thetadot + B * x * ydot) ** 2) / 2",
    ],
    "3b": [
        "shape = sympy.sqrt(m1 / m2)\nperiod = 2 * sympy.pi * sympy.sqrt(m1 * m2) / (B * Q)",
        "shape = m2 / m1\nperiod = 2 * sympy.pi * sympy.sqrt(m1 * m2) / (B * Q)",
        "shape = sympy.sqrt(m2 / m1)\nperiod = sympy.pi * (m1 + m2) / (B * Q)",
        "shape = sympy.sqrt(m2 / m1)\nperiod = 2 * sympy.pi * sympy.sqrt(m1 * m2) / B",
    ],
    "4a": [
        # the features of a field that is not there; no training; unit masses by hand
        LEARN.format(**PARTS | {"features": "features = v"}),
        "def learn(q, qdot, qddot, B):\n    return lambda q, v: (v[:, :2].square().sum(-1) + (v[:, 2] + B * q[:, 0] * v[:, 1]) ** 2) / 2",
    ],
    "4b": [
        LEARN.format(**PLAIN),
        LEARN.format(**PARTS | {"features": PARTS["features"].replace("B *", "")}),
    ],
    "4c": [
        LEARN.format(**PLAIN),
        # the kinetic term with thetadot^2 keeps the Hessian regular and breaks the symmetry
        LEARN.format(**PARTS | {"kinetic": "kinetic = v.square().sum(-1) / 2"}),
        "def learn(q, qdot, qddot, B):\n    return lambda q, v: 0 * v.sum(-1)",
    ],
}
