// For work on the dashboard: serves `dist/` from disk in front of a running server, and posts events.
//
//     node dev.mjs http://127.0.0.1:3000 [--post]

import { events, post } from "./data.mjs";
import { startProxy } from "./proxy.mjs";

const [target = "http://127.0.0.1:3000", option] = process.argv.slice(2);
if (option === "--post") {
  await post(target, [...events({ now: Date.now(), hours: 24 * 7, count: 20_000 }), ...events({ now: Date.now(), hours: 1, count: 4_000 })].map((event) => JSON.stringify(event)));
}
const dist = new URL("../../eyego-log-server/dashboard/dist", import.meta.url).pathname;
const proxy = await startProxy(target, { dist });
console.log(proxy.url);
