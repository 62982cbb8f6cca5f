# Tools on machine code: what they print of the same file.
for file in /usr/bin/openssl /usr/bin/dash; do
  objdump -d "$file" | sha256sum
  objdump -s -j .rodata "$file" | sha256sum
  readelf -a -W "$file" | sha256sum
  nm -D "$file" | sha256sum
  strings -n 6 "$file" | sha256sum
  cp "$file" copy && strip copy && size copy && objcopy -O binary copy flat && sha256sum flat
done
for i in $(seq 1 25); do
  printf 'extern int f%d(int); int f%d(int x) { static int s[%d]; s[x %% %d] += x * %d; return x ? f%d(x - 1) ^ s[x %% %d] : %d; }\n' \
    $(((i + 1) % 25)) $((i % 25)) $i $i $i $(((i + 1) % 25)) $i $i >f$i.c
  gcc -w -O$((i % 4)) -g -ffunction-sections -c f$i.c
done
ar rcsD libf.a f*.o && nm -s libf.a | sha256sum && ranlib -D libf.a && sha256sum libf.a
echo 'int f1(int); int printf(const char*, ...); int main(void) { for (int i = 0; i < 200; i += 7) printf("%d ", f1(i)); return 0; }' >main.c
for flags in "" "-Wl,--gc-sections" "-flto" "-Wl,-z,now -pie" "-no-pie -static" "-Wl,--build-id=sha1 -Wl,-O2"; do
  gcc -w -O2 $flags -o program main.c f*.c && ./program && sha256sum <program
done
gcc -w -shared -fPIC -O2 -o libf.so f*.c && gcc -O2 -o program main.c -L. -lf -Wl,-rpath,. && ./program && sha256sum libf.so
gcc -w -S -O3 -o - /suite/c/floats.c | sha256sum
gcc -w -E /suite/c/vectors.c | sha256sum
gcc -w -O2 -fdump-tree-all -c /suite/c/x87.c && cat *.c.*t.* | sed 's/0x[0-9a-f]*//g' | wc -l
objdump -d -M intel f7.o | sha256sum; addr2line -e f7.o -f 0 10 20; c++filt _ZNSt6vectorIiSaIiEE9push_backERKi
as -o x.o - <<<'mov $1, %eax; vaddps %ymm1, %ymm2, %ymm3; rep movsb; .fill 3, 4, 0x90909090' && objdump -d x.o
