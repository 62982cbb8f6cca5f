#include "jit/translator.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>
#include <x86intrin.h>

#include <csignal>
#include <cstring>
#include <stdexcept>

#include "core/host_vector_scope.h"
#include "jit/explain.h"

namespace penumbra::jit {

namespace {

// The translator whose guest code this thread runs; only the signal handler reads it.
thread_local Translator* current_translator = nullptr;

constexpr uint64_t kMatureMilliseconds = 4;

constexpr int kFaultSignals[] = {SIGSEGV, SIGFPE, SIGILL, SIGBUS};
struct sigaction previous_actions[NSIG];

// By guest register, which is the host's of the same name.
constexpr int kGregs[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                          REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

// The address that kHostAddend is added to in the host instruction at `pc`, near enough.
LinearAddr base_of_operand(uint64_t pc, const greg_t* regs) {
  ZydisDecoder decoder;
  ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  ZydisDecodedInstruction insn;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
  // SAFETY: the host has just decoded it.
  const auto* code = reinterpret_cast<const void*>(pc);
  if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, code, ZYDIS_MAX_INSTRUCTION_LENGTH, &insn, operands)))
    return {};
  for (unsigned i = 0; i < insn.operand_count; ++i) {
    const ZydisDecodedOperandMem& mem = operands[i].mem;
    if (operands[i].type != ZYDIS_OPERAND_TYPE_MEMORY || mem.base == ZYDIS_REGISTER_NONE) continue;
    // kHostAddend is the index, or the base of a constant.
    if (mem.index == ZYDIS_REGISTER_NONE) return {static_cast<uint64_t>(mem.disp.value)};
    return {static_cast<uint64_t>(regs[kGregs[gpr_number(mem.base)]])};
  }
  return {};
}

void on_fault(int signal, siginfo_t* info, void* context) {
  if (current_translator && current_translator->handle_host_fault(signal, info, context)) return;
  // Not ours: let whoever handled it before (or the default action) see it when the instruction faults again.
  sigaction(signal, &previous_actions[signal], nullptr);
}

// Sends SIGPROF to this thread again and again while it runs guest code. (Not a timer of processor time:
// those fire at ticks of the host's scheduler, milliseconds apart.)
class SampleTimer {
 public:
  SampleTimer() {
    sigevent event = {};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SIGPROF;
    event._sigev_un._tid = gettid();
    exists_ = timer_create(CLOCK_MONOTONIC, &event, &timer_) == 0;  // without samples no block becomes hot
  }
  ~SampleTimer();
  SampleTimer(const SampleTimer&) = delete;
  SampleTimer& operator=(const SampleTimer&) = delete;

  void start() {
    if (!running_) set(interval_);
    running_ = true;
  }
  void stop() {
    if (running_) set(0);
    running_ = false;
  }
  // Samples that tell nothing become rare: where the host is a virtual machine itself, each costs it a tenth
  // of a millisecond.
  void pace(bool useful) {
    const unsigned next = useful ? 1 : std::min(2 * interval_, kLongest);
    if (std::exchange(interval_, next) != next && running_) set(next);
  }
  unsigned interval() const { return interval_; }  // in the shortest ones

 private:
  static constexpr long kShortestNanoseconds = 500'000;
  static constexpr unsigned kLongest = 16;
  void set(unsigned interval) {
    itimerspec period = {};
    period.it_value.tv_nsec = period.it_interval.tv_nsec = interval * kShortestNanoseconds;
    if (exists_) timer_settime(timer_, 0, &period, nullptr);
  }
  timer_t timer_ = {};
  bool exists_ = false;
  unsigned interval_ = 1;
  volatile bool running_ = false;  // also changed by the signal handler
};

thread_local SampleTimer* sample_timer = nullptr;

SampleTimer::~SampleTimer() {
  sample_timer = nullptr;
  if (exists_) timer_delete(timer_);
}

void on_sample(int, siginfo_t*, void* context) {
  const int saved_errno = errno;
  if (current_translator) {
    current_translator->handle_sample(context);
  } else if (sample_timer) {
    sample_timer->stop();  // until the thread runs guest code again
  }
  errno = saved_errno;
}

