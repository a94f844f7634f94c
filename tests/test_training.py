"""The training loop: the same bits after a kill, members apart, bad runs stopped and refused."""

import errno
import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import training_runs
from training_runs import OPTIMIZERS, STEPS, Stopped, measurements, network

from companion import _checkpoint, training
from companion._checkpoint import load_tensors, save_tensors
from companion.training import TrainingError, clip_members, fit, learning_rate


class Lines(torch.nn.Module):
    """The smallest ensemble: y = W x + b, scaled by one number a member."""

    def __init__(self, S=3, n=4, m=2, dtype=torch.float64):
        super().__init__()
        draw = torch.Generator().manual_seed(S + n)
        self.W = torch.nn.Parameter(torch.randn(S, n, m, generator=draw, dtype=dtype))
        self.b = torch.nn.Parameter(torch.zeros(S, n, dtype=dtype))
        self.size = torch.nn.Parameter(torch.ones(S, dtype=dtype))

    def forward(self, x):
        return self.size[:, None, None] * (x @ self.W.mT + self.b[:, None])


def lines_loss(model, x, y):
    return (model(x) - y).square().mean((1, 2))


def lines_batch(step, S=3, n=4, m=2, dtype=torch.float64):
    draw = torch.Generator().manual_seed(step)
    x = torch.randn(S, 8, m, generator=draw, dtype=dtype)
    return x, x.sum(-1, keepdim=True).expand(S, 8, n).sin()


def fit_lines(model=None, loss=lines_loss, batch=lines_batch, **options):
    model = model or Lines()
    options = {"steps": 20, "lr": 1e-2, "lr_end": 1e-3, "progress": False, **options}
    return model, fit(model, loss, batch, **options)


def same_weights(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


# Resuming ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def aftermath(tmp_path_factory):
    """What `training_runs.py` leaves behind, a process that kills its own children."""
    if os.name != "posix":
        pytest.skip("needs fork, SIGKILL and file-size limits")
    folder = tmp_path_factory.mktemp("runs")
    script = Path(training_runs.__file__)
    environment = {**os.environ, "PYTHONPATH": str(script.parents[1]), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, script, folder], check=True, env=environment, timeout=300)
    return folder


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_run_killed_five_times_ends_in_the_same_bits(aftermath, name):
    reached = json.loads((aftermath / f"{name}-reached.json").read_text())
    assert len(reached) == 5
    assert all(0 < step < STEPS for step in reached)
    weights, history = load_tensors(aftermath / f"{name}-whole")
    resumed, resumed_history = load_tensors(aftermath / f"{name}-killed")
    assert weights.keys() == resumed.keys()
    for key in weights:
        assert torch.equal(weights[key], resumed[key]), key
    assert resumed_history == {  # every=3 cuts some windows of 5 in two
        "steps": sorted({*range(3, STEPS + 1, 3), *range(5, STEPS + 1, 5)}),
        "loss": resumed_history["loss"],
    }
    assert resumed_history == history
    assert [p.name for p in aftermath.glob(".*")] == []


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("stop", [1, 9, 10, 11, 31])
def test_run_stopped_around_a_refresh_ends_in_the_same_bits(tmp_path, name, stop, monkeypatch):
    monkeypatch.setattr(training_runs, "STEPS", 33)
    whole, history = training_runs.train(name, None)
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Stopped):
        training_runs.train(name, checkpoint, stop=stop)
    resumed, resumed_history = training_runs.train(name, checkpoint)
    assert same_weights(whole, resumed)
    assert resumed_history == history


def test_stored_state_has_the_memory_layout_of_the_live_one(tmp_path):
    """Else a matrix product of a resumed run could round differently from the first run's."""
    model, opt = Lines(), None

    def soap(parameters, lr):
        nonlocal opt
        opt = training.SOAP(parameters, lr=lr, every=5)
        return opt

    fit_lines(model, optimizer=soap)
    for state in opt.state.values():
        assert all(x.is_contiguous() for x in state.values())


def test_finished_run_is_read_not_repeated(tmp_path):
    checkpoint = tmp_path / "deep" / "checkpoint"
    model, history = fit_lines(checkpoint=checkpoint)

    def never(step):
        raise AssertionError("no batch is needed")

    again, again_history = fit_lines(batch=never, checkpoint=str(checkpoint))
    assert same_weights(model, again)
    assert again_history == history


