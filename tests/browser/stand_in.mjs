// The reading routes of the contract, for a server that does not have them yet: statistics, tail, export
// and erasures. Each is used only if the server responds that it has no such route.

const known = new Map();

/** Returns whether the server has the route of this request. */
async function hasRoute(target, route, probe) {
  const key = `${target} ${route}`;
  if (!known.has(key)) {
    const controller = new AbortController();
    const response = await fetch(new URL(probe, target), { signal: controller.signal });
    const isMissing = response.status === 404 || (response.status === 400 && (await response.text()).includes('"path":"id"'));
    controller.abort();
    known.set(key, !isMissing);
  }
  return known.get(key);
}

const ROUTES = [
  { name: "stats", matches: (method, path) => path === "/api/v1/stats", probe: "/api/v1/stats", serve: stats },
  { name: "tail", matches: (method, path) => path === "/api/v1/logs/tail", probe: "/api/v1/logs/tail", serve: tail },
  { name: "export", matches: (method, path) => path === "/api/v1/logs/export", probe: "/api/v1/logs/export?limit=x", serve: exportEvents },
  { name: "erasures", matches: (method, path) => path === "/api/v1/erasures", probe: "/api/v1/erasures", serve: listErasures },
  { name: "erase", matches: (method, path) => method === "DELETE" && /^\/api\/v1\/users\/[^/]+\/logs$/.test(path), probe: "/api/v1/erasures", serve: erase },
];

/** Serves the request if it is for a route that the server lacks. */
export async function standIn(proxy, target, request, url, response) {
  const route = ROUTES.find(({ matches }) => matches(request.method, url.pathname));
  if (!route || (await hasRoute(target, route.name, route.probe))) return false;
  await route.serve({ proxy, target, request, url, response });
  return true;
}

function json(response, status, body) {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(body));
}

/** All events that the parameters select, the latest first. */
async function select(target, url, extra = {}) {
  const query = new URLSearchParams([...url.searchParams].filter(([name]) => /^(userId|action|from|to|metadata\..*)$/.test(name)));
  for (const [name, value] of Object.entries(extra)) query.set(name, value);
  const events = [];
  let cursor = null;
  do {
    const page = new URLSearchParams(query);
    page.set("limit", "1000");
    if (cursor) page.set("cursor", cursor);
    const response = await fetch(new URL(`/api/v1/logs?${page}`, target));
    const body = await response.json();
    if (!response.ok) throw new Error(body.message);
    events.push(...body.data);
    cursor = body.nextCursor;
  } while (cursor);
  return events;
}

function valueOf(event, by) {
  if (by === "action" || by === "userId") return event[by];
  const value = by.split(".").slice(1).reduce((object, key) => object?.[key], event.metadata);
  return value === undefined ? undefined : typeof value === "string" ? value : JSON.stringify(value);
}

const STEPS = { "1m": 60_000, "5m": 300_000, "1h": 3_600_000, "1d": 86_400_000 };

async function stats({ target, url, response }) {
  const [from, to] = ["from", "to"].map((name) => Date.parse(url.searchParams.get(name)));
  const by = url.searchParams.get("by") ?? "action";
  const events = await select(target, url);
  const interval = Object.keys(STEPS).find((name) => (to - from) / STEPS[name] <= 150) ?? "1d";
  const step = STEPS[interval];
  const buckets = new Map();
  const groups = new Map();
  for (const event of events) {
    const start = Math.floor(Date.parse(event.timestamp) / step) * step;
    const bucket = buckets.get(start) ?? { start: new Date(start).toISOString(), count: 0, by: {} };
    buckets.set(start, bucket);
    bucket.count += 1;
    const value = valueOf(event, by);
    if (value === undefined) continue;
    bucket.by[value] = (bucket.by[value] ?? 0) + 1;
    const group = groups.get(value) ?? { value, count: 0, users: new Set() };
    groups.set(value, group);
    group.count += 1;
    group.users.add(event.userId);
  }
  const top = [...groups.values()].sort((a, b) => b.count - a.count).slice(0, Number(url.searchParams.get("top") ?? 10));
  const names = new Set(top.map(({ value }) => value));
  for (const bucket of buckets.values()) {
    let other = 0;
    for (const [value, count] of Object.entries(bucket.by)) {
      if (names.has(value)) continue;
      other += count;
      delete bucket.by[value];
    }
    if (other > 0) bucket.by.other = other;
  }
  json(response, 200, {
    status: "success",
    data: {
      total: events.length,
      users: new Set(events.map(({ userId }) => userId)).size,
      approximate: false,
      interval,
      buckets: [...buckets.values()].sort((a, b) => (a.start < b.start ? -1 : 1)),
      top: top.map(({ value, count, users }) => ({ value, count, users: users.size })),
    },
  });
}

