// The complete table of C++ functions that translated code may call. All are light code (core/README.md).
#pragma once

#include "jit/runtime.h"

namespace penumbra::jit::helper {

// Fills the TLB for an inline access. A store into a page with code may go ahead once the blocks that it
// changes are dropped, unless the running block is one of them. When the page cannot have an entry (MMIO,
// code, page crossing), runs the instruction in callout form instead. Raises the page fault if there is one.
uint64_t tlb_miss(Translator&, uint64_t linear, uint64_t detail, uint64_t site) noexcept;
// Executes a SystemInstruction in the core.
uint64_t window_miss(Translator&, uint64_t linear, uint64_t detail, uint64_t site) noexcept;
uint64_t window_select(Translator& translator, uint64_t linear, uint64_t window_site, uint64_t site) noexcept;
uint64_t system(Translator&, uint64_t linear, uint64_t instruction, uint64_t site) noexcept;
uint64_t system_end(Translator&, uint64_t linear, uint64_t instruction, uint64_t site) noexcept;
// Callout form: brings the operand into VcpuState::callout_buffer, checks that it can be written back.
uint64_t callout_begin(Translator&, uint64_t offset, uint64_t access, uint64_t site) noexcept;
// Callout form: writes the buffer back.
uint64_t callout_end(Translator&, uint64_t linear, uint64_t access, uint64_t site) noexcept;
// AVX2 gathers: loads the elements into the callout buffer.
uint64_t gather(Translator&, uint64_t linear, uint64_t access, uint64_t site) noexcept;
// VMASKMOV and VPMASKMOV: moves the lanes that the mask selects between memory and the callout buffer.
uint64_t masked_move(Translator&, uint64_t offset, uint64_t access, uint64_t site) noexcept;
// EFLAGS.TF: the instruction is done, raise #DB.
uint64_t single_step(Translator&, uint64_t rip, uint64_t detail, uint64_t site) noexcept;
// The same after an indirect branch, whose target may be no address at all.
uint64_t single_step_indirect(Translator&, uint64_t rip, uint64_t branch, uint64_t site) noexcept;
// Finds the block for a jump target that the jump cache does not know.
uint64_t lookup(Translator&, uint64_t rip, uint64_t detail, uint64_t site) noexcept;
uint64_t lookup_indirect(Translator&, uint64_t rip, uint64_t branch, uint64_t site) noexcept;
// The same for a direct jump within a page, and patches the jump.
uint64_t link(Translator&, uint64_t rip, uint64_t block_link, uint64_t site) noexcept;
// A jump led to a block whose guest code has changed since.
uint64_t redispatch(Translator&, uint64_t linear, uint64_t block, uint64_t site) noexcept;
// A host exception in translated code, as the guest exception that it stands for.
uint64_t host_fault(Translator&, uint64_t linear, uint64_t detail, uint64_t site) noexcept;

}  // namespace penumbra::jit::helper
