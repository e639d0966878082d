// One stage of the pipeline: its rate, its total, and the last two minutes.

import type { JSX } from "preact";
import { count, rate } from "../lib/format";
import { rates, SAMPLES, type Scrape } from "../lib/pipeline";
import { Spark } from "./Spark";

interface Props {
  title: string;
  metric: string;
  scrapes: Scrape[];
}

export function Stage({ title, metric, scrapes }: Props): JSX.Element {
  const values = rates(scrapes, metric);
  const recent = values.slice(-3);
  const current = recent.length === 0 ? null : recent.reduce((sum, value) => sum + value, 0) / recent.length;
  return (
    <li class="stage">
      <h2 class="label">{title}</h2>
      <div class="big num">{current === null ? "–" : rate(current)}<small> /s</small></div>
      <Spark values={values} slots={SAMPLES} />
      <div class="muted num">{count(scrapes.at(-1)?.metrics.sum(metric) ?? 0)} in total</div>
    </li>
  );
}
