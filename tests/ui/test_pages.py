"""The content of the pages, requested without a server."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
import shlex
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import grpc
import pytest
from google.cloud.aiplatform_v1.services.model_service import ModelServiceClient
from google.cloud.aiplatform_v1.services.model_service.transports.grpc import ModelServiceGrpcTransport
from google.cloud.aiplatform_v1.types import Model
from google.protobuf.field_mask_pb2 import FieldMask

from tests.ui.documents import Browser, Document
from vertex_registry import InvalidArgumentError, RegistryClient, Retry, ServingContainer, local_registry
from vertex_registry.cli._run import run
from vertex_registry.ui import Opening, Site, _rendering, _snippets

if TYPE_CHECKING:
    from pathlib import Path

    from vertex_registry import LocalRegistry

PAGES = [
    ("/", "/models.json", ""),
    ("/", "/models.json", "q=churn&stage=Production&order=name"),
    ("/model", "/model.json", "name=churn"),
    ("/model", "/model.json", "name=churn&sort=-metadata.accuracy&stage=none&page=2&columns=chosen&column=team"),
    ("/version", "/version.json", "model=churn&version=55"),
    ("/compare", "/compare.json", "model=churn&a=40&b=55"),
    ("/changes", "/changes.json", ""),
    ("/changes", "/changes.json", "name=churn"),
]


@pytest.mark.parametrize(("path", "json_path", "query"), PAGES)
@pytest.mark.unmeasured  # measuring coverage costs much, and other tests reach each line
def test_every_page_has_json_and_no_broken_links(browser: Browser, path: str, json_path: str, query: str) -> None:
    """A page links to its JSON form. All its links lead to pages that exist, or to addresses in the metadata."""
    page = browser.html(path, query)
    alternates = [each["href"] for name, each in page.elements if name == "link" and each["rel"] == "alternate"]
    assert alternates == [json_path.removeprefix("/") + (f"?{query}" if query else "")]
    assert browser.json(json_path, query)
    for link in dict.fromkeys([*page.links[:20], *page.links[-10:]]):
        if not link.startswith(("#", "https://ci.example.com/runs/", "https://console.cloud.google.com/storage/")):
            where, _, parameters = link.partition("?")
            assert browser.site("GET", "/" + where.removeprefix("./"), parameters).status == 200, link


@pytest.mark.parametrize("path", ["/", "/models.json", "/model", "/nowhere", "/static/site.css", "/static/nothing"])
def test_every_response_is_locked_down(browser: Browser, path: str) -> None:
    """Headers forbid scripts and frames of other sites, the referrer, and guessing of content types."""
    headers = browser.site("GET", path, "").headers
    policy = dict(each.strip().split(" ", 1) for each in headers["Content-Security-Policy"].split(";"))
    assert policy.pop("default-src") == "'none'"
    assert policy.pop("frame-ancestors") == policy.pop("base-uri") == "'none'"
    assert set(policy.values()) == {"'self'"}
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Opener-Policy"] == headers["Cross-Origin-Resource-Policy"] == "same-origin"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "get", ""])
def test_nothing_can_be_changed(browser: Browser, method: str) -> None:
    """A site only accepts GET and HEAD."""
    for path in ("/", "/model", "/static/site.css"):
        response = browser.site(method, path, "name=churn")
        assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


def test_the_site_only_reads(registry: LocalRegistry, browser: Browser) -> None:
    """No page sends a request that could change anything."""
    before = len(registry.emulator.requests())
    for path, _, query in PAGES:
        browser.html(path, query)
    sent = {request.rpc for request in registry.emulator.requests()[before:]}
    assert sent == {"GetModel", "ListModels", "ListModelVersions"}


# --- models -----------------------------------------------------------------------------------------------------------


def test_models_with_their_stages(browser: Browser) -> None:
    """Each model shows what's in Production and Staging, its newest version and its last change."""
    models = browser.json("/models.json")["models"]
    assert [model["name"] for model in models[:3]] == ["churn", "fraud", "model-27"]
    churn, fraud, other = models[:3]
    assert [(each["stage"], each["version"]) for each in churn["in_use"]] == [("Production", "55"), ("Staging", "60")]
    assert churn["newest_version"] == "60"
    assert [(each["stage"], each["version"]) for each in fraud["in_use"]] == [("Staging", "1")]
    assert other["in_use"] == []
    assert churn["changed_at"] > fraud["changed_at"] > other["changed_at"]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("q=churn", ["churn"]),
        ("q=CUSTOMERS+leave", ["churn"]),
        ("q=model-0&order=name", [f"model-{number:02}" for number in range(10)]),
        ("q=model+27", ["model-27"]),
        ("q=nothing", []),
        ("stage=production", ["churn"]),
        ("stage=Staging", ["churn", "fraud"]),
        ("stage=staging&q=fr", ["fraud"]),
        ("stage=&q=fraud", ["fraud"]),
        ("order=created&page=2", ["model-03", "model-02", "model-01", "model-00", "churn"][-5:]),
        ("page=99", []),
        ("q=fraud&page=", ["fraud"]),
    ],
)
def test_search(browser: Browser, query: str, names: list[str]) -> None:
    """Models are found by the words of their name and description, and by what's in a stage."""
    found = browser.json("/models.json", query)
    if "created" in query:
        names = [f"model-{number:02}" for number in (4, 3, 2, 1, 0)]
    assert [model["name"] for model in found["models"]] == names
    assert found["complete"]
    browser.html("/", query)


