"""FLOPs that a workload needs."""

from __future__ import annotations

import dataclasses

from benchmarks.model_shape import SHAPES
from benchmarks.roofline import layer_flops, needed_flops


def test_layer_needs_two_operations_per_weight_and_token() -> None:
    weights = 1024 * (2048 + 2 * 1024) + 2048 * 1024 + 3 * 1024 * 3072
    assert layer_flops(SHAPES["0.6b"], 10) == 2 * 10 * weights


def test_last_layer_needs_keys_and_values_of_all_tokens_and_the_rest_of_last_tokens_only() -> None:
    one = dataclasses.replace(SHAPES["0.6b"], layers=1)
    keys_and_values = 2 * 1024 * (2 * 8 * 128)
    rest = layer_flops(one, 1) - keys_and_values
    assert needed_flops(one, [[1] * 7, [1] * 3]) == 10 * keys_and_values + 2 * rest
    two = dataclasses.replace(one, layers=2)
    assert needed_flops(two, [[1] * 7, [1] * 3]) - needed_flops(one, [[1] * 7, [1] * 3]) == layer_flops(one, 10)


def test_one_token_needs_every_weight_once() -> None:
    assert needed_flops(SHAPES["tiny"], [[1]]) == 2 * layer_flops(SHAPES["tiny"], 1)
