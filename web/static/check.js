// Checks in the browser that a record stands in the log. It believes nothing but the key: the server is asked for a
// proof, and all of the proof is computed here (docs/audit.md says over which bytes).

/** @typedef {{ name: string, id: Uint8Array, bytes: Uint8Array }} Key */
/** @typedef {{ extra?: string, index: number, path: Uint8Array[], checkpoint: string }} Proof */
/** @typedef {{ origin: string, size: number, root: Uint8Array }} Checkpoint */
/** @typedef {{ topic: string, index: number, offset: number, position: number, text: string }} RecordId */

/** Something that is not as it must be, in words for the voter. */
class Wrong extends Error {}

const HEADER = "c2sp.org/tlog-proof@v1";
/** Ends of batches in one slice, 8 bytes each. */
const SLICE = 8192;
/** How long the next checkpoint is waited for, in milliseconds, and how often it is asked for. */
const PATIENCE = 15000;
const PAUSE = 500;
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** @param {Uint8Array[]} parts */
function join(...parts) {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((at, part) => (all.set(part, at), at + part.length), 0);
  return all;
}

/** @param {Uint8Array} a @param {Uint8Array} b */
function same(a, b) {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

/** @param {string} text */
function unbase64(text) {
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(text) || text.length % 4 !== 0) throw new Wrong("A part of the proof is not Base64.");
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

/** @param {Uint8Array<ArrayBuffer>} bytes */
async function sha256(bytes) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}

/** The hash of a leaf, as RFC 6962 has it. @param {Uint8Array} entry */
const leafHash = (entry) => sha256(join(Uint8Array.of(0), entry));
/** The hash of a node. @param {Uint8Array} left @param {Uint8Array} right */
const nodeHash = (left, right) => sha256(join(Uint8Array.of(1), left, right));

// Keys and signed notes.

/** A key is written `name+id+key`. @param {string} name @param {Uint8Array} bytes @returns {Promise<Key>} */
async function named(name, bytes) {
  const id = (await sha256(join(encoder.encode(`${name}\n`), Uint8Array.of(1), bytes))).slice(0, 4);
  return { name, id, bytes };
}

/** @param {string} text */
async function readKey(text) {
  const found = /^([^+\s]+)\+([0-9a-f]{8})\+(\S+)$/.exec(text.trim());
  if (!found) throw new Wrong("This is not a key of the form name+id+key.");
  const [, name, id, rest] = found;
  const bytes = unbase64(rest);
  if (bytes.length !== 33 || bytes[0] !== 1) throw new Wrong("This is not an Ed25519 key.");
  const key = await named(name, bytes.slice(1));
  const own = [...key.id].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  if (own !== id) throw new Wrong("A part of the key was changed or lost: its id does not fit.");
  return key;
}

/** Opens a signed checkpoint. @param {string} note @param {Key} key @returns {Promise<Checkpoint>} */
async function open(note, key) {
  const end = note.indexOf("\n\n");
  const text = note.slice(0, end + 1);
  const [origin, size, root, ...more] = text.split("\n");
  const signatures = note.slice(end + 2).split("\n").filter((line) => line.startsWith(`— ${key.name} `));
  if (end < 0 || more.length !== 1 || !/^(0|[1-9]\d{0,12})$/.test(size)) throw new Wrong("The proof has no checkpoint.");
  const public_ = await crypto.subtle.importKey("raw", key.bytes.slice(), "Ed25519", false, ["verify"]);
  for (const line of signatures) {
    const bytes = unbase64(line.slice(key.name.length + 3));
    if (!same(bytes.slice(0, 4), key.id)) continue;
    if (await crypto.subtle.verify("Ed25519", public_, bytes.slice(4), encoder.encode(text))) {
      return { origin, size: Number(size), root: unbase64(root) };
    }
  }
  throw new Wrong(`The checkpoint of ${origin} is not signed by the log’s key.`);
}

// Proofs.

