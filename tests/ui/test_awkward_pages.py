"""What somebody meets who clicks fast, types addresses, or gives models names that can hardly be seen."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
import shlex
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urljoin, urlsplit

import pytest
from google.api_core import exceptions
from google.cloud.aiplatform_v1.types import ListModelsResponse, ListModelVersionsResponse
from google.cloud.aiplatform_v1.types import Model as ModelType

from tests.behaviour.hostile import Hostile
from tests.client.test_hostile_labels import pack
from tests.ui.documents import Browser, Document
from vertex_registry import RegistryClient
from vertex_registry.emulator import Emulator
from vertex_registry.ui import Opening, Site, Sites, _rendering

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MODELS = "projects/4711/locations/us-central1/models"


@pytest.fixture(scope="module")
def awkward() -> Iterator[Hostile]:
    with Hostile() as awkward:
        yield awkward


@pytest.fixture(scope="module")
def page(awkward: Hostile) -> Iterator[Browser]:
    with RegistryClient(project="4711", endpoint=awkward.grpc) as registry:
        yield Browser(Site(registry))


class ManyRegistries:
    """A server that has a registry for whatever project somebody names."""

    def __init__(self, server: Hostile) -> None:
        self.rest = server.rest

    def parents(self) -> list[str]:
        return []


def model(name: str, number: int = 1, version: int = 0, labels: Mapping[str, str] | None = None) -> Any:
    return ModelType(
        name=f"{MODELS}/{number}{f'@{version}' if version else ''}",
        display_name=name,
        version_id=str(version or 1),
        labels=labels or {},
    )


def with_models(awkward: Hostile, *models: Any) -> None:
    """Let the registry have these models, each with one version."""
    known = {name: each for each in models for name in (each.name, f"{each.name}@1")}

    def get(request: Any) -> Any:
        if request.name not in known:
            raise exceptions.NotFound("There's none.")  # type: ignore[no-untyped-call]  # of google.api_core
        return known[request.name]

    awkward.answers = {
        "ListModels": lambda _: ListModelsResponse(models=models),
        "ListModelVersions": lambda request: ListModelVersionsResponse(
            models=[ModelType(known[request.name], name=f"{request.name}@1")]
        ),
        "GetModel": get,
    }


# --- what a page says about what it has read --------------------------------------------------------------------------


def test_a_late_page_shows_what_is_in_use(awkward: Hostile, page: Browser) -> None:
    """A version in Production is older than the 100 that are read first, and still in use on every page."""
    versions = [
        model("big", version=number, labels={"stage": "production"} if number == 1 else None)
        for number in range(1, 121)
    ]

    def listed(request: Any) -> Any:
        in_stage = [each for each in versions if "production" not in request.filter or each.labels]
        return ListModelVersionsResponse(models=in_stage[::-1])

    awkward.answers = {"GetModel": lambda _: versions[-1], "ListModelVersions": listed}
    for number in (1, 3, 2, 3):
        found = page.json("/model.json", f"name={MODELS}/1&page={number}")
        assert [(each["stage"], each["version"]) for each in found["in_use"]] == [("Production", "1")], number
        assert found["complete"] == (number == 3)


def test_a_search_knows_how_far_it_has_read(awkward: Hostile, page: Browser) -> None:
    """A search that read further before doesn't make one that reads less claim that it has read everything."""
    with_models(awkward, *(model(f"model-{number}", number) for number in range(1, 2102)))
    deep = page.json("/models.json", "q=2101&page=2&depth=2")
    assert (deep["searched"], deep["complete"]) == (2101, True)
    found = page.json("/models.json", "q=nothing&page=2")
    assert (found["searched"], found["complete"]) == (2000, False)
    assert "Search further" in page.html("/", "q=nothing&page=2").text


