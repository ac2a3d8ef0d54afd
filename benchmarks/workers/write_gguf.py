"""Converts a checkpoint to GGUF: matrices in a given type, norms and classifier in fp32, no tokenizer.

For a reranker, the head's rows for yes and no become the classifier, as in llama.cpp's own converter. Arguments: folder
of the checkpoint, output file, type of the matrices (as in GGUF, such as Q8_0) and, for a reranker, the token ids of
yes and no.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file

_FILE_TYPES = {
    "F32": gguf.LlamaFileType.ALL_F32,
    "F16": gguf.LlamaFileType.MOSTLY_F16,
    "BF16": gguf.LlamaFileType.MOSTLY_BF16,
    "Q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    "Q4_0": gguf.LlamaFileType.MOSTLY_Q4_0,
}
_LABELS = ("yes", "no")
_EMBEDDINGS = "embed_tokens.weight"


def write_gguf(checkpoint: Path, file: Path, matrices: str, answers: Sequence[int] = ()) -> None:
    """Write `checkpoint` as a GGUF file.

    Args:
        checkpoint: folder of the checkpoint.
        file: file to write.
        matrices: type of the matrices, one of `_FILE_TYPES`.
        answers: token ids of yes and no for a reranker, empty for an embedding model.

    Raises:
        ValueError: if GGUF has no name for one of the tensors.
    """
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.QWEN3])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_pooling_type(gguf.PoolingType.RANK if answers else gguf.PoolingType.LAST)
    if answers:
        writer.add_classifier_output_labels(_LABELS)
    writer.add_file_type(_FILE_TYPES[matrices])
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(config["vocab_size"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, config["num_hidden_layers"])
    for name, tensor in load_file(checkpoint / "model.safetensors").items():
        renamed = names.get_name(f"model.{name}", try_suffixes=(".weight",))
        if renamed is None:
            raise ValueError(f"GGUF has no name for the tensor {name}")
        values = tensor.astype(np.float32)
        if values.ndim == 1:
            writer.add_tensor(renamed, values)
        else:
            kind = gguf.GGMLQuantizationType[matrices]
            writer.add_tensor(renamed, gguf.quants.quantize(values, kind), raw_dtype=kind)
        if answers and name == _EMBEDDINGS:
            writer.add_tensor("cls.output.weight", np.ascontiguousarray(values[list(answers)]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    write_gguf(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], [int(id_) for id_ in sys.argv[4:]])
