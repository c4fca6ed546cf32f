"""A Kubeflow pipeline that registers a model and promotes it if it's better; Google's component next to ours.

`python examples/run_kubeflow.py` compiles it, and runs our components on this machine.
"""

from google_cloud_pipeline_components.types.artifact_types import UnmanagedContainerModel
from google_cloud_pipeline_components.v1.model import ModelUploadOp
from kfp import dsl

IMAGE = "us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-6:latest"
PACKAGES = ["vertex-registry"]


@dsl.component(base_image="python:3.12-slim", packages_to_install=PACKAGES)
def register(source: str, accuracy: float, run: str, project: str, location: str) -> str:
    """Register the artifact. A task that's retried gets the version that it created before."""
    from vertex_registry import RegistryClient

    with RegistryClient(project=project, location=location) as registry:
        version = registry.register_version(
            "churn", source, metadata={"accuracy": accuracy}, request_id=f"kubeflow-{run}"
        )
        return version.version


@dsl.component(base_image="python:3.12-slim", packages_to_install=PACKAGES)
def promote_if_better(version: str, project: str, location: str) -> str:
    """Promote the version if nothing in Production is better. Return what's in Production now."""
    from vertex_registry import NotFoundError, RegistryClient

    with RegistryClient(project=project, location=location) as registry:
        candidate = registry.get_version("churn", version)
        try:
            current = registry.get_version("churn", stage="production")
        except NotFoundError:
            current = None
        if current is None or candidate.metadata["accuracy"] > current.metadata["accuracy"]:
            registry.set_stage("churn", candidate, "production", archive_existing=True)
        return registry.get_version("churn", stage="production").version


@dsl.pipeline(name="register-and-promote")
def register_and_promote(source: str, accuracy: float, run: str, project: str, location: str) -> str:
    """Register with this package."""
    version = register(source=source, accuracy=accuracy, run=run, project=project, location=location)
    return promote_if_better(version=version.output, project=project, location=location).output


@dsl.pipeline(name="both")
def both(source: str, accuracy: float, project: str = "acme", location: str = "us-central1") -> None:
    """Register with this package, and with Google's component beside it."""
    version = register(
        source=source, accuracy=accuracy, run=dsl.PIPELINE_JOB_ID_PLACEHOLDER, project=project, location=location
    )
    promote_if_better(version=version.output, project=project, location=location)

    model = dsl.importer(
        artifact_uri="gs://models/churn/1",
        artifact_class=UnmanagedContainerModel,
        metadata={"containerSpec": {"imageUri": IMAGE}},
    )
    ModelUploadOp(
        project=project,
        location=location,
        display_name="churn-by-component",
        unmanaged_container_model=model.output,
    )
