// Builds `dist/` from `src/`. The output depends only on the sources and the locked packages, so that CI
// can compare it with the committed files.

import { createHash } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const outdir = process.argv[2] ?? "dist";

await mkdir(outdir, { recursive: true });
await build({
  entryPoints: { app: "src/main.tsx", docs: "src/docs/main.tsx" },
  outdir,
  bundle: true,
  minify: true,
  format: "esm",
  target: ["es2022", "chrome114", "firefox120", "safari17"],
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "eof",
  logLevel: "warning",
});

let total = 0;
for (const [file, bundle] of [["index.html", "app"], ["docs.html", "docs"]]) {
  let page = await readFile(`src/${file}`, "utf8");
  for (const name of [`${bundle}.css`, `${bundle}.js`]) {
    const bytes = await readFile(`${outdir}/${name}`);
    const version = createHash("sha256").update(bytes).digest("hex").slice(0, 16);
    page = page.replace(`assets/${name}`, `assets/${name}?v=${version}`);
    total += gzipSync(bytes, { level: 9 }).length;
  }
  await writeFile(`${outdir}/${file}`, page);
  total += gzipSync(page, { level: 9 }).length;
}
console.log(`${outdir}: ${(total / 1000).toFixed(1)} KB compressed`);
