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
  getFile(): Promise<Blob>;
  /** Not in every browser. */
  remove?(): Promise<void>;
}

type Picker = (options: { suggestedName: string }) => Promise<FileHandle>;

/** Streams to a file that the user picks if the browser can, and otherwise collects the file first. */
async function target(name: string): Promise<SaveTarget> {
  const picker = (window as unknown as { showSaveFilePicker?: Picker }).showSaveFilePicker;
  if (picker && window.isSecureContext && !navigator.webdriver) {
    const handle = await picker({ suggestedName: name });
    const file = await handle.createWritable();
    return {
      write: (chunk) => file.write(chunk),
      finish: () => file.close(),
      async discard() {
        // Chunks go to a temporary file, which this removes. The picked file is still empty.
        await file.abort().catch(() => undefined);
        if ((await handle.getFile()).size === 0) await handle.remove?.();
      },
    };
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
 * Throws a `Failure`, or a `DOMException` if the file cannot be written, the user closes the dialog or `signal` is
 * aborted. An incomplete file is discarded, never saved as if it were whole.
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
  // The dialog is first: browsers open it only in response to a click, and the server limits how long and how many
  // responses may wait for it.
  const save = await target(name);
  let reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  let bytes = 0;
  try {
    const response = await request("api/v1/logs/export", { query: sent, signal });
    reader = response.body!.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      bytes += value.length;
      await save.write(value);
      onProgress(bytes);
    }
    await save.finish();
  } catch (error) {
    await reader?.cancel().catch(() => undefined);
    await save.discard().catch(() => undefined);
    if (signal.aborted || error instanceof Failure || error instanceof DOMException) throw error;
    throw new Failure("failed", "The export was cut off and has been discarded. Try again, or narrow the time range.");
  }
  return name;
}
