// Requests to the API, and what their failures mean.

import { type Json, parseJson } from "./json";
import { key, refusal } from "./session";
import { fits, type Shape } from "./shape";

export type Kind = "unauthorized" | "forbidden" | "unavailable" | "unsupported" | "invalid" | "busy" | "offline" | "failed";

/** A failed request. The message is the server's, or says why there is no response. */
export class Failure extends Error {
  constructor(
    readonly kind: Kind,
    message: string,
    readonly status = 0,
    readonly requestId: string | null = null,
  ) {
    super(message);
  }
}

/** The failure of a response without the fields that the page reads. */
export function unexpected(): Failure {
  return new Failure("failed", "The response is not what this page expects. Check that the address leads to an eyego-log server, and that the page and the server have the same version.");
}

export interface RequestOptions {
  method?: string;
  query?: URLSearchParams;
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal;
  /** Milliseconds until the response must have begun. */
  timeout?: number;
}

/** Relative to the page, so that a path prefix of a proxy is kept. */
export function apiUrl(path: string, query?: URLSearchParams): string {
  const url = new URL(path, document.baseURI.replace(/[?#].*$/, ""));
  if (query) url.search = query.toString();
  return url.href;
}

/**
 * Sends a request and returns a successful response.
 *
 * Throws a `Failure`, or an `AbortError` if `signal` is aborted.
 */
export async function request(path: string, options: RequestOptions = {}): Promise<Response> {
  const sent = key.get();
  if (!/^[\x20-\x7e]*$/.test(sent)) {
    // A header cannot have other characters: `fetch` would fail as it does without a network.
    throw unauthorized(sent, "The server does not accept this key: keys consist of ASCII characters.");
  }
  const controller = new AbortController();
  const { signal, timeout = 30_000 } = options;
  const abort = (): void => controller.abort(signal?.reason);
  if (signal?.aborted) abort();
  signal?.addEventListener("abort", abort);
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    controller.abort();
  }, timeout);
  try {
    const headers: Record<string, string> = { ...options.headers };
    if (sent !== "") headers["authorization"] = `Bearer ${sent}`;
    if (options.body !== undefined) headers["content-type"] = "application/json";
    const response = await fetch(apiUrl(path, options.query), {
      method: options.method ?? "GET",
      headers,
      cache: "no-store",
      signal: controller.signal,
      ...(options.body === undefined ? {} : { body: JSON.stringify(options.body) }),
    });
    if (!response.ok) throw await failure(path, response, sent);
    return response;
  } catch (error) {
    if (error instanceof Failure || signal?.aborted) throw error;
    if (isLate) throw new Failure("offline", `The server did not respond within ${timeout / 1000} s.`);
    throw new Failure("offline", "The server cannot be reached. Check that it runs and that the network works.");
  } finally {
    clearTimeout(timer);
  }
}

/** Sends a request and returns the JSON of its response, which must have the fields of `shape`. */
export async function getJson<T>(path: string, shape: Shape, options: RequestOptions = {}): Promise<T> {
  const response = await request(path, options);
  let found: Json;
  try {
    found = parseJson(await response.text());
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Failure("failed", "The response was cut off or is not JSON. Try again.");
  }
  if (!fits(found, shape)) throw unexpected();
  return found as T;
}

interface ErrorBody {
  message?: string;
  errors?: { path: string; message: string }[];
}

async function failure(path: string, response: Response, sent: string): Promise<Failure> {
  let body: ErrorBody = {};
  try {
    const parsed = parseJson(await response.text()) as Json;
    if (parsed !== null && typeof parsed === "object") body = parsed as ErrorBody;
  } catch {
    // A proxy's page, or nothing. The status has to do.
  }
  const { status } = response;
  const message = typeof body.message === "string" ? sentence(body.message) : `The server responded with status ${status}.`;
  const kind = kindOf(path, status, body);
  if (kind === "unauthorized") {
    const reason = sent === ""
      ? "This server requires an API key. Whoever operates it creates one with the command `eyego-log-server keys new`."
      : `The server does not accept this key: ${message}`;
    return unauthorized(sent, reason, status, response.headers.get("x-request-id"));
  }
  return new Failure(kind, message, status, response.headers.get("x-request-id"));
}

/** Starts with a capital letter, unless the text starts with a name such as `metadata.plan`. */
function sentence(text: string): string {
  return /^[a-z]+[ ,]/.test(text) ? `${text.charAt(0).toUpperCase()}${text.slice(1)}` : text;
}

/** Asks for another key, unless the user has entered one since. */
function unauthorized(sent: string, reason: string, status = 0, requestId: string | null = null): Failure {
  if (sent === key.get()) refusal.set(reason);
  return new Failure("unauthorized", reason, status, requestId);
}

function kindOf(path: string, status: number, body: ErrorBody): Kind {
  if (status === 401) return "unauthorized";
  if (status === 403) return "forbidden";
  if (status === 501) return "unsupported";
  if (status === 405) return "unavailable";
  // A server without a route below `/logs` takes the last segment for an id.
  const isTakenForId = status === 400 && body.errors?.some((error) => error.path === "id") === true;
  if (isTakenForId && /logs\/(tail|export)$/.test(path)) return "unavailable";
  if (status === 404) return body.message === undefined || body.message.startsWith("no such route") ? "unavailable" : "invalid";
  if (status === 429 || status === 503) return "busy";
  return status >= 500 ? "failed" : "invalid";
}
