"""Measurements: a pure function of seed and step, with the noise they promise."""

import math

import pytest
import torch

from companion import systems
from companion.datasets import NoisyMeasurements, _mix, check_finite


def measure(seeds=(0, 1, 2), system=None, **options):
    options = {"batch": 50, "dtype": torch.float64, **options}
    return NoisyMeasurements(system or systems.Kepler(), seeds, **options)


def noise(seeds, steps, **options):
    """The noise of sigma = 1, `(steps, 3 quantities, S, B, d)`; states stay as they are."""
    noisy, exact = measure(seeds, sigma=1.0, **options), measure(seeds, sigma=0.0, **options)
    return torch.stack([torch.stack(noisy(t)) - torch.stack(exact(t)) for t in range(steps)])


def test_same_seed_and_step_give_the_same_numbers():
    first, second = measure(), measure()
    wanted = [torch.stack(first(step)) for step in (0, 5, 2**31)]
    for step in (1, 2):
        second(step)
    for step, expected in zip((2**31, 5, 0), reversed(wanted), strict=True):
        assert torch.equal(torch.stack(second(step)), expected)


def test_global_generator_is_neither_used_nor_moved():
    state = torch.random.get_rng_state()
    measure()(0)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_member_has_the_data_of_its_own_seed():
    together = measure((4, 7, 2**20))(3)
    for s, seed in enumerate((4, 7, 2**20)):
        for a, b in zip(together, measure((seed,))(3), strict=True):
            torch.testing.assert_close(a[s], b[0], rtol=1e-14, atol=1e-15)


def test_no_two_members_or_steps_share_numbers():
    """torch's generator on the CPU takes 32 bits of a seed: seed << 32 would be lost."""
    seeds = (0, 1, 2, 5, 2**16, 2**20, 2**31)
    first = torch.cat([measure(seeds, batch=1)(step)[0][:, 0, 0] for step in range(20)])
    assert len(first.unique()) == 20 * len(seeds)


def test_seeds_of_the_generator_lie_far_apart():
    """A thousand consecutive seeds, a million steps: checked in whole, not by sampling."""
    golden = 0x9E3779B9
    apart = [golden * difference % 2**32 for difference in range(1, 1000)]
    assert min(min(x, 2**32 - x) for x in apart) > 1_000_000
    scrambled = {_mix(0, step) for step in range(100_000)}
    assert len(scrambled) == 100_000
    assert all(0 <= x < 2**32 for x in scrambled)
    assert _mix(3, 10) == _mix(0, (3 * golden + 10) % 2**32)


def test_noise_is_normal_with_the_sigma_asked_for():
    z = noise((0, 1, 2), steps=60)
    n = z[:, 0].numel()
    for quantity in range(3):
        part = z[:, quantity]
        assert part.mean().abs() < 4 / math.sqrt(n)
        assert (part.var() - 1).abs() < 4 * math.sqrt(2 / n)
        assert (part.pow(4).mean() - 3).abs() < 4 * math.sqrt(96 / n)
    small, exact = measure(sigma=1e-3), measure(sigma=0.0)
    scaled = torch.stack(small(0)) - torch.stack(exact(0))
    torch.testing.assert_close(scaled, 1e-3 * z[0], rtol=0, atol=1e-14)


def test_noise_of_members_steps_and_quantities_is_independent():
    z = noise((0, 1, 2), steps=60, batch=100)
    bound = 4.5 / math.sqrt(z[:, 0, 0].numel())

    def correlation(a, b):
        return (a * b).mean().abs()

    for s in range(3):
        for other in range(s):
            assert correlation(z[:, :, s], z[:, :, other]) < bound
            assert correlation(z[:, s], z[:, other]) < bound  # quantities
    assert correlation(z[1:], z[:-1]) < bound  # consecutive steps
    assert correlation(z[1:, :, 0], z[:-1, :, 1]) < bound
    assert correlation(z[..., 0], z[..., 1]) < bound


def test_states_of_members_and_steps_are_independent():
    exact = measure((0, 1), sigma=0.0, batch=200)
    x, y, _ = torch.stack([exact(step)[0] for step in range(30)]).unbind(-1)
    phi = torch.atan2(y, x)  # uniform in (-pi, pi): (steps, S, B)
    n = phi.numel()
    assert phi.mean().abs() < 4 * math.pi / math.sqrt(3 * n)
    assert (phi.square().mean() - math.pi**2 / 3).abs() < 4 * math.pi**2 * math.sqrt(4 / 45 / n)
    bound = 4.5 * (math.pi**2 / 3) / math.sqrt(n / 2)
    assert (phi[:, 0] * phi[:, 1]).mean().abs() < bound
    assert (phi[1:] * phi[:-1]).mean().abs() < bound


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_noise_the_data_are_the_orbit_and_its_acceleration(dtype):
    kepler = systems.Kepler()
    q, qdot, qddot = measure((3, 4), kepler, sigma=0.0, dtype=dtype)(9)
    for x in (q, qdot, qddot):
        assert x.shape == (2, 50, 3)
        assert x.dtype == dtype
    tolerance = {"rtol": 200 * torch.finfo(dtype).eps, "atol": 200 * torch.finfo(dtype).eps}
    exact = kepler.orbit(torch.atan2(q[..., 1], q[..., 0]))
    torch.testing.assert_close(q, exact[0], **tolerance)
    torch.testing.assert_close(qdot, exact[1], **tolerance)
    assert torch.equal(qddot, kepler.acceleration(q, qdot))
    by_hand = -q / q.norm(dim=-1, keepdim=True) ** 3
    torch.testing.assert_close(qddot, by_hand, **tolerance)


def test_any_system_that_samples_will_do():
    oscillator = systems.HarmonicOscillator()
    q, qdot, qddot = measure((0,), oscillator, sigma=0.0)(0)
    assert torch.equal(qddot, oscillator.acceleration(q, qdot))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "got batch=0"),
        ({"seeds": ()}, r"seeds=\[\]"),
        ({"sigma": -1.0}, "sigma=-1.0"),
        ({"sigma": math.nan}, "sigma=nan"),
        ({"sigma": math.inf}, "sigma=inf"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=f"expected batch >= 1, .*{message}"):
        measure(**options)


def test_negative_step_is_refused():
    with pytest.raises(ValueError, match="step must be 0 or more, got -1"):
        measure()(-1)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_refused_with_name_index_and_count(value):
    q = torch.zeros(3, 4, 2)
    q[1, 2, 0] = q[2, 0, 1] = value
    with pytest.raises(ValueError, match=rf"q\[1, 2, 0\] is {value}; .* \(2 are not\)"):
        check_finite(t=torch.arange(3), q=q)
    with pytest.raises(ValueError, match=rf"x\[\] is {value}"):
        check_finite(x=torch.tensor(value))


def test_finite_numbers_pass():
    check_finite(q=torch.zeros(3, 2), n=torch.arange(4), empty=torch.zeros(0), b=torch.tensor(True))
