// Fetches a document with a fresh nonce, has the verifier examine it, and shows
// what it has found. All judgement is the verifier's; nothing here says that a
// check has passed.
"use strict";

// Bytes of a nonce; the enclave takes 16 to 64.
const nonceSize = 32;

// What each check is about, for people.
const questions = {
  "document": "Is it an attestation document, and nothing else?",
  "chain": "Do its certificates lead to the trusted root?",
  "signature": "Has the security module's key signed it?",
  "validity": "Are all certificates valid now, by this computer's clock?",
  "nonce": "Does it answer the random number of this page?",
  "time": "Was it made just now?",
  "PCRs": "Is it the image that you expect?",
  "debug mode": "Can the parent instance look into it?",
  "key binding": "Does it name the key of this connection?",
};
const looks = { ok: ["good", "\u2713"], FAIL: ["bad", "\u2717"], warn: ["open", "?"] };

const $ = (id) => document.getElementById(id);
const hex = (bytes) => Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");

function element(name, className, text) {
  const e = document.createElement(name);
  e.className = className;
  e.textContent = text;
  return e;
}

function say(look, headline, text) {
  const banner = $("verdict");
  banner.className = "banner " + look;
  banner.querySelector("strong").textContent = headline;
  banner.querySelector("span").textContent = text;
}

// list fills a <dl> with pairs of names and values, and shows its section if there
// are any.
function list(dl, section, pairs) {
  $(dl).replaceChildren(...pairs.flatMap(([name, value]) => [element("dt", "", name), element("dd", "", value)]));
  $(section).hidden = pairs.length === 0;
}

function show(report) {
  $("steps").replaceChildren(...report.checks.map((check) => {
    const [look, mark] = looks[check.result];
    const body = element("div", "", questions[check.check] || check.check);
    body.append(element("span", "detail", check.detail || ""));
    const step = element("li", "", "");
    step.dataset.check = check.check;
    step.dataset.result = check.result;
    step.append(element("span", "mark " + look, mark), body);
    return step;
  }));
  const pcrs = report.document ? Object.entries(report.document.pcrs) : [];
  list("pcrs", "registers", pcrs.filter(([i, value]) => i <= 2 || /[^0]/.test(value)).map(([i, value]) => ["PCR" + i, value]));
  list("digests", "binding", [
    ...(report.certificates || []).map((d) => ["Certificate", d]), ...(report.keys || []).map((d) => ["Public key", d]),
  ]);
  const result = (name) => report.checks.find((c) => c.check === name)?.result;
  if (report.checks.some((c) => c.result === "FAIL")) {
    say("bad", "Not verified: " + report.verdict, report.reason);
  } else if (result("PCRs") !== "ok") {
    say("open", "A genuine enclave has answered just now. Which one is open.",
      "Nothing is expected of its image yet: paste the registers below, from whoever publishes them.");
  } else {
    say("good", "A genuine enclave of the expected image has answered just now.",
      (report.image ? "Image: " + report.image + ". " : "") + "Whether this connection ends in it, the last step leaves to you.");
  }
}

// The verifier is loaded once.
let verifier;
function load() {
  verifier ||= (async () => {
    const go = new Go();
    const { instance } = await WebAssembly.instantiateStreaming(fetch("enclave/page/verify.wasm"), go.importObject);
    go.run(instance); // never returns: it waits for calls
    return globalThis.corridorExamine;
  })();
  return verifier;
}

async function ask(nonce) {
  const answer = await fetch("enclave/attestation?nonce=" + nonce, {
    headers: { Accept: "application/json" }, cache: "no-store", redirect: "error", referrerPolicy: "no-referrer",
  });
  const text = await answer.text();
  if (!answer.ok) {
    throw new Error("the enclave answers " + answer.status + ": " + text.trim().slice(0, 200));
  }
  return text;
}

async function check() {
  const button = document.querySelector("button");
  button.disabled = true;
  document.body.dataset.state = "busy";
  try {
    const nonce = hex(crypto.getRandomValues(new Uint8Array(nonceSize)));
    const [examine, evidence] = await Promise.all([load(), ask(nonce)]);
    const { mistake, report } = JSON.parse(examine(JSON.stringify({
      evidence, nonce, expected: $("expected").value, root: $("root").value,
    })));
    if (mistake) {
      show({ checks: [] });
      say("open", "Nothing was checked", mistake);
    } else {
      show(report);
    }
  } catch (error) {
    show({ checks: [] });
    say("bad", "The check could not be done", error.message);
  } finally {
    button.disabled = false;
    document.body.dataset.state = "done";
  }
}

// describe shows what the enclave says about itself, where that helps.
async function describe() {
  const config = await (await fetch("enclave/config")).json();
  $("simulated").hidden = !config.simulated;
  if (/^https?:/.test(config.source_url || "")) {
    $("source").href = config.source_url;
    $("source").hidden = false;
  }
}

$("host").textContent = location.host;
document.querySelectorAll(".origin").forEach((e) => { e.textContent = location.origin; });
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  check();
});
describe().catch(() => {}); // the page says all that matters without it
check();
