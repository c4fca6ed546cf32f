"""The emulator: it owns the store, the service and both servers."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import json
import os
import re
import secrets
import socket
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from vertex_registry.emulator._dispatch import Dispatcher, Fault
from vertex_registry.emulator._grpc import GrpcServer
from vertex_registry.emulator._rest import RestServer
from vertex_registry.emulator._service import Service, parse_assumptions
from vertex_registry.emulator._status import unavailable
from vertex_registry.emulator._store import DataFileError, Store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from vertex_registry.emulator._dispatch import Request


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _new_id() -> str:
    """A decimal number of up to 19 digits, as Vertex's own ids of models and operations are."""
    return str(secrets.randbelow(9 * 10**18) + 10**18)


class Emulator:
    """A Vertex AI Model Registry on this machine, which Google's own clients work against.

    It is up when it is made, and a context manager::

        with Emulator() as emulator:
            channel = grpc.insecure_channel(emulator.grpc)

    Whoever leaves the ``with`` while a planned fault is left gets an ``AssertionError`` that names it: a test that
    planned what no request met has not tested it. No other exception is replaced by it, and ``close`` never raises it.

    Args:
        data: A file to keep everything in; None keeps it in memory. One emulator at a time holds a file.
        host: The address to listen on. Anything but a loopback address lets others in: nobody is asked who they are.
        grpc_port: The port for gRPC; 0 is any that is free, None serves no gRPC.
        rest_port: The port for HTTP; 0 is any that is free, None serves no HTTP.
        polls_until_done: How many looks at an operation, or at its model, it takes until it is done; with 0 it is done
            when it is begun.
        assume: What to take for true where it is not known how Vertex behaves, by the name of the switch.
        tls_cert: A file with a certificate chain in PEM; with it, both servers speak TLS.
        tls_key: The file with its key.
        storage: The URL of a local Cloud Storage server, in which the directories of artifacts are looked up before a
            prebuilt container is given one. None is what STORAGE_EMULATOR_HOST says; "" looks nothing up.
        folders: Buckets that are folders on this machine, by their names. Artifacts in them are looked up there.
        allowed_hosts: Further names that the HTTP port answers to, such as the one it has in a network of containers.
            It answers to its own address only, so that no web page can reach it through a browser.
        now: The clock; it gives aware datetimes.
        new_id: The maker of ids, for models and operations.

    Attributes:
        grpc: Where gRPC is served, such as "127.0.0.1:8470"; empty where it is not.
        rest: Where HTTP is served, such as "http://127.0.0.1:8471"; empty where it is not.

    Raises:
        ValueError: There is no such assumption, or another argument cannot be right.
        DataFileError: The data file cannot be made, is not one of an emulator's, or is open in another one.
        OSError: An address or a port cannot be had, or the certificate or its key cannot be used.
    """

    def __init__(
        self,
        data: str | os.PathLike[str] | None = None,
        *,
        host: str = "127.0.0.1",
        grpc_port: int | None = 0,
        rest_port: int | None = 0,
        polls_until_done: int = 0,
        assume: Mapping[str, str | int] | None = None,
        tls_cert: str | os.PathLike[str] | None = None,
        tls_key: str | os.PathLike[str] | None = None,
        storage: str | None = None,
        folders: Mapping[str, str | os.PathLike[str]] | None = None,
        allowed_hosts: Iterable[str] = (),
        now: Callable[[], dt.datetime] = _now,
        new_id: Callable[[], str] = _new_id,
    ) -> None:
        _check_kinds(
            data=data,
            host=host,
            grpc_port=grpc_port,
            rest_port=rest_port,
            polls_until_done=polls_until_done,
            assume=assume,
            tls_cert=tls_cert,
            tls_key=tls_key,
            storage=storage,
            folders=folders,
            allowed_hosts=allowed_hosts,
            now=now,
            new_id=new_id,
        )
        assumptions = parse_assumptions({name: str(value) for name, value in (assume or {}).items()})
        if not 0 <= polls_until_done <= _MOST_POLLS:
            raise ValueError(f"polls_until_done cannot be {polls_until_done}: it is a number from 0 to {_MOST_POLLS}.")
        if now().utcoffset() is None:
            raise ValueError("The clock must give aware datetimes, such as datetime.now(UTC).")
        _check_addresses(host, grpc_port, rest_port)
        tls = None
        if tls_cert is not None and tls_key is not None:
            tls = _tls(Path(tls_cert), Path(tls_key))
        elif tls_cert is not None or tls_key is not None:
            raise ValueError("TLS needs both a certificate and its key.")
        if storage is None:
            storage = os.environ.get("STORAGE_EMULATOR_HOST", "")
        look_up = _look_up_everywhere(storage, dict(folders or {}))
        names = tuple(allowed_hosts)
        _check_names(names)
        path = None if data is None else os.fspath(data)
        if path:
            _check_data(Path(path))
        self.grpc = ""
        self.rest = ""
        self._closers = contextlib.ExitStack()
        store = Store(path, list_lag=assumptions.list_lag)
        self._closers.callback(store.close)
        try:
            service = Service(
                store,
                assume=assumptions,
                polls_until_done=polls_until_done,
                now=now,
                new_id=new_id,
                look_up=look_up,
            )
            self._dispatcher = Dispatcher(service)
            if grpc_port is not None:
                grpc_server = GrpcServer(self._dispatcher, host, grpc_port, tls and tls.pair)
                self._closers.callback(grpc_server.close)
                self.grpc = grpc_server.address
            if rest_port is not None:
                rest_server = RestServer(
                    self._dispatcher, host, rest_port, tls=tls and tls.context, allowed_hosts=names
                )
                self._closers.callback(rest_server.close)
                self.rest = rest_server.address
            self._closers.callback(self._dispatcher.close)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop serving and give the data file back. Closing twice is fine."""
        self._closers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        if kind is None and (left := self.faults()):
            raise AssertionError(
                f"No request met what was planned: {'; '.join(map(str, left))}. If that is right, call forget_faults()."
            )

    def __repr__(self) -> str:
        return f"<Emulator grpc={self.grpc or None} rest={self.rest or None}>"

    def fail(
        self,
        rpc: str,
        code: str | None = None,
        *,
        times: int = 1,
        when: str = "before",
        delay: float = 0.0,
        drop: bool = False,
        retry_after: float | None = None,
        stale_etag: bool = False,
        message: str = "",
    ) -> None:
        """Plan a fault: the next ``times`` requests of an RPC meet it, after those that are planned already.

        Args:
            rpc: The RPC, such as "UploadModel".
            code: The canonical code of the failure, such as "UNAVAILABLE".
            times: How many requests meet it.
            when: "before" (the request is not carried out), "after" (it is, and the answer is lost) or "operation" (it
                is answered, and the operation that it begins fails). A request that is refused anyway meets neither of
                the latter.
            delay: The seconds that the answer takes longer.
            drop: Whether the connection ends without an answer. Over gRPC that is UNAVAILABLE, which is how a client
                sees a connection end.
            retry_after: The seconds to wait that the failure asks for: a RetryInfo, and over HTTP a Retry-After.
            stale_etag: Whether the UpdateModel is refused as if its etag were stale.
            message: The failure's sentence.

        Raises:
            ValueError: There is no such RPC or code, nothing would happen, or something is not of its type.
        """
        self._dispatcher.plan(Fault(rpc, code, times, when, delay, drop, retry_after, stale_etag, message))

    def faults(self) -> tuple[Fault, ...]:
        """The planned faults that no request has met; a test that planned one is done when there are none."""
        return self._dispatcher.faults()

    def forget_faults(self) -> None:
        """Let nothing that is planned go wrong after all."""
        self._dispatcher.forget_faults()

    def requests(self) -> tuple[Request, ...]:
        """The requests that came, the oldest first; of very many, the latest."""
        return self._dispatcher.requests()

    def reset(self) -> None:
        """Forget every model, operation, planned fault and request."""
        self._dispatcher.reset()


# --- what can be wrong with the arguments ------------------------------------
#
# All of it is seen before anything is started: a mistake leaves nothing behind, and is told in a sentence.

_FILE: Final = ((str, os.PathLike, type(None)), "the path of a file")
_PORT: Final = ((int, type(None)), "a number, or None to serve nothing there")

#: What each argument is.
_KINDS: Final[Mapping[str, tuple[tuple[Any, ...], str]]] = {
    "data": _FILE,
    "host": ((str,), "the name or the number of an address"),
    "grpc_port": _PORT,
    "rest_port": _PORT,
    "polls_until_done": ((int,), "a number"),
    "assume": ((Mapping, type(None)), "values by the names of switches, such as {'list-lag': '3'}"),
    "tls_cert": _FILE,
    "tls_key": _FILE,
    "storage": ((str, type(None)), "a URL"),
    "folders": ((Mapping, type(None)), "folders by the names of buckets"),
    "allowed_hosts": ((Iterable,), "a list of names"),
    "now": ((Callable,), "a function"),
    "new_id": ((Callable,), "a function"),
}


def _check_kinds(**given: object) -> None:
    """Refuse what is of another type than it is to be."""
    for name, value in given.items():
        kinds, what = _KINDS[name]
        # To Python True is the number 1, and a name is a list of letters; nobody means either.
        mistaken = isinstance(value, bool) or (isinstance(value, str) and str not in kinds)
        if mistaken or not isinstance(value, kinds):
            raise ValueError(f"{name} cannot be {value!r}: it is {what}.")


#: As many looks as fit into a row of the store, and more than anybody has the time for.
_MOST_POLLS: Final = 10**9

_AN_ADDRESS: Final = "Name one of this machine, such as 127.0.0.1, or 0.0.0.0 for all of them; the port is given apart"


def _check_addresses(host: str, grpc_port: int | None, rest_port: int | None) -> None:
    """Refuse what cannot be listened on. gRPC's server would not tell why it got no port."""
    for port in (grpc_port, rest_port):
        if port is not None and not 0 <= port <= 65535:  # noqa: PLR2004 - the ports there are
            raise ValueError(f"There is no port {port}: ports are 1 to 65535, and 0 for any that is free.")
    if grpc_port and grpc_port == rest_port:
        raise ValueError(f"gRPC and REST cannot both have port {grpc_port}. Name another one for either.")
    # What has other characters than a name is a number, or a mistake that no name server need be asked about.
    flags = socket.AI_NUMERICHOST if re.search(r"[^\w.-]", host) else 0
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=flags)
    except (OSError, UnicodeError) as error:
        raise OSError(f"There is no address {host!r}. {_AN_ADDRESS}.") from error
    for name, port in (("gRPC", grpc_port), ("REST", rest_port)):
        if port is not None:
            _check_port(host, port, name, found)


