// The OpenAPI document, as far as the page shows it.

export interface Schema {
  $ref?: string;
  type?: string | string[];
  description?: string;
  enum?: unknown[];
  default?: unknown;
  examples?: unknown[];
  format?: string;
  pattern?: string;
  minimum?: number;
  maximum?: number;
  minLength?: number;
  maxLength?: number;
  minItems?: number;
  maxItems?: number;
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  oneOf?: Schema[];
  anyOf?: Schema[];
  propertyNames?: Schema;
  additionalProperties?: boolean | Schema;
  contentSchema?: Schema;
}

export interface Parameter {
  name: string;
  in: "query" | "header" | "path";
  description?: string;
  required?: boolean;
  schema: Schema;
}

export interface Media {
  schema?: Schema;
  example?: unknown;
}

export interface Response {
  $ref?: string;
  description?: string;
  headers?: Record<string, { description?: string }>;
  content?: Record<string, Media>;
}

export interface Operation {
  tags?: string[];
  summary?: string;
  description?: string;
  operationId: string;
  parameters?: Parameter[];
  requestBody?: { description?: string; content: Record<string, Media> };
  responses: Record<string, Response>;
  security?: Record<string, string[]>[];
}

export interface Spec {
  openapi: string;
  info: { title: string; version: string; description?: string };
  paths: Record<string, Record<string, Operation>>;
  components: Record<string, Record<string, Schema | Response>>;
}

export interface Route {
  method: string;
  path: string;
  operation: Operation;
}

/** Returns what a reference refers to. */
export function resolve<T extends { $ref?: string }>(spec: Spec, value: T): T {
  const [, , part, name] = value.$ref?.split("/") ?? [];
  return part === undefined || name === undefined ? value : ((spec.components[part]?.[name] ?? value) as T);
}

/** The routes by tag, in the order of the API: ingest first, pages last. */
export function groups(spec: Spec): [string, Route[]][] {
  const order = ["Ingest", "Events", "Dead letters", "Erasure", "Operations", "Pages"];
  const found = new Map<string, Route[]>(order.map((tag) => [tag, []]));
  for (const [path, item] of Object.entries(spec.paths)) {
    for (const [method, operation] of Object.entries(item)) {
      const tag = operation.tags?.[0] ?? "Other";
      found.set(tag, [...(found.get(tag) ?? []), { method: method.toUpperCase(), path, operation }]);
    }
  }
  return [...found].filter(([, routes]) => routes.length > 0);
}

/** The scopes that the key needs, or an empty list if the route needs no key. */
export function scopes(operation: Operation): string[] {
  return (operation.security ?? []).flatMap((alternative) => Object.values(alternative).flat());
}

/** The type of a value in a few words, such as `integer, 1 to 1000`. */
export function describeType(schema: Schema): string {
  const parts = [[schema.type ?? (schema.oneOf || schema.anyOf ? "one of" : "any")].flat().join(" or ")];
  if (schema.format === "date-time") parts.push("RFC 3339");
  if (schema.enum) parts.push(schema.enum.map((value) => JSON.stringify(value)).join(", "));
  const low = schema.minimum ?? schema.minLength ?? schema.minItems;
  const high = schema.maximum ?? schema.maxLength ?? schema.maxItems;
  const noun = schema.maxLength !== undefined || schema.minLength !== undefined ? " character" : schema.minItems !== undefined ? " item" : "";
  const unit = noun === "" || (high ?? low) === 1 ? noun : `${noun}s`;
  if (low !== undefined && high !== undefined) parts.push(`${low} to ${high}${unit}`);
  else if (low !== undefined && low > 0) parts.push(`at least ${low}${unit}`);
  else if (high !== undefined) parts.push(`at most ${high}${unit}`);
  if (schema.default !== undefined) parts.push(`default ${JSON.stringify(schema.default)}`);
  return parts.join(", ");
}
