// What each file of tests begins with: a server of its own and a browser, ended when its tests are over.

import { after } from "node:test";
import { Server, launch } from "./harness.js";

export const [server, browser] = await Promise.all([Server.start(), launch()]);

after(async () => {
  await browser.close();
  await server.stop();
});
