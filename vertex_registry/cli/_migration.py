"""The commands that bring other registries over: `migrate`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import click

from vertex_registry.cli import _messages, _output
from vertex_registry.cli._invocation import Invocation
from vertex_registry.cli._options import connected, formatted
from vertex_registry.cli._text import TEXT

if TYPE_CHECKING:
    from collections.abc import Callable

    from vertex_registry import RegistryClient
    from vertex_registry.migration import MigratedVersion, MigrationReport


@click.group()
def migrate() -> None:
    """Bring another model registry over."""


#: How the table calls each outcome of a version's migration.
_OUTCOMES: Final = {"planned": "to move", "moved": "moved", "exists": "already there", "skipped": "skipped"}

_MIGRATED_COLUMNS: Final[dict[str, Callable[[MigratedVersion], Any]]] = {
    "model": lambda line: line.model,
    "mlflow": lambda line: line.number,
    "vertex": lambda line: line.version,
    "outcome": lambda line: _OUTCOMES[line.outcome],
    "size": lambda line: line.size,
    "why": lambda line: _translate(line.reason),
    "not kept": lambda line: "; ".join(line.lossy),
}


@migrate.command("mlflow")
@click.option("--from", "source", type=TEXT, metavar="URI", required=True, help="The URI of MLflow's registry.")
@click.option("--model", "models", type=TEXT, multiple=True, help="Only this model, by its name in MLflow. Repeatable.")
@click.option("--rename", type=click.Path(exists=True, dir_okay=False), help="A JSON file with new names by old ones.")
@click.option("--staging-bucket", type=TEXT, help="Where artifacts are copied to: gs://bucket.")
@click.option("--container", type=TEXT, help="What serves the versions: an image, or a framework such as 'sklearn'.")
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@connected
@formatted
def migrate_mlflow(
    registry: RegistryClient,
    *,
    source: str,
    models: tuple[str, ...],
    rename: str | None,
    staging_bucket: str | None,
    container: str | None,
    dry_run: bool,
    output: str,
) -> int:
    """Copy the models and versions of an MLflow registry that aren't there yet.

    Run it again after an interruption, or when MLflow has new versions. Versions that were moved stay as they are.
    """
    from vertex_registry import LocalRegistry  # noqa: PLC0415  # --help doesn't need it
    from vertex_registry.migration import plan_mlflow  # noqa: PLC0415  # likewise

    if staging_bucket is None and not dry_run and not isinstance(registry, LocalRegistry):
        raise click.UsageError("Artifacts have to be copied to Cloud Storage. Add --staging-bucket gs://bucket.")
    names = {} if rename is None else _read_names(rename)
    migration = plan_mlflow(registry, source, models=models or None, rename=names)
    _output.note(f"{migration.plan.source}: {migration.plan}")
    if dry_run:
        _show_report(migration.plan, output)
        return 0 if migration.plan.complete else 1
    done: list[MigratedVersion] = []
    count = sum(1 for line in migration.plan.versions if line.outcome == "planned")
    try:
        for line in migration.run(staging_bucket=staging_bucket, container=container):
            done.append(line)
            _output.note(f"[{len(done)}/{count}] {_translate(str(line))}")
    except KeyboardInterrupt:
        _show_report(migration.report(done), output)
        _output.note("Run the same command again to continue.")
        raise
    report = migration.report(done)
    _show_report(report, output)
    if migration.stopped_by is not None:
        _output.note(f"stopped: {_translate(str(migration.stopped_by))}\nRun the same command again to continue.")
    return 0 if report.complete else 1


def _translate(message: str) -> str:
    invocation = click.get_current_context().find_object(Invocation)
    return message if invocation is None else _messages.translate(message, invocation)


def _show_report(report: MigrationReport, output: str) -> None:
    if output == "json":
        _output.show_json(report.to_dict())
        return
    _output.show_list(output, report.versions, _MIGRATED_COLUMNS, lambda line: f"{line.model} {line.number or '-'}")
    for warning in dict.fromkeys(warning for line in report.versions for warning in line.warnings):
        _output.note(f"warning: {_translate(warning)}")
    _output.note(str(report))


def _read_names(path: str) -> dict[str, str]:
    """Return the names in the file that ``--rename`` names."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise click.BadParameter(f"{path} has {key!r} twice.", param_hint="'--rename'")
            found[key] = value
        return found

    form = 'a JSON object such as {"old name": "new name"}'
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123  # click gives text
            names = json.load(file, object_pairs_hook=unique)
    except (OSError, ValueError, RecursionError) as error:
        raise click.BadParameter(f"{path} isn't {form}: {error}.", param_hint="'--rename'") from None
    if not isinstance(names, dict) or not all(isinstance(name, str) and name for name in names.values()):
        raise click.BadParameter(f"{path} isn't {form}.", param_hint="'--rename'")
    return names
