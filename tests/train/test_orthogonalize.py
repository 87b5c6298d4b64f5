"""Orthogonalization against the polar factor of an exact singular value decomposition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from keylm.train.orthogonalize import Workspace, orthogonalize, orthogonalize_

_SHAPES = st.sampled_from([(24, 24), (16, 40), (40, 16), (1, 8), (64, 64)])


def matrix_of(singular_values: Tensor, rows: int, columns: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A matrix (1, rows, columns) with these singular values, and its singular vectors, in float64."""
    generator = torch.Generator().manual_seed(seed)
    left, right = (
        torch.linalg.qr(torch.randn(size, len(singular_values), dtype=torch.float64, generator=generator))[0]
        for size in (rows, columns)
    )
    return (left * singular_values @ right.mT)[None], left, right


@given(shape=_SHAPES, seed=st.integers(0, 1000), smallest=st.floats(0.03, 1), scale=st.sampled_from([1e-6, 1.0, 1e4]))
def test_singular_values_end_near_one(shape: tuple[int, int], seed: int, smallest: float, scale: float) -> None:
    values = torch.logspace(0, 1, min(shape), base=smallest, dtype=torch.float64)
    values /= values.pow(4).sum() ** 0.25
    values = values[values >= 1 / 80]
    matrix, left, right = matrix_of(values, *shape, seed)
    result = orthogonalize((scale * matrix).float())[0].double()
    # Rounding to bfloat16 moves both ends by up to a tenth, and mixes neighboring vectors a little.
    in_basis = left.mT @ result @ right
    assert in_basis.diagonal().min() > 0.6
    assert torch.linalg.svdvals(in_basis).max() < 1.36
    off_diagonal = in_basis - torch.diag(in_basis.diagonal())
    assert off_diagonal.norm() <= 0.05 * in_basis.norm()


@given(seed=st.integers(0, 1000), rank=st.integers(1, 8))
def test_directions_without_gradient_stay_small(seed: int, rank: int) -> None:
    values = torch.zeros(24, dtype=torch.float64)
    values[:rank] = 1
    matrix, left, right = matrix_of(values, 24, 24, seed)
    result = orthogonalize(matrix.float())[0].double()
    in_basis = left.mT @ result @ right
    # What is there is the rounding of the input to bfloat16. Muon's own iteration lifts it to half a singular value.
    assert torch.linalg.svdvals(in_basis[rank:, rank:])[0] < 1.1


def test_most_of_a_wide_spectrum_is_lifted() -> None:
    # As in the first steps of a training: a few singular values are a hundred times the others.
    values = torch.cat([torch.tensor([1.0, 0.5, 0.2, 0.1]), torch.linspace(0.01, 0.005, 60)]).double()
    matrix, left, right = matrix_of(values, 64, 160, seed=0)
    in_basis = left.mT @ orthogonalize(matrix.float())[0].double() @ right
    assert in_basis.diagonal().min() > 0.6


def test_zeros_stay_zeros() -> None:
    assert not orthogonalize(torch.zeros(2, 8, 12)).any()


@given(seed=st.integers(0, 1000), exponent=st.floats(-40, 7))
def test_no_size_of_gradient_makes_it_overflow(seed: int, exponent: float) -> None:
    """A model whose outputs begin at zero has gradients of any size in its first steps."""
    matrix = torch.randn(1, 64, 160, generator=torch.Generator().manual_seed(seed)) * 10.0**exponent
    singular_values = torch.linalg.svdvals(orthogonalize(matrix).float())
    assert singular_values.max() < 1.5
    assert singular_values.min() > 0.6 or exponent < -8


def test_a_workspace_changes_no_bits() -> None:
    workspace = Workspace(torch.device("cpu"))
    small, large = torch.randn(2, 16, 24), torch.randn(3, 40, 24)
    for matrices in (large, small, large, small):
        own = workspace.take("matrices", tuple(matrices.shape)).copy_(matrices)
        assert torch.equal(orthogonalize_(own, workspace), orthogonalize(matrices))


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    matrices, threads = torch.randn(3, 256, 640), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = orthogonalize(matrices)
        torch.set_num_threads(2)
        assert torch.equal(orthogonalize(matrices), alone)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("position", [0, 1])
def test_matrices_of_a_batch_are_independent(position: int) -> None:
    matrices = torch.randn(2, 16, 24)
    assert torch.equal(orthogonalize(matrices)[position], orthogonalize(matrices[position : position + 1])[0])
