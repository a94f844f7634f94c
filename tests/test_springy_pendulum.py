"""The springy double pendulum and its table: the physics, the data, the cells, the figures."""

import json
import math
from dataclasses import replace

import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion import artifacts, datasets, groups, symbolic, systems, testing, training
from companion.experiments import _springy_tuning
from companion.experiments import springy_pendulum as experiment
from companion.hamiltonian import HamiltonianNetwork
from companion.vectorfield import VectorNetwork

few = settings(deadline=None, max_examples=10)
numbers = st.integers(0, 2**31 - 1)
PENDULUM = systems.SpringyPendulum()


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


# The physics


def test_energy_is_the_hamiltonian_of_the_papers_program():
    """REFERENCE: |p1|^2/2 + |p2|^2/2 + (|q1| - 1)^2/2 + (|q1 - q2| - 1)^2 + z1 + z2."""
    q, p = PENDULUM.sample(50, seeded(1))
    one, two = q[:, :3], q[:, 3:]
    expected = p.square().sum(-1) / 2 + (one.norm(dim=-1) - 1).square() / 2
    expected += ((one - two).norm(dim=-1) - 1).square() + one[:, 2] + two[:, 2]
    torch.testing.assert_close(PENDULUM.energy(q, p), expected, rtol=1e-13, atol=1e-13)


def test_sympy_energy_equals_torch_and_the_legendre_transform():
    heavy = systems.SpringyPendulum(
        g=(0.3, -0.2, -0.8), pivot=(0.1, 0.2, 0.3), m1=0.7, m2=1.9, k1=1.2, k2=0.8, l1=0.5, l2=1.4
    )
    momenta = symbolic.momenta("x_1 y_1 z_1 x_2 y_2 z_2")
    H = symbolic.legendre(heavy.lagrangian, heavy.q, heavy.qdot, momenta)
    q, qdot = heavy.sample(5, seeded(2))
    p = heavy.momentum(q, qdot)
    torch.testing.assert_close(p, heavy.masses() * qdot)
    energy = heavy.energy(q, qdot)
    for k in range(5):
        numbers = {s: sympy.Float(v, 30) for s, v in heavy.values.items()}
        numbers |= dict(zip(heavy.q, q[k].tolist(), strict=True))
        numbers |= dict(zip(momenta, p[k].tolist(), strict=True))
        assert float(H.subs(numbers)) == pytest.approx(energy[k].item(), rel=1e-13)
    compiled = symbolic.to_torch(H, [heavy.q, momenta], heavy.values)
    torch.testing.assert_close(compiled(q, p), energy, rtol=1e-13, atol=1e-13)


def test_l_perp_is_equation_12():
    tilted = systems.SpringyPendulum(g=(1.0, -2.0, 0.5))
    q, p = tilted.sample(20, seeded(3))
    whole = torch.linalg.cross(q[:, :3], p[:, :3]) + torch.linalg.cross(q[:, 3:], p[:, 3:])
    g = tilted.given[1]
    torch.testing.assert_close(tilted.charges(q, p)[:, 0], whole @ g / g.norm())


def test_l_perp_is_conserved_as_sympy_derives_it():
    charge = PENDULUM.charge_expressions["L_perp"]
    rate = symbolic.total_derivative(
        charge, PENDULUM.q, PENDULUM.qdot, PENDULUM.acceleration_expressions
    )
    assert sympy.simplify(rate) == 0


def test_energy_and_l_perp_of_the_truth_hold_to_1e_8_over_the_test_horizon():
    z = experiment.true_trajectories()
    q, p = z.chunk(2, dim=-1)
    testing.assert_conserved(PENDULUM.energy(q, p)[..., None], 1e-8)
    charge = PENDULUM.charges(q, p)
    assert (charge - charge[0]).abs().max() < 1e-8


@few
@given(seed=numbers)
def test_the_flow_is_equivariant_equation_7(seed):
    """Turned and shifted states of a pendulum whose gravity and pivot turn and shift with them."""
    R = groups.O(3).sample(generator=seeded(seed))
    w = normal(3, seed=seed)
    pivot, g = PENDULUM.given
    moved = systems.SpringyPendulum(
        g=tuple((R @ g).tolist()), pivot=tuple((R @ pivot + w).tolist())
    )

    def act(x, shift):
        return (x.unflatten(-1, (2, 3)) @ R.T + shift).flatten(-2)

    q, qdot = PENDULUM.sample(10, seeded(seed))
    expected = act(PENDULUM.acceleration(q, qdot), 0)
    got = moved.acceleration(act(q, w), act(qdot, 0))
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)


