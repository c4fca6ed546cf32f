"""Translate records into Google's messages and back, without any I/O.

No other module reads a field of a Vertex message, except operations that are waited for. Every record from here has a
usable resource name and version number, whatever the server sent. Responses are read beneath proto-plus, which takes a
sixth of the time.
"""

from __future__ import annotations

import datetime as dt
import functools
import logging
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs
from google.cloud.aiplatform_v1.types import env_var, model_service
from google.cloud.aiplatform_v1.types import model as model_types
from google.longrunning import operations_pb2
from google.protobuf import duration_pb2, field_mask_pb2
from google.protobuf.message import DecodeError

from vertex_registry import _labels, _names, _stages
from vertex_registry._records import ModelVersion, RegisteredModel, ServingContainer, from_response
from vertex_registry.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from google.protobuf import timestamp_pb2

T = TypeVar("T")

_LOG: Final = logging.getLogger("vertex_registry")

_EARLIEST: Final = dt.datetime.min.replace(tzinfo=dt.UTC)
_LATEST: Final = dt.datetime.max.replace(tzinfo=dt.UTC)
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_SECOND: Final = 1_000_000_000  # in nanoseconds

# ListModelVersionsRequest.order_by: "Supported fields: create_time, update_time". ListModelsRequest has both as well.
_NEWEST_FIRST: Final = "create_time desc"

_GetModelRequest: Final = model_service.GetModelRequest
_ListVersionsRequest: Final = model_service.ListModelVersionsRequest
_Model: Final = model_types.Model.pb()

#: The fields of a version that its labels hold.
_FROM_LABELS: Final = frozenset(
    {
        "labels",
        "metadata",
        "metadata_file",
        "version_name",
        "managed_by",
        "stage",
        "stage_changed_at",
        "stage_changed_by",
    }
)

#: How many entries a page has. Vertex documents neither a default nor a maximum. AIP-158 says that a service returns
#: fewer entries than requested if it has a maximum, and that the page size may change from page to page.
PAGE_SIZE: Final = 1000
#: How many entries a first page has if the caller may not want all of them. gcloud's pages have as many.
FIRST_PAGE_SIZE: Final = 100

# ListModelsRequest.order_by: "Supported fields: display_name, create_time, update_time".
_MODEL_ORDERS: Final = {"created": _NEWEST_FIRST, "updated": "update_time desc", "name": "display_name"}


def upload(
    parent: str,
    *,
    name: str,
    source: str,
    container: ServingContainer,
    aliases: Iterable[str],
    labels: Mapping[str, str],
    description: str | None,
    model_description: str | None,
    model_id: str = "",
    parent_model: str = "",
) -> model_service.UploadModelRequest:
    """Create a request to upload a version of ``parent_model``, or the first version of a new model with that ID."""
    return model_service.UploadModelRequest(
        parent=parent,
        model_id=model_id,
        parent_model=parent_model,
        model=model_types.Model(
            display_name=name,
            description=model_description or "",
            version_description=description or "",
            version_aliases=list(aliases),
            labels=dict(labels),
            artifact_uri=source,
            container_spec=_container_spec(container),
        ),
    )


def get(name: str) -> model_service.GetModelRequest:
    """Create a request to get a model or a version."""
    request: model_service.GetModelRequest = _GetModelRequest.wrap(_GetModelRequest.pb()(name=name))
    return request  # made in a third of the time that proto-plus takes


def models_named(parent: str, name: str, page_token: str, page_size: int) -> model_service.ListModelsRequest:
    """Create a request to list the models with exactly that display name."""
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    return model_service.ListModelsRequest(
        parent=parent, filter=f'display_name="{quoted}"', page_size=page_size, page_token=page_token
    )


def models(parent: str, page_token: str, page_size: int, order_by: str = "created") -> model_service.ListModelsRequest:
    """Create a request to list all models in one of the orders, by default the newest first."""
    return model_service.ListModelsRequest(
        parent=parent, order_by=_MODEL_ORDERS[order_by], page_size=page_size, page_token=page_token
    )


