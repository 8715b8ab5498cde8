// Draws every page for people to look at: `node screenshots.js` writes screenshots/*.png.

import { mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Server, fill, launch } from "./harness.js";

const folder = fileURLToPath(new URL("./screenshots/", import.meta.url));
mkdirSync(folder, { recursive: true });

const pages = {
  overview: "/",
  contest: "/contests/mayor",
  county: "/contests/mayor?unit=north",
  precinct: "/contests/mayor?unit=n-1",
  council: "/contests/council",
  measure: "/contests/bridge",
  poll: "/contests/song/vote",
  token: "/contests/speaker/vote",
  several: "/contests/colours/vote",
  corrections: "/corrections",
  check: "/check",
  checked: "/check#votes",
  unit: "/units/n-1?contest=mayor",
  missing: "/contests/nothing",
};
const looks = {
  desktop: { viewport: { width: 1200, height: 800 }, colorScheme: /** @type {const} */ ("light") },
  phone: { viewport: { width: 320, height: 640 }, colorScheme: /** @type {const} */ ("light") },
  dark: { viewport: { width: 900, height: 800 }, colorScheme: /** @type {const} */ ("dark") },
};

const server = await Server.start();
const browser = await launch();
try {
  await fill(server);
  for (let i = 0; i < 60; i += 1) {
    await server.post("/api/v1/vote", { contest: "song", selections: [["one", "two", "two", "three"][i % 4]], voter: `v${i}` });
  }
  for (let i = 0; i < 30; i += 1) {
    await server.returns("mayor", "s-1", "election-day", { ash: 40 * i, cedar: 35 * i + (i % 7) * 4, elm: 5 * i });
    await new Promise((done) => setTimeout(done, 30));
  }
  await server.post("/api/v1/recounts", { contest: "mayor", unit: "s-1", reason: "The margin is below one percent" });
  const vote = { contest: "song", selections: ["two"], voter: "me" };
  pages.checked = `/check#${(await server.post("/api/v1/vote", vote)).receipt.record}`;
  await new Promise((done) => setTimeout(done, 1500));
  for (const [look, options] of Object.entries(looks)) {
    const page = await browser.newPage(options);
    for (const [name, path] of Object.entries(pages)) {
      await page.goto(server.url + path);
      await page.waitForTimeout(300);
      await page.screenshot({ path: `${folder}${name}-${look}.png`, fullPage: true });
    }
    await page.close();
  }
} finally {
  await browser.close();
  await server.stop();
}
