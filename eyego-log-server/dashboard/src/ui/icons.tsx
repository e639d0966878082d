// Icons, drawn with the colour of the text around them.

import type { JSX } from "preact";

const PATHS = {
  close: "M4 4l8 8M12 4l-8 8",
  refresh: "M13 8a5 5 0 1 1-1.5-3.5M13 2.5V5h-2.5",
  sun: "M8 5a3 3 0 1 1 0 6a3 3 0 0 1 0-6M8 1v1.5M8 13.5V15M1 8h1.5M13.5 8H15M3 3l1 1M12 12l1 1M3 13l1-1M12 4l1-1",
  moon: "M13.5 9.5A5.8 5.8 0 0 1 6.5 2.5a5.8 5.8 0 1 0 7 7",
  help: "M8 1.8a6.2 6.2 0 1 1 0 12.4a6.2 6.2 0 0 1 0-12.4M6.2 6.4a1.8 1.8 0 1 1 2.5 1.7c-.5.2-.7.5-.7.9v.3M8 11.4v.1",
  copy: "M6 6h7v7H6zM10 6V3H3v7h3",
  check: "M3 8.5l3.5 3.5L13 4.5",
  warn: "M8 2.5l6 11H2zM8 6.5v3.5M8 12v.1",
  left: "M10 3L5 8l5 5",
  right: "M6 3l5 5l-5 5",
  down: "M3 6l5 5l5-5",
  pause: "M5.5 3.5v9M10.5 3.5v9",
  play: "M5 3.5l7.5 4.5L5 12.5z",
  search: "M7 3a4 4 0 1 1 0 8a4 4 0 0 1 0-8M10 10l3.5 3.5",
  save: "M8 2.5v7.5M5 7l3 3l3-3M3 13h10",
  plus: "M8 3.5v9M3.5 8h9",
  out: "M9.5 3H3.5v10h6M7 8h7M11.5 5.5L14 8l-2.5 2.5",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }): JSX.Element {
  return (
    <svg class="icon" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">
      <path d={PATHS[name]} fill="none" stroke="currentColor" stroke-width="1.5" stroke-linecap="round" stroke-linejoin="round" />
    </svg>
  );
}
