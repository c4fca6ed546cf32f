"""The command that shows a registry in a browser: `ui`."""

from __future__ import annotations

import functools
import ipaddress
import os
import signal
import threading
from typing import TYPE_CHECKING, Any, Final

import click

from vertex_registry.cli import _output
from vertex_registry.cli._options import connected
from vertex_registry.cli._text import TEXT

if TYPE_CHECKING:
    from vertex_registry import RegistryClient
    from vertex_registry.ui import Opening

_PAGE_SECONDS: Final = 20.0  # nobody waits for a page any longer


@click.command()
@functools.partial(connected, patience=_PAGE_SECONDS)
@click.option("--host", type=TEXT, default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8472, show_default=True, help="The port, 0 for any free port."
)
@click.option(
    "--allow-host", type=TEXT, multiple=True, metavar="NAME", help="Another name that it answers to. Repeatable."
)
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
