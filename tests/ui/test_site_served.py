"""The site on the emulator's REST port, and with the command `vertex-registry ui`."""

from __future__ import annotations

import http.client
import importlib
import json
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin, urlsplit

import pytest
import requests

from tests.ui.documents import Document
from vertex_registry import RegistryClient, cli, local_registry
from vertex_registry.emulator import Emulator, SiteServer
from vertex_registry.emulator import __main__ as process
from vertex_registry.ui import Site, Sites, _rendering

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


def get(address: str, path: str, method: str = "GET", **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, response.headers, body


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Return an emulator that serves the site, like the emulator's command."""
    with Emulator(grpc_port=None) as emulator:
        sites = Sites(emulator)
        emulator.mount(sites)
        yield emulator
        sites.close()


def register(emulator: Emulator, project: str, location: str = "us-central1") -> None:
    with RegistryClient(project=project, location=location, endpoint=emulator.rest) as registry:
        registry.register_version("churn", "gs://models/churn/1")


def test_an_emulator_shows_each_of_its_registries(emulator: Emulator) -> None:
    """The root shows a hint, redirects to the only registry, or lists several. Each registry has its own site."""
    assert "no models yet" in Document(get(emulator.rest, "/")[2]).text
    register(emulator, "acme")
    status, headers, _ = get(emulator.rest, "/")
    assert (status, headers["Location"]) == (302, "projects/acme/locations/us-central1/")
    status, headers, body = get(emulator.rest, "/?q=churn")
    assert (status, headers["Location"]) == (302, "projects/acme/locations/us-central1/?q=churn")
    assert body == b"This page is at projects/acme/locations/us-central1/?q=churn\n"
    register(emulator, "acme", "europe-west1")
    parents = ["projects/acme/locations/europe-west1", "projects/acme/locations/us-central1"]
    assert json.loads(get(emulator.rest, "/index.json")[2]) == {"registries": parents}
    links = Document(get(emulator.rest, "/")[2]).links
    assert [link for link in links if link.startswith("projects")] == [f"{parent}/" for parent in parents]
    for parent in parents:
        page = Document(get(emulator.rest, f"/{parent}/")[2])
        assert "churn" in page.text
        assert "../../../../" in page.links
        code = Document(get(emulator.rest, f"/{parent}/version?model=churn")[2]).text
        assert f'project="acme", location="{parent.rpartition("/")[2]}", endpoint="{emulator.rest}"' in code
    assert get(emulator.rest, f"/{parents[0]}")[1]["Location"] == "europe-west1/"
    assert get(emulator.rest, f"/{parents[0]}?page=1")[1]["Location"] == "europe-west1/?page=1"
    assert json.loads(get(emulator.rest, "/projects/none/locations/us-central1/models.json")[2])["models"] == []


@pytest.mark.parametrize(
    "path",
    [
        "/projects/acme/locations/us-central1%2F",
        "/projects/acme/locations/us-central1%2fmodels.json",
        "/projects/acme%2Flocations/us-central1/",
        "/projects/acme/locations/us-central1/models%2Fx",
        "/projects/acme/locations/us-central1/%2F/",
        "/%2F",
        "/static%2Fsite.css",
    ],
)
def test_an_encoded_slash_is_no_slash(emulator: Emulator, path: str) -> None:
    """A browser doesn't take it for one, so the links of a page would lead elsewhere. There's no such page."""
    status, headers, body = get(emulator.rest, path)
    assert status == 404
    if headers["Content-Type"].startswith("text/html"):
        page = Document(body)
        (style,) = [each["href"] for name, each in page.elements if name == "link" and each["rel"] == "stylesheet"]
        for link in (style, *page.links[1:2]):
            assert link is not None
            target = urljoin(f"{emulator.rest}{path}", link).removeprefix(emulator.rest)
            assert get(emulator.rest, target)[0] in {200, 302}, target


def test_a_project_that_no_address_can_name(emulator: Emulator) -> None:
    """An emulator accepts any text as a project. If the text can't be in an address, the project's number is."""
    project = quote("<b>\r\nX: y", safe="")
    model = {"displayName": "churn", "artifactUri": "gs://models/1", "containerSpec": {"imageUri": "gcr.io/acme/x"}}
    url = f"{emulator.rest}/v1/projects/{project}/locations/us-central1/models:upload"
    requests.post(url, json={"model": model}, timeout=20).raise_for_status()
    (parent,) = emulator.parents()
    assert re.fullmatch(r"projects/\d+/locations/us-central1", parent)
    status, headers, _ = get(emulator.rest, "/")
    assert (status, headers["Location"]) == (302, f"{parent}/")
    assert "churn" in Document(get(emulator.rest, f"/{parent}/")[2]).text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nowhere", 404),
        ("/projects/acme/locations/us-central1/nowhere", 404),
        ("/projects/acme/locations/global/", 404),
        ("/projects/%3Cb%3E/locations/us-central1/", 404),
        ("/projects/a/locations/b/models/c", 404),
        ("/static/site.css", 200),
        ("/static/../pyproject.toml", 404),
        ("/static/%2e%2e/_site.py", 404),
        ("/v1/projects/acme/locations/us-central1/models", 200),
        ("/emulator/health", 200),
    ],
)
def test_other_paths_of_an_emulator(emulator: Emulator, path: str, status: int) -> None:
    """Vertex AI's paths and the emulator's own still work. Unknown paths are error pages."""
    assert get(emulator.rest, path)[0] == status
    assert get(emulator.rest, path, "HEAD")[2] == b""


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Sec_Fetch_Site": "cross-site"}]
)
def test_no_other_site_reads_a_page(emulator: Emulator, headers: dict[str, str]) -> None:
    """Neither server answers requests of other sites, or requests for another host name (DNS rebinding)."""
    register(emulator, "acme")
    with (
        RegistryClient(project="acme", endpoint=emulator.rest) as registry,
        SiteServer(Site(registry)) as server,
    ):
        for address in (emulator.rest, server.address):
            for path in ("/", "/static/site.css", "/projects/acme/locations/us-central1/models.json", "/models.json"):
                status, _, body = get(address, path, **headers)
                assert status == 403
                assert b"churn" not in body
        assert b"--allow-host" in get(server.address, "/", Host="registry.example")[2]
        assert get(server.address, "/models.json")[0] == 200
        assert get(server.address, "/", "POST")[0] in {404, 405}


