// A description: text in which backticks mark code.

import type { JSX } from "preact";

export function Text({ text }: { text: string | undefined }): JSX.Element {
  const parts = (text ?? "").split("`");
  return <span>{parts.map((part, index) => (index % 2 === 1 ? <code key={index}>{part}</code> : part))}</span>;
}

/** The same with paragraphs. */
export function Paragraphs({ text }: { text: string | undefined }): JSX.Element {
  return <>{(text ?? "").split("\n\n").filter((part) => part !== "").map((part, index) => <p key={index}><Text text={part} /></p>)}</>;
}
