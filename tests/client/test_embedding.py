"""The files on the pages about embedding, Cloud Run and several projects run against an emulator; their types fit."""

from __future__ import annotations

import logging
import os
import re
import runpy
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from vertex_registry.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = ("embedding.md", "projects.md", "cloud-run.md")
FILES: Final = {
    name: code
    for page in PAGES
    for name, code in re.findall(
        r"```python\n# (\S+)\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL
    )
}
#: What answers requests, instead of running to its end.
SERVICES: Final = {"service.py", "main.py"}
#: What starts processes that import it.
STARTS_PROCESSES: Final = {"workers.py"}


@pytest.fixture(scope="module")
def running() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def emulator(running: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """Return an empty emulator that the environment names, as it does for a reader of the page."""
    running.reset()
    monkeypatch.setenv("VERTEX_AI_EMULATOR_HOST", running.grpc)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "acme")
    return running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, code in FILES.items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    return tmp_path


@pytest.fixture
def client() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the client library of the tests
        return pytest.importorskip("fastapi.testclient").TestClient


@pytest.mark.usefixtures("emulator")
@pytest.mark.parametrize("name", sorted(set(FILES) - SERVICES - STARTS_PROCESSES))
def test_the_files_of_the_page_run(name: str, folder: Path) -> None:
    """Each file runs as it is, and its own assertions hold."""
    logger = logging.getLogger("vertex_registry")
    level = logger.level
    try:
        runpy.run_path(str(folder / name), run_name="__main__")
    finally:
        logger.setLevel(level)


@pytest.mark.usefixtures("emulator")
@pytest.mark.parametrize("name", sorted(STARTS_PROCESSES))
def test_the_files_that_start_processes_run(name: str, folder: Path) -> None:
    """Each of these runs as a program, and its own assertions hold."""
    done = subprocess.run(
        [sys.executable, name],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), **os.environ},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("emulator")
def test_the_service_of_the_page_answers(folder: Path, client: Any) -> None:
    """The service finds a version, lists versions, and answers 404 for a model that doesn't exist."""
    service = runpy.run_path(str(folder / "service.py"))
    service["registry"].register_version("churn", "gs://models/churn/1", metadata={"accuracy": 0.9}, stage="production")

    with client(service["app"]) as user:
        assert user.get("/models/churn/production").json()["metadata"] == {"accuracy": 0.9}
        assert len(user.get("/models/churn/versions").json()) == 1
        assert user.get("/models/nothing/production").status_code == 404
        assert user.get("/models/nothing/versions").status_code == 404


def test_the_service_for_cloud_run_answers(folder: Path, emulator: Emulator, client: Any) -> None:
    """The service shows what's in Production, answers 404, turns an outage into 503, and has a health check."""
    service = runpy.run_path(str(folder / "main.py"))
    service["registry"].register_version("churn", "gs://models/churn/1", metadata={"accuracy": 0.9}, stage="production")
    user = client(service["app"])

    assert user.get("/models/churn").json()["metadata"] == {"accuracy": 0.9}
    assert user.get("/models/nothing").status_code == 404
    emulator.fail("ListModelVersions", "RESOURCE_EXHAUSTED", retry_after=30)
    refused = user.get("/models/churn")
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "30")
    assert user.get("/healthz").json() == "ok"
    service["registry"].close()


def test_mypy_accepts_the_page(folder: Path) -> None:
    """The package's types pass strict checks, and the checker finds a mistake."""
    (folder / "wrong.py").write_text("from vertex_registry import RegistryClient\nRegistryClient().get_model(7)\n")
    pytest.importorskip("mypy")
    # With the settings and the cache of `make check`, what it has read needn't be read again. In this process, what it
    # reads would stay: a million objects for each later collection of garbage.
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache")]
    command = [sys.executable, "-m", "mypy", *options, str(folder)]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout

    assert found.splitlines()[-1] == f"Found 1 error in 1 file (checked {len(FILES) + 1} source files)", found
    assert "wrong.py:2" in found


def test_the_adapter_is_short() -> None:
    """The page's adapter has the promised forty lines, without its own check."""
    code = FILES["adapter.py"].partition("class ")[2].partition("if __name__")[0]

    assert sum(bool(line.strip()) for line in code.splitlines()) <= 40
