"""``gcloud ai models``, if gcloud is installed: GA uses v1, beta uses v1beta1."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, Final, Protocol

import pytest

from vertex_registry.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GCLOUD: Final = shutil.which("gcloud")
IMAGE: Final = "us-docker.pkg.dev/acme/images/serve:1"

pytestmark = pytest.mark.skipif(GCLOUD is None, reason="gcloud is not installed: its commands were not tried")


class Gcloud(Protocol):
    """Run a command of gcloud, and return what it prints."""

    def __call__(self, *arguments: str, fails: bool = False) -> Any: ...


@pytest.fixture(name="gcloud")
def _gcloud(tmp_path: Path) -> Iterator[Gcloud]:
    """Point gcloud at an emulator, by its environment alone."""
    with Emulator() as emulator:
        environment = {
            **os.environ,
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM": f"{emulator.rest}/",
            "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
            "CLOUDSDK_CORE_PROJECT": "acme",
            "CLOUDSDK_AI_REGION": "us-central1",
            "CLOUDSDK_CONFIG": str(tmp_path),
            "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
            "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
            "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "true",
            "CLOUDSDK_CORE_DISABLE_FILE_LOGGING": "1",
            "CLOUDSDK_SURVEY_DISABLE_PROMPTS": "true",
        }

        def run(*arguments: str, fails: bool = False) -> Any:
            assert GCLOUD is not None
            done = subprocess.run(
                [GCLOUD, *arguments, "--format=json"], env=environment, capture_output=True, text=True, check=False
            )
            assert (done.returncode != 0) is fails, done.stderr
            return done.stderr if fails else json.loads(done.stdout)

        yield run


def test_gcloud_keeps_a_model(gcloud: Gcloud) -> None:
    """A model is uploaded, versioned, copied, read, listed and deleted by gcloud."""
    first = gcloud(
        "ai",
        "models",
        "upload",
        "--display-name=churn",
        "--model-id=churn",
        f"--container-image-uri={IMAGE}",
        "--artifact-uri=gs://models/churn/1",
        "--container-ports=8080",
        "--container-env-vars=A=B",
        "--container-shared-memory-size-mb=128",
        "--container-deployment-timeout-seconds=60",
        "--container-health-probe-exec=cat,/tmp/healthy",
        "--labels=team=growth",
        "--version-aliases=champion",
        "--version-description=The first",
    )
    assert first["modelVersionId"] == "1"
    second = gcloud(
        "ai", "models", "upload", "--display-name=churn", "--parent-model=churn", f"--container-image-uri={IMAGE}"
    )
    assert (second["model"], second["modelVersionId"]) == (first["model"], "2")

    model = gcloud("ai", "models", "describe", "churn@champion")
    assert model["name"] == f"{first['model']}@1"
    assert model["versionAliases"] == ["champion", "default"]
    assert model["labels"] == {"team": "growth"}
    assert model["containerSpec"]["sharedMemorySizeMb"] == "128"
    assert model["containerSpec"]["deploymentTimeout"] == "60s"
    copied = gcloud("ai", "models", "copy", f"--source-model={first['model']}@1", "--region=europe-west4")
    assert "/locations/europe-west4/models/" in copied["model"]
    assert [each["versionId"] for each in gcloud("ai", "models", "list-version", "churn")] == ["1", "2"]
    (listed,) = gcloud("ai", "models", "list")
    assert (listed["name"], listed["displayName"]) == (first["model"], "churn")

    deleted = gcloud("ai", "models", "delete-version", "churn@2")
    assert gcloud("ai", "operations", "describe", deleted["name"].rpartition("/")[2])["done"]
    gcloud("ai", "models", "delete", "churn")
    assert "NOT_FOUND" in gcloud("ai", "models", "describe", "churn", fails=True)


def test_gcloud_beta_speaks_v1beta1(gcloud: Gcloud) -> None:
    """The beta commands use the other version of the API, poll its operations, and report errors."""
    made = gcloud(
        "beta", "ai", "models", "upload", "--display-name=churn", "--model-id=churn", f"--container-image-uri={IMAGE}"
    )
    assert made["modelVersionId"] == "1"
    refused = gcloud(
        "beta", "ai", "models", "upload", "--display-name=x", f"--container-image-uri={IMAGE}", "--labels=UPPER=x",
        fails=True,
    )  # fmt: skip
    assert "model.labels" in refused
