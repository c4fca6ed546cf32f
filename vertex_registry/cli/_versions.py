"""The commands about versions: `versions`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from vertex_registry import _display
from vertex_registry.cli import _conditions, _output
from vertex_registry.cli._options import (
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
@click.option("--show", multiple=True, metavar="KEY", help="Show this metadata key as a column. Repeatable.")
@stage_option("Only versions in this stage.")
@click.option(
    "--where", multiple=True, metavar="CONDITION", help="Only versions with such metadata: 'accuracy>=0.9'. Repeatable."
)
@click.option("--sort", metavar="KEY", help="Sort by a field or a metadata key; -KEY is descending.")
@click.option("--limit", type=click.IntRange(min=1), help="Show at most this many.")
def list_versions(
    registry: RegistryClient,
    *,
    name: str,
    output: str,
    show: tuple[str, ...],
    stage: str | None,
    where: tuple[str, ...],
    sort: str | None,
    limit: int | None,
) -> None:
    """List the versions of a model, newest first."""
    conditions = [_conditions.parse_condition(text) for text in where]
    cut = limit if not conditions and sort is None else None
    listed = list(registry.list_versions(name, stage=stage, limit=cut))
    found = [version for version in listed if all(condition.meets(version) for condition in conditions)]
    if sort is not None:
        found = _conditions.sort(found, sort)
    _output.show_list(output, found[:limit], _version_columns(show), lambda version: version.version)
    asked = [*show, *(condition.key for condition in conditions), *_conditions.metadata_keys(sort)]
    for key in dict.fromkeys(asked) if listed else ():
        if not any(key in version.metadata for version in listed):
            _output.note(f"none of these versions has the metadata key {key!r}")


@versions.command("show")
@model_name
@version_of("version", default="default")
@connected
@formatted
def show_version(registry: RegistryClient, name: str, version: str, output: str) -> None:
    """Show one version: VERSION is a number or an alias, and defaults to the default version."""
    _output.show_version(registry.get_version(name, version), output)


@versions.command("register")
@model_name
@click.argument("source")
@connected
@formatted
@click.option("--version-name", help="A name of your own, such as '1.2.0'.")
@click.option("--description", help="What this version is.")
@click.option("--metadata", "-m", multiple=True, metavar="KEY=VALUE", help="Metadata; VALUE may be JSON. Repeatable.")
@stage_option("The stage it begins in.", default="none")
@keep_others
@click.option(
    "--make-default/--no-make-default", default=True, help="Whether it becomes the default version. By default it does."
)
@click.option("--alias", "aliases", multiple=True, help="An alias for the version. Repeatable.")
@click.option("--staging-bucket", help="Where a local folder is uploaded to: gs://bucket.")
@click.option("--container", help="What serves it: an image, or a framework such as 'sklearn' or 'xgboost:2.1'.")
@click.option("--request-id", help="Makes the command safe to repeat: the same id never registers twice.")
def register_version(registry: RegistryClient, name: str, source: str, output: str, **options: Any) -> None:
    """Register SOURCE, a gs:// directory or a local folder, as the next version of a model."""
    metadata = _parse_pairs(options.pop("metadata"))
    alone = archives(options["stage"], keep_others=options.pop("keep_others"))
    version = registry.register_version(name, source, metadata=metadata, archive_existing=alone, **options)
    _output.show_version(version, output)


@versions.command("download")
@model_name
@version_of("version", default="default")
@click.option("--to", "destination", type=click.Path(), help="The folder to create. Defaults to one in the cache.")
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
    if output == "json":
        click.echo(json.dumps(diff.to_dict(), indent=2, ensure_ascii=False))
    elif output == "ids":
        for field in diff.changes:
            click.echo(field)
    else:
        rows = {"field": lambda row: row[0], diff.a.version: lambda row: row[1], diff.b.version: lambda row: row[2]}
        _output.show_list(output, [(field, *values) for field, values in diff.changes.items()], rows, str)


@versions.command("prune")
@model_name
@click.option("--keep", type=click.IntRange(min=1), required=True, help="How many of the newest versions to keep.")
@click.option("--dry-run", is_flag=True, help="Only show what would be deleted.")
@confirmed
@connected
@formatted
def prune_versions(registry: RegistryClient, name: str, keep: int, output: str, *, dry_run: bool, yes: bool) -> None:
    """Delete old versions that nothing uses: no stage, no alias, not deployed."""
    plan = registry.prune(name, keep=keep, dry_run=True)
    if not dry_run and plan.deleted:
        confirm(f"Delete {len(plan.deleted)} version(s) of {name!r}?", yes=yes)
        plan = registry.prune(name, keep=keep)
    _output.show_list(output, plan.deleted, _version_columns(()), lambda version: version.version)
    _output.note(f"{'would delete' if plan.dry_run else 'deleted'} {len(plan.deleted)}, kept {len(plan.kept)}")


def _parse_pairs(texts: tuple[str, ...]) -> dict[str, Any]:
    """Return the metadata in options. A key that's given twice is more likely a typo than a correction."""
    metadata: dict[str, Any] = {}
    for key, value in map(_parse_pair, texts):
        if key in metadata:
            raise click.BadParameter(f"The key {key!r} is given twice.")
        metadata[key] = value
    return metadata


def _parse_pair(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not key or not separator:
        raise click.BadParameter(f"{text!r} isn't KEY=VALUE.")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
