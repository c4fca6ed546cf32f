"""Registering: an upload happens once, and the version that it makes is completed.

**A request makes one version.** Each upload carries two hidden aliases: that of its request, which moves to the
request's latest upload, and one of its own, which never moves and by which the version is known to be this upload's.
After a lost answer the request's alias is looked for before anything is sent again. Where a request has several
uploads, because two calls share its id or because a request that was given up arrives late, the lowest version stays:
whoever finds a lower one hands over its aliases and removes the higher one. That is the only direction, or two clients
could remove each other's.

**A version is complete when its labels name its request.** Whose layer the labels of an upload go to is not documented,
so an upload carries ``managed_by`` alone. The version is read by its own alias, and one update under the etag of that
read writes the rest: what others have written since the upload stands, and an update that arrives late is refused. The
caller's aliases are given after that, so that whoever finds the version by one finds it complete.

**A model may go with its last version.** Who deletes that version marks it, and looks for further versions once more
before the model goes; a registration looks for the mark after its upload. One of the two always sees the other.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final

import attrs

from vertex_registry import _labels, _names, _stages, _waiting, _wire
from vertex_registry._records import ModelVersion
from vertex_registry._resources import AliasedVersion, Change, Model, is_write_conflict, without_keys
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
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from vertex_registry._promotion import Promoter
    from vertex_registry._records import RegisteredModel, ServingContainer
    from vertex_registry._resources import Resources
    from vertex_registry._waiting import Budget

_LOG: Final = logging.getLogger("vertex_registry")

#: The seconds after which an upload that was lost is looked for once more, and then sent again.
_ARRIVAL_DELAY: Final = 1.0

#: How often a model is looked for before its id, taken by an upload that is not done, is tried again.
_POLLS_PER_TRY: Final = 4

#: How many versions between two numbers are read one by one; of more, those that the list shows are not.
_MAX_SINGLE_READS: Final = 32

#: How often a second upload is removed once more after a refusal: somebody may just have made it the default version.
_MAX_REFUSALS: Final = 3

#: The seconds after which a deletion of a model, which is marked just before it is sent, is done or was never sent.
_DELETION_TIME: Final = 120.0

#: How many of them are read at once.
_CONCURRENT_READS: Final = 8


@attrs.frozen(kw_only=True)
class Registration:
    """What is to be registered, checked and ready to be sent, as often as it takes.

    Attributes:
        aliases: The aliases that the caller gives the version, without ``default``.
        shared: Whether another call may be sending the same request.
    """

    name: str
    source: str
    container: ServingContainer
    aliases: tuple[str, ...]
    make_default: bool
    description: str | None
    model_description: str | None
    metadata: dict[str, Any]
    version_name: str | None
    stage: Stage
    archive_existing: bool
    managed_by: str
    request_id: str
    shared: bool

    @property
    def alias(self) -> str:
        """The alias of the request, which moves to its latest upload."""
        return _names.hidden_alias("request", self.request_id)

    def upload_aliases(self, own: str) -> list[str]:
        """Return the aliases that an upload carries, its own among them."""
        aliases = [self.alias, own, _names.NEWEST_ALIAS, _names.LIVE_ALIAS]
        if self.version_name is not None:
            aliases.append(_names.hidden_alias("name", self.version_name))
        if self.aliases:
            aliases.append(_names.pending_alias(own))
        if self.make_default:
            aliases.append(_names.DEFAULT_ALIAS)
        return aliases

    def own_alias(self, found: AliasedVersion) -> str:
        """Return the alias that only the upload of this version carries."""
        own = _names.find_upload_alias(found.aliases, self.alias)
        return self.alias if own is None else own[0]


@attrs.frozen
class _Upload:
    """An upload that is done: the model and the version that it made, and its own alias."""

    model: Model
    version: str
    alias: str
    base: int


class _ModelDeletedError(Exception):
    """The version went with its model, which somebody deleted with the version that was the last one before."""


class _VersionDeletedError(Exception):
    """The version is not there any more."""


@attrs.frozen
class Registrar:
    """Who makes versions, in models that are there and in new ones.

    Attributes:
        resources: The models and versions.
        promoter: Who puts them in their stages.
        new_id: What makes an id that no other upload has.
    """

    resources: Resources
    promoter: Promoter
    new_id: Callable[[], str]

    def register(self, registration: Registration, check_source: Callable[[], None] | None) -> ModelVersion:
        """Return the version that the request has made before, or makes now.

        Args:
            registration: What is to be registered.
            check_source: Where somebody may have made the request before: what looks into the source if nobody has,
                for what was registered before is given, whatever has become of its artifact. None where it is new.
        """
        self._complete_labels(registration, seen=())  # they fit, with all that is ours, or nothing is uploaded
        model, base = self._find_model(registration)
        if check_source is not None:
            found: AliasedVersion | None = None
            if model is not None:
                with ignore_forbidden():
                    found = self._find_earlier(model.resource, registration)
            if model is not None and found is not None:
                try:
                    return self._finish_earlier(model, found, registration)
                except _ModelDeletedError:
                    self.resources.forget(registration.name)
                    model, base = self._find_model(registration)
            check_source()
        if registration.archive_existing and model is not None:
            with contextlib.suppress(NotFoundError):  # a model that is gone is found out by the upload
                self.promoter.check_archivable(model, self.resources.list_versions(model), registration.stage)
        return self._upload(registration, model, base)

    # --- before the upload --------------------------------------------------------------------------------------------

    def _find_model(self, registration: Registration) -> tuple[Model | None, int]:
        """Return the model that the name means, if there is one, and the number that a new version is later than.

        What was remembered or listed is read before anything is uploaded to it: it may have been deleted or renamed.
        """
        if (found := self.resources.find_or_none(registration.name, self._read_newest)) is None:
            return None, 0
        model, newest = found
        return model, self._base_number(model, newest)

    def _read_newest(self, model: Model) -> ModelVersion | RegisteredModel:
        """Return the version of a model that was uploaded last, or the model if only other tools have uploaded."""
        return self.resources.find_version(model.resource, _names.NEWEST_ALIAS) or self.resources.read_model(model)

    def _base_number(self, model: Model, newest: ModelVersion | RegisteredModel) -> int:
        """Return the number of a version that is there before the request is looked for; a lower one does no harm."""
        if isinstance(newest, ModelVersion):
            return int(newest.version)
        # Only other tools have uploaded to the model, or the version that was uploaded last was deleted.
        return max((int(version.version) for version in self.resources.list_versions(model)), default=0)

    def _find_earlier(self, resource: str, registration: Registration) -> AliasedVersion | None:
        """Return the version that the request made or is making: what is running now is waited for."""
        if (found := self.resources.find_with_aliases(resource, registration.alias)) is not None:
            return found
        if not self._wait_for_running(resource, registration):
            return None
        return self.resources.find_with_aliases(resource, registration.alias)

    def _wait_for_running(self, resource: str, registration: Registration) -> bool:
        """Wait for the operations of a model that are running, and return whether there were any.

        Which upload an operation belongs to is not to be seen, so that those of others are waited for as well.
        """
        rpc = self.resources.rpc
        budget = rpc.operation_budget()
        running = False
        for operation in self.resources.running_operations(resource):
            running = True
            try:
                rpc.wait(operation, _wire.operation, budget)
            except (OperationFailedError, NotFoundError):
                continue
            except OperationTimeoutError as late:
                raise timeout_error(registration, late) from late.__cause__
        return running

    # --- the upload ---------------------------------------------------------------------------------------------------

    def _upload(  # noqa: C901, PLR0912  # the ways that an upload can end stand side by side
        self, registration: Registration, model: Model | None, base: int
    ) -> ModelVersion:
        """Upload until there is a version, and only one."""
        rpc = self.resources.rpc
        calls, race = rpc.budget(), rpc.operation_budget()
        number = tries = waits = 0
        while True:
            resource = self.resources.resource_of(registration.name, number) if model is None else model.resource
            try:
                made: _Upload | AliasedVersion | None = self._upload_once(registration, model, resource, base)
            except (AlreadyExistsError, OperationFailedError, NotFoundError) as refused:
                if model is not None and refused.code == "NOT_FOUND":
                    # The model was deleted since its name was looked up.
                    self.resources.forget(registration.name)
                    found, base = self._find_model(registration)
                    if found == model and not rpc.pause(calls, tries):
                        raise
                    tries += 1
                    model = found
                    continue
                if refused.code != "ALREADY_EXISTS" or model is not None:
                    raise
                with _unknown_if_lookup_fails(registration, resource, refused):
                    holder = self._wait_for_model(registration, resource, race, waits)
                    same = holder is not None and holder.name == registration.name
                    base = self._known_base(holder) if holder is not None and same else 0
                    made = self.resources.find_with_aliases(resource, registration.alias) if same else None
                waits += _POLLS_PER_TRY
                if holder is None:
                    continue  # perhaps the upload that had taken the id has failed, and the id is free
                if holder.name != registration.name:
                    number += 1  # the id belongs to a model that was given another name since
                    continue
                model = self.resources.remember(registration.name, holder)
            except UnavailableError as lost:
                if lost.code == "UNIMPLEMENTED":
                    raise
                made, base = self._find_after_loss(registration, model, resource, lost, calls=calls, tries=tries)
                # What was lost may still arrive, and is a second upload of the request if it is sent again.
                registration = attrs.evolve(registration, shared=True)
                tries += 1
            if made is None:
                continue
            try:
                if isinstance(made, AliasedVersion):
                    return self._finish_earlier(model or Model(resource, registration.name), made, registration)
                self.resources.remember(registration.name, made.model)
                return self._finish_upload(made, registration, created=model is None)
            except _ModelDeletedError as deleted:
                self.resources.forget(registration.name)
                if not rpc.pause(calls, tries):
                    raise self._deleted_error(registration, resource, registration.name) from deleted.__cause__
                tries += 1
                model, base = self._find_model(registration)

    def _upload_once(self, registration: Registration, model: Model | None, resource: str, base: int) -> _Upload:
        """Upload once, and return what was made."""
        rpc = self.resources.rpc
        own = _names.upload_alias(registration.alias, base, self.new_id())
        request = _wire.upload(
            self.resources.parent,
            name=registration.name if model is None else model.name,
            source=registration.source,
            container=registration.container,
            aliases=registration.upload_aliases(own),
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
            raise timeout_error(registration, late) from late.__cause__
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
                if (ours := self.resources.find_version(resource, own)) is not None:
                    return _Upload(made_in, ours.version, own, base)
            raise state_unknown(registration, operation.name, str(cause or "It does not name its version.")) from cause
        return _Upload(made_in, version, own, base)

    def _wait_for_model(self, registration: Registration, resource: str, race: Budget, waits: int) -> Model | None:
        """Return the model that has taken an id, once its first upload is done; None to try the id again."""
        if (holder := self.resources.find_model(resource)) is not None:
            return holder
        for look in range(_POLLS_PER_TRY):
            if not self.resources.rpc.pause(race, waits + look):
                late = OperationTimeoutError(
                    f"The id of {resource} is taken by an upload that is not done after {race.seconds:g} s. "
                    "Retry(operation_timeout=...) sets how long to wait.",
                    resource=resource,
                )
                raise timeout_error(registration, late)
            if (holder := self.resources.find_model(resource)) is not None:
                return holder
        return None

    def _known_base(self, model: Model) -> int:
        """Return the number of a version that is there, or 0, which is lower than any."""
        try:
            return self._base_number(model, self._read_newest(model))
        except NotFoundError:
            return 0

    def _find_after_loss(
        self,
        registration: Registration,
        model: Model | None,
        resource: str,
        lost: UnavailableError,
        *,
        calls: Budget,
        tries: int,
    ) -> tuple[AliasedVersion | None, int]:
        """Return the version that a lost upload made, or None if it can be sent again, and the base for that.

        A request that was cut off on its way may still arrive. What can be done is to look, to wait, and to look again
        before it is sent a second time; where its deadline passed, nobody knows how long that would take. The id of a
        new model lets no second upload through.
        """
        began = calls.spent()
        with _unknown_if_lookup_fails(registration, resource, lost):
            if model is None:
                found = self.resources.find_with_aliases(resource, registration.alias)
            else:
                found = self._find_earlier(resource, registration)
        if found is not None:
            return found, 0
        if model is not None and lost.code == "DEADLINE_EXCEEDED":
            raise state_unknown(registration, resource, f"{lost} It may still be on its way.") from lost
        calls.seconds += calls.spent() - began  # waiting for what is running is no call
        if not self.resources.rpc.pause(calls, tries, max(_ARRIVAL_DELAY, lost.retry_after)):
            if lost.code == "RESOURCE_EXHAUSTED":
                raise lost  # it was refused, and nothing of it is to be found
            raise state_unknown(registration, resource, str(lost)) from lost
        if model is None:
            return None, 0
        with _unknown_if_lookup_fails(registration, resource, lost):
            base = self._known_base(model)
            return self.resources.find_with_aliases(resource, registration.alias), base

    # --- one version for each request ---------------------------------------------------------------------------------

    def _finish_upload(self, made: _Upload, registration: Registration, *, created: bool) -> ModelVersion:
        """Return the complete version of the request, which is a lower one if there is one."""
        if registration.shared and int(made.version) != made.base + 1:
            # Nobody can have uploaded between the base and the number that follows it.
            if (found := self._read_upload(made.model, made.alias, made.version, registration)) is None:
                return self._find_replacement(made.model, made.version, registration, model_deleted=False)
            return self._finish_earlier(made.model, found, registration)
        model_deleted = not created and self._wait_for_deletion(made.model, made.alias, registration)
        found = self._read_upload(made.model, made.alias, made.version, registration)
        if found is None:
            return self._find_replacement(made.model, made.version, registration, model_deleted=model_deleted)
        return self._complete(made.model, found, registration)

    def _finish_earlier(self, model: Model, found: AliasedVersion, registration: Registration) -> ModelVersion:
        """Return the version that the request made before, completed where that was cut off."""
        self.resources.remember(registration.name, model)
        with unknown_if_completion_fails(registration, model.at(found.version.version)):
            found, denied = self._keep_lowest(model, found, registration)
        version = found.version
        if version.artifact_uri.rstrip("/") != registration.source.rstrip("/"):
            raise ConflictError(
                f"The request id {registration.request_id!r} has registered version {version.version} of "
                f"{registration.name!r} with another source, {version.artifact_uri}. "
                "Give each source its own request id.",
                resource=version.resource_name,
            )
        if not is_complete(version, registration):
            own = registration.own_alias(found)
            model_deleted = self._wait_for_deletion(model, own, registration)
            fresh = self._read_upload(model, own, version.version, registration)
            if fresh is None:
                return self._find_replacement(model, version.version, registration, model_deleted=model_deleted)
            found = fresh
        complete = self._complete(model, found, registration)
        if denied is not None:
            raise denied
        return complete

    def _find_replacement(
        self, model: Model, number: str, registration: Registration, *, model_deleted: bool
    ) -> ModelVersion:
        """Return the version that somebody kept in place of the upload that is gone.

        Raises:
            _ModelDeletedError: The upload went with its model, and can be made once more.
            NotFoundError: Somebody has deleted it.
        """
        found = self._read_upload(model, registration.alias, number, registration)
        if found is not None and int(found.version.version) < int(number):
            return self._finish_earlier(model, found, registration)
        if model_deleted:
            raise _ModelDeletedError
        raise self._deleted_error(registration, model.resource, f"Version {number} of {registration.name!r}")

    def _deleted_error(self, registration: Registration, resource: str, what: str) -> NotFoundError:
        self.resources.forget(registration.name)
        again = (
            "if the model is still there"
            if _names.parse_model_name(registration.name) is not None
            else "as a new version"
        )
        return NotFoundError(
            f"{what} was uploaded, and was deleted by somebody, or with its model, before its registration was done. "
            f"register_version with request_id={registration.request_id!r} uploads it once more, {again}.",
            resource=resource,
        )

    def _keep_lowest(
        self, model: Model, found: AliasedVersion, registration: Registration
    ) -> tuple[AliasedVersion, PermissionDeniedError | None]:
        """Return the lowest version of the request, after the others were removed or that was not allowed."""
        denied: PermissionDeniedError | None = None
        budget, tries = self.resources.rpc.budget(), 0
        while not is_complete(found.version, registration):  # a complete version was the lowest one
            others = self._find_lower(model, found, registration)
            if not others:
                break
            lower, *second = others
            try:
                self._hand_over_aliases(model, lower, [*second, found], registration)
            except NotFoundError:  # somebody has deleted the lower one
                if not self.resources.rpc.pause(budget, tries):
                    raise
                tries += 1
                continue
            fresh = self.resources.find_with_aliases(model.resource, registration.own_alias(lower))
            found = lower if fresh is None else fresh
        for number in _names.removing(found.aliases):
            try:
                version = self._delete_duplicate(model, number, found, registration)
                left = tuple(alias for alias in found.aliases if alias != _names.removing_alias(number))
                found = AliasedVersion(version, left)
            except PermissionDeniedError as error:
                denied = PermissionDeniedError(
                    f"Version {number} of {registration.name!r} is a second upload of the request "
                    f"{registration.request_id!r}, whose version is {found.version.version}. It could not be removed: "
                    f"{error} Delete version {number}, or register again with that permission.",
                    resource=model.at(number),
                    code=error.code,
                )
                denied.__cause__ = error.__cause__
        return found, denied

    def _find_lower(self, model: Model, found: AliasedVersion, registration: Registration) -> list[AliasedVersion]:
        """Return the versions of the request that are lower than one of its versions, the lowest first.

        The alias of an upload tells how far to look: a version that was there before that upload's request was looked
        for is none of its request. No list has to be complete for this.
        """
        own = _names.find_upload_alias(found.aliases, registration.alias)
        number = int(found.version.version)
        base = 0 if own is None or own[1] >= number else own[1]
        between = list(range(base + 1, number))
        if len(between) > _MAX_SINGLE_READS:
            listed = self.resources.list_aliases(model)
            between = [
                other
                for other in between
                if other not in listed or _names.find_upload_alias(listed[other], registration.alias)
            ]
        there = self._read_each(model, between)
        missing = [other for other in between if other not in there]
        if missing:
            # They were deleted, or their uploads have a number and are not done yet.
            with ignore_forbidden():
                if self._wait_for_running(model.resource, registration):
                    there |= self._read_each(model, missing)
        return [
            there[other]
            for other in sorted(there)
            if _names.find_upload_alias(there[other].aliases, registration.alias) is not None
        ]

    def _read_each(self, model: Model, numbers: list[int]) -> dict[int, AliasedVersion]:
        """Return those of the versions that are there, by their numbers."""

        def read(number: int) -> AliasedVersion | None:
            return self.resources.find_with_aliases(model.resource, str(number))

        if len(numbers) == 1:
            found: Iterable[AliasedVersion | None] = [read(numbers[0])]
        else:
            found = _waiting.prefetch(read, numbers, _CONCURRENT_READS)
        return {number: one for number, one in zip(numbers, found, strict=True) if one is not None}

    def _hand_over_aliases(
        self, model: Model, lower: AliasedVersion, others: list[AliasedVersion], registration: Registration
    ) -> None:
        """Give a version the aliases of the other uploads of its request, and mark it until they are removed.

        Raises:
            NotFoundError: The lower version is gone.
        """
        aliases: list[str] = []
        for other in others:
            # What others have moved since it was read stays where it is.
            fresh = self.resources.find_with_aliases(model.resource, registration.own_alias(other))
            if fresh is not None:
                aliases += _names.inherited_aliases(fresh.aliases, registration.alias)
                aliases.append(_names.removing_alias(fresh.version.version))
        if aliases:
            own, mark = registration.own_alias(lower), aliases[-1]  # the mark comes in the same step as the others
            self.change_aliases(model, lower.version, own, add=aliases, done=lambda there: mark in there)

    def _delete_duplicate(
        self, model: Model, number: str, kept: AliasedVersion, registration: Registration
    ) -> ModelVersion:
        """Remove a second upload of the request, and return the version that is kept, without the mark of that."""
        rpc = self.resources.rpc
        resource, own_of_kept, default = model.at(number), registration.own_alias(kept), _names.DEFAULT_ALIAS
        budget, tries = rpc.budget(), 0
        while True:
            second = self.resources.find_with_aliases(model.resource, number)
            own = None if second is None else _names.find_upload_alias(second.aliases, registration.alias)
            if second is None or own is None or int(number) <= int(kept.version.version):
                break
            if second.version.is_default:  # somebody has moved it there since it was handed over
                self.change_aliases(
                    model, kept.version, own_of_kept, add=[default], done=lambda there: default in there
                )
            try:
                operation = rpc.call("DeleteModelVersion", _wire.delete_version(resource), resource)
                rpc.wait(operation, _wire.operation, rpc.operation_budget())
            except NotFoundError:
                break
            except (UnavailableError, OperationFailedError, ConflictError) as failure:
                final = failure.code == "UNIMPLEMENTED" or (
                    isinstance(failure, ConflictError) and tries >= _MAX_REFUSALS
                )
                if final or not rpc.pause(budget, tries, getattr(failure, "retry_after", 0.0)):
                    raise
                tries += 1
            else:
                break
        mark = _names.removing_alias(number)
        return self.change_aliases(
            model, kept.version, own_of_kept, remove=[mark], done=lambda there: mark not in there
        )

    def change_aliases(
        self,
        model: Model,
        version: ModelVersion,
        own: str,
        *,
        add: Collection[str] = (),
        remove: Collection[str] = (),
        done: Callable[[Collection[str]], bool],
    ) -> ModelVersion:
        """Give aliases to a version and take others from it, once, and return it.

        Args:
            model: The model.
            version: The version.
            own: The alias of its upload, or its number, by which it is read after a lost answer.
            add: The aliases to add.
            remove: The aliases to remove.
            done: Whether that has happened, given the aliases that are there.

        Raises:
            NotFoundError: The version is gone.
        """
        rpc = self.resources.rpc
        budget, tries = rpc.budget(), 0
        while True:
            try:
                return self.resources.merge_aliases(model, version.version, add=add, remove=remove, once=True)
            except UnavailableError as lost:
                found = self.resources.find_with_aliases(model.resource, own)
                if found is None:
                    raise NotFoundError(
                        f"{model.at(version.version)} was deleted.", resource=model.at(version.version)
                    ) from lost.__cause__
                if done(found.aliases):
                    return found.version
                if lost.code == "UNIMPLEMENTED" or not rpc.pause(budget, tries, lost.retry_after):
                    raise
                tries += 1

    # --- completing ---------------------------------------------------------------------------------------------------

    def _wait_for_deletion(self, model: Model, own: str, registration: Registration) -> bool:
        """Wait while somebody deletes the model with the version that was its last one, and return whether that was.

        A mark that stays for longer than a deletion takes is of somebody who was killed, and is taken off.
        """
        rpc = self.resources.rpc
        budget, tries = rpc.budget(min(_DELETION_TIME, rpc.operation_budget().seconds)), 0
        with unknown_if_completion_fails(registration, model.resource):
            while True:
                marked = self.resources.find_with_aliases(model.resource, _names.DELETING_ALIAS)
                if marked is None or own in marked.aliases:
                    return tries > 0
                if not rpc.pause(budget, tries):
                    break
                tries += 1
            _LOG.warning(
                "version %s of %r has been marked as being deleted with its model for %g s; the mark is taken off",
                marked.version.version,
                model.name,
                budget.seconds,
            )
            mark, number = _names.DELETING_ALIAS, marked.version.version
            with contextlib.suppress(NotFoundError):
                self.change_aliases(model, marked.version, number, remove=[mark], done=lambda there: mark not in there)
        return True

    def _read_upload(self, model: Model, alias: str, number: str, registration: Registration) -> AliasedVersion | None:
        """Return the version that an alias of ours is on, if there is one, after the upload that made this number."""
        with unknown_if_completion_fails(registration, model.at(number)):
            return self.resources.find_with_aliases(model.resource, alias)

    def _complete(self, model: Model, found: AliasedVersion, registration: Registration) -> ModelVersion:
        """Write everything that belongs to the version, which was read by the alias of its upload."""
        version = found.version
        resource = model.at(version.version)
        own = registration.own_alias(found)
        try:
            complete, claimed = self._write_labels(model, found, registration)
            if _names.pending_alias(own) in found.aliases:
                complete = self._give_aliases(model, complete, own, registration)
            if registration.archive_existing and complete.stage is registration.stage:
                complete = self._archive_others(model, complete, claimed=claimed)
        except _VersionDeletedError as gone:
            return self._find_after_deletion(model, version.version, registration, gone)
        except NotFoundError as missing:
            if self._read_upload(model, own, version.version, registration) is None:
                return self._find_after_deletion(model, version.version, registration, missing)
            raise self._incomplete_error(registration, resource, missing) from missing.__cause__
        except UnavailableError as lost:
            raise state_unknown(
                registration, resource, f"The version {resource} was uploaded, and could not be completed: {lost}"
            ) from lost
        except RegistryError as error:
            raise self._incomplete_error(registration, resource, error) from error.__cause__
        return complete

    def _archive_others(self, model: Model, version: ModelVersion, *, claimed: bool) -> ModelVersion:
        """Archive the others in the version's stage, but for later claims where the stage was not given just now.

        Raises:
            _VersionDeletedError: Another version has the number by now.
        """
        promoted = self.promoter.archive_others(model, version, only_if_latest=not claimed)
        if promoted.created_at != version.created_at:
            raise _VersionDeletedError
        return promoted

    def _find_after_deletion(
        self, model: Model, number: str, registration: Registration, cause: Exception
    ) -> ModelVersion:
        try:
            return self._find_replacement(model, number, registration, model_deleted=False)
        except NotFoundError as gone:
            raise gone from cause.__cause__

    @staticmethod
    def _incomplete_error(registration: Registration, resource: str, error: RegistryError) -> RegistryError:
        finish = f"register_version with request_id={registration.request_id!r} gives it, and writes what is missing."
        error.args = (f"{error} The version {resource} was uploaded; {finish}",)
        return error

    def _write_labels(  # noqa: C901  # the ways that the write can end stand side by side
        self, model: Model, found: AliasedVersion, registration: Registration
    ) -> tuple[ModelVersion, bool]:
        """Complete the version, and return it and whether its stage was given by this call.

        Raises:
            _VersionDeletedError: The version is gone.
        """
        rpc = self.resources.rpc
        own = registration.own_alias(found)
        current = found.version
        if is_complete(current, registration):
            return current, False
        budget, tries = rpc.budget(), 0
        seen = (
            [other.stage_changed_at for other in self.resources.list_versions(model)]
            if registration.archive_existing
            else []
        )
        # Until somebody changes the version, the labels that it shows are its model's, and what we uploaded with it.
        models = current.labels if current.updated_at == current.created_at else {}
        claims: set[dt.datetime | None] = set()
        while True:
            try:
                mine, change = self._completing_change(
                    model, registration, seen, _without_model_labels(current, models)
                )
                stamp = _labels.read(change.labels or {}).notes.get(_stages.CHANGED_AT_LABEL)
                if stamp != _labels.read(mine.labels).notes.get(_stages.CHANGED_AT_LABEL):
                    claims.add(_stages.moment_of(stamp))
                written = self.resources.write(model, mine, change, once=True)
            except (UnavailableError, ConflictError) as failure:
                if failure.code is None:
                    raise
                again = self.resources.find_with_aliases(model.resource, own)
                if again is None:
                    raise _VersionDeletedError from failure.__cause__
                if is_complete(again.version, registration):
                    if not (differing := _differing_keys(again.version, registration)):
                        return again.version, again.version.stage_changed_at in claims
                    # It was written, and somebody has changed it since, or the model hides it.
                    left = {key: registration.metadata[key] for key in differing}
                    registration = attrs.evolve(registration, metadata=left)
                final = isinstance(failure, ConflictError) and not is_write_conflict(failure, current, again.version)
                if final or not rpc.pause(budget, tries, getattr(failure, "retry_after", 0.0)):
                    raise
                current = again.version
                tries += 1
            else:
                return written, written.stage_changed_at in claims

    def _give_aliases(self, model: Model, version: ModelVersion, own: str, registration: Registration) -> ModelVersion:
        """Give the version the aliases of its registration, and take off the alias that says that they are missing.

        Both happen in one step, so that aliases that were given are not given once more by a later run.

        Raises:
            _VersionDeletedError: The version is gone.
        """
        pending = _names.pending_alias(own)
        given = self.change_aliases(
            model, version, own, add=registration.aliases, remove=[pending], done=lambda there: pending not in there
        )
        if given.created_at != version.created_at:
            raise _VersionDeletedError
        return given

    def _complete_labels(
        self,
        registration: Registration,
        seen: Iterable[dt.datetime | None],
        current: ModelVersion | None = None,
    ) -> dict[str, str]:
        """Return all the labels that the version is complete with; what is there already stands."""
        notes: dict[str, str | None] = {
            _labels.MANAGED_BY: registration.managed_by,
            _labels.REQUEST: _names.fingerprint(registration.request_id),
            _labels.VERSION_NAME: registration.version_name,
        }
        there = {} if current is None else current.labels
        staged = _stages.stage_of(_labels.read(there).notes) is not Stage.NONE
        if staged or (current is not None and current.stage_changed_at is not None):
            pass  # somebody has put it in a stage since, or taken it out of one
        elif registration.stage is Stage.NONE:
            notes[_stages.STAGE_LABEL] = Stage.NONE.label
        else:
            notes |= self.promoter.stage_labels(registration.stage, current, seen=seen)
        written = () if current is None else current.metadata
        metadata = {key: value for key, value in registration.metadata.items() if key not in written}
        room = self.promoter.reserved_labels(registration.version_name)
        return _labels.write(there, metadata=metadata, notes=notes, room=room)

    def _completing_change(
        self, model: Model, registration: Registration, seen: Iterable[dt.datetime | None], current: ModelVersion
    ) -> tuple[ModelVersion, Change]:
        """The version as somebody may have changed it, and the change to all the labels that it is complete with.

        What others have written on the version stands; what the model says under a key that is registered does not
        count for it. Where it cannot be found out which of the two it is, because it does not fit into a pack, what is
        registered stands: the version was never complete, so that hardly anybody has written there, and a value that
        nobody asked for must not come back as if it had been registered.
        """
        if differing := _differing_keys(current, registration):
            try:
                current = self.resources.separate_model_labels(model, current, differing)
            except InvalidArgumentError:
                current = without_keys(current, differing)

        def change(version: ModelVersion) -> Change:
            return Change(labels=self._complete_labels(registration, seen, version))

        return self.resources.fit_change(model, current, change)


def _without_model_labels(version: ModelVersion, labels: Mapping[str, str]) -> ModelVersion:
    """Return the version without these labels, as far as they are what they were."""
    left = {key: value for key, value in version.labels.items() if labels.get(key) != value}
    content = _labels.read(left)
    changed_at = _stages.moment_of(content.notes.get(_stages.CHANGED_AT_LABEL))
    return attrs.evolve(version, labels=left, metadata=content.metadata, stage_changed_at=changed_at)


def is_complete(version: ModelVersion, registration: Registration) -> bool:
    """Whether everything has been written that belongs to the version."""
    written = _labels.read(version.labels).notes.get(_labels.REQUEST)
    return written == _names.fingerprint(registration.request_id)


def _differing_keys(version: ModelVersion, registration: Registration) -> set[str]:
    """The keys under which another value is read than was registered, which may be the model's or the version's."""
    return {
        key
        for key in _labels.layered_keys(version.labels) & registration.metadata.keys() & version.metadata.keys()
        if not _labels.same(version.metadata[key], registration.metadata[key])
    }


@contextlib.contextmanager
def _unknown_if_lookup_fails(registration: Registration, resource: str, sent: RegistryError) -> Iterator[None]:
    """Let what is looked for be unknown where the look fails: it was sent, and that ended in this error."""
    try:
        yield
    except OperationTimeoutError:
        raise  # it tells the request id
    except RegistryError as error:
        raise state_unknown(registration, resource, f"{sent} Looking for it failed too: {error}") from error


@contextlib.contextmanager
def ignore_forbidden() -> Iterator[None]:
    """Do without what is running if it may not be seen, or nobody can tell: what is done has been looked at."""
    try:
        yield
    except (PermissionDeniedError, UnavailableError) as error:
        if error.code not in {"PERMISSION_DENIED", "UNIMPLEMENTED"}:
            raise


@contextlib.contextmanager
def unknown_if_completion_fails(registration: Registration, resource: str) -> Iterator[None]:
    """Turn what fails after an upload into the error that names its request id."""
    try:
        yield
    except (OperationTimeoutError, ConflictError):
        raise
    except RegistryError as error:
        raise state_unknown(
            registration, resource, f"The version {resource} was uploaded, and could not be completed: {error}"
        ) from error


def timeout_error(registration: Registration, late: OperationTimeoutError) -> OperationTimeoutError:
    error = OperationTimeoutError(
        f"{late} A version of {registration.name!r} that it makes has neither its stage nor its metadata by then. Call "
        f"register_version again with request_id={registration.request_id!r}: it finds what was made, or makes it, and "
        "finishes it.",
        resource=late.resource,
        code=late.code,
    )
    error.request_id = registration.request_id
    return error


def state_unknown(registration: Registration, resource: str, what: str) -> StateUnknownError:
    """The error of a registration of which nobody can say whether it happened."""
    return StateUnknownError(
        f"It is not known whether the version of {registration.name!r} was made: {what} Call register_version again "
        f"with request_id={registration.request_id!r}: it finds what was made, or makes it.",
        resource=resource,
        request_id=registration.request_id,
    )
