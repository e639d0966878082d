// Dead letters: records that could not be stored, and their replay.

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { listCodes } from "../lib/codes";
import { type DeadLetter, listDeadLetters } from "../lib/events";
import { count } from "../lib/format";
import { exact, visible } from "../lib/json";
import { useKeys } from "../lib/keys";
import { useLoad } from "../lib/load";
import { usePages } from "../lib/pages";
import { navigate } from "../lib/route";
import { useRows } from "../lib/rows";
import { DeadLetterDrawer } from "../ui/DeadLetterDrawer";
import { Failed, Stale } from "../ui/Failed";
import { Icon } from "../ui/icons";
import { Pager } from "../ui/Pager";
import { ReplayDialog, type Selection } from "../ui/ReplayDialog";
import { Skeleton } from "../ui/Skeleton";
import { Ago, describeTime } from "../ui/Time";

const PAGE_SIZE = 50;

export function DeadLetters({ params }: { params: URLSearchParams }): JSX.Element {
  const code = params.get("code") ?? "";
  const pages = usePages(code);
  const { cursor } = pages;
  const [opened, setOpened] = useState<DeadLetter | null>(null);
  const [replaying, setReplaying] = useState<Selection | null>(null);

  const page = useLoad(`${code}|${cursor}`, (signal) => {
    const query = new URLSearchParams({ limit: String(PAGE_SIZE) });
    if (code !== "") query.set("code", code);
    if (cursor !== null) query.set("cursor", cursor);
    return listDeadLetters(query, signal);
  }, { interval: cursor === null ? 10_000 : null, group: code });
  const rows = page.data?.data ?? [];
  const next = page.data?.nextCursor ?? null;
  const known = useLoad("codes", listCodes);
  const codes = [...new Set([...(known.data ?? []), ...rows.map((row) => row.code)])].sort();

  const choose = (value: string): void => navigate("dead-letters", new URLSearchParams(value === "" ? {} : { code: value }));
  const isDenied = page.failure?.kind === "forbidden";
  useEffect(() => {
    if (isDenied) setOpened(null);
  }, [isDenied]);
  const reload = (): void => {
    page.reload();
    known.reload();
  };
  useKeys({ r: reload });

  if (page.failure?.kind === "forbidden") {
    return (
      <div class="view">
        <div class="toolbar"><h1>Dead letters</h1></div>
        <section class="panel"><Failed failure={page.failure} route="GET /api/v1/dead-letters" onRetry={page.reload} /></section>
      </div>
    );
  }
  return (
    <div class={`view ${opened ? "has-drawer" : ""}`}>
      <div class="toolbar">
        <h1>Dead letters</h1>
        <div class="toolbar-end">
          <label class="inline-field">
            <span class="muted">code</span>
            {/* Any code can be typed: the list has those of the latest dead letters. */}
            <CodeField code={code} codes={codes} onChoose={choose} />
          </label>
          <button type="button" class="icon-button" title="Refresh (r)" aria-label="Refresh" onClick={reload}><Icon name="refresh" /></button>
          <button type="button" disabled={rows.length === 0} onClick={() => setReplaying(code === "" ? { all: true } : { code })}>
            {code === "" ? "Replay all…" : "Replay this code…"}
          </button>
        </div>
      </div>
      {page.failure && page.data && <Stale failure={page.failure} onRetry={page.reload} />}
      <div class="split">
        <section class="panel rows" aria-label="Dead letters" aria-busy={page.isLoading}>
          {page.failure && !page.data
            ? <Failed failure={page.failure} route="GET /api/v1/dead-letters" onRetry={page.reload} />
            : page.data === null
              ? <Skeleton rows={8} />
              : rows.length === 0
                ? <div class="state" role="status"><h2>No dead letters{code === "" ? "" : " with this code"}</h2><p>Every record that the queue delivered is stored. A record that the store refuses would be kept here with its bytes and its reason.</p></div>
                : <Table rows={rows} selected={opened?.id ?? null} onOpen={setOpened} onCode={choose} />}
          {rows.length > 0 && <Pager pages={pages} next={next} isCurrent={page.isCurrent} />}
        </section>
        {opened && <DeadLetterDrawer key={opened.id} summary={opened} onReplay={() => setReplaying({ id: opened.id })} onClose={() => setOpened(null)} />}
      </div>
      {replaying && (
        <ReplayDialog
          selection={replaying}
          onProgress={() => {
            page.reload();
            if ("id" in replaying) setOpened(null);
          }}
          onClose={() => setReplaying(null)}
        />
      )}
    </div>
  );
}

function CodeField({ code, codes, onChoose }: { code: string; codes: string[]; onChoose: (code: string) => void }): JSX.Element {
  const [text, setText] = useState(code);
  useEffect(() => setText(code), [code]);
  const onInput = (value: string): void => {
    setText(value);
    // Typed or picked from the list.
    if (value === "" || codes.includes(value)) onChoose(value);
  };
  return (
    <>
      <input type="search" list="codes" placeholder="all" autocomplete="off" spellcheck={false} value={text} onInput={(event) => onInput(event.currentTarget.value)} onChange={() => onChoose(text.trim())} />
      <datalist id="codes">{codes.map((value) => <option key={value} value={value} />)}</datalist>
    </>
  );
}

interface TableProps {
  rows: DeadLetter[];
  selected: string | null;
  onOpen: (row: DeadLetter) => void;
  onCode: (code: string) => void;
}

function Table({ rows, selected, onOpen, onCode }: TableProps): JSX.Element {
  const [body, button] = useRows(rows, selected, onOpen);
  return (
    <table class="events dead-letters">
      <caption class="sr">Dead letters, the latest failure first</caption>
      <thead>
        <tr>
          <th scope="col">Failed</th>
          <th scope="col">Code</th>
          <th scope="col">Reason</th>
          <th scope="col">User</th>
          <th scope="col" class="right">Attempts</th>
        </tr>
      </thead>
      <tbody ref={body}>
        {rows.map((row, index) => (
          <tr key={row.id} aria-current={row.id === selected ? "true" : undefined}>
            <td class="col-failed"><button type="button" {...button(index)} title={describeTime(row.failedAt)}><span class="sr">Open </span><Ago time={row.failedAt} /><span class="sr">, {visible(row.code)}{row.userId === null ? "" : ` of ${exact(row.userId)}`}</span></button></td>
            <td class="col-code"><button type="button" class="link above" title="Only this code" onClick={() => onCode(row.code)}>{visible(row.code)}</button></td>
            <td class="col-meta" dir="auto">{visible(row.message.slice(0, 300))}</td>
            <td class="col-user" dir="auto">{row.userId === null ? <span class="muted absent">–</span> : exact(row.userId)}</td>
            <td class="right num col-attempts">{count(row.attempts)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
