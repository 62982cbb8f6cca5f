"""Debian's gdb on the guest's kernel, with symbols: breakpoints, registers, memory, steps, watchpoints, interruption,
detaching and attaching again. Needs nothing of the guest; "nokaslr" puts its kernel where the symbols say."""

import pathlib
import re
import struct
import tempfile
import unittest

import gdb as debugger
import machine

APPEND = "console=ttyS0 nokaslr"


class Debugged:
    guest = None

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.symbols = debugger.symbol_file(cls.guest, cls.folder)

    def boot(self, *options, reboot=False):
        """The guest in a terminal, waiting for gdb at self.socket."""
        self.socket = self.folder / "socket"
        where = f"unix:{self.socket}" + (f",arch={self.arch}" if machine.IS_PENUMBRA else ",server=on,wait=off")
        command = machine.linux(self.guest, machine.shell_initrd(self.guest), "-gdb", where, *options, append=APPEND)
        terminal = machine.Terminal([word for word in command if not (reboot and word == "-no-reboot")])
        self.addCleanup(terminal.__exit__)
        return terminal

    def attach(self):
        for _ in range(200):
            if self.socket.exists():
                break
            machine.time.sleep(0.05)
        gdb = debugger.Gdb(self.symbols)
        self.addCleanup(gdb.kill)
        gdb.run(f"target remote {self.socket}")
        return gdb

    def test_a_session_from_the_first_instruction(self):
        terminal = self.boot("-S")
        gdb = self.attach()

        # A hardware breakpoint where nothing is mapped yet.
        gdb.run("hbreak start_kernel")
        stop = gdb.resume("continue")
        self.assertIn('reason="breakpoint-hit"', stop)
        self.assertEqual(gdb.value("$pc"), gdb.value("&start_kernel"))
        self.assertIn("PG", gdb.run("info registers cr0"))
        self.assertIn("start_kernel in section .init.text", gdb.run("info symbol $pc"))
        gdb.run("delete")

        # Memory by linear address and by physical address.
        linear = gdb.value("&start_kernel")
        code = gdb.value("*(unsigned int*)&start_kernel")
        physical = int(re.search(r"gpa: (\w+)", gdb.run(f"monitor gva2gpa {linear:#x}"))[1], 16)
        self.assertNotEqual(physical, linear)
        self.assertIn(f" {code:#010x}\n", gdb.run(f"monitor xp/wx {physical:#x}"))
        self.assertIn(f" {code:#010x}\n", gdb.run(f"monitor x/wx {linear:#x}"))
        # gdb's own commands by physical address, both ways.
        byte = gdb.value(f"*(unsigned char*){linear:#x}")
        gdb.run("maintenance packet Qqemu.PhyMemMode:1")
        self.assertIn('"1"', gdb.run("maintenance packet qqemu.PhyMemMode"))
        self.assertEqual(gdb.value(f"*(unsigned int*){physical:#x}"), code)
        gdb.run(f"set *(unsigned char*){physical:#x} = {byte ^ 0xff:#x}")
        gdb.run("maintenance packet Qqemu.PhyMemMode:0")
        self.assertEqual(gdb.value(f"*(unsigned char*){linear:#x}"), byte ^ 0xff)
        gdb.run(f"set *(unsigned char*){linear:#x} = {byte:#x}")
        self.assertIn(f" {code:#010x}\n", gdb.run(f"monitor xp/wx {physical:#x}"))

        # One instruction at a time, then over calls.
        gdb.resume("stepi")
        self.assertNotEqual(gdb.value("$pc"), linear)
        for _ in range(5):
            gdb.resume("nexti")
            self.assertNotEqual(gdb.value("$pc"), linear)
        gdb.run("delete")

        # A kernel function by its name; the path is in its second argument. Then its caller.
        gdb.run("break do_sys_openat2")
        stop = gdb.resume("continue")
        self.assertIn('reason="breakpoint-hit"', stop)
        self.assertIn('func="do_sys_openat2"', stop)
        self.assertEqual(self.argument(gdb, 0) & 0xFFFFFFFF, 0xFFFFFF9C)  # AT_FDCWD
        self.assertRegex(gdb.run(f"x/s {self.argument(gdb, 1):#x}"), r'"/\S+"')
        gdb.run("delete")
        caller = self.return_address(gdb)
        gdb.resume("finish")
        self.assertEqual(gdb.value("$pc"), caller)

        # Interrupted wherever it is.
        gdb.start("continue")
        terminal.expect(re.escape(machine.PROMPT), machine.BOOT_SECONDS)
        stop = gdb.interrupt()
        self.assertIn('signal-name="SIGINT"', stop)
        self.assert_one_thread(gdb)
        gdb.run("detach")
        self.assertEqual(terminal.shell("echo $((6*7))"), "42")

    def assert_one_thread(self, gdb):
        """The vCPU."""
        self.assertRegex(gdb.run("info threads"), r"\A.*\n\* 1 +Thread 1 \S*.*CPU 0.*\n\Z")
        self.assertIn("Switching to thread 1", gdb.run("thread 1"))
        self.assertRegex(gdb.run("thread apply all print/x $pc"), rf"= {gdb.value('$pc'):#x}\n\Z")
        with self.assertRaisesRegex(AssertionError, "Unknown thread 2"):
            gdb.run("thread 2")

    def test_a_session_on_the_running_kernel(self):
        """Break in a function by symbol, its arguments, steps, a variable watched, on and to the end of a function."""
        terminal = self.boot()
        terminal.expect(re.escape(machine.PROMPT), machine.BOOT_SECONDS)
        gdb = self.attach()
        self.assert_one_thread(gdb)
        ticks = self.tick_variable(gdb)

        def opens(name):
            """Up to the call that opens /tmp/NAME."""
            gdb.start("continue")
            gdb._until(r"^\*running", 20)
            terminal.send(f"cat /tmp/{name}\r")
            gdb._until(r"^\*stopped,reason=.breakpoint-hit", 30)
            for _ in range(50):
                if f'"/tmp/{name}"' in gdb.run(f"x/s {self.argument(gdb, 1):#x}"):
                    return
                gdb.resume("continue")
            self.fail("the breakpoint did not see the file being opened")

        gdb.run("break do_sys_openat2")
        opens("one")
        self.assertEqual(gdb.value("$pc"), gdb.value("&do_sys_openat2"))
        self.assertEqual(self.argument(gdb, 0) & 0xFFFFFFFF, 0xFFFFFF9C)  # AT_FDCWD
        for _ in range(5):
            before = gdb.value("$pc")
            gdb.resume("stepi")
            self.assertNotEqual(gdb.value("$pc"), before)
        gdb.run(f"watch {ticks}")
        before = gdb.value(ticks)
        self.assertIn('reason="watchpoint-trigger"', gdb.resume("continue"))
        self.assertGreater(gdb.value(ticks), before)
        gdb.run("delete 2")
        opens("two")
        caller, stack = self.return_address(gdb), gdb.value("$sp")
        gdb.resume("finish")
        self.assertEqual(gdb.value("$pc"), caller)
        self.assertGreater(gdb.value("$sp"), stack)
        gdb.run("delete")
        gdb.run("detach")
        terminal.expect("cat: can't open '/tmp/two': No such file or directory", 30)
        terminal.send("echo $((6*7))\r")
        terminal.expect("(?m)^42$", 30)

    def test_watchpoints(self):
        terminal = self.boot()
        terminal.expect(re.escape(machine.PROMPT), machine.BOOT_SECONDS)
        gdb = self.attach()
        ticks = self.tick_variable(gdb)
        gdb.run(f"watch {ticks}")
        for _ in range(3):
            before = gdb.value(ticks)
            stop = gdb.resume("continue")
            self.assertIn('reason="watchpoint-trigger"', stop)
            self.assertGreater(gdb.value(ticks), before)
        gdb.run("delete")
        gdb.run(f"rwatch {ticks}")
        self.assertIn('reason="read-watchpoint-trigger"', gdb.resume("continue"))
        gdb.run("delete")
        gdb.run(f"awatch {ticks}")
        self.assertIn('reason="access-watchpoint-trigger"', gdb.resume("continue"))
        gdb.run("delete")
        gdb.run("detach")
        self.assertEqual(terminal.shell("echo $((6*7))"), "42")

    def test_attaching_twice_to_a_running_guest(self):
        terminal = self.boot()
        terminal.expect(re.escape(machine.PROMPT), machine.BOOT_SECONDS)
        for name in ("first", "second"):
            gdb = self.attach()
            gdb.run("break do_sys_openat2")
            gdb.start("continue")
            gdb._until(r"^\*running", 20)
            terminal.send(f"cat /tmp/{name}\r")
            gdb._until(r"^\*stopped,reason=.breakpoint-hit", 30)
            for _ in range(50):
                if name in gdb.run(f"x/s {self.argument(gdb, 1):#x}"):
                    break
                gdb.resume("continue")
            else:
                self.fail("the breakpoint did not see the file being opened")
            self.assertIn("/tmp/" + name, gdb.run(f"x/s {self.argument(gdb, 1):#x}"))
            # Steps through a whole function without leaving it.
            function = gdb.value("&do_sys_openat2")
            for _ in range(20):
                gdb.resume("nexti")
                self.assertLess(gdb.value("$pc") - function, 0x400)
            gdb.run("detach")
            gdb.kill()
            terminal.expect(f"cat: can't open '/tmp/{name}': No such file or directory", 30)
            terminal.expect("(?m)^" + re.escape(machine.PROMPT), 30)

    def test_breakpoints_survive_a_reboot(self):
        self.boot("-S", reboot=True)
        gdb = self.attach()
        gdb.run("hbreak start_kernel")
        for _ in range(2):
            self.assertIn('reason="breakpoint-hit"', gdb.resume("continue"))
            self.assertEqual(gdb.value("$pc"), gdb.value("&start_kernel"))
            gdb.run("monitor system_reset")

    def test_breakpoints_survive_the_guests_own_reboot(self):
        terminal = self.boot(reboot=True)
        terminal.expect(re.escape(machine.PROMPT), machine.BOOT_SECONDS)
        gdb = self.attach()
        gdb.run("hbreak start_kernel")
        gdb.run("break do_sys_openat2 if 0")  # is there all the time, and met often
        gdb.start("continue")
        gdb._until(r"^\*running", 20)
        terminal.send("reboot -f\r")
        gdb._until(r"^\*stopped,reason=.breakpoint-hit", 60)
        self.assertEqual(gdb.value("$pc"), gdb.value("&start_kernel"))
        gdb.run("delete")
        gdb.run("detach")
        terminal.expect(re.escape(machine.PROMPT), machine.BOOT_SECONDS)

    def test_registers_and_monitor_commands(self):
        terminal = self.boot()
        terminal.expect(re.escape(machine.PROMPT), machine.BOOT_SECONDS)
        gdb = self.attach()
        for name in ("cr0", "cr3", "cr4", "cs", "ss", "eflags", "gdt_base", "idt_base", "tr", "dr7", *self.registers):
            self.assertNotEqual(gdb.value("$" + name), 0, name)
        for name, value in (
            (self.general, self.general_value),
            ("xmm3.v4_int32[2]", 0x11223344),
            ("ymm3.v4_int64[3]", 0x1122334455667788),
            ("ymm7.v8_int32[0]", 0x99AABBCC),
            ("mxcsr", 0x1F00),
            ("fctrl", 0x27F),
            ("ax", 0x4321),
        ):
            gdb.run(f"set ${name} = {value:#x}")
            self.assertEqual(gdb.value("$" + name), value, name)
        # The lower half is another register of the same name: it stays.
        self.assertEqual(gdb.value("$xmm3.v4_int32[2]"), 0x11223344)
        for number in range(8):
            gdb.run(f"set $st{number} = -{number}.015625")
        self.assertEqual([gdb.run(f"output $st{number}") for number in range(8)], [f"-{n}.015625" for n in range(8)])

        # A selector that gdb writes loads its descriptor, or is refused.
        for name, value in (("ds", gdb.value("$ss")), ("es", gdb.value("$cs")), ("ds", 0), ("fs", 3), ("cs", gdb.value("$cs") | 0)):
            gdb.run(f"set ${name} = {value}")
            self.assertEqual(gdb.value("$" + name), value, name)
        self.assertEqual(gdb.value("$fs_base"), 0)
        for name, value, why in (("ds", 0xfff8, r"GP\(0xfff8\)"), ("ss", 0xfff8, r"GP\(0xfff8\)"), ("cs", 0, r"GP\(0x0\)"), ("ds", 0x10000, "16 bits")):
            with self.assertRaisesRegex(AssertionError, why):
                gdb.run(f"set ${name} = {value}")

        text = gdb.run("monitor info registers")
        for name in ("RIP", "RSP", "RFLAGS", "CS", "TR", "GDT", "CR0", "CR3", "DR7"):
            self.assertRegex(text, rf"\b{name} ")
        self.assertRegex(text, rf"CR3 +0*{gdb.value('$cr3'):x}\b")
        self.assertRegex(gdb.run("monitor info mem"), self.mapped_range)
        self.assertRegex(gdb.run("monitor info tlb"), self.mapped_page)
        self.assertIn("unknown command", gdb.run("monitor nonsense"))

    def test_breakpoint_in_a_program_that_starts_again(self):
        """Each process has other page tables; the first has none for that address when the breakpoint is set."""
        terminal = self.boot()
        terminal.expect(re.escape(machine.PROMPT), machine.BOOT_SECONDS)
        # A breakpoint of the program's first instruction: all programs of the guest are one file.
        header = (machine.CACHE / "guests" / self.guest / "busybox").read_bytes()[:64]
        entry = int.from_bytes(header[24:32] if self.guest == "amd64" else header[24:28], "little")
        gdb = self.attach()
        gdb.run(f"hbreak *{entry:#x}")
        spaces = set()
        for _ in range(3):
            gdb.start("continue")
            gdb._until(r"^\*running", 20)
            terminal.send("busybox true\r")
            gdb._until(r"^\*stopped,reason=.breakpoint-hit", 30)
            self.assertEqual(gdb.value("$pc"), entry)
            self.assertEqual(gdb.value("$cs") & 3, 3)
            spaces.add(gdb.value("$cr3"))
            # The first time, the page is not there: the breakpoint comes before the page fault (SDM vol. 3, 6.9), and
            # is met again when the fault's handler returns.
            while "Cannot access" in gdb.run(f"monitor x/wx {entry:#x}"):
                self.assertIn('reason="breakpoint-hit"', gdb.resume("continue"))
                self.assertEqual(gdb.value("$pc"), entry)
            self.assertEqual(gdb.value(f"*(unsigned int*){entry:#x}"), self.word_of_program(entry))
            for _ in range(3):
                before = gdb.value("$pc")
                gdb.resume("stepi")
                self.assertNotEqual(gdb.value("$pc"), before)
                self.assertLess(gdb.value("$pc") - entry, 64)
        self.assertGreater(len(spaces), 1)
        gdb.run("delete")
        gdb.run("detach")
        terminal.send("echo $((6*7))\r")
        terminal.expect("(?m)^42$", 30)

    def word_of_program(self, address):
        """Four bytes of busybox as its program headers map them."""
        data = (machine.CACHE / "guests" / self.guest / "busybox").read_bytes()
        if self.guest == "amd64":
            table, size, count = struct.unpack_from("<Q14xHH", data, 32)
            headers = [struct.unpack_from("<I4xQQ8xQ", data, table + size * i) for i in range(count)]
        else:
            table, size, count = struct.unpack_from("<I10xHH", data, 28)
            headers = [struct.unpack_from("<III4xI", data, table + size * i) for i in range(count)]
        for kind, offset, start, length in headers:
            if kind == 1 and start <= address < start + length:
                return int.from_bytes(data[address - start + offset :][:4], "little")
        raise AssertionError("the entry point is in no segment")

    def test_a_step_of_a_halted_processor_ends_in_an_interrupt(self):
        terminal = self.boot()
        terminal.expect(re.escape(machine.PROMPT), machine.BOOT_SECONDS)
        gdb = self.attach()
        for _ in range(20):
            if "halted" in gdb.run("monitor info status"):
                break
            gdb.start("continue")
            machine.time.sleep(0.3)
            gdb.interrupt()
        else:
            self.fail("the idle guest is not halted")
        before = gdb.value("$pc")
        gdb.resume("stepi")
        self.assertNotEqual(gdb.value("$pc"), before)
        self.assertNotIn("halted", gdb.run("monitor info status"))
        # The handler's next instructions.
        for _ in range(10):
            before = gdb.value("$pc")
            gdb.resume("stepi")
            self.assertNotEqual(gdb.value("$pc"), before)
        gdb.run("detach")
        self.assertEqual(terminal.shell("echo $((6*7))"), "42")

    def test_killing(self):
        terminal = self.boot("-S")
        gdb = self.attach()
        gdb.run("kill")
        self.assertEqual(terminal.wait(20), 0, terminal.text)

    def test_a_gdb_that_dies(self):
        terminal = self.boot("-S")
        gdb = self.attach()
        gdb.run("hbreak start_kernel")
        gdb.resume("continue")
        gdb.kill()
        terminal.expect(re.escape(machine.PROMPT), machine.BOOT_SECONDS)


