"""RegistryClient: the verbs.

Each verb checks its arguments before anything is sent, finds the model that a name means, and is then a few calls of
Vertex's. What they have to be right about is written down with the rules they keep: names in ``_names``, stages in
``_stages``, metadata in ``_labels``; finding, reading and changing in ``_resources``, registering in ``_registration``,
promoting in ``_promotion``, deleting in ``_deletion``.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib
import itertools
import logging
import os
import pickle
import re
import uuid
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar

import attrs

from vertex_registry import _endpoint, _history, _labels, _loading, _names, _process, _servable, _serving, _stages
from vertex_registry._listing import Listing
from vertex_registry._records import ModelVersion, RegisteredModel, Retry, Rollback, ServingContainer
from vertex_registry._stages import Stage
from vertex_registry._version import __version__
from vertex_registry.errors import ClientClosedError, ConflictError, InvalidArgumentError, NotFoundError, RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Mapping
    from pathlib import Path
    from types import TracebackType

    from vertex_registry import _credentials, _deletion, _promotion, _registration, _resources, _rpc, artifacts
    from vertex_registry._records import Pruned, StageHistory, VersionDiff
else:

    class _Later:
        """A module that is imported at its first use, because Google's libraries take a second."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, attribute: str) -> Any:
            return getattr(importlib.import_module(self._name), attribute)

    _credentials = _Later("vertex_registry._credentials")
    _deletion = _Later("vertex_registry._deletion")
    _promotion = _Later("vertex_registry._promotion")
    _registration = _Later("vertex_registry._registration")
    _resources = _Later("vertex_registry._resources")
    _rpc = _Later("vertex_registry._rpc")
    artifacts = _Later("vertex_registry.artifacts")

_T = TypeVar("_T")

_LOG: Final = logging.getLogger("vertex_registry")
_LOG.addHandler(logging.NullHandler())

#: What a client has that isn't a setting, and that neither a pickle nor a copy takes along.
_OF_THIS_PROCESS: Final = frozenset({"_lock", "_connected", "_opened", "emulator", "_owner"})

_LOCAL_PROJECT: Final = "local-project"
_LOCATION: Final = "us-central1"  # what Google's own SDK takes where nothing is said
_RETRY: Final = Retry()

# A project is named by its id, which a domain may stand before, or by its number.
_PROJECTS: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9:._-]*", re.ASCII)

#: The seconds that a pre-flight check may take which the caller didn't ask for.
_PROBE_TIMEOUT: Final = 5.0


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _new_id() -> str:
    return uuid.uuid4().hex


