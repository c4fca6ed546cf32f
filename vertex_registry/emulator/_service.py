"""What each RPC means.

One method an RPC, in the order of Google's proto, and above each rule the sentence of Google's that it obeys, in
quotes. Where Google says nothing the comment says "A guess" and what speaks for it; where the facts are two-sided there
is a switch (``SWITCHES``), whose first value is the likelier reading.

The service knows no transport: it takes a request message and gives a response message, or raises a ``Failure``. A list
of models is given serialised, as it is kept: over gRPC nobody here need read it. Messages are those of v1. v1beta1 is
the same on the wire, so that one set of methods serves both; only what is packed into an operation's ``Any`` carries
the version's name, and an operation remembers the version that began it.

Two things are worth knowing before reading on.

**A version is seen through a view.** A ``Model`` message shows one version and the model it belongs to at once. What is
the model's own (``_MODEL_FIELDS``) is stored with the model, all else with the version, and a view is both merged.

**Nothing happens by itself.** An operation is done when it is begun, or after so many looks at it: a look is a read of
the operation, or a Get, List or Upload that names its model, and no other request is one. What the operation does is
done at that moment, so that a model that is being made is not there, while its id is taken.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import functools
import hashlib
import itertools
import re
import struct
import threading
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from google.cloud.aiplatform_v1 import types
from google.cloud.location import locations_pb2
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2, json_format
from google.protobuf.message import Error as ProtobufError

from vertex_registry.emulator._query import (
    Operator,
    apply_read_mask,
    parse_query,
    parse_read_mask,
    parse_update_mask,
)
from vertex_registry.emulator._status import (
    Failure,
    aborted,
    already_exists,
    cancelled,
    failed_precondition,
    internal,
    invalid_argument,
    not_found,
)
from vertex_registry.emulator._store import Condition, LabelCondition, OperationRow, Page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from google.protobuf.message import Message

    from vertex_registry.emulator._query import Query
    from vertex_registry.emulator._store import ModelRow, Store, View

# --- the two-sided facts -----------------------------------------------------


class Switch(NamedTuple):
    """A fact with two sides: what is taken for true can be chosen."""

    values: tuple[str, ...]
    about: str
    evidence: str


#: By name. The first value is the default: the likelier reading.
SWITCHES: Final[Mapping[str, Switch]] = {
    "labels-at-upload": Switch(
        ("version", "model", "first-on-model"),
        "whose layer the labels of an upload go to",
        "not documented; UpdateModel keeps the two layers apart, UploadModel does not say which one it writes",
    ),
    "label-wins": Switch(
        ("version", "model"),
        "which layer is shown when both have the key",
        "UpdateModelRequest says that both are merged when a model is returned, and not which one wins",
    ),
    "label-filter": Switch(
        ("merged", "own"),
        "what a label filter of ListModelVersions sees",
        "not documented; the filter's text names the labels without saying which",
    ),
    "list-lag": Switch(
        ("0", "N"),
        "lists show a write only after N further lists",
        "not documented; a list that is served from an index may be late, a read of one name is not",
    ),
    "default-delete": Switch(
        ("move", "refuse"),
        "deleting the version that has the alias default",
        "one page of Vertex's documentation moves the alias to the next most recent version, the console refuses",
    ),
    "stale-etag": Switch(
        ("aborted", "failed-precondition"),
        "how an update with a stale etag is refused",
        "not documented; AIP-154 says ABORTED, some services of Vertex say FAILED_PRECONDITION",
    ),
    "id-taken": Switch(
        ("call", "operation"),
        "whether a model id that is taken fails the upload's call or its operation",
        "not documented; ALREADY_EXISTS is how sibling resources answer",
    ),
}


@dataclass(frozen=True)
class Assumptions:
    """The value of every switch."""

    labels_at_upload: str
    label_wins: str
    label_filter: str
    list_lag: int
    default_delete: str
    stale_etag: str
    id_taken: str


def parse_assumptions(given: Mapping[str, str]) -> Assumptions:
    """The switches as given, and the likelier reading for the others.

    Raises:
        ValueError: There is no such switch, or it has no such value; the message lists those there are.
    """
    for name, value in given.items():
        if name not in SWITCHES:
            raise ValueError(f"There is no assumption {name!r}. There are: {', '.join(SWITCHES)}.")
        values = SWITCHES[name].values
        if value not in values and not ("N" in values and re.fullmatch(r"[0-9]{1,9}", value)):
            raise ValueError(f"{name} cannot be {value!r}. It can be: {', '.join(values)}.")
        if value == "N":
            raise ValueError(f"{name} cannot be 'N': N stands for a number.")
    chosen = {name.replace("-", "_"): given.get(name, switch.values[0]) for name, switch in SWITCHES.items()}
    return Assumptions(**{**chosen, "list_lag": int(chosen["list_lag"])})  # type: ignore[arg-type]


# --- messages ----------------------------------------------------------------

_Model: Final[Any] = types.Model.pb()
_Models: Final[Any] = types.ListModelsResponse.pb()
_Evaluation: Final[Any] = types.ModelEvaluation.pb()
_Slice: Final[Any] = types.ModelEvaluationSlice.pb()

# An operation's metadata, by the RPC that begins it.
_METADATA: Final[dict[str, Any]] = {
    "UploadModel": types.UploadModelOperationMetadata.pb(),
    "UpdateExplanationDataset": types.UpdateExplanationDatasetOperationMetadata.pb(),
    "DeleteModel": types.DeleteOperationMetadata.pb(),
    "DeleteModelVersion": types.DeleteOperationMetadata.pb(),
    "ExportModel": types.ExportModelOperationMetadata.pb(),
    "CopyModel": types.CopyModelOperationMetadata.pb(),
}

# UpdateModelRequest.model: "Supported model fields: display_name, description; supported version-specific fields:
# version_description. Labels are supported in both scenarios."
_UPDATABLE_MODEL_FIELDS: Final = frozenset({"display_name", "description"})
_UPDATABLE_VERSION_FIELDS: Final = frozenset({"version_description"})

# The fields that are the model's own. That the encryption is one is a guess.
_MODEL_FIELDS: Final = ("display_name", "description", "encryption_spec")

# "Output only" in Google's Model, or given by name: what an upload says about them is ignored (a guess: AIP-203).
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

_REQUIRED: Final = "Required field is not set"


# --- names -------------------------------------------------------------------

_PROJECT: Final = r"projects/(?P<project>[^/@]+)"
# A location begins with a letter; "-" is how other services name all of them at once.
_PLACE: Final = _PROJECT + r"/locations/(?P<location>[a-z][a-z0-9-]*)"
_MODEL_NAME: Final = _PLACE + r"/models/(?P<model>[A-Za-z0-9_-]+)(?:@(?P<version>[^/@]+))?"
_PROJECT_RE: Final = re.compile(_PROJECT)
_PLACE_RE: Final = re.compile(_PLACE)
_MODEL_RE: Final = re.compile(_MODEL_NAME)
_EVALUATION_RE: Final = re.compile(_MODEL_NAME + r"/evaluations/(?P<evaluation>[^/]+)")
_SLICE_RE: Final = re.compile(_EVALUATION_RE.pattern + r"/slices/(?P<slice>[^/]+)")
_OPERATIONS_OF_RE: Final = re.compile(
    _PLACE + r"(?:/models/(?P<model>[A-Za-z0-9_-]+)(?:/evaluations/(?P<evaluation>[^/]+))?)?"
)
_OPERATION_RE: Final = re.compile(_OPERATIONS_OF_RE.pattern + r"/operations/(?P<operation>[^/]+)")

# UploadModelRequest.model_id: "This value may be up to 63 characters, and valid characters are [a-z0-9_-]. The first
# character cannot be a number or hyphen."
_MODEL_ID_RE: Final = re.compile(r"[a-z_][a-z0-9_-]{0,62}")
# Those that are made may begin with a number.
_MADE_ID_RE: Final = re.compile(r"[a-z0-9_-]{1,63}")

# Model.version_aliases: "The format is [a-z][a-zA-Z0-9-]{0,126}[a-z0-9] to distinguish from version_id." Another page
# of Vertex's has no capitals, and a third lets an alias end in a hyphen.
_ALIAS_RE: Final = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]")

# Versions are numbered from 1; what is no number is an alias.
_NUMBER_RE: Final = re.compile(r"[1-9][0-9]{0,17}")

# GcsDestination and Model.artifact_uri: a bucket, and for a model "the path to the directory".
_GCS_RE: Final = re.compile(r"gs://(?P<bucket>[a-z0-9][a-z0-9._-]{1,220}[a-z0-9])(?:/(?P<path>[^\x00-\x1f\x7f]*))?")

# Of an image that is exported: "Only Google Container Registry and Artifact Registry are supported now."
_REGISTRY_RE: Final = re.compile(r"(?:(?:[a-z]+\.)?gcr\.io/[^\s/]+|[a-z0-9-]+-docker\.pkg\.dev/[^\s/]+/[^\s/]+)/\S+")

_KMS_RE: Final = re.compile(r"projects/[^/]+/locations/(?P<location>[^/]+)/keyRings/[^/]+/cryptoKeys/[^/]+")

DEFAULT: Final = "default"


@functools.lru_cache(maxsize=1024)
def project_number(project: str) -> str:
    """The number of a project: itself, if it is one; else one that follows from the id.

    Every project exists here. Vertex's own names carry the number even where the request had the id.
    """
    if re.fullmatch(r"[0-9]+", project):
        return project
    digest = int.from_bytes(hashlib.sha256(project.encode()).digest()[:8], "big")
    return str(10**11 + digest % (9 * 10**11))


class Name(NamedTuple):
    """The name of a model, or of one of its versions."""

    place: str
    model: str
    version: str | None

    @property
    def bare(self) -> str:
        """The name without the version."""
        return f"{self.place}/models/{self.model}"

    def __str__(self) -> str:
        return self.bare if self.version is None else f"{self.bare}@{self.version}"


def _place_of(match: re.Match[str]) -> str:
    return f"projects/{project_number(match['project'])}/locations/{match['location']}"


def _parse(pattern: re.Pattern[str], field: str, name: str, kind: str) -> re.Match[str]:
    match = pattern.fullmatch(name)
    if match is None:
        # A guess: it is what Vertex says of a malformed name of a sibling resource.
        raise invalid_argument((field, f"Invalid {kind} resource name" if name else _REQUIRED))
    return match


def _parse_place(field: str, name: str) -> str:
    return _place_of(_parse(_PLACE_RE, field, name, "Location"))


def _parse_name(field: str, name: str) -> Name:
    match = _parse(_MODEL_RE, field, name, "Model")
    return Name(_place_of(match), match["model"], match["version"])


# --- rules on input ----------------------------------------------------------

Violations = list[tuple[str, str]]

# How many are told of what a request may have any number of. A guess.
_MOST_VIOLATIONS: Final = 100
_MAXIMUM_DISPLAY_NAME: Final = 128
_MAXIMUM_LABELS: Final = 64
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


def _check_display_name(name: str) -> Violations:
    # Model.display_name: "Required. The display name of the Model. The name can be up to 128 characters long and can
    # consist of any UTF-8 characters."
    if not name:
        return [("model.display_name", _REQUIRED)]
    if len(name) > _MAXIMUM_DISPLAY_NAME:
        return [("model.display_name", f"The display name must be at most {_MAXIMUM_DISPLAY_NAME} characters long")]
    return []


_PLAIN_LABEL_RE: Final = re.compile(r"[a-z0-9_-]*")


def _is_label_text(text: str) -> bool:
    """Whether it has only lowercase letters, those of scripts without case, digits, dashes and underscores.

    That ``²`` is no digit is a guess.
    """
    return bool(_PLAIN_LABEL_RE.fullmatch(text)) or all(
        letter in "_-" or unicodedata.category(letter) in {"Ll", "Lm", "Lo", "Nd"} for letter in text
    )


def _check_labels(labels: Mapping[str, str]) -> Violations:
    """What is wrong with labels.

    Model.labels: "Label keys and values can be no longer than 64 characters (Unicode codepoints), can only contain
    lowercase letters, numeric characters, underscores and dashes. International characters are allowed." What Vertex
    was seen to answer is stricter: fewer than 64 characters, fewer than 128 bytes, at most 64 labels, and a key begins
    with a letter or a number. The values are in nobody's message.
    """
    found: Violations = []
    if len(labels) > _MAXIMUM_LABELS:
        found.append(("model.labels", f"No more than {_MAXIMUM_LABELS} labels can be set on a resource"))
    for key in sorted(labels):
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
            if not _is_label_text(text):
                found.append(
                    (
                        "model.labels",
                        f"Label {what} can only contain lowercase letters, numbers, dashes and underscores",
                    )
                )
    return list(dict.fromkeys(found))


def _check_aliases(field: str, aliases: Sequence[str]) -> Violations:
    return [
        (field, "A version alias must match [a-z][a-zA-Z0-9-]{0,126}[a-z0-9]")
        for alias in aliases
        if not _ALIAS_RE.fullmatch(alias)
    ][:1]


# Prebuilt images: what they serve, and the files of which their artifact directory holds exactly one. Vertex was seen
# to say so of TensorFlow and of scikit-learn; the others are from its documentation.
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


def _check_image(model: Any) -> Violations:
    image = model.container_spec.image_uri
    if not image.strip():
        # ModelContainerSpec.image_uri: "Required." That an upload without any container is refused is second-hand; a
        # model that only names its base model needs none (a guess).
        if model.HasField("container_spec") or not _base_model(model):
            return [("model.container_spec.image_uri", _REQUIRED)]
        return []
    if PREBUILT_RE.fullmatch(image) and not model.artifact_uri:
        # The import page: a prebuilt container needs the artifact.
        return [("model.artifact_uri", _REQUIRED)]
    return []


def _check_base_model(source: Any) -> Violations:
    # ModelGardenSource.public_model_name and GenieSource.base_model_uri: "Required."
    return [
        (f"model.base_model_source.{kind}.{field}", _REQUIRED)
        for kind, field in (("model_garden_source", "public_model_name"), ("genie_source", "base_model_uri"))
        if source.HasField(kind) and not getattr(getattr(source, kind), field)
    ]


def _check_explanation(model: Any) -> Violations:
    if not model.HasField("explanation_spec"):
        return []
    parameters = model.explanation_spec.parameters
    # Of the parameters of an ExplanationSpec: "Required."
    if not model.explanation_spec.HasField("parameters"):
        return [("model.explanation_spec.parameters", _REQUIRED)]
    # Of path_count: "Valid range of its value is [1, 50], inclusively." Of step_count: "[1, 100], inclusively."
    return [
        (f"model.explanation_spec.parameters.{method}.{field}", f"The value must be between 1 and {most}")
        for method, field, most in _ATTRIBUTIONS
        if parameters.HasField(method) and not 1 <= getattr(getattr(parameters, method), field) <= most
    ]


def _check_container(spec: Any) -> Violations:
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
    # That a size is not negative is a guess.
    if spec.shared_memory_size_mb < 0:
        found.append(("shared_memory_size_mb", "The size of the shared memory must not be negative"))
    probes = [probe for probe in _PROBES if spec.HasField(probe)]
    # Probe: of four fields "Minimum value is 1", of initial_delay_seconds "Minimum value is 0"; what is 0 is not set.
    found += [
        (f"{probe}.{field}", "The value is less than its minimum")
        for probe in probes
        for field in _PROBE_FIELDS
        if getattr(getattr(spec, probe), field) < 0
    ]
    # Of the port in each of a probe's actions: "Number must be in the range 1 to 65535." That 0 is not set is a guess.
    found += [
        (f"{probe}.{action}.port", "A port must be between 1 and 65535")
        for probe in probes
        for action in ("http_get", "grpc", "tcp_socket")
        if not 0 <= getattr(getattr(spec, probe), action).port <= _MAXIMUM_PORT
    ]
    return [(f"model.container_spec.{field}", message) for field, message in found]


def _check_artifact(uri: str) -> Violations:
    # Model.artifact_uri: "The path to the directory containing the Model artifact".
    match = _GCS_RE.fullmatch(uri)
    # That it has no control characters is Cloud Storage's advice on the names of objects, as a rule.
    if uri and (match is None or "//" in uri.removeprefix("gs://")):
        return [("model.artifact_uri", "The artifact URI must be a Cloud Storage directory, gs://bucket/directory")]
    return []


def _check_encryption(field: str, spec: Any, location: str) -> Violations:
    # EncryptionSpec.kms_key_name: "Has the form: projects/my-project/locations/my-region/keyRings/my-kr/cryptoKeys/
    # my-key. The key needs to be in the same region as where the compute resource is created."
    match = _KMS_RE.fullmatch(spec.kms_key_name)
    if spec.kms_key_name and (match is None or match["location"] != location):
        return [(f"{field}.kms_key_name", f"The key must be the name of a CryptoKey in {location}")]
    return []


def _check_model_id(model_id: str) -> Violations:
    if model_id and not _MODEL_ID_RE.fullmatch(model_id):
        return [
            (
                "model_id",
                "The model id must be up to 63 characters of [a-z0-9_-], and must not begin with a number or hyphen",
            )
        ]
    return []


def _with_values(model: Any) -> tuple[tuple[Any, str], ...]:
    """The fields of a model that may hold what has no JSON."""
    return (model, "metadata"), (model, "explanation_spec"), (model.container_spec, "deployment_timeout")


# How deep JSON may be that protobuf reads, as an entry of a list: a hundred messages, of which the list is one.
_DEEPEST: Final = 99


def _check_values(field: str, message: Message) -> Violations:
    """Refuse what has no JSON that can be read, such as a number that is none: it could not be answered over REST."""
    try:
        shown = json_format.MessageToDict(message)
        json_format.ParseDict(shown, type(message)(), max_recursion_depth=_DEEPEST)
    except (json_format.Error, ValueError, TypeError, RecursionError):
        return [(field, "The value cannot be represented in JSON")]
    return []


# --- the service -------------------------------------------------------------


class Call(NamedTuple):
    """What a request is besides its message."""

    api: str = "v1"
    #: How the operation that it begins shall fail.
    failing: Failure | None = None
    #: Whether its etag shall count as stale.
    stale: bool = False


class Service:
    """The RPCs. Each method takes the request and what else the call is, and gives the response."""

    def __init__(
        self,
        store: Store,
        *,
        assume: Assumptions,
        polls_until_done: int,
        now: Callable[[], dt.datetime],
        new_id: Callable[[], str],
        look_up: Callable[[str, str], Sequence[str] | None] | None = None,
    ) -> None:
        self._store = store
        self._assume = assume
        self._polls = polls_until_done
        self._clock = now
        self._new_id = new_id
        self._look_up = look_up
        # A view never changes, and who lists looks at the same ones again and again: those looked at lately need not be
        # built. Long ones must be, so that what is kept stays small.
        self._entry_again = functools.lru_cache(maxsize=_KEPT)(_entry)
        with store.reading():
            self._latest = store.latest_create_time()
        self._list_anew()
        self._time_lock = threading.Lock()
        self._work: dict[str, Callable[[OperationRow, Any], Message]] = {
            "UploadModel": self._upload,
            "UpdateExplanationDataset": self._update_explanation_dataset,
            "DeleteModel": self._delete_model,
            "DeleteModelVersion": self._delete_version,
            "ExportModel": self._export,
            "CopyModel": self._copy,
        }

    # --- ModelService --------------------------------------------------------

    def upload_model(self, request: Any, call: Call) -> operations_pb2.Operation:
        """Uploads a Model artifact into Vertex AI."""
        place = _parse_place("parent", request.parent)
        location = place.rpartition("/")[2]
        model = request.model
        violations: Violations = []
        if request.parent_model and request.model_id:
            # A guess: in CopyModelRequest the two exclude each other.
            violations.append(("model_id", "Only one of parent_model and model_id can be set"))
        violations += _check_model_id(request.model_id)
        violations += _check_display_name(model.display_name)
        violations += _check_aliases("model.version_aliases", model.version_aliases)
        violations += _check_labels(model.labels)
        violations += _check_image(model)
        violations += _check_base_model(model.base_model_source)
        violations += _check_explanation(model)
        violations += _check_container(model.container_spec)
        violations += _check_artifact(model.artifact_uri)
        violations += _check_encryption("model.encryption_spec", model.encryption_spec, location)
        if any(message.HasField(field) for message, field in _with_values(model)):
            violations += _check_values("model", model)
        parent_model = self._parent_model(request.parent_model, place, violations)
        if violations:
            raise invalid_argument(*violations)
        self._check_files(model)
        with self._looking(place, parent_model.model if parent_model else request.model_id):
            return self._begin_version("UploadModel", request, call, place, parent_model, request.model_id)

    def get_model(self, request: Any, call: Call) -> Any:
        """Gets a Model."""
        del call
        name = _parse_name("name", request.name)
        with self._looking(name.place, name.model):
            # "If no version ID or alias is specified, the "default" version will be returned."
            return self._message(self._view(name), versioned=name.version is not None)

    def list_models(self, request: Any, call: Call) -> Any:
        """Lists Models in a Location."""
        del call
        place = _parse_place("parent", request.parent)
        query = self._query("ListModels", place, request)
        mask = parse_read_mask(request.read_mask.paths, _Model.DESCRIPTOR)
        conditions, labels = [], []
        for term in query.filter.terms:
            if term.key is not None:
                # A guess: the labels that the list itself shows, those of the default version merged with the model's.
                labels.append(LabelCondition(term.key, None if term.operator is Operator.HAS else term.value))
            elif term.field == "base_model_name":
                conditions.append(Condition("m.base_model <> '' AND m.base_model = ?", (_last_part(term.value),)))
            else:
                column = {"model": "m.id", "display_name": "m.display_name"}[term.field]
                sign = "=" if term.operator is Operator.EQUALS else "<>"
                conditions.append(Condition(f"{column} {sign} ?", (term.value,)))
        page = _page(query, unique="key", values=("display_name", "update_time"))
        with self._looking(place, query.filter.equal("model") or ""), self._listing():
            views = self._store.list_models(place, conditions, labels, page)
        return self._answer(views, query, page, mask, versioned=False)

    def list_model_versions(self, request: Any, call: Call) -> Any:
        """Lists versions of the specified model."""
        del call
        # gcloud sends on what it was given, also with a version; that it is ignored is a guess.
        name = _parse_name("name", request.name)
        query = self._query("ListModelVersions", name.bare, request)
        mask = parse_read_mask(request.read_mask.paths, _Model.DESCRIPTOR)
        page = _page(query, unique="number", values=("update_time",))
        with self._looking(name.place, name.model), self._listing():
            row = self._row(name)
            listed = self._store.listed_model(row.key)
            if listed is None:
                return types.ListModelVersionsResponse.pb()()
            labels = self._version_conditions(query, _Model.FromString(listed.body).labels)
            views = [] if labels is None else self._store.list_versions(listed, labels, page)
        # Its response: "In the returned Model name field, version ID instead of regvision tag will be included."
        return self._answer(views, query, page, mask, versioned=True)

    def list_model_version_checkpoints(self, request: Any, call: Call) -> Any:
        """Lists checkpoints of the specified model version."""
        del call
        name = _parse_name("name", request.name)
        self._query("ListModelVersionCheckpoints", str(name), request)
        with self._looking(name.place, name.model):
            # "If no version ID or alias is specified, the latest version will be used": elsewhere the default one is.
            if name.version is None:
                self._row(name)
            else:
                self._view(name)
        # Model.checkpoints: "Output only." They come from tuning jobs, of which there are none here.
        return types.ListModelVersionCheckpointsResponse.pb()()

    def update_model(self, request: Any, call: Call) -> Any:
        """Updates a Model."""
        given = request.model
        name = _parse_name("model.name", given.name)
        paths = set(parse_update_mask(request.update_mask.paths, _Model.DESCRIPTOR))
        # "model.name with the @ value, e.g. models/123@1, refers to a version specific update. model.name without the
        # @ value, e.g. models/123, refers to a model update. model.name with @-, e.g. models/123@-, refers to a model
        # update."
        of_version = name.version not in (None, "-")
        name = name if of_version else name._replace(version=None)
        known = _UPDATABLE_MODEL_FIELDS | _UPDATABLE_VERSION_FIELDS | {"labels"}
        if unknown := sorted(paths - known):
            # A guess: what is not supported is an invalid argument. It covers "*" too.
            raise invalid_argument(*(("update_mask", f"Updating {path} is not supported") for path in unknown))
        # "A model name or model version name fields update mismatch will cause a precondition error. One request
        # cannot update both the model and the version fields. You must update them separately."
        if mismatch := sorted(paths & (_UPDATABLE_MODEL_FIELDS if of_version else _UPDATABLE_VERSION_FIELDS)):
            wanted, other = ("version", "model") if of_version else ("model", "version")
            raise failed_precondition(
                f"The name {given.name} refers to a {wanted}, and {', '.join(mismatch)} belongs to a {other}."
                " Update the model and the version separately."
            )
        violations = _check_display_name(given.display_name) if "display_name" in paths else []
        violations += _check_labels(given.labels) if "labels" in paths else []
        if violations:
            raise invalid_argument(*violations)
        with self._store.writing():
            view = self._view(name)
            self._check_etag(given.etag, view, of_version=of_version, stale=call.stale)
            body = _Model.FromString(view.version_body if of_version else view.body)
            before = list(body.labels)
            # "When updating labels, if the request is for model-specific update, model label gets updated. Otherwise,
            # version labels get updated." That they are replaced as a whole is how a field mask works.
            for path in paths:
                body.ClearField(path)
                if path == "labels":
                    body.labels.update(given.labels)
                else:
                    setattr(body, path, getattr(given, path))
            if of_version:
                self._store.change_version(
                    view.key,
                    view.number,
                    time=self._now(),
                    before=before,
                    labels=body.labels,
                    body=body.SerializeToString(),
                )
            else:
                self._store.change_model(
                    view.key, display_name=body.display_name, time=self._now(), body=body.SerializeToString()
                )
            self._relist(name)
            return self._message(self._view(name), versioned=of_version)

    def update_explanation_dataset(self, request: Any, call: Call) -> operations_pb2.Operation:
        """Incrementally update the dataset used for an examples model."""
        name = _parse_name("model", request.model)
        if violations := _check_values("examples", request.examples):
            raise invalid_argument(*violations)
        with self._store.writing():
            view = self._view(name)
            # A guess: an examples model is one that was uploaded as such.
            if not _Model.FromString(view.version_body).explanation_spec.parameters.HasField("examples"):
                raise failed_precondition(f"{name.bare}@{view.number} has no example-based explanations to update.")
            _with_examples(view, request.examples)
            meant = _meant(request, "model", view)
            return self._begin("UpdateExplanationDataset", meant, call, name, target=view.key)

    def delete_model(self, request: Any, call: Call) -> operations_pb2.Operation:
        """Deletes a Model."""
        name = _parse_name("name", request.name)
        if name.version is not None:
            # A guess: the format in the request's reference has no version.
            raise invalid_argument(("name", "Invalid Model resource name"))
        with self._store.writing():
            return self._begin("DeleteModel", request, call, name, target=self._row(name).key)

    def delete_model_version(self, request: Any, call: Call) -> operations_pb2.Operation:
        """Deletes a Model version."""
        # "The name of the model version to be deleted, with a version ID explicitly included." An alias is let
        # through, since Google's SDK says that it may be one.
        name = _parse_name("name", request.name)
        if name.version is None:
            raise invalid_argument(("name", "A version must be explicitly included in the Model resource name"))
        with self._store.writing():
            view = self._view(name)
            self._check_deletable(view)
            meant = _meant(request, "name", view)
            return self._begin("DeleteModelVersion", meant, call, name, target=view.key)

    def merge_version_aliases(self, request: Any, call: Call) -> Any:
        """Merges a set of aliases for a Model version."""
        del call
        # "The name of the model version to merge aliases, with a version ID explicitly included." Google's own tests
        # use aliases here too. That a bare name is refused is a guess.
        name = _parse_name("name", request.name)
        if name.version is None:
            raise invalid_argument(("name", "A version must be explicitly included in the Model resource name"))
        if not request.version_aliases:
            raise invalid_argument(("version_aliases", _REQUIRED))
        # "Add the - prefix to an alias means removing that alias from the version. - is NOT counted in the 128
        # characters."
        if bad := _check_aliases("version_aliases", [alias.removeprefix("-") for alias in request.version_aliases]):
            raise invalid_argument(*bad)
        adding = [alias for alias in request.version_aliases if not alias.startswith("-")]
        removing = [alias[1:] for alias in request.version_aliases if alias.startswith("-")]
        # "Adding and deleting the same alias in the request is not recommended, and the 2 operations will be cancelled
        # out."
        both = set(adding) & set(removing)
        removed = set(removing) - both
        with self._store.writing():
            view = self._view(name)
            # "there must be exactly one default version alias for a model": it cannot be removed, only moved. The
            # code is a guess.
            if DEFAULT in removed and view.number == view.default_version:
                raise failed_precondition(
                    f"The alias {DEFAULT} cannot be removed from {name.bare}@{view.number}: a model has exactly one"
                    f" {DEFAULT} version. Add the alias to another version instead."
                )
            kept = [alias for alias in view.aliases.split() if alias not in removed]
            # Adding an alias that a sibling has moves it, as the documentation of aliases says.
            added = [alias for alias in adding if alias not in both]
            aliases = list(dict.fromkeys(kept + added))
            self._store.set_aliases(view.key, view.number, aliases, time=self._now())
            self._relist(name)
            # A guess: named by the version, as the request was.
            return self._message(self._view(name._replace(version=str(view.number))), versioned=True)

    def export_model(self, request: Any, call: Call) -> operations_pb2.Operation:
        """Exports a trained, exportable Model to a location specified by the user."""
        # "The resource name may contain version id or version alias to specify the version, if no version is
        # specified, the default version will be exported."
        name = _parse_name("name", request.name)
        config = request.output_config
        with self._store.writing():
            view = self._view(name)
            model = self._message(view, versioned=True)
            formats = {supported.id: supported for supported in model.supported_export_formats}
            if not formats:
                # Model.supported_export_formats: "If empty, this Model is not available for export." The code is a
                # guess.
                raise failed_precondition(f"{model.name} cannot be exported.")
            # "If no value is provided here, then the first from the list of the Model's supported formats is used by
            # default."
            chosen = formats.get(config.export_format_id or next(iter(formats)))
            if chosen is None:
                field = "output_config.export_format_id"
                raise invalid_argument((field, f"The model can be exported as: {', '.join(formats)}"))
            metadata = types.ExportModelOperationMetadata.pb()()
            _plan_export(metadata.output_info, config, model, set(chosen.exportable_contents), self._now())
            meant = _meant(request, "name", view)
            return self._begin("ExportModel", meant, call, name, target=view.key, metadata=metadata)

    def copy_model(self, request: Any, call: Call) -> operations_pb2.Operation:
        """Copies an already existing Vertex AI Model into the specified Location."""
        place = _parse_place("parent", request.parent)
        # "The resource name of the Model to copy. That Model must be in the same Project." A page of the documentation,
        # which is newer, allows another project.
        source = _parse_name("source_model", request.source_model)
        violations = _check_model_id(request.model_id)
        violations += _check_encryption("encryption_spec", request.encryption_spec, place.rpartition("/")[2])
        parent_model = self._parent_model(request.parent_model, place, violations)
        if violations:
            raise invalid_argument(*violations)
        with self._store.reading():
            # Which version a name without one means is not said here: the default one, as everywhere else (a guess).
            view = self._view(source)
            meant = _meant(request, "source_model", view)
            return self._begin_version("CopyModel", meant, call, place, parent_model, request.model_id, source=view.key)

    def import_model_evaluation(self, request: Any, call: Call) -> Any:
        """Imports an externally generated ModelEvaluation."""
        del call
        name = _parse_name("parent", request.parent)
        if not request.HasField("model_evaluation"):
            raise invalid_argument(("model_evaluation", _REQUIRED))
        if violations := _check_values("model_evaluation", request.model_evaluation):
            raise invalid_argument(*violations)
        with self._store.writing():
            # A guess: without a version, the default one's.
            view = self._view(name)
            evaluation = _Evaluation()
            evaluation.CopyFrom(request.model_evaluation)
            evaluation_id = self._free_id(lambda given: self._store.evaluation(view.key, given) is not None)
            evaluation.name = f"{name.bare}/evaluations/{evaluation_id}"
            evaluation.create_time.FromMicroseconds(self._now())
            self._store.add_evaluation(view.key, view.number, evaluation_id, evaluation.SerializeToString())
            return evaluation

    def batch_import_model_evaluation_slices(self, request: Any, call: Call) -> Any:
        """Imports a list of externally generated ModelEvaluationSlice."""
        del call
        match = _parse(_EVALUATION_RE, "parent", request.parent, "ModelEvaluation")
        if not request.model_evaluation_slices:
            raise invalid_argument(("model_evaluation_slices", _REQUIRED))
        violations = (
            violation
            for position, given in enumerate(request.model_evaluation_slices)
            for violation in _check_values(f"model_evaluation_slices[{position}]", given)
        )
        if told := tuple(itertools.islice(violations, _MOST_VIOLATIONS)):
            raise invalid_argument(*told)
        response = types.BatchImportModelEvaluationSlicesResponse.pb()()
        with self._store.writing():
            model, _ = self._evaluation(match)
            for given in request.model_evaluation_slices:
                slice_id = self._free_id(lambda given: self._store.slice(model, match["evaluation"], given) is not None)
                kept = _Slice()
                kept.CopyFrom(given)
                kept.name = (
                    f"{_place_of(match)}/models/{match['model']}/evaluations/{match['evaluation']}/slices/{slice_id}"
                )
                kept.create_time.FromMicroseconds(self._now())
                dimension = kept.slice_.dimension
                self._store.add_slice(model, match["evaluation"], slice_id, dimension, kept.SerializeToString())
                response.imported_model_evaluation_slices.append(kept.name)
        return response

    def batch_import_evaluated_annotations(self, request: Any, call: Call) -> Any:
        """Imports a list of externally generated EvaluatedAnnotations."""
        del call
        match = _parse(_SLICE_RE, "parent", request.parent, "ModelEvaluationSlice")
        if not request.evaluated_annotations:
            raise invalid_argument(("evaluated_annotations", _REQUIRED))
        with self._store.reading():
            self._slice(match)
        # No method reads annotations: how many there are is all that anybody can know.
        count = len(request.evaluated_annotations)
        return types.BatchImportEvaluatedAnnotationsResponse.pb()(imported_evaluated_annotations_count=count)

    def get_model_evaluation(self, request: Any, call: Call) -> Any:
        """Gets a ModelEvaluation."""
        del call
        match = _parse(_EVALUATION_RE, "name", request.name, "ModelEvaluation")
        with self._looking(_place_of(match), match["model"]):
            return _Evaluation.FromString(self._evaluation(match)[1])

    def list_model_evaluations(self, request: Any, call: Call) -> Any:
        """Lists ModelEvaluations in a Model."""
        del call
        name = _parse_name("parent", request.parent)
        query = self._query("ListModelEvaluations", str(name), request)
        mask = parse_read_mask(request.read_mask.paths, _Evaluation.DESCRIPTOR)
        with self._looking(name.place, name.model):
            view = self._view(name)
            rows = self._store.list_evaluations(view.key, view.number, _page_by_id(query))
        response = types.ListModelEvaluationsResponse.pb()()
        response.model_evaluations.extend(
            apply_read_mask(_Evaluation.FromString(body), mask) for _, body in rows[: query.limit]
        )
        response.next_page_token = _token_by_id(query, rows)
        return response

    def get_model_evaluation_slice(self, request: Any, call: Call) -> Any:
        """Gets a ModelEvaluationSlice."""
        del call
        match = _parse(_SLICE_RE, "name", request.name, "ModelEvaluationSlice")
        with self._looking(_place_of(match), match["model"]):
            return _Slice.FromString(self._slice(match))

    def list_model_evaluation_slices(self, request: Any, call: Call) -> Any:
        """Lists ModelEvaluationSlices in a ModelEvaluation."""
        del call
        match = _parse(_EVALUATION_RE, "parent", request.parent, "ModelEvaluation")
        evaluated = Name(_place_of(match), match["model"], match["version"])
        query = self._query("ListModelEvaluationSlices", f"{evaluated}/evaluations/{match['evaluation']}", request)
        mask = parse_read_mask(request.read_mask.paths, _Slice.DESCRIPTOR)
        wanted = {term.value for term in query.filter.terms}
        with self._looking(_place_of(match), match["model"]):
            model, _ = self._evaluation(match)
            # Two dimensions at once are no slice's.
            dimension = wanted.pop() if wanted else None
            page = _page_by_id(query)
            rows = [] if wanted else self._store.list_slices(model, match["evaluation"], dimension, page)
        response = types.ListModelEvaluationSlicesResponse.pb()()
        response.model_evaluation_slices.extend(
            apply_read_mask(_Slice.FromString(body), mask) for _, body in rows[: query.limit]
        )
        response.next_page_token = _token_by_id(query, rows)
        return response

    # --- Operations ----------------------------------------------------------

    def list_operations(self, request: Any, call: Call) -> operations_pb2.ListOperationsResponse:
        """Lists operations that match the specified filter in the request."""
        del call
        match = _parse(_OPERATIONS_OF_RE, "name", request.name, "Location or Model")
        place = _place_of(match)
        if match["evaluation"] is not None:
            # No operation is about an evaluation: those that import them are none.
            with self._store.reading():
                self._evaluation(_parse(_EVALUATION_RE, "name", request.name, "ModelEvaluation"))
            return operations_pb2.ListOperationsResponse()
        query = self._query("ListOperations", f"{place}/models/{match['model'] or ''}", request)
        page = Page((("model", False), ("id", False)), query.after, query.limit + 1)
        with self._store.writing():
            # The operations that are shown are looked at.
            rows = self._store.list_operations(place, match["model"], page)
            shown = [self._look_at(row) for row in rows[: query.limit]]
        response = operations_pb2.ListOperationsResponse(
            operations=[operations_pb2.Operation.FromString(row.body) for row in shown]
        )
        if len(rows) > query.limit:
            response.next_page_token = query.token((shown[-1].model, shown[-1].id))
        return response

    def get_operation(self, request: Any, call: Call) -> operations_pb2.Operation:
        """Gets the latest state of a long-running operation."""
        del call
        with self._store.writing():
            return operations_pb2.Operation.FromString(self._look_at(self._operation(request.name)).body)

    def delete_operation(self, request: Any, call: Call) -> empty_pb2.Empty:
        """Deletes a long-running operation."""
        del call
        with self._store.writing():
            row = self._operation(request.name)
            if row.looks is not None:
                # "It does not cancel the operation." Nobody can look at it any more: it is done now.
                row = self._look_at(row._replace(looks=1))
            self._store.delete_operation(row)
        return empty_pb2.Empty()

    def cancel_operation(self, request: Any, call: Call) -> empty_pb2.Empty:
        """Starts asynchronous cancellation on a long-running operation."""
        del call
        with self._store.writing():
            row = self._operation(request.name)
            # "On successful cancellation, the operation is not deleted; instead, it becomes an operation with an
            # Operation.error value with a google.rpc.Status.code of 1". One that is done stays as it is.
            if row.looks is not None:
                failure = cancelled("The operation was cancelled.").status.SerializeToString()
                self._store.change_operation(self._finish(row._replace(failure=failure), None))
        return empty_pb2.Empty()

    def wait_operation(self, request: Any, call: Call) -> operations_pb2.Operation:
        """Waits until the specified long-running operation is done or reaches at most a specified timeout."""
        del call
        with self._store.writing():
            row = self._look_at(self._operation(request.name))
            # Nothing goes on by itself here, so that waiting is looking as often as it takes.
            patient = not request.HasField("timeout") or request.timeout.ToNanoseconds() > 0
            if row.looks is not None and patient:
                row = self._look_at(row._replace(looks=1))
        return operations_pb2.Operation.FromString(row.body)

    # --- Locations -----------------------------------------------------------

    def list_locations(self, request: Any, call: Call) -> locations_pb2.ListLocationsResponse:
        """Lists information about the supported locations for this service."""
        del call
        match = _parse(_PROJECT_RE, "name", request.name, "Project")
        query = self._query("ListLocations", project_number(match["project"]), request)
        after = str(query.after[0]) if query.after else ""
        rest = [name for name in LOCATIONS if name > after]
        response = locations_pb2.ListLocationsResponse(
            locations=[_location(match["project"], name) for name in rest[: query.limit]]
        )
        if len(rest) > query.limit:
            response.next_page_token = query.token((rest[query.limit - 1],))
        return response

    def get_location(self, request: Any, call: Call) -> locations_pb2.Location:
        """Gets information about a location."""
        del call
        match = _parse(_PLACE_RE, "name", request.name, "Location")
        # Models can be kept in any location here, so that any is there.
        return _location(match["project"], match["location"])

    # --- the emulator's own --------------------------------------------------

    def reset(self) -> None:
        """Forget everything."""
        self._store.clear()
        self._entry_again.cache_clear()

    def _list_anew(self) -> None:
        """Let lists find every model by what they show of it, where that was written under another assumption."""
        store, wins = self._store, self._assume.label_wins
        with store.writing():
            for place, model in store.listed_otherwise(wins):
                self._relist(Name(place, model, None))
            store.show_in_lists()

    # --- names, views and lists ----------------------------------------------

    def _now(self) -> int:
        """Now, in microseconds since 1970, and never before what was now already."""
        time = self._clock()
        with self._time_lock:
            self._latest = max(self._latest, (time - _EPOCH) // _MICROSECOND)
            return self._latest

    def _free_id(self, is_taken: Callable[[str], bool]) -> str:
        """An id that nothing has."""
        for _ in range(_TRIES):
            made = self._new_id()
            if not _MADE_ID_RE.fullmatch(made):
                raise internal(f"The maker of ids, new_id, gave {made!r}, which is no id.")
            if not is_taken(made):
                return made
        raise internal(f"The maker of ids, new_id, gave {_TRIES} ids in a row that are taken.")

    def _row(self, name: Name) -> ModelRow:
        row = self._store.model(name.place, name.model)
        if row is None:
            raise not_found(f"The Model does not exist: {name.bare}.")
        return row

    def _view(self, name: Name) -> View:
        store, version = self._store, name.version
        if version is None:
            view = store.default(name.place, name.model)
        elif _NUMBER_RE.fullmatch(version):
            view = store.numbered(name.place, name.model, int(version))
        else:
            view = store.aliased(name.place, name.model, version)
        if view is None:
            self._row(name)
            raise not_found(f"The Model version does not exist: {name.bare}@{version}.")
        return view

    def _message(self, view: View, *, versioned: bool) -> Any:
        """The view as a ``Model``."""
        return _show(view, versioned, self._assume.label_wins)

    def _check_etag(self, etag: str, view: View, *, of_version: bool, stale: bool) -> None:
        """Refuse an update on top of another one.

        Model.etag: "Used to perform consistent read-modify-write updates. If not set, a blind "overwrite" update
        happens." An etag is of the view that it came with, and tells the state of the model and of the version in it.
        That an update of the model takes the etag of any of its versions, and does not mind what became of that
        version, is how Google's SDK uses it: it updates the model with what it read of a version before its aliases
        moved.
        """
        told = (_etag(view), etag) if of_version else (_model_in_etag(_etag(view)), _model_in_etag(etag))
        if stale or (etag and told[0] != told[1]):
            message = f"The etag is stale: {view.parent}/models/{view.id} was changed since it was read. Read it again."
            raise aborted(message) if self._assume.stale_etag == "aborted" else failed_precondition(message)

    def _relist(self, name: Name) -> None:
        """Let lists find the model by what they show of it now: its default version's labels and base model."""
        view = self._store.default(name.place, name.model)
        assert view is not None  # noqa: S101 - a model has exactly one default version
        shown = self._message(view, versioned=False)
        self._store.list_labels(view.key, view.parent, shown.labels)
        self._store.list_base_model(view.key, _base_model(shown))

    @contextlib.contextmanager
    def _looking(self, place: str, model: str) -> Iterator[None]:
        """A look at a model: its operations come nearer to being done."""
        if not self._store.under_way:
            with self._store.reading():
                yield
            return
        with self._store.writing():
            for row in self._store.count_look(place, model):
                self._look_at(row)
        with self._store.reading():
            yield

    @contextlib.contextmanager
    def _listing(self) -> Iterator[None]:
        with self._store.reading():
            self._store.count_list()
            yield

    @staticmethod
    def _query(rpc: str, scope: str, request: Any) -> Query:
        return parse_query(
            rpc,
            scope,
            filter=getattr(request, "filter", ""),
            order_by=getattr(request, "order_by", ""),
            page_size=request.page_size,
            page_token=request.page_token,
        )

    def _version_conditions(self, query: Query, own: Mapping[str, str]) -> list[LabelCondition] | None:
        """What the labels of a version must be, given those of its model; None if nothing can match."""
        conditions = []
        merged = self._assume.label_filter == "merged"
        for term in query.filter.terms:
            key = term.key or ""
            value = None if term.operator is Operator.HAS else term.value
            if not merged or key not in own:
                conditions.append(LabelCondition(key, value))
            elif value is None:
                continue
            elif self._assume.label_wins == "model":
                if own[key] != value:
                    return None
            else:
                conditions.append(LabelCondition(key, value, or_none=own[key] == value))
        return conditions

    def _answer(self, views: list[View], query: Query, page: Page, mask: tuple[str, ...], *, versioned: bool) -> bytes:
        """A page of a list, with the token of the next one if there is more.

        It is put together of what is serialised already, in which all lists of models are alike.
        """
        shown, label_wins = views[: query.limit], self._assume.label_wins
        parts = [
            (_entry if len(view.body) + len(view.version_body) > _SHORT else self._entry_again)(
                view, versioned, label_wins, mask
            )
            for view in shown
        ]
        if len(views) > query.limit:
            token = query.token(_position(shown[-1], page, of_version=versioned))
            parts.append(_Models(next_page_token=token).SerializeToString())
        return b"".join(parts)

    def _evaluation(self, match: re.Match[str]) -> tuple[int, bytes]:
        """The key of the model, and its evaluation."""
        name = Name(_place_of(match), match["model"], match["version"])
        view = self._view(name)
        found = self._store.evaluation(view.key, match["evaluation"])
        if found is None or (name.version is not None and found[0] != view.number):
            raise not_found(f"The ModelEvaluation does not exist: {name.bare}/evaluations/{match['evaluation']}.")
        return view.key, found[1]

    def _slice(self, match: re.Match[str]) -> bytes:
        model, _ = self._evaluation(match)
        body = self._store.slice(model, match["evaluation"], match["slice"])
        if body is None:
            raise not_found(f"The ModelEvaluationSlice does not exist: {match[0]}.")
        return body

    # --- uploads and copies --------------------------------------------------

    def _parent_model(self, given: str, place: str, violations: Violations) -> Name | None:
        """The model that an upload or a copy adds a version to."""
        if not given:
            return None
        # gcloud sends what was typed, which may be a bare id. That Vertex takes it is a guess.
        full = f"{place}/models/{given}" if "/" not in given else given
        match = _MODEL_RE.fullmatch(full)
        if match is None or match["version"] is not None:
            violations.append(("parent_model", "Invalid Model resource name"))
            return None
        if _place_of(match) != place:
            # A guess.
            violations.append(("parent_model", f"The parent model must be in {place}"))
            return None
        return Name(place, match["model"], None)

    def _check_files(self, model: Any) -> None:
        """Refuse an artifact directory that a prebuilt container could not serve, as far as it can be looked at."""
        match = PREBUILT_RE.fullmatch(model.container_spec.image_uri)
        if self._look_up is None or match is None:
            return
        uri = _GCS_RE.fullmatch(model.artifact_uri)
        assert uri is not None  # noqa: S101 - it was checked
        expected = PREBUILT_FILES[match["framework"]]
        directory = (uri["path"] or "").rstrip("/")
        prefix = f"{directory}/" if directory else ""
        found = self._look_up(uri["bucket"], prefix)
        if found is None:
            return
        names = {name.removeprefix(prefix) for name in found}
        if len(names & set(expected)) != 1:
            raise failed_precondition(
                f"Model directory {model.artifact_uri} is expected to contain exactly one of: [{', '.join(expected)}]."
            )

    def _begin_version(  # noqa: PLR0917 - two methods begin what these tell
        self,
        rpc: str,
        request: Any,
        call: Call,
        place: str,
        parent_model: Name | None,
        model_id: str,
        *,
        source: int | None = None,
    ) -> operations_pb2.Operation:
        """Begin the operation that makes a model with its first version, or a further version of one."""
        begin = functools.partial(self._begin, rpc, request, source=source)
        with self._store.writing():
            if parent_model is not None:
                row = self._row(parent_model)
                _check_same_key(rpc, request, row)
                return begin(call, parent_model, target=row.key)
            if not model_id:
                model_id = self._free_id(lambda given: self._store.is_taken(place, given))
            if self._store.is_taken(place, model_id):
                failure = already_exists(f"The Model already exists: {place}/models/{model_id}.")
                if self._assume.id_taken == "call":
                    raise failure
                call = call._replace(failing=call.failing or failure)
                return begin(call, Name(place, model_id, None))
            return begin(call, Name(place, model_id, None), creates=True)

    def _upload(self, row: OperationRow, request: Any) -> Message:
        version = _Model()
        version.CopyFrom(request.model)
        for field in (*_OUTPUT_ONLY, *_MODEL_FIELDS):
            version.ClearField(field)
        if not version.metadata_schema_uri:
            # Second-hand: metadata without a schema is silently dropped.
            version.ClearField("metadata")
        _describe(version)
        own = _Model()
        own.display_name, own.description = request.model.display_name, request.model.description
        if request.model.HasField("encryption_spec"):
            own.encryption_spec.CopyFrom(request.model.encryption_spec)
        number = self._add_version(row, own, version, request.model.version_aliases, under=bool(request.parent_model))
        return _version_response(types.UploadModelResponse, row, number)

    def _copy(self, row: OperationRow, request: Any) -> Message:
        source = self._view(_parse_name("source_model", request.source_model))
        if row.source not in (None, source.key):
            # The one that was there is deleted, and this is a later one of its name. A guess, as for the target.
            raise not_found(f"The Model version does not exist any more: {request.source_model}.")
        # Not copied, as the documentation says: the aliases, the id, the evaluations and the encryption. That both
        # layers of labels are, is a guess.
        own = _Model.FromString(source.body)
        own.ClearField("encryption_spec")
        if request.HasField("encryption_spec"):
            own.encryption_spec.CopyFrom(request.encryption_spec)
        version = _Model.FromString(source.version_body)
        # ModelSourceInfo.copy: "If this Model is copy of another Model." OriginalModelInfo.model: "The resource name of
        # the Model this Model is a copy of, including the revision."
        version.model_source_info.copy = True
        version.original_model_info.model = f"{source.parent}/models/{source.id}@{source.number}"
        number = self._add_version(row, own, version, (), under=bool(request.parent_model), layered=True)
        return _version_response(types.CopyModelResponse, row, number)

    def _add_version(
        self,
        row: OperationRow,
        own: Any,
        version: Any,
        aliases: Sequence[str],
        *,
        under: bool,
        layered: bool = False,
    ) -> int:
        """Make a version, and its model unless it goes under one, and give its number."""
        name = Name(row.parent, row.model, None)
        model = self._store.model(row.parent, row.model)
        time = self._now()
        if under:
            if model is None:
                raise not_found(f"The Model does not exist: {name.bare}.")
            key, number, body = model.key, model.last_version + 1, _Model.FromString(model.body)
        else:
            # Its id was taken when the operation began.
            key, number, body = 0, 1, own
        layers = ("model", "first-on-model") if number == 1 else ("model",)
        on_model = self._assume.labels_at_upload in layers and not layered
        if on_model:
            body.labels.update(version.labels)
            if len(body.labels) > _MAXIMUM_LABELS:
                raise invalid_argument(*_check_labels(body.labels))
            version.ClearField("labels")
        if not key:
            key = self._store.add_model(
                row.parent,
                row.model,
                display_name=body.display_name,
                base_model=_base_model(version),
                time=time,
                body=body.SerializeToString(),
            )
        elif on_model:
            self._store.change_model(key, display_name=body.display_name, time=time, body=body.SerializeToString())
        self._store.add_version(key, number, time=time, labels=version.labels, body=version.SerializeToString())
        # "A default version alias will be created for the first version of the model". A later version gets it only
        # by asking for it, and then takes it from the one that has it.
        wanted = list(dict.fromkeys(aliases))
        if number == 1 and DEFAULT not in wanted:
            wanted.append(DEFAULT)
        # Adding a version does not touch its siblings' update times, as Google's system test shows, but for one that
        # loses an alias by it: that is a change of it, as by MergeVersionAliases. A guess.
        self._store.set_aliases(key, number, wanted, time=time)
        if on_model or DEFAULT in wanted:
            self._relist(name)
        return number

    # --- deletes -------------------------------------------------------------

    def _check_deletable(self, view: View) -> None:
        name = f"{view.parent}/models/{view.id}"
        # "The only version of a model cannot be deleted": "Deleting the only version in the Model is not allowed. Use
        # DeleteModel for deleting the Model instead." The code is a guess.
        if self._store.count_versions(view.key) == 1:
            raise failed_precondition(
                f"{name}@{view.number} is the only version of its model and cannot be deleted. Delete the model."
            )
        if self._assume.default_delete == "refuse" and view.number == view.default_version:
            raise failed_precondition(
                f"{name}@{view.number} is the default version and cannot be deleted."
                f" Add the alias {DEFAULT} to another version first."
            )

    def _delete_version(self, row: OperationRow, request: Any) -> Message:
        name = _parse_name("name", request.name)
        view = self._view(name)
        self._check_deletable(view)
        time = self._now()
        version = _Model.FromString(view.version_body)
        self._store.delete_version(view.key, view.number, time=time, labels=version.labels)
        if view.number == view.default_version:
            # One page of the documentation: the alias goes to the next most recent version.
            heir = self._store.newest(row.parent, row.model)
            assert heir is not None  # noqa: S101 - it was not the only one
            self._store.set_aliases(heir.key, heir.number, [*heir.aliases.split(), DEFAULT], time=time)
            self._relist(name)
        return empty_pb2.Empty()

    def _delete_model(self, row: OperationRow, request: Any) -> Message:
        del request
        self._store.delete_model(self._row(Name(row.parent, row.model, None)))
        return empty_pb2.Empty()

    # --- what the other operations do ----------------------------------------

    def _update_explanation_dataset(self, row: OperationRow, request: Any) -> Message:
        del row
        view = self._view(_parse_name("model", request.model))
        version = _with_examples(view, request.examples)
        self._store.change_version(
            view.key,
            view.number,
            time=self._now(),
            before=list(version.labels),
            labels=version.labels,
            body=version.SerializeToString(),
        )
        response: Message = types.UpdateExplanationDatasetResponse.pb()()
        return response

    def _export(self, row: OperationRow, request: Any) -> Message:
        # Without a cloud there are no bytes to write; what is exported must be there all the same.
        del row
        self._view(_parse_name("name", request.name))
        response: Message = types.ExportModelResponse.pb()()
        return response

    # --- operations within ---------------------------------------------------

    def _begin(
        self,
        rpc: str,
        request: Any,
        call: Call,
        name: Name,
        *,
        target: int | None = None,
        source: int | None = None,
        creates: bool = False,
        metadata: Any = None,
    ) -> operations_pb2.Operation:
        """Begin an operation of a model, the target if it is there; without polls it is done when this returns.

        The source is the key of the model that it copies.
        """
        time = self._now()
        if metadata is None:
            metadata = _METADATA[rpc]()
        metadata.generic_metadata.create_time.FromMicroseconds(time)
        metadata.generic_metadata.update_time.FromMicroseconds(time)
        operation_id = self._free_id(lambda given: self._store.operation(name.place, None, given) is not None)
        operation = operations_pb2.Operation(name=f"{name.bare}/operations/{operation_id}")
        _pack(operation.metadata, metadata, call.api)
        row = OperationRow(
            name.place,
            name.model,
            operation_id,
            self._polls or None,
            target,
            rpc,
            call.api,
            request.SerializeToString(),
            call.failing.status.SerializeToString() if call.failing else b"",
            operation.SerializeToString(),
            source,
        )
        if row.looks is None:
            row = self._finish(row, request)
        self._store.add_operation(row, creates=creates)
        return operations_pb2.Operation.FromString(row.body)

    def _finish(self, row: OperationRow, request: Any) -> OperationRow:
        """Do what an operation is for."""
        operation = operations_pb2.Operation.FromString(row.body)
        operation.done = True
        if row.failure:
            operation.error.ParseFromString(row.failure)
        else:
            try:
                _pack(operation.response, self._work[row.rpc](row, request), row.api)
            except Failure as failure:
                # Nothing was written: each of the methods looks before it writes.
                operation.error.CopyFrom(failure.status)
        metadata = _METADATA[row.rpc].FromString(operation.metadata.value)
        metadata.generic_metadata.update_time.FromMicroseconds(self._now())
        operation.metadata.value = metadata.SerializeToString()
        return row._replace(looks=None, body=operation.SerializeToString())

    def _operation(self, name: str) -> OperationRow:
        match = _parse(_OPERATION_RE, "name", name, "Operation")
        place = _place_of(match)
        # A guess: each is also found by its id alone, which is what gcloud asks for.
        row = self._store.operation(place, match["model"], match["operation"])
        if row is None or match["evaluation"] is not None:
            raise not_found(f"The Operation does not exist: {name}.")
        return row

    def _look_at(self, row: OperationRow) -> OperationRow:
        if row.looks is None:
            return row
        if row.looks > 1:
            row = row._replace(looks=row.looks - 1)
        else:
            if not row.failure:
                row = row._replace(failure=self._lost_target(row))
            row = self._finish(row, getattr(types, f"{row.rpc}Request").pb().FromString(row.request))
        self._store.change_operation(row)
        return row

    def _lost_target(self, row: OperationRow) -> bytes:
        """The failure of an operation whose model was deleted, though another one may have its id by now. A guess."""
        there = None if row.target is None else self._store.model(row.parent, row.model)
        if row.target == (there and there.key):
            return b""
        name = Name(row.parent, row.model, None)
        lost: bytes = not_found(f"The Model does not exist: {name.bare}.").status.SerializeToString()
        return lost


