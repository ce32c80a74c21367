"""Looks at a part in its own frame: where it lies in the image, and how it is turned.

The part is what differs from the background, which the image's border shows. Its centre and
principal axis come from its second moments; a half turn, or of round parts the whole angle, from
the correlation with a template of the training images. Everything is computed inside the graph.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Shape = tuple[int, int]  # height, width
SMALL = 128  # pixels of the longer side of the picture that the pose is found in, about
ANGLES, RADII = 128, 20  # of a template around the centre
ACROSS, ALONG = 16, 64  # cells of a template along the axis
LEAST_PART = 1e-3  # of the picture's area, so that an empty picture has a pose too


class Pose(nn.Module):
    """Pictures (N, 3, H, W) in 0..1 -> the part in its own frame, (N, 3, h, w).

    ``frame``: ``part`` moves the part's centre to the middle; ``axis`` brings besides its principal
    axis level, with the end on the right that the template has there; ``match`` turns it to where
    it agrees best with the template. ``shape``: h, w. ``extent``: height and width of the frame in
    pixels of the picture. ``contrast``: by how much, in 0..1, the part
    differs from the background. ``radius``: of the part, in pixels. ``middle``: of the frame, u
    along and v across from the part's centre, in pixels. ``bounds``: least and largest share of
    the picture, and largest share of the border, that is the part; where a picture shows less or
    more there is no part, and the picture's own middle is looked at.
    """

    template: Tensor
    contrast: Tensor
    radius: Tensor
    middle: Tensor
    bounds: Tensor
    extent: Tensor
    to_shade: Tensor
    shade: Tensor

    def __init__(self, frame: str, picture: Shape, shape: Shape) -> None:
        super().__init__()
        self.frame, self.picture, self.shape = frame, picture, shape
        self.factor = max(1, round(max(picture) / SMALL))
        self.register_buffer("contrast", torch.tensor(0.1))
        self.register_buffer("radius", torch.tensor(min(shape) / 2.0))
        self.register_buffer("middle", torch.zeros(2))
        self.register_buffer("bounds", torch.tensor([0.0, 1.0, 1.0]))
        self.register_buffer("extent", torch.tensor([float(length) for length in shape]))
        cells = (ACROSS, ALONG) if frame == "axis" else (RADII, ANGLES)
        self.register_buffer("template", torch.zeros(cells))
        terms = quadratic(picture[0] // self.factor, picture[1] // self.factor)
        self.register_buffer("shade", terms, persistent=False)  # (6, h, w)
        self.register_buffer("to_shade", torch.linalg.pinv(border(terms).T).T, persistent=False)

    def scaled(self, picture: Shape, shape: Shape) -> Pose:
        """Returns the same pose of pictures of another size, in a frame of ``shape`` pixels that
        holds the part.
        """
        pose = Pose(self.frame, picture, shape)
        pose.contrast.copy_(self.contrast)
        pose.bounds.copy_(self.bounds)
        pose.template.copy_(self.template)
        scale = math.sqrt(math.prod(picture) / math.prod(self.picture))
        pose.radius.copy_(self.radius * scale)
        pose.middle.copy_(self.middle * scale)
        height, width = (scale * self.extent).tolist()
        pixel = max(height / shape[0], width / shape[1])  # of the picture, to one of the frame
        pose.extent.copy_(torch.tensor([pixel * shape[0], pixel * shape[1]]))
        return pose

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the frames and where they lie: (N, 4), the centre in pixels, cosine and sine."""
        place = self.place(x)
        return sample(x, self.points(place, *self.shape)), place

    def place(self, x: Tensor) -> Tensor:
        """Returns centre x, centre y, cosine and sine of the angle of each part, (N, 4)."""
        small = self.small(x)
        weight = self.foreground(small)
        centre, second = moments(weight)
        centre = (centre + 0.5) * self.factor - 0.5
        place = torch.cat([centre, self.turn(small, centre, second)], 1)
        share, edge = weight.mean((1, 2)), border(weight).mean(1)
        least, largest, most_edge = self.bounds.unbind()
        found = (share >= least) & (share <= largest) & (edge <= most_edge)
        height, width = self.picture
        middle = torch.tensor([(width - 1) / 2, (height - 1) / 2, 1.0, 0.0], device=x.device)
        return torch.where(found[:, None], place, middle)

    def turn(self, small: Tensor, centre: Tensor, second: Tensor) -> Tensor:
        """Returns cosine and sine of the angle of each part, (N, 2)."""
        if self.frame == "axis":
            axis = principal_axis(second)
            agreement = self.along(small, torch.cat([centre, axis], 1)) @ self.template.flatten()
            return torch.where(agreement[:, None] < 0, -axis, axis)
        if self.frame == "match":
            return direction(self.around(small, centre) @ rolled(self.template))
        ones = torch.ones_like(centre[:, :1])
        return torch.cat([ones, torch.zeros_like(ones)], 1)

    def small(self, x: Tensor) -> Tensor:
        """Returns pictures small enough to find the pose in."""
        return F.avg_pool2d(x, self.factor) if self.factor > 1 else x

    def foreground(self, small: Tensor) -> Tensor:
        """Returns how much of each pixel of small pictures (N, 3, h, w) is the part, (N, h, w)."""
        weight = (self.difference(small) / self.contrast - 0.5).clamp(0, 1)
        # single pixels are noise
        return weight * F.avg_pool2d(weight[:, None], 3, 1, 1, count_include_pad=False)[:, 0]

    def difference(self, small: Tensor) -> Tensor:
        """Returns how far pixels are from the background, (N, h, w).

        That is a quadratic shading, fitted to the border; once more without what of the border
        differs from it, as a part there does.
        """
        edge = border(small)  # (N, 3, k)
        shade = edge.flatten(2).mean(2, keepdim=True)
        for _ in range(3):
            near = shade + (edge - shade).clamp(-self.contrast, self.contrast) * 0.5
            fitted = near @ self.to_shade  # (N, 3, 6)
            shade = fitted @ border(self.shade)
        return (small - torch.einsum("nck,khw->nchw", fitted, self.shade)).abs().amax(1)

    def along(self, small: Tensor, place: Tensor) -> Tensor:
        """Returns how the two ends of parts along their axis differ, normalised, (N, ACROSS *
        ALONG).
        """
        u = cell_centres(ALONG, 1, small.device)[None, :] * 2 * self.radius
        v = cell_centres(ACROSS, 1, small.device)[:, None] * self.radius
        grey = self.seen(small, offset(place, u[None], v[None]))
        return F.normalize((grey - grey.flip((1, 2))).flatten(1))

    def around(self, small: Tensor, centre: Tensor) -> Tensor:
        """Returns parts by angle and radius around their centre, normalised, (N, RADII *
        ANGLES).
        """
        angles = torch.arange(ANGLES, device=small.device) * (2 * math.pi / ANGLES)
        radii = (torch.arange(RADII, device=small.device) + 0.5)[:, None] / RADII * self.radius
        level = torch.ones_like(centre) * torch.tensor([1.0, 0.0], device=small.device)
        place = torch.cat([centre, level], 1)
        grey = self.seen(small, offset(place, radii * torch.cos(angles), radii * torch.sin(angles)))
        return F.normalize(((grey - grey.mean(2, keepdim=True)) * radii.sqrt()).flatten(1))

    def seen(self, small: Tensor, points: Tensor) -> Tensor:
        """Returns the brightness of small pictures at points of the picture, (N, h, w)."""
        grey = small.mean(1, keepdim=True)
        return sample(grey, (points + 0.5) / self.factor - 0.5)[:, 0]

    def points(self, place: Tensor, height: int, width: int) -> Tensor:
        """Returns where the centres of height x width cells of the frame lie in the picture, in
        pixels, (N, height, width, 2).
        """
        u = cell_centres(width, 1, place.device)[None, None, :] * self.extent[1] + self.middle[0]
        v = cell_centres(height, 1, place.device)[None, :, None] * self.extent[0] + self.middle[1]
        return offset(place, u, v)

    def back(self, heatmap: Tensor, place: Tensor) -> Tensor:
        """Returns the heatmap (N, h, w) of the frame as one of the picture, at its scale; what lies
        outside of the frame has the lowest value of the frame.
        """
        points, inside = self.points_back(place, heatmap_of(self.picture), heatmap.shape[1:])
        lowest = heatmap.amin((1, 2), keepdim=True)
        return torch.where(inside, sample(heatmap[:, None], points)[:, 0], lowest)

    def inserted(self, drawn: Tensor, picture: Tensor, place: Tensor) -> Tensor:
        """Returns pictures (N, 3, H, W) with what was drawn of their frames (N, 3, h, w)."""
        points, inside = self.points_back(
            place, (picture.shape[2], picture.shape[3]), drawn.shape[2:]
        )
        return torch.where(inside[:, None], sample(drawn, points), picture)

    def points_back(
        self, place: Tensor, cells: Shape, of_frame: torch.Size
    ) -> tuple[Tensor, Tensor]:
        """Returns where the centres of h x w cells of the picture lie among the cells of a frame,
        (N, h, w, 2), and whether they lie in it.
        """
        x, y, cos, sin = (part[:, None, None] for part in place.unbind(1))
        middle_y, middle_x = ((length - 1) / 2 for length in self.picture)
        dx = cell_centres(cells[1], self.picture[1], place.device)[None, None, :] + middle_x - x
        dy = cell_centres(cells[0], self.picture[0], place.device)[None, :, None] + middle_y - y
        # from the frame's middle, -1/2 to 1/2 in it
        u = (cos * dx + sin * dy - self.middle[0]) / self.extent[1]
        v = (cos * dy - sin * dx - self.middle[1]) / self.extent[0]
        points = torch.stack([(u + 0.5) * of_frame[1] - 0.5, (v + 0.5) * of_frame[0] - 0.5], 3)
        return points, (u.abs() <= 0.5) & (v.abs() <= 0.5)


