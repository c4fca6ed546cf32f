"""The cache belongs to one user: the client never uses files that other users could have written."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c
import pytest

from tests.artifacts.tools import Clock, alter, contents, error, python, write
from vertex_registry.artifacts import scan
from vertex_registry.errors import RegistryError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.storage.server import Proxy, StorageServer
    from vertex_registry.artifacts import Storage

ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
NOBODY = 65534


@pytest.fixture
def kept(make: Callable[..., Storage], stored: str, proxy: Proxy) -> Path:
    """Return the folder of the cache that the model was downloaded to."""
    folder = make().download(stored)
    proxy.seen.clear()
    return folder


def record(kept: Path) -> Path:
    return kept.with_name(f"{kept.name}.json")


def test_the_cache_is_private(kept: Path, tmp_path: Path) -> None:
    """Only its owner can read and write the cache, with any umask."""
    for path in (tmp_path / "cache", *(tmp_path / "cache").rglob("*")):
        if path.parent in {tmp_path, tmp_path / "cache", kept.parent}:
            assert path.stat().st_mode & 0o077 == 0, path
        assert path.stat().st_mode & 0o022 == 0, path


@pytest.fixture
def lax() -> Iterator[None]:
    """Let everybody write to the files that this process creates."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("lax")
def test_the_cache_works_with_a_lax_umask(
    make: Callable[..., Storage], stored: str, proxy: Proxy, tmp_path: Path
) -> None:
    """Even with a umask of 0, the cache is private and is found again."""
    kept = make(cache=tmp_path / "another" / "cache").download(stored)
    assert make(cache=kept.parent.parent).download(stored) == kept

    assert len(proxy.sent("GET", "alt=media")) == 6
    assert all(path.stat().st_mode & 0o077 == 0 for path in kept.rglob("*") if path.is_file())


def test_a_named_destination_follows_the_umask(make: Callable[..., Storage], uploaded: str, tmp_path: Path) -> None:
    """A destination that you name gets the same permissions as your other files."""
    folder = make().download(uploaded, tmp_path / "dest")
    umask = os.umask(0)
    os.umask(umask)

    assert (folder / "model.joblib").stat().st_mode & 0o777 == 0o666 & ~umask
    assert (folder / "assets").stat().st_mode & 0o777 == 0o777 & ~umask


def with_the_same_crc(kept: Path) -> None:
    """Return other bytes with the same length and the same CRC32C, which is possible with a checksum."""
    path = kept / "model.joblib"
    data = bytearray(path.read_bytes())
    # CRC32C is linear: adding a multiple of its polynomial changes nothing. It's x^32 + ..., reflected, of 33 bits.
    pattern = (0x82F63B78 << 1 | 1).to_bytes(5, "little")
    for index, byte in enumerate(pattern):
        data[1_000 + index] ^= byte
    assert google_crc32c.value(bytes(data)) == google_crc32c.value(path.read_bytes())
    path.write_bytes(data)


def longer(kept: Path) -> None:
    with (kept / "metadata.json").open("ab") as file:
        file.write(b" ")


def a_link_to_the_same_bytes(kept: Path) -> None:
    (kept / "model.joblib").rename(kept.parent / "elsewhere")
    (kept / "model.joblib").symlink_to(kept.parent / "elsewhere")


def a_linked_folder(kept: Path) -> None:
    (kept / "assets").rename(kept.parent / "elsewhere")
    (kept / "assets").symlink_to(kept.parent / "elsewhere")


def a_linked_entry(kept: Path) -> None:
    kept.rename(kept.parent / "elsewhere")
    kept.symlink_to(kept.parent / "elsewhere")


def a_pipe(kept: Path) -> None:
    (kept / "model.joblib").unlink()
    os.mkfifo(kept / "model.joblib")


def a_pipe_beside(kept: Path) -> None:
    os.mkfifo(kept / "pipe")


def a_pipe_for_the_record(kept: Path) -> None:
    record(kept).unlink()
    os.mkfifo(record(kept))


