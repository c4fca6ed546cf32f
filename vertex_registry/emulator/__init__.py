"""A local Vertex AI Model Registry that Google's own clients work against unmodified."""

from vertex_registry.emulator._data_file import DataFileError
from vertex_registry.emulator._quota import Quota
from vertex_registry.emulator._server import Emulator

__all__ = ["DataFileError", "Emulator", "Quota"]
