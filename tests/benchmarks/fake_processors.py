"""Descriptions of processors of several generations."""

from __future__ import annotations

from benchmarks.processor import Processor

_AVX2 = frozenset({"avx2", "fma", "f16c"})
_AVX512 = _AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl"}
HASWELL = Processor(flags=_AVX2)
"""Without AVX-512."""
SKYLAKE = Processor(flags=_AVX512, threads_per_core=2)
"""AVX-512 without instructions for bf16 and 8 bits."""
CASCADE_LAKE = Processor(flags=_AVX512 | {"avx512_vnni"})
ZEN_4 = Processor(flags=_AVX512 | {"avx512_vnni", "avx512_bf16"})
SAPPHIRE_RAPIDS = Processor(
    flags=_AVX512 | {"avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8", "amx_tile"}
)
GRAVITON_3 = Processor(flags=frozenset({"asimd", "asimdhp", "bf16", "i8mm", "sve"}))
