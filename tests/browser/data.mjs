// Events that look real: shoppers of a web shop over some days, with a daily rhythm.

let state = 7;
function random() {
  // A linear congruential generator, so that every run posts the same events.
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return state / 2 ** 32;
}
const pick = (list) => list[Math.floor(random() * list.length)];

const NAMES = ["ada", "grace", "linus", "margaret", "dennis", "barbara", "ken", "radia", "edsger", "frances", "tim", "hedy", "alan", "katherine", "donald", "sophie", "vint", "joan", "guido", "annie"];
const PAGES = ["/", "/pricing", "/docs/start", "/docs/api", "/blog/launch", "/account", "/cart", "/products/lamp", "/products/desk", "/products/chair"];
const BROWSERS = ["Firefox 143", "Chrome 140", "Safari 18", "Edge 140"];

function event(time) {
  const userId = `${pick(NAMES)}-${100 + Math.floor(random() * 60)}`;
  const base = { userId, timestamp: new Date(time).toISOString() };
  const r = random();
  if (r < 0.52) return { ...base, action: "PAGE_VIEW", metadata: { page: pick(PAGES), browser: pick(BROWSERS), ms: Math.floor(40 + random() ** 3 * 900) } };
  if (r < 0.68) return { ...base, action: "CLICK_BUTTON", metadata: { page: pick(PAGES), button: pick(["buy", "more", "share", "subscribe"]) } };
  if (r < 0.79) return { ...base, action: "LOGIN", metadata: { method: pick(["password", "passkey", "google"]), country: pick(["DE", "FR", "US", "EG", "JP"]) } };
  if (r < 0.88) return { ...base, action: "ADD_TO_CART", metadata: { product: pick(["lamp", "desk", "chair"]), quantity: 1 + Math.floor(random() * 3), price: { amount: 1990 + Math.floor(random() * 9000), currency: "EUR" } } };
  if (r < 0.93) return { ...base, action: "CHECKOUT", metadata: { cart: { items: 1 + Math.floor(random() * 4), total: 2500 + Math.floor(random() * 40000), currency: "EUR" }, coupon: random() < 0.2 ? "AUTUMN25" : null } };
  if (r < 0.955) return { ...base, action: "PAYMENT_FAILED", metadata: { reason: pick(["card_declined", "expired_card", "3ds_timeout"]), provider: "stripe", attempt: 1 + Math.floor(random() * 3) } };
  if (r < 0.975) return { ...base, action: "SIGN_UP", metadata: { plan: pick(["free", "free", "pro", "team"]), referrer: pick(["search", "newsletter", "friend"]) } };
  return { ...base, action: "LOGOUT", metadata: {} };
}

/** More by day than by night, with a peak in the evening and a short outage. */
function weight(time, now) {
  const hour = new Date(time).getUTCHours() + new Date(time).getUTCMinutes() / 60;
  const daily = 0.35 + 0.5 * Math.max(0, Math.sin(((hour - 6) / 24) * 2 * Math.PI)) + 0.15 * Math.sin(time / 700_000);
  const minutes = (now - time) / 60_000;
  if (minutes > 25 && minutes < 28) return 0.12;
  return Math.max(daily, 0.1) + (minutes < 12 ? 0.25 : 0);
}

export function* events({ now, hours, count }) {
  let left = count;
  while (left > 0) {
    const time = now - random() * hours * 3_600_000;
    if (random() > weight(time, now)) continue;
    left -= 1;
    yield event(time);
  }
}

/** Values that must be shown as text and must not break the page. */
export const HOSTILE = [
  { userId: "<script>document.title='owned'</script>", action: "<img src=x onerror=\"document.title='owned'\">", metadata: { "<b>key</b>": "</td></tr></table><h1>owned</h1>", url: "javascript:alert(1)", template: "{{constructor.constructor('alert(1)')()}}" } },
  { userId: "hostile-bidi", action: "\u202eGPJ.EXE", metadata: { text: "abc\u202edcba\u200b", nul: "a\u0000b", lines: "one\ntwo\r\nthree" } },
  { userId: "hostile-size", action: "A".repeat(128), metadata: { long: "x".repeat(200_000), ["k".repeat(5_000)]: 1, many: Object.fromEntries(Array.from({ length: 1500 }, (_, n) => [`key-${n}`, n])) } },
  { userId: "hostile-names", action: "toString", metadata: { __proto__x: 1, constructor: { prototype: 1 }, "": "", "a.b": 1, hasOwnProperty: null } },
  { userId: "hostile-invisible", action: "INVISIBLE", metadata: { text: "a\u061cb\u3164c\u2800d\ufe00e\ufe0ff\u206ag\ufff9h\u{e0041}i1\ufe0fj", emoji: "❤️ 1️⃣" } },
  { userId: "hostile-types", action: "TYPES", metadata: { a: "1", b: 1, c: "null", d: null, e: "", f: "1a" } },
  { userId: "two  spaces ", action: "SPACES", metadata: {} },
  { userId: "u".repeat(256), action: "CSV", metadata: { formula: "=HYPERLINK(\"http://example.org\")", emoji: "👩‍👩‍👧‍👦", rtl: "שלום עולם مرحبا" } },
];
// Literal JSON, because JavaScript would round the numbers and treat the key specially.
export const HOSTILE_LINES = [
  `{"userId":"hostile-numbers","action":"NUMBERS","metadata":{"big":9223372036854775807,"one":1.0,"tiny":5e-324,"__proto__":{"polluted":true}}}`,
  `{"userId":"hostile-deep","action":"DEEP","metadata":${'{"a":'.repeat(30)}[1]${"}".repeat(30)}}`,
];

export async function post(url, lines) {
  for (let start = 0; start < lines.length; start += 2000) {
    const body = lines.slice(start, start + 2000).join("\n");
    const response = await fetch(new URL("/api/v1/logs/batch", url), { method: "POST", headers: { "content-type": "application/x-ndjson" }, body });
    if (response.status !== 202) throw new Error(`${response.status} ${(await response.text()).slice(0, 500)}`);
  }
}

/** Waits until the list shows an event of this user. */
export async function stored(url, userId) {
  for (let attempt = 0; attempt < 200; attempt += 1) {
    const response = await fetch(new URL(`/api/v1/logs?userId=${encodeURIComponent(userId)}&limit=1`, url));
    if ((await response.json()).results > 0) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`no event of ${userId} within 20 s`);
}
