// Tokens on the page, and the card with the alternatives of the token under the pointer.

const card = document.getElementById("alternatives");
const known = new WeakMap(); // token element -> its probabilities

export function tokenElement(piece) {
  const element = document.createElement("span");
  element.className = "token";
  element.textContent = piece.text;
  if (piece.probs) {
    known.set(element, piece.probs);
    element.dataset.probs = piece.probs.prob.toFixed(3);
    element.style.setProperty("--prob", piece.probs.prob);
  }
  return element;
}

// Blanks and line ends as visible signs.
export function visible(text) {
  return text.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥") || "∅";
}

function row(text, prob, taken) {
  const line = document.createElement("div");
  line.className = taken ? "alternative taken" : "alternative";
  for (const name of ["piece", "bar", "share"]) {
    const cell = document.createElement("span");
    cell.className = name;
    line.append(cell);
  }
  const [piece, bar, share] = line.children;
  piece.textContent = visible(text);
  bar.style.width = `${100 * prob}%`;
  share.textContent = `${(100 * prob).toFixed(1)} %`;
  return line;
}

function show(element) {
  const { token, id, prob, alternatives } = known.get(element);
  const isListed = alternatives.some((each) => each[2] === id);
  const rows = alternatives.map(([text, each, other]) => row(text, each, other === id));
  card.replaceChildren(...rows, ...(isListed ? [] : [row(token, prob, true)]));
  card.hidden = false;
  const place = element.getBoundingClientRect();
  const left = Math.min(place.left, innerWidth - card.offsetWidth - 12);
  const above = place.top - card.offsetHeight - 6;
  card.style.left = `${Math.max(left, 6)}px`;
  card.style.top = `${above > 6 ? above : place.bottom + 6}px`;
}

function follow(event) {
  const element = event.target.closest?.(".token[data-probs]");
  if (element && known.has(element)) show(element);
  else card.hidden = true;
}

export function watchTokens(area) {
  area.addEventListener("pointerover", follow);
  area.addEventListener("click", follow);
  area.addEventListener("pointerleave", () => (card.hidden = true));
  area.addEventListener("scroll", () => (card.hidden = true));
}
