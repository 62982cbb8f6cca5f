#include "tests/fuzzer/unicorn_machine.h"

#include <unicorn/unicorn.h>

#include <stdexcept>

#include "core/exception.h"
#include "core/vcpu_state.h"

namespace penumbra::fuzz {

namespace {

constexpr int kGprIds[8] = {UC_X86_REG_EAX, UC_X86_REG_ECX, UC_X86_REG_EDX, UC_X86_REG_EBX,
                            UC_X86_REG_ESP, UC_X86_REG_EBP, UC_X86_REG_ESI, UC_X86_REG_EDI};
constexpr int kSegmentIds[6] = {UC_X86_REG_ES, UC_X86_REG_CS, UC_X86_REG_SS,
                                UC_X86_REG_DS, UC_X86_REG_FS, UC_X86_REG_GS};

void check(uc_err error) {
  if (error != UC_ERR_OK) throw std::runtime_error(uc_strerror(error));
}

uint32_t read(uc_engine* engine, int id) {
  uint32_t value = 0;
  check(uc_reg_read(engine, id, &value));
  return value;
}

void write(uc_engine* engine, int id, uint32_t value) {
  check(uc_reg_write(engine, id, &value));
}

}  // namespace

UnicornMachine::UnicornMachine() : ram_(kRamBytes) {
  check(uc_open(UC_ARCH_X86, UC_MODE_16, &engine_));
  // Else a wrong jump runs data, and TCG aborts the process on some of it.
  constexpr uint64_t kCode = area::kReal + area::kCode, kCodeEnd = area::kReal + area::kCodeEnd;
  constexpr uint32_t kData = UC_PROT_READ | UC_PROT_WRITE;
  check(uc_mem_map_ptr(engine_, 0, kCode, kData, ram_.data()));
  check(uc_mem_map_ptr(engine_, kCode, kCodeEnd - kCode, UC_PROT_ALL, ram_.data() + kCode));
  check(uc_mem_map_ptr(engine_, kCodeEnd, kRamBytes - kCodeEnd, kData, ram_.data() + kCodeEnd));
  uc_hook hook;
  check(uc_hook_add(engine_, &hook, UC_HOOK_INTR, reinterpret_cast<void*>(&UnicornMachine::on_interrupt),
                    this, 1, 0));
  check(uc_context_alloc(engine_, &fresh_));
  check(uc_context_save(engine_, fresh_));
}

UnicornMachine::~UnicornMachine() {
  uc_context_free(fresh_);
  uc_close(engine_);
}

void UnicornMachine::on_interrupt(uc_engine* engine, uint32_t vector, void* self) {
  auto& machine = *static_cast<UnicornMachine*>(self);
  if (machine.vector_ < 0) machine.vector_ = static_cast<int>(vector);
  uc_emu_stop(engine);
}

void UnicornMachine::give_up() {
  gave_up_ = true;
  uc_emu_stop(engine_);
}

Outcome UnicornMachine::run(const Program& program) {
  std::memcpy(ram_.data() + area::kReal, program.memory.data(), area::kBytes);
  // Else TCG takes an exception of the case before for one that is being delivered, and makes this one a
  // double fault.
  check(uc_context_restore(engine_, fresh_));
  const MachineState& start = program.start;
  for (unsigned i = 0; i < 8; ++i) write(engine_, kGprIds[i], static_cast<uint32_t>(start.gpr[i]));
  for (unsigned i = 0; i < 6; ++i) write(engine_, kSegmentIds[i], start.selectors[i]);
  write(engine_, UC_X86_REG_EFLAGS, static_cast<uint32_t>(start.rflags));
  check(uc_ctl_remove_cache(engine_, area::kReal + area::kCode, area::kReal + area::kCodeEnd));
  vector_ = -1;
  gave_up_ = false;
  // Addresses here are linear ones. Unicorn's own time limit costs a thread a case.
  constexpr uint64_t kNowhere = ~uint64_t{0};
  const uint64_t entry = uint64_t{start.selectors[kCs]} * 16 + start.rip;
  const uc_err error = uc_emu_start(engine_, entry, kNowhere, 0, 0);

  Outcome outcome;
  MachineState& state = outcome.state;
  state.gpr = start.gpr;
  for (unsigned i = 0; i < 8; ++i) state.gpr[i] = read(engine_, kGprIds[i]);
  for (unsigned i = 0; i < 6; ++i) {
    state.selectors[i] = static_cast<uint16_t>(read(engine_, kSegmentIds[i]));
  }
  state.rip = read(engine_, UC_X86_REG_EIP);
  state.rflags = read(engine_, UC_X86_REG_EFLAGS);
  state.vector = start.vector;
  state.fs_base = state.selectors[kFs] * 16u;
  state.gs_base = state.selectors[kGs] * 16u;
  outcome.timeout = gave_up_;
  if (error == UC_ERR_INSN_INVALID) vector_ = vector::kUd;
  outcome.halted = vector_ < 0 && error == UC_ERR_OK;
  outcome.vector = static_cast<uint8_t>(vector_ < 0 ? 0 : vector_);
  outcome.unmapped = vector_ < 0 && error != UC_ERR_OK;
  return outcome;
}

}  // namespace penumbra::fuzz
