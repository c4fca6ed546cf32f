"""The locations of a project, and the RPCs of ``google.cloud.location.Locations``."""

from __future__ import annotations

from typing import Any, Final

from google.cloud.location import locations_pb2

from vertex_registry.emulator._names import LOCATION_RE, PROJECT_RE, parse, project_number
from vertex_registry.emulator._query import query_of

# Where Vertex serves models, according to Google's SDK. "global" doesn't.
LOCATIONS: Final = (
    "africa-south1",
    "asia-east1",
    "asia-east2",
    "asia-northeast1",
    "asia-northeast2",
    "asia-northeast3",
    "asia-south1",
    "asia-south2",
    "asia-southeast1",
    "asia-southeast2",
    "australia-southeast1",
    "australia-southeast2",
    "europe-central2",
    "europe-north1",
    "europe-north2",
    "europe-southwest1",
    "europe-west1",
    "europe-west12",
    "europe-west2",
    "europe-west3",
    "europe-west4",
    "europe-west6",
    "europe-west8",
    "europe-west9",
    "me-central1",
    "me-central2",
    "me-west1",
    "northamerica-northeast1",
    "northamerica-northeast2",
    "southamerica-east1",
    "southamerica-west1",
    "us-central1",
    "us-east1",
    "us-east4",
    "us-east5",
    "us-east7",
    "us-south1",
    "us-west1",
    "us-west2",
    "us-west3",
    "us-west4",
    "us-west8",
)


class Locations:
    """The RPCs of Locations."""

    def list_locations(self, request: Any) -> locations_pb2.ListLocationsResponse:
        """Lists information about the supported locations for this service."""
        project = parse(PROJECT_RE, "name", request.name, "Project")["project"]
        query = query_of("ListLocations", project_number(project), request)
        after = str(query.after[0]) if query.after else ""
        rest = [location for location in LOCATIONS if location > after]
        response = locations_pb2.ListLocationsResponse(
            locations=[_to_location(project, location) for location in rest[: query.limit]]
        )
        if len(rest) > query.limit:
            response.next_page_token = query.token((rest[query.limit - 1],))
        return response

    def get_location(self, request: Any) -> locations_pb2.Location:
        """Gets information about a location."""
        match = parse(LOCATION_RE, "name", request.name, "Location")
        # Models can be kept in any location here, so every location exists.
        return _to_location(match["project"], match["location"])


def _to_location(project: str, location: str) -> locations_pb2.Location:
    # A guess: the project's number, as in every other name, and the id as the display name.
    name = f"projects/{project_number(project)}/locations/{location}"
    return locations_pb2.Location(name=name, location_id=location, display_name=location)
