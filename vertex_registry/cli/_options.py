"""The options and arguments that several commands share, and the client that they choose."""

from __future__ import annotations

import contextlib
import functools
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from vertex_registry.cli._invocation import Invocation
from vertex_registry.cli._output import FORMATS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vertex_registry import RegistryClient

STAGES: Final = ("none", "staging", "production", "archived")
_COMPLETION_SECONDS: Final = 3.0
_COMPLETED: Final = 50


class Text(click.ParamType):
    """Text that the command can use: an empty one is more likely an unset variable than meant.

    Args:
        may_be_empty: Whether an empty text has a meaning.
    """

    name = "text"

    def __init__(self, *, may_be_empty: bool = False) -> None:
        self._may_be_empty = may_be_empty

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if not text.strip() and not self._may_be_empty:
            self.fail("It's empty.", param, ctx)
        try:
            text.encode()
        except UnicodeEncodeError:  # Python keeps a byte that it can't decode as half of a surrogate pair
            encoding = sys.getfilesystemencoding()
            remedy = (
                "Use a terminal that sends UTF-8."
                if encoding == "utf-8"
                else "Set a UTF-8 locale, such as LC_ALL=C.UTF-8, or PYTHONUTF8=1."
            )
            self.fail(f"{text!r} has bytes that aren't {encoding}. {remedy}", param, ctx)
        return text


TEXT: Final = Text()

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


def stage_option(text: str, default: str | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add an option that takes a stage."""
    stages = click.Choice(STAGES, case_sensitive=False)
    return click.option("--stage", type=stages, default=default, show_default=default is not None, help=text)


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


@contextlib.contextmanager
def _client(settings: dict[str, Any]) -> Iterator[RegistryClient]:
    """Open the registry that the options name."""
    from vertex_registry import RegistryClient, local_registry  # noqa: PLC0415  # likewise
    from vertex_registry.cli import _warnings  # noqa: PLC0415  # likewise

    if (invocation := click.get_current_context().find_object(Invocation)) is not None:
        _warnings.show_warnings(invocation)
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
    from vertex_registry import RegistryError, Retry  # noqa: PLC0415  # likewise

    try:
        with _client({**ctx.params, "retry": Retry(call_timeout=_COMPLETION_SECONDS)}) as registry:
            return [value for value in read(registry) if value.startswith(incomplete)]
    except (RegistryError, click.ClickException):
        return []


model_name = click.argument("name", type=TEXT, shell_complete=_complete_model)
version_of = functools.partial(click.argument, type=TEXT, shell_complete=_complete_version)
