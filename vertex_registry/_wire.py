"""Records to protos and back.

The only module that reads a field of one of Google's messages, but for the operations that are waited for. It does no
I/O: requests come out of it, and answers go into it. Answers are read beneath proto-plus, from the protobuf message
itself, because that takes a sixth of the time.

An answer can hold anything. Every record that comes out of here has a resource name that can be used, and a version's
number is one. A time, port or duration that doesn't exist is replaced by the nearest that does, or left out. What has
no usable name is left out of a list, with a warning in the log; asked for by itself, it's an `UnavailableError`.
"""

from __future__ import annotations

import datetime as dt
import functools
import logging
from typing import TYPE_CHECKING, Any, Final, TypeVar

from google.cloud.aiplatform_v1.types import env_var, model_service
from google.cloud.aiplatform_v1.types import model as model_types
from google.longrunning import operations_pb2
from google.protobuf import duration_pb2, field_mask_pb2
from google.protobuf.message import DecodeError

from vertex_registry import _labels, _names, _stages
from vertex_registry._records import ModelVersion, RegisteredModel, ServingContainer
from vertex_registry.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from google.protobuf import timestamp_pb2

T = TypeVar("T")

_LOG: Final = logging.getLogger("vertex_registry")

_FIRST: Final = dt.datetime.min.replace(tzinfo=dt.UTC)
_LAST: Final = dt.datetime.max.replace(tzinfo=dt.UTC)
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

#: What gcloud asks for; "the standard list page size" is not documented.
PAGE_SIZE = 100

_NOTE_OF_NAME = _labels.VERSION_NAME


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
    """Upload a version: of the model ``parent_model``, or the first of a new model with that id."""
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
    """Get a model or a version."""
    return model_service.GetModelRequest(name=name)


def models_named(parent: str, name: str, page_token: str) -> model_service.ListModelsRequest:
    """List the models of exactly that display name."""
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    return model_service.ListModelsRequest(
        parent=parent, filter=f'display_name="{quoted}"', page_size=PAGE_SIZE, page_token=page_token
    )


def models(parent: str, page_token: str) -> model_service.ListModelsRequest:
    """List all models, the newest first."""
    return model_service.ListModelsRequest(
        parent=parent, order_by="create_time desc", page_size=PAGE_SIZE, page_token=page_token
    )


def versions(model: str, page_token: str) -> model_service.ListModelVersionsRequest:
    """List the versions of a model."""
    return model_service.ListModelVersionsRequest(name=model, page_size=PAGE_SIZE, page_token=page_token)


def update_version(
    name: str, *, labels: Mapping[str, str] | None = None, description: str | None = None, etag: str = ""
) -> model_service.UpdateModelRequest:
    """Replace the labels or the description of the version ``model@version``."""
    fields: dict[str, Any] = {}
    if labels is not None:
        fields["labels"] = dict(labels)
    if description is not None:
        fields["version_description"] = description
    return _update(name, fields, etag)


def update_model(
    name: str, *, labels: Mapping[str, str] | None = None, description: str | None = None, etag: str = ""
) -> model_service.UpdateModelRequest:
    """Replace the model's own labels or its description."""
    fields: dict[str, Any] = {}
    if labels is not None:
        fields["labels"] = dict(labels)
    if description is not None:
        fields["description"] = description
    return _update(name, fields, etag)


def merge_aliases(
    name: str, *, add: Iterable[str] = (), remove: Iterable[str] = ()
) -> model_service.MergeVersionAliasesRequest:
    """Give aliases to a version, and take aliases from it."""
    aliases = [*add, *(f"-{alias}" for alias in remove)]
    return model_service.MergeVersionAliasesRequest(name=name, version_aliases=aliases)


def delete_version(name: str) -> model_service.DeleteModelVersionRequest:
    """Delete the version ``model@version``."""
    return model_service.DeleteModelVersionRequest(name=name)


