// Requests to the server: JSON, and streams of server-sent events. Addresses are relative to the page.

export class ServerError extends Error {}

let apiKey = "";

export function setApiKey(key) {
  apiKey = key;
}

function headers(more = {}) {
  return apiKey ? { ...more, Authorization: `Bearer ${apiKey}` } : more;
}

async function refuse(answer) {
  const body = await answer.json().catch(() => null);
  throw new ServerError(body?.error?.message ?? `HTTP ${answer.status}`);
}

export async function get(path, read = (answer) => answer.json()) {
  const answer = await fetch(path, { headers: headers() });
  if (!answer.ok) await refuse(answer);
  return read(answer);
}

// Yields the object of each event of a POST request.
export async function* events(path, body, signal) {
  const answer = await fetch(path, {
    method: "POST",
    headers: headers({ "Content-Type": "application/json" }),
    body: JSON.stringify({ ...body, stream: true }),
    signal,
  });
  if (!answer.ok) await refuse(answer);
  let rest = "";
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      if (!block.startsWith("data: ")) continue;
      const data = block.slice(6);
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new ServerError(event.error.message);
      yield event;
    }
  }
}
