// What --stats prints: counters of every layer and where the time went.
#pragma once

#include <chrono>
#include <string>

#include "core/machine.h"
#include "jit/translator.h"

namespace penumbra {

struct RunTimes {
  std::chrono::nanoseconds start{0};  // from the program's start to the guest's first instruction
  std::chrono::nanoseconds total{0};  // from the program's start until now
};

std::string stats_text(Machine& machine, const jit::Translator& translator, const RunTimes& times);

}  // namespace penumbra