async function tail({ proxy, target, request, url, response }) {
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
  const sent = new Set();
  const resumed = request.headers["last-event-id"];
  const send = (event) => {
    sent.add(event.id);
    response.write(`event: log\nid: ${event.timestamp}/${event.id}\ndata: ${JSON.stringify(event)}\n\n`);
  };
  const connection = { response };
  proxy.tails.add(connection);
  request.on("close", () => proxy.tails.delete(connection));
  const last = Number(url.searchParams.get("last") ?? 0);
  const hour = new Date(Date.now() - 3_600_000).toISOString();
  const present = await select(target, url, { from: resumed ? resumed.split("/")[0] : hour });
  const backlog = resumed ? present.filter(({ timestamp, id }) => `${timestamp}/${id}` > resumed) : present.slice(0, last);
  for (const { id } of present) sent.add(id);
  for (const event of backlog.reverse()) send(event);
  response.write(": open\n\n");
  const start = new Date(Date.now() - 60_000).toISOString();
  while (proxy.tails.has(connection)) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    try {
      const recent = await select(target, url, { from: start });
      for (const event of recent.reverse()) if (!sent.has(event.id)) send(event);
    } catch {
      response.destroy();
    }
  }
}

async function exportEvents({ target, url, response }) {
  const format = url.searchParams.get("format") ?? "ndjson";
  if (format === "parquet") {
    json(response, 400, { status: "fail", message: "format must be ndjson or csv: this server is built without parquet", errors: [{ path: "format", message: "must be ndjson or csv" }] });
    return;
  }
  const events = await select(target, url);
  response.writeHead(200, { "content-type": format === "csv" ? "text/csv" : "application/x-ndjson" });
  if (format === "csv") response.write("id,userId,action,timestamp,metadata\n");
  const cell = (text) => `"${String(/^[=+\-@\t\r]/.test(text) ? `'${text}` : text).replaceAll('"', '""')}"`;
  for (const event of events) {
    response.write(
      format === "csv"
        ? `${[event.id, event.userId, event.action, event.timestamp, JSON.stringify(event.metadata)].map(cell).join(",")}\n`
        : `${JSON.stringify(event)}\n`,
    );
  }
  response.end();
}

async function listErasures({ proxy, response }) {
  json(response, 200, { status: "success", results: proxy.erasures.length, data: proxy.erasures, nextCursor: null });
}

async function erase({ proxy, target, url, response }) {
  const userId = decodeURIComponent(url.pathname.split("/")[4]);
  const count = (await select(target, new URL(`/?userId=${encodeURIComponent(userId)}`, target))).length;
  const erasure = { id: `6b07afb50f073a072c${String(proxy.erasures.length).padStart(6, "0")}`, userId, requestedAt: new Date().toISOString(), state: "running" };
  proxy.erasures.unshift(erasure);
  setTimeout(() => {
    Object.assign(erasure, { state: "done", completedAt: new Date().toISOString(), removed: { store: count, deadLetters: 0 } });
  }, 1500);
  json(response, 202, { status: "success", data: erasure });
}
