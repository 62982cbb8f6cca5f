#include "jit/runtime.h"

#include <span>

#include "jit/emitter.h"
#include "jit/helpers.h"
#include "jit/translator.h"

namespace penumbra::jit {

namespace {

class ThunkBuilder {
 public:
  ThunkBuilder(CodeCache& cache, Translator& translator) : cache_(cache), translator_(translator) {}

  template <class Body>
  uint64_t build(Body body) {
    asmjit::CodeHolder code;
    code.init(asmjit::Environment(asmjit::Arch::kX64), cache_.next_address());
    Emitter a(translator_.vcpu().state(), &code);
    body(a);
    code.flatten();
    const asmjit::CodeBuffer& buffer = code.sectionById(0)->buffer();
    return cache_.append(std::as_bytes(std::span(buffer.data(), buffer.size())));
  }

  // Loads all guest state and jumps to the host address in rax. VcpuState::rflags holds the flags. Shared
  // blocks are entered with their RIP in kLinear.
  static void resume(Emitter& a) {
    a.mov(a.scratch_field(Scratch::Jump), x86::rax);
    a.movzx(x86::eax, a.state_field(offsetof(VcpuState, spilled_overflow), 1));
    a.mov(x86::ah, a.state_field(offsetof(VcpuState, rflags), 1));
    a.add(x86::al, 0x7f);
    a.sahf();
    a.load_gprs();
    a.mov(kLinear, a.state_field(offsetof(VcpuState, rip), 8));
    a.jmp(a.scratch_field(Scratch::Jump));
  }

  void call(Emitter& a, Helper helper) {
    a.mov(x86::rcx, x86::r9);
    a.mov(x86::rsi, x86::r10);
    a.mov(x86::rdx, x86::r11);
    a.mov(x86::rsp, a.state_field(offsetof(VcpuState, host_rsp), 8));
    a.mov(x86::rdi, asmjit::Imm(reinterpret_cast<uint64_t>(&translator_)));
    a.mov(x86::rax, asmjit::Imm(reinterpret_cast<uint64_t>(helper)));
    a.call(x86::rax);
  }

  // A helper that may go on where it was called: with the guest's registers as it left them.
  uint64_t callout(Helper helper) {
    return build([&](Emitter& a) {
      const asmjit::Label elsewhere = a.newLabel();
      a.mov(a.scratch_field(Scratch::Continue), x86::r9);
      a.save_gprs();
      call(a, helper);
      a.test(x86::rax, x86::rax);
      a.jnz(elsewhere);
      a.load_gprs();
      a.jmp(a.scratch_field(Scratch::Continue));
      a.bind(elsewhere);
      resume(a);
    });
  }

  // A helper after which the block is over.
  uint64_t block_end(Helper helper, bool flags_in_host) {
    return build([&](Emitter& a) {
      if (flags_in_host) a.spill_flags();
      a.save_gprs();
      call(a, helper);
      resume(a);
    });
  }

  // The end of a direct jump that is not patched, or may not be.
  uint64_t link(uint64_t lookup, uint64_t patch, bool shared) {
    return build([&](Emitter& a) {
      const asmjit::Label may_be_patched = a.newLabel();
      const auto field = [](size_t member) { return x86::ptr(kTemp, static_cast<int32_t>(member), 8); };
      a.mov(kLinear, field(offsetof(BlockLink, target_rip)));
      if (shared) {
        a.mov(kHostAddend, a.state_field(offsetof(VcpuState, code_page), 8));
        a.lea(kLinear, x86::ptr(kLinear, kHostAddend));
      }
      a.mov(kHostAddend, x86::rcx);
      a.mov(x86::rcx, field(offsetof(BlockLink, by_jump_cache)));
      a.jecxz(x86::rcx, may_be_patched);
      a.mov(x86::rcx, kHostAddend);
      a.search_jump_cache(std::nullopt, false, [&] { a.jmp(asmjit::Imm(lookup)); });
      a.bind(may_be_patched);
      a.mov(x86::rcx, kHostAddend);
      a.jmp(asmjit::Imm(patch));
    });
  }

