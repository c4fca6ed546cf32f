"""Where a local registry can keep its data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vertex_registry import InvalidArgumentError, local_registry

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("path", [5, 5.0, True, b"registry.db", "", "nul\0byte", ["registry.db"], object()])
def test_an_invalid_path(path: object) -> None:
    """The error for a value that isn't the path of a file says what to do."""
    with pytest.raises(InvalidArgumentError, match=r"isn't the path of a file\. Leave it out"):
        local_registry(path)  # type: ignore[arg-type]  # that is the point


def test_a_path_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The home folder is meant by ~, where no shell has replaced it, as for the artifacts folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with local_registry("~/registry.db") as registry:
        registry.register_version("churn", "gs://models/churn/1")
        assert registry.artifacts == tmp_path / "registry.db.artifacts"
    assert (tmp_path / "registry.db").is_file()


@pytest.mark.parametrize("path", ["gs://bucket/registry.db", "sqlite:///registry.db", "file:///tmp/registry.db"])
def test_an_address_in_place_of_a_path(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address isn't a file, and no folder of its name has to be created."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidArgumentError, match="isn't the path of a file"):
        local_registry(path)