void install_fault_handlers() {
  static const bool installed = [] {
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigfillset(&action.sa_mask);
    for (const int signal : kFaultSignals) sigaction(signal, &action, &previous_actions[signal]);
    action.sa_sigaction = on_sample;
    action.sa_flags |= SA_RESTART;
    sigaction(SIGPROF, &action, nullptr);
    return true;
  }();
  (void)installed;
}

// Translated code runs with the guest's RSP, so signals of this thread need a stack of their own.
class SignalStack {
 public:
  SignalStack() {
    memory_ = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory_ == MAP_FAILED) throw std::runtime_error("signal stack: mmap failed");
    stack_t stack = {};
    stack.ss_sp = memory_;
    stack.ss_size = kBytes;
    // Without autodisarm, the kernel would take a guest RSP that happens to lie within this stack for a
    // nested signal, and write the frame there.
    stack.ss_flags = static_cast<int>(kAutodisarm);
    if (sigaltstack(&stack, &previous_) != 0) throw std::runtime_error("signal stack: sigaltstack failed");
  }
  ~SignalStack() {
    sigaltstack(&previous_, nullptr);
    munmap(memory_, kBytes);
  }
  SignalStack(const SignalStack&) = delete;
  SignalStack& operator=(const SignalStack&) = delete;

 private:
  static constexpr size_t kBytes = 128 * 1024;
  static constexpr unsigned kAutodisarm = 1u << 31;  // SS_AUTODISARM
  void* memory_;
  stack_t previous_ = {};
};

}  // namespace

Translator::Translator(Vcpu& vcpu, const TranslatorOptions& options, TraceSink trace)
    : vcpu_(vcpu),
      state_(vcpu.state()),
      options_(options),
      trace_(std::move(trace)),
      cache_(options.code_cache_bytes),
      thunks_(generate_thunks(cache_, *this)),
      block_translator_(options_, {.thunks = &thunks_,
                                   .state = &state_,
                                   .poll_page = reinterpret_cast<uint64_t>(cache_.poll_page()),
                                   .debug = &vcpu.debug()}),
      buckets_(kBuckets),
      found_before_(kFoundBefore),
      hot_(options.mmu == TranslatorOptions::Mmu::Windows, options.mmu == TranslatorOptions::Mmu::Tlb,
           vcpu.model().tsc_hz() / 1000 * kMatureMilliseconds) {
  // Every block comes to the dispatcher, with the flags that its registers are shown with.
  if (options_.trace_execution) options_.chain = options_.jump_cache = options_.flag_liveness = false;
  if (options_.trace_guest_code || options_.trace_host_code)
    options_.superblocks = false;  // shown in one piece
  // Shown with their addresses.
  if (options_.trace_guest_code || options_.trace_host_code || options_.trace_execution ||
      options_.record_blocks) {
    options_.shared_blocks = false;
  }
  if (!options_.soft_tlb) options_.shared_blocks = false;  // an access in callout form knows its RIP
  if (options_.perf_map) perf_map_ = std::make_unique<PerfMap>(*options_.perf_map);
  frames_.resize(vcpu_.map().tracker().frame_count());
  vcpu_.tlb().set_listener(this);
  vcpu_.map().tracker().set_listener(this);
  vcpu_.set_mode_listener(this);
  vcpu_.debug().set_listener(this);
  if (options_.mmu != TranslatorOptions::Mmu::Tlb) {
    try {
      windows_ = std::make_unique<ShadowWindows>(vcpu_.map(), SoftTlb::kSpaces);
    } catch (const std::runtime_error& refused) {
      warning_ = std::string(refused.what()) + "; using the software TLB";
    }
    vcpu_.tlb().set_windows(windows_.get());
  }
  vcpu_.update_mode();
}

Translator::~Translator() {
  vcpu_.tlb().set_windows(nullptr);
  vcpu_.tlb().set_listener(nullptr);
  vcpu_.map().tracker().set_listener(nullptr);
  vcpu_.set_mode_listener(nullptr);
  vcpu_.debug().set_listener(nullptr);
}