def a_pipe_for_the_entry(kept: Path) -> None:
    kept.rename(kept.parent / "elsewhere")
    os.mkfifo(kept)


def writable_by_others(kept: Path) -> None:
    (kept / "model.joblib").chmod(0o666)


def writable_entry(kept: Path) -> None:
    kept.chmod(0o777)


def no_record(kept: Path) -> None:
    record(kept).unlink()


def torn_record(kept: Path) -> None:
    record(kept).write_bytes(record(kept).read_bytes()[:-5])


def odd_record(kept: Path) -> None:
    record(kept).write_text("[1, 2]", encoding="utf-8")


def writable_record(kept: Path) -> None:
    record(kept).chmod(0o646)


def linked_record(kept: Path) -> None:
    record(kept).rename(kept.parent / "elsewhere.json")
    record(kept).symlink_to(kept.parent / "elsewhere.json")


def record_of_less(kept: Path) -> None:
    known = json.loads(record(kept).read_text(encoding="utf-8"))
    del known["model.joblib"]
    record(kept).write_text(json.dumps(known), encoding="utf-8")


PLANTED = [
    with_the_same_crc,
    longer,
    a_link_to_the_same_bytes,
    a_linked_folder,
    a_linked_entry,
    a_pipe,
    a_pipe_beside,
    a_pipe_for_the_record,
    a_pipe_for_the_entry,
    writable_by_others,
    writable_entry,
    no_record,
    torn_record,
    odd_record,
    writable_record,
    linked_record,
    record_of_less,
]


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_entry_is_downloaded_again(
    make: Callable[..., Storage], stored: str, kept: Path, folder: Path, plant: Callable[[Path], None]
) -> None:
    """An entry of the cache that isn't exactly what was downloaded is replaced, and nothing hangs."""
    plant(kept)
    again = make().download(stored)

    assert again == kept
    assert contents(again) == contents(folder)
    assert not any(path.is_symlink() or path.is_fifo() for path in [kept, record(kept), *kept.rglob("*")])


@ROOT
@pytest.mark.parametrize("whose", ["model.joblib", ".", "../record"])
def test_another_users_files_are_downloaded_again(
    make: Callable[..., Storage], stored: str, kept: Path, proxy: Proxy, whose: str
) -> None:
    """Files that another user owns aren't used, even with the right bytes."""
    path = record(kept) if whose == "../record" else kept / whose
    os.chown(path, NOBODY, -1)
    make().download(stored)

    assert proxy.sent("GET", "alt=media")
    assert path.stat().st_uid == os.getuid()


def open_to_others(cache: Path) -> None:
    cache.chmod(0o777)


def open_to_a_group(cache: Path) -> None:
    cache.chmod(0o770)


def inner_open_to_others(cache: Path) -> None:
    for name in ("models", "uploads"):
        (cache / name).mkdir(exist_ok=True)
        (cache / name).chmod(0o777)


def inner_links(cache: Path) -> None:
    (cache.parent / "theirs").mkdir(mode=0o700)
    for name in ("models", "uploads"):
        (cache / name).rmdir()
        (cache / name).symlink_to(cache.parent / "theirs")


def a_file(cache: Path) -> None:
    for name in ("models", "uploads"):
        (cache / name).rmdir()
        (cache / name).touch()


def another_users(cache: Path) -> None:
    os.chown(cache, NOBODY, -1)


def another_users_link(cache: Path) -> None:
    cache.rename(cache.with_name("theirs"))
    cache.symlink_to(cache.with_name("theirs"))
    os.chown(cache, NOBODY, -1, follow_symlinks=False)


UNSAFE = [
    open_to_others,
    open_to_a_group,
    inner_open_to_others,
    inner_links,
    a_file,
    pytest.param(another_users, marks=ROOT),
    pytest.param(another_users_link, marks=ROOT),
]


