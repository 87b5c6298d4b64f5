// The page: conversations, settings, and what is shown. Who answers is `model.js`: a server, or the page itself.
import * as backend from "./model.js";

const $ = (id) => document.getElementById(id);
const examples = ["What is a tide?", "Name three animals, as a list.", "Write two sentences about rivers, in lowercase."];
const store = localStorage;
const tuned = ["temperature", "top_p", "repeat_penalty", "max_tokens"];
let chats = JSON.parse(store.getItem("chats") ?? "[]");
let chat = { title: "", turns: [] };
let running = null;
let editing = null;
let model = { id: "KeyLM", meta: { temperature: 0.7, repetition_penalty: 1 } };

function element(tag, content = "", properties = {}) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...[content].flat());
  return made;
}

// Markdown, the little that small models write. Only text nodes are made of the model's words: nothing in them can run.
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

function show(turn) {
  const body = element("div", turn.role === "user" ? turn.content : markdown(turn.content));
  turn.place = element("div", body, { className: `turn ${turn.role}` });
  if (turn.role === "user") turn.place.prepend(element("button", "Edit", { className: "edit", title: "Edit and send again", onclick: () => edit(turn) }));
  $("hello")?.remove();
  $("log").append(turn.place);
  follow(true);
}

function follow(always) {
  const view = $("view");
  if (always || view.scrollHeight - view.scrollTop - view.clientHeight < 120) view.scrollTop = view.scrollHeight;
}

function note(turn, text, alarm) {
  const copy = element("button", "Copy", { onclick: () => navigator.clipboard.writeText(turn.content) });
  const again = element("button", "Again", { title: "Write another answer", onclick: () => regenerate(turn) });
  turn.place.append(element("div", [element("span", text, { className: alarm ? "alarm" : "" }), copy, again], { className: "note" }));
  follow();
}

function hello() {
  const buttons = examples.map((text) => element("button", text, { onclick: () => say(text) }));
  $("log").replaceChildren(element("div", [element("h2", model.id), element("p", "What would you like to talk about?"), element("div", buttons)], { id: "hello" }));
}

// Conversations are kept in this browser, the newest first; the oldest go when it has no room for them.
function save() {
  if (chat.turns.length) chats = [chat, ...chats.filter((other) => other !== chat)].slice(0, 100);
  list();
  try {
    store.setItem("chats", JSON.stringify(chats, (name, value) => name === "place" ? undefined : value));
  } catch {
    if (chats.length > 1) { chats.pop(); save(); }
  }
}

function list() {
  $("chats").replaceChildren(...chats.map((one) => {
    const current = { ariaCurrent: String(one === chat) };
    const open_ = element("button", one.title, { ...current, onclick: () => open(one) });
    return element("li", [open_, element("button", "×", { ariaLabel: `Delete “${one.title}”`, onclick: () => drop(one) })]);
  }));
}

function open(one) {
  running?.abort();
  forgetEdit();
  chat = one;
  $("log").replaceChildren();
  chat.turns.forEach((turn) => { show(turn); if (turn.role === "assistant") note(turn, ""); });
  if (!chat.turns.length) hello();
  list();
  aside(false);
  $("text").focus();
}

function drop(one) {
  chats = chats.filter((other) => other !== one);
  if (one === chat) fresh();
  save();
}

function fresh() {
  open({ title: "", turns: [] });
}

function say(text) {
  if (running || !text.trim()) return;
  if (editing) cut(editing);
  forgetEdit();
  chat.title ||= text.trim().slice(0, 60);
  chat.turns.push({ role: "user", content: text.trim() });
  show(chat.turns.at(-1));
  answer();
}

function cut(turn) {
  for (const gone of chat.turns.splice(chat.turns.indexOf(turn))) gone.place.remove();
}

function regenerate(turn) {
  if (running) return;
  cut(turn);
  answer();
}

function edit(turn) {
  if (running || !turn) return;
  forgetEdit();
  editing = turn;
  turn.place.classList.add("editing");
  $("text").value = turn.content;
  $("send").textContent = "Resend";
  fit();
  $("text").focus();
}

function forgetEdit() {
  if (!editing) return;
  editing.place.classList.remove("editing");
  editing = null;
  $("send").textContent = "Send";
}

