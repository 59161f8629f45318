"""One patient's spine as solids, from a specification that findings may change first.

World frame in mm: x to the patient's left, y to the front, z up. Sizes and curves are rounded
values of general anatomy: good for a likeness, no source to measure people by.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from spinexr.phantom.solids import (
    WORLD,
    Frame,
    Material,
    Vector,
    body,
    cone,
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
_SACRAL_SIZE = (48.0, 31.0, 29.0)
SACRAL = "S1"  # a body for findings at L5/S1; its solids belong to the pelvis
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
    slip: Vector = field(default_factory=lambda: np.zeros(3))  # on the one below, in its frame
    pars_gap: float = 0.0  # between its upper and lower articular processes
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
    age: int
    sex: str  # F or M

    @classmethod
    def draw(cls, rng: _Rng, *, wide: float = 1.0) -> Patient:
        """A patient; `wide` stretches the ranges."""

        def around(middle: float, spread: float) -> float:
            return middle + wide * spread * float(rng.uniform(-1, 1))

        scoliotic = rng.random() < 0.15
        age = int(np.clip(around(50, 38), 6, 98))
        sex = "F" if rng.random() < 0.62 else "M"  # as in VinDr-SpineXR
        grown = float(np.interp(age, [6, 16], [0.72, 1.0]))
        return cls(
            scale=around(0.98 if sex == "F" else 1.05, 0.08) * grown,
            density=float(np.clip(around(0.85 - 0.006 * age, 0.35), 0, 1)),
            sacral_slope=around(37, 7),
            lordosis=around(52, 12),
            kyphosis=around(32, 12),
            cervical_lordosis=around(24, 14),
            cobb=wide * float(rng.uniform(12, 40)) if scoliotic else float(rng.uniform(0, 7)),
            cobb_phase=float(rng.uniform(0, 2 * np.pi)),
            axial=around(0, 6),
            girth=around(1.0, 0.2) * (0.25 + 0.75 * grown),
            age=age,
            sex=sex,
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
        disc *= float(rng.normal(1, 0.05))
        wedge = 0.10 if level == "L5" else (-0.03 if level[0] == "T" else 0.0)
        vertebrae[level] = Vertebra(
            level, width, depth,
            front=height * (1 + wedge / 2 + float(rng.normal(0, 0.012))),
            middle=height * (0.97 + float(rng.normal(0, 0.01))),
            back=height * (1 - wedge / 2 + float(rng.normal(0, 0.012))),
            disc=disc,
        )  # fmt: skip
    width, depth, height = (size * patient.scale for size in _SACRAL_SIZE)
    vertebrae[SACRAL] = Vertebra(
        SACRAL, width, depth, front=height, middle=height, back=height, disc=0.0
    )
    return vertebrae


def below(level: str) -> str:
    """The next level down; the sacrum's first below the last."""
    n = LEVELS.index(level) + 1
    return LEVELS[n] if n < len(LEVELS) else SACRAL


def place(patient: Patient, vertebrae: dict[str, Vertebra], center: str) -> Frame:
    """Stack the vertebrae from the sacrum up, `center` at the origin; the sacrum's frame."""
    tilt = patient.sacral_slope
    at = np.zeros(3)
    sacrum = Frame(at, rotation(x_deg=-tilt))
    under, under_half = sacrum, 0.0
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
        up = under.axes[2] + axes[2]
        up /= np.linalg.norm(up)
        at = (
            under.origin + under.axes[2] * under_half + up * v.disc + axes[2] * half
            + v.slip @ under.axes
        )  # fmt: skip
        v.frame = under = Frame(at, axes)
        under_half = half
    shift = vertebrae[center].frame.origin.copy()
    first = vertebrae[SACRAL]
    first.frame = Frame(sacrum.origin - sacrum.axes[2] * first.middle / 2, sacrum.axes)
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
        isthmus = joint + (lower - joint) * (0.3 + 0.1 * v.pars_gap)
        if v.pars_gap:
            solids.append(
                cone(
                    f.point(joint), f.point(joint + (lower - joint) * 0.2), 5 * k + 1, 3 * k, thick
                )
            )
        else:
            isthmus = joint
        solids.append(cone(f.point(isthmus), f.point(lower), 5.0 * k + 1.0, 4.2 * k + 1, thick))
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
