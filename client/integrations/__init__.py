"""Adapters of the clients for other libraries, one module each; a module needs the extra of its name.

- `langchain`: `Qwen3TritonEmbeddings`, `Qwen3TritonRerank`
- `llama_index`: `Qwen3TritonEmbedding`, `Qwen3TritonRerank`
- `mteb`: `Qwen3TritonEncoder`, `Qwen3TritonCrossEncoder`
"""
