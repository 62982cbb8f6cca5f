// Guest bytes to host code: one basic block. Sees a BlockKey, the bytes and the options, nothing of the vCPU.
#pragma once

#include <array>
#include <span>
#include <vector>

#include "core/debug_unit.h"
#include "jit/arena.h"
#include "jit/block.h"
#include "jit/code_cache.h"
#include "jit/decoder.h"
#include "jit/emitter.h"
#include "jit/options.h"
#include "jit/runtime.h"

namespace penumbra::jit {

// Addresses that host code has baked in.
struct HostEnvironment {
  const Thunks* thunks = nullptr;
  const VcpuState* state = nullptr;
  uint64_t poll_page = 0;
  const DebugUnit* debug = nullptr;  // where blocks end early; null: nowhere
};

inline constexpr unsigned kMaxBlockInstructions = 64;
inline constexpr size_t kMaxBlockHostBytes = 64 * 1024;
inline constexpr size_t kMaxBlockDataBytes = 128 * 1024;  // in the arena
// Room at a block's entry for the jump that replaces it when the block dies.
inline constexpr size_t kEntryPatchBytes = 15;

struct TranslationStats {
  uint64_t blocks = 0, guest_instructions = 0, guest_bytes = 0, host_bytes = 0;
  uint64_t unknown_opcodes = 0;
};

class BlockTranslator {
 public:
  BlockTranslator(const TranslatorOptions& options, HostEnvironment environment);

  // Number of bytes of `code` that the first instruction of a block needs, 0 if more than there are.
  static unsigned first_length(const BlockKey& key, std::span<const uint8_t> code);

  // Translates the block at `key` from `code`: the guest's bytes from there to the end of the page, or, when
  // the first instruction continues on the next page (crosses_page), at least that instruction, which then is
  // all of the block. The host code is for `host_address`, and valid as long as `arena` keeps the block.
  // `windows`: memory operands go through the shadow windows where they can. Null when the key is a shared
  // block's, and the first instruction cannot be part of one.
  Block* translate(const BlockKey& key, std::span<const uint8_t> code, bool crosses_page,
                   uint64_t host_address, Arena& arena, const WindowUse& windows,
                   const PatchedBytes& patched);

  // Host code of the last translate().
  std::span<const std::byte> host_code() const;
  // Guest instructions of the last translate(), and where the host code of each starts.
  std::span<const GuestInstruction> instructions() const { return instructions_; }
  std::span<const uint32_t> instruction_offsets() const { return instruction_offsets_; }

  const TranslationStats& stats() const { return stats_; }

 private:
  struct SlowPath {
    asmjit::Label entry, found;
    MemoryAccess access;
  };
  struct LinkStub {
    asmjit::Label entry;
    BlockLink* link;
    bool swaps = false;  // comes from within a loop whose registers are swapped
  };

  // A conditional jump that leaves a superblock, where it can't be patched itself.
  struct SideExit {
    asmjit::Label entry;
    uint64_t target;
  };

  void decode(std::span<const uint8_t> code);
  void analyse_flags();
  void emit_instruction(size_t index);
  void emit_out_of_line();
  void emit_record();
  bool code64() const { return key_.mode.has(ModeBits::kCode64); }
  uint64_t code_mask() const;
  unsigned stack_bytes() const;  // 8, 4 or 2

  // --- emit_flags: where the arithmetic flags are while a block is emitted
  void need_flags_in_host();            // before an instruction that reads them or keeps some
  void give_up_flags(bool live_after);  // before host code that clobbers them
  void record_site(uint64_t rip);
  void record_access(const MemoryAccess& access);
  void record_poll(uint64_t resume_rip);
  void add_site(uint64_t guest, SiteKind kind);

  // --- emit_memory.cpp: the memory path. Both begin an access; then host_operand() is the operand.
  void open_access(const ZydisDecodedOperandMem& mem, const GuestInstruction& insn,
                   const MemoryAccess& access);
  void emit_offset(const ZydisDecodedOperandMem& mem, const GuestInstruction& insn);  // into kLinear
  int64_t displacement_of(const ZydisDecodedOperandMem& mem);
  // `to`: 32 or 64 bits of a host register, which may be one of the operand's. Not cut to an address of 16
  // bits.
  void emit_offset(const ZydisDecodedOperandMem& mem, const GuestInstruction& insn, const x86::Gp& to);
  void begin_access(MemoryAccess access);  // kLinear: offset in the segment; may clobber kTemp
  void end_access();                       // after the instruction, with the flags it left
  bool is_inline(const MemoryAccess& access) const;
  void emit_tlb_lookup(const MemoryAccess& access);
  void emit_tlb_miss(const SlowPath& slow);
  void emit_segment_base(const MemoryAccess& access);  // of FS and GS, added to kLinear
  void emit_callout(uint64_t thunk, const void* detail);
  MemoryAccess access_of(const ZydisDecodedOperand& operand) const;
  x86::Mem host_operand(uint32_t size) const {
    x86::Mem operand = operand_;
    operand.setSize(size);
    return operand;
  }

