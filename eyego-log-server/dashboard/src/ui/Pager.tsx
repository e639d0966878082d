// The line below a table: which page it is, and the way to the others.

import type { ComponentChildren, JSX } from "preact";
import { count } from "../lib/format";
import { useKeys } from "../lib/keys";
import type { Pages } from "../lib/pages";
import { Icon } from "./icons";

interface Props {
  pages: Pages;
  /** The cursor of the next page, `null` on the last one. */
  next: string | null;
  /** Whether the shown rows are those of this page, and not of the one before. */
  isCurrent: boolean;
  note?: ComponentChildren;
  children?: ComponentChildren;
}

export function Pager({ pages, next, isCurrent, note, children }: Props): JSX.Element {
  const older = (): void => {
    if (next !== null && isCurrent) pages.older(next);
  };
  useKeys({ "[": pages.newer, "]": older });
  return (
    <footer class="pager">
      <span class="muted" role="status">Page {count(pages.number)}{note}</span>
      {children}
      <span class="pager-buttons">
        {pages.number > 1 && <button type="button" onClick={pages.first}>First</button>}
        <button type="button" disabled={pages.number === 1} onClick={pages.newer}><Icon name="left" /> Newer</button>
        <button type="button" disabled={next === null} onClick={older}>Older <Icon name="right" /></button>
      </span>
    </footer>
  );
}