@pytest.mark.parametrize("prepare", UNSAFE)
def test_a_folder_of_others_is_not_used(
    make: Callable[..., Storage],
    proxy: Proxy,
    stored: str,
    folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    prepare: Callable[[Path], None],
) -> None:
    """A cache that others can write to is an error that says what to do; uploads work without it."""
    for name in ("models", "uploads"):
        (tmp_path / "cache" / name).mkdir(mode=0o700, exist_ok=True)
    prepare(tmp_path / "cache")
    with pytest.raises(RegistryError, match=r"The cache in .* isn't used: .*set XDG_CACHE_HOME"):
        make().download(stored)
    assert contents(make().download(stored, tmp_path / "dest")) == contents(folder)

    proxy.fail("PUT", status=503, body=error("Later."), after=1)
    write(folder, {"model.joblib": bytes(900_000)})
    with caplog.at_level(logging.INFO, "vertex_registry"), pytest.raises(UnavailableError):
        make(retry=Clock().once()).upload(scan(folder), stored.rpartition("/")[0])
    assert "uploads can't be resumed by another process" in caplog.text
    assert not list(tmp_path.glob("*/uploads/*"))
    assert make().upload(scan(folder), stored.rpartition("/")[0]).startswith("gs://")


def test_a_cache_may_be_a_link(make: Callable[..., Storage], uploaded: str, tmp_path: Path) -> None:
    """People link their cache to a larger disk."""
    (tmp_path / "disk").mkdir(mode=0o700)
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    (tmp_path / "cache").symlink_to(tmp_path / "disk")
    first = make().download(uploaded)

    assert make().download(uploaded) == first
    assert list((tmp_path / "disk" / "models").iterdir())


# --- sessions ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def session(make: Callable[..., Storage], proxy: Proxy, bucket: str, folder: Path, tmp_path: Path) -> Path:
    """Return the file of an upload that was cut off after half of its chunks."""
    proxy.fail("PUT", status=503, body=error("Later."), after=2)
    with pytest.raises(UnavailableError):
        make(retry=Clock().once()).upload(scan(folder / "model.joblib"), f"gs://{bucket}/churn-1")
    proxy.seen.clear()
    (path,) = tmp_path.glob("cache/uploads/*.json")
    return path


def test_a_session_is_resumed(
    make: Callable[..., Storage], proxy: Proxy, bucket: str, folder: Path, session: Path
) -> None:
    """An undamaged session continues."""
    assert session.stat().st_mode & 0o077 == 0
    make().upload(scan(folder / "model.joblib"), f"gs://{bucket}/churn-1")

    assert not proxy.sent("POST")


@pytest.mark.parametrize(
    "planted",
    [
        "http://127.0.0.1:1/upload?upload_id=1",
        "http://evil.example/upload?upload_id=1",
        "https://{host}/upload?upload_id=1",
        "http://{host}@evil.example/upload?upload_id=1",
        "http://user:secret@{host}/upload?upload_id=1",
        "http://{host}.evil.example/upload?upload_id=1",
        "//{host}/upload?upload_id=1",
        "file:///etc/passwd",
        "http://[::1]evil.example/",
        "http://{host}9999999/",
        "",
        "nonsense",
    ],
)
def test_a_session_elsewhere_is_not_used(
    make: Callable[..., Storage], proxy: Proxy, bucket: str, folder: Path, session: Path, planted: str
) -> None:
    """A file that names a session at another address is ignored, so the model isn't sent there."""
    url = planted.replace("{host}", proxy.url.removeprefix("http://"))
    session.write_text(json.dumps({"url": url, "confirmed": 524_288}), encoding="utf-8")
    uri = make().upload(scan(folder / "model.joblib"), f"gs://{bucket}/churn-1")

    assert len(proxy.sent("POST", "resumable")) == 1
    assert len(proxy.sent("PUT")) == 4
    assert contents(make().download(uri)) == {"model.joblib": (folder / "model.joblib").read_bytes()}


