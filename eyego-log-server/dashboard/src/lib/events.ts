// The reading routes: events, statistics, dead letters, erasures.

import { getJson, type RequestOptions } from "./api";
import type { Json } from "./json";
import type { Filter } from "./route";

export interface Event {
  id: string;
  userId: string;
  action: string;
  timestamp: string;
  metadata: Json;
}

export interface Page<T> {
  data: T[];
  nextCursor?: string | null;
}

export interface Bucket {
  start: string;
  count: number;
  by?: Record<string, number>;
}

export interface Stats {
  total: number;
  users: number;
  approximate: boolean;
  interval: string;
  buckets: Bucket[];
  top?: { value: Json; count: number; users?: number }[];
}

export interface DeadLetter {
  id: string;
  code: string;
  message: string;
  attempts: number;
  userId: string | null;
  topic: string;
  partition: number;
  offset: number;
  queuedAt: string;
  failedAt: string;
  cutFrom?: number;
  raw?: string;
  rawBase64?: string;
}

export interface Replayed {
  replayed: number;
  failed: number;
  remaining: number;
}

export interface Erasure {
  id: string;
  userId: string;
  requestedAt: string;
  state: string;
  completedAt?: string | null;
  [name: string]: Json | undefined;
}

/** A resolved time range: milliseconds, half-open. */
export interface Span {
  from: number | null;
  to: number | null;
}

export function selection(filters: Filter[], span?: Span): URLSearchParams {
  const query = new URLSearchParams(filters.map(({ name, value }) => [name, value]));
  if (span && span.from !== null) query.set("from", new Date(span.from).toISOString());
  if (span && span.to !== null) query.set("to", new Date(span.to).toISOString());
  return query;
}

/** The fields that the pages read of each event, dead letter and erasure. */
export const EVENT = { id: "string", userId: "string", action: "string", timestamp: "time" } as const;
const DEAD_LETTER = { id: "string", code: "string", message: "string", attempts: "number", queuedAt: "time", failedAt: "time" } as const;
const ERASURE = { id: "string", userId: "string", state: "string", requestedAt: "time" } as const;
const STATS = { total: "number", users: "number", interval: "string", buckets: [{ start: "time", count: "number" }] } as const;

export function listEvents(query: URLSearchParams, signal?: AbortSignal): Promise<Page<Event>> {
  return getJson("api/v1/logs", { data: [EVENT] }, options(query, signal));
}

/** Whether a text has the form of an id, and is not the name of another route below `logs`. */
export function isEventId(text: string): boolean {
  return /^[0-9a-f]{24}$/i.test(text);
}

export async function getEvent(id: string, signal?: AbortSignal): Promise<Event> {
  const path = `api/v1/logs/${encodeURIComponent(id)}`;
  const found = await getJson<{ data: Event }>(path, { data: EVENT }, options(undefined, signal));
  return found.data;
}

export async function getStats(query: URLSearchParams, signal?: AbortSignal): Promise<Stats> {
  return (await getJson<{ data: Stats }>("api/v1/stats", { data: STATS }, options(query, signal))).data;
}

export function listDeadLetters(query: URLSearchParams, signal?: AbortSignal): Promise<Page<DeadLetter>> {
  return getJson("api/v1/dead-letters", { data: [DEAD_LETTER] }, options(query, signal));
}

export async function getDeadLetter(id: string, signal?: AbortSignal): Promise<DeadLetter> {
  const path = `api/v1/dead-letters/${encodeURIComponent(id)}`;
  return (await getJson<{ data: DeadLetter }>(path, { data: DEAD_LETTER }, options(undefined, signal))).data;
}

/** One call processes up to 10,000 dead letters or 20 s. */
export function replay(which: Record<string, string | boolean>, signal?: AbortSignal): Promise<Replayed> {
  const shape = { replayed: "number", failed: "number", remaining: "number" } as const;
  return getJson("api/v1/dead-letters/replay", shape, { ...options(undefined, signal), method: "POST", body: which, timeout: 60_000 });
}

export function listErasures(query: URLSearchParams, signal?: AbortSignal): Promise<Page<Erasure>> {
  return getJson("api/v1/erasures", { data: [ERASURE] }, options(query, signal));
}

export async function eraseUser(userId: string): Promise<Erasure> {
  const path = `api/v1/users/${encodeURIComponent(userId)}/logs`;
  return (await getJson<{ data: Erasure }>(path, { data: ERASURE }, { method: "DELETE" })).data;
}

function options(query?: URLSearchParams, signal?: AbortSignal): RequestOptions {
  return { ...(query ? { query } : {}), ...(signal ? { signal } : {}) };
}
