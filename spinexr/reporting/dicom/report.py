"""The result as a Comprehensive 3D SR by TID 1500 of PS3.16."""

from __future__ import annotations

from typing import Any

import numpy as np
from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as standard

from spinexr import __version__
from spinexr.domain import Box, Finding
from spinexr.reporting.codes import Code
from spinexr.reporting.dicom.context import NAME, Context

_LONGEST_PARAMETER = 1024  # UT would hold more; readers show a line


def build(context: Context) -> Dataset:
    """The report: what the ensemble says of the image, and a group for each finding."""
    prediction, image = context.analysis.prediction, context.image
    device = sr.ObserverContext(
        observer_type=standard.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=context.uid("device"),
            name=NAME,
            manufacturer_name=NAME,
            model_name=NAME,
            serial_number=context.analysis.fingerprint or None,
        ),
    )
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=device),
        procedure_reported=standard.SCT.PlainRadiography,
        imaging_measurements=[
            _image_result(context, image),
            *(_finding(context, image, n, f) for n, f in enumerate(prediction.findings or (), 1)),
        ],
        title=standard.DCM.ImagingMeasurementReport,
    )
    report = sr.Comprehensive3DSR(
        evidence=[image],
        content=content[0],
        # Both looked at the image, or one did (PS3.3 C.17.2: the criteria are the maker's;
        # docs/dicom.md states them).
        is_complete=prediction.findings is not None,
        is_final=False,
        is_verified=False,
        **context.common,
    )
    scheme = Dataset()
    scheme.CodingSchemeDesignator = context.codes.scheme
    scheme.CodingSchemeName = context.codes.scheme_name
    scheme.CodingSchemeResponsibleOrganization = NAME
    report.CodingSchemeIdentificationSequence = [scheme]
    return report


def _image_result(
    context: Context, image: Dataset
) -> sr.PlanarROIMeasurementsAndQualitativeEvaluations:
    """The result for the image, with all of it as its region.

    A group without a region (TID 1501) would do, but OHIF 3.12 fails on a report that has one.
    """
    prediction, concepts = context.analysis.prediction, context.codes.concepts
    group = _group(
        context, image, Box(0.0, 0.0, float(image.Columns), float(image.Rows)),
        uid=context.uid("tracking", image.SOPInstanceUID),
        identifier="Image",
        finding_type=_concept(concepts["image_result"]),
        algorithm_id=_algorithm(_parameters(context)),
        measurements=[
            sr.Measurement(_concept(concepts[name]), value, standard.UCUM.NoUnits)
            for name, value in (
                ("probability", prediction.probability), ("cutoff", prediction.threshold)
            )
        ],
        qualitative_evaluations=[
            sr.QualitativeEvaluation(
                _concept(concepts["decision"]), _concept(concepts[prediction.decision])
            )
        ],
    )  # fmt: skip
    for text in (context.result, *context.caveats):
        group[0].ContentSequence.append(
            sr.TextContentItem(standard.DCM.Comment, text, sr.RelationshipTypeValues.CONTAINS)
        )
    return group


def _finding(
    context: Context, image: Dataset, number: int, finding: Finding
) -> sr.PlanarROIMeasurementsAndQualitativeEvaluations:
    concepts = context.codes.concepts
    return _group(
        context, image, finding.box,
        uid=context.uid("tracking", image.SOPInstanceUID, str(number)),
        identifier=f"Finding {number}: {finding.label}",
        finding_type=_concept(context.codes.finding(finding.label)),
        algorithm_id=_algorithm([_bundle(context)]),
        measurements=[
            sr.Measurement(
                _concept(concepts["confidence"]), finding.confidence, standard.UCUM.NoUnits
            )
        ],
        qualitative_evaluations=[
            sr.QualitativeEvaluation(
                _concept(concepts["status"]),
                _concept(concepts["tentative" if finding.tentative else "firm"]),
            )
        ],
    )  # fmt: skip


def _group(
    context: Context, image: Dataset, box: Box, *, uid: str, identifier: str, **said: Any
) -> sr.PlanarROIMeasurementsAndQualitativeEvaluations:
    """What is `said` of a box (TID 1410)."""
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=uid, identifier=identifier),
        referenced_region=sr.ImageRegion(
            sr.GraphicTypeValues.POLYLINE,
            corners(box),
            sr.SourceImageForRegion(image.SOPClassUID, image.SOPInstanceUID),
        ),
        finding_sites=_sites(context),
        geometric_purpose=standard.SCT.BoundedBy,
        **said,
    )


def corners(box: Box) -> np.ndarray:
    """float64 (5, 2): x and y around the box and back to its first corner, in stored pixels.

    Coordinates of PS3.3 C.18.6.1.2 and C.10.5.1.2 begin at the outer corner of the top left pixel,
    as boxes do.
    """
    x1, y1, x2, y2 = box.x1, box.y1, box.x2, box.y2
    return np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)])


def _algorithm(parameters: list[str]) -> sr.AlgorithmIdentification:
    return sr.AlgorithmIdentification(
        name=NAME, version=__version__, manufacturer=NAME, parameters=parameters
    )


def _parameters(context: Context) -> list[str]:
    """What the algorithm was used with, in full; findings name the bundle alone."""
    analysis = context.analysis
    members = ", ".join(f"{m.name} {m.weight:g}" for m in analysis.prediction.members)
    return [
        text[:_LONGEST_PARAMETER]
        for text in (
            f"Weights: {analysis.bundle.name}",
            _bundle(context),
            f"Ensemble: {members}",
            f"Engine: {analysis.engine}",
        )
    ]


def _bundle(context: Context) -> str:
    return f"Bundle SHA-256: {context.analysis.fingerprint}"


def _sites(context: Context) -> list[sr.FindingSite]:
    return [sr.FindingSite(_concept(region))] if (region := context.region) else []


def _concept(code: Code) -> sr.CodedConcept:
    return sr.CodedConcept(code.value, code.scheme, code.meaning)
