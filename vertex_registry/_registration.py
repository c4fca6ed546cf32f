"""Registering: an upload happens once, and the version that it makes is completed.

**An upload happens once.** It carries the alias of its request. When its answer is lost, the version that bears the
alias is looked for by a point read before anything is sent again, and so is an operation that is still running. A new
model is protected by its id as well, which a second upload would find taken. What cannot be known is said: whatever a
look fails for once something was sent, the error tells the request id that finds what was made.

**A version is complete when its labels name its request.** Whose layer the labels of an upload go to is not documented,
so an upload carries ``managed_by`` alone, and one update of the version, which is answered with the whole of it, writes
the rest. A registration that was cut off in between is found by the alias of its request, and finished.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

import attrs

from vertex_registry import _labels, _names, _stages, _wire
from vertex_registry._resources import Change, Model, overtaken, without
from vertex_registry._stages import Stage
from vertex_registry.errors import (
    AlreadyExistsError,
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
    import datetime as dt
    from collections.abc import Callable, Iterable, Iterator

    from vertex_registry._promotion import Promoter
    from vertex_registry._records import ModelVersion, ServingContainer
    from vertex_registry._resources import Resources
    from vertex_registry._waiting import Budget

#: The seconds after which an upload that was lost is looked for once more, and then sent again.
_ARRIVAL: Final = 1.0

#: How often a model is looked for before its id, taken by an upload that is not done, is tried again.
_LOOKS: Final = 4


@attrs.frozen(kw_only=True)
class Registration:
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
    managed_by: str
    request_id: str

    @property
    def alias(self) -> str:
        """The alias that the version is found again by."""
        return _names.hidden_alias("request", self.request_id)


@attrs.frozen
class Registrar:
    """Who makes versions, in models that are there and in new ones.

    Attributes:
        resources: The models and versions.
        promoter: Who puts them in their stages.
    """

    resources: Resources
    promoter: Promoter

    def register(self, registration: Registration, check_source: Callable[[], None] | None) -> ModelVersion:
        """The version that the request has made before, or makes now.

        Args:
            registration: What is to be registered.
            check_source: Where somebody may have made the request before: what looks into the source if nobody has,
                for what was registered before is given, whatever has become of its artifact. None where it is new.
        """
        self._labels_of(registration, seen=())  # they fit, with all that is ours, or nothing is uploaded
        model = self.resources.known(registration.name) or self.resources.listed(registration.name)
        if check_source is not None:
            # Somebody may have made it before us, even a model that no list shows yet.
            place = model or self.resources.by_id(registration.name)
            if place is not None:
                try:
                    version = self._find_made(place.resource, registration)
                except (PermissionDeniedError, UnavailableError) as error:
                    if error.code not in {"PERMISSION_DENIED", "UNIMPLEMENTED"}:
                        raise
                    version = None  # who may not see what is running has looked at what is there
                if version is not None:
                    return self._finish(place, version, registration)
            check_source()
        if registration.archive_existing and model is not None:
            with contextlib.suppress(NotFoundError):  # a model that is gone is found out by the upload
                self.promoter.check_archivable(model, self.resources.versions(model), registration.stage)
        return self._upload(registration, model)

    def _find_made(self, resource: str, registration: Registration) -> ModelVersion | None:
        """The version that the request made or is making: what is running now is waited for.

        Which upload an operation belongs to is not to be seen, so that those of others are waited for as well.
        """
        rpc = self.resources.rpc
        if (version := self.resources.look(resource, registration.alias)) is not None:
            return version
        budget = rpc.operation_budget()
        running = False
        for operation in self.resources.running(resource):
            running = True
            try:
                rpc.wait(operation, _wire.operation, budget)
            except (OperationFailedError, NotFoundError):
                continue
            except OperationTimeoutError as late:
                raise _late(registration, late) from late.__cause__
        return self.resources.look(resource, registration.alias) if running else None

    def _finish(self, model: Model, version: ModelVersion, registration: Registration) -> ModelVersion:
        """The version that the request made before, completed where that was cut off."""
        self.resources.remember(registration.name, model)
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
            return self.promoter.archive_others(model, version, yielding=True)
        return version

    def _upload(  # noqa: C901, PLR0912  # the ways that an upload can end stand side by side
        self, registration: Registration, model: Model | None
    ) -> ModelVersion:
        """Upload until there is a version, and only one."""
        rpc = self.resources.rpc
        calls, race = rpc.budget(), rpc.operation_budget()
        number = tries = waits = 0
        while True:
            resource = self.resources.resource_of(registration.name, number) if model is None else model.resource
            try:
                made_in, version = self._upload_once(registration, model, resource)
            except (AlreadyExistsError, OperationFailedError) as taken:
                if taken.code != "ALREADY_EXISTS" or model is not None:
                    raise
                with _looking(registration, resource, taken):
                    bearer = self._await_model(registration, resource, race, waits)
                    same = bearer is not None and bearer.name == registration.name
                    ours = self.resources.look(resource, registration.alias) if same else None
                waits += _LOOKS
                if bearer is None:
                    continue  # perhaps the upload that had taken the id has failed, and the id is free
                if bearer.name != registration.name:
                    number += 1  # the id belongs to a model that was given another name since
                    continue
                if ours is not None:
                    return self._finish(bearer, ours, registration)
                model = self.resources.remember(registration.name, bearer)
            except NotFoundError:
                if model is None:
                    raise
                # The model was deleted since its name was looked up.
                self.resources.forget(registration.name)
                found = self.resources.listed(registration.name)
                if found == model and not rpc.pause(calls, tries):
                    raise
                tries += 1
                model = found
            except UnavailableError as lost:
                if lost.code == "UNIMPLEMENTED":
                    raise
                ours = self._find_lost(registration, model, resource, lost, calls=calls, tries=tries)
                if ours is not None:
                    return self._finish(model or Model(resource, registration.name), ours, registration)
                tries += 1
            else:
                self.resources.remember(registration.name, made_in)
                return self._complete(made_in, version, registration)

    def _upload_once(self, registration: Registration, model: Model | None, resource: str) -> tuple[Model, str]:
        """The model and the version that one upload made."""
        rpc = self.resources.rpc
        request = _wire.upload(
            self.resources.parent,
            name=registration.name if model is None else model.name,
            source=registration.source,
            container=registration.container,
            aliases=registration.aliases,
            labels={_labels.MANAGED_BY: registration.managed_by},
            description=registration.description,
            model_description=registration.model_description if model is None else None,
            model_id="" if model is not None else resource.rpartition("/")[2],
            parent_model="" if model is None else resource,
        )
        made_in = model or Model(resource, registration.name)
        operation = rpc.call("UploadModel", request, resource)
        try:
            _, version = _wire.read_upload(rpc.wait(operation, _wire.operation, rpc.operation_budget()))
        except OperationTimeoutError as late:
            raise _late(registration, late) from late.__cause__
        except OperationFailedError:
            raise
        except RegistryError as lost:
            # How the operation ended is not known; the version that it makes may be there to tell.
            version = ""
            cause: RegistryError | None = lost
        else:
            cause = None
        if not version:
            with contextlib.suppress(RegistryError):
                if (ours := self.resources.look(resource, registration.alias)) is not None:
                    return made_in, ours.version
            raise unknown(registration, operation.name, str(cause or "It does not name its version.")) from cause
        return made_in, version

    def _await_model(self, registration: Registration, resource: str, race: Budget, waits: int) -> Model | None:
        """The model that has taken an id, once its first upload is done; None when it is time to try the id again."""
        if (bearer := self.resources.peek(resource)) is not None:
            return bearer
        for look in range(_LOOKS):
            if not self.resources.rpc.pause(race, waits + look):
                late = OperationTimeoutError(
                    f"The id of {resource} is taken by an upload that is not done after {race.seconds:g} s. "
                    "Retry(operations=...) sets how long to wait.",
                    resource=resource,
                )
                raise _late(registration, late)
            if (bearer := self.resources.peek(resource)) is not None:
                return bearer
        return None

    def _find_lost(
        self,
        registration: Registration,
        model: Model | None,
        resource: str,
        lost: UnavailableError,
        *,
        calls: Budget,
        tries: int,
    ) -> ModelVersion | None:
        """The version that a lost upload made; None where it can be sent again.

        A request that was cut off on its way may still arrive. What can be done is to look, to wait, and to look again
        before it is sent a second time; where its deadline passed, nobody knows how long that would take. The id of a
        new model lets no second upload through.
        """
        began = calls.spent()
        with _looking(registration, resource, lost):
            if model is None:
                found = self.resources.look(resource, registration.alias)
            else:
                found = self._find_made(resource, registration)
        if found is not None:
            return found
        if model is not None and lost.code == "DEADLINE_EXCEEDED":
            raise unknown(registration, resource, f"{lost} It may still be on its way.") from lost
        calls.seconds += calls.spent() - began  # waiting for what is running is no call
        if not self.resources.rpc.pause(calls, tries, max(_ARRIVAL, lost.retry_after)):
            if lost.code == "RESOURCE_EXHAUSTED":
                raise lost  # it was refused, and nothing of it is to be found
            raise unknown(registration, resource, str(lost)) from lost
        if model is None:
            return None
        with _looking(registration, resource, lost):
            return self.resources.look(resource, registration.alias)

    def _complete(
        self, model: Model, version: str, registration: Registration, current: ModelVersion | None = None
    ) -> ModelVersion:
        """Write everything that belongs to the version; the call that makes it whole.

        A version that was just made is written without being read first. As soon as somebody else may have been there,
        it is read, and what they have written stands.
        """
        resource = model.at(version)
        try:
            whole = self._write_whole(model, version, registration, current)
            return self.promoter.archive_others(model, whole) if registration.archive_existing else whole
        except UnavailableError as lost:
            raise unknown(
                registration, resource, f"The version {resource} was uploaded, and could not be completed: {lost}"
            ) from lost
        except RegistryError as error:
            finish = (
                f"register_version with request_id={registration.request_id!r} gives it, and writes what is missing."
            )
            error.args = (f"{error} The version {resource} was uploaded; {finish}",)
            raise

    def _write_whole(
        self, model: Model, version: str, registration: Registration, current: ModelVersion | None
    ) -> ModelVersion:
        rpc = self.resources.rpc
        budget, tries = rpc.budget(), 0
        seen = (
            [other.stage_changed_at for other in self.resources.versions(model)]
            if registration.archive_existing
            else []
        )
        while True:
            try:
                if current is None:
                    change = Change(labels=self._labels_of(registration, seen))
                    return self.resources.write_unread(model, version, change)
                current, change = self._change_beside(model, registration, seen, current)
                return self.resources.write(model, current, change, once=True)
            except (UnavailableError, ConflictError) as failure:
                if failure.code is None:
                    raise
                again = self.resources.read(model, version)
                if _is_whole(again, registration):
                    if not (doubtful := _doubtful(again, registration)):
                        return again
                    # It was written, and somebody has changed it since, or the model hides it.
                    left = {key: registration.metadata[key] for key in doubtful}
                    registration = attrs.evolve(registration, metadata=left)
                final = isinstance(failure, ConflictError) and not overtaken(failure, current, again)
                if final or not rpc.pause(budget, tries, getattr(failure, "retry_after", 0.0)):
                    raise
                current = again
                tries += 1

    def _labels_of(
        self,
        registration: Registration,
        seen: Iterable[dt.datetime | None],
        current: ModelVersion | None = None,
    ) -> dict[str, str]:
        """All the labels that the version is complete with; what is there already stands."""
        notes: dict[str, str | None] = {
            _labels.MANAGED_BY: registration.managed_by,
            _labels.REQUEST: _names.fingerprint(registration.request_id),
            _labels.VERSION_NAME: registration.version_name,
        }
        if current is not None and current.stage_changed_at is not None:
            pass  # somebody has put it in a stage since
        elif registration.stage is Stage.NONE:
            notes[_stages.STAGE_LABEL] = Stage.NONE.label
        else:
            notes |= self.promoter.notes(registration.stage, None, seen=seen)
        there = () if current is None else current.metadata
        metadata = {key: value for key, value in registration.metadata.items() if key not in there}
        return _labels.write(
            {} if current is None else current.labels,
            metadata=metadata,
            notes=notes,
            room=self.promoter.room(registration.version_name),
        )

    def _change_beside(
        self, model: Model, registration: Registration, seen: Iterable[dt.datetime | None], current: ModelVersion
    ) -> tuple[ModelVersion, Change]:
        """The version as somebody may have changed it, and the change to all the labels that it is complete with.

        What others have written on the version stands; what the model says under a key that is registered does not
        count for it. Where it cannot be found out which of the two it is, because it does not fit into a pack, what is
        registered stands: the version was never complete, so that hardly anybody has written there, and a value that
        nobody asked for must not come back as if it had been registered.
        """
        if doubtful := _doubtful(current, registration):
            try:
                current = self.resources.own(model, current, doubtful)
            except InvalidArgumentError:
                current = without(current, doubtful)

        def change(version: ModelVersion) -> Change:
            return Change(labels=self._labels_of(registration, seen, version))

        return self.resources.fit(model, current, change)


def _is_whole(version: ModelVersion, registration: Registration) -> bool:
    """Whether everything has been written that belongs to the version."""
    written = _labels.read(version.labels).notes.get(_labels.REQUEST)
    return written == _names.fingerprint(registration.request_id)


def _doubtful(version: ModelVersion, registration: Registration) -> set[str]:
    """The keys under which another value is read than was registered, which may be the model's or the version's."""
    return {
        key
        for key in _labels.layered_keys(version.labels) & registration.metadata.keys() & version.metadata.keys()
        if not _labels.same(version.metadata[key], registration.metadata[key])
    }


@contextlib.contextmanager
def _looking(registration: Registration, resource: str, sent: RegistryError) -> Iterator[None]:
    """Let what is looked for be unknown where the look fails: it was sent, and that ended in this error."""
    try:
        yield
    except OperationTimeoutError:
        raise  # it tells the request id
    except RegistryError as error:
        raise unknown(registration, resource, f"{sent} Looking for it failed too: {error}") from error


def _late(registration: Registration, late: OperationTimeoutError) -> OperationTimeoutError:
    error = OperationTimeoutError(
        f"{late} A version of {registration.name!r} that it makes has neither its stage nor its metadata by then. Call "
        f"register_version again with request_id={registration.request_id!r}: it finds what was made, or makes it, and "
        "finishes it.",
        resource=late.resource,
        code=late.code,
    )
    error.request_id = registration.request_id
    return error


def unknown(registration: Registration, resource: str, what: str) -> StateUnknownError:
    """The error of a registration of which nobody can say whether it happened."""
    return StateUnknownError(
        f"It is not known whether the version of {registration.name!r} was made: {what} Call register_version again "
        f"with request_id={registration.request_id!r}: it finds what was made, or makes it.",
        resource=resource,
        request_id=registration.request_id,
    )
