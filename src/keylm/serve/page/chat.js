// The page: conversations, settings, rendering. The answers come from `model.js`: a server, or the page itself.
import * as backend from "./model.js";

const $ = (id) => document.getElementById(id);
const store = localStorage;
const parameters = ["temperature", "top_p", "repeat_penalty", "max_tokens"];
let chats = readChats();
let chat = emptyChat();
let running = null;
let editing = null;
let model = { id: "KeyLM", meta: { temperature: 0.7, repetition_penalty: 1, examples: [] } };

function emptyChat() {
  return { id: newId(), title: "", turns: [] };
}

function newId() {
  return Date.now().toString(36) + Math.random().toString(36).slice(2);
}

function element(tag, content = "", properties = {}) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...[content].flat());
  return node;
}

// The Markdown that small models write. It becomes text nodes and elements, never HTML: nothing in it can run.
function inline(text) {
  return text.split(/(`[^`\n]+`|\*\*[^*\n]+\*\*|(?<![*\w])\*[^*\s][^*\n]*\*(?![*\w]))/).map((part, index) =>
    index % 2 === 0 ? part : part[0] === "`" ? element("code", part.slice(1, -1))
      : part[1] === "*" ? element("strong", part.slice(2, -2)) : element("em", part.slice(1, -1)));
}

function block(text) {
  const lines = text.split("\n");
  const heading = lines.length === 1 && /^(#{1,6}) +(.+)$/.exec(text);
  if (heading) return element(`h${Math.min(5, heading[1].length + 2)}`, inline(heading[2]));
  const list = [["ul", /^\s*[-*•]\s+/], ["ol", /^\s*\d+[.)]\s+/]].find(([, mark]) => lines.every((line) => mark.test(line)));
  return list ? element(list[0], lines.map((line) => element("li", inline(line.replace(list[1], ""))))) : element("p", inline(text));
}

