"""`spinexr node`."""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spinexr.cli.common import FAILED, fail, settings_with, weights_option
from spinexr.errors import ConfigurationError, SpineXRError

if TYPE_CHECKING:
    from spinexr.node.configuration import Configuration
    from spinexr.node.node import Node
    from spinexr.node.queue import Queue
    from spinexr.settings import Settings


@click.group(invoke_without_command=True)
@weights_option
@click.pass_context
def node(context: click.Context, weights: Path | None) -> None:
    """Receive radiographs by C-STORE, analyse them, and deliver DICOM objects to archives.

    SPINEXR_NODE_CONFIG names the file of callers, destinations and rules.
    """
    if context.invoked_subcommand is not None:
        return
    settings = settings_with(weights=weights)
    try:
        with ExitStack() as stack:
            running = _opened(stack, settings)
            stop = threading.Event()
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.signal(number, lambda *_: stop.set())
                stack.callback(signal.signal, number, before)
            stack.callback(running.stop)
            running.start()
            click.echo(
                f"SpineXR node {settings.node_ae_title} on {settings.node_host}:{running.port}"
            )
            stop.wait()
    except ImportError as e:
        fail(f"the node needs the package {e.name}: pip install -r requirements-node.txt")
    except SpineXRError as e:
        fail(e.message)


@node.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def key(file: Path) -> None:
    """Make a key for the queue in FILE, which SPINEXR_NODE_KEY_FILE then names.

    Whoever loses it loses what the queue holds.
    """
    from spinexr.node.seal import write_key

    try:
        write_key(file)
    except OSError as e:
        fail(f"{file} cannot be written: {e.strerror}.")


@node.group()
def letters() -> None:
    """Objects that could not be analysed or delivered."""


@letters.command("list")
def list_letters() -> None:
    """Print a line for each: name, what it is, where to, when it came, attempts, code, why.

    A reason may quote the file.
    """
    with ExitStack() as stack:
        for letter in _open_queue(stack).letters():
            where = letter.destination or "-"
            click.echo(
                f"{letter.name}\t{letter.what}\t{where}\t{letter.received}\t{letter.attempts}\t"
                f"{letter.code}\t{letter.message}"
            )


@letters.command()
@click.argument("names", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All of them.")
def retry(names: tuple[str, ...], everything: bool) -> None:
    """Try again with the letters of these NAMES; a running node sees it in seconds."""
    _for_each(names, "retry", everything=everything)


@letters.command()
@click.argument("names", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All of them.")
def drop(names: tuple[str, ...], everything: bool) -> None:
    """Remove the letters of these NAMES for good."""
    _for_each(names, "drop", everything=everything)


def _for_each(names: tuple[str, ...], what: str, *, everything: bool) -> None:
    if bool(names) is everything:
        raise click.UsageError("Name letters, as `letters list` does, or say --all.")
    failed = False
    with ExitStack() as stack:
        queue = _open_queue(stack)
        for name in names or [letter.name for letter in queue.letters()]:
            try:
                done = queue.retry(name) if what == "retry" else queue.drop(name)
                why = "there is no such letter"
            except ConfigurationError as e:
                done, why = False, e.message
            if not done:
                failed = True
                click.echo(f"{name}: {why}", err=True)
    sys.exit(FAILED if failed else 0)


def _open_queue(stack: ExitStack) -> Queue:
    settings = settings_with()
    try:
        if not settings.node_queue.is_dir():
            raise ConfigurationError(
                f"There is no queue in {settings.node_queue}; SPINEXR_NODE_QUEUE names its folder."
            )
        return _queue(stack, settings)
    except ImportError as e:
        fail(f"an encrypted queue needs the package {e.name}: pip install -r requirements-node.txt")
    except SpineXRError as e:
        fail(e.message)


def _queue(stack: ExitStack, settings: Settings) -> Queue:
    from spinexr.node import seal
    from spinexr.node.queue import Queue

    sealed = seal.from_file(settings.node_key_file)
    queue = Queue(settings.node_queue, seal=sealed, max_bytes=settings.node_queue_bytes)
    stack.callback(queue.close)
    return queue


def _opened(stack: ExitStack, settings: Settings) -> Node:
    """A node with everything open; `stack` closes it."""
    from spinexr import logs
    from spinexr.imaging.sandbox import Sandbox
    from spinexr.inference.loading import load_predictor
    from spinexr.node import configuration, network, senders
    from spinexr.node.metrics import Metrics
    from spinexr.node.node import Node
    from spinexr.node.queue import held
    from spinexr.node.receiver import Door
    from spinexr.node.work import Worker
    from spinexr.reporting import codes

    chosen = configuration.read(settings.node_config)
    _check_open(settings, chosen)
    logs.set_up(level=settings.log_level, form=settings.log_format, audit_file=settings.audit_file)
    table = codes.read(settings.codes)
    ways = tuple((d, senders.to(d, ae_title=settings.node_ae_title)) for d in chosen.destinations)
    tls = network.server_context(chosen.tls) if chosen.tls is not None else None
    stack.enter_context(held(settings.node_queue))
    queue = _queue(stack, settings)
    _check_waiting(queue, chosen)
    sandbox = Sandbox(settings.sandbox_options)
    stack.callback(sandbox.close)
    wait = sandbox.start()
    predictor = load_predictor(
        settings.weights, settings.engine_options, queue=settings.queue, readers=settings.readers
    )
    stack.callback(predictor.close)
    wait()
    metrics = Metrics(lambda: queue.counts, tuple(d.name for d in chosen.destinations))
    worker = Worker(
        predictor=predictor,
        read=sandbox.read,
        codes=table,
        destinations=chosen.destinations,
        salt=queue.salt,
        max_pixels=settings.max_pixels,
        detect=settings.detect_policy,
        timeout_s=settings.request_timeout_s,
        watch=metrics.analysed,
    )
    return Node(
        queue,
        worker,
        door=Door(
            host=settings.node_host,
            port=settings.node_port,
            ae_title=settings.node_ae_title,
            callers=chosen.callers,
            associations=settings.node_associations,
            max_bytes=settings.max_upload_bytes,
            timeout_s=settings.node_timeout_s,
            tls=tls,
        ),
        ways=ways,
        metrics=metrics,
        http_port=settings.node_http_port,
        dropped=chosen.dropped,
        bundle=predictor.fingerprint,
    )


def _check_waiting(queue: Queue, chosen: Configuration) -> None:
    """That nothing waits for a destination which nobody would deliver to."""
    known = {d.name for d in chosen.destinations}
    if lost := {name: n for name, n in queue.counts.waiting.items() if name not in known}:
        shown = ", ".join(f"{name} ({number})" for name, number in sorted(lost.items()))
        raise ConfigurationError(
            f"Objects in the queue wait for destinations that SPINEXR_NODE_CONFIG does not name: "
            f"{shown}. Name them until the objects are delivered."
        )


def _check_open(settings: Settings, chosen: Configuration) -> None:
    if settings.node_open_to_others and not chosen.asks_for_certificates and not settings.insecure:
        raise ConfigurationError(
            f"SPINEXR_NODE_HOST={settings.node_host} would let other machines in, and an AE title "
            "proves nothing. Ask for certificates (clients, in [tls] of SPINEXR_NODE_CONFIG), or "
            "set SPINEXR_INSECURE=1 where the network is closed."
        )
