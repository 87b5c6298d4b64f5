// The model behind `keylm serve`: OpenAI's API over HTTP.

/** Whether the model may need an API key. */
export const needsKey = true;

/** Return the description in `GET /v1/models`. */
export async function connect({ key }) {
  const response = await checkStatus(await fetch("v1/models", { headers: authorization(key) }));
  return (await response.json()).data[0];
}

/** Stream the answer to `messages` as OpenAI's chunks; the last has llama.cpp's `timings`. */
export async function* ask(messages, parameters, { key, signal }) {
  const headers = { "Content-Type": "application/json", ...authorization(key) };
  const body = JSON.stringify({ messages, stream: true, ...parameters });
  const response = await checkStatus(await fetch("v1/chat/completions", { method: "POST", headers, body, signal }));
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

async function checkStatus(response) {
  if (!response.ok) throw (await response.json()).error;
  return response;
}

function authorization(key) {
  return key ? { Authorization: `Bearer ${key}` } : {};
}
