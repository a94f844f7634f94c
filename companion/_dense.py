r"""Dense layers for an ensemble, with the derivatives that an acceleration needs, in closed form.

The two passes of `companion.lagrangian` (forward with tangents, then back), as a part that other
networks are made of: the edges and vertices of `companion.graph`, the density of
`companion.fields`. The members of the ensemble never mix.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from companion._activations import Activation, activation_named


class Dense(torch.nn.Module):
    r"""S networks $y = C\,\sigma(W_L \cdots \sigma(W_1 (x - c)/s + b_1) \cdots + b_L)$.

    `inputs` features, `hidden` widths, `outputs` values; rows are `(S, R, inputs)`. The centre c
    and the scale s belong to the inputs and are not trained (`standardise`). Kernels start normal
    with spread 2/sqrt(n) in the first layer and 1/sqrt(n) in the others, as in Müller (2023), the
    outputs with spread `output_scale`; a member's first weights depend on its generator alone.
    """

    centre: Tensor
    scale: Tensor

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int],
        outputs: int,
        activation: str | Activation,
        sources: Sequence[torch.Generator],
        output_scale: float,
        dtype: torch.dtype,
        device: torch.device | str | None,
    ) -> None:
        super().__init__()
        self.activation = activation_named(activation)

        def normal(sd: float, *shape: int) -> torch.nn.Parameter:
            draws = [torch.randn(shape, generator=g, dtype=torch.float64) for g in sources]
            return torch.nn.Parameter((sd * torch.stack(draws)).to(dtype=dtype, device=device))

        widths = [inputs, *hidden]
        spreads = [2 / hidden[0] ** 0.5, *(n**-0.5 for n in hidden[1:])]
        self.weights = torch.nn.ParameterList(
            normal(sd, n, m) for sd, m, n in zip(spreads, widths, hidden, strict=False)
        )
        self.biases = torch.nn.ParameterList(
            torch.nn.Parameter(torch.zeros(len(sources), n, dtype=dtype, device=device))
            for n in hidden
        )
        self.output = normal(output_scale, outputs, hidden[-1])
        self.register_buffer(
            "centre", torch.zeros(len(sources), inputs, dtype=dtype, device=device)
        )
        self.register_buffer("scale", torch.ones(len(sources), inputs, dtype=dtype, device=device))

    def value(self, x: Tensor) -> Tensor:
        """The outputs `(S, R, outputs)` at rows `(S, R, inputs)`."""
        x = self._scaled(x)
        for W, b in zip(self.weights, self.biases, strict=True):
            x = self.activation(torch.baddbmm(b[:, None], x, W.mT))
        return torch.bmm(x, self.output.mT)

    def with_slope(self, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The outputs and their derivatives in input `k`, both `(S, R, outputs)`: one pass."""
        x = self._scaled(x)
        R = x.shape[1]
        first = self.weights[0][:, :, k] / self.scale[:, k, None]
        tangent = first[:, None]  # the same in all rows
        u = torch.baddbmm(self.biases[0][:, None], x, self.weights[0].mT)
        y, slope, _ = self.activation.jet(u)
        rows = torch.cat([y, slope * tangent], dim=1)
        for W, b in zip(self.weights[1:], self.biases[1:], strict=True):
            rows = torch.bmm(rows, W.mT)
            y, slope, _ = self.activation.jet(rows[:, :R] + b[:, None])
            rows = torch.cat([y, slope * rows[:, R:]], dim=1)
        y, t = torch.bmm(rows, self.output.mT).split(R, dim=1)
        return y, t

    def gradient(self, x: Tensor) -> Tensor:
        """The gradient `(S, R, inputs)` of a network with one output."""
        _, slopes = self._forward(x)
        return self._back(self.output.expand(-1, x.shape[1], -1), slopes)

    def pull(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The outputs, and the function that takes slopes in the outputs `(S, R, outputs)` to
        slopes in the inputs `(S, R, inputs)`."""
        y, slopes = self._forward(x)
        return torch.bmm(y, self.output.mT), lambda c: self._back(torch.bmm(c, self.output), slopes)

    def jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The outputs and their gradients `(S, R, outputs, inputs)`."""
        y, slopes = self._forward(x)
        R, k = x.shape[1], self.output.shape[1]
        rows = self.output[:, None].expand(-1, R, -1, -1).flatten(1, 2)
        slopes = [s[:, :, None].expand(-1, -1, k, -1).flatten(1, 2) for s in slopes]
        return torch.bmm(y, self.output.mT), self._back(rows, slopes).unflatten(1, (R, k))

    def _forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The last hidden layer, and the slopes of the activations on the way."""
        x, slopes = self._scaled(x), []
        for W, b in zip(self.weights, self.biases, strict=True):
            x, slope, _ = self.activation.jet(torch.baddbmm(b[:, None], x, W.mT))
            slopes.append(slope)
        return x, slopes

    def _back(self, beta: Tensor, slopes: list[Tensor]) -> Tensor:
        """Slopes in the inputs from slopes in the last hidden layer."""
        for W, slope in zip(reversed(self.weights), reversed(slopes), strict=True):
            beta = torch.bmm(beta * slope, W)
        return beta / self.scale[:, None]

    def second_order(self, x: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient `(S, R, inputs)` and second derivatives `(S, R, k, k)` along `directions`
        `(S, R, k, inputs)`, of a network with one output."""
        S, R, k, _ = directions.shape
        x = self._scaled(x)
        tangents = directions / self.scale[:, None, None]
        rows = torch.cat([x[:, :, None], tangents], dim=2)  # value and k tangents: one matmul
        passed = []
        for W, b in zip(self.weights, self.biases, strict=True):
            rows = torch.bmm(rows.flatten(1, 2), W.mT).view(S, R, 1 + k, -1)
            T = rows[:, :, 1:]
            y, slope, bend = self.activation.jet(rows[:, :, 0] + b[:, None])
            passed.append((W, T, slope, bend))
            rows = torch.cat([y[:, :, None], slope[:, :, None] * T], dim=2)
        beta = self.output.expand(-1, R, -1)
        H = directions.new_zeros(S, R, k, k)
        for W, T, slope, bend in reversed(passed):
            H = H + (T * (beta * bend)[:, :, None]) @ T.mT
            beta = torch.bmm(beta * slope, W)
        return beta / self.scale[:, None], H

    @torch.no_grad()
    def standardise(self, x: Tensor) -> None:
        """Centres and scales every member's inputs by their mean and spread over these rows.

        An input that hardly varies (spread below 1e-6 of its size, or zero) keeps its scale.
        """
        spread = x.std(1)
        still = spread <= 1e-6 * x.abs().amax(1)
        self.centre.copy_(x.mean(1))
        self.scale.copy_(torch.where(still, torch.ones_like(spread), spread))

    def keep(self, s: int) -> None:
        """Drops all members but `s`."""
        for tensor in (*self.parameters(), self.centre, self.scale):
            tensor.data = tensor.data[s : s + 1].clone()

    def _scaled(self, x: Tensor) -> Tensor:
        return (x - self.centre[:, None]) / self.scale[:, None]


def expanded(q: Tensor, qdot: Tensor, like: Tensor, S: int, axis: str) -> tuple[Tensor, Tensor]:
    """States for S members, `(S, B, axis)`, from those or from `(B, axis)`, the same for all.

    Raises ValueError for another dtype or device than the weights `like`, or another S.
    """
    if {q.dtype, qdot.dtype} != {like.dtype} or {q.device, qdot.device} != {like.device}:
        raise ValueError(
            f"q and qdot are {q.dtype} and {qdot.dtype} on {q.device} and {qdot.device}, the "
            f"weights {like.dtype} on {like.device}; convert with .to(...)"
        )
    if q.dim() == 3 and q.shape[0] != S:
        raise ValueError(
            f"the first axis of q (S, B, {axis}) must be the S = {S} members, got "
            f"{tuple(q.shape)}; the same states for all members are (B, {axis})"
        )
    return q.expand(S, *q.shape[-2:]), qdot.expand(S, *q.shape[-2:])
