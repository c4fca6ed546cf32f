"""The commands about models: `models` and `duplicates`."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Any, Final

import click

from vertex_registry import _display
from vertex_registry.cli import _output
from vertex_registry.cli._options import COUNT, confirm, confirmed, connected, formatted, model_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vertex_registry import RegisteredModel, RegistryClient


@click.group()
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
@click.option("--limit", type=COUNT, help="Show at most this many.")
def list_models(registry: RegistryClient, output: str, limit: int | None) -> None:
    """List the models, newest first."""
    found = iter(registry.list_models(limit=limit))
    first = next(found, None)
    shown = () if first is None else itertools.chain([first], found)  # read page by page, for `| head`
    _output.show_list(output, shown, _MODEL_COLUMNS, lambda model: model.name)
    if first is None:
        where = _where(click.get_current_context().params, os.environ)
        _output.note(f"no models in {where}; --project and --location choose another registry")


def _where(options: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    """Return which project and location the options and the environment choose."""
    local = options["local"]
    project, location = options["project"], options["location"]
    if local is None:
        project = project or environment.get("GOOGLE_CLOUD_PROJECT")
        location = location or environment.get("GOOGLE_CLOUD_LOCATION")
    if not project and (local is not None or (environment.get("VERTEX_AI_EMULATOR_HOST") and not options["endpoint"])):
        project = "local-project"
    known = f"project {project}" if project else "the default project"
    return f"{known}, location {location or 'us-central1'}" + ("" if local is None else f" of {local}")


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
    _output.show_one(output, model, fields, model.name)


@models.command("delete")
@model_name
@confirmed
@connected
def delete_model(registry: RegistryClient, name: str, *, yes: bool) -> None:
    """Delete a model with all its versions."""
    model = registry.get_model(name)
    count = sum(1 for _ in registry.list_versions(name))
    confirm(f"Delete the model {model.name!r} with its {count} version(s)?", yes=yes)
    registry.delete_model(name)
    _output.note(f"deleted {model.name}")


@click.command()
@connected
@formatted
def duplicates(registry: RegistryClient, output: str) -> None:
    """List the names that several models have."""
    found = registry.duplicates()
    rows = [(name, resource) for name, resources in found.items() for resource in resources]
    if output == "json":
        _output.show_json(found)
    else:
        _output.show_list(
            output, rows, {"name": lambda row: row[0], "resource": lambda row: row[1]}, lambda row: row[1]
        )
