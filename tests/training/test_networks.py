"""Where a classifier's first weights come from: a hub of the test's own, on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from safetensors.torch import save

from spinexr.training import networks
from tests.processes import ROOT

ARCHITECTURE = "test_resnet"  # timm's smallest
BEGIN = (
    "from spinexr.training.networks import Learner\n"
    f"learner = Learner({ARCHITECTURE!r}, pretrained=True)\n"
    "print(learner.initial, learner.network.conv1[0].weight.mean().item())\n"
)


def begin(endpoint: str, cache: Path) -> subprocess.CompletedProcess[str]:
    """What weights a network begins with, and their mean in its first layer, in a process."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "HUGGINGFACE_", "TRANSFORMERS_"))
        and not name.lower().endswith("_proxy")
    }
    environment = {
        **kept, "HF_ENDPOINT": endpoint, "HF_HOME": str(cache),
        "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1",
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-c", BEGIN],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip


@pytest.fixture
def hub() -> Iterator[str]:
    """A server that has the network, all of whose weights are 0.25."""
    network = networks.Learner(ARCHITECTURE).network
    for parameter in network.parameters():
        parameter.data.fill_(0.25)
    network.reset_classifier(1000)  # ImageNet's
    weights = save(network.state_dict())

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> bool:
            found = self.path == "/" or self.path.endswith("/resolve/main/model.safetensors")
            self.send_response(200 if found else 404)
            self.send_header("ETag", '"0123456789abcdef"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", str(len(weights)))
            self.end_headers()
            return found

        def do_GET(self) -> None:
            if self.do_HEAD():
                self.wfile.write(weights)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_weights_come_from_the_hub_and_then_from_its_cache(hub: str, tmp_path: Path) -> None:
    assert begin(hub, tmp_path).stdout.split() == ["imagenet", "0.25"]
    assert begin("http://127.0.0.1:9", tmp_path).stdout.split() == ["imagenet", "0.25"]


def test_without_a_hub_training_begins_at_once_from_random_weights(tmp_path: Path) -> None:
    begun = begin("http://127.0.0.1:9", tmp_path)
    assert begun.stdout.split()[0] == "random"
    assert "Retry" not in begun.stderr
