"""A read-only site about a registry, for people and as JSON. It uses public names only; install the extra ``[ui]``."""

from __future__ import annotations

from vertex_registry.ui._responses import Response
from vertex_registry.ui._site import Site
from vertex_registry.ui._sites import Sites
from vertex_registry.ui._snippets import Opening

__all__ = ["Opening", "Response", "Site", "Sites"]
