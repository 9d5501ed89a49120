"""The admin API over HTTP: JSON, and /metrics as Prometheus reads it.

    GET   /metrics
    GET   /status
    GET   /queues     customer domain limit
    GET   /paths      vmta destination limit
    GET   /messages   customer domain pool limit      GET /messages/ID
    GET   /explain    domain vmta customer
    GET   /rules      domain vmta
    POST  /reload     {}
    POST  /drain      {"on": true}
    POST  /retry      {"id": ID}
    POST  /rules/cancel {"key": KEY}

A POST wants `Content-Type: application/json`, which a browser sends to a stranger's server only after
asking it; so a web page that an operator looks at can't reload the engine behind his back.

Owns: paths, parameters, the form of answers and errors ({"error": text}).
Never: knows how an answer is found.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from engine.admin.engine import Answers, Engine
from engine.admin.merge import add_counts, merge_rows, merge_rules
from engine.admin.parameters import DEFAULT_LIMIT, parse_limit, parse_message_id
from engine.core.errors import ConfigError
from engine.telemetry.log import Log

MAX_BODY_BYTES = 64 * 1024  # of a POST; the largest that makes sense is a few dozen octets
SHUTDOWN_S = 1.0  # for answers in flight when the engine stops

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# what -> (criteria, key of rows, order of rows)
_TABLES: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "queues": (("customer", "domain", "pool"), ("customer", "domain"), ("-messages", "customer", "domain")),
    "paths": (("vmta", "destination", "pool"), (), ("vmta", "destination")),
    "messages": (("customer", "domain", "pool"), (), ("due_at",)),
}
_EXPLAIN = ("domain", "vmta", "customer")
_RULES = ("domain", "vmta")

log = Log("admin")


class AdminServer:
    """Serves the API on one listening socket."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._runner: web.AppRunner | None = None
        self._site: web.SockSite | None = None

    async def open(self, listener: socket.socket) -> None:
        """Serve on `listener`; a second call moves there, answers in flight are finished."""
        if self._runner is None:
            self._runner = web.AppRunner(
                self._make_application(), access_log=None, shutdown_timeout=SHUTDOWN_S
            )
            await self._runner.setup()
        before, self._site = self._site, web.SockSite(self._runner, listener)
        await self._site.start()
        if before is not None:
            await before.stop()

    async def close(self) -> None:
        """Finish answers in flight and stop."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = self._site = None

    def _make_application(self) -> web.Application:
        application = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_answer_errors])
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/status", self._status)
        for what in _TABLES:
            application.router.add_get(f"/{what}", self._table)
        application.router.add_get("/messages/{id}", self._message)
        application.router.add_get("/explain", self._explain)
        application.router.add_get("/rules", self._rules)
        application.router.add_post("/reload", self._reload)
        application.router.add_post("/drain", self._drain)
        application.router.add_post("/retry", self._retry)
        application.router.add_post("/rules/cancel", self._cancel_rule)
        return application

    # -- looking ---------------------------------------------------------------------------

    async def _metrics(self, _request: web.Request) -> web.Response:
        text, content_type = await self._engine.format_metrics()
        return web.Response(body=text, headers={"Content-Type": content_type})

    async def _status(self, request: web.Request) -> web.Response:
        _read_criteria(request, ())
        answers = await self._engine.ask("status", {}, 0)
        status = self._engine.describe()
        for shard in status.get("shards", ()):
            shard["counts"] = answers.results.get(shard.get("shard"))
        counts = add_counts([each for each in answers.results.values() if isinstance(each, dict)])
        return _json({**status, "counts": counts, **_unanswered(answers)})

    async def _table(self, request: web.Request) -> web.Response:
        what = request.path.strip("/")
        names, key, order = _TABLES[what]
        criteria, limit = _read_criteria(request, names)
        answers = await self._engine.ask(what, criteria, limit)
        rows, is_whole = merge_rows(answers.results, key, order, limit)
        return _json({what: rows, "is_whole": is_whole, **_unanswered(answers)})

    async def _message(self, request: web.Request) -> web.Response:
        message_id = _read_id(request.match_info["id"])
        answers = await self._engine.ask("message", {"id": message_id}, 1)
        found = [{**answer, "shard": shard} for shard, answer in answers.results.items() if answer]
        if not found:
            return _not_found(message_id, answers)
        return _json(found[0])

    async def _explain(self, request: web.Request) -> web.Response:
        criteria, _limit = _read_criteria(request, _EXPLAIN)
        if "domain" not in criteria:
            raise _Wrong("expected domain=NAME, the recipient domain to explain")
        answers = await self._engine.ask("explain", criteria, 1)
        found = list(answers.results.values())
        if found:  # shards agree on everything but their own paths
            whole = {**found[0]}
            if "paths" in whole:
                whole["paths"] = [path for answer in found for path in answer.get("paths", ())]
            if "rules" in whole:
                whole |= merge_rules(found)
            return _json(whole, 422 if "error" in whole else 200)
        return _json({"error": "no shard is up", **_unanswered(answers)}, 503)

    async def _rules(self, request: web.Request) -> web.Response:
        criteria, _limit = _read_criteria(request, _RULES)
        answers = await self._engine.ask("rules", criteria, 1)
        found = [answer for answer in answers.results.values() if "error" not in answer]
        if not found:
            wrong = next(iter(answers.results.values()), None)
            return _json(wrong or {"error": "no shard is up", **_unanswered(answers)}, 422 if wrong else 503)
        return _json({**merge_rules(found), **_unanswered(answers)})

    # -- steering --------------------------------------------------------------------------

    async def _reload(self, request: web.Request) -> web.Response:
        await _read_body(request, _NoBody)
        try:
            return _json(await self._engine.reload())
        except ConfigError as error:
            return _json({"error": str(error)}, 422)

    async def _drain(self, request: web.Request) -> web.Response:
        body = await _read_body(request, _DrainBody)
        return _json(await self._engine.drain(body.on))

    async def _retry(self, request: web.Request) -> web.Response:
        body = await _read_body(request, _RetryBody)
        message_id = _read_id(body.id)
        answers = await self._engine.retry(message_id)
        counts = add_counts(answers.results.values())
        if not any(counts.values()):
            return _not_found(message_id, answers)
        return _json({"id": message_id, **counts, **_unanswered(answers)})

    async def _cancel_rule(self, request: web.Request) -> web.Response:
        body = await _read_body(request, _CancelBody)
        answers = await self._engine.cancel_rule(body.key)
        cancelled = sum(answer["cancelled"] for answer in answers.results.values())
        if not cancelled:
            status = 503 if answers.errors else 404
            return _json({"error": f"nothing is in force as {body.key!r}", **_unanswered(answers)}, status)
        return _json({"key": body.key, "cancelled": cancelled, **_unanswered(answers)})


class _Wrong(Exception):
    """A request that can't be answered as it is; the text says what was expected."""


