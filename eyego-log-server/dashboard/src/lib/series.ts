// Turns statistics into the stacked series of the histogram.

import type { Stats } from "./events";
import { filterText } from "./json";

/** Number of colours; `--series-0` … in the style. Everything else is one grey series. */
export const COLOURS = 6;

export interface Series {
  /** The value of the grouped field, or `null` for everything outside the top. */
  value: string | null;
  colour: number;
  total: number;
  counts: number[];
}

export interface Histogram {
  /** Start of each bucket, in seconds. */
  starts: number[];
  /** Length of a bucket, in seconds. */
  step: number;
  totals: number[];
  series: Series[];
}

const STEPS: Record<string, number> = { "1m": 60, "5m": 300, "15m": 900, "1h": 3600, "1d": 86400 };

/** Buckets without events may be absent in the response; the histogram has all of them. */
export function toHistogram(stats: Stats, from: number, to: number): Histogram {
  const known = stats.buckets.map((bucket) => ({ ...bucket, at: Math.round(Date.parse(bucket.start) / 1000) }));
  known.sort((a, b) => a.at - b.at);
  const step = STEPS[stats.interval] ?? guessStep(known.map(({ at }) => at));
  const starts: number[] = [];
  // Days differ in length around a change of the clock: the start of each known bucket counts.
  let next = known[0]?.at ?? Math.floor(from / 1000 / step) * step;
  while (next - step >= from / 1000 - step && starts.length < 2000) next -= step;
  for (const { at } of known) {
    while (next < at - step / 2 && starts.length < 5000) {
      starts.push(next);
      next += step;
    }
    starts.push(at);
    next = at + step;
  }
  while (next < to / 1000 && starts.length < 5000) {
    starts.push(next);
    next += step;
  }
  const index = new Map(starts.map((start, position) => [start, position]));
  const totals = starts.map(() => 0);
  const top = (stats.top ?? []).slice(0, COLOURS);
  const series: Series[] = top.map(({ value, count }, colour) => ({
    value: filterText(value), colour, total: count, counts: starts.map(() => 0),
  }));
  const byValue = new Map(series.map((one) => [one.value, one]));
  const rest: Series = { value: null, colour: COLOURS, total: 0, counts: starts.map(() => 0) };
  for (const bucket of known) {
    const position = index.get(bucket.at) ?? 0;
    totals[position] = bucket.count;
    let left = bucket.count;
    for (const [value, count] of Object.entries(bucket.by ?? {})) {
      const one = byValue.get(value);
      if (!one) continue;
      one.counts[position] = count;
      left -= count;
    }
    rest.counts[position] = Math.max(left, 0);
    rest.total += Math.max(left, 0);
  }
  return { starts, step, totals, series: rest.total > 0 ? [...series, rest] : series };
}

function guessStep(starts: number[]): number {
  const gaps = starts.slice(1).map((start, index) => start - starts[index]!);
  return gaps.length > 0 ? Math.min(...gaps) : 3600;
}
