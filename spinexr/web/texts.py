"""The words that the page's scripts say; {names} are filled in there."""

from __future__ import annotations


def for_scripts() -> dict[str, str]:
    """By the key that the scripts know them by."""
    return {
        "abnormal": "Abnormal",
        "analysing": "Analysing. This takes a moment.",
        "at_detector": "at the detector",
        "busy": "The server is busy; waiting.",
        "by_hand": "By hand",
        "dark": "Dark theme",
        "empty": "This file is empty.",
        "extension": "This is a {suffix} file. Choose a DICOM file: {accepted} or no extension.",
        "failed": "Failed",
        "file_number": "File {number}",
        "full_range": "Full range",
        "left_out": "{count} files left out. The first: {why}",
        "light": "Light theme",
        "loading_pixels": "Fetching the full depth…",
        "network": "The server did not answer. Is the connection there? Then try again.",
        "no_file": "For windowing, choose the file again: this page no longer holds it.",
        "no_pixels": "The full depth could not be fetched. Try again.",
        "no_study": "Without a study",
        "normal": "Normal",
        "running": "Sending",
        "stage": "Radiograph. Arrow keys pan, plus and minus zoom, a question mark lists all keys.",
        "study_number": "Study {number}",
        "summary": "{done} of {all} files done: {abnormal} abnormal, {failed} refused or failed.",
        "table": "Table of the file",
        "too_large": "This file has {size} MB; at most {limit} MB are accepted.",
        "uploading": "Uploading, {percent} %",
        "value": "value",
        "waiting": "Waiting",
        "window_number": "Window {number}",
        "worklist": "Worklist · SpineXR",
    }
