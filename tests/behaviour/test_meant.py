"""Guess what people mean: names with a typo, IDs instead of names, aliases and metadata that Vertex allows."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from google.cloud.aiplatform_v1.types import Model

from vertex_registry import InvalidArgumentError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.cloud.aiplatform_v1.services.model_service import ModelServiceClient

    from tests.behaviour.conftest import NewName, NewSource
    from vertex_registry import RegistryClient
    from vertex_registry.emulator import Emulator


pytestmark = [
    pytest.mark.switches_together,
    pytest.mark.emulator_only("Nothing but the test's own models may be suggested"),
]


def uploaded(vertex: ModelServiceClient, parent: str, name: str, source: str) -> str:
    """Upload a model with Google's own client, and return its full resource name."""
    model = Model(display_name=name, artifact_uri=source, container_spec={"image_uri": "us-docker.pkg.dev/a/b/c"})
    operation: Any = vertex.upload_model(parent=parent, model=model)
    return str(operation.result().model).partition("@")[0]


@pytest.mark.parametrize(
    "verb",
    [
        lambda r, n: r.latest_version(n),
        lambda r, n: r.latest_version(n, stage="Production"),
        lambda r, n: r.get_version(n),
        lambda r, n: list(r.list_versions(n)),
        lambda r, n: r.get_model(n),
        lambda r, n: r.set_stage(n, 1, "Production"),
        lambda r, n: r.delete_model(n),
    ],
)
@pytest.mark.only("grpc")
@pytest.mark.parametrize("typo", ["chrun", "Churn", "churn ", "ch\u200burn", "churns"])
def test_a_typo(
    registry: RegistryClient,
    emulator: Emulator,
    source: NewSource,
    verb: Callable[[RegistryClient, str], object],
    typo: str,
) -> None:
    """If no model has the name, the error suggests similar names, which costs one more list."""
    registry.register_version("churn", source())
    registry.register_version("fraud", source())
    registry.get_version("churn")
    before = len(emulator.requests())

    with pytest.raises(NotFoundError, match=r"There is no model .* Did you mean 'churn'\?"):
        verb(registry, typo)
    asked = Counter(request.rpc for request in emulator.requests()[before:])
    assert asked["ListModels"] == 2
    assert set(asked) == {"ListModels", "GetModel"}
    before = len(emulator.requests())
    assert registry.latest_version("churn", stage="Production") is None
    assert not any(request.rpc == "ListModels" for request in emulator.requests()[before:])


@pytest.mark.no_switches
def test_a_name_that_is_close_to_none(registry: RegistryClient, source: NewSource) -> None:
    """If no name is similar, nothing is suggested."""
    registry.register_version("churn", source())
    with pytest.raises(NotFoundError, match=r"register_version\('pricing', \.\.\.\) creates one"):
        registry.latest_version("pricing")


@pytest.mark.no_switches
def test_a_name_that_cannot_be_created(registry: RegistryClient, source: NewSource) -> None:
    """If a new model can't have the name, the error doesn't advise you to create one."""
    registry.register_version("churn", source())
    for name in ("fraud ", "fr\u200baud", "\u202efraud"):
        with pytest.raises(NotFoundError, match=r"There is no model .* list_models\(\) shows those") as caught:
            registry.get_version(name)
        assert "register_version" not in str(caught.value)
    with pytest.raises(NotFoundError, match="Did you mean 'churn'"):
        registry.get_version("   churn   ")


@pytest.mark.switches_together
def test_suggestions_are_no_condition(registry: RegistryClient, emulator: Emulator, name: NewName) -> None:
    """If models can't be listed a second time, the error is still that there's no such model."""
    emulator.fail("ListModels", delay=0.01)
    emulator.fail("ListModels", "PERMISSION_DENIED")
    with pytest.raises(NotFoundError, match=r"list_models\(\) shows those that exist"):
        registry.get_version(name())


