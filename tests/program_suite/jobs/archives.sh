# Each packer over text, code and noise: what it makes, and that what comes out is what went in.
python3 -c '
import random, sys
random.seed(5)
open("noise", "wb").write(random.randbytes(300000))
words = ["".join(random.choices("etaoinshrdlu ", k=random.randrange(1, 9))) for _ in range(900)]
open("text", "w").write(" ".join(random.choices(words, k=80000)))
open("zeros", "wb").write(bytes(1 << 20))
open("empty", "wb")
open("one", "w").write("x")'
cp /usr/bin/gawk code
mkdir folder && cp /usr/lib/python3.11/[a-b]*.py folder
tar --sort=name --mtime=@0 --owner=0 --group=0 -cf folder.tar folder
try() {
  local name=$1 pack=$2 unpack=$3 file
  for file in noise text zeros empty one code folder.tar; do
    $pack <$file >packed && $unpack <packed >unpacked && cmp -s $file unpacked && verdict=same || verdict=DIFFERENT
    echo "$name $file $(wc -c <packed) $(sha256sum <packed | cut -c 1-16) $verdict"
  done
}
if [ -n "$SLICE" ]; then
  try gzip "gzip -n" "gzip -d"
  try bzip2 bzip2 bunzip2
  try "xz -1" "xz -T1 -1" "xz -d"
  try zstd "zstd -q -c --single-thread" "zstd -q -d -c"
  exit
fi
for level in 1 6 9; do try "gzip -$level" "gzip -n -$level" "gzip -d"; done
for level in 1 9; do try "bzip2 -$level" "bzip2 -$level" bunzip2; done
for level in 0 3 6e; do try "xz -$level" "xz -T1 -$level" "xz -d"; done
try "xz x86" "xz -T1 --x86 --lzma2=preset=4,dict=1MiB" "xz -d"
try "xz delta" "xz -T1 --check=sha256 --delta=dist=4 --lzma2=preset=1" "xz -d"
try lzma "xz -T1 --format=lzma -4" "xz -d --format=lzma"
for level in 1 3 9 15; do try "zstd -$level" "zstd -q -c -$level --single-thread" "zstd -q -d -c"; done
try "zstd --long" "zstd -q -c --long=24 -6 --single-thread" "zstd -q -d -c --long=24"
# An archive's size depends on the files' times.
find text code noise folder empty one -exec touch -d @1000000000 {} +
for method in lzma2 lzma ppmd bzip2 deflate deflate64; do
  case $method in deflate*) kind=zip ;; *) kind=7z ;; esac
  rm -f archive
  7zz a -bd -mmt=1 -t$kind -m0=$method -mx=5 archive text code noise folder empty one >/dev/null 2>&1 ||
    7zz a -bd -mmt=1 -t$kind -mm=$method -mx=5 archive text code noise folder empty one >/dev/null
  file=$(ls archive* | head -n 1)
  echo "7zz $method $(7zz t -bd "$file" | grep -E 'Everything|Files|Size')"
  rm -rf out && 7zz x -bd -oout "$file" >/dev/null
  for name in text code noise empty one; do cmp "$name" "out/$name" && echo "$name is the same"; done
  diff -r folder out/folder && echo "the folder is the same"
  rm -f "$file"
done
7zz a -bd -mmt=1 -psecret -mhe=on sealed.7z text >/dev/null && 7zz x -bd -psecret -so sealed.7z | cmp - text && echo "sealed and opened"
7zz x -bd -pwrong -so sealed.7z >/dev/null 2>&1 && echo "a wrong password opens it"
7zz h -bd -scrcSHA256 text code noise | grep -E ' (text|code|noise)$'
for method in crc32 crc64 sha1 sha256 blake2sp; do 7zz h -bd -scrc$method code | grep -E 'for data'; done
7zz b 1 -mmt1 -md=18 2>&1 | grep -cE '^(Avr|Tot)'
# Without what Python has compiled there: the host's tree keeps it from one run to the next.
tar -C / --exclude=__pycache__ -cf - usr/lib/python3.11/json usr/lib/python3.11/email --sort=name --mtime=@0 | tar -tf - | sha256sum
for z in z j J --zstd; do case $z in --*) ;; *) z=-$z ;; esac; tar $z -cf t.tar folder && tar $z -xf t.tar -O | sha256sum; done
# Damaged archives are noticed, and nothing dies of them.
for packer in gzip bzip2 xz zstd; do
  $packer -q -c <code >packed
  for at in 11 100 1000 50000 200000; do
    cp packed damaged && printf '\xa5\x5a' | dd of=damaged bs=1 seek=$at conv=notrunc status=none
    $packer -q -d -c <damaged >unpacked 2>/dev/null
    echo "$packer $at $?"
  done
done
