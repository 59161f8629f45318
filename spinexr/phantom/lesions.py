"""The seven classes of findings as changes of geometry, each with its box in the projection.

A finding changes vertebrae before they are placed, adds solids to the piece of a vertebra, or adds
pieces of its own. Severity runs from 0 (barely visible) to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from spinexr.domain import Box
from spinexr.phantom.anatomy import LEVELS, Groups, Patient, Vertebra
from spinexr.phantom.solids import Material, Vector, cone, superquadric

_Rng = np.random.Generator
_SMALLEST_BOX_PX = 6.0

Points = list[Vector]


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding to be: its class, where and how bad."""

    label: str
    level: str  # of the vertebra, or of the one above the disc
    severity: float


@dataclass
class Marks:
    """What a finding has left behind: points in the world around it, for its box."""

    label: str
    points: Points


@dataclass
class Changes:
    """Everything findings add to a scene."""

    joined: dict[str, list[Vector]] = field(default_factory=dict)  # to the piece of a vertebra
    pieces: Groups = field(default_factory=list)
    marks: list[Marks] = field(default_factory=list)


def draw(
    levels: Sequence[str], rng: _Rng, *, classes: Sequence[str], probabilities: Sequence[float]
) -> list[Finding]:
    """One to three kinds of findings at levels of the film."""
    kinds = rng.choice(
        len(classes), size=int(rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15])), replace=False,
        p=np.asarray(probabilities) / np.sum(probabilities),
    )  # fmt: skip
    findings = []
    for kind in kinds:
        label = classes[int(kind)]
        several = int(rng.integers(2, 6)) if label == "Osteophytes" else int(rng.integers(1, 3))
        several = 1 if label == "Surgical implant" else several
        chosen = rng.choice(len(levels), size=min(several, len(levels)), replace=False)
        findings += [Finding(label, levels[int(n)], float(rng.random())) for n in chosen]
    return findings


def change_vertebrae(
    findings: Sequence[Finding], vertebrae: dict[str, Vertebra], rng: _Rng
) -> None:
    """The part of findings that moves or shapes vertebrae; before they are placed."""
    for f in findings:
        v = vertebrae[f.level]
        s = f.severity
        if f.label == "Disc space narrowing":
            v.disc *= 0.62 - 0.42 * s
            v.sclerosis_below = 0.8 + 2.8 * s
        elif f.label == "Spondylolysthesis":
            v.slip = v.depth * (0.11 + 0.34 * s) * (1 if rng.random() < 0.8 else -1)
            v.disc *= 1 - 0.3 * s
        elif f.label == "Vertebral collapse":
            kind = rng.random()
            if kind < 0.55:  # wedge
                v.front *= 0.78 - 0.36 * s
                v.middle *= 0.92 - 0.2 * s
            elif kind < 0.8:  # biconcave
                v.middle *= 0.78 - 0.36 * s
            else:  # crush
                for part in ("front", "middle", "back"):
                    setattr(v, part, getattr(v, part) * (0.76 - 0.3 * s))
            v.bend = v.bend + np.array([4.0 + 8 * s, 0.0, 0.0]) * (kind < 0.55)
        elif f.label == "Foraminal stenosis":
            v.foramen = 0.72 - 0.42 * s


def apply(
    findings: Sequence[Finding], vertebrae: dict[str, Vertebra], patient: Patient, rng: _Rng
) -> Changes:
    """The part of findings that adds solids, and the marks of all; after placing."""
    changes = Changes()
    for f in findings:
        _BY_CLASS[f.label](f, vertebrae, patient, rng, changes)
    return changes


def box_of(
    points: Points, project: Callable[[Vector], tuple[float, float]], *, rows: int, columns: int
) -> Box | None:
    """The box around projected points, clipped to the film; None where too little of it shows."""
    xy = np.array([project(p) for p in points])
    (x1, y1), (x2, y2) = xy.min(0), xy.max(0)
    area = max(x2 - x1, 1e-6) * max(y2 - y1, 1e-6)
    x1, x2 = np.clip([x1, x2], 0, columns)
    y1, y2 = np.clip([y1, y2], 0, rows)
    if x2 - x1 < _SMALLEST_BOX_PX or y2 - y1 < _SMALLEST_BOX_PX:
        return None
    if (x2 - x1) * (y2 - y1) < 0.4 * area:
        return None
    return Box(float(x1), float(y1), float(x2), float(y2))


def _below(level: str) -> str:
    return LEVELS[LEVELS.index(level) + 1]  # no finding is drawn at L5: the sacrum is no vertebra


def _corners(v: Vertebra, *, low: float, high: float, grow: float = 1.0) -> Points:
    """Corners of the box around the part of a body between two local heights."""
    a, b = v.width / 2 * grow, v.depth / 2 * grow
    return [v.frame.point([x, y, z]) for x in (-a, a) for y in (-b, b) for z in (low, high)]


