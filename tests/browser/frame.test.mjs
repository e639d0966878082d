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
