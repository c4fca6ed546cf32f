"""Check a history against the promises. The check is pure: operations in, violations out.

The rule that matters: if something can't be known, it's not a violation, so no violation depends on timing. A change
with an unknown outcome may take effect at any later time, or never. An acknowledged change took effect once, while it
was called.
"""

from __future__ import annotations

import collections
import itertools
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from vertex_registry import errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.histories.history import Operation

#: What nobody can promise on Vertex, and why. Each use is counted, so that no excuse is silent.
WINDOWS: Final = {
    "foreign-upload": "Vertex has no conditional DeleteModel, and Google's client looks for no mark: its upload can go "
    "with the model when somebody deletes the last other version at the same time.",
    "late-deletion": "DeleteModel has no precondition: one whose answer nobody waits for any more deletes whatever "
    "has the model's id when it arrives.",
    "late-aliases": "MergeVersionAliases names a version by its number and has no precondition. A late request changes "
    "the version that has this number when it arrives, even in another model with the same ID.",
    "request-renamed": "A request is looked up in the model that has the name. After a rename it's another request.",
    "rename-in-flight": "Vertex renames without a precondition, so a call that overlaps a foreign rename may still act "
    "on the model under its new name.",
    "written-again": "When the answer of an update is lost and the next meets another etag, nobody can tell whether "
    "the first one was overwritten or refused. The client writes again while it's called.",
    "default-moved": "If Vertex refuses to delete the default version, the client moves `default` away, and "
    "MergeVersionAliases has no precondition: a move by somebody else in that moment is overridden.",
    "removed-early": "A key that is removed before the registration has written it isn't there yet, and the removal "
    "leaves no trace.",
    "killed-without-id": "A registration that was killed and had no request id of its own can't be run again, so "
    "nobody can heal a late duplicate.",
}

DELETIONS: Final = {"delete_version", "delete_model", "foreign_delete_version", "foreign_delete_model"}
MODEL_DELETIONS: Final = {"delete_model", "foreign_delete_model"}
REGISTRATIONS: Final = {"register_version", "foreign_upload"}
STAGED: Final = {"set_stage", "update_version", "foreign_label"}

ABSENT: Final = "(absent)"
ANY: Final = "(any)"


@dataclass(frozen=True)
class Violation:
    """A promise that a history breaks, with the operations that show it."""

    promise: str
    about: str
    message: str
    evidence: tuple[Operation, ...]


@dataclass
class Write:
    """A change of one value.

    Attributes:
        value: The value; `ANY` if it isn't known.
        began: When it can take effect at the earliest.
        ended: When it has taken effect at the latest.
        sure: Whether it did take effect.
        done: When that is sure.
        repeats: Whether it may take effect more than once.
        removes: The value that it takes away, if that is the current one.
    """

    value: Any
    began: float
    ended: float
    sure: bool = True
    done: float = math.nan
    repeats: bool = False
    removes: Any = None

    def __post_init__(self) -> None:
        if math.isnan(self.done):
            self.done = self.ended


@dataclass(frozen=True)
class Read:
    """A value that an operation read."""

    value: Any
    began: float
    ended: float
    operation: Operation


@dataclass
class Version:
    """A version that the history shows, told apart by its source from others that had its number.

    Attributes:
        model: The resource name of its model.
        number: Its number.
        source: Its source; every registration has its own.
        created: When it was uploaded; a request whose version was deleted makes another one.
        names: The display names that its model had.
        began: When its registration began.
        acknowledged: When a registration returned it.
        attempts: The registrations of its source.
        sightings: What was read of it.
    """

    model: str
    number: str
    source: str
    created: str
    names: set[str] = field(default_factory=set)
    began: float = -math.inf
    acknowledged: float = math.inf
    attempts: list[Operation] = field(default_factory=list)
    sightings: list[Read] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.model.rpartition('/')[2]}@{self.number} ({self.source})"

    @property
    def foreign(self) -> bool:
        """Whether Google's client uploaded it."""
        return any(attempt.foreign for attempt in self.attempts)


def possible(writes: Iterable[Write], began: float, ended: float) -> list[Write]:
    """Return the writes whose value may be seen by a read in that interval."""
    writes = list(writes)
    done = [write for write in writes if write.sure and write.done < began]
    latest = max((write.began for write in done), default=-math.inf)
    removals = [write for write in writes if write.removes is not None and write.done < began]
    return [
        write
        for write in writes
        if write.began < ended
        and write.ended >= latest
        and not any(gone.removes == write.value and write.ended < gone.began for gone in removals)
    ]


