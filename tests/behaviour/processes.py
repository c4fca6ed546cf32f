"""Processes that use a client as people do. `test_any_process` starts them: ``python -m tests.behaviour.processes``.

Each scenario is a function that takes a `Setup`, and raises if the client misbehaves. With a bucket, the models have
artifacts, which are uploaded and downloaded.
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

CHILDREN = 3

# Importing Google's whole package would make each start and exit much longer. `fork_with_the_sdk` imports it.
_deferred.defer_packages()


@attrs.frozen
class Setup:
    """The server, the bucket and the names of a scenario.

    Attributes:
        endpoint: The address of the emulator.
        bucket: A bucket of the storage server, or an empty text if there are no artifacts.
        folder: The scenario's own folder.
        prefix: The prefix of the names of its models.
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
        """Register a version whose artifact contains the number of its model."""
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
    """Call a function in several forked children at once. The first one ends like a script."""
    children = []
    for number in range(CHILDREN):
        if (child := os.fork()) == 0:
            work(number)
            if number:
                os._exit(0)
            sys.exit(0)  # so Python runs its exit handlers, which takes longer than the work
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * CHILDREN


def fork(setup: Setup) -> None:
    """Fork after the client was used. The parent and its children keep using it."""
    client = setup.connect()
    for number in range(CHILDREN):
        setup.register(client, number)

    def work(number: int) -> None:
        for _ in range(2):
            setup.check(client, number)
        setup.register(client, number, "second")
        setup.check(client, number, "second")
        client.close()

    fork_all(work)
    for number in range(CHILDREN):
        setup.check(client, number, "second")
    client.close()


def fork_while_busy(setup: Setup) -> None:
    """Fork while other threads of the parent are in the middle of calls."""
    client = setup.connect()
    for number in range(CHILDREN):
        setup.register(client, number)
    ended = threading.Event()
    failures: list[BaseException] = []

    def call() -> None:
        try:
            while not ended.is_set():
                client.get_version(setup.name(0))
        except BaseException as error:  # noqa: BLE001  # it fails the scenario
            failures.append(error)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        fork_all(lambda number: setup.check(client, number))
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert not failures, failures


def fork_in_a_list(setup: Setup) -> None:
    """Fork in the middle of a list. Parent and children read it to its end. The registry must be empty before."""
    client = setup.connect()
    for number in range(CHILDREN):
        setup.register(client, number)
    versions = client.list_versions()
    first = next(versions)
    fork_all(lambda _: check_list(first, list(versions), setup))
    check_list(first, list(versions), setup)


def check_list(first: Any, rest: list[Any], setup: Setup) -> None:
    """Check that a list has each version of this scenario once."""
    listed = sorted([first.name, *(version.name for version in rest)])
    assert listed == [setup.name(number) for number in range(CHILDREN)], listed


def fork_with_the_sdk(setup: Setup) -> None:
    """Fork after an object of Google's SDK was created."""
    client = setup.connect()
    for number in range(CHILDREN):
        setup.register(client, number)
    models = [client.to_aiplatform(setup.name(number)) for number in range(CHILDREN)]

    def work(number: int) -> None:
        for _ in range(2):
            assert models[number].api_client.get_model(name=models[number].resource_name).display_name == setup.name(
                number
            )

    work(0)
    fork_all(work)
    work(0)


def fork_under_locks(setup: Setup) -> None:
    """Fork while another thread holds every lock of the client."""
    client = setup.connect()
    for number in range(CHILDREN):
        setup.register(client, number)
    held, ended = threading.Event(), threading.Event()
    holder = threading.Thread(target=hold_locks, args=(client, held, ended))
    holder.start()
    held.wait()
    try:
        fork_all(lambda number: setup.check(client, number))
    finally:
        ended.set()
        holder.join()


def hold_locks(client: RegistryClient, held: threading.Event, ended: threading.Event) -> None:
    vertex = client._vertex
    with client._lock, client._storages, vertex._lock, vertex.rpc._google:
        held.set()
        ended.wait()


def work_elsewhere(setup: Setup, client: RegistryClient, number: int) -> str:
    """Use a client that came from another process, and send errors back to it."""
    setup.register(client, number)
    setup.check(client, number)
    try:
        client.get_version(setup.name(number), 99)
    except RegistryError as error:
        assert pickle.loads(pickle.dumps(error)).resource == error.resource  # noqa: S301  # pickled in this line
        return setup.name(number)
    raise AssertionError(number)


def spawn(setup: Setup) -> None:
    """Pickle a client that's in use, and send it to spawned workers."""
    client = setup.connect(actor="ann@example.com")
    setup.register(client, CHILDREN)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        named = pool.starmap(work_elsewhere, [(setup, client, number) for number in range(CHILDREN)])
    assert named == [setup.name(number) for number in range(CHILDREN)]
    for number in range(CHILDREN):
        setup.check(client, number)


def threads(setup: Setup) -> None:
    """Share one client among threads that all use it at the same time."""
    client = setup.connect()
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            work_elsewhere(setup, client, number)
        except BaseException as error:  # noqa: BLE001  # it fails the scenario
            failures.append(error)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(CHILDREN)]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join()
    assert not failures, failures


def to_thread(setup: Setup) -> None:
    """Share one client among coroutines."""
    client = setup.connect()

    async def work() -> list[str]:
        return await asyncio.gather(
            *(asyncio.to_thread(work_elsewhere, setup, client, number) for number in range(CHILDREN))
        )

    assert asyncio.run(work()) == [setup.name(number) for number in range(CHILDREN)]


def alone(setup: Setup) -> None:
    """Do what one process does. The test decides what's unusual about the process."""
    with setup.connect() as client:
        assert work_elsewhere(setup, client, 0) == setup.name(0)


def unknown_user(setup: Setup) -> None:
    """Do the same as a user without an entry in the system, if this process may change its user.

    Only the real user changes, which decides about the home directory. The effective user can still read Python's
    files.
    """
    with contextlib.suppress(PermissionError):
        os.setreuid(54321, -1)
    alone(setup)


if __name__ == "__main__":
    for scenario, setup in json.loads(sys.argv[1]):
        print(scenario, flush=True)  # noqa: T201  # it shows which one hung
        globals()[scenario](Setup(**setup))
