#include "core/machine.h"

#include <gtest/gtest.h>

#include <thread>

namespace penumbra {
namespace {

using namespace std::chrono_literals;

// Does `step` again and again until the machine wants the vCPU back, as translated code would.
class ScriptedEngine : public Engine {
 public:
  ScriptedEngine(Vcpu& vcpu, std::function<void()> step) : vcpu_(vcpu), step_(std::move(step)) {}
  void run() override {
    while (vcpu_.state().attention.load() == 0) step_();
  }
  void step() override { step_(); }
  void interrupt() override { ++interrupts; }
  void discard_translations() override { ++discards; }
  std::atomic<int> interrupts{0};
  int discards = 0;

 private:
  Vcpu& vcpu_;
  std::function<void()> step_;
};

class SilentBoard : public Board, private InterruptSource {
 public:
  InterruptSource& interrupts() override { return *this; }
  void reset() override { ++resets; }
  int resets = 0;

 private:
  bool pending() const override { return false; }
  uint8_t acknowledge() override { return 0xff; }
};

class MachineTest : public testing::Test {
 protected:
  void make(bool reboot, std::function<void()> step) {
    MachineOptions options;
    options.ram_bytes = 1 << 20;
    options.cpu = "base";
    options.reboot = reboot;
    machine = std::make_unique<Machine>(options);
    auto made_board = std::make_unique<SilentBoard>();
    board = made_board.get();
    machine->set_board(std::move(made_board));
    auto made_engine = std::make_unique<ScriptedEngine>(machine->vcpu(), std::move(step));
    engine = made_engine.get();
    machine->set_engine(std::move(made_engine));
    machine->reset();
  }
  void halt() { machine->vcpu().attend(attention::kHalt); }

  std::unique_ptr<Machine> machine;
  SilentBoard* board = nullptr;
  ScriptedEngine* engine = nullptr;
};

TEST_F(MachineTest, AnExitRequestEndsRunWithItsCode) {
  make(true, [this] { machine->request_exit(33); });
  EXPECT_EQ(machine->run(), ExitReason::Requested);
  EXPECT_EQ(machine->exit_code(), 33);
}

TEST_F(MachineTest, AnotherThreadEndsAGuestThatRuns) {
  make(true, [] { std::this_thread::yield(); });
  std::jthread other([this] {
    std::this_thread::sleep_for(20ms);
    machine->request_exit(1);
  });
  EXPECT_EQ(machine->run(), ExitReason::Requested);
  EXPECT_GE(engine->interrupts.load(), 1);
}

TEST_F(MachineTest, AnotherThreadEndsAGuestThatIsHalted) {
  make(true, [this] { halt(); });
  std::jthread other([this] {
    std::this_thread::sleep_for(20ms);
    machine->request_exit(1);
  });
  EXPECT_EQ(machine->run(), ExitReason::Requested);
  EXPECT_EQ(machine->times().halts, 1u);
  EXPECT_GE(machine->times().halted, 10ms);
}

TEST_F(MachineTest, PostedEventsRunWhileTheGuestRunsAndWhileItIsHalted) {
  for (const bool halted : {false, true}) {
    make(true, [this, halted] {
      if (halted) halt();
    });
    std::jthread other([this] {
      std::this_thread::sleep_for(10ms);
      EXPECT_TRUE(machine->events().post([this] { machine->request_exit(5); }));
    });
    EXPECT_EQ(machine->run(), ExitReason::Requested);
    EXPECT_EQ(machine->exit_code(), 5);
  }
}

TEST_F(MachineTest, TimersExpireWhileTheGuestRunsAndWhileItIsHalted) {
  for (const bool halted : {false, true}) {
    make(true, [this, halted] {
      if (halted) halt();
    });
    Timer timer(machine->clock(), [this] { machine->request_exit(0); });
    const Nanoseconds deadline = machine->clock().now() + 10'000'000;
    timer.arm(deadline);
    EXPECT_EQ(machine->run(), ExitReason::Requested);
    EXPECT_GE(machine->clock().now(), deadline);
  }
}

TEST_F(MachineTest, TheIdleListenerMayEndAHaltThatHasNoEnd) {
  make(true, [this] { halt(); });
  machine->set_idle_listener([this] { machine->request_exit(0); });
  EXPECT_EQ(machine->run(), ExitReason::Requested);
}

TEST_F(MachineTest, AResetEndsRunWhenRebootIsOff) {
  make(false, [this] { machine->request_reset(); });
  EXPECT_EQ(machine->run(), ExitReason::Reset);
  EXPECT_EQ(board->resets, 1);
}

TEST_F(MachineTest, AResetStartsTheGuestAnewWhenRebootIsOn) {
  int boots = 0;
  make(true, [&, this] {
    if (boots < 3) {
      machine->request_reset();
    } else {
      machine->request_exit(0);
    }
  });
  machine->set_boot([&] { ++boots; });
  EXPECT_EQ(machine->run(), ExitReason::Requested);
  EXPECT_EQ(boots, 3);
  EXPECT_EQ(board->resets, 4);
  EXPECT_EQ(engine->discards, 4);
  EXPECT_EQ(machine->times().resets, 3u);
}

TEST_F(MachineTest, AResetEndsAHalt) {
  int steps = 0;
  make(true, [&, this] {
    if (++steps == 1) {
      halt();
      machine->request_reset();
    } else {
      machine->request_exit(0);
    }
  });
  EXPECT_EQ(machine->run(), ExitReason::Requested);
  EXPECT_EQ(steps, 2);
}

// The exception's handler is looked for in an empty IDT, and the double fault's, too.
TEST_F(MachineTest, ATripleFaultIsToldAndEndsRunWhenRebootIsOff) {
  make(false, [this] {
    machine->vcpu().state().idtr.limit = 0;
    machine->vcpu().deliver({.vector = vector::kUd});
  });
  bool told = false;
  machine->set_triple_fault_listener([&] { told = true; });
  EXPECT_EQ(machine->run(), ExitReason::TripleFault);
  EXPECT_TRUE(told);
}

TEST_F(MachineTest, TheFirstExitRequestCounts) {
  make(true, [this] {
    machine->request_exit(7);
    machine->request_exit(9);
  });
  EXPECT_EQ(machine->run(), ExitReason::Requested);
  EXPECT_EQ(machine->exit_code(), 7);
}

class RecordingDebugger : public Debugger {
 public:
  explicit RecordingDebugger(std::function<void(const DebugStop&)> react) : react_(std::move(react)) {}
  void stopped(const DebugStop& stop) override { react_(stop); }

