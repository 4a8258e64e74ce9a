// Uses the generated openapi-typescript types: tsc checks this file, then it runs against a live API.

import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

declare const process: { argv: string[] };
const [baseUrl, key] = process.argv.slice(2) as [string, string];
const client = createClient<paths>({ baseUrl });

function assert(holds: boolean, seen: unknown): void {
  if (!holds) throw new Error(JSON.stringify(seen));
}

type Status = components["schemas"]["TransactionStatus"];
const processed: Status = "PROCESSED";

const accepted = await client.POST("/v1/webhooks/transactions", {
  body: {
    transaction_id: "typescript",
    source_account: "a",
    destination_account: "b",
    amount: "999999999999.999999",
    currency: "EUR",
  },
});
assert(accepted.data?.processed_at === null, accepted);

const settled = await client.GET("/v1/transactions/{transaction_id}", {
  params: { path: { transaction_id: "typescript" }, query: { wait: 30 } },
  headers: { "X-API-Key": key },
});
const status: Status | undefined = settled.data?.status;
assert(status === processed && typeof settled.data?.processed_at === "string", settled);

const listed = await client.GET("/v1/transactions", { params: { query: { status: "PROCESSED", limit: 1 } } });
assert(listed.data?.length === 1, listed);

const refused = await client.POST("/v1/webhooks/transactions", {
  body: { transaction_id: "", source_account: "a", destination_account: "b", amount: 1, currency: "EUR" },
});
const detail = refused.error?.detail;
assert(refused.response.status === 422 && Array.isArray(detail) && detail[0]?.type === "string_too_short", refused);

const probe = await client.POST("/api/v1/setup", { body: { x: 5, y: "5", direction: "NORTH" } });
assert(probe.data?.direction === "NORTH", probe);
console.log("all checks passed");
