"""companion.groups: algebra, random elements, actions."""

import math
from itertools import combinations

import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion import finite, groups, representations, symbolic

few = settings(deadline=None, max_examples=25)
dimensions = st.integers(2, 6)
seeds = st.integers(0, 2**31 - 1)
dtypes = st.sampled_from([torch.float32, torch.float64])
MATRIX_GROUPS = [groups.O, groups.SO, groups.Lorentz]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def metric_of(group: groups.Group, dtype: torch.dtype) -> torch.Tensor:
    """The bilinear form that the group must preserve."""
    if isinstance(group, groups.Lorentz):
        return group.metric(dtype)
    return torch.eye(group.d, dtype=dtype)


def tolerance(dtype: torch.dtype, scale: float = 1.0) -> float:
    return 50 * torch.finfo(dtype).eps * scale


# Elements -----------------------------------------------------------------------------------------


@few
@given(d=dimensions, seed=seeds, dtype=dtypes, kind=st.sampled_from(MATRIX_GROUPS))
def test_random_elements_preserve_the_metric(d, seed, dtype, kind):
    group = kind(d)
    g = group.sample(3, 2, generator=seeded(seed), dtype=dtype)
    assert g.shape == (3, 2, d, d)
    assert g.dtype == dtype
    eta = metric_of(group, dtype)
    size = g.abs().amax().item() ** 2
    assert (g.mT @ eta @ g - eta).abs().max() < tolerance(dtype, d * size)
    det = torch.linalg.det(g)
    if kind is groups.O:
        det = det.abs()
    torch.testing.assert_close(det, torch.ones_like(det), rtol=0, atol=tolerance(dtype, d * size))


@few
@given(d=dimensions, seed=seeds, kind=st.sampled_from(MATRIX_GROUPS))
def test_exponentials_of_the_algebra_are_in_the_group(d, seed, kind):
    group = kind(d)
    theta = torch.randn(4, group.dim, generator=seeded(seed), dtype=torch.float64)
    g = group.exp(theta)
    eta = metric_of(group, g.dtype)
    size = g.abs().amax().item() ** 2
    assert (g.mT @ eta @ g - eta).abs().max() < 1e-13 * d * size
    torch.testing.assert_close(
        torch.linalg.det(g), torch.ones(4, dtype=g.dtype), rtol=0, atol=1e-13 * d * size
    )
    # and the derivative at the identity is the generator, eq. (5)
    zero = torch.zeros((), dtype=g.dtype)
    slope = torch.autograd.functional.jacobian(lambda s: group.exp(s * theta[0]), zero)
    expected = torch.einsum("a,aij->ij", theta[0], group.generators())
    torch.testing.assert_close(slope, expected)


def test_lorentz_elements_keep_space_and_time_apart():
    group = groups.Lorentz(4)
    g = group.sample(500, generator=seeded(0), rapidity=2.0)
    assert (g[:, -1, -1] >= 1).all()  # orthochronous
    assert g[:, -1, -1].max() > math.cosh(1.5)
    assert (torch.linalg.det(g) > 0).all()
    still = group.sample(5, generator=seeded(0), rapidity=0.0)
    torch.testing.assert_close(still[:, -1], torch.eye(4, dtype=g.dtype)[-1].expand(5, 4))
    both = groups.Lorentz(2).sample(100, generator=seeded(0))[:, 0, 1]
    assert both.min() < 0 < both.max()  # boosts of a line go both ways


@pytest.mark.parametrize("d", [2, 3, 4])
@pytest.mark.parametrize("kind", [groups.O, groups.SO])
def test_samples_have_the_moments_of_the_haar_measure(kind, d):
    """E g = 0, E g_ij g_kl = delta delta / d, E tr^2 = 1 (SO(2): 2), E g_11^4 = 3 / (d (d + 2))."""
    n = 40_000
    g = kind(d).sample(n, generator=seeded(1))
    five_sigma = 5 / math.sqrt(n)
    assert g.mean(0).abs().max() < five_sigma
    second = torch.einsum("nij,nkl->ijkl", g, g) / n
    eye = torch.eye(d, dtype=g.dtype)
    expected = torch.einsum("ik,jl->ijkl", eye, eye) / d
    if kind is groups.SO and d == 2:  # cos and sin: g_11 = g_22 and g_12 = -g_21 always
        epsilon = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=g.dtype)
        expected = expected + torch.einsum("ik,jl->ijkl", epsilon, epsilon) / d
    assert (second - expected).abs().max() < five_sigma
    trace = g.diagonal(dim1=1, dim2=2).sum(1)
    assert abs(trace.square().mean() - (2 if kind is groups.SO and d == 2 else 1)) < 10 / n**0.5
    assert abs(g[:, 0, 0].pow(4).mean() - 3 / (d * (d + 2))) < five_sigma
    dets = torch.linalg.det(g)
    half = (dets < 0).double().mean()
    assert half == 0 if kind is groups.SO else abs(half - 0.5) < five_sigma


