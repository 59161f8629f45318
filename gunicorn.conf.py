"""gunicorn's configuration, from the same settings as everything else.

One worker: memory is per process and the networks use all cores. Threads: uploads arrive and pages
are rendered while another request is analysed. No preload: the models must load in the worker.
"""

import os
import resource
import sys
import threading
from typing import Any

from gunicorn.glogging import Logger
from gunicorn.http.unreader import SocketUnreader

from spinexr import logs, spool, stopping, tokens
from spinexr.errors import ConfigurationError
from spinexr.gunicorn_worker import Worker
from spinexr.settings import Settings

_MOST_DESCRIPTORS = 4096

try:
    _settings = Settings.from_env(os.environ)
    spool.prepare(_settings.uploads)
    if _settings.tokens_file:
        tokens.read(_settings.tokens_file)
except ConfigurationError as e:
    sys.exit(f"SpineXR cannot start: {e.message}")


class _Logger(Logger):
    """What gunicorn itself has to say, in the form of all other lines."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        logs.in_form(self.error_log, _settings.log_format)


def _descriptors() -> int:
    """How many files the worker may have open; as many as it may be given."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


_host = f"[{_settings.host}]" if ":" in _settings.host else _settings.host
bind = f"{_host}:{_settings.port}"
workers = 1
worker_class = Worker
Worker.upload_timeout_s = _settings.upload_timeout_s
threads = _settings.web_threads
preload_app = False
graceful_timeout = _settings.graceful_timeout_s
timeout = 120
keepalive = 5
# Connections that wait must leave descriptors for those that are served.
worker_connections = max(threads + 1, min(1000, _descriptors() - 200))
control_socket_disable = True  # one path for all servers of a user, and nobody talks to it
# Proxies are named in the settings, and the application reads what they say. gunicorn would believe
# everybody on this machine.
forwarded_allow_ips = ""
# Our own log names endpoints; gunicorn's access log would write down paths and queries.
accesslog = None
errorlog = "-"
logger_class = _Logger
loglevel = "warning"

# What Flask takes at a time. gunicorn would hold up to 1 MB ready, and copy all of what is left of
# it each time.
SocketUnreader.max_body_chunk = 64 * 1024


def on_starting(server: Any) -> None:
    """Hold what gunicorn was told on its own command line against the settings, which the server
    and its pages go by."""
    for address in server.cfg.address:
        if not isinstance(address, tuple):  # a socket in the file system is of this machine
            continue
        os.environ["SPINEXR_HOST"] = address[0]
        try:
            open_beyond_this_machine = Settings.from_env(os.environ).open_beyond_this_machine
        except ConfigurationError as e:
            sys.exit(f"SpineXR cannot start: {e.message}")
        if open_beyond_this_machine:
            return


def worker_exit(_server: Any, _worker: Any) -> None:
    """While networks are compiled end at once: nothing stops that, and it would abort the end."""
    if any(thread.name == stopping.LOADING for thread in threading.enumerate()):
        os._exit(0)
