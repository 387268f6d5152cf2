"""Arrays as a script: a page that is opened as a file cannot fetch other files."""

import base64
import json
from collections.abc import Mapping

import numpy as np


def packed(name: str, arrays: Mapping, **facts) -> str:
    r"""Write arrays, and facts about them, as a call of the function ``give``.

    Bytes stay bytes; other arrays are written as numbers of 32 bits.

    >>> packed("x", {"a": np.float32([1])}, cell="tanh")
    'dianLive.give("x",{"tensors":{"a":[0,1]},"cell":"tanh"},"AACAPw==");\n'
    """
    parts, places, at = [], {}, 0
    for key, values in sorted(arrays.items()):  # the same order in every build
        array = np.ascontiguousarray(values)
        if array.dtype != np.uint8:
            array = array.astype("<f4")
        places[key] = [at, *array.shape]
        parts.append(array.tobytes())
        at += array.size
    content = json.dumps({"tensors": places, **facts}, separators=(",", ":"))
    data = base64.b64encode(b"".join(parts)).decode()
    return f'dianLive.give("{name}",{content},"{data}");\n'