def test_rotation_angles_of_so3_have_the_haar_density():
    """The angle of a Haar rotation has density (1 - cos) / pi; compare the distribution."""
    n = 20_000
    g = groups.SO(3).sample(n, generator=seeded(2))
    angle = ((g.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1).acos().sort().values
    exact = (angle - angle.sin()) / math.pi
    empirical = (torch.arange(n, dtype=exact.dtype) + 0.5) / n
    assert (exact - empirical).abs().max() < 1.95 / math.sqrt(n)  # Kolmogorov, 1 in 1000


def test_sampling_depends_on_the_generator_alone():
    for group in [groups.SO(3), groups.O(3), groups.Lorentz(4), groups.Translation(3)]:
        torch.manual_seed(0)
        first = group.sample(4, generator=seeded(7))
        torch.manual_seed(1)
        before = torch.get_rng_state()
        assert torch.equal(first, group.sample(4, generator=seeded(7)))
        assert torch.equal(before, torch.get_rng_state())
        assert group.sample(generator=seeded(7)).shape == first.shape[1:]


# The algebra --------------------------------------------------------------------------------------


def test_so3_has_the_generators_of_eq_4_and_their_commutators():
    X, Y, Z = generators = groups.SO(3).sympy_generators()
    assert [gamma.tolist() for gamma in generators] == [
        [[0, 0, 0], [0, 0, -1], [0, 1, 0]],
        [[0, 0, 1], [0, 0, 0], [-1, 0, 0]],
        [[0, -1, 0], [1, 0, 0], [0, 0, 0]],
    ]
    assert X * Y - Y * X == Z
    assert Y * Z - Z * Y == X
    assert Z * X - X * Z == Y


def test_eq_31_differs_from_eq_4_in_two_signs_out_of_three():
    X, Y, Z = groups.SO(3).sympy_generators()
    plane = {pair: groups.plane_generator(3, *pair) for pair in combinations(range(3), 2)}
    assert plane == {(0, 1): -Z, (0, 2): Y, (1, 2): -X}


@pytest.mark.parametrize("d", [2, 4, 5])
def test_so_d_generators_are_those_of_eq_31(d):
    generators = groups.SO(d).generators()
    assert generators.shape == (groups.SO(d).dim, d, d) == (d * (d - 1) // 2, d, d)
    for gamma, (rho, sigma) in zip(generators, combinations(range(d), 2), strict=True):
        expected = torch.zeros(d, d, dtype=gamma.dtype)
        expected[rho, sigma], expected[sigma, rho] = 1, -1
        assert torch.equal(gamma, expected)


@pytest.mark.parametrize("kind", MATRIX_GROUPS)
@pytest.mark.parametrize("d", [2, 3, 4, 5])
def test_the_generators_are_a_basis_of_an_algebra(kind, d):
    group = kind(d)
    gamma = group.generators()
    eta = metric_of(group, gamma.dtype)
    assert torch.equal(gamma.mT @ eta + eta @ gamma, torch.zeros_like(gamma))
    flat = gamma.reshape(group.dim, -1)
    assert torch.linalg.matrix_rank(flat) == group.dim
    commutators = gamma[:, None] @ gamma[None] - gamma[None] @ gamma[:, None]
    stacked = torch.cat([flat, commutators.reshape(-1, d * d)])
    assert torch.linalg.matrix_rank(stacked) == group.dim  # closed under the bracket
    exact = [torch.tensor(g.tolist(), dtype=torch.float64) for g in group.sympy_generators()]
    assert torch.equal(gamma, torch.stack(exact))
    assert group.generators(torch.float32).dtype == torch.float32


def test_groups_of_a_line():
    assert groups.SO(1).generators().shape == (0, 1, 1)
    assert torch.equal(groups.SO(1).sample(5, generator=seeded(0)), torch.ones(5, 1, 1).double())
    assert set(groups.O(1).sample(50, generator=seeded(0)).flatten().tolist()) == {-1, 1}


# Actions ------------------------------------------------------------------------------------------


@few
@given(d=dimensions, seed=seeds, kind=st.sampled_from([*MATRIX_GROUPS, groups.Translation]))
def test_actions_align_with_the_batch_and_compose(d, seed, kind):
    group, generator = kind(d), seeded(seed)
    g, h = group.sample(2, 5, generator=generator)
    x = torch.randn(5, 3, d, generator=generator, dtype=g.dtype)
    moved = group.act(g, x)
    assert moved.shape == x.shape
    one_by_one = [[group.act(g[b], x[b, n]) for n in range(3)] for b in range(5)]
    torch.testing.assert_close(moved, torch.stack([torch.stack(row) for row in one_by_one]))
    product = g + h if kind is groups.Translation else g @ h
    torch.testing.assert_close(group.act(product, x), group.act(g, group.act(h, x)))
    assert group.act(g, x[0, 0]).shape == (5, d)  # many elements, one vector
    assert group.act(g[0], x).shape == x.shape  # one element, many vectors


def test_translations_move():
    group = groups.Translation(3)
    assert torch.equal(group.generators(), torch.eye(3, dtype=torch.float64))
    assert [list(e) for e in group.sympy_generators()] == torch.eye(3).int().tolist()
    theta = torch.tensor([1.0, 2.0, 3.0])
    assert torch.equal(group.act(group.exp(theta), torch.ones(2, 3)), theta + torch.ones(2, 3))


def test_rotation_symmetries_turn_every_particle():
    q, qdot, _ = symbolic.coordinates("a b c d")
    (xi,) = groups.rotation_symmetries(q, 2).values()
    a, b, c, d = q
    assert xi == [b, -a, d, -c]
    assert list(groups.rotation_symmetries(q, 4)) == [
        "L_12",
        "L_13",
        "L_14",
        "L_23",
        "L_24",
        "L_34",
    ]
    L = sum(v**2 for v in qdot) / 2 - (a - c) ** 2 - (b - d) ** 2
    assert sympy.expand(symbolic.variation(L, q, qdot, xi)) == 0


# Unitary groups -----------------------------------------------------------------------------------

UNITARY = [groups.U, groups.SU]
complex_dtypes = st.sampled_from([torch.complex64, torch.complex128])


@few
@given(d=st.integers(1, 6), seed=seeds, dtype=complex_dtypes, kind=st.sampled_from(UNITARY))
def test_random_elements_are_unitary(d, seed, dtype, kind):
    g = kind(d).sample(3, 2, generator=seeded(seed), dtype=dtype)
    assert g.shape == (3, 2, d, d)
    assert g.dtype == dtype
    small = tolerance(dtype, d)
    assert (g.mH @ g - torch.eye(d, dtype=dtype)).abs().max() < small
    det = torch.linalg.det(g)
    if kind is groups.U:
        det = det.abs()
    assert (det - 1).abs().max() < small


@few
@given(d=st.integers(1, 5), seed=seeds, kind=st.sampled_from(UNITARY))
def test_exponentials_of_anti_hermitian_matrices_are_unitary(d, seed, kind):
    group = kind(d)
    theta = torch.randn(4, group.dim, generator=seeded(seed), dtype=torch.float64)
    g = group.exp(theta)
    assert g.dtype == torch.complex128
    assert group.exp(theta.float()).dtype == torch.complex64
    one = torch.eye(d, dtype=g.dtype)
    assert (g.mH @ g - one).abs().max() < 1e-13 * d
    phase = theta[:, -1] * d if kind is groups.U else torch.zeros(4, dtype=theta.dtype)
    assert (torch.linalg.det(g) - torch.polar(torch.ones_like(phase), phase)).abs().max() < 1e-12
    step = 1e-5  # and the derivative at the identity is the generator
    slope = (group.exp(step * theta) - group.exp(-step * theta)) / (2 * step)
    expected = torch.einsum("na,aij->nij", theta.to(g.dtype), group.generators())
    assert (slope - expected).abs().max() < 1e-7 * (1 + expected.abs().max()) ** 3


@pytest.mark.parametrize("kind", UNITARY)
@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_the_anti_hermitian_generators_are_a_basis_of_an_algebra(kind, d):
    group = kind(d)
    exact = group.sympy_generators()
    assert len(exact) == group.dim == (d * d if kind is groups.U else d * d - 1)
    for gamma in exact:
        assert gamma + gamma.H == sympy.zeros(d, d)
        assert kind is groups.U or gamma.trace() == 0
    for a, b in combinations(exact[: d * d - 1], 2):  # Gell-Mann's norm
        assert sympy.simplify((a.H * b).trace()) == 0
    assert all(
        sympy.simplify((a.H * a).trace()) == sympy.Rational(1, 2) for a in exact[: d * d - 1]
    )
    gamma = group.generators()
    assert gamma.dtype == torch.complex128
    assert gamma.shape == (group.dim, d, d)
    assert group.generators(torch.complex64).dtype == torch.complex64
    commutators = (gamma[:, None] @ gamma - gamma @ gamma[:, None]).reshape(-1, d, d)
    assert _rank(gamma) == group.dim  # over the reals, also with what brackets make
    assert _rank(torch.cat([gamma, commutators])) == group.dim
    assert group.discrete().shape == (0, d, d)


def _rank(matrices: torch.Tensor) -> int:
    """The rank over the reals of complex matrices (n, d, d)."""
    rows = torch.view_as_real(matrices).flatten(1)
    return int(torch.linalg.matrix_rank(rows)) if len(rows) else 0


def test_su2_has_the_pauli_matrices_and_the_commutators_of_so3():
    X, Y, Z = groups.SU(2).sympy_generators()
    i = sympy.I
    assert [(2 * i * gamma).tolist() for gamma in (X, Y, Z)] == [
        [[0, 1], [1, 0]],
        [[0, -i], [i, 0]],
        [[1, 0], [0, -1]],
    ]
    assert X * Y - Y * X == Z
    assert Y * Z - Z * Y == X
    assert Z * X - X * Z == Y
    assert groups.U(2).sympy_generators() == [X, Y, Z, i * sympy.eye(2)]


def test_su3_has_the_order_of_gell_mann():
    lambda_8 = 2 * sympy.I * groups.SU(3).sympy_generators()[-1]
    assert lambda_8 == sympy.diag(1, 1, -2) / sympy.sqrt(3)
    lambda_4 = 2 * sympy.I * groups.SU(3).sympy_generators()[3]
    assert lambda_4 == sympy.Matrix([[0, 0, 1], [0, 0, 0], [1, 0, 0]])


@pytest.mark.parametrize("d", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", UNITARY)
def test_unitary_samples_have_the_moments_of_the_haar_measure(kind, d):
    """E g = 0, E g_ij conj g_kl = delta delta / d, E |tr|^2 = 1, E |g_11|^4 = 2 / (d (d + 1)); g g
    has a mean for SU(2) alone, where it is that of epsilon epsilon / 2, and det g is uniform."""
    if kind is groups.SU and d == 1:
        assert (groups.SU(1).sample(9, generator=seeded(0)) - 1).abs().max() < 1e-15
        return
    n = 40_000
    g = kind(d).sample(n, generator=seeded(1))
    five_sigma = 5 / math.sqrt(n)
    assert g.mean(0).abs().max() < five_sigma
    eye = torch.eye(d, dtype=g.dtype)
    second = torch.einsum("nij,nkl->ijkl", g, g.conj()) / n
    assert (second - torch.einsum("ik,jl->ijkl", eye, eye) / d).abs().max() < five_sigma
    expected = torch.zeros_like(second)
    if kind is groups.SU and d == 2:
        epsilon = torch.tensor([[0, 1], [-1, 0]], dtype=g.dtype)
        expected = torch.einsum("ik,jl->ijkl", epsilon, epsilon) / 2
    assert (torch.einsum("nij,nkl->ijkl", g, g) / n - expected).abs().max() < five_sigma
    trace = g.diagonal(dim1=1, dim2=2).sum(1)
    assert abs(trace.abs().square().mean() - 1) < five_sigma
    assert abs(g[:, 0, 0].abs().pow(4).mean() - 2 / (d * (d + 1))) < five_sigma
    det = torch.linalg.det(g)
    assert abs(det.mean() - float(kind is groups.SU)) < five_sigma


def test_eigenphases_of_u2_repel_each_other_as_haar_says():
    """The gap of the two phases has the density (1 - cos) / (2 pi); compare the distribution."""
    n = 20_000
    phases = torch.linalg.eigvals(groups.U(2).sample(n, generator=seeded(3))).angle()
    gap = (phases[:, 0] - phases[:, 1]).remainder(2 * math.pi).sort().values
    exact = (gap - gap.sin()) / (2 * math.pi)
    empirical = (torch.arange(n, dtype=exact.dtype) + 0.5) / n
    assert (exact - empirical).abs().max() < 1.95 / math.sqrt(n)  # Kolmogorov, 1 in 1000


@few
@given(d=st.integers(1, 5), seed=seeds, dtype=complex_dtypes, kind=st.sampled_from(UNITARY))
def test_unitary_actions_keep_products_and_compose(d, seed, dtype, kind):
    group, generator = kind(d), seeded(seed)
    g, h = group.sample(2, 5, generator=generator, dtype=dtype)
    x = torch.randn(5, 3, d, generator=generator, dtype=dtype)
    moved, small = group.act(g, x), tolerance(dtype, d**2)
    assert moved.shape == x.shape
    assert moved.dtype == dtype
    one_by_one = [[g[b] @ x[b, k] for k in range(3)] for b in range(5)]
    expected = torch.stack([torch.stack(row) for row in one_by_one])
    assert (moved - expected).abs().max() < small
    assert (group.act(g @ h, x) - group.act(g, group.act(h, x))).abs().max() < small
    products, before = moved.conj() @ moved.mT, x.conj() @ x.mT
    assert (products - before).abs().max() < small * x.abs().max() ** 2 + small
    assert (g[:, None] @ x.mT[:, None] - moved.mT[:, None]).abs().max() < small  # columns


def test_real_orthogonal_matrices_are_unitary_elements():
    g = groups.O(3).sample(4, generator=seeded(0), dtype=torch.float64)
    x = torch.randn(4, 2, 3, generator=seeded(1), dtype=torch.complex64)
    moved = groups.U(3).act(g, x)
    assert moved.dtype == torch.complex64
    torch.testing.assert_close(moved.real, groups.O(3).act(g.float(), x.real))
    torch.testing.assert_close(moved.imag, groups.O(3).act(g.float(), x.imag))


def test_unitary_groups_can_act_on_some_of_the_axes():
    """diag(U, 1), eq. 17 of Ma and Chan: scalar features stay as they are."""
    group = finite.Embedded(groups.U(2), 3)
    g = group.sample(6, generator=seeded(0), dtype=torch.complex128)
    x = torch.randn(6, 3, generator=seeded(1), dtype=torch.complex128)
    moved = group.act(g, x)
    assert torch.equal(moved[:, 2], x[:, 2])
    torch.testing.assert_close(moved[:, :2], groups.U(2).act(g[:, :2, :2], x[:, :2]))
    assert group.generators(torch.complex128).shape == (4, 3, 3)
    assert group.sympy_generators()[-1] == sympy.I * sympy.diag(1, 1, 0)


def test_layers_for_orthogonal_groups_refuse_unitary_ones():
    with pytest.raises(ValueError, match="not a group of orthogonal matrices"):
        representations.equivariant_basis(representations.V, representations.V, groups.U(2))


# Bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: groups.SO(0), "d: got 0, expected a whole number >= 1"),
        (lambda: groups.Lorentz(1), "d: got 1, expected a whole number >= 2"),
        (lambda: groups.plane_generator(3, 1, 1), "two different axes from 0 to 2"),
        (lambda: groups.plane_generator(3, 0, 3), "two different axes from 0 to 2"),
        (lambda: groups.rotation_symmetries(symbolic.momenta("a b c"), 2), "multiple of d = 2"),
        (lambda: groups.SO(3).act(torch.eye(3), torch.ones(4)), r"g, x: got shapes \(3, 3\)"),
        (lambda: groups.Translation(3).act(torch.ones(2), torch.ones(2)), r"\(2,\) and \(2,\)"),
        (lambda: groups.SO(3).exp(torch.ones(2)), r"theta: got shape \(2,\)"),
        (lambda: groups.Translation(3).exp(torch.ones(2)), r"theta: got shape \(2,\)"),
        (lambda: groups.U(0), "d: got 0, expected a whole number >= 1"),
        (lambda: groups.SU(2).exp(torch.ones(4)), r"theta: got shape \(4,\), expected \(..., 3\)"),
        (lambda: groups.U(2).generators(torch.float32), "dtype: got torch.float32"),
        (lambda: groups.U(2).discrete(torch.float32), "dtype: got torch.float32"),
        (
            lambda: groups.SU(2).sample(generator=seeded(0), dtype=torch.float64),
            "dtype: got torch.float64, expected torch.complex64",
        ),
        (lambda: groups.U(2).act(torch.eye(2) + 0j, torch.ones(2)), "x: got torch.float32"),
        (lambda: groups.U(2).act(torch.eye(2) + 0j, torch.ones(3) + 0j), r"g, x: got shapes"),
        (lambda: groups.U(2).design(2), r"U\(2\) has no design here"),
    ],
)
def test_bad_input_says_what_was_expected(make, message):
    with pytest.raises(ValueError, match=message):
        make()
