#include "frontend/gdb_session.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "frontend/gdb_packet.h"

namespace penumbra {

namespace {

constexpr int kSigInt = 2, kSigTrap = 5;
// Error numbers mean nothing to gdb but in its messages. "E.TEXT" says more.
constexpr unsigned kBadRequest = 1, kFault = 14, kRefused = 22, kFull = 28;
constexpr size_t kOutputPiece = 4096;

std::span<const uint8_t> bytes_of(std::string_view text) {
  // SAFETY: char and uint8_t alias anything.
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// "ADDRESS,LENGTH"
struct Range {
  uint64_t address, length;
};
std::optional<Range> take_range(std::string_view& text) {
  const auto address = take_hex(text);
  if (!address || !take(text, ",")) return std::nullopt;
  const auto length = take_hex(text);
  if (!length) return std::nullopt;
  return Range{*address, *length};
}

// Whether a thread number of gdb's is the vCPU's: 1, or 0 and -1, any and all. "p1.1" is not asked for
// ("multiprocess").
bool names_the_vcpu(std::string_view text) {
  if (text == "-1") return true;
  const auto number = take_hex(text);
  return number && text.empty() && *number <= 1;
}

}  // namespace

GdbSession::GdbSession(Machine& machine, Monitor& monitor, Options options)
    : machine_(machine),
      vcpu_(machine.vcpu()),
      monitor_(monitor),
      options_(std::move(options)),
      memory_(vcpu_) {
  machine_.set_debugger(this);
}

GdbSession::~GdbSession() {
  machine_.set_debugger(nullptr);
}

void GdbSession::connected() {
  const bool narrow = vcpu_.state().cr0 & cr0::kPg && !vcpu_.long_mode();
  registers_.emplace(options_.arch.value_or(narrow ? GdbArch::I386 : GdbArch::X86_64), vcpu_.model());
  space_ = GuestMemory::Space::Linear;
  knows_breakpoint_kinds_ = false;
  owes_stop_ = false;
  signal_ = kSigTrap;
  pause();
}

void GdbSession::closed() {
  if (registers_) detach();
}

void GdbSession::detach() {
  registers_.reset();
  software_.clear();
  hardware_.clear();
  watchpoints_.clear();
  owes_stop_ = false;
  arm();
  machine_.resume();
}

void GdbSession::exited(int status) {
  if (registers_) reply(fmt::format("W{:02x}", status & 0xff));
}

void GdbSession::reply(char kind, const std::string& rest) {
  std::string body(1, kind);
  body += rest;
  reply(std::move(body));
}

void GdbSession::error(unsigned number) {
  reply(fmt::format("E{:02x}", number));
}

// --- running and stopping

void GdbSession::pause() {
  machine_.pause();
  stop_ = {};
  if (options_.paused) options_.paused();
}

// The engine learns of changes only here: gdb takes its breakpoints away at every stop and puts them back.
void GdbSession::arm() {
  std::vector<LinearAddr> addresses;
  for (const uint64_t address : software_) addresses.push_back({address});
  for (const uint64_t address : hardware_) {
    if (!software_.contains(address)) addresses.push_back({address});
  }
  vcpu_.debug().set_breakpoints(std::move(addresses));
  vcpu_.debug().set_watchpoints(watchpoints_);
}

void GdbSession::resume() {
  owes_stop_ = true;
  arm();
  machine_.resume();
}

void GdbSession::step(uint64_t begin, uint64_t bytes) {
  owes_stop_ = true;
  arm();
  machine_.step({begin}, bytes);
}

void GdbSession::stopped(const DebugStop& stop) {
  if (!registers_) {
    machine_.resume();
    return;
  }
  pause();
  signal_ = kSigTrap;
  stop_ = stop;
  if (owes_stop_) reply(stop_reply());
  owes_stop_ = false;
}

void GdbSession::interrupt() {
  if (!registers_ || machine_.paused()) return;
  pause();
  signal_ = kSigInt;
  if (owes_stop_) reply(stop_reply());
  owes_stop_ = false;
}

std::string GdbSession::stop_reply() const {
  std::string text = fmt::format("T{:02x}thread:01;", signal_);
  switch (stop_.kind) {
    case DebugStop::Kind::None:
      break;
    case DebugStop::Kind::Breakpoint:
      if (!knows_breakpoint_kinds_) break;
      text += software_.contains(stop_.address.value) ? "swbreak:;" : "hwbreak:;";
      break;
    case DebugStop::Kind::Watchpoint:
      text += !stop_.watchpoint.reads ? "watch" : stop_.watchpoint.writes ? "awatch" : "rwatch";
      text += fmt::format(":{:x};", stop_.address.value);
      break;
  }
  return text;
}

void GdbSession::resume_at(std::string_view text, bool one_step) {
  if (!text.empty()) {
    const auto address = take_hex(text);
    if (!address) return error(kBadRequest);
    vcpu_.state().rip =
        (vcpu_.code64() ? *address : *address - vcpu_.state().segments[kCs].base) & vcpu_.code_mask();
  }
  if (one_step) {
    step(0, 0);
  } else {
    resume();
  }
}

// "ACTION[:THREAD];...": the first action that is for our only thread.
void GdbSession::act(std::string_view text) {
  while (take(text, ";")) {
    const std::string_view whole = text.substr(0, text.find(';'));
    text.remove_prefix(whole.size());
    std::string_view action = whole.substr(0, whole.find(':'));
    const std::string_view thread = whole.substr(action.size());
    if (!thread.empty() && !names_the_vcpu(thread.substr(1))) continue;
    if (action.empty()) break;
    switch (action[0]) {
      case 'c':
      case 'C':
        return resume();
      case 's':
      case 'S':
        return step(0, 0);
      case 'r': {
        action.remove_prefix(1);
        const auto range = take_range(action);
        if (!range || range->length < range->address) return error(kBadRequest);
        return step(range->address, range->length - range->address);
      }
      case 't':
        return reply(stop_reply());
      default:
        return error(kBadRequest);
    }
  }
  error(kBadRequest);
}

void GdbSession::change_breakpoint(std::string_view text, bool insert) {
  if (text.empty()) return error(kBadRequest);
  const char kind = text[0];
  text.remove_prefix(1);
  if (!take(text, ",")) return error(kBadRequest);
  const auto range = take_range(text);
  if (!range) return error(kBadRequest);
  switch (kind) {
    case '0':
    case '1': {
      std::set<uint64_t>& set = kind == '0' ? software_ : hardware_;
      if (insert) {
        set.insert(range->address);
      } else {
        set.erase(range->address);
      }
      return ok();
    }
    case '2':
    case '3':
    case '4': {
      const Watchpoint watchpoint{
          .address = {range->address}, .bytes = range->length, .reads = kind != '2', .writes = kind != '3'};
      if (range->length == 0 || range->address + (range->length - 1) < range->address) return error(kRefused);
      if (!insert) {
        const auto found = std::ranges::find(watchpoints_, watchpoint);
        if (found != watchpoints_.end()) watchpoints_.erase(found);
        return ok();
      }
      if (watchpoints_.size() == DebugUnit::kMaxWatchpoints) return error(kFull);
      watchpoints_.push_back(watchpoint);
      return ok();
    }
    default:
      return reply("");
  }
}

// --- registers and memory

void GdbSession::read_registers() {
  std::string values;
  for (unsigned i = 0; i < registers_->count(); ++i) values += registers_->read(vcpu_, i);
  reply(to_hex(values));
}

void GdbSession::write_registers(std::string_view hex) {
  const auto values = from_hex(hex);
  if (!values) return error(kBadRequest);
  std::string_view rest = *values;
  std::expected<void, std::string> done;
  for (unsigned i = 0; i < registers_->count() && rest.size() >= registers_->bytes(i); ++i) {
    if (auto one = registers_->write(vcpu_, i, rest.substr(0, registers_->bytes(i))); !one)
      done = std::move(one);
    rest.remove_prefix(registers_->bytes(i));
  }
  if (!done) return error(done.error());
  ok();
}

void GdbSession::read_register(std::string_view text) {
  const auto number = take_hex(text);
  if (!number || *number >= registers_->count()) return error(kBadRequest);
  reply(to_hex(registers_->read(vcpu_, static_cast<unsigned>(*number))));
}

void GdbSession::write_register(std::string_view text) {
  const auto number = take_hex(text);
  if (!number || *number >= registers_->count() || !take(text, "=")) return error(kBadRequest);
  const auto value = from_hex(text);
  if (!value) return error(kBadRequest);
  if (const auto done = registers_->write(vcpu_, static_cast<unsigned>(*number), *value); !done)
    return error(done.error());
  ok();
}

void GdbSession::read_memory(std::string_view text, bool binary) {
  const auto range = take_range(text);
  if (!range) return error(kBadRequest);
  std::vector<uint8_t> bytes(std::min<uint64_t>(range->length, kGdbPacketBytes / 2));
  bytes.resize(memory_.read(space_, range->address, bytes));
  if (bytes.empty() && range->length != 0) return error(kFault);
  if (binary) {
    reply('b', {bytes.begin(), bytes.end()});
  } else {
    reply(to_hex(bytes));
  }
}

void GdbSession::write_memory(std::string_view text, bool binary) {
  const auto range = take_range(text);
  if (!range || !take(text, ":")) return error(kBadRequest);
  const auto data = binary ? std::string(text) : from_hex(text);
  if (!data || data->size() != range->length) return error(kBadRequest);
  if (memory_.write(space_, range->address, bytes_of(*data)) != data->size()) return error(kFault);
  ok();
}

// "qSearch:memory:ADDRESS;LENGTH;PATTERN", the pattern in binary
void GdbSession::search(std::string_view text) {
  const auto address = take_hex(text);
  if (!address || !take(text, ";")) return error(kBadRequest);
  const auto length = take_hex(text);
  if (!length || !take(text, ";") || text.empty()) return error(kBadRequest);
  std::string window;
  for (uint64_t at = 0; at < *length;) {
    std::array<uint8_t, kPageSize> piece;
    const uint64_t bytes = std::min<uint64_t>(piece.size(), *length - at);
    const size_t got = memory_.read(space_, *address + at, std::span(piece).first(bytes));
    window.append(piece.begin(), piece.begin() + static_cast<ptrdiff_t>(got));
    at += got;
    if (const size_t found = window.find(text); found != std::string::npos) {
      return reply(fmt::format("1,{:x}", *address + at - window.size() + found));
    }
    if (got < bytes) return got == 0 && at == 0 ? error(kFault) : reply("0");
    // A match may begin at the end of this piece.
    if (window.size() >= text.size()) window.erase(0, window.size() - text.size() + 1);
  }
  reply("0");
}

// "qCRC:ADDRESS,LENGTH": the CRC that gdb's compare-sections computes.
void GdbSession::checksum(std::string_view text) {
  const auto range = take_range(text);
  if (!range) return error(kBadRequest);
  uint32_t crc = ~0u;
  for (uint64_t at = 0; at < range->length;) {
    std::array<uint8_t, kPageSize> piece;
    const size_t bytes = std::min<uint64_t>(piece.size(), range->length - at);
    if (memory_.read(space_, range->address + at, std::span(piece).first(bytes)) != bytes)
      return error(kFault);
    for (size_t i = 0; i < bytes; ++i) {
      crc ^= uint32_t{piece[i]} << 24;
      constexpr uint32_t kPolynomial = 0x04c1'1db7;
      for (unsigned bit = 0; bit < 8; ++bit) crc = crc & 0x8000'0000 ? crc << 1 ^ kPolynomial : crc << 1;
    }
    at += bytes;
  }
  reply(fmt::format("C{:x}", crc));
}

// --- the rest

void GdbSession::command(std::string_view hex) {
  const auto line = from_hex(hex);
  if (!line) return error(kBadRequest);
  const std::string output = monitor_.execute(*line);
  for (size_t at = 0; at < output.size(); at += kOutputPiece)
    reply('O', to_hex(std::string_view(output).substr(at, kOutputPiece)));
  ok();
}

std::string GdbSession::thread_list() const {
  return fmt::format(
      "<?xml version=\"1.0\"?>\n<threads>\n<thread id=\"1\" core=\"0\" name=\"CPU "
      "0\">{}</thread>\n</threads>\n",
      vcpu_.state().halted ? "halted" : "running");
}

// "OFFSET,LENGTH" of a document
void GdbSession::transfer(std::string_view text, std::string_view document) {
  const auto range = take_range(text);
  if (!range) return error(kBadRequest);
  if (range->address >= document.size()) return reply("l");
  const std::string_view piece =
      document.substr(range->address, std::min<uint64_t>(range->length, kGdbPacketBytes));
  const bool last = range->address + piece.size() == document.size();
  reply(last ? 'l' : 'm', std::string(piece));
}

void GdbSession::query(std::string_view text) {
  if (take(text, "Supported")) {
    knows_breakpoint_kinds_ = text.find("swbreak+") != std::string_view::npos;
    return reply(
        fmt::format("PacketSize={:x};QStartNoAckMode+;qXfer:features:read+;qXfer:threads:read+;"
                    "vContSupported+;swbreak+;hwbreak+;"
                    "binary-upload+",
                    kGdbPacketBytes));
  }
  if (take(text, "Xfer:features:read:target.xml:")) return transfer(text, registers_->description());
  if (take(text, "Xfer:threads:read::")) return transfer(text, thread_list());
  if (take(text, "Rcmd,")) return command(text);
  if (take(text, "ThreadExtraInfo,")) {
    if (!names_the_vcpu(text)) return error(kRefused);
    return reply(to_hex(vcpu_.state().halted ? "CPU 0 [halted]" : "CPU 0 [running]"));
  }
  if (take(text, "Search:memory:")) return search(text);
  if (take(text, "CRC:")) return checksum(text);
  if (text == "fThreadInfo") return reply("m01");
  if (text == "sThreadInfo") return reply("l");
  if (text == "C") return reply("QC01");
  if (take(text, "Attached")) return reply("1");
  if (take(text, "Symbol:")) return ok();
  // QEMU's.
  if (text == "qemu.PhyMemMode") return reply(space_ == GuestMemory::Space::Physical ? "1" : "0");
  reply("");
}

void GdbSession::set(std::string_view text) {
  if (take(text, "qemu.PhyMemMode:")) {
    space_ = text == "0" ? GuestMemory::Space::Linear : GuestMemory::Space::Physical;
    return ok();
  }
  reply("");
}

void GdbSession::packet(std::string_view body) {
  if (!registers_ || body.empty()) return reply("");
  // Nothing but an interrupt comes from gdb while the machine runs; else gdb and we disagree about its state.
  if (!machine_.paused()) pause();
  const char command = body[0];
  std::string_view rest = body.substr(1);
  switch (command) {
    case '?':
      return reply(stop_reply());
    case 'g':
      return read_registers();
    case 'G':
      return write_registers(rest);
    case 'p':
      return read_register(rest);
    case 'P':
      return write_register(rest);
    case 'm':
      return read_memory(rest, false);
    case 'x':
      return read_memory(rest, true);
    case 'M':
      return write_memory(rest, false);
    case 'X':
      return write_memory(rest, true);
    case 'Z':
      return change_breakpoint(rest, true);
    case 'z':
      return change_breakpoint(rest, false);
    case 'c':
      return resume_at(rest, false);
    case 's':
      return resume_at(rest, true);
    case 'C':
    case 'S': {  // a signal, which no CPU takes
      const size_t address = rest.find(';');
      return resume_at(address == std::string_view::npos ? std::string_view{} : rest.substr(address + 1),
                       command == 'S');
    }
    case 'H':  // then the kind of command that it is for
      if (rest.empty()) return error(kBadRequest);
      rest.remove_prefix(1);
      return names_the_vcpu(rest) ? ok() : error(kRefused);
    case 'T':
      return names_the_vcpu(rest) ? ok() : error(kRefused);
    case 'D':
      ok();
      return detach();
    case 'k':
      machine_.request_quit(0);
      return;
    case 'q':
      return query(rest);
    case 'Q':
      return set(rest);
    case 'v':
      if (rest == "Cont?") return reply("vCont;c;C;s;S;t;r");
      if (take(rest, "Cont")) return act(rest);
      if (take(rest, "Kill")) {
        ok();
        machine_.request_quit(0);
        return;
      }
      return reply("");
    default:
      return reply("");
  }
}

}  // namespace penumbra
