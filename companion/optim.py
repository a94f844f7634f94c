r"""Optimisers for ensembles: every parameter is a stack of members, and members never mix.

`SOAP` (Vyas et al. 2024, algorithm 3) is Adam in the eigenbasis of Shampoo's preconditioner. For a
weight matrix with gradient $G$ it keeps running means of $GG^T$ and $G^TG$, turns the gradient into
their eigenbases $Q_L, Q_R$, takes Adam's step there, and turns the step back. Libraries treat a
stack `(S, n, m)` as one tensor of three axes and would precondition across members; this one sees S
matrices. And in the directions in which a gradient of low rank has no part, the rotation leaves
rounding errors, which Adam would divide by their own size and follow at full speed; here the second
moment has a floor at the size of those errors.

`FIRE` (Bitzek et al. 2006) is no method of stochastic gradients. It lets the parameters roll down
the loss as a body with inertia would, and stops the body whenever it moves uphill.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

ORDERS = ("paper", "ase")


class SOAP(torch.optim.Optimizer):
    r"""SOAP for stacks of matrices `(S, n, m)`; any other parameter gets Adam's step.

    Args:
        params: parameters whose leading axis counts the members.
        lr: step size.
        betas: decay of the running means of the gradient and of its square and outer products.
        eps: added to the square root of the second moment.
        every: steps between two refreshes of the eigenbases (one power iteration and a QR each).

    Raises:
        ValueError: `lr`, `betas`, `eps` or `every` out of range.
    """

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter],
        lr: float = 3e-3,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
        every: int = 10,
    ) -> None:
        if not (lr >= 0 and eps > 0 and every >= 1 and all(0 <= beta < 1 for beta in betas)):
            raise ValueError(
                "expected lr >= 0, eps > 0, every >= 1 and betas in [0, 1), got "
                f"lr={lr}, eps={eps}, every={every}, betas={betas}"
            )
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "every": every})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Takes one step; `closure`, if given, is evaluated first and its value returned."""
        value = None
        if closure is not None:
            with torch.enable_grad():
                value = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, p.grad, self.state[p], group)
        return value

    def _update(self, p: Tensor, g: Tensor, state: dict, group: dict) -> None:
        beta1, beta2 = group["betas"]
        matrices = p.dim() == 3
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float64)  # on the CPU: no wait for the GPU
            state["mean"], state["square"] = torch.zeros_like(p), torch.zeros_like(p)
            if matrices:
                for side, outer in (("left", g @ g.mT), ("right", g.mT @ g)):
                    state[side] = outer
                    state[side + "_basis"] = torch.linalg.eigh(outer).eigenvectors.contiguous()
        state["step"] += 1
        t = int(state["step"])
        state["mean"].lerp_(g, 1 - beta1)
        mean, turned = state["mean"], g
        if matrices:
            L, R = state["left_basis"], state["right_basis"]
            mean, turned = L.mT @ mean @ R, L.mT @ g @ R
        state["square"].mul_(beta2).addcmul_(turned, turned, value=1 - beta2)
        root = (state["square"] / (1 - beta2**t)).sqrt_().add_(group["eps"])
        if matrices:
            root += 100 * torch.finfo(p.dtype).eps * root.amax((1, 2), keepdim=True)
        direction = mean / (1 - beta1**t) / root
        if matrices:
            direction = L @ direction @ R.mT
        p.add_(direction, alpha=-group["lr"])
        if matrices:
            state["left"].lerp_(g @ g.mT, 1 - beta2)
            state["right"].lerp_(g.mT @ g, 1 - beta2)
            if t % group["every"] == 0:
                state["square"] = self._refresh(state, "left", -2)
                state["square"] = self._refresh(state, "right", -1)

    @staticmethod
    def _refresh(state: dict, side: str, axis: int) -> Tensor:
        """One power iteration on a basis, columns sorted; returns the second moment sorted."""
        basis, square = state[side + "_basis"], state["square"]
        turned = state[side] @ basis
        order = (basis * turned).sum(-2).argsort(dim=-1, descending=True)
        columns = order[:, None, :].expand_as(turned)
        # LAPACK's order of columns would be lost in a checkpoint, and with it perhaps a last bit
        state[side + "_basis"] = torch.linalg.qr(turned.gather(-1, columns)).Q.contiguous()
        index = order[:, :, None] if axis == -2 else order[:, None, :]
        return square.gather(axis, index.expand_as(square))


