"""What becomes of a radiograph: the one path, and an object for each destination that wants one."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime

from spinexr.analysis import analyse
from spinexr.domain import Analysis, DetectPolicy, ObjectKind, Read
from spinexr.inference.predictor import Predictor
from spinexr.node import deidentify
from spinexr.node.configuration import Destination
from spinexr.node.queue import Output
from spinexr.reporting.codes import Codes


@dataclass(frozen=True, slots=True)
class Answer:
    """What there is to deliver, and what may be said about it: the decision.

    instance: the image's own SOP Instance UID, where it has one.
    """

    outputs: tuple[Output, ...]
    decision: str
    instance: str | None = None


Work = Callable[[bytes, str], Answer]
"""(file, caller's AE title) → what there is to deliver; raises SpineXRError."""


@dataclass(frozen=True, slots=True)
class Worker:
    """Analyses and makes the objects. `salt`: of pseudonyms."""

    predictor: Predictor
    read: Read
    codes: Codes
    destinations: tuple[Destination, ...]
    salt: bytes
    max_pixels: int
    detect: DetectPolicy
    timeout_s: float
    clock: Callable[[], datetime] = datetime.now
    watch: Callable[[Analysis], None] = lambda _analysis: None

    def __call__(self, data: bytes, caller: str) -> Answer:
        """The objects of one file.

        Raises:
            SpineXRError: every refusal and failure.
        """
        analysis = analyse(
            data,
            predictor=self.predictor,
            max_pixels=self.max_pixels,
            detect=self.detect,
            read=self.read,
            timeout_s=self.timeout_s,
        )
        self.watch(analysis)
        said = {a.keyword: a.value for a in analysis.radiograph.attributes}
        wanting = [
            d
            for d in self.destinations
            if d.wants(
                modality=said.get("Modality", ""),
                body_part=said.get("BodyPartExamined", ""),
                caller=caller,
            )
        ]
        now = self.clock()
        outputs = [
            output
            for hidden in (False, True)
            for output in self._outputs(
                analysis, [d for d in wanting if d.deidentify is hidden], hidden=hidden, now=now
            )
        ]
        source = analysis.radiograph.source
        instance = source.dataset.get("SOPInstanceUID") if source is not None else None
        return Answer(tuple(outputs), analysis.prediction.decision, instance)

    def _outputs(
        self, analysis: Analysis, destinations: Collection[Destination], *, hidden: bool,
        now: datetime,
    ) -> list[Output]:  # fmt: skip
        # Late: it brings large libraries along, which tests of the rest need not wait for.
        from spinexr.reporting import dicom

        if not destinations:
            return []
        if hidden:
            now = deidentify.NOW
            analysis = deidentify.deidentified(
                analysis, salt=self.salt, body_parts=self.codes.regions
            )
        outputs = []
        for kind in ObjectKind:
            names = tuple(d.name for d in destinations if kind in d.objects)
            if names:
                made = dicom.dataset(analysis, kind, codes=self.codes, now=now)
                made = deidentify.marked(made) if hidden else made
                outputs.append(Output(kind, dicom.as_file(made), names))
        return outputs