class Amd64(Debugged, unittest.TestCase):
    guest = "amd64"
    arch = "x86-64"
    registers = ("efer", "gs_base")
    general, general_value = "r10", 0xFEDCBA9876543210
    mapped_range = r"(?m)^ffff8\w+-ffff8\w+ \w+ -rw$"
    mapped_page = r"(?m)^ffffffff81000000: 0000000001000000 "

    def argument(self, gdb, number):
        return gdb.value(("$rdi", "$rsi", "$rdx")[number])

    def return_address(self, gdb):
        return gdb.value("*(unsigned long*)$rsp")

    def tick_variable(self, gdb):
        return "*(unsigned long*)&jiffies"


class I686(Debugged, unittest.TestCase):
    guest = "i686"
    arch = "i386"
    registers = ("fs_base",)
    general, general_value = "ebx", 0xFEDCBA98
    mapped_range = r"(?m)^0*c\w{7}-0*[cf]\w{7} \w+ -rw$"
    mapped_page = r"(?m)^0*c1000000: 0*1000000 "

    # The kernel passes three arguments in registers.
    def argument(self, gdb, number):
        return gdb.value(("$eax", "$edx", "$ecx")[number])

    def return_address(self, gdb):
        return gdb.value("*(unsigned int*)$esp")

    def tick_variable(self, gdb):
        # Its table of names holds no variables: the operand of the instruction that increments jiffies_64.
        text = gdb.run("x/12i do_timer")
        return "*(unsigned int*)" + re.search(r"(?:add|adc)\S* .*?(0xc[0-9a-f]{7})", text)[1]


