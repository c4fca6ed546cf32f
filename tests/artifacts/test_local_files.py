"""Which files of a folder are uploaded: links, litter, and names."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.artifacts.tools import write
from vertex_registry.artifacts import IGNORED, is_ignored, scan
from vertex_registry.errors import InvalidArgumentError

# --- links ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that isn't the model's."""
    return write(tmp_path / "outside", {"secret.txt": b"secret", "more/deep.txt": b"deep"})


def to_a_file(folder: Path, outside: Path) -> str:
    (folder / "vocab.txt").symlink_to(outside / "secret.txt")
    return "vocab.txt"


def to_a_folder(folder: Path, outside: Path) -> str:
    (folder / "assets" / "extra").symlink_to(outside)
    return "assets/extra"


def relative(folder: Path, outside: Path) -> str:
    (folder / "assets" / "up.txt").symlink_to(Path("..", "..", outside.name, "secret.txt"))
    return "assets/up.txt"


def through_another_link(folder: Path, outside: Path) -> str:
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to(outside / "secret.txt")
    return "a"


def through_a_parent(folder: Path, outside: Path) -> str:
    (folder / "z").symlink_to(folder.parent / folder.name / ".." / outside.name / "more")
    return "z"


def to_a_neighbour_of_that_name(folder: Path, outside: Path) -> str:
    """A folder whose name begins with the model's isn't in the model's."""
    neighbour = outside.rename(folder.with_name(f"{folder.name}-2"))
    (folder / "n").symlink_to(neighbour / "secret.txt")
    return "n"


def to_nothing(folder: Path, outside: Path) -> str:
    (folder / "gone").symlink_to(outside / "nowhere")
    return "gone"


OUT = [
    to_a_file,
    to_a_folder,
    relative,
    through_another_link,
    through_a_parent,
    to_a_neighbour_of_that_name,
    to_nothing,
]


@pytest.mark.parametrize("link", OUT, ids=lambda link: link.__name__)
def test_a_link_out_of_the_folder_is_refused(folder: Path, outside: Path, link: object) -> None:
    """A link that leads out of the folder is refused with its name and the opt-in."""
    name = link(folder, outside)  # type: ignore[operator]  # one of OUT
    with pytest.raises(InvalidArgumentError, match="leads out of .* Nothing was uploaded") as caught:
        scan(folder)

    assert f"{str(folder / name)!r} is a link" in str(caught.value)
    assert "follow_links=True" in str(caught.value)


def test_a_link_out_of_the_folder_may_be_followed(folder: Path, outside: Path) -> None:
    """With the opt-in, files behind links count as the folder's own."""
    to_a_file(folder, outside)
    to_a_folder(folder, outside)

    assert {"vocab.txt", "assets/extra/secret.txt", "assets/extra/more/deep.txt"} <= set(
        scan(folder, follow_links=True).names
    )


