// Live: events appear as they are stored, without a gap, and without silence about losses.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { addFilter, column, eventually, post, rows, SERVER, useBrowser, visit } from "./setup.mjs";

describe("live", () => {
  const shared = useBrowser();

  test("new events appear on top, filtered by the server", () =>
    visit(shared, "#/live", async (page) => {
      await page.getByText("Connected").waitFor();
      await post(SERVER, { userId: "live-1", action: "LIVE_ONE" });
      await page.locator("td.col-action", { hasText: "LIVE_ONE" }).waitFor();
      assert.equal((await column(page, "action"))[0], "LIVE_ONE");
      await addFilter(page, "user=live-2");
      await page.waitForURL(/userId=live-2/);
      await page.getByText("Connected").waitFor();
      await post(SERVER, { userId: "live-1", action: "OTHER" });
      await post(SERVER, { userId: "live-2", action: "WANTED" });
      await page.locator("td.col-action", { hasText: "WANTED" }).waitFor();
      assert.deepEqual(await column(page, "action"), ["WANTED"]);
      assert.ok(shared.proxy.requests.some((request) => /tail\?.*userId=live-2/.test(request)));
    }));

  test("pause holds the rows and resume shows what came meanwhile", () =>
    visit(shared, "#/live?userId=live-pause", async (page) => {
      await page.getByText("Connected").waitFor();
      await page.keyboard.press("p");
      await page.getByText("Paused").waitFor();
      await post(SERVER, { userId: "live-pause", action: "HELD" });
      await page.getByRole("button", { name: "1 new" }).waitFor();
      assert.equal(await rows(page).count(), 0);
      await page.keyboard.press("p");
      await page.locator("td.col-action", { hasText: "HELD" }).waitFor();
    }));

  test("a broken connection resumes without a gap or a repetition", () =>
    visit(shared, "#/live?userId=live-cut", async (page) => {
      await page.getByText("Connected").waitFor();
      await post(SERVER, { userId: "live-cut", action: "BEFORE" });
      await page.locator("td.col-action", { hasText: "BEFORE" }).waitFor();
      shared.proxy.fault = (_request, url) => (url.pathname.endsWith("/tail") ? { status: 503 } : undefined);
      for (const { response } of shared.proxy.tails) response.destroy();
      await page.getByText("Reconnecting").waitFor();
      await post(SERVER, { userId: "live-cut", action: "MEANWHILE" });
      shared.proxy.fault = () => undefined;
      await page.locator("td.col-action", { hasText: "MEANWHILE" }).waitFor();
      await post(SERVER, { userId: "live-cut", action: "AFTER" });
      await page.locator("td.col-action", { hasText: "AFTER" }).waitFor();
      assert.deepEqual(await column(page, "action"), ["AFTER", "MEANWHILE", "BEFORE"]);
    }));

  test("a store that is down is named, although the connection is open", () =>
    visit(shared, "#/explore", async (page) => {
      await page.getByText("ready", { exact: true }).waitFor();
      const body = { status: "success", message: "ready", parts: { kafka: { state: "up" }, mongodb: { state: "down", reason: "r" } } };
      shared.proxy.fault = (_request, url) => (url.pathname === "/health/ready" ? { status: 200, body } : undefined);
      await page.goto(`${shared.proxy.url}#/live`);
      await page.reload();
      await page.getByText("Connected, but the store is down: events appear once it is back.").waitFor();
      assert.equal(await page.locator(".connection .health-up").count(), 0);
    }));

  test("a broken connection is retried after at most 5 s, or at once by a button", () =>
    visit(shared, "#/live", async (page) => {
      await page.getByText("Connected").waitFor();
      const attempts = () => shared.proxy.requests.filter((request) => request.includes("/tail")).length;
      shared.proxy.fault = (_request, url) => (url.pathname.endsWith("/tail") ? { status: 503 } : undefined);
      for (const { response } of shared.proxy.tails) response.destroy();
      const button = page.getByRole("button", { name: "Reconnect now" });
      for (let attempt = 0; attempt < 6; attempt += 1) {
        await button.waitFor();
        await page.locator(".connection", { hasText: /Next attempt in [1-5] s/ }).waitFor();
        const before = attempts();
        await button.click();
        await eventually("another attempt", () => attempts() > before, 1_500);
      }
      await page.locator(".connection", { hasText: "in 5 s" }).waitFor();
      shared.proxy.fault = () => undefined;
      await page.getByText("Connected").waitFor({ timeout: 7_000 });
    }));

  test("skipped events are counted on the page", () =>
    visit(shared, "#/live?userId=live-skip", async (page) => {
      await page.getByText("Connected").waitFor();
      // The proxy adds the message to the open stream.
      await eventually("a tail", () => shared.proxy.tails.size > 0);
      for (const { response } of shared.proxy.tails) response.write('event: skipped\ndata: {"count": 1234}\n\n');
      await page.getByText("1,234 skipped").waitFor();
    }));

  test("a server without tail, and a store that cannot, say so", () =>
    visit(shared, "#/pipeline", async (page) => {
      shared.proxy.fault = (_request, url) => (url.pathname.endsWith("/tail") ? { status: 404, body: { status: "fail", message: "no such route: /api/v1/logs/tail" } } : undefined);
      await page.getByRole("link", { name: "Live", exact: true }).click();
      await page.getByText("Not available on this server").waitFor();
      await page.getByText("GET /api/v1/logs/tail").waitFor();
      await page.getByRole("link", { name: "Explore", exact: true }).click();
      shared.proxy.fault = (_request, url) => (url.pathname.endsWith("/tail") ? { status: 501, body: { status: "error", message: "the tail needs a replica set" } } : undefined);
      await page.getByRole("link", { name: "Live", exact: true }).click();
      await page.getByText("the tail needs a replica set").waitFor();
    }));
});
