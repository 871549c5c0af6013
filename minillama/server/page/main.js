// The page: messages, the form, the settings.

import { chatPieces, textPieces } from "./answer.js";
import { Conversations } from "./conversations.js";
import { forgetRefusals, watchServer } from "./live.js";
import { get, setApiKey } from "./server.js";
import { load, save } from "./storage.js";
import { tokenElement, watchTokens } from "./tokens.js";

const find = (id) => document.getElementById(id);
const [messages, input, settingsForm] = ["messages", "input", "settings"].map(find);
const DEFAULTS = { alternatives: "5", shade: false };
let settings = { ...DEFAULTS, ...load("settings", {}) };
let running = null; // the AbortController of the answer that is being written

// ---- messages ----

function addMessage(role, text = "") {
  find("welcome").hidden = true;
  const element = document.createElement("div");
  element.className = `message ${role}`;
  element.textContent = text;
  messages.append(element);
  return element;
}

function addThoughts(message) {
  const details = document.createElement("details");
  const summary = document.createElement("summary");
  summary.textContent = "Thoughts";
  details.append(summary);
  details.open = true;
  message.prepend(details);
  return details;
}

function showConversation(conversation) {
  running?.abort();
  messages.querySelectorAll(".message").forEach((each) => each.remove());
  find("welcome").hidden = conversation.messages.length > 0;
  setMode(conversation.mode);
  for (const { role, content } of conversation.messages) addMessage(role, content);
}

function describe(facts) {
  if (!facts) return "";
  const read = `${facts.read} prompt tokens${facts.cached ? ` and ${facts.cached} cached` : ""}`;
  return `${read} in ${facts.promptMs.toFixed(0)} ms · ${facts.written} tokens · ${facts.speed.toFixed(1)} tokens/s`;
}

// Write an answer piece by piece; returns its text.
async function write(pieces, message) {
  let text = "";
  let thoughts = null;
  let facts = null;
  try {
    for await (const piece of pieces) {
      const isAtEnd = messages.scrollHeight - messages.scrollTop - messages.clientHeight < 60;
      facts = piece.facts ?? facts;
      if (piece.thought) {
        thoughts ??= addThoughts(message);
        thoughts.append(tokenElement({ ...piece, text: piece.thought }));
      }
      if (piece.text) message.append(tokenElement(piece));
      text += piece.text;
      find("speed").textContent = facts ? `${facts.speed.toFixed(1)} tokens/s` : "";
      if (isAtEnd) messages.scrollTop = messages.scrollHeight;
    }
  } catch (error) {
    if (error.name !== "AbortError") addLine(message, "error", error.message);
  }
  addLine(message, "facts", describe(facts));
  return text;
}

function addLine(message, kind, text) {
  const line = document.createElement("p");
  line.className = kind;
  line.textContent = text;
  message.append(line);
}

async function send(text) {
  const conversation = conversations.current;
  const mode = document.querySelector("[name=mode]:checked").value;
  const controller = new AbortController();
  running = controller;
  showRunning(true);
  conversation.mode = mode;
  conversation.messages.push({ role: "user", content: text });
  if (mode === "chat") addMessage("user", text);
  const message = addMessage("assistant");
  if (mode === "text") message.append(promptElement(text));
  const pieces =
    mode === "chat"
      ? chatPieces(conversation.messages, settings, controller.signal)
      : textPieces(text, settings, controller.signal);
  const answer = await write(pieces, message);
  if (answer) conversation.messages.push({ role: "assistant", content: answer });
  conversations.keep();
  if (running === controller) {
    running = null;
    showRunning(false);
  }
}

function promptElement(text) {
  const element = document.createElement("span");
  element.className = "prompt-text";
  element.textContent = text;
  return element;
}

function showRunning(isRunning) {
  find("send").hidden = isRunning;
  find("stop").hidden = !isRunning;
  if (isRunning) watchServer();
}

function setMode(mode) {
  document.querySelector(`[name=mode][value=${mode}]`).checked = true;
  input.placeholder = mode === "chat" ? "Type a message …" : "Type the beginning of a text …";
}

// ---- settings ----

function fillSettings() {
  for (const field of settingsForm.elements) {
    if (field.type === "checkbox") field.checked = Boolean(settings[field.name]);
    else field.value = settings[field.name] ?? "";
  }
  messages.classList.toggle("shade", Boolean(settings.shade));
  setApiKey(settings.api_key ?? "");
}

function readSettings(event) {
  const field = event.target;
  settings = { ...settings, [field.name]: field.type === "checkbox" ? field.checked : field.value };
  save("settings", settings);
  fillSettings();
  if (field.name === "api_key") {
    forgetRefusals();
    showModel();
  }
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
}

async function showModel() {
  try {
    const props = await get("props");
    const name = props.model_alias || props.model_path.split("/").at(-1);
    find("model-name").textContent = name;
    find("model-facts").textContent =
      `${props.total_slots} slots of ${props.default_generation_settings.n_ctx} tokens · ${props.build_info}`;
    document.title = `${name} – minillama`;
    const defaults = props.default_generation_settings.params ?? {};
    for (const field of settingsForm.elements) {
      if (field.name in defaults) field.placeholder = Math.round(1e4 * defaults[field.name]) / 1e4;
    }
  } catch (error) {
    find("model-name").textContent = error.message;
    setTimeout(showModel, 1000);
  }
}

// ---- events ----

const conversations = new Conversations(showConversation);

find("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = input.value;
  if (running || !text.trim()) return;
  input.value = "";
  send(text);
});
input.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    find("composer").requestSubmit();
  }
});
find("stop").addEventListener("click", () => running?.abort());
find("new-chat").addEventListener("click", () => conversations.start(conversations.current.mode));
find("composer").addEventListener("change", (event) => event.target.name === "mode" && setMode(event.target.value));
settingsForm.addEventListener("change", readSettings);
settingsForm.addEventListener("submit", (event) => event.preventDefault());
find("show-settings").addEventListener("click", (event) => {
  settingsForm.hidden = !settingsForm.hidden;
  event.currentTarget.setAttribute("aria-expanded", String(!settingsForm.hidden));
});
find("show-live").addEventListener("click", (event) => {
  const isHidden = document.body.classList.toggle("no-live");
  event.currentTarget.setAttribute("aria-expanded", String(!isHidden));
  watchServer();
});
find("theme").addEventListener("click", () => {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  setTheme(theme);
  save("theme", theme);
});

setTheme(load("theme", matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
if (matchMedia("(max-width: 60rem)").matches) document.body.classList.add("no-live");
fillSettings();
watchTokens(messages);
showModel();
watchServer();
