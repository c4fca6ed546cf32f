"""Metadata that doesn't fit into labels, in a file next to the artifact."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from vertex_registry import InvalidArgumentError, NotFoundError, RegistryError, local_registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vertex_registry import LocalRegistry

LARGE: dict[str, Any] = {"notes": "n" * 100_000, "Größe": {"a": [1, 2.5, None, True]}, "half": "\ud800"}


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalRegistry]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with local_registry() as registry:
        yield registry


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.joblib").write_bytes(b"a model")
    return folder


def test_both_kinds_come_back_as_one(registry: LocalRegistry, model: Path) -> None:
    """What's in the file and what's in labels is one JSON object, and lists only see the labels."""
    version = registry.register_version(
        "churn", model, metadata={"team": "growth"}, file_metadata=LARGE, container="sklearn"
    )

    assert registry.get_metadata("churn", 1) == {"team": "growth", **LARGE}
    assert registry.get_metadata("churn", 1)["half"] == "\ud800"
    assert version.metadata == {"team": "growth"}
    assert version.metadata_file == f"{version.artifact_uri}/vertex-registry-metadata.json"
    assert version.to_dict()["metadata_file"] == version.metadata_file
    assert registry.list_versions("churn").to_dicts()[0]["metadata_file"] == version.metadata_file
    assert not (model / "vertex-registry-metadata.json").exists()


def test_what_is_written_later_wins(registry: LocalRegistry, model: Path) -> None:
    """The file stays as it was registered, also through updates and promotions."""
    registry.register_version("churn", model, file_metadata={"owner": "Ann", "size": 3}, container="sklearn")
    registry.update_version("churn", 1, metadata={"owner": "Ben"})
    version = registry.set_stage("churn", 1, "production")

    assert version.metadata_file is not None
    assert registry.get_metadata("churn", 1) == {"owner": "Ben", "size": 3}


def test_no_file(registry: LocalRegistry, model: Path) -> None:
    """A version without a file is read without a request for one. An empty object creates no file."""
    version = registry.register_version("churn", model, metadata={"a": 1}, file_metadata={}, container="sklearn")
    registry.register_version("churn", "gs://models/churn/2", metadata={"a": 2})

    assert version.metadata_file is None
    assert registry.get_metadata("churn", 1) == {"a": 1}
    assert registry.get_metadata("churn") == {"a": 2}


def test_another_file_of_that_name_is_replaced(registry: LocalRegistry, model: Path, tmp_path: Path) -> None:
    """The folder of a version can be registered again, with the metadata of the new version."""
    registry.register_version("churn", model, file_metadata={"a": 1}, container="sklearn")
    again = registry.download_version("churn", 1, tmp_path / "again")
    registry.register_version("churn", again, file_metadata={"a": 2}, container="sklearn")
    registry.register_version("churn", again, container="sklearn")

    assert registry.get_metadata("churn", 2) == {"a": 2}
    assert registry.get_metadata("churn", 3) == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metadata": {"a": 1}, "file_metadata": {"a": 2}}, "both have 'a'"),
        ({"source": "gs://models/churn", "file_metadata": {"a": 2}}, "in the folder that's uploaded"),
        ({"file_metadata": {"a": float("nan")}}, "isn't a finite number"),
        ({"file_metadata": {"a": "x" * 2**24}}, "16,777,216 are allowed"),
    ],
)
def test_what_is_refused(registry: LocalRegistry, model: Path, arguments: dict[str, Any], message: str) -> None:
    """Nothing is registered if the file can't be written correctly."""
    with pytest.raises(InvalidArgumentError, match=message):
        registry.register_version("churn", arguments.pop("source", model), container="sklearn", **arguments)

    assert list(registry.list_models()) == []


def test_a_file_that_is_gone_or_another(registry: LocalRegistry, model: Path) -> None:
    """The error names the file."""
    version = registry.register_version("churn", model, file_metadata={"a": 1}, container="sklearn")
    path = registry.artifacts / str(version.metadata_file).removeprefix("gs://artifacts.localhost/")
    path.write_text("[1]")
    with pytest.raises(RegistryError, match="isn't the file that was registered"):
        registry.get_metadata("churn", 1)
    path.unlink()
    with pytest.raises(NotFoundError, match="vertex-registry-metadata.json doesn't exist"):
        registry.get_metadata("churn", 1)


def test_what_fits(registry: LocalRegistry) -> None:
    """`metadata_fits` agrees with what can be registered."""
    assert registry.metadata_fits({"a": 1}, version_name="1")
    assert not registry.metadata_fits(LARGE)
    with pytest.raises(InvalidArgumentError, match="isn't a finite number"):
        registry.metadata_fits({"a": float("inf")})
