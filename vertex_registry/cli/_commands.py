"""The commands. Each opens a client, calls one verb, and prints what came back."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import ipaddress
import json
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

import click

from vertex_registry import _display
from vertex_registry._display import printable
from vertex_registry.cli import _conditions, _output
from vertex_registry.cli._messages import Invocation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vertex_registry import ModelVersion, RegisteredModel, RegistryClient, StageChange
    from vertex_registry.migration import MigratedVersion, MigrationReport
    from vertex_registry.ui import Opening

STAGES: Final = ("none", "staging", "production", "archived")
_COMPLETION_SECONDS: Final = 3.0
_COMPLETED: Final = 50
_PAGE_SECONDS: Final = 20.0  # nobody waits for a page any longer


@contextlib.contextmanager
def _client(settings: dict[str, Any]) -> Iterator[RegistryClient]:
    """Open the registry that the options name."""
    from vertex_registry import RegistryClient, local_registry  # noqa: PLC0415  # --help doesn't need them

    chosen = {key: settings[key] for key in ("project", "location", "endpoint") if settings.get(key) is not None}
    if settings.get("retry") is not None:
        chosen["retry"] = settings["retry"]
    if settings.get("local") is not None:
        if "endpoint" in chosen:
            raise click.UsageError("Give --local or --endpoint, not both.")
        with local_registry(settings["local"], **chosen) as registry:
            yield registry
    else:
        with RegistryClient(user_agent="vertex-registry-cli", **chosen) as registry:
            yield registry


def connected(command: Callable[..., Any], *, patience: float | None = None) -> Callable[..., Any]:
    """Add the options that choose the registry, and pass the command its client.

    Args:
        command: The command.
        patience: For how many seconds its client retries if nobody says. Defaults to the client's default.
    """

    @click.option("--project", help="The Google Cloud project. Defaults to GOOGLE_CLOUD_PROJECT.")
    @click.option("--location", help="The location. Defaults to GOOGLE_CLOUD_LOCATION, then us-central1.")
    @click.option("--endpoint", help="The address of the service. Defaults to VERTEX_AI_EMULATOR_HOST, then Vertex AI.")
    @click.option("--local", type=click.Path(dir_okay=False), help="Use the local registry in this file.")
    @click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help=f"How long to retry before giving up. Defaults to {patience or 60:g}; uploads have more.",
    )
    @functools.wraps(command)
    def run(
        *args: Any,
        project: str | None,
        location: str | None,
        endpoint: str | None,
        local: str | None,
        timeout: float | None,
        **kwargs: Any,
    ) -> Any:
        from vertex_registry import Retry  # noqa: PLC0415  # --help doesn't need it

        seconds = patience if timeout is None else timeout
        retry = None if seconds is None else Retry(call_timeout=seconds)
        chosen = {"project": project, "location": location, "endpoint": endpoint, "local": local}
        if (invocation := click.get_current_context().find_object(Invocation)) is not None:
            given = [(f"--{option}", value) for option, value in chosen.items() if value is not None]
            invocation.registry = [word for pair in given for word in pair]
            invocation.name = kwargs.get("name")
        with _client({**chosen, "retry": retry}) as registry:
            return command(registry, *args, **kwargs)

    return run


def stage_option(text: str, default: str | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add an option that takes a stage."""
    stages = click.Choice(STAGES, case_sensitive=False)
    return click.option("--stage", type=stages, default=default, show_default=default is not None, help=text)


formatted = click.option(
    "--format",
    "output",
    type=click.Choice(_output.FORMATS),
    default="table",
    show_default=True,
    help="A table to read, JSON with whole records, or one id a line.",
)
keep_others = click.option(
    "--keep-others",
    is_flag=True,
    help="Leave other versions in Staging or Production. By default they're archived.",
)
confirmed = click.option("--yes", "-y", is_flag=True, help="Don't ask before deleting.")


