"""Importing the package and creating a client don't import anything slow."""

from __future__ import annotations

import subprocess
import sys

import pytest

import vertex_registry


@pytest.mark.parametrize(
    "use",
    [
        "import vertex_registry",
        "from vertex_registry import *",
        "from vertex_registry import RegistryClient; RegistryClient(project='acme').close()",
    ],
)
def test_nothing_slow_is_imported(use: str) -> None:
    """Neither importing the package nor creating a client imports google, grpc, or other slow modules."""
    # google-cloud-aiplatform has every interpreter begin with the empty packages `google` and `google.cloud`.
    slow = ("google", "grpc", "tenacity", "asyncio", "email", "multiprocessing")  # importlib.metadata imports email
    new = f"[name for name in set(sys.modules) - before if name.split('.')[0] in {slow}]"
    code = f"import sys; before = set(sys.modules); {use}; print({new})"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == "[]"


def test_the_public_names() -> None:
    """The public names are exactly these, and they're sorted."""
    assert sorted(vertex_registry.__all__) == vertex_registry.__all__
    assert all(hasattr(vertex_registry, name) for name in vertex_registry.__all__)


def test_processes_of_our_own_import_less() -> None:
    """The emulator and the command line import one of Google's services, and the others when they're used."""
    code = """
import sys
from vertex_registry import _deferred
_deferred.defer_packages()
import vertex_registry._rpc, vertex_registry.emulator._server
print(*sorted({name.split(".")[4] for name in sys.modules if name.startswith("google.cloud.aiplatform_v1.services.")}))
before = vertex_registry.emulator._server.Emulator, sys.modules["google.cloud.aiplatform_v1.types.model"].Model
from google.cloud import aiplatform_v1
print(aiplatform_v1.JobServiceClient.__name__, aiplatform_v1.types.Model is aiplatform_v1.Model is before[1])
print(aiplatform_v1.types.CustomJob.__name__, hasattr(aiplatform_v1, "nothing"))
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert answer.stdout.splitlines() == ["model_service", "JobServiceClient True", "CustomJob False"]
