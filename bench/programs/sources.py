#!/usr/bin/env python3
"""sources.py FOLDER: writes the C sources that the rows gcc and make compile, the same ones everywhere.

FOLDER/large.c is one file of 5,000 lines; FOLDER/project gets folders of sources, each with the Makefile that names
them, for the Makefile and build.mk that are kept beside this file. Nothing of it is ever run.
"""

import pathlib
import sys

LARGE_LINES = 5000
FOLDERS = {
    "kernel": ("start", "sched", "signal"),
    "mm": ("page", "slab", "swap"),
    "fs": ("inode", "file", "pipe"),
    "drivers": ("console", "disk", "net"),
    "lib": ("string", "list", "hash"),
}
VERSIONED = ("start", "console")  # what includes the header that bench/programs/project/Makefile changes


class Random:
    """Not Python's: its sequences differ between versions."""

    def __init__(self, seed):
        self.state = seed * 2654435761 % 2**64 | 1

    def below(self, limit):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % limit

    def choice(self, items):
        return items[self.below(len(items))]


def expression(random, names, depth):
    """An unsigned expression without undefined behaviour."""
    if depth == 0:
        return random.choice(names) if random.below(4) else f"{random.below(60000) + 1}u"
    left, right = expression(random, names, depth - 1), expression(random, names, depth - 1)
    kind = random.below(8)
    if kind == 0:
        return f"({left} >> {random.below(15) + 1})"
    if kind == 1:
        return f"({left} << {random.below(7) + 1})"
    if kind == 2:
        return f"({left} % {random.below(200) + 3}u)"
    return f"({left} {random.choice('+-*^&|')} {right})"


def arithmetic(random, name, callees):
    names = ["a", "b", "c", "x"]
    yield f"unsigned {name}(unsigned a, unsigned b) {{"
    yield "  unsigned c = a ^ b, x = 1;"
    for _ in range(4 + random.below(6)):
        target = random.choice(names)
        yield f"  {target} = {expression(random, names, 2)};"
        if random.below(3) == 0:
            yield f"  if ({expression(random, names, 1)} > {target}) {{"
            yield f"    {random.choice(names)} += {expression(random, names, 1)};"
            if callees:
                yield f"    x ^= {random.choice(callees)}(x, {random.choice(names)});"
            yield "  }"
    yield "  return a + b * 3 + c * 5 + x * 7;"
    yield "}"


def loops(random, name, callees):
    names = ["n", "i", "sum", "table[i]"]
    size = 1 << (4 + random.below(4))
    yield f"unsigned {name}(unsigned n, unsigned seed) {{"
    yield f"  unsigned table[{size}], sum = seed;"
    yield f"  for (unsigned i = 0; i < {size}; i++) table[i] = {expression(random, ['n', 'i', 'seed'], 2)};"
    for _ in range(2 + random.below(2)):
        yield f"  for (unsigned i = {random.below(4)}; i < {size}; i++) {{"
        yield f"    const unsigned other = table[(i + {random.below(50) + 1}) % {size}];"
        yield f"    if (other > {expression(random, names, 1)}) {{"
        yield f"      sum += {expression(random, names + ['other'], 2)};"
        yield "    } else {"
        yield f"      table[i] ^= {expression(random, names + ['other'], 1)};"
        yield "    }"
        yield "  }"
    if callees:
        yield f"  sum ^= {random.choice(callees)}(table[{random.below(16)}], sum);"
    yield "  return sum;"
    yield "}"


def switches(random, name, callees):
    names = ["state", "input", "count"]
    cases = 5 + random.below(6)
    yield f"unsigned {name}(unsigned input, unsigned count) {{"
    yield f"  unsigned state = input % {cases};"
    yield "  while (count-- > 1) {"
    yield "    switch (state) {"
    for case in range(cases):
        yield f"      case {case}:"
        yield f"        input = {expression(random, names, 2)};"
        if callees and random.below(3) == 0:
            yield f"        if (input & {1 << random.below(16)}) return {random.choice(callees)}(input, count);"
        yield f"        state = input & {1 << random.below(10)} ? {random.below(cases)} : {random.below(cases)};"
        yield "        break;"
    yield "      default:"
    yield "        return input;"
    yield "    }"
    yield "  }"
    yield "  return state + input;"
    yield "}"


def records(random, name, callees):
    yield f"unsigned {name}(unsigned key, unsigned limit) {{"
    yield "  struct record* last = 0;"
    yield "  unsigned found = 0;"
    yield "  for (struct record* at = records; at && limit--; at = at->next) {"
    yield f"    if (at->key == key + {random.below(100)}) {{"
    yield f"      at->count += {expression(random, ['key', 'limit', 'at->count'], 1)};"
    yield f"      at->flags |= {1 << random.below(8)};"
    yield "      if (last) {"
    yield "        last->next = at->next;"
    yield "        at->next = records;"
    yield "        records = at;"
    yield "      }"
    yield "      found++;"
    yield f"    }} else if (at->flags & {1 << random.below(8)}) {{"
    yield f"      at->name[at->key % sizeof at->name] = (char)('a' + (at->count + {random.below(26)}) % 26);"
    yield f"      found ^= {expression(random, ['at->key', 'found', 'at->count'], 2)};"
    yield "    }"
    yield "    last = at;"
    yield "  }"
    yield f"  return {random.choice(callees)}(found, key);" if callees else "  return found;"
    yield "}"


