// Explore: what happened, when, by whom.

import type { JSX } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { Failure } from "../lib/api";
import { type Event, getEvent, isEventId, selection } from "../lib/events";
import { loadOverview, loadRows, resolve } from "../lib/explore";
import { scalarPaths } from "../lib/json";
import { useKeys } from "../lib/keys";
import { useLoad } from "../lib/load";
import { usePages } from "../lib/pages";
import { address, navigate, parseFilters, parseRange, type Range, withFilter, withRange } from "../lib/route";
import { useStore } from "../lib/store";
import { day, zone } from "../lib/time";
import { Empty } from "../ui/Empty";
import { EventDrawer, filtered } from "../ui/EventDrawer";
import { EventTable } from "../ui/EventTable";
import { ExportMenu } from "../ui/ExportMenu";
import { Failed, Stale } from "../ui/Failed";
import { FilterBar } from "../ui/FilterBar";
import { Icon } from "../ui/icons";
import { Overview } from "../ui/Overview";
import { Pager } from "../ui/Pager";
import { RangePicker } from "../ui/RangePicker";
import { Skeleton } from "../ui/Skeleton";
import { Ago } from "../ui/Time";

const REFRESH = 10_000;
const NOT_FOUND = "The event of this address cannot be found. It does not exist, or it has been deleted.";

