// A question before something that cannot be undone.

import type { ComponentChildren, JSX } from "preact";
import { useState } from "preact/hooks";
import { Dialog } from "./Dialog";

interface Props {
  title: string;
  action: string;
  isDangerous?: boolean;
  /** Text that must be typed before the action is possible. */
  typed?: string;
  onConfirm: () => void;
  onClose: () => void;
  children: ComponentChildren;
}

export function Confirm({ title, action, isDangerous, typed, onConfirm, onClose, children }: Props): JSX.Element {
  const [text, setText] = useState("");
  const isReady = typed === undefined || text === typed;
  return (
    <Dialog title={title} onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (isReady) onConfirm();
        }}
      >
        {children}
        {typed !== undefined && (
          <label class="field">
            Type the user id to confirm
            <input autocomplete="off" spellcheck={false} autofocus value={text} onInput={(event) => setText(event.currentTarget.value)} />
          </label>
        )}
        <div class="actions">
          <button type="button" onClick={onClose}>Cancel</button>
          <button type="submit" class={isDangerous ? "danger" : "primary"} disabled={!isReady}>{action}</button>
        </div>
      </form>
    </Dialog>
  );
}
