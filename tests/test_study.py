"""What the experiments of Müller (2023) share: data of a trajectory, starts, charges, rollouts."""

import math

import pytest
import torch

from companion import datasets, metrics, systems
from companion.experiments import _lagrangian, kepler, schwarzschild, two_particle
from companion.lagrangian import LagrangianNetwork

STUDIES = {m.NAME: m.STUDY for m in (kepler, schwarzschild, two_particle)}
F64 = torch.float64
SMALL = _lagrangian.Settings(hidden=(8, 8), steps=4, batch=8, grow_at=2, batch_end=12, warmup=1)


@pytest.fixture(params=STUDIES)
def study(request):
    return STUDIES[request.param]


@pytest.mark.parametrize("module", [schwarzschild, two_particle])
def test_training_states_lie_on_the_one_trajectory(module):
    draw = torch.Generator().manual_seed(0)
    q, qdot = module.STUDY.sampler(500, draw)
    assert q.dtype == F64
    assert q.shape == (500, module.STUDY.system.d)
    assert not torch.equal(q[0], q[1])
    start = [x[None] for x in module.STUDY.start()]
    system = module.STUDY.system
    here, there = system.charges(q, qdot), system.charges(*start)
    assert (here - there).abs().max() < 1e-5  # after up to 320,000 steps of RK4
    assert (system.energy(q, qdot) - system.energy(*start)).abs().max() < 2e-4


def test_trajectory_draws_every_part_of_the_path_in_the_asked_dtype():
    planet = systems.Kepler()
    path = datasets.Trajectory(planet, *planet.perihelion(), dt=0.1, steps=40, every=10)
    assert len(path.path) == 5
    q, qdot = path(400, torch.Generator().manual_seed(1), torch.float32)
    assert q.dtype == qdot.dtype == torch.float32
    seen = {tuple(row.tolist()) for row in q}
    assert seen == {tuple(row.tolist()) for row in path.path[:, :3].float()}


def test_measurements_take_the_states_that_are_given():
    planet = systems.Kepler()
    path = datasets.Trajectory(planet, *planet.perihelion(), dt=0.1, steps=40, every=10)
    measure = datasets.NoisyMeasurements(planet, [3], 50, sigma=0.0, dtype=F64, states=path)
    q, qdot, qddot = measure(0)
    apart = (torch.cat([q, qdot], -1)[0][:, None] - path.path).abs().amax(-1)
    assert torch.equal(apart.amin(1), torch.zeros(50, dtype=F64))
    torch.testing.assert_close(qddot, planet.acceleration(q, qdot))


def test_the_second_start_is_a_thousandth_away(study):
    q, qdot = study.starts()
    assert torch.equal(q[0], study.start()[0])
    for x in (q, qdot):
        assert 0 < (x[1] - x[0]).abs().max() < 5 * _lagrangian.PERTURBATION


def test_own_charges_of_a_network_that_is_the_true_law(study):
    """With p of the true Lagrangian, `own_charges` must be the true charges."""
    q, qdot = study.sampler(20, torch.Generator().manual_seed(2))
    qdot.requires_grad_()
    (p,) = torch.autograd.grad(study.system.lagrangian_value(q, qdot).sum(), qdot)
    true = study.system.charges(q, qdot.detach())
    torch.testing.assert_close(study.own_charges(q, p), true, rtol=1e-10, atol=1e-10)


def test_every_variant_conserves_what_its_layer_promises(study):
    """Random weights: the drift of a conserved charge is RK4's, and falls with the step."""
    names = study.system.charge_names
    promised = {
        "invariant": [n for n in names if n.startswith(("L", "P_tau"))],
        "unconstrained": [n for n in names if n == "P_tau"],
        "rotations": [n for n in names if n.startswith("L")],
        "translations": [n for n in names if n.startswith("P")],
        "both": list(names),
    }
    for variant in study.variants:
        net = study.network(variant, SMALL, seeds=2)
        charges = promised[variant]
        drifts = []
        for dt in (0.025, 0.0125):
            run = study.rollout(net, dt=dt, T=1.0, keep=0.2)
            change = (run.own - run.own[0]).abs().amax((0, 1, 2))
            drifts.append(change[[names.index(n) for n in charges]].sum().item())
            lost = change[[names.index(n) for n in names if n not in charges]]
            assert len(lost) == 0 or lost.max() > 1e-5, "the test is blind"
        if charges:
            assert drifts[1] < max(drifts[0] / 12, 1e-12), variant


def test_rollout_of_the_true_law_keeps_the_true_charges(study):
    run = study.rollout(None, dt=0.01, T=2.0, keep=0.5)
    assert run.q.shape == (5, 1, 2, study.system.d)
    assert run.delta_true.shape == (5, 1)
    kept = study.system.charges(run.q, run.qdot)
    assert (kept - kept[0]).abs().max() < 1e-7
    assert torch.equal(run.true, run.own)
    assert run.t.tolist() == pytest.approx([0, 0.5, 1, 1.5, 2])


def test_copy_is_the_same_network_in_another_precision(study):
    net = study.network(next(iter(study.variants)), SMALL, seeds=2)
    other = _lagrangian.copy(net, F64)
    q, qdot = study.sampler(5, torch.Generator().manual_seed(3))
    a, b = other.acceleration(q, qdot), net.acceleration(q.float(), qdot.float())
    torch.testing.assert_close(a.float(), b, rtol=1e-3, atol=1e-4)
    assert other.mass.tolist() == list(study.mass)


