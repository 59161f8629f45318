"""How values are written on the page."""

from __future__ import annotations

from flask import Flask

from spinexr.reporting import as_json
from spinexr.reporting.palette import class_colour

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_AGREEMENT = {
    "abnormal_without_findings": "The classifiers call the image abnormal, but the detector marks "
    "nothing on it.",
    "findings_on_normal": "The classifiers call the image normal, but the detector marks firm "
    "findings on it.",
}


def register(app: Flask) -> None:
    """Make the helpers known to the templates."""
    app.jinja_env.globals.update(
        headline=headline,
        agreement_sentence=agreement_sentence,
        colour_of=colour_of,
        data_uri=as_json.data_uri,
    )


def headline(result: dict[str, object]) -> str:
    """The answer in one sentence, from the JSON document of an analysis."""
    detection = result["detection"]
    assert isinstance(detection, dict)  # noqa: S101  (the document's own shape)
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


def agreement_sentence(result: dict[str, object]) -> str | None:
    """What to say when classifier and detector disagree."""
    detection = result["detection"]
    assert isinstance(detection, dict)  # noqa: S101  (the document's own shape)
    return _AGREEMENT.get(detection["agreement"])


def colour_of(label: str, classes: list[str]) -> str:
    """The colour of a class as #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*class_colour(classes.index(label)))


def _spell(number: int) -> str:
    return _NUMBERS[number] if number < len(_NUMBERS) else str(number)
