"""The program around the machine: the terminal is given back whatever ends it, output is not lost, logs hold what they
should. The guest is a ROM that says "before" and stops."""

import os
import pathlib
import re
import resource
import signal
import socket
import subprocess
import tempfile
import termios
import time
import unittest

import gdb as debugger
import machine

SOURCES = pathlib.Path(__file__).resolve().parent / "hostile"
HALT, SPIN = 1, 2


@unittest.skipUnless(machine.IS_PENUMBRA, "exit statuses and messages are Penumbra's own")
class Console(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        for which in (HALT, SPIN):
            subprocess.run(
                ["nasm", "-f", "bin", "-I", f"{SOURCES}/", f"-DWHICH={which}", "-o", cls.folder / f"{which}.rom"]
                + [SOURCES / "stops.asm"],
                check=True,
            )

    def command(self, which, *options):
        return machine.command_line("-bios", self.folder / f"{which}.rom", "-m", "16M", "-nographic", *options)

    def started(self, which=SPIN, *options):
        terminal = machine.Terminal(self.command(which, *options))
        self.addCleanup(terminal.__exit__)
        self.mode = termios.tcgetattr(terminal.slave)
        terminal.expect("before\n", 20)
        return terminal

    def mode_becomes(self, terminal, raw):
        for _ in range(100):
            if (termios.tcgetattr(terminal.slave) != self.mode) == raw:
                return
            time.sleep(0.02)
        self.fail("the terminal did not become " + ("raw" if raw else "sane"))

    def ended(self, terminal, status):
        self.assertEqual(terminal.wait(10), status, terminal.text)
        self.assertEqual(termios.tcgetattr(terminal.slave), self.mode)

    def test_signals_that_end_it(self):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            with self.subTest(number.name):
                # Whoever runs this may ignore some (nohup, background jobs), and so would what it starts.
                before = signal.signal(number, signal.SIG_DFL)
                try:
                    terminal = self.started()
                finally:
                    signal.signal(number, before)
                self.mode_becomes(terminal, raw=True)
                terminal.signal(number)
                self.ended(terminal, -number)

    def test_a_crash(self):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        terminal = self.started()
        self.mode_becomes(terminal, raw=True)
        terminal.signal(signal.SIGABRT)
        self.ended(terminal, -signal.SIGABRT)
        self.assertIn("internal error: SIGABRT", terminal.text)
        self.assertIn("RIP", terminal.text)

    def test_stop_and_continue(self):
        terminal = self.started()
        self.mode_becomes(terminal, raw=True)
        terminal.signal(signal.SIGTSTP)
        self.mode_becomes(terminal, raw=False)
        state = pathlib.Path(f"/proc/{terminal.process.pid}/stat")
        deadline = time.monotonic() + 10
        while state.read_text().rsplit(")", 1)[1].split()[0] != "T":
            self.assertLess(time.monotonic(), deadline, "it goes on")
            time.sleep(0.02)
        terminal.signal(signal.SIGCONT)
        self.mode_becomes(terminal, raw=True)
        terminal.send("\x01x")
        self.ended(terminal, 0)

    def test_ctrl_a_x_when_the_guest_reads_nothing(self):
        terminal = self.started()
        self.mode_becomes(terminal, raw=True)
        for _ in range(20):
            terminal.send("lost input " * 50)
            time.sleep(0.02)
        terminal.send("\x01x")
        self.ended(terminal, 0)

    def test_a_halt_without_end(self):
        terminal = self.started(HALT)
        self.ended(terminal, 0)
        self.assertIn("HLT with interrupts off", terminal.text)

    def test_end_of_input_ends_nothing(self):
        process = subprocess.Popen(self.command(SPIN), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.assertEqual(process.stdout.readline(), b"before\n")
        time.sleep(0.3)
        self.assertIsNone(process.poll())
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(10), -signal.SIGTERM)
        process.stdout.close()

    def test_ctrl_a_x_from_a_pipe(self):
        process = subprocess.run(self.command(SPIN), input=b"\x01x", stdout=subprocess.PIPE, timeout=20)
        self.assertEqual(process.returncode, 0)

    def test_no_standard_descriptors(self):
        log = self.folder / "no_descriptors"
        process = subprocess.run(
            ["sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-', *self.command(HALT, "-serial", f"file:{log}")], timeout=20
        )
        self.assertEqual((process.returncode, log.read_bytes()), (0, b"before\n"))

    def test_a_reader_that_goes_away(self):
        read_end, write_end = os.pipe()
        os.close(read_end)
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(self.command(SPIN), stdin=subprocess.DEVNULL, stdout=write_end, stderr=errors)
            os.close(write_end)
            self.assertEqual(process.wait(10), -signal.SIGPIPE)
            errors.seek(0)
            self.assertEqual(errors.read(), b"")

    def test_full_disk(self):
        status, _, errors = machine.run(self.command(HALT, "-serial", "file:/dev/full"), 20)
        self.assertEqual(status, 0, errors)
        self.assertIn("/dev/full: No space left on device", errors)

    def test_log_of_interrupts(self):
        log = self.folder / "int.log"
        rom = self.folder / "triple.rom"
        subprocess.run(["nasm", "-f", "bin", "-I", f"{SOURCES}/", "-o", rom, SOURCES / "triple_fault.asm"], check=True)
        status, _, errors = machine.run(
            machine.command_line("-bios", rom, "-m", "16M", "-no-reboot", "-d", "int", "-D", log), 20
        )
        self.assertEqual(status, 1, errors)
        # INT3 with no IDT: #GP, whose gate is missing, too; #DF, whose gate is missing, too.
        lines = log.read_text().splitlines()
        events = [line[8:12] for line in lines if re.match(r" *\d+: ", line)]
        self.assertEqual(events, ["v=03", "v=0d", "v=08"], lines)
        raised = [line for line in lines if line.startswith("check_exception")]
        self.assertEqual([line.split()[2:] for line in raised], [
            ["0xffffffff", "new", "0xd"], ["0xd", "new", "0xd"], ["0x8", "new", "0xd"]])
        self.assertEqual(lines[-1], "Triple fault")

    def test_dump_of_a_triple_fault(self):
        rom = self.folder / "triple.rom"
        subprocess.run(["nasm", "-f", "bin", "-I", f"{SOURCES}/", "-o", rom, SOURCES / "triple_fault.asm"], check=True)
        triple = machine.command_line("-bios", rom, "-m", "16M", "-nographic", "--on-triple-fault")
        status, _, errors = machine.run([*triple, "exit"], 20)
        self.assertEqual(status, 1, errors)
        for expected in (
            r"page walk of RIP L:0x[0-9a-f]+: no paging",
            r"exceptions and interrupts, the latest first:\n  #GP .*, not delivered\n  #DF ",
            # Every block, the loop that printed the last letter too.
            r"blocks, the latest first:\n(  L:0x[0-9a-f]+ P:0x[0-9a-f]+ 32 bits, \d+ instructions, \d+ bytes\n){32}-",
            r"lidtl .*\n.*int3 ",
        ):
            self.assertRegex(errors, expected)
        terminal = machine.Terminal([*triple, "stop"])
        self.addCleanup(terminal.__exit__)
        terminal.expect("the machine is paused", 20)
        terminal.send("\x01x")
        self.assertEqual(terminal.wait(10), 0, terminal.text)

    def test_log_of_code(self):
        log = self.folder / "asm.log"
        machine.run(self.command(HALT, "-d", "out_asm", "-D", log), 20)
        self.assertIsNotNone(re.search(r"hlt +privileged, callout.*\| ", log.read_text()))

    def test_log_that_cannot_be_made(self):
        status, _, errors = machine.run(self.command(HALT, "-d", "int", "-D", self.folder / "no" / "log"), 20)
        self.assertEqual(status, 2)
        self.assertEqual(len(errors.splitlines()), 1, errors)
        self.assertIn(str(self.folder / "no" / "log"), errors)

    def test_ports_that_are_taken(self):
        status, _, errors = machine.run(self.command(HALT, "-device", "isa-debug-exit,iobase=0x60"), 20)
        self.assertEqual((status, len(errors.splitlines())), (2, 1), errors)
        self.assertIn("-device", errors)

    def test_stats(self):
        status, output, errors = machine.run(self.command(HALT, "--stats"), 20)
        self.assertEqual((status, output), (0, "before\n"))
        for what in ("blocks translated", "callouts", "port writes", "fills", "code cache", "total", "peak resident"):
            self.assertIn(what, errors)

    def test_explain(self):
        code = self.folder / "code.bin"
        code.write_bytes(bytes.fromhex("4889d8 0fa2 ebfa"))  # mov rax, rbx; cpuid; jmp to its operand
        program = machine.VMM[:-1] if machine.VMM[-1] == "run" else machine.VMM
        status, output, errors = machine.run([*program, "explain", code, "--mode", "64", "--base", "0x1000"], 20)
        self.assertEqual((status, errors), (0, ""))
        self.assertRegex(output, r"0x0*1000 +mov rax, rbx +innocuous")
        self.assertRegex(output, r"0x0*1003 +cpuid +\w+, callout")


@unittest.skipUnless(machine.IS_PENUMBRA, "exit statuses and messages are Penumbra's own")
class NobodyReads(unittest.TestCase):
    """A terminal or pipe that nobody reads: the guest waits, the program does not, and nothing is lost that anybody takes later."""

    IGNORANT, POLITE, FINITE = 1, 2, 3
    LINES = 12000

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        for which in (cls.IGNORANT, cls.POLITE, cls.FINITE):
            subprocess.run(
                ["nasm", "-f", "bin", "-I", f"{SOURCES}/", f"-DWHICH={which}", "-o", cls.folder / f"{which}.rom", SOURCES / "talks.asm"],
                check=True,
            )

    def command(self, which, *options):
        return machine.command_line(
            *("-bios", self.folder / f"{which}.rom", "-m", "16M", "-nographic", "-device", "isa-debug-exit,iobase=0xf4"), *options
        )

    def start(self, which, *options):
        """With a terminal that nobody reads; the function types at it."""
        master, slave = os.openpty()
        process = subprocess.Popen(self.command(which, *options), stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)

        def end():
            process.kill()
            process.wait()
            os.close(master)

        self.addCleanup(end)
        return process, master

    def connected(self, path):
        deadline = time.monotonic() + 20 * machine.PATIENCE
        while True:
            try:
                return debugger.Packets(path)
            except OSError:  # it is not there yet, or does not listen yet
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.02)

    def counter(self, packets):
        return int.from_bytes(bytes.fromhex(packets.ask(b"m500,4").decode()), "little")

    def test_gdb_interrupts_it(self):
        for which in (self.IGNORANT, self.POLITE):
            with self.subTest(which):
                path = self.folder / f"gdb{which}"
                self.start(which, "-gdb", f"unix:{path}")
                packets = self.connected(path)
                self.addCleanup(packets.close)
                seen = []
                for _ in range(3):
                    packets.send(b"c")
                    time.sleep(1)
                    packets.raw(b"\x03")
                    self.assertRegex(packets.receive(), rb"^T02thread:01;")
                    seen.append(self.counter(packets))
                    self.assertRegex(packets.ask(b"s"), rb"^T05thread:01;")
                if which == self.POLITE:
                    # A guest that asks the serial port goes on meanwhile.
                    self.assertLess(seen[1], seen[2])

    def test_the_monitor_stops_and_ends_it(self):
        path = self.folder / "monitor"
        process, _ = self.start(self.IGNORANT, "-monitor", f"unix:{path},server,nowait")
        time.sleep(1)
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(20 * machine.PATIENCE)
            monitor.connect(str(path))
            text = b""
            for command, answer in ((b"stop\n", b"(qemu) "), (b"info status\n", b"paused"), (b"cont\n", b"(qemu) "), (b"quit\n", b"")):
                text = b""
                monitor.sendall(command)
                while answer not in text:
                    text += monitor.recv(4096)
            self.assertEqual(process.wait(10 * machine.PATIENCE), 0)

    def test_keys_and_signals_end_it(self):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        for which in (self.IGNORANT, self.POLITE, self.FINITE):
            for end, status in ((signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, -signal.SIGINT), (b"\x01x", 0), (b"\x01h\x01c\x01c\x01x", 0)):
                with self.subTest(which=which, end=end):
                    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
                    try:
                        process, master = self.start(which)
                    finally:
                        signal.signal(signal.SIGINT, before)
                    time.sleep(1)
                    self.assertIsNone(process.poll())
                    if isinstance(end, bytes):
                        os.write(master, end)
                    else:
                        process.send_signal(end)
                    # What ended the machine first says how it ended.
                    expected = 0x55 << 1 | 1 if status == 0 and which == self.FINITE else status
                    self.assertEqual(process.wait(10 * machine.PATIENCE), expected)

    def test_a_reader_that_comes_late_has_everything(self):
        for what in ("pipe", "terminal"):
            with self.subTest(what):
                read_end, write_end = os.pipe() if what == "pipe" else os.openpty()
                process = subprocess.Popen(self.command(self.FINITE), stdin=subprocess.DEVNULL, stdout=write_end)
                os.close(write_end)
                time.sleep(1)
                self.assertIsNone(process.poll())
                text = b""
                try:
                    while data := os.read(read_end, 1000):
                        text += data
                except OSError:  # a terminal's end
                    pass
                os.close(read_end)
                self.assertEqual(process.wait(10 * machine.PATIENCE), 0x55 << 1 | 1)
                numbers = [int(line, 16) for line in text.decode().split()]
                self.assertEqual(numbers, list(range(self.LINES)))

    def test_a_serial_port_to_a_pipe_of_its_own(self):
        fifo = self.folder / "fifo"
        os.mkfifo(fifo)
        keep = os.open(fifo, os.O_RDWR)
        self.addCleanup(os.close, keep)
        process = subprocess.Popen(self.command(self.IGNORANT, "-serial", f"file:{fifo}"), stderr=subprocess.PIPE)
        self.addCleanup(process.stderr.close)
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(10 * machine.PATIENCE), -signal.SIGTERM)
        self.assertRegex(process.stderr.read().decode(), r"fifo: nobody took the last \d+ bytes")


