// Asks for an API key when the server wants one.

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { signIn } from "../lib/session";
import { Dialog } from "./Dialog";
import { Text } from "./Text";

export function SignIn({ message }: { message: string }): JSX.Element {
  const [value, setValue] = useState("");
  return (
    <Dialog title="Sign in with a key">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (value.trim() !== "") signIn(value.trim());
        }}
      >
        <p class="notice" role="status"><Text text={message} /></p>
        <label class="field">
          API key
          <input
            type="password"
            name="key"
            autocomplete="off"
            spellcheck={false}
            placeholder="eyego_…"
            value={value}
            onInput={(event) => setValue(event.currentTarget.value)}
            autofocus
          />
        </label>
        <p class="hint">
          Explore and Live need the scope <code>read</code>, Dead letters <code>admin</code>, Pipeline{" "}
          <code>metrics</code>, Erasures <code>erase</code>. The key stays in this tab and is forgotten when the tab
          closes.
        </p>
        <div class="actions">
          <button type="submit" class="primary" disabled={value.trim() === ""}>Sign in</button>
        </div>
      </form>
    </Dialog>
  );
}
