"""Artifacts of versions: upload them before the registration, check, download, and pass them to Google's SDK."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from google.cloud import aiplatform

from vertex_registry import (
    NotFoundError,
    PermissionDeniedError,
    local_registry,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.storage.server import Proxy, Store
    from vertex_registry import LocalRegistry


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalRegistry]:
    """Return a registry with the test's own cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with local_registry() as registry:
        yield registry


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the file names that the scikit-learn images need."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.joblib").write_bytes(b"a model")
    (folder / "metadata.json").write_text("{}")
    return folder


SKLEARN: dict[str, Any] = {"container": "sklearn"}
CUSTOM_IMAGE = "us-docker.pkg.dev/acme/serving/churn:7"


def test_without_access_the_check_is_skipped(registry: LocalRegistry, proxy: Proxy, bucket: str) -> None:
    """Without access to the bucket, the automatic check is skipped. A requested one fails."""
    refusal = {"status": 403, "body": b'{"error": {"message": "No."}}'}
    proxy.fail("GET", "/o?", times=2, **refusal)
    assert registry.register_version("churn", f"gs://{bucket}/m").version == "1"
    with pytest.raises(PermissionDeniedError, match=r"storage\.objects\.list"):
        registry.register_version("churn", f"gs://{bucket}/m", check_source=True)


def test_a_custom_image_is_not_checked(registry: LocalRegistry, proxy: Proxy, bucket: str) -> None:
    """With your own image, files aren't checked."""
    registry.register_version("churn", f"gs://{bucket}/m", container="gcr.io/acme/server:1")
    registry.register_version("churn", f"gs://{bucket}/m", check_source=False)

    assert not proxy.seen


def test_a_failed_upload_registers_nothing(registry: LocalRegistry, proxy: Proxy, bucket: str, folder: Path) -> None:
    """A failed upload registers no model and no version. The next upload only sends the missing files."""
    proxy.fail("POST", "metadata.json", status=403, body=b'{"error": {"message": "No."}}')
    with pytest.raises(PermissionDeniedError):
        registry.register_version("churn", folder, staging_bucket=f"gs://{bucket}", **SKLEARN)
    with pytest.raises(NotFoundError):
        registry.get_model("churn")

    registry.register_version("churn", folder, staging_bucket=f"gs://{bucket}", **SKLEARN)
    assert len(proxy.sent("POST", "metadata.json")) == 2


@pytest.mark.usefixtures("storage_emulator")
def test_versions_can_be_passed_to_googles_sdk(registry: LocalRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """You can pass any version to Google's SDK. The SDK's global settings don't matter, and they don't change."""
    for variable in ("GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST"):
        monkeypatch.delenv(variable, raising=False)
    for number in (1, 2):
        registry.register_version(
            "churn", f"gs://models/churn/{number}", version_name=f"1.{number}", container=CUSTOM_IMAGE
        )
    before = dict(vars(aiplatform.initializer.global_config))
    model = registry.to_aiplatform("churn", 1)

    assert isinstance(model, aiplatform.Model)
    assert (model.version_id, model.uri) == ("1", "gs://models/churn/1")
    assert model.display_name == "churn"
    assert (model.project, model.location) == ("local-project", "us-central1")
    assert [info.version_id for info in model.versioning_registry.list_versions()] == ["1", "2"]
    assert registry.to_aiplatform("churn").version_id == "2"
    assert registry.to_aiplatform("churn", version_name="1.1").version_id == "1"
    assert dict(vars(aiplatform.initializer.global_config)) == before
    with pytest.raises(NotFoundError):
        registry.to_aiplatform("churn", 9)


def test_a_failed_download_is_reported(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed download leaves nothing on this machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store.put("gone/model.pkl", b"x")
    with local_registry(artifacts=store.folder) as registry:
        registry.register_version("churn", f"gs://{store.bucket}/gone")
        store.delete("gone/model.pkl")
        with pytest.raises(NotFoundError, match="There are no files in"):
            registry.download_version("churn", 1, tmp_path / "dest")
        with pytest.raises(NotFoundError):
            registry.download_version("churn", 2, tmp_path / "dest")

    assert not list(tmp_path.iterdir())
