"""The error tree.

Every refusal that a caller can meet is one class with a stable `code` for machines and, per
instance, a `message` for people: what was read and what to do. No class knows about HTTP or exit
codes; the edges map the five families below to theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class SpineXRError(Exception):
    """Anything SpineXR refuses or fails at, with a message that may be shown to the caller."""

    code: ClassVar[str] = "error"
    title: ClassVar[str] = "Something went wrong"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


# --- families: what kind of thing went wrong ------------------------------------------------------


class RequestError(SpineXRError):
    """The request itself is malformed."""

    code = "bad_request"
    title = "The request could not be understood"


class TooLargeError(SpineXRError):
    """More bytes than the limit."""

    code = "too_large"
    title = "The file is too large"


class NotDicomError(SpineXRError):
    """The bytes are not DICOM."""

    code = "not_dicom"
    title = "This is not a DICOM file"


class UnanalysableError(SpineXRError):
    """DICOM, but nothing that may be analysed."""

    code = "unanalysable"
    title = "This file cannot be analysed"


class NotReadyError(SpineXRError):
    """The service cannot answer now."""

    code = "not_ready"
    title = "The service is not ready"


class AccessError(SpineXRError):
    """Whoever asks has to say who they are."""

    code = "access_token_needed"
    title = "An access token is needed"


class ForbiddenError(SpineXRError):
    """A request that is not to be answered from where it comes."""

    code = "forbidden"
    title = "This request is not allowed"


class SlowUploadError(SpineXRError):
    """The request did not arrive in time."""

    code = "upload_timeout"
    title = "The upload took too long"


class RateLimitError(SpineXRError):
    """More requests than one address may send."""

    code = "rate_limited"
    title = "Too many requests"


class ConfigurationError(SpineXRError):
    """A setting or a file of the deployer is nonsensical."""

    code = "configuration"
    title = "The configuration is not valid"


class TrainingError(ConfigurationError):
    """Training cannot go on; what was reached is kept and the message says how to continue."""

    code = "training_stopped"
    title = "Training stopped"


class BatchError(ConfigurationError):
    """A batch cannot go on; what was answered is kept and the message says how to continue."""

    code = "batch_stopped"
    title = "The batch stopped"


class InputError(SpineXRError):
    """An input of a batch cannot be had. Never answered over HTTP."""

    code = "unreadable_file"
    title = "The file cannot be read"


class NodeError(SpineXRError):
    """Something that only the DICOM node meets. Never answered over HTTP."""

    code = "node"
    title = "The node cannot go on with this object"


# --- inputs of a batch ----------------------------------------------------------------------------


class FileChangedError(InputError):
    code = "file_changed"
    title = "The file changed while it was read"


class UnsafeArchiveError(InputError):
    code = "unsafe_archive"
    title = "The archive may not be opened"


class LinkLoopError(InputError):
    code = "link_loop"
    title = "The link leads to a folder that holds it"


class SourceDeniedError(InputError):
    code = "source_denied"
    title = "The server refuses access to the file"


class SourceMissingError(InputError):
    code = "source_missing"
    title = "The server does not have the file"


class SourceTimeoutError(InputError):
    code = "source_timeout"
    title = "The server took too long"


class WorkerDiedError(InputError):
    code = "worker_died"
    title = "The file ended the process that analysed it"


# --- the node -------------------------------------------------------------------------------------


class InstanceDiffersError(NodeError):
    """An instance that the queue holds came once more, with other content; or an object came under
    another identifier than its own."""

    code = "instance_differs"
    title = "The identifier belongs to another object"


class QueueFullError(NodeError):
    """The queue may or can hold no more."""

    code = "queue_full"
    title = "The queue has no room"


class RecordDamagedError(NodeError):
    """What the queue kept is not what it wrote."""

    code = "record_damaged"
    title = "A record of the queue is damaged"


class ObjectRefusedError(NodeError):
    """A destination does not want this object, however often it is sent."""

    code = "object_refused"
    title = "The destination refused the object"


class DestinationDeniedError(NodeError):
    """A destination does not want to hear from this node."""

    code = "destination_denied"
    title = "The destination does not let this node in"


class DestinationUnavailableError(NodeError):
    """A destination did not answer, or asked to be left alone for now."""

    code = "destination_unavailable"
    title = "The destination cannot be reached"


# --- request --------------------------------------------------------------------------------------


class FileMissingError(RequestError):
    code = "file_missing"
    title = "No file was sent"


class SeveralFilesError(RequestError):
    code = "several_files"
    title = "More than one file was sent"


class InvalidOptionError(RequestError):
    code = "invalid_option"
    title = "An option has a value that is not known"


# --- media type -----------------------------------------------------------------------------------


class UnsupportedExtensionError(NotDicomError):
    code = "unsupported_extension"
    title = "This kind of file is not accepted"


class EmptyFileError(NotDicomError):
    code = "empty_file"
    title = "The file is empty"


# --- DICOM that cannot be analysed ----------------------------------------------------------------


class CorruptDicomError(UnanalysableError):
    code = "corrupt_dicom"
    title = "The DICOM file is damaged"


class UnsupportedTransferSyntaxError(UnanalysableError):
    code = "unsupported_transfer_syntax"
    title = "This compression is not supported"


class NoPixelDataError(UnanalysableError):
    code = "no_pixel_data"
    title = "The file holds no image"


class SeveralFramesError(UnanalysableError):
    code = "several_frames"
    title = "The file holds more than one image"


class NotGreyscaleError(UnanalysableError):
    code = "not_greyscale"
    title = "The image is not a greyscale radiograph"


class UnsupportedPixelFormatError(UnanalysableError):
    code = "unsupported_pixel_format"
    title = "This pixel format is not supported"


class UnsupportedModalityError(UnanalysableError):
    code = "unsupported_modality"
    title = "This is not a radiograph"


class OtherBodyPartError(UnanalysableError):
    code = "other_body_part"
    title = "This is not a spine radiograph"


class ImageTooSmallError(UnanalysableError):
    code = "image_too_small"
    title = "The image is too small"


class ImageTooLargeError(UnanalysableError):
    code = "image_too_large"
    title = "The image has too many pixels"


class NotReferableError(UnanalysableError):
    """An image that DICOM objects cannot point at, for want of identifiers."""

    code = "not_referable"
    title = "No DICOM objects can be made of this file"


class ConstantImageError(UnanalysableError):
    code = "constant_image"
    title = "The image is empty"


class DecoderCrashedError(UnanalysableError):
    code = "decoder_crashed"
    title = "The image data crashed the decoder"


class DecodingTimeoutError(UnanalysableError):
    code = "decoding_timeout"
    title = "Decoding took too long"


class DecodingMemoryError(UnanalysableError):
    code = "decoding_memory"
    title = "Decoding needs too much memory"


# --- access ---------------------------------------------------------------------------------------


class CrossSiteError(ForbiddenError):
    """A page of another site made a browser send the request."""

    code = "cross_site"
    title = "The request comes from another site"


class FormExpiredError(ForbiddenError):
    """A form of a logged-in page came without its token, or with an old one."""

    code = "form_expired"
    title = "The page has expired"


class NotFoundError(RequestError):
    """Nothing is at the address."""

    code = "not_found"
    title = "There is nothing at this address"


class MethodNotAllowedError(RequestError):
    """The address is there, and takes other methods."""

    code = "method_not_allowed"
    title = "This address shows no page"


# --- not ready ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that keeps the models from answering; `file` is relative to the weights root."""

    code: str
    message: str
    file: str | None = None


class ModelsNotReadyError(NotReadyError):
    """Models are loading, missing or unusable."""

    code = "models_not_ready"
    title = "The models are not ready"

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class ModelOutputError(NotReadyError):
    """A model answered with something that is not a probability or a box."""

    code = "model_output_invalid"
    title = "A model gave an invalid answer"


class BusyError(NotReadyError):
    code = "busy"
    title = "The service is busy"


class DeadlineError(NotReadyError):
    code = "deadline_exceeded"
    title = "The analysis took too long"


class StorageError(NotReadyError):
    """Uploads cannot be kept while they are in flight."""

    code = "storage_unavailable"
    title = "There is no room for uploads"


def all_error_classes() -> list[type[SpineXRError]]:
    """Every error class in the tree, base first, in order of definition."""
    found: list[type[SpineXRError]] = [SpineXRError]
    for cls in found:
        found.extend(sub for sub in cls.__subclasses__() if sub not in found)
    return found