def test_a_far_page_does_not_read_the_whole_list(awkward: Hostile, page: Browser) -> None:
    """One request reads at most 2,000 rows further, says so, and the same address reads on."""
    with_models(awkward, *(model(f"model-{number}", number) for number in range(1, 2102)))
    found = page.json("/models.json", "page=1000000&order=name")
    assert (found["models"], found["searched"], found["complete"]) == ([], 2000, False)
    assert "Read further" not in page.html("/", "page=1000000&order=name").text  # now it has read all
    assert "ends before this page" in page.html("/", "page=1000000&order=name").text
    shown = page.html("/", "page=90&order=created")
    assert "read 2000 models so far" in shown.text
    assert "./?order=created&page=90" in shown.links
    assert [each["name"] for each in page.json("/models.json", "page=85")["models"]] == ["model-2101"]
    versions = [model("big", 77, version=number) for number in range(2150, 0, -1)]
    awkward.answers = {
        "GetModel": lambda _: versions[-1],
        "ListModelVersions": lambda _: ListModelVersionsResponse(models=versions),
    }
    found = page.json("/model.json", f"name={MODELS}/77&page=500000")
    assert (found["versions"], found["read"], found["complete"]) == ([], 2101, False)
    found = page.json("/model.json", f"name={MODELS}/77&page=43")
    assert [each["version"] for each in found["versions"]] == [str(number) for number in range(50, 0, -1)]


def test_the_model_with_exactly_that_name_comes_first(awkward: Hostile, page: Browser) -> None:
    """A search shows each match once over its pages, and first the model that has the name that was typed."""
    with_models(awkward, *(model("churn" if number == 70 else f"churn-{number}", number) for number in range(1, 81)))
    pages = [page.json("/models.json", f"q=churn&page={number}") for number in range(1, 5)]
    names = [each["name"] for found in pages for each in found["models"]]
    assert names[0] == "churn"
    assert len(names) == len(set(names)) == 80


def test_a_registry_that_is_read_stays_open() -> None:
    """Somebody who opens many registries doesn't end a page of another one that's still being read."""
    reading, others_done = threading.Event(), threading.Event()

    def list_models(request: Any) -> Any:
        if "/slow/" in request.parent and not reading.is_set():
            reading.set()
            assert others_done.wait(20)
            raise exceptions.ServiceUnavailable("Once more.")  # type: ignore[no-untyped-call]  # of google.api_core
        return ListModelsResponse()

    with (
        Hostile() as server,
        ThreadPoolExecutor() as threads,
        contextlib.closing(Sites(ManyRegistries(server))) as sites,
    ):
        server.answers = {"ListModels": list_models}
        slow = threads.submit(sites, "GET", "/projects/slow/locations/us-central1/models.json")
        assert reading.wait(20)
        for number in range(17):
            assert sites("GET", f"/projects/other-{number}/locations/us-central1/models.json").status == 200
        others_done.set()
        assert slow.result().status == 200


# --- where a page leads -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/nowhere", "/model/", "/models/churn", "/a/b/c/"])
def test_a_wrong_address_of_any_depth_leads_back(path: str) -> None:
    """The page about a missing page has its style and its links, wherever it is and wherever the site is mounted."""
    with contextlib.ExitStack() as stack:
        emulator = stack.enter_context(Emulator(grpc_port=None))
        sites = Sites(emulator)
        stack.callback(sites.close)
        place = "/projects/acme/locations/us-central1"
        for prefix in ("", place):
            missing = Document(sites("GET", prefix + path).body)
            led = {
                urlsplit(urljoin(f"http://site{prefix}{path}", each[key] or "")).path
                for _, each in missing.elements
                for key in ("href", "src")
                if key in each
            } - {prefix + path}
            static = {f"{prefix}/static/{name}" for name in ("icon.svg", "site.css", "site.js")}
            assert led == static | {f"{prefix}/"} | ({f"{prefix}/changes", "/"} if prefix else set())


def test_each_of_two_models_with_one_name_can_be_opened(awkward: Hostile, page: Browser) -> None:
    """The list links to each of them, and not to a page that says that the name is ambiguous."""
    with_models(awkward, model("twin", 1), model("twin", 2), model("single", 3))
    assert [each["reference"] for each in page.json("/models.json")["models"]] == [
        f"{MODELS}/1",
        f"{MODELS}/2",
        "single",
    ]
    changed = page.json("/changes.json")["changes"]
    assert {each["reference"] for each in changed} == {f"{MODELS}/1", f"{MODELS}/2", "single"}


