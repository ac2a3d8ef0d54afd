"""A virtual environment for tests of adapters whose packages are not part of the extra `dev`.

`langchain-tests` installs plugins that pytest would load for every test, and `mteb` several hundred megabytes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

_MARK = "built_for.txt"
_EXTRAS = ("langchain", "llama-index", "mteb")


@dataclass(frozen=True, slots=True)
class AdapterEnvironment:
    """The interpreter of the environment, and the root of the checkout."""

    python: Path
    root: Path

    def run_tests(self, *files: str) -> str:
        """Run the tests of `files` without downloads, and return the summary that pytest prints.

        Raises:
            AssertionError: A test failed, or there is none.
        """
        command = [str(self.python), "-m", "pytest", "-p", "no:cacheprovider", *files]
        with TemporaryDirectory() as cache:
            variables = os.environ | {"PYTHONPATH": str(self.root), "HF_HUB_OFFLINE": "1", "MTEB_CACHE": cache}
            done = subprocess.run(command, cwd=self.root, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
        return done.stdout.splitlines()[-1]


def build_adapter_environment(root: Path) -> AdapterEnvironment:
    """Build the environment in `build`, unless it is there for the same packages.

    It sees the packages of the environment that runs the tests, and has the others in the versions of constraints.txt.
    """
    folder, constraints = root / "build" / "adapters", root / "constraints.txt"
    extras = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    requirements = ["langchain-tests", *(requirement for extra in _EXTRAS for requirement in extras[extra])]
    wanted = "\n".join([sys.executable, *requirements, constraints.read_text(encoding="utf-8")])
    python, mark = folder / "bin" / "python", folder / _MARK
    if not mark.is_file() or mark.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)])
        [packages] = folder.glob("lib/python*/site-packages")
        (packages / "tests.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        _run([*pip, "-c", str(constraints), *requirements])
        mark.write_text(wanted, encoding="utf-8")
    return AdapterEnvironment(python, root)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