def _check_port(host: str, port: int, name: str, found: Sequence[tuple[Any, ...]]) -> None:
    """Refuse a port that none of the host's addresses has."""
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address[0], port, *address[2:]))
            except OSError as error:
                refused = error
            else:
                return
    if refused.errno in {errno.EADDRNOTAVAIL, errno.EINVAL}:
        raise OSError(f"The address {host} cannot be had: {refused.strerror}. {_AN_ADDRESS}.") from refused
    raise OSError(
        f"Port {port} of {host} cannot be had for {name}: {refused.strerror}."
        " Name another one, or 0 for any that is free."
    ) from refused


def _check_data(data: Path) -> None:
    """Refuse a data file that cannot be one; SQLite says of each only that it could not open it."""
    if data.is_dir():
        raise DataFileError(
            f"The data file {data} is a folder. Name a file in it, such as {data / 'registry.db'}.", path=str(data)
        )
    if not data.parent.is_dir():
        raise DataFileError(
            f"The data file {data} cannot be made: there is no folder {data.parent}. Make it, or name another.",
            path=str(data),
        )


class _Tls(NamedTuple):
    """A certificate chain with its key, as each server takes them."""

    pair: tuple[bytes, bytes]
    context: ssl.SSLContext


def _tls(certificate: Path, key: Path) -> _Tls:
    parts = []
    for path, label, what in ((certificate, b"CERTIFICATE", "certificate"), (key, b"PRIVATE KEY", "private key")):
        try:
            parts.append(path.read_bytes())
        except OSError as error:
            raise OSError(f"The {what} {path} cannot be read: {error.strerror}.") from error
        if not re.search(rb"-----BEGIN [A-Z ]*" + label, parts[-1]):
            raise OSError(
                f"There is no {what} in {path}. It has to be a file in PEM: -----BEGIN {label.decode()}-----."
            )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise OSError(f"The key in {key} is not that of the certificate in {certificate}.") from error
        raise OSError(f"The certificate in {certificate} and the key in {key} cannot be used: {error}.") from error
    except _PasswordError as error:
        raise OSError(f"The key in {key} has a password. Give one that has none.") from error
    return _Tls((parts[0], parts[1]), context)


