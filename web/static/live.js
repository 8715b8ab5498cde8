// Keeps a page's numbers up to date. The page is complete without this module.
//
// The server's document is kept here and changed by merge patches (RFC 7396). Elements name a place in it
// with `data-key` and a form with `data-format`; what cannot be said in numbers is fetched as HTML and put
// in place of the parts of the same name (`data-part`).

/** @typedef {null | boolean | number | string | Json[] | { [key: string]: Json }} Json */
/** @typedef {{ [key: string]: Json }} Document */
/** @typedef {{ epoch: number, seq: number }} Seq */

/** The least time between two fetches of parts, in milliseconds. */
const PARTS_EVERY = 5000;
/** The same where the state itself has changed: who leads, the status, a call. */
const PARTS_AT_ONCE = 500;
/** How often a client without streams asks for the document. */
const POLL_EVERY = 2000;
/** How long attempts to connect are apart, at first and at most. */
const BACKOFF = { first: 500, most: 30000 };
/** How long a connection may be gone before the page says so. */
const QUIET = 1500;
/** Failed attempts after which the next kind of connection is tried. */
const PATIENCE = 2;
const NONE = "–";
const PERCENT = "\u202f%";

const main = document.querySelector("main");
const stateLine = document.querySelector("[data-state]");
if (main?.dataset.live !== undefined) {
  follow(main, main.dataset.live);
} else if (main?.dataset.refresh !== undefined) {
  refresh(main);
}

// Forms of numbers, the same as the server's.

