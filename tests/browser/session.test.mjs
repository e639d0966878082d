// Signing in with a key, and what a key may not do, on a server with a keys file.

import assert from "node:assert/strict";
import { before, describe, test } from "node:test";
import { eventually, KEY, KEYED_SERVER, rows, useBrowser, visit } from "./setup.mjs";

describe("session", () => {
  const shared = useBrowser(KEYED_SERVER);

  before(async () => {
    const authorization = `Bearer ${KEY}`;
    await fetch(new URL("/api/v1/logs", KEYED_SERVER), { method: "POST", headers: { "content-type": "application/json", authorization }, body: JSON.stringify({ userId: "u", action: "A" }) });
    await eventually("the event", async () => {
      const response = await fetch(new URL("/api/v1/logs", KEYED_SERVER), { headers: { authorization } });
      return (await response.json()).results > 0;
    });
  });

  test("a key is asked for, sent as a header, and kept in this tab only", () =>
    visit(shared, "", async (page, context) => {
      const dialog = page.getByRole("dialog", { name: "Sign in with a key" });
      await dialog.getByLabel("API key").fill(`${KEY.slice(0, -1)}!`);
      await dialog.getByRole("button", { name: "Sign in" }).click();
      await eventually("the wrong key to be refused", async () => (await dialog.getByLabel("API key").count()) === 1 && (await dialog.getByLabel("API key").inputValue()) === "");
      await dialog.getByLabel("API key").fill(KEY);
      await page.keyboard.press("Enter");
      await rows(page).first().waitFor();
      const kept = await page.evaluate(() => ({ session: JSON.stringify(sessionStorage), local: JSON.stringify(localStorage), cookie: document.cookie, address: location.href, page: document.documentElement.outerHTML }));
      assert.ok(kept.session.includes(KEY));
      for (const place of ["local", "cookie", "address", "page"]) assert.ok(!kept[place].includes(KEY), place);
      assert.ok(shared.proxy.requests.every((request) => !request.includes(KEY)));
      await page.reload();
      await rows(page).first().waitFor();
      const other = await context.newPage();
      await other.goto(shared.proxy.url);
      await other.getByRole("dialog", { name: "Sign in with a key" }).waitFor();
      await other.close();
      await page.getByRole("button", { name: "Sign out, key reader" }).click();
      await dialog.waitFor();
      assert.equal(await page.evaluate(() => sessionStorage.length), 0);
    }));

  test("a key that no header can have is refused like any other wrong key", () =>
    visit(shared, "", async (page) => {
      const dialog = page.getByRole("dialog", { name: "Sign in with a key" });
      await dialog.getByLabel("API key").fill("eyego_reader_ключ");
      await page.keyboard.press("Enter");
      await dialog.getByText("The server does not accept this key").waitFor();
      assert.equal(await page.getByText("cannot be reached").count(), 0);
      await dialog.getByLabel("API key").fill(KEY);
      await page.keyboard.press("Enter");
      await rows(page).first().waitFor();
    }));

  test("a missing scope is named where it is missing, and the rest works", () =>
    visit(shared, "", async (page) => {
      await page.getByLabel("API key").fill(KEY);
      await page.keyboard.press("Enter");
      await rows(page).first().waitFor();
      for (const [name, scope] of [["Dead letters", "admin"], ["Pipeline", "metrics"]]) {
        await page.getByRole("link", { name, exact: true }).click();
        await page.getByText("Not allowed").waitFor();
        // The names are marked as code.
        await page.locator(".state p", { hasText: `The key reader does not have the scope ${scope}` }).waitFor();
        assert.deepEqual(await page.locator(".state p code").allInnerTexts(), ["reader", scope]);
      }
      await page.getByText("Ready", { exact: true }).waitFor();
      await page.getByRole("button", { name: "Use another key" }).click();
      await page.getByRole("dialog", { name: "Sign in with a key" }).waitFor();
    }));

  const denied = { status: 403, body: { status: "fail", message: "the key `other` does not have the scope `read`" } };
  const onApi = (fault) => (_request, url) => (url.pathname.startsWith("/api/") ? fault : undefined);

  /** Signs in and opens an event of Explore. */
  async function openEvent(page) {
    await page.getByLabel("API key").fill(KEY);
    await page.keyboard.press("Enter");
    await rows(page).first().locator(".row-open").click();
    await page.locator(".drawer").waitFor();
  }

  /** The text below the header. */
  const shown = (page) => page.locator("main").innerText();

  test("signing out removes all data from the page, and the next key does not inherit it", () =>
    visit(shared, "", async (page) => {
      await openEvent(page);
      await page.getByRole("button", { name: "Sign out, key reader" }).click();
      const dialog = page.getByRole("dialog", { name: "Sign in with a key" });
      await dialog.getByText("Signed out.").waitFor();
      assert.equal(await shown(page), "Explore");
      assert.equal(await page.locator(".drawer, .events, .overview").count(), 0);
      const requests = () => shared.proxy.requests.filter((request) => request.includes("/api/")).length;
      const before = requests();
      await page.waitForTimeout(500);
      assert.equal(await dialog.getByText("Signed out.").count(), 1);
      assert.equal(requests(), before, "without a key nothing is requested");
      shared.proxy.fault = onApi(denied);
      await dialog.getByLabel("API key").fill("eyego_other_key");
      await page.keyboard.press("Enter");
      await page.getByText("Not allowed").waitFor();
      assert.equal(await page.locator(".drawer, .events, .overview").count(), 0);
    }));

  for (const [what, fault, heading] of [
    ["a revoked key", { status: 401, body: { status: "fail", message: "unknown key" } }, "Sign in with a key"],
    ["a key without the scope", denied, "Not allowed"],
  ]) {
    test(`${what} removes the events and the open one`, () =>
      visit(shared, "", async (page) => {
        await openEvent(page);
        shared.proxy.fault = onApi(fault);
        await page.keyboard.press("r");
        await page.getByRole("heading", { name: heading }).waitFor();
        assert.equal(await page.locator(".drawer, .events, .overview").count(), 0);
      }));

    test(`${what} removes the rows of Live`, () =>
      visit(shared, "#/live", async (page) => {
        await page.getByLabel("API key").fill(KEY);
        await page.keyboard.press("Enter");
        await rows(page).first().waitFor();
        shared.proxy.fault = onApi(fault);
        for (const { response } of shared.proxy.tails) response.destroy();
        await page.getByRole("heading", { name: heading }).waitFor();
        assert.equal(await rows(page).count(), 0);
      }));
  }
});

