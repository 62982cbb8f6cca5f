// A PC as the options ask for it: the machine, its board, its translator, its images, and where its bytes go.
#pragma once

#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/machine.h"
#include "core/trace_log.h"
#include "devices/pc_board.h"
#include "frontend/balloon_watch.h"
#include "frontend/boot.h"
#include "frontend/display.h"
#include "frontend/key_typer.h"
#include "frontend/media_drives.h"
#include "frontend/monitor.h"
#include "frontend/options.h"
#include "frontend/output.h"
#include "frontend/screen.h"
#include "frontend/serial_input.h"
#include "jit/translator.h"
#include "network/packet_dump.h"
#include "network/slirp_network.h"
#include "storage/folder_share.h"
#include "storage/image_device.h"

namespace penumbra {

class PcMachine : private EventListener {
 public:
  // Throws UserError for what cannot be built as asked, std::runtime_error when the host fails.
  explicit PcMachine(const RunOptions& options);
  ~PcMachine() override;
  PcMachine(const PcMachine&) = delete;
  PcMachine& operator=(const PcMachine&) = delete;

  Machine& machine() { return *machine_; }
  const jit::Translator& translator() const { return *translator_; }
  // A window or viewers, as the options ask; null: none. Throws UserError.
  std::unique_ptr<Display> make_display();
  // For monitors; `event` is for the caller to set.
  MonitorActions& monitor_actions() { return actions_; }
  // Of the port that has the terminal; null: none has.
  SerialInput* input() { return input_.get(); }

  // Nobody reads standard output any more, which ended the machine.
  bool pipe_closed() const { return pipe_closed_; }

  // Hands over what waits: serial output and log.
  void flush();
  // Has serial output seen before what is told about it; but not at any price: nobody may be reading.
  void show_output();
  // After Machine::run(): until all output is written, or for a while when a person ended the machine. False:
  // some is lost, which it has said where that is heard.
  [[nodiscard]] bool finish_output();
  // Any thread: text for the terminal.
  void say(std::string_view text) { standard_output_->say(text); }

 private:
  struct CloseFile {
    void operator()(std::FILE* file) const {
      if (file != stderr) std::fclose(file);
    }
  };

  void open_trace();
  void open_drives();
  MediaDrives::Medium open_medium(const ImageOptions& image);
  void drive_stopped(const MediaDrives::Drive& drive, const BlockRequest& request);
  std::vector<PcBoardOptions::Flash> open_flashes();
  void open_networks();
  void open_shares();
  void make_board();
  void make_engine();
  Output& output(const CharacterTarget& target);
  ByteSink sink(const CharacterTarget& target);
  void relieve();
  void output_failed(const Output& output, int error);
  void idle();
  void triple_fault();
  void trace_entry(const jit::Block& block);
  // EventListener
  void event_delivered(const EventRecord& event) override;

  const RunOptions options_;
  std::unique_ptr<std::FILE, CloseFile> trace_file_;
  TraceLog trace_;
  uint64_t traced_events_ = 0;
  bool pipe_closed_ = false;
  std::map<std::string, std::unique_ptr<Output>> outputs_;  // by path; standard output's is empty
  Output* standard_output_ = nullptr;                       // one of them
  std::unique_ptr<Machine> machine_;
  std::vector<std::unique_ptr<BlockDevice>> drives_;  // of options_.drives
  std::vector<ImageDevice*> images_;                  // in drives_, of those whose medium stays
  MediaDrives media_;
  std::vector<std::unique_ptr<NetworkBackend>> networks_;  // of options_.networks
  std::vector<PacketDump*> packet_dumps_;                  // in networks_
  std::vector<std::unique_ptr<FolderShare>> shares_;       // of options_.shares
  std::unique_ptr<Boot> boot_;
  Timer flush_timer_;
  PcBoard* board_ = nullptr;               // the machine's
  jit::Translator* translator_ = nullptr;  // the machine's
  std::unique_ptr<SerialInput> input_;
  std::optional<Screen> screen_;
  std::optional<KeyTyper> keys_;
  std::optional<BalloonWatch> balloon_;
  MonitorActions actions_;
};

}  // namespace penumbra
