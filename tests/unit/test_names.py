# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of tests have names of their own: pytest collects several directories in one call."""

from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_no_two_files_of_tests_have_one_name() -> None:
    names = Counter(path.name for path in TESTS.rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
