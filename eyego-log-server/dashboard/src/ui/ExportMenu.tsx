// Saves exactly the events that the view shows.

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Failure } from "../lib/api";
import { download, type Format } from "../lib/download";
import { bytes } from "../lib/format";
import { formats } from "../lib/formats";
import { onKeyLost } from "../lib/session";
import { Icon } from "./icons";
import { Popover } from "./Popover";
import { Text } from "./Text";

const NAMES: Record<Format, [string, string]> = {
  csv: ["CSV", "for spreadsheets"],
  ndjson: ["NDJSON", "one JSON object per line"],
  parquet: ["Parquet", "for analysis"],
};

type State =
  | { kind: "idle" }
  | { kind: "running"; bytes: number }
  | { kind: "saved"; name: string; bytes: number }
  | { kind: "failed"; message: string };

export function ExportMenu({ query }: { query: () => URLSearchParams }): JSX.Element {
  const [isOpen, setOpen] = useState(false);
  const [state, setState] = useState<State>({ kind: "idle" });
  const [offered, setOffered] = useState<Format[]>(["csv", "ndjson"]);
  const running = useRef<AbortController | null>(null);
  useEffect(() => {
    if (isOpen) void formats().then(setOffered);
  }, [isOpen]);

  const start = async (format: Format): Promise<void> => {
    const controller = new AbortController();
    running.current = controller;
    // It goes on while another view is shown, but not with another key.
    const release = onKeyLost(() => controller.abort());
    let size = 0;
    setState({ kind: "running", bytes: 0 });
    try {
      const name = await download(query(), format, (sum) => {
        size = sum;
        setState({ kind: "running", bytes: sum });
      }, controller.signal);
      setState({ kind: "saved", name, bytes: size });
    } catch (error) {
      if (controller.signal.aborted || (error instanceof DOMException && error.name === "AbortError")) return setState({ kind: "idle" });
      setState({ kind: "failed", message: describe(error) });
    } finally {
      release();
    }
  };
  const close = (): void => {
    setOpen(false);
    if (state.kind !== "running") setState({ kind: "idle" });
  };
  return (
    <div class="menu">
      <button type="button" aria-label="Export" aria-expanded={isOpen} onClick={() => (isOpen ? close() : setOpen(true))}>
        <Icon name="save" /> <span>Export</span>
      </button>
      {isOpen && (
        <Popover label="Export" onClose={close}>
          {state.kind === "saved" && <p role="status">Saved {state.name}, {bytes(state.bytes)}.</p>}
          {state.kind === "failed" && <p role="alert"><Text text={state.message} /></p>}
          {state.kind === "running"
            ? <>
                <p role="status">Exporting… <span class="num">{bytes(state.bytes)}</span></p>
                <button type="button" onClick={() => running.current?.abort()}>Cancel</button>
              </>
            : <>
                <p class="hint">All events of this view, not only this page.</p>
                {offered.map((format) => (
                  <button type="button" class="quiet wide" key={format} onClick={() => void start(format)}>
                    <b>{NAMES[format][0]}</b> <span class="muted">{NAMES[format][1]}</span>
                  </button>
                ))}
              </>}
        </Popover>
      )}
    </div>
  );
}

function describe(error: unknown): string {
  if (!(error instanceof Failure)) return "The file could not be saved.";
  if (error.kind === "unavailable") return "Export is not available on this server: it has no GET /api/v1/logs/export.";
  return error.message;
}
