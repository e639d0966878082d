// Server-sent events over fetch, because `EventSource` cannot send an Authorization header.

import { type Json, parseJson } from "./json";
import { Failure, request } from "./api";

export interface Message {
  event: string;
  id: string;
  data: string;
}

/**
 * Splits a stream of text into messages. Comments only show that the connection lives. `onPosition` gets the id to
 * resume from, which also changes without a message.
 */
export function createParser(emit: (message: Message) => void, onPosition: (id: string) => void): (chunk: string) => void {
  let rest = "";
  let event = "";
  let data: string[] = [];
  let id = "";
  const line = (text: string): void => {
    if (text === "") {
      if (id !== "") onPosition(id);
      if (data.length > 0) emit({ event: event || "message", id, data: data.join("\n") });
      event = "";
      data = [];
      return;
    }
    const colon = text.indexOf(":");
    const name = colon < 0 ? text : text.slice(0, colon);
    const value = colon < 0 ? "" : text.slice(colon + 1).replace(/^ /, "");
    if (name === "event") event = value;
    if (name === "data") data.push(value);
    if (name === "id") id = value;
  };
  return (chunk) => {
    rest += chunk;
    // A CR at the end of a chunk may be the first half of CR LF.
    const end = rest.endsWith("\r") ? rest.length - 1 : rest.length;
    const lines = rest.slice(0, end).split(/\r\n|\n|\r/);
    rest = (lines.pop() ?? "") + rest.slice(end);
    for (const text of lines) line(text);
  };
}

export type TailState =
  | { kind: "connecting" }
  | { kind: "open" }
  | { kind: "waiting"; message: string; until: number; retry: () => void }
  | { kind: "stopped"; failure: Failure };

export interface TailHandlers {
  onMessage(message: Message): void;
  onState(state: TailState): void;
}

/** The server sends a comment every 15 s. A connection that is silent for longer is dead. */
const SILENCE = 40_000;

/** Between two attempts, while somebody may be watching and while nobody is. */
const LONGEST_PAUSE = 5_000;
const LONGEST_HIDDEN_PAUSE = 15_000;

/**
 * Follows the tail until `signal` is aborted. A broken connection is resumed after the last message,
 * without a gap, after growing pauses.
 */
export async function follow(query: URLSearchParams, last: number, handlers: TailHandlers, signal: AbortSignal): Promise<void> {
  let token = "";
  let failures = 0;
  while (!signal.aborted) {
    handlers.onState({ kind: "connecting" });
    try {
      const sent = new URLSearchParams(query);
      if (token === "") sent.set("last", String(last));
      const headers: Record<string, string> = { accept: "text/event-stream" };
      if (token !== "") headers["last-event-id"] = token;
      await read(sent, headers, signal, (message) => {
        failures = 0;
        handlers.onMessage(message);
      }, (id) => { token = id; }, () => handlers.onState({ kind: "open" }));
      throw new Failure("offline", "The server closed the connection.");
    } catch (error) {
      if (signal.aborted) return;
      const failure = error instanceof Failure ? error : new Failure("offline", "The connection broke.");
      if (!["offline", "busy", "failed"].includes(failure.kind)) {
        handlers.onState({ kind: "stopped", failure });
        return;
      }
      failures += 1;
      const longest = document.visibilityState === "visible" ? LONGEST_PAUSE : LONGEST_HIDDEN_PAUSE;
      const pause = Math.min(500 * 2 ** (failures - 1), longest) * (0.75 + Math.random() / 4);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, pause);
        const retry = (): void => {
          clearTimeout(timer);
          document.removeEventListener("visibilitychange", onVisible);
          resolve();
        };
        const onVisible = (): void => {
          if (document.visibilityState === "visible") retry();
        };
        document.addEventListener("visibilitychange", onVisible);
        signal.addEventListener("abort", retry, { once: true });
        handlers.onState({ kind: "waiting", message: failure.message, until: Date.now() + pause, retry });
      });
    }
  }
}

async function read(
  query: URLSearchParams,
  headers: Record<string, string>,
  signal: AbortSignal,
  emit: (message: Message) => void,
  onPosition: (id: string) => void,
  onOpen: () => void,
): Promise<void> {
  const controller = new AbortController();
  const abort = (): void => controller.abort();
  signal.addEventListener("abort", abort, { once: true });
  let timer = 0;
  try {
    const response = await request("api/v1/logs/tail", { query, headers, signal: controller.signal });
    onOpen();
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    const parse = createParser(emit, onPosition);
    for (;;) {
      clearTimeout(timer);
      timer = setTimeout(abort, SILENCE);
      const { done, value } = await reader.read();
      if (done) return;
      parse(value);
    }
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", abort);
    controller.abort();
  }
}

/** The `count` of a `skipped` message. */
export function skippedCount(data: string): number {
  try {
    const parsed = parseJson(data) as { [key: string]: Json } | null;
    return Number(parsed?.["count"] ?? 0);
  } catch {
    return 0;
  }
}