void Translator::run() {
  if (poll_closed_.exchange(false)) mprotect(cache_.poll_page(), kPageSize, PROT_READ);
  if (std::exchange(matured_, false)) mode_changed();
  if (state_.attention.load() && !state_.interrupt_shadow) return;
  const uint64_t began = __rdtsc();
  enter_guest();
  // All of it counts as the address space's that the vCPU is in at the end, an interrupt's as a rule: it is a
  // sample.
  const unsigned space = vcpu_.tlb().current_space();
  const bool was_mature = hot_.mature(space);
  hot_.ran(space, __rdtsc() - began);
  matured_ = matured_ || hot_.mature(space) != was_mature;
}

void Translator::step() {
  step_ = Step::Wanted;
  enter_guest();
  step_ = Step::Off;
}

void Translator::enter_guest() {
  install_fault_handlers();
  thread_local SignalStack signal_stack;
  thread_local SampleTimer timer;
  sample_timer = &timer;
  if (windows_ && options_.mmu == TranslatorOptions::Mmu::Auto) timer.start();
  current_translator = this;
  follow_gs(true);
  run_guest();
  follow_gs(false);
  current_translator = nullptr;
  if (state_.attention.load() & attention::kHalt) timer.stop();
}

// GS is this thread's: nobody else may change it for the vCPU.
void Translator::follow_gs(bool on) {
  if (!windows_ || !windows_->serves(ShadowWindows::Width::Bits32)) return;
  state_.windows.gs_is_flat = on;
  state_.windows.gs = 0;
  if (on) vcpu_.tlb().select_windows(state_.windows, vcpu_.current_view(), window_width());
}

void Translator::interrupt() {
  // The flag follows the protection: run() may reopen the page too often, never too seldom.
  mprotect(cache_.poll_page(), kPageSize, PROT_NONE);
  poll_closed_.store(true);
}

void Translator::discard_translations() {
  flush_translations();
}

bool Translator::handle_host_fault(int signal, void* info_pointer, void* context_pointer) {
  const auto* info = static_cast<const siginfo_t*>(info_pointer);
  greg_t* regs = static_cast<ucontext_t*>(context_pointer)->uc_mcontext.gregs;
  const auto pc = static_cast<uint64_t>(regs[REG_RIP]);
  if (!cache_.contains(pc)) return false;
  const std::optional<Site> site = site_at(pc);
  if (!site) return false;

  const auto fault_address = reinterpret_cast<uint64_t>(info->si_addr);
  const auto poll_page = reinterpret_cast<uint64_t>(cache_.poll_page());
  Block& block = *block_at(pc);
  if (site->kind == SiteKind::Poll && signal == SIGSEGV && fault_address - poll_page < kPageSize) {
    poll_closed_.store(true);  // run() reopens the page
    ++counters_.poll_exits;
    const bool indirect = site->rip >> 62 == kPollIndirect >> 62;
    state_.rip = indirect ? static_cast<uint64_t>(regs[REG_R10]) : site->rip;
    if (indirect && !vcpu_.may_jump_to(state_.rip)) {
      // The fault is the branch's, which would be over after an interrupt.
      regs[REG_R11] = static_cast<greg_t>(site->rip & ~kPollIndirect);
      regs[REG_RIP] = static_cast<greg_t>(thunks_.lookup_indirect);
      return true;
    }
    settle_registers(block, *site, [regs](unsigned gpr) -> greg_t& { return regs[kGregs[gpr]]; });
    regs[REG_RIP] = static_cast<greg_t>(thunks_.interrupted);
    return true;
  }
  const WindowFault result = window_fault(*site, info, context_pointer);
  if (result == WindowFault::Filled) return true;
  settle_registers(block, *site, [regs](unsigned gpr) -> greg_t& { return regs[kGregs[gpr]]; });
  if (site->kind == SiteKind::String) {
    regs[REG_RSI] -= regs[REG_R10];
    regs[REG_RDI] -= regs[REG_R11];
  }
  if (result == WindowFault::NoWindow) {
    state_.rip = site->rip;
    regs[REG_RIP] = static_cast<greg_t>(site->flags == FlagHome::Host ? thunks_.window_miss
                                                                      : thunks_.window_miss_spilled);
    return true;
  }
  const auto trap = static_cast<uint8_t>(regs[REG_TRAPNO]);
  // A host page fault here would mean that a host address left guest memory: that is ours to crash on.
  if (trap == vector::kPf) return false;
  state_.rip = site->rip;
  state_.site = trap;
  regs[REG_RIP] = static_cast<greg_t>(site->flags == FlagHome::Host ? thunks_.fault : thunks_.fault_spilled);
  return true;
}

