"""The emulator: it owns the store, the service and both servers, and checks its arguments before it starts any."""

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
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Never, Self

from vertex_registry.emulator._dispatch import Dispatcher, Fault
from vertex_registry.emulator._grpc import GrpcServer
from vertex_registry.emulator._names import with_project_id
from vertex_registry.emulator._quota import Quota
from vertex_registry.emulator._service import Service
from vertex_registry.emulator._status import Code, Failure, unavailable
from vertex_registry.emulator._store import Store
from vertex_registry.emulator._switches import parse_assumptions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from vertex_registry.emulator._dispatch import Request
    from vertex_registry.emulator._rest import RestApi, Site


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _new_id() -> str:
    """Return a decimal number of up to 19 digits, like Vertex's own ids of models and operations."""
    return str(secrets.randbelow(9 * 10**18) + 10**18)


class Emulator:
    """A Vertex AI Model Registry on this machine, for Google's own clients as well.

    It serves as soon as it's created, and it's a context manager::

        with Emulator() as emulator:
            channel = grpc.insecure_channel(emulator.grpc)

    Leaving the ``with`` block while a planned fault is left raises an ``AssertionError`` that names it, because a test
    doesn't test a fault that no request meets. It never replaces another exception, and ``close`` never raises it.

    Args:
        data: The file to keep everything in. Defaults to memory. One emulator at a time has a file.
        host: The address to listen on. Any address but loopback lets others in, and they aren't asked who they are.
        grpc_port: The port for gRPC. 0 means any free port, None means no gRPC.
        rest_port: The port for HTTP. 0 means any free port, None means no HTTP.
        polls_until_done: How many polls of an operation, or of its model, it takes until the operation is done.
            Defaults to 0: an operation is done when it begins.
        assume: Values of switches by their names, for facts about Vertex that can be read in two ways.
        tls_cert: A file with a certificate chain in PEM. With it, both servers use TLS.
        tls_key: The file with the certificate's key.
        storage: The URL of a local Cloud Storage server. The emulator checks there that the artifact of a prebuilt
            container has the files it needs. Defaults to STORAGE_EMULATOR_HOST; "" checks nothing.
        folders: Buckets that are folders on this machine, by their names. The emulator checks artifacts in them there.
        allowed_hosts: More names that the HTTP port answers to, such as the one it has in a network of containers.
            Otherwise it answers only to its own address, so that no web page can reach it through a browser.
        quota: How many requests a project may send in a minute, counted by the clock. Defaults to no limit.
        now: The clock, which returns aware datetimes.
        new_id: The function that returns ids for models and operations.

    Attributes:
        grpc: The address of gRPC, such as "127.0.0.1:8470", or "" without gRPC.
        rest: The address of HTTP, such as "http://127.0.0.1:8471", or "" without HTTP.

    Raises:
        ValueError: A switch doesn't exist, or another argument is invalid.
        DataFileError: The data file can't be created, isn't an emulator's, or is open in another emulator.
        OSError: An address or a port can't be listened on, or the certificate or its key can't be used.
        ImportError: There's to be a REST port, and aiohttp isn't installed.
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
        quota: Quota | None = None,
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
            quota=quota,
            now=now,
            new_id=new_id,
        )
        assumptions = parse_assumptions({name: str(value) for name, value in (assume or {}).items()})
        if not 0 <= polls_until_done <= _MAXIMUM_POLLS:
            raise ValueError(f"polls_until_done can't be {polls_until_done}. Use a number from 0 to {_MAXIMUM_POLLS}.")
        moment = now()
        if not isinstance(moment, dt.datetime) or moment.utcoffset() is None:
            raise ValueError("The clock, now, has to return aware datetimes, such as datetime.now(UTC).")
        _check_addresses(host, grpc_port, rest_port)
        modules = None if rest_port is None else _rest_modules()
        tls = None
        if tls_cert is not None and tls_key is not None:
            tls = _tls(Path(tls_cert), Path(tls_key))
        elif tls_cert is not None or tls_key is not None:
            raise ValueError("TLS needs both a certificate and its key.")
        if storage is None:
            storage = os.environ.get("STORAGE_EMULATOR_HOST", "")
        list_objects = _objects_anywhere(storage, dict(folders or {}))
        names = tuple(allowed_hosts)
        _check_names(names)
        path = None if data is None else os.fspath(data)
        self.grpc = ""
        self.rest = ""
        self._api: RestApi | None = None
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
                list_objects=list_objects,
            )
            self._dispatcher = Dispatcher(service, now)
            self.quota = quota
            if grpc_port is not None:
                grpc_server = GrpcServer(self._dispatcher, host, grpc_port, tls and tls.pair)
                self._closers.callback(grpc_server.close)
                self.grpc = grpc_server.address
            if rest_port is not None and modules is not None:
                http, rest = modules
                self._api = rest.RestApi(self._dispatcher)
                server = http.HttpServer(
                    self._api.answer,
                    host,
                    rest_port,
                    tls=tls and tls.context,
                    allowed_hosts=names,
                    accepts_link=self._api.accepts_link,
                )
                self._closers.callback(server.close)
                self.rest = server.address
            self._closers.callback(self._dispatcher.close)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop serving, and close the data file. Closing twice is fine."""
        self._closers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        if kind is None and (left := self.faults()):
            raise AssertionError(
                f"No request met these planned faults: {'; '.join(map(str, left))}."
                " If that's intended, call forget_faults()."
            )

    def __repr__(self) -> str:
        return f"<Emulator grpc={self.grpc or None} rest={self.rest or None}>"

    @property
    def quota(self) -> Quota | None:
        """How many requests a project may send in a minute, or None. Setting it begins a new count."""
        return self._dispatcher.meter.quota

    @quota.setter
    def quota(self, quota: Quota | None) -> None:
        _check_kinds(quota=quota)
        self._dispatcher.meter.quota = quota

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
        """Plan a fault for the next ``times`` requests of an RPC, after those that are planned already.

        Args:
            rpc: The RPC, such as "UploadModel".
            code: The canonical code of the failure, such as "UNAVAILABLE".
            times: How many requests it applies to. Defaults to 1.
            when: "before" (the request isn't carried out), "after" (it is, and the response is lost) or "operation" (it
                is answered, and the operation that it begins fails). The latter two don't apply to a request that is
                refused anyway.
            delay: The seconds by which the response is delayed.
            drop: Whether the connection ends without a response. Over gRPC that is UNAVAILABLE, which is how a client
                sees a connection end.
            retry_after: The seconds that the failure asks the caller to wait: a RetryInfo, and over HTTP a Retry-After.
            stale_etag: Whether an UpdateModel is refused as if its etag were stale.
            message: The failure's sentence.

        Raises:
            ValueError: The RPC or the code doesn't exist, the fault would do nothing, an argument has the wrong type,
                or too many faults are planned already.
        """
        self._dispatcher.plan(Fault(rpc, code, times, when, delay, drop, retry_after, stale_etag, message))

    def faults(self) -> tuple[Fault, ...]:
        """Return the planned faults that haven't applied to a request yet."""
        return self._dispatcher.faults()

    def forget_faults(self) -> None:
        """Cancel every planned fault."""
        self._dispatcher.forget_faults()

    def requests(self) -> tuple[Request, ...]:
        """Return the received requests, the oldest first. Of very many, only the latest are remembered."""
        return self._dispatcher.requests()

    def parents(self) -> tuple[str, ...]:
        """Return the locations that have models, such as "projects/acme/locations/us-central1".

        A project is shown by its ID if a request has named it since the process started, and else by its number.
        """
        return tuple(with_project_id(parent) for parent in self._dispatcher.parents())

    def mount(self, site: Site) -> None:
        """Serve a site on the REST port, at every path that isn't the emulator's own.

        Args:
            site: The function that answers GET and HEAD. It takes the method, the decoded path, the encoded query, and
                the headers by their names in lower case. It returns the status, the headers and the body.

        Raises:
            ValueError: The emulator has no REST port.
        """
        if self._api is None:
            raise ValueError("There's no REST port to mount a site on. Pass a rest_port.")
        self._api.site = site

    def deploy(self, model: str, endpoint: str = "") -> tuple[str, ...]:
        """Mark a version as deployed, as Vertex does when you deploy it to an endpoint, and return all its endpoints.

        A deployed version can't be deleted, and neither can its model. The emulator serves no endpoints, so that's all
        that deploying does.

        Args:
            model: The resource name of the version, such as ``ModelVersion.resource_name``.
            endpoint: The resource name of the endpoint. Defaults to a new one in the model's location.

        Raises:
            ValueError: The version doesn't exist, a name is malformed, or the emulator is closed.
            DataFileError: The data file can't be read or written.
        """
        return self._change_deployments(self._dispatcher.deploy, model, endpoint)

    def undeploy(self, model: str, endpoint: str = "") -> tuple[str, ...]:
        """Mark a version as no longer deployed, and return the endpoints that it's still deployed to.

        Args:
            model: The resource name of the version.
            endpoint: The resource name of the endpoint. Defaults to all of the version's endpoints.

        Raises:
            ValueError: The version doesn't exist or isn't deployed there, or a name is malformed.
            DataFileError: The data file can't be read or written.
        """
        return self._change_deployments(self._dispatcher.undeploy, model, endpoint)

    @staticmethod
    def _change_deployments(
        change: Callable[[str, str], tuple[str, ...]], model: str, endpoint: str
    ) -> tuple[str, ...]:
        if not isinstance(model, str) or not isinstance(endpoint, str):
            raise ValueError("The model and the endpoint are resource names, such as ModelVersion.resource_name.")  # noqa: TRY004  # as for a fault
        try:
            return change(model, endpoint)
        except Failure as failure:
            if failure.code is not Code.INVALID_ARGUMENT:
                raise ValueError(failure.message) from None
            raise ValueError(
                f"{model!r} isn't the resource name of a version, or {endpoint!r} isn't that of an endpoint. Pass "
                "ModelVersion.resource_name, and projects/PROJECT/locations/LOCATION/endpoints/ID."
            ) from None

    def reset(self) -> None:
        """Forget every model, operation, planned fault and request. A quota stays, and its count begins again.

        Raises:
            DataFileError: The data file can't be written.
        """
        self._dispatcher.reset()

    def __reduce__(self) -> Never:
        raise TypeError("An Emulator can't be pickled or copied. Give the other process its address, grpc or rest.")


