// Rows that take the place of data which is still loading.

import type { JSX } from "preact";

export function Skeleton({ rows }: { rows: number }): JSX.Element {
  return (
    <div class="skeleton" role="status">
      <span class="sr">Loading…</span>
      {Array.from({ length: rows }, (_, index) => <div key={index} class={`skeleton-row skeleton-${index % 4}`} />)}
    </div>
  );
}
