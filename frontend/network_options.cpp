#include "frontend/network_options.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <utility>

#include "frontend/option_properties.h"

namespace penumbra {

namespace {

using Model = PcBoardOptions::NetworkCard::Model;

constexpr std::string_view kCards = "e1000, virtio-net-pci";

std::optional<Model> model_named(std::string_view name) {
  if (name == "e1000" || name == "e1000-82540em") return Model::E1000;
  if (name == "virtio-net-pci" || name == "virtio") return Model::VirtioNet;
  return std::nullopt;
}

template <class Range, class Value, class Member>
bool has(const Range& range, const Value& value, Member member) {
  return std::ranges::find(range, value, member) != range.end();
}

in_addr parse_address(const std::string& option, std::string_view key, const std::string& text) {
  in_addr address{};
  if (inet_pton(AF_INET, text.c_str(), &address) != 1)
    refuse("{}: {}={}: not an IPv4 address", option, key, text);
  return address;
}

uint16_t parse_port(const std::string& option, const std::string& whole, const std::string& text) {
  const auto port = parse_number(text);
  if (!port || *port == 0 || *port > 0xffff)
    refuse("{}: hostfwd={}: '{}' is no port number", option, whole, text);
  return static_cast<uint16_t>(*port);
}

// [tcp|udp]:[HOST ADDRESS]:PORT-[GUEST ADDRESS]:PORT
UserNetworkOptions::Forward parse_forward(const std::string& option, const std::string& text) {
  UserNetworkOptions::Forward forward{.text = text};
  const size_t dash = text.find('-'), colon = text.find(':');
  const size_t host_colon = colon == std::string::npos ? colon : text.find(':', colon + 1);
  const size_t guest_colon = dash == std::string::npos ? dash : text.find(':', dash);
  if (host_colon == std::string::npos || dash == std::string::npos || host_colon > dash ||
      guest_colon == std::string::npos)
    refuse("{}: hostfwd={}: not of the form tcp::PORT-:PORT", option, text);
  const std::string protocol = text.substr(0, colon);
  if (protocol != "tcp" && protocol != "udp" && !protocol.empty())
    refuse("{}: hostfwd={}: '{}' is neither tcp nor udp", option, text, protocol);
  forward.udp = protocol == "udp";
  const std::string host = text.substr(colon + 1, host_colon - colon - 1),
                    guest = text.substr(dash + 1, guest_colon - dash - 1);
  if (!host.empty()) forward.host = parse_address(option, "hostfwd", host);
  if (!guest.empty()) forward.guest = parse_address(option, "hostfwd", guest);
  forward.host_port = parse_port(option, text, text.substr(host_colon + 1, dash - host_colon - 1));
  forward.guest_port = parse_port(option, text, text.substr(guest_colon + 1));
  return forward;
}

// "10.0.2.0/24", "10.0.2.0/255.255.255.0", or an address with the mask of its class, as QEMU takes it.
void parse_network(const std::string& option, const std::string& text, UserNetworkOptions& user) {
  const size_t slash = text.find('/');
  const uint32_t address = ntohl(parse_address(option, "net", text.substr(0, slash)).s_addr);
  uint32_t mask = 0;
  if (slash == std::string::npos) {
    mask = address >> 31 == 0 ? 0xff00'0000 : address >> 30 == 2 ? 0xffff'0000 : 0xffff'ff00;
  } else if (const auto bits = parse_number(text.substr(slash + 1)); bits) {
    if (*bits < 4 || *bits > 28) refuse("{}: net={}: a network has a mask of 4 to 28 bits", option, text);
    mask = ~uint32_t{0} << (32 - *bits);
  } else {
    mask = ntohl(parse_address(option, "net", text.substr(slash + 1)).s_addr);
    if (std::countl_one(mask) + std::countr_zero(mask) != 32 || std::countl_one(mask) < 4 ||
        std::countl_one(mask) > 28)
      refuse("{}: net={}: no mask of a network", option, text);
  }
  const uint32_t network = address & mask;
  user.network.s_addr = htonl(network);
  user.mask.s_addr = htonl(mask);
  user.host.s_addr = htonl(network | 2);
  user.name_server.s_addr = htonl(network | 3);
  user.first_lease.s_addr = htonl(network | 15);
}

UserNetworkOptions read_user(const std::string& option, Properties& properties) {
  UserNetworkOptions user;
  if (const auto network = properties.take("net")) parse_network(option, *network, user);
  const auto address = [&](const char* key, in_addr& to) {
    const auto text = properties.take(key);
    if (!text) return;
    to = parse_address(option, key, *text);
    if ((to.s_addr & user.mask.s_addr) != user.network.s_addr)
      refuse("{}: {}={}: not in the network", option, key, *text);
  };
  address("host", user.host);
  address("dhcpstart", user.first_lease);
  address("dns", user.name_server);
  if (user.host.s_addr == user.name_server.s_addr) refuse("{}: host and dns have the same address", option);
  const auto flag = [&](const char* key, bool& to) {
    if (const auto text = properties.take(key)) to = on_off(option, key, *text);
  };
  flag("restrict", user.restricted);
  flag("ipv4", user.ipv4);
  flag("ipv6", user.ipv6);
  if (!user.ipv4 && !user.ipv6) refuse("{}: neither IPv4 nor IPv6 is left", option);
  const auto text = [&](const char* key, std::string& to) { to = properties.take(key).value_or(""); };
  text("hostname", user.host_name);
  text("domainname", user.domain);
  text("tftp", user.tftp_folder);
  text("bootfile", user.boot_file);
  text("tftp-server-name", user.tftp_server_name);
  user.search_domains = properties.take_all("dnssearch");
  for (const std::string& forward : properties.take_all("hostfwd"))
    user.forwards.push_back(parse_forward(option, forward));
  return user;
}

// Scripts that set the interface up are the user's to run.
TapNetworkOptions read_tap(const std::string& option, Properties& properties) {
  TapNetworkOptions tap;
  for (const char* key : {"script", "downscript"}) {
    if (const auto script = properties.take(key); script && *script != "no" && !script->empty())
      refuse("{}: {}={}: only {}=no is there", option, key, *script, key);
  }
  tap.interface = properties.take("ifname").value_or("");
  if (const auto text = properties.take("fd")) {
    const auto number = parse_number(*text);
    constexpr uint64_t kStandardError = 2;
    if (!number || *number <= kStandardError || *number > INT32_MAX)
      refuse("{}: fd={}: no descriptor's number", option, *text);
    if (!tap.interface.empty()) refuse("{}: fd= and ifname= exclude each other", option);
    tap.fd = static_cast<int>(*number);
  }
  return tap;
}

// "52:54:00:12:34:56", of one card: not a group's.
MacAddress parse_mac(const std::string& option, const std::string& text) {
  MacAddress address{};
  bool good = text.size() == 17;
  for (size_t i = 0; good && i < address.size(); ++i) {
    const char* digits = text.data() + 3 * i;
    const auto [end, error] = std::from_chars(digits, digits + 2, address[i], 16);
    good = error == std::errc() && end == digits + 2 && (i == 5 || *end == ':' || *end == '-');
  }
  if (!good) refuse("{}: mac={}: not of the form 52:54:00:12:34:56", option, text);
  if (address[0] & 1) refuse("{}: mac={}: a group's address", option, text);
  return address;
}

// "3", "3.0": on bus 0, function 0.
unsigned parse_place(const std::string& option, const std::string& text) {
  const size_t dot = text.find('.');
  unsigned device = 0;
  const char* end_of_text = text.data() + std::min(dot, text.size());
  std::string_view digits(text.data(), static_cast<size_t>(end_of_text - text.data()));
  if (digits.starts_with("0x")) digits.remove_prefix(2);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), device, 16);
  constexpr unsigned kLast = 31;
  if (error != std::errc() || end != end_of_text || device == 0 || device > kLast ||
      (dot != std::string::npos && text.substr(dot) != ".0"))
    refuse("{}: addr={}: not a device number from 1 to 1f", option, text);
  return device;
}

}  // namespace

