"""Register the same version again, and find a version by the text that a person typed."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from vertex_registry import InvalidArgumentError, NotFoundError, Stage, StateUnknownError

if TYPE_CHECKING:
    from tests.behaviour.conftest import Connect, NewName, NewSource, WaitForLists
    from vertex_registry import RegistryClient
    from vertex_registry.emulator import Emulator

pytestmark = pytest.mark.switches_together


def test_the_same_source_returns_the_existing_version(
    registry: RegistryClient, name: NewName, source: NewSource
) -> None:
    """The same source returns the newest version of the name. Another source, or an earlier one, creates a version."""
    churn, a, b = name(), source(), source()
    seen = []
    for artifact in (a, f"{a}/", b, b, a, a, b, b):
        made = registry.register_version(churn, artifact, version_name="sgd", reuse_existing=True)
        assert made.artifact_uri == artifact.rstrip("/")
        assert registry.get_version(churn, version_name="sgd") == made
        seen.append(made.version)

    assert seen == ["1", "1", "2", "2", "3", "3", "4", "4"]


def test_another_version_name_makes_a_new_version(
    registry: RegistryClient, name: NewName, source: NewSource, wait_for_lists: WaitForLists
) -> None:
    """One source under two version names makes two versions, and one without ``reuse_existing`` is always new."""
    churn, artifact = name(), source()
    for version_name in ("1", "2", "1"):
        registry.register_version(churn, artifact, version_name=version_name, reuse_existing=True)
    registry.register_version(churn, artifact, version_name="2")
    wait_for_lists()

    assert [version.version_name for version in registry.list_versions(churn)] == ["2", "2", "1"]


@pytest.mark.no_switches
def test_a_version_returned_unchanged_logs_what_differs(
    registry: RegistryClient, name: NewName, source: NewSource, caplog: pytest.LogCaptureFixture
) -> None:
    """If you pass another description, metadata or stage, a warning names the field, and nothing is changed."""
    churn, artifact = name(), source()
    given: dict[str, Any] = {"description": "one", "metadata": {"a": "secret-1", "b": 2}, "stage": "Staging"}
    first = registry.register_version(churn, artifact, version_name="1", reuse_existing=True, **given)
    warned = []
    for other in (given, {}, {"description": "two"}, {"metadata": {"a": "secret-2"}}, {"stage": "Production"}):
        again = registry.register_version(
            churn, artifact, version_name="1", reuse_existing=True, **{**(given if other else {}), **other}
        )
        assert again == first
        warned.append([record.getMessage() for record in caplog.records if record.levelname == "WARNING"])
        caplog.clear()

    assert warned[:2] == [[], []]
    for (message,), field in zip(warned[2:], ("description", "metadata", "stage"), strict=True):
        assert f"returned unchanged: its {field} differs from what you passed" in message
        assert "secret" not in message


@pytest.mark.no_switches
def test_several_fields_that_differ(
    registry: RegistryClient, name: NewName, source: NewSource, caplog: pytest.LogCaptureFixture
) -> None:
    """Several fields are named in one line. True isn't 1."""
    churn, artifact = name(), source()
    registry.register_version(churn, artifact, version_name="1", reuse_existing=True, metadata={"a": 1})
    registry.register_version(
        churn, artifact, version_name="1", reuse_existing=True, description="x", metadata={"a": True}
    )

    assert "its description and metadata differ from what you passed" in caplog.text


