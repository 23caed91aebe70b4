"""Scenes with open cardboard boxes in three dimensions, and what a pinhole camera sees of them.

World coordinates are metres with z up; the ground is z = 0 and the boxes stand on it, the first one centred on the
origin and aligned with the axes. Everything is made of flat faces, so that occlusion is computed exactly, without a
raster.
"""

import colorsys
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from keypoint_detection.types import NOT_LABELLED, OCCLUDED, VISIBLE

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating[Any]]  # single precision for what is computed in every pixel

KEYPOINT_NAMES = [*(f"box_corner{i}" for i in range(4)), *(f"flap_corner{i}" for i in range(8))]
NEGATIVE_SHARE = 0.04  # images without a box: a detector should see some where it must find nothing
BOX_WIDTH_M, BOX_DEPTH_M, BOX_HEIGHT_M = (0.28, 0.6), (0.24, 0.45), (0.15, 0.4)
KRAFT, BLEACHED = (0.48, 0.27, 0.125), (0.72, 0.69, 0.63)  # linear reflectance of brown and of white cardboard
GAP_M, N_TRIES = 0.03, 30  # between the circles that further boxes stand in; places tried for each
CLUTTER_SPREAD_M = 0.95  # clutter lies within this distance of the box's centre, about what the camera sees
FACES_PER_CARTON = 5
EDGE_ON = 0.07  # the sine of 4 degrees
PARALLEL = 1e-12  # a face whose plane passes through the camera has no area in the image
NEARER = 1 + 1e-7  # an occluder must be nearer than this, or a corner would hide behind its own faces


class Face(NamedTuple):
    """A flat piece: origin + s * along + t * across, for s and t in [0, 1].

    Attributes:
        part: what it belongs to, such as `wall`, `floor` and `flap` of the open box.
        origin: (3,) the corner s = t = 0, in metres.
        along: (3,) edge vector of s.
        across: (3,) edge vector of t; along x across points out of the solid.
        colour: (3,) linear reflectance.
        taper: how much is cut off each side at t = 1, as a share of `along`.
        box: the index of the open box that it belongs to; -1 for clutter and ground.
    """

    part: Literal["wall", "floor", "flap", "carton", "ground"]
    origin: Array
    along: Array
    across: Array
    colour: Array
    taper: float = 0.0
    box: int = -1

    @property
    def normal(self) -> Array:
        """(3,) the unit normal pointing out of the solid."""
        normal = np.cross(self.along, self.across)
        return np.asarray(normal / np.linalg.norm(normal))

    @property
    def corners(self) -> Array:
        """(4, 3) its corners in metres, in order around the face."""
        cut = self.taper * self.along
        far = self.origin + self.across
        return np.array([self.origin, self.origin + self.along, far + self.along - cut, far + cut])


class OpenBox(NamedTuple):
    """An open box.

    Attributes:
        faces: its walls, floor and flaps.
        keypoints: (12, 3) metres in the order of KEYPOINT_NAMES.
        centre: (3,) metres, on the ground.
        axes: (2, 3) unit vectors along its width and its depth.
    """

    faces: list[Face]
    keypoints: Array
    centre: Array
    axes: Array

    @property
    def size(self) -> Array:
        """(3,) its width, depth and height in metres, without flaps."""
        across, along = np.diff(self.keypoints[:3], axis=0)
        return np.array([np.linalg.norm(across), np.linalg.norm(along), self.keypoints[0, 2]])


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

    def locate(self, box: OpenBox) -> tuple[Array, Array]:
        """Return where a box's opening is, seen from the camera.

        Returns:
            (3, 3) the rotation from the axes of the box, along its width, its depth and upwards, to those of the
            camera, to the right, downwards and forward; and (3,) the centre of the opening in metres.
        """
        axes = np.stack([*box.axes, np.cross(*box.axes)])
        return self.rotation @ axes.T, self.rotation @ (box.keypoints[:4].mean(axis=0) - self.position)

    def intersect(self, face: Face, x: Floats, y: Floats) -> Floats:
        """Find where pixels show a face, if nothing is in front of it.

        Returns:
            (3, ...) s/z, t/z and 1/z, z the depth in metres; zeros where the rays miss the face. All three are linear
            in the pixel, so that position and depth are exact in perspective.
        """
        local = self.rotation @ np.stack([face.along, face.across, face.origin - self.position], axis=1)
        if abs(np.linalg.det(local)) < PARALLEL:
            return np.zeros((3, *np.broadcast_shapes(x.shape, y.shape)))
        right, down = (x - float(self.principal[0])) / self.focal_px, (y - float(self.principal[1])) / self.focal_px
        # Lists keep single precision single.
        s, t, inverse_depth = (a * right + (b * down + c) for a, b, c in np.linalg.inv(local).tolist())
        cut = face.taper * t
        is_hit = (t >= 0) & (t <= inverse_depth) & (s >= cut) & (s <= inverse_depth - cut)
        return np.asarray(np.array([s, t, inverse_depth]) * is_hit)


