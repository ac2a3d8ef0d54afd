"""The graph that options choose, and whether an export runs it."""

from __future__ import annotations

from ..client.manifest import Device
from .formats.lowering import LoweredWeights
from .graph import CudaProfile, GraphOptions
from .graph.prefixes import NO_PREFIXES
from .model_sources import ModelSources
from .option_checks import chosen_attention
from .options import ExportOptions
from .prefix_choice import choose_prefixes
from .verification.runtime import gpu_available


def graph_options(sources: ModelSources, lowered: LoweredWeights, options: ExportOptions) -> GraphOptions:
    """Return the options of the graph of `lowered`."""
    cuda, prefixes, reuses = None, NO_PREFIXES, False
    if options.device is Device.CUDA:
        attention = chosen_attention(options, lowered.checkpoint.head)
        cuda = CudaProfile(runtime=options.triton_release.runtime, attention=attention)
    else:
        reuses = options.prefix_reuse and lowered.checkpoint.has_fixed_prefixes
        prefixes = choose_prefixes(sources, options) if reuses else NO_PREFIXES
    return GraphOptions(
        task=sources.task.kind,
        format=lowered.format,
        max_tokens=sources.max_tokens,
        head=lowered.checkpoint.head,
        rescale=lowered.rescale,
        cuda=cuda,
        prefixes=prefixes,
        compact_outputs=sources.task.compact_outputs(options.compact_outputs),
        shares_beginnings=reuses,
    )


def opens_graph(options: ExportOptions) -> bool:
    """Return whether the written graph is compared, or timed for the token budget, on this machine."""
    if options.verify.compares:
        return True
    return options.serving.max_batch_tokens is None and (options.device is Device.CPU or gpu_available())
