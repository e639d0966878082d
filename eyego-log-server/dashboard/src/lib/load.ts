// Loading data into a component: cancelled when it is no longer wanted, kept while it is refreshed.

import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { Failure } from "./api";
import { key } from "./session";
import { useStore } from "./store";

export interface Loaded<T> {
  data: T | null;
  /** Set while the latest attempt has failed; `data` is then from an earlier one. */
  failure: Failure | null;
  isLoading: boolean;
  updatedAt: number | null;
  reload(): void;
}

/**
 * Calls `load` whenever `identity` changes, on `reload`, and every `interval` milliseconds while the page
 * is visible. Data of another identity is dropped, so that nothing is shown for the wrong question.
 */
export function useLoad<T>(identity: string, load: (signal: AbortSignal) => Promise<T>, interval: number | null = null): Loaded<T> {
  const [state, setState] = useState<{ identity: string; data: T | null; failure: Failure | null; updatedAt: number | null }>({
    identity,
    data: null,
    failure: null,
    updatedAt: null,
  });
  const [isLoading, setLoading] = useState(true);
  const [round, setRound] = useState(0);
  const session = useStore(key);
  const latest = useRef(load);
  latest.current = load;

  useEffect(() => {
    const controller = new AbortController();
    setLoading(true);
    latest
      .current(controller.signal)
      .then((data) => {
        if (controller.signal.aborted) return;
        setState({ identity, data, failure: null, updatedAt: Date.now() });
        setLoading(false);
      })
      .catch((error: unknown) => {
        if (controller.signal.aborted) return;
        const failure = error instanceof Failure ? error : new Failure("failed", String(error));
        setState((old) => ({
          identity,
          failure,
          data: old.identity === identity ? old.data : null,
          updatedAt: old.identity === identity ? old.updatedAt : null,
        }));
        setLoading(false);
      });
    return () => controller.abort();
  }, [identity, round, session]);

  useEffect(() => {
    if (interval === null || isLoading) return;
    const timer = setTimeout(() => {
      if (document.visibilityState === "visible") setRound((n) => n + 1);
    }, interval);
    const onVisible = (): void => {
      if (document.visibilityState === "visible") setRound((n) => n + 1);
    };
    document.addEventListener("visibilitychange", onVisible);
    return () => {
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", onVisible);
    };
  }, [interval, isLoading, round]);

  const reload = useCallback(() => setRound((n) => n + 1), []);
  const isCurrent = state.identity === identity;
  return {
    data: isCurrent ? state.data : null,
    failure: isCurrent ? state.failure : null,
    updatedAt: isCurrent ? state.updatedAt : null,
    isLoading,
    reload,
  };
}