def test_time_to_is_the_first_time_beyond_the_limit():
    t = torch.arange(4.0)
    nan = math.nan
    deviation = torch.tensor([[0, 0, 0, 0], [0, 2, nan, 0], [2, 0, 0, 0.5], [0, 0, 0, 0.5]])
    assert _lagrangian.time_to(t, deviation, 1.0) == (2.0, 1.0, 1.0, 3.0)
    assert _lagrangian.max_per_seed(deviation) == (2.0, 2.0, math.inf, 0.5)


def test_weights_of_another_experiment_are_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(kepler.SETTINGS, "ci", SMALL)
    kepler.train("ci", [0], "cpu", tmp_path, "here", progress=False)
    with pytest.raises(ValueError, match="weights of 'kepler', not of 'schwarzschild'"):
        schwarzschild.load(tmp_path)


# Relativity ------------------------------------------------------------------------------------


def test_precession_of_the_true_orbit_is_the_closed_form():
    run = schwarzschild.rollout(None, dt=0.02, keep=0.2)
    measured = schwarzschild.precession(run)
    exact = schwarzschild.STUDY.system.precession(*schwarzschild.STUDY.start())
    assert measured == pytest.approx([exact], rel=1e-4)
    assert 0.5 < exact < 1  # radians in each radial period: this is no weak field


def test_precession_of_a_member_without_closest_approaches_is_nan():
    t = torch.arange(5.0)
    x = torch.stack([t + 1, *[0 * t] * 3], -1)[:, None, None].double()
    v = torch.zeros_like(x)
    v[..., 0] = 1
    run = _lagrangian.Rollout(t, x, v, x, x)
    assert math.isnan(schwarzschild.precession(run)[0])


def test_unconstrained_network_of_the_black_hole_does_not_see_the_clock():
    net = schwarzschild.network("unconstrained", SMALL)
    q, qdot = schwarzschild.STUDY.sampler(6, torch.Generator().manual_seed(0), torch.float32)
    later = q + torch.tensor([0.0, 0, 0, 100])
    assert torch.equal(net.acceleration(q, qdot), net.acceleration(later, qdot))
    turned = q.flip(-1)
    assert not torch.allclose(net.acceleration(q, qdot), net.acceleration(turned, qdot))


# Two particles ---------------------------------------------------------------------------------


def test_number_of_features_is_table_2():
    table = {"unconstrained": 16, "rotations": 11, "translations": 12, "both": 6}
    assert {name: layer().M for name, layer in two_particle.VARIANTS.items()} == table


def test_delta_M_divides_by_the_momentum_of_the_first_particle():
    run = two_particle.rollout(None, dt=0.01, T=0.2)
    net = LagrangianNetwork(
        two_particle.VARIANTS["unconstrained"](), (8,), mass=[2.0] * 8, output_scale=1.0
    )
    own = two_particle.rollout(net, dt=0.01, T=0.2)
    P = [two_particle.STUDY.system.charge_names.index(n) for n in two_particle.LINEAR]
    v = run.qdot[0, 0, 0]
    for of, values, first in (
        (None, run.true[:, 0, 0], v[:4]),
        (
            net,
            own.own[:, 0, 0],
            _lagrangian.copy(net, F64)
            .momentum(own.q[0, :, 0], own.qdot[0, :, 0])[0, 0, :4]
            .detach(),
        ),
    ):
        source = run if of is None else own
        change = (values - values[0])[:, P].norm(dim=-1) / first.norm()
        torch.testing.assert_close(two_particle.delta_M(source, of)[:, 0], change)


# The angle of closest approach -----------------------------------------------------------------


def test_apsidal_angles_of_a_turning_ellipse_in_closed_form():
    """An ellipse about its centre, in a frame that turns: closest approaches at known angles."""
    dt, turn = 0.01, 0.1
    t = dt * torch.arange(1500, dtype=F64)
    c, s = (turn * t).cos(), (turn * t).sin()
    a, b = 2 * t.cos(), t.sin()
    x = torch.stack([c * a - s * b, s * a + c * b], -1)
    adot, bdot = -2 * t.sin(), t.cos()
    v = torch.stack([c * adot - s * bdot, s * adot + c * bdot], -1) + turn * torch.stack(
        [-x[:, 1], x[:, 0]], -1
    )
    k = torch.arange(4, dtype=F64)
    exact = math.pi / 2 + k * math.pi * (1 + turn) + turn * math.pi / 2
    found = metrics.apsidal_angles(x, v, dt)
    assert len(found) == 5
    difference = torch.remainder(found[:4] - exact + math.pi, 2 * math.pi) - math.pi
    assert difference.abs().max() < 1e-7


@pytest.mark.parametrize("shape", [(1, 2), (5, 1), (5, 2, 2)])
def test_apsidal_angles_refuse_what_is_no_trajectory(shape):
    with pytest.raises((ValueError, TypeError), match=r"two samples|Type-check error"):
        metrics.apsidal_angles(torch.zeros(shape), torch.zeros(shape), 0.1)