def heatmap_of(picture: Shape) -> Shape:
    """Returns height and width of a picture's heatmap: cells of 8 pixels, at most 64 a side."""
    cell = max(8.0, max(picture) / 64)
    return max(1, round(picture[0] / cell)), max(1, round(picture[1] / cell))


def quadratic(height: int, width: int) -> Tensor:
    """Returns 1, x, y, xx, xy, yy at each pixel, (6, height, width), x and y from -1 to 1."""
    y = torch.linspace(-1, 1, height)[:, None].expand(height, width)
    x = torch.linspace(-1, 1, width)[None, :].expand(height, width)
    return torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y])


def border(x: Tensor) -> Tensor:
    """Returns the values at the edge of maps (..., h, w), (..., k)."""
    return torch.cat([x[..., 0, :], x[..., -1, :], x[..., 1:-1, 0], x[..., 1:-1, -1]], -1)


def cell_centres(cells: int, length: int, device: torch.device) -> Tensor:
    """Returns the centres of cells of a line of ``length`` pixels, from the line's middle."""
    return (torch.arange(cells, device=device) + 0.5) * (length / cells) - length / 2


def offset(place: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Returns the points of pictures that lie u along and v across from the centre of the part."""
    x, y, cos, sin = (part[:, None, None] for part in place.unbind(1))
    return torch.stack([x + cos * u - sin * v, y + sin * u + cos * v], 3)


def sample(x: Tensor, points: Tensor) -> Tensor:
    """Returns x (N, C, H, W) at points (N, h, w, 2) in pixels, bilinear, the edge repeated."""
    height, width = x.shape[2:]
    scale = torch.tensor([2.0 / width, 2.0 / height], device=x.device)
    grid = (points + 0.5) * scale - 1
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def moments(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the centre (N, 2) and the second central moments xx, xy, yy (N, 3) of weights (N, h,
    w), in pixels.
    """
    height, width = weight.shape[1:]
    x = torch.arange(width, device=weight.device, dtype=torch.float32)
    y = torch.arange(height, device=weight.device, dtype=torch.float32)
    weight = weight + LEAST_PART / (height * width)
    across, down, total = weight.sum(1), weight.sum(2), weight.sum((1, 2))[:, None]
    centre = torch.cat([(across @ x)[:, None], (down @ y)[:, None]], 1) / total
    dx, dy = x - centre[:, :1], y - centre[:, 1:]  # (N, w), (N, h)
    xx, yy = (across * dx * dx).sum(1), (down * dy * dy).sum(1)
    xy = (dy[:, None] @ weight @ dx[:, :, None])[:, 0, 0]
    return centre, torch.stack([xx, xy, yy], 1) / total


def principal_axis(second: Tensor) -> Tensor:
    """Returns cosine and sine of the principal axis, (N, 2), one of its two directions."""
    xx, xy, yy = second.unbind(1)
    a, b = xx - yy, 2 * xy
    double = a / torch.sqrt(a * a + b * b + 1e-12)  # the cosine of twice the angle
    cos = torch.sqrt(((1 + double) / 2).clamp(min=0))
    sin = torch.sqrt(((1 - double) / 2).clamp(min=0))
    return torch.stack([cos, torch.where(b < 0, -sin, sin)], 1)


def rolled(template: Tensor) -> Tensor:
    """Returns the template (r, k) turned by each of k angles, as a matrix (r k, k)."""
    angles = template.shape[1]
    index = torch.arange(angles, device=template.device)
    shifted = (index[:, None] - index[None, :]) % angles  # where an angle comes from, by the turn
    return template[:, shifted].flatten(0, 1)


def direction(agreement: Tensor) -> Tensor:
    """Returns cosine and sine of the angle of best agreement, (N, 2), between the angles too, by a
    parabola.
    """
    angles = agreement.shape[1]
    best = agreement.argmax(1, keepdim=True)
    left, middle, right = (
        agreement.gather(1, (best + step) % angles) for step in (angles - 1, 0, 1)
    )
    curve = (left - 2 * middle + right).clamp(max=-1e-9)
    angle = (best + 0.5 * (left - right) / curve) * (2 * math.pi / angles)
    return torch.cat([torch.cos(angle), torch.sin(angle)], 1)
