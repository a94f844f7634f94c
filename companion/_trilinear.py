r"""The sum $\sum A_{oa} X_{sab} Y_{sob}$ and its derivatives, for the bilinear maps of
`companion.emlp`.

Every tensor has an axis of members before and one of rows after: A `(S, o, a, R)`,
X `(S, s, a, b, R)`, Y `(S, s, o, b, R)`. The derivative in one of the three is a sum over products
of the other two, and so are all derivatives of that: one operation, three ways, closed under
differentiation. The axes s, o, a, b are short and rows are many, which suits no routine for
matrices; on the CPU it is a loop over rows compiled by numba, elsewhere a short loop of whole
tensors.
"""

from typing import cast

import torch
from torch import Tensor

from companion._kernels import kernel

OTHERS = {"A": "XY", "X": "AY", "Y": "AX"}


@kernel
def _in_a(X, Y, out):
    S, s, a, b, R = X.shape
    for i in range(S):
        for k in range(Y.shape[2]):
            for m in range(a):
                total = out[i, k, m]
                total[:] = 0
                for j in range(s):
                    for n in range(b):
                        x, y = X[i, j, m, n], Y[i, j, k, n]
                        for r in range(R):
                            total[r] += x[r] * y[r]


@kernel
def _in_x(A, Y, out):
    S, s, o, b, R = Y.shape
    for i in range(S):
        for j in range(s):
            for m in range(A.shape[2]):
                for n in range(b):
                    total = out[i, j, m, n]
                    total[:] = 0
                    for k in range(o):
                        x, y = A[i, k, m], Y[i, j, k, n]
                        for r in range(R):
                            total[r] += x[r] * y[r]


@kernel
def _in_y(A, X, out):
    S, s, a, b, R = X.shape
    for i in range(S):
        for j in range(s):
            for k in range(A.shape[1]):
                for n in range(b):
                    total = out[i, j, k, n]
                    total[:] = 0
                    for m in range(a):
                        x, y = A[i, k, m], X[i, j, m, n]
                        for r in range(R):
                            total[r] += x[r] * y[r]


def _compiled(want: str, left: Tensor, right: Tensor) -> Tensor:
    left, right = left.detach().contiguous(), right.detach().contiguous()
    S, R = left.shape[0], left.shape[-1]
    if want == "A":
        run, shape = _in_a, (right.shape[2], left.shape[2])
    elif want == "X":
        run, shape = _in_x, (right.shape[1], left.shape[2], right.shape[3])
    else:
        run, shape = _in_y, (right.shape[1], left.shape[1], right.shape[3])
    out = left.new_empty(S, *shape, R)
    run(left.numpy(), right.numpy(), out.numpy())
    return out


def _termwise(want: str, left: Tensor, right: Tensor) -> Tensor:
    """The same with whole tensors, a term at a time: all products at once would fit no cache."""
    if want == "A":
        X, Y = left, right
        pairs = [
            (X[:, s, None, :, b], Y[:, s, :, None, b])
            for s in range(X.shape[1])
            for b in range(X.shape[3])
        ]
    elif want == "X":
        A, Y = left, right
        pairs = [(A[:, None, o, :, None], Y[:, :, o, None]) for o in range(A.shape[1])]
    else:
        A, X = left, right
        pairs = [(A[:, None, :, a, None], X[:, :, None, a]) for a in range(A.shape[2])]
    total = pairs[0][0] * pairs[0][1]
    for x, y in pairs[1:]:
        total.addcmul_(x, y)
    return total


class _Contraction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, want, left, right):
        ctx.want = want
        ctx.save_for_backward(left, right)
        native = left.device.type == "cpu" and left.dtype in (torch.float32, torch.float64)
        return (_compiled if native else _termwise)(want, left, right)

    @staticmethod
    def backward(ctx, *grads):
        known = {ctx.want: grads[0], **dict(zip(OTHERS[ctx.want], ctx.saved_tensors, strict=True))}
        needed = zip(OTHERS[ctx.want], ctx.needs_input_grad[1:], strict=True)
        return None, *(
            contract(k, *(known[name] for name in OTHERS[k])) if wanted else None
            for k, wanted in needed
        )


def contract(want: str, left: Tensor, right: Tensor) -> Tensor:
    """The derivative of the sum in `want`, "A", "X" or "Y", from the other two in that order."""
    return cast(Tensor, _Contraction.apply(want, left, right))