def versions(
    model: str, page_token: str, page_size: int, *, label: str = "", oldest_first: bool = False
) -> model_service.ListModelVersionsRequest:
    """Create a request to list the versions of a model.

    Args:
        model: The resource name of the model.
        page_token: The token of the page.
        page_size: How many versions the page has at most.
        label: Only versions with this label: ``key=value``, or ``key:*`` for any value. Defaults to all versions.
        oldest_first: Whether to list the oldest first. Defaults to the newest first.
    """
    request: model_service.ListModelVersionsRequest = _ListVersionsRequest.wrap(
        _ListVersionsRequest.pb()(
            name=model,
            order_by="create_time" if oldest_first else _NEWEST_FIRST,
            filter=label and f"labels.{label}",
            page_size=page_size,
            page_token=page_token,
        )
    )
    return request


def update_version(
    name: str, *, labels: Mapping[str, str] | None = None, description: str | None = None, etag: str = ""
) -> model_service.UpdateModelRequest:
    """Create a request to replace the labels or the description of the version ``model@version``."""
    fields: dict[str, Any] = {}
    if labels is not None:
        fields["labels"] = dict(labels)
    if description is not None:
        fields["version_description"] = description
    return _update(name, fields, etag)


def update_model(
    name: str,
    *,
    labels: Mapping[str, str] | None = None,
    description: str | None = None,
    display_name: str | None = None,
    etag: str = "",
) -> model_service.UpdateModelRequest:
    """Create a request to replace a model's own labels, its description or its name."""
    fields: dict[str, Any] = {}
    if display_name is not None:
        fields["display_name"] = display_name
    if labels is not None:
        fields["labels"] = dict(labels)
    if description is not None:
        fields["description"] = description
    return _update(name, fields, etag)


def merge_aliases(
    name: str, *, add: Iterable[str] = (), remove: Iterable[str] = ()
) -> model_service.MergeVersionAliasesRequest:
    """Create a request to add aliases to a version and remove others."""
    aliases = [*add, *(f"-{alias}" for alias in remove)]
    return model_service.MergeVersionAliasesRequest(name=name, version_aliases=aliases)


def delete_version(name: str) -> model_service.DeleteModelVersionRequest:
    """Create a request to delete the version ``model@version``."""
    return model_service.DeleteModelVersionRequest(name=name)


def delete_model(name: str) -> model_service.DeleteModelRequest:
    """Create a request to delete a model with all its versions."""
    return model_service.DeleteModelRequest(name=name)


def operation(name: str) -> operations_pb2.GetOperationRequest:
    """Create a request to poll an operation."""
    return operations_pb2.GetOperationRequest(name=name)


def operations(model: str, page_token: str, page_size: int) -> operations_pb2.ListOperationsRequest:
    """Create a request to list the operations of a model."""
    return operations_pb2.ListOperationsRequest(name=model, page_size=page_size, page_token=page_token)


def read_version(message: model_types.Model, *, on_vertex: bool = False) -> ModelVersion:
    """Return the version in a Model message, without the fields of the model itself."""
    return _version(model_types.Model.pb(message), on_vertex=on_vertex)


def read_aliases(message: model_types.Model) -> tuple[str, ...]:
    """Return all aliases of a version, including those that `ModelVersion.aliases` hides."""
    return tuple(model_types.Model.pb(message).version_aliases)


def read_listed_aliases(
    response: model_service.ListModelVersionsResponse,
) -> tuple[list[tuple[int, tuple[str, ...]]], str]:
    """Return the number and all aliases of each version on a page, and the token of the next page."""
    page = model_service.ListModelVersionsResponse.pb(response)
    found = [(int(message.version_id), tuple(message.version_aliases)) for message in page.models]
    return found, page.next_page_token


def read_model(message: model_types.Model, *, on_vertex: bool = False) -> RegisteredModel:
    """Return the model in a Model message, whichever version it contains."""
    return _model(model_types.Model.pb(message), on_vertex=on_vertex)


def read_versions(
    response: model_service.ListModelVersionsResponse, *, on_vertex: bool = False
) -> tuple[list[ModelVersion], str]:
    """Return the versions on a page, and the token of the next page, which is empty on the last one."""
    page = model_service.ListModelVersionsResponse.pb(response)
    return _read_each(functools.partial(_version, on_vertex=on_vertex), page.models), page.next_page_token


