"""Which tests stay together, and which begin, when they run in several processes (`-n`)."""

from __future__ import annotations

import gc

import pytest
from xdist.scheduler import LoadScopeScheduling

# Tests of one line share what takes long to make: a server, a run of infra/. All other files are by
# themselves. Long ones first, so that nothing long is left when one process has run out of work.
TOGETHER = (
    ("tests/provider/",),
    (
        *("tests/manifests/test_platform", "tests/manifests/test_events"),
        *("tests/manifests/test_chart", "tests/manifests/test_claims"),
        *("tests/unit/infra/", "tests/unit/aws/", "tests/unit/simulation/"),
    ),
    ("tests/unit/steps/",),
    ("tests/manifests/test_admission",),
    ("tests/unit/test_statistics",),
    ("tests/unit/test_scaffold",),
    ("bentos/",),
)


def together(nodeid: str) -> str:
    line = next((line for line in TOGETHER if nodeid.startswith(line)), (nodeid.split("::")[0],))
    return line[0]


class Scheduling(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return together(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Scheduling:
    config.option.loadscopereorder = False
    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    turns = {line[0]: turn for turn, line in enumerate(TOGETHER)}
    items.sort(key=lambda item: turns.get(together(item.nodeid), len(turns)))


def pytest_collection_finish() -> None:
    """What is loaded by now stays; to walk it again and again takes a tenth of the time."""
    gc.collect()
    gc.freeze()
