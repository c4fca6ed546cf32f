"""Data files: who can read them, and what the error says if one can't be written."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import platform
import shutil
import sqlite3
import stat
import struct
import subprocess
import sys
import tempfile
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import requests
from google.api_core import exceptions

from tests.file_limits import limited_files
from vertex_registry import InvalidArgumentError, local_registry
from vertex_registry.emulator import DataFileError, Emulator
from vertex_registry.emulator._data_file import APPLICATION_ID, SCHEMA_VERSION
from vertex_registry.emulator._dispatch import data_file_failure
from vertex_registry.emulator._status import Code
from vertex_registry.emulator._store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Start = Callable[..., Emulator]

#: Opens each file that it is given twice, as a user whom permissions bind, and prints the errors.
OPEN_AS_NOBODY = """
import json, os, sys
from vertex_registry import local_registry
from vertex_registry.emulator import Emulator
if os.getuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
errors = []
for path in sys.argv[1:]:
    for open_file in (lambda: Emulator(path, grpc_port=None, rest_port=None), lambda: local_registry(path)):
        try:
            open_file().close()
        except Exception as error:
            errors.append([path, type(error).__name__, str(error)])
print(json.dumps(errors))
"""


@pytest.fixture(name="umask", params=[0o000, 0o022])
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_data_files_are_readable_by_their_owner_only(
    start: Start, connect: Callable[..., Any], upload: Callable[..., str], tmp_path: Path
) -> None:
    """The file and everything that SQLite puts beside it are private, whatever the umask allows."""
    upload(connect(start(tmp_path / "registry.db")))

    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}

    assert {"registry.db", "registry.db-wal"} <= set(modes)
    assert set(modes.values()) == {0o600}


def test_a_link_that_leads_nowhere_yet_is_created_like_a_file(start: Start, tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "target.db")

    start(tmp_path / "link.db")

    assert stat.S_IMODE((tmp_path / "target.db").stat().st_mode) == 0o600


def test_an_existing_file_keeps_its_permissions(tmp_path: Path) -> None:
    """If you share a file on purpose, it stays shared."""
    data = tmp_path / "registry.db"
    Emulator(data).close()
    data.chmod(0o644)

    Emulator(data).close()

    assert stat.S_IMODE(data.stat().st_mode) == 0o644


def test_a_new_file_that_cannot_be_set_up_leaves_nothing_behind(tmp_path: Path) -> None:
    data = tmp_path / "registry.db"

    with limited_files(0), pytest.raises(DataFileError, match=r"registry\.db can't be opened: .* Check that the disk"):
        Emulator(data, grpc_port=None, rest_port=None)

    assert list(tmp_path.iterdir()) == []


def test_an_update_of_the_format_that_fails_changes_nothing(tmp_path: Path) -> None:
    """A file of the last format stays one if there's no space, and is updated when there is."""
    data = tmp_path / "registry.db"
    with contextlib.closing(sqlite3.connect(data)) as file, file:
        file.executescript((Path(__file__).parent / "format_3.sql").read_text())
        file.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        file.execute("PRAGMA user_version = 3")
    before = data.read_bytes()

    with limited_files(1000), pytest.raises(DataFileError, match=r"can't be opened: .* Check that the disk"):
        Emulator(data, grpc_port=None, rest_port=None)
    assert data.read_bytes()[100:] == before[100:]  # but for the header, which says how SQLite keeps its log

    Emulator(data, grpc_port=None, rest_port=None).close()
    with contextlib.closing(sqlite3.connect(data)) as file:
        assert file.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)


def test_a_file_that_cannot_be_written_says_what_to_do() -> None:
    """One sentence says what's wrong with which file, and another what to do."""
    with tempfile.TemporaryDirectory() as there:  # pytest's own folders are private
        Path(there).chmod(0o755)
        files = [Path(there) / folder / "registry.db" for folder in ("new-file", "read-only-file", "read-only-folder")]
        for data, data_mode, folder_mode in zip(files, (None, 0o444, 0o666), (0o555, 0o777, 0o555), strict=True):
            data.parent.mkdir()
            if data_mode is not None:
                Emulator(data).close()
                data.chmod(data_mode)
            data.parent.chmod(folder_mode)

        command = [sys.executable, "-c", OPEN_AS_NOBODY, *map(str, files)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)

        for data in files:
            data.parent.chmod(0o755)
    told = json.loads(done.stdout)
    assert [(path, kind) for path, kind, _ in told] == [
        (str(data), kind) for data in files for kind in ("DataFileError", "InvalidArgumentError")
    ]
    for path, _, message in told:
        assert message.startswith(f"The data file {path} can't be opened for writing: Permission denied")
        assert message.endswith(
            "Name a file in a folder that you can write to, on a disk that isn't read-only;"
            " without a data file everything is kept in memory."
        )


