// Replays dead letters after a confirmation, and shows the progress until nothing more succeeds.

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Failure } from "../lib/api";
import { replay } from "../lib/events";
import { count, plural } from "../lib/format";
import { Confirm } from "./Confirm";
import { Dialog } from "./Dialog";
import { Text } from "./Text";

export type Selection = { id: string } | { code: string } | { all: true };

interface Props {
  selection: Selection;
  /** Called after each step that changed something. */
  onProgress: () => void;
  onClose: () => void;
}

interface Progress {
  replayed: number;
  failed: number;
  remaining: number;
  state: "running" | "done" | "stopped";
  problem: string | null;
}

function describe(selection: Selection): string {
  if ("id" in selection) return "this dead letter";
  return "code" in selection ? `all dead letters with the code ${selection.code}` : "all dead letters";
}

export function ReplayDialog({ selection, onProgress, onClose }: Props): JSX.Element {
  const [progress, setProgress] = useState<Progress | null>(null);
  const controller = useRef(new AbortController());
  useEffect(() => () => controller.current.abort(), []);

  const run = async (): Promise<void> => {
    const signal = controller.current.signal;
    // Continues the sum of an attempt that was interrupted.
    let sum: Progress = { replayed: progress?.replayed ?? 0, failed: 0, remaining: 0, state: "running", problem: null };
    setProgress(sum);
    try {
      for (;;) {
        const step = await replay(selection, signal);
        sum = { ...sum, replayed: sum.replayed + step.replayed, failed: step.failed, remaining: step.remaining };
        // What is left has just failed, so another attempt would fail as well.
        const isDone = step.remaining === 0 || step.replayed === 0 || step.remaining <= step.failed;
        setProgress({ ...sum, state: isDone ? "done" : "running" });
        onProgress();
        if (isDone) return;
      }
    } catch (error) {
      if (signal.aborted) return;
      const problem = error instanceof Failure ? error.message : String(error);
      setProgress({ ...sum, state: "stopped", problem });
    }
  };

  if (progress === null) {
    return (
      <Confirm title="Replay" action="Replay" onConfirm={() => void run()} onClose={onClose}>
        <p>Stores {describe(selection)} now, from the kept bytes and under the event's own id.</p>
        <p class="hint">An event that is stored already is not stored again. One that fails again stays here and counts one more attempt.</p>
      </Confirm>
    );
  }
  const total = progress.replayed + progress.remaining;
  return (
    <Dialog title="Replay" onClose={onClose}>
      <progress value={progress.state === "running" && total === 0 ? undefined : progress.replayed} max={Math.max(total, 1)} aria-label="Progress" />
      <p role="status">
        {progress.state === "running" ? "Replaying… " : progress.state === "done" ? "Done: " : "Stopped: "}
        <b class="num">{count(progress.replayed)}</b> stored
        {progress.failed > 0 && <>, <b class="num">{count(progress.failed)}</b> failed again</>}
        {progress.remaining > 0 && <>, {plural(progress.remaining, "dead letter remains", "dead letters remain")}</>}.
      </p>
      {progress.problem !== null && <p role="alert" class="notice"><Text text={progress.problem} /></p>}
      {progress.state === "done" && progress.failed > 0 && <p class="hint">Open one to see its reason, fix the cause, and replay again.</p>}
      <div class="actions">
        {progress.state === "stopped" && <button type="button" onClick={() => void run()}>Continue</button>}
        <button type="button" class={progress.state === "running" ? "" : "primary"} onClick={onClose}>{progress.state === "running" ? "Stop" : "Close"}</button>
      </div>
    </Dialog>
  );
}