export function Explore({ params }: { params: URLSearchParams }): JSX.Element {
  const range = parseRange(params);
  const filters = parseFilters(params);
  const by = params.get("by") ?? "action";
  const question = `${selection(filters)}|${JSON.stringify(range)}`;

  const pages = usePages(question);
  const { cursor } = pages;
  const [isAuto, setAuto] = useState(true);
  const isRelative = range.kind !== "span" || range.to === null;
  const interval = isAuto && isRelative && cursor === null ? REFRESH : null;

  // Older pages keep the range of the first one.
  const span = useRef(resolve(range, Date.now()));
  const rows = useLoad(`${question}|${cursor}`, (signal) => {
    if (cursor === null) span.current = resolve(range, Date.now());
    return loadRows(filters, span.current, cursor, signal);
  }, { interval, group: question });
  const zoneMode = useStore(zone);
  const overview = useLoad(`${question}|${by}|${zoneMode}`, (signal) => loadOverview(filters, resolve(range, Date.now()), by, signal), { interval, group: question });

  const events = rows.data?.data ?? [];
  const [opened, setOpened] = useState<Event | null>(null);
  /** Why the event of the address is not shown. */
  const [missing, setMissing] = useState<{ id: string; message: string } | null>(null);
  const wanted = params.get("event");
  const denied = [rows.failure, overview.failure].find((failure) => failure?.kind === "forbidden") ?? null;
  const listed = wanted === null ? undefined : events.find(({ id }) => id === wanted);
  const isDenied = denied !== null;
  useEffect(() => {
    if (wanted === null || isDenied) return setOpened(null);
    if (opened?.id === wanted) return;
    if (listed) return setOpened(listed);
    const fail = (message: string): void => {
      setOpened(null);
      setMissing({ id: wanted, message });
    };
    if (!isEventId(wanted)) return fail(NOT_FOUND);
    const controller = new AbortController();
    getEvent(wanted, controller.signal).then(setOpened, (error: unknown) => {
      if (controller.signal.aborted) return;
      const isAbsent = error instanceof Failure && error.status === 404;
      fail(isAbsent ? NOT_FOUND : `The event of this address cannot be shown: ${error instanceof Failure ? error.message : String(error)}`);
    });
    return () => controller.abort();
  }, [wanted, isDenied]);
  useEffect(() => {
    if (listed && !isDenied && opened?.id !== listed.id) setOpened(listed);
  }, [rows.data]);

  const change = (next: URLSearchParams): void => navigate("explore", next);
  const set = (name: string, value: string | null): URLSearchParams => {
    const next = new URLSearchParams(params);
    if (value === null) next.delete(name);
    else next.set(name, value);
    return next;
  };
  const onRange = (next: Range): void => change(withRange(params, next));
  const open = (event: Event): void => {
    setOpened(event);
    navigate("explore", set("event", event.id), wanted !== null);
  };
  const next = rows.data?.nextCursor ?? null;
  const reload = (): void => {
    pages.first();
    rows.reload();
    overview.reload();
  };
  useKeys({
    r: reload,
    "/": () => document.getElementById("filter")?.focus(),
  });

  const actions = useMemo(() => [...new Set(events.map(({ action }) => action))].sort(), [rows.data]);
  const paths = useMemo(() => [...new Set(events.slice(0, 50).flatMap(({ metadata }) => scalarPaths(metadata)))].sort().slice(0, 100), [rows.data]);
  const fresh = useFresh(question, events);
  const firstDay = events.length > 0 ? day(Date.parse(events[0]!.timestamp)) : "";
  const hasDates = firstDay !== day(Date.now()) || events.some((event) => day(Date.parse(event.timestamp)) !== firstDay);
  const exportQuery = (): URLSearchParams => selection(filters, resolve(range, Date.now()));

  if (denied !== null) {
    return (
      <div class="view">
        <h1 class="sr">Explore</h1>
        <section class="panel"><Failed failure={denied} route="GET /api/v1/logs" onRetry={reload} /></section>
      </div>
    );
  }
  return (
    <div class={`view ${opened ? "has-drawer" : ""}`}>
      <h1 class="sr">Explore</h1>
      <div class="toolbar">
        <FilterBar params={params} actions={actions} paths={paths} onChange={change} />
        <div class="toolbar-end">
          <RangePicker range={range} onChange={onRange} />
          <button type="button" class="icon-button" title="Refresh (r)" aria-label="Refresh" onClick={reload}><Icon name="refresh" /></button>
          <ExportMenu query={exportQuery} />
        </div>
      </div>
      {overview.data === null && !overview.isLoading && overview.failure === null
        ? <p class="hint">Counts and histogram are not available on this server: it has no <code>GET /api/v1/stats</code>.</p>
        : overview.failure !== null && overview.data === null
          ? rows.failure === null && <Stale failure={overview.failure} onRetry={overview.reload} />
          : rows.data?.isStoreEmpty !== true && (rows.failure === null || rows.data !== null) && <Overview
              data={overview.data} isLoading={overview.isLoading} by={by} fields={paths}
              onBy={(value) => navigate("explore", set("by", value === "action" ? null : value), true)}
              onBrush={(from, to) => onRange({ kind: "span", from: Math.floor(from), to: Math.ceil(to) })}
              onFilter={(filter) => change(filtered(params, filter))}
            />}
      {missing !== null && missing.id === wanted && opened === null && (
        <div class="banner" role="alert">
          <Icon name="warn" />
          <span>{missing.message}</span>
          <button type="button" onClick={() => navigate("explore", set("event", null), true)}>Close</button>
        </div>
      )}
      {rows.failure && rows.data && <Stale failure={rows.failure} onRetry={rows.reload} />}
      <div class="split">
        <section class="panel rows" aria-label="Events" aria-busy={rows.isLoading}>
          {rows.failure && !rows.data
            ? <Failed failure={rows.failure} route="GET /api/v1/logs" onRetry={reload} />
            : rows.data === null
              ? <Skeleton rows={12} />
              : events.length === 0
                ? <Empty rows={rows.data} range={range} filters={filters} onRange={onRange} onClear={() => change(withRange(new URLSearchParams(), range))} />
                : <EventTable events={events} hasDates={hasDates} selected={opened?.id ?? null} onOpen={open} caption="Events, the latest first" fresh={fresh} />}
          {rows.data !== null && events.length > 0 && (
            <Pager pages={pages} next={next} isCurrent={rows.isCurrent} note={rows.updatedAt !== null && <> · updated <Ago time={rows.updatedAt} /></>}>
              {isRelative && cursor === null && (
                <label class="check muted"><input type="checkbox" checked={isAuto} onChange={() => setAuto(!isAuto)} /> refresh every 10 s</label>
              )}
              <a class="button" href={address("live", withoutRange(params))}>Watch live</a>
            </Pager>
          )}
        </section>
        {opened && (
          <EventDrawer event={opened} onFilter={(filter) => change(filtered(params, filter))} onClose={() => navigate("explore", set("event", null), true)} />
        )}
      </div>
    </div>
  );
}

function withoutRange(params: URLSearchParams): URLSearchParams {
  return parseFilters(params).reduce(withFilter, new URLSearchParams());
}

/** Ids that a refresh has added to the rows of the same question. */
function useFresh(question: string, events: Event[]): Set<string> {
  const before = useRef<{ question: string; ids: Set<string> }>({ question, ids: new Set() });
  const fresh = useRef(new Set<string>());
  useMemo(() => {
    const ids = new Set(events.map(({ id }) => id));
    const isSame = before.current.question === question && before.current.ids.size > 0;
    fresh.current = isSame ? new Set([...ids].filter((id) => !before.current.ids.has(id))) : new Set();
    // A page of entirely different rows is another page, not news.
    if (fresh.current.size === ids.size) fresh.current = new Set();
    before.current = { question, ids };
  }, [question, events]);
  return fresh.current;
}
