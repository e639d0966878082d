// One route: what it takes, what it returns, and a form to try it.

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { SchemaView } from "./SchemaView";
import { describeType, resolve, type Response, type Route, scopes, type Spec } from "./spec";
import { Paragraphs, Text } from "../ui/Text";
import { Try } from "./Try";

export function RouteView({ spec, route, isOpen: isFirst }: { spec: Spec; route: Route; isOpen: boolean }): JSX.Element {
  const { operation } = route;
  // Drawn when it is opened: all routes together are thousands of elements.
  const [isOpen, setOpen] = useState(isFirst);
  return (
    <details class="route panel" id={operation.operationId} open={isFirst} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        <span class={`method method-${route.method.toLowerCase()}`}>{route.method}</span>
        <code>{route.path}</code>
        <span class="muted">{operation.summary}</span>
      </summary>
      {isOpen && <Details spec={spec} route={route} />}
    </details>
  );
}

function Details({ spec, route }: { spec: Spec; route: Route }): JSX.Element {
  const { operation } = route;
  const [isTrying, setTrying] = useState(false);
  const needed = scopes(operation);
  const body = operation.requestBody;
  const parameters = operation.parameters ?? [];
  return (
    <div class="route-body">
      <Paragraphs text={operation.description} />
      <p class="muted">{needed.length > 0 ? <>If the server has keys, the key needs the scope <code>{needed.join(", ")}</code>.</> : "No key is needed."}</p>
      {parameters.length > 0 && !isTrying && (
        <>
          <h3>Parameters</h3>
          <dl class="fields">
            {parameters.map((parameter) => (
              <div key={`${parameter.in} ${parameter.name}`}>
                <dt><code>{parameter.name}</code><span class="muted"> {parameter.in}{parameter.required ? ", required" : ""}</span></dt>
                <dd><span class="muted">{describeType(parameter.schema)}</span> <Text text={parameter.description} /></dd>
              </div>
            ))}
          </dl>
        </>
      )}
      {body && (
        <>
          <h3>Body</h3>
          <Paragraphs text={body.description} />
          {Object.entries(body.content).map(([mediaType, media]) => (
            <details key={mediaType}>
              <summary><code>{mediaType}</code></summary>
              {media.schema && <SchemaView spec={spec} schema={media.schema} />}
            </details>
          ))}
        </>
      )}
      <div class="actions actions-start">
        <button type="button" aria-expanded={isTrying} onClick={() => setTrying(!isTrying)}>{isTrying ? "Close" : "Try it"}</button>
      </div>
      {isTrying && <Try route={route} />}
      <h3>Responses</h3>
      <div class="responses">
        {Object.entries(operation.responses).map(([status, response]) => <ResponseView key={status} spec={spec} status={status} response={resolve(spec, response)} />)}
      </div>
    </div>
  );
}

function ResponseView({ spec, status, response }: { spec: Spec; status: string; response: Response }): JSX.Element {
  const content = Object.entries(response.content ?? {});
  const headers = Object.keys(response.headers ?? {});
  return (
    <details>
      <summary><b class={status < "400" ? "good" : "bad"}>{status}</b> <Text text={response.description} /></summary>
      {headers.length > 0 && <p class="hint">Headers: {headers.map((name, index) => <span key={name}>{index > 0 && ", "}<code>{name}</code></span>)}</p>}
      {content.map(([mediaType, media]) => (
        <div key={mediaType}>
          <code>{mediaType}</code>
          {media.schema && <SchemaView spec={spec} schema={media.schema} />}
        </div>
      ))}
    </details>
  );
}
