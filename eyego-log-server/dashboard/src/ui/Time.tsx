// A time: relative to now, with the absolute time in both zones at hand.

import type { JSX } from "preact";
import { clock, dateTime, relative, zone, zoneLabel } from "../lib/time";
import { useStore } from "../lib/store";

export function Ago({ time }: { time: string | number }): JSX.Element {
  const now = useStore(clock);
  useStore(zone);
  const at = typeof time === "number" ? time : Date.parse(time);
  return <time dateTime={new Date(at).toISOString()} title={describeTime(at)}>{relative(at, now)}</time>;
}

/** The absolute time, in the chosen zone and in UTC. */
export function describeTime(time: string | number): string {
  const at = new Date(time);
  return `${dateTime(at.getTime())} (${zoneLabel()})\n${at.toISOString()}`;
}
