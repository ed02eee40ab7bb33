"""Which tests stay together, and which begin, when they run in several processes (`-n`)."""

from __future__ import annotations

import pytest
from xdist.scheduler import LoadScopeScheduling

# Long ones first, so that nothing long is left when one process has run out of work. Tests of one
# folder here share servers, which are started once; all other files are by themselves.
FIRST = (
    "tests/provider",
    "tests/unit/steps",
    "tests/manifests/test_admission.py",
    "tests/manifests",
    "bentos/flight_delay/tests",
    "tests/unit/check/test_check.py",
    "tests/unit/check/test_gates_step.py",
)


def together(nodeid: str) -> str:
    return next((name for name in FIRST if nodeid.startswith(name)), nodeid.split("::")[0])


class Scheduling(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return together(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Scheduling:
    config.option.loadscopereorder = False
    return Scheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    def turn(item: pytest.Item) -> int:
        name = together(item.nodeid)
        return FIRST.index(name) if name in FIRST else len(FIRST)

    items.sort(key=turn)