def test_samples_hang_along_gravity_with_the_papers_spreads():
    tilted = systems.SpringyPendulum(g=(2.0, 0.0, 0.0), pivot=(0.0, 5.0, 0.0), m2=4.0)
    q, qdot = tilted.sample(20_000, seeded(4))
    middle = torch.tensor([1.5, 5, 0, 3, 5, 0]).double()
    torch.testing.assert_close(q.mean(0), middle, rtol=0, atol=0.01)
    torch.testing.assert_close(q.std(0), torch.full((6,), 0.2).double(), rtol=0.03, atol=0)
    p = tilted.momentum(q, qdot)
    torch.testing.assert_close(p.std(0), torch.full((6,), 0.4).double(), rtol=0.03, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"g": (0.0, 0.0, 0.0)}, "without gravity nothing hangs"),
        ({"g": (1.0, 0.0)}, "expected three components"),
        ({"pivot": (1.0,)}, "pivot: got"),
        ({"m1": 0.0}, "expected a positive number"),
        ({"l2": -1.0}, "expected a non-negative number"),
    ],
)
def test_bad_parameters_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        systems.SpringyPendulum(**options)


# The data


def test_segments_are_pieces_of_true_trajectories():
    data = datasets.Segments(PENDULUM, [0, 1], n=6, batch=3, points=12, dtype=torch.float64).data
    assert data.shape == (2, 6, 5, 12)
    start = data[:, :, 0]
    path = PENDULUM.rollout(*start.chunk(2, dim=-1), 0.002, 400, every=100)
    torch.testing.assert_close(path.movedim(0, 2), data, rtol=0, atol=1e-9)
    assert (data[0] - data[1]).abs().max() > 0.1  # every seed has trajectories of its own


def test_segments_begin_at_any_moment_of_the_trajectory():
    """With 4 points there are two first moments; the sampler's own states are at one of them."""
    start, _ = PENDULUM.sample(400, seeded(datasets._mix(7, 0)), torch.float64)
    data = datasets.Segments(
        PENDULUM, [7], n=400, batch=1, chunk=3, points=4, dtype=torch.float64
    ).data[0]
    first = (data[:, 0, :6] == start).all(-1).double().mean()
    assert 0.4 < first < 0.6


def test_batches_are_a_function_of_seed_and_step_and_draw_without_replacement():
    segments = datasets.Segments(PENDULUM, [0, 1], n=8, batch=8, points=6)
    again = datasets.Segments(PENDULUM, [1], n=8, batch=8, points=6)
    (one,), (two,) = segments(3), again(3)
    assert torch.equal(one[1], two[0])
    assert not torch.equal(one, segments(4)[0])
    key = segments.data[..., 0, 0]
    assert torch.equal(one[..., 0, 0].sort(-1).values, key.sort(-1).values)


@pytest.mark.parametrize(
    "options", [{"seeds": []}, {"batch": 9}, {"chunk": 1}, {"chunk": 7}, {"substeps": 0}]
)
def test_bad_segments_are_refused(options):
    options = {"seeds": [0], "n": 8, "batch": 8, "points": 6} | options
    with pytest.raises(ValueError, match="expected one seed or more, 1 <= batch <= n"):
        datasets.Segments(PENDULUM, **options)


def test_a_negative_step_is_refused():
    with pytest.raises(ValueError, match="step must be 0 or more, got -1"):
        datasets.Segments(PENDULUM, [0], n=2, batch=1, points=6)(-1)


# The cells