/** Reads a C2SP tlog-proof. @param {string} text @returns {Proof} */
function readProof(text) {
  const end = text.indexOf("\n\n");
  const lines = text.slice(0, end).split("\n");
  if (end < 0 || lines.shift() !== HEADER) throw new Wrong("The answer is not a proof.");
  const extra = lines[0]?.startsWith("extra ") ? lines.shift()?.slice(6) : undefined;
  const index = /^index (0|[1-9]\d{0,12})$/.exec(lines.shift() ?? "")?.[1];
  if (index === undefined || lines.length > 63) throw new Wrong("The answer is not a proof.");
  return { extra, index: Number(index), path: lines.map(unbase64), checkpoint: text.slice(end + 2) };
}

/**
 * The root that a proof leads to from a leaf (RFC 9162, section 2.1.3.2); none where the path cannot be one.
 * @param {Uint8Array} leaf @param {Proof} proof @param {number} size
 */
async function rootOf(leaf, { index, path }, size) {
  if (index >= size) return undefined;
  let [at, last, hash] = [index, size - 1, leaf];
  for (const sibling of path) {
    if (last === 0) return undefined;
    if (at % 2 === 1 || at === last) {
      hash = await nodeHash(sibling, hash);
      while (at % 2 === 0 && at !== 0) [at, last] = [at / 2, Math.floor(last / 2)];
    } else {
      hash = await nodeHash(hash, sibling);
    }
    [at, last] = [Math.floor(at / 2), Math.floor(last / 2)];
  }
  return last === 0 ? hash : undefined;
}

/** @param {Uint8Array} leaf @param {Proof} proof @param {Checkpoint} checkpoint */
async function leads(leaf, proof, checkpoint) {
  const root = await rootOf(leaf, proof, checkpoint.size);
  return root !== undefined && same(root, checkpoint.root);
}

// Records.

/** @param {string} text @returns {RecordId | undefined} */
function readRecord(text) {
  const found = /^(votes|returns)-(\d{1,5})-(\d{1,15})-(\d{1,10})$/.exec(text.trim());
  if (!found) return undefined;
  const [index, offset, position] = found.slice(2).map(Number);
  return { topic: found[1], index, offset, position, text: text.trim() };
}

/** Where a bundle of a tree of some size is found. @param {number} bundle @param {number} size */
function bundlePath(bundle, size) {
  const groups = [];
  for (let rest = bundle; groups.length === 0 || rest > 0; rest = Math.floor(rest / 1000)) {
    groups.unshift((groups.length > 0 ? "x" : "") + String(rest % 1000).padStart(3, "0"));
  }
  const width = Math.min(256, size - 256 * bundle);
  return groups.join("/") + (width < 256 ? `.p/${width}` : "");
}

/** @param {Uint8Array} bundle @param {number} position */
function entryOf(bundle, position) {
  let at = 0;
  for (let n = 0; at + 2 <= bundle.length; n += 1) {
    const length = bundle[at] * 256 + bundle[at + 1];
    if (n === position) return bundle.slice(at + 2, at + 2 + length);
    at += 2 + length;
  }
  throw new Wrong("The log has no record at the place that the proof names.");
}

/** What a vote's record says. @param {Uint8Array} bytes @param {any} election */
function vote(bytes, election) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (bytes[0] !== 1 || bytes[1] !== 1 || bytes.length < 44) return undefined;
  const contest = election.contests[view.getUint16(26, true)];
  const choices = [];
  for (let at = 44; at + 2 <= bytes.length; at += 2) {
    choices.push(`“${contest?.selections[view.getUint16(at, true)]?.name ?? "an unknown option"}”`);
  }
  const time = new Date(Number(view.getBigUint64(2, true))).toISOString().replace("T", " ").slice(0, 19);
  return { contest: String(contest?.name), choices: choices.join(" and "), time: `${time} UTC` };
}

/** The kind of an event that is written as JSON. @param {Uint8Array} bytes */
function kind(bytes) {
  if (bytes[0] !== 1 || bytes[1] !== 0) return "unknown";
  return Object.keys(JSON.parse(decoder.decode(bytes.slice(26))))[0];
}

// What is asked of the server.

