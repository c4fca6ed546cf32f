"""RegistryClient: the verbs.

Each verb checks its arguments before anything is sent, finds the model that a name means, and is then a few calls of
Vertex's. What they have to be right about is written down with the rules they keep: names in ``_names``, stages in
``_stages``, metadata in ``_labels``. Two things are decided here.

**An upload happens once.** It carries the alias of its request. When its answer is lost, the version that bears the
alias is looked for by a point read before anything is sent again, and so is an operation that is still running. A new
model is protected by its id as well, which a second upload would find taken. What cannot be known is said.

**A version is complete when its labels name its request.** Whose layer the labels of an upload go to is not documented,
so an upload carries ``managed_by`` alone, and one update of the version, which is answered with the whole of it, writes
the rest. A registration that was cut off in between is found by the alias of its request, and finished.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hashlib
import importlib
import importlib.metadata
import ipaddress
import logging
import os
import re
import threading
import uuid
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar

import attrs

from vertex_registry import _labels, _loading, _names, _serving, _stages, _waiting
from vertex_registry._records import Retry, ServingContainer, StageChange
from vertex_registry._stages import Stage
from vertex_registry.errors import (
    AlreadyExistsError,
    AmbiguousNameError,
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    OperationFailedError,
    OperationTimeoutError,
    PermissionDeniedError,
    RegistryError,
    StateUnknownError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

    from vertex_registry import _rpc, _storage, _wire
    from vertex_registry._records import ModelVersion, RegisteredModel
else:

    class _Later:
        """A module that is imported at its first use, because Google's libraries take a second."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, attribute: str) -> Any:
            return getattr(importlib.import_module(self._name), attribute)

    _rpc = _Later("vertex_registry._rpc")
    _storage = _Later("vertex_registry._storage")
    _wire = _Later("vertex_registry._wire")

_T = TypeVar("_T")

_LOG: Final = logging.getLogger("vertex_registry")
_LOG.addHandler(logging.NullHandler())

_EMULATOR: Final = "VERTEX_AI_EMULATOR_HOST"
_STORAGE_EMULATOR: Final = "STORAGE_EMULATOR_HOST"
_LOCAL_PROJECT: Final = "local-project"
_LOCATION: Final = "us-central1"  # what Google's own SDK takes where nothing is said
_RETRY: Final = Retry()

# A project is named by its id, which a domain may stand before, or by its number.
_PROJECTS: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9:._-]*", re.ASCII)
_LOCATIONS: Final = re.compile(r"[a-z][a-z0-9-]*", re.ASCII)

#: How many calls are under way at once where every model is listed: the measured knee of the curve at 20 ms latency.
_WINDOW: Final = 32

#: How far around a version the last one is looked for, by point reads, before its model is deleted with it.
_NEIGHBOURS: Final = 8

#: The seconds after which an upload that was lost is looked for once more, and then sent again.
_ARRIVAL: Final = 1.0

#: The seconds that a look into a bucket may take which nobody has asked for.
_GLANCE: Final = 5.0

#: The longest author that room is kept for: of 128 letters, and such that it cannot be deflated.
_AUTHOR: Final = base64.b64encode(hashlib.sha512(b"").digest() + hashlib.sha256(b"").digest()).decode()

#: How often a model is looked for before its id, taken by an upload that is not done, is tried again.
_LOOKS: Final = 4


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _new_id() -> str:
    return uuid.uuid4().hex


@attrs.frozen
class _Model:
    """A model that a name was found to mean."""

    resource: str
    name: str


@attrs.frozen(kw_only=True)
class _Registration:
    """What is to be registered, checked and ready to be sent, as often as it takes."""

    name: str
    source: str
    container: ServingContainer
    aliases: tuple[str, ...]
    description: str | None
    model_description: str | None
    metadata: dict[str, Any]
    version_name: str | None
    stage: Stage
    archive_existing: bool
    request_id: str

    @property
    def alias(self) -> str:
        """The alias that the version is found again by."""
        return _names.hidden_alias("request", self.request_id)


