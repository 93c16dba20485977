# SPDX-License-Identifier: GPL-2.0-or-later
"""Findings as JSON objects: the same in `trace --format json` and in reports.

Keys are documented in dmabuf-tool-report(1), and only added within a schema version.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from dmabuf_tool.model.model import Model
from dmabuf_tool.model.objects import Buffer, Device
from dmabuf_tool.rules.base import Severity
from dmabuf_tool.rules.findings import Finding, evidence_of

SEVERITIES: Final = tuple(str(severity) for severity in Severity)
"""Names of severities, the least first."""

FINDING_KEYS: Final = {
    "id": "what it is: a name that dmabuf-tool explain knows",
    "severity": "info, warning or error",
    "title": "what was found, in one line with its numbers",
    "count": "how often: calls, mappings or objects of this cause",
    "first_ns": "CLOCK_MONOTONIC of the first time",
    "last_ns": "and of the last",
    "buffer": "id, ino, exporter, name and size of the worst case's buffer, or null",
    "device": "id, name and driver of the device, or null",
    "context": "id and kind of the address space, or null",
    "process": "pid and comm, or null",
    "evidence": "the numbers it rests on",
    "advice": "what to do",
}


def finding_object(finding: Finding, model: Model) -> dict[str, Any]:
    """One finding with the keys of FINDING_KEYS."""
    subject = finding.subject
    return {
        "id": finding.rule.id,
        "severity": str(finding.severity),
        "title": finding.told.title,
        "count": finding.count,
        "first_ns": finding.first_ns,
        "last_ns": finding.last_ns,
        "buffer": buffer_object(subject.buffer),
        "device": _device(subject.device),
        "context": context_object(subject.domain, model),
        "process": process_object(subject.tgid, model),
        "evidence": evidence_of(finding),
        "advice": finding.told.advice or finding.rule.advice,
    }


def finding_objects(findings: Iterable[Finding], model: Model) -> list[dict[str, Any]]:
    """All of them, in their order."""
    return [finding_object(finding, model) for finding in findings]


def process_object(tgid: int, model: Model) -> dict[str, Any] | None:
    """A process by its pid; None for none."""
    return {"pid": tgid, "comm": model.processes.comm(tgid)} if tgid else None


def buffer_object(buffer: Buffer | None) -> dict[str, Any] | None:
    """A buffer in short; None for none."""
    if buffer is None:
        return None
    return {
        "id": buffer.id,
        "ino": buffer.ino,
        "exporter": buffer.exporter,
        "name": buffer.name,
        "size": buffer.size,
    }


def _device(device: Device | None) -> dict[str, Any] | None:
    if device is None:
        return None
    return {"id": device.id, "name": device.name, "driver": device.driver}


def context_object(number: int, model: Model) -> dict[str, Any] | None:
    """A context in short; None where it is not known."""
    context = model.levels.contexts.find(number)
    if context is None:
        return None
    return {"id": context.id, "kind": context.kind}