// An access through a window that is not there, or does not allow it. Runs in the signal handler, on top of
// translated code: nothing of the translator is in the middle of a change.
Translator::WindowFault Translator::window_fault(const Site& site, const void* info_pointer,
                                                 void* context_pointer) {
  greg_t* regs = static_cast<ucontext_t*>(context_pointer)->uc_mcontext.gregs;
  const auto pc = static_cast<uint64_t>(regs[REG_RIP]);
  Block* const block = windows_ ? block_at(pc) : nullptr;
  if (!block || !block->windows) return WindowFault::None;
  const ShadowWindows::Width width = window_width();
  uint64_t address = 0;
  bool write = site.kind == SiteKind::Write;
  bool in_window = true;
  switch (regs[REG_TRAPNO]) {
    case vector::kPf: {
      const auto host = reinterpret_cast<uint64_t>(static_cast<const siginfo_t*>(info_pointer)->si_addr);
      constexpr greg_t kErrorWrite = 2;
      write = regs[REG_ERR] & kErrorWrite;
      if (width == ShadowWindows::Width::Bits32) {
        address = host - state_.windows.flat;
        in_window = address < ShadowWindows::kRegionBytes;
        if (!in_window) {
          hot_.set_wraps(block->key);
          kill_block(*block);
        }
      } else {
        // Else it is in a guard, or the entry of a region that is not canonical was read.
        const auto linear = windows_->linear_at(host);
        in_window = linear.has_value();
        if (in_window) address = linear->value;
      }
      break;
    }
    case vector::kGp:
    case vector::kSs: {
      // The delta of a region that has no chunk yet. More than this access may go on with it, so it stays,
      // and the next time that the block is run it finds another one.
      const auto delta = static_cast<uint64_t>(regs[REG_R9]);
      const bool of_code_page = block->key.shared() && delta - state_.code_page == ShadowWindows::kNoChunk;
      if (width == ShadowWindows::Width::Bits32) return WindowFault::None;
      in_window = false;
      if (of_code_page) {
        open_window({state_.code_page});
      } else if (delta == ShadowWindows::kNoChunk) {
        open_window(base_of_operand(pc, regs));
      }  // else the guest's own, and the host's operand does not tell whether it is #SS or #GP
      break;
    }
    default:
      return WindowFault::None;
  }
  // The vCPU does not go on in a block that is killed here.
  if (hot_.fault(block->key)) {
    kill_block(*block);
    return WindowFault::NoWindow;
  }
  if (!in_window) return WindowFault::NoWindow;
  const auto refused = [&] {
    if (hot_.fault(block->key, true)) kill_block(*block);
    return WindowFault::NoWindow;
  };
  if (is_too_young({address})) return refused();
  const TlbView view = vcpu_.current_view();
  const auto translation = vcpu_.walk({address}, write ? AccessKind::Write : AccessKind::Read, view);
  if (!translation) return WindowFault::NoWindow;
  const bool filled = vcpu_.tlb().fill_window(view, width, {address}, *translation, write);
  if (windows_->version() != state_.windows.version) vcpu_.tlb().select_windows(state_.windows, view, width);
  // The walk may have set a bit in the page that the block is on, and dropped it: its first bytes are a jump
  // by now.
  if (block->dead) return WindowFault::NoWindow;
  if (!filled) return refused();
  ++counters_.window_fills;
  if (translation->page_bytes == kPageSize) {
    const LinearAddr first{address & ~(ShadowWindows::kNeighbours * kPageSize - 1)};
    ShadowWindows::Neighbours pages;
    for (unsigned i = 0; i < pages.size(); ++i) pages[i] = vcpu_.foresee(first + i * kPageSize, view);
    vcpu_.tlb().fill_window_around(view, width, first, pages);
  }
  return WindowFault::Filled;
}

void Translator::handle_sample(void* context_pointer) {
  const auto pc =
      static_cast<uint64_t>(static_cast<ucontext_t*>(context_pointer)->uc_mcontext.gregs[REG_RIP]);
  if (cache_.contains(pc)) {
    take_sample(pc);
  } else {
    missed_sample_ = true;
  }
}

