"""How values are written on the page."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from flask import Flask

from spinexr.reporting import as_json
from spinexr.reporting.palette import class_colour
from spinexr.web import texts
from spinexr.web.words import gettext, ngettext

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

# Where the standard's name of an attribute is not what people say, or its unit goes without saying.
PLAIN_NAMES: Mapping[str, str] = MappingProxyType({
    "BodyPartExamined": "Body part",
    "ViewPosition": "View",
    "PatientOrientation": "Orientation",
    "ManufacturerModelName": "Type of machine",
    "KVP": "Tube voltage in kV",
    "Exposure": "Exposure in mAs",
    "DistanceSourceToDetector": "Source to detector in mm",
    "Rows": "Height in pixels",
    "Columns": "Width in pixels",
    "BitsStored": "Bits per pixel",
    "PhotometricInterpretation": "Kind of greyscale",
    "PixelSpacing": "Pixel spacing in mm",
    "ImagerPixelSpacing": "Pixel spacing at the detector in mm",
    "PresentationIntentType": "Made",
    "BurnedInAnnotation": "Text in the image",
    "TransferSyntaxUID": "Encoding",
})  # fmt: skip


def register(app: Flask) -> None:
    """Make the helpers known to the templates."""
    app.jinja_env.globals.update(
        headline=headline,
        decision_word=decision_word,
        status_word=status_word,
        picture_text=picture_text,
        scale_text=scale_text,
        agreement_sentence=agreement_sentence,
        colour_of=colour_of,
        data_uri=as_json.data_uri,
        attribute_name=attribute_name,
        texts_for_scripts=texts.for_scripts,
        what_to_do=texts.what_to_do,
    )


def attribute_name(attribute: Mapping[str, str]) -> str:
    """What an attribute of `metadata` is called on the page."""
    return gettext(PLAIN_NAMES.get(attribute["keyword"], attribute["name"]))


def headline(result: dict[str, Any]) -> str:
    """The answer in one sentence, from the JSON document of an analysis."""
    detection = result["detection"]
    start = gettext(
        "%(decision)s, %(probability)s (cut-off %(threshold)s)",
        decision=decision_word(result["decision"]),
        probability=f"{result['probability']:.3f}",
        threshold=f"{result['threshold']:g}",
    )
    if not detection["ran"]:
        return f"{start}."
    statuses = [f["status"] for f in detection["findings"]]
    firm, tentative = statuses.count("firm"), statuses.count("tentative")
    nothing = gettext("no findings marked")
    parts = []
    if firm:
        parts.append(
            ngettext("%(number)s firm finding", "%(number)s firm findings", firm,
                     number=_spell(firm))
        )  # fmt: skip
    if tentative and firm:
        parts.append(gettext("%(number)s tentative", number=_spell(tentative)))
    elif tentative:
        parts.append(
            ngettext("%(number)s tentative finding", "%(number)s tentative findings", tentative,
                     number=_spell(tentative))
        )  # fmt: skip
    return f"{start}: {', '.join(parts)}." if parts else f"{start}: {nothing}."


def decision_word(decision: str) -> str:
    """Normal or Abnormal, to begin a sentence."""
    return gettext("Abnormal") if decision == "abnormal" else gettext("Normal")


def status_word(status: str) -> str:
    """Firm or tentative."""
    return gettext("firm") if status == "firm" else gettext("tentative")


def picture_text(result: dict[str, Any]) -> str:
    """The radiograph in words, for those who do not see it."""
    count = len(result["detection"]["findings"])
    if not count:
        return gettext("The radiograph, with nothing marked on it.")
    return ngettext(
        "The radiograph with %(number)s marked finding; the table lists it.",
        "The radiograph with %(number)s marked findings; the table lists them.",
        count,
        number=_spell(count),
    )


def scale_text(result: dict[str, Any]) -> str:
    """The chart of the scores in words."""
    return gettext(
        "Probability %(probability)s on a scale from 0 to 1, cut-off %(threshold)s; %(members)s",
        probability=f"{result['probability']:.3f}",
        threshold=f"{result['threshold']:.3f}",
        members=", ".join(f"{m['name']} {m['probability']:.3f}" for m in result["members"]),
    )


def agreement_sentence(result: dict[str, Any]) -> str | None:
    """What to say when classifier and detector disagree."""
    agreement = result["detection"]["agreement"]
    if agreement == "abnormal_without_findings":
        return gettext(
            "The classifiers call the image abnormal, but the detector marks nothing on it."
        )
    if agreement == "findings_on_normal":
        return gettext(
            "The classifiers call the image normal, but the detector marks firm findings on it."
        )
    return None


def colour_of(label: str, classes: list[str]) -> str:
    """The colour of a class as #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*class_colour(classes.index(label)))


def _spell(number: int) -> str:
    return gettext(NUMBERS[number]) if number < len(NUMBERS) else str(number)
