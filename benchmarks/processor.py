"""What the processor offers to the programs: instructions and cores."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_AVX512_CORE = frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl"})
_AVX2_VNNI_2 = frozenset({"avx_vnni_int8", "avx_ne_convert"})
_BF16 = frozenset({"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"})
_VNNI = frozenset({"avx512_vnni", "avx_vnni"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """Instructions and cores of a processor."""

    flags: frozenset[str]
    """Names of instruction sets as Linux writes them, such as avx2, avx512_bf16 or asimdhp."""
    threads_per_core: int = 1
    """Logical processors that share a core."""

    @property
    def is_arm(self) -> bool:
        """Whether it is an ARM processor."""
        return "asimd" in self.flags

    @property
    def has_bf16(self) -> bool:
        """Whether it has any instructions for bf16."""
        return bool(self.flags & _BF16)

    @property
    def has_vnni(self) -> bool:
        """Whether it multiplies 8-bit numbers and adds in 32 bits in one instruction, which cannot overflow."""
        return bool(self.flags & _VNNI)

    @property
    def has_avx512_core(self) -> bool:
        """Whether it has the extensions of AVX-512 that oneDNN summarizes as `avx512_core`."""
        return self.flags >= _AVX512_CORE

    @property
    def has_avx2_vnni_2(self) -> bool:
        """Whether it has what oneDNN summarizes as `avx2_vnni_2`: 16-bit floats without AVX-512."""
        return self.flags >= _AVX2_VNNI_2


def read_processor() -> Processor:
    """Describe this machine's processor."""
    return parse_processor(_CPUINFO.read_text(encoding="utf-8") if _CPUINFO.is_file() else "")


def parse_processor(info: str) -> Processor:
    """Describe the first processor in `info`, the text of /proc/cpuinfo."""
    first = info.partition("\n\n")[0].splitlines()
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first)}
    flags = fields.get("flags") or fields.get("Features") or ""
    siblings, cores = int(fields.get("siblings", "1")), int(fields.get("cpu cores", "1"))
    return Processor(flags=frozenset(flags.split()), threads_per_core=max(1, siblings // max(1, cores)))


def processors_by_core() -> list[int]:
    """Return the numbers of the logical processors that this process may use: one of each core, then the others."""
    taken: dict[str, int] = {}
    ranked = []
    for number in sorted(os.sched_getaffinity(0)):
        core = _core(number)
        ranked.append((taken.get(core, 0), number))
        taken[core] = taken.get(core, 0) + 1
    return [number for _, number in sorted(ranked)]


def _core(number: int) -> str:
    siblings = Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list")
    return siblings.read_text(encoding="ascii").strip() if siblings.is_file() else str(number)
