"""Register a version: upload it exactly once, and then write everything that belongs to it.

An upload carries the label ``managed_by`` only. The version is complete once one update, under the etag of a read by
the upload's own alias, has written the other labels. The caller's aliases follow after that.
"""

from __future__ import annotations

import collections
import contextlib
import logging
from typing import TYPE_CHECKING, Final

import attrs

from vertex_registry import _duplicates, _faults, _labels, _layers, _names, _stages, _uploads, _wire
from vertex_registry._layers import Change, is_write_conflict, without_keys
from vertex_registry._records import ModelVersion
from vertex_registry._resources import AliasedVersion, Model
from vertex_registry._stages import Stage
from vertex_registry._uploads import Registration, is_complete, state_unknown
from vertex_registry.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    OperationFailedError,
    OperationTimeoutError,
    RegistryError,
    UnavailableError,
)

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterable, Mapping

    from vertex_registry._promotion import Promoter
    from vertex_registry._records import RegisteredModel
    from vertex_registry._resources import Resources
    from vertex_registry._waiting import Budget

__all__ = ["Registrar", "Registration", "state_unknown"]

_LOG: Final = logging.getLogger("vertex_registry")

#: The seconds after which the client looks for a lost upload once more, and then sends it again.
_ARRIVAL_DELAY: Final = 1.0

#: How often the client polls for a model whose ID is taken by an unfinished upload, before it tries the ID again.
_POLLS_PER_TRY: Final = 4

#: The seconds that a marked deletion of a model may take. After that, its client was killed.
_DELETION_TIME: Final = 120.0


@attrs.frozen
class _Upload:
    """A finished upload.

    Attributes:
        model: The model.
        version: The number of the version that it created.
        alias: Its own alias.
        base: The number of a version that existed before it.
    """

    model: Model
    version: str
    alias: str
    base: int


class _ModelDeletedError(Exception):
    """The version was deleted with its model, together with what used to be the model's last version."""


class _VersionDeletedError(Exception):
    """The version doesn't exist anymore."""


