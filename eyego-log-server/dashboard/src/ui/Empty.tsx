// Explore without a row: why, and what to try.

import type { JSX } from "preact";
import { apiUrl } from "../lib/api";
import type { Rows } from "../lib/explore";
import type { Filter, Range } from "../lib/route";
import { key } from "../lib/session";
import { Copy } from "./Copy";
import { describeRange } from "./RangePicker";
import { Ago } from "./Time";

interface Props {
  rows: Rows;
  range: Range;
  filters: Filter[];
  onRange: (range: Range) => void;
  onClear: () => void;
}

export function Empty({ rows, range, filters, onRange, onClear }: Props): JSX.Element {
  if (rows.isStoreEmpty) return <FirstEvent />;
  const { latest } = rows;
  return (
    <div class="state" role="status">
      <h2>No events match</h2>
      <p>
        Nothing in {describeRange(range)}{filters.length > 0 ? " with these filters" : ""}.
        {latest && <> The latest {filters.length > 0 ? "match" : "event"} is from <b><Ago time={latest.timestamp} /></b>.</>}
      </p>
      <div class="actions">
        {latest && range.kind !== "all" && <button type="button" class="primary" onClick={() => onRange({ kind: "all" })}>Show all time</button>}
        {filters.length > 0 && <button type="button" onClick={onClear}>Remove the filters</button>}
      </div>
    </div>
  );
}

export function FirstEvent(): JSX.Element {
  const authorization = key.get() === "" ? "" : " \\\n  -H 'Authorization: Bearer <key with the scope ingest>'";
  const command = `curl '${apiUrl("api/v1/logs")}' \\
  -H 'Content-Type: application/json'${authorization} \\
  -d '{"userId": "user-123", "action": "SIGN_UP", "metadata": {"plan": "free"}}'`;
  return (
    <div class="state" role="status">
      <h2>No events yet</h2>
      <p>The server works and its store is empty. Send the first event; it appears here within seconds. Other ways to send events are in the <a href="docs">documentation of the API</a>.</p>
      <pre class="command" tabIndex={0}>{command}</pre>
      <div class="actions"><Copy text={() => command} label="Copy command" /></div>
    </div>
  );
}
