"""Any process may use a client: after a fork, in threads, under asyncio, pickled, with no home, behind a proxy."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import google.auth.credentials
import pytest
from google.oauth2.credentials import Credentials

from vertex_registry import ClientClosedError, InvalidArgumentError, RegistryClient, Retry, local_registry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.behaviour.conftest import Backend, Connect, NewName
    from tests.storage.server import StorageServer
    from vertex_registry.emulator import Emulator

pytestmark = [pytest.mark.no_switches, pytest.mark.emulator_only("it starts processes")]


@pytest.fixture
def artifacts(request: pytest.FixtureRequest) -> bool:
    """Whether models have artifacts. A test that is parametrized by it runs with a real storage server as well."""
    return bool(getattr(request, "param", False))


with_and_without_artifacts = pytest.mark.parametrize(
    "artifacts", [False, True], ids=["names", "artifacts"], indirect=True
)


@pytest.fixture
def start(
    request: pytest.FixtureRequest,
    emulator: Emulator,
    backend: Backend,
    name: NewName,
    tmp_path: Path,
    artifacts: bool,
) -> Callable[..., None]:
    """Return a function that runs a scenario of `processes` in a process of its own."""
    settings = {
        "endpoint": emulator.grpc if backend.transport == "grpc" else emulator.rest,
        "bucket": request.getfixturevalue("bucket") if artifacts else "",
        "folder": str(tmp_path),
        "prefix": name(),
    }
    known = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    if artifacts:
        storage: StorageServer = request.getfixturevalue("storage_server")
        known["STORAGE_EMULATOR_HOST"] = storage.url

    def start(scenario: str, *, without: tuple[str, ...] = (), **variables: str) -> None:
        environment = {name: value for name, value in known.items() if name not in without} | variables
        # From Python 3.12 on a fork of a process that has threads warns. That it works is what is tested.
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "tests.behaviour.processes"]
        ended = subprocess.run(
            [*command, scenario, json.dumps(settings)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr

    return start


@with_and_without_artifacts
def test_a_fork(start: Callable[..., None]) -> None:
    """A child has its own connections: it gets its own answers, at once, and its parent's go on."""
    start("fork")


def test_a_fork_while_threads_call(start: Callable[..., None]) -> None:
    """That holds if other threads of the parent are in the middle of calls."""
    start("fork_while_busy")


def test_a_fork_under_locks(start: Callable[..., None]) -> None:
    """A lock that a thread of the parent held doesn't stop a child."""
    start("fork_under_locks")


def test_a_fork_in_a_list(start: Callable[..., None]) -> None:
    """A list that was begun before a fork goes on in the parent and in each child."""
    start("fork_in_a_list")


def test_a_fork_with_an_object_of_the_sdk(start: Callable[..., None]) -> None:
    """An object from `to_aiplatform` has its own connection in each process."""
    start("fork_with_the_sdk")


@with_and_without_artifacts
def test_workers(start: Callable[..., None]) -> None:
    """A client can be pickled to workers, and errors come back."""
    start("spawn")


@with_and_without_artifacts
def test_threads(start: Callable[..., None]) -> None:
    """Threads share a client."""
    start("threads")


def test_asyncio(start: Callable[..., None]) -> None:
    """Coroutines share a client with `asyncio.to_thread`."""
    start("to_thread")


@with_and_without_artifacts
def test_no_home(start: Callable[..., None], tmp_path: Path) -> None:
    """A user without a home, whom the machine doesn't know, needs none: neither for calls nor for a destination."""
    tmp_path.chmod(0o777)
    start("stranger", without=("HOME", "XDG_CACHE_HOME", "USER", "LOGNAME"))


@with_and_without_artifacts
def test_a_proxy(start: Callable[..., None]) -> None:
    """An emulator on this machine isn't asked through a proxy."""
    proxies = dict.fromkeys(
        ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"), "http://127.0.0.1:1"
    )
    start("alone", without=("NO_PROXY", "no_proxy"), **proxies)


