#include "frontend/stats.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include "frontend/state_dump.h"

namespace penumbra {

namespace {

void row(std::string& text, std::string_view name, uint64_t value) {
  text += fmt::format("  {:<40} {:>16}\n", name, value);
}

void row(std::string& text, std::string_view name, std::chrono::nanoseconds time) {
  text += fmt::format("  {:<40} {:>14.3f} s\n", name, static_cast<double>(time.count()) / 1e9);
}

void row(std::string& text, std::string_view name, std::string_view words) {
  text += fmt::format("  {:<40} {:>16}\n", name, words);
}

uint64_t peak_resident_kib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<uint64_t>(usage.ru_maxrss);
}

}  // namespace

std::string stats_text(Machine& machine, const jit::Translator& translator, const RunTimes& times) {
  std::string text = "translator\n";
  for (const auto& [name, value] : translator.statistics()) row(text, name, value);

  const VcpuState& state = machine.vcpu().state();
  const VcpuStats& vcpu = machine.vcpu().stats();
  text += "vCPU\n";
  if (state.guest_instructions > 0) {
    row(text, "guest instructions", state.guest_instructions);
  } else {
    row(text, "guest instructions", "not counted");
  }
  row(text, "hardware interrupts", vcpu.interrupts);
  for (unsigned vector = 0; vector < std::size(vcpu.exceptions); ++vector) {
    if (vcpu.exceptions[vector] > 0)
      row(text, "exceptions: " + exception_name(vector), vcpu.exceptions[vector]);
  }
  row(text, "port reads", vcpu.io_reads);
  row(text, "port writes", vcpu.io_writes);
  row(text, "MMIO reads", vcpu.mmio_reads);
  row(text, "MMIO writes", vcpu.mmio_writes);
  text += unknown_msr_lines(vcpu);

  const TlbStats& tlb = machine.tlb().stats();
  text += "TLB\n";
  row(text, "hits (inline)", "not counted");
  row(text, "fills", tlb.fills);
  row(text, "page flushes", tlb.page_flushes);
  row(text, "address space flushes", tlb.space_flushes);
  row(text, "full flushes", tlb.full_flushes);

  const Machine::Times& ran = machine.times();
  text += "time\n";
  row(text, "before the first guest instruction", times.start);
  row(text, "running, translation included", ran.running - ran.halted);
  row(text, "halted", ran.halted);
  row(text, "total", times.total);
  row(text, "halts", ran.halts);
  row(text, "timer wake-ups", ran.wakes);
  row(text, "resets", ran.resets);
  text += "memory\n";
  row(text, "peak resident KiB, guest RAM included", peak_resident_kib());
  return text;
}

}  // namespace penumbra
