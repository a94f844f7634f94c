r"""Training: one short loop, for one model or for an ensemble of seeds at once.

`fit` asks three things of the caller: a model whose parameters have a leading axis of members, a
loss with one value a member, and a batch that is a function of the step. The last makes a run
that was killed and resumed see the same data as one that was not: on a CPU both end in the same
bits.
"""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from companion._checkpoint import resume, save_checkpoint
from companion.datasets import check_finite
from companion.optim import SOAP

BUDGETS = ("ci", "demo", "full")
Batch = tuple[Tensor, ...]


class TrainingError(RuntimeError):
    """Training stopped: the loss is no longer a number."""


@dataclass
class History:
    """What a run leaves behind: the mean loss of each window of steps, and the time it took.

    `steps[k]` is the step at which window k ended, `loss[k]` the mean loss of each member over it.
    """

    steps: list[int] = field(default_factory=list)
    loss: list[list[float]] = field(default_factory=list)
    seconds: float = 0.0


def budget(choice: str | None = None) -> str:
    """The budget: `choice`, else the environment variable COMPANION_BUDGET, else demo.

    Raises ValueError, with the nearest names, for anything but ci, demo or full.
    """
    name = choice if choice is not None else os.environ.get("COMPANION_BUDGET") or "demo"
    if name not in BUDGETS:
        near = get_close_matches(name, BUDGETS, n=1, cutoff=0.3) or BUDGETS
        raise ValueError(f"{name!r} is not a budget; did you mean {' or '.join(near)}?")
    return name


def device(choice: str = "auto") -> torch.device:
    """The device of this name; "auto" is the GPU where there is one, else the CPU.

    Raises ValueError for a name torch does not know, and for a GPU where there is none.
    """
    gpu = torch.cuda.is_available()
    if choice == "auto":
        choice = "cuda" if gpu else "cpu"
    try:
        found = torch.device(choice)
    except RuntimeError as error:
        raise ValueError(f"{choice!r} is not a device; expected auto, cpu or cuda") from error
    if found.type == "cuda" and not gpu:
        raise ValueError(f"{choice!r}: torch {torch.__version__} sees no GPU; use auto or cpu")
    return found


def learning_rate(step: int, steps: int, lr: float, lr_end: float, warmup: int = 0) -> float:
    """A cosine from `lr` to `lr_end` at step `steps`, with a linear start over `warmup` steps."""
    cosine = lr_end + (lr - lr_end) * (1 + math.cos(math.pi * step / steps)) / 2
    return cosine * min(1.0, (step + 1) / max(warmup, 1))


