// One event in full, and the questions that usually follow.

import type { JSX } from "preact";
import type { Event } from "../lib/events";
import { exact, type Json, printJson } from "../lib/json";
import { address, type Filter, withFilter, withRange } from "../lib/route";
import { useStore } from "../lib/store";
import { clock, dateTime, relative, zone, zoneLabel, zoneName } from "../lib/time";
import { Copy } from "./Copy";
import { Drawer } from "./Drawer";
import { JsonView } from "./JsonView";

interface Props {
  event: Event;
  onFilter: (filter: Filter) => void;
  onClose: () => void;
}

const MINUTES = 5 * 60_000;

export function EventDrawer({ event, onFilter, onClose }: Props): JSX.Element {
  const now = useStore(clock);
  useStore(zone);
  const time = Date.parse(event.timestamp);
  const user = new URLSearchParams({ userId: event.userId });
  const before = withRange(user, { kind: "span", from: null, to: time + 1 });
  const around = withRange(new URLSearchParams(), { kind: "span", from: time - MINUTES, to: time + MINUTES });
  const link = (): string => {
    const params = withRange(new URLSearchParams({ event: event.id }), { kind: "span", from: time - MINUTES, to: time + MINUTES });
    return new URL(address("explore", params), location.href).href;
  };
  return (
    <Drawer label="Event" title={exact(event.action)} onClose={onClose}>
      <dl class="facts">
        <dt>User</dt>
        <dd dir="auto">{exact(event.userId)}</dd>
        <dt>Time</dt>
        <dd>
          <div class="num">{dateTime(time)} <span class="muted">{relative(time, now)}</span></div>
          <div class="hint">{zoneLabel()}</div>
        </dd>
        {zoneName() !== "UTC" && <><dt>UTC</dt><dd class="num">{event.timestamp}</dd></>}
        <dt>Id</dt>
        <dd class="with-button"><code>{event.id}</code><Copy text={() => event.id} label="Copy the id" isIconOnly /></dd>
      </dl>
      <div class="actions actions-start">
        <button type="button" onClick={() => onFilter({ name: "userId", value: event.userId })}>Same user</button>
        <button type="button" onClick={() => onFilter({ name: "action", value: event.action })}>Same action</button>
        <a class="button" href={address("explore", before)} title="What this user did before">Before this</a>
        <a class="button" href={address("explore", around)} title="Everything within 5 minutes">± 5 min</a>
      </div>
      <h3>Metadata</h3>
      <JsonView value={event.metadata} onFilter={onFilter} />
      <div class="actions actions-start">
        <Copy text={() => printJson(event as unknown as Json, 2)} label="Copy JSON" />
        <Copy text={link} label="Copy link" />
      </div>
    </Drawer>
  );
}

/** Adds a filter to the parameters of a view and leaves its open event. */
export function filtered(params: URLSearchParams, filter: Filter): URLSearchParams {
  const next = withFilter(params, filter);
  next.delete("event");
  return next;
}
