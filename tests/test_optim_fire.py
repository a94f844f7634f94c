"""FIRE against ASE's, against a slow reading of appendix A, on a cluster of atoms, and in `fit`."""

import math

import numpy as np
import pytest
import torch
import training_runs

from companion import training
from companion.optim import FIRE

EPSILON, SIGMA = 0.0103, 3.4  # eV, A: argon
ASE = {"dt": 0.1, "dt_max": 1.0, "mass": 1.0, "order": "ase"}  # ase.optimize.FIRE's defaults
# The explicit order needs small steps: with dt_max = 1 the atoms fly apart.
PAPER = {"dt": 0.05, "dt_max": 0.2, "mass": 0.1, "order": "paper"}


def energy(r):
    """Lennard-Jones energy (S,) of clusters (S, N, 3)."""
    i, j = torch.triu_indices(r.shape[1], r.shape[1], 1)
    square = (r[:, i] - r[:, j]).square().sum(-1)
    u = (SIGMA**2 / square) ** 3
    return 4 * EPSILON * (u**2 - u).sum(-1)


def clusters(S=1, N=4, seed=0):
    """Crude tetrahedra with errors of half an angstrom."""
    draw = torch.Generator().manual_seed(seed)
    corners = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]).double()
    return 1.6 * corners[:N] + 0.5 * torch.randn(S, N, 3, generator=draw).double()


def relaxed(start, steps, watch=lambda r, state: None, **options):
    """Positions after `steps` steps down the energy; `watch` sees each of them."""
    r = torch.nn.Parameter(start.clone())
    fire = FIRE([r], **options)
    for _ in range(steps):
        fire.zero_grad()
        energy(r).sum().backward()
        fire.step()
        watch(r.detach().clone(), fire.state[r])
    return r.detach()


# Against others ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_follows_ase_step_by_step(seed):
    """Positions, velocities and clocks of 200 steps, with stops among them."""
    from ase import Atoms
    from ase.calculators.lj import LennardJones
    from ase.optimize import FIRE as Theirs

    start, ours, clocks = clusters(seed=seed), [], []

    def watch(r, state):
        ours.append(r[0].numpy())
        clocks.append((state["dt"].item(), state["alpha"].item(), state["downhill"].item()))

    relaxed(start, 200, watch, **ASE)
    atoms = Atoms("Ar4", positions=start[0].numpy())
    atoms.calc = LennardJones(sigma=SIGMA, epsilon=EPSILON, rc=1e3, smooth=False)
    theirs = Theirs(atoms, logfile=None, maxstep=1e9)
    stops = 0
    for r, clock in zip(ours, clocks, strict=True):
        theirs.step()
        np.testing.assert_allclose(r, atoms.get_positions(), rtol=0, atol=1e-11)
        np.testing.assert_allclose(clock, (theirs.dt, theirs.a, theirs.Nsteps), rtol=1e-14)
        stops += theirs.Nsteps == 0
    assert stops > 2  # the first step counts as one
    assert max(clock[0] for clock in clocks) > 2 * ASE["dt"]  # and the step has grown


def appendix_a(x, steps, dt, dt_max, m, N_min, f_inc, f_dec, alpha_start, f_alpha):
    """The nine steps of appendix A, for one cluster, in numpy."""
    alpha, N = alpha_start, 0
    v = np.zeros_like(x)
    path = []
    for _ in range(steps):
        r = torch.tensor(x)[None].requires_grad_()
        (gradient,) = torch.autograd.grad(energy(r).sum(), r)
        F = -gradient[0].numpy()
        x = x + v * dt
        v = v + F / m * dt
        P = np.vdot(F, v)
        N = N + 1
        v = (1 - alpha) * v + alpha * np.linalg.norm(v) * F / np.linalg.norm(F)
        if P > 0 and N_min < N:
            dt = min(dt * f_inc, dt_max)
            alpha = alpha * f_alpha
        if P <= 0:
            dt, v, alpha, N = dt * f_dec, 0 * v, alpha_start, 0
        path.append((x, dt, alpha, N))
    return path