@pytest.mark.parametrize(
    ("page", "query", "stages"),
    [
        ("models", "stage=prod", "Production or Staging"),
        ("models", "stage=Archived&q=fraud", "Production or Staging"),
        ("model", "name=churn&stage=live", "None, Staging, Production or Archived"),
    ],
)
def test_a_stage_that_a_page_does_not_have(browser: Browser, page: str, query: str, stages: str) -> None:
    """A stage that isn't one, or that a page can't search by, is an error that names the right ones."""
    for path in (f"/{page}", f"/{page}.json"):
        status, _, body = browser.site("GET", path, query)
        assert status == 400
        assert f"Use {stages}." in body.decode()


def test_models_are_paged(browser: Browser) -> None:
    """Each model is on one page, in order, and the last page says that it's the last."""
    first, second = browser.json("/models.json"), browser.json("/models.json", "page=2")
    names = [model["name"] for page in (first, second) for model in page["models"]]
    assert (len(names), len(set(names))) == (30, 30)
    assert (first["has_next"], second["has_next"]) == (True, False)
    assert "page=2" in " ".join(browser.html("/").links)


# --- a model ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sort", "first", "last"),
    [
        ("", 60, 11),
        ("version", 1, 50),
        ("-metadata.accuracy", 28, 0),
        ("metadata.rows", 11, 60),
        ("-metadata.team", 60, 0),
        ("-stage", 60, 0),
        ("name", 1, 50),
        ("metadata.params", 60, 11),
    ],
)
def test_versions_are_sorted(browser: Browser, sort: str, first: int, last: int) -> None:
    """Versions can be sorted by any column. What's missing comes last, in either direction."""
    found = browser.json("/model.json", f"name=churn&sort={sort}")
    numbers = [int(version["version"]) for version in found["versions"]]
    assert numbers[0] == first
    assert not last or numbers[-1] == last
    key = sort.removeprefix("-").removeprefix("metadata.")
    if sort in {"-metadata.accuracy", "metadata.rows"}:
        values = [version["metadata"][key] for version in found["versions"]]
        assert values == sorted(values, reverse=sort.startswith("-"))
    (column,) = [
        each["aria-sort"]
        for name, each in browser.html("/model", f"name=churn&sort={sort}").elements
        if name == "th" and each.get("aria-sort") not in (None, "none")
    ] or [None]
    if sort != "metadata.params":
        assert column == ("ascending" if found["sort"] == found["sort"].lstrip("-") else "descending")


def test_missing_values_come_last(browser: Browser) -> None:
    """Ten versions have no rows, so they're at the end of the second page."""
    second = browser.json("/model.json", "name=churn&sort=-metadata.rows&page=2")
    assert [version["version"] for version in second["versions"]] == [str(number) for number in range(10, 0, -1)]
    assert (second["has_next"], second["complete"], second["read"]) == (False, True, 60)


