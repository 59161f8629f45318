"""The one interface between a batch and what analyses its inputs, here or on a cluster.

Tasks go in, outcomes and lost tasks come out; nothing here knows of ledgers, parts or retries.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from spinexr.batch.address import Address


@dataclass(frozen=True, slots=True)
class Task:
    """One input. `data` are its bytes where only the driver can read them."""

    number: int
    address: Address
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What an analysis gave.

    row: values by the names of `results.schema`, without `input` and `duplicate_of`.
    overlay: the annotated image as JPEG, where it was asked for.
    objects: DICOM files by their kind, where they were asked for.
    """

    row: Mapping[str, Any]
    overlay: bytes | None = None
    objects: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no answer: a stable code, and a message for people."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class About:
    """What answers in this run. Results of two that differ in `identity` are never mixed.

    identity: what a result depends on besides its input, by name, as plain JSON values.
    caveat: what must stand beside every result, if anything.
    slots: tasks that one worker takes at a time.
    """

    identity: Mapping[str, Any]
    caveat: str | None
    slots: int


@dataclass(frozen=True, slots=True)
class Done:
    """A task that came to its end."""

    number: int
    outcome: Answer | Failure


@dataclass(frozen=True, slots=True)
class Lost:
    """Tasks that were on a worker when it died; any one of them may be why."""

    numbers: tuple[int, ...]


Event = Done | Lost


class Analyser(Protocol):
    """What runs inside a worker: loaded once, asked from `about.slots` threads."""

    about: About

    def __call__(self, task: Task) -> Answer | Failure: ...

    def close(self) -> None: ...


class Open(Protocol):
    """Makes an Analyser in a worker. Travels there pickled.

    Raises:
        SpineXRError: there can be none.
    """

    def __call__(self) -> Analyser: ...


class Executor(ABC):
    """Workers that analyse. Used by one thread."""

    @abstractmethod
    def start(self) -> About:
        """Start the workers, and wait until the first can answer.

        Raises:
            SpineXRError: none can.
        """

    @property
    @abstractmethod
    def capacity(self) -> int:
        """Tasks that may be under way at once."""

    @abstractmethod
    def submit(self, task: Task) -> None:
        """Hand a task over; at most `capacity` may be under way."""

    @abstractmethod
    def wait(self, timeout_s: float) -> Sequence[Event]:
        """What has happened, as soon as something has; nothing after `timeout_s`.

        Raises:
            SpineXRError: no worker can be had any more.
        """

    @abstractmethod
    def close(self) -> None:
        """End the workers, whatever they are doing."""


def outcome(analyser: Analyser, task: Task) -> Answer | Failure:
    """What an analyser gives, whatever it raises."""
    try:
        return analyser(task)
    # A fault of the program costs one input and is named, never an input without an outcome.
    except Exception as e:
        return internal(e)


def internal(error: BaseException) -> Failure:
    """A fault of the program; its text may quote a file, its type does not."""
    return Failure("internal_error", f"A fault of the program: {type(error).__name__}.")