def test_the_id_of_a_model_in_place_of_its_name(
    registry: RegistryClient, vertex: ModelServiceClient, parent: str, name: NewName, source: NewSource
) -> None:
    """If you pass a model's ID as a name, the error has the right name, and no second model is created."""
    churn = name()
    resource = uploaded(vertex, parent, churn, source())
    ours = registry.register_version(name("-ours"), source())

    for full, called in ((resource, churn), (ours.model_resource_name, ours.name)):
        number = full.rpartition("/")[2]
        with pytest.raises(InvalidArgumentError, match=f"'{number}' is the ID of a model. Pass its name, '{called}'"):
            registry.register_version(number, source())
        for verb in (registry.get_version, registry.latest_version, registry.get_model, registry.delete_model):
            with pytest.raises(NotFoundError, match=f"That's the ID of a model. Pass its name, '{called}'"):
                verb(number)
    assert sorted(model.name for model in registry.list_models()) == sorted([churn, ours.name])


@pytest.mark.no_switches
def test_a_number_as_a_name(registry: RegistryClient, source: NewSource) -> None:
    """A number that isn't a model's ID is a name like any other."""
    assert [registry.register_version("20261128", source()).version for _ in range(2)] == ["1", "2"]
    assert registry.get_version("20261128").name == "20261128"


@pytest.mark.no_switches
@pytest.mark.parametrize("odd", ["tab\there", "zero\u200bwidth", " spaces ", "\ufeffmark"])
def test_invisible_names_of_other_tools(
    registry: RegistryClient, vertex: ModelServiceClient, parent: str, name: NewName, source: NewSource, odd: str
) -> None:
    """If another tool created a model with such a name, you can read it, and register by its resource name."""
    called = name() + odd if odd[0] != " " else f" {name()} "
    resource = uploaded(vertex, parent, called, source())

    assert registry.get_version(called).name == called
    assert registry.latest_version(called) == registry.get_version(called, 1)
    assert registry.update_version(called, 1, metadata={"a": 1}).metadata == {"a": 1}
    with pytest.raises(InvalidArgumentError, match="full resource name"):
        registry.register_version(called, source())
    assert registry.register_version(resource, source()).version == "2"
    registry.delete_model(called)


@pytest.mark.no_switches
def test_aliases_with_capitals(registry: RegistryClient, name: NewName, source: NewSource) -> None:
    """Aliases may have all letters that Vertex allows, in every method that takes one."""
    churn = name()
    registry.register_version(churn, source(), aliases=["rc-Final"])
    registry.register_version(churn, source())

    assert registry.get_version(churn, "rc-Final").version == "1"
    assert "bestOne" in registry.add_aliases(churn, "rc-Final", ["bestOne"]).aliases
    assert registry.update_version(churn, "bestOne", metadata={"a": 1}).version == "1"
    assert registry.set_stage(churn, "bestOne", "Production").version == "1"
    assert set(registry.add_aliases(churn, 2, ["bestOne"]).aliases) == {"bestOne", "default"}
    assert "rc-Final" not in registry.remove_aliases(churn, 1, ["rc-Final", "never-There"]).aliases
    registry.delete_version(churn, "bestOne")
    for alias in ("vr-Mine", "Upper", "endsInDash-", "endsInCapitaL"):
        with pytest.raises(InvalidArgumentError, match="alias"):
            registry.add_aliases(churn, 1, [alias])


def test_flat_metadata(registry: RegistryClient, name: NewName, source: NewSource) -> None:
    """Sixty numbers fit under sixty keys, come back in order, and leave room for a stage and more."""
    churn, metadata = name(), {f"metric-{number:02}": number / 7 for number in reversed(range(60))}
    made = registry.register_version(churn, source(), metadata=metadata)

    assert made.metadata == metadata
    assert list(made.metadata) == list(registry.get_version(churn, 1).metadata) == sorted(metadata)
    for stage in ("Staging", "Production", "Archived"):
        assert registry.set_stage(churn, 1, stage).metadata == metadata
    more = {f"more-{number}": number for number in range(60)}
    assert registry.update_version(churn, 1, metadata=more).metadata == metadata | more
    assert registry.set_stage(churn, 1, "Production").metadata == metadata | more


