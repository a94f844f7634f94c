"""The number of conserved quantities: the linear algebra, its failures, and figure 4."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch.func import jacfwd

from companion import artifacts, conserved, formulas
from companion.conserved import Library, count, orbit_dimension, spectrum
from companion.experiments import conserved_number as experiment


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def oscillations(frequencies, n=40, times=31, T=20.0, seed=0):
    """Exact trajectories `(time, n, 2 d)` of H = sum (p_i^2 + w_i^2 q_i^2) / 2."""
    w = torch.tensor(frequencies, dtype=torch.float64)
    q, p = normal(2, n, len(w), seed=seed)
    t = torch.linspace(0, T, times, dtype=torch.float64)[:, None, None]
    c, s = (w * t).cos(), (w * t).sin()
    return torch.cat([q * c + p / w * s, p * c - w * q * s], dim=-1)


def counted(path, degree, features=None, **options):
    return count(spectrum(Library(degree, features), path), path, **options)


# The library


def test_the_library_holds_every_monomial_once():
    z = normal(3, 4, 2)
    x, y = z.unbind(-1)
    expected = torch.stack([x, y, x * x, x * y, y * y, x**3, x * x * y, x * y * y, y**3], dim=-1)
    torch.testing.assert_close(Library(3)(z), expected)
    assert len(Library(4).powers(6)) == math.comb(10, 4) - 1


def test_its_slopes_are_right_where_coordinates_vanish():
    slopes = jacfwd(Library(2))(torch.zeros(2, dtype=torch.float64))
    assert slopes.tolist() == [[1, 0], [0, 1], [0, 0], [0, 0], [0, 0]]


def test_features_take_the_place_of_coordinates():
    z = normal(5, 2)
    found = Library(1, lambda z: torch.cat([z.cos(), z.sin()], dim=-1))(z)
    torch.testing.assert_close(found, torch.cat([z.cos(), z.sin()], dim=-1))


# The spectrum


def test_ratios_are_the_conservation_ratios_of_the_combinations():
    """On the trajectories that it was made from, to rounding; and each has variance 1 there."""
    path = normal(6, 20, 4).cumsum(0)
    found = spectrum(Library(2), path)
    kept = path[:, torch.arange(20) % 5 != 4]
    values = found(kept)
    torch.testing.assert_close(formulas.conservation_ratio(values), found.ratios)
    torch.testing.assert_close(values.flatten(0, 1).var(0, correction=0), torch.ones(14).double())
    assert (found.ratios.diff() >= 0).all()
    held = formulas.conservation_ratio(found(path[:, 4::5]))
    torch.testing.assert_close(held, found.held_out)


def test_no_combination_is_better_conserved_than_the_first():
    path = normal(6, 20, 4).cumsum(0)
    library = Library(2)
    best = spectrum(library, path).ratios[0]
    fitted = library(path[:, torch.arange(20) % 5 != 4])
    for seed in range(50):
        other = formulas.conservation_ratio(fitted @ normal(14, seed=seed))
        assert other >= best


def test_a_planted_conserved_combination_is_found():
    path = normal(8, 30, 3, seed=1)
    path = torch.cat([path, 2 * path[..., :1] * path[..., 1:2] + normal(30, 1, seed=2)], dim=-1)
    found = spectrum(Library(2), path)
    assert found.ratios[0] < 1e-12
    assert found.ratios[1] > 0.1
    weights = found.weights[:, 0]
    powers = [tuple(row) for row in Library(2).powers(4).tolist()]
    assert weights[powers.index((1, 1, 0, 0))] / weights[powers.index((0, 0, 0, 1))] == (
        pytest.approx(-2, abs=1e-9)
    )
    weights = weights.clone()
    weights[[powers.index((1, 1, 0, 0)), powers.index((0, 0, 0, 1))]] = 0
    assert weights.abs().max() < 1e-10


def test_what_is_the_same_on_all_data_is_a_constraint_and_not_conserved():
    path = oscillations([1.0, 2**0.5])
    path = torch.cat([path, torch.full_like(path[..., :1], 3.0), path[..., :1] * 2], dim=-1)
    found = spectrum(Library(1), path)
    assert found.constraints.shape[1] == 2
    assert found.ratios[0] > 0.9


# The count


@pytest.mark.parametrize(
    ("frequencies", "number"),
    [
        ([1.0, 2**0.5], 2),  # independent modes: their energies
        ([1.0, 1.0], 3),  # isotropic: angular momentum
        ([1.0, 2.0], 3),  # resonant: a cubic
        ([1.0, 2**0.5, 3**0.5], 3),
        ([1.0, 1.0, 2**0.5], 4),
        ([1.3], 1),
    ],
)
def test_oscillators_have_an_energy_a_mode_and_more_in_resonance(frequencies, number):
    path = oscillations(frequencies, n=80)
    found = counted(path, 3)
    assert (found.number, found.commuting) == (number, len(frequencies))
    assert found.constraints == 0
    assert found.gap > 100


def test_products_do_not_count():
    path = oscillations([1.0, 2**0.5], n=80)
    found = counted(path, 4)
    assert found.conserved == 5  # E_1, E_2, and their three products
    assert found.number == 2
    assert found.rank[2] < 1e-9


@pytest.mark.parametrize("name", experiment.cases())
def test_the_systems_of_the_paper(name):
    """Found is what is true, unless the data or the degree of the library forbid it."""
    case = experiment.cases()[name]
    found = case.count(0)
    hidden = {"two bodies, centred": 1, "three bodies, centred": 1}.get(name, 0)
    resonance = {"two oscillators": 1, "three oscillators": 2}.get(name, 0)
    assert found.number == case.true - hidden - resonance
    assert found.constraints == hidden
    assert found.commuting == (None if hidden else case.commuting)
    assert found.ratios[found.conserved - 1] < 1e-4
    assert found.gap > 100


def test_known_charges_are_among_the_combinations():
    """Momentum, angular momentum and energy are linear in what was found, and not one more."""
    case = experiment.cases()["three bodies"]
    path = case.path(0)
    found = spectrum(Library(2, case.features), path)
    C = torch.cat([case.system.phase_charges(path), case.system.hamiltonian(path)[..., None]], -1)
    one = found(path[:1])[..., : count(found, path).conserved]
    assert min(formulas.span(one, C[:1]).known) > 1 - 1e-9
    assert formulas.span(one, path[:1, :, :1]).known[0] < 0.5


# Its failures


def test_a_library_without_the_energy_finds_nothing():
    case = experiment.cases()["double pendulum"]
    path = case.path(0)
    assert counted(path, 4, experiment.turns).number == 0
    assert counted(path, 4, experiment.speeds).number == 1


def test_short_trajectories_have_all_that_geometry_allows():
    """Straightening: on a short piece a chaotic motion has 2 d - 1 = 3 conserved quantities."""
    case = experiment.cases()["double pendulum"]
    short = replace(case, n=200, points=40, T=0.3, substeps=5).path(0)
    assert counted(short, 2, experiment.turns).number == 3
    assert counted(case.path(0), 2, experiment.turns).number == 0


def test_noise_hides_what_is_conserved():
    path = oscillations([1.0, 2**0.5], n=80)
    noise = normal(*path.shape, seed=5)
    assert counted(path + 1e-3 * noise, 2).number == 2
    lost = counted(path + 0.1 * noise, 2)
    assert lost.number == 0
    assert lost.ratios[0] > 0.05


def test_a_library_too_large_for_its_data_is_seen_on_held_out_trajectories():
    path = normal(4, 30, 4).cumsum(0)  # nothing is conserved
    found = spectrum(Library(4), path)
    assert found.ratios[0] < 0.2
    assert found.held_out[0] > 0.5
    assert count(found, path).number == 0


@pytest.mark.parametrize(
    ("ratios", "k"),
    [
        ([1e-4, 1e-4, 0.5, 0.9], 2),
        ([1e-4, 2e-3, 0.03, 0.9], 3),  # the largest gap, 30
        ([1e-3, 5e-3, 2e-2, 0.1, 0.4], 0),  # no gap
        ([0.06, 0.9], 0),  # begins too high
        ([0.9, 0.9], 0),
        ([1e-4], 0),
    ],
)
def test_the_gap_rule(ratios, k):
    found, gap = conserved._gap(torch.tensor(ratios).double(), 0.05, 10.0)
    assert found == k
    assert not k or gap >= 10


# Orbits


def test_dimension_of_known_sets():
    t = 2 * math.pi * torch.rand(4000, 3, generator=seeded(0), dtype=torch.float64)
    circle = torch.cat([t[:, :1].cos(), t[:, :1].sin()], dim=-1)
    torus = torch.cat([t.cos(), t.sin()], dim=-1)[:, [0, 1, 3, 4]]
    assert orbit_dimension(circle) == pytest.approx(1, abs=0.05)
    assert orbit_dimension(torus) == pytest.approx(2, abs=0.1)
    assert orbit_dimension(t[:, :2], features=lambda z: torch.cat([z.cos(), z.sin()], -1)) == (
        pytest.approx(2, abs=0.1)
    )
    assert orbit_dimension(normal(4000, 4)) == pytest.approx(4, abs=0.4)


def test_dimension_of_an_orbit_is_2d_less_what_it_conserves():
    t = torch.rand(6000, generator=seeded(1), dtype=torch.float64) * 1e4

    def orbit(w):
        return torch.stack([t.cos(), (w * t).cos(), t.sin(), (w * t).sin()], dim=-1)

    assert orbit_dimension(orbit(2**0.5)) == pytest.approx(2, abs=0.1)
    assert orbit_dimension(orbit(1.5)) == pytest.approx(1, abs=0.05)


# What is refused


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (normal(5, 20), r"path has shape \(5, 20\)"),
        (normal(5, 9, 4), "10 trajectories or more"),
        (normal(1, 20, 4), "two times or more"),
        (normal(5, 20, 3), r"expected \(time, n, 2 d\)"),
        (normal(5, 20, 4) / 0, r"path\[0, 0, 0\]"),
        (normal(2, 10, 6), "16 points for 83 functions"),
    ],
)
def test_bad_trajectories_are_refused(path, message):
    with pytest.raises(ValueError, match=message):
        spectrum(Library(3), path)


def test_bad_libraries_and_orbits_are_refused():
    with pytest.raises(ValueError, match="degree must be 1 or more, got 0"):
        Library(0)
    with pytest.raises(ValueError, match="at least 10 samples a neighbour"):
        orbit_dimension(normal(100, 4))
    with pytest.raises(ValueError, match="3 neighbours or more"):
        orbit_dimension(normal(100, 4), neighbours=2)


# The experiment


def test_training_records_the_test_loss_and_resumes(tmp_path):
    whole = experiment.train_model(
        "oscillators", "n=1", "ci", [0, 1], "cpu", progress=False, steps=200
    )
    net, curve, history = whole
    assert curve.shape == (3, 2)
    loss = experiment.test_loss("oscillators", net)
    torch.testing.assert_close(curve[-1].double(), loss, rtol=1e-5, atol=0)
    along = experiment.TASKS["oscillators"].test_loss(net)
    torch.testing.assert_close(loss, along.reshape(2, -1).mean(-1), rtol=1e-5, atol=0)
    assert (curve[-1] < 0.5 * curve[0]).all()
    assert experiment.ratios("oscillators", net).shape == (2, 1)
    assert history.steps[-1] == 200


def test_ratios_of_a_network_are_those_of_its_momenta():
    task = experiment.TASKS["oscillators"]
    net = task.network("n=2", [0, 1], 8)
    P = net.charges(task.test.float().flatten(0, 1)).double().unflatten(1, task.test.shape[:2])
    expected = torch.stack([formulas.conservation_ratio(P[s]) for s in range(2)])
    torch.testing.assert_close(
        experiment.ratios("oscillators", net), expected.sort(-1).values, rtol=1e-4, atol=1e-5
    )


def test_weights_of_another_experiment_are_refused(tmp_path):
    with pytest.raises(ValueError, match="there are no weights"):
        experiment.load(tmp_path)
    artifacts.save_weights(tmp_path, {"a": {"x": torch.zeros(1)}}, {"experiment": "kepler"})
    with pytest.raises(ValueError, match="not of 'conserved_number'"):
        experiment.load(tmp_path)
    artifacts.save_weights(
        tmp_path, {"a": {"x": torch.zeros(1)}}, {"experiment": "conserved_number"}
    )
    with pytest.raises(ValueError, match="do not fit this version"):
        experiment.load(tmp_path)


def test_the_artifact_holds_every_figure():
    networks, _ = experiment.load()
    assert set(networks) == {f"{t}-{m}" for t in experiment.TASKS for m in experiment.MODELS}
    report = json.loads((artifacts.folder("conserved_number") / "metrics.json").read_text())
    known = {f["name"]: f["ours"]["mean"] for f in report["figures"]}
    for name, case in experiment.cases().items():
        assert known[f"{name}: counted"] <= case.true
    loss = experiment.test_loss("pendulum", networks["pendulum-n=1"])
    assert loss.mean().item() == pytest.approx(known["pendulum, n=1: test loss"], rel=1e-3)
    curves = artifacts.load_curves("conserved_number")
    assert curves["pendulum-n=1"][-1].mean().item() == pytest.approx(loss.mean().item(), rel=1e-2)