function markdown(text) {
  return text.split(/^```[^\n]*\n?/m).flatMap((part, index) =>
    index % 2 ? [element("pre", element("code", part.replace(/\n$/, "")))]
      : part.split(/\n{2,}/).map((piece) => piece.replace(/^\n+|\n+$/g, "")).filter(Boolean).map(block));
}

function addTurn(turn) {
  const body = element("div", turn.role === "user" ? turn.content : markdown(turn.content));
  turn.node = element("div", body, { className: `turn ${turn.role}` });
  if (turn.role === "user") turn.node.prepend(element("button", "Edit", { className: "edit", title: "Edit and send again", onclick: () => edit(turn) }));
  $("hello")?.remove();
  $("log").append(turn.node);
  scrollToEnd(true);
}

function scrollToEnd(always) {
  const view = $("view");
  if (always || view.scrollHeight - view.scrollTop - view.clientHeight < 120) view.scrollTop = view.scrollHeight;
}

function addNote(turn, text, alarm) {
  const copy = element("button", "Copy", { onclick: () => navigator.clipboard.writeText(turn.content) });
  const again = element("button", "Again", { title: "Write another answer", onclick: () => regenerate(turn) });
  turn.node.append(element("div", [element("span", text, { className: alarm ? "alarm" : "" }), copy, again], { className: "note" }));
  scrollToEnd();
}

function showExamples() {
  const buttons = model.meta.examples.map((text) => element("button", text, { onclick: () => say(text) }));
  $("log").replaceChildren(element("div", [element("h2", model.id), element("p", "What would you like to talk about?"), element("div", buttons)], { id: "hello" }));
}

// Conversations are stored in this browser, the newest first; when it is full, the oldest are deleted. Other tabs store
// theirs at the same place, so each change starts from what is stored.
function readChats() {
  return JSON.parse(store.getItem("chats") ?? "[]");
}

function writeChats(all) {
  chats = all.slice(0, 100);
  listChats();
  try {
    store.setItem("chats", JSON.stringify(chats, (name, value) => name === "node" ? undefined : value));
  } catch {
    if (chats.length > 1) writeChats(chats.slice(0, -1));
  }
}

function save(one) {
  if (!one.turns.length) return;
  const stored = readChats();
  const other = stored.find(({ id }) => id === one.id);
  // Where another tab has gone on with the same conversation, both are kept.
  if (other && other.version !== one.version) one.id = newId();
  one.version = newId();
  writeChats([one, ...stored.filter(({ id }) => id !== one.id)]);
}

function listChats() {
  $("chats").replaceChildren(...chats.map((stored) => {
    const one = stored.id === chat.id ? chat : stored;
    const current = { ariaCurrent: String(one === chat) };
    const open_ = element("button", one.title, { ...current, onclick: () => open(one) });
    return element("li", [open_, element("button", "×", { ariaLabel: `Delete “${one.title}”`, onclick: () => deleteChat(one) })]);
  }));
}

function open(one) {
  running?.abort();
  cancelEdit();
  chat = one;
  $("log").replaceChildren();
  chat.turns.forEach((turn) => { addTurn(turn); if (turn.role === "assistant") addNote(turn, ""); });
  if (!chat.turns.length) showExamples();
  listChats();
  showSidebar(false);
  $("text").focus();
}

function deleteChat(one) {
  const isCurrent = one.id === chat.id;
  one.turns = []; // an answer that is still being written is not stored again
  writeChats(readChats().filter(({ id }) => id !== one.id));
  if (isCurrent) newChat();
}

function newChat() {
  open(emptyChat());
}

function say(text) {
  if (running || !text.trim()) return;
  if (editing) removeFrom(editing);
  cancelEdit();
  chat.title ||= text.trim().slice(0, 60);
  chat.turns.push({ role: "user", content: text.trim() });
  addTurn(chat.turns.at(-1));
  answer();
}

function removeFrom(turn) {
  for (const cutTurn of chat.turns.splice(chat.turns.indexOf(turn))) cutTurn.node.remove();
}

function regenerate(turn) {
  if (running) return;
  removeFrom(turn);
  answer();
}

function edit(turn) {
  if (running || !turn) return;
  cancelEdit();
  editing = turn;
  turn.node.classList.add("editing");
  $("text").value = turn.content;
  $("send").textContent = "Resend";
  fitHeight();
  $("text").focus();
}

function cancelEdit() {
  if (!editing) return;
  editing.node.classList.remove("editing");
  editing = null;
  $("send").textContent = "Send";
}

async function answer() {
  const system = $("system").value.trim();
  const messages = [...(system ? [{ role: "system", content: system }] : []), ...chat.turns.filter(({ content }) => content).map(({ role, content }) => ({ role, content }))];
  const turn = { role: "assistant", content: "" };
  const answered = chat;
  const stop = running = new AbortController();
  chat.turns.push(turn);
  save(answered);
  addTurn(turn);
  turn.node.classList.add("waiting");
  $("send").textContent = "Stop";
  let ending = "stopped", failed = false;
  try {
    for await (const event of askWithinContext(messages, stop.signal)) {
      turn.content += event.choices[0].delta.content ?? "";
      turn.node.firstChild.replaceChildren(...markdown(turn.content));
      scrollToEnd();
      if (event.timings) ending = summary(event);
    }
  } catch (error) {
    failed = error.name !== "AbortError";
    if (failed) ending = error.message;
    if (error.code === "invalid_api_key") showSettings(true, "key");
  }
  turn.node.classList.remove("waiting");
  addNote(turn, ending, failed);
  if (running === stop) {
    running = null;
    $("send").textContent = "Send";
    save(answered);
  }
}

function summary({ timings, choices }) {
  const speed = Math.round(timings.predicted_per_second).toLocaleString();
  return `${timings.predicted_n} tokens, ${speed} a second${choices[0].finish_reason === "length" ? ", cut off: the context is full" : ""}`;
}

// When a conversation outgrows the context, its oldest question and answer are left out.
async function* askWithinContext(messages, signal) {
  const first = messages[0].role === "system" ? 1 : 0;
  for (;;) {
    try {
      return yield* backend.ask(messages, chosenParameters(), { key: $("key").value, signal });
    } catch (error) {
      if (error.code !== "context_length_exceeded" || messages.length < first + 3) throw error;
      messages.splice(first, 2);
    }
  }
}

function chosenParameters() {
  return Object.fromEntries(parameters.filter((name) => $(name).value).map((name) => [name, Number($(name).value)]));
}

function fitHeight() {
  $("text").style.height = "auto";
  $("text").style.height = `${$("text").scrollHeight + 2}px`;
}

function showValues() {
  for (const output of document.querySelectorAll("#settings output")) output.value = Number($(output.htmlFor.value).value).toFixed(2);
}

function showSettings(shown, focused = "system") {
  $("settings").hidden = !shown;
  $("tune").ariaExpanded = String(shown);
  if (shown) $(focused).focus();
}

function showSidebar(shown) {
  $("side").classList.toggle("open", shown);
  $("list").ariaExpanded = String(shown);
}

async function connect() {
  try {
    model = await backend.connect({ key: $("key").value, report: (text) => { $("state").textContent = text; } });
  } catch (error) {
    if (error.code !== "invalid_api_key") throw error;
    return showSettings(true, "key");
  }
  document.title = $("name").textContent = model.id;
  for (const [name, own] of [["temperature", model.meta.temperature], ["repeat_penalty", model.meta.repetition_penalty]]) {
    if (!store.getItem(name)) $(name).value = own;
  }
  showValues();
  if (!chat.turns.length) showExamples();
}

$("composer").onsubmit = (event) => {
  event.preventDefault();
  if (running) return running.abort();
  say($("text").value);
  $("text").value = "";
  fitHeight();
};
$("text").oninput = fitHeight;
$("text").onkeydown = (event) => {
  if (event.key === "ArrowUp" && !$("text").value) {
    event.preventDefault();
    return edit(chat.turns.findLast((turn) => turn.role === "user"));
  }
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!running) $("composer").requestSubmit();
};
// Another tab has stored something.
addEventListener("storage", ({ key }) => {
  if (key !== "chats") return;
  chats = readChats();
  const stored = chats.find(({ id }) => id === chat.id);
  if (stored && stored.version !== chat.version && !running && !editing) open(stored);
  else listChats();
});
$("fresh").onclick = newChat;
$("tune").onclick = () => showSettings($("settings").hidden);
$("list").onclick = () => showSidebar(!$("side").classList.contains("open"));
$("view").onclick = () => showSidebar(false);
for (const name of ["system", "key", ...parameters]) {
  $(name).value = store.getItem(name) ?? $(name).value;
  $(name).oninput = () => { store.setItem(name, $(name).value); showValues(); };
}
$("key").onchange = connect;
$("key").parentElement.hidden = !backend.needsKey;
addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    running?.abort();
    if (editing) { cancelEdit(); $("text").value = ""; fitHeight(); }
    showSidebar(false);
  }
  if (event.altKey && event.code === "KeyN") { event.preventDefault(); newChat(); }
});

writeChats(chats.map((one) => ({ id: newId(), ...one }))); // those of earlier versions have no id
newChat();
connect();
