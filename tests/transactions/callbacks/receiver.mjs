// A receiver of callbacks, written with the library standardwebhooks of npm.
//   node receiver.mjs /PATH=SECRET...
// A message to a path must be signed with the secret of that path. Prints the port, then each accepted message as a line of
// JSON.
import { createServer } from "node:http";
import { Webhook, WebhookVerificationError } from "standardwebhooks";

const webhooks = new Map();
for (const argument of process.argv.slice(2)) {
  const [path, ...secret] = argument.split("=");
  webhooks.set(path, new Webhook(secret.join("=")));
}

const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks).toString();
  try {
    const message = webhooks.get(request.url).verify(body, request.headers);
    const signed = Object.entries(request.headers).filter(([name]) => name.startsWith("webhook-"));
    console.log(JSON.stringify({ path: request.url, headers: Object.fromEntries(signed), body, message }));
    response.writeHead(204).end();
  } catch (error) {
    const refused = error instanceof WebhookVerificationError;
    response.writeHead(refused ? 401 : 500).end(error.message);
  }
});
server.listen(0, "127.0.0.1", () => console.log("listening on", server.address().port));
