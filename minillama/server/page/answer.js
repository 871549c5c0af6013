// One answer: the request, and its events as pieces {text, thought, probs, facts}.

import { events } from "./server.js";

// The sampling fields of a request; empty settings are left to the server.
function sampling(settings) {
  const names = ["temperature", "top_k", "top_p", "min_p", "max_tokens", "seed"];
  const given = names.filter((name) => settings[name] !== "" && settings[name] !== undefined);
  return Object.fromEntries(given.map((name) => [name, Number(settings[name])]));
}

function facts(timings) {
  if (!timings) return null;
  const { prompt_n, cache_n, prompt_ms, predicted_n, predicted_per_second } = timings;
  return { read: prompt_n, cached: cache_n ?? 0, promptMs: prompt_ms, written: predicted_n, speed: predicted_per_second };
}

// Probabilities of an entry: [[text, probability], ...], the sampled token first.
function probs(entry) {
  if (!entry) return null;
  const alternatives = entry.top_logprobs.map((each) => [each.token, Math.exp(each.logprob), each.id]);
  return { token: entry.token, id: entry.id, prob: Math.exp(entry.logprob), alternatives };
}

export async function* chatPieces(messages, settings, signal) {
  const system = settings.system ? [{ role: "system", content: settings.system }] : [];
  const count = Number(settings.alternatives) || 0;
  const body = {
    messages: [...system, ...messages],
    timings_per_token: true,
    ...sampling(settings),
    ...(count ? { logprobs: true, top_logprobs: count } : {}),
  };
  for await (const event of events("v1/chat/completions", body, signal)) {
    const choice = event.choices?.[0];
    const delta = choice?.delta ?? {};
    yield {
      text: delta.content ?? "",
      thought: delta.reasoning_content ?? "",
      probs: probs(choice?.logprobs?.content?.[0]),
      facts: facts(event.timings),
    };
  }
}

export async function* textPieces(prompt, settings, signal) {
  const body = { prompt, timings_per_token: true, n_probs: Number(settings.alternatives) || 0, ...sampling(settings) };
  for await (const event of events("completion", body, signal)) {
    const entry = event.stop ? null : event.completion_probabilities?.[0];
    yield { text: event.content ?? "", thought: "", probs: probs(entry), facts: facts(event.timings) };
  }
}
