"""What a symmetry buys: pendulums of every make, frames, units, silenced features, the studies."""

import math
from dataclasses import replace

import pytest
import torch

from companion import artifacts, datasets, groups, systems
from companion.experiments import _symmetry_buys_measures as measures
from companion.experiments import _symmetry_buys_models as models
from companion.experiments import _symmetry_buys_worlds as worlds
from companion.experiments import symmetry_buys
from companion.experiments._symmetry_buys_models import Network, Units

TINY = symmetry_buys.Settings(
    sizes=(6, 8),
    sizes_emlp=(6, 8),
    width=6,
    steps=3,
    batch=4,
    long=3,
    large=4,
    efforts=(3, 4),
    efforts_scalars=(3,),
    middle=4,
    n=8,
)
KINDS = ("scalars", "gram", "emlp", "told", "all", "constants", "units")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def anywhere(n):
    return measures.some_frames("anywhere", n)


def random_network(sees, seeds=(0, 1), width=12):
    """Random weights, far from small, standardised on pendulums of all makes."""
    net = Network(sees, width, seeds)
    net.standardise(worlds.ask(40, 5, (0.5, 2.0), 1.5, turned=True))
    net = net.double()
    output = net.net.core.output
    with torch.no_grad():
        for p in [output] if sees != "emlp" else output.parameters():
            p.mul_(10)
    return net


# Pendulums and their true motion ---------------------------------------------------------------


def test_the_paths_are_those_of_the_system():
    z, given, constants = worlds.ask(3, 4, (0.5, 2.0), 1.5, turned=True)
    paths = worlds.true_paths((z, given, constants), points=6)
    for k in range(3):
        m1, m2, k1, k2, l1, l2 = constants[k].tolist()
        pivot, g = (tuple(x) for x in given[k].tolist())
        system = systems.SpringyPendulum(g, pivot, m1, m2, k1, k2, l1, l2)
        q, p = z[k].chunk(2)
        expected = datasets.trajectories(system, q, p / system.masses(), 6, worlds.DT, 20)
        torch.testing.assert_close(paths[:, k], expected, rtol=1e-9, atol=1e-10)


def test_halving_the_steps_of_the_truth_changes_nothing():
    questions = worlds.ask(5, 1, (0.5, 2.0), 1.5)
    fine, coarse = (worlds.true_paths(questions, substeps=n) for n in (40, 20))
    torch.testing.assert_close(fine, coarse, rtol=0, atol=1e-6)


def test_starts_are_those_of_the_paper():
    z, given, constants = worlds.ask(20_000, 0)
    q, p = systems.SpringyPendulum().sample(20_000, seeded())
    theirs = torch.cat([q, p], -1)
    torch.testing.assert_close(z.mean(0), theirs.mean(0), rtol=0, atol=0.02)
    torch.testing.assert_close(z.std(0), theirs.std(0), rtol=0.03, atol=0)
    assert torch.equal(given, worlds.standard(20_000)[0])
    assert torch.equal(constants[0], torch.tensor(worlds.STANDARD, dtype=torch.float64))


def test_what_is_asked_stays_in_its_ranges_and_is_pure():
    z, given, constants = worlds.ask(500, 3, (0.5, 2.0), 1.5, turned=True)
    assert torch.equal(z, worlds.ask(500, 3, (0.5, 2.0), 1.5, turned=True)[0])
    strength = given[:, 1].norm(dim=-1)
    factor = (constants / torch.tensor(worlds.STANDARD)).log().abs()
    assert strength.min() >= 0.5 - 1e-12
    assert strength.max() <= 2 + 1e-12
    assert strength.log().std() > 0.3
    assert factor.max() <= math.log(1.5)
    assert factor.amax(0).min() > 0.95 * math.log(1.5)
    assert (given[:, 1].mean(0) / strength.mean()).norm() < 0.15
    middle = worlds.ask(500, 3, (0.5, 2.0), 1.5)[0]
    assert not torch.equal(z, middle)


def test_a_moved_pendulum_moves_as_before_in_the_new_frame():
    questions = worlds.ask(6, 2, (0.5, 2.0), 1.5)
    frames = anywhere(6)
    there = worlds.true_paths(measures.moved(frames, questions), points=20)
    here = worlds.move(*frames, worlds.true_paths(questions, points=20))
    torch.testing.assert_close(there, here, rtol=1e-9, atol=1e-9)
    assert (there - worlds.true_paths(questions, points=20)).abs().max() > 1


def test_frames_about_gravity_leave_it_alone_and_others_do_not():
    questions = worlds.ask(8, 2)
    for name in measures.FRAMES:
        z, given, _ = measures.moved(measures.some_frames(name, 8), questions)
        same = torch.allclose(given[:, 1], questions[1][:, 1], atol=1e-12)
        assert same == (name != "tilted")
        assert torch.equal(given[:, 0], questions[1][:, 0]) == (name != "moved")
        assert torch.equal(z, questions[0]) == (name == "as trained")
    reflected = torch.linalg.det(measures.some_frames("turned about g", 30)[0]) < 0
    assert reflected.any()
    assert not reflected.all()


