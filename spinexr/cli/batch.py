"""`spinexr batch`."""

from __future__ import annotations

import re
import signal
import sqlite3
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spinexr.cli.common import FAILED, fail, settings_with, weights_option
from spinexr.domain import DetectPolicy
from spinexr.errors import SpineXRError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spinexr.batch.driver import Progress
    from spinexr.batch.executor import About, Executor
    from spinexr.batch.folder import OutputFolder
    from spinexr.batch.ledger import Ledger
    from spinexr.batch.work import OpenWorker
    from spinexr.settings import Settings

_INTERRUPTED = 130  # 128 + SIGINT, as shells say it
_SECONDS_BETWEEN_LINES = 0.5


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT…")
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for results/, failures.parquet, summary.html and the ledger.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    help="Processes with networks of their own, which share the processors.  [default: one for "
    "each GPU, or NUMA node, which it has to itself]",
)
@click.option(
    "--dask",
    "scheduler",
    metavar="ADDRESS",
    help="Let the workers of a Dask cluster analyse instead: its scheduler, such as "
    "tcp://host:8786, or a scheduler file.",
)
@click.option(
    "--precision",
    type=click.Choice(["exact", "bf16", "int8"]),
    help="Numbers that OpenVINO computes in.  [default: SPINEXR_PRECISION, else exact]",
)
@click.option(
    "--detect",
    type=click.Choice([p.value for p in DetectPolicy]),
    help="When the lesion detector runs.  [default: SPINEXR_DETECT, else when_abnormal]",
)
@click.option("--overlay", is_flag=True, help="Also write the annotated images, to overlay/.")
@click.option(
    "--dicom-out",
    is_flag=True,
    help="Also write DICOM objects (report, presentation state, picture), to dicom/.",
)
@click.option(
    "--keep",
    multiple=True,
    metavar="TAG",
    help="Put this attribute of the files into the results, such as SOPInstanceUID or PatientID; "
    "“address” is where the file lies. May be given more than once.",
)
@click.option(
    "--allow-other-body-part", is_flag=True, help="Go on when a file names another body part."
)
@click.option("--resume", is_flag=True, help="Go on with the results that the folder holds.")
@click.option("--retry-failed", is_flag=True, help="With --resume: try what failed once more.")
@weights_option
def batch(
    inputs: tuple[str, ...],
    out: Path,
    workers: int | None,
    scheduler: str | None,
    precision: str | None,
    detect: str | None,
    overlay: bool,
    dicom_out: bool,
    keep: tuple[str, ...],
    allow_other_body_part: bool,
    resume: bool,
    retry_failed: bool,
    weights: Path | None,
) -> None:
    """Analyse many radiographs to one table.

    INPUT is a file, a folder, a glob, a csv of paths, a DICOMDIR, a zip or tar archive, an address
    that fsspec opens, or studies of an archive (dicomweb+https://…/studies?…). It may be ended at
    any moment, and goes on with --resume. Exit status 0 when every input was answered, 1 when some
    were not, 2 when it was called wrongly, 130 when it was interrupted.
    """
    try:
        from spinexr.batch import listing
        from spinexr.batch.folder import OutputFolder
    except ImportError as e:
        fail(f"batches need the package {e.name}: pip install -r requirements.txt")

    if retry_failed and not resume:
        raise click.UsageError("--retry-failed goes with --resume.")
    if scheduler is not None:
        if workers is not None:
            raise click.UsageError("--dask and --workers exclude each other.")
        _check_scheduler(scheduler)
    keep = _kept(keep)
    for name in inputs:
        if listing.would_list(name, out):
            raise click.UsageError(
                f"--out {out} lies in {name}, so the results would be inputs themselves: choose "
                "another folder."
            )
    try:
        listing.check(inputs)
    except SpineXRError as e:
        raise click.UsageError(e.message) from e
    except KeyboardInterrupt:  # a glob may search for long
        sys.exit(_INTERRUPTED)
    settings = settings_with(weights=weights, detect=detect, precision=precision)
    finished, failed = False, 0
    try:
        with ExitStack() as stack:
            folder = OutputFolder(out)
            stack.callback(folder.close)
            opened = _open_worker(
                settings, folder.salt, workers or 1, overlay=overlay, dicom_out=dicom_out,
                keep=keep, allow_other_body_part=allow_other_body_part,
            )  # fmt: skip
            if scheduler is None:
                from spinexr.batch.local import LocalExecutor, Place, places

                where = [Place()] * workers if workers else places(settings.engine_options)
                executor: Executor = LocalExecutor(opened, where)
            else:
                executor = _cluster(scheduler, settings, opened)
            stack.callback(executor.close)
            finished, failed = _run(
                inputs, folder, opened, executor, stack, resume=resume, retry_failed=retry_failed
            )
    except SpineXRError as e:
        fail(e.message)
    except OSError as e:
        fail(str(e))
    except sqlite3.Error as e:
        fail(f"The ledger in {out} cannot be used: {e}. Make room, or choose another folder.")
    except KeyboardInterrupt:  # while the networks were loaded
        finished = False
    if not finished:
        sys.exit(_INTERRUPTED)
    sys.exit(FAILED if failed else 0)


