"""Processes that use a client as people do. `test_any_process` starts them: ``python -m tests.behaviour.processes``.

Each scenario is a function that takes a `Place`, and raises if the client doesn't do what it should. With a bucket, the
models have artifacts, which are uploaded and downloaded.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
import pickle
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from vertex_registry import RegistryClient, RegistryError, Retry, _deferred

if TYPE_CHECKING:
    from collections.abc import Callable

CROWD = 3

# Importing all of Google's package takes most of a start, and of the end of each child. `fork_with_the_sdk` imports it.
_deferred.defer_packages()


@attrs.frozen
class Place:
    """Where a scenario works.

    Attributes:
        endpoint: The address of the emulator.
        bucket: A bucket of the storage server, or an empty text if there are no artifacts.
        folder: A folder of its own.
        prefix: What the names of its models begin with.
    """

    endpoint: str
    bucket: str
    folder: str
    prefix: str

    def connect(self, **settings: Any) -> RegistryClient:
        """Create a client."""
        staging = f"gs://{self.bucket}/staging" if self.bucket else None
        return RegistryClient(endpoint=self.endpoint, staging_bucket=staging, retry=Retry(call_timeout=30), **settings)

    def name(self, number: int) -> str:
        """Return the name of a model."""
        return f"{self.prefix}-{number}"

    def register(self, client: RegistryClient, number: int, text: str = "first") -> None:
        """Register a version whose artifact says which model it is of."""
        if not self.bucket:
            client.register_version(self.name(number), f"gs://models/{number}", metadata={"text": text})
            return
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            (Path(folder) / "model.joblib").write_text(f"{number} {text}")
            client.register_version(self.name(number), folder, metadata={"text": text})

    def check(self, client: RegistryClient, number: int, text: str = "first") -> None:
        """Read the default version of a model, and its artifact."""
        version = client.get_version(self.name(number))
        assert (version.name, version.metadata) == (self.name(number), {"text": text}), (number, version)
        if self.bucket:
            with tempfile.TemporaryDirectory(dir=self.folder) as folder:
                got = client.download_version(self.name(number), destination=Path(folder) / "got")
                assert (got / "model.joblib").read_text() == f"{number} {text}", number


def fork_all(work: Callable[[int], None]) -> None:
    """Do some work in several forked children at once. The first ends as a script's child does."""
    children = []
    for number in range(CROWD):
        if (child := os.fork()) == 0:
            work(number)
            if number:
                os._exit(0)
            sys.exit(0)  # with all that Python does at its end, which takes longer than the work
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * CROWD


def fork(place: Place) -> None:
    """Fork after the client was used; parent and children go on using it."""
    client = place.connect()
    for number in range(CROWD):
        place.register(client, number)

    def work(number: int) -> None:
        for _ in range(2):
            place.check(client, number)
        place.register(client, number, "second")
        place.check(client, number, "second")
        client.close()

    fork_all(work)
    for number in range(CROWD):
        place.check(client, number, "second")
    client.close()


def fork_while_busy(place: Place) -> None:
    """Fork while other threads of the parent are in the middle of calls."""
    client = place.connect()
    for number in range(CROWD):
        place.register(client, number)
    ended = threading.Event()
    failures: list[BaseException] = []

    def call() -> None:
        try:
            while not ended.is_set():
                client.get_version(place.name(0))
        except BaseException as error:  # noqa: BLE001  # it fails the scenario
            failures.append(error)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        fork_all(lambda number: place.check(client, number))
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert not failures, failures


def fork_in_a_list(place: Place) -> None:
    """Fork in the middle of a list; parent and child both read it to its end. Nothing else may be registered yet."""
    client = place.connect()
    for number in range(CROWD):
        place.register(client, number)
    versions = client.list_versions()
    first = next(versions)
    fork_all(lambda _: ends(first, list(versions), place))
    ends(first, list(versions), place)


def ends(first: Any, rest: list[Any], place: Place) -> None:
    """Check that a list has each version of this scenario once."""
    listed = sorted([first.name, *(version.name for version in rest)])
    assert listed == [place.name(number) for number in range(CROWD)], listed


def fork_with_the_sdk(place: Place) -> None:
    """Fork after an object of Google's SDK was created."""
    client = place.connect()
    for number in range(CROWD):
        place.register(client, number)
    models = [client.to_aiplatform(place.name(number)) for number in range(CROWD)]

    def work(number: int) -> None:
        for _ in range(2):
            assert models[number].api_client.get_model(name=models[number].resource_name).display_name == place.name(
                number
            )

    work(0)
    fork_all(work)
    work(0)


def fork_under_locks(place: Place) -> None:
    """Fork while another thread holds every lock of the client."""
    client = place.connect()
    for number in range(CROWD):
        place.register(client, number)
    held, ended = threading.Event(), threading.Event()
    holder = threading.Thread(target=hold_all, args=(client, held, ended))
    holder.start()
    held.wait()
    try:
        fork_all(lambda number: place.check(client, number))
    finally:
        ended.set()
        holder.join()


def hold_all(client: RegistryClient, held: threading.Event, ended: threading.Event) -> None:
    vertex = client._vertex
    with client._lock, client._storages, vertex._lock, vertex.rpc._google:
        held.set()
        ended.wait()


def work_elsewhere(place: Place, client: RegistryClient, number: int) -> str:
    """Use a client that came from another process, and send errors back to it."""
    place.register(client, number)
    place.check(client, number)
    try:
        client.get_version(place.name(number), 99)
    except RegistryError as error:
        assert pickle.loads(pickle.dumps(error)).resource == error.resource  # noqa: S301  # our own
        return place.name(number)
    raise AssertionError(number)


def spawn(place: Place) -> None:
    """Pickle a client that's in use, and send it to spawned workers."""
    client = place.connect(actor="ann@example.com")
    place.register(client, CROWD)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        named = pool.starmap(work_elsewhere, [(place, client, number) for number in range(CROWD)])
    assert named == [place.name(number) for number in range(CROWD)]
    for number in range(CROWD):
        place.check(client, number)


def threads(place: Place) -> None:
    """Share one client among threads that all use it at the same time."""
    client = place.connect()
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            work_elsewhere(place, client, number)
        except BaseException as error:  # noqa: BLE001  # it fails the scenario
            failures.append(error)

    crowd = [threading.Thread(target=work, args=(number,)) for number in range(CROWD)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    assert not failures, failures


def to_thread(place: Place) -> None:
    """Share one client among coroutines."""
    client = place.connect()

    async def work() -> list[str]:
        return await asyncio.gather(
            *(asyncio.to_thread(work_elsewhere, place, client, number) for number in range(CROWD))
        )

    assert asyncio.run(work()) == [place.name(number) for number in range(CROWD)]


def alone(place: Place) -> None:
    """Do what one process does. The test decides what's unusual about the process."""
    with place.connect() as client:
        assert work_elsewhere(place, client, 0) == place.name(0)


def stranger(place: Place) -> None:
    """Do the same as a user whom the machine doesn't know, if this process may become one.

    Only the real user is changed, who has or hasn't a home: the effective one may still read Python's own files.
    """
    with contextlib.suppress(PermissionError):
        os.setreuid(54321, -1)
    alone(place)


if __name__ == "__main__":
    for scenario, place in json.loads(sys.argv[1]):
        globals()[scenario](Place(**place))
