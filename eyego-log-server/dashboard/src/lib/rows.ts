// The rows of a table: one at a time is in the tab order, and keys move between them.

import type { RefObject } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { useKeys } from "./keys";

export interface RowButton {
  class: string;
  tabIndex: number;
  onFocus: () => void;
  onClick: () => void;
}

/** Returns the reference of the body of the table, and the properties of the button that opens each row. */
export function useRows<T extends { id: string }>(
  rows: T[],
  selected: string | null,
  onOpen: (row: T) => void,
): [RefObject<HTMLTableSectionElement | null>, (index: number) => RowButton] {
  const body = useRef<HTMLTableSectionElement>(null);
  const [current, setCurrent] = useState(0);
  const position = Math.min(current, Math.max(rows.length - 1, 0));

  useLayoutEffect(() => {
    const index = rows.findIndex(({ id }) => id === selected);
    if (index >= 0) setCurrent(index);
  }, [selected, rows]);

  const move = (step: number): void => {
    const hasFocus = body.current?.contains(document.activeElement) === true;
    const next = hasFocus || selected !== null ? Math.max(0, Math.min(rows.length - 1, position + step)) : position;
    const row = rows[next];
    if (!row) return;
    setCurrent(next);
    if (selected !== null) onOpen(row);
    body.current?.querySelectorAll<HTMLElement>(".row-open")[next]?.focus();
  };
  useKeys({
    j: () => move(1),
    k: () => move(-1),
    ArrowDown: () => move(1),
    ArrowUp: () => move(-1),
  });

  const button = (index: number): RowButton => ({
    class: "row-open",
    tabIndex: index === position ? 0 : -1,
    onFocus: () => setCurrent(index),
    onClick: () => onOpen(rows[index]!),
  });
  return [body, button];
}
