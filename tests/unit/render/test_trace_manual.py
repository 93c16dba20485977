# SPDX-License-Identifier: GPL-2.0-or-later
"""man/dmabuf-tool-trace.1 says what the code does: options, columns, JSON keys, events."""

import re
from pathlib import Path

import click

from dmabuf_tool.cli import trace
from dmabuf_tool.render.faults import ATTRIBUTION_KEYS
from dmabuf_tool.render.jsonlines import EXTRA_KEYS, KEYS, PAYLOAD_KEYS, SCHEMA
from dmabuf_tool.render.lines import COLUMNS
from dmabuf_tool.render.names import EVENT_NAMES
from dmabuf_tool.schema import PAYLOAD_OF

PAGE = Path(__file__).parents[3] / "man" / "dmabuf-tool-trace.1"
TEXT = PAGE.read_text()


def tables() -> list[list[tuple[str, str]]]:
    """The tables of the page: rows of two cells, the head first."""
    found = []
    for body in re.findall(r"^\.TS\n.*\n.*\n((?:.*\n)*?)\.TE", TEXT, re.MULTILINE):
        joined = re.sub(
            r"T\{\n((?:.*\n)*?)T\}", lambda m: m[1].strip().replace("\n", " "), body
        ).replace("\\-", "-")
        found.append([(row.split("|")[0], row.split("|")[1]) for row in joined.splitlines()])
    return found


def table(head: str, number: int = 0) -> dict[str, str]:
    return dict([rows for rows in tables() if rows[0][0] == head][number][1:])


def test_columns() -> None:
    assert table("column") == {
        column.name: column.description + (f", {column.unit}" if column.unit else "")
        for column in COLUMNS
    }


def test_json_keys() -> None:
    assert list(table("key").items()) == list(KEYS.items())
    assert table("key", 1) == EXTRA_KEYS
    assert table("key", 2) == ATTRIBUTION_KEYS
    assert table("group", 1) == {
        payload: ", ".join(key for key, _ in keys) for payload, keys in PAYLOAD_KEYS.items()
    }
    assert f'"schema" is "{SCHEMA}"' in TEXT


def test_events() -> None:
    events = {group: set(names.split(", ")) for group, names in table("group").items()}
    assert events == {
        payload: {name for kind, name in EVENT_NAMES.items() if PAYLOAD_OF[kind] == payload}
        for payload in PAYLOAD_KEYS
    }


def test_options() -> None:
    section = TEXT[TEXT.index(".SH OPTIONS") : TEXT.index(".SH LINES")].replace("\\-", "-")
    documented = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", section))
    options = [one for one in trace.command.params if isinstance(one, click.Option)]
    names = {name for one in options for name in one.opts}
    assert {name for name in names if name.startswith("--")} == documented - {"--help"}
    for one in options:
        short = next((name for name in one.opts if not name.startswith("--")), None)
        if short:
            assert re.search(rf"^\.BR {short} .* {one.opts[-1]}( |$)", section, re.MULTILINE), short
        if isinstance(one.type, click.Choice) and one.name == "output_format":
            assert all(f"{choice}" in section for choice in one.type.choices)
