"""The records that callers get: frozen, with plain Python values in them."""

from __future__ import annotations

import datetime as dt
import json
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, overload

import attrs

from vertex_registry import _display
from vertex_registry._quoting import is_blank, quote
from vertex_registry._stages import Stage
from vertex_registry.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable


RecordT = TypeVar("RecordT")

#: How attrs itself sets the fields of a frozen record.
_set: Final = object.__setattr__


def from_response(kind: type[RecordT], fields: Mapping[str, Any]) -> RecordT:
    """Create a record from values of a response, which need neither a check nor a default."""
    record = kind.__new__(kind)
    for name, value in fields.items():
        _set(record, name, value)
    return record


def _strings(values: Iterable[str]) -> tuple[str, ...]:
    strings = _items(values)
    if strings is None or not all(isinstance(each, str) for each in strings):
        raise InvalidArgumentError(
            f"The command and the args of a container are lists of strings, not {quote(values)}."
        )
    return strings


def _ports(values: Iterable[int]) -> tuple[int, ...]:
    ports = _items(values)
    if ports is None or not all(is_integer(port) and 0 < port < 65536 for port in ports):  # noqa: PLR2004  # the ports there are
        raise InvalidArgumentError(
            f"The ports of a container are a list of numbers from 1 to 65535, not {quote(values)}."
        )
    return ports


def _items(values: Any) -> tuple[Any, ...] | None:
    """Return the items of a list, which may be a generator, or None if it isn't one."""
    return tuple(values) if isinstance(values, Iterable) and not isinstance(values, (str, bytes)) else None


