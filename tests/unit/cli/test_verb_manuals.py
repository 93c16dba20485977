# SPDX-License-Identifier: GPL-2.0-or-later
"""man/dmabuf-tool*.1 name what there is: verbs, options, columns, JSON keys, checks."""

import importlib
import re
from pathlib import Path

import click
import pytest

from dmabuf_tool.cli.main import VERBS
from dmabuf_tool.kernel import checks, iommu
from dmabuf_tool.kernel.devices import Device
from dmabuf_tool.kernel.inventory import Buffer, Holder, Inventory, Source
from dmabuf_tool.kernel.machine import machine
from dmabuf_tool.probes import checks as probe_checks
from dmabuf_tool.render import devices, doctor
from dmabuf_tool.render import list as listing

MAN = Path(__file__).parents[3] / "man"
PAGES = ("list", "devices", "doctor")


def text(verb: str) -> str:
    return (MAN / f"dmabuf-tool-{verb}.1").read_text().replace("\\-", "-")


def section(verb: str, name: str) -> str:
    found = re.search(rf"^\.SH {name}\n((?:(?!\.SH ).*\n)*)", text(verb), re.MULTILINE)
    assert found
    return found[1]


def keys(verb: str, name: str) -> set[str]:
    """The first column of a section's tables, lists taken apart."""
    cells = re.findall(r"^([^|\n.]+)\|", section(verb, name), re.MULTILINE)
    return {key for cell in cells for key in cell.split(", ")} - {"key", "id", "tab("}


def words(verb: str, name: str) -> set[str]:
    return set(re.findall(r"[\w-]+", section(verb, name)))


def test_the_main_page_has_every_verb():
    page = (MAN / "dmabuf-tool.1").read_text()
    body = page.partition(".SH VERBS")[2].partition(".SH ")[0]
    assert set(re.findall(r"^\.TP\n\.B (\w+)$", body, re.MULTILINE)) == set(VERBS)


@pytest.mark.parametrize("verb", PAGES)
def test_every_option_is_described(verb):
    command: click.Command = importlib.import_module(f"dmabuf_tool.cli.{verb}").command
    options = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
    described = set(re.findall(r"(?<![\w-])--?[a-zA-Z][a-z-]*", section(verb, "OPTIONS")))
    assert described == options


def test_columns():
    assert keys("list", "COLUMNS") == {column.name for column in listing.COLUMNS["buffer"]}
    others = section("list", "COLUMNS")
    for columns in listing.COLUMNS.values():
        assert all(column.name in others for column in columns)
    assert keys("devices", "COLUMNS") == {column.name for column in devices.COLUMNS}


BUFFER = Buffer(1, 2, "a", None, 3, ("d",), (Holder(4, "b", (5,), 6, 7),), 8)
INVENTORY = Inventory(0, (BUFFER,), (), (Source("bufinfo", "ok", ""),), True)
DEVICE = Device(*("d", "pci", None, (), None, None, None, None, None, None), matters=True)


def test_json_of_list():
    document = listing.document(INVENTORY, machine())
    (buffer,) = document["buffers"]
    assert keys("list", "JSON") == set(document) | set(buffer)
    assert set(buffer["processes"][0]) <= words("list", "JSON")
    assert set(document["totals"]) <= words("list", "JSON")
    assert listing.SCHEMA in section("list", "JSON")


def test_json_of_devices():
    groups = {0: iommu.Group(0, "DMA", (), (iommu.Region(0, 1, "msi"),))}
    document = devices.document([DEVICE], groups, [], None, machine())
    assert keys("devices", "JSON") == set(document) | set(document["devices"][0])
    (group,) = document["iommu_groups"]
    assert {*group, *group["reserved_regions"][0]} <= words("devices", "JSON")
    assert devices.SCHEMA in section("devices", "JSON")


def test_json_of_doctor():
    document = doctor.document([checks.Check("x", "x", "ok", "")], machine())
    assert keys("doctor", "JSON") == set(document)
    assert set(document["checks"][0]) <= words("doctor", "JSON")
    assert doctor.SCHEMA in section("doctor", "JSON")


def test_every_check_is_described():
    ids = {check.id for check in (*checks.run(), *probe_checks.run())}
    named = {re.sub("^probe-.*", "probe-NAME", id_) for id_ in ids}
    named = {re.sub("^level2-.*", "level2-MODULE", id_) for id_ in named}
    assert named <= keys("doctor", "CHECKS")
