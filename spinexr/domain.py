"""Frozen values that travel along the one path: bytes → Radiograph → Prediction → Analysis.

Boxes are xyxy in stored-image pixels, origin at the outer corner of the top-left pixel.
Probabilities and confidences are 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from io import BytesIO
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_Scalar = TypeVar("_Scalar", bound=np.generic)

_ROWS_AT_A_TIME = 16  # of an image that is looked up: what they need fits a processor's cache


class Photometric(StrEnum):
    """PhotometricInterpretation (0028,0004) of greyscale images, PS3.3 C.7.6.3.1.2."""

    MONOCHROME1 = "MONOCHROME1"  # the lowest value is white
    MONOCHROME2 = "MONOCHROME2"  # the lowest value is black


class SpacingSource(StrEnum):
    """Which attribute the pixel spacing was read from."""

    PIXEL_SPACING = "PixelSpacing"
    IMAGER_PIXEL_SPACING = "ImagerPixelSpacing"  # at the detector, not in the patient


class DetectPolicy(StrEnum):
    """When the lesion detector runs."""

    WHEN_ABNORMAL = "when_abnormal"
    ALWAYS = "always"


class ObjectKind(StrEnum):
    """The DICOM objects that can be made of an analysis."""

    REPORT = "report"  # Comprehensive 3D SR, TID 1500
    PRESENTATION = "presentation"  # Grayscale Softcopy Presentation State
    PICTURE = "picture"  # Secondary Capture


class Agreement(StrEnum):
    """Whether classifier and detector say the same."""

    AGREE = "agree"
    ABNORMAL_WITHOUT_FINDINGS = "abnormal_without_findings"
    FINDINGS_ON_NORMAL = "findings_on_normal"
    NOT_COMPARED = "not_compared"  # the detector did not run


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the reader of a result has to know; never an error."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class PixelSpacing:
    """Distance between pixel centres in mm: between rows, between columns."""

    row_mm: float
    column_mm: float
    source: SpacingSource

    def __post_init__(self) -> None:
        if not (0 < self.row_mm < math.inf and 0 < self.column_mm < math.inf):
            raise ValueError(f"pixel spacing must be positive: {self.row_mm}, {self.column_mm}")


@dataclass(frozen=True, slots=True)
class HeaderAttribute:
    """One attribute from the allow-list, printable."""

    tag: str  # "(gggg,eeee)"
    keyword: str
    name: str
    value: str


class VoiFunction(StrEnum):
    """How a window turns values into grey levels (PS3.3 C.11.2.1.3)."""

    LINEAR = "LINEAR"
    LINEAR_EXACT = "LINEAR_EXACT"
    SIGMOID = "SIGMOID"


@dataclass(frozen=True, slots=True)
class Window:
    """A display window of the file, in values after the Modality LUT."""

    name: str  # the file's explanation of it; empty where it has none
    center: float
    width: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.center) and 0 < self.width < math.inf):
            raise ValueError(f"not a window: {self.center}, {self.width}")


@dataclass(frozen=True, slots=True, eq=False)
class Windowing:
    """What a viewer needs to window a radiograph as its file means it.

    values: float32 (N,), each stored value from the radiograph's `lowest` up after the Modality
        LUT.
    table: whether the file's first choice is a VOI LUT, which no window gives.
    inverse: the highest value is black.
    """

    values: npt.NDArray[np.float32]
    function: VoiFunction
    windows: tuple[Window, ...]
    table: bool
    inverse: bool


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image belongs among others. The UID may lead to a patient: only `grouping` uses it,
    and nothing shows it."""

    study_uid: str
    series_number: int | None
    instance_number: int | None


@dataclass(frozen=True, slots=True)
class Source:
    """What DICOM objects about a radiograph repeat of its file.

    It says who the patient is: nothing shows it, logs it or puts it into other forms of a result.

    header: attributes of an allow-list, cleaned, as one dataset in Explicit VR Little Endian with
        text in UTF-8.
    """

    header: bytes = field(repr=False)

    @property
    def dataset(self) -> Dataset:
        """The header, read; a new one each time."""
        from pydicom.filereader import read_dataset  # the rest of the domain needs no pydicom

        return read_dataset(BytesIO(self.header), is_implicit_VR=False, is_little_endian=True)


