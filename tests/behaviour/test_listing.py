"""Lists of models and versions: lazy iterators that display as a table and convert to a DataFrame."""

from __future__ import annotations

import contextlib
import copy
import datetime as dt
import pickle
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from vertex_registry import (
    ClientClosedError,
    InvalidArgumentError,
    Listing,
    NotFoundError,
    PermissionDeniedError,
    RegistryError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.behaviour.conftest import Connect, NewName, NewSource, UploadModels
    from vertex_registry import RegistryClient
    from vertex_registry.emulator import Emulator

pytestmark = [pytest.mark.no_switches, pytest.mark.only("grpc", "rest")]

HOSTILE = '<img src=x onerror="alert(1)">\u202e\x1b[31m&'


def fill(registry: RegistryClient, count: int, name: str = "churn") -> None:
    """Register versions whose metadata has a value of every kind."""
    for number in range(1, count + 1):
        registry.register_version(name, f"gs://models/{name}/{number}", metadata={"accuracy": number / 100})


def test_a_display_takes_nothing_from_the_iteration(registry: RegistryClient) -> None:
    """Displaying a table doesn't consume rows, whether it's before, during or after an iteration."""
    fill(registry, 23)
    listing = registry.list_versions("churn")

    assert repr(listing).splitlines()[1].split()[0] == "23"
    first = next(listing)
    assert "22" in listing._repr_html_()
    assert [first.version, *(version.version for version in listing)] == [str(number) for number in range(23, 0, -1)]
    assert repr(listing).endswith("no more versions; 23 came before")


def test_a_table_shows_that_there_are_more_rows(registry: RegistryClient) -> None:
    """A table has at most 20 rows, and says whether there are more."""
    fill(registry, 21)

    assert repr(registry.list_versions("churn")).endswith("\n20 versions shown; there are more")
    assert repr(registry.list_versions("churn", limit=20)).endswith("\n20 versions")
    assert repr(registry.list_versions("churn", limit=1)).endswith("\n1 version")
    assert repr(registry.list_versions("churn", stage="production")).endswith("\nno versions")
    assert repr(registry.list_models()).endswith("\n1 model")


def test_a_display_requests_only_what_it_shows(
    registry: RegistryClient, emulator: Emulator, upload_models: UploadModels
) -> None:
    """Creating a list requests nothing, and showing 20 of many models' versions doesn't read every model."""
    upload_models(f"model-{number}" for number in range(70))
    before = len(emulator.requests())
    listing = registry.list_versions()
    assert len(emulator.requests()) == before

    assert "model-69" in repr(listing)
    read = {request.message.name for request in emulator.requests()[before:] if request.rpc == "ListModelVersions"}
    assert 20 <= len(read) < 70
    listing.close()
    ways: list[Callable[[Any], object]] = [list, Listing.to_dicts]
    for way in ways:
        with pytest.raises(RegistryError, match="closed before it was read to its end"):
            way(listing)
    assert "closed before" in repr(listing)


def test_a_list_of_a_closed_client_is_not_an_empty_one(connect: Connect, name: NewName) -> None:
    """Reading on after the client is closed is an error: in a loop, at a prompt and as dicts."""
    registry, churn = connect(), name()
    for _ in range(3):
        registry.register_version(churn, "gs://models/churn/1")
        registry.register_version(name(), "gs://models/churn/1")
    lists: list[Listing[Any]] = [registry.list_versions(churn), registry.list_versions(), registry.list_models()]
    begun = registry.list_versions()
    next(begun)
    read = registry.list_versions(churn)
    repr(read)
    registry.close()
    ways: list[Callable[[Any], object]] = [list, next, Listing.to_dicts]
    for listing in lists:
        assert "ClientClosedError" in repr(listing)
        for way in ways:
            with pytest.raises(ClientClosedError):
                way(listing)
    with contextlib.suppress(ClientClosedError):
        assert len(list(begun)) == 5  # all of it, if it was read ahead
    assert len(list(read)) == 3


@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_list_cannot_be_pickled(registry: RegistryClient, way: Callable[[object], object]) -> None:
    """Pickling or copying a list is an error that says what to do, and leaves the list as it is."""
    fill(registry, 2)
    listing = registry.list_versions("churn")
    next(listing)
    with pytest.raises(InvalidArgumentError, match=r"Use list\(\.\.\.\)"):
        way(listing)
    assert len(list(listing)) == 1


def test_leaving_a_list_leaves_no_threads(registry: RegistryClient) -> None:
    """A list that was displayed and then dropped leaves no thread running."""
    for number in range(3):
        fill(registry, 1, name=f"model-{number}")
    before = set(threading.enumerate())
    listing = registry.list_versions()
    repr(listing)
    listing.close()

    for thread in set(threading.enumerate()) - before:
        if thread.name == "vertex-registry":
            thread.join(10)
            assert not thread.is_alive()


def test_what_others_wrote_is_escaped(registry: RegistryClient) -> None:
    """A name, an alias's version name or metadata can't bring HTML into a page, or escape codes into a terminal."""
    metadata = {"<b>score</b>": 1, HOSTILE: HOSTILE}
    version = registry.register_version("<script>x</script>", "gs://models/x", version_name="<i>", metadata=metadata)
    model = registry.get_model("<script>x</script>")
    versions, models = registry.list_versions(), registry.list_models()

    for shown in (version, model, versions, models):
        page = shown._repr_html_()
        assert not any(tag in page for tag in ("<script", "<img", "<b>", "<i>", "\x1b", "\u202e"))
        assert not any(letter in repr(shown) + str(shown) for letter in ("\x1b", "\u202e"))
    assert "&lt;script&gt;" in version._repr_html_()
    assert "&lt;b&gt;" in versions._repr_html_().lower()


def test_a_record_in_one_line_and_in_full(registry: RegistryClient) -> None:
    """A record's repr is one line of what matters; its text has every field that isn't empty."""
    registry.register_version("churn", "gs://models/churn/1")
    version = registry.register_version(
        "churn", "gs://models/churn/2", version_name="1.2.0", metadata={"accuracy": 0.9}, stage="staging",
        aliases=["champion"],
    )  # fmt: skip

    assert (
        repr(version) == "<ModelVersion 'churn' version 2 '1.2.0', stage Staging, aliases default, champion, age now>"
    )
    assert repr(registry.get_model("churn")) == "<RegisteredModel 'churn', default version 2, age now>"
    lines = str(version).splitlines()
    assert lines[0] == "churn, version 2"
    assert "  metadata.accuracy  0.9" in lines
    assert f"  resource           {version.resource_name}" in lines
    assert not any(line.strip().startswith(("description", "deployed to")) for line in lines)


def test_nothing_of_an_emulators_links_to_the_console(registry: RegistryClient) -> None:
    """A link to the Google Cloud console would lead nowhere."""
    version = registry.register_version("churn", "gs://models/churn/1")

    assert version.console_url is registry.get_model("churn").console_url is None
    for shown in (version, registry.get_model("churn"), registry.list_versions(), registry.list_models()):
        assert "<a " not in shown._repr_html_()


def test_an_error_is_shown_and_raised(registry: RegistryClient) -> None:
    """A display of a list that can't be read says why; iterating and converting raise the error."""
    listing = registry.list_versions("churn")

    assert repr(listing).startswith("versions\nNotFoundError: There is no model 'churn'")
    assert "NotFoundError" in listing._repr_html_()
    with pytest.raises(NotFoundError):
        next(listing)
    with pytest.raises(NotFoundError):
        listing.to_dicts()
    with pytest.raises(NotFoundError):
        list(listing)


def test_an_incomplete_list_never_looks_complete(
    registry: RegistryClient, emulator: Emulator, upload_models: UploadModels
) -> None:
    """If reading on fails, the rows come and then the error, every time; no conversion returns just the rows."""
    upload_models(f"model-{number}" for number in range(102))
    listing = registry.list_models()
    assert next(listing).name == "model-101"
    emulator.fail("ListModels", "PERMISSION_DENIED")

    for _ in range(2):
        with pytest.raises(PermissionDeniedError):
            listing.to_dicts()
    assert "20 models shown; there are more" in repr(listing)
    taken: list[str] = []
    with pytest.raises(PermissionDeniedError):
        taken.extend(model.name for model in listing)
    assert taken[:2] == ["model-100", "model-99"]
    assert "PermissionDeniedError" in repr(listing)


def test_a_frame_has_typed_columns(registry: RegistryClient) -> None:
    """Metadata is spread over columns with the types of its values, and times are in UTC."""
    registry.register_version(
        "churn", "gs://models/churn/1", metadata={"accuracy": 1, "rows": 7, "ok": True, "team": "a"}
    )
    registry.register_version(
        "churn", "gs://models/churn/2", metadata={"accuracy": 0.5, "nested": {"x": [1]}, "team": None}
    )
    registry.register_version("churn", "gs://models/churn/3", metadata={"rows": 2**70, "mixed": 1})
    registry.register_version("churn", "gs://models/churn/4", metadata={"mixed": "text"})
    listing = registry.list_versions("churn", oldest_first=True)
    frame = listing.to_pandas()

    assert frame["version"].tolist() == ["1", "2", "3", "4"]
    types = {name: str(kind) for name, kind in frame.dtypes.items()}
    assert types["metadata.accuracy"] == "Float64"
    assert types["metadata.rows"] == types["metadata.nested"] == types["metadata.mixed"] == "object"
    assert types["metadata.ok"] == types["is_default"] == "boolean"
    assert types["metadata.team"] == types["stage"] == "string"
    assert types["created_at"] == types["stage_changed_at"] == "datetime64[us, UTC]"
    assert frame["metadata.accuracy"].mean() == 0.75
    assert frame["metadata.rows"].tolist()[:3] == [7, None, 2**70]
    assert frame["created_at"][0].to_pydatetime() == next(listing).created_at
    assert frame["created_at"].max() < pd.Timestamp(dt.datetime.now(dt.UTC)) + pd.Timedelta(hours=1)
    assert len(listing.to_pandas()) == 3


def test_frames_that_are_empty_have_their_columns(registry: RegistryClient) -> None:
    """An empty list's DataFrame has the usual columns."""
    fill(registry, 1)
    empty = registry.list_versions("churn", stage="production").to_pandas()
    models = registry.list_models().to_pandas()

    assert len(empty) == 0
    assert str(empty["created_at"].dtype) == "datetime64[us, UTC]"
    assert models["name"].tolist() == ["churn"]
    assert str(registry.list_models(limit=0).to_pandas()["name"].dtype) == "string"


def test_dicts_are_those_of_the_records(registry: RegistryClient) -> None:
    """Each dict is what the record's own `to_dict` returns."""
    fill(registry, 2)
    listing = registry.list_versions("churn")

    assert listing.to_dicts() == [version.to_dict() for version in listing]


def test_pandas_is_imported_only_where_it_is_used() -> None:
    """Listing versions doesn't import pandas, and without it, to_pandas says what to install."""
    code = """
import sys
from vertex_registry import InvalidArgumentError, _deferred, local_registry
_deferred.defer_packages()
with local_registry() as registry:
    registry.register_version("churn", "gs://models/churn/1")
    print(len(registry.list_versions("churn").to_dicts()), "pandas" in sys.modules)
    sys.modules["pandas"] = None
    try:
        registry.list_versions("churn").to_pandas()
    except InvalidArgumentError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "1 False\nto_pandas() needs pandas. Install it: pip install 'vertex-registry[pandas]'\n"


def test_an_empty_listing_is_false(
    registry: RegistryClient, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """`if` doesn't take a list without records for one with some, and no record is lost by asking."""
    registry.register_version(churn := name(), source())
    assert not registry.list_versions(churn, stage="archived")
    listing = registry.list_versions(churn)
    assert listing
    before = len(emulator.requests())
    assert [version.version for version in listing] == ["1"]
    assert len(emulator.requests()) == before
    assert not listing
    with pytest.raises(NotFoundError):
        bool(registry.list_versions(name()))


def test_a_listing_is_an_iterator(registry: RegistryClient) -> None:
    """A list works wherever an iterator does."""
    fill(registry, 3)
    listing = registry.list_versions("churn")

    assert isinstance(listing, Listing)
    assert iter(listing) is listing
    assert next(listing).version == "3"
    assert [version.version for version in listing] == ["2", "1"]
    with pytest.raises(StopIteration):
        next(listing)
