"""The benchmarks compare like with like, and their tables are what was measured."""

import json

import pytest
import torch

from benchmarks import rollout, step_time, tables, throughput, timing
from benchmarks.variants import VARIANTS


@pytest.fixture(params=list(step_time.CASES))
def case(request):
    return request.param


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_computes_the_same_acceleration_and_gradient(case, name):
    results = []
    for variant in ("explicit", name):
        net = step_time.network(case, dtype=torch.float64)
        with torch.no_grad():
            net.output *= 0.01  # far from a singular Hessian
        draw = torch.Generator().manual_seed(1)
        q, qdot = torch.randn(2, 1, 5, net.layer.d, generator=draw, dtype=torch.float64)
        acceleration = VARIANTS[variant](net, q, qdot)
        acceleration.square().mean().backward()
        results.append((acceleration.detach(), [p.grad for p in net.parameters()]))
        with torch.no_grad():  # as in a rollout
            torch.testing.assert_close(VARIANTS[variant](net, q, qdot), results[-1][0])
    (ours, slopes), (theirs, their_slopes) = results
    torch.testing.assert_close(theirs, ours, rtol=1e-9, atol=1e-11)
    for p, g in zip(slopes, their_slopes, strict=True):
        torch.testing.assert_close(g, p, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("name", VARIANTS)
def test_steps_train(case, name):
    step = step_time.bare_step(case, VARIANTS[name])
    first, second = step(), step()
    assert first.isfinite()
    assert second != first  # the same batch: the weights have moved


def test_rollouts_follow_the_network(case):
    net = step_time.network(case, dtype=torch.float64)
    draw = torch.Generator().manual_seed(0)
    y = torch.cat(step_time.CASES[case][0]().sample(3, draw), dim=-1)[None]
    with torch.no_grad():
        paths = [rollout.roller(net, name)(y, 0.001, 3, every=3) for name in rollout.COMPARED]
    for path in paths[1:]:
        torch.testing.assert_close(path, paths[0], rtol=1e-6, atol=1e-8)


def test_a_seed_step_is_the_step_divided_by_the_members(monkeypatch):
    clock = iter([0.0, 12.0])
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(throughput.training, "fit", lambda *_, **__: None)
    run = throughput.seed_steps("kepler", 4, "Adam", torch.device("cpu"), graph=True)
    assert run(1) == 3.0


def test_throughput_of_this_device_compares_members_and_optimisers():
    table = throughput.measure("kepler", torch.device("cpu"), 2, 0.001, None)["seed-step"]
    assert {name.split(" ")[0] for name in table} == {str(S) for S in throughput.MEMBERS}
    assert table["1 member, Adam"]["ratio"]["median"] == 1.0


def test_turns_are_taken_and_ratios_are_within_a_round():
    order, seconds = [], {"a": 1.0, "b": 2.0}

    def task(name):
        def run(n):
            order.append(name)
            seconds[name] *= 1.5  # both get slower, the ratio does not
            return n * seconds[name]

        return run

    found = timing.in_turns({"a": task("a"), "b": task("b")}, 4, 1.0, "a")
    assert order[4:] == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert found["a"]["ratio"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert found["b"]["ratio"] == {"median": 2.0, "low": 2.0, "high": 2.0}


def test_tables_are_what_was_measured():
    text = tables.README.read_text()
    assert tables.with_tables(text) == text, "type: python -m benchmarks.tables"


@pytest.mark.parametrize("name", ["step_time", "throughput", "rollout"])
def test_results_say_where_they_come_from(name):
    made = json.loads((timing.RESULTS / f"{name}.json").read_text())["provenance"]
    assert {"device", "threads", "torch", "python", "date", "command", "rounds"} <= made.keys()
    assert made["command"].startswith(f"python -m benchmarks.{name}")


def test_folder_without_the_papers_code_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no src/conservative_nn; clone"):
        step_time.main(["--paper-code", str(tmp_path)])