class SiteServer:
    """A site on this machine, served as the emulator's REST port is: to no web page of another origin.

    It serves as soon as it's created, and it's a context manager.

    Args:
        site: The function that answers GET and HEAD. See ``Emulator.mount``.
        host: The address to listen on. Any address but loopback lets others in.
        port: The port. 0 means any free port.
        allowed_hosts: More names that the server answers to.

    Attributes:
        address: The URL of the site, such as "http://127.0.0.1:8472", without a slash at the end.

    Raises:
        ValueError: An argument is invalid.
        OSError: The address or the port can't be listened on.
        ImportError: aiohttp isn't installed.
    """

    def __init__(
        self, site: Site, *, host: str = "127.0.0.1", port: int = 0, allowed_hosts: Iterable[str] = ()
    ) -> None:
        _check_kinds(host=host, rest_port=port, allowed_hosts=allowed_hosts)
        names = tuple(allowed_hosts)
        _check_names(names)
        _check_addresses(host, None, port, http="HTTP")
        http, rest = _rest_modules()
        self._server = http.HttpServer(
            rest.answer_with(site), host, port, allowed_hosts=names, accepts_link=lambda _path: True
        )
        self.address: str = self._server.address

    def close(self) -> None:
        """Stop serving. Closing twice is fine."""
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _rest_modules() -> tuple[Any, Any]:
    """Return the modules that serve HTTP. Their library is in an extra."""
    try:
        from vertex_registry.emulator import _http, _rest  # noqa: PLC0415 - only HTTP needs aiohttp
    except ModuleNotFoundError as error:
        raise ImportError(
            f"Serving HTTP needs {error.name}. Install it: pip install 'vertex-registry[emulator]'. For gRPC alone,"
            " pass rest_port=None.",
            name=error.name,
        ) from error
    return _http, _rest


