"""A local Vertex AI Model Registry that Google's own clients work against unmodified."""