def _complete_model(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return _complete(ctx, lambda registry: [model.name for model in registry.list_models(limit=200)], incomplete)


def _complete_version(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    if not (name := ctx.params.get("name")):
        return []

    def versions(registry: RegistryClient) -> list[str]:
        found = list(registry.list_versions(name, limit=_COMPLETED))
        return [alias for version in found for alias in version.aliases] + [version.version for version in found]

    return _complete(ctx, versions, incomplete)


def _complete(ctx: click.Context, read: Callable[[RegistryClient], list[str]], incomplete: str) -> list[str]:
    """Return what a registry offers for completion; a registry that doesn't answer offers nothing."""
    from vertex_registry import RegistryError, Retry  # noqa: PLC0415  # likewise

    try:
        with _client({**ctx.params, "retry": Retry(call_timeout=_COMPLETION_SECONDS)}) as registry:
            return [value for value in read(registry) if value.startswith(incomplete)]
    except (RegistryError, click.ClickException):
        return []


model_name = click.argument("name", shell_complete=_complete_model)
version_of = functools.partial(click.argument, shell_complete=_complete_version)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="vertex-registry", prog_name="vertex-registry")
def cli() -> None:
    """Work with a Vertex AI Model Registry, or a local one.

    \b
    vertex-registry models list
    vertex-registry versions list churn --show accuracy --sort -accuracy
    vertex-registry promote churn 7 production
    vertex-registry history churn --at 2026-03-01
    """  # noqa: D301  # Click reads the backspace, and doesn't wrap what follows it


# --- models -----------------------------------------------------------------------------------------------------------


@cli.group()
def models() -> None:
    """List, show and delete models."""


_MODEL_COLUMNS: Final[dict[str, Callable[[RegisteredModel], Any]]] = {
    "name": lambda model: model.name,
    "default": lambda model: model.default_version,
    "description": lambda model: model.description,
    "age": lambda model: _display.age(model.created_at),
    "changed": lambda model: _display.age(model.updated_at),
}


@models.command("list")
@connected
@formatted
@click.option("--limit", type=click.IntRange(min=1), help="Show at most this many.")
def list_models(registry: RegistryClient, output: str, limit: int | None) -> None:
    """List the models, newest first."""
    _output.show_list(output, registry.list_models(limit=limit), _MODEL_COLUMNS, lambda model: model.name)


@models.command("show")
@model_name
@connected
@formatted
def show_model(registry: RegistryClient, name: str, output: str) -> None:
    """Show one model."""
    model = registry.get_model(name)
    fields = {
        "name": model.name,
        "resource": model.resource_name,
        "default": model.default_version,
        "description": model.description,
        "managed by": model.managed_by,
        "created": model.created_at,
        "changed": model.updated_at,
    }
    _output.show_one(output, model, fields, model.resource_name)


@models.command("delete")
@model_name
@confirmed
@connected
def delete_model(registry: RegistryClient, name: str, *, yes: bool) -> None:
    """Delete a model with all its versions."""
    model = registry.get_model(name)
    count = sum(1 for _ in registry.list_versions(name))
    _confirm(f"Delete the model {model.name!r} with its {count} version(s)?", yes=yes)
    registry.delete_model(name)
    _output.note(f"deleted {model.name}")


# --- versions ---------------------------------------------------------------------------------------------------------


@cli.group()
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
    _show_version(registry.get_version(name, version), output)


def _show_version(version: ModelVersion, output: str) -> None:
    fields: dict[str, Any] = {
        "model": version.name,
        "version": version.version,
        "name": version.version_name,
        "stage": str(version.stage),
        "changed by": version.stage_changed_by,
        "changed at": version.stage_changed_at,
        "aliases": version.aliases,
        "description": version.description,
        "more metadata": version.metadata_file,
        "artifact": version.artifact_uri,
        "image": None if version.container is None else version.container.image,
        "created": version.created_at,
        "resource": version.resource_name,
        **{f"metadata.{key}": value for key, value in version.metadata.items()},
    }
    shown = {key: value for key, value in fields.items() if value not in (None, "", ())}
    _output.show_one(output, version, shown, version.version)


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
    alone = _archives(options["stage"], keep_others=options.pop("keep_others"))
    version = registry.register_version(name, source, metadata=metadata, archive_existing=alone, **options)
    _show_version(version, output)


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
    _confirm(f"Delete version {found.version} of {found.name!r}, which is in stage {found.stage}?", yes=yes)
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
        _confirm(f"Delete {len(plan.deleted)} version(s) of {name!r}?", yes=yes)
        plan = registry.prune(name, keep=keep)
    _output.show_list(output, plan.deleted, _version_columns(()), lambda version: version.version)
    _output.note(f"{'would delete' if plan.dry_run else 'deleted'} {len(plan.deleted)}, kept {len(plan.kept)}")


# --- stages and aliases -----------------------------------------------------------------------------------------------


@cli.command()
@model_name
@version_of("version")
@click.argument("stage", type=click.Choice(STAGES, case_sensitive=False))
@keep_others
@click.option("--make-default", is_flag=True, help="Make it the default version too.")
@connected
@formatted
def promote(
    registry: RegistryClient, name: str, version: str, stage: str, output: str, *, keep_others: bool, make_default: bool
) -> int:
    """Put a version in a stage, and archive what was in it."""
    alone = _archives(stage, keep_others=keep_others)
    promoted = registry.set_stage(name, version, stage, archive_existing=alone, make_default=make_default)
    _show_version(promoted, output)
    if str(promoted.stage).lower() != stage.lower():
        _output.note(f"another version claimed {stage} later, so version {promoted.version} is {promoted.stage}")
        return 5
    return 0


@cli.command()
@model_name
@stage_option("Staging or production.", default="production")
@connected
@formatted
def rollback(registry: RegistryClient, name: str, stage: str, output: str) -> None:
    """Put back the version that was in a stage before."""
    done = registry.rollback(name, stage=stage)
    _show_version(done.restored, output)
    _output.note(str(done))


@cli.command()
@model_name
@click.option("--version", "version", help="Only this version: a number or an alias.")
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
    """Show the stage changes of a model, or what was in a stage at a time."""
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
        _show_version(found, output)
        return 0
    changes = registry.stage_history(name, version)
    columns: dict[str, Callable[[StageChange], Any]] = {
        "changed at": lambda change: change.changed_at,
        "version": lambda change: change.version,
        "name": lambda change: change.version_name,
        "stage": lambda change: str(change.stage),
        "by": lambda change: change.changed_by,
    }
    _output.show_list(output, changes, columns, lambda change: change.version)
    if not changes.complete:
        _output.note("older changes were dropped, or another tool changed a stage")
    return 0


@cli.group()
def alias() -> None:
    """Set and remove aliases."""


@alias.command("set")
@model_name
@version_of("version")
@click.argument("aliases", nargs=-1, required=True)
@connected
@formatted
def set_alias(registry: RegistryClient, name: str, version: str, aliases: tuple[str, ...], output: str) -> None:
    """Add aliases to a version. An alias that another version has moves here."""
    _show_version(registry.add_aliases(name, version, aliases), output)


@alias.command("remove")
@model_name
@version_of("version")
@click.argument("aliases", nargs=-1, required=True)
@connected
@formatted
def remove_alias(registry: RegistryClient, name: str, version: str, aliases: tuple[str, ...], output: str) -> None:
    """Remove aliases from a version."""
    _show_version(registry.remove_aliases(name, version, aliases), output)


@cli.command()
@connected
@formatted
def duplicates(registry: RegistryClient, output: str) -> None:
    """List the names that several models have."""
    found = registry.duplicates()
    rows = [(name, resource) for name, resources in found.items() for resource in resources]
    if output == "json":
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        _output.show_list(
            output, rows, {"name": lambda row: row[0], "resource": lambda row: row[1]}, lambda row: row[1]
        )


# --- other registries -------------------------------------------------------------------------------------------------


@cli.group()
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
@click.option("--from", "source", metavar="URI", required=True, help="The URI of MLflow's registry.")
@click.option("--model", "models", multiple=True, help="Only this model, by its name in MLflow. Repeatable.")
@click.option("--rename", type=click.Path(exists=True, dir_okay=False), help="A JSON file with new names by old ones.")
@click.option("--staging-bucket", help="Where artifacts are copied to: gs://bucket.")
@click.option("--container", help="What serves the versions: an image, or a framework such as 'sklearn'.")
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
    from vertex_registry import LocalRegistry  # noqa: PLC0415  # likewise
    from vertex_registry.migration import plan_mlflow  # noqa: PLC0415  # likewise

    if staging_bucket is None and not dry_run and not isinstance(registry, LocalRegistry):
        raise click.UsageError("Artifacts have to be copied to Cloud Storage. Add --staging-bucket gs://bucket.")
    names = {} if rename is None else _read_names(rename)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # this command shows progress itself
    migration = plan_mlflow(registry, source, models=models or None, rename=names, container=container)
    _output.note(f"{migration.plan.source}: {migration.plan}")
    if dry_run:
        _show_report(migration.plan, output)
        return 0 if migration.plan.complete else 1
    done: list[MigratedVersion] = []
    count = sum(1 for line in migration.plan.versions if line.outcome == "planned")
    try:
        for line in migration.run(staging_bucket=staging_bucket):
            done.append(line)
            _output.note(printable(f"[{len(done)}/{count}] {_translate(str(line))}"))
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
    return message if invocation is None else invocation.translate(message)


def _show_report(report: MigrationReport, output: str) -> None:
    if output == "json":
        click.echo(json.dumps(report.to_dict(), indent=2, ensure_ascii=False))
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


# --- the site ---------------------------------------------------------------------------------------------------------


@cli.command()
@functools.partial(connected, patience=_PAGE_SECONDS)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8472, show_default=True, help="The port, 0 for any free port."
)
@click.option("--allow-host", multiple=True, metavar="NAME", help="Another name that it answers to. Repeatable.")
def ui(registry: RegistryClient, host: str, port: int, allow_host: tuple[str, ...]) -> None:
    """Show the registry as a read-only site, until Ctrl-C."""
    from vertex_registry.ui import Site  # noqa: PLC0415  # no other command needs it

    stop = threading.Event()
    settings = click.get_current_context().params
    site = Site(registry, registry_name=_name_of(settings), opening=_opening_of(settings))
    try:
        from vertex_registry.emulator import SiteServer  # noqa: PLC0415  # likewise

        server = SiteServer(site, host=host, port=port, allowed_hosts=allow_host)
    except (ImportError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    with server:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        # What means every address isn't one that a browser can open.
        click.echo(f"{server.address.replace('//0.0.0.0:', '//127.0.0.1:').replace('//[::]:', '//[::1]:')}/")
        if not _is_loopback(host):
            _output.note("Everybody who can reach this address can read the registry with your credentials.")
        stop.wait()


def _opening_of(settings: dict[str, Any]) -> Opening:
    """Return how to open the registry that the options name, for what people copy from the site."""
    from vertex_registry.ui import Opening  # noqa: PLC0415  # likewise

    if (path := settings["local"]) is not None:
        return Opening("local_registry", path=path, options=("--local", path))
    given = {key: settings[key] for key in ("project", "location", "endpoint") if settings[key]}
    return Opening(settings=given)


def _name_of(settings: dict[str, Any]) -> str:
    if settings["local"] is not None:
        return str(settings["local"])
    project = settings["project"] or os.environ.get("GOOGLE_CLOUD_PROJECT")
    location = settings["location"] or os.environ.get("GOOGLE_CLOUD_LOCATION")
    return " · ".join(each for each in (project, location, settings["endpoint"]) if each)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# --- the emulator -----------------------------------------------------------------------------------------------------


class _Emulator(click.Group):
    """A group that passes everything but its own commands to the emulator."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and (args[0] in self.commands or args[0] in ctx.help_option_names):
            return super().parse_args(ctx, args)
        ctx.args = list(args)
        return ctx.args


@cli.group(cls=_Emulator, invoke_without_command=True, options_metavar="[EMULATOR OPTIONS]")
@click.pass_context
def emulator(ctx: click.Context) -> None:
    """Run the local emulator.

    The options are those of `python -m vertex_registry.emulator`, such as --rest-port 8471 --data registry.db.
    """
    if ctx.invoked_subcommand is None:
        command = [sys.executable, "-m", "vertex_registry.emulator", *ctx.args]
        os.execv(sys.executable, command)  # noqa: S606  # it takes this process over, signals and all


@emulator.command("exec", context_settings={"ignore_unknown_options": True})
@click.option("--data", type=click.Path(dir_okay=False), help="Keep the registry in this file.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(command: tuple[str, ...], data: str | None) -> int:
    """Run COMMAND with an emulator of its own, and exit with its status.

    The emulator serves gRPC on a free port, and VERTEX_AI_EMULATOR_HOST names it.
    """
    from vertex_registry.emulator import DataFileError, Emulator  # noqa: PLC0415  # likewise

    with contextlib.ExitStack() as stack:
        try:
            running = stack.enter_context(Emulator(data, rest_port=None))
        except (DataFileError, ValueError, OSError) as error:
            raise click.ClickException(str(error)) from None
        environment = {"GOOGLE_CLOUD_PROJECT": "local-project", **os.environ, "VERTEX_AI_EMULATOR_HOST": running.grpc}
        try:
            process = subprocess.Popen(command, env=environment)  # noqa: S603  # the user typed it
        except OSError as error:
            raise click.UsageError(f"{command[0]!r} can't be run: {error.strerror}.") from None
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda received, _: process.send_signal(received))
        while True:
            with contextlib.suppress(KeyboardInterrupt):  # the terminal has sent it to the command too
                status = process.wait()
                break
        running.forget_faults()
    return 128 - status if status < 0 else status


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell: eval "$(vertex-registry completion bash)"."""
    from click.shell_completion import get_completion_class  # noqa: PLC0415  # only this command needs it

    kind = get_completion_class(shell)
    assert kind is not None, shell  # noqa: S101  # the choices above
    click.echo(kind(cli, {}, "vertex-registry", "_VERTEX_REGISTRY_COMPLETE").source())


def _archives(stage: str, *, keep_others: bool) -> bool:
    """Return whether a version that enters a stage archives those that are in it."""
    return stage.lower() in {"staging", "production"} and not keep_others


def _confirm(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Nothing was deleted: there's no terminal to ask. Add --yes.")
    if not click.confirm(question, err=True):
        raise click.Abort


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


def _parse_time(text: str) -> dt.datetime:
    """Return the time in an option: in UTC, or without a zone if it names none."""
    try:
        moment = dt.datetime.fromisoformat(text)
        return moment if moment.tzinfo is None else moment.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{text!r} isn't a date or time. Write 2026-03-01 or 2026-03-01T12:00Z.") from None
