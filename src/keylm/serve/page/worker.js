// Stores the page's files, so that it opens without a network. The export defines `VERSION` and `FILES` above.
const scope = registration.scope;
const name = `${scope} ${VERSION}`;

async function storeFiles() {
  const cache = await caches.open(name);
  await Promise.all(FILES.map((file) => storeFile(cache, file)));
  await skipWaiting();
}

// The version in the address keeps caches on the way from answering with the file of another export.
async function storeFile(cache, file) {
  const response = await fetch(`${file}?${VERSION}`, { cache: "no-store" });
  if (!response.ok) throw new Error(`${file}: ${response.status}`);
  await cache.put(file, response);
}

async function deleteOtherVersions() {
  const others = (await caches.keys()).filter((other) => other.startsWith(`${scope} `) && other !== name);
  await Promise.all(others.map((other) => caches.delete(other)));
  await clients.claim();
}

// Not by `caches.open`: a worker that is being replaced would create its cache again, and leave it for good.
async function answer(request) {
  return await caches.match(request.mode === "navigate" ? "./" : request, { cacheName: name }) ?? fetch(request);
}

addEventListener("install", (event) => event.waitUntil(storeFiles()));
addEventListener("activate", (event) => event.waitUntil(deleteOtherVersions()));
addEventListener("fetch", (event) => event.respondWith(answer(event.request)));
