"""Machines that boot from a diskette, Linux' driver, and media that a person takes out and changes."""

import pathlib
import shutil
import subprocess
import tempfile
import unittest

import machine
import monitor
from network_test import in_order

EXIT = ("-device", "isa-debug-exit,iobase=0xf4,iosize=0x4")
RESCUE = pathlib.Path("/usr/lib/grub-rescue/grub-rescue-floppy.img")
FORMATS = {360: (40, 2, 9), 720: (80, 2, 9), 1200: (80, 2, 15), 1440: (80, 2, 18), 2880: (80, 2, 36)}


class Floppies(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def assemble(self, size):
        image = self.folder / f"{size}.img"
        cylinders, heads, sectors = FORMATS[size]
        defines = (f"-DCYLINDERS={cylinders}", f"-DHEADS={heads}", f"-DSECTORS={sectors}")
        source = machine.REPO / "tests" / "boot" / "disk" / "floppy.asm"
        subprocess.run(["nasm", "-f", "bin", *defines, "-o", image, source], check=True)
        return image


class BootSector(Floppies):
    def test_every_format(self):
        for size in FORMATS:
            with self.subTest(size):
                image = self.assemble(size)
                options = ("-fda", image) if size == 1440 else ("-drive", f"if=floppy,file={image},format=raw")
                status, output, errors = machine.run(
                    machine.command_line(*options, "-m", "16M", "-nographic", "-no-reboot", *EXIT), 60
                )
                self.assertEqual(status, 33, errors + output)
                # Firmware sends what it put on the screen when it has time, perhaps in between.
                self.assertRegex(output, r"sector five\n\.*\n?written\n$")
                _, heads, sectors = FORMATS[size]
                at = ((2 * heads + 1) * sectors + 4) * 512
                self.assertTrue(image.read_bytes()[at : at + 512].startswith(b"sector five\n\0"))


@unittest.skipUnless(RESCUE.exists(), "Debian's package grub-rescue-pc is not installed")
@unittest.skipUnless(machine.IS_PENUMBRA, "QEMU's monitor tells no text")
class Grub(Floppies):
    def test_comes_to_its_prompt(self):
        vmm = monitor.Vmm(self.folder, "-drive", f"if=floppy,file={RESCUE},format=raw,readonly=on", "-m", "64M", "-serial", "null")
        self.addCleanup(vmm.__exit__)
        vmm.wait_screen("GNU GRUB", 120)
        vmm.monitor("sendkey c")
        vmm.wait_screen("grub>", 60)
        for key in ("l", "s", "ret"):
            vmm.monitor(f"sendkey {key}")
        vmm.wait_screen(r"\(fd0\)", 60)


class Linux(Floppies):
    """The floppy driver of Debian's general kernels."""

    SCRIPT = """
    for device in /sys/bus/pnp/devices/*; do grep -q PNP0700 $device/id && cat $device/resources; done
    insmod /floppy.ko
    tries=0; while [ ! -b /dev/fd0 ] && [ $tries -lt 50 ]; do sleep 0.1; tries=$((tries + 1)); done
    dmesg | grep -i -e fdc -e floppy
    dd if=/dev/fd0 bs=18k 2>/dev/null | md5sum
    dd if=/numbers of=/dev/fd0 bs=18k 2>/dev/null && sync
    echo 3 > /proc/sys/vm/drop_caches
    cmp /numbers /dev/fd0 && echo the same
    """

    def test_reads_and_writes(self):
        for guest in machine.guests():
            modules = machine.CACHE / "guests" / guest / "modules"
            if not (modules / "vmlinuz").exists():
                self.skipTest("roms/guests/modules fetches the guests' modules")
            with self.subTest(guest):
                image = self.folder / "disk.img"
                image.write_bytes(bytes(i * 7 % 251 for i in range(1474560)))
                before = subprocess.run(["md5sum"], input=image.read_bytes(), capture_output=True).stdout.decode().split()[0]
                root = self.folder / guest
                root.mkdir()
                self.assertEqual(in_order(modules, ["floppy"]), ["floppy"])
                shutil.copy(modules / "floppy.ko", root)
                numbers = "".join(f"{i}\n" for i in range(300000)).encode()[:1474560]
                (root / "numbers").write_bytes(numbers)
                (self.folder / "script").write_text(self.SCRIPT)
                machine.build_initrd(guest, self.folder / "script", self.folder / "initrd.gz", [root])
                command = machine.command_line(
                    *("-kernel", modules / "vmlinuz", "-initrd", self.folder / "initrd.gz", "-append", "console=ttyS0"),
                    *("-m", "512M", "-nographic", "-no-reboot", "-drive", f"if=floppy,file={image},format=raw"),
                )
                status, output, errors = machine.run(command, 180)
                self.assertEqual(status, 0, errors + output)
                self.assertIn("io 0x3f2-0x3f5\nio 0x3f7-0x3f7\nirq 6\ndma 2\n", output)  # as ACPI tells
                self.assertIn("FDC 0 is a post-1991 82077", output)
                self.assertIn(before, output)
                self.assertIn("the same", output)
                self.assertEqual(image.read_bytes(), numbers)