def impossible_reads(writes: Iterable[Write], reads: Iterable[Read], *, once: bool) -> list[Read]:
    """Return the reads that no order of the writes can explain.

    If a write takes effect once, a read that only this write explains proves that it has taken effect by then.
    """
    writes = [replace(write) for write in writes]
    wrong = []
    for read in sorted(reads, key=lambda read: read.ended):
        matching = [write for write in possible(writes, read.began, read.ended) if write.value in (ANY, read.value)]
        if not matching:
            wrong.append(read)
        elif once and len(matching) == 1 and not matching[0].repeats and read.ended < matching[0].ended:
            matching[0].ended = matching[0].done = read.ended
            matching[0].sure = True
    return wrong


def _moved_from(writes: list[Write], values: set[str], to: str, operation: Operation) -> Write | None:
    """Return the write of an operation that changes only what has one of some values, if it can have one then.

    In every order, it comes before whatever is sure to overwrite those values.
    """
    holders = [write for write in possible(writes, operation.began, operation.ended) if write.value in values]
    if not holders:
        return None
    ended = min(operation.ended, max(holder.ended for holder in holders))
    return Write(to, operation.began, ended, sure=False, repeats=True)


class Checker:
    """The promises, each a method that yields violations.

    Args:
        operations: The history, in the order of its beginnings.
        lagging: Whether lists lag. If they do, they don't prove that something exists or is missing.
        refusing: Whether Vertex refuses to delete the default version, so that the client has to move `default`.
    """

    PROMISES: Final = (
        "own_errors",
        "one_model",
        "named_model",
        "own_version",
        "numbers_once",
        "one_version",
        "kept",
        "deleted",
        "metadata_kept",
        "one_target",
        "stage_kept",
        "stage_filled",
        "one_winner",
        "aliases_kept",
    )

    def __init__(self, operations: Iterable[Operation], *, lagging: bool = False, refusing: bool = False) -> None:
        self.operations = list(operations)
        self.lagging = lagging
        self.refusing = refusing
        self.excused: collections.Counter[str] = collections.Counter()
        self.deletions = [operation for operation in self.operations if operation.verb in DELETIONS]
        self.renames = [operation for operation in self.operations if operation.verb == "foreign_rename"]
        self.registrations: dict[str, list[Operation]] = collections.defaultdict(list)
        for operation in self.operations:
            if operation.verb in REGISTRATIONS:
                self.registrations[operation.args["source"]].append(operation)
        self.versions: dict[tuple[str, ...], Version] = {}
        for operation in self.operations:
            for seen in _versions_in(operation):
                self._sight(operation, seen)

    def _sight(self, operation: Operation, seen: dict[str, Any]) -> None:
        key = _identity(seen)
        if (version := self.versions.get(key)) is None:
            version = self.versions[key] = Version(*key)
            version.attempts = self.registrations.get(seen["source"], [])
            version.began = min((attempt.began for attempt in version.attempts), default=-math.inf)
            version.names = {attempt.name for attempt in version.attempts}
        version.names.add(seen["name"])
        if operation.verb in REGISTRATIONS and operation.args["source"] == seen["source"]:
            version.acknowledged = min(version.acknowledged, operation.ended)
        if not (self.lagging and operation.verb in {"list_versions", "latest_version"}):
            version.sightings.append(Read(seen, operation.began, operation.ended, operation))

    def check(self) -> list[Violation]:
        """Return every violation, each promise and version once."""
        found: dict[tuple[str, str], Violation] = {}
        for promise in self.PROMISES:
            for violation in getattr(self, promise)():
                found.setdefault((violation.promise, violation.about), violation)
        return list(found.values())

    # --- what an operation may have meant -----------------------------------------------------------------------------

    def names_of(self, version: Version, began: float, ended: float) -> set[str]:
        """Return the display names that a version's model may have had in an interval."""
        first = {attempt.name for attempt in version.attempts} or version.names
        writes = [Write(name, -math.inf, -math.inf) for name in first]
        writes += [
            Write(rename.args["to"], rename.began, rename.ended, sure=rename.ok)
            for rename in self.renames
            if rename.args["model"] == version.model
        ]
        # A model's id can be free again: deleted under its new name, it may come back under its first one.
        if any(deletion.verb in MODEL_DELETIONS and deletion.name not in first for deletion in self.deletions):
            return version.names | first
        return {write.value for write in possible(writes, began, ended)}

    def meant(self, operation: Operation, version: Version) -> bool:
        """Return whether an operation may be about a version: by its result, or else by its name and number."""
        if operation.ok and isinstance(operation.result, dict) and "of" in operation.result:
            return tuple(operation.result["of"]) == (version.model, version.number, version.source, version.created)
        results = list(_versions_in(operation))
        if operation.ok and operation.verb in STAGED | {"add_aliases", "remove_aliases", "set_default"} and results:
            return _is(results[0], version)
        if (model := operation.args.get("model")) is not None:
            named = model == version.model
        else:
            named = operation.name in {*self.names_of(version, operation.began, operation.ended), version.model}
        reference = operation.args.get("version", version.number)
        return named and (not reference.isdecimal() or reference == version.number)

    def deletion_of(self, version: Version, before: float) -> Operation | None:
        """Return a deletion that may have taken a version away before a moment."""
        for deletion in self.deletions:
            if deletion.began < before and deletion.ended > version.began and self.meant(deletion, version):
                return deletion
        return None

    # --- promises -----------------------------------------------------------------------------------------------------

    def own_errors(self) -> Iterator[Violation]:
        """Only errors of this package reach a caller."""
        for operation in self.operations:
            if not operation.foreign and operation.error not in {"", "killed", "RegistryError", *errors.__all__}:
                message = f"{operation.verb} raised {operation.error}: {operation.message}"
                yield Violation("own-errors", operation.key, message, (operation,))

    def one_model(self) -> Iterator[Violation]:
        """A name means one model."""
        for operation in self.operations:
            if operation.error == "AmbiguousNameError" and not self.lagging:
                yield Violation("one-model", operation.name, "A client found several models.", (operation,))
            if operation.verb == "snapshot" and operation.ok:
                for name, count in collections.Counter(model["name"] for model in operation.result["models"]).items():
                    if count > 1:
                        yield Violation("one-model", name, f"{count} models have this name.", (operation,))

    def named_model(self) -> Iterator[Violation]:
        """A verb acts on the model that has the name now, even after a rename by another tool."""
        for operation in self.operations:
            for seen in _versions_in(operation):
                if self.lagging or operation.foreign or operation.verb == "snapshot" or "/" in operation.name:
                    continue
                if seen["name"] == operation.name:
                    continue
                if any(
                    rename.args["model"] == seen["model"]
                    and rename.began < operation.ended
                    and rename.ended > operation.began
                    for rename in self.renames
                ):
                    self.excused["rename-in-flight"] += 1
                    continue
                renames = [rename for rename in self.renames if rename.args["model"] == seen["model"]]
                message = f"{operation.verb} acted on a model that is named {seen['name']!r}."
                yield Violation("named-model", operation.name, message, (*renames, operation))

    def own_version(self) -> Iterator[Violation]:
        """A registration returns the version that it uploaded."""
        for operation in self.operations:
            if operation.verb == "register_version" and operation.ok:
                wanted, got = operation.args["source"], operation.result["source"]
                if wanted != got:
                    message = f"Registering {wanted} returned version {operation.result['number']} with {got}."
                    yield Violation("own-version", wanted, message, (operation,))

    def numbers_once(self) -> Iterator[Violation]:
        """A model never uses a version number twice."""
        holders: dict[tuple[str, str], list[Version]] = collections.defaultdict(list)
        for version in self.versions.values():
            holders[version.model, version.number].append(version)
        for (model, number), versions in holders.items():
            versions.sort(key=lambda version: min(seen.ended for seen in version.sightings or [_NEVER]))
            for first, second in itertools.pairwise(versions):
                until = min(seen.ended for seen in second.sightings or [_NEVER])
                names = {*first.names, *second.names, model}
                if not any(
                    deletion.began < until
                    and deletion.ended > first.began
                    and (deletion.name in names or deletion.args.get("model") == model)
                    for deletion in self.deletions
                ):
                    message = f"Number {number} was given to {first.source} and to {second.source}."
                    yield Violation("numbers-once", f"{model}@{number}", message, _shown(first, second))

    def one_version(self) -> Iterator[Violation]:
        """One request makes one version."""
        for source, attempts in self.registrations.items():
            versions = [version for version in self.versions.values() if version.source == source]
            known = sorted(
                (version for version in versions if version.acknowledged < math.inf),
                key=lambda version: version.acknowledged,
            )
            for first, second in itertools.pairwise(known):
                if first.model != second.model and self._renamed(first, second):
                    self.excused["request-renamed"] += 1
                elif self.deletion_of(first, second.acknowledged) is None:
                    message = f"Its registrations returned version {first.number} and version {second.number}."
                    yield Violation("one-version", source, message, tuple(attempts))
            for snapshot in self._snapshots("end"):
                seen = [one for one in snapshot.result["versions"] if one["source"] == source]
                there = [f"{one['model'].rpartition('/')[2]}@{one['number']}" for one in seen]
                if len(there) < 2:
                    continue
                if len({one["model"] for one in seen}) == len(seen) and self._renamed(*versions):
                    self.excused["request-renamed"] += 1
                    continue
                if not known and all(attempt.args.get("request_id") is None for attempt in attempts):
                    self.excused["killed-without-id"] += 1
                    continue
                message = f"In the end {len(there)} versions have its source: {', '.join(there)}."
                yield Violation("one-version", source, message, (*attempts, snapshot))

    def _renamed(self, *versions: Version) -> bool:
        return any(rename.args["model"] == version.model for rename in self.renames for version in versions)

    def kept(self) -> Iterator[Violation]:
        """An acknowledged version exists until a deletion that names it, or its model, takes it away."""
        for version in self.versions.values():
            if version.acknowledged == math.inf:
                continue
            for operation in self.operations:
                if operation.began <= version.acknowledged or not self._lacks(operation, version):
                    continue
                if self.deletion_of(version, operation.returned) is not None:
                    break
                if self._deleted_late(version, operation.returned):
                    self.excused["late-deletion"] += 1
                    break
                if version.foreign and self._raced(version):
                    self.excused["foreign-upload"] += 1
                    break
                near = [
                    deletion
                    for deletion in self.deletions
                    if deletion.name in version.names and deletion.began < operation.returned < math.inf
                ]
                message = "It was acknowledged, nobody deleted it, and it is gone."
                evidence = (*_shown(version), *near[-6:], operation)
                yield Violation("kept", str(version), message, evidence)
                break

    def _deleted_late(self, version: Version, before: float) -> bool:
        return any(
            deletion.late
            and (deletion.name in version.names or deletion.args.get("model") == version.model)
            and deletion.began < before
            and deletion.ended > version.began
            for deletion in self.deletions
        )

    def _raced(self, version: Version) -> bool:
        return any(
            deletion.name in version.names and deletion.began < version.acknowledged and deletion.ended > version.began
            for deletion in self.deletions
        )

    def _lacks(self, operation: Operation, version: Version) -> bool:
        """Return whether an operation shows that a version doesn't exist."""
        if operation.verb == "snapshot" and operation.ok:
            return not any(_is(seen, version) for seen in operation.result["versions"])
        if operation.name != version.model:
            names = self.names_of(version, operation.began, operation.returned)
            if names != {operation.name}:
                return False
        if operation.verb == "list_versions" and operation.ok and not self.lagging:
            return not any(_is(seen, version) for seen in operation.result)
        if operation.verb == "get_version" and operation.args["version"] == version.number:
            missed = operation.error == "NotFoundError"
            return missed or (operation.ok and not _is(operation.result, version))
        return False

    def deleted(self) -> Iterator[Violation]:
        """A version whose deletion was acknowledged is gone."""
        for deletion in self.deletions:
            if not deletion.ok or deletion.foreign or not deletion.args.get("version", "1").isdecimal():
                continue
            for version in self.versions.values():
                if not version.acknowledged < deletion.began or not self.meant(deletion, version):
                    continue
                if self.names_of(version, deletion.began, deletion.ended) != {deletion.name}:
                    continue
                for seen in version.sightings:
                    if seen.began > deletion.returned:
                        message = "Its deletion was acknowledged, and it was read later."
                        yield Violation("deleted", str(version), message, (deletion, seen.operation))
                        break

    def metadata_kept(self) -> Iterator[Violation]:
        """Acknowledged metadata stays until a client changes that key."""
        changes = [
            operation
            for operation in self.operations
            if operation.verb in {"update_version", "foreign_label"}
            and (operation.args.get("metadata") or operation.args.get("remove_metadata"))
        ]
        for version in self.versions.values():
            writes: dict[str, list[Write]] = collections.defaultdict(list)
            for key, value in _registered(version, "metadata").items():
                writes[key].append(Write(value, version.began, version.began, done=version.acknowledged))
            for change in changes:
                if not self.meant(change, version):
                    continue
                for key, value in change.args.get("metadata", {}).items():
                    writes[key].append(Write(value, change.began, change.ended, sure=change.ok))
                for key in change.args.get("remove_metadata", ()):
                    early = key in _registered(version, "metadata") and change.began < version.acknowledged
                    self.excused["removed-early"] += early
                    writes[key].append(Write(ABSENT, change.began, change.ended, sure=change.ok and not early))
            for key, written in writes.items():
                initial = Write(ABSENT, -math.inf, -math.inf)
                reads = [
                    Read(seen.value["metadata"].get(key, ABSENT), seen.began, seen.ended, seen.operation)
                    for seen in version.sightings
                ]
                for read in self._wrong([initial, *written], reads):
                    wrote = [change for change in changes if key in change.args.get("metadata", {})]
                    wrote = [change for change in wrote if self.meant(change, version)]
                    what = "lost" if read.value == ABSENT else f"{read.value!r}, which was overwritten before"
                    message = f"The metadata {key!r} is {what}."
                    evidence = (*_shown(version), *_latest(wrote, read), read.operation)
                    yield Violation("metadata-kept", str(version), message, evidence)
                    break

    def _wrong(self, writes: list[Write], reads: list[Read]) -> list[Read]:
        """Return the reads of labels that no order explains, even if a write may be repeated while it's called."""
        if not impossible_reads(writes, reads, once=True):
            return []
        if not (wrong := impossible_reads(writes, reads, once=False)):
            self.excused["written-again"] += 1
        return wrong

    def one_target(self) -> Iterator[Violation]:
        """One update changes one version, even if it names it by an alias that moves."""
        setters: dict[tuple[str, str], list[Operation]] = collections.defaultdict(list)
        holders: dict[tuple[str, str], dict[str, Read]] = collections.defaultdict(dict)
        for operation in self.operations:
            if operation.verb in {"update_version", "register_version"}:
                for key, value in operation.args.get("metadata", {}).items():
                    setters[key, repr(value)].append(operation)
        for version in self.versions.values():
            for seen in version.sightings:
                for key, value in seen.value["metadata"].items():
                    holders[key, repr(value)].setdefault(str(version), seen)
        for pair, operations in setters.items():
            (update, *others), there = operations, holders[pair]
            if not others and update.verb == "update_version" and len(there) > 1:
                message = f"It changed several versions: {', '.join(there)}."
                evidence = (update, *(seen.operation for seen in there.values()))
                yield Violation("one-target", update.key, message, evidence)

    def stage_kept(self) -> Iterator[Violation]:
        """A version is in the stage that was set last, unless a promotion to the same stage archived it."""
        for version in self.versions.values():
            writes = [Write("None", -math.inf, -math.inf)]
            if stage := _registered(version, "stage"):
                writes.append(Write(stage, version.began, version.began, done=version.acknowledged))
            givers = [change for change in self.operations if _stage_given(change) and self.meant(change, version)]
            writes += [
                Write(_stage_given(change), change.began, change.ended, sure=change.ok)
                for change in givers
                if change.verb in STAGED
            ]
            explicit = list(writes)
            promotions = [
                operation
                for operation in self.operations
                if operation.args.get("archive_existing") and operation.name in version.names
            ]
            for promotion in promotions:
                archived = _moved_from(explicit, {promotion.args["stage"]}, "Archived", promotion)
                writes += [] if archived is None else [archived]
            reads = [Read(seen.value["stage"], seen.began, seen.ended, seen.operation) for seen in version.sightings]
            for read in self._wrong(writes, reads):
                expected = sorted({write.value for write in possible(writes, read.began, read.ended)})
                message = f"It is in {read.value}, where only {' or '.join(expected)} can be."
                evidence = (*_shown(version), *_latest([*givers, *promotions], read), read.operation)
                yield Violation("stage-kept", str(version), message, evidence)
                break

    def stage_filled(self) -> Iterator[Violation]:
        """A stage that was filled stays filled, as long as only promotions and registrations touch it."""
        for name in {operation.name for operation in self.operations}:
            mine = [operation for operation in self.operations if operation.name == name]
            for stage in ("Staging", "Production"):
                emptying = [
                    one.began
                    for one in mine
                    if one.verb in DELETIONS | {"foreign_rename"}
                    or (one.verb in STAGED and _stage_given(one) not in {None, stage})
                ]
                # A promotion fills its stage for good. Anything else can be undone by the next promotion, not emptied.
                filled = min(
                    (one.ended for one in mine if one.ok and _stage_given(one) == stage),
                    default=math.inf,
                )
                until = min(emptying, default=math.inf)
                for read in mine:
                    if filled < read.began and read.returned < until and self._shows_empty(read, stage):
                        fillers = [one for one in mine if _stage_given(one) and one.began < read.ended]
                        message = f"Nothing is in {stage}, which was filled."
                        yield Violation("stage-filled", name, message, (*fillers, read))
                        break

    def _shows_empty(self, read: Operation, stage: str) -> bool:
        if not read.ok or self.lagging:
            return False
        if read.verb == "latest_version":
            return read.args.get("stage") == stage and read.result is None
        return read.verb == "list_versions" and all(seen["stage"] != stage for seen in read.result)

    def one_winner(self) -> Iterator[Violation]:
        """At the end, exactly one version is in a stage that only promotions touched."""
        for snapshot in self._snapshots("quiet", "end"):
            for name in {model["name"] for model in snapshot.result["models"]}:
                before = [one for one in self.operations if one.name == name and one.began < snapshot.began]
                for stage in ("Staging", "Production"):
                    attempts = [
                        one for one in before if one.args.get("archive_existing") and _stage_given(one) == stage
                    ]
                    promotions = [one for one in attempts if not self._runs_again(one)]
                    if not promotions or not promotions[-1].ok or any(one.name == name for one in self.renames):
                        continue
                    # Whatever went before is archived by the last promotion, if nothing else goes on beside it.
                    last = promotions[-1].began
                    others = [one for one in before if one not in attempts and _disturbs(one, stage)]
                    quiet = all(one.ended < last for one in others) and all(one.ok for one in attempts)
                    # After the end the harness promotes once more, alone.
                    if promotions[-1].process != "main" and not quiet:
                        continue
                    there = [
                        seen["number"]
                        for seen in snapshot.result["versions"]
                        if seen["name"] == name and seen["stage"] == stage
                    ]
                    if len(there) != 1:
                        message = f"{len(there)} versions are in {stage} in the end: {', '.join(there) or 'none'}."
                        yield Violation("one-winner", name, message, (*promotions[-6:], snapshot))

    def _runs_again(self, operation: Operation) -> bool:
        """Return whether a registration was tried before: then it may find that there's nothing left to do."""
        attempts = self.registrations.get(operation.args.get("source", ""), [operation])
        return operation is not attempts[0]

    def aliases_kept(self) -> Iterator[Violation]:
        """An alias is where one of the last moves put it."""
        models = collections.defaultdict(list)
        for version in self.versions.values():
            models[version.model].append(version)
        for model, versions in models.items():
            for alias in sorted(self._aliases_of(versions)):
                writes, movers = self._moves(alias, versions, strict=True)
                reads = list(self._places(alias, model, versions))
                wrong = impossible_reads(writes, reads, once=True)
                if wrong and alias == "default" and self.refusing:
                    writes, movers = self._moves(alias, versions, strict=False)
                    wrong = impossible_reads(writes, reads, once=True)
                    self.excused["default-moved"] += not wrong
                if wrong and (late := list(self._late_aliases(alias, versions))):
                    wrong = impossible_reads([*writes, *late], reads, once=True)
                    self.excused["late-aliases"] += not wrong
                for read in wrong:
                    expected = {str(write.value) for write in possible(writes, read.began, read.ended)}
                    message = (
                        f"The alias {alias!r} is at {read.value}, where only {' or '.join(sorted(expected))} can be."
                    )
                    evidence = (*_latest(movers, read), read.operation)
                    yield Violation("aliases-kept", f"{model} {alias}", message, evidence)
                    break

    def _aliases_of(self, versions: list[Version]) -> set[str]:
        """Return all aliases that these versions may have had."""
        aliases = {"default"}
        for operation in self.operations:
            aliases |= set(_alias_change(operation)[0])
        for version in versions:
            for seen in version.sightings:
                aliases |= set(seen.value["aliases"])
            for attempt in version.attempts:
                aliases |= set(attempt.args.get("aliases", ()))
        return aliases

    def _moves(self, alias: str, versions: list[Version], *, strict: bool) -> tuple[list[Write], list[Operation]]:
        """Return what may have moved an alias of a model, given the model's versions."""
        writes, movers = [Write(ABSENT, -math.inf, -math.inf)], []
        for version in versions:
            given = _registered(version, "aliases") or ()
            if alias in given or (alias == "default" and _registered(version, "make_default")):
                movers += version.attempts
                known = version.acknowledged < math.inf
                writes.append(Write(version.number, version.began, version.acknowledged, sure=known))
                # Two calls with one request, or a run again, may hand the alias on from the version that yields.
                if not all(attempt.ok for attempt in version.attempts) or _overlap(version.attempts):
                    writes += [
                        Write(version.number, attempt.began, attempt.ended, sure=False) for attempt in version.attempts
                    ]
            if not _registered(version, "make_default") and alias == "default":
                # The first version of a model has it anyway.
                writes.append(Write(version.number, version.began, version.acknowledged, sure=False))
            for operation in self.operations:
                add, remove = _alias_change(operation)
                if (alias in add or alias in remove) and self.meant(operation, version):
                    movers.append(operation)
                    if alias in add:
                        writes.append(Write(version.number, operation.began, operation.ended, sure=operation.ok))
                    else:
                        gone = version.number if operation.ok else None
                        writes.append(Write(ABSENT, operation.began, operation.ended, sure=False, removes=gone))
        self._deletion_moves(alias, versions, writes, movers, strict=strict)
        return writes, sorted(dict.fromkeys(movers), key=lambda operation: operation.began)

    def _deletion_moves(
        self, alias: str, versions: list[Version], writes: list[Write], movers: list[Operation], *, strict: bool
    ) -> None:
        """Add what deletions may have done to an alias: only one that names the alias's version touches it."""
        for deletion in self.deletions:
            named = {version.number for version in versions if self.meant(deletion, version)}
            if not named:
                continue
            if deletion.verb in MODEL_DELETIONS:
                gone: Write | None = Write(ANY, deletion.began, deletion.ended, sure=False, repeats=True)
            else:
                value = ANY if alias == "default" else ABSENT
                gone = _moved_from(writes, {*named, ANY}, value, deletion)
            if gone is not None:
                if not strict:
                    gone.ended = gone.done = deletion.ended
                movers.append(deletion)
                writes.append(gone)

    def _late_aliases(self, alias: str, versions: list[Version]) -> Iterator[Write]:
        """Yield what a late registration may do to these versions, if its own was deleted with an earlier model."""
        names = {name for version in versions for name in (*version.names, version.model)}
        for attempt in itertools.chain.from_iterable(self.registrations.values()):
            deleted = any(
                deletion.name in names and deletion.began < attempt.ended and deletion.ended > attempt.began
                for deletion in self.deletions
            )
            if deleted and attempt.late and attempt.name in names and alias in attempt.args.get("aliases", ()):
                for version in versions:
                    yield Write(version.number, attempt.began, attempt.ended, sure=False)

    def _places(self, alias: str, model: str, versions: list[Version]) -> Iterator[Read]:
        for version in versions:
            for seen in version.sightings:
                if alias in seen.value["aliases"]:
                    yield Read(version.number, seen.began, seen.ended, seen.operation)
        for snapshot in self._snapshots("quiet", "end"):
            listed = [seen for seen in snapshot.result["versions"] if seen["model"] == model]
            if listed and not any(alias in seen["aliases"] for seen in listed):
                yield Read(ABSENT, snapshot.began, snapshot.ended, snapshot)

    def _snapshots(self, *labels: str) -> list[Operation]:
        return [
            operation
            for operation in self.operations
            if operation.verb == "snapshot" and operation.ok and operation.args["label"] in labels
        ]


