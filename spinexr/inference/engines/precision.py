"""Reduced precision: what this processor has, and what the gate said of a bundle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from spinexr.inference.bundle import Bundle


class Precision(StrEnum):
    """In which numbers the networks run."""

    EXACT = "exact"  # float32
    BF16 = "bf16"  # bfloat16 where OpenVINO finds it worth while
    INT8 = "int8"  # 8-bit integers after calibration


@dataclass(frozen=True, slots=True)
class Choice:
    """The precision that networks run in, the one that was wanted, and why they differ."""

    precision: Precision = Precision.EXACT
    wanted: Precision = Precision.EXACT
    note: str | None = None
    measured: Mapping[str, Any] | None = None
    calibration: str = ""  # of int8: a hash of the networks that came of it


# Instructions without which a precision would be emulated, by their names in /proc/cpuinfo.
_INSTRUCTIONS = {
    Precision.BF16: {"avx512_bf16", "amx_bf16"},
    Precision.INT8: {"avx512_vnni", "avx_vnni", "amx_int8"},
}
# The same, as OpenVINO names them, where there is no such file.
_CAPABILITIES = {Precision.BF16: "BF16", Precision.INT8: "INT8"}
_CPUINFO = Path("/proc/cpuinfo")


def supported(precision: Precision, capabilities: tuple[str, ...]) -> bool:
    """Whether this processor computes in a precision.

    Args:
        capabilities: OpenVINO's OPTIMIZATION_CAPABILITIES of the CPU.
    """
    if precision is Precision.EXACT:
        return True
    if _CAPABILITIES[precision] not in capabilities:
        return False
    try:
        text = _CPUINFO.read_text(encoding="utf-8")
    except OSError:
        return True
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    # ARM's file has no such line; there OpenVINO's word has to do.
    return not flags or bool(_INSTRUCTIONS[precision] & set(flags.split()))


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What the gate said, as files: in the folder of compiled networks, or with a bundle."""

    root: Path

    def hold(self, precision: Precision, subject: str) -> bool:
        """Whether there is a verdict, whatever it says."""
        return self._file(precision, subject).exists()

    def find(self, precision: Precision, subject: str) -> Mapping[str, Any] | None:
        """The measured deltas of an accepted precision, None where there is no such verdict."""
        try:
            found = json.loads(self._file(precision, subject).read_text(encoding="utf-8"))
            if found["subject"] != subject or found["accepted"] is not True:
                return None
            measured: Mapping[str, Any] = found["measured"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return measured

    def write(
        self, precision: Precision, subject: str, *, accepted: bool, measured: Mapping[str, Any]
    ) -> None:
        """Keep a verdict, in the place of an older one.

        Raises:
            OSError: the folder cannot be written.
        """
        file = self._file(precision, subject)
        part = file.with_suffix(".part")
        document = {"subject": subject, "accepted": accepted, "measured": dict(measured)}
        part.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        part.replace(file)

    def _file(self, precision: Precision, subject: str) -> Path:
        return self.root / f"{precision.value}-{subject[:16]}.json"


def subject_of(
    bundle: Bundle, digests: Mapping[str, str], engine_version: str, calibration: str = ""
) -> str:
    """A hash of everything that a verdict depends on: weights, how they are used, the engine.

    Args:
        digests: SHA-256 of each network's checkpoint.
        calibration: as in `Choice`.
    """
    ensemble, detector = bundle.ensemble, bundle.detector
    facts = {
        "digests": dict(digests),
        "engine": engine_version,
        "calibration": calibration,
        "weights": [m.weight for m in ensemble.members],
        "threshold": ensemble.threshold,
        "preprocessing": str(ensemble.preprocessing),
        "detector": [detector.size, detector.intensity.value, detector.iou],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
