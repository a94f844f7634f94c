"""companion.scalars: vectors from their products, and the matrix between two configurations."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion import groups
from companion.scalars import alignment, gram, vectors_from_gram

few = settings(deadline=None, max_examples=40)
seeds = st.integers(0, 2**31 - 1)
dtypes = st.sampled_from([torch.float32, torch.float64])
sizes = st.integers(1, 6)
EYE = torch.eye(3, dtype=torch.float64)


def draw(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def of_rank(seed: int, n: int, d: int, rank: int, dtype: torch.dtype) -> torch.Tensor:
    """Three configurations (3, n, d) of n vectors in a subspace of at most this dimension."""
    return draw(seed, 3, n, rank, dtype=dtype) @ draw(seed + 1, 3, rank, d, dtype=dtype)


def size(v: torch.Tensor) -> float:
    return v.abs().amax().item()


# Vectors from products ----------------------------------------------------------------------------


@few
@given(seed=seeds, n=sizes, d=sizes, rank=sizes, dtype=dtypes)
def test_vectors_have_the_products_they_were_made_from(seed, n, d, rank, dtype):
    G = gram(of_rank(seed, n, d, min(rank, d), dtype))
    v = vectors_from_gram(G, d)
    assert v.shape == (3, n, d)
    assert v.dtype == dtype
    assert size(gram(v) - G) <= 100 * torch.finfo(dtype).eps * size(G)


@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (0,)])
def test_any_batch(batch):
    v = draw(0, *batch, 4, 3)
    assert vectors_from_gram(gram(v), 3).shape == v.shape
    assert alignment(v, v).shape == (*batch, 3, 3)


def test_a_batch_is_treated_matrix_by_matrix():
    scale = torch.tensor([1.0, 1e-6, 0.0]).double()[:, None, None]
    G = gram(draw(1, 3, 4, 3) * scale)
    v = vectors_from_gram(G, 3)
    for one, G_one, size_one in zip(v, G, scale.flatten(), strict=True):
        torch.testing.assert_close(one, vectors_from_gram(G_one, 3))
        assert size(gram(one) - G_one) <= 1e-14 * size_one**2
    assert not v[2].any()


def test_fewer_vectors_than_dimensions_are_padded():
    v = vectors_from_gram(gram(draw(2, 2, 5)), 5)
    assert v.shape == (2, 5)
    assert not v[:, 2:].any()


@pytest.mark.parametrize(
    ("G", "d", "message"),
    [
        (torch.zeros(3), 3, "expected a float tensor"),
        (torch.zeros(2, 3), 3, r"shape \(2, 3\)"),
        (torch.eye(3, dtype=torch.int64), 3, "torch.int64"),
        (EYE, 0, "d = 0"),
        (EYE * torch.nan, 3, r"G\[0, 0\] is nan"),
        (torch.stack([EYE, EYE + EYE.roll(1, 1)]), 3, r"G\[1, 0, 1\] is 1 and G\[1, 1, 0\] is 0"),
        (torch.diag(torch.tensor([1.0, 2.0, -1e-3])), 3, "eigenvalue -0.001"),
        (EYE, 2, r"G has the eigenvalue 1 \(largest size 1\); vectors in 2 dimensions"),
        (torch.stack([gram(EYE[:, :2]), EYE]), 2, r"G\[1\] has the eigenvalue"),
    ],
)
def test_what_is_no_gram_matrix_is_refused(G, d, message):
    with pytest.raises(ValueError, match=message):
        vectors_from_gram(G, d)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_forgiven_is_rounding(dtype):
    G = gram(draw(3, 6, 3, dtype=dtype))
    eps = torch.finfo(dtype).eps * torch.linalg.eigvalsh(G)[-1]
    noise = draw(4, 6, 6, dtype=dtype)
    noise = noise + noise.mT
    vectors_from_gram(G + 10 * eps * noise, 3)
    with pytest.raises(ValueError, match="eigenvalue"):
        vectors_from_gram(G + 1e5 * eps * noise, 3)


# The matrix between two configurations ------------------------------------------------------------


@few
@given(seed=seeds, n=sizes, d=sizes, rank=sizes)
def test_equal_products_mean_one_orthogonal_matrix(seed, n, d, rank):
    v = of_rank(seed, n, d, min(rank, d), torch.float64)
    w = vectors_from_gram(gram(v), d)
    R = alignment(v, w)
    assert size(R.mT @ R - torch.eye(d, dtype=torch.float64)) < 1e-13
    assert size(v @ R.mT - w) <= 1e-7 * size(v)  # the root of rounding, for dependent vectors


@few
@given(seed=seeds, d=st.integers(2, 5), dtype=dtypes)
def test_alignment_finds_the_matrix_that_was_used(seed, d, dtype):
    g = groups.O(d).sample(3, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    v = draw(seed, 3, d + 20, d, dtype=dtype)  # many vectors are never nearly dependent
    assert size(alignment(v, v @ g.mT) - g) < 1e3 * torch.finfo(dtype).eps


def test_a_rotation_cannot_reach_a_mirror_image_of_vectors_that_span():
    v = draw(5, 4, 3)
    mirror = v * torch.tensor([1.0, 1.0, -1.0]).double()
    R = alignment(v, mirror, special=True)
    torch.testing.assert_close(torch.linalg.det(R), torch.ones((), dtype=torch.float64))
    assert size(v @ R.mT - mirror) > 0.1
    assert size(v @ alignment(v, mirror).mT - mirror) < 1e-13


def test_a_rotation_reaches_a_mirror_image_of_vectors_in_a_plane():
    v = draw(6, 5, 2, 3)
    mirror = v * torch.tensor([1.0, 1.0, -1.0]).double()
    R = alignment(v, mirror, special=True)
    assert size(torch.linalg.det(R) - 1) < 1e-13
    assert size(v @ R.mT - mirror) < 1e-13


@pytest.mark.parametrize("special", [False, True])
def test_no_other_element_comes_closer(special):
    v, w = draw(7, 4, 3), draw(8, 4, 3)  # not related: the best is a compromise
    best = (v @ alignment(v, w, special).mT - w).square().sum()
    kind = groups.SO if special else groups.O
    others = kind(3).sample(20_000, generator=torch.Generator().manual_seed(9))
    reached = (v @ others.mT - w).square().sum((-2, -1)).min()
    assert best <= reached < best + 0.1


def test_batches_are_broadcast():
    v, w = draw(10, 4, 3), draw(11, 5, 4, 3)
    R = alignment(v, w)
    assert R.shape == (5, 3, 3)
    torch.testing.assert_close(R[2], alignment(v, w[2]))


@pytest.mark.parametrize(
    ("v", "w", "message"),
    [
        (EYE, EYE[:2], r"\(2, 3\)"),
        (EYE, EYE.float(), "torch.float32"),
        (EYE[0], EYE[0], "expected floats"),
        (EYE.long(), EYE.long(), "torch.int64"),
        (EYE, EYE * torch.inf, r"w\[0, 0\] is inf"),
    ],
)
def test_what_cannot_be_aligned_is_refused(v, w, message):
    with pytest.raises(ValueError, match=message):
        alignment(v, w)
