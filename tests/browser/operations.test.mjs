// Dead letters, the pipeline and erasures.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { eventually, get, post, rows, SERVER, useBrowser, visit } from "./setup.mjs";

describe("dead letters", () => {
  const shared = useBrowser();
  const count = async (code = "") => (await get(SERVER, `/api/v1/dead-letters?limit=1000${code && `&code=${code}`}`)).results;

  /** Dead letters with these codes, instead of those of the server. */
  const list = (codes, nextCursor = null) => (_request, url) => {
    if (url.pathname !== "/api/v1/dead-letters") return undefined;
    const time = new Date().toISOString();
    const data = codes.map((code, n) => ({ id: String(n).padStart(24, "0"), code, message: "m", attempts: 1, userId: `user-${n}`, topic: "t", partition: 0, offset: n, queuedAt: time, failedAt: time }));
    return { status: 200, body: { status: "success", results: data.length, data, nextCursor } };
  };

  test("each shows its reason and its bytes", () =>
    visit(shared, "#/dead-letters", async (page) => {
      assert.equal(await count(), await eventually("all rows", async () => (await rows(page).count()) > 5 && rows(page).count()));
      await rows(page).filter({ hasText: "mongodb_121" }).first().locator(".row-open").click();
      const drawer = page.getByRole("complementary", { name: "Dead letter" });
      await drawer.locator("pre.raw", { hasText: '"userId":"replay-' }).waitFor();
      await drawer.getByText("of UTF-8").waitFor();
      await page.keyboard.press("Escape");
      await rows(page).filter({ hasText: "not_a_record" }).first().locator(".row-open").click();
      await drawer.locator("pre.raw", { hasText: "0000  ff fe 00" }).waitFor();
      await rows(page).filter({ hasText: "too_large" }).first().locator(".row-open").click();
      await drawer.getByText("Only the beginning of its 17,301,504 bytes is kept").waitFor();
      assert.ok(await drawer.getByRole("button", { name: "Replay…" }).isDisabled());
    }));

  test("j, k and Enter move between the rows and open them", () =>
    visit(shared, "#/live", async (page) => {
      shared.proxy.fault = list(["a", "b", "c"]);
      await page.goto(`${shared.proxy.url}#/dead-letters`);
      await rows(page).nth(2).waitFor();
      await page.keyboard.press("j");
      await page.keyboard.press("j");
      await page.keyboard.press("j");
      await page.keyboard.press("k");
      assert.ok(await rows(page).nth(1).locator(".row-open").evaluate((button) => button === document.activeElement));
      await page.keyboard.press("Enter");
      await page.getByRole("complementary", { name: "Dead letter" }).waitFor();
      await page.keyboard.press("j");
      await eventually("the next row", async () => (await rows(page).nth(2).getAttribute("aria-current")) === "true");
    }));

  test("the filter offers codes of other pages, and takes any other", () =>
    visit(shared, "#/live", async (page) => {
      shared.proxy.fault = (request, url) => {
        const isPage = url.searchParams.get("limit") === "50";
        return list(isPage ? ["unstorable"] : ["unstorable", "not_a_record"], isPage ? "next" : null)(request, url);
      };
      await page.goto(`${shared.proxy.url}#/dead-letters`);
      await rows(page).first().waitFor();
      await eventually("both codes", async () => (await page.locator("datalist option").count()) === 2);
      await page.getByLabel("code").fill("not_a_record");
      await page.waitForURL(/code=not_a_record/);
      await page.getByLabel("code").fill("mongodb_9");
      await page.keyboard.press("Enter");
      await page.waitForURL(/code=mongodb_9/);
      await page.getByLabel("code").fill("");
      await page.waitForURL(/dead-letters$/);
    }));

  test("one is replayed after a confirmation and can then be found", () =>
    visit(shared, "#/dead-letters?code=mongodb_121", async (page) => {
      const before = await count("mongodb_121");
      await rows(page).first().locator(".row-open").click();
      await page.getByRole("button", { name: "Replay…" }).click();
      const dialog = page.getByRole("dialog", { name: "Replay" });
      await dialog.getByRole("button", { name: "Cancel" }).click();
      assert.equal(await count("mongodb_121"), before);
      await page.getByRole("button", { name: "Replay…" }).click();
      await dialog.getByRole("button", { name: "Replay", exact: true }).click();
      await dialog.getByText("1 stored").waitFor();
      await dialog.getByRole("button", { name: "Close" }).last().click();
      assert.equal(await count("mongodb_121"), before - 1);
      await eventually("one row fewer", async () => (await rows(page).count()) === before - 1);
      assert.equal((await get(SERVER, "/api/v1/logs?action=REPLAYED")).results, 1);
    }));

  test("all of a code are replayed, and those that fail again are counted", () =>
    visit(shared, "#/dead-letters", async (page) => {
      await page.getByRole("button", { name: "not_a_record", exact: true }).first().click();
      await page.waitForURL(/code=not_a_record/);
      const before = await count("not_a_record");
      await page.getByRole("button", { name: "Replay this code…" }).click();
      const dialog = page.getByRole("dialog", { name: "Replay" });
      await dialog.getByText("all dead letters with the code not_a_record").waitFor();
      await dialog.getByRole("button", { name: "Replay", exact: true }).click();
      await dialog.getByText(`${before} failed again`).waitFor();
      await dialog.getByText("fix the cause").waitFor();
    }));

  test("a long replay shows its progress, and goes on after a failure", () =>
    visit(shared, "#/dead-letters", async (page) => {
      const steps = [
        { replayed: 10_000, failed: 0, remaining: 15_000 },
        { replayed: 10_000, failed: 2, remaining: 5_002 },
        null,
        { replayed: 5_000, failed: 2, remaining: 2 },
      ];
      let seen;
      const isSeen = new Promise((resolve) => { seen = resolve; });
      shared.proxy.fault = async (_request, url) => {
        if (!url.pathname.endsWith("/replay")) return undefined;
        // The second step waits until the result of the first one has been seen.
        if (steps.length === 3) await isSeen;
        const step = steps.shift();
        // Only failures have a body of their own in the proxy, so a status of 200 serves as one.
        return step ? { status: 200, body: { status: "success", ...step } } : { status: 503, body: { status: "error", message: "the store is unavailable; retry later" } };
      };
      await page.getByRole("button", { name: "Replay all…" }).click();
      const dialog = page.getByRole("dialog", { name: "Replay" });
      await dialog.getByRole("button", { name: "Replay", exact: true }).click();
      await dialog.getByText("10,000 stored, 15,000 dead letters remain").waitFor();
      seen();
      await dialog.getByText("the store is unavailable").waitFor();
      await dialog.getByRole("button", { name: "Continue" }).click();
      await dialog.getByText("25,000 stored, 2 failed again, 2 dead letters remain").waitFor();
      assert.equal(steps.length, 0);
    }));
});

