// A voter checks in the browser that their record is in the log, and is told when it is not.

import assert from "node:assert/strict";
import { copyFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import axe from "axe-core";
import { Server } from "./harness.js";
import { browser, server } from "./stage.js";

let voters = 0;

/** @param {string} selection @returns {Promise<{ receipt: { record: string, promise: string } }>} */
function vote(selection) {
  voters += 1;
  return server.post("/api/v1/vote", { contest: "song", selections: [selection], voter: `voter ${voters}` });
}

/** A page whose requests can be tampered with. @param {import("playwright-core").BrowserContextOptions} [options] */
async function open(options) {
  const page = await (await browser.newContext(options)).newPage();
  await page.goto(`${server.url}/check`);
  return page;
}

/** @param {import("playwright-core").Page} page @param {string} [receipt] */
async function check(page, receipt) {
  if (receipt !== undefined) {
    await page.getByLabel("Your receipt").fill(receipt);
    await page.getByRole("button", { name: "Check" }).click();
  }
  await page.locator("#verdict.said").waitFor({ timeout: 20_000 });
  return page.locator("#verdict").innerText();
}

/** @param {import("playwright-core").Page} page */
function steps(page) {
  return page.locator("#steps li").allInnerTexts();
}

/**
 * Changes what the server answers at addresses of this form.
 * @param {import("playwright-core").Page} page @param {RegExp} address @param {(body: Buffer) => Uint8Array} change
 */
async function tamper(page, address, change) {
  await page.route(address, async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, body: Buffer.from(change(await response.body())) });
  });
}

test("the ballot leads to the check, and the check says what was voted", async () => {
  const page = await (await browser.newContext()).newPage();
  await page.goto(`${server.url}/contests/song/vote`);
  await page.getByRole("button", { name: "Stone Song" }).click();
  await page.locator("#said").getByRole("link", { name: "Check that it is in the log" }).click();
  const record = new URL(page.url()).hash.slice(1);
  assert.equal(await check(page), `Record ${record} is in the log.`);
  const said = await steps(page);
  assert.equal(said.length, 3);
  assert.match(said[0], /^The record says: a vote for “Stone Song” in “.+”, taken in at \d{4}-.+ UTC\. Is this how you voted\?$/);
  assert.match(said[1], /^It is number \d+ of the \d+ records of votes\/\d+, whose checkpoint the log’s key has signed\.$/);
  await page.getByText("The checkpoint, to keep").click();
  const note = await page.locator("#checkpoint").innerText();
  assert.match(note, /^valley\n\d+\n\S{44}\n\n— valley \S+$/m);
  await page.context().close();
});

test("a receipt is checked as a promise, pasted or from a file", async () => {
  const answer = await vote("one");
  const page = await open();
  assert.equal(await check(page, JSON.stringify(answer)), `Record ${answer.receipt.record} is in the log.`);
  assert.equal((await steps(page))[3], "Your receipt is a signed promise of exactly this record.");
  await page.reload();
  const file = join(server.folder, "receipt.txt");
  writeFileSync(file, answer.receipt.promise);
  await page.getByLabel("Or a file that holds it").setInputFiles(file);
  assert.equal(await check(page), `Record ${answer.receipt.record} is in the log.`);
  assert.equal((await steps(page)).length, 4);
  await page.context().close();
});

test("every kind of proof is made: first and last leaves, small trees and grown ones", async () => {
  const page = await open();
  const answers = [];
  for (let i = 0; i < 40; i += 1) answers.push(await vote(["one", "two", "three"][i % 3]));
  for (const [i, { receipt }] of answers.entries()) {
    if (i % 8 !== 0 && i < 36) continue;
    assert.equal(await check(page, receipt.record), `Record ${receipt.record} is in the log.`);
  }
  assert.equal(await check(page, "returns-0-0-0"), "Record returns-0-0-0 is in the log.");
  assert.match((await steps(page))[0], /^The record is not a vote\. .+ “election-defined”\.$/);
  await page.context().close();
});

