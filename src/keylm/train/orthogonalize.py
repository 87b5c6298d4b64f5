"""Orthogonalization of matrices by products alone, as Muon needs it: two polynomials of degree nine.

Muon's own iteration (Jordan et al. 2024) takes five polynomials of degree five. A polynomial of degree nine costs one
small square product more than one of degree five, and two of them lift a singular value as far as three of those. Each
is the best of its degree for what the one before it leaves, as in Polar Express (Amsel et al. 2025, arXiv:2505.16932).
In the first steps of a training a few singular values dominate: such matrices are lifted once more.

They are written as `x * q(x^2)` with `q` a product of quadratics, since bfloat16 is precise enough for the factors, but
not for the powers of `x` times the coefficients of the expanded polynomial, which are as large as 500.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from keylm.common.hardware import compute_dtype


@dataclass(frozen=True)
class _Polynomial:
    """`x * s * (x^4 + a1 * x^2 + b1) * s * (x^4 + a2 * x^2 + b2)`, with `s` the scale and `(a, b)` the factors."""

    scale: float
    factors: tuple[tuple[float, float], tuple[float, float]]


# Remez: nearest to 1 on [0.0125, 1], and on the interval where that ends, [0.17, 1.83], with 3% above it for rounding.
_FIRST = _Polynomial(15.3543, ((-0.52644, 0.072857), (-1.77855, 0.792756)))
_SECOND = _Polynomial(0.5605, ((-1.86566, 1.28226), (-6.54687, 10.937647)))
# The first polynomial rises steeply behind 1, and rounding moves the largest singular value by up to half a percent.
_NORM_MARGIN = 1.02
# Below it, squares of the entries are lost in float32, the norm comes out too small, and the matrix would overflow.
# Singular values below 3e-8 are therefore not brought up to 1, and zeros stay zeros.
_MIN_NORM = 1e-15
# A root mean square of lifted singular values below this means that most are still small. A matrix that has half of its
# directions for good, at 1, and none of the others, has 0.71, and is not lifted again.
_WIDE = 0.55


@dataclass
class Workspace:
    """Memory that calls use again: it grows in the first ones, and no later call allocates any."""

    device: torch.device
    _buffers: dict[str, Tensor] = field(default_factory=dict)

    def take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """An uninitialized tensor in the dtype of the products. It is valid until `name` is taken again."""
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < math.prod(shape):
            buffer = torch.empty(math.prod(shape), dtype=compute_dtype("auto", self.device), device=self.device)
            self._buffers[name] = buffer
        return buffer[: math.prod(shape)].view(shape)


def orthogonalize(matrices: Tensor) -> Tensor:
    """Approximate the nearest orthogonal matrix to each of (n, rows, columns).

    Singular values of at least 1/80 of the matrix's Schatten-4 norm (the fourth root of the sum of their fourth powers)
    end between 0.7 and 1.3, and smaller ones at 60 times their share of it or more; in bfloat16, within a tenth of
    that. This trains as well as 1 does.

    Returns:
        (n, rows, columns) in bfloat16, or in float32 on processors without bfloat16 instructions, where bfloat16
        products take 35 times as long.
    """
    workspace = Workspace(matrices.device)
    return orthogonalize_(workspace.take("matrices", tuple(matrices.shape)).copy_(matrices), workspace)


def orthogonalize_(matrices: Tensor, workspace: Workspace) -> Tensor:
    """`orthogonalize` in place, for matrices in the dtype of the workspace, and without allocating."""
    lifted = workspace.take("lifted", tuple(matrices.shape))
    _apply(_FIRST, matrices, lifted, workspace, normalize=True)
    wide = (_frobenius_norms(lifted) < _WIDE * math.sqrt(min(matrices.shape[1:]))).flatten().nonzero()[:, 0]
    if len(wide):
        # The input has served, so its memory can take the copy.
        again = torch.index_select(lifted, 0, wide, out=matrices[: len(wide)])
        out = workspace.take("lifted again", tuple(again.shape))
        _apply(_FIRST, again, out, workspace, normalize=True)
        lifted.index_copy_(0, wide, out)
    _apply(_SECOND, lifted, matrices, workspace, normalize=False)
    return matrices


def _apply(polynomial: _Polynomial, x: Tensor, out: Tensor, workspace: Workspace, normalize: bool) -> None:
    """Write to `out` the polynomial of `x`'s singular values, which `normalize` brings to at most 1 before."""
    n, rows, columns = x.shape
    is_tall = rows > columns
    # The Gram matrix of the shorter side is the smaller one.
    gram, left, right = (workspace.take(name, (n, *2 * (min(rows, columns),))) for name in ("gram", "left", "right"))
    torch.bmm(x.mT if is_tall else x, x if is_tall else x.mT, out=gram)
    scale = _normalize_(gram) if normalize else None
    (a1, b1), (a2, b2) = polynomial.factors
    # Completing the square, G^2 + a G + b = (G + a/2)^2 + b - a^2/4, spares a pass over the matrix.
    gram.diagonal(dim1=1, dim2=2).add_(a1 / 2)
    left.baddbmm_(gram, gram, beta=0, alpha=polynomial.scale)
    torch.add(left, gram, alpha=polynomial.scale * (a2 - a1), out=right)
    left.diagonal(dim1=1, dim2=2).add_(polynomial.scale * (b1 - a1**2 / 4))
    right.diagonal(dim1=1, dim2=2).add_(polynomial.scale * (b2 - a1 / 2 * (a2 - a1 / 2)))
    if scale is not None:
        left.mul_(scale)
    # Rounding makes the product slightly asymmetric. `left` meets `x` last: small values then keep more precision.
    if is_tall:
        torch.bmm(x, torch.bmm(right, left, out=gram), out=out)
    else:
        torch.bmm(torch.bmm(left, right, out=gram), x, out=out)


def _normalize_(gram: Tensor) -> Tensor:
    """Divide Gram matrices by their Frobenius norms, and return what the matrices they are of must be multiplied by.

    The norm of a Gram matrix is the square of the Schatten-4 norm. Like the Frobenius norm that Muon divides by, that
    bounds the largest singular value, but it is up to four times as near for a matrix of 512 rows.
    """
    norms = _frobenius_norms(gram).clamp_(min=_MIN_NORM).mul_(_NORM_MARGIN)
    # Rounded before its root is taken, so that both factors agree.
    factors = norms.reciprocal_().to(gram.dtype)
    gram.mul_(factors)
    return torch.sqrt(factors)


def _frobenius_norms(matrices: Tensor) -> Tensor:
    """The Frobenius norm of each of (n, rows, columns): (n, 1, 1), float32."""
    # Rows first: a sum over a whole matrix would be split by the number of threads.
    row_norms = torch.linalg.vector_norm(matrices, dim=2, keepdim=True)
    norms: Tensor = torch.linalg.vector_norm(row_norms, dim=1, keepdim=True, dtype=torch.float32)
    return norms
