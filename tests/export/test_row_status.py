"""The output `row_status` of every kind of graph: valid, invalid and overflowed rows, alone and batched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
import pytest
import torch
from attention_functions import decompose
from numpy.typing import NDArray
from tiny_checkpoint import TinyCheckpoint, write_checkpoint
from written_graph import random_rows, write_graph

from qwen3_triton.client import Precision
from qwen3_triton.client.manifest import ROW_STATUS, RowStatus, Task
from qwen3_triton.export.architectures import EMBEDDINGS, SCORE_HEAD, DecoderConfig
from qwen3_triton.export.batching.inputs import batch_inputs
from qwen3_triton.export.graph import CudaProfile
from qwen3_triton.export.sources.weights import Weights, in_memory

# the table of embeddings in 8 bits
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered")

MAX_TOKENS = 64
VOCABULARY = 300
OVERFLOWING = 7
"""Id whose embedding is infinite."""
ZERO = 278
"""Id whose embedding is zero, as a new checkpoint's padding token has it: its final state alone is zero, too."""
GOOD = [[token for token in row if token not in (OVERFLOWING, ZERO)] for row in random_rows([3, 20, 5, 5, 41])]
BAD = [[], [-1, -1], [VOCABULARY], [5, 2**40], [1] * (MAX_TOKENS + 1)]
GRAPHS = {
    "fp32": (Precision.FP32, None),
    "fp16": (Precision.FP16, None),
    "int8": (Precision.INT8, None),
    "cuda fp32": (Precision.FP32, CudaProfile(cpu_twin=True)),
    "cuda fp16": (Precision.FP16, CudaProfile()),
    "cuda int8": (Precision.INT8, CudaProfile()),
}


@dataclass(frozen=True)
class Graph:
    """A session on a graph, and the name of its results."""

    session: onnxruntime.InferenceSession
    result: str

    def run(self, rows: Sequence[Sequence[int]]) -> tuple[NDArray[np.float32], list[int]]:
        """Return the results [rows, ·] and the status of each row."""
        results, status = self.session.run([self.result, ROW_STATUS], batch_inputs(rows))
        assert (status.dtype, status.shape) == (np.int32, (len(rows), 1))
        return results, status[:, 0].tolist()


def overflow(weights: Weights, config: DecoderConfig) -> Weights:
    """Return `weights` with an infinite embedding, one of zeros, and a score head."""

    def change(values: torch.Tensor) -> torch.Tensor:
        values = values.clone()
        values[OVERFLOWING] = torch.inf
        values[ZERO] = 0
        return values

    head = torch.linspace(-1, 1, config.hidden).reshape(1, -1)
    return {**weights, EMBEDDINGS: weights[EMBEDDINGS].changed(change), SCORE_HEAD: in_memory(head)}


@pytest.fixture(scope="module", params=GRAPHS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module", params=Task)
def graph(kind: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Graph:
    precision, profile = GRAPHS[kind]
    folder = tmp_path_factory.mktemp("status")
    source = write_checkpoint(folder / "tiny", TinyCheckpoint())
    written = write_graph(
        source, folder / "out", precision, MAX_TOKENS, change=overflow, cuda=profile, task=request.param
    )
    file = written.file if profile is None else decompose(written.file)
    return Graph(onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]), request.param.output)


def test_status_of_rows_alone_and_in_one_batch(graph: Graph) -> None:
    overflowing = [[OVERFLOWING], [3, OVERFLOWING, 5, 9], [*GOOD[1], OVERFLOWING]]
    cases = [
        *((row, RowStatus.VALID) for row in GOOD),
        *((row, RowStatus.INVALID) for row in (*BAD, *overflowing)),
    ]
    order = np.random.default_rng(5).permutation(len(cases)).tolist()
    batch = [cases[index] for index in order]
    results, together = graph.run([row for row, _ in batch])
    assert together == [status for _, status in batch]
    assert np.isnan(results).all(axis=1).tolist() == [status is not RowStatus.VALID for _, status in batch]
    for row, status in cases:
        assert graph.run([row])[1] == [status]


def test_a_final_state_of_zeros_is_valid(graph: Graph) -> None:
    rows = [GOOD[0], [ZERO], GOOD[1], [ZERO, ZERO, ZERO], [ZERO, 5]]
    results, status = graph.run(rows)
    assert status == [RowStatus.VALID] * len(rows)
    # the score of a logit of zero, or a vector that has no direction
    zero = 0.5 if graph.result == Task.RERANK.output else 0.0
    assert [bool((row == zero).all()) for row in results] == [False, True, False, True, False]
    for row in rows[1:4:2]:
        assert (graph.run([row])[0] == zero).all()
    others = np.delete(results, [1, 3], axis=0)
    np.testing.assert_allclose(others, graph.run([GOOD[0], GOOD[1], [ZERO, 5]])[0], atol=1e-3)


def test_results_do_not_depend_on_the_outputs_requested(graph: Graph) -> None:
    feed = batch_inputs([*GOOD, *BAD])
    results, status = graph.run([*GOOD, *BAD])
    np.testing.assert_array_equal(graph.session.run([graph.result], feed)[0], results)
    assert graph.session.run([ROW_STATUS], feed)[0][:, 0].tolist() == status
    assert [output.name for output in graph.session.get_outputs()] == [graph.result, ROW_STATUS]
