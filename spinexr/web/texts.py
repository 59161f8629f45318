"""The words that the page's scripts say; {names} are filled in there."""

from __future__ import annotations


def for_scripts() -> dict[str, str]:
    """By the key that the scripts know them by."""
    return {
        "analysing": "Analysing. This takes a moment.",
        "at_detector": "at the detector",
        "by_hand": "By hand",
        "dark": "Dark theme",
        "empty": "This file is empty.",
        "extension": "This is a {suffix} file. Choose a DICOM file: {accepted} or no extension.",
        "full_range": "Full range",
        "light": "Light theme",
        "loading_pixels": "Fetching the full depth…",
        "network": "The server did not answer. Is the connection there? Then try again.",
        "no_file": "For windowing, choose the file again: this page no longer holds it.",
        "no_pixels": "The full depth could not be fetched. Try again.",
        "one_file": "Drop one file at a time.",
        "stage": "Radiograph. Arrow keys pan, plus and minus zoom, a question mark lists all keys.",
        "table": "Table of the file",
        "too_large": "This file has {size} MB; at most {limit} MB are accepted.",
        "uploading": "Uploading, {percent} %",
        "value": "value",
        "window_number": "Window {number}",
    }
