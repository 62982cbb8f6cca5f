// A vCPU on 16 MiB of RAM with descriptor tables that tests fill in.
#pragma once

#include <gtest/gtest.h>

#include <memory>

#include "core/cpu_model.h"
#include "core/descriptor.h"
#include "core/io_bus.h"
#include "core/vcpu.h"
#include "mmu/physical_map.h"
#include "mmu/soft_tlb.h"

namespace penumbra {

class VcpuTest : public ::testing::Test {
 protected:
  // Where the tables lie.
  static constexpr uint64_t kGdt = 0x1000, kIdt = 0x2000, kTss = 0x3000, kTss2 = 0x3800, kLdt = 0x3c00,
                            kPageTables = 0x10'0000, kStack = 0x8000, kInnerStack = 0x9000,
                            kIstStack = 0xa000, kCode = 0x5000;
  // Selectors.
  static constexpr uint16_t kCode32 = 0x08, kData32 = 0x10, kUserCode32 = 0x1b, kUserData32 = 0x23,
                            kTssSel = 0x28, kTss2Sel = 0x30, kCode64 = 0x38, kUserCode64 = 0x43,
                            kTss64Sel = 0x48, kCode16 = 0x58, kData16 = 0x60, kLdtSel = 0x68,
                            kConforming = 0x70, kGate = 0x78, kFree = 0x88;

  explicit VcpuTest(const char* model = "base") : model_(model) {
    state_ = std::make_unique<VcpuState>();
    vcpu_ = std::make_unique<Vcpu>(*state_, map_, tlb_, io_, model_);
  }

  VcpuState& s() { return *state_; }
  Vcpu& cpu() { return *vcpu_; }

  uint64_t mem(uint64_t address, unsigned size) { return map_.read(PhysAddr{address}, size); }
  void set_mem(uint64_t address, unsigned size, uint64_t value) {
    map_.write(PhysAddr{address}, size, value);
  }