/** @param {number} n */
function integer(n) {
  return String(n).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** @param {number} part @param {number} whole */
function share(part, whole) {
  if (!whole) return NONE;
  const tenths = Math.floor((part * 2000 + whole) / (whole * 2));
  if (tenths === 0 && part > 0) return "<0.1" + PERCENT;
  if (tenths === 1000 && part < whole) return ">99.9" + PERCENT;
  return `${Math.floor(tenths / 10)}.${tenths % 10}${PERCENT}`;
}

/** @param {string} time RFC 3339 */
function moment(time) {
  return `${time.slice(0, 10)} ${time.slice(11, 19)} UTC`;
}

/**
 * Who is ahead, by the rule that the page names; the same as the server's.
 * @param {Document} votes
 */
function leaders(votes) {
  /** @type {[string, string][]} */
  const names = JSON.parse(main?.dataset.selections ?? "[]");
  const rule = main?.dataset.rule ?? "seats 1";
  const rows = names.map(([id, name]) => ({ name, votes: Number(votes[id] ?? 0) }));
  const total = rows.reduce((sum, row) => sum + row.votes, 0);
  const threshold = /^(more than|at least) (\d+)\/(\d+)$/.exec(rule);
  if (total === 0) return { rows: [], total, seats: 1 };
  if (threshold) {
    const [left, right] = [rows[0].votes * Number(threshold[3]), total * Number(threshold[2])];
    const passes = threshold[1] === "more than" ? left > right : left >= right;
    return { rows: [rows[passes ? 0 : 1]], total, seats: 1 };
  }
  const seats = Number(rule.replace("seats ", ""));
  const ranked = rows.filter((row) => row.votes > 0).sort((a, b) => b.votes - a.votes);
  const last = ranked[Math.min(seats, ranked.length) - 1];
  const tied = ranked.length > seats && ranked[seats].votes === last.votes;
  const ahead = !tied
    ? ranked.slice(0, seats)
    : ranked.filter((row) => (seats === 1 ? row.votes === last.votes : row.votes > last.votes));
  return { rows: ahead, total, seats };
}

/** @param {Document} votes */
function leaderText(votes) {
  const { rows, total, seats } = leaders(votes);
  const names = rows.map((row) => row.name).join(", ");
  if (rows.length === 0) return total === 0 ? NONE : "Tie";
  return rows.length > seats ? `Tie: ${names}` : names;
}

/** @param {Document} votes */
function leaderShare(votes) {
  const { rows, total } = leaders(votes);
  return rows.length === 1 ? share(rows[0].votes, total) : NONE;
}

// The page.

/** @param {Json | undefined} document @param {string} path */
function at(document, path) {
  /** @type {Json | undefined} */
  let value = document;
  for (const key of path.split("/")) {
    if (value === null || typeof value !== "object" || Array.isArray(value)) return undefined;
    value = value[key];
  }
  return value;
}

/** @param {HTMLElement | SVGElement} element @param {Document} document */
function show(element, document) {
  const value = at(document, element.dataset.key ?? "");
  const whole = Number(at(document, element.dataset.of ?? "") ?? 0);
  const votes = /** @type {Document} */ (value && typeof value === "object" ? value : {});
  switch (element.dataset.format) {
    case "integer":
      return setText(element, typeof value === "number" ? integer(value) : NONE);
    case "share":
      return setText(element, typeof value === "number" ? share(value, whole) : NONE);
    case "bar": {
      const width = whole ? (Math.round((Number(value ?? 0) * 10000) / whole) / 100).toFixed(2) : "0.00";
      if (element.getAttribute("width") !== width) element.setAttribute("width", width);
      return;
    }
    case "progress":
      if (element instanceof HTMLProgressElement) element.value = Number(value ?? 0);
      return;
    case "shown":
      return void element.toggleAttribute("hidden", value !== true);
    case "time":
      if (typeof value !== "string") return setText(element, NONE);
      setText(element, moment(value));
      return element.setAttribute("datetime", value);
    case "status": {
      const words = JSON.parse(element.dataset.words ?? "{}");
      setText(element, words[String(value)] ?? NONE);
      return element.setAttribute("class", `badge badge-${value}`);
    }
    case "leader":
      return setText(element, leaderText(votes));
    case "margin": {
      const [first = 0, second = 0] = Object.keys(votes)
        .map((id) => Number(at(votes, `${id}/votes`) ?? 0))
        .sort((a, b) => b - a);
      return setText(element, integer(first - second));
    }
    case "leader-share":
      return setText(element, leaderShare(votes));
  }
}

/** @param {Element} element @param {string} text */
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** @param {ParentNode} root @param {Document} document */
function showAll(root, document) {
  for (const element of root.querySelectorAll("[data-key]")) {
    if (element instanceof HTMLElement || element instanceof SVGElement) show(element, document);
  }
}

/**
 * Puts newer parts in place of the page's, and keeps what the reader had opened, scrolled to and focused.
 * @param {ParentNode} fresh @param {(part: HTMLElement) => boolean} wanted
 */
function replaceParts(fresh, wanted) {
  for (const next of fresh.querySelectorAll("[data-part]")) {
    const old = document.querySelector(`[data-part="${next.getAttribute("data-part")}"]`);
    if (!(old instanceof HTMLElement) || !wanted(old) || old.isEqualNode(next)) continue;
    const reachable = "a, button, summary, [tabindex]";
    const focused = [...old.querySelectorAll(reachable)].findIndex((e) => e === document.activeElement);
    const open = old.querySelector("details")?.open ?? false;
    const scrolled = [...old.querySelectorAll(".scroll")].map((e) => e.scrollLeft);
    old.replaceWith(next);
    const details = next.querySelector("details");
    if (details) details.open = open;
    next.querySelectorAll(".scroll").forEach((e, i) => (e.scrollLeft = scrolled[i] ?? 0));
    const target = next.querySelectorAll(reachable)[focused];
    if (target instanceof HTMLElement) target.focus({ preventScroll: true });
  }
}

/** @param {string} address */
async function fetchParts(address) {
  const response = await fetch(address, { cache: "no-cache" });
  if (!response.ok) throw new Error(String(response.status));
  return new DOMParser().parseFromString(await response.text(), "text/html");
}

/** @param {"live" | "late" | "asking"} state @param {Document} document */
function say(state, document) {
  if (!stateLine) return;
  const clock = typeof document.time === "string" ? ` The numbers are as of ${moment(document.time)}.` : "";
  const texts = { live: "Live.", late: `Reconnecting.${clock}`, asking: "Asking for new numbers every 2 seconds." };
  // A live region: it speaks only when its text changes.
  setText(stateLine, texts[state]);
  stateLine.classList.toggle("state-live", state !== "late");
}

// The document.

/** RFC 7396. @param {Json | undefined} target @param {Json} patch @returns {Json} */
function merge(target, patch) {
  if (patch === null || typeof patch !== "object" || Array.isArray(patch)) return patch;
  /** @type {Document} */
  const result = target && typeof target === "object" && !Array.isArray(target) ? target : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete result[key];
    else result[key] = merge(result[key], value);
  }
  return result;
}

