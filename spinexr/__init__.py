"""SpineXR: radiograph AI on the spine. Research software, never a diagnosis."""

__version__ = "0.1.0"

DISCLAIMER = (
    "Research software. Not a medical device, never a diagnosis: "
    "do not use it to decide about a patient."
)
