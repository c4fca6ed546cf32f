"""An Airflow DAG that registers a model, promotes it if it's better, and rolls back; Google's operator next to ours.

`python examples/run_airflow.py` runs it on this machine.
"""

from __future__ import annotations

import datetime as dt

from airflow.providers.google.cloud.operators.vertex_ai.model_service import UploadModelOperator
from airflow.providers.google.common.hooks.base_google import GoogleBaseHook
from airflow.sdk import dag, task

from vertex_registry import NotFoundError, RegistryClient

PROJECT = "acme"
LOCATION = "us-central1"
IMAGE = "us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-6:latest"


def connect() -> RegistryClient:
    """Return a client with the credentials of an Airflow connection."""
    hook = GoogleBaseHook(gcp_conn_id="google_cloud_default")
    return RegistryClient(project=PROJECT, location=LOCATION, credentials=hook.get_credentials())


@task
def register(source: str, accuracy: float, run_id: str | None = None) -> str:
    """Register the artifact. A task that Airflow retries gets the version that it created before."""
    with connect() as registry:
        version = registry.register_version(
            "churn", source, metadata={"accuracy": accuracy}, request_id=f"airflow-{run_id}"
        )
        return version.version


@task
def promote_if_better(version: str) -> str:
    """Promote the version if nothing in Production is better. Return what's in Production now."""
    with connect() as registry:
        candidate = registry.get_version("churn", version)
        try:
            current = registry.get_version("churn", stage="production")
        except NotFoundError:
            current = None
        if current is None or candidate.metadata["accuracy"] > current.metadata["accuracy"]:
            registry.set_stage("churn", candidate, "production", archive_existing=True)
        return registry.get_version("churn", stage="production").version


@dag(schedule=None, start_date=dt.datetime(2026, 1, 1, tzinfo=dt.UTC), catchup=False)
def train_and_register() -> None:
    """Register with this package, and with Google's operator beside it."""
    promote_if_better(register("gs://models/churn/1", 0.93))

    UploadModelOperator(
        task_id="upload_with_google",
        project_id=PROJECT,
        region=LOCATION,
        model={
            "display_name": "churn-by-operator",
            "artifact_uri": "gs://models/churn/1",
            "container_spec": {"image_uri": IMAGE},
        },
    )


train_and_register()
