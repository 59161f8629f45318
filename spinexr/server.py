"""Start the production server in the place of this process."""

from __future__ import annotations

import errno
import os
import socket
import sys

from spinexr import allocator
from spinexr.errors import ConfigurationError
from spinexr.settings import PROJECT_ROOT, Settings

_NO_SUCH_ADDRESS = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


def serve(settings: Settings) -> None:
    """Become gunicorn with the project's configuration; on Windows, run Flask's own server.

    The environment is the settings' only source in the server process, so `settings` is written
    back to it. Does not return where gunicorn runs.
    """
    try:
        check_listening(settings.host, settings.port)
    except ConfigurationError as e:
        sys.exit(f"SpineXR cannot start: {e.message}")
    environment = {**allocator.HUGE_PAGES, **os.environ, **settings.to_env()}
    print(f"SpineXR on http://{_browsable(settings.host)}:{settings.port}", flush=True)
    if sys.platform == "win32":  # gunicorn needs fork
        from spinexr.web import create_app

        create_app(settings).run(host=settings.host, port=settings.port, threaded=True)
        return
    arguments = [
        sys.executable,
        "-m",
        "gunicorn",
        "--config",
        str(PROJECT_ROOT / "gunicorn.conf.py"),
        "--chdir",
        str(PROJECT_ROOT),
        "app:app",
    ]
    os.execve(sys.executable, arguments, environment)  # noqa: S606  (no shell is meant)


def check_listening(host: str, port: int) -> None:
    """See that the address can be listened on.

    Raises:
        ConfigurationError: it is taken, not allowed or no address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as e:
        without_ipv6 = family == socket.AF_INET6 and e.errno in _NO_SUCH_ADDRESS
        raise ConfigurationError(
            f"{host}:{port} cannot be listened on ({e.strerror}). Set PORT to another port, or "
            "SPINEXR_HOST to an address of this machine"
            + (", such as 127.0.0.1 where there is no IPv6." if without_ipv6 else ".")
        ) from e


def _browsable(host: str) -> str:
    """The address a person can open."""
    if host in ("127.0.0.1", "0.0.0.0", "::", "::1"):  # noqa: S104  (only compared)
        return "localhost"
    return f"[{host}]" if ":" in host else host
