// What a case of the 80286 says about the chips that came after it.
//
// Two filters are the data's own: LOCK that raises #UD since the 80386, and flags that the manual leaves
// undefined. Where the 80286 contradicts every later chip, the case is compared with what the manual says
// instead, and counted apart.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "tests/silicon/moo_file.h"

namespace penumbra::test {

enum class Rule : uint8_t {
  AsOn286,
  // LOCK before an instruction or an operand that cannot be locked: #UD (SDM vol. 2, LOCK).
  LockRaisesUd,
  // A word across the end of the stack segment: vector 12, where the 80286 took 13 (SDM vol. 3, 6.15, #SS).
  StackFault,
  // A string instruction whose element faults: RCX, RSI and RDI stay (SDM vol. 2, REP). The 80286 had moved
  // on.
  StringFault,
  // 11 to 15 bytes: legal (SDM vol. 2, 2.3.11). The 80286 raised #GP; the case does not tell the result.
  LongInstruction,
  // MOV with FS or GS: #UD on the 80286, which did not have them. The case does not tell the result.
  FsGs,
};
inline constexpr unsigned kRules = 6;
// For the summary.
std::string_view describe(Rule rule);

struct Expectation {
  Rule rule = Rule::AsOn286;
  std::optional<uint8_t> exception;
  bool state_known = true;    // else only that there is no exception
  bool handler_known = true;  // else CS:IP is what the vector's entry in memory says
  std::array<uint16_t, kMooRegisters> registers{};
  uint16_t undefined_flags = 0;            // not compared, in a pushed flags word neither
  std::vector<MooByte> memory;             // what is there afterwards, wherever the case says something
  std::optional<uint32_t> pushed_flags{};  // where a flags word was pushed
};

// After the instruction; with `halted`, after the HLT that follows it.
Expectation expectation_of(const MooCase& made, bool halted);

}  // namespace penumbra::test
