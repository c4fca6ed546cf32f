"""Which files of a folder are uploaded: links, temporary files, and names."""

from __future__ import annotations

import os
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from hypothesis import example, given
from hypothesis import strategies as st

from tests.artifacts.tools import python
from vertex_registry.artifacts import LocalDirectory, _names, digest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.storage.server import Store
    from vertex_registry.artifacts import Storage

import logging
from pathlib import Path

import pytest

from tests.artifacts.tools import write
from vertex_registry.artifacts import IGNORED, is_ignored, scan
from vertex_registry.errors import InvalidArgumentError

# --- links ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Return a folder outside the model's folder."""
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
    """Link to a folder whose name begins with the model's name, but that isn't in the model's folder."""
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
    with pytest.raises(InvalidArgumentError, match="leads out of .* so nothing was uploaded") as caught:
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
    """The path that you pass may be a link, and so may a folder above it."""
    (tmp_path / "link").symlink_to(folder)
    (folder / "inner").symlink_to(folder / "assets")
    (tmp_path / "above").symlink_to(tmp_path)
    (tmp_path / "file.json").symlink_to(folder / "metadata.json")

    assert scan(tmp_path / "link").names == scan(folder).names
    assert scan(tmp_path / "above" / "model").names == scan(folder).names
    assert scan(tmp_path / "file.json").names == ("file.json",)


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """Return a snapshot in a Hugging Face cache, as its library lays it out."""
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
    """A link from a snapshot to anything except its own repository's blobs is refused."""
    write(snapshot.parent.parent.parent / "models--acme--other", {"blobs/0a1b": b"{}"})
    path = snapshot.parent.parent / target
    assert path.exists(), outside
    (snapshot / "vocab.txt").symlink_to(path)
    with pytest.raises(InvalidArgumentError, match=r"vocab\.txt' is a link that leads out"):
        scan(snapshot)


def test_blobs_that_are_a_link_are_not_the_caches(tmp_path: Path, outside: Path) -> None:
    """A folder that imitates a cache, with blobs that link to somewhere else, is refused."""
    snapshot = tmp_path / "repository" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "blobs").symlink_to(outside)
    (snapshot / "vocab.txt").symlink_to(Path("..", "..", "blobs", "secret.txt"))
    with pytest.raises(InvalidArgumentError, match=r"vocab\.txt' is a link that leads out"):
        scan(snapshot)


def test_a_link_that_leads_to_itself_is_refused(folder: Path) -> None:
    """A link that leads nowhere is refused, even deep in the folder."""
    (folder / "assets" / "ring").symlink_to("ring")
    with pytest.raises(InvalidArgumentError, match="can't be read: Too many levels"):
        scan(folder)


def test_links_cannot_multiply_files(folder: Path) -> None:
    """Twenty folders that each link twice to the next one are a million files, and are refused early."""
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
    """A ``.git`` that leads out of the folder is skipped without an error."""
    (folder / ".git").symlink_to(write(tmp_path / "elsewhere", {"config": b""}))
    write(folder / "assets", {".git": b"gitdir: ../../.git/modules/assets"})

    assert scan(folder).names == ("assets/größe.txt", "metadata.json", "model.joblib")


def test_litter_that_is_named_is_sent(tmp_path: Path) -> None:
    """A file that the caller names is uploaded, whatever its name is."""
    write(tmp_path, {".git/config": b"x", "notes.txt~": b"x"})

    assert scan(tmp_path / ".git").names == ("config",)
    assert scan(tmp_path / "notes.txt~").names == ("notes.txt~",)


def test_a_folder_of_litter_is_empty(tmp_path: Path) -> None:
    """A folder with nothing but temporary files counts as empty."""
    with pytest.raises(InvalidArgumentError, match="no files"):
        scan(write(tmp_path / "model", {".git/config": b"x", ".DS_Store": b"x"}))


# --- what can be uploaded, and its digest -----------------------------------------------------------------------------


#: Few names and contents, so two folders often share some of them.
FILES = st.dictionaries(
    st.sampled_from(["a", "b", "ab", "a/b", "ü"]) | st.text(min_size=1, max_size=4),
    st.sampled_from([bytes(32), bytes(range(32))]),
    max_size=2,
)


@given(FILES, FILES)
@example({"a": bytes(32)}, {"b": bytes(32)})
def test_the_digest_is_the_contents(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    """The digest does not depend on the order of the files, and differs when a name or a byte does."""
    assert digest(one.items()) == digest(reversed(one.items()))
    assert (digest(one.items()) == digest(other.items())) == (one == other)


def test_the_digest_is_the_same_on_every_machine() -> None:
    """The digest never changes between releases, because every model would be uploaded again."""
    assert (
        digest([("model.joblib", bytes(32)), ("a/größe", bytes(range(32)))])
        == "32f09b35885014f4f25191a070c0b4c432dfce0f"
    )


def test_names_are_normalised(storage: Storage, store: Store, tmp_path: Path) -> None:
    """A name that macOS writes in another Unicode form is the same name."""
    composed = write(tmp_path / "linux", {"gr\u00f6\u00dfe": b"x"})
    decomposed = write(tmp_path / "mac", {"gro\u0308\u00dfe": b"x"})
    assert storage.upload(scan(composed), f"gs://{store.bucket}/m") == storage.upload(
        scan(decomposed), f"gs://{store.bucket}/m"
    )


def test_links_are_followed(folder: Path, tmp_path: Path) -> None:
    """A linked file and a linked folder count as what they link to."""
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "model.pkl").symlink_to(folder / "model.joblib")
    (linked / "assets").symlink_to(folder / "assets")

    local = scan(linked, follow_links=True)
    assert local.names == ("assets/größe.txt", "model.pkl")
    assert local.size == 896_000 + 3


