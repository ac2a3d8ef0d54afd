"""Orthogonal matrices that distribute each channel over all channels, applied factor by factor."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

_LARGEST_FACTOR = 128
"""4096 channels are rotated by two 64 × 64 products, which cost 1/32 of one 4096 × 4096 product."""
_PART = 1 << 22
"""Values that are rotated at a time, 16 MB: bounds the temporary memory."""


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
        count = max(1, _PART // self.size)
        for first in range(0, len(values), count):
            rows = slice(first, first + count)
            rotated[rows] = self._rotate(values[rows][:, :, None])[:, :, 0]
        return rotated

    def rotate_columns(self, values: torch.Tensor) -> torch.Tensor:
        """Return Qᵀ · values for float32 `values` [size, columns]."""
        rotated = torch.empty_like(values)
        count = max(1, _PART // self.size)
        for first in range(0, values.shape[1], count):
            columns = slice(first, first + count)
            rotated[:, columns] = self._rotate(values[None, :, columns])[0]
        return rotated

    def _rotate(self, values: torch.Tensor) -> torch.Tensor:
        """Rotate the middle dimension of `values` [rows, size, columns]."""
        rotated: torch.Tensor = values * self.signs[:, None]
        inner = self.size * values.shape[2]
        for factor in self.factors:
            inner //= len(factor)
            if inner == 1:
                # one product of matrices instead of one of a matrix and a vector for each row
                rotated = rotated.reshape(-1, len(factor)) @ factor
            else:
                rotated = factor.T @ rotated.reshape(-1, len(factor), inner)
        return rotated.reshape(values.shape)


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
    """Return factors of Sylvester's matrix of a power of two: one, or as many of similar sizes as are needed."""
    if size == 1:
        return []
    exponent = size.bit_length() - 1
    count = -(-exponent // (_LARGEST_FACTOR.bit_length() - 1))
    return [_hadamard(exponent // count + int(index < exponent % count)) for index in range(count)]


def _hadamard(exponent: int) -> torch.Tensor:
    """Return Sylvester's matrix of size 2^exponent, orthogonal."""
    matrix = torch.ones(1, 1)
    for _ in range(exponent):
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return _orthogonal(matrix)


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
