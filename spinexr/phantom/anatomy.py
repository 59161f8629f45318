"""One patient's spine and trunk as solids, from a specification that findings may change first.

World frame in mm: x to the patient's left, y to the front, z up. Sizes and curves are rounded
values of general anatomy: good for a likeness, no source to measure people by.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise

import numpy as np

from spinexr.phantom.solids import (
    WORLD,
    Frame,
    Material,
    Vector,
    body,
    cone,
    lung,
    rotation,
    superquadric,
)

LEVELS = (
    *(f"C{n}" for n in range(2, 8)),
    *(f"T{n}" for n in range(1, 13)),
    *(f"L{n}" for n in range(1, 6)),
)

# level: width, depth, height, disc below (mm)
_SIZES = {
    "C2": (15.0, 14.5, 17.0, 4.5), "C3": (16.0, 15.0, 14.0, 4.5), "C5": (18.0, 15.0, 13.0, 5.0),
    "C7": (21.0, 16.0, 14.0, 5.5), "T1": (28.0, 17.0, 17.0, 4.0), "T4": (26.0, 21.0, 19.0, 4.0),
    "T8": (29.0, 27.0, 21.0, 5.0), "T10": (34.0, 29.0, 23.0, 6.0), "T12": (40.0, 31.0, 25.0, 7.0),
    "L1": (41.0, 31.0, 26.0, 8.0), "L3": (45.0, 33.0, 27.0, 10.0), "L4": (47.0, 34.0, 27.0, 11.5),
    "L5": (49.0, 34.0, 25.5, 10.0),
}  # fmt: skip
_LUMBAR_SHARE = {"L5": 0.34, "L4": 0.26, "L3": 0.18, "L2": 0.12, "L1": 0.10}

_Rng = np.random.Generator
Groups = list[list[Vector]]  # each group is one piece of the body


class Region(StrEnum):
    """What part of the spine a film shows."""

    CERVICAL = "CSPINE"
    THORACIC = "TSPINE"
    THORACOLUMBAR = "TLSPINE"
    LUMBAR = "LSPINE"


@dataclass
class Vertebra:
    """One vertebra before it is placed; lengths in mm, findings change them."""

    level: str
    width: float
    depth: float
    front: float  # heights
    middle: float
    back: float
    disc: float  # height of the disc below
    slip: float = 0.0  # of this one forward on the one below
    sclerosis_below: float = 0.0  # thickness added to the end-plates around the disc below
    foramen: float = 1.0  # height of the foramen below, relative
    bend: Vector = field(default_factory=lambda: np.zeros(3))  # sagittal, coronal, axial degrees
    frame: Frame = WORLD

    @property
    def lumbar(self) -> bool:
        return self.level[0] == "L"

    @property
    def cervical(self) -> bool:
        return self.level[0] == "C"


@dataclass
class Patient:
    """What differs between people. Bones by `make_vertebrae`, the rest by `surroundings`."""

    scale: float
    density: float  # of trabecular bone, 0 (osteoporotic) to 1
    sacral_slope: float
    lordosis: float
    kyphosis: float
    cervical_lordosis: float
    cobb: float
    cobb_phase: float
    axial: float
    girth: float
    wide: float  # multiplies the spread of everything; more in the test part

    @classmethod
    def draw(cls, rng: _Rng, *, wide: float = 1.0) -> Patient:
        """A patient; `wide` stretches the ranges."""

        def around(middle: float, spread: float) -> float:
            return middle + wide * spread * float(rng.uniform(-1, 1))

        scoliotic = rng.random() < 0.15
        return cls(
            scale=around(1.0, 0.11),
            density=float(np.clip(around(0.5, 0.5), 0, 1)),
            sacral_slope=around(37, 7),
            lordosis=around(52, 12),
            kyphosis=around(32, 12),
            cervical_lordosis=around(24, 14),
            cobb=float(rng.uniform(12, 45)) if scoliotic else float(rng.uniform(0, 7)),
            cobb_phase=float(rng.uniform(0, 2 * np.pi)),
            axial=around(0, 6),
            girth=around(1.0, 0.2),
            wide=wide,
        )

    def bone(self, rng: _Rng | None = None, *, shell_mm: float = 0.9) -> Material:
        """Bone of this patient: shell 0.60/cm, inside 0.235 to 0.315/cm, over soft tissue."""
        jitter = 0.0 if rng is None else float(rng.normal(0, 0.006))
        inside = 0.03 + 0.085 * self.density + jitter
        return Material(0.37 + 0.06 * self.density, inside, shell_mm)


def make_vertebrae(patient: Patient, rng: _Rng) -> dict[str, Vertebra]:
    """All vertebrae of a patient, not yet placed."""
    known = [LEVELS.index(name) for name in _SIZES]
    table = np.array(list(_SIZES.values()))
    vertebrae = {}
    for n, level in enumerate(LEVELS):
        width, depth, height, disc = (
            float(np.interp(n, known, table[:, k])) * patient.scale * float(rng.normal(1, 0.03))
            for k in range(4)
        )
        wedge = 0.10 if level == "L5" else (-0.03 if level[0] == "T" else 0.0)
        vertebrae[level] = Vertebra(
            level, width, depth,
            front=height * (1 + wedge / 2 + float(rng.normal(0, 0.012))),
            middle=height * (0.97 + float(rng.normal(0, 0.01))),
            back=height * (1 - wedge / 2 + float(rng.normal(0, 0.012))),
            disc=disc,
        )  # fmt: skip
    return vertebrae


def place(patient: Patient, vertebrae: dict[str, Vertebra], center: str) -> Frame:
    """Stack the vertebrae from the sacrum up, `center` at the origin; the sacrum's frame."""
    tilt = patient.sacral_slope
    at = np.zeros(3)
    sacrum = Frame(at, rotation(x_deg=-tilt))
    below, below_half = sacrum, 0.0
    for level in reversed(LEVELS):
        v = vertebrae[level]
        if v.lumbar:
            tilt -= patient.lordosis * _LUMBAR_SHARE[level]
        elif v.cervical:
            tilt -= patient.cervical_lordosis / 6
        else:
            tilt += patient.kyphosis / 12
        height = LEVELS.index(level) / (len(LEVELS) - 1) * 2.2 * np.pi + patient.cobb_phase
        coronal = patient.cobb / 2 * np.sin(height) + v.bend[1]
        axial = patient.axial + 0.35 * patient.cobb * np.cos(height) + v.bend[2]
        axes = rotation(x_deg=-(tilt + v.bend[0]), y_deg=coronal, z_deg=axial)
        half = v.middle / 2
        up = below.axes[2] + axes[2]
        up /= np.linalg.norm(up)
        at = (
            below.origin + below.axes[2] * below_half + up * v.disc + axes[2] * half
            + below.axes[1] * v.slip
        )  # fmt: skip
        v.frame = below = Frame(at, axes)
        below_half = half
    shift = vertebrae[center].frame.origin.copy()
    for v in vertebrae.values():
        v.frame = Frame(v.frame.origin - shift, v.frame.axes)
    return Frame(sacrum.origin - shift, sacrum.axes)