@dataclass(frozen=True, slots=True, eq=False)
class Radiograph:
    """One decoded radiograph.

    stored: integer (H, W), the stored values as decoded, before Modality and VOI.
    lowest: the smallest stored value.
    levels: float32 (N,) in 0–1, the display level of each stored value from `lowest` up, after
        Modality, VOI and polarity; 0 = black.
    """

    stored: npt.NDArray[np.integer[Any]]
    lowest: int
    levels: npt.NDArray[np.float32]
    photometric: Photometric
    spacing: PixelSpacing | None
    attributes: tuple[HeaderAttribute, ...]
    notices: tuple[Notice, ...] = ()
    windowing: Windowing | None = None  # None where no file stands behind it
    place: Place | None = None  # likewise, and where the file does not say
    kept: tuple[tuple[str, str], ...] = ()  # (keyword, value) of what a caller asked for by name
    source: Source | None = None  # None where no file stands behind it

    def __post_init__(self) -> None:
        if self.stored.ndim != 2 or self.levels.ndim != 1:
            raise ValueError(f"not an image and a table: {self.stored.shape}, {self.levels.shape}")

    @property
    def display(self) -> npt.NDArray[np.float32]:
        """float32 (H, W) in 0–1, as a reader sees it, 0 = black."""
        return self.through(self.levels)

    def through(self, table: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
        """(H, W): each stored value replaced by its entry in a table that starts at `lowest`.

        Args:
            table: (N,), an entry for each value that occurs.
        """
        # Signed values are looked up by their bits, so that no copy of the image is shifted first.
        bits = 8 * self.stored.dtype.itemsize
        whole = np.zeros(1 << bits, table.dtype)
        whole[np.arange(self.lowest, self.lowest + len(table)) & ((1 << bits) - 1)] = table
        looked_up = np.empty(self.stored.shape, table.dtype)
        # Some rows at a time, as numpy makes 64-bit indices of the values first. Every index is
        # within; "clip" only leaves out the check of each.
        for top in range(0, self.rows, _ROWS_AT_A_TIME):
            rows = slice(top, top + _ROWS_AT_A_TIME)
            indices = self.stored[rows].view(f"u{self.stored.dtype.itemsize}")
            whole.take(indices, mode="clip", out=looked_up[rows])
        return looked_up

    @property
    def rows(self) -> int:
        return int(self.stored.shape[0])

    @property
    def columns(self) -> int:
        return int(self.stored.shape[1])


class Read(Protocol):
    """Something that reads as `imaging.reader.read` does, in this process or in another."""

    def __call__(
        self, data: bytes, *, max_pixels: int, allow_other_body_part: bool = False
    ) -> Radiograph: ...


@dataclass(frozen=True, slots=True)
class Box:
    """xyxy in stored-image pixels."""

    x1: float
    y1: float
    x2: float
    y2: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(v) for v in (self.x1, self.y1, self.x2, self.y2)):
            raise ValueError(f"box is not finite: {self}")
        if self.x2 <= self.x1 or self.y2 <= self.y1:
            raise ValueError(f"box has no area: {self}")


@dataclass(frozen=True, slots=True)
class Finding:
    """One lesion box. Tentative when its confidence is below the bundle's firm level."""

    label: str
    class_index: int
    confidence: float
    box: Box
    tentative: bool


@dataclass(frozen=True, slots=True)
class MemberScore:
    """One classifier's probability of "abnormal" and its weight in the ensemble."""

    name: str
    architecture: str
    probability: float
    weight: float


@dataclass(frozen=True, slots=True)
class Familiarity:
    """How far an image lies from the training images: beyond `cut`, 1 % of those like them do."""

    distance: float
    cut: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.distance < math.inf:  # also refuses NaN
            raise ValueError(f"distance out of range: {self.distance}")

    @property
    def unlike_training_images(self) -> bool:
        return self.distance > self.cut


@dataclass(frozen=True, slots=True)
class ActivationMap:
    """Where the classifiers saw "abnormal": values by row and column of an even grid over the
    image, in logits. Positive ones speak for abnormal."""

    values: tuple[tuple[float, ...], ...]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.values), len(self.values[0])


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the models said. `findings` is None when the detector did not run, `familiarity` when
    the bundle cannot tell, `activation` when the image is normal.

    `candidates` are all boxes above the confidence that a caller asked for, before any rule is
    applied to them: for evaluation, never for showing.
    """

    probability: float
    threshold: float
    review_band: tuple[float, float]
    members: tuple[MemberScore, ...]
    findings: tuple[Finding, ...] | None
    firm_confidence: float
    tentative_confidence: float
    candidates: tuple[Finding, ...] = ()
    familiarity: Familiarity | None = None
    activation: ActivationMap | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.probability <= 1.0:  # also refuses NaN
            raise ValueError(f"probability out of range: {self.probability}")

    @property
    def abnormal(self) -> bool:
        return self.probability > self.threshold

    @property
    def near_cutoff(self) -> bool:
        """Whether so little would turn the decision that it deserves a second look."""
        return self.review_band[0] <= self.probability <= self.review_band[1]

    @property
    def decision(self) -> str:
        return "abnormal" if self.abnormal else "normal"

    @property
    def agreement(self) -> Agreement:
        if self.findings is None:
            return Agreement.NOT_COMPARED
        firm = any(not f.tentative for f in self.findings)
        if self.abnormal and not self.findings:
            return Agreement.ABNORMAL_WITHOUT_FINDINGS
        if not self.abnormal and firm:
            return Agreement.FINDINGS_ON_NORMAL
        return Agreement.AGREE


class TrainingData(StrEnum):
    """What a bundle learned from; decides which caveat stands beside its results."""

    NONE = "none"
    SYNTHETIC = "synthetic"
    PATIENTS = "patients"
    UNKNOWN = "unknown"


_UNTRAINED = "Untrained weights: scores and boxes are random and mean nothing."
_SYNTHETIC = "Synthetic demo weights: results on patients mean nothing."
_ASSUMED = (
    "Assumed profile: these weights came without a manifest, so preprocessing, member weights and "
    "cut-off are the standard ones, not known to fit them."
)
CAVEATS = (_UNTRAINED, _SYNTHETIC, _ASSUMED)


@dataclass(frozen=True, slots=True)
class BundleSummary:
    """What a result says about the weights that made it."""

    name: str
    assumed_profile: bool
    training_data: TrainingData
    description: str
    licence: str
    intended_use: str
    classes: tuple[str, ...]

    @property
    def caveat(self) -> str | None:
        """What must stand beside every result of this bundle, if anything."""
        sentences = []
        if self.training_data is TrainingData.NONE:
            sentences.append(_UNTRAINED)
        if self.training_data is TrainingData.SYNTHETIC:
            sentences.append(_SYNTHETIC)
        if self.assumed_profile:
            sentences.append(_ASSUMED)
        return " ".join(sentences) or None


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """The whole answer to one radiograph. `fingerprint` is the SHA-256 of the weights."""

    radiograph: Radiograph
    prediction: Prediction
    bundle: BundleSummary
    engine: str
    device: str
    other_body_part_allowed: bool
    notices: tuple[Notice, ...]
    fingerprint: str = ""
    stage_ms: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
