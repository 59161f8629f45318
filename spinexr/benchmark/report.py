"""The benchmark's numbers → Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MEBIBYTE = 1024 * 1024


def as_markdown(results: Mapping[str, Any]) -> str:
    """Every table of a run.

    Args:
        results: what `run.run` returns.
    """
    parts = [f"{_machine(results)}\n"]
    parts.append(_section("One client", _latency(results["latency"])))
    parts.append(_section("Several clients, abnormal, JPEG 2000", _clients(results["throughput"])))
    parts.append(_section("Start and answer", _start(results["start"])))
    parts.append(_section("Stages", _stages(results["stages"])))
    parts.append(_section("Networks", _networks(results["networks"])))
    parts.append(_section("Cost against size", _sizes(results["sizes"])))
    return "\n".join(parts)


def _machine(results: Mapping[str, Any]) -> str:
    about = results["machine"]
    return (
        f"{about['processor']}, {about['threads']} threads, {about['system']}; Python "
        f"{about['python']}, torch {about['torch']}, OpenVINO {about['openvino']}; detector "
        f"{about['detector']}, image {about['columns']} × {about['rows']}; medians of "
        f"{about['rounds']} rounds. The plain server decodes with {about['reference_decoders']}."
    )


def _latency(rows: Sequence[Mapping[str, Any]]) -> str:
    servers = list(rows[0]["seconds"])
    base = servers[0]
    head = ["image", "result", *(f"{s} (ms)" for s in servers)]
    head += [f"{s}: ratio" for s in servers if "SpineXR" in s]
    body = []
    for row in rows:
        seconds = row["seconds"]
        line = [row["syntax"], row["case"], *(f"{1000 * seconds[s]:.0f}" for s in servers)]
        line += [f"{seconds[base] / seconds[s]:.2f} ×" for s in servers if "SpineXR" in s]
        body.append(line)
    return _table(head, body)


def _clients(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ["server", "clients", "answers/s", "ratio", "p50 (ms)", "p95", "p99", "peak memory (MB)"]
    base = rows[0]["per_second"]
    return _table(
        head,
        [
            [
                r["server"], str(r["clients"]), f"{r['per_second']:.2f}",
                f"{r['per_second'] / base:.2f} ×",
                *(f"{1000 * r[k]:.0f}" for k in ("p50_s", "p95_s", "p99_s")),
                f"{r['peak_bytes'] / MEBIBYTE:.0f}",
            ]
            for r in rows
        ],
    )  # fmt: skip


def _start(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ["server", "start to ready (s)", "JSON answer (KB)", "HTML answer (KB)"]
    return _table(
        head,
        [
            [
                r["server"], f"{r['ready_s']:.1f}", f"{r['json_bytes'] / 1000:.0f}",
                f"{r['html_bytes'] / 1000:.0f}" if r["html_bytes"] else "–",
            ]
            for r in rows
        ],
    )  # fmt: skip


def _stages(stages: Mapping[str, Mapping[str, float]]) -> str:
    names = list(dict.fromkeys(name for column in stages.values() for name in column))
    return _table(
        ["stage", *(f"{c} (ms)" for c in stages)],
        [
            [name, *(f"{1000 * c[name]:.1f}" if name in c else "" for c in stages.values())]
            for name in names
        ],
    )


def _networks(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ["network", "precision", "GFLOP", "ms", "GFLOP/s"]
    head += [f"share of {library}'s matrix product" for library in rows[0]["shares"]]
    return _table(
        head,
        [
            [
                r["network"], r["precision"], f"{r['gflop']:.1f}", f"{1000 * r['seconds']:.1f}",
                f"{r['gflop'] / r['seconds']:.0f}",
                *(f"{share:.2f}" for share in r["shares"].values()),
            ]
            for r in rows
        ],
    )  # fmt: skip


def _sizes(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ["megapixels", "file (MB)", "read in the sandbox (ms)", "the rest (ms)"]
    return _table(
        head,
        [
            [
                f"{r['megapixels']:g}", f"{r['file_bytes'] / 1e6:.1f}",
                f"{1000 * r['read_s']:.0f}", f"{1000 * r['rest_s']:.0f}",
            ]
            for r in rows
        ],
    )  # fmt: skip


def _section(title: str, table: str) -> str:
    return f"### {title}\n\n{table}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