describe("pipeline", () => {
  const shared = useBrowser();

  test("rates, balances and parts follow the server", () =>
    visit(shared, "#/pipeline", async (page) => {
      await page.getByText("Ready", { exact: true }).waitFor();
      await page.locator(".parts li", { hasText: /queue|kafka/ }).waitFor();
      assert.equal(await page.locator(".balance .verdict-good").count(), 2);
      const received = page.locator(".stage", { hasText: "Received" });
      const timer = setInterval(() => void post(SERVER, { userId: "rate", action: "RATE" }).catch(() => undefined), 50);
      try {
        for (const stage of ["Received", "Queued", "Consumed", "Stored"]) {
          await eventually(`a rate of ${stage}`, async () => Number.parseFloat(await page.locator(".stage", { hasText: stage }).locator(".big").innerText()) > 0);
        }
      } finally {
        clearInterval(timer);
      }
      const levels = await page.getByRole("heading").evaluateAll((all) => all.map(({ tagName }) => Number(tagName[1])));
      assert.ok(levels.every((level, index) => index === 0 || level <= levels[index - 1] + 1), levels.join(", "));
      await received.locator("polyline").waitFor({ state: "attached" });
      await page.locator(".gauge", { hasText: "Received to stored" }).getByText("≤").first().waitFor();
    }));

  test("an imbalance, exceptions and labels are shown as they are", () =>
    visit(shared, "#/pipeline", async (page) => {
      await page.locator(".balance").first().waitFor();
      const text = [
        "eyego_ingest_received_total 12", "eyego_ingest_queued_total 7", 'eyego_ingest_refused_total{reason="invalid"} 3',
        'eyego_ingest_refused_total{reason="rate_limited"} 1', "eyego_ingest_in_flight 0", "eyego_worker_consumed_total 9", "eyego_worker_stored_total 4",
        'eyego_worker_skipped_total{reason="erased"} 2', 'eyego_worker_dead_letters_total{code="a\\"b"} 3',
        'eyego_worker_lag{partition="0"} 0', 'eyego_worker_lag{partition="1"} 41', 'eyego_worker_retention_left_seconds{partition="1"} 90000',
        "eyego_spool_records 5", "eyego_spool_in_use 0", "",
      ].join("\n");
      let body = text;
      await page.route("**/metrics", (route) => route.fulfill({ status: 200, contentType: "text/plain", body }));
      await page.locator(".verdict-bad", { hasText: "1 missing" }).waitFor();
      assert.equal(await page.locator(".verdict-good").count(), 1);
      await page.locator(".gauge", { hasText: "Lag" }).getByText("41").waitFor();
      await page.getByText("records, in 1 partition of 2").waitFor();
      await page.locator(".gauge", { hasText: "retention" }).getByText("25 h").waitFor();
      body = text.replace('{partition="1"} 41', '{partition="1"} 1');
      await page.getByText("record, in 1 partition of 2", { exact: true }).waitFor();
      body = text.replace("spool_in_use 0", "spool_in_use 1");
      await page.getByText("in use: the queue does not acknowledge").waitFor();
      await page.getByText("the last known lag is 41").waitFor();
      const exceptions = page.getByRole("region", { name: "Exceptions" });
      for (const label of ["invalid", "rate_limited", "erased", 'a"b']) await exceptions.getByText(label, { exact: true }).waitFor();
    }));

  test("health and metrics at another address are no failure", () =>
    visit(shared, "#/explore", async (page) => {
      shared.proxy.fault = (_request, url) => (/^\/(health\/|metrics)/.test(url.pathname) ? { status: 404, body: { status: "fail", message: `no such route: ${url.pathname}` } } : undefined);
      await page.keyboard.press("4");
      await page.getByText("operations-listen").waitFor();
      await page.locator(".top .status", { hasText: "unknown" }).waitFor();
    }));

  test("the lag is unknown while the queue that it comes from is down", () =>
    visit(shared, "#/pipeline", async (page) => {
      const lag = page.locator(".gauge", { hasText: "Lag" });
      await lag.getByText("everything is committed").waitFor();
      shared.proxy.fault = (_request, url) => (url.pathname === "/health/ready" ? { status: 503, body: { status: "error", message: "not ready", parts: { kafka: { state: "down", reason: "r" } } } } : undefined);
      await lag.getByText("unknown", { exact: true }).waitFor();
      await lag.getByText("The queue is unavailable; the last known lag is 0.").waitFor();
    }));

  test("a part that is down names its reason, here and in the header", () =>
    visit(shared, "#/explore", async (page) => {
      const body = { status: "error", message: "not ready: kafka: Kafka at k1:9092: cannot be reached", parts: { kafka: { state: "down", reason: "Kafka at k1:9092: cannot be reached" }, mongodb: { state: "warning", reason: "one member is behind" } } };
      shared.proxy.fault = (_request, url) => (url.pathname === "/health/ready" ? { status: 503, body } : undefined);
      await page.keyboard.press("4");
      await page.getByText("Kafka at k1:9092: cannot be reached").waitFor();
      await page.getByText("one member is behind").waitFor();
      await page.locator(".top .status", { hasText: "not ready" }).waitFor();
    }));
});

