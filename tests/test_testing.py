"""The public checks pass what is right and fail what was built wrong, and say how wrong."""

import math

import pytest
import torch

from companion.testing import (
    assert_conserved,
    assert_equivariant,
    assert_invariant,
    assert_symplectic,
)

DTYPES = [torch.float32, torch.float64]


def rotations(count, dtype=torch.float64):
    raw = torch.randn(count, 3, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    Q = torch.linalg.qr(raw).Q
    return (Q * torch.linalg.det(Q)[:, None, None]).to(dtype)


def rotate(g, x):
    return x @ g.mT


def translate(g, x):
    return x + g


def states(dtype=torch.float64):
    generator = torch.Generator().manual_seed(2)
    return tuple(torch.randn(6, 3, generator=generator, dtype=dtype) for _ in range(2))


def lagrangian(q, qdot):
    return 0.5 * (qdot * qdot).sum(-1) + 1 / (q * q).sum(-1).sqrt()


def force(q, qdot):
    return -q / (q * q).sum(-1, keepdim=True) ** 1.5 + torch.linalg.cross(q, qdot)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_symmetric_passes_and_the_error_is_returned(dtype):
    g = rotations(5, dtype)
    error = assert_invariant(lagrangian, rotate, states(dtype), elements=g)
    assert error < 1e3 * torch.finfo(dtype).eps
    assert_equivariant(force, rotate, states(dtype), elements=g)
    assert_invariant(lambda q: q.norm(dim=-1), lambda q: -q, states(dtype)[0])
    assert_equivariant(lambda q: q * (q * q).sum(-1, keepdim=True), torch.neg, states(dtype)[0])


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_complex_functions_have_the_tolerance_of_their_precision(dtype):
    z = torch.randn(6, 3, generator=torch.Generator().manual_seed(2), dtype=dtype)
    turn = torch.tensor(0.7j, dtype=torch.complex128).exp().to(dtype)
    assert assert_equivariant(lambda z: z * z.abs(), torch.mul, z, elements=turn[None]) < 1e-6
    assert_invariant(lambda z: z * z.conj(), torch.mul, z, elements=turn[None])
    for broken in (torch.tanh, lambda z: z + 1e-3 * z.conj()):
        with pytest.raises(AssertionError, match=r"f\(g x\) = g f\(x\) fails"):
            assert_equivariant(broken, torch.mul, z, elements=turn[None])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1.0, 1e-2])
def test_a_slightly_broken_symmetry_fails(dtype, size):
    def broken(q, qdot):
        return lagrangian(q, qdot) + size * q[..., 2]

    def broken_force(q, qdot):
        return force(q, qdot) + size * torch.tensor([0, 0, 1], dtype=dtype)

    with pytest.raises(AssertionError, match=r"f\(g x\) = f\(x\) fails: largest relative error"):
        assert_invariant(broken, rotate, states(dtype), elements=rotations(5, dtype))
    with pytest.raises(AssertionError, match=r"f\(g x\) = g f\(x\) fails"):
        assert_equivariant(broken_force, rotate, states(dtype), elements=rotations(5, dtype))


def test_a_pseudoscalar_is_seen_by_reflections_only():
    def handed(q, qdot):
        return torch.linalg.cross(q, qdot)

    assert_equivariant(handed, rotate, states(), elements=rotations(3))
    with pytest.raises(AssertionError):
        assert_equivariant(handed, rotate, states(), elements=-rotations(3))


def test_each_input_may_have_its_own_action():
    g = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def kinetic(q, qdot):
        return (qdot * qdot).sum(-1)

    assert_invariant(kinetic, (translate, None), states(), elements=g)
    with pytest.raises(AssertionError):
        assert_invariant(kinetic, translate, states(), elements=g)

    def midpoint(q, qdot):
        return q + 0.1 * qdot

    assert_equivariant(midpoint, (translate, None), states(), output_action=translate, elements=g)


def test_the_message_names_the_error_the_tolerance_and_the_worst_place():
    x = torch.ones(4, 3, dtype=torch.float64)
    x[2, 1] = 5.0

    def f(x):
        return torch.where(x == -5, 6.5, x.abs())

    with pytest.raises(AssertionError) as caught:
        assert_invariant(f, torch.neg, x)
    message = str(caught.value)
    assert "error 3.00e-01" in message
    assert "tolerance 1.0e-10" in message
    assert "worst at (output index) = (2, 1)" in message
    assert "8% of the entries" in message
    assert assert_invariant(f, torch.neg, x, rtol=0.31) == pytest.approx(0.3)


