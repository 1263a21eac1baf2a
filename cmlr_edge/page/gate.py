"""Who may see the live page: addresses, other sites' scripts, and the token."""

from __future__ import annotations

import hmac
import ipaddress
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, QueryParams
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from cmlr_edge.errors import OutputError

MIN_TOKEN_LENGTH = 12
_COOKIE_DAYS = 30
_OPEN_PATHS = ("/healthz", "/style.css", "/icon.svg")  # say nothing about what is seen
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_NO_STORE = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
_ASK_FOR_TOKEN = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>Token needed</title>
<link rel="stylesheet" href="/style.css"><form class="login" action="/"><h1>Token needed</h1>
<p>This page was started with a token. Its administrator knows it.</p>
<label>Token <input name="token" type="password" autocomplete="current-password" required autofocus>
</label><button>Open</button></form></html>"""


def is_loopback(host: str) -> bool:
    """Tell whether an address to bind can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_exposure(host: str, token: str | None) -> None:
    """Refuse to show cameras to a network without a token.

    Raises:
        OutputError: The token is missing or can be guessed.
    """
    if token is None and not is_loopback(host):
        raise OutputError(
            f"--host {host} shows the cameras to the network: also give --token, for example "
            "--token $(openssl rand -hex 16), or leave out --host to serve this machine alone"
        )
    if token is not None and (len(token) < MIN_TOKEN_LENGTH or not token.isascii()):
        raise OutputError(
            f"the token must have at least {MIN_TOKEN_LENGTH} ASCII characters, for example "
            "--token $(openssl rand -hex 16)"
        )


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
        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "not admitted"})
        else:
            await refusal(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        origin = headers.get("origin")
        # Browsers let any site's script open a web socket to here; they say which site it is.
        if scope["type"] == "websocket" and origin is not None and urlsplit(origin).netloc != host:
            return JSONResponse({"detail": "asked by another site"}, 403)
        if self._token is None:
            # A name of another site that points here would make its scripts ours.
            if _host_name(host) in _LOOPBACK_NAMES:
                return None
            return JSONResponse({"detail": "ask for localhost or 127.0.0.1"}, 421)
        return self._token_refusal(scope, headers)

    def _token_refusal(self, scope: Scope, headers: Headers) -> Response | None:
        query = QueryParams(scope["query_string"]).get("token")
        path, name = scope["path"], f"cmlr_token_{(scope.get('server') or ('', 0))[1]}"
        if query is not None and path == "/" and self._is_token(query):
            home = RedirectResponse("/", 303, _NO_STORE)  # takes the token out of the address
            age_s = _COOKIE_DAYS * 24 * 3600
            home.set_cookie(name, query, max_age=age_s, httponly=True, samesite="lax")
            return home
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = (query, bearer if scheme.lower() == "bearer" else None, _cookie(headers, name))
        if path in _OPEN_PATHS or any(self._is_token(item) for item in given if item is not None):
            return None
        if path == "/":
            return HTMLResponse(_ASK_FOR_TOKEN, 401, _NO_STORE)
        wanted = {"WWW-Authenticate": "Bearer", **_NO_STORE}
        return JSONResponse({"detail": "a token is needed"}, 401, wanted)

    def _is_token(self, given: str) -> bool:
        assert self._token is not None
        # Takes as long for a wrong token as for the right one.
        return hmac.compare_digest(given.encode(errors="replace"), self._token.encode())


def _host_name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _cookie(headers: Headers, name: str) -> str | None:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return None
    return None if found is None else found.value
