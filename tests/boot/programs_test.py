"""A slice of tests/programs, which runs the same programs on the host and in the guest and compares what they print."""

import unittest

import machine


class Programs:
    def test_slice(self):
        command = [machine.REPO / "tests" / "programs", "--slice", "--guest", self.guest]
        status, text, errors = machine.run(command, 900)
        if status == 77:
            self.skipTest(text.strip() + errors.strip())
        self.assertEqual(status, 0, text[-6000:] + errors[-2000:])


class ProgramsAmd64(Programs, unittest.TestCase):
    guest = "amd64"


class ProgramsI686(Programs, unittest.TestCase):
    guest = "i686"
