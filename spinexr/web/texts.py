"""Words by key: what the page's scripts say, and what to do about a refusal."""

from __future__ import annotations

from spinexr.web.words import gettext


def for_scripts() -> dict[str, str]:
    """By the key that the scripts know them by; {names} are filled in there."""
    return {
        "abnormal": gettext("Abnormal"),
        "again": gettext("Try again"),
        "analysing": gettext("Analysing. This takes a moment."),
        "anyway": gettext("Analyse anyway"),
        "at_detector": gettext("at the detector"),
        "busy": gettext("The server is busy; waiting."),
        "by_hand": gettext("By hand"),
        "dark": gettext("Dark theme"),
        "empty": gettext("This file is empty. Choose another one, or copy it again."),
        "extension": gettext(
            "This is a {suffix} file. Choose a DICOM file: {accepted} or no extension."
        ),
        "failed": gettext("Failed"),
        "file_number": gettext("File {number}"),
        "full_range": gettext("Full range"),
        "left_out": gettext("Left out: {count}. The first one: {why}"),
        "inverted": gettext("inverted"),
        "light": gettext("Light theme"),
        "loading_pixels": gettext("Fetching the full depth…"),
        "network": gettext("The server did not answer. Is the connection there? Then try again."),
        "no_file": gettext("For windowing, choose the file again: this page no longer holds it."),
        "no_object": gettext("The DICOM object could not be made. Try again."),
        "no_pixels": gettext("The full depth could not be fetched. Try again."),
        "no_study": gettext("Without a study"),
        "normal": gettext("Normal"),
        "place": gettext("{number} of {all}"),
        "running": gettext("Sending"),
        "stage": gettext(
            "Radiograph. Arrow keys pan, plus and minus zoom, a question mark lists all keys."
        ),
        "study_number": gettext("Study {number}"),
        "summary": gettext(
            "{done} of {all} files done: {abnormal} abnormal, {failed} refused or failed."
        ),
        "table": gettext("Table of the file"),
        "tap_first": gettext("Tap the image first; then swipes change it."),
        "too_large": gettext(
            "This file has {size} MB; at most {limit} MB are accepted. Export it compressed, as "
            "JPEG 2000 or JPEG-LS, or choose another one."
        ),
        "uploading": gettext("Uploading, {percent} %"),
        "value": gettext("value"),
        "waiting": gettext("Waiting"),
        "window_number": gettext("Window {number}"),
        "worklist": gettext("Worklist · SpineXR"),
    }


def what_to_do() -> dict[str, str]:
    """By the code of the refusal, for pages in other languages: its detail, which also tells what
    was read, is in English. Several codes share a text where what a person can do is the same.
    """
    another = gettext("Choose another file.")
    export_again = gettext("Export the image from the archive once more, then choose the new file.")
    uncompressed = gettext("Export the image uncompressed, then choose the new file.")
    plain = gettext("Choose one plain X-ray image of the spine, as DICOM (DX, CR or similar).")
    later = gettext("Wait a moment, then try again.")
    patience = gettext(
        "Wait a moment, then try again; if it stays so, tell whoever runs this server."
    )
    operator = gettext("Tell whoever runs this server; until then no file can be analysed.")
    again = gettext("Go back to the start and choose the file again.")
    return {
        "access_token_needed": gettext("Log in, then choose the file again."),
        "bad_request": again,
        "busy": later,
        "configuration": operator,
        "constant_image": gettext("The image shows nothing. Choose another image of the study."),
        "corrupt_dicom": export_again,
        "cross_site": gettext("Open this server's own page and choose the file there."),
        "deadline_exceeded": later,
        "decoder_crashed": export_again,
        "decoding_memory": export_again,
        "decoding_timeout": export_again,
        "empty_file": export_again,
        "file_missing": gettext("Choose a file first."),
        "forbidden": gettext("Open this server's own page and choose the file there."),
        "form_expired": again,
        "image_too_large": gettext("Export the image at a smaller size, then choose the new file."),
        "image_too_small": gettext("Choose the whole image, not a thumbnail or a part of it."),
        "internal_error": gettext(
            "No result was produced. Try again; if it happens again, report it with the request id."
        ),
        "invalid_option": again,
        "method_not_allowed": again,
        "model_output_invalid": operator,
        "models_not_ready": gettext(
            "The server is starting, or its weights are missing. Wait a minute, then try again; "
            "if it stays so, tell whoever runs it."
        ),
        "no_pixel_data": another,
        "not_dicom": gettext(
            "Export the image as DICOM: pictures such as JPEG or PNG lack what is needed."
        ),
        "not_found": gettext("Check the address, or go to the start."),
        "not_greyscale": plain,
        "not_ready": later,
        "not_referable": export_again,
        "other_body_part": gettext(
            "If the image does show the spine, have it analysed anyway; otherwise choose another."
        ),
        "rate_limited": later,
        "several_files": gettext("Choose one file at a time, or switch JavaScript on for several."),
        "several_frames": plain,
        "storage_unavailable": patience,
        "too_large": gettext(
            "Export the image with lossless compression, then choose the new file."
        ),
        "unanalysable": another,
        "unsupported_extension": gettext(
            "Choose a file that ends in .dcm or .dicom, or in nothing."
        ),
        "unsupported_modality": plain,
        "unsupported_pixel_format": another,
        "unsupported_transfer_syntax": uncompressed,
        "upload_timeout": gettext("Check the connection, then choose the file again."),
    }
