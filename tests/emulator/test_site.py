"""A site on the REST port, next to the RPCs, and a site on its own server."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
import requests

from vertex_registry.emulator import SiteServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from vertex_registry.emulator import Emulator

    Start = Callable[..., Emulator]

Answer = tuple[int, dict[str, str], bytes]


def echo(method: str, path: str, query: str, headers: Mapping[str, str]) -> Answer:
    """Return what was requested."""
    text = f"{method} {path} {query} {headers.get('x-mine')}"
    return (
        200,
        {"Content-Type": "text/plain; charset=utf-8", "Content-Security-Policy": "default-src 'none'"},
        text.encode(),
    )


@pytest.fixture(name="site", params=["mounted", "alone"])
def _site(request: pytest.FixtureRequest, start: Start) -> Iterator[str]:
    """Return the address of the site, on an emulator's REST port and alone."""
    if request.param == "mounted":
        emulator = start(grpc_port=None)
        emulator.mount(echo)
        yield emulator.rest
    else:
        with SiteServer(echo) as server:
            yield server.address


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("/", "GET /  yes"),
        ("/models/a%20b%2Fc?q=%C3%A9&page=2", "GET /models/a b%2Fc q=%C3%A9&page=2 yes"),
        ("/v1.json", "GET /v1.json  yes"),
    ],
)
def test_a_site_is_asked_for_its_paths(site: str, path: str, seen: str) -> None:
    """A site gets the decoded path, the encoded query and the headers. Only its own headers are sent."""
    answer = requests.get(f"{site}{path}", headers={"X-Mine": "yes"}, timeout=10)

    assert (answer.status_code, answer.text) == (200, seen)
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'"
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert "Vary" not in answer.headers


def test_a_site_can_only_be_read(site: str) -> None:
    """A response to HEAD has no body. Other methods than GET are refused, without calling the site."""
    answer = requests.head(f"{site}/", timeout=10)
    assert (answer.status_code, answer.content, answer.headers["Content-Length"]) == (200, b"", "12")

    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        assert requests.request(method, f"{site}/", timeout=10).status_code == 404


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}],
)
def test_a_site_answers_no_other_sites_page(site: str, headers: dict[str, str]) -> None:
    """Host and Origin are checked before the site is called."""
    answer = requests.get(f"{site}/", headers=headers, timeout=10)

    assert answer.status_code == 403
    assert "GET /" not in answer.text


def test_the_emulators_paths_are_not_the_sites(start: Start) -> None:
    """A wrong path of the API stays Google's error, in JSON."""
    emulator = start(grpc_port=None)
    emulator.mount(echo)

    for path in ("/v1/x", "/v1", "/v1beta1/x", "/ui/x", "/emulator/x", "/emulator", "/token"):
        answer = requests.get(f"{emulator.rest}{path}", timeout=10)
        assert (answer.status_code, answer.json()["error"]["status"]) == (404, "NOT_FOUND")


def test_a_site_may_use_its_own_emulator(start: Start, parent: str) -> None:
    """While a site answers slowly, other requests are answered, even other requests to the site."""
    emulator = start(grpc_port=None)
    both = threading.Barrier(2, timeout=30)

    def models(*_: Any) -> Answer:
        both.wait()
        body = requests.get(f"{emulator.rest}/v1/{parent}/models", timeout=10).content
        return 200, {"Content-Type": "application/json"}, body

    emulator.mount(models)
    answers: list[Any] = []
    asking = [
        threading.Thread(target=lambda: answers.append(requests.get(f"{emulator.rest}/", timeout=30).json()))
        for _ in range(2)
    ]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()

    assert answers == [{}, {}]


def test_closing_waits_for_no_site_that_asks_the_emulator(start: Start) -> None:
    """A site whose request comes too late gets an error, and not silence."""
    asked, ended = threading.Event(), threading.Event()
    emulator = start(grpc_port=None)

    def late(*_: object) -> Answer:
        asked.set()
        with contextlib.suppress(requests.RequestException):
            while True:
                requests.get(f"{emulator.rest}/emulator/health", timeout=60)
        ended.set()
        return 200, {}, b""

    emulator.mount(late)
    with socket.create_connection(("127.0.0.1", int(emulator.rest.rpartition(":")[2]))) as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {emulator.rest.removeprefix('http://')}\r\n\r\n".encode())
        assert asked.wait(30)
        emulator.close()

    assert ended.is_set()


@pytest.mark.parametrize("mistake", [ZeroDivisionError, SystemExit])
def test_a_mistake_of_a_site_is_seen(
    start: Start, caplog: pytest.LogCaptureFixture, mistake: type[BaseException]
) -> None:
    """An exception in a site is logged with its traceback. The client gets a 500 without it."""

    def broken(*_: object) -> Answer:
        raise mistake("secret")

    emulator = start(grpc_port=None)
    emulator.mount(broken)

    answer = requests.get(f"{emulator.rest}/", timeout=10)

    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert mistake.__name__ in caplog.text


def test_a_site_needs_a_rest_port(start: Start) -> None:
    """Mounting a site on an emulator without a REST port is an error in one sentence."""
    with pytest.raises(ValueError, match=r"^There's no REST port to mount a site on\. Pass a rest_port\.$"):
        start(rest_port=None).mount(echo)


def test_a_site_server_checks_its_arguments() -> None:
    """Each mistake is reported before anything is started. Closing twice is fine."""
    before = threading.active_count()
    with SiteServer(echo, allowed_hosts=["registry"]) as server:
        assert requests.get(server.address, headers={"Host": "registry"}, timeout=10).ok
        port = int(server.address.rpartition(":")[2])
        with pytest.raises(OSError, match=rf"^Can't listen on port {port} of 127\.0\.0\.1 for HTTP: Address already"):
            SiteServer(echo, port=port)
        server.close()
    for arguments in ({"host": "nowhere.invalid."}, {"port": 70000}, {"port": "80"}, {"allowed_hosts": ["a:1"]}):
        with pytest.raises((ValueError, OSError)):
            SiteServer(echo, **arguments)
    assert threading.active_count() == before