# How often a maker of ids is asked for one that is free.
_TRIES: Final = 1000

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND: Final = dt.timedelta(microseconds=1)

_ETAG: Final = struct.Struct(">IIII")


def _show(view: View, versioned: bool, label_wins: str) -> Any:
    """The view as a ``Model``: of the two blobs the later one wins."""
    model = _Model()
    if label_wins == "version":
        model.MergeFromString(view.body + view.version_body)
    else:
        model.MergeFromString(view.version_body + view.body)
    model.name = f"{view.parent}/models/{view.id}"
    if versioned:
        model.name += f"@{view.number}"
    model.version_id = str(view.number)
    model.version_aliases.extend(view.aliases.split())
    _tell(model.create_time, view.create_time)
    _tell(model.update_time, view.update_time)
    _tell(model.version_create_time, view.version_create_time)
    _tell(model.version_update_time, view.version_update_time)
    model.etag = _etag(view)
    return model


def _entry(view: View, versioned: bool, label_wins: str, mask: tuple[str, ...]) -> bytes:
    """The view as the serialised entry of a list: answers that are concatenated are one longer answer."""
    answer = _Models()
    answer.models.append(apply_read_mask(_show(view, versioned, label_wins), mask))
    serialised: bytes = answer.SerializeToString()
    return serialised


