# The local Vertex AI, as a container: see docs/container.md.
FROM python:3.12-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY vertex_registry ./vertex_registry
RUN python -m pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore '.[ui]'

RUN useradd --system --uid 10001 --no-create-home emulator && install -d -o emulator -g emulator /data
WORKDIR /data
USER emulator
VOLUME /data

# gRPC and REST.
EXPOSE 8470 8471

HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8471/emulator/health', timeout=2)"]

STOPSIGNAL SIGTERM

# Options after the image's name are added, and the last one counts.
ENTRYPOINT ["python", "-m", "vertex_registry.emulator", "--host", "0.0.0.0", "--allow-host", "vertex", "--data", "/data/registry.db"]
