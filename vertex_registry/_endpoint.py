"""Decide where to connect, and with which credentials.

An emulator is reached in plain text and without credentials. Credentials reach an emulator on this machine only, unless
``endpoint=`` names another one.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import urllib.parse
from typing import Any, Final

import attrs

from vertex_registry import _names
from vertex_registry._quoting import quote
from vertex_registry.errors import InvalidArgumentError

EMULATOR_VARIABLE: Final = "VERTEX_AI_EMULATOR_HOST"
UNIVERSE_VARIABLE: Final = "GOOGLE_CLOUD_UNIVERSE_DOMAIN"

# us-central1, europe-west12, northamerica-northeast1. Sovereign clouds add a prefix, such as u-.
_REGION: Final = re.compile(r"(?:[a-z]+-)+[a-z]+[1-9][0-9]?", re.ASCII)
_ZONE: Final = re.compile(rf"({_REGION.pattern})-[a-z]", re.ASCII)
_LOCATIONS: Final = "https://cloud.google.com/vertex-ai/docs/general/locations"
# This check is necessary because Python 3.11 parses [::1]evil.com as ::1.
_NETLOC: Final = re.compile(r"(?:\[[^\[\]@]+\]|[^\[\]:@]+)(?::[0-9]*)?", re.ASCII)
_HOST_NAME: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.(?!-)[A-Za-z0-9_-]{1,63})*\.?", re.ASCII)


@attrs.frozen
class Endpoint:
    """The address of Vertex, or of an emulator of it, and how to talk to it.

    Attributes:
        host: ``host`` or ``host:port``, without a scheme.
        rest: Whether to use REST instead of gRPC.
        plain: Whether to connect in plain text.
        anonymous: Whether to send no credentials at all.
        credentials: What the caller passed: a google-auth credentials object, the content of a credentials file, its
            path, or None. Cloud Storage may get them even if ``anonymous`` withholds them from this address.
        loopback: Whether the address is this machine's own.
    """

    host: str
    rest: bool
    plain: bool
    anonymous: bool
    credentials: Any = attrs.field(repr=False)
    loopback: bool = False

    def __str__(self) -> str:
        return f"{'http' if self.plain else 'https'}://{self.host}" if self.rest else self.host

    @property
    def emulated(self) -> bool:
        """Return whether it's an emulator, judging by the settings."""
        return self.plain or self.anonymous

    @property
    def on_vertex(self) -> bool:
        """Whether it's Google's own Vertex AI, which the Google Cloud console shows."""
        return not self.emulated and self.host.partition(":")[0].endswith("aiplatform.googleapis.com")


def check_location(location: object) -> str:
    """Return the location if it can be a Vertex region.

    This checks the form of the name and uses no list, so new regions work.

    Raises:
        InvalidArgumentError: It can't be a region.
    """
    if isinstance(location, str) and _REGION.fullmatch(location):
        return location
    text = (
        f"location={quote(location)} isn't the name of a region. Use one such as 'us-central1'; "
        f"{_LOCATIONS} lists them."
    )
    if isinstance(location, str) and location in {"global", "us", "eu"}:
        text = (
            f"location={location!r} has no model registry: models live in a region. "
            "Pass a region, such as location='us-central1', or set GOOGLE_CLOUD_LOCATION."
        )
    elif isinstance(location, str) and (zone := _ZONE.fullmatch(location)):
        text = f"location={location!r} is a zone. Use its region: location={zone[1]!r}."
    raise InvalidArgumentError(text)


