"""The emulator: it owns the store, the service and both servers."""

from __future__ import annotations

import datetime as dt
import json
import os
import secrets
import ssl
import urllib.error
import urllib.parse
import urllib.request
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from vertex_registry.emulator._dispatch import Dispatcher, Fault
from vertex_registry.emulator._grpc import GrpcServer
from vertex_registry.emulator._rest import RestServer
from vertex_registry.emulator._service import Service, parse_assumptions
from vertex_registry.emulator._status import unavailable
from vertex_registry.emulator._store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
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
        allowed_hosts: Further names that the HTTP port answers to, such as the one it has in a network of containers.
            It answers to its own address only, so that no web page can reach it through a browser.
        now: The clock; it gives aware datetimes.
        new_id: The maker of ids, for models and operations.

    Attributes:
        grpc: Where gRPC is served, such as "127.0.0.1:8470"; empty where it is not.
        rest: Where HTTP is served, such as "http://127.0.0.1:8471"; empty where it is not.

    Raises:
        ValueError: There is no such assumption, or the clock gives naive datetimes.
        DataFileError: The data file is not one of an emulator's, or is open in another one.
        OSError: A port is taken, or the certificate cannot be read.
    """

    def __init__(
        self,
        data: str | os.PathLike[str] | None = None,
        *,
        host: str = "127.0.0.1",
        grpc_port: int | None = 0,
        rest_port: int | None = 0,
        polls_until_done: int = 0,
        assume: Mapping[str, str] | None = None,
        tls_cert: str | os.PathLike[str] | None = None,
        tls_key: str | os.PathLike[str] | None = None,
        storage: str | None = None,
        allowed_hosts: Iterable[str] = (),
        now: Callable[[], dt.datetime] = _now,
        new_id: Callable[[], str] = _new_id,
    ) -> None:
        assumptions = parse_assumptions(assume or {})
        if polls_until_done < 0:
            raise ValueError("polls_until_done cannot be negative.")
        if now().utcoffset() is None:
            raise ValueError("The clock must give aware datetimes, such as datetime.now(UTC).")
        _check_ports(grpc_port, rest_port)
        if (tls_cert is None) is not (tls_key is None):
            raise ValueError("TLS needs both a certificate and its key.")
        if storage is None:
            storage = os.environ.get("STORAGE_EMULATOR_HOST", "")
        self.grpc = ""
        self.rest = ""
        self._closers: list[Callable[[], None]] = []
        store = Store(None if data is None else os.fspath(data), list_lag=assumptions.list_lag)
        self._closers.append(store.close)
        try:
            service = Service(
                store,
                assume=assumptions,
                polls_until_done=polls_until_done,
                now=now,
                new_id=new_id,
                look_up=_look_up_in(storage) if storage else None,
            )
            self._dispatcher = Dispatcher(service)
            if grpc_port is not None:
                pair = None
                if tls_cert is not None and tls_key is not None:
                    pair = (Path(tls_cert).read_bytes(), Path(tls_key).read_bytes())
                grpc_server = GrpcServer(self._dispatcher, host, grpc_port, pair)
                self._closers.append(grpc_server.close)
                self.grpc = grpc_server.address
            if rest_port is not None:
                context = None
                if tls_cert is not None and tls_key is not None:
                    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                    context.load_cert_chain(tls_cert, tls_key)
                rest_server = RestServer(self._dispatcher, host, rest_port, tls=context, allowed_hosts=allowed_hosts)
                self._closers.append(rest_server.close)
                self.rest = rest_server.address
            self._closers.append(self._dispatcher.close)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop serving and give the data file back. Closing twice is fine."""
        while self._closers:
            self._closers.pop()()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

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
                is answered, and the operation that it begins fails).
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


def _check_ports(*ports: int | None) -> None:
    for port in ports:
        if port is not None and not 0 <= port <= 65535:  # noqa: PLR2004 - the ports there are
            raise ValueError(f"There is no port {port}.")


def _look_up_in(storage: str) -> Callable[[str, str], Sequence[str]]:
    """A function that lists a bucket's objects under a prefix."""
    base = (storage if "://" in storage else f"http://{storage}").rstrip("/")

    def look_up(bucket: str, prefix: str) -> Sequence[str]:
        query = {"prefix": prefix, "delimiter": "/", "fields": "items(name),nextPageToken"}
        url = f"{base}/storage/v1/b/{urllib.parse.quote(bucket, safe='')}/o?"
        names: list[str] = []
        try:
            while True:
                # The address is the one that was given.
                with urllib.request.urlopen(url + urllib.parse.urlencode(query), timeout=10) as answer:  # noqa: S310
                    found: Any = json.load(answer)
                names += (item["name"] for item in found.get("items", ()))
                if not found.get("nextPageToken"):
                    return tuple(names)
                query["pageToken"] = found["nextPageToken"]
        except urllib.error.HTTPError as error:
            with error:
                if error.code == HTTPStatus.NOT_FOUND:
                    # A bucket that is not there holds nothing.
                    return ()
                raise unavailable(f"The storage at {base} answered {error.code} when it was asked.") from error
        except (OSError, ValueError) as error:
            raise unavailable(f"The storage at {base} does not answer: {type(error).__name__}.") from error

    return look_up
