"""POST /upload: one radiograph in, a page or a JSON document out."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath, PureWindowsPath

from flask import Blueprint, Request, Response, jsonify, render_template, request

from spinexr.domain import Analysis, DetectPolicy, ObjectKind
from spinexr.errors import (
    FileMissingError,
    InvalidOptionError,
    SeveralFilesError,
    UnsupportedExtensionError,
)
from spinexr.reporting import as_json, overlay
from spinexr.web.analysing import analysed
from spinexr.web.errors import too_large
from spinexr.web.state import state

blueprint = Blueprint("upload", __name__)

ACCEPTED_EXTENSIONS = (".dcm", ".dicom")
_DICOM = "application/dicom"
_DICOM_PARTS = f'multipart/related; type="{_DICOM}"'
# Many leave out the quotes that RFC 2045 wants; the parser then keeps what is before the slash.
_ASKED_IN_PARTS = (_DICOM_PARTS, "multipart/related; type=application", "multipart/related")
_ANSWERS = ("text/html", "application/json", "image/png", _DICOM, *_ASKED_IN_PARTS)
_LONGEST_KEY = 128
_YES, _NO = ("1", "true", "on", "yes"), ("", "0", "false", "off", "no")


@dataclass(frozen=True, slots=True)
class Upload:
    """What a client asks for."""

    contents: Callable[[], bytes]  # once, before the request ends
    detect: DetectPolicy
    allow_other_body_part: bool
    activation: bool
    grouping_key: str
    kind: ObjectKind


@blueprint.post("/upload")
def upload() -> Response:
    settings = state().settings
    state().models.predictor()  # a file is not heard out for models that are not there
    wanted = parse(request, settings.max_upload_bytes, settings.detect_policy)
    analysis = analysed(
        wanted.contents, detect=wanted.detect, allow_other_body_part=wanted.allow_other_body_part
    )
    return answer(
        analysis,
        activation=wanted.activation,
        grouping_key=wanted.grouping_key,
        kind=wanted.kind,
    )


def answer(
    analysis: Analysis,
    *,
    activation: bool = False,
    grouping_key: str = "",
    kind: ObjectKind = ObjectKind.REPORT,
) -> Response:
    """The analysis as the client wants it: a page, the JSON document, the annotated picture, or
    DICOM objects: the one of `kind`, or all of them in parts.

    Raises:
        NotReferableError: DICOM objects cannot be made of the file.
    """
    wanted = wanted_type(request, *_ANSWERS)
    if wanted == "image/png":
        response = Response(overlay.as_png(analysis).data, content_type=wanted)
    elif wanted == _DICOM:
        response = Response(_objects(analysis, (kind,))[0], content_type=_DICOM)
    elif wanted in _ASKED_IN_PARTS:
        response = _in_parts(_objects(analysis, tuple(ObjectKind)))
    elif wanted == "application/json":
        picture = overlay.as_jpeg(analysis)
        document = as_json.document(
            analysis, image=picture, activation=activation, grouping_key=grouping_key
        )
        response = jsonify(document)
    else:
        # The page draws the boxes itself, over the plain picture.
        page = render_template(
            "result.html",
            result=as_json.document(analysis, grouping_key=grouping_key),
            picture=overlay.as_jpeg(analysis, plain=True),
            heat=overlay.heat(analysis),
        )
        response = Response(page)
    response.vary.add("Accept")
    return response


def _objects(analysis: Analysis, kinds: tuple[ObjectKind, ...]) -> list[bytes]:
    # Late: a server reads files elsewhere, and needs DICOM in its memory once it is asked for it.
    from spinexr.reporting import dicom

    now = datetime.now()
    return [o.data for o in dicom.build(analysis, codes=state().codes, now=now, kinds=kinds)]


def _in_parts(objects: list[bytes]) -> Response:
    """As PS3.18 section 8.6.1.2 has it."""
    boundary = secrets.token_hex(16)  # does not occur in any of them
    start = f"--{boundary}\r\nContent-Type: {_DICOM}\r\n\r\n".encode()
    body = b"".join(start + data + b"\r\n" for data in objects) + f"--{boundary}--\r\n".encode()
    return Response(body, content_type=f"{_DICOM_PARTS}; boundary={boundary}")


def parse(request: Request, max_bytes: int, default_detect: DetectPolicy) -> Upload:
    """Read the form: `file`, and the options that docs/api.md lists.

    Raises:
        FileMissingError, SeveralFilesError, InvalidOptionError, UnsupportedExtensionError,
        TooLargeError.
    """
    files = [f for f in request.files.getlist("file") if f.filename]
    if not files:
        raise FileMissingError(
            "Send the radiograph as multipart/form-data in the field “file”, with a file name."
        )
    if len(files) > 1 or len(list(request.files.items(multi=True))) > 1:
        raise SeveralFilesError("Send one radiograph per request.")
    file = files[0]
    _check_extension(file.filename or "")
    detect = request.values.get("detect", "")
    if detect not in ("", *DetectPolicy):
        raise InvalidOptionError(f"detect must be one of {', '.join(DetectPolicy)}.")
    allow, activation = (_switch(request, n) for n in ("allow_other_body_part", "activation_map"))
    grouping_key = request.values.get("grouping_key", "")
    if len(grouping_key) > _LONGEST_KEY:
        raise InvalidOptionError(f"grouping_key may have {_LONGEST_KEY} characters.")
    kind = request.values.get("object", "")
    if kind not in ("", *ObjectKind):
        raise InvalidOptionError(f"object must be one of {', '.join(ObjectKind)}.")
    if file.stream.seek(0, os.SEEK_END) > max_bytes:
        raise too_large()
    file.stream.seek(0)
    return Upload(
        contents=file.stream.read,
        detect=DetectPolicy(detect) if detect else default_detect,
        allow_other_body_part=allow,
        activation=activation,
        grouping_key=grouping_key,
        kind=ObjectKind(kind) if kind else ObjectKind.REPORT,
    )


def _switch(request: Request, name: str) -> bool:
    value = request.values.get(name, "").lower()
    if value not in _YES + _NO:
        raise InvalidOptionError(f"{name} must be 1 or 0.")
    return value in _YES


def _check_extension(filename: str) -> None:
    """Accept .dcm, .dicom and none. The name is used for nothing else."""
    name = PurePosixPath(PureWindowsPath(filename).as_posix()).name
    suffix = PurePosixPath(name).suffix.lower()
    # 1.2.840.10008.5 is a UID, as archives name their files: what follows its last dot is no type.
    if suffix in ("", *ACCEPTED_EXTENSIONS) or re.fullmatch(r"\d+(\.\d+)+", name):
        return
    raise UnsupportedExtensionError(
        "The file name ends in something other than .dcm or .dicom. Choose a DICOM file; pictures "
        "such as PNG or JPEG lack what the analysis needs."
    )


def wanted_type(request: Request, *offered: str) -> str:
    """Which of the offered media types the client prefers; the first where it does not say."""
    return request.accept_mimetypes.best_match(offered) or offered[0]