def vertebra_solids(v: Vertebra, patient: Patient, rng: _Rng) -> list[Vector]:
    """Body, pedicles, articular pillars, transverse and spinous processes."""
    f = v.frame
    a, b = v.width / 2, v.depth / 2
    k = v.width / 45  # how large this vertebra is beside a lumbar one
    bone = patient.bone(rng, shell_mm=float(rng.uniform(0.7, 1.1)))
    thick = Material(bone.shell, bone.inside * 1.4, 1.3)
    solids = [
        body(
            f, half_width=a, half_depth=b,
            half_heights=(v.front / 2, v.middle / 2, v.back / 2),
            concavity=float(rng.uniform(0.6, 1.6)) * k + 0.3, waist=float(rng.uniform(0.07, 0.13)),
            outline=float(rng.uniform(2.2, 2.8)), hollow=0.12,
            unevenness=float(rng.uniform(0.2, 0.45)), phases=list(rng.uniform(0, 6.28, 3)),
            lean=float(rng.uniform(-0.3, 0.3)), material=bone,
        )
    ]  # fmt: skip
    canal = 11.5 * (0.75 + 0.25 * k)
    h = v.middle
    pedicle = (8.0 + 7 * max(0.0, (k - 0.9) * 4) if v.lumbar else 6.0) / 2 * patient.scale
    rear = -b - 16 * k - 4
    drop = -0.30 * h * (2.0 - v.foramen)
    for side in (-1.0, 1.0):
        x = side * (canal + pedicle)
        x = np.sign(x) * min(abs(x), a * 0.86)
        wiggle = rng.normal(0, 0.6, 3)
        solids.append(
            superquadric(
                f.at([x, -b - 4.0, 0.20 * h] + wiggle, rotation(z_deg=side * 8)),
                [pedicle, 9.0 * k + 2, 0.27 * h], thick, n=2.3, m=2.3,
            )
        )  # fmt: skip
        joint = np.array([x * 1.12, -b - 13 * k - 2, 0.05 * h])
        upper = joint + [side * 2 * k, 3 * k, 0.55 * h]
        lower = np.array([x * 0.92, rear, drop - 0.35 * h])
        solids.append(cone(f.point(joint), f.point(upper), 5.0 * k + 1.2, 3.4 * k + 1, thick))
        solids.append(cone(f.point(joint), f.point(lower), 5.0 * k + 1.0, 4.2 * k + 1, thick))
        solids.append(  # lamina
            cone(
                f.point(lower + [0, 0, 0.25 * h]), f.point([side * 2, rear - 6 * k, -0.15 * h]),
                4.2 * k + 1, 3.4 * k + 1, thick, flat=0.7,
            )
        )  # fmt: skip
        if v.lumbar:
            reach, back, rise = 27.0 * patient.scale, -b - 8, 0.12 * h
        elif v.cervical:
            reach, back, rise = 8.0, -b * 0.2, -0.1 * h
        else:
            reach, back, rise = 17.0, -b - 20, 0.3 * h
        tip = [
            x + side * reach + rng.normal(0, 2),
            back + rng.normal(0, 2),
            rise + rng.normal(0, 2),
        ]
        solids.append(
            cone(f.point([x, -b - 7, 0.1 * h]), f.point(tip), 4.5 * k + 1.2, 2.6 * k + 1.2, bone,
                 flat=0.6)
        )  # fmt: skip
    twist = float(rng.normal(0, 1.5))
    if v.lumbar:
        solids.append(
            superquadric(
                f.at([twist / 2, rear - 16, -0.30 * h], rotation(x_deg=-8, z_deg=twist)),
                [2.7, 15.0, 0.40 * h], thick, n=2.4, m=2.8,
            )
        )  # fmt: skip
    else:
        length = 14.0 if v.cervical else 34.0
        fall = 0.25 * length if v.cervical else 0.62 * length
        tip = [twist, rear - length, -0.2 * h - fall]
        solids.append(
            cone(f.point([0, rear - 2, -0.1 * h]), f.point(tip), 4.0, 3.0, thick, flat=1.0)
        )
    return solids