def read_models(
    response: model_service.ListModelsResponse, *, on_vertex: bool = False
) -> tuple[list[RegisteredModel], str]:
    """Return the models on a page, and the token of the next page, which is empty on the last one."""
    page = model_service.ListModelsResponse.pb(response)
    return _read_each(functools.partial(_model, on_vertex=on_vertex), page.models), page.next_page_token


def read_upload(finished: operations_pb2.Operation) -> tuple[str, str]:
    """Return the model and the version that a finished upload created. The version is empty if it has no number."""
    answer = model_service.UploadModelResponse.pb(model_service.UploadModelResponse())
    try:
        finished.response.Unpack(answer)
    except DecodeError:
        answer.Clear()
    model, version = _names.split_version(answer.model)
    return model, _names.version_id(answer.model_version_id) or _names.version_id(version) or ""


def read_running(response: operations_pb2.ListOperationsResponse) -> tuple[list[operations_pb2.Operation], str]:
    """Return the running operations on a page, and the token of the next page, which is empty on the last one."""
    return [operation for operation in response.operations if not operation.done], response.next_page_token


def _update(name: str, fields: Mapping[str, Any], etag: str) -> model_service.UpdateModelRequest:
    return model_service.UpdateModelRequest(
        model=model_types.Model(name=name, etag=etag, **fields),
        update_mask=field_mask_pb2.FieldMask(paths=list(fields)),
    )


def _read_each(read: Callable[[Any], T], messages: Iterable[Any]) -> list[T]:
    """Return a record for each message, and skip those that can't be read."""
    records, errors = [], []
    for message in messages:
        try:
            records.append(read(message))
        except UnavailableError as error:
            errors.append(error)
    if errors:
        _LOG.warning("%d entries of a list can't be read and are skipped. The first: %s", len(errors), errors[0])
    return records


def _parse_resource(message: Any) -> tuple[str, str]:
    resource, version = _names.split_version(message.name)
    if not _names.is_model_resource(resource):
        raise _unusable_error(message, "its name isn't that of a model")
    return resource, version


def _unusable_error(message: Any, why: str) -> UnavailableError:
    return UnavailableError(
        f"The response about {message.name[:200]!r} isn't one that Vertex sends: {why}. Check that the endpoint is the "
        "address of Vertex AI, or of an emulator.",
        resource=message.name,
    )


def _version(message: Any, *, on_vertex: bool) -> ModelVersion:
    resource, version = _parse_resource(message)
    number = _names.version_id(message.version_id) or _names.version_id(version)
    if number is None:
        raise _unusable_error(message, "its version has no number")
    return from_response(
        ModelVersion,
        {
            "name": message.display_name,
            "version": number,
            "resource_name": f"{resource}@{number}",
            "model_resource_name": resource,
            "_on_vertex": on_vertex,
            "_decode": functools.partial(_decode, message.SerializeToString()),
        },
    )


def _decode(content: bytes, field: str) -> Mapping[str, Any]:
    """Return a field of a version that `_version` left out, and those that are decoded with it.

    The labels, and with them the stage and the metadata, may take longest. So they wait until a field that they hold is
    read, and then nothing is left. The message comes as bytes, because a part of a page keeps the whole page in memory.
    """
    message = _Model.FromString(content)
    aliases: tuple[str, ...] = tuple(message.version_aliases) if message.version_aliases else ()
    deployed = message.deployed_models
    fields = {
        "aliases": _names.visible_aliases(aliases),
        "is_default": _names.DEFAULT_ALIAS in aliases,
        "description": message.version_description,
        "artifact_uri": message.artifact_uri,
        "container": _container(message.container_spec),
        "deployed_to": tuple(model.endpoint for model in deployed) if deployed else (),
        "created_at": _to_datetime(message.version_create_time),
        "updated_at": _to_datetime(message.version_update_time),
        "etag": message.etag,
        "_hidden_aliases": _names.hidden_aliases(aliases),
    }
    if field in _FROM_LABELS:
        fields.update(_fields_in_labels(message), _decode=None)
    return fields


