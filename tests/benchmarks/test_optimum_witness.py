"""optimum as a witness of an export, in the environment that the benchmarks build for it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel

from benchmarks.__main__ import CACHE
from benchmarks.contenders.optimum import ENVIRONMENT
from benchmarks.contenders.peer_environment import build_environment
from qwen3_triton.export.verification.parity import cosines

ROWS = [[1], [7, 3, 2], list(range(1, 40)), [5] * 17]
_SCRIPT = """
import json, sys
from pathlib import Path
import numpy as np
from qwen3_triton.export.sources.checkpoint import open_checkpoint
from qwen3_triton.export.sources.references import SourceReference
from qwen3_triton.export.verification.optimum_witness import pooled_states

folder, scratch, rows = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
library, states = pooled_states(open_checkpoint(SourceReference(str(folder))), rows, scratch)
np.save(scratch / "states.npy", states)
print(library)
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_states_of_optimums_graph_equal_those_of_transformers(tmp_path: Path, project_root: Path) -> None:
    folder = project_root / "examples" / "demo" / "checkpoint"
    peer = build_environment(ENVIRONMENT, CACHE / "environments" / ENVIRONMENT.name, lambda _: None)
    command = [str(peer.python), "-c", _SCRIPT, str(folder), str(tmp_path), json.dumps(ROWS)]
    done = subprocess.run(
        command,
        cwd=project_root,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().splitlines()[-1] == "optimum-onnx 0.1.0"
    model = AutoModel.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        expected = [model(input_ids=torch.tensor([row])).last_hidden_state[0, -1].numpy() for row in ROWS]
    assert cosines(np.load(tmp_path / "states.npy"), np.stack(expected)).min() >= 0.99999
