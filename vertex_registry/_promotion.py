"""Put a version in a stage and archive the others there.

Vertex can't change two versions in one call. The new version enters the stage before the others leave it, so the stage
is never empty. The latest claim wins, and running a promotion again finishes one that was interrupted.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hashlib
from typing import TYPE_CHECKING, Final

import attrs

from vertex_registry import _changes, _faults, _history, _labels, _layers, _names, _stages
from vertex_registry._layers import Change, is_write_conflict
from vertex_registry._records import Rollback
from vertex_registry._stages import Stage
from vertex_registry.errors import ConflictError, InvalidArgumentError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from vertex_registry._records import ModelVersion
    from vertex_registry._resources import ListedVersions, Model, Resources

#: The longest author that labels are reserved for: 128 characters that can't be compressed.
_LONGEST_AUTHOR: Final = base64.b64encode(hashlib.sha512(b"").digest() + hashlib.sha256(b"").digest()).decode()


def reserved_labels(managed_by: str, actor: str | None, version_name: str | None = None) -> dict[str, str | None]:
    """Return the labels that this package may have to write on a version, each with its longest value."""
    notes: dict[str, str | None] = {
        _labels.MANAGED_BY: managed_by,
        _labels.REQUEST: _names.fingerprint(""),
        _stages.STAGE_LABEL: Stage.PRODUCTION.label,
        _stages.CHANGED_AT_LABEL: _stages.format_timestamp(dt.datetime.max.replace(tzinfo=dt.UTC)),
        _stages.CHANGED_BY_LABEL: max(_LONGEST_AUTHOR, actor or "", key=lambda text: len(text.encode())),
        **_changes.longest_labels(),
    }
    if version_name is not None:
        notes[_labels.VERSION_NAME] = version_name
    return notes


@attrs.frozen
class Promoter:
    """Puts versions in stages.

    Attributes:
        resources: The versions.
        managed_by: The value of the label ``managed_by``.
        actor: Who changes a stage, if the credentials don't know their account.
        now: Returns the current time.
    """

    resources: Resources
    managed_by: str
    actor: str | None
    now: Callable[[], dt.datetime]

    def reserved_labels(self, version_name: str | None = None) -> dict[str, str | None]:
        """Return the labels that this promoter may have to write on a version, each with its longest value."""
        return reserved_labels(self.managed_by, self.actor, version_name)

    def roll_back(self, model: Model, staged: ListedVersions, stage: Stage, *, name: str) -> Rollback:
        """Put the version that was in a stage before back into it, and archive the one that is in it.

        Args:
            model: The model.
            staged: Its versions with a history of stages, as they were just listed.
            stage: The stage.
            name: The model's name, for errors.

        Raises:
            NotFoundError: Nothing is in the stage, or nothing was in it before.
            HistoryUnknownError: The history doesn't prove what was in it before.
            ConflictError: Another version entered the stage meanwhile, or the one before is in another stage now.
        """
        listed, complete = {version.version: version for version in staged.versions}, staged.complete
        while True:
            try:
                current, previous = _history.before_current(listed.values(), stage, name=name, complete=complete)
            except _history.IncompleteListError:
                listed = {version.version: version for version in self.resources.list_versions(model)} | listed
                complete = True
                continue
            if self._refresh(model, listed, (current, previous)):
                continue
            if previous.stage in _stages.EXCLUSIVE and previous.stage is not stage:
                raise _in_other_stage_error(previous, stage)
            expected = {version.version for version in listed.values() if version.stage is stage} | {previous.version}
            try:
                restored = self.promote(model, previous, stage, restored_among=expected)
            except NotFoundError:
                if not self._refresh(model, listed, (current, previous)):
                    raise
                continue  # one of the two was deleted meanwhile
            if restored.stage is not stage:
                raise _overtaken_error(restored, stage)
            replaced = self.resources.find_version(model.resource, current.version)
            return Rollback(stage=stage, restored=restored, replaced=replaced or current)

    def _refresh(self, model: Model, listed: dict[str, ModelVersion], versions: Iterable[ModelVersion]) -> bool:
        """Read versions one by one, because lists may lag. Return whether one has changed or was deleted."""
        changed = False
        for version in versions:
            fresh = self.resources.find_version(model.resource, version.version)
            if fresh is None:
                del listed[version.version]
            else:
                listed[version.version] = fresh
            changed = changed or fresh is None or fresh.etag != version.etag
        return changed

    def promote(
        self, model: Model, current: ModelVersion, stage: Stage, *, restored_among: Collection[str] | None = None
    ) -> ModelVersion:
        """Put a version in a stage, archive the others there, and return it.

        If another version claims the stage later, that one stays, and this one is returned as archived.

        Args:
            model: The model.
            current: The version as it was just read.
            stage: The stage.
            restored_among: If a rollback puts the version back: the versions that may be in the stage. A version that
                entered it since the rollback was decided stays there. Defaults to promoting the version.
        """
        others = self.resources.list_staged(model, stage).versions
        seen = [other.stage_changed_at for other in others]
        self.check_archivable(model, others, stage)
        restored = restored_among is not None

        def change(current: ModelVersion) -> Change:
            if restored_among is not None:
                if current.stage in _stages.EXCLUSIVE and current.stage is not stage:
                    raise _in_other_stage_error(current, stage)
                if any(other.stage is stage and other.version not in restored_among for other in others):
                    raise _overtaken_error(current, stage)
            rivals = [other for other in others if other.stage is stage and other.version != current.version]
            latest = not rivals or claim_key(current) > max(map(claim_key, rivals))
            notes = self.stage_labels(stage, current, seen=seen, renew_claim=not latest, restored=restored)
            return Change(labels=_labels.write(current.labels, own_labels=notes))

        return self.archive_others(
            model, _layers.change_version(self.resources, model, current, change), restored_among=restored_among
        )

    def stage_labels(
        self,
        stage: Stage,
        current: ModelVersion | None,
        *,
        seen: Iterable[dt.datetime | None] = (),
        renew_claim: bool = False,
        restored: bool = False,
        successor: ModelVersion | None = None,
    ) -> dict[str, str | None]:
        """Return the labels that put a version in a stage, including those of its history.

        A version that is already in the stage keeps its timestamp, unless it has to claim the stage again.
        """
        if current is not None and current.stage is stage and current.stage_changed_at is not None and not renew_claim:
            return {_stages.STAGE_LABEL: stage.label}
        past = [*seen, None if current is None else current.stage_changed_at]
        moment = _stages.next_timestamp(self.now(), past)
        by = self.resources.rpc.principal() or self.actor
        notes = {
            _stages.STAGE_LABEL: stage.label,
            _stages.CHANGED_AT_LABEL: _stages.format_timestamp(moment),
            _stages.CHANGED_BY_LABEL: by,
        }
        if current is None:
            return notes | _changes.longest_labels()
        successor_number = None if successor is None else int(successor.version)
        change = _changes.Change(stage, moment, by, successor_number, restored=restored)
        return notes | _changes.write(int(current.version), _history.changes_of(current), change)

    def archive_others(
        self,
        model: Model,
        promoted: ModelVersion,
        *,
        only_if_latest: bool = False,
        restored_among: Collection[str] | None = None,
    ) -> ModelVersion:
        """Archive every version in the stage except the one with the latest claim, and return the promoted version.

        Args:
            model: The model.
            promoted: The version that was put in the stage.
            only_if_latest: Whether to archive nothing if another version has the latest claim. A promotion that was
                finished long ago mustn't touch later ones.
            restored_among: As in `promote`.
        """
        budget = self.resources.rpc.budget()
        tries, first = 0, True
        while True:
            holders = self._read_holders(model, promoted, trust_list=first)
            first = False
            winner = max(holders, key=claim_key, default=None)
            if only_if_latest and (winner is None or winner.version != promoted.version):
                return self.resources.read(model, promoted.version)
            if restored_among is not None and (new := [one for one in holders if one.version not in restored_among]):
                if self._renew_claim(model, max(new, key=claim_key), holders):
                    restored_among = None  # that one has the latest claim now
                continue
            try:
                for loser in holders:
                    if loser is not winner:
                        seen = [version.stage_changed_at for version in holders]
                        notes = self.stage_labels(Stage.ARCHIVED, loser, seen=seen, successor=winner)
                        with contextlib.suppress(NotFoundError):  # a deleted version has left the stage
                            _layers.write(self.resources, model, *self._archive_change(model, loser, notes))
            except ConflictError as conflict:
                if conflict.code is None:
                    raise
                now = self.resources.find_version(model.resource, loser.version)
                if not is_write_conflict(conflict, loser, now) or not self.resources.rpc.pause(budget, tries):
                    raise
                tries += 1
                continue
            return self.resources.read(model, promoted.version)

    def _read_holders(self, model: Model, promoted: ModelVersion, *, trust_list: bool) -> list[ModelVersion]:
        """Return the versions in a stage. Unless the list proves that it's current, each is read by itself."""
        listed = self.resources.list_versions(model, stage=promoted.stage)
        if trust_list and _is_current(listed, promoted):
            return listed
        found = (
            self.resources.find_version(model.resource, version)
            for version in sorted({version.version for version in listed} | {promoted.version}, key=int)
        )
        return [version for version in found if version is not None and version.stage is promoted.stage]

    def _renew_claim(self, model: Model, version: ModelVersion, holders: Iterable[ModelVersion]) -> bool:
        """Let a version in a stage have the latest claim on it. Return False if it has left the stage meanwhile."""
        stage, seen = version.stage, [holder.stage_changed_at for holder in holders]

        def change(current: ModelVersion) -> Change:
            if current.stage is not stage:
                raise _LeftStageError
            notes = self.stage_labels(stage, current, seen=seen, renew_claim=True)
            return Change(labels=_labels.write(current.labels, own_labels=notes))

        try:
            _layers.change_version(self.resources, model, version, change)
        except (_LeftStageError, NotFoundError):
            return False
        return True

    def check_archivable(self, model: Model, versions: Iterable[ModelVersion], stage: Stage) -> None:
        """Make sure that the versions in the stage can be archived, before anything is changed.

        Raises:
            ConflictError: One of them has no room for the labels.
        """
        notes = reserved_labels(self.managed_by, self.actor) | {
            _stages.CHANGED_BY_LABEL: self.resources.rpc.principal() or self.actor
        }
        for version in versions:
            if version.stage is not stage:
                continue
            try:
                _labels.write(version.labels, own_labels=notes)
            except InvalidArgumentError:
                # Lists may lag, and may show deleted versions.
                with contextlib.suppress(NotFoundError):
                    current = self.resources.read(model, version.version)
                    fitting, _ = self._archive_change(model, current, notes)
                    if fitting is not current:
                        _layers.write(self.resources, model, fitting, Change(labels=fitting.labels))

    def _archive_change(
        self, model: Model, version: ModelVersion, notes: Mapping[str, str | None]
    ) -> tuple[ModelVersion, Change]:
        """Return the version, and the change that archives it with these labels."""

        def change(current: ModelVersion) -> Change:
            return Change(labels=_labels.write(current.labels, own_labels=notes))

        try:
            return _layers.fit_change(self.resources, model, version, change)
        except InvalidArgumentError as full:
            raise ConflictError(
                f"Version {version.version} of {version.name!r} can't be archived: {_faults.first_sentence(full)} "
                f"Make room with update_version(name, {version.version}, remove_metadata=[...]).",
                resource=version.resource_name,
            ) from full