 private:
  std::function<void(const DebugStop&)> react_;
};

TEST_F(MachineTest, APausedMachineRunsEventsButNeitherGuestNorTimers) {
  int steps = 0;
  make(true, [&, this] {
    ++steps;
    std::this_thread::sleep_for(1ms);
  });
  bool expired = false;
  Timer timer(machine->clock(), [&] { expired = true; });
  timer.arm(machine->clock().now() + 5'000'000);
  machine->pause();
  const Nanoseconds paused_at = machine->clock().now();
  const uint64_t tsc = machine->vcpu().read_tsc();
  std::jthread other([&, this] {
    std::this_thread::sleep_for(100ms);
    EXPECT_TRUE(machine->events().post([&, this] {
      EXPECT_EQ(steps, 0);
      EXPECT_FALSE(expired);
      EXPECT_EQ(machine->clock().now(), paused_at);
      machine->resume();
      constexpr uint64_t kLittle = 80'000'000;  // of the host's TSC: far less than the pause
      EXPECT_LT(machine->vcpu().read_tsc() - tsc, kLittle);
    }));
    std::this_thread::sleep_for(100ms);
    EXPECT_TRUE(machine->events().post([this] { machine->request_exit(7); }));
  });
  EXPECT_EQ(machine->run(), ExitReason::Requested);
  EXPECT_EQ(machine->exit_code(), 7);
  EXPECT_GT(steps, 0);
  EXPECT_TRUE(expired);
}

TEST_F(MachineTest, APausedMachineCanBeResetAndEnded) {
  make(true, [] { FAIL() << "guest code ran"; });
  machine->pause();
  std::jthread other([this] {
    EXPECT_TRUE(machine->events().post([this] { machine->request_reset(); }));
    std::this_thread::sleep_for(20ms);
    machine->request_exit(0);
  });
  EXPECT_EQ(machine->run(), ExitReason::Requested);
  EXPECT_EQ(board->resets, 2);
  EXPECT_TRUE(machine->paused());
}

TEST_F(MachineTest, StepsAreToldToTheDebugger) {
  make(true, [this] { machine->vcpu().state().rip += 2; });
  const uint64_t start = machine->vcpu().code_address().value;
  int stops = 0;
  RecordingDebugger debugger([&, this](const DebugStop& stop) {
    EXPECT_TRUE(machine->paused());
    EXPECT_EQ(stop.kind, DebugStop::Kind::None);
    if (++stops == 1) {
      EXPECT_EQ(machine->vcpu().code_address().value, start + 2);
      machine->step({start}, 8);  // as long as it stays below start + 8
    } else {
      EXPECT_EQ(machine->vcpu().code_address().value, start + 8);
      machine->request_exit(0);
    }
  });
  machine->set_debugger(&debugger);
  machine->pause();
  machine->step({}, 0);
  EXPECT_EQ(machine->run(), ExitReason::Requested);
  EXPECT_EQ(stops, 2);
}

TEST_F(MachineTest, AStepTakesNoInterruptButIsInterruptedByABreakpointOfItsRange) {
  make(true, [this] { machine->vcpu().state().rip += 2; });
  const uint64_t start = machine->vcpu().code_address().value;
  machine->vcpu().debug().set_breakpoints({{start + 4}});
  RecordingDebugger debugger([&, this](const DebugStop&) {
    EXPECT_EQ(machine->vcpu().code_address().value, start + 4);
    machine->request_exit(0);
  });
  machine->set_debugger(&debugger);
  machine->vcpu().request_nmi();
  machine->step({start}, 100);
  EXPECT_EQ(machine->run(), ExitReason::Requested);
  EXPECT_EQ(machine->vcpu().event_count(), 0u);
}

}  // namespace
}  // namespace penumbra