class RealMode(unittest.TestCase):
    """Code in segments: addresses are linear ones, the program counter too."""

    def test_rom(self):
        with tempfile.TemporaryDirectory() as folder:
            rom, socket = pathlib.Path(folder) / "hello.rom", pathlib.Path(folder) / "socket"
            machine.subprocess.run(
                ["nasm", "-f", "bin", "-o", rom, machine.REPO / "roms" / "hello.asm"], check=True
            )
            where = f"unix:{socket}" + (",arch=i8086" if machine.IS_PENUMBRA else ",server=on,wait=off")
            command = machine.command_line("-bios", rom, "-m", "16M", "-nographic", "-gdb", where, "-S")
            with machine.Terminal([*command, "-device", "isa-debug-exit,iobase=0xf4,iosize=0x4"]) as terminal:
                for _ in range(200):
                    if socket.exists():
                        break
                    machine.time.sleep(0.05)
                with debugger.Gdb() as gdb:
                    gdb.run(f"target remote {socket}")
                    self.assertEqual(gdb.value("$pc"), 0xFFFFFFF0)
                    self.assertIn("ljmp   $0xf000,$0x0", gdb.run("x/i $pc"))
                    gdb.resume("stepi")
                    self.assertEqual((gdb.value("$pc"), gdb.value("$cs"), gdb.value("$cs_base")), (0xF0000, 0xF000, 0xF0000))
                    self.assertIn("cli", gdb.run("x/i $pc"))
                    # In real mode a selector sets the base.
                    gdb.run("set $es = 0x1234")
                    self.assertEqual((gdb.value("$es"), gdb.value("$es_base")), (0x1234, 0x12340))
                    gdb.run("set $es = 0")
                    # "call print" at F000:002A or so: the first call of the ROM.
                    listing = gdb.run("x/40i 0xf0000")
                    call = int(re.search(r"(0xf\w+):\s+call", listing)[1], 16)
                    gdb.run(f"break *{call:#x}")
                    for letter in b"Hel":
                        self.assertIn('reason="breakpoint-hit"', gdb.resume("continue"))
                        self.assertEqual(gdb.value("$al"), letter)
                    gdb.run("delete")
                    gdb.run("set $al = '!'")
                    # Ports are read and written by instructions that are stepped over as well.
                    for _ in range(8):
                        gdb.resume("stepi")
                    gdb.run("detach")
                self.assertEqual(terminal.wait(20), 33)
                self.assertIn("He!lo from the reset vector", terminal.text)


