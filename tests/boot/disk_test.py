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
        self.assertEqual(output, "sector one\nwritten\n")
        self.assertTrue(sector.startswith(b"sector one\n\0"), sector)

    def test_hda_is_the_same_disk(self):
        self.assertEqual(self.boot(None)[0], "sector one\nwritten\n")

    def test_cache_modes(self):
        for mode in ("none", "writethrough", "directsync", "unsafe"):
            with self.subTest(mode):
                self.assertTrue(self.boot(f"cache={mode}")[1].startswith(b"sector one\n\0"))

    def test_snapshot_leaves_the_image_alone(self):
        output, sector = self.boot("snapshot=on")
        self.assertEqual(output, "sector one\nwritten\n")
        self.assertEqual(sector, bytes(512))


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