void NetworkReader::add_network(const std::string& option, Properties& properties) {
  NetworkOptions network{.id = properties.take("id").value_or(""), .option = option, .kind = {}};
  if (properties.head == "user") {
    network.kind = read_user(option, properties);
  } else if (properties.head == "tap") {
    network.kind = read_tap(option, properties);
  } else {
    refuse("{}: only networks of the kinds user and tap are there", option);
  }
  networks_.push_back(std::move(network));
  const std::string& id = networks_.back().id;
  if (!id.empty() && std::ranges::count(networks_, id, &NetworkOptions::id) > 1)
    refuse("{}: the id '{}' is taken", option, id);
}

void NetworkReader::add_netdev(const std::string& text) {
  const std::string option = "-netdev " + text;
  Properties properties("-netdev", text);
  add_network(option, properties);
  properties.done();
  if (networks_.back().id.empty()) refuse("{}: id= is missing", option);
}

void NetworkReader::add_nic(const std::string& text) {
  const std::string option = "-nic " + text;
  Properties properties("-nic", text);
  if (properties.head == "none") return properties.done();
  const std::string name = properties.take("model").value_or("e1000");
  const auto model = model_named(name);
  if (!model) refuse("{}: unknown model '{}' ({})", option, name, kCards);
  const auto address = properties.take("mac");
  add_network(option, properties);
  properties.done();
  add_card(option, {.model = *model, .network = networks_.size() - 1, .place = {}, .rom_file = {}}, address);
}