def fifo(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder


def loop(folder: Path) -> Path:
    (folder / "loop").symlink_to(folder)
    return folder


def dangling(folder: Path) -> Path:
    (folder / "gone").symlink_to(folder / "nowhere")
    return folder


def ring(folder: Path) -> Path:
    (folder / "ring").symlink_to(folder / "ring")
    return folder


def not_text(folder: Path) -> Path:
    (folder / os.fsdecode(b"\xff")).touch()
    return folder


def two_forms(folder: Path) -> Path:
    return write(folder, {"gr\u00f6\u00dfe": b"x", "gro\u0308\u00dfe": b"x"})


def emptied(folder: Path) -> Path:
    (folder / "empty" / "empty").mkdir(parents=True)
    return folder / "empty"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: folder / "nowhere", "doesn't exist"),
        (lambda _: Path("/dev/null"), "neither a file nor a folder"),
        (emptied, "no files"),
        (fifo, "isn't a regular file"),
        (loop, "link to a folder that contains it"),
        (dangling, "No such file"),
        (not_text, "isn't text"),
        (two_forms, "normal form"),
        (lambda folder: write(folder, {"a\nb": b""}), "doesn't allow an object named 'a\\nb'"),
        (lambda folder: write(folder, {"assets/a\\b": b""}), "couldn't be downloaded again"),
        (lambda folder: write(folder, {"data:/a": b""}), "couldn't be downloaded again"),
        (lambda folder: write(folder, {"f:stream": b""}) / "f:stream", "couldn't be downloaded again"),
        (lambda folder: folder / ("a" * 300), "can't be read: File name too long"),
        (lambda _: Path("~nosuchuser/x"), "isn't a path"),
        (lambda folder: folder / "a\0b", "isn't a path"),
        (ring, "can't be read: Too many levels"),
    ],
    ids=lambda value: getattr(value, "__name__", value).strip("<>"),
)
def test_an_unusable_folder_is_refused(folder: Path, spoil: Callable[[Path], Path], says: str) -> None:
    """If a folder can't be uploaded completely, it's refused before anything is sent."""
    with pytest.raises(InvalidArgumentError, match=says.replace("\\", r"\\")):
        scan(spoil(folder))


def test_a_folder_behind_a_locked_one_is_refused(tmp_path: Path) -> None:
    """A folder that the user can't open is refused. The test acts as another user, because root can open it."""
    tmp_path.chmod(0o700)
    run = python(
        "import os, sys\n"
        "from vertex_registry.artifacts import scan\n"
        "os.getuid() or os.setuid(65534)\n"
        "try:\n"
        "    scan(sys.argv[1])\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error, file=sys.stderr, flush=True)\n"
        "os._exit(0)  # the other user may write no coverage\n",
        write(locked := tmp_path / "locked", {"m/model.bst": b""}) / "m",
        preexec_fn=None if os.getuid() == 0 else lambda: locked.chmod(0),
    )
    locked.chmod(0o700)

    assert "InvalidArgumentError" in run.stderr.splitlines()[-1]
    assert "can't be read: Permission denied" in run.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "windows", "stays"),
    [
        *[(name, False, True) for name in ("model.pkl", "a/b", ".hidden", "con", "nul.txt", "a.", "größe", "a b")],
        *[(name, True, True) for name in ("model.pkl", "a/b", ".hidden", "console", "com.txt", "a/connect.py")],
        *[
            (name, True, False)
            for name in ("con", "NUL", "nul.txt", "a/aux/b", "com1", "LPT9.log", "a.", "a ", "con .x")
        ],
        *[
            (name, on, False)
            for name in ("C:evil", "f:stream", "a/f:s", "a\\b", "\ud800", "a\0")
            for on in (True, False)
        ],
    ],
)
def test_a_name_stays_in_the_folder(name: str, *, windows: bool, stays: bool) -> None:
    """A name that's a path, a drive, a stream or a device on Windows isn't a file name."""
    assert _names.is_safe_name(name, windows=windows) is stays  # no test runs on Windows


def test_a_local_directory_knows_its_names(folder: Path) -> None:
    """You can list what will be uploaded before anything is read or sent."""
    local = scan(str(folder))

    assert isinstance(local, LocalDirectory)
    assert local.names == ("assets/größe.txt", "metadata.json", "model.joblib")
    assert local.source == str(folder)
    assert [PurePosixPath(name).name for name in local.names] == [file.path.name for file in local.files]
