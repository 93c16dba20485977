# SPDX-License-Identifier: GPL-2.0-or-later
import io

import pytest

from dmabuf_tool.render.table import Column, Table, page, rich_page, text

COLUMNS = (
    Column("INO", "ino", 4, "inode", right=True),
    Column("NAME", "name", 6, "name"),
    Column("HELD BY", "processes", 8, "holders"),
)


def test_aligned_columns_without_blanks_at_the_end():
    drawn = text(Table(COLUMNS, [["7", "camera", "a[1]"], ["4711", "", ("b[2]", "c[3]")]]))
    assert drawn == (
        " INO  NAME    HELD BY\n   7  camera  a[1]\n4711          b[2]\n              c[3]\n"
    )


def test_wide_characters_are_aligned_by_cells():
    drawn = text(Table(COLUMNS, [["1", "画面", "x"], ["2", "abcd", "y"]]))
    assert drawn.splitlines()[1:] == ["  1  画面  x", "  2  abcd  y"]


def test_hostile_cells_are_made_safe_here():
    drawn = text(Table(COLUMNS, [["1", "\x1b[2J\n\u202e", "[bold]x"]]))
    assert drawn.isprintable() or drawn.replace("\n", "").isprintable()
    assert drawn.count("\n") == 2
    assert "\\x1b[2J\\x0a\\u202e" in drawn
    assert "[bold]x" in drawn


def test_nothing():
    assert text(Table(COLUMNS, [], "None.")) == "None.\n"
    assert page([Table(COLUMNS, [], "None."), "", "a\x1b"]) == "None.\n\na\\x1b\n"


def test_a_terminal_that_is_too_narrow_cuts_and_says_so():
    table = Table(COLUMNS, [["1", "a very long name", "a very long holder"]])
    assert "a very long name" in text(table, 80)
    cut = text(table, 30)
    assert all(len(line) <= 30 for line in cut.splitlines())
    assert "a ver~" in cut
    assert [line[13:] for line in text(table, 22).splitlines()[1:]] == [
        *("a very", "  long", "  holder"),  # the last column is folded
    ]
    assert "a very long name" in text(table)  # a pipe gets all of it


def test_rich_reads_no_markup():
    console = pytest.importorskip("rich.console")
    output = io.StringIO()
    terminal = console.Console(file=output, width=80, force_terminal=True, no_color=True)
    for part in rich_page([Table(COLUMNS, [["1", "[red]x[/red]\x1b[2J", "y"]]), "[bold]z"], 80):
        terminal.print(part)
    assert "[red]x[/red]\\x1b[2J" in output.getvalue()
    assert "[bold]z" in output.getvalue()