# --- checks of the arguments -------------------------------------------------
#
# Everything is checked before anything is started, so a mistake leaves nothing behind.

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
    "quota": ((Quota, type(None)), "a Quota"),
    "now": ((Callable,), "a function"),
    "new_id": ((Callable,), "a function"),
}


def _check_kinds(**given: object) -> None:
    """Refuse arguments of the wrong type."""
    for name, value in given.items():
        kinds, what = _KINDS[name]
        # To Python, True is the number 1, and a name is a list of letters. Nobody means either.
        mistaken = isinstance(value, bool) or (isinstance(value, str) and str not in kinds)
        if mistaken or not isinstance(value, kinds):
            raise ValueError(f"{name} can't be {value!r}. It has to be {what}.")


#: More polls than anybody has the time for.
_MAXIMUM_POLLS: Final = 10**9

_AN_ADDRESS: Final = "Use an address of this machine without a port, such as 127.0.0.1, or 0.0.0.0 for all of them"


def _check_addresses(host: str, grpc_port: int | None, rest_port: int | None, *, http: str = "REST") -> None:
    """Refuse an address that can't be listened on. gRPC's server doesn't say why it got no port."""
    for port in (grpc_port, rest_port):
        if port is not None and not 0 <= port <= 65535:  # noqa: PLR2004 - the ports there are
            raise ValueError(f"{port} isn't a port. Use 1 to 65535, or 0 for any free port.")
    if grpc_port and grpc_port == rest_port:
        raise ValueError(f"gRPC and REST can't both use port {grpc_port}. Choose another port for one of them.")
    # What has other characters than a name is a number or a mistake. No name server is asked about it.
    flags = socket.AI_NUMERICHOST if re.search(r"[^\w.-]", host) else 0
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=flags)
    except (OSError, UnicodeError) as error:
        raise OSError(f"The address {host!r} doesn't exist. {_AN_ADDRESS}.") from error
    for name, port in (("gRPC", grpc_port), (http, rest_port)):
        if port is not None:
            _check_port(host, port, name, found)