def resolve(endpoint: str | None, transport: str | None, location: str, credentials: Any) -> Endpoint:
    """Return the endpoint for a client's settings and the environment.

    Raises:
        InvalidArgumentError: A setting isn't valid.
    """
    if transport not in (None, "grpc", "rest"):
        raise InvalidArgumentError(f"There is no transport {quote(transport)}. The transports are 'grpc' and 'rest'.")
    _check_credentials(credentials)
    if endpoint is not None:
        _names.check_text("endpoint", endpoint)
    emulator = None if endpoint else os.environ.get(EMULATOR_VARIABLE)
    if emulator == "":
        # Whoever sets it doesn't want to reach Google, not even if a script sets it to a variable that is unset.
        raise InvalidArgumentError(
            f"{EMULATOR_VARIABLE} is empty. Set it to the address of an emulator, or unset it to use Vertex AI."
        )
    address = endpoint or emulator or f"{location}-aiplatform.{_universe()}"
    setting = EMULATOR_VARIABLE if emulator else "endpoint"
    scheme, host, loopback = _parse(setting, address)
    if scheme == "http" and transport == "grpc":
        raise InvalidArgumentError(f"{setting}='http://{host}' is an address for REST, but transport='grpc' is set.")
    plain = scheme == "http" or (not scheme and (emulator is not None or loopback))
    if plain and credentials is not None and not loopback and emulator is None:
        raise InvalidArgumentError(
            f"Credentials aren't sent in plain text to {host}, which isn't this machine. "
            "Use https, or pass no credentials: an emulator needs none."
        )
    withheld = emulator is not None and not loopback
    return Endpoint(
        host=host,
        rest=transport == "rest" or (transport is None and scheme == "http"),
        plain=plain,
        anonymous=withheld or ((plain or emulator is not None) and credentials is None),
        credentials=credentials,
        loopback=loopback,
    )


def _universe() -> str:
    """Return the domain of Google's services, which is different in sovereign clouds."""
    universe = os.environ.get(UNIVERSE_VARIABLE)
    if universe is None:
        return "googleapis.com"
    if not _HOST_NAME.fullmatch(universe):
        raise InvalidArgumentError(f"{UNIVERSE_VARIABLE} isn't a domain. Unset it, or set it to googleapis.com.")
    return universe


def _check_credentials(given: Any) -> None:
    """Check the type of the credentials without importing Google's libraries."""
    if not (given is None or isinstance(given, (str, os.PathLike, dict)) or hasattr(given, "before_request")):
        raise InvalidArgumentError(
            "credentials must be a google-auth credentials object, the path of a credentials file, or its content as a "
            f"dict, not {type(given).__name__}."
        )


def _parse(setting: str, address: str) -> tuple[str, str, bool]:
    """Return the scheme, ``host`` or ``host:port``, and whether the host is this machine.

    The result is put together from the parsed parts, so the client connects to exactly what was checked.
    """
    scheme, separator, rest = address.rpartition("://")
    host = port = None
    with contextlib.suppress(ValueError):  # an invalid port, or brackets around something else than an address
        parts = urllib.parse.urlsplit(f"//{rest}")
        if parts.netloc == rest.removesuffix("/") and _NETLOC.fullmatch(parts.netloc):
            host, port = parts.hostname, parts.port
    if separator and scheme not in {"http", "https"}:
        host = None
    ip = None
    with contextlib.suppress(ValueError):
        ip = ipaddress.ip_address(host or "")
    if not host or port == 0 or not (ip or _HOST_NAME.fullmatch(host)):
        raise InvalidArgumentError(
            f"{_without_secrets(setting, address)} isn't an address of the service. "
            "Use 'host:port' for gRPC or 'http://host:port' for REST, without a path, a query or a user."
        )
    name = f"[{host}]" if ip is not None and ip.version == 6 else host  # noqa: PLR2004  # IPv6
    return scheme, name if port is None else f"{name}:{port}", is_loopback(host)


def is_loopback(host: str) -> bool:
    """Return whether a host name or an IP address is this machine."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _without_secrets(setting: str, address: str) -> str:
    """Return the part of an address that an error may show, without its user, path and query."""
    if "@" in address:
        return f"The {setting}, which contains a user,"
    scheme, separator, rest = address.rpartition("://")
    start = re.split(r"[/?#]", rest, maxsplit=1)[0]
    more = "..." if len(start) < len(rest.rstrip("/")) else ""
    return f"{setting}={quote(scheme + separator + start + more)}"
