// Loading data into a component: cancelled when it is no longer wanted, kept while it is refreshed.

import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { Failure, unexpected } from "./api";

export interface Loaded<T> {
  data: T | null;
  /** Set while the latest attempt has failed; `data` is then from an earlier one. */
  failure: Failure | null;
  isLoading: boolean;
  /** Whether `data` belongs to the identity, and not to an earlier one of its group. */
  isCurrent: boolean;
  updatedAt: number | null;
  reload(): void;
}

interface State<T> {
  identity: string;
  group: string;
  data: T | null;
  failure: Failure | null;
  updatedAt: number | null;
}

export interface LoadOptions {
  /** Milliseconds between refreshes while the page is visible. Default: none. */
  interval?: number | null;
  /**
   * While another identity of the same group loads, the earlier data stays, as the previous page does until
   * the next one is there. Default: the identity itself.
   */
  group?: string;
}

/**
 * Calls `load` whenever `identity` changes, on `reload`, and at each interval. Data of another group is
 * dropped at once, so that nothing is shown for the wrong question. A response that denies access drops it as well.
 */
export function useLoad<T>(identity: string, load: (signal: AbortSignal) => Promise<T>, options: LoadOptions = {}): Loaded<T> {
  const { interval = null, group = identity } = options;
  const [state, setState] = useState<State<T>>({ identity, group, data: null, failure: null, updatedAt: null });
  const [isRunning, setRunning] = useState(true);
  const [round, setRound] = useState(0);
  const latest = useRef(load);
  latest.current = load;

  useEffect(() => {
    const controller = new AbortController();
    setRunning(true);
    const finish = (next: (old: State<T>) => State<T>): void => {
      if (controller.signal.aborted) return;
      setState(next);
      setRunning(false);
    };
    latest.current(controller.signal).then(
      (data) => finish(() => ({ identity, group, data, failure: null, updatedAt: Date.now() })),
      (error: unknown) => {
        if (controller.signal.aborted) return;
        // Nothing else should be thrown. If it is, the likely cause is a response of another form.
        const failure = error instanceof Failure ? error : unexpected();
        if (error !== failure) console.error(error);
        const isKept = failure.kind !== "unauthorized" && failure.kind !== "forbidden";
        finish((old) =>
          isKept && old.identity === identity
            ? { ...old, failure }
            : { identity, group, data: null, failure, updatedAt: null },
        );
      },
    );
    return () => controller.abort();
  }, [identity, round]);

  useEffect(() => {
    if (interval === null || isRunning) return;
    const refresh = (): void => {
      if (document.visibilityState === "visible") setRound((n) => n + 1);
    };
    const timer = setTimeout(refresh, interval);
    document.addEventListener("visibilitychange", refresh);
    return () => {
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", refresh);
    };
  }, [interval, isRunning, round]);

  const reload = useCallback(() => setRound((n) => n + 1), []);
  const isCurrent = state.identity === identity;
  const isShown = isCurrent || state.group === group;
  return {
    data: isShown ? state.data : null,
    failure: isCurrent ? state.failure : null,
    updatedAt: isShown ? state.updatedAt : null,
    isLoading: isRunning || !isCurrent,
    isCurrent,
    reload,
  };
}
