// The model in the page itself: llama.cpp in WebAssembly (wllama), on the visitor's machine.
import { LoggerWithoutDebug, Wllama } from "./wllama/index.js";

/** Whether the model may need an API key. */
export const needsKey = false;

const llama = new Wllama({ "single-thread/wllama.wasm": "wllama/wllama.wasm" }, { logger: LoggerWithoutDebug, suppressNativeLog: true });
const WHITE_SPACE = /^(?!\ufeff)[\s\x1c-\x1f\x85]/; // as Python's `str.isspace` defines it
const RANDOM_SEED = -1; // llama.cpp's default: another seed for every answer
const BATCH_TOKENS = 256; // between two batches, a long prompt can be aborted

let model = null;
let report = () => {};
let cached = []; // the tokens in llama.cpp's KV cache
const description = fetch("model.json").then(checkStatus).then((response) => response.json());
const loaded = description.then(load);

/** Return the description in `model.json`. The weights load in the background; `options.report` gets their progress. */
export async function connect(options) {
  report = options.report;
  loaded.catch((error) => report(error.message));
  navigator.serviceWorker?.register("worker.js").catch((error) => console.warn("The page will not open offline:", error));
  return description;
}

/** Stream the answer to `messages` as OpenAI's chunks; the last has llama.cpp's `timings`. */
export async function* ask(messages, parameters, { signal }) {
  const ids = await prompt(messages);
  const room = model.meta.context_length - ids.length;
  if (room <= 0) throw tooLong(ids.length);
  const { temperature: temp, top_p, repeat_penalty: penalty_repeat, max_tokens = Infinity } = parameters;
  await llama.samplingInit({ temp, top_p, penalty_repeat }, ids);
  await prefill(ids, signal);
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
    cached.push(token);
  }
  const timings = { predicted_n: count, predicted_per_second: (1000 * count) / (performance.now() - start) };
  yield { ...chunk(decoder.decode(), reason), timings };
}

/** Return the token ids that prompt the assistant's next turn, as `keylm.tokenizer.messages` does: control tokens are
 *  added by id, and control strings in messages are plain characters. */
export async function prompt(messages) {
  await loaded;
  const [[start], [end], newline, answer] = await Promise.all([encodeControl("<|im_start|>"), encodeControl("<|im_end|>"), encodeText("\n"), encodeText("assistant\n")]);
  const turns = await Promise.all(messages.map(encodeTurn));
  return [...turns.flatMap((ids) => [start, ...ids, end, ...newline]), start, ...answer];
}

// The split regexes join a newline with white space after it: then the role and the content are encoded together.
async function encodeTurn({ role, content }) {
  if (role !== "assistant" && WHITE_SPACE.test(content)) return encodeText(`${role}\n${content}`);
  return (await Promise.all([encodeText(`${role}\n`), encodeText(content)])).flat();
}

async function encodeText(text) {
  return [...await llama.tokenize(text, false)];
}

function encodeControl(text) {
  return llama.tokenize(text, true);
}

// Only tokens that differ from the cached ones are computed; the last one always is, for the logits of the next.
async function prefill(ids, signal) {
  let same = 0;
  while (same < ids.length - 1 && ids[same] === cached[same]) same++;
  cached.length = same;
  await (same ? llama.kvRemove(same, -1) : llama.kvClear());
  await llama.decode(ids.slice(same), { abortSignal: signal });
  cached = [...ids];
}

async function load(description) {
  model = description;
  await llama.loadModel([await loadWeights()], { n_ctx: model.meta.context_length, n_batch: BATCH_TOKENS, seed: RANDOM_SEED });
  report("");
}

// The weights are stored beside the page's files (see worker.js). Browsers allow it over https and from this machine only.
async function loadWeights() {
  const cache = globalThis.caches && await caches.open(`${new URL(".", location)} ${model.version}`);
  const stored = await cache?.match(model.file);
  if (stored) return stored.blob();
  const blob = await download();
  await cache?.put(model.file, new Response(blob)).catch((error) => console.warn("No room to store the model:", error));
  return blob;
}

async function download() {
  const response = checkStatus(await fetch(`${model.file}?${model.version}`, { cache: "no-store" }));
  const pieces = [];
  let size = 0;
  for (const reader = response.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) break;
    pieces.push(value);
    size += value.length;
    report(`loading ${Math.floor((100 * size) / model.bytes)}%`);
  }
  if (size !== model.bytes) throw new Error(`${model.file} is incomplete: reload the page`);
  return new Blob(pieces);
}

function checkStatus(response) {
  if (!response.ok) throw new Error(`${response.url} cannot be loaded: ${response.status}`);
  return response;
}

function tooLong(length) {
  const message = `the conversation is ${length} tokens long, and the context ${model.meta.context_length}`;
  return Object.assign(new Error(message), { code: "context_length_exceeded" });
}

function chunk(content, finish_reason = null) {
  return { choices: [{ delta: { content }, finish_reason }] };
}
