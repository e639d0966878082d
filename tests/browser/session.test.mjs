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
        await page.getByText(`does not have the scope \`${scope}\``).waitFor();
      }
      await page.getByText("Ready", { exact: true }).waitFor();
      await page.getByRole("button", { name: "Use another key" }).click();
      await page.getByRole("dialog", { name: "Sign in with a key" }).waitFor();
    }));
});