@pytest.mark.emulator_only("it plans faults")
@pytest.mark.each_switch("labels-at-upload")
def test_a_registration_that_was_cut_off_is_finished(
    registry: RegistryClient, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """The same call again finishes the version that the first one uploaded."""
    churn, artifact = name(), source()
    emulator.fail("UpdateModel", "PERMISSION_DENIED")
    with pytest.raises(PermissionError):
        registry.register_version(churn, artifact, version_name="1", reuse_existing=True, metadata={"a": "b"})
    made = registry.register_version(churn, artifact, version_name="1", reuse_existing=True, metadata={"a": "b"})

    assert (made.version, made.metadata) == ("1", {"a": "b"})


def test_after_a_deletion_the_version_before_is_found(
    registry: RegistryClient, name: NewName, source: NewSource
) -> None:
    """If the newest version of a name is deleted, its source makes a new version, and the one before is unharmed."""
    churn, a, b = name(), source(), source()
    registry.register_version(churn, a, version_name="sgd", reuse_existing=True)
    registry.delete_version(churn, registry.register_version(churn, b, version_name="sgd", reuse_existing=True))

    assert registry.register_version(churn, a, version_name="sgd", reuse_existing=True).version == "1"
    again = registry.register_version(churn, b, version_name="sgd", reuse_existing=True)
    assert registry.get_version(churn, version_name="sgd") == again
    assert again.artifact_uri == b


@pytest.mark.switches_together
@pytest.mark.emulator_only("a crowd of clients uses up the quota")
def test_two_clients_at_once_make_one_version(connect: Connect, name: NewName, source: NewSource) -> None:
    """Four clients that register the same version at once all get the same one."""
    churn, artifact = name(), source()
    made: list[str] = []

    def register(client: RegistryClient) -> None:
        made.append(client.register_version(churn, artifact, version_name="1", reuse_existing=True).version)

    threads = [threading.Thread(target=register, args=(connect(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(made) == 4
    assert len(set(made)) == 1


@pytest.mark.no_switches
@pytest.mark.emulator_only("it plans faults")
def test_the_id_of_an_unknown_outcome_is_safe_to_retry(
    registry: RegistryClient, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """If the outcome is unknown, the error's request ID and the same call again both find the version."""
    churn, artifact = name(), source()
    registry.register_version(churn, source(), version_name="0")
    emulator.fail("UploadModel", "DEADLINE_EXCEEDED")
    with pytest.raises(StateUnknownError) as unknown:
        registry.register_version(churn, artifact, version_name="1", reuse_existing=True)

    made = registry.register_version(churn, artifact, version_name="1", request_id=unknown.value.request_id)
    assert registry.register_version(churn, artifact, version_name="1", reuse_existing=True) == made


@pytest.mark.no_switches
def test_arguments_that_contradict_each_other(registry: RegistryClient, emulator: Emulator) -> None:
    """``reuse_existing`` needs a version name and excludes a request ID; nothing is sent."""
    with pytest.raises(InvalidArgumentError, match="needs a version_name"):
        registry.register_version("churn", "gs://models/1", reuse_existing=True)
    with pytest.raises(InvalidArgumentError, match="Leave request_id out"):
        registry.register_version("churn", "gs://models/1", version_name="1", request_id="run", reuse_existing=True)

    assert not emulator.requests()


def test_find_a_version_by_name_or_number(registry: RegistryClient, name: NewName, source: NewSource) -> None:
    """A name is tried first, and a number finds a version only if it has no name."""
    churn = name()
    registry.register_version(churn, source(), version_name="2")
    registry.register_version(churn, source())
    registry.register_version(churn, source(), version_name="Release Candidate 1")
    registry.register_version(churn, source())

    found = [registry.find_version(churn, text).version for text in ("2", "Release Candidate 1", "4")]
    assert found == ["1", "3", "4"]


@pytest.mark.switches_together
@pytest.mark.parametrize("text", ["2", "Release Candidate 1", "n" * 128], ids=["number", "escaped", "packed"])
def test_a_name_whose_newest_version_was_deleted(
    registry: RegistryClient,
    emulator: Emulator,
    name: NewName,
    source: NewSource,
    wait_for_lists: WaitForLists,
    text: str,
) -> None:
    """The next one with that name is found, although no alias leads to it. Vertex filters names that fit a label."""
    churn = name()
    for version_name in (text, None, text, None):
        registry.register_version(churn, source(), version_name=version_name)
    registry.delete_version(churn, 3)
    wait_for_lists()
    before = len(emulator.requests())

    assert registry.find_version(churn, text).version == "1"
    assert registry.find_version(churn, "4").version == "4"

    lists = [request.message.filter for request in emulator.requests()[before:] if "Versions" in request.rpc]
    assert [bool(filtered) for filtered in lists] == [len(text) < 64, True]


@pytest.mark.no_switches
@pytest.mark.parametrize(
    "text", ["1", "3", "default", "-", "٣", "01", " 2", "", "v" * 129, "1" * 129, "\ud800", None, 2]
)
def test_a_version_that_does_not_exist(registry: RegistryClient, name: NewName, source: NewSource, text: Any) -> None:
    """A named version's number, an alias, and what can't be a name find nothing, with one error."""
    churn = name()
    registry.register_version(churn, source(), version_name="first")
    registry.register_version(churn, source(), stage=Stage.PRODUCTION)

    with pytest.raises(NotFoundError, match="has no .*version.*, by name or by number"):
        registry.find_version(churn, text)


@pytest.mark.no_switches
def test_find_a_version_of_no_model(registry: RegistryClient, name: NewName) -> None:
    """If the model doesn't exist, the error says that the model is missing, not its version."""
    with pytest.raises(NotFoundError, match="There is no model"):
        registry.find_version(name(), "1")