def test_a_servers_session_is_at_the_endpoint(
    make: Callable[..., Storage], proxy: Proxy, storage_server: StorageServer, bucket: str, folder: Path
) -> None:
    """A session on another host is used at the endpoint, so no other host gets the file."""
    proxy.fail(
        "POST", "resumable", alter_headers=lambda headers: headers | {"Location": f"{storage_server.url}/x?upload_id=1"}
    )
    proxy.fail("PUT", "/x?upload_id=1", status=404, body=error("No such session."))
    make().upload(scan(folder / "model.joblib"), f"gs://{bucket}/churn-1")

    assert len(proxy.sent("POST", "resumable")) == 2
    assert len(proxy.sent("PUT")) == 5


def linked(session: Path, tmp_path: Path) -> None:
    session.unlink()
    session.symlink_to(tmp_path / "victim")


def piped(session: Path, _: Path) -> None:
    session.unlink()
    os.mkfifo(session)


def opened(session: Path, _: Path) -> None:
    session.chmod(0o666)


def given_away(session: Path, _: Path) -> None:
    os.chown(session, NOBODY, -1)


@pytest.mark.parametrize("spoil", [linked, piped, opened, pytest.param(given_away, marks=ROOT)])
def test_a_session_file_of_others_is_not_written(
    make: Callable[..., Storage],
    proxy: Proxy,
    bucket: str,
    folder: Path,
    session: Path,
    tmp_path: Path,
    spoil: Callable[[Path, Path], Any],
) -> None:
    """A session file that's a link, a pipe or another user's is neither read nor written; the upload works."""
    (tmp_path / "victim").write_bytes(before := session.read_bytes())
    spoil(session, tmp_path)
    make().upload(scan(folder / "model.joblib"), f"gs://{bucket}/churn-1")

    assert (tmp_path / "victim").read_bytes() == before
    assert len(proxy.sent("POST", "resumable")) == 1
    assert os.path.lexists(session)


# --- no home ----------------------------------------------------------------------------------------------------------

HOMELESS = """
import os, sys
from pathlib import Path
for variable in ("HOME", "XDG_CACHE_HOME"):
    os.environ.pop(variable, None)
os.environ.update(arg.split("=") for arg in sys.argv[4:])
import google.cloud.storage, tqdm.auto, vertex_registry.artifacts._http  # while every file can still be read
from vertex_registry.artifacts import Storage, scan
os.setuid(54321)
storage = Storage(chunk=2**18)
for action in (
    lambda: storage.upload(scan(sys.argv[1]), sys.argv[2]),
    lambda: storage.list_names(sys.argv[2]),
    lambda: storage.download(uri, sys.argv[3]),
    lambda: storage.download(uri),
):
    try:
        result = action()
        uri = result if str(result).startswith("gs://") else uri
        print(result)
    except Exception as error:
        print(type(error).__name__, error)
storage.close()
sys.stdout.flush()
os._exit(0)
"""


@pytest.fixture
def public(folder: Path) -> Iterator[Path]:
    """Return a folder with the model that everybody can write to; pytest's own are closed to other users."""
    with tempfile.TemporaryDirectory() as name:
        shutil.copytree(folder, Path(name, "model"))
        for path in (Path(name), *Path(name).rglob("*")):
            path.chmod(0o777)
        yield Path(name)


@ROOT
@pytest.mark.usefixtures("storage_emulator")
def test_no_home_directory(folder: Path, bucket: str, public: Path) -> None:
    """A user without a home can upload and download. Only the cache is missing, and the error names the variable."""
    run = python(HOMELESS, public / "model", f"gs://{bucket}/m", public / "dest")
    uri, names, dest, cached = run.stdout.splitlines()

    assert uri.startswith(f"gs://{bucket}/m/"), run
    assert names == repr((f"{uri.rpartition('/')[2]}/",))
    assert dest == str(public / "dest")
    assert contents(public / "dest") == contents(folder)
    assert cached == (
        "RegistryError There is no folder for the cache: this user has no home directory. Name a destination, or set "
        "XDG_CACHE_HOME to a folder of your own."
    )