class _NoBody(msgspec.Struct, forbid_unknown_fields=True):
    pass


class _DrainBody(msgspec.Struct, forbid_unknown_fields=True):
    on: bool


class _CancelBody(msgspec.Struct, forbid_unknown_fields=True):
    key: str


class _RetryBody(msgspec.Struct, forbid_unknown_fields=True):
    id: str


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give every error the same form; what is our bug is logged, not shown."""
    try:
        return await handler(request)
    except _Wrong as error:
        return _json({"error": str(error)}, 400)
    except web.HTTPException as error:
        return _json({"error": f"{request.method} {request.path}: {error.reason}"}, error.status)
    except Exception as error:  # logged, and said to the client; the server lives
        log.error("request failed", path=request.path, error=repr(error))
        return _json({"error": "internal error, see the log"}, 500)


def _read_criteria(request: web.Request, names: tuple[str, ...]) -> tuple[dict[str, str], int]:
    """Return the criteria of a query and its limit."""
    allowed = (*names, "limit") if names else ()
    unknown = sorted(set(request.query) - set(allowed))
    if unknown:
        raise _Wrong(f"unknown parameter {unknown[0]!r}; expected {', '.join(allowed) or 'none'}")
    criteria = {name: request.query[name] for name in names if name in request.query}
    text = request.query.get("limit", str(DEFAULT_LIMIT))
    try:
        return criteria, parse_limit(text)
    except ValueError as error:
        raise _Wrong(f"limit: {error}") from None


def _read_id(text: str) -> str:
    try:
        return parse_message_id(text)
    except ValueError as error:
        raise _Wrong(str(error)) from None


async def _read_body(request: web.Request, shape: type[Any]) -> Any:
    if request.content_type != "application/json":
        raise _Wrong("expected Content-Type: application/json")
    try:
        return msgspec.json.decode(await request.read() or b"{}", type=shape)
    except msgspec.MsgspecError as error:
        raise _Wrong(f"body: {error}") from None


def _not_found(message_id: str, answers: Answers) -> web.Response:
    """A shard that does not answer may hold it: 404 is for what is known."""
    if not answers.errors:
        return _json({"error": f"no shard holds message {message_id}"}, 404)
    silent = ", ".join(f"shard {shard}: {error}" for shard, error in sorted(answers.errors.items()))
    text = f"no shard that answers holds message {message_id}, but not all did: {silent}"
    return _json({"error": text, **_unanswered(answers)}, 503)


def _unanswered(answers: Answers) -> dict[str, Any]:
    """Name the shards that gave no answer: the rest is not the whole truth then."""
    return (
        {"unanswered": {str(shard): error for shard, error in answers.errors.items()}}
        if answers.errors
        else {}
    )


def _json(answer: Any, status: int = 200) -> web.Response:
    body = msgspec.json.encode(answer, enc_hook=str) + b"\n"
    return web.Response(body=body, status=status, content_type="application/json")
