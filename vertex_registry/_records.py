"""The records that callers get: frozen, with plain Python values in them."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

import attrs

from vertex_registry._stages import Stage
from vertex_registry.errors import InvalidArgumentError

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterable, Mapping


def _strings(values: Iterable[str]) -> tuple[str, ...]:
    if isinstance(values, str) or not all(isinstance(value, str) for value in values):
        raise InvalidArgumentError(f"Give a list of strings, not {values!r}.")
    return tuple(values)


def _ports(values: Iterable[int]) -> tuple[int, ...]:
    ports = tuple(values)
    if not all(isinstance(port, int) and 0 < port < 65536 for port in ports):  # noqa: PLR2004  # the ports there are
        raise InvalidArgumentError(f"A port is a number from 1 to 65535: {ports!r}.")
    return ports


def _variables(values: Mapping[str, str]) -> dict[str, str]:
    variables = dict(values)
    if not all(isinstance(item, str) for pair in variables.items() for item in pair):
        raise InvalidArgumentError(f"Environment variables are strings: {', '.join(map(repr, variables))}.")
    return variables


def _image(_instance: object, _attribute: object, value: str) -> None:
    if not isinstance(value, str) or not value:
        raise InvalidArgumentError(f"The image of a container is a URI, not {value!r}.")


@attrs.frozen
class ServingContainer:
    """The container that serves a version's predictions.

    Attributes:
        image: The image's URI, in Artifact Registry.
        command: The command to run in place of the image's entry point.
        args: The arguments to pass in place of the image's.
        env: Environment variables. The record's ``repr`` doesn't show their values.
        ports: The ports that the container listens on for HTTP. Vertex sends requests to the first one.
        grpc_ports: The ports that the container listens on for gRPC.
        predict_route: The path for predictions.
        health_route: The path for health checks.
        shared_memory_mb: The shared memory in MB. Defaults to 0, which means the container runtime's default.
        deployment_timeout: How many seconds a deployment may take, up to 7,200. Defaults to Vertex's default.
    """

    image: str = attrs.field(validator=_image)
    command: tuple[str, ...] = attrs.field(default=(), converter=_strings)
    args: tuple[str, ...] = attrs.field(default=(), converter=_strings)
    env: dict[str, str] = attrs.field(factory=dict, converter=_variables, repr=False, hash=False)
    ports: tuple[int, ...] = attrs.field(default=(), converter=_ports)
    grpc_ports: tuple[int, ...] = attrs.field(default=(), converter=_ports)
    predict_route: str = ""
    health_route: str = ""
    shared_memory_mb: int = 0
    deployment_timeout: float | None = None


@attrs.frozen(kw_only=True)
class ModelVersion:
    """One version of a model, as it was when it was read.

    Attributes:
        name: The display name of the model.
        version: The number that Vertex gave the version: "1", "2", ...
        version_name: The name that the version was registered with, exactly, or None.
        resource_name: ``projects/NUMBER/locations/LOCATION/models/ID@VERSION``.
        model_resource_name: The resource name of the model, without the version.
        stage: The stage that the version is in.
        stage_changed_at: When the stage was last changed (UTC), or None if this package didn't do it.
        stage_changed_by: Who changed the stage: the account of the credentials, or the client's ``actor``.
        aliases: The version's aliases, including ``"default"`` if it's the model's default version.
        is_default: Whether it's the model's default version.
        description: The version's own description.
        metadata: The JSON object that was registered with the version, and labels that other tools wrote.
        labels: The labels as Vertex returned them, with the model's labels merged into the version's.
        managed_by: The value of the label ``managed_by``, or None.
        artifact_uri: The Cloud Storage directory of the artifact, or ``""``.
        container: The container that serves the version, or None if Vertex didn't return one.
        created_at: When the version was uploaded (UTC).
        updated_at: When the version was last changed (UTC).
        etag: An opaque value that Vertex changes with every change of the version.
    """

    name: str
    version: str
    version_name: str | None = None
    resource_name: str
    model_resource_name: str
    stage: Stage = Stage.NONE
    stage_changed_at: dt.datetime | None = None
    stage_changed_by: str | None = None
    aliases: tuple[str, ...] = ()
    is_default: bool = False
    description: str = ""
    metadata: dict[str, Any] = attrs.field(factory=dict, hash=False)
    labels: dict[str, str] = attrs.field(factory=dict, hash=False)
    managed_by: str | None = None
    artifact_uri: str = ""
    container: ServingContainer | None = None
    created_at: dt.datetime
    updated_at: dt.datetime
    etag: str = ""


@attrs.frozen(kw_only=True)
class RegisteredModel:
    """One model, as it was when it was read.

    Attributes:
        name: The model's display name.
        resource_name: ``projects/NUMBER/locations/LOCATION/models/ID``.
        description: The model's own description.
        labels: The labels as Vertex returned them: the model's own, merged with those of its default version.
        managed_by: The value of the label ``managed_by``, or None.
        default_version: The number of the version that has the alias ``default``.
        created_at: When the model was created (UTC).
        updated_at: When the model was last changed (UTC).
    """

    name: str
    resource_name: str
    description: str = ""
    labels: dict[str, str] = attrs.field(factory=dict, hash=False)
    managed_by: str | None = None
    default_version: str
    created_at: dt.datetime
    updated_at: dt.datetime


@attrs.frozen(kw_only=True)
class StageChange:
    """The last change of one version's stage.

    Attributes:
        version: The number of the version.
        version_name: The name of the version, or None.
        stage: The stage that the version was put in.
        changed_at: When it was changed (UTC).
        changed_by: Who changed it, or None if that isn't known.
    """

    version: str
    version_name: str | None
    stage: Stage
    changed_at: dt.datetime
    changed_by: str | None


def _positive(_instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not isinstance(value, (int, float)) or not value > 0:
        raise InvalidArgumentError(f"Retry({attribute.name}={value!r}) is not a positive number of seconds.")


@attrs.frozen(kw_only=True)
class Retry:
    """The retry and timeout policy. All times are in seconds.

    Attributes:
        calls: The budget of one call: connecting, all attempts and the waits between them.
        operations: The budget of one long-running operation, from start to end.
        first: The longest wait before the second attempt. It doubles with each further attempt.
        most: The longest wait between two attempts, unless the server requests a longer one.
        sleep: A function that waits a number of seconds. Defaults to ``time.sleep``.
        random: A function that returns a number from 0 to 1; each wait is that share of the longest. Defaults to the
            operating system's generator, so seeding an experiment neither affects it nor is affected by it.
        clock: A function that returns the time that budgets are measured with. Defaults to ``time.monotonic``.
    """

    calls: float = attrs.field(default=60.0, validator=_positive)
    operations: float = attrs.field(default=1800.0, validator=_positive)
    first: float = attrs.field(default=0.2, validator=_positive)
    most: float = attrs.field(default=10.0, validator=_positive)
    sleep: Callable[[float], None] = attrs.field(default=time.sleep, repr=False)
    random: Callable[[], float] = attrs.field(default=random.SystemRandom().random, repr=False)
    clock: Callable[[], float] = attrs.field(default=time.monotonic, repr=False)
