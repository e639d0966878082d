// Explore: find events, page through them, zoom, share, export.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { describe, test } from "node:test";
import { promisify } from "node:util";
import { stored } from "./data.mjs";
import { addFilter, column, EMPTY_SERVER, eventually, get, post, rows, SERVER, total, useBrowser, visit } from "./setup.mjs";

describe("explore", () => {
  const shared = useBrowser();

  test("the last hour is shown, and dragging over the histogram zooms in", () =>
    visit(shared, "", async (page) => {
      const before = await total(page);
      assert.ok(before > 100, `${before} events`);
      const box = await page.locator(".histogram .u-over").boundingBox();
      await page.mouse.move(box.x + box.width * 0.4, box.y + 50);
      await page.mouse.down();
      await page.mouse.move(box.x + box.width * 0.6, box.y + 60, { steps: 5 });
      await page.mouse.up();
      await page.waitForURL(/from=.*&to=/);
      const params = new URLSearchParams(new URL(page.url()).hash.split("?")[1]);
      const minutes = (Date.parse(params.get("to")) - Date.parse(params.get("from"))) / 60_000;
      assert.ok(minutes > 8 && minutes < 16, `${minutes} of 60 minutes`);
      const after = await eventually("fewer events", async () => {
        const now = await total(page);
        return now < before && now;
      });
      const listed = await get(SERVER, `/api/v1/logs?limit=1000&from=${params.get("from")}&to=${params.get("to")}`);
      assert.equal(after, listed.results);
      await page.goBack();
      await page.getByRole("button", { name: "Last 1h", pressed: true }).waitFor();
    }));

  test("a drag zooms to what was shown when it began, even if new data arrives during it", () =>
    visit(shared, "#/explore?last=24h", async (page) => {
      await total(page);
      const box = await page.locator(".histogram .u-over").boundingBox();
      await page.mouse.move(box.x + box.width * 0.25, box.y + 50);
      await page.mouse.down();
      await page.mouse.move(box.x + box.width * 0.4, box.y + 60, { steps: 5 });
      await Promise.all([page.waitForResponse((response) => response.url().includes("/api/v1/stats")), page.keyboard.press("r")]);
      await page.waitForTimeout(300);
      await page.mouse.move(box.x + box.width * 0.75, box.y + 60, { steps: 5 });
      await page.mouse.up();
      await page.waitForURL(/from=.*&to=/);
      const params = new URLSearchParams(new URL(page.url()).hash.split("?")[1]);
      const hours = (Date.parse(params.get("to")) - Date.parse(params.get("from"))) / 3_600_000;
      assert.ok(hours > 11.5 && hours < 12.5, `${hours} of 24 hours`);
    }));

  test("another value of a metadata path replaces the first", () =>
    visit(shared, "#/explore?last=7d&metadata.country=DE", async (page) => {
      await page.locator(".chip", { hasText: "DE" }).waitFor();
      await addFilter(page, "metadata.country=FR");
      await page.locator(".chip", { hasText: "FR" }).waitFor();
      assert.equal(await page.locator(".chip").count(), 1);
      assert.deepEqual(new URLSearchParams(page.url().split("?")[1]).getAll("metadata.country"), ["FR"]);
      await rows(page).first().waitFor();
    }));

  test("events ahead of the browser's clock are counted", () =>
    visit(shared, "#/live", async (page) => {
      const userId = `ahead-${Date.now()}`;
      await post(SERVER, { userId, action: "AHEAD" });
      await stored(SERVER, userId);
      await page.addInitScript(() => {
        const now = Date.now;
        Date.now = () => now() - 2 * 3_600_000;
      });
      await page.goto("about:blank");
      await page.goto(`${shared.proxy.url}#/explore?userId=${userId}`);
      await rows(page).first().waitFor();
      assert.equal(await total(page), 1);
      await page.locator("button.legend-item", { hasText: "AHEAD" }).waitFor();
    }));

  test("the histogram of a long range shows years", () =>
    visit(shared, `#/explore?from=${new Date(Date.now() - 400 * 86_400_000).toISOString()}&to=${new Date().toISOString()}`, async (page) => {
      await total(page);
      const box = await page.locator(".histogram .u-over").boundingBox();
      await eventually("a tooltip with a year", async () => {
        for (let left = 1; left < 30; left += 1) {
          await page.mouse.move(box.x + box.width - left, box.y + 50);
          const [head] = await page.locator(".tooltip-head").allInnerTexts();
          if (head !== undefined) return /^\d{1,2} [A-Z][a-z]{2} \d{4}\b/.test(head);
        }
        return false;
      });
    }));

  for (const [reported, sent] of [["Etc/Unknown", "UTC"], ["+00:00", "UTC"], ["+03:00", "Etc/GMT-3"], ["-05:00", "Etc/GMT+5"], ["+05:30", "UTC"]]) {
    test(`a browser in the zone ${reported} asks in ${sent}`, () =>
      visit(shared, "#/live", async (page) => {
        await page.addInitScript((timeZone) => {
          const resolved = Intl.DateTimeFormat.prototype.resolvedOptions;
          Intl.DateTimeFormat.prototype.resolvedOptions = function () {
            return { ...resolved.call(this), timeZone };
          };
        }, reported);
        await page.goto("about:blank");
        const [request] = await Promise.all([page.waitForRequest((one) => one.url().includes("/api/v1/stats")), page.goto(`${shared.proxy.url}#/explore`)]);
        assert.equal(new URL(request.url()).searchParams.get("tz"), sent);
        assert.ok((await total(page)) > 100);
        await rows(page).first().waitFor();
      }));
  }

  test("an event that does not exist is requested once", () =>
    visit(shared, "#/live", async (page) => {
      const requests = () => shared.proxy.requests.filter((request) => request.includes("0123456789abcdef01234567")).length;
      await page.goto(`${shared.proxy.url}#/explore?last=7d&event=0123456789abcdef01234567`);
      await page.getByRole("alert").filter({ hasText: "cannot be found" }).waitFor();
      await rows(page).first().waitFor();
      await page.waitForTimeout(300);
      assert.equal(requests(), 1);
    }));

  test("a range that ends before it starts shows the server's reason alone", () =>
    visit(shared, "#/explore?from=2026-02-02T00:00:00Z&to=2026-02-01T00:00:00Z", async (page) => {
      await page.getByText("The server refused the request").waitFor();
      await page.waitForTimeout(500);
      assert.equal(await page.locator(".totals").count(), 0);
    }));

  test("each row is named by its time, action and user", () =>
    visit(shared, "#/explore?last=7d&action=CHECKOUT", async (page) => {
      const { data: [{ userId }] } = await get(SERVER, "/api/v1/logs?action=CHECKOUT&limit=1");
      await page.getByRole("button", { name: new RegExp(`^Open .*\\d\\d:\\d\\d.*, CHECKOUT of ${userId}$`) }).first().waitFor();
    }));

  test("the documentation of the API is linked from the help", () =>
    visit(shared, "", async (page) => {
      await page.getByRole("button", { name: "Help" }).click();
      await page.getByRole("link", { name: "its documentation" }).click();
      await page.getByRole("heading", { name: "HTTP API" }).waitFor();
    }));

  for (const event of ["zzz", "export", "000000000000000000000000"]) {
    test(`an address with the unknown event ${event} says that there is none`, () =>
      visit(shared, `#/explore?last=7d&event=${event}`, async (page) => {
        const banner = page.getByRole("alert").filter({ hasText: "cannot be found" });
        await banner.waitFor();
        await rows(page).first().waitFor();
        await banner.getByRole("button", { name: "Close" }).click();
        await banner.waitFor({ state: "detached" });
        assert.doesNotMatch(page.url(), /event=/);
      }));
  }

  test("typing a user id filters, and Backspace removes the filter", () =>
    visit(shared, "#/explore?last=7d", async (page) => {
      const { data: [{ userId }] } = await get(SERVER, "/api/v1/logs?action=CHECKOUT&limit=1");
      await addFilter(page, userId);
      await page.locator(".chip", { hasText: userId }).waitFor();
      assert.equal(new URLSearchParams(page.url().split("?")[1]).get("userId"), userId);
      await eventually("only this user", async () => new Set(await column(page, "user")).size === 1);
      assert.deepEqual([...new Set(await column(page, "user"))], [userId]);
      await page.keyboard.press("Backspace");
      await eventually("no chip", async () => (await page.locator(".chip").count()) === 0);
      await eventually("other users", async () => new Set(await column(page, "user")).size > 1);
    }));

  test("actions and metadata paths are suggested", () =>
    visit(shared, "#/explore?last=7d", async (page) => {
      await rows(page).first().waitFor();
      await page.keyboard.press("/");
      await page.keyboard.type("PAGE");
      await page.getByRole("option", { name: "Action is PAGE_VIEW" }).waitFor();
      await page.keyboard.press("Enter");
      await eventually("only page views", async () => new Set(await column(page, "action")).size === 1);
      await page.keyboard.type("browser");
      await page.getByRole("option", { name: "metadata.browser = …" }).click();
      await page.keyboard.type("Safari 18");
      await page.keyboard.press("Enter");
      await eventually("only Safari", async () => {
        const texts = await column(page, "meta");
        return texts.length > 0 && texts.every((text) => text.includes("Safari 18"));
      });
      assert.match(page.url(), /action=PAGE_VIEW&metadata\.browser=Safari\+18/);
    }));

  test("the drawer shows the event, copies it and leads to the user's events before it", () =>
    visit(shared, "#/explore?last=7d&action=PAYMENT_FAILED", async (page, context) => {
      await context.grantPermissions(["clipboard-read", "clipboard-write"]);
      await rows(page).first().locator(".row-open").click();
      const drawer = page.getByRole("complementary", { name: "Event" });
      const id = await drawer.locator("code").first().innerText();
      const { data: event } = await get(SERVER, `/api/v1/logs/${id}`);
      await drawer.getByRole("button", { name: "Copy JSON" }).click();
      await drawer.getByText("Copied", { exact: true }).first().waitFor();
      assert.deepEqual(JSON.parse(await page.evaluate(() => navigator.clipboard.readText())), event);
      await drawer.getByRole("link", { name: "Before this" }).click();
      await eventually("the user's events", async () => {
        const users = new Set(await column(page, "user"));
        return users.size === 1 && users.has(event.userId);
      });
      const listed = await get(SERVER, `/api/v1/logs?userId=${event.userId}&limit=1000&to=${new Date(Date.parse(event.timestamp) + 1).toISOString()}`);
      assert.equal(await total(page), listed.results);
    }));

  test("the table shows values inside objects with their paths", () =>
    visit(shared, "#/explore?last=7d&action=CHECKOUT", async (page) => {
      const { data: [{ metadata }] } = await get(SERVER, "/api/v1/logs?action=CHECKOUT&limit=1");
      await rows(page).first().locator(".col-meta", { hasText: `cart.total ${metadata.cart.total}` }).waitFor();
    }));

  test("a scalar in the drawer becomes a filter, and same user and same action do too", () =>
    visit(shared, "#/explore?last=7d&action=LOGIN", async (page) => {
      await rows(page).first().locator(".row-open").click();
      await page.getByRole("button", { name: "Filter by metadata.country" }).click();
      assert.match(page.url(), /metadata\.country=/);
      await rows(page).first().locator(".row-open").click();
      await page.getByRole("button", { name: "Same user" }).click();
      await page.waitForURL(/userId=/);
      await rows(page).first().locator(".row-open").click();
      await page.getByRole("button", { name: "Same action" }).click();
      await eventually("three filters", async () => (await page.locator(".chip").count()) === 3);
    }));

  test("pages follow one another without a gap or a repetition", () =>
    visit(shared, "#/explore?last=7d&action=CHECKOUT", async (page) => {
      const seen = [];
      for (let number = 1; number <= 3; number += 1) {
        await page.getByText(`Page ${number}`).waitFor();
        await eventually("50 rows that are not loading", async () => (await rows(page).count()) === 50 && (await page.locator('.rows[aria-busy="true"]').count()) === 0);
        seen.push(...(await page.locator(".col-time time, .col-ago time").evaluateAll((all) => all.map((time) => time.dateTime))));
        await page.getByRole("button", { name: "Older" }).click();
      }
      const listed = await get(SERVER, "/api/v1/logs?action=CHECKOUT&limit=150");
      assert.deepEqual(seen, listed.data.map(({ timestamp }) => timestamp));
      await page.keyboard.press("[");
      await page.getByText("Page 3").waitFor();
    }));

  test("the address leads another visitor to the same view and event", () =>
    visit(shared, "#/explore?last=7d&action=LOGIN&by=metadata.country", async (page) => {
      await page.locator("button.legend-item", { hasText: "DE" }).waitFor();
      await rows(page).nth(3).locator(".row-open").click();
      const id = await page.locator(".drawer code").first().innerText();
      const address = page.url();
      await visit(shared, new URL(address).hash, async (other) => {
        await other.locator(".drawer code", { hasText: id }).waitFor();
        await other.locator(".chip", { hasText: "LOGIN" }).waitFor();
        await other.locator("button.legend-item", { hasText: "DE" }).waitFor();
      });
    }));

  test("counts by a metadata path answer how many per plan", () =>
    visit(shared, "#/explore?last=7d&action=SIGN_UP", async (page) => {
      await rows(page).first().waitFor();
      await page.getByRole("combobox", { name: "Group the histogram by" }).selectOption("metadata.plan");
      const pro = page.locator("button.legend-item", { hasText: "pro" });
      await pro.waitFor();
      const shown = Number((await pro.innerText()).replace(/\D/g, ""));
      const listed = await get(SERVER, `/api/v1/logs?action=SIGN_UP&metadata.plan=pro&limit=1000&from=${new Date(Date.now() - 7 * 86_400_000).toISOString()}`);
      assert.equal(shown, listed.results);
      await pro.click();
      await page.locator(".chip", { hasText: "pro" }).waitFor();
    }));

  test("an export holds exactly the events of the view", () =>
    visit(shared, "#/explore?last=7d&action=PAYMENT_FAILED", async (page) => {
      const expected = await total(page);
      for (const [format, extra] of [["CSV", 1], ["NDJSON", 0]]) {
        await page.getByRole("button", { name: "Export" }).click();
        const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: `${format} ` }).click()]);
        assert.match(download.suggestedFilename(), new RegExp(`^eyego-logs-.*\\.${format.toLowerCase()}$`));
        const lines = (await readFile(await download.path(), "utf8")).trim().split("\n");
        assert.equal(lines.length, expected + extra, format);
        await page.getByText("Saved eyego-logs").waitFor();
        await page.keyboard.press("Escape");
      }
    }));

  test("the export menu works without a mouse, and closes by Esc and by a click elsewhere", () =>
    visit(shared, "#/explore?last=7d&action=PAYMENT_FAILED", async (page) => {
      await rows(page).first().waitFor();
      const opener = page.getByRole("button", { name: "Export", exact: true });
      const menu = page.getByRole("group", { name: "Export" });
      await opener.focus();
      await page.keyboard.press("Enter");
      await menu.waitFor();
      await page.keyboard.press("Tab");
      await Promise.all([page.waitForEvent("download"), page.keyboard.press("Enter")]);
      await page.getByText("Saved eyego-logs").waitFor();
      await page.keyboard.press("Tab");
      assert.match(await page.evaluate(() => document.activeElement.textContent), /^CSV/);
      await page.keyboard.press("Escape");
      await menu.waitFor({ state: "detached" });
      assert.equal(await page.evaluate(() => document.activeElement.getAttribute("aria-label")), "Export");
      await opener.click();
      await menu.waitFor();
      await page.locator("h1").first().evaluate((heading) => heading.dispatchEvent(new PointerEvent("pointerdown", { bubbles: true })));
      await menu.waitFor({ state: "detached" });
    }));

  test("only formats that the server has are offered", () =>
    visit(shared, "#/explore", async (page) => {
      const { paths } = await get(SERVER, "/openapi.json");
      const { schema } = paths["/api/v1/logs/export"].get.parameters.find(({ name }) => name === "format");
      await page.getByRole("button", { name: "Export" }).click();
      await eventually("the formats", async () => (await page.getByRole("group", { name: "Export" }).getByRole("button").count()) === schema.enum.length);
    }));

  test("Enter in an empty field adds no filter, and an incomplete one is not a user", () =>
    visit(shared, "#/explore?last=7d", async (page) => {
      await rows(page).first().waitFor();
      await page.keyboard.press("/");
      await page.getByRole("option").first().waitFor();
      await page.keyboard.press("Enter");
      assert.equal(await page.locator(".chip").count(), 0);
      await page.keyboard.type("user=");
      await page.keyboard.press("Enter");
      assert.equal(await page.locator(".chip").count(), 0);
      await page.keyboard.press("Escape");
      await page.keyboard.type("action=");
      await page.getByRole("option", { name: "Action is PAGE_VIEW" }).click();
      await page.locator(".chip", { hasText: "PAGE_VIEW" }).waitFor();
    }));

  test("a user with spaces around its name can be found", () =>
    visit(shared, "#/explore?last=7d", async (page) => {
      await rows(page).first().waitFor();
      await page.keyboard.press("/");
      await page.keyboard.type("user= ada ");
      await page.getByRole("option", { name: "User is ada", exact: true }).waitFor();
      await page.getByRole("option", { name: 'User is " ada "' }).click();
      await page.waitForURL(/userId=\+ada\+/);
    }));

  test("an export that breaks is reported and nothing is saved", () =>
    visit(shared, "#/explore?last=7d&action=PAYMENT_FAILED", async (page) => {
      let saved = 0;
      page.on("download", () => { saved += 1; });
      await rows(page).first().waitFor();
      shared.proxy.fault = (_request, url) => (url.pathname.endsWith("/export") ? { cut: true } : undefined);
      await page.getByRole("button", { name: "Export" }).click();
      await page.getByRole("button", { name: "NDJSON" }).click();
      await page.getByRole("alert").filter({ hasText: "cannot be reached" }).waitFor();
      shared.proxy.fault = (_request, url) => (url.pathname.endsWith("/export") ? { status: 400, body: { status: "fail", message: "id", errors: [{ path: "id", message: "must be 24 hex digits" }] } } : undefined);
      await page.getByRole("button", { name: "CSV" }).click();
      await page.getByRole("alert").filter({ hasText: "Export is not available on this server" }).waitFor();
      assert.equal(saved, 0);
    }));

  test("an export is requested after the file is chosen, and a failed one leaves no file", () =>
    visit(shared, "#/live", async (page) => {
      await page.addInitScript(() => {
        Object.defineProperty(Navigator.prototype, "webdriver", { get: () => false });
        globalThis.calls = [];
        globalThis.isCancelled = true;
        const cancel = ReadableStreamDefaultReader.prototype.cancel;
        ReadableStreamDefaultReader.prototype.cancel = function () {
          globalThis.calls.push("cancel");
          return cancel.call(this);
        };
        globalThis.showSaveFilePicker = async () => {
          if (globalThis.isCancelled) throw new DOMException("The user aborted a request.", "AbortError");
          const call = (name) => async () => void globalThis.calls.push(name);
          const write = async () => {
            if (globalThis.isFull) throw new DOMException("The disk is full.", "QuotaExceededError");
          };
          return {
            createWritable: async () => ({ write, close: call("close"), abort: call("abort") }),
            getFile: async () => new Blob([]),
            remove: call("remove"),
          };
        };
      });
      await page.goto("about:blank");
      await page.goto(`${shared.proxy.url}#/explore?last=7d&action=PAYMENT_FAILED`);
      await rows(page).first().waitFor();
      const requests = () => shared.proxy.requests.filter((request) => request.includes("/logs/export")).length;
      const before = requests();
      const ndjson = page.getByRole("button", { name: "NDJSON" });
      await page.getByRole("button", { name: "Export" }).click();
      await ndjson.click();
      await ndjson.waitFor();
      await page.waitForTimeout(300);
      assert.equal(requests(), before, "a cancelled dialog sends no request");
      await page.evaluate(() => { globalThis.isCancelled = false; });
      shared.proxy.fault = (_request, url) => (url.pathname.endsWith("/export") ? { cut: true } : undefined);
      await ndjson.click();
      await page.getByRole("alert").filter({ hasText: "cannot be reached" }).waitFor();
      assert.deepEqual(await page.evaluate(() => globalThis.calls), ["abort", "remove"]);
      shared.proxy.fault = () => undefined;
      await ndjson.click();
      await page.getByText("Saved eyego-logs").waitFor();
      assert.deepEqual(await page.evaluate(() => globalThis.calls), ["abort", "remove", "close"]);
      await page.evaluate(() => { globalThis.calls = []; globalThis.isFull = true; });
      await ndjson.click();
      await page.getByRole("alert").filter({ hasText: "The file could not be saved." }).waitFor();
      assert.deepEqual(await page.evaluate(() => globalThis.calls), ["cancel", "abort", "remove"]);
    }));

  test("100,000 matching rows can be browsed", () =>
    visit(shared, "#/explore?last=all&userId=bulk", async (page) => {
      await eventually("a page of rows", async () => (await rows(page).count()) === 50);
      await page.keyboard.press("]");
      await page.getByText("Page 2").waitFor();
      await eventually("the next page", async () => (await page.locator('.rows[aria-busy="true"]').count()) === 0);
      assert.equal(await rows(page).count(), 50);
      assert.equal(await total(page, 120_000), 100_000);
    }));

  test("no match says where the latest one is and leads there", () =>
    visit(shared, "#/explore?last=15m&userId=bulk", async (page) => {
      await page.getByText("No events match").waitFor();
      await page.getByText(/The latest match is from .* d ago/).waitFor();
      await page.getByRole("button", { name: "Show all time" }).click();
      await rows(page).first().waitFor();
      await visit(shared, "#/explore?userId=nobody", async (other) => {
        await other.getByRole("button", { name: "Remove the filters" }).click();
        await rows(other).first().waitFor();
      });
    }));

  test("a range of one's own is entered in the shown zone", () =>
    visit(shared, "#/explore?from=2026-01-15T09:00:00Z&to=2026-01-15T10:00:00Z", async (page) => {
      await page.getByRole("button", { name: "Custom" }).click();
      // Berlin is an hour ahead of UTC in January.
      assert.equal(await page.getByRole("textbox", { name: "From" }).inputValue(), "2026-01-15T10:00");
      await page.getByRole("textbox", { name: "To" }).fill("2026-01-15T09:30:00");
      assert.ok(await page.getByRole("button", { name: "Apply" }).isDisabled());
      await page.getByText("The end must be after the start.").waitFor();
      await page.getByRole("textbox", { name: "To" }).fill("2026-01-15T12:30:00");
      await page.getByRole("button", { name: "Apply" }).click();
      await page.waitForURL(/to=2026-01-15T11%3A30%3A00/);
    }));
});

