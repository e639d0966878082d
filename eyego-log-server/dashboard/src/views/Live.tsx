// Live: events as they are stored.

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { type Event, EVENT, selection } from "../lib/events";
import { count, rate } from "../lib/format";
import { parseJson } from "../lib/json";
import { useKeys } from "../lib/keys";
import { health, partOf } from "../lib/pipeline";
import { address, navigate, parseFilters } from "../lib/route";
import { follow, type Message, skippedCount, type TailState } from "../lib/sse";
import { fits } from "../lib/shape";
import { useStore } from "../lib/store";
import { EventDrawer, filtered } from "../ui/EventDrawer";
import { EventTable } from "../ui/EventTable";
import { Failed } from "../ui/Failed";
import { FilterBar } from "../ui/FilterBar";
import { Icon } from "../ui/icons";
import { Spark } from "../ui/Spark";
import { Text } from "../ui/Text";

/** Rows that are kept. The list shows the latest; Explore has all. */
const KEPT = 200;
const SECONDS = 60;

interface Shown {
  events: Event[];
  received: number;
  waiting: number;
  skipped: number;
  perSecond: number[];
}

const NOTHING: Shown = { events: [], received: 0, waiting: 0, skipped: 0, perSecond: [] };

export function Live({ params }: { params: URLSearchParams }): JSX.Element {
  const filters = parseFilters(params);
  const query = selection(filters).toString();
  const [shown, setShown] = useState<Shown>(NOTHING);
  const [state, setState] = useState<TailState>({ kind: "connecting" });
  const [isPaused, setPaused] = useState(false);
  const [attempt, setAttempt] = useState(0);
  const [opened, setOpened] = useState<Event | null>(null);
  const paused = useRef(false);
  paused.current = isPaused;
  const flush = useRef<() => void>(() => undefined);

  useEffect(() => {
    const controller = new AbortController();
    // Only the latest messages are parsed; a fast tail is drawn at most five times a second.
    let queue: Message[] = [];
    let received = 0;
    let skipped = 0;
    let inSecond = 0;
    let waiting = 0;
    let perSecond: number[] = [];
    // The stored events at the beginning are no rate.
    let countsFrom = Infinity;
    setShown(NOTHING);
    const onMessage = (message: Message): void => {
      if (message.event === "skipped") {
        skipped += skippedCount(message.data);
        return;
      }
      if (message.event !== "log") return;
      received += 1;
      if (Date.now() >= countsFrom) inSecond += 1;
      waiting += 1;
      queue.push(message);
      if (queue.length > 2 * KEPT) queue = queue.slice(-KEPT);
    };
    const draw = (isForced: boolean): void => {
      const isHeld = paused.current && !isForced;
      const added = isHeld ? [] : queue.slice(-KEPT).reverse().flatMap(parse);
      if (!isHeld) {
        queue = [];
        waiting = 0;
      }
      setShown((old) => ({
        events: added.length === 0 ? old.events : unique([...added, ...old.events]).slice(0, KEPT),
        received, skipped, perSecond, waiting,
      }));
    };
    const onState = (next: TailState): void => {
      if (next.kind === "open") countsFrom = Math.min(countsFrom, Date.now() + 1000);
      if (next.kind === "stopped") {
        queue = [];
        setShown(NOTHING);
        setOpened(null);
      }
      setState(next);
    };
    flush.current = () => draw(true);
    const drawing = setInterval(() => draw(false), 200);
    const counting = setInterval(() => {
      if (Date.now() >= countsFrom) perSecond = [...perSecond, inSecond].slice(-SECONDS);
      inSecond = 0;
    }, 1000);
    void follow(new URLSearchParams(query), 50, { onMessage, onState }, controller.signal);
    return () => {
      controller.abort();
      clearInterval(drawing);
      clearInterval(counting);
    };
  }, [query, attempt]);

  const toggle = (): void => {
    if (isPaused) flush.current();
    setPaused(!isPaused);
  };
  const clear = (): void => setShown((old) => ({ ...old, events: [] }));
  useKeys({ p: toggle, "/": () => document.getElementById("filter")?.focus() });

  const recent = shown.perSecond.slice(-10);
  const current = recent.length === 0 ? 0 : recent.reduce((sum, value) => sum + value, 0) / recent.length;
  const retry = (): void => setAttempt(attempt + 1);
  return (
    <div class={`view ${opened ? "has-drawer" : ""}`}>
      <h1 class="sr">Live</h1>
      <div class="toolbar">
        <FilterBar params={params} actions={[...new Set(shown.events.map(({ action }) => action))]} onChange={(next) => navigate("live", next)} />
        <div class="toolbar-end">
          <button type="button" class={isPaused ? "primary" : ""} aria-pressed={isPaused} title="p" onClick={toggle}>
            <Icon name={isPaused ? "play" : "pause"} /> <span>{isPaused ? "Resume" : "Pause"}</span>
          </button>
          <button type="button" onClick={clear}>Clear</button>
        </div>
      </div>
      {state.kind === "stopped"
        ? <section class="panel"><Failed failure={state.failure} route="GET /api/v1/logs/tail" onRetry={retry} /></section>
        : (
          <>
            <section class="panel live-bar" aria-label="Connection">
              <Connection state={state} isPaused={isPaused} />
              <div class="live-rate"><b class="num">{rate(current)}</b> <span class="muted">events/s</span></div>
              <Spark values={shown.perSecond} slots={SECONDS} />
              <div class="muted num">{count(shown.received)} received</div>
              {shown.skipped > 0 && <div class="skipped" role="status"><Icon name="warn" /> {count(shown.skipped)} skipped: more arrives than this page can take</div>}
              {isPaused && shown.waiting > 0 && <button type="button" class="link" onClick={toggle}>{count(shown.waiting)} new</button>}
            </section>
            <div class="split">
              <section class="panel rows" aria-label="Events">
                {shown.events.length === 0
                  ? <div class="state" role="status"><h2>Waiting for events</h2><p>An event appears here as soon as it is stored{filters.length > 0 ? " and matches the filters" : ""}. Earlier ones are in <a href={address("explore")}>Explore</a>.</p></div>
                  : <EventTable events={shown.events} hasDates={false} selected={opened?.id ?? null} onOpen={setOpened} caption="Events in the order in which they were stored, the latest first" />}
              </section>
              {opened && <EventDrawer event={opened} onFilter={(filter) => navigate("live", filtered(params, filter))} onClose={() => setOpened(null)} />}
            </div>
          </>
        )}
    </div>
  );
}