class RegistryClient:
    """A model registry on Vertex AI.

    Making one sends nothing and imports nothing of Google's; the first call does. It can be shared by threads.

    >>> from vertex_registry import local_registry
    >>> with local_registry() as registry:
    ...     version = registry.register_version("churn", "gs://models/churn/1", metadata={"accuracy": 0.93})
    ...     version.version, version.stage, version.metadata
    ('1', <Stage.NONE: 'None'>, {'accuracy': 0.93})

    Args:
        project: The Google Cloud project, by id or number. Else ``GOOGLE_CLOUD_PROJECT``, else that of the credentials.
        location: The location. Else ``GOOGLE_CLOUD_LOCATION``, else ``us-central1``.
        credentials: A google-auth credentials object, the path of a credentials file, or its content as a dict. Else
            the application default credentials.
        endpoint: The address of the service, in place of the location's own: ``host``, ``host:port``, or a URL. In
            plain text where it begins with ``http://`` or is a loopback address without a scheme. Else
            ``VERTEX_AI_EMULATOR_HOST``, which alone is enough to reach an emulator.
        transport: ``"grpc"`` or ``"rest"``. Else gRPC, unless the endpoint begins with ``http://``.
        managed_by: The value of the label ``managed_by`` on everything that is registered.
        actor: Who ``stage_changed_by`` names where the credentials do not tell.
        default_image: The serving image of versions that name no container. Else the scikit-learn image that follows
            the version that wrote the model, where that can be told, or else the newest.
        staging_bucket: Where artifacts on this machine are uploaded to: ``gs://bucket``, or a directory in it.
        retry: How long to go on trying.
        user_agent: What the user agent begins with.
        now: What tells the time (aware, UTC) that changes are stamped with.
        new_id: What makes the id of a registration that was given none; no two may be the same.

    Raises:
        InvalidArgumentError: A setting cannot be right.
    """

    def __init__(
        self,
        *,
        project: str | None = None,
        location: str | None = None,
        credentials: Any = None,
        endpoint: str | None = None,
        transport: Literal["grpc", "rest"] | None = None,
        managed_by: str = "zenml",
        actor: str | None = None,
        default_image: str | None = None,
        staging_bucket: str | None = None,
        retry: Retry = _RETRY,
        user_agent: str | None = None,
        now: Callable[[], dt.datetime] = _now,
        new_id: Callable[[], str] = _new_id,
    ) -> None:
        self._location = location or os.environ.get("GOOGLE_CLOUD_LOCATION") or _LOCATION
        self._project = project or os.environ.get("GOOGLE_CLOUD_PROJECT") or None
        for what, value, names in (("project", self._project, _PROJECTS), ("location", self._location, _LOCATIONS)):
            if value is not None and not (isinstance(value, str) and names.fullmatch(value)):
                raise InvalidArgumentError(f"{what}={value!r} is not the name of a {what}.")
        if not isinstance(retry, Retry):
            raise InvalidArgumentError(f"retry is a Retry, such as Retry(calls=30), and not {retry!r}.")
        for what, made in (("now", now), ("new_id", new_id)):
            if not callable(made):
                raise InvalidArgumentError(f"{what} is a function, and not {made!r}.")
        self._settings = _settings(endpoint, transport, self._location, credentials)
        self._managed_by = _labels.check_managed_by(managed_by)
        self._actor = None if actor is None else _names.check_text("actor", actor, 128)
        self._default_image = None if default_image is None else _default_image(default_image, self._location)
        self._staging_bucket = None if staging_bucket is None else _names.check_staging_bucket(staging_bucket)
        self._retry = retry
        self._user_agent = _user_agent(user_agent)
        self._now = now
        self._new_id = new_id
        self._lock = threading.Lock()
        self._connection: _rpc.Connection | None = None
        self._opened: _storage.Storage | None = None
        self._closed = False
        self._known: dict[str, _Model] = {}

    def __repr__(self) -> str:
        return (
            f"RegistryClient(project={self._project!r}, location={self._location!r}, endpoint={self._settings.host!r})"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; a second time does nothing.

        What is under way in other threads ends at once: a call is the `InvalidArgumentError` of a closed client, and a
        registration, which may have happened, a `StateUnknownError`.
        """
        with self._lock:
            connection, self._connection, self._closed = self._connection, None, True
            files, self._opened = self._opened, None
        for open_one in (connection, files):
            if open_one is not None:
                open_one.close()

    # --- versions -----------------------------------------------------------------------------------------------------

    def register_version(
        self,
        name: str,
        source: str | os.PathLike[str],
        *,
        version_name: str | None = None,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        stage: Stage | str = Stage.NONE,
        archive_existing: bool = False,
        aliases: Iterable[str] = (),
        make_default: bool = True,
        container: ServingContainer | str | None = None,
        gpu: bool = False,
        model_description: str | None = None,
        staging_bucket: str | None = None,
        check_source: bool | None = None,
        request_id: str | None = None,
    ) -> ModelVersion:
        """Upload an artifact as the next version of the model of that name, and give the version.

        The model is created with its first version. A name means one model: where several processes register a new
        name at once, one of them creates it and the others add versions.

        Args:
            name: The model's display name, of 1 to 128 characters, or the full resource name of a model that is there.
            source: The artifact's directory, ``gs://bucket/directory``; or, with a staging bucket, a folder or file on
                this machine, which is uploaded first, unless the same bytes are there.
            version_name: The caller's own name of the version, kept exactly; of 1 to 128 characters.
            description: What this version is.
            metadata: Any JSON object, nested 100 deep at most, that fits into the labels of the version, beside a stage
                that it may be given later; it comes back equal.
            stage: The stage the version begins in.
            archive_existing: Archive the other versions in that stage.
            aliases: Aliases for the version; one that another version holds moves here.
            make_default: Make this the default version, as Google's SDK does. A model's first version is it anyway.
            container: What serves the version: a container, an image's URI, or the name of a framework that Vertex has
                images for, with or without its version (``"sklearn"``, ``"xgboost:2.1"``). Else the client's
                default image.
            gpu: Take the framework's image for machines with a GPU.
            model_description: What the model is; used when this version creates it.
            staging_bucket: Where a folder on this machine is uploaded to: ``gs://bucket``, or a directory in it. Else
                the client's. It goes to ``<staging bucket>/<id of the model's name>/<digest of the content>``.
            check_source: Look into the ``gs://`` directory first, whether a prebuilt image finds its file there; Vertex
                refuses what it does not. None looks where the bucket can be read, and nowhere where Vertex is an
                emulator and no storage emulator is named.
            request_id: The caller's own id of this registration. Registering with it again, today or tomorrow, from
                this process or another, gives the version that it made, and finishes it where it was cut off.

        Raises:
            InvalidArgumentError: An argument cannot be right, or the image cannot serve the source; nothing was sent.
            AmbiguousNameError: Several models bear the name.
            NotFoundError: ``name`` is a resource name, and that model is not there; or there is no such bucket.
            PermissionDeniedError: The credentials may not do it, or may not write to the staging bucket.
            ConflictError: ``request_id`` has registered another source; a file changed while it was uploaded; or a
                label on the model itself hides what was written on the version.
            StateUnknownError: It cannot be known whether the version was made. The error's ``request_id`` is safe to
                try again.
            OperationFailedError, OperationTimeoutError: Vertex could not make the version, or is still at it.
        """
        self._check_model(name)
        identity = self._new_id() if request_id is None else _names.check_text("request_id", request_id, 512)
        hidden = [_names.hidden_alias("request", identity), _names.NEWEST_ALIAS]
        if version_name is not None:
            hidden.append(_names.hidden_alias("name", _names.check_text("version_name", version_name, 128)))
        given = [_names.check_alias(alias) for alias in _strings("aliases", aliases)]
        if _names.DEFAULT_ALIAS in given and not make_default:
            raise InvalidArgumentError(
                "aliases has 'default', which make_default=False leaves where it is. Take one of the two out."
            )
        default = [_names.DEFAULT_ALIAS] if make_default else []
        chosen = _stages.check_stage(stage)
        _stages.check_exclusive(chosen, archive_existing=archive_existing)
        staging = self._staging(staging_bucket)
        local = _local(source, staging)
        registration = _Registration(
            name=name,
            source=_names.check_source(_text_of(source)) if local is None else local.source,
            container=self._container(container, local, gpu=gpu),
            aliases=tuple(dict.fromkeys([*given, *hidden, *default])),
            description=None if description is None else _names.check_text("description", description),
            model_description=(
                None if model_description is None else _names.check_text("model_description", model_description)
            ),
            metadata=_labels.check_metadata({} if metadata is None else metadata),
            version_name=version_name,
            stage=chosen,
            archive_existing=archive_existing,
            request_id=identity,
        )
        _labels.check_room(_labels.write({}, metadata=registration.metadata), self._room(registration))
        if local is not None:
            uri = self._send(local, name, staging, registration.container.image)
            registration = attrs.evolve(registration, source=uri)
            check_source = False
        try:
            return self._register(registration, own_request=request_id is not None, check_source=check_source)
        except InvalidArgumentError as closed:
            if not self._closed or closed.code is not None:
                raise
            raise _unknown(registration, name, "This RegistryClient was closed meanwhile.") from closed

    def upload(
        self,
        source: str | os.PathLike[str],
        *,
        name: str,
        staging_bucket: str | None = None,
        container: ServingContainer | str | None = None,
    ) -> str:
        """The ``gs://`` directory that a folder on this machine was uploaded to: what `register_version` does first.

        The same bytes are not sent twice, and an upload that was interrupted goes on where it was.

        Args:
            source: The folder, or a file.
            name: The name of the model that it is for.
            staging_bucket: Where to: ``gs://bucket``, or a directory in it. Else the client's.
            container: What is going to serve it, as in `register_version`.

        Raises:
            InvalidArgumentError: There is no such folder, no staging bucket, or the image could not serve it.
            NotFoundError: There is no such bucket.
            PermissionDeniedError: The credentials may not write to it.
            ConflictError: A file changed while it was uploaded.
            UnavailableError: There was no usable answer within the time budget.
        """
        self._check_model(name)
        staging = self._staging(staging_bucket)
        if (local := _local(source, staging)) is None:
            _names.check_source(_text_of(source))
            raise InvalidArgumentError(f"{source!r} is in Cloud Storage already.")
        return self._send(local, name, staging, self._container(container, local, gpu=False).image)

    def download(self, uri: str, destination: str | os.PathLike[str] | None = None) -> Path:
        """The folder on this machine that a ``gs://`` directory was downloaded to, whole and verified.

        Args:
            uri: The directory.
            destination: The folder to make. None is one in the cache, which is fetched once and is then the same.

        Raises:
            InvalidArgumentError: It is no directory in Cloud Storage.
            NotFoundError: There is nothing in it.
            AlreadyExistsError: The destination is there already.
            PermissionDeniedError: The credentials may not read it.
            ConflictError: A file was replaced meanwhile.
            UnavailableError: There was no usable answer within the time budget.
        """
        self._check_open()
        if isinstance(uri, str) and uri and "://" not in uri:
            raise InvalidArgumentError(f"{uri!r} is not in Cloud Storage: 'gs://bucket/directory' is.")
        return self._files.download(_names.check_source(uri), destination)

    def load_version(
        self,
        name: str,
        version: str | int = _names.DEFAULT_ALIAS,
        *,
        version_name: str | None = None,
        trusted: bool = False,
    ) -> Any:
        """The model object that was saved in a version's artifact.

        Args:
            name: The model's name.
            version: Vertex's number of the version or an alias.
            version_name: The name that the version was registered with, in place of ``version``.
            trusted: Whether whoever wrote the artifact may run code here: pickle, joblib, torch, SavedModel and
                .keras files can when they are read, and are refused without it.

        Raises:
            InvalidArgumentError: The format runs code, and ``trusted`` was not said.
            NotFoundError: There is no such version, or no model in its artifact.
            RegistryError: The library that reads it is missing, or cannot.
        """
        found = self.get_version(name, version, version_name=version_name)
        return _loading.load(self._artifact(found, None), trusted=trusted, where=found.artifact_uri)

    def download_version(
        self,
        name: str,
        version: str | int = _names.DEFAULT_ALIAS,
        destination: str | os.PathLike[str] | None = None,
        *,
        version_name: str | None = None,
    ) -> Path:
        """The folder on this machine that a version's artifact was downloaded to, whole and verified.

        Args:
            name: The model's name.
            version: Vertex's number of the version or an alias.
            destination: The folder to make. None is one in the cache, which is fetched once and is then the same.
            version_name: The name that the version was registered with, in place of ``version``.

        Raises:
            NotFoundError: There is no such version, it has no artifact, or the artifact is gone.
            AlreadyExistsError: The destination is there already.
            PermissionDeniedError: The credentials may not read the artifact.
            ConflictError: The artifact was replaced meanwhile.
            UnavailableError: There was no usable answer within the time budget.
        """
        return self._artifact(self.get_version(name, version, version_name=version_name), destination)

    def to_aiplatform(
        self, name: str, version: str | int = _names.DEFAULT_ALIAS, *, version_name: str | None = None
    ) -> Any:
        """That very version as a ``google.cloud.aiplatform.Model`` of Google's SDK, to deploy it, for example.

        It has this client's project, location, address and credentials, and nothing of what ``aiplatform.init`` was
        told; nor is that SDK's own state touched.

        Args:
            name: The model's name.
            version: Vertex's number of the version or an alias.
            version_name: The name that the version was registered with, in place of ``version``.

        Raises:
            NotFoundError: There is no such model or version.
        """
        found = self.get_version(name, version, version_name=version_name)
        return self._vertex.sdk_model(_wire.get(found.resource_name), found.resource_name, self._project)

    def get_version(
        self, name: str, version: str | int = _names.DEFAULT_ALIAS, *, version_name: str | None = None
    ) -> ModelVersion:
        """One version of a model: the default one, that of an id or an alias, or that of a version name.

        Args:
            name: The model's name.
            version: Vertex's number of the version (``3`` or ``"3"``) or an alias.
            version_name: The name that the version was registered with, in place of ``version``; of several versions
                of one name, the newest.

        Raises:
            NotFoundError: There is no such model or version, or there could be none.
        """
        self._check_model(name)
        if version_name is None:
            if (reference := _names.version_reference(version)) is None:
                raise NotFoundError(
                    f"{name!r} has no version {version!r}, nor could it have: a version is its number (3 or '3') or an "
                    "alias (lower-case letters, digits and dashes). A version's name is asked for with version_name=."
                )
            return self._on_model(name, lambda model: self._read(model, reference))
        if version != _names.DEFAULT_ALIAS:
            raise InvalidArgumentError("Give version or version_name, not both.")
        wanted = _names.check_text("version_name", version_name, 128)
        return self._on_model(name, lambda model: self._read_named(model, wanted))

    def list_versions(
        self,
        name: str | None = None,
        *,
        stage: Stage | str | None = None,
        metadata: Mapping[str, Any] | None = None,
        artifact_uri: str | None = None,
        created_after: dt.datetime | None = None,
        created_before: dt.datetime | None = None,
        oldest_first: bool = False,
        limit: int | None = None,
    ) -> Iterator[ModelVersion]:
        """The versions of a model, the newest first, lazily.

        Every condition is decided here, from what came back. Vertex does not say which labels its filters see, so that
        no filter of its own could be trusted to miss none.

        Args:
            name: The model's name; None gives the versions of every model, model by model, the newest model first.
            stage: Only versions in that stage.
            metadata: Only versions whose metadata has these keys with these values.
            artifact_uri: Only versions of that artifact.
            created_after: Only versions uploaded later than this; an aware datetime.
            created_before: Only versions uploaded earlier than this; an aware datetime.
            oldest_first: The other way round, within each model.
            limit: At most so many, counted after all conditions.

        Raises:
            InvalidArgumentError: At the call: an argument cannot be right.
            NotFoundError: At the first version: there is no such model.
        """
        if name is not None:
            self._check_model(name)
        self._check_open()
        chosen = None if stage is None else _stages.check_stage(stage)
        wanted = _labels.check_metadata({} if metadata is None else metadata)
        uri = None if artifact_uri is None else _names.check_text("artifact_uri", artifact_uri).rstrip("/")
        after, before = _aware("created_after", created_after), _aware("created_before", created_before)
        most = _count(limit)

        def meets(version: ModelVersion) -> bool:
            return (
                (chosen is None or version.stage is chosen)
                and all(_same(version.metadata.get(key, _ABSENT), value) for key, value in wanted.items())
                and (uri is None or version.artifact_uri.rstrip("/") == uri)
                and (after is None or version.created_at > after)
                and (before is None or version.created_at < before)
            )

        def found() -> Iterator[ModelVersion]:
            left = most
            if left == 0:
                return
            with contextlib.closing(self._every_version(name)) as listed:
                for versions in listed:
                    for version in reversed(versions) if oldest_first else versions:
                        if not meets(version):
                            continue
                        yield version
                        left = None if left is None else left - 1
                        if left == 0:
                            return  # before anything more is asked for

        return found()

    def latest_version(self, name: str, *, stage: Stage | str | None = None) -> ModelVersion | None:
        """The newest version of a model, or the newest in a stage; None where there is no such version or model.

        Raises:
            InvalidArgumentError: The name can be no model's, or there is no such stage; nothing was sent.
        """
        self._check_model(name)
        try:
            return next(self.list_versions(name, stage=stage, limit=1), None)
        except NotFoundError:
            return None

    def update_version(
        self,
        name: str,
        version: str | int,
        *,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        remove_metadata: Iterable[str] = (),
        stage: Stage | str | None = None,
    ) -> ModelVersion:
        """The version, changed; what is not named stays as it is, also where somebody else changes it just now.

        Args:
            name: The model's name.
            version: The version's id or alias.
            description: The version's new description; ``""`` clears it.
            metadata: Keys to set; the others stay.
            remove_metadata: Keys to take out; one that is not there is no error.
            stage: The stage to put it in. `set_stage` can archive the others as well.

        Raises:
            InvalidArgumentError: An argument cannot be right, or the metadata does not fit on the version; nothing was
                changed.
            NotFoundError: There is no such model or version.
            ConflictError: A label on the model itself hides what was written on the version.
        """
        self._check_model(name)
        reference = _names.check_reference(version)
        if description is not None:
            _names.check_text("description", description)
        added = _labels.check_metadata({} if metadata is None else metadata)
        removed = tuple(_strings("remove_metadata", remove_metadata))
        chosen = None if stage is None else _stages.check_stage(stage)
        if both := sorted(added.keys() & set(removed)):
            raise InvalidArgumentError(f"metadata sets what remove_metadata takes out: {', '.join(map(repr, both))}.")
        if description is None and not added and not removed and chosen is None:
            return self.get_version(name, version)

        def change(current: ModelVersion) -> _Change:
            if not added and not removed and chosen is None:
                return _Change(labels=None, description=description)
            notes = {} if chosen is None else self._stage_notes(chosen, current)
            labels = _labels.write(current.labels, metadata=added, remove=removed, notes=notes)
            if added:
                _labels.check_room(labels, self._room())
            return _Change(labels=labels, description=description)

        return self._on_model(name, lambda model: self._change(model, reference, change, adds=bool(added)))

    def set_stage(
        self, name: str, version: str | int, stage: Stage | str, *, archive_existing: bool = False
    ) -> ModelVersion:
        """The version, in that stage.

        With ``archive_existing`` the version is put in the stage before the others leave it, so that there is always
        one in it. Of two that are promoted at once, the later stays and the other is archived; the version that comes
        back tells. A run that was cut off is finished by running it again.

        Args:
            name: The model's name.
            version: The version's id or alias.
            stage: A `Stage`, or its name in any case.
            archive_existing: Archive the other versions in that stage, which is Staging or Production.

        Raises:
            InvalidArgumentError: An argument cannot be right; nothing was sent.
            NotFoundError: There is no such model or version.
            ConflictError: A label ``stage`` on the model itself hides the version's; or a version in the stage is so
                full of others' labels that it cannot be archived.
        """
        chosen = _stages.check_stage(stage)
        _stages.check_exclusive(chosen, archive_existing=archive_existing)
        if not archive_existing:
            return self.update_version(name, version, stage=chosen)
        self._check_model(name)
        reference = _names.check_reference(version)

        def promote(model: _Model) -> ModelVersion:
            others = self._versions(model)
            seen = [other.stage_changed_at for other in others]
            self._check_archivable(model, others, chosen)

            def change(current: ModelVersion) -> _Change:
                rivals = [other for other in others if other.stage is chosen and other.version != current.version]
                latest = not rivals or _claim(current) > max(map(_claim, rivals))
                notes = self._stage_notes(chosen, current, seen=seen, renew=not latest)
                return _Change(labels=_labels.write(current.labels, notes=notes), description=None)

            promoted = self._change(model, reference, change)
            return self._archive_others(model, promoted)

        return self._on_model(name, promote)

    def stage_history(self, name: str) -> list[StageChange]:
        """The changes of stage that can be known from the versions, the newest first.

        Each version tells its last change. What it was before, and what versions that are deleted were, is not kept.

        Raises:
            InvalidArgumentError: The name can be no model's; nothing was sent.
            NotFoundError: There is no such model.
        """
        self._check_model(name)
        changes = [
            StageChange(
                version=version.version,
                version_name=version.version_name,
                stage=version.stage,
                changed_at=version.stage_changed_at,
                changed_by=version.stage_changed_by,
            )
            for version in self.list_versions(name)
            if version.stage_changed_at is not None
        ]
        return sorted(changes, key=lambda change: (change.changed_at, int(change.version)), reverse=True)

    def add_aliases(self, name: str, version: str | int, aliases: Iterable[str]) -> ModelVersion:
        """The version, with these aliases; one that another version holds moves here.

        Raises:
            InvalidArgumentError: An alias could be none; nothing was sent.
            NotFoundError: There is no such model or version.
        """
        added = [_names.check_alias(alias) for alias in _strings("aliases", aliases)]
        return self._merge_aliases(name, version, add=added)

    def remove_aliases(self, name: str, version: str | int, aliases: Iterable[str]) -> ModelVersion:
        """The version, without these aliases; one that it does not hold is no error.

        Raises:
            InvalidArgumentError: An alias could be none, or is ``default``, which some version always holds.
            NotFoundError: There is no such model or version.
        """
        removed = [_names.check_alias(alias) for alias in _strings("aliases", aliases)]
        if _names.DEFAULT_ALIAS in removed:
            raise InvalidArgumentError(
                "The alias 'default' cannot be taken away, for a model always has a default version. "
                "Move it to another version: set_default(name, version)."
            )
        return self._merge_aliases(name, version, remove=removed)

    def set_default(self, name: str, version: str | int) -> ModelVersion:
        """The version, as the model's default one.

        Raises:
            NotFoundError: There is no such model or version.
        """
        return self._merge_aliases(name, version, add=[_names.DEFAULT_ALIAS])

    def delete_version(self, name: str, version: str | int) -> None:
        """Delete a version; the last version of a model goes with its model, and that is logged as a warning.

        Where it is the default version, ``default`` moves to the newest other version first, and back if Vertex then
        refuses to delete it. Vertex has no conditional delete: a version that is uploaded in the moment between the
        refusal to delete the last version and the deletion of its model goes with the model.

        Raises:
            NotFoundError: There is no such model or version.
            ConflictError: Vertex refuses, because the version is deployed.
        """
        self._check_model(name)
        reference = _names.check_reference(version)
        self._on_model(name, lambda model: self._delete_version(model, reference))

    # --- models -------------------------------------------------------------------------------------------------------

    def delete_model(self, name: str) -> None:
        """Delete a model with all its versions.

        Raises:
            NotFoundError: There is no such model.
            ConflictError: Vertex refuses, because a version is deployed.
        """
        self._check_model(name)
        self._on_model(name, self._delete_model)

    def get_model(self, name: str) -> RegisteredModel:
        """The model of that name.

        Raises:
            NotFoundError: There is none.
            AmbiguousNameError: There are several.
        """
        self._check_model(name)
        return self._on_model(name, self._read_model)

    def list_models(
        self, *, labels: Mapping[str, str] | None = None, limit: int | None = None
    ) -> Iterator[RegisteredModel]:
        """The models, the newest first, lazily.

        Args:
            labels: Only models that read back with these labels.
            limit: At most so many.

        Raises:
            InvalidArgumentError: At the call: an argument cannot be right.
        """
        self._check_open()
        wanted = _labels.check_labels({} if labels is None else labels)
        for key, value in wanted.items():
            if not isinstance(key, str) or not isinstance(value, str):
                raise InvalidArgumentError(f"The label {key!r}: {value!r} is none: a label is a string under a string.")
        most = _count(limit)

        def found() -> Iterator[RegisteredModel]:
            left = most
            if left == 0:
                return
            for model in self._models():
                if not wanted.items() <= model.labels.items():
                    continue
                yield model
                left = None if left is None else left - 1
                if left == 0:
                    return

        return found()

    def update_model(
        self, name: str, *, description: str | None = None, labels: Mapping[str, str] | None = None
    ) -> RegisteredModel:
        """The model, changed.

        Args:
            name: The model's name.
            description: Its new description; ``""`` clears it.
            labels: What replaces the labels of the model itself; ``managed_by`` is kept. They show on every version
                that has no label of that key of its own.

        Raises:
            InvalidArgumentError: An argument cannot be right; nothing was sent.
            NotFoundError: There is no such model.
        """
        self._check_model(name)
        if description is not None:
            _names.check_text("description", description)
        own = None
        if labels is not None:
            for key, value in _labels.check_labels(labels).items():
                if (key, value) != (_labels.MANAGED_BY, self._managed_by):
                    _labels.check_label(key, value)
            own = {**labels, _labels.MANAGED_BY: self._managed_by}
            if len(own) > _labels.MAX_LABELS:
                raise InvalidArgumentError(
                    f"These are {len(own)} labels with managed_by, and Vertex allows {_labels.MAX_LABELS}."
                )
        if description is None and own is None:
            return self.get_model(name)

        def update(model: _Model) -> RegisteredModel:
            request = _wire.update_model(model.resource, labels=own, description=description)
            return _wire.read_model(self._vertex.call("UpdateModel", request, model.resource))

        return self._on_model(name, update)

    def duplicates(self) -> dict[str, tuple[str, ...]]:
        """The names that several models bear, each with the resource names of its models, the newest first."""
        bearers: dict[str, list[str]] = {}
        for model in self.list_models():
            bearers.setdefault(model.name, []).append(model.resource_name)
        return {name: tuple(resources) for name, resources in bearers.items() if len(resources) > 1}

    # --- connecting ---------------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise InvalidArgumentError("This RegistryClient is closed. Make another one, or close it later.")

    def _check_model(self, name: str) -> None:
        self._check_open()
        given = _names.parse_model_name(name) if isinstance(name, str) else None
        if given is None:
            _names.check_name(name)
        elif given.location != self._location:
            raise InvalidArgumentError(
                f"{name} is in {given.location}, and this client is for {self._location}. Make one for that location."
            )

    @property
    def _vertex(self) -> _rpc.Connection:
        with self._lock:
            self._check_open()
            if self._connection is None:
                self._connection = self._connect()
            return self._connection

    def _connect(self) -> _rpc.Connection:
        settings = self._settings
        credentials, project = (None, None) if settings.anonymous else _rpc.load_credentials(settings.credentials)
        self._project = self._project or project or (_LOCAL_PROJECT if settings.plain else None)
        if self._project is None:
            raise InvalidArgumentError(
                "No project is known. Give RegistryClient(project=...), or set GOOGLE_CLOUD_PROJECT."
            )
        target = _rpc.Target(
            host=settings.host,
            rest=settings.rest,
            plain=settings.plain,
            credentials=None,
            anonymous=settings.anonymous,
            user_agent=self._user_agent,
        )
        return _rpc.Connection(target, credentials, self._retry, self._check_open)

    @property
    def _files(self) -> _storage.Storage:
        with self._lock:
            self._check_open()
            if self._opened is None:
                credentials = self._storage_credentials()
                self._opened = _storage.Storage(project=self._project, credentials=credentials, retry=self._retry)
            return self._opened

    def _staging(self, staging_bucket: str | None) -> str | None:
        return self._staging_bucket if staging_bucket is None else _names.check_staging_bucket(staging_bucket)

    def _send(self, local: _storage.LocalDirectory, name: str, staging: str | None, image: str) -> str:
        _serving.check_directory(local.names, image, where=local.source)
        given = _names.parse_model_name(name)
        return self._files.upload(local, f"{staging}/{given.model_id if given else _names.model_id(name)}")

    def _artifact(self, version: ModelVersion, destination: str | os.PathLike[str] | None) -> Path:
        if not version.artifact_uri:
            raise NotFoundError(
                f"Version {version.version} of {version.name!r} was registered without an artifact.",
                resource=version.resource_name,
            )
        return self._files.download(version.artifact_uri, destination)

    def _check_directory(self, source: str, image: str, *, asked: bool | None) -> None:
        """Look into the source where that was asked for, or is possible: would Vertex find a model there?"""
        if asked is False or not (asked or _serving.files_of(image)):
            return
        if asked is None and self._settings.plain and not os.environ.get(_STORAGE_EMULATOR):
            return
        try:
            names = self._files.look(source) if asked else self._glance(source)
        except NotFoundError:
            raise
        except RegistryError as error:
            if asked:
                raise
            _LOG.info("%s cannot be looked into (%s); Vertex will", source, type(error).__name__)
            return
        if not names:
            raise InvalidArgumentError(f"There is nothing in {source}. Upload the model there first.", resource=source)
        _serving.check_directory(names, image, where=source)

    def _glance(self, source: str) -> tuple[str, ...]:
        """What is in a directory, if that can be had within a moment; nobody has asked for it."""
        retry = attrs.evolve(self._retry, calls=min(self._retry.calls, _GLANCE))
        files = _storage.Storage(project=self._project, credentials=self._storage_credentials(), retry=retry)
        with contextlib.closing(files):
            return files.look(source)

    def _storage_credentials(self) -> Any:
        """What Cloud Storage is asked with; where none were given the default ones are found there."""
        given = self._settings.credentials
        return None if given is None else _rpc.load_credentials(given)[0]

    @property
    def _parent(self) -> str:
        if self._project is None:
            self._vertex  # noqa: B018  # the credentials name the project
        return f"projects/{self._project}/locations/{self._location}"

    # --- finding a model ----------------------------------------------------------------------------------------------

    def _on_model(self, name: str, act: Callable[[_Model], _T]) -> _T:
        """What an action on the model of that name gives; a name that was remembered wrongly is looked up once more."""
        remembered = self._known.get(name)
        if remembered is None:
            return act(self._find(name))
        try:
            return act(remembered)
        except NotFoundError:
            self._forget(name)
            found = self._find(name)
            if found.resource == remembered.resource:
                raise
            return act(found)

    def _find(self, name: str) -> _Model:
        """The model that the name means, found by its name, or by its id where lists lag behind."""
        model = self._listed(name)
        if model is None:
            model = next(self._by_id(name), None)
        if model is None:
            raise NotFoundError(
                f"There is no model {name!r} in {self._parent}. register_version({name!r}, ...) makes one; "
                "list_models() shows those that are there.",
                resource=name,
            )
        return self._remember(name, model)

    def _listed(self, name: str) -> _Model | None:
        """The model that the name means as far as a list tells; a resource name is looked at."""
        if (given := _names.parse_model_name(name)) is not None:
            return self._remember(name, self._named_in_full(name, given))
        bearers = [
            model
            for model in self._pages("ListModels", self._parent, _models_named(name), _wire.read_models)
            if model.name == name
        ]
        if len(bearers) > 1:
            candidates = tuple(model.resource_name for model in bearers)
            raise AmbiguousNameError(
                f"{len(bearers)} models bear the name {name!r}: {', '.join(candidates)}. "
                "Name one by its full resource name.",
                resource=name,
                candidates=candidates,
            )
        return self._model_of(bearers[0]) if bearers else None

    def _named_in_full(self, name: str, given: _names.ModelName) -> _Model:
        rpc = self._vertex
        own = f"{self._parent}/models/{given.model_id}"
        if given.project != self._project and not given.project.isdigit():
            raise self._another_project(name)
        message = rpc.call("GetModel", _wire.get(own), name)
        model = _wire.read_model(message)
        answered = _names.parse_model_name(model.resource_name)
        if given.project != self._project and (answered is None or answered.project != given.project):
            raise self._another_project(name)
        return self._model_of(model)

    def _another_project(self, name: str) -> InvalidArgumentError:
        return InvalidArgumentError(
            f"{name} is in another project, and this client is for {self._project}. Make one for that project."
        )

    def _by_id(self, name: str) -> Iterator[_Model]:
        """The model of that name that has an id of the name's series, if there is one."""
        if _names.parse_model_name(name) is not None:
            return
        number = 0
        while (model := self._peek(self._id_of(name, number))) is not None:
            if model.name == name:
                yield model
                return
            number += 1  # a model that was given another name keeps its id

    def _id_of(self, name: str, number: int) -> str:
        return f"{self._parent}/models/{_names.model_id(name, number)}"

    def _peek(self, resource: str) -> _Model | None:
        try:
            return self._model_of(_wire.read_model(self._vertex.call("GetModel", _wire.get(resource), resource)))
        except NotFoundError:
            return None

    def _model_of(self, model: RegisteredModel) -> _Model:
        """The model under the project as this client knows it; answers carry the project's number."""
        model_id = model.resource_name.rpartition("/")[2]
        return _Model(resource=f"{self._parent}/models/{model_id}", name=model.name)

    def _remember(self, name: str, model: _Model) -> _Model:
        with self._lock:
            self._known[name] = model
        return model

    def _forget(self, name: str) -> None:
        with self._lock:
            self._known.pop(name, None)

    # --- reading ------------------------------------------------------------------------------------------------------

    def _read(self, model: _Model, reference: str) -> ModelVersion:
        resource = f"{model.resource}@{reference}"
        try:
            return _wire.read_version(self._vertex.call("GetModel", _wire.get(resource), resource))
        except NotFoundError as error:
            raise NotFoundError(
                f"The model {model.name!r} has no version {reference!r}. "
                f"list_versions({model.name!r}) shows those that are there.",
                resource=resource,
                code=error.code,
            ) from error.__cause__

    def _read_named(self, model: _Model, version_name: str) -> ModelVersion:
        try:
            version = self._read(model, _names.hidden_alias("name", version_name))
        except NotFoundError as error:
            # The alias goes with the newest version of the name when that is deleted, and is not copied with a model.
            for version in self._versions(model):
                if version.version_name == version_name:
                    return version
            raise NotFoundError(
                f"The model {model.name!r} has no version of the name {version_name!r}. "
                f"list_versions({model.name!r}) shows those that are there.",
                resource=model.resource,
                code=error.code,
            ) from error.__cause__
        # A registration that was cut off has the alias, and not yet the label.
        return attrs.evolve(version, version_name=version_name)

    def _read_model(self, model: _Model) -> RegisteredModel:
        return _wire.read_model(self._vertex.call("GetModel", _wire.get(model.resource), model.resource))

    def _versions(self, model: _Model) -> list[ModelVersion]:
        """All versions, the newest first, whatever order they came in."""
        found = self._pages("ListModelVersions", model.resource, _wire.versions, _wire.read_versions)
        return sorted(found, key=lambda version: int(version.version), reverse=True)

    def _models(self) -> Iterator[RegisteredModel]:
        return self._pages("ListModels", self._parent, _wire.models, _wire.read_models)

    def _pages(
        self,
        rpc: str,
        resource: str,
        request: Callable[[str, str], Any],
        read: Callable[[Any], tuple[list[_T], str]],
    ) -> Iterator[_T]:
        """What a list holds, page by page, each asked for when it is needed and with a budget of its own."""
        token = ""
        while True:
            connection = self._vertex
            page, token = read(connection.call(rpc, request(resource, token), resource))
            yield from page
            if not token:
                return

    def _every_version(self, name: str | None) -> Generator[list[ModelVersion], None, None]:
        """The versions of a model; or of every model, in order, over a window of calls under way at once."""
        if name is not None:
            yield self._on_model(name, self._versions)
            return

        def versions(model: RegisteredModel) -> list[ModelVersion]:
            try:
                return self._versions(self._model_of(model))
            except NotFoundError:
                return []  # it was deleted since it was listed

        yield from _waiting.ahead(versions, self._models(), _WINDOW)

    # --- changing a version -------------------------------------------------------------------------------------------

    def _change(
        self, model: _Model, reference: str, change: Callable[[ModelVersion], _Change], *, adds: bool = False
    ) -> ModelVersion:
        """Read, change, write with the etag; from the beginning where somebody else was faster."""
        budget = self._vertex.budget()
        version = self._read(model, reference)
        tries = 0
        while True:
            try:
                return self._write(model, *self._fit(model, version, change, adds=adds))
            except ConflictError as conflict:
                if conflict.code is None:
                    raise  # it is ours: another try would be hidden as well
                fresh = self._read(model, reference)
                if fresh.etag == version.etag or not self._vertex.pause(budget, tries):
                    raise
                version = fresh
                tries += 1

    def _write(self, model: _Model, version: ModelVersion, change: _Change) -> ModelVersion:
        resource = f"{model.resource}@{version.version}"
        request = _wire.update_version(
            resource, labels=change.labels, description=change.description, etag=version.etag
        )
        written = _wire.read_version(self._vertex.call("UpdateModel", request, resource))
        return written if change.labels is None else _as_written(written, change.labels, version.labels, model)

    def _stage_notes(
        self,
        stage: Stage,
        current: ModelVersion | None,
        *,
        seen: Iterable[dt.datetime | None] = (),
        renew: bool = False,
    ) -> dict[str, str | None]:
        """What puts a version in a stage; one that is in it keeps its stamp, unless it has to claim it anew."""
        if current is not None and current.stage is stage and current.stage_changed_at is not None and not renew:
            return {_stages.STAGE_LABEL: stage.label}
        past = [*seen, None if current is None else current.stage_changed_at]
        moment = _stages.next_moment(self._now(), past)
        return {
            _stages.STAGE_LABEL: stage.label,
            _stages.CHANGED_AT_LABEL: _stages.stamp(moment),
            _stages.CHANGED_BY_LABEL: self._vertex.principal() or self._actor,
        }

    def _archive_others(self, model: _Model, promoted: ModelVersion, *, yielding: bool = False) -> ModelVersion:
        """Archive all in the stage of the promoted version but the one with the latest claim; give the promoted one.

        With ``yielding`` nothing is archived where another version has the latest claim: a promotion that was finished
        long ago has nothing to say of those that came after it.
        """
        stage = promoted.stage
        budget = self._vertex.budget()
        tries = 0
        while True:
            # Lists may lag; who is in the stage now is read version by version.
            claimed = {version.version for version in self._versions(model) if version.stage is stage}
            holders = []
            for version in sorted(claimed | {promoted.version}, key=int):
                with contextlib.suppress(NotFoundError):
                    holders.append(self._read(model, version))
            holders = [version for version in holders if version.stage is stage]
            winner = max(holders, key=_claim, default=None)
            if yielding and (winner is None or winner.version != promoted.version):
                return self._read(model, promoted.version)
            try:
                for loser in holders:
                    if loser is not winner:
                        seen = [version.stage_changed_at for version in holders]
                        notes = self._stage_notes(Stage.ARCHIVED, loser, seen=seen)
                        self._write(model, *self._archived(model, loser, notes))
            except (ConflictError, NotFoundError) as conflict:
                if conflict.code is None or not self._vertex.pause(budget, tries):
                    raise
                tries += 1
                continue
            return self._read(model, promoted.version)

    def _archived(
        self, model: _Model, version: ModelVersion, notes: Mapping[str, str | None]
    ) -> tuple[ModelVersion, _Change]:
        """The version, and the change that archives it with these notes."""

        def change(current: ModelVersion) -> _Change:
            return _Change(labels=_labels.write(current.labels, notes=notes), description=None)

        try:
            return self._fit(model, version, change)
        except InvalidArgumentError as full:
            raise ConflictError(
                f"Version {version.version} of {version.name!r} cannot be archived, and stays in {version.stage}. "
                f"{full} update_version(name, {version.version}, remove_metadata=[...]) makes room.",
                resource=version.resource_name,
            ) from full

    def _check_archivable(self, model: _Model, versions: Iterable[ModelVersion], stage: Stage) -> None:
        """Let all that are in the stage be such that they can be archived, before anything is changed."""
        notes = self._room() | {_stages.CHANGED_BY_LABEL: self._vertex.principal() or self._actor}
        for version in versions:
            if version.stage is not stage:
                continue
            try:
                _labels.write(version.labels, notes=notes)
            except InvalidArgumentError:
                # Lists may lag, and may show versions that are gone.
                with contextlib.suppress(NotFoundError):
                    current = self._read(model, version.version)
                    fitting, _ = self._archived(model, current, notes)
                    if fitting is not current:
                        self._write(model, fitting, _Change(labels=fitting.labels, description=None))

    def _room(self, registration: _Registration | None = None) -> dict[str, str | None]:
        """The notes that are going to be written on a version, or may be, at their longest."""
        room: dict[str, str | None] = {
            _labels.MANAGED_BY: self._managed_by,
            _labels.REQUEST: _names.fingerprint(""),
            _stages.STAGE_LABEL: Stage.PRODUCTION.label,
            _stages.CHANGED_AT_LABEL: _stages.stamp(dt.datetime.max.replace(tzinfo=dt.UTC)),
            _stages.CHANGED_BY_LABEL: max(_AUTHOR, self._actor or "", key=lambda text: len(text.encode())),
        }
        if registration is not None:
            room[_labels.VERSION_NAME] = registration.version_name
        return room

    # --- the two layers of labels -------------------------------------------------------------------------------------

    def _fit(
        self, model: _Model, version: ModelVersion, change: Callable[[ModelVersion], _Change], *, adds: bool = False
    ) -> tuple[ModelVersion, _Change]:
        """The version, and a change of it that fits into its labels.

        A read shows the labels of the model as well, which take no room on the version: where the change does not fit
        beside all of them, it may fit beside the version's own. Which those are is found out by a write, so that a
        change that adds metadata, and is more likely to be too large, has to have a sign that there are any of the
        model's: more labels than a version can have, or the same ones on the default version.
        """
        try:
            return version, change(version)
        except InvalidArgumentError as full:
            if adds and version.is_default and len(version.labels) <= _labels.MAX_LABELS:
                raise
            # The model shows its own labels and its default version's.
            shown = self._read_model(model).labels
            keys = {key for key in _labels.layered_keys(version.labels) if shown.get(key) == version.labels[key]}
            change(_without(version, keys))  # if that does not fit, nothing does, and nothing is written
            try:
                own = self._own(model, version, keys)
            except InvalidArgumentError:
                raise full from None
        try:
            return own, change(own)
        except InvalidArgumentError:
            self._write(model, own, _Change(labels=own.labels, description=None))
            raise

    def _own(self, model: _Model, version: ModelVersion, keys: set[str]) -> ModelVersion:
        """The version without what only the model says under these keys, and with the etag that it has now.

        Vertex answers with the labels of the model and of the version in one, and no read tells them apart. A write
        does. What lies under the keys is packed, which reads the same, so that nobody loses anything where this is cut
        off; what the answer still shows under one of them, with the value that was read there, is the model's.

        Raises:
            InvalidArgumentError: What lies under the keys does not fit into a pack; nothing was sent.
        """
        freed = _labels.freed(version.labels, keys)
        resource = f"{model.resource}@{version.version}"
        request = _wire.update_version(resource, labels=freed, etag=version.etag)
        written = _wire.read_version(self._vertex.call("UpdateModel", request, resource))
        shown = _labels.read({key: written.labels[key] for key in keys & written.labels.keys()}).metadata
        theirs = {key for key, value in shown.items() if _same(value, version.metadata[key])}
        return attrs.evolve(_without(version, theirs), etag=written.etag)

    def _merge_aliases(
        self, name: str, version: str | int, *, add: list[str] | None = None, remove: list[str] | None = None
    ) -> ModelVersion:
        self._check_model(name)
        reference = _names.check_reference(version)

        def merge(model: _Model) -> ModelVersion:
            # "The version ID must be explicit" in the name, so that an alias is resolved first.
            number = _names.version_id(reference) or self._read(model, reference).version
            if not add and not remove:
                return self._read(model, number)
            resource = f"{model.resource}@{number}"
            request = _wire.merge_aliases(resource, add=add or (), remove=remove or ())
            try:
                return _wire.read_version(self._vertex.call("MergeVersionAliases", request, resource))
            except NotFoundError:
                self._read(model, number)  # says it in better words
                raise

        return self._on_model(name, merge)

    # --- registering --------------------------------------------------------------------------------------------------

    def _container(
        self, container: ServingContainer | str | None, local: _storage.LocalDirectory | None, *, gpu: bool
    ) -> ServingContainer:
        today = self._now().date()
        if not isinstance(container, (ServingContainer, str, type(None))):
            raise InvalidArgumentError(
                "A container is a ServingContainer, an image's URI or a framework's name, "
                f"not {type(container).__name__}."
            )
        if isinstance(container, ServingContainer) and gpu:
            raise InvalidArgumentError("gpu=True chooses among Vertex's images, and a ServingContainer names its own.")
        if not isinstance(container, ServingContainer):
            image = self._default_image if container is None else container
            if image is not None or gpu:
                image = _serving.serving_image(image or "sklearn", self._location, gpu=gpu)
            else:
                image, doubt = self._image_for(local, today)
                if doubt is not None:
                    _warn(doubt)
            container = ServingContainer(image)
        if (end := _serving.retired(container.image, today)) is not None:
            _warn(f"{container.image} is not served by Google since {end}. Name a newer image with container=.")
        return container

    def _image_for(self, local: _storage.LocalDirectory | None, today: dt.date) -> tuple[str, str | None]:
        """The image of the scikit-learn that wrote the model, or the newest one, and what to say of that."""
        newest = _serving.default_image(self._location)
        written_by = None if local is None else _storage.written_by(local)
        if written_by is None:
            return newest, None
        if (image := _serving.image_for_sklearn(written_by, self._location, today=today)) is not None:
            return image, None
        return newest, (
            f"Google has no serving image for scikit-learn {written_by}, which wrote the model; {newest} may not load "
            "it. Name an image of your own with container=, or write the model with an earlier version."
        )

    def _labels_of(
        self,
        registration: _Registration,
        seen: Iterable[dt.datetime | None],
        current: ModelVersion | None = None,
    ) -> dict[str, str]:
        """All the labels that the version is complete with; what is there already stands."""
        notes: dict[str, str | None] = {
            _labels.MANAGED_BY: self._managed_by,
            _labels.REQUEST: _names.fingerprint(registration.request_id),
            _labels.VERSION_NAME: registration.version_name,
        }
        if current is not None and current.stage_changed_at is not None:
            pass  # somebody has put it in a stage since
        elif registration.stage is Stage.NONE:
            notes[_stages.STAGE_LABEL] = Stage.NONE.label
        else:
            notes |= self._stage_notes(registration.stage, None, seen=seen)
        there = () if current is None else current.metadata
        metadata = {key: value for key, value in registration.metadata.items() if key not in there}
        return _labels.write({} if current is None else current.labels, metadata=metadata, notes=notes)

    def _labels_beside(
        self, model: _Model, registration: _Registration, seen: Iterable[dt.datetime | None], current: ModelVersion
    ) -> tuple[ModelVersion, dict[str, str]]:
        """The version as somebody may have changed it, and all the labels that it is complete with.

        What others have written on the version stands; what the model says under a key that is registered does not
        count for it. Where it cannot be found out which of the two it is, because it does not fit into a pack, what is
        registered stands: the version was never complete, so that hardly anybody has written there, and a value that
        nobody asked for must not come back as if it had been registered.
        """
        if doubtful := _doubtful(current, registration):
            try:
                current = self._own(model, current, doubtful)
            except InvalidArgumentError:
                current = _without(current, doubtful)

        def change(version: ModelVersion) -> _Change:
            return _Change(labels=self._labels_of(registration, seen, version), description=None)

        current, complete = self._fit(model, current, change)
        return current, complete.labels or {}

    def _register(self, registration: _Registration, *, own_request: bool, check_source: bool | None) -> ModelVersion:
        if not own_request:
            self._check_directory(registration.source, registration.container.image, asked=check_source)
        self._labels_of(registration, seen=())  # they fit, with all that is ours, or nothing is uploaded
        model = self._known.get(registration.name) or self._listed(registration.name)
        if own_request:
            # Somebody may have made it before us, even a model that no list shows yet.
            places = [model] if model is not None else list(self._by_id(registration.name))
            for place in places:
                try:
                    version = self._find_made(place.resource, registration)
                except (PermissionDeniedError, UnavailableError) as error:
                    if error.code not in {"PERMISSION_DENIED", "UNIMPLEMENTED"}:
                        raise
                    version = None  # who may not see what is running has looked at what is there
                if version is not None:
                    return self._finish(place, version, registration)
            # What was registered before is given, whatever has become of its artifact.
            self._check_directory(registration.source, registration.container.image, asked=check_source)
        if registration.archive_existing and model is not None:
            with contextlib.suppress(NotFoundError):  # a model that is gone is found out by the upload
                self._check_archivable(model, self._versions(model), registration.stage)
        return self._upload(registration, model)

    def _look(self, resource: str, registration: _Registration) -> ModelVersion | None:
        """The version that the request made, if it is there; a point read, which no lag touches."""
        name = f"{resource}@{registration.alias}"
        try:
            return _wire.read_version(self._vertex.call("GetModel", _wire.get(name), name))
        except NotFoundError:
            return None

    def _find_made(self, resource: str, registration: _Registration) -> ModelVersion | None:
        """The version that the request made or is making: what is running now is waited for.

        Which upload an operation belongs to is not to be seen, so that those of others are waited for as well.
        """
        rpc = self._vertex
        if (version := self._look(resource, registration)) is not None:
            return version
        budget = rpc.operation_budget()
        running = False
        for operation in self._pages("ListOperations", resource, _wire.operations, _wire.read_operations):
            if not operation.done:
                running = True
                try:
                    rpc.wait(operation, _wire.operation, budget)
                except (OperationFailedError, NotFoundError):
                    continue
                except OperationTimeoutError as late:
                    raise _late(registration, late) from late.__cause__
        return self._look(resource, registration) if running else None

    def _finish(self, model: _Model, version: ModelVersion, registration: _Registration) -> ModelVersion:
        """The version that the request made before, completed where that was cut off."""
        self._remember(registration.name, model)
        if version.artifact_uri.rstrip("/") != registration.source.rstrip("/"):
            raise ConflictError(
                f"The request id {registration.request_id!r} has registered version {version.version} of "
                f"{registration.name!r} with another source, {version.artifact_uri}. "
                "Give each source its own request id.",
                resource=version.resource_name,
            )
        if not _is_whole(version, registration):
            return self._complete(model, version.version, registration, version)
        if registration.archive_existing and version.stage is registration.stage:
            return self._archive_others(model, version, yielding=True)
        return version

    def _complete(
        self, model: _Model, version: str, registration: _Registration, current: ModelVersion | None = None
    ) -> ModelVersion:
        """Write everything that belongs to the version; the call that makes it whole.

        A version that was just made is written without being read first. As soon as somebody else may have been there,
        it is read, and what they have written stands.
        """
        resource = f"{model.resource}@{version}"
        try:
            whole = self._write_whole(model, resource, registration, current)
            return self._archive_others(model, whole) if registration.archive_existing else whole
        except UnavailableError as lost:
            raise _unknown(
                registration, resource, f"The version {resource} was uploaded, and could not be completed: {lost}"
            ) from lost
        except RegistryError as error:
            finish = (
                f"register_version with request_id={registration.request_id!r} gives it, and writes what is missing."
            )
            error.args = (f"{error} The version {resource} was uploaded; {finish}",)
            raise

    def _write_whole(
        self, model: _Model, resource: str, registration: _Registration, current: ModelVersion | None
    ) -> ModelVersion:
        rpc = self._vertex
        budget, tries = rpc.budget(), 0
        seen = [other.stage_changed_at for other in self._versions(model)] if registration.archive_existing else []
        version = resource.rpartition("@")[2]
        while True:
            try:
                if current is None:
                    labels = self._labels_of(registration, seen)
                else:
                    current, labels = self._labels_beside(model, registration, seen, current)
                request = _wire.update_version(resource, labels=labels, etag="" if current is None else current.etag)
                written = _wire.read_version(rpc.call("UpdateModel", request, resource, once=True))
                return _as_written(written, labels, {} if current is None else current.labels, model)
            except (UnavailableError, ConflictError) as failure:
                if failure.code is None:
                    raise
                again = self._read(model, version)
                if _is_whole(again, registration):
                    if not (doubtful := _doubtful(again, registration)):
                        return again
                    # It was written, and somebody has changed it since, or the model hides it.
                    left = {key: registration.metadata[key] for key in doubtful}
                    registration = attrs.evolve(registration, metadata=left)
                if not rpc.pause(budget, tries, getattr(failure, "retry_after", 0.0)):
                    raise
                current = again
                tries += 1

    def _upload(  # noqa: C901, PLR0912  # the ways that an upload can end stand side by side
        self, registration: _Registration, model: _Model | None
    ) -> ModelVersion:
        """Upload until there is a version, and only one."""
        rpc = self._vertex
        calls, race = rpc.budget(), rpc.operation_budget()
        number = tries = waits = 0
        while True:
            resource = self._id_of(registration.name, number) if model is None else model.resource
            try:
                made_in, version = self._upload_once(registration, model, resource)
            except (AlreadyExistsError, OperationFailedError) as taken:
                if taken.code != "ALREADY_EXISTS" or model is not None:
                    raise
                bearer = self._await_model(resource, race, waits)
                waits += _LOOKS
                if bearer is None:
                    continue  # perhaps the upload that had taken the id has failed, and the id is free
                if bearer.name != registration.name:
                    number += 1  # the id belongs to a model that was given another name since
                    continue
                if (ours := self._look(resource, registration)) is not None:
                    return self._finish(bearer, ours, registration)
                model = self._remember(registration.name, bearer)
            except NotFoundError:
                if model is None:
                    raise
                # The model was deleted since its name was looked up.
                self._forget(registration.name)
                found = self._listed(registration.name)
                if found == model and not rpc.pause(calls, tries):
                    raise
                tries += 1
                model = found
            except UnavailableError as lost:
                if lost.code == "UNIMPLEMENTED":
                    raise
                began = calls.spent()
                ours = self._find_lost(registration, model, resource, lost)
                if ours is not None:
                    return self._finish(model or _Model(resource, registration.name), ours, registration)
                calls.seconds += calls.spent() - began  # waiting for what is running is no call
                if not rpc.pause(calls, tries, max(_ARRIVAL, lost.retry_after)):
                    if lost.code == "RESOURCE_EXHAUSTED":
                        raise  # it was refused, and nothing of it is to be found
                    raise _unknown(registration, resource, str(lost)) from lost
                tries += 1
                if model is not None and (ours := self._look(resource, registration)) is not None:
                    return self._finish(model, ours, registration)
            else:
                self._remember(registration.name, made_in)
                return self._complete(made_in, version, registration)

    def _upload_once(self, registration: _Registration, model: _Model | None, resource: str) -> tuple[_Model, str]:
        """The model and the version that one upload made."""
        rpc = self._vertex
        request = _wire.upload(
            self._parent,
            name=registration.name if model is None else model.name,
            source=registration.source,
            container=registration.container,
            aliases=registration.aliases,
            labels={_labels.MANAGED_BY: self._managed_by},
            description=registration.description,
            model_description=registration.model_description if model is None else None,
            model_id="" if model is not None else resource.rpartition("/")[2],
            parent_model="" if model is None else resource,
        )
        made_in = model or _Model(resource, registration.name)
        operation = rpc.call("UploadModel", request, resource)
        try:
            _, version = _wire.read_upload(rpc.wait(operation, _wire.operation, rpc.operation_budget()))
        except OperationTimeoutError as late:
            raise _late(registration, late) from late.__cause__
        except (UnavailableError, NotFoundError) as lost:
            # How the operation ended is not known; the version that it makes may be there to tell.
            version = ""
            cause: RegistryError | None = lost
        else:
            cause = None
        if not version:
            with contextlib.suppress(UnavailableError):
                if (ours := self._look(resource, registration)) is not None:
                    return made_in, ours.version
            raise _unknown(registration, operation.name, str(cause or "It does not name its version.")) from cause
        return made_in, version

    def _await_model(self, resource: str, race: _waiting.Budget, waits: int) -> _Model | None:
        """The model that has taken an id, once its first upload is done; None when it is time to try the id again."""
        if (bearer := self._peek(resource)) is not None:
            return bearer
        for look in range(_LOOKS):
            if not self._vertex.pause(race, waits + look):
                raise OperationTimeoutError(
                    f"The id of {resource} is taken by an upload that is not done after {race.seconds:g} s. "
                    "Nothing was registered; Retry(operations=...) sets how long to wait.",
                    resource=resource,
                )
            if (bearer := self._peek(resource)) is not None:
                return bearer
        return None

    def _find_lost(
        self, registration: _Registration, model: _Model | None, resource: str, lost: UnavailableError
    ) -> ModelVersion | None:
        """The version that a lost upload made; None where it can be sent again.

        A request that was cut off on its way may still arrive. What can be done is to look, to wait, and to look again
        before it is sent a second time; where its deadline passed, nobody knows how long that would take.
        """
        if model is None:
            return self._look(resource, registration)  # its id lets no second upload through
        try:
            found = self._find_made(resource, registration)
        except RegistryError as error:
            raise _unknown(registration, resource, f"{lost} Looking for it failed too: {error}") from error
        if found is None and lost.code == "DEADLINE_EXCEEDED":
            raise _unknown(registration, resource, f"{lost} It may still be on its way.") from lost
        return found

    # --- deleting -----------------------------------------------------------------------------------------------------

    def _delete_version(self, model: _Model, reference: str) -> None:
        current = self._read(model, reference)
        resource = f"{model.resource}@{current.version}"
        moved = current.is_default and self._move_default(model, current.version)
        try:
            self._delete("DeleteModelVersion", _wire.delete_version(resource), resource)
        except BaseException as refusal:
            if self._closed:
                raise  # nothing more can be asked for
            if moved:
                with contextlib.suppress(NotFoundError):
                    request = _wire.merge_aliases(resource, add=[_names.DEFAULT_ALIAS])
                    self._vertex.call("MergeVersionAliases", request, resource)
            if not isinstance(refusal, (ConflictError, InvalidArgumentError, OperationFailedError)):
                raise
            # A list that lags shows versions that are gone: only one that can be read is another version.
            others = self._others(model, current.version)
            if not current.is_default or moved or any(self._is_there(model, other) for other in others):
                raise _refused(refusal, resource) from refusal.__cause__
            _LOG.warning("%s is the last version of its model, which is deleted with it", resource)
            self._delete_model(model)

    def _move_default(self, model: _Model, version: str) -> bool:
        """Whether there was another version for ``default`` to move to."""
        for other in self._others(model, version):
            resource = f"{model.resource}@{other}"
            request = _wire.merge_aliases(resource, add=[_names.DEFAULT_ALIAS])
            with contextlib.suppress(NotFoundError):  # a list that lags shows versions that are gone
                self._vertex.call("MergeVersionAliases", request, resource)
                return True
        return False

    def _others(self, model: _Model, version: str) -> list[str]:
        """The numbers of the other versions, the newest first.

        A list may lag, and a version that it does not show yet must not be deleted with its model: the version that was
        uploaded last bears an alias of ours, and the neighbourhood of the version and of the last one is looked at
        version by version.
        """
        number = int(version)
        listed = {int(other.version) for other in self._versions(model)}
        with contextlib.suppress(NotFoundError):
            listed.add(int(self._read(model, _names.NEWEST_ALIAS).version))
        top = max(listed | {number})
        near = {*range(number - _NEIGHBOURS, number + _NEIGHBOURS + 1), *range(top, top + _NEIGHBOURS + 1)}

        unlisted = sorted(other for other in near - listed if other > 0)
        there = _waiting.ahead(lambda other: self._is_there(model, str(other)), unlisted, _NEIGHBOURS)
        found = {other for other, is_there in zip(unlisted, there, strict=True) if is_there}
        return [str(other) for other in sorted((listed | found) - {number}, reverse=True)]

    def _is_there(self, model: _Model, version: str) -> bool:
        return not self._gone(f"{model.resource}@{version}")

    def _delete_model(self, model: _Model) -> None:
        try:
            self._delete("DeleteModel", _wire.delete_model(model.resource), model.resource)
        except (ConflictError, OperationFailedError) as refusal:
            raise _refused(refusal, model.resource) from refusal.__cause__
        with self._lock:
            self._known = {name: known for name, known in self._known.items() if known.resource != model.resource}

    def _delete(self, rpc: str, request: Any, resource: str) -> None:  # noqa: C901  # the ways that a deletion can end, likewise
        """Delete, and find out whether it is gone where the answer does not tell."""
        connection = self._vertex
        budget = connection.budget()
        tries = 0
        while True:
            began = False
            try:
                operation = connection.call(rpc, request, resource)
                began = True
                connection.wait(operation, _wire.operation, connection.operation_budget())
            except NotFoundError:
                if not tries and not began:
                    raise
                return  # an earlier try has deleted it, or it took its operation along
            except OperationFailedError as failed:
                if failed.code == "FAILED_PRECONDITION" or not self._gone(resource):
                    raise
                return
            except UnavailableError as lost:
                if lost.code == "UNIMPLEMENTED":
                    raise
                if self._gone(resource):
                    return
                if not connection.pause(budget, tries, lost.retry_after):
                    raise
                tries += 1
            else:
                return

    def _gone(self, resource: str) -> bool:
        try:
            self._vertex.call("GetModel", _wire.get(resource), resource)
        except NotFoundError:
            return True
        return False


@attrs.frozen
class _Change:
    """What is to be written on a version; None leaves as it is."""

    labels: dict[str, str] | None
    description: str | None


@attrs.frozen
class _Settings:
    """Where the client is going to connect to."""

    host: str
    rest: bool
    plain: bool
    anonymous: bool
    credentials: Any = attrs.field(repr=False)


def _default_image(image: str, location: str) -> str:
    if not isinstance(image, str):
        raise InvalidArgumentError(
            f"default_image is an image's URI or a framework's name, and not {type(image).__name__}."
        )
    _serving.serving_image(image, location)  # there is one
    return image


def _user_agent(first: str | None) -> str:
    if first is not None and not (isinstance(first, str) and first.isascii() and first.isprintable()):
        raise InvalidArgumentError(f"user_agent={first!r} cannot be sent: it is a line of plain ASCII characters.")
    return " ".join(filter(None, [first, f"vertex-registry/{_version()}"]))


def _check_credentials(given: Any) -> None:
    """Credentials of Google's are known by what is asked of them, so that nothing of Google's has to be imported."""
    if not (given is None or isinstance(given, (str, os.PathLike, dict)) or hasattr(given, "before_request")):
        raise InvalidArgumentError(
            "credentials is a google-auth credentials object, the path of a credentials file, or its content as a "
            f"dict, and not {type(given).__name__}."
        )


def _settings(endpoint: str | None, transport: str | None, location: str, credentials: Any) -> _Settings:
    if transport not in (None, "grpc", "rest"):
        raise InvalidArgumentError(f"There is no transport {transport!r}. The transports are 'grpc' and 'rest'.")
    _check_credentials(credentials)
    if endpoint is not None:
        _names.check_text("endpoint", endpoint)
    emulator = None if endpoint else os.environ.get(_EMULATOR)
    address = endpoint or emulator or f"{location}-aiplatform.googleapis.com"
    scheme, separator, host = address.rpartition("://")
    host = host.rstrip("/")
    if (separator and scheme not in {"http", "https"}) or not host or any(letter in host for letter in "/@? "):
        shown = "An address with a user in it" if "@" in address else repr(address)
        raise InvalidArgumentError(
            f"{shown} is no address of the service. Give 'host:port' for gRPC or 'http://host:port' for REST."
        )
    if scheme == "http" and transport == "grpc":
        raise InvalidArgumentError(f"{address!r} is an address for REST, and transport='grpc' was asked for.")
    loopback = _is_loopback(host)
    plain = scheme == "http" or (not scheme and (emulator is not None or loopback))
    if plain and credentials is not None and not loopback:
        if emulator is None:
            raise InvalidArgumentError(
                f"Credentials are not sent in plain text to {host}, which is not this machine. "
                "Use https, or give no credentials: an emulator needs none."
            )
        credentials = None
    return _Settings(
        host=host,
        rest=transport == "rest" or (transport is None and scheme == "http"),
        plain=plain,
        anonymous=(plain or emulator is not None) and credentials is None,
        credentials=credentials,
    )


def _is_loopback(host: str) -> bool:
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(name).is_loopback
    return name == "localhost"


def _version() -> str:
    try:
        return importlib.metadata.version("vertex-registry")
    except importlib.metadata.PackageNotFoundError:
        return "0"


_ABSENT: Final = object()


def _local(source: str | os.PathLike[str], staging: str | None) -> _storage.LocalDirectory | None:
    """The folder that is to be uploaded, or None where the source is in Cloud Storage, or cannot be uploaded."""
    if isinstance(source, os.PathLike) or (isinstance(source, str) and source and "://" not in source):
        return None if staging is None else _storage.scan(source)
    return None


def _text_of(source: str | os.PathLike[str]) -> str:
    return os.fspath(source) if isinstance(source, os.PathLike) else source


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)