def _is_current(listed: list[ModelVersion], promoted: ModelVersion) -> bool:
    """Return whether a list is enough to archive the others in it, each under the etag that it shows.

    It is if it shows the promoted version as it was written, with the latest claim. The version was then in the stage
    after it was written, so the stage can't become empty. If the list is late about another version, that version's
    etag is refused.
    """
    latest = max(listed, key=claim_key, default=None)
    return latest is not None and latest.resource_name == promoted.resource_name and latest.etag == promoted.etag != ""


class _LeftStageError(Exception):
    """A version isn't in the stage any more."""


def _in_other_stage_error(version: ModelVersion, stage: Stage) -> ConflictError:
    return ConflictError(
        f"Version {version.version} of {version.name!r} was in {stage} before, but it's in {version.stage} now. "
        "Choose a version and put it in the stage with set_stage().",
        resource=version.resource_name,
    )


def _overtaken_error(version: ModelVersion, stage: Stage) -> ConflictError:
    return ConflictError(
        f"Somebody else changed what is in {stage} while version {version.version} of {version.name!r} was restored, "
        f"so that version is in {version.stage}. Check get_version({version.name!r}, stage=...) before you roll back "
        "again.",
        resource=version.resource_name,
    )


def claim_key(version: ModelVersion) -> tuple[dt.datetime, int]:
    """Return a key to sort versions by their claim on a stage. The latest claim wins."""
    return version.stage_changed_at or dt.datetime.min.replace(tzinfo=dt.UTC), int(version.version)
