// Expected values: National Semiconductor PC16550D datasheet; sections are named in the tests.
#include "devices/uart_16550a.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <vector>

namespace penumbra {
namespace {

constexpr uint16_t kData = 0, kIer = 1, kIir = 2, kFcr = 2, kLcr = 3, kMcr = 4, kLsr = 5, kMsr = 6, kScr = 7;
constexpr uint8_t kDlab = 0x80;
constexpr uint8_t kOut2 = 0x08, kLoop = 0x10;

class Uart16550aTest : public testing::Test {
 protected:
  Nanoseconds time_ = 0;
  VirtualClock clock_{[this] { return time_; }};
  std::vector<bool> edges_;
  bool line_ = false;
  std::string sent_;
  bool blocks_ = false;  // whoever takes the bytes takes no more
  Uart16550a uart_{"uart", clock_,
                   [this](bool level) {
                     line_ = level;
                     edges_.push_back(level);
                   },
                   [this](uint8_t byte) {
                     sent_ += static_cast<char>(byte);
                     if (blocks_) uart_.set_transmitter_blocked(true);
                   }};

  uint8_t in(uint16_t offset) { return static_cast<uint8_t>(uart_.read(offset, 1)); }
  void out(uint16_t offset, uint8_t value) { uart_.write(offset, 1, value); }
  void set_divisor(uint16_t divisor) {
    const uint8_t lcr = in(kLcr);
    out(kLcr, lcr | kDlab);
    out(0, static_cast<uint8_t>(divisor));
    out(1, static_cast<uint8_t>(divisor >> 8));
    out(kLcr, lcr);
  }
  // 8N1 at 115200 baud, FIFOs with `trigger` in FCR bits 6 and 7, interrupts `ier` behind an open OUT2 gate.
  void set_up(uint8_t ier, uint8_t trigger = 0) {
    out(kLcr, 0x03);
    set_divisor(1);
    out(kFcr, static_cast<uint8_t>(trigger << 6 | 0x07));
    out(kMcr, kOut2 | 0x03);
    out(kIer, ier);
    in(kMsr);
  }
  void type(const std::string& text) {
    for (const char c : text) ASSERT_TRUE(uart_.receive(static_cast<uint8_t>(c)));
  }
  void advance(Nanoseconds by) {
    time_ += by;
    clock_.run_expired();
  }
};

// UART Reset Configuration.
TEST_F(Uart16550aTest, ResetValues) {
  set_up(0x0f);
  out(kScr, 0x5a);
  uart_.reset();
  EXPECT_EQ(in(kIer), 0x00);
  EXPECT_EQ(in(kIir), 0x01);
  EXPECT_EQ(in(kLcr), 0x00);
  EXPECT_EQ(in(kMcr), 0x00);
  EXPECT_EQ(in(kLsr), 0x60);
  EXPECT_EQ(in(kMsr)&0x0f, 0x00);
  EXPECT_FALSE(line_);
}

// Interrupt Enable Register, bits 4 to 7, and Modem Control Register, bits 5 to 7: "always logic 0".
TEST_F(Uart16550aTest, UnusedBitsReadAsZero) {
  out(kIer, 0xff);
  EXPECT_EQ(in(kIer), 0x0f);
  out(kMcr, 0xff);
  EXPECT_EQ(in(kMcr), 0x1f);
}

TEST_F(Uart16550aTest, DivisorLatchHidesDataAndInterruptEnable) {
  out(kIer, 0x05);
  set_divisor(0x1234);
  EXPECT_EQ(in(kIer), 0x05);
  out(kLcr, kDlab);
  EXPECT_EQ(in(0), 0x34);
  EXPECT_EQ(in(1), 0x12);
  EXPECT_EQ(sent_, "");
}

TEST_F(Uart16550aTest, ScratchRegisterHoldsAnything) {
  out(kScr, 0xa5);
  EXPECT_EQ(in(kScr), 0xa5);
}

TEST_F(Uart16550aTest, BytesLeaveAtOnceAndTheTransmitterIsEmpty) {
  for (const char c : std::string("hello")) {
    out(kData, static_cast<uint8_t>(c));
    EXPECT_EQ(in(kLsr), 0x60);
  }
  EXPECT_EQ(sent_, "hello");
}

// What Linux' 8250 driver does to name the chip (autoconfig, then the 16550A tests).
TEST_F(Uart16550aTest, LinuxFindsA16550a) {
  out(kIer, 0x00);
  EXPECT_EQ(in(kIer)&0x0f, 0x00);
  out(kIer, 0x0f);
  EXPECT_EQ(in(kIer)&0x0f, 0x0f);
  out(kIer, 0x00);
  out(kMcr, kLoop | 0x0a);
  EXPECT_EQ(in(kMsr)&0xf0, 0x90);
  out(kMcr, 0x00);
  out(kFcr, 0x01);
  EXPECT_EQ(in(kIir) >> 6, 3);  // the FIFOs work: 16550A or better
  out(kLcr, kDlab);
  EXPECT_NE(in(2), 0x00);  // no EFR: no 16650
  out(kLcr, 0xe0);
  EXPECT_EQ(in(2) & kLoop, 0x00);  // no bank 2: no NS SuperIO
  out(kLcr, 0x00);
  out(kFcr, 0x21);
  EXPECT_EQ(in(kIir) >> 5, 6);  // no 64-byte FIFO: no 16750
  out(kIer, 0x40);
  EXPECT_EQ(in(kIer), 0x00);  // no UUE bit: no XScale
}

// Linux' test for UART_BUG_TXEN: enabling the THRE interrupt must raise one.
TEST_F(Uart16550aTest, EnablingTheTransmitterInterruptRaisesIt) {
  set_up(0);
  out(kIer, 0x02);
  EXPECT_EQ(in(kLsr)&0x40, 0x40);
  EXPECT_TRUE(line_);
  EXPECT_EQ(in(kIir), 0xc2);
}

// Linux' test for UART_BUG_THRE: the interrupt comes back when it is disabled and enabled again.
TEST_F(Uart16550aTest, TransmitterInterruptReturnsAfterReenabling) {
  set_up(0);
  out(kIer, 0x02);
  EXPECT_EQ(in(kIir), 0xc2);
  EXPECT_EQ(in(kIir), 0xc1);  // Interrupt Control Functions: reset by reading the IIR
  out(kIer, 0x00);
  out(kIer, 0x02);
  EXPECT_EQ(in(kIir), 0xc2);
  out(kIer, 0x02);
  EXPECT_EQ(in(kIir), 0xc1);  // without the edge of IER bit 1 it stays away
}

// Interrupt Control Functions: writing the THR resets the interrupt; the register is then empty again.
TEST_F(Uart16550aTest, EachWriteGivesAnEdgeToTheInterruptController) {
  set_up(0x02);
  in(kIir);
  edges_.clear();
  out(kData, 'a');
  out(kData, 'b');
  EXPECT_EQ(edges_, (std::vector<bool>{true, false, true}));
}

// A terminal that nobody reads: the guest is told to wait, and what it sends all the same is not lost.
TEST_F(Uart16550aTest, ATransmitterThatIsBlockedIsFullAndRaisesNoInterrupt) {
  set_up(0x02);
  in(kIir);
  uart_.set_transmitter_blocked(true);
  EXPECT_EQ(in(kLsr), 0x00);
  out(kData, 'a');
  EXPECT_EQ(sent_, "a");
  EXPECT_FALSE(line_);
  out(kIer, 0x00);
  out(kIer, 0x02);
  EXPECT_FALSE(line_);
  uart_.set_transmitter_blocked(false);
  EXPECT_EQ(in(kLsr), 0x60);
  EXPECT_TRUE(line_);
  EXPECT_EQ(in(kIir), 0xc2);
}

TEST_F(Uart16550aTest, ATransmitterThatBecomesBlockedByAByteRaisesNoInterruptForIt) {
  set_up(0x02);
  in(kIir);
  blocks_ = true;
  out(kData, 'a');
  EXPECT_EQ(in(kLsr), 0x00);
  EXPECT_FALSE(line_);
  out(kMcr, kLoop);  // the loop is inside the chip
  EXPECT_EQ(in(kLsr)&0x60, 0x60);
}

// In a PC, OUT2 connects INTR to the interrupt controller; Modem Control Register, bit 4: inactive in
// loopback.
TEST_F(Uart16550aTest, InterruptLineNeedsOut2) {
  set_up(0x02);
  EXPECT_TRUE(line_);
  out(kMcr, 0x03);
  EXPECT_FALSE(line_);
  out(kMcr, kOut2);
  EXPECT_TRUE(line_);
  out(kMcr, kOut2 | kLoop);
  EXPECT_FALSE(line_);
  EXPECT_EQ(in(kIir), 0xc2);
}

// 16450 mode: one character, "Received Data Available" until it is read.
TEST_F(Uart16550aTest, WithoutFifosOneCharacterFits) {
  out(kMcr, kOut2);
  out(kIer, 0x01);
  EXPECT_EQ(uart_.receive_room(), 1u);
  EXPECT_TRUE(uart_.receive('x'));
  EXPECT_FALSE(uart_.receive('y'));
  EXPECT_TRUE(line_);
  EXPECT_EQ(in(kIir), 0x04);
  EXPECT_EQ(in(kLsr), 0x61);
  EXPECT_EQ(in(kData), 'x');
  EXPECT_EQ(in(kLsr), 0x60);
  EXPECT_EQ(in(kIir), 0x01);
  EXPECT_FALSE(line_);
}

// FIFO Control Register, bits 6 and 7.
TEST_F(Uart16550aTest, TriggerLevels) {
  const unsigned levels[] = {1, 4, 8, 14};
  for (uint8_t i = 0; i < 4; i++) {
    set_up(0x01, i);
    for (unsigned n = 1; n <= 16; n++) {
      ASSERT_TRUE(uart_.receive('a'));
      EXPECT_EQ(line_, n >= levels[i]) << n;
      EXPECT_EQ(in(kIir), n >= levels[i] ? 0xc4 : 0xc1);
    }
    // "It will be cleared as soon as the FIFO drops below its programmed trigger level."
    for (unsigned n = 16; n-- > 0;) {
      EXPECT_EQ(in(kData), 'a');
      EXPECT_EQ(line_, n >= levels[i]) << n;
    }
  }
}

TEST_F(Uart16550aTest, SixteenCharactersFitAndKeepTheirOrder) {
  set_up(0);
  EXPECT_EQ(uart_.receive_room(), 16u);
  type("0123456789abcdef");
  EXPECT_EQ(uart_.receive_room(), 0u);
  EXPECT_FALSE(uart_.receive('!'));
  std::string read;
  while (in(kLsr)&0x01) read += static_cast<char>(in(kData));
  EXPECT_EQ(read, "0123456789abcdef");
}

// FIFO Interrupt Mode Operation: four character times after the last character, in 8N1 at 115200 baud
// 4 * 10 bits / 115200 Hz = 347.2 us.
TEST_F(Uart16550aTest, CharacterTimeout) {
  set_up(0x01, 3);
  type("ab");
  advance(347'000);
  EXPECT_FALSE(line_);
  type("c");  // restarts the count
  advance(347'000);
  EXPECT_FALSE(line_);
  advance(1'000);
  EXPECT_TRUE(line_);
  EXPECT_EQ(in(kIir), 0xcc);
  EXPECT_EQ(in(kData), 'a');  // "cleared and the timer reset when the CPU reads one character"
  EXPECT_FALSE(line_);
  EXPECT_EQ(in(kIir), 0xc1);
  advance(348'000);
  EXPECT_EQ(in(kIir), 0xcc);
  in(kData);
  in(kData);
  advance(1'000'000);
  EXPECT_EQ(in(kIir), 0xc1);  // nothing in the FIFO, no timeout
}

// Line Control Register: 300 baud (divisor 384), 8 data bits, parity, two stop bits: 4 * 12 / 300 Hz = 160
// ms.
TEST_F(Uart16550aTest, CharacterTimeoutFollowsTheLineFormat) {
  set_up(0x01, 3);
  out(kLcr, 0x0f);
  set_divisor(384);
  type("a");
  advance(159'000'000);
  EXPECT_FALSE(line_);
  advance(1'000'001);
  EXPECT_TRUE(line_);
}

TEST_F(Uart16550aTest, NoTimeoutWithoutFifos) {
  out(kMcr, kOut2);
  out(kIer, 0x01);
  ASSERT_TRUE(uart_.receive('a'));
  EXPECT_FALSE(clock_.next_deadline());
}

// FIFO Control Register, bit 1; bit 0: a change of mode clears the FIFOs, and "must be a 1 when other FCR
// bits are written to or they will not be programmed".
TEST_F(Uart16550aTest, FifoControlClearsTheReceiver) {
  set_up(0x01);
  type("abc");
  out(kFcr, 0x03);
  EXPECT_EQ(in(kLsr), 0x60);
  EXPECT_FALSE(line_);
  type("abc");
  out(kFcr, 0xc2);
  EXPECT_EQ(in(kLsr), 0x60);
  EXPECT_EQ(in(kIir)&0xc0, 0x00);
  out(kFcr, 0x01);
  type("a");
  EXPECT_EQ(in(kIir), 0xc4);  // the trigger level of the refused write was not taken
}

TEST_F(Uart16550aTest, RoomListenerIsCalledWhenTheGuestMakesRoom) {
  set_up(0x01, 3);
  std::string waiting = "the quick brown fox jumps over the lazy dog";
  const auto push = [&] {
    while (!waiting.empty() && uart_.receive(static_cast<uint8_t>(waiting.front()))) waiting.erase(0, 1);
  };
  uart_.set_room_listener(push);
  push();
  EXPECT_EQ(waiting, "fox jumps over the lazy dog");
  std::string read;
  while (in(kLsr)&0x01) read += static_cast<char>(in(kData));
  EXPECT_EQ(read, "the quick brown fox jumps over the lazy dog");
}

// Line Status Register, bits 3 and 4 and 7; "revealed to the CPU when its associated character is at the top
// of the FIFO"; bits 1 to 4 are reset by reading the register.
TEST_F(Uart16550aTest, BreakShowsWithItsCharacter) {
  set_up(0x04);
  type("a");
  ASSERT_TRUE(uart_.receive_break());
  EXPECT_EQ(in(kLsr), 0xe1);
  EXPECT_FALSE(line_);
  EXPECT_EQ(in(kData), 'a');
  EXPECT_TRUE(line_);
  EXPECT_EQ(in(kIir), 0xc6);
  EXPECT_EQ(in(kLsr), 0xf9);
  EXPECT_FALSE(line_);
  EXPECT_EQ(in(kLsr), 0x61);
  EXPECT_EQ(in(kData), 0x00);
  EXPECT_EQ(in(kLsr), 0x60);
}

// Modem Control Register, bit 4: "data that is transmitted is immediately received", SOUT marks, SIN is cut
// off.
TEST_F(Uart16550aTest, LoopbackReturnsWhatIsSent) {
  set_up(0x01);
  out(kMcr, kLoop);
  EXPECT_EQ(uart_.receive_room(), 0u);
  EXPECT_FALSE(uart_.receive('x'));
  out(kData, 'a');
  out(kData, 'b');
  EXPECT_EQ(in(kIir), 0xc4);
  EXPECT_EQ(in(kData), 'a');
  EXPECT_EQ(in(kData), 'b');
  EXPECT_EQ(sent_, "");
}

TEST_F(Uart16550aTest, RoomListenerIsCalledWhenLoopbackEnds) {
  unsigned calls = 0;
  uart_.set_room_listener([&] { calls++; });
  out(kMcr, kLoop);
  EXPECT_EQ(calls, 0u);
  out(kMcr, 0);
  EXPECT_EQ(calls, 1u);
}

// Line Status Register, bit 1: with FIFOs the shift register is overwritten, without them the buffer is.
TEST_F(Uart16550aTest, Overrun) {
  out(kMcr, kLoop);
  out(kData, 'a');
  out(kData, 'b');
  EXPECT_EQ(in(kLsr), 0x63);
  EXPECT_EQ(in(kLsr), 0x61);
  EXPECT_EQ(in(kData), 'b');
  out(kFcr, 0x01);
  for (unsigned i = 0; i < 17; i++) out(kData, static_cast<uint8_t>('a' + i));
  EXPECT_EQ(in(kLsr), 0x63);
  std::string read;
  while (in(kLsr)&0x01) read += static_cast<char>(in(kData));
  EXPECT_EQ(read, "abcdefghijklmnop");
}

// Modem Status Register: deltas are set by changes and reset by reading; TERI by the trailing edge only.
TEST_F(Uart16550aTest, ModemDeltas) {
  set_up(0x08);
  EXPECT_EQ(in(kMsr), 0xb0);
  uart_.set_modem_inputs(Uart16550a::kDsr | Uart16550a::kRi);
  EXPECT_TRUE(line_);
  EXPECT_EQ(in(kIir), 0xc0);
  EXPECT_EQ(in(kMsr), 0x69);  // CTS and DCD went away
  EXPECT_FALSE(line_);
  EXPECT_EQ(in(kMsr), 0x60);
  uart_.set_modem_inputs(0);
  EXPECT_EQ(in(kMsr), 0x06);
}

// Modem Control Register, bit 4: DTR, RTS, OUT1 and OUT2 in place of DSR, CTS, RI and DCD.
TEST_F(Uart16550aTest, LoopbackConnectsTheModemLines) {
  out(kMcr, kLoop);
  const uint8_t expected[] = {0x20, 0x10, 0x40, 0x80};
  for (unsigned i = 0; i < 4; i++) {
    out(kMcr, static_cast<uint8_t>(kLoop | 1u << i));
    EXPECT_EQ(in(kMsr)&0xf0, expected[i]);
  }
}

// Interrupt Control Functions: line status, received data or timeout, transmitter, modem status.
TEST_F(Uart16550aTest, InterruptPriorities) {
  set_up(0x0f, 1);
  uart_.set_modem_inputs(0);
  ASSERT_TRUE(uart_.receive_break());
  advance(1'000'000);
  EXPECT_EQ(in(kIir), 0xc6);
  in(kLsr);
  EXPECT_EQ(in(kIir), 0xcc);
  in(kData);
  type("abcd");
  EXPECT_EQ(in(kIir), 0xc4);
  in(kData);
  EXPECT_EQ(in(kIir), 0xc2);
  EXPECT_EQ(in(kIir), 0xc0);
  in(kMsr);
  EXPECT_EQ(in(kIir), 0xc1);
}

TEST_F(Uart16550aTest, SavedStateGoesOnWithItsTimeout) {
  set_up(0x01, 3);
  type("ab");
  ASSERT_TRUE(uart_.receive_break());
  const DeviceState state = uart_.save();
  bool line = false;
  Uart16550a other("other", clock_, [&](bool level) { line = level; }, {});
  other.load(state);
  EXPECT_EQ(other.save(), state);
  advance(348'000);
  EXPECT_TRUE(line);
  EXPECT_EQ(other.read(kData, 1), 'a');
  EXPECT_EQ(other.read(kData, 1), 'b');
  EXPECT_EQ(other.read(kLsr, 1), 0xf9u);
}

TEST_F(Uart16550aTest, SavedStateWithTooManyCharactersIsRefused) {
  DeviceState state = uart_.save();
  state["received"] = {{1, 0}, {2, 0}};
  EXPECT_THROW(uart_.load(state), std::invalid_argument);
}

}  // namespace
}  // namespace penumbra
