// What -d logs, as QEMU 7.2 writes it, so that the logs of both can be compared with diff.
#pragma once

#include <cstdint>
#include <string>

#include "core/vcpu.h"
#include "jit/block.h"

namespace penumbra::trace_format {

// -d cpu: registers. QEMU's line of its own lazy flags (CCS) always says that they are in EFLAGS.
std::string registers(const VcpuState& state, bool a20);

// -d exec: a block is entered. QEMU's flags of the translation are those of `nochain`, and of `-singlestep`
// when `long_blocks` is off.
std::string block_entry(const jit::Block& block, const VcpuState& state, bool long_blocks);

// -d int: before the event is delivered, `state` is still the interrupted one. QEMU shows events of real mode
// only where they come from the interrupt controller; with `real_mode` they look like the others. `number`
// counts the events that have a number.
std::string event(const EventRecord& event, const VcpuState& state, bool a20, bool real_mode,
                  uint64_t& number);

}  // namespace penumbra::trace_format
