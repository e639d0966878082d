// How each view looks: accessible, as wide as the window, and kept as pictures for a person.

import { describe, test } from "node:test";
import { mkdir } from "node:fs/promises";
import { accessible, eventually, PICTURES, post, rows, SERVER, useBrowser, visit } from "./setup.mjs";

const loaded = (page) => page.locator(".legend-item").first().waitFor();

/** Name, address, and what to do before the picture is taken. */
const STATES = [
  ["explore", "", loaded],
  ["explore-week", "#/explore?last=7d&action=SIGN_UP&by=metadata.plan", loaded],
  ["explore-event", "#/explore?last=24h&action=CHECKOUT", async (page) => {
    await loaded(page);
    await rows(page).nth(1).locator(".row-open").click();
    await page.locator(".drawer .json").first().waitFor();
  }],
  ["explore-hostile", "#/explore?last=7d&userId=hostile-size", async (page) => {
    await rows(page).first().locator(".row-open").click();
    await page.locator(".drawer .json").first().waitFor();
  }],
  ["explore-filter", "#/explore?metadata.browser=Safari+18", async (page) => {
    await loaded(page);
    await page.getByRole("combobox", { name: "Add a filter" }).fill("pa");
    await page.getByRole("option").first().waitFor();
  }],
  ["explore-range", "", async (page) => {
    await loaded(page);
    await page.getByRole("button", { name: "Custom" }).click();
  }],
  ["explore-export", "", async (page) => {
    await loaded(page);
    await page.getByRole("button", { name: "Export" }).click();
  }],
  ["explore-no-match", "#/explore?userId=nobody", (page) => page.getByText("No events match").waitFor()],
  ["explore-failed", "#/explore", async (page, proxy) => {
    proxy.fault = (_request, url) => (url.pathname.startsWith("/api/") ? { status: 500, body: { status: "error", message: "internal server error: the server log has the details under the request id" } } : undefined);
    await page.reload();
    await page.getByText("Something went wrong").waitFor();
  }],
  ["first-event", "#/explore", async (page, proxy) => {
    const body = { status: "success", results: 0, page: 1, data: [], nextCursor: null };
    proxy.fault = (_request, url) => (url.pathname === "/api/v1/logs" ? { status: 200, body } : undefined);
    await page.reload();
    await page.getByText("No events yet").waitFor();
  }],
  ["live", "#/live", (page) => rows(page).first().waitFor()],
  ["live-unavailable", "#/live", async (page, proxy) => {
    proxy.fault = (_request, url) => (url.pathname.endsWith("/tail") ? { status: 404 , body: { message: "no such route: x" } } : undefined);
    await page.reload();
    await page.getByText("Not available on this server").waitFor();
  }],
  ["dead-letters", "#/dead-letters", (page) => rows(page).first().waitFor()],
  ["dead-letter", "#/dead-letters?code=mongodb_121", async (page) => {
    await rows(page).first().locator(".row-open").click();
    await page.locator("pre.raw").waitFor();
  }],
  ["dead-letters-none", "#/dead-letters?code=nothing", (page) => page.getByText("No dead letters with this code").waitFor()],
  ["replay", "#/dead-letters", async (page) => {
    await rows(page).first().waitFor();
    await page.getByRole("button", { name: "Replay all…" }).click();
  }],
  ["pipeline", "#/pipeline", async (page) => {
    const load = setInterval(() => void post(SERVER, { userId: "rate", action: "RATE" }).catch(() => undefined), 30);
    try {
      await eventually("three rates", async () => (await page.locator(".stage polyline").first().getAttribute("points"))?.split(" ").length >= 3);
    } finally {
      clearInterval(load);
    }
  }],
  ["erasures", "#/erasures", async (page, proxy) => {
    await fetch(new URL("api/v1/users/pictured/logs", proxy.url), { method: "DELETE" });
    await page.reload();
    await page.locator(".erasures td", { hasText: "pictured" }).first().waitFor();
  }],
  ["erasure", "#/erasures", async (page) => {
    await page.getByLabel("User id", { exact: true }).fill("ada-101");
    await page.getByRole("button", { name: "Erase…" }).click();
  }],
  ["help", "", async (page) => {
    await loaded(page);
    await page.getByRole("button", { name: "Help" }).click();
  }],
  ["sign-in", "", async (page, proxy) => {
    proxy.fault = (_request, url) => (url.pathname.startsWith("/api/") ? { status: 401, body: { status: "fail", message: "this route needs a valid token: Authorization: Bearer <token>" } } : undefined);
    await page.reload();
    await page.getByRole("dialog").waitFor();
  }],
];

const VIEWS = new Set(["explore", "explore-event", "live", "dead-letters", "dead-letter", "pipeline", "erasures"]);

/** Every mode for the views, and the two that differ most for the other states. */
function modes(name) {
  const all = [
    { width: 1440, height: 900, theme: "light" },
    { width: 360, height: 760, theme: "dark" },
    { width: 1440, height: 900, theme: "dark" },
    { width: 360, height: 760, theme: "light" },
  ];
  return VIEWS.has(name) ? all : all.slice(0, 2);
}

async function show(shared, name, view, prepare, mode) {
  await visit(shared, view, async (page) => {
    await prepare(page, shared.proxy);
    if (PICTURES) {
      await mkdir(PICTURES, { recursive: true });
      await page.screenshot({ path: `${PICTURES}/${name}-${mode.width}-${mode.theme}.png`, animations: "disabled" });
    }
    await accessible(page, `${name} ${mode.width} ${mode.theme}`);
  }, mode);
}

describe("looks", () => {
  const shared = useBrowser();
  for (const [name, view, prepare] of STATES) {
    test(name, async () => {
      for (const mode of modes(name)) await show(shared, name, view, prepare, mode);
    });
  }
});
