// Reads the text format of Prometheus, as far as the server's own metrics use it.

export interface Sample {
  labels: Record<string, string>;
  value: number;
}

export class Metrics {
  private readonly families = new Map<string, Sample[]>();

  constructor(text: string) {
    for (const line of text.split("\n")) {
      const match = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/.exec(line);
      if (!match) continue;
      const [, name = "", labels = "", value = ""] = match;
      const samples = this.families.get(name) ?? [];
      samples.push({ labels: parseLabels(labels), value: value === "+Inf" ? Infinity : Number(value) });
      this.families.set(name, samples);
    }
  }

  has(name: string): boolean {
    return this.families.has(`eyego_${name}`);
  }

  all(name: string): Sample[] {
    return this.families.get(`eyego_${name}`) ?? [];
  }

  /** The sum over all labels, 0 for a metric that the server does not export. */
  sum(name: string): number {
    return this.all(name).reduce((sum, sample) => sum + sample.value, 0);
  }

  min(name: string): number | null {
    const values = this.all(name).map((sample) => sample.value);
    return values.length === 0 ? null : Math.min(...values);
  }
}

function parseLabels(text: string): Record<string, string> {
  const labels: Record<string, string> = {};
  for (const [, name = "", value = ""] of text.matchAll(/([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g)) {
    labels[name] = value.replace(/\\(.)/g, (_, c: string) => (c === "n" ? "\n" : c));
  }
  return labels;
}

/**
 * The quantile of a histogram between two scrapes, as the upper bound of its bucket. `null` without
 * observations, `Infinity` above the last bound.
 */
export function quantile(name: string, q: number, now: Metrics, before: Metrics | null): number | null {
  const bucket = `${name}_bucket`;
  const earlier = new Map(before?.all(bucket).map((sample) => [sample.labels["le"], sample.value]));
  const buckets = now.all(bucket).map(({ labels, value }) => ({
    bound: labels["le"] === "+Inf" ? Infinity : Number(labels["le"]),
    count: value - (earlier.get(labels["le"]) ?? 0),
  }));
  const total = buckets.at(-1)?.count ?? 0;
  if (total <= 0) return null;
  return buckets.find(({ count }) => count >= total * q)?.bound ?? null;
}

/** A term of an invariant. */
export interface Term {
  label: string;
  value: number;
}

export interface Balance {
  name: string;
  left: Term;
  right: Term[];
  difference: number;
}

function balance(name: string, left: Term, right: Term[]): Balance {
  const difference = left.value - right.reduce((sum, term) => sum + term.value, 0);
  return { name, left, right, difference };
}

/** The two invariants of the server. Each holds at every scrape, per process. */
export function balances(metrics: Metrics): Balance[] {
  const term = (label: string, name: string): Term => ({ label, value: metrics.sum(name) });
  const found: Balance[] = [];
  if (metrics.has("ingest_received_total")) {
    found.push(balance("Ingest", term("received", "ingest_received_total"), [
      term("queued", "ingest_queued_total"),
      term("spooled", "ingest_spooled_total"),
      term("refused", "ingest_refused_total"),
      term("in flight", "ingest_in_flight"),
    ]));
  }
  if (metrics.has("worker_consumed_total")) {
    found.push(balance("Worker", term("consumed", "worker_consumed_total"), [
      term("stored", "worker_stored_total"),
      term("duplicates", "worker_duplicates_total"),
      term("dead letters", "worker_dead_letters_total"),
      term("skipped", "worker_skipped_total"),
      term("released", "worker_released_total"),
      term("in flight", "worker_in_flight"),
    ]));
  }
  return found;
}
