# stress-ng's stressors that check what they compute (--verify), each a fixed number of times: its exit status and complaints.
run() {
  local name=$1 output
  shift
  output=$(stress-ng --verify --no-rand-seed --oomable --timeout 100 --temp-path . "$@" 2>&1)
  echo "$name $?"
  # The tree has no /sys.
  grep -E 'fail:|error:|corrupt' <<<"$output" | grep -v 'no CPUs found' | sed 's/\[[0-9]*\]//'
}
methods() { stress-ng "--$1-method" which 2>&1 | sed 's/.*: //' | tr ' ' '\n' | grep -vxE 'all|cache-lines|prime-incdec|'; }
stress() { for name in $2; do run "$name" "--$name" 1 "--$name-ops" "$1"; done; }
if [ -n "$SLICE" ]; then
  for method in int64 double longdouble float128 decimal64 matrixprod fft queens; do run "cpu $method" --cpu 1 --cpu-method $method --cpu-ops 2; done
  for method in rand-set walk-0a incdec; do run "vm $method" --vm 1 --vm-bytes 1M --vm-method $method --vm-ops 5; done
  run "matrix prod" --matrix 1 --matrix-size 64 --matrix-method prod --matrix-ops 5
  stress 5 "memcpy opcode sigsegv sigfpe signal sigtrap x86syscall"
  exit
fi
for method in $(methods cpu); do run "cpu $method" --cpu 1 --cpu-method "$method" --cpu-ops 2; done
for method in $(methods matrix); do run "matrix $method" --matrix 1 --matrix-size 96 --matrix-method "$method" --matrix-ops 10; done
for method in $(methods matrix-3d); do run "matrix-3d $method" --matrix-3d 1 --matrix-3d-size 24 --matrix-3d-method "$method" --matrix-3d-ops 5; done
for method in $(methods vm); do run "vm $method" --vm 1 --vm-bytes 2M --vm-method "$method" --vm-ops 20; done
# Arithmetic and instructions.
stress 20 "vecmath vecfp vecshuf vecwide fp fp-error regs rdrand tsc longjmp nop opcode x86cpuid x86syscall vdso syncload"
stress 5 "crypt hash funccall funcret branch goto far-branch icache jpeg sparsematrix zlib prefetch misaligned priv-instr usersyscall"
# Memory.
stress 5 "memcpy memrate malloc mmapfixed mmapmany madvise mincore mlock mprotect munmap msync shm shm-sysv remap fault
  brk bigheap stack stackmmap pageswap pagemove vm-addr vm-rw vm-segv vm-splice atomic lockbus cache cacheline
  stream userfaultfd membarrier randlist full zero null bad-altstack memthrash"
run mmap --mmap 1 --mmap-bytes 4M --mmap-ops 5
run mremap --mremap 1 --mremap-bytes 4M --mremap-ops 5
# Algorithms.
stress 2 "qsort bsearch heapsort mergesort radixsort shellsort hsearch lsearch tsearch skiplist judy str wcs list"
# Signals, processes and clocks.
stress 200 "signal sigfd sigfpe sigio sigpending sigpipe sigq sigrt sigsegv sigsuspend sigtrap sigabrt sigchld signest kill alarm timer
  itimer hrtimers fork vfork clone exec daemon zombie wait pidfd pthread mutex futex sem-sysv msg mq pipe fifo eventfd poll epoll switch
  context nanosleep sleep clock resched rseq seccomp ptrace session personality prctl rlimit getrandom peterson dekker exit-group"
# Files. Not xattr: what a tmpfs can hold depends on the kernel's version.
stress 20 "access fallocate fcntl flock lockf locka lockofd seek readahead rename link symlink dir dirdeep mknod open dup utime chmod
  hdd copy-file splice tee sendfile fstat fsize ioprio revio aio close getdent verity"
