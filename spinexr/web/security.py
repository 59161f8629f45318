"""Headers that every answer carries, the sites that may call, and how often an address may."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flask import Flask, Response, request
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from werkzeug.exceptions import SecurityError
from werkzeug.middleware.proxy_fix import ProxyFix

from spinexr.errors import CrossSiteError, RateLimitError
from spinexr.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with none, browsers hide the origin of our own forms
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


_ANALYSING = ("upload.upload", "pixels.stored_values", "samples.analyse")
_LOGINS = "20 per minute"  # of one address; a token of 256 bits is not guessed at any rate


def register(app: Flask, settings: Settings) -> None:
    """Add the headers; results are never cached; no origin but the configured ones may call."""
    names = _trusted_hosts(settings)
    app.config["TRUSTED_HOSTS"] = names
    if names and ":" in settings.host:
        # werkzeug cannot compare addresses of IPv6.
        app.config["TRUSTED_HOSTS"] = None
        app.before_request(_of_names(names))
    if settings.proxies:
        n = settings.proxies
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=n, x_proto=n, x_host=n, x_prefix=n
        )

    if settings.root_path:
        app.wsgi_app = _Below(  # type: ignore[assignment, method-assign]
            settings.root_path, app.wsgi_app
        )

    @app.before_request
    def refuse_other_sites() -> None:
        if request.method not in ("GET", "HEAD", "OPTIONS"):
            _check_origin(settings.cors_origins)

    @app.after_request
    def add_headers(response: Response) -> Response:
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        if request.endpoint != "static":
            response.headers["Cache-Control"] = "no-store"
        origin = request.headers.get("Origin")
        if settings.cors_origins:
            response.vary.add("Origin")
        if origin in settings.cors_origins:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Allow-Methods"] = "GET, POST"
            response.headers["Access-Control-Allow-Headers"] = "Authorization"
            response.headers["Access-Control-Expose-Headers"] = "Retry-After, X-Request-Id"
            response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        return response


def _trusted_hosts(settings: Settings) -> list[str] | None:
    """The host names that requests may be for; None for all.

    A server for this machine alone answers to this machine's names: a site whose name leads here
    (DNS rebinding) would be the same site to a browser. A proxy in front knows its own names.
    """
    if settings.trusted_hosts:
        return list(settings.trusted_hosts)
    if settings.open_beyond_this_machine or settings.proxies:
        return None
    return ["localhost", ".localhost", "127.0.0.1", settings.host]


def _of_names(names: list[str]) -> Callable[[], None]:
    def refuse_other_names() -> None:
        asked = urlsplit(f"//{request.host}").hostname or ""
        if not any(asked.endswith(n) if n.startswith(".") else asked == n for n in names):
            raise SecurityError(f"Host {request.host!r} is not trusted.")

    return refuse_other_names


class _Below:
    """An application that is offered below a path, whether the proxy passes the path on or not."""

    def __init__(self, path: str, application: WSGIApplication) -> None:
        self._path = path
        self._application = application

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        asked = environ.get("PATH_INFO", "")
        if asked == self._path or asked.startswith(f"{self._path}/"):
            environ["PATH_INFO"] = asked.removeprefix(self._path) or "/"
        environ["SCRIPT_NAME"] = self._path
        return self._application(environ, start)


def limit_rates(app: Flask, settings: Settings) -> None:
    """Limit what an address may ask for; once all endpoints are registered."""
    limiter = Limiter(get_remote_address, app=app, storage_uri="memory://")
    if settings.rate_limit != "none":
        shared = limiter.shared_limit(settings.rate_limit, scope="analyses", on_breach=_too_many)
        for endpoint in _ANALYSING:
            _wrap(app, endpoint, shared)
    if "access.enter" in app.view_functions:
        entering = limiter.limit(_LOGINS, on_breach=_too_many)
        _wrap(app, "access.enter", entering)


def _wrap(app: Flask, endpoint: str, limit: Callable[[Any], Any]) -> None:
    app.view_functions[endpoint] = limit(app.view_functions[endpoint])


def _too_many(_limit: object) -> Response:
    raise RateLimitError("This address sends more than it may. Wait a moment, then go on.")


def _check_origin(allowed: tuple[str, ...]) -> None:
    """That no page of another site made a browser send this.

    Browsers say where a request comes from, programs say nothing. Only hosts are compared: behind a
    proxy that ends TLS the schemes differ.

    Raises:
        CrossSiteError: it comes from elsewhere.
    """
    origin = request.headers.get("Origin")
    if origin in allowed:
        return
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        here = site in ("same-origin", "none")
    else:
        here = origin is None or urlsplit(origin).netloc.lower() == request.host.lower()
    if not here:
        raise CrossSiteError(
            "A page of another site sent this. Open SpineXR itself, or have its operator allow "
            "that site with SPINEXR_CORS_ORIGINS."
        )