def test_leftovers_of_a_kill_are_removed_and_nothing_else(tmp_path):
    checkpoint = tmp_path / "checkpoint[1]"
    kept = [tmp_path / ".checkpoint[2].0123abcd", tmp_path / "checkpoint[1].0123abcd"]
    leftover = tmp_path / ".checkpoint[1].0123abcd"
    for path in (*kept, leftover):
        path.write_text("half a file")
    fit_lines(checkpoint=checkpoint)
    assert not leftover.exists()
    assert all(path.exists() for path in kept)


# Members -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_member_alone_equals_member_of_the_ensemble(name):
    options = {"steps": 30, "optimizer": OPTIMIZERS[name], "progress": False}
    double = torch.float64

    def trained(seeds):
        net = network(seeds, double)
        history = fit(net, training_runs.loss, measurements(seeds, double), **options)
        return net, history

    together, history = trained((5, 8, 9))
    for s, seed in enumerate(together.seeds):
        alone, alone_history = trained((seed,))
        for p, q in zip(together.member(s).parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-11)
        assert alone_history.loss[-1][0] == pytest.approx(history.loss[-1][s], rel=1e-9)


def test_clipping_is_per_member():
    model = Lines()
    draw = torch.Generator().manual_seed(0)
    sizes = torch.tensor([1e-3, 1.0, 1e6], dtype=torch.float64)
    for p in model.parameters():
        g = torch.randn(p.shape, generator=draw, dtype=p.dtype)
        p.grad = g * sizes.view(-1, *[1] * (p.dim() - 1))
    before = [p.grad.clone() for p in model.parameters()]
    clip_members(list(model.parameters()), 0.5)
    after = [p.grad for p in model.parameters()]

    def norms(gradients):
        return torch.cat([g.reshape(3, -1) for g in gradients], dim=1).norm(dim=1)

    expected = norms(before).clamp(max=0.5)
    torch.testing.assert_close(norms(after), expected)
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old[0], new[0])  # small: untouched
        ratio = (new / old).reshape(3, -1)
        torch.testing.assert_close(ratio, (expected / norms(before))[:, None].expand_as(ratio))


def test_clipping_leaves_a_zero_gradient_zero():
    model = Lines()
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    clip_members(list(model.parameters()), 1.0)
    assert all(bool((p.grad == 0).all()) for p in model.parameters())


def test_a_gradient_that_explodes_in_one_member_does_not_slow_the_others():
    def one_steep(model, x, y):
        scale = torch.tensor([1.0, 1e8, 1.0], dtype=x.dtype)
        return lines_loss(model, x, y) * scale

    plain, _ = fit_lines(clip=1e-2)
    steep, _ = fit_lines(loss=one_steep, clip=1e-2)
    for p, q in zip(plain.parameters(), steep.parameters(), strict=True):
        assert torch.equal(p[[0, 2]], q[[0, 2]])


# The schedule --------------------------------------------------------------------------------


def test_schedule_starts_and_ends_where_it_says():
    assert learning_rate(0, 100, 1e-2, 1e-4) == pytest.approx(1e-2)
    assert learning_rate(50, 100, 1e-2, 1e-4) == pytest.approx((1e-2 + 1e-4) / 2)
    assert learning_rate(100, 100, 1e-2, 1e-4) == pytest.approx(1e-4)
    rates = [learning_rate(t, 100, 1e-2, 1e-4) for t in range(101)]
    assert rates == sorted(rates, reverse=True)


def test_warmup_is_linear_and_then_over():
    for t in range(10):
        cosine = learning_rate(t, 100, 1e-2, 1e-4)
        assert learning_rate(t, 100, 1e-2, 1e-4, 10) == pytest.approx(cosine * (t + 1) / 10)
    for t in range(10, 100):
        assert learning_rate(t, 100, 1e-2, 1e-4, 10) == learning_rate(t, 100, 1e-2, 1e-4)


def test_fit_uses_the_schedule():
    seen = []

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            seen.append(self.param_groups[0]["lr"])
            return super().step(closure)

    fit_lines(steps=7, lr=1e-2, lr_end=1e-3, warmup=3, optimizer=Spy)
    assert seen == [learning_rate(t, 7, 1e-2, 1e-3, 3) for t in range(7)]