def ribs(vertebrae: dict[str, Vertebra], patient: Patient, rng: _Rng) -> Groups:
    """Twelve pairs of ribs as chains of flat rods around an elliptic chest."""
    groups: Groups = []
    bone = Material(0.36, 0.03 + 0.04 * patient.density, 0.75)
    for n in range(1, 13):
        v = vertebrae[f"T{n}"]
        width = float(np.interp(n, [1, 3, 7, 10, 12], [62, 98, 132, 128, 112])) * patient.girth**0.5
        depth = float(np.interp(n, [1, 3, 7, 10, 12], [52, 78, 98, 92, 80])) * patient.girth**0.5
        end = float(np.interp(n, [1, 7, 10, 11, 12], [1.25, 1.18, 0.85, 0.45, 0.25])) * np.pi / 1.35
        fall = float(np.interp(n, [1, 6, 10, 12], [28, 78, 95, 60]))
        for side in (-1.0, 1.0):
            start = np.array([side * v.width / 2 * 0.9, -v.depth / 2 * 0.8, 0.32 * v.middle])
            phases = np.linspace(0, 1, 15)
            points = []
            for t in phases:
                angle = -0.46 * np.pi + t * end
                ring = np.array(
                    [side * width * np.cos(angle), depth * (np.sin(angle) + 0.62), -fall * t**1.15]
                )
                blend = min(1.0, t / 0.14)
                points.append(v.frame.origin + (1 - blend) * (start @ v.frame.axes) + blend * ring)
            r = float(rng.uniform(5.0, 6.2)) * patient.scale
            for p, q in pairwise(points):
                rod = cone(p, q, r, r, bone, flat=0.55, round_ends=False,
                           flat_axis=np.array([p[0], p[1] + 20.0, 0.0]))  # fmt: skip
                groups.append([rod])
    return groups


