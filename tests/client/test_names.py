"""Names, ids and references."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from vertex_registry import _names

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=128)


@given(st.lists(st.tuples(NAMES, st.integers(0, 3)), unique=True, min_size=2, max_size=8))
def test_ids_never_collide(series: list[tuple[str, int]]) -> None:
    """Each name, and each number of its series, has an id of its own, of the form that Vertex allows."""
    ids = [_names.model_id(name, number) for name, number in series]

    assert len(set(ids)) == len(series)
    assert all(re.fullmatch(r"[a-z_][a-z0-9_-]{0,62}", model_id) for model_id in ids)


def test_ids_are_pinned() -> None:
    """The id of a name is the same in every release: it is what races are decided by."""
    assert _names.model_id("churn") == "churn-juxgytcplacgrrvge65kjtetpeeyieuz"
    assert _names.model_id("Ünï 😀") == "n-zpov7tg4t7xu7oser4shy3nzu3erapj5"
    assert _names.model_id("9 lives").startswith("m-9-lives-")


@given(st.sampled_from(["request", "name"]), st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_hidden_aliases(kind: str, text: str) -> None:
    """An alias of ours is one that Vertex allows, and is not shown."""
    alias = _names.hidden_alias(kind, text)

    assert re.fullmatch(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]", alias)
    assert _names.visible_aliases((alias, "candidate")) == ("candidate",)


@given(NAMES, st.integers(0, 10**17), NAMES)
def test_upload_aliases(request: str, base: int, nonce: str) -> None:
    """The alias of an upload is one that Vertex allows, isn't shown, and tells its request and its base."""
    alias = _names.hidden_alias("request", request)
    own = _names.upload_alias(alias, base, nonce)

    assert all(
        re.fullmatch(r"[a-z][a-z0-9-]{0,126}[a-z0-9]", hidden)
        for hidden in (own, _names.pending_alias(own), _names.removing_alias(str(base)))
    )
    assert _names.visible_aliases((own, "candidate")) == ("candidate",)
    assert _names.find_upload_alias(("candidate", alias, own), alias) == (own, base)
    assert _names.find_upload_alias((alias, own), _names.hidden_alias("request", f"{request}x")) is None
    assert _names.upload_alias(alias, base, f"{nonce}x") != own
    assert _names.removing((own, _names.removing_alias(str(base)))) == [str(base)]


def test_what_a_second_upload_leaves() -> None:
    """The aliases that find a request's version go to the first upload; what was only the second one's doesn't."""
    alias = _names.hidden_alias("request", "run")
    own = _names.upload_alias(alias, 1, "nonce")
    name = _names.hidden_alias("name", "1.0")
    left = ["default", "candidate", alias, name, _names.NEWEST_ALIAS]
    kept = [own, _names.pending_alias(own), _names.LIVE_ALIAS, _names.DELETING_ALIAS, _names.removing_alias("3")]

    assert _names.inherited_aliases([*kept, *left], alias) == left


@given(st.integers(1, 10**17))
def test_version_ids(number: int) -> None:
    """A version's number is taken as text or int, and nothing else is taken for one."""
    assert _names.version_id(number) == _names.version_id(str(number)) == str(number)
    assert _names.version_id(f"0{number}") is None
    assert _names.version_id(f"{number}.0") is None
    assert _names.version_id(-number) is None
