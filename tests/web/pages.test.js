// Every page: complete without JavaScript, accessible, and as narrow as a phone.

import assert from "node:assert/strict";
import { before, test } from "node:test";
import axe from "axe-core";
import { fill, until } from "./harness.js";
import { browser, server } from "./stage.js";

const PAGES = [
  "/",
  "/contests/mayor",
  "/contests/mayor?unit=north",
  "/contests/mayor?unit=n-1",
  "/contests/council",
  "/contests/bridge",
  "/contests/song",
  "/contests/song/vote",
  "/contests/speaker/vote",
  "/contests/colours/vote",
  "/corrections",
  "/corrections?contest=mayor",
  "/check",
  "/units/valley",
  "/units/n-1?contest=mayor",
  "/no/such/page",
];

before(async () => {
  await fill(server);
  const counts = { ash: 120, cedar: 110, elm: 3 };
  await server.returns("mayor", "s-1", "election-day", counts);
  await server.post("/api/v1/recounts", { contest: "mayor", unit: "s-1", reason: "A close result" });
});

test("every page is complete without JavaScript and loads nothing from elsewhere", async () => {
  const context = await browser.newContext({ javaScriptEnabled: false });
  const page = await context.newPage();
  /** @type {string[]} */
  const elsewhere = [];
  page.on("request", (request) => {
    if (!request.url().startsWith(server.url)) elsewhere.push(request.url());
  });
  const titles = new Set();
  for (const path of PAGES) {
    await page.goto(server.url + path);
    assert.equal(await page.locator("h1").count(), 1, path);
    assert.ok((await page.locator(".test-data").innerText()).includes("TEST DATA"), path);
    assert.equal(await page.locator("[style], style, script:not([src])").count(), 0, `${path} has nothing inline`);
    titles.add(await page.title());
  }
  assert.deepEqual(elsewhere, []);
  assert.ok(titles.size >= PAGES.length - 2, "titles tell pages apart");
  await context.close();
});

test("the contest page shows the numbers of the count", async () => {
  const context = await browser.newContext({ javaScriptEnabled: false });
  const page = await context.newPage();
  await page.goto(`${server.url}/contests/mayor?unit=north`);
  const text = await page.locator("main").innerText();
  for (const part of ["2,380", "50.1\u202f%", "2,305", "1.3\u202f%", "4,746", "2 of 2 units reporting", "Town Hall"]) {
    assert.ok(text.includes(part), `${part} in\n${text}`);
  }
  assert.ok(text.includes("One return waits for the desk"), text);
  await page.getByRole("link", { name: "North 1, Town Hall" }).click();
  assert.ok(page.url().endsWith("/contests/mayor?unit=n-1"));
  await page.goto(`${server.url}/contests/mayor`);
  assert.ok((await page.locator("table.results").innerText()).includes("Recount votes"));
  await page.goto(`${server.url}/contests/bridge`);
  assert.ok((await page.locator("main").innerText()).includes("The measure passes with the votes counted so far"));
  await context.close();
});

test("a correction stands in the corrections log with old and new", async () => {
  const context = await browser.newContext({ javaScriptEnabled: false });
  const page = await context.newPage();
  for (const path of ["/corrections?contest=mayor", "/units/n-1"]) {
    await page.goto(server.url + path);
    const text = await page.locator(".log li", { hasText: "Two bundles were swapped" }).innerText();
    for (const part of ["1,200", "1,180", "−20", "+20", "corrects", "desk", "Election day"]) {
      assert.ok(text.includes(part), `${part} in\n${text}`);
    }
  }
  await context.close();
});

test("a projection is told in words, drawn as ranges and written as a table, without JavaScript", async () => {
  const context = await browser.newContext({ javaScriptEnabled: false });
  const page = await context.newPage();
  const part = page.locator('section[data-part="projection"]');
  await until(async () => {
    await page.goto(`${server.url}/contests/mayor`);
    return (await part.innerText()).includes("of 1,000 draws");
  }, "the projection is on the page");
  assert.equal(await part.locator("svg.fuzzy rect.band").count(), 6, "two ranges a selection, and no needle");
  const rows = await part.locator("tbody tr").allInnerTexts();
  assert.equal(rows.length, 3);
  for (const row of rows) assert.ok(!/[^\d>]100\.0|[^\d.<]0\.0\u202f%/.test(row), `nothing is certain yet: ${row}`);
  assert.ok((await part.innerText()).includes("is an estimate"), "it is told apart from results");
  await page.goto(`${server.url}/contests/mayor?unit=n-1`);
  assert.ok((await part.innerText()).includes("not projected"), "a precinct says that it is not projected");
  await page.goto(`${server.url}/contests/bridge`);
  assert.ok((await part.innerText()).includes("There is no projection"), "no baseline, no projection, and why");
  await page.goto(`${server.url}/contests/song`);
  assert.equal(await part.count(), 0, "live votes are not projected");
  await context.close();
});

test("axe finds nothing serious, in light and dark", async () => {
  for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
    // The page's own policy forbids foreign scripts; axe is one.
    const context = await browser.newContext({ colorScheme, bypassCSP: true });
    const page = await context.newPage();
    for (const path of PAGES) {
      await page.goto(server.url + path);
      await page.evaluate(axe.source);
      const found = await page.evaluate(() => /** @type {any} */ (window).axe.run());
      const serious = found.violations
        .filter((/** @type {any} */ v) => ["serious", "critical"].includes(v.impact))
        .map((/** @type {any} */ v) => `${v.id}: ${v.nodes.map((/** @type {any} */ n) => n.html).join("\n")}`);
      assert.deepEqual(serious, [], `${path} in ${colorScheme}`);
    }
    await context.close();
  }
});

test("no page scrolls sideways at 320 pixels", async () => {
  const page = await browser.newPage({ viewport: { width: 320, height: 640 } });
  /** @type {string[]} */
  const faults = [];
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("console", (message) => {
    // A page that is not found says so in the console, too.
    if (message.type() === "error" && !message.text().includes("404")) faults.push(message.text());
  });
  for (const path of PAGES) {
    await page.goto(server.url + path);
    const width = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(width <= 320, `${path} is ${width} pixels wide`);
    assert.deepEqual(faults, [], `${path} keeps its own policy and runs without errors`);
  }
  await page.close();
});

test("pages carry their headers, and unchanged ones are not sent twice", async () => {
  const first = await fetch(`${server.url}/contests/mayor`);
  assert.ok(first.headers.get("content-security-policy")?.startsWith("default-src 'self'"));
  assert.equal(first.headers.get("x-content-type-options"), "nosniff");
  assert.ok(first.headers.get("referrer-policy"));
  assert.match(first.headers.get("cache-control") ?? "", /stale-while-revalidate/);
  const etag = first.headers.get("etag") ?? "";
  const second = await fetch(`${server.url}/contests/mayor`, { headers: { "If-None-Match": etag } });
  assert.equal(second.status, 304);
  const style = /href="(\/static\/app\.css\?v=[^"]+)"/.exec(await first.text())?.[1] ?? "";
  assert.match((await fetch(server.url + style)).headers.get("cache-control") ?? "", /immutable/);
  assert.equal((await fetch(`${server.url}/contests/song/vote`)).headers.get("cache-control"), "no-store");
  for (const path of ["/contests/nothing", "/units/nowhere", "/corrections?page=9", "/static/nothing.js", "/nothing"]) {
    const missing = await fetch(server.url + path);
    assert.equal(missing.status, 404, path);
    assert.match(missing.headers.get("content-type") ?? "", /html/, path);
  }
});
