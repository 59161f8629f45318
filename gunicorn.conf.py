"""gunicorn's configuration, from the same settings as everything else.

One worker: memory is per process and the networks use all cores. Threads: uploads arrive and pages
are rendered while another request is analysed. No preload: the models must load in the worker.
"""

import os
import sys
import threading
from typing import Any

from gunicorn.http.unreader import SocketUnreader

from spinexr import spool, stopping, tokens
from spinexr.errors import ConfigurationError
from spinexr.gunicorn_worker import Worker
from spinexr.settings import Settings

try:
    _settings = Settings.from_env(os.environ)
    spool.prepare(_settings.uploads)
    if _settings.tokens_file:
        tokens.read(_settings.tokens_file)
except ConfigurationError as e:
    sys.exit(f"SpineXR cannot start: {e.message}")

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
control_socket_disable = True  # one path for all servers of a user, and nobody talks to it
# Our own log names endpoints; gunicorn's access log would write down paths and queries.
accesslog = None
errorlog = "-"
loglevel = "warning"

# What Flask takes at a time. gunicorn would hold up to 1 MB ready, and copy all of what is left of
# it each time.
SocketUnreader.max_body_chunk = 64 * 1024


def worker_exit(_server: Any, _worker: Any) -> None:
    """While networks are compiled end at once: nothing stops that, and it would abort the end."""
    if any(thread.name == stopping.LOADING for thread in threading.enumerate()):
        os._exit(0)
