"""The emulator as a process: ``python -m vertex_registry.emulator``."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import logging
import os
import signal
import sys
import textwrap
from typing import TYPE_CHECKING

from vertex_registry._deferred import defer_packages

if __name__ == "__main__":
    defer_packages()  # before anything imports them

from vertex_registry.emulator._data_file import DataFileError
from vertex_registry.emulator._integrity import recover
from vertex_registry.emulator._quota import parse_quota
from vertex_registry.emulator._server import Emulator
from vertex_registry.emulator._switches import SWITCHES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vertex_registry.emulator._rest import Site


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m vertex_registry.emulator",
        description="Run a local Vertex AI Model Registry. When it's ready, it prints its addresses in a line of JSON.",
        epilog=_switches(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (%(default)s)")
    parser.add_argument(
        "--grpc-port", type=int, default=8470, help="the port for gRPC, 0 for any free port (%(default)s)"
    )
    parser.add_argument(
        "--rest-port", type=int, default=8471, help="the port for REST, 0 for any free port (%(default)s)"
    )
    parser.add_argument("--data", metavar="FILE", help="the file to keep everything in (default: memory)")
    parser.add_argument(
        "--recover",
        metavar="NEW_FILE",
        help="copy what's intact of a damaged --data FILE to a new file, say what's lost, and exit",
    )
    parser.add_argument(
        "--polls-until-done", type=int, default=0, metavar="N", help="polls until an operation is done (%(default)s)"
    )
    parser.add_argument(
        "--assume", action="append", default=[], metavar="NAME=VALUE", help="set a switch, see below; can be repeated"
    )
    parser.add_argument(
        "--quota",
        nargs="?",
        const="",
        metavar="requests=N,submissions=N",
        help="refuse more requests and more uploads or deletions a minute, for each project and region"
        " (without a value: 600 and 60, as Google publishes; default: no limit)",
    )
    parser.add_argument("--tls-cert", metavar="FILE", help="a certificate chain in PEM; both ports then use TLS")
    parser.add_argument("--tls-key", metavar="FILE", help="the key of the certificate")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="another name that the REST port answers to; can be repeated",
    )
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="a local Cloud Storage server to check artifacts in (default: STORAGE_EMULATOR_HOST)",
    )
    return parser


def _switches() -> str:
    lines = [
        "Some facts about Vertex can be read in two ways. Choose one with a switch. The first value is the default.",
        "",
    ]
    for name, switch in SWITCHES.items():
        lines.append(f"  --assume {name}={'|'.join(switch.values)}")
        lines += textwrap.wrap(
            f"{switch.about}. Evidence: {switch.evidence}.", 100, initial_indent=" " * 6, subsequent_indent=" " * 6
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM, and return the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    assume = {}
    for given in options.assume:
        name, equals, value = given.partition("=")
        if not equals:
            parser.error(f"--assume takes NAME=VALUE, not {given!r}")
        assume[name] = value
    if options.recover is not None:
        if options.data is None:
            parser.error("--recover needs the damaged file: pass --data FILE")
        return _recover(options.data, options.recover)
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    # Blocked before any thread is started, so that every thread leaves them to this one.
    signals = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        return _serve(options, assume, signals)
    finally:
        while signals & signal.sigpending():  # another Ctrl-C, which would end the process with a traceback
            signal.sigwait(signals)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(options: argparse.Namespace, assume: dict[str, str], signals: set[signal.Signals]) -> int:
    try:
        quota = None if options.quota is None else parse_quota(options.quota)
        emulator = Emulator(
            options.data,
            host=options.host,
            grpc_port=options.grpc_port,
            rest_port=options.rest_port,
            polls_until_done=options.polls_until_done,
            assume=assume,
            tls_cert=options.tls_cert,
            tls_key=options.tls_key,
            storage=options.storage,
            allowed_hosts=options.allow_host,
            quota=quota,
        )
    except (DataFileError, ValueError, OSError, ImportError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command talks to people
        return 2
    if emulator.rest:
        emulator.mount(_site_of(emulator))
    # Only closed: a planned fault that is left is for the process that planned it to notice.
    with contextlib.closing(emulator):
        try:
            print(json.dumps({"grpc": emulator.grpc, "rest": emulator.rest}), flush=True)  # noqa: T201 - likewise
        except OSError as error:
            # Python writes once more at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            message = f"The addresses can't be written: {error.strerror}. Redirect standard output elsewhere."
            print(message, file=sys.stderr)  # noqa: T201 - likewise
            return 2
        signal.sigwait(signals)
    return 0


def _recover(data: str, new: str) -> int:
    try:
        report = recover(data, new)
    except DataFileError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command talks to people
        return 2
    for line in report:
        print(line)  # noqa: T201 - likewise
    print(f"What's intact of {data} is in {new}." if report else f"{new} has everything that {data} has.")  # noqa: T201 - likewise
    return 0


def _site_of(emulator: Emulator) -> Site:
    """Return the site of this installation. It's in the other half of the package, so it's found by its entry point.

    It's imported with the first request, because most emulators never show it.
    """

    @functools.cache
    def load() -> Site | None:
        import importlib.metadata  # noqa: PLC0415  # it takes a while

        found = importlib.metadata.entry_points(group="vertex_registry.emulator", name="site")
        return next((entry.load()(emulator) for entry in found), None)

    def site(method: str, path: str, query: str, headers: Mapping[str, str]) -> tuple[int, Mapping[str, str], bytes]:
        if (loaded := load()) is None:
            return 404, {"Content-Type": "text/plain"}, b"This installation has no page.\n"
        return loaded(method, path, query, headers)

    return site


if __name__ == "__main__":
    sys.exit(main())
