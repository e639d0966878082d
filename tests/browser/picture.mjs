// Takes the picture of the README and of docs/dashboard.md from a new server:
//
//     EYEGO_TEST_CHROMIUM=/usr/bin/chromium node picture.mjs http://127.0.0.1:3000

import { chromium } from "playwright-core";
import { events, post, stored } from "./data.mjs";
import { startProxy } from "./proxy.mjs";

const [target = "http://127.0.0.1:3000"] = process.argv.slice(2);
const now = Date.now();
await post(target, [...events({ now, hours: 24, count: 40_000 })].map((event) => JSON.stringify(event)));
await post(target, [JSON.stringify({ userId: "last", action: "LOGOUT", timestamp: new Date(now - 86_400_000 * 2).toISOString() })]);
await stored(target, "last");
const dist = new URL("../../eyego-log-server/dashboard/dist", import.meta.url).pathname;
const proxy = await startProxy(target, { dist });
const browser = await chromium.launch({ executablePath: process.env.EYEGO_TEST_CHROMIUM, args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--font-render-hinting=none"] });
const context = await browser.newContext({ viewport: { width: 1280, height: 760 }, colorScheme: "light", timezoneId: "Europe/Berlin" });
const page = await context.newPage();
await page.goto(`${proxy.url}#/explore?last=24h`);
await page.locator(".legend-item").first().waitFor({ timeout: 60_000 });
await page.locator(".events tbody tr", { hasText: /CHECKOUT|ADD_TO_CART/ }).first().locator(".row-open").click();
await page.locator(".drawer .json").first().waitFor();
await page.evaluate(() => scrollTo(0, 0));
await page.mouse.move(10, 500);
await page.screenshot({ path: new URL("../../docs/images/dashboard.png", import.meta.url).pathname, animations: "disabled" });
await browser.close();
proxy.close();
