"""What runs inside the workers of a Dask cluster. Only clusters import this.

Functions that the driver runs here return what went wrong and raise nothing: what is raised, the
cluster logs, with arguments that may name patients.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import platform
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from distributed import Worker, WorkerPlugin, get_worker, secede

from spinexr import processors
from spinexr.batch import cargo
from spinexr.batch.cargo import Depot, Item, Kind
from spinexr.batch.executor import About, Analyser, Answer, Failure, Open, Task, outcome
from spinexr.batch.work import ENGINES
from spinexr.errors import BatchError, SpineXRError
from spinexr.inference import engines
from spinexr.inference.bundle import sha256_of
from spinexr.inference.engines import EngineOptions

_DEPOT = "spinexr"

_T = TypeVar("_T")


class Movable(Open, Protocol):
    """An Open whose bundle can lie elsewhere."""

    def moved(self, root: Path, *, threads: int) -> Movable: ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where files lie on a worker's machine; workers of one place share them."""

    host: str
    folder: str


def version_probe() -> Callable[[], str | None]:
    """A function that says which SpineXR a worker has, None for none.

    It travels whole and not by name: by name it could only be called where SpineXR is.
    """

    def version() -> str | None:
        try:
            import spinexr
        except ImportError:
            return None
        return str(spinexr.__version__)

    return version


def place_and_kind(options: EngineOptions, dask_worker: Worker) -> tuple[Place, Kind]:
    """Where the worker's files lie, and what kind of machine it is."""
    engine, version = engines.picked(options), ""
    if engine == "openvino":
        from spinexr.inference.engines.openvino_engine import VERSION as version  # noqa: N811
    place = Place(socket.gethostname(), str(_depot(dask_worker).root))
    return place, Kind(engine, version, platform.machine())


def lacking(items: Sequence[Item], dask_worker: Worker) -> list[str] | SpineXRError:
    """The hashes of the files that the worker's machine lacks."""
    return _or_error(lambda: _depot(dask_worker).lacking(items))


def put(piece: bytes, sha256: str, offset: int, last: bool, shipment: str) -> SpineXRError | None:
    """As `Depot.put`, as a task."""
    depot = _depot(get_worker())
    return _or_error(lambda: depot.put(sha256, piece, offset=offset, last=last, shipment=shipment))


async def begin(
    name: str, birth: str, opened: Open | Movable, items: Sequence[Item] | None, dask_worker: Worker
) -> About | SpineXRError:
    """Load the analyser; one that is there by this name stays.

    Args:
        name: of the analyser among the worker's plugins.
        birth: what tasks for this worker will ask for.
        items: the files of the bundle; None where it does not travel.
    """
    plugin = dask_worker.plugins.get(name)
    if not isinstance(plugin, AnalyserPlugin) or plugin.analyser is None:
        plugin = AnalyserPlugin(opened, items)
        await dask_worker.plugin_add(plugin, name=name)
    plugin.birth = birth
    if plugin.analyser is not None:
        return plugin.analyser.about
    dask_worker.plugins.pop(name, None)
    return plugin.error or BatchError("The analyser could not be loaded.")


async def end(name: str, dask_worker: Worker) -> None:
    """Close the analyser of this name, if there is one."""
    if name in dask_worker.plugins:
        await dask_worker.plugin_remove(name=name)


def answer(task: Task, name: str, birth: str) -> Answer | Failure | None:
    """What the worker's analyser gives, as a task; None where it is not the one that was asked.

    A worker that died may have a successor of the same address, and the cluster would run there
    what may have killed it.
    """
    plugin = get_worker().plugins.get(name)
    if not isinstance(plugin, AnalyserPlugin) or plugin.birth != birth or plugin.analyser is None:
        return None
    # How many run at once is the driver's to say, not the number of threads the worker began with.
    secede()
    return outcome(plugin.analyser, task)


def compiled(name: str, dask_worker: Worker) -> list[Item] | SpineXRError:
    """The compiled networks that the analyser of this name has beside its bundle."""
    return _or_error(lambda: list(_compiled(dask_worker, name)))


def piece_of(name: str, file: str, offset: int) -> bytes:
    """A piece of one of the files of `compiled`, as a task."""
    plugin = get_worker().plugins[name]
    assert isinstance(plugin, AnalyserPlugin)  # noqa: S101
    assert plugin.root is not None  # noqa: S101
    with (plugin.root / file).open("rb") as stream:
        stream.seek(offset)
        return stream.read(cargo.CHUNK_BYTES)


class AnalyserPlugin(WorkerPlugin):  # type: ignore[misc]  # untyped
    """An analyser that is loaded once in a worker, and ends with it."""

    def __init__(self, opened: Open | Movable, items: Sequence[Item] | None) -> None:
        self.birth = ""
        self.analyser: Analyser | None = None
        self.error: SpineXRError | None = None
        self.root: Path | None = None
        self._opened, self._items = opened, items
        self._ended = False

    async def setup(self, worker: Worker) -> None:
        """Load, while the worker goes on answering its scheduler."""
        try:
            self.analyser = await asyncio.to_thread(self._open, worker)
        except SpineXRError as e:
            self.error = e.with_traceback(None)
        except OSError as e:
            self.error = BatchError(f"The bundle cannot be laid out: {e.strerror or e}.")
        # OpenVINO and torch raise anything; and what is raised here is logged, not answered.
        except Exception as e:
            self.error = BatchError(f"The analyser could not be loaded: {type(e).__name__}: {e}")
        if self._ended:  # while it was loaded
            await self.teardown(worker)

    async def teardown(self, worker: Worker) -> None:
        """End the decoders and the networks."""
        self._ended = True
        analyser, self.analyser = self.analyser, None
        if analyser is not None:
            await asyncio.to_thread(analyser.close)

    def _open(self, worker: Worker) -> Analyser:
        # A nanny's workers are daemons and may have no children; decoders are, and end by
        # themselves with whoever began them.
        multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
        if self._items is None:
            return self._opened()
        self.root = _depot(worker).folder(self._items)
        threads = min(worker.state.nthreads, processors.available_threads())
        moved: Movable = self._opened  # type: ignore[assignment]
        return moved.moved(self.root, threads=threads)()


def _depot(worker: Worker) -> Depot:
    """Beside the folders of the workers of one machine, which end with them."""
    return Depot(Path(worker.local_directory).parent / _DEPOT)


def _compiled(worker: Worker, name: str) -> list[Item]:
    plugin = worker.plugins.get(name)
    if not isinstance(plugin, AnalyserPlugin) or plugin.root is None:
        return []
    return [
        Item(f.relative_to(plugin.root).as_posix(), sha256_of(f), f.stat().st_size)
        for f in sorted((plugin.root / ENGINES).glob("*/*"))
        if f.is_file() and not f.parent.name.startswith(".")
    ]


def _or_error(ask: Callable[[], _T]) -> _T | SpineXRError:
    try:
        return ask()
    except SpineXRError as e:
        return e.with_traceback(None)
    except OSError as e:
        return BatchError(f"A worker cannot keep the bundle: {e.strerror or type(e).__name__}.")
