"""Whether the process was asked to end, and what may still run in it then."""

from __future__ import annotations

import threading

REQUESTED = threading.Event()  # from then on it is not ready, and finishes its work
LOADING = "spinexr-loading"  # the thread that loads models, by name
