// The frame: keyboard, theme, path prefix, first paint, layout.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { eventually, rows, SERVER, useBrowser, visit } from "./setup.mjs";

describe("frame", () => {
  const shared = useBrowser();

  test("everything on the main path works with the keyboard alone", () =>
    visit(shared, "", async (page) => {
      await rows(page).first().waitFor();
      const active = (selector) => page.evaluate((of) => document.activeElement?.closest(of) !== null, selector);
      // Tab reaches each kind of control, in the order of the page.
      const reached = [];
      for (let presses = 0; presses < 60; presses += 1) {
        await page.keyboard.press("Tab");
        reached.push(await page.evaluate(() => document.activeElement?.getAttribute("aria-label") ?? document.activeElement?.textContent?.trim()));
        if (await active(".row-open")) break;
      }
      for (const name of ["Explore", "Dead letters", "Add a filter", "Last 24h", "Refresh", "Export"]) {
        assert.ok(reached.includes(name), `Tab reached ${reached.join(", ")}`);
      }
      assert.ok(await active(".row-open"), `60 presses reached ${reached.join(", ")}`);
      await page.keyboard.press("j");
      await page.keyboard.press("j");
      await page.keyboard.press("Enter");
      const id = await page.locator(".drawer code").first().innerText();
      await page.keyboard.press("j");
      await eventually("the next event", async () => (await page.locator(".drawer code").first().innerText()) !== id);
      await page.keyboard.press("Escape");
      await page.locator(".drawer").waitFor({ state: "detached" });
      assert.ok(await active("tr"), "the focus is on a row again");
      await page.keyboard.press("?");
      await page.getByRole("dialog", { name: "Help" }).waitFor();
      await page.keyboard.press("Escape");
      await page.getByRole("dialog").waitFor({ state: "detached" });
      for (const [key, heading] of [["2", "Live"], ["3", "Dead letters"], ["4", "Pipeline"], ["5", "Erasures"], ["1", "Explore"]]) {
        await page.keyboard.press(key);
        await page.getByRole("heading", { level: 1, name: heading, exact: true }).waitFor({ state: "attached" });
      }
      await rows(page).first().waitFor();
      await page.keyboard.press("/");
      assert.ok(await active("#filter"), "the filter has the focus");
    }));

  test("single-key shortcuts can be switched off", () =>
    visit(shared, "", async (page) => {
      await page.getByRole("button", { name: "Help" }).click();
      await page.getByLabel("Single-key shortcuts").uncheck();
      await page.keyboard.press("Escape");
      await page.keyboard.press("4");
      await page.keyboard.press("?");
      assert.match(page.url(), /\/$|explore/);
      assert.equal(await page.getByRole("dialog").count(), 0);
    }));

  test("a shortcut works as soon as what it acts on is shown", () =>
    visit(shared, "", async (page) => {
      await page.addInitScript(() => {
        const observer = new MutationObserver(() => {
          if (!document.querySelector(".pager")) return;
          observer.disconnect();
          dispatchEvent(new KeyboardEvent("keydown", { key: "]" }));
        });
        observer.observe(document, { childList: true, subtree: true });
      });
      await page.goto(`${shared.proxy.url}#/explore?last=7d`);
      await page.reload();
      await page.getByText("Page 2").waitFor();
    }));

  test("the theme follows the system until one is chosen, and the choice is kept", () =>
    visit(shared, "", async (page) => {
      const mode = () => page.evaluate(() => document.documentElement.dataset.theme);
      assert.equal(await mode(), "light");
      await page.emulateMedia({ colorScheme: "dark" });
      await eventually("dark", async () => (await mode()) === "dark");
      await page.keyboard.press("t");
      assert.equal(await mode(), "light");
      await page.reload();
      assert.equal(await mode(), "light");
    }));

  test("the zone of all times can be switched to UTC", () =>
    visit(shared, "#/explore?last=7d&userId=hostile-bidi", async (page) => {
      const time = rows(page).first().locator(".row-open");
      await time.waitFor();
      const local = await time.innerText();
      await page.getByRole("button", { name: /Europe\/Berlin/ }).click();
      await eventually("another time", async () => (await time.innerText()) !== local);
    }));

  test("rows do not move while the page loads", () =>
    visit(shared, "", async (page) => {
      await page.addInitScript(() => {
        globalThis.shift = 0;
        new PerformanceObserver((list) => {
          for (const entry of list.getEntries()) globalThis.shift += entry.value;
        }).observe({ type: "layout-shift", buffered: true });
      });
      await page.reload();
      await rows(page).first().waitFor();
      await page.locator(".legend-item").first().waitFor();
      const shift = await page.evaluate(() => globalThis.shift);
      assert.ok(shift < 0.05, `cumulative layout shift ${shift}`);
    }));
});