@pytest.mark.parametrize(
    ("word", "call"),
    [
        ("production", "get_version('{0}', stage='production')"),
        ("Production", "get_version('{0}', stage='production')"),
        ("prod", "get_version('{0}', stage='production')"),
        ("staging", "get_version('{0}', stage='staging')"),
        ("latest", "latest_version('{0}')"),
    ],
)
def test_a_stage_in_place_of_a_version(
    registry: RegistryClient, name: NewName, source: NewSource, word: str, call: str
) -> None:
    """If you pass a stage, or `latest`, where a version belongs, the error shows the call that finds it."""
    model = name()
    registry.register_version(model, source())
    # An alias begins with a lower-case letter, so no other method takes the second word for one.
    verbs: list[Callable[..., object]] = [registry.get_version]
    verbs += [registry.delete_version] if word.islower() else []
    for verb in verbs:
        with pytest.raises(NotFoundError) as raised:
            verb(model, word)
        assert f"Call {call.format(model)}" in str(raised.value)


@pytest.mark.no_switches
def test_a_version_that_is_written_in_another_way(registry: RegistryClient, name: NewName, source: NewSource) -> None:
    """If it's clear which version is meant, the error says how to name it."""
    churn = name()
    version = registry.register_version(churn, source(), version_name="1.2.0", aliases=["candidate"])
    for written in (" 1 ", "v1", "V1", "1.0", 1.0, "@1", "#1", "version 1", "01", "\uff11", f"{churn}@1", "1\n"):
        with pytest.raises(NotFoundError, match=r"Did you mean '1'\?"):
            registry.get_version(churn, written)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(NotFoundError, match=r"Did you mean '1'\?"):
        registry.get_version(churn, version.resource_name)
    for written in ("Candidate", "CANDIDATE", "candidate ", "@candidate", "canDIDate"):
        with pytest.raises(NotFoundError, match=r"Did you mean 'candidate'\?"):
            registry.get_version(churn, written)
    for written in ("Latest", " LATEST", "newest"):
        with pytest.raises(NotFoundError, match=rf"Call latest_version\('{churn}'\)"):
            registry.get_version(churn, written)
    for written in ("Production", "production ", "PROD"):
        with pytest.raises(NotFoundError, match=rf"Call get_version\('{churn}', stage='production'\)"):
            registry.get_version(churn, written)
    for unclear in ("1.2.0", "9", 9, "candidates", "", None, True, "1 2", 10**5000, "9" * 5000, b"1"):
        with pytest.raises(NotFoundError) as caught:
            registry.get_version(churn, unclear)  # type: ignore[arg-type]  # that is the point
        assert "Did you mean" not in str(caught.value)
        assert len(str(caught.value)) < 500


@pytest.mark.no_switches
def test_a_change_of_a_version_that_is_written_in_another_way(
    registry: RegistryClient, name: NewName, source: NewSource
) -> None:
    """The same holds for calls that change a version, and nothing is changed."""
    churn = name()
    registry.register_version(churn, source(), aliases=["candidate"])
    for written, hint in (
        ("V1", r"Did you mean '1'\?"),
        ("Candidate", r"Did you mean 'candidate'\?"),
        ("Production", rf"Call get_version\('{churn}', stage='production'\)"),
        ("Latest", rf"Call latest_version\('{churn}'\)"),
        (10**5000, "can't be a version"),
    ):
        for verb in (
            lambda v: registry.set_stage(churn, v, "Production"),
            lambda v: registry.delete_version(churn, v),
            lambda v: registry.update_version(churn, v, description="x"),
            lambda v: registry.add_aliases(churn, v, ["other"]),
        ):
            with pytest.raises(InvalidArgumentError, match=hint):
                verb(written)


@pytest.mark.no_switches
def test_a_number_of_another_type(registry: RegistryClient, name: NewName, source: NewSource) -> None:
    """Whatever Python takes for an integer is a version's number, such as a NumPy integer."""

    class Number:
        def __index__(self) -> int:
            return 1

    churn = name()
    registry.register_version(churn, source())
    assert registry.get_version(churn, Number()).version == "1"  # type: ignore[arg-type]  # that is the point
    assert registry.set_stage(churn, Number(), "Staging").version == "1"  # type: ignore[arg-type]  # likewise
