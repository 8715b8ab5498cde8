// Starts the real binary on an empty folder, and a browser.

import { execFile, spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { chromium } from "playwright-core";

const here = fileURLToPath(new URL(".", import.meta.url));
const binary = process.env.CANVASS_BIN ?? join(here, "../../target/debug/canvass");
// The server refuses CANVASS_* variables that it does not know, such as the tests' own.
const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("CANVASS_")));
const env = { ...environment, CANVASS_LOG: "warn" };
const browserPath = process.env.CHROMIUM ?? "/usr/bin/chromium";

/** A running server with its folder, its source's key and what tests ask of it. */
export class Server {
  folder = mkdtempSync(join(tmpdir(), "canvass-web-"));
  key = "";
  port = 0;
  requests = 0;
  /** @type {import("node:child_process").ChildProcess | undefined} */
  process;

  /** @param {string} [definition] a definition file of this folder */
  static async start(definition = "election.toml") {
    if (!existsSync(binary)) throw new Error(`${binary} is missing: run \`cargo build -p canvass\``);
    const server = new Server();
    server.key = await server.command("key", "add", "--name", "desk", ...["source", "desk", "collector"].flatMap((role) => ["--role", role]));
    await server.run(["--election", join(here, definition)]);
    return server;
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  /** @param {string} name @param {string} act @param {string[]} rest */
  async command(name, act, ...rest) {
    const { stdout } = await promisify(execFile)(binary, [name, act, "--data", this.folder, ...rest], { env });
    return stdout.trim();
  }

  /** @param {string[]} more */
  async run(more = []) {
    const listen = `127.0.0.1:${this.port}`;
    const child = spawn(binary, ["serve", "--data", this.folder, "--listen", listen, "--tick-ms", "50", ...more], {
      stdio: ["ignore", "pipe", "inherit"],
      env,
    });
    this.process = child;
    this.port = await new Promise((done, fail) => {
      createInterface({ input: child.stdout }).on("line", (line) => {
        const found = /listening on http:\/\/127\.0\.0\.1:(\d+)/.exec(line);
        if (found) done(Number(found[1]));
      });
      child.once("exit", () => fail(new Error("the server ended before it listened")));
    });
  }

  /** Ends the process at once, as a crash would. */
  async kill() {
    const child = this.process;
    if (!child || child.exitCode !== null) return;
    const ended = new Promise((done) => child.once("exit", done));
    child.kill("SIGKILL");
    await ended;
  }

  async stop() {
    await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** @param {string} path @param {unknown} body */
  async post(path, body) {
    this.requests += 1;
    const response = await fetch(this.url + path, {
      method: "POST",
      headers: {
        Authorization: `Bearer ${this.key}`,
        "Content-Type": "application/json",
        "Idempotency-Key": `test-${this.requests}`,
      },
      body: JSON.stringify(body),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${path}: ${response.status} ${text}`);
    return JSON.parse(text);
  }

  /** @param {string} contest @param {string} unit @param {string} count_type @param {Record<string, number>} votes */
  returns(contest, unit, count_type, votes) {
    return this.post("/api/v1/returns", { contest, unit, count_type, counts: { votes } });
  }

  /** @param {string} query */
  async results(query) {
    const response = await fetch(`${this.url}/api/v1/results?${query}`);
    return response.json();
  }
}

export function launch() {
  const quiet = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
  return chromium.launch({
    executablePath: browserPath,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", ...quiet],
  });
}

/**
 * Fills the election with some returns, a correction and a held return.
 * @param {Server} server
 */
export async function fill(server) {
  const first = await server.returns("mayor", "n-1", "election-day", { ash: 1200, cedar: 1011, elm: 33 });
  await server.returns("mayor", "n-1", "early", { ash: 400, cedar: 520, elm: 7 });
  await server.returns("mayor", "n-2", "election-day", { ash: 800, cedar: 754, elm: 21 });
  await server.returns("council", "n-1", "total", { fir: 900, hazel: 850, juniper: 400 });
  await server.returns("bridge", "s-1", "total", { yes: 610, no: 390 });
  const counts = { votes: { ash: 1180, cedar: 1031, elm: 33 } };
  const reason = "Two bundles were swapped";
  await server.post(`/api/v1/returns/${first.receipt.record}/corrections`, { reason, counts });
  // A lower count without a correction waits for the desk.
  await server.returns("mayor", "n-2", "election-day", { ash: 700, cedar: 754, elm: 21 });
}

/**
 * Waits until `check` holds.
 * @param {() => Promise<boolean>} check @param {string} what
 */
export async function until(check, what, patience = 10_000) {
  const end = Date.now() + patience;
  while (Date.now() < end) {
    if (await check()) return;
    await new Promise((done) => setTimeout(done, 50));
  }
  throw new Error(`after ${patience} ms still not: ${what}`);
}
