"""Lagrangian densities: the explicit acceleration, and what each kind of derivative conserves."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import grad, hessian, jvp, vmap

from companion import integrators
from companion._activations import Activation
from companion.fields import DERIVATIVES, LagrangianDensity
from companion.lagrangian import SingularHessianError
from companion.systems.wave import Wave

numbers = st.integers(min_value=0, max_value=2**31)
few = settings(max_examples=5, deadline=None)
kinds = pytest.mark.parametrize("derivative", DERIVATIVES)
SQUARE = Activation("square", lambda u: (u**2, 2 * u, 2 + 0 * u))


def fields(n=16, batch=3, seed=0, dtype=torch.float64):
    return Wave(n=n, modes=3).sample(batch, torch.Generator().manual_seed(seed), dtype)


def network(derivative="spectral", dtype=torch.float64, **options):
    options = {"output_scale": 0.2, "hidden": (8, 12)} | options
    net = LagrangianDensity(2 * math.pi, derivative, dtype=dtype, **options)
    net.standardise(*fields(24, 20, 9, dtype))
    return net


def rate(net, charge, q, qdot):
    """The rate of change of a charge of member 0 along its motion, largest over the batch."""
    motion = (qdot, net.acceleration(q, qdot)[0].detach())
    return jvp(charge, (q, qdot), motion)[1][0].abs().max().item()


@kinds
@pytest.mark.parametrize("sees_field", [True, False])
@pytest.mark.parametrize("n", [8, 9])
def test_acceleration_equals_a_full_hessian_and_solve(derivative, sees_field, n):
    net = network(derivative, sees_field=sees_field, seeds=2)
    q, qdot = fields(n)
    found = net.acceleration(q, qdot)
    for s in range(2):
        one = net.member(s)

        def value(z, one=one):
            return one.lagrangian(z[None, :n], z[None, n:])[0, 0]

        def dense(z, value=value):
            H, slope = hessian(value)(z), grad(value)(z)
            off = H[n:, n:] - torch.diag(H[n:, n:].diagonal())
            return torch.linalg.solve(H[n:, n:], slope[:n] - H[n:, :n] @ z[n:]), off

        expected, off = vmap(dense)(torch.cat([q, qdot], dim=-1))
        assert (found[s] - expected).abs().max() < 1e-10 * expected.abs().max()
        assert off.abs().max() == 0


@kinds
def test_momentum_and_energy_are_derivatives(derivative):
    net = network(derivative, seeds=2)
    q, qdot = fields()
    qdot.requires_grad_()
    L = net.lagrangian(q, qdot)
    p = torch.stack([torch.autograd.grad(x.sum(), qdot, retain_graph=True)[0] for x in L])
    a = 2 * math.pi / 16
    torch.testing.assert_close(a * net.momentum(q, qdot), p)
    torch.testing.assert_close(net.energy(q, qdot), (p * qdot).sum(-1) - L)
    torch.testing.assert_close(net.field_momentum(q, qdot), -(p * net.D(q)).sum(-1))
    torch.testing.assert_close(net.shift_charge(q, qdot), p.sum(-1))


# What is conserved -------------------------------------------------------------------------------


@kinds
@few
@given(seed=numbers)
def test_energy_is_conserved_on_every_grid(derivative, seed):
    net = network(derivative, seeds=[seed])
    for n in (8, 15, 32):
        assert rate(net, net.energy, *fields(n, seed=seed)) < 1e-11


@kinds
@few
@given(seed=numbers)
def test_shift_charge_is_exact_without_the_field(derivative, seed):
    for n in (8, 15, 32):
        states = fields(n, seed=seed)
        net = network(derivative, sees_field=False, seeds=[seed])
        assert rate(net, net.shift_charge, *states) < 1e-11
        q, qdot = states
        torch.testing.assert_close(net.acceleration(q + 3.0, qdot), net.acceleration(q, qdot))
        seeing = network(derivative, seeds=[seed])
        assert rate(seeing, seeing.shift_charge, *states) > 1e-4


@kinds
@few
@given(seed=numbers)
def test_quadratic_densities_conserve_field_momentum_on_every_grid(derivative, seed):
    net = network(derivative, seeds=[seed], activation=SQUARE, hidden=(6,))
    for n in (8, 15):
        q, qdot = torch.randn(2, 3, n, generator=torch.Generator().manual_seed(seed)).double()
        size = 1 + net.acceleration(q, qdot).abs().max().item()
        assert rate(net, net.field_momentum, q, qdot) < 1e-11 * size


def test_other_densities_lose_field_momentum_as_the_grid_says():
    """Differences: a quarter at every refinement. Spectral: gone at 64 sites."""
    net = network("difference")
    lost = [rate(net, net.field_momentum, *fields(n, 1)) for n in (64, 128, 256)]
    assert 3.8 < lost[0] / lost[1] < 4.2
    assert 3.9 < lost[1] / lost[2] < 4.1
    assert lost[2] > 1e-6
    net = network("spectral")
    lost = [rate(net, net.field_momentum, *fields(n, 1)) for n in (8, 16, 32, 128)]
    assert lost[0] > 1e-3
    assert lost[1] > 30 * lost[2]
    assert lost[3] < 1e-12


def test_the_loss_of_field_momentum_is_the_leading_term_of_the_theorem():
    r"""For differences $dP/dt \to -(a^2/6) \int \nabla\ell \cdot \partial_x^3 w\,dx$."""
    n = 512
    net = network("difference")
    exact = network("spectral")
    exact.load_state_dict(net.state_dict())
    q, qdot = fields(n, 1)
    w = exact._sites(q, qdot)
    third = w.movedim(-1, -2)
    for _ in range(3):
        third = exact.D(third)
    slopes = net.density.gradient(w.flatten(1, 2)).view_as(w)
    slopes = slopes + torch.stack([w[..., 0], 0 * w[..., 0], 0 * w[..., 0]], -1)
    a = 2 * math.pi / n
    expected = -(a**2 / 6) * 2 * math.pi * (slopes * third.movedim(-2, -1)).sum(-1).mean(-1)
    motion = (qdot, net.acceleration(q, qdot)[0].detach())
    found = jvp(net.field_momentum, (q, qdot), motion)[1]
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=0)


@kinds
def test_turning_the_ring_by_sites_is_a_symmetry(derivative):
    net = network(derivative)
    q, qdot = fields(17)
    torch.testing.assert_close(
        net.acceleration(q.roll(5, -1), qdot.roll(5, -1)), net.acceleration(q, qdot).roll(5, -1)
    )


def test_charges_along_a_rollout_drift_by_the_integrators_order():
    net = network("difference", sees_field=False, output_scale=0.05)
    q, qdot = fields(16, 1)
    drifts = []
    for halvings in (0, 1):
        with torch.no_grad():
            y = torch.cat([q, qdot], -1)[None]
            path = integrators.solve(net.rhs, y, 0.1 / 2**halvings, 10 * 2**halvings)[:, 0, 0]
            drifts.append((net.energy(*path.chunk(2, -1))[0] - net.energy(q, qdot)[0]).abs().max())
            shift = net.shift_charge(*path.chunk(2, -1))[0]
    assert drifts[0] > 12 * drifts[1] > 0
    assert (shift - shift[0]).abs().max() < 1e-3 * drifts[1] + 1e-3


# The class ---------------------------------------------------------------------------------------


def test_members_grids_and_float32():
    both = LagrangianDensity(2.0, hidden=(6,), seeds=[3, 5])
    alone = LagrangianDensity(2.0, hidden=(6,), seeds=[5])
    for n in (8, 31):
        q, qdot = fields(n, dtype=torch.float32)
        assert both.acceleration(q, qdot).shape == (2, 3, n)
        torch.testing.assert_close(both.lagrangian(q, qdot)[1:], alone.lagrangian(q, qdot))
        torch.testing.assert_close(
            both.member(1).acceleration(q, qdot), alone.acceleration(q, qdot)
        )
    with pytest.raises(IndexError, match="member 2 of an ensemble of 2"):
        both.member(2)


def test_singular_site_is_refused():
    net = LagrangianDensity(activation=SQUARE, hidden=(1,), dtype=torch.float64)
    with torch.no_grad():  # l = udot^2/2 - udot^2/2
        net.density.weights[0].copy_(torch.tensor([[[1.0, 0.0, 0.0]]]))
        net.density.output.fill_(-0.5)
    with pytest.raises(SingularHessianError, match="member 0, state 0, site 0"):
        net.acceleration(*fields(8))


def test_bad_input_is_refused():
    net = LagrangianDensity(seeds=2, hidden=(4,))
    q, qdot = fields(8, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"float64.*weights torch.float32"):
        net.acceleration(q.double(), qdot.double())
    with pytest.raises(ValueError, match=r"\(B, n\).*q\[None\]"):
        net.lagrangian(q[0], qdot[0])
    with pytest.raises(ValueError, match=r"S = 2 members"):
        net.lagrangian(q.expand(3, 3, 8), qdot.expand(3, 3, 8))
    with pytest.raises(ValueError, match=r"'spectrl' is not known; take one of spectral"):
        LagrangianDensity(derivative="spectrl")
    with pytest.raises(ValueError, match=r"length=0"):
        LagrangianDensity(0.0)
    with pytest.raises(ValueError, match=r"hidden=\(\)"):
        LagrangianDensity(hidden=())
