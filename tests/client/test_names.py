"""Names, IDs and references."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vertex_registry import InvalidArgumentError, _names

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=128)


@given(st.lists(st.tuples(NAMES, st.integers(0, 3)), unique=True, min_size=2, max_size=8))
def test_ids_never_collide(series: list[tuple[str, int]]) -> None:
    """Each name, and each number of its series, has its own valid ID."""
    ids = [_names.model_id(name, number) for name, number in series]

    assert len(set(ids)) == len(series)
    assert all(re.fullmatch(r"[a-z_][a-z0-9_-]{0,62}", model_id) for model_id in ids)


def test_ids_are_pinned() -> None:
    """A name's ID is the same in every release, because it decides races."""
    assert _names.model_id("churn") == "churn-juxgytcplacgrrvge65kjtetpeeyieuz"
    assert _names.model_id("Ünï 😀") == "n-zpov7tg4t7xu7oser4shy3nzu3erapj5"
    assert _names.model_id("9 lives").startswith("m-9-lives-")


@given(st.sampled_from(["request", "name"]), st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_hidden_aliases(kind: str, text: str) -> None:
    """A hidden alias is one that Vertex allows, and isn't shown."""
    alias = _names.hidden_alias(kind, text)

    assert re.fullmatch(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]", alias)
    assert _names.visible_aliases((alias, "candidate")) == ("candidate",)


@given(NAMES, st.integers(0, 10**17), NAMES)
def test_upload_aliases(request: str, base: int, nonce: str) -> None:
    """The hidden alias of an upload is valid, and encodes its request and its base."""
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
    assert _names.versions_being_removed((own, _names.removing_alias(str(base)))) == [str(base)]


def test_what_a_second_upload_leaves() -> None:
    """The aliases that find a request's version move to the first upload. The second one's own aliases don't."""
    alias = _names.hidden_alias("request", "run")
    own = _names.upload_alias(alias, 1, "nonce")
    name = _names.hidden_alias("name", "1.0")
    left = ["default", "candidate", alias, name, _names.NEWEST_ALIAS]
    kept = [own, _names.pending_alias(own), _names.LIVE_ALIAS, _names.DELETING_ALIAS, _names.removing_alias("3")]

    assert _names.inherited_aliases([*kept, *left], alias) == left


@given(st.integers(1, 10**17))
def test_version_ids(number: int) -> None:
    """A version's number can be a string or an int, and nothing else counts as one."""
    assert _names.version_id(number) == _names.version_id(str(number)) == str(number)
    assert _names.version_id(f"0{number}") is None
    assert _names.version_id(f"{number}.0") is None
    assert _names.version_id(-number) is None


@pytest.mark.parametrize(
    ("address", "meant"),
    [
        ("https://storage.googleapis.com/bucket/dir/sub/", "gs://bucket/dir/sub"),
        ("HTTPS://storage.cloud.google.com/bucket/a%20b?authuser=1#x", "gs://bucket/a b"),
        ("https://storage.googleapis.com/bucket/o/x", "gs://bucket/o/x"),
        ("https://storage.googleapis.com/storage/v1/b/bucket/o/dir%2Fmodel?alt=media", "gs://bucket/dir/model"),
        ("https://bucket.storage.googleapis.com/dir", "gs://bucket/dir"),
        ("https://console.cloud.google.com/storage/browser/bucket;tab=objects?project=acme", "gs://bucket"),
        ("/gcs/bucket/dir", "gs://bucket/dir"),
        ("gcs://bucket/dir", "gs://bucket/dir"),
        ("gs:/bucket/dir", "gs://bucket/dir"),
        ("gs://bucket/dir", None),
        ("https://storage.googleapis.com.example.com/bucket/dir", None),
        ("https://example.com/storage.googleapis.com/bucket/dir", None),
        ("/gcsfuse/bucket/dir", None),
        ("/gcs", None),
        ("./gcs/bucket", None),
    ],
)
def test_other_forms_of_a_source(address: str, meant: str | None) -> None:
    """Every other way to write a folder in Cloud Storage is recognized, and nothing else."""
    assert _names.to_gs_uri(address) == meant


def test_a_signed_address_is_not_repeated() -> None:
    """No error shows an address, because it may contain a signature."""
    with pytest.raises(InvalidArgumentError) as caught:
        _names.check_source("https://storage.googleapis.com/bucket/dir?X-Goog-Signature=5ec2e7")
    assert "5ec2e7" not in str(caught.value)
    assert "gs://bucket/dir" in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        "https://storage.googleapis.com/bucket/dir/model.pkl",
        "gs://bucket/dir/model.pkl",
        "/gcs/bucket/dir/model.joblib",
    ],
)
def test_what_an_error_advises_is_accepted(source: str) -> None:
    """An error about a file names its directory, however the file is written."""
    with pytest.raises(InvalidArgumentError, match=r"Pass 'gs://bucket/dir'\.$"):
        _names.check_source(source)
    with pytest.raises(InvalidArgumentError, match=r"in a directory, such as 'gs://bucket/model'\.$"):
        _names.check_source(source.replace("/dir", ""))


@given(NAMES)
def test_new_names_have_no_invisible_characters(name: str) -> None:
    """A name is accepted as it is, or refused with an error that shows every character."""
    try:
        assert _names.check_new_name(name) == name
    except InvalidArgumentError as error:
        assert str(error).isprintable()
    else:
        assert name == name.strip()
        assert not any(letter in name for letter in "\t\n\x00\x7f\x85\u200b\u200d\u2060\ufeff\u202e\u2066\u2028")


@pytest.mark.parametrize("name", ["Ünï 😀", "モデル　A", "it's 1.2 (final)!", "a\\b", "עברית", "நிகழ்"])
def test_new_names_in_any_script(name: str) -> None:
    """Letters of every script, spaces between them and symbols are allowed."""
    assert _names.check_new_name(name) == name


@pytest.mark.parametrize(
    ("alias", "writable", "removable"),
    [
        ("candidate", True, True), ("rc-Final", True, True), ("aZ9", True, True), ("a" + "Z" * 126 + "z", True, True),
        ("a" + "Z" * 127 + "z", False, False), ("endsInCapitaL", False, True), ("dash-", False, True),
        ("vr-mine", False, False), ("Upper", False, False), ("3a", False, False), ("a_b", False, False),
        ("a\u0301b", False, False), ("x", False, False), ("", False, False),
    ],
)  # fmt: skip
def test_aliases(alias: str, writable: bool, removable: bool) -> None:
    """What the proto's grammar allows can be written; what any of Vertex's grammars allows can be removed."""
    for check, allowed in ((_names.check_alias, writable), (_names.check_alias_to_remove, removable)):
        try:
            assert check(alias) == alias
        except InvalidArgumentError:
            assert not allowed
        else:
            assert allowed


def test_close_names() -> None:
    """Close names have similar letters in any case. The closest comes first."""
    names = ["fraud", "Churn", "churn-eu", "x" * 1_000_000, ""]
    assert _names.close_names("chrun", names) == ["Churn"]
    assert _names.close_names("CHURN-EU", names) == ["churn-eu", "Churn"]
    assert _names.close_names("pricing", names) == []
