// Walks through the board in headless Chromium as an operator does, at two widths, light and dark, with and without
// scripts. Checks every page with axe-core, and its width, its title and its errors. Prints one line per problem.
//   node browser.mjs URL KEY TRANSACTION CHROMIUM [FOLDER FOR PICTURES]
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import puppeteer from "puppeteer-core";

const [url, key, transaction, chromium, pictures] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
// With a pipe instead of a port, Chromium ends when this process does, also after a kill.
const browser = await puppeteer.launch({
  executablePath: chromium,
  args: ["--no-sandbox", "--disable-gpu"],
  pipe: true,
});
let problems = 0;
let checked = 0;

function report(where, text) {
  problems += 1;
  console.log(`${where}: ${text}`);
}

async function check(page, mode, name) {
  const where = `${name} (${mode.name})`;
  checked += 1;
  const state = await page.evaluate(() => ({
    title: document.title,
    headings: document.querySelectorAll("h1").length,
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  }));
  if (!state.title.endsWith(" · Millrace")) report(where, `the title is ${state.title}`);
  if (state.headings !== 1) report(where, `${state.headings} first headings`);
  if (state.overflow > 0) report(where, `${state.overflow} pixels wider than the window`);
  if (pictures) await page.screenshot({ path: `${pictures}/${name}-${mode.name}.png`, fullPage: true });
  // Timers of axe need scripts; those of the page are not run, because it is not loaded again.
  if (!mode.scripts) await page.setJavaScriptEnabled(true);
  await page.evaluate(axe);
  const { violations } = await page.evaluate("axe.run(document, { resultTypes: ['violations'] })");
  for (const { id, impact, help, nodes } of violations) {
    if (impact !== "serious" && impact !== "critical") continue;
    report(where, `${impact} ${id}: ${help}: ${nodes.map((node) => node.html.slice(0, 200)).join(" | ")}`);
  }
  if (!mode.scripts) await page.setJavaScriptEnabled(false);
}

// The page may replace its content between the search for an element and the click, which then has not happened.
async function click(page, selector) {
  for (;;) {
    try {
      return await page.click(selector);
    } catch (error) {
      if (!String(error).includes("detached")) throw error;
    }
  }
}

// Loads a page again until no part is missing because its query took over a second.
async function complete(page) {
  while ((await page.content()).includes("Not known now: the query takes over 1 s.")) await page.reload();
}

// Clicks what leads to another page, and waits for it.
async function follow(page, selector) {
  await Promise.all([page.waitForNavigation(), click(page, selector)]);
  await complete(page);
}

async function type(page, selector, text) {
  await page.type(selector, text);
}

// The first Tab leads to a visible link that skips the navigation.
async function checkFocus(page, where) {
  await page.keyboard.press("Tab");
  const focus = await page.evaluate(() => {
    const { className, textContent } = document.activeElement;
    return { className, textContent, height: document.activeElement.getBoundingClientRect().height };
  });
  if (focus.className !== "skip" || focus.height < 10) report(where, `the first Tab leads to ${focus.textContent}`);
}

// The page changes by itself.
async function checkEvents(page, where) {
  const before = await page.$eval("[data-events] .age time", (time) => time.dateTime);
  const changed = (before) => document.querySelector("[data-events] .age time")?.dateTime !== before;
  await page.waitForFunction(changed, { timeout: 20_000 }, before).catch(() => report(where, "no event has come"));
}

async function walk(mode) {
  const context = await browser.createBrowserContext();
  const page = await context.newPage();
  await page.setViewport({ width: mode.width, height: 800 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: mode.scheme }]);
  await page.setJavaScriptEnabled(mode.scripts);
  let expected = 200;
  page.on("pageerror", (error) => report(mode.name, `script: ${error}`));
  page.on("console", (message) => {
    const isError = message.type() === "error" && !message.text().includes(`status of ${expected}`);
    if (isError) report(mode.name, `console: ${message.text()}`);
  });
  const open = async (path) => {
    await page.goto(url + path);
    await complete(page);
  };

  await open("/board/dead");
  await check(page, mode, "login");
  await type(page, "#name", "ada");
  await type(page, "#key", "wrong");
  expected = 403;
  await follow(page, "main button");
  await check(page, mode, "login-refused");
  expected = 200;
  await type(page, "#key", key);
  await follow(page, "main button");
  if (new URL(page.url()).pathname !== "/board/dead") report(mode.name, `the login leads to ${page.url()}`);
  await check(page, mode, "dead");
  await follow(page, "main tbody a");
  await check(page, mode, "selection");
  await type(page, "form.action [name=reason]", "the processor is back");
  await follow(page, "form.action button");
  await check(page, mode, "preview");
  await follow(page, "main form.action button");
  if (!new URL(page.url()).pathname.startsWith("/board/replays/")) report(mode.name, `the replay leads to ${page.url()}`);
  await check(page, mode, "replay");
  await type(page, "#search", transaction);
  await Promise.all([page.waitForNavigation(), page.keyboard.press("Enter")]);
  await complete(page);
  if (new URL(page.url()).pathname !== `/board/t/${transaction}`) report(mode.name, `the search leads to ${page.url()}`);
  await check(page, mode, "timeline");
  await follow(page, "main .facts a");
  await check(page, mode, "job");
  await open("/board");
  if (mode.scripts) await checkEvents(page, `now (${mode.name})`);
  await checkFocus(page, `now (${mode.name})`);
  await check(page, mode, "now");
  for (const [name, path] of [
    ["queue", "/board/queues/process_transaction"],
    ["queue-unknown", "/board/queues/unknown"],
    ["jobs", "/board/jobs"],
    ["jobs-empty", "/board/jobs?state=cancelled"],
    ["workers", "/board/workers"],
    ["replays", "/board/replays"],
    ["schedules", "/board/schedules"],
    ["fires", "/board/schedules/daily_prices"],
    ["scale", "/board/scale"],
    ["trends", "/board/queues/process_transaction/trends?window=24h"],
    ["database", "/board/database"],
    ["audit", "/board/audit"],
    ["callbacks", "/board/callbacks"],
    ["find-empty", "/board/find?q=nothing"],
  ]) {
    await open(path);
    if (mode.scripts && ["workers", "replays"].includes(name)) await checkEvents(page, `${name} (${mode.name})`);
    await check(page, mode, name);
  }
  await follow(page, "header nav a[href='/board/workers']");
  await follow(page, "main tbody a");
  await check(page, mode, "worker");
  expected = 404;
  await open("/board/unknown");
  await check(page, mode, "unknown");
  await context.close();
}

// Every pair of width, colours and scripts. All eight combinations take twice as long.
for (const [width, scheme, scripts] of [
  [360, "light", true],
  [360, "dark", false],
  [1280, "dark", true],
  [1280, "light", false],
]) {
  const name = `${width}-${scheme}-${scripts ? "scripts" : "plain"}`;
  await walk({ scripts, width, scheme, name }).catch((error) => report(name, error.stack));
}
await browser.close();
console.log(`${checked} pages checked, ${problems} problems`);
process.exitCode = problems === 0 ? 0 : 1;
