"""A check of the checks: weaken the server on purpose, and see that the tests of robustness notice.

    python -m tools.weaken [NAME ...]

Each weakening is one edit of a copy of the working tree, and the test that must fail on it. It
takes minutes, so it is run when those tests or what they test change, not with every test run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Weakening:
    """`old` becomes `new` in `file`, and so on for `more`; then `test` must fail."""

    test: str
    file: str
    old: str
    new: str
    more: tuple[tuple[str, str, str], ...] = ()  # (file, old, new): what else would catch it


WEAKENINGS: dict[str, Weakening] = {
    "files are read in the server itself": Weakening(
        "test_kills.py -k crashes",
        "spinexr/web/application.py",
        "read=read or sandbox.read,",
        "read=read or __import__('spinexr.imaging.reader', fromlist=['read']).read,",
    ),
    "an unexpected error of the reader is not a refusal": Weakening(
        "test_mutations.py",
        "spinexr/imaging/codecs.py",
        "    except Exception as e:",
        "    except ZeroDivisionError as e:",
    ),
    "a codestream's own size is not looked at": Weakening(
        "test_bombs.py -k claims",
        "spinexr/imaging/codecs.py",
        "> max_pixels",
        "> max_pixels * 10**9",
        (
            (
                "spinexr/imaging/sandbox_worker.py",
                "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))",
                "pass",
            ),
        ),
    ),
    "bodies have no limit": Weakening(
        "test_bombs.py -k 1_gb",
        "spinexr/web/application.py",
        "MAX_CONTENT_LENGTH=settings.max_upload_bytes + _MULTIPART_OVERHEAD_BYTES,",
        "MAX_CONTENT_LENGTH=None,",
    ),
    "forms have no limit of parts": Weakening(
        "test_bombs.py -k 10_000_parts",
        "spinexr/web/application.py",
        "MAX_FORM_PARTS=_MAX_FORM_PARTS,",
        "MAX_FORM_PARTS=None,",
    ),
    "a head may have as many fields as it likes": Weakening(
        "test_bombs.py -k 100_000_headers",
        "gunicorn.conf.py",
        "preload_app = False",
        "preload_app = False\nlimit_request_fields = 0\n"
        "__import__('gunicorn.http.message', fromlist=['x']).MAX_HEADERS = 10**9",
    ),
    "a lost reader is said to be a fault": Weakening(
        "test_kills.py -k killed_decoder",
        "spinexr/imaging/sandbox.py",
        "except ProcessExpired as e:\n            if e.exitcode",
        "except ZeroDivisionError as e:\n            if e.exitcode",
    ),
    "spool files have names and stay until the next start": Weakening(
        "test_load.py -k go_away",
        "spinexr/web/requests.py",
        "tempfile.TemporaryFile(dir=uploads",
        "tempfile.NamedTemporaryFile(delete=False, dir=uploads",
    ),
    "an answer is somebody else's": Weakening(
        "test_load.py -k full",
        "spinexr/web/analysing.py",
        "    return analysis\n",
        "    globals().setdefault('_kept', []).append(analysis)\n"
        "    return globals()['_kept'][-2:][0]\n",
    ),
    "each image is kept": Weakening(
        "test_load.py -k grows",
        "spinexr/web/analysing.py",
        "    return analysis\n",
        "    globals().setdefault('_kept', []).append(analysis.radiograph.stored.repeat(30))\n"
        "    return analysis\n",
    ),
    "uploads have no clock": Weakening(
        "test_load.py -k slow_upload",
        "gunicorn.conf.py",
        "worker_class = Worker",
        'worker_class = "gthread"',
    ),
    "heads have no clock": Weakening(
        "test_load.py -k head_that_does_not_end",
        "spinexr/gunicorn_worker.py",
        "HEAD_TIMEOUT_S = 10.0",
        "HEAD_TIMEOUT_S = 1000.0",
    ),
    "the proxy hands on what has not arrived": Weakening(
        "test_load.py -k 300_slow",
        "deploy/nginx.conf",
        "proxy_request_buffering on",
        "proxy_request_buffering off",
    ),
    "an end does not wait": Weakening(
        "test_load.py -k end_in_the_middle",
        "gunicorn.conf.py",
        "graceful_timeout = _settings.graceful_timeout_s",
        "graceful_timeout = 0",
    ),
    "what cannot be kept is a fault": Weakening(
        "test_storage.py",
        "spinexr/web/requests.py",
        "except OSError as e:\n                raise _unkept(e) from e",
        "except ZeroDivisionError as e:\n                raise _unkept(e) from e",
    ),
    "a disk that became read-only is a fault": Weakening(
        "test_storage.py -k read_only",
        "spinexr/web/requests.py",
        "except OSError as e:\n                raise _unkept(e) from e",
        "except ZeroDivisionError as e:\n                raise _unkept(e) from e",
    ),
    "what cannot be opened for lack of descriptors has no room": Weakening(
        "test_storage.py -k descriptors",
        "spinexr/web/requests.py",
        "(errno.EMFILE, errno.ENFILE)",
        "(errno.EPERM,)",
    ),
    "spool files outlive a killed server": Weakening(
        "test_kills.py -k killed_server",
        "spinexr/web/requests.py",
        "tempfile.TemporaryFile(dir=uploads",
        "tempfile.NamedTemporaryFile(delete=False, dir=uploads",
    ),
    "probes wait with everybody else": Weakening(
        "test_clients.py -k every_thread",
        "spinexr/gunicorn_worker.py",
        'pool = self._prober if _is_whole_probe(head or b"") else self.tpool',
        "pool = self.tpool",
    ),
    "what is deflated unpacks without end": Weakening(
        "test_bombs.py -k deflated",
        "spinexr/imaging/dicom.py",
        "inflater.decompress(stream.read(), max_inflated_bytes)",
        "inflater.decompress(stream.read())",
        (
            (
                "spinexr/imaging/sandbox_worker.py",
                "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))",
                "pass",
            ),
        ),
    ),
    "any number of frames is one": Weakening(
        "test_bombs.py -k frames",
        "spinexr/imaging/gate.py",
        "    if frames > 1:",
        "    if frames > 2**40:",
    ),
    "chunks that are none are a fault": Weakening(
        "test_clients.py -k chunks",
        "spinexr/gunicorn_worker.py",
        "except (ParseException, NoMoreData):",
        "except ZeroDivisionError:",
    ),
    "a probe may bring a body": Weakening(
        "test_clients.py -k promises",
        "spinexr/gunicorn_worker.py",
        "        and not any(header in head.lower() for header in _WITH_BODY)\n",
        "",
    ),
    "what was read ahead is forgotten": Weakening(
        "test_clients.py -k ahead",
        "spinexr/gunicorn_worker.py",
        'head = b"" if ahead else _first_bytes(conn.sock)',
        "head = conn.sock.recv(2048, socket.MSG_PEEK) if ahead else _first_bytes(conn.sock)",
    ),
    "the end of a connection is waited for": Weakening(
        "test_clients.py -k stay_open",
        "spinexr/gunicorn_worker.py",
        "type(self).linger(self)",
        "super().close(graceful=True)",
    ),
    "a refused body is heard to its end": Weakening(
        "test_clients.py -k still_sends",
        "spinexr/web/requests.py",
        "        hear_out(_HEARD_OUT_S)\n",
        "        pass\n",
    ),
    "all of this machine is believed": Weakening(
        "test_clients.py -k neighbour",
        "gunicorn.conf.py",
        'forwarded_allow_ips = ""',
        'forwarded_allow_ips = "127.0.0.1"',
    ),
    "silence holds a thread": Weakening(
        "test_clients.py -k silent",
        "spinexr/gunicorn_worker.py",
        "if head is None and not began:",
        "if False:",
    ),
    "a server that may open no more files ends": Weakening(
        "test_clients.py -k more_connections",
        "spinexr/gunicorn_worker.py",
        "if e.errno not in (errno.EMFILE, errno.ENFILE):",
        "if True:",
    ),
    "a server that is to end is ready": Weakening(
        "test_clients.py -k asked_to_end",
        "spinexr/gunicorn_worker.py",
        "stopping.REQUESTED.set()",
        "pass",
    ),
    "an address on gunicorn's command line is let pass": Weakening(
        "test_clients.py -k given_to_gunicorn",
        "gunicorn.conf.py",
        "def on_starting(",
        "def _on_starting(",
    ),
    "who reads the file of tokens can sign a login": Weakening(
        "../web/test_access.py -k cannot_sign",
        "spinexr/web/access.py",
        "SECRET_KEY=secrets.token_bytes(32)",
        "SECRET_KEY=repr(sorted(tokens.names_by_hash)).encode()",
    ),
    "every name is this machine's": Weakening(
        "../web/test_access.py -k this_machine_alone",
        "spinexr/web/security.py",
        'return ["localhost", ".localhost", "127.0.0.1", settings.host]',
        "return None",
    ),
    "an analysis may do without its audit line": Weakening(
        "../web/test_watching.py -k audit_line",
        "spinexr/logs.py",
        "handler = _AuditFile(",
        "handler = RotatingFileHandler(",
    ),
    "detectors are unpickled as they come": Weakening(
        "test_weights.py -k everything",
        "spinexr/inference/engines/torch_checkpoints.py",
        "safe_only=True",
        "safe_only=False",
    ),
    "checkpoints are unpickled as they come": Weakening(
        "test_weights.py",
        "spinexr/inference/engines/torch_checkpoints.py",
        "weights_only=True",
        "weights_only=False",
    ),
    "checkpoints are not compared with their hashes": Weakening(
        "test_weights.py -k other_numbers",
        "spinexr/inference/bundle.py",
        "    if expected in (None, digest):\n",
        "    if True:\n",
    ),
    "weights may be anything": Weakening(
        "test_weights.py -k everything",
        "spinexr/inference/engines/torch_checkpoints.py",
        "not torch.isfinite(tensor).all()",
        "False",
    ),
    "a form may come from anywhere": Weakening(
        "../web/test_access.py -k another_site",
        "spinexr/web/security.py",
        "    if not here:\n",
        "    if False:\n",
    ),
    "results may be kept on the way": Weakening(
        "../web/test_application.py -k not_cached",
        "spinexr/web/security.py",
        'if request.endpoint != "static":',
        "if False:",
    ),
    "workers that share processors are bound to the same": Weakening(
        "../inference/test_openvino_engine.py -k share_the_processors",
        "spinexr/inference/engines/openvino_engine.py",
        "if threads < available_threads():",
        "if False:",
    ),
    "the log names files": Weakening(
        "test_canaries.py",
        "spinexr/web/upload.py",
        "    file = files[0]\n",
        '    file = files[0]\n    __import__("logging").getLogger("spinexr").info(file.filename)\n',
    ),
    "what a file holds is no text": Weakening(
        "../browser/test_scripts.py",
        "spinexr/web/application.py",
        "    models.start()\n",
        "    models.start()\n    app.jinja_env.autoescape = False\n",
    ),
    "nobody replaces a killed worker": Weakening(
        "test_kills.py -k replaced",
        "gunicorn.conf.py",
        "def worker_exit(",
        "def child_exit(*_args: Any) -> None:\n    sys.exit(1)\n\n\ndef worker_exit(",
    ),
    "an upload that never comes is waited for at the end": Weakening(
        "test_clients.py -k never_comes",
        "gunicorn.conf.py",
        "graceful_timeout = _settings.graceful_timeout_s",
        "graceful_timeout = 60",
    ),
    "refused requests are quoted": Weakening(
        "test_canaries.py -k quoted",
        "spinexr/gunicorn_worker.py",
        'warning("a request was refused: %s", type(sys.exc_info()[1]).__name__)',
        'warning("a request was refused: " + _message, *_args)',
    ),
    "names are among what is shown": Weakening(
        "test_canaries.py -k nobody",
        "spinexr/imaging/header.py",
        "SHOWN = (\n",
        'SHOWN = (\n    "PatientName", "PatientID",\n',
    ),
    "a proxy passes metrics on": Weakening(
        "test_load.py -k metrics", "deploy/nginx.conf", "deny all;", "allow all;"
    ),
    "a wrong token is answered otherwise than documented": Weakening(
        "test_openapi.py -k login",
        "spinexr/web/access.py",
        "wrong=True), status=401)",
        "wrong=True), status=418)",
    ),
    "a result has another form than its document says": Weakening(
        "test_openapi.py -k form",
        "spinexr/reporting/as_json.py",
        '"probability":',
        '"likelihood":',
    ),
    "an error has another shape than its document says": Weakening(
        "test_openapi.py",
        "spinexr/web/errors.py",
        '            "code": code,\n',
        "",
    ),
    "a header that its pixels contradict is a fault": Weakening(
        "test_headers.py",
        "spinexr/imaging/codecs.py",
        "    except Exception as e:",
        "    except ZeroDivisionError as e:",
    ),
    "an end while networks are compiled is an abort": Weakening(
        "../test_server.py -k are_compiled",
        "gunicorn.conf.py",
        "        os._exit(0)",
        "        pass",
    ),
    "what a killed driver had under way is forgotten": Weakening(
        "../batch/test_chaos.py",
        "spinexr/batch/ledger.py",
        "(State.WAITING, State.IN_FLIGHT)\n",
        "(State.IN_FLIGHT, State.IN_FLIGHT)\n",
    ),
    "whoever was on a worker that died is to blame": Weakening(
        "../batch/test_chaos.py",
        "spinexr/batch/driver.py",
        "_MOST_DEATHS: Final = 2",
        "_MOST_DEATHS: Final = 1",
    ),
    "a delivery is noted before it is made": Weakening(
        "../node/test_kills.py",
        "spinexr/node/loops.py",
        "            self._sender.send(delivery.data)\n",
        "            self._queue.delivered(delivery)\n"
        "            self._sender.send(delivery.data)\n",
        (
            (
                "spinexr/node/loops.py",
                '        self._queue.delivered(delivery)\n        return "delivered"',
                '        return "delivered"',
            ),
        ),
    ),
    "success is said before the queue is on the disk": Weakening(
        "../node/test_queue.py -k reach_the_disk",
        "spinexr/node/queue.py",
        "synchronous = EXTRA",
        "synchronous = OFF",
    ),
    "what was delivered can still be read on the disk": Weakening(
        "../node/test_queue.py -k is_nowhere",
        "spinexr/node/queue.py",
        "secure_delete = ON",
        "secure_delete = OFF",
    ),
}


def main(names: list[str]) -> int:
    """Run them all, or those that are named; exit status 1 when a test did not notice."""
    chosen = {n: WEAKENINGS[n] for n in names or WEAKENINGS}
    unnoticed = [name for name, weakening in chosen.items() if not noticed(name, weakening)]
    print(f"{len(chosen) - len(unnoticed)} of {len(chosen)} noticed", flush=True)
    return 1 if unnoticed else 0


def noticed(name: str, weakening: Weakening) -> bool:
    """Whether the test fails on the weakened tree."""
    with tempfile.TemporaryDirectory(prefix="spinexr-weakened-") as folder:
        tree = Path(folder) / "tree"
        copy_sources(tree)
        first = (weakening.file, weakening.old, weakening.new)
        for edited, old, new in (first, *weakening.more):
            text = (tree / edited).read_text(encoding="utf-8")
            if old not in text:
                raise LookupError(f"{name}: {edited} has no {old!r}")
            (tree / edited).write_text(text.replace(old, new), encoding="utf-8")
        path, *options = weakening.test.split(" ")
        done = subprocess.run(  # noqa: S603  (our own words)
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider",
             f"tests/robustness/{path}", *options],
            cwd=tree, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}, text=True,
            capture_output=True, check=False,
        )  # fmt: skip
    last = (done.stdout.strip() or done.stderr.strip()).splitlines()[-1:] or ["nothing"]
    failed = done.returncode == 1 and " failed" in last[0]  # an error before the test is none
    print(f"{'noticed  ' if failed else 'UNNOTICED'} {name}: {last[0]}", flush=True)
    return failed


def copy_sources(tree: Path) -> None:
    """The working tree without what git ignores."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
