// The figures above the table: totals, histogram, and its legend, which filters.

import type { JSX } from "preact";
import { count, plural } from "../lib/format";
import { exact, visible } from "../lib/json";
import type { Overview as Data } from "../lib/explore";
import type { Filter } from "../lib/route";
import { Histogram } from "./Histogram";

interface Props {
  data: Data | null;
  isLoading: boolean;
  by: string;
  fields: string[];
  onBy: (by: string) => void;
  onBrush: (from: number, to: number) => void;
  onFilter: (filter: Filter) => void;
}

export function Overview({ data, isLoading, by, fields, onBy, onBrush, onFilter }: Props): JSX.Element {
  // While another grouping loads, the shown data still has the previous one.
  const shownBy = data?.by ?? by;
  const name = shownBy.replace(/^metadata\./, "");
  const otherLabel = shownBy.startsWith("metadata.") ? "other or none" : "other";
  const options = [...new Set(["action", "userId", by, ...fields.map((path) => `metadata.${path}`)])];
  return (
    <section class="overview panel" aria-label="Overview" aria-busy={isLoading}>
      <div class="overview-head">
        <p class="totals">
          {data
            ? <>
                <b class="num">{data.stats.approximate ? "≈ " : ""}{count(data.stats.total)}</b> {data.stats.total === 1 ? "event" : "events"}
                <span class="muted"> · </span>
                <b class="num">{data.stats.approximate ? "≈ " : ""}{count(data.stats.users)}</b> {data.stats.users === 1 ? "user" : "users"}
              </>
            : <span class="muted">Counting…</span>}
        </p>
        <label class="inline-field">
          <span class="muted">by</span>
          <select value={by} onChange={(event) => onBy(event.currentTarget.value)} aria-label="Group the histogram by">
            {options.map((option) => (
              <option key={option} value={option}>{option === "userId" ? "user" : visible(option)}</option>
            ))}
          </select>
        </label>
      </div>
      <div class="histogram-space">
        {data && <Histogram data={data.histogram} from={data.from} to={data.to} otherLabel={otherLabel} onBrush={onBrush} />}
      </div>
      <div class="legend" role="group" aria-label={`Counts by ${name}`}>
        {data?.histogram.series.map((one) => {
          const content = (
            <>
              <span class={`dot series-${one.colour}`} />
              <span class="legend-name" dir="auto">{one.value === null ? otherLabel : exact(one.value) || '""'}</span>
              <span class="num muted">{count(one.total)}</span>
            </>
          );
          return one.value === null
            ? <span class="legend-item" key="">{content}</span>
            : <button type="button" class="quiet legend-item" key={one.value} title={`Filter: ${plural(one.total, "event")}`} onClick={() => onFilter({ name: shownBy, value: one.value ?? "" })}>{content}</button>;
        })}
      </div>
    </section>
  );
}