class DumpOfATripleFault:
    """Linux with reboot=t resets by a triple fault."""

    def command(self, action):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        script = pathlib.Path(folder.name) / "script"
        script.write_text("reboot -f\n")
        initrd = pathlib.Path(folder.name) / "initrd"
        machine.build_initrd(self.guest, script, initrd)
        command = machine.linux(
            self.guest, initrd, "--on-triple-fault", action, append="console=ttyS0 reboot=t nokaslr", memory="512M"
        )
        command.remove("-no-reboot")
        return command

    def test_dump(self):
        status, output, errors = machine.run(self.command("exit"), machine.BOOT_SECONDS)
        self.assertEqual(status, 1, output[-500:] + errors)
        levels = "".join(rf"  {name} +P:0x[0-9a-f]+ [0-9a-f]+ P .*\n" for name in self.levels)
        for register in ("RIP", "RSP"):
            self.assertRegex(errors, rf"page walk of {register} L:0x{self.kernel}\w+\n{levels}.*  P:0x")
        self.assertRegex(errors, r"page walk of CR2 L:0x")
        for name in ("RAX", "RFLAGS", "CS", "TR", "GDT", "IDT", "CR0", "CR3", "CR4", "EFER", "DR7"):
            self.assertRegex(errors, rf"(?m)\b{name} ")
        self.assertRegex(errors, r"exceptions and interrupts, the latest first:\n(  .*\n){16}\w")
        self.assertRegex(errors, r"blocks, the latest first:\n(  L:0x[0-9a-f]+ P:0x[0-9a-f]+ \d\d bits, .*\n){32}")

    def test_reset(self):
        terminal = machine.Terminal(self.command("reset"))
        self.addCleanup(terminal.__exit__)
        for _ in range(2):
            terminal.expect("script begins", machine.BOOT_SECONDS)
            terminal.expect("page walk of RIP", 20)


@unittest.skipUnless(machine.IS_PENUMBRA, "an option of Penumbra's own")
class DumpOfATripleFaultAmd64(DumpOfATripleFault, unittest.TestCase):
    guest, kernel = "amd64", "ffff"
    levels = ("PML4E", "PDPTE", "PDE")


@unittest.skipUnless(machine.IS_PENUMBRA, "an option of Penumbra's own")
class DumpOfATripleFaultI686(DumpOfATripleFault, unittest.TestCase):
    guest, kernel = "i686", "c"
    levels = ("PDE",)
