"""Polarised light in coupled fibres: the law and its charges, the networks, a whole small run."""

from dataclasses import replace

import pytest
import torch

from companion import groups, testing
from companion.experiments import manakov


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def light(n, seed=0):
    """States of any polarisation, complex128."""
    return torch.randn(n, 2, manakov.FIBRES, generator=seeded(seed), dtype=torch.complex128)


def energy(psi):
    hop = (psi[..., 1:].conj() * psi[..., :-1]).real.sum((-2, -1))
    power = psi.abs().square().sum(-2)
    return -2 * manakov.J * hop + manakov.GAMMA / 2 * power.square().sum(-1)


def rates(f, psi, psidot):
    """The derivative of f along psidot, by a central difference."""
    step = 1e-6
    return (f(psi + step * psidot) - f(psi - step * psidot)) / (2 * step)


def test_the_law_is_that_of_its_energy():
    psi = light(20).requires_grad_()
    (slope,) = torch.autograd.grad(energy(psi).sum(), psi)
    torch.testing.assert_close(manakov.law(psi), -0.5j * slope)


def test_the_law_is_equivariant_and_conserves_norm_and_stokes_vector():
    psi = light(20)
    g = groups.U(2).sample(20, generator=seeded(1))
    testing.assert_equivariant(manakov.law, lambda g, x: g @ x, psi, elements=g)
    for charge in (manakov.norm, manakov.stokes, energy):
        assert rates(charge, psi, manakov.law(psi)).abs().max() < 1e-6
    assert rates(manakov.norm, psi, psi).abs().max() > 1


def test_the_stokes_vector_turns_with_the_polarisation():
    """SU(2) covers SO(3): -i sigma_a / 2 turns it about axis a, a phase does nothing."""
    psi, SU2, SO3 = light(20), groups.SU(2), groups.SO(3)
    theta = torch.tensor([0.3, -0.8, 0.5], dtype=torch.float64)
    s = manakov.stokes(psi)
    torch.testing.assert_close(manakov.stokes(SU2.exp(theta) @ psi), SO3.act(SO3.exp(theta), s))
    torch.testing.assert_close(manakov.stokes(1j * psi), s)
    assert (s.norm(dim=-1) <= manakov.norm(psi)).all()
    one = manakov.polarised(20)
    torch.testing.assert_close(manakov.stokes(one).norm(dim=-1), manakov.norm(one))


def test_training_light_is_nearly_horizontal():
    psi = manakov.states(20_000, seeded(0))
    power = psi.abs().square().mean((0, 2))
    torch.testing.assert_close(power, torch.tensor([1.0, manakov.LEAK**2]), rtol=0.05, atol=0)


@pytest.fixture(scope="module")
def untrained():
    settings = replace(manakov.SETTINGS["ci"], vectors=(6, 6), energy=(8, 8), width=9)
    return {v: manakov.network(v, settings, [3, 4]) for v in manakov.VARIANTS}


def test_the_variants_are_of_one_size():
    sizes = [manakov.network(v, manakov.Settings(), [0]).size for v in manakov.VARIANTS]
    assert max(sizes) < 1.02 * min(sizes)
    with pytest.raises(ValueError, match="variant = 'elliptic'; expected one of"):
        manakov.network("elliptic", manakov.Settings(), [0])


@pytest.mark.parametrize("variant", manakov.VARIANTS)
def test_random_weights_are_equivariant_where_they_should_be(variant, untrained):
    psi, g = manakov.asked(50)
    defect = manakov.defect(untrained[variant], psi, g)
    assert defect.shape == (2,)
    if variant in manakov.EXACT:
        assert defect.max() < 1e-13
        wide = manakov.double(untrained[variant])
        testing.assert_equivariant(wide, lambda g, x: g @ x, psi, elements=g)
    else:
        assert defect.min() > 0.1


@pytest.mark.parametrize("variant", manakov.VARIANTS)
def test_polarised_light_stays_polarised_and_noether_needs_an_energy(
    variant, untrained, monkeypatch
):
    monkeypatch.setattr(manakov, "T", 2.0)
    net = untrained[variant]
    path = manakov.flight(net, manakov.polarised(5))
    assert path.shape == (round(manakov.T / manakov.KEEP) + 1, 2, 5, 2, manakov.FIBRES)
    assert bool(manakov.angle(path).max() < 1e-4) is (variant in manakov.EXACT)
    path = manakov.flight(net, 0.5 * light(5))
    norm, stokes = manakov.norm(path), manakov.stokes(path)
    drift = max((norm - norm[0]).abs().max(), (stokes - stokes[0]).abs().max())
    assert bool(drift < 1e-5) is (variant == "hamiltonian")
    true = manakov.flight(None, 0.5 * light(5))
    assert (manakov.norm(true) - manakov.norm(true[0])).abs().max() < 1e-5


def test_the_angle_is_exact_near_zero_and_180_degrees():
    path = torch.zeros(3, 1, 1, 2, 1, dtype=torch.complex128)
    path[0, ..., 0, 0] = path[1, ..., 0, 0] = 1
    path[1, ..., 1, 0] = 1e-9  # the Stokes vector turns by twice that
    path[2, ..., 1, 0] = 1
    degrees = manakov.angle(path).flatten()
    expected = torch.tensor([0, 2e-9, torch.pi], dtype=torch.float64).rad2deg()
    torch.testing.assert_close(degrees, expected)


@pytest.mark.parametrize("variant", manakov.EXACT)
def test_networks_learn(variant):
    net, history = manakov.train_variant(
        variant, "ci", [0], "cpu", progress=False, steps=100, warmup=10
    )
    assert history.loss[-1][0] < 0.5
    psi, g = manakov.asked(200)
    straight, turned = manakov.error(net, psi), manakov.error(net, g @ psi)
    assert straight < 0.6
    torch.testing.assert_close(straight, turned)


def test_a_run_is_written_read_and_evaluated(tmp_path, monkeypatch):
    settings = replace(manakov.SETTINGS["ci"], steps=3, batch=4, warmup=1, vectors=(4,), width=5)
    settings = replace(settings, energy=(5,))
    monkeypatch.setitem(manakov.SETTINGS, "ci", settings)
    monkeypatch.setattr(manakov, "TESTED", 20)
    monkeypatch.setattr(manakov, "FLOWN", 3)
    monkeypatch.setattr(manakov, "T", 0.4)
    manakov.train("ci", [4, 6], "cpu", tmp_path, "a test", progress=False)
    networks, about = manakov.load(tmp_path)
    assert about["provenance"]["command"] == "a test"
    assert {v: net.S for v, net in networks.items()} == dict.fromkeys(manakov.VARIANTS, 2)
    rows, _ = manakov.evaluate(tmp_path, keep_curves=True)
    assert len(rows) == 4 * 7
    found = {row.name: row.ours for row in rows}
    assert all(len(values) == 2 for values in found.values())
    for variant in manakov.EXACT:
        assert max(found[f"{variant}: defect"]) < 1e-13
        torch.testing.assert_close(
            found[f"{variant}: error"], found[f"{variant}: error, turned"], rtol=1e-5, atol=0
        )
    assert (tmp_path / "curves.safetensors").exists()
    (tmp_path / "weights.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"weights\.safetensors"):
        manakov.load(tmp_path)
