"""The rules about the fields of a request. Each check returns what is wrong, and above each rule is its source.

Quotes are Google's. Where Google says nothing, the comment says "a guess" and why.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from typing import TYPE_CHECKING, Any, Final

from google.cloud.aiplatform_v1 import types
from google.protobuf import json_format

from vertex_registry.emulator._names import REQUIRED
from vertex_registry.emulator._status import invalid_argument

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from google.protobuf.message import Message

    from vertex_registry.emulator._store import ModelRow

Violations = list[tuple[str, str]]

MODEL: Final[Any] = types.Model.pb()

# UploadModelRequest.model_id: "This value may be up to 63 characters, and valid characters are [a-z0-9_-]. The first
# character cannot be a number or hyphen."
_MODEL_ID_RE: Final = re.compile(r"[a-z_][a-z0-9_-]{0,62}")

# Model.version_aliases: "The format is [a-z][a-zA-Z0-9-]{0,126}[a-z0-9] to distinguish from version_id." Another page
# of Vertex's has no capitals, and a third lets an alias end in a hyphen.
_ALIAS_RE: Final = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]")

# GcsDestination and Model.artifact_uri: a bucket, and for a model "the path to the directory".
GCS_RE: Final = re.compile(r"gs://(?P<bucket>[a-z0-9][a-z0-9._-]{1,220}[a-z0-9])(?:/(?P<path>[^\x00-\x1f\x7f]*))?")

_KMS_RE: Final = re.compile(r"projects/[^/]+/locations/(?P<location>[^/]+)/keyRings/[^/]+/cryptoKeys/[^/]+")


# How many violations of one list are reported. A guess.
MAXIMUM_VIOLATIONS: Final = 100
_MAXIMUM_DISPLAY_NAME: Final = 128
# How many aliases a version may have, and how many slices one request may import: guesses.
_MAXIMUM_ALIASES: Final = 100_000
MAXIMUM_SLICES: Final = 1000
MAXIMUM_LABELS: Final = 64
_LABEL_CHARACTERS: Final = 64
_LABEL_BYTES: Final = 128
_MAXIMUM_DEPLOYMENT_TIMEOUT: Final = 7200
_MAXIMUM_PORT: Final = 65535
_ATTRIBUTIONS: Final = (
    ("sampled_shapley_attribution", "path_count", 50),
    ("integrated_gradients_attribution", "step_count", 100),
    ("xrai_attribution", "step_count", 100),
)
_PROBES: Final = ("startup_probe", "health_probe", "liveness_probe")
_PROBE_FIELDS: Final = (
    "period_seconds",
    "timeout_seconds",
    "failure_threshold",
    "success_threshold",
    "initial_delay_seconds",
)


def check_display_name(name: str) -> Violations:
    """Check a display name."""
    # Model.display_name: "Required. The display name of the Model. The name can be up to 128 characters long and can
    # consist of any UTF-8 characters."
    if not name:
        return [("model.display_name", REQUIRED)]
    if len(name) > _MAXIMUM_DISPLAY_NAME:
        return [("model.display_name", f"The display name must be at most {_MAXIMUM_DISPLAY_NAME} characters long")]
    return []


_PLAIN_LABEL_RE: Final = re.compile(r"[a-z0-9_-]*")


def _is_label_text(text: str) -> bool:
    """Return whether a text has only lowercase letters, digits, dashes and underscores.

    Letters of scripts without case count as lowercase. That ``²`` isn't a digit is a guess.
    """
    return bool(_PLAIN_LABEL_RE.fullmatch(text)) or all(
        letter in "_-" or unicodedata.category(letter) in {"Ll", "Lm", "Lo", "Nd"} for letter in text
    )


def check_labels(labels: Mapping[str, str]) -> Violations:
    """Return what is wrong with labels.

    Model.labels: "Label keys and values can be no longer than 64 characters (Unicode codepoints), can only contain
    lowercase letters, numeric characters, underscores and dashes. International characters are allowed." Recorded
    answers of Vertex are stricter: fewer than 64 characters, fewer than 128 bytes, at most 64 labels, and a key begins
    with a letter or a number. No message repeats a value.
    """
    found: Violations = []
    if len(labels) > MAXIMUM_LABELS:
        found.append(("model.labels", f"No more than {MAXIMUM_LABELS} labels can be set on a resource"))
    # Too many labels are checked as well, but not all of them.
    for key in sorted(itertools.islice(labels, 2 * MAXIMUM_LABELS)):
        value = labels[key]
        if not key:
            found.append(("model.labels", "Label keys must not be empty"))
        elif not key[0].isalnum():
            found.append(("model.labels", "Label keys must start with a letter or a number"))
        for what, text in (("keys", key), ("values", value)):
            if len(text) >= _LABEL_CHARACTERS or len(text.encode()) >= _LABEL_BYTES:
                found.append(
                    (
                        "model.labels",
                        f"Label {what} must be less than {_LABEL_CHARACTERS} characters and {_LABEL_BYTES} bytes long",
                    )
                )
            if not _is_label_text(text[:_LABEL_BYTES]):
                found.append(
                    (
                        "model.labels",
                        f"Label {what} can only contain lowercase letters, numbers, dashes and underscores",
                    )
                )
    return list(dict.fromkeys(found))


def check_aliases(field: str, aliases: Sequence[str]) -> Violations:
    """Check version aliases."""
    if len(aliases) > _MAXIMUM_ALIASES:
        return [(field, f"At most {_MAXIMUM_ALIASES} version aliases can be set")]
    return [
        (field, "A version alias must match [a-z][a-zA-Z0-9-]{0,126}[a-z0-9]")
        for alias in aliases
        if not _ALIAS_RE.fullmatch(alias)
    ][:1]


# Prebuilt images: the framework that each serves, and the files of which its artifact directory holds exactly one.
# Vertex is recorded to say so for TensorFlow and scikit-learn. The others are from its documentation.
PREBUILT_RE: Final = re.compile(
    r"(?:us|europe|asia)-docker\.pkg\.dev/vertex-ai/prediction/(?P<framework>tf2?|sklearn|xgboost|pytorch)\b.*"
)
PREBUILT_FILES: Final[Mapping[str, tuple[str, ...]]] = {
    "tf": ("saved_model.pb", "saved_model.pbtxt"),
    "tf2": ("saved_model.pb", "saved_model.pbtxt"),
    "sklearn": ("model.pkl", "model.joblib"),
    "xgboost": ("model.pkl", "model.joblib", "model.bst"),
    "pytorch": ("model.mar",),
}


def check_image(model: Any) -> Violations:
    """Check the image of a container, and that a prebuilt one has an artifact."""
    image = model.container_spec.image_uri
    if not image.strip():
        # ModelContainerSpec.image_uri: "Required." That an upload without any container is refused is second-hand. A
        # model that only names its base model needs no container (a guess).
        if model.HasField("container_spec") or not base_model(model):
            return [("model.container_spec.image_uri", REQUIRED)]
        return []
    if PREBUILT_RE.fullmatch(image) and not model.artifact_uri:
        # The import page: a prebuilt container needs the artifact.
        return [("model.artifact_uri", REQUIRED)]
    return []


def check_base_model(source: Any) -> Violations:
    """Check the source of a base model."""
    # ModelGardenSource.public_model_name and GenieSource.base_model_uri: "Required."
    return [
        (f"model.base_model_source.{kind}.{field}", REQUIRED)
        for kind, field in (("model_garden_source", "public_model_name"), ("genie_source", "base_model_uri"))
        if source.HasField(kind) and not getattr(getattr(source, kind), field)
    ]


def check_explanation(model: Any) -> Violations:
    """Check the parameters of an explanation."""
    if not model.HasField("explanation_spec"):
        return []
    parameters = model.explanation_spec.parameters
    # Of the parameters of an ExplanationSpec: "Required."
    if not model.explanation_spec.HasField("parameters"):
        return [("model.explanation_spec.parameters", REQUIRED)]
    # Of path_count: "Valid range of its value is [1, 50], inclusively." Of step_count: "[1, 100], inclusively."
    return [
        (f"model.explanation_spec.parameters.{method}.{field}", f"The value must be between 1 and {most}")
        for method, field, most in _ATTRIBUTIONS
        if parameters.HasField(method) and not 1 <= getattr(getattr(parameters, method), field) <= most
    ]


def check_container(spec: Any) -> Violations:
    """Check the numbers in a container."""
    found: Violations = []
    # Of ModelContainerSpec.deployment_timeout: "Limit for deployment timeout is 2 hours."
    if spec.HasField("deployment_timeout"):
        timeout = spec.deployment_timeout.ToNanoseconds() / 1e9
        if not 0 < timeout <= _MAXIMUM_DEPLOYMENT_TIMEOUT:
            limit = f"more than 0 and at most {_MAXIMUM_DEPLOYMENT_TIMEOUT} seconds"
            found.append(("deployment_timeout", f"The deployment timeout must be {limit}"))
    # Of Port.container_port: "Must be a valid port number, between 1 and 65535 inclusive."
    found += [
        (field, "A port must be between 1 and 65535")
        for field in ("ports", "grpc_ports")
        if any(not 0 < port.container_port <= _MAXIMUM_PORT for port in getattr(spec, field))
    ]
    # That a size can't be negative is a guess.
    if spec.shared_memory_size_mb < 0:
        found.append(("shared_memory_size_mb", "The size of the shared memory must not be negative"))
    probes = [probe for probe in _PROBES if spec.HasField(probe)]
    # Probe: of four fields "Minimum value is 1", of initial_delay_seconds "Minimum value is 0"; 0 means not set.
    found += [
        (f"{probe}.{field}", "The value is less than its minimum")
        for probe in probes
        for field in _PROBE_FIELDS
        if getattr(getattr(spec, probe), field) < 0
    ]
    # Of the port in each of a probe's actions: "Number must be in the range 1 to 65535." That 0 is unset is a guess.
    found += [
        (f"{probe}.{action}.port", "A port must be between 1 and 65535")
        for probe in probes
        for action in ("http_get", "grpc", "tcp_socket")
        if not 0 <= getattr(getattr(spec, probe), action).port <= _MAXIMUM_PORT
    ]
    return [(f"model.container_spec.{field}", message) for field, message in found]


def check_artifact(uri: str) -> Violations:
    """Check the URI of an artifact."""
    # Model.artifact_uri: "The path to the directory containing the Model artifact".
    match = GCS_RE.fullmatch(uri)
    # That it has no control characters is a rule here, and Cloud Storage's advice on the names of objects.
    if uri and (match is None or "//" in uri.removeprefix("gs://")):
        return [("model.artifact_uri", "The artifact URI must be a Cloud Storage directory, gs://bucket/directory")]
    return []


def check_encryption(field: str, spec: Any, location: str) -> Violations:
    """Check the key of an encryption."""
    # EncryptionSpec.kms_key_name: "Has the form: projects/my-project/locations/my-region/keyRings/my-kr/cryptoKeys/
    # my-key. The key needs to be in the same region as where the compute resource is created."
    match = _KMS_RE.fullmatch(spec.kms_key_name)
    if spec.kms_key_name and (match is None or match["location"] != location):
        return [(f"{field}.kms_key_name", f"The key must be the name of a CryptoKey in {location}")]
    return []


def check_model_id(model_id: str) -> Violations:
    """Check the ID that was chosen for a model."""
    if model_id and not _MODEL_ID_RE.fullmatch(model_id):
        return [
            (
                "model_id",
                "The model id must be up to 63 characters of [a-z0-9_-], and must not begin with a number or hyphen",
            )
        ]
    return []


def free_values(model: Any) -> tuple[tuple[Any, str], ...]:
    """Return the fields of a model that may hold values that JSON can't represent."""
    return (model, "metadata"), (model, "explanation_spec"), (model.container_spec, "deployment_timeout")