async function answer() {
  const system = $("system").value.trim();
  const messages = [...(system ? [{ role: "system", content: system }] : []), ...chat.turns.filter(({ content }) => content).map(({ role, content }) => ({ role, content }))];
  const turn = { role: "assistant", content: "" };
  const stop = running = new AbortController();
  chat.turns.push(turn);
  save();
  show(turn);
  turn.place.classList.add("waiting");
  $("send").textContent = "Stop";
  let ending = "stopped", failed = false;
  try {
    for await (const event of askWithin(messages, stop.signal)) {
      turn.content += event.choices[0].delta.content ?? "";
      turn.place.firstChild.replaceChildren(...markdown(turn.content));
      follow();
      if (event.timings) ending = summary(event);
    }
  } catch (error) {
    failed = error.name !== "AbortError";
    if (failed) ending = error.message;
    if (error.code === "invalid_api_key") settings(true, "key");
  }
  turn.place.classList.remove("waiting");
  note(turn, ending, failed);
  if (running === stop) {
    running = null;
    $("send").textContent = "Send";
    save();
  }
}

function summary({ timings, choices }) {
  const speed = Math.round(timings.predicted_per_second).toLocaleString();
  return `${timings.predicted_n} tokens, ${speed} a second${choices[0].finish_reason === "length" ? ", cut off: the context is full" : ""}`;
}

// A long conversation outgrows the context: then its oldest question and answer are left out.
async function* askWithin(messages, signal) {
  const first = messages[0].role === "system" ? 1 : 0;
  for (;;) {
    try {
      return yield* backend.ask(messages, chosen(), { key: $("key").value, signal });
    } catch (error) {
      if (error.code !== "context_length_exceeded" || messages.length < first + 3) throw error;
      messages.splice(first, 2);
    }
  }
}

function chosen() {
  return Object.fromEntries(tuned.filter((name) => $(name).value).map((name) => [name, Number($(name).value)]));
}

function fit() {
  $("text").style.height = "auto";
  $("text").style.height = `${$("text").scrollHeight + 2}px`;
}

function tell() {
  for (const output of document.querySelectorAll("#settings output")) output.value = Number($(output.htmlFor.value).value).toFixed(2);
}

function settings(shown, focused = "system") {
  $("settings").hidden = !shown;
  $("tune").ariaExpanded = String(shown);
  if (shown) $(focused).focus();
}

function aside(shown) {
  $("side").classList.toggle("open", shown);
  $("list").ariaExpanded = String(shown);
}

async function meet() {
  try {
    model = await backend.meet({ key: $("key").value, report: (text) => { $("state").textContent = text; } });
  } catch (error) {
    if (error.code !== "invalid_api_key") throw error;
    return settings(true, "key");
  }
  document.title = $("name").textContent = model.id;
  for (const [name, own] of [["temperature", model.meta.temperature], ["repeat_penalty", model.meta.repetition_penalty]]) {
    if (!store.getItem(name)) $(name).value = own;
  }
  tell();
  if (!chat.turns.length) hello();
}

$("composer").onsubmit = (event) => {
  event.preventDefault();
  if (running) return running.abort();
  say($("text").value);
  $("text").value = "";
  fit();
};
$("text").oninput = fit;
$("text").onkeydown = (event) => {
  if (event.key === "ArrowUp" && !$("text").value) {
    event.preventDefault();
    return edit(chat.turns.findLast((turn) => turn.role === "user"));
  }
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!running) $("composer").requestSubmit();
};
$("fresh").onclick = fresh;
$("tune").onclick = () => settings($("settings").hidden);
$("list").onclick = () => aside(!$("side").classList.contains("open"));
$("view").onclick = () => aside(false);
for (const name of ["system", "key", ...tuned]) {
  $(name).value = store.getItem(name) ?? $(name).value;
  $(name).oninput = () => { store.setItem(name, $(name).value); tell(); };
}
$("key").onchange = meet;
$("key").parentElement.hidden = !backend.asksForKey;
addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    running?.abort();
    if (editing) { forgetEdit(); $("text").value = ""; fit(); }
    aside(false);
  }
  if (event.altKey && event.code === "KeyN") { event.preventDefault(); fresh(); }
});

fresh();
meet();