def pelvis(sacrum: Frame, patient: Patient, rng: _Rng) -> Groups:
    """Sacrum with its foramina, iliac wings with crests, hip joints and pubic rami."""
    bone = patient.bone(shell_mm=1.0)
    hollow = Material(-0.10, -0.10, 0.3)
    s = patient.scale
    sacral: list[Vector] = []
    holes: Groups = []
    at = sacrum
    for n, (w, d, h) in enumerate(
        [(48, 30, 29), (42, 23, 26), (35, 17, 23), (28, 13, 20), (20, 9, 18)]
    ):
        turn = rotation(x_deg=-12.0 * n)
        piece = Frame(at.origin - at.axes[2] * h / 2, turn @ sacrum.axes)
        sacral.append(superquadric(piece, [w / 2 * s, d / 2 * s, h / 2 + 1.5], bone, n=2.6, m=3.2))
        if n < 4:
            for side in (-1.0, 1.0):
                wing = piece.at(
                    [side * (w / 2 + 12 - 3 * n) * s, -5.0, -1.0], rotation(y_deg=side * 14)
                )
                sacral.append(
                    superquadric(wing, [(25 - 5 * n) * s, (15 - 2.5 * n) * s, h / 2 + 3], bone,
                                 n=2.3, m=3.0)
                )  # fmt: skip
                hole = piece.at([side * w * 0.47 * s, d / 2 - 6, -h / 2])
                holes.append([superquadric(hole, [4.0, 7.0, 3.0], hollow)])
        at = Frame(at.origin - at.axes[2] * h, turn @ sacrum.axes)
    groups: Groups = [sacral, *holes]
    flat = Material(0.36, 0.03 + 0.05 * patient.density, 1.3)
    for side in (-1.0, 1.0):
        o = sacrum.origin

        def place(x: float, y: float, z: float, o: Vector = o, side: float = side) -> Vector:
            point: Vector = o + np.array([side * x * s, y, z * s])
            return point

        joint, crest = place(40, -22, -38), place(118, 26, 16)
        blade = Frame(place(82, 0, -22), rotation(x_deg=6, y_deg=side * 24, z_deg=side * 32))
        socket = place(88, 34, -112)
        ilium = [
            superquadric(blade, [5.0, 56 * s, 54 * s], flat, n=2.4, m=2.5),
            cone(joint, place(62, -34, 26), 9, 8, flat),
            cone(place(62, -34, 26), place(98, -10, 34), 7, 6.5, flat),
            cone(place(98, -10, 34), crest, 6.5, 7, flat),
            cone(crest, place(104, 50, -46), 7, 8, flat),
            cone(place(74, 10, -60), socket, 16, 26, flat),
        ]
        pubis = [
            cone(socket + [0, 10, -6], place(14, 66, -142), 12, 9, flat),
            cone(socket + [-side * 4, -8, -16], place(54, -2, -190), 15, 13, flat),
            cone(place(54, -2, -190), place(14, 60, -160), 9, 8, flat),
        ]
        head = [superquadric(Frame(socket + [side * 10, 2, -8], np.eye(3)), [24, 24, 24], bone)]
        head.append(cone(socket + [side * 12, 2, -10], socket + [side * 46, 0, -38], 16, 17, bone))
        groups += [ilium, pubis, head]
    return groups


def head_and_neck(vertebrae: dict[str, Vertebra], patient: Patient, rng: _Rng) -> Groups:
    """Odontoid and atlas, skull base, mandible with teeth, airway and hyoid."""
    c2 = vertebrae["C2"]
    bone = patient.bone(shell_mm=1.2)
    f = c2.frame
    s = patient.scale
    top = f.point([0, 0, c2.middle / 2])
    axis = [
        cone(top, f.point([0, 0, c2.middle / 2 + 15]), 5.2, 4.0, bone),
        superquadric(f.at([0, 7.5, c2.middle / 2 + 11]), [9, 3.5, 5], bone),
    ]
    groups: Groups = [axis]
    for side in (-1.0, 1.0):
        mass = f.at([side * 16, -2, c2.middle / 2 + 9])
        axis.append(superquadric(mass, [9, 9, 7], bone, n=2.4, m=2.4))
        arch = [
            f.point([side * 18, -8, c2.middle / 2 + 9]),
            f.point([side * 4, -30, c2.middle / 2 + 8]),
        ]
        axis.append(cone(arch[0], arch[1], 4.0, 3.6, bone))
    skull = Frame(top + np.array([0, 14.0, 84.0]) * s, rotation(x_deg=float(rng.normal(4, 6))))
    groups.append([superquadric(skull, [76, 95, 72], Material(0.40, -0.01, 6.0), n=2.2, m=2.1)])
    groups.append([superquadric(skull.at([0, 10, -52]), [44, 50, 16], Material(0.22, 0.10, 3.0))])
    chin = top + np.array([0, 78.0, -34.0]) * s
    jaw = Material(0.42, 0.12, 2.2)
    enamel = Material(0.8, 0.4, 0.9)
    for side in (-1.0, 1.0):
        angle = top + np.array([side * 46.0, 26.0, -18.0]) * s
        ramus = top + np.array([side * 52.0, 14.0, 34.0]) * s
        groups.append(
            [
                cone(chin + [side * 6, 0, 0], angle, 12, 11, jaw, flat=0.5,
                     flat_axis=np.array([side, 0.3, 0])),
                cone(angle, ramus, 12, 9, jaw, flat=0.4, flat_axis=np.array([side, 0, 0])),
            ]
        )  # fmt: skip
        for n in range(7):
            t = n / 7
            root = (1 - t) * (chin + [side * 7, 2, 12]) + t * (angle + [-side * 2, 4, 14])
            for rise in (0.0, 15.0):
                tooth = cone(root + [0, 0, rise], root + [0, -1, rise + 9], 3.4, 2.6, enamel)
                groups.append([tooth])
    air = Material(-0.21, -0.21, 0.5)
    airway: list[Vector] = []
    previous = top + np.array([0, 20.0, 10.0])
    for level in ("C3", "C4", "C5", "C6", "C7", "T1", "T2", "T3"):
        v = vertebrae[level]
        point = v.frame.point([0, v.depth / 2 + (12 if level < "C6" else 20), 0])
        airway.append(cone(previous, point, 7.0, 7.5, air, flat=0.8))
        previous = point
    hyoid = vertebrae["C3"].frame.point([0, 40, -6])
    horns = [cone(hyoid + [x, -10, 2], hyoid, 2.4, 2.6, bone) for x in (-12, 12)]
    return [*groups, airway, horns]


