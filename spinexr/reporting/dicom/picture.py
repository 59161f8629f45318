"""The annotated image as a Secondary Capture, for what shows nothing else."""

from __future__ import annotations

import numpy as np
from highdicom.sc import SCImage
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as standard

from spinexr.reporting import overlay
from spinexr.reporting.dicom.context import FOR_RESEARCH, Context


def build(context: Context) -> Dataset:
    """The picture of `overlay.draw` at full size, uncompressed."""
    image = context.image
    picture = SCImage(
        pixel_array=np.asarray(overlay.draw(context.analysis)),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),  # replaced below
        study_instance_uid=image.StudyInstanceUID,
        **context.common,
    )
    # Type 2C: must exist, may be empty.
    picture.PatientOrientation = context.source.get("PatientOrientation")
    picture.ImageType = ["DERIVED", "SECONDARY"]
    picture.ConversionType = "WSD"  # made on a workstation
    picture.BurnedInAnnotation = "YES"
    picture.DerivationDescription = f"Result of SpineXR drawn into the image. {FOR_RESEARCH}"
    picture.ImageComments = FOR_RESEARCH
    picture.SourceImageSequence = [_reference(image)]
    if "BodyPartExamined" in context.source:
        picture.BodyPartExamined = context.source.BodyPartExamined
    if context.source.get("LossyImageCompression") == "01":  # once lossy, always so
        picture.LossyImageCompression = "01"
    return picture


def _reference(image: Dataset) -> Dataset:
    purpose = Dataset()
    code = standard.DCM.SourceImageForImageProcessingOperation
    purpose.CodeValue, purpose.CodingSchemeDesignator = code.value, code.scheme_designator
    purpose.CodeMeaning = code.meaning
    reference = Dataset()
    reference.ReferencedSOPClassUID = image.SOPClassUID
    reference.ReferencedSOPInstanceUID = image.SOPInstanceUID
    reference.PurposeOfReferenceCodeSequence = [purpose]
    return reference