_NEVER: Final = Read(None, math.inf, math.inf, None)  # type: ignore[arg-type]  # nobody asks what it was read by


def _versions_in(operation: Operation) -> Iterator[dict[str, Any]]:
    """Return the versions that an operation returned."""
    result = operation.result
    if operation.verb == "snapshot":
        result = result and result["versions"]
    for seen in result if isinstance(result, list) else [result]:
        if isinstance(seen, dict) and "source" in seen:
            yield seen


def _identity(seen: dict[str, Any]) -> tuple[str, str, str, str]:
    return seen["model"], seen["number"], seen["source"], seen["created"]


def _is(seen: dict[str, Any], version: Version) -> bool:
    return _identity(seen) == (version.model, version.number, version.source, version.created)


def _registered(version: Version, argument: str) -> Any:
    """Return an argument of a version's registration: all attempts have the same."""
    default: Any = {} if argument == "metadata" else None
    return next((attempt.args.get(argument) or default for attempt in version.attempts), default)


def _stage_given(operation: Operation) -> str | None:
    stage: str | None = operation.args.get("stage")
    return stage if operation.verb in STAGED | REGISTRATIONS else None


def _disturbs(operation: Operation, stage: str) -> bool:
    """Return whether an operation can put a second version into a stage, or leave it empty."""
    given = _stage_given(operation)
    if operation.verb in DELETIONS | {"foreign_rename"}:
        return True
    return given == stage or (operation.verb in STAGED and given is not None)


