// Data from strangers is shown as text, exactly, and cannot change the page.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { HOSTILE } from "./data.mjs";
import { rows, useBrowser, visit } from "./setup.mjs";

const view = (userId) => `#/explore?last=7d&userId=${encodeURIComponent(userId)}`;

describe("hostile data", () => {
  const shared = useBrowser();

  for (const { userId, action } of HOSTILE) {
    test(`${userId.slice(0, 20)} is shown as text`, () =>
      visit(shared, view(userId), async (page) => {
        const elements = async () => page.locator("script, img, iframe, object, h1:has-text('owned')").count();
        const before = await elements();
        await rows(page).first().locator(".row-open").click();
        const drawer = page.getByRole("complementary", { name: "Event" });
        await drawer.waitFor();
        assert.equal(await elements(), before);
        assert.equal(await page.title(), "Explore · eyego-log");
        const heading = await drawer.getByRole("heading").first().innerText();
        assert.equal(heading, action.replaceAll("\u202e", "\\u202e"));
      }));
  }

  test("invisible characters are shown as escapes", () =>
    visit(shared, view("hostile-bidi"), async (page) => {
      await rows(page).first().locator(".row-open").click();
      await page.locator(".json-string", { hasText: "abc\\u202edcba\\u200b" }).waitFor();
      await page.locator(".json-string", { hasText: "a\\u0000b" }).waitFor();
    }));

  test("ignorable characters and stray variation selectors are shown as escapes", () =>
    visit(shared, view("hostile-invisible"), async (page) => {
      await rows(page).first().locator(".row-open").click();
      await page.locator(".json-string", { hasText: "a\\u061cb\\u3164c\\u2800d\\ufe00e\\ufe0ff\\u206ag\\ufff9h\\u{e0041}i1\\ufe0fj" }).waitFor();
      await page.locator(".json-string", { hasText: "❤️ 1️⃣" }).waitFor();
    }));

  test("spaces of an id that cannot be seen or counted are marked", () =>
    visit(shared, `#/explore?last=7d&userId=${encodeURIComponent("two  spaces ")}`, async (page) => {
      await page.locator(".chip", { hasText: "two␣␣spaces␣" }).waitFor();
      await page.locator(".col-user", { hasText: "two␣␣spaces␣" }).waitFor();
      await page.goto(`${shared.proxy.url}#/erasures`);
      await page.getByLabel("User id", { exact: true }).fill("two  spaces ");
      await page.getByRole("button", { name: "Erase…" }).click();
      await page.getByRole("dialog").getByText("two␣␣spaces␣").waitFor();
      await page.getByRole("dialog").getByText("Here ␣ is a space.").waitFor();
    }));

  test("a long action as a filter fits a narrow window", () =>
    visit(shared, `#/explore?action=${"A".repeat(128)}`, async (page) => {
      await page.locator(".chip", { hasText: "AAAA" }).waitFor();
    }, { width: 360 }));

  test("an emoji of several is one, and its joiner is not shown", () =>
    visit(shared, view("u".repeat(256)), async (page) => {
      await rows(page).first().locator(".col-meta", { hasText: "emoji 👩‍👩‍👧‍👦" }).waitFor();
    }));

  test("large values are shortened and can be shown whole", () =>
    visit(shared, view("hostile-size"), async (page) => {
      await rows(page).first().locator(".row-open").click();
      await page.getByRole("button", { name: "… show all 200000 characters" }).click();
      const text = await page.locator(".json-string").first().innerText();
      assert.equal(text.length, 200_000);
      await page.getByRole("button", { name: "Show 1400 more" }).waitFor();
    }));

  test("a string that looks like another value is in quotation marks", () =>
    visit(shared, view("hostile-types"), async (page) => {
      await rows(page).first().locator(".col-meta", { hasText: 'a "1"b 1c "null"d nulle ""f 1a' }).waitFor();
      await rows(page).first().locator(".row-open").click();
      await page.locator(".drawer .json").waitFor();
      assert.deepEqual(await page.locator(".json-scalar > span").allInnerTexts(), ['"1"', "1", '"null"', "null", '""', "1a"]);
    }));

  test("numbers keep every digit and names are only names", () =>
    visit(shared, view("hostile-numbers"), async (page) => {
      await rows(page).first().locator(".row-open").click();
      const numbers = await page.locator(".json-number").allInnerTexts();
      assert.deepEqual(numbers, ["9223372036854775807", "1.0", "5e-324"]);
      await page.locator(".json-key", { hasText: "__proto__" }).waitFor();
      assert.equal(await page.evaluate(() => ({}).polluted), undefined);
    }));

  test("deep objects are shown to their end", () =>
    visit(shared, view("hostile-deep"), async (page) => {
      await rows(page).first().locator(".row-open").click();
      await page.locator(".json-number", { hasText: "1" }).waitFor();
      assert.equal(await page.locator(".json-key", { hasText: /^a$/ }).count(), 30);
      assert.equal(await page.locator(".drawer-body").evaluate((body) => body.scrollWidth - body.clientWidth), 0, "only the metadata scrolls sideways");
    }));

  test("a hostile address is only text", () =>
    visit(shared, "#/explore?action=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E&event=%3Cscript%3E&by=%3Cb%3E&last=99999999d&from=x", async (page) => {
      await page.locator(".chip", { hasText: "<img src=x onerror=alert(1)>" }).waitFor();
      assert.equal(await page.locator("img").count(), 0);
    }));
});