@pytest.mark.parametrize("seed", range(3))
def test_follows_appendix_a_step_by_step(seed):
    start, ours = clusters(seed=seed), []
    options = {"N_min": 4, "f_inc": 1.2, "f_dec": 0.4, "alpha_start": 0.2, "f_alpha": 0.9}

    def watch(r, state):
        clock = (state["dt"].item(), state["alpha"].item(), state["downhill"].item())
        ours.append((r[0].numpy(), *clock))

    relaxed(start, 150, watch, **PAPER, **options)
    slow = appendix_a(start[0].numpy(), 150, 0.05, 0.2, 0.1, **options)
    for a, b in zip(ours, slow, strict=True):
        np.testing.assert_allclose(a[0], b[0], rtol=0, atol=1e-11)
        np.testing.assert_allclose(a[1:], b[1:], rtol=1e-14)
    assert any(N == 0 for _, _, _, N in slow)
    assert max(dt for _, dt, _, _ in slow) > 0.1


@pytest.mark.parametrize("options", [ASE, PAPER], ids=["ase", "paper"])
def test_both_orders_find_the_tetrahedron(options):
    """Energy -6 epsilon, every distance at the minimum of the pair potential."""
    r = relaxed(clusters(S=5, seed=7), 700, **options)
    torch.testing.assert_close(energy(r) / EPSILON, -6 * torch.ones(5).double(), rtol=1e-12, atol=0)
    i, j = torch.triu_indices(4, 4, 1)
    distance = (r[:, i] - r[:, j]).norm(dim=-1)
    torch.testing.assert_close(
        distance, torch.full_like(distance, 2 ** (1 / 6) * SIGMA), rtol=1e-6, atol=0
    )


# Members and parameters ----------------------------------------------------------------------


@pytest.mark.parametrize("options", [ASE, PAPER], ids=["ase", "paper"])
def test_a_member_does_not_see_the_others(options):
    """Bit for bit, though every member stops at steps of its own."""
    start, stopped = clusters(S=3, seed=3), []
    together = relaxed(
        start, 120, lambda r, state: stopped.append(state["downhill"][:, 0] == 0), **options
    )
    assert len({tuple(column) for column in torch.stack(stopped).T.tolist()}) == 3
    others = clusters(S=3, seed=4)
    others[1] = start[1]
    assert torch.equal(relaxed(others, 120, **options)[1], together[1])
    for s in range(3):
        alone = relaxed(start[s : s + 1], 120, **options)[0]
        torch.testing.assert_close(alone, together[s], rtol=0, atol=1e-11)


@pytest.mark.parametrize("order", ["paper", "ase"])
def test_all_parameters_are_one_point(order):
    """Cut in two of other shapes, or whole: power and lengths are those of the whole."""
    draw = torch.Generator().manual_seed(5)
    target = torch.randn(2, 12, generator=draw, dtype=torch.float64)
    sizes = torch.logspace(0, -2, 12, dtype=torch.float64)

    def run(*shapes):
        params = [torch.nn.Parameter(torch.zeros(2, *shape).double()) for shape in shapes]
        fire = FIRE(params, dt=0.1, dt_max=1.0, order=order)
        for _ in range(60):
            fire.zero_grad()
            x = torch.cat([p.flatten(1) for p in params], 1)
            (sizes * (x - target).square()).sum().backward()
            fire.step()
        return torch.cat([p.detach().flatten(1) for p in params], 1)

    whole = run((12,))
    assert (whole - target).norm() < 0.8 * target.norm()
    torch.testing.assert_close(run((2, 3), (6,)), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", ["paper", "ase"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rest_without_force_stays_and_leaves_no_nan(order, dtype):
    """Also when the force comes back: the step in time is then what it was."""
    start = torch.ones(2, 3, dtype=dtype)
    p = torch.nn.Parameter(start.clone())
    fire = FIRE([p], dt=0.1, dt_max=1.0, order=order)
    for _ in range(300):
        p.grad = torch.zeros_like(p)
        fire.step()
    assert torch.equal(p.detach(), start)
    assert fire.state[p]["dt"].flatten().tolist() == pytest.approx([0.1, 0.1])
    p.grad = torch.ones_like(p) * torch.tensor([[0.0], [1.0]], dtype=dtype)
    fire.step()
    p.grad = torch.zeros_like(p)
    for _ in range(3):  # a force that vanishes in mid-flight stops the member
        fire.step()
    here = p.detach().clone()
    fire.step()
    assert torch.equal(p.detach(), here)
    assert torch.equal(here[0], start[0])
    assert bool((here[1] < start[1]).all())
    assert fire.state[p]["dt"].flatten().tolist() == pytest.approx([0.1, 0.05])


def test_parameters_without_gradient_stay():
    p, still = torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.ones(2, 2, 2))
    fire = FIRE([still, p], dt=0.1, dt_max=1.0)
    for _ in range(3):
        p.grad = p.detach().clone()
        fire.step()
    assert torch.equal(still, torch.ones(2, 2, 2))
    assert bool((p < 1).all())


