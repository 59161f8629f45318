"""A bundle over a dataset → predictions, through the one path."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from spinexr.analysis import analyse
from spinexr.datasets.vindr import CLASSES, LabelledImage
from spinexr.errors import ConfigurationError, UnanalysableError
from spinexr.evaluation.detection import ScoredBox
from spinexr.evaluation.predictions import ImagePrediction
from spinexr.imaging import dicom, header
from spinexr.inference.predictor import Predictor

# AP integrates over all confidences; below this one, boxes no longer change it.
_LOWEST_CONFIDENCE = 0.001


def predict(
    images: Iterable[LabelledImage], predictor: Predictor, *, max_pixels: int
) -> Iterator[ImagePrediction]:
    """One prediction per image, in order; an image that cannot be analysed gives its error code.

    The dataset says that its images show spines, so what their headers name is not held against
    them.

    Raises:
        ConfigurationError: the detector names findings that the dataset does not know.
        SpineXRError: the models fail; there is no evaluation of broken models.
    """
    if unknown := set(predictor.engine.class_names) - set(CLASSES):
        raise ConfigurationError(
            f"The detector names {', '.join(sorted(unknown))}, which the dataset does not: its "
            f"findings are {', '.join(CLASSES)}. They cannot be compared."
        )
    for image in images:
        try:
            analysis = analyse(
                image.file.read_bytes(),
                predictor=predictor,
                max_pixels=max_pixels,
                allow_other_body_part=True,
                candidates_from=_LOWEST_CONFIDENCE,
            )
        except UnanalysableError as e:
            yield ImagePrediction(image.image_id, None, error=e.code)
            continue
        prediction = analysis.prediction
        yield ImagePrediction(
            image.image_id,
            prediction.probability,
            {m.name: m.probability for m in prediction.members},
            tuple(ScoredBox(f.label, f.confidence, f.box) for f in prediction.candidates),
        )


def groups_of(images: Iterable[LabelledImage]) -> dict[str, dict[str, str]]:
    """Image id → view, region, age band and sex, as far as the headers know them."""
    groups = {}
    for image in images:
        dataset = dicom.parse_header(image.file)
        groups[image.image_id] = {
            "view": header.text(dataset, "ViewPosition").upper() or "unknown",
            "region": header.text(dataset, "BodyPartExamined").upper() or "unknown",
            "age": _age_band(header.text(dataset, "PatientAge")),
            "sex": header.text(dataset, "PatientSex").upper() or "unknown",
        }
    return groups


def _age_band(age: str) -> str:
    """From DICOM's age string (PS3.5 table 6.2-1, such as 061Y), bands of the ageing spine."""
    if len(age) != 4 or not age[:3].isdigit():
        return "unknown"
    years = int(age[:3]) if age[3] == "Y" else 0
    for below, band in ((18, "0-17"), (40, "18-39"), (60, "40-59"), (80, "60-79")):
        if years < below:
            return band
    return "80+"