def is_integer(value: object) -> bool:
    """Return whether a value is an integer. To Python, True is one."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Return whether a value is a number. To Python, True is one."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _variables(values: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(values, Mapping) or not all(isinstance(item, str) for pair in values.items() for item in pair):
        raise InvalidArgumentError("The environment of a container is a dict of strings.")
    return dict(values)


def _image(_instance: object, _attribute: object, value: str) -> None:
    if not isinstance(value, str) or is_blank(value):
        raise InvalidArgumentError(f"The image of a container is a URI, not {quote(value)}.")


def _route(_instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not isinstance(value, str):
        raise InvalidArgumentError(f"{attribute.name} is a path, such as '/predict', not {quote(value)}.")


def _megabytes(_instance: object, attribute: attrs.Attribute[int], value: int) -> None:
    if not is_integer(value) or value < 0:
        raise InvalidArgumentError(f"{attribute.name} is a whole number of megabytes, not {quote(value)}.")


def _timeout(_instance: object, attribute: attrs.Attribute[float | None], value: float | None) -> None:
    if value is not None and (not is_number(value) or not 0 < value <= _LONGEST_DEPLOYMENT):
        raise InvalidArgumentError(
            f"{attribute.name} is a number of seconds up to {_LONGEST_DEPLOYMENT}, not {quote(value)}."
        )


#: "Deployment timeout. Limit for deployment timeout is 2 hours." (ModelContainerSpec.deployment_timeout)
_LONGEST_DEPLOYMENT: Final = 7200


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
    predict_route: str = attrs.field(default="", validator=_route)
    health_route: str = attrs.field(default="", validator=_route)
    shared_memory_mb: int = attrs.field(default=0, validator=_megabytes)
    deployment_timeout: float | None = attrs.field(default=None, validator=_timeout)


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
        metadata_file: The URI of a file next to the artifact with more metadata, which `RegistryClient.get_metadata`
            reads, or None.
        labels: The labels as Vertex returned them, with the model's labels merged into the version's.
        managed_by: The value of the label ``managed_by``, or None.
        artifact_uri: The Cloud Storage directory of the artifact, or ``""``.
        container: The container that serves the version, or None if Vertex didn't return one.
        deployed_to: The resource names of the endpoints that the version is deployed to.
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
    metadata_file: str | None = None
    labels: dict[str, str] = attrs.field(factory=dict, hash=False)
    managed_by: str | None = None
    artifact_uri: str = ""
    container: ServingContainer | None = None
    deployed_to: tuple[str, ...] = ()
    created_at: dt.datetime
    updated_at: dt.datetime
    etag: str = ""
    _hidden_aliases: tuple[str, ...] = attrs.field(default=(), repr=False, eq=False)
    _on_vertex: bool = attrs.field(default=False, repr=False, eq=False)
    # Returns the value of a field from the response, and of those that are decoded with it; for a name that isn't a
    # field, it returns others. It comes last: by the time a pickle gets to it, every field is decoded, and it's None.
    _decode: Callable[[str], Mapping[str, Any]] | None = attrs.field(default=None, init=False, repr=False, eq=False)

    if not TYPE_CHECKING:  # a type checker should find a wrong name

        def __getattr__(self, name: str) -> Any:
            """Decode the fields that `from_response` left out, when the first of them is read."""
            if name != "_decode" and (decode := self._decode) is not None:
                for field, value in decode(name).items():
                    _set(self, field, value)
            return object.__getattribute__(self, name)  # another thread may have decoded it

    @property
    def console_url(self) -> str | None:
        """The version's page in the Google Cloud console, or None if it was read from anything but Vertex AI itself."""
        return _display.console_url(self.resource_name) if self._on_vertex else None

    def __repr__(self) -> str:
        own = "" if self.version_name is None else f" {_display.quoted(self.version_name)}"
        aliases = f", aliases {_display.shown(self.aliases)}" if self.aliases else ""
        return (
            f"<ModelVersion {_display.quoted(self.name)} version {self.version}{own}, "
            f"stage {self.stage}{aliases}, age {_display.age(self.created_at)}>"
        )

    def __str__(self) -> str:
        return _display.text_fields(self._title, self._fields)

    def _repr_html_(self) -> str:
        return _display.html_fields(self._title, self._fields, self.console_url)

    @property
    def _title(self) -> str:
        return f"{_display.printable(self.name)}, version {self.version}"

    @property
    def _fields(self) -> dict[str, Any]:
        """What a person sees of it: neither empty fields, nor labels, which repeat the rest, nor a container's env."""
        fields = {
            "name": self.version_name,
            "stage": str(self.stage),
            "changed by": _display.author(self.stage_changed_by, self.stage_changed_at),
            "changed at": self.stage_changed_at,
            "aliases": self.aliases,
            "description": self.description,
            **{
                f"metadata.{key}": value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                for key, value in self.metadata.items()
            },
            "more metadata": self.metadata_file,
            "artifact": self.artifact_uri,
            "image": None if self.container is None else self.container.image,
            "deployed to": self.deployed_to,
            "managed by": self.managed_by,
            "created": self.created_at,
            "updated": self.updated_at,
            "resource": self.resource_name,
        }
        return {name: value for name, value in fields.items() if value not in (None, "", ())}

    def to_dict(self) -> dict[str, Any]:
        """Return the record as a dict that JSON can hold: times in ISO 8601 (UTC), the stage as text."""
        return _to_dict(self)


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
        etag: An opaque value that Vertex changes with every change of the model.
    """

    name: str
    resource_name: str
    description: str = ""
    labels: dict[str, str] = attrs.field(factory=dict, hash=False)
    managed_by: str | None = None
    default_version: str
    created_at: dt.datetime
    updated_at: dt.datetime
    etag: str = ""
    _on_vertex: bool = attrs.field(default=False, repr=False, eq=False)

    @property
    def console_url(self) -> str | None:
        """The model's page in the Google Cloud console, or None if it was read from anything but Vertex AI itself."""
        return _display.console_url(self.resource_name) if self._on_vertex else None

    def __repr__(self) -> str:
        return (
            f"<RegisteredModel {_display.quoted(self.name)}, default version {self.default_version}, "
            f"age {_display.age(self.created_at)}>"
        )

    def __str__(self) -> str:
        return _display.text_fields(_display.printable(self.name), self._fields)

    def _repr_html_(self) -> str:
        return _display.html_fields(self.name, self._fields, self.console_url)

    @property
    def _fields(self) -> dict[str, Any]:
        """What a person sees of it, without empty fields."""
        fields = {
            "default version": self.default_version,
            "description": self.description,
            "managed by": self.managed_by,
            "created": self.created_at,
            "updated": self.updated_at,
            "resource": self.resource_name,
        }
        return {name: value for name, value in fields.items() if value}

    def to_dict(self) -> dict[str, Any]:
        """Return the record as a dict that JSON can hold, with times in ISO 8601 (UTC)."""
        return _to_dict(self)


