// What a record's proof is checked by: functions of bytes and texts, without a page or a network.
// The leaf and its tree are docs/ledger-format.md, the proof is C2SP tlog-proof, the note C2SP signed-note, the way to the root RFC 9162 section 2.1.3.2.

const encoder = new TextEncoder();

const BEFORE_DIGEST = ',"bodiesSha256":"';
const BEFORE_TAIL = '","bodies":';
const END = '"}';

/** SHA-256 of these bytes. */
export async function sha256(...parts) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", joined(parts)));
}

/** The entry of a record: stream and number, and the hash of its line without its content. */
export async function entry(stream, seq, line) {
  const { detached } = await parts(line);
  return `chaperone-record/1 ${stream} ${seq} ${hex(await sha256(detached))}`;
}

/**
 * A record's line without the texts of bodies that may be deleted (docs/ledger-format.md, "Content"): { detached, content }, where content is "there", "deleted" or "none". Texts that are not those of their digest are part of
 * the line, which then hashes to something else.
 */
export async function parts(line) {
  const whole = { detached: line, content: "none" };
  // Each byte as one character: offsets are those of the bytes.
  const text = latin1(line);
  const at = text.lastIndexOf(BEFORE_DIGEST);
  if (at < 0) return whole;
  const digestAt = at + BEFORE_DIGEST.length;
  const digest = text.slice(digestAt, digestAt + 64);
  const rest = text.slice(digestAt + 64);
  if (!/^[0-9a-f]{64}$/.test(digest)) return whole;
  if (rest === END) return { detached: line, content: "deleted" };
  const tail = line.slice(digestAt + 64 + BEFORE_TAIL.length, -1);
  if (!rest.startsWith(BEFORE_TAIL + '{"salt":"') || !rest.endsWith("}}") || !isJson(tail)) return whole;
  if (hex(await sha256(tail)) !== digest) return whole;
  return { detached: joined([line.slice(0, digestAt + 64), encoder.encode(END)]), content: "there" };
}

/** The hash of the leaf that holds this entry. */
export function leafHash(text) {
  return sha256(Uint8Array.of(0), encoder.encode(text));
}

/** Takes a proof apart. */
export function readProof(text) {
  const at = text.indexOf("\n\n");
  if (at < 0) throw new Error("it has no checkpoint");
  const [head, ...rest] = text.slice(0, at).split("\n");
  if (head !== "c2sp.org/tlog-proof@v1") throw new Error("it is no proof of this form");
  if (rest[0]?.startsWith("extra ")) rest.shift();
  const [, index] = /^index (0|[1-9][0-9]{0,19})$/.exec(rest.shift() ?? "") ?? [];
  if (index === undefined) throw new Error("it has no index");
  if (rest.length > 64) throw new Error("it is longer than any proof");
  return { index: BigInt(index), hashes: rest.map(hash), note: readNote(text.slice(at + 2)) };
}

/** Takes a checkpoint's note apart. */
export function readNote(text) {
  const at = text.lastIndexOf("\n\n");
  if (at < 0) throw new Error("the checkpoint is not signed");
  const signed = text.slice(0, at + 1);
  const [origin, size, root] = signed.split("\n");
  if (!origin || !/^(0|[1-9][0-9]{0,19})$/.test(size ?? "")) throw new Error("the checkpoint has no size");
  const signatures = text.slice(at + 2).split("\n").filter((line) => line !== "").map((line) => {
    const [, name, value] = /^\u2014 (\S+) (\S+)$/.exec(line) ?? [];
    if (name === undefined) throw new Error("a signature of the checkpoint is none");
    return { name, bytes: base64(value) };
  });
  return { signed, origin, size: BigInt(size), root: hash(root ?? ""), signatures };
}

/** The root to which a leaf's hash leads by these hashes; an error where they are not of a tree of this size. */
export async function rootOf(leaf, index, size, hashes) {
  if (index >= size) throw new Error("the leaf is not in a tree of this size");
  let [place, last, found] = [index, size - 1n, leaf];
  for (const beside of hashes) {
    if (last === 0n) throw new Error("the proof is too long");
    if (place % 2n === 1n || place === last) {
      found = await sha256(Uint8Array.of(1), beside, found);
      while (place % 2n === 0n && place !== 0n) [place, last] = [place / 2n, last / 2n];
    } else {
      found = await sha256(Uint8Array.of(1), found, beside);
    }
    [place, last] = [place / 2n, last / 2n];
  }
  if (last !== 0n) throw new Error("the proof is too short");
  return found;
}