class Scene(NamedTuple):
    """What is in front of the camera.

    Attributes:
        camera: the camera.
        size: (height, width) of the image in pixels.
        faces: the flat pieces of the boxes and of the clutter.
        boxes: the open boxes.
    """

    camera: Camera
    size: tuple[int, int]
    faces: list[Face]
    boxes: list[OpenBox]


def sample_scene(rng: np.random.Generator, height: int, width: int, max_boxes: int = 1) -> Scene:
    """Draw a random scene: nearly always boxes, clutter around them, and a camera that looks at them."""
    boxes = [make_box(sample_open_box(rng))]
    if max_boxes > 1:
        boxes += sample_further_boxes(rng, int(rng.integers(max_boxes)), boxes[0])
    faces = [face._replace(box=index) for index, box in enumerate(boxes) for face in box.faces]
    flaps = [face for face in faces if face.part == "flap"]
    outline = np.concatenate([face.corners for face in faces])
    camera = sample_camera(rng, outline, height, width)
    while any(is_edge_on(camera, flap) for flap in flaps):
        camera = sample_camera(rng, outline, height, width)
    is_negative = rng.random() < NEGATIVE_SHARE
    clutter = sample_clutter(rng, np.zeros(2) if is_negative else np.abs(boxes[0].keypoints[:, :2]).max(axis=0))
    if not is_negative:
        clutter = keep_clear(clutter, boxes[1:])
    clutter = [face for face in clutter if (camera.project(face.corners)[1] > 0).all()]  # nothing beside the camera
    return Scene(camera, (height, width), clutter if is_negative else faces + clutter, [] if is_negative else boxes)


def label_keypoints(scene: Scene, box: OpenBox) -> tuple[Array, npt.NDArray[np.int64]]:
    """Project the keypoints of a box and tell which of them are visible.

    Returns:
        (12, 2) continuous pixels and (12,) COCO flags: 2 visible, 1 hidden behind something, 0 outside the image.
    """
    points, depths = scene.camera.project(box.keypoints)
    height, width = scene.size
    is_inside = ((points >= 0) & (points < (width, height))).all(axis=1)
    inverse_depths = [scene.camera.intersect(face, *points.T)[2] for face in scene.faces]
    is_hidden = (np.array(inverse_depths) * depths > NEARER).any(axis=0)
    return points, np.where(is_inside, np.where(is_hidden, OCCLUDED, VISIBLE), NOT_LABELLED)