def test_closure_is_evaluated_with_gradients_and_its_value_returned():
    p = torch.nn.Parameter(torch.ones(2, 3))
    fire = FIRE([p], order="ase")

    def closure():
        fire.zero_grad()
        value = p.square().sum()
        value.backward()
        return value.item()

    assert fire.step(closure) == 6.0
    assert p.square().sum() < 6.0


# Training ------------------------------------------------------------------------------------

FIT = {"optimizer": FIRE, "lr": None, "clip": math.inf, "progress": False}


class Stopped(Exception):
    """A run that ends before its time."""


@pytest.mark.parametrize("stop", [1, 7, 20])
def test_a_run_resumed_in_fit_ends_in_the_same_bits(tmp_path, stop):
    def run(checkpoint=None, end=None):
        data = training_runs.measurements()(0)  # the full batch

        def batch(step):
            if step == end:
                raise Stopped
            return data

        net = training_runs.network()
        history = training.fit(
            net, training_runs.loss, batch, steps=24, every=1, checkpoint=checkpoint, **FIT
        )
        return net, history

    whole, history = run()
    assert history.loss[-1] < history.loss[0]
    with pytest.raises(Stopped):
        run(tmp_path / "checkpoint", stop)
    resumed, resumed_history = run(tmp_path / "checkpoint")
    for p, q in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(p, q)
    assert resumed_history.loss == history.loss


def test_fit_gives_no_learning_rate_to_an_optimiser_that_has_none():
    made = []

    def fire(parameters):
        made.append(FIRE(parameters))
        return made[0]

    data = training_runs.measurements()
    net = training_runs.network()
    training.fit(net, training_runs.loss, data, steps=3, **(FIT | {"optimizer": fire}))
    assert "lr" not in made[0].param_groups[0]


# Bad arguments -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"dt": 0.0},
        {"dt": 0.02},  # above dt_max
        {"dt": math.nan},
        {"dt_max": math.inf},
        {"mass": 0.0},
        {"mass": math.nan},
        {"N_min": -1},
        {"f_inc": 0.9},
        {"f_dec": 1.0},
        {"f_dec": 0.0},
        {"alpha_start": 1.1},
        {"alpha_start": math.nan},
        {"f_alpha": 0.0},
    ],
)
def test_bad_arguments_are_refused(options):
    name, value = next(iter(options.items()))
    with pytest.raises(ValueError, match="expected 0 < dt <= dt_max") as caught:
        FIRE([torch.nn.Parameter(torch.ones(2, 3))], **options)
    assert f"{name}={value}" in str(caught.value)


def test_an_unknown_order_is_refused():
    with pytest.raises(ValueError, match="order: got 'euler', expected 'paper' or 'ase'"):
        FIRE([torch.nn.Parameter(torch.ones(2, 3))], order="euler")


@pytest.mark.parametrize("shapes", [[(2, 3), (3, 2)], [()], [(2,), ()]])
def test_parameters_without_a_common_axis_of_members_are_refused(shapes):
    with pytest.raises(ValueError, match="same leading axis, that of the members"):
        FIRE([torch.nn.Parameter(torch.ones(shape)) for shape in shapes])


def test_two_groups_are_refused():
    groups = [{"params": [torch.nn.Parameter(torch.ones(2, 3))], "mass": m} for m in (1.0, 2.0)]
    with pytest.raises(ValueError, match=r"one group of parameters .*, got 2 group"):
        FIRE(groups)
