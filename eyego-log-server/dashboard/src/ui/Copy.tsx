// A button that copies text and says so.

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Icon } from "./icons";

interface Props {
  text: () => string;
  label: string;
  isIconOnly?: boolean;
}

export function Copy({ text, label, isIconOnly }: Props): JSX.Element {
  const [state, setState] = useState<"idle" | "done" | "failed">("idle");
  useEffect(() => {
    if (state === "idle") return;
    const timer = setTimeout(() => setState("idle"), 1500);
    return () => clearTimeout(timer);
  }, [state]);
  const copy = async (): Promise<void> => {
    setState((await write(text())) ? "done" : "failed");
  };
  const shown = state === "done" ? "Copied" : state === "failed" ? "Not allowed" : label;
  return (
    <button type="button" class={isIconOnly ? "quiet icon-button" : ""} aria-label={isIconOnly ? shown : undefined} title={isIconOnly ? shown : undefined} onClick={() => void copy()}>
      <Icon name={state === "done" ? "check" : "copy"} />
      {!isIconOnly && <span>{shown}</span>}
      <span class="sr" role="status">{state === "done" ? "Copied" : ""}</span>
    </button>
  );
}

async function write(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without HTTPS, browsers offer only the older way.
    const area = document.createElement("textarea");
    area.value = text;
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    const isDone = document.execCommand("copy");
    area.remove();
    return isDone;
  }
}