  // --- emit_window.cpp
  struct WindowCheck {
    asmjit::Label other, selected;
    std::optional<x86::Gp> base;  // of a constant address, none
    uint64_t address;
    WindowSite* site;
    FlagHome flags;
    uint16_t guest;
    SiteKind kind;
    int16_t stack_step;
  };
  // The delta of a region that a guest register points into.
  struct KeptDelta {
    bool known = false;
    bool stored = false;  // in WindowState::kept[home]; else only in kHostAddend, while held_ == home
    int8_t home = 0;
    uint64_t reach =
        0;  // how far, at most, the register is from its region: an access through it was in there
  };
  static constexpr int kNothingHeld = -1;
  bool is_windowed(const MemoryAccess& access) const;
  std::optional<x86::Mem> flat_operand(const ZydisDecodedOperandMem& mem, const GuestInstruction& insn,
                                       const MemoryAccess& access) const;
  void emit_window_operand(const ZydisDecodedOperandMem& mem, const GuestInstruction& insn,
                           const MemoryAccess& access);
  KeptDeltas known_deltas() const;
  void emit_window_by_register(unsigned gpr, int32_t displacement, const MemoryAccess& access);
  void emit_window_at_constant(uint64_t address, const MemoryAccess& access);
  // The delta of what the register (in `base`, or none for kConstantBase) points to, into kHostAddend, by
  // what is known of it; the access is `offset` away from there.
  void hold_window_delta(unsigned gpr, const std::optional<x86::Gp>& base, int64_t offset,
                         const MemoryAccess& access);
  // The same, anew; `store`: into WindowState::kept too.
  void emit_window_delta(unsigned gpr, const std::optional<x86::Gp>& base, bool store);
  void emit_window_at_linear(const MemoryAccess& access, uint64_t hint = 0);
  void emit_window_lookup(const std::optional<x86::Gp>& base, uint64_t address);
  bool may_clobber_flags() const;
  // `address`: if there is no base, the address; else one that may be in the same region.
  void emit_window_check(const std::optional<x86::Gp>& base, uint64_t address);
  void emit_window_out_of_line(const WindowCheck& check);
  x86::Mem kept_field(int home) const;
  void forget_kept_deltas();
  bool worth_keeping(unsigned gpr) const;
  bool is_base(const GuestInstruction& insn, const ZydisDecodedOperand& operand, unsigned gpr) const;
  uint64_t first_constant() const;
  std::optional<uint64_t> constant_with_base(const ZydisDecodedOperandMem& mem,
                                             const GuestInstruction& insn) const;
  KeptDeltas carried_deltas() const;
  KeptDeltas first_deltas() const;
  void check_first(KeptDeltas deltas);
  static std::optional<int64_t> constant_step(const GuestInstruction& insn, unsigned gpr, unsigned bits);
  static bool writes_gpr(const GuestInstruction& insn, unsigned gpr);
  void follow_kept_deltas(const GuestInstruction& insn);

  // --- emit_generic.cpp
  void emit_generic(const GuestInstruction& insn);
  bool emit_patched_move(const GuestInstruction& insn);
  void emit_lea(const GuestInstruction& insn);
  void emit_bit_test(const GuestInstruction& insn);
  void emit_xlat(const GuestInstruction& insn);
  void emit_mask_move(const GuestInstruction& insn);
  void emit_masked_move(const GuestInstruction& insn);
  void emit_gather(const GuestInstruction& insn);
  void emit_zero_vectors(const GuestInstruction& insn);
  void emit_hint(const GuestInstruction& insn);
  enum class MemoryForm : uint8_t { None, Operand, Linear, Rdi };
  struct RegisterMap {
    int reg = -1, rm = -1, vvvv = -1,
        opcode = -1;  // host register numbers where they differ from the guest's
    void set(ZydisOperandEncoding encoding, int host);
    bool empty() const { return (reg & rm & vvvv & opcode) == -1; }
  };
  void embed_reencoded(const GuestInstruction& insn, MemoryForm form, const RegisterMap& map);
  void set_gpr(unsigned gpr, const x86::Gp& from, unsigned bytes);  // from must be a scratch register
  bool lives_in_memory(unsigned gpr) const { return home_[gpr] == kInMemory; }
  x86::Gp host_gpr(unsigned gpr) const { return x86::gpq(home_[gpr]); }  // of one that does not
  x86::Gp read_gpr(unsigned gpr, const x86::Gp& scratch);  // the host register, or `scratch` loaded

  // --- emit_stack.cpp
  void emit_stack_offset(int64_t displacement);  // (RSP + displacement) into kLinear
  void open_stack(int64_t displacement, unsigned bytes, AccessKind kind);  // begins an access there
  void adjust_stack(int64_t bytes);
  void settle_stack();
  void move_stack(int64_t bytes);
  bool may_step_stack(int64_t bytes) const;
  bool keeps_stack_step(const GuestInstruction& insn) const;
  bool step_stack(const GuestInstruction& insn);
  void emit_push(const GuestInstruction& insn);
  void emit_push_value(const x86::Gp& value, unsigned bytes);  // value: not kHostAddend or kLinear
  void emit_push_slot(unsigned bytes);                         // value in Scratch::Operand
  void emit_pop(const GuestInstruction& insn);
  void emit_leave(const GuestInstruction& insn);