def test_local_registry_passes_the_sentence_on(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"The data file /proc/registry\.db can't be opened for writing"):
        local_registry("/proc/registry.db")
    assert list(tmp_path.iterdir()) == []


def test_local_registry_refuses_a_storage_that_is_not_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is one of this package, names the variable, and doesn't show a password."""
    for address in ("ftp://storage", "127.0.0.1:99999", "http://ann:secret@storage"):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        with pytest.raises(InvalidArgumentError, match="STORAGE_EMULATOR_HOST sets it") as caught:
            local_registry()
        assert "secret" not in str(caught.value)


# --- a file that fails while it's open -----------------------------------------


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_a_write_that_fails_is_refused_for_good(
    start: Start,
    connect: Callable[..., Any],
    upload: Callable[..., str],
    parent: str,
    tmp_path: Path,
    transport: str,
) -> None:
    """No client of Google's retries that code, reads go on, and nothing of the write remains."""
    data = tmp_path / "registry.db"
    client = connect(start(data), transport)
    upload(client, model_id="churn")
    with limited_files(Path(f"{data}-wal").stat().st_size):
        for call in (
            lambda: upload(client, model_id="fraud"),
            lambda: client.update_model(
                model={"name": f"{parent}/models/churn", "description": "x"}, update_mask="description"
            ),
            lambda: client.merge_version_aliases(name=f"{parent}/models/churn@1", version_aliases=["champion"]),
            lambda: client.delete_model(name=f"{parent}/models/churn"),
        ):
            with pytest.raises(
                exceptions.BadRequest, match=f"400 .*The data file {data} can't be written: .* the disk"
            ):
                call()
        assert client.get_model(name=f"{parent}/models/churn").version_aliases == ["default"]

    assert [model.name for model in client.list_models(parent=parent)] == [f"{parent}/models/churn"]
    assert upload(client, model_id="fraud") == f"{parent}/models/fraud@1"


#: The numbers of fsync and fdatasync, by machine, and what begins and ends a program that refuses them with EIO.
SYNCS: Final = {"x86_64": (74, 75), "aarch64": (82, 83)}
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, FILTER = 22, 38, 2


def refuse_syncs() -> None:
    """Let the kernel refuse to confirm what this thread writes, until the thread ends."""
    fsync, fdatasync = SYNCS[platform.machine()]
    program = ((0x20, 0, 0, 0), (0x15, 1, 0, fdatasync), (0x15, 0, 1, fsync), (0x06, 0, 0, 0x00050000 | errno.EIO))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in (*program, (6, 0, 0, 0x7FFF0000))))
    described = struct.pack("HxxxxxxP", len(program) + 1, ctypes.addressof(code))
    library = ctypes.CDLL(None)
    assert library.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert library.prctl(PR_SET_SECCOMP, FILTER, described) == 0


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() not in SYNCS, reason="needs Linux's seccomp")
def test_a_write_that_may_be_on_the_disk_is_not_refused_for_good(tmp_path: Path) -> None:
    """If only the disk's confirmation is missing, nobody knows whether it was written, so clients may retry it."""
    store = Store(str(tmp_path / "registry.db"))
    with store.writing():
        key = store.add_model("p", "m", display_name="m", base_model="", time=1, body=b"")

    def write() -> DataFileError:
        refuse_syncs()
        with pytest.raises(DataFileError, match="can't be written: disk I/O error") as caught, store.writing():
            store.change_model(key, display_name="n", time=2, body=b"")
        return caught.value

    with futures.ThreadPoolExecutor(1) as pool:
        error = pool.submit(write).result()
    assert error.may_be_written
    assert data_file_failure(error).code is Code.INTERNAL
    with store.writing():
        store.change_model(key, display_name="n", time=2, body=b"")
    store.close()


