// A value that components subscribe to.

import { useEffect, useState } from "preact/hooks";

export interface Store<T> {
  get(): T;
  set(value: T): void;
  subscribe(listener: () => void): () => void;
}

export function createStore<T>(initial: T): Store<T> {
  let value = initial;
  const listeners = new Set<() => void>();
  return {
    get: () => value,
    set(next) {
      if (Object.is(next, value)) return;
      value = next;
      for (const listener of [...listeners]) listener();
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

export function useStore<T>(store: Store<T>): T {
  const [value, setValue] = useState(store.get());
  useEffect(() => {
    setValue(store.get());
    return store.subscribe(() => setValue(store.get()));
  }, [store]);
  return value;
}

/** A choice that is kept over visits. A browser that forbids storage forgets it. */
export function createSetting<T extends string>(name: string, values: readonly T[]): Store<T> {
  const key = `eyego-log.${name}`;
  const read = (): T => {
    try {
      const stored = localStorage.getItem(key);
      return values.find((value) => value === stored) ?? values[0]!;
    } catch {
      return values[0]!;
    }
  };
  const store = createStore<T>(read());
  store.subscribe(() => {
    try {
      localStorage.setItem(key, store.get());
    } catch {
      // The choice lasts as long as the page.
    }
  });
  return store;
}
