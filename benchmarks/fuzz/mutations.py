"""Ways in which a file arrives damaged, drawn from a seed."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

Mutation = Callable[[Random, bytes, bytes], bytes]

_ODD_BYTES = (0x00, 0x01, 0x7F, 0x80, 0xFF)
_ODD_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1e-320, 1e308, -1e308, 2**31, 2**63, 2**64, 10**400, float("nan"),
    float("inf"), -float("inf"), "", "x", "\x00", "\ud800", "../../etc/passwd", "a" * 100_000,
    [], {}, [[]], [None] * 1000, {"": {}}, {"__class__": "os.system"},
)  # fmt: skip
_NESTED = 100_000


def flip_bits(random: Random, content: bytes, other: bytes) -> bytes:
    """One to eight bits."""
    del other
    result = bytearray(content)
    for _ in range(random.randint(1, 8)):
        result[random.randrange(len(result))] ^= 1 << random.randrange(8)
    return bytes(result)


def overwrite_bytes(random: Random, content: bytes, other: bytes) -> bytes:
    """A few neighbouring bytes with odd ones: lengths and tags become extreme."""
    del other
    result, start = bytearray(content), random.randrange(len(content))
    for i in range(start, min(len(result), start + random.randint(1, 9))):
        result[i] = random.choice(_ODD_BYTES)
    return bytes(result)


def truncate(random: Random, content: bytes, other: bytes) -> bytes:
    """Cut short, anywhere."""
    del other
    return content[: random.randrange(len(content))]


def swap_blocks(random: Random, content: bytes, other: bytes) -> bytes:
    """Two stretches change places."""
    del other
    a, b, c, d = sorted(random.randrange(len(content) + 1) for _ in range(4))
    return content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]


def splice(random: Random, content: bytes, other: bytes) -> bytes:
    """The beginning of one file and the end of another."""
    return content[: random.randrange(len(content))] + other[random.randrange(len(other)) :]


def repeat_block(random: Random, content: bytes, other: bytes) -> bytes:
    """A stretch comes several times."""
    del other
    start = random.randrange(len(content))
    end = min(len(content), start + random.randint(1, 200))
    return content[:end] + content[start:end] * random.randint(1, 50) + content[end:]


def insert_noise(random: Random, content: bytes, other: bytes) -> bytes:
    """Random bytes in between."""
    del other
    at = random.randrange(len(content) + 1)
    return content[:at] + random.randbytes(random.randint(1, 64)) + content[at:]


def replace_value(random: Random, content: bytes, other: bytes) -> bytes:
    """JSON: any one value becomes an odd one, a key goes, or a key comes."""
    del other
    record = json.loads(content)
    place, key = _anywhere(random, record)
    kind = random.randrange(4)
    if kind == 0 and isinstance(place, dict):
        del place[key]
    elif kind == 1 and isinstance(place, dict):
        place[random.choice(["", "extra", "__proto__", str(key) * 2])] = 1
    else:
        place[key] = random.choice(_ODD_VALUES)
    return json.dumps(record).encode()


def nest_deeply(random: Random, content: bytes, other: bytes) -> bytes:
    """JSON: a value nested so deep that a recursive reader gives up."""
    del other
    record = json.loads(content)
    place, key = _anywhere(random, record)
    place[key] = "NESTED"
    opening, closing = random.choice([(b"[", b"]"), (b'{"a":', b"}")])
    nested = opening * _NESTED + b"1" + closing * random.choice([_NESTED, 0])
    return json.dumps(record).encode().replace(b'"NESTED"', nested)


def _anywhere(random: Random, record: Any) -> tuple[Any, Any]:
    """A container inside the record, and one of its keys."""
    while True:
        keys = list(record) if isinstance(record, dict) else list(range(len(record)))
        key = random.choice(keys)
        below = record[key]
        if not isinstance(below, dict | list) or not below or random.random() < 0.2:
            return record, key
        record = below


OF_BYTES: tuple[Mutation, ...] = (
    flip_bits,
    overwrite_bytes,
    truncate,
    swap_blocks,
    splice,
    repeat_block,
    insert_noise,
)
OF_JSON: tuple[Mutation, ...] = (*OF_BYTES, replace_value, replace_value, nest_deeply)
