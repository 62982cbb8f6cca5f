"""Bare-metal guests (tests/guest), each a table of checks with a line for each: the lines equal QEMU's, or what this computer's
processor answers at CPL 3, or tests/guest/differences.txt says why not."""

import collections
import importlib.machinery
import importlib.util
import itertools
import pathlib
import re
import shutil
import tempfile
import unittest

import machine

GUESTS = pathlib.Path(__file__).resolve().parent.parent / "guest"
ENDED = 0x10 << 1 | 1
SECONDS = 120
QEMU = shutil.which("qemu-system-x86_64")

# The engine's modes must agree. A matrix is long, so only what changes its memory accesses is tried with it.
MMUS = tuple(["--mmu", mmu] for mmu in ("tlb", "windows", "auto"))
ENGINES = (*MMUS, ["--jit", "no-chain,no-jump-cache,no-flag-liveness,no-soft-tlb,no-long-blocks"])
MATRIX_ENGINES = (*MMUS, ["--jit", "no-soft-tlb"])


def load_builder():
    loader = importlib.machinery.SourceFileLoader("guest_build", str(GUESTS / "build"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


class Difference:
    """An entry of differences.txt."""

    def __init__(self, guest, name, answer):
        self.guest, self.name, self.answer = guest, name, answer
        self.reason = ""
        self.used = False

    def explains(self, guest, name, answer):
        return guest == self.guest and re.fullmatch(self.name, name) and re.fullmatch(self.answer, answer)


def read_differences():
    differences, group, headers = [], [], True
    for line in (GUESTS / "differences.txt").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        if line.startswith("  "):
            for entry in group:
                entry.reason += line
            headers = False
            continue
        if not headers:
            group, headers = [], True
        guest, _, rest = line.partition(": ")
        name, _, answer = rest.rpartition(" -> ")
        group.append(Difference(guest, name, answer))
        differences.append(group[-1])
    return differences


class Guests(unittest.TestCase):
    maxDiff = None
    checks = 0
    ways = {}  # by guest: (exception, check)

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.builder = load_builder()
        cls.differences = read_differences()

    @classmethod
    def tearDownClass(cls):
        print(f"     all guests: {cls.checks} checks, {len(cls.differences)} entries for differences from QEMU", flush=True)

    def devices(self, name):
        """What the guest's machine has beside memory and ports to speak through."""
        if name != "interrupts64":
            return []
        disk = self.folder / "disk.img"
        disk.write_bytes(bytes(1 << 20))
        return ["-drive", f"if=none,id=disk,format=raw,file={disk}", "-device", "ich9-ahci,id=ahci", "-device", "ide-hd,drive=disk,bus=ahci.0"]

    def answers(self, vmm, name, *options):
        """The lines that a guest printed: (group, name, answer)."""
        log = self.folder / "log"
        log.unlink(missing_ok=True)
        status, _, errors = machine.run(
            [*vmm, "-cpu", "max", "-kernel", self.folder / name, "-m", "64M", "-display", "none", "-no-reboot"]
            + ["-serial", "null", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x4"]
            + ["-device", "isa-debugcon,iobase=0xe9,chardev=log", "-chardev", f"file,id=log,path={log}", *self.devices(name), *options],
            SECONDS,
        )
        text = log.read_text(errors="replace") if log.exists() else ""
        self.assertEqual(status, ENDED, f"{vmm[0]}: {errors[-1500:]}\nlast lines:\n{text[-500:]}")
        return self.split(text)

    @staticmethod
    def split(text):
        lines, group = [], ""
        for line in text.splitlines():
            if line.startswith("-- "):
                group = line[3:]
            else:
                check, _, answer = line.partition(": ")
                lines.append((group, check, answer))
        return lines

    def native_answers(self, name):
        """What the processor at hand answers, for guests that know how to ask it: by group and name, in order."""
        if "FIRST_CPL" not in (GUESTS / f"{name}.c").read_text():
            return {}
        program = self.folder / f"{name}.native"
        self.builder.build_native(name, program)
        status, text, errors = machine.run([program], SECONDS)
        self.assertEqual(status, 0, f"{errors}\nlast lines:\n{text[-500:]}")
        answers = collections.defaultdict(list)
        for group, check, answer in self.split(text):
            answers[group, check].append(answer)
        return answers

    def compare(self, guest, lines, expected, native):
        wrong, at = [], 0
        asked = collections.Counter()
        for group, name, answer in lines:
            # The same check at CPL 0 has the same answer, or is not settled by it.
            question = group.replace("CPL 0", "CPL 3"), name
            settled = native.get(question, [])[asked[group, name] :][:1] == [answer]
            asked[group, name] += 1
            theirs = "(no such line)"  # what QEMU's CPUID does not offer
            if at < len(expected) and expected[at][:2] == (group, name):
                theirs = expected[at][2]
                at += 1
            if answer == theirs or settled:
                continue
            entries = [entry for entry in self.differences if entry.explains(guest, name, answer)]
            for entry in entries:
                entry.used = True
            if not entries:
                wrong.append(f"{group}: {name}\n  {answer}\n  {theirs} (QEMU)")
        self.assertEqual(expected[at:], [], "lines that only QEMU's run has, or in another order")
        self.assertFalse(bool(wrong), f"{len(wrong)} of {len(lines)} answers differ:\n" + "\n".join(wrong[:40]))

    def run_guest(self, name):
        self.builder.build(name, self.folder / name)
        engines = MATRIX_ENGINES if name.startswith("matrix") else ENGINES
        if not machine.IS_PENUMBRA:
            engines = [[]]
        all_lines = [self.answers(machine.VMM, name, *engine) for engine in engines]
        for engine, lines in zip(engines, all_lines):
            with self.subTest(engine=" ".join(engine)):
                wrong = [f"{mine}\n  {first}" for mine, first in itertools.zip_longest(lines, all_lines[0]) if mine != first]
                self.assertFalse(bool(wrong), f"the engine's modes disagree, {len(wrong)} lines:\n" + "\n".join(wrong[:20]))
        if not QEMU:
            self.skipTest("no qemu-system-x86_64 to compare with")
        native = self.native_answers(name)
        self.compare(name, all_lines[0], self.answers([QEMU, "-accel", "tcg"], name), native)
        type(self).checks += len(all_lines[0])
        self.ways[name] = {(match[1], check) for _, check, answer in all_lines[0] for match in re.finditer(r"#([A-Z]{2})\b", answer)}
        print(f"     {name}: {len(all_lines[0])} checks", flush=True)

    def test_z_every_exception_is_raised_in_at_least_three_ways(self):
        """After all guests. A way is a check's name: the same instruction at another CPL is none of its own. (#NM is a letter in
        the tables of fpu64.)"""
        if len(self.ways) < len(list(GUESTS.glob("*.c"))):
            self.skipTest("not all guests ran")
        ways = collections.defaultdict(set)
        for guest, raised in self.ways.items():
            for vector, name in raised:
                ways[vector].add((guest, name))
        counts = {f"#{vector}": len(ways[vector]) for vector in "DE DB BP OF BR UD DF TS NP SS GP PF MF AC XM".split()}
        print("     ways to raise each exception: " + ", ".join(f"{vector} {count}" for vector, count in counts.items()), flush=True)
        self.assertEqual({vector: count for vector, count in counts.items() if count < 3}, {})

    def test_every_difference_has_a_reason(self):
        for entry in self.differences:
            with self.subTest(entry.name):
                self.assertRegex(entry.reason, r"SDM vol\. [123]|APM vol\. [1-5]|[Ss]ilicon")
                self.assertTrue((GUESTS / f"{entry.guest}.c").exists())


def add_tests():
    for source in sorted(GUESTS.glob("*.c")):
        name = source.stem

        def test(self, name=name):
            self.run_guest(name)

        def test_used(self, name=name):
            unused = [entry.name for entry in self.differences if entry.guest == name and not entry.used]
            self.assertEqual(unused, [], "entries of differences.txt that nothing needs")

        setattr(Guests, f"test_{name}", test)
        setattr(Guests, f"test_{name}_needs_its_differences", test_used)


add_tests()
