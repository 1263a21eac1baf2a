"""Who may see the live page: addresses, other sites' scripts, and the token.

The token comes in a header or in the body of the page's form, never in an address: those are kept in
histories, logs and referrers.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from cmlr_edge.errors import OutputError
from cmlr_edge.machine.addresses import is_loopback

MIN_TOKEN_LENGTH = 12
_COOKIE_DAYS = 30
_MAX_BODY = 4096  # bytes of the form
PROTOCOL = "/v2"  # the Open Inference Protocol, version 2
PICTURES = "/api/recognize"  # where pictures are sent to
MAX_PICTURE = 32 * 2**20  # bytes of one, or of those in one request
_SOURCES, _MAX_SETTINGS = "/api/sources", 64 * 2**10
_MAX_EDIT = 2**18  # bytes of all that `SourceEdit` holds at most
# They say nothing about what is seen.
_OPEN_PATHS = ("/healthz", "/v2/health/live", "/v2/health/ready", "/style.css", "/icon.svg")
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_NO_STORE = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
_ASK_FOR_TOKEN = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>Token needed</title>
<link rel="stylesheet" href="/style.css"><form class="login" action="/login" method="post"><h1>Token needed</h1>
<p>This page was started with a token. Its administrator knows it.</p>
<label>Token <input name="token" type="password" autocomplete="current-password" required autofocus>
</label><button>Open</button></form></html>"""
_ASK_AGAIN = _ASK_FOR_TOKEN.replace(
    "<label>", '<p role="alert">This is not the token.</p>\n<label>'
)


def check_exposure(host: str, token: str | None, *, setting: str = "--host") -> None:
    """Refuse to show cameras to a network without a token.

    Args:
        host: To bind.
        token: What visitors must know.
        setting: How the address was given, for the message.

    Raises:
        OutputError: The token is missing or can be guessed.
    """
    if token is None and not is_loopback(host):
        raise OutputError(
            f"{setting} {host} shows what the cameras see to the network: also give --token, token under "
            "[page], or CMLR_TOKEN, for example to what `openssl rand -hex 16` prints; or leave out "
            f"{setting} to serve this machine alone"
        )
    if token is None:
        return
    is_sent = token.isascii() and token.isprintable() and token == token.strip()  # by a header
    if len(token) < MIN_TOKEN_LENGTH or not is_sent:
        raise OutputError(
            f"the token must have at least {MIN_TOKEN_LENGTH} ASCII characters that can be printed, for "
            "example of openssl rand -hex 16"
        )


def refusal(
    path: str, detail: str, status: int, headers: Mapping[str, str] | None = None
) -> Response:
    """Refuse in the words of whoever asks: `error` for clients of the Open Inference Protocol, else `detail`."""
    key = "error" if path == PROTOCOL or path.startswith(f"{PROTOCOL}/") else "detail"
    text = json.dumps({key: detail})  # ASCII: half a character that came could not be sent back
    return Response(text, status, headers, media_type="application/json")


class Gate:
    """Lets a request through to the app, or answers it itself; an ASGI middleware."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        """Guard `app`.

        Args:
            app: The rest.
            token: None admits everybody who asks under a loopback name.
        """
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        answer = self._refusal(scope)
        if answer is None and self._token is not None and _is_login(scope):
            answer = await self._log_in(Request(scope, receive), self._token)
        if answer is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "not admitted"})
        else:
            await answer(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        origin = headers.get("origin")
        # Browsers let any site's script open a web socket to here; they say which site it is.
        limit = _body_limit(scope["path"])
        if scope["type"] == "http" and _has_larger_body(headers, limit):
            close = {"Connection": "close"}
            detail = f"at most {limit} bytes, and Content-Length has to say how many"
            return refusal(scope["path"], detail, 413, close)
        if scope["type"] == "websocket" and origin is not None and urlsplit(origin).netloc != host:
            return refusal(scope["path"], "asked by another site", 403)
        if self._token is None:
            # A name of another site that points here would make its scripts ours.
            if _host_name(host) in _LOOPBACK_NAMES:
                return None
            return refusal(scope["path"], "ask for localhost or 127.0.0.1", 421)
        return self._token_refusal(scope, headers)

    def _token_refusal(self, scope: Scope, headers: Headers) -> Response | None:
        assert self._token is not None
        path, cookie = scope["path"], _cookie(headers, _cookie_name(scope))
        is_known = _is_same(_given_token(headers), self._token)
        is_known |= _is_same(cookie, _cookie_value(self._token))
        if path in _OPEN_PATHS or is_known or _is_login(scope):
            return None
        if path == "/":
            return HTMLResponse(_ASK_FOR_TOKEN, 401, _NO_STORE)
        wanted = {"WWW-Authenticate": "Bearer", **_NO_STORE}
        detail = "a token is needed, as Authorization: Bearer; none is taken from an address"
        return refusal(path, detail, 401, wanted)

    async def _log_in(self, request: Request, token: str) -> Response:
        """Take the token from the page's form, and let a cookie remember that it was known."""
        try:
            form = parse_qs((await request.body()).decode("latin-1"), max_num_fields=4)
        except (ClientDisconnect, ValueError):
            form = {}
        if not _is_same(form.get("token", [""])[0], token):
            return HTMLResponse(_ASK_AGAIN, 401, _NO_STORE)
        home = RedirectResponse("/", 303, _NO_STORE)
        home.set_cookie(
            _cookie_name(request.scope),
            _cookie_value(token),
            max_age=_COOKIE_DAYS * 24 * 3600,
            httponly=True,
            samesite="lax",
        )
        return home


def _body_limit(path: str) -> int:
    """Bytes that may be sent to an address."""
    if path == PICTURES or (path.startswith("/v2/models/") and path.endswith("/infer")):
        return MAX_PICTURE
    if path.startswith(f"{_SOURCES}/"):
        return _MAX_EDIT
    return _MAX_SETTINGS if path == _SOURCES else _MAX_BODY


def _is_login(scope: Scope) -> bool:
    return (scope["type"], scope["path"], scope.get("method")) == ("http", "/login", "POST")


def _has_larger_body(headers: Headers, limit: int) -> bool:
    """Whether a request brings more than so many bytes; how much a chunked one brings is not known."""
    length = headers.get("content-length", "0")
    return "transfer-encoding" in headers or not length.isdecimal() or int(length) > limit


def _given_token(headers: Headers) -> str:
    """The token of a program: as bearer, or as password for players that know nothing else."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return ""
    return ""


def _is_same(given: str, token: str) -> bool:
    # Takes as long for a wrong token as for the right one.
    return hmac.compare_digest(given.encode(errors="replace"), token.encode())


def _cookie_value(token: str) -> str:
    return hmac.digest(token.encode(), b"cmlr_edge page", "sha256").hex()


def _cookie_name(scope: Scope) -> str:
    return f"cmlr_token_{(scope.get('server') or ('', 0))[1]}"


def _host_name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _cookie(headers: Headers, name: str) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return "" if found is None else found.value
