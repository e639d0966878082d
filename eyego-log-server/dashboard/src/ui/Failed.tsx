// A failed request: what happened, and what to do.

import type { JSX } from "preact";
import type { Failure } from "../lib/api";
import { key, signOut } from "../lib/session";
import { Icon } from "./icons";
import { Text } from "./Text";

interface Props {
  failure: Failure;
  /** The route that a server without this feature lacks. */
  route: string;
  /** What else can be the reason. */
  note?: string;
  onRetry: () => void;
}

function title({ kind }: Failure): string {
  switch (kind) {
    case "unauthorized": return "A key is needed";
    case "forbidden": return "Not allowed";
    case "unavailable": return "Not available on this server";
    case "unsupported": return "Not possible with this store";
    case "invalid": return "The server refused the request";
    case "busy": return "The server is busy";
    case "offline": return "No response";
    case "failed": return "Something went wrong";
  }
}

export function Failed({ failure, route, note, onRetry }: Props): JSX.Element {
  const isQuiet = failure.kind === "unavailable" || failure.kind === "unsupported";
  return (
    <div class={`state ${isQuiet ? "" : "state-failed"}`} role={isQuiet ? "status" : "alert"}>
      <h2>{!isQuiet && <Icon name="warn" />} {title(failure)}</h2>
      {failure.kind === "unavailable"
        ? <p>This server has no <code>{route}</code>. <Text text={note ?? "A newer server offers it; everything else here works without."} /></p>
        : <p><Text text={failure.message} /></p>}
      {failure.requestId !== null && failure.kind === "failed" && (
        <p class="hint">Request <code>{failure.requestId}</code>: the server's log has the details.</p>
      )}
      <div class="actions">
        {failure.kind === "forbidden" && key.get() !== "" && <button type="button" onClick={signOut}>Use another key</button>}
        {!isQuiet && <button type="button" onClick={onRetry}>Try again</button>}
      </div>
    </div>
  );
}

/** The same in one line, above data that is still shown. */
export function Stale({ failure, onRetry }: { failure: Failure; onRetry: () => void }): JSX.Element {
  return (
    <div class="banner" role="alert">
      <Icon name="warn" />
      <span>Not up to date: <Text text={failure.message} /></span>
      <button type="button" onClick={onRetry}>Try again</button>
    </div>
  );
}
