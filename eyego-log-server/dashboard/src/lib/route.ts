// The address of a view: `#/explore?last=1h&userId=u1`. It holds the view, the filters and the time range,
// never a key. The fragment is not sent to the server, so one page serves all views under any path prefix.

import { createStore } from "./store";

export const VIEWS = ["explore", "live", "dead-letters", "pipeline", "erasures"] as const;
export type View = (typeof VIEWS)[number];

export interface Route {
  view: View;
  params: URLSearchParams;
}

export interface Filter {
  name: string;
  value: string;
}

export type Range =
  | { kind: "last"; text: string; millis: number }
  | { kind: "span"; from: number | null; to: number | null }
  | { kind: "all" };

const UNITS: Record<string, number> = { m: 60_000, h: 3_600_000, d: 86_400_000 };

function parseRoute(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const view = VIEWS.find((name) => name === path) ?? "explore";
  return { view, params: new URLSearchParams(query) };
}

export const route = createStore<Route>(parseRoute(location.hash));

/** The last address of each view, so that a tab returns to what was shown there. */
const visited = new Map<View, string>();

function follow(): void {
  const next = parseRoute(location.hash);
  visited.set(next.view, location.hash);
  route.set(next);
}
addEventListener("hashchange", follow);
visited.set(route.get().view, location.hash || "#/explore");

export function address(view: View, params?: URLSearchParams): string {
  const query = params?.toString() ?? "";
  return query === "" ? `#/${view}` : `#/${view}?${query}`;
}

export function lastAddress(view: View): string {
  return visited.get(view) ?? address(view);
}

/** Shows a view. `replace` does not add an entry to the history. */
export function navigate(view: View, params: URLSearchParams, replace = false): void {
  const hash = address(view, params);
  if (hash === location.hash) return;
  if (replace) {
    history.replaceState(null, "", hash);
    follow();
  } else {
    location.hash = hash;
  }
}

export function parseFilters(params: URLSearchParams): Filter[] {
  // An empty user or action is no filter; an empty text in the metadata is.
  const isFilter = (name: string, value: string): boolean =>
    ((name === "userId" || name === "action") && value !== "") || name.startsWith("metadata.");
  return [...params].filter(([name, value]) => isFilter(name, value)).map(([name, value]) => ({ name, value }));
}

/** Returns the parameters with a filter, which replaces one of the same name: the server refuses repeated names. */
export function withFilter(params: URLSearchParams, filter: Filter): URLSearchParams {
  const next = new URLSearchParams(params);
  next.set(filter.name, filter.value);
  return next;
}

export function withoutFilter(params: URLSearchParams, filter: Filter): URLSearchParams {
  const pairs = [...params].filter(([name, value]) => name !== filter.name || value !== filter.value);
  return new URLSearchParams(pairs);
}

export function parseRange(params: URLSearchParams): Range {
  const last = params.get("last");
  if (last === "all") return { kind: "all" };
  const [, amount, unit] = /^(\d{1,4})([mhd])$/.exec(last ?? "") ?? [];
  if (last !== null && amount && unit) {
    return { kind: "last", text: last, millis: Number(amount) * UNITS[unit]! };
  }
  const time = (name: string): number | null => {
    const value = Date.parse(params.get(name) ?? "");
    return Number.isNaN(value) ? null : value;
  };
  const [from, to] = [time("from"), time("to")];
  if (from !== null || to !== null) return { kind: "span", from, to };
  return { kind: "last", text: "1h", millis: 3_600_000 };
}

export function withRange(params: URLSearchParams, range: Range): URLSearchParams {
  const next = new URLSearchParams(params);
  for (const name of ["last", "from", "to"]) next.delete(name);
  if (range.kind === "last") next.set("last", range.text);
  if (range.kind === "all") next.set("last", "all");
  if (range.kind === "span") {
    if (range.from !== null) next.set("from", new Date(range.from).toISOString());
    if (range.to !== null) next.set("to", new Date(range.to).toISOString());
  }
  return next;
}
