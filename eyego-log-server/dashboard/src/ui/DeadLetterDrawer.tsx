// One dead letter: why it is one, and its bytes.

import type { JSX } from "preact";
import { type DeadLetter, getDeadLetter } from "../lib/events";
import { bytes, count, plural } from "../lib/format";
import { exact, visible } from "../lib/json";
import { useLoad } from "../lib/load";
import { dateTime } from "../lib/time";
import { Copy } from "./Copy";
import { Drawer } from "./Drawer";
import { Failed } from "./Failed";
import { Skeleton } from "./Skeleton";
import { Ago } from "./Time";

interface Props {
  summary: DeadLetter;
  onReplay: () => void;
  onClose: () => void;
}

export function DeadLetterDrawer({ summary, onReplay, onClose }: Props): JSX.Element {
  const found = useLoad(summary.id, (signal) => getDeadLetter(summary.id, signal));
  return (
    <Drawer label="Dead letter" title={visible(summary.code)} onClose={onClose}>
      <p class="reason" dir="auto">{visible(summary.message)}</p>
      <dl class="facts">
        <dt>User</dt>
        <dd dir="auto">{summary.userId === null ? <span class="muted">not readable</span> : exact(summary.userId)}</dd>
        <dt>Failed</dt>
        <dd class="num">{dateTime(Date.parse(summary.failedAt))} <span class="muted"><Ago time={summary.failedAt} /></span></dd>
        <dt>Queued</dt>
        <dd class="num">{dateTime(Date.parse(summary.queuedAt))}</dd>
        <dt>Attempts</dt>
        <dd class="num">{count(summary.attempts)}</dd>
        <dt>Record</dt>
        <dd class="num">{summary.topic}, partition {summary.partition}, offset {summary.offset}</dd>
        <dt>Id</dt>
        <dd class="with-button"><code>{summary.id}</code><Copy text={() => summary.id} label="Copy the id" isIconOnly /></dd>
      </dl>
      <div class="actions actions-start">
        <button type="button" class="primary" disabled={summary.cutFrom !== undefined} onClick={onReplay}>Replay…</button>
        {found.data && <Copy text={() => found.data?.raw ?? found.data?.rawBase64 ?? ""} label={found.data.raw === undefined ? "Copy Base64" : "Copy bytes"} />}
      </div>
      {summary.cutFrom !== undefined && <p class="hint">Only the beginning of its {plural(summary.cutFrom, "byte")} is kept, so it cannot be replayed.</p>}
      <h3>Bytes</h3>
      {found.failure
        ? <Failed failure={found.failure} route="GET /api/v1/dead-letters/{id}" onRetry={found.reload} />
        : found.data === null ? <Skeleton rows={4} /> : <Bytes deadLetter={found.data} />}
    </Drawer>
  );
}

const SHOWN = 64 * 1024;

function Bytes({ deadLetter }: { deadLetter: DeadLetter }): JSX.Element {
  if (deadLetter.raw !== undefined) {
    const size = new TextEncoder().encode(deadLetter.raw).length;
    return (
      <>
        <p class="hint">{bytes(size)} of UTF-8{deadLetter.raw.length > SHOWN ? `, the first ${bytes(SHOWN)} shown` : ""}</p>
        <pre class="raw" tabIndex={0} dir="ltr">{visible(deadLetter.raw.slice(0, SHOWN))}</pre>
      </>
    );
  }
  const data = Uint8Array.from(atob(deadLetter.rawBase64 ?? ""), (c) => c.charCodeAt(0));
  return (
    <>
      <p class="hint">{bytes(data.length)}, not UTF-8{data.length > 4096 ? ", the first 4 KiB shown" : ""}</p>
      <pre class="raw" tabIndex={0}>{hexDump(data.subarray(0, 4096))}</pre>
    </>
  );
}

function hexDump(data: Uint8Array): string {
  const lines: string[] = [];
  for (let at = 0; at < data.length; at += 8) {
    const row = [...data.subarray(at, at + 8)];
    const hex = row.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const text = row.map((byte) => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : "·")).join("");
    lines.push(`${at.toString(16).padStart(4, "0")}  ${hex.padEnd(23)}  ${text}`);
  }
  return lines.join("\n");
}
