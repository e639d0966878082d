// The time range: the usual ones as buttons, any other as two fields.

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import type { Range } from "../lib/route";
import { useStore } from "../lib/store";
import { dateTime, fromInput, toInput, zone, zoneLabel } from "../lib/time";
import { Popover } from "./Popover";

const PRESETS: [string, string, number | null][] = [
  ["15m", "15 minutes", 900_000],
  ["1h", "hour", 3_600_000],
  ["24h", "24 hours", 86_400_000],
  ["7d", "7 days", 7 * 86_400_000],
  ["30d", "30 days", 30 * 86_400_000],
  ["all", "time", null],
];

interface Props {
  range: Range;
  onChange: (range: Range) => void;
}

export function RangePicker({ range, onChange }: Props): JSX.Element {
  const [isOpen, setOpen] = useState(false);
  useStore(zone);
  const current = range.kind === "last" ? range.text : range.kind;
  const choose = (text: string, millis: number | null): void => {
    setOpen(false);
    onChange(millis === null ? { kind: "all" } : { kind: "last", text, millis });
  };
  return (
    <div class="range">
      <div class="segments" role="group" aria-label="Time range">
        {PRESETS.map(([text, label, millis]) => (
          <button type="button" key={text} aria-pressed={current === text} title={millis === null ? "All time" : `Last ${label}`} onClick={() => choose(text, millis)}>
            {millis === null ? <>All<span class="sr"> time</span></> : <><span class="sr">Last </span>{text}</>}
          </button>
        ))}
        <button type="button" aria-pressed={current === "span"} aria-expanded={isOpen} onClick={() => setOpen(!isOpen)}>
          {range.kind === "last" && !PRESETS.some(([text]) => text === range.text) ? range.text : "Custom"}
        </button>
      </div>
      {isOpen && (
        <Popover label="Custom time range" class="range-custom" onClose={() => setOpen(false)}>
          <Custom range={range} onChange={onChange} onClose={() => setOpen(false)} />
        </Popover>
      )}
    </div>
  );
}

function Custom({ range, onChange, onClose }: Props & { onClose: () => void }): JSX.Element {
  const now = Date.now();
  const start = range.kind === "span" ? range.from : range.kind === "last" ? now - range.millis : null;
  const end = range.kind === "span" ? range.to : now;
  const [from, setFrom] = useState(start === null ? "" : toInput(start));
  const [to, setTo] = useState(end === null ? "" : toInput(end));
  const [a, b] = [fromInput(from), fromInput(to)];
  const problem = a === null && b === null ? "Enter a start or an end." : a !== null && b !== null && a >= b ? "The end must be after the start." : null;
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        if (problem !== null) return;
        onChange({ kind: "span", from: a, to: b });
        onClose();
      }}
    >
      <label class="field">From<input type="datetime-local" step="1" value={from} onInput={(event) => setFrom(event.currentTarget.value)} autofocus /></label>
      <label class="field">To<input type="datetime-local" step="1" value={to} onInput={(event) => setTo(event.currentTarget.value)} /></label>
      <p class="hint">{problem ?? zoneLabel()}</p>
      <div class="actions">
        <button type="button" onClick={onClose}>Cancel</button>
        <button type="submit" class="primary" disabled={problem !== null}>Apply</button>
      </div>
    </form>
  );
}

/** The range in words. */
export function describeRange(range: Range): string {
  if (range.kind === "all") return "all time";
  if (range.kind === "last") return `the last ${PRESETS.find(([text]) => text === range.text)?.[1] ?? range.text}`;
  const from = range.from === null ? "the beginning" : dateTime(range.from, "second");
  const to = range.to === null ? "now" : dateTime(range.to, "second");
  return `${from} to ${to}`;
}
