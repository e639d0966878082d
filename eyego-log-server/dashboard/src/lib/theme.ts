// Light or dark: what the system prefers, unless the user has chosen.

import { createSetting, createStore } from "./store";

const choice = createSetting("theme", ["system", "light", "dark"] as const);
const system = matchMedia("(prefers-color-scheme: dark)");

function effective(): "light" | "dark" {
  const chosen = choice.get();
  return chosen === "system" ? (system.matches ? "dark" : "light") : chosen;
}

export const theme = createStore<"light" | "dark">(effective());

function apply(): void {
  document.documentElement.dataset["theme"] = effective();
  theme.set(effective());
}
system.addEventListener("change", apply);
choice.subscribe(apply);
apply();

export function toggleTheme(): void {
  const next = effective() === "dark" ? "light" : "dark";
  choice.set(next === (system.matches ? "dark" : "light") ? "system" : next);
}
