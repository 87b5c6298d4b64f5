// Keeps the page's files, so that it opens without a network. `VERSION` and `FILES` are set above, at export.
const scope = registration.scope;
const name = `${scope} ${VERSION}`;

async function keep() {
  const cache = await caches.open(name);
  await cache.addAll(FILES.map((file) => new Request(file, { cache: "no-cache" })));
  await skipWaiting();
}

async function forgetOthers() {
  const others = (await caches.keys()).filter((other) => other.startsWith(`${scope} `) && other !== name);
  await Promise.all(others.map((other) => caches.delete(other)));
  await clients.claim();
}

async function answer(request) {
  const cache = await caches.open(name);
  return await cache.match(request.mode === "navigate" ? "./" : request) ?? fetch(request);
}

addEventListener("install", (event) => event.waitUntil(keep()));
addEventListener("activate", (event) => event.waitUntil(forgetOthers()));
addEventListener("fetch", (event) => event.respondWith(answer(event.request)));
