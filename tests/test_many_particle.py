"""The experiment on a run small enough for a test, and its benchmark."""

import json
from dataclasses import replace

import pytest
import torch

from benchmarks import many_body as benchmark
from benchmarks import timing
from companion import artifacts
from companion.experiments import many_particle
from companion.graph import GraphLagrangian

SMALL = replace(many_particle.SETTINGS["ci"], hidden=(6,), steps=4, batch=4, sites=16, warmup=1)


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(many_particle.SETTINGS, "ci", SMALL)
        patch.setattr(many_particle, "LARGER", (8,))
        patch.setattr(many_particle, "LARGEST_T", 0.1)
        patch.setattr(many_particle, "BODY_T", 0.2)
        patch.setattr(many_particle, "FIELD_T", 0.2)
        yield


def run(folder):
    many_particle.train("ci", [0, 1], "cpu", folder, "a test", progress=False)
    return many_particle.evaluate(folder, keep_curves=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "many_particle"
    return folder, *run(folder)


def test_every_figure_is_there_and_again_the_same(trained):
    folder, figures, about = trained
    names = [figure.name for figure in figures]
    assert len(set(names)) == len(names) >= 30
    assert about["budget"] == "ci"
    assert all(len(figure.ours) == 2 for figure in figures)
    json.dumps([figure.summary() for figure in figures], allow_nan=False)
    again, _ = run(folder)  # resumes from the checkpoints: nothing is trained
    assert [figure.ours for figure in again] == [figure.ours for figure in figures]


def test_own_charges_of_the_graph_are_conserved_whatever_the_weights(trained):
    figures = {figure.name: figure for figure in trained[1]}
    for name, figure in figures.items():
        if name.startswith(("graph: drift of own", "invariant: drift of own")):
            assert max(figure.ours) < 1e-6, name
    assert min(figures["plain: drift of true P, N = 4"].ours) > 1e-6


def test_curves_hold_what_the_book_draws(trained):
    tensors = artifacts.load_tensors(trained[0] / "curves.safetensors")[0]
    assert tensors["graph.8.true.P"].shape == (2, 2)
    assert tensors["spectral.16.q"].shape == (3, 16)
    assert tensors["graph.error.8"].shape == (2,)


def test_weights_of_something_else_are_refused(trained, tmp_path):
    states, about = artifacts.load_weights(trained[0])
    for change, said in (
        ({"experiment": "kepler"}, "weights of 'kepler', not of 'many_particle'"),
        ({"settings": about["settings"] | {"hidden": [7]}}, "do not fit this version"),
    ):
        artifacts.save_weights(tmp_path, states, about | change)
        with pytest.raises(ValueError, match=said):
            many_particle.load(tmp_path)


def test_another_device_is_refused(tmp_path):
    with pytest.raises(ValueError, match="trains on the cpu"):
        many_particle.train("ci", [0], "cuda", tmp_path, "")


@pytest.mark.parametrize("variant", many_particle.VARIANTS)
def test_data_are_noisy_truth_and_the_same_again(variant):
    measure = many_particle.measurements(variant, SMALL, [3, 4])
    q, qdot, qddot = measure(7)
    assert q.shape == qdot.shape == qddot.shape
    assert q.shape[:2] == (2, 4)
    assert torch.equal(measure(7)[0], q)
    assert not torch.equal(measure(8)[0], q)
    clean = many_particle.measurements(variant, replace(SMALL, sigma=0.0), [3, 4])(7)
    for noisy, true in zip((q, qdot, qddot), clean, strict=True):
        assert 1e-4 < (noisy - true).std() < 2e-3


def test_smoothing_keeps_low_modes_and_drops_high_ones():
    x = 2 * torch.pi / 16 * torch.arange(16, dtype=torch.float64)
    low, high = (3 * x).sin(), (7 * x).cos()
    torch.testing.assert_close(many_particle.smoothed(low + high, 5), low)


def test_the_gauge_term_sees_the_scale_and_nothing_else():
    net = many_particle.network("graph", SMALL, [0, 1]).double()
    q, qdot, qddot = (x.double() for x in many_particle.measurements("graph", SMALL, [0, 1])(0))
    assert (many_particle.scale(net, q, qdot) - 1).abs().max() < 0.2
    with torch.no_grad():
        net.vertex.output.zero_()
        torch.testing.assert_close(many_particle.scale(net, q, qdot), torch.ones(2).double())
        fixed = many_particle.loss(net, q, qdot, qddot)
        free = many_particle.loss(net, q, qdot, qddot, gauge=0.0)
        torch.testing.assert_close(fixed, free)


def test_rollouts_leave_the_network_as_it_was():
    net = many_particle.network("graph", SMALL)
    many_particle.body_rollout(net, 8, 0.1)
    assert isinstance(net, GraphLagrangian)
    assert net.mass is not None
    assert len(net.mass) == 4
    assert net.vertex.output.dtype == torch.float32


# The benchmark ------------------------------------------------------------------------------------


def test_structure_and_full_hessian_are_one_function():
    net = benchmark.network("graph", 4, torch.float64)
    with torch.no_grad():
        net.vertex.output *= 20
    q, qdot = benchmark.states(4, torch.float64)
    torch.testing.assert_close(
        benchmark.full_hessian(net, q, qdot),
        benchmark.structured(net, q, qdot),
        rtol=1e-9,
        atol=1e-10,
    )


@pytest.mark.parametrize("name", benchmark.VARIANTS)
def test_benchmark_steps_train(name):
    step = benchmark.one_training_step(name, 2)
    assert step() != step()
    assert benchmark.one_acceleration(name, 2)().shape == (1, benchmark.BATCH, 6)


def test_exponents_are_slopes_of_the_largest():
    ms = {2: 100.0, 4: 16.0, 8: 64.0, 16: 512.0}
    assert abs(benchmark.exponent(ms) - 3) < 1e-5
    assert abs(benchmark.exponent(ms, last=3) - 2.5) < 1e-5


def test_the_section_of_the_readme_is_what_was_measured():
    text = benchmark.README.read_text()
    assert benchmark.with_table(text) == text, "type: python -m benchmarks.many_body --table"
    made = json.loads((timing.RESULTS / "many_body.json").read_text())["provenance"]
    assert made["command"].startswith("python -m benchmarks.many_body")
