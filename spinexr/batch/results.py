"""Rows of results, and the Parquet files that hold them.

A part is written under another name, forced to the disk and renamed: whoever reads the folder sees
whole parts only.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from spinexr.domain import Analysis, Finding

SCHEMA_VERSION = 1
ADDRESS = "address"  # of an input, in the place of a keyword of DICOM
_STAGES = ("read", "normalise", "classify", "detect")
_HASH_CHARACTERS = 32
_COMPRESSION = "zstd"
_PARTIAL = ".partial"

_MEMBERS = pa.list_(
    pa.struct(
        [
            ("name", pa.string()),
            ("architecture", pa.string()),
            ("probability", pa.float64()),
            ("weight", pa.float64()),
        ]
    )
)
_FINDINGS = pa.list_(
    pa.struct(
        [
            ("label", pa.string()),
            ("confidence", pa.float64()),
            ("tentative", pa.bool_()),
            *((edge, pa.float64()) for edge in ("x1", "y1", "x2", "y2")),
        ]
    )
)
FAILURES = pa.schema(
    [
        ("input", pa.int64()),
        ("address", pa.string()),
        ("code", pa.string()),
        ("message", pa.string()),
    ]
)


def schema(keep: Sequence[str]) -> pa.Schema:
    """The columns of a result set, with one of text for each attribute that is kept.

    Boxes are in stored-image pixels, probabilities and confidences 0 to 1, stages in milliseconds.
    """
    return pa.schema(
        [
            ("input", pa.int64()),
            ("instance", pa.string()),
            ("duplicate_of", pa.int64()),
            *((name, pa.string()) for name in keep),
            ("decision", pa.string()),
            ("probability", pa.float64()),
            ("threshold", pa.float64()),
            ("near_cutoff", pa.bool_()),
            ("members", _MEMBERS),
            ("detector_ran", pa.bool_()),
            ("agreement", pa.string()),
            ("findings", _FINDINGS),
            ("unlike_training_images", pa.bool_()),
            ("notices", pa.list_(pa.string())),
            ("rows", pa.int32()),
            ("columns", pa.int32()),
            ("bundle", pa.string()),
            ("bundle_sha256", pa.string()),
            ("caveat", pa.string()),
            ("precision", pa.string()),
            ("engine", pa.string()),
            ("device", pa.string()),
            ("software", pa.string()),
            ("fetch_ms", pa.float64()),
            *((f"{stage}_ms", pa.float64()) for stage in _STAGES),
        ]
    )


def row(
    analysis: Analysis,
    *,
    precision: str,
    bundle_sha256: str,
    software: str,
    fetch_ms: float,
    kept: Mapping[str, str | None],
    instance: str | None,
) -> dict[str, Any]:
    """An analysis as values by column, without `input` and `duplicate_of`.

    Args:
        kept: value, or None where the file has none, of each attribute that is kept.
        instance: the hash of the SOPInstanceUID.
    """
    prediction, bundle = analysis.prediction, analysis.bundle
    known = prediction.familiarity
    return {
        "instance": instance,
        **kept,
        "decision": prediction.decision,
        "probability": prediction.probability,
        "threshold": prediction.threshold,
        "near_cutoff": prediction.near_cutoff,
        "members": [asdict(m) for m in prediction.members],
        "detector_ran": prediction.findings is not None,
        "agreement": prediction.agreement.value,
        "findings": (
            None if prediction.findings is None else [_finding(f) for f in prediction.findings]
        ),
        "unlike_training_images": known and known.unlike_training_images,
        "notices": [n.code for n in analysis.notices],
        "rows": analysis.radiograph.rows,
        "columns": analysis.radiograph.columns,
        "bundle": bundle.name,
        "bundle_sha256": bundle_sha256,
        "caveat": bundle.caveat,
        "precision": precision,
        "engine": analysis.engine,
        "device": analysis.device,
        "software": software,
        "fetch_ms": fetch_ms,
        **{f"{stage}_ms": analysis.stage_ms.get(stage) for stage in _STAGES},
    }


def hashed(uid: str | None, salt: bytes) -> str | None:
    """A name for an instance that leads nobody back to it; None where the file names none."""
    return uid and hmac.new(salt, uid.encode(), "sha256").hexdigest()[:_HASH_CHARACTERS]


def part_name(number: int) -> str:
    """The file of the part with a number, from 0."""
    return f"part-{number:06d}.parquet"


def write_part(
    folder: Path, number: int, rows: Sequence[Mapping[str, Any]], kind: pa.Schema
) -> None:
    """Write a part, whole or not at all; one of the same number is replaced.

    Raises:
        OSError: it cannot be written.
    """
    table = pa.Table.from_pylist(list(rows), kind)
    _write(folder / part_name(number), [table], kind)


def remove_uncommitted(folder: Path, parts: int) -> None:
    """Remove what a run left behind that was killed: all but the first `parts` parts."""
    committed = {part_name(n) for n in range(parts)}
    for file in folder.iterdir():
        ours = file.match("part-*.parquet") or file.match(f".part-*{_PARTIAL}")
        if ours and file.name not in committed:
            file.unlink()


def write_failures(file: Path, rows: Iterable[Sequence[Mapping[str, Any]]]) -> None:
    """Write the failures, batch by batch, in the place of those that the file holds.

    Raises:
        OSError: it cannot be written.
    """
    tables = (pa.Table.from_pylist(list(batch), FAILURES) for batch in rows)
    _write(file, tables, FAILURES, mode=0o600)  # addresses may name patients


def write_bytes(file: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write a file, whole or not at all; when this returns it is on the disk.

    Args:
        mode: who may do what with it, less what the process's umask takes away.

    Raises:
        OSError: it cannot be written.
    """
    with _whole(file, mode) as stream:
        stream.write(data)


def batches(folder: Path, columns: Sequence[str]) -> Iterator[dict[str, list[Any]]]:
    """Some columns of all parts, by parts of them."""
    for file in sorted(folder.glob("part-*.parquet")):
        with pq.ParquetFile(file) as part:
            for batch in part.iter_batches(columns=list(columns)):
                yield batch.to_pydict()


def _write(file: Path, tables: Iterable[pa.Table], kind: pa.Schema, *, mode: int = 0o666) -> None:
    with (
        _whole(file, mode) as stream,
        pq.ParquetWriter(stream, kind, compression=_COMPRESSION) as writer,
    ):
        for table in tables:
            writer.write_table(table)


@contextmanager
def _whole(file: Path, mode: int) -> Iterator[IO[bytes]]:
    """A stream to a file that is there, on the disk, once all was written, or not at all."""
    partial = file.with_name(f".{file.name}{_PARTIAL}")
    try:
        descriptor = os.open(partial, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, mode)
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
        _sync(file.parent)
    finally:
        partial.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Force a rename to the disk, where folders can be opened."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _finding(finding: Finding) -> dict[str, Any]:
    box = finding.box
    return {
        "label": finding.label,
        "confidence": finding.confidence,
        "tentative": finding.tentative,
        "x1": box.x1,
        "y1": box.y1,
        "x2": box.x2,
        "y2": box.y2,
    }
