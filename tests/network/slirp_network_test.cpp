// The user's network and the packet dump, with frames made by hand.
#include "network/slirp_network.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <thread>

#include "network/packet_dump.h"

namespace penumbra {
namespace {

using Frame = std::vector<std::byte>;

Frame bytes(std::initializer_list<unsigned> values) {
  Frame result;
  for (const unsigned value : values) result.push_back(static_cast<std::byte>(value));
  return result;
}

// RFC 826: who has 10.0.2.2, asks 10.0.2.15.
Frame arp_request() {
  return bytes({0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0,    0x12, 0x34, 0x56, 0x08, 0x06,
                0,    1,    8,    0,    6,    4,    0,    1,    0x52, 0x54, 0,    0x12, 0x34, 0x56,
                10,   0,    2,    15,   0,    0,    0,    0,    0,    0,    10,   0,    2,    2});
}

class SlirpTest : public testing::Test {
 protected:
  // Runs events as a vCPU does until `count` frames came, or time is up.
  void wait_for(size_t count) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (received_.size() < count && std::chrono::steady_clock::now() < end) {
      events_.drain();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  void listen(NetworkBackend& network) {
    network.set_receiver([this](std::span<const std::byte> frame) {
      if (!has_room_) return false;
      received_.emplace_back(frame.begin(), frame.end());
      return true;
    });
  }
  static UserNetworkOptions options() {
    UserNetworkOptions result;
    result.ipv6 = false;  // no router advertisements
    return result;
  }

  EventQueue events_;
  std::vector<Frame> received_;
  bool has_room_ = true;
};

TEST_F(SlirpTest, GatewayAnswersArp) {
  SlirpNetwork network(options(), events_);
  listen(network);
  network.send(arp_request());
  wait_for(1);
  ASSERT_EQ(received_.size(), 1u);
  const Frame& reply = received_[0];
  EXPECT_EQ(Frame(reply.begin(), reply.begin() + 6), bytes({0x52, 0x54, 0, 0x12, 0x34, 0x56}));
  EXPECT_EQ(Frame(reply.begin() + 20, reply.begin() + 22), bytes({0, 2})) << "a reply";
  EXPECT_EQ(Frame(reply.begin() + 28, reply.begin() + 32), bytes({10, 0, 2, 2}));
}

TEST_F(SlirpTest, AnotherNetworksGatewayHasItsAddress) {
  UserNetworkOptions other = options();
  other.network.s_addr = inet_addr("192.168.76.0");
  other.host.s_addr = inet_addr("192.168.76.9");
  other.first_lease.s_addr = inet_addr("192.168.76.15");
  other.name_server.s_addr = inet_addr("192.168.76.3");
  SlirpNetwork network(other, events_);
  listen(network);
  Frame request = arp_request();
  const Frame from = bytes({192, 168, 76, 15}), to = bytes({192, 168, 76, 9});
  std::ranges::copy(from, request.begin() + 28);
  std::ranges::copy(to, request.begin() + 38);
  network.send(request);
  wait_for(1);
  ASSERT_EQ(received_.size(), 1u);
  EXPECT_EQ(Frame(received_[0].begin() + 28, received_[0].begin() + 32), to);
}

TEST_F(SlirpTest, FramesWaitForTheCardsRoom) {
  SlirpNetwork network(options(), events_);
  listen(network);
  has_room_ = false;
  for (unsigned i = 0; i < 5; i++) network.send(arp_request());
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(200);
  while (std::chrono::steady_clock::now() < end) events_.drain();
  EXPECT_EQ(received_.size(), 0u);
  has_room_ = true;
  network.ready();
  wait_for(5);
  EXPECT_EQ(received_.size(), 5u);
}

TEST_F(SlirpTest, PortInUseIsNamed) {
  const int taken = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(bind(taken, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(taken, 1), 0);
  ASSERT_EQ(getsockname(taken, reinterpret_cast<sockaddr*>(&address), &size), 0);
  UserNetworkOptions wanted = options();
  wanted.forwards.push_back(
      {.host = address.sin_addr, .host_port = ntohs(address.sin_port), .guest_port = 22, .text = "that one"});
  try {
    SlirpNetwork network(wanted, events_);
    ADD_FAILURE() << "not refused";
  } catch (const std::runtime_error& error) {
    EXPECT_EQ(std::string(error.what()), std::string("hostfwd=that one: ") + std::strerror(EADDRINUSE));
  }
  close(taken);
}

// A network that answers each frame with the same frame.
class Echo : public NetworkBackend {
 public:
  void send(std::span<const std::byte> frame) override { receiver_(frame); }
  void set_receiver(Receiver receiver) override { receiver_ = std::move(receiver); }
  void ready() override {}

 private:
  Receiver receiver_;
};

uint32_t word(const std::string& text, size_t at) {
  uint32_t value;
  std::memcpy(&value, text.data() + at, sizeof value);
  return value;
}

TEST(PacketDumpTest, BothDirectionsAreInTheFile) {
  char folder[] = "/tmp/packet_dump_XXXXXX";
  ASSERT_NE(mkdtemp(folder), nullptr);
  const std::string path = std::string(folder) + "/dump";
  const Frame frame = arp_request();
  std::vector<Frame> received;
  bool has_room = false;
  {
    PacketDump dump(std::make_unique<Echo>(), path, 20);
    dump.set_receiver([&](std::span<const std::byte> got) {
      if (has_room) received.emplace_back(got.begin(), got.end());
      return has_room;
    });
    dump.send(frame);  // no room for its echo: that one is not in the file
    has_room = true;
    dump.send(frame);
  }
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  std::filesystem::remove_all(folder);
  ASSERT_EQ(text.size(), 24u + 3 * (16 + 20));
  EXPECT_EQ(word(text, 0), 0xa1b2'c3d4u);
  EXPECT_EQ(word(text, 16), 20u);
  EXPECT_EQ(word(text, 20), 1u) << "Ethernet";
  EXPECT_EQ(word(text, 24 + 8), 20u) << "bytes kept";
  EXPECT_EQ(word(text, 24 + 12), 42u) << "bytes there were";
  EXPECT_EQ(std::memcmp(text.data() + 40, frame.data(), 20), 0);
  EXPECT_EQ(received, std::vector<Frame>{frame});
}

TEST(PacketDumpTest, FileThatCannotBeMade) {
  EXPECT_THROW(PacketDump(std::make_unique<Echo>(), "/nowhere/dump", 100), std::runtime_error);
}

TEST(PacketDumpTest, FullDiskIsToldOnce) {
  PacketDump dump(std::make_unique<Echo>(), "/dev/full", 100'000);
  dump.set_receiver([](std::span<const std::byte>) { return true; });
  unsigned told = 0;
  dump.set_failure_listener([&told](const std::string& path, int error) {
    EXPECT_EQ(path, "/dev/full");
    EXPECT_EQ(error, ENOSPC);
    told++;
  });
  for (unsigned i = 0; i < 1000; i++) dump.send(arp_request());
  dump.flush();
  EXPECT_EQ(told, 1u);
}

}  // namespace
}  // namespace penumbra
