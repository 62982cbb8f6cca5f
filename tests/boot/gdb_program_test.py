"""Debian's gdb on a bare machine's program of which it knows the source: lines and ranges of steps, results of functions, frames,
registers as the program sees them, code whose page tables change, the monitor's answers beside QEMU's."""

import pathlib
import re
import shutil
import socket
import struct
import tempfile
import time
import unittest

import gdb as debugger
import guest_test
import machine

SOURCE = pathlib.Path(__file__).resolve().parent / "debugged.c"
QEMU = "qemu-system-x86_64"


def line_of(text):
    """The number of the one line with that text."""
    numbers = [i for i, line in enumerate(SOURCE.read_text().splitlines(), 1) if text in line]
    assert len(numbers) == 1, (text, numbers)
    return numbers[0]


def place(stop):
    """The line at which a stop is."""
    return int(re.search(r'line="(\d+)"', stop)[1])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Program:
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.image, cls.symbols = cls.folder / "image", cls.folder / "symbols"
        guest_test.load_builder().build_debugged(SOURCE, cls.bits, cls.image, cls.symbols)

    def start(self, *options, vmm=None):
        command = [*vmm, "-cpu", "max"] if vmm else machine.command_line()
        self.log = self.folder / "log"
        terminal = machine.Terminal(
            [*command, "-kernel", self.image, "-m", "64M", "-display", "none", "-no-reboot", "-serial", "null"]
            + ["-device", "isa-debug-exit,iobase=0xf4,iosize=0x4", "-chardev", f"file,id=log,path={self.log}"]
            + ["-device", "isa-debugcon,iobase=0xe9,chardev=log", *options]
        )
        self.addCleanup(terminal.__exit__)
        return terminal

    def connect(self, terminal, where):
        gdb = debugger.Gdb(self.symbols)
        self.addCleanup(gdb.kill)
        while True:
            try:
                gdb.run(f"target remote {where}")
                return gdb
            except AssertionError:
                self.assertIsNone(terminal.process.poll(), terminal.text)
                time.sleep(0.05)

    def debug(self, vmm=None):
        """gdb at the machine's first instruction."""
        path = self.folder / f"socket{len(list(self.folder.iterdir()))}"
        self.terminal = self.start("-S", "-gdb", f"unix:{path}," + ("server=on,wait=off" if vmm else f"arch={self.arch}"), vmm=vmm)
        return self.connect(self.terminal, path)

    def at(self, function, vmm=None):
        """gdb at the beginning of a function."""
        gdb = self.debug(vmm)
        gdb.run(f"hbreak {function}")  # its code is not there yet
        self.assertIn('reason="breakpoint-hit"', gdb.resume("continue"))
        gdb.run("delete")
        return gdb

    def end(self, gdb):
        gdb.run("delete")
        gdb.run("detach")
        self.assertEqual(self.terminal.wait(30), 33, self.terminal.text)

    def test_next_over_a_loop_is_a_range_of_steps(self):
        gdb = self.at("sum")
        gdb.run("set debug remote 1")
        self.assertEqual(place(gdb.resume("next")), line_of("// one line"))
        before = len(gdb.log)
        self.assertEqual(place(gdb.resume("next", 120)), line_of("total = result;"))
        packets = re.findall(r"Sending packet: \$vCont;(\w)", gdb.log[before:])
        self.assertIn("r", packets)
        self.assertLess(len(packets), 50)  # of 5,000 instructions
        gdb.run("set debug remote 0")
        self.assertEqual(gdb.value("result"), 499500)
        self.end(gdb)

    def test_until_leaves_a_loop(self):
        gdb = self.at("triangle")
        loop = line_of("while (i < count)")
        while place(gdb.resume("next")) != line_of("    result += i;"):
            pass
        self.assertEqual(gdb.value("i"), 1)
        self.assertEqual(place(gdb.resume("until")), loop)  # a jump back
        self.assertEqual(gdb.value("result"), 1)
        self.assertEqual(place(gdb.resume("until")), line_of("// behind the loop"))
        self.assertEqual(gdb.value("result"), 55)
        self.end(gdb)

    def test_next_steps_over_calls_and_step_into_them(self):
        gdb = self.at("guest_main")
        self.assertEqual(place(gdb.resume("next")), line_of("  sum(1000);"))
        self.assertEqual(gdb.value("total"), 55 + 120)
        stop = gdb.resume("step")
        self.assertIn('func="sum"', stop)
        self.assertIn('value="1000"', stop)
        self.end(gdb)

    def test_finish_shows_the_result(self):
        gdb = self.at("factorial")
        gdb.run("break factorial if n == 3")
        gdb.resume("continue")
        self.assertEqual(gdb.run("backtrace").count("factorial (n="), 3)
        gdb.run("up")
        self.assertEqual(gdb.value("n"), 4)
        gdb.run("down")
        stop = gdb.resume("finish")
        self.assertIn('return-value="6"', stop)
        self.assertEqual(gdb.value("n"), 4)
        stop = gdb.resume("finish")
        self.assertIn('return-value="24"', stop)
        self.end(gdb)

    def test_gdb_calls_functions_of_the_program(self):
        gdb = self.at("sum")
        gdb.resume("next")
        registers = gdb.run("info registers")
        self.assertEqual(gdb.value("factorial(6)"), 720)
        self.assertEqual(gdb.value("triangle(4)"), 10)
        self.assertEqual(gdb.run("info registers"), registers)
        gdb.run("set var count = 5")
        gdb.resume("finish")
        self.assertEqual(gdb.value("total"), 10)
        self.end(gdb)

    def test_watchpoint_with_a_condition(self):
        gdb = self.at("guest_main")
        gdb.run("watch total if total > 200")
        stop = gdb.resume("continue")
        self.assertIn('reason="watchpoint-trigger"', stop)
        self.assertIn('old="175",new="499500"', stop)
        self.assertIn('func="sum"', stop)
        self.end(gdb)

    def test_registers_are_the_programs(self):
        gdb = self.at("load_registers")
        gdb.resume("finish")
        for number in self.vectors:
            words = [0x0101010101010101 * (number * 4 + i + 1) for i in range(4)]
            self.assertEqual([gdb.value(f"$ymm{number}.v4_int64[{i}]") for i in range(4)], words)
            self.assertEqual([gdb.value(f"$xmm{number}.v2_int64[{i}]") for i in range(2)], words[:2])
        self.assertEqual(gdb.run("output $st0"), "1")
        self.assertRegex(gdb.run("output $st1"), r"^3\.14159265358979323")
        # And the other way round.
        for i in range(4):
            gdb.run(f"set $ymm3.v4_int64[{i}] = {0x1111 * (i + 1)}")
        gdb.run("set $xmm7.v4_float[1] = 1.5")
        gdb.run("set $st0 = -2.5")
        gdb.run("break code_moves")
        gdb.resume("continue")
        stored = [gdb.value(f"stored[3][{i}]") for i in range(4)]
        self.assertEqual(stored, [0x1111, 0x2222, 0x3333, 0x4444])
        self.assertEqual(gdb.value("stored[7][0]") >> 32, struct.unpack("<I", struct.pack("<f", 1.5))[0])
        self.assertEqual(gdb.value("stored[7][3]"), 0x2020202020202020)
        text = gdb.run("x/10xb extended")
        self.assertEqual(re.findall(r"0x(\w\w)\b", re.sub(r"(?m)^.*?:", "", text)), "00 00 00 00 00 00 00 a0 00 c0".split())
        self.end(gdb)

    def statistics(self, meet=None):
        """What running the program took: rows of --stats. `meet` takes a gdb that is at the program's beginning."""
        path = self.folder / f"stats{len(list(self.folder.iterdir()))}"
        options = () if meet is None else ("-S", "-gdb", f"unix:{path},arch={self.arch}")
        terminal = self.terminal = self.start("--mmu", "tlb", "--stats", *options)
        if meet:
            gdb = self.connect(terminal, path)
            meet(gdb)
            gdb.run("delete")
            self.assertIn('reason="exited"', gdb.resume("continue"))
        self.assertEqual(terminal.wait(30), 33, terminal.text)
        return {name.strip(): int(value) for name, value in re.findall(r"(?m)^  (\S.*?) {2,}(\d+)\r?$", terminal.text)}

    def test_breakpoints_cost_nothing_when_absent(self):
        # An event of the host's (gdb comes, output is written) may stop the guest where no block begins: the fewest blocks count.
        alone, attached = (
            min((self.statistics(meet) for _ in range(5)), key=lambda rows: rows["blocks translated"]) for meet in (None, lambda gdb: None)
        )
        self.assertGreater(alone["blocks translated"], 50)
        # gdb is there, and nothing else: the same code is made, and it asks for C++ as often, but for gdb's comings and goings.
        made = ("blocks translated", "guest instructions translated", "guest bytes translated", "host bytes emitted",
                "callouts: memory operands", "instructions run in callout form", "fills")
        self.assertEqual({name: attached[name] for name in made}, {name: alone[name] for name in made})
        for name in ("block lookups", "jumps chained", "inline TLB misses"):
            self.assertLess(abs(attached[name] - alone[name]), 10, name)

        # Breakpoints in a loop and on the way into it, and a watchpoint: once they are gone the loop's thousand rounds are as they were.
        def meet(gdb):
            gdb.run("hbreak sum")
            self.assertIn('reason="breakpoint-hit"', gdb.resume("continue"))
            for line in ("// one line", "total = result;"):
                gdb.run(f"break debugged.c:{line_of(line)}")
            gdb.run("watch result")
            for _ in range(3):
                self.assertIn("reason=", gdb.resume("continue"))

        met = self.statistics(meet)
        for name in ("block lookups", "jumps chained", "inline TLB misses", "callouts: memory operands", "instructions run in callout form"):
            self.assertLess(abs(met[name] - alone[name]), 300, name)

    def test_without_gdb_nothing_waits(self):
        terminal = self.start("-gdb", f"tcp::{free_port()}")
        self.assertEqual(terminal.wait(30), 33, terminal.text)