def chest(vertebrae: dict[str, Vertebra], patient: Patient, rng: _Rng) -> Groups:
    """Lungs with vessels, heart and liver dome."""
    t7, t10 = vertebrae["T7"].frame.origin, vertebrae["T10"].frame.origin
    g = patient.girth**0.5
    air = Material(-0.155, -0.155, 0.5)
    vessel = Material(0.10, 0.10, 0.5)
    groups: Groups = []
    base_z = float(t10[2]) + rng.normal(0, 12)
    top_z = float(vertebrae["T2"].frame.origin[2])
    for side in (-1.0, 1.0):
        middle = np.array([side * 74 * g, float(t7[1]) + 46, (base_z + top_z) / 2])
        half = [58 * g, 84 * g, (top_z - base_z) / 2 + 42]
        foot = base_z - 34.0 - 9 * (side > 0) - middle[2]
        groups.append(
            [lung(Frame(middle, np.eye(3)), half, air, dome=42 + rng.normal(0, 5), foot=foot)]
        )
        hilum = np.array([side * 28.0, middle[1] - 6, middle[2] + 6])
        for _ in range(26):
            away = rng.normal(0, 1, 3) * [1.0, 1.0, 1.3] + [side * 1.0, 0, 0]
            away /= np.linalg.norm(away)
            start = hilum + rng.normal(0, 9, 3)
            r = float(rng.uniform(1.6, 3.6))
            for _ in range(4):
                stop = start + away * float(rng.uniform(12, 24))
                if abs(stop[0]) > 74 * g + 50 or not base_z - 5 < stop[2] < top_z:
                    break
                groups.append([cone(start, stop, r, r * 0.7, vessel, round_ends=False)])
                start, r = stop, r * 0.7
                away = away + rng.normal(0, 0.35, 3)
                away /= np.linalg.norm(away)
    heart = Frame(
        np.array([18.0, float(t7[1]) + 78, float(vertebrae["T8"].frame.origin[2]) - 8]),
        rotation(y_deg=25),
    )
    heart_stuff = Material(0.12, 0.12, 0.5)
    groups.append([superquadric(heart, [56 * g, 46, 62], heart_stuff, n=2.2, m=2.2)])
    return groups


def belly_gas(center: Vector, patient: Patient, rng: _Rng) -> list[tuple[Vector, float]]:
    """Bubbles (centre, radius) of bowel gas: clusters along loops of gut."""
    bubbles = []
    for _ in range(int(rng.integers(2, 7))):
        at = center + np.array(
            [rng.uniform(-95, 95) * patient.girth, rng.uniform(35, 105), rng.uniform(-130, 90)]
        )
        way = rng.normal(0, 1, 3) * [1, 0.4, 1]
        radius = float(rng.uniform(5, 13))
        for _ in range(int(rng.integers(5, 26))):
            bubbles.append((at.copy(), radius * float(rng.uniform(0.6, 1.25))))
            way = 0.7 * way / np.linalg.norm(way) + rng.normal(0, 0.5, 3) * [1, 0.3, 1]
            at = at + way / np.linalg.norm(way) * radius * 0.7
    return bubbles