class _PasswordError(Exception):
    """Somebody would have to be asked for a password."""


def _no_password() -> str:
    raise _PasswordError


def _check_names(hosts: Iterable[object]) -> None:
    """Refuse what no Host could ever match: one is compared without its port, and without the brackets of IPv6."""
    for name in hosts:
        if (
            not isinstance(name, str)
            or not re.fullmatch(r"[^\s/:@\[\]]+|[0-9a-fA-F:.]+", name)
            or re.fullmatch(r"[^:]+:[0-9]+", name)
        ):
            raise ValueError(
                f"The allowed host {name!r} is no name: it stands without a scheme and a port, as 'vertex'."
            )


def _look_up_everywhere(
    storage: str, folders: Mapping[str, str | os.PathLike[str]]
) -> Callable[[str, str], Sequence[str] | None]:
    """Return a function that lists a bucket's objects under a prefix, or returns None if it can't look there."""
    server = _look_up_in(storage) if storage else None

    def look_up(bucket: str, prefix: str) -> Sequence[str] | None:
        if bucket not in folders:
            return None if server is None else server(bucket, prefix)
        if prefix.startswith("/") or ".." in prefix.split("/"):
            return ()
        try:
            with os.scandir(Path(folders[bucket], prefix)) as entries:
                return tuple(prefix + entry.name for entry in entries if entry.is_file(follow_symlinks=False))
        except (OSError, ValueError):
            return ()

    return look_up


