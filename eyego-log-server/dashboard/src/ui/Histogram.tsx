// Events over time, stacked. Dragging selects a time range.

import type { JSX } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import { count, plural, short } from "../lib/format";
import { exact } from "../lib/json";
import type { Histogram as Data } from "../lib/series";
import { useStore } from "../lib/store";
import { theme } from "../lib/theme";
import { dateTime, needsYear, shortDay, TICK_STEPS, ticks, timeOfDay, zone } from "../lib/time";

const HEIGHT = 148;

interface Props {
  data: Data;
  from: number;
  to: number;
  otherLabel: string;
  onBrush: (from: number, to: number) => void;
}

interface Hover {
  index: number;
  left: number;
}

export function Histogram({ data: latestData, from: latestFrom, to: latestTo, otherLabel, onBrush }: Props): JSX.Element {
  const host = useRef<HTMLDivElement>(null);
  const brush = useRef(onBrush);
  brush.current = onBrush;
  const [hover, setHover] = useState<Hover | null>(null);
  const mode = useStore(theme);
  const zoneMode = useStore(zone);
  const [isDragging, setDragging] = useState(false);

  // A new plot during a drag would end it, or select another range: the drag ends first.
  const latest = useMemo(() => ({ data: latestData, from: latestFrom, to: latestTo }), [latestData, latestFrom, latestTo, mode, zoneMode]);
  const shown = useRef(latest);
  if (!isDragging) shown.current = latest;
  const { data, from, to } = shown.current;
  const hasYear = needsYear(from, to, Date.now());

  useEffect(() => {
    const end = (): void => setDragging(false);
    // The plot has handled the end of the drag when the event reaches the window.
    addEventListener("mouseup", end);
    return () => removeEventListener("mouseup", end);
  }, []);

  useEffect(() => {
    const element = host.current!;
    setHover(null);
    const plot = new uPlot(
      options(element, data, from, to, hasYear, setHover, (a, b) => brush.current(a, b)),
      stack(data),
      element,
    );
    const observer = new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height: HEIGHT }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      plot.destroy();
    };
  }, [shown.current]);

  const total = data.totals.reduce((sum, value) => sum + value, 0);
  return (
    <div class="histogram">
      <div
        ref={host}
        role="img"
        aria-label={`${plural(total, "event")} from ${dateTime(from, "second")} to ${dateTime(to, "second")}`}
        onMouseDown={({ button }) => button === 0 && setDragging(true)}
      />
      {hover && <Tooltip data={data} hover={hover} hasYear={hasYear} otherLabel={otherLabel} />}
    </div>
  );
}

function Tooltip({ data, hover, hasYear, otherLabel }: { data: Data; hover: Hover; hasYear: boolean; otherLabel: string }): JSX.Element {
  const start = data.starts[hover.index]! * 1000;
  const date = shortDay(start, hasYear);
  const isRight = hover.left > 0.6;
  return (
    <div class={`tooltip ${isRight ? "tooltip-right" : ""}`} style={{ [isRight ? "right" : "left"]: `${(isRight ? 1 - hover.left : hover.left) * 100}%` }}>
      <div class="tooltip-head">
        <span>{data.step >= 86400 ? date : `${date} ${timeOfDay(start, "minute")}`}</span>
        <b>{count(data.totals[hover.index]!)}</b>
      </div>
      {data.series.filter((one) => one.counts[hover.index]! > 0).map((one) => (
        <div key={one.value ?? ""}>
          <span class={`dot series-${one.colour}`} />
          <span class="tooltip-name">{one.value === null ? otherLabel : exact(one.value)}</span>
          <span>{count(one.counts[hover.index]!)}</span>
        </div>
      ))}
    </div>
  );
}

/** Cumulative values; the top of the stack is drawn first and covered by what is below it. */
function stack(data: Data): uPlot.AlignedData {
  const sums: number[][] = [];
  for (const one of data.series) {
    const below = sums.at(-1);
    sums.push(one.counts.map((value, index) => value + (below?.[index] ?? 0)));
  }
  if (sums.length === 0) sums.push(data.totals);
  return [data.starts, ...sums.reverse()] as uPlot.AlignedData;
}

function options(
  element: HTMLElement,
  data: Data,
  from: number,
  to: number,
  hasYear: boolean,
  setHover: (hover: Hover | null) => void,
  onBrush: (from: number, to: number) => void,
): uPlot.Options {
  const style = getComputedStyle(element);
  const colour = (name: string): string => style.getPropertyValue(name).trim();
  const axis = { stroke: colour("--muted"), font: `11px ${style.fontFamily}`, ticks: { show: false } };
  const bars = uPlot.paths.bars!({ size: [0.86, 64], align: 1 });
  const colours = data.series.length === 0 ? [0] : data.series.map((one) => one.colour).reverse();
  const series = colours.map((index) => ({ fill: colour(`--series-${index}`), paths: bars, points: { show: false } }));
  return {
    width: element.clientWidth,
    height: HEIGHT,
    // The last label of the time axis is centred on the right edge.
    padding: [8, 18, 0, 0],
    legend: { show: false },
    cursor: { y: false, points: { show: false }, drag: { x: true, y: false, setScale: false } },
    scales: {
      x: { time: true, range: () => [from / 1000, to / 1000] },
      y: { range: (_plot, _min, max) => [0, Math.max(1, max * 1.05)] },
    },
    axes: [
      {
        ...axis,
        grid: { show: false },
        size: 26,
        space: hasYear ? 84 : 72,
        incrs: TICK_STEPS,
        // The plot itself would add equal distances, and miss midnight after the clocks have changed.
        splits: (_plot, _axis, min, max, step) => ticks(min * 1000, max * 1000, step).map((time) => time / 1000),
        values: (_plot, splits, _axis, _space, step) => labels(splits, step, hasYear),
      },
      {
        ...axis,
        grid: { stroke: colour("--line"), width: 1 },
        size: 48,
        splits: (_plot, _axis, _min, max) => countTicks(max),
        values: (_plot, splits) => splits.map(short),
      },
    ],
    series: [{}, ...series],
    hooks: {
      setSelect: [
        (plot) => {
          const { left, width } = plot.select;
          if (width >= 4) onBrush(plot.posToVal(left, "x") * 1000, plot.posToVal(left + width, "x") * 1000);
        },
      ],
      setCursor: [
        (plot) => {
          const x = plot.cursor.left ?? -1;
          if (x < 0) return setHover(null);
          const at = plot.posToVal(x, "x");
          const index = lastAtOrBefore(data.starts, at);
          if (index < 0 || at >= data.starts[index]! + data.step || data.totals[index] === 0) return setHover(null);
          const offset = plot.bbox.left / devicePixelRatio;
          setHover({ index, left: (offset + x) / element.clientWidth });
        },
      ],
    },
  };
}

/** Three to five round numbers from 0 to `max`. */
function countTicks(max: number): number[] {
  const power = 10 ** Math.floor(Math.log10(Math.max(max, 5) / 5));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => max / one < 5) ?? 1;
  return Array.from({ length: Math.floor(max / step) + 1 }, (_, index) => index * step);
}

function labels(splits: number[], step: number, hasYear: boolean): string[] {
  return splits.map((split) => {
    const time = split * 1000;
    const isMidnight = timeOfDay(time, "second") === "00:00:00";
    return step >= 86400 || isMidnight ? shortDay(time, hasYear) : timeOfDay(time, step < 60 ? "second" : "minute");
  });
}

function lastAtOrBefore(starts: number[], at: number): number {
  let index = starts.length - 1;
  while (index >= 0 && starts[index]! > at) index -= 1;
  return index;
}