# Losses and data that are not numbers --------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("window", [1, 100])
def test_loss_that_is_no_number_stops_and_the_last_good_checkpoint_survives(
    tmp_path, value, window
):
    checkpoint = tmp_path / "checkpoint"
    bad = torch.tensor([1.0, 1.0, value], dtype=torch.float64)
    calls = []

    def loss(model, x, y):
        calls.append(1)
        values = lines_loss(model, x, y)
        return values * bad if len(calls) == 8 else values

    good, _ = fit_lines(steps=20, every=6, checkpoint=tmp_path / "good", batch=lines_batch)
    with pytest.raises(TrainingError, match=rf"member 2 became {value} at step 7; .*lower lr"):
        fit_lines(loss=loss, steps=20, every=6, window=window, checkpoint=checkpoint)
    assert load_tensors(checkpoint)[1]["step"] == 6
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    resumed, _ = fit_lines(steps=20, every=6, window=window, checkpoint=checkpoint)
    assert same_weights(resumed, good)


def test_first_loss_that_is_no_number_is_named_before_the_optimiser_chokes_on_it():
    def loss(model, x, y):
        return lines_loss(model, x, y) * torch.tensor([1.0, math.nan, 1.0])

    with pytest.raises(TrainingError, match="member 1 became nan at step 0"):
        fit_lines(loss=loss)


def test_first_gradient_that_is_no_number_is_named():
    def loss(model, x, y):  # the slope of a square root at zero
        error = lines_loss(model, x, y)
        return error + (model.b[:, 0] * torch.tensor([0.0, 0.0, 1.0])).square().sqrt()

    with pytest.raises(TrainingError, match=r"gradient of member [012] is not finite at step 0"):
        fit_lines(loss=loss)


@pytest.mark.parametrize("checkpoint", [True, False])
def test_weights_that_are_no_numbers_are_never_saved(tmp_path, checkpoint):
    """The loss is finite and its gradient is not, in the very step after which one saves."""
    path = tmp_path / "checkpoint" if checkpoint else None
    calls = []

    def loss(model, x, y):
        calls.append(1)
        error = lines_loss(model, x, y)
        kink = (model.size - model.size.detach()).square()[1].sqrt()
        return error + (kink if len(calls) == 10 else 0.0) * torch.tensor([0.0, 1.0, 0.0])

    with pytest.raises(TrainingError, match="weights of member 1 are not finite after step 9"):
        fit_lines(loss=loss, steps=10, every=5, checkpoint=path)
    if path:
        tensors, about = load_tensors(path)
        assert about["step"] == 5
        assert all(bool(x.isfinite().all()) for x in tensors.values())


def test_nan_in_the_first_batch_is_refused_with_its_index(tmp_path):
    def batch(step):
        x, y = lines_batch(step)
        y = y.clone()
        y[2, 7, 1] = math.nan
        return x, y

    model, before = Lines(), Lines()
    with pytest.raises(ValueError, match=r"batch\(0\)\[1\]\[2, 7, 1\] is nan"):
        fit_lines(model, batch=batch, checkpoint=tmp_path / "checkpoint")
    assert same_weights(model, before)
    assert list(tmp_path.iterdir()) == []


def test_nan_in_a_later_batch_is_named_with_its_index():
    def batch(step):
        x, y = lines_batch(step)
        if step == 7:
            x = x.clone()
            x[1, 3, 0] = math.inf
        return x, y

    with pytest.raises(
        TrainingError, match=r"member 1 .*step 7; batch\(7\)\[0\]\[1, 3, 0\] is inf"
    ):
        fit_lines(batch=batch)


# Checkpoints of another run, damaged ones, full disks ------------------------------------------


def half_a_run(path, **options):
    """A checkpoint of step 10 of 20."""

    def batch(step):
        if step == 11:
            raise Stopped
        return lines_batch(step)

    with pytest.raises(Stopped):
        fit_lines(batch=batch, every=5, checkpoint=path, **options)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 21}, "number of steps is 20 there, 21 here"),
        ({"model": Lines(S=2)}, r"W is torch.float64 \(3, 4, 2\) there, torch.float64 \(2, 4, 2\)"),
        ({"model": Lines(n=5)}, r"\(3, 4, 2\) there, torch.float64 \(3, 5, 2\) here"),
        ({"model": Lines(dtype=torch.float32)}, "torch.float64 .* there, torch.float32 .* here"),
        ({"model": torch.nn.Linear(2, 4)}, "W is torch.float64 .* there, None here"),
        ({"optimizer": torch.optim.Adam}, "optimiser is SOAP there, Adam here"),
    ],
)
def test_checkpoint_of_another_run_is_refused(tmp_path, change, message):
    path = tmp_path / "checkpoint"
    before = half_a_run(path)
    model = change.get("model") or Lines()
    weights = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(ValueError, match=message) as caught:
        fit_lines(**{"model": model, **change}, checkpoint=path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), weights, strict=True))


