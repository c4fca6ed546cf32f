"""The commands about versions: `versions`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from vertex_registry import _display
from vertex_registry.cli import _conditions, _output
from vertex_registry.cli._options import (
    COUNT,
    archives,
    confirm,
    confirmed,
    connected,
    formatted,
    keep_others,
    model_name,
    stage_option,
    version_of,
)
from vertex_registry.cli._text import TEXT, Path, Text, decoded

if TYPE_CHECKING:
    from collections.abc import Callable

    from vertex_registry import ModelVersion, RegistryClient


@click.group()
def versions() -> None:
    """List, show, register, download, compare and delete versions."""


def _version_columns(shown: tuple[str, ...]) -> dict[str, Callable[[ModelVersion], Any]]:
    def metadata(key: str) -> Callable[[ModelVersion], Any]:
        return lambda version: version.metadata.get(key)

    columns: dict[str, Callable[[ModelVersion], Any]] = {
        "version": lambda version: version.version,
        "name": lambda version: version.version_name,
        "stage": lambda version: str(version.stage),
        "aliases": lambda version: version.aliases,
        "age": lambda version: _display.age(version.created_at),
    }
    return columns | {f"metadata.{key}" if key in columns else key: metadata(key) for key in shown}


@versions.command("list")
@model_name
@connected
@formatted
@click.option("--show", type=TEXT, multiple=True, metavar="KEY", help="Show this metadata key as a column. Repeatable.")
@stage_option("Only versions in this stage.")
@click.option(
    "--where",
    "conditions",
    type=_conditions.parse_condition,
    multiple=True,
    metavar="CONDITION",
    help="Only versions with such metadata: 'accuracy>=0.9'. Repeatable.",
)
@click.option(
    "--sort", type=_conditions.parse_order, metavar="KEY", help="Sort by a field or a metadata key; -KEY is descending."
)
@click.option("--limit", type=COUNT, help="Show at most this many.")
def list_versions(
    registry: RegistryClient,
    *,
    name: str,
    output: str,
    show: tuple[str, ...],
    stage: str | None,
    conditions: tuple[_conditions.Condition, ...],
    sort: _conditions.Order | None,
    limit: int | None,
) -> None:
    """List the versions of a model, newest first."""
    cut = limit if not conditions and sort is None else None
    listed = list(registry.list_versions(name, stage=stage, limit=cut))
    found = [version for version in listed if all(condition.meets(version) for condition in conditions)]
    if sort is not None:
        found = sort.sort(found)
    _output.show_list(output, found[:limit], _version_columns(show), lambda version: version.version)
    if listed:
        _note_typos(listed, show, conditions, sort)


def _note_typos(
    listed: list[ModelVersion],
    show: tuple[str, ...],
    conditions: tuple[_conditions.Condition, ...],
    sort: _conditions.Order | None,
) -> None:
    """Note what none of the versions has, because an empty column or table doesn't say why it's empty."""
    missing = [condition.key for condition in conditions if not any(condition.key in each.metadata for each in listed)]
    asked = [*show, *missing, *([] if sort is None else sort.metadata_keys())]
    for key in dict.fromkeys(asked):
        if not any(key in version.metadata for version in listed):
            hint = ". Use --stage" if key == "stage" and key in missing else ""
            _output.note(f"none of these versions has the metadata key {key!r}{hint}")
    for condition in conditions:
        if condition.key not in missing and not any(condition.applies(version) for version in listed):
            _output.note(
                f"none of these versions has {condition.kind} in {condition.key!r}, as {condition.text!r} needs"
            )


@versions.command("show")
@model_name
@version_of("version", default="default")
@connected
@formatted
def show_version(registry: RegistryClient, name: str, version: str, output: str) -> None:
    """Show one version.

    VERSION is a number or an alias, and defaults to the default version.
    """
    _output.show_version(registry.get_version(name, version), output)


def _parse_pair(text: str) -> tuple[str, Any]:
    key, separator, value = decoded(text).partition("=")
    if not key.strip() or not separator:
        raise click.BadParameter(f"{text!r} isn't KEY=VALUE.")
    if not value.strip():  # more likely an unset variable than meant
        raise click.BadParameter(f"{key!r} has no value. For an empty text, type '{key}=\"\"'.")
    try:
        return key, json.loads(value)
    except (ValueError, RecursionError):
        if value.lstrip()[0] in '{["':
            _output.note(f"{key!r} is text, because it isn't JSON")
        return key, value


def _to_metadata(pairs: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    """Return the metadata in options. A key that's given twice is more likely a typo than a correction."""
    metadata: dict[str, Any] = {}
    for key, value in pairs:
        if key in metadata:
            raise click.BadParameter(f"The key {key!r} is given twice.", param_hint="'--metadata'")
        metadata[key] = value
    return metadata