# The entries that are kept: so many, and none whose view is longer.
_KEPT: Final = 4096
_SHORT: Final = 4096


def _tell(moment: Any, microseconds: int) -> None:
    """Set a Timestamp, at a third of the price of its own method."""
    moment.seconds, rest = divmod(microseconds, 1_000_000)
    moment.nanos = rest * 1000


def _etag(view: View) -> str:
    """What a view's etag is: it changes with whatever the view shows, except for what other versions do."""
    return base64.b64encode(_ETAG.pack(view.key, view.revision, view.number, view.version_revision)).decode()


def _model_in_etag(etag: str) -> tuple[int, int] | None:
    """What an etag tells of the model: its key and its revision."""
    with contextlib.suppress(ValueError, struct.error):
        key, revision, _, _ = _ETAG.unpack(base64.b64decode(etag, validate=True))
        return key, revision
    return None


def _pack(packed: Any, message: Message, api: str) -> None:
    """Pack into an ``Any`` under the name that the message has in that version of the API."""
    name = message.DESCRIPTOR.full_name.replace("google.cloud.aiplatform.v1.", f"google.cloud.aiplatform.{api}.")
    packed.type_url = f"type.googleapis.com/{name}"
    packed.value = message.SerializeToString()


def _base_model(version: Any) -> str:
    """The name that a filter finds it by.

    Of the garden's it is a resource name, "publishers/google/models/text-bison", and the example of a filter that the
    proto gives is baseModelName="text-bison": that it is the last part, and the whole is as good, is a guess.
    """
    source = version.base_model_source
    return _last_part(source.model_garden_source.public_model_name) or str(source.genie_source.base_model_uri)