@pytest.mark.parametrize("name", experiment.CELLS)
def test_cells_have_the_symmetry_they_are_named_after(name):
    """About the vertical: scalars and O(2) keep every turn and mirror, the others their group's."""
    cell = experiment.CELLS[name]
    net = experiment.network(cell, [0, 1], widest=32)
    z = experiment.true_trajectories(4)[0]
    turn = groups.SO(2).exp(torch.tensor([1.0], dtype=torch.float64))
    mirror = torch.tensor([[-1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    sixth = groups.SO(2).exp(torch.tensor([math.pi / 3], dtype=torch.float64))
    half = -torch.eye(2, dtype=torch.float64)
    kept = {"turn": turn, "mirror": mirror, "sixth": sixth, "half": half}
    holds = {
        "emlp-so2": {"turn", "sixth", "half"},
        "emlp-d2": {"mirror", "half"},
        "emlp-d6": {"mirror", "sixth", "half"},
        "mlp": set(),
        "mlp+lengths": set(),
    }.get(cell.sees, set(kept))
    net = net.double()
    rate = net(z, experiment.given(net))
    for move, g in kept.items():
        R = torch.block_diag(g, torch.ones(1, 1, dtype=torch.float64))

        def act(x, R=R):
            return (x.unflatten(-1, (4, 3)) @ R.T).flatten(-2)

        wrong = (net(act(z), experiment.given(net)) - act(rate)).abs().max() / rate.abs().max()
        if move in holds:
            assert wrong < 1e-10, move
        elif not (cell.sees == "emlp-d6" and move == "turn"):  # narrow, it cannot tell
            assert wrong > 1e-4, move


@pytest.mark.parametrize("model", ["node", "hnn"])
def test_loss_is_that_of_the_true_field_at_the_truth(model):
    """Two Runge-Kutta steps of the true law miss by their own error only."""

    class Truth(VectorNetwork):
        def field(self, given=None, extra=None):
            return lambda z: torch.cat([z[..., 6:], PENDULUM.acceleration(*z.chunk(2, -1))], -1)

        def _outputs(self, layer):
            return 1

    segments = datasets.Segments(PENDULUM, [0], n=50, batch=50, dtype=torch.float64)
    assert experiment.loss(Truth(experiment.layer("scalars"), 2), *segments(0)) < 1e-5
    net = experiment.network(experiment.CELLS[f"{model}-scalars"], [0], widest=16)
    assert experiment.loss(net, segments(0)[0].float()) > 0.1


def test_errors_of_the_truth_are_zero_and_of_a_runaway_one():
    true = experiment.true_trajectories(3)
    path = torch.stack([true, torch.full_like(true, math.nan)], dim=1)
    error = experiment.errors(path, true)
    assert error.state[:, 0].max() == 0
    assert error.L_perp[:, 0].max() < 1e-6
    assert error.energy[:, 0].max() < 1e-8
    assert all((x[:, 1] == 1).all() for x in (error.state, error.L_perp, error.energy))


def test_trained_scalars_beat_their_own_start(tmp_path):
    net, history = experiment.train_cell("hnn-scalars", "ci", [0, 1], "cpu", progress=False)
    assert isinstance(net, HamiltonianNetwork)
    assert all(end < 0.5 for end in history.loss[-1])
    z = experiment.true_trajectories(2)
    path = experiment.rollout(net, z[0], 10)
    assert path.shape == (10, 2, 2, 12)
    assert experiment.errors(path, z[:10]).state[-1].max() < 0.3


def test_a_run_is_written_read_and_evaluated(tmp_path):
    experiment.train("ci", [0, 1], "cpu", tmp_path, "a test", progress=False)
    networks, about = experiment.load(tmp_path)
    assert list(networks) == ["hnn-scalars", "hnn-mlp"]
    assert about["provenance"]["command"] == "a test"
    figures, _ = experiment.evaluate(tmp_path, keep_curves=True)
    assert len({figure.name for figure in figures}) == len(figures) == 10
    error = next(f for f in figures if f.name == "hnn-scalars: state error")
    assert error.paper == 0.005
    assert all(0 < x < 1 for x in error.ours)
    artifacts.save_weights(tmp_path, {"x": {}}, {**about, "experiment": "another"})
    with pytest.raises(ValueError, match="weights of 'another'"):
        experiment.load(tmp_path)


# How they were tuned


def tuning():
    return json.loads((artifacts.folder(experiment.NAME) / "tuning.json").read_text())


def test_every_cell_has_the_width_and_rate_that_won_on_validation_data():
    chosen = _springy_tuning.best(tuning())
    assert chosen == {name: (cell.width, cell.lr) for name, cell in experiment.CELLS.items()}


def test_every_cell_had_the_same_candidates():
    rows = tuning()
    for name in experiment.CELLS:
        widths = {row["width"] for row in rows if row["cell"] == name}
        skipped = {width for cell, width in _springy_tuning.SKIPPED if cell == name}
        assert widths - {256} == set(_springy_tuning.WIDTHS) - skipped
    assert all(tuple(row["lr"]) == _springy_tuning.RATES and row["steps"] == 600 for row in rows)


def test_narrow_d6_is_o2_which_is_why_it_was_not_tried():
    o2, d6 = (
        experiment.network(experiment.CELLS[f"hnn-emlp-{group}"], [0], widest=64)
        for group in ("o2", "d6")
    )
    z = experiment.true_trajectories(3)[0].float()
    assert torch.equal(o2(z), d6(z))


def test_rates_per_member_are_those_of_separate_runs():
    cell = experiment.CELLS["hnn-mlp"]
    row = _springy_tuning.tune(cell, 16, steps=20)
    for lr, loss in zip(row["lr"], row["train"], strict=True):
        changed = replace(cell, lr=lr, width=16)
        net = experiment.network(changed, [_springy_tuning.SEED])
        data = datasets.Segments(PENDULUM, [_springy_tuning.SEED], batch=32)
        options = {"steps": 20, "lr": lr, "lr_end": lr / 1000, "warmup": 1, "progress": False}
        history = training.fit(net, experiment.loss, data, **options)
        assert history.loss[-1][0] == pytest.approx(loss, rel=0.02)


def test_what_no_cell_sees_is_refused():
    with pytest.raises(ValueError, match="sees = 'emlp'; expected one of"):
        experiment.layer("emlp")
