# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes the parts of dmabuf-tool-report(1) that are data: findings and JSON keys.

python3 tests/unit/render/report_page.py     # after a rule or a key was added
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from dmabuf_tool.render.history import ADDRESS_KEYS, FAULT_KEYS, HISTORY_KEYS
from dmabuf_tool.render.report_keys import DOCUMENT_KEYS, PARTS
from dmabuf_tool.rules.base import GROUPS
from dmabuf_tool.rules.registry import rules

PAGE = Path(__file__).parents[3] / "man" / "dmabuf-tool-report.1"


def roff(text: str) -> str:
    """Text as roff, one sentence a line."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    text = re.sub(r"([.?!]) (?=[A-Z])", r"\1\n", text)
    return "\n".join("\\&" + line if line[:1] in ".'" else line for line in text.split("\n"))


def findings() -> str:
    """The list of findings, by group."""
    out = []
    for letter, title in GROUPS.items():
        chosen = [rule for rule in rules() if rule.group == letter]
        if not chosen:
            continue
        out.append(f".SS {title.capitalize()}")
        for rule in chosen:
            out += [".TP", f".B {roff(rule.id)}", f"({rule.severity} at worst)", roff(rule.holds)]
    return "\n".join(out)


def keys(parts: Mapping[str, Mapping[str, str]]) -> str:
    """The tables of keys; the document's own under ""."""
    out = []
    for name, table in parts.items():
        of = f"{name}: each has" if name and name != "losses" else name
        out += [".PP", f"{of}:" if of.endswith("has") else f"{of or 'The document'} has:"]
        out += [".TS", "tab(|);", "lb lx."]
        out += [f"{key}|T{{\n{roff(text)}\nT}}" for key, text in table.items()]
        out.append(".TE")
    return "\n".join(out).replace("each has:", "each has")


def fill(text: str) -> str:
    """The page with the data put between its marks."""
    address = {"": ADDRESS_KEYS, "history": HISTORY_KEYS, "faults": FAULT_KEYS}
    bodies = {
        "findings": findings(),
        "keys": keys({"": DOCUMENT_KEYS, **PARTS}),
        "address": keys(address),
    }
    for mark, body in bodies.items():
        text = re.sub(
            rf'(\.\\" begin {mark}\n).*?(\.\\" end {mark}\n)',
            lambda match, body=body: f"{match[1]}{body}\n{match[2]}",
            text,
            flags=re.DOTALL,
        )
    return text


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text()))
