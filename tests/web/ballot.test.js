// Votes through the page: each counts once, with and without JavaScript.

import assert from "node:assert/strict";
import { test } from "node:test";
import { until } from "./harness.js";
import { browser, server } from "./stage.js";

/** @param {string} contest @returns {Promise<Record<string, number>>} */
async function votes(contest) {
  const { selections } = await server.results(`contest=${contest}`);
  return Object.fromEntries(Object.entries(selections).map(([id, row]) => [id, row.votes]));
}

/** @param {string} contest @param {Record<string, number>} expected */
async function counted(contest, expected) {
  await until(async () => JSON.stringify(await votes(contest)) === JSON.stringify(expected), "counted");
  // Nothing more comes after it.
  await new Promise((done) => setTimeout(done, 200));
  assert.deepEqual(await votes(contest), expected);
}

test("a click votes once, says so with the record, and moves a second page", async () => {
  const watcher = await browser.newPage();
  await watcher.goto(`${server.url}/contests/song`);
  await watcher.locator(".state-live").waitFor();
  const voter = await (await browser.newContext()).newPage();
  await voter.goto(`${server.url}/contests/song/vote`);
  await voter.getByRole("button", { name: "Stone Song" }).dblclick();
  const said = voter.locator("#said");
  await said.waitFor();
  assert.match(await said.innerText(), /^Your vote is recorded\. Record votes-\d+-\d+-\d+\. Check that it is in the log\.$/);
  const cell = watcher.locator('[data-key="selections/two/votes"][data-format="integer"]');
  await until(async () => (await cell.innerText()) === "1", "the second page has moved");
  await watcher.getByText("Stone Song leads with 100.0").waitFor();
  await counted("song", { one: 0, three: 0, two: 1 });
  // Who comes back finds the vote, and no second ballot.
  await voter.goto(`${server.url}/contests/song/vote`);
  assert.equal(await voter.locator("form").count(), 0);
  assert.match(await voter.locator(".ballot").innerText(), /Your vote counts as record votes-/);
  await watcher.close();
  await voter.context().close();
});

test("the ballot works without JavaScript", async () => {
  const context = await browser.newContext({ javaScriptEnabled: false });
  const page = await context.newPage();
  await page.goto(`${server.url}/contests/song/vote`);
  await page.getByRole("button", { name: "River Song" }).click();
  assert.match(await page.locator("#said").innerText(), /Your vote is recorded/);
  await counted("song", { one: 1, three: 0, two: 1 });
  await context.close();
});

test("the keyboard alone is enough", async () => {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(`${server.url}/contests/colours/vote`);
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement?.textContent), "Skip to the content");
  await page.keyboard.press("Enter");
  const reached = async (/** @type {string} */ selector) => {
    for (let i = 0; i < 20; i += 1) {
      await page.keyboard.press("Tab");
      if (await page.evaluate((s) => document.activeElement?.matches(s), selector)) return;
    }
    assert.fail(`${selector} is not reached by Tab`);
  };
  await reached('input[value="red"]');
  await page.keyboard.press("Space");
  await reached('input[value="gold"]');
  await page.keyboard.press("Space");
  await reached("form button");
  const outline = await page.evaluate(() => getComputedStyle(/** @type {Element} */ (document.activeElement)).outlineStyle);
  assert.notEqual(outline, "none", "focus is visible");
  await page.keyboard.press("Enter");
  assert.match(await page.locator("#said").innerText(), /Your vote is recorded/);
  await counted("colours", { blue: 0, gold: 1, red: 1 });
  await context.close();
});

test("the same form sent twice at once is one vote", async () => {
  const first = await fetch(`${server.url}/contests/song/vote`);
  const cookie = (first.headers.get("set-cookie") ?? "").split(";")[0];
  assert.match(cookie, /^canvass_voter=[0-9a-f]{32}$/);
  const key = /name="key" value="([0-9a-f]+)"/.exec(await first.text())?.[1] ?? "";
  const body = new URLSearchParams({ key, selection: "three" });
  const send = () => fetch(`${server.url}/contests/song/vote`, { method: "POST", redirect: "manual", headers: { cookie }, body });
  const answers = await Promise.all([send(), send(), send()]);
  assert.deepEqual(answers.map((a) => a.status), [303, 303, 303]);
  const said = new Set(answers.map((a) => a.headers.get("set-cookie")));
  assert.equal(said.size, 1, "all three get the same receipt");
  await counted("song", { one: 1, three: 1, two: 1 });
});

test("a ballot that cannot be counted is refused in words", async () => {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(`${server.url}/contests/colours/vote`);
  await page.getByRole("button", { name: "Cast your vote" }).click();
  assert.match(await page.locator("#said").innerText(), /Nothing was recorded: please choose at least one/);
  await page.goto(`${server.url}/contests/speaker/vote`);
  await page.getByLabel("Your voting token").fill("no.such.token");
  await page.getByLabel("Oak Pine").check();
  await page.getByRole("button", { name: "Cast your vote" }).click();
  assert.match(await page.locator("#said").innerText(), /this voting token is not valid/);
  const foreign = await fetch(`${server.url}/contests/song/vote`, {
    method: "POST",
    headers: { Origin: "https://elsewhere.example", Cookie: `canvass_voter=${"0".repeat(32)}` },
    body: new URLSearchParams({ key: "k", selection: "one" }),
  });
  assert.equal(foreign.status, 403);
  await counted("song", { one: 1, three: 1, two: 1 });
  await context.close();
});

test("a token votes, and a later vote takes the place of the earlier", async () => {
  const token = await server.command("token", "issue", "--audience", "valley", "--voter", "a", "--contest", "speaker");
  const context = await browser.newContext();
  const page = await context.newPage();
  for (const name of ["Oak Pine", "Rowan Sage"]) {
    await page.goto(`${server.url}/contests/speaker/vote`);
    await page.getByLabel("Your voting token").fill(token);
    await page.getByLabel(name).check();
    await page.getByRole("button", { name: "Cast your vote" }).click();
    assert.match(await page.locator("#said").innerText(), /Your vote is recorded/);
  }
  await counted("speaker", { oak: 0, rowan: 1 });
  await context.close();
});
