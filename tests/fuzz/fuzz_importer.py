# SPDX-License-Identifier: MIT
"""Coverage-guided fuzzing of the importer of bgflow's checkpoints, with Atheris (requirements/fuzz.txt):

    python tests/fuzz/fuzz_importer.py -max_total_time=600 NEW_INPUTS tests/fuzz/corpus/importer

An input is a JSON document: a spec, and changes ``[number of a tensor, change]`` of a checkpoint that fits the original one. What the importer
makes of it is a valid model or a ValueError that says why not. The tests replay the corpus without Atheris.
"""
import copy
import json
import random
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "python"))

FUZZING = __name__ == "__main__"
if FUZZING:
    import atheris

    with atheris.instrument_imports(include=["openmmflow.importers", "openmmflow.model_file"]):
        from openmmflow import FlowModel, model_file
        from openmmflow.importers import bgflow
else:
    from openmmflow import FlowModel, model_file
    from openmmflow.importers import bgflow

from test_importers import SPEC, made_up_state_dict  # noqa: E402

STATE_DICT = {name: tensor.numpy() for name, tensor in made_up_state_dict().items()}
NAMES = sorted(STATE_DICT)
CHANGES = {
    "delete": None,
    "scalar": lambda array: np.float32(0.5),
    "flat": np.ravel,
    "short": lambda array: array[:-1] if array.ndim else array,
    "long": lambda array: np.concatenate([array, array]) if array.ndim else array,
    "empty": lambda array: array[:0] if array.ndim else np.zeros(0, np.float32),
    "nan": lambda array: np.full_like(array, np.nan),
    "negative": lambda array: -np.abs(array) - 1,
    "huge": lambda array: np.full_like(array, 1e38),
    "integers": lambda array: array.astype(np.int64),
    "complex": lambda array: array.astype(np.complex64),
    "text": lambda array: "weights",
    "none": lambda array: None,
}
VALUES = (None, True, -1, 0, 1, 2, 3, 40, 10**30, 0.5, -1e300, float("nan"), "", "BONDS", "T1", "SiLU", "frame", [], {}, [0, 1], [[0, -1, -1, -1]])


def check(data: bytes) -> bool | None:
    """Whether the importer takes an input; None if it is none."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or not isinstance(document.get("changes"), list):
        return None
    state_dict = dict(STATE_DICT)
    for change in document["changes"]:
        if not (isinstance(change, list) and len(change) == 2 and isinstance(change[0], int) and change[1] in list(CHANGES)):
            return None
        name = NAMES[change[0] % len(NAMES)]
        function = CHANGES[change[1]]
        if function is None:
            state_dict.pop(name, None)
        elif isinstance(state_dict.get(name), np.ndarray):
            state_dict[name] = function(state_dict[name])
    spec = document.get("spec")
    if not isinstance(spec, dict):
        return None
    try:
        FlowModel.from_bytes(model_file.pack(*bgflow.convert_state_dict(state_dict, spec)))
    except ValueError as error:
        assert str(error), "an error says what is wrong"
        return False
    return True


def places(document, path=()):
    """The paths to all values of a document."""
    yield path
    items = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Another document: values of the spec replaced, deleted, doubled or exchanged, and changes of tensors."""
    choice = random.Random(seed)
    try:
        document = json.loads(data)
        document["changes"], document["spec"]
    except (ValueError, TypeError, KeyError, RecursionError):
        document = {"spec": copy.deepcopy(SPEC), "changes": []}
    for _ in range(choice.randint(1, 3)):
        if choice.random() < 0.3 and isinstance(document["changes"], list):
            document["changes"] = [*document["changes"], [choice.randrange(len(NAMES)), choice.choice(list(CHANGES))]][-4:]
            continue
        path = choice.choice(list(places(document["spec"])))
        if not path:
            continue
        owner = document["spec"]
        for key in path[:-1]:
            owner = owner[key]
        what = choice.randrange(4)
        if what == 0:
            del owner[path[-1]]
        elif what == 1 and isinstance(owner, list):
            owner.insert(path[-1], copy.deepcopy(owner[path[-1]]))
        elif what == 2:
            other = document["spec"]
            for key in choice.choice(list(places(document["spec"]))):
                other = other[key]
            owner[path[-1]] = copy.deepcopy(other)
        else:
            value = owner[path[-1]]
            owner[path[-1]] = value + choice.choice((-1, 1)) if isinstance(value, int) and choice.random() < 0.5 else copy.deepcopy(choice.choice(VALUES))
    mutated = json.dumps(document).encode()
    return mutated if len(mutated) <= max_size else data


if FUZZING:
    # libFuzzer's own limit is the size of the largest seed; specs grow.
    atheris.Setup([*sys.argv, "-max_len=8192"], check, custom_mutator=mutate)
    atheris.Fuzz()