def test_tilts_turn_gravity_by_the_angle():
    given = measures.tilted(worlds.ask(3, 0), (0, 30, 90))[1]
    cosine = -given[:, 1, 2].view(3, 3)
    expected = torch.tensor([0.0, 30.0, 90.0], dtype=torch.float64).deg2rad().cos()
    torch.testing.assert_close(cosine, expected[:, None].expand(3, 3), rtol=0, atol=1e-12)


# Training data ---------------------------------------------------------------------------------


def test_segments_are_pieces_of_the_motion_of_their_own_pendulum():
    z, given, constants = worlds.Pieces([0, 1], [6, 6], 3, spread=1.5, strengths=(0.5, 2.0))(4)
    assert z.shape == (2, 3, 5, 12)
    questions = tuple(x.flatten(0, 1) for x in (z[:, :, 0], given, constants))
    paths = worlds.true_paths(questions, points=5)
    torch.testing.assert_close(paths.float().movedim(0, 1), z.flatten(0, 1), rtol=1e-4, atol=1e-4)


def test_smaller_sets_are_parts_of_larger_ones_of_the_same_seed():
    data = worlds.Pieces([0, 0, 3], [4, 12, 12], 4)
    few, many, other = data.data[0]
    assert torch.equal(few, many)
    assert not torch.equal(many, other)
    seen = [torch.cat([data(k)[0][s] for k in range(60)]).flatten(1) for s in (0, 1)]
    assert [len(x.unique(dim=0)) for x in seen] == [4, 12]
    assert all(torch.equal(a, b) for a, b in zip(data(7), data(7), strict=True))
    assert not torch.equal(data(7)[0], data(8)[0])


