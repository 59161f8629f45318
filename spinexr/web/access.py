"""Who may use it: anybody, or whoever shows a token, as a program or by logging in on the page.

A login is a signed cookie that names the token's owner. It ends with the browser, after twelve
hours or when the server does: the key that signs it is random and nowhere but in this process,
since one made of the file of tokens would let in whoever reads the hashes. Browsers send cookies on
their own, so a form that relies on one also carries a token of the page; a bearer token needs none.
"""

from __future__ import annotations

import secrets
from datetime import timedelta

from flask import (
    Blueprint,
    Flask,
    Response,
    g,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from flask.sessions import SecureCookieSessionInterface
from flask_wtf.csrf import CSRFError, CSRFProtect, generate_csrf
from markupsafe import Markup

from spinexr.errors import AccessError, FormExpiredError
from spinexr.tokens import Tokens
from spinexr.web.errors import wants_page
from spinexr.web.state import state

blueprint = Blueprint("access", __name__)

_SESSION = timedelta(hours=12)
_OWNER = "owner"
# What tells nothing of any image: how it looks, how it is, how to get in.
_OPEN = ("static", "health.health", "health.livez", "health.readyz", "access.login",
         "access.enter", "language.choose")  # fmt: skip
_csrf = CSRFProtect()


def register(app: Flask, tokens: Tokens | None) -> None:
    """Ask for a token where there are any."""
    app.jinja_env.globals.update(form_token=_form_token, owner=_owner)
    if tokens is None:
        return
    app.config.update(
        SECRET_KEY=secrets.token_bytes(32),
        PERMANENT_SESSION_LIFETIME=_SESSION,
        SESSION_COOKIE_NAME="spinexr_session",
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_HTTPONLY=True,
        WTF_CSRF_CHECK_DEFAULT=False,
        WTF_CSRF_TIME_LIMIT=None,  # as long as the session
        WTF_CSRF_SSL_STRICT=False,  # security.py looks at where requests come from
    )
    app.session_interface = _Sessions()
    _csrf.init_app(app)
    app.register_blueprint(blueprint)

    @app.before_request
    def ask() -> Response | None:
        if request.endpoint in _OPEN or request.method == "OPTIONS":
            return None
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "bearer" and tokens.owner(given.strip()):
            return None
        if tokens.knows(session.get(_OWNER, "")):
            g.logged_in = True
            if request.method not in ("GET", "HEAD", "OPTIONS"):
                _check_form()
            return None
        if request.method == "GET" and wants_page():
            return _see(url_for("access.login"))
        raise AccessError(
            "Log in, once more where the login has ended; programs send an access token as "
            "“Authorization: Bearer …”."
        )


class _Sessions(SecureCookieSessionInterface):
    """Cookies that travel over TLS only, where this request did."""

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure


@blueprint.get("/login")
def login() -> str:
    return render_template("login.html")


@blueprint.post("/login")
def enter() -> Response:
    tokens = state().tokens
    owner = tokens.owner(request.form.get("token", "").strip()) if tokens else None
    if owner is None:
        return Response(render_template("login.html", wrong=True), status=401)
    session.clear()  # nothing of whoever was here before
    session[_OWNER] = owner
    return _see(url_for("pages.index"))


@blueprint.post("/logout")
def leave() -> Response:
    session.clear()
    return _see(url_for("access.login"))


def _check_form() -> None:
    try:
        _csrf.protect()
    except CSRFError as e:
        raise FormExpiredError("Load the page again, and send the form once more.") from e


def _form_token() -> Markup:
    """The hidden field of a form on a page of somebody who logged in; empty for others."""
    if not g.get("logged_in"):
        return Markup("")
    return Markup('<input type="hidden" name="csrf_token" value="{}">').format(generate_csrf())


def _owner() -> str:
    """Who logged in; empty where nobody did."""
    return session.get(_OWNER, "") if g.get("logged_in") else ""


def _see(address: str) -> Response:
    response = redirect(address, 303)
    assert isinstance(response, Response)  # noqa: S101  (Flask's redirect says Werkzeug's)
    return response
