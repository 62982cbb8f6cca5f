"""Runs modules of Python's own test package, each in a process of its own, and prints what did not simply pass."""

import ctypes
import os
import re
import select
import signal
import sys
import unittest

from test import support

MODULES = """
__future__ _locale _opcode abc abstract_numbers aifc argparse array asdl_parser ast asyncgen atexit audioop augassign base64 baseexception
bdb bigaddrspace binascii binop bisect bool buffer bufio builtin bytes bz2 calendar call charmapcodec class cmath cmd cmd_line
cmd_line_script code code_module codeccallbacks codecencodings_cn codecencodings_hk codecencodings_iso2022 codecencodings_jp
codecencodings_kr codecencodings_tw codecs codeop collections colorsys compare compile complex configparser contains context
contextlib contextlib_async copy copyreg coroutines crypt csv ctypes dataclasses datetime dbm dbm_dumb decimal decorators
defaultdict deque descr descrtut dict dict_version dictcomps dictviews difflib dis doctest doctest2 dynamic dynamicclassattribute
eintr email enum enumerate eof epoll errno except_star exception_group exception_hierarchy exception_variations exceptions extcall
fcntl file file_eintr filecmp fileinput fileio finalization float flufl fnmatch fork1 format fractions frame frozen fstring
funcattrs functools future future3 future4 future5 gc generator_stop generators genericalias genericclass genericpath genexps getopt
getpass gettext glob global grammar graphlib grp gzip hash hashlib heapq hmac html htmlparser http_cookies imghdr imp importlib index
inspect int int_literal ioctl ipaddress isinstance iter iterlen itertools json keyword keywordonlyarg linecache list listcomps
locale long longexp lzma mailbox marshal math memoryio memoryview metaclass mimetypes mmap module modulefinder multibytecodec
named_expressions netrc ntpath numeric_tower opcache opcodes openpty operator optparse ordered_dict os pathlib patma peepholer
pep646_syntax pickle picklebuffer pickletools pipes pkg pkgutil plistlib poll popen positional_only_arg posix posixpath pow pprint print
profile property pstats pty pulldom pwd py_compile pyexpat queue quopri raise random range re reprlib resource richcmp rlcompleter
runpy sax sched scope secrets select selectors set setcomps shelve shlex shutil signal slice sndhdr socketserver sort source_encoding
stat statistics strftime string string_literals stringprep strptime strtod struct structseq subclassinit subprocess sunau sundry super symtable
syntax sys sys_setprofile sys_settrace sysconfig syslog tabnanny tarfile tempfile textwrap thread threadedtempfile threading
threading_local threadsignals time timeit timeout tokenize trace traceback tracemalloc tuple type_annotations type_cache type_comments
typechecks types typing ucn unary unicode unicode_file unicode_file_functions unicode_identifiers unicodedata univnewlines unpack
unpack_ex unparse urlparse userdict userlist userstring utf8_mode utf8source uu uuid wait3 wait4 warnings wave weakref weakset with
xdrlib xml_dom_minicompat xml_etree xml_etree_c xxlimited xxtestfuzz yield_from zipapp zipfile zipimport zipimport_support zlib zoneinfo
""".split()

# What the kernel's version answers: whether its tmpfs has extended attributes of users (Linux 6.6).
KERNELS_OWN = "xattr", "ExtendedAttribute"
# The csv module of the packages still has the bug that these tests are about: regular expressions that take minutes to hours.
ENDLESS = ("test_csv.TestSniffer.test_sniff_",)
# Looks at whichever allocation is the second in a table hashed by addresses, which are others under a 32-bit kernel than in a 32-bit
# program under a 64-bit one. It fails in QEMU's guest, too.
BY_ADDRESS = (r"TestTracemallocEnabled.test_snapshot$",)
LEFT_OUT = KERNELS_OWN + ENDLESS + BY_ADDRESS

# The tests print what they like; lines that begin so are ours.
OURS = "@ "
SECONDS = 2400  # that this process waits for a module; while all of it is paused, none passes

# No random addresses for programs that tests start again and again: what was translated once serves all of them.
ADDR_NO_RANDOMIZE = 0x0040000
personality = ctypes.CDLL(None).personality
personality(personality(0xFFFFFFFF) | ADDR_NO_RANDOMIZE)

# None of them: no network, no large files, no hour of pystones.
support.use_resources = []
support.junit_xml_list = None

output = sys.stdout


def say(text):
    print("\n" + OURS + text, file=output, flush=True)


class Result(unittest.TestResult):
    def tell(self, test, verdict):
        say(f"{verdict}: {test.id()}")

    def addError(self, test, error):
        super().addError(test, error)
        self.tell(test, "error")

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self.tell(test, "FAILURE")

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        if error:
            self.tell(test, "FAILURE of a part")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.tell(test, "skip")

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.tell(test, "unexpected success")


def wanted(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield type(test)(wanted(test))
        elif not any(re.search(pattern, test.id()) for pattern in LEFT_OUT):
            yield test


def run(module):
    try:
        suite = unittest.defaultTestLoader.loadTestsFromName("test.test_" + module)
    except unittest.SkipTest:
        return say("not here")
    result = Result()
    type(suite)(wanted(suite)).run(result)
    say(f"{result.testsRun} tests, {len(result.failures)} failures, {len(result.errors)} errors, {len(result.skipped)} skipped")
    if os.environ.get("TRACEBACKS"):
        for test, text in result.failures + result.errors:
            print(test.id(), text)


def start(module):
    """A fork, which has what all modules import. Returns its number and a descriptor that reads what it prints."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    status = 1
    try:
        os.setsid()
        os.dup2(writer, 1)
        os.close(writer)
        os.close(reader)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)
        sys.argv[1:] = [module]
        run(module)
        sys.stdout.flush()
        status = 0
    finally:
        # Threads that a test left behind are not waited for.
        os._exit(status)


def read(descriptor):
    """What comes until the end or, when the time is up, None."""
    chunks = []
    waited = 0
    while waited < SECONDS:
        if not select.select([descriptor], [], [], 1)[0]:
            waited += 1
            continue
        chunk = os.read(descriptor, 1 << 16)
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)
    return None


# Slow ones and those that wait for the clock are not among the few.
FEW = "array audioop binascii builtin cmath codecs colorsys complex dict float generators math mmap re struct"
for module in FEW.split() if os.environ.get("SLICE") else MODULES:
    print(module, flush=True)
    child, reader = start(module)
    text = read(reader)
    if text is None:
        os.killpg(child, signal.SIGKILL)
    os.close(reader)
    status = os.waitpid(child, 0)[1]
    if text is None:
        print("  TIME IS UP", flush=True)
        continue
    lines = [" " + line[1:] for line in text.decode(errors="replace").splitlines() if line.startswith(OURS)]
    print("\n".join(sorted(lines[:-1]) + lines[-1:]), flush=True)
    if status:
        print(f"  exit status {os.waitstatus_to_exitcode(status)}", flush=True)