def _same(value: Any, wanted: Any) -> bool:
    """Whether two values of JSON are equal; True is not 1 there."""
    if isinstance(value, list) and isinstance(wanted, list):
        return len(value) == len(wanted) and all(map(_same, value, wanted))
    if isinstance(value, dict) and isinstance(wanted, dict):
        return value.keys() == wanted.keys() and all(_same(value[key], wanted[key]) for key in value)
    return bool(value == wanted) and isinstance(value, bool) == isinstance(wanted, bool)


def _is_whole(version: ModelVersion, registration: _Registration) -> bool:
    """Whether everything has been written that belongs to the version."""
    written = _labels.read(version.labels).notes.get(_labels.REQUEST)
    return written == _names.fingerprint(registration.request_id)


def _doubtful(version: ModelVersion, registration: _Registration) -> set[str]:
    """The keys under which another value is read than was registered, which may be the model's or the version's."""
    return {
        key
        for key in _labels.layered_keys(version.labels) & registration.metadata.keys() & version.metadata.keys()
        if not _same(version.metadata[key], registration.metadata[key])
    }


def _without(version: ModelVersion, keys: Collection[str]) -> ModelVersion:
    return attrs.evolve(
        version,
        labels={key: label for key, label in version.labels.items() if key not in keys},
        metadata={key: value for key, value in version.metadata.items() if key not in keys},
    )


