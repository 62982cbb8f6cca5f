"""The serial console in a terminal: the prompt comes, typing works, the escapes work, the terminal is sane afterwards."""

import hashlib
import os
import signal
import termios
import time
import unittest

import machine


class InTerminal:
    guest = None

    def boot(self):
        terminal = machine.Terminal(machine.linux(self.guest, machine.shell_initrd(self.guest)))
        self.addCleanup(terminal.__exit__)
        self.before = termios.tcgetattr(terminal.slave)
        terminal.expect("(?m)^" + machine.PROMPT, machine.BOOT_SECONDS)
        # Late kernel messages would stand between a command and its output.
        terminal.shell("dmesg -n 1")
        return terminal

    def ends_sanely(self, terminal, statuses=(0,)):
        self.assertIn(terminal.wait(20), statuses, terminal.text[-1000:])
        self.assertEqual(termios.tcgetattr(terminal.slave), self.before)

    def test_typing_and_poweroff(self):
        terminal = self.boot()
        self.assertNotEqual(termios.tcgetattr(terminal.slave), self.before, "the terminal is not raw while it runs")
        self.assertEqual(terminal.shell("echo $((6 * 7))"), "42")
        self.assertIn(" 6.1.", terminal.shell("uname -a"))
        self.assertIn("proc /proc proc", terminal.shell("cat /proc/mounts"))
        # Line editing: the console's backspace and cursor keys reach the guest.
        terminal.send("echo wrogn\x7f\x7fng\r")
        terminal.expect("\nwrong\n", 30)
        # A long line in one go must lose no character in the UART's FIFO.
        text = "abcdefghij" * 20
        terminal.send(f"echo {text} | md5sum\r")
        terminal.expect("\n" + hashlib.md5(f"{text}\n".encode()).hexdigest() + "  -\n", 30)
        terminal.send("poweroff -f\r")
        self.ends_sanely(terminal)

    def test_ctrl_c_goes_to_the_guest(self):
        terminal = self.boot()
        terminal.send("sleep 1000; echo after\r")
        terminal.expect("after\n", 30)
        time.sleep(1)
        terminal.send("\x03")
        terminal.expect(machine.PROMPT, 30)
        self.assertEqual(terminal.shell("echo alive"), "alive")
        terminal.send("\x01x")
        self.ends_sanely(terminal)

    def test_escapes(self):
        terminal = self.boot()
        terminal.send("\x01h")
        terminal.expect("(?i)C-a x|Ctrl-A X", 10)
        # Ctrl-A twice sends one to the guest: the shell's "start of line".
        terminal.send("ho works\x01\x01ec\r")
        terminal.expect("\nworks\n", 30)
        terminal.send("\x01x")
        self.ends_sanely(terminal)

    def test_sigterm_restores_the_terminal(self):
        terminal = self.boot()
        terminal.signal(signal.SIGTERM)
        self.ends_sanely(terminal, (0, -signal.SIGTERM, 128 + signal.SIGTERM, 1))


class Amd64Terminal(InTerminal, unittest.TestCase):
    guest = "amd64"


class I686Terminal(InTerminal, unittest.TestCase):
    guest = "i686"


class Demo(unittest.TestCase):
    """./demo as a person starts it."""

    def test_demo_in_a_terminal(self):
        os.environ.setdefault("TERM", "vt100")
        terminal = machine.Terminal([machine.REPO / "demo"])
        self.addCleanup(terminal.__exit__)
        before = termios.tcgetattr(terminal.slave)
        terminal.expect("(?m)^" + machine.PROMPT, 900 + machine.BOOT_SECONDS)
        self.assertEqual(terminal.shell("echo $((6 * 7))"), "42")
        terminal.send("\x01x")
        self.assertEqual(terminal.wait(20), 0, terminal.text[-1000:])
        self.assertEqual(termios.tcgetattr(terminal.slave), before)

    def test_demo_without_a_terminal(self):
        status, output, errors = machine.run([machine.REPO / "demo"], 1200)
        self.assertEqual(status, 0, errors)
        self.assertIn("the shell counts: 1 2 3 4 5\n", output)
