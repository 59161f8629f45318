"""Boxes and labels as a Grayscale Softcopy Presentation State: graphics over the image as it is."""

from __future__ import annotations

import re
from copy import deepcopy
from itertools import count

from highdicom import pr
from highdicom.color import CIELabColor
from pydicom.dataset import Dataset

from spinexr.domain import Finding
from spinexr.reporting.dicom.context import FOR_RESEARCH, Context
from spinexr.reporting.dicom.report import corners
from spinexr.reporting.palette import RGB, class_colour

_PIXEL = pr.AnnotationUnitsValues.PIXEL
_DISPLAY = pr.AnnotationUnitsValues.DISPLAY
_RESULT_LAYER, _RESULT_COLOUR = "SPINEXR RESULT", (235, 238, 242)
_LONGEST_NAME, _LONGEST_TEXT = 16, 1024  # CS, ST
_THICKNESS = 2.0  # points on the display
_DOTS = 0x3333_3333  # line pattern of PS3.3 C.10.5.1: two on, two off


def build(context: Context) -> Dataset:
    """The presentation state: a layer for each class of findings, and one with the result.

    A state replaces what the image says of its display (PS3.4 section N.2), so that is repeated:
    neither window nor polarity nor orientation is changed.
    """
    image = context.image
    layers = _Layers(context.analysis.bundle.classes)
    annotations = [_result(context, image, layers.result)]
    for finding in context.analysis.prediction.findings or ():
        annotations.append(_finding(image, layers.of(finding), finding))
    state = pr.GrayscaleSoftcopyPresentationState(
        referenced_images=[image],
        content_label="SPINEXR",
        content_description=FOR_RESEARCH,
        graphic_annotations=annotations,
        graphic_layers=layers.used,
        **context.common,
    )
    # Type 2C, for what may be a paired body part: must exist, may be empty.
    state.Laterality = context.source.get("Laterality", "")
    _repeat_display(state, context.source)
    return state


class _Layers:
    """The layers in use, the result's below all others."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self._names = layer_names(classes)
        self.result = _layer(_RESULT_LAYER, 1, "Result for the image", _RESULT_COLOUR)
        self._by_class: dict[int, pr.GraphicLayer] = {}

    def of(self, finding: Finding) -> pr.GraphicLayer:
        index = finding.class_index
        if index not in self._by_class:
            name = self._names.get(finding.label) or f"CLASS {index}"
            colour = class_colour(index)
            order = len(self._by_class) + 2
            self._by_class[index] = _layer(name, order, finding.label, colour)
        return self._by_class[index]

    @property
    def used(self) -> list[pr.GraphicLayer]:
        return [self.result, *self._by_class.values()]


def layer_names(classes: tuple[str, ...]) -> dict[str, str]:
    """A code string of at most 16 characters for each class, no two the same."""
    names: dict[str, str] = {}
    for label in classes:
        plain = ""
        for word in re.findall(r"[A-Z0-9]+", label.upper()):
            if len(longer := f"{plain} {word[:_LONGEST_NAME]}".strip()) <= _LONGEST_NAME:
                plain = longer
        plain = plain or "CLASS"
        name = plain
        for n in count(2):
            if name not in (*names.values(), _RESULT_LAYER):
                break
            name = f"{plain[: _LONGEST_NAME - 1 - len(str(n))]} {n}"
        names[label] = name
    return names


def _layer(name: str, order: int, description: str, colour: RGB) -> pr.GraphicLayer:
    description = description.replace("\\", " ")[:64]  # LO
    return pr.GraphicLayer(name, order, description, CIELabColor.from_rgb(*colour))


def _result(context: Context, image: Dataset, layer: pr.GraphicLayer) -> pr.GraphicAnnotation:
    caveat = context.analysis.bundle.caveat
    lines = [context.result, *([caveat] if caveat else []), FOR_RESEARCH]
    text = pr.TextObject(
        _short_text("\r\n".join(lines)),
        _DISPLAY,
        bounding_box=(0.01, 0.01, 0.6, 0.12),
        text_justification=pr.TextJustificationValues.LEFT,
    )
    return pr.GraphicAnnotation([image], layer, text_objects=[text])


def _finding(image: Dataset, layer: pr.GraphicLayer, finding: Finding) -> pr.GraphicAnnotation:
    box = finding.box
    outline = pr.GraphicObject(pr.GraphicTypeValues.POLYLINE, corners(box), _PIXEL)
    style = Dataset()
    style.PatternOnColorCIELabValue = list(
        CIELabColor.from_rgb(*class_colour(finding.class_index)).value
    )
    style.PatternOnOpacity = 1.0
    style.LineThickness = _THICKNESS
    style.LineDashingStyle = "DASHED" if finding.tentative else "SOLID"
    if finding.tentative:
        style.LinePattern = _DOTS
    # Type 1 even where there is no shadow (PS3.3 table 10-22).
    style.ShadowStyle = "OFF"
    style.ShadowOffsetX = style.ShadowOffsetY = style.ShadowOpacity = 0.0
    style.ShadowColorCIELabValue = list(CIELabColor.from_rgb(0, 0, 0).value)
    outline.LineStyleSequence = [style]
    # What shows no dots shows the question mark, as the picture of the page does.
    label = f"{finding.label} {finding.confidence:.2f}" + (" ?" if finding.tentative else "")
    text = pr.TextObject(
        _short_text(label), _PIXEL, anchor_point=(box.x1, box.y1), anchor_point_visible=False
    )
    return pr.GraphicAnnotation([image], layer, graphic_objects=[outline], text_objects=[text])


def _short_text(text: str) -> str:
    """ST, in which highdicom has no backslash."""
    return text.replace("\\", " ")[:_LONGEST_TEXT]


def _repeat_display(state: Dataset, source: Dataset) -> None:
    for keyword in ("ModalityLUTSequence", "RescaleIntercept", "RescaleSlope", "RescaleType"):
        if keyword in source:
            state[keyword] = deepcopy(source[keyword])
    voi = Dataset()
    for keyword in ("VOILUTSequence", "WindowCenter", "WindowWidth",
                    "WindowCenterWidthExplanation", "VOILUTFunction"):  # fmt: skip
        if keyword in source:
            voi[keyword] = deepcopy(source[keyword])
    if voi:
        state.SoftcopyVOILUTSequence = [voi]
    state.PresentationLUTShape = source.PresentationLUTShape
