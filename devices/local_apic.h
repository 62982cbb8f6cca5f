// The processor's local APIC, with its timer, and the 8259A's interrupt on its LINT0 pin.
//
// SDM vol. 3, chapter 10 (xAPIC mode). After reset LINT0 is an unmasked ExtINT, as firmware leaves it and as
// QEMU's bootstrap processor has it: systems without firmware get the 8259A's interrupts. Not modelled:
// x2APIC mode, thermal and performance monitoring sources (their LVT entries are stored), focus processor
// checking, INIT and SIPI to itself, bus arbitration.
#pragma once

#include <array>
#include <cstdint>
#include <functional>

#include "core/interrupt_source.h"
#include "core/virtual_clock.h"
#include "devices/apic_message.h"
#include "devices/chip.h"
#include "mmu/physical_map.h"

namespace penumbra {

class LocalApic : public Device, public MmioHandler, public InterruptSource, public ProcessorApic {
 public:
  static constexpr uint64_t kDefaultBase = 0xfee0'0000, kBytes = 0x1000;

  struct Pins {
    LineOutput interrupt;  // INTR's level
    std::function<void()> nmi;
    std::function<uint8_t()> acknowledge_external;         // INTA to the 8259A
    std::function<void(uint8_t vector)> end_of_interrupt;  // of a level-triggered one
    ApicMessageSink send;                                  // interprocessor interrupts for others
  };
  // `timer_hz`: of the timer before its divider.
  LocalApic(VirtualClock& clock, PhysicalMap& map, uint8_t id, bool bootstrap, uint64_t timer_hz, Pins pins);

  // A message on the bus; taken if it is for this processor.
  void receive(const ApicMessage& message);
  bool is_destination(const ApicMessage& message) const;
  void set_lint0(bool level);  // the 8259A's INT
  void set_lint1(bool level);  // NMI
  // Whether the 8259A's interrupts arrive as NMIs.
  bool routes_nmi() const;

  // InterruptSource
  bool pending() const override;
  uint8_t acknowledge() override;
  ProcessorApic* apic() override { return this; }
  // ProcessorApic
  uint64_t base() const override { return base_; }
  bool enabled() const override;
  bool set_base(uint64_t value) override;
  uint8_t task_priority() const override { return task_priority_; }
  void set_task_priority(uint8_t value) override;
  uint64_t tsc_deadline() const override { return deadline_; }
  void set_tsc_deadline(uint64_t tsc, Nanoseconds from_now) override;

  uint64_t mmio_read(uint64_t offset, unsigned size) override;
  void mmio_write(uint64_t offset, unsigned size, uint64_t value) override;

  // Device: the registers by their offsets, as through memory.
  std::string_view name() const override { return "local_apic"; }
  uint32_t read(uint16_t offset, unsigned size) override {
    return static_cast<uint32_t>(mmio_read(offset, size));
  }
  void write(uint16_t offset, unsigned size, uint32_t value) override { mmio_write(offset, size, value); }
  void reset() override;
  DeviceState save() const override;
  void load(const DeviceState& state) override;

 private:
  enum Lvt : unsigned { kTimerEntry, kThermal, kPerformance, kLint0, kLint1, kErrorEntry, kLvts };
  class Vectors {
   public:
    bool has(uint8_t vector) const { return words_[vector / 32] >> vector % 32 & 1; }
    void set(uint8_t vector) { words_[vector / 32] |= uint32_t{1} << vector % 32; }
    void clear(uint8_t vector) { words_[vector / 32] &= ~(uint32_t{1} << vector % 32); }
    int highest() const;  // -1: none
    uint32_t word(unsigned index) const { return words_[index]; }
    std::array<uint32_t, 8>& words() { return words_; }
    const std::array<uint32_t, 8>& words() const { return words_; }

   private:
    std::array<uint32_t, 8> words_{};
  };

  uint32_t read_register(unsigned index);
  void write_register(unsigned index, uint32_t value);
  void accept(uint8_t vector, bool level);
  void deliver_local(Lvt entry);
  void report(uint32_t error);
  void end_interrupt();
  void write_svr(uint32_t value);
  void write_lvt(Lvt entry, uint32_t value);
  void send_ipi();
  bool software_enabled() const;
  bool takes_external() const;
  uint8_t processor_priority() const;
  int deliverable() const;
  void update();

  // The timer.
  unsigned divider() const;
  Nanoseconds duration(uint64_t count) const;
  uint32_t current_count() const;
  void start_timer();
  void timer_expired();

  Pins pins_;
  VirtualClock& clock_;
  PhysicalMap& map_;
  PhysicalMap::RegionId region_;
  const bool bootstrap_;
  const uint8_t first_id_;
  const uint64_t timer_hz_;
  Timer timer_;

  uint64_t base_ = 0;
  uint8_t id_ = 0;
  uint8_t task_priority_ = 0;
  uint32_t logical_destination_ = 0, destination_format_ = 0, spurious_ = 0;
  uint32_t errors_ = 0, error_status_ = 0;  // seen, and as ESR last latched them
  uint64_t command_ = 0;                    // ICR
  std::array<uint32_t, kLvts> lvt_{};
  Vectors requested_, in_service_, level_triggered_;  // IRR, ISR, TMR
  uint32_t initial_count_ = 0, divide_ = 0;
  Nanoseconds timer_start_ = 0;  // of the current round of initial_count_
  uint64_t deadline_ = 0;
  bool lint0_ = false, lint1_ = false;
  bool driven_ = false;  // INTR
};

}  // namespace penumbra