def delete_model(name: str) -> model_service.DeleteModelRequest:
    """Delete a model with all its versions."""
    return model_service.DeleteModelRequest(name=name)


def operation(name: str) -> operations_pb2.GetOperationRequest:
    """Look at an operation."""
    return operations_pb2.GetOperationRequest(name=name)


def operations(model: str, page_token: str) -> operations_pb2.ListOperationsRequest:
    """List the operations of a model."""
    return operations_pb2.ListOperationsRequest(name=model, page_size=PAGE_SIZE, page_token=page_token)


def read_version(message: model_types.Model, *, on_vertex: bool = False) -> ModelVersion:
    """The version that a Model tells of; the model's own fields are left aside."""
    return _version(model_types.Model.pb(message), on_vertex=on_vertex)


def read_aliases(message: model_types.Model) -> tuple[str, ...]:
    """Return all aliases of the version, those that `ModelVersion.aliases` does not show included."""
    return tuple(model_types.Model.pb(message).version_aliases)


def read_listed_aliases(
    response: model_service.ListModelVersionsResponse,
) -> tuple[list[tuple[int, tuple[str, ...]]], str]:
    """Return the numbers of the versions on a page with all their aliases, and the token of the next page."""
    page = model_service.ListModelVersionsResponse.pb(response)
    found = [(int(message.version_id), tuple(message.version_aliases)) for message in page.models]
    return found, page.next_page_token


def read_model(message: model_types.Model, *, on_vertex: bool = False) -> RegisteredModel:
    """The model that a Model tells of, whichever of its versions came with it."""
    return _model(model_types.Model.pb(message), on_vertex=on_vertex)


def read_versions(
    response: model_service.ListModelVersionsResponse, *, on_vertex: bool = False
) -> tuple[list[ModelVersion], str]:
    """The versions on a page, and the token of the next page, empty on the last."""
    page = model_service.ListModelVersionsResponse.pb(response)
    return _readable(functools.partial(_version, on_vertex=on_vertex), page.models), page.next_page_token


def read_models(
    response: model_service.ListModelsResponse, *, on_vertex: bool = False
) -> tuple[list[RegisteredModel], str]:
    """The models on a page, and the token of the next page, empty on the last."""
    page = model_service.ListModelsResponse.pb(response)
    return _readable(functools.partial(_model, on_vertex=on_vertex), page.models), page.next_page_token


def read_upload(finished: operations_pb2.Operation) -> tuple[str, str]:
    """Return the model and the version that a finished upload made; the version is empty if no number is given."""
    answer = model_service.UploadModelResponse.pb(model_service.UploadModelResponse())
    try:
        finished.response.Unpack(answer)
    except DecodeError:
        answer.Clear()
    model, version = _names.split_version(answer.model)
    return model, _names.version_id(answer.model_version_id) or _names.version_id(version) or ""


def read_running(response: operations_pb2.ListOperationsResponse) -> tuple[list[operations_pb2.Operation], str]:
    """The operations on a page that are still running, and the token of the next page, empty on the last."""
    return [operation for operation in response.operations if not operation.done], response.next_page_token


def _update(name: str, fields: Mapping[str, Any], etag: str) -> model_service.UpdateModelRequest:
    return model_service.UpdateModelRequest(
        model=model_types.Model(name=name, etag=etag, **fields),
        update_mask=field_mask_pb2.FieldMask(paths=list(fields)),
    )


def _readable(read: Callable[[Any], T], messages: Iterable[Any]) -> list[T]:
    """Return a record of each message, without those that can't be one: the others aren't lost for them."""
    records, odd = [], []
    for message in messages:
        try:
            records.append(read(message))
        except UnavailableError as error:
            odd.append(error)
    if odd:
        _LOG.warning("%d entries of a list can't be read, and are left out. The first: %s", len(odd), odd[0])
    return records


def _resource_of(message: Any) -> tuple[str, str]:
    resource, version = _names.split_version(message.name)
    if not _names.is_model_resource(resource):
        raise _unusable(message, "it has no name of a model")
    return resource, version


