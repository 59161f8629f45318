"""Left out where the packages of requirements-node.txt are not installed."""

from __future__ import annotations

from importlib.util import find_spec

_NEEDED = ("pynetdicom", "dicomweb_client", "cryptography")

collect_ignore_glob = [] if all(map(find_spec, _NEEDED)) else ["test_*.py"]