@attrs.frozen(kw_only=True)
class StageChange:
    """One change of a version's stage.

    Attributes:
        version: The number of the version.
        version_name: The name of the version, or None.
        stage: The stage that the version was put in.
        changed_at: When it was changed (UTC). Exact for changes in quick succession, cut to the second for older ones.
        changed_by: Who changed it, or None if that isn't known.
    """

    version: str
    version_name: str | None
    stage: Stage
    changed_at: dt.datetime
    changed_by: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return the record as a dict that JSON can hold: the time in ISO 8601 (UTC), the stage as text."""
        return _to_dict(self)


@attrs.frozen(kw_only=True)
class StageHistory(Sequence[StageChange]):
    """The stage changes that a model's versions remember, newest first.

    It's a sequence: iterate over it, take its length, index it. ``print`` and a notebook show it as a table.

    Attributes:
        changes: The changes.
        complete: Whether the versions remember every change they went through. False if older changes were dropped, or
            if another tool changed a stage.
    """

    _HEADER: ClassVar = ("CHANGED AT", "VERSION", "NAME", "STAGE", "BY")

    changes: tuple[StageChange, ...] = ()
    complete: bool = True

    @overload
    def __getitem__(self, index: int) -> StageChange: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[StageChange, ...]: ...
    def __getitem__(self, index: int | slice) -> StageChange | tuple[StageChange, ...]:
        return self.changes[index]

    def __len__(self) -> int:
        return len(self.changes)

    def __repr__(self) -> str:
        return f"<StageHistory of {self._count}{'' if self.complete else ', incomplete'}>"

    def __str__(self) -> str:
        return _display.text_table(self._HEADER, self._rows, self._note)

    def _repr_html_(self) -> str:
        return _display.html_table(self._HEADER, self._rows, [None] * len(self), self._note)

    @property
    def _rows(self) -> list[list[str]]:
        return [
            [
                _display.shown(change.changed_at),
                change.version,
                change.version_name or "",
                str(change.stage),
                change.changed_by or _display.UNKNOWN,
            ]
            for change in self
        ]

    @property
    def _note(self) -> str:
        return self._count + ("" if self.complete else "; older ones were dropped, or another tool changed a stage")

    @property
    def _count(self) -> str:
        return f"{len(self) or 'no'} change{'' if len(self) == 1 else 's'}"

    def to_dict(self) -> dict[str, Any]:
        """Return the history as a dict that JSON can hold: the changes as `StageChange.to_dict` returns them."""
        return {"changes": [change.to_dict() for change in self], "complete": self.complete}


@attrs.frozen(kw_only=True)
class Rollback:
    """What a rollback did.

    Attributes:
        stage: The stage that was rolled back.
        restored: The version that was put back.
        replaced: The version that was in the stage before, and is archived now.
    """

    stage: Stage
    restored: ModelVersion
    replaced: ModelVersion

    def __str__(self) -> str:
        return (
            f"{self.restored.name}: version {self.restored.version} is back in {self.stage}, "
            f"version {self.replaced.version} is archived"
        )


@attrs.frozen(kw_only=True)
class Pruned:
    """What pruning deleted, or would delete, and what it kept.

    Attributes:
        deleted: The versions that were deleted, oldest first. With ``dry_run=True``: those that would be.
        kept: Why each other version was kept, by its number, newest first.
        dry_run: Whether nothing was deleted yet.
    """

    deleted: tuple[ModelVersion, ...]
    kept: dict[str, str] = attrs.field(factory=dict, hash=False)
    dry_run: bool

    def __str__(self) -> str:
        numbers = ", ".join(version.version for version in self.deleted) or "none"
        return f"{'would delete' if self.dry_run else 'deleted'}: {numbers}; kept: {len(self.kept)}"


@attrs.frozen(kw_only=True)
class VersionDiff:
    """What differs between two versions.

    Attributes:
        a: The first version.
        b: The second version.
        changes: What differs: the name of the field, or ``metadata.KEY``, with the value in each version. A key that a
            version doesn't have is None there.
        FIELDS: The fields that are compared besides metadata, in the order in which they're shown.
    """

    FIELDS: ClassVar[tuple[str, ...]] = (
        "version_name",
        "description",
        "stage",
        "stage_changed_at",
        "stage_changed_by",
        "aliases",
        "artifact_uri",
        "container",
        "deployed_to",
        "created_at",
        "updated_at",
    )

    a: ModelVersion
    b: ModelVersion
    changes: dict[str, tuple[Any, Any]] = attrs.field(factory=dict, hash=False)

    def __bool__(self) -> bool:
        return bool(self.changes)

    def _repr_html_(self) -> str:
        header = ("FIELD", self.a.version, self.b.version)
        rows = [[field, *(_display.shown(value) for value in pair)] for field, pair in self.changes.items()]
        note = f"{self.a.name}: {len(rows) or 'no'} difference{'' if len(rows) == 1 else 's'}"
        return _display.html_table(header, rows, [None] * len(rows), note)

    def to_dict(self) -> dict[str, Any]:
        """Return the difference as a dict that JSON can hold: the numbers of both versions, and the changes."""
        changes = {field: [_jsonable(value) for value in pair] for field, pair in self.changes.items()}
        return {"a": self.a.version, "b": self.b.version, "changes": changes}

    def __str__(self) -> str:
        lines = [f"{self.a.name}: version {self.a.version} -> version {self.b.version}"]
        lines += [f"  {field}: {_shown(before)} -> {_shown(after)}" for field, (before, after) in self.changes.items()]
        return "\n".join(lines if self.changes else [*lines, "  no difference"])


def _shown(value: Any) -> str:
    if isinstance(value, dt.datetime):
        return value.isoformat()
    return value if isinstance(value, StrEnum) else repr(value)


def _jsonable(value: Any) -> Any:
    """Return a value as JSON has it: times in ISO 8601 (UTC), stages as text, tuples as lists."""
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, StrEnum):
        return str(value)
    if isinstance(value, tuple):
        return [_jsonable(item) for item in value]
    return value


def _to_dict(record: attrs.AttrsInstance) -> dict[str, Any]:
    return attrs.asdict(
        record,
        filter=lambda attribute, _value: not attribute.name.startswith("_"),
        value_serializer=lambda _record, _attribute, value: _jsonable(value),
    )


_SYSTEM: Final = random.SystemRandom()


def _random() -> float:
    """Return a number from 0 up to 1. A function of a module can be pickled; a method of SystemRandom can't."""
    return _SYSTEM.random()