def _check_scheduler(address: str) -> None:
    try:
        from spinexr.batch.dask_executor import scheduler_file_problem
    except ImportError as e:
        fail(f"--dask needs the package {e.name}: pip install -r requirements-dask.txt")
    if problem := scheduler_file_problem(address):
        raise click.UsageError(f"--dask: {problem}")


def _cluster(address: str, settings: Settings, opened: OpenWorker) -> Executor:
    """The workers of a cluster; how many processors each has is the cluster's to say."""
    from spinexr.batch.dask_executor import DaskExecutor, Freight

    engine = replace(opened.engine, threads=settings.inference_threads)
    return DaskExecutor(
        address, replace(opened, engine=engine), freight=Freight(opened.weights, engine)
    )


def _kept(names: tuple[str, ...]) -> tuple[str, ...]:
    """Each name once, as a keyword of DICOM; 0010,0020 and (0010,0020) are PatientID."""
    from pydicom.datadict import keyword_for_tag, tag_for_keyword

    from spinexr.batch.results import ADDRESS

    found = []
    for name in names:
        keyword = name
        if tag := re.fullmatch(r"\(?([0-9A-Fa-f]{4}),?([0-9A-Fa-f]{4})\)?", name):
            keyword = keyword_for_tag(int(tag[1] + tag[2], 16))
        if keyword != ADDRESS and (not keyword or tag_for_keyword(keyword) is None):
            raise click.UsageError(f"--keep {name}: no attribute of DICOM has this name.")
        found.append(keyword)
    return tuple(dict.fromkeys(found))


