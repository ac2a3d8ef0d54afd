"""Rows of a group that begin alike compute these tokens once, and return the same bits."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray
from tiny_checkpoint import write_checkpoint
from watched_graph import group_nodes, run_watched
from written_graph import WrittenGraph, official_vectors, random_rows, write_graph

from qwen3_triton.client import Precision
from qwen3_triton.export.graph.group_cells import own_cells, share_cells
from qwen3_triton.export.graph.sharing import (
    ORDER_KEYS,
    TOPIC_ROWS,
    computed_tokens,
    count_shared,
    order_key,
    row_beginnings,
    row_topics,
)
from qwen3_triton.export.graph.tokens import PackedTokens
from qwen3_triton.export.onnx_builder import OPSET, GraphBuilder
from qwen3_triton.export.verification.parity import cosines

MAX_TOKENS = 512
PROMPT, QUERY, OTHER_QUERY = random_rows([20, 9, 9], seed=3)
INT64 = ir.DataType.INT64
Ints = NDArray[np.int64]


class Built:
    """A graph of integer inputs, run by ONNX Runtime."""

    def __init__(self, *names: str) -> None:
        self.g = GraphBuilder()
        self._inputs = {name: ir.Value(name=f"input.{name}", type=ir.TensorType(INT64)) for name in names}

    def __getitem__(self, name: str) -> ir.Value:
        return self._inputs[name]

    def run(self, outputs: dict[str, ir.Value], feeds: dict[str, Ints]) -> dict[str, Ints]:
        """Return the values of `outputs` by name."""
        named = []
        for name, value in outputs.items():
            output = self.g.op("Identity", value)
            output.name, output.type = f"output.{name}", ir.TensorType(INT64)
            named.append(output)
        graph = ir.Graph(
            list(self._inputs.values()),
            named,
            nodes=self.g.nodes,
            initializers=self.g.ordered_initializers(),
            opset_imports={"": OPSET},
            name="built",
        )
        model = ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString()
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        return dict(zip(outputs, session.run(None, {f"input.{name}": feeds[name] for name in feeds}), strict=True))


def common_tokens(row: list[int], other: list[int]) -> int:
    """Return the number of tokens with which both rows begin."""
    pairs = zip(row, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(row), len(other)))


def beginnings_of(rows: list[list[int]]) -> tuple[Built, ir.Value, dict[str, Ints]]:
    """Return a graph with the beginnings of `rows`, and its feeds."""
    lengths = np.array([len(row) for row in rows])
    built = Built("ids", "starts", "lengths")
    none: Any = None
    packed = PackedTokens(
        ids=built["ids"],
        row_starts=built["starts"],
        lengths=built["lengths"],
        **dict.fromkeys(("row_ends", "last_tokens", "row_is_good", "row_is_lost", "rank_of_row"), none),
    )
    value = row_beginnings(built.g, packed, built["starts"], built["lengths"])
    feeds = {"ids": np.concatenate(rows), "starts": np.cumsum(lengths) - lengths, "lengths": lengths}
    return built, value, feeds


def test_tokens_in_common_with_the_row_before_are_counted() -> None:
    a, b, c = random_rows([12, 12, 300], seed=1)
    rows = [a, [*a[:5], *b], a, a[:3], [*a[:3], *b], b, [9], [9], c, c, [*c[:200], 1]]
    built, beginnings, feeds = beginnings_of(rows)
    shared = built.run({"shared": count_shared(built.g, beginnings)}, feeds)["shared"]
    # 128 tokens are compared
    expected = [min(128, common_tokens(row, before)) for before, row in itertools.pairwise(rows)]
    assert shared.tolist() == [0, *expected]
    assert sorted(set(expected)) == [0, 1, 3, 5, 128]


def test_rows_that_begin_alike_have_a_topic() -> None:
    a, b, c, d = random_rows([20, 20, 20, 3], seed=2)
    rows = [row for number in range(TOPIC_ROWS - 1) for row in ([*a, number], d, [*c, number], [*b[:9], number])]
    rows += [a[:8], d, [*c[:7], 5], b, [*a[:7], 6]]
    built, beginnings, feeds = beginnings_of(rows)
    topics = built.run({"topics": row_topics(built.g, beginnings)}, feeds)["topics"].tolist()
    of_a, of_d, of_c, of_b = topics[:4]
    assert sorted((of_a, of_b, of_d)) == [1, 2, 3]
    assert of_c == 0
    assert topics == [*[of_a, of_d, 0, of_b] * (TOPIC_ROWS - 1), of_a, of_d, 0, of_b, 0]


def test_rows_are_ordered_by_topic_with_lengths_up_and_down() -> None:
    built = Built("topics", "lengths")
    key = order_key(built.g, built["topics"], built["lengths"])
    topics, lengths = [2, 0, 1, 1, 0, 2, 1], [5, 9, 2, 40, 3, 6, 30]
    keys = built.run({"key": key}, {"topics": np.array(topics), "lengths": np.array(lengths)})["key"]
    order = np.argsort(keys)
    assert [(topics[row], lengths[row]) for row in order] == [(0, 3), (0, 9), (1, 40), (1, 30), (1, 2), (2, 5), (2, 6)]
    assert keys.max() < ORDER_KEYS


def test_size_of_a_group_bounds_the_cells_of_rows_that_share_everything() -> None:
    built = Built("lengths", "shared")
    sizes = computed_tokens(built.g, built["lengths"], built["shared"])
    feeds = {"lengths": np.array([100, 100, 100, 3, 1]), "shared": np.array([0, 60, 100, 3, 1])}
    assert built.run({"sizes": sizes}, feeds)["sizes"].tolist() == [100, 40, 25, 1, 1]


@pytest.mark.parametrize("seed", range(6))
def test_cells_have_the_token_of_the_first_row_that_shares_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 9, rng.integers(1, 7))
    most = [8, *(min(pair) for pair in itertools.pairwise(lengths))]
    shared = np.array([rng.integers(0, length + 1) for length in most])
    built = Built("steps", "lengths", "shared")
    cells = share_cells(built.g, built["steps"], built["lengths"], built["shared"])
    width = int(lengths.max())
    feeds = {"steps": np.arange(width), "lengths": lengths[:, None], "shared": shared}
    outputs = {name: getattr(cells, name) for name in ("cell_of_token", "token_of_cell", "last_tokens")}
    found = built.run(outputs, feeds)
    grid = found["token_of_cell"]
    used = set()
    for row, length in enumerate(lengths):
        for column in range(width):
            place = min(column, length - 1)
            owner = row
            # the first row of a group computes everything, whatever it shares with a row of another group
            while owner > 0 and place < shared[owner]:
                owner -= 1
            token = grid[row, column]
            assert found["cell_of_token"][token] == owner * width + place
            used.add(int(token))
        assert found["last_tokens"][row] == grid[row, length - 1]
    assert used == set(range(len(found["cell_of_token"])))


def test_without_sharing_each_row_has_its_own_tokens() -> None:
    lengths = np.array([2, 2, 4])
    built = Built("steps", "lengths")
    cells = own_cells(built.g, built["steps"], built["lengths"])
    outputs = {name: getattr(cells, name) for name in ("cell_of_token", "token_of_cell", "last_tokens")}
    found = built.run(outputs, {"steps": np.arange(4), "lengths": lengths[:, None]})
    assert found["token_of_cell"].tolist() == [[0, 1, 1, 1], [2, 3, 3, 3], [4, 5, 6, 7]]
    assert found["cell_of_token"].tolist() == [0, 1, 4, 5, 8, 9, 10, 11]
    assert found["last_tokens"].tolist() == [1, 3, 7]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("sharing") / "checkpoint")


@pytest.fixture(scope="module", params=[Precision.FP32, Precision.INT8])
def plain(request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> WrittenGraph:
    """A graph that computes every token of every row."""
    return write_graph(folder, tmp_path_factory.mktemp("plain") / "graph", request.param, MAX_TOKENS)


@pytest.fixture(scope="module", params=[False, True], ids=["without prefix", "with prefix"])
def sharing(
    request: pytest.FixtureRequest, plain: WrittenGraph, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> WrittenGraph:
    """A graph whose rows share beginnings, of the same precision."""
    prefixes = [PROMPT, PROMPT[:5]] if request.param else []
    is_int8 = any(name.endswith(".codes") for name in ir.load(plain.file).graph.initializers)
    precision = Precision.INT8 if is_int8 else Precision.FP32
    output = tmp_path_factory.mktemp("sharing") / "graph"
    return write_graph(folder, output, precision, MAX_TOKENS, prefixes=prefixes, shares_beginnings=True)


def rows_of_queries() -> list[list[int]]:
    """Rows of two queries in turns, equal rows, rows that others begin with, and rows that share nothing."""
    tails = random_rows([2, 3, 5, 30, 31, 31, 60, 110, 129, 257, 300, 2, 4, 16, 130, 2], seed=5)
    rows = [[*PROMPT, *(QUERY, OTHER_QUERY)[place % 2], *tail] for place, tail in enumerate(tails)]
    rows += [rows[4], rows[4], [*rows[6][:-1]], rows[8][:100], [*rows[8], 1, 2], [*PROMPT, *QUERY], PROMPT]
    return [*rows, [7], [7], [7, 7], [7, 7, 7], *random_rows([2, 40, 40, 129, 384])]


def test_rows_have_the_same_bits(sharing: WrittenGraph, plain: WrittenGraph) -> None:
    rows = rows_of_queries()
    expected = plain.session.run_alone(rows)
    assert np.array_equal(sharing.session.run_alone(rows), expected)
    assert np.array_equal(sharing.session.run(rows), expected)
    assert np.array_equal(sharing.session.run(rows[::-1]), expected[::-1])


def test_many_equal_rows_have_the_same_bits(sharing: WrittenGraph, plain: WrittenGraph) -> None:
    [row] = random_rows([90], seed=9)
    expected = plain.session.run_alone([row, [*row, 5]])
    many = sharing.session.run([row, [*row, 5]] * 40)
    assert np.array_equal(many, np.tile(expected, (40, 1)))


def test_transformers_agrees(sharing: WrittenGraph, folder: Path) -> None:
    rows = rows_of_queries()
    is_int8 = any(name.endswith(".codes") for name in ir.load(sharing.file).graph.initializers)
    found = cosines(sharing.session.run(rows), official_vectors(folder, rows))
    assert found.min() > (0.99 if is_int8 else 1 - 1e-10)


def test_products_see_shared_tokens_once(sharing: WrittenGraph) -> None:
    """What is embedded in a group of passages of one query is the query, once, and each passage."""
    passages = random_rows([3, 4, 6, 9], seed=13)
    rows = [[*PROMPT, *QUERY, *passage] for passage in passages]
    [name] = [output for node in group_nodes(_loaded(sharing)) for output in node.output if output == "groups.ids"]
    embedded = run_watched(sharing.file, [name], rows)[name].tolist()
    stores_prompt = any(name.startswith("prefixes.") for name in ir.load(sharing.file).graph.initializers)
    once = QUERY if stores_prompt else [*PROMPT, *QUERY]
    assert sorted(embedded) == sorted([*once, *(token for passage in passages for token in passage)])


def _loaded(graph: WrittenGraph) -> Any:
    return onnx.load(graph.file, load_external_data=False)
