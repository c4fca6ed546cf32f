"""The stage changes that a version remembers."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import attrs
from hypothesis import given
from hypothesis import strategies as st

from vertex_registry import Stage
from vertex_registry._changes import ALWAYS_REMEMBERED, LABELS, Change, Changes, read, write
from vertex_registry._stages import CHANGED_AT_LABEL, CHANGED_BY_LABEL, STAGE_LABEL, format_timestamp

START = dt.datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=dt.UTC)

if TYPE_CHECKING:
    from collections.abc import Sequence

    Step = tuple[Stage, int, str | None, int | None]

AUTHORS = st.one_of(
    st.none(),
    st.sampled_from(
        ["ann@example.com", "deployer@acme-prod.iam.gserviceaccount.com", "42-compute@developer.gserviceaccount.com"]
    ),
    st.text(st.characters(exclude_characters="\n"), min_size=1, max_size=128),
)
# Up to half a year between two changes of one version.
STEPS = st.lists(
    st.tuples(st.sampled_from(list(Stage)), st.integers(0, 15_000_000), AUTHORS, st.none() | st.integers(1, 100_000)),
    min_size=1,
    max_size=30,
)


def apply(version: int, notes: dict[str, str], change: Change) -> dict[str, str]:
    """Return a version's remembered changes after one more change."""
    written: dict[str, str | None] = {**notes, **write(version, read(version, notes), change)}
    written |= {
        STAGE_LABEL: change.stage.label,
        CHANGED_AT_LABEL: format_timestamp(change.at),
        CHANGED_BY_LABEL: change.by,
    }
    return {key: text for key, text in written.items() if text is not None}


def remember(version: int, steps: Sequence[Step]) -> tuple[dict[str, str], list[Change]]:
    """Make changes of stage one by one. Return the notes that remain, and all changes, the latest first."""
    notes: dict[str, str] = {}
    made: list[Change] = []
    moment = START
    for stage, seconds, by, successor in steps:
        moment += dt.timedelta(seconds=seconds)
        made.insert(0, Change(stage, moment, by, successor))
        notes = apply(version, notes, made[0])
    return notes, made


@given(st.integers(1, 1_000_000), STEPS)
def test_the_latest_twelve_changes_are_remembered(version: int, steps: Sequence[Step]) -> None:
    """At least the latest 12 changes keep their stage and time, in two labels."""
    notes, made = remember(version, steps)
    assert all(
        len(notes.get(key, "")) <= 63 and set(notes.get(key, "")) <= set("abcdefghijklmnopqrstuvwxyz234567")
        for key in LABELS
    )
    kept = read(version, notes)
    assert len(kept.latest_first) >= min(ALWAYS_REMEMBERED, len(made))
    assert kept.complete is (len(kept.latest_first) == len(made))
    assert not kept.doubt
    for change, true in zip(kept, made, strict=False):
        assert (change.stage, change.at) == (true.stage, true.at if change.exact else true.at.replace(microsecond=0))
        assert change.by in {true.by, None}
        assert change.successor in {true.successor, None}
        assert not change.doubt
    assert kept.latest_first[0].by == made[0].by


def test_authors_and_successors_come_back() -> None:
    """A history of usual length loses nothing."""
    steps: list[Step] = [
        (Stage.STAGING, 60, "ann@example.com", None),
        (Stage.PRODUCTION, 86_400, "deployer@acme.iam.gserviceaccount.com", None),
    ]
    steps += [(Stage.ARCHIVED, 604_800, "bob@example.com", 7), (Stage.PRODUCTION, 3_600, "ann@example.com", None)]
    notes, made = remember(3, steps)
    kept = read(3, notes)
    assert [(change.stage, change.by, change.successor) for change in kept] == [
        (change.stage, change.by, change.successor) for change in made
    ]
    assert [change.exact for change in kept] == [True, False, False, False]


def test_changes_in_quick_succession_are_exact() -> None:
    """Changes within minutes keep their fractions of a second, so their order is known."""
    notes, made = remember(3, [(stage, 1, "ann@example.com", None) for stage in Stage])
    assert list(read(3, notes)) == made


def test_another_version_does_not_inherit_it() -> None:
    """A history that shows on another version, through its model's labels, isn't that version's."""
    notes, _ = remember(3, [(Stage.PRODUCTION, 60, None, None)])
    history = {key: notes[key] for key in LABELS if key in notes}
    assert read(4, {**history, STAGE_LABEL: "none"}) == Changes()


def test_a_stamp_without_a_history_is_the_last_change_only() -> None:
    """A version from an earlier release remembers its last change, and doesn't claim to know more."""
    notes = {STAGE_LABEL: "production", CHANGED_AT_LABEL: format_timestamp(START), CHANGED_BY_LABEL: "ann@example.com"}
    assert read(1, notes) == Changes((Change(Stage.PRODUCTION, START, "ann@example.com"),), complete=False)


def test_a_stage_that_another_tool_wrote_is_in_doubt() -> None:
    """A stage that differs from the remembered one was changed at an unknown time."""
    notes, _ = remember(1, [(Stage.PRODUCTION, 60, None, None)])
    foreign = read(1, {**notes, STAGE_LABEL: "archived"})
    assert foreign.doubt
    again = read(
        1, apply(1, {**notes, STAGE_LABEL: "archived"}, Change(Stage.PRODUCTION, START + dt.timedelta(hours=1)))
    )
    assert [change.doubt for change in again] == [True, False]
    assert read(1, {STAGE_LABEL: "production"}).doubt


def test_a_change_by_an_earlier_release_is_kept_and_in_doubt() -> None:
    """An earlier release only moves the timestamp, so what it skipped is reported as unknown."""
    notes, _ = remember(1, [(Stage.STAGING, 60, "ann@example.com", None)])
    later = START + dt.timedelta(days=1, microseconds=5)
    kept = read(
        1,
        {
            **notes,
            STAGE_LABEL: "production",
            CHANGED_AT_LABEL: format_timestamp(later),
            CHANGED_BY_LABEL: "bob@example.com",
        },
    )
    assert [(change.stage, change.doubt) for change in kept] == [(Stage.PRODUCTION, True), (Stage.STAGING, False)]


@given(
    st.integers(1, 9),
    st.dictionaries(st.sampled_from(list(LABELS)), st.text("abcdefghijklmnopqrstuvwxyz234567_-", max_size=63)),
)
def test_damaged_labels_are_ignored(version: int, labels: dict[str, str]) -> None:
    """Labels that this package didn't write aren't a history, and never an error."""
    assert read(version, labels) == Changes()


@given(STEPS, st.data())
def test_an_incomplete_history_is_ignored(steps: Sequence[Step], data: st.DataObject) -> None:
    """A history whose labels are incomplete or altered is detected."""
    notes, _ = remember(1, steps)
    key = data.draw(st.sampled_from([key for key in LABELS if key in notes]))
    letter = data.draw(st.integers(0, len(notes[key]) - 1))
    altered = notes[key][:letter] + ("b" if notes[key][letter] == "a" else "a") + notes[key][letter + 1 :]
    kept = read(1, {**notes, key: altered})
    assert len(kept.latest_first) == 1 or kept == read(1, notes)  # trailing bits of base32 mean nothing
    assert attrs.evolve(kept, latest_first=()).complete is False or kept == read(1, notes)
