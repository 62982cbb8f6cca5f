// -nic, -netdev, -device of network cards, -object filter-dump: QEMU's words for networks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "devices/network_backend.h"
#include "devices/pc_board.h"
#include "network/packet_dump.h"
#include "network/slirp_network.h"
#include "network/tap_network.h"

namespace penumbra {

struct Properties;

struct NetworkOptions {
  std::string id;
  std::string option;  // what the user wrote
  std::variant<UserNetworkOptions, TapNetworkOptions> kind;
};

struct NetworkCardOptions {
  PcBoardOptions::NetworkCard::Model model = PcBoardOptions::NetworkCard::Model::E1000;
  size_t network = 0;  // of RunOptions::networks
  MacAddress address{};
  std::optional<unsigned> place;  // device number on the PCI bus
  std::optional<unsigned> boot_index{};
  std::optional<std::string> rom_file;  // none: the one of Debian's package, if it is there; empty: no ROM
};

struct PacketDumpOptions {
  std::string id, path;
  size_t network = 0;
  uint32_t limit = PacketDump::kDefaultLimit;
};

// Reads the options in the order in which they are given here; all of them throw UserError.
class NetworkReader {
 public:
  NetworkReader(std::vector<NetworkOptions>& networks, std::vector<NetworkCardOptions>& cards,
                std::vector<PacketDumpOptions>& dumps)
      : networks_(networks), cards_(cards), dumps_(dumps) {}

  void add_netdev(const std::string& text);
  void add_nic(const std::string& text);
  // The old spelling: "nic" and a network, which are connected.
  void add_net(const std::string& text);
  // QEMU's, where nothing is said of networks.
  void add_default_nic() { add_nic("user"); }
  // Whether `driver` is a card; then `properties` are those of the -device option `text`.
  bool add_device(const std::string& text, const std::string& driver, Properties& properties);
  void add_object(const std::string& text);
  // After all of them.
  void finish();

 private:
  size_t network_named(const std::string& option, const std::string& id) const;
  void add_network(const std::string& option, Properties& properties);
  void add_card(const std::string& option, NetworkCardOptions card, std::optional<std::string> address);

  std::vector<NetworkOptions>& networks_;
  std::vector<NetworkCardOptions>& cards_;
  std::vector<PacketDumpOptions>& dumps_;
  std::vector<bool> addressed_;  // cards whose address the user chose
  struct OldCard {
    std::string option;
    NetworkCardOptions card;
    std::optional<std::string> address;
  };
  std::optional<OldCard> old_card_;
  std::optional<size_t> old_network_;  // in networks_
};

}  // namespace penumbra