def sample_open_box(rng: np.random.Generator) -> list[Face]:
    """Draw an open box: four walls, a floor and four flaps, in the order of the keypoints."""
    width, depth = rng.uniform(*BOX_WIDTH_M), rng.uniform(*BOX_DEPTH_M)
    height = rng.uniform(*BOX_HEIGHT_M)
    colour = np.array(KRAFT if rng.random() > 0.12 else BLEACHED) * rng.uniform(0.8, 1.2) * rng.uniform(0.93, 1.07, 3)
    bottom = np.array([[1, 1, 0], [-1, 1, 0], [-1, -1, 0], [1, -1, 0]]) * (width / 2, depth / 2, 0)
    up = np.array([0, 0, height])
    # Half the shorter side: two flaps meet in the middle when closed.
    length = min(width, depth) / 2 * rng.uniform(0.72, 1.04)
    angles = sample_flap_angles(rng, np.arccos(max(-1.0, (0.01 - height) / length)))  # 1 cm above the ground
    taper = rng.uniform(0.0, 0.04)
    walls = [Face("wall", bottom[i], bottom[(i + 1) % 4] - bottom[i], up, colour) for i in range(4)]
    floor = Face("floor", bottom[2] + (0, 0, 0.002), bottom[1] - bottom[2], bottom[3] - bottom[2], colour)  # 2 mm thick
    flaps = []
    for wall, angle in zip(walls, angles, strict=True):
        across = length * (np.cos(angle) * np.array([0, 0, 1]) + np.sin(angle) * wall.normal)
        flaps.append(Face("flap", wall.origin + up, wall.along, across, colour, taper))
    return [*walls, floor, *flaps]


def make_box(faces: list[Face]) -> OpenBox:
    """Describe a box that is centred on the origin and aligned with the axes."""
    corners = np.stack([face.corners for face in faces if face.part == "flap"])
    keypoints = np.concatenate([corners[:, 0], corners[:, [3, 2]].reshape(8, 3)])
    return OpenBox(faces, keypoints, np.zeros(3), np.eye(3)[:2])


def sample_further_boxes(rng: np.random.Generator, n_boxes: int, first: OpenBox) -> list[OpenBox]:
    """Draw boxes that stand beside the first one, each in a circle of its own; fewer if there is no room for all."""

    def radius_of(box: OpenBox) -> float:
        return float(np.linalg.norm((box.keypoints - box.centre)[:, :2], axis=1).max())

    placed = [first]
    for _ in range(n_boxes):
        box = make_box(sample_open_box(rng))
        reach = 2 * max(map(radius_of, [*placed, box])) + GAP_M
        for _ in range(N_TRIES):
            angle, distance = rng.uniform(0, 2 * np.pi), reach * rng.uniform(0.6, 1.6)
            centre = distance * np.array([np.cos(angle), np.sin(angle), 0])
            gaps = [
                float(np.linalg.norm(centre - other.centre)) - radius_of(other) - radius_of(box) for other in placed
            ]
            if min(gaps) > GAP_M:
                placed.append(move_box(box, rng.uniform(0, 2 * np.pi), centre))
                break
    return placed[1:]


def move_box(box: OpenBox, turn: float, centre: Array) -> OpenBox:
    """Turn a box on the origin about its vertical axis, in radians, and put it somewhere else on the ground."""
    cosine, sine = np.cos(turn), np.sin(turn)
    rotation = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    faces = [
        face._replace(
            origin=rotation @ face.origin + centre, along=rotation @ face.along, across=rotation @ face.across
        )
        for face in box.faces
    ]
    return OpenBox(faces, box.keypoints @ rotation.T + centre, centre, box.axes @ rotation.T)


def sample_flap_angles(rng: np.random.Generator, steepest: float) -> Array:
    """Draw four opening angles in radians: 0 points up, pi/2 lies flat outwards, negative leans inwards.

    Only two opposite flaps may lean inwards: two neighbours leaning inwards would pass through each other.
    """
    hanging = rng.uniform(50, 165, 4)
    raised = rng.uniform(-14, 30, 4)
    outward_pair = slice(rng.integers(2), None, 2)
    raised[outward_pair] = np.abs(raised[outward_pair])
    return np.minimum(np.radians(np.where(rng.random(4) < 0.3, raised, hanging)), steepest)