/** @param {string} path */
async function get(path) {
  const response = await fetch(path);
  if (response.status === 404) return undefined;
  if (!response.ok) throw new Error(`The server answered ${response.status} for ${path}.`);
  return new Uint8Array(await response.arrayBuffer());
}

/** @param {string} path */
async function must(path) {
  const bytes = await get(path);
  if (!bytes) throw new Wrong(`The server does not have ${path}, which it must publish.`);
  return bytes;
}

/** The proof of a record, as soon as a checkpoint has it. @param {RecordId} record @param {() => void} waiting */
async function proofOf(record, waiting) {
  for (const end = Date.now() + PATIENCE; ; ) {
    const response = await fetch(`/api/v1/receipts/${record.text}/proof`);
    const text = await response.text();
    if (response.ok) return readProof(text);
    if (response.status !== 404) throw new Error(`The server answered ${response.status}.`);
    if (!text.includes('"not-published"')) throw new Wrong(`The log has no record ${record.text}.`);
    if (Date.now() > end) throw new Wrong("No checkpoint has the record yet, though one should come every second.");
    waiting();
    await new Promise((done) => setTimeout(done, PAUSE));
  }
}

/** The number of leaves before a batch. @param {RecordId} record @param {number} batch */
async function leavesBefore(record, batch) {
  if (batch === 0) return 0;
  const slice = Math.floor((batch - 1) / SLICE);
  const bytes = await must(`/log/${record.topic}/${record.index}/batches/${slice}`);
  const at = 8 * ((batch - 1) % SLICE);
  if (at + 8 > bytes.length) throw new Wrong("The log does not have the batch that the record is named after.");
  return Number(new DataView(bytes.buffer).getBigUint64(at, true));
}

/**
 * Checks everything, and says each step when it is done.
 * @param {RecordId} record @param {Proof | undefined} promise @param {string} keyText
 * @param {(text: string) => void} done @param {(text: string) => void} busy
 */
async function check(record, promise, keyText, done, busy) {
  const key = await readKey(keyText);
  const log = `${key.name}/${record.topic}/${record.index}`;
  const own = await named(log, key.bytes);
  busy("Asking for the proof …");
  const proof = await proofOf(record, () => busy("Waiting for the next checkpoint, which comes every second …"));
  const inner = readProof(decoder.decode(unbase64(proof.extra ?? "")));
  const partition = await open(inner.checkpoint, own);
  if (partition.origin !== log) throw new Wrong(`The proof is of the log ${partition.origin}, not of ${log}.`);
  const path = bundlePath(Math.floor(inner.index / 256), partition.size);
  const bundle = await must(`/log/${record.topic}/${record.index}/tile/entries/${path}`);
  const entry = entryOf(bundle, inner.index % 256);
  const leaf = await leafHash(entry);
  const said = vote(entry, JSON.parse(decoder.decode(await must("/api/v1/election"))));
  done(said
    ? `The record says: a vote for ${said.choices} in “${said.contest}”, taken in at ${said.time}. Is this how you voted?`
    : `The record is not a vote. It has ${entry.length} bytes, and is of the kind “${kind(entry)}”.`);
  if ((await leavesBefore(record, record.offset)) + record.position !== inner.index) {
    throw new Wrong(`The proof is of another record than ${record.text}.`);
  }
  if (!(await leads(leaf, inner, partition))) throw new Wrong("The record does not lead to the checkpoint of its part of the log.");
  done(`It is number ${inner.index + 1} of the ${partition.size} records of ${record.topic}/${record.index}, whose checkpoint the log’s key has signed.`);
  const meta = await open(proof.checkpoint, key);
  if (meta.origin !== key.name || !(await leads(await leafHash(encoder.encode(inner.checkpoint)), proof, meta))) {
    throw new Wrong("That checkpoint does not lead to the checkpoint of the log as a whole.");
  }
  done(`That checkpoint stands in the log as a whole, “${key.name}”, whose newest checkpoint the same key has signed.`);
  if (promise) {
    await keeps(promise, record, leaf, own);
    done("Your receipt is a signed promise of exactly this record.");
  }
  return proof.checkpoint;
}

