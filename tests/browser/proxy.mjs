// A proxy between the browser and the server, which adds faults.

import { once } from "node:events";
import { createReadStream } from "node:fs";
import http from "node:http";

/**
 * Starts a proxy for the server at `target`. `prefix` is a path that it removes, such as `/tools/logs`. With
 * `dist`, the page comes from this directory instead of the server.
 */
export async function startProxy(target, { prefix = "", dist = process.env.EYEGO_DASHBOARD_DIST ?? null } = {}) {
  const proxy = {
    /** Called for each request; returns or resolves to a fault, or nothing. `{delay}` in ms, `{status, body}`, `{cut: true}`. */
    fault: () => undefined,
    /** Every request so far: `METHOD path`. */
    requests: [],
    /** The open tails: `{response}`. */
    tails: new Set(),
  };
  const server = http.createServer((request, response) => {
    handle(proxy, target, prefix, dist, request, response).catch((error) => {
      if (!response.headersSent) response.writeHead(502);
      response.end(String(error));
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  proxy.url = `http://127.0.0.1:${server.address().port}${prefix}/`;
  proxy.close = () => {
    server.closeAllConnections();
    server.close();
  };
  return proxy;
}

async function handle(proxy, target, prefix, dist, request, response) {
  if (!request.url.startsWith(`${prefix}/`)) {
    response.writeHead(404).end();
    return;
  }
  const url = new URL(request.url.slice(prefix.length), target);
  const name = `${request.method} ${url.pathname}`;
  proxy.requests.push(`${name}${url.search}`);
  const fault = await proxy.fault(request, url);
  if (fault?.delay) await new Promise((resolve) => setTimeout(resolve, fault.delay));
  if (fault?.status) {
    response.writeHead(fault.status, { "content-type": "application/json", "x-request-id": "request-1" });
    response.end(JSON.stringify(fault.body ?? { status: "error", message: `status ${fault.status}` }));
    return;
  }
  if (fault?.cut) {
    request.socket.destroy();
    return;
  }
  if (dist !== null && request.method === "GET") {
    const file = { "/": "index.html", "/docs": "docs.html" }[url.pathname] ?? /^\/assets\/(\w+\.(?:js|css))$/.exec(url.pathname)?.[1];
    if (file) {
      const type = { html: "text/html", js: "text/javascript", css: "text/css" }[file.split(".").pop()];
      const policy = (await fetch(target)).headers.get("content-security-policy");
      response.writeHead(200, { "content-type": type, "cache-control": "no-store", "content-security-policy": policy });
      createReadStream(`${dist}/${file}`).pipe(response);
      return;
    }
  }
  await forward(proxy, url, request, response);
}

async function forward(proxy, url, request, response) {
  if (url.pathname.endsWith("/tail")) {
    const connection = { response };
    proxy.tails.add(connection);
    response.on("close", () => proxy.tails.delete(connection));
  }
  await new Promise((resolve, reject) => {
    const upstream = http.request(url, { method: request.method, headers: request.headers }, (from) => {
      response.writeHead(from.statusCode, from.headers);
      from.pipe(response);
      from.on("end", resolve);
      from.on("error", reject);
    });
    upstream.on("error", reject);
    response.on("close", () => upstream.destroy());
    request.pipe(upstream);
  });
}