def aim(azimuth: float, elevation: float, roll: float) -> Array:
    """Return the rotation of a camera that looks at the origin from a direction; all three angles are in radians."""
    forward = -np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    level = np.array([-np.sin(azimuth), np.cos(azimuth), 0])
    right = np.cos(roll) * level + np.sin(roll) * np.cross(forward, level)
    return np.stack([right, np.cross(forward, right), forward])


def sample_camera(rng: np.random.Generator, points: Array, height: int, width: int) -> Camera:
    """Draw a camera above the ground that has most of the (N, 3) points inside its image."""
    rotation = aim(rng.uniform(0, 2 * np.pi), *np.radians(rng.uniform((30, -7), (66, 7))))
    target = points.mean(axis=0)
    focal_px = height * rng.uniform(1.4, 2.6)
    size = np.array([width, height])
    fill = rng.uniform(0.66, 0.96)
    distance = 2.0
    for _ in range(5):  # the size in the image is almost inversely proportional to the distance: this converges at once
        camera = Camera(target - distance * rotation[2], rotation, focal_px, size / 2)
        projected = camera.project(points)[0]
        extent = np.ptp(projected, axis=0)
        distance *= float((extent / size).max()) / fill
    # Moving the principal point crops a larger image: the perspective stays that of a real camera.
    overhang = 0.05 * size
    corner = rng.uniform(-overhang, np.maximum(size - extent, 0) + overhang)
    return camera._replace(principal=size / 2 + corner - projected.min(axis=0))


def is_edge_on(camera: Camera, face: Face) -> bool:
    """Tell whether a face is so nearly edge-on that real cardboard would show its thickness, which a face lacks."""
    sight = face.corners.mean(axis=0) - camera.position
    return bool(abs(sight @ face.normal) < EDGE_ON * np.linalg.norm(sight))


def sample_clutter(rng: np.random.Generator, half_cover: Array) -> list[Face]:
    """Draw closed cartons, some as flat as books, outside the rectangle that the box and its flaps cover."""
    faces: list[Face] = []
    for _ in range(rng.integers(2, 8)):
        place, radius = rng.uniform(-CLUTTER_SPREAD_M, CLUTTER_SPREAD_M, 2), rng.uniform(0.03, 0.15)
        if (np.abs(place) < half_cover + radius).all():
            continue
        turn, shape = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, np.pi / 4)
        angles = turn + np.array([shape, np.pi - shape, np.pi + shape, -shape])
        bottom = np.stack([place[0] + radius * np.cos(angles), place[1] + radius * np.sin(angles), np.zeros(4)], axis=1)
        up = np.array([0, 0, rng.uniform(0.1, 1.5) * radius])
        colour = sample_colour(rng)
        faces += [Face("carton", bottom[i], bottom[(i + 1) % 4] - bottom[i], up, colour) for i in range(4)]
        faces.append(Face("carton", bottom[0] + up, bottom[1] - bottom[0], bottom[3] - bottom[0], colour))
    return faces


def keep_clear(clutter: list[Face], boxes: list[OpenBox]) -> list[Face]:
    """Leave out cartons that would stand in a box or under its flaps."""
    kept: list[Face] = []
    for start in range(0, len(clutter), FACES_PER_CARTON):
        carton = clutter[start : start + FACES_PER_CARTON]
        corners = np.concatenate([face.corners[:, :2] for face in carton])
        reaches = [np.linalg.norm(box.keypoints - box.centre, axis=1).max() for box in boxes]
        gaps = [np.linalg.norm(corners - box.centre[:2], axis=1).min() for box in boxes]
        if all(gap > reach for gap, reach in zip(gaps, reaches, strict=True)):
            kept += carton
    return kept


def sample_colour(rng: np.random.Generator) -> Array:
    """Draw a linear reflectance (3,): grey, muted or bright."""
    return np.array(colorsys.hsv_to_rgb(rng.random(), rng.choice([0.1, 0.4, 0.8]), rng.uniform(0.08, 0.7)))