def test_a_nan_never_passes():
    def f(x):
        return torch.where(x < 0, math.nan, x)

    with pytest.raises(AssertionError, match="not finite"):
        assert_invariant(f, torch.neg, torch.ones(2, 2), rtol=1e9)


def test_a_zero_function_is_invariant_and_a_tiny_one_is_judged_by_its_own_size():
    x = states()[0]
    assert assert_invariant(lambda x: 0 * x, torch.neg, x) == 0
    with pytest.raises(AssertionError):
        assert_invariant(lambda x: 1e-20 * x, torch.neg, x)


def test_checks_that_would_say_nothing_are_refused():
    identity = torch.eye(3, dtype=torch.float64)[None]
    with pytest.raises(ValueError, match="left every input as it was"):
        assert_invariant(lagrangian, rotate, states(), elements=identity)
    with pytest.raises(ValueError, match="elements is empty"):
        assert_invariant(lagrangian, rotate, states(), elements=identity[:0])
    with pytest.raises(ValueError, match="1 actions for 2 inputs"):
        assert_invariant(lagrangian, [rotate], states(), elements=rotations(1))
    with pytest.raises(ValueError, match="pass output_action="):
        assert_equivariant(force, (rotate, rotate), states(), elements=rotations(1))
    with pytest.raises(ValueError, match=r"expected \(6,\)"):
        assert_invariant(lagrangian, lambda x: -x[:3], states())
    with pytest.raises(ValueError, match="no default tolerance for"):
        assert_invariant(lambda x: x**2, torch.neg, torch.ones(2, dtype=torch.int64))


def test_conserved_values_pass_and_drifting_ones_fail_with_their_time():
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    L = torch.stack((torch.cos(t), torch.sin(t)), -1)
    assert assert_conserved(L.norm(dim=-1, keepdim=True)) < 1e-15
    with pytest.raises(AssertionError, match=r"\(time, ...\) = \(10,\)"):
        assert_conserved(L)
    batch = torch.ones(11, 4, 2, dtype=torch.float64)
    batch[7, 3, 0] += 1e-3
    with pytest.raises(AssertionError, match=r"\(time, ...\) = \(7, 3\)"):
        assert_conserved(batch, 1e-6)
    assert_conserved(batch, rtol=1e-2)
    with pytest.raises(ValueError, match="is zero"):
        assert_conserved(torch.zeros(5, 2))
    assert_conserved(torch.zeros(5, 2), reference=torch.ones(2))


@pytest.mark.parametrize("dtype", DTYPES)
def test_symplectic_maps_pass_and_others_fail(dtype):
    y = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0), dtype=dtype)

    def shear(y):
        q, p = y.chunk(2, -1)
        p = p - torch.sin(q)
        return torch.cat((q + p, p), -1)

    def stretch(y):
        return 1.01 * y

    def swap(y):  # volume is kept and Omega is not
        q, p = y.chunk(2, -1)
        return torch.cat((q * torch.tensor([2, 0.5], dtype=dtype), p), -1)

    assert_symplectic(shear, y)
    with torch.no_grad():
        assert_symplectic(shear, y)
    for wrong in (stretch, swap, torch.ones_like):
        with pytest.raises((AssertionError, ValueError)):
            assert_symplectic(wrong, y)
    assert not y.requires_grad


def test_symplectic_errors_say_what_to_do():
    y = torch.zeros(2, 4)
    with pytest.raises(ValueError, match="even last axis"):
        assert_symplectic(lambda y: y, y[:, :3])
    with pytest.raises(ValueError, match="phase space to itself"):
        assert_symplectic(lambda y: y[..., :2], y)
    with pytest.raises(ValueError, match="cut the gradient"):
        assert_symplectic(torch.no_grad()(lambda y: 2 * y), y)
    with pytest.raises(AssertionError, match=r"worst at \(batch\) = \(1,\)"):
        assert_symplectic(lambda y: torch.sin(y), torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
