// Pipeline: whether the server keeps up, and where it does not.

import type { ComponentChildren, JSX } from "preact";
import { count, plural, seconds } from "../lib/format";
import { useKeys } from "../lib/keys";
import { useLoad } from "../lib/load";
import { balances, type Metrics, quantile } from "../lib/metrics";
import { type Health, INTERVAL, loadHealth, loadMetrics, partOf, SAMPLES, gauges, type Scrape } from "../lib/pipeline";
import { BalanceRow } from "../ui/BalanceRow";
import { Failed, Stale } from "../ui/Failed";
import { Skeleton } from "../ui/Skeleton";
import { Spark } from "../ui/Spark";
import { Stage } from "../ui/Stage";

export function Pipeline(): JSX.Element {
  const health = useLoad("health", loadHealth, { interval: INTERVAL });
  const metrics = useLoad("metrics", loadMetrics, { interval: INTERVAL });
  useKeys({ r: () => { health.reload(); metrics.reload(); } });
  const scrapes = metrics.data ?? [];
  return (
    <div class="view">
      <div class="toolbar"><h1>Pipeline</h1><p class="muted toolbar-note">Figures of the process that responds, since its start; refreshed every 2 s.</p></div>
      {health.data && <Parts health={health.data} />}
      {metrics.failure && metrics.data && <Stale failure={metrics.failure} onRetry={metrics.reload} />}
      {metrics.failure && !metrics.data
        ? <section class="panel"><Failed failure={metrics.failure} route="GET /metrics" note="Metrics and health have an address of their own if the server has the option `operations-listen`, which names it." onRetry={metrics.reload} /></section>
        : scrapes.length === 0
          ? <section class="panel"><Skeleton rows={6} /></section>
          : <Figures scrapes={scrapes} health={health.data} />}
    </div>
  );
}

function Parts({ health }: { health: Health }): JSX.Element {
  const parts = Object.entries(health.parts);
  return (
    <section class="panel parts" aria-label="Health">
      <p class="verdict-line" role="status">
        <span class={`health ${health.isReady ? "health-up" : "health-down"}`} />
        <b>{health.isReady ? "Ready" : "Not ready"}</b>
        {!health.isReady && parts.length === 0 && <span>{health.message}</span>}
        {health.message === "stopping" && <span>The process is stopping.</span>}
      </p>
      <ul>
        {parts.map(([name, part]) => (
          <li key={name}>
            <span class={`health health-${part.state}`} />
            <b>{name}</b> <span class="muted">{part.state}</span>
            {part.reason !== undefined && <div class="reason">{part.reason}</div>}
          </li>
        ))}
      </ul>
    </section>
  );
}

