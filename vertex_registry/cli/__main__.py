"""``python -m vertex_registry.cli``."""

from vertex_registry.cli import main

main()
