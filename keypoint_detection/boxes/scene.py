"""Scenes with an open cardboard box in three dimensions, and what a pinhole camera sees of them.

World coordinates are metres with z up; the ground is z = 0 and the box stands on it, centred on the origin and aligned
with the axes. Everything is made of flat faces and balls, so that occlusion is computed exactly, without a raster.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from keypoint_detection.types import NOT_LABELLED, OCCLUDED, VISIBLE

Array = npt.NDArray[np.float64]
Part = Literal["wall", "floor", "flap", "carton", "sheet"]

KEYPOINT_NAMES = [*(f"box_corner{i}" for i in range(4)), *(f"flap_corner{i}" for i in range(8))]
NEGATIVE_SHARE = 0.04  # images without a box: a detector should see some where it must find nothing
BOX_WIDTH_M, BOX_DEPTH_M, BOX_HEIGHT_M = (0.28, 0.6), (0.24, 0.45), (0.15, 0.4)
CLUTTER_SPREAD_M = 0.95  # clutter lies within this distance of the box's centre, about what the camera sees
EDGE_ON = 0.07  # the sine of 4 degrees
PARALLEL = 1e-12  # a face whose plane passes through the camera has no area in the image
NEARER = 1 + 1e-7  # an occluder must be nearer than this, or a corner would hide behind its own faces


@dataclass(frozen=True)
class Face:
    """A flat piece: origin + s * along + t * across, for s and t in [0, 1].

    Args:
        part: what it belongs to.
        origin: (3,) the corner s = t = 0, in metres.
        along: (3,) edge vector of s.
        across: (3,) edge vector of t; along x across points out of the solid.
        colour: (3,) linear reflectance.
        taper: how much is cut off each side at t = 1, as a share of `along`.
    """

    part: Part
    origin: Array
    along: Array
    across: Array
    colour: Array
    taper: float = 0.0

    @property
    def is_box(self) -> bool:
        """Whether it belongs to the open box rather than to the clutter."""
        return self.part in ("wall", "floor", "flap")

    @cached_property
    def normal(self) -> Array:
        """(3,) the unit normal pointing out of the solid."""
        normal = np.cross(self.along, self.across)
        return np.asarray(normal / np.linalg.norm(normal))

    @property
    def corners(self) -> Array:
        """(4, 3) its corners in metres, in order around the face."""
        cut = self.taper * self.along
        far = self.origin + self.across
        return np.stack([self.origin, self.origin + self.along, far + self.along - cut, far + cut])


class Ball(NamedTuple):
    """A ball: centre (3,) and radius in metres, colour (3,) linear reflectance."""

    centre: Array
    radius: float
    colour: Array


class Camera(NamedTuple):
    """A pinhole camera.

    Attributes:
        position: (3,) metres.
        rotation: (3, 3) rows right, down and forward in the world.
        focal_px: focal length in pixels.
        principal: (2,) the pixel that looks straight forward, continuous coordinates.
    """

    position: Array
    rotation: Array
    focal_px: float
    principal: Array

    def project(self, points: Array) -> tuple[Array, Array]:
        """Project (N, 3) world points to (N, 2) continuous pixels and (N,) depths in metres."""
        local = (points - self.position) @ self.rotation.T
        return local[:, :2] / local[:, 2:] * self.focal_px + self.principal, local[:, 2]

    def rays(self, x: npt.ArrayLike, y: npt.ArrayLike) -> Array:
        """Return (3, ...) camera-frame rays of depth 1 through the pixels x, y."""
        right = (np.asarray(x) - self.principal[0]) / self.focal_px
        down = (np.asarray(y) - self.principal[1]) / self.focal_px
        return np.stack([right, down, np.ones_like(right)])

    def plane_map(self, origin: Array, along: Array, across: Array) -> Array | None:
        """Map pixels (x, y, 1) to (s/z, t/z, 1/z) of a plane, z its depth in metres.

        All three are linear in the pixel, which makes texture and depth exact in perspective.

        Returns:
            (3, 3), or None if the plane is seen edge-on.
        """
        local = self.rotation @ np.stack([along, across, origin - self.position], axis=1)
        if abs(np.linalg.det(local)) < PARALLEL:
            return None
        x, y = self.principal / self.focal_px
        to_ray = np.array([[1 / self.focal_px, 0, -x], [0, 1 / self.focal_px, -y], [0, 0, 1]])
        return np.asarray(np.linalg.inv(local) @ to_ray)


class Scene(NamedTuple):
    """What is in front of the camera.

    Attributes:
        camera: the camera.
        size: (height, width) of the image in pixels.
        faces: the flat pieces of the box and of the clutter.
        balls: the round clutter.
        keypoints: (12, 3) metres in the order of KEYPOINT_NAMES, or None if there is no box.
    """

    camera: Camera
    size: tuple[int, int]
    faces: list[Face]
    balls: list[Ball]
    keypoints: Array | None


class OpenBox(NamedTuple):
    """The nine faces of an open box, its (12, 3) keypoints, and half the (x, y) size of its footprint in metres."""

    faces: list[Face]
    keypoints: Array
    half_cover: Array


def sample_scene(rng: np.random.Generator, height: int, width: int) -> Scene:
    """Draw a random scene: nearly always a box, clutter around it, and a camera that looks at it."""
    box = sample_open_box(rng)
    outline = np.concatenate([box.keypoints, *(face.corners for face in box.faces)])
    camera = sample_camera(rng, outline, height, width)
    while any(is_edge_on(camera, face) for face in box.faces if face.part == "flap"):
        camera = sample_camera(rng, outline, height, width)
    is_negative = rng.random() < NEGATIVE_SHARE
    faces, balls = sample_clutter(rng, np.zeros(2) if is_negative else box.half_cover)
    faces = [face for face in faces if is_near_image(camera, face.corners, height, width)]
    balls = [ball for ball in balls if is_near_image(camera, ball.centre[None], height, width)]
    if is_negative:
        return Scene(camera, (height, width), faces, balls, None)
    return Scene(camera, (height, width), box.faces + faces, balls, box.keypoints)


def label_keypoints(scene: Scene) -> tuple[Array, npt.NDArray[np.int64]]:
    """Project the keypoints and tell which of them are visible.

    Returns:
        (12, 2) continuous pixels and (12,) COCO flags: 2 visible, 1 hidden behind something, 0 outside the image.
    """
    assert scene.keypoints is not None
    points, depths = scene.camera.project(scene.keypoints)
    height, width = scene.size
    is_inside = ((points >= 0) & (points < (width, height))).all(axis=1)
    is_hidden = find_hidden(scene, points, depths)
    return points, np.where(is_inside, np.where(is_hidden, OCCLUDED, VISIBLE), NOT_LABELLED)


def find_hidden(scene: Scene, points: Array, depths: Array) -> npt.NDArray[np.bool_]:
    """Tell whether anything is in front of the (N,) depths in metres on the rays of (N, 2) pixels."""
    hidden = np.zeros(len(points), np.bool_)
    homogeneous = np.concatenate([points.T, np.ones((1, len(points)))])
    for face in scene.faces:
        to_plane = scene.camera.plane_map(face.origin, face.along, face.across)
        if to_plane is None:
            continue
        s, t, inverse_depth = to_plane @ homogeneous
        cut = face.taper * t
        is_hit = (t >= 0) & (t <= inverse_depth) & (s >= cut) & (s <= inverse_depth - cut)
        hidden |= is_hit & (inverse_depth * depths > NEARER)
    for ball in scene.balls:
        hidden |= intersect_ball(scene.camera, ball, *points.T) * NEARER < depths  # NaN, a miss, hides nothing
    return hidden


def intersect_ball(camera: Camera, ball: Ball, x: npt.ArrayLike, y: npt.ArrayLike) -> Array:
    """Return the depth in metres at which the rays through pixels first hit a ball; NaN where they miss."""
    rays = camera.rays(*np.broadcast_arrays(x, y))  # (3, ...)
    centre = camera.rotation @ (ball.centre - camera.position)
    along = np.tensordot(centre, rays, 1)
    squared = (rays**2).sum(axis=0)
    discriminant = along**2 - squared * (centre @ centre - ball.radius**2)
    root = np.sqrt(np.where(discriminant > 0, discriminant, np.nan))
    return np.asarray((along - root) / squared)


def sample_open_box(rng: np.random.Generator) -> OpenBox:
    """Draw an open box: four walls, a floor and four flaps, in the order of the keypoints."""
    width, depth = rng.uniform(*BOX_WIDTH_M), rng.uniform(*BOX_DEPTH_M)
    height = rng.uniform(*BOX_HEIGHT_M)
    kraft = np.array([0.48, 0.27, 0.125])  # linear reflectance of brown cardboard
    kraft = kraft * rng.uniform(0.75, 1.25) * rng.uniform(0.93, 1.07, 3)
    colour = kraft if rng.random() > 0.12 else np.array([0.72, 0.69, 0.63]) * rng.uniform(0.85, 1.05)  # some are white
    half = np.array([width, depth]) / 2
    bottom = np.array([[1, 1, 0], [-1, 1, 0], [-1, -1, 0], [1, -1, 0]]) * (*half, 0)
    up = np.array([0, 0, height])
    length = half.min() * rng.uniform(0.72, 1.04)  # half the shorter side: two flaps meet in the middle when closed
    angles = sample_flap_angles(rng, np.arccos(max(-1.0, (0.01 - height) / length)))  # 1 cm above the ground
    taper = rng.uniform(0.0, 0.04)
    walls, flaps = [], []
    for i, angle in enumerate(angles):
        along = bottom[(i + 1) % 4] - bottom[i]
        walls.append(Face("wall", bottom[i], along, up, colour))
        across = length * (np.cos(angle) * np.array([0, 0, 1]) + np.sin(angle) * walls[i].normal)
        flaps.append(Face("flap", bottom[i] + up, along, across, colour, taper))
    floor = Face("floor", bottom[2] + (0, 0, 0.002), bottom[1] - bottom[2], bottom[3] - bottom[2], colour)  # 2 mm thick
    flap_corners = np.concatenate([flap.corners[[3, 2]] for flap in flaps])
    keypoints = np.concatenate([bottom + up, flap_corners])
    return OpenBox([*walls, floor, *flaps], keypoints, np.abs(keypoints[:, :2]).max(axis=0))


def sample_flap_angles(rng: np.random.Generator, steepest: float) -> Array:
    """Draw four opening angles in radians: 0 points up, pi/2 lies flat outwards, negative leans inwards.

    Only two opposite flaps may lean inwards: two neighbours leaning inwards would pass through each other.
    """
    hanging = rng.uniform(50, 165, 4)
    raised = rng.uniform(-14, 30, 4)
    outward_pair = slice(rng.integers(2), None, 2)
    raised[outward_pair] = np.abs(raised[outward_pair])
    return np.minimum(np.radians(np.where(rng.random(4) < 0.3, raised, hanging)), steepest)


def sample_camera(rng: np.random.Generator, points: Array, height: int, width: int) -> Camera:
    """Draw a camera above the ground that has most of the (N, 3) points inside its image."""
    azimuth, elevation = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(30, 66))
    roll = np.radians(rng.uniform(-7, 7))
    back = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    right = np.cross(-back, (0, 0, 1)) / np.cos(elevation)
    down = np.cross(-back, right)
    turned = np.cos(roll) * right + np.sin(roll) * down
    rotation = np.stack([turned, np.cross(-back, turned), -back])
    target = points.mean(axis=0)
    focal_px = height * rng.uniform(1.4, 2.6)
    size = np.array([width, height])
    fill = rng.uniform(0.66, 0.96)
    distance = 2.0
    for _ in range(5):  # the size in the image is almost inversely proportional to the distance: this converges at once
        camera = Camera(target + distance * back, rotation, focal_px, size / 2)
        projected = camera.project(points)[0]
        extent = projected.max(axis=0) - projected.min(axis=0)
        distance *= float((extent / size).max()) / fill
    # Moving the principal point crops a larger image: the perspective stays that of a real camera.
    overhang = 0.05 * size
    slack = np.maximum(size - extent, 0) + 2 * overhang
    corner = rng.uniform(0, 1, 2) * slack - overhang
    return camera._replace(principal=size / 2 + corner - projected.min(axis=0))


def is_edge_on(camera: Camera, face: Face) -> bool:
    """Tell whether a face is so nearly edge-on that real cardboard would show its thickness, which a face lacks."""
    sight = face.corners.mean(axis=0) - camera.position
    return bool(abs(sight @ face.normal) < EDGE_ON * np.linalg.norm(sight))


def is_near_image(camera: Camera, points: Array, height: int, width: int) -> bool:
    """Tell whether one of the (N, 3) points is in the image, or so near to it that its shadow may be."""
    projected, depths = camera.project(points)
    margin = 0.25 * np.array([width, height])
    is_near = (projected > -margin) & (projected - margin < (width, height))
    return bool((is_near.all(axis=1) & (depths > 0)).any())


def sample_clutter(rng: np.random.Generator, half_cover: Array) -> tuple[list[Face], list[Ball]]:
    """Draw things lying on the ground, outside the rectangle that the box and its flaps cover."""
    faces: list[Face] = []
    balls: list[Ball] = []
    taken: list[tuple[Array, float]] = []
    for _ in range(rng.integers(5, 16)):
        place = rng.uniform(-CLUTTER_SPREAD_M, CLUTTER_SPREAD_M, 2)
        radius = rng.uniform(0.03, 0.13)
        is_free = (np.abs(place) > half_cover + radius).any()
        if not is_free or any(np.linalg.norm(place - other) < radius + size for other, size in taken):
            continue
        taken.append((place, radius))
        colour = sample_colour(rng)
        kind = rng.random()
        if kind < 0.25:
            radius = min(radius, 0.07)
            balls.append(Ball(np.array([*place, radius]), radius, colour))
        elif kind < 0.6:
            faces += make_carton(rng, place, radius, colour)
        else:
            paper = np.array([0.8, 0.79, 0.75]) * rng.uniform(0.8, 1.0)
            faces.append(make_sheet(rng, place, radius * 1.3, paper if rng.random() < 0.6 else colour, len(taken)))
    return faces, balls


def make_carton(rng: np.random.Generator, place: Array, radius: float, colour: Array) -> list[Face]:
    """Make a small closed box, turned at random, whose corners are `radius` metres from its centre."""
    turn, shape = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, np.pi / 4)
    angles = turn + np.array([shape, np.pi - shape, np.pi + shape, -shape])
    bottom = np.stack([place[0] + radius * np.cos(angles), place[1] + radius * np.sin(angles), np.zeros(4)], axis=1)
    up = np.array([0, 0, rng.uniform(0.25, 1.5) * radius])
    walls = [Face("carton", bottom[i], bottom[(i + 1) % 4] - bottom[i], up, colour) for i in range(4)]
    lid = Face("carton", bottom[0] + up, bottom[1] - bottom[0], bottom[3] - bottom[0], colour)
    return [*walls, lid]


def make_sheet(rng: np.random.Generator, place: Array, radius: float, colour: Array, layer: int) -> Face:
    """Make a sheet of paper on the ground; each lies a little higher than the last, so that none flickers."""
    turn, shape = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, np.pi / 4)
    angles = turn + np.array([shape, np.pi - shape, -shape])
    x, y = place[0] + radius * np.cos(angles), place[1] + radius * np.sin(angles)
    corners = np.stack([x, y, np.full(3, 0.001 + 0.0001 * layer)], axis=1)
    return Face("sheet", corners[0], corners[1] - corners[0], corners[2] - corners[0], colour)


def sample_colour(rng: np.random.Generator) -> Array:
    """Draw a linear reflectance (3,): grey, muted or bright."""
    hue = np.cos(rng.uniform(0, 2 * np.pi) + np.array([0, 2, 4]) * np.pi / 3) * 0.5 + 0.5
    saturation = rng.choice([0.15, 0.55, 0.85])
    return np.asarray((1 - saturation + saturation * hue**2) * rng.uniform(0.08, 0.6))
