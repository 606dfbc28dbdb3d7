// The page asks the host every two seconds and draws what has changed. Everything
// that comes from the host is put into the page as text, never as markup.
"use strict";

const every = 2000, kept = 90;
const history = new Map(); // of each graph, the newest last
const latest = new Map(); // of each enclave, how long requests took
let before = null; // the answer before this one

const element = (name, className, text) => {
  const e = document.createElement(name);
  if (className) e.className = className;
  if (text !== undefined) e.textContent = text;
  return e;
};

// Numbers for people.
const scaled = (v, base, units) => {
  let i = 0;
  while (v >= base && i < units.length - 1) { v /= base; i++; }
  return (v >= 100 || i === 0 && Number.isInteger(v) ? Math.round(v) : v.toPrecision(v < 0.01 ? 1 : 3)) + units[i];
};
const count = (v) => scaled(v, 1000, ["", " k", " M", " G"]);
const bits = (v) => scaled(v * 8, 1000, [" bit/s", " kbit/s", " Mbit/s", " Gbit/s"]);
const bytes = (v) => scaled(v, 1024, [" B", " KiB", " MiB", " GiB"]);
const seconds = (v) => v === null ? "–" : v < 1e-3 ? Math.round(v * 1e6) + " µs" : v < 1 ? (v * 1e3).toPrecision(v < 0.1 ? 2 : 3) + " ms" : v.toPrecision(3) + " s";
const span = (ms) => {
  const s = Math.max(0, Math.floor(ms / 1000));
  return s < 120 ? s + " s" : s < 7200 ? Math.floor(s / 60) + " min" : s < 172800 ? Math.floor(s / 3600) + " h" : Math.floor(s / 86400) + " days";
};
const sum = (values) => Object.values(values || {}).reduce((a, b) => a + b, 0);

// The rate of a sum that only grows: null without a past, and where it began anew.
const rate = (now, then, dt) => then === undefined || then === null || now < then || dt <= 0 ? null : (now - then) / dt;

// The quantile of what was added to a histogram since then: the upper bound of
// its bucket. Nothing added has none.
const quantile = (q, now, then) => {
  if (!now) return null;
  const added = now.counts.map((n, i) => n - (then ? then.counts[i] : 0));
  const total = added.reduce((a, b) => a + b, 0);
  if (total <= 0 || added.some((n) => n < 0)) return null;
  let seen = 0;
  for (let i = 0; i < now.bounds.length; i++) {
    seen += added[i];
    if (seen >= q * total) return now.bounds[i];
  }
  return now.bounds[now.bounds.length - 1];
};

// remember adds a value to a graph's history and returns all of it.
const remember = (key, value) => {
  const values = history.get(key) || [];
  values.push(value === null ? 0 : value);
  if (values.length > kept) values.shift();
  history.set(key, values);
  return values;
};

