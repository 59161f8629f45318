"""Phantom → train → kill → resume → evaluate → serve, small: the steps of a real run."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from spinexr.datasets import phantoms
from spinexr.domain import TrainingData
from spinexr.errors import ConfigurationError, TrainingError
from spinexr.imaging import reader
from spinexr.inference.bundle import ENSEMBLE_FOLDER, Intensity, load_bundle
from spinexr.inference.engines import EngineOptions
from spinexr.inference.engines.torch_checkpoints import load_detector
from spinexr.inference.loading import load_predictor
from spinexr.settings import Settings
from spinexr.training import classifier, commands, detector, examples, release, runs
from spinexr.training.calibration import Calibration
from spinexr.training.classifier import ClassifierOptions
from spinexr.training.examples import TrainPart
from spinexr.training.networks import Learner, Teacher
from spinexr.training.runs import BEST, LAST, RunFolder
from spinexr.web import create_app
from spinexr.web.models import Models
from tests.processes import ROOT, environment, spinexr

from ultralytics.nn.tasks import torch_safe_load  # isort: skip  (after what makes it importable)

TOY = ("--size", "32", "--window", "32", "--batch", "8", "--from-scratch", "--device", "cpu")
OPTIONS = ClassifierOptions(
    epochs=3, size=32, window=32, batch=8, pretrained=False, validation_share=0.3
)
SMALL = "test_resnet"  # timm's smallest: the loop knows nothing of the ensemble


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "phantoms"
    list(phantoms.generate(phantoms.Plan(root, 40, seed=4, rows=240, columns=160), workers=2))
    return root


@pytest.fixture(scope="module")
def part(data: Path) -> TrainPart:
    return examples.read_train_part(data, validation_share=0.3, seed=0)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def train(part: TrainPart, cache: Path, tmp_path: Path) -> Callable[..., Any]:
    def run(
        name: str = "run", *, options: ClassifierOptions = OPTIONS, resume: bool = False,
        architecture: str = SMALL, **more: Any,
    ) -> Any:  # fmt: skip
        folder = RunFolder(tmp_path / name)
        return classifier.train(
            architecture, part, folder, options, resume=resume, device="cpu", cache=cache, **more
        )

    return run


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def killed_after(epoch: int) -> Callable[[str, int, int], None]:
    """Dies in the first step of the epoch after `epoch`."""

    def step(what: str, _done: int, _total: int) -> None:
        if what.endswith(f"epoch {epoch + 1}"):
            raise Killed

    return step


def curve(folder: Path) -> list[dict[str, float]]:
    rows = RunFolder(folder).curves()
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.mark.parametrize("taught", [False, True])
def test_a_killed_run_goes_on_with_the_same_curve(
    train: Callable[..., Any], tmp_path: Path, taught: bool
) -> None:
    asked: dict[str, Any] = {}
    if taught:
        asked = {"options": replace(OPTIONS, teacher=SMALL), "teacher": tmp_path / "teacher.pth"}
        torch.save(Learner(SMALL).network.state_dict(), asked["teacher"])
    whole = train("whole", **asked)
    with pytest.raises(Killed):
        train("killed", progress=killed_after(1), **asked)
    assert len(curve(tmp_path / "killed")) == 1
    resumed = train("killed", resume=True, **asked)
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")
    np.testing.assert_array_equal(resumed.logits, whole.logits)


@pytest.mark.parametrize("has", [True, False])
def test_a_processor_without_bfloat16_trains_in_float32(
    train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, has: bool
) -> None:
    monkeypatch.setattr(runs, "computes_in_bfloat16", lambda: has)
    forward, mixed = Learner.forward, []

    def noted(learner: Learner, images: torch.Tensor) -> Any:
        mixed.append(torch.is_autocast_enabled("cpu"))
        return forward(learner, images)

    monkeypatch.setattr(Learner, "forward", noted)
    train(options=replace(OPTIONS, epochs=1))
    assert set(mixed) == {has}


def test_a_run_folder_says_what_was_asked_and_how_it_went(
    train: Callable[..., Any], tmp_path: Path, part: TrainPart
) -> None:
    trained = train(commands=["spinexr train toy"])
    run = tmp_path / "run"
    config = json.loads((run / "config.json").read_text())
    assert config["commands"] == ["spinexr train toy"]
    assert config["data"] == part.fingerprint
    assert config["options"]["epochs"] == 3
    assert len(curve(run)) == trained.epochs == 3
    assert (run / "curves.png").exists()
    assert set(trained.validation) == {"auroc", "ece", "loss", "images"}


def test_the_best_network_gives_the_logits_that_were_judged(
    train: Callable[..., Any], part: TrainPart, cache: Path, tmp_path: Path
) -> None:
    trained = train()
    made = examples.prepare(
        part.validation, side=32, intensity=Intensity.STORED_MINMAX, cache=cache
    )
    config = json.loads((tmp_path / "run/config.json").read_text())
    network = classifier.best(config["architecture"], RunFolder(tmp_path / "run"))
    with torch.inference_mode():
        answers = network(
            classifier._to(torch.from_numpy(np.array(made.pixels)), torch.device("cpu"))
        )
    np.testing.assert_allclose(answers[:, 0].numpy(), trained.logits, atol=1e-4)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_checkpoint(
    train: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Killed):
        train(progress=killed_after(1))
    real = classifier._to
    monkeypatch.setattr(
        classifier, "_to", lambda pixels, device: real(pixels, device) * float("nan")
    )
    with pytest.raises(TrainingError, match=r"loss is nan in epoch 2, step 1 .* epoch 1 are kept"):
        train(resume=True)
    with pytest.raises(TrainingError, match=r"No epoch was finished; .* another --out"):
        train("other")
    kept = RunFolder(tmp_path / "run").load(LAST)
    assert kept["epoch"] == 1
    assert all(torch.isfinite(t).all() for t in kept["learner"].values())


def test_answers_that_are_no_numbers_after_an_epoch_name_it(
    train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        classifier, "resized", lambda _pixels, size: np.full((size, size), np.nan, np.float32)
    )
    with pytest.raises(TrainingError, match=r"network of epoch 1 .* start again with a lower"):
        train()


def test_a_lost_device_is_said_and_the_run_can_go_on(
    train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered\nmore lines")

    with pytest.raises(Killed):
        train(progress=killed_after(1))
    # No such device here: the CPU plays its part until the step fails.
    for step, said in (
        ("location_loss", "epoch 2, step 1"), ("_logits", "epoch 2, step 4"),
        ("_groups", "the beginning"), ("_judged", "the validation of the best epoch"),
    ):  # fmt: skip
        with monkeypatch.context() as patched:
            patched.setattr(runs, "_may_go_away", lambda _device: True)
            patched.setattr(classifier, step, lost)
            with pytest.raises(TrainingError, match=f"{said}: CUDA error.*--resume"):
                train(resume=True)
    assert train(resume=True).epochs == 3


def test_a_device_that_is_lost_or_small_is_named_and_a_fault_of_the_program_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def failing(error: RuntimeError) -> None:
        with runs.failures_named(torch.device("cpu"), lambda: "epoch 7"):
            raise error

    with pytest.raises(RuntimeError, match="a fault"):
        failing(RuntimeError("a fault"))
    monkeypatch.setattr(runs, "_may_go_away", lambda _device: True)
    with pytest.raises(TrainingError, match=r"too little memory in epoch 7: .*--batch"):
        failing(torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(TrainingError, match=r"failed in epoch 7: a fault\. Go on"):
        failing(RuntimeError("a fault"))


def test_training_stops_early_when_validation_no_longer_gets_better(
    train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "roc_auc_score", lambda *_: 0.5)
    trained = train(options=replace(OPTIONS, epochs=9, patience=2, window_share=0.0))
    assert trained.epochs == 3


def test_without_fetched_weights_blocks_begin_as_their_shortcuts() -> None:
    network = Learner("tf_efficientnetv2_s").network.eval()
    features = torch.rand(1, 48, 8, 8)
    block = network.blocks[1][1]
    assert torch.equal(block(features), features)
    assert not torch.equal(network.blocks[1][0].bn2.weight, torch.zeros(48))  # has no shortcut


def test_a_run_can_start_from_a_checkpoint(train: Callable[..., Any], tmp_path: Path) -> None:
    def weight(run: str) -> Any:
        network = classifier.best(SMALL, RunFolder(tmp_path / run))
        return next(iter(network.state_dict().values()))

    train("first")
    checkpoint = tmp_path / "first.pth"
    torch.save(classifier.best(SMALL, RunFolder(tmp_path / "first")).state_dict(), checkpoint)
    said: list[str] = []
    still = replace(OPTIONS, epochs=1, learning_rate=1e-12, weight_decay=0.0)
    train("second", options=still, initial=checkpoint, report=said.append)
    assert any("given weights" in line for line in said)
    train("third", options=replace(still, seed=5))
    assert torch.allclose(weight("second"), weight("first"), atol=1e-4)
    assert not torch.allclose(weight("third"), weight("first"), atol=1e-2)


def test_a_teacher_draws_features_to_its_own_and_stays_what_it_is() -> None:
    torch.manual_seed(0)
    learner = Learner(SMALL).train()
    teacher = Teacher(Learner("resnet10t").network, learner)
    before = {k: v.clone() for k, v in teacher.network.state_dict().items()}
    images = torch.rand(8, 3, 64, 64)
    optimizer = torch.optim.Adam([*learner.parameters(), *teacher.hints.parameters()], lr=3e-3)
    distances = []
    for _ in range(12):
        _, features, _ = learner(images)
        said, distance = teacher(images, features)
        optimizer.zero_grad()
        distance.backward()
        optimizer.step()
        distances.append(distance.item())
    assert said.shape == (8,)
    assert distances[-1] < 0.7 * distances[0]
    assert all(torch.equal(v, before[k]) for k, v in teacher.network.state_dict().items())


def test_a_bundle_without_a_teacher_is_refused_before_anything_is_trained(
    data: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    done = spinexr(
        "train", "classifier", "--data", data, "--out", tmp_path / "out",
        "--teacher", tmp_path / "empty", *TOY,
    )  # fmt: skip
    assert done.returncode == 1
    assert "model_best.pth cannot be read: No such file" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        ("teacher", {"seed": 1}, "images that are to validate this run: give --seed 0"),
        ("initial", {"seed": 1}, "images that are to validate this run: give --seed 0"),
        ("teacher", {"intensity": "display"}, "cannot teach with display"),
    ],
)
@pytest.mark.parametrize("known", ["run folder", "manifest"])
def test_a_network_that_knows_the_validation_images_is_no_start(
    bundle: Path, data: Path, tmp_path: Path, given: str, options: dict[str, Any], said: str,
    known: str,
) -> None:  # fmt: skip
    source = bundle
    if known == "manifest":  # as of somebody else, without the runs
        source = tmp_path / "given"
        shutil.copytree(bundle / "ensemble output", source / "ensemble output")
    bundles: dict[str, Any] = {given: source}
    job = commands.Job(data, tmp_path / "out", **bundles)
    with pytest.raises(ConfigurationError, match=said):
        commands.train_classifiers(
            job, ClassifierOptions(**options), architectures=["resnet50"], search=False
        )
    assert not (tmp_path / "out").exists()


def test_a_detector_that_knows_the_validation_images_is_no_start(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    job = commands.Job(data, tmp_path / "out", initial=bundle)
    with pytest.raises(ConfigurationError, match=r"The yolo11n in .* give --seed 0"):
        commands.train_detector(job, detector.DetectorOptions(seed=1))
    assert not (tmp_path / "out").exists()


def test_a_bundle_without_a_detector_is_refused_before_anything_is_trained(
    data: Path, tmp_path: Path
) -> None:
    """`train all` would otherwise find out after hours of classifiers."""
    initial = tmp_path / "initial"
    for architecture in commands.ARCHITECTURES:
        file = release.member_file(initial, architecture)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    done = spinexr(
        "train", "all", "--data", data, "--out", tmp_path / "out", "--initial", initial, *TOY
    )
    assert done.returncode == 1
    assert "best.pt cannot be read: No such file" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_another_network_is_no_start_and_claims_no_folder(
    train: Callable[..., Any], tmp_path: Path
) -> None:
    checkpoint = tmp_path / "other.pth"
    torch.save({"conv1.weight": torch.zeros(1)}, checkpoint)
    with pytest.raises(ConfigurationError, match=rf"other\.pth.*{SMALL}"):
        train("run", initial=checkpoint)
    assert not (tmp_path / "run").exists()


def test_windows_first_and_whole_images_at_the_end() -> None:
    options = ClassifierOptions(epochs=10, size=224, window=112, window_share=0.6)
    assert [options.size_at(n) for n in range(10)] == [112] * 6 + [224] * 4


def test_windows_larger_than_images_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="lower --window"):
        ClassifierOptions(size=64, window=112)


def test_what_made_the_checkpoint_to_start_from_is_remembered(
    train: Callable[..., Any], tmp_path: Path
) -> None:
    made = tmp_path / "runs" / SMALL
    train(f"runs/{SMALL}", commands=["spinexr train first"])
    assert made.exists()
    assert commands._earlier(tmp_path, SMALL, ENSEMBLE_FOLDER) == ["spinexr train first"]
    assert commands._earlier(None, SMALL, ENSEMBLE_FOLDER) == []
    nothing = commands._earlier(tmp_path / "elsewhere", SMALL, ENSEMBLE_FOLDER)
    assert nothing[0].startswith("unknown")


def test_another_architecture_is_not_resumed(train: Callable[..., Any]) -> None:
    with pytest.raises(Killed):
        train(progress=killed_after(1))
    with pytest.raises(TrainingError, match=SMALL):
        train(resume=True, architecture="resnet26")


def test_the_best_epoch_is_kept_not_the_last(
    train: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.6, 0.9, 0.7, 0.9])
    monkeypatch.setattr(classifier, "roc_auc_score", lambda *_: next(scores))
    train()
    assert RunFolder(tmp_path / "run").load(BEST)["epoch"] == 2


@pytest.fixture(scope="module")
def bundle(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything by the commands, with a test part that cannot be opened; the first one is killed
    by SIGKILL after its first epoch."""
    out = tmp_path_factory.mktemp("bundle")
    only_train = tmp_path_factory.mktemp("train") / "phantoms"
    shutil.copytree(data, only_train, ignore=shutil.ignore_patterns("test*"))
    # Whoever opens or lists these fails, in whichever process.
    (only_train / "annotations/test.csv").mkdir()
    (only_train / "test_images").symlink_to("test_images")
    common = ("--data", str(only_train), "--out", str(out), *TOY)
    process = subprocess.Popen(
        [sys.executable, "-m", "spinexr", "train", "classifier", *common, "--epochs", "2"],
        cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if "epoch 1/2" in line:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    done = spinexr("train", "classifier", *common, "--epochs", "2", "--half", "--resume")
    assert done.returncode == 0, done.stderr
    assert "going on after epoch 1" in done.stdout
    done = spinexr(
        "train", "detector", *common[:4], "--epochs", "1", "--size", "64", "--batch", "8",
        "--from-scratch", "--device", "cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_the_commands_make_a_bundle_that_says_where_it_comes_from(bundle: Path, data: Path) -> None:
    loaded = load_bundle(bundle)
    assert not loaded.assumed_profile
    assert loaded.training_data is TrainingData.SYNTHETIC
    assert "40 studies, seed 4" in loaded.description
    assert [m.weight for m in loaded.ensemble.members] == [0.42, 0.26, 0.32]
    assert loaded.ensemble.threshold == 0.449
    manifest = json.loads((bundle / "ensemble output/manifest.json").read_text())
    about = manifest["provenance"]
    assert about["data_fingerprint"] == examples._fingerprint(data)
    assert "spinexr train classifier" in about["commands"][0]
    assert str(data.parent) not in json.dumps(manifest)
    assert set(about["validation"]) >= {"auroc", "ece", "sensitivity", "specificity", "members"}
    assert set(about["initial_weights"].values()) == {"random"}
    detection = json.loads((bundle / "detection output/manifest.json").read_text())["provenance"]
    assert detection["initial_weights"] == {"yolo11n": "random"}


def test_a_finished_run_can_be_given_an_operating_point_of_its_own(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    shutil.copytree(bundle, out)
    done = spinexr(
        "train", "classifier", "--data", data, "--out", out, *TOY, "--epochs", "2", "--half",
        "--resume", "--search",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "epoch 1" not in done.stdout  # nothing is trained again
    manifest = json.loads((out / "ensemble output/manifest.json").read_text())
    assert manifest["provenance"]["validation"]["operating_point"] == "searched on validation"
    found = load_bundle(out).ensemble
    assert sum(m.weight for m in found.members) == pytest.approx(1)
    assert ([m.weight for m in found.members], found.threshold) != ([0.42, 0.26, 0.32], 0.449)
    assert 0 < found.threshold < 1


def test_checkpoints_are_plain_state_dicts_in_half_precision(bundle: Path) -> None:
    for member in load_bundle(bundle).ensemble.members:
        state = torch.load(member.file, weights_only=True)
        kinds = {t.dtype for t in state.values() if t.is_floating_point()}
        assert kinds == {torch.float16}
        assert not any("where" in name for name in state)


def test_the_bundle_serves_what_was_validated(bundle: Path, data: Path, tmp_path: Path) -> None:
    """The page's path gives the probabilities that were calibrated, up to half precision."""
    part = examples.read_train_part(data, validation_share=0.1, seed=0)
    predictor = load_predictor(bundle, EngineOptions(threads=2))
    results = {
        m.architecture: json.loads((bundle / f"runs/{m.architecture}/result.json").read_text())
        for m in load_bundle(bundle).ensemble.members
    }
    fitted = json.loads((bundle / "ensemble output/manifest.json").read_text())
    calibrations = fitted["provenance"]["validation"]["calibration"]
    from spinexr.analysis import analyse

    for n, image in enumerate(part.validation[:4]):
        analysis = analyse(image.file.read_bytes(), predictor=predictor, max_pixels=10**6)
        for member in analysis.prediction.members:
            raw = results[member.architecture]["logits"][n]
            logit = Calibration(**calibrations[member.architecture]).apply(np.array(raw))
            assert member.probability == pytest.approx(1 / (1 + np.exp(-logit)), abs=0.01)
    models = Models(lambda: predictor)
    app = create_app(Settings(uploads=tmp_path), models=models, read=reader.read)
    models.wait()
    client = app.test_client()
    sent = {"file": (BytesIO(part.validation[0].file.read_bytes()), "image.dicom")}
    answers = [
        client.get("/health"),
        client.post("/upload", data=sent, headers={"Accept": "application/json"}),
    ]
    for answer in answers:
        assert answer.status_code == 200
        assert answer.get_json()["bundle"]["caveat"].startswith("Synthetic demo weights")
    assert "Synthetic demo weights" in client.get("/").text
    predictor.close()


def test_the_bundle_can_be_evaluated(bundle: Path, data: Path, tmp_path: Path) -> None:
    done = spinexr("evaluate", "--data", data, "--bundle", bundle, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert 0 <= metrics["ensemble.auroc"] <= 1


def test_a_finished_run_is_neither_overwritten_nor_repeated(bundle: Path, data: Path) -> None:
    common = ("--data", data, "--out", bundle, *TOY, "--epochs", "2", "--member", "resnet50")
    done = spinexr("train", "classifier", *common)
    assert done.returncode == 1
    assert "--resume" in done.stderr
    before = (bundle / "runs/resnet50/curves.csv").read_bytes()
    done = spinexr("train", "classifier", *common, "--half", "--resume")
    assert done.returncode == 0
    assert (bundle / "runs/resnet50/curves.csv").read_bytes() == before


def test_a_changed_dataset_is_not_trained_on_halfway(bundle: Path, data: Path) -> None:
    extra = data / "train_images" / "index.txt"
    extra.write_text("something new")
    try:
        done = spinexr(
            "train", "classifier", "--data", data, "--out", bundle, *TOY, "--epochs", "2",
            "--resume",
        )  # fmt: skip
    finally:
        extra.unlink()
    assert done.returncode == 1
    assert "changed" in done.stderr


def test_a_killed_detector_run_goes_on(data: Path, tmp_path: Path) -> None:
    command = (
        "train", "detector", "--data", str(data), "--out", str(tmp_path), "--epochs", "4",
        "--size", "64", "--batch", "8", "--from-scratch", "--device", "cpu",
    )  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "spinexr", *command],
        cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if "epoch 1/4" in line:
            break
    process.kill()
    process.wait()
    process.stdout.close()
    results = tmp_path / "runs/yolo11n/results.csv"
    reached = len(results.read_text().splitlines()) - 1
    assert reached < 4
    for said in ("going on", "the run is finished"):
        done = spinexr(*command, "--resume")
        assert done.returncode == 0, done.stdout + done.stderr
        assert said in done.stdout
        epochs = [r.split(",")[0] for r in results.read_text().splitlines()[1:]]
        assert epochs == ["1", "2", "3", "4"]
    manifest = json.loads((tmp_path / "detection output/manifest.json").read_text())
    assert manifest["architecture"] == "yolo11n"
    assert manifest["provenance"]["validation"]["epochs"] == 4


@pytest.mark.parametrize(
    ("size", "window", "said"),
    [(500, 0, "multiple of 32, not 500"), (512, 100, "windows of 100"), (64, 96, "lower --window")],
)
def test_sizes_that_the_detector_cannot_have_are_refused(size: int, window: int, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        detector.DetectorOptions(size=size, window=window)


def test_a_detector_begins_on_windows_and_goes_on_with_whole_images(
    data: Path, tmp_path: Path
) -> None:
    shared = ("--data", data, "--size", "64", "--batch", "8", "--epochs", "1", "--from-scratch")
    windows = spinexr("train", "detector", *shared, "--out", tmp_path / "first", "--window", "32")
    assert windows.returncode == 0, windows.stderr
    pieces = list((tmp_path / "first/runs/detector-data/images/train").iterdir())
    assert len(pieces) > 10
    for piece in pieces:
        with Image.open(piece) as picture:
            assert picture.size == (38, 38)  # 32 and the room to zoom in
    done = spinexr(
        "train", "detector", *shared, "--out", tmp_path / "then", "--initial", tmp_path / "first",
        "--learning-rate", "0.0000001",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    before, after = (
        load_detector(release.detector_file(tmp_path / out))[0].state_dict()
        for out in ("first", "then")
    )
    classes = [k for k in before if "cv3" in k and k.endswith(".2.weight")]
    assert len(classes) == 3  # of each stride: what tells classes apart
    assert all(torch.allclose(after[k], before[k], atol=1e-3) for k in classes)
    assert str(tmp_path).encode() not in release.detector_file(tmp_path / "then").read_bytes()
    manifest = json.loads((tmp_path / "then/detection output/manifest.json").read_text())
    first, then = manifest["provenance"]["commands"]
    assert "--window 32" in first
    assert "--initial first" in then


def test_rectangular_training_sees_images_in_their_own_shape(
    part: TrainPart, tmp_path: Path
) -> None:
    shapes = set()

    def note(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        if module.training and isinstance(inputs[0], dict):  # a batch with its boxes
            shapes.add(tuple(inputs[0]["img"].shape[2:]))

    handle = torch.nn.modules.module.register_module_forward_pre_hook(note)
    try:
        detector.train(
            part, RunFolder(tmp_path / "run"),
            detector.DetectorOptions(
                size=128, epochs=1, batch=8, rectangular=True, pretrained=False
            ),
            device="cpu", data=tmp_path / "data",
        )  # fmt: skip
    finally:
        handle.remove()
    assert shapes == {(128, 96)}


def test_a_detector_of_another_scale_is_no_start(
    bundle: Path, part: TrainPart, tmp_path: Path
) -> None:
    checkpoint = bundle / "detection output/yolo11/weights/best.pt"
    with pytest.raises(ConfigurationError, match="holds yolo11n, not yolo11s"):
        detector.train(
            part, RunFolder(tmp_path / "run"), detector.DetectorOptions(scale="s", size=64),
            initial=checkpoint, data=tmp_path / "data",
        )  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_members_of_different_runs_are_no_ensemble(bundle: Path, data: Path) -> None:
    done = spinexr(
        "train", "classifier", "--data", data, "--out", bundle, *TOY[:1], "48", *TOY[2:],
        "--epochs", "1", "--member", "resnet50",
    )  # fmt: skip
    assert done.returncode == 1  # its own run is there already
    weights = {f: f.read_bytes() for f in bundle.glob("ensemble output/**/*") if f.is_file()}
    config = bundle / "runs/resnet50/config.json"
    before = config.read_text()
    config.write_text(before.replace('"size": 32', '"size": 48'))
    try:
        done = spinexr(
            "train", "classifier", "--data", data, "--out", bundle, *TOY, "--epochs", "2",
            "--member", "densenet121", "--half", "--resume",
        )  # fmt: skip
    finally:
        config.write_text(before)
    assert done.returncode == 1
    assert "resnet50 was trained on other data or with another size" in done.stderr
    assert all(f.read_bytes() == content for f, content in weights.items())


def test_a_member_that_learnt_from_its_own_bundle_can_be_finished_again(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    """Joining the members calibrates the teacher anew, which then has another digest."""
    out = tmp_path / "bundle"
    shutil.copytree(bundle, out)
    shutil.rmtree(out / "runs/resnet50")
    command = ("train", "classifier", "--data", data, "--out", out, "--teacher", out, *TOY,
               "--epochs", "1", "--member", "resnet50")  # fmt: skip
    for more in ((), ("--resume",)):
        done = spinexr(*command, *more)
        assert done.returncode == 0, done.stderr
    load_bundle(out)
    assert not (out / "runs/release").exists()


def test_the_released_detector_tells_no_paths(bundle: Path) -> None:
    file = bundle / "detection output/yolo11/weights/best.pt"
    content = file.read_bytes()
    assert str(bundle).encode() not in content
    assert b"detector-data" not in content
    # Of the repository that the trainer found around it, neither path nor commit nor origin.
    assert b"refs/heads" not in content
    assert set(torch_safe_load(str(file), safe_only=True)[0]) <= {
        "model",
        "train_args",
        "version",
        "license",
        "date",
    }


def test_the_detector_s_curves_are_kept_as_the_classifiers_are(bundle: Path) -> None:
    folder = RunFolder(bundle / "runs/yolo11n")
    (row,) = folder.curves()
    assert row["epoch"] == 1
    assert {"train_loss", "val_loss", "val_map50", "val_map50_95"} <= set(row)
    assert (folder.path / "curves.png").exists()


def test_a_detector_whose_loss_is_no_number_stops_and_says_where(
    part: TrainPart, tmp_path: Path
) -> None:
    batches = 0

    def spoil(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal batches
        if module.training and isinstance(inputs[0], dict):  # a batch with its boxes
            batches += 1
            if batches == 2:
                inputs[0]["img"].fill_(float("nan"))

    handle = torch.nn.modules.module.register_module_forward_pre_hook(spoil)
    options = detector.DetectorOptions(size=64, epochs=2, batch=8, pretrained=False)
    try:
        with pytest.raises(TrainingError, match=r"The loss is nan in epoch 1, step 2 of \d+"):
            detector.train(
                part, RunFolder(tmp_path / "run"), options, device="cpu", data=tmp_path / "data"
            )
    finally:
        handle.remove()
