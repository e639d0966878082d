// Events as a table. One row at a time is in the tab order; arrow keys move between rows.

import type { JSX } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Event } from "../lib/events";
import { summarize, visible } from "../lib/json";
import { useKeys } from "../lib/keys";
import { useStore } from "../lib/store";
import { dateTime, timeOfDay, zone } from "../lib/time";
import { Ago } from "./Time";

interface Props {
  events: Event[];
  /** Whether rows may be of different days. */
  hasDates: boolean;
  selected: string | null;
  onOpen: (event: Event) => void;
  caption: string;
  /** Ids that are shown as new. */
  fresh?: Set<string>;
}

export function EventTable({ events, hasDates, selected, onOpen, caption, fresh }: Props): JSX.Element {
  useStore(zone);
  const body = useRef<HTMLTableSectionElement>(null);
  const [current, setCurrent] = useState(0);
  const position = Math.min(current, Math.max(events.length - 1, 0));

  useLayoutEffect(() => {
    const index = events.findIndex(({ id }) => id === selected);
    if (index >= 0) setCurrent(index);
  }, [selected, events]);

  const move = (step: number): void => {
    const hasFocus = body.current?.contains(document.activeElement) === true;
    const next = hasFocus || selected !== null ? Math.max(0, Math.min(events.length - 1, position + step)) : position;
    const event = events[next];
    if (!event) return;
    setCurrent(next);
    if (selected !== null) onOpen(event);
    body.current?.querySelectorAll<HTMLElement>(".row-open")[next]?.focus();
  };
  useKeys({
    j: () => move(1),
    k: () => move(-1),
    ArrowDown: () => move(1),
    ArrowUp: () => move(-1),
  });

  return (
    <table class={`events ${hasDates ? "has-dates" : ""}`}>
      <caption class="sr">{caption}</caption>
      <thead>
        <tr>
          <th scope="col" class="col-time">Time</th>
          <th scope="col" class="col-ago"><span class="sr">Age</span></th>
          <th scope="col" class="col-action">Action</th>
          <th scope="col" class="col-user">User</th>
          <th scope="col" class="col-meta">Metadata</th>
        </tr>
      </thead>
      <tbody ref={body}>
        {events.map((event, index) => (
          <tr key={event.id} class={fresh?.has(event.id) ? "fresh" : ""} aria-current={event.id === selected ? "true" : undefined}>
            <td class="col-time">
              <button type="button" class="row-open" tabIndex={index === position ? 0 : -1} onFocus={() => setCurrent(index)} onClick={() => onOpen(event)}>
                <span class="sr">Open </span>
                {hasDates ? dateTime(Date.parse(event.timestamp), "second") : timeOfDay(Date.parse(event.timestamp))}
              </button>
            </td>
            <td class="col-ago"><Ago time={event.timestamp} /></td>
            <td class="col-action" dir="auto">{visible(event.action)}</td>
            <td class="col-user" dir="auto">{visible(event.userId)}</td>
            <td class="col-meta">
              {summarize(event.metadata).map(([key, value], position) => (
                <span key={position} class="pair"><span class="pair-key">{key}</span> <bdi>{value}</bdi></span>
              ))}
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
