"""A local Vertex AI Model Registry that Google's own clients work against unmodified."""

from vertex_registry.emulator._server import Emulator
from vertex_registry.emulator._store import DataFileError

__all__ = ["DataFileError", "Emulator"]