/** What the server says in words: when it changes, the words are fetched anew. @param {Document} document */
function shape(document) {
  const selections = /** @type {Document} */ (document.selections ?? {});
  const leading = Object.keys(selections).filter((id) => at(selections, `${id}/leading`) === true);
  const { status, called, certified, closed, recounts, provisional } = document;
  return JSON.stringify([status, called, certified, closed, recounts, provisional !== undefined, leading]);
}

/** @param {HTMLElement} main @param {string} query */
function follow(main, query) {
  /** @type {Document} */
  let held = {};
  /** @type {Seq | undefined} */
  let seq;
  let shown = "";
  let partsAt = performance.now();
  let partsDue = 0;
  let drawing = false;

  /** @param {Document} document @param {Seq} next */
  function take(document, next) {
    const form = shape(document);
    // The page was rendered from this very document: there is nothing to fetch.
    if (shown === "" && main.querySelector('[data-key="seq"]')?.textContent === integer(next.seq)) shown = form;
    else if (!seq || seq.epoch !== next.epoch || seq.seq !== next.seq) dueParts(form !== shown);
    held = document;
    seq = next;
    if (drawing) return;
    drawing = true;
    requestAnimationFrame(draw);
  }

  function draw() {
    drawing = false;
    showAll(main, held);
  }

  /** @param {boolean} turned */
  function dueParts(turned) {
    const wait = turned ? PARTS_AT_ONCE : Math.max(PARTS_AT_ONCE, partsAt + PARTS_EVERY - performance.now());
    const due = performance.now() + wait;
    if (partsDue && due >= partsDue) return;
    partsDue = due;
    setTimeout(() => {
      if (partsDue !== due) return;
      partsDue = 0;
      if (isHidden()) return dueParts(false);
      partsAt = performance.now();
      updateParts().catch(() => dueParts(false));
    }, wait);
  }

  async function updateParts() {
    const fresh = await fetchParts(main.dataset.parts ?? "");
    const form = shape(held);
    replaceParts(fresh, (part) => part.dataset.when !== "shape" || form !== shown);
    shown = form;
    draw();
  }

  connect(query, {
    seq: () => seq,
    snapshot: take,
    delta(from, to, patch) {
      if (!seq || seq.epoch !== to.epoch || seq.seq !== from) return false;
      take(/** @type {Document} */ (merge(held, patch)), to);
      return true;
    },
    forget: () => void (seq = undefined),
    state: (state) => say(state, held),
  });
}

/** Nobody looks at a page in the background, and nothing is fetched for it. */
function isHidden() {
  return document.visibilityState === "hidden";
}

// Connections.

/**
 * @typedef {object} Follower
 * @property {() => Seq | undefined} seq where the page is
 * @property {(document: Document, seq: Seq) => void} snapshot
 * @property {(from: number, to: Seq, patch: Json) => boolean} delta false where it does not fit
 * @property {() => void} forget
 * @property {(state: "live" | "late" | "asking") => void} state
 */

/**
 * Stays connected: WebSocket first, then server-sent events, then asking again and again.
 * @param {string} query @param {Follower} follower
 */
async function connect(query, follower) {
  const kinds = [socket, events, polling];
  let [kind, failures, wait] = [0, 0, BACKOFF.first];
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let late;
  const good = () => {
    clearTimeout(late);
    late = undefined;
    failures = 0;
    wait = BACKOFF.first;
    follower.state(kinds[kind] === polling ? "asking" : "live");
  };
  for (;;) {
    const before = performance.now();
    await kinds[kind](query, follower, good);
    // A short gap is no news.
    late ??= setTimeout(() => follower.state("late"), QUIET);
    failures += 1;
    if (failures >= PATIENCE && (await reachable())) {
      kind = (kind + 1) % kinds.length;
      failures = 0;
      wait = BACKOFF.first;
    }
    if (performance.now() - before > BACKOFF.most) wait = BACKOFF.first;
    await pause(wait * (0.5 + Math.random()));
    wait = Math.min(wait * 2, BACKOFF.most);
  }
}

