// A virtio 9p transport on PCI. How the transport works is virtio_blk_test's, what is in the messages
// file_server_9p_test's.
#include "devices/virtio_9p.h"

#include <gtest/gtest.h>

#include <deque>
#include <stdexcept>

#include "tests/devices/virtio_driver.h"

namespace penumbra {
namespace {

// Answers when it is told to, with the request and a star behind it.
class EchoServer : public FileServer {
 public:
  std::deque<std::pair<std::vector<std::byte>, Answer>> waiting;
  size_t room = 0;
  unsigned resets = 0;

  void submit(std::vector<std::byte> request, size_t for_answer, Answer done) override {
    room = for_answer;
    waiting.emplace_back(std::move(request), std::move(done));
  }
  void reset() override { resets++; }
  void answer() {
    auto [bytes, done] = std::move(waiting.front());
    waiting.pop_front();
    bytes.push_back(std::byte{'*'});
    done(bytes);
  }
};

class Virtio9pTest : public VirtioDriverTest {
 protected:
  static constexpr uint64_t kAnswer = 0x5'0000;

  void ask(std::string_view text, uint32_t room, uint16_t head = 0) {
    const uint64_t at = kData + head * 0x100;
    map_.write_bytes({at}, std::as_bytes(std::span(text)));
    descriptor(0, head, at, static_cast<uint32_t>(text.size()), kNext, static_cast<uint16_t>(head + 1));
    descriptor(0, head + 1u, kAnswer + head * 0x100, room, kWrite);
    offer(0, head);
    notify(0);
  }

  EchoServer server_;
  Virtio9p& folder_ =
      plug_in([this](PhysicalMap& map) { return std::make_unique<Virtio9p>(map, server_, "share"); });
};

TEST_F(Virtio9pTest, IdentityAndTag) {
  EXPECT_EQ(pci_->config().dword(0), 0x1009'1af4u) << "transitional";
  EXPECT_EQ(pci_->config().word(0x2e), 9u);
  EXPECT_EQ(folder_.features(), 1u) << "there is a tag";
  EXPECT_EQ(get(kDevice, 2), 5u);
  std::string tag;
  for (unsigned i = 0; i < 6; i++) tag += static_cast<char>(get(kDevice + 2 + i, 1));
  EXPECT_EQ(tag, std::string("share\0", 6));
}

TEST_F(Virtio9pTest, AnswersComeLaterInTheirBuffers) {
  start(kVersion1 | 1, 1);
  ask("first", 100, 0);
  ask("second", 3, 2);
  EXPECT_EQ(used_count(0), 0u);
  EXPECT_EQ(server_.room, 3u);
  server_.answer();
  EXPECT_EQ(used_count(0), 1u);
  EXPECT_EQ(used_bytes(0, 0), 6u);
  EXPECT_EQ(text(kAnswer, 7), std::string("first*\0", 7));
  EXPECT_TRUE(line_.level());
  server_.answer();
  EXPECT_EQ(used_bytes(0, 1), 3u) << "no more than there is room for";
}

TEST_F(Virtio9pTest, ResetForgetsWhatIsUnderWay) {
  start(kVersion1 | 1, 1);
  ask("first", 100);
  set(kModern + 20, 1, 0);
  EXPECT_EQ(server_.resets, 1u);
  start(kVersion1 | 1, 1);
  server_.answer();
  EXPECT_EQ(text(kAnswer, 1), std::string(1, '\0')) << "memory of the next driver";
  set(kModern + 20, 1, 0);
  EXPECT_EQ(server_.resets, 1u) << "nobody used it";
}

// A message without bytes, and one that is longer than any.
TEST_F(Virtio9pTest, OddBuffersAreGivenBack) {
  start(kVersion1 | 1, 1);
  descriptor(0, 0, kAnswer, 16, kWrite);
  offer(0, 0);
  notify(0);
  EXPECT_EQ(used_count(0), 1u);
  descriptor(0, 0, 0, FileServer::kMostMessage + 1, 0);
  offer(0, 0);
  notify(0);
  EXPECT_EQ(used_count(0), 2u);
  EXPECT_TRUE(server_.waiting.empty());
}

// A driver that offers one buffer again and again is served in rounds.
TEST_F(Virtio9pTest, MessagesUnderWayAreBounded) {
  start(kVersion1 | 1, 1);
  descriptor(0, 0, kData, 8, 0);
  for (unsigned i = 0; i < 300; i++) {
    offer(0, 0);
    notify(0);
  }
  EXPECT_LE(server_.waiting.size(), 128u);
  while (!server_.waiting.empty()) server_.answer();
}

TEST_F(Virtio9pTest, FolderInUseCannotBeSaved) {
  EXPECT_NO_THROW(folder_.save());
  start(kVersion1 | 1, 1);
  ask("first", 100);
  server_.answer();
  EXPECT_THROW(folder_.save(), std::logic_error);
}

}  // namespace
}  // namespace penumbra
