// What of the instruction table (jit/instructions.inc) the fuzzer does not run, and which test does.
#pragma once

#include <Zydis/Zydis.h>

#include "jit/decoder.h"
#include "tests/fuzzer/form_table.h"

namespace penumbra::fuzz {

// Why a row has no cases against the bare CPU, with the test that has it instead; null: it has some.
const char* reason_not_native(ZydisMnemonic mnemonic);

// Of what user code sees only the fault: the test that runs it at CPL 0. Null: not of that kind.
const char* privileged_test(ZydisMnemonic mnemonic);

// Integer instructions, and system ones as far as nothing of the machine but the CPU answers. All others are
// re-emitted in real mode as in 16-bit protected mode.
bool runs_on_unicorn(const Form& form);

// Of such a row: the manual leaves nothing open that matters here, and TCG is right.
bool is_told_by_unicorn(const jit::GuestInstruction& insn);

}  // namespace penumbra::fuzz
