"""Real MLflow with a tracking store in SQLite, and registries that are files, or an emulator with a storage server.

These tests need an environment where MLflow is installed; `make test` creates one. A tracking store is created once for
each process, because that takes seconds. Each test has a registry of its own.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.storage.server import StorageServer

HERE = Path(__file__).parent
collect_ignore_glob = [] if importlib.util.find_spec("mlflow") else ["test_*.py"]

# MLflow reads them when it's imported.
os.environ |= {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.mlflow)
            # MLflow and its dependencies warn a lot. A warning of this package is an error, unless the test expects it.
            item.add_marker(pytest.mark.filterwarnings("ignore", "error:::vertex_registry"), append=False)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with MLflow's tables, to copy: creating them takes seconds."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore  # noqa: PLC0415  # not in the other environment

    folder = tmp_path_factory.mktemp("mlflow")
    SqlAlchemyStore(f"sqlite:///{folder}/empty.db", str(folder / "artifacts"))
    return folder / "empty.db"


@pytest.fixture(scope="session")
def tracking(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the URI of a tracking store that all tests of a process share, with an experiment ``tests``."""
    import mlflow  # noqa: PLC0415  # likewise

    folder = tmp_path_factory.mktemp("tracking")
    uri = f"sqlite:///{shutil.copy(empty_database, folder / 'mlflow.db')}"
    client = mlflow.MlflowClient(uri, uri)
    client.create_experiment("tests", artifact_location=(folder / "artifacts").as_uri())
    return uri


@pytest.fixture(autouse=True)
def _global_state(tracking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Reset MLflow's global settings for each test, and give it a working folder of its own."""
    import mlflow  # noqa: PLC0415  # likewise

    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(tracking)
    mlflow.set_experiment("tests")
    yield
    mlflow.set_registry_uri("")
    mlflow.set_tracking_uri("")
    os.environ.pop("MLFLOW_REGISTRY_URI", None)
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[str]:
    """Return the URI of an empty registry in a file."""
    yield from _closed(f"vertex://local/{tmp_path}/vertex.db")


@pytest.fixture
def cloud(bucket: str, storage_emulator: StorageServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the URI of an empty registry on an emulator, with a bucket on a storage server."""
    from vertex_registry.emulator import Emulator  # noqa: PLC0415  # Google's libraries take a second

    with Emulator(storage=storage_emulator.url) as emulator:
        monkeypatch.setenv("VERTEX_AI_EMULATOR_HOST", emulator.grpc)
        # The port distinguishes it from other registries of this process.
        yield from _closed(
            f"vertex://acme/us-central1?staging_bucket=gs://{bucket}/models&endpoint={emulator.grpc}",
        )


def _closed(uri: str) -> Iterator[str]:
    from vertex_registry.mlflow import VertexModelRegistryStore  # noqa: PLC0415  # not in the other environment

    yield uri
    VertexModelRegistryStore(uri).close()


@pytest.fixture(params=["local", "cloud"])
def vertex(request: pytest.FixtureRequest) -> str:
    """Return the URI of an empty registry, of each kind."""
    uri: str = request.getfixturevalue(request.param)
    return uri


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a model that no framework wrote, and that every scikit-learn image takes for its own."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "model.joblib").write_bytes(b"a model")
    return folder


@pytest.fixture
def sqlite_registry(empty_database: Path, tmp_path: Path) -> str:
    """Return the URI of an empty registry of MLflow's own."""
    return f"sqlite:///{shutil.copy(empty_database, tmp_path / 'registry.db')}"
