// Receives the callbacks of Millrace, each settlement once: Node 20 or newer, no packages. Copy what you need.
//
//     node receiver.mjs PORT FOLDER
//
// CALLBACK_SECRET is the secret of the callbacks; two, separated by a comma, while one replaces the other.

import { createHmac, timingSafeEqual } from "node:crypto";
import { closeSync, existsSync, fsyncSync, mkdirSync, openSync, renameSync, writeSync } from "node:fs";
import { createServer, type IncomingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";

// The greatest difference between a signature's time and now, in seconds. It limits how long a message can be reused.
const TOLERANCE = 300;
const LONGEST_BODY = 100_000;

function readSecret(secret: string): Buffer {
  const key = Buffer.from(secret.trim().replace(/^whsec_/, ""), "base64");
  if (key.length < 24) throw new Error("a secret is whsec_ and at least 24 bytes in base64");
  return key;
}

function sign(key: Buffer, id: string, timestamp: string, body: Buffer): string {
  return "v1," + createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest("base64");
}

/** Whether the holder of one of the keys signed exactly these bytes a short time ago. */
function verify(headers: IncomingHttpHeaders, body: Buffer, keys: Buffer[], now: number): boolean {
  const header = (name: string): string => String(headers[name] ?? "");
  const [id, timestamp] = [header("webhook-id"), header("webhook-timestamp")];
  if (!/^\d{1,12}$/.test(timestamp) || Math.abs(now / 1000 - Number(timestamp)) > TOLERANCE) return false;
  const given = header("webhook-signature").split(" ").map((entry) => Buffer.from(entry));
  const expected = keys.map((key) => Buffer.from(sign(key, id, timestamp, body)));
  // timingSafeEqual throws if the lengths differ. The length of a signature is no secret.
  const isEqual = (one: Buffer, other: Buffer) => one.length === other.length && timingSafeEqual(one, other);
  return given.some((one) => expected.some((other) => isEqual(one, other)));
}

/** Stores a message once; returns false if it is stored already. The folder stands for your database: insert the id
 * there under a unique key, in the same transaction as everything that the message causes. */
function store(folder: string, id: string, body: Buffer): boolean {
  const path = `${folder}/${encodeURIComponent(id)}`;
  if (existsSync(`${path}.json`)) return false;
  const file = openSync(`${path}.new`, "w");
  writeSync(file, body);
  fsyncSync(file);
  closeSync(file);
  renameSync(`${path}.new`, `${path}.json`);
  return true;
}

const [port, folder] = process.argv.slice(2);
mkdirSync(String(folder), { recursive: true });
const keys = (process.env["CALLBACK_SECRET"] ?? "").split(",").map(readSecret);
const server = createServer(async (request, response) => {
  try {
    const chunks: Buffer[] = [];
    for await (const chunk of request) {
      chunks.push(chunk);
      if (chunks.reduce((size, one) => size + one.length, 0) > LONGEST_BODY) return request.destroy();
    }
    const body = Buffer.concat(chunks);
    if (!verify(request.headers, body, keys, Date.now())) return response.writeHead(401).end();
    if (store(String(folder), String(request.headers["webhook-id"]), body)) console.log(`received ${body}`);
    // 204 once the message is stored. After any other status, Millrace sends it again.
    response.writeHead(204).end();
  } catch (error) {
    console.error(error);
    response.writeHead(500).end();
  }
});
server.listen(Number(port), "127.0.0.1", () => {
  console.log(`listening on http://127.0.0.1:${(server.address() as AddressInfo).port}`);
});