/** Reads a public key: NAME+ID+BASE64, of Ed25519. */
export async function readKey(text) {
  const [, name, id, value] = /^([^\s+]+)\+([0-9a-f]{8})\+(\S+)$/.exec(text.trim()) ?? [];
  if (name === undefined) throw new Error("a public key is NAME+ID+BASE64");
  const bytes = base64(value);
  const expected = hex((await sha256(encoder.encode(name + "\n"), bytes)).slice(0, 4));
  if (expected !== id) throw new Error("the key is damaged: its ID is not that of its bytes");
  if (bytes[0] !== 1 || bytes.length !== 33) throw new Error("the key is not one of a log (Ed25519)");
  return { name, id, bytes: bytes.slice(1) };
}

/** Whether this key has signed the note: true, false (a wrong signature), or undefined where it has not signed. */
export async function isSignedBy(note, key) {
  const own = note.signatures.filter(({ name, bytes }) => name === key.name && hex(bytes.slice(0, 4)) === key.id);
  if (own.length === 0) return undefined;
  const imported = await crypto.subtle.importKey("raw", key.bytes, "Ed25519", false, ["verify"]);
  for (const { bytes } of own) {
    if (!(await crypto.subtle.verify("Ed25519", imported, bytes.slice(4), encoder.encode(note.signed)))) return false;
  }
  return true;
}

const CONTENT = {
  none: "",
  there: " without its bodies, whose SHA-256 is among them and is right,",
  deleted: " (its bodies were deleted, their SHA-256 is in it)",
};

/**
 * Checks a record, step by step. `line` are its bytes, `proof` the text, `vkey` the log's public key, or "".
 * Each step is { is: "yes" | "no" | "unknown", text }. Nothing is proved unless all are "yes".
 */
export async function check({ stream, seq, line, proof, vkey }) {
  const steps = [];
  const say = (is, text) => steps.push({ is, text });
  let read;
  try {
    read = readProof(proof);
    const text = await entry(stream, seq, line);
    const { detached, content } = await parts(line);
    say("yes", `The record's ${detached.length} bytes${CONTENT[content]} hash to ${text.slice(-64)}.`);
    const found = await rootOf(await leafHash(text), read.index, read.note.size, read.hashes);
    const isRoot = hex(found) === hex(read.note.root);
    say(isRoot ? "yes" : "no", isRoot
      ? `As record ${seq} of stream ${stream} it is leaf ${read.index} of the tree of ${read.note.size} leaves whose root the checkpoint has.`
      : "It does not lead to the root that the checkpoint has: these bytes are not in that log, or the proof is another record's.");
  } catch (error) {
    say("no", `The proof cannot be followed: ${error.message}.`);
    return steps;
  }
  if (vkey.trim() === "") {
    say("unknown", "No key was given, so the signature was not checked: the tree is the ledger's own word.");
    return steps;
  }
  try {
    const key = await readKey(vkey);
    const isSigned = await isSignedBy(read.note, key);
    if (isSigned && key.name !== read.note.origin) say("no", `The key is that of ${key.name}, and the checkpoint is of ${read.note.origin}.`);
    else if (isSigned) say("yes", `The checkpoint of ${read.note.origin} is signed by the key that you gave.`);
    else say("no", isSigned === undefined ? "The key that you gave has not signed this checkpoint." : "The signature is wrong: the key that you gave has not made it.");
  } catch (error) {
    const isUnknown = error.name === "NotSupportedError";
    say(isUnknown ? "unknown" : "no", isUnknown ? "This browser knows no Ed25519, so the signature was not checked." : `The key cannot be used: ${error.message}.`);
  }
  return steps;
}

function joined(parts) {
  const all = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

function isJson(bytes) {
  try {
    JSON.parse(new TextDecoder().decode(bytes));
    return true;
  } catch {
    return false;
  }
}

function latin1(bytes) {
  let text = "";
  // Arguments of a call are bounded.
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return text;
}

function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function hash(text) {
  const bytes = base64(text);
  if (bytes.length !== 32) throw new Error("a hash has 32 bytes");
  return bytes;
}

function base64(text) {
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(text)) throw new Error("it is no base64");
  return Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
}
