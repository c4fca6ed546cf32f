"""The artifacts of a local registry, for MLflow. MLflow imports this module while it's imported itself."""

from __future__ import annotations

from typing import Any, Final

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import NOT_IMPLEMENTED
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.utils.file_utils import create_tmp_dir

__all__ = ["SCHEME", "LocalArtifacts"]

#: How the URIs of these artifacts begin. The rest is as in a ``file:`` URI.
SCHEME: Final = "vertex-local:"


class LocalArtifacts(LocalArtifactRepository):
    """The artifacts of a local registry. MLflow creates it for a URI that begins with ``vertex-local:``.

    MLflow loads a model from where it is if that's a folder on this machine, and leaves a file of its own there. An
    artifact of a registry stays as it was registered, so it's loaded from a copy.

    Args:
        artifact_uri: The URI.
        *args: Whatever else MLflow passes, which differs between its releases.
        **kwargs: The same, by name.
    """

    def __init__(self, artifact_uri: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(f"file:{artifact_uri.removeprefix(SCHEME)}", *args, **kwargs)

    def download_artifacts(self, artifact_path: str, dst_path: str | None = None) -> str:
        """Copy a file or a folder, and return the copy's path."""
        return str(super().download_artifacts(artifact_path, dst_path or create_tmp_dir()))

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Refuse to change the artifact of a version."""
        del local_file, artifact_path
        raise MlflowException(
            "The artifact of a version can't be changed. Register a new version.", error_code=NOT_IMPLEMENTED
        )

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Refuse to change the artifact of a version."""
        self.log_artifact(local_dir, artifact_path)

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Refuse to change the artifact of a version."""
        self.log_artifact("", artifact_path)
