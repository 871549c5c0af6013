// The last steps of the scheduler as a chart: a line for each slot, time to the right.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 280;
const LINE = 12;
const LEFT = 14;
const SPAN = 4; // seconds that are shown
const FEWEST = 48; // steps that are shown also where they take longer

function element(kind, attributes) {
  const found = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) found.setAttribute(name, value);
  return found;
}

function box(slot, left, width, kind, title) {
  const rect = element("rect", { x: left, y: slot * LINE + 2, width: Math.max(width, 0.5), height: LINE - 4, class: kind });
  const text = element("title", {});
  text.textContent = title;
  rect.append(text);
  return rect;
}

function legend(shown, waiting) {
  const line = document.createElement("p");
  line.className = "legend";
  for (const [kind, name] of [["prompt", "prompt"], ["decode", "token"]]) {
    const key = document.createElement("span");
    key.className = `key ${kind}`;
    line.append(key, name);
  }
  line.append(` · ${shown.toFixed(1)} s · ${waiting} waiting`);
  return line;
}

export function drawSchedule(area, { slots, steps }) {
  const last = steps.at(-1);
  const end = last ? last.began_s + last.ms / 1e3 : 1;
  const shown = steps.filter((step, at) => step.began_s > end - SPAN || at >= steps.length - FEWEST);
  const start = shown[0]?.began_s ?? 0;
  const scale = (WIDTH - LEFT) / Math.max(end - start, 1e-3);
  const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${slots * LINE + 2}`, role: "img" });
  svg.setAttribute("aria-label", `the last ${shown.length} steps of ${slots} slots`);
  for (let slot = 0; slot < slots; slot++) {
    const label = element("text", { x: 2, y: (slot + 1) * LINE - 3 });
    label.textContent = slot;
    svg.append(label);
  }
  for (const step of shown) {
    const left = LEFT + (step.began_s - start) * scale;
    const width = (step.ms / 1e3) * scale;
    for (const row of step.rows) {
      svg.append(box(row.slot, left, width, "row", `step ${step.number}: request ${row.request}, ${step.ms.toFixed(1)} ms`));
    }
    if (step.chunk) {
      const { slot, request, start: from, tokens } = step.chunk;
      const title = `step ${step.number}: request ${request}, prompt ${from} to ${from + tokens}, ${step.ms.toFixed(1)} ms`;
      svg.append(box(slot, left, width, "chunk", title));
    }
  }
  area.replaceChildren(svg, legend(end - start, last?.waiting ?? 0));
  return false;
}
