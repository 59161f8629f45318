"""One run of the benchmark: bundles, servers, requests, numbers."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from spinexr.analysis import analyse
from spinexr.benchmark import measure, radiographs, servers, stages
from spinexr.benchmark.servers import Server
from spinexr.domain import DetectPolicy
from spinexr.errors import ConfigurationError
from spinexr.imaging import reader
from spinexr.imaging.sandbox import Sandbox, SandboxOptions
from spinexr.inference import transforms
from spinexr.inference.bundle import Intensity
from spinexr.inference.engines import EngineOptions
from spinexr.inference.engines.precision import Precision
from spinexr.inference.loading import load_predictor
from spinexr.processors import available_threads
from spinexr.reporting import as_json, overlay
from spinexr.training.untrained import write_untrained_bundle

CLIENTS = (1, 4, 8, 16)
MEGAPIXELS = (1.0, 4.0, 9.0, 16.0)
_LEAST_BOXES, _MOST_BOXES = 10, 100
_FIRM = 0.25
_MAX_PIXELS = 100_000_000
# The largest sizes need more than the server's default.
_LARGE_MEMORY_MB = 1024

# What the ensemble says, and how many anchors of the detector exceed 0.25 on the radiograph; how
# many boxes suppression makes of them has to be tried.
_CASES = {
    "normal": (False, (0,)),
    "abnormal, two reference passes": (True, (0,)),
    "abnormal, one reference pass": (True, (15, 30, 60, 120, 250, 500)),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    rounds: requests per server and case.
    requests: per number of clients, at least; never fewer than two for each client.
    """

    detector: str = "yolo11l"
    precisions: tuple[Precision, ...] = (Precision.EXACT,)
    rounds: int = 7
    requests: int = 24
    seed: int = 0


def run(plan: Plan, report: Callable[[str], None]) -> dict[str, Any]:
    """Measure everything.

    Raises:
        ConfigurationError: a server does not start or does not answer.
    """
    with TemporaryDirectory(prefix="spinexr-benchmark-") as folder:
        root = Path(folder)
        report("Drawing a radiograph")
        stored = radiographs.phantom()
        syntaxes = [s for s in radiographs.SYNTAXES if s != "JPEG-LS" or _reads_jpeg_ls()]
        files = {s: radiographs.encoded(stored, s) for s in radiographs.SYNTAXES}
        bundles: dict[str, Path] = {}
        for number, case in enumerate(_CASES):
            report(f"Writing an untrained bundle: {case}")
            bundles[case] = _bundle(root / f"bundle-{number}", case, plan, files["uncompressed"])
        engines = root / "engines"
        start = _start(plan, bundles, engines, files["JPEG 2000"], report)
        latency = []
        for case, weights in bundles.items():
            latency += _latency(plan, case, weights, engines, files, syntaxes, report)
        busy = bundles["abnormal, two reference passes"]
        clients = _throughput(plan, busy, engines, files["JPEG 2000"], report)
        report("Measuring stages")
        taken: dict[str, dict[str, float]] = {
            "reading": stages.of_reading(files, rounds=plan.rounds)
        }
        networks = []
        for precision in plan.precisions:
            seconds, rates = stages.of_request(
                busy, engines, files["uncompressed"], precision, rounds=plan.rounds
            )
            taken[precision.value] = seconds
            networks += [
                {
                    "network": name, "precision": precision.value, "gflop": rate.gflop,
                    "seconds": rate.seconds, "shares": rate.shares,
                }
                for name, rate in rates.items()
            ]  # fmt: skip
        return {
            "machine": _machine(plan),
            "latency": latency,
            "throughput": clients,
            "start": start,
            "stages": taken,
            "networks": networks,
            "sizes": _sizes(busy, engines, stored, plan, report),
        }


def _bundle(root: Path, case: str, plan: Plan, data: bytes) -> Path:
    """An untrained bundle for a case.

    Raises:
        ConfigurationError: none is found.
    """
    abnormal, tries = _CASES[case]
    radiograph = reader.read(data, max_pixels=_MAX_PIXELS)
    for boxes in tries:
        weights = root / str(boxes)
        write_untrained_bundle(
            weights, detector=plan.detector, seed=plan.seed, abnormal=abnormal, boxes=boxes,
            image=transforms.to_grey(radiograph, Intensity.STORED_MINMAX),
        )  # fmt: skip
        predictor = load_predictor(weights, EngineOptions(engine="torch", device="cpu"))
        prediction = analyse(
            data, predictor=predictor, max_pixels=_MAX_PIXELS, detect=DetectPolicy.ALWAYS,
            candidates_from=_FIRM,
        ).prediction  # fmt: skip
        predictor.close()
        found = len(prediction.candidates)
        if prediction.abnormal is abnormal and (
            found == 0 if tries == (0,) else _LEAST_BOXES <= found <= _MOST_BOXES
        ):
            return weights
    raise ConfigurationError(f"No untrained bundle for “{case}”; try another --seed.")