def _check_port(host: str, port: int, name: str, found: Sequence[tuple[Any, ...]]) -> None:
    """Refuse a port that none of the host's addresses can listen on."""
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
        raise OSError(f"Can't listen on the address {host}: {refused.strerror}. {_AN_ADDRESS}.") from refused
    raise OSError(
        f"Can't listen on port {port} of {host} for {name}: {refused.strerror}."
        " Choose another port, or 0 for any free port."
    ) from refused


class _Tls(NamedTuple):
    """A certificate chain with its key, in the form that each server needs."""

    pair: tuple[bytes, bytes]
    context: ssl.SSLContext


def _tls(certificate: Path, key: Path) -> _Tls:
    parts = []
    for path, label, what in ((certificate, b"CERTIFICATE", "certificate"), (key, b"PRIVATE KEY", "private key")):
        try:
            parts.append(path.read_bytes())
        except OSError as error:
            raise OSError(f"The {what} {path} can't be read: {error.strerror}.") from error
        if not re.search(rb"-----BEGIN [A-Z ]*" + label, parts[-1]):
            raise OSError(f"The file {path} has no {what}. It has to be in PEM: -----BEGIN {label.decode()}-----.")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise OSError(f"The key in {key} isn't the key of the certificate in {certificate}.") from error
        raise OSError(f"The certificate in {certificate} and the key in {key} can't be used: {error}.") from error
    except _PasswordError as error:
        raise OSError(f"The key in {key} has a password. Use one without a password.") from error
    return _Tls((parts[0], parts[1]), context)


