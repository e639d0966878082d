// Signing in with a key, and what a key may not do.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { rows, useBrowser, visit } from "./setup.mjs";

const KEY = `eyego_reader_${"a".repeat(43)}`;

/** What a server with a keys file does, in front of one without. */
function guard(proxy, forbidden = []) {
  proxy.fault = (request, url) => {
    if (url.pathname.startsWith("/health/") || url.pathname === "/" || url.pathname.startsWith("/assets/")) return undefined;
    if (request.headers.authorization !== `Bearer ${KEY}`) return { status: 401, body: { status: "fail", message: "this route needs a valid token: Authorization: Bearer <token>" } };
    const scope = forbidden.find(([path]) => url.pathname.startsWith(path))?.[1];
    return scope ? { status: 403, body: { status: "fail", message: `the key "reader" lacks the scope ${scope}` } } : undefined;
  };
}

describe("session", () => {
  const shared = useBrowser();

  test("a key is asked for, sent as a header, and kept in this tab only", () =>
    visit(shared, "#/erasures", async (page, context) => {
      guard(shared.proxy);
      await page.goto(shared.proxy.url);
      await page.reload();
      const dialog = page.getByRole("dialog", { name: "Sign in with a key" });
      await dialog.getByText("needs a valid token").waitFor();
      await dialog.getByLabel("API key").fill("eyego_wrong_key");
      await dialog.getByRole("button", { name: "Sign in" }).click();
      await dialog.getByText("needs a valid token").waitFor();
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

  test("a missing scope is named where it is missing, and the rest works", () =>
    visit(shared, "#/erasures", async (page) => {
      guard(shared.proxy, [["/api/v1/dead-letters", "admin"], ["/metrics", "metrics"], ["/api/v1/erasures", "erase"]]);
      await page.goto(shared.proxy.url);
      await page.reload();
      await page.getByLabel("API key").fill(KEY);
      await page.keyboard.press("Enter");
      await rows(page).first().waitFor();
      for (const [name, scope] of [["Dead letters", "admin"], ["Pipeline", "metrics"], ["Erasures", "erase"]]) {
        await page.getByRole("link", { name, exact: true }).click();
        await page.getByText("This key may not do that").waitFor();
        await page.getByText(`lacks the scope ${scope}`).waitFor();
      }
      await page.getByRole("link", { name: "Pipeline" }).click();
      await page.getByText("Ready", { exact: true }).waitFor();
      await page.getByRole("button", { name: "Use another key" }).click();
      await page.getByRole("dialog", { name: "Sign in with a key" }).waitFor();
    }));
});