describe("histogram", () => {
  const shared = useBrowser();

  /** Records what the histogram writes on its canvas. */
  const recordLabels = (page) =>
    page.addInitScript(() => {
      globalThis.labels = [];
      const { fillText, clearRect } = CanvasRenderingContext2D.prototype;
      CanvasRenderingContext2D.prototype.fillText = function (text, x, y, ...rest) {
        const { a, d, e, f } = this.getTransform();
        globalThis.labels.push({ text, x: a * x + e, y: d * y + f });
        return fillText.call(this, text, x, y, ...rest);
      };
      CanvasRenderingContext2D.prototype.clearRect = function (...rest) {
        globalThis.labels = [];
        return clearRect.apply(this, rest);
      };
    });
  const labels = (page) => page.evaluate(() => globalThis.labels);

  /** Statistics with one event in each bucket that starts at these times. */
  const stats = (starts, count = 1) => (_request, url) => {
    if (url.pathname !== "/api/v1/stats") return undefined;
    const buckets = starts.map((start) => ({ start, count, by: { A: count } }));
    const total = starts.length * count;
    return { status: 200, body: { status: "success", data: { total, users: 1, approximate: false, interval: "1d", buckets, top: [{ value: "A", count: total }] } } };
  };

  for (const [what, hash, starts] of [
    ["the clocks go back", "from=2026-10-25T00:30:00Z&to=2026-11-27T15:00:00Z", ["2026-10-24T22:00:00.000Z", ...Array.from({ length: 33 }, (_, n) => new Date(Date.UTC(2026, 9, 25 + n, 23)).toISOString())]],
    ["the clocks go forward", "from=2026-03-28T12:30:00Z&to=2026-04-20T15:00:00Z", ["2026-03-27T23:00:00.000Z", "2026-03-28T23:00:00.000Z", ...Array.from({ length: 22 }, (_, n) => new Date(Date.UTC(2026, 2, 29 + n, 22)).toISOString())]],
  ]) {
    test(`each day has its own label after ${what}`, () =>
      visit(shared, "#/live", async (page) => {
        await recordLabels(page);
        await page.goto("about:blank");
        shared.proxy.fault = stats(starts);
        await page.goto(`${shared.proxy.url}#/explore?${hash}`);
        const canvas = await page.locator(".histogram canvas").boundingBox();
        const days = (await eventually("labels", async () => (await labels(page)).length > 5 && labels(page))).filter(({ text }) => /^\d+ [A-Z]/.test(text));
        assert.ok(days.length > 8, JSON.stringify(days));
        for (const { text, x } of days) {
          await page.mouse.move(canvas.x + x + 4, canvas.y + 60);
          const head = page.locator(".tooltip-head > span").first();
          await eventually(`the tooltip of ${text}`, async () => (await head.count()) === 1 && (await head.innerText()) === text, 3_000);
        }
      }));
  }

  test("every midnight of a week is labelled with its date, and the counts have some lines", () =>
    visit(shared, "#/live", async (page) => {
      await recordLabels(page);
      await page.goto("about:blank");
      const midnight = new Date().setUTCHours(0, 0, 0, 0);
      shared.proxy.fault = stats([new Date(midnight).toISOString()], 1_700);
      await page.goto(`${shared.proxy.url}#/explore?last=7d`);
      const texts = (await eventually("labels", async () => (await labels(page)).length > 5 && labels(page))).map(({ text }) => text);
      assert.ok(!texts.includes("00:00"), texts.join(", "));
      assert.equal(texts.filter((text) => /^\d+ [A-Z]/.test(text)).length, 7, texts.join(", "));
      for (const count of ["0", "500", "1,000", "1,500"]) assert.ok(texts.includes(count), texts.join(", "));
    }));
});

describe("explore an empty server", () => {
  const shared = useBrowser(EMPTY_SERVER);

  test("the first event is sent with the command that the page offers, and appears by itself", () =>
    visit(shared, "", async (page) => {
      await page.getByText("No events yet").waitFor();
      assert.equal(await page.getByRole("link", { name: "documentation of the API" }).getAttribute("href"), "docs");
      const command = await page.locator("pre.command").innerText();
      await promisify(execFile)("sh", ["-c", `${command} --fail --silent`]);
      await page.locator("td.col-action", { hasText: "SIGN_UP" }).waitFor({ timeout: 30_000 });
    }));
});
