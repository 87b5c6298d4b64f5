"""The HTTP application: OpenAI's API and the chat page, on Starlette."""

from __future__ import annotations

import asyncio
import hmac
import json
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from keylm.serve import ollama
from keylm.serve.access import Access, check_is_json
from keylm.serve.admission import AdmissionQueue, Limits, OverloadedError
from keylm.serve.engine import Chunk, Engine, EngineError
from keylm.serve.ollama import OllamaChatRequest
from keylm.serve.schema import Body, ChatCompletionRequest, CompletionRequest, RequestError, model_body

_HEADERS = [
    (b"cache-control", b"no-store"),
    # Nothing here is a script, a style or a picture of another site's page.
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
    # The page talks to this server alone.
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
]
_PAGE = {"/": ("index.html", "html"), "/chat.js": ("chat.js", "javascript"), "/model.js": ("server.js", "javascript")}
"""Paths of the chat page, with the files in `page/` and their types."""

_CLIENT_CLOSED_REQUEST = 499
"""nginx's status for a client that left. Only the metrics show it."""


class App(Starlette):
    """Answers HTTP requests that have `access`. With an `api_key`, all but the page and `/health` ask for it."""

    def __init__(self, engine: Engine, limits: Limits, access: Access, api_key: str | None = None) -> None:
        self.engine = engine
        self.access = access
        self.limits = limits
        self.admission = AdmissionQueue(limits)
        self.num_held_bytes = 0
        # One thread more than answers: when a client leaves, its thread is busy until llama.cpp's next token.
        self.threads = ThreadPoolExecutor(limits.answers + 1, "answer")
        self._api_key = api_key
        self._created = int(time.time())
        self._num_responses: Counter[int] = Counter()
        page = resources.files("keylm.serve") / "page"
        super().__init__(
            routes=[
                *(
                    Route(path, Response((page / name).read_bytes(), media_type=f"text/{subtype}"), methods=["GET"])
                    for path, (name, subtype) in _PAGE.items()
                ),
                Route("/health", _json_response({"status": "ok"}), methods=["GET"]),
                Route("/metrics", self._metrics),
                Route("/v1/models", self._models),
                Route("/v1/models/", self._models),
                Route("/v1/models/{name:path}", self._model),
                Route("/v1/chat/completions", partial(self._complete, ChatCompletionRequest), methods=["POST"]),
                Route("/v1/completions", partial(self._complete, CompletionRequest), methods=["POST"]),
                Route("/api/chat", partial(self._complete, OllamaChatRequest), methods=["POST"]),
                Route("/api/tags", self._tags),
                Route("/api/version", _json_response({"version": ollama.VERSION}), methods=["GET"]),
            ],
            middleware=[
                Middleware(
                    CORSMiddleware,
                    allow_origins=access.origins,
                    allow_methods=["GET", "POST"],
                    allow_headers=["Authorization", "Content-Type"],
                )
            ]
            if access.origins
            else [],
            exception_handlers={
                RequestError: _refuse,
                HTTPException: _refuse_route,
                ClientDisconnect: lambda _request, _error: Response(status_code=_CLIENT_CLOSED_REQUEST),
                Exception: _report_failure,
            },
        )
        self.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that has access, add the headers that every response has, and count the response."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._num_responses[message["status"]] += 1
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        try:
            self.access.check(Headers(scope=scope))
        except RequestError as error:
            await _refuse(Request(scope), error)(scope, receive, send_with_headers)
            return
        await super().__call__(scope, receive, send_with_headers)

    async def _complete(
        self, request_type: type[ChatCompletionRequest | CompletionRequest], _request: Request
    ) -> Response:
        return CompletionResponse(self, request_type)

    async def _models(self, request: Request) -> Response:
        self._check_key(request)
        return _json_response({"object": "list", "data": [model_body(self.engine.header, self._created)]})

    async def _model(self, request: Request) -> Response:
        self._check_key(request)
        name = request.path_params["name"]
        if name != self.engine.header.name:
            message = f"there is no model `{name:.100}`: `{self.engine.header.name}` is served"
            raise RequestError(HTTPStatus.NOT_FOUND, message, "model_not_found", "model")
        return _json_response(model_body(self.engine.header, self._created))

    async def _tags(self, request: Request) -> Response:
        self._check_key(request)
        return _json_response(await asyncio.to_thread(ollama.tags_body, self.engine))

    def _metrics(self, request: Request) -> Response:
        """Return llama.cpp's counters and the server's, in Prometheus's text format."""
        self._check_key(request)
        responses = "".join(
            f'keylm:responses_total{{status="{status}"}} {count}\n'
            for status, count in sorted(self._num_responses.items())
        )
        try:
            engine_metrics, responds = self.engine.metrics(), 1
        except EngineError:  # the server's own counters are wanted most when llama.cpp is stuck
            engine_metrics, responds = "", 0
        metrics = (
            f"{engine_metrics}"
            "# HELP keylm:llama_responds Whether llama.cpp gave its counters, above, in time.\n"
            f"# TYPE keylm:llama_responds gauge\nkeylm:llama_responds {responds}\n"
            f"# HELP keylm:responses_total HTTP responses by status.\n# TYPE keylm:responses_total counter\n{responses}"
            "# HELP keylm:answers_running Answers in progress.\n# TYPE keylm:answers_running gauge\n"
            f"keylm:answers_running {self.admission.running}\n"
            "# HELP keylm:requests_waiting Requests in the queue.\n# TYPE keylm:requests_waiting gauge\n"
            f"keylm:requests_waiting {self.admission.waiting}\n"
        )
        return Response(metrics, media_type="text/plain; version=0.0.4")

    def _check_key(self, request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self._api_key and not hmac.compare_digest(given.encode(), self._api_key.encode()):
            raise RequestError(HTTPStatus.UNAUTHORIZED, "this server asks for its API key", "invalid_api_key")

    @asynccontextmanager
    async def hold_body(self, request: Request) -> AsyncIterator[bytearray]:
        """Read the body of a request that has the key, and hold it until the block ends.

        Raises:
            RequestError: The key is wrong, the body is not JSON, too long or too slow, or too much is held already.
        """
        body = bytearray()
        try:
            await self._read_body(request, body)
            yield body
        finally:
            self.num_held_bytes -= len(body)

    async def _read_body(self, request: Request, body: bytearray) -> None:
        refusal = None
        try:
            self._check_key(request)
            check_is_json(request.headers)
        except RequestError as error:
            refusal = error
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                # A body is read even if it is refused: a client that is still sending would never see the refusal.
                async for piece in request.stream():
                    refusal = refusal or self._refuse_length(len(body) + len(piece), len(piece))
                    if not refusal:
                        self.num_held_bytes += len(piece)
                        body += piece
        except TimeoutError as error:
            raise RequestError(HTTPStatus.REQUEST_TIMEOUT, "the body took too long to arrive") from error
        if refusal:
            raise refusal

    def _refuse_length(self, num_bytes: int, num_new_bytes: int) -> RequestError | None:
        if num_bytes > self.limits.body_bytes:
            message = f"the body is over {self.limits.body_bytes:,} bytes"
            return RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)
        is_long = num_bytes > self.limits.short_body_bytes
        if is_long and self.num_held_bytes + num_new_bytes > self.limits.held_bytes:
            return OverloadedError("too many long requests are waiting: try again later")
        return None


