// JSON without loss: numbers that JavaScript cannot represent keep their text.

/** A number whose text differs from what JavaScript would print, such as 9223372036854775807 or 1.0. */
export class NumberText {
  constructor(readonly text: string) {}
}

export type Json = null | boolean | number | string | NumberText | Json[] | { [key: string]: Json };

interface ReviverContext {
  source?: string;
}

/** Parses JSON. A browser whose reviver has no source text rounds large integers. */
export function parseJson(text: string): Json {
  const revive = (_key: string, value: unknown, context?: ReviverContext): unknown => {
    if (typeof value !== "number") return value;
    const source = context?.source;
    return source === undefined || source === String(value) ? value : new NumberText(source);
  };
  return JSON.parse(text, revive as (key: string, value: unknown) => unknown) as Json;
}

/** Returns the JSON text of a value, indented if `indent` is given. */
export function printJson(value: Json, indent = 0, level = 0): string {
  if (value instanceof NumberText) return value.text;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const isArray = Array.isArray(value);
  const items = isArray
    ? value.map((item) => printJson(item, indent, level + 1))
    : Object.entries(value).map(([key, item]) => {
        const space = indent > 0 ? " " : "";
        return `${JSON.stringify(key)}:${space}${printJson(item, indent, level + 1)}`;
      });
  const [open, close] = isArray ? "[]" : "{}";
  if (items.length === 0) return `${open}${close}`;
  if (indent === 0) return `${open}${items.join(",")}${close}`;
  const pad = " ".repeat(indent * (level + 1));
  return `${open}\n${pad}${items.join(`,\n${pad}`)}\n${" ".repeat(indent * level)}${close}`;
}

/** Returns the value as the text of a filter: strings as they are, everything else as JSON. */
export function filterText(value: Json): string {
  return typeof value === "string" ? value : printJson(value);
}

/** Returns the value as text. A string that looks like another JSON value, such as `"1"`, is in quotation marks. */
export function shownText(value: Json): string {
  if (typeof value !== "string") return printJson(value);
  return /^(?:|null|true|false|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)$/.test(value) ? `"${value}"` : value;
}

/** Characters that are invisible or change the direction of the text around them, except tabs and line feeds. */
const INVISIBLE = /(?![\t\n])[\p{Cc}\p{Default_Ignorable_Code_Point}\p{Bidi_Control}\u2028\u2029\u2800\ufff9-\ufffb]/gu;

/**
 * An emoji whose invisible characters are part of it: the joiner (U+200D) between emoji that form one, and the variation
 * selector (U+FE0F) after an emoji or within a keycap.
 */
const EMOJI = /[0-9#*]\ufe0f\u20e3|\p{Extended_Pictographic}[\ufe0f\u{1f3fb}-\u{1f3ff}]?(?:\u200d\p{Extended_Pictographic}[\ufe0f\u{1f3fb}-\u{1f3ff}]?)*/gu;

function escapeCharacter(character: string): string {
  const hex = character.codePointAt(0)!.toString(16);
  return hex.length > 4 ? `\\u{${hex}}` : `\\u${hex.padStart(4, "0")}`;
}

/** Replaces invisible characters with their escapes, so that text cannot pose as something else. */
export function visible(text: string): string {
  const escape = (part: string): string => part.replace(INVISIBLE, escapeCharacter);
  let shown = "";
  let end = 0;
  for (const { 0: emoji, index } of text.matchAll(EMOJI)) {
    shown += escape(text.slice(end, index)) + emoji;
    end = index + emoji.length;
  }
  return shown + escape(text.slice(end));
}

/** Spaces that a reader cannot see or count: at either end, repeated, and those that only look like a space. */
const UNCLEAR_SPACES = /^ +| +$| {2,}|(?! )\p{Zs}|[\t\n]/gu;

/** `visible`, which also marks spaces that matter in an id or a name: `two␣␣spaces␣`. */
export function exact(text: string): string {
  const mark = (character: string): string => (character === " " ? "␣" : escapeCharacter(character));
  return visible(text).replace(UNCLEAR_SPACES, (spaces) => [...spaces].map(mark).join(""));
}

/** Returns the path and the short text of the first values of an object, for one line of a table. */
export function summarize(value: Json, budget = 240, prefix = "", depth = 1): [string, string][] {
  if (!isObject(value)) return [];
  const pairs: [string, string][] = [];
  for (const [name, item] of Object.entries(value)) {
    if (budget <= 0) break;
    const key = (prefix === "" ? name : `${prefix}.${name}`).slice(0, 60);
    const isOpened = isObject(item) && depth < 3 && Object.keys(item).length > 0;
    const added: [string, string][] = isOpened
      ? summarize(item, budget, key, depth + 1)
      : [[visible(key) || '""', visible(short(item, Math.min(budget, 80)))]];
    pairs.push(...added);
    budget -= added.reduce((sum, [path, text]) => sum + path.length + text.length + 2, 0);
  }
  return pairs;
}

function isObject(value: Json): value is { [key: string]: Json } {
  return value !== null && typeof value === "object" && !Array.isArray(value) && !(value instanceof NumberText);
}

function short(value: Json, max: number): string {
  if (Array.isArray(value)) return value.length === 0 ? "[]" : `[${value.length}]`;
  if (isObject(value)) {
    const count = Object.keys(value).length;
    return count === 0 ? "{}" : `{${count}}`;
  }
  const text = shownText(value);
  return text.length > max ? `${text.slice(0, max)}…` : text;
}

/** Returns the paths of the scalar values of an object, such as `plan` or `cart.total`, for the API. */
export function scalarPaths(value: Json, prefix = "", depth = 0): string[] {
  if (value === null || typeof value !== "object" || value instanceof NumberText) return [];
  if (Array.isArray(value) || depth > 3) return [];
  return Object.entries(value).flatMap(([key, item]) => {
    if (key === "" || key.length > 60) return [];
    const path = prefix === "" ? key : `${prefix}.${key}`;
    const isNested = item !== null && typeof item === "object" && !(item instanceof NumberText);
    return isNested ? scalarPaths(item, path, depth + 1) : [path];
  });
}
