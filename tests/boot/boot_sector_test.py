"""The example ROM of roms/hello.asm, and small machines built the same way."""

import pathlib
import subprocess
import tempfile
import unittest

import machine

EXIT = ("-device", "isa-debug-exit,iobase=0xf4,iosize=0x4")


class HelloRom(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.rom = cls.folder / "hello.rom"
        subprocess.run(["nasm", "-f", "bin", "-o", cls.rom, machine.REPO / "roms" / "hello.asm"], check=True)

    def test_is_under_60_lines(self):
        self.assertLess(len((machine.REPO / "roms" / "hello.asm").read_text().splitlines()), 60)

    def test_prints_and_exits(self):
        console = self.folder / "debug"
        status, output, errors = machine.run(
            machine.command_line(
                *("-bios", self.rom, "-m", "16M", "-nographic", *EXIT),
                *("-chardev", f"file,id=debug,path={console}", "-device", "isa-debugcon,iobase=0xe9,chardev=debug"),
            ),
            30,
        )
        self.assertEqual((status, errors), (33, ""))
        self.assertEqual(output, "Hello from the reset vector\n")
        self.assertEqual(console.read_bytes(), b"Hello from the reset vector\r\n")

    def test_serial_file(self):
        log = self.folder / "serial"
        status, _, errors = machine.run(
            machine.command_line("-bios", self.rom, "-m", "16M", "-nographic", "-serial", f"file:{log}", *EXIT), 30
        )
        self.assertEqual((status, errors), (33, ""))
        self.assertEqual(log.read_bytes(), b"Hello from the reset vector\r\n")