def test_a_model_that_was_deleted_while_it_was_listed(awkward: Hostile, page: Browser) -> None:
    """Its row says so, and doesn't look like a model with nothing in use."""
    with_models(awkward, model("kept", 1), model("gone", 2))
    complete = awkward.answers["ListModelVersions"]

    def list_versions(request: Any) -> Any:
        if request.name.endswith("/2"):
            raise exceptions.NotFound("It's gone.")  # type: ignore[no-untyped-call]  # of google.api_core
        return complete(request)

    awkward.answers = {**awkward.answers, "ListModelVersions": list_versions}
    assert page.html("/").text.count("deleted since") == 1


def test_the_only_version_has_nothing_to_be_compared_with(awkward: Hostile, page: Browser) -> None:
    """Where fewer than two versions are shown, the page doesn't offer to compare two."""
    with_models(awkward, model("churn"))
    assert "Compare" not in page.html("/model", "name=churn").text


@pytest.mark.parametrize(
    ("path", "query", "leads"),
    [
        ("/version", "model=churn&version=99", True),
        ("/compare", "model=churn&version=1&version=2&version=3", True),
        ("/compare", "model=churn&a=1&b=99", True),
        ("/version", "model=nothing&version=1", False),
        ("/model", "name=nothing", False),
    ],
)
def test_an_error_leads_back_to_the_model(awkward: Hostile, page: Browser, path: str, query: str, leads: bool) -> None:
    """If a version can't be shown, its model can."""
    with_models(awkward, model("churn"))
    status = 404 if "99" in query or "nothing" in query else 400
    assert ("model?name=churn" in page.html(path, query, status).links) == leads
    assert not [link for link in page.html(path, query, status).links if link.startswith("model?name=nothing")]


@pytest.mark.parametrize(
    ("refusal", "status", "title"),
    [
        (exceptions.Unauthenticated, 502, "The registry didn't accept the credentials"),
        (exceptions.PermissionDenied, 403, "Not allowed"),
        (exceptions.FailedPrecondition, 502, "The registry refused the request"),
        (exceptions.MethodNotImplemented, 503, "The registry isn't available"),
    ],
)
def test_the_title_of_an_error_says_what_failed(
    awkward: Hostile, page: Browser, refusal: Any, status: int, title: str
) -> None:
    """A registry that refuses a request has answered, and missing credentials aren't a lost connection."""

    def refuse(_request: Any) -> Any:
        raise refusal("No.")

    awkward.answers = {"ListModels": refuse}
    assert title in page.html("/", status=status).text


@pytest.mark.parametrize(
    ("opening", "options"),
    [
        (None, []),
        (
            Opening("local_registry", path="my models.db", options=("--local", "my models.db")),
            ["--local", "my models.db"],
        ),
        (Opening(settings={"project": "acme", "endpoint": "x:1"}), ["--project=acme", "--endpoint=x:1"]),
    ],
)
def test_an_empty_registry_says_how_to_fill_this_one(
    awkward: Hostile, opening: Opening | None, options: list[str]
) -> None:
    """The command that the page offers registers a version here, not in whatever registry is the default."""
    with_models(awkward)
    with RegistryClient(project="4711", endpoint=awkward.grpc) as registry:
        empty = Browser(Site(registry, opening=opening)).html("/").text
    (command,) = [line for line in empty.splitlines() if line.startswith("vertex-registry ")]
    assert shlex.split(command) == ["vertex-registry", "versions", "register", *options, "churn", "gs://bucket/churn/1"]