class RegistryClient:
    """A model registry on Vertex AI.

    Creating one sends nothing and imports nothing of Google's; the first call does. Threads can share it. So can forked
    processes: each opens its own connection. It can be pickled, unless its credentials can't; the copy connects by
    itself.

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
        new_id: What makes the ids of uploads, and of registrations that were given none; no two may be the same.

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
        _endpoint.check_location(self._location)
        if self._project is not None and not (isinstance(self._project, str) and _PROJECTS.fullmatch(self._project)):
            raise InvalidArgumentError(f"project={self._project!r} is not the name of a project.")
        if not isinstance(retry, Retry):
            raise InvalidArgumentError(f"retry is a Retry, such as Retry(call_timeout=30), and not {retry!r}.")
        for what, made in (("now", now), ("new_id", new_id)):
            if not callable(made):
                raise InvalidArgumentError(f"{what} is a function, and not {made!r}.")
        self._endpoint = _endpoint.resolve(endpoint, transport, self._location, credentials)
        self._managed_by = _labels.check_managed_by(managed_by)
        self._actor = None if actor is None else _names.check_text("actor", actor, 128)
        self._default_image = None if default_image is None else _default_image(default_image, self._location)
        self._staging_bucket = None if staging_bucket is None else _names.check_staging_bucket(staging_bucket)
        self._retry = retry
        self._user_agent = _user_agent(user_agent)
        self._now = now
        self._new_id = new_id
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        self._lock = _process.Lock()
        self._connected: _resources.Resources | None = None
        self._opened = _process.Owned(self._open_storage)

    def __repr__(self) -> str:
        return (
            f"RegistryClient(project={self._project!r}, location={self._location!r}, endpoint={self._endpoint.host!r})"
        )

    def __getstate__(self) -> dict[str, Any]:
        """Return the settings. Whoever unpickles them has a client that connects by itself.

        Raises:
            InvalidArgumentError: A setting can't be pickled.
        """
        state = {name: value for name, value in vars(self).items() if name not in _OF_THIS_PROCESS}
        settings = state | {"credentials": self._endpoint.credentials}
        settings["_endpoint"] = attrs.evolve(self._endpoint, credentials=None)
        for name, value in settings.items():
            if not _pickles(value):
                raise InvalidArgumentError(
                    f"This RegistryClient can't be pickled or copied, because its {name.removeprefix('_')} can't. "
                    + (
                        "Pass credentials as the path or the content of a file, or create a client in the worker."
                        if name == "credentials"
                        else "Pass a function of a module in place of a lambda or a method."
                    )
                )
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; a second time does nothing.

        What is under way in other threads ends at once: a call raises `ClientClosedError`, and a
        registration, which may have happened, a `StateUnknownError`.
        """
        with self._lock:
            vertex, self._connected, self._closed = self._connected, None, True
        files = self._opened.take()
        for open_one in (vertex, files):
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
        follow_links: bool = False,
    ) -> ModelVersion:
        """Upload an artifact as the next version of the model of that name, and give the version.

        The model is created with its first version. A name means one model: where several processes register a new
        name at once, one of them creates it and the others add versions.

        What others write on the version before its registration is done stays: their metadata, and their stage.

        Args:
            name: The model's display name, of 1 to 128 characters, or the full resource name of a model that is there.
            source: The artifact's directory, ``gs://bucket/directory``; or, with a staging bucket, a folder or file on
                this machine, which is uploaded first, unless the same bytes are there.
            version_name: The caller's own name of the version, kept exactly; of 1 to 128 characters.
            description: What this version is.
            metadata: Any JSON object, nested 100 deep at most, that fits into the labels of the version, beside a stage
                that it may be given later; it comes back equal.
            stage: The stage the version begins in.
            archive_existing: Archive the other versions in that stage, unless somebody has moved this one since.
            aliases: Aliases for the version, given once it has its stage and metadata; one that another version has
                moves here.
            make_default: Make this the default version, as Google's SDK does. It's the default from its upload on, so
                that of several uploads at once the latest is. A model's first version is the default anyway.
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
                this process or another, gives the version that it made, and finishes it where it was cut off. Several
                calls with one id make one version, also at once: the lowest stays, and the others are removed.
            follow_links: Upload what links lead to even if it's outside the folder. Defaults to refusing such links,
                except those of a Hugging Face cache.

        Raises:
            InvalidArgumentError: An argument cannot be right, or the image cannot serve the source; nothing was sent.
            AmbiguousNameError: Several models bear the name.
            NotFoundError: ``name`` is a resource name, and that model is not there; or there is no such bucket; or the
                version was deleted before its registration was done, and the error says what a second run does.
            PermissionDeniedError: The credentials may not do it, or may not write to the staging bucket; or may not
                delete a second upload of the request, which the error names.
            ConflictError: ``request_id`` has registered another source; a file changed while it was uploaded; or a
                label on the model itself hides what was written on the version.
            StateUnknownError: It cannot be known whether the version was made. The error's ``request_id`` is safe to
                try again.
            OperationFailedError, OperationTimeoutError: Vertex could not make the version, or is still at it.
        """
        self._check_model(name)
        _names.check_new_name(name)
        identity = self._new_id() if request_id is None else _names.check_text("request_id", request_id, 512)
        if version_name is not None:
            _names.check_text("version_name", version_name, 128)
        given = [_names.check_alias(alias) for alias in _strings("aliases", aliases)]
        if _names.DEFAULT_ALIAS in given and not make_default:
            raise InvalidArgumentError(
                "aliases has 'default', which make_default=False leaves where it is. Take one of the two out."
            )
        chosen = _stages.check_stage(stage)
        _stages.check_exclusive(chosen, archive_existing=archive_existing)
        staging = self._staging(staging_bucket)
        local = _local(source, staging, follow_links=follow_links)
        registration = _registration.Registration(
            name=name,
            source=_names.check_source(_text_of(source)) if local is None else local.source,
            container=self._container(container, local, gpu=gpu),
            aliases=tuple(alias for alias in dict.fromkeys(given) if alias != _names.DEFAULT_ALIAS),
            make_default=make_default,
            description=None if description is None else _names.check_text("description", description),
            model_description=(
                None if model_description is None else _names.check_text("model_description", model_description)
            ),
            metadata=_labels.check_metadata({} if metadata is None else metadata),
            version_name=version_name,
            stage=chosen,
            archive_existing=archive_existing,
            managed_by=self._managed_by,
            request_id=identity,
            shared=request_id is not None,
        )
        room = _promotion.room(self._managed_by, self._actor, version_name)
        _labels.check_room(_labels.write({}, metadata=registration.metadata, room=room), room)
        if _names.looks_like_id(name):
            with self._verb() as vertex:
                vertex.refuse_id(name)
        if local is not None:
            uri = self._send(local, name, staging, registration.container.image)
            registration = attrs.evolve(registration, source=uri)
            check_source = False

        def check() -> None:
            with self._vertex.rpc.uncounted():
                self._check_directory(registration.source, registration.container.image, asked=check_source)

        try:
            if request_id is None:
                check()
            with self._verb() as vertex:
                registrar = _registration.Registrar(vertex, self._promoter, self._new_id)
                return registrar.register(registration, None if request_id is None else check)
        except ClientClosedError as closed:
            raise _registration.unknown(registration, name, "This RegistryClient was closed meanwhile.") from closed

    def upload(
        self,
        source: str | os.PathLike[str],
        *,
        name: str,
        staging_bucket: str | None = None,
        container: ServingContainer | str | None = None,
        follow_links: bool = False,
    ) -> str:
        """The ``gs://`` directory that a folder on this machine was uploaded to: what `register_version` does first.

        The same bytes are not sent twice, and an upload that was interrupted goes on where it was.

        Args:
            source: The folder, or a file.
            name: The name of the model that it is for.
            staging_bucket: Where to: ``gs://bucket``, or a directory in it. Else the client's.
            container: What is going to serve it, as in `register_version`.
            follow_links: Upload what links lead to even if it's outside the folder, as in `register_version`.

        Raises:
            InvalidArgumentError: There is no such folder, no staging bucket, or the image could not serve it.
            NotFoundError: There is no such bucket.
            PermissionDeniedError: The credentials may not write to it.
            ConflictError: A file changed while it was uploaded.
            UnavailableError: There was no usable answer within the time budget.
        """
        self._check_model(name)
        _names.check_new_name(name)
        staging = self._staging(staging_bucket)
        if (local := _local(source, staging, follow_links=follow_links)) is None:
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
        if (
            isinstance(uri, str)
            and uri
            and ("://" not in uri or uri.lower().startswith("file://"))
            and _names.meant_uri(uri) is None
        ):
            raise InvalidArgumentError(f"{uri!r} is not in Cloud Storage: 'gs://bucket/directory' is.")
        return self._files.download(_names.check_source(uri), destination)

    def load_version(
        self,
        name: str,
        version: str | int | ModelVersion = _names.DEFAULT_ALIAS,
        *,
        version_name: str | None = None,
        stage: Stage | str | None = None,
        trusted: bool = False,
    ) -> Any:
        """The model object that was saved in a version's artifact.

        Args:
            name: The model's name.
            version: The number of the version, an alias, or a `ModelVersion`. Defaults to the default version.
            version_name: The name that the version was registered with, instead of ``version``.
            stage: The stage the version is in, instead of ``version``.
            trusted: Whether you trust everybody who can write to the artifact: pickle, joblib, torch, SavedModel and
                .keras files run their writer's code when they're loaded, and a crafted XGBoost file can crash the
                process. Nothing is loaded without it.

        Raises:
            InvalidArgumentError: ``trusted`` isn't True.
            NotFoundError: There is no such version, or no model in its artifact.
            RegistryError: The library that reads it is missing, or cannot.
        """
        found = self.get_version(name, version, version_name=version_name, stage=stage)
        return _loading.load(self._artifact(found, None), trusted=trusted, where=found.artifact_uri)

    def download_version(
        self,
        name: str,
        version: str | int | ModelVersion = _names.DEFAULT_ALIAS,
        destination: str | os.PathLike[str] | None = None,
        *,
        version_name: str | None = None,
        stage: Stage | str | None = None,
    ) -> Path:
        """The folder on this machine that a version's artifact was downloaded to, whole and verified.

        Args:
            name: The model's name.
            version: The number of the version, an alias, or a `ModelVersion`. Defaults to the default version.
            destination: The folder to create. Defaults to one in the cache, which is downloaded once and reused.
            version_name: The name that the version was registered with, instead of ``version``.
            stage: The stage the version is in, instead of ``version``.

        Raises:
            NotFoundError: There is no such version, it has no artifact, or the artifact is gone.
            AlreadyExistsError: The destination is there already.
            PermissionDeniedError: The credentials may not read the artifact.
            ConflictError: The artifact was replaced meanwhile.
            UnavailableError: There was no usable answer within the time budget.
        """
        found = self.get_version(name, version, version_name=version_name, stage=stage)
        return self._artifact(found, destination)

    def to_aiplatform(
        self,
        name: str,
        version: str | int | ModelVersion = _names.DEFAULT_ALIAS,
        *,
        version_name: str | None = None,
        stage: Stage | str | None = None,
    ) -> Any:
        """That very version as a ``google.cloud.aiplatform.Model`` of Google's SDK, to deploy it, for example.

        It has this client's project, location, address and credentials, and nothing of what ``aiplatform.init`` was
        told; nor is that SDK's own state touched.

        Args:
            name: The model's name.
            version: The number of the version, an alias, or a `ModelVersion`. Defaults to the default version.
            version_name: The name that the version was registered with, instead of ``version``.
            stage: The stage the version is in, instead of ``version``.

        Raises:
            NotFoundError: There is no such model or version.
        """
        self._check_model(name)
        with self._verb() as vertex:
            return vertex.to_aiplatform(self.get_version(name, version, version_name=version_name, stage=stage))

    def get_version(
        self,
        name: str,
        version: str | int | ModelVersion = _names.DEFAULT_ALIAS,
        *,
        version_name: str | None = None,
        stage: Stage | str | None = None,
    ) -> ModelVersion:
        """Return one version of a model: the default one, or the one you name in one of three ways.

        Args:
            name: The model's name.
            version: The number of the version (``3`` or ``"3"``), an alias, or a `ModelVersion`, which is read again.
                Defaults to the default version.
            version_name: The name that the version was registered with, instead of ``version``. If several versions
                have it, the newest is returned.
            stage: The stage the version is in, instead of ``version``. If several versions are in it, the one that
                entered last is returned.

        Raises:
            InvalidArgumentError: More than one of the three is given.
            NotFoundError: No such model or version exists.
        """
        self._check_model(name)
        if (version != _names.DEFAULT_ALIAS) + (version_name is not None) + (stage is not None) > 1:
            raise InvalidArgumentError("Give one of version, version_name and stage.")
        if version_name is not None:
            wanted = _names.check_text("version_name", version_name, 128)
            with self._verb() as vertex:
                return vertex.find(name, lambda model: vertex.read_named(model, wanted))[1]
        if stage is not None:
            return self._in_stage(name, _stages.check_stage(stage))
        if (reference := _names.version_reference(_number_of(name, version))) is None:
            raise NotFoundError(
                f"{name!r} has no version {version!r}, nor could it have: a version is its number (3 or '3') or an "
                "alias (letters, digits and dashes). A version's name is asked for with version_name=."
            )
        with self._verb() as vertex:
            return vertex.find(name, lambda model: vertex.read(model, reference))[1]

    def _in_stage(self, name: str, stage: Stage) -> ModelVersion:
        """Return the version that entered a stage last, of those that are in it."""
        found = max(self.list_versions(name, stage=stage), key=_promotion.claim, default=None)
        if found is None:
            raise NotFoundError(
                f"The model {name!r} has no version in {stage}. set_stage({name!r}, ..., Stage.{stage.name}) puts one "
                "there.",
                resource=name,
            )
        return found

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
    ) -> Listing[ModelVersion]:
        """List the versions of a model, newest first, lazily. At a prompt or in a notebook the list shows as a table.

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
            has = version.metadata
            return (
                (chosen is None or version.stage is chosen)
                and all(key in has and _labels.same(has[key], value) for key, value in wanted.items())
                and (uri is None or version.artifact_uri.rstrip("/") == uri)
                and (after is None or version.created_at > after)
                and (before is None or version.created_at < before)
            )

        def found() -> Generator[ModelVersion, None, None]:
            with contextlib.closing(self._vertex.every_version(name)) as listed:
                for versions in listed:
                    yield from filter(meets, reversed(versions) if oldest_first else versions)

        return Listing(_first(most, found()), ModelVersion)

    def latest_version(self, name: str, *, stage: Stage | str | None = None) -> ModelVersion | None:
        """Return the newest version of a model, or the newest in a stage.

        Args:
            name: The model's name.
            stage: Only versions in that stage. Defaults to every version.

        Returns:
            The version, or None if the model has no such version.

        Raises:
            InvalidArgumentError: No model can have that name, or there is no such stage; nothing was sent.
            NotFoundError: There is no such model. The message suggests names that are close.
        """
        self._check_model(name)
        return next(self.list_versions(name, stage=stage, limit=1), None)

    def update_version(
        self,
        name: str,
        version: str | int | ModelVersion,
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
        reference = _names.check_reference(_number_of(name, version))
        if description is not None:
            _names.check_text("description", description)
        added = _labels.check_metadata({} if metadata is None else metadata)
        removed = tuple(_strings("remove_metadata", remove_metadata))
        chosen = None if stage is None else _stages.check_stage(stage)
        if both := sorted(added.keys() & set(removed)):
            raise InvalidArgumentError(f"metadata sets what remove_metadata takes out: {', '.join(map(repr, both))}.")
        if description is None and not added and not removed and chosen is None:
            return self.get_version(name, version)

        def change(current: ModelVersion) -> _resources.Change:
            if not added and not removed and chosen is None:
                return _resources.Change(labels=None, description=description)
            notes = {} if chosen is None else self._promoter.notes(chosen, current)
            room = self._promoter.room() if added else {}
            labels = _labels.write(current.labels, metadata=added, remove=removed, notes=notes, room=room)
            if added:
                _labels.check_room(labels, room)
            return _resources.Change(labels=labels, description=description)

        with self._verb() as vertex:
            model, current = vertex.find(name, lambda model: vertex.read(model, reference))
            return vertex.change(model, current, change, adds=bool(added))

    def set_stage(
        self,
        name: str,
        version: str | int | ModelVersion,
        stage: Stage | str,
        *,
        archive_existing: bool = False,
        make_default: bool = False,
    ) -> ModelVersion:
        """Put a version in a stage and return it.

        With ``archive_existing=True`` the version enters the stage before the others leave it, so the stage is never
        empty. If two versions are promoted at once, the later one stays and the other is archived; the stage of the
        version that's returned says which. If a call is cut off, call it again to finish it.

        Args:
            name: The model's name.
            version: The number of the version, an alias, or a `ModelVersion`.
            stage: A `Stage`, or its name in any case.
            archive_existing: Archive the other versions in that stage, which is Staging or Production.
            make_default: Make it the default version too, so what Vertex serves by default is what's in the stage.

        Raises:
            InvalidArgumentError: An argument isn't valid. Nothing was sent.
            NotFoundError: No such model or version exists.
            ConflictError: A label ``stage`` on the model itself hides the version's, or a version in the stage has so
                many labels from others that it can't be archived.
        """
        chosen = _stages.check_stage(stage)
        _stages.check_exclusive(chosen, archive_existing=archive_existing)
        if not archive_existing:
            changed = self.update_version(name, version, stage=chosen)
        else:
            self._check_model(name)
            reference = _names.check_reference(_number_of(name, version))
            with self._verb() as vertex:
                model, current = vertex.find(name, lambda model: vertex.read(model, reference))
                changed = self._promoter.promote(model, current.version, chosen)
        if make_default and changed.stage is chosen and not changed.is_default:
            return self.set_default(name, changed)
        return changed

    def rollback(self, name: str, *, stage: Stage | str = Stage.PRODUCTION) -> Rollback:
        """Put the version that was in a stage before back into it, and archive the one that's there now.

        The stage is never empty meanwhile, and if the call is cut off, calling it again finishes it. Rolling back
        twice goes back two steps: a version that comes back takes what came after it off the history.

        Args:
            name: The model's name.
            stage: Staging or Production.

        Returns:
            What was restored, and what it replaced.

        Raises:
            InvalidArgumentError: An argument isn't valid. Nothing was sent.
            NotFoundError: No such model exists, nothing is in the stage, or nothing was in it before.
            HistoryUnknownError: The versions don't remember what was in the stage before, or it may have been a
                version that is deleted. Choose a version and use `set_stage`.
            ConflictError: Another promotion was faster.
        """
        chosen = _stages.check_stage(stage)
        _stages.check_exclusive(chosen, archive_existing=True)
        self._check_model(name)
        with self._verb() as vertex:
            model, versions = vertex.find(name, vertex.versions)
            listed = {version.version: version for version in versions}
            while True:
                current, previous = _history.before_current(listed.values(), chosen, name=name)
                # Lists may lag: decide from what a point read of both says.
                fresh = {version.version: vertex.read(model, version.version) for version in (current, previous)}
                if all(listed[number].etag == version.etag for number, version in fresh.items()):
                    break
                listed |= fresh
            restored = self._promoter.promote(model, previous.version, chosen, restored=True)
            if restored.stage is not chosen:
                raise ConflictError(
                    f"Another version of {name!r} entered {chosen} while version {previous.version} was restored, so "
                    f"that one stays. Look at get_version({name!r}, stage=...) before you roll back again.",
                    resource=restored.resource_name,
                )
            return Rollback(stage=chosen, restored=restored, replaced=vertex.read(model, current.version))

    def stage_history(self, name: str, version: str | int | ModelVersion | None = None) -> StageHistory:
        """Return the stage changes that a model's versions remember, newest first.

        Each version remembers at least its latest 12 changes that were made through this package, and takes its
        history with it when it's deleted.

        Args:
            name: The model's name.
            version: The number of a version, an alias, or a `ModelVersion`. Defaults to all versions.

        Returns:
            The changes. ``complete`` says whether older ones were dropped or another tool changed a stage.

        Raises:
            InvalidArgumentError: The name isn't valid. Nothing was sent.
            NotFoundError: No such model or version exists.
        """
        self._check_model(name)
        versions = self.list_versions(name) if version is None else [self.get_version(name, version)]
        return _history.stage_history(versions)

    def version_at(self, name: str, when: dt.datetime, *, stage: Stage | str = Stage.PRODUCTION) -> ModelVersion | None:
        """Return the version that was in a stage at a time, or None if none was.

        If several versions were in the stage, that's the one that entered last. The record shows the version as it is
        now.

        Args:
            name: The model's name.
            when: The time, with a time zone.
            stage: The stage.

        Raises:
            InvalidArgumentError: ``when`` has no time zone or lies in the future, or there's no such stage.
            NotFoundError: No such model exists.
            HistoryUnknownError: The history doesn't prove an answer: changes were dropped, another tool changed a
                stage, or a version that's deleted may have been in the stage. The message says which.
        """
        self._check_model(name)
        chosen = _stages.check_stage(stage)
        moment = _aware("when", when)
        if moment is None or moment > self._now():
            raise InvalidArgumentError(f"when={when!r} isn't a time in the past. Give an aware datetime.")
        return _history.version_at(self.list_versions(name), moment, chosen)

    def best_version(
        self,
        name: str,
        metric: str,
        *,
        direction: Literal["max", "min"] = "max",
        stage: Stage | str | None = None,
    ) -> ModelVersion:
        """Return the version whose metric is best.

        Args:
            name: The model's name.
            metric: The metadata key of the metric. Versions where it's missing or not a number are left out.
            direction: ``"max"`` if higher is better, ``"min"`` if lower is. Of equal versions the newest is returned.
            stage: Only consider versions in this stage.

        Raises:
            InvalidArgumentError: An argument isn't valid.
            NotFoundError: No such model exists, or no version has the metric.
        """
        self._check_model(name)
        _names.check_text("metric", metric)
        if direction not in {"max", "min"}:
            raise InvalidArgumentError(f"direction={direction!r} is neither 'max' nor 'min'.")
        sign = 1 if direction == "max" else -1
        measured = [
            version
            for version in self.list_versions(name, stage=stage)
            if isinstance(value := version.metadata.get(metric), (int, float)) and not isinstance(value, bool)
        ]
        if not measured:
            where = "" if stage is None else f" in {_stages.check_stage(stage)}"
            raise NotFoundError(f"No version of {name!r}{where} has a number under {metric!r}.", resource=name)
        return max(measured, key=lambda version: (sign * version.metadata[metric], int(version.version)))

    def diff(self, name: str, a: str | int | ModelVersion, b: str | int | ModelVersion) -> VersionDiff:
        """Return what differs between two versions of a model.

        Args:
            name: The model's name.
            a: The number of a version, an alias, or a `ModelVersion`.
            b: The same for the other version.

        Raises:
            NotFoundError: No such model or version exists.
        """
        return _history.diff(self.get_version(name, a), self.get_version(name, b))

    def add_aliases(self, name: str, version: str | int | ModelVersion, aliases: Iterable[str]) -> ModelVersion:
        """The version, with these aliases; one that another version holds moves here.

        Raises:
            InvalidArgumentError: An alias could be none; nothing was sent.
            NotFoundError: There is no such model or version.
        """
        added = [_names.check_alias(alias) for alias in _strings("aliases", aliases)]
        return self._merge_aliases(name, version, add=added)

    def remove_aliases(self, name: str, version: str | int | ModelVersion, aliases: Iterable[str]) -> ModelVersion:
        """The version, without these aliases; one that it does not hold is no error.

        Raises:
            InvalidArgumentError: An alias could be none, or is ``default``, which some version always holds.
            NotFoundError: There is no such model or version.
        """
        removed = [_names.check_alias_to_remove(alias) for alias in _strings("aliases", aliases)]
        if _names.DEFAULT_ALIAS in removed:
            raise InvalidArgumentError(
                "The alias 'default' cannot be taken away, for a model always has a default version. "
                "Move it to another version: set_default(name, version)."
            )
        return self._merge_aliases(name, version, remove=removed)

    def set_default(self, name: str, version: str | int | ModelVersion) -> ModelVersion:
        """The version, as the model's default one.

        Raises:
            NotFoundError: There is no such model or version.
        """
        return self._merge_aliases(name, version, add=[_names.DEFAULT_ALIAS])

    def _merge_aliases(
        self, name: str, version: str | int | ModelVersion, *, add: Collection[str] = (), remove: Collection[str] = ()
    ) -> ModelVersion:
        self._check_model(name)
        reference = _names.check_reference(_number_of(name, version))
        with self._verb() as vertex:
            model, current = vertex.find(name, lambda model: vertex.read(model, reference))
            return vertex.merge_aliases(model, current, add=add, remove=remove)

    def delete_version(self, name: str, version: str | int | ModelVersion) -> None:
        """Delete a version; the last version of a model goes with its model, and that is logged as a warning.

        If Vertex refuses to delete the default version, ``default`` moves to the newest other version first. It moves
        back if Vertex still refuses and nobody has moved it since. Before a model is deleted with its last version,
        that version is marked, and `register_version` waits for the outcome. Other tools don't know the mark, and
        Vertex has no conditional delete: what they upload in the moment before the model is deleted goes with it.

        Raises:
            NotFoundError: There is no such model or version.
            ConflictError: Vertex refuses, because the version is deployed.
        """
        self._check_model(name)
        reference = _names.check_reference(_number_of(name, version))
        with self._verb() as vertex:
            model, current = vertex.find(name, lambda model: vertex.read(model, reference))
            _deletion.delete_version(vertex, model, current)

    def prune(self, name: str, *, keep: int, dry_run: bool = False) -> Pruned:
        """Delete old versions and return what was deleted and why the rest was kept.

        A version stays if it's one of the newest ``keep``, is in Staging or Production, has an alias (``default``
        among them), or is deployed.

        Args:
            name: The model's name.
            keep: How many of the newest versions to keep; at least 1.
            dry_run: Delete nothing, and return what would be deleted.

        Raises:
            InvalidArgumentError: ``keep`` isn't a positive number.
            NotFoundError: No such model exists.
            ConflictError: Vertex refuses to delete a version. Versions deleted before that are gone.
        """
        if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
            raise InvalidArgumentError(f"keep={keep!r} isn't a positive number of versions.")
        self._check_model(name)
        with self._verb() as vertex:
            model, versions = vertex.find(name, vertex.versions)
            return _deletion.prune(vertex, model, versions, keep, dry_run=dry_run)

    # --- models -------------------------------------------------------------------------------------------------------

    def delete_model(self, name: str) -> None:
        """Delete a model with all its versions.

        Raises:
            NotFoundError: There is no such model.
            ConflictError: Vertex refuses, because a version is deployed.
        """
        self._check_model(name)
        with self._verb() as vertex:
            _deletion.delete_model(vertex, *vertex.find(name, vertex.read_model))

    def get_model(self, name: str) -> RegisteredModel:
        """The model of that name.

        Raises:
            NotFoundError: There is none.
            AmbiguousNameError: There are several.
        """
        self._check_model(name)
        with self._verb() as vertex:
            return vertex.find(name, vertex.read_model)[1]

    def list_models(
        self, *, labels: Mapping[str, str] | None = None, limit: int | None = None
    ) -> Listing[RegisteredModel]:
        """List the models, newest first, lazily. At a prompt or in a notebook the list shows as a table.

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

        def found() -> Generator[RegisteredModel, None, None]:
            yield from (model for model in self._vertex.models() if wanted.items() <= model.labels.items())

        return Listing(_first(most, found()), RegisteredModel)

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

        with self._verb() as vertex:
            model, current = vertex.find(name, vertex.read_model)
            return vertex.update_model(model, current, labels=own, description=description)

    def duplicates(self) -> dict[str, tuple[str, ...]]:
        """The names that several models bear, each with the resource names of its models, the newest first."""
        bearers: dict[str, list[str]] = {}
        for model in self.list_models():
            bearers.setdefault(model.name, []).append(model.resource_name)
        return {name: tuple(resources) for name, resources in bearers.items() if len(resources) > 1}

    # --- connecting ---------------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosedError("This RegistryClient is closed. Create a new one.")

    def _check_model(self, name: str) -> None:
        self._check_open()
        given = _names.parse_model_name(name) if isinstance(name, str) else None
        if given is None:
            _names.check_name(name)
        elif given.location != self._location:
            raise InvalidArgumentError(
                f"{name} is in {given.location}, and this client is for {self._location}. Make one for that location."
            )

    @contextlib.contextmanager
    def _verb(self) -> Generator[_resources.Resources, None, None]:
        """Give the models and versions to a verb, whose calls share one budget."""
        vertex = self._vertex
        with vertex.rpc.verb():
            yield vertex

    @property
    def _vertex(self) -> _resources.Resources:
        with self._lock:
            self._check_open()
            if self._connected is None:
                self._connected = self._connect()
            return self._connected

    def _connect(self) -> _resources.Resources:
        at = self._endpoint
        credentials, project = (None, None) if at.anonymous else _credentials.load(at.credentials)
        self._project = self._project or project or (_LOCAL_PROJECT if at.emulated else None)
        if self._project is None:
            raise InvalidArgumentError(
                "No project is known. Give RegistryClient(project=...), or set GOOGLE_CLOUD_PROJECT."
            )
        rpc = _rpc.Connection(at, credentials, self._user_agent, self._retry, self._check_open)
        return _resources.Resources(rpc, self._project, self._location, on_vertex=at.on_vertex)

    @property
    def _promoter(self) -> _promotion.Promoter:
        return _promotion.Promoter(self._vertex, self._managed_by, self._actor, self._now)

    # --- artifacts, and what serves them ------------------------------------------------------------------------------

    @property
    def _files(self) -> artifacts.Storage:
        return self._opened.get()

    def _open_storage(self) -> artifacts.Storage:
        self._check_open()
        return artifacts.Storage(project=self._project, credentials=self._storage_credentials(), retry=self._retry)

    def _staging(self, staging_bucket: str | None) -> str | None:
        return self._staging_bucket if staging_bucket is None else _names.check_staging_bucket(staging_bucket)

    def _send(self, local: artifacts.LocalDirectory, name: str, staging: str | None, image: str) -> str:
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
        if asked is None and self._endpoint.emulated and not os.environ.get(artifacts.EMULATOR):
            return
        try:
            names = self._files.list_names(source) if asked else self._probe_source(source)
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

    def _probe_source(self, source: str) -> tuple[str, ...]:
        """Return what is in a directory, if that takes no longer than a moment; the caller didn't ask for it."""
        retry = attrs.evolve(self._retry, call_timeout=min(self._retry.call_timeout, _PROBE_TIMEOUT))
        files = artifacts.Storage(project=self._project, credentials=self._storage_credentials(), retry=retry)
        with contextlib.closing(files):
            return files.list_names(source)

    def _storage_credentials(self) -> Any:
        """What Cloud Storage is asked with; where none were given the default ones are found there."""
        given = self._endpoint.credentials
        return None if given is None else _credentials.load(given)[0]

    def _container(
        self, container: ServingContainer | str | None, local: artifacts.LocalDirectory | None, *, gpu: bool
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

    def _image_for(self, local: artifacts.LocalDirectory | None, today: dt.date) -> tuple[str, str | None]:
        """The image of the scikit-learn that wrote the model, or the newest one, and what to say of that."""
        newest = _serving.default_image(self._location)
        paths = {} if local is None else {file.name: file.path for file in local.files}
        written_by = _servable.sklearn_version(paths)
        if written_by is None:
            return newest, None
        if (image := _serving.image_for_sklearn(written_by, self._location, today=today)) is not None:
            return image, None
        return newest, (
            f"Google has no serving image for scikit-learn {written_by}, which wrote the model; {newest} may not load "
            "it. Name an image of your own with container=, or write the model with an earlier version."
        )


def _pickles(value: Any) -> bool:
    try:
        pickle.dumps(value)
    except Exception:  # noqa: BLE001  # whatever a class of somebody else's raises when it's asked
        return False
    return True


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
    return " ".join(filter(None, [first, f"vertex-registry/{__version__}"]))


def _local(
    source: str | os.PathLike[str], staging: str | None, *, follow_links: bool
) -> artifacts.LocalDirectory | None:
    """Return the folder to upload, or None if the source is in Cloud Storage or can't be uploaded."""
    if isinstance(source, str) and _names.meant_uri(source) is not None and not os.path.exists(source):  # noqa: PTH110
        return None  # `check_source` says how to write it
    if staging is None or not source or not isinstance(source, (str, os.PathLike)):
        return None
    path = _names.file_path(source) if isinstance(source, str) else source
    return None if isinstance(path, str) and "://" in path else artifacts.scan(path, follow_links=follow_links)


def _number_of(name: str, version: str | int | ModelVersion) -> str | int:
    """Return what a version was named by, and the number of a record.

    Raises:
        InvalidArgumentError: The record is a version of another model.
    """
    if not isinstance(version, ModelVersion):
        return version
    given = _names.parse_model_name(name)
    same = name == version.name if given is None else version.model_resource_name.endswith(f"/models/{given.model_id}")
    if not same:
        raise InvalidArgumentError(f"Version {version.version} is a version of {version.name!r}, not of {name!r}.")
    return version.version


def _text_of(source: str | os.PathLike[str]) -> str:
    return os.fspath(source) if isinstance(source, os.PathLike) else source


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)


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


def _first(most: int | None, found: Generator[_T, None, None]) -> Generator[_T, None, None]:
    """At most so many; once there are enough, nothing more is asked for."""
    with contextlib.closing(found):
        yield from itertools.islice(found, most)


def _strings(what: str, values: Iterable[str]) -> list[str]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InvalidArgumentError(f"{what} is a list of strings, and not {values!r}.")
    listed = list(values)
    if not all(isinstance(value, str) for value in listed):
        raise InvalidArgumentError(f"{what} is a list of strings, and not {listed!r}.")
    return listed