function Figures({ scrapes, health }: { scrapes: Scrape[]; health: Health | null }): JSX.Element {
  const metrics = scrapes.at(-1)!.metrics;
  const hasIngest = metrics.has("ingest_received_total");
  const hasWorker = metrics.has("worker_consumed_total");
  // The lag comes from the queue. While that is down, the metric keeps its last value. With a spool, the queue only
  // has a warning.
  const isQueueUp = partOf(health, "queue")?.state !== "down" && metrics.sum("spool_in_use") === 0;
  return (
    <>
      <section class="panel" aria-label="Stages">
        <ol class="stages">
          {hasIngest && <Stage title="Received" metric="ingest_received_total" scrapes={scrapes} />}
          {hasIngest && <Stage title="Queued" metric="ingest_queued_total" scrapes={scrapes} />}
          {hasWorker && <Stage title="Consumed" metric="worker_consumed_total" scrapes={scrapes} />}
          {hasWorker && <Stage title="Stored" metric="worker_stored_total" scrapes={scrapes} />}
        </ol>
        {!hasWorker && <p class="hint">This process has no worker. Open the dashboard's figures of a worker through its own address.</p>}
      </section>
      <section class="panel gauges" aria-label="Gauges">
        {hasWorker && (
          <Gauge title="Lag" value={isQueueUp ? count(metrics.sum("worker_lag")) : "unknown"} note={isQueueUp ? lagNote(metrics) : `The queue is unavailable; the last known lag is ${count(metrics.sum("worker_lag"))}.`}>
            {isQueueUp && <Spark values={gauges(scrapes, "worker_lag")} slots={SAMPLES + 1} />}
          </Gauge>
        )}
        {hasIngest && <Latency title="Received to queued" name="ingest_received_to_queued_seconds" scrapes={scrapes} />}
        {hasWorker && <Latency title="Received to stored" name="worker_received_to_stored_seconds" scrapes={scrapes} />}
        {isQueueUp && metrics.has("worker_retention_left_seconds") && (
          <Gauge title="Queue's retention left" value={seconds(metrics.min("worker_retention_left_seconds") ?? 0)} note="until unconsumed records are deleted" />
        )}
        {metrics.has("spool_records")
          ? <Gauge title="Spool" value={count(metrics.sum("spool_records"))} note={metrics.sum("spool_in_use") > 0 ? "in use: the queue does not acknowledge" : "records; not in use"} />
          : <Gauge title="Spool" value="–" note="not configured" />}
      </section>
      <section class="panel" aria-label="Balance">
        <h2>Balance</h2>
        <p class="hint">Every event is in exactly one place. A difference would be a bug.</p>
        {balances(metrics).map((balance) => <BalanceRow key={balance.name} balance={balance} />)}
      </section>
      <Exceptions metrics={metrics} />
    </>
  );
}

function lagNote(metrics: Metrics): string {
  const behind = metrics.all("worker_lag").filter((sample) => sample.value > 0);
  if (behind.length === 0) return "everything is committed";
  const noun = metrics.sum("worker_lag") === 1 ? "record" : "records";
  return `${noun}, in ${plural(behind.length, "partition")} of ${metrics.all("worker_lag").length}`;
}

function Latency({ title, name, scrapes }: { title: string; name: string; scrapes: Scrape[] }): JSX.Element {
  const now = scrapes.at(-1)!.metrics;
  const before = scrapes[0]!.metrics;
  const isRecent = quantile(name, 0.99, now, before) !== null;
  const p = (q: number): string => {
    const value = quantile(name, q, now, isRecent ? before : null);
    return value === null ? "–" : value === Infinity ? "over 1 min" : `≤ ${seconds(value)}`;
  };
  return <Gauge title={title} value={p(0.99)} note={`p99; p50 ${p(0.5)}${isRecent ? "" : ", since the start"}`} />;
}

function Gauge({ title, value, note, children }: { title: string; value: string; note: string; children?: ComponentChildren }): JSX.Element {
  return (
    <div class="gauge">
      <h2 class="label">{title}</h2>
      <div class="big num">{value}</div>
      <div class="muted">{note}</div>
      {children}
    </div>
  );
}

const EXCEPTIONS: [string, string, string][] = [
  ["ingest_refused_total", "refused", "event not accepted"],
  ["ingest_bodies_refused_total", "bodies refused", "before their events were read"],
  ["access_refused_total", "requests refused", "by the access rules"],
  ["key_limited_total", "limited", "by the limit of a key"],
  ["tls_handshakes_failed_total", "TLS handshakes failed", "not a TLS client, or one without a common version"],
  ["worker_dead_letters_total", "dead letters", "kept with their bytes"],
  ["worker_conflicts_total", "conflicts", "another event has the same id"],
  ["worker_skipped_total", "skipped", "not stored on purpose"],
  ["worker_expired_total", "expired", "deleted by the queue before they were consumed"],
  ["spool_quarantined_total", "quarantined", "the spool's file keeps a copy"],
  ["log_lines_dropped_total", "log lines dropped", "standard error was not read"],
];

function Exceptions({ metrics }: { metrics: Metrics }): JSX.Element {
  const rows = EXCEPTIONS.flatMap(([name, label, note]) =>
    metrics.all(name).filter(({ value }) => value > 0).map(({ labels, value }) => {
      const detail = Object.values(labels).join(", ");
      return { key: `${name}${detail}`, label, detail, note, value };
    }),
  );
  return (
    <section class="panel" aria-label="Exceptions">
      <h2>Exceptions</h2>
      {rows.length === 0
        ? <p class="hint">Nothing was refused, skipped, expired or dropped since the start.</p>
        : (
          <table class="plain">
            <thead><tr><th scope="col">What</th><th scope="col">Reason</th><th scope="col" class="right">Count</th></tr></thead>
            <tbody>
              {rows.map((row) => (
                <tr key={row.key}><td>{row.label}</td><td>{row.detail === "" ? row.note : <code>{row.detail}</code>}</td><td class="right num">{count(row.value)}</td></tr>
              ))}
            </tbody>
          </table>
        )}
    </section>
  );
}
