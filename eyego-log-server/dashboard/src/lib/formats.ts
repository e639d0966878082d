// The formats of an export.

import type { Spec } from "../docs/spec";
import { getJson } from "./api";
import type { Format } from "./download";

const ALWAYS: Format[] = ["csv", "ndjson"];

let known: Promise<Format[]> | null = null;

/** Returns the formats that the server was built with, which its description of the API lists. */
export function formats(): Promise<Format[]> {
  known ??= getJson<Spec>("openapi.json", { paths: {} }).then(
    ({ paths }) => {
      const parameters = paths["/api/v1/logs/export"]?.["get"]?.parameters ?? [];
      const listed = parameters.find(({ name }) => name === "format")?.schema.enum ?? [];
      return listed.includes("parquet") ? [...ALWAYS, "parquet"] : ALWAYS;
    },
    () => {
      known = null;
      return ALWAYS;
    },
  );
  return known;
}
