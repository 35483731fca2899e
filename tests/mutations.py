"""Damages of files, for what reads files of strangers."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

Damage = Callable[[bytes, random.Random], bytes]

_NUMBERS = (b"1e999", b"-1", b"nan", b"NaN", b"Infinity", b"9" * 400, b"1e-400", b"0x10", b"true")
_WORDS = (b"null", b"[]", b"{}", b'""', b"\x00", b"\xff\xfe", "ü\u2028".encode(), b"!!python/x a")


def _place(data: bytes, rng: random.Random) -> int:
    return rng.randrange(max(1, len(data)))


def flip(data: bytes, rng: random.Random) -> bytes:
    """Flip up to four bits."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if changed:
            changed[_place(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(data: bytes, rng: random.Random) -> bytes:
    """Leave out the end, or something in the middle."""
    start, end = sorted((_place(data, rng), _place(data, rng)))
    return data[:start] if rng.random() < 0.5 else data[:start] + data[end:]


def repeat_line(data: bytes, rng: random.Random) -> bytes:
    """Let a line stand twice, perhaps elsewhere."""
    lines = data.split(b"\n")
    lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
    return b"\n".join(lines)


def swap_lines(data: bytes, rng: random.Random) -> bytes:
    """Let two lines change places."""
    lines = data.split(b"\n")
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    return b"\n".join(lines)


def swap_words(data: bytes, rng: random.Random) -> bytes:
    """Let two words or numbers change places."""
    found = list(re.finditer(rb"[\w.+-]+", data))
    if len(found) < 2:
        return data + b"x"
    first, second = sorted(rng.sample(range(len(found)), 2))
    one, other = found[first], found[second]
    middle = data[one.end() : other.start()]
    return data[: one.start()] + other[0] + middle + one[0] + data[other.end() :]


def odd_value(data: bytes, rng: random.Random) -> bytes:
    """Put something in the place of a word or number."""
    found = list(re.finditer(rb"[\w.+-]+", data))
    if not found:
        return rng.choice(_WORDS)
    one = rng.choice(found)
    return data[: one.start()] + rng.choice(_NUMBERS + _WORDS) + data[one.end() :]


def nest(data: bytes, rng: random.Random) -> bytes:
    """Nest something deeply."""
    place, depth = _place(data, rng), rng.choice((3, 50, 20_000))
    bracket = rng.choice((b"[", b"{", b'{"a":', b"- "))
    return data[:place] + bracket * depth + data[place:]


def recode(data: bytes, rng: random.Random) -> bytes:
    """Write a text in another encoding, with a mark before it, or with other line breaks."""
    text = data.decode("utf-8", "replace")
    made = (
        text.encode("utf-16"), text.encode("utf-32"), b"\xef\xbb\xbf" + data,
        data.replace(b"\n", b"\r\n"), data.replace(b"\n", b"\r"), data + b"\x00" * 100,
        ("ä" + text).encode("latin-1", "replace"), data[:50] + b"\x00" + data[50:],
    )  # fmt: skip
    return rng.choice(made)


def forge_length(data: bytes, rng: random.Random) -> bytes:
    """Put an extreme number in the place of some bytes."""
    place, width = _place(data, rng), rng.choice((1, 2, 4, 8))
    number = rng.choice((0, 1, 2 ** (8 * width - 1), 2 ** (8 * width) - 1))
    order = rng.choice(("little", "big"))
    return data[:place] + number.to_bytes(width, order) + data[place + width :]


def replace_by_noise(data: bytes, rng: random.Random) -> bytes:
    """Put random bytes in the place of up to 64."""
    place = _place(data, rng)
    noise = rng.randbytes(rng.randint(1, 64))
    return data[:place] + noise + data[place + len(noise) :]


BYTES: Sequence[Damage] = (flip, cut, forge_length, replace_by_noise)
TEXT: Sequence[Damage] = (
    flip, cut, repeat_line, swap_lines, swap_words, odd_value, nest, recode, replace_by_noise,
)  # fmt: skip


def mutated(data: bytes, damages: Sequence[Damage], rng: random.Random) -> bytes:
    """Return a file with one to three damages."""
    for damage in rng.choices(damages, k=rng.choice((1, 1, 2, 3))):
        data = damage(data, rng)
    return data