def test_columns_charts_and_stages(browser: Browser) -> None:
    """The keys that most versions have are the default columns and charts. You can choose others."""
    found = browser.json("/model.json", "name=churn")
    assert found["columns"] == ["accuracy", "rows", "run", "team", "params"]
    assert [chart["metric"] for chart in found["charts"]] == ["accuracy", "rows"]
    assert found["charts"][1]["points"][-1] == {"version": "60", "value": 60, "stage": "Staging"}
    assert [(each["stage"], each["version"]) for each in found["in_use"]] == [("Production", "55"), ("Staging", "60")]

    chosen = browser.json("/model.json", "name=churn&columns=chosen&column=team&metric=rows&metric=none")
    assert (chosen["columns"], chosen["metrics"]) == (["team"], ["rows", "none"])
    page = browser.html("/model", "name=churn&columns=chosen&column=team&metric=rows&metric=none")
    assert "no numbers in these versions" in page.text
    assert browser.json("/model.json", "name=churn&columns=chosen")["charts"] == []

    archived = browser.json("/model.json", "name=churn&stage=archived")
    assert [version["version"] for version in archived["versions"]] == ["40"]


def test_a_page_does_not_read_the_whole_model() -> None:
    """Of 330 versions, a page reads the newest 100 and those in use. The next page continues there."""
    with contextlib.ExitStack() as stack:
        registry = stack.enter_context(local_registry())
        first = registry.register_version("big", "gs://models/1")
        channel = stack.enter_context(grpc.insecure_channel(registry.emulator.grpc))
        google = ModelServiceClient(transport=ModelServiceGrpcTransport(channel=channel))
        model = Model(display_name="big", artifact_uri="gs://models/x", container_spec={"image_uri": "gcr.io/acme/x"})
        parent = first.model_resource_name
        for _ in range(329):
            google.upload_model(
                request={"parent": parent.partition("/models/")[0], "parent_model": parent, "model": model}
            )
        registry.set_stage("big", 1, "production")
        browser = Browser(Site(registry))

        def page(query: str) -> tuple[Any, int]:
            before = len(registry.emulator.requests())
            found = browser.json("/model.json", query)
            sent = [request.rpc for request in registry.emulator.requests()[before:]]
            return found, sent.count("ListModelVersions")

        found, lists = page("name=big")
        assert (found["versions"][0]["version"], found["has_next"], found["complete"]) == ("330", True, False)
        assert [(each["stage"], each["version"]) for each in found["in_use"]] == [("Production", "1")]
        assert lists <= 4  # one or two pages of the list, and one for each stage
        _, lists = page("name=big&page=2")
        assert lists == 2  # the earlier part of the list is cached
        found, _ = page("name=big&page=7")
        assert [version["version"] for version in found["versions"]] == [str(number) for number in range(30, 0, -1)]
        assert (found["has_next"], found["complete"], found["read"]) == (False, True, 330)
        found, lists = page("name=big&stage=production")
        assert [version["version"] for version in found["versions"]] == ["1"]
        assert lists <= 5
        models = browser.json("/models.json")["models"]
        assert [(each["stage"], each["version"]) for each in models[0]["in_use"]] == [("Production", "1")]


@pytest.mark.parametrize("key", [" a ", "x.y", "-z", "name", "é&=+#?", "k" * 400])
def test_any_metadata_key_is_a_column(key: str) -> None:
    """A column can have any key: it's sorted by its own link, and stays chosen."""
    with local_registry() as registry:
        for number in (1, 3, 2):
            registry.register_version("churn", f"gs://models/{number}", metadata={key: number})
        browser = Browser(Site(registry))
        links = [link for link in browser.html("/model", "name=churn").links if "sort=-metadata" in link]
        found = browser.json("/model.json", links[0].partition("?")[2])
        assert [version["metadata"][key] for version in found["versions"]] == [3, 2, 1]
        query = f"name=churn&columns=chosen&column={quote(key)}&metric={quote(key)}"
        links = [link for link in browser.html("/model", query).links if "sort=-metadata" in link]
        found = browser.json("/model.json", links[0].partition("?")[2])
        assert (found["columns"], found["metrics"], len(found["charts"][0]["points"])) == ([key], [key], 3)


