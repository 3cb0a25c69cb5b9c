"""Nearest neighbours by matrix products, with distances that do not suffer from their cancellation."""

import torch
from torch import Tensor

_ROWS, _COLUMNS = 784, 1024  # of products at a time: they stay near the processor
_BLOCK = 256
_ROUNDING = 3e-5  # of |x|^2 + |c|^2, above a float32 product's error in up to thousands of dimensions


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Distances of the rows of `a` (..., N, D) and `b` (..., M, D) from their differences, never from products."""
    result: Tensor = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    return result


def nearest_patches(x: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
    """Distance (N) of each row of x (N, D) to the nearest row of the bank (M, D), and that row's index (N).

    Found by matrix products of centred rows; the winner's distance is then taken from the difference itself. Where
    the square is below ten times a bound of the product's rounding, near ties are measured one by one; above, a winner
    that rounding made is farther than the true one by 3 % at the very most, and by .1 % as roundings fall.
    """
    center = bank.mean(0)
    left, right = x - center, bank.new_zeros(len(bank) + -len(bank) % _BLOCK, bank.shape[1])
    torch.sub(bank, center, out=right[: len(bank)])
    squares = torch.linalg.vecdot(right, right)
    error = _ROUNDING * (left.square().sum(1) + squares.amax())
    squares[len(bank) :] = torch.inf
    index = _lowest(left, right, squares)
    distance = (x - bank.index_select(0, index)).norm(dim=1)
    doubtful = (distance.square() < 10 * error).nonzero()[:, 0]
    for part in torch.split(doubtful, _ROWS):
        distance[part], index[part] = nearest_exact(x[part], bank, center)
    return distance, index


def nearest_exact(x: Tensor, bank: Tensor, center: Tensor) -> tuple[Tensor, Tensor]:
    """As `nearest_patches`, with every near tie measured: exactly the minimum of `distances`, first index first.

    `center` (D) is a point near both. Meant for some thousand rows of x at a time.
    """
    best, index = x.new_full((len(x),), torch.inf), torch.zeros(len(x), dtype=torch.long, device=x.device)
    left = _rows(x - center)
    squares = left[:, :-1].square().sum(1)
    for start in range(0, len(bank), _COLUMNS):
        part = bank[start : start + _COLUMNS]
        columns = _columns(part - center)
        products = left @ columns.T
        margin = 2 * _ROUNDING * (squares + columns[:, -1].amax())
        ties = (products <= (products.amin(1) + margin)[:, None]).nonzero()
        for row, column in (pairs.T for pairs in torch.split(ties, 2**16)):
            measured = distances(x.index_select(0, row)[:, None], part.index_select(0, column)[:, None])[:, 0, 0]
            lowest = best.scatter_reduce(0, row, measured, "amin")
            index[lowest < best] = len(bank)  # to be replaced by the first of the new lowest
            best = lowest
            first = measured == best[row]
            index.scatter_reduce_(0, row[first], column[first] + start, "amin")
    return best, index


def _lowest(left: Tensor, right: Tensor, squares: Tensor) -> Tensor:
    """For each row of `left` the index of the lowest |c|^2 - 2 left c, over the rows c of `right`, whose
    number is a multiple of _BLOCK.

    First the lowest of each _BLOCK of columns alone, which costs next to nothing beside the product; the winner's place
    within its block follows from that block's product, made again.
    """
    lows = left.new_empty(len(left), len(right) // _BLOCK)
    ready = left.new_empty(_ROWS * _COLUMNS)
    for low, part in zip(torch.split(lows, _ROWS), torch.split(left, _ROWS), strict=True):
        for start in range(0, len(right), _COLUMNS):
            columns = right[start : start + _COLUMNS]
            products = ready[: len(part) * len(columns)].view(len(part), -1)
            torch.addmm(squares[start : start + _COLUMNS], part, columns.T, alpha=-2, out=products)
            first = start // _BLOCK
            low[:, first : first + len(columns) // _BLOCK] = products.view(len(part), -1, _BLOCK).amin(2)
    winner = lows.argmin(1)
    index = torch.empty_like(winner)
    members = winner.bincount(minlength=lows.shape[1]).tolist()
    for block, rows in enumerate(torch.split(winner.argsort(stable=True), members)):
        own = slice(block * _BLOCK, (block + 1) * _BLOCK)
        if len(rows):
            index[rows] = own.start + torch.addmm(squares[own], left[rows], right[own].T, alpha=-2).argmin(1)
    return index


def _rows(x: Tensor) -> Tensor:
    """x with a 1 behind each row: its product with `_columns(c)` is |x - c|^2 - |x|^2."""
    return torch.cat([x, x.new_ones(len(x), 1)], dim=1)


def _columns(c: Tensor) -> Tensor:
    """-2 c with |c|^2 behind each row."""
    return torch.cat([-2 * c, c.square().sum(1, keepdim=True)], dim=1)
