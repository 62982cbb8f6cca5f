"""Hosts that refuse something: a line says so, the guest runs on the slower path and gets the right answers; or the VMM ends with
one line. Never a crash."""

import os
import pathlib
import re
import resource
import subprocess
import tempfile
import unittest

import isolation_test
import machine

HERE = pathlib.Path(__file__).resolve().parent
GIB = 1 << 30


@unittest.skipUnless(machine.IS_PENUMBRA, "about Penumbra's use of the host")
class Conditions(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        isolation_test.build_guests(cls.folder)
        cls.library = cls.folder / "refuse.so"
        subprocess.run(
            ["gcc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", cls.library, HERE / "refuse.c", "-ldl"], check=True
        )

    def run_guest(self, bits, mmu="windows", refuse=None, limits=()):
        """The notes and the number of windows filled, after right answers; None after a refusal in one line."""
        environment = dict(os.environ)
        if refuse:
            environment |= {"LD_PRELOAD": str(self.library), "PENUMBRA_REFUSE": refuse}

        def limit():
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # with 65,000 mappings a dump takes minutes
            for which, value in limits:
                resource.setrlimit(which, (value, value))

        status, text, errors, _ = isolation_test.run_guest(
            self.folder, bits, mmu, 1, layouts=2, env=environment, preexec_fn=limit, cwd=self.folder
        )
        if status in (1, 2):
            self.assertRegex(errors, r"^(penumbra: note: .*\n)?penumbra: .*(host|memory).*\n$")
            return None
        self.assertEqual(status, isolation_test.ENDED, f"{errors[-2000:]}\n{text[-2000:]}")
        self.assertRegex(text, f"^{isolation_test.COUNTS}$")
        notes = [line for line in errors.splitlines() if line.startswith("penumbra: ")]
        return notes, int(re.search(isolation_test.FILLS, errors)[1])

    def goes_slower(self, note, **keywords):
        """One note, and no windows."""
        for mmu in ("windows", "auto"):
            with self.subTest(mmu=mmu):
                notes, fills = self.run_guest(64, mmu, **keywords)
                self.assertEqual(len(notes), 1, notes)
                self.assertRegex(notes[0], f"note: shadow windows: {note}.*; using the software TLB")
                self.assertEqual(fills, 0)

    def test_no_memory_files(self):
        self.goes_slower("guest RAM is no file", refuse="memfd")

    def test_files_may_not_grow(self):
        self.goes_slower("guest RAM is no file", limits=[(resource.RLIMIT_FSIZE, 1 << 20)])

    def test_a_thousand_mappings(self):
        self.goes_slower("vm.max_map_count is too small", refuse="limit=1000")

    def test_no_address_space_for_windows(self):
        for gib in (2, 100, 700, 4000):
            with self.subTest(gib=gib):
                self.goes_slower("no address space", limits=[(resource.RLIMIT_AS, gib * GIB)])

    def test_little_address_space(self):
        for mib in (40, 64, 100, 160, 200, 256, 300, *range(306, 324), 400, 600, 1000):
            for bits in (64, 32):
                with self.subTest(mib=mib, bits=bits):
                    self.run_guest(bits, limits=[(resource.RLIMIT_AS, mib << 20)])

    def test_address_space_for_some_windows(self):
        for gib in range(16990, 17400, 45):
            with self.subTest(gib=gib):
                self.assertIsNotNone(self.run_guest(32, limits=[(resource.RLIMIT_AS, gib * GIB)]))

    def test_mappings_run_out(self):
        for left in (0, 60, 200, 250, 1000):
            for bits in (64, 32):
                with self.subTest(left=left, bits=bits):
                    result = self.run_guest(bits, refuse=f"left={left}")
                    if left >= 200:
                        notes, fills = result
                        self.assertGreater(fills, 0)
                    if 200 <= left < 1000:
                        self.assertIn("the host refused to map memory", "".join(notes))

    def test_no_replacing_maps(self):
        notes, fills = self.run_guest(64, refuse="noreplace")
        self.assertEqual(notes, [])
        self.assertGreater(fills, 0)

    def test_no_timers_for_samples(self):
        for bits in (64, 32):  # 64-bit code comes to its windows without them
            with self.subTest(bits=bits):
                notes, fills = self.run_guest(bits, "auto", limits=[(resource.RLIMIT_SIGPENDING, 0)])
                self.assertEqual((notes, fills > 0), ([], bits == 64))
