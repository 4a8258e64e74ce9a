// Sends transactions to Millrace and waits for their settlement: Node 20 or newer, no packages. Copy what you need.
//
//     node sender.mjs send FILE    sends the transactions of a file: one a line, as JSON
//     node sender.mjs poll ID...   waits until each transaction is settled, and prints its status
//
// Variables: MILLRACE_URL; WEBHOOK_SECRET to send; MILLRACE_API_KEY to poll, if the server wants a key for reading.

import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

// They take about three minutes, and longer if the server asks for it.
const ATTEMPTS = 12;

/** The server refused the request, or all tries failed. */
class Failed extends Error {}

function readSecret(secret: string): Buffer {
  const key = Buffer.from(secret.trim().replace(/^whsec_/, ""), "base64");
  if (key.length < 24) throw new Error("a secret is whsec_ and at least 24 bytes in base64");
  return key;
}

function sign(key: Buffer, id: string, timestamp: string, body: Buffer): string {
  return "v1," + createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest("base64");
}

/** The milliseconds that a Retry-After header asks for, at most a day. It is a number of seconds or a date. */
function retryAfter(value: string): number {
  const asked = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return Number.isNaN(asked) ? 5000 : Math.min(Math.max(asked, 0), 86_400_000);
}

/** Tries a request until its response is final. `make` makes it again for each try, because a signature expires. */
async function retry(url: string, make: () => RequestInit): Promise<{ headers: Headers; text: string }> {
  let [pause, problem] = [0, ""];
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    await sleep(pause);
    const init = make();
    try {
      const response = await fetch(url, { ...init, signal: AbortSignal.timeout(90_000) });
      const text = await response.text();
      if (response.ok) return { headers: response.headers, text };
      problem = `status ${response.status}: ${text}`;
      if (response.status < 500 && ![408, 425, 429].includes(response.status)) throw new Failed(problem);
      pause = retryAfter(response.headers.get("retry-after") ?? "0");
    } catch (error) {
      if (error instanceof Failed) throw error;
      // The server may have the request nevertheless.
      [pause, problem] = [0, `no response: ${error} ${(error as Error).cause ?? ""}`];
    }
    // Backoff with full jitter, after the pause that the server asks for.
    pause += Math.random() * Math.min(60_000, 500 * 2 ** attempt);
  }
  throw new Failed(`${ATTEMPTS} tries failed, the last one with ${problem}`);
}

/** Sends a transaction. However often it is sent, the server records it once: its id is the key. */
async function send(url: string, key: Buffer, json: string): Promise<string> {
  const body = Buffer.from(json);
  const id: string = JSON.parse(json).transaction_id;
  const messageId = encodeURIComponent(id);
  const { headers } = await retry(`${url}/v1/webhooks/transactions`, () => {
    const timestamp = String(Math.floor(Date.now() / 1000));
    return {
      method: "POST",
      body,
      headers: {
        "content-type": "application/json",
        "webhook-id": messageId,
        "webhook-timestamp": timestamp,
        "webhook-signature": sign(key, messageId, timestamp, body),
      },
    };
  });
  const fields = headers.get("idempotency-conflict");
  if (fields !== null) throw new Failed(`${id} is recorded before with another ${fields}; the first one stands`);
  return `${id} ${headers.has("idempotency-replayed") ? "replayed" : "accepted"}`;
}

type Transaction = { transaction_id: string; status: "PROCESSING" | "PROCESSED" | "FAILED"; error?: string };

/** Returns a transaction once it is PROCESSED or FAILED. The server holds each response for up to 60 s. */
async function waitUntilSettled(url: string, apiKey: string, id: string): Promise<Transaction> {
  const headers: Record<string, string> = apiKey ? { "x-api-key": apiKey } : {};
  for (;;) {
    const { text } = await retry(`${url}/v1/transactions/${encodeURIComponent(id)}?wait=60`, () => ({ headers }));
    // The amount is not in the type: a JavaScript number would change some amounts. Read it from `text`.
    const transaction: Transaction = JSON.parse(text);
    if (transaction.status !== "PROCESSING") return transaction;
    await sleep(500 + Math.random() * 1000);
  }
}

const { MILLRACE_URL: url = "http://127.0.0.1:8000", WEBHOOK_SECRET = "", MILLRACE_API_KEY = "" } = process.env;
const [command, ...rest] = process.argv.slice(2);
try {
  if (command === "send" && rest[0]) {
    const key = readSecret(WEBHOOK_SECRET);
    const lines = readFileSync(rest[0], "utf8").split("\n").filter((line) => line.trim());
    for (const line of lines) console.log(await send(url, key, line));
  } else if (command === "poll") {
    for (const id of rest) console.log(id, (await waitUntilSettled(url, MILLRACE_API_KEY, id)).status);
  }
} catch (error) {
  if (!(error instanceof Failed)) throw error;
  console.error(`failed: ${error.message}`);
  process.exitCode = 1;
}
