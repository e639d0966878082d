// JSON as a tree of text. Values come from strangers: they are only ever text nodes.

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { filterText, type Json, NumberText, shownText, visible } from "../lib/json";
import type { Filter } from "../lib/route";
import { Icon } from "./icons";

interface Props {
  value: Json;
  /** Offers each scalar as a filter. */
  onFilter?: ((filter: Filter) => void) | undefined;
  path?: string;
}

const LONG = 600;
const MANY = 100;

export function JsonView({ value, onFilter, path = "metadata" }: Props): JSX.Element {
  const [shown, setShown] = useState(MANY);
  const isNested = value !== null && typeof value === "object" && !(value instanceof NumberText);
  if (!isNested) return <Scalar value={value} path={path} onFilter={onFilter} />;
  const entries: [string, Json][] = Array.isArray(value)
    ? value.map((item, index) => [String(index), item])
    : Object.entries(value);
  if (entries.length === 0) return <span class="json-null">{Array.isArray(value) ? "[ ]" : "{ }"}</span>;
  return (
    <ul class="json">
      {entries.slice(0, shown).map(([key, item]) => (
        <li key={key}>
          <span class="json-key" dir="auto">{key === "" ? '""' : visible(key)}</span>
          {/* A filter on an array matches any of its elements. */}
          <JsonView value={item} onFilter={onFilter} path={Array.isArray(value) ? path : `${path}.${key}`} />
        </li>
      ))}
      {entries.length > shown && (
        <li>
          <button type="button" class="link" onClick={() => setShown(shown + 1000)}>Show {entries.length - shown} more</button>
        </li>
      )}
    </ul>
  );
}

function Scalar({ value, path, onFilter }: { value: Json; path: string; onFilter: Props["onFilter"] }): JSX.Element {
  const [isWhole, setWhole] = useState(false);
  const text = shownText(value);
  const isLong = text.length > LONG && !isWhole;
  const kind = typeof value === "string" ? "string" : value === null || typeof value === "boolean" ? "null" : "number";
  return (
    <span class="json-scalar">
      <span class={`json-${kind}`} dir="auto">{visible(isLong ? text.slice(0, LONG) : text)}</span>
      {isLong && <button type="button" class="link" onClick={() => setWhole(true)}>… show all {text.length} characters</button>}
      {onFilter && text.length <= 256 && path !== "metadata" && path.split(".").length <= 9 && (
        <button type="button" class="quiet icon-button json-filter" title={`Filter by ${path}`} aria-label={`Filter by ${path}`} onClick={() => onFilter({ name: path, value: filterText(value) })}>
          <Icon name="plus" />
        </button>
      )}
    </span>
  );
}
