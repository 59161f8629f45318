"""OpenVINO networks → the same in 8-bit integers, by NNCF's post-training quantisation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino

from spinexr.errors import ConfigurationError
from spinexr.inference.engines.engine_files import EngineFile, Writer

try:
    import nncf
except ImportError as e:
    raise ConfigurationError(
        "int8 needs NNCF to calibrate: pip install -r requirements-int8.txt. Serving does not."
    ) from e


def quantised_writer(exact: EngineFile, samples: Sequence[npt.NDArray[np.float32]]) -> Writer:
    """Writes the quantised form of a compiled network.

    Args:
        samples: inputs as the network gets them, of usual images; they set the ranges.
    """

    def write(file: Path) -> dict[str, Any]:
        logging.getLogger("nncf").setLevel(logging.WARNING)
        network = openvino.Core().read_model(exact.network)
        quantised = nncf.quantize(
            network,
            nncf.Dataset(list(samples)),
            # Asymmetric activations: SiLU goes below zero, but only a little.
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(samples),
        )
        openvino.save_model(quantised, file, compress_to_fp16=False)
        known = {k: v for k, v in exact.about.items() if k not in ("key", "sha256")}
        return {**known, "calibration_images": len(samples)}

    return write
