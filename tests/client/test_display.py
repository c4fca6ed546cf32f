"""How records are displayed: ages, widths and links, without a registry."""

from __future__ import annotations

import datetime as dt

import pytest

from vertex_registry import ModelVersion, RegistryClient, _display

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