describe("session on a server whose access changes", () => {
  const shared = useBrowser();

  for (const [view, path, shown] of [
    ["dead-letters", "/api/v1/dead-letters", ".events"],
    ["erasures", "/api/v1/erasures", ".erasures"],
    ["pipeline", "/metrics", ".stages"],
  ]) {
    test(`${view} removes its data when the access ends`, () =>
      visit(shared, "#/live", async (page) => {
        const time = new Date().toISOString();
        const row = { id: "0".repeat(24), code: "unstorable", message: "m", attempts: 1, userId: "secret", topic: "t", partition: 0, offset: 0, queuedAt: time, failedAt: time, requestedAt: time, state: "done" };
        const list = { status: 200, body: { status: "success", results: 1, data: [row], nextCursor: null } };
        shared.proxy.fault = (_request, url) => (url.pathname.startsWith("/api/v1/") && url.pathname === path ? list : undefined);
        await page.goto(`${shared.proxy.url}#/${view}`);
        await page.locator(shown).waitFor();
        shared.proxy.fault = (_request, url) => (url.pathname === path ? { status: 403, body: { status: "fail", message: "no" } } : undefined);
        await page.keyboard.press("r");
        await page.getByText("Not allowed").waitFor();
        assert.equal(await page.locator(shown).count(), 0);
        assert.equal(await page.getByText("secret").count(), 0);
      }));
  }
});