def _source(text: str) -> str:
    """Return a source. A folder's name is bytes and may be in any encoding, but a URI is text."""
    if not text.strip():
        raise click.BadParameter("It's empty.")
    return decoded(text) if "://" in text else text


@versions.command("register")
@model_name
@click.argument("source", type=_source)
@connected
@formatted
@click.option("--version-name", type=TEXT, help="A name of your own, such as '1.2.0'.")
@click.option("--description", type=Text(may_be_empty=True), help="What this version is.")
@click.option(
    "--metadata",
    "-m",
    "pairs",
    type=_parse_pair,
    multiple=True,
    metavar="KEY=VALUE",
    help="Metadata; VALUE may be JSON. Repeatable.",
)
@stage_option("The stage it begins in.", default="none")
@keep_others
@click.option(
    "--make-default/--no-make-default", default=True, help="Whether it becomes the default version. By default it does."
)
@click.option("--alias", "aliases", type=TEXT, multiple=True, help="An alias for the version. Repeatable.")
@click.option("--staging-bucket", type=TEXT, help="Where a local folder is uploaded to: gs://bucket.")
@click.option(
    "--container", type=TEXT, help="What serves it: an image, or a framework such as 'sklearn' or 'xgboost:2.1'."
)
@click.option("--request-id", type=TEXT, help="Makes the command safe to repeat: the same id never registers twice.")
def register_version(registry: RegistryClient, name: str, source: str, output: str, **options: Any) -> None:
    """Register SOURCE as the next version of a model.

    SOURCE is a gs:// directory, or a local folder to upload.
    """
    metadata = _to_metadata(options.pop("pairs"))
    alone = archives(options["stage"], keep_others=options.pop("keep_others"))
    version = registry.register_version(name, source, metadata=metadata, archive_existing=alone, **options)
    _output.show_version(version, output)


@versions.command("download")
@model_name
@version_of("version", default="default")
@click.option("--to", "destination", type=Path(), help="The folder to create. Defaults to one in the cache.")
@connected
def download_version(registry: RegistryClient, name: str, version: str, destination: str | None) -> None:
    """Download a version's artifact and print its folder."""
    click.echo(str(registry.download_version(name, version, destination)))


@versions.command("delete")
@model_name
@version_of("version")
@confirmed
@connected
def delete_version(registry: RegistryClient, name: str, version: str, *, yes: bool) -> None:
    """Delete a version. The last version of a model takes the model with it."""
    found = registry.get_version(name, version)
    confirm(f"Delete version {found.version} of {found.name!r}, which is in stage {found.stage}?", yes=yes)
    registry.delete_version(name, found.version)
    _output.note(f"deleted version {found.version} of {found.name}")


@versions.command("diff")
@model_name
@version_of("a")
@version_of("b")
@connected
@formatted
def diff_versions(registry: RegistryClient, name: str, a: str, b: str, output: str) -> None:
    """Show what differs between two versions."""
    diff = registry.diff(name, a, b)
    if not diff.changes:
        _output.note("no difference")
        if output == "table":
            return
    if output == "json":
        _output.show_json(diff.to_dict())
    elif output == "ids":
        for field in diff.changes:
            click.echo(field)
    else:
        rows = {"field": lambda row: row[0], diff.a.version: lambda row: row[1], diff.b.version: lambda row: row[2]}
        changed = [(field, *values) for field, values in diff.changes.items()]
        _output.show_list(output, [_with_authors(row, diff.a, diff.b) for row in changed], rows, str)


def _with_authors(row: tuple[Any, ...], *versions: ModelVersion) -> tuple[Any, ...]:
    """Return a row of a difference that says who changed the stages, even if nobody knows."""
    field, *values = row
    if field != "stage_changed_by":
        return row
    pairs = zip(values, versions, strict=True)
    return (field, *(_display.author(by, version.stage_changed_at) for by, version in pairs))


@versions.command("prune")
@model_name
@click.option("--keep", type=COUNT, required=True, help="How many of the newest versions to keep.")
@click.option("--dry-run", is_flag=True, help="Only show what would be deleted.")
@confirmed
@connected
@formatted
def prune_versions(registry: RegistryClient, name: str, keep: int, output: str, *, dry_run: bool, yes: bool) -> None:
    """Delete old versions that nothing uses.

    Versions in Staging or Production, with an alias or deployed to an endpoint are kept.
    """
    plan = registry.prune(name, keep=keep, dry_run=True)
    if not dry_run and plan.deleted:
        confirm(f"Delete {len(plan.deleted)} version(s) of {name!r}?", yes=yes)
        plan = registry.prune(name, keep=keep)
    _output.show_list(output, plan.deleted, _version_columns(()), lambda version: version.version)
    outcome = "would delete" if dry_run else "deleted"
    _output.note(f"{outcome} {len(plan.deleted)}, kept {len(plan.kept)}")