# --- what can be seen -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("churn", "churn"),
        ("a b\nc", "a b\nc"),
        ("אב גד", "אב גד"),
        ("❤️", "❤\ufe0f"),
        ("a\ufe0f", "a\\ufe0f"),
        ("churn\u3164", "churn\\u3164"),
        ("\u2800", "\\u2800"),
        ("\u200b", "\\u200b"),
        ("  ", "\\x20\\x20"),
        ("\n", "\\n"),
        ("", ""),
        ("\U000e0100", "\\U000e0100"),
        ("שָּׁ", "שָּׁ"),
        ("e\u0301", "e\u0301"),
        ("\u0301", "\\u0301"),
        ("z" + "\u0301" * 7, "z" + "\u0301" * 5 + "\\u0301" * 2),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_cannot_be_seen_is_escaped(text: str, shown: str) -> None:
    """An invisible letter, a blank text and a tower of accents that covers other rows are escapes."""
    assert _rendering.visible(text) == shown


@pytest.mark.parametrize("name", [" ", "", "\u3164", "\u2800\u2800", "\u200b", "\n"])
def test_every_model_can_be_clicked(awkward: Hostile, page: Browser, name: str) -> None:
    """A link has a text that can be seen, whatever the model's name is, and so has every heading and metadata key."""
    with_models(awkward, model(name))
    for path, query in (("/", ""), ("/model", f"name={MODELS}/1"), ("/version", f"model={MODELS}/1"), ("/changes", "")):
        body = page.site("GET", path, query).body.decode()
        for piece in body.split("<a ")[1:]:
            text = Document(f"<a {piece.partition('</a>')[0]}</a>".encode()).text.strip()
            assert text, (path, piece)
            assert text.isprintable(), (path, piece)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "just now"), (59, "just now"), (-59, "just now"), (61, "1 min ago"), (-61, "in 1 min"), (-90000, "in 1 d")],
)
def test_a_time_in_the_future(seconds: int, shown: str) -> None:
    """Clocks differ by seconds. A stage that somebody says was set next year wasn't set just now."""
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    assert _rendering.age((now - dt.timedelta(seconds=seconds)).isoformat(), now) == shown


# --- metadata keys ----------------------------------------------------------------------------------------------------

KEYS = ("plain", "", " ", "a\nb", "a\rb", "a\r\nb", '"quoted"', "\0", "\ud800", "\u202e", "-", "items", "metadata.x")


def send(form: Document) -> str:
    """Return the query of a form as a browser encodes it, with every box ticked and other line breaks."""
    fields = [
        (each["name"] or "", (each.get("value") or "").replace("\n", "\r\n"))
        for name, each in form.elements
        if name == "input"
    ]
    return urlencode(fields, quote_via=quote)


def test_any_metadata_key_can_be_a_column(awkward: Hostile, page: Browser) -> None:
    """The form of the columns and the links that sort send each key back as it is."""
    metadata = {key: place for place, key in enumerate(KEYS)}
    versions = [
        model(
            "churn", version=number, labels=pack(json.dumps([{key: number * 100 + metadata[key] for key in KEYS}, {}]))
        )
        for number in (2, 1)
    ]
    awkward.answers = {
        "GetModel": lambda _: versions[0],
        "ListModelVersions": lambda _: ListModelVersionsResponse(models=versions),
    }
    shown = page.site("GET", "/model", f"name={MODELS}/1").body.decode()
    form = re.sub(r"\r\n?", "\n", shown.partition("<summary>Columns and charts")[2]).replace("\0", "\ufffd")
    query = send(Document(("<form" + form.partition("<form")[2].partition("</form>")[0] + "</form>").encode()))
    found = page.json("/model.json", query)
    assert set(found["columns"]) == set(KEYS)
    assert {chart["metric"]: chart["points"][-1]["value"] for chart in found["charts"]} == {
        key: 200 + place for key, place in metadata.items()
    }
    links = [link for link in page.html("/model", query).links if "sort=metadata" in link or "sort=-metadata" in link]
    assert len(links) == len(KEYS)
    for link in links:
        address = link.partition("?")[2]
        ordered = page.html("/model", address)
        assert [each["aria-sort"] for name, each in ordered.elements if each.get("aria-sort", "none") != "none"] == [
            "descending"
        ], link
        again = page.json("/model.json", address)
        assert [each["version"] for each in again["versions"]] == ["2", "1"]
        assert set(again["columns"]) == set(KEYS)