  // --- emit_control.cpp
  void emit_call(const GuestInstruction& insn);
  void emit_jmp(const GuestInstruction& insn);
  void emit_jcc(const GuestInstruction& insn);
  std::optional<uint64_t> superblock_goes_on_at(const GuestInstruction& branch) const;
  bool goes_on_at(uint64_t rip) const;
  bool is_loop() const;
  void plan_entry();
  void plan_swaps();
  bool is_plain(const GuestInstruction& insn) const;
  void emit_swaps();
  void emit_loop(const GuestInstruction& insn);
  void emit_ret(const GuestInstruction& insn);
  void load_indirect_target(const GuestInstruction& insn);  // into kTemp
  LinkStub& add_link(uint64_t rip);
  void exit_to(uint64_t rip, uint64_t from_rip);  // direct
  void exit_polled(uint64_t rip);
  void exit_indirect(int32_t stack_change);
  // A direct branch; one that leaves the code segment faults where it stands.
  void exit_branch(uint64_t target, const GuestInstruction& insn,
                   int32_t stack_change = 0);  // to the RIP in kLinear
  void emit_jump_cache_jump(const IndirectBranch* indirect, std::optional<uint64_t> rip);
  void emit_poll(uint64_t resume_rip);
  bool can_link(uint64_t rip) const;
  void load_rip(const x86::Gp& to, uint64_t rip);
  void emit_code_page();
  void emit_shared_entry();
  void emit_stack_entry();
  bool may_be_shared(const GuestInstruction& insn) const;
  bool leaves_segment(uint64_t target) const;
  bool one_instruction() const;

  // --- emit_system.cpp
  void emit_system(const GuestInstruction& insn, SystemInstruction system, bool ends);
  bool emit_system_inline(const GuestInstruction& insn, const SystemInstruction& system);
  template <class Usual>
  void with_rare_case(const GuestInstruction& insn, const SystemInstruction& system, x86::CondCode condition,
                      Usual usual);
  void emit_popf(const GuestInstruction& insn, const SystemInstruction& system, unsigned bytes);
  bool emit_string(const GuestInstruction& insn, const SystemInstruction& system);
  bool emit_repeated_string(const GuestInstruction& insn, const SystemInstruction& system,
                            const ZydisDecodedOperand* from, const ZydisDecodedOperand& to, unsigned bytes);
  x86::Mem selector_field(unsigned segment) const;

  const TranslatorOptions& options_;
  HostEnvironment environment_;
  TranslationStats stats_;

  // The block being translated.
  BlockKey key_;
  Block* block_ = nullptr;
  Arena* arena_ = nullptr;
  std::vector<SiteRecord> sites_;
  std::vector<uint64_t> poll_targets_;
  std::vector<GuestInstruction> instructions_;
  std::vector<uint32_t> instruction_offsets_;
  struct Liveness {
    uint32_t before, after;
  };
  std::vector<Liveness> live_;
  bool block_ended_ = false;
  asmjit::CodeHolder code_;
  Emitter a_;
  FlagHome flags_ = FlagHome::Host;
  size_t current_ = 0;                         // index of the instruction being emitted
  const MemoryAccess* open_access_ = nullptr;  // callout form, between begin and end
  bool access_is_inline_ = true;
  bool stored_by_callout_ = false;
  x86::Mem operand_;  // of the access that is open
  // Host register of each guest register.
  static constexpr uint8_t kInMemory = 0xff;
  static constexpr std::array<uint8_t, 16> kHomes{0, 1,         2,         3,         4,  5,  6,  7,
                                                  8, kInMemory, kInMemory, kInMemory, 12, 13, 14, 15};
  std::array<uint8_t, 16> home_ = kHomes;
  std::vector<RegisterSwap> swaps_;
  asmjit::Label loop_;            // where a block that is a loop has its second round; else not valid
  int loop_held_ = kNothingHeld;  // held_ there
  PatchedBytes patched_;
  WindowUse window_use_;
  int16_t stack_step_ = 0;                            // the guest's RSP is the host's and this
  std::array<KeptDelta, WindowState::kKept> kept_{};  // by guest register
  uint64_t constant_ = 0;                             // kept_[kConstantBase] is of its region
  int held_ = kNothingHeld;                           // home of the delta in kHostAddend
  std::vector<WindowCheck> window_checks_;
  std::vector<SideExit> side_exits_;
  std::vector<SlowPath> slow_paths_;
  std::vector<LinkStub> link_stubs_;
  std::vector<WarmEntry> warm_entries_;
  asmjit::Label stack_entry_;  // behind the check of RSP, if that is the first one of a shared block
};

// Which FPU state an instruction needs, and whether the mode lets it run; see ModeBits::kX87 and on.
struct FpuNeed {
  bool needs = false;
  FpuClass fpu_class = FpuClass::X87;
};
FpuNeed fpu_need(const GuestInstruction& insn);
bool fpu_available(FpuClass fpu_class, ModeBits mode);

}  // namespace penumbra::jit
