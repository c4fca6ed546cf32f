"""Where to connect to, and as whom.

An emulator is reached in plain text and without credentials. Credentials that were given reach an emulator on this
machine only: to send them elsewhere on purpose, there is ``endpoint=``.
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
from vertex_registry.errors import InvalidArgumentError

EMULATOR: Final = "VERTEX_AI_EMULATOR_HOST"
UNIVERSE: Final = "GOOGLE_CLOUD_UNIVERSE_DOMAIN"

# us-central1, europe-west12, northamerica-northeast1. Other clouds than googleapis.com put a prefix first, such as u-.
_REGIONS: Final = re.compile(r"(?:[a-z]+-)+[a-z]+[1-9][0-9]?", re.ASCII)
_ZONES: Final = re.compile(rf"({_REGIONS.pattern})-[a-z]", re.ASCII)
_LOCATIONS: Final = "https://cloud.google.com/vertex-ai/docs/general/locations"
# Python 3.11 reads [::1]evil.com as ::1.
_NETLOCS: Final = re.compile(r"(?:\[[^\[\]@]+\]|[^\[\]:@]+)(?::[0-9]*)?", re.ASCII)
_HOST_NAMES: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.(?!-)[A-Za-z0-9_-]{1,63})*\.?", re.ASCII)


@attrs.frozen
class Endpoint:
    """The address of Vertex, or of an emulator of it, and how to talk to it.

    Attributes:
        host: ``host`` or ``host:port``, without a scheme.
        rest: Whether to talk REST, and not gRPC.
        plain: Whether to talk in plain text.
        anonymous: Whether to send no credentials at all.
        credentials: What the caller gave: a google-auth credentials object, the content of a credentials file, the
            path of one, or None. Cloud Storage may get them even if ``anonymous`` keeps them from this address.
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
        """Whether it's an emulator, as far as the settings tell."""
        return self.plain or self.anonymous

    @property
    def on_vertex(self) -> bool:
        """Whether it's Google's own Vertex AI, which the Google Cloud console shows."""
        return not self.emulated and self.host.partition(":")[0].endswith("aiplatform.googleapis.com")


def check_location(location: object) -> str:
    """Return the location if a Vertex region can have that name.

    The grammar of region names is checked, and no list of them, so that new regions work.

    Raises:
        InvalidArgumentError: It can't be a region.
    """
    if isinstance(location, str) and _REGIONS.fullmatch(location):
        return location
    text = f"location={location!r} isn't the name of a region. Use one such as 'us-central1'; {_LOCATIONS} lists them."
    if location in {"global", "us", "eu"}:
        text = (
            f"location={location!r} has no model registry: models live in a region. "
            "Pass a region, such as location='us-central1', or set GOOGLE_CLOUD_LOCATION."
        )
    elif isinstance(location, str) and (zone := _ZONES.fullmatch(location)):
        text = f"location={location!r} is a zone. Use its region: location={zone[1]!r}."
    raise InvalidArgumentError(text)


def resolve(endpoint: str | None, transport: str | None, location: str, credentials: Any) -> Endpoint:
    """Return the endpoint that a client's settings and the environment name.

    Raises:
        InvalidArgumentError: A setting can't be right.
    """
    if transport not in (None, "grpc", "rest"):
        raise InvalidArgumentError(f"There is no transport {transport!r}. The transports are 'grpc' and 'rest'.")
    _check_credentials(credentials)
    if endpoint is not None:
        _names.check_text("endpoint", endpoint)
    emulator = None if endpoint else os.environ.get(EMULATOR)
    address = endpoint or emulator or f"{location}-aiplatform.{_universe()}"
    setting = EMULATOR if emulator else "endpoint"
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
    """Return the domain that Google's services are under, which only sovereign clouds change."""
    universe = os.environ.get(UNIVERSE)
    if universe is None:
        return "googleapis.com"
    if not _HOST_NAMES.fullmatch(universe):
        raise InvalidArgumentError(f"{UNIVERSE} isn't a domain. Unset it, or set it to googleapis.com.")
    return universe


def _check_credentials(given: Any) -> None:
    """Credentials of Google's are known by what is asked of them, so that nothing of Google's has to be imported."""
    if not (given is None or isinstance(given, (str, os.PathLike, dict)) or hasattr(given, "before_request")):
        raise InvalidArgumentError(
            "credentials is a google-auth credentials object, the path of a credentials file, or its content as a "
            f"dict, and not {type(given).__name__}."
        )


def _parse(setting: str, address: str) -> tuple[str, str, bool]:
    """Return the scheme, ``host`` or ``host:port``, and whether the host is this machine.

    The host is put together again from what was parsed: what was judged is what is connected to.
    """
    scheme, separator, rest = address.rpartition("://")
    host = port = None
    with contextlib.suppress(ValueError):  # of a port that is none, or brackets around no address
        parts = urllib.parse.urlsplit(f"//{rest}")
        if parts.netloc == rest.removesuffix("/") and _NETLOCS.fullmatch(parts.netloc):
            host, port = parts.hostname, parts.port
    if separator and scheme not in {"http", "https"}:
        host = None
    ip = None
    with contextlib.suppress(ValueError):
        ip = ipaddress.ip_address(host or "")
    if not host or port == 0 or not (ip or _HOST_NAMES.fullmatch(host)):
        raise InvalidArgumentError(
            f"{_shown(setting, address)} isn't an address of the service. "
            "Use 'host:port' for gRPC or 'http://host:port' for REST, without a path, a query or a user."
        )
    loopback = ip.is_loopback if ip is not None else host == "localhost"
    name = f"[{host}]" if ip is not None and ip.version == 6 else host  # noqa: PLR2004  # IPv6
    return scheme, name if port is None else f"{name}:{port}", loopback


def _shown(setting: str, address: str) -> str:
    """Return what an error may say of an address: not its user, its path or its query."""
    if "@" in address:
        return f"The {setting}, which has a user in it,"
    scheme, separator, rest = address.rpartition("://")
    start = re.split(r"[/?#]", rest, maxsplit=1)[0]
    more = "..." if len(start) < len(rest.rstrip("/")) else ""
    return f"{setting}={scheme + separator + start + more!r}"