void Translator::take_sample(uint64_t pc) noexcept {
  Block* const block = block_at(pc);
  if (!block || block->dead) return;
  const bool hot_page = hot_.sample(block->key, sample_timer->interval());
  const bool may_move = !block->windows && may_use_windows(block->key) && !hot_.cold(block->key);
  // In 64-bit code a block moves when the address space is old enough, in other code when its page is hot.
  sample_timer->pace(may_move && !vcpu_.code64());
  if (may_move && block->key.shared()) {
    // Younger address spaces keep the block. This one leaves it, by way of run(), which knows its age.
    const uint64_t page = state_.code_page >> kPageShift;
    for_each_jump_cache(vcpu_.tlb().current_space(), [=](JumpCache& cache) { cache.forget_pages(page, 1); });
    interrupt();
    return;
  }
  const auto move = [&](Block& candidate) {
    if (candidate.dead || candidate.windows || candidate.key.shared() || !wants_windows(candidate.key))
      return;
    // Not where kill_block() writes: the sampled code goes on there.
    if (pc - candidate.host < kEntryPatchBytes) return;
    ++counters_.blocks_windowed;
    kill_block(candidate);
  };
  if (!hot_page) {
    move(*block);
    return;
  }
  const uint64_t frame = block->key.physical.frame().number;
  for (const FrameNode* node = frame < frames_.size() ? frames_[frame] : nullptr; node; node = node->next) {
    move(*node->block);
  }
}

Result<Block*> Translator::translate_block(const BlockKey& key, KeptDeltas likely) {
  std::array<uint8_t, 2 * kMaxInstructionBytes> bytes;
  std::vector<uint8_t> slow_page;
  std::span<const uint8_t> code;
  const uint64_t offset = key.physical.page_offset();
  const PhysicalMap::Page page = vcpu_.map().page(key.physical);
  if (page.host) {
    code = {reinterpret_cast<const uint8_t*>(page.host) + offset, kPageSize - offset};
  } else {
    slow_page.resize(kPageSize - offset);
    vcpu_.map().read_bytes(key.physical, std::as_writable_bytes(std::span(slow_page)));
    code = slow_page;
  }

  const std::byte* const memory =
      page.kind == PhysicalMap::PageKind::Ram && vcpu_.map().tracker().can_hold_code(page.frame)
          ? page.host + offset
          : nullptr;

  bool crosses = false;
  PageFrame second_frame;
  if (code.size() < kMaxInstructionBytes && BlockTranslator::first_length(key, code) == 0) {
    const auto second = vcpu_.translate_fetch(key.linear().page() + kPageSize);
    if (!second) return std::unexpected(second.error());
    crosses = true;
    second_frame = second->frame();
    std::memcpy(bytes.data(), code.data(), code.size());
    vcpu_.map().read_bytes(*second, std::as_writable_bytes(std::span(bytes).subspan(code.size())));
    code = std::span(bytes).first(code.size() + kMaxInstructionBytes);
  }

  if (cache_.free_bytes() < kMaxBlockHostBytes || arena_.free_bytes() < kMaxBlockDataBytes)
    flush_translations();
  const WindowUse windows{.wraps = hot_.wraps(key),
                          .hints = state_.gpr.data(),
                          .code_page = key.rip & ~kPageOffsetMask,
                          .likely = likely};
  const auto translate = [&](const BlockKey& as) {
    return block_translator_.translate(as, code, crosses, cache_.next_address(), arena_, windows,
                                       hot_.patched_bytes(as, crosses ? nullptr : memory));
  };
  Block* made = nullptr;
  if (!crosses && may_be_shared(key)) made = translate(key.as_shared());
  if (!made) made = translate(key);
  Block& block = *made;
  block.second_frame = second_frame;
  cut_blocks_ = cut_blocks_ || block.cut;
  const std::span<const std::byte> host_code = block_translator_.host_code();
  cache_.append(host_code);
  blocks_.push_back(&block);
  Block*& bucket = buckets_[block.key.hash() % kBuckets];
  block.next_in_bucket = bucket;
  bucket = &block;
  track_block(block);
  if (perf_map_) perf_map_->add(block, key.linear());
  if (trace_.translated) trace_block(block, host_code);
  return &block;
}

