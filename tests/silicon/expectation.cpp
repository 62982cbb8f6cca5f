#include "tests/silicon/expectation.h"

#include <algorithm>

#include "core/vcpu_state.h"

namespace penumbra::test {

namespace {

constexpr uint8_t kUd = 6, kStackFault = 12, kProtection = 13;

struct Opcode {
  bool lock = false;
  uint8_t segment = 0;  // prefix
  uint8_t opcode = 0, modrm = 0,
          immediate = 0;  // the byte after the opcode, twice: as ModRM and as immediate
  unsigned reg() const { return modrm >> 3 & 7; }
  bool memory() const { return modrm < 0xc0; }
};

Opcode opcode_of(const MooCase& made) {
  Opcode found;
  size_t at = 0;
  for (;; ++at) {
    const uint8_t byte = made.bytes[at];
    if ((byte & 0xe7) == 0x26) {
      found.segment = byte;
    } else if (byte == 0xf0) {
      found.lock = true;
    } else if (byte != 0xf2 && byte != 0xf3) {
      break;
    }
  }
  found.opcode = made.bytes[at];
  if (at + 1 < made.bytes.size()) found.modrm = found.immediate = made.bytes[at + 1];
  return found;
}

// The forms that LOCK may precede: read, modify and write memory (SDM vol. 2, LOCK).
bool lockable(const Opcode& op) {
  if (!op.memory()) return false;
  if (op.opcode < 0x38 && (op.opcode & 7) < 2) return true;          // ADD to XOR with a memory destination
  if (op.opcode >= 0x80 && op.opcode <= 0x83) return op.reg() != 7;  // not CMP
  if (op.opcode == 0x86 || op.opcode == 0x87) return true;           // XCHG
  if (op.opcode == 0xf6 || op.opcode == 0xf7) return op.reg() == 2 || op.reg() == 3;  // NOT, NEG
  if (op.opcode == 0xfe || op.opcode == 0xff) return op.reg() < 2;                    // INC, DEC
  return false;
}

uint16_t undefined_by_shift(const Opcode& op, unsigned count) {
  using namespace flag;
  count &= 0x1f;
  if (count == 0) return 0;
  uint16_t undefined = count == 1 ? 0 : kOf;
  if (op.reg() < 4) return undefined;  // rotates
  undefined |= kAf;
  const unsigned bits = op.opcode & 1 ? 16 : 8;
  if (op.reg() != 7 && count >= bits) undefined |= kCf;  // SHL and SHR, not SAR
  return undefined;
}

uint16_t undefined_flags(const Opcode& op, const MooCase& made) {
  using namespace flag;
  const bool logic = op.opcode < 0x38 && (op.opcode & 7) < 6 &&
                     ((op.opcode & 0x38) == 0x08 || (op.opcode & 0x38) == 0x20 || (op.opcode & 0x38) == 0x30);
  if (logic) return kAf;
  switch (op.opcode) {
    case 0x27:  // DAA, DAS
    case 0x2f:
      return kOf;
    case 0x37:  // AAA, AAS
    case 0x3f:
      return kOf | kSf | kZf | kPf;
    case 0x69:  // IMUL
    case 0x6b:
      return kSf | kZf | kAf | kPf;
    case 0x80:
    case 0x81:
    case 0x82:
    case 0x83:
      return op.reg() == 1 || op.reg() == 4 || op.reg() == 6 ? kAf : 0;  // OR, AND, XOR
    case 0x84:                                                           // TEST
    case 0x85:
    case 0xa8:
    case 0xa9:
      return kAf;
    case 0xc0:
    case 0xc1: {
      // The count is the last byte before the HLT.
      return undefined_by_shift(op, made.bytes[made.bytes.size() - 2]);
    }
    case 0xd0:
    case 0xd1:
      return undefined_by_shift(op, 1);
    case 0xd2:
    case 0xd3:
      return undefined_by_shift(op, made.before[kMooCx] & 0xff);
    case 0xd4:  // AAM: with base 0 it is a division
      return op.immediate == 0 ? kArithmetic : kOf | kAf | kCf;
    case 0xd5:  // AAD
      return kOf | kAf | kCf;
    case 0xf6:
    case 0xf7:
      switch (op.reg()) {
        case 0:  // TEST
        case 1:
          return kAf;
        case 4:  // MUL, IMUL
        case 5:
          return kSf | kZf | kAf | kPf;
        case 6:  // DIV, IDIV
        case 7:
          return kArithmetic;
        default:
          return 0;
      }
    default:
      return 0;
  }
}

bool is_string(const Opcode& op) {
  switch (op.opcode) {
    case 0x6d:  // INSW
    case 0x6f:  // OUTSW
    case 0xa5:  // MOVSW
    case 0xa7:  // CMPSW
    case 0xab:  // STOSW
    case 0xad:  // LODSW
    case 0xaf:  // SCASW
      return true;
    default:
      return false;
  }
}

bool reads_through_si(const Opcode& op) {
  return op.opcode == 0x6f || op.opcode == 0xa5 || op.opcode == 0xa7 || op.opcode == 0xad;
}

// Whether the word that faulted lies in the stack segment.
bool faults_on_stack(const Opcode& op, const MooCase& made) {
  constexpr uint8_t kSsPrefix = 0x36;
  constexpr uint16_t kEnd = 0xffff;
  switch (op.opcode) {
    case 0x07:  // POP sreg, RET, RETF, IRET
    case 0x17:
    case 0x1f:
    case 0xc2:
    case 0xc3:
    case 0xca:
    case 0xcb:
    case 0xcf:
      return true;
    case 0xc9:  // LEAVE
      return made.before[kMooBp] == kEnd;
    default:
      break;
  }
  if (is_string(op)) return reads_through_si(op) && op.segment == kSsPrefix && made.before[kMooSi] == kEnd;
  if (!op.memory()) return false;
  if (op.segment != 0) return op.segment == kSsPrefix;
  const unsigned rm = op.modrm & 7;
  return rm == 2 || rm == 3 || (rm == 6 && op.modrm >= 0x40);  // BP is the base
}

Rule rule_of(const Opcode& op, const MooCase& made) {
  constexpr size_t kLongest286 = 10;
  if (op.lock && !lockable(op) && made.exception != kUd) return Rule::LockRaisesUd;
  if (made.exception == kUd && (op.opcode == 0x8c || op.opcode == 0x8e) && (op.reg() == 4 || op.reg() == 5)) {
    return Rule::FsGs;
  }
  if (made.exception != kProtection || op.opcode == 0xcd) return Rule::AsOn286;  // INT 0Dh is none
  if (made.bytes.size() - 1 > kLongest286) return Rule::LongInstruction;
  if (is_string(op)) return Rule::StringFault;
  return faults_on_stack(op, made) ? Rule::StackFault : Rule::AsOn286;
}

uint32_t stack_address(const MooCase& made, uint16_t sp) {
  return (uint32_t{made.before[kMooSs]} << 4) + sp;
}

}  // namespace

std::string_view describe(Rule rule) {
  switch (rule) {
    case Rule::AsOn286:
      return "as the 80286";
    case Rule::LockRaisesUd:
      return "LOCK that raises #UD since the 80386: that it is raised";
    case Rule::StackFault:
      return "#SS for the stack segment (SDM vol. 3, 6.15), where the 80286 takes 13; all else is compared";
    case Rule::StringFault:
      return "registers as before the element that faults (SDM vol. 2, REP); all else is compared";
    case Rule::LongInstruction:
      return "instructions of 11 to 15 bytes, legal since the 80386: only that they do not fault";
    case Rule::FsGs:
      return "FS and GS, which the 80286 has not: only that there is no fault";
  }
  return "";
}

Expectation expectation_of(const MooCase& made, bool halted) {
  constexpr uint8_t kHlt = 0xf4, kPushf = 0x9c;
  const Opcode op = opcode_of(made);
  Expectation expected{.rule = rule_of(op, made),
                       .exception = made.exception,
                       .registers = made.after,
                       .undefined_flags = undefined_flags(op, made),
                       .memory = made.memory_changed};
  // The HLT's own case ends after it.
  if (!halted && op.opcode != kHlt) --expected.registers[kMooIp];
  const auto changed_at = [&](uint32_t address) {
    return std::ranges::find(made.memory_changed, address, &MooByte::address) != made.memory_changed.end();
  };
  for (const MooByte& byte : made.memory_before) {
    if (!changed_at(byte.address)) expected.memory.push_back(byte);
  }
  if (op.opcode == kPushf) expected.pushed_flags = stack_address(made, made.after[kMooSp]);

  switch (expected.rule) {
    case Rule::AsOn286:
      break;
    case Rule::LockRaisesUd: {
      expected.exception = kUd;
      expected.registers = made.before;
      expected.registers[kMooSp] = static_cast<uint16_t>(made.before[kMooSp] - 6);
      expected.registers[kMooFlags] &= static_cast<uint16_t>(~(flag::kIf | flag::kTf));
      expected.undefined_flags = 0;
      expected.memory = made.memory_before;
      uint16_t sp = expected.registers[kMooSp];
      for (const uint16_t word : {made.before[kMooIp], made.before[kMooCs], made.before[kMooFlags]}) {
        for (const unsigned shift : {0, 8}) {
          const uint32_t address = stack_address(made, sp++);
          std::erase_if(expected.memory, [&](const MooByte& byte) { return byte.address == address; });
          expected.memory.push_back({address, static_cast<uint8_t>(word >> shift)});
        }
      }
      break;
    }
    case Rule::StringFault:
      for (const MooRegister reg : {kMooCx, kMooSi, kMooDi}) expected.registers[reg] = made.before[reg];
      if (faults_on_stack(op, made)) expected.exception = kStackFault;
      break;
    case Rule::StackFault:
      expected.exception = kStackFault;
      break;
    case Rule::LongInstruction:
    case Rule::FsGs:
      expected.exception.reset();
      expected.state_known = false;
      break;
  }
  expected.handler_known = expected.exception == made.exception;
  if (expected.exception) {
    expected.pushed_flags = stack_address(made, static_cast<uint16_t>(expected.registers[kMooSp] + 4));
  }
  return expected;
}

}  // namespace penumbra::test
