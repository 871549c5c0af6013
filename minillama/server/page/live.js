// The server now: its slots, its last steps, its metrics. Asked again and again while the panel is open.

import { get, ServerError } from "./server.js";
import { drawSchedule } from "./schedule.js";

const QUICK = 400; // milliseconds between two looks while the server works
const SLOW = 2000;
const NAMES = {
  "llamacpp:predicted_tokens_seconds": "tokens written a second",
  "llamacpp:prompt_tokens_seconds": "prompt tokens a second",
  "llamacpp:tokens_predicted_total": "tokens written",
  "llamacpp:prompt_tokens_total": "prompt tokens read",
  "llamacpp:prompt_tokens_cached_total": "prompt tokens cached",
  "llamacpp:n_busy_slots_per_decode": "slots busy per pass",
  "llamacpp:requests_processing": "requests in slots",
  "llamacpp:requests_deferred": "requests waiting",
};
const slotsArea = document.getElementById("slots");
const metricsArea = document.getElementById("metrics");
const scheduleArea = document.getElementById("schedule");
const refused = new Set(); // areas that the server does not offer

function hint(area, text) {
  const line = document.createElement(area === metricsArea ? "dt" : "p");
  line.className = "hint";
  line.textContent = text;
  area.replaceChildren(line);
}

async function update(path, area, draw, read) {
  if (refused.has(path)) return false;
  try {
    return draw(await get(path, read));
  } catch (error) {
    if (error instanceof ServerError) refused.add(path);
    hint(area, error instanceof ServerError ? error.message : "the server does not answer");
    return false;
  }
}

function part(kind, tokens, slot) {
  const element = document.createElement("span");
  element.className = kind;
  element.style.width = `${(100 * tokens) / slot.n_ctx}%`;
  return element;
}

function drawSlots(slots) {
  slotsArea.replaceChildren(...slots.map(slotElement));
  return slots.some((slot) => slot.is_processing);
}

function slotElement(slot) {
  const line = document.createElement("div");
  line.className = slot.is_processing ? "slot busy" : "slot";
  const [number, bar, count] = ["number", "bar", "count"].map((kind) => {
    const cell = document.createElement("span");
    cell.className = kind;
    return cell;
  });
  const written = slot.next_token?.[0]?.n_decoded ?? 0;
  const tokens = slot.n_prompt_tokens ?? 0;
  number.textContent = slot.id;
  bar.append(part("read", Math.max(tokens - written, 0), slot), part("written", written, slot));
  count.textContent = slot.is_processing ? `${tokens} / ${slot.n_ctx}` : tokens ? `idle, ${tokens}` : "idle";
  line.title = slot.is_processing ? `${written} tokens written` : "no request";
  line.append(number, bar, count);
  return line;
}

function drawMetrics(text) {
  const rows = [];
  for (const line of text.split("\n")) {
    const [name, value] = line.split(" ");
    if (!(name in NAMES)) continue;
    const term = document.createElement("dt");
    const number = document.createElement("dd");
    term.textContent = NAMES[name];
    number.textContent = Number(value).toLocaleString("en", { maximumFractionDigits: 1 });
    rows.push(term, number);
  }
  metricsArea.replaceChildren(...rows);
  return false;
}

async function look() {
  if (document.body.classList.contains("no-live") || document.hidden) return SLOW;
  const busy = await update("slots", slotsArea, drawSlots);
  await update("schedule", scheduleArea, (found) => drawSchedule(scheduleArea, found));
  await update("metrics", metricsArea, drawMetrics, (answer) => answer.text());
  return busy ? QUICK : SLOW;
}

let timer = 0;

export async function watchServer() {
  clearTimeout(timer);
  const pause = await look();
  clearTimeout(timer);
  timer = setTimeout(watchServer, pause);
}

// After a new API key, ask for everything again.
export function forgetRefusals() {
  refused.clear();
}
