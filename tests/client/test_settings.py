"""Settings that mean nothing are refused when they're passed, with a sentence that names the setting."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import pytest

from vertex_registry import InvalidArgumentError, RegistryClient, Retry, ServingContainer, local_registry
from vertex_registry.emulator import DataFileError, Emulator
from vertex_registry.ui import Site

if TYPE_CHECKING:
    from pathlib import Path

#: More likely a variable that isn't set than what somebody wants.
BLANK: Final = ("", " ", "\n", "\u200b")


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("project", (*BLANK, 0, False, [], b"")),
        ("location", (*BLANK, 0, False, [], b"")),
        ("endpoint", (*BLANK, 0)),
        ("credentials", (*BLANK, {}, 0)),
        ("transport", (*BLANK, 0)),
        ("managed_by", (*BLANK, 0, None)),
        ("actor", (*BLANK, 0)),
        ("default_image", (*BLANK, 0)),
        ("staging_bucket", (*BLANK, 0)),
        ("retry", (*BLANK, 0, None)),
        ("user_agent", (*BLANK, 0)),
        ("now", (*BLANK, 0, None)),
        ("new_id", (*BLANK, 0, None)),
    ],
)
def test_a_client(setting: str, values: tuple[Any, ...]) -> None:
    """Neither an empty text nor another empty value is taken for the default."""
    for value in values:
        with pytest.raises(InvalidArgumentError, match=setting):
            RegistryClient(**{"project": "acme", setting: value})


@pytest.mark.parametrize("setting", ["call_timeout", "operation_timeout", "initial_backoff", "max_backoff"])
def test_times_of_a_retry(setting: str) -> None:
    """A time is a positive number, and True isn't one."""
    values: tuple[Any, ...] = (0, -1, math.nan, True, "60", None)
    for value in values:
        with pytest.raises(InvalidArgumentError, match=rf"Retry\({setting}="):
            Retry(**{setting: value})


@pytest.mark.parametrize("setting", ["sleep", "random", "clock"])
def test_functions_of_a_retry(setting: str) -> None:
    """What isn't a function is refused before the first wait."""
    for value in (None, 0, ""):
        with pytest.raises(InvalidArgumentError, match=rf"Retry\({setting}="):
            Retry(**{setting: value})  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("image", (*BLANK, 0, None)),
        ("predict_route", (0, None, b"/predict")),
        ("health_route", (0, None, b"/health")),
        ("ports", (b"P", "80", [0], 8080)),
        ("grpc_ports", (b"P", "80", [True], 8080)),
        ("shared_memory_mb", (-1, "64", True, 1.5, None)),
        ("deployment_timeout", (0, -1, "60", True, math.nan, 7201)),
    ],
)
def test_a_container(setting: str, values: tuple[Any, ...]) -> None:
    """A container can't have what Vertex would refuse after the upload."""
    for value in values:
        with pytest.raises(InvalidArgumentError, match=setting.removeprefix("grpc_")):
            ServingContainer(**{"image": "us-docker.pkg.dev/acme/serving/churn:7", setting: value})


def test_a_container_with_lists_of_any_kind() -> None:
    """Whatever can be iterated over is a list, even if that's possible only once."""
    container = ServingContainer(
        image="us-docker.pkg.dev/acme/serving/churn:7",
        command=(word for word in ("serve", "--fast")),
        ports=map(int, ["80", "81"]),
    )
    assert (container.command, container.ports) == (("serve", "--fast"), (80, 81))


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("path", BLANK),
        ("artifacts", BLANK),
        ("endpoint", ("127.0.0.1:8470",)),
        ("transport", ("rest",)),
        ("quota", (0, "")),
    ],
)
def test_a_local_registry(
    setting: str, values: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A local registry has its own endpoint, and leaves no file with a blank name."""
    monkeypatch.chdir(tmp_path)
    for value in values:
        with pytest.raises(InvalidArgumentError, match=setting):
            local_registry(**{setting: value})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "values"),
    [("data", BLANK), ("storage", (" ", "\u200b", "a\nb")), ("now", (object, lambda: None, lambda: 0))],
)
def test_an_emulator(setting: str, values: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An emulator refuses them too, with errors of its own."""
    monkeypatch.chdir(tmp_path)
    for value in values:
        with pytest.raises(
            (ValueError, DataFileError), match=setting if setting != "storage" else "storage|Storage|address"
        ):
            Emulator(**{"rest_port": None, setting: value})
    assert list(tmp_path.iterdir()) == []


def test_a_site() -> None:
    """A site needs a client, and texts for what it shows."""
    wrong: list[tuple[str, Any]] = [
        ("registry", "registry.db"),
        ("registry", None),
        ("registry_name", 0),
        ("registry_name", None),
        ("opening", "local_registry"),
        ("home", 0),
        ("now", 0),
    ]
    for setting, value in wrong:
        with RegistryClient(project="acme") as client, pytest.raises(InvalidArgumentError, match=setting):
            Site(**{"registry": client, setting: value})