@attrs.frozen
class Registrar:
    """Registers versions, in existing models and in new ones.

    Attributes:
        resources: The models and versions.
        promoter: Sets the stages.
        new_id: Returns an ID that no other upload has.
    """

    resources: Resources
    promoter: Promoter
    new_id: Callable[[], str]

    def register(self, registration: Registration, check_source: Callable[[], None] | None) -> ModelVersion:
        """Return the version that the request created earlier, or create it.

        Args:
            registration: What to register.
            check_source: Checks the source if the request turns out to be new. A version that was registered earlier is
                returned whatever has happened to its artifact. None if the request is known to be new.
        """
        self._complete_labels(registration, seen=())  # nothing is uploaded if the labels don't fit
        model, base = self._find_model(registration)
        if check_source is not None:
            found: AliasedVersion | None = None
            if model is not None:
                with _uploads.ignore_forbidden():
                    found = self._find_earlier(model.resource, registration)
            if model is not None and found is not None:
                try:
                    return self._finish_earlier(model, found, registration)
                except _ModelDeletedError:
                    self.resources.forget(registration.name)
                    model, base = self._find_model(registration)
            check_source()
        if registration.archive_existing and model is not None:
            with contextlib.suppress(NotFoundError):  # the upload notices if the model was deleted
                self.promoter.check_archivable(
                    model, self.resources.list_versions(model, stage=registration.stage), registration.stage
                )
        return self._upload(registration, model, base)

    # --- before the upload --------------------------------------------------------------------------------------------

    def _find_model(self, registration: Registration) -> tuple[Model | None, int]:
        """Return the model with the name, or None, and a version number that the new version's will exceed.

        A remembered or listed model is read first, because it may have been deleted or renamed.
        """
        if (found := self.resources.find_or_none(registration.name, self._read_newest)) is None:
            return None, 0
        model, newest = found
        return model, self._base_number(model, newest)

    def _read_newest(self, model: Model) -> ModelVersion | RegisteredModel:
        """Return the version that was uploaded last, or the model itself if only other tools have uploaded to it."""
        return self.resources.find_version(model.resource, _names.NEWEST_ALIAS) or self.resources.read_model(model)

    def _base_number(self, model: Model, newest: ModelVersion | RegisteredModel) -> int:
        """Return the number of a version that exists before the client looks for the request. It may be too low."""
        if isinstance(newest, ModelVersion):
            return int(newest.version)
        # Only other tools have uploaded to the model, or the version that was uploaded last was deleted.
        return max((int(version.version) for version in self.resources.list_versions(model)), default=0)

    def _find_earlier(self, resource: str, registration: Registration) -> AliasedVersion | None:
        """Return the version that the request created, after waiting for running uploads, or None."""
        if (found := self.resources.find_with_aliases(resource, registration.alias)) is not None:
            return found
        if not _uploads.wait_for_running(self.resources, resource, registration):
            return None
        return self.resources.find_with_aliases(resource, registration.alias)

    # --- the upload ---------------------------------------------------------------------------------------------------

    def _upload(  # noqa: C901, PLR0912  # one branch for each way an upload can end
        self, registration: Registration, model: Model | None, base: int
    ) -> ModelVersion:
        """Upload until the request has exactly one version, and return it."""
        rpc = self.resources.rpc
        calls, race = rpc.budget(), rpc.operation_budget()
        number = tries = waits = 0
        failures = collections.Counter[str]()
        while True:
            resource = self.resources.resource_of(registration.name, number) if model is None else model.resource
            try:
                uploaded: _Upload | AliasedVersion | None = self._upload_once(registration, model, resource, base)
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
                with _uploads.unknown_if_lookup_fails(registration, resource, refused):
                    holder = self._wait_for_model(registration, resource, race, waits)
                    same = holder is not None and holder.name == registration.name
                    base = self._known_base(holder) if holder is not None and same else 0
                    uploaded = self.resources.find_with_aliases(resource, registration.alias) if same else None
                waits += _POLLS_PER_TRY
                if holder is None:
                    continue  # the upload that had taken the ID may have failed, and the ID may be free
                if holder.name != registration.name:
                    number += 1  # the ID belongs to a model that has been renamed
                    continue
                model = self.resources.remember(registration.name, holder)
            except UnavailableError as lost:
                if lost.code == "UNIMPLEMENTED":
                    raise
                uploaded, base = self._find_after_loss(
                    registration, model, resource, lost, calls=calls, failures=failures
                )
                # A lost upload may still arrive. If it's sent again, the request may have two uploads.
                registration = attrs.evolve(registration, shared=True)
                tries += 1
            if uploaded is None:
                continue
            try:
                if isinstance(uploaded, AliasedVersion):
                    return self._finish_earlier(model or Model(resource, registration.name), uploaded, registration)
                self.resources.remember(registration.name, uploaded.model)
                return self._finish_upload(uploaded, registration, created=model is None)
            except _ModelDeletedError as deleted:
                self.resources.forget(registration.name)
                if not rpc.pause(calls, tries):
                    raise self._deleted_error(registration, resource, registration.name) from deleted.__cause__
                tries += 1
                model, base = self._find_model(registration)

    def _upload_once(self, registration: Registration, model: Model | None, resource: str, base: int) -> _Upload:
        """Upload once, and return the finished upload."""
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
        target = model or Model(resource, registration.name)
        operation = rpc.call("UploadModel", request, resource)
        try:
            _, version = _wire.read_upload(rpc.wait(operation, _wire.operation, rpc.operation_budget()))
        except OperationTimeoutError as timeout:
            raise _uploads.timeout_error(registration, timeout) from timeout.__cause__
        except OperationFailedError:
            raise
        except RegistryError as lost:
            # It's unknown how the operation ended. Its version shows it, if it exists.
            version = ""
            cause: RegistryError | None = lost
        else:
            cause = None
        if not version:
            with contextlib.suppress(RegistryError):
                if (ours := self.resources.find_version(resource, own)) is not None:
                    return _Upload(target, ours.version, own, base)
            raise state_unknown(
                registration,
                operation.name,
                _faults.first_sentence(cause) if cause else "The finished upload doesn't name its version.",
            ) from cause
        return _Upload(target, version, own, base)

    def _wait_for_model(self, registration: Registration, resource: str, race: Budget, waits: int) -> Model | None:
        """Return the model that has taken an ID once its first upload is done, or None to try the ID again."""
        if (holder := self.resources.find_model(resource)) is not None:
            return holder
        for poll in range(_POLLS_PER_TRY):
            if not self.resources.rpc.pause(race, waits + poll):
                timeout = OperationTimeoutError(
                    f"The ID of {resource} is taken by an upload that is still running after {race.seconds:g} s.",
                    resource=resource,
                )
                raise _uploads.timeout_error(registration, timeout)
            if (holder := self.resources.find_model(resource)) is not None:
                return holder
        return None

    def _known_base(self, model: Model) -> int:
        """Return the number of an existing version, or 0 if the model was deleted."""
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
        failures: collections.Counter[str],
    ) -> tuple[AliasedVersion | None, int]:
        """Return the version that a lost upload created, or None if it may be sent again, and the base number for that.

        A lost request may still arrive. So the client looks for the version, waits, and looks again before it sends the
        request a second time. If the deadline passed, nobody knows how long to wait. For a new model, its ID prevents a
        second upload.
        """
        start = calls.spent()
        with _uploads.unknown_if_lookup_fails(registration, resource, lost):
            if model is None:
                found = self.resources.find_with_aliases(resource, registration.alias)
            else:
                found = self._find_earlier(resource, registration)
        if found is not None:
            return found, 0
        if model is not None and lost.code == "DEADLINE_EXCEEDED":
            raise state_unknown(
                registration, resource, f"{_faults.first_sentence(lost)} It may still arrive."
            ) from lost
        calls.seconds += calls.spent() - start  # waiting for running operations doesn't count as a call
        if not self.resources.rpc.pause_after(lost, calls, failures, _ARRIVAL_DELAY):
            if lost.code == "RESOURCE_EXHAUSTED":
                raise lost  # it was refused, and there's no trace of it
            raise state_unknown(registration, resource, _faults.first_sentence(lost)) from lost
        if model is None:
            return None, 0
        with _uploads.unknown_if_lookup_fails(registration, resource, lost):
            base = self._known_base(model)
            return self.resources.find_with_aliases(resource, registration.alias), base

    # --- finishing ----------------------------------------------------------------------------------------------------

    def _finish_upload(self, uploaded: _Upload, registration: Registration, *, created: bool) -> ModelVersion:
        """Complete the version of a finished upload, or a lower one of the same request, and return it."""
        if registration.shared and int(uploaded.version) != uploaded.base + 1:
            # No other upload can have a number between the base and the number that follows it.
            if (found := self._read_upload(uploaded.model, uploaded.alias, uploaded.version, registration)) is None:
                return self._find_replacement(uploaded.model, uploaded.version, registration, model_deleted=False)
            return self._finish_earlier(uploaded.model, found, registration)
        model_deleted = not created and self._wait_for_deletion(uploaded.model, uploaded.alias, registration)
        found = self._read_upload(uploaded.model, uploaded.alias, uploaded.version, registration)
        if found is None:
            return self._find_replacement(uploaded.model, uploaded.version, registration, model_deleted=model_deleted)
        return self._complete(uploaded.model, found, registration)

    def _finish_earlier(self, model: Model, found: AliasedVersion, registration: Registration) -> ModelVersion:
        """Return the version that the request created earlier, and complete it if that was interrupted."""
        self.resources.remember(registration.name, model)
        with _uploads.unknown_if_completion_fails(registration, model.at(found.version.version)):
            found, denied = _duplicates.keep_lowest(self.resources, model, found, registration)
        version = found.version
        if version.artifact_uri.rstrip("/") != registration.source.rstrip("/"):
            raise ConflictError(
                f"The request ID {registration.request_id!r} has registered version {version.version} of "
                f"{registration.name!r} with another source. Give each source its own request ID.",
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
        """Return the version of the same request that another client kept instead of a deleted upload.

        Raises:
            _ModelDeletedError: The version was deleted with its model, and can be uploaded again.
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
            "if the model still exists"
            if _names.parse_model_name(registration.name) is not None
            else "as a new version"
        )
        return NotFoundError(
            f"{what} was deleted, by itself or with its model, before its registration was done. "
            f"register_version with request_id={registration.request_id!r} uploads it once more, {again}.",
            resource=resource,
        )

    # --- completing ---------------------------------------------------------------------------------------------------

    def _wait_for_deletion(self, model: Model, own: str, registration: Registration) -> bool:
        """Wait while another client deletes the model with its last version, and return whether one did.

        A client that was killed leaves its mark behind. A mark that is older than any deletion is removed.
        """
        rpc = self.resources.rpc
        budget, tries = rpc.budget(min(_DELETION_TIME, rpc.operation_budget().seconds)), 0
        with _uploads.unknown_if_completion_fails(registration, model.resource):
            while True:
                marked = self.resources.find_with_aliases(model.resource, _names.DELETING_ALIAS)
                if marked is None or own in marked.aliases:
                    return tries > 0
                if not rpc.pause(budget, tries):
                    break
                tries += 1
            _LOG.warning(
                "version %s of %r has been marked for deletion with its model for %g s; the mark is removed",
                marked.version.version,
                model.name,
                budget.seconds,
            )
            mark, number = _names.DELETING_ALIAS, marked.version.version
            with contextlib.suppress(NotFoundError):
                _uploads.change_aliases(
                    self.resources,
                    model,
                    marked.version,
                    number,
                    remove=[mark],
                    is_done=lambda aliases: mark not in aliases,
                )
        return True

    def _read_upload(self, model: Model, alias: str, number: str, registration: Registration) -> AliasedVersion | None:
        """Return the version that has an alias of this request, or None, after the upload that created this number."""
        with _uploads.unknown_if_completion_fails(registration, model.at(number)):
            return self.resources.find_with_aliases(model.resource, alias)

    def _complete(self, model: Model, found: AliasedVersion, registration: Registration) -> ModelVersion:
        """Write everything that belongs to a version that was read by its upload's own alias."""
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
            raise _uploads.not_completed(registration, resource, lost) from lost
        except RegistryError as error:
            raise self._incomplete_error(registration, resource, error) from error.__cause__
        return complete

    def _archive_others(self, model: Model, version: ModelVersion, *, claimed: bool) -> ModelVersion:
        """Archive the other versions in the stage, and return the version.

        Args:
            model: The model.
            version: The version.
            claimed: Whether this call has put it in its stage. Otherwise later claims win.

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
        finish = f"call register_version again with request_id={registration.request_id!r} to finish it."
        error.args = (f"{error} {resource} was uploaded; {finish}",)
        return error

    def _write_labels(  # noqa: C901  # one branch for each way the write can end
        self, model: Model, found: AliasedVersion, registration: Registration
    ) -> tuple[ModelVersion, bool]:
        """Write the labels of a version. Return the version, and whether this call has put it in its stage.

        Raises:
            _VersionDeletedError: The version was deleted.
        """
        rpc = self.resources.rpc
        own = registration.own_alias(found)
        current = found.version
        if is_complete(current, registration):
            return current, False
        budget, failures = rpc.budget(), collections.Counter[str]()
        seen = (
            [other.stage_changed_at for other in self.resources.list_staged(model, registration.stage).versions]
            if registration.archive_existing
            else []
        )
        # As long as nobody has changed the version, its other labels are its model's or come from the upload.
        models = current.labels if current.updated_at == current.created_at else {}
        claims: set[dt.datetime | None] = set()
        while True:
            try:
                mine, change = self._completing_change(
                    model, registration, seen, _without_model_labels(current, models)
                )
                stamp = _labels.read(change.labels or {}).own_labels.get(_stages.CHANGED_AT_LABEL)
                if stamp != _labels.read(mine.labels).own_labels.get(_stages.CHANGED_AT_LABEL):
                    claims.add(_stages.parse_timestamp(stamp))
                written = _layers.write(self.resources, model, mine, change, once=True)
            except (UnavailableError, ConflictError) as failure:
                if failure.code is None:
                    raise
                again = self.resources.find_with_aliases(model.resource, own)
                if again is None:
                    raise _VersionDeletedError from failure.__cause__
                if is_complete(again.version, registration):
                    # It was written. What differs was hidden by the model's labels before and still is, or somebody has
                    # changed it since, and then it's theirs.
                    hidden = [
                        key
                        for key in _differing_keys(again.version, registration)
                        if _labels.json_equal(again.version.metadata[key], current.metadata.get(key))
                    ]
                    if not hidden:
                        return again.version, again.version.stage_changed_at in claims
                    left = {key: registration.metadata[key] for key in hidden}
                    registration = attrs.evolve(registration, metadata=left)
                final = isinstance(failure, ConflictError) and not is_write_conflict(failure, current, again.version)
                if final or not rpc.pause_after(failure, budget, failures):
                    raise
                current = again.version
            else:
                return written, written.stage_changed_at in claims

    def _give_aliases(self, model: Model, version: ModelVersion, own: str, registration: Registration) -> ModelVersion:
        """Add the caller's aliases to the version, and remove the alias that says that they're missing.

        Both happen in one call, so a later run doesn't add the aliases again.

        Raises:
            _VersionDeletedError: The version was deleted.
        """
        pending = _names.pending_alias(own)
        given = _uploads.change_aliases(
            self.resources,
            model,
            version,
            own,
            add=registration.aliases,
            remove=[pending],
            is_done=lambda aliases: pending not in aliases,
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
        """Return the labels of the complete version. Existing ones are kept."""
        notes: dict[str, str | None] = {
            _labels.MANAGED_BY: registration.managed_by,
            _labels.REQUEST: _names.fingerprint(registration.request_id),
            _labels.VERSION_NAME: registration.version_name,
            _labels.METADATA_FILE: _labels.FILE_LABEL if registration.metadata_file else None,
        }
        existing = {} if current is None else current.labels
        staged = _stages.STAGE_LABEL in _labels.read(existing).own_labels
        if staged or (current is not None and current.stage_changed_at is not None):
            pass  # somebody has changed its stage since
        elif registration.stage is Stage.NONE:
            notes[_stages.STAGE_LABEL] = Stage.NONE.label
        else:
            notes |= self.promoter.stage_labels(registration.stage, current, seen=seen)
        written = () if current is None else current.metadata
        metadata = {key: value for key, value in registration.metadata.items() if key not in written}
        room = self.promoter.reserved_labels(registration.version_name)
        return _labels.write(existing, metadata=metadata, own_labels=notes, reserve=room)

    def _completing_change(
        self, model: Model, registration: Registration, seen: Iterable[dt.datetime | None], current: ModelVersion
    ) -> tuple[ModelVersion, Change]:
        """Return the version without its model's labels, and the change that completes its own.

        What others have written on the version is kept. What the model says under a registered key is ignored. If it's
        unknown which of the two a value is, because it doesn't fit into a pack, the registered value wins: hardly
        anybody writes on an incomplete version, and no value may come back that the caller didn't register.
        """
        if differing := _differing_keys(current, registration):
            try:
                current = _layers.separate_model_labels(self.resources, model, current, differing)
            except InvalidArgumentError:
                current = without_keys(current, differing)

        def change(version: ModelVersion) -> Change:
            return Change(labels=self._complete_labels(registration, seen, version))

        return _layers.fit_change(self.resources, model, current, change)


def _without_model_labels(version: ModelVersion, labels: Mapping[str, str]) -> ModelVersion:
    """Return the version without these labels, unless their values have changed."""
    left = {key: value for key, value in version.labels.items() if labels.get(key) != value}
    content = _labels.read(left)
    changed_at = _stages.parse_timestamp(content.own_labels.get(_stages.CHANGED_AT_LABEL))
    return attrs.evolve(version, labels=left, metadata=content.metadata, stage_changed_at=changed_at)


def _differing_keys(version: ModelVersion, registration: Registration) -> set[str]:
    """Return the keys with another value than the registered one. It may be the model's or the version's."""
    return {
        key
        for key in _labels.inheritable_keys(version.labels) & registration.metadata.keys() & version.metadata.keys()
        if not _labels.json_equal(version.metadata[key], registration.metadata[key])
    }
