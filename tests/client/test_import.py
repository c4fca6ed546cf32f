"""Importing the package and creating a client don't import anything slow."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from google.cloud import aiplatform_v1

import vertex_registry
from vertex_registry import _deferred

if TYPE_CHECKING:
    from types import ModuleType


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
    """The emulator and the command line import one Google service with one transport, and the rest when it's used."""
    code = """
import sys
from vertex_registry import _deferred, _endpoint
_deferred.defer_packages()
import vertex_registry._rpc as rpc
rpc._transport.connect(_endpoint.resolve("127.0.0.1:1", None, "us-central1", None), None, "test").close()
unused = {"requests", "urllib3", "aiohttp", "cryptography", "google.api_core.retry.retry_unary", "tenacity"}
unused |= {f"google.cloud.aiplatform_v1.services.model_service.{name}" for name in ("client", "transports.rest")}
print(*unused & set(sys.modules))
import vertex_registry.emulator._server
print(*sorted({name.split(".")[4] for name in sys.modules if name.startswith("google.cloud.aiplatform_v1.services.")}))
before = vertex_registry.emulator._server.Emulator, sys.modules["google.cloud.aiplatform_v1.types.model"].Model
from google.cloud import aiplatform_v1
print(aiplatform_v1.JobServiceClient.__name__, aiplatform_v1.types.Model is aiplatform_v1.Model is before[1])
print(aiplatform_v1.types.CustomJob.__name__, hasattr(aiplatform_v1, "nothing"))
from google.api_core import operations_v1, retry
from google.auth.transport import requests
from google.oauth2 import service_account
print(requests.AuthorizedSession.__name__, operations_v1.OperationsClient.__name__, retry.Retry.__name__)
print(service_account.Credentials.__name__)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert answer.stdout.splitlines() == [
        "",
        "model_service",
        "JobServiceClient True",
        "CustomJob False",
        "AuthorizedSession OperationsClient Retry",
        "Credentials",
    ]


def test_threads_that_use_a_deferred_module_at_once() -> None:
    """The first thread that uses a name imports the module, and the others wait for it."""
    code = """
import sys, threading
sys.setswitchinterval(1e-6)
from vertex_registry import _deferred
_deferred.defer_packages()
import google.api_core.retry, google.oauth2.service_account
start, failed = threading.Barrier(8), []
def use():
    start.wait()
    try:
        google.oauth2.service_account.IDTokenCredentials, google.api_core.retry.AsyncStreamingRetry
    except AttributeError as error:
        failed.append(str(error))
threads = [threading.Thread(target=use) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(failed)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert answer.stdout == "[]\n"


def deferred(name: str) -> ModuleType:
    """Return a second copy of a module, which a process of our own would have in place of the first."""
    parent = importlib.import_module(name.rpartition(".")[0])
    spec = _deferred._Finder().find_spec(name, list(parent.__path__))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_package_runs_when_it_must() -> None:
    """Names that a known module has are found there. Any other name runs the package, once."""
    types = deferred("google.cloud.aiplatform_v1.types")
    assert types.Model is aiplatform_v1.types.Model
    assert "Dataset" not in vars(types)
    assert types.Dataset is aiplatform_v1.types.Dataset
    assert "Dataset" in vars(types)
    with pytest.raises(AttributeError):
        _ = types.Nothing


def test_a_package_has_its_modules() -> None:
    """A module of a package is imported without running the package, and a special name doesn't run it either."""
    package = deferred("google.cloud.aiplatform_v1")
    assert package.services is aiplatform_v1.services
    with pytest.raises(AttributeError):
        _ = package.__wrapped__
    assert "ModelServiceClient" not in vars(package)


def test_packages_are_deferred_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second call changes nothing, and other modules are found as usual."""
    monkeypatch.setattr(sys, "meta_path", [])
    for _ in range(2):
        _deferred.defer_packages()

    (finder,) = sys.meta_path
    assert finder.find_spec("google.cloud.aiplatform_v1.gapic_version", None) is None
