// The model behind a server: OpenAI's API over HTTP, as `keylm serve` speaks it.

/** Whether those who ask may have to show a key. */
export const asksForKey = true;

/** The model as `GET /v1/models` describes it. */
export async function meet({ key }) {
  const response = await checked(await fetch("v1/models", { headers: bearer(key) }));
  return (await response.json()).data[0];
}

/** The answer to `messages` as it comes, in OpenAI's chunks; the last has llama.cpp's `timings`. */
export async function* ask(messages, parameters, { key, signal }) {
  const headers = { "Content-Type": "application/json", ...bearer(key) };
  const body = JSON.stringify({ messages, stream: true, ...parameters });
  const response = await checked(await fetch("v1/chat/completions", { method: "POST", headers, body, signal }));
  let rest = "";
  for (const reader = response.body.pipeThrough(new TextDecoderStream()).getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      if (event === "data: [DONE]") return;
      const data = JSON.parse(event.slice("data: ".length));
      if (data.error) throw data.error;
      yield data;
    }
  }
}

async function checked(response) {
  if (!response.ok) throw (await response.json()).error;
  return response;
}

function bearer(key) {
  return key ? { Authorization: `Bearer ${key}` } : {};
}
