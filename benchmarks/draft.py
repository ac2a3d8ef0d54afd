"""A comparison in progress, which can be saved at any time."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from .measurement import SelectedSetting, Timings
from .record import Comparison, CopyProbe, Entry, MatmulProbe, Sample, WorkloadInfo
from .roofline import COPIED_BYTES, COPY_PROBE


@dataclass(slots=True, kw_only=True)
class Draft:
    """What has been measured on one workload so far."""

    workload: WorkloadInfo
    scanned_texts: int
    """Texts on which settings are ranked."""
    probe_flops: int
    """Additions and multiplications per sample of a matmul probe."""
    load_average: float
    """One-minute load average before the first measurement."""
    selected: list[SelectedSetting] = field(default_factory=list)
    not_measured: dict[str, str] = field(default_factory=dict)
    """Program, probe or profile → reason."""
    probes: list[str] = field(default_factory=list)
    """Kinds of the probes that are timed."""
    timings: Timings | None = None
    """Samples of the selected settings, then of the probes; None before the first repetition is complete."""
    profile_us: dict[str, dict[str, int]] = field(default_factory=dict)

    def comparison(self) -> Comparison:
        """Return the comparison so far, without contenders and probes that failed.

        Before the first repetition, each entry has one sample, the shortest pass of its setting's scan; there are no
        entries if the scan was of a sample of the texts.
        """
        timings = self.timings or self._scanned()
        selected = self.selected if self.timings or self.scanned_texts == self.workload.texts else []
        probed = {
            kind: tuple(samples)
            for kind, samples in zip(self.probes, timings.samples[len(self.selected) :], strict=False)
            if probe_name(kind) not in self.not_measured
        }
        return Comparison(
            workload=self.workload if self.timings else dataclasses.replace(self.workload, passes=1),
            entries=tuple(
                _entry(chosen, timings.warmups[index], timings.samples[index])
                for index, chosen in enumerate(selected)
                if chosen.program not in self.not_measured
            ),
            scanned_texts=self.scanned_texts,
            not_measured=dict(self.not_measured),
            matmuls=tuple(
                MatmulProbe(program=kind, flops=self.probe_flops, samples=samples)
                for kind, samples in probed.items()
                if kind != COPY_PROBE
            ),
            memory_copies=tuple(
                CopyProbe(program=kind, bytes=2 * COPIED_BYTES, samples=samples)
                for kind, samples in probed.items()
                if kind == COPY_PROBE
            ),
            profile_us=dict(self.profile_us),
            load_average=tuple(timings.load_average),
        )

    def _scanned(self) -> Timings:
        return Timings(
            warmups=[[] for _ in self.selected],
            samples=[[_shortest_pass(chosen)] for chosen in self.selected],
            load_average=[self.load_average],
        )


def probe_name(kind: str) -> str:
    """Return the name of a probe in `not_measured`."""
    return kind if kind == COPY_PROBE else f"matmul probe {kind}"


def _shortest_pass(chosen: SelectedSetting) -> Sample:
    samples = next(scan.samples for scan in chosen.scan if scan.setting == chosen.setting.name)
    return min(samples, key=lambda sample: sample.wall_s)


def _entry(chosen: SelectedSetting, warmups: list[Sample], samples: list[Sample]) -> Entry:
    reference, batched = chosen.reference_parity, chosen.batched_parity
    return Entry(
        program=chosen.program,
        setting=chosen.setting.name,
        versions=chosen.setting.contender.engine.versions,
        arithmetic=chosen.setting.contender.arithmetic,
        min_cosine=reference.min_cosine,
        batched_cosine=batched.min_cosine if batched else None,
        max_score_error=reference.max_score_error,
        batched_score_error=batched.max_score_error if batched else None,
        warmups=tuple(warmups),
        samples=tuple(samples),
        scan=chosen.scan,
        untried=chosen.untried,
    )
