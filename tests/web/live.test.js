// Open pages follow the count: through every kind of connection, and through the server's death.

import assert from "node:assert/strict";
import { test } from "node:test";
import { until } from "./harness.js";
import { browser, server } from "./stage.js";

/** @param {import("playwright-core").Page} page @param {string} key @param {string} [format] */
function shown(page, key, format = "integer") {
  return page.locator(`[data-key="${key}"][data-format="${format}"]`).first().innerText();
}

/**
 * What a page shows is what the server renders afresh; the rows of an open page may stand in an older order.
 * @param {import("playwright-core").Page} page
 */
async function sameAsFresh(page) {
  const read = () =>
    [...document.querySelectorAll("main table:not(details table), .notes, .badge, .reporting")]
      .flatMap((e) => (/** @type {HTMLElement} */ (e)).innerText.split("\n"))
      .sort()
      .join("\n");
  const fresh = await browser.newPage();
  await fresh.goto(page.url());
  const expected = await fresh.evaluate(read);
  await fresh.close();
  let last = "";
  await until(async () => (last = await page.evaluate(read)) === expected, "the same as a fresh page").catch(() =>
    assert.equal(last, expected),
  );
}

test("returns, a correction and a recount reach an open page", async () => {
  const page = await browser.newPage();
  await page.goto(`${server.url}/contests/mayor`);
  await page.locator(".state-live").waitFor();
  const first = await server.returns("mayor", "n-1", "election-day", { ash: 1200, cedar: 1011, elm: 33 });
  await until(async () => (await shown(page, "selections/ash/votes")) === "1,200", "the first return");
  assert.equal(await shown(page, "units/north/votes", "leader"), "Ash Birch");
  assert.equal(await shown(page, "units_reporting"), "1");
  const counts = { votes: { ash: 1011, cedar: 1200, elm: 33 } };
  await server.post(`/api/v1/returns/${first.receipt.record}/corrections`, { reason: "Swapped", counts });
  await until(async () => (await shown(page, "units/north/votes", "leader")) === "Cedar Dale", "the correction");
  await page.getByText("Cedar Dale leads with 53.5").waitFor();
  await server.post("/api/v1/recounts", { contest: "mayor", unit: "n-1", reason: "Close" });
  await page.getByText("A recount is open in North 1").waitFor();
  await page.getByRole("columnheader", { name: "Recount votes" }).waitFor();
  await sameAsFresh(page);
  await page.close();
});

test("the overview follows", async () => {
  const page = await browser.newPage();
  await page.goto(`${server.url}/`);
  await server.returns("bridge", "s-1", "total", { yes: 590, no: 410 });
  await page.getByText("The measure does not pass with the votes counted so far").waitFor({ timeout: 15_000 });
  await page.close();
});

for (const [name, hinder] of /** @type {[string, () => void][]} */ ([
  ["server-sent events", () => Reflect.set(window, "WebSocket", class { constructor() { setTimeout(() => this.onclose?.()); } onclose = () => {}; close() {} })],
  ["asking", () => {
    Reflect.set(window, "WebSocket", class { constructor() { setTimeout(() => this.onclose?.()); } onclose = () => {}; close() {} });
    Reflect.set(window, "EventSource", class { constructor() { setTimeout(() => this.onerror?.()); } onerror = () => {}; addEventListener() {} close() {} });
  }],
])) {
  test(`a page that is left with ${name} follows as well`, async () => {
    const context = await browser.newContext();
    await context.addInitScript(hinder);
    const page = await context.newPage();
    await page.goto(`${server.url}/contests/council`);
    await page.locator(".state-live").waitFor({ timeout: 30_000 });
    const before = (await server.results("contest=council")).counts.total;
    await server.returns("council", "n-1", "total", { fir: before + 900, hazel: 850, juniper: 400 });
    await until(async () => (await shown(page, "selections/fir/votes")) === (before + 900).toLocaleString("en-US"), name);
    await context.close();
  });
}

test("a page outlives its server and shows the right numbers again", async () => {
  const page = await browser.newPage();
  await page.goto(`${server.url}/contests/song`);
  await page.locator(".state-live").waitFor();
  await server.post("/api/v1/vote", { contest: "song", selections: ["one"], voter: "a" });
  await until(async () => (await shown(page, "selections/one/votes")) === "1", "the first vote");
  await server.kill();
  await page.getByText("Reconnecting.").waitFor();
  await server.run();
  await server.post("/api/v1/vote", { contest: "song", selections: ["one"], voter: "b" });
  await server.post("/api/v1/vote", { contest: "song", selections: ["two"], voter: "c" });
  await until(async () => (await shown(page, "selections/one/votes")) === "2", "the numbers after the restart", 30_000);
  await until(async () => (await shown(page, "selections/two/votes")) === "1", "the numbers after the restart");
  await page.locator(".state-live").waitFor();
  await sameAsFresh(page);
  await page.close();
});

test("what the reader has opened and focused stays so when parts are replaced", async () => {
  const page = await browser.newPage();
  await page.goto(`${server.url}/contests/mayor`);
  await page.locator(".state-live").waitFor();
  await page.locator("summary").click();
  await server.returns("mayor", "n-2", "election-day", { ash: 500, cedar: 1, elm: 3 });
  const last = page.locator("details tbody tr:last-child");
  await until(async () => (await last.innerText()).includes("1,511"), "the table of the chart", 15_000);
  assert.equal(await page.evaluate(() => document.activeElement?.tagName), "SUMMARY");
  await page.close();
});
