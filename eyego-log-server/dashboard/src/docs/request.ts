// The request that a form describes, and its response.

import { apiUrl } from "../lib/api";
import { key } from "../lib/session";
import type { Parameter, Route } from "./spec";

/** A response that goes on, such as the tail, is shown up to this size. */
const MAX_SHOWN = 256 << 10;

export interface Values {
  parameters: Record<string, string>;
  mediaType: string;
  body: string;
}

export interface Built {
  method: string;
  url: string;
  headers: Record<string, string>;
  body: string | undefined;
}

/** Headers that only browsers set. */
const FORBIDDEN = new Set(["accept-encoding", "content-encoding"]);

/** Whether the form can ask for a parameter. */
export function isEditable(parameter: Parameter): boolean {
  return !(parameter.in === "header" && FORBIDDEN.has(parameter.name.toLowerCase()));
}

/** Builds the request. The key is added when it is sent. */
export function build(route: Route, values: Values): Built {
  const query = new URLSearchParams();
  const headers: Record<string, string> = {};
  let path = route.path;
  for (const { name, in: place } of route.operation.parameters ?? []) {
    const value = values.parameters[`${place} ${name}`] ?? "";
    if (place === "path") path = path.replace(`{${name}}`, encodeURIComponent(value));
    else if (value === "") continue;
    else if (place === "header") headers[name.toLowerCase()] = value;
    else if (name === "metadata") pairs(value).forEach(([path, of]) => query.append(path, of));
    else query.append(name, value);
  }
  const body = route.operation.requestBody === undefined ? undefined : values.body;
  if (body !== undefined) headers["content-type"] = values.mediaType;
  return { method: route.method, url: apiUrl(path.slice(1), query), headers, body };
}

/** A value of the path that browsers resolve instead of sending it, or `null`. */
export function findDotSegment(route: Route, values: Values): string | null {
  const inPath = (route.operation.parameters ?? []).filter(({ in: place }) => place === "path");
  return inPath.map(({ name }) => values.parameters[`path ${name}`] ?? "").find((value) => value === "." || value === "..") ?? null;
}

/** Parses `metadata.page=home&metadata.n=1`. */
function pairs(text: string): [string, string][] {
  return text.split("&").filter((pair) => pair !== "").map((pair) => {
    const [path = "", ...value] = pair.split("=");
    const name = path.trim();
    return [name.startsWith("metadata.") ? name : `metadata.${name}`, value.join("=")];
  });
}

/** The request as a command. The key is a variable: commands end up in histories. */
export function curl({ method, url, headers, body }: Built): string {
  const quote = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;
  const parts = [`curl ${method === "GET" ? "" : `-X ${method} `}${quote(url)}`];
  if (key.get() !== "") parts.push(`-H "Authorization: Bearer $EYEGO_KEY"`);
  for (const [name, value] of Object.entries(headers)) parts.push(`-H ${quote(`${name}: ${value}`)}`);
  if (body !== undefined) parts.push(`--data-binary ${quote(body)}`);
  return parts.join(" \\\n  ");
}

export interface Shown {
  status: number;
  statusText: string;
  millis: number;
  headers: [string, string][];
  body: string;
  isCut: boolean;
  end: "open" | "complete" | "stopped" | "broken";
}

/** Sends the request, and calls `show` with the response as it arrives. */
export async function send({ method, url, headers, body }: Built, signal: AbortSignal, show: (shown: Shown) => void): Promise<void> {
  const start = performance.now();
  const sent = key.get() === "" ? headers : { ...headers, authorization: `Bearer ${key.get()}` };
  const response = await fetch(url, { method, headers: sent, signal, cache: "no-store", ...(body === undefined ? {} : { body }) });
  const shown: Shown = {
    status: response.status,
    statusText: response.statusText,
    millis: performance.now() - start,
    headers: [...response.headers],
    body: "",
    isCut: false,
    end: "open",
  };
  show(shown);
  const decoder = new TextDecoder();
  const reader = response.body?.getReader();
  let text = "";
  for (;;) {
    const { done, value } = (await reader?.read()) ?? { done: true, value: undefined };
    if (done) break;
    text += decoder.decode(value, { stream: true });
    if (text.length > MAX_SHOWN) {
      void reader?.cancel();
      show({ ...shown, body: text.slice(0, MAX_SHOWN), isCut: true, end: "complete" });
      return;
    }
    show({ ...shown, body: text });
  }
  show({ ...shown, body: pretty(text), end: "complete" });
}

/** Indents JSON whose numbers survive it; everything else stays as it is. */
function pretty(text: string): string {
  if (/[[:,]\s*-?\d{16}/.test(text)) return text;
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
