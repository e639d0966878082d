// Uses the types that openapi-typescript generates: posts an event and reads it back.

import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

const { EYEGO_URL, EYEGO_KEY } = process.env;
const client = createClient<paths>({
  baseUrl: EYEGO_URL!,
  headers: { authorization: `Bearer ${EYEGO_KEY}` },
});

const event: components["schemas"]["IngestRequest"] = { userId: "typescript", action: "GENERATED", metadata: { page: "home" } };
const queued = await client.POST("/api/v1/logs", { params: { query: { wait: "stored" } }, body: event });
assert.equal(queued.response.status, 200);
const id: string = queued.data!.id;

const read = await client.GET("/api/v1/logs/{id}", { params: { path: { id } } });
const entry: components["schemas"]["LogEntry"] = read.data!.data;
assert.deepEqual([entry.id, entry.userId, entry.action, entry.metadata], [id, event.userId, event.action, event.metadata]);

const batch = await client.POST("/api/v1/logs/batch", { body: { logs: [event, event] } });
assert.equal(batch.data!.accepted, 2);

const page = await client.GET("/api/v1/logs", {
  params: { query: { userId: "typescript", limit: 1, metadata: { "metadata.page": "home" } } },
  // The form of the document. By default the library writes metadata[metadata.page].
  querySerializer: { object: { style: "form", explode: true } },
});
assert.equal(page.data!.results, 1);

const refused = await client.POST("/api/v1/logs", { body: { userId: "", action: "A" } });
assert.equal(refused.response.status, 400);
assert.ok("errors" in refused.error! && refused.error.errors?.[0]?.path === "userId");

// @ts-expect-error: an event requires an action.
const invalid: components["schemas"]["IngestRequest"] = { userId: "typescript" };
assert.ok(invalid);
console.log("ok");