def _last_part(name: str) -> str:
    return name.rpartition("/")[2] if name.startswith("publishers/") else name


def _describe(version: Any) -> None:
    """Fill in what Vertex says about a model that a user uploaded.

    All of it is a guess, from memory of custom models: no source lists the values.
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


def _with_examples(view: View, examples: Any) -> Any:
    """The version with the examples as they are after an update, which lie deeper in a model than in the request.

    "Incrementally update the dataset": what the request does not set stays, and what it sets is replaced. A guess.
    """
    version = _Model.FromString(view.version_body)
    updated = version.explanation_spec.parameters.examples
    for field, _ in examples.ListFields():
        updated.ClearField(field.name)
    try:
        updated.MergeFrom(examples)
        listed = types.ListModelsResponse.pb()(models=[version])
        type(listed).FromString(listed.SerializeToString())  # as a client will
        fits = not _check_values("examples", version)
    except ProtobufError:
        fits = False
    if not fits:
        raise invalid_argument(("examples", "The value is nested too deeply"))
    return version


def _check_same_key(rpc: str, request: Any, row: ModelRow) -> None:
    """Refuse a further version with another encryption key than its model's.

    Model.encryption_spec: "this Model and all sub-resources of this Model will be secured by this key." A guess.
    """
    within, field = (request.model, "model.") if rpc == "UploadModel" else (request, "")
    given = within.encryption_spec.kms_key_name
    if given and given != _Model.FromString(row.body).encryption_spec.kms_key_name:
        raise invalid_argument((f"{field}encryption_spec", "A version is encrypted with the key of its model"))


def _meant(request: Any, field: str, view: View) -> Any:
    """The request with the version that it means by its number: what an alias means may change until it is done."""
    meant = type(request)()
    meant.CopyFrom(request)
    setattr(meant, field, f"{view.parent}/models/{view.id}@{view.number}")
    return meant


def _page(query: Query, *, unique: str, values: tuple[str, ...]) -> Page:
    """The page that a query asks for, by the columns of the store.

    Rows are made in the order of their unique column, so that it is what create_time means, and ends every order.
    """
    order: list[tuple[str, bool]] = []
    for key in query.order:
        if key.field not in values:
            order.append((unique, key.descending))
            break
        order.append((key.field, key.descending))
    else:
        order.append((unique, order[-1][1]))
    return Page(tuple(order), query.after, query.limit + 1)


def _position(view: View, page: Page, *, of_version: bool) -> tuple[str | int, ...]:
    values: dict[str, str | int] = {
        "key": view.key,
        "number": view.number,
        "update_time": view.version_update_time if of_version else view.update_time,
        "display_name": "" if of_version else str(_Model.FromString(view.body).display_name),
    }
    return tuple(values[column] for column, _ in page.order)


def _page_by_id(query: Query) -> Page:
    return Page((("id", False),), query.after, query.limit + 1)


def _token_by_id(query: Query, rows: Sequence[tuple[str, bytes]]) -> str:
    return query.token((rows[query.limit - 1][0],)) if len(rows) > query.limit else ""


def _version_response(response: Any, row: OperationRow, number: int) -> Message:
    # UploadModelResponse.model: "The name of the uploaded Model resource", without the version.
    made: Message = response.pb()(model=f"{row.parent}/models/{row.model}", model_version_id=str(number))
    return made


def _plan_export(planned: Any, config: Any, model: Any, contents: set[int], time: int) -> None:
    """Where an export goes to."""
    content = types.Model.ExportFormat.ExportableContent
    artifact, image = config.artifact_destination.output_uri_prefix, config.image_destination.output_uri
    violations = []
    if not artifact and not image:
        violations.append(("output_config", "An artifact destination or an image destination must be set"))
    # "This field should only be set when the `exportableContent` field of the [Model.supported_export_formats] object
    # contains `ARTIFACT`". The same goes for the image, which every model that can be exported has.
    if artifact and content.ARTIFACT not in contents:
        violations.append(("output_config.artifact_destination", "The model has no artifact to export"))
    if artifact and not _GCS_RE.fullmatch(artifact):
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
        moment = (_EPOCH + time * _MICROSECOND).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        planned.artifact_output_uri = f"{artifact.rstrip('/')}/model-export-{model.display_name}-{moment}"
    planned.image_output_uri = image


# Where Vertex serves models, as Google's SDK lists it; "global" serves none.
LOCATIONS: Final = (
    "africa-south1",
    "asia-east1",
    "asia-east2",
    "asia-northeast1",
    "asia-northeast2",
    "asia-northeast3",
    "asia-south1",
    "asia-south2",
    "asia-southeast1",
    "asia-southeast2",
    "australia-southeast1",
    "australia-southeast2",
    "europe-central2",
    "europe-north1",
    "europe-north2",
    "europe-southwest1",
    "europe-west1",
    "europe-west12",
    "europe-west2",
    "europe-west3",
    "europe-west4",
    "europe-west6",
    "europe-west8",
    "europe-west9",
    "me-central1",
    "me-central2",
    "me-west1",
    "northamerica-northeast1",
    "northamerica-northeast2",
    "southamerica-east1",
    "southamerica-west1",
    "us-central1",
    "us-east1",
    "us-east4",
    "us-east5",
    "us-east7",
    "us-south1",
    "us-west1",
    "us-west2",
    "us-west3",
    "us-west4",
    "us-west8",
)


def _location(project: str, location: str) -> locations_pb2.Location:
    # A guess: the project's number, as in every other name; the display name is the id.
    name = f"projects/{project_number(project)}/locations/{location}"
    return locations_pb2.Location(name=name, location_id=location, display_name=location)
