"""Guests that do what no sane guest does: the machine stops with a state dump or goes on as hardware would, and the VMM
survives. Each is a ROM made from hostile/NAME.asm, whose head says what it does."""

import pathlib
import re
import resource
import subprocess
import tempfile
import time
import unittest

import machine

SOURCES = pathlib.Path(__file__).resolve().parent / "hostile"
EXIT = ("-device", "isa-debug-exit,iobase=0xf4,iosize=0x4")
ENDED = 0x55 << 1 | 1
NOWHERE = 0x30000000
HOLE = 0xE0000000
SECONDS = 20


class Hostile(unittest.TestCase):
    options = ()

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)

    def command(self, name, *options, **defines):
        rom = self.folder / ("_".join([name, *(str(value) for value in defines.values())]) + ".rom")
        subprocess.run(
            ["nasm", "-f", "bin", "-w+all", "-w-unknown-warning", "-I", f"{SOURCES}/", "-o", rom]
            + [f"-D{key}={value}" for key, value in defines.items()]
            + [SOURCES / f"{name}.asm"],
            check=True,
        )
        return machine.command_line("-bios", rom, "-m", "64M", "-nographic", *EXIT, *self.options, *options)

    def run_rom(self, name, *options, seconds=SECONDS, **defines):
        result = machine.run(
            self.command(name, *options, **defines),
            seconds,
            cwd=self.folder,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2),
        )
        dumps = list(self.folder.glob("core*"))
        for dump in dumps:
            dump.unlink()
        self.assertEqual(dumps, [], result[2][-2000:])
        return result

    def goes_on(self, name, **defines):
        """The guest runs to its end."""
        status, output, errors = self.run_rom(name, "-no-reboot", **defines)
        self.assertEqual(status, ENDED, output[-500:] + errors[-2000:])
        return output

    def shuts_down(self, name, **defines):
        """A triple fault: with -no-reboot the machine stops, and says in which state."""
        status, output, errors = self.run_rom(name, "-no-reboot", **defines)
        self.assertIn("before\n", output)
        self.assertNotIn("after", output)
        self.stopped_with_dump(status, errors)

    def stopped_with_dump(self, status, errors):
        self.assertIn(status, (0, 1), errors[-2000:])
        if machine.IS_PENUMBRA:
            self.assertRegex(errors, "(?i)triple fault")
            self.assertRegex(errors, r"(?i)\b[er]?ip\b")

    def survives(self, name, seconds=SECONDS, **defines):
        """Anything but a crash: the guest ends, shuts down, or runs until the time is up."""
        status, output, errors = self.run_rom(name, "-no-reboot", seconds=seconds, **defines)
        if machine.IS_PENUMBRA:
            self.assertTrue(status is None or status >= 0, errors[-2000:])
        return status, output, errors

    def test_triple_fault(self):
        self.shuts_down("triple_fault")

    def test_double_fault(self):
        self.assertIn("double fault\n", self.goes_on("double_fault"))

    def test_page_tables_nowhere(self):
        for table in (NOWHERE, HOLE, 0xFFFFF000):
            for kind in ({}, {"PAE": 1}, {"LONG": 1}):
                with self.subTest(table=hex(table), **kind):
                    status, output, errors = self.survives("tables_nowhere", TABLE=table, **kind)
                    self.assertIn("before\n", output)
                    if "LONG" not in kind and status == ENDED:
                        self.assertRegex(output, "went on|exception")
                    else:
                        self.stopped_with_dump(status, errors)

    def test_pages_nowhere(self):
        for target in (NOWHERE, HOLE):
            with self.subTest(target=hex(target)):
                if not machine.IS_PENUMBRA:
                    self.skipTest("QEMU ends when code runs outside RAM")
                output = self.goes_on("mapped_nowhere", TARGET=target)
                self.assertIn("FFFFFFFF went on\nstack survived\n", output)

    def test_stack_nowhere(self):
        _, output, _ = self.survives("return_nowhere", seconds=5)
        self.assertIn("before\n", output)

    def test_descriptor_tables_nowhere(self):
        for which, name in enumerate(("IDT", "GDT", "TSS", "LDT"), 1):
            with self.subTest(name):
                status, output, errors = self.survives("descriptors_nowhere", seconds=5, WHICH=which)
                self.assertIn("before\n", output)

    def test_page_tables_in_rom(self):
        self.assertIn("went on\n", self.goes_on("tables_in_rom"))

    def test_page_tables_in_a_page_of_code(self):
        self.assertIn("went on\n", self.goes_on("tables_are_code"))

    def test_string_instructions_that_leave_ram(self):
        self.assertIn("went on\n", self.goes_on("strings_run_out"))

    def test_code_that_rewrites_itself(self):
        self.assertIn("went on\n", self.goes_on("rewrites"))

    def test_all_ports(self):
        for value in (0, 0x55555555, 0xFFFFFFFF):
            with self.subTest(value=hex(value)):
                self.assertIn("went on\n", self.goes_on("ports", VALUE=value))

    def test_all_registers(self):
        self.assertIn("went on\n", self.goes_on("registers"))

    def test_garbage_32(self):
        for seed in range(1, 9):
            with self.subTest(seed=seed):
                self.survives("garbage", seconds=4, MODE=32, ROUNDS=20000, SEED=seed)

    def test_garbage_16(self):
        for seed in range(1, 5):
            with self.subTest(seed=seed):
                self.survives("garbage", seconds=4, MODE=16, ROUNDS=500, SEED=seed)

    def test_garbage_64(self):
        for seed in range(1, 9):
            with self.subTest(seed=seed):
                self.survives("garbage64", seconds=4, ROUNDS=20000, SEED=seed)

    def test_not_canonical(self):
        self.assertIn("went on\n", self.goes_on("not_canonical"))

    def test_resets(self):
        for way, name in enumerate(("8042", "port 92", "port CF9", "triple fault"), 1):
            with self.subTest(name):
                status, output, errors = self.run_rom("resets", WAY=way)
                self.assertEqual((status, output), (ENDED, "first start\nsecond start\n"), errors)

    def test_resets_end_the_machine_with_no_reboot(self):
        for way, name in enumerate(("8042", "port 92", "port CF9"), 1):
            with self.subTest(name):
                status, output, errors = self.run_rom("resets", "-no-reboot", WAY=way)
                self.assertEqual((status, output), (0, "first start\n"), errors)

    def test_a_stopped_processor_does_not_stop_the_terminal(self):
        for which, name in enumerate(("HLT", "JMP $"), 1):
            for ending in ("Ctrl-A X", "SIGTERM"):
                with self.subTest(name + ", " + ending):
                    with machine.Terminal(self.command("stops", WHICH=which)) as terminal:
                        terminal.expect("before\n", SECONDS)
                        time.sleep(0.3)
                        if ending == "SIGTERM":
                            terminal.signal()
                        else:
                            terminal.send("\x01x")
                        self.assertIsNotNone(terminal.wait(10))


if machine.IS_PENUMBRA:

    class HostileInWindows(Hostile):
        options = ("--mmu", "windows")