def test_links_within_the_folder_are_followed(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A link to a file or folder of the same folder is followed, and the log says so."""
    (folder / "latest.joblib").symlink_to("model.joblib")
    (folder / "absolute.json").symlink_to(folder / "metadata.json")
    (folder / "same").symlink_to("assets")
    with caplog.at_level(logging.INFO, "vertex_registry"):
        local = scan(folder)

    assert {"latest.joblib", "absolute.json", "same/größe.txt"} <= set(local.names)
    for name, target in (("latest.joblib", "model.joblib"), ("same", "assets")):
        assert f"{name} -> {folder.resolve() / target}" in caplog.text


def test_a_folder_or_file_that_is_a_link_is_followed(folder: Path, tmp_path: Path) -> None:
    """What the caller names may be a link, and so may a folder above it."""
    (tmp_path / "link").symlink_to(folder)
    (folder / "inner").symlink_to(folder / "assets")
    (tmp_path / "above").symlink_to(tmp_path)
    (tmp_path / "file.json").symlink_to(folder / "metadata.json")

    assert scan(tmp_path / "link").names == scan(folder).names
    assert scan(tmp_path / "above" / "model").names == scan(folder).names
    assert scan(tmp_path / "file.json").names == ("file.json",)


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A snapshot in a Hugging Face cache, as its library lays it out."""
    repository = tmp_path / "hub" / "models--acme--churn"
    write(repository, {"blobs/0a1b": b"{}", "blobs/2c3d": b"weights", "refs/main": b"4e5f"})
    folder = repository / "snapshots" / "4e5f"
    (folder / "onnx").mkdir(parents=True)
    (folder / "config.json").symlink_to(Path("..", "..", "blobs", "0a1b"))
    (folder / "onnx" / "model.onnx").symlink_to(Path("..", "..", "..", "blobs", "2c3d"))
    return folder


def test_a_snapshot_of_a_model_cache_is_followed(
    snapshot: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The files of a Hugging Face cache are links to its blobs, and are followed without an opt-in."""
    (tmp_path / "link").symlink_to(snapshot)
    with caplog.at_level(logging.INFO, "vertex_registry"):
        local = scan(snapshot)

    assert local.names == ("config.json", "onnx/model.onnx")
    assert local.size == 9
    assert f"config.json -> {snapshot.parent.parent.resolve() / 'blobs' / '0a1b'}" in caplog.text
    assert scan(tmp_path / "link").names == local.names
    assert scan(snapshot / "onnx").names == ("model.onnx",)
    assert scan(snapshot / "config.json").names == ("config.json",)


@pytest.mark.parametrize("target", ["refs/main", "../models--acme--other/blobs/0a1b", "../../outside/secret.txt"])
def test_a_snapshot_leads_to_its_own_blobs_only(snapshot: Path, outside: Path, target: str) -> None:
    """A link from a snapshot to anything but its own repository's blobs is refused."""
    write(snapshot.parent.parent.parent / "models--acme--other", {"blobs/0a1b": b"{}"})
    path = snapshot.parent.parent / target
    assert path.exists(), outside
    (snapshot / "vocab.txt").symlink_to(path)
    with pytest.raises(InvalidArgumentError, match=r"vocab\.txt' is a link that leads out"):
        scan(snapshot)


def test_blobs_that_are_a_link_are_not_the_caches(tmp_path: Path, outside: Path) -> None:
    """A folder that imitates a cache, with blobs that are a link to somewhere else, opens nothing."""
    snapshot = tmp_path / "repository" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "blobs").symlink_to(outside)
    (snapshot / "vocab.txt").symlink_to(Path("..", "..", "blobs", "secret.txt"))
    with pytest.raises(InvalidArgumentError, match=r"vocab\.txt' is a link that leads out"):
        scan(snapshot)


def test_a_link_that_leads_to_itself_is_refused(folder: Path) -> None:
    """A link that leads nowhere is an error of ours, even deep in the folder."""
    (folder / "assets" / "ring").symlink_to("ring")
    with pytest.raises(InvalidArgumentError, match="cannot be read: Too many levels"):
        scan(folder)


def test_links_cannot_multiply_files(folder: Path) -> None:
    """Twenty folders, of which each has two links to the next one, are a million files, and are refused early."""
    for level in range(20):
        (folder / f"{level:02}").mkdir()
        for name in "ab":
            (folder / f"{level:02}" / name).symlink_to(Path("..", f"{level + 1:02}"))
    write(folder, {"20/weights.bin": b"x"})
    with pytest.raises(InvalidArgumentError, match="more than 10,000 links"):
        scan(folder)


# --- litter -----------------------------------------------------------------------------------------------------------

LITTER = [
    ".git/config",
    "assets/.git/objects/ab/cd",
    ".hg/store",
    "__pycache__/model.cpython-311.pyc",
    "code/__pycache__/a.pyc",
    ".ipynb_checkpoints/train-checkpoint.ipynb",
    ".pytest_cache/README.md",
    ".mypy_cache/3.11/a.json",
    ".idea/workspace.xml",
    ".vscode/settings.json",
    ".DS_Store",
    "assets/.DS_Store",
    "._model.joblib",
    "__MACOSX/._model.joblib",
    "Thumbs.db",
    "assets/thumbs.DB",
    "Desktop.ini",
    ".model.py.swp",
    "notes.txt~",
    "#notes.txt#",
    ".#notes.txt",
    ".~lock.notes.odt#",
    ".directory",
    ".Trash-1000/files/a",
    ".nfs0000000001",
    ".cache/huggingface/download/config.json.metadata",
]
KEPT = [
    "gitignore",
    ".gitattributes",
    ".gitignore",
    ".github/a",
    "git/config",
    "pycache/a",
    "checkpoints/1",
    "a.swp",
    "DS_Store",
    "a~b",
    ".cache/other/a",
    "huggingface/a",
    "cache/huggingface/a",
    ".hidden",
    "_model",
    "thumbs.db.json",
    "code.pyc",
]


def test_litter_is_left_out(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What tools leave in a folder changes neither the files nor the digest, and the log names it."""
    before = scan(folder)
    write(folder, dict.fromkeys(LITTER, b"litter"))
    with caplog.at_level(logging.INFO, "vertex_registry"):
        after = scan(folder)

    assert after == before
    assert "left out: #notes.txt#, .#notes.txt, .DS_Store," in caplog.text


@pytest.mark.parametrize("name", KEPT)
def test_what_looks_like_litter_is_kept(folder: Path, name: str) -> None:
    """A name that only resembles a pattern is uploaded."""
    assert name in scan(write(folder, {name: b"x"})).names


@pytest.mark.parametrize("group", IGNORED)
def test_every_pattern_matches_something(group: str) -> None:
    """Each pattern of the table leaves out what it's written for, in any folder and any case."""
    for pattern in IGNORED[group]:
        name = pattern.replace("[a-p]", "p").replace("*", "x")
        assert is_ignored(name)
        assert is_ignored(name.upper())
        assert is_ignored(f"a/{name}") is ("/" not in pattern)


def test_a_repository_that_is_a_link_is_left_out(folder: Path, tmp_path: Path) -> None:
    """Litter isn't looked into: a ``.git`` that leads out of the folder is no reason to refuse it."""
    (folder / ".git").symlink_to(write(tmp_path / "elsewhere", {"config": b""}))
    write(folder / "assets", {".git": b"gitdir: ../../.git/modules/assets"})

    assert scan(folder).names == ("assets/größe.txt", "metadata.json", "model.joblib")


def test_litter_that_is_named_is_sent(tmp_path: Path) -> None:
    """What the caller names is taken, whatever its name."""
    write(tmp_path, {".git/config": b"x", "notes.txt~": b"x"})

    assert scan(tmp_path / ".git").names == ("config",)
    assert scan(tmp_path / "notes.txt~").names == ("notes.txt~",)


def test_a_folder_of_litter_is_empty(tmp_path: Path) -> None:
    """A folder with nothing but litter has no files."""
    with pytest.raises(InvalidArgumentError, match="no files"):
        scan(write(tmp_path / "model", {".git/config": b"x", ".DS_Store": b"x"}))
