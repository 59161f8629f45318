"""The executor of a cluster: workers of Dask distributed, which somebody else started.

Each task is for one worker and runs there or nowhere: so the driver, not the cluster, decides what
becomes of an input whose worker died. A worker may come and go at any time. One of another version
of SpineXR is refused by name.

Everything that talks to the cluster runs on an event loop in a thread of its own; the driver's
thread hands tasks over and takes events from a queue.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import pickle
import queue
import shutil
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from spinexr import __version__
from spinexr.batch import cargo, dask_worker
from spinexr.batch.cargo import Cargo, Item, Kind
from spinexr.batch.dask_worker import Place
from spinexr.batch.executor import (
    About,
    Done,
    Event,
    Executor,
    Lost,
    Open,
    Task,
    internal,
)
from spinexr.errors import BatchError, SpineXRError
from spinexr.inference.bundle import sha256_of
from spinexr.inference.engines import EngineOptions

_log = logging.getLogger("spinexr.batch")
_GOES_ON: Final = "What was answered is kept; --resume goes on."
_MOST_FAILED_BEGINNINGS: Final = 5  # one after the other
_LONGEST_END_S: Final = 10.0

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Freight:
    """The bundle that travels to the workers."""

    weights: Path
    engine: EngineOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Seconds.

    connect: until the scheduler answers. workers: without any worker. answer: until the scheduler
    answers once it has. look: between two looks at which workers there are.
    """

    connect: float = 20.0
    workers: float = 300.0
    answer: float = 60.0
    look: float = 0.5


@dataclass(slots=True, eq=False)
class _Worker:
    address: str
    birth: str
    slots: int
    under_way: dict[int, asyncio.Task[None]] = field(default_factory=dict)