@ROOT
@pytest.mark.usefixtures("storage_emulator")
@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "HOME"])
def test_no_home_directory_but_a_cache(bucket: str, public: Path, variable: str) -> None:
    """The same user has a cache if one of the variables names a folder."""
    run = python(HOMELESS, public / "model", f"gs://{bucket}/m", public / "dest", f"{variable}={public}")

    assert run.stdout.splitlines()[3].startswith(str(public)), run


@ROOT
@pytest.mark.usefixtures("storage_emulator")
def test_a_home_that_cannot_be_written(bucket: str, public: Path) -> None:
    """OpenShift sets HOME to a folder that isn't the user's. The error says what to do."""
    (public / "theirs").mkdir(mode=0o755)
    run = python(HOMELESS, public / "model", f"gs://{bucket}/m", public / "dest", f"HOME={public / 'theirs'}")
    uri, _, _, cached = run.stdout.splitlines()

    assert cached == (
        f"RegistryError {uri} wasn't downloaded: permission denied in {public / 'theirs' / '.cache'}. "
        "Nothing was kept. "
        "Name a destination that you can write to, or set XDG_CACHE_HOME to a folder of your own."
    ), run


READ_ONLY = """
mount -t tmpfs -o ro none "$1" || exit 77
exec "$2" -c '
import sys
from vertex_registry.artifacts import Storage
for destination in (sys.argv[2], None):
    try:
        Storage(cache=sys.argv[2] + "/cache").download(sys.argv[1], destination)
    except Exception as error:
        print(type(error).__name__, error)
' "$3" "$1/dest"
"""


@pytest.mark.usefixtures("proxy")
def test_a_disk_that_is_read_only(stored: str, tmp_path: Path) -> None:
    """The error says that the disk is read-only, and names the variable that moves the cache."""
    (tmp_path / "disk").mkdir()
    command = ["unshare", "-rm", "sh", "-c", READ_ONLY, "sh", str(tmp_path / "disk"), sys.executable, stored]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if run.returncode in {1, 77} and not run.stdout:
        pytest.skip("nothing can be mounted here")
    named, cached = run.stdout.splitlines()

    assert f"RegistryError {stored} wasn't downloaded: read-only file system in {tmp_path}" in named
    assert named.endswith("Nothing was kept. Name a destination that you can write to.")
    assert "read-only file system" in cached
    assert cached.endswith("or set XDG_CACHE_HOME to a folder of your own.")


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_the_cache_knows_the_content(
    make: Callable[..., Storage], proxy: Proxy, stored: str, folder: Path, tmp_path: Path
) -> None:
    """Without a destination, unchanged files are downloaded once."""
    fetched = make().download(stored)
    assert contents(fetched) == contents(folder)
    assert fetched.is_relative_to(tmp_path / "cache")

    proxy.seen.clear()
    assert make().download(f"{stored}/") == fetched
    assert not proxy.sent("GET", "alt=media")

    alter(fetched / "model.joblib")
    assert contents(make().download(stored)) == contents(folder)
    (fetched / "metadata.json").unlink()
    assert contents(make().download(stored)) == contents(folder)
    write(fetched, {"assets/.extra": b"never fetched"})
    assert contents(make().download(stored)) == contents(folder)


def test_the_cache_follows_the_directory(
    storage: Storage, storage_server: StorageServer, bucket: str, stored: str
) -> None:
    """A changed directory is downloaded again, and the earlier copy stays."""
    before = storage.download(stored)
    storage_server.put(bucket, f"{stored.removeprefix(f'gs://{bucket}/')}/metadata.json", b"[]")
    after = storage.download(stored)

    assert (before / "metadata.json").read_bytes() == b"{}"
    assert (after / "metadata.json").read_bytes() == b"[]"


def test_many_may_fill_the_cache_at_once(make: Callable[..., Storage], uploaded: str, folder: Path) -> None:
    """Several processes that download the same model at once all get the complete folder."""
    folders: list[Path] = []
    threads = [threading.Thread(target=lambda: folders.append(make().download(uploaded))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(folders) == 4
    assert len(set(folders)) == 1
    assert contents(folders[0]) == contents(folder)
