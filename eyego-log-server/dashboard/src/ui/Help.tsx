// What the keys do, and how filters are written.

import type { JSX } from "preact";
import { SHORTCUTS, shortcuts } from "../lib/keys";
import { useStore } from "../lib/store";
import { Dialog } from "./Dialog";

export function Help({ onClose }: { onClose: () => void }): JSX.Element {
  const state = useStore(shortcuts);
  return (
    <Dialog title="Help" onClose={onClose}>
      <h3>Keyboard</h3>
      <dl class="shortcuts">
        {SHORTCUTS.map(([keys, what]) => (
          <div key={keys}>
            <dt>{keys.split("  ").map((name) => <kbd key={name}>{name}</kbd>)}</dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <label class="check">
        <input type="checkbox" checked={state === "on"} onChange={() => shortcuts.set(state === "on" ? "off" : "on")} />
        Single-key shortcuts
      </label>
      <h3>Filters</h3>
      <p>
        Type a user id or an action and choose what it is, or write <code>userId=user-123</code>,{" "}
        <code>action=LOGIN</code> or <code>metadata.plan=pro</code>. A metadata path may be nested:{" "}
        <code>metadata.cart.currency=EUR</code>. All filters must match.
      </p>
      <p>Drag across the histogram to zoom in. The address leads back to the same view, filters and range.</p>
      <p>The HTTP API is described in <a href="docs">its documentation</a>, where requests can be tried.</p>
    </Dialog>
  );
}
