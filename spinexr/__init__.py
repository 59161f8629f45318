"""SpineXR: radiograph AI on the spine. Research software, never a diagnosis."""

import sys

# OpenVINO and NNCF report each import and conversion to Google Analytics where they find this
# package, and take a missing answer for consent. Nothing here calls home.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

__version__ = "0.1.0"

DISCLAIMER = (
    "Research software. Not a medical device, never a diagnosis: "
    "do not use it to decide about a patient."
)
