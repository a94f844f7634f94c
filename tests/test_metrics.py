"""Every number of a paper against the formula, written out by hand."""

import math

import pytest
import torch

from companion.metrics import (
    geometric_mean,
    max_deviation,
    mse,
    relative_deviation,
    relative_state_error,
    trajectory_distance,
)

F64 = torch.float64


def test_relative_deviation_is_equation_35():
    I = torch.tensor([[3.0, 4.0], [3.0, 4.5], [0.0, 0.0]], dtype=F64)  # noqa: E741
    torch.testing.assert_close(relative_deviation(I), torch.tensor([0.0, 0.1, 1.0], dtype=F64))


def test_relative_deviation_of_a_batch_is_that_of_its_members():
    I = torch.randn(7, 2, 3, 4, generator=torch.Generator().manual_seed(0))  # noqa: E741
    delta = relative_deviation(I)
    assert delta.shape == (7, 2, 3)
    assert torch.equal(delta[:, 1, 2], relative_deviation(I[:, 1, 2]))
    assert torch.equal(max_deviation(I), delta.amax(0))


def test_one_scalar_over_time_counts_as_a_vector_of_one():
    energy = torch.tensor([-2.0, -2.5, -1.0], dtype=F64)
    expected = torch.tensor([0.0, 0.25, 0.5], dtype=F64)
    torch.testing.assert_close(relative_deviation(energy), expected)
    torch.testing.assert_close(relative_deviation(energy[:, None]), expected)


def test_a_reference_replaces_a_vanishing_start_as_in_equation_36():
    M = torch.tensor([[[0.0, 0.0]], [[0.3, 0.4]]], dtype=F64)
    with pytest.raises(ValueError, match=r"I\(0\) is zero at batch index \(0,\).*eq. 36"):
        relative_deviation(M)
    delta = relative_deviation(M, reference=torch.tensor([[0.0, 2.0]], dtype=F64))
    torch.testing.assert_close(delta, torch.tensor([[0.0], [0.25]], dtype=F64))
    torch.testing.assert_close(
        max_deviation(M, reference=torch.tensor([0.0, 2.0], dtype=F64)),
        torch.tensor([0.25], dtype=F64),
    )
    with pytest.raises(ValueError, match="reference is zero"):
        relative_deviation(M, reference=torch.zeros(1, 2, dtype=F64))


def test_a_blown_up_trajectory_has_infinite_deviation():
    I = torch.tensor([[[1.0], [1.0]], [[math.nan], [1.5]], [[2.0], [1.0]]])  # noqa: E741
    assert max_deviation(I).tolist() == [math.inf, 0.5]


@pytest.mark.parametrize("shape", [(), (0, 3)])
def test_deviation_needs_a_time_axis(shape):
    with pytest.raises(ValueError, match=r"expected \(T, ..., k\)"):
        relative_deviation(torch.ones(shape))


def test_trajectory_distance():
    a = torch.zeros(5, 2, 3, dtype=F64)
    b = torch.tensor([1.0, 2.0, 2.0], dtype=F64).expand(5, 1, 3)
    assert trajectory_distance(a, b).tolist() == [[3.0, 3.0]] * 5


def test_mse_averages_batch_and_components_and_keeps_seeds():
    target = torch.zeros(4, 3, dtype=F64)
    prediction = torch.stack((target + 1, target + 2, target))
    prediction[2, 0, 0] = 6
    assert mse(prediction, target).tolist() == [1.0, 4.0, 3.0]
    assert mse(prediction[1], target).item() == 4.0


def test_relative_state_error():
    a = torch.tensor([[3.0, 4.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]], dtype=F64)
    b = torch.tensor([[3.0, 4.0], [-1.0, 0.0], [3.0, 0.0], [0.0, 0.0]], dtype=F64)
    expected = torch.tensor([0.0, 1.0, 0.5, 0.0], dtype=F64)
    torch.testing.assert_close(relative_state_error(a, b), expected)


def test_geometric_mean():
    x = torch.tensor([[1e-2, 1.0], [1e-4, 100.0]], dtype=F64)
    torch.testing.assert_close(geometric_mean(x), torch.tensor(0.1, dtype=F64))
    expected = torch.tensor([1e-3, 10.0], dtype=F64)
    torch.testing.assert_close(geometric_mean(x, dim=0), expected)
    assert geometric_mean(torch.tensor([0.0, 1.0])).item() == pytest.approx(math.sqrt(1e-7))
    with pytest.raises(ValueError, match=r"-1.0 at index \(1,\)"):
        geometric_mean(torch.tensor([1.0, -1.0]))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_dtype_follows_the_input(dtype):
    x = torch.ones(3, 2, dtype=dtype)
    for value in (
        relative_deviation(x),
        mse(x, x),
        relative_state_error(x, x),
        geometric_mean(x),
        trajectory_distance(x, x),
    ):
        assert value.dtype == dtype
