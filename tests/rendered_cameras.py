"""Clips of a scene of textured cards at several depths, seen by a camera whose movement is known: the truth for what reads it.

Lengths are in widths of the picture: a camera with a focal length of 1 sees 53 degrees from side to side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

HEIGHT, WIDTH = 144, 256
DISTANCE = 4.0  # of what stands in the middle


@dataclass(frozen=True)
class Camera:
    x: float = 0.0
    y: float = 0.0
    z: float = 0.0
    turn: float = 0.0
    """to the right, radians"""
    nod: float = 0.0
    """down, radians"""
    roll: float = 0.0
    focal: float = 1.0


def path(kind: str, seed: int, num_frames: int = 17, amount: float = 1.0) -> list[Camera]:
    """Of one of the 14 movements, an `optical` zoom or a `roll`: as fast as a person calls slow to lively."""
    rng = np.random.default_rng(seed)
    focal = rng.uniform(0.75, 1.2)
    amount = amount * rng.uniform(0.8, 1.5)
    plain = Camera(focal=focal)
    word, _, way = kind.partition("-")
    sign = {"right": 1, "down": 1, "in": 1, "left": -1, "up": -1, "out": -1}.get(way, 0)
    steps = np.linspace(0, 1, num_frames) * amount
    if word == "zoom":
        return [replace(plain, z=sign * 1.0 * step) for step in steps]
    if word == "optical":
        return [replace(plain, focal=focal * 1.3 ** (sign * step)) for step in steps]
    if word == "pan":
        return [replace(plain, **{"x" if way in ("left", "right") else "y": sign * 0.7 * step}) for step in steps]
    if word == "tilt":
        return [replace(plain, **{"turn" if way in ("left", "right") else "nod": sign * 0.2 * step}) for step in steps]
    if word == "around":  # and turned back to what it goes around
        angles = sign * 0.35 * steps
        return [replace(plain, x=DISTANCE * np.sin(a), z=DISTANCE * (1 - np.cos(a)), turn=-a) for a in angles]
    if word == "roll":
        return [replace(plain, roll=0.3 * step) for step in steps]
    if word == "handheld":
        shake = rng.normal(size=(2, num_frames + 2)) * 0.012 * amount
        shake = (shake[:, 2:] + shake[:, 1:-1] + shake[:, :-2]) / 3**0.5
        return [replace(plain, turn=float(a), nod=float(b)) for a, b in shake.T]
    assert word == "static"
    return [plain] * num_frames


def film(cameras: list[Camera], seed: int, *, flat: bool = False, subject: float = 0.0) -> np.ndarray:
    """uint8 [T, HEIGHT, WIDTH, 3]. `flat` leaves one wall of the scene; `subject` is how far the card in the middle walks meanwhile."""
    rng = np.random.default_rng([seed, 1])
    cards = [(9.0, 24.0, 0.0, 0.0)]
    if not flat:
        cards += [(6.5, 1.6, rng.uniform(-2.5, 2.5), rng.uniform(-0.8, 0.8)) for _ in range(3)]
        cards += [(DISTANCE, 1.3, 0.0, 0.2)]
        cards += [(2.6, 0.5, side * rng.uniform(0.6, 0.9), rng.uniform(-0.4, 0.4)) for side in (-1, 1)]
    textures = [_texture(rng, 768 if number == 0 else 128) for number in range(len(cards))]
    return np.stack([_picture(camera, cards, textures, subject * when / len(cameras)) for when, camera in enumerate(cameras)])


def _picture(camera: Camera, cards: list, textures: list, walked: float) -> np.ndarray:
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    f = camera.focal * WIDTH
    lens = np.array([[f, 0, WIDTH / 2], [0, f, HEIGHT / 2], [0, 0, 1]])
    turned = _rotation(camera)
    for (z, side, x, y), texture in zip(cards, textures, strict=True):
        x = x + walked * (z == DISTANCE)
        size = len(texture)
        to_world = np.array([[side / size, 0, x - side / 2], [0, side / size, y - side / 2], [0, 0, 1]])
        plane = np.array([[1, 0, -camera.x], [0, 1, -camera.y], [0, 0, z - camera.z]])
        seen = lens @ turned @ plane @ to_world
        cv2.warpPerspective(texture, seen, (WIDTH, HEIGHT), dst=picture, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_TRANSPARENT)
    return picture


def _rotation(camera: Camera) -> np.ndarray:
    (c, s), (d, t), (e, r) = ((np.cos(a), np.sin(a)) for a in (camera.turn, camera.nod, camera.roll))
    around_y = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
    around_x = np.array([[1, 0, 0], [0, d, -t], [0, t, d]])
    around_z = np.array([[e, -r, 0], [r, e, 0], [0, 0, 1]])
    return around_z @ around_x @ around_y


def _texture(rng: np.random.Generator, size: int) -> np.ndarray:
    """Blotches of several sizes, in a colour."""
    total = np.zeros((size, size), np.float32)
    for cells in (size // 32, size // 12, size // 6):
        total += cv2.resize(rng.normal(size=(cells, cells)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    tint = rng.uniform(0.6, 1.0, 3) * 38
    return np.clip(rng.uniform(90, 160, 3) + total[..., None] * tint, 0, 255).astype(np.uint8)
