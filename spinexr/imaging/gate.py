"""The gate: only single-frame greyscale spine radiographs reach the models."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from pydicom import uid
from pydicom.dataset import Dataset

from spinexr.domain import Notice, Photometric
from spinexr.errors import (
    ConstantImageError,
    CorruptDicomError,
    ImageTooSmallError,
    NoPixelDataError,
    NotGreyscaleError,
    OtherBodyPartError,
    SeveralFramesError,
    UnsupportedModalityError,
    UnsupportedPixelFormatError,
)
from spinexr.imaging import header

SMALLEST_SIDE = 64
BODY_PART_UNKNOWN = Notice(
    "body_part_unknown",
    "The file names no body part. The result means something only if this is a spine.",
)

BURNED_IN = Notice(
    "burned_in_annotation",
    "The file does not rule out that text is burned into its pixels, which may name the patient. "
    "Look before you pass the image on.",
)

FOR_PROCESSING = Notice(
    "for_processing",
    "The file holds an image for processing, as the detector gave it, not as it is displayed. The "
    "weights may never have seen such images. Send the one for presentation if there is one.",
)

# CR and DX are projection radiography; RG is the retired code that film digitisers still write.
RADIOGRAPH_MODALITIES = ("CR", "DX", "RG")
_RADIOGRAPH_SOP_CLASSES = (
    uid.ComputedRadiographyImageStorage,
    uid.DigitalXRayImageStorageForPresentation,
    uid.DigitalXRayImageStorageForProcessing,
)

# Spine terms: DICOM PS3.16 Annex L (CSPINE, LSSPINE, …) and the words of descriptions.
# "Thoracic" alone names no spine: a thoracic film may be a chest film.
_SPINE = re.compile(
    r"""(?:[CTLS]|CT|TL|LS|CS|DL|WHOLE|FULL)?SPINE|SPINES|SPINAL|VERTEBRAE?|VERTEBRAL
    |CERVICAL|LUMBAR|LUMBOSACRAL|THORACOLUMBAR|CERVICOTHORACIC|DORSOLUMBAR
    |SACRUM|SACRAL|COCCYX|SCOLIOSIS|KYPHOSIS|RACHIS|COLUMNA|COLUNA|COLONNA
    |WIRBELSAULE|HWS|BWS|LWS""",
    re.VERBOSE,
)
# Other body parts: PS3.16 Annex L's defined terms, common words and abbreviations, their plurals,
# and the side letters that some makers put in front (LKNEE).
_OTHER = re.compile(
    r"""[LR]?(?:ABDOMEN|ABDOMINAL|ABD|ABDOMENPELVIS|CHESTABDOMEN|CHESTABDPELVIS|NECKCHEST
    |NECKCHESTABDOMEN|NECKCHESTABDPELV|HEADNECK|WHOLEBODY|CHEST|CXR|THORAX|TORAX|LUNG|BRONCHUS
    |MEDIASTINUM|HEART|AORTA|RIB|STERNUM|CLAVICLE|SCAPULA|AXILLA|BREAST|MAMMOGRAPHY|MAMMOGRAM|HEAD
    |SKULL|SCHAEDEL|BRAIN|SCALP|FACIAL|NOSE|NASAL|MOUTH|EYE|EAR|ORBIT|SINUS|JAW|MANDIBLE|MAXILLA
    |ZYGOMA|TMJ|TEETH|TOOTH|DENTAL|SELLA|NECK|LARYNX|PHARYNX|THYROID|TRACHEA|ESOPHAGUS|SHOULDER
    |HUMERUS|ARM|UPPERARM|FOREARM|ELBOW|RADIUS|ULNA|WRIST|HAND|FINGER|THUMB|SCAPHOID|PELVIS|PELVIC
    |BECKEN|BUTTOCK|HIP|FEMUR|FEMORAL|THIGH|UPPERLEG|KNEE|KNIE|GENOU|PATELLA|LEG|LOWERLEG|TIBIA
    |FIBULA|CALF|ANKLE|FOOT|FOREFOOT|HINDFOOT|FEET|TOE|CALCANEUS|HEEL|EXTREMITY|EXTREMITIES|LIMB
    |KIDNEY|URETER|BLADDER|LIVER|SPLEEN|PANCREAS|GALLBLADDER|STOMACH|COLON|RECTUM|UTERUS)(?:E?S)?""",
    re.VERBOSE,
)
# Parts only where a body part is named; in descriptions the word is also a view (French "face").
_OTHER_IN_CODES = re.compile("FACE")
_DEVICE_WORDS = re.compile(r"\bC[\s-]?ARM\b")  # the device, not an arm

_EXPORT_AGAIN = "Export the radiograph again."

_CODED_KEYWORDS = ("BodyPartExamined", "AnatomicRegionSequence")
_REGION_KEYWORDS = (
    *_CODED_KEYWORDS,
    "ViewCodeSequence",
    "SeriesDescription",
    "StudyDescription",
)


def check_header(dataset: Dataset, *, allow_other_body_part: bool) -> tuple[Notice, ...]:
    """Refuse what its header says is no single spine radiograph; notices say what was let through.

    Raises:
        NoPixelDataError, UnsupportedModalityError, SeveralFramesError, NotGreyscaleError,
        UnsupportedPixelFormatError, ImageTooSmallError, OtherBodyPartError, CorruptDicomError.
    """
    if "PixelData" not in dataset:
        raise NoPixelDataError(
            "The file has no Pixel Data (7FE0,0010): it is a report or another object without an "
            "image, or it was cut off while it was copied. Choose the radiograph itself, or copy "
            "the file again."
        )
    notices = [*_check_modality(dataset)]
    _check_pixel_module(dataset)
    notices += _check_body_part(dataset, allow=allow_other_body_part)
    if header.text(dataset, "BurnedInAnnotation").upper() not in ("", "NO"):
        notices.append(BURNED_IN)
    if _is_for_processing(dataset):
        notices.append(FOR_PROCESSING)
    return tuple(notices)


def photometric(dataset: Dataset) -> Photometric:
    """The PhotometricInterpretation of an image that passed `check_header`."""
    return Photometric(header.text(dataset, "PhotometricInterpretation").upper())


def check_range(lowest: int, highest: int) -> None:
    """Refuse an image in which every pixel is the same.

    Raises:
        ConstantImageError
    """
    if lowest == highest:
        raise ConstantImageError(
            f"Every pixel has the value {lowest}: the image shows nothing. {_EXPORT_AGAIN}"
        )


def region_named_by(text: str, *, coded: bool = False) -> str | None:
    """`"spine"`, `"other"` or None for what a text names, word by word.

    Args:
        coded: the text is the value of an attribute for body parts, not a description.
    """
    plain = unicodedata.normalize("NFKD", text.upper()).encode("ascii", "ignore").decode()
    words = re.findall(r"[A-Z]+", _DEVICE_WORDS.sub(" ", plain))
    if any(_SPINE.fullmatch(word) for word in words):
        return "spine"
    others = (_OTHER, _OTHER_IN_CODES) if coded else (_OTHER,)
    named = any(pattern.fullmatch(word) for pattern in others for word in words)
    return "other" if named else None


def _check_modality(dataset: Dataset) -> Iterator[Notice]:
    modality = header.text(dataset, "Modality").upper()
    if modality in RADIOGRAPH_MODALITIES:
        return
    accepted = ", ".join(RADIOGRAPH_MODALITIES)
    if modality:
        raise UnsupportedModalityError(
            f"{header.label('Modality')} is {modality!r}; only radiographs ({accepted}) are "
            "analysed. Choose a projection radiograph of the spine."
        )
    if header.required(dataset, "SOPClassUID") not in _RADIOGRAPH_SOP_CLASSES:
        raise UnsupportedModalityError(
            f"{header.label('Modality')} is missing and the SOP class is not one of radiography; "
            f"only radiographs ({accepted}) are analysed. Choose a projection radiograph of the "
            "spine."
        )
    yield Notice(
        "modality_missing",
        f"{header.label('Modality')} is missing; taken as a radiograph for its SOP class.",
    )


def _check_pixel_module(dataset: Dataset) -> None:
    frames = _whole_number(dataset, "NumberOfFrames", default=1)
    if frames > 1:
        raise SeveralFramesError(
            f"{header.label('NumberOfFrames')} is {frames}; send one radiograph per file."
        )
    interpretation = header.text(dataset, "PhotometricInterpretation").upper()
    samples = _whole_number(dataset, "SamplesPerPixel")
    if samples != 1 or interpretation not in set(Photometric):
        raise NotGreyscaleError(
            f"{header.label('PhotometricInterpretation')} is {interpretation or 'missing'!r} with "
            f"{samples} sample(s) per pixel; a radiograph is MONOCHROME1 or MONOCHROME2 with one. "
            "Choose the radiograph itself, not a picture made of it."
        )
    allocated = _whole_number(dataset, "BitsAllocated")
    stored = _whole_number(dataset, "BitsStored")
    if allocated not in (8, 16) or not 1 <= stored <= allocated:
        raise UnsupportedPixelFormatError(
            f"{header.label('BitsAllocated')} is {allocated} with {stored} bits stored; "
            f"a radiograph has 8 or 16 allocated and no more stored. {_EXPORT_AGAIN}"
        )
    # PS3.5 section 8.1.1; decoders take it for granted and would read the wrong bits.
    high = _whole_number(dataset, "HighBit", default=stored - 1)
    if high != stored - 1:
        raise UnsupportedPixelFormatError(
            f"{header.label('HighBit')} is {high} with {stored} bits stored; DICOM has it one less "
            f"than the bits stored. {_EXPORT_AGAIN}"
        )
    # Never guessed: the wrong sign turns the image inside out.
    if (sign := _whole_number(dataset, "PixelRepresentation")) not in (0, 1):
        raise UnsupportedPixelFormatError(
            f"{header.label('PixelRepresentation')} is {sign}; it must be 0 or 1. {_EXPORT_AGAIN}"
        )
    rows, columns = (_whole_number(dataset, keyword) for keyword in ("Rows", "Columns"))
    if min(rows, columns) < SMALLEST_SIDE:
        raise ImageTooSmallError(
            f"The image is {columns} × {rows} pixels; at least {SMALLEST_SIDE} × {SMALLEST_SIDE} "
            "are needed. Send the original, not a thumbnail."
        )


def _is_for_processing(dataset: Dataset) -> bool:
    """PS3.3 C.8.11.1: DX images come in pairs, raw and as displayed."""
    intent = header.text(dataset, "PresentationIntentType").upper()
    sop_class = header.text(dataset, "SOPClassUID")
    return intent == "FOR PROCESSING" or sop_class == uid.DigitalXRayImageStorageForProcessing


def _check_body_part(dataset: Dataset, *, allow: bool) -> Iterator[Notice]:
    named_spine, unknown = False, ""
    for keyword in _REGION_KEYWORDS:
        text = _region_text(dataset, keyword)
        region = region_named_by(text, coded=keyword in _CODED_KEYWORDS)
        if region == "other" and keyword == "StudyDescription" and named_spine:
            continue  # one image of a study of several regions
        named_spine |= region == "spine"
        if keyword in _CODED_KEYWORDS and text and region is None:
            unknown = f"{header.label(keyword)} reads {text!r}, which SpineXR does not know. "
        if region == "other":
            read = f"{header.label(keyword)} reads {text!r}"
            if not allow:
                raise OtherBodyPartError(
                    f"{read}, which names another body part than the spine. If the image does show "
                    "the spine, have it analysed anyway: “Analyse anyway” on the page, "
                    "allow_other_body_part for programs."
                )
            yield Notice("other_body_part", f"{read}. It was analysed because that was asked for.")
            return
    if not named_spine:
        yield (
            Notice(
                BODY_PART_UNKNOWN.code,
                f"{unknown}The result means something only if this is a spine.",
            )
            if unknown
            else BODY_PART_UNKNOWN
        )


def _region_text(dataset: Dataset, keyword: str) -> str:
    if not keyword.endswith("Sequence"):
        return header.text(dataset, keyword)
    return " ".join(header.text(item, "CodeMeaning") for item in header.items(dataset, keyword))


def _whole_number(dataset: Dataset, keyword: str, *, default: int | None = None) -> int:
    value = header.required(dataset, keyword)
    if value is None or value == "":
        if default is not None:
            return default
        raise CorruptDicomError(
            f"{header.label(keyword)} is missing, so the image is unreadable. {_EXPORT_AGAIN}"
        )
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError) as e:
        raise CorruptDicomError(
            f"{header.label(keyword)} reads {header.clean(value)!r}, not one whole number. "
            "The file is damaged: export or copy it again."
        ) from e
