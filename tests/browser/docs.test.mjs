// The documentation of the API at /docs: what it shows, and trying requests with and without a key.

import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { describe, test } from "node:test";
import { accessible, get, KEY, KEYED_SERVER, PICTURES, SERVER, useBrowser, visit } from "./setup.mjs";

const route = (page, id) => page.locator(`#${id}`);

/** Opens a route and its form. */
async function tryRoute(page, id) {
  await route(page, id).locator("summary").first().click();
  await route(page, id).getByRole("button", { name: "Try it" }).click();
}

async function useKey(page) {
  await page.getByLabel("API key").fill(KEY);
  await page.getByRole("button", { name: "Use" }).click();
}

describe("documentation", () => {
  const shared = useBrowser();

  test("every route of the document is listed, and can be filtered", () =>
    visit(shared, "docs", async (page) => {
      await page.locator(".route").first().waitFor();
      const { paths } = await get(SERVER, "/openapi.json");
      const routes = Object.values(paths).flatMap((item) => Object.values(item));
      assert.equal(await page.locator(".route").count(), routes.length);
      for (const { operationId } of routes) assert.equal(await route(page, operationId).count(), 1, operationId);
      await page.getByLabel("Filter").fill("erase");
      assert.deepEqual(await page.locator(".route > summary code").allInnerTexts(), ["/api/v1/users/{userId}/logs"]);
    }));

  test("a query is tried without a key", () =>
    visit(shared, "docs", async (page) => {
      await tryRoute(page, "listEvents");
      const form = route(page, "listEvents").locator("form.try");
      await form.getByLabel("limit").fill("1");
      await form.getByLabel("order").selectOption("asc");
      await form.getByLabel("metadata").fill("metadata.page=pricing");
      await page.keyboard.press("Enter");
      await form.getByText("200 OK").waitFor();
      const body = JSON.parse(await form.getByLabel("Body of the response").innerText());
      assert.equal(body.status, "success");
      assert.ok(shared.proxy.requests.includes("GET /api/v1/logs?metadata.page=pricing&limit=1&order=asc"), shared.proxy.requests.join("\n"));
      await form.getByLabel("limit").fill("0");
      await form.getByRole("button", { name: "Send GET" }).click();
      await form.getByText("400 Bad Request").waitFor();
      assert.match(await form.getByLabel("Body of the response").innerText(), /limit must be a whole number from 1 to 1000/);
    }));

  test("a description of another form is one clear failure", () =>
    visit(shared, "docs", async (page) => {
      shared.proxy.fault = (_request, url) => (url.pathname === "/openapi.json" ? { status: 200, body: {} } : undefined);
      await page.reload();
      await page.getByText("The response is not what this page expects").waitFor();
    }));

  test("a stopped response says so, and open results have names of their own", () =>
    visit(shared, "docs", async (page) => {
      await tryRoute(page, "tailEvents");
      const tail = route(page, "tailEvents");
      await tail.getByRole("button", { name: "Send GET" }).click();
      await tail.getByText("still receiving").waitFor();
      await tail.getByRole("button", { name: "Stop" }).click();
      await tail.getByText(/ms, stopped$/).waitFor();
      await page.getByRole("region", { name: "Response of GET /api/v1/logs/tail" }).waitFor();
    }));

  test("a path that a browser would change is refused", () =>
    visit(shared, "docs", async (page) => {
      await tryRoute(page, "eraseUser");
      const form = route(page, "eraseUser").locator("form.try");
      for (const userId of [".", ".."]) {
        await form.getByLabel("userId").fill(userId);
        await form.getByRole("button", { name: "Send DELETE" }).click();
        await form.getByText(`A browser cannot send "${userId}"`).waitFor();
      }
      assert.ok(!shared.proxy.requests.some((request) => request.startsWith("DELETE ")));
    }));

  test("an erasure and a replay are sent after a confirmation only", () =>
    visit(shared, "docs", async (page) => {
      // Other tests need the dead letters.
      shared.proxy.fault = (_request, url) => (url.pathname.endsWith("/replay") ? { status: 200, body: { status: "success" } } : undefined);
      for (const [id, method] of [["eraseUser", "DELETE"], ["replayDeadLetters", "POST"]]) {
        await tryRoute(page, id);
        const form = route(page, id).locator("form.try");
        if (id === "eraseUser") await form.getByLabel("userId").fill("docs-nobody");
        const sent = () => shared.proxy.requests.filter((request) => request.startsWith(`${method} /api/`)).length;
        await form.getByRole("button", { name: `Send ${method}` }).click();
        const dialog = page.getByRole("dialog");
        await dialog.getByRole("button", { name: "Cancel" }).click();
        await dialog.waitFor({ state: "detached" });
        assert.equal(sent(), 0, id);
        await form.getByRole("button", { name: `Send ${method}` }).click();
        await dialog.getByRole("button", { name: `Send ${method}` }).click();
        await form.getByText(/^[24]\d\d /).first().waitFor();
        assert.equal(sent(), 1, id);
      }
    }));

  test("addresses with parameters of other programs lead to the pages", () =>
    visit(shared, "?utm_source=x", async (page) => {
      await page.getByRole("link", { name: "Explore", exact: true }).waitFor();
      await page.goto(`${shared.proxy.url}docs?utm_source=x`);
      await page.locator(".route").first().waitFor();
    }));

  for (const theme of ["light", "dark"]) {
    for (const width of [360, 1440]) {
      test(`it is accessible, ${theme}, ${width} px wide`, () =>
        visit(shared, "docs", async (page) => {
          const section = route(page, "ingestBatch");
          await section.locator("summary").first().click();
          await section.getByText("application/json").first().click();
          await section.locator(".responses summary").first().click();
          await tryRoute(page, "listEvents");
          await route(page, "listEvents").getByLabel("limit").fill("1");
          await page.keyboard.press("Enter");
          await route(page, "listEvents").getByText("200 OK").waitFor();
          await accessible(page, `documentation ${theme} ${width}`);
          if (PICTURES) await mkdir(PICTURES, { recursive: true });
          if (PICTURES) await page.screenshot({ path: `${PICTURES}/docs-${theme}-${width}.png`, fullPage: true });
        }, { theme, width }));
    }
  }
});

