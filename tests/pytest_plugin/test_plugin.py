"""Run pytest with the plugin on small test modules."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., subprocess.CompletedProcess[str]]

SERVICE = """
from vertex_registry import RegistryClient, Stage, _deferred

_deferred.defer_packages()  # importing all of Google's package would take longer than the rest

def deploy(source):
    with RegistryClient() as registry:
        version = registry.register_version("churn", source)
        return registry.set_stage("churn", version, Stage.PRODUCTION, archive_existing=True)
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run pytest on a test module next to a service that knows nothing about tests."""
    installed = {point.value for point in importlib.metadata.entry_points(group="pytest11")}
    plugin = [] if "vertex_registry.pytest_plugin" in installed else ["-p", "vertex_registry.pytest_plugin"]

    def run(tests: str, *options: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "service.py").write_text(SERVICE)
        (tmp_path / "test_service.py").write_text(tests)
        words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), *plugin]
        return subprocess.run(
            [*words, *options, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    return run


def test_unchanged_code_reaches_the_emulator(run: Run) -> None:
    """Code that creates its own client works in the test's own project, and no test sees another's models.

    A planned fault reaches this code; one that's left over fails its own test only. A quota ends with its test.
    """
    done = run("""
import pytest
from service import deploy
from vertex_registry import PermissionDeniedError
from vertex_registry.emulator import Quota

def test_deploy(vertex_registry):
    assert deploy("gs://models/churn/1").stage == "Production"
    assert vertex_registry.get_version("churn", stage="Production").artifact_uri == "gs://models/churn/1"

def test_that_nothing_is_left(vertex_registry):
    assert list(vertex_registry.list_models()) == []

def test_denied(vertex_registry, vertex_emulator):
    assert vertex_emulator.rest.startswith("http://127.0.0.1:")
    vertex_emulator.fail("UploadModel", "PERMISSION_DENIED")
    with pytest.raises(PermissionDeniedError):
        deploy("gs://models/churn/1")

def test_left_over(vertex_emulator):
    vertex_emulator.fail("DeleteModel", "UNAVAILABLE")
    vertex_emulator.quota = Quota(requests=0)

def test_after_it(vertex_registry):
    deploy("gs://models/churn/1")
""")
    assert "1 failed, 4 passed" in done.stdout, done.stdout
    assert "No request met these planned faults: DeleteModel UNAVAILABLE." in done.stdout


def test_it_runs_in_several_workers(run: Run) -> None:
    """Under pytest-xdist each worker has an emulator of its own. Without the extra it serves gRPC alone."""
    done = run(
        """
import sys
import pytest
from service import deploy

sys.modules["aiohttp"] = None

@pytest.mark.parametrize("number", range(4))
def test_deploy(vertex_registry, vertex_emulator, number):
    assert deploy("gs://models/churn/1").version == "1"
    assert vertex_emulator.rest == ""
""",
        "--numprocesses",
        "2",
    )
    assert "4 passed" in done.stdout, done.stdout


def test_it_costs_nothing_when_it_is_not_used(run: Run) -> None:
    """If no test uses the fixtures, pytest imports the plugin, and nothing from Google."""
    done = run("""
import sys

def test_nothing():
    loaded = {name for name in sys.modules if name.startswith(("grpc", "vertex_registry", "google.cloud.aiplatform"))}
    assert loaded == {"vertex_registry", "vertex_registry._version", "vertex_registry.pytest_plugin"}
""")
    assert "1 passed" in done.stdout, done.stdout
