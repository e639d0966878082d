// A time: relative to now, with the absolute time in both zones at hand.

import type { JSX } from "preact";
import { clock, dateTime, relative, zone, zoneLabel } from "../lib/time";
import { useStore } from "../lib/store";

export function Ago({ time }: { time: string | number }): JSX.Element {
  const now = useStore(clock);
  useStore(zone);
  const at = typeof time === "number" ? time : Date.parse(time);
  const iso = new Date(at).toISOString();
  return <time dateTime={iso} title={`${dateTime(at)} (${zoneLabel()})\n${iso}`}>{relative(at, now)}</time>;
}
