"""Uses the Python client that openapi-python-client generates: posts an event and reads it back."""

import os

from eyego_log import AuthenticatedClient
from eyego_log.api.events import get_event, list_events
from eyego_log.api.ingest import ingest_batch, ingest_event
from eyego_log.models import (
    BatchResponse,
    ErrorResponse,
    IngestBatchJsonBodyType0 as Batch,
    IngestEventWait,
    IngestRequest,
    IngestRequestMetadataType0 as RequestMetadata,
    IngestResponse,
    ListEventsMetadata,
    LogResponse,
    LogsPage,
)

client = AuthenticatedClient(base_url=os.environ["EYEGO_URL"], token=os.environ["EYEGO_KEY"])

metadata = RequestMetadata.from_dict({"page": "home", "n": 9007199254740993})
event = IngestRequest(user_id="python", action="GENERATED", metadata=metadata)
queued = ingest_event.sync(client=client, body=event, wait=IngestEventWait.STORED)
assert isinstance(queued, IngestResponse), queued
assert queued.status == "success", queued

read = get_event.sync(queued.id, client=client)
assert isinstance(read, LogResponse), read
assert read.data.id == queued.id
assert (read.data.user_id, read.data.action) == ("python", "GENERATED")
assert read.data.metadata.to_dict() == metadata.to_dict(), read.data.metadata

batch = ingest_batch.sync(client=client, body=Batch(logs=[event, event]))
assert isinstance(batch, BatchResponse), batch
assert (batch.accepted, batch.rejected) == (2, []), batch

filters = ListEventsMetadata.from_dict({"metadata.page": "home"})
page = list_events.sync(client=client, user_id="python", metadata=filters, limit=1)
assert isinstance(page, LogsPage), page
assert page.results == 1 and page.data[0].user_id == "python", page
none = list_events.sync(client=client, metadata=ListEventsMetadata.from_dict({"metadata.page": "x"}))
assert isinstance(none, LogsPage) and none.results == 0, none

invalid = IngestRequest(user_id="", action="A")
refused = ingest_event.sync(client=client, body=invalid)
assert isinstance(refused, ErrorResponse), refused
assert [error.path for error in refused.errors] == ["userId"], refused
print("ok")
