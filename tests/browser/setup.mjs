// What the browser tests share: one Chromium per file, a proxy, and pages that report every error.

import assert from "node:assert/strict";
import { after, before } from "node:test";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";
import { startProxy } from "./proxy.mjs";

export const TIMEOUT = 20_000;
export const SERVER = process.env.EYEGO_URL;
export const EMPTY_SERVER = process.env.EYEGO_EMPTY_URL;
/** A server with a keys file, and a key of it with the id `reader` and the scopes `ingest` and `read`. */
export const KEYED_SERVER = process.env.EYEGO_KEYED_URL;
export const KEY = process.env.EYEGO_KEY;
export const PICTURES = process.env.EYEGO_PICTURES;

const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const AXE = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** Starts a browser and a proxy for all tests of a file. */
export function useBrowser(target = SERVER, options = {}) {
  const shared = { browser: null, proxy: null };
  before(async () => {
    shared.browser = await chromium.launch({ executablePath: process.env.EYEGO_TEST_CHROMIUM, args: FLAGS });
    shared.proxy = await startProxy(target, options);
  });
  after(async () => {
    await shared.browser?.close();
    shared.proxy?.close();
  });
  return shared;
}

/**
 * Opens a view in a new browser context, calls `use(page)`, and fails if the page logged an error, violated
 * the policy, opened a dialog or asked any other origin.
 */
export async function visit(shared, view, use, { width = 1440, height = 900, theme = "light", context: options = {} } = {}) {
  const { browser, proxy } = shared;
  proxy.fault = () => undefined;
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: theme, timezoneId: "Europe/Berlin", ...options });
  context.setDefaultTimeout(TIMEOUT);
  const problems = [];
  const page = await context.newPage();
  page.on("pageerror", (error) => problems.push(`error: ${error.message}`));
  page.on("dialog", (dialog) => problems.push(`dialog: ${dialog.message()}`));
  page.on("console", (message) => {
    // Chromium logs every failed request; some tests provoke those.
    if (message.type() === "error" && !/Failed to load resource/.test(message.text())) problems.push(`console: ${message.text()}`);
  });
  page.on("request", (request) => {
    const { protocol, origin } = new URL(request.url());
    if (protocol.startsWith("http") && origin !== new URL(proxy.url).origin) problems.push(`request to ${origin}`);
  });
  try {
    await page.goto(proxy.url + view);
    await page.locator("header.top").waitFor();
    await use(page, context);
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    if (overflow > 0) problems.push(`the page is ${overflow} px wider than the window`);
    assert.deepEqual(problems, []);
  } finally {
    await context.close();
  }
}

/** Fails if axe-core finds a serious or critical violation. */
export async function accessible(page, what) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  const serious = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  const found = serious.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.slice(0, 3).map(({ html, failureSummary }) => `${html} ${failureSummary}`).join(" | ")}`);
  assert.deepEqual(found, [], what);
}

/** Waits until `check` returns a truthy value, and returns it. */
export async function eventually(what, check, timeout = TIMEOUT) {
  const deadline = Date.now() + timeout;
  let last;
  while (Date.now() < deadline) {
    last = await check();
    if (last) return last;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`not within ${timeout} ms: ${what} (last: ${JSON.stringify(last)})`);
}

export const rows = (page) => page.locator(".events tbody tr");

/** The texts of a column of the visible rows. */
export const column = (page, name) => page.locator(`.events tbody td.col-${name}`).allInnerTexts();

/** The number of events that the overview shows. */
export async function total(page, timeout = TIMEOUT) {
  const text = page.locator(".totals b").first();
  await text.waitFor({ timeout });
  return Number((await text.innerText()).replaceAll(",", ""));
}

export async function addFilter(page, text) {
  await page.getByRole("combobox", { name: "Add a filter" }).fill(text);
  await page.keyboard.press("Enter");
}

export async function post(target, event) {
  const response = await fetch(new URL("/api/v1/logs", target), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(event),
  });
  assert.equal(response.status, 202, await response.clone().text());
  return (await response.json()).id;
}

export async function get(target, path) {
  const response = await fetch(new URL(path, target));
  return response.json();
}
