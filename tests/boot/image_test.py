"""Kernels in the formats that QEMU's -kernel knows, made from images/NAME.asm: what they were told and how they started."""

import pathlib
import subprocess
import tempfile
import unittest

import machine

SOURCES = pathlib.Path(__file__).resolve().parent / "images"
EXIT = ("-device", "isa-debug-exit,iobase=0xf4,iosize=0x4")
STATE = """\
.bss 00000000
paging and protection 00000001
VM and IF 00000000
CS limit FFFFFFFF
SS limit FFFFFFFF
ES limit FFFFFFFF
A20 00000001
"""


class Images(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        (cls.folder / "one").write_text("the first module\n")
        (cls.folder / "two").write_text("the second module\n")

    def report(self, name, *options):
        """What the kernel prints."""
        subprocess.run(
            ["nasm", "-f", "bin", "-I", f"{SOURCES}/", "-o", self.folder / name, SOURCES / f"{name}.asm"], check=True
        )
        ended, output, errors = machine.run(
            machine.command_line("-kernel", name, "-m", "64M", "-nographic", "-no-reboot", *EXIT, *options),
            30,
            cwd=self.folder,
        )
        self.assertEqual(ended, 33, output[-500:] + errors[-2000:])
        # A firmware prints first.
        return output[output.index("magic") :]

    def test_multiboot(self):
        expected = f"""\
magic 2BADB002
{STATE}lower memory 0000027F
upper memory {0xfb80 if not machine.IS_PENUMBRA else 0xfc00:08X}
command line: multiboot a=1 b
MiB of RAM 0000003F
modules 00000002
module at 00000000
module: one with words
the first module
module at 00000000
module: two
the second module
"""
        output = self.report("multiboot", "-append", "a=1 b", "-initrd", "one with words,two")
        self.assertEqual(output, expected)

    def test_multiboot_without_options(self):
        self.assertRegex(self.report("multiboot"), "(?s)command line: multiboot ?\n.*modules 00000000\n$")

    def test_pvh(self):
        expected = f"""\
magic 336EC578
{STATE}command line: a=1 b
MiB of RAM 0000003F
modules 00000001
the first module
"""
        self.assertEqual(self.report("pvh", "-append", "a=1 b", "-initrd", "one"), expected)

    def test_pvh_without_options(self):
        self.assertRegex(self.report("pvh"), "(?s)command line: ?\n.*modules 00000000\n$")