def _osteophytes(
    f: Finding, vertebrae: dict[str, Vertebra], patient: Patient, rng: _Rng, changes: Changes
) -> None:
    """Spurs at the end-plate corners, beaks up or down, denser at the rim."""
    v = vertebrae[f.level]
    k = v.width / 45
    bone = Material(0.40, 0.14, 1.0)
    for _ in range(int(rng.integers(1, 4))):
        size = (2.0 + 7.0 * f.severity * float(rng.uniform(0.6, 1.0))) * (0.6 + 0.4 * k)
        angle = float(rng.choice([0.0, np.pi, np.pi / 2, 0.25 * np.pi, 0.75 * np.pi]))
        up = 1.0 if rng.random() < 0.5 else -1.0
        out = np.array([np.cos(angle) * v.width / 2, np.sin(angle) * v.depth / 2, 0.0])
        away = np.array([np.cos(angle), np.sin(angle), 0.0])
        root = out * 0.93 + [0, 0, up * (v.middle / 2 - 1.5)]
        tip = root + away * size + [0, 0, up * size * float(rng.uniform(0.3, 0.9))]
        across = np.array([-np.sin(angle), np.cos(angle), 0.0])
        spread = 0.22 * v.width
        for t in (-1.0, -0.4, 0.3, 0.9):
            start = v.frame.point(root + across * t * spread)
            end = v.frame.point(tip + across * t * spread * 0.6)
            spur = cone(start, end, 2.2 * k + 0.8, 0.9, bone)
            changes.joined.setdefault(f.level, []).append(spur)
        middle, reach = (root + tip) / 2, size * 0.75 + 2.5
        changes.marks.append(Marks(f.label, [v.frame.point(middle + d) for d in _cube(reach)]))


def _disc(
    f: Finding, vertebrae: dict[str, Vertebra], patient: Patient, rng: _Rng, changes: Changes
) -> None:
    v, w = vertebrae[f.level], vertebrae[_below(f.level)]
    dense = Material(0.22, 0.16, 0.8)
    t = v.sclerosis_below / 2
    for body, z in ((v, -v.middle / 2 + t), (w, w.middle / 2 - t)):
        plate = [body.width / 2 * 0.9, body.depth / 2 * 0.9, t]
        changes.pieces.append([superquadric(body.frame.at([0, 0, z]), plate, dense, n=2.6)])
    if f.severity > 0.6 and rng.random() < 0.5:  # vacuum
        gap = (v.frame.point([0, 0, -v.middle / 2]) + w.frame.point([0, 0, w.middle / 2])) / 2
        frame = type(v.frame)(gap, v.frame.axes)
        gas = Material(-0.2, -0.2, 0.3)
        changes.pieces.append([superquadric(frame, [v.width * 0.3, v.depth * 0.3, 1.0], gas)])
    points = _corners(v, low=-v.middle / 2, high=-v.middle / 2 + 3.5)
    points += _corners(w, low=w.middle / 2 - 3.5, high=w.middle / 2)
    changes.marks.append(Marks(f.label, points))


def _implant(
    f: Finding, vertebrae: dict[str, Vertebra], patient: Patient, rng: _Rng, changes: Changes
) -> None:
    """Screws with heads and rods over two to four levels, or a cage, or cement."""
    titanium = Material(2.2 + 1.2 * rng.random(), 2.8, 0.6)
    n = LEVELS.index(f.level)
    levels = [LEVELS[i] for i in range(n, min(n + int(rng.integers(2, 5)), len(LEVELS)))]
    if len(levels) < 2 or rng.random() < 0.25:
        v = vertebrae[f.level]
        if rng.random() < 0.5:
            cement = Material(0.9, 0.9, 0.5)
            blobs = [
                superquadric(v.frame.at(rng.normal(0, 1, 3) * [v.width / 6, v.depth / 6, 2]),
                             list(rng.uniform(3, 8, 3)), cement)
                for _ in range(5)
            ]  # fmt: skip
            changes.pieces.append(blobs)
            reach = [v.width * 0.36, v.depth * 0.36, v.middle * 0.45]
            points = [v.frame.point(d * reach) for d in _cube(1.0)]
        else:
            cage = v.frame.at([0, 0, -v.middle / 2 - v.disc / 2])
            half = [v.width * 0.3, v.depth * 0.3, max(v.disc * 0.45, 2.5)]
            changes.pieces.append([superquadric(cage, half, titanium, n=4.0, m=4.0)])
            points = [cage.point(d * half) for d in _cube(1.0)]
        changes.marks.append(Marks(f.label, points))
        return
    points = []
    for side in (-1.0, 1.0):
        heads: Points = []
        for level in levels:
            v = vertebrae[level]
            k = v.width / 45
            x = side * (11.5 * (0.75 + 0.25 * k) + 4 * k)
            head = v.frame.point([x * 1.25, -v.depth / 2 - 20 * k - 4, 0.18 * v.middle])
            tip = v.frame.point([x * 0.72, v.depth * 0.22, 0.12 * v.middle])
            r = float(rng.uniform(2.0, 3.3)) * max(k, 0.6)
            changes.pieces.append([cone(head, tip, r, r * 0.75, titanium)])
            tulip = cone(
                head, head + (head - tip) * 0.16, 6.0 * max(k, 0.6), 6.0 * max(k, 0.6), titanium
            )
            changes.pieces.append([tulip])
            heads.append(head + (head - tip) * 0.14)
            points += [tip, head + (head - tip) * 0.3]
        rod = [cone(a, b, 2.9, 2.9, titanium) for a, b in pairwise(heads)]
        ends = (heads[0] - heads[1], heads[-1] - heads[-2])
        rod.append(cone(heads[0], heads[0] + ends[0] * 0.2, 2.9, 2.9, titanium))
        rod.append(cone(heads[-1], heads[-1] + ends[1] * 0.2, 2.9, 2.9, titanium))
        changes.pieces.append(rod)
        points += [heads[0] + ends[0] * 0.25, heads[-1] + ends[1] * 0.25]
    changes.marks.append(Marks(f.label, [p + d for p in points for d in _cube(3.0)]))


