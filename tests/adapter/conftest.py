"""ZenML with a store of its own in a temporary folder, and an emulator.

These tests need an environment where ZenML is installed; `make test` creates one. ZenML is set up once for each
process, because that takes seconds. Each test has its own emulator, and its own component if it changes settings.
Commands run in this process, through click's test runner: it's the same command line that you type into.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.adapter.command_line import ZenML
    from tests.storage.server import StorageServer
    from vertex_registry.emulator import Emulator
    from vertex_registry.zenml import VertexModelRegistry

HERE = Path(__file__).parent
collect_ignore_glob = [] if importlib.util.find_spec("zenml") else ["test_*.py"]

FLAVOR = "vertex_registry.zenml.VertexModelRegistryFlavor"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, and run the longest first."""
    items.sort(key=lambda item: item.name != "test_the_guide")
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.zenml)
            # ZenML and its dependencies warn a lot. A warning of this package is an error, unless the test expects it.
            item.add_marker(pytest.mark.filterwarnings("ignore", "error:::vertex_registry"), append=False)


@pytest.fixture(scope="session")
def zenml() -> Iterator[ZenML]:
    """Return ZenML with the flavor registered, in a store that's deleted after the tests."""
    from tests.adapter.command_line import HOME, ZenML  # noqa: PLC0415  # not in the other environment

    work = Path(HOME.name, "work")
    work.mkdir()
    with contextlib.chdir(work):
        zenml = ZenML()
        zenml("init")
        zenml(f"model-registry flavor register {FLAVOR}")
        yield zenml


@pytest.fixture(scope="session")
def _buckets(storage_server: StorageServer) -> None:
    for bucket in ("staging", "guide", "models"):
        storage_server.make_bucket(bucket)


@pytest.fixture
def storage(_buckets: None, storage_emulator: StorageServer) -> StorageServer:
    """Return a storage server with some buckets. If it comes before the emulator, the emulator checks artifacts."""
    return storage_emulator


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Start an emulator for this test. ``VERTEX_AI_EMULATOR_HOST`` has its address."""
    from vertex_registry.emulator import Emulator  # noqa: PLC0415  # Google's libraries take a second

    with Emulator() as emulator:
        monkeypatch.setenv("VERTEX_AI_EMULATOR_HOST", str(emulator.grpc))
        yield emulator
        assert not emulator.faults(), "a planned fault was not used up"


@pytest.fixture
def component(zenml: ZenML, emulator: Emulator) -> str:
    """Return the name of a component without settings, in the active stack. Don't change it."""
    del emulator
    return zenml.share()


@pytest.fixture
def active() -> Iterator[Callable[[], VertexModelRegistry]]:
    """Return a function that returns the active stack's registry, as a step gets it."""
    made: list[VertexModelRegistry] = []

    def active() -> VertexModelRegistry:
        from zenml.client import Client  # noqa: PLC0415  # likewise

        registry = cast("VertexModelRegistry", Client().active_stack.model_registry)
        made.append(registry)
        return registry

    yield active
    for registry in made:
        registry.cleanup()


@pytest.fixture
def registry(component: str, active: Callable[[], VertexModelRegistry]) -> VertexModelRegistry:
    """Return a registry without settings."""
    del component
    return active()


@pytest.fixture
def key(emulator: Emulator, tmp_path: Path) -> Path:
    """Return the path of a service account key. The emulator issues its tokens."""
    return write_key(tmp_path / "vertex-registry-sa.json", f"{emulator.rest}/token")


def write_key(path: Path, token_uri: str, project: str = "acme") -> Path:
    """Write the key of a service account that doesn't exist. It's generated here and gives access to nothing."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415  # not in the other environment
    from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415

    private = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = f"registry@{project}.iam.gserviceaccount.com"
    fields = {
        "type": "service_account",
        "project_id": project,
        "private_key_id": "1",
        "private_key": private.decode(),
        "client_email": account,
        "client_id": "1",
        "auth_uri": f"{token_uri}/auth",
        "token_uri": token_uri,
        "auth_provider_x509_cert_url": f"{token_uri}/certs",
        "client_x509_cert_url": f"{token_uri}/certs/{account}",
        "universe_domain": "googleapis.com",
    }
    path.write_text(json.dumps(fields), encoding="utf-8")
    os.chmod(path, 0o600)  # noqa: PTH101
    return path
