// The page: a key, the routes by group, and a filter.

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { apiUrl, unexpected } from "../lib/api";
import { key, keyId, signIn, signOut } from "../lib/session";
import { fits } from "../lib/shape";
import { useStore } from "../lib/store";
import { theme, toggleTheme } from "../lib/theme";
import { Icon } from "../ui/icons";
import { RouteView } from "./RouteView";
import { groups, type Route, type Spec } from "./spec";
import { Paragraphs } from "../ui/Text";

export function Docs(): JSX.Element {
  const [spec, setSpec] = useState<Spec | null>(null);
  const [failure, setFailure] = useState("");
  const [filter, setFilter] = useState("");
  const load = async (): Promise<void> => {
    setFailure("");
    try {
      const response = await fetch(apiUrl("openapi.json"));
      if (!response.ok) throw new Error(`the server responded with status ${response.status}`);
      const found: unknown = await response.json();
      if (!fits(found, { info: { version: "string" }, paths: {}, components: {} })) throw unexpected();
      setSpec(found as Spec);
    } catch (error) {
      setFailure((error as Error).message);
    }
  };
  useEffect(() => void load(), []);
  const mode = useStore(theme);
  const next = mode === "dark" ? "light" : "dark";
  const matches = ({ method, path, operation }: Route): boolean => `${method} ${path} ${operation.summary}`.toLowerCase().includes(filter.trim().toLowerCase());
  const open = location.hash.slice(1);

  return (
    <>
      <header class="top">
        <a class="brand" href="." aria-label="eyego-log, dashboard">
          <svg viewBox="0 0 16 16" width="20" height="20" aria-hidden="true"><rect width="16" height="16" rx="4" /><path d="M4 11V8M8 11V4M12 11V6" /></svg>
          <span>eyego-log</span>
        </a>
        <div class="top-end">
          <a href="openapi.json">openapi.json</a>
          <button type="button" class="quiet icon-button" title={`Switch to ${next}`} aria-label={`Switch to ${next}`} onClick={toggleTheme}>
            <Icon name={mode === "dark" ? "sun" : "moon"} />
          </button>
        </div>
      </header>
      <main class="docs">
        <h1>HTTP API{spec && <span class="muted"> {spec.info.version}</span>}</h1>
        {failure !== "" && (
          <div class="state state-failed" role="alert">
            <h2><Icon name="warn" /> The description could not be loaded</h2>
            <p>{failure}</p>
            <div class="actions"><button type="button" onClick={() => void load()}>Try again</button></div>
          </div>
        )}
        {spec && (
          <>
            <div class="intro"><Paragraphs text={spec.info.description} /></div>
            <div class="docs-bar panel">
              <KeyField />
              <label class="field">
                Filter
                <input type="search" placeholder="route or purpose" value={filter} onInput={(event) => setFilter(event.currentTarget.value)} />
              </label>
            </div>
            {groups(spec).map(([tag, routes]) => {
              const shown = routes.filter(matches);
              return shown.length > 0 && (
                <section key={tag} class="group" aria-label={tag}>
                  <h2>{tag}</h2>
                  {shown.map((route) => <RouteView key={route.operation.operationId} spec={spec} route={route} isOpen={route.operation.operationId === open} />)}
                </section>
              );
            })}
          </>
        )}
      </main>
    </>
  );
}

function KeyField(): JSX.Element {
  const current = useStore(key);
  const [value, setValue] = useState("");
  if (current !== "") {
    return (
      <div class="field">
        API key
        <span class="inline-field"><code>{keyId(current)}</code> <button type="button" onClick={signOut}>Forget</button></span>
      </div>
    );
  }
  return (
    <form
      class="field"
      onSubmit={(event) => {
        event.preventDefault();
        if (value.trim() !== "") signIn(value.trim());
        setValue("");
      }}
    >
      <label for="key">API key</label>
      <span class="inline-field">
        <input id="key" type="password" autocomplete="off" spellcheck={false} placeholder="eyego_…" value={value} onInput={(event) => setValue(event.currentTarget.value)} />
        <button type="submit" disabled={value.trim() === ""}>Use</button>
      </span>
      <span class="hint">Needed only if the server has keys. It stays in this tab and is sent as a header.</span>
    </form>
  );
}