def _claim(version: ModelVersion) -> tuple[dt.datetime, int]:
    """How late a version claimed its stage; the latest claim wins."""
    return version.stage_changed_at or dt.datetime.min.replace(tzinfo=dt.UTC), int(version.version)


def _aware(what: str, moment: dt.datetime | None) -> dt.datetime | None:
    if moment is not None and (not isinstance(moment, dt.datetime) or moment.utcoffset() is None):
        raise InvalidArgumentError(
            f"{what}={moment!r} has no time zone, so that it names no moment. Give an aware datetime, "
            "such as datetime(2026, 1, 31, tzinfo=UTC)."
        )
    return moment


def _count(limit: int | None) -> int | None:
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 0):
        raise InvalidArgumentError(f"limit={limit!r} is not a number of versions or models.")
    return limit


def _strings(what: str, values: Iterable[str]) -> list[str]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InvalidArgumentError(f"{what} is a list of strings, and not {values!r}.")
    listed = list(values)
    if not all(isinstance(value, str) for value in listed):
        raise InvalidArgumentError(f"{what} is a list of strings, and not {listed!r}.")
    return listed


def _models_named(name: str) -> Callable[[str, str], Any]:
    return lambda parent, token: _wire.models_named(parent, name, token)


def _as_written(
    written: ModelVersion, labels: Mapping[str, str], before: Mapping[str, str], model: _Model
) -> ModelVersion:
    """The version as it was written, unless the model's own labels hide some of it."""
    hidden = {key for key, value in labels.items() if written.labels.get(key) != value}
    meant = _labels.read(labels).metadata  # what is packed is read before a label under its key
    hidden |= {
        key
        for key in (before.keys() - labels.keys()) & written.labels.keys()
        if key not in meant or not _same(written.metadata.get(key, _ABSENT), meant[key])
    }
    hidden -= {_labels.MANAGED_BY}
    if hidden:
        keys = ", ".join(map(repr, sorted(hidden)))
        raise ConflictError(
            f"The model {model.name!r} itself has the labels {keys}, which stand before "
            f"those of version {written.version}: what was written there does not show. Take them off the model: "
            "update_model(name, labels={...}) replaces the model's own labels.",
            resource=written.resource_name,
        )
    return written


def _refused(refusal: RegistryError, resource: str) -> RegistryError:
    """A refusal to delete, in words; what failed for another reason is left as it is."""
    if refusal.code not in {"FAILED_PRECONDITION", "INVALID_ARGUMENT"}:
        return refusal
    return ConflictError(
        f"{resource} was not deleted: {refusal} "
        "A version that is deployed has to be undeployed from its endpoints first.",
        resource=resource,
        code=refusal.code,
    )


def _late(registration: _Registration, late: OperationTimeoutError) -> OperationTimeoutError:
    error = OperationTimeoutError(
        f"{late} A version of {registration.name!r} that it makes has neither its stage nor its metadata by then. Call "
        f"register_version again with request_id={registration.request_id!r}: it finds what was made, or makes it, and "
        "finishes it.",
        resource=late.resource,
        code=late.code,
    )
    error.request_id = registration.request_id
    return error


def _unknown(registration: _Registration, resource: str, what: str) -> StateUnknownError:
    return StateUnknownError(
        f"It is not known whether the version of {registration.name!r} was made: {what} Call register_version again "
        f"with request_id={registration.request_id!r}: it finds what was made, or makes it.",
        resource=resource,
        request_id=registration.request_id,
    )
