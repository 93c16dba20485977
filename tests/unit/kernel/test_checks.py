# SPDX-License-Identifier: GPL-2.0-or-later
import pytest
from tree import BUFINFO_6_1, write

from dmabuf_tool.kernel import bufinfo, checks, distribution
from dmabuf_tool.kernel.checks import DEGRADED, MISSING, OK, Check


def _status(text):
    return f"Name:\tpython3\nCapEff:\t{text}\nCapBnd:\t000001ffffffffff\n"


@pytest.mark.parametrize(
    ("mask", "status"),
    [
        ("000001ffffffffff", OK),
        ("0000000000000000", MISSING),
        ("000000c000000000", DEGRADED),  # CAP_PERFMON and CAP_BPF: no stacks, no others' files
        ("0000008000000000", MISSING),  # CAP_BPF alone
    ],
)
def test_privileges(tmp_path, mask, status):
    write(tmp_path, "proc/self/status", _status(mask))
    check = checks.privileges(tmp_path)
    assert (check.status, check.needed) == (status, "privilege")
    assert bool(check.fix) == (status != OK)


def test_dma_buf(tmp_path):
    assert checks.core(tmp_path).status == DEGRADED
    write(tmp_path, "proc/kallsyms", "ffffffff81a42050 T dma_buf_put\n")
    assert checks.core(tmp_path).status == MISSING
    write(tmp_path, "proc/kallsyms", "0000000000000000 T dma_buf_dynamic_attach\n")
    assert checks.core(tmp_path).status == OK


def test_types(tmp_path):
    assert checks.types(tmp_path).status == MISSING
    write(tmp_path, "sys/kernel/btf/vmlinux", b"\x9f\xeb\x01")
    assert checks.types(tmp_path).status == OK


@pytest.mark.parametrize(
    ("text", "status", "detail"),
    [
        ("[none] integrity confidentiality\n", OK, "none"),
        ("none [integrity] confidentiality\n", OK, "integrity"),
        ("none integrity [confidentiality]\n", MISSING, "confidentiality"),
    ],
)
def test_lockdown(tmp_path, text, status, detail):
    write(tmp_path, "sys/kernel/security/lockdown", text)
    check = checks.lockdown(tmp_path)
    assert (check.status, check.detail) == (status, detail)


def test_lockdown_is_unknown_without_securityfs(tmp_path):
    assert checks.lockdown(tmp_path).status == OK
    (tmp_path / "sys/kernel/security").mkdir(parents=True)
    assert "mount" in checks.lockdown(tmp_path).fix


def test_addresses(tmp_path):
    assert checks.addresses(tmp_path).status == DEGRADED
    write(tmp_path, "proc/kallsyms", "0000000000000000 T dma_buf_export\n")
    assert "kptr_restrict" in checks.addresses(tmp_path).fix
    write(tmp_path, "proc/kallsyms", "ffffffff81a42050 T dma_buf_export\n")
    assert checks.addresses(tmp_path).status == OK


def test_file_systems(tmp_path):
    assert "tracefs" in checks.tracefs(tmp_path).fix
    (tmp_path / "sys/kernel/debug").mkdir(parents=True)
    assert "debugfs" in checks.debugfs(tmp_path).fix
    assert "debugfs" in checks.swiotlb(tmp_path).fix
    (tmp_path / "sys/kernel/tracing/events").mkdir(parents=True)
    write(tmp_path, bufinfo.PATH, BUFINFO_6_1)
    assert checks.tracefs(tmp_path).status == OK
    assert "2 buffers" in checks.debugfs(tmp_path).detail
    assert checks.swiotlb(tmp_path).detail == "not in this kernel"
    write(tmp_path, "sys/kernel/debug/swiotlb/io_tlb_nslabs", "32768\n")
    assert checks.swiotlb(tmp_path).detail.startswith("64.0 MiB")


def test_iommu(tmp_path):
    assert checks.iommus(tmp_path).status == DEGRADED
    write(tmp_path, "sys/class/iommu/dmar0/uevent")
    write(tmp_path, "sys/kernel/iommu_groups/0/type", "DMA-FQ\n")
    assert checks.iommus(tmp_path).detail == "dmar0; 1 groups: DMA-FQ"


def test_every_failed_check_names_a_fix(tmp_path, monkeypatch):
    monkeypatch.setattr(
        distribution, "bcc_version", lambda: distribution.Found(None, "not installed")
    )
    found = checks.run(tmp_path)
    assert len({check.id for check in found}) == len(found) == len(checks.CHECKS)
    assert all(check.fix for check in found if check.status != OK)


def test_requirements():
    def check(status, needed):
        return Check("x", "x", status, "", needed=needed)

    assert checks.missing_requirements([check(MISSING, "")]) == []
    assert checks.missing_requirements([check(DEGRADED, "bcc")]) == []
    # One way to attach is enough.
    assert checks.missing_requirements([check(MISSING, "attach"), check(OK, "attach")]) == []
    assert checks.missing_requirements([check(OK, "bcc"), check(MISSING, "privilege")]) == [
        checks.REQUIREMENTS["privilege"]
    ]


@pytest.mark.parametrize(
    ("release", "fix"),
    [
        ('ID=debian\nVERSION_ID="12"\n', "apt install python3-bpfcc"),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\n', "apt install python3-bpfcc"),
        ("ID=fedora\n", "dnf install python3-bcc"),
        ('ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"\n', "zypper install python3-bcc"),
        ("ID=arch\n", "pacman -S python-bcc"),
    ],
)
def test_the_package_of_bcc(tmp_path, release, fix):
    write(tmp_path, "etc/os-release", release)
    assert distribution.bcc_fix(tmp_path) == fix


def test_an_unknown_distribution_gets_all_names(tmp_path):
    assert "python3-bpfcc" in distribution.bcc_fix(tmp_path)
    assert "python-bcc" in distribution.bcc_fix(tmp_path)


def test_the_bcc_of_pypi_is_told_apart(monkeypatch, tmp_path):
    write(tmp_path, "bcc.py", "__version__ = '1'\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = distribution.bcc_version()
    assert (found.version, found.fix) == (None, "pip uninstall bcc; then again")


def test_a_broken_bcc_is_told(monkeypatch, tmp_path):
    write(tmp_path, "bcc.py", "raise OSError('libbcc.so.0: cannot open shared object file')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "libbcc.so.0" in distribution.bcc_version().problem