/**
 * Whether the record that stands in the log is the one that was promised.
 * @param {Proof} promise @param {RecordId} record @param {Uint8Array} leaf @param {Key} own
 */
async function keeps(promise, record, leaf, own) {
  const claim = /^(.+)\/batch\/(\d+)\/\d+$/.exec(promise.checkpoint.split("\n")[0]);
  if (claim?.[1] !== own.name || Number(claim[2]) !== record.offset || promise.index !== record.position) {
    throw new Wrong("Your receipt does not fit together: its promise is of another record than the one it names.");
  }
  if (!(await leads(leaf, promise, await open(promise.checkpoint, own)))) {
    throw new Wrong("Your receipt is a signed promise of another record than the one that stands in the log. Keep it: it is evidence.");
  }
}

// The page.

/**
 * Reads what a voter has: a record's name, the answer to a vote, or the promise in it.
 * @param {string} text @returns {{ record: RecordId, promise?: Proof } | undefined}
 */
function readReceipt(text) {
  const record = readRecord(text);
  if (record) return { record };
  if (text.startsWith(HEADER)) {
    const promise = readProof(text);
    const place = /\/(votes|returns)\/(\d+)\/batch\/(\d+)\/\d+$/.exec(promise.checkpoint.split("\n")[0]);
    const own = place ? readRecord(`${place[1]}-${place[2]}-${place[3]}-${promise.index}`) : undefined;
    return own && { record: own, promise };
  }
  try {
    const answer = JSON.parse(text);
    const receipt = answer.receipt ?? answer;
    const own = readRecord(String(receipt.record));
    return own && { record: own, promise: receipt.promise && readProof(receipt.promise) };
  } catch {
    return undefined;
  }
}

/** @template {HTMLElement} T @param {string} id @param {new () => T} kind @returns {T} */
function element(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`the page has no ${id}`);
  return found;
}

function start() {
  const form = element("check", HTMLFormElement);
  const [receipt, key] = [element("receipt", HTMLTextAreaElement), element("key", HTMLInputElement)];
  const [file, result] = [element("file", HTMLInputElement), element("result", HTMLElement)];
  const [verdict, steps] = [element("verdict", HTMLElement), element("steps", HTMLOListElement)];
  const [keep, checkpoint] = [element("keep", HTMLElement), element("checkpoint", HTMLElement)];
  let run = 0;

  /** @param {string} text @param {string} look */
  const say = (text, look = "") => {
    verdict.textContent = text;
    verdict.className = look === "" ? "" : `said said-${look}`;
  };

  const check_ = async () => {
    const own = (run += 1);
    const current = (/** @type {(text: string) => void} */ act) => (/** @type {string} */ text) => {
      if (own === run) act(text);
    };
    steps.replaceChildren();
    [result.hidden, keep.hidden] = [false, true];
    say("Checking …");
    const add = current((text) => steps.append(Object.assign(document.createElement("li"), { textContent: text })));
    try {
      if (!globalThis.crypto?.subtle) throw new Error("This browser can only check signatures on a page that came by https.");
      const read = readReceipt(receipt.value.trim());
      if (!read) throw new Wrong("This is neither a record’s name, such as votes-3-17-0, nor a receipt.");
      const note = await check(read.record, read.promise, key.value, add, current((text) => say(text)));
      if (own !== run) return;
      say(`Record ${read.record.text} is in the log.`, "recorded");
      [checkpoint.textContent, keep.hidden] = [note, false];
    } catch (error) {
      const words = error instanceof Wrong ? error.message : `The check could not be made: ${/** @type {Error} */ (error).message}`;
      current((text) => say(text, "refused"))(error instanceof Wrong ? `This is not proven. ${words}` : words);
    }
  };

  const fromAddress = () => {
    const asked = decodeURIComponent(location.hash.slice(1));
    if (!readRecord(asked)) return;
    receipt.value = asked;
    void check_();
  };

  form.hidden = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void check_();
  });
  file.addEventListener("change", async () => {
    const chosen = file.files?.[0];
    if (!chosen) return;
    receipt.value = await chosen.text();
    void check_();
  });
  addEventListener("hashchange", fromAddress);
  fromAddress();
}

start();
