#include "frontend/qmp_session.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "frontend/balloon_watch.h"
#include "frontend/key_typer.h"
#include "frontend/media_drives.h"
#include "frontend/screen.h"

namespace penumbra {

namespace {

using Json = nlohmann::json;

class QmpError : public std::runtime_error {
 public:
  QmpError(const char* kind, const std::string& text) : std::runtime_error(text), kind_(kind) {}
  const char* kind() const { return kind_; }

 private:
  const char* kind_;
};

constexpr const char* kGeneric = "GenericError";
constexpr const char* kCommands[] = {"qmp_capabilities",
                                     "query-version",
                                     "query-commands",
                                     "query-status",
                                     "query-name",
                                     "stop",
                                     "cont",
                                     "system_reset",
                                     "system_powerdown",
                                     "quit",
                                     "screendump",
                                     "send-key",
                                     "human-monitor-command",
                                     "balloon",
                                     "query-balloon",
                                     "eject",
                                     "blockdev-change-medium",
                                     "query-block",
                                     "qom-get",
                                     "qom-set"};

// The version of QEMU whose commands these are.
Json version() {
  return {{"qemu", {{"major", 7}, {"minor", 2}, {"micro", 0}}}, {"package", "penumbra"}};
}

std::string text_of(const Json& arguments, const char* name) {
  if (!arguments.contains(name)) throw QmpError(kGeneric, std::string("Parameter '") + name + "' is missing");
  if (!arguments[name].is_string())
    throw QmpError(kGeneric, std::string("Invalid parameter type for '") + name + "', expected: string");
  return arguments[name].get<std::string>();
}

// What goes wrong in it, as an answer.
template <class Action>
Json tried(Action action) {
  try {
    action();
  } catch (const QmpError&) {
    throw;
  } catch (const MediaDrives::NotFound& missing) {
    throw QmpError("DeviceNotFound", missing.what());
  } catch (const std::runtime_error& refused) {
    throw QmpError(kGeneric, refused.what());
  }
  return Json::object();
}

}  // namespace

void QmpSession::connected() {
  negotiated_ = false;
  text_.clear();
  depth_ = 0;
  in_string_ = escaped_ = false;
  reply({{"QMP", {{"version", version()}, {"capabilities", Json::array()}}}});
}

void QmpSession::reply(const Json& value) {
  send_(value.dump(-1, ' ', false, Json::error_handler_t::replace) + "\r\n");
}

void QmpSession::event(std::string_view name, const Json& data) {
  if (!negotiated_) return;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto microseconds = std::chrono::duration_cast<std::chrono::microseconds>(now).count();
  Json event = {
      {"event", name},
      {"timestamp", {{"seconds", microseconds / 1'000'000}, {"microseconds", microseconds % 1'000'000}}}};
  if (!data.is_null()) event["data"] = data;
  if (name == "RESET") event["data"] = {{"guest", false}, {"reason", "host-qmp-system-reset"}};
  if (name == "SHUTDOWN") event["data"] = {{"guest", true}, {"reason", "guest-shutdown"}};
  reply(event);
}

// Objects need no white space between them: braces are counted, those in strings apart.
void QmpSession::received(std::string_view bytes) {
  for (const char c : bytes) {
    if (text_.size() < kLongestObject) text_ += c;
    if (in_string_) {
      if (!escaped_ && c == '"') in_string_ = false;
      escaped_ = !escaped_ && c == '\\';
      continue;
    }
    if (c == '"') in_string_ = true;
    if (c == '{') ++depth_;
    const bool closed = c == '}' && depth_ > 0 && --depth_ == 0;
    const bool stray = c == '\n' && depth_ == 0;
    if (!closed && !stray) continue;
    if (text_.find_first_not_of(" \t\r\n") != std::string::npos) object(text_);
    text_.clear();
  }
}

void QmpSession::object(std::string_view text) {
  const Json request = Json::parse(text, nullptr, false);
  Json answer = Json::object();
  if (request.is_object() && request.contains("id")) answer["id"] = request["id"];
  const auto error = [&answer](const char* kind, const std::string& what) {
    answer["error"] = {{"class", kind}, {"desc", what}};
  };
  if (request.is_discarded()) {
    error(kGeneric, "JSON parse error");
  } else if (!request.is_object() || !request.contains("execute") || !request["execute"].is_string()) {
    error(kGeneric, "QMP input lacks member 'execute'");
  } else {
    try {
      answer["return"] =
          execute(request["execute"].get<std::string>(), request.value("arguments", Json::object()));
    } catch (const QmpError& refused) {
      error(refused.kind(), refused.what());
    }
  }
  reply(answer);
}

Json QmpSession::execute(const std::string& command, const Json& arguments) {
  if (std::find(std::begin(kCommands), std::end(kCommands), command) == std::end(kCommands))
    throw QmpError("CommandNotFound", "The command " + command + " has not been found");
  if (command == "qmp_capabilities") {
    if (negotiated_)
      throw QmpError("CommandNotFound", "Capabilities negotiation is already complete, command ignored");
    negotiated_ = true;
    return Json::object();
  }
  if (!negotiated_)
    throw QmpError("CommandNotFound", "Expecting capabilities negotiation with 'qmp_capabilities'");
  if (!arguments.is_object()) throw QmpError(kGeneric, "QMP input member 'arguments' must be an object");
  if (command == "query-version") return version();
  if (command == "query-name") return Json::object();
  if (command == "query-commands") {
    Json names = Json::array();
    for (const char* name : kCommands) names.push_back({{"name", name}});
    return names;
  }
  if (command == "query-status") {
    const bool running = !machine_.paused();
    return {{"running", running},
            {"singlestep", false},
            {"status", running             ? "running"
                       : actions_.io_error ? "io-error"
                                           : "paused"}};
  }
  if (command == "human-monitor-command") return monitor_.execute(text_of(arguments, "command-line"));
  if (command == "query-block") return actions_.drives->description();
  if (command == "eject" || command == "blockdev-change-medium") {
    const std::string drive = text_of(arguments, arguments.contains("id") ? "id" : "device");
    const Json force = arguments.value("force", Json(false));
    if (!force.is_boolean())
      throw QmpError(kGeneric, "Invalid parameter type for 'force', expected: boolean");
    const auto text_or_none = [&arguments](const char* name) {
      return arguments.contains(name) ? text_of(arguments, name) : std::string();
    };
    const std::string format = text_or_none("format"), mode = text_or_none("read-only-mode");
    return tried([&] {
      if (command == "eject") return actions_.drives->eject(drive, force.get<bool>());
      actions_.drives->change(drive, {.path = text_of(arguments, "filename"), .format = format, .mode = mode},
                              force.get<bool>());
    });
  }
  if (command == "screendump") {
    if (!actions_.screen) throw QmpError(kGeneric, "There is no console to take a screendump from");
    return tried([&] { write_image(actions_.screen->image(), text_of(arguments, "filename")); });
  }
  if (command == "balloon" || command == "query-balloon") {
    if (!actions_.balloon) throw QmpError("DeviceNotActive", "No balloon device has been activated");
    const uint64_t ram = machine_.map().ram_bytes();
    if (command == "query-balloon")
      return {{"actual", ram - std::min(ram, actions_.balloon->balloon().held())}};
    const Json value = arguments.value("value", Json());
    if (!value.is_number_unsigned() || value.get<uint64_t>() == 0)
      throw QmpError(kGeneric, "Parameter 'value' expects a number of bytes");
    actions_.balloon->balloon().set_wanted(ram - std::min(ram, value.get<uint64_t>()));
    return Json::object();
  }
  if (command == "qom-get" || command == "qom-set") return property(command == "qom-set", arguments);
  if (command == "send-key") {
    std::vector<KeyCode> keys;
    for (const Json& key : arguments.value("keys", Json::array())) {
      const Json& data = key.is_object() && key.contains("data") ? key["data"] : Json();
      const auto code = data.is_string() ? key_named(data.get<std::string>())
                        : data.is_number_unsigned() && data.get<uint64_t>() <= 0xff
                            ? std::optional(data.get<KeyCode>())
                            : std::nullopt;
      if (!code) throw QmpError(kGeneric, "Invalid parameter '" + data.dump() + "'");
      keys.push_back(*code);
    }
    const Json hold = arguments.value("hold-time", Json(100u));
    if (keys.empty() || !hold.is_number_unsigned() || hold.get<uint64_t>() > 60'000)
      throw QmpError(kGeneric, "Parameter 'keys' or 'hold-time' is invalid");
    constexpr Nanoseconds kMillisecond = 1'000'000;
    if (!actions_.keys->type(keys, hold.get<uint64_t>() * kMillisecond))
      throw QmpError(kGeneric, "Too many keys wait");
    return Json::object();
  }
  // What has no arguments and no answer is the monitor's command of that name.
  monitor_.execute(command);
  return Json::object();
}

// Of QEMU's objects only the balloon is there, by its -device's id.
Json QmpSession::property(bool set, const Json& arguments) {
  const std::string path = text_of(arguments, "path"), name = text_of(arguments, "property");
  const std::string& id = actions_.balloon_id;
  if (!actions_.balloon || id.empty() || (path != id && path != "/machine/peripheral/" + id))
    throw QmpError("DeviceNotFound", "Device '" + path + "' not found");
  constexpr std::string_view kInterval = "guest-stats-polling-interval";
  if (name == "guest-stats" && !set) return actions_.balloon->statistics();
  if (name != kInterval) throw QmpError(kGeneric, "Property 'virtio-balloon-pci." + name + "' not found");
  if (!set) return actions_.balloon->interval();
  const Json value = arguments.value("value", Json());
  if (!value.is_number_integer())
    throw QmpError(kGeneric, "Invalid parameter type for 'guest-stats-polling-interval', expected: integer");
  if (!value.is_number_unsigned()) throw QmpError(kGeneric, "timer value must be greater than zero");
  if (value.get<uint64_t>() > UINT32_MAX) throw QmpError(kGeneric, "timer value is too big");
  actions_.balloon->set_interval(value.get<uint32_t>());
  return Json::object();
}

}  // namespace penumbra
