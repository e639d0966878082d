// The API key of this tab. It lives in sessionStorage and in the Authorization header, nowhere else.

import { createStore } from "./store";

const NAME = "eyego-log.key";

function stored(): string {
  try {
    return sessionStorage.getItem(NAME) ?? "";
  } catch {
    return "";
  }
}

export const key = createStore(stored());

/** Why the server asks for a key, or `null` if it does not. */
export const refusal = createStore<string | null>(null);

export function signIn(value: string): void {
  try {
    sessionStorage.setItem(NAME, value);
  } catch {
    // The key lasts as long as the page.
  }
  refusal.set(null);
  key.set(value);
}

export function signOut(): void {
  try {
    sessionStorage.removeItem(NAME);
  } catch {
    // Nothing was stored.
  }
  refusal.set("Signed out.");
  key.set("");
}

/**
 * Calls `forget` whenever the key changes or is refused, so that no data outlives the key that it was read with.
 * Returns a function that ends this.
 */
export function onKeyLost(forget: () => void): () => void {
  const ends = [key.subscribe(forget), refusal.subscribe(forget)];
  return () => ends.forEach((end) => end());
}

/** The id in a key `eyego_<id>_<secret>`, which is not secret. */
export function keyId(value: string): string {
  return /^eyego_(.+)_[0-9A-Za-z]+$/.exec(value)?.[1] ?? "key";
}
