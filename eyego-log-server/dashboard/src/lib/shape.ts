// Checks the fields that the pages read, so that a response of another form is one clear failure.

/** The name of a type, a list of values of one shape, or the fields of an object. `time` is a string with a time. */
export type Shape = "string" | "number" | "time" | readonly [Shape] | { readonly [field: string]: Shape };

export function fits(value: unknown, shape: Shape): boolean {
  if (shape === "time") return typeof value === "string" && !Number.isNaN(Date.parse(value));
  if (typeof shape === "string") return typeof value === shape;
  if (isList(shape)) return Array.isArray(value) && value.every((item) => fits(item, shape[0]));
  if (typeof value !== "object" || value === null) return false;
  return Object.entries(shape).every(([field, of]) => fits((value as Record<string, unknown>)[field], of));
}

function isList(shape: Shape): shape is readonly [Shape] {
  return Array.isArray(shape);
}
