// Erasures: requests to remove all events of a user.

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { Failure } from "../lib/api";
import { type Erasure, eraseUser, listErasures } from "../lib/events";
import { plural } from "../lib/format";
import { exact, type Json, NumberText } from "../lib/json";
import { useKeys } from "../lib/keys";
import { useLoad } from "../lib/load";
import { usePages } from "../lib/pages";
import { useStore } from "../lib/store";
import { dateTime, zone } from "../lib/time";
import { Confirm } from "../ui/Confirm";
import { Copy } from "../ui/Copy";
import { Failed, Stale } from "../ui/Failed";
import { Pager } from "../ui/Pager";
import { Skeleton } from "../ui/Skeleton";
import { Text } from "../ui/Text";
import { Ago } from "../ui/Time";

const PAGE_SIZE = 50;

export function Erasures(): JSX.Element {
  const [isRunning, setRunning] = useState(false);
  const pages = usePages("erasures");
  const { cursor } = pages;
  const list = useLoad(`erasures|${cursor}`, async (signal) => {
    const query = new URLSearchParams({ limit: String(PAGE_SIZE) });
    if (cursor !== null) query.set("cursor", cursor);
    const page = await listErasures(query, signal);
    setRunning(page.data.some(({ state }) => state === "running"));
    return page;
  }, { interval: isRunning ? 2_000 : 15_000, group: "erasures" });
  const [userId, setUserId] = useState("");
  const [isAsking, setAsking] = useState(false);
  const [problem, setProblem] = useState<string | null>(null);
  useKeys({ r: list.reload });

  const erase = async (): Promise<void> => {
    setAsking(false);
    setProblem(null);
    try {
      await eraseUser(userId);
      setUserId("");
      list.reload();
    } catch (error) {
      setProblem(error instanceof Failure ? error.message : String(error));
    }
  };

  if (list.failure && !list.data) {
    return (
      <div class="view">
        <div class="toolbar"><h1>Erasures</h1></div>
        <section class="panel"><Failed failure={list.failure} route="GET /api/v1/erasures" onRetry={list.reload} /></section>
      </div>
    );
  }
  return (
    <div class="view">
      <div class="toolbar"><h1>Erasures</h1></div>
      <section class="panel" aria-label="New erasure">
        <form
          class="erase-form"
          onSubmit={(event) => {
            event.preventDefault();
            // Browsers resolve these in a path, even if they are encoded, and would send another request.
            const isDotSegment = userId === "." || userId === "..";
            if (isDotSegment) setProblem(`A browser cannot request the erasure of the user "${userId}". Use the command line: eyego-log-server erase ${userId}`);
            else if (userId !== "") setAsking(true);
          }}
        >
          <label class="field">
            User id
            <input autocomplete="off" spellcheck={false} value={userId} onInput={(event) => { setProblem(null); setUserId(event.currentTarget.value); }} />
          </label>
          <button type="submit" class="danger" disabled={userId === ""}>Erase…</button>
        </form>
        <p class="hint">Removes every event of the user that was received until now, from the store and the dead letters. Nothing brings one back. Events received later are stored as usual. An erasure is done after about 90 s: a second pass then removes what a worker was still storing.</p>
        {problem !== null && <p class="notice" role="alert"><Text text={problem} /></p>}
      </section>
      {list.failure && <Stale failure={list.failure} onRetry={list.reload} />}
      <section class="panel rows" aria-label="Erasures" aria-busy={list.isLoading}>
        {list.data === null
          ? <Skeleton rows={4} />
          : list.data.data.length === 0
            ? <div class="state" role="status"><h2>No erasures</h2><p>Nobody has asked for one. A request appears here with its state and what it removed.</p></div>
            : <Table rows={list.data.data} />}
        {list.data !== null && list.data.data.length > 0 && <Pager pages={pages} next={list.data.nextCursor ?? null} isCurrent={list.isCurrent} />}
      </section>
      {isAsking && (
        <Confirm title="Erase a user's events" action="Erase" isDangerous typed={userId} onConfirm={() => void erase()} onClose={() => setAsking(false)}>
          <p>Every event of <b dir="auto">{exact(userId)}</b> that was received until now will be removed. This cannot be undone.{exact(userId).includes("␣") && " Here ␣ is a space."}</p>
        </Confirm>
      )}
    </div>
  );
}

function Table({ rows }: { rows: Erasure[] }): JSX.Element {
  return (
    <table class="plain erasures">
      <caption class="sr">Erasures</caption>
      <thead>
        <tr><th scope="col">User</th><th scope="col">Requested</th><th scope="col">State</th><th scope="col">Removed</th><th scope="col">Completed</th><th scope="col">Erasure id</th></tr>
      </thead>
      <tbody>
        {rows.map((row) => (
          <tr key={row.id}>
            <td dir="auto">{exact(row.userId)}</td>
            <td class="num"><Moment time={row.requestedAt} /></td>
            <td><span class={`health ${row.state === "done" ? "health-up" : "health-warning"}`} /> {row.state}</td>
            <td class="num">{removed(row)}</td>
            <td class="num">{row.completedAt ? <Moment time={row.completedAt} /> : <span class="muted absent">–</span>}</td>
            <td><span class="with-button"><code>{row.id}</code><Copy text={() => row.id} label="Copy the erasure id" isIconOnly /></span></td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Moment({ time }: { time: string }): JSX.Element {
  useStore(zone);
  return <>{dateTime(Date.parse(time), "second")} <div class="muted"><Ago time={time} /></div></>;
}

/** What is counted in each place. */
const REMOVED: Record<string, string> = { store: "event", deadLetters: "dead letter" };

/** The counts per place, such as `1,204 events, 2 dead letters`. */
function removed(row: Erasure): string {
  const places = row["removed"];
  if (places === null || places === undefined || typeof places !== "object" || places instanceof NumberText || Array.isArray(places)) return "–";
  const entries = Object.entries(places).filter((entry): entry is [string, number] => typeof (entry[1] as Json) === "number");
  if (entries.length === 0) return "–";
  return entries.map(([place, number]) => plural(number, REMOVED[place] ?? place, REMOVED[place] === undefined ? place : undefined)).join(", ");
}
