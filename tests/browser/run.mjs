// Posts the events of the browser tests and runs the tests.
//
//     EYEGO_URL=… EYEGO_EMPTY_URL=… EYEGO_TEST_CHROMIUM=/usr/bin/chromium node run.mjs [pattern of test names]
//
// Both servers must be new: the tests count what they find. `EYEGO_PICTURES` names a directory for screenshots.

import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { events, HOSTILE, HOSTILE_LINES, post, stored } from "./data.mjs";

const server = process.env.EYEGO_URL;
const pattern = process.argv[2] ?? "";
const now = Date.now();
const line = (event) => JSON.stringify(event);

// Only the test of many rows needs them.
const count = pattern === "" ? 100_000 : 0;
const long = Date.now() - 40 * 86_400_000;
const bulk = Array.from({ length: count }, (_, n) => line({ userId: "bulk", action: "BULK", timestamp: new Date(long - n * 100).toISOString(), metadata: { n } }));
await post(server, bulk);
await post(server, [...events({ now, hours: 24 * 7, count: 6_000 }), ...events({ now, hours: 1, count: 3_000 })].map(line));
await post(server, [...HOSTILE.map(line), ...HOSTILE_LINES]);
await stored(server, "hostile-deep");

const here = import.meta.dirname ?? new URL(".", import.meta.url).pathname;
const files = readdirSync(here).filter((name) => name.endsWith(".test.mjs")).sort();
const filter = pattern === "" ? [] : ["--test-name-pattern", pattern];
const run = spawnSync(process.execPath, ["--test", "--test-reporter=spec", "--test-concurrency=2", ...filter, ...files], { cwd: here, stdio: "inherit" });
process.exit(run.status ?? 1);