def _start(
    plan: Plan,
    bundles: dict[str, Path],
    engines: Path,
    data: bytes,
    report: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Also compiles: the first start of each bundle is the cold one."""
    busy = bundles["abnormal, two reference passes"]
    rows = []

    def note(server: Server, name: str, *, html: bool) -> None:
        rows.append(
            {
                "server": name,
                "ready_s": server.ready_s,
                "json_bytes": len(measure.checked(server, data)[1]),
                "html_bytes": len(measure.checked(server, data, html=True)[1]) if html else 0,
            }
        )

    report("Starting the plain server")
    with servers.reference(busy, threads=1) as server:
        note(server, server.name, html=False)
    # The noted one first: bundles share networks, and what one start compiles the next one finds.
    for weights in sorted(bundles.values(), key=lambda weights: weights != busy):
        report("Starting SpineXR without compiled networks")
        with servers.spinexr(weights, engines) as server:
            if weights == busy:
                note(server, "SpineXR, nothing compiled", html=True)
    for precision in plan.precisions:
        if precision is Precision.INT8:
            _quantise(bundles, engines, report)
        report(f"Starting SpineXR with compiled networks, {precision}")
        with servers.spinexr(busy, engines, precision=precision) as server:
            note(server, server.name, html=True)
    return rows


def _quantise(bundles: dict[str, Path], engines: Path, report: Callable[[str], None]) -> None:
    """int8 of untrained networks: calibrated as others are, on a few phantoms."""
    from spinexr.evaluation.precision import calibrate

    with TemporaryDirectory(prefix="spinexr-benchmark-") as folder:
        files = radiographs.few(Path(folder) / "phantoms")
        for weights in bundles.values():
            report("Calibrating int8")
            calibrate(weights, engines, files, max_pixels=_MAX_PIXELS)


def _latency(
    plan: Plan,
    case: str,
    weights: Path,
    engines: Path,
    files: dict[str, bytes],
    syntaxes: Sequence[str],
    report: Callable[[str], None],
) -> list[dict[str, Any]]:
    rows = []
    with ExitStack() as stack:
        running = [
            stack.enter_context(servers.reference(weights, threads=threads))
            for threads in sorted({1, available_threads()})
        ]
        _check_case(case, running[0], files["uncompressed"])
        for precision in plan.precisions:
            running.append(
                stack.enter_context(servers.spinexr(weights, engines, precision=precision))
            )
        for syntax in syntaxes:
            report(f"{case}, {syntax}")
            seconds = measure.alternating(running, files[syntax], rounds=plan.rounds)
            rows.append({"case": case, "syntax": syntax, "seconds": seconds})
    return rows


def _check_case(case: str, server: Server, data: bytes) -> None:
    """The reference must do the work that the case is named after."""
    abnormal, boxes, lowest = measure.reference_boxes(server, data)
    as_meant = {
        "normal": not abnormal,
        "abnormal, two reference passes": abnormal and boxes == 0,
        "abnormal, one reference pass": abnormal and boxes >= _LEAST_BOXES and lowest >= 0.25,
    }[case]
    if not as_meant:
        raise ConfigurationError(
            f"The bundle for “{case}” gives abnormal={abnormal} with {boxes} boxes; try another "
            "--seed."
        )


def _throughput(
    plan: Plan, weights: Path, engines: Path, data: bytes, report: Callable[[str], None]
) -> list[dict[str, Any]]:
    rows = []

    def note(server: Server, clients: int, requests: int) -> None:
        report(f"{server.name}, {clients} clients")
        found = measure.throughput(server, data, clients=clients, requests=requests)
        rows.append({"server": server.name, **asdict(found)})

    # It serves one request at a time, so that more clients only wait longer.
    with servers.reference(weights, threads=1) as server:
        note(server, 1, plan.rounds)
    for precision in plan.precisions:
        with servers.spinexr(weights, engines, precision=precision) as server:
            for clients in CLIENTS:
                note(server, clients, max(plan.requests, 2 * clients))
    return rows


def _sizes(
    weights: Path, engines: Path, stored: Any, plan: Plan, report: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Below HTTP, where the server's limits on files do not hold."""
    predictor = load_predictor(weights, EngineOptions(engine="openvino", store=engines))
    sandbox = Sandbox(SandboxOptions(memory_mb=_LARGE_MEMORY_MB, timeout_s=60))
    sandbox.start()()
    rows = []
    try:
        for megapixels in MEGAPIXELS:
            report(f"{megapixels:g} megapixels")
            data = radiographs.encoded(radiographs.resized(stored, megapixels), "JPEG 2000")
            reads, rests = [], []
            for _ in range(plan.rounds):
                begin = perf_counter()
                analysis = analyse(
                    data, predictor=predictor, max_pixels=_MAX_PIXELS, read=sandbox.read
                )
                as_json.document(analysis, image=overlay.as_jpeg(analysis))
                total = perf_counter() - begin
                reads.append(analysis.stage_ms["read"] / 1000)
                rests.append(total - reads[-1])
            rows.append(
                {
                    "megapixels": megapixels, "file_bytes": len(data),
                    "read_s": sorted(reads)[len(reads) // 2],
                    "rest_s": sorted(rests)[len(rests) // 2],
                }
            )  # fmt: skip
    finally:
        sandbox.close()
        predictor.close()
    return rows


def _machine(plan: Plan) -> dict[str, Any]:
    def version(package: str) -> str:
        return importlib.metadata.version(package)

    return {
        "processor": stages.processor(),
        "threads": available_threads(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": version("torch"),
        "openvino": version("openvino"),
        "detector": plan.detector,
        "rows": radiographs.ROWS,
        "columns": radiographs.COLUMNS,
        "rounds": plan.rounds,
        "reference_decoders": "gdcm" if _reads_jpeg_ls() else "Pillow",
    }


def _reads_jpeg_ls() -> bool:
    """Whether the plain server's decoder is there (requirements-benchmark.txt)."""
    return importlib.util.find_spec("gdcm") is not None
