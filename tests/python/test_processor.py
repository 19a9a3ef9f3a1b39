# SPDX-License-Identifier: MIT
"""One core for a small simulation."""
import os
import threading

import openmmflow
import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not schedule by affinity")


def scheduling():
    return os.sched_getaffinity(0), os.sched_getscheduler(0)


def test_core_and_policy_are_for_the_block_and_its_threads():
    before = scheduling()
    seen = []
    with openmmflow.one_core() as core:
        thread = threading.Thread(target=lambda: seen.append(scheduling()))
        thread.start()
        thread.join()
        seen.append(scheduling())
    expected = {core}, os.SCHED_BATCH if before[1] == os.SCHED_OTHER else before[1]
    assert seen == [expected, expected]
    assert scheduling() == before


def test_everything_is_put_back_after_an_error():
    before = scheduling()
    with pytest.raises(ValueError), openmmflow.one_core():
        raise ValueError
    assert scheduling() == before