def polynomials(random, name, callees):
    yield f"unsigned {name}(unsigned a, unsigned n) {{"
    yield f"  double x = (double)(a % 1000) / {random.below(900) + 100}.0, y = {random.below(100)}.5, sum = 0;"
    yield "  for (unsigned i = 0; i < n; i++) {"
    terms = " + ".join(f"{random.below(50)}.25" + " * x" * power for power in range(3 + random.below(4)))
    yield f"    const double value = {terms};"
    yield f"    sum += value > y ? value / (y + {random.below(9) + 1}.0) : y - value * 0.{random.below(90) + 10};"
    yield f"    x = x * 0.{random.below(90) + 10} + (double)i;"
    yield f"    y += {random.choice(['x', 'sum', 'value'])} * 0.{random.below(900) + 100};"
    yield "  }"
    yield "  return sum > 4e9 || sum < 0 ? n : (unsigned)sum;"
    yield "}"


def texts(random, name, callees):
    yield f"unsigned {name}(unsigned value, unsigned width) {{"
    yield "  char text[64];"
    yield f'  int length = snprintf(text, sizeof text, "%0*u:%{random.choice("xuo")}", (int)(width % 20), value, value);'
    yield f"  memmove(text + {random.below(8) + 1}, text, {random.below(16) + 4});"
    yield f"  if (strncmp(text, \"{random.below(9999)}\", {random.below(3) + 1}) == 0) return width;"
    yield "  for (char* at = text; at < text + length; at++) {"
    yield f"    if (*at == '{random.below(10)}') *at = (char)('a' + width % 26);"
    yield f"    value = value * {random.below(60) + 3} + (unsigned char)*at;"
    yield "  }"
    if callees:
        yield f"  value += {random.choice(callees)}((unsigned)strlen(text), value);"
    yield "  return value;"
    yield "}"


def tables(random, name, callees):
    """No function: as much data as sources have."""
    rows = 20 + random.below(60)
    yield f"static const unsigned {name}_data[{rows}][4] = {{"
    for _ in range(rows):
        yield "    {" + ", ".join(f"{random.below(2**31)}u" for _ in range(4)) + "},"
    yield "};"
    yield ""
    yield f"unsigned {name}(unsigned a, unsigned b) {{ return {name}_data[a % {rows}][b % 4]; }}"


RECORD = """struct record {
  unsigned key, count, flags;
  char name[20];
  struct record* next;
};
"""


def large():
    random = Random(1)
    lines = ["#include <stdio.h>", "#include <stdlib.h>", "#include <string.h>", "", *RECORD.splitlines()]
    lines += ["", "static struct record* records;", ""]
    # As in most sources, three lines of four are no code: QEMU's column must end in seconds.
    kinds = (arithmetic, loops, switches, records, polynomials, texts, *[tables] * 10)
    names = []
    while len(lines) < LARGE_LINES - 100:
        name = f"work_{len(names)}"
        kind = random.choice(kinds)
        lines += [f"// {name}: number {len(names)} of the {kind.__name__}.", "//"]
        lines += [f"// It calls {callee}, or could." for callee in names[-2:]]
        lines += kind(random, name, names[-20:])
        lines.append("")
        names.append(name)
    lines += ["unsigned (*const all_work[])(unsigned, unsigned) = {", *(f"    {name}," for name in names[-20:]), "};"]
    lines += [f"// {n}" for n in range(len(lines) + 1, LARGE_LINES + 1)]
    return "\n".join(lines) + "\n"


def project(folder):
    random = Random(2)
    headers = folder / "include"
    headers.mkdir(parents=True, exist_ok=True)
    (headers / "record.h").write_text(
        f"#ifndef RECORD_H\n#define RECORD_H\n{RECORD}extern struct record* records;\n#endif\n"
    )
    (headers / "version.h").write_text("#define VERSION 1\n")
    defined = []
    for part, files in FOLDERS.items():
        path = folder / part
        path.mkdir(exist_ok=True)
        (path / "Makefile").write_text("".join(f"obj-y += {file}.o\n" for file in files))
        prototypes = []
        for file in files:
            lines = ['#include "record.h"', *(f'#include "{other}.h"' for other in FOLDERS)]
            if file in VERSIONED:
                lines.append('#include "version.h"')
            lines.append("")
            if not defined:
                lines += ["struct record* records;", ""]
            for index in range(1 + files.index(file) % 2):
                name = f"{part}_{file}_{index}"
                kind = random.choice((arithmetic, loops, switches, records))
                lines += [*kind(random, name, defined[-12:]), ""]
                prototypes.append(f"unsigned {name}(unsigned, unsigned);")
                defined.append(name)
            if file in VERSIONED:
                lines += [f"unsigned {part}_version(void) {{ return VERSION; }}", ""]
            (path / f"{file}.c").write_text("\n".join(lines))
        guard = part.upper() + "_H"
        (headers / f"{part}.h").write_text(
            "\n".join([f"#ifndef {guard}", f"#define {guard}", *prototypes, "#endif", ""])
        )


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.strip())
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "large.c").write_text(large())
    project(folder / "project")


main()