def _foramen(
    f: Finding, vertebrae: dict[str, Vertebra], patient: Patient, rng: _Rng, changes: Changes
) -> None:
    """Overgrown facets around the foramen below a pedicle."""
    v = vertebrae[f.level]
    k = v.width / 45
    bone = Material(0.40, 0.16, 1.0)
    grow = 1.5 + 3.5 * f.severity
    points = []
    for side in (-1.0, 1.0):
        place = np.array([side * 15 * (0.6 + 0.4 * k), -v.depth / 2 - 10 * k, -0.42 * v.middle])
        lump = superquadric(
            v.frame.at(place + [0, -2, 0]), [4 * k + grow, 4 * k + grow, 5 * k + grow], bone
        )
        changes.joined.setdefault(f.level, []).append(lump)
        reach = np.array([5.0, 6.0, 10.0]) * (0.55 + 0.45 * k)
        points += [v.frame.point(place + [0, 4 * k, 0] + d * reach) for d in _cube(1.0)]
    changes.marks.append(Marks(f.label, points))


def _slip(
    f: Finding, vertebrae: dict[str, Vertebra], patient: Patient, rng: _Rng, changes: Changes
) -> None:
    v, w = vertebrae[f.level], vertebrae[_below(f.level)]
    points = _corners(v, low=-v.middle / 2, high=v.middle * 0.1)
    points += _corners(w, low=-w.middle * 0.1, high=w.middle / 2)
    changes.marks.append(Marks(f.label, points))


def _collapse(
    f: Finding, vertebrae: dict[str, Vertebra], patient: Patient, rng: _Rng, changes: Changes
) -> None:
    v = vertebrae[f.level]
    band = superquadric(
        v.frame.at([0, v.depth * 0.05, v.middle * 0.22]),
        [v.width * 0.44, v.depth * 0.42, 1.2 + 1.8 * f.severity], Material(0.12, 0.12, 0.6), n=2.6,
    )  # fmt: skip
    changes.pieces.append([band])
    half = max(v.front, v.middle, v.back) / 2
    changes.marks.append(Marks(f.label, _corners(v, low=-half, high=half, grow=1.04)))


def _other(
    f: Finding, vertebrae: dict[str, Vertebra], patient: Patient, rng: _Rng, changes: Changes
) -> None:
    """A sclerotic or lytic focus, a fracture line, a foreign body."""
    v = vertebrae[f.level]
    kind = rng.random()
    place = rng.uniform(-1, 1, 3) * [v.width * 0.25, v.depth * 0.25, v.middle * 0.2]
    radius = (2.5 + 5.5 * float(rng.uniform(0.4, 1.0))) * (0.6 + 0.4 * v.width / 45)
    strength = 0.10 + 0.35 * f.severity
    if kind < 0.4:
        half, stuff = rng.uniform(0.7, 1.1, 3) * radius, Material(strength, strength, 0.5)
    elif kind < 0.7:
        half, stuff = (
            rng.uniform(0.8, 1.2, 3) * radius,
            Material(-0.8 * strength, -0.8 * strength, 0.5),
        )
    elif kind < 0.85:
        half = np.array([v.width * 0.45, v.depth * 0.4, 0.6 + 0.9 * f.severity])
        stuff = Material(-strength, -strength, 0.3)
    else:
        half, stuff = rng.uniform(0.8, 3.5, 3), Material(2.5, 2.5, 0.5)
        place = place + rng.normal(0, 12, 3)
    frame = v.frame.at(place)
    changes.pieces.append([superquadric(frame, list(half), stuff, n=2.2)])
    reach = np.maximum(half * 1.15, 2.5)
    changes.marks.append(Marks(f.label, [frame.point(d * reach) for d in _cube(1.0)]))


def _cube(reach: float) -> Points:
    return [
        np.array([x, y, z]) * reach for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)
    ]


_BY_CLASS = {
    "Osteophytes": _osteophytes,
    "Disc space narrowing": _disc,
    "Surgical implant": _implant,
    "Foraminal stenosis": _foramen,
    "Spondylolysthesis": _slip,
    "Vertebral collapse": _collapse,
    "Other lesions": _other,
}
