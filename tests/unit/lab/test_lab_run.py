# SPDX-License-Identifier: GPL-2.0-or-later
"""The runner's arguments, QEMU's command line, and the list of kernels."""

from pathlib import Path

import pytest
from vm import cli, image, qemu
from vm.kernels import KERNELS

MACHINE = qemu.Machine(
    arch="amd64",
    kernel=Path("/cache/vmlinuz"),
    initrd=Path("/cache/initrd"),
    disk=Path("/cache/disk.img"),
    project=Path("/project"),
)


def argv(**changes: object) -> list[str]:
    machine = qemu.Machine(**{**vars(MACHINE), **changes})  # type: ignore[arg-type]
    return qemu.command(machine, 3, (4, 5, 6))


def test_devices_have_an_iommu_and_fixed_addresses() -> None:
    command = argv()
    assert command[0] == "qemu-system-x86_64"
    assert "intel-iommu,intremap=on" in command
    assert "edu,dma_mask=0xffffffff,addr=0x03" in command
    assert "intel_iommu=on" in command[command.index("-append") + 1]
    assert "virt,iommu=smmuv3,gic-version=3" in argv(arch="arm64")


def test_nothing_is_written_but_the_share() -> None:
    command = argv(share=Path("/a,b"))
    (project, share) = [option for option in command if option.startswith("local,")]
    assert "readonly=on" in project
    assert share.startswith("local,path=/a,,b,mount_tag=share") and "readonly" not in share
    assert any("snapshot=on" in option for option in command)


def test_icount_is_one_cpu_without_kvm() -> None:
    command = argv(icount=True, kvm=True, cpus=4)
    assert "tcg,thread=single" in command and "kvm" not in command
    assert command[command.index("-smp") + 1] == "1"


def test_more_arguments_come_last() -> None:
    assert argv(more=("-device", "edu"), append="foo=1")[-2:] == ["-device", "edu"]


def test_images_are_keyed_by_kernel_and_kept_in_the_cache(own_cache: Path) -> None:
    places = {image.image_of(kernel).place for kernel in KERNELS.values()}
    assert len(places) == len(KERNELS)
    assert all(place.parent == own_cache / "images" for place in places)


def test_list_shows_every_kernel_and_what_is_built(capsys: pytest.CaptureFixture[str]) -> None:
    built = image.image_of(KERNELS["6.1"]).place
    built.mkdir(parents=True)
    (built / "meta.json").write_text('{"release": "6.1.0-56-amd64"}')
    assert cli.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(KERNELS)
    assert "6.1.0-56-amd64" in lines[0]
    assert all(line.endswith("not built") for line in lines[1:])


def test_the_command_is_what_follows_the_dashes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(cli, "run", lambda args: seen.append(args) or 0)
    assert cli.main(["--kernel", "7.2", "--", "sh", "-c", "exit 7", "--", "--list"]) == 0
    assert seen[0].kernel == "7.2"
    assert seen[0].command == ["sh", "-c", "exit 7", "--", "--list"]


def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--share", "/nonexistent", "--", "true"]) == cli.STATUS_LAB
    assert cli.main(["--build", "5.10"]) == cli.STATUS_LAB
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.startswith("lab: ") for line in lines)
    with pytest.raises(SystemExit, match="2"):
        cli.main(["--kernel", "7.2"])
