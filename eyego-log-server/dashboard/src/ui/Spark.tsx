// A small line of recent values.

import type { JSX } from "preact";

const WIDTH = 120;
const HEIGHT = 28;

export function Spark({ values, slots }: { values: number[]; slots: number }): JSX.Element {
  const max = Math.max(...values, 1e-9);
  const step = WIDTH / (slots - 1);
  const start = slots - values.length;
  const points = values.map((value, index) => {
    const x = (start + index) * step;
    const y = HEIGHT - 2 - (value / max) * (HEIGHT - 4);
    return `${x.toFixed(1)},${y.toFixed(1)}`;
  });
  const area = points.length > 1 ? `${start * step},${HEIGHT} ${points.join(" ")} ${WIDTH},${HEIGHT}` : "";
  return (
    <svg class="spark" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
      <polygon points={area} />
      <polyline points={points.join(" ")} vector-effect="non-scaling-stroke" />
    </svg>
  );
}
