#include "frontend/gdb_packet.h"

#include <gtest/gtest.h>

#include <vector>

namespace penumbra {
namespace {

using Event = GdbPacketReader::Event;

struct Seen {
  Event event;
  std::string body;
  bool operator==(const Seen&) const = default;
};

std::vector<Seen> feed(GdbPacketReader& reader, std::string_view text) {
  std::vector<Seen> seen;
  const std::vector<uint8_t> bytes(text.begin(), text.end());
  reader.feed(bytes, [&seen](Event event, std::string_view body) {
    seen.push_back({event, event == Event::Packet ? std::string(body) : std::string()});
  });
  return seen;
}

TEST(GdbPacketTest, PacketsAndSingleBytes) {
  GdbPacketReader reader;
  EXPECT_EQ(feed(reader, "+$qC#b4-\x03$OK#9A"), (std::vector<Seen>{{Event::Ack, ""},
                                                                   {Event::Packet, "qC"},
                                                                   {Event::Resend, ""},
                                                                   {Event::Interrupt, ""},
                                                                   {Event::Packet, "OK"}}));
}

TEST(GdbPacketTest, APacketInPieces) {
  GdbPacketReader reader;
  for (const std::string_view piece : {"$", "q", "C", "#", "b"}) EXPECT_TRUE(feed(reader, piece).empty());
  EXPECT_EQ(feed(reader, "4"), (std::vector<Seen>{{Event::Packet, "qC"}}));
}

TEST(GdbPacketTest, WrongChecksums) {
  GdbPacketReader reader;
  EXPECT_EQ(feed(reader, "$qC#b5$qC#zz"), (std::vector<Seen>{{Event::Corrupt, ""}, {Event::Corrupt, ""}}));
}

TEST(GdbPacketTest, AnInterruptByteInAPacketIsData) {
  GdbPacketReader reader;
  EXPECT_EQ(feed(reader, "$X\x03#5b"), (std::vector<Seen>{{Event::Packet, "X\x03"}}));
}

TEST(GdbPacketTest, APacketThatStartsAnewReplacesTheOneBefore) {
  GdbPacketReader reader;
  EXPECT_EQ(feed(reader, "$lost$qC#b4"), (std::vector<Seen>{{Event::Packet, "qC"}}));
}

TEST(GdbPacketTest, LongerThanAllowed) {
  GdbPacketReader reader;
  const std::string text = "$" + std::string(2 * kGdbPacketBytes + 1, '@') + "#40";
  EXPECT_EQ(feed(reader, text), (std::vector<Seen>{{Event::Corrupt, ""}}));
  EXPECT_EQ(feed(reader, "$qC#b4"), (std::vector<Seen>{{Event::Packet, "qC"}}));
}

TEST(GdbPacketTest, FramesAreWhatTheReaderTakes) {
  std::string body;
  for (int c = 0; c < 256; ++c) body += static_cast<char>(c);
  GdbPacketReader reader;
  EXPECT_EQ(feed(reader, gdb_frame(body)), (std::vector<Seen>{{Event::Packet, body}}));
  EXPECT_EQ(gdb_frame("OK"), "$OK#9a");
  EXPECT_EQ(gdb_frame("#"), "$}\x03#80");
}

TEST(GdbPacketTest, Numbers) {
  std::string_view text = "1f,2";
  EXPECT_EQ(take_hex(text), 0x1fu);
  EXPECT_TRUE(take(text, ","));
  EXPECT_EQ(take_hex(text), 2u);
  EXPECT_FALSE(take_hex(text));
  text = "10000000000000000";
  EXPECT_FALSE(take_hex(text));
}

}  // namespace
}  // namespace penumbra
