// Times as people read them: absolute in the chosen zone, and relative to now.

import { createSetting, createStore } from "./store";

export const zone = createSetting("zone", ["local", "utc"] as const);

/** The time in steps of some seconds, for relative times. */
export const clock = createStore(Date.now());
setInterval(() => clock.set(Date.now()), 5_000);

/** The IANA name of the chosen zone, which both the browser and the server accept. */
export function zoneName(): string {
  if (zone.get() === "utc") return "UTC";
  return ianaName(Intl.DateTimeFormat().resolvedOptions().timeZone);
}

const names = new Map<string | undefined, string>();

/**
 * Returns the IANA name of a zone that the browser reports. A browser may report an offset, such as `+03:00`, or a
 * zone that it does not know itself. The result is then a zone of the same offset, or UTC if there is none.
 */
export function ianaName(reported: string | undefined): string {
  let name = names.get(reported);
  if (name === undefined) {
    const [, sign, hours, minutes] = /^([+-])(\d\d):(\d\d)$/.exec(reported ?? "") ?? [];
    // The sign in these names is inverted: `Etc/GMT-3` is three hours ahead of UTC.
    const offset = minutes === "00" && Number(hours) > 0 ? `Etc/GMT${sign === "+" ? "-" : "+"}${Number(hours)}` : "UTC";
    name = sign === undefined ? reported || "UTC" : offset;
    if (!isKnown(name)) name = "UTC";
    names.set(reported, name);
  }
  return name;
}

function isKnown(name: string): boolean {
  try {
    new Intl.DateTimeFormat("en", { timeZone: name });
    return true;
  } catch {
    return false;
  }
}

/** The chosen zone with its offset, such as `Europe/Berlin, UTC+1`. */
export function zoneLabel(): string {
  const name = zoneName();
  if (name === "UTC") return "UTC";
  const parts = new Intl.DateTimeFormat("en", { timeZone: name, timeZoneName: "shortOffset" }).formatToParts();
  const offset = parts.find((part) => part.type === "timeZoneName")?.value.replace("GMT", "UTC") ?? "";
  return `${name.replaceAll("_", " ")}, ${offset}`;
}

export interface Fields {
  year: string;
  month: string;
  day: string;
  hour: string;
  minute: string;
  second: string;
  millis: string;
}

const DAY = 86_400_000;

const formatters = new Map<string, Intl.DateTimeFormat>();

/** Returns the fields of a time in the chosen zone. */
export function fields(time: number): Fields {
  const name = zoneName();
  let formatter = formatters.get(name);
  if (!formatter) {
    formatter = new Intl.DateTimeFormat("en-GB", {
      timeZone: name,
      hourCycle: "h23",
      year: "numeric",
      month: "2-digit",
      day: "2-digit",
      hour: "2-digit",
      minute: "2-digit",
      second: "2-digit",
    });
    formatters.set(name, formatter);
  }
  const parts = Object.fromEntries(formatter.formatToParts(time).map((part) => [part.type, part.value]));
  const millis = String(((time % 1000) + 1000) % 1000).padStart(3, "0");
  const get = (type: string): string => parts[type] ?? "";
  return {
    year: get("year"),
    month: get("month"),
    day: get("day"),
    hour: get("hour"),
    minute: get("minute"),
    second: get("second"),
    millis,
  };
}

/** The time on the clocks of the chosen zone, as if it were in UTC. */
function wallTime(time: number): number {
  const f = fields(time);
  return Date.UTC(Number(f.year), Number(f.month) - 1, Number(f.day), Number(f.hour), Number(f.minute), Number(f.second));
}

/** The first time at which the clocks of the chosen zone show `wall`, or the time at which they skip it. */
function fromWallTime(wall: number): number {
  const offsetAt = (time: number): number => wallTime(time) - Math.floor(time / 1000) * 1000;
  const candidates = [wall - offsetAt(wall - DAY), wall - offsetAt(wall + DAY)];
  return candidates.find((time) => wallTime(time) === wall) ?? Math.max(...candidates);
}

/** Distances in seconds at which a calendar puts its ticks. From 30 days on they mean months and years. */
export const TICK_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, ...[1, 2, 3, 7, 14, 30, 91, 182, 365, 730, 1825, 3650, 7300, 18250, 36500].map((days) => days * 86_400)];

/** Returns the times from `from` to `to` at which the clocks of the chosen zone show a multiple of `step` seconds. */
export function ticks(from: number, to: number, step: number): number[] {
  const found: number[] = [];
  const add = (wall: number): void => {
    const time = fromWallTime(wall);
    if (time >= from && time <= to && time !== found.at(-1)) found.push(time);
  };
  const [first, end] = [wallTime(from), wallTime(to) + DAY];
  const days = step / 86_400;
  if (days >= 30) {
    const months = Math.max(1, Math.round(days / 30.4));
    const start = new Date(first);
    for (let month = Math.floor((start.getUTCFullYear() * 12 + start.getUTCMonth()) / months) * months; ; month += months) {
      const wall = new Date(0).setUTCFullYear(Math.floor(month / 12), month % 12, 1);
      if (wall > end) return found;
      add(wall);
    }
  }
  const millis = step * 1000;
  for (let wall = Math.floor(first / millis) * millis; wall <= end; wall += millis) add(wall);
  return found;
}

export function day(time: number): string {
  const f = fields(time);
  return `${f.year}-${f.month}-${f.day}`;
}

export function timeOfDay(time: number, precision: "minute" | "second" | "millis" = "millis"): string {
  const f = fields(time);
  if (precision === "minute") return `${f.hour}:${f.minute}`;
  const text = `${f.hour}:${f.minute}:${f.second}`;
  return precision === "second" ? text : `${text}.${f.millis}`;
}

/** `2026-11-26 14:03:22.123` in the chosen zone. */
export function dateTime(time: number, precision: "minute" | "second" | "millis" = "millis"): string {
  return `${day(time)} ${timeOfDay(time, precision)}`;
}

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** `26 Nov` or `26 Nov 2026` in the chosen zone. */
export function shortDay(time: number, hasYear: boolean): string {
  const f = fields(time);
  const text = `${Number(f.day)} ${MONTHS[Number(f.month) - 1] ?? ""}`;
  return hasYear ? `${text} ${f.year}` : text;
}

/** Whether the days of a range need their year to be understood. */
export function needsYear(from: number, to: number, now: number): boolean {
  if (to - from > 300 * 86_400_000) return true;
  const { year } = fields(now);
  return fields(from).year !== year || fields(to).year !== year;
}

/** `3 min ago`, `in 2 h`. */
export function relative(time: number, now: number): string {
  const past = now - time;
  const distance = Math.abs(past);
  if (distance < 5_000) return "just now";
  const units: [number, string][] = [
    [86_400_000, "d"],
    [3_600_000, "h"],
    [60_000, "min"],
    [1_000, "s"],
  ];
  for (const [millis, name] of units) {
    if (distance >= millis) {
      const text = `${Math.floor(distance / millis)} ${name}`;
      return past >= 0 ? `${text} ago` : `in ${text}`;
    }
  }
  return "just now";
}

/** The value of a `datetime-local` input for a time, in the chosen zone. */
export function toInput(time: number): string {
  return `${day(time)}T${timeOfDay(time, "second")}`;
}

/** The time that a `datetime-local` input means in the chosen zone, or `null`. */
export function fromInput(text: string): number | null {
  if (text === "") return null;
  const time = Date.parse(zoneName() === "UTC" ? `${text}Z` : text);
  return Number.isNaN(time) ? null : time;
}
