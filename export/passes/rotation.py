"""Orthogonal matrices that distribute each channel over all channels, applied factor by factor."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

_LARGEST_FACTOR = 64
"""4096 channels are rotated by two 64 × 64 products, which cost 1/32 of one 4096 × 4096 product."""
_ROWS_AT_A_TIME = 8192
"""Bounds the temporary memory: the embedding table of an 8B model has 2.5 GB."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """Q = diag(signs) · (F₁ ⊗ F₂ ⊗ …), float32 and orthogonal; rotates a row vector x to x · Q."""

    signs: torch.Tensor
    """[size], ±1."""
    factors: tuple[torch.Tensor, ...]
    """Orthogonal matrices; the product of their sizes is `size`."""

    @property
    def size(self) -> int:
        """Number of channels."""
        return len(self.signs)

    def rotate_rows(self, values: torch.Tensor) -> torch.Tensor:
        """Return values · Q for float32 `values` [rows, size]."""
        rotated = torch.empty_like(values)
        for first in range(0, len(values), _ROWS_AT_A_TIME):
            rows = slice(first, first + _ROWS_AT_A_TIME)
            rotated[rows] = self._rotate(values[rows])
        return rotated

    def _rotate(self, values: torch.Tensor) -> torch.Tensor:
        rotated: torch.Tensor = values * self.signs
        inner = self.size
        for factor in self.factors:
            inner //= len(factor)
            rotated = factor.T @ rotated.reshape(-1, len(factor), inner)
        return rotated.reshape(values.shape)

    def rotate_columns(self, values: torch.Tensor) -> torch.Tensor:
        """Return Qᵀ · values for float32 `values` [size, columns]."""
        return self.rotate_rows(values.T.contiguous()).T.contiguous()


def make_rotation(size: int, seed: int = 0) -> Rotation:
    """Return a randomised Hadamard matrix of `size`, or a random orthogonal matrix if there is no construction.

    Sylvester's matrices for powers of two, times one of Paley's (orders p + 1 and 2·(p + 1), p prime) for other
    sizes: Horadam, "Hadamard Matrices and Their Applications", 2007, chapter 2. Random signs prevent a correlation
    with patterns in the weights.
    """
    rng = torch.Generator().manual_seed(seed)
    odd, power = size, 1
    while odd % 2 == 0:
        odd, power = odd // 2, power * 2
    signs = torch.randint(0, 2, (size,), generator=rng).float() * 2 - 1
    if odd == 1:
        return Rotation(signs, tuple(_sylvester(power)))
    for even in (4, 8, 16, 32):
        paley = _paley(odd * even) if power % even == 0 else None
        if paley is not None:
            return Rotation(signs, (_orthogonal(paley), *_sylvester(power // even)))
    decomposition = torch.linalg.qr(torch.randn(size, size, generator=rng, dtype=torch.float64))
    return Rotation(signs, (decomposition.Q.float(),))


def _orthogonal(hadamard: torch.Tensor) -> torch.Tensor:
    return (hadamard.double() / math.sqrt(len(hadamard))).float()


def _sylvester(size: int) -> list[torch.Tensor]:
    """Return the factors of Sylvester's matrix of a power of two, none larger than _LARGEST_FACTOR."""
    factors = []
    while size > 1:
        part = min(size, _LARGEST_FACTOR)
        matrix = torch.ones(1, 1)
        while len(matrix) < part:
            matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
        factors.append(_orthogonal(matrix))
        size //= part
    return factors


def _paley(order: int) -> torch.Tensor | None:
    """Return a Hadamard matrix of `order` by one of Paley's constructions; None if neither has that order."""
    if _is_prime(order - 1) and (order - 1) % 4 == 3:
        core = _conference(order - 1, lower=-1)
        return core + torch.eye(order)
    half = order // 2
    if _is_prime(half - 1) and (half - 1) % 4 == 1:
        core = _conference(half - 1, lower=1)
        plus, minus = torch.tensor([[1.0, 1.0], [1.0, -1.0]]), torch.tensor([[1.0, -1.0], [-1.0, -1.0]])
        return torch.kron(core, plus) + torch.kron(torch.eye(half), minus)
    return None


def _conference(prime: int, lower: int) -> torch.Tensor:
    """Return [[0, 1], [lower, χ(i − j)]] with prime + 1 rows; χ is the quadratic character modulo `prime`."""
    squares = {value * value % prime for value in range(1, prime)}
    character = torch.tensor([0.0] + [1.0 if value in squares else -1.0 for value in range(1, prime)])
    index = torch.arange(prime)
    matrix = torch.zeros(prime + 1, prime + 1)
    matrix[0, 1:], matrix[1:, 0] = 1.0, float(lower)
    matrix[1:, 1:] = character[(index[:, None] - index[None, :]) % prime]
    return matrix


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))