void Translator::flush_translations() {
  ++generation_;
  ++counters_.cache_flushes;
  PageTracker& tracker = vcpu_.map().tracker();
  for (size_t frame = 0; frame < frames_.size(); ++frame) {
    if (frames_[frame]) tracker.set_holds_code({frame}, false);
  }
  tracker.set_holds_untracked_code(false);
  std::fill(frames_.begin(), frames_.end(), nullptr);
  std::fill(buckets_.begin(), buckets_.end(), nullptr);
  std::fill(found_before_.begin(), found_before_.end(), FoundBlock{});
  frame_nodes_.clear();
  blocks_.clear();
  last_looked_up_ = nullptr;
  state_.recent_blocks.fill(0);
  arena_.clear();
  all_flushed();
  cache_.clear();
}

void Translator::trace_block(const Block& block, std::span<const std::byte> host_code) {
  const std::span<const GuestInstruction> instructions = block_translator_.instructions();
  // The callout form is the second translation of an instruction that was shown already.
  if (options_.trace_guest_code && !block.key.mode.has(ModeBits::kCallout)) {
    std::vector<uint8_t> code;
    for (const GuestInstruction& insn : instructions.first(block.guest_instructions))
      code.insert(code.end(), insn.bytes.begin(), insn.bytes.begin() + insn.zydis.length);
    trace_.translated(guest_listing(block.key.mode, block.key.linear(), code));
  }
  if (options_.trace_host_code) {
    trace_.translated(
        describe_block(block, instructions, block_translator_.instruction_offsets(), host_code, thunks_));
  }
}

void Translator::trace_entry(const Block& block, bool shadow) {
  const HostVectorScope scope(state_);
  state_.interrupt_shadow = shadow;
  if (trace_.entered) trace_.entered(block);
  state_.interrupt_shadow = false;
}

std::vector<Translator::RecentBlock> Translator::recent_blocks() const {
  std::vector<RecentBlock> blocks;
  const size_t count = state_.recent_blocks.size();
  for (size_t age = 1; age <= count; ++age) {
    const size_t index = (state_.recent_block_offset / 8 + count - age) % count;
    const uint64_t host = state_.recent_blocks[index];
    const Block* block = host ? block_at(host) : nullptr;
    if (block && block->host == host)
      blocks.push_back({block, block->key.shared() ? LinearAddr{recent_rips_[index]} : block->key.linear()});
  }
  return blocks;
}

std::vector<std::pair<std::string, uint64_t>> Translator::statistics() const {
  const TranslationStats& made = block_translator_.stats();
  std::vector<std::pair<std::string, uint64_t>> rows{
      {"blocks translated", made.blocks},
      {"guest instructions translated", made.guest_instructions},
      {"guest bytes translated", made.guest_bytes},
      {"host bytes emitted", made.host_bytes},
      {"opcodes without a translation", made.unknown_opcodes},
      {"code cache bytes used", cache_.used()},
      {"code cache flushes", counters_.cache_flushes},
      {"blocks dropped (code changed)", counters_.blocks_killed},
      {"block lookups", counters_.lookups},
      {"jumps chained", counters_.links},
      {"jumps to dropped blocks", counters_.redispatches},
      {"inline TLB misses", counters_.tlb_misses},
      {"stores beside code", counters_.stores_beside_code},
      {"blocks moved to shadow windows", counters_.blocks_windowed},
      {"shadow windows filled", counters_.window_fills},
      {"accesses without a window", counters_.window_misses},
      {"regions guessed wrongly", counters_.window_selections},
      {"callouts: memory operands", counters_.callout_accesses},
      {"instructions run in callout form", counters_.callout_blocks},
      {"host faults taken as guest exceptions", counters_.host_faults},
      {"interrupt polls taken", counters_.poll_exits},
  };
  for (unsigned op = 0; op < kSystemOps; ++op) {
    if (const uint64_t count = counters_.system_ops[op]) {
      rows.push_back({"callouts: " + std::string(name_of(static_cast<SystemOp>(op))), count});
    }
  }
  return rows;
}

}  // namespace penumbra::jit
