// The fields of a body.

import type { JSX } from "preact";
import { describeType, resolve, type Schema, type Spec } from "./spec";
import { Text } from "../ui/Text";

/** Deep enough for every body of the API, and an end for schemas that contain themselves. */
const MAX_DEPTH = 6;

interface Props {
  spec: Spec;
  schema: Schema;
  depth?: number;
}

export function SchemaView({ spec, schema: given, depth = 0 }: Props): JSX.Element | null {
  const schema = resolve(spec, given);
  if (depth > MAX_DEPTH) return null;
  const inner = (child: Schema): JSX.Element => <SchemaView spec={spec} schema={child} depth={depth + 1} />;
  const alternatives = schema.oneOf ?? schema.anyOf;
  if (alternatives) {
    return (
      <ul class="alternatives">
        {alternatives.map((child, index) => <li key={index}>{index > 0 && <span class="muted">or </span>}{inner(child)}</li>)}
      </ul>
    );
  }
  if (schema.properties) {
    return (
      <dl class="fields">
        {Object.entries(schema.properties).map(([name, child]) => {
          const target = resolve(spec, child);
          return (
            <div key={name}>
              <dt><code>{name}</code>{schema.required?.includes(name) ? "" : <span class="muted"> optional</span>}</dt>
              <dd>
                <span class="muted">{describeType(target)}</span> <Text text={child.description ?? target.description} />
                {hasFields(spec, child) && inner(child)}
              </dd>
            </div>
          );
        })}
      </dl>
    );
  }
  const items = schema.items ?? schema.contentSchema ?? (typeof schema.additionalProperties === "object" ? schema.additionalProperties : undefined);
  return (
    <>
      {depth === 0 && <p><span class="muted">{describeType(schema)}</span> <Text text={schema.description} /></p>}
      {items && hasFields(spec, items) && inner(items)}
    </>
  );
}

function hasFields(spec: Spec, given: Schema): boolean {
  const schema = resolve(spec, given);
  const children = [schema.items, schema.contentSchema, ...(schema.oneOf ?? []), ...(schema.anyOf ?? [])];
  if (typeof schema.additionalProperties === "object") children.push(schema.additionalProperties);
  return schema.properties !== undefined || children.some((child) => child !== undefined && hasFields(spec, child));
}
