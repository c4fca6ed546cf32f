"""The files on the page about embedding: they run against an emulator, and type checkers accept them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from vertex_registry.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "embedding.md").read_text(encoding="utf-8")
FILES: Final = dict(re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))

ASK = """
import warnings
warnings.simplefilter("ignore")  # about the client library of the tests
from fastapi.testclient import TestClient
from service import app, registry

registry.register_version("churn", "gs://models/churn/1", metadata={"accuracy": 0.9}, stage="production")
with TestClient(app) as client:
    print(client.get("/models/churn/production").json()["metadata"])
    print(len(client.get("/models/churn/versions").json()))
    print(client.get("/models/nothing/production").status_code, client.get("/models/nothing/versions").status_code)
"""


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, code in FILES.items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    return tmp_path


def python(folder: Path, emulator: Emulator, *words: str) -> str:
    """Run a file of the page, with an environment that names the emulator; return what it prints."""
    emulator.reset()
    environment = {
        "PYTHONPATH": str(ROOT),
        **os.environ,
        "VERTEX_AI_EMULATOR_HOST": emulator.grpc,
        "GOOGLE_CLOUD_PROJECT": "acme",
    }
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", sorted(set(FILES) - {"service.py"}))
def test_the_files_of_the_page_run(name: str, folder: Path, emulator: Emulator) -> None:
    """Each file runs as it is, and its own assertions hold."""
    python(folder, emulator, name)


def test_the_service_of_the_page_answers(folder: Path, emulator: Emulator) -> None:
    """The service finds a version, lists versions, and answers 404 for a model that doesn't exist."""
    assert python(folder, emulator, "-c", ASK).splitlines() == ["{'accuracy': 0.9}", "1", "404 404"]


def test_mypy_accepts_the_page(folder: Path) -> None:
    """The types of the package suit strict users. A mistake is found, so something is checked."""
    (folder / "wrong.py").write_text("from vertex_registry import RegistryClient\nRegistryClient().get_model(7)\n")
    mypy = pytest.importorskip("mypy.api")
    # With the settings and the cache of `make check`, what it has read needn't be read again.
    root = Path(__file__).parents[2]
    options = ["--config-file", str(root / "pyproject.toml"), "--cache-dir", str(root / ".mypy_cache")]
    found = mypy.run([*options, str(folder)])[0]

    assert found.splitlines()[-1] == "Found 1 error in 1 file (checked 6 source files)", found
    assert "wrong.py:2" in found


def test_the_adapter_is_short() -> None:
    """The page's adapter has the promised forty lines, without its own check."""
    code = FILES["adapter.py"].partition("class ")[2].partition("if __name__")[0]

    assert sum(bool(line.strip()) for line in code.splitlines()) <= 40