def clip_members(parameters: list[torch.nn.Parameter], limit: float) -> None:
    """Scales each member's gradient to a norm of at most `limit`, independently of the others."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    squares = [g.reshape(len(g), -1).square().sum(1) for g in gradients]
    norm = torch.stack(squares).sum(0).sqrt()
    factor = (limit / norm).clamp(max=1.0)
    for g in gradients:
        g.mul_(factor.view(-1, *[1] * (g.dim() - 1)))


def fit(
    model: torch.nn.Module,
    loss: Callable[..., Tensor],
    batch: Callable[[int], Batch],
    *,
    steps: int,
    lr: float | None = 3e-3,
    lr_end: float = 3e-6,
    warmup: int = 0,
    clip: float = 1.0,
    optimizer: Callable[..., torch.optim.Optimizer] = SOAP,
    checkpoint: str | Path | None = None,
    every: int = 1000,
    window: int = 100,
    progress: bool = True,
    graph: bool = True,
) -> History:
    """Minimises `loss(model, *batch(step))`, a tensor `(S,)`, over `steps` steps.

    Args:
        model: parameters with a leading axis of S members.
        loss: the value of each member; members must not mix.
        batch: the data of a step, the same whenever it is asked for.
        steps: number of steps.
        lr, lr_end, warmup: the schedule, see `learning_rate`. `lr=None` is for an optimiser that
            has no learning rate, `FIRE`, and then there is no schedule.
        clip: largest norm of a member's gradient, above 0; `float("inf")` does not clip.
        optimizer: called as `optimizer(parameters, lr=lr)`, without `lr` where that is None.
        checkpoint: file to resume from if it is there, and to write every `every` steps and at the
            end, atomically. A run of another length or shape is refused.
        window: steps between two entries of the history.
        progress: whether to show a bar.
        graph: whether to capture the step as a CUDA graph, where the model is on a GPU.

    Returns the `History`, of a resumed run the whole of it.

    Raises:
        TrainingError: the loss of a member is inf or nan, or its weights are; names step and
            member. The last checkpoint stays as it was.
        ValueError: `steps`, `every` or `window` below 1, `clip` not above 0, nan or inf in the
            first batch (named by its index), a loss that is not `(S,)`, or a checkpoint that is
            damaged or of another run.
    """
    if min(steps, every, window) < 1:
        raise ValueError(
            f"steps, every and window must be 1 or more, got {steps}, {every}, {window}"
        )
    if not clip > 0:
        raise ValueError(f"clip must be above 0, got {clip}; float('inf') does not clip")
    parameters = [p for p in model.parameters() if p.requires_grad]
    opt = optimizer(parameters) if lr is None else optimizer(parameters, lr=lr)
    history, start = History(), 0
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None:
        start, history = resume(path, model, opt, steps, history)
    if start == steps:
        return history
    _check_batch(batch(start), start)
    gradients = _gradients(model, loss, batch(start), graph)
    begun, recent = time.perf_counter() - history.seconds, []
    # The notebook's bar does not read TQDM_DISABLE, as the terminal's does.
    quiet = not progress or bool(os.environ.get("TQDM_DISABLE"))
    bar = tqdm(total=steps, initial=start, desc="fit", mininterval=0.5, disable=quiet)
    with bar:
        for step in range(start, steps):
            opt.zero_grad(set_to_none=False)
            recent.append(gradients(batch(step)))
            if step == start:
                _check_start(recent[0], parameters, step, batch)
            clip_members(parameters, clip)
            if lr is not None:
                for group in opt.param_groups:
                    group["lr"] = learning_rate(step, steps, lr, lr_end, warmup)
            opt.step()
            done = step + 1
            save = done % every == 0 or done == steps
            if done % window == 0 or save:
                values = torch.stack(recent).cpu()
                _check_losses(values, done, batch)
                _check_weights(parameters, done)
                bar.update(len(recent))
                recent = []
                history.steps.append(done)
                history.loss.append(values.mean(0).tolist())
                history.seconds = time.perf_counter() - begun
                bar.set_postfix_str(f"loss {values.mean():.2e}")
            if path is not None and save:
                save_checkpoint(path, model, opt, done, steps, history)
    return history


def _check_batch(data: object, step: int) -> None:
    if not isinstance(data, tuple):
        raise ValueError(
            f"batch({step}) is a {type(data).__name__}; expected a tuple of tensors, the arguments "
            "of loss after the model; return (x,) for a single one"
        )
    check_finite(**{f"batch({step})[{k}]": x for k, x in enumerate(data)})


def _check_start(
    values: Tensor, parameters: list[torch.nn.Parameter], step: int, batch: Callable[[int], Batch]
) -> None:
    """What would go wrong in every step, or inside the optimiser, is said at the first."""
    S = len(parameters[0])
    if values.shape != (S,):
        raise ValueError(
            f"loss must return one value for each of the {S} members, shape ({S},), got shape "
            f"{tuple(values.shape)}; average over all axes but the members'"
        )
    _check_losses(values[None], step + 1, batch)
    _refuse(
        [p.grad for p in parameters if p.grad is not None],
        f"the gradient of member {{}} is not finite at step {step}; look for a square root or a "
        "quotient at zero in the loss",
    )


def _check_weights(parameters: list[torch.nn.Parameter], done: int) -> None:
    _refuse(
        [p.detach() for p in parameters],
        f"the weights of member {{}} are not finite after step {done - 1}; lower lr or lengthen "
        "warmup; the last checkpoint is kept",
    )


def _refuse(tensors: list[Tensor], message: str) -> None:
    finite = torch.stack([x.reshape(len(x), -1).isfinite().all(1) for x in tensors]).all(0)
    if not bool(finite.all()):
        raise TrainingError(message.format((~finite).nonzero()[0].item()))


def _check_losses(values: Tensor, done: int, batch: Callable[[int], Batch]) -> None:
    bad = (~values.isfinite()).nonzero()
    if len(bad):
        row, member = bad[0].tolist()
        step = done - len(values) + row
        try:
            _check_batch(batch(step), step)
            advice = "its batch is finite: lower lr or lengthen warmup"
        except ValueError as error:
            advice = str(error)
        raise TrainingError(
            f"the loss of member {member} became {values[row, member]} at step {step}; {advice}; "
            "the last checkpoint is kept"
        )


def _gradients(
    model: torch.nn.Module, loss: Callable[..., Tensor], example: Batch, graph: bool
) -> Callable[[Batch], Tensor]:
    """A function of a batch that adds the gradient to the parameters and returns the losses `(S,)`.

    On a GPU the step is captured once as a CUDA graph and replayed, which spares the launch of its
    kernels one by one; where a kernel cannot be captured, and on the CPU, it runs as it is.
    """

    def eager(data: Batch) -> Tensor:
        values = loss(model, *data)
        values.sum().backward()
        return values.detach()

    if not (graph and example[0].is_cuda):
        return eager
    static = tuple(x.clone() for x in example)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # a few runs outside the capture, as CUDA graphs ask for
        for _ in range(3):
            eager(static)
    torch.cuda.current_stream().wait_stream(side)
    capture = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(capture):
            result = eager(static)
    except RuntimeError:
        torch.cuda.synchronize()
        return eager

    def replay(data: Batch) -> Tensor:
        if any(x.shape != place.shape for place, x in zip(static, data, strict=True)):
            return eager(data)  # copy_ would stretch a smaller batch
        for place, x in zip(static, data, strict=True):
            place.copy_(x)
        capture.replay()
        return result.clone()

    return replay