# --- versions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["55", "1.55.0"])
def test_a_version(browser: Browser, text: str) -> None:
    """A version is found by its number or name. Its page shows metadata, history, and code that loads it."""
    found = browser.json("/version.json", f"model=churn&version={text}")
    version = found["version"]
    assert (version["version"], version["stage"], version["metadata"]["params"]) == ("55", "Production", {"depth": 6})
    assert [(each["stage"], each["changed_by"]) for each in found["history"]] == [("Production", "ann@example.com")]
    page = browser.html("/version", f"model=churn&version={text}")
    assert 'registry.load_version("churn", 55, trusted=True)' in page.text
    assert "https://ci.example.com/runs/55" in page.links
    assert "https://console.cloud.google.com/storage/browser/models/churn/55" in page.links


def test_a_version_with_a_metadata_file(tmp_path: Path) -> None:
    """The page says where more metadata is, and doesn't read the file."""
    (tmp_path / "model.joblib").write_bytes(b"x")
    with local_registry() as registry:
        made = registry.register_version("large", tmp_path, container="sklearn", file_metadata={"notes": "x" * 9})
        page = Browser(Site(registry)).html("/version", "model=large").text

    assert f"More metadata is in a file next to the artifact, {made.metadata_file}." in page
    assert "This version has no metadata in its labels." in page
    assert "x" * 9 not in page


def test_the_default_version_and_an_alias(browser: Browser) -> None:
    """Without a version, the page shows the default one. An alias works like a number."""
    assert browser.json("/version.json", "model=churn")["version"]["is_default"]
    assert browser.json("/version.json", "model=churn&version=candidate")["version"]["version"] == "60"


def test_secrets_in_the_environment_are_not_shown() -> None:
    """A page shows the names of a container's variables, but not their values."""
    with local_registry() as registry:
        container = ServingContainer(image="gcr.io/acme/serve:1", env={"API_KEY": "s3cret"}, ports=[8080])
        registry.register_version("churn", "gs://models/churn/1", container=container)
        site = Site(registry)
        for path in ("/version", "/version.json", "/compare", "/compare.json"):
            body = site("GET", path, "model=churn&version=1" if "version" in path else "model=churn&a=1&b=1").body
            assert b"s3cret" not in body
            assert b"API_KEY" in body


@pytest.mark.parametrize(
    "name", ["churn", "it's", 'say "hi"', "a\\b", "-rf", "$(id)", "x\ny", "\u202ee", "'; import os #", "{0}"]
)
def test_code_to_copy_does_what_it_says(name: str) -> None:
    """Code to copy contains any name as a literal. For a shell, the name is one word."""
    with local_registry() as registry:
        version = registry.register_version("churn", "gs://models/churn/1")
    found = _snippets.snippets(version, name, Opening("local_registry", path=name, options=("--local", name)))
    calls = [each for each in ast.walk(ast.parse(found[0]["code"])) if isinstance(each, ast.Call)]
    opened, loaded = sorted(calls, key=lambda call: len(call.args))
    assert ast.literal_eval(opened.args[0]) == ast.literal_eval(loaded.args[0]) == name
    assert found[0]["code"].replace("\n", "").isprintable()
    if name.isprintable():
        words = shlex.split(found[1]["code"])
        assert words == ["vertex-registry", "versions", "download", "--local", name, "--", name, "1"]
    else:
        assert len(found) == 1


def test_compare(browser: Browser) -> None:
    """Two versions are compared field by field, with the difference of numbers. Checkboxes send both as `version`."""
    found = browser.json("/compare.json", "model=churn&version=55&version=40")
    assert (found["a"]["version"], found["b"]["version"]) == ("40", "55")
    fields = {row["field"]: row for row in found["fields"]}
    accuracy = fields["metadata.accuracy"]
    assert accuracy["change"] == pytest.approx(accuracy["b"] - accuracy["a"])
    assert fields["stage"]["differs"]
    assert not fields["metadata.params"]["differs"]
    assert browser.json("/compare.json", "model=churn&a=40&b=55")["fields"] == found["fields"]
    assert "same version twice" in browser.html("/compare", "model=churn&a=40&b=40").text


