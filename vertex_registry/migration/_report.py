"""What a migration did, or would do: one record for each version."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import Any, Final

import attrs


class Outcome(StrEnum):
    """What became of a version."""

    PLANNED = "planned"
    MOVED = "moved"
    EXISTS = "exists"
    SKIPPED = "skipped"


#: How a sentence calls each outcome.
_SPOKEN: Final = {
    Outcome.PLANNED: "to move",
    Outcome.MOVED: "moved",
    Outcome.EXISTS: "already there",
    Outcome.SKIPPED: "skipped",
}


@attrs.frozen(kw_only=True)
class MigratedVersion:
    """One version of the source, and what became of it.

    Attributes:
        model: The model's name on Vertex.
        source_model: The model's name in the source.
        number: The version's number in the source, which is its ``version_name`` on Vertex. None for a model
            that has no version.
        outcome: What became of it.
        version: Its number on Vertex, or None if it isn't there.
        reason: Why it was skipped, or how it differs from the version that is already there. ``""`` if neither.
        lossy: What isn't kept as it was, each in a few words.
        warnings: What the registration warned about, such as a model that no current serving image was made for.
        size: The bytes of its artifact, or None if they weren't counted.
    """

    model: str
    source_model: str
    number: int | None
    outcome: Outcome
    version: str | None = None
    reason: str = ""
    lossy: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    size: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the record as a dict that JSON can hold."""
        return attrs.asdict(self, value_serializer=lambda _record, _attribute, value: _jsonable(value))

    def __str__(self) -> str:
        what = self.model if self.number is None else f"{self.model} {self.number}"
        why = f": {self.reason}" if self.reason else ""
        return f"{what}: {_SPOKEN[self.outcome]}{why}"


@attrs.frozen(kw_only=True)
class MigrationReport:
    """What a migration did, or would do.

    Attributes:
        source: The URI of the source, without a password.
        versions: One record for each version, by model and number.
        prompts: How many prompts the source has. They aren't models, so they stay.
        dry_run: Whether nothing was done yet.
    """

    source: str
    versions: tuple[MigratedVersion, ...]
    prompts: int = 0
    dry_run: bool = False

    @property
    def counts(self) -> dict[Outcome, int]:
        """How many versions had each outcome."""
        counted = Counter(version.outcome for version in self.versions)
        return {outcome: counted[outcome] for outcome in Outcome if counted[outcome]}

    @property
    def complete(self) -> bool:
        """Whether nothing was skipped."""
        return Outcome.SKIPPED not in self.counts

    @property
    def size(self) -> int:
        """The bytes of the artifacts that were moved, or would be. Artifacts that weren't counted are left out."""
        chosen = {Outcome.PLANNED, Outcome.MOVED}
        return sum(version.size or 0 for version in self.versions if version.outcome in chosen)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a dict that JSON can hold."""
        return {
            "source": self.source,
            "dry_run": self.dry_run,
            "counts": {str(outcome): count for outcome, count in self.counts.items()},
            "prompts": self.prompts,
            "size": self.size,
            "versions": [version.to_dict() for version in self.versions],
        }

    def __str__(self) -> str:
        counted = ", ".join(f"{count} {_SPOKEN[outcome]}" for outcome, count in self.counts.items())
        lossy = sum(1 for version in self.versions if version.lossy)
        parts = [
            f"{counted or 'no versions'} ({show_size(self.size)})",
            *([f"{lossy} not kept in every detail"] if lossy else []),
            *([f"{self.prompts} prompt{'s' * (self.prompts != 1)} left out"] if self.prompts else []),
        ]
        return "; ".join(parts)


def show_size(size: int) -> str:
    """Return a number of bytes in its largest unit."""
    number, units = float(size), ("bytes", "KB", "MB", "GB", "TB")
    for unit in units:
        if number < 1000 or unit == units[-1]:  # noqa: PLR2004  # the step from one unit to the next
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1000
    raise AssertionError


def _jsonable(value: Any) -> Any:
    return str(value) if isinstance(value, StrEnum) else list(value) if isinstance(value, tuple) else value
