"""Programs of Debian's packages that start from firmware: they draw their screens and answer the keyboard."""

import os
import pathlib
import tempfile
import unittest

import machine
import monitor

MEMTEST = "/usr/lib/memtest86+/memtest86+{}.iso"
LONG = bool(os.environ.get("PENUMBRA_LONG"))
GRUB = "/usr/lib/grub-rescue/grub-rescue-cdrom.iso"


class Firmware(unittest.TestCase):
    def vmm(self, *options):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        vmm = monitor.Vmm(folder.name, "-serial", "null", "-nic", "none", *options)
        self.addCleanup(vmm.__exit__)
        return vmm

    def type(self, vmm, *keys):
        for key in keys:
            vmm.monitor(f"sendkey {key}")


class Memtest(Firmware):
    """PENUMBRA_LONG=1: with the test of fading bits, which waits for minutes, and 32-bit code."""

    def round(self, image):
        vmm = self.vmm("-m", "64M", "-cdrom", MEMTEST.format(image))
        vmm.wait_screen("<Enter> to start testing")
        self.type(vmm, "f1")
        vmm.wait_screen("Test selection")
        self.type(vmm, "f1")
        vmm.wait_screen("Remove one test")
        if not LONG:
            self.type(vmm, "f2")
            vmm.wait_screen("Enter test #")
            self.type(vmm, "1", "0", "ret")
            vmm.wait_screen(r"\*\.\*{8}\.")
        self.type(vmm, "f10")
        vmm.wait_screen("<F4>  Error reporting mode")
        self.type(vmm, "f10")
        text = vmm.wait_screen(r"Pass: +[1-9]|Errors: +[1-9]", 600)
        self.assertRegex(text, r"Pass: +1 +Errors: 0(?!\d)")
        self.assertRegex(text, r"Memory +: +64MB")

    def test_a_round_of_64_bit_code(self):
        self.round("x64")

    @unittest.skipUnless(LONG, "PENUMBRA_LONG=1 runs it")
    def test_a_round_of_32_bit_code(self):
        self.round("ia32")


class Grub(Firmware):
    def test_rescue_disc_answers_at_its_prompt(self):
        vmm = self.vmm("-m", "64M", "-cdrom", GRUB)
        vmm.wait_screen("GNU GRUB")
        self.type(vmm, "c")
        vmm.wait_screen("grub>")
        self.type(vmm, *"ls", "ret")
        self.assertRegex(vmm.wait_screen(r"grub> ls[\s\S]*grub>"), r"\(cd\)|\(cd0\)")
