# The C programs, compiled at each level, for each width. The compiler's output is compared by its checksum, too.
build() {
  local name=$1
  shift
  if gcc -std=gnu17 -w -pthread "$@" -o program "/suite/c/$name.c" -lm; then
    echo "-- $name $*: $(sha256sum <program | cut -c 1-16)"
    ./program || echo "exit status $?"
  else
    echo "-- $name $*: does not compile"
  fi
}
levels=(-O0 -O1 -O2 -O3 -Os)
[ -z "$SLICE" ] || levels=(-O2)
for source in /suite/c/*.c; do
  name=$(basename "$source" .c)
  case $(gcc -dumpmachine) in
    x86_64*)
      for level in "${levels[@]}"; do build "$name" $level; done
      [ -n "$SLICE" ] || build "$name" -O2 -march=haswell -ffp-contract=off -static
      width=-m32
      ;;
    *) width=-m32 ;;
  esac
  build "$name" $width -O2 -msse2
  [ -z "$SLICE" ] || continue
  build "$name" $width -O0 -msse2
  build "$name" $width -O2 -march=haswell -mfpmath=sse -ffp-contract=off -static
done