@unittest.skipUnless(machine.IS_PENUMBRA, "QEMU begins with firmware, and has no YMM registers for gdb")
class Bits64(Program, unittest.TestCase):
    bits, arch = 64, "x86-64"
    vectors = (0, 3, 7, 15)

    def test_over_tcp(self):
        port = free_port()
        terminal = self.start("-S", "-gdb", f"tcp::{port}")
        gdb = self.connect(terminal, f"localhost:{port}")
        self.assertEqual(gdb.value("$pc"), gdb.value("&start"))
        gdb.run("detach")
        self.assertEqual(terminal.wait(30), 33, terminal.text)

    def test_the_short_option(self):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", 1234)) == 0:
                self.skipTest("port 1234 is taken")
        terminal = self.start("-s", "-S")
        gdb = self.connect(terminal, ":1234")
        gdb.run("hbreak sum")
        self.assertIn('func="sum"', gdb.resume("continue"))
        gdb.run("delete")
        gdb.run("detach")
        self.assertEqual(terminal.wait(30), 33, terminal.text)

    def test_breakpoints_stay_when_page_tables_change(self):
        for kind in ("break", "hbreak"):
            with self.subTest(kind):
                gdb = self.at("code_moves")
                gdb.run(f"{kind} *0x80000000")  # not mapped yet
                spaces = set()
                for value in (11, 22, 11, 22):
                    self.assertIn('reason="breakpoint-hit"', gdb.resume("continue"))
                    self.assertEqual(gdb.value("$pc"), 0x80000000)
                    self.assertIn(f"mov    ${value:#x},%eax", gdb.run("x/i $pc"))
                    spaces.add(gdb.value("$cr3"))
                    gdb.resume("stepi")
                    self.assertEqual(gdb.value("$eax"), value)
                    # The other page holds the program's own bytes.
                    self.assertIn("0xb8", gdb.run("monitor xp/bx 0xa08000"))
                    self.assertIn("0xb8", gdb.run("monitor xp/bx 0xa09000"))
                self.assertEqual(len(spaces), 2)
                self.end(gdb)

    @unittest.skipUnless(shutil.which(QEMU), "compares with QEMU")
    def test_monitor_answers_as_qemu_does(self):
        answers = []
        for vmm in (None, [QEMU, "-accel", "tcg"]):
            gdb = self.at("code_moves", vmm)
            for _ in range(8):
                gdb.resume("next")
            at, physical = gdb.value("&vectors"), gdb.value("&vectors[3]")
            commands = ["info mem", "info tlb", "gva2gpa 0x40100000", "gva2gpa 0x7f00000000"]
            commands += [f"x/{form} {at:#x}" for form in ("8xb", "9xh", "5xw", "3xg", "4dw", "7ub", "2ow", "3dg", "12cb")]
            commands += [f"xp/{form} {physical:#x}" for form in ("4xw", "2xg", "3xb")]
            commands += ["x/2xw 0x7f00000000"]
            answers.append({command: gdb.run("monitor " + command).replace("\r", "") for command in commands})
            gdb.kill()
            self.terminal.signal(machine.signal.SIGKILL)
            self.terminal.wait(20)
        for command, answer in answers[0].items():
            self.assertEqual(answer, answers[1][command], command)


@unittest.skipUnless(machine.IS_PENUMBRA, "QEMU begins with firmware, and describes a 64-bit processor always")
class Bits32(Program, unittest.TestCase):
    bits, arch = 32, "i386"
    vectors = (0, 3, 7)
