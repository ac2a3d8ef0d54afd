"""Settings that are scanned for each contender on processors of several generations."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from fake_processors import CASCADE_LAKE, GRAVITON_3, HASWELL, SAPPHIRE_RAPIDS, SKYLAKE, ZEN_4

from benchmarks.contenders import ALL, llama_cpp, openvino, optimum, ours, sentence_transformers, transformers_reranker
from benchmarks.contenders.contender import Contender, RunContext, prepare_all
from benchmarks.contenders.peer_environment import InstalledPeer, PeerEnvironment
from benchmarks.processor import Processor
from qwen3_triton.client.manifest import Task

Prepared = dict[tuple[Task, str], list[Contender]]


@pytest.fixture(autouse=True)
def no_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Replace environments, exports and checkpoints by paths; no worker starts before it is used."""
    monkeypatch.setattr(PeerEnvironment, "build", lambda *_: InstalledPeer(tmp_path))
    for module in (llama_cpp, openvino, optimum, sentence_transformers):
        monkeypatch.setattr(module, "write_once", lambda folder, _write: folder)
    for module in (openvino, optimum, sentence_transformers):
        monkeypatch.setattr(module, "cached_classifier", lambda *_: tmp_path)
    for module in (llama_cpp, transformers_reranker):
        monkeypatch.setattr(module, "cached_reranker", lambda *_: tmp_path)
        monkeypatch.setattr(module, "answer_ids", lambda _: {"no": 1, "yes": 2})
    monkeypatch.setattr(ours, "export_graph", lambda *_, **__: tmp_path)
    (tmp_path / ours.MODEL_NAME / "1").mkdir(parents=True)


def _prepare(processor: Processor, folder: Path, *, threads: int = 4, tries_layouts: bool = True) -> Prepared:
    found: Prepared = {}
    with ExitStack() as cleanup:
        context = RunContext(
            checkpoint=folder,
            cache=folder,
            threads=threads,
            max_tokens=9,
            log=lambda _: None,
            cleanup=cleanup,
            processor=processor,
            tries_layouts=tries_layouts,
        )
        for recipe in ALL:
            prepared = prepare_all([recipe], context)
            assert not prepared.not_measured
            found[recipe.task, recipe.program] = prepared.contenders
    return found


@pytest.fixture
def zen_4(tmp_path: Path) -> Prepared:
    return _prepare(ZEN_4, tmp_path)


def _options(prepared: Prepared, program: str, task: Task = Task.EMBED) -> list[str]:
    """Return the options in the default layout."""
    return [contender.options for contender in prepared[task, program] if contender.refines is None]


@pytest.mark.parametrize(
    ("processor", "precisions"),
    [
        (HASWELL, ["f32"]),
        # AVX-512 alone computes in bf16 with conversions, which the scan must compare with f32
        (SKYLAKE, ["f32", "bf16"]),
        (CASCADE_LAKE, ["f32", "bf16"]),
        (ZEN_4, ["bf16", "f32"]),
        (SAPPHIRE_RAPIDS, ["f16", "bf16", "f32"]),
        (GRAVITON_3, ["f16", "f32"]),
    ],
    ids=["haswell", "skylake", "cascade-lake", "zen-4", "sapphire-rapids", "graviton-3"],
)
@pytest.mark.parametrize("task", Task)
def test_openvino_is_tried_in_every_precision_that_the_processor_supports(
    processor: Processor, precisions: list[str], task: Task, tmp_path: Path
) -> None:
    prepared = _prepare(processor, tmp_path, tries_layouts=False)
    assert _options(prepared, "OpenVINO unquantized", task) == precisions
    assert _options(prepared, "OpenVINO int8 weights", task) == [
        *(f"{precision}, groups of {group}" for group in (128, 32) for precision in precisions),
        *precisions,
    ]