class CompletionResponse(Response):
    """The response to a completion request. The answer is generated while it is sent, and ends if the client leaves."""

    def __init__(self, app: App, request_type: type[ChatCompletionRequest | CompletionRequest]) -> None:
        super().__init__()
        self._app = app
        self._request_type = request_type

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the request, wait for admission, and send the answer, as a whole or as a stream of events.

        Raises:
            RequestError: There is no answer, and nothing has been sent.
        """

        async def wait_for_disconnect() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        async with self._app.hold_body(Request(scope, receive)) as body:
            answer = asyncio.create_task(self._answer(body, scope, receive, send))
            disconnect = asyncio.create_task(wait_for_disconnect())
            try:
                await asyncio.wait((answer, disconnect), return_when=asyncio.FIRST_COMPLETED)
                if answer.done():
                    answer.result()
            finally:
                answer.cancel()
                disconnect.cancel()

    async def _answer(self, body: bytearray, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app

        def parse() -> tuple[ChatCompletionRequest | CompletionRequest, list[Body]]:
            request = self._request_type.parse(body)
            return request, request.to_llama(app.engine)

        async with app.admission.enter():
            # In a thread, so that other answers go on. Only what is admitted is worked on.
            self._request, self._llama_requests = await asyncio.to_thread(parse)
            await (self._stream(scope, send) if self._request.stream else self._send(scope, receive, send))

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        chunks: list[Chunk] = []

        async def collect(batch: list[Chunk]) -> None:
            chunks.extend(batch)

        await self._generate(collect)
        await _json_response(self._request.to_response(chunks))(scope, receive, send)

    async def _stream(self, scope: Scope, send: Send) -> None:
        all_chunks: list[Chunk] = []

        request = self._request

        async def send_events(*events: Body) -> None:
            texts = (f"{request.event_prefix}{json.dumps(event)}{request.event_suffix}" for event in events)
            await send({"type": "http.response.body", "body": "".join(texts).encode(), "more_body": True})

        async def send_chunks(batch: list[Chunk]) -> None:
            # The status waits for the first chunk, so that a request that llama.cpp refuses gets an error status.
            if not all_chunks:
                headers = [(b"content-type", request.media_type.encode())]
                await send({"type": "http.response.start", "status": HTTPStatus.OK, "headers": headers})
            events = []
            for chunk in batch:
                is_first = not all_chunks or all_chunks[-1]["choices"][0]["index"] != chunk["choices"][0]["index"]
                events += [*(request.opening_events(chunk) if is_first else []), request.to_event(chunk)]
                all_chunks.append(chunk)
            await send_events(*events)

        try:
            await self._generate(send_chunks)
            await send_events(*request.closing_events(all_chunks))
        except RequestError as error:
            if not all_chunks:
                raise
            await send_events(_error_body(error, scope))
        await send({"type": "http.response.body", "body": request.end_of_stream.encode()})

    async def _generate(self, on_chunks: Callable[[list[Chunk]], Awaitable[None]]) -> None:
        """Have the engine answer prompt after prompt, and pass the chunks to `on_chunks`.

        Raises:
            RequestError: llama.cpp refuses the request or was stuck, or the answers take too long.
        """
        try:
            async with asyncio.timeout(self._app.limits.answer_seconds):
                for index, request in enumerate(self._llama_requests):
                    await self._generate_one(index, request, on_chunks)
        except TimeoutError as error:
            message = f"the answer took over {self._app.limits.answer_seconds:g} s"
            raise RequestError(HTTPStatus.GATEWAY_TIMEOUT, message, "timeout") from error
        except EngineError as error:
            raise _engine_failure(error) from error

    async def _generate_one(
        self, index: int, request: Body, on_chunks: Callable[[list[Chunk]], Awaitable[None]]
    ) -> None:
        """Have the engine answer in a thread, and pass its chunks to `on_chunks` in the event loop.

        Chunks that come while others are being sent are passed together: the event loop then wakes up once for them.
        """
        app, loop = self._app, asyncio.get_running_loop()
        chunks: deque[Chunk] = deque()
        has_chunks, is_over = asyncio.Event(), threading.Event()

        def enqueue(chunk: Chunk) -> bool:
            chunks.append(chunk)
            if len(chunks) == 1:  # otherwise the event loop has been woken up already
                loop.call_soon_threadsafe(has_chunks.set)
            return is_over.is_set()

        try:
            answer = loop.run_in_executor(
                app.threads, self._request.answer, app.engine, request, enqueue, is_over.is_set
            )
            answer.add_done_callback(lambda _: has_chunks.set())
            while not answer.done() or chunks:
                await has_chunks.wait()
                has_chunks.clear()
                batch = [chunks.popleft() for _ in range(len(chunks))]
                for chunk in batch:
                    if refusal := chunk.get("error"):
                        is_too_long = refusal["type"] == "exceed_context_size_error"
                        code = "context_length_exceeded" if is_too_long else None
                        # The engine knows one field that asks for a schema, and requests have several.
                        param = refusal.get("param") and self._request.response_schema()[0]
                        raise RequestError(refusal["code"], refusal["message"], code, param)
                    chunk["choices"][0]["index"] = index
                if batch:
                    await on_chunks(batch)
            await answer
        finally:
            is_over.set()  # where the answer is cut short, llama.cpp stops at its next token


def _engine_failure(error: EngineError) -> RequestError:
    return RequestError(HTTPStatus.SERVICE_UNAVAILABLE, str(error), "engine_restarted")


def _error_body(error: RequestError, scope: Scope) -> Body:
    """The body of a refusal in the shape of the API that was asked."""
    return {"error": str(error)} if scope["path"].startswith("/api/") else error.body()


def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    headers = {"Connection": "close"}  # the rest of the request may not have been read
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = "5"
    return _json_response(_error_body(error, request.scope), error.status, headers)


def _refuse_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = _refuse(request, RequestError(error.status_code, f"there is no {request.method} {request.url.path}"))
    response.headers.update(error.headers or {})  # `Allow`, where the path has other methods
    return response


def _report_failure(request: Request, _error: Exception) -> Response:
    # uvicorn logs the traceback.
    return _refuse(request, RequestError(HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed: its log says why"))


def _json_response(value: Any, status: int = HTTPStatus.OK, headers: dict[str, str] | None = None) -> Response:
    # Starlette's JSONResponse fails on lone surrogates, which the message of an error may quote.
    return Response(json.dumps(value), status, headers, media_type="application/json")
