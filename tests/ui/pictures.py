"""Take the pictures of the docs: `python -m tests.ui.pictures` writes docs/images."""

from __future__ import annotations

import datetime as dt
import math
import random
import shutil
import struct
import zlib
from collections import Counter
from pathlib import Path
from typing import Final, Literal

from playwright.sync_api import sync_playwright

from vertex_registry import RegistryClient
from vertex_registry.emulator import Emulator, SiteServer
from vertex_registry.ui import Site

IMAGES: Final = Path(__file__).parents[2] / "docs" / "images"
NOW: Final = dt.datetime(2026, 11, 28, 9, tzinfo=dt.UTC)

#: Each picture: its name, its page, its width and height, and its colors.
PICTURES: Final[tuple[tuple[str, str, int, int, Literal["light", "dark"]], ...]] = (
    ("model", "/model?name=churn", 860, 700, "light"),
    ("compare-dark", "/compare?model=churn&a=20&b=23", 860, 560, "dark"),
    ("models-phone", "/", 390, 560, "light"),
)


class Clock:
    """A clock that only moves when its `pass_hours` is called."""

    def __init__(self) -> None:
        self.time = NOW - dt.timedelta(days=41)

    def __call__(self) -> dt.datetime:
        return self.time

    def pass_hours(self, hours: float) -> None:
        self.time += dt.timedelta(hours=hours)


def fill(registry: RegistryClient, clock: Clock) -> None:
    """Register the models that the pictures show."""
    rng = random.Random(7)  # noqa: S311  # not for security
    for name, count in (("fraud-detector", 4), ("search-ranker", 9), ("ltv", 3), ("pricing", 2), ("churn", 24)):
        for number in range(1, count + 1):
            metadata = {
                "auc": round(0.94 - 0.17 * math.exp(-number / 8) + rng.gauss(0, 0.006), 4),
                "loss": round(0.12 + 0.5 * math.exp(-number / 7) + rng.gauss(0, 0.012), 4),
                "latency_ms": round(31 + rng.gauss(0, 2.5), 1),
                "git": f"{rng.getrandbits(28):07x}",
            }
            clock.pass_hours(22)
            registry.register_version(
                name, f"gs://acme-models/{name}/{number}", version_name=f"1.{number}.0", metadata=metadata
            )
    registry.update_model("churn", description="Which customers leave within 30 days. Retrained every night.")
    registry.update_model("fraud-detector", description="Card payments")
    for name, number, stage in (
        ("churn", 12, "production"),
        ("churn", 20, "production"),
        ("churn", 23, "production"),
        ("churn", 24, "staging"),
        ("fraud-detector", 3, "production"),
        ("search-ranker", 9, "staging"),
        ("search-ranker", 8, "production"),
    ):
        clock.pass_hours(5)
        registry.set_stage(name, number, stage, archive_existing=True)
    registry.add_aliases("churn", 24, ["candidate"])


def squeeze(picture: bytes) -> bytes:
    """Return a PNG with at most 256 colors. A page has more only at the edges of letters."""
    width, height, channels, rows = _pixels(picture)
    count = Counter(row[start : start + 3] for row in rows for start in range(0, width * channels, channels))
    palette = [color for color, _ in count.most_common(256)]
    index = {color: number for number, color in enumerate(palette)}
    for color in count.keys() - index.keys():
        index[color] = min(
            range(256), key=lambda number: sum((a - b) ** 2 for a, b in zip(palette[number], color, strict=True))
        )
    packed = b"".join(
        b"\0" + bytes(index[row[start : start + 3]] for start in range(0, width * channels, channels)) for row in rows
    )
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", b"".join(palette)),
        (b"IDAT", zlib.compress(packed, 9)),
        (b"IEND", b""),
    )
    return _SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"


def _pixels(picture: bytes) -> tuple[int, int, int, list[bytes]]:
    """Return the width, the height, the bytes per pixel and the rows of a PNG with 8 bits per channel."""
    rest, packed, size = picture.removeprefix(_SIGNATURE), b"", b""
    while rest:
        length, kind = struct.unpack(">I4s", rest[:8])
        body, rest = rest[8 : 8 + length], rest[12 + length :]
        packed += body if kind == b"IDAT" else b""
        size = body if kind == b"IHDR" else size
    width, height, _, color = struct.unpack(">IIBB", size[:10])
    channels = {2: 3, 6: 4}[color]
    stream = zlib.decompress(packed)
    rows = [bytes(width * channels)]
    for start in range(0, len(stream), width * channels + 1):
        rows.append(_unfilter(stream[start], stream[start + 1 : start + 1 + width * channels], rows[-1], channels))
    return width, height, channels, rows[1:]


def _unfilter(kind: int, row: bytes, above: bytes, channels: int) -> bytes:
    """Return a row of pixels. PNG stores each byte as the difference from a prediction by its neighbors."""
    pixels = bytearray(row)
    for index, value in enumerate(row):
        left = pixels[index - channels] if index >= channels else 0
        up, corner = above[index], above[index - channels] if index >= channels else 0
        paeth = min((left, up, corner), key=lambda each: abs(left + up - corner - each))
        pixels[index] = (value + (0, left, up, (left + up) // 2, paeth)[kind]) % 256
    return bytes(pixels)


def main() -> None:
    """Take every picture."""
    IMAGES.mkdir(exist_ok=True)
    clock = Clock()
    with (
        Emulator(now=clock, rest_port=None) as emulator,
        RegistryClient(project="acme-ml", endpoint=emulator.grpc, actor="ann@acme.example", now=clock) as registry,
        sync_playwright() as playwright,
    ):
        fill(registry, clock)
        site = Site(registry, registry_name="acme-ml · us-central1", now=lambda: NOW)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        with SiteServer(site) as server:
            for name, path, width, height, scheme in PICTURES:
                page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
                page.goto(f"{server.address}{path}")
                (IMAGES / f"{name}.png").write_bytes(squeeze(page.screenshot()))
                page.close()
        browser.close()


if __name__ == "__main__":
    main()