def test_changes(browser: Browser) -> None:
    """The newest change comes first: registrations, stages and other changes, with their author."""
    found = browser.json("/changes.json")["changes"]
    assert [(each["model"], each["version"], each["what"], each["stage"], each["by"]) for each in found[:3]] == [
        ("churn", "60", "stage", "Staging", "ann@example.com"),
        ("churn", "55", "stage", "Production", "ann@example.com"),
        ("churn", "60", "registered", None, None),
    ]
    assert [each["at"] for each in found] == sorted((each["at"] for each in found), reverse=True)
    one = browser.json("/changes.json", "name=fraud")["changes"]
    assert {each["model"] for each in one} == {"fraud"}


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "query", "status", "text"),
    [
        ("/model", "name=chrun", 404, "Did you mean 'churn'?"),
        ("/model", "", 400, "which model"),
        ("/version", "model=churn&version=99", 404, "has no version '99'"),
        ("/version", "model=churn&version=%3Cb%3E", 404, "has no version '<b>'"),
        ("/compare", "model=churn&version=1", 400, "Choose two versions"),
        ("/compare", "model=churn&version=1&version=2&version=3", 400, "not 3"),
        ("/compare", "model=churn&a=1", 400, "Choose two versions"),
        ("/changes", "name=nope", 404, "no model 'nope'"),
        ("/model", "name=" + "x" * 3000, 400, "longer than 2000"),
        ("/model", "name=churn&" + "a=b&" * 400, 400, "parameters"),
        ("/nowhere", "", 404, "There's no page '/nowhere'"),
        ("/models/churn", "", 404, "no page"),
        (
            "/models",
            "order=nonsense",
            400,
            "order='nonsense', which this page can't show. Use updated, created",
        ),
        ("/models", "page=-1", 400, "page='-1', which this page can't show. Use a number from 1 to 1000000."),
        ("/models", "page=2000000", 400, "Use a number from 1 to"),
        ("/models", "depth=deep", 400, "depth='deep'"),
        ("/models", "stge=production", 400, "no parameter 'stge'. It has q, stage, order, page and depth."),
        ("/models", "name=churn", 400, "no parameter 'name'"),
        ("/model", "name=churn&sort=nonsense", 400, "sort='nonsense', which this page can't show. Use version, name, "),
        ("/model", "name=churn&sort=metadata.", 400, "stage, created, updated or metadata.KEY, with - in front for"),
        ("/model", "name=churn&page=1.5", 400, "page='1.5'"),
        ("/model", "name=churn&page=%D9%A3", 400, "Use a number from 1 to"),
        ("/version", "name=churn", 400, "no parameter 'name'. It has model and version."),
        ("/compare", "model=churn&a=1&c=2", 400, "no parameter 'c'"),
        ("/changes", "depth=0", 400, "Use a number from 1 to 10."),
    ],
)
def test_errors_are_pages(browser: Browser, path: str, query: str, status: int, text: str) -> None:
    """If something can't be shown, the page and its JSON form say why."""
    assert text in browser.html(path, query, status).text
    assert text in browser.json(f"{path}.json", query, status)["error"]["message"].replace(".json", "")


def test_a_name_of_several_models_and_a_refusal() -> None:
    """If several models have the name, the page links to each. An error from Vertex is a page too."""
    with contextlib.ExitStack() as stack:
        registry = stack.enter_context(local_registry())
        first = registry.register_version("churn", "gs://models/1")
        second = registry.register_version("other", "gs://models/2")
        with grpc.insecure_channel(registry.emulator.grpc) as channel:
            google = ModelServiceClient(transport=ModelServiceGrpcTransport(channel=channel))
            renamed = Model(name=second.model_resource_name, display_name="churn")
            google.update_model(model=renamed, update_mask=FieldMask(paths=["display_name"]))
        client = stack.enter_context(RegistryClient(project="local-project", endpoint=registry.emulator.grpc))
        browser = Browser(Site(client))
        found = browser.json("/model.json", "name=churn", 409)["error"]
        assert set(found["candidates"]) == {first.model_resource_name, second.model_resource_name}
        links = [link for link in browser.html("/model", "name=churn", 409).links if link.startswith("model?")]
        assert [
            browser.json("/model.json", link.partition("?")[2])["model"]["resource_name"] for link in links
        ] == list(found["candidates"])
        registry.emulator.fail("ListModels", "PERMISSION_DENIED")
        assert browser.html("/", status=403).text
        registry.emulator.fail("ListModels", "INTERNAL", times=2)
        assert browser.json("/models.json")["models"]


