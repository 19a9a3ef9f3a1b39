# SPDX-License-Identifier: MIT
"""Specs and checkpoints changed at random: the importer gives a valid model or a ValueError that says why not, and nothing else."""
import copy
import importlib.util
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openmmflow import FlowModel, model_file
from openmmflow.importers import bgflow

torch = pytest.importorskip("torch", reason="bgflow's checkpoints are read by PyTorch")

from test_importers import SPEC, made_up_state_dict  # noqa: E402

MANY = settings(max_examples=300, deadline=None, derandomize=True)
STATE_DICT = made_up_state_dict()

values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 40) | st.floats() | st.sampled_from(["", "BONDS", "T1", "SiLU", "ü" * 70]),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.sampled_from(["size", "block", "on", "BONDS"]), children, max_size=2),
    max_leaves=4)


def places(document, path=()):
    """The paths to all values of a document."""
    yield path
    items = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def with_change(document, path, value, delete):
    """A copy of a document with one value replaced or deleted."""
    document = copy.deepcopy(document)
    owner = document
    for key in path[:-1]:
        owner = owner[key]
    if delete:
        del owner[path[-1]]
    else:
        owner[path[-1]] = value
    return document


def convert(state_dict, spec):
    """Whether the importer takes it; then it is a model."""
    try:
        contents = model_file.pack(*bgflow.convert_state_dict(state_dict, spec))
        FlowModel.from_bytes(contents)
    except ValueError as error:
        assert str(error)
        return False
    return True


@MANY
@given(st.sampled_from([path for path in places(SPEC) if path]), values, st.booleans())
def test_changed_specs(path, value, delete):
    convert(STATE_DICT, with_change(SPEC, path, value, delete))


@MANY
@given(st.sampled_from(sorted(STATE_DICT)), st.sampled_from(["delete", "scalar", "flat", "short", "nan", "inf", "integers", "text"]))
def test_changed_checkpoints(key, change):
    tensor = STATE_DICT[key]
    changed = {
        "delete": None, "scalar": torch.tensor(0.5), "flat": tensor.flatten(), "short": tensor[:-1] if tensor.ndim else tensor,
        "nan": torch.full_like(tensor, torch.nan), "inf": torch.full_like(tensor, torch.inf), "integers": tensor.int(), "text": "weights",
    }[change]
    state_dict = {name: changed if name == key else value for name, value in STATE_DICT.items()}
    if changed is None:
        del state_dict[key]
    convert(state_dict, SPEC)


def test_damaged_bytes(tmp_path, capsys):
    torch.save(STATE_DICT, tmp_path / "whole")
    contents = (tmp_path / "whole").read_bytes()
    randomness, accepted = random.Random(1), 0
    for _ in range(100):
        damaged = bytearray(contents)
        for _ in range(randomness.randint(1, 3)):
            # Most of a checkpoint are weights; what says how to read them is at its beginning and its end.
            place = randomness.choice([randomness.randrange(4000), randomness.randrange(len(damaged)), len(damaged) - 1 - randomness.randrange(3000)])
            damaged[place] = randomness.randrange(256)
        (tmp_path / "damaged").write_bytes(damaged)
        try:
            bgflow.convert_checkpoint(tmp_path / "damaged", SPEC)
            accepted += 1
        except ValueError as error:
            assert str(error)
    print(f"{accepted} of 100 damaged checkpoints could be read: weights have no checksum there")


def test_corpus():
    """What coverage-guided fuzzing found, without Atheris."""
    folder = Path(__file__).parents[1] / "fuzz"
    module = importlib.util.spec_from_file_location("fuzz_importer", folder / "fuzz_importer.py")
    fuzz_importer = importlib.util.module_from_spec(module)
    module.loader.exec_module(fuzz_importer)
    results = [fuzz_importer.check(path.read_bytes()) for path in sorted((folder / "corpus" / "importer").iterdir())]
    print(f"{results.count(True)} inputs are models, {results.count(False)} are refused")
    assert None not in results and True in results and False in results
