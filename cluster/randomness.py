"""Where every seed comes from: the triple (seed, stage, item), never a rank, a clock or an arrival order."""

import hashlib
import json


def derive_seed(seed: int, stage: str, item: str | int) -> int:
    """Return the 63-bit seed of one item of one stage of a run.

    SHA-256 of the triple, so that neighbouring seeds and items share nothing, and the same on every machine.
    `item` may be a name or a number; the number 1 and the name "1" are different items.
    """
    triple = json.dumps([int(seed), stage, item if isinstance(item, str) else int(item)])
    return int.from_bytes(hashlib.sha256(triple.encode()).digest()[:8], "big") >> 1
