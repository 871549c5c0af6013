// Conversations and settings in the browser's own storage; the page works without it, too.

const memory = new Map();

export function load(name, fallback) {
  try {
    return JSON.parse(localStorage.getItem(`minillama.${name}`)) ?? fallback;
  } catch {
    return memory.get(name) ?? fallback;
  }
}

export function save(name, value) {
  memory.set(name, value);
  try {
    localStorage.setItem(`minillama.${name}`, JSON.stringify(value));
  } catch {
    // no room, or storage is off: this page keeps it until it is closed
  }
}
