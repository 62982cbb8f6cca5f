#include "tests/silicon/real_mode_machine.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace penumbra::test {

namespace {

// What a real-mode 80286 keeps clear, whatever INIT says; later chips hold IOPL and NT there.
constexpr unsigned kUnusedFlags = 0xf000;
constexpr size_t kXstateBvOffset = 512;  // in the XSAVE image (SDM vol. 1, 13.4)
constexpr unsigned kGprOf[kMooRegisters] = {kRax, kRbx, kRcx, kRdx, 0, 0, 0, 0, kRsp, kRbp, kRsi, kRdi, 0, 0};
constexpr const char* kNames[kMooRegisters] = {"ax", "bx", "cx", "dx", "cs", "ss", "ds",
                                               "es", "sp", "bp", "si", "di", "ip", "flags"};

std::optional<SegmentIndex> segment_of(unsigned reg) {
  switch (reg) {
    case kMooCs:
      return kCs;
    case kMooSs:
      return kSs;
    case kMooDs:
      return kDs;
    case kMooEs:
      return kEs;
    default:
      return std::nullopt;
  }
}

}  // namespace

RealModeMachine::RealModeMachine(const jit::TranslatorOptions& options) {
  vcpu_ = std::make_unique<Vcpu>(*state_, map_, tlb_, io_, model_);
  vcpu_->set_event_listener(this);
  translator_ = std::make_unique<jit::Translator>(*vcpu_, options);
  ram_ = map_.page({0}).host;
}

RealModeMachine::~RealModeMachine() = default;

void RealModeMachine::event_delivered(const EventRecord& event) {
  ++events_;
  last_vector_ = event.vector;
}

void RealModeMachine::load(const MooCase& made) {
  VcpuState& s = *state_;
  for (const MooByte& byte : made.memory_before) map_.write({byte.address}, 1, byte.value);
  for (unsigned reg = 0; reg < kMooRegisters; ++reg) {
    const uint16_t value = made.before[reg];
    if (const auto segment = segment_of(reg)) {
      s.segments[*segment].selector = value;
      s.segments[*segment].base = uint64_t{value} << 4;
    } else if (reg == kMooIp) {
      s.rip = value;
    } else if (reg == kMooFlags) {
      s.rflags = value | flag::kFixed1;
    } else {
      s.gpr[kGprOf[reg]] = value;
    }
  }
  // x87 exceptions masked, as FNINIT leaves them: the chip had no coprocessor and went on after an ESC.
  constexpr uint16_t kControlWord = 0x37f;
  std::ranges::fill(s.guest_vector_state, std::byte{0});
  std::memcpy(s.guest_vector_state.data(), &kControlWord, sizeof kControlWord);
  s.guest_vector_state[kXstateBvOffset] = std::byte{1};
  s.halted = s.interrupt_shadow = false;
  s.attention = 0;
  vcpu_->update_mode();
  events_ = 0;
  last_vector_ = 0;
}

bool RealModeMachine::run_to_halt() {
  constexpr unsigned kPatience = 20;
  for (unsigned turn = 0; turn < kPatience; ++turn) {
    translator_->run();
    const uint32_t why = state_->attention.exchange(0);
    if (why & attention::kHalt) return true;
  }
  return false;
}

void RealModeMachine::interrupt() {
  vcpu_->attend(attention::kKick);
  translator_->interrupt();
}

std::string RealModeMachine::compare(const Expectation& expected) {
  std::string text;
  const uint8_t last = events_ ? last_vector_ : 0;
  if (events_ > 1 || (events_ == 1) != expected.exception.has_value() ||
      last != expected.exception.value_or(0)) {
    text += fmt::format("    {} exceptions, the last one {}; expected {}\n", events_, last,
                        expected.exception ? fmt::format("{}", *expected.exception) : "none");
  }
  if (expected.state_known) text += compare_registers(expected) + compare_memory(expected);
  return text;
}

std::string RealModeMachine::compare_registers(const Expectation& expected) {
  const VcpuState& s = *state_;
  std::array<uint16_t, kMooRegisters> registers = expected.registers;
  if (!expected.handler_known) {
    const auto entry = static_cast<uint32_t>(map_.read({*expected.exception * 4u}, 4));
    registers[kMooIp] = static_cast<uint16_t>(entry);
    registers[kMooCs] = static_cast<uint16_t>(entry >> 16);
  }
  std::string text;
  for (unsigned reg = 0; reg < kMooRegisters; ++reg) {
    uint64_t value = s.gpr[kGprOf[reg]], mask = ~uint64_t{0};
    if (const auto segment = segment_of(reg)) {
      value = s.segments[*segment].selector;
    } else if (reg == kMooIp) {
      value = s.rip;
    } else if (reg == kMooFlags) {
      value = s.rflags;
      mask = static_cast<uint16_t>(~(expected.undefined_flags | kUnusedFlags));
    }
    if ((value ^ registers[reg]) & mask) {
      text += fmt::format("    {} is {:04x}, not {:04x}\n", kNames[reg], value, registers[reg]);
    }
  }
  for (const Segment& segment : s.segments) {
    if (segment.base != uint64_t{segment.selector} << 4 || segment.limit != 0xffff) {
      text += fmt::format("    base {:x}, limit {:x} of selector {:04x}\n", segment.base, segment.limit,
                          segment.selector);
    }
  }
  return text;
}

std::string RealModeMachine::compare_memory(const Expectation& expected) {
  const unsigned not_pushed = expected.undefined_flags | kUnusedFlags;
  std::string text;
  for (const MooByte& byte : expected.memory) {
    uint8_t mask = 0xff;
    if (byte.address == expected.pushed_flags) mask = static_cast<uint8_t>(~not_pushed);
    if (byte.address - 1 == expected.pushed_flags) mask = static_cast<uint8_t>(~(not_pushed >> 8));
    const auto value = std::to_integer<uint8_t>(ram_[byte.address]);
    if ((value ^ byte.value) & mask) {
      text += fmt::format("    [{:05x}] is {:02x}, not {:02x}\n", byte.address, value, byte.value);
    }
  }
  return text;
}

void RealModeMachine::clear(const Expectation& expected) {
  if (!expected.state_known) {
    clear_all();
    return;
  }
  for (const MooByte& byte : expected.memory) map_.write({byte.address}, 1, 0);
}

void RealModeMachine::clear_all() {
  const std::vector<std::byte> zeroes(kReachable);
  map_.write_bytes({0}, zeroes);
}

std::optional<uint32_t> RealModeMachine::take_stray_byte() {
  const auto end = ram_ + kReachable;
  const auto found = std::find_if(ram_, end, [](std::byte byte) { return byte != std::byte{0}; });
  if (found == end) return std::nullopt;
  const auto address = static_cast<uint32_t>(found - ram_);
  clear_all();
  return address;
}

}  // namespace penumbra::test