@pytest.mark.parametrize(
    ("processor", "weights"),
    [(SKYLAKE, ["F16", "F32", "BF16"]), (ZEN_4, ["BF16", "F16", "F32"]), (GRAVITON_3, ["BF16", "F16", "F32"])],
    ids=["skylake", "zen-4", "graviton-3"],
)
@pytest.mark.parametrize("task", Task)
def test_llama_cpp_is_tried_with_every_type_of_weights_and_cache(
    processor: Processor, weights: list[str], task: Task, tmp_path: Path
) -> None:
    prepared = _prepare(processor, tmp_path, tries_layouts=False)
    caches = ["one cache per sequence", "one shared cache", "one shared cache with the common prefix kept"]
    assert _options(prepared, "llama.cpp unquantized", task) == [
        f"{each}, {cache}" for each in weights for cache in caches
    ]
    for program in ("llama.cpp Q8_0", "llama.cpp Q4_0"):
        assert _options(prepared, program, task) == caches
        assert [each.needs_common_prefix for each in prepared[task, program]] == [False, False, True]


@pytest.mark.parametrize(
    ("processor", "kinds", "bits"),
    [
        # without VNNI, products of 8-bit numbers may overflow, and graphs that prevent it must be tried
        (SKYLAKE, ["avx2", "avx512_vnni"], ["7-bit weights", ""]),
        (HASWELL, ["avx2", "avx512_vnni"], ["7-bit weights", ""]),
        (ZEN_4, ["avx512_vnni", "avx2"], [""]),
        (GRAVITON_3, ["arm64"], [""]),
    ],
    ids=["skylake", "haswell", "zen-4", "graviton-3"],
)
@pytest.mark.parametrize("task", Task)
def test_quantized_onnx_graphs_are_tried_in_every_kind_for_the_processor(
    processor: Processor, kinds: list[str], bits: list[str], task: Task, tmp_path: Path
) -> None:
    prepared = _prepare(processor, tmp_path, tries_layouts=False)
    note = ", position_ids added by the caller" if task is Task.EMBED else ""
    assert _options(prepared, "sentence-transformers ONNX int8", task) == [f"{kind}{note}" for kind in kinds]
    assert _options(prepared, "optimum int8", task) == bits


@pytest.mark.parametrize("task", Task)
def test_torch_is_tried_in_fp32_and_bf16_compiled_and_not_on_every_processor(task: Task, tmp_path: Path) -> None:
    for processor in (HASWELL, SAPPHIRE_RAPIDS):
        prepared = _prepare(processor, tmp_path, tries_layouts=False)
        for precision in ("fp32", "bf16"):
            for suffix in ("", ", torch.compile"):
                assert _options(prepared, f"transformers {precision}{suffix}", task) == [""]
            assert (task, f"sentence-transformers {precision}") in prepared


def test_every_program_is_tried_in_batches_of_1_to_32_rows(zen_4: Prepared) -> None:
    for contenders in zen_4.values():
        for contender in contenders:
            sizes = [setting.batch_rows for setting in contender.settings(256)]
            expected = [256, 1, 2, 4, 8, 16, 32]
            assert sizes == [size for size in expected if -(-256 // size) >= contender.copies]


def test_every_program_is_tried_in_the_same_layouts(zen_4: Prepared) -> None:
    copies = ["2 copies, 2 threads each", "4 copies, 1 thread each"]
    threads = ["4 threads, pinned", *copies, "2 threads", "1 thread"]
    for (_, program), contenders in zen_4.items():
        for base in [contender for contender in contenders if contender.refines is None]:
            refined = [contender.options for contender in contenders if contender.refines == base.options]
            compiled = program.endswith("torch.compile")
            own = [layout for layout in threads if not (compiled and layout in copies)]
            own = [*own, "throughput hint"] if program.startswith("OpenVINO") else own
            assert refined == [", ".join(part for part in (base.options, layout) if part) for layout in own]


def test_quick_runs_and_gpus_have_no_other_layouts(tmp_path: Path) -> None:
    for contenders in _prepare(ZEN_4, tmp_path, tries_layouts=False).values():
        assert all(contender.refines is None for contender in contenders)