def _positive(_instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not is_number(value) or not value > 0:
        raise InvalidArgumentError(f"Retry({attribute.name}={quote(value)}) isn't a positive number of seconds.")


def _function(_instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not callable(value):
        raise InvalidArgumentError(f"Retry({attribute.name}={quote(value)}) isn't a function.")


@attrs.frozen(kw_only=True)
class Retry:
    """The retry and timeout policy. All times are in seconds.

    Attributes:
        call_timeout: The budget of one method: connecting, all attempts of its calls and the waits between them.
        operation_timeout: The budget of one long-running operation, from start to end. It's also how long one method
            may wait for a quota of requests a minute, which doesn't count for ``call_timeout``.
        initial_backoff: The longest wait before the second attempt. It doubles with each further attempt.
        max_backoff: The longest wait between two attempts, unless the server requests a longer one.
        sleep: A function that waits a number of seconds. Defaults to ``time.sleep``.
        random: A function that returns a number from 0 to 1; each wait is that share of the longest. Defaults to the
            operating system's generator, so seeding an experiment neither affects it nor is affected by it.
        clock: A function that returns the time that budgets are measured with. Defaults to ``time.monotonic``.
    """

    call_timeout: float = attrs.field(default=60.0, validator=_positive)
    operation_timeout: float = attrs.field(default=1800.0, validator=_positive)
    initial_backoff: float = attrs.field(default=0.2, validator=_positive)
    max_backoff: float = attrs.field(default=10.0, validator=_positive)
    sleep: Callable[[float], None] = attrs.field(default=time.sleep, repr=False, validator=_function)
    random: Callable[[], float] = attrs.field(default=_random, repr=False, validator=_function)
    clock: Callable[[], float] = attrs.field(default=time.monotonic, repr=False, validator=_function)
