// Events as a table.

import type { JSX } from "preact";
import type { Event } from "../lib/events";
import { exact, summarize } from "../lib/json";
import { useRows } from "../lib/rows";
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
  const [body, button] = useRows(events, selected, onOpen);

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
              <button type="button" {...button(index)}>
                <span class="sr">Open </span>
                {hasDates ? dateTime(Date.parse(event.timestamp), "second") : timeOfDay(Date.parse(event.timestamp))}
                <span class="sr">, {exact(event.action)} of {exact(event.userId)}</span>
              </button>
            </td>
            <td class="col-ago"><Ago time={event.timestamp} /></td>
            <td class="col-action" dir="auto">{exact(event.action)}</td>
            <td class="col-user" dir="auto">{exact(event.userId)}</td>
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
