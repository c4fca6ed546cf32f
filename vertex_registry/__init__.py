"""A Python SDK for the Vertex AI Model Registry, with a local Vertex in the box."""
