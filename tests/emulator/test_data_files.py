"""What a data file is like to the rest of the machine: who can read it, and what is said when it can't be written."""

from __future__ import annotations

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

BECOME_NOBODY = """
import os, sys
import vertex_registry, vertex_registry.emulator
if os.getuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
"""
OPEN_EMULATOR = "vertex_registry.emulator.Emulator(sys.argv[1], grpc_port=None, rest_port=None).close()"
OPEN_REGISTRY = "vertex_registry.local_registry(sys.argv[1]).close()"


@pytest.fixture(name="umask", params=[0o000, 0o022])
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_data_files_are_readable_by_their_owner_only(
    start: Start, connect: Callable[..., Any], upload: Callable[..., str], tmp_path: Path
) -> None:
    """The file and everything that SQLite puts beside it, whatever the umask allows."""
    upload(connect(start(tmp_path / "registry.db")))

    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}

    assert {"registry.db", "registry.db-wal"} <= set(modes)
    assert set(modes.values()) == {0o600}


def test_a_link_that_leads_nowhere_yet_is_created_like_a_file(start: Start, tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "target.db")

    start(tmp_path / "link.db")

    assert stat.S_IMODE((tmp_path / "target.db").stat().st_mode) == 0o600


def test_an_existing_file_keeps_its_permissions(tmp_path: Path) -> None:
    """Whoever shares a file on purpose goes on sharing it."""
    data = tmp_path / "registry.db"
    Emulator(data).close()
    data.chmod(0o644)

    Emulator(data).close()

    assert stat.S_IMODE(data.stat().st_mode) == 0o644


def test_a_new_file_that_cannot_be_set_up_leaves_nothing_behind(tmp_path: Path) -> None:
    data = tmp_path / "registry.db"
    data.with_name("registry.db-wal").mkdir()  # SQLite can't put its log there

    with pytest.raises(DataFileError, match=r"registry\.db cannot be opened: .* Name a file in a folder"):
        Emulator(data)

    assert not data.exists()


@pytest.fixture(name="shared")
def _shared() -> Iterator[Path]:
    """A folder that another user can enter."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are private
        path = Path(folder)
        path.chmod(0o755)
        yield path
        path.chmod(0o755)


def as_nobody(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Python code as a user who may not override permissions."""
    command = [sys.executable, "-c", f"{BECOME_NOBODY}\n{code}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("code", [OPEN_EMULATOR, OPEN_REGISTRY], ids=["emulator", "local_registry"])
@pytest.mark.parametrize("case", ["new file", "read-only file", "read-only folder"])
def test_a_file_that_cannot_be_written_says_what_to_do(shared: Path, code: str, case: str) -> None:
    """One sentence says what is wrong with which file, and one what to do about it."""
    data = shared / "registry.db"
    if case != "new file":
        Emulator(data).close()
        data.chmod(0o444 if case == "read-only file" else 0o666)
    shared.chmod(0o777 if case == "read-only file" else 0o555)

    last = as_nobody(code, data).stderr.splitlines()[-1]

    kind = "DataFileError" if code == OPEN_EMULATOR else "InvalidArgumentError"
    assert kind in last
    assert f"The data file {data} cannot be opened for writing: Permission denied" in last
    assert last.endswith(
        "Name a file in a folder that you can write to, on a disk that isn't read-only;"
        " without a data file everything is kept in memory."
    )
    assert "disk I/O error" not in last


def test_local_registry_passes_the_sentence_on(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"The data file /proc/registry\.db cannot be opened for writing"):
        local_registry("/proc/registry.db")
    assert list(tmp_path.iterdir()) == []