PYTHON = re.compile(r"\b[A-Za-z_]+\((?! )|\b[a-z_]+=")


@pytest.mark.parametrize(
    ("path", "query", "leads"),
    [
        ("/model", "name=churm", {"/models": ""}),
        ("/model", "name=it's", {"/models": ""}),
        ("/version", "model=zz", {"/models": ""}),
        ("/version", 'model=it\'s "so"', {"/models": ""}),
        ("/changes", "name=zz%00", {"/models": ""}),
        ("/version", "model=churn&version=99", {"/model": "name=churn"}),
        ("/version", "model=churn&version=no-alias", {"/model": "name=churn"}),
        ("/version", "model=fraud&version=Production", {"/model": "name=fraud&stage=Production"}),
        ("/version", "model=churn&version=latest", {"/model": "name=churn"}),
        ("/version", "model=churn&version=v%203", {}),
        ("/compare", "model=churn&a=1&b=99", {"/model": "name=churn"}),
        ("/model", "name=projects/p/locations/us-east1/models/1", {}),
        ("/model", "name=projects/p/locations/us-central1/models/1", {}),
    ],
)
def test_an_error_names_addresses_and_no_python(browser: Browser, path: str, query: str, leads: dict[str, str]) -> None:
    """Where an error of the registry names a method, the site names the address, on a page and in JSON."""
    for ending in ("", ".json"):
        response = browser.site("GET", f"{path}{ending}", query)
        text = json.loads(response.body)["error"]["message"] if ending else Document(response.body).text
        named = re.findall(r"\b(models|model)(\.json)?(?:\?(\S+))?(?= lists)", text)
        assert {f"/{page}": parameters for page, _, parameters in named} == leads, text
        assert all(given == ending for _, given, _ in named)
        assert not PYTHON.search(re.sub(r"\?\S+", "", text.partition("Read-only")[0])), text
        for page, parameters in leads.items():
            assert browser.site("GET", f"{page}{ending}", parameters).status == 200


def test_an_error_of_the_connection_names_no_python() -> None:
    """A browser can't change the client's settings in Python, so errors leave them out."""
    with local_registry() as registry:
        registry.emulator.fail("ListModels", "INTERNAL", times=100)
        with RegistryClient(
            project="local-project", endpoint=registry.emulator.grpc, retry=Retry(call_timeout=0.1)
        ) as client:
            found = Browser(Site(client)).json("/models.json", status=503)["error"]["message"]
            assert "got no usable response" in found
            assert not PYTHON.search(found), found
        registry.emulator.forget_faults()


# --- installation -----------------------------------------------------------------------------------------------------


def test_without_jinja2(registry: LocalRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, the error names it."""
    _rendering.environment.cache_clear()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(InvalidArgumentError, match=r"vertex-registry\[ui\]"):
        Site(registry)
    _rendering.environment.cache_clear()


def test_an_author_that_is_not_known_is_called_unknown_everywhere(tmp_path: Path) -> None:
    """The site, the notebook and the command line use one word. Before the first change of a stage, there's no author.

    JSON has null for both.
    """
    path = tmp_path / "registry.db"
    with local_registry(path) as registry:
        registry.register_version("churn", "gs://models/churn/1", stage="production")
        registry.register_version("churn", "gs://models/churn/2")
        registry.set_stage("churn", 2, "staging")
        browser = Browser(Site(registry))
        assert browser.html("/version", "model=churn&version=1").text.count("unknown") == 2
        assert browser.html("/changes").text.count("unknown") == 4
        compared = browser.html("/compare", "model=churn&a=1&b=2").text
        assert compared.count("unknown") == 2
        assert browser.json("/version.json", "model=churn&version=1")["version"]["stage_changed_by"] is None
        version = registry.get_version("churn", 1)
    assert "changed by unknown" in " ".join(str(version).split())
    assert ">unknown</td>" in version._repr_html_()
    for words in (["history"], ["versions", "show"]):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            assert run([*words, "churn", "--local", str(path)]) == 0
        assert "unknown" in out.getvalue(), words
