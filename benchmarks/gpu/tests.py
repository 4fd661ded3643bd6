"""Part 1: the tests that need a GPU, and nothing else of the files they stand in. A row a test, as it ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from gpu.part import Part

ROOT = Path(__file__).parent.parent.parent


class Reporter:
    """Hands pytest's reports on to the part's rows."""

    def __init__(self, part: Part) -> None:
        self.part = part

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            with self.part.case("tests", test=report.nodeid, when=report.when) as row:
                row.update(outcome=report.outcome, seconds=report.duration)
                if report.failed:
                    row["failed"] = report.longreprtext[-600:]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            with self.part.case("tests", test=report.nodeid, when="collect") as row:
                row.update(outcome="failed", failed=report.longreprtext[-600:])


def main() -> None:
    part = Part("tests")
    os.chdir(ROOT)
    files = [str(path) for path in sorted(Path("tests").rglob("test_*.py")) if "mark.gpu" in path.read_text(encoding="utf-8")]
    # Another PyTorch than the one that is developed with may warn of something: that is worth reading, but no failure here.
    # Shapes are checked by jaxtyping where nothing is imported before pytest begins; here this script has imported some.
    options = ["-m", "gpu", "-W", "default", "-rs", "-p", "no:cacheprovider", "--continue-on-collection-errors", "--jaxtyping-packages="]
    sys.exit(pytest.main([*options, *files], plugins=[Reporter(part)]))


if __name__ == "__main__":
    main()