# How deep a value may be for protobuf to read it back in a list: a hundred messages, of which the list is one.
_MAXIMUM_DEPTH: Final = 99


def check_values(field: str, message: Message) -> Violations:
    """Refuse a value that JSON can't represent, such as NaN: REST couldn't return it."""
    try:
        shown = json_format.MessageToDict(message)
        json_format.ParseDict(shown, type(message)(), max_recursion_depth=_MAXIMUM_DEPTH)
    except (json_format.Error, ValueError, TypeError, RecursionError):
        return [(field, "The value cannot be represented in JSON")]
    return []


def check_same_key(rpc: str, request: Any, row: ModelRow) -> None:
    """Refuse a new version whose encryption key isn't its model's.

    Model.encryption_spec: "this Model and all sub-resources of this Model will be secured by this key." A guess.
    """
    within, field = (request.model, "model.") if rpc == "UploadModel" else (request, "")
    given = within.encryption_spec.kms_key_name
    if given and given != MODEL.FromString(row.body).encryption_spec.kms_key_name:
        raise invalid_argument((f"{field}encryption_spec", "A version is encrypted with the key of its model"))


def base_model(version: Any) -> str:
    """Return the base model's name that a filter finds a version by.

    For a model of the garden, that is a resource name such as "publishers/google/models/text-bison". The proto's
    example of a filter is baseModelName="text-bison". That the last part matches as well as the whole is a guess.
    """
    source = version.base_model_source
    return last_part(source.model_garden_source.public_model_name) or str(source.genie_source.base_model_uri)


def last_part(name: str) -> str:
    """Return the ID in the name of a model of the garden, and any other name as it is."""
    return name.rpartition("/")[2] if name.startswith("publishers/") else name
