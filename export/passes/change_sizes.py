"""How much an adapter changes: ‖ΔW‖ / ‖W‖ in Frobenius norms."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ...client.manifest import MergeReport
from ..errors import AdapterMismatchError, list_keys
from ..sources.references import AdapterReference
from ..sources.weights import Weights
from .tensor_change import TensorChange


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeSize:
    """Norms of one tensor and of its change."""

    tensor: str
    before: float
    change: float
    rounding: bool
    """Whether the change is only that of rounding."""

    @property
    def relative(self) -> float:
        """1 for a tensor without values before, such as a new head."""
        if self.before == 0.0:
            return 1.0 if self.change else 0.0
        return self.change / self.before


def measure_change(change: TensorChange, weights: Weights) -> ChangeSize:
    """Return the size of a change; raise AdapterMismatchError if it is not finite."""
    base = weights[change.target]
    size = change.norm(base)
    if not math.isfinite(size):
        raise AdapterMismatchError(
            f"{change.target} is not finite after the merge; is lora_alpha in adapter_config.json, or a weight, too "
            "large?"
        )
    before = base.norm()
    rounding = before > 0.0 and change.is_rounding(size / before)
    return ChangeSize(tensor=change.target, before=before, change=size, rounding=rounding)


def report_changes(
    reference: AdapterReference, measured: Sequence[ChangeSize], used: Collection[str] | None
) -> MergeReport:
    """Return the report of an adapter over the tensors that are `used`, or over all.

    Raises:
        AdapterMismatchError: It changes none of them.
    """
    if not any(size.change and not size.rounding for size in measured):
        raise AdapterMismatchError(
            f"adapter '{reference}' changes nothing: every B·A is zero; was it trained and saved?"
        )
    sizes = [size for size in measured if used is None or size.tensor in used]
    changed = [size for size in sizes if size.change]
    if not changed:
        raise AdapterMismatchError(
            f"adapter '{reference}' changes nothing that this model uses, only "
            f"{list_keys([size.tensor for size in measured if size.change])}; is it an adapter for another task?"
        )
    smallest, largest = min(sizes, key=lambda size: size.relative), max(sizes, key=lambda size: size.relative)
    known = [size for size in changed if size.before]
    return MergeReport(
        adapter=str(reference),
        changed=len(changed),
        unchanged=len(sizes) - len(changed),
        relative_change=_relative(known),
        smallest=smallest.relative,
        smallest_tensor=smallest.tensor,
        largest=largest.relative,
        largest_tensor=largest.tensor,
    )


def _relative(sizes: Sequence[ChangeSize]) -> float:
    """Return the relative change of all tensors together; 1 if there are only new ones."""
    before = math.hypot(*(size.before for size in sizes))
    return math.hypot(*(size.change for size in sizes)) / before if before else 1.0
