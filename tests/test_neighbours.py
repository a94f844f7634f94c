"""Neighbour pairs, triangles and the Verlet list against looking at everything."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.neighbours import NeighbourList, minimum_image, neighbours, triangles

SEEDS = st.integers(0, 10**6)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def brute(r, cutoff, box=None):
    """Every pair, every one of the 27 nearest images."""
    pairs = []
    shifts = [(0.0, 0.0, 0.0)]
    if box is not None:
        shifts = [(a, b, c) for a in (-box, 0, box) for b in (-box, 0, box) for c in (-box, 0, box)]
    for i, j in combinations(range(len(r)), 2):
        if min(float((r[j] - r[i] + torch.tensor(s)).norm()) for s in shifts) <= cutoff:
            pairs.append([i, j])
    return pairs


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(1, 24), st.floats(0.5, 6.0))
def test_open_space_against_all_pairs(seed, N, cutoff):
    r = 3 * torch.randn(N, 3, generator=generator(seed), dtype=torch.float64)
    assert neighbours(r, cutoff).tolist() == brute(r, cutoff)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 14), st.floats(0.5, 5.0), st.floats(1.01, 1.8), st.floats(-3, 3))
def test_periodic_box_against_all_images(seed, N, cutoff, room, away):
    box = 2 * cutoff * room
    inside = box * torch.rand(N, 3, generator=generator(seed), dtype=torch.float64)
    assert neighbours(inside, cutoff, box).tolist() == brute(inside, cutoff, box)
    # positions may have left the box, by any number of sides
    outside = inside + box * torch.randint(-2, 3, (N, 3), generator=generator(seed + 1))
    rounded = neighbours(outside + 1e-12 * away, cutoff * (1 + 1e-9), box).tolist()
    assert all(pair in rounded for pair in brute(inside, cutoff, box))


def test_an_atom_on_the_edge_of_the_box():
    r = torch.tensor([[-1e-18, 0.0, 0.0], [9.5, 0.0, 0.0], [5.0, 5.0, 5.0]], dtype=torch.float64)
    assert neighbours(r, 1.0, box=10.0).tolist() == [[0, 1]]


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 20), st.floats(1.0, 9.0))
def test_triangles_against_all_triples(seed, N, cutoff):
    r = 3 * torch.randn(N, 3, generator=generator(seed), dtype=torch.float64)
    pairs = neighbours(r, cutoff)
    known = [tuple(p) for p in pairs.tolist()]
    expected = [
        [known.index((i, j)), known.index((j, k)), known.index((i, k))]
        for i, j, k in combinations(range(N), 3)
        if {(i, j), (j, k), (i, k)} <= set(known)
    ]
    assert sorted(triangles(pairs).tolist()) == sorted(expected)


@given(SEEDS, st.floats(0.5, 50.0))
def test_the_minimum_image_is_the_shortest(seed, box):
    d = 3 * box * torch.randn(20, 3, generator=generator(seed), dtype=torch.float64)
    short = minimum_image(d, box)
    assert float(short.abs().max()) <= box / 2 * (1 + 1e-12)
    whole = (short - d) / box
    assert torch.allclose(whole, whole.round(), atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.sampled_from([None, 12.0]), st.floats(0.0, 1.5))
def test_the_list_never_misses_a_pair(seed, box, skin):
    """A random walk: at every step the list holds every pair within the cutoff."""
    g = generator(seed)
    r = 3 * torch.randn(12, 3, generator=g, dtype=torch.float64)
    near = NeighbourList(4.0, skin, box)
    for _ in range(15):
        held = {tuple(p) for p in near(r).tolist()}
        assert {tuple(p) for p in neighbours(r, 4.0, box).tolist()} <= held
        r = r + 0.08 * torch.randn(12, 3, generator=g, dtype=torch.float64)


def test_the_list_is_kept_while_it_is_good():
    r = torch.zeros(2, 3, dtype=torch.float64)
    r[1, 0] = 5.0
    near = NeighbourList(4.0, skin=1.0)
    assert near.stale(r)
    assert near(r).tolist() == [[0, 1]]
    assert near.builds == 1
    r[0, 1] += 0.49
    assert not near.stale(r)
    _ = near(r)
    assert near.builds == 1
    r[0, 1] += 0.02  # more than half the skin since it was built
    assert near.stale(r)
    _ = near(r)
    assert near.builds == 2
    assert near.stale(r[:1]), "another number of atoms"
    assert near.stale(torch.full_like(r, float("nan"))), "positions that are no numbers"


def test_crossing_the_box_is_no_move():
    near = NeighbourList(2.0, skin=0.5, box=10.0)
    r = torch.tensor([[9.99, 1.0, 1.0], [0.5, 1.0, 1.0]], dtype=torch.float64)
    _ = near(r)
    assert not near.stale(r - torch.tensor([[9.99, 0.0, 0.0], [0.0, 0.0, 0.0]]))


def test_the_skin_fits_into_the_box():
    assert NeighbourList(4.0, skin=3.0, box=10.0).skin == 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: neighbours(r, 0.0), r"cutoff: got 0.0, expected a positive length"),
        (lambda r: neighbours(r, 3.0, box=5.0), r"box: got 5.0, expected at least two cutoffs = 6"),
        (lambda r: neighbours(r[None], 3.0), r"r: got shape \(1, 4, 3\), expected the positions"),
        (lambda r: neighbours(r[:, :2], 3.0), r"r: got shape \(4, 2\)"),
        (lambda r: neighbours(r / 0, 3.0), r"r: atom 0 is at \[nan, nan, nan\]; positions must"),
        (lambda r: NeighbourList(3.0, skin=-1.0), r"skin: got -1.0, expected a length"),
        (lambda r: NeighbourList(3.0, box=1.0), r"is it in the unit of the cutoff"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(4, 3, dtype=torch.float64))
