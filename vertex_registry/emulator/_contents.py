"""What's in a version: the fields of an upload, an update of its examples, and the destination of an export."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from google.cloud.aiplatform_v1 import types
from google.protobuf.message import Error as ProtobufError

from vertex_registry.emulator._stamps import to_datetime
from vertex_registry.emulator._status import invalid_argument
from vertex_registry.emulator._validation import GCS_RE, MODEL, check_values
from vertex_registry.emulator._views import MODEL_FIELDS

if TYPE_CHECKING:
    from vertex_registry.emulator._store import View

# "Output only" in Google's Model, or given by name: what an upload says about them is ignored (a guess, after AIP-203).
_OUTPUT_ONLY: Final = (
    "name",
    "version_id",
    "version_aliases",
    "version_create_time",
    "version_update_time",
    "supported_export_formats",
    "training_pipeline",
    "supported_deployment_resources_types",
    "supported_input_storage_formats",
    "supported_output_storage_formats",
    "create_time",
    "update_time",
    "deployed_models",
    "etag",
    "data_stats",
    "model_source_info",
    "original_model_info",
    "metadata_artifact",
    "satisfies_pzs",
    "satisfies_pzi",
    "checkpoints",
)

# Of an image that is exported: "Only Google Container Registry and Artifact Registry are supported now."
_REGISTRY_RE: Final = re.compile(r"(?:(?:[a-z]+\.)?gcr\.io/[^\s/]+|[a-z0-9-]+-docker\.pkg\.dev/[^\s/]+/[^\s/]+)/\S+")


def split_upload(uploaded: Any) -> tuple[Any, Any]:
    """Return the fields of an uploaded model that are the model's own, and those of its version."""
    version = MODEL()
    version.CopyFrom(uploaded)
    for field in (*_OUTPUT_ONLY, *MODEL_FIELDS):
        version.ClearField(field)
    if not version.metadata_schema_uri:
        # Second-hand: metadata without a schema is silently dropped.
        version.ClearField("metadata")
    _describe(version)
    own = MODEL()
    own.display_name, own.description = uploaded.display_name, uploaded.description
    if uploaded.HasField("encryption_spec"):
        own.encryption_spec.CopyFrom(uploaded.encryption_spec)
    return own, version


def _describe(version: Any) -> None:
    """Fill in what Vertex says about a model that a user uploaded.

    All of it is a guess, from memory of custom models. No source lists the values.
    """
    source = types.ModelSourceInfo.ModelSourceType
    kinds = {"model_garden_source": source.MODEL_GARDEN, "genie_source": source.GENIE}
    version.model_source_info.source_type = kinds.get(version.base_model_source.WhichOneof("source"), source.CUSTOM)
    if not version.HasField("container_spec"):
        return
    resources = types.Model.DeploymentResourcesType
    version.supported_deployment_resources_types.extend([resources.DEDICATED_RESOURCES, resources.SHARED_RESOURCES])
    version.supported_input_storage_formats.extend(
        ["jsonl", "bigquery", "csv", "tf-record", "tf-record-gzip", "file-list"]
    )
    version.supported_output_storage_formats.extend(["jsonl", "bigquery"])
    content = types.Model.ExportFormat.ExportableContent
    version.supported_export_formats.add(
        id="custom-trained", exportable_contents=[content.ARTIFACT, content.IMAGE][not version.artifact_uri :]
    )


def check_examples(examples: Any) -> None:
    """Refuse examples that can't be read back, or that are nested too deeply for that.

    This takes long for large examples, so call it before a transaction.

    Raises:
        Failure: INVALID_ARGUMENT.
    """
    violations = check_values("examples", examples)
    try:
        # They're nested deeper in a list of models than in the request.
        model = MODEL()
        model.explanation_spec.parameters.examples.MergeFrom(examples)
        listed = types.ListModelsResponse.pb()(models=[model])
        type(listed).FromString(listed.SerializeToString())
        fits = bool(violations) or not check_values("examples", model)
    except ProtobufError:
        fits = False
    if not fits:
        violations = [("examples", "The value is nested too deeply")]
    if violations:
        raise invalid_argument(*violations)


def with_examples(view: View, examples: Any) -> Any:
    """Return a version with its examples updated.

    "Incrementally update the dataset": what the request doesn't set stays, and what it sets is replaced. A guess.
    """
    version = MODEL.FromString(view.version_body)
    updated = version.explanation_spec.parameters.examples
    for field, _ in examples.ListFields():
        updated.ClearField(field.name)
    updated.MergeFrom(examples)
    return version


def plan_export(planned: Any, config: Any, model: Any, contents: set[int], time: int) -> None:
    """Set where an export goes.

    Raises:
        Failure: INVALID_ARGUMENT: the model can't be exported there.
    """
    content = types.Model.ExportFormat.ExportableContent
    artifact, image = config.artifact_destination.output_uri_prefix, config.image_destination.output_uri
    violations = []
    if not artifact and not image:
        violations.append(("output_config", "An artifact destination or an image destination must be set"))
    # "This field should only be set when the `exportableContent` field of the [Model.supported_export_formats] object
    # contains `ARTIFACT`". The same goes for the image, which every model that can be exported has.
    if artifact and content.ARTIFACT not in contents:
        violations.append(("output_config.artifact_destination", "The model has no artifact to export"))
    if artifact and not GCS_RE.fullmatch(artifact):
        field = "output_config.artifact_destination.output_uri_prefix"
        violations.append((field, "The destination must be a Cloud Storage directory, gs://bucket/directory"))
    if image and not _REGISTRY_RE.fullmatch(image):
        field = "output_config.image_destination.output_uri"
        violations.append((field, "The destination must be an image in Artifact Registry or Container Registry"))
    if violations:
        raise invalid_argument(*violations)
    if artifact:
        # "Under the directory given as the destination a new one with name
        # "`model-export-<model-display-name>-<timestamp-of-export-call>`", where timestamp is in
        # YYYY-MM-DDThh:mm:ss.sssZ ISO-8601 format, will be created."
        moment = to_datetime(time).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        planned.artifact_output_uri = f"{artifact.rstrip('/')}/model-export-{model.display_name}-{moment}"
    planned.image_output_uri = image
