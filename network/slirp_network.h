// A network of the user's own: libslirp answers for it (NAT, DHCP, DNS, TFTP) on a thread of its own, with no
// rights beyond those of the process.
#pragma once

#include <netinet/in.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "core/event_queue.h"
#include "devices/network_backend.h"
#include "network/incoming_frames.h"

struct Slirp;

namespace penumbra {

struct UserNetworkOptions {
  struct Forward {
    bool udp = false;
    in_addr host{}, guest{};  // zero: any address; the first one that DHCP gives
    uint16_t host_port = 0, guest_port = 0;
    std::string text;  // as the user wrote it
  };
  std::vector<Forward> forwards;
  bool restricted = false;  // nothing but what is forwarded leaves or enters
  bool ipv4 = true, ipv6 = true;
  in_addr network{htonl(0x0a'00'02'00)}, mask{htonl(0xff'ff'ff'00)};
  in_addr host{htonl(0x0a'00'02'02)}, first_lease{htonl(0x0a'00'02'0f)}, name_server{htonl(0x0a'00'02'03)};
  std::string host_name, domain, tftp_folder, boot_file, tftp_server_name;
  std::vector<std::string> search_domains;
};

class SlirpNetwork final : public NetworkBackend {
 public:
  // Throws std::runtime_error when the host refuses, say a port that is to be forwarded.
  SlirpNetwork(const UserNetworkOptions& options, EventQueue& events);
  ~SlirpNetwork() override;

  void send(std::span<const std::byte> frame) override;
  void set_receiver(Receiver receiver) override { incoming_.set_receiver(std::move(receiver)); }
  void ready() override { incoming_.ready(); }

 private:
  using Frame = std::vector<std::byte>;
  struct Alarm;
  struct Callbacks;
  void start(const UserNetworkOptions& options);
  void run();
  int milliseconds_to_alarm() const;
  void ring_alarms();
  void wake();

  IncomingFrames incoming_;
  Slirp* slirp_ = nullptr;
  int wake_fd_ = -1;
  std::atomic<bool> stops_{false};

  std::mutex mutex_;
  std::deque<Frame> to_network_;  // guarded by mutex_
  bool sleeping_ = false;         // guarded by mutex_: the thread waits for its sockets

  // The network's thread
  std::vector<Alarm*> alarms_;

  std::thread thread_;
};

}  // namespace penumbra
