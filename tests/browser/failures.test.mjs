// A slow, failing or older server.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { addFilter, column, eventually, rows, useBrowser, visit } from "./setup.mjs";

describe("failures", () => {
  const shared = useBrowser();
  const onList = (fault) => (_request, url) => (url.pathname === "/api/v1/logs" ? fault : undefined);

  test("a slow server shows that it loads, and keeps the latest question only", () =>
    visit(shared, "#/pipeline", async (page) => {
      shared.proxy.fault = onList({ delay: 1500 });
      await page.getByRole("link", { name: "Explore", exact: true }).click();
      await page.getByText("Loading…").waitFor();
      assert.equal(await page.locator('.rows[aria-busy="true"]').count(), 1);
      await rows(page).first().waitFor();
      // The response to the first filter arrives after the one to the second.
      let delay = 1500;
      shared.proxy.fault = (_request, url) => {
        if (url.pathname !== "/api/v1/logs" || !url.search.includes("action=")) return undefined;
        const fault = { delay };
        delay = 0;
        return fault;
      };
      await addFilter(page, "action=LOGIN");
      await addFilter(page, "action=CHECKOUT");
      await eventually("checkouts", async () => new Set(await column(page, "action")).has("CHECKOUT"));
      await page.waitForTimeout(1700);
      assert.deepEqual([...new Set(await column(page, "action"))], ["CHECKOUT"]);
    }));

  test("a failing server leaves the rows, says that they are old, and recovers", () =>
    visit(shared, "", async (page) => {
      await rows(page).first().waitFor();
      const before = await column(page, "user");
      shared.proxy.fault = onList({ status: 503, body: { status: "error", message: "the store is unavailable; retry later" } });
      await page.keyboard.press("r");
      const banner = page.getByRole("alert").filter({ hasText: "the store is unavailable" });
      await banner.waitFor();
      assert.deepEqual((await column(page, "user")).slice(0, 5), before.slice(0, 5));
      shared.proxy.fault = () => undefined;
      await banner.getByRole("button", { name: "Try again" }).click();
      await banner.waitFor({ state: "detached" });
    }));

  for (const [what, fault, text] of [
    ["an internal error shows the request id", { status: 500, body: { status: "error", message: "internal server error" } }, "request-1"],
    ["a proxy's page is not taken for data", { status: 502, body: "<html>Bad gateway</html>" }, "The server responded with status 502."],
    ["a broken connection says what to check", { cut: true }, "The server cannot be reached"],
    ["a query that takes too long passes on the server's advice", { status: 503, body: { status: "error", message: "the query took longer than 10 s: narrow the time range" } }, "narrow the time range"],
    ["an invalid query shows the server's reason", { status: 400, body: { status: "fail", message: "metadata..x: a path segment must not be empty" } }, "a path segment must not be empty"],
  ]) {
    test(what, () =>
      visit(shared, "#/pipeline", async (page) => {
        shared.proxy.fault = (_request, url) => (url.pathname.startsWith("/api/v1/") ? fault : undefined);
        await page.getByRole("link", { name: "Explore", exact: true }).click();
        await page.getByText(text).first().waitFor();
        shared.proxy.fault = () => undefined;
        await page.getByRole("button", { name: "Try again" }).click();
        await rows(page).first().waitFor();
      }));
  }

  for (const body of [{}, { status: "success", data: "x" }, { status: "success", data: [{}] }, []]) {
    test(`a response of another form, ${JSON.stringify(body)}, is one clear failure in every view`, () =>
      visit(shared, "", async (page) => {
        await page.getByText("ready", { exact: true }).waitFor();
        shared.proxy.fault = (_request, url) => (/^\/(api|health|metrics)/.test(url.pathname) && !url.pathname.endsWith("/tail") ? { status: 200, body } : undefined);
        await page.keyboard.press("2");
        for (const [key, text] of [["1", "The response is not what this page expects"], ["3", "The response is not what this page expects"], ["5", "The response is not what this page expects"], ["4", "not the metrics"]]) {
          await page.keyboard.press(key);
          await page.getByText(text).first().waitFor();
          assert.equal(await page.getByText(/TypeError|Loading…|Counting…|No dead letters/).count(), 0);
        }
        await page.getByText("Not ready", { exact: true }).waitFor();
      }));
  }

  test("without statistics the table works and the page says what is missing", () =>
    visit(shared, "#/pipeline", async (page) => {
      shared.proxy.fault = (_request, url) => (url.pathname === "/api/v1/stats" ? { status: 404, body: { status: "fail", message: "no such route: /api/v1/stats" } } : undefined);
      await page.getByRole("link", { name: "Explore", exact: true }).click();
      await page.getByText("histogram are not available on this server").waitFor();
      await rows(page).first().waitFor();
    }));
});
