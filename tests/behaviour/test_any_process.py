"""Clients work in any process: after a fork, in threads, under asyncio, pickled, without a home, behind a proxy."""

from __future__ import annotations

import copy
import json
import os
import pickle
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import google.auth.credentials
import pytest
from google.oauth2.credentials import Credentials

from vertex_registry import ClientClosedError, InvalidArgumentError, RegistryClient, Retry, local_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.behaviour.conftest import Backend, Connect, NewName
    from tests.storage.server import StorageServer
    from vertex_registry.emulator import Emulator

pytestmark = [pytest.mark.no_switches, pytest.mark.emulator_only("it starts processes")]


def run(*arguments: str, seconds: float = 120, **options: Any) -> None:
    """Run Python and wait for it. If it hangs, kill its processes and show their output, and where they hung."""
    # From Python 3.12 on, a fork of a process that has threads warns. These tests show that it works.
    command = [sys.executable, "-W", "ignore", "-X", "faulthandler", *arguments]
    process = subprocess.Popen(command, stdout=-1, stderr=-2, text=True, start_new_session=True, **options)
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGABRT)  # its forked children, too: each prints where its threads are
        said, _ = process.communicate()
        pytest.fail(f"It was still running after {seconds:.0f} s:\n{said}")
    assert process.returncode == 0, said


@pytest.fixture
def endpoint(backend: Backend, emulator: Emulator) -> str:
    """Return the address that a client in another process connects to."""
    return emulator.grpc if backend.transport == "grpc" else emulator.rest


@pytest.fixture
def play(endpoint: str, name: NewName, tmp_path: Path) -> Callable[..., None]:
    """Return a function that runs scenarios of `processes`, one after the other, in another process."""

    def play(
        *scenarios: str,
        storage: StorageServer | None = None,
        bucket: str = "",
        without: Sequence[str] = (),
        **more: str,
    ) -> None:
        places = [
            {"endpoint": endpoint, "bucket": bucket, "folder": str(tmp_path), "prefix": name(f"-{scenario}")}
            for scenario in scenarios
        ]
        environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
        if storage is not None:
            environment["STORAGE_EMULATOR_HOST"] = storage.url
        environment = {name: value for name, value in environment.items() if name not in without} | more
        played = json.dumps(list(zip(scenarios, places, strict=True)))
        run("-m", "tests.behaviour.processes", played, env=environment)

    return play


def test_forks_threads_and_coroutines(play: Callable[..., None], backend: Backend) -> None:
    """A client works in forked processes, in threads and under asyncio: see each of these scenarios."""
    both = ("fork", "threads")
    before = ("fork_in_a_list", "fork_while_busy", "fork_under_locks", "to_thread")
    # The SDK comes last: once Google's whole package is imported, forks and exits take longer.
    play(*(*before, *both, "fork_with_the_sdk") if backend.transport == "grpc" else both)


@pytest.mark.only("rest")
def test_forks_and_threads_with_artifacts(
    play: Callable[..., None], storage_server: StorageServer, bucket: str
) -> None:
    """Uploads and downloads work in forked and spawned processes and in threads."""
    play("fork", "spawn", "threads", storage=storage_server, bucket=bucket)


@pytest.mark.only("grpc")
def test_no_home(play: Callable[..., None], storage_server: StorageServer, bucket: str, tmp_path: Path) -> None:
    """A user without a home directory and without an entry in the system can register, upload and download."""
    tmp_path.chmod(0o777)
    unset = ("HOME", "XDG_CACHE_HOME", "USER", "LOGNAME")
    play("unknown_user", storage=storage_server, bucket=bucket, without=unset)


def test_a_proxy(play: Callable[..., None], storage_server: StorageServer, bucket: str) -> None:
    """Neither calls nor uploads to an emulator on this machine go through a proxy."""
    proxies = dict.fromkeys(
        ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"), "http://127.0.0.1:1"
    )
    play("alone", storage=storage_server, bucket=bucket, without=("NO_PROXY", "no_proxy"), **proxies)


def test_a_copy(connect: Connect, name: NewName) -> None:
    """A copied or pickled client has the same settings and its own connections."""
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
    """If a setting can't be pickled, the error says which one and what to do. A token can be pickled."""
    no_credentials = connect(credentials=Unpicklable(), retry=Retry())  # type: ignore[no-untyped-call]  # untyped upstream
    with pytest.raises(InvalidArgumentError, match="its credentials can't. Pass credentials as the path") as caught:
        pickle.dumps(no_credentials)
    assert "nobody-may-see" not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None
    with pytest.raises(InvalidArgumentError, match="its new_id can't. Use a function of a module"):
        copy.deepcopy(connect(new_id=lambda: "1", retry=Retry()))
    with_a_token = connect(credentials=Credentials("token"), retry=Retry())  # type: ignore[no-untyped-call]  # upstream
    assert list(pickle.loads(pickle.dumps(with_a_token)).list_models()) == []  # noqa: S301  # ours


def test_a_retry() -> None:
    """A `Retry` can be pickled and copied, and is equal to its copy."""
    retry = Retry(call_timeout=30)
    assert pickle.loads(pickle.dumps(retry)) == copy.deepcopy(retry) == retry  # noqa: S301  # ours
    assert 0 <= copy.deepcopy(retry).random() < 1


def test_a_local_registry_that_is_pickled() -> None:
    """A pickled local registry becomes a client of the same emulator, which ends with the original."""
    with local_registry() as registry:
        registry.register_version("churn", "gs://models/1")
        copied = pickle.loads(pickle.dumps(registry))  # noqa: S301  # ours
        assert type(copied) is RegistryClient
        with copied:
            assert copied.get_version("churn").version == "1"
        assert registry.get_version("churn").version == "1"


LOCAL = """
import os, sys
from vertex_registry import _deferred, local_registry

_deferred.defer_packages()

with local_registry() as registry:
    registry.register_version("churn", "gs://models/1")
    if (child := os.fork()) == 0:
        registry.register_version("churn", "gs://models/2")
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert registry.latest_version("churn").version == "2"
"""


def test_a_local_registry_that_is_forked() -> None:
    """A child uses its parent's emulator, and leaving the context in the child doesn't end it."""
    run("-c", LOCAL)


GEVENT = """
from gevent import monkey
monkey.patch_all()
import sys
from vertex_registry import ConflictError, RegistryClient, _deferred, local_registry

_deferred.defer_packages()

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


def test_gevent(endpoint: str) -> None:
    """Under gevent, a client works, and a local registry immediately raises an error."""
    pytest.importorskip("gevent")
    run("-c", GEVENT, endpoint)
