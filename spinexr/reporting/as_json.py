"""Analysis → the JSON document of docs/schema/analysis-1.schema.json."""

from __future__ import annotations

import base64
import hmac
from typing import Any

from spinexr import DISCLAIMER, __version__
from spinexr.domain import Analysis, Finding, Place
from spinexr.reporting.overlay import AnnotatedImage

# Raised by a minor step when something is added, by a major one when something changes or goes.
SCHEMA_VERSION = "1.3"


def document(
    analysis: Analysis,
    *,
    image: AnnotatedImage | None = None,
    activation: bool = False,
    grouping_key: str = "",
) -> dict[str, Any]:
    """The analysis as plain JSON values.

    Args:
        image: the annotated image to embed as a data URI; left out when None.
        activation: also give the class activation map, null on a normal image.
        grouping_key: also say which images belong together, by a study's HMAC with this key: who
            did not choose the key learns nothing from it.
    """
    result = _document(analysis, image)
    if activation:
        found = analysis.prediction.activation
        result["activation_map"] = found and {
            "rows": found.shape[0],
            "columns": found.shape[1],
            "values": [list(row) for row in found.values],
        }
    if grouping_key:
        result["grouping"] = _grouping(analysis.radiograph.place, grouping_key)
    return result


def _grouping(place: Place | None, key: str) -> dict[str, Any] | None:
    if place is None:
        return None
    return {
        "study": hmac.new(key.encode(), place.study_uid.encode(), "sha256").hexdigest()[:16],
        "series_number": place.series_number,
        "instance_number": place.instance_number,
    }


def _document(analysis: Analysis, image: AnnotatedImage | None) -> dict[str, Any]:
    prediction, bundle, radiograph = analysis.prediction, analysis.bundle, analysis.radiograph
    spacing, known = radiograph.spacing, prediction.familiarity
    return {
        "schema_version": SCHEMA_VERSION,
        "software": {"name": "SpineXR", "version": __version__},
        "disclaimer": DISCLAIMER,
        "decision": prediction.decision,
        "probability": prediction.probability,
        "threshold": prediction.threshold,
        "review": {
            "low": prediction.review_band[0],
            "high": prediction.review_band[1],
            "near_cutoff": prediction.near_cutoff,
        },
        "members": [
            {
                "name": m.name,
                "architecture": m.architecture,
                "probability": m.probability,
                "weight": m.weight,
            }
            for m in prediction.members
        ],
        "detection": {
            "ran": prediction.findings is not None,
            "agreement": prediction.agreement.value,
            "firm_confidence": prediction.firm_confidence,
            "tentative_confidence": prediction.tentative_confidence,
            "findings": [_finding(f) for f in prediction.findings or ()],
        },
        "familiarity": known
        and {
            "distance": known.distance,
            "cut": known.cut,
            "unlike_training_images": known.unlike_training_images,
        },
        "notices": [{"code": n.code, "message": n.message} for n in analysis.notices],
        "other_body_part_allowed": analysis.other_body_part_allowed,
        "bundle": {
            "name": bundle.name,
            "assumed_profile": bundle.assumed_profile,
            "training_data": bundle.training_data.value,
            "description": bundle.description,
            "caveat": bundle.caveat,
            "licence": bundle.licence,
            "intended_use": bundle.intended_use,
            "classes": list(bundle.classes),
        },
        "engine": {"name": analysis.engine, "device": analysis.device},
        "image": {
            "rows": radiograph.rows,
            "columns": radiograph.columns,
            "photometric_interpretation": radiograph.photometric.value,
            "pixel_spacing": spacing
            and {
                "row_mm": spacing.row_mm,
                "column_mm": spacing.column_mm,
                "source": spacing.source.value,
            },
            "annotated": image
            and {
                "media_type": image.media_type,
                "width": image.width,
                "height": image.height,
                "scale": image.scale,
                "data_uri": data_uri(image),
            },
        },
        "metadata": [
            {"tag": a.tag, "keyword": a.keyword, "name": a.name, "value": a.value}
            for a in radiograph.attributes
        ],
        "stage_ms": {name: round(ms, 3) for name, ms in analysis.stage_ms.items()},
    }


def data_uri(image: AnnotatedImage) -> str:
    """The picture as a `data:` URI (RFC 2397)."""
    return f"data:{image.media_type};base64,{base64.b64encode(image.data).decode('ascii')}"


def _finding(finding: Finding) -> dict[str, Any]:
    box = finding.box
    return {
        "label": finding.label,
        "confidence": finding.confidence,
        "status": "tentative" if finding.tentative else "firm",
        "box": {"x1": box.x1, "y1": box.y1, "x2": box.x2, "y2": box.y2},
    }