class DaskExecutor(Executor):
    """The workers of a cluster, however many there are at the moment."""

    def __init__(
        self,
        address: str,
        open_analyser: Open,
        *,
        freight: Freight | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Workers that are looked for with `start`.

        Args:
            address: of the scheduler, or the path of its scheduler file.
            open_analyser: can be pickled; where there is freight, it can be moved.
        """
        self._address, self._open, self._freight = address, open_analyser, freight
        self._patience = patience or Patience()
        self._events: queue.SimpleQueue[Event | SpineXRError] = queue.SimpleQueue()
        # The same analyser by the same name: one that a killed driver left behind is taken over.
        asked = pickle.dumps((__version__, open_analyser))
        self._name = f"spinexr-{hashlib.sha256(asked).hexdigest()[:16]}"
        self._about: About | None = None
        self._slots = 0
        self._workers: dict[str, _Worker] = {}
        self._known: set[str] = set()  # addresses that are used, being begun, or refused
        self._begun: set[str] = set()  # where an analyser may be
        self._beginning = asyncio.Lock()
        self._backlog: deque[Task] = deque()
        self._cargoes: dict[Kind, Cargo] = {}
        self._failed_beginnings = 0
        self._last_worker = time.monotonic()
        self._client: Any = None
        self._background: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    # --- in the driver's thread ---

    def start(self) -> About:
        # What the cluster's library says of lost connections is said in other words here.
        logging.getLogger("distributed").setLevel(logging.CRITICAL + 1)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, args=(self._loop,), daemon=True)
        self._thread.start()
        self._call(self._connect())
        assert self._about is not None  # noqa: S101
        return self._about

    @property
    def capacity(self) -> int:
        """At least one: it waits here while there is no worker."""
        return max(1, self._slots)

    def submit(self, task: Task) -> None:
        assert self._loop is not None  # noqa: S101
        self._loop.call_soon_threadsafe(self._place, task)

    def wait(self, timeout_s: float) -> Sequence[Event]:
        events: list[Event] = []
        block = timeout_s > 0
        while True:
            try:
                event = self._events.get(block=block, timeout=timeout_s or None)
            except queue.Empty:
                return events
            if isinstance(event, SpineXRError):
                self._events.put(event)  # for whoever asks again
                if events:
                    return events
                raise event
            events.append(event)
            block = False

    def close(self) -> None:
        if self._loop is None or self._thread is None:
            return
        try:
            self._call(self._disconnect())
        except Exception as e:  # it is over, whatever the cluster thinks of it
            _log.debug("the cluster was left with %s", type(e).__name__)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = self._thread = None

    @staticmethod
    def _serve(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        loop.run_forever()

    def _call(self, work: Coroutine[Any, Any, _T]) -> _T:
        assert self._loop is not None  # noqa: S101
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    # --- on the event loop ---

    async def _connect(self) -> None:
        from distributed import Client

        where: dict[str, Any] = {"address": self._address}
        if "://" not in self._address:
            where = {"scheduler_file": self._address}
        try:
            self._client = await Client(
                **where, asynchronous=True, set_as_default=False, timeout=self._patience.connect
            )
        except (OSError, ValueError, RuntimeError) as e:
            raise BatchError(
                f"No scheduler of Dask answers at {self._address} ({type(e).__name__}). "
                "Start one with `dask scheduler`, or correct --dask."
            ) from e
        try:
            await self._client.wait_for_workers(1, timeout=self._patience.workers)
        except TimeoutError as e:
            raise BatchError(
                f"The scheduler at {self._address} has no workers: start some with "
                f"`dask worker {self._address}`."
            ) from e
        except OSError as e:
            raise self._gone() from e
        refused = await self._begin(await self._present())
        if refused:
            raise BatchError(_refusals(refused))
        if not self._workers:
            raise BatchError("The workers ended before they could answer. Run it again.")
        self._in_background(self._watch())

    async def _disconnect(self) -> None:
        waiting = list(self._background)
        for worker in self._workers.values():
            waiting += worker.under_way.values()
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        if self._client is None:
            return
        if self._client.status == "running":
            end = self._run(dask_worker.end, self._begun, name=self._name)
            await asyncio.wait_for(end, _LONGEST_END_S)
        await asyncio.wait_for(self._client.close(timeout=_LONGEST_END_S), 2 * _LONGEST_END_S)

    def _place(self, task: Task | None = None) -> None:
        """Give what waits to the workers with most room."""
        if task is not None:
            self._backlog.append(task)
        while self._backlog:
            free = [w for w in self._workers.values() if len(w.under_way) < w.slots]
            if not free:
                return
            worker = min(free, key=lambda w: len(w.under_way) / w.slots)
            chosen = self._backlog.popleft()
            follow = asyncio.ensure_future(self._follow(worker, chosen))
            worker.under_way[chosen.number] = follow

    async def _follow(self, worker: _Worker, task: Task) -> None:
        future = self._client.submit(
            dask_worker.answer, task, self._name, worker.birth,
            key=f"spinexr-{worker.birth}-{task.number}-{uuid.uuid4().hex[:8]}",
            workers=[worker.address], allow_other_workers=False, pure=False,
        )  # fmt: skip
        try:
            outcome = await future
        except Exception as e:
            outcome = None if _is_loss(e) else internal(e)
        finally:
            future.release()
        if outcome is None:
            if self._client.status == "running":
                self._lose(worker)
            else:  # the cluster forgot the tasks of a client that it lost, even for a moment
                self._events.put(self._gone())
            return
        worker.under_way.pop(task.number, None)
        self._events.put(Done(task.number, outcome))
        self._place()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._patience.look)
            await self._look()

    async def _look(self) -> None:
        """Take note of workers that came or went.

        Raises:
            BatchError: the scheduler is gone, or there were no workers for too long.
        """
        present = set(await self._present())
        for address in self._workers.keys() - present:
            self._lose(self._workers[address])
        self._known &= present
        self._begun &= present
        if new := present - self._known:
            self._known |= new
            self._in_background(self._begin_later(sorted(new)))
        now = time.monotonic()
        if self._workers:
            self._last_worker = now
        elif now - self._last_worker > self._patience.workers:
            raise BatchError(
                f"The scheduler at {self._address} has had no worker that can answer for "
                f"{self._patience.workers:g} seconds. {_GOES_ON}"
            )
        if self._failed_beginnings >= _MOST_FAILED_BEGINNINGS and not self._workers:
            raise BatchError(
                "The workers end before they can answer; there may be too little memory for the "
                f"networks. {_GOES_ON}"
            )

    async def _present(self) -> list[str]:
        """The addresses of the workers.

        Raises:
            BatchError: the scheduler is gone.
        """
        if self._client.status != "running":
            raise self._gone()
        try:
            found = await asyncio.wait_for(self._client.nthreads(), self._patience.answer)
        except (OSError, TimeoutError) as e:
            raise self._gone() from e
        return sorted(found)

    def _gone(self) -> BatchError:
        return BatchError(f"The scheduler at {self._address} is gone. {_GOES_ON}")

    def _lose(self, worker: _Worker) -> None:
        """A worker is gone, with what it had."""
        if self._workers.pop(worker.address, None) is None:
            return
        self._known.discard(worker.address)  # a successor may have the same address
        self._count_slots()
        lost = tuple(sorted(worker.under_way))
        for follow in worker.under_way.values():
            follow.cancel()
        worker.under_way.clear()
        if lost:
            self._events.put(Lost(lost))

    def _count_slots(self) -> None:
        self._slots = sum(w.slots for w in self._workers.values())

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(self._guarded(work))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except SpineXRError as e:
            self._events.put(e)
        # The driver waits for events alone: what ends their source has to be one.
        except Exception as e:
            self._events.put(
                BatchError(f"The cluster cannot be used any more ({type(e).__name__}). {_GOES_ON}")
            )

    # --- beginning workers ---

    async def _begin_later(self, addresses: Sequence[str]) -> None:
        if refused := await self._begin(addresses):
            _log.warning("%s", _refusals(refused))

    async def _begin(self, addresses: Sequence[str]) -> dict[str, str]:
        """Begin new workers; of those that cannot answer, why. One that died meanwhile is neither.

        Raises:
            SpineXRError: the bundle is not whole here.
        """
        self._known.update(addresses)
        async with self._beginning:
            return await self._begin_next(addresses)

    async def _begin_next(self, addresses: Sequence[str]) -> dict[str, str]:
        versions = await self._run(dask_worker.version_probe(), addresses)
        refused = {
            a: f"has SpineXR {found or '(none)'}, and {__version__} is wanted"
            for a, found in versions.items()
            if found != __version__
        }
        right = [a for a in versions if a not in refused]
        if not right:
            return refused
        groups: dict[Kind | None, dict[str, Place]] = {None: {}}
        if self._freight is None:
            groups[None] = {a: Place(a, "") for a in right}
        else:
            found = await self._run(dask_worker.place_and_kind, right, options=self._freight.engine)
            for address, answer in found.items():
                if isinstance(answer, SpineXRError):
                    refused[address] = answer.message
                    continue
                place, kind = answer
                groups.setdefault(kind, {})[address] = place
        for kind, places in groups.items():
            if not places:
                continue
            refused |= await self._begin_alike(kind, places)
        return refused

    async def _begin_alike(self, kind: Kind | None, places: Mapping[str, Place]) -> dict[str, str]:
        """Begin workers on machines that take the same files."""
        if kind is None:
            return await self._load(sorted(places), None)
        load = await self._packed(kind)
        first: dict[str, str] = {}
        if kind.engine == "openvino" and not load.compiled and kind not in self._cargoes:
            # One of them compiles; the others, and the next batch, get what it made.
            one = min(places)
            if error := await self._ship(load, {one: places[one]}):
                return error
            first = await self._load([one], load.items)
            if one in self._workers:
                await self._bring_back(one)
                load = await self._packed(kind)
            places = {a: p for a, p in places.items() if a != one}
        self._cargoes[kind] = load
        error = await self._ship(load, places)
        rest = [a for a in sorted(places) if a not in error]
        return first | error | await self._load(rest, load.items)

    async def _packed(self, kind: Kind) -> Cargo:
        assert self._freight is not None  # noqa: S101
        if known := self._cargoes.get(kind):
            return known
        return await asyncio.to_thread(
            cargo.pack, self._freight.weights, self._freight.engine, kind
        )

    async def _ship(self, load: Cargo, places: Mapping[str, Place]) -> dict[str, str]:
        """Bring what is lacking to one worker of each place."""
        ones = sorted({place: address for address, place in sorted(places.items())}.values())
        refused: dict[str, str] = {}
        lacking: dict[str, list[str]] = {}
        for address, found in (
            await self._run(dask_worker.lacking, ones, items=load.items)
        ).items():
            if isinstance(found, SpineXRError):
                refused[address] = found.message
            else:
                lacking[address] = found
        for sha256 in dict.fromkeys(s for found in lacking.values() for s in found):
            wanting = [a for a, found in lacking.items() if sha256 in found and a not in refused]
            refused |= await self._ship_file(load.found[sha256], sha256, wanting)
        bad = {places[a]: why for a, why in refused.items()}
        return {a: bad[place] for a, place in places.items() if place in bad}

    async def _ship_file(self, file: Path, sha256: str, addresses: Sequence[str]) -> dict[str, str]:
        """Piece by piece, from the scheduler to one worker and from worker to worker."""
        refused: dict[str, str] = {}
        size, offset, shipment = file.stat().st_size, 0, uuid.uuid4().hex
        pieces = cargo.chunks(file)
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            wanting = [a for a in addresses if a not in refused]
            if not wanting:
                break
            last = offset + len(piece) >= size
            (data,) = await self._client.scatter([piece], hash=False)
            futures = {
                a: self._client.submit(
                    dask_worker.put, data, sha256, offset, last, shipment,
                    workers=[a], allow_other_workers=False, pure=False,
                )
                for a in wanting
            }  # fmt: skip
            for address, future in futures.items():
                if error := await self._result(future, address):
                    refused[address] = error.message
            offset += len(piece)
        return refused

    async def _result(self, future: Any, address: str) -> Any:
        """What a worker gives, or an error where it went away."""
        waiting = asyncio.ensure_future(_of(future))
        try:
            while not (await asyncio.wait({waiting}, timeout=self._patience.look))[0]:
                if address not in await self._present():
                    return BatchError("went away while the bundle was sent to it")
            if waiting.exception() is None:
                return waiting.result()
            return BatchError(f"did not take the bundle: {type(waiting.exception()).__name__}")
        finally:
            waiting.cancel()
            future.release()

    async def _load(self, addresses: Sequence[str], items: Sequence[Item] | None) -> dict[str, str]:
        refused: dict[str, str] = {}
        birth = uuid.uuid4().hex
        self._begun.update(addresses)
        answers = await self._run(
            dask_worker.begin, addresses,
            name=self._name, birth=birth, opened=self._open, items=items,
        )  # fmt: skip
        self._failed_beginnings += len(addresses) - len(answers)
        for address, about in answers.items():
            if isinstance(about, SpineXRError):
                refused[address] = about.message
                continue
            if self._about is None:
                self._about = about
            if about.identity != self._about.identity:
                refused[address] = _difference(self._about.identity, about.identity)
                continue
            self._failed_beginnings = 0
            self._workers[address] = _Worker(address, birth, about.slots)
        self._count_slots()
        self._place()
        return refused

    async def _bring_back(self, address: str) -> None:
        """Keep what a worker compiled, for all workers of its kind."""
        assert self._freight is not None  # noqa: S101
        store = self._freight.engine.store or self._freight.weights / "engines"
        found = await self._run(dask_worker.compiled, [address], name=self._name)
        items = found.get(address)
        if not isinstance(items, list):
            return
        try:
            for folder, files in _by_folder(items).items():
                await self._bring_folder(address, store, folder, files)
        except OSError as e:
            _log.warning("compiled networks cannot be kept here: %s", e.strerror)

    async def _bring_folder(
        self, address: str, store: Path, folder: str, files: Sequence[Item]
    ) -> None:
        target = store / folder
        if target.exists():
            return
        scratch = store / f".{folder}-{uuid.uuid4().hex}"
        scratch.mkdir(parents=True)
        try:
            for item in files:
                file = scratch / Path(item.name).name
                with file.open("wb") as stream:
                    for offset in range(0, item.size, cargo.CHUNK_BYTES):
                        future = self._client.submit(
                            dask_worker.piece_of, self._name, item.name, offset,
                            workers=[address], allow_other_workers=False, pure=False,
                        )  # fmt: skip
                        piece = await self._result(future, address)
                        if isinstance(piece, SpineXRError):
                            return
                        stream.write(piece)
                if sha256_of(file) != item.sha256:
                    return
            scratch.rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    async def _run(
        self, function: Callable[..., Any], addresses: Iterable[str], **arguments: Any
    ) -> dict[str, Any]:
        """What each of these workers answers; those that are gone are left out."""
        asked = sorted(addresses)
        if not asked:
            return {}
        try:
            found = await self._client.run(function, workers=asked, on_error="return", **arguments)
        except OSError as e:
            raise self._gone() from e
        return {
            address: _as_error(answer)
            for address, answer in found.items()
            if not isinstance(answer, OSError)  # gone
        }


def _is_loss(error: Exception) -> bool:
    """Whether it is the cluster's word for a task whose worker died."""
    from distributed import CancelledError, KilledWorker

    return isinstance(error, (CancelledError, KilledWorker))


async def _of(future: Any) -> Any:
    return await future


def _as_error(answer: Any) -> Any:
    """An answer, or a fault of the worker in words."""
    if isinstance(answer, Exception) and not isinstance(answer, SpineXRError):
        return BatchError(f"failed with {type(answer).__name__}")
    return answer


def _by_folder(items: Iterable[Item]) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = {}
    for item in items:
        found.setdefault(Path(item.name).parent.name, []).append(item)
    return found


def _refusals(refused: Mapping[str, str]) -> str:
    named = "; ".join(f"{address} {why}" for address, why in sorted(refused.items()))
    return f"Workers cannot be used: {named}."


def _difference(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    names = [n for n in wanted if wanted.get(n) != found.get(n)]
    told = ", ".join(f"{n} {found.get(n)} and not {wanted.get(n)}" for n in names)
    return f"would answer differently: {told}"


def scheduler_file_problem(address: str) -> str | None:
    """What is wrong with an address that names no protocol, and so a scheduler file."""
    if "://" in address or Path(address).is_file():
        return None
    return f"{address} is neither an address such as tcp://host:8786 nor a scheduler file."
