"""Fixtures: clients of a real storage server that don't really sleep, and a folder to upload."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.artifacts.tools import CHUNK, Clock, write
from vertex_registry.artifacts import Storage, scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.storage.server import Proxy, Store


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(clock: Clock, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Storage]]:
    """Return a function that creates clients with the test's own cache. A second client acts as another process.

    A test that takes a ``store`` has clients that reach it.
    """
    made: list[Storage] = []
    place = {"folder": request.getfixturevalue("store").folder} if "store" in request.fixturenames else {}

    def storage(**settings: Any) -> Storage:
        made.append(
            Storage(**{"retry": clock.retry(), "cache": tmp_path / "cache", "chunk": CHUNK, **place, **settings})
        )
        return made[-1]

    yield storage
    for one in made:
        one.close()


@pytest.fixture
def storage(make: Callable[..., Storage]) -> Storage:
    return make()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a model of three files; the largest takes four chunks."""
    return write(
        tmp_path / "model",
        {"model.joblib": bytes(range(256)) * 3_500, "metadata.json": b"{}", "assets/größe.txt": b"1 m"},
    )


@pytest.fixture
def stored(proxy: Proxy, make: Callable[..., Storage], bucket: str, folder: Path) -> str:
    """Return the URI of the model in Cloud Storage."""
    uri = make().upload(scan(folder), f"gs://{bucket}/churn-1")
    proxy.seen.clear()
    return uri


@pytest.fixture
def uploaded(store: Store, make: Callable[..., Storage], folder: Path) -> str:
    """The URI of the model in a bucket of either kind."""
    return make().upload(scan(folder), f"gs://{store.bucket}/churn-1")