def test_augmented_segments_are_true_motions_in_other_frames():
    data = worlds.Pieces([0, 1], [4, 4], 4, symmetry_buys.anywhere)
    z, given, constants = data(3)
    plain = worlds.Pieces([0, 1], [4, 4], 4)(3)
    assert (z - plain[0]).abs().amax((0, 2, 3)).min() > 0.1
    questions = tuple(x.flatten(0, 1) for x in (z[:, :, 0], given, constants))
    paths = worlds.true_paths(questions, points=5).float().movedim(0, 1)
    torch.testing.assert_close(paths, z.flatten(0, 1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(given[..., 1, :].norm(dim=-1), torch.ones(2, 4))


@pytest.mark.parametrize(("sizes", "batch"), [((4,), 2), ((4, 4), 5), ((4, 4), 0)])
def test_data_that_cannot_be_drawn_are_refused(sizes, batch):
    with pytest.raises(ValueError, match="one size for each seed"):
        worlds.Pieces([0, 1], sizes, batch)


# Networks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("sees", KINDS)
@pytest.mark.parametrize("frame", ["turned about g", "tilted", "moved"])
def test_which_network_keeps_which_symmetry(sees, frame):
    """Random weights: a network either has the symmetry to rounding or not at all."""
    net = random_network(sees)
    found = models.defect(net, measures.some_frames(frame, 30), worlds.ask(30, 7, (0.5, 2.0), 1.5))
    exact = {"turned about g": ("emlp",), "tilted": (), "moved": ()}[frame]
    kept = sees in ("scalars", "gram", "constants", "units", *exact)
    assert (found < 1e-9).all() if kept else (found > 1e-3).all()


def rescaled(questions, length=1.7, mass=0.4, time=2.3):
    """The same pendulums in other units."""
    z, given, constants = questions
    factors = torch.tensor(
        [mass, mass, mass / time**2, mass / time**2, length, length], dtype=torch.float64
    )
    size = torch.tensor([length] * 6 + [mass * length / time] * 6, dtype=torch.float64)
    vectors = torch.tensor([[length], [length / time**2]], dtype=torch.float64)
    return size / time, (z * size, given * vectors, constants * factors)


@pytest.mark.parametrize("sees", ["units", "constants", "scalars"])
def test_only_units_make_a_change_of_units_exact(sees):
    net, questions = random_network(sees), worlds.ask(20, 1, (0.5, 2.0), 1.5, turned=True)
    rate, there = rescaled(questions)
    expected = net.field(*questions[1:])(questions[0]) * rate
    found = net.field(*there[1:])(there[0])
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12) == (sees == "units")


def test_the_true_motion_knows_no_units():
    questions = worlds.ask(5, 1, (0.5, 2.0), 1.5, turned=True)
    _, there = rescaled(questions, time=1.0)
    ratio = worlds.true_paths(there, 10) / Units.of(there[2]).z
    expected = worlds.true_paths(questions, 10) / Units.of(questions[2]).z
    torch.testing.assert_close(ratio, expected, rtol=1e-8, atol=1e-9)


def test_strength_of_gravity_is_a_change_of_units_of_the_springs():
    """Gravity lambda g with springs k is the motion of g with springs k / lambda, sped up."""
    strength = 2.5
    z, given, constants = worlds.ask(6, 3)
    net = random_network("units")
    stronger = given * torch.tensor([[1.0], [strength]])
    softer = constants.clone()
    softer[:, 2:4] /= strength
    fast = z.clone()
    fast[:, 6:] *= strength**0.5
    a = net.field(stronger, constants)(fast)
    b = net.field(given, softer)(z)
    scale = torch.tensor([strength**0.5] * 6 + [strength] * 6, dtype=torch.float64)
    torch.testing.assert_close(a, b * scale, rtol=1e-10, atol=1e-12)


def test_the_units_of_the_standard_pendulum_are_one():
    unit = Units.of(torch.tensor(worlds.STANDARD))
    assert all(torch.equal(x, torch.ones_like(x)) for x in unit)


def test_members_are_the_same_networks():
    questions = worlds.ask(5, 1)
    for sees in KINDS:
        net = random_network(sees, (3, 4, 5))
        part = net.members([2, 0])
        both = [x.field(*questions[1:])(questions[0]) for x in (net, part)]
        torch.testing.assert_close(both[0][[2, 0]], both[1], rtol=1e-12, atol=1e-12)
        assert part.S == 2
        assert part.size == net.size


@pytest.mark.parametrize("sees", ["scalars", "gram", "told", "constants"])
def test_silenced_networks_differ_only_where_gravity_differs(sees):
    net = Network(sees, 12, [0, 1]).double()
    net.standardise(worlds.ask(40, 5))
    with torch.no_grad():
        net.net.core.output.mul_(10)
    quiet = net.silenced()
    z, given, constants = worlds.ask(10, 1)
    same = [x.field(given, constants)(z) for x in (net, quiet)]
    torch.testing.assert_close(*same, rtol=1e-11, atol=1e-12)
    stronger = given * torch.tensor([[1.0], [3.0]])
    other = [x.field(stronger, constants)(z) for x in (net, quiet)]
    assert (other[0] - other[1]).abs().max() > 1e-3
    if sees == "told":  # hears nothing of gravity any more
        torch.testing.assert_close(other[1], same[1], rtol=0, atol=0)


@pytest.mark.parametrize("sees", ["scalars", "told"])
def test_training_at_one_gravity_leaves_the_weights_of_its_features_alone(sees):
    part = replace(symmetry_buys.parts(TINY)["samples-scalars"], sees=sees, steps=30)
    before = symmetry_buys.untrained(part, TINY, [0, 1]).net.core.weights[0].detach()
    net, _ = symmetry_buys.train_part(part, TINY, [0, 1], progress=False)
    change = (net.net.core.weights[0].detach() - before).abs().amax((0, 1))
    constant = 3 if sees == "told" else 1
    assert (change[-constant:] == 0).all()
    assert (change[:-constant] > 0).all()


# Judging ---------------------------------------------------------------------------------------


def true_network():
    """What a perfect network would do."""
    net = Network("scalars", 4, [0, 1]).double()

    def field(given, constants):
        def rates(z):
            z = z.expand(2, *z.shape[-2:])
            q, p = z.unflatten(-1, (4, 3)).split(2, dim=-2)
            pivot, g = given.unbind(-2)
            m1, m2, k1, k2, l1, l2 = constants[..., None].unbind(-2)
            one, two = q[..., 0, :] - pivot, q[..., 1, :] - q[..., 0, :]
            pull = [k * (1 - length / r.norm(dim=-1, keepdim=True)) * r
                    for k, length, r in ((k1, l1, one), (k2, l2, two))]  # fmt: skip
            force = [pull[1] - pull[0] + m1 * g, m2 * g - pull[1]]
            return torch.cat([p[..., 0, :] / m1, p[..., 1, :] / m2, *force], -1)

        return rates

    net.field = field
    return net


def test_a_perfect_network_has_the_error_of_its_integrator_in_every_frame_and_make():
    questions = measures.moved(anywhere(6), worlds.ask(6, 3, (0.5, 2.0), 1.5))
    assert (models.judge(true_network(), questions) < 1e-4).all()
    assert (models.defect(true_network(), anywhere(6), worlds.ask(6, 3)) < 1e-12).all()


def test_a_lost_state_counts_as_one():
    questions = worlds.ask(2, 0)
    truth = worlds.true_paths(questions, 3)
    path = truth[:, None].expand(-1, 2, -1, -1).clone()
    path[1, 0, 0, 3] = math.nan
    errors = models.state_errors(path, truth, questions)
    assert errors[1, 0, 0] == 1
    assert errors.sum() == 1


def test_the_error_is_constant_along_orbits():
    """The theorem of the chapter, for whole trajectories of random networks."""
    net, questions = random_network("scalars"), worlds.ask(4, 3)
    errors = [
        models.state_errors(models.paths(net, q, 15), worlds.true_paths(q, 15), q)[1:]
        for q in (questions, measures.moved(anywhere(4), questions))
    ]
    torch.testing.assert_close(*errors, rtol=1e-7, atol=0)
    assert errors[0].min() > 1e-3


def test_levels_are_judged_one_by_one():
    net = random_network("told")
    apart = [worlds.ask(3, 3, (x, x)) for x in (0.5, 2.0)]
    together = measures.by_level(net, measures.joined(apart), 2)
    torch.testing.assert_close(together, torch.stack([models.judge(net, q) for q in apart]))


def test_augmentation_splits_into_the_averaged_error_and_the_wobble():
    """The mean over frames of |F(gz) - g f|^2 is |PF - f|^2 plus the spread of g^-1 F(gz)."""
    net, (z, given, constants) = random_network("told"), worlds.ask(6, 2)
    R = worlds.upright(groups.O(2).design(4))
    none = torch.zeros(len(R), 3, dtype=torch.float64)
    truth = torch.randn(6, 12, generator=seeded(), dtype=torch.float64)
    pulled, whole = [], 0.0
    for g, w in zip(R, none, strict=True):
        answer = net.field(given, constants)(worlds.move(g, w, z))
        whole += (answer - worlds.move(g, w, truth)).square().sum() / len(R)
        pulled.append(worlds.move(g.mT, w, answer))
    pulled = torch.stack(pulled)
    mean = pulled.mean(0)
    wobble = (pulled - mean).square().sum() / len(R)
    torch.testing.assert_close(whole, (mean - truth).square().sum() + wobble, rtol=1e-11, atol=0)
    assert wobble > 1e-3


# The experiment as a whole ---------------------------------------------------------------------


def test_train_store_evaluate_and_resume(tmp_path, monkeypatch):
    monkeypatch.setitem(symmetry_buys.SETTINGS, "ci", TINY)
    paths, true_paths = models.paths, worlds.true_paths
    for module in (models, measures):  # eight points instead of 150
        monkeypatch.setattr(module, "paths", lambda net, asked, *_: paths(net, asked, 8))
        monkeypatch.setattr(module, "true_paths", lambda asked, *_: true_paths(asked, 8))
    monkeypatch.setattr(measures, "ASKED", 2)
    symmetry_buys.train("ci", range(2), "cpu", tmp_path, "test", progress=False)
    assert not list(tmp_path.glob("*.checkpoint"))
    figures, about = symmetry_buys.evaluate(tmp_path, keep_curves=True)
    assert artifacts.as_settings(symmetry_buys.Settings, about["settings"]) == TINY
    names = [figure.name for figure in figures]
    assert len(set(names)) == len(names)
    assert {name.split()[0].strip(",") for name in names} >= {
        "samples",
        "gravity",
        "frame",
        "makes",
    }
    assert (tmp_path / "curves.safetensors").exists()
    redone = []
    train_part = symmetry_buys.train_part

    def spy(part, *rest):
        redone.append((part.sees, part.steps))
        return train_part(part, *rest)

    monkeypatch.setattr(symmetry_buys, "train_part", spy)
    symmetry_buys.train("ci", range(2), "cpu", tmp_path, "test", progress=False)
    assert redone == []
    monkeypatch.setitem(symmetry_buys.SETTINGS, "ci", replace(TINY, efforts_scalars=(5,)))
    symmetry_buys.train("ci", range(2), "cpu", tmp_path, "test", progress=False)
    assert redone == [("scalars", 5)]
    (tmp_path / "makes-units.safetensors").unlink()
    with pytest.raises(ValueError, match="do not fit this version"):
        symmetry_buys.load(tmp_path)


def test_members_of_a_seed_start_alike_at_every_size():
    part = symmetry_buys.parts(TINY)["samples-mlp"]
    net = symmetry_buys.untrained(part, TINY, [0, 7])
    assert net.seeds == (0, 7, 0, 7)
    assert torch.equal(net.net.core.output[0], net.net.core.output[2])


def test_frames_of_the_augmentation_are_orthogonal():
    for frames in (symmetry_buys.anywhere, symmetry_buys.turned_about_g):
        R, w = frames(40, seeded())
        torch.testing.assert_close(R @ R.mT, torch.eye(3).to(R).expand_as(R), rtol=0, atol=1e-12)
        assert (torch.linalg.det(R) < 0).any()
        assert w.shape == (40, 3)
