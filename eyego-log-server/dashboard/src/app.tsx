// The frame: navigation, health, theme, sign-in, help.

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { useKeys } from "./lib/keys";
import { health, type Health, loadHealth } from "./lib/pipeline";
import { address, lastAddress, type Route, route, type View, VIEWS } from "./lib/route";
import { key, keyId, refusal, signOut } from "./lib/session";
import { useStore } from "./lib/store";
import { theme, toggleTheme } from "./lib/theme";
import { zone, zoneLabel } from "./lib/time";
import { Help } from "./ui/Help";
import { Icon } from "./ui/icons";
import { SignIn } from "./ui/SignIn";
import { DeadLetters } from "./views/DeadLetters";
import { Erasures } from "./views/Erasures";
import { Explore } from "./views/Explore";
import { Live } from "./views/Live";
import { Pipeline } from "./views/Pipeline";

const NAMES: Record<View, string> = {
  "explore": "Explore",
  "live": "Live",
  "dead-letters": "Dead letters",
  "pipeline": "Pipeline",
  "erasures": "Erasures",
};

export function App(): JSX.Element {
  const { view, params } = useStore(route);
  const message = useStore(refusal);
  const [isHelp, setHelp] = useState(false);

  useEffect(() => {
    document.title = `${NAMES[view]} · eyego-log`;
  }, [view]);
  const go = (index: number) => (): void => {
    location.hash = lastAddress(VIEWS[index]!);
  };
  useKeys({
    "1": go(0), "2": go(1), "3": go(2), "4": go(3), "5": go(4),
    "t": toggleTheme,
    "?": () => setHelp(true),
  });

  return (
    <>
      <header class="top">
        <a class="brand" href={address("explore")} aria-label="eyego-log, start">
          <svg viewBox="0 0 16 16" width="20" height="20" aria-hidden="true"><rect width="16" height="16" rx="4" /><path d="M4 11V8M8 11V4M12 11V6" /></svg>
          <span>eyego-log</span>
        </a>
        <nav aria-label="Views">
          {VIEWS.map((name) => (
            <a key={name} href={lastAddress(name)} aria-current={name === view ? "page" : undefined}>{NAMES[name]}</a>
          ))}
        </nav>
        <div class="top-end">
          <Status />
          <Zone />
          <Session />
          <ThemeButton />
          <button type="button" class="quiet icon-button" title="Help (?)" aria-label="Help" onClick={() => setHelp(true)}><Icon name="help" /></button>
        </div>
      </header>
      {/* Without a valid key no view exists, and with it goes everything that it has loaded. */}
      <main tabIndex={-1}>{message === null ? <CurrentView view={view} params={params} /> : <h1 class="sr">{NAMES[view]}</h1>}</main>
      {isHelp && <Help onClose={() => setHelp(false)} />}
      {message !== null && <SignIn message={message} />}
    </>
  );
}

function CurrentView({ view, params }: Route): JSX.Element {
  switch (view) {
    case "explore": return <Explore params={params} />;
    case "live": return <Live params={params} />;
    case "dead-letters": return <DeadLetters params={params} />;
    case "pipeline": return <Pipeline />;
    case "erasures": return <Erasures />;
  }
}

function Status(): JSX.Element {
  const state = useStore(health);
  useEffect(() => {
    void loadHealth();
    const timer = setInterval(() => {
      if (document.visibilityState === "visible") void loadHealth();
    }, 10_000);
    return () => clearInterval(timer);
  }, []);
  const [kind, text, title] = describe(state);
  return (
    <a class="status" href={lastAddress("pipeline")} title={title}>
      <span class={`health ${kind}`} /> <span>{text}</span>
    </a>
  );
}

/** The class of the dot, the word beside it, and what it means. */
function describe(state: Health | null | undefined): [string, string, string] {
  if (state === undefined) return ["", "checking", "The state of the server is being read."];
  if (state === null) return ["", "unknown", "This address does not serve the state of the server: it has an address of its own (option operations-listen)."];
  if (!state.isReady) return ["health-down", "not ready", state.message];
  const impaired = Object.entries(state.parts).filter(([, part]) => part.state !== "up").map(([name, part]) => `${name}: ${part.reason ?? part.state}`);
  return impaired.length > 0 ? ["health-warning", "degraded", impaired.join("\n")] : ["health-up", "ready", state.message];
}

function Zone(): JSX.Element {
  const mode = useStore(zone);
  return (
    <button type="button" class="quiet zone" title={`Times are in ${zoneLabel()}. Click to switch.`} onClick={() => zone.set(mode === "utc" ? "local" : "utc")}>
      <span class="sr">Times in </span>{mode === "utc" ? "UTC" : "Local"}<span class="sr"> time, {zoneLabel()}. Switch.</span>
    </button>
  );
}

function Session(): JSX.Element | null {
  const value = useStore(key);
  if (value === "") return null;
  return (
    <button type="button" class="quiet session" title={`Signed in with the key ${keyId(value)}. Sign out.`} onClick={signOut}>
      <span class="sr">Sign out, key </span><span class="session-id">{keyId(value)}</span> <Icon name="out" />
    </button>
  );
}

function ThemeButton(): JSX.Element {
  const mode = useStore(theme);
  const next = mode === "dark" ? "light" : "dark";
  return (
    <button type="button" class="quiet icon-button" title={`Switch to ${next} (t)`} aria-label={`Switch to ${next}`} onClick={toggleTheme}>
      <Icon name={mode === "dark" ? "sun" : "moon"} />
    </button>
  );
}
