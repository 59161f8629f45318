"""Whether the process was asked to end: from then on it is not ready, and finishes its work."""

from __future__ import annotations

import threading

REQUESTED = threading.Event()