/** Whether the server answers at all: if not, another kind of connection is no help. */
async function reachable() {
  return fetch("/livez", { cache: "no-store" }).then((r) => r.ok, () => false);
}

/** @param {number} ms */
function pause(ms) {
  return new Promise((done) => {
    const end = () => {
      clearTimeout(timer);
      removeEventListener("online", end);
      done(undefined);
    };
    const timer = setTimeout(end, ms);
    // Who comes back to the network need not wait.
    addEventListener("online", end);
  });
}

/** @param {string} path @param {string} query @param {Follower} follower */
function address(path, query, follower) {
  const seq = follower.seq();
  return `${path}?${query}${seq ? `&from=${seq.epoch}:${seq.seq}` : ""}`;
}

/**
 * Takes a frame; false where the stream must begin anew.
 * @param {any} frame @param {Follower} follower
 */
function receive(frame, follower) {
  switch (frame.type) {
    case "snapshot":
      follower.snapshot(frame.data, { epoch: frame.epoch, seq: frame.seq });
      return true;
    case "delta":
      if (follower.delta(frame.from, { epoch: frame.epoch, seq: frame.to }, frame.patch)) return true;
      follower.forget();
      return false;
    case "reset":
      follower.forget();
      return true;
    default:
      return true;
  }
}

/** @param {string} query @param {Follower} follower @param {() => void} good */
function socket(query, follower, good) {
  return new Promise((done) => {
    const url = new URL(address("/api/v1/stream", query, follower), location.href);
    url.protocol = url.protocol.replace("http", "ws");
    const ws = new WebSocket(url);
    ws.onmessage = (message) => {
      if (!receive(JSON.parse(message.data), follower)) ws.close();
      else good();
    };
    ws.onclose = () => done(undefined);
  });
}

/** @param {string} query @param {Follower} follower @param {() => void} good */
function events(query, follower, good) {
  return new Promise((done) => {
    const source = new EventSource(address("/api/v1/events", query, follower));
    const end = () => {
      source.close();
      done(undefined);
    };
    for (const name of ["hello", "snapshot", "delta", "reset"]) {
      source.addEventListener(name, (event) => {
        if (!receive(JSON.parse(event.data), follower)) end();
        else good();
      });
    }
    // The browser would reconnect by itself, but without jitter and with an old address.
    source.onerror = end;
  });
}

/** @param {string} query @param {Follower} follower @param {() => void} good */
async function polling(query, follower, good) {
  let etag = "";
  for (;;) {
    try {
      const headers = etag ? { "If-None-Match": etag } : undefined;
      const response = await fetch(`/api/v1/results?${query}`, { headers, cache: "no-store" });
      if (response.status === 200) {
        etag = response.headers.get("ETag") ?? "";
        const data = await response.json();
        follower.snapshot(data, { epoch: data.epoch, seq: data.seq });
      } else if (response.status !== 304) {
        return;
      }
      good();
    } catch {
      return;
    }
    await pause(POLL_EVERY * (0.75 + Math.random() / 2));
  }
}

// Pages with many contests are fetched whole.

/** @param {HTMLElement} main */
async function refresh(main) {
  const every = "Updated every few seconds.";
  if (stateLine) setText(stateLine, every);
  for (;;) {
    await pause(PARTS_EVERY * (0.75 + Math.random() / 2));
    if (isHidden()) continue;
    try {
      const fresh = await fetchParts(location.href);
      const line = fresh.querySelector("[data-state]");
      if (line) setText(line, every);
      replaceParts(fresh, () => main.isConnected);
    } catch {
      const line = document.querySelector("[data-state]");
      if (line) setText(line, "The server does not answer; trying again.");
    }
  }
}