describe("erasures", () => {
  const shared = useBrowser();

  test("a user is erased after the id is typed again, and the result is counted", () =>
    visit(shared, "#/erasures", async (page) => {
      await page.getByLabel("User id", { exact: true }).fill("live-nobody <b>");
      await page.getByRole("button", { name: "Erase…" }).click();
      const dialog = page.getByRole("dialog");
      const confirm = dialog.getByRole("button", { name: "Erase", exact: true });
      assert.ok(await confirm.isDisabled());
      await dialog.getByLabel("Type the user id to confirm").fill("live-nobody <b");
      assert.ok(await confirm.isDisabled());
      await dialog.getByLabel("Type the user id to confirm").fill("live-nobody <b>");
      await confirm.click();
      await page.locator(".erasures td", { hasText: "live-nobody <b>" }).waitFor();
      const { data: [{ id, requestedAt }] } = await get(SERVER, "/api/v1/erasures?limit=1");
      await page.locator(".erasures code", { hasText: id }).waitFor();
      const zone = { timeZone: "Europe/Berlin", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
      await page.locator(".erasures td", { hasText: new Date(requestedAt).toLocaleTimeString("en-GB", zone) }).first().waitFor();
      // The second pass follows 90 s after the first.
      await page.locator(".erasures td", { hasText: "done" }).waitFor({ timeout: 180_000 });
      assert.ok(shared.proxy.requests.includes("DELETE /api/v1/users/live-nobody%20%3Cb%3E/logs"));
    }));

  test("a long id leaves the other columns in view", () =>
    visit(shared, "#/live", async (page) => {
      const row = { id: "0".repeat(24), userId: "u".repeat(256), requestedAt: new Date().toISOString(), state: "running", removed: { store: 1, deadLetters: 0 } };
      shared.proxy.fault = (_request, url) => (url.pathname === "/api/v1/erasures" ? { status: 200, body: { status: "success", results: 1, data: [row], nextCursor: null } } : undefined);
      await page.goto(`${shared.proxy.url}#/erasures`);
      const panel = await page.getByRole("region", { name: "Erasures", exact: true }).boundingBox();
      const last = await page.locator(".erasures td").last().boundingBox();
      assert.ok(last.x + last.width <= panel.x + panel.width + 1, JSON.stringify({ panel, last }));
    }));

  test("users whose ids a browser cannot put into a path are left to the command line", () =>
    visit(shared, "#/erasures", async (page) => {
      for (const userId of [".", ".."]) {
        await page.getByLabel("User id", { exact: true }).fill(userId);
        await page.getByRole("button", { name: "Erase…" }).click();
        await page.getByRole("alert").filter({ hasText: `eyego-log-server erase ${userId}` }).waitFor();
      }
      assert.equal(await page.getByRole("dialog").count(), 0);
    }));

  test("a server without erasures says so", () =>
    visit(shared, "#/explore", async (page) => {
      shared.proxy.fault = (_request, url) => (url.pathname.endsWith("/erasures") ? { status: 404, body: { status: "fail", message: "no such route: /api/v1/erasures" } } : undefined);
      await page.keyboard.press("5");
      await page.getByText("Not available on this server").waitFor();
    }));
});
