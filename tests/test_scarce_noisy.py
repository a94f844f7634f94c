"""Few data, noisy data, data from one side: sets, stopping rule, floors, mirror images."""

import math
from dataclasses import replace

import pytest
import torch

from companion import groups, invariants, systems
from companion.datasets import FiniteMeasurements, NoisyMeasurements
from companion.experiments import (
    _scarce,
    scarce_kepler,
    scarce_noisy,
    scarce_projections,
    scarce_symmetries,
)
from companion.lagrangian import LagrangianNetwork

WORLDS = scarce_symmetries.worlds()
TINY = scarce_noisy.Settings(
    kepler=scarce_kepler.Settings(
        sigmas=(1e-2, 1e-1), sizes=(8, 20), hidden=(8,), steps=4, batch=4, warmup=2
    ),
    plane=scarce_symmetries.Settings(sizes=(8, 20), hidden=(6,), steps=4, batch=4, warmup=2),
    sky=scarce_projections.Settings(orbits=2, arcs=2, measured=4, hidden=(8,), steps=4, tries=2),
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# Measurements: noise for each member, finite sets ----------------------------------------------


def test_every_member_has_its_own_noise_level():
    levels = (0.0, 1e-3, 0.5)
    together = NoisyMeasurements(systems.Kepler(), (4, 4, 9), 20, levels, torch.float64)(2)
    for s, (seed, sigma) in enumerate(zip((4, 4, 9), levels, strict=True)):
        alone = NoisyMeasurements(systems.Kepler(), (seed,), 20, sigma, torch.float64)(2)
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[s], b[0], rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("sigma", [(1e-3,), (1e-3, -1.0), (1e-3, math.nan)])
def test_noise_levels_that_do_not_fit_are_refused(sigma):
    with pytest.raises(ValueError, match="one, or one a seed"):
        NoisyMeasurements(systems.Kepler(), (0, 1), 20, sigma)


def finite(sizes=(8, 40), seeds=(3, 3), **options):
    options = {"batch": 50, "dtype": torch.float64, **options}
    return FiniteMeasurements(systems.Kepler(), seeds, sizes, **options)


def test_minibatches_are_a_pure_function_of_the_step():
    first, second = finite(), finite()
    wanted = torch.stack(first(5))
    second(1)
    assert torch.equal(torch.stack(second(5)), wanted)
    assert not torch.equal(torch.stack(second(6)), wanted)


def test_all_training_measurements_are_drawn_and_no_other():
    data = finite()
    (q, _, _), weights = data.validation()
    drawn = torch.cat([data(step)[0] for step in range(40)], 1)
    for s, (train, kept) in enumerate([(6, 2), (30, 10)]):
        assert torch.equal(drawn[s].unique(dim=0), data.data[0, s, :train].unique(dim=0))
        real = q[s][weights[s] > 0]
        assert torch.equal(real, data.data[0, s, train : train + kept])


def test_a_larger_set_contains_the_smaller_one():
    data = finite().data
    assert torch.equal(data[:, 0, :8], data[:, 1, :8])


def test_validation_weights_make_the_mean_of_each_member():
    data = finite()
    (q, _, _), weights = data.validation()
    mean = (q[..., 0] * weights).sum(1)
    expected = torch.stack([data.data[0, 0, 6:8, 0].mean(), data.data[0, 1, 30:40, 0].mean()])
    torch.testing.assert_close(mean, expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(
    "bad", [{"sizes": (8,)}, {"sizes": (8, 1)}, {"held_out": 0.0}, {"held_out": 1.0}]
)
def test_sets_that_cannot_be_are_refused(bad):
    with pytest.raises(ValueError, match="one size of 2 or more for each seed"):
        finite(**bad)
    with pytest.raises(ValueError, match="step must be 0 or more"):
        finite()(-1)


# The uneven oscillator --------------------------------------------------------------------------


def test_uneven_springs_twist_by_twice_epsilon_x_y():
    uneven = systems.AnisotropicOscillator(epsilon=0.2, m=1.5, k=0.7)
    q, qdot = uneven.sample(30, seeded())
    force = 1.5 * uneven.acceleration(q, qdot)
    torque = q[:, 0] * force[:, 1] - q[:, 1] * force[:, 0]
    torch.testing.assert_close(torque, 2 * 0.7 * 0.2 * q.prod(-1), rtol=1e-12, atol=1e-14)


def test_even_springs_are_the_harmonic_oscillator():
    q, qdot = systems.AnisotropicOscillator(0.0).sample(5, seeded())
    even = systems.HarmonicOscillator(2).acceleration(q, qdot)
    assert torch.equal(systems.AnisotropicOscillator(0.0).acceleration(q, qdot), even)


@pytest.mark.parametrize("epsilon", [1.0, -1.5])
def test_springs_that_push_are_refused(epsilon):
    with pytest.raises(ValueError, match="expected -1 < epsilon < 1"):
        systems.AnisotropicOscillator(epsilon)


# What all studies share -------------------------------------------------------------------------


def test_every_member_is_restored_to_its_own_best_step():
    net = LagrangianNetwork(invariants.Rotations(1, 2), (3,), seeds=3)
    errors = iter([[3.0, 3.0, math.nan], [1.0, 2.0, 5.0], [2.0, 1.0, math.nan]])
    watch = _scarce.BestSoFar(net, lambda: torch.tensor(next(errors)))
    for step in range(3):
        with torch.no_grad():
            for p in net.parameters():
                p.fill_(step)
        watch.look(step)
    watch.restore()
    assert watch.step.tolist() == [1, 2, 1]
    for p in net.parameters():
        assert p.reshape(3, -1).unique(dim=1).squeeze(1).tolist() == [1.0, 2.0, 1.0]


def test_training_with_validation_ends_where_validation_was_best():
    system, seeds = systems.AnisotropicOscillator(0.1), (0, 1)
    data = FiniteMeasurements(system, seeds, (8, 8), 4, 0.3)
    net = LagrangianNetwork(invariants.Unconstrained(1, 2), (16,), seeds=seeds, mass=[1.0] * 2)
    (measured, weights) = data.validation()
    schedule = {"steps": 60, "lr": 3e-2, "lr_end": 3e-2, "looks": 20}
    _, stopped = _scarce.fit(
        net, _scarce.log_square, data, held_out=(measured, weights), **schedule
    )
    ended = (_scarce.log_square(net, *measured) * weights).sum(1)
    again = LagrangianNetwork(invariants.Unconstrained(1, 2), (16,), seeds=seeds, mass=[1.0] * 2)
    _scarce.fit(again, _scarce.log_square, data, **schedule)
    last = (_scarce.log_square(again, *measured) * weights).sum(1)
    assert (ended <= last).all()
    assert (ended < last).any()
    assert min(stopped) < 60


def test_worth_and_crossing_are_exact_on_power_laws():
    n = [10.0, 100.0, 1000.0]
    slow, fast = [x**-0.5 for x in n], [0.25 * x**-0.5 for x in n]
    assert _scarce.worth(n, fast, slow, 2) == (pytest.approx(16.0), False)
    assert _scarce.worth(n, slow, slow, 2) == (pytest.approx(1.0), False)
    assert _scarce.worth(n, [1e-9] * 3, slow, 2) == (100.0, True)
    assert math.isnan(_scarce.worth(n, [9.0] * 3, slow, 2)[0])
    assert _scarce.crossing(n, [0.05] * 3, slow) == pytest.approx(400.0)
    assert math.isnan(_scarce.crossing(n, [0.001] * 3, slow))


def test_augmentation_turns_position_velocity_and_acceleration_alike():
    data = NoisyMeasurements(systems.Kepler(), (0, 1), 16, 0.0, torch.float64)
    turned = _scarce.rotated(data, scarce_kepler.rotations)(3)
    for a, b in zip(turned, data(3), strict=True):
        torch.testing.assert_close(a.norm(dim=-1), b.norm(dim=-1), rtol=1e-6, atol=1e-6)
    truth = systems.Kepler().acceleration(*turned[:2])
    torch.testing.assert_close(turned[2], truth, rtol=1e-4, atol=1e-5)
    assert (turned[0] - data(3)[0]).norm(dim=-1).min() > 1e-3


# Right and wrong symmetries ---------------------------------------------------------------------


def plane_error(f, world):
    q, qdot = scarce_symmetries.judged_states()
    truth = WORLDS[world].acceleration(q, qdot)
    return ((f(q, qdot) - truth).square().sum() / truth.square().sum()).sqrt().item()


def test_judged_states_are_closed_under_the_square_symmetries():
    q, qdot = scarce_symmetries.judged_states(5)
    z = torch.cat([q, qdot], -1)
    for g in scarce_symmetries.square_symmetries():
        moved = torch.cat([q @ g.T, qdot @ g.T], -1)
        apart = (moved[:, None] - z).abs().amax(-1)
        assert apart.amin(1).max() < 1e-12


@pytest.mark.parametrize("world", list(WORLDS))
@pytest.mark.parametrize("belief", ["O2", "SO2"])
def test_no_network_of_a_belief_comes_below_its_floor(world, belief):
    net = LagrangianNetwork(
        scarce_symmetries.BELIEFS[belief](),
        (16, 16),
        seeds=10,
        mass=[1.0] * 2,
        output_scale=0.3,
        dtype=torch.float64,
    )
    bound = scarce_symmetries.floor(belief, world)
    for s in range(10):
        one = net.member(s)
        error = plane_error(lambda q, v, one=one: one.acceleration(q, v)[0].detach(), world)
        assert error >= bound * (1 - 1e-9)


@pytest.mark.parametrize("epsilon", scarce_symmetries.EPSILONS)
def test_the_round_spring_attains_the_floor(epsilon):
    world = f"eps {epsilon:g}"
    attained = plane_error(lambda q, qdot: -q, world)
    assert attained == pytest.approx(scarce_symmetries.floor("O2", world), abs=1e-12)
    assert plane_error(lambda q, qdot: -1.05 * q, world) > attained


def test_averaging_splits_the_error_exactly():
    """E|f - f*|^2 = E|Pf - f*|^2 + E|f - Pf|^2 where f* and the states share the symmetry."""
    net = LagrangianNetwork(
        invariants.Unconstrained(1, 2), (16,), mass=[1.0] * 2, output_scale=0.1,
        dtype=torch.float64,
    )  # fmt: skip
    f = lambda q, v: net.acceleration(q, v)[0].detach()  # noqa: E731
    square = scarce_symmetries.square_symmetries()
    averaged = lambda q, v: sum(f(q @ g.T, v @ g.T) @ g for g in square) / 8  # noqa: E731
    q, qdot = scarce_symmetries.judged_states()

    def parts(truth):
        whole = (f(q, qdot) - truth).square().sum()
        return whole, (averaged(q, qdot) - truth).square().sum() + (
            (f(q, qdot) - averaged(q, qdot)).square().sum()
        )

    whole, split = parts(-q)
    assert whole == pytest.approx(split.item(), rel=1e-10)
    whole, split = parts(WORLDS["eps 0.3"].acceleration(q, qdot) + q[:, :1])  # no symmetry
    assert abs(whole / split - 1) > 1e-3


def test_the_magnetic_lagrangian_is_a_function_of_the_so2_features():
    q, qdot = scarce_symmetries.judged_states(10)
    layer = scarce_symmetries.BELIEFS["SO2"]()
    _, _, c, area = layer(q, qdot).unbind(-1)
    value = WORLDS["magnetic"].lagrangian_value(q, qdot)
    torch.testing.assert_close(0.5 * c + 0.5 * area, value, rtol=1e-12, atol=1e-12)
    assert len(scarce_symmetries.BELIEFS["O2"]().features) == 3


def test_a_system_kept_in_the_plane_moves_as_in_space():
    flat, full = (
        scarce_symmetries.Plane(systems.ChargedParticle(B=0.7)),
        systems.ChargedParticle(B=0.7),
    )
    q, qdot = flat.sample(5, seeded())
    lifted = [torch.nn.functional.pad(x, (0, 1)) for x in (q, qdot)]
    assert torch.equal(flat.acceleration(q, qdot), full.acceleration(*lifted)[:, :2])


def test_agreement_is_one_for_chance_and_large_for_a_common_signal():
    noise = torch.randn(5, 4000, generator=seeded(), dtype=torch.float64)
    assert scarce_symmetries.agreement(noise) == pytest.approx(1.0, abs=0.1)
    common = torch.randn(4000, generator=seeded(1), dtype=torch.float64)
    assert scarce_symmetries.agreement(noise + 3 * common) > 5


# Orbits seen from one side ----------------------------------------------------------------------


class TrueLaw(scarce_projections.Fit):
    """A fit whose network is replaced by 1/r^2: what a perfect fit would do."""

    def force(self, q):
        return -q / q.norm(dim=-1, keepdim=True) ** 3


def true_fit(sky, settings, mirrored=False):
    nodes = sky.path[:: settings.every * settings.measured][:-1].permute(1, 2, 0, 3).clone()
    if mirrored:
        nodes[:, ::2, :, [2, 5]] *= -1  # every second orbit
    return TrueLaw(LagrangianNetwork(scarce_projections.Depth(), (4,)), nodes)


@pytest.mark.parametrize("layer", [scarce_projections.Depth(), scarce_projections.Place()])
def test_derivatives_of_the_layers(layer):
    z = torch.randn(4, 6, generator=seeded(), dtype=torch.float64)
    g = torch.randn(4, layer.M, generator=seeded(1), dtype=torch.float64)
    jacobian, second = (
        torch.stack([f(layer.value, x) for x in z])
        for f in (
            torch.autograd.functional.jacobian,
            lambda value, x: torch.stack(
                [
                    torch.autograd.functional.hessian(lambda y, m=m: value(y)[m], x)
                    for m in range(layer.M)
                ]
            ),
        )
    )
    torch.testing.assert_close(layer.first(z), jacobian, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(
        layer.second(z, g), torch.einsum("bm,bmij->bij", g, second), rtol=1e-12, atol=1e-13
    )


@pytest.mark.parametrize("variant", ["invariant", "unconstrained"])
def test_the_short_force_is_the_networks_acceleration(variant):
    fit = scarce_projections.untrained(variant, TINY.sky, [0]).double()
    q, qdot = torch.randn(2, 2, 9, 3, generator=seeded(), dtype=torch.float64)
    with torch.no_grad():
        fit.net.output.mul_(50)
        expected = fit.net.acceleration(q, qdot)
        torch.testing.assert_close(fit.force(q), expected, rtol=1e-10, atol=1e-12)
        assert expected.norm(dim=-1).min() > 1e-3


def test_only_a_law_without_symmetry_can_tell_an_orbit_from_its_mirror_image():
    sky = scarce_projections.observe([0, 0], TINY.sky)
    for variant, blind in (("invariant", True), ("unconstrained", False)):
        fit = scarce_projections.untrained(variant, TINY.sky, [0]).double()
        with torch.no_grad():
            fit.net.output.mul_(50)
            before = scarce_projections.misfit(fit, sky.seen, 0.1, TINY.sky)
            fit.nodes[..., [2, 5]] *= -1
            after = scarce_projections.misfit(fit, sky.seen, 0.1, TINY.sky)
        assert torch.allclose(before, after, rtol=1e-9) == blind


def test_the_truth_and_its_mirror_images_fit_equally_and_are_recovered():
    settings = replace(TINY.sky, tries=1, orbits=4, arcs=10, measured=10)
    sky = scarce_projections.observe([0, 1], settings)
    found = []
    for mirrored in (False, True):
        fit = true_fit(sky, settings, mirrored)
        misfit = scarce_projections.misfit(fit, sky.seen, 1e-2, settings)
        assert ((misfit - 1).abs() < 0.15).all()  # 1600 measurements: 1 +- 0.04
        found.append(scarce_projections.recovered(fit, [0, 1], settings))
        assert found[-1].depth.max() < 1e-2
        assert found[-1].tilt.max() < 0.5
        assert found[-1].force.max() < 1e-5
    torch.testing.assert_close(found[0].path, found[1].path, rtol=1e-12, atol=1e-12)


def test_recovered_sees_a_wrong_plane_and_a_wrong_law():
    settings = replace(TINY.sky, tries=1)
    sky = scarce_projections.observe([0], settings)
    fit = true_fit(sky, settings)
    fit.force = lambda q: -0.5 * q
    with torch.no_grad():
        fit.nodes[..., [2, 5]] += 0.5 * fit.nodes[..., [0, 3]]
    found = scarce_projections.recovered(fit, [0], settings)
    assert found.force.min() > 0.1
    assert found.tilt.max() > 5
    assert found.depth.max() > 0.1


def test_the_sky_is_pure_and_its_planets_keep_energy_and_plane():
    settings = scarce_projections.Settings(orbits=5)
    sky = scarce_projections.observe([3], settings)
    again = scarce_projections.observe([2, 3], settings)
    assert torch.equal(sky.seen[:, 0], again.seen[:, 1])
    q, qdot = sky.path.split(3, dim=-1)
    energy = 0.5 * qdot.square().sum(-1) - 1 / q.norm(dim=-1)
    assert (energy - energy[0]).abs().max() < 1e-6
    half_axis = -0.5 / energy[0]
    assert half_axis.min() >= 1.0
    assert half_axis.max() <= 1.6
    noise = sky.seen - sky.path[:: settings.every, ..., :2]
    assert noise.std().item() == pytest.approx(settings.sigma, rel=0.1)


# The experiment as a whole ----------------------------------------------------------------------


def test_a_rotation_changes_nothing_for_the_invariant_network():
    for variant, same in (("invariant", True), ("unconstrained", False)):
        net = scarce_kepler.network(variant, TINY.kepler, TINY.kepler.sizes, [0])
        found = scarce_kepler.judge(net, 2)
        assert torch.allclose(found["orbit"], found["turned"], rtol=1e-9) == same
        assert found["drift"].shape == (2, 1)
        assert (found["drift"] <= scarce_kepler.LOST).all()


def test_members_of_a_seed_start_alike_at_every_level():
    net = scarce_kepler.network("invariant", TINY.kepler, TINY.kepler.sizes, [0, 7])
    assert net.seeds == (0, 7, 0, 7)
    assert torch.equal(net.output[0], net.output[2])


def test_train_store_evaluate_and_resume(tmp_path, monkeypatch):
    monkeypatch.setitem(scarce_noisy.SETTINGS, "ci", TINY)
    monkeypatch.setattr(scarce_kepler, "DT", 1.0)
    scarce_noisy.train("ci", range(2), "cpu", tmp_path, "test", progress=False)
    figures, about = scarce_noisy.evaluate(tmp_path, keep_curves=True)
    assert scarce_noisy.as_settings(about["settings"]) == TINY
    names = [figure.name for figure in figures]
    assert len(set(names)) == len(names)
    assert {name.split(",")[0] for name in names} >= {"noise", "samples", "plane", "sky"}
    assert (tmp_path / "curves.safetensors").exists()
    redone = []
    train_part = scarce_noisy.train_part

    def spy(part, *rest):
        redone.append(part)
        return train_part(part, *rest)

    monkeypatch.setattr(scarce_noisy, "train_part", spy)
    scarce_noisy.train("ci", range(2), "cpu", tmp_path, "test", progress=False)
    assert redone == []
    changed = replace(TINY, sky=replace(TINY.sky, steps=5))
    monkeypatch.setitem(scarce_noisy.SETTINGS, "ci", changed)
    scarce_noisy.train("ci", range(2), "cpu", tmp_path, "test", progress=False)
    assert redone == ["sky-invariant", "sky-unconstrained"]
    (tmp_path / "plane-O2.safetensors").unlink()
    with pytest.raises(ValueError, match="do not fit this version"):
        scarce_noisy.load(tmp_path)


def test_rotations_of_the_augmentation_are_rotations_and_pure():
    R = scarce_kepler.rotations(5, 30)
    assert torch.equal(R, scarce_kepler.rotations(5, 30))
    assert not torch.equal(R, scarce_kepler.rotations(6, 30))
    torch.testing.assert_close(R @ R.mT, torch.eye(3).expand_as(R), rtol=0, atol=1e-5)
    assert (torch.linalg.det(R) > 0).all()
    assert groups.SO(3).dim == 3
