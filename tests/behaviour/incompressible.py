"""Metadata that packing doesn't make shorter."""

from __future__ import annotations

import base64
import hashlib


def incompressible(count: int, prefix: str = "key") -> dict[str, str]:
    """Return metadata with this many entries. Each fits into one label, but would need more than one if packed."""

    def text(number: int) -> str:
        digest = hashlib.sha512(f"{prefix}-{number}".encode()).digest()
        return base64.b32encode(digest).decode().lower()[:63]

    return {f"{prefix}-{number}": text(number) for number in range(count)}
