// Runs a test's bytes on the bare host CPU, in ring 3, and catches how they end.
#pragma once

#include "tests/jit/bare_guest.h"

namespace penumbra::test {

// Maps `image` at BareGuest::kCode, runs from `start` until an instruction faults (HLT does, in ring 3), and
// returns the state then. Fills `memory` with the image area afterwards. 64-bit code only.
// End is Halted for HLT, else Exception with the host's trap number.
BareGuest::Outcome run_natively(std::span<const uint8_t> image, const Registers& start,
                                std::span<std::byte> memory);

}  // namespace penumbra::test