describe("narrow", () => {
  const shared = useBrowser();
  const WIDTHS = [320, 360, 768];

  test("the current range is always shown", () =>
    visit(shared, "#/explore?last=30d", async (page) => {
      await page.getByRole("button", { name: "Last 30d", pressed: true }).waitFor();
    }, { width: 360 }));

  for (const width of WIDTHS) {
    test(`navigation and toolbar take one row each and are not cut off, ${width} px`, () =>
      visit(shared, "", async (page) => {
        await page.addInitScript(() => sessionStorage.setItem("eyego-log.key", "eyego_reader_x"));
        await page.reload();
        await rows(page).first().waitFor();
        const box = (locator) => locator.boundingBox();
        const erasures = await box(page.getByRole("link", { name: "Erasures" }));
        assert.ok(erasures.x + erasures.width <= width, JSON.stringify(erasures));
        const middle = ({ y, height }) => Math.round(y + height / 2);
        assert.equal(middle(await box(page.getByRole("button", { name: "Export" }))), middle(await box(page.getByRole("group", { name: "Time range" }))));
        assert.equal(middle(await box(page.locator(".brand"))), middle(await box(page.getByRole("button", { name: "Help" }))));
      }, { width }));
  }

  test("forced colours keep the colours that carry a meaning", () =>
    visit(shared, "", async (page) => {
      await page.locator(".legend-item").first().waitFor();
      const style = (selector, name) => page.locator(selector).first().evaluate((element, of) => getComputedStyle(element)[of], name);
      for (const selector of [".legend .dot", ".top .health-up"]) assert.equal(await style(selector, "forcedColorAdjust"), "none", selector);
      assert.notEqual(await style("nav a[aria-current]", "borderBottomColor"), await style("nav a:not([aria-current])", "borderBottomColor"));
      assert.notEqual(await style('.segments [aria-pressed="true"]', "backgroundColor"), await style('.segments [aria-pressed="false"]', "backgroundColor"));
    }, { context: { forcedColors: "active" } }));
});

describe("focus", () => {
  const shared = useBrowser();
  const focused = (page) => page.evaluate(() => document.activeElement.getAttribute("aria-label") ?? document.activeElement.textContent.trim());
  const isInside = (page, selector) => page.evaluate((of) => document.activeElement.closest(of) !== null, selector);

  test("a dialog returns the focus to the button that opened it", () =>
    visit(shared, "#/erasures", async (page) => {
      await page.getByRole("button", { name: "Help" }).focus();
      await page.keyboard.press("Enter");
      await page.getByRole("dialog", { name: "Help" }).waitFor();
      await page.keyboard.press("Escape");
      await page.getByRole("dialog").waitFor({ state: "detached" });
      assert.equal(await focused(page), "Help");
      await page.getByLabel("User id", { exact: true }).fill("ada");
      await page.getByRole("button", { name: "Erase…" }).focus();
      await page.keyboard.press("Enter");
      const typed = page.getByLabel("Type the user id to confirm");
      await typed.waitFor();
      assert.ok(await typed.evaluate((field) => field === document.activeElement), "the field to type in has the focus");
      await page.keyboard.press("Escape");
      await typed.waitFor({ state: "detached" });
      assert.equal(await focused(page), "Erase…");
    }));

  test("a removed filter leaves the focus on the next one, and then on the field", () =>
    visit(shared, "#/explore?last=7d&action=LOGIN&metadata.country=DE", async (page) => {
      await rows(page).first().waitFor();
      await page.getByRole("button", { name: "Remove the filter Action LOGIN" }).focus();
      await page.keyboard.press("Enter");
      await eventually("one chip", async () => (await page.locator(".chip").count()) === 1);
      assert.equal(await focused(page), "Remove the filter country DE");
      await page.keyboard.press("Enter");
      await eventually("no chip", async () => (await page.locator(".chip").count()) === 0);
      assert.equal(await focused(page), "Add a filter");
      assert.equal(await page.locator(".suggestions li").count(), 0, "nobody asked for suggestions");
    }));

  test("a filter from the drawer, and another page, leave the focus in the view", () =>
    visit(shared, "#/explore?last=7d&action=PAGE_VIEW", async (page) => {
      await rows(page).first().waitFor();
      await page.keyboard.press("j");
      await page.keyboard.press("]");
      await page.getByText("Page 2").waitFor();
      await eventually("the next page", async () => (await page.locator('.rows[aria-busy="true"]').count()) === 0);
      assert.ok(await isInside(page, ".row-open"), "the focus is on a row of the next page");
      await page.getByRole("button", { name: "First" }).focus();
      await page.keyboard.press("Enter");
      await page.getByText("Page 1").waitFor();
      assert.equal(await focused(page), "Older");
      await page.keyboard.press("j");
      await page.keyboard.press("Enter");
      await page.getByRole("button", { name: "Same user" }).focus();
      await page.keyboard.press("Enter");
      await page.waitForURL(/userId=/);
      await eventually("the rows of the user", async () => (await rows(page).count()) > 0 && (await page.locator('.rows[aria-busy="true"]').count()) === 0);
      assert.ok(await isInside(page, "main"), "the focus is in the view");
    }));

  test("the drawer keeps the focus on a narrow screen, which it covers", () =>
    visit(shared, "#/explore?last=7d&action=LOGIN", async (page) => {
      await rows(page).first().locator(".row-open").focus();
      await page.keyboard.press("Enter");
      await page.getByRole("dialog", { name: "Event" }).waitFor();
      for (let presses = 0; presses < 30; presses += 1) {
        await page.keyboard.press("Tab");
        // Between the last and the first element the focus is on the browser itself.
        assert.ok(await page.evaluate(() => document.activeElement === document.body || document.activeElement.closest(".drawer") !== null), `${presses} presses reached ${await focused(page)}`);
      }
      await page.keyboard.press("Escape");
      await page.locator(".drawer").waitFor({ state: "detached" });
      assert.ok(await isInside(page, ".row-open"), "the focus is on the row again");
    }, { width: 360, height: 760 }));
});

describe("frame behind a path prefix", () => {
  const shared = useBrowser(SERVER, { prefix: "/tools/logs" });

  test("every request stays below the prefix", () =>
    visit(shared, "", async (page) => {
      const paths = [];
      page.on("request", (request) => paths.push(new URL(request.url()).pathname));
      await page.reload();
      await rows(page).first().waitFor();
      await page.keyboard.press("4");
      await page.getByText("Ready", { exact: true }).waitFor();
      await page.locator(".stage").first().waitFor();
      assert.deepEqual(paths.filter((path) => !path.startsWith("/tools/logs/")), []);
    }));
});
