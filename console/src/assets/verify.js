// The button that checks a record's proof in the browser.
import { check } from "./proof.js";

const section = document.getElementById("verify");
const form = section.querySelector("form");
const steps = document.getElementById("verify-steps");
const verdict = document.getElementById("verify-verdict");
const STORED = `vkey ${section.dataset.origin}`;
const WORDS = { yes: "proved", no: "NOT TRUE", unknown: "not checked" };

async function bytes(path) {
  const answer = await fetch(path, { cache: "no-store", redirect: "error" });
  if (!answer.ok) throw new Error(`the ledger answers ${answer.status}`);
  return new Uint8Array(await answer.arrayBuffer());
}

function show(found) {
  const items = found.map(({ is, text }) => {
    const item = document.createElement("li");
    const word = document.createElement("strong");
    item.className = `step ${is}`;
    word.textContent = `${WORDS[is]}: `;
    item.append(word, text);
    return item;
  });
  steps.replaceChildren(...items);
  const worst = ["no", "unknown"].find((is) => found.some((step) => step.is === is));
  verdict.className = `step ${worst ?? "yes"}`;
  verdict.textContent = {
    no: "Not proved: something does not fit. Take the record out with chaperone export, and have somebody look.",
    unknown: "Proved in part: the record is in the tree that the ledger shows, and nobody vouches for that tree here.",
    undefined: "Proved: this record, byte for byte, is in the log that this key has signed.",
  }[String(worst)];
}

async function run() {
  verdict.className = "step";
  verdict.textContent = "Checking…";
  steps.replaceChildren();
  const { raw, proof, stream, seq } = section.dataset;
  const vkey = form.elements.vkey.value.trim();
  if (vkey === "") localStorage.removeItem(STORED);
  else localStorage.setItem(STORED, vkey);
  try {
    const [line, text] = await Promise.all([bytes(raw), bytes(proof)]);
    show(await check({ stream, seq, line, proof: new TextDecoder().decode(text), vkey }));
  } catch (error) {
    verdict.className = "step unknown";
    verdict.textContent = `Not checked: ${error.message}.`;
  }
}

form.elements.vkey.value = localStorage.getItem(STORED) ?? "";
form.addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
section.hidden = false;