// spark draws histories on one scale: the first filled, the second as a line.
const spark = (label, ...lines) => {
  const ns = "http://www.w3.org/2000/svg", width = 130, height = 30;
  const svg = document.createElementNS(ns, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  const most = Math.max(...lines.flat(), Number.MIN_VALUE);
  lines.forEach((values, n) => {
    const first = kept - values.length;
    const points = values.map((v, i) => `${((first + i) / (kept - 1) * width).toFixed(1)},${(height - 1 - v / most * (height - 3)).toFixed(1)}`);
    const add = (d, className) => {
      const path = document.createElementNS(ns, "path");
      path.setAttribute("d", d);
      path.setAttribute("class", className);
      svg.append(path);
    };
    if (!points.length) return;
    if (n === 0) add(`M${points.join("L")}V${height}H${(first / (kept - 1) * width).toFixed(1)}Z`, "area");
    add("M" + points.join("L"), n === 0 ? "first" : "second");
  });
  return svg;
};

const tile = (name, value, graph) => {
  const t = element("div", "tile");
  t.append(element("span", "", name), element("strong", "", value));
  if (graph) t.append(graph);
  return t;
};

const drawTotals = (o, then, dt) => {
  const total = (of) => (s) => s.ports.reduce((a, p) => a + of(p), 0);
  const all = { open: total((p) => p.connections), came: total((p) => p.accepted), down: total((p) => p.downlink), up: total((p) => p.uplink) };
  const now = (of) => rate(of(o), then && of(then), dt);
  const came = now(all.came), down = now(all.down), up = now(all.up), cpu = rate(o.process.cpu, then && then.process.cpu, dt);
  const linked = o.enclaves.filter((e) => e.attached).length;
  document.getElementById("totals").replaceChildren(
    tile("open connections", count(all.open(o)), spark("open connections", remember("open", all.open(o)))),
    tile("clients a second", came === null ? "–" : count(came), spark("clients a second", remember("came", came))),
    tile("to enclaves", down === null ? "–" : bits(down), spark("to enclaves", remember("down", down))),
    tile("from enclaves", up === null ? "–" : bits(up), spark("from enclaves", remember("up", up))),
    tile("enclaves with a link", linked + " of " + o.enclaves.length),
    tile("CPU of the host", cpu === null ? "–" : Math.round(cpu * 100) + " %", spark("CPU", remember("cpu", cpu))));
};

const cell = (row, text, className) => row.append(element("td", className || "n", text));

const drawPorts = (o, then, dt) => {
  const body = document.querySelector("#ports tbody");
  document.querySelector("#ports").parentElement.hidden = o.ports.length === 0;
  document.querySelector("#ports").parentElement.nextElementSibling.hidden = o.ports.length > 0;
  body.replaceChildren(...o.ports.map((p) => {
    const old = then && then.ports.find((q) => q.port === p.port);
    const row = element("tr");
    const came = rate(p.accepted, old && old.accepted, dt), down = rate(p.downlink, old && old.downlink, dt), up = rate(p.uplink, old && old.uplink, dt);
    const p50 = quantile(0.5, p.dials, old && old.dials), p99 = quantile(0.99, p.dials, old && old.dials), refused = sum(p.refused);
    cell(row, p.port, "name");
    cell(row, count(p.connections));
    cell(row, came === null ? "–" : count(came));
    cell(row, down === null ? "–" : bits(down));
    cell(row, up === null ? "–" : bits(up));
    const throughput = element("td"), wait = element("td");
    throughput.append(spark("throughput of " + p.port, remember("up " + p.port, up), remember("down " + p.port, down)));
    row.append(throughput);
    cell(row, p50 === null ? "–" : seconds(p50) + " / " + seconds(p99));
    wait.append(spark("wait for an enclave on " + p.port, remember("wait " + p.port, p99)));
    row.append(wait);
    cell(row, count(p.failed), p.failed ? "n warn" : "n");
    cell(row, count(refused), refused ? "n warn" : "n");
    row.lastChild.title = Object.entries(p.refused || {}).filter(([, n]) => n).map(([cause, n]) => cause + ": " + n).join(", ");
    return row;
  }));
};

const fact = (list, name, value) => {
  const d = element("div");
  d.append(element("dt", "", name), element("dd", "", value));
  list.append(d);
};

const graph = (name, value, svg) => {
  const d = element("div"), head = element("span", "", name);
  head.append(element("b", "", value));
  d.append(head, svg);
  return d;
};

const health = (e) => {
  if (e.drained) return ["drained", "open"];
  if (e.health === "down") return ["down", "bad"];
  if (e.health === "up") return ["up", "good"];
  if (e.health === "warming") return ["warming up", "open"];
  return null;
};

const drawEnclave = (o, e, old, dt) => {
  const card = element("article", "card"), head = element("header"), facts = element("dl"), graphs = element("div", "graphs");
  const key = "enclave " + e.cid + " ";
  card.dataset.cid = e.cid;
  head.append(element("h3", "", "CID " + e.cid));
  const state = health(e);
  if (state) head.append(element("span", "pill " + state[1], state[0]));
  head.append(element("span", "pill " + (e.attached ? "good" : "open"), e.attached ? "link up" : "no link"));
  head.append(element("span", "pill " + (e.heard ? "good" : "open"), e.heard ? "heard" : e.heard_last ? "silent for " + span(o.now - e.heard_last) : "never heard"));
  card.append(head);
  if (e.reason) card.append(element("p", "denials", e.reason));
  const down = rate(e.downlink, old && old.downlink, dt), up = rate(e.uplink, old && old.uplink, dt);
  graphs.append(graph("link", down === null ? "–" : bits(down + (up || 0)), spark("link of CID " + e.cid, remember(key + "up", up), remember(key + "down", down))));
  const t = e.told, was = old && old.told;
  if (t) {
    const requests = rate(t.requests, was && was.requests, dt);
    const p99 = quantile(0.99, t.times, was && was.times); // there is none between two reports
    if (p99 !== null) latest.set(key, p99);
    const recent = latest.has(key) ? latest.get(key) : null;
    graphs.append(graph("request p99", seconds(recent), spark("request times of CID " + e.cid, remember(key + "p99", recent))));
    fact(facts, "requests", count(t.requests));
    fact(facts, "a second", requests === null ? "–" : count(requests));
    fact(facts, "under way", count(t.under_way));
    fact(facts, "failed by the app", count(t.failures["app-failure"]));
    fact(facts, "failed by clients", count(t.failures["client-gone"] + t.failures["client-fault"]));
    fact(facts, "app started", t.app_starts + " ×");
    fact(facts, "memory", bytes(t.resident || 0));
    fact(facts, "CPU time", span(t.cpu * 1000));
    fact(facts, "reports lost", count(t.lost));
  }
  fact(facts, "flows", e.flows ? e.flows.tcp + " TCP " + e.flows.udp + " UDP" : "–");
  fact(facts, "links opened", count(e.links));
  fact(facts, "frames dropped", count(e.drops));
  card.append(graphs, facts);
  const denied = Object.entries(e.refusals || {}).filter(([, n]) => n > 0).sort((a, b) => b[1] - a[1]);
  const denials = element("p", "denials", denied.length ? "Egress denied: " : "Egress: nothing denied.");
  denied.forEach(([cause, n], i) => denials.append(i ? ", " : "", cause + " ", element("b", "", count(n))));
  card.append(denials);
  return card;
};

const drawEnclaves = (o, then, dt) => {
  const cards = document.getElementById("enclaves");
  cards.nextElementSibling.hidden = o.enclaves.length > 0;
  cards.replaceChildren(...o.enclaves.map((e) => drawEnclave(o, e, then && then.enclaves.find((q) => q.cid === e.cid), dt)));
};

const verdict = (text, className) => {
  const v = document.getElementById("verdict");
  v.textContent = text;
  v.className = "pill " + className;
};

const draw = (o) => {
  const then = before && before.began === o.began ? before : null;
  const dt = then ? (o.now - then.now) / 1000 : 0;
  drawTotals(o, then, dt);
  drawPorts(o, then, dt);
  drawEnclaves(o, then, dt);
  verdict(o.not_ready ? "Not ready: " + o.not_ready : "Ready", o.not_ready ? "bad" : "good");
  document.getElementById("process").textContent = `Up ${span(o.now - o.began)} · revision ${o.process.revision} · ${bytes(o.process.resident)} in RAM, ` +
    `${bytes(o.process.heap)} of it heap · ${count(o.process.goroutines)} goroutines · ${count(o.process.descriptors)} descriptors`;
  before = o;
  document.body.dataset.draws = Number(document.body.dataset.draws || 0) + 1;
};

const ask = async () => {
  try {
    const answer = await fetch("v1/status", { cache: "no-store" });
    if (!answer.ok) throw new Error("status " + answer.status);
    draw(await answer.json());
  } catch (err) {
    verdict("The host does not answer: " + err.message, "bad");
  }
  setTimeout(ask, every);
};
ask();