@pytest.mark.parametrize("how", ["deleted", "moved", "replaced", "log moved", "log of a link moved"])
def test_nothing_is_written_to_a_file_that_is_gone(
    start: Start, connect: Callable[..., Any], upload: Callable[..., str], parent: str, tmp_path: Path, how: str
) -> None:
    """A write to it would be lost when the emulator ends. Once the file is back, it can be written again."""
    data, log = tmp_path / "registry.db", tmp_path / "registry.db-wal"
    (tmp_path / "link").symlink_to(data)
    emulator = start(tmp_path / "link" if "link" in how else data)
    client = connect(emulator)
    upload(client, model_id="churn")
    gone, aside = (log if "log" in how else data), tmp_path / "aside"
    gone.rename(aside)
    if how == "replaced":
        shutil.copy(aside, gone)
    elif how == "deleted":
        aside.unlink()

    with pytest.raises(
        exceptions.FailedPrecondition, match=f"{gone}.* was deleted, moved or replaced while it was open"
    ):
        upload(client, model_id="fraud")
    answer = requests.post(f"{emulator.rest}/emulator/reset", timeout=10)
    assert (answer.status_code, answer.json()["error"]["status"]) == (400, "FAILED_PRECONDITION")
    with pytest.raises(DataFileError, match="was deleted, moved or replaced"):
        emulator.reset()
    assert client.get_model(name=f"{parent}/models/churn").name == f"{parent}/models/churn"

    if aside.exists():
        aside.rename(gone)
        assert upload(client, model_id="fraud") == f"{parent}/models/fraud@1"


def test_a_file_that_is_moved_while_it_is_open_is_complete_once_it_is_closed(
    start: Start, connect: Callable[..., Any], upload: Callable[..., str], parent: str, tmp_path: Path
) -> None:
    """SQLite leaves the log of such a file where it was, so everything has to be in the file before."""
    data, moved = tmp_path / "registry.db", tmp_path / "moved.db"
    with start(data, rest_port=None) as emulator:
        upload(connect(emulator), model_id="churn")
        data.rename(moved)

    client = connect(start(moved, rest_port=None))
    assert client.get_model(name=f"{parent}/models/churn").version_id == "1"


def test_a_copy_in_place_of_a_deleted_file_is_what_it_was(
    start: Start, connect: Callable[..., Any], upload: Callable[..., str], parent: str, tmp_path: Path
) -> None:
    """Writes to a file that was deleted aren't carried out once more in the copy that took its place."""
    data, copy = tmp_path / "registry.db", tmp_path / "copy.db"
    with start(data, rest_port=None) as emulator:
        upload(connect(emulator), model_id="churn")
    shutil.copy(data, copy)
    with start(data, rest_port=None) as emulator:
        upload(connect(emulator), model_id="fraud")
        data.unlink()
        copy.rename(data)

    (model,) = connect(start(data, rest_port=None)).list_models(parent=parent)
    assert model.name == f"{parent}/models/churn"


def test_a_forked_process_leaves_its_parents_file_open(tmp_path: Path) -> None:
    """If it closes the store that it inherited, the parent can still write, and its log stays."""
    store = Store(str(tmp_path / "registry.db"))
    child = os.fork()
    if not child:  # pragma: no cover - in the forked process
        store.close()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    with store.writing():
        store.add_model("p", "m", display_name="m", base_model="", time=1, body=b"")
    store.close()


@pytest.mark.parametrize("how", ["deleted", "moved"])
def test_no_other_emulator_takes_the_log_of_a_file_that_is_gone(
    start: Start, connect: Callable[..., Any], upload: Callable[..., str], tmp_path: Path, how: str
) -> None:
    """SQLite would delete the log of the file that's still open, and with it what was written last."""
    data, aside = tmp_path / "registry.db", tmp_path / "aside"
    emulator = start(data, rest_port=None)
    client = connect(emulator)
    upload(client, model_id="churn")
    log = tmp_path / "registry.db-wal"
    before = log.read_bytes()
    data.rename(aside)
    if how == "deleted":
        aside.unlink()

    with pytest.raises(DataFileError, match="because another emulator still has .*wal open, .* Stop that one") as error:
        start(data, rest_port=None)

    assert error.value.in_use
    assert not data.exists()
    assert log.read_bytes() == before
    if how == "moved":
        aside.rename(data)
        assert upload(client, model_id="fraud").endswith("fraud@1")
    emulator.close()
    start(data, rest_port=None)


def test_a_folder_of_another_name_is_another_folder(
    start: Start,
    connect: Callable[..., Any],
    upload: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process that changes its folder still writes to the file that it opened."""
    monkeypatch.chdir(tmp_path)
    client = connect(start("registry.db"))
    monkeypatch.chdir("/")

    assert upload(client).endswith("@1")
