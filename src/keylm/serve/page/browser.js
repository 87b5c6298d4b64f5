// The model in the page itself: llama.cpp in WebAssembly (wllama), on the visitor's machine.
import { LoggerWithoutDebug, Wllama } from "./wllama/index.js";

/** Whether those who ask may have to show a key. */
export const asksForKey = false;

const llama = new Wllama({ "single-thread/wllama.wasm": "wllama/wllama.wasm" }, { logger: LoggerWithoutDebug, suppressNativeLog: true });
const WHITE_SPACE = /^(?!\ufeff)[\s\x1c-\x1f\x85]/; // what Python's `str.isspace` takes for it
const BY_THE_CLOCK = -1; // llama.cpp's default seed: another one for every answer
const TOKENS_AT_ONCE = 256; // between two of these, the reading of a long prompt can be stopped

let model = null;
let report = () => {};
let past = []; // the tokens whose keys and values llama.cpp holds
const described = fetch("model.json").then(found).then((response) => response.json());
const opened = described.then(open);

/** The model as `model.json` describes it. Its weights go on loading; `options.report` is told how far they are. */
export async function meet(options) {
  report = options.report;
  opened.catch((error) => report(error.message));
  navigator.serviceWorker?.register("worker.js").catch((error) => console.warn("No network, no page:", error));
  return described;
}

/** The answer to `messages` as it comes, in OpenAI's chunks; the last has llama.cpp's `timings`. */
export async function* ask(messages, parameters, { signal }) {
  const ids = await prompt(messages);
  const room = model.meta.context_length - ids.length;
  if (room <= 0) throw tooLong(ids.length);
  const { temperature: temp, top_p, repeat_penalty: penalty_repeat, max_tokens = Infinity } = parameters;
  await llama.samplingInit({ temp, top_p, penalty_repeat }, ids);
  await read(ids, signal);
  const start = performance.now();
  const decoder = new TextDecoder();
  const [turnStart] = ids;
  let count = 0, reason = "length";
  while (count < Math.min(max_tokens, room)) {
    signal.throwIfAborted();
    const { token, piece } = await llama.samplingSample();
    if (llama.isTokenEOG(token)) {
      reason = "stop";
      break;
    }
    count++;
    if (token !== turnStart) yield chunk(decoder.decode(piece, { stream: true }));
    await llama.samplingAccept([token]);
    await llama.decode([token], {});
    past.push(token);
  }
  const timings = { predicted_n: count, predicted_per_second: (1000 * count) / (performance.now() - start) };
  yield { ...chunk(decoder.decode(), reason), timings };
}

/** Token ids that ask for the assistant's next turn, as `keylm.chat.encode` makes them: control tokens enter by their
 *  ids alone, and control strings in messages are plain characters. */
export async function prompt(messages) {
  await opened;
  const [[start], [end], newline, answer] = await Promise.all([control("<|im_start|>"), control("<|im_end|>"), plain("\n"), plain("assistant\n")]);
  const turns = await Promise.all(messages.map(spoken));
  return [...turns.flatMap((words) => [start, ...words, end, ...newline]), start, ...answer];
}

// The split regexes join a newline with white space around it: then the head and what is said are encoded together.
async function spoken({ role, content }) {
  if (role !== "assistant" && WHITE_SPACE.test(content)) return plain(`${role}\n${content}`);
  return (await Promise.all([plain(`${role}\n`), plain(content)])).flat();
}

async function plain(text) {
  return [...await llama.tokenize(text, false)];
}

function control(text) {
  return llama.tokenize(text, true);
}

// Only what differs from the tokens that were read before is read; the last token always is, for what follows it.
async function read(ids, signal) {
  let same = 0;
  while (same < ids.length - 1 && ids[same] === past[same]) same++;
  past.length = same;
  await (same ? llama.kvRemove(same, -1) : llama.kvClear());
  await llama.decode(ids.slice(same), { abortSignal: signal });
  past = [...ids];
}

async function open(description) {
  model = description;
  await llama.loadModel([await weights()], { n_ctx: model.meta.context_length, n_batch: TOKENS_AT_ONCE, seed: BY_THE_CLOCK });
  report("");
}

// The weights are kept beside the page's files (see worker.js). Browsers allow it over https and on this machine only.
async function weights() {
  const cache = globalThis.caches && await caches.open(`${new URL(".", location)} ${model.version}`);
  const kept = await cache?.match(model.file);
  if (kept) return kept.blob();
  const fresh = await download();
  await cache?.put(model.file, new Response(fresh)).catch((error) => console.warn("No room to keep the model:", error));
  return fresh;
}

async function download() {
  const response = found(await fetch(`${model.file}?${model.version}`, { cache: "no-store" }));
  const pieces = [];
  let size = 0;
  for (const reader = response.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) break;
    pieces.push(value);
    size += value.length;
    report(`loading ${Math.floor((100 * size) / model.bytes)}%`);
  }
  if (size !== model.bytes) throw new Error(`${model.file} did not arrive whole: load the page again`);
  return new Blob(pieces);
}

function found(response) {
  if (!response.ok) throw new Error(`${response.url} cannot be had: ${response.status}`);
  return response;
}

function tooLong(length) {
  const message = `the conversation is ${length} tokens long, and the context ${model.meta.context_length}`;
  return Object.assign(new Error(message), { code: "context_length_exceeded" });
}

function chunk(content, finish_reason = null) {
  return { choices: [{ delta: { content }, finish_reason }] };
}
