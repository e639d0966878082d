// Scrapes /metrics and /health/ready, and turns counters into rates.

import { Failure, request, unexpected } from "./api";
import { parseJson } from "./json";
import { Metrics } from "./metrics";
import { onKeyLost } from "./session";
import { fits } from "./shape";
import { createStore } from "./store";

export const INTERVAL = 2_000;
/** Two minutes. */
export const SAMPLES = 60;

export interface Part {
  state: string;
  reason?: string;
}

export interface Health {
  isReady: boolean;
  message: string;
  parts: Record<string, Part>;
}

interface Scrape {
  at: number;
  metrics: Metrics;
}

/** Scrapes of this visit, the oldest first. They survive a change of the view. */
const scrapes = createStore<Scrape[]>([]);
onKeyLost(() => scrapes.set([]));

/** `null` if this address does not serve it, `undefined` until the first response. */
export const health = createStore<Health | null | undefined>(undefined);

/** Readiness needs no key, and 503 is a result as well. Returns `null` if this address does not serve it. */
export async function loadHealth(): Promise<Health | null> {
  const url = new URL("health/ready", document.baseURI.replace(/[?#].*$/, ""));
  let found: Health | null;
  try {
    const response = await fetch(url, { cache: "no-store", signal: AbortSignal.timeout(8_000) });
    const body = tryParse(await response.text());
    // Health and metrics can have an address of their own.
    if (response.status === 404) found = null;
    else if (isHealth(body)) found = { isReady: response.ok, message: body.message, parts: body.parts };
    else found = { isReady: false, message: unexpected().message, parts: {} };
  } catch {
    found = { isReady: false, message: "The server cannot be reached.", parts: {} };
  }
  health.set(found);
  return found;
}

function tryParse(text: string): unknown {
  try {
    return parseJson(text);
  } catch {
    // A page of a proxy, for example.
    return undefined;
  }
}

function isHealth(body: unknown): body is { message: string; parts: Record<string, Part> } {
  return fits(body, { message: "string", parts: {} }) && Object.values((body as Health).parts).every((part) => fits(part, { state: "string" }));
}

/** The part that stores events and the one that queues them, whichever engines the server uses. */
export function partOf(state: Health | null | undefined, kind: "store" | "queue"): Part | undefined {
  return state?.parts[kind] ?? state?.parts[kind === "store" ? "mongodb" : "kafka"];
}

export async function loadMetrics(signal: AbortSignal): Promise<Scrape[]> {
  const response = await request("metrics", { signal }).catch((error: unknown) => {
    if (error instanceof Failure && error.kind === "forbidden") scrapes.set([]);
    throw error;
  });
  const metrics = new Metrics(await response.text());
  if (!metrics.has("ingest_received_total") && !metrics.has("worker_consumed_total")) {
    throw new Failure("failed", "The response is not the metrics of an eyego-log server.");
  }
  const next = [...scrapes.get(), { at: Date.now(), metrics }].slice(-SAMPLES - 1);
  scrapes.set(next);
  return next;
}

/** The rate of a counter between consecutive scrapes. A counter that falls belongs to a restarted process. */
export function rates(list: Scrape[], name: string): number[] {
  return list.slice(1).map((scrape, index) => {
    const before = list[index]!;
    const grown = scrape.metrics.sum(name) - before.metrics.sum(name);
    const elapsed = (scrape.at - before.at) / 1000;
    return grown < 0 || elapsed <= 0 ? 0 : grown / elapsed;
  });
}

export function gauges(list: Scrape[], name: string): number[] {
  return list.map((scrape) => scrape.metrics.sum(name));
}

export type { Scrape };
