"""Pieces on grids side by side so that a mirror, a shift, a crop or another brightness leaves the distance small.

Small averages of the piece in each pose name candidates among the training pieces; those are then compared at full size in all poses
near the one that was found (coarse to fine, as Anandan 1989 does for motion), by correlation without mean and contrast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from maquette.space import Space

SIDE = {1: 4096, 2: 48, 3: 16}  # cells of an axis that are compared; longer ones are averaged down
COARSE = {1: 64, 2: 8, 3: 4}  # cells of an axis of the averages by which candidates are found
CROP = 0.9  # of a side that a crop kept
PLACES = 4  # of a crop along an axis, by which candidates are found
FAINT = 2 * 2 / 255  # contrast below which a piece counts as empty: two levels of 255
LIVELY = 0.5  # of the contrast of the liveliest part, below which a part says nothing
PAIRS = 256  # compared at once
BLOCK = 256  # rows of a product, so that it stays near the processor


@dataclass(frozen=True)
class Pose:
    """How a piece came from another: mirrored along the last axis, and moved by `place`, or cut out at `place` and enlarged."""

    mirrored: bool
    cropped: bool
    place: tuple[int, ...]


class Aligned:
    """Whole pieces (B, C, *axes), one of them in any pose.

    poses      those by which candidates are found
    kinds      (P,) of each pose: candidates are compared in the best pose of each kind
    """

    name = "aligned"

    def __init__(self, space: Space):
        space.need("grid", model="the search for copies")
        self.axes, self.blocks = _seen(space.axes)
        self.kept = tuple(max(1, round(CROP * n)) for n in self.axes)
        self.poses = tuple(self._poses())
        self.kinds = torch.tensor([int(p.cropped) for p in self.poses])
        self.zooms = [_enlarging(n, s) for n, s in zip(self.axes, self.kept, strict=True)]

    def _poses(self) -> Iterator[Pose]:
        rooms = [n - s for n, s in zip(self.axes, self.kept, strict=True)] if len(self.axes) == 2 else []
        steps = [sorted({round(k * room / (PLACES - 1)) for k in range(PLACES)}) for room in rooms]
        for mirrored in (False, True):
            yield from (Pose(mirrored, False, move) for move in _moves(self.axes))
            yield from (Pose(mirrored, True, place) for place in product(*steps) if place)

    @property
    def words(self) -> str:
        crops = f", crops of about {CROP:.0%} of a side" if len(self.axes) == 2 else ""
        return f"mirror images, moves by one pixel{crops}, other brightness or contrast, and compression"

    def plain(self, x: Tensor) -> Tensor:
        """x (B, C, *axes) -> what is compared: averaged to `SIDE`; of transparent pictures what shows."""
        return _averaged(_shown(x.float()), self.blocks)

    def known(self, plain: Tensor) -> Tensor:
        """(B, C, *axes) -> (B, 1, D): the averages of a training piece."""
        return _coarse(plain)[:, None]

    def asked(self, plain: Tensor) -> Tensor:
        """(B, C, *axes) -> (B, P, D): those of a piece in each pose."""
        return torch.stack([_coarse(self._undone(plain, p)) for p in self.poses], 1)

    def _undone(self, x: Tensor, pose: Pose) -> Tensor:
        """About the piece it would have come from."""
        x = x.flip(-1) if pose.mirrored else x
        if pose.cropped:
            x = F.interpolate(x, self.kept, mode="bilinear", antialias=True)
            before, after = pose.place, [n - s - p for n, s, p in zip(self.axes, self.kept, pose.place, strict=True)]
        else:
            x = x[(..., *(slice(max(0, -m), n - max(0, m)) for m, n in zip(pose.place, self.axes, strict=True)))]
            before, after = [max(0, m) for m in pose.place], [max(0, -m) for m in pose.place]
        return F.pad(x, [m for pair in zip(reversed(before), reversed(after), strict=True) for m in pair], "replicate")

    def apart(self, x: Tensor, y: Tensor, pose: Tensor) -> Tensor:
        """x, y (N, C, *axes), pose (N,) -> (N,): the least distance over all poses near the one found."""
        found = torch.full((len(x),), torch.inf)
        for k in pose.unique().tolist():
            rows, kind = (pose == k).nonzero().flatten(), self.poses[k]
            mine = x[rows].flip(-1) if kind.mirrored else x[rows]
            found[rows] = self._cropped(mine, y[rows], kind.place) if kind.cropped else moved(mine, y[rows])
        return found

    def _cropped(self, x: Tensor, y: Tensor, place: tuple[int, ...]) -> Tensor:
        """x beside crops of y that begin at most one pixel from `place`."""
        down, across = (
            [zoom[k] for k in range(max(0, p - 1), min(len(zoom), p + 2))]
            for zoom, p in zip(self.zooms, place, strict=True)
        )
        mine = _even(x)
        rows = [d @ y for d in down]
        return torch.stack([_residue(mine, _even(row @ a.T)) for row in rows for a in across]).amin(0)


class Parts:
    """Parts of half a side, each beside the part in the same place of another piece: what was taken over in part."""

    name = "parts"

    def __init__(self, space: Space):
        space.need("grid", model="the search for copies")
        self.axes, self.blocks = _seen(space.axes)
        self.size = tuple(-(-n // 2) for n in self.axes)
        rooms = [n - s for n, s in zip(self.axes, self.size, strict=True)]
        self.places = list(product(*[sorted({0, room // 2, room}) for room in rooms]))
        self.kinds = torch.zeros(2 * len(self.places), dtype=torch.long)

    plain = Aligned.plain

    def known(self, plain: Tensor) -> Tensor:
        """(B, C, *axes) -> (B, K, D)"""
        return torch.stack([_coarse(_cut(plain, p, self.size)) for p in self.places], 1)

    def asked(self, plain: Tensor) -> Tensor:
        """(B, C, *axes) -> (B, 2 K, D): of the piece, then of its mirror image; parts with too little in them are not finite."""
        return torch.cat([self._lively(x) for x in (plain, plain.flip(-1))], 1)

    def _lively(self, plain: Tensor) -> Tensor:
        parts = torch.stack([_cut(plain, p, self.size) for p in self.places], 1).flatten(2)
        contrast = parts.std(2)
        empty = contrast < LIVELY * contrast.amax(1, keepdim=True)
        return self.known(plain).masked_fill(empty[..., None], torch.nan)

    def apart(self, x: Tensor, y: Tensor, pose: Tensor) -> Tensor:
        found = torch.full((len(x),), torch.inf)
        for k in pose.unique().tolist():
            rows, place = (pose == k).nonzero().flatten(), self.places[k % len(self.places)]
            mine = x[rows].flip(-1) if k >= len(self.places) else x[rows]
            found[rows] = moved(*(_cut(z, place, self.size) for z in (mine, y[rows])))
        return found


def moved(x: Tensor, y: Tensor) -> Tensor:
    """(N, C, *axes) twice -> (N,): the least distance over moves by up to one cell, where they overlap."""
    axes = x.shape[2:]
    found = []
    for move in _moves(axes):
        a = (..., *(slice(max(0, -m), n - max(0, m)) for m, n in zip(move, axes, strict=True)))
        b = (..., *(slice(max(0, m), n + min(0, m)) for m, n in zip(move, axes, strict=True)))
        found.append(_residue(_even(x[a]), _even(y[b])))
    return torch.stack(found).amin(0)


def _moves(axes: tuple[int, ...]) -> list[tuple[int, ...]]:
    return list(product(*[(-1, 0, 1) if n > 2 else (0,) for n in axes]))


def _even(x: Tensor) -> Tensor:
    """(N, C, *axes) of mean 0 and length 1 (shorter where there is almost nothing). One mean of all channels: a colour is no brightness."""
    x = x - _mean(x)
    length = x.flatten(1).norm(dim=1).clamp_min(FAINT * x[0].numel() ** 0.5)
    return x / length.view(-1, *[1] * (x.ndim - 1))


def _mean(x: Tensor) -> Tensor:
    return x.mean(tuple(range(1, x.ndim)), keepdim=True)


def _residue(x: Tensor, y: Tensor) -> Tensor:
    """(N, C, *axes) twice -> (N,): the distance of averages over two cells an axis, of colours over four, which compression leaves alone."""
    rest = x - y
    grey = rest.mean(1, keepdim=True)
    found = x.shape[1] * _square(grey, 2)
    return (found + _square(rest - grey, 4) if x.shape[1] > 1 else found).sqrt()


def _square(x: Tensor, block: int) -> Tensor:
    """(N, C, *axes) -> (N,): the squared length of averages, as if each stood for its block."""
    means = _averaged(x, tuple(min(block, n) for n in x.shape[2:])).flatten(1)
    return means.square().mean(1) * x[0].numel()


def _coarse(x: Tensor) -> Tensor:
    """(B, C, *axes) -> (B, D) of length 1."""
    pool = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[x.ndim - 3]
    return _even(pool(x, [min(COARSE[x.ndim - 2], n) for n in x.shape[2:]])).flatten(1)


def _enlarging(n: int, kept: int) -> Tensor:
    """(n - kept + 1, n, n): the matrices that enlarge what is kept from each place on to the whole axis."""
    resize = F.interpolate(torch.eye(kept)[None, None], (n, kept), mode="bicubic", antialias=True)[0, 0]
    return torch.stack([F.pad(resize, (place, n - kept - place)) for place in range(n - kept + 1)])


def _cut(x: Tensor, place: tuple[int, ...], size: tuple[int, ...]) -> Tensor:
    return x[(..., *(slice(p, p + s) for p, s in zip(place, size, strict=True)))]


def _seen(axes: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes that are compared, and the blocks that are averaged to get there."""
    blocks = tuple(-(-n // SIDE[len(axes)]) for n in axes)
    return tuple(-(-n // b) for n, b in zip(axes, blocks, strict=True)), blocks


def _averaged(x: Tensor, blocks: tuple[int, ...]) -> Tensor:
    if prod(blocks) == 1:
        return x
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(blocks) - 1]
    return pool(x, blocks, ceil_mode=True, count_include_pad=False)


def _shown(x: Tensor) -> Tensor:
    """Of pictures with transparency (B, 4, H, W): colours less their mean, as far as they show; transparency stays the fourth channel."""
    if x.ndim != 4 or x.shape[1] != 4:
        return x
    alpha = (x[:, 3:] + 1) / 2
    mean = _mean(x[:, :3] * alpha) / _mean(alpha).clamp_min(1e-6)
    return torch.cat([(x[:, :3] - mean) * alpha, alpha], 1)


# ---- the search


class Candidates:
    """For each piece the `most` known ones nearest to it in any pose, of a stream of blocks.

    asked (N, P, D), kinds (P,) of poses; index (N, most), -1 where fewer came
    """

    def __init__(self, asked: Tensor, most: int, kinds: Tensor):
        self.kinds = [(kinds == k).nonzero().flatten() for k in range(int(kinds.max()) + 1)]
        self.asked = asked.nan_to_num(nan=0.0)  # a part without content is like nothing
        self.near = torch.full((len(asked), most), -torch.inf)
        self.index = torch.full((len(asked), most), -1)

    def see(self, known: Tensor, numbers: Tensor) -> None:
        """known (B, K, D), numbers (B,): pose p is compared with part p mod K."""
        length = known.square().sum(2)
        for start in range(0, len(self.asked), BLOCK):
            part = slice(start, start + BLOCK)
            asked = self.asked[part]
            near = torch.full((len(asked), len(known)), -torch.inf)
            for pose in range(asked.shape[1]):
                k = pose % known.shape[1]
                torch.maximum(near, torch.addmm(-length[:, k], asked[:, pose], known[:, k].T, alpha=2), out=near)
            near, place = near.topk(min(self.near.shape[1], len(known)))
            self.near[part], order = torch.cat([self.near[part], near], 1).topk(self.near.shape[1])
            self.index[part] = torch.cat([self.index[part], numbers[place]], 1).gather(1, order)

    def poses(self, known: Callable[[Tensor], Tensor]) -> Tensor:
        """(N, most, kinds): the best pose of each kind beside each candidate. known: numbers (n,) -> (n, K, D), as `see` saw them."""
        found = []
        for asked, index in zip(self.asked.split(PAIRS), self.index.split(PAIRS), strict=True):
            numbers, place = index.clamp_min(0).unique(return_inverse=True)
            rows = torch.cat([known(n) for n in numbers.split(PAIRS)])
            likeness = _likeness(asked, rows, place)
            found.append(torch.stack([these[likeness[:, :, these].argmax(2)] for these in self.kinds], 2))
        return torch.cat(found)


def _likeness(asked: Tensor, known: Tensor, place: Tensor) -> Tensor:
    """(N, P, D), (B, K, D), (N, m) rows of known -> (N, m, P)"""
    if known.shape[1] == 1:
        return torch.einsum("npd,nmd->nmp", asked, known[place, 0])
    chosen = known[place][:, :, torch.arange(asked.shape[1]) % known.shape[1]]  # (N, m, P, D)
    return 2 * torch.einsum("npd,nmpd->nmp", asked, chosen) - chosen.square().sum(3)


def rescored(
    kind: Aligned | Parts, plain: Tensor, found: Candidates, take: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """(distance, index) (N, most) at full size, the nearest first. take: numbers -> the training pieces, plain."""
    distance = torch.full(found.index.shape, torch.inf)
    row, column = (found.index >= 0).nonzero(as_tuple=True)
    for pose in found.poses(lambda numbers: kind.known(take(numbers))).unbind(2):
        order = pose[row, column].argsort(stable=True)
        for part in order.split(PAIRS):
            r, c = row[part], column[part]
            apart = kind.apart(plain[r], take(found.index[r, c]), pose[r, c])
            distance[r, c] = torch.minimum(distance[r, c], apart)
    distance, order = distance.sort(1)
    return distance, found.index.gather(1, order)
