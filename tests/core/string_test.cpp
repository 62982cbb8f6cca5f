#include <tuple>
#include <vector>

#include "tests/core/vcpu_fixture.h"

namespace penumbra {
namespace {

using Repeat = SystemInstruction::Repeat;

struct RecordingChip : MmioHandler {
  uint64_t mmio_read(uint64_t offset, unsigned size) override {
    reads.push_back(size);
    return 0x1111'1111'1111'1111 * (1 + offset % 8);
  }
  void mmio_write(uint64_t offset, unsigned size, uint64_t value) override {
    writes.push_back({offset, size, value});
  }
  std::vector<unsigned> reads;
  std::vector<std::tuple<uint64_t, unsigned, uint64_t>> writes;
};

struct CodeListener : CodeWriteListener {
  void code_written(PageFrame frame, uint64_t offset, uint64_t size) override {
    calls.push_back({frame.number, offset, size});
  }
  std::vector<std::tuple<uint64_t, uint64_t, uint64_t>> calls;
};

class String : public VcpuTest {
 protected:
  static constexpr uint64_t kFrom = 0x2'0000, kTo = 0x4'0000;
  static constexpr uint64_t kChip = 0xd000'0000;

  SystemInstruction string(SystemOp op, unsigned size, Repeat repeat = Repeat::None) {
    SystemInstruction i = insn(op, 3, size);
    i.repeat = repeat;
    return i;
  }
  void point(uint64_t rsi, uint64_t rdi, uint64_t rcx) {
    s().gpr[kRsi] = rsi;
    s().gpr[kRdi] = rdi;
    s().gpr[kRcx] = rcx;
  }
  void expect_point(uint64_t rsi, uint64_t rdi, uint64_t rcx) {
    EXPECT_EQ(s().gpr[kRsi], rsi);
    EXPECT_EQ(s().gpr[kRdi], rdi);
    EXPECT_EQ(s().gpr[kRcx], rcx);
  }
  void run(const SystemInstruction& i) {
    const auto result = cpu().execute(i);
    ASSERT_TRUE(result) << "vector " << int{result.error().vector};
    EXPECT_EQ(s().rip, i.rip + i.length);
  }
  void fill(uint64_t address, unsigned bytes) {
    for (unsigned i = 0; i < bytes; ++i) set_mem(address + i, 1, (i * 7 + 3) & 0xff);
  }
};

TEST_F(String, MovesEverySizeInBothDirections) {
  long_mode(0);
  for (const unsigned size : {1u, 2u, 4u, 8u}) {
    for (const bool backward : {false, true}) {
      fill(kFrom, 256);
      for (unsigned i = 0; i < 256; i += 8) set_mem(kTo + i, 8, 0);
      s().rip = kCode;
      s().rflags = flag::kFixed1 | (backward ? flag::kDf : 0);
      const uint64_t start = backward ? (5 - 1) * size : 0, step = backward ? ~uint64_t{size} + 1 : size;
      point(kFrom + start, kTo + start, 5);
      run(string(SystemOp::Movs, size, Repeat::Repe));
      expect_point(kFrom + start + 5 * step, kTo + start + 5 * step, 0);
      for (unsigned i = 0; i < 5 * size; ++i) EXPECT_EQ(mem(kTo + i, 1), mem(kFrom + i, 1)) << i;
      EXPECT_EQ(mem(kTo + 5 * size, 1), 0u);
    }
  }
}

TEST_F(String, CrossesManyPages) {
  long_mode(0);
  constexpr unsigned kBytes = 3 * 4096 + 100;
  fill(kFrom + 5, kBytes);
  point(kFrom + 5, kTo + 4000, kBytes);
  run(string(SystemOp::Movs, 1, Repeat::Repe));
  expect_point(kFrom + 5 + kBytes, kTo + 4000 + kBytes, 0);
  for (unsigned i = 0; i < kBytes; ++i) ASSERT_EQ(mem(kTo + 4000 + i, 1), mem(kFrom + 5 + i, 1)) << i;
}

TEST_F(String, MisalignedElementsCrossPages) {
  long_mode(0);
  set_page(0x2'1000, 0x50'0000 | 7);  // not the neighbour of the page before
  fill(kFrom + 0xff0, 16);
  fill(0x50'0000, 64);
  point(kFrom + 0xffd, kTo + 0xffb, 4);
  run(string(SystemOp::Movs, 8, Repeat::Repe));
  for (unsigned i = 0; i < 3; ++i) EXPECT_EQ(mem(kTo + 0xffb + i, 1), mem(kFrom + 0xffd + i, 1));
  for (unsigned i = 3; i < 32; ++i) EXPECT_EQ(mem(kTo + 0xffb + i, 1), mem(0x50'0000 + i - 3, 1)) << i;
}

// What the classic overlapping copy makes of memory: element by element, in order.
TEST_F(String, OverlapPropagatesAsElementByElement) {
  long_mode(0);
  for (const unsigned size : {1u, 2u, 4u, 8u}) {
    fill(kFrom, 512);
    std::vector<uint64_t> expected(512);
    for (unsigned i = 0; i < 512; ++i) expected[i] = mem(kFrom + i, 1);
    for (unsigned i = 0; i < 200; ++i) {
      std::vector<uint64_t> element(expected.begin() + i * size, expected.begin() + (i + 1) * size);
      if ((i + 1) * size + 3 > 512) break;
      std::copy(element.begin(), element.end(), expected.begin() + i * size + 3);
    }
    const unsigned count = std::min(200u, (512 - 3) / size);
    s().rip = kCode;
    point(kFrom, kFrom + 3, count);
    run(string(SystemOp::Movs, size, Repeat::Repe));
    for (unsigned i = 0; i < 512; ++i) ASSERT_EQ(mem(kFrom + i, 1), expected[i]) << size << " at " << i;
  }
}

// The same when the overlap is physical only: two linear pages on one frame.
TEST_F(String, OverlapThroughAnAlias) {
  long_mode(0);
  set_page(kTo, kFrom | 7);
  fill(kFrom, 64);
  const uint64_t first = mem(kFrom, 1);
  point(kFrom, kTo + 1, 63);
  run(string(SystemOp::Movs, 1, Repeat::Repe));
  for (unsigned i = 0; i < 64; ++i) EXPECT_EQ(mem(kFrom + i, 1), first);
}

TEST_F(String, FaultHalfWayKeepsWhatIsDone) {
  long_mode(3);
  set_page(kTo + 0x1000, 0);
  fill(kFrom, 4096);
  point(kFrom, kTo + 0xff0, 40);
  const auto i = string(SystemOp::Movs, 1, Repeat::Repe);
  const auto result = cpu().execute(i);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().vector, vector::kPf);
  EXPECT_EQ(result.error().cr2, kTo + 0x1000);
  EXPECT_EQ(result.error().error_code, page_fault::kWrite | page_fault::kUser);
  EXPECT_EQ(s().rip, i.rip);
  expect_point(kFrom + 16, kTo + 0x1000, 24);
  set_page(kTo + 0x1000, (kTo + 0x1000) | 7);
  run(i);
  for (unsigned n = 0; n < 40; ++n) EXPECT_EQ(mem(kTo + 0xff0 + n, 1), mem(kFrom + n, 1));
}

TEST_F(String, SourceFaultLeavesTheDestinationAlone) {
  long_mode(3);
  set_page(kFrom, 0);
  set_mem(kTo, 4, 0x55);
  point(kFrom, kTo, 1);
  const auto result = cpu().execute(string(SystemOp::Movs, 4));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().cr2, kFrom);
  EXPECT_EQ(result.error().error_code, page_fault::kUser);
  EXPECT_EQ(mem(kTo, 4), 0x55u);
  expect_point(kFrom, kTo, 1);
}

TEST_F(String, BackwardFaultHalfWay) {
  long_mode(3);
  set_page(kTo, 0);
  s().rflags |= flag::kDf;
  point(kFrom + 0x1008, kTo + 0x1008, 10);
  const auto result = cpu().execute(string(SystemOp::Movs, 4, Repeat::Repe));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().cr2, kTo + 0xffc);
  expect_point(kFrom + 0xffc, kTo + 0xffc, 7);
}

// SDM vol. 2, REP: a fault restores the flags from before the instruction.
// AMD's answer, seen on a Zen 5; Intel's manual has the flags of before the instruction (vol. 2, REP).
TEST_F(String, ComparisonFaultLeavesTheFlagsOfTheLastComparison) {
  ASSERT_TRUE(cpu().model().is_amd());
  long_mode(3);
  set_page(kFrom + 0x1000, 0);
  s().rflags |= flag::kCf | flag::kOf;
  point(kFrom + 0xff8, kTo, 100);
  const auto result = cpu().execute(string(SystemOp::Cmps, 1, Repeat::Repe));
  ASSERT_FALSE(result);
  EXPECT_EQ(s().rflags & flag::kArithmetic, flag::kZf | flag::kPf);  // they were equal
  expect_point(kFrom + 0x1000, kTo + 8, 92);
}

TEST_F(String, StoresAndLoadsEverySize) {
  long_mode(0);
  for (const unsigned size : {1u, 2u, 4u, 8u}) {
    for (unsigned i = 0; i < 64; i += 8) set_mem(kTo + i, 8, 0);
    s().rip = kCode;
    s().gpr[kRax] = 0x8877'6655'4433'2211;
    point(0, kTo, 3);
    run(string(SystemOp::Stos, size, Repeat::Repe));
    EXPECT_EQ(s().gpr[kRdi], kTo + 3 * size);
    const uint64_t value = size == 8 ? s().gpr[kRax] : s().gpr[kRax] & ((uint64_t{1} << size * 8) - 1);
    for (unsigned i = 0; i < 3; ++i) EXPECT_EQ(mem(kTo + i * size, size), value);
    EXPECT_EQ(mem(kTo + 3 * size, 1), 0u);

    s().rip = kCode;
    s().gpr[kRax] = ~uint64_t{0};
    set_mem(kFrom + 2 * size, 8, 0x0102'0304'0506'0708);
    point(kFrom, 0, 3);
    run(string(SystemOp::Lods, size, Repeat::Repne));
    EXPECT_EQ(s().gpr[kRsi], kFrom + 3 * size);
    const uint64_t last = mem(kFrom + 2 * size, size);
    EXPECT_EQ(s().gpr[kRax], size >= 4 ? last : (~uint64_t{0} << size * 8) | last);
  }
}

TEST_F(String, ComparesStopAtTheDifference) {
  long_mode(0);
  fill(kFrom, 64);
  fill(kTo, 64);
  set_mem(kTo + 20, 1, mem(kFrom + 20, 1) + 1);
  point(kFrom, kTo, 64);
  run(string(SystemOp::Cmps, 1, Repeat::Repe));
  expect_point(kFrom + 21, kTo + 21, 43);
  EXPECT_EQ(s().rflags & (flag::kZf | flag::kCf | flag::kSf), flag::kCf | flag::kSf);

  s().rip = kCode;
  point(kFrom, kTo, 20);
  run(string(SystemOp::Cmps, 1, Repeat::Repe));
  expect_point(kFrom + 20, kTo + 20, 0);
  EXPECT_TRUE(s().rflags & flag::kZf);
}

TEST_F(String, ScanFindsAByteBehindAPage) {
  long_mode(0);
  for (unsigned i = 0; i < 0x2000; i += 8) set_mem(kTo + i, 8, 0x2020'2020'2020'2020);
  set_mem(kTo + 0x1234, 1, 'x');
  s().gpr[kRax] = 0xff00 | 'x';
  point(0, kTo, ~uint64_t{0});
  run(string(SystemOp::Scas, 1, Repeat::Repne));
  EXPECT_EQ(s().gpr[kRdi], kTo + 0x1235);
  EXPECT_EQ(s().gpr[kRcx], ~uint64_t{0} - 0x1235);
  EXPECT_EQ(s().rflags & flag::kArithmetic, flag::kZf | flag::kPf);

  s().rip = kCode;
  s().gpr[kRax] = ' ';
  point(0, kTo, 0x2000);
  run(string(SystemOp::Scas, 1, Repeat::Repe));
  EXPECT_EQ(s().gpr[kRdi], kTo + 0x1235);
}

TEST_F(String, FlagsOfComparisonsAreThoseOfCmp) {
  long_mode(0);
  struct Case {
    uint64_t left, right, flags;
  };
  for (const auto& [left, right, flags] :
       {Case{0, 0, flag::kZf | flag::kPf}, Case{0, 1, flag::kCf | flag::kSf | flag::kAf | flag::kPf},
        Case{0x8000'0000, 1, flag::kOf | flag::kAf | flag::kPf}, Case{5, 3, 0}}) {
    // On the page edge the other path serves: both must agree.
    for (const uint64_t at : {kFrom, kFrom + 0xffe}) {
      s().rip = kCode;
      s().rflags |= flag::kArithmetic;
      set_mem(at, 2, left & 0xffff), set_mem(at + 2, 2, left >> 16);
      set_mem(kTo, 4, right);
      point(at, kTo, 0);
      run(string(SystemOp::Cmps, 4));
      EXPECT_EQ(s().rflags & flag::kArithmetic, flags) << left;
      s().rip = kCode;
      s().gpr[kRax] = left;
      set_mem(at, 2, right & 0xffff), set_mem(at + 2, 2, right >> 16);
      point(0, at, 0);
      run(string(SystemOp::Scas, 4));
      EXPECT_EQ(s().rflags & flag::kArithmetic, flags) << left;
    }
  }
}

TEST_F(String, NothingHappensForACountOfZero) {
  long_mode(3);
  s().rflags |= flag::kCf;
  point(0xdead'0000'0000, 0xdead'0000'0000, 0);
  for (const SystemOp op : {SystemOp::Movs, SystemOp::Stos, SystemOp::Lods, SystemOp::Scas, SystemOp::Cmps}) {
    s().rip = kCode;
    run(string(op, 1, Repeat::Repe));
  }
  EXPECT_TRUE(s().rflags & flag::kCf);
  expect_point(0xdead'0000'0000, 0xdead'0000'0000, 0);
}

TEST_F(String, AddressSizeLimitsAndExtendsTheRegisters) {
  long_mode(0);
  auto i = string(SystemOp::Movs, 1, Repeat::Repe);
  i.address_bytes = 4;
  fill(kFrom, 8);
  point(0xffff'ffff'0000'0000 | kFrom, 0x1'0000'0000 | kTo, 0x7'0000'0004);
  run(i);
  expect_point(kFrom + 4, kTo + 4, 0);
  EXPECT_EQ(mem(kTo, 4), mem(kFrom, 4));
}

TEST_F(String, SixteenBitOffsetsWrap) {
  protected_mode(0);
  // The segment is not page aligned: the wrap is inside a page.
  for (unsigned n = 0; n < 8; ++n) set_mem(0x3'0010 + ((0xfffc + n) & 0xffff), 1, 0xa0 + n);
  s().segments[kDs].base = 0x3'0010;
  cpu().update_mode();
  auto i = string(SystemOp::Movs, 1, Repeat::Repe);
  i.address_bytes = 2;
  point(0xabcd'fffc, 0x5678'8000, 0x9999'0008);
  run(i);
  expect_point(0xabcd'0004, 0x5678'8008, 0x9999'0000);
  for (unsigned n = 0; n < 8; ++n) EXPECT_EQ(mem(0x8000 + n, 1), 0xa0u + n);
}

TEST_F(String, SegmentLimitFaultsAtTheElementBeyond) {
  protected_mode(0);
  s().segments[kEs].limit = kTo + 9;
  cpu().update_mode();
  point(kFrom, kTo, 8);
  const auto result = cpu().execute(string(SystemOp::Movs, 4, Repeat::Repe));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().vector, vector::kGp);
  expect_point(kFrom + 8, kTo + 8, 6);
}

TEST_F(String, SourceOverrideWithBase) {
  long_mode(0);
  s().segments[kGs].base = kFrom;
  fill(kFrom, 16);
  auto i = string(SystemOp::Movs, 8);
  i.segment = kGs;
  point(8, kTo, 0);
  run(i);
  EXPECT_EQ(mem(kTo, 8), mem(kFrom + 8, 8));
}

TEST_F(String, NonCanonicalAddressIsAGeneralProtectionFault) {
  long_mode(0);
  point(kFrom, 0x0000'7fff'ffff'fffe, 4);
  const auto result = cpu().execute(string(SystemOp::Stos, 8, Repeat::Repe));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().vector, vector::kGp);
}

TEST_F(String, AlignmentCheck) {
  protected_mode(3);
  s().cr0 |= cr0::kAm;
  s().rflags |= flag::kAc;
  cpu().update_mode();
  point(kFrom + 1, kTo, 1);
  const auto result = cpu().execute(string(SystemOp::Movs, 4));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().vector, vector::kAc);
}

TEST_F(String, AttentionStopsBetweenElements) {
  long_mode(0);
  fill(kFrom, 0x3000);
  point(kFrom, kTo, 0x3000);
  cpu().attend(attention::kInterrupt);
  const auto i = string(SystemOp::Movs, 1, Repeat::Repe);
  unsigned rounds = 0;
  while (s().rip == i.rip) {
    const uint64_t before = s().gpr[kRcx];
    const auto result = cpu().execute(i);
    ASSERT_TRUE(result);
    EXPECT_EQ(*result, Outcome::Redirect);
    EXPECT_LT(s().gpr[kRcx], before);
    EXPECT_EQ(s().gpr[kRdi] - kTo, 0x3000 - s().gpr[kRcx]);
    ASSERT_LT(++rounds, 100u);
  }
  EXPECT_GE(rounds, 3u);
  EXPECT_EQ(mem(kTo + 0x2ff8, 8), mem(kFrom + 0x2ff8, 8));
}

// SDM vol. 3, 17.3.1.4: the trap comes after each iteration, RIP at the instruction until the last.
TEST_F(String, SingleStepTrapsAfterEveryIteration) {
  long_mode(0);
  s().rflags |= flag::kTf;
  cpu().update_mode();
  point(0, kTo, 3);
  const auto i = string(SystemOp::Stos, 1, Repeat::Repe);
  for (uint64_t left : {2u, 1u}) {
    const auto result = cpu().execute(i);
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().vector, vector::kDb);
    EXPECT_TRUE(result.error().trap);
    EXPECT_EQ(s().rip, i.rip);
    EXPECT_EQ(s().gpr[kRcx], left);
  }
  run(i);
}

TEST_F(String, ChipsAreAccessedOnceAnElement) {
  RecordingChip chip;
  map_.add_mmio(PhysAddr{kChip}, 0x1000, chip, "chip");
  long_mode(0);
  set_page(kTo, kChip | 7);
  fill(kFrom, 64);
  point(kFrom, kTo + 8, 3);
  run(string(SystemOp::Movs, 4, Repeat::Repe));
  ASSERT_EQ(chip.writes.size(), 3u);
  EXPECT_EQ(chip.writes[1], std::make_tuple(uint64_t{12}, 4u, mem(kFrom + 4, 4)));
  EXPECT_TRUE(chip.reads.empty());

  s().rip = kCode;
  point(kTo, kFrom, 2);
  run(string(SystemOp::Movs, 2, Repeat::Repe));
  EXPECT_EQ(chip.reads, (std::vector<unsigned>{2, 2}));
  EXPECT_EQ(mem(kFrom, 4), 0x3333'1111u);
}

TEST_F(String, AChipIsNotReadWhenTheDestinationFaults) {
  RecordingChip chip;
  map_.add_mmio(PhysAddr{kChip}, 0x1000, chip, "chip");
  long_mode(3);
  set_page(kFrom, kChip | 7);
  set_page(kTo, 0);
  point(kFrom, kTo, 1);
  ASSERT_FALSE(cpu().execute(string(SystemOp::Movs, 4)));
  EXPECT_TRUE(chip.reads.empty());
}

TEST_F(String, RomSwallowsStores) {
  std::vector<std::byte> image(4096, std::byte{0x5a});
  map_.add_rom(PhysAddr{0xe'0000}, image);
  long_mode(0);
  s().gpr[kRax] = 0;
  point(0, 0xe'0000, 16);
  run(string(SystemOp::Stos, 1, Repeat::Repe));
  EXPECT_EQ(mem(0xe'0000, 1), 0x5au);
  EXPECT_EQ(s().gpr[kRdi], 0xe'0010u);
}

TEST_F(String, TranslatedCodeIsToldBeforeItChanges) {
  CodeListener listener;
  map_.tracker().set_listener(&listener);
  long_mode(0);
  const PageFrame frame = PhysAddr{kTo}.frame();
  map_.tracker().set_holds_code(frame, true);
  tlb_.stop_writes_to(frame);
  s().gpr[kRax] = 0x77;
  point(0, kTo + 0x10, 0x20);
  const auto i = string(SystemOp::Stos, 1, Repeat::Repe);
  const auto result = cpu().execute(i);
  ASSERT_TRUE(result);
  EXPECT_EQ(*result, Outcome::Redirect);
  ASSERT_EQ(listener.calls.size(), 1u);
  EXPECT_EQ(listener.calls[0], std::make_tuple(frame.number, uint64_t{0x10}, uint64_t{0x20}));
  EXPECT_EQ(mem(kTo + 0x2f, 1), 0x77u);

  listener.calls.clear();
  s().rip = i.rip;
  s().rflags |= flag::kDf;
  point(0, kTo + 0x100, 4);
  run(string(SystemOp::Stos, 4, Repeat::Repe));
  ASSERT_EQ(listener.calls.size(), 1u);
  EXPECT_EQ(listener.calls[0], std::make_tuple(frame.number, uint64_t{0xf4}, uint64_t{16}));
}

}  // namespace
}  // namespace penumbra
