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
from vertex_registry._stages import Stage
from vertex_registry.errors import ConflictError, InvalidArgumentError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from vertex_registry._records import ModelVersion
    from vertex_registry._resources import Model, Resources

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

    def promote(
        self,
        model: Model,
        current: ModelVersion,
        stage: Stage,
        *,
        others: Iterable[ModelVersion] | None = None,
        restored: bool = False,
    ) -> ModelVersion:
        """Put a version in a stage, archive the others there, and return it.

        If another version claims the stage later, that one stays, and this one is returned as archived.

        Args:
            model: The model.
            current: The version as it was just read.
            stage: The stage.
            others: The versions in the stage or with a history, as they were just listed. Defaults to listing them.
            restored: Whether a rollback puts the version back in the stage.
        """
        others = list(self.resources.list_staged(model, stage).versions if others is None else others)
        seen = [other.stage_changed_at for other in others]
        self.check_archivable(model, others, stage)

        def change(current: ModelVersion) -> Change:
            rivals = [other for other in others if other.stage is stage and other.version != current.version]
            latest = not rivals or claim_key(current) > max(map(claim_key, rivals))
            notes = self.stage_labels(stage, current, seen=seen, renew_claim=not latest, restored=restored)
            return Change(labels=_labels.write(current.labels, own_labels=notes))

        return self.archive_others(model, _layers.change_version(self.resources, model, current, change))

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

    def archive_others(self, model: Model, promoted: ModelVersion, *, only_if_latest: bool = False) -> ModelVersion:
        """Archive every version in the stage except the one with the latest claim, and return the promoted version.

        Args:
            model: The model.
            promoted: The version that was put in the stage.
            only_if_latest: Whether to archive nothing if another version has the latest claim. A promotion that was
                finished long ago mustn't touch later ones.
        """
        stage = promoted.stage
        budget = self.resources.rpc.budget()
        tries = 0
        while True:
            listed = self.resources.list_versions(model, stage=stage)
            holders = listed if not tries and _is_current(listed, promoted) else self._read(model, promoted, listed)
            winner = max(holders, key=claim_key, default=None)
            if only_if_latest and (winner is None or winner.version != promoted.version):
                return self.resources.read(model, promoted.version)
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

    def _read(self, model: Model, promoted: ModelVersion, listed: Iterable[ModelVersion]) -> list[ModelVersion]:
        """Return the versions in the stage, each as a point read shows it, because lists may lag."""
        holders = []
        for version in sorted({version.version for version in listed} | {promoted.version}, key=int):
            with contextlib.suppress(NotFoundError):
                holders.append(self.resources.read(model, version))
        return [version for version in holders if version.stage is promoted.stage]

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


def claim_key(version: ModelVersion) -> tuple[dt.datetime, int]:
    """Return a key to sort versions by their claim on a stage. The latest claim wins."""
    return version.stage_changed_at or dt.datetime.min.replace(tzinfo=dt.UTC), int(version.version)
