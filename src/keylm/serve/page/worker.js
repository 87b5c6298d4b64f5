// Keeps the page's files, so that it opens without a network. `VERSION` and `FILES` are set above, at export.
const scope = registration.scope;
const name = `${scope} ${VERSION}`;

async function keep() {
  const cache = await caches.open(name);
  await Promise.all(FILES.map((file) => keepOne(cache, file)));
  await skipWaiting();
}

// The version in the address keeps everybody on the way from answering with the file of another export.
async function keepOne(cache, file) {
  const response = await fetch(`${file}?${VERSION}`, { cache: "no-store" });
  if (!response.ok) throw new Error(`${file}: ${response.status}`);
  await cache.put(file, response);
}

async function forgetOthers() {
  const others = (await caches.keys()).filter((other) => other.startsWith(`${scope} `) && other !== name);
  await Promise.all(others.map((other) => caches.delete(other)));
  await clients.claim();
}

// Not by `caches.open`: a worker on its way out would make its cache anew, and leave it for good.
async function answer(request) {
  return await caches.match(request.mode === "navigate" ? "./" : request, { cacheName: name }) ?? fetch(request);
}

addEventListener("install", (event) => event.waitUntil(keep()));
addEventListener("activate", (event) => event.waitUntil(forgetOthers()));
addEventListener("fetch", (event) => event.respondWith(answer(event.request)));
