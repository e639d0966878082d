// A panel beside the data. On a narrow screen it covers the page and is modal. Esc closes it.

import type { ComponentChildren, JSX } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { useKeys } from "../lib/keys";
import { Icon } from "./icons";

interface Props {
  label: string;
  title: string;
  onClose: () => void;
  children: ComponentChildren;
}

const NARROW = matchMedia("(max-width: 60rem)");

export function Drawer(props: Props): JSX.Element {
  const [isNarrow, setNarrow] = useState(NARROW.matches);
  useEffect(() => {
    const update = (): void => setNarrow(NARROW.matches);
    NARROW.addEventListener("change", update);
    return () => NARROW.removeEventListener("change", update);
  }, []);
  return isNarrow ? <Covering {...props} /> : <Beside {...props} />;
}

function Beside({ label, onClose, ...content }: Props): JSX.Element {
  useFocusAfter();
  useKeys({ Escape: onClose });
  return <aside class="drawer" aria-label={label}><Content onClose={onClose} {...content} /></aside>;
}

function Covering({ label, onClose, ...content }: Props): JSX.Element {
  const ref = useRef<HTMLDialogElement>(null);
  useFocusAfter(() => ref.current?.close());
  useLayoutEffect(() => ref.current?.showModal(), []);
  const cancel = (event: Event): void => {
    event.preventDefault();
    onClose();
  };
  return <dialog class="drawer" aria-label={label} ref={ref} onCancel={cancel}><Content onClose={onClose} {...content} /></dialog>;
}

function Content({ title, onClose, children }: Omit<Props, "label">): JSX.Element {
  return (
    <>
      <header class="drawer-head">
        <h2 dir="auto">{title}</h2>
        <button type="button" class="quiet icon-button" aria-label="Close" onClick={onClose}>
          <Icon name="close" />
        </button>
      </header>
      <div class="drawer-body">{children}</div>
    </>
  );
}

/** Returns the focus to where it was, after `close`. */
function useFocusAfter(close?: () => void): void {
  useLayoutEffect(() => {
    const before = document.activeElement;
    return () => {
      close?.();
      if (before instanceof HTMLElement && before.isConnected && before !== document.body) before.focus();
    };
  }, []);
}
