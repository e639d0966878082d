// Keyboard shortcuts: one list, which the help dialog shows.

import { useLayoutEffect, useRef } from "preact/hooks";
import { createSetting } from "./store";

/** Some assistive software types single characters; such users switch shortcuts off. */
export const shortcuts = createSetting("shortcuts", ["on", "off"] as const);

export const SHORTCUTS: [string, string][] = [
  ["1 – 5", "Explore, Live, Dead letters, Pipeline, Erasures"],
  ["/", "Add a filter"],
  ["j  k", "Next or previous row in Explore, Live and Dead letters (also arrow keys)"],
  ["Enter", "Open the row"],
  ["Esc", "Close the panel or dialog"],
  ["[  ]", "Newer or older page"],
  ["r", "Refresh"],
  ["p", "Pause or resume Live"],
  ["t", "Switch between light and dark"],
  ["?", "This help"],
];

function isTyping(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && target.matches("input, textarea, select, [contenteditable]");
}

/** Calls the handler of a pressed key, unless a field has the focus or a dialog is open. */
export function useKeys(handlers: Record<string, (event: KeyboardEvent) => void>): void {
  const latest = useRef(handlers);
  latest.current = handlers;
  // Before the browser paints, so that a key works as soon as what it acts on can be seen.
  useLayoutEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
      if (document.querySelector("dialog[open]")) return;
      if (isTyping(event.target)) return;
      if (event.key.length === 1 && shortcuts.get() === "off") return;
      const handler = latest.current[event.key];
      if (!handler) return;
      event.preventDefault();
      handler(event);
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
}
