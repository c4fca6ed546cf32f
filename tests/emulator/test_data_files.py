"""Data files: who can read them, and what the error says if one can't be written."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from vertex_registry import InvalidArgumentError, local_registry
from vertex_registry.emulator import DataFileError, Emulator

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
    data.with_name("registry.db-wal").mkdir()  # SQLite can't put its log there

    with pytest.raises(DataFileError, match=r"registry\.db can't be opened: .* Name a file in a folder"):
        Emulator(data)

    assert not data.exists()


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
