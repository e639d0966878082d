// The codes of dead letters, for the filter.

import { getJson } from "./api";

/** The most rows of one page. */
const ROWS = 1000;

/**
 * Returns the codes of the latest dead letters, whatever the filter and the page. Throws a `Failure` if they cannot be
 * read.
 */
export async function listCodes(signal: AbortSignal): Promise<string[]> {
  const { data } = await getJson<{ data: { code: string }[] }>("api/v1/dead-letters", { data: [{ code: "string" }] }, { query: new URLSearchParams({ limit: String(ROWS) }), signal });
  return [...new Set(data.map(({ code }) => code))].sort();
}
