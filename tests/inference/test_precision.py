"""Reduced precision is served only where the processor has it and the gate said yes."""

from __future__ import annotations

import json
import mmap
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from spinexr.inference import transforms
from spinexr.inference.bundle import Bundle, load_bundle
from spinexr.inference.engines import openvino_loading, precision
from spinexr.inference.engines.mapped_files import release_pages
from spinexr.inference.engines.openvino_engine import OpenVinoEngine
from spinexr.inference.engines.precision import Precision, Verdicts, supported
from tests import builders
from tests.processes import ROOT

MEASURED = {"auroc_drop": 0.0001, "flips": 0.001}


@pytest.fixture(scope="module")
def store(untrained_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines")
    openvino_loading.load(load_bundle(untrained_root), store=folder, threads=2)
    return folder


@pytest.fixture
def trained(untrained_root: Path, tmp_path: Path) -> Bundle:
    """The untrained bundle, whose manifests claim that it was trained."""
    for folder in ("ensemble output", "detection output"):
        (tmp_path / folder).mkdir()
        manifest = json.loads((untrained_root / folder / "manifest.json").read_text())
        manifest["provenance"]["training_data"] = "synthetic"
        (tmp_path / folder / "manifest.json").write_text(json.dumps(manifest))
    return load_bundle(tmp_path)


@pytest.fixture
def every_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked here does not depend on the processor that asks."""
    monkeypatch.setattr(openvino_loading, "supported", lambda *_: True)


@pytest.fixture
def load(store: Path) -> Callable[..., OpenVinoEngine]:
    def run(bundle: Bundle, wanted: Precision = Precision.BF16) -> OpenVinoEngine:
        return openvino_loading.load(bundle, store=store, threads=2, precision=wanted)

    return run


@pytest.mark.usefixtures("every_instruction")
def test_without_a_verdict_trained_networks_compute_exactly_and_say_why(
    trained: Bundle, load: Callable[..., OpenVinoEngine]
) -> None:
    engine = load(trained)
    assert (engine.precision, engine.wanted_precision) == (Precision.EXACT, Precision.BF16)
    assert "compile --precision bf16" in str(engine.precision_note)


@pytest.mark.usefixtures("every_instruction")
@pytest.mark.parametrize("accepted", [True, False])
def test_the_gate_decides(
    trained: Bundle, store: Path, load: Callable[..., OpenVinoEngine], accepted: bool
) -> None:
    verdicts, subject = (
        Verdicts(store),
        openvino_loading.verdict_subject(trained, Precision.BF16, store=store),
    )
    verdicts.write(Precision.BF16, subject, accepted=accepted, measured=MEASURED)
    engine = load(trained)
    assert engine.precision is (Precision.BF16 if accepted else Precision.EXACT)
    assert engine.precision_measured == (MEASURED if accepted else None)


@pytest.mark.usefixtures("every_instruction")
def test_a_verdict_that_came_with_the_bundle_counts_and_is_passed_on(
    trained: Bundle, store: Path, load: Callable[..., OpenVinoEngine]
) -> None:
    subject = openvino_loading.verdict_subject(trained, Precision.BF16, store=store)
    trained.verdicts.mkdir()
    elsewhere = {"auroc_drop": 0.0, "flips": 0.0}
    Verdicts(trained.verdicts).write(Precision.BF16, subject, accepted=True, measured=elsewhere)
    for file in store.glob("bf16-*.json"):
        file.unlink()
    engine = load(trained)
    assert (engine.precision, engine.precision_measured) == (Precision.BF16, elsewhere)
    Verdicts(store).write(Precision.BF16, subject, accepted=False, measured=MEASURED)
    assert load(trained).precision is Precision.EXACT  # what was judged here goes first
    assert [*trained.verdicts.iterdir()] == [
        f for f in trained.files_to_serve_compiled() if f.parent == trained.verdicts
    ]


def test_the_demo_weights_bring_a_verdict_on_bf16_in_this_openvino(tmp_path: Path) -> None:
    bundle = load_bundle(ROOT)
    subject = openvino_loading.verdict_subject(bundle, Precision.BF16, store=tmp_path)
    measured = Verdicts(bundle.verdicts).find(Precision.BF16, subject)
    assert measured is not None
    assert measured["images"] >= 500


@pytest.mark.usefixtures("every_instruction")
def test_a_verdict_on_another_cut_off_is_none(trained: Bundle, store: Path) -> None:
    subject = openvino_loading.verdict_subject(trained, Precision.BF16, store=store)
    Verdicts(store).write(Precision.BF16, subject, accepted=True, measured=MEASURED)
    file = trained.root / "ensemble output/manifest.json"
    file.write_text(file.read_text().replace("0.449", "0.5"))
    engine = openvino_loading.load(
        load_bundle(trained.root), store=store, threads=2, precision=Precision.BF16
    )
    assert engine.precision is Precision.EXACT


@pytest.mark.usefixtures("every_instruction")
def test_a_verdict_on_networks_of_another_calibration_is_none(
    trained: Bundle, store: Path, load: Callable[..., OpenVinoEngine],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(openvino_loading, "_calibration", lambda *_: "the first")
    subject = openvino_loading.verdict_subject(trained, Precision.INT8, store=store)
    Verdicts(store).write(Precision.INT8, subject, accepted=True, measured=MEASURED)
    monkeypatch.setattr(openvino_loading, "_calibration", lambda *_: "another")
    engine = load(trained, Precision.INT8)
    assert engine.precision is Precision.EXACT
    assert "not judged good enough" in str(engine.precision_note)


def test_a_damaged_verdict_is_none(tmp_path: Path) -> None:
    verdicts = Verdicts(tmp_path)
    verdicts.write(Precision.INT8, "a" * 64, accepted=True, measured=MEASURED)
    assert verdicts.find(Precision.INT8, "a" * 64) == MEASURED
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text()[:30])
    assert verdicts.find(Precision.INT8, "a" * 64) is None


@pytest.mark.usefixtures("every_instruction")
def test_int8_that_is_not_compiled_is_not_served(
    untrained_root: Path, load: Callable[..., OpenVinoEngine]
) -> None:
    engine = load(load_bundle(untrained_root), Precision.INT8)
    assert engine.precision is Precision.EXACT
    assert "not compiled" in str(engine.precision_note)


def test_untrained_networks_need_no_verdict(
    untrained_root: Path, load: Callable[..., OpenVinoEngine]
) -> None:
    bundle = load_bundle(untrained_root)
    grey = transforms.stored_minmax(builders.radiograph(builders.pixels(480, 320)))
    batch = transforms.classifier_input(grey, bundle.ensemble.preprocessing)
    exact, reduced = (load(bundle, p).classify(batch) for p in (Precision.EXACT, Precision.BF16))
    for name, answer in exact.items():
        np.testing.assert_allclose(reduced[name].logits, answer.logits, atol=0.3)


def test_a_processor_without_the_instructions_is_noticed(
    untrained_root: Path,
    load: Callable[..., OpenVinoEngine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nflags : fpu sse avx2\n")
    monkeypatch.setattr(precision, "_CPUINFO", cpuinfo)
    engine = load(load_bundle(untrained_root))
    assert engine.precision is Precision.EXACT
    assert "no instructions for bf16" in str(engine.precision_note)


@pytest.mark.parametrize(
    ("flags", "capabilities", "expected"),
    [
        ("avx512_bf16 avx512_vnni", ("FP32", "BF16", "INT8"), [True, True]),
        ("avx_vnni", ("FP32", "INT8"), [False, True]),
        ("avx2", ("FP32", "INT8"), [False, False]),
    ],
)
def test_instructions_decide_what_is_supported(
    flags: str,
    capabilities: tuple[str, ...],
    expected: list[bool],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"flags\t\t: fpu {flags}\n")
    monkeypatch.setattr(precision, "_CPUINFO", cpuinfo)
    assert supported(Precision.EXACT, capabilities)
    assert [supported(p, capabilities) for p in (Precision.BF16, Precision.INT8)] == expected


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_pages_of_a_mapped_file_are_given_back_and_read_again(tmp_path: Path) -> None:
    file = tmp_path / "weights.bin"
    content = bytes(range(256)) * 4096
    file.write_bytes(content)

    def resident_kb() -> int:
        lines = Path("/proc/self/smaps").read_text().splitlines()
        (start,) = (n for n, line in enumerate(lines) if line.endswith(str(file)))
        (rss,) = (line for line in lines[start : start + 8] if line.startswith("Rss:"))
        return int(rss.split()[1])

    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[:] == content
        assert resident_kb() == 1024
        assert release_pages(file) == len(content)
        assert resident_kb() == 0
        assert mapped[:] == content