def _alias_change(operation: Operation) -> tuple[list[str], list[str]]:
    """Return the aliases that an operation gives and takes."""
    aliases = operation.args.get("aliases", [])
    if operation.verb in {"add_aliases", "foreign_alias"}:
        return aliases, []
    if operation.verb == "remove_aliases":
        return [], aliases
    return (["default"], []) if operation.verb == "set_default" else ([], [])


def _overlap(operations: list[Operation]) -> bool:
    ordered = sorted(operations, key=lambda operation: operation.began)
    return any(second.began < first.ended for first, second in itertools.pairwise(ordered))


def _latest(operations: Iterable[Operation], read: Read) -> list[Operation]:
    """Return the last operations before a read, as evidence."""
    before = [operation for operation in operations if operation.began < read.ended]
    return sorted(before, key=lambda operation: operation.began)[-8:]


def _shown(*versions: Version) -> tuple[Operation, ...]:
    """Return the registrations of versions, as evidence."""
    return tuple(attempt for version in versions for attempt in version.attempts[-3:])


def excerpt(violation: Violation, operations: Iterable[Operation], *, most: int = 18) -> str:
    """Return a violation with the operations around it, as lines for people."""
    shown = {operation.key: operation for operation in violation.evidence}
    names = {operation.name for operation in violation.evidence}
    first = min((operation.began for operation in violation.evidence), default=0.0)
    last = max((operation.began for operation in violation.evidence), default=0.0)

    def matters(operation: Operation) -> bool:
        near = operation.began <= last and min(operation.returned, last) >= first
        reads = operation.verb.startswith(("get_", "list_", "latest_", "snapshot"))
        return operation.name in names and near and not reads

    for operation in operations:
        if len(shown) < most and matters(operation):
            shown.setdefault(operation.key, operation)
    ordered = sorted(shown.values(), key=lambda operation: operation.began)[-most:]
    marked = {operation.key for operation in violation.evidence}
    lines = [f"{violation.promise}: {violation.about}", f"  {violation.message}"]
    lines += [f"  {'*' if one.key in marked else ' '} {_line(one, first)}" for one in ordered]
    return "\n".join(lines)


def _line(operation: Operation, origin: float) -> str:
    until = "..." if operation.returned == math.inf else f"{operation.returned - origin:.3f}"
    seen = [f"{one['number']} in {one['stage']} {','.join(one['aliases'])}" for one in _versions_in(operation)]
    told = operation.error or ("snapshot" if operation.verb == "snapshot" else "; ".join(seen) or "done")
    left_out = {"request_id", "metadata"} if operation.verb == "register_version" else set()
    arguments = [
        f"{key}={value.rpartition('models/')[2] if key == 'model' else value!r}"
        for key, value in operation.args.items()
        if key not in left_out and value not in (None, [], {}, _USUAL.get(key))
    ]
    return (
        f"{operation.began - origin:8.3f} to {until:<8} {operation.key:11} {operation.verb}"
        f"({', '.join([operation.name, *arguments])}) -> {told}"
    )[:220]


#: What an excerpt leaves out.
_USUAL: Final = {"archive_existing": False, "make_default": True, "stage": "None"}
