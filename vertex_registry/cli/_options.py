"""The options and arguments that several commands share, and the client that they choose."""

from __future__ import annotations

import contextlib
import functools
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from vertex_registry.cli._invocation import Invocation
from vertex_registry.cli._output import FORMATS, note
from vertex_registry.cli._text import FILE, TEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vertex_registry import RegistryClient

STAGES: Final = ("none", "staging", "production", "archived")
_COMPLETION_SECONDS: Final = 3.0
_COMPLETED: Final = 50
_FILE_SECONDS: Final = 5.0  # how long to wait for another command to close a local registry's file
_FILE_POLL: Final = 0.05


COUNT: Final = click.IntRange(min=1)

formatted = click.option(
    "--format",
    "output",
    type=click.Choice(FORMATS),
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


def stage_option(
    text: str, default: str | None = None, stages: Sequence[str] = STAGES
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add an option that takes one of these stages."""
    kind = click.Choice(stages, case_sensitive=False)
    return click.option("--stage", type=kind, default=default, show_default=default is not None, help=text)


def archives(stage: str, *, keep_others: bool) -> bool:
    """Return whether a version that enters a stage archives those that are in it."""
    return stage.lower() in {"staging", "production"} and not keep_others


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is deleted. Without a terminal to ask on, refuse."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Nothing was deleted: there's no terminal to ask. Add --yes.")
    if not click.confirm(question, err=True):
        raise click.Abort


# --- the client -------------------------------------------------------------------------------------------------------


def connected(command: Callable[..., Any], *, patience: float | None = None) -> Callable[..., Any]:
    """Add the options that choose the registry, and pass the command its client.

    Args:
        command: The command.
        patience: For how many seconds its client retries if nobody says. Defaults to the client's default.
    """

    @click.option("--project", type=TEXT, help="The Google Cloud project. Defaults to GOOGLE_CLOUD_PROJECT.")
    @click.option("--location", type=TEXT, help="The location. Defaults to GOOGLE_CLOUD_LOCATION, then us-central1.")
    @click.option(
        "--endpoint",
        type=TEXT,
        help="The address of the service. Defaults to VERTEX_AI_EMULATOR_HOST, then Vertex AI.",
    )
    @click.option("--local", type=FILE, help="Use the local registry in this file.")
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
        from vertex_registry.cli._warnings import show_warnings  # noqa: PLC0415  # likewise

        seconds = patience if timeout is None else timeout
        retry = None if seconds is None else Retry(call_timeout=seconds)
        chosen = {"project": project, "location": location, "endpoint": endpoint, "local": local}
        if (invocation := click.get_current_context().find_object(Invocation)) is not None:
            given = [(f"--{option}", value) for option, value in chosen.items() if value is not None]
            invocation.registry = [word for pair in given for word in pair]
            invocation.name = kwargs.get("name")
            show_warnings(invocation)
        with _client({**chosen, "retry": retry}) as registry:
            return command(registry, *args, **kwargs)

    return run


@contextlib.contextmanager
def _client(settings: dict[str, Any], *, waits: bool = True) -> Iterator[RegistryClient]:
    """Open the registry that the options name.

    Args:
        settings: The options.
        waits: Whether to wait if another command has the file of a local registry open.
    """
    from vertex_registry import RegistryClient, local_registry  # noqa: PLC0415  # likewise

    chosen = {key: settings[key] for key in ("project", "location", "endpoint") if settings.get(key) is not None}
    if settings.get("retry") is not None:
        chosen["retry"] = settings["retry"]
    if settings.get("local") is not None:
        if "endpoint" in chosen:
            raise click.UsageError("Give --local or --endpoint, not both.")
        timeout = _FILE_SECONDS if settings.get("retry") is None else settings["retry"].call_timeout
        seconds = min(timeout, _FILE_SECONDS) if waits else 0.0
        with _open_file(settings["local"], seconds, lambda path: local_registry(path, **chosen)) as registry:
            yield registry
    else:
        with RegistryClient(user_agent="vertex-registry-cli", **chosen) as registry:
            yield registry


def _open_file(path: str, seconds: float, open_registry: Callable[[str], RegistryClient]) -> RegistryClient:
    """Open the file of a local registry, and wait so many seconds if another command has it open.

    Raises:
        ConflictError: It's still open.
    """
    import time  # noqa: PLC0415  # likewise

    from vertex_registry import ConflictError  # noqa: PLC0415  # likewise

    until = time.monotonic() + seconds
    noted = False
    while True:
        try:
            return open_registry(path)
        except ConflictError as error:
            # Without a resource, it's this process that can't open any.
            if error.resource is None or time.monotonic() >= until:
                raise
            if not noted:
                note(f"waiting for {path}, which another command has open")
                noted = True
            time.sleep(_FILE_POLL)


# --- completion -------------------------------------------------------------------------------------------------------


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
    import logging  # noqa: PLC0415  # likewise
    import warnings  # noqa: PLC0415  # likewise

    from vertex_registry import RegistryError, Retry  # noqa: PLC0415  # likewise

    # A warning would be written into the line that's being typed.
    logging.getLogger("vertex_registry").addHandler(logging.NullHandler())
    warnings.simplefilter("ignore")
    try:
        with _client({**ctx.params, "retry": Retry(call_timeout=_COMPLETION_SECONDS)}, waits=False) as registry:
            return [value for value in read(registry) if value.startswith(incomplete)]
    except (RegistryError, click.ClickException):
        return []


model_name = click.argument("name", type=TEXT, shell_complete=_complete_model)
version_of = functools.partial(click.argument, type=TEXT, shell_complete=_complete_version)