def test_a_copy(connect: Connect, name: NewName) -> None:
    """A copy of a client and one that was pickled have its settings, and connections of their own."""
    client = connect(actor="ann@example.com", retry=Retry(call_timeout=30))
    given = name()
    client.register_version(given, "gs://models/1", stage="Staging")
    for copied in (copy.deepcopy(client), copy.copy(client), pickle.loads(pickle.dumps(client))):  # noqa: S301  # ours
        assert repr(copied) == repr(client)
        copied.set_stage(given, 1, "Production")
        assert copied.get_version(given).stage_changed_by == "ann@example.com"
        copied.close()
        assert client.get_version(given).name == given
    client.close()
    with pytest.raises(ClientClosedError, match="closed"):
        pickle.loads(pickle.dumps(client)).get_version(given)  # noqa: S301  # likewise


class Unpicklable(google.auth.credentials.AnonymousCredentials):
    def __reduce__(self) -> Any:
        raise TypeError("cannot pickle 'a-token-nobody-may-see'")


def test_settings_that_cannot_be_pickled(connect: Connect) -> None:
    """Where a setting can't be pickled, the error says which one and what to do; a token can."""
    no_credentials = connect(credentials=Unpicklable())  # type: ignore[no-untyped-call]  # untyped upstream
    with pytest.raises(InvalidArgumentError, match="its credentials can't. Pass credentials as the path") as caught:
        pickle.dumps(no_credentials)
    assert "nobody-may-see" not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None
    with pytest.raises(InvalidArgumentError, match="its new_id can't. Pass a function of a module"):
        copy.deepcopy(connect(new_id=lambda: "1"))
    with_a_token = connect(credentials=Credentials("token"), retry=Retry())  # type: ignore[no-untyped-call]  # upstream
    assert list(pickle.loads(pickle.dumps(with_a_token)).list_models()) == []  # noqa: S301  # ours


def test_a_retry() -> None:
    """A `Retry` can be pickled and copied, and is equal to its copy."""
    retry = Retry(call_timeout=30)
    assert pickle.loads(pickle.dumps(retry)) == copy.deepcopy(retry) == retry  # noqa: S301  # ours
    assert 0 <= copy.deepcopy(retry).random() < 1


def test_a_local_registry_that_is_pickled() -> None:
    """A local registry is pickled as a client of the same emulator, which ends with the original."""
    with local_registry() as registry:
        registry.register_version("churn", "gs://models/1")
        copied = pickle.loads(pickle.dumps(registry))  # noqa: S301  # ours
        assert type(copied) is RegistryClient
        with copied:
            assert copied.get_version("churn").version == "1"
        assert registry.get_version("churn").version == "1"


LOCAL = """
import os, sys
from vertex_registry import local_registry

with local_registry() as registry:
    registry.register_version("churn", "gs://models/1")
    if (child := os.fork()) == 0:
        registry.register_version("churn", "gs://models/2")
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert registry.latest_version("churn").version == "2"
"""


def test_a_local_registry_that_is_forked() -> None:
    """A child uses its parent's emulator, and doesn't end it when it leaves the block."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", LOCAL]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr


GEVENT = """
from gevent import monkey
monkey.patch_all()
import sys
from vertex_registry import ConflictError, RegistryClient, local_registry

try:
    local_registry()
except ConflictError as error:
    assert "gevent" in str(error) and "python -m vertex_registry.emulator" in str(error), error
else:
    sys.exit("it started an emulator")
import gevent
with RegistryClient(endpoint=sys.argv[1]) as registry:
    registry.register_version("churn", "gs://models/1")
    readers = [gevent.spawn(registry.get_version, "churn") for _ in range(4)]
    assert [reader.get().name for reader in readers] == ["churn"] * 4
"""


def test_gevent(backend: Backend, emulator: Emulator) -> None:
    """Under gevent a client works; a local registry says at once that it can't, and what to do."""
    pytest.importorskip("gevent")
    endpoint = emulator.grpc if backend.transport == "grpc" else emulator.rest
    command = [sys.executable, "-W", "ignore", "-c", GEVENT, endpoint]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
