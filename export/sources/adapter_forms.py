"""The forms of adapters that PEFT saves, and what a merge does with each.

The page "What is read from a checkpoint" of the documentation is generated from the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MERGE_FIRST = "merge it with PEFT first (PeftModel.from_pretrained(...).merge_and_unload()) and export the result"
NOT_WEIGHTS = "its effect depends on the input, so no merged weights can have it: train LoRA instead"
SAVE_CONVERTED = (
    "save it as plain LoRA, save_pretrained(..., path_initial_model_for_weight_conversion=...), or put the adapter as "
    "it was before training into its folder"
)


class FormTreatment(StrEnum):
    """What a merge does with a form of adapter."""

    MERGED = "merged"
    CONVERTED = "merged if the initial adapter is there, otherwise rejected"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterForm:
    """One form of adapter."""

    name: str
    recognized_by: str
    """Keys of `adapter_config.json`, or names of tensors."""
    treatment: FormTreatment
    note: str
    """What is merged, or the remedy."""
    peft_types: tuple[str, ...] = ()
    """PEFT's names of the methods that this form includes, if they are other methods than LoRA."""


def _merged(name: str, recognized_by: str, note: str) -> AdapterForm:
    return AdapterForm(name=name, recognized_by=recognized_by, treatment=FormTreatment.MERGED, note=note)


def _rejected(name: str, recognized_by: str, note: str) -> AdapterForm:
    return AdapterForm(name=name, recognized_by=recognized_by, treatment=FormTreatment.REJECTED, note=note)


def _other_method(name: str, note: str, *peft_types: str) -> AdapterForm:
    return AdapterForm(
        name=name, recognized_by="peft_type", treatment=FormTreatment.REJECTED, note=note, peft_types=peft_types
    )


ADAPTER_FORMS = (
    _merged("LoRA", "lora_A, lora_B", "W + α/r · B·A"),
    _merged("rsLoRA", "use_rslora", "W + α/√r · B·A"),
    _merged("DoRA", "use_dora", "m · (W + s·B·A) / ‖W + s·B·A‖, also on the embeddings"),
    _merged("ranks and alphas by module", "rank_pattern, alpha_pattern", "matched as PEFT matches them"),
    _merged("some layers only", "layers_to_transform, layers_pattern, target_modules", "as the tensors show"),
    _merged("LoRA on the embeddings", "lora_embedding_A, lora_embedding_B", "transposed; unties an LM head"),
    _merged("whole trained modules", "modules_to_save", "norms, embeddings, LM head, score head"),
    _merged("trained biases", "bias", "lora_only and all; models without biases have none to change"),
    _merged("bias of B", "lora_bias", "added to the bias of the module, which must have one"),
    _merged("trained tokens", "trainable_token_indices", "rows of the embeddings, and of an LM head tied to them"),
    _merged(
        "resized vocabulary", "embeddings of another length", "replaces the table; one adapter, with a weight of 1"
    ),
    _merged("fan_in_fan_out", "fan_in_fan_out", "no effect on linear layers and embeddings, as in PEFT"),
    _merged("EVA, orthogonal, Gaussian, MiCA", "init_lora_weights", "their initialization leaves the base as it is"),
    AdapterForm(
        name="PiSSA, OLoRA, CorDA, LoRA-GA",
        recognized_by="init_lora_weights",
        treatment=FormTreatment.CONVERTED,
        note="W + s·(B·A − B₀·A₀), with B₀ and A₀ from `pissa_init`, `initial_model` and similar folders in the "
        f"adapter's folder, or beside a `checkpoint-N`; otherwise: {SAVE_CONVERTED}",
    ),
    _rejected(
        "LoftQ", "init_lora_weights", "its base was quantized: merge it into that base with PEFT and export the result"
    ),
    _rejected("LoRA on parameters", "target_parameters", MERGE_FIRST),
    _rejected("KaSA, MonteCLoRA, BD-LoRA", "kasa_config, monteclora_config, use_bdlora", MERGE_FIRST),
    _rejected("QA-LoRA", "use_qalora", "its base is quantized"),
    _rejected("replicated layers", "layer_replication", "the model has other layers than its base"),
    _rejected("activated LoRA, Arrow", "alora_invocation_tokens, arrow_config", NOT_WEIGHTS),
    _other_method(
        "prompts and prefixes",
        NOT_WEIGHTS,
        "PROMPT_TUNING",
        "MULTITASK_PROMPT_TUNING",
        "P_TUNING",
        "PREFIX_TUNING",
        "CPT",
        "CARTRIDGE",
        "ADAPTION_PROMPT",
    ),
    _other_method("mixtures chosen by the input", NOT_WEIGHTS, "LILY", "POLY", "SHADOW", "XLORA"),
    _other_method(
        "other methods that change weights",
        MERGE_FIRST,
        "ADALORA",
        "ADAMSS",
        "BEFT",
        "BOFT",
        "C3A",
        "DEFT",
        "DELORA",
        "FOURIERFT",
        "FROD",
        "GLORA",
        "GRALORA",
        "HIRA",
        "HRA",
        "IA3",
        "LN_TUNING",
        "LOHA",
        "LOKR",
        "MISS",
        "OFT",
        "OSF",
        "PEANUT",
        "PSOFT",
        "PVERA",
        "RANDLORA",
        "ROAD",
        "SHIRA",
        "SUPERTUNING",
        "TINYLORA",
        "TRAINABLE_TOKENS",
        "UNILORA",
        "VBLORA",
        "VERA",
        "WAVEFT",
    ),
    _rejected("pickled weights", "adapter_model.bin", "the error has the command that converts them"),
)
"""Forms in the order of the documentation page."""

INITIAL_FOLDERS = ("pissa_init", "olora_init", "corda_init", "lora_ga_init", "initial_model")
"""Names under which training programs store an adapter as it was before training."""


def explain_method(peft_type: object) -> str:
    """Return the remedy for an adapter of another method than LoRA."""
    notes = (form.note for form in ADAPTER_FORMS if peft_type in form.peft_types)
    return next(notes, "only LORA is supported; " + MERGE_FIRST)
