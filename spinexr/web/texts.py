"""The words that the page's scripts say; {names} are filled in there."""

from __future__ import annotations

from spinexr.web.words import gettext


def for_scripts() -> dict[str, str]:
    """By the key that the scripts know them by."""
    return {
        "abnormal": gettext("Abnormal"),
        "again": gettext("Try again"),
        "analysing": gettext("Analysing. This takes a moment."),
        "anyway": gettext("Analyse anyway"),
        "at_detector": gettext("at the detector"),
        "busy": gettext("The server is busy; waiting."),
        "by_hand": gettext("By hand"),
        "dark": gettext("Dark theme"),
        "empty": gettext("This file is empty."),
        "extension": gettext(
            "This is a {suffix} file. Choose a DICOM file: {accepted} or no extension."
        ),
        "failed": gettext("Failed"),
        "file_number": gettext("File {number}"),
        "full_range": gettext("Full range"),
        "left_out": gettext("{count} files left out. The first: {why}"),
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
        "too_large": gettext("This file has {size} MB; at most {limit} MB are accepted."),
        "uploading": gettext("Uploading, {percent} %"),
        "value": gettext("value"),
        "waiting": gettext("Waiting"),
        "window_number": gettext("Window {number}"),
        "worklist": gettext("Worklist · SpineXR"),
    }