def _open_worker(
    settings: Settings,
    salt: bytes,
    workers: int,
    *,
    overlay: bool,
    dicom_out: bool,
    keep: tuple[str, ...],
    allow_other_body_part: bool,
) -> OpenWorker:
    """How each worker begins; the processors are shared out among them."""
    from spinexr.batch.dicomweb import Credentials
    from spinexr.batch.work import OpenWorker, Options
    from spinexr.processors import available_threads
    from spinexr.reporting import codes

    threads = settings.inference_threads or available_threads()
    engine = settings.engine_options
    if workers > 1:
        engine = replace(engine, threads=max(1, threads // workers))
    return OpenWorker(
        weights=settings.weights.resolve(),
        engine=engine,
        sandbox=settings.sandbox_options,
        options=Options(
            max_bytes=settings.max_upload_bytes,
            max_pixels=settings.max_pixels,
            detect=settings.detect_policy,
            allow_other_body_part=allow_other_body_part,
            keep=keep,
            salt=salt,
            overlay=overlay,
            codes=codes.read(settings.codes) if dicom_out else None,
            credentials=Credentials.read(settings.dicomweb_credentials),
        ),
    )


def _run(
    inputs: tuple[str, ...],
    folder: OutputFolder,
    opened: OpenWorker,
    executor: Executor,
    stack: ExitStack,
    *,
    resume: bool,
    retry_failed: bool,
) -> tuple[bool, int]:
    """(whether it ran to its end, how many inputs failed)."""
    from spinexr.batch import listing, results
    from spinexr.batch.driver import Driver, Places
    from spinexr.batch.ledger import Ledger, State

    about = executor.start()
    if folder.holds(about.identity) and not resume:
        raise click.UsageError(
            f"{folder.root} holds results of this batch; --resume goes on with them."
        )
    if resume and folder.in_use and not folder.holds(about.identity):
        click.echo(
            "No results of these weights and options are there, so this begins anew; those of "
            f"others are kept in {folder.root / 'earlier'}.",
            err=True,
        )
    folder.choose(about.identity)
    ledger = Ledger(folder.ledger)
    stack.callback(ledger.close)
    if retry_failed:
        ledger.reopen_failed()
    places = Places(
        folder.results,
        overlays=folder.overlays if opened.options.overlay else None,
        objects=folder.objects if opened.options.codes else None,
    )
    answered = ledger.count(State.ANSWERED)
    for place in (places.overlays, places.objects):
        if answered and place is not None and not place.exists():
            click.echo(
                f"{answered:,} inputs were answered before; nothing of them will be in {place}.",
                err=True,
            )
    line = _Line()
    with _stoppable() as stop:
        driver = Driver(
            ledger=ledger,
            executor=executor,
            places=places,
            schema=results.schema(opened.options.keep),
            max_bytes=opened.options.max_bytes,
            report=line,
            stop=stop.is_set,
        )
        try:
            finished = driver.run(listing.inputs(inputs, opened.options.credentials))
        finally:
            line.clear()
            # Of a batch that breaks off too, such as one whose cluster is gone.
            _conclude(folder, ledger, about)
    return finished, ledger.count(State.FAILED)


def _conclude(folder: OutputFolder, ledger: Ledger, about: About) -> None:
    """Failures and summary, and a short table on standard output."""
    from spinexr.batch import results, summary
    from spinexr.batch.ledger import State

    results.write_failures(folder.failures, ledger.failures())
    counts = summary.count(results.batches(folder.results, summary.COLUMNS))
    codes = ledger.failure_codes()
    waiting = ledger.count(State.WAITING) + ledger.count(State.IN_FLIGHT)
    page = summary.as_html(
        counts, failures=codes, waiting=waiting, active_s=ledger.active_s,
        identity=about.identity, caveat=about.caveat,
    )  # fmt: skip
    results.write_bytes(folder.summary, page.encode())
    rows = {
        "abnormal": counts.abnormal,
        "normal": counts.normal,
        **{f"failed: {code}": number for code, number in codes.items()},
    }
    if waiting:
        rows["waiting"] = waiting
    for name, number in rows.items():
        click.echo(f"{number:>10,}  {name}")
    if about.caveat:
        click.echo(about.caveat)
    click.echo(f"{folder.results}, {folder.summary}")


@contextmanager
def _stoppable() -> Iterator[threading.Event]:
    """Set by the first Ctrl-C or SIGTERM; the second ends the program at once."""
    stop = threading.Event()

    def ask(number: int, _: object) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Line:
    """One line of progress on a terminal; nothing without one."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._shown = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if not self._terminal or now - self._shown < _SECONDS_BETWEEN_LINES:
            return
        self._shown = now
        click.echo(f"\r\x1b[K{text_of(progress)}", nl=False, err=True)

    def clear(self) -> None:
        if self._terminal:
            click.echo("\r\x1b[K", nl=False, err=True)


def text_of(progress: Progress) -> str:
    """The line: done of all, rate, time left, failures."""
    done = progress.answered + progress.failed
    more = "" if progress.listed else "+"
    text = f"Analysing: {done:,}/{progress.known:,}{more}, {progress.per_s:.1f}/s"
    if (left := progress.left_s) is not None:
        hours, rest = divmod(int(left), 3600)
        text += f", {hours}:{rest // 60:02d}:{rest % 60:02d} left"
    return f"{text}, {progress.failed:,} failed"
