// Saves an export. With a key the response is fetched, because a link cannot send the header.

import { Failure, request } from "./api";

export type Format = "csv" | "ndjson" | "parquet";

interface SaveTarget {
  write(chunk: Uint8Array): Promise<void>;
  finish(): Promise<void>;
  discard(): Promise<void>;
}

interface FileHandle {
  createWritable(): Promise<{ write(chunk: Uint8Array): Promise<void>; close(): Promise<void>; abort(): Promise<void> }>;
}

type Picker = (options: { suggestedName: string }) => Promise<FileHandle>;

/** Streams to a file that the user picks if the browser can, and otherwise collects the file first. */
async function target(name: string): Promise<SaveTarget> {
  const picker = (window as unknown as { showSaveFilePicker?: Picker }).showSaveFilePicker;
  if (picker && window.isSecureContext && !navigator.webdriver) {
    const file = await (await picker({ suggestedName: name })).createWritable();
    return { write: (chunk) => file.write(chunk), finish: () => file.close(), discard: () => file.abort() };
  }
  const chunks: BlobPart[] = [];
  return {
    async write(chunk) {
      chunks.push(chunk.slice());
    },
    async finish() {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob(chunks));
      link.download = name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    },
    async discard() {
      chunks.length = 0;
    },
  };
}

/**
 * Saves all events that `query` selects. `onProgress` gets the number of bytes so far.
 *
 * Throws a `Failure`; a file that is incomplete is discarded, never saved as if it were whole.
 */
export async function download(
  query: URLSearchParams,
  format: Format,
  onProgress: (bytes: number) => void,
  signal: AbortSignal,
): Promise<string> {
  const name = `eyego-logs-${new Date().toISOString().slice(0, 19).replaceAll(":", "")}.${format}`;
  const sent = new URLSearchParams(query);
  sent.set("format", format);
  const response = await request("api/v1/logs/export", { query: sent, signal });
  const save = await target(name);
  let bytes = 0;
  try {
    const reader = response.body!.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      bytes += value.length;
      await save.write(value);
      onProgress(bytes);
    }
  } catch (error) {
    await save.discard();
    if (signal.aborted) throw error;
    throw new Failure("failed", "The export was cut off and has been discarded. Try again, or narrow the time range.");
  }
  await save.finish();
  return name;
}