// QEMU's hub, to which all of these are connected, here has one card and one network.
void NetworkReader::add_net(const std::string& text) {
  const std::string option = "-net " + text;
  Properties properties("-net", text);
  if (properties.head == "none") return properties.done();
  if (properties.head != "nic") {
    if (old_network_) refuse("{}: there is one network already (-netdev and -nic take more)", option);
    add_network(option, properties);
    old_network_ = networks_.size() - 1;
    return properties.done();
  }
  const std::string name = properties.take("model").value_or("e1000");
  const auto model = model_named(name);
  if (!model) refuse("{}: unknown model '{}' ({})", option, name, kCards);
  NetworkCardOptions card{.model = *model, .place = {}, .rom_file = {}};
  if (const auto place = properties.take("addr")) card.place = parse_place(option, *place);
  auto address = properties.take("macaddr");
  const auto network = properties.take("netdev");
  properties.done();
  if (network) {
    card.network = network_named(option, *network);
    return add_card(option, card, std::move(address));
  }
  if (old_card_) refuse("{}: there is one card already (-device and -nic take more)", option);
  old_card_ = OldCard{.option = option, .card = card, .address = std::move(address)};
}

bool NetworkReader::add_device(const std::string& text, const std::string& driver, Properties& properties) {
  const auto model = model_named(driver);
  if (!model) return false;
  const std::string option = "-device " + text;
  NetworkCardOptions card{.model = *model,
                          .network = network_named(option, properties.need("netdev")),
                          .place = {},
                          .rom_file = {}};
  if (const auto bus = properties.take("bus"); bus && *bus != "pci.0")
    refuse("{}: bus={}: only pci.0 is there", option, *bus);
  if (const auto place = properties.take("addr")) card.place = parse_place(option, *place);
  card.rom_file = properties.take("romfile");
  card.boot_index = properties.take_boot_index();
  properties.take("id");  // nothing refers to cards
  add_card(option, card, properties.take("mac"));
  return true;
}

void NetworkReader::add_object(const std::string& text) {
  const std::string option = "-object " + text;
  Properties properties("-object", text);
  if (properties.head != "filter-dump")
    refuse("{}: unknown kind '{}' (filter-dump)", option, properties.head);
  PacketDumpOptions dump{.id = properties.need("id"), .path = properties.need("file")};
  dump.network = network_named(option, properties.need("netdev"));
  if (const auto limit = properties.take("maxlen")) {
    const auto number = parse_number(*limit);
    if (!number || *number == 0 || *number > UINT32_MAX)
      refuse("{}: maxlen={}: not a number of bytes", option, *limit);
    dump.limit = static_cast<uint32_t>(*number);
  }
  properties.done();
  if (has(dumps_, dump.id, &PacketDumpOptions::id)) refuse("{}: the id '{}' is taken", option, dump.id);
  dumps_.push_back(std::move(dump));
}

size_t NetworkReader::network_named(const std::string& option, const std::string& id) const {
  const auto found = id.empty() ? networks_.end() : std::ranges::find(networks_, id, &NetworkOptions::id);
  if (found == networks_.end()) refuse("{}: there is no -netdev or -nic with id '{}'", option, id);
  return static_cast<size_t>(found - networks_.begin());
}

void NetworkReader::add_card(const std::string& option, NetworkCardOptions card,
                             std::optional<std::string> address) {
  if (has(cards_, card.network, &NetworkCardOptions::network))
    refuse("{}: the network '{}' has a card already", option, networks_[card.network].id);
  if (address) card.address = parse_mac(option, *address);
  addressed_.push_back(address.has_value());
  cards_.push_back(card);
}

// QEMU's addresses: 52:54:00:12:34:56 and those behind it, but the ones that were chosen.
void NetworkReader::finish() {
  if (old_card_ && !old_network_)
    refuse("{}: there is no network for it, such as -net user", old_card_->option);
  if (old_network_ && !old_card_)
    refuse("{}: there is no card for it, such as -net nic", networks_[*old_network_].option);
  if (old_card_) {
    old_card_->card.network = *old_network_;
    add_card(old_card_->option, old_card_->card, old_card_->address);
  }
  MacAddress next{0x52, 0x54, 0x00, 0x12, 0x34, 0x56};
  for (size_t i = 0; i < cards_.size(); ++i) {
    if (addressed_[i]) continue;
    while (has(cards_, next, &NetworkCardOptions::address)) next[5]++;
    cards_[i].address = next;
  }
}

}  // namespace penumbra