@unittest.skipUnless(machine.IS_PENUMBRA, "what QEMU does with nonsense is its own affair")
class Protocol(unittest.TestCase):
    guest = "amd64"

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.socket = pathlib.Path(folder.name) / "socket"
        options = ("-gdb", f"unix:{cls.socket}", "-S")
        cls.terminal = machine.Terminal(machine.linux(cls.guest, machine.shell_initrd(cls.guest), *options))
        cls.addClassCleanup(cls.terminal.__exit__)
        for _ in range(200):
            if cls.socket.exists():
                break
            machine.time.sleep(0.05)

    def setUp(self):
        self.packets = debugger.Packets(self.socket)
        self.addCleanup(self.packets.close)

    def test_a_wrong_checksum_is_refused(self):
        self.packets.raw(b"$g#00")
        self.assertEqual(self.packets.byte(), b"-")
        self.packets.raw(b"$?#3f")
        self.assertEqual(self.packets.byte(), b"+")
        self.assertEqual(self.packets.receive(), b"T05thread:01;")

    def test_unknown_packets_have_an_empty_answer(self):
        for body in (b"vMustReplyEmpty", b"y", b"qNonsense", b"QNonsense", b"Z9,0,1", b"!"):
            self.assertEqual(self.packets.ask(body), b"", body)

    def test_the_vcpu_is_a_thread(self):
        for body, answer in (
            (b"qC", b"QC01"),
            (b"qfThreadInfo", b"m01"),
            (b"qsThreadInfo", b"l"),
            *((kind + thread, b"OK") for kind in (b"Hg", b"Hc") for thread in (b"1", b"01", b"0", b"-1")),
            *((kind + thread, b"E16") for kind in (b"Hg", b"Hc") for thread in (b"2", b"ff", b"x", b"1x", b"")),
            *((b"T" + thread, b"OK") for thread in (b"1", b"01")),
            *((b"T" + thread, b"E16") for thread in (b"2", b"10", b"", b"x")),
            (b"qThreadExtraInfo,1", b"CPU 0 [running]".hex().encode()),
            (b"qThreadExtraInfo,2", b"E16"),
            (b"vCont?", b"vCont;c;C;s;S;t;r"),
            (b"vCont;s:2", b"E01"),
            (b"vCont;s:2;c:3", b"E01"),
        ):
            self.assertEqual(self.packets.ask(body), answer, body)
        whole = self.packets.ask(b"qXfer:threads:read::0,1000")
        self.assertEqual(re.findall(rb'<thread id="(\w+)"', whole), [b"1"])
        # The action for another thread is not for this one, which steps.
        for thread in (b"1", b"01", b"-1"):
            before = self.program_counter()
            self.assertEqual(self.packets.ask(b"vCont;t:2;s:" + thread + b";c:2"), b"T05thread:01;")
            self.assertNotEqual(self.program_counter(), before)

    def test_nonsense_is_an_error(self):
        for body in (b"m", b"mzz,1", b"m0", b"M0,2:00", b"Mx", b"X0,5:abc", b"p", b"pffff", b"P0=1", b"P0", b"Gxx",
                     b"Z0", b"Z0,", b"Z2,0,0", b"Z2,ffffffffffffffff,2", b"vCont;", b"vCont;q", b"vCont;r1", b"vCont;r5,1", b"czz",
                     b"qRcmd,xx", b"qSearch:memory:0;10;", b"qCRC:x", b"qXfer:features:read:target.xml:x"):
            self.assertRegex(self.packets.ask(body), rb"^E[0-9a-f]{2}$", body)

    def test_noise(self):
        self.packets.raw(bytes(range(3)) + bytes(range(4, 36)) + b"%&'()*,./" + b"\xff" * 100)
        self.packets.raw(b"$" + b"m" * 3_000_000 + b"#00")
        self.assertEqual(self.packets.ask(b"qC"), b"QC01")

    def test_memory_in_binary(self):
        data = bytes(range(256)) * 4
        escaped = b"".join(b"}" + bytes([b ^ 0x20]) if b in b"#$}*" else bytes([b]) for b in data)
        self.assertEqual(self.packets.ask(b"Qqemu.PhyMemMode:1"), b"OK")
        self.assertEqual(self.packets.ask(b"X30000000,400:" + escaped), b"OK")
        self.assertEqual(self.packets.ask(b"x30000000,400"), b"b" + data)
        self.assertEqual(self.packets.ask(b"m30000010,8"), b"1011121314151617")
        self.assertEqual(self.packets.ask(b"M30000010,2:aabb"), b"OK")
        self.assertEqual(self.packets.ask(b"m3000000f,4"), b"0faabb12")
        # Over the end of a page, and what is not there.
        self.assertEqual(len(self.packets.ask(b"m30000ffe,4")), 8)
        self.assertEqual(self.packets.ask(b"qSearch:memory:30000000;400;\x12\x13\x14"), b"1,30000012")
        self.assertEqual(self.packets.ask(b"qSearch:memory:30000000;400;\x14\x13"), b"0")

    def test_addresses_that_are_not_mapped(self):
        self.assertEqual(self.packets.ask(b"m8000000000000000,4"), b"E0e")
        self.assertEqual(self.packets.ask(b"Mffff900000000000,1:00"), b"E0e")

    def test_without_acknowledgements(self):
        self.packets.send(b"QStartNoAckMode")
        self.assertEqual(self.packets.byte(), b"+")
        self.assertEqual(self.packets.receive(), b"OK")
        self.packets.send(b"qC")
        self.assertEqual(self.packets.byte(), b"$")

    def test_steps_of_a_range(self):
        # Wherever the guest is: steps go on as long as the program counter is in the range, ^C ends them.
        pc = self.program_counter()
        stop = self.packets.ask(b"vCont;r%x,%x:1" % (pc, pc + 1))
        self.assertRegex(stop, rb"^T05thread:01;")
        self.assertNotEqual(self.program_counter(), pc)
        self.packets.send(b"vCont;r0,ffffffffffffffff:1")
        machine.time.sleep(0.3)
        self.packets.raw(b"\x03")
        self.assertRegex(self.packets.receive(), rb"^T02thread:01;")

    def program_counter(self):
        return int.from_bytes(bytes.fromhex(self.packets.ask(b"p10").decode()), "little")

    def test_description_in_pieces(self):
        whole, at = b"", 0
        while True:
            piece = self.packets.ask(b"qXfer:features:read:target.xml:%x,100" % at)
            whole += piece[1:]
            at += len(piece) - 1
            if piece[:1] == b"l":
                break
        self.assertIn(b'<reg name="rip"', whole)
        self.assertTrue(whole.endswith(b"</target>\n"))
        bits = sum(int(size) for size in re.findall(rb'<reg [^>]*bitsize="(\d+)"', whole))
        self.assertEqual(len(self.packets.ask(b"g")), bits // 4)
