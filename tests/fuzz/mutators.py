"""Changes of bytes, as fuzzers make them."""

import random
from collections.abc import Callable, Sequence

Change = Callable[[bytearray, random.Random], None]

EXTREMES = (0, 1, 2, 16, 31, 32, 63, 64, 127, 128, 129, 254, 255)


def _flip(data: bytearray, generator: random.Random) -> None:
    data[_place(data, generator)] ^= 1 << generator.randrange(8)


def _set(data: bytearray, generator: random.Random) -> None:
    data[_place(data, generator)] = generator.choice([*EXTREMES, generator.randrange(256)])


def _add(data: bytearray, generator: random.Random) -> None:
    place = _place(data, generator)
    data[place] = (data[place] + generator.choice([-2, -1, 1, 2])) % 256


def _insert(data: bytearray, generator: random.Random) -> None:
    place = _place(data, generator)
    data[place:place] = generator.randbytes(generator.choice([1, 1, 2, 8]))


def _delete(data: bytearray, generator: random.Random) -> None:
    place = _place(data, generator)
    del data[place : place + generator.choice([1, 1, 2, 8])]


def _zero(data: bytearray, generator: random.Random) -> None:
    place = _place(data, generator)
    size = min(generator.choice([2, 4, 16]), len(data) - place)
    data[place : place + size] = bytes(size)


def _copy(data: bytearray, generator: random.Random) -> None:
    place, size = _place(data, generator), generator.choice([2, 4, 16])
    piece = data[place : place + size]
    place = _place(data, generator)
    data[place : place + len(piece)] = piece


def _move(data: bytearray, generator: random.Random) -> None:
    """One number gains what another one loses: sums stay what they were."""
    one, other = _place(data, generator), _place(data, generator)
    change = generator.choice([1, 1, 2, 5])
    data[one] = (data[one] + change) % 256
    data[other] = (data[other] - change) % 256


def _cut(data: bytearray, generator: random.Random) -> None:
    del data[generator.choice([-1, -2, generator.randrange(len(data))]) :]


def _lengthen(data: bytearray, generator: random.Random) -> None:
    data += generator.choice([bytes(1), bytes(4), generator.randbytes(3)])


# Those that keep the size more often, as most sizes are told somewhere.
CHANGES: Sequence[Change] = (
    *(_flip, _flip, _flip, _set, _set, _add, _add, _zero, _copy, _move, _move),
    *(_insert, _delete, _cut, _lengthen),
)


def _place(data: bytearray, generator: random.Random) -> int:
    """Any place, one of the first ones more often: there are the heads."""
    return generator.randrange(
        generator.choice([min(12, len(data)), min(48, len(data)), len(data)])
    )


def changed(data: bytes, others: Sequence[bytes], generator: random.Random) -> bytes:
    """Returns bytes with one to three changes; or the front of them and the end of others."""
    if generator.random() < 0.02:
        other = generator.choice(others)
        return data[: generator.randrange(len(data) + 1)] + other[generator.randrange(64) :]
    result = bytearray(data)
    for _ in range(generator.choice([1, 1, 1, 2, 3])):
        if result:
            generator.choice(CHANGES)(result, generator)
    return bytes(result)
