#include "frontend/serial_input.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>

namespace penumbra {
namespace {

std::vector<uint8_t> bytes(std::string_view text) {
  return {text.begin(), text.end()};
}

// A UART whose receiver holds so many bytes.
struct Receiver {
  size_t room;
  std::string received;
  bool operator()(uint8_t byte) {
    if (room == 0) return false;
    --room;
    received += static_cast<char>(byte);
    return true;
  }
};

TEST(SerialInput, BytesReachTheReceiverOnTheVcpusThread) {
  EventQueue events;
  Receiver receiver{.room = 100, .received = {}};
  SerialInput input(events, std::ref(receiver));
  input.push(bytes("hello"));
  EXPECT_EQ(receiver.received, "");
  events.drain();
  EXPECT_EQ(receiver.received, "hello");
}

TEST(SerialInput, AFullReceiverIsWaitedFor) {
  EventQueue events;
  Receiver receiver{.room = 3, .received = {}};
  SerialInput input(events, std::ref(receiver));
  input.push(bytes("hello"));
  events.drain();
  EXPECT_EQ(receiver.received, "hel");
  receiver.room = 1;
  input.pump();
  EXPECT_EQ(receiver.received, "hell");
  input.push(bytes("!"));
  receiver.room = 100;
  events.drain();
  EXPECT_EQ(receiver.received, "hello!");
}

TEST(SerialInput, TheReaderIsToldWhenAFullQueueHasRoom) {
  EventQueue events;
  Receiver receiver{.room = 0, .received = {}};
  SerialInput input(events, std::ref(receiver));
  int told = 0;
  input.set_room_listener([&] { ++told; });
  input.push(std::vector<uint8_t>(SerialInput::kLimit, 'x'));
  EXPECT_EQ(input.room(), 0u);
  events.drain();
  EXPECT_EQ(told, 0);
  receiver.room = 10;
  input.pump();
  EXPECT_EQ(told, 1);
  EXPECT_EQ(input.room(), 10u);
  receiver.room = 10;
  input.pump();
  EXPECT_EQ(told, 1);
}

// A guest that polled for the rest of its input waited for ever.
TEST(SerialInput, TheReaderIsToldWhenTheQueueFillsUpDuringThePump) {
  EventQueue events;
  SerialInput* self = nullptr;
  int taken = 0, told = 0;
  SerialInput input(events, [&](uint8_t) {
    if (taken == 1) return false;
    ++taken;
    self->push(bytes("x"));  // as the reader's thread may, at this moment
    EXPECT_EQ(self->room(), 0u);
    return true;
  });
  self = &input;
  input.set_room_listener([&] { ++told; });
  input.push(std::vector<uint8_t>(SerialInput::kLimit - 1, 'x'));
  events.drain();
  EXPECT_EQ(input.room(), 1u);
  EXPECT_EQ(told, 1);
}

// The UART announces room while it takes a byte: without a guard each byte would be one call deeper.
TEST(SerialInput, ThePumpMayBeCalledFromTheReceiver) {
  EventQueue events;
  std::string received;
  SerialInput* self = nullptr;
  SerialInput input(events, [&](uint8_t byte) {
    self->pump();
    received += static_cast<char>(byte);
    return true;
  });
  self = &input;
  input.push(bytes("order"));
  events.drain();
  EXPECT_EQ(received, "order");
}

TEST(SerialInput, LosesNothingBetweenThreads) {
  constexpr size_t kBytes = 100'000;
  EventQueue events;
  Receiver receiver{.room = 0, .received = {}};
  SerialInput input(events, std::ref(receiver));
  std::jthread reader([&] {
    for (size_t sent = 0; sent < kBytes;) {
      if (input.room() == 0) {
        std::this_thread::yield();
        continue;
      }
      input.push(bytes(std::string(1, static_cast<char>('a' + sent++ % 26))));
    }
  });
  while (receiver.received.size() < kBytes) {
    receiver.room = 16;
    events.drain();
    input.pump();
  }
  for (size_t i = 0; i < kBytes; ++i) ASSERT_EQ(receiver.received[i], static_cast<char>('a' + i % 26)) << i;
}

}  // namespace
}  // namespace penumbra