def _fields_in_labels(message: Any) -> dict[str, Any]:
    listed = message.labels
    labels = {key: listed[key] for key in sorted(listed)}  # faster than dict(sorted(listed.items()))
    content = _labels.read(labels)
    own_labels, uri = content.own_labels, message.artifact_uri
    in_file = _labels.METADATA_FILE in own_labels and uri
    return {
        "labels": labels,
        "metadata": content.metadata,
        "metadata_file": f"{uri.rstrip('/')}/{_labels.FILE_NAME}" if in_file else None,
        "version_name": own_labels.get(_labels.VERSION_NAME),
        "managed_by": own_labels.get(_labels.MANAGED_BY),
        "stage": _stages.stage_of(own_labels),
        "stage_changed_at": _stages.parse_timestamp(own_labels.get(_stages.CHANGED_AT_LABEL)),
        "stage_changed_by": own_labels.get(_stages.CHANGED_BY_LABEL),
    }


def _model(message: Any, *, on_vertex: bool) -> RegisteredModel:
    resource, _ = _parse_resource(message)
    labels = dict(sorted(message.labels.items()))
    return RegisteredModel(
        name=message.display_name,
        resource_name=resource,
        description=message.description,
        labels=labels,
        managed_by=labels.get(_labels.MANAGED_BY),
        default_version=_names.version_id(message.version_id) or "",
        created_at=_to_datetime(message.create_time),
        updated_at=_to_datetime(message.update_time),
        etag=message.etag,
        on_vertex=on_vertex,
    )


def _to_datetime(stamp: timestamp_pb2.Timestamp) -> dt.datetime:
    nanos = stamp.nanos
    try:
        return _EPOCH + dt.timedelta(0, stamp.seconds, nanos // 1000 if 0 <= nanos < _SECOND else 0)
    except OverflowError:
        return _LATEST if stamp.seconds > 0 else _EARLIEST


def _container_spec(container: ServingContainer) -> model_types.ModelContainerSpec:
    timeout = container.deployment_timeout
    return model_types.ModelContainerSpec(
        image_uri=container.image,
        command=list(container.command),
        args=list(container.args),
        env=[env_var.EnvVar(name=name, value=value) for name, value in container.env.items()],
        ports=[model_types.Port(container_port=port) for port in container.ports],
        grpc_ports=[model_types.Port(container_port=port) for port in container.grpc_ports],
        predict_route=container.predict_route,
        health_route=container.health_route,
        shared_memory_size_mb=container.shared_memory_mb,
        deployment_timeout=None if timeout is None else _duration(timeout),
    )


def _container(spec: Any) -> ServingContainer | None:
    """Return the container in a message. Most have an image and little else, so it only reads fields that are set."""
    if not spec.image_uri:
        return None
    fields: dict[str, Any] = {**_CONTAINER_DEFAULTS, "env": {}}
    for descriptor, value in spec.ListFields():
        if descriptor.name in _CONTAINER_FIELDS:
            name, read = _CONTAINER_FIELDS[descriptor.name]
            fields[name] = read(value)
    return from_response(ServingContainer, fields)


def _ports(ports: Iterable[Any]) -> tuple[int, ...]:
    numbers = (port.container_port for port in ports)
    return tuple(number for number in numbers if 0 < number < 65536)  # noqa: PLR2004  # the valid ports


def _seconds(duration: Any) -> float:
    return float(duration.seconds + duration.nanos / 1e9)


#: The fields of a container in Vertex's message: the record's field, and what reads the value.
_CONTAINER_FIELDS: Final[Mapping[str, tuple[str, Callable[[Any], Any]]]] = {
    "image_uri": ("image", str),
    "command": ("command", tuple),
    "args": ("args", tuple),
    "env": ("env", lambda variables: {variable.name: variable.value for variable in variables}),
    "ports": ("ports", _ports),
    "grpc_ports": ("grpc_ports", _ports),
    "predict_route": ("predict_route", str),
    "health_route": ("health_route", str),
    "shared_memory_size_mb": ("shared_memory_mb", int),
    "deployment_timeout": ("deployment_timeout", _seconds),
}
_CONTAINER_DEFAULTS: Final = {
    field.name: field.default for field in attrs.fields(ServingContainer) if field.name not in {"image", "env"}
}


def _duration(seconds: float) -> duration_pb2.Duration:
    whole = int(seconds)
    return duration_pb2.Duration(seconds=whole, nanos=round((seconds - whole) * 1e9))