  // A helper that changes no guest register. `result`: the field of the VcpuState to go on with in
  // kHostAddend.
  uint64_t lookup_aid(Helper helper, size_t result) {
    return build([&](Emitter& a) {
      const asmjit::Label elsewhere = a.newLabel();
      a.mov(a.scratch_field(Scratch::Continue), x86::r9);
      a.mov(a.scratch_field(Scratch::Linear), x86::r10);
      a.save_gprs();
      call(a, helper);
      a.test(x86::rax, x86::rax);
      a.jnz(elsewhere);
      // Only those that C++ does not preserve come back.
      for (const unsigned gpr : {kRax, kRcx, kRdx, kRsp, kRsi, kRdi, kR8})
        a.mov(host_gpr(gpr), a.gpr_field(gpr));
      a.mov(x86::r10, a.scratch_field(Scratch::Linear));
      a.mov(kHostAddend, a.state_field(result, 8));
      a.jmp(a.scratch_field(Scratch::Continue));
      a.bind(elsewhere);
      resume(a);
    });
  }

  static constexpr x86::Gp callee_saved(unsigned i) {
    constexpr uint32_t kIds[] = {3, 5, 12, 13, 14, 15};  // rbx rbp r12 to r15
    return x86::gpq(kIds[i]);
  }

  uint64_t enter() {
    return build([](Emitter& a) {
      for (unsigned i = 0; i < 6; ++i) a.push(callee_saved(i));
      a.sub(x86::rsp, 8);  // so that helpers are called with an aligned stack
      a.mov(a.state_field(offsetof(VcpuState, host_rsp), 8), x86::rsp);
      a.mov(x86::rax, x86::rdi);
      resume(a);
    });
  }

  uint64_t leave() {
    return build([](Emitter& a) {
      a.mov(x86::rsp, a.state_field(offsetof(VcpuState, host_rsp), 8));
      a.add(x86::rsp, 8);
      for (unsigned i = 6; i-- > 0;) a.pop(callee_saved(i));
      a.ret();
    });
  }

  uint64_t interrupted(uint64_t leave_address) {
    return build([&](Emitter& a) {
      a.spill_flags();
      a.save_gprs();
      a.jmp(asmjit::Imm(leave_address));
    });
  }

 private:
  CodeCache& cache_;
  Translator& translator_;
};

}  // namespace

Thunks generate_thunks(CodeCache& cache, Translator& translator) {
  ThunkBuilder builder(cache, translator);
  Thunks thunks;
  thunks.enter = builder.enter();
  thunks.leave = builder.leave();
  thunks.tlb_miss = builder.lookup_aid(helper::tlb_miss, offsetof(VcpuState, found_addend));
  thunks.window_select =
      builder.lookup_aid(helper::window_select, offsetof(VcpuState, windows) + offsetof(WindowState, found));
  thunks.system = builder.callout(helper::system);
  thunks.system_end = builder.block_end(helper::system_end, false);
  thunks.callout_begin = builder.callout(helper::callout_begin);
  thunks.callout_end = builder.callout(helper::callout_end);
  thunks.gather = builder.callout(helper::gather);
  thunks.masked_move = builder.callout(helper::masked_move);
  thunks.window_miss = builder.block_end(helper::window_miss, true);
  thunks.window_miss_spilled = builder.block_end(helper::window_miss, false);
  thunks.single_step = builder.block_end(helper::single_step, false);
  thunks.single_step_indirect = builder.block_end(helper::single_step_indirect, false);
  thunks.lookup = builder.block_end(helper::lookup, true);
  thunks.lookup_indirect = builder.block_end(helper::lookup_indirect, true);
  const uint64_t patch = builder.block_end(helper::link, true);
  thunks.link = builder.link(thunks.lookup, patch, false);
  thunks.link_shared = builder.link(thunks.lookup, patch, true);
  thunks.redispatch = builder.block_end(helper::redispatch, true);
  thunks.interrupted = builder.interrupted(thunks.leave);
  thunks.fault = builder.block_end(helper::host_fault, true);
  thunks.fault_spilled = builder.block_end(helper::host_fault, false);
  cache.fix();
  return thunks;
}

}  // namespace penumbra::jit
