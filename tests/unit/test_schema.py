# SPDX-License-Identifier: GPL-2.0-or-later
"""schema.py and bpf/events.h say the same thing: the compiler is asked."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from dmabuf_tool import schema

HEADER = Path(__file__).parents[2] / "bpf" / "events.h"
HEADER_FIELDS = [name for name in schema.EVENT.names or () if name != "words"]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Offsets, sizes and enum values as gcc sees them."""
    source = HEADER.read_text()
    probes = [
        'P("sizeof event", sizeof(struct event));',
        'P("sizeof chunk", sizeof(struct chunk_header));',
    ]
    probes += [f'P("{f}", __builtin_offsetof(struct event, {f}));' for f in HEADER_FIELDS]
    for payload, dtype in schema.VIEWS.items():
        if payload in ("words", "text"):
            members = [(payload, payload)]
        else:
            members = [(f, f"{payload}.{f}") for f in (dtype.names or ()) if f not in HEADER_FIELDS]
        for name, path in members:
            probes.append(f'P("{payload}.{name}", __builtin_offsetof(struct event, {path}));')
            probes.append(f'P("{payload}.{name} size", sizeof(((struct event *)0)->{path}));')
    for name in re.findall(r"\b((?:EV|EF)_[A-Z0-9_]+) = ", source):
        probes.append(f'P("{name}", {name});')
    probes += [
        f'P("{f}", __builtin_offsetof(struct chunk_header, {f[6:]}));'
        for f in ("chunk:mapping", "chunk:first", "chunk:count", "chunk:total")
    ]
    directory = tmp_path_factory.mktemp("schema")
    program = directory / "layout.c"
    program.write_text(
        f'#include <stdio.h>\n#include "{HEADER}"\n'
        '#define P(n, v) printf("%s\\"%s\\": %lld", first ? "" : ", ", n, (long long)(v)), '
        "first = 0\n"
        'int main(void) { int first = 1; printf("{");' + "\n".join(probes) + 'printf("}"); }\n'
    )
    subprocess.run(["gcc", "-o", directory / "layout", program], check=True)
    output = subprocess.run([directory / "layout"], check=True, capture_output=True, text=True)
    result: dict[str, int] = json.loads(output.stdout)
    return result


def test_event_size_and_header(layout: dict[str, int]) -> None:
    assert schema.EVENT.itemsize == layout["sizeof event"] == 112
    fields = schema.EVENT.fields or {}
    assert {f: fields[f][1] for f in HEADER_FIELDS} == {f: layout[f] for f in HEADER_FIELDS}


@pytest.mark.parametrize("payload", schema.VIEWS)
def test_payload(layout: dict[str, int], payload: str) -> None:
    dtype = schema.VIEWS[payload]
    assert dtype.itemsize == schema.EVENT.itemsize
    for name, (field, offset, *_) in (dtype.fields or {}).items():
        if name not in HEADER_FIELDS:
            assert offset == layout[f"{payload}.{name}"], name
            assert field.itemsize == layout[f"{payload}.{name} size"], name


def test_enums(layout: dict[str, int]) -> None:
    assert {f"EV_{k.name}": k.value for k in schema.Kind} == {
        k: v for k, v in layout.items() if k.startswith("EV_")
    }
    assert {f"EF_{k.name}": k.value for k in schema.Flag} == {
        k: v for k, v in layout.items() if k.startswith("EF_")
    }


def test_chunk_header_is_the_table_without_its_offset(layout: dict[str, int]) -> None:
    fields = schema.TABLE.fields or {}
    for name in ("mapping", "first", "count", "total"):
        assert fields[name][1] == layout[f"chunk:{name}"]
    assert layout["sizeof chunk"] == 16


def test_every_kind_has_a_payload() -> None:
    assert set(schema.PAYLOAD_OF) == set(schema.Kind)


def test_of_kind_gives_the_fields_of_the_kind() -> None:
    events = np.zeros(3, schema.EVENT)
    events["kind"] = [schema.Kind.MAP, schema.Kind.DEVICE, schema.Kind.MAP]
    events["words"][2][1] = 0xFFF00000
    maps = schema.of_kind(events, schema.Kind.MAP)
    assert maps["address"].tolist() == [0, 0xFFF00000]