def _unusable(message: Any, why: str) -> UnavailableError:
    return UnavailableError(
        f"The answer about {message.name[:200]!r} isn't one that Vertex gives: {why}. Check that the endpoint is the "
        "address of Vertex AI, or of an emulator of it.",
        resource=message.name,
    )


def _version(message: Any, *, on_vertex: bool) -> ModelVersion:
    resource, version = _resource_of(message)
    number = _names.version_id(message.version_id) or _names.version_id(version)
    if number is None:
        raise _unusable(message, "its version has no number")
    labels = dict(sorted(message.labels.items()))
    content = _labels.read(labels)
    every_alias = tuple(message.version_aliases)
    aliases = _names.visible_aliases(every_alias)
    return ModelVersion(
        name=message.display_name,
        version=number,
        version_name=content.notes.get(_NOTE_OF_NAME),
        resource_name=f"{resource}@{number}",
        model_resource_name=resource,
        stage=_stages.stage_of(content.notes),
        stage_changed_at=_stages.moment_of(content.notes.get(_stages.CHANGED_AT_LABEL)),
        stage_changed_by=content.notes.get(_stages.CHANGED_BY_LABEL),
        aliases=aliases,
        is_default=_names.DEFAULT_ALIAS in aliases,
        description=message.version_description,
        metadata=content.metadata,
        labels=labels,
        managed_by=content.notes.get(_labels.MANAGED_BY),
        artifact_uri=message.artifact_uri,
        container=_container(message.container_spec) if message.HasField("container_spec") else None,
        deployed_to=tuple(deployed.endpoint for deployed in message.deployed_models),
        created_at=_moment(message.version_create_time),
        updated_at=_moment(message.version_update_time),
        etag=message.etag,
        hidden_aliases=tuple(alias for alias in every_alias if not _names.is_visible(alias)),
        on_vertex=on_vertex,
    )


def _model(message: Any, *, on_vertex: bool) -> RegisteredModel:
    resource, _ = _resource_of(message)
    labels = dict(sorted(message.labels.items()))
    return RegisteredModel(
        name=message.display_name,
        resource_name=resource,
        description=message.description,
        labels=labels,
        managed_by=labels.get(_labels.MANAGED_BY),
        default_version=_names.version_id(message.version_id) or "",
        created_at=_moment(message.create_time),
        updated_at=_moment(message.update_time),
        etag=message.etag,
        on_vertex=on_vertex,
    )


def _moment(stamp: timestamp_pb2.Timestamp) -> dt.datetime:
    try:
        return stamp.ToDatetime(tzinfo=dt.UTC)
    except (ValueError, OverflowError):
        pass
    try:
        return _EPOCH + dt.timedelta(seconds=stamp.seconds)
    except OverflowError:
        return _LAST if stamp.seconds > 0 else _FIRST


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
    if not spec.image_uri:
        return None
    timeout = spec.deployment_timeout
    return ServingContainer(
        image=spec.image_uri,
        command=tuple(spec.command),
        args=tuple(spec.args),
        env={item.name: item.value for item in spec.env},
        ports=_ports(spec.ports),
        grpc_ports=_ports(spec.grpc_ports),
        predict_route=spec.predict_route,
        health_route=spec.health_route,
        shared_memory_mb=spec.shared_memory_size_mb,
        deployment_timeout=timeout.seconds + timeout.nanos / 1e9 if spec.HasField("deployment_timeout") else None,
    )


def _ports(ports: Iterable[Any]) -> tuple[int, ...]:
    numbers = (port.container_port for port in ports)
    return tuple(number for number in numbers if 0 < number < 65536)  # noqa: PLR2004  # the ports that exist


def _duration(seconds: float) -> duration_pb2.Duration:
    whole = int(seconds)
    return duration_pb2.Duration(seconds=whole, nanos=round((seconds - whole) * 1e9))
