// `penumbra run`: builds the machine that the options ask for, runs it and says how it ended.
#pragma once

#include <chrono>

#include "frontend/options.h"

namespace penumbra {

// The program's exit status, or death by the signal that ended the machine. Throws UserError for what the
// user can mend. `began`: the program's start.
int run(const RunOptions& options, std::chrono::steady_clock::time_point began);

}  // namespace penumbra
