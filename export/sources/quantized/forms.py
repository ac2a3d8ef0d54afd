"""The forms of quantized checkpoints, by `quant_method`, and what an export does with each.

The page "What is read from a checkpoint" of the documentation is generated from the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ...errors import UnsupportedCheckpointError, list_keys
from ..stated_numbers import shorten
from ..weights import FLOATS, LazyTensor, Weights
from .packed_codes import dequantize_awq, dequantize_gptq
from .quantization import Quantization
from .scaled_codes import dequantize_compressed, dequantize_fp8, has_whole_blocks

QUANTIZATION_KEYS = ("quantization_config", "compression_config")
"""Keys of config.json."""
EXPORT_ORIGINAL = "export the checkpoint that it was made from"


class FormTreatment(StrEnum):
    """What an export does with a form of quantized checkpoint."""

    DEQUANTIZED = "dequantized"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedForm:
    """One form of quantized checkpoint."""

    name: str
    methods: tuple[str, ...]
    """Values of `quant_method`."""
    note: str
    """What is dequantized, or what to do instead."""
    dequantize: Callable[[Quantization], dict[str, LazyTensor]] | None = None
    """Returns tensors under the names of an unquantized checkpoint; None if the form is rejected."""
    transformers_agrees: Callable[[Quantization], bool] = lambda _: False
    """Whether transformers computes with the same weights where there is no GPU."""

    @property
    def treatment(self) -> FormTreatment:
        """What an export does with the form."""
        return FormTreatment.REJECTED if self.dequantize is None else FormTreatment.DEQUANTIZED


_OTHERS = QuantizedForm(name="others", methods=(), note=EXPORT_ORIGINAL)

QUANTIZED_FORMS = (
    QuantizedForm(
        name="FP8",
        methods=("fp8",),
        note="`weight` · `weight_scale_inv`, which has a scale for each block of `weight_block_size`",
        dequantize=dequantize_fp8,
        transformers_agrees=has_whole_blocks,
    ),
    QuantizedForm(
        name="compressed-tensors",
        methods=("compressed-tensors",),
        note="`weight` · `weight_scale` in the formats float-quantized, int-quantized and pack-quantized (2, 4 and 8 "
        "bits); not with zero points or `weight_g_idx`",
        dequantize=dequantize_compressed,
    ),
    QuantizedForm(
        name="GPTQ",
        methods=("gptq",),
        note="2, 4 and 8 bits in the formats gptq and gptq_v2",
        dequantize=dequantize_gptq,
    ),
    QuantizedForm(name="AWQ", methods=("awq",), note="4 bits in the layout gemm", dequantize=dequantize_awq),
    QuantizedForm(
        name="bitsandbytes",
        methods=("bitsandbytes",),
        note=f"{EXPORT_ORIGINAL}, or save it with transformers after model.dequantize(): "
        "model.save_pretrained(..., save_original_format=False)",
    ),
    _OTHERS,
)
"""Forms in the order of the documentation page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedQuantization:
    """The quantization that a config.json states."""

    form: QuantizedForm
    settings: Mapping[str, Any]
    where: str
    """Names the settings in errors."""

    def dequantize(self, stored: Weights) -> dict[str, LazyTensor]:
        """Return `stored` with fp32 weights, computed on read, in place of codes, scales and zero points.

        Raises:
            UnsupportedCheckpointError: Tensors do not fit the settings, remain in codes, or none is quantized.
        """
        if self.form.dequantize is None:
            raise ValueError(f"{self.form.name} is not dequantized")
        weights = self.form.dequantize(self._of(stored))
        if weights == stored:
            raise UnsupportedCheckpointError(f"{self.where}: no weight is quantized; remove it if that is right")
        codes = [name for name, tensor in weights.items() if tensor.dtype not in FLOATS.values()]
        if codes:
            raise UnsupportedCheckpointError(
                f"{self.where}: tensors in codes that {self.form.name} does not have: {list_keys(codes)}"
            )
        return weights

    def transformers_agrees(self, stored: Weights) -> bool:
        """Whether transformers computes with the weights that `dequantize` returns where there is no GPU."""
        return self.form.transformers_agrees(self._of(stored))

    def _of(self, stored: Weights) -> Quantization:
        return Quantization(tensors=stored, settings=self.settings, where=self.where)


def find_quantization(raw: Mapping[str, Any], where: str) -> StatedQuantization | None:
    """Return the quantization that `raw`, the content of config.json, states; None if it states none.

    Raises:
        UnsupportedCheckpointError: The form is not supported; `where` names the file.
    """
    key = next((key for key in QUANTIZATION_KEYS if raw.get(key)), None)
    if key is None:
        return None
    settings = raw[key] if isinstance(raw[key], dict) else {}
    method = settings.get("quant_method")
    form = next((form for form in QUANTIZED_FORMS if method in form.methods), _OTHERS)
    if form.dequantize is None:
        named = f"quant_method {shorten(method)}" if method else shorten(raw[key])
        raise UnsupportedCheckpointError(f"{where}: {key} with {named} is not supported; {form.note}")
    return StatedQuantization(form=form, settings=settings, where=f"{where}: {key}")
