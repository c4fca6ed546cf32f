"""The commands about stages: `promote`, `rollback` and `history`."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import click

from vertex_registry import _display
from vertex_registry.cli import _output
from vertex_registry.cli._options import (
    STAGES,
    archives,
    connected,
    formatted,
    keep_others,
    model_name,
    stage_option,
    version_of,
)
from vertex_registry.cli._text import TEXT

if TYPE_CHECKING:
    from collections.abc import Callable

    from vertex_registry import RegistryClient, StageChange


@click.command()
@model_name
@version_of("version")
@click.argument("stage", metavar="STAGE", type=click.Choice(STAGES, case_sensitive=False))
@keep_others
@click.option("--make-default", is_flag=True, help="Make it the default version too.")
@connected
@formatted
def promote(
    registry: RegistryClient, name: str, version: str, stage: str, output: str, *, keep_others: bool, make_default: bool
) -> int:
    """Put a version in a stage, and archive what was in it.

    STAGE is none, staging, production or archived.
    """
    alone = archives(stage, keep_others=keep_others)
    promoted = registry.set_stage(name, version, stage, archive_existing=alone, make_default=make_default)
    _output.show_version(promoted, output)
    if str(promoted.stage).lower() != stage.lower():
        _output.note(f"another version claimed {stage} later, so version {promoted.version} is {promoted.stage}")
        return 5
    return 0


@click.command()
@model_name
@stage_option("The stage.", default="production", stages=("staging", "production"))
@connected
@formatted
def rollback(registry: RegistryClient, name: str, stage: str, output: str) -> None:
    """Put back the version that was in a stage before."""
    done = registry.rollback(name, stage=stage)
    _output.show_version(done.restored, output)
    _output.note(str(done))


@click.command()
@model_name
@click.option("--version", "version", type=TEXT, help="Only this version: a number or an alias.")
@click.option(
    "--at",
    metavar="WHEN",
    help="Show what was in the stage then: a date or time (ISO 8601), in UTC unless it has a zone.",
)
@stage_option("With --at: the stage. Defaults to production.")
@connected
@formatted
def history(
    registry: RegistryClient, *, name: str, version: str | None, at: str | None, stage: str | None, output: str
) -> int:
    """Show stage changes, newest first, or what was in a stage at a time."""
    if at is None and stage is not None:
        raise click.UsageError("--stage goes with --at. Without --at, you see the changes of all stages.")
    if at is not None and version is not None:
        raise click.UsageError("Give --at or --version, not both: --at shows which version was in the stage.")
    if at is not None:
        stage = stage or "production"
        moment = _parse_time(at)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=dt.UTC)
            _output.note(f"{at} is read as {moment.isoformat()}, in UTC")
        found = registry.version_at(name, moment, stage=stage)
        if found is None:
            _output.note(f"nothing was in {stage} at {moment.isoformat()}")
            return 3
        _output.show_version(found, output)
        return 0
    changes = registry.stage_history(name, version)
    seconds = [change.changed_at.replace(microsecond=0) for change in changes]
    exact = len(set(seconds)) < len(seconds)  # several changes in one second
    columns: dict[str, Callable[[StageChange], Any]] = {
        "changed at": lambda change: _output.local_time(change.changed_at, exact=exact),
        "version": lambda change: change.version,
        "name": lambda change: change.version_name,
        "stage": lambda change: str(change.stage),
        "by": lambda change: change.changed_by or _display.UNKNOWN,
    }
    _output.show_list(output, changes, columns, lambda change: change.version)
    if not changes.complete:
        _output.note("older changes were dropped, or another tool changed a stage")
    return 0


def _parse_time(text: str) -> dt.datetime:
    """Return the time in an option: in UTC, or without a zone if it names none."""
    try:
        moment = dt.datetime.fromisoformat(text)
        return moment if moment.tzinfo is None else moment.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} isn't a date or time. Write 2026-03-01 or 2026-03-01T12:00Z.", param_hint="'--at'"
        ) from None