describe("documentation of a server with keys", () => {
  const shared = useBrowser(KEYED_SERVER);

  test("a key is sent as a header only, and kept in this tab", () =>
    visit(shared, "docs", async (page) => {
      await tryRoute(page, "listEvents");
      const form = route(page, "listEvents").locator("form.try");
      await form.getByRole("button", { name: "Send GET" }).click();
      await form.getByText("401 Unauthorized").waitFor();
      await useKey(page);
      await form.getByRole("button", { name: "Send GET" }).click();
      await form.getByText("200 OK").waitFor();
      const kept = await page.evaluate(() => ({ session: JSON.stringify(sessionStorage), local: JSON.stringify(localStorage), cookie: document.cookie, address: location.href, page: document.documentElement.outerHTML }));
      assert.ok(kept.session.includes(KEY));
      for (const place of ["local", "cookie", "address", "page"]) assert.ok(!kept[place].includes(KEY), place);
      assert.ok(shared.proxy.requests.every((request) => !request.includes(KEY)));
      await page.getByRole("button", { name: "Forget" }).click();
      assert.equal(await page.evaluate(() => sessionStorage.length), 0);
    }));

  test("a body is tried from its example, and hostile text stays text", () =>
    visit(shared, "docs", async (page) => {
      await useKey(page);
      await tryRoute(page, "ingestBatch");
      const form = route(page, "ingestBatch").locator("form.try");
      await form.getByLabel("Content-Type").selectOption("application/x-ndjson");
      await form.getByRole("button", { name: "Send POST" }).click();
      await form.getByText("202 Accepted").waitFor();
      assert.match(await form.getByLabel("Body of the response").innerText(), /"accepted": 2/);
      await form.getByLabel("Body", { exact: true }).fill('{"userId":"<img src=x onerror=alert(1)>","<script>alert(1)</script>":1}');
      await form.getByRole("button", { name: "Send POST" }).click();
      await form.getByText("400 Bad Request").waitFor();
      assert.match(await form.getByLabel("Body of the response").innerText(), /<script>alert\(1\)<\/script> is not a known field/);
    }));
});

describe("documentation behind a path prefix", () => {
  const shared = useBrowser(SERVER, { prefix: "/tools/logs" });

  test("the page, its files and what it tries stay below the prefix", () =>
    visit(shared, "docs", async (page) => {
      const paths = [];
      page.on("request", (request) => paths.push(new URL(request.url()).pathname));
      await page.reload();
      await tryRoute(page, "getStatistics");
      await route(page, "getStatistics").getByRole("button", { name: "Send GET" }).click();
      // The browser asks for what is required.
      await route(page, "getStatistics").getByLabel("from").fill("2026-01-01T00:00:00Z");
      await route(page, "getStatistics").getByLabel("to", { exact: false }).first().fill("2026-01-02T00:00:00Z");
      await route(page, "getStatistics").getByRole("button", { name: "Send GET" }).click();
      await route(page, "getStatistics").getByText("200 OK").waitFor();
      assert.ok(paths.includes("/tools/logs/api/v1/stats"), paths.join(", "));
      assert.deepEqual(paths.filter((path) => !path.startsWith("/tools/logs/")), []);
    }));
});
