// What Explore asks the server.

import { Failure } from "./api";
import { type Event, getStats, listEvents, type Page, selection, type Span, type Stats } from "./events";
import type { Filter, Range } from "./route";
import { type Histogram, toHistogram } from "./series";
import { zoneName } from "./time";

export const PAGE_SIZE = 50;

/** Fixes a range that is relative to now. Its end stays open, so that late and future events are shown. */
export function resolve(range: Range, now: number): Span {
  switch (range.kind) {
    case "all": return { from: null, to: null };
    case "last": return { from: now - range.millis, to: null };
    case "span": return { from: range.from, to: range.to };
  }
}

export function eventsQuery(filters: Filter[], span: Span, cursor: string | null): URLSearchParams {
  const query = selection(filters, span);
  query.set("limit", String(PAGE_SIZE));
  if (cursor !== null) query.set("cursor", cursor);
  return query;
}

export interface Overview {
  /** What the series are grouped by. */
  by: string;
  stats: Stats;
  histogram: Histogram;
  from: number;
  to: number;
}

/** The statistics of a view, or `null` if this server has none. */
export async function loadOverview(filters: Filter[], span: Span, by: string, signal: AbortSignal): Promise<Overview | null> {
  try {
    const to = span.to ?? (await openEnd(filters, signal));
    const from = span.from ?? (await outermostTime(filters, { from: null, to: null }, "asc", signal)) ?? to - 3_600_000;
    const query = selection(filters, { from, to: Math.max(to, from + 1) });
    query.set("interval", "auto");
    query.set("tz", zoneName());
    query.set("by", by);
    query.set("top", "6");
    const stats = await getStats(query, signal);
    return { by, stats, histogram: toHistogram(stats, from, to), from, to };
  } catch (error) {
    if (error instanceof Failure && (error.kind === "unavailable" || error.kind === "unsupported")) return null;
    throw error;
  }
}

/** Now, or after the latest event if that is later: the events may be ahead of the clock of the browser. */
async function openEnd(filters: Filter[], signal: AbortSignal): Promise<number> {
  const now = Date.now();
  const latest = await outermostTime(filters, { from: now, to: null }, "desc", signal);
  return latest === null ? now : latest + 1;
}

async function outermostTime(filters: Filter[], span: Span, order: "asc" | "desc", signal: AbortSignal): Promise<number | null> {
  const query = selection(filters, span);
  query.set("limit", "1");
  query.set("order", order);
  const event = (await listEvents(query, signal)).data[0];
  return event ? Date.parse(event.timestamp) : null;
}

export interface Rows extends Page<Event> {
  /** If there are none: the latest event of these filters at any time, and of no filter at all. */
  latest?: Event | null;
  isStoreEmpty?: boolean;
}

export async function loadRows(filters: Filter[], span: Span, cursor: string | null, signal: AbortSignal): Promise<Rows> {
  const page = await listEvents(eventsQuery(filters, span, cursor), signal);
  if (page.data.length > 0 || cursor !== null) return page;
  const newest = async (of: Filter[]): Promise<Event | null> => {
    const query = selection(of);
    query.set("limit", "1");
    return (await listEvents(query, signal)).data[0] ?? null;
  };
  const latest = await newest(filters);
  const isStoreEmpty = latest === null && (filters.length === 0 || (await newest([])) === null);
  return { ...page, latest, isStoreEmpty };
}
