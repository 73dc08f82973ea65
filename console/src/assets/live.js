// New records as they come: the ledger is asked for rows after the last leaf that was looked at, and answers when there are some.
const feed = document.getElementById("live");
const rows = feed.querySelector("tbody");
const status = document.getElementById("live-status");
const button = document.getElementById("live-pause");
const MOST = 500;
// A look costs a record: no more often than that.
const PAUSE = 2000;
const PATIENCE = 10000;
let { after, path } = feed.dataset;
let isPaused = false;
let resume = () => {};

const wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

async function next() {
  const separator = path.includes("?") ? "&" : "?";
  const answer = await fetch(`${path}${separator}after=${after}`, { cache: "no-store", redirect: "error" });
  if (answer.status === 401) throw Object.assign(new Error("the login has ended"), { isFinal: true });
  if (!answer.ok) throw new Error(`the ledger answers ${answer.status}`);
  return { text: await answer.text(), after: answer.headers.get("chaperone-after"), isCut: answer.headers.get("chaperone-cut") === "true" };
}

// The rows are HTML of the ledger, made by what makes the page; nothing in them runs.
function put({ text, isCut }) {
  const holder = document.createElement("template");
  holder.innerHTML = `<table><tbody>${text}</tbody></table>`;
  const fresh = [...holder.content.querySelectorAll("tr")];
  rows.prepend(...fresh);
  while (rows.rows.length > MOST) rows.deleteRow(-1);
  const time = new Date().toISOString().slice(11, 19);
  if (fresh.length > 0) status.textContent = `${fresh.length} new at ${time}.${isCut ? " More came than are shown: search has them all." : ""}`;
}

async function run() {
  for (;;) {
    if (isPaused) await new Promise((done) => (resume = done));
    try {
      const answer = await next();
      if (!isPaused) put(answer);
      after = answer.after ?? after;
      await wait(PAUSE);
    } catch (error) {
      status.textContent = `Not live: ${error.message}.`;
      if (error.isFinal) return;
      await wait(PATIENCE);
    }
  }
}

button.hidden = false;
button.addEventListener("click", () => {
  isPaused = !isPaused;
  button.setAttribute("aria-pressed", String(isPaused));
  status.textContent = isPaused ? "Paused." : "Going on.";
  resume();
});
status.textContent = "Waiting for new records.";
run();