class FIRE(torch.optim.Optimizer):
    r"""The fast inertial relaxation engine, as in appendix A of Ma & Chan (2022).

    All parameters of a member are one point $x$ of mass $m$ on which the force is $F = -\nabla L$.
    It moves under Newton's law; its velocity is turned towards the force, (A.1); and where the
    power $P = F \cdot v$ is not positive, it is stopped. $\Delta t$ grows while all goes well and
    halves at every stop: this is the step size, and there is no learning rate
    (`fit(..., optimizer=FIRE, lr=None)`). Every member has its own $\Delta t$, $\alpha$ and $N$.

    Args:
        params: parameters whose leading axis counts the members, in one group.
        dt, dt_max: first and largest step in time; lengths, masses and times have no unit here.
        mass: $m$ of every parameter.
        N_min: number of steps downhill after which the step may grow.
        f_inc, f_dec: factors by which it grows, and shrinks at a stop.
        alpha_start: first share of the force's direction in the velocity, also after a stop.
        f_alpha: factor of $\alpha$ when the step grows.
        order: what happens first in a step, with the force at the present point. `"paper"` is
            appendix A: the old velocity moves the point (explicit Euler), the force changes the
            velocity, and P is that of the new velocity. `"ase"` is `ase.optimize.FIRE`: P and the
            turn come first, with the old velocity, then the force changes the velocity, and the
            new velocity moves the point (semi-implicit Euler). With `mass=1` both programs take
            the same steps, as long as ASE's `maxstep` does not cut them.

    A parameter without gradient counts as one with a force of zero. A member at rest on which no
    force acts stays as it is, $\Delta t$ included.

    Raises:
        ValueError: an argument out of range; an unknown order; several groups of parameters, which
            would be one point with two clocks; parameters whose leading axes differ.
    """

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter] | Iterable[dict],
        dt: float = 1e-3,
        dt_max: float = 1e-2,
        mass: float = 0.1,
        N_min: int = 5,
        f_inc: float = 1.1,
        f_dec: float = 0.5,
        alpha_start: float = 0.1,
        f_alpha: float = 0.99,
        order: str = "paper",
    ) -> None:
        inside = 0 < dt <= dt_max < math.inf and 0 < mass < math.inf and N_min >= 0
        factors = 1 <= f_inc < math.inf and 0 < f_dec < 1 and 0 < f_alpha <= 1
        if not (inside and factors and 0 <= alpha_start <= 1):
            raise ValueError(
                "expected 0 < dt <= dt_max, mass > 0, N_min >= 0, f_inc >= 1, 0 < f_dec < 1, "
                f"0 < f_alpha <= 1 and 0 <= alpha_start <= 1, got dt={dt}, dt_max={dt_max}, "
                f"mass={mass}, N_min={N_min}, f_inc={f_inc}, f_dec={f_dec}, f_alpha={f_alpha}, "
                f"alpha_start={alpha_start}"
            )
        if order not in ORDERS:
            raise ValueError(f"order: got {order!r}, expected {' or '.join(map(repr, ORDERS))}")
        options = {"dt": dt, "dt_max": dt_max, "mass": mass, "N_min": N_min, "f_inc": f_inc}
        options |= {"f_dec": f_dec, "alpha_start": alpha_start, "f_alpha": f_alpha, "order": order}
        super().__init__(params, options)

    def add_param_group(self, param_group: dict) -> None:
        """Takes the one group of parameters, and refuses a second one."""
        super().add_param_group(param_group)
        shapes = [tuple(p.shape) for g in self.param_groups for p in g["params"]]
        axes = {shape[:1] for shape in shapes}
        if len(self.param_groups) != 1 or len(axes) != 1 or () in axes:
            raise ValueError(
                "params: expected one group of parameters with the same leading axis, that of the "
                f"members, got {len(self.param_groups)} group(s) with the shapes {shapes}"
            )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Takes one step; `closure`, if given, is evaluated first and its value returned."""
        value = None
        if closure is not None:
            with torch.enable_grad():
                value = closure()
        group = self.param_groups[0]
        params: list[Tensor] = group["params"]
        flat = [(p if p.grad is None else p.grad).reshape(len(p), -1) for p in params]
        still = [x if p.grad is not None else x * 0 for x, p in zip(flat, params, strict=True)]
        F = -torch.cat(still, 1)  # (S, number of weights)
        state = self.state[params[0]]  # of all parameters together, as LBFGS keeps its own
        if not state:
            state["velocity"] = torch.zeros_like(F)
            state["dt"] = F.new_full((len(F), 1), group["dt"])
            state["alpha"] = F.new_full((len(F), 1), group["alpha_start"])
            state["downhill"] = F.new_zeros(len(F), 1)  # N: steps since the last stop
        if group["order"] == "paper":
            move = state["dt"] * state["velocity"]
            state["velocity"] += state["dt"] / group["mass"] * F
            self._steer(F, state, group)
        else:
            self._steer(F, state, group)
            state["velocity"] += state["dt"] / group["mass"] * F
            move = state["dt"] * state["velocity"]
        for p, x in zip(params, move.split([x.shape[1] for x in flat], 1), strict=True):
            p += x.view_as(p)
        return value

    @staticmethod
    def _steer(F: Tensor, state: dict, group: dict) -> None:
        """Turns the velocity towards the force, or stops it: steps 5 to 8 of appendix A."""
        v, alpha, N = state["velocity"], state["alpha"], state["downhill"]
        size_F, size_v = F.norm(dim=1, keepdim=True), v.norm(dim=1, keepdim=True)
        downhill = (F * v).sum(1, keepdim=True) > 0
        uphill = ~downhill & (size_v > 0)  # one at rest has nothing to stop
        turned = (1 - alpha) * v + alpha * size_v / size_F.clamp(min=1e-30) * F
        counted = N + 1 if group["order"] == "paper" else N  # before the comparison, or after it
        longer = downhill & (counted > group["N_min"])
        state["velocity"] = torch.where(downhill, turned, 0.0)
        grown = (state["dt"] * group["f_inc"]).clamp(max=group["dt_max"])
        dt = torch.where(longer, grown, state["dt"])
        state["dt"] = torch.where(uphill, dt * group["f_dec"], dt)
        alpha = torch.where(longer, alpha * group["f_alpha"], alpha)
        state["alpha"] = torch.where(uphill, group["alpha_start"], alpha)
        state["downhill"] = torch.where(downhill, N + 1, torch.where(uphill, 0.0, N))
