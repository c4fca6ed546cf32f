"""Where to connect to, and as whom.

An emulator is reached in plain text and without credentials. Credentials that were given travel in plain text to this
machine only.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
from typing import Any, Final

import attrs

from vertex_registry import _names
from vertex_registry.errors import InvalidArgumentError

EMULATOR: Final = "VERTEX_AI_EMULATOR_HOST"


@attrs.frozen
class Endpoint:
    """The address of Vertex, or of an emulator of it, and how to talk to it.

    Attributes:
        host: ``host`` or ``host:port``, without a scheme.
        rest: Whether to talk REST, and not gRPC.
        plain: Whether to talk in plain text.
        anonymous: Whether to send no credentials at all.
        credentials: What the caller gave: a google-auth credentials object, the content of a credentials file, the
            path of one, or None.
    """

    host: str
    rest: bool
    plain: bool
    anonymous: bool
    credentials: Any = attrs.field(repr=False)

    def __str__(self) -> str:
        return f"{'http' if self.plain else 'https'}://{self.host}" if self.rest else self.host


def resolve(endpoint: str | None, transport: str | None, location: str, credentials: Any) -> Endpoint:
    """The endpoint that a client's settings and the environment name.

    Raises:
        InvalidArgumentError: A setting cannot be right.
    """
    if transport not in (None, "grpc", "rest"):
        raise InvalidArgumentError(f"There is no transport {transport!r}. The transports are 'grpc' and 'rest'.")
    _check_credentials(credentials)
    if endpoint is not None:
        _names.check_text("endpoint", endpoint)
    emulator = None if endpoint else os.environ.get(EMULATOR)
    address = endpoint or emulator or f"{location}-aiplatform.googleapis.com"
    scheme, separator, host = address.rpartition("://")
    host = host.rstrip("/")
    if (separator and scheme not in {"http", "https"}) or not host or any(letter in host for letter in "/@? "):
        shown = "An address with a user in it" if "@" in address else repr(address)
        raise InvalidArgumentError(
            f"{shown} is no address of the service. Give 'host:port' for gRPC or 'http://host:port' for REST."
        )
    if scheme == "http" and transport == "grpc":
        raise InvalidArgumentError(f"{address!r} is an address for REST, and transport='grpc' was asked for.")
    loopback = _is_loopback(host)
    plain = scheme == "http" or (not scheme and (emulator is not None or loopback))
    if plain and credentials is not None and not loopback:
        if emulator is None:
            raise InvalidArgumentError(
                f"Credentials are not sent in plain text to {host}, which is not this machine. "
                "Use https, or give no credentials: an emulator needs none."
            )
        credentials = None
    return Endpoint(
        host=host,
        rest=transport == "rest" or (transport is None and scheme == "http"),
        plain=plain,
        anonymous=(plain or emulator is not None) and credentials is None,
        credentials=credentials,
    )


def _check_credentials(given: Any) -> None:
    """Credentials of Google's are known by what is asked of them, so that nothing of Google's has to be imported."""
    if not (given is None or isinstance(given, (str, os.PathLike, dict)) or hasattr(given, "before_request")):
        raise InvalidArgumentError(
            "credentials is a google-auth credentials object, the path of a credentials file, or its content as a "
            f"dict, and not {type(given).__name__}."
        )


def _is_loopback(host: str) -> bool:
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(name).is_loopback
    return name == "localhost"