def test_other_tensors_are_no_checkpoint(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_tensors(path, {"W": torch.zeros(3)}, {"experiment": "kepler"})
    with pytest.raises(ValueError, match=r"weights\.safetensors belongs to another run"):
        fit_lines(checkpoint=path)


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 100, 0.5, -1])
def test_truncated_checkpoint_is_refused_and_kept(tmp_path, keep):
    path = tmp_path / "checkpoint"
    content = half_a_run(path)
    content = content[: int(keep * len(content)) if isinstance(keep, float) else keep]
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged or was not written") as caught:
        fit_lines(checkpoint=path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_flipped_bit_in_any_byte_is_noticed(tmp_path):
    path = tmp_path / "tensors"
    about = {"step": 3, "history": {"loss": [[0.25]]}}
    save_tensors(path, {"a": torch.arange(3.0), "b": torch.ones((), dtype=torch.int64)}, about)
    whole, good = path.read_bytes(), load_tensors(path)
    for position in range(0, 8 * len(whole), 3):  # every byte
        content = bytearray(whole)
        content[position // 8] ^= 1 << position % 8
        path.write_bytes(content)
        try:
            tensors, stored = load_tensors(path)
        except ValueError as error:
            named = str(path) in str(error)
        else:  # a bit that nothing reads
            named = stored == good[1] and tensors.keys() == good[0].keys()
            named = named and all(torch.equal(tensors[k], good[0][k]) for k in tensors)
        assert named, position


def test_flipped_bits_in_a_checkpoint_are_refused_and_it_is_kept(tmp_path):
    path = tmp_path / "checkpoint"
    whole = half_a_run(path)
    for place in (3, 200, len(whole) // 2, len(whole) - 1):
        content = bytearray(whole)
        content[place] ^= 16
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is damaged or was not written"):
            fit_lines(checkpoint=path)
        assert path.read_bytes() == content


class FullDisk(io.FileIO):
    """A file on a disk with room for a hundred bytes more."""

    def write(self, content):
        super().write(bytes(content)[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def no_space(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["open", "write", "fsync", "replace"])
def test_full_disk_keeps_the_old_checkpoint_and_leaves_nothing(tmp_path, monkeypatch, where):
    path = tmp_path / "checkpoint"
    before = half_a_run(path)
    if where == "open":
        monkeypatch.setattr(_checkpoint, "open", no_space, raising=False)
    elif where == "write":
        monkeypatch.setattr(_checkpoint, "open", FullDisk, raising=False)
    else:
        monkeypatch.setattr(_checkpoint.os, where, no_space)
    with pytest.raises(
        OSError, match=r"could not write .*checkpoint: No space left.* is kept"
    ) as e:
        fit_lines(every=5, checkpoint=path)
    assert e.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]
    resumed, _ = fit_lines(every=5, checkpoint=path)
    assert same_weights(resumed, fit_lines()[0])


def test_file_size_limit_keeps_the_old_checkpoint_and_leaves_nothing(aftermath):
    """The system's own refusal, in a process of its own."""
    report = json.loads((aftermath / "limited.json").read_text())
    assert "could not write" in report["message"]
    assert report["message"].endswith("File too large; what was there is kept")
    assert report["kept"]
    assert report["left"] == ["limited-checkpoint"]


def test_checkpoint_in_a_place_that_cannot_be_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"could not write .*checkpoint"):
        fit_lines(steps=2, checkpoint=tmp_path / "file" / "checkpoint")


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_others_may_read_what_the_umask_lets_them(tmp_path):
    old = os.umask(0o022)
    try:
        fit_lines(steps=2, checkpoint=tmp_path / "checkpoint")
    finally:
        os.umask(old)
    assert (tmp_path / "checkpoint").stat().st_mode & 0o777 == 0o644


# Arguments, history, bar ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps, every and window must be 1 or more, got 0"),
        ({"every": 0}, "must be 1 or more, got 20, 0"),
        ({"window": -1}, "must be 1 or more, got 20, 1000, -1"),
        ({"clip": 0.0}, "clip must be above 0, got 0.0"),
        ({"clip": math.nan}, "clip must be above 0, got nan"),
        ({"loss": lambda m, x, y: lines_loss(m, x, y).mean()}, r"shape \(3,\), got shape \(\)"),
        ({"loss": lambda m, x, y: (m(x) - y).square().mean(2)}, r"got shape \(3, 8\)"),
        ({"batch": lambda t: lines_batch(t)[0]}, r"batch\(0\) is a Tensor; expected a tuple"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        fit_lines(**options)


def test_history_holds_the_mean_of_each_window():
    _, fine = fit_lines(steps=12, window=1)
    _, coarse = fit_lines(steps=12, window=5)
    assert fine.steps == list(range(1, 13))
    assert coarse.steps == [5, 10, 12]
    loss = torch.tensor(fine.loss, dtype=torch.float64)
    means = torch.stack([loss[:5].mean(0), loss[5:10].mean(0), loss[10:].mean(0)])
    torch.testing.assert_close(torch.tensor(coarse.loss, dtype=torch.float64), means)
    assert coarse.seconds > 0


def test_bar_shows_the_loss_and_can_be_turned_off(capsys):
    fit_lines(progress=False)
    assert capsys.readouterr() == ("", "")
    _, history = fit_lines(progress=True, window=10)
    shown = capsys.readouterr().err
    mean = sum(history.loss[-1]) / 3
    assert f"loss {mean:.2e}" in shown
    assert "20/20" in shown


# Budgets and devices -------------------------------------------------------------------------


def test_budget_is_the_choice_then_the_environment_then_demo(monkeypatch):
    monkeypatch.delenv("COMPANION_BUDGET", raising=False)
    assert training.budget() == "demo"
    monkeypatch.setenv("COMPANION_BUDGET", "ci")
    assert training.budget() == "ci"
    assert training.budget("full") == "full"
    monkeypatch.setenv("COMPANION_BUDGET", "")
    assert training.budget() == "demo"


@pytest.mark.parametrize(("name", "near"), [("ful", "full"), ("dem", "demo"), ("ci2", "ci")])
def test_unknown_budget_offers_the_nearest(monkeypatch, name, near):
    with pytest.raises(ValueError, match=f"'{name}' is not a budget; did you mean {near}\\?"):
        training.budget(name)
    monkeypatch.setenv("COMPANION_BUDGET", name)
    with pytest.raises(ValueError, match=f"did you mean {near}\\?"):
        training.budget()


def test_budget_like_none_offers_all():
    with pytest.raises(ValueError, match="did you mean ci or demo or full"):
        training.budget("xyz")
    with pytest.raises(ValueError, match="'' is not a budget"):
        training.budget("")


def test_device():
    assert training.device("cpu") == torch.device("cpu")
    assert training.device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match="'gpu' is not a device; expected auto, cpu or cuda"):
        training.device("gpu")


def test_device_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="sees no GPU; use auto or cpu"):
        training.device("cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_graph_and_eager_steps_agree_on_a_gpu(monkeypatch):
    gpu = torch.device("cuda")

    def trained():
        net = network(dtype=torch.float64).to(gpu)
        measure = measurements(dtype=torch.float64)
        history = fit(
            net,
            training_runs.loss,
            lambda step: tuple(x.to(gpu) for x in measure(step)),
            steps=20,
            window=1,
            progress=False,
        )
        return net, history

    captured = []
    replay = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(
        torch.cuda.CUDAGraph, "replay", lambda graph: captured.append(1) or replay(graph)
    )
    graph, graph_history = trained()
    assert len(captured) == 20

    def eager(model, loss, example):
        def gradients(data):
            values = loss(model, *data)
            values.sum().backward()
            return values.detach()

        return gradients

    monkeypatch.setattr(training, "_gradients", eager)
    plain, plain_history = trained()
    torch.testing.assert_close(
        torch.tensor(graph_history.loss), torch.tensor(plain_history.loss), rtol=1e-8, atol=0
    )
    for p, q in zip(graph.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-7, atol=1e-9)
