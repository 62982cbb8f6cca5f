"""Checks a guest's kernel log: each line of level warn or above must be explained in dmesg_explained.txt."""

import pathlib
import re

import machine

WARN = 4


def explained():
    """Patterns of the explained messages. In the file, patterns stand at the line's start; the indented text that
    follows explains them and must not be missing."""
    patterns, unexplained = [], []
    for line in (pathlib.Path(__file__).parent / "dmesg_explained.txt").read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if line[0].isspace():
            unexplained = []
        else:
            patterns.append(re.compile(line))
            unexplained.append(line)
    assert not unexplained, f"dmesg_explained.txt: no explanation of {unexplained}"
    return patterns


def raised(log):
    """The messages of level warn and above in the output of `dmesg -r`."""
    messages = []
    for line in log.splitlines():
        match = re.match(r"<(\d+)>\[ *\d+\.\d+\] ?(.*)", line)
        if match and int(match[1]) & 7 <= WARN:
            messages.append(match[2])
    return messages


def trouble(log):
    """Lines that no healthy boot has, and raised ones without an explanation. The explanations are of Penumbra's
    machine; another VMM's has other chips."""
    found = [line for line in log.splitlines() if machine.KERNEL_TROUBLE.search(line)]
    patterns = explained()
    if machine.IS_PENUMBRA:
        found += [
            "not explained: " + message
            for message in raised(log)
            if not any(pattern.search(message) for pattern in patterns)
        ]
    return found
