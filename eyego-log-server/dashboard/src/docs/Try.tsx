// A form that sends the request of a route.

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { key } from "../lib/session";
import { useStore } from "../lib/store";
import { Confirm } from "../ui/Confirm";
import { Copy } from "../ui/Copy";
import { build, curl, findDotSegment, isEditable, send, type Shown, type Values } from "./request";
import { describeType, type Parameter, type Route, type Schema } from "./spec";
import { Text } from "../ui/Text";

/** Routes that change what is stored, besides those of DELETE. */
const DANGEROUS = new Set(["replayDeadLetters"]);

export function Try({ route }: { route: Route }): JSX.Element {
  useStore(key);
  const { operation } = route;
  const content = operation.requestBody?.content ?? {};
  const example = (mediaType: string): string => {
    const value = content[mediaType]?.example;
    return typeof value === "string" ? value : value === undefined ? "" : JSON.stringify(value, null, 2);
  };
  const first = Object.keys(content)[0] ?? "";
  const [values, setValues] = useState<Values>({ parameters: {}, mediaType: first, body: example(first) });
  const [shown, setShown] = useState<Shown | null>(null);
  const [failure, setFailure] = useState("");
  const running = useRef<AbortController | null>(null);
  const [isRunning, setRunning] = useState(false);
  const [isAsking, setAsking] = useState(false);
  useEffect(() => () => running.current?.abort(), []);

  const request = build(route, values);
  const ask = (): void => {
    const dotSegment = findDotSegment(route, values);
    if (dotSegment !== null) {
      setShown(null);
      return setFailure(`A browser cannot send "${dotSegment}" as part of a path: it would request another path. Use curl with --path-as-is, or another client.`);
    }
    if (DANGEROUS.has(route.operation.operationId) || route.method === "DELETE") setAsking(true);
    else void submit();
  };
  const submit = async (): Promise<void> => {
    setAsking(false);
    const controller = new AbortController();
    running.current = controller;
    setRunning(true);
    setFailure("");
    setShown(null);
    try {
      await send(request, controller.signal, setShown);
    } catch (error) {
      if (!controller.signal.aborted) setFailure(`There is no complete response: ${(error as Error).message}. Check that the server runs.`);
      setShown((before) => before && { ...before, end: controller.signal.aborted ? "stopped" : "broken" });
    }
    setRunning(false);
  };
  const set = (name: string, value: string): void => setValues({ ...values, parameters: { ...values.parameters, [name]: value } });

  return (
    <>
      <form
        class="try"
        onSubmit={(event) => {
          event.preventDefault();
          ask();
        }}
      >
        {(operation.parameters ?? []).filter(isEditable).map((parameter) => {
          const name = `${parameter.in} ${parameter.name}`;
          return <ParameterField key={name} parameter={parameter} value={values.parameters[name] ?? ""} onChange={(value) => set(name, value)} />;
        })}
        {operation.requestBody && (
          <>
            {Object.keys(content).length > 1 && (
              <label class="field">
                Content-Type
                <select value={values.mediaType} onChange={({ currentTarget: { value } }) => setValues({ ...values, mediaType: value, body: example(value) })}>
                  {Object.keys(content).map((mediaType) => <option key={mediaType}>{mediaType}</option>)}
                </select>
              </label>
            )}
            <label class="field wide">
              Body
              <textarea rows={8} spellcheck={false} value={values.body} onInput={(event) => setValues({ ...values, body: event.currentTarget.value })} />
            </label>
          </>
        )}
        <div class="actions actions-start wide">
          <button type="submit" class={route.method === "DELETE" ? "danger" : "primary"} disabled={isRunning}>Send {route.method}</button>
          {isRunning && <button type="button" onClick={() => running.current?.abort()}>Stop</button>}
          <Copy text={() => curl(request)} label="Copy as curl" />
        </div>
        <div class="wide" role="status">
          {failure !== "" && <p class="notice">{failure}</p>}
          {shown && <Result shown={shown} of={`${route.method} ${route.path}`} />}
        </div>
      </form>
      {isAsking && (
        <Confirm title="Send this request?" action={`Send ${route.method}`} isDangerous onConfirm={() => void submit()} onClose={() => setAsking(false)}>
          <p>This changes the data of the server. It cannot be undone.</p>
          <pre class="raw" tabIndex={0}>{request.method} {request.url}{request.body === undefined ? "" : `\n\n${request.body}`}</pre>
        </Confirm>
      )}
    </>
  );
}

function ParameterField({ parameter, value, onChange }: { parameter: Parameter; value: string; onChange: (value: string) => void }): JSX.Element {
  const { name, required, description, schema, in: place } = parameter;
  return (
    <label class="field">
      <span><code>{name}</code> <span class="muted">{place === "query" ? "" : `${place}, `}{describeType(schema)}{required ? ", required" : ""}</span></span>
      {schema.enum ? (
        <select value={value} required={required === true} onChange={(event) => onChange(event.currentTarget.value)}>
          <option value="" />
          {schema.enum.map((option) => <option key={String(option)}>{String(option)}</option>)}
        </select>
      ) : (
        <input type="text" autocomplete="off" spellcheck={false} placeholder={placeholder(schema)} value={value} required={required === true} onInput={(event) => onChange(event.currentTarget.value)} />
      )}
      <span class="hint"><Text text={description} /></span>
    </label>
  );
}

function placeholder(schema: Schema): string {
  if (schema.propertyNames) return "metadata.page=home";
  if (schema.default !== undefined) return String(schema.default);
  return schema.format === "date-time" ? "2026-01-14T00:00:00Z" : "";
}

/** What is shown beside the status until the response is complete, and if it never is. */
const ENDS: Record<Shown["end"], string> = { open: ", still receiving", complete: "", stopped: ", stopped", broken: ", incomplete" };

function Result({ shown, of }: { shown: Shown; of: string }): JSX.Element {
  return (
    <section class="result" aria-label={`Response of ${of}`}>
      <p><b class={shown.status < 400 ? "good" : "bad"}>{shown.status} {shown.statusText}</b> <span class="muted">{Math.round(shown.millis)} ms{ENDS[shown.end]}{shown.isCut ? ", only the beginning is shown" : ""}</span></p>
      <details>
        <summary>Headers</summary>
        <pre class="raw">{shown.headers.map(([name, value]) => `${name}: ${value}`).join("\n")}</pre>
      </details>
      {shown.body !== "" && <pre class="raw" tabIndex={0} aria-label="Body of the response">{shown.body}</pre>}
    </section>
  );
}
