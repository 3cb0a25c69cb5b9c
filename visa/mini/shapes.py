"""Outlines as arrays of points, and the pose that lays them on the bench.

Lengths are in units of the picture's side, x to the right, y downwards; an outline is centred on its own origin.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pose:
    """Where an outline lies: centre, angle in degrees (clockwise on the picture), scale."""

    x: float = 0.5
    y: float = 0.5
    angle: float = 0.0
    scale: float = 1.0

    def matrix(self) -> npt.NDArray[np.float64]:
        """Return the 2 x 3 affine matrix from the outline's own coordinates to the picture's."""
        a = np.deg2rad(self.angle)
        cos, sin = self.scale * np.cos(a), self.scale * np.sin(a)
        return np.array([[cos, -sin, self.x], [sin, cos, self.y]])

    def __call__(self, points: Points) -> Points:
        """Map `points` (n, 2) to the picture."""
        m = self.matrix()
        return np.asarray(points) @ m[:, :2].T + m[:, 2]

    def at(self, x: float, y: float, angle: float = 0.0, scale: float = 1.0) -> "Pose":
        """Return the pose of a part that lies at (x, y), turned by `angle`, in this pose's own coordinates."""
        cx, cy = self(np.array([[x, y]]))[0]
        return Pose(float(cx), float(cy), self.angle + angle, self.scale * scale)


def ellipse(rx: float, ry: float | None = None, n: int = 72) -> Points:
    """Outline an ellipse, or a circle if `ry` is left out."""
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.stack([rx * np.cos(t), (rx if ry is None else ry) * np.sin(t)], axis=1)


def rectangle(width: float, height: float, radius: float = 0.0) -> Points:
    """Outline a rectangle with rounded corners."""
    if radius <= 0:
        return np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (width / 2, height / 2)
    t = np.linspace(0, np.pi / 2, 8)
    arc = radius * np.stack([np.cos(t), np.sin(t)], axis=1)
    x, y = width / 2 - radius, height / 2 - radius
    corners, quarter = ((x, y), (-x, y), (-x, -y), (x, -y)), np.array([[0, 1], [-1, 0]])
    return np.concatenate([arc @ np.linalg.matrix_power(quarter, k) + at for k, at in enumerate(corners)])


def blob(rng: np.random.Generator, radius: float, rough: float = 0.25, waves: int = 6, n: int = 72) -> Points:
    """Make a closed irregular outline of about `radius`; `rough` is the relative size of its bumps."""
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    k = np.arange(2, 2 + waves)
    amplitude, phase = 1.6 * rng.normal(size=waves) / k, rng.uniform(0, 2 * np.pi, waves)
    bumps = (amplitude * np.cos(np.outer(t, k) + phase)).sum(axis=1)
    r = radius * np.clip(1 + rough * bumps, 0.3, 1.8)
    return np.stack([r * np.cos(t), r * np.sin(t)], axis=1)


def ribbon(path: Points, width: npt.ArrayLike) -> Points:
    """Outline a band along `path` (n, 2); `width` is one number, or one for each point."""
    step = np.gradient(path, axis=0)
    step /= np.linalg.norm(step, axis=1, keepdims=True) + 1e-12
    side = np.stack([-step[:, 1], step[:, 0]], axis=1) * (np.broadcast_to(width, len(path))[:, None] / 2)
    return np.concatenate([path + side, (path - side)[::-1]])


def wander(rng: np.random.Generator, length: float, bend: float = 0.4, n: int = 24) -> Points:
    """Draw a smooth random stroke of about `length`, centred, its start towards -x; `bend` in radians."""
    t = np.linspace(-1, 1, n)
    heading = bend * (rng.normal() * t + rng.normal() * np.sin(2.5 * t + rng.uniform(0, 6)))
    path = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=1), axis=0) * length / n
    return np.asarray(path - path.mean(axis=0))


def jagged(rng: np.random.Generator, length: float, depth: float, n: int = 14) -> Points:
    """Draw a torn line of `length` along x whose teeth reach about `depth` to either side."""
    x = np.linspace(-length / 2, length / 2, n)
    return np.stack([x, depth * np.cumsum(rng.normal(size=n)) / np.sqrt(n) + depth * 0.5 * rng.normal(size=n)], axis=1)
