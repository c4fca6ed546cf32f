"""What a client says if the data file of its registry can't be written or read: at once, and for good."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.file_limits import limited_files
from vertex_registry import ConflictError, InvalidArgumentError, Retry, Stage, StateUnknownError, local_registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from vertex_registry import LocalRegistry

SOURCE: Final = "gs://models/churn"

#: Every change, each with the most requests that it sends until it's refused.
CHANGES: Final[dict[str, tuple[Callable[[LocalRegistry], Any], int]]] = {
    "register": (lambda registry: registry.register_version("churn", SOURCE), 2),
    "register again": (lambda registry: registry.register_version("churn", SOURCE, request_id="run"), 4),
    "register a new name": (lambda registry: registry.register_version("fraud", SOURCE), 5),
    "promote": (lambda registry: registry.set_stage("churn", 1, Stage.PRODUCTION, archive_existing=True), 4),
    "describe": (lambda registry: registry.update_version("churn", 1, description="x"), 3),
    "describe the model": (lambda registry: registry.update_model("churn", description="x"), 3),
    "make default": (lambda registry: registry.set_default("churn", 1), 3),
    "delete": (lambda registry: registry.delete_version("churn", 1), 30),
    "delete the default": (lambda registry: registry.delete_version("churn", 2), 12),
    "delete the model": (lambda registry: registry.delete_model("churn"), 3),
}


def test_a_disk_without_space_is_named_at_once(tmp_path: Path) -> None:
    """No change is retried, each error names the file and what to do, and nothing was changed."""
    data = tmp_path / "registry.db"
    with local_registry(data, retry=Retry(sleep=lambda _: None, call_timeout=5)) as registry:
        for _ in range(2):
            registry.register_version("churn", SOURCE)
        before = list(registry.list_versions("churn"))
        with limited_files(Path(f"{data}-wal").stat().st_size):
            for what, (change, most) in CHANGES.items():
                sent = len(registry.emulator.requests())
                with pytest.raises(
                    ConflictError, match=rf"The data file {data} can't be written: .* Check that the disk"
                ):
                    change(registry)
                assert len(registry.emulator.requests()) - sent <= most, what
            assert list(registry.list_versions("churn")) == before
        assert [model.name for model in registry.list_models()] == ["churn"]
        assert registry.register_version("churn", SOURCE).version == "3"


def test_an_upload_that_cannot_be_completed_names_its_request() -> None:
    """The version exists, so the error carries the request ID, which finishes it once the file can be read again."""
    with local_registry() as registry:
        registry.register_version("churn", SOURCE)
        registry.emulator.fail("GetModel", delay=1e-9, times=2)  # those before the upload
        registry.emulator.fail("GetModel", "FAILED_PRECONDITION", message="The data file is damaged.")
        with pytest.raises(
            StateUnknownError, match=r"was uploaded, but .*: .* The data file is damaged\. .* finish it"
        ) as caught:
            registry.register_version("churn", SOURCE, request_id="run", metadata={"auc": 1})
        assert registry.emulator.faults() == ()
        assert caught.value.request_id == "run"

        assert registry.register_version("churn", SOURCE, request_id="run", metadata={"auc": 1}).version == "2"


def test_a_damaged_row_is_named(tmp_path: Path) -> None:
    """The file is refused, and the error says which row it is and how to save the others."""
    data = tmp_path / "registry.db"
    with local_registry(data) as registry:
        for _ in range(2):
            registry.register_version("churn", SOURCE, aliases=["champion"])
    with contextlib.closing(sqlite3.connect(data)) as file, file:
        file.execute("UPDATE versions SET aliases = replace(aliases, 'champion', 'champiom')")
    with pytest.raises(
        InvalidArgumentError,
        match=r"is damaged: version 2 of .*/models/churn-\w+ isn't as it was written\. Replace it .* --recover NEW",
    ):
        local_registry(data)