test("whatever is changed on the way is found", async () => {
  // The own vote is the last of its bundle.
  const [other, own] = [await vote("two"), await vote("one")];
  const record = own.receipt.record;
  const flip = (/** @type {number} */ at) => (/** @type {Buffer} */ body) => {
    body[at < 0 ? body.length + at : at] ^= 1;
    return body;
  };
  /** @type {[string, RegExp, (body: Buffer) => Uint8Array, RegExp][]} */
  const rows = [
    ["a bundle's last choice", /tile\/entries/, flip(-2), /does not lead to the checkpoint|newest|another record/],
    ["a hash of the proof", /\/proof$/, (body) => Buffer.from(body.toString().replace(/\n(\S)(\S{42}=\n\n)/, (_, a, b) => `\n${a === "A" ? "B" : "A"}${b}`)), /not proven/],
    ["the size in the checkpoint", /\/proof$/, (body) => Buffer.from(body.toString().replace(/\n(\d+)\n(\S{44}\n\n— )/, (_, n, rest) => `\n${Number(n) + 1}\n${rest}`)), /is not signed by the log’s key/],
    ["where batches end", /batches/, (body) => body.map((byte, at) => (at % 8 === 0 ? byte ^ 1 : byte)), /another record/],
    ["no proof at all", /\/proof$/, () => Buffer.from("hello\n\nworld"), /The answer is not a proof/],
  ];
  for (const [what, address, change, words] of rows) {
    const page = await open();
    await check(page, record);
    await tamper(page, address, change);
    const verdict = await check(page, `${record} `);
    assert.match(verdict, /^This is not proven\. /, what);
    assert.match(verdict, words, what);
    await page.context().close();
  }
  const page = await open();
  const mixed = { receipt: { record, promise: other.receipt.promise } };
  assert.match(await check(page, JSON.stringify(mixed)), /its promise is of another record than the one it names/);
  await page.context().close();
});

test("a promise that the log did not keep is evidence", async () => {
  // The same key and voters, and another log: what an operator would have who threw votes away.
  const twin = new Server();
  for (const name of ["log.secret", "voters.secret"]) copyFileSync(join(server.folder, name), join(twin.folder, name));
  try {
    await twin.run(["--election", fileURLToPath(new URL("election.toml", import.meta.url))]);
    const vote = { contest: "song", selections: ["two"], voter: "voter 1" };
    const answer = await fetch(`${twin.url}/api/v1/vote`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(vote),
    });
    const { receipt } = await answer.json();
    const page = await open();
    assert.match(
      await check(page, JSON.stringify({ receipt })),
      /^This is not proven\. Your receipt is a signed promise of another record than .+ Keep it: it is evidence\.$/,
    );
    assert.equal((await steps(page)).length, 3, "the record that stands there is proven");
    await page.context().close();
  } finally {
    await twin.stop();
  }
});

test("another key, another record and no receipt are refused in words", async () => {
  const { receipt } = await vote("three");
  const page = await open();
  await page.getByText("The log’s key", { exact: true }).click();
  const key = page.getByLabel("Signatures are checked with this key");
  const own = await key.inputValue();
  // The key of another log: it is well made, and has signed nothing here.
  await key.fill("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW");
  assert.match(await check(page, receipt.record), /^This is not proven\. The checkpoint of .+ is not signed by the log’s key\.$/);
  await key.fill(own.replace("valley", "wallet"));
  assert.match(await check(page, receipt.record), /its id does not fit/);
  await key.fill(own);
  assert.equal(await check(page, "votes-0-99999-0"), "This is not proven. The log has no record votes-0-99999-0.");
  assert.match(await check(page, "my vote"), /neither a record’s name, such as votes-3-17-0, nor a receipt/);
  assert.equal(await check(page, receipt.record), `Record ${receipt.record} is in the log.`);
  await page.context().close();
});

test("without JavaScript the page says how to check", async () => {
  const page = await open({ javaScriptEnabled: false });
  assert.equal(await page.getByLabel("Your receipt").isVisible(), false);
  const text = await page.locator("main").innerText();
  const key = await server.command("key", "log");
  for (const part of ["canvass proof votes-3-17-0 --url ADDRESS", `--key ${key}`, "What it does not prove"]) {
    assert.ok(text.includes(part), `${part} in\n${text}`);
  }
  await page.context().close();
});

test("the checked page is accessible, and as narrow as a phone", async () => {
  const { receipt } = await vote("two");
  for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
    const page = await open({ colorScheme, bypassCSP: true, viewport: { width: 320, height: 640 } });
    await check(page, JSON.stringify({ receipt }));
    await page.getByText("The checkpoint, to keep").click();
    await page.getByText("The log’s key", { exact: true }).click();
    await page.evaluate(axe.source);
    const found = await page.evaluate(() => /** @type {any} */ (window).axe.run());
    const serious = found.violations.filter((/** @type {any} */ v) => ["serious", "critical"].includes(v.impact));
    assert.deepEqual(serious.map((/** @type {any} */ v) => `${v.id}: ${v.nodes[0].html}`), []);
    assert.ok((await page.evaluate(() => document.documentElement.scrollWidth)) <= 320);
    await page.context().close();
  }
});
