// A panel below the button that opened it. Esc, and a click elsewhere, close it.

import type { ComponentChildren, JSX } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";

interface Props {
  label: string;
  class?: string;
  onClose: () => void;
  children: ComponentChildren;
}

export function Popover({ label, class: name = "", onClose, children }: Props): JSX.Element {
  const ref = useRef<HTMLDivElement>(null);
  const close = useRef(onClose);
  close.current = onClose;
  useLayoutEffect(() => {
    const opener = document.activeElement;
    const onPointerDown = ({ target }: PointerEvent): void => {
      // The button that opened it closes it by itself.
      if (target instanceof Node && !ref.current?.parentElement?.contains(target)) close.current();
    };
    const onKey = (event: KeyboardEvent): void => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      close.current();
    };
    const element = ref.current;
    document.addEventListener("pointerdown", onPointerDown);
    element?.parentElement?.addEventListener("keydown", onKey);
    return () => {
      document.removeEventListener("pointerdown", onPointerDown);
      element?.parentElement?.removeEventListener("keydown", onKey);
      const isInside = element?.contains(document.activeElement) || document.activeElement === document.body;
      if (isInside && opener instanceof HTMLElement && opener.isConnected) opener.focus();
    };
  }, []);
  // The element with the focus may have been replaced.
  useLayoutEffect(() => {
    if (document.activeElement === document.body) ref.current?.focus();
  });
  return <div class={`popover ${name}`} role="group" aria-label={label} tabIndex={-1} ref={ref}>{children}</div>;
}