def _look_up_in(storage: str) -> Callable[[str, str], Sequence[str]]:
    """A function that lists a bucket's objects under a prefix."""
    base = (storage if "://" in storage else f"http://{storage}").rstrip("/")
    try:
        parts = urllib.parse.urlsplit(base)
        sound = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise ValueError(f"The storage {storage!r} is no address. Name one such as http://127.0.0.1:4443.")

    # The address is the one that was given, and no proxy's that the environment names.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def look_up(bucket: str, prefix: str) -> Sequence[str]:
        query = {"prefix": prefix, "delimiter": "/", "fields": "items(name),nextPageToken"}
        url = f"{base}/storage/v1/b/{urllib.parse.quote(bucket, safe='')}/o?"
        names: list[str] = []
        try:
            for _ in range(_MOST_PAGES):
                with direct.open(url + urllib.parse.urlencode(query), timeout=10) as answer:
                    found: Any = json.load(answer)
                names += _names_in(found)
                if not found.get("nextPageToken"):
                    return tuple(names)
                query["pageToken"] = found["nextPageToken"]
        except urllib.error.HTTPError as error:
            with error:
                if error.code == HTTPStatus.NOT_FOUND:
                    # A bucket that is not there holds nothing.
                    return ()
                raise unavailable(f"The storage at {base} answered {error.code} when it was asked.") from error
        except Exception as error:
            # Whatever can be wrong with an answer is the storage's mistake.
            raise unavailable(f"The storage at {base} does not answer: {type(error).__name__}.") from error
        raise unavailable(f"The storage at {base} does not answer: its list of {prefix or bucket} has no end.")

    return look_up


#: So many pages, of a thousand names each, no directory of a model's files fills.
_MOST_PAGES: Final = 100


def _names_in(found: Any) -> list[str]:
    """The names in a page of a list of objects."""
    names = [item["name"] for item in found.get("items", [])]
    if not all(isinstance(name, str) for name in names):
        raise TypeError
    return names
