// Keyset paging: the cursors of the pages so far, for the question that they belong to.

import { useState } from "preact/hooks";

export interface Pages {
  /** Of the shown page, `null` on the first one. */
  cursor: string | null;
  number: number;
  first(): void;
  newer(): void;
  older(next: string): void;
}

export function usePages(question: string): Pages {
  const [state, setState] = useState<{ question: string; cursors: string[] }>({ question, cursors: [] });
  // Another question starts with its first page.
  const cursors = state.question === question ? state.cursors : [];
  return {
    cursor: cursors.at(-1) ?? null,
    number: cursors.length + 1,
    first: () => setState({ question, cursors: [] }),
    newer: () => setState({ question, cursors: cursors.slice(0, -1) }),
    older: (next) => setState({ question, cursors: [...cursors, next] }),
  };
}
