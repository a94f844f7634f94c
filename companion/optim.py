r"""Optimisers for ensembles: every parameter is a stack of members, and members never mix.

`SOAP` (Vyas et al. 2024, algorithm 3) is Adam in the eigenbasis of Shampoo's preconditioner. For a
weight matrix with gradient $G$ it keeps running means of $GG^T$ and $G^TG$, turns the gradient into
their eigenbases $Q_L, Q_R$, takes Adam's step there, and turns the step back. Libraries treat a
stack `(S, n, m)` as one tensor of three axes and would precondition across members; this one sees S
matrices. And in the directions in which a gradient of low rank has no part, the rotation leaves
rounding errors, which Adam would divide by their own size and follow at full speed; here the second
moment has a floor at the size of those errors.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


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
