// A panel beside the data, over it on narrow screens. Esc closes it.

import type { ComponentChildren, JSX } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import { useKeys } from "../lib/keys";
import { Icon } from "./icons";

interface Props {
  label: string;
  title: string;
  onClose: () => void;
  children: ComponentChildren;
}

export function Drawer({ label, title, onClose, children }: Props): JSX.Element {
  const ref = useRef<HTMLElement>(null);
  useLayoutEffect(() => {
    const before = document.activeElement;
    // On a narrow screen the panel covers the table, so the focus must follow.
    if (matchMedia("(max-width: 60rem)").matches) ref.current?.querySelector<HTMLElement>(".drawer-close")?.focus();
    return () => {
      if (before instanceof HTMLElement && before.isConnected && before !== document.body) before.focus();
    };
  }, []);
  useKeys({ Escape: onClose });
  return (
    <aside class="drawer" aria-label={label} ref={ref}>
      <header class="drawer-head">
        <h2 dir="auto">{title}</h2>
        <button type="button" class="quiet icon-button drawer-close" aria-label="Close" onClick={onClose}>
          <Icon name="close" />
        </button>
      </header>
      <div class="drawer-body">{children}</div>
    </aside>
  );
}
