"""Machines that boot what they find on their own drives: SeaBIOS, a boot sector, GRUB's rescue disc."""

import pathlib
import shutil
import subprocess
import tempfile
import time
import unittest

import machine

EXIT = ("-device", "isa-debug-exit,iobase=0xf4,iosize=0x4")
RESCUE_DISC = pathlib.Path("/usr/lib/grub-rescue/grub-rescue-cdrom.iso")

# The BIOS sends to the serial port what it put on the screen when it has time, perhaps in between.
TOLD = r"^sector one\n\.*\n?written\n$"


class RawDisk(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.original = cls.folder / "original.img"
        source = machine.REPO / "tests" / "boot" / "disk" / "sector.asm"
        subprocess.run(["nasm", "-f", "bin", "-o", cls.original, source], check=True)

    def boot(self, drive):
        """Boots a copy of the disk and returns what it said and the sector that it writes."""
        image = self.folder / "disk.img"
        shutil.copy(self.original, image)
        options = ("-hda", image) if drive is None else ("-drive", f"file={image},format=raw,{drive}")
        status, output, errors = machine.run(
            machine.command_line(*options, "-m", "16M", "-nographic", "-no-reboot", *EXIT), 60
        )
        self.assertEqual(status, 33, errors + output)
        return output[output.find("sector one") :], image.read_bytes()[1024:1536]

    def test_boot_sector_reads_and_writes(self):
        output, sector = self.boot("if=ide")
        self.assertRegex(output, TOLD)
        self.assertTrue(sector.startswith(b"sector one\n\0"), sector)

    def test_hda_is_the_same_disk(self):
        self.assertRegex(self.boot(None)[0], TOLD)

    def test_cache_modes(self):
        for mode in ("none", "writethrough", "directsync", "unsafe"):
            with self.subTest(mode):
                self.assertTrue(self.boot(f"cache={mode}")[1].startswith(b"sector one\n\0"))

    def test_snapshot_leaves_the_image_alone(self):
        output, sector = self.boot("snapshot=on")
        self.assertRegex(output, TOLD)
        self.assertEqual(sector, bytes(512))


def ending_sector(code):
    """A boot sector that ends the machine with the status 2 * code + 1."""
    return (bytes([0xB0, code, 0xE6, 0xF4, 0xF4]).ljust(510, b"\0") + b"\x55\xaa")


def bootable_disc(sector):
    """By El Torito, without emulation."""
    block = 2048
    record = bytearray(b"\0CD001\x01EL TORITO SPECIFICATION".ljust(block, b"\0"))
    record[0x47:0x4B] = (19).to_bytes(4, "little")
    catalog = bytearray(block)
    catalog[0], catalog[0x1E:0x20], catalog[0x20] = 1, b"\x55\xaa", 0x88
    catalog[0x1C:0x1E] = (-sum(int.from_bytes(catalog[i : i + 2], "little") for i in range(0, 32, 2)) & 0xFFFF).to_bytes(2, "little")
    catalog[0x26:0x28] = (4).to_bytes(2, "little")
    catalog[0x28:0x2C] = (20).to_bytes(4, "little")
    primary, last = b"\x01CD001\x01".ljust(block, b"\0"), b"\xffCD001\x01".ljust(block, b"\0")
    return bytes(16 * block) + primary + bytes(record) + last + bytes(catalog) + sector.ljust(block, b"\0") + bytes(64 * block)


class BootOrder(unittest.TestCase):
    DEVICES = ("ide-hd,bus=ide.0,unit=0", "virtio-blk-pci", "ide-cd,bus=ide.0,unit=1", "ide-hd,bus=ahci.0")
    if machine.IS_PENUMBRA:
        DEVICES += ("floppy",)  # QEMU's has the property at its controller

    def test_the_lowest_bootindex_is_booted(self):
        with tempfile.TemporaryDirectory() as name:
            drives = []
            for code, device in enumerate(self.DEVICES):
                sector = ending_sector(code)
                image = pathlib.Path(name) / f"{code}.img"
                image.write_bytes(bootable_disc(sector) if device.startswith("ide-cd") else sector.ljust(1474560, b"\0"))
                media = ",media=cdrom" if device.startswith("ide-cd") else ""
                drives += ["-drive", f"if=none,id=d{code},file={image},format=raw{media}"]
            for first in range(len(self.DEVICES)):
                with self.subTest(self.DEVICES[first]):
                    options = [*drives, "-device", "ich9-ahci,id=ahci"]
                    for code, device in enumerate(self.DEVICES):
                        index = (code - first) % len(self.DEVICES) + 1
                        options += ["-device", f"{device},drive=d{code},bootindex={index}"]
                    command = machine.command_line(*options, "-m", "16M", "-nographic", "-no-reboot", "-nic", "none", *EXIT)
                    status, output, errors = machine.run(command, 60)
                    self.assertEqual(status, 2 * first + 1, errors + output)


    def test_the_second_drive_of_a_channel_is_there(self):
        with tempfile.TemporaryDirectory() as name:
            first, second = pathlib.Path(name) / "a.img", pathlib.Path(name) / "b.img"
            first.write_bytes(bytes(1 << 20))
            second.write_bytes(ending_sector(7).ljust(1 << 20, b"\0"))
            options = ["-drive", f"file={first},format=raw", "-drive", f"if=none,id=b,file={second},format=raw"]
            options += ["-device", "ide-hd,drive=b,bus=ide.0,unit=1,bootindex=0"]
            status, output, errors = machine.run(
                machine.command_line(*options, "-m", "16M", "-nographic", "-no-reboot", "-nic", "none", *EXIT), 60
            )
            self.assertEqual(status, 15, errors + output)


class Disc(unittest.TestCase):
    @unittest.skipUnless(RESCUE_DISC.exists(), "Debian's package grub-rescue-pc is not installed")
    def test_grub_comes_to_its_prompt(self):
        command = machine.command_line("-cdrom", RESCUE_DISC, "-m", "256M", "-nographic", "-no-reboot")
        with machine.Terminal(command) as terminal:
            terminal.expect("command-line", 60)
            terminal.send("c")
            terminal.expect("grub>", 30)
            terminal.send("ls\r")
            terminal.expect(r"\(cd\)", 30)
            for letter in "cat (cd)/boot/grub/grub.cfg\r":  # the BIOS keeps 15 keys
                terminal.send(letter)
                time.sleep(0.05)
            terminal.expect("Change the colors", 30)
