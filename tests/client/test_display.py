"""How records are displayed: ages, widths and links, without a registry."""

from __future__ import annotations

import datetime as dt
import json

import pytest

import vertex_registry
from vertex_registry import ModelVersion, RegistryClient, _display, local_registry

NOW = dt.datetime(2026, 11, 28, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        *[(-5, "now"), (0, "now"), (59, "now"), (60, "1min"), (7_200, "2h"), (86_400 * 3, "3d")],
        *[(86_400 * 61, "2mo"), (86_400 * 800, "2y")],
    ],
)
def test_an_age_has_one_unit(seconds: int, shown: str) -> None:
    """An age is in its largest unit, and never negative, even if the clock is slow."""
    assert _display.age(NOW - dt.timedelta(seconds=seconds), NOW) == shown


@pytest.mark.parametrize(
    ("resource", "url"),
    [
        (
            "projects/12/locations/europe-west1/models/churn-x@7",
            "https://console.cloud.google.com/vertex-ai/models/locations/europe-west1/models/churn-x/versions/7?project=12",
        ),
        (
            "projects/12/locations/us-central1/models/5",
            "https://console.cloud.google.com/vertex-ai/models/locations/us-central1/models/5?project=12",
        ),
        ("nothing", None),
    ],
)
def test_the_page_in_the_console(resource: str, url: str | None) -> None:
    """A link opens the version's or the model's page."""
    assert _display.console_url(resource) == url


@pytest.mark.parametrize(
    ("settings", "linked"),
    [
        ({}, True),
        ({"location": "europe-west1"}, True),
        ({"endpoint": "https://us-central1-aiplatform.googleapis.com:443"}, True),
        ({"endpoint": "127.0.0.1:8470"}, False),
        ({"endpoint": "http://emulator:8471"}, False),
        ({"endpoint": "https://aiplatform.googleapis.com.example.com"}, False),
    ],
)
def test_only_vertex_ai_itself_has_a_console(settings: dict[str, str], linked: bool) -> None:
    """The client knows from its endpoint whether the console shows its models."""
    with RegistryClient(project="acme", **settings) as client:  # type: ignore[arg-type]  # a table of settings
        assert client._endpoint.on_vertex is linked


def test_an_emulator_by_environment_has_no_console(monkeypatch: pytest.MonkeyPatch) -> None:
    """An emulator that the environment names has none, even over TLS."""
    monkeypatch.setenv("VERTEX_AI_EMULATOR_HOST", "https://emulator:8471")
    with RegistryClient(project="acme") as client:
        assert not client._endpoint.on_vertex


def test_a_record_of_vertex_links_to_the_console() -> None:
    """The link is in the HTML. It isn't compared, and isn't in the JSON."""
    fields = {
        "name": "churn",
        "version": "7",
        "resource_name": "projects/12/locations/us-central1/models/5@7",
        "model_resource_name": "projects/12/locations/us-central1/models/5",
        "created_at": NOW,
        "updated_at": NOW,
    }
    there = ModelVersion(**fields, on_vertex=True)  # type: ignore[arg-type]  # a table of fields
    elsewhere = ModelVersion(**fields)  # type: ignore[arg-type]

    assert f'<a href="{there.console_url}" target="_blank" rel="noopener noreferrer"' in there._repr_html_()
    assert elsewhere.console_url is None
    assert there == elsewhere
    assert there.to_dict() == elsewhere.to_dict()


def test_a_table_lines_up() -> None:
    """Columns line up even with wide characters, long cells are shortened, and escape codes are escaped."""
    shown = _display.text_table(["A", "B"], [["数据", "x"], ["y" * 60, "\x1b[31m"]], "2 rows").splitlines()

    assert shown[1] == "数据" + " " * 36 + "  x"
    assert shown[2] == "y" * 39 + "…  \\x1b[31m"
    assert shown[3] == "2 rows"


def test_accents_take_no_column() -> None:
    """A letter with an accent of its own is as wide as one with the accent in it."""
    assert _display.display_width("e\u0301") == _display.display_width("\u00e9") == 1
    assert _display.text_table(["N", "V"], [["e\u0301e", "1"], ["ee", "2"]], "").splitlines()[1:3] == [
        "e\u0301e  1",
        "ee  2",
    ]


def test_a_history_and_a_difference_are_tables() -> None:
    """`print`, a prompt and a notebook show what changed, with everything escaped; JSON has all of it."""
    with local_registry(actor="<b>ann</b>") as registry:
        for number in (1, 2):
            registry.register_version("churn", f"gs://models/{number}", metadata={"accuracy": number})
        registry.set_stage("churn", 1, "production")
        history = registry.stage_history("churn")
        difference = registry.diff("churn", 1, 2)
    assert repr(history) == "<StageHistory of 1 change>"
    assert str(history).splitlines()[0].split() == ["CHANGED", "AT", "VERSION", "NAME", "STAGE", "BY"]
    assert str(history).splitlines()[-1] == "1 change"
    assert "&lt;b&gt;ann" in history._repr_html_()
    assert "<b>" not in history._repr_html_() + difference._repr_html_()
    assert json.loads(json.dumps(history.to_dict()))["changes"][0]["stage"] == "Production"
    assert "metadata.accuracy" in difference._repr_html_()


def test_tab_completion_offers_what_is_public() -> None:
    """Neither imports nor helpers of the package are among the names."""
    assert {name for name in dir(vertex_registry) if not name.startswith("__")} == set(vertex_registry.__all__) - {
        "__version__"
    }