LINK = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}


def test_a_link_on_another_site_may_lead_to_a_page(emulator: Emulator) -> None:
    """You can follow a link from a chat or a notebook to a page. Other requests across sites are rejected."""
    with SiteServer(lambda *_: (200, {}, b"a page")) as server:
        assert get(server.address, "/model", **LINK)[0] == 200
        assert get(server.address, "/model", **LINK, Origin="http://evil.example")[0] == 403
        assert get(server.address, "/model", **LINK, Host="evil.example")[0] == 403
        for other in ({"Sec_Fetch_Dest": "iframe"}, {"Sec_Fetch_Mode": "no-cors"}):
            assert get(server.address, "/model", **(LINK | other))[0] == 403
    assert get(emulator.rest, "/", **LINK)[0] == 200
    for path in ("/v1/projects/p/locations/us-central1/models", "/%76%31/x", "/emulator/requests", "/emulator/health"):
        assert get(emulator.rest, path, **LINK)[0] == 403
    emulator.mount(None)  # type: ignore[arg-type]  # as if no site was mounted
    assert get(emulator.rest, "/", **LINK)[0] == 403


def test_the_entry_point_of_the_emulators_process() -> None:
    """The emulator's process finds the site by its entry point, which exists."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, name = project["entry-points"]["vertex_registry.emulator"]["site"].partition(":")
    assert getattr(importlib.import_module(module), name) is Sites
    assert any(each.startswith("jinja2") for each in project["optional-dependencies"]["ui"])


def test_the_emulators_process_shows_the_site() -> None:
    """The emulator's process mounts a function that imports the site on the first request."""
    with Emulator(grpc_port=None) as emulator:
        site = process._site_of(emulator)
        status, headers, body = site("GET", "/", "", {})
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert b"no models yet" in body
        emulator.mount(site)
        assert get(emulator.rest, "/")[2] == body


def test_over_tls_a_page_says_what_to_do() -> None:
    """With TLS, the site would have to trust the emulator's certificate. The page names the command instead."""

    class Server:
        rest = "https://127.0.0.1:1"

        def parents(self) -> list[str]:
            return []

    assert Sites(Server())("GET", "/").status == 503
    assert b"vertex-registry ui" in Sites(Server())("GET", "/").body


def test_the_command(tmp_path: Path) -> None:
    """`vertex-registry ui` prints its address, shows the registry, and ends without a message."""
    file = str(tmp_path / "registry.db")
    with local_registry(file) as registry:
        registry.register_version("churn", "gs://models/churn/1")
    command = [sys.executable, "-m", "vertex_registry.cli", "ui", "--local", file, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        try:
            assert started.stdout is not None
            address = started.stdout.readline().strip()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address), started.communicate()
            page = Document(get(address, "/version?model=churn")[2])
            assert f'with local_registry("{file}") as registry:' in page.text
            assert f"vertex-registry versions download --local {file} -- churn 1" in page.text
        finally:
            started.send_signal(signal.SIGINT)
        out, err = started.communicate(timeout=20)
    assert (started.returncode, out, err) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [(["--port", "70000"], "70000"), (["--host", "nowhere.invalid"], "doesn't exist"), ([], "Jinja2")],
)
def test_the_command_says_what_is_wrong(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """If the address can't be used or the extra is missing, the error is one sentence."""
    if not arguments:
        _rendering.environment.cache_clear()
        monkeypatch.setitem(sys.modules, "jinja2", None)
    words = ["ui", "--local", str(tmp_path / "registry.db"), *arguments]
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    _rendering.environment.cache_clear()
    assert ended.value.code != 0
    out, err = capsys.readouterr()
    assert out == ""
    assert text in err.splitlines()[-1]