  static uint64_t descriptor(uint32_t base, uint32_t limit, uint16_t attributes) {
    return (limit & 0xffffu) | uint64_t{base & 0xff'ffffu} << 16 | uint64_t{attributes} << 40 |
           uint64_t{limit & 0xf'0000u} << 32 | uint64_t{base & 0xff00'0000u} << 32;
  }
  void set_descriptor(uint16_t selector, uint64_t value) { set_mem(kGdt + (selector & 0xfff8u), 8, value); }
  uint64_t get_descriptor(uint16_t selector) { return mem(kGdt + (selector & 0xfff8u), 8); }
  static uint64_t gate(uint16_t selector, uint32_t offset, uint8_t access, uint8_t low = 0) {
    return (offset & 0xffffu) | uint64_t{selector} << 16 | uint64_t{low} << 32 | uint64_t{access} << 40 |
           uint64_t{offset & 0xffff'0000u} << 32;
  }

  void make_tables() {
    for (unsigned i = 0; i < 0x100; i += 8) set_mem(kGdt + i, 8, 0);
    set_descriptor(kCode32, descriptor(0, 0xf'ffff, 0xc09a));
    set_descriptor(kData32, descriptor(0, 0xf'ffff, 0xc092));
    set_descriptor(kUserCode32, descriptor(0, 0xf'ffff, 0xc0fa));
    set_descriptor(kUserData32, descriptor(0, 0xf'ffff, 0xc0f2));
    set_descriptor(kTssSel, descriptor(kTss, 0x2ff, 0x0089));
    set_descriptor(kTss2Sel, descriptor(kTss2, 0x2ff, 0x0089));
    set_descriptor(kCode64, descriptor(0, 0xf'ffff, 0xa09a));
    set_descriptor(kUserCode64, descriptor(0, 0xf'ffff, 0xa0fa));
    set_descriptor(kTss64Sel, descriptor(kTss, 0x67, 0x0089));
    set_descriptor(kTss64Sel + 8, 0);
    set_descriptor(kCode16, descriptor(0, 0xffff, 0x009a));
    set_descriptor(kData16, descriptor(0, 0xffff, 0x0092));
    set_descriptor(kLdtSel, descriptor(kLdt, 0x3f, 0x0082));
    set_descriptor(kConforming, descriptor(0, 0xf'ffff, 0xc09e));
    s().gdtr = {.base = kGdt, .limit = 0xff};
    s().idtr = {.base = kIdt, .limit = 0x7ff};
    set_mem(kTss + 4, 4, kInnerStack);
    set_mem(kTss + 8, 4, kData32);
  }

  Segment from_table(uint16_t selector) {
    return Descriptor{.raw = get_descriptor(selector) | uint64_t{1} << 40, .address = {}}.segment(selector);
  }

  // Flat 32-bit protected mode at `cpl`, no paging, TR loaded.
  void protected_mode(unsigned cpl) {
    make_tables();
    s().cr0 = cr0::kPe | cr0::kEt | cr0::kNe;
    s().segments[kCs] = from_table(cpl == 0 ? kCode32 : kUserCode32);
    const Segment data = from_table(cpl == 0 ? kData32 : kUserData32);
    for (SegmentIndex i : {kEs, kSs, kDs, kFs, kGs}) s().segments[i] = data;
    s().tr = from_table(kTssSel);
    s().tr.attributes |= 2;
    set_descriptor(kTssSel, get_descriptor(kTssSel) | uint64_t{2} << 40);
    s().cpl = static_cast<uint8_t>(cpl);
    s().rip = kCode;
    s().gpr[kRsp] = kStack;
    cpu().update_mode();
  }

  // Identity page tables for the first 16 MiB with 4 KiB pages, in the 4-level format. User may use all.
  void long_tables() {
    set_mem(kPageTables, 8, (kPageTables + 0x1000) | 7);
    set_mem(kPageTables + 0x1000, 8, (kPageTables + 0x2000) | 7);
    for (unsigned i = 0; i < 8; ++i) {
      const uint64_t table = kPageTables + 0x3000 + i * 0x1000;
      set_mem(kPageTables + 0x2000 + i * 8, 8, table | 7);
      for (unsigned j = 0; j < 512; ++j) set_mem(table + j * 8, 8, (uint64_t{i} << 21 | j << 12) | 7);
    }
  }
  void set_page(uint64_t linear, uint64_t entry) {
    set_mem(kPageTables + 0x3000 + (linear >> 12) * 8, 8, entry);
    tlb_.flush_all();
    cpu().update_mode();
  }

  void long_mode(unsigned cpl) {
    make_tables();
    long_tables();
    s().idtr.limit = 0xfff;
    s().cr4 = cr4::kPae;
    s().cr3 = kPageTables;
    s().efer = efer::kLme | efer::kLma | efer::kSce | efer::kNxe;
    s().cr0 = cr0::kPe | cr0::kPg | cr0::kWp | cr0::kEt | cr0::kNe;
    s().segments[kCs] = from_table(cpl == 0 ? kCode64 : kUserCode64);
    s().segments[kSs] = from_table(cpl == 0 ? kData32 : kUserData32);
    for (SegmentIndex i : {kEs, kDs, kFs, kGs}) s().segments[i] = Segment{};
    s().tr = from_table(kTss64Sel);
    s().tr.attributes |= 2;
    set_mem(kTss + 4, 8, kInnerStack);
    set_mem(kTss + 0x24, 8, kIstStack);
    s().cpl = static_cast<uint8_t>(cpl);
    s().rip = kCode;
    s().gpr[kRsp] = kStack;
    tlb_.flush_all();
    cpu().update_mode();
  }

  void set_gate64(uint8_t number, uint64_t target, uint8_t access, uint8_t ist = 0,
                  uint16_t selector = kCode64) {
    set_mem(kIdt + number * 16, 8, gate(selector, static_cast<uint32_t>(target), access, ist));
    set_mem(kIdt + number * 16 + 8, 8, target >> 32);
  }
  void set_gate32(uint8_t number, uint32_t target, uint8_t access, uint16_t selector = kCode32) {
    set_mem(kIdt + number * 8, 8, gate(selector, target, access));
  }

  void v8086_mode(uint64_t iopl) {
    protected_mode(3);
    s().rflags = flag::kFixed1 | flag::kVm | iopl << 12;
    for (SegmentIndex i : {kEs, kSs, kDs, kFs, kGs, kCs}) {
      s().segments[i] = {.base = 0x4000, .limit = 0xffff, .selector = 0x400, .attributes = 0xf3};
    }
    s().rip = 0x100;
    s().gpr[kRsp] = 0x800;
    cpu().update_mode();
  }

  SystemInstruction insn(SystemOp op, unsigned length = 2, unsigned operand_bytes = 4) {
    SystemInstruction i;
    i.op = op;
    i.length = static_cast<uint8_t>(length);
    i.operand_bytes = static_cast<uint8_t>(operand_bytes);
    i.address_bytes = s().mode.has(ModeBits::kCode64) ? 8 : s().mode.has(ModeBits::kCode32) ? 4 : 2;
    i.rip = s().rip;
    return i;
  }
  SystemInstruction memory_insn(SystemOp op, uint64_t offset, unsigned operand_bytes = 4) {
    SystemInstruction i = insn(op, 3, operand_bytes);
    i.displacement = static_cast<int64_t>(offset);
    return i;
  }
  SystemInstruction far_insn(SystemOp op, uint16_t selector, uint64_t offset, unsigned operand_bytes = 4) {
    SystemInstruction i = insn(op, 7, operand_bytes);
    i.immediate_present = true;
    i.selector = selector;
    i.immediate = offset;
    return i;
  }

  // The fault that `instruction` raises, with the state unchanged otherwise; vector 255 when it succeeds.
  Exception fault_of(const SystemInstruction& instruction) {
    const uint64_t rip = s().rip, rsp = s().gpr[kRsp], rflags = s().rflags;
    const uint16_t cs = s().segments[kCs].selector, ss = s().segments[kSs].selector;
    const auto result = cpu().execute(instruction);
    if (result) return {.vector = 255};
    EXPECT_EQ(s().rip, rip);
    EXPECT_EQ(s().gpr[kRsp], rsp);
    EXPECT_EQ(s().rflags, rflags);
    EXPECT_EQ(s().segments[kCs].selector, cs);
    EXPECT_EQ(s().segments[kSs].selector, ss);
    return result.error();
  }
  void expect_fault(const SystemInstruction& instruction, uint8_t number, uint32_t error_code) {
    const Exception fault = fault_of(instruction);
    EXPECT_EQ(fault.vector, number);
    EXPECT_EQ(fault.error_code, error_code);
  }
  void expect_redirect(const SystemInstruction& instruction) {
    const auto result = cpu().execute(instruction);
    ASSERT_TRUE(result) << "vector " << int{result.error().vector} << " error " << result.error().error_code;
    EXPECT_EQ(*result, Outcome::Redirect);
  }

  PhysicalMap map_{16 << 20};
  SoftTlb tlb_{map_};
  IoBus io_;
  CpuModel model_;
  std::unique_ptr<VcpuState> state_;
  std::unique_ptr<Vcpu> vcpu_;
};

}  // namespace penumbra