function Connection({ state, isPaused }: { state: TailState; isPaused: boolean }): JSX.Element {
  const store = partOf(useStore(health), "store");
  if (state.kind === "waiting") return <Waiting state={state} />;
  if (state.kind === "connecting") return <div class="connection" role="status"><span class="health" /> Connecting…</div>;
  const isStoring = store?.state !== "down";
  const text = isStoring ? (isPaused ? "Paused" : "Connected") : `${isPaused ? "Paused" : "Connected"}, but the store is down: events appear once it is back.`;
  return <div class="connection" role="status"><span class={`health ${isPaused || !isStoring ? "health-warning" : "health-up"}`} /> {text}</div>;
}

function Waiting({ state }: { state: Extract<TailState, { kind: "waiting" }> }): JSX.Element {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 250);
    return () => clearInterval(timer);
  }, []);
  const left = Math.max(1, Math.ceil((state.until - now) / 1000));
  return (
    <div class="connection">
      <span class="health health-warning" />
      <span role="status">Reconnecting: <Text text={state.message} /></span>
      <span class="muted num">Next attempt in {left} s</span>
      <button type="button" onClick={state.retry}>Reconnect now</button>
    </div>
  );
}

function parse(message: Message): Event[] {
  try {
    const event = parseJson(message.data);
    return fits(event, EVENT) ? [event as unknown as Event] : [];
  } catch {
    return [];
  }
}

function unique(events: Event[]): Event[] {
  const seen = new Set<string>();
  return events.filter(({ id }) => !seen.has(id) && seen.add(id));
}
