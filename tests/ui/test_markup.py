"""Other people choose names and metadata. Pages show them as text, whatever they contain, and JSON loses nothing."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import pytest
from google.cloud.aiplatform_v1.types import ListModelsResponse, ListModelVersionsResponse
from google.cloud.aiplatform_v1.types import Model as ModelType
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.behaviour.hostile import Hostile
from tests.client.test_hostile_labels import pack
from tests.ui.documents import Browser
from vertex_registry import RegistryClient
from vertex_registry.ui import Site, _rendering

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL: Final = "projects/4711/locations/us-central1/models/churn"

#: Texts that would have an effect if a page didn't escape them.
MARKUP: Final = (
    "<vr-x>",
    '"><vr-x onclick=x>',
    "'><vr-x>",
    "' onclick='x",
    '" onclick="x',
    "`",
    "</title></script></style></textarea></pre><vr-x>",
    "<!--",
    "-->",
    "]]>",
    "<svg onload=x>",
    "&lt;vr-x&gt;",
    "&#x3c;vr-x>",
    "javascript:x",
    "JaVaScRiPt:x",
    "data:text/html,<vr-x>",
    "https://evil.example/<vr-x>",
    "gs://bucket/<vr-x>?a=b#c",
    "//evil.example/",
    "{{ 7 * 7 }}{% raw %}",
    "\u202e",
    "\0",
    "\n",
    "\r\nSet-Cookie: a=b",
    "%0d%0a%3cvr-x%3e",
    "+&;=#?",
    "projects/1/locations/2/models/3@4",
    "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
    " ",
    "a",
)
TEXT: Final = st.lists(st.sampled_from(MARKUP), min_size=1, max_size=4).map("".join)

#: The attributes that a page has, on any element.
ATTRIBUTES: Final = re.compile(
    "action|aria-(current|hidden|label|sort)|charset|checked|class|content|c[xy]|data-copy|datetime|defer|href|lang|id|"
    "maxlength|method|name|placeholder|points|r|rel|required|role|scope|selected|size|src|tabindex|title|type|value|"
    "viewbox|[xy][12]"
)
ELEMENTS: Final = re.compile(
    "a|body|button|caption|circle|d[dlt]|details|div|fieldset|fig(caption|ure)|footer|form|h[1-3]|head|header|html|"
    "input|label|legend|li|line|link|main|meta|nav|option|p|polyline|pre|script|section|select|span|strong|summary|svg|"
    "table|tbody|t[dhr]|thead|time|title|ul"
)


@pytest.fixture(scope="module")
def hostile() -> Iterator[Hostile]:
    with Hostile() as hostile:
        yield hostile


@pytest.fixture(scope="module")
def browser(hostile: Hostile) -> Iterator[Browser]:
    with RegistryClient(project="4711", endpoint=hostile.grpc) as registry:
        yield Browser(Site(registry, registry_name="<vr-x>"))


def answers(texts: list[str], metadata: Any) -> dict[str, Any]:
    """Return the answers of a registry that has one model with two versions, and these texts in every field."""

    def text(number: int) -> str:
        return texts[number % len(texts)]

    def version(number: int, *, versioned: bool) -> Any:
        labels = {
            text(4)[:60] or "a": text(5),
            "stage": "production",
            **pack(json.dumps([{text(6): metadata, "n": number}, {}])),
        }
        return ModelType(
            name=MODEL + (f"@{number}" if versioned else ""),
            display_name=text(0),
            description=text(1),
            version_id=str(number),
            version_aliases=[text(2), "default"],
            version_description=text(3),
            labels=labels,
            artifact_uri=text(7),
            container_spec={
                "image_uri": text(8),
                "command": [text(9)],
                "args": [text(10)],
                "env": [{"name": text(11), "value": "hidden-value"}],
                "predict_route": text(12),
            },
            deployed_models=[{"endpoint": text(13), "deployed_model_id": text(14)}],
            etag=text(15),
        )

    return {
        "ListModels": lambda _: ListModelsResponse(models=[version(2, versioned=False)]),
        "GetModel": lambda request: version(1 if request.name.endswith("@1") else 2, versioned="@" in request.name),
        "ListModelVersions": lambda _: ListModelVersionsResponse(
            models=[version(2, versioned=True), version(1, versioned=True)]
        ),
    }


PAGES: Final = (
    ("/", "q={0}"),
    ("/", ""),
    ("/model", "name={model}&stage={0}&sort=metadata.{0}&column={0}&metric={0}&columns=1"),
    ("/model", "name={model}"),
    ("/version", "model={model}&version=1"),
    ("/compare", "model={model}&a=1&b=2"),
    ("/changes", ""),
    ("/changes", "name={model}"),
    ("/model", "name={0}"),
    ("/{0}", "{0}"),
)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TEXT, min_size=1, max_size=16), st.recursive(TEXT, lambda inner: st.lists(inner, max_size=2)))
@example(list(MARKUP), {"<vr-x>": [["<vr-x>", None, True, 1e300]]})
@example(["https://evil.example/"], "x")
def test_hostile_texts_are_shown_as_text(hostile: Hostile, browser: Browser, texts: list[str], metadata: Any) -> None:
    """No text becomes an element, an attribute or a link with an unexpected scheme."""
    hostile.answers = answers(texts, metadata)
    for path_form, query_form in PAGES:
        path = path_form.format(texts[0])
        query = query_form.format(quote(texts[0]), model=MODEL)
        response = browser.site("GET", path, query)
        assert b"hidden-value" not in response.body
        assert not any("\n" in value or "\r" in value for value in response.headers.values())
        if path.startswith("/static/") or response.headers["Content-Type"] != "text/html; charset=utf-8":
            continue
        page = browser.html(path, query, response.status)
        assert all(ELEMENTS.fullmatch(name) for name, _ in page.elements)
        assert all(ATTRIBUTES.fullmatch(name) for _, attributes in page.elements for name in attributes)
        for name, attributes in page.elements:
            for key in ("href", "src", "action"):
                if key in attributes:
                    address = attributes[key] or ""
                    outside = address.startswith(("https://", "http://")) and name == "a"
                    inside = ":" not in address.partition("?")[0] and not address.startswith("//")
                    assert inside or outside, (name, key, address)
    shown = browser.json("/version.json", f"model={MODEL}&version=1")["version"]
    assert (shown["name"], shown["artifact_uri"], shown["metadata"][texts[6 % len(texts)]]) == (
        texts[0],
        texts[7 % len(texts)],
        metadata,
    )


@pytest.mark.parametrize(
    ("value", "link"),
    [
        ("https://example.com/a?b=c", "https://example.com/a?b=c"),
        ("gs://my-bucket/a b", None),
        ("gs://my-bucket/models/1", "https://console.cloud.google.com/storage/browser/my-bucket/models/1"),
        ("gs://my-bucket/", "https://console.cloud.google.com/storage/browser/my-bucket"),
        ("gs://my-bucket/..%2f?#", "https://console.cloud.google.com/storage/browser/my-bucket/..%252f%3F%23"),
        ("gs://artifacts.localhost/churn", None),
        ("javascript:alert(1)", None),
        ("HTTPS://example.com", None),
        ("https://", None),
        ("https://user@example.com", None),
        ("https://example.com:99999", None),
        ("https://example.com\u202e/", None),
        ("https://exa mple.com/", None),
        (7, None),
    ],
)
def test_what_becomes_a_link(value: Any, link: str | None) -> None:
    """Only web addresses and Cloud Storage directories become links."""
    assert _rendering.external(value) == link