class _PasswordError(Exception):
    """The key has a password."""


def _no_password() -> str:
    raise _PasswordError


def _check_names(hosts: Iterable[object]) -> None:
    """Refuse a name that no Host can match. It's compared without its port and without the brackets of IPv6."""
    for name in hosts:
        if (
            not isinstance(name, str)
            or not re.fullmatch(r"[^\s/:@\[\]]+|[0-9a-fA-F:.]+", name)
            or re.fullmatch(r"[^:]+:[0-9]+", name)
        ):
            raise ValueError(
                f"The allowed host {name!r} isn't a name. Give it without a scheme and a port, such as 'vertex'."
            )


def _objects_anywhere(
    storage: str, folders: Mapping[str, str | os.PathLike[str]]
) -> Callable[[str, str], Sequence[str] | None] | None:
    """Return a function that lists a bucket's objects under a prefix; it returns None if it can't look there."""
    on_server = _objects_in(storage) if storage else None
    if not folders:
        return on_server

    def list_objects(bucket: str, prefix: str) -> Sequence[str] | None:
        if bucket not in folders:
            return None if on_server is None else on_server(bucket, prefix)
        if prefix.startswith("/") or ".." in prefix.split("/"):
            return ()
        try:
            with os.scandir(Path(folders[bucket], prefix)) as entries:
                return tuple(prefix + entry.name for entry in entries if entry.is_file(follow_symlinks=False))
        except (OSError, ValueError):
            return ()

    return list_objects


def _objects_in(storage: str) -> Callable[[str, str], Sequence[str]]:
    """Return a function that lists a bucket's objects under a prefix."""
    base = (storage if "://" in storage else f"http://{storage}").strip().rstrip("/")
    try:
        parts = urllib.parse.urlsplit(base)
        whole = parts.hostname and base.isprintable() and not re.search(r"[\s@]", parts.netloc)
        sound = parts.scheme in {"http", "https"} and whole and parts.port != 0
    except ValueError:
        sound = False
    if not sound or {"?", "#"} & set(base):
        shown = "" if {"@", "?", "#"} & set(base) else f" {storage!r}"  # that may be a password
        raise ValueError(
            f"The storage{shown} isn't an address. Use one such as http://127.0.0.1:4443, without a user, a password "
            "or a query."
        )

    # The server is asked directly, and never through a proxy that the environment names.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def list_objects(bucket: str, prefix: str) -> Sequence[str]:
        query = {"prefix": prefix, "delimiter": "/", "fields": "items(name),nextPageToken"}
        url = f"{base}/storage/v1/b/{urllib.parse.quote(bucket, safe='')}/o?"
        names: list[str] = []
        try:
            for _ in range(_MAXIMUM_PAGES):
                with direct.open(url + urllib.parse.urlencode(query), timeout=10) as answer:
                    found: Any = json.load(answer)
                names += _names_in(found)
                if not found.get("nextPageToken"):
                    return tuple(names)
                query["pageToken"] = found["nextPageToken"]
        except urllib.error.HTTPError as error:
            with error:
                if error.code == HTTPStatus.NOT_FOUND:
                    # A bucket that doesn't exist has no objects.
                    return ()
                raise unavailable(f"The storage at {base} answered with status {error.code}.") from error
        except Exception as error:
            # Whatever is wrong with the response is the storage server's mistake.
            raise unavailable(f"The storage at {base} doesn't answer: {type(error).__name__}.") from error
        raise unavailable(f"The storage at {base} doesn't answer: its list of {prefix or bucket} has no end.")

    return list_objects


#: More pages, of a thousand names each, than the directory of a model's files fills.
_MAXIMUM_PAGES: Final = 100


def _names_in(found: Any) -> list[str]:
    """Return the names in a page of a list of objects."""
    names = [item["name"] for item in found.get("items", [])]
    if not all(isinstance(name, str) for name in names):
        raise TypeError
    return names
