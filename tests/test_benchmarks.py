"""The benchmarks compare like with like, and their tables are what was measured."""

import json
import sys

import pytest
import torch
from ase.md.verlet import VelocityVerlet

from benchmarks import (
    argon_atoms,
    argon_forces,
    argon_training,
    canonical,
    equivariant,
    rollout,
    scalars,
    scalars_accuracy,
    step_time,
    tables,
    throughput,
    timing,
)
from benchmarks.paper import Process
from benchmarks.variants import VARIANTS
from companion import calculators, groups
from companion.experiments import argon


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


@pytest.mark.parametrize("name", tables.WRITERS)
def test_results_say_where_they_come_from(name):
    made = json.loads((timing.RESULTS / f"{name}.json").read_text())["provenance"]
    assert {"device", "threads", "torch", "python", "date", "command", "rounds"} <= made.keys()
    assert made["command"].startswith(f"python -m benchmarks.{name}")


def test_folder_without_the_papers_code_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no src/conservative_nn; clone"):
        step_time.main(["--paper-code", str(tmp_path)])


# Scalars: the springy pendulum beside the authors' JAX ------------------------------------------


def test_gradient_in_closed_form_and_by_autograd_make_the_same_step():
    net = scalars.network("hnn").double()
    data = scalars.segments().data[:, :20].double()
    results = []
    for field in (net.field(scalars.pendulum.given(net)), scalars.by_autograd(net)):
        net.zero_grad()
        loss = scalars.mean_square(field, data)
        loss.backward()
        results.append([loss.detach(), *(p.grad.clone() for p in net.parameters())])
    torch.testing.assert_close(results[1], results[0], rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("kind", scalars.KINDS)
def test_step_beside_the_one_in_jax_trains(kind):
    step = scalars.bare_step(kind)
    first, second = step(), step()
    assert first.isfinite()
    assert second != first


def test_mean_square_starts_every_interval_from_its_measured_state():
    net = scalars.network("node")
    data = scalars.segments().data[:, :2]
    whole = scalars.mean_square(net.field(scalars.pendulum.given(net)), data)
    parts = [
        scalars.mean_square(net.field(scalars.pendulum.given(net)), data[:, :, k : k + 2])
        for k in range(4)
    ]
    torch.testing.assert_close(whole, torch.stack(parts).mean())


@pytest.mark.parametrize("kind", scalars.KINDS)
def test_the_arrays_for_jax_are_our_network(kind):
    """The formulas of scalars_server.py, written once more."""
    net, arrays = scalars.network(kind), scalars.shared()
    own = {name.removeprefix(f"{kind}_"): x for name, x in arrays.items()}
    z = torch.from_numpy(own["z"][0])  # (5, 12)
    v = net.vectors(z, scalars.pendulum.given(net))[0]
    a = own["B"] @ v.numpy()
    rows, columns = torch.triu_indices(5, 5).numpy()
    products = (a @ a.swapaxes(1, 2))[:, rows, columns]
    lengths = (a[:, own["lengths"]] ** 2).sum(-1) ** 0.5
    phi = net.features(v[None])[0]
    torch.testing.assert_close(
        phi, torch.cat([torch.from_numpy(lengths), torch.from_numpy(products)], -1)
    )
    x = (phi.numpy() - own["centre"]) / own["scale"]
    for i in range(2):
        u = torch.from_numpy(x @ own[f"W{i}"].T + own[f"b{i}"])
        x = torch.nn.functional.silu(u).numpy()
    torch.testing.assert_close(torch.from_numpy(x @ own["C"].T), net.core.value(phi[None])[0])


def test_networks_that_are_not_the_same_function_are_refused():
    scalars.check_same(0.1, 0.10001)
    with pytest.raises(RuntimeError, match=r"0\.2 in JAX, 0\.1 in torch"):
        scalars.check_same(0.2, 0.1)
    with pytest.raises(RuntimeError, match="nan in JAX"):
        scalars.check_same(float("nan"), 0.1)


def test_the_truth_has_no_error_and_a_runaway_the_largest():
    true = scalars.pendulum.true_trajectories(3)
    assert scalars_accuracy.errors(true[:, None], true) == {"state": 1e-7, "short": 0.0}
    lost = true[:, None].clone()
    lost[:] = torch.nan
    assert scalars_accuracy.errors(lost, true)["state"] == 1.0


def test_accuracy_is_reached_by_the_first_run_that_is_as_good():
    theirs = [{"seconds": 10.0, "steps": 20, "state": 0.2}]
    ours = [
        {"seconds": s, "steps": 1, "state": e} for s, e in ((1.0, 0.3), (2.0, 0.1), (4.0, 0.004))
    ]
    found = scalars_accuracy.summary("hnn", theirs, ours)
    assert (found["theirs"], found["ours"]) == (10.0, 2.0)
    assert (found["published error"], found["ours, published"]) == (0.005, 4.0)
    assert found["theirs, by pace"] == 1000
    assert scalars_accuracy.summary("hnn", theirs, ours[:1])["ours"] is None


SERVER = """
import json, sys
print("noise"); print(">", json.dumps({"made": "here"}), flush=True)
for line in sys.stdin:
    if "end" in line: sys.exit(3)
    print(">", json.dumps(json.loads(line)[::-1]), flush=True)
"""


def test_a_process_answers_until_it_ends():
    process = Process([sys.executable, "-c", SERVER], "this and that", {})
    assert process.about == {"made": "here"}
    assert process.ask("a", 1) == [1, "a"]
    with pytest.raises(RuntimeError, match=r"ended with status 3; .* this and that"):
        process.ask("end")
    process.close()


@pytest.mark.parametrize("benchmark", [scalars, scalars_accuracy])
def test_folder_without_the_code_of_the_scalars_is_refused(benchmark, tmp_path):
    with pytest.raises(ValueError, match="holds no scalaremlp; clone"):
        benchmark.main(["--paper-code", str(tmp_path), "--emlp-code", str(tmp_path)])


# Canonical: Hamiltonian and symmetry control networks on two bodies -------------------------------


def test_losses_in_closed_form_are_those_that_autograd_writes_out():
    canonical.check_same()
    z, zdot = (x.double() for x in canonical.data()(0))
    net = canonical.scnn(dtype=torch.float64)
    ours, naive = net.losses(z, zdot), canonical.naive_losses(net, z, zdot)
    for a, b in zip(ours, naive, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_a_loss_that_is_another_is_refused(monkeypatch):
    monkeypatch.setattr(
        canonical, "control_loss_twice", lambda net, z, zdot: net.losses(z, zdot).hnn
    )
    with pytest.raises(RuntimeError, match="SymmetryControlNetwork: the loss is"):
        canonical.check_same()


@pytest.mark.parametrize("exact", [False, True])
def test_steps_of_a_symmetry_control_network_train(exact):
    step = canonical.bare_step(canonical.scnn(exact=exact), canonical.rates_loss)
    first, second = step(), step()
    assert first.isfinite()
    assert second != first  # the same batch: the weights have moved


def test_folder_without_the_code_of_hamiltonian_networks_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no .*clone https://github\.com/greydanus"):
        canonical.TheirCode(tmp_path)


# Argon: training, forces per second, cost against the number of atoms ----------------------------


def test_equations_as_written_are_the_network_that_is_trained():
    argon_training.check_same()


def test_equations_of_another_network_are_refused(monkeypatch):
    def other(net):
        made = argon_training.AsWritten(net, argon_training.norm)
        made.spreads = (made.spreads[0], 1.001 * made.spreads[1])
        return made

    monkeypatch.setitem(argon_training.WAYS, "by autograd, as written", other)
    with pytest.raises(RuntimeError, match="forces: the equations as written are another"):
        argon_training.check_same()


@pytest.mark.parametrize("way", argon_training.WAYS)
def test_every_way_to_train_on_argon_trains(way):
    batches = argon_training.data(n=500)
    net = argon_training.WAYS[way](argon_training.network(batches))
    before = argon_training.gradient(net, batches(0))()
    assert argon_training.whole_step(net, batches, argon_training.ADAM)(20) > 0
    assert argon_training.gradient(net, batches(0))() < before


def test_argon_rows_compare_ways_and_members_on_this_device():
    found = argon_training.measure(timing.CPU, 2, 0.001)["argon"]
    steps = found["a step of one member"]
    assert {"companion, SOAP", "companion, SOAP, 5 members at once"} <= steps.keys()
    assert set(found["gradient of a batch"]) == set(argon_training.WAYS)
    row = steps["companion, SOAP"]
    assert row["per second"] == pytest.approx(256_000 / row["ms"]["median"], rel=0.01)


@pytest.mark.parametrize("name", [argon_forces.TRUE, *argon_forces.MODELS])
def test_both_drivers_take_the_same_steps(name):
    """What is timed beside ASE's loop is the same trajectory."""
    net = argon_forces.SYSTEM
    if name != argon_forces.TRUE:
        net = argon_forces.network(argon_forces.MODELS[name], [0]).double()
    (r,), (v,) = argon_forces.start(1)
    path = argon_forces.SYSTEM.rollout(net.forces, r[None], v[None], steps=5)
    atoms = argon_forces.atoms(calculators.calculator(net))
    moving = VelocityVerlet(atoms, timestep=calculators.FEMTOSECOND)
    moving.run(5)
    away = torch.from_numpy(atoms.get_positions()) - path.r[-1].reshape(4, 3)
    assert away.abs().max() < 1e-10


def test_time_of_a_rollout_is_that_of_one_call_of_the_forces(monkeypatch):
    called = []

    def forces(r):
        called.append(r)
        return argon_forces.SYSTEM.forces(r)

    monkeypatch.setattr(argon_forces, "CLOCK", lambda: float(len(called)))
    assert argon_forces.by_rollout(forces, 2)(7) == pytest.approx(7.0)


def test_forces_of_ase_are_ours():
    atoms = argon_forces.atoms(argon_forces.lennard_jones())
    r = torch.from_numpy(atoms.get_positions())
    torch.testing.assert_close(
        torch.from_numpy(atoms.get_forces()), argon_forces.SYSTEM.forces(r), rtol=0, atol=1e-14
    )


def test_speeds_are_of_every_force_and_driver(monkeypatch):
    monkeypatch.setattr(argon_forces, "models", lambda: argon_forces.MODELS)
    found = argon_forces.speed(2, 0.001)
    assert found[argon_forces.ASE].keys() == {"ase"}
    assert found[argon_forces.ASE]["ase"]["ratio"]["median"] == 1.0
    for name in (argon_forces.TRUE, *argon_forces.MODELS):
        assert found[name].keys() == {"ase", "rollout", "thirty"}


def test_accuracy_is_that_of_trained_networks(monkeypatch):
    monkeypatch.setattr(argon_forces, "CONFIGURATIONS", 500)
    monkeypatch.setattr(argon_forces, "TESTED", 200)
    names = ("descriptor", argon_forces.LEAST_SQUARES)
    some = {name: argon_forces.MODELS[name] for name in names}
    monkeypatch.setattr(argon_forces, "models", lambda: some)
    untrained = argon_forces.error(argon_forces.network(some["descriptor"], [0]).double())
    found = argon_forces.accuracy(1.0, 1)
    assert found["descriptor"]["runs"][0]["rmsd"] < untrained / 2
    assert found[argon_forces.LEAST_SQUARES]["runs"][0]["rmsd"] < 1e-4


@pytest.mark.parametrize("N", [16, 64])
def test_rows_of_many_atoms_are_the_same_forces(N):
    r = argon_atoms.cluster(N)
    made = {
        name: make(N)(r) for name, (make, _) in argon_atoms.rows().items() if "e3nn" not in name
    }
    for one, other in (
        ("Argon, list kept", "ASE's LennardJones, list kept"),
        ("EnergyForces, all pairs", "EnergyForces, list kept"),
    ):
        torch.testing.assert_close(made[one], made[other], rtol=1e-9, atol=1e-12)


def test_a_list_is_kept_or_made_anew_as_the_row_says():
    for name, builds in (("Argon, list kept", 1), ("Argon, list anew", 4)):
        make, moved = argon_atoms.ROWS[name]
        evaluate = make(64)
        argon_atoms.task(evaluate, argon_atoms.cluster(64), moved)(4)
        assert evaluate.__self__._list.builds == builds


def test_cost_against_atoms_has_a_slope(monkeypatch):
    monkeypatch.setattr(argon_atoms, "SIZES", (4, 16, 64))
    monkeypatch.setitem(argon_atoms.LARGEST, argon_atoms.E3NN, 0)  # takes long to build
    found = argon_atoms.measure(2, 0.001, 64)
    assert found["pairs"][64] > found["pairs"][16] > found["pairs"][4] == 6
    assert set(found["rows"]["Argon, all pairs"]["ms"]) == {4, 16, 64}
    assert found["rows"]["Argon, list kept"]["ratio"][64]["median"] == 1.0


@pytest.mark.parametrize("energy", [False, True])
def test_the_network_of_e3nn_has_the_symmetries_of_the_task(energy):
    pytest.importorskip("e3nn")
    net = equivariant.E3nnForces(argon.descriptors(), energy).double().eval()
    with torch.no_grad():
        for p in net.parameters():  # e3nn starts some of them at zero
            p += 0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)).double()
        r = argon_forces.SYSTEM.sample(5, torch.Generator().manual_seed(2))
        F = net.forces(r)
        assert F.shape == (1, 5, 4, 3)
        assert F.abs().max() > 1e-6
        order = torch.tensor([2, 0, 3, 1])
        turn = groups.O(3).sample(generator=torch.Generator().manual_seed(3))
        for g in (turn, -turn):  # one of them reflects
            torch.testing.assert_close(net.forces(r @ g.mT + 1), F @ g.mT, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(net.forces(r[:, order]), F[:, :, order], rtol=1e-8, atol=1e-10)
        pairs = torch.triu_indices(4, 4, 1).T
        torch.testing.assert_close(net.forces(r, pairs), F)


def test_without_e3nn_its_rows_are_left_out_and_it_is_said(monkeypatch):
    monkeypatch.setattr(argon_forces.importlib.util, "find_spec", lambda name: None)
    assert argon_forces.models() == argon_forces.MODELS
    assert argon_atoms.E3NN not in argon_atoms.rows()
    monkeypatch.setitem(sys.modules, "e3nn", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"pip install 'symmetry-by-construction\[bench\]"
    ):
        equivariant.E3nnForces(argon.descriptors())
