"""How values are written on the page."""

from __future__ import annotations

from typing import Any

from flask import Flask

from spinexr.reporting import as_json
from spinexr.reporting.palette import class_colour
from spinexr.web import texts

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_AGREEMENT = {
    "abnormal_without_findings": "The classifiers call the image abnormal, but the detector marks "
    "nothing on it.",
    "findings_on_normal": "The classifiers call the image normal, but the detector marks firm "
    "findings on it.",
}


def register(app: Flask) -> None:
    """Make the helpers known to the templates."""
    app.jinja_env.add_extension("jinja2.ext.i18n")
    install: Any = app.jinja_env
    install.install_null_translations(newstyle=True)
    app.jinja_env.globals.update(
        headline=headline,
        decision_word=str.capitalize,
        status_word=str,
        picture_text=picture_text,
        scale_text=scale_text,
        agreement_sentence=agreement_sentence,
        colour_of=colour_of,
        data_uri=as_json.data_uri,
        texts_for_scripts=texts.for_scripts,
    )


def headline(result: dict[str, Any]) -> str:
    """The answer in one sentence, from the JSON document of an analysis."""
    detection = result["detection"]
    start = (
        f"{str(result['decision']).capitalize()}, {result['probability']:.3f} "
        f"(cut-off {result['threshold']:g})"
    )
    if not detection["ran"]:
        return f"{start}."
    statuses = [f["status"] for f in detection["findings"]]
    firm, tentative = statuses.count("firm"), statuses.count("tentative")
    if not statuses:
        return f"{start}: no findings marked."
    parts = [f"{_spell(firm)} firm {'finding' if firm == 1 else 'findings'}"] if firm else []
    if tentative:
        noun = "" if firm else " finding" if tentative == 1 else " findings"
        parts.append(f"{_spell(tentative)} tentative{noun}")
    return f"{start}: {', '.join(parts)}."


def picture_text(result: dict[str, Any]) -> str:
    """The radiograph in words, for those who do not see it."""
    count = len(result["detection"]["findings"])
    if not count:
        return "The radiograph, with nothing marked on it."
    noun = "finding" if count == 1 else "findings"
    return f"The radiograph with {_spell(count)} marked {noun}; the table lists them."


def scale_text(result: dict[str, Any]) -> str:
    """The chart of the scores in words."""
    members = ", ".join(f"{m['name']} {m['probability']:.3f}" for m in result["members"])
    return (
        f"Probability {result['probability']:.3f} on a scale from 0 to 1, cut-off "
        f"{result['threshold']:.3f}; {members}"
    )


def agreement_sentence(result: dict[str, Any]) -> str | None:
    """What to say when classifier and detector disagree."""
    detection = result["detection"]
    return _AGREEMENT.get(detection["agreement"])


def colour_of(label: str, classes: list[str]) -> str:
    """The colour of a class as #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*class_colour(classes.index(label)))


def _spell(number: int) -> str:
    return _NUMBERS[number] if number < len(_NUMBERS) else str(number)
